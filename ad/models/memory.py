"""A memory of normal features: nearest neighbours (PatchCore), or a Gaussian per place (PaDiM)."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn as nn
import torch.nn.functional as F

import ad
from ad.config import DISTANCES, MEMORY
from ad.data import on_device
from ad.gradients import ALIGNED, CONTEXTS, alignment, equalise, light, surroundings
from ad.neighbours import (ENTRIES, POOL, farthest_points, gaussians, nearest, nearest_around,
                           sample, shares)

PROJECTED = 32  # random directions along which the coreset of patches from anywhere is chosen
GAUSSIAN = 160  # values of a patch at most that Gaussians describe; more are projected to as many
ANGLES = 8  # at which normal images are remembered of what lies at any angle
LIT = 64  # batches whose light is averaged, and that are looked at for alignment


def by_position(features: torch.Tensor) -> torch.Tensor:
    """(N, C, h, w) -> (h * w, N, C)."""
    return features.flatten(2).permute(2, 0, 1).contiguous()


class PatchMemory(nn.Module):
    """Remembers features of normal patches; strange is what is far from all of them.

    Roth et al., "Towards total recall in industrial anomaly detection" (PatchCore), CVPR 2022, with
    neighbours only at about the same place where images are aligned; with distance "gaussian"
    Mahalanobis distances (Defard et al., "PaDiM", ICPR 2021); "both" gives both maps. backbone: a
    name, with layers and weights see load_backbone, or a function; fingerprint: of the weights at
    fit(). position: "auto" (by alignment), "free" (anywhere) or a radius in cells. coreset: share
    of each place's patches, or of POOL from anywhere, to keep, in (0, 1]. equalise: bring images to
    the same light, remember what lies at any angle at ANGLES of them. Raises ValueError for others.
    """
    BUFFERS = ("light", "mean", "std", "bank", "centre", "whitening", "projection")

    def __init__(self, backbone: str | Callable = "gradients", layers: list | tuple | None = None,
                 weights: str | None = None, position: str | int = "auto", coreset: float = 0.1,
                 distance: str = "both", equalise: bool = True, fingerprint: str | None = None):
        super().__init__()
        if not 0 < coreset <= 1:
            raise ValueError(f"--coreset must be in (0, 1], got {coreset}")
        if position not in ("auto", "free") and not str(position).isdecimal():
            raise ValueError(f"--position must be auto, free or a radius in cells, got {position}")
        self.names = {"both": MEMORY}.get(distance, (distance,))
        if not set(self.names) <= set(MEMORY):
            raise ValueError(f"--distance must be one of {', '.join(DISTANCES)}, got {distance}")
        layers = layers or ((8,) if backbone == "gradients" else (8, 16))
        trunk, self.fingerprint = (backbone, "") if callable(backbone) else \
            ad.models.backbones.load_backbone(backbone, tuple(layers), weights)
        if fingerprint not in (None, self.fingerprint):
            raise ValueError(f"the memory was made with other weights of {backbone} "
                             f"({fingerprint}) than are here ({self.fingerprint})")
        self.trunk = [trunk]  # in a list: no part of the checkpoint, which names its weights
        self.contexts = CONTEXTS if backbone == "gradients" else (3,)
        self.position, self.coreset = str(position), coreset
        self.distance, self.equalise = distance, equalise
        self.grid, self.evidence, self.angles = None, None, 1
        self.radius = int(position) if str(position).isdecimal() else None
        for name in self.BUFFERS:
            self.register_buffer(name, None)

    def get_extra_state(self) -> dict:
        return {"grid": self.grid, "radius": self.radius, "evidence": self.evidence}

    def set_extra_state(self, state: dict) -> None:
        self.grid, self.radius, self.evidence = (state[k] for k in ("grid", "radius", "evidence"))

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        for name in self.BUFFERS:
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @torch.no_grad()
    def features(self, images: torch.Tensor, grid: tuple | None = None) -> torch.Tensor:
        """(N, 3, H, W) in [0, 1] -> features (N, C, h, w), float32, each averaged over its
        neighbourhood; (h, w) is `grid` or, where that is None, that of the first layer."""
        trunk = self.trunk[0]
        if self.light is not None:
            images = equalise(images, self.light)
        maps = (trunk.to(images.device) if isinstance(trunk, nn.Module) else trunk)(images)
        return torch.cat([F.interpolate(surroundings(m, self.contexts), grid or maps[0].shape[-2:],
                                        mode="bilinear") for m in maps], dim=1)

    def fit(self, batches: Iterable) -> None:
        """Remember normal images: `extract`, then `learn`."""
        self.learn(self.extract(batches))

    @torch.no_grad()
    def extract(self, batches: Iterable, groups: list | tuple = ()) -> torch.Tensor:
        """Normal images, batches (N, 3, H, W) in [0, 1] of one or several sizes -> patches
        (angles * h * w, N, C) at the grid of the first: what `learn` wants. Of more than ENTRIES
        images a random sample of patches, at every place another one; groups: sizes of successive
        groups of images, each of which then has its `shares`. The light of the first LIT batches is
        what later images are brought to. Several processes share the batches."""
        batches = iter(batches)
        first = list(itertools.islice(batches, LIT))
        if self.equalise:
            self.light = torch.cat([light(batch) for batch in first]).mean(0)
        if self.position == "auto":
            images = [image for batch in first for image in batch]
            self.evidence = alignment(images)
            if self.equalise and self.evidence < ALIGNED:
                self.angles = ANGLES if ad.models.angles.lies_at_any_angle(images) else 1
        stream = self.entries(itertools.chain(first, batches))
        generator = torch.Generator().manual_seed(0)
        kept = []
        for size, count in zip(groups, shares(groups)) if groups else [(None, ENTRIES)]:
            kept += sample(itertools.islice(stream, size), count, generator)
        return torch.cat([ad.ranks.total(patches) for patches in kept], 1)

    def entries(self, batches: Iterable) -> Iterator[torch.Tensor]:
        """Yield patches (P, C) of each image at all angles, zeros for another process's image."""
        for number, batch in enumerate(batches):
            mine = number % ad.ranks.size() == ad.ranks.rank()
            if mine or not number:  # all need the grid
                ways = [batch, *(ad.models.angles.rotated(batch, k * math.tau / self.angles)
                                 for k in range(1, self.angles))]
                maps = [self.features(way, self.grid) for way in ways]
                self.grid = tuple(maps[0].shape[-2:])
                patches = torch.cat([by_position(m) for m in maps])
            else:
                patches = patches[:, :1].expand(-1, len(batch), -1)
            yield from (patches if mine else torch.zeros_like(patches)).unbind(1)

    def empty(self) -> "PatchMemory":
        """A memory that finds and looks for patches as this one does, and has learned none."""
        twin = PatchMemory(self.trunk[0], position="free" if self.radius is None else self.radius,
                           coreset=self.coreset, distance=self.distance)
        twin.contexts, twin.grid, twin.light = self.contexts, self.grid, self.light
        return twin

    # Distances, and what is learned for them, need all their digits.
    @torch.autocast("cuda", enabled=False)
    @torch.autocast("cpu", enabled=False)
    @torch.no_grad()
    def learn(self, patches: torch.Tensor) -> None:
        """Learn from the patches of `extract`. Draws from torch's global generator."""
        std, self.mean = torch.std_mean(patches, (0, 1))
        self.std = std + 1e-6
        if self.position == "auto":
            self.radius = 1 if self.evidence >= ALIGNED else None
        sets = patches if self.radius is not None else patches.flatten(0, 1)[None, on_device(
            torch.randperm(patches.shape[:2].numel())[:POOL], patches.device)]
        sets = (sets - self.mean) / self.std  # of a large memory only what was drawn is copied
        if "gaussian" in self.names:
            if len(self.mean) > GAUSSIAN:
                random = torch.randn(len(self.mean), GAUSSIAN)
                self.projection = on_device(torch.linalg.qr(random)[0], sets.device)
            self.centre, self.whitening = gaussians(self.projected(sets))
        if "neighbours" not in self.names:
            return
        size = max(1, round(self.coreset * sets.shape[1]))
        narrow = sets
        if self.radius is None and sets.shape[2] > PROJECTED:
            narrow = sets @ on_device(torch.randn(sets.shape[2], PROJECTED), sets.device)
        keep = farthest_points(narrow, size) if size < sets.shape[1] else \
            torch.arange(size, device=sets.device).expand(len(sets), -1)
        self.bank = sets.gather(1, keep[..., None].expand(-1, -1, sets.shape[2]))

    @torch.no_grad()
    def anomaly_maps(self, images: torch.Tensor, names: tuple | None = None) -> dict:
        """(N, 3, H, W) -> {"neighbours", "gaussian" or both: (N, 1, H, W)}, whatever `names` is."""
        features = self.features(images, None if self.radius is None else self.grid)
        n, _, h, w = features.shape
        with torch.autocast(images.device.type, enabled=False):
            queries = (by_position(features) - self.mean) / self.std
            if self.radius is None:
                queries = queries.flatten(0, 1)[None]
            found = {name: getattr(self, name)(queries) for name in self.names}
        return {name: F.interpolate(d.view(h, w, n).permute(2, 0, 1)[:, None], images.shape[-2:],
                                    mode="bilinear") for name, d in found.items()}

    def projected(self, patches: torch.Tensor) -> torch.Tensor:
        return patches if self.projection is None else patches @ self.projection

    def gaussian(self, queries: torch.Tensor) -> torch.Tensor:
        off = self.projected(queries) - self.centre[:, None]
        return (off @ self.whitening.transpose(1, 2)).norm(dim=2)

    def neighbours(self, queries: torch.Tensor) -> torch.Tensor:
        if self.radius is None:
            return nearest(queries, self.bank)[0].sqrt()
        return nearest_around(queries, self.bank, self.grid, self.radius).sqrt()

    def describe(self) -> str:
        """Bank size and memory, and whether neighbours are looked for near the place, and why."""
        size = sum(b.numel() * b.element_size() for b in self.buffers()) / 2 ** 20
        bank = "" if self.bank is None else f"{self.bank.shape[:2].numel()} patches of "
        where = ("anywhere" if self.radius is None else f"at most {self.radius} cells away") + (
            f", {self.angles} angles" if self.angles > 1 else "")
        return f"{bank}{len(self.mean)} values, {size:.1f} MiB; neighbours {where}" + (
            "" if self.evidence is None else f" (alignment of normal images "
            f"{self.evidence:.2f}; near the same place from {ALIGNED} on)")
