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
    _check_maps(masks, maps)
    return auroc(np.concatenate([np.ravel(m) for m in masks]).astype(np.uint8),
                 np.concatenate([np.ravel(m) for m in maps]))


def pro(masks: list | tuple, maps: list | tuple, max_fpr: float = 0.3) -> float | None:
    """Normalised area under the per-region overlap curve up to a false-positive rate, in [0, 1].

    Bergmann et al., "Uninformed Students", CVPR 2020: the mean over 8-connected ground-truth
    regions of the share of the region above the threshold, against the share of defect-free
    pixels above it, integrated exactly (every distinct score a threshold) from 0 to max_fpr.
    masks, maps as in pixel_auroc. None when there is no region or no defect-free pixel.
    """
    if not 0 < max_fpr <= 1:
        raise ValueError(f"max_fpr must be in (0, 1], got {max_fpr}")
    _check_maps(masks, maps)
    labels = [connected_components(m).ravel() for m in masks]
    defect = np.concatenate(labels) > 0
    if defect.all() or not defect.any():
        return None
    # A ROC curve to which each region's pixels add up to 1.
    weights = np.concatenate([np.append(1, 1 / np.bincount(label)[1:])[label] for label in labels])
    fpr, curve, _ = ranking().roc_curve(defect, np.concatenate([np.ravel(m) for m in maps]),
                                        sample_weight=weights)
    inside = fpr <= max_fpr
    x = np.append(fpr[inside], max_fpr)
    y = np.append(curve[inside], np.interp(max_fpr, fpr, curve))
    return float(ranking().auc(x, y) / max_fpr)


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
