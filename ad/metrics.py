"""Image and pixel metrics: AUROC, AP, F1, rates at a threshold, pixel AUROC, PRO."""

from types import ModuleType

import numpy as np


def auroc(labels: np.ndarray | list, scores: np.ndarray | list) -> float | None:
    """Area under the ROC curve, or None when only one class is present."""
    labels = np.asarray(labels)
    return float(ranking().roc_auc_score(labels, scores)) if len(np.unique(labels)) == 2 else None


def image_metrics(labels: np.ndarray | list, scores: np.ndarray | list) -> dict:
    """labels (N,) in {0, 1}, scores (N,), higher = stranger -> {"auroc", "ap", "f1"}.

    f1 is the best over all thresholds. Every value is None when only one class is present.
    Raises ValueError for non-finite scores or other labels.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if labels.shape != scores.shape or labels.ndim != 1 or not np.isin(labels, (0, 1)).all():
        raise ValueError("image_metrics needs labels in {0, 1} and as many scores")
    if not np.isfinite(scores).all():
        raise ValueError("image_metrics needs finite scores")
    if len(np.unique(labels)) < 2:
        return {"auroc": None, "ap": None, "f1": None}
    precision, recall, _ = ranking().precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return {"auroc": auroc(labels, scores), "f1": float(f1.max()),
            "ap": float(ranking().average_precision_score(labels, scores))}


def rates(labels: np.ndarray | list, predictions: np.ndarray | list) -> dict:
    """labels, predictions (N,) in {0, 1} -> {"tpr", "tnr", "accuracy"}; None without the class."""
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    positive, negative = labels == 1, labels == 0
    return {"tpr": float(predictions[positive].mean()) if positive.any() else None,
            "tnr": float(1 - predictions[negative].mean()) if negative.any() else None,
            "accuracy": float((labels == predictions).mean()) if len(labels) else None}


def pixel_auroc(masks: list | tuple, maps: list | tuple) -> float | None:
    """AUROC over all pixels of all images. masks, maps: sequences of equal-shaped (H, W) arrays,
    masks True = defect. None when there is no defect pixel (or nothing else)."""
    masks = [np.asarray(mask, dtype=bool) for mask in masks]
    above, from_on = _false_positives(masks, maps)
    return float(1 - (above + from_on).mean() / 2) if len(above) else None


def pro(masks: list | tuple, maps: list | tuple, max_fpr: float = 0.3) -> float | None:
    """Normalised area under the per-region overlap curve up to a false-positive rate, in [0, 1].

    Bergmann et al., "Uninformed Students", CVPR 2020: the mean over 8-connected ground-truth
    regions of the share of the region above the threshold, against the share of defect-free
    pixels above it, integrated exactly (every distinct score a threshold) from 0 to max_fpr.
    masks, maps as in pixel_auroc. None when there is no region or no defect-free pixel.
    """
    if not 0 < max_fpr <= 1:
        raise ValueError(f"max_fpr must be in (0, 1], got {max_fpr}")
    labels = [connected_components(mask) for mask in masks]
    above, from_on = _false_positives([label > 0 for label in labels], maps)
    if not len(above):
        return None
    # A pixel adds what of the axis up to max_fpr is right of where it is found: half of the stretch
    # on which defect-free pixels share its score or, where max_fpr is on it, the triangle up to it.
    stretch = np.maximum(from_on - above, np.finfo(float).tiny)
    area = np.where(from_on <= max_fpr, max_fpr - (above + from_on) / 2,
                    np.maximum(max_fpr - above, 0) ** 2 / (2 * stretch))
    weights = np.concatenate([(1 / np.bincount(found))[found] for found in (
        label[label > 0] - 1 for label in labels) if len(found)])  # a region's add up to 1
    return float((area * weights).sum() / (weights.sum() * max_fpr))


def connected_components(mask: np.ndarray) -> np.ndarray:
    """8-connected components of a bool (H, W): int32 (H, W), 0 background, 1..n components.

    Row runs are joined to the touching runs of the row above in a union-find.
    """
    mask = np.asarray(mask, dtype=bool)
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    parent = list(range(len(rows)))

    def root(i):
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first = np.searchsorted(rows, np.arange(mask.shape[0] + 1))
    for i, row in enumerate(rows):
        for j in range(first[row - 1], first[row]) if row else ():
            if starts[j] <= ends[i] and starts[i] <= ends[j]:  # ends are exclusive: diagonals touch
                parent[root(i)] = root(j)
    roots = [root(i) for i in range(len(rows))]
    number = {r: k + 1 for k, r in enumerate(dict.fromkeys(roots))}
    labels = np.zeros(mask.shape, dtype=np.int32)
    for i, row in enumerate(rows):
        labels[row, starts[i]:ends[i]] = number[roots[i]]
    return labels


def _false_positives(masks: list, maps: list) -> tuple[np.ndarray, np.ndarray]:
    """Of every defect pixel, image by image and row by row: the share of defect-free pixels that
    score higher, and at least as high; both empty where there are none of one kind.

    Only the defect-free scores are sorted, in a copy: 1 MB for each 512 x 512 image.
    """
    _check_maps(masks, maps)
    free, defect = ([np.asarray(map_)[mask == wanted] for mask, map_ in zip(masks, maps)]
                    for wanted in (False, True))
    free, defect = (np.concatenate(part) if part else np.zeros(0) for part in (free, defect))
    if not len(free) or not len(defect):
        return np.zeros(0), np.zeros(0)
    free.sort()
    return tuple(1 - np.searchsorted(free, defect, side) / len(free) for side in ("right", "left"))


def _check_maps(masks, maps):
    if len(masks) != len(maps) or any(np.shape(a) != np.shape(b) for a, b in zip(masks, maps)):
        raise ValueError("every mask needs a map of its own shape")
    if not all(np.isfinite(m).all() for m in maps):
        raise ValueError("anomaly maps must be finite")


def standard_error(area: float, count: int) -> float:
    """Of an AUROC A of `count` normal images, at most: the variance is at most A (1 - A) / n
    (Birnbaum and Klose, Ann. Math. Stat. 1957). A is moved half an image away from 0 and 1."""
    area = (area * count + 0.5) / (count + 1)
    return (area * (1 - area) / count) ** 0.5


def ranking() -> ModuleType:
    """sklearn.metrics, whose import takes as long as torch's: only where it is used."""
    import sklearn.metrics
    return sklearn.metrics
