"""Where damage goes and what it is made of: noise, places, irregular regions, other images.

images: float (N, 3, H, W) in [0, 1]; every draw comes from a generator on their device.
"""

import math

import torch
import torch.nn.functional as F

from ad.errors import gradient_magnitude
from ad.ssim import smooth

AREA = (0.002, 0.15)  # of blobs, as a share of the image
CHANGED = 0.02  # mean absolute change of a pixel below which it is not part of the mask
CELLS = 16  # per axis, of the choice of a place
PLAIN = 0.25  # weight of a plain place against one with the image's mean gradient, whose is 1 more


def uniform(images, generator, low=0.0, high=1.0, size=1):
    """(N, size, 1, 1) uniform draws."""
    return images.new_empty(len(images), size, 1, 1).uniform_(low, high, generator=generator)


def enlarge(grid, shape):
    """(N, C, h, w) -> (N, C, *shape): F.interpolate's bicubic, as two matrix products, which take a
    fifth of its time on a CPU."""
    rows, columns = (F.interpolate(torch.eye(old, device=grid.device)[None, None], (new, old),
                                   mode="bicubic")[0, 0].to(grid.dtype)
                     for old, new in zip(grid.shape[2:], shape))
    return rows @ grid @ columns.T


def clouds(images, generator, cells=(2, 24), channels=1):
    """Perlin-like noise (N, channels, H, W), each image's in [0, 1]: two octaves, of which the
    coarser one has from cells[0] to cells[1] cells across."""
    n, height, width = len(images), *images.shape[2:]
    total = 0
    grain = math.exp(torch.rand(1, generator=generator, device=images.device).item()
                     * math.log(cells[1] / cells[0])) * cells[0]
    for octave in (1, 2):
        size = [max(2, round(grain * octave * side / max(height, width)))
                for side in (height, width)]
        grid = images.new_empty(n, channels, *size).normal_(generator=generator)
        total = total + enlarge(grid, (height, width)) / octave
    low, high = total.amin((2, 3), True), total.amax((2, 3), True)
    return (total - low) / (high - low + 1e-6)


def centres(images, generator):
    """Places (N, 2, 1, 1), y and x in [0, 1], drawn in proportion to the gradient there + PLAIN:
    damage to a plain background teaches little."""
    gradient = gradient_magnitude(images.mean(1, keepdim=True))
    cells = F.adaptive_avg_pool2d(gradient, CELLS).flatten(1)
    weight = cells / cells.mean(1, keepdim=True).clamp_min(1e-6) + PLAIN
    cell = torch.multinomial(weight, 1, generator=generator)
    corner = torch.cat([cell // CELLS, cell % CELLS], 1)[..., None, None]
    return (corner + uniform(images, generator, size=2)) / CELLS


def blobs(images, generator, area=AREA):
    """Irregular regions at one place of each image: bool (N, 1, H, W), of about the given area."""
    n, height, width = len(images), *images.shape[2:]
    wanted = uniform(images, generator, *map(math.log, area)).exp()
    y, x = (torch.linspace(0, 1, side, device=images.device) for side in (height, width))
    # The share of a disc's rectangle does not matter: the area is a quantile of the height.
    centre = centres(images, generator)
    stretch = uniform(images, generator, -1.2, 1.2).exp()
    far = ((y[:, None] - centre[:, :1]) ** 2 * stretch + (x - centre[:, 1:]) ** 2 / stretch)
    relief = far.sqrt() / wanted.sqrt() + 0.8 * clouds(images, generator)
    some = relief[..., ::2, ::2].flatten(1)  # a quarter of the pixels tells
    count = (wanted.flatten() * some.shape[1]).long().clamp(1, some.shape[1] - 1)
    levels = torch.stack([row.topk(k + 1, largest=False, sorted=False).values.amax()
                          for row, k in zip(some, count.tolist())])
    return relief < levels.view(n, 1, 1, 1)


def lay(images, patch, cover):
    """Blend patch in where cover (N, 1, H, W) in [0, 1] says; mask where that changed something."""
    result = (images + cover * (patch - images)).clamp(0, 1)
    return result, ((result - images).abs().mean(1, keepdim=True) > CHANGED).to(images.dtype)


def feather(mask, images, generator):
    """bool (N, 1, H, W) -> soft cover in [0, 1], the edge 0 or 2 pixels wide, for all alike."""
    soft = torch.rand(1, generator=generator, device=images.device).item() < 0.5
    return smooth(mask.to(images.dtype), 2.0) if soft else mask.to(images.dtype)


def others(images, generator):
    """Other images of the batch, moved round by any distance and mirrored at random."""
    shift = int(torch.randint(len(images), (1,), generator=generator, device=images.device))
    y, x = (int(torch.randint(side, (1,), generator=generator, device=images.device))
            for side in images.shape[2:])
    result = images.roll((shift, y, x), (0, 2, 3))
    flip = torch.rand(2, generator=generator, device=images.device).tolist()
    return result.flip([axis + 2 for axis in (0, 1) if flip[axis] < 0.5])
