"""Objects that lie at any angle, and images turned by one."""

import math

import torch
import torch.nn.functional as F

from ad.data import on_device, resize_long_side
from ad.gradients import MOST, SIDE, descriptors
from ad.neighbours import nearest
from ad.regions import rotation, turned

# Turned images are normal, too, where they are at most this many times as far from the others. By
# 12 images what lies at any angle has 0.75 to 1.45 (the demo's bolts), what always lies alike 2.5
# to 5.6 (tablet, two real parts).
TURNED = 1.6
PLAIN = 0.5  # a background is plain where the median patch weighs at most this share of the mean


def rotated(images: torch.Tensor, angle: float) -> torch.Tensor:
    """(N, 3, H, W) in [0, 1] turned by an angle in radians about the centre, mirrored at edges."""
    matrix = F.pad(rotation(torch.full((len(images), 1), angle), images), (0, 1))
    return turned(images, on_device(matrix, images.device), "bicubic").clamp_(0, 1)


@torch.no_grad()
def lies_at_any_angle(images: list) -> bool:
    """Do normal images show an object before a plain background that lies at any angle? Images:
    see descriptors.

    It does where most patches are background, far nearer to the median patch than the rest, and
    where, turned, each image by another angle, its patches are as near to those of the other images
    as they were. Of textures the second is no evidence: grids pass, whose threads blur.
    """
    images = [resize_long_side(image, SIDE) for image in images[:MOST]]
    count = len(images)
    askew = [rotated(image, 2 * math.pi * (k + 0.5) / count) for k, image in enumerate(images)]
    # What is interpolated is smoother, and so nearer to anything: both are.
    images = [rotated(image, 0.02) for image in images]
    patches, weight, (h, w) = descriptors([image[0] for image in images + askew])
    plain = weight[:count].flatten().sort().values
    if plain[len(plain) // 2] > PLAIN * plain.mean():
        return False
    y, x = (torch.arange(0.5, side, device=patches.device) - side / 2 for side in (h, w))
    weight = weight * (torch.hypot(y[:, None], x) < min(h, w) / 2).flatten()  # the largest circle
    distance = []
    for part, own in zip(patches.split(count), weight.split(count)):
        nearest_ones = torch.stack([nearest(part, patches[:count].roll(-step, 0))[0]
                                    for step in range(1, count)]).amin(0).sqrt()
        distance.append((nearest_ones * own).sum() / own.sum())
    return bool(distance[1] <= TURNED * distance[0])
