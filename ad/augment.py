"""Other normal images from normal ones: what keeps them normal, the images themselves decide."""

import math

import torch
import torch.nn.functional as F

from ad.data import resize_long_side

FLIPS = {"left-right": lambda x: x.flip(-1), "up-down": lambda x: x.flip(-2),
         "diagonal": lambda x: x.mT}
TURN, SHIFT, ZOOM, LIGHT = 3.0, 0.04, 0.03, 0.1  # degrees, share of the side, and of 1; see augment
NEAR = 1.1  # a flip is allowed up to this many times the distance between normal images


def symmetries(images, side=16):
    """The FLIPS after which normal images (uint8 (3, H, W)) still look like normal images.

    Compared at side x side pixels: is the median distance of a flipped image to the nearest other
    image at most NEAR times that of the image itself? (A diagonal needs square images.)
    """
    small = torch.stack([F.adaptive_avg_pool2d(resize_long_side(image, 4 * side)[0], side)
                         for image in images])

    def distance(flipped):
        pairs = torch.cdist(flipped.flatten(1), small.flatten(1))
        return pairs.fill_diagonal_(math.inf).amin(1).median()
    square = all(image.shape[-1] == image.shape[-2] for image in images)
    return [name for name, flip in FLIPS.items() if (square or name != "diagonal")
            and distance(flip(small)) <= NEAR * distance(small)]


def augment(images, generator, flips=()):
    """(N, 3, H, W) in [0, 1] -> same: the given FLIPS with probability 1/2 each, turned by up to
    TURN, moved by SHIFT, zoomed by ZOOM, brightness and (a quarter of it) each colour times 1 +- LIGHT."""
    def draw(*shape):
        return images.new_empty(len(images), *shape).uniform_(-1, 1, generator=generator)
    for name in flips:
        images = torch.where(draw(1, 1, 1) < 0, FLIPS[name](images), images)
    angle, scale = draw(1, 1) * math.radians(TURN), 1 + draw(1, 1) * ZOOM
    cos, sin = scale * angle.cos(), scale * angle.sin()
    turn = torch.cat([torch.cat([cos, -sin], 2), torch.cat([sin, cos], 2)], 1)
    grid = F.affine_grid(torch.cat([turn, draw(2, 1) * SHIFT], 2), images.shape,
                         align_corners=False)
    images = F.grid_sample(images, grid, "bicubic", "reflection", align_corners=False)
    # Factors only, so that black stays black: SSIM looks closely there.
    return (images * (1 + LIGHT * draw(1, 1, 1)) * (1 + LIGHT / 4 * draw(3, 1, 1))).clamp(0, 1)
