"""Two processes of torchrun, gloo, against one. As a script: what train_epoch learns, in double."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

PROJECT = Path(__file__).parent.parent
sys.path.insert(0, str(PROJECT))

# torchrun starts this as a script, which finds the project there.
from ad import InputError, checkpoint, neighbours, ranks, training  # noqa: E402
from ad.config import Training  # noqa: E402
from ad.judging import aurocs  # noqa: E402
from ad.machine import Machine  # noqa: E402
from ad.model import build_model  # noqa: E402
from ad.models.memory import PatchMemory  # noqa: E402
from ad.processes import distributed  # noqa: E402
from ad.processes.batchnorm import synchronise  # noqa: E402
from conftest import TINY_TRAINING, run, tiny_image, wait_for, write_tiny  # noqa: E402

LAUNCH = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
MODELS = {
    "reconstruct": ("unet", {"width": 4, "depth": 2, "objective": "reconstruct"}),
    "repair": ("unet", {"width": 4, "depth": 2}),
    "vae": ("vae", {"image_height": 32, "image_width": 32, "latent_dim": 4, "widths": (4, 8)}),
    "classifier": ("resnet", {"side": 32, "class_weights": [0.3, 2.0]})}


@pytest.fixture(autouse=True, scope="module")
def without_a_gpu():
    """gloo's own: NCCL wants a GPU for each process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield


def learned(kind):
    """Two epochs of SGD, whose steps grow with the gradients, over batches of 3 and 4 images in
    double precision: (figures of the second, weights)."""
    torch.manual_seed(0)
    name, options = MODELS[kind]
    model = build_model(name, **options).double()
    if kind == "classifier":
        model.class_weights = model.class_weights.float()  # as its logits always are
    synchronise(model)
    images = [torch.from_numpy(tiny_image(np.random.default_rng(i))).permute(2, 0, 1)
              for i in range(7)]
    labels = torch.tensor([0, 1, 0, 0, 1, 0, 1]) if kind == "classifier" else None
    plan = Training(batch=4, lr=0.01, epochs=2, schedule="constant", symmetries=("left-right",),
                    long_side=(48, 64))
    updates = training.Updates(plan, Machine(torch.device("cpu")), torch.optim.SGD(
        model.parameters()), torch.amp.GradScaler(enabled=False))
    for epoch in (1, 2):
        figures = training.train_epoch(model, (images, labels), updates, epoch)
    del figures["images_per_s"]
    return figures, model.state_dict()


def remembered():
    """Patches of two groups of images of two sizes, at two angles, of which 6 of 13 are kept."""
    model, neighbours.ENTRIES = PatchMemory(position="free"), 6
    model.angles = 2
    images = [torch.from_numpy(tiny_image(np.random.default_rng(i))).permute(2, 0, 1)[None] / 255
              for i in range(13)]
    images[3:5] = [torch.cat(images[3:5])[..., :40]]
    return model.extract(images, (5, 8))


def in_double(draw_crops):
    return lambda *args: draw_crops(*args).double()


@contextlib.contextmanager
def launched(script, *arguments, cwd):
    """torchrun in a session of its own, which does not outlive the block."""
    process = subprocess.Popen([*LAUNCH, str(PROJECT / script), *map(str, arguments)], cwd=cwd,
                               env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)


def torchrun(script, *arguments, cwd):
    with launched(script, *arguments, cwd=cwd) as process:
        out, err = process.communicate(timeout=240)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def difference(a, b):
    assert a.keys() == b.keys()
    return max((a[key].double() - b[key].double()).abs().max().item() for key in a)


def test_two_processes_learn_what_one_learns(tmp_path, monkeypatch):
    """Against torch's own batch norm, in double precision, where nothing hides in rounding (some of
    the VAE's and the classifier's outputs are always single)."""
    result = torchrun("tests/test_distributed.py", "learned.pt", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    monkeypatch.setattr(training, "draw_crops", in_double(training.draw_crops))
    for kind, (figures, weights) in torch.load(tmp_path / "learned.pt", weights_only=True).items():
        expected, alone = learned(kind)
        limit = 1e-10 if kind in ("reconstruct", "repair") else 1e-6
        assert figures == pytest.approx(expected, abs=limit), kind
        assert difference(weights, alone) < limit, kind


def test_two_processes_remember_what_one_remembers(many, tmp_path, monkeypatch):
    monkeypatch.setattr(neighbours, "ENTRIES", neighbours.ENTRIES)
    options = ("--data", many, "--category", "lines", "--model", "patchcore", "--verbose")
    for name, start in (("one", run), ("two", torchrun)):
        result = start("train.py", *options, "--runs", name, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    assert result.stdout.count("patches of") == result.stdout.count("false alarms") == 1
    one, two = (checkpoint.load(tmp_path / name / "lines/patchcore-seed0/best.pt")
                for name in ("one", "two"))
    tensors = [{k: v for k, v in part["model"].items() if torch.is_tensor(v)}
               for part in (one, two)]
    assert difference(*tensors) == 0 and len(tensors[0]["bank"])
    for key in ("scores", "positives"):
        assert one["calibration"][key] == two["calibration"][key]
    result = torchrun("tests/test_distributed.py", "learned.pt", "memory", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    both, alone = torch.load(tmp_path / "learned.pt", weights_only=True), remembered()
    assert torch.equal(both, alone) and alone.shape[1] == 5 and (alone != 0).any(2).all()


EXACT = """import runpy
from ad import ranks
from ad.processes import batchnorm
batchnorm.size = lambda: 2  # one process, but with the batch normalisation of several
ranks.synchronise = batchnorm.synchronise
runpy.run_path({!r}, run_name="__main__")
"""


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Two categories, one of them with 13 images to train on, which makes batches of 3 and 4, and
    32 to test: two chunks of infer.py's."""
    root = write_tiny(write_tiny(tmp_path_factory.mktemp("many"), "lines", 15, 1), "stripes", 8)
    for i in range(20):
        Image.fromarray(tiny_image(np.random.default_rng(i))).save(
            root / "lines/test/good" / f"more{i}.png")
    return root


@pytest.fixture(scope="module", params=("reconstruct", "repair"))
def pair(request, many, tmp_path_factory):
    """Folders with runs/lines/unet-seed0 of: one process, one with exact moments, two."""
    base = tmp_path_factory.mktemp(request.param)
    (base / "exact.py").write_text(EXACT.format(str(PROJECT / "train.py")))
    options = ("--data", many, "--category", "lines", *TINY_TRAINING, "--objective", request.param,
               "--windows", 0, "--precision", "fp32", "--epochs", 4, "--verbose")
    folders = [base / name for name in ("one", "exact", "two")]
    for folder, script in zip(folders, ("train.py", base / "exact.py", "train.py")):
        folder.mkdir()
        start = torchrun if folder.name == "two" else run
        result = start(script, *options, cwd=folder)
        assert result.returncode == 0, result.stderr
    return *folders, result.stdout


def test_training_with_two_processes(pair):
    """Rounding decides which of two equal pixels a max pooling takes, and Adam turns the sign of a
    tiny gradient into a whole step, so that in single precision the losses are compared, with those
    of one process that has our sums (torch's batch norm is off by 1e-5); the test above is exact.
    """
    one, exact, two = (folder / "runs/lines/unet-seed0" for folder in pair[:3])
    assert {p.name for p in two.iterdir()} == {p.name for p in one.iterdir()}
    assert pair[3].count("epoch 4/4") == 1 and pair[3].count("lines: best epoch") == 1
    before, after, alone = (checkpoint.load(folder / name)["model"] for folder, name in (
        (two, "epoch_2.pt"), (two, "epoch_4.pt"), (exact, "epoch_4.pt")))
    assert difference(alone, after) < difference(before, after) / 2
    assert log_of(exact)[0]["loss"] == pytest.approx(log_of(two)[0]["loss"], rel=1e-5)
    for figures, twice in zip(log_of(one), log_of(two)):
        assert figures["loss"] == pytest.approx(twice["loss"], rel=1e-2)
    assert log_of(one)[0]["loss"] == pytest.approx(log_of(two)[0]["loss"], rel=1e-3)
    # Two normal images, whose ranks among the others' a rounding error may change.
    checked = [[r["auroc"] for r in log_of(folder) if "auroc" in r] for folder in (exact, two)]
    assert checked[0] == pytest.approx(checked[1], abs=0.1)
    for folder in (one, exact, two):
        saved = checkpoint.load(folder / "best.pt")
        assert saved["val_auroc"] == aurocs(saved["calibration"])["auroc"]
        assert saved["epoch"] in (2, 4)


@pytest.mark.parametrize("pair", ["reconstruct"], indirect=True)
def test_infer_with_two_processes(many, pair, tmp_path):
    options = ("--data", many, "--all", "--runs", pair[0] / "runs")
    for name, start in (("one", run), ("two", torchrun)):
        result = start("infer.py", *options, "--maps", "--results", tmp_path / name, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    assert result.stdout.count("scores.csv") == 1
    csvs = [(tmp_path / name / "scores.csv").read_bytes() for name in ("one", "two")]
    assert csvs[0] == csvs[1] and csvs[0].count(b"\n") == 33
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text())
                for name in ("one", "two"))
    for part in (one, two):
        del part["command"], part["categories"]["lines"]["seconds"]
    assert one == two
    assert len(list((tmp_path / "two/maps").rglob("*.png"))) == 32


def test_categories_in_parallel(tmp_path):
    root = tmp_path / "data"
    for seed, name in enumerate(("bars", "lines", "stripes", "worse")):
        write_tiny(root, name, 6, seed)
    broken = root / "worse/train/good/003.png"
    sound = broken.read_bytes()
    broken.write_bytes(b"no image")
    options = ("--data", root, "--all", *TINY_TRAINING, "--precision", "fp32", "--epochs", 2,
               "--windows", 0)
    result = torchrun("train.py", *options, "--parallel", "categories", cwd=tmp_path)
    assert result.returncode != 0
    assert result.stderr.count(f"error: worse, seed 0: cannot read image {broken}") == 1
    # The second process trained lines before that.
    best = checkpoint.load(tmp_path / "runs/lines/unet-seed0/best.pt")
    assert len(best["calibration"]["scores"]) == 2
    broken.write_bytes(sound)
    result = torchrun("train.py", *options, "--parallel", "categories", "--resume", "--verbose",
                      cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "runs/worse/unet-seed0: epoch 2/2" in result.stdout
    assert run("train.py", *options, "--runs", "alone", cwd=tmp_path).returncode == 0
    for path in sorted((tmp_path / "alone").rglob("*.pt")):
        a, b = (checkpoint.load(tmp_path / runs / path.relative_to(tmp_path / "alone"))
                for runs in ("alone", "runs"))
        assert difference(a["model"], b["model"]) == 0
        assert (a["calibration"] is None) == (b["calibration"] is None) == (path.name != "best.pt")
        assert a["calibration"] is None or a["calibration"]["scores"] == b["calibration"]["scores"]


def test_a_killed_process_ends_the_job_which_resumes(many, tmp_path):
    options = ("--data", many, "--category", "lines", *TINY_TRAINING, "--precision", "fp32")
    folder = tmp_path / "runs/lines/unet-seed0"
    with launched("train.py", *options, "--epochs", 2000, cwd=tmp_path) as process:
        wait_for(folder / "last.pt", process)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        second, = (int(child) for child in children
                   if "RANK=1" in Path(f"/proc/{child}/environ").read_text().split("\0"))
        os.kill(second, signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    assert process.returncode != 0 and "train.py --resume goes on" in errors, errors
    assert "Traceback" not in errors.split("torch/distributed/elastic")[0]
    done = checkpoint.load(folder / "last.pt")["epoch"]
    result = run("train.py", *options, "--epochs", done + 1, "--resume", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert [record["epoch"] for record in log_of(folder)] == list(range(1, done + 2))


def test_both_processes_stop_at_the_same_step(many, tmp_path):
    options = ("--data", many, "--category", "lines", *TINY_TRAINING, "--precision", "fp32",
               "--val-every", 1000)
    folder = tmp_path / "runs/lines/unet-seed0"
    with launched("train.py", *options, "--epochs", 2000, cwd=tmp_path) as process:
        wait_for(folder / "last.pt", process)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does; torchrun passes it on once more
        out, errors = process.communicate(timeout=60)
    assert process.returncode != 0 and out.count(f"{folder.relative_to(tmp_path)}: saved") == 1
    assert errors.count("stopped by SIGINT") == 2, errors
    last = checkpoint.load(folder / "last.pt")
    assert f"saved after step {last['begun']['batches']} of epoch {last['epoch'] + 1}" in out
    result = run("train.py", *options, "--epochs", last["epoch"] + 1, "--resume", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert [record["epoch"] for record in log_of(folder)] == list(range(1, last["epoch"] + 2))


def test_what_several_processes_cannot_do_is_an_error(monkeypatch):
    monkeypatch.setattr(ranks, "size", lambda: 4)
    with pytest.raises(InputError, match="batches of 3 images are too small for 4 processes"):
        learned("repair")


if __name__ == "__main__":
    training.draw_crops = in_double(training.draw_crops)
    distributed.setup()
    results = remembered() if sys.argv[2:] else {kind: learned(kind) for kind in MODELS}
    if distributed.rank() == 0:
        torch.save(results, sys.argv[1])
    distributed.leave()
