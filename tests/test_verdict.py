"""What train.py says about a run, in numbers known by hand."""

from dataclasses import asdict

import pytest

from ad.config import Scoring
from ad.verdict import verdict

SCORING = asdict(Scoring(windows=(0, 128), error="fused"))
ARGS = {"model": "unet", "error": "fused", "crop": 0, "long_side": [256, 256]}


def saved(scores, positives, kinds, model="unet", error="fused"):
    return {"epoch": 3, "config": {"category": "c", "args": ARGS | {"model": model},
                                      "train": ["x.png"] * len(scores)},
            "calibration": {"scores": [*scores], "positives": positives, "kinds": kinds,
                            "scoring": SCORING | {"error": error}}}


def test_another_auroc_at_the_end_is_explained_where_chance_does_not():
    """A positive at 23.5 is above 24 of 40 normal images: an AUROC of 0.6."""
    for error in ("repaired", "fused"):
        line, *rest = verdict(saved(range(40), [23.5], ["small"], error=error), 0.772).splitlines()
        assert line.startswith("c: the AUROC was 0.772 in its epoch and is 0.600 now")
        assert "shrunk to 256 pixels" in line and "as a whole, windows of 128 pixels" in line
        assert ("without the memory" in line) == (error == "repaired") and len(rest) == 2
    for before, count, positive in ((0.62, 40, 23.5), (0.9, 4, 2.5), (None, 40, 23.5)):
        lines = verdict(saved(range(count), [positive], ["small"]), before).splitlines()
        assert len(lines) == 2 and "in its epoch" not in lines[0]


@pytest.mark.parametrize("count, positives, model, found, rate, advice", [
    (40, [50, 50, 1, 50], "unet", "67% of small, 100% of large pasted damage", "6%",
     "more epochs, or add --model patchcore"),
    (40, [50, 50, 1, 50], "patchcore", "67% of small, 100% of large", "6%", "add --model unet"),
    (40, [50, 50, 50, 50], "unet", "100% of small, 100% of large", "6%", "good enough to try"),
    (8, [50, 50, 50, 50], "unet", "100% of small, 100% of large", "25%", "more photographs")])
def test_what_is_found_and_what_to_do_next(count, positives, model, found, rate, advice):
    """The highest normal score is the threshold; 1 - 0.1 ** (1 / n) bounds what is above it."""
    first, second = verdict(saved(range(count), positives, ["small"] * 3 + ["large"], model),
                            1.0 if model == "unet" and min(positives) > 40 else None).splitlines()
    assert found in first and f"at most {rate} false alarms (by {count} normal" in second
    assert advice in second and first.startswith("c: ")


def test_labelled_images_are_called_what_they_are():
    first, _ = verdict(saved(range(40), [50, 1], ["labelled"] * 2), None).splitlines()
    assert first.startswith("c: finds 50% of the anomalous validation images, AUROC 0.5")
