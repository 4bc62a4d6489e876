"""Scoring chunk by chunk: the same scores in order, and maps kept only where masks want them."""

from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import write_tiny

from ad import InputError, ensemble, layouts
from ad.images import load_images
from ad.judging import calibrate
from ad.scoring import Scoring, score_images, standardise

CPU = torch.device("cpu")
ARGS = Namespace(precision="fp32", window_batch=16, maps=False, masks=None, spot_check=[])


class Darkness(torch.nn.Module):
    """Strange is what is dark."""

    def anomaly_maps(self, images, names=None):
        return {"mse": 1 - images.mean(1, keepdim=True)}


@pytest.fixture
def member(tiny):
    normals = load_images(layouts.find_samples(tiny, "stripes", "train"), 64)
    saved = calibrate(Darkness(), normals, Scoring(windows=(0,)), CPU)
    return {"model": Darkness(), "config": {"image_size": 64}, "calibration": saved, "weight": 1.0,
            "normal": np.asarray(saved["scores"])}


@pytest.mark.parametrize("chunk", (1, 5, 12, 16))
def test_chunks_give_the_scores_of_all_images_at_once_in_order(tiny, member, monkeypatch, chunk):
    monkeypatch.setattr(ensemble, "CHUNK", chunk)
    samples = layouts.find_samples(tiny, "stripes", "test")
    (scores, raw), maps, masks, _ = ensemble.score_samples([member], samples, ARGS, CPU)
    parts = list(score_images(member["model"], load_images(samples, 64),
                              member["calibration"], CPU))
    expected = torch.cat([s for s, _ in parts]).double().numpy()
    np.testing.assert_allclose(raw, expected, rtol=1e-5)
    np.testing.assert_allclose(scores, standardise(expected, member["normal"]), rtol=1e-5)
    np.testing.assert_allclose(maps, torch.cat([m for _, m in parts])[:, 0], rtol=1e-5, atol=1e-5)
    assert [mask.any() for mask in masks] == [s.defect != "good" for s in samples]


def test_no_map_is_kept_where_there_is_no_mask(tiny, member):
    samples = [replace(s, mask=None) for s in layouts.find_samples(tiny, "stripes", "test")]
    scores, maps, masks, _ = ensemble.score_samples([member], samples, ARGS, CPU)
    assert scores.shape == (2, 12) and maps == masks == []


def test_a_bad_file_of_a_later_chunk_is_named(member, tmp_path, monkeypatch):
    monkeypatch.setattr(ensemble, "CHUNK", 4)
    samples = layouts.find_samples(write_tiny(tmp_path), "stripes", "test")
    samples[9].path.write_bytes(b"no image")
    with pytest.raises(InputError, match=samples[9].path.name):
        ensemble.score_samples([member], samples, ARGS, CPU)
