"""Error maps -> calibrated map -> top-k score -> ensemble -> threshold."""

from dataclasses import asdict, dataclass

import numpy as np
import torch

from ad import InputError
from ad.data import to_float
from ad.sliding_window import NonFiniteError, sliding_window
from ad.ssim import gaussian_blur

ERRORS = {"mse": ("mse",), "ssim": ("ssim",), "both": ("mse", "ssim")}


@dataclass(frozen=True)
class Scoring:
    """How maps become a score. windows: sides in pixels, 0 = the whole image; error: a key of
    ERRORS; sigma: Gaussian smoothing of the final map in pixels, 0 = none; topk: share of the
    pixels that is averaged, in (0, 1]."""
    windows: tuple = (128, 256, 512)
    error: str = "both"
    sigma: float = 4.0
    topk: float = 0.005

    def check(self):
        """Raise InputError for values that cannot be used; returns self."""
        if not 0 < self.topk <= 1:
            raise InputError(f"--topk must be in (0, 1], got {self.topk}")
        if self.sigma < 0:
            raise InputError(f"--sigma must not be negative, got {self.sigma}")
        if not self.windows or any(0 < w < 32 or w < 0 for w in self.windows):
            raise InputError("--windows must be 0 (whole image) or at least 32 pixels, got "
                             f"{' '.join(map(str, self.windows))}")
        return self


@dataclass
class Calibration:
    """What is normal: mean and standard deviation of each map, over normal images.

    mean, std: {map name: (1, 1, 1, 1)}, names as given by `raw_maps`.
    """
    mean: dict
    std: dict
    eps: float = 1e-6

    def apply(self, maps):
        """{name: (N, 1, H, W)} -> {name: z map (N, 1, H, W)}, z = (map - mean) / (std + eps)."""
        return {name: (m - self.mean[name].to(m)) / (self.std[name].to(m) + self.eps)
                for name, m in maps.items()}


def fit_calibration(batches):
    """Calibration over all pixels of an iterable of {name: (N, 1, H, W)} of normal images."""
    count, total, squares = {}, {}, {}
    for maps in batches:
        for name, m in maps.items():
            m = m.double()
            count[name] = count.get(name, 0) + m.numel()
            total[name] = total.get(name, 0) + m.sum()
            squares[name] = squares.get(name, 0) + (m * m).sum()
    mean = {n: total[n] / count[n] for n in count}
    std = {n: (squares[n] / count[n] - mean[n] ** 2).clamp_min(0).sqrt() for n in count}
    return Calibration(*({n: v.float().view(1, 1, 1, 1).cpu() for n, v in part.items()}
                         for part in (mean, std)))


@torch.no_grad()
def raw_maps(model, images, scoring, window_batch=16):
    """Maps of every error and scale: images (N, 3, H, W) -> {"mse@128": (N, 1, H, W), ...}.

    A window is cut down to the image where it is larger, so nothing is ever padded. window_batch
    counts windows of 256 x 256 pixels; larger ones go in smaller batches, smaller ones in larger.
    """
    names = ERRORS[scoring.error]

    def predict(batch):
        maps = model.anomaly_maps(batch)
        return torch.cat([maps[name] for name in names], dim=1)

    shape, done, result = images.shape[-2:], {}, {}
    for window in scoring.windows:
        size = tuple(min(window or side, side) for side in shape)
        if size not in done:
            stride = tuple(max(1, side // 2) for side in size)
            batch = max(1, round(window_batch * 256 ** 2 / (size[0] * size[1])))
            done[size] = sliding_window(images, predict, size, stride, window_batch=batch)
        for channel, name in enumerate(names):
            result[f"{name}@{window}"] = done[size][:, channel:channel + 1]
    return result


def map_images(model, images, scoring, device, window_batch=16, names=None):
    """Yield raw_maps of successive batches of `images` (uint8 (3, H, W), sizes may differ).

    A batch holds neighbours of one size, at most 16 megapixels. names: how to call an image in
    the InputError raised when the model's output is not finite; its number by default.
    """
    start = 0
    while start < len(images):
        shape, stop = images[start].shape, start + 1
        most = max(1, 2 ** 24 // (shape[-2] * shape[-1]))
        while stop < len(images) and images[stop].shape == shape and stop - start < most:
            stop += 1
        batch = to_float(torch.stack(images[start:stop]), device)
        try:
            yield raw_maps(model, batch.contiguous(memory_format=torch.channels_last), scoring,
                           window_batch)
        except NonFiniteError as error:
            index = start + error.index
            raise InputError(f"the model gives NaN or infinity for image "
                             f"{names[index] if names else index}") from error
        start = stop


def combine(maps):
    """{"name@window": z map (N, 1, H, W)} -> (N, 1, H, W): mean over errors, max over windows."""
    by_window = {}
    for name, m in maps.items():
        by_window.setdefault(name.split("@")[1], []).append(m)
    means = [torch.stack(group).mean(0) for group in by_window.values()]
    return torch.stack(means).amax(0)


def smooth(maps, sigma):
    """Gaussian smoothing of (N, 1, H, W), reflected at the edges, cut at 3 sigma (pixels)."""
    radius = min(int(3 * sigma + 0.5), min(maps.shape[-2:]) - 1)
    return gaussian_blur(maps, 2 * radius + 1, sigma, "reflect") if radius > 0 else maps


def topk_mean(maps, fraction):
    """Mean of the highest `fraction` of the pixels of each map: (N, C, H, W) -> (N,).

    At least one pixel. Raises ValueError unless 0 < fraction <= 1.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"top-k fraction must be in (0, 1], got {fraction}")
    flat = maps.flatten(1)
    return flat.topk(max(1, round(fraction * flat.shape[1])), dim=1, sorted=False).values.mean(1)


def final_maps(maps, calibration, scoring):
    """raw_maps -> the one calibrated, combined, smoothed map (N, 1, H, W)."""
    return smooth(combine(calibration.apply(maps)), scoring.sigma)


def calibrate(model, images, scoring, device, window_batch=16):
    """Learn what is normal from normal images (uint8 (3, H, W)): the checkpoint's `calibration`.

    Plain dict: scoring (its values), mean, std, eps (see Calibration), and scores, the image
    scores of these images. All raw maps are held in memory at once.
    """
    batches = list(map_images(model, images, scoring, device, window_batch))
    calibration = fit_calibration(batches)
    scores = torch.cat([topk_mean(final_maps(maps, calibration, scoring), scoring.topk)
                        for maps in batches])
    return {"scoring": asdict(scoring), **vars(calibration), "scores": scores.tolist()}


def load_calibration(saved):
    """The dict of `calibrate` -> Calibration."""
    return Calibration(saved["mean"], saved["std"], saved["eps"])


def score_images(model, images, saved, device, window_batch=16, names=None):
    """Yield (scores (B,), final maps (B, 1, H, W)) of successive batches of uint8 images.

    saved: the dict of `calibrate`; the other arguments as for `map_images`.
    """
    scoring, calibration = Scoring(**saved["scoring"]), load_calibration(saved)
    for maps in map_images(model, images, scoring, device, window_batch, names):
        final = final_maps(maps, calibration, scoring)
        yield topk_mean(final, scoring.topk), final


def standardise(scores, normal_scores):
    """z of image scores on those of normal images, so that members and categories compare."""
    normal_scores = np.asarray(normal_scores, dtype=np.float64)
    return (np.asarray(scores, dtype=np.float64) - normal_scores.mean()) / (
        normal_scores.std() + 1e-6)


def parse_threshold(text):
    """"quantile:0.99" or a number -> function of the normal scores that gives the threshold."""
    kind, _, value = text.rpartition(":")
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if kind == "quantile" and 0 <= number <= 1:
        return lambda normal_scores: float(np.quantile(normal_scores, number))
    if kind == "" and np.isfinite(number):
        return lambda normal_scores: number
    raise InputError(f"--threshold must be quantile:Q with Q in [0, 1], or a number, got {text!r}")
