"""A tiny data set in MVTec AD layout, and a way to run the scripts."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

# One thread: these networks are tiny, and threads of neighbours only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402  (OpenMP reads it when it is loaded)
import pytest  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from ad.config import Scoring  # noqa: E402

PROJECT = Path(__file__).parent.parent


# What the config of any checkpoint has; the values of a Scoring are among its args.
CONFIG = dict.fromkeys(("root", "category", "image_size", "train", "validation")) | {
    "args": asdict(Scoring())}

# Files whose tests take minutes: first, so that none of them runs alone at last.
SLOW = ("survive", "distributed", "router", "classifier", "export", "vae", "scripts", "calls",
        "faults", "readme", "report")


def pytest_collection_modifyitems(items):
    place = {f"test_{name}.py": number for number, name in enumerate(SLOW)}
    items.sort(key=lambda item: place.get(item.path.name, len(SLOW)))


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


# Processes are forked from one that has only imported the package, and what parts of it import when
# they are used, which takes longer than most of the tests' own work.
FRESH = multiprocessing.get_context("forkserver")
FRESH.set_forkserver_preload([
    "train", "infer", "visualize", "ad.pictures.report", "torchvision", "tqdm",
    *(f"ad.{path.stem}" for path in (PROJECT / "ad").glob("[a-z]*.py"))])


def in_child(script, arguments, cwd, env, files):
    """Be a fresh process that runs the script, with stdout and stderr in two files."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = (open(n, "w", encoding="utf-8", closefd=False) for n in (1, 2))
    sys.argv = [str(PROJECT / script), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


def run(script, *arguments, cwd, env=None):
    """Run a script of the project in a fresh process; returns a CompletedProcess."""
    arguments = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/out", f"{folder}/err"]
        process = FRESH.Process(target=in_child, args=(
            script, arguments, str(cwd), dict(os.environ if env is None else env), files))
        process.start()
        process.join(300)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"{script} {' '.join(arguments)} took more than 300 s")
        out, err = (Path(file).read_text(encoding="utf-8") for file in files)
    return subprocess.CompletedProcess([script, *arguments], process.exitcode, out, err)


def loaded(script, *arguments, cwd):
    """Names of the modules that a script has imported when it ends."""
    code = ("import os, runpy, sys\nsys.argv = sys.argv[1:]\n"
            "sys.path.insert(0, os.path.dirname(sys.argv[0]))\ntry:\n"
            "    runpy.run_path(sys.argv[0], run_name='__main__')\nexcept SystemExit:\n    pass\n"
            "print('\\n', *sys.modules)")
    result = subprocess.run([sys.executable, "-c", code, PROJECT / script, *map(str, arguments)],
                            cwd=cwd, capture_output=True, text=True)
    return result.stdout.splitlines()[-1].split()


def wait_for(path, process, seconds=120):
    """Wait until the file is there, while the process runs."""
    end = time.time() + seconds
    while not path.exists():
        assert process.poll() is None and time.time() < end, process.communicate()
        time.sleep(0.02)


# Two runs on a GPU give the same weights only so.
REPEATABLE = ("--deterministic",) if torch.cuda.is_available() else ()
TINY_TRAINING = ("--objective", "reconstruct", "--width", 4, "--depth", 2, "--batch", 4,
                 "--lr", 1e-3, "--crop", 64, "--long-side", 64, 96, "--windows", 32, 64,
                 "--window-input", 0, "--val-every", 2, "--save-every", 2)
