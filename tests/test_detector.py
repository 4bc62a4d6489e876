"""Scoring chunk by chunk: the same scores in order, and what cannot be read is named."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from conftest import run, write_tiny

from ad import InputError, checkpoint, detector, layouts
from ad.config import Scoring
from ad.images import load_images
from ad.judging import calibrate
from ad.machine import Machine
from ad.runs import run_files
from ad.scoring import score_images
from ad.sets.rejudge import judge_again

CPU = torch.device("cpu")


class Darkness(torch.nn.Module):
    """Strange is what is dark."""

    def anomaly_maps(self, images, names=None):
        return {"mse": 1 - images.mean(1, keepdim=True)}


@pytest.fixture
def dark(tiny):
    normals = layouts.find_samples(tiny, "stripes", "train")
    saved = calibrate(Darkness(), load_images(normals, 64), Scoring(windows=(0,)), CPU)
    return detector.Detector([detector.Member("dark", Darkness(), {
        "image_size": 64, "validation": [s.id for s in normals]}, saved)])


@pytest.mark.parametrize("chunk", (1, 5, 12, 16))
def test_chunks_give_the_scores_of_all_images_at_once_in_order(tiny, dark, monkeypatch, chunk):
    """And a score is 0 for the middle normal image, 1 for the strangest one, the threshold."""
    monkeypatch.setattr(detector, "CHUNK", chunk)
    samples = layouts.find_samples(tiny, "stripes", "test")
    found = list(dark.score_samples(samples))
    member, images = dark.members[0], load_images(samples, 64)
    parts = list(score_images(member.model, images, member.calibration, CPU))
    expected = torch.cat([s for s, _ in parts]).double().numpy()
    np.testing.assert_allclose([f.raw for f in found], expected, rtol=1e-5)
    typical, highest = np.median(member.normal_scores), max(member.normal_scores)
    np.testing.assert_allclose([f.score for f in found],
                               (expected - typical) / (highest - typical), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(torch.stack([f.map_ for f in found]),
                               torch.cat([m for _, m in parts]), rtol=1e-5, atol=1e-5)
    assert [f.sample for f in found] == samples
    assert all(torch.equal(f.picture, image) for f, image in zip(found, images))


def test_files_arrays_and_tensors_get_the_same_scores(tiny, dark, monkeypatch):
    monkeypatch.setattr(detector, "CHUNK", 5)
    samples = layouts.find_samples(tiny, "stripes", "test")
    expected = list(dark.score_samples(samples))
    images = load_images(samples, 64)
    for given in ([s.path for s in samples], images, [i / 255 for i in images],
                  [i.permute(1, 2, 0).numpy() for i in images]):
        scores, maps = dark.score(given)
        np.testing.assert_allclose(scores, [f.score for f in expected], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(maps, [f.map_[0] for f in expected], rtol=1e-5, atol=1e-5)
    scores, maps = dark.score(str(samples[0].path))
    assert scores.shape == (1,) and scores[0] == pytest.approx(expected[0].score, rel=1e-5)
    with pytest.raises(InputError, match="not an image: dict"):
        dark.score([{}])


def test_a_bad_file_of_a_later_chunk_is_named(dark, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(detector, "CHUNK", 4)
    samples = layouts.find_samples(write_tiny(tmp_path), "stripes", "test")
    samples[9].path.write_bytes(b"no image")
    with pytest.raises(InputError, match=samples[9].path.name):
        list(dark.score_samples(samples))
    found = list(dark.score_samples(samples, skip=True))
    assert [f.sample for f in found] == samples[:9] + samples[10:]
    assert str(samples[9].path) in capsys.readouterr().out


def test_an_image_that_only_one_member_can_read_is_left_out(dark, tmp_path, capsys):
    """Of 20 x 512 pixels, 10 are left of the shorter side where images are shrunk to 256."""
    sides = {"a": (64, 64), "b": (20, 512), "c": (32, 40)}
    for name, side in sides.items():
        Image.new("RGB", side[::-1], "navy").save(tmp_path / f"{name}.png")
    samples = [layouts.Sample(tmp_path / f"{name}.png", "stripes", "", -1, None) for name in sides]
    one = dark.members[0]
    both = detector.Detector([replace(one, config=one.config | {"image_size": side})
                              for side in (512, 256)])
    found = list(both.score_samples(samples, skip=True))
    assert [f.sample.path.stem for f in found] == ["a", "c"]
    assert [tuple(f.picture.shape[1:]) for f in found] == [sides["a"], sides["c"]]
    assert "b.png: 10 x 256 pixels" in capsys.readouterr().out


@pytest.mark.parametrize("options", (
    ("--width", 4, "--depth", 2, "--batch", 4, "--epochs", 2),
    ("--model", "patchcore", "--backbone", "shufflenet_v2_x0_5", "--weights", "weights.pth")))
def test_images_are_judged_alike_whatever_precision_a_step_had(tiny, tmp_path, options):
    """Features of half precision are others, strange to a memory of those of single precision, and
    the machine that scores may not have it."""
    torch.manual_seed(0)
    network = torchvision.models.get_model("shufflenet_v2_x0_5", weights=None)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    options = [tmp_path / o if o == "weights.pth" else o for o in options]
    done = run("train.py", "--data", tiny, "--category", "stripes", "--name", "half", "--precision",
               "bf16", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "runs/stripes/half/best.pt"
    saved = checkpoint.load(path)
    scoring = Scoring(**saved["calibration"]["scoring"])
    again = judge_again(checkpoint.restore_model(saved, path), saved["config"], scoring, False,
                        Machine(CPU))
    for part in ("scores", "taught"):
        np.testing.assert_allclose(again[part], saved["calibration"][part], rtol=1e-3, atol=1e-3)
    trained = "patchcore" not in options  # not a memory
    assert len(again["taught"]) == trained * len(saved["config"]["train"])
    if trained:  # nothing that it has learned is anomalous
        scores, _ = detector.Detector.load(path).score(run_files(saved["config"], "train"))
        assert scores.max() <= 1 + 1e-3
