"""Error maps -> calibrated map -> top-k score."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from ad import InputError
from ad.augment import FLIPS
from ad.calibration import Calibration
from ad.config import ERRORS, Scoring
from ad.data import to_float
from ad.images import MIN_SIDE
from ad.sliding_window import NonFiniteError, check_finite, sliding_window
from ad.ssim import smooth

ENLARGED = 256  # pixels


def side_for_model(side: int, window_input: int) -> int:
    """Long side in pixels at which a model gets a window of long side `side`: window_input where
    that is smaller; a small window is enlarged, but to ENLARGED at most."""
    return min(window_input, max(side, ENLARGED)) if window_input else side


def resized(predict: Callable, size: int) -> Callable:
    """Wrap a window predictor: windows to side_for_model before it, its maps back after it."""
    def wrapped(windows):
        shape = windows.shape[-2:]
        scale = side_for_model(max(shape), size) / max(shape)
        small = [max(min(side, MIN_SIDE), round(side * scale)) for side in shape]
        windows = F.interpolate(windows, small, mode="bilinear", antialias=True)
        return F.interpolate(predict(windows), shape, mode="bilinear")
    return wrapped if size else predict


def flipped(images: torch.Tensor, names: tuple) -> torch.Tensor:
    """Images or maps (N, C, H, W) after the FLIPS of these names, one after the other."""
    for name in names:
        images = FLIPS[name][0](images)
    return images


def over_flips(predict: Callable, flips: tuple | list) -> Callable:
    """Wrap a window predictor: its mean over all ways to flip a window that keep its shape. A
    network is not equally sure about them, though to the eye they are alike."""
    def wrapped(windows):
        ways = [()]
        for name in flips:
            if name != "diagonal" or windows.shape[-2] == windows.shape[-1]:
                ways += [(*way, name) for way in ways]
        maps = predict(torch.cat([flipped(windows, way) for way in ways]))
        maps = maps.unflatten(0, (len(ways), -1))
        return sum(flipped(part, way[::-1]) for part, way in zip(maps, ways)) / len(ways)
    return wrapped if flips else predict


def exposed(model: torch.nn.Module, images: torch.Tensor) -> tuple:
    """Whole images (N, 3, H, W) as bright as this model wants them, and how many times as bright as
    they were: (N, 1, 1, 1), or 1.0 of a model that takes them as they are."""
    if not hasattr(model, "gain"):
        return images, 1.0
    gain = model.gain(images)
    return (images * gain).clamp(0, 1), gain


@torch.no_grad()
def raw_maps(model: torch.nn.Module, images: torch.Tensor, scoring: Scoring,
             window_batch: int = 16) -> dict:
    """Maps of every error and scale: images (N, 3, H, W) -> {"mse@128": (N, 1, H, W), ...}.

    A window is cut down to the image where it is larger, so nothing is ever padded. window_batch
    counts windows of 256 x 256 pixels; larger ones go in smaller batches, smaller ones in larger.
    """
    names = []

    def predict(batch):
        gain = [batch[:, 3:, :1, :1]] if batch.shape[1] > 3 else []
        maps = model.anomaly_maps(batch[:, :3], ERRORS[scoring.error], *gain)
        names[:] = maps  # known once the model has run
        return torch.cat(list(maps.values()), dim=1)

    images, gain = exposed(model, images)  # before they are cut into windows,
    if torch.is_tensor(gain):  # each of which carries its image's gain as a fourth channel
        images = torch.cat([images, gain.expand_as(images[:, :1])], 1)
    shape, done, result = images.shape[-2:], {}, {}
    for window in scoring.windows:
        size = tuple(min(window or side, side) for side in shape)
        if size not in done:
            stride = tuple(max(1, side // 2) for side in size)
            scale = side_for_model(max(size), scoring.window_input) / max(size)
            pixels = size[0] * size[1] * scale ** 2 * 2 ** len(scoring.flips)
            batch = max(1, round(window_batch * 256 ** 2 / pixels))
            run = resized(over_flips(predict, scoring.flips), scoring.window_input)
            if size == shape:  # nothing to cut or to merge; an exported program cannot loop
                parts = [images] if torch.compiler.is_exporting() else images.split(batch)
                parts = [run(part) for part in parts]
                done[size] = torch.cat(parts) if len(parts) > 1 else parts[0]
            else:
                done[size] = sliding_window(images, run, size, stride, window_batch=batch)
        for channel, name in enumerate(names):
            result[f"{name}@{window}"] = done[size][:, channel:channel + 1]
    return result


def not_finite(index: int, names: list | None) -> InputError:
    return InputError(f"the model gives NaN or infinity for image "
                      f"{names[index] if names else index}")


def require_finite(maps: dict, start: int, names: list | None) -> None:
    """Raise InputError that names the first image of {name: (N, 1, H, W)} with NaN or infinity."""
    try:
        check_finite(*maps.values())
    except NonFiniteError as error:
        raise not_finite(start + error.index, names) from error


def raw_batches(model: torch.nn.Module, images: list, scoring: Scoring, device: torch.device | str,
                window_batch: int, names: list | None) -> Iterator[tuple]:
    """As map_images, but yields (number of the first image, raw_maps), and those of whole images
    are not checked for NaN or infinity."""
    start = 0
    while start < len(images):
        shape, stop = images[start].shape, start + 1
        most = max(1, 2 ** 24 // (shape[-2] * shape[-1]))
        while stop < len(images) and images[stop].shape == shape and stop - start < most:
            stop += 1
        batch = torch.stack(images[start:stop]).contiguous(memory_format=torch.channels_last)
        try:
            maps = raw_maps(model, to_float(batch, device), scoring, window_batch)
        except NonFiniteError as error:
            raise not_finite(start + error.index, names) from error
        yield start, maps
        start = stop


def map_images(model: torch.nn.Module, images: list, scoring: Scoring, device: torch.device | str,
               window_batch: int = 16, names: list | None = None) -> Iterator[dict]:
    """Yield raw_maps of successive batches of `images` (uint8 (3, H, W), sizes may differ).

    A batch holds neighbours of one size, at most 16 megapixels. names: how to call an image in
    the InputError raised when the model's output is not finite; its number by default.
    """
    for start, maps in raw_batches(model, images, scoring, device, window_batch, names):
        require_finite(maps, start, names)
        yield maps


def combine(maps: dict) -> torch.Tensor:
    """{"name@window": z map (N, 1, H, W)}, window by window, each with the same names -> (N, 1, H,
    W): mean over errors, max over windows."""
    windows = len({name.split("@")[1] for name in maps})
    means = torch.cat(list(maps.values()), 1).unflatten(1, (windows, -1)).mean(2)
    return means.amax(1, keepdim=True) if windows > 1 else means


def topk_mean(maps: torch.Tensor, fraction: float) -> torch.Tensor:
    """Mean of the highest `fraction` of the pixels of each map: (N, C, H, W) -> (N,).

    At least one pixel. Raises ValueError unless 0 < fraction <= 1.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"top-k fraction must be in (0, 1], got {fraction}")
    flat = maps.flatten(1)
    return flat.topk(max(1, round(fraction * flat.shape[1])), dim=1, sorted=False).values.mean(1)


def final_maps(maps: dict, calibration: Calibration, scoring: Scoring) -> torch.Tensor:
    """raw_maps -> the one calibrated, combined, smoothed map (N, 1, H, W)."""
    return smooth(combine(calibration.apply(maps)), scoring.sigma)


def load_calibration(saved: dict) -> Calibration:
    """The dict of `calibrate` -> Calibration."""
    return Calibration(**{name: saved[name] for name in Calibration.__dataclass_fields__})


def score_images(model: torch.nn.Module, images: list, saved: dict, device: torch.device | str,
                 window_batch: int = 16, names: list | None = None) -> Iterator[tuple]:
    """Yield (scores (B,), on the CPU, final maps (B, 1, H, W)) of successive batches of images.

    saved: the dict of `calibrate`; the other arguments as for `map_images`.
    """
    scoring, calibration = Scoring(**saved["scoring"]), load_calibration(saved).to(device)
    for start, maps in raw_batches(model, images, scoring, device, window_batch, names):
        final = final_maps(maps, calibration, scoring)
        scores = topk_mean(final, scoring.topk).cpu()  # the only wait for a GPU
        if not scores.isfinite().all():
            require_finite(maps, start, names)
        yield scores, final
