"""infer.py --export: the program without the project, against the project."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import TINY_TRAINING, run

from ad import checkpoint, layouts
from ad.images import load_images
from ad.scoring import score_images

ALONE = """
import sys
import torch
program = torch.export.load(sys.argv[1]).module()
images = torch.load(sys.argv[2], weights_only=True)
with torch.no_grad():
    torch.save([program(images[:n]) for n in (1, 2, 5)], sys.argv[3])
assert not [name for name in sys.modules if name == "ad" or name.startswith("ad.")]
"""
REPAIR = ("--width", 4, "--depth", 2, "--epochs", 1, "--batch", 4, "--long-side", 64, 64)
RUNS = {"unet": REPAIR, "free": ("--model", "patchcore", "--position", "free")}


@pytest.mark.parametrize("name", RUNS)
def test_an_exported_program_gives_the_maps_and_scores_of_infer(tiny, tmp_path, name):
    done = run("train.py", "--data", tiny, "--category", "stripes", "--name", name, *RUNS[name],
               cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run("infer.py", "--data", tiny, "--category", "stripes", "--export", "a.pt2",
               cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "float images (N, 3, 64, 80)" in done.stdout
    samples = layouts.find_samples(tiny, "stripes", "test")[:5]
    images = load_images(samples, 512)
    torch.save(torch.stack(images).float() / 255, tmp_path / "images.pt")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run([sys.executable, "-I", "-c", ALONE, "../a.pt2", "../images.pt", "../out.pt"],
                   cwd=elsewhere, check=True)
    path = tmp_path / "runs/stripes" / name / "best.pt"
    saved = checkpoint.load(path)
    model = checkpoint.restore_model(saved, path)
    for count, (maps, scores) in zip((1, 2, 5), torch.load(tmp_path / "out.pt", weights_only=True)):
        # Of as many images at once: convolutions round differently in batches of other sizes.
        (expected, expected_maps), = score_images(model, images[:count], saved["calibration"],
                                                  torch.device("cpu"))
        # Maps are logarithms, in standard deviations: rounding of an error near 0 grows.
        torch.testing.assert_close(maps, expected_maps, atol=2e-4, rtol=1e-5)
        normal = saved["calibration"]["scores"]  # 0 is the middle one, 1 the highest
        expected = (expected - np.median(normal)) / (max(normal) - np.median(normal))
        torch.testing.assert_close(scores, expected.float(), atol=1e-4, rtol=1e-4)


def test_windows_are_not_exported(tiny, tmp_path):
    run("train.py", "--data", tiny, "--category", "stripes", "--epochs", 1, *TINY_TRAINING,
        cwd=tmp_path)
    done = run("infer.py", "--data", tiny, "--category", "stripes", "--export", "a.pt2",
               cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "only whole images, which is --windows 0, can be exported" in done.stderr
