"""Pseudo-anomaly validation with models whose answer is known."""

from argparse import Namespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import norm

from ad.cutpaste import SIZES
from ad.ensemble import vote_weights
from ad.scoring import Scoring, calibrate
from ad.threshold import labelled_scores
from ad.validation import validate, validation_set

SCORING = Scoring(windows=(0,), window_input=0, error="mse", sigma=0.0, topk=0.001)


def images(count=3):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(90, 160, (3, 60, 80), dtype=torch.uint8, generator=generator)
            for _ in range(count)]


def test_set_holds_every_family_and_size_and_never_changes():
    normals, positives, sizes = validation_set(images(), 64, seed=7)
    assert len(normals) == 3 and len(positives) == len(sizes) == 27
    assert {s: sizes.count(s) for s in SIZES} == dict.fromkeys(SIZES, 9)
    assert all(p.shape == (3, 48, 64) and p.dtype == torch.uint8 for p in normals + positives)
    again = validation_set(images(), 64, seed=7)
    assert all(torch.equal(a, b) for a, b in zip(positives, again[1]))
    # An image's positives do not depend on which other images there are, only on its number.
    assert all(torch.equal(a, b) for a, b in zip(positives, validation_set(images(2), 64, 7)[1]))
    assert not torch.equal(positives[0], validation_set(images(), 64, seed=8)[1][0])


class Oracle(torch.nn.Module):
    """Calls strange what is not among the normal images it was given."""

    def __init__(self, normals):
        super().__init__()
        self.normals = torch.stack(normals).float() / 255

    def anomaly_maps(self, batch, names):
        error = (batch[:, None] - self.normals).abs().amax(2, keepdim=True)
        nearest = error.flatten(2).mean(2).argmin(1)
        return {"mse": error[torch.arange(len(batch)), nearest]}

    def loss(self, batch, generator):
        return {"loss": batch.mean()}


class Blind(Oracle):
    def anomaly_maps(self, batch, names):
        return {"mse": torch.ones_like(batch[:, :1])}


@pytest.mark.parametrize("model, expected", [(Oracle, 1.0), (Blind, 0.5)])
def test_auroc_of_an_oracle_and_of_the_blind(model, expected):
    validation = validation_set(images(), 64, seed=0)
    result = validate(model(validation[0]), validation, SCORING, "cpu", 16)
    assert [result[k] for k in ("auroc", "auroc_small", "auroc_medium", "auroc_large")] == [
        expected] * 4
    mean = sum(n.float().mean().item() / 255 for n in validation[0]) / 3
    assert result["val_loss"] == pytest.approx(mean, rel=1e-5)


def test_votes_follow_the_evidence():
    assert vote_weights([0.7]) == [1.0]
    assert vote_weights([0.8, 0.8, 0.8]) == pytest.approx([1 / 3] * 3)
    # d' = sqrt(2) * 1 and sqrt(2) * 2 standard deviations: one to four.
    assert vote_weights([norm.cdf(1), norm.cdf(2)]) == pytest.approx([0.2, 0.8])
    assert vote_weights([0.607, 0.918]) == [0.0, 1.0]  # nothing to add
    assert vote_weights([0.3, 0.5]) == [0.5, 0.5]  # both know nothing
    assert vote_weights([None, 0.9]) == [0.5, 0.5]  # not validated, as epoch_N.pt between times
    assert sum(vote_weights([1.0, 0.99, 0.6])) == pytest.approx(1)


def test_a_normal_image_counts_as_often_as_pseudo_anomalies_but_not_as_labelled_ones(tmp_path):
    names = [f"{i}.png" for i in range(5)]
    for name, image in zip(names, images(5)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / name)
    model = Oracle([image.clone() for image in images(3)])
    config = {"root": str(tmp_path), "category": "c", "image_size": 80, "args": {"seed": 0},
              "validation": names[:3]}
    calibration = calibrate(model, images(3), SCORING, "cpu")
    member = {"name": "run", "model": model, "config": config, "calibration": calibration,
              "normal": np.array([1.0, 2.0, 3.0])}
    args = Namespace(precision="fp32", window_batch=16)
    normal, anomalous = labelled_scores(member, args, torch.device("cpu"))
    assert len(anomalous) == 27 and len(normal) == 27
    assert normal.mean() == pytest.approx(0, abs=1e-9)
    assert normal.std() == pytest.approx(1, abs=1e-4)
    config["anomalous"] = names[3:]
    normal, anomalous = labelled_scores(member, args, torch.device("cpu"))
    assert len(anomalous) == 2 and len(normal) == 3
