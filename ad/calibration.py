"""What is normal, and where: calibrating maps on normal images."""

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F

from ad.ssim import gaussian_blur, smooth

GRID = 64  # cells per axis of the position statistics, whatever the image's size
BLURS = (0.5, 1.0, 2.0, 4.0)  # smoothing of the position statistics that is tried, in cells
PRIOR = 2.0  # the global statistics weigh as much as this many images at every position
OFFSET = 0.1  # added to an error before its logarithm, as a share of the mean normal error
CALIBRATIONS = ("auto", "global", "position", "image")


@dataclass
class Calibration:
    """Mean and standard deviation of every map, over normal images.

    kind "global": one value each, z = (map - mean) / (std + eps). "position": a GRID x GRID table
    each, of log(map + offset) after Gaussian smoothing by `smoothing` pixels, and |z|: an error
    that is too low for its place is strange as well, and in logarithms as far away as one that is
    too high; but the map called mask has one value each, and z has a sign: see learned_place.
    "image": the map's own mean and std, which erases how strange an image is; kept for comparison.
    mean, std: {map name: (1, 1, g, g)}; offset: {map name: float}; blur: of the tables,
    in cells, or None; evidence: {candidate: held-out log-likelihood per pixel}, what auto went by.
    """
    kind: str
    blur: float | None = None
    smoothing: float = 0.0
    offset: dict = field(default_factory=dict)
    mean: dict = field(default_factory=dict)
    std: dict = field(default_factory=dict)
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
        z = (log_map(m, self.offset[name], self.smoothing) - mean) / (std + self.eps)
        return z if learned_place(name) else z.abs()

    def describe(self):
        """One line: the kind, and what spoke for it."""
        return self.kind + "".join(f"; {name} {value:.3f}" for name, value in
                                   self.evidence.items()) + (
            " (log-likelihood per pixel of held-out normal images)" if self.evidence else "")


def learned_place(name):
    """Is it the map of a network that was trained to tell damage, and so what is normal where?
    Statistics of a few images at every position only add noise to it."""
    return name.startswith("mask@")


def log_map(m, offset, smoothing):
    """log(smoothed map + offset) of an error map (N, 1, H, W) >= 0."""
    return (smooth(m, smoothing).clamp_min(0) + offset + 1e-12).log()


def moments(maps):
    """{name: (N, 1, H, W)} -> {name: (N, 2, GRID, GRID)}: mean of map and of its square per cell.

    Float64, CPU. Neighbouring cells share a pixel row or column where GRID does not divide H or W.
    """
    return {name: F.adaptive_avg_pool2d(torch.cat([m, m * m], 1).double(), GRID).cpu()
            for name, m in maps.items()}


def concatenate(cells):
    """[{name: (n, 2, GRID, GRID)}, ...] -> {name: (N, 2, GRID, GRID)}."""
    return {name: torch.cat([c[name] for c in cells]) for name in cells[0]}


def statistics(cells, blur):
    """Mean and std of one map from its moments (N, 2, GRID, GRID): two (1, 1, g, g), float64.

    blur None: over all pixels, g = 1. Otherwise per cell, g = GRID, moments blurred by `blur` cells
    and shrunk towards the global ones with the weight of PRIOR images.
    """
    first, second = cells.mean(0, keepdim=True).chunk(2, dim=1)
    mean, square = first.mean((2, 3), keepdim=True), second.mean((2, 3), keepdim=True)
    variance = square - mean ** 2
    if blur is None:
        return mean, variance.clamp_min(0).sqrt()
    size = 2 * int(3 * blur + 0.5) + 1
    weight = len(cells) / (len(cells) + PRIOR)
    first, second = (gaussian_blur(m, size, blur, "reflect") for m in (first, second))
    local = weight * (second - first ** 2) + (1 - weight) * variance
    return weight * first + (1 - weight) * mean, local.clamp_min(0).sqrt()


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


def refit(calibration, cells):
    """The same calibration with mean and std from other moments."""
    tables = {name: statistics(c, None if learned_place(name) else calibration.blur)
              for name, c in cells.items()}
    return replace(calibration, mean={n: t[0].float() for n, t in tables.items()},
                   std={n: t[1].float() for n, t in tables.items()})


def fit_calibration(batches, kind, smoothing):
    """Calibration of [{name: (N, 1, H, W)}, ...] of >= 2 normal images, and its moments.

    kind "auto": is the logarithm of the error of a held-out normal image likelier with the others'
    mean and std at each position (the best of BLURS), or with one mean and std for all positions?
    The winner, position or global, is taken. smoothing: see Calibration.
    """
    linear = concatenate([moments(maps) for maps in batches])
    offset = {name: OFFSET * cells[:, 0].mean().item() for name, cells in linear.items()}
    errors = [name for name in linear if not learned_place(name)]
    if kind not in ("auto", "position") or not errors:
        kind = kind if kind == "image" else "global"
        return refit(Calibration(kind, None, smoothing, offset), linear), linear
    logs = concatenate([moments({n: log_map(m, offset[n], smoothing) for n, m in maps.items()})
                        for maps in batches])
    logs_of_errors = {name: logs[name] for name in errors}
    tried = {f"position, blur {blur:g}": blur for blur in BLURS}
    if kind == "auto":
        tried["global"] = None
    evidence = {name: held_out_likelihood(logs_of_errors, blur) for name, blur in tried.items()}
    blur = tried[max(evidence, key=evidence.get)]
    kind, cells = ("global", linear) if blur is None else ("position", logs)
    return refit(Calibration(kind, blur, smoothing, offset, evidence=evidence), cells), cells
