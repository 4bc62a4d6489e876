"""Classification: the stratified split, weights of classes, accuracy and the confusion."""

import json
from collections import namedtuple

import numpy as np
import torch
from sklearn.metrics import (balanced_accuracy_score, confusion_matrix,
                             precision_recall_fscore_support)

from ad import InputError, checkpoint, data
from ad.config import Scoring
from ad.judging import calibrate
from ad.machine import Machine
from ad.metrics import auroc
from ad.runs import Run

BATCH = 32  # images that are classified at once
SHARES = (0.6, 0.2, 0.2)  # of each class: training, validation, test
Part = namedtuple("Part", "samples images labels")  # labels: class numbers (N,)


def divide(samples: list, images: list, seed: int) -> tuple[list[str], list[Part]]:
    """Samples and their images -> the names of their classes, and a Part for each part of
    `stratified_split`."""
    classes, images = sorted({s.defect for s in samples}), dict(zip(samples, images))
    return classes, [Part(part, [images[s] for s in part],
                          torch.tensor([classes.index(s.defect) for s in part]))
                     for part in stratified_split(samples, seed)]


def stratified_split(samples: list, seed: int) -> tuple[list, list, list]:
    """Samples -> (training, validation, test), SHARES of each class, at least one each. InputError
    for a class of fewer than 3 images."""
    parts = [], [], []
    if not samples:
        raise InputError("there is no image that can be read")
    for number, name in enumerate(sorted({s.defect for s in samples})):
        own = [s for s in samples if s.defect == name]
        if len(own) < 3:
            raise InputError(f"the class {name} has only {len(own)} images; at least 3 are needed, "
                             "one each for training, validation and test")
        order = np.random.default_rng([seed, number]).permutation(len(own))
        held = [max(1, round(share * len(own))) for share in SHARES[1:]]
        stops = np.cumsum([len(own) - sum(held), *held])
        for part, chosen in zip(parts, np.split(order, stops[:-1])):
            part += [own[i] for i in sorted(chosen)]
    return parts


def finish(run: Run, val: Part, test: Part, scoring: Scoring,
           machine: Machine) -> tuple[int, dict]:
    """Calibrate a run's best.pt on its normal validation images, so that it is a detector, too;
    write `check` on the test images as test.json. Returns its epoch, and that."""
    path = run.folder / "best.pt"
    saved = checkpoint.load(path)
    model = checkpoint.restore_model(saved, path, machine.device)
    normal = [image for image, label in zip(val.images, val.labels) if label == model.normal]
    saved["calibration"] = calibrate(model, normal, scoring, machine.device, machine.window_batch)
    checkpoint.save(path, saved)
    found = check(model, test)
    checkpoint.write_atomic(run.folder / "test.json", json.dumps(found, indent=1) + "\n")
    return saved["epoch"], found


def check(model: torch.nn.Module, part: Part) -> dict:
    """classification_metrics of a Classifier."""
    return classification_metrics(predict(model, part.images), part.labels, model.classes,
                                  model.normal)


def balanced_weights(labels: torch.Tensor, count: int) -> list[float]:
    """Class weights in inverse proportion to the classes' images, 1 on average over the images."""
    sizes = np.bincount(labels, minlength=count)
    return (len(labels) / (count * np.maximum(sizes, 1))).tolist()


@torch.no_grad()
def predict(model: torch.nn.Module, images: list) -> np.ndarray:
    """Probabilities (N, K) of uint8 images of any sizes."""
    device = next(model.eval().parameters()).device
    logits = [model(torch.cat([data.resize_to(data.to_float(i, device)[None], model.size)
                               for i in images[start:start + BATCH]]))
              for start in range(0, len(images), BATCH)]
    return torch.cat(logits).softmax(1).cpu().double().numpy()


def classification_metrics(probabilities: np.ndarray, labels: torch.Tensor | list, classes: list,
                           normal: int) -> dict:
    """(N, K), (N,) class numbers -> accuracy, balanced accuracy, cross-entropy (val_loss), AUROC
    of 1 - P(normal), precision, recall and F1 of every class, and the confusion matrix (rows true).
    """
    labels, found = np.asarray(labels), probabilities.argmax(1)
    numbers = list(range(len(classes)))
    parts = precision_recall_fscore_support(labels, found, labels=numbers, zero_division=0)
    own = probabilities[np.arange(len(labels)), labels]
    return {"accuracy": float((labels == found).mean()),
            "balanced_accuracy": float(balanced_accuracy_score(labels, found)),
            "val_loss": float(-np.log(np.maximum(own, 1e-12)).mean()),
            "auroc": auroc((labels != normal).astype(int), 1 - probabilities[:, normal]),
            "classes": {name: dict(zip(("precision", "recall", "f1", "images"), map(float, row)))
                        for name, row in zip(classes, zip(*parts))},
            "confusion": confusion_matrix(labels, found, labels=numbers).tolist()}


def describe(metrics: dict) -> str:
    """classification_metrics as a table of the classes."""
    lines = [f"{'class':<24}{'precision':>10}{'recall':>10}{'F1':>10}{'images':>10}"]
    lines += [f"{name:<24}{row['precision']:>10.3f}{row['recall']:>10.3f}{row['f1']:>10.3f}"
              f"{row['images']:>10.0f}" for name, row in metrics["classes"].items()]
    return "\n".join([*lines, "accuracy {accuracy:.3f}, balanced {balanced_accuracy:.3f}, "
                      "normal against the rest AUROC {auroc:.3f}".format(**metrics)])
