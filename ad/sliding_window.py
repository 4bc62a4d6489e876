"""Sliding-window prediction: cut, run, merge. Any window, stride, padding and predictor."""

import itertools

import torch
import torch.nn.functional as F
from torch.profiler import record_function

from ad.ssim import gaussian_kernel

PADDINGS = ("reflect", "replicate", "constant", "none")
WEIGHTINGS = ("uniform", "gaussian")


class NonFiniteError(ValueError):
    """The predictor gave NaN or infinity for image number `index` of the batch."""

    def __init__(self, index):
        super().__init__(f"non-finite prediction for image {index} of the batch")
        self.index = index


def window_starts(length, window, stride):
    """First pixels of the windows along one axis: evenly spaced, from 0 to length - window.

    As few windows as keep every step <= stride. window <= length.
    """
    span = length - window
    count = -(-span // stride) + 1
    return [0] if count == 1 else [(2 * i * span + count - 1) // (2 * (count - 1))
                                   for i in range(count)]


def axis_weights(starts, window, length, weighting):
    """Merge weights along one axis: those of a window (window,), and their sum (length,)."""
    weight = torch.ones(window)
    if weighting == "gaussian":
        weight = gaussian_kernel(window, window / 8)
        weight = (weight / weight.max()).clamp_min(1e-3)
    total = torch.zeros(length)
    for start in starts:
        total[start:start + window] += weight
    return weight, total


def uniform_step(starts):
    """The one distance between neighbouring starts, or None when they differ by a pixel."""
    steps = {b - a for a, b in zip(starts, starts[1:])}
    return None if len(steps) > 1 else steps.pop() if steps else 1


def cut(images, starts, window):
    """All windows of (N, C, H, W), in the order image, row, column: (N * ny * nx, C, h, w)."""
    steps = [uniform_step(s) for s in starts]
    if None in steps:
        # A view of every possible window; indexing it with the wanted corners copies just those.
        view = images.unfold(2, window[0], 1).unfold(3, window[1], 1)
        ys, xs = (torch.tensor(s, device=images.device) for s in starts)
        view = view[:, :, ys[:, None], xs]
    else:
        view = images.unfold(2, window[0], steps[0]).unfold(3, window[1], steps[1])
    return view.permute(0, 2, 3, 1, 4, 5).reshape(-1, images.shape[1], *window)


def merge(pieces, starts, weights, totals):
    """Weighted average of overlapping windows: (N, ny, nx, K, h, w) -> (N, K, H, W), float32.

    weights, totals: of a window and of the image, per axis. Windows that do not overlap are added
    in one operation: four in all for a stride of half the window, however many windows there are.
    (Unevenly spaced ones: one operation a row and a column.)
    """
    images, _, _, channels, h, w = pieces.shape
    height, width = (len(total) for total in totals)
    maps = pieces.new_zeros(images, channels, height, width)
    steps = [uniform_step(s) for s in starts]
    if None in steps:
        # Starts that are not evenly spaced to the pixel: columns of windows first, then rows.
        rows = pieces.new_zeros(images, len(starts[0]), channels, h, width)
        for i, x in enumerate(starts[1]):
            rows[..., x:x + w].addcmul_(pieces[:, :, i], weights[1])
        for i, y in enumerate(starts[0]):
            maps[..., y:y + h, :].addcmul_(rows[:, i], weights[0][:, None])
        return maps.div_(totals[0][:, None] * totals[1])
    # Every so many windows the next one starts where the first has ended, or after that.
    apart = [-(-side // step) for side, step in zip((h, w), steps)]
    weight = weights[0][:, None] * weights[1]
    for i, j in itertools.product(range(min(apart[0], len(starts[0]))),
                                  range(min(apart[1], len(starts[1])))):
        part = pieces[:, i::apart[0], j::apart[1]].permute(0, 3, 1, 2, 4, 5)
        place = maps[..., i * steps[0]:, j * steps[1]:]
        place = place.unfold(2, h, apart[0] * steps[0]).unfold(3, w, apart[1] * steps[1])
        place.addcmul_(part, weight)
    return maps.div_(totals[0][:, None] * totals[1])


def check_arguments(images, window, stride, padding, weighting, window_batch):
    """Raise ValueError for what cannot be done; returns (height, width) pairs of the first two."""
    pairs = []
    for name, value in (("window", window), ("stride", stride)):
        pair = (value, value) if isinstance(value, int) else tuple(value)
        if len(pair) != 2 or any(v < 1 for v in pair):
            raise ValueError(f"{name} must be a positive size or (height, width), got {value}")
        pairs.append(pair)
    if any(s > w for w, s in zip(*pairs)):
        raise ValueError(f"stride {stride} is larger than window {window}: pixels would be skipped")
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"images must be a non-empty (N, C, H, W), got {tuple(images.shape)}")
    if padding not in PADDINGS or weighting not in WEIGHTINGS:
        raise ValueError(f"padding is one of {PADDINGS} and weighting one of {WEIGHTINGS}, "
                         f"got {padding!r} and {weighting!r}")
    if window_batch < 1:
        raise ValueError(f"window_batch must be at least 1, got {window_batch}")
    return pairs


def pad_to_window(images, window, padding):
    """Pad (N, C, H, W) on both sides where it is smaller than the window: (padded, top, left)."""
    missing = [max(0, w - side) for w, side in zip(window, images.shape[-2:])]
    top, left = missing[0] // 2, missing[1] // 2
    if not any(missing):
        return images, 0, 0
    bottom, right = missing[0] - top, missing[1] - left
    size = f"image of {images.shape[-2]} x {images.shape[-1]} is smaller than the window {window}"
    if padding == "none":
        raise ValueError(f"{size} and padding is none")
    if padding == "reflect" and (bottom >= images.shape[-2] or right >= images.shape[-1]):
        raise ValueError(f"{size} by too much to reflect; use padding replicate or constant")
    return F.pad(images, (left, right, top, bottom), mode=padding), top, left


def sliding_window(images, predict, window, stride, padding="reflect", weighting="uniform",
                   window_batch=16):
    """Run `predict` on overlapping windows of every image and average what it says of each pixel.

    images: (N, C, H, W), any floating dtype and device. predict: (B, C, h, w) -> (B, K, h, w),
    called with up to `window_batch` windows, which may come from several images, in the order
    image, row, column. window, stride: pixels, one number or (height, width). Windows are evenly
    spaced, start and end at the image's edges, and step at most `stride`. padding is used only
    where the image is smaller than the window, and is cut off again. weighting: "uniform", or
    "gaussian" (sigma = window / 8, centred at (window - 1) / 2, never below 1e-3 of its peak).
    Returns float32 (N, K, H, W). Sums are float32; memory beyond input and output is that of the
    windows of about window_batch images' share: one image's at least.
    Raises ValueError for impossible arguments, and NonFiniteError, a ValueError that names the
    image's index in the batch, for a prediction that is not finite.
    """
    window, stride = check_arguments(images, window, stride, padding, weighting, window_batch)
    height, width = images.shape[-2:]
    images, top, left = pad_to_window(images, window, padding)
    shape = images.shape[-2:]
    starts = [window_starts(*sizes) for sizes in zip(shape, window, stride)]
    weights, totals = zip(*((w.to(images.device), t.to(images.device)) for w, t in (
        axis_weights(*sizes, weighting) for sizes in zip(starts, window, shape))))
    per_image = len(starts[0]) * len(starts[1])
    group = max(1, window_batch // per_image)
    merged = []
    for first in range(0, len(images), group):
        with record_function("cut"):
            windows = cut(images[first:first + group], starts, window)
        pieces = []
        for batch in windows.split(window_batch):
            with record_function("model"):
                pieces.append(predict(batch).float())
        with record_function("merge"):
            pieces = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
            if pieces.ndim != 4 or pieces.shape[-2:] != window:
                raise ValueError(f"predict returned {tuple(pieces.shape)} for windows of {window}")
            pieces = pieces.unflatten(0, (-1, *map(len, starts)))
            merged.append(merge(pieces, starts, weights, totals))
    merged = torch.cat(merged)[..., top:top + height, left:left + width]
    finite = merged.isfinite().flatten(1).all(1)
    if not finite.all():
        raise NonFiniteError(int((~finite).nonzero()[0]))
    return merged.contiguous()
