"""Thresholds that need scores of anomalous validation images, too: --threshold midpoint, ..."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

import ad
from ad.threshold import standardise


def best_threshold(normal: ArrayLike, anomalous: ArrayLike, measure: Callable) -> float:
    """The threshold with the highest measure(TP, FP, FN, TN) of "score > threshold is anomalous".

    Exact: every threshold between two neighbouring observed scores, and below and above all, is
    tried; of equally good ones the one in the widest gap is taken.
    """
    scores = np.concatenate([normal, anomalous])
    values = np.unique(scores)
    cuts = np.concatenate([[values[0] - 1], (values[:-1] + values[1:]) / 2, [values[-1] + 1]])
    gaps = np.concatenate([[0], np.diff(values), [0]])
    tp, fp = ((np.asarray(part)[None] > cuts[:, None]).sum(1) for part in (anomalous, normal))
    found = measure(tp, fp, len(anomalous) - tp, len(normal) - fp)
    return float(cuts[max(range(len(cuts)), key=lambda i: (found[i], gaps[i]))])


RULES = {  # the keys are threshold.LABELLED
    "midpoint": lambda normal, anomalous: float((np.mean(normal) + np.mean(anomalous)) / 2),
    "best-accuracy": lambda normal, anomalous: best_threshold(
        normal, anomalous, lambda tp, fp, fn, tn: (tp + tn) / (tp + fp + fn + tn)),
    "best-f1": lambda normal, anomalous: best_threshold(
        normal, anomalous, lambda tp, fp, fn, tn: 2 * tp / (2 * tp + fp + fn))}


def known_scores(member: "ad.detector.Member") -> tuple[np.ndarray, np.ndarray]:
    """Standardised scores of the member's normal images and of its positives. There may be more
    pseudo-anomalies than normal images, which then count as often: otherwise calling everything
    anomalous would be right nine times in ten."""
    saved = member.calibration
    normal, positives = (standardise(saved[part], saved["scores"])
                         for part in ("scores", "positives"))
    pseudo = max(saved["sources"], default=-1) >= 0
    times = max(1, round(len(positives) / len(normal))) if pseudo else 1
    return np.repeat(normal, times), positives
