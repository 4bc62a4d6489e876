"""Judging a model by normal images that it has not learned from, and by anomalous ones: what is
normal, how normal images score, and what is told from them."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

import torch

from ad.calibration import fit_calibration, refit
from ad.cli import progress
from ad.config import MEMORY, Scoring
from ad.gradients import ALIGNED, alignment
from ad.metrics import auroc, standard_error
from ad.scoring import final_maps, map_images, topk_mean

PIXELS = 64  # per axis, of a map's pixels that are kept for the thresholds of masks


@dataclass(frozen=True)
class Examples:
    """What a model is judged by, uint8 images (3, H, W) of any sizes.

    normals: normal images. positives: anomalous ones; sources: the index of the normal image that
    each was made from, -1 where it was made from none; kinds: what they are called in figures.
    alignment: see ad.gradients, of the normals where it is None.
    """
    normals: list
    positives: list = ()
    sources: list = ()
    kinds: list = ()
    alignment: float | None = None


def calibrate(model: torch.nn.Module, images: list, scoring: Scoring,
              device: torch.device | str, window_batch: int = 16) -> dict:
    """`judge` of a model by normal images (uint8 (3, H, W)) that it has not learned from."""
    examples = Examples(images)
    return judge(*held_out_maps([(model, range(len(images)))], examples, scoring.check(model),
                                device, window_batch), examples, scoring)


def judge_best(maps: list, damaged: list, examples: Examples, scoring: Scoring) -> dict:
    """`judge`, without the maps of a U-Net's memory where these make the AUROC lower by more than
    its standard error."""
    saved = judge(maps, damaged, examples, scoring)
    if scoring.error != "fused" or len({n.startswith(MEMORY) for n in maps[0]}) < 2:
        return saved
    maps, damaged = ([{n: m for n, m in found.items() if not n.startswith(MEMORY)}
                      for found in part] for part in (maps, damaged))
    without = judge(maps, damaged, examples, replace(scoring, error="repaired"))
    one, other = (aurocs(found)["auroc"] for found in (saved, without))
    better = None not in (one, other) and other - one > standard_error(other, len(maps))
    return without if better else saved


def judge(maps: list, damaged: list, examples: Examples, scoring: Scoring) -> dict:
    """Learn what is normal from held_out_maps: the checkpoint's `calibration`.

    Plain dict: scoring (its values); the fields of Calibration; scores, those of the normal images,
    and positives, those of the others, with their sources and kinds; pixels, sample_pixels of the
    normal images' final maps. A normal image and what was made from it get the statistics of the
    other normal images, so that they are as high as those of images not seen before.
    """
    kind = scoring.calibration
    if kind == "auto":
        aligned = alignment(examples.normals) if examples.alignment is None else examples.alignment
        kind = "auto" if aligned >= ALIGNED else "border"
    calibration, cells = fit_calibration(maps, kind, scoring.sigma / 2)
    totals = {name: c.sum(0, keepdim=True) for name, c in cells.items()}
    scores, pixels, positives = [], [], [None] * len(damaged)
    for index in range(-1, len(maps)):  # -1: positives that were made from no normal image
        mine = [j for j, source in enumerate(examples.sources) if source == index]
        own = calibration if index < 0 else refit(calibration, cells, index, totals)
        for j in mine:
            positives[j] = topk_mean(final_maps(damaged[j], own, scoring), scoring.topk).item()
        if index >= 0:
            final = final_maps(maps[index], own, scoring)
            scores.append(topk_mean(final, scoring.topk).item())
            pixels.append(sample_pixels(final))
    return {"scoring": asdict(scoring), **vars(calibration), "scores": scores,
            "positives": positives, "sources": list(examples.sources),
            "kinds": list(examples.kinds), "pixels": torch.stack(pixels).clamp(-6e4, 6e4).half()}


def aurocs(saved: dict) -> dict:
    """AUROC of the dict of `judge`: {"auroc", "auroc_<kind>", ...}; None without positives."""
    normals, result = saved["scores"], {}
    for name in (None, *dict.fromkeys(saved["kinds"])):
        part = [s for s, kind in zip(saved["positives"], saved["kinds"]) if name in (None, kind)]
        result["auroc" + (f"_{name}" if name else "")] = auroc(
            [0] * len(normals) + [1] * len(part), normals + part)
    return result


def held_out_maps(folds: Iterable, examples: Examples, scoring: Scoring,
                  device: torch.device | str, window_batch: int = 16) -> tuple[list, list]:
    """raw_maps of every normal and positive image of the Examples, by a model that has not learned
    from it: two lists of {name: (1, 1, H, W)}, all in memory at once.

    folds: (model, indices of the normal images that it does not know) one after the other, every
    index once; a positive goes with the image that it was made from, one of no normal image
    with the last model.
    """
    found = [None] * len(examples.normals), [None] * len(examples.positives)
    bar = progress(sum(map(len, found)), "judging images")
    for model, held in folds:
        known = set(held)
        last = len(known) in (0, len(examples.normals))
        parts = list(held), [j for j, source in enumerate(examples.sources)
                             if source in known or (source < 0 and last)]
        for maps, images, chosen in zip(found, (examples.normals, examples.positives), parts):
            batches = map_images(model, [images[i] for i in chosen], scoring, device, window_batch)
            singles = (dict(zip(batch, one)) for batch in batches
                       for one in zip(*(m.split(1) for m in batch.values())))
            for index, single in zip(chosen, singles):
                maps[index] = single
                bar.update()
    bar.close()
    return found


def sample_pixels(map_: torch.Tensor) -> torch.Tensor:
    """(1, 1, H, W) -> float32 (PIXELS ** 2,), at places evenly spaced, whatever the size."""
    rows, columns = (((torch.arange(PIXELS) + 0.5) / PIXELS * side).long().to(map_.device)
                     for side in map_.shape[-2:])
    return map_[0, 0, rows[:, None], columns].flatten().float().cpu()
