"""Pseudo-anomalies: normal images in -> (images with one defect each, masks) out.

One batched geometry for all families. Every draw comes from the generator that is passed in, of
the images' device or of the CPU. Images are float32 or float64 (N, 3, H, W) in [0, 1]; masks are
(N, 1, H, W) in the same dtype, 1 on the placed shape. Pixels outside stay the same bit for bit.
"""

import hashlib
import math

import torch
import torch.nn.functional as F

from ad.regions import move

# Fractions of the image area. Our own round numbers, meant to span the range from tiny to large
# defects that the MVTec AD paper (Bergmann et al., IJCV 2021) describes; measured on no test label.
SIZES = {"small": (0.0005, 0.003), "medium": (0.003, 0.02), "large": (0.02, 0.1)}
VISIBLE = 0.03  # mean absolute change inside a mask below which a defect counts as invisible


def seeded_generator(device: torch.device | str, *numbers: int) -> torch.Generator:
    """A generator on `device`, seeded by 63 bits of the SHA-256 of the numbers joined by commas, so
    that (1, 23) and (12, 3) differ. A CPU and a GPU do not draw the same from one seed."""
    digest = hashlib.sha256(",".join(str(int(number)) for number in numbers).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _check(images, area, aspect=(1, 1)):
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 8:
        raise ValueError(f"images must be (N, 3, H, W), sides >= 8; got {tuple(images.shape)}")
    if images.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"images must be float32 or float64, got {images.dtype}")
    for name, value, limit in (("area", area, 1), ("aspect", aspect, math.inf)):
        if len(value) != 2 or not 0 < value[0] <= value[1] < limit:
            raise ValueError(f"{name} must be 0 < low <= high < {limit}, got {value}")


def _uniform(images, generator, shape, low, high):
    draws = torch.empty(shape, dtype=images.dtype, device=generator.device)
    return move(draws.uniform_(low, high, generator=generator), images)


def _normal(images, generator, *shape):
    draws = torch.empty(shape, dtype=images.dtype, device=generator.device)
    return move(draws.normal_(generator=generator), images)


def _place(images, generator, area, aspect):
    """Draw a rotated rectangle per image: the drawn area, inside the image where that is possible.

    Returns centre (N, 2), half width and height (N, 2), both x first, in pixels (edges at integers)
    and angle (N, 1). The aspect ratio gives way: width w and height a / w at angle t fit when
    w |cos t| + a / w |sin t| <= W and w |sin t| + a / w |cos t| <= H, two quadratics in w.
    """
    sides, shape = move(torch.tensor(images.shape[:1:-1]), images), (len(images), 1)
    pixels = (_uniform(images, generator, shape, *area) * sides.prod()).clamp(min=4)  # 2 x 2
    ratio = _uniform(images, generator, shape, *map(math.log, aspect)).exp()
    angle = _uniform(images, generator, shape, -math.pi, math.pi)
    along = torch.cat([angle.cos(), angle.sin()], dim=1).abs().clamp(min=1e-6)
    across = along.flip(1)
    root = (sides ** 2 - 4 * pixels * along * across).clamp(min=0).sqrt()
    shortest = (2 * pixels * across / (sides + root)).amax(dim=1, keepdim=True).clamp(min=2)
    longest = ((sides + root) / (2 * along)).amin(dim=1, keepdim=True)
    width = (pixels * ratio).sqrt().maximum(shortest).minimum(longest).minimum(pixels / 2)
    half = torch.cat([width, pixels / width], dim=1) / 2
    margin = (half[:, :1] * along + half[:, 1:] * across).minimum(sides / 2)
    centre = margin + _uniform(images, generator, half.shape, 0, 1) * (sides - 2 * margin)
    # On a pixel's centre: that pixel is inside whatever the shape, so no mask is ever empty.
    return centre.floor() + 0.5, half, angle


def _local(images, centre, angle):
    """Coordinates u, v (N, H, W) of every pixel's centre, from `centre`, turned by `angle`."""
    x, y = (torch.arange(n, device=images.device, dtype=images.dtype) + 0.5
            for n in images.shape[:1:-1])
    x, y = x - centre[:, :1, None], y[:, None] - centre[:, 1:, None]
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    return cos * x + sin * y, cos * y - sin * x


def _sample(images, x, y, mode="bilinear"):
    """Read images at pixel positions x, y (N, H, W), mirrored at the border: (N, 3, H, W)."""
    grid = torch.stack([2 * x / images.shape[3] - 1, 2 * y / images.shape[2] - 1], dim=-1)
    return F.grid_sample(images, grid, mode, padding_mode="reflection", align_corners=False)


def _cut(images, place, source, scale):
    """The upright rectangle around `source` (N, 2), scaled by `scale` (N, 1), moved to `place`.

    Returns a patch (N, 3, H, W), meaningful inside the mask only, and the mask (N, 1, H, W), bool.
    """
    centre, half, angle = place
    u, v = _local(images, centre, angle)
    mask = (u.abs() <= half[:, :1, None]) & (v.abs() <= half[:, 1:, None])
    x, y = (source[:, i, None, None] + t / scale[:, None] for i, t in enumerate((u, v)))
    return _sample(images, x, y), mask[:, None]


def _blend(images, patch, mask, generator):
    """Put patch into images where mask is set; returns (images, masks).

    A patch from a plain area can equal what it covers. If the mean absolute change inside the mask
    is below VISIBLE, the patch is darkened (mean above 0.5) or lightened by s >= 0.15, towards the
    roomier side: its mean moves by >= s / 2, so the change becomes >= 0.075 - VISIBLE > VISIBLE.
    """
    def mean(x):
        return (x * mask).sum((1, 2, 3), True) / (3 * mask.sum((1, 2, 3), True))
    patch = patch.clamp(0, 1)
    strength = _uniform(images, generator, (len(images), 1, 1, 1), 0.15, 0.4)
    shifted = (patch + torch.where(mean(patch) > 0.5, -strength, strength)).clamp(0, 1)
    patch = torch.where(mean((patch - images).abs()) < VISIBLE, shifted, patch)
    return torch.where(mask, patch, images), mask.to(images.dtype)


@torch.no_grad()
def cutpaste(images: torch.Tensor, generator: torch.Generator, area: tuple = (0.02, 0.15),
             aspect: tuple = (0.3, 3.3)) -> tuple[torch.Tensor, torch.Tensor]:
    """CutPaste: a patch of each image, rotated, rescaled and recoloured, at another place of it.

    images: (N, 3, H, W) in [0, 1]; area: fraction of H * W, uniform; aspect: width over height,
    log-uniform (gives way where the patch would not fit; the border may cut patches of a quarter
    of the area or more). Returns (images, masks) as above. Raises ValueError on a wrong shape,
    dtype, area or aspect. Source: Li et al., CVPR 2021, arXiv 2011.04682, with its area and aspect.
    """
    _check(images, area, aspect)
    place = _place(images, generator, area, aspect)
    scale = _uniform(images, generator, (len(images), 1), math.log(0.7), math.log(1.4)).exp()
    # A quarter to three quarters of each side away, wrapping round: no part is favoured.
    sides = move(torch.tensor(images.shape[:1:-1]), images)
    source = place[0] + sides * _uniform(images, generator, (len(images), 2), 0.25, 0.75)
    patch, mask = _cut(images, place, source.remainder(sides), scale)
    draw = _uniform(images, generator, (len(images), 5, 1, 1), -1, 1)  # contrast, brightness, RGB
    patch = 0.5 + (1 + 0.3 * draw[:, :1]) * (patch - 0.5) + 0.12 * draw[:, 1:2] + 0.06 * draw[:, 2:]
    return _blend(images, patch, mask, generator)


def cutpaste_scar(images: torch.Tensor, generator: torch.Generator, area: tuple = (0.0005, 0.01),
                  aspect: tuple = (5, 20)) -> tuple[torch.Tensor, torch.Tensor]:
    """CutPaste-Scar (same paper): `cutpaste` with a long thin patch, at any angle."""
    return cutpaste(images, generator, area, aspect)


def _damages(images, generator, v):
    """Four damaged copies (4, N, 3, H, W): blurred, noisy, block-shuffled, scratched along v."""
    count, _, height, width = images.shape
    unit = max(1, min(height, width) // 128)  # grain: 2 pixels at 256, so it survives resizing
    coarse = F.adaptive_avg_pool2d(images, (max(1, height // 24), max(1, width // 24)))
    strength = _uniform(images, generator, (2, count, 1, 1, 1), 0.1, 0.25)
    blocks = _normal(images, generator, count, 2, height // (2 * unit), width // (2 * unit))
    offset = F.interpolate(8 * unit * blocks, (height, width))
    x, y = _local(images, images.new_zeros(1, 2), images.new_zeros(1, 1))
    # One tone per line; cubed, so that a few lines stand out of many faint ones.
    tones = (_normal(images, generator, count, 256) ** 3).clamp(-2.5, 2.5)
    lines = tones.gather(1, (v / unit).floor().long().remainder(256).flatten(1))
    noise = _normal(images, generator, count, 1, height, width)
    return torch.stack([F.interpolate(coarse, (height, width), mode="bilinear"),
                        images + strength[0] * noise,
                        _sample(images, x + offset[:, 0], y + offset[:, 1], "nearest"),
                        images + strength[1] * lines.view(count, 1, height, width)])


@torch.no_grad()
def texture_damage(images: torch.Tensor, generator: torch.Generator,
                   area: tuple = (0.002, 0.05)) -> tuple[torch.Tensor, torch.Tensor]:
    """Damage the texture inside an irregular blob: blur, noise, shuffled blocks or scratches.

    images: (N, 3, H, W) in [0, 1]; area: fraction of H * W, uniform. Returns (images, masks): each
    mask is a whole blob, between scratches too. Raises ValueError on a wrong shape, dtype or area.
    """
    _check(images, area)
    # An ellipse fills pi / 4 of its rectangle. Its radius is modulated by r = 1 + sum a_k cos(k t +
    # p_k); that multiplies the area by 1 + sum a_k^2 / 2, which is divided out.
    place = _place(images, generator, [4 / math.pi * x for x in area], (0.3, 3.3))
    u, v = _local(images, place[0], place[2])
    x, y = u / place[1][:, :1, None], v / place[1][:, 1:, None]
    size, phase = _uniform(images, generator, (2, 3, len(images), 1, 1), 0, 1)
    size, phase, theta = 0.2 * size, math.tau * phase, torch.atan2(y, x)
    radius = 1 + sum(a * (k * theta + p).cos() for k, a, p in zip((2, 3, 5), size, phase))
    mask = (x ** 2 + y ** 2) * (1 + (size ** 2).sum(dim=0) / 2) <= radius ** 2
    kind = torch.randint(4, (len(images),), generator=generator, device=generator.device)
    kind = move(kind, images).long()
    patch = _damages(images, generator, v)[kind, torch.arange(len(images), device=images.device)]
    return _blend(images, patch, mask[:, None], generator)


def pseudo_anomalies(image: torch.Tensor, seed: int, index: int) -> list:
    """The validation positives of one image: [(family, size, image, mask), ...], all pairs.

    image: (1, 3, H, W) in [0, 1], else ValueError; index: its number; seed: the run's. A variant's
    generator is seeded by (seed, index, position in the list): the same every epoch, in any order.
    """
    if image.ndim != 4 or len(image) != 1:
        raise ValueError(f"image must be (1, 3, H, W), got {tuple(image.shape)}")
    variants = []
    for family, draw in (("patch", cutpaste), ("scar", cutpaste_scar), ("texture", texture_damage)):
        for size, area in SIZES.items():
            generator = seeded_generator(image.device, seed, index, len(variants))
            variants.append((family, size, *draw(image, generator, area)))
    return variants
