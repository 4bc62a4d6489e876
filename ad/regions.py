"""Where damage goes and what it is made of: noise, places, irregular regions, other images.

images: float (N, 3, H, W) in [0, 1]. Draws come from a generator of the CPU, where they cost no GPU
a wait or a kernel; numbers per image are prepared there and travel to the images in one copy.
"""

import hashlib
import math

import torch
import torch.nn.functional as F

AREA = (0.002, 0.15)  # of blobs, as a share of the image
CHANGED = 0.02  # mean absolute change of a pixel below which it is not part of the mask
CELLS = 16  # per axis, of the choice of a place
PLAIN = 0.25  # weight of a plain place against one with the image's mean gradient, whose is 1 more
WAVES = 25  # in noise, a fifth of them of the finer octave


def on_cpu(generator: torch.Generator) -> torch.Generator:
    """The generator, or for one of a GPU a new one of the CPU, seeded by its state, no wait."""
    if generator.device.type == "cpu":
        return generator
    state = hashlib.sha256(generator.get_state().numpy().tobytes()).digest()
    torch.rand(1, generator=generator, device=generator.device)  # the next state is another one
    return torch.Generator().manual_seed(int.from_bytes(state[:8], "big") >> 1)


def uniform(generator, count, low=0.0, high=1.0, size=1):
    """Uniform draws (count, size)."""
    return low + (high - low) * torch.rand(count, size, generator=generator)


def whole(generator: torch.Generator, *limits) -> list:
    """A whole number from 0 to below each limit, which may decide what is done."""
    return [int(draw * limit) for draw, limit in
            zip(torch.rand(len(limits), generator=generator).tolist(), limits)]


def move(values: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """values on the images' device and in their dtype; nothing waits for those of the CPU."""
    pinned = images.is_cuda and not values.is_cuda
    return (values.pin_memory() if pinned else values).to(images, non_blocking=True)


def bring(images: torch.Tensor, *values) -> list:
    """CPU tensors (N, ...) -> the same on the images' device and in their dtype, in one copy."""
    flat = move(torch.cat([value.flatten(1) for value in values], 1), images)
    parts = flat.split([value[0].numel() for value in values], 1)
    return [part.view(value.shape) for part, value in zip(parts, values)]


def axes(images: torch.Tensor) -> list:
    """Pixels' centres: y (H, 1), x (W, 1), in pixels."""
    return [torch.arange(0.5, side, device=images.device, dtype=images.dtype)[:, None]
            for side in images.shape[2:]]


def waves(images, generator, cells=(2, 24), channels=1):
    """Noise (N, channels, H, W) of mean 0 and standard deviation 1: standing waves of two octaves,
    as fine as a grid of random values of which cells[0] to cells[1] lie across an image."""
    n, long = len(images) * channels, max(images.shape[2:])
    grain = uniform(generator, len(images), *map(math.log, cells)).exp()
    grain = grain.repeat_interleave(channels, 0)[..., None].repeat(1, 2, WAVES)
    grain[..., ::5] *= 2
    pace = uniform(generator, n, -1, 1, 2 * WAVES).view_as(grain) * grain * math.pi / long
    phase = uniform(generator, n, 0, math.tau, 2 * WAVES).view_as(grain)
    # Each wave has half of a product of cosines' amplitude, which the number of waves makes up for.
    pace, phase = bring(images.new_empty(n, 0), pace, phase)
    rows, columns = (torch.addcmul(phase[:, i, None], axis, pace[:, i, None]).cos()
                     for i, axis in enumerate(axes(images)))
    noise = rows @ columns.mT.mul(2 / WAVES ** 0.5)
    return noise.view(len(images), channels, *images.shape[2:])


def clouds(images, generator, cells=(2, 24), channels=1):
    """waves, each image's and channel's in [0, 1]."""
    noise = waves(images, generator, cells, channels)
    low, high = noise.amin((2, 3), True), noise.amax((2, 3), True)
    return (noise - low) / (high - low)


def density(images: torch.Tensor) -> torch.Tensor:
    """(N, CELLS ** 2): how likely damage lies in a cell, in proportion to the gradient there +
    PLAIN: damage to a plain background teaches little."""
    grey = images.mean(1, keepdim=True)
    gradient = torch.hypot(grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1],
                           grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2])
    cells = F.adaptive_avg_pool2d(gradient, CELLS).flatten(1)
    return torch.add(cells, cells.mean(1, keepdim=True) + 1e-6, alpha=PLAIN)


def centres(density: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Places (N, 2), y and x in [0, 1], drawn by `density`."""
    # The first of events that come at these rates: no running sum, whose GPU kernel may vary.
    events = -uniform(generator, len(density), size=CELLS ** 2).clamp_min(1e-30).log()
    events, inside = bring(density, events, uniform(generator, len(density), size=2))
    cell = (events / density).argmin(1, keepdim=True)
    row = cell // CELLS
    return (torch.cat([row, torch.sub(cell, row, alpha=CELLS)], 1) + inside) / CELLS


def blobs(images, centre, shapes, generator):
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
            for i, axis in enumerate(axes(images)))
    far = torch.hypot(y[:, None, :, None], x[:, None, None])
    relief = torch.addcmul(far, rough[..., None, None], waves(images, generator))
    lowest = relief[..., ::step, ::step].flatten(1).topk(int(count.max()) + 1, largest=False)
    level = lowest.values.gather(1, index.long())
    return ((level[..., None, None] - relief) * steep[..., None, None]).clamp(0, 1)


def others(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Other images of the batch, moved round by any distance and mirrored at random."""
    *shift, flip = whole(generator, len(images), *images.shape[2:], 4)
    result = images.roll(shift, (0, 2, 3))
    return result.flip([axis for axis in (2, 3) if flip & axis - 1]) if flip else result


def turned(images: torch.Tensor, matrix: torch.Tensor, mode: str = "bilinear") -> torch.Tensor:
    """Images read at matrix (N, 2, 3) times a pixel's (x, y, 1), in [-1, 1], mirrored at edges."""
    grid = F.affine_grid(matrix, images.shape, align_corners=False)
    return F.grid_sample(images, grid, mode, "reflection", align_corners=False)
