"""A memory of normal features: nearest neighbours (PatchCore), or a Gaussian per place (PaDiM)."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from ad.backbones import load_backbone

RADII = (1, 2, 4)  # cells; what --position auto tries besides free
MARGIN = 0.5  # nats per patch that held-out normal images must gain by knowing the place
POOL = 40_000  # random patches that a bank for anywhere is made from, at most
PROJECTED = 32  # random directions in which distances between them are measured for that
BLOCK = 2 ** 24  # distances held in memory at once
AROUND = 9  # bank entries around the nearest one that PatchCore's re-weighting looks at
SHRINKAGE = 20.0  # images; the weight of all places' covariance in that of one place
HELD_OUT = 4  # images that --position auto judges, at most


def farthest_points(features, count):
    """Greedy coreset (k-centre): features (P, N, C) -> indices (P, count), P sets at once.

    Begins with entry 0; each next one is the farthest from those chosen (Sener and Savarese,
    "Active learning for convolutional neural networks: a core-set approach", ICLR 2018).
    """
    chosen = torch.zeros(len(features), count, dtype=torch.long, device=features.device)
    every = torch.arange(len(features), device=features.device)
    squares = features.square().sum(2, keepdim=True)
    closest = torch.full_like(squares, math.inf)
    for i in range(1, count):
        at = chosen[:, i - 1]
        last = features[every, at, :, None]
        distance = torch.baddbmm(squares, features, last, alpha=-2) + squares[every, at, None]
        chosen[:, i] = torch.minimum(closest, distance, out=closest)[..., 0].argmax(1)
    return chosen


def nearest(queries, bank, count=1):
    """Nearest bank entries, set by set: queries (P, M, C), bank (P, K, C) -> squared distances and
    indices, each (P, M, count), ascending. Never more than BLOCK distances are in memory."""
    squares = bank.square().sum(2)[:, None]
    rows = max(1, BLOCK // (bank.shape[0] * bank.shape[1]))
    parts = []
    for part in queries.split(rows, 1):
        distance = torch.baddbmm(squares, part, bank.transpose(1, 2), alpha=-2)
        parts.append(distance.min(2, keepdim=True) if count == 1 else
                     distance.topk(count, 2, largest=False))
    distance, index = (torch.cat(group, 1) for group in zip(*parts))
    return (distance + queries.square().sum(2, keepdim=True)).clamp_min_(0), index


def by_place(features):
    """(N, C, h, w) -> (h * w, N, C)."""
    return features.flatten(2).permute(2, 0, 1).contiguous()


def nearest_around(queries, bank, grid, radius):
    """As nearest, count 1, for queries (h * w, M, C) in the banks (h * w, K, C) of all places at
    most `radius` cells away in y and x; the index counts through all entries of all places.

    The queries are shifted over the banks, which stay where they are.
    """
    (h, w), m = grid, queries.shape[1]
    best = queries.new_full((h, w, m), math.inf)
    index = torch.zeros((h, w, m), dtype=torch.long, device=queries.device)
    places = torch.arange(h * w, device=queries.device)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            # The place that is asked for and the one that asks, where both are on the grid.
            there = (slice(max(0, dy), h + min(0, dy)), slice(max(0, dx), w + min(0, dx)))
            here = (slice(max(0, -dy), h + min(0, -dy)), slice(max(0, -dx), w + min(0, -dx)))
            rows = torch.zeros_like(places).view(h, w)
            rows[there] = places.view(h, w)[here]
            distance, entry = nearest(queries[rows.flatten()], bank)
            distance = distance.view(h, w, m)[there]
            entry = (entry[..., 0] + places[:, None] * bank.shape[1]).view(h, w, m)[there]
            closer = distance < best[here]
            best[here] = torch.where(closer, distance, best[here])
            index[here] = torch.where(closer, entry, index[here])
    return best.view(h * w, m, 1), index.view(h * w, m, 1)


def gains(placed, pool, grid):
    """Log-likelihood that held-out images gain when only patches near a place explain it.

    placed: (h * w, N, C) of N images; the last fifth of them, at most HELD_OUT, is held out. pool:
    patches of anywhere (1, K, C). Returns {radius: nats per patch}, from the k-nearest-neighbour
    density, k = 1, of n patches in D dimensions: log p = -log n - D log distance + constant. D is
    the maximum-likelihood estimate of Levina and Bickel (NIPS 2004), k = 10.
    """
    count = max(1, min(HELD_OUT, placed.shape[1] // 5))
    queries, rest = placed[:, -count:], placed[:, :-count].contiguous()
    free = nearest(queries.reshape(1, -1, placed.shape[2]), pool, min(10, pool.shape[1]))[0][0]
    logs = (free + 1e-12).log() / 2
    dimension = 1 / (logs[:, -1:] - logs[:, :-1]).mean().clamp_min(1e-6)
    result = {}
    for radius in RADII:
        distance, _ = nearest_around(queries, rest, grid, radius)
        cells = [torch.tensor([min(n, i + radius + 1) - max(0, i - radius) for i in range(n)])
                 for n in grid]
        entries = (torch.outer(*cells) * rest.shape[1]).double()
        closer = logs[:, 0].mean() - ((distance + 1e-12).log() / 2).mean()
        result[radius] = (math.log(pool.shape[1]) - entries.log().mean() + dimension * closer).item()
    return result


def gaussians(sets):
    """(P, N, C) -> means (P, C) and whitening matrices W (P, C, C): |W (x - mean)| is Mahalanobis'
    distance. Covariances are shrunk towards their mean with the weight of SHRINKAGE entries."""
    centre = sets.mean(1)
    spread = sets - centre[:, None]
    local = spread.transpose(1, 2) @ spread / sets.shape[1]
    weight = sets.shape[1] / (sets.shape[1] + SHRINKAGE)
    eye = torch.eye(sets.shape[2], device=sets.device)
    covariance = weight * local + (1 - weight) * local.mean(0) + 0.01 * eye
    return centre, torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), eye, upper=False)


class PatchMemory(nn.Module):
    """Remembers features of normal patches; strange is what is far from all of them.

    Roth et al., "Towards total recall in industrial anomaly detection" (PatchCore), CVPR 2022,
    with neighbours only at about the same place where that is more normal; or with distance
    "gaussian" Mahalanobis distances (Defard et al., "PaDiM", ICPR 2021); "both" gives both maps.
    backbone, layers, weights: see load_backbone; fingerprint: of the weights there when fit() was
    called, or None. position: "auto", "free" (anywhere) or a radius in cells. coreset: share of the
    patches, or of those of each place, that is kept, in (0, 1]. reweight: PatchCore's equation 7.
    """
    SCORING = {"windows": (0,), "window_input": 256}
    BUFFERS = ("mean", "std", "bank", "centre", "whitening")

    def __init__(self, backbone="gradients", layers=None, weights=None, position="auto",
                 coreset=0.1, distance="neighbours", reweight=False, fingerprint=None):
        super().__init__()
        if not 0 < coreset <= 1:
            raise ValueError(f"--coreset must be in (0, 1], got {coreset}")
        if position not in ("auto", "free") and not str(position).isdecimal():
            raise ValueError(f"--position must be auto, free or a radius in cells, got {position}")
        layers = layers or ((8,) if backbone == "gradients" else (8, 16))
        trunk, self.fingerprint = load_backbone(backbone, tuple(layers), weights)
        if fingerprint not in (None, self.fingerprint):
            raise ValueError(f"the memory was made with other weights of {backbone} "
                             f"({fingerprint}) than are here ({self.fingerprint})")
        self.trunk = [trunk]  # in a list: no part of the checkpoint, which names its weights
        self.contexts = (3, 7) if backbone == "gradients" else (3,)
        self.position, self.coreset = str(position), coreset
        self.names = {"neighbours": ("neighbours",), "gaussian": ("gaussian",),
                      "both": ("neighbours", "gaussian")}[distance]
        self.reweight = reweight
        self.grid, self.radius, self.evidence = None, None, {}
        for name in self.BUFFERS:
            self.register_buffer(name, None)

    def get_extra_state(self):
        return {"grid": self.grid, "radius": self.radius, "evidence": self.evidence}

    def set_extra_state(self, state):
        self.grid, self.radius, self.evidence = (state[k] for k in ("grid", "radius", "evidence"))

    def load_state_dict(self, state_dict, *args, **kwargs):
        for name in self.BUFFERS:
            if name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[name]))
        return super().load_state_dict(state_dict, *args, **kwargs)

    @torch.no_grad()
    def features(self, images):
        """(N, 3, H, W) in [0, 1] -> features of every cell of the finest layer, each averaged over
        its neighbourhood (N, C, h, w), float32; on the grid of fit() where places matter."""
        maps = self.trunk[0].to(images.device)(images)
        size = tuple(maps[0].shape[-2:]) if self.radius is None else self.grid
        return torch.cat([F.interpolate(F.avg_pool2d(m.float(), width, 1, width // 2,
                                                     count_include_pad=False),
                                        size, mode="bilinear")
                          for m in maps for width in self.contexts], dim=1)

    @torch.no_grad()
    def fit(self, batches):
        """Remember normal images, batches (N, 3, H, W) in [0, 1] of one or several sizes. All their
        features are in memory at once. A free bank draws from torch's global generator."""
        found = [self.features(batch) for batch in batches]
        self.grid = tuple(found[0].shape[-2:])
        sets = torch.cat([by_place(f).flatten(0, 1) for f in found])
        self.std, self.mean = torch.std_mean(sets, 0)
        self.std += 1e-6
        pool = self.standardised(sets[torch.randperm(len(sets))[:POOL].to(sets.device)][None])
        del sets
        if self.position != "free":
            placed = self.standardised(by_place(torch.cat([
                F.interpolate(f, self.grid, mode="bilinear") for f in found])))
            self.evidence = gains(placed, pool, self.grid) if self.position == "auto" else {}
            best = max(self.evidence, key=self.evidence.get, default=None)
            self.radius = (int(self.position) if best is None else
                           best if self.evidence[best] > MARGIN else None)
        sets = pool if self.radius is None else placed
        if "gaussian" in self.names:
            self.centre, self.whitening = gaussians(sets)
        if "neighbours" in self.names:
            narrow = sets
            if self.radius is None and sets.shape[2] > PROJECTED:
                narrow = sets @ torch.randn(sets.shape[2], PROJECTED).to(sets.device)
            keep = farthest_points(narrow, max(1, round(self.coreset * sets.shape[1])))
            self.bank = sets.gather(1, keep[..., None].expand(-1, -1, sets.shape[2]))

    def standardised(self, features):
        return (features - self.mean) / self.std

    @torch.no_grad()
    def anomaly_maps(self, images, names=None):
        """(N, 3, H, W) -> {"neighbours" and/or "gaussian": distances (N, 1, H, W)}; names is of no
        use here, it chooses among the errors of a reconstruction."""
        features = self.features(images)
        n, _, h, w = features.shape
        with torch.autocast(images.device.type, enabled=False):  # distances need all their digits
            queries = self.standardised(by_place(features))
            if self.radius is None:
                queries = queries.flatten(0, 1)[None]
            found = {name: getattr(self, name)(queries) for name in self.names}
        return {name: F.interpolate(d.view(h, w, n).permute(2, 0, 1)[:, None], images.shape[-2:],
                                    mode="bilinear") for name, d in found.items()}

    def gaussian(self, queries):
        return ((queries - self.centre[:, None]) @ self.whitening.transpose(1, 2)).norm(dim=2)

    def neighbours(self, queries):
        if self.radius is None:
            distance, index = nearest(queries, self.bank)
        else:
            distance, index = nearest_around(queries, self.bank, self.grid, self.radius)
        distance = distance.sqrt()
        return (distance * self.rarity(queries, index) if self.reweight else distance)[..., 0]

    def rarity(self, queries, index):
        """PatchCore's weight 1 - softmax(distances to the entries around the nearest one)."""
        flat, queries, place = self.bank.flatten(0, 1), queries.flatten(0, 1), index.flatten()
        weights, size = [], self.bank.shape[1]
        for rows, near in zip(queries.split(POOL), place.split(POOL)):
            banks = self.bank[near // size] if self.radius is not None else self.bank
            stars = flat[near][:, None] if self.radius is not None else flat[near][None]
            around = nearest(stars, banks, min(AROUND, size))[1].view(len(rows), -1)
            around = flat[around + (near // size * size)[:, None]]
            distances = (rows[:, None] - around).norm(dim=2)
            first = (rows - flat[near]).norm(dim=1)
            weights.append(1 - (first - distances.logsumexp(1)).exp())
        return torch.cat(weights).view(index.shape)

    def describe(self):
        """Bank size and memory, and why neighbours are or are not looked for at one place only."""
        size = sum(b.numel() for b in self.buffers()) * 4 / 2 ** 20
        bank = f"{self.bank.shape[0] * self.bank.shape[1]} patches of " if "neighbours" in \
            self.names else ""
        where = "anywhere" if self.radius is None else f"at most {self.radius} cells away"
        return f"{bank}{len(self.mean)} values, {size:.1f} MiB; neighbours {where}" + "".join(
            f"; {r} cells {gain:+.2f}" for r, gain in self.evidence.items()) + (
            f" (nats a patch gains by place on held-out normal images; {MARGIN} are asked for)"
            if self.evidence else "")
