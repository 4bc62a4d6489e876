"""Error maps between an image and its reconstruction: one value per pixel, higher = stranger."""

from collections.abc import Iterable

import torch

from ad import InputError
from ad.ssim import ssim_map


def error_maps(images: torch.Tensor, output: torch.Tensor, names: Iterable) -> dict:
    """{name: (N, 1, H, W)} for names among mse and ssim; images in [0, 1].

    mse: squared error, channel mean. ssim: 1 - SSIM, channel mean, in [0, 2]. float32.
    """
    def one(name):
        if name == "mse":
            return (output - images).square().mean(1, keepdim=True)
        if name != "ssim":
            raise InputError(f"--error {name} is not one of this model's")
        similarity = ssim_map(output, images, data_range=1.0, padding="reflect")
        return 1 - similarity.mean(1, keepdim=True)
    return {name: one(name) for name in names}
