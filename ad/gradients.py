"""Oriented gradients, features that need no learning; and whether images are aligned, by them."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from ad.data import resize_long_side
from ad.neighbours import nearest
from ad.ssim import gaussian_blur

SCALES = (1.0, 2.0, 4.0)  # of the gradients, pixels
DIRECTIONS = 8
NOISE = 0.02  # gradients below this, in [0, 1] per pixel, are not enlarged to full contrast
NEIGHBOURHOOD = 7  # cells over which contrast is normalised
CONTEXTS = (3, 7)  # cells over which features are averaged
STRETCH = 2.0  # the most by which equalise() changes contrast
STANDARD = 0.5, 0.2  # light of images that are compared for alignment
SIDE, STRIDE = 256, 8  # pixels: images are compared at this long side, in cells of this size
MOST, PAIRS = 12, 3  # images that alignment() looks at, and others that each is looked up in
REACH = 2  # cells; as far from its place a patch's nearest neighbour is at the same place
ALIGNED = 0.4  # alignment() from which images are aligned


class Gradients(nn.Module):
    """Oriented gradient energies and colour of every cell of `strides` pixels; nothing is learned.

    Per scale the parts of the grey image's Gaussian-derivative gradient that point into each of 8
    directions, squared, averaged over the cell, divided by the mean energy of the cells around
    (Dalal and Triggs, "Histograms of oriented gradients", CVPR 2005) and, last, the square root;
    then mean R, G, B. Forward: (N, 3, H, W) in [0, 1] -> [(N, 27, H / s, W / s) for s in strides].
    """

    def __init__(self, strides: tuple):
        super().__init__()
        self.strides = strides

    @torch.autocast("cuda", enabled=False)
    @torch.autocast("cpu", enabled=False)
    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        grey = images.mean(1, keepdim=True)
        angles = torch.arange(DIRECTIONS, device=images.device) * (2 * torch.pi / DIRECTIONS)
        energies = []
        for scale in SCALES:
            smooth = gaussian_blur(grey, 2 * int(3 * scale + 0.5) + 1, scale)
            smooth = F.pad(smooth, (1, 1, 1, 1), mode="replicate") * (scale / 2)
            dx = smooth[..., 1:-1, 2:] - smooth[..., 1:-1, :-2]
            dy = smooth[..., 2:, 1:-1] - smooth[..., :-2, 1:-1]
            energies.append((dx * angles.cos().view(-1, 1, 1) + dy * angles.sin().view(-1, 1, 1))
                            .clamp_min_(0).square_())
        return [torch.cat([*(self.normalised(e, s) for e in energies), cells(images, s)], dim=1)
                for s in self.strides]

    @staticmethod
    def normalised(energy: torch.Tensor, stride: int) -> torch.Tensor:
        energy = cells(energy, stride)
        around = F.avg_pool2d(energy.sum(1, keepdim=True), NEIGHBOURHOOD, 1, NEIGHBOURHOOD // 2,
                              count_include_pad=False)
        return (energy / (around + NOISE ** 2)).sqrt()


def cells(images: torch.Tensor, stride: int) -> torch.Tensor:
    """Means over cells of stride x stride pixels, partial ones at the far edges included."""
    return F.avg_pool2d(images, stride, ceil_mode=True, count_include_pad=False)


def light(images: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) -> (N, 2): mean and standard deviation of the grey image."""
    std, mean = torch.std_mean(images.float().mean(1), (1, 2))
    return torch.stack([mean, std], 1)


def equalise(images: torch.Tensor, target: torch.Tensor | tuple) -> torch.Tensor:
    """Bring images (N, 3, H, W) to the `light` target (2,): one shift and one factor an image for
    all its pixels and channels, the factor in [1 / STRETCH, STRETCH]. Colours keep their
    relations."""
    mean, std = light(images).view(-1, 2, 1, 1, 1).unbind(1)
    factor = (target[1] / std.clamp_min(1e-6)).clamp(1 / STRETCH, STRETCH)
    return (images - mean) * factor + target[0]


def exposure(images: torch.Tensor, brightness: torch.Tensor) -> torch.Tensor:
    """Factors (N, 1, 1, 1) in [1 / STRETCH, STRETCH] that bring images (N, 3, H, W) to a mean
    brightness; black stays black."""
    return (brightness / images.mean((1, 2, 3), keepdim=True)).clamp(1 / STRETCH, STRETCH)


def surroundings(maps: torch.Tensor, widths: tuple) -> torch.Tensor:
    """(N, C, H, W) -> (N, C * len(widths), H, W): means over width x width cells around each."""
    return torch.cat([F.avg_pool2d(maps, width, 1, width // 2, count_include_pad=False)
                      for width in widths], dim=1)


def descriptors(images: list) -> tuple[torch.Tensor, torch.Tensor, tuple]:
    """2 or more images, uint8 or float (3, H, W), any sizes -> patches (N, h * w, C), their weights
    (N, h * w), and (h, w).

    A patch counts by its squared distance from the median patch, so that it is the object that
    decides, not the background.
    """
    trunk, found = Gradients((STRIDE,)), []
    for image in images:
        x = trunk(equalise(resize_long_side(image, SIDE), STANDARD))[0]
        x = surroundings(x, CONTEXTS)
        found.append(F.interpolate(x, found[0].shape[-2:] if found else x.shape[-2:]))
    patches = torch.cat(found).flatten(2).transpose(1, 2)
    std, mean = torch.std_mean(patches, (0, 1))
    patches = (patches - mean) / (std + 1e-6)
    # torch.median has no deterministic form on a GPU; this is the same value.
    middle = patches.flatten(0, 1).T.sort(1).values[:, (patches.shape[:2].numel() - 1) // 2]
    return patches, (patches - middle).square().sum(2) + 1e-9, tuple(found[0].shape[-2:])


@torch.no_grad()
def alignment(images: list) -> float:
    """Share of the patches of one normal image whose nearest neighbour in another one is at the
    same place, in [0, 1], mean over pairs; images and what a patch counts: see descriptors.

    It is looked up in one image at a time, as among many images of a part at any angle one is at
    the same angle. An object that always lies alike has 0.55 and more, one at any angle 0.2 at
    most, a texture hardly anything.
    """
    patches, weight, (_, width) = descriptors(images[:MOST])
    here = torch.arange(patches.shape[1], device=patches.device)
    same, total = 0.0, 0.0
    for step in range(1, min(PAIRS + 1, len(patches))):
        there = nearest(patches, patches.roll(-step, 0))[1]
        far = (there // width - here // width).abs().maximum((there % width - here % width).abs())
        same, total = same + ((far <= REACH) * weight).sum(), total + weight.sum()
    return (same / total).item()
