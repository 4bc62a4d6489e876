"""A tiny data set in MVTec AD layout, and a way to run the scripts."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PROJECT = Path(__file__).parent.parent


def tiny_image(rng, height=64, width=80):
    """Noisy stripes, uint8 (height, width, 3)."""
    x = np.arange(width) + rng.uniform(0, 4)
    stripes = 110 + 60 * np.sin(x / 4)[None, :, None] + np.zeros((height, 1, 3))
    return (stripes + rng.normal(0, 6, stripes.shape)).clip(0, 255).astype(np.uint8)


def write_tiny(root, category="stripes", train=12, seed=0):
    """`train` normal images, 4 good and 4 + 4 defective test images with masks below root."""
    rng = np.random.default_rng(seed)
    base = root / category
    for folder in ("train/good", "test/good", "test/blot", "test/gap", "ground_truth/blot",
                   "ground_truth/gap"):
        (base / folder).mkdir(parents=True)
    for i in range(train):
        Image.fromarray(tiny_image(rng)).save(base / "train/good" / f"{i:03}.png")
    for i in range(4):
        Image.fromarray(tiny_image(rng)).save(base / "test/good" / f"{i:03}.png")
        for defect, value in (("blot", 250), ("gap", 110)):
            image, mask = tiny_image(rng), np.zeros((64, 80), np.uint8)
            y, x = rng.integers(8, 40, 2)
            mask[y:y + 14, x:x + 14] = 255
            image[mask > 0] = value
            Image.fromarray(image).save(base / "test" / defect / f"{i:03}.png")
            Image.fromarray(mask).save(base / "ground_truth" / defect / f"{i:03}_mask.png")
    return root


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("tiny"))


def run(script, *arguments, cwd, env=None):
    """Run a script of the project in a fresh process; returns the CompletedProcess."""
    command = [sys.executable, str(PROJECT / script), *map(str, arguments)]
    # One thread: these networks are tiny, and threads of neighbours only wait for each other.
    env = {**(os.environ if env is None else env), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, env=env)


TINY_TRAINING = ("--objective", "reconstruct", "--width", 4, "--depth", 2, "--batch", 4,
                 "--lr", 1e-3, "--crop", 64, "--long-side", 64, 96, "--windows", 32, 64,
                 "--window-input", 0, "--val-every", 2, "--save-every", 2)
