"""Nearest neighbours of patches, anywhere or around their place, coresets to search in, and the
Gaussians of patches."""

import itertools
import math
from collections.abc import Iterator

import torch

from ad.data import on_device

POOL = 40_000  # random patches that a bank for anywhere is made from, at most
ENTRIES = 400  # patches of every place that a memory learns from, at most
SHRINKAGE = 20.0  # images; the weight of all places' covariance in that of one place
BLOCK = 2 ** 22  # distances held at once: so many stay in a CPU's cache; a GPU gets 16 times more


def shares(groups: list) -> list[int]:
    """Sizes of groups of images -> how many of each a memory learns from: all or, of more than
    ENTRIES in total, about ENTRIES in proportion to the sizes, at least one of each not empty."""
    total = sum(groups)
    return [n if total <= ENTRIES else max(min(n, 1), ENTRIES * n // total) for n in groups]


def sample(entries: Iterator, count: int, generator: torch.Generator) -> list:
    """Of an iterator of (P, C), entries of P places, `count` of each place, all with the same
    chance, as a list of one (P, k, C); all, in order, where they are no more. Only those are
    ever in memory (algorithm R: Vitter, "Random sampling with a reservoir", ACM TOMS 1985)."""
    kept = list(itertools.islice(entries, count))
    if not kept:
        return []
    kept = torch.stack(kept, 1)
    for seen, entry in enumerate(entries, start=count + 1):
        slot = torch.randint(seen, (len(entry),), generator=generator)
        place = (slot < count).nonzero()[:, 0]
        place, slot = (on_device(index, entry.device) for index in (place, slot[place]))
        kept[place, slot] = entry[place]
    return [kept]


def farthest_points(features: torch.Tensor, count: int) -> torch.Tensor:
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


def nearest(queries: torch.Tensor, bank: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Nearest bank entry, set by set: queries (P, M, C), bank (P, K, C) -> squared distances and
    indices, each (P, M). Never more than BLOCK distances are in memory (all at once in an exported
    program, whose number of queries is not known)."""
    squares = bank.square().sum(2)[:, None]
    rows = max(1, (16 * BLOCK if bank.is_cuda else BLOCK) // bank.shape[:2].numel())
    parts = []
    for part in [queries] if torch.compiler.is_exporting() else queries.split(rows, 1):
        parts.append(torch.baddbmm(squares, part, bank.transpose(1, 2), alpha=-2).min(2))
    distance, index = (torch.cat(group, 1) for group in zip(*parts))
    return (distance + queries.square().sum(2)).clamp_min_(0), index


def nearest_around(queries: torch.Tensor, bank: torch.Tensor, grid: tuple,
                   radius: int) -> torch.Tensor:
    """Squared distances (h * w, M) of queries (h * w, M, C) to the nearest entry in the banks
    (h * w, K, C) of all places at most `radius` cells away in y and x."""
    offsets = torch.arange(-radius, radius + 1)
    rows, columns = ((torch.arange(n)[:, None] + offsets).clamp(0, n - 1) for n in grid)
    places = rows[:, None, :, None] * grid[1] + columns[None, :, None, :]
    places = on_device(places.view(len(bank), -1), bank.device)  # (h * w, (2 radius + 1) ** 2)
    block = max(1, BLOCK // (places.shape[1] * bank[0].numel()))
    return torch.cat([nearest(part, bank[near].flatten(1, 2))[0]
                      for part, near in zip(queries.split(block), places.split(block))])


def gaussians(sets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(P, N, C) -> means (P, C) and whitening matrices W (P, C, C): |W (x - mean)| is Mahalanobis'
    distance. Covariances are shrunk towards their mean with the weight of SHRINKAGE entries."""
    centre = sets.mean(1)
    spread = sets - centre[:, None]
    local = spread.transpose(1, 2) @ spread / sets.shape[1]
    weight = sets.shape[1] / (sets.shape[1] + SHRINKAGE)
    eye = torch.eye(sets.shape[2], device=sets.device)
    covariance = weight * local + (1 - weight) * local.mean(0) + 0.01 * eye
    factor = torch.linalg.cholesky(covariance)
    return centre, torch.linalg.solve_triangular(factor, eye, upper=False)
