"""Training images: crops, and other normal images from normal ones (what keeps them normal, the
images themselves decide)."""

import math

import torch
import torch.nn.functional as F

from ad.config import Training
from ad.data import resize_long_side, resize_to, to_float
from ad.regions import bring, on_cpu, rotation, turned, uniform

FLIPS = {"left-right": (lambda x: x.flip(-1), torch.tensor([[-1., 0], [0, 1]])),
         "up-down": (lambda x: x.flip(-2), torch.tensor([[1., 0], [0, -1]])),
         "diagonal": (lambda x: x.mT, torch.tensor([[0., 1], [1, 0]]))}  # and of (x, y)
SMALL = 16  # pixels
NEAR = 1.1  # flipped images are normal up to this many times the distance between normal images
TURN, SHIFT, ZOOM, LIGHT = 3.0, 0.04, 0.03, 0.1  # degrees, shares of half a side and of 1


def symmetries(images: list) -> list:
    """The FLIPS after which normal images (uint8 (3, H, W)) still look like normal images.

    Compared at SMALL x SMALL pixels: is the median distance of a flipped image to the nearest other
    image at most NEAR times that of the image itself? (A diagonal needs square images.)
    """
    small = torch.stack([F.adaptive_avg_pool2d(resize_long_side(image, 4 * SMALL)[0], SMALL)
                         for image in images])

    def distance(flipped):
        pairs = torch.cdist(flipped.flatten(1), small.flatten(1))
        return pairs.fill_diagonal_(math.inf).amin(1).median()
    square = all(image.shape[-1] == image.shape[-2] for image in images)
    return [name for name, (flip, _) in FLIPS.items() if (square or name != "diagonal")
            and distance(flip(small)) <= NEAR * distance(small)]


def augment(images: torch.Tensor, generator: torch.Generator, flips: tuple = ()) -> torch.Tensor:
    """(N, 3, H, W) in [0, 1] -> same: the given FLIPS with probability 1/2 each, turned by up to
    TURN, moved by SHIFT, zoomed by ZOOM, brightness and (a quarter of it) each colour times
    1 +- LIGHT."""
    generator, n = on_cpu(generator), len(images)
    angle, scale, brightness = uniform(generator, n, -1, 1, 3).split(1, 1)
    angle, scale = angle * math.radians(TURN), 1 + ZOOM * scale
    turn = scale[..., None] * rotation(angle, images)
    for name in flips[::-1]:
        chosen = uniform(generator, n)[..., None] < 0.5
        turn = torch.where(chosen, FLIPS[name][1], torch.eye(2)) @ turn
    matrix = torch.cat([turn, uniform(generator, n, -SHIFT, SHIFT, 2)[..., None]], 2)
    # Factors only, so that black stays black: SSIM looks closely there.
    light = (1 + LIGHT * brightness) * uniform(generator, n, 1 - LIGHT / 4, 1 + LIGHT / 4, 3)
    matrix, light = bring(images, matrix, light[..., None, None])
    return turned(images, matrix, "bicubic").mul_(light).clamp_(0, 1)


def random_crops(images: list, long_side: int, crop: int,
                 generator: torch.Generator) -> torch.Tensor:
    """Random crops of uint8 images as if first resized to `long_side`: (N, 3, h, w) in [0, 1].

    images: list of uint8 (3, H, W) of any sizes. h and w are `crop` pixels, less where a resized
    image is smaller (then the largest multiple of 16 that fits all). Only the region that is
    needed is resized. Runs on, and draws from, the generator's device.
    """
    scales = [long_side / max(image.shape[-2:]) for image in images]
    smallest = [min(round(image.shape[axis] * s) for image, s in zip(images, scales))
                for axis in (-2, -1)]
    shape = [crop if side >= crop else max(16, side // 16 * 16) for side in smallest]
    places = uniform(on_cpu(generator), len(images), size=2).tolist()
    regions = []
    for image, scale, place in zip(images, scales, places):
        cut = [slice(None)]
        for side, target, fraction in zip(image.shape[-2:], shape, place):
            length = min(side, max(1, round(target / scale)))
            start = round(fraction * (side - length))
            cut.append(slice(start, start + length))
        regions.append(image[tuple(cut)])
    # Regions of one size travel and resize as one batch; mixed sizes go one by one.
    groups = [torch.stack(regions)] if len({r.shape for r in regions}) == 1 else \
        [r[None] for r in regions]
    return torch.cat([resize_to(to_float(g, generator.device), tuple(shape)) for g in groups])


def draw_crops(model: torch.nn.Module, images: list, generator: torch.Generator,
               plan: Training) -> torch.Tensor:
    """A batch (N, 3, h, w) in [0, 1] of uint8 images: random crops by the plan (config.Training),
    or whole images for a model of one fixed `size`."""
    if hasattr(model, "size"):
        return torch.cat([resize_to(to_float(image, generator.device)[None], model.size)
                          for image in images])
    draws = uniform(on_cpu(generator), 2)[:, 0].tolist()
    low, high = plan.long_side
    long_side = round(low + draws[0] * (high - low))
    sides = range(max(32, -(-plan.crop // 64) * 32), plan.crop + 1, 32) or [long_side]
    return random_crops(images, long_side, sides[int(draws[1] * len(sides))], generator)


def at_one_size(model: torch.nn.Module, images: list, plan: Training) -> list:
    """uint8 images, resized here, to the nearest 1/255, if every epoch would resize them alike."""
    fixed, (low, high) = hasattr(model, "size"), plan.long_side
    if not fixed and (plan.crop or low != high):
        return images
    resized = (resize_to(to_float(i, i.device)[None], model.size) if fixed else
               resize_long_side(i, low) for i in images)
    return [(r[0] * 255).round().byte() for r in resized]
