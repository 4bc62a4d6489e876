"""Damage for training to repair: clean images in -> (damaged images, masks) out.

A family takes images, float (N, 3, H, W) in [0, 1], a blob of each, its cover (N, 1, H, W) in
[0, 1] and its centre (N, 2), and a generator of the CPU, from which every draw comes; it returns
what to blend into the images, (N, 3, H, W) in [0, 1], and the cover with which to do it. The
families of ad.cutpaste are among them, but not by default: validation has those.
"""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ad.config import DAMAGE
from ad.cutpaste import cutpaste, cutpaste_scar, texture_damage
from ad.regions import (AREA, CHANGED, blobs, bring, centres, clouds, density, on_cpu, others,
                        random_integers, rotation, turned, uniform, waves)

Blend = tuple[Tensor, Tensor]  # what a family returns
CLEAN = 0.2  # share of the images that stay as they are
ROUNDS = 3  # the others are damaged once to so many times
# Of blobs, see ad.regions.blobs: area (of the others AREA), one or the other width of the edge, and
# how rough it is.
AREAS = {"dropout": (0.006, 0.1), "patches": (0.003, 0.12), "warp": (0.01, 0.2),
         "misplaced": (AREA[0], 0.4), "missing": (AREA[0], 0.06)}
SHARP, SOFT, ROUGH = 4e-5, 0.02, 0.13
EDGES = {"dropout": (SHARP, SHARP), "warp": (0.06, 0.06)}


def dropout(images: Tensor, cover: Tensor, centre: Tensor, generator: Generator) -> Blend:
    """Coarse dropout: a rectangle of one colour (or of the image's mean)."""
    kind, colour = bring(images, (uniform(generator, len(images)) < 0.5).view(-1, 1, 1, 1),
                         uniform(generator, len(images), size=3)[..., None, None])
    return (torch.lerp(images.mean((2, 3), keepdim=True), colour, kind).expand_as(images),
            cover.amax(2, True) * cover.amax(3, True))


def perlin(images: Tensor, cover: Tensor, centre: Tensor, generator: Generator) -> Blend:
    """DRAEM's: foreign texture (noise, a colour, another image) where smooth noise, in place
    of Perlin's, is high, at an opacity of 0.2 to 1 (Zavrtanik et al., ICCV 2021)."""
    level, opacity, flat = bring(images, *(uniform(generator, len(images), *limits)[..., None, None]
                                           for limits in ((0.6, 0.85), (0.2, 1.0), (0, 1, 3))))
    kind, = random_integers(generator, 3)
    texture = (others(images, generator) if kind == 0 else flat.expand_as(images) if kind == 1 else
               clouds(images, generator, (4, 64), 3))
    return texture, (clouds(images, generator) > level) * opacity


def patches(images: Tensor, cover: Tensor, centre: Tensor, generator: Generator) -> Blend:
    """NSA's: a piece of another image, blended in (Schlueter et al., ECCV 2022).

    Instead of a Poisson solve the piece keeps its detail and takes over, by a part, the local mean
    of what it covers, which is what the solve does far from edges.
    """
    piece = others(images, generator)
    part, = bring(images, uniform(generator, len(images))[..., None, None])
    coarse = F.avg_pool2d(images - piece, 16, ceil_mode=True, count_include_pad=False)
    difference = F.interpolate(coarse, images.shape[2:], mode="bilinear")
    return torch.addcmul(piece, part, difference).clamp_(0, 1), cover


def stain(images: Tensor, cover: Tensor, centre: Tensor, generator: Generator) -> Blend:
    """Lighten, darken or tint a blob, its structure kept."""
    factor = uniform(generator, len(images), -0.9, 0.9).exp()
    tint = factor * uniform(generator, len(images), 0.8, 1.25, 3)
    shift = uniform(generator, len(images), -0.15, 0.15)
    tint, shift = bring(images, tint[..., None, None], shift[..., None, None])
    return torch.addcmul(shift, images, tint).clamp_(0, 1), cover


def warp(images: Tensor, cover: Tensor, centre: Tensor, generator: Generator) -> Blend:
    """Bend a region: pixels move by 1 to 4 % of a side (standard deviation), by nothing outside."""
    straight, amount = bring(images, torch.eye(2, 3).expand(len(images), 2, 3),
                             uniform(generator, len(images), 0.02, 0.08)[..., None, None])
    field = waves(images, generator, (2, 8), 2) * amount
    grid = torch.addcmul(F.affine_grid(straight, images.shape, align_corners=False),
                         field.permute(0, 2, 3, 1), cover[:, 0, ..., None])
    bent = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return bent, (cover > 0).to(cover.dtype)


def misplaced(images: Tensor, cover: Tensor, centre: Tensor, generator: Generator) -> Blend:
    """A part is turned and moved, or gone: a blob, of up to 40 % of the image, shows the image
    turned about the blob's centre by up to half a turn and moved by up to half a side."""
    size = uniform(generator, len(images), size=2) ** 2  # often only one of the two, often little
    angle = size[:, :1] * uniform(generator, len(images), -math.pi, math.pi)
    # With c the centre in [-1, 1]: turn (p - c) + c + shift.
    turn, shift = bring(images, rotation(angle, images),
                        size[:, 1:] * uniform(generator, len(images), -1, 1, 2))
    c = centre.flip(1)[..., None] * 2 - 1
    return turned(images, torch.cat([turn, c - turn @ c + shift[..., None]], 2)), cover


def missing(images: Tensor, cover: Tensor, centre: Tensor, generator: Generator) -> Blend:
    """Thin parts vanish in a blob: bright ones (morphological opening), dark ones (closing), or
    what is there at all (a clone stamp, from beside the blob). No other edge gives it away."""
    kind, steps = random_integers(generator, 20, 3)
    steps = min(2 + steps, int(math.log2(min(images.shape[2:]))))
    away = uniform(generator, len(images), math.log(0.05), math.log(0.4)).exp()[..., None]
    angle = uniform(generator, len(images), -math.pi, math.pi)[..., None]
    if kind < 6:
        ratio = [side / max(images.shape[2:]) for side in images.shape[2:]]
        shift = 2 * away * torch.cat([angle.cos() / ratio[1], angle.sin() / ratio[0]], 1)
        straight = torch.eye(2).expand(len(images), 2, 2)
        return turned(images, *bring(images, torch.cat([straight, shift], 2))), cover

    def most(pick, x):  # of windows of 4, 8 or 16 pixels, twice as wide with every step
        for axis in (2, 3):
            for far in [2 ** step for step in range(steps)]:
                length = x.shape[axis] - far
                x = pick(x.narrow(axis, 0, length), x.narrow(axis, far, length))
        return x
    first, then, edge = ((torch.minimum, torch.maximum, -math.inf) if kind < 13 else
                         (torch.maximum, torch.minimum, math.inf))
    return most(then, F.pad(most(first, images), [2 ** steps - 1] * 4, value=edge)), cover


FAMILIES = {"dropout": dropout, "perlin": perlin, "patches": patches, "stain": stain, "warp": warp,
            "misplaced": misplaced, "missing": missing,
            "cutpaste": lambda images, _, __, generator: cutpaste(images, generator),
            "scar": lambda images, _, __, generator: cutpaste_scar(images, generator),
            "texture": lambda images, _, __, generator: texture_damage(images, generator)}


@torch.no_grad()
def apply_plan(images: Tensor, plan: list, generator: Generator) -> tuple[Tensor, Tensor]:
    """(damaged images, masks). plan: [(first image, one after the last, family), ...], in order; a
    mask (N, 1, H, W) is 1 where all of them together changed something."""
    if not plan:
        return images, torch.zeros_like(images[:, :1])
    sizes, shapes = [stop - start for start, stop, _ in plan], []
    for n, (*_, name) in zip(sizes, plan):
        shapes.append(torch.cat([
            uniform(generator, n, *map(math.log, AREAS.get(name, AREA))).exp(),
            torch.where(uniform(generator, n) < 0.5, *EDGES.get(name, (SHARP, SOFT))),
            torch.full((n, 1), 0 if name == "dropout" else ROUGH)], 1))
    chances = density(images)
    centre = centres(torch.cat([chances[start:stop] for start, stop, _ in plan]), generator)
    cover = blobs(images[:1].expand(sum(sizes), -1, -1, -1), centre, torch.cat(shapes), generator)
    result = images.clone()
    for (start, stop, name), cover, centre in zip(plan, cover.split(sizes), centre.split(sizes)):
        part = result[start:stop]
        part.lerp_(*FAMILIES[name](part, cover, centre, generator))
    change = (result - images).abs().mean(1, keepdim=True)
    return result, (change > CHANGED).to(images.dtype)


def damage(images: Tensor, generator: Generator,
           families: tuple = DAMAGE) -> tuple[Tensor, Tensor]:
    """(damaged images, masks): CLEAN of the images stay as they are, the others are damaged 1 to
    ROUNDS times. Each time one family, drawn evenly, damages half of them, another the other half;
    of 3 or fewer, all. A mask holds all of it. The first images are damaged most."""
    generator, plan = on_cpu(generator), []
    draw = torch.rand(len(images), generator=generator)
    rounds = ((draw - CLEAN) / (1 - CLEAN) * ROUNDS).ceil()
    for number in range(ROUNDS):
        count = int((rounds > number).sum())
        half = count // 2 if count > 3 else 0
        parts = [(0, half), (half, count)]
        for (start, stop), name in zip(parts, random_integers(generator, *[len(families)] * 2)):
            plan += [(start, stop, families[name])] if stop > start else []
    return apply_plan(images, plan, generator)
