"""What is learned in one pass, without training: a memory, also that of a trained U-Net, and what
is normal for it, by memories that do not hold what they judge."""

import copy
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
import torch.nn as nn

from ad import checkpoint, data, ranks
from ad.cli import progress
from ad.config import ERRORS, Scoring, Training
from ad.judging import Examples, aurocs, held_out_maps, judge_best
from ad.machine import Machine
from ad.model import new_memory
from ad.neighbours import ENTRIES, shares
from ad.runs import Run
from ad.scoring import exposed, score_images, side_for_model
from ad.seed import seed_everything
from ad.validation import validate

FOLDS = 5  # memories by which normal images are judged, none by one that holds it
JUDGED = 400  # normal images, at most, that are judged
TAUGHT = 100  # images that a trained network learned from, at most, whose scores are kept


def finish(run: Run, fitted: nn.Module | None, images: list, examples: Examples,
           scoring: Scoring, machine: Machine) -> tuple[dict, float | None]:
    """Calibrate a run and save its best.pt: returns the checkpoint (without the memory, which is
    learned here), and the AUROC that its epoch had, None for `fitted`.

    fitted: a model that learns in one pass, here; None: a trained network, that of best.pt. images:
    normal images that only taught; those of the Examples judge; see folds. Of several processes,
    all of which return the same, the first judges and saves.
    """
    start, path = time.perf_counter(), run.folder / "best.pt"
    if fitted:
        model, saved = fitted, {"model_args": run.state["model_args"], "config": run.config,
                                "epoch": 1, "val_auroc": None}
    else:
        saved = ranks.from_rank_0(lambda: checkpoint.load(path))
        model = checkpoint.restore_model(saved, path, machine.device)
    before = saved["val_auroc"]
    parts = folds(model, images, examples.normals, scoring, machine.device,
                  run.config["args"]["seed"])

    def judge_and_save():
        maps = held_out_maps(parts, examples, scoring, machine.device, machine.window_batch)
        saved["calibration"] = judge_best(*maps, examples, scoring)
        saved["calibration"]["taught"] = taught_scores(model, images, saved["calibration"], machine)
        found = aurocs(saved["calibration"])
        if fitted:
            if hasattr(model, "fingerprint"):  # of the weights of a memory's backbone
                saved["model_args"]["fingerprint"] = model.fingerprint
            checkpoint.write_atomic(run.folder / "log.jsonl", json.dumps(
                {"epoch": 1, "seconds": time.perf_counter() - start} | found) + "\n")
        elif "memory" not in ERRORS[saved["calibration"]["scoring"]["error"]]:
            model.memory = None
        checkpoint.save(path, saved | {"val_auroc": found["auroc"], "model": {
            k: v.cpu() if torch.is_tensor(v) else v for k, v in model.state_dict().items()}})
        return saved, before
    return ranks.from_rank_0(judge_and_save)


def taught_scores(model: nn.Module, images: list, saved: dict, machine: Machine) -> list:
    """Raw scores of some of the uint8 images that taught a trained network; see own_threshold. A
    memory has none: all that it holds judge it, out of fold. saved: of judging.judge."""
    if hasattr(model, "fit") or not images:
        return []
    return torch.cat([scores for scores, _ in score_images(
        model, evenly(images), saved, machine.device, machine.window_batch)]).tolist()


def evenly(items: list, most: int = TAUGHT) -> list:
    """`most` of the items at most, evenly spaced."""
    return items[::max(1, math.ceil(len(items) / most))]


def validation(model: nn.Module, images: list, examples: Examples, scoring: Scoring,
               plan: Training, machine: Machine) -> Callable:
    """The function that validates a network as it stands, after a pass of the plan (Training):
    figures of validation.validate. images: uint8, that it learns from."""
    images = evenly(images, ENTRIES)  # no memory holds more of a place

    def check():
        if uses_memory(model, scoring):  # as for the final score
            model.memory = remember(model, images, plan.validation_side, machine.device,
                                      plan.seed)
        try:
            return validate(model, examples, scoring, machine.device, machine.window_batch)
        finally:
            model.memory = None
    return check


def folds(model: nn.Module, images: list, judged: list, scoring: Scoring,
          device: torch.device | str, seed: int) -> Iterable:
    """(model, indices of `judged` that it has not learned from), one after the other, and the
    memory, if it has one, at last of all images: what held_out_maps wants.

    images: normal images that a memory learns from beside `judged`, both uint8 (3, H, W). A memory
    is fitted without every one of FOLDS parts of `judged`, then to everything. Several processes
    all call this, which extracts the features; any of them may go through the folds.
    """
    if not learns_in_one_pass(model, scoring):
        return [(model, range(len(judged)))]
    memory = model if hasattr(model, "fit") else new_memory(model)
    parts = np.array_split(np.arange(len(judged)), min(FOLDS, len(judged)))
    if not hasattr(memory, "extract"):
        return refitted(memory, images, judged, parts, scoring.window_input, device)
    groups = [len(images), *map(len, parts)]
    patches = memory.extract(resized_batches(model, [*images, *judged], scoring.window_input,
                                             device), groups)
    return learned_folds(model, memory, patches, parts, shares(groups), seed)


def learned_folds(model: nn.Module, memory: nn.Module, patches: torch.Tensor, parts: list,
                  counts: list, seed: int) -> Iterator:
    """Yield `folds`. patches: (h * w, N, C), counts[0] of images that judge nothing, followed by
    counts[i + 1] of the images of parts[i], whose numbers are yielded."""
    seed_everything(seed)
    memory.learn(patches)  # first: a fold finds and looks for patches as it does
    stops = np.cumsum(counts)
    for part, start, stop in zip(parts, stops, stops[1:]):
        seed_everything(seed)
        fold = memory.empty()
        fold.learn(torch.cat([patches[:, :start], patches[:, stop:]], 1))
        yield with_memory(model, fold), part.tolist()
    yield with_memory(model, memory), []


def refitted(model: nn.Module, images: list, judged: list, parts: list, window_input: int,
             device: torch.device | str) -> Iterator:
    """Yield `folds` of a model that only has fit(batches): one's own."""
    def batches(without):
        others = [image for i, image in enumerate(judged) if i not in without]
        return resized_batches(model, [*images, *others], window_input, device)
    for part in parts:
        fold = copy.deepcopy(model)
        fold.fit(batches(set(part)))
        yield fold, part.tolist()
    model.fit(batches(()))
    yield model, []


def with_memory(model: nn.Module, memory: nn.Module) -> nn.Module:
    """What scores by a memory: that itself, or the U-Net whose features it holds."""
    if hasattr(model, "fit"):
        return memory
    model.memory = memory
    return model


def learns_in_one_pass(model: nn.Module, scoring: Scoring) -> bool:
    """Does it remember normal images, apart from being trained?"""
    return hasattr(model, "fit") or uses_memory(model, scoring)


def uses_memory(model: nn.Module, scoring: Scoring) -> bool:
    """Is the memory of a U-Net part of what is scored? (A model that is all memory has its own.)"""
    return hasattr(model, "memory") and "memory" in ERRORS[scoring.error]


def judges(samples: list, seed: int) -> list:
    """Of the normal samples that a memory is fitted to those that judge it: JUDGED at most, in an
    order drawn with the seed, so that neighbours in time do not share a fold."""
    order = np.random.default_rng(seed).permutation(len(samples))
    return [samples[index] for index in order[:JUDGED]]


def remember(model: nn.Module, images: list, window_input: int, device: torch.device | str,
               seed: int) -> nn.Module:
    """A memory of the features that a trained U-Net has at normal images (uint8)."""
    seed_everything(seed)
    memory = new_memory(model)
    memory.fit(resized_batches(model, images, window_input, device))
    return memory


def resized_batches(model: nn.Module, images: list, window_input: int,
                    device: torch.device | str) -> Iterator[torch.Tensor]:
    """Yield uint8 images as batches of one, as large and as bright as this model gets whole images
    to score."""
    with progress(len(images), "remembering images", ranks.rank() == 0) as bar:
        for image in images:
            side = side_for_model(max(image.shape), window_input)
            yield exposed(model, data.resize_long_side(image, side).to(device))[0]
            bar.update()
