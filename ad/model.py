"""The U-Net autoencoder (Ronneberger et al., MICCAI 2015) and build_model."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from ad.errors import error_maps
from ad.memory import PatchMemory
from ad.ssim import ssim_loss

SSIM_WEIGHT = 0.84  # Zhao et al., "Loss Functions for Image Restoration", 2017


def conv_block(in_channels, out_channels):
    """Two 3 x 3 convolutions with batch norm and ReLU, size kept."""
    layers = []
    for channels in (in_channels, out_channels):
        layers += [nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
                   nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNetAutoencoder(nn.Module):
    """U-Net with skip connections that reproduces its input.

    width: channels of the first level, doubled at each of `depth` halvings. Any image size works:
    the input is replicate-padded to a multiple of 2 ** depth and the output cropped back.
    """

    def __init__(self, width=32, depth=4):
        super().__init__()
        if width < 1 or not 1 <= depth <= 7:
            raise ValueError(f"U-Net needs width >= 1 and depth 1 to 7, got {width} and {depth}")
        self.depth = depth
        widths = [width * 2 ** level for level in range(depth + 1)]
        self.down = nn.ModuleList(conv_block(i, o) for i, o in zip([3] + widths, widths))
        self.shrink = nn.ModuleList(nn.Conv2d(o, i, 1) for i, o in zip(widths, widths[1:]))
        self.up = nn.ModuleList(conv_block(2 * w, w) for w in widths[:-1])
        self.head = nn.Conv2d(width, 3, 1)

    def forward(self, images):
        """(N, 3, H, W) in [0, 1] -> reconstruction (N, 3, H, W), float32, not clamped."""
        height, width = images.shape[-2:]
        step = 2 ** self.depth
        x = F.pad(images, (0, -width % step, 0, -height % step), mode="replicate")
        skips = []
        for block in self.down[:-1]:
            skips.append(block(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.down[-1](x)
        for shrink, block, skip in zip(self.shrink[::-1], self.up[::-1], skips[::-1]):
            # A 1 x 1 convolution commutes with nearest upsampling: run it on the small side.
            x = F.interpolate(shrink(x), scale_factor=2, mode="nearest")
            x = block(torch.cat([skip, x], dim=1))
        # Half precision would round the output to 1/256, about the size of a faint defect.
        with torch.autocast(images.device.type, enabled=False):
            return self.head(x.to(self.head.weight.dtype))[..., :height, :width]

    def loss(self, images, generator):
        """Seed-plan loss of a batch (N, 3, H, W): MSE + 0.84 (1 - SSIM), and both parts.

        generator: unused here; part of the protocol for models that draw.
        """
        output = self(images)
        mse, ssim = F.mse_loss(output, images), ssim_loss(output, images, data_range=1.0)
        return {"loss": mse + SSIM_WEIGHT * ssim, "mse": mse.detach(), "ssim": ssim.detach()}

    def anomaly_maps(self, images, names=("mse", "ssim")):
        """(N, 3, H, W) -> {name: (N, 1, H, W)} for the names in errors.error_maps."""
        return error_maps(images, self(images), names)


MODELS = {"unet": UNetAutoencoder, "patchcore": PatchMemory}


def build_model(name, **model_args):
    """Build a detector by name; raises ValueError for an unknown name or argument."""
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; there are: {', '.join(MODELS)}")
    return MODELS[name](**model_args)
