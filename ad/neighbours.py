"""Nearest neighbours of patches, anywhere or around their place, and coresets to search in."""

import math

import torch

POOL = 40_000  # random patches that a bank for anywhere is made from, at most
BLOCK = 2 ** 24  # distances held in memory at once


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


def nearest(queries, bank):
    """Nearest bank entry, set by set: queries (P, M, C), bank (P, K, C) -> squared distances and
    indices, each (P, M). Never more than BLOCK distances are in memory (all at once in an exported
    program, whose number of queries is not known)."""
    squares = bank.square().sum(2)[:, None]
    rows = max(1, BLOCK // (bank.shape[0] * bank.shape[1]))
    parts = []
    for part in [queries] if torch.compiler.is_exporting() else queries.split(rows, 1):
        parts.append(torch.baddbmm(squares, part, bank.transpose(1, 2), alpha=-2).min(2))
    distance, index = (torch.cat(group, 1) for group in zip(*parts))
    return (distance + queries.square().sum(2)).clamp_min_(0), index


def nearest_around(queries, bank, grid, radius):
    """Squared distances (h * w, M) of queries (h * w, M, C) to the nearest entry in the banks
    (h * w, K, C) of all places at most `radius` cells away in y and x."""
    offsets = torch.arange(-radius, radius + 1)
    rows, columns = ((torch.arange(n)[:, None] + offsets).clamp(0, n - 1) for n in grid)
    places = rows[:, None, :, None] * grid[1] + columns[None, :, None, :]
    places = places.view(len(bank), -1).to(bank.device)  # (h * w, (2 radius + 1) ** 2)
    block = max(1, BLOCK // (places.shape[1] * bank[0].numel()))
    return torch.cat([nearest(part, bank[near].flatten(1, 2))[0]
                      for part, near in zip(queries.split(block), places.split(block))])


def random_rows(sets, count):
    """(1, M, C) -> at most `count` of the M rows, drawn by torch's global generator."""
    return sets[:, torch.randperm(sets.shape[1])[:count].to(sets.device)]
