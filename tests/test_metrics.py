"""Metrics by hand and against scikit-learn, scikit-image and a threshold loop."""

import numpy as np
import pytest
from skimage.measure import label as skimage_label

from ad.metrics import auroc, connected_components, image_metrics, pixel_auroc, pro, rates


def test_image_metrics_by_hand():
    """Ranking 1 0 1 0: 3 of 4 pairs right; AP = (1 + 2/3) / 2; F1 peaks at the third score."""
    result = image_metrics([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1])
    assert result == pytest.approx({"auroc": 0.75, "ap": (1 + 2 / 3) / 2, "f1": 0.8})


def test_f1_is_the_best_over_all_thresholds():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 80), rng.random(80).round(1)  # with ties
    best = max(2 * (labels[scores >= t]).sum() / ((scores >= t).sum() + labels.sum())
               for t in scores)
    assert image_metrics(labels, scores)["f1"] == pytest.approx(best)


def test_one_class_gives_none():
    assert image_metrics([0, 0], [1, 2]) == {"auroc": None, "ap": None, "f1": None}
    assert auroc([1, 1], [0, 1]) is None
    assert pixel_auroc([np.zeros((2, 3), bool)], [np.ones((2, 3))]) is None
    assert pro([np.zeros((2, 3), bool)], [np.ones((2, 3))]) is None


def test_rates_by_hand():
    assert rates([1, 1, 0, 0, 0], [1, 0, 0, 0, 1]) == pytest.approx(
        {"tpr": 0.5, "tnr": 2 / 3, "accuracy": 0.6})
    assert rates([1], [1])["tnr"] is None


@pytest.mark.parametrize("density", [0.05, 0.3, 0.5, 0.7])
def test_components_equal_scikit_image(density):
    rng = np.random.default_rng(1)
    for shape in ((1, 40), (40, 1), (23, 37)):
        mask = rng.random(shape) < density
        ours, theirs = connected_components(mask), skimage_label(mask, connectivity=2)
        assert ours.max() == theirs.max() and ((ours > 0) == mask).all()
        # A bijection between the two labellings.
        assert len(set(zip(ours[mask], theirs[mask]))) == theirs.max()


def naive_pro(masks, maps, max_fpr):
    """PRO by its definition: a loop over all thresholds and all regions."""
    regions, normal = [], np.concatenate([m[~k] for k, m in zip(masks, maps)])
    for mask, map_ in zip(masks, maps):
        labels = skimage_label(mask, connectivity=2)
        regions += [map_[labels == i] for i in range(1, labels.max() + 1)]
    points = [(0.0, 0.0)]
    for t in np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]:
        points.append(((normal >= t).mean(), np.mean([(r >= t).mean() for r in regions])))
    area = 0.0
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        if x0 >= max_fpr:
            break
        if x1 > max_fpr:
            y1 = y0 + (y1 - y0) * (max_fpr - x0) / (x1 - x0)
            x1 = max_fpr
        area += (x1 - x0) * (y0 + y1) / 2
    return area / max_fpr


@pytest.mark.parametrize("max_fpr", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("digits", [1, 6])
def test_pro_equals_definition(max_fpr, digits):
    rng = np.random.default_rng(2)
    masks = [rng.random((11, 17)) < p for p in (0.0, 0.2, 0.4)]
    maps = [(rng.random(m.shape) + 0.5 * m).round(digits) for m in masks]
    assert pro(masks, maps, max_fpr) == pytest.approx(naive_pro(masks, maps, max_fpr), abs=1e-9)


def test_pro_weighs_regions_equally_by_hand():
    """A large region found at once and a small one never (before FPR 1): PRO is 1/2."""
    mask = np.zeros((10, 20), bool)
    mask[:5, :10] = True
    mask[9, 19] = True
    map_ = np.where(mask, 2.0, 1.0)
    map_[9, 19] = 0.0
    assert pro([mask], [map_]) == pytest.approx((0.5 + 0.5) / 2, abs=1e-12)
    map_[9, 19] = 2.0
    assert pro([mask], [map_]) == pytest.approx(1.0)


def test_perfect_and_inverted_pixel_auroc():
    mask = np.zeros((6, 9), bool)
    mask[2:4, 3:5] = True
    assert pixel_auroc([mask], [mask.astype(float)]) == 1.0
    assert pixel_auroc([mask], [-mask.astype(float)]) == 0.0


def test_wrong_input_raises():
    with pytest.raises(ValueError, match="finite"):
        image_metrics([0, 1], [0.0, float("nan")])
    with pytest.raises(ValueError, match="labels in"):
        image_metrics([0, 2], [0.0, 1.0])
    with pytest.raises(ValueError, match="own shape"):
        pixel_auroc([np.zeros((2, 3), bool)], [np.zeros((3, 2))])
    with pytest.raises(ValueError, match="finite"):
        pro([np.ones((2, 3), bool)], [np.full((2, 3), np.inf)])
    with pytest.raises(ValueError, match="max_fpr"):
        pro([np.ones((2, 3), bool)], [np.zeros((2, 3))], max_fpr=0)
