"""Scores that stay: of every model, untrained or fitted, on procedural images, as they were when
golden.json was written (python tests/test_golden.py). What moves code must not move scores."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_image

from ad.config import Scoring
from ad.detector import Detector, Member
from ad.judging import calibrate
from ad.model import build_model
from ad.seed import seed_everything
from ad.training import validation_scoring  # noqa: F401  (the module must stay importable)

FILE = Path(__file__).parent / "golden.json"
PLAIN = {"windows": (0,), "window_input": 0, "error": "mse", "sigma": 1.0, "topk": 0.05}
MODELS = {
    "unet": ({"width": 4, "depth": 2, "patch": 4}, {"windows": (0,), "error": "repaired"}),
    "unet, reconstruct": ({"width": 4, "depth": 2, "objective": "reconstruct"},
                          {"windows": (32, 64), "window_input": 64}),
    "patchcore": ({}, {"windows": (0,)}),
    "patchcore, free": ({"position": "free", "distance": "neighbours"}, {"windows": (0,)}),
    "vae": ({"image_height": 64, "image_width": 64, "latent_dim": 8}, PLAIN),
    "linear_vae": ({}, PLAIN),
    "small_conv_vae": ({}, PLAIN),
    "resnet": ({"side": 64}, PLAIN | {"topk": 1.0, "sigma": 0.0, "calibration": "global"})}


def images(count, seed):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(tiny_image(rng)).permute(2, 0, 1) for _ in range(count)]


def scores(name):
    """Scores of four images, of which one is noise and one is dark, by a model with fixed draws."""
    model_args, scoring = MODELS[name]
    seed_everything(0)
    model = build_model(name.split(",")[0], **model_args).eval()
    normals = images(8, 0)
    if hasattr(model, "fit"):
        model.fit((image[None].float() / 255 for image in images(8, 1)))
    found = calibrate(model, normals, Scoring(**scoring), torch.device("cpu"))
    config = {"image_size": 512, "category": "tiny", "validation": [str(i) for i in range(8)]}
    tests = images(4, 2)
    tests[1] = torch.randint(256, tests[1].shape, generator=torch.Generator().manual_seed(0)).byte()
    tests[2] = tests[2] // 2
    return Detector([Member("x", model, config, found)]).score(tests)[0].tolist()


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_as_they_were(name):
    # Other processors add up in another order.
    np.testing.assert_allclose(scores(name), json.loads(FILE.read_text())[name], rtol=2e-3,
                               atol=2e-3)


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: scores(name) for name in MODELS}, indent=1) + "\n")
