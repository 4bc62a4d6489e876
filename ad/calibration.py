"""What is normal, and where: calibrating maps on normal images."""

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F

from ad.data import on_device
from ad.ssim import gaussian_blur, smooth

GRID = 64  # cells per axis of the position statistics, whatever the image's size
BLURS = (0.5, 1.0, 2.0, 4.0)  # smoothing of the position statistics that is tried, in cells
BORDER = 8  # cells; nearer to an edge than this, a map may be higher or lower for that alone
PRIOR = 2.0  # the global statistics weigh as much as this many images at every position
OFFSET = 0.1  # added to an error before its logarithm, as a share of the mean normal error


@dataclass
class Calibration:
    """Mean and standard deviation of every map, over normal images: z = (x - mean) / (std + eps).

    kind "global": x is the map, mean and std are one value each. "position": x is the logarithm of
    the map, smoothed by `smoothing` pixels, + offset; mean and std are GRID x GRID tables, but of
    the map called mask, see knows_positions. "border": the same, but the mean only depends on the
    distance from the edges, and the std is one value.
    mean, std: {map name: (1, 1, g, g)}; offset: {map name: float}, {} for plain maps; blur: see
    `statistics`; evidence: {candidate: (held-out log-likelihood per pixel, standard
    error of the distance between border, which has it, and the best position)}, what auto went by.
    """
    kind: str
    blur: float | str | None = None
    smoothing: float = 0.0
    offset: dict = field(default_factory=dict)
    mean: dict = field(default_factory=dict)
    std: dict = field(default_factory=dict)
    eps: float = 1e-6
    evidence: dict = field(default_factory=dict)

    def to(self, device: torch.device | str) -> "Calibration":
        """The same for maps on a device, to which its tables then need not travel each time."""
        offset, mean, std = ({n: on_device(column(v), device) for n, v in values.items()}
                             for values in (self.offset, self.mean, self.std))
        return replace(self, offset=offset, mean=mean, std=std)

    def prepare(self, maps: dict) -> torch.Tensor:
        """{name: (N, 1, H, W)} -> x of all M (N, M, H, W): logarithms where this is of those."""
        x = torch.cat(list(maps.values()), 1)
        return log_map(x, stacked([self.offset], maps, x), self.smoothing) if self.offset else x

    def apply(self, maps: dict) -> dict:
        """{name: (N, 1, H, W)} -> the same of z, in standard deviations."""
        x = self.prepare(maps)
        tables = stacked([self.mean, self.std], maps, x)
        if tables.shape[-1] > 1:
            tables = F.interpolate(tables, x.shape[-2:], mode="bilinear")
        mean, std = tables.chunk(2, 1)
        return dict(zip(maps, ((x - mean) / (std + self.eps)).split(1, 1)))

    def describe(self) -> str:
        """One line: the kind, and what spoke for it."""
        return self.kind + "".join(f"; {name} {value:.3f}" + (f" +- {error:.3f}" if error else "")
                                   for name, (value, error) in self.evidence.items()) + (
            " (log-likelihood per pixel of held-out normal images)" if self.evidence else "")


def knows_positions(name: str) -> bool:
    """Is it the map of a network that was trained to tell damage, and so what is normal where?
    Statistics of a few images at every position only add noise to it."""
    return name.startswith("mask@")


def column(value: float | torch.Tensor) -> torch.Tensor:
    """A number or a table (1, 1, g, g) -> (1, 1, g, g)."""
    return value if torch.is_tensor(value) else torch.full((1, 1, 1, 1), value)


def stacked(parts: list, names: dict, x: torch.Tensor) -> torch.Tensor:
    """[{name: number or (1, 1, g, g)}, ...] -> (1, parts * names, g, g), g the largest, like x."""
    tables = [on_device(column(part[name]), x.device).to(x) for part in parts for name in names]
    side = max(table.shape[-1] for table in tables)
    return torch.cat([table.expand(-1, -1, side, side) for table in tables], 1)


def log_map(m: torch.Tensor, offset: float | torch.Tensor, smoothing: float) -> torch.Tensor:
    """log(smoothed map + offset) of error maps (N, C, H, W) >= 0; offset: one, or (1, C, 1, 1)."""
    return (smooth(m, smoothing) + offset).clamp_min(1e-12).log()


def moments(maps: dict) -> dict:
    """{name: (N, 1, H, W)} -> {name: (N, 2, GRID, GRID)}: mean of map and of its square per cell.

    Float64, CPU. Neighbouring cells share a pixel row or column where GRID does not divide H or W.
    """
    return {name: F.adaptive_avg_pool2d(torch.cat([m, m * m], 1).double(), GRID).cpu()
            for name, m in maps.items()}


def concatenate(cells: list) -> dict:
    """[{name: (n, 2, GRID, GRID)}, ...] -> {name: (N, 2, GRID, GRID)}."""
    return {name: torch.cat([c[name] for c in cells]) for name in cells[0]}


def mean_moments(cells: torch.Tensor, without: int | None = None,
                 total: torch.Tensor | None = None) -> torch.Tensor:
    """Moments (N, 2, GRID, GRID) -> their mean (1, 2, GRID, GRID) over all images, or all but one.
    total: their sum, where it is known."""
    total = cells.sum(0, keepdim=True) if total is None else total
    return total / len(cells) if without is None else (total - cells[without]) / (len(cells) - 1)


def by_border(cells: torch.Tensor) -> torch.Tensor:
    """(1, 1, GRID, GRID) -> the same, every value the mean of those as far from the nearest edges
    above or below and beside, up to BORDER cells."""
    depth = torch.arange(GRID).minimum(torch.arange(GRID).flip(0)).clamp_max(BORDER)
    group = (depth[:, None] * (BORDER + 1) + depth).flatten()
    total = torch.zeros((BORDER + 1) ** 2, dtype=cells.dtype).index_add_(0, group, cells.flatten())
    return (total / group.bincount(minlength=len(total)).clamp_min(1))[group].view(cells.shape)


def statistics(moments: torch.Tensor, count: int, blur: float | str | None) -> tuple:
    """Mean and std of one map from mean moments of `count` images: two (1, 1, g, g), float64.

    blur a number: per cell, g = GRID, moments blurred by `blur` cells and shrunk towards the global
    ones with the weight of PRIOR images. "border": the mean by_border, the std one value.
    None: both one value.
    """
    first, second = moments.chunk(2, dim=1)
    mean, square = first.mean((2, 3), keepdim=True), second.mean((2, 3), keepdim=True)
    variance = square - mean ** 2
    if blur is None:
        return mean, variance.clamp_min(0).sqrt()
    if blur == "border":
        table = by_border(first)
        left = (second - 2 * table * first + table ** 2).mean((2, 3), keepdim=True)
        return table, left.clamp_min(0).sqrt()
    size = 2 * int(3 * blur + 0.5) + 1
    weight = count / (count + PRIOR)
    first, second = (gaussian_blur(m, size, blur) for m in (first, second))
    local = weight * (second - first ** 2) + (1 - weight) * variance
    return weight * first + (1 - weight) * mean, local.clamp_min(0).sqrt()


def held_out_likelihood(cells: dict, blur: float | str | None) -> torch.Tensor:
    """Gaussian log-likelihood (N,) of each image given the others, in nats per pixel, without the
    constant; mean over maps. cells: {name: moments (N, 2, GRID, GRID)}."""
    total = torch.zeros(len(next(iter(cells.values()))), dtype=torch.float64)
    for c, of_all in ((c, c.sum(0, keepdim=True)) for c in cells.values()):
        for index in range(len(c)):
            mean, std = statistics(mean_moments(c, index, of_all), len(c) - 1, blur)
            std = std + Calibration.eps
            spread = (c[index, 1] - 2 * mean * c[index, 0] + mean ** 2) / std ** 2
            total[index] += (-std.log() - 0.5 * spread).mean() / len(cells)
    return total


def refit(calibration: Calibration, cells: dict, without: int | None = None,
          totals: dict | None = None) -> Calibration:
    """The same calibration with mean and std of these moments {name: (N, 2, GRID, GRID)}, of all
    images or of all but one. totals: {name: their sum}, where they are known."""
    tables = {name: statistics(mean_moments(c, without, totals and totals[name]),
                               len(c) - (without is not None),
                               None if knows_positions(name) else calibration.blur)
              for name, c in cells.items()}
    return replace(calibration, mean={n: t[0].float() for n, t in tables.items()},
                   std={n: t[1].float() for n, t in tables.items()})


def choose_blur(cells: dict, always: bool = False) -> tuple:
    """(blur of BLURS or, unless `always`, "border"; evidence): are images likelier by mean and std
    at each position, by more than one standard error over images? See Calibration's evidence."""
    found = {f"position, blur {blur:g}": held_out_likelihood(cells, blur) for blur in BLURS}
    best = max(found, key=lambda name: found[name].mean())
    found["border"] = held_out_likelihood(cells, "border")
    gain = found[best] - found["border"]
    error = (gain.std() / len(gain) ** 0.5).item()
    evidence = {name: (value.mean().item(), error if name == "border" else 0.0)
                for name, value in found.items()}
    pays = always or gain.mean() > error
    return (BLURS[list(found).index(best)] if pays else "border"), evidence


def fit_calibration(batches: list, kind: str, smoothing: float) -> tuple[Calibration, dict]:
    """Calibration of [{name: (N, 1, H, W)}, ...] of >= 2 normal images, and its moments.

    kind "auto": "position" where choose_blur finds that it pays, else "border". smoothing, and
    what the kinds are: see Calibration.
    """
    cells = concatenate([moments(maps) for maps in batches])
    if kind == "global":
        return refit(Calibration(kind), cells), cells
    calibration = Calibration(kind, None, smoothing, {
        name: OFFSET * c[:, 0].mean().item() for name, c in cells.items()})
    cells = concatenate([moments(dict(zip(maps, calibration.prepare(maps).split(1, 1))))
                         for maps in batches])
    errors = {name: c for name, c in cells.items() if not knows_positions(name)}
    calibration.blur = "border"
    if kind in ("auto", "position") and errors:
        calibration.blur, calibration.evidence = choose_blur(errors, kind == "position")
    calibration.kind = "border" if calibration.blur == "border" else "position"
    return refit(calibration, cells), cells
