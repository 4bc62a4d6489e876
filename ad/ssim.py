"""Structural similarity (SSIM), from scratch: one map, one loss.

Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural
similarity", IEEE TIP 2004, with the paper's Gaussian window (11 pixels, sigma 1.5).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def ssim_map(x: Tensor, y: Tensor, data_range: float, window_size: int = 11, sigma: float = 1.5,
             padding: str = "valid") -> Tensor:
    """Local SSIM of two image batches, per channel, in [-1, 1]; 1 = identical.

    x, y: (N, C, H, W) with values spanning `data_range` (1.0 for images in [0, 1]). Returns
    (N, C, H', W') in float32 (float64 for float64 input): valid padding drops window_size - 1 rows
    and columns and is what a loss wants; reflect padding keeps the size and is what a map wants.
    Covariances are the biased ones of the paper's eq. 14-16. Runs outside autocast.
    Raises ValueError for shapes that differ, an even or too large window, an unknown padding, or a
    data_range that is not positive.
    """
    if x.shape != y.shape or x.ndim != 4:
        raise ValueError(f"ssim needs two equal (N, C, H, W) shapes, got {tuple(x.shape)} "
                         f"and {tuple(y.shape)}")
    if window_size % 2 == 0 or window_size < 1:
        raise ValueError(f"ssim window_size must be odd and positive, got {window_size}")
    if min(x.shape[-2:]) < window_size:
        raise ValueError(f"image of {x.shape[-2]} x {x.shape[-1]} is smaller than the ssim window "
                         f"{window_size}")
    if padding not in ("valid", "reflect"):
        raise ValueError(f"ssim padding must be valid or reflect, got {padding!r}")
    if data_range <= 0:
        raise ValueError(f"ssim data_range must be positive, got {data_range}")
    if x.dtype != torch.float64:
        x, y = x.float(), y.float()
    if padding == "reflect":
        x, y = reflect(x, window_size), reflect(y, window_size)
    kernel = gaussian_kernel(window_size, sigma, x.dtype, x.device)
    return _SSIM.apply(x, y, kernel, (0.01 * data_range) ** 2, (0.03 * data_range) ** 2)


def ssim_loss(x: Tensor, y: Tensor, data_range: float, window_size: int = 11,
              sigma: float = 1.5) -> Tensor:
    """1 - mean SSIM over valid windows: a scalar in [0, 2], 0 for equal images. See ssim_map."""
    return 1 - ssim_map(x, y, data_range, window_size, sigma).mean()


class _SSIM(torch.autograd.Function):
    """SSIM over valid windows, with the gradient by hand: three blurred maps instead of autograd's
    eight. Not differentiable twice."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, y: Tensor, kernel: Tensor,
                c1: float, c2: float) -> Tensor:
        # Only the sum of the two variances enters SSIM, so four blurred moments do, not five.
        moments = blur(torch.cat([x, y, torch.addcmul(x * x, y, y), x * y], dim=1), kernel)
        # A copy of channels last costs less than to go through every fourth part of it again.
        mean_x, mean_y, mean_squares, mean_xy = moments.contiguous().chunk(4, dim=1)
        # Fewer passes over memory: rsub(a, c, alpha=-k) is c + k a.
        above_1 = torch.rsub(mean_x * mean_y, c1, alpha=-2)
        above_2 = torch.rsub(mean_xy, c1 + c2, alpha=-2).sub_(above_1)
        below_1 = torch.addcmul(mean_x * mean_x, mean_y, mean_y).add_(c1)
        below_2 = (mean_squares + (c1 + c2)).sub_(below_1)
        ctx.save_for_backward(x, y, kernel, mean_x, mean_y, above_1, above_2, below_1, below_2)
        return (above_1 * above_2).div_(below_1 * below_2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple:
        x, y, kernel, mean_x, mean_y, above_1, above_2, below_1, below_2 = ctx.saved_tensors
        gradient = 2 * gradient / (below_1 * below_2)
        by_xy = above_1 * gradient
        weighted = above_2 * by_xy  # SSIM times the incoming gradient, twice
        by_squares = weighted / below_2  # with the opposite sign
        cross, own = gradient.mul_(above_2 - above_1), by_squares - weighted.div_(below_1)

        def pull_back(image, other, mean, other_mean):
            maps = torch.cat([torch.addcmul(cross * other_mean, own, mean), by_squares, by_xy], 1)
            a, b, c = blur(maps, kernel, padding=len(kernel) - 1).chunk(3, dim=1)
            return torch.addcmul(a, image, b, value=-1).addcmul_(other, c)
        return (pull_back(x, y, mean_x, mean_y) if ctx.needs_input_grad[0] else None,
                pull_back(y, x, mean_y, mean_x) if ctx.needs_input_grad[1] else None,
                None, None, None)


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing of (N, 1, H, W), reflected at the edges, cut at 3 sigma (pixels)."""
    radius = min(int(3 * sigma + 0.5), min(maps.shape[-2:]) - 1)
    return gaussian_blur(maps, 2 * radius + 1, sigma) if radius > 0 else maps


def gaussian_blur(images: Tensor, size: int, sigma: float) -> Tensor:
    """Separable Gaussian blur of (N, C, H, W), mirrored at edges, in the input's precision, outside
    autocast."""
    return blur(reflect(images, size), gaussian_kernel(size, sigma, images.dtype, images.device))


def blur(images: Tensor, kernel: Tensor, padding: int = 0) -> Tensor:
    """Separable convolution of every channel with a symmetric `kernel` (size,), zero padding."""
    channels, size = images.shape[1], len(kernel)
    rows = kernel.view(1, 1, size, 1).expand(channels, 1, size, 1)
    columns = kernel.view(1, 1, 1, size).expand(channels, 1, 1, size)
    with torch.autocast(images.device.type, enabled=False):
        # Depthwise convolutions are about twice as fast in this layout.
        images = images.contiguous(memory_format=torch.channels_last)
        images = F.conv2d(images, rows, padding=(padding, 0), groups=channels)
        return F.conv2d(images, columns, padding=(0, padding), groups=channels)


def reflect(images: Tensor, size: int) -> Tensor:
    """Mirror (N, C, H, W) for a window of `size`, edge pixel not repeated; size // 2 < min(H, W).
    """
    left, right = size // 2, (size - 1) // 2
    return F.pad(images, (left, right, left, right), mode="reflect")


def gaussian_kernel(size: int, sigma: float, dtype: torch.dtype = torch.float32,
                    device: torch.device | str | None = None) -> Tensor:
    """Normalised 1-D Gaussian of `size` taps, centred at (size - 1) / 2: (size,), sums to 1."""
    offsets = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(dtype)
    if device is not None and torch.device(device).type == "cuda":
        kernel = kernel.pin_memory()  # so that nothing waits for the copy
    return kernel.to(device, non_blocking=True)
