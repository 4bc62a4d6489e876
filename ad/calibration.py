"""What is normal, and where: calibrating maps on normal images."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from ad.ssim import gaussian_blur

GRID = 64  # cells per axis of the position statistics, whatever the image's size
BLURS = (1.0, 2.0, 4.0)  # smoothing of the position statistics that is tried, in cells
PRIOR = 2.0  # the global statistics weigh as much as this many images at every position
CALIBRATIONS = ("auto", "global", "position", "image")


@dataclass
class Calibration:
    """Mean and standard deviation of every map, over normal images.

    kind: "global" (one value each, z = (map - mean) / (std + eps)), "position" (a GRID x GRID table
    each, |z|: an error that is too low for its place is strange as well) or "image" (each map's own
    mean and std: erases how strange an image is; kept for comparison). mean, std: {map name:
    (1, 1, g, g)}. evidence: {candidate: held-out log-likelihood per pixel}, what auto went by.
    """
    kind: str
    mean: dict
    std: dict
    eps: float = 1e-6
    evidence: dict = field(default_factory=dict)

    def apply(self, maps):
        """{name: (N, 1, H, W)} -> the same of z, in standard deviations."""
        return {name: self._z(name, m) for name, m in maps.items()}

    def _z(self, name, m):
        if self.kind == "image":
            std, mean = torch.std_mean(m, (1, 2, 3), correction=0, keepdim=True)
            return (m - mean) / (std + self.eps)
        mean, std = (table[name].to(m) for table in (self.mean, self.std))
        if self.kind == "global":
            return (m - mean) / (std + self.eps)
        mean, std = (F.interpolate(t, m.shape[-2:], mode="bilinear") for t in (mean, std))
        return ((m - mean) / (std + self.eps)).abs()


def moments(maps):
    """{name: (N, 1, H, W)} -> {name: (N, 2, GRID, GRID)}: mean of map and of its square per cell.

    Float64, CPU. Neighbouring cells share a pixel row or column where GRID does not divide H or W.
    """
    return {name: F.adaptive_avg_pool2d(torch.cat([m, m * m], 1).double(), GRID).cpu()
            for name, m in maps.items()}


def statistics(cells, blur):
    """Mean and std of one map from its moments (N, 2, GRID, GRID): two (1, 1, g, g), float64.

    blur None: over all pixels, g = 1. Otherwise per cell, g = GRID, moments blurred by `blur` cells
    and shrunk towards the global ones with the weight of PRIOR images.
    """
    first, second = cells.mean(0, keepdim=True).chunk(2, dim=1)
    mean, square = first.mean((2, 3), keepdim=True), second.mean((2, 3), keepdim=True)
    if blur is not None:
        size = 2 * int(3 * blur + 0.5) + 1
        weight = len(cells) / (len(cells) + PRIOR)
        variance = square - mean ** 2
        first, second = (gaussian_blur(m, size, blur, "reflect") for m in (first, second))
        mean, local = weight * first + (1 - weight) * mean, second - first ** 2
        return mean, (weight * local + (1 - weight) * variance).clamp_min(0).sqrt()
    return mean, (square - mean ** 2).clamp_min(0).sqrt()


def leave_one_out(cells):
    """Yield (index, moments without that image) for {name: (N, 2, GRID, GRID)}."""
    count = len(next(iter(cells.values())))
    for index in range(count):
        keep = [i for i in range(count) if i != index]
        yield index, {name: c[keep] for name, c in cells.items()}


def held_out_likelihood(cells, blur, eps=1e-6):
    """Mean Gaussian log-likelihood (nats per pixel, all maps) of each image given the others."""
    total = []
    for index, others in leave_one_out(cells):
        for name, rest in others.items():
            mean, std = statistics(rest, blur)
            first, second = cells[name][index].unbind(0)
            spread = (second - 2 * mean * first + mean ** 2) / (std + eps) ** 2
            total.append((-(std + eps).log() - 0.5 * spread).mean())
    return torch.stack(total).mean().item()


def fit_calibration(cells, kind, blur=None):
    """Calibration of {name: moments of normal images (N, 2, GRID, GRID)}.

    kind "auto": global, or position with one of BLURS, whichever makes held-out normal images the
    likeliest, each image judged by the others; needs N >= 2. "position": the best of BLURS.
    """
    evidence = {}
    if kind in ("auto", "position") and blur is None:
        tried = [None, *BLURS] if kind == "auto" else BLURS
        evidence = {b: held_out_likelihood(cells, b) for b in tried}
        blur = max(evidence, key=evidence.get)
        kind = "global" if blur is None else "position"
    tables = [{}, {}]
    for name, c in cells.items():
        for table, value in zip(tables, statistics(c, blur)):
            table[name] = value.float()
    names = {("global" if b is None else f"position, blur {b:g}"): v for b, v in evidence.items()}
    return Calibration(kind, *tables, evidence=names), blur
