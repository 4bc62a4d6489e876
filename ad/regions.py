"""Where damage goes and what it is made of: noise, places, irregular regions, other images.

images: float (N, 3, H, W) in [0, 1]. Draws come from a generator of the CPU, where they cost no GPU
a wait or a kernel; numbers per image are prepared there and travel to the images in one copy.
"""

import hashlib
import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ad.data import on_device

AREA = (0.002, 0.15)  # of blobs, as a share of the image
CHANGED = 0.02  # mean absolute change of a pixel below which it is not part of the mask
CELLS = 16  # per axis, of the choice of a place
PLAIN = 0.25  # weight of a plain place; one with the image's mean gradient has 1 more
WAVES = 25  # in noise, a fifth of them of the finer octave


def on_cpu(generator: Generator) -> Generator:
    """A generator of the CPU: this one or, instead of a GPU's, one seeded by its state, no wait."""
    if generator.device.type == "cpu":
        return generator
    state = hashlib.sha256(generator.get_state().numpy().tobytes()).digest()
    torch.rand(1, generator=generator, device=generator.device)  # the next state is another one
    return torch.Generator().manual_seed(int.from_bytes(state[:8], "big") >> 1)


def uniform(generator: Generator, count: int, low: float = 0.0, high: float = 1.0,
            size: int = 1) -> Tensor:
    """Uniform draws (count, size) from low to high, on the CPU."""
    return low + (high - low) * torch.rand(count, size, generator=generator)


def random_integers(generator: Generator, *limits: int) -> list[int]:
    """For each limit a whole number from 0 to below it: an int, which may decide what is done."""
    return [int(draw * limit) for draw, limit in
            zip(torch.rand(len(limits), generator=generator).tolist(), limits)]


def move(values: Tensor, images: Tensor) -> Tensor:
    """values on the images' device and in their dtype; nothing waits for those of the CPU."""
    return on_device(values, images.device).to(images.dtype)


def bring(images: Tensor, *values: Tensor) -> list[Tensor]:
    """CPU tensors (N, ...) -> the same on the images' device and in their dtype, in one copy."""
    flat = move(torch.cat([value.flatten(1) for value in values], 1), images)
    parts = flat.split([value[0].numel() for value in values], 1)
    return [part.view(value.shape) for part, value in zip(parts, values)]


def pixel_centres(images: Tensor) -> list[Tensor]:
    """Pixels' centres: y (H, 1), x (W, 1), in pixels."""
    return [torch.arange(0.5, side, device=images.device, dtype=images.dtype)[:, None]
            for side in images.shape[2:]]


def waves(images: Tensor, generator: Generator, cells: tuple = (2, 24),
          channels: int = 1) -> Tensor:
    """Noise (N, channels, H, W) of mean 0 and standard deviation 1: standing waves of two octaves,
    as fine as a grid of random values of which cells[0] to cells[1] lie across an image."""
    n, long = len(images) * channels, max(images.shape[2:])
    grain = uniform(generator, len(images), *map(math.log, cells)).exp()
    grain = grain.repeat_interleave(channels, 0)[..., None].repeat(1, 2, WAVES)
    grain[..., ::5] *= 2
    pace = uniform(generator, n, -1, 1, 2 * WAVES).view_as(grain) * grain * math.pi / long
    phase = uniform(generator, n, 0, math.tau, 2 * WAVES).view_as(grain)
    # A product of two cosines has a variance of 1/4, the sum of them WAVES times that.
    pace, phase = bring(images.new_empty(n, 0), pace, phase)
    rows, columns = (torch.addcmul(phase[:, i, None], axis, pace[:, i, None]).cos()
                     for i, axis in enumerate(pixel_centres(images)))
    noise = rows @ columns.mT.mul(2 / WAVES ** 0.5)
    return noise.view(len(images), channels, *images.shape[2:])


def clouds(images: Tensor, generator: Generator, cells: tuple = (2, 24),
           channels: int = 1) -> Tensor:
    """waves, stretched to [0, 1] in every channel of every image."""
    noise = waves(images, generator, cells, channels)
    low, high = noise.amin((2, 3), True), noise.amax((2, 3), True)
    return (noise - low) / (high - low)


def density(images: Tensor) -> Tensor:
    """(N, CELLS ** 2): how likely damage lies in a cell, in proportion to the gradient there plus
    PLAIN times the image's mean one: damage to a plain background teaches little."""
    grey = images.mean(1, keepdim=True)
    gradient = torch.hypot(grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1],
                           grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2])
    cells = F.adaptive_avg_pool2d(gradient, CELLS).flatten(1)
    return torch.add(cells, cells.mean(1, keepdim=True) + 1e-6, alpha=PLAIN)


def centres(density: Tensor, generator: Generator) -> Tensor:
    """Places (N, 2), y and x in [0, 1], drawn by `density`."""
    # The first of events that come at these rates: no running sum, whose GPU kernel may vary.
    events = -uniform(generator, len(density), size=CELLS ** 2).clamp_min(1e-30).log()
    events, inside = bring(density, events, uniform(generator, len(density), size=2))
    cell = (events / density).argmin(1, keepdim=True)
    row = cell // CELLS
    return (torch.cat([row, torch.sub(cell, row, alpha=CELLS)], 1) + inside) / CELLS


def blobs(images: Tensor, centre: Tensor, shapes: Tensor, generator: Generator) -> Tensor:
    """Irregular regions around centre (N, 2): covers (N, 1, H, W) in [0, 1].

    shapes: of each image, (N, 3), on the CPU: the area as a share of the image, the width of the
    edge as one of a side, and how rough the edge is; 0 is an ellipse.
    """
    area, edge, rough = shapes.split(1, 1)
    step = max(1, min(images.shape[2:]) // 64)  # so few of the pixels tell
    some = -(-images.shape[2] // step) * -(-images.shape[3] // step)
    count = (area * some).clamp(1, some - 1).floor()
    stretch = uniform(generator, len(images), -0.6, 0.6).exp()
    scale = torch.cat([stretch, 1 / stretch], 1) / area.sqrt()
    away, pace, steep, rough, index = bring(
        images, -scale, scale / torch.tensor(images.shape[2:]), area.sqrt() / edge, rough, count)
    offset = centre * away
    y, x = (torch.addcmul(offset[:, i, None], axis.T, pace[:, i, None])
            for i, axis in enumerate(pixel_centres(images)))
    far = torch.hypot(y[:, None, :, None], x[:, None, None])
    relief = torch.addcmul(far, rough[..., None, None], waves(images, generator))
    lowest = relief[..., ::step, ::step].flatten(1).topk(int(count.max()) + 1, largest=False)
    level = lowest.values.gather(1, index.long())
    return ((level[..., None, None] - relief) * steep[..., None, None]).clamp(0, 1)


def others(images: Tensor, generator: Generator) -> Tensor:
    """For each image one of the batch, by chance itself, moved round and mirrored."""
    *shift, flip = random_integers(generator, len(images), *images.shape[2:], 4)
    result = images.roll(shift, (0, 2, 3))
    return result.flip([axis for axis, bit in ((2, 1), (3, 2)) if flip & bit]) if flip else result


def rotation(angle: Tensor, images: Tensor) -> Tensor:
    """Angles (N, 1) in radians -> matrices (N, 2, 2) that turn images of this shape in [-1, 1]."""
    ratio = images.shape[2] / images.shape[3]
    return torch.cat([angle.cos(), -angle.sin() * ratio, angle.sin() / ratio, angle.cos()],
                     1).view(-1, 2, 2)


def turned(images: Tensor, matrix: Tensor, mode: str = "bilinear") -> Tensor:
    """Images read at matrix (N, 2, 3) times a pixel's (x, y, 1), in [-1, 1], mirrored at edges."""
    grid = F.affine_grid(matrix, images.shape, align_corners=False)
    return F.grid_sample(images, grid, mode, "reflection", align_corners=False)
