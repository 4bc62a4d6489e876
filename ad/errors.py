"""Error maps between an image and its reconstruction: one value per pixel, higher = stranger."""

import torch
import torch.nn.functional as F

from ad import InputError
from ad.ssim import ssim_map


def gradient_magnitude(images: torch.Tensor) -> torch.Tensor:
    """Prewitt gradient magnitude, edges replicated: (N, 1, H, W) -> same shape."""
    column = images.new_tensor([[-1., 0, 1]] * 3) / 3
    kernels = torch.stack([column, column.T])[:, None]
    with torch.autocast(images.device.type, enabled=False):
        gradients = F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernels)
    # The tiny constant keeps the derivative of the square root finite on flat areas.
    return (gradients.square().sum(1, keepdim=True) + 1e-12).sqrt()


def msgms_map(x: torch.Tensor, y: torch.Tensor, scales: int = 4, c: float = 0.0026) -> torch.Tensor:
    """Multi-scale gradient-magnitude dissimilarity, in [0, 1]: (N, 3, H, W) twice -> (N, 1, H, W).

    1 - mean over scales of (2 g_x g_y + c) / (g_x^2 + g_y^2 + c), g of the grey images in [0, 1],
    halved from scale to scale by 2 x 2 averaging, as far as the size allows. Zavrtanik et al.,
    "Reconstruction by inpainting for visual anomaly detection" (RIAD), Pattern Recognition 2021.
    """
    shape, total = x.shape[-2:], 0
    x, y = (t.float().mean(1, keepdim=True) for t in (x, y))
    scales = min(scales, min(shape).bit_length())
    for scale in range(scales):
        if scale:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        gx, gy = gradient_magnitude(x), gradient_magnitude(y)
        similar = (2 * gx * gy + c) / (gx * gx + gy * gy + c)
        total = total + F.interpolate(similar, shape, mode="bilinear")
    return 1 - total / scales


def error_maps(images: torch.Tensor, output: torch.Tensor, names: list | dict) -> dict:
    """{name: (N, 1, H, W)} for names among mse, ssim, msgms; images in [0, 1].

    mse: squared error, channel mean. ssim: 1 - SSIM, channel mean, in [0, 2]. msgms: see msgms_map.
    float32.
    """
    def one(name):
        if name == "mse":
            return (output - images).square().mean(1, keepdim=True)
        if name == "msgms":
            return msgms_map(output, images)
        if name != "ssim":
            raise InputError(f"--error {name} is not one of this model's")
        similarity = ssim_map(output, images, data_range=1.0, padding="reflect")
        return 1 - similarity.mean(1, keepdim=True)
    return {name: one(name) for name in names}
