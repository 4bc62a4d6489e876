"""Sliding-window prediction: cut, run, merge. Any window, stride, padding and predictor."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ad.ssim import gaussian_kernel

PADDINGS = ("reflect", "replicate", "constant", "none")
WEIGHTINGS = ("uniform", "gaussian")


class NonFiniteError(ValueError):
    """The predictor gave NaN or infinity for image number `index` of the batch."""

    def __init__(self, index: int):
        super().__init__(f"non-finite prediction for image {index} of the batch")
        self.index = index


def sliding_window(images: Tensor, predict: Callable, window: int | tuple, stride: int | tuple,
                   padding: str = "reflect", weighting: str = "uniform",
                   window_batch: int = 16) -> Tensor:
    """Run `predict` on overlapping windows of every image and average what it says of each pixel.

    images: (N, C, H, W), any floating dtype and device. predict: (B, C, h, w) -> (B, K, h, w),
    called with up to `window_batch` windows, which may come from several images, in the order
    image, row, column; it must not write into them, for they may be views of the images.
    window, stride: pixels, one number or (height, width). Windows are evenly spaced, start and end
    at the image's edges, and step at most `stride`. padding is used only where the image is smaller
    than the window, and is cut off again. weighting: "uniform", or "gaussian" (sigma = window / 8,
    centred at (window - 1) / 2, never below 1e-3 of its peak).
    Returns float32 (N, K, H, W). Sums are float32; beyond input and output there is memory for one
    batch, or one row of windows where that is more.
    Raises ValueError for impossible arguments, and NonFiniteError, a ValueError that names the
    image's index in the batch, for a prediction that is not finite.
    """
    window, stride = check_arguments(images, window, stride, padding, weighting, window_batch)
    height, width = images.shape[-2:]
    images, top, left = pad_to_window(images, window, padding)
    shape = images.shape[-2:]
    ys, xs = (window_starts(*sizes) for sizes in zip(shape, window, stride))
    weights, totals = zip(*(axis_weights(*sizes, weighting, images.device)
                            for sizes in zip((ys, xs), window, shape)))
    weight = None if weighting == "uniform" else weights[0][:, None] * weights[1]
    # A row of windows that fills a third of a batch goes by itself, as a view, uncopied.
    step = uniform_step(xs)
    rows = [(n, y) for n in range(len(images)) for y in ys]
    together = 1 if 3 * len(xs) >= window_batch else window_batch // len(xs)
    merged = None
    for first in range(0, len(rows), together):
        batch = rows[first:first + together]
        windows = [cut_row(images[n, :, y:y + window[0]], xs, step, window[1])
                   for n, y in batch]
        windows = torch.cat(windows) if len(windows) > 1 else windows[0]
        maps = []
        for part in windows.split(window_batch):
            maps.append(predict(part))
            if maps[-1].ndim != 4 or maps[-1].shape[2:] != window:
                raise ValueError(f"predict returned {tuple(maps[-1].shape)} for windows {window}")
        maps = torch.cat(maps).float() if len(maps) > 1 else maps[0].float()
        if merged is None:
            merged = maps.new_zeros(len(images), maps.shape[1], *shape)
        for (n, y), row in zip(batch, maps.split(len(xs))):
            add_row(merged[n, :, y:y + window[0]], row, xs, step, weight)
    merged = merged.div_(totals[0][:, None] * totals[1])[..., top:top + height, left:left + width]
    check_finite(merged)
    return merged.contiguous()


def check_arguments(images: Tensor, window: int | tuple, stride: int | tuple, padding: str,
                    weighting: str, window_batch: int) -> list[tuple]:
    """Raise ValueError for what cannot be done; returns (height, width) of window and of stride."""
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


def pad_to_window(images: Tensor, window: tuple, padding: str) -> tuple[Tensor, int, int]:
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


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows along one axis: evenly spaced, from 0 to length - window.

    As few windows as keep every step <= stride. window <= length.
    """
    span = length - window
    count = -(-span // stride) + 1
    return [0] if count == 1 else [(2 * i * span + count - 1) // (2 * (count - 1))
                                   for i in range(count)]


def axis_weights(starts: list, window: int, length: int, weighting: str,
                 device: torch.device) -> tuple[Tensor, Tensor]:
    """Merge weights along one axis: those of a window (window,), and their sum (length,)."""
    weight = torch.ones(window, device=device)
    if weighting == "gaussian":
        weight = gaussian_kernel(window, window / 8, device=device)
        weight = (weight / weight.max()).clamp_min(1e-3)
    total = torch.zeros(length, device=device)
    for start in starts:
        total[start:start + window] += weight
    return weight, total


def uniform_step(starts: list) -> int | None:
    """The one distance between neighbouring starts, or None when they differ by a pixel."""
    steps = {b - a for a, b in zip(starts, starts[1:])} or {1}
    return steps.pop() if len(steps) == 1 else None


def cut_row(strip: Tensor, starts: list, step: int | None, width: int) -> Tensor:
    """Windows (S, C, h, width) of a strip (C, h, W); a view of it if they are `step` apart."""
    if step is None:
        windows = strip.unfold(2, width, 1)[:, :, starts]
    else:
        windows = strip.unfold(2, width, step)
    return windows.permute(2, 0, 1, 3)


def add_row(strip: Tensor, row: Tensor, starts: list, step: int | None,
            weight: Tensor | None) -> None:
    """Add weighted windows (S, K, h, w) to a strip (K, h, W) of the sum, in place.

    Where they are `step` apart (not None), those that do not overlap are added in one operation:
    two in all for a stride of half the window, however many windows there are.
    """
    width = row.shape[-1]
    apart = len(starts) if step is None else -(-width // step)
    for i in range(min(apart, len(starts))):
        part = row[i::apart].permute(1, 2, 0, 3)
        place = strip[..., starts[i]:].unfold(2, width, apart * (step or width))
        place = place[:, :, :part.shape[2]]
        if weight is None:
            place.add_(part)
        else:
            place.addcmul_(part, weight[:, None])


def check_finite(*maps: Tensor) -> None:
    """Raise NonFiniteError naming the first image of (N, K, H, W), one or several tensors of the
    same images, that holds NaN or infinity."""
    # A sum is finite only if every term is: one pass instead of three. If it is not, look closer.
    if not sum(part.sum() for part in maps).isfinite():
        finite = torch.cat(maps, 1).isfinite().flatten(1).all(1)
        if not finite.all():
            raise NonFiniteError(int((~finite).nonzero()[0]))
