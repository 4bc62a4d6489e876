"""Damage for training to repair: clean images in -> (damaged images, masks) out.

Every family takes images, float (N, 3, H, W) in [0, 1], and a generator on their device, from which
every draw comes; it returns images and masks (N, 1, H, W), 1 where a pixel was meant to change and
did. The families of ad.cutpaste are among them, but not by default: validation has those.
"""

import math

import torch
import torch.nn.functional as F

from ad.config import DAMAGE
from ad.cutpaste import _local, _sample, cutpaste, cutpaste_scar, texture_damage
from ad.regions import AREA, blobs, centres, clouds, feather, lay, others, uniform
from ad.ssim import smooth

CLEAN = 0.2  # share of the images that stay as they are
ROUNDS = 3  # the others are damaged once to so many times


def dropout(images, generator):
    """Coarse dropout: a rectangle of one colour (or of the image's mean)."""
    size, centre = uniform(images, generator, 0.04, 0.35, 2), centres(images, generator)
    y, x = (torch.linspace(0, 1, side, device=images.device) for side in images.shape[2:])
    inside = (((y[:, None] - centre[:, :1]).abs() < size[:, :1] / 2)
              & ((x - centre[:, 1:]).abs() < size[:, 1:] / 2))
    colour = torch.where(uniform(images, generator) < 0.5, uniform(images, generator, size=3),
                         images.mean((2, 3), keepdim=True))
    return lay(images, colour, inside.to(images.dtype))


def perlin(images, generator):
    """DRAEM's: foreign texture (noise, a colour, another image) where Perlin noise is high, at an
    opacity of 0.2 to 1 (Zavrtanik et al., ICCV 2021)."""
    flat, kind = uniform(images, generator, size=3), uniform(images, generator, 0, 3)
    texture = torch.where(kind < 1, flat, torch.where(
        kind < 2, clouds(images, generator, (4, 64), 3), others(images, generator)))
    high = clouds(images, generator) > uniform(images, generator, 0.6, 0.85)
    return lay(images, texture, high * uniform(images, generator, 0.2, 1.0))


def patches(images, generator):
    """NSA's: a piece of another image, blended in (Schlueter et al., ECCV 2022).

    Instead of a Poisson solve the piece keeps its detail and takes over, by a part, the local mean
    of what it covers, which is what the solve does far from edges.
    """
    mask = blobs(images, generator, (0.003, 0.12))
    piece = others(images, generator)
    coarse = F.avg_pool2d(images - piece, 16, ceil_mode=True, count_include_pad=False)
    difference = F.interpolate(coarse, images.shape[2:], mode="bilinear")
    piece = piece + uniform(images, generator) * difference
    return lay(images, piece, feather(mask, images, generator))


def stain(images, generator):
    """Lighten, darken or tint a blob, its structure kept."""
    factor = uniform(images, generator, -0.9, 0.9).exp()
    tint = uniform(images, generator, 0.8, 1.25, 3)
    shift = uniform(images, generator, -0.15, 0.15)
    return lay(images, images * factor * tint + shift,
               feather(blobs(images, generator), images, generator))


def warp(images, generator):
    """Bend a region: pixels move by up to 8 % of the image, smoothly fading to nothing outside."""
    height, width = images.shape[2:]
    cover = smooth(blobs(images, generator, (0.01, 0.2)).to(images.dtype), max(height, width) / 40)
    field = clouds(images, generator, (2, 8), 2) - 0.5
    field = field * cover * uniform(images, generator, 0.1, 0.5)
    y, x = (torch.linspace(-1 + 1 / side, 1 - 1 / side, side, device=images.device)
            for side in (height, width))
    grid = torch.stack(torch.broadcast_tensors(x, y[:, None]), -1) + field.permute(0, 2, 3, 1)
    bent = F.grid_sample(images, grid.to(images.dtype), padding_mode="reflection",
                         align_corners=False)
    return lay(images, bent, (cover > 0.02).to(images.dtype))


def misplaced(images, generator):
    """A part is turned and moved, or gone: a blob, of up to 40 % of the image, shows the image
    turned about the blob's centre by up to half a turn and moved by up to half a side."""
    cover = feather(blobs(images, generator, (AREA[0], 0.4)), images, generator)
    size = uniform(images, generator, size=2) ** 2  # often only one of the two, often little
    angle = (size[:, 0] * uniform(images, generator, -math.pi, math.pi)[:, 0])[..., 0]
    shift = size[:, 1:, 0, 0] * uniform(images, generator, -0.5, 0.5, 2)[..., 0, 0]
    y, x = (torch.arange(side, device=images.device) + 0.5 for side in images.shape[2:])
    centre = torch.stack([(cover * at).sum((1, 2, 3)) for at in (x, y[:, None])], 1)
    centre = centre / cover.sum((1, 2, 3))[:, None]
    source = centre + shift * shift.new_tensor(images.shape[:1:-1])
    u, v = _local(images, centre, angle)
    return lay(images, _sample(images, source[:, :1, None] + u, source[:, 1:, None] + v), cover)


def missing(images, generator):
    """Thin parts vanish in a blob: bright ones (morphological opening), dark ones (closing), or
    what is there at all (a clone stamp, from beside the blob). No other edge gives it away."""
    blob = blobs(images, generator, (AREA[0], 0.06))
    radius = int(torch.randint(2, 9, (1,), generator=generator, device=images.device))

    def dilate(x):  # columns, then rows; windows twice as wide with every step: a few, not 2 r + 1
        for _ in range(2):
            x, width = F.pad(x.mT, (radius, radius, 0, 0), mode="replicate"), 1
            while width <= 2 * radius:
                step = min(width, 2 * radius + 1 - width)
                x, width = torch.maximum(x[..., step:], x[..., :-step]), width + step
        return x
    kind = uniform(images, generator)
    sign = torch.where(kind < 0.35, 1.0, -1.0)  # the closing is the opening of the negative
    opened = sign * dilate(-dilate(-sign * images))
    away = blob.to(images.dtype).mean((1, 2, 3), True).sqrt() * uniform(images, generator, 0.8, 2)
    angle = uniform(images, generator, -math.pi, math.pi)[:, 0]
    u, v = _local(images, images.new_zeros(1, 2), images.new_zeros(1, 1))
    far = away[:, 0] * max(images.shape[2:])
    clone = _sample(images, u + far * angle.cos(), v + far * angle.sin())
    return lay(images, torch.where(kind < 0.7, opened, clone), feather(blob, images, generator))


FAMILIES = {"dropout": dropout, "perlin": perlin, "patches": patches, "stain": stain, "warp": warp,
            "misplaced": misplaced, "missing": missing, "cutpaste": cutpaste,
            "scar": cutpaste_scar, "texture": texture_damage}


@torch.no_grad()
def damage(images, generator, families=DAMAGE):
    """(damaged images, masks): CLEAN of the images stay as they are, the others are damaged up to
    ROUNDS times, each time by a family that is drawn evenly; a mask holds all of it."""
    result, masks = images.clone(), images.new_zeros(len(images), 1, *images.shape[2:])
    draw = torch.rand(len(images), generator=generator, device=images.device)
    rounds = ((draw - CLEAN) / (1 - CLEAN) * ROUNDS).ceil()
    for number in range(ROUNDS):
        family = torch.randint(len(families), (len(images),), generator=generator,
                               device=images.device)
        for index, name in enumerate(families):
            chosen = ((family == index) & (rounds > number)).nonzero()[:, 0]
            if len(chosen):
                result[chosen], more = FAMILIES[name](result[chosen], generator)
                masks[chosen] = torch.maximum(masks[chosen], more)
    return result, masks
