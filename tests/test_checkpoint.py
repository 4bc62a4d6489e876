"""Checkpoints: round trip in a fresh process, safe loading, short names, atomic writes."""

import os
import pickle
import subprocess
import sys
from collections import namedtuple

import pytest
import torch

from ad import InputError, checkpoint
from ad.model import build_model
from ad.runs import Run
from conftest import CONFIG, PROJECT


def make(path, width=4):
    torch.manual_seed(0)
    model_args = {"name": "unet", "width": width, "depth": 2}
    model = build_model(**model_args)
    checkpoint.save(path, {"model": model.state_dict(), "model_args": model_args, "epoch": 3,
                           "config": CONFIG, "val_auroc": 0.5, "calibration": None})
    return model.eval()


def test_a_fresh_process_gives_the_same_output(tmp_path):
    model, images = make(tmp_path / "best.pt"), torch.rand(2, 3, 20, 28)
    torch.save(images, tmp_path / "images.pt")
    code = ("import torch; from ad import checkpoint\n"
            "model = checkpoint.restore_model(checkpoint.load('best.pt'), 'best.pt')\n"
            "images = torch.load('images.pt', weights_only=True)\n"
            "with torch.no_grad(): torch.save(model(images), 'out.pt')")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120,
                   env={**os.environ, "PYTHONPATH": str(PROJECT)})
    ours = checkpoint.restore_model(checkpoint.load(tmp_path / "best.pt"), "best.pt")(images)
    assert torch.equal(torch.load(tmp_path / "out.pt", weights_only=True), ours.detach())
    torch.testing.assert_close(model(images), ours)


class Payload:
    def __reduce__(self):
        return (os.mkdir, ("payload_ran",))


def test_a_pickle_with_a_payload_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Payload()}, "evil.pt")
    with open("evil2.pt", "wb") as file:
        pickle.dump(Payload(), file)
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(InputError, match=f"cannot load checkpoint {name}"):
            checkpoint.load(name)
    assert not (tmp_path / "payload_ran").exists()


def test_what_is_not_a_checkpoint_is_named(tmp_path):
    make(tmp_path / "best.pt")
    whole = (tmp_path / "best.pt").read_bytes()
    for name, content in (("cut.pt", whole[:len(whole) // 2]), ("empty.pt", b""),
                          ("text.pt", b"hello")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"cannot load checkpoint .*{name}"):
            checkpoint.load(tmp_path / name)
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="other.pt is not a checkpoint of this project"):
        checkpoint.load(tmp_path / "other.pt")
    torch.save(checkpoint.load(tmp_path / "best.pt") | {"config": {"args": {}}},
               tmp_path / "old.pt")
    with pytest.raises(InputError, match="old.pt is of another version .* category, .* train it"):
        checkpoint.load(tmp_path / "old.pt")


def test_weights_of_another_model_are_named(tmp_path):
    make(tmp_path / "best.pt")
    saved = checkpoint.load(tmp_path / "best.pt")
    for change in ({"width": 8}, {"name": "gan"}, {"colour": 1}):
        wrong = saved | {"model_args": saved["model_args"] | change}
        with pytest.raises(InputError, match="best.pt does not fit its model"):
            checkpoint.restore_model(wrong, "best.pt")


def test_find_by_path_short_name_and_ambiguity(tmp_path):
    runs = tmp_path / "runs"
    for name in ("carpet/a/epoch_12.pt", "carpet/a/best.pt", "carpet/b/best.pt"):
        (runs / name).parent.mkdir(parents=True, exist_ok=True)
        (runs / name).write_bytes(b"")
    assert checkpoint.find("epoch_12.pt", runs) == runs / "carpet/a/epoch_12.pt"
    assert checkpoint.find("b/best.pt", runs) == runs / "carpet/b/best.pt"
    assert checkpoint.find(str(runs / "carpet/a/best.pt"), "x") == runs / "carpet/a/best.pt"
    assert checkpoint.find(str(runs / "carpet/a"), "x") == runs / "carpet/a/best.pt"
    assert checkpoint.find("b", runs) == runs / "carpet/b/best.pt"
    with pytest.raises(InputError, match="2 checkpoints.*carpet/a/best.pt, .*carpet/b/best.pt"):
        checkpoint.find("best.pt", runs)
    with pytest.raises(InputError, match="no checkpoint 'epoch_13.pt'"):
        checkpoint.find("epoch_13.pt", runs)
    assert [p.name for p in checkpoint.find_runs(runs, "carpet")] == ["a", "b"]
    assert [p.name for p in checkpoint.find_runs(runs, "carpet", ["b"])] == ["b"]
    with pytest.raises(InputError, match="no run c with a best.pt.*a, b"):
        checkpoint.find_runs(runs, "carpet", ["b", "c"])
    with pytest.raises(InputError, match="train.py --category grid"):
        checkpoint.find_runs(runs, "grid")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    checkpoint.write_atomic(tmp_path / "a.txt", "old")

    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="cannot write .*a.txt: No space left"):
        checkpoint.write_atomic(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_incomplete_checkpoints_are_not_saved(tmp_path):
    with pytest.raises(ValueError, match="checkpoint lacks calibration, config"):
        checkpoint.save(tmp_path / "a.pt", {"model": {}, "model_args": {}, "epoch": 1,
                                            "val_auroc": 0})


@pytest.mark.parametrize("schedule, expected", [("cosine", 4), ("constant", 2)])
def test_best_is_the_last_epoch_that_only_chance_tells_from_the_best(tmp_path, schedule, expected):
    """AUROCs by 25 normal images, with a standard error of 0.06 at most at 0.9."""
    config = {"args": {"schedule": schedule, "save_every": 4}, "validation": ["x"] * 25}
    run = Run(tmp_path, {"config": config, "model_args": {}, "best": None, "stale": 0})
    model = torch.nn.Linear(1, 1)
    updates = namedtuple("Updates", "optimizer scaler")(
        torch.optim.Adam(model.parameters()), torch.amp.GradScaler("cpu"))
    for epoch, auroc in enumerate((0.7, 0.9, 0.8, 0.86, 0.82), start=1):
        run.state["epoch"] = epoch
        run.save(model, updates, {"auroc": auroc, "val_loss": 1.0})
    saved = torch.load(tmp_path / "best.pt", weights_only=True)
    assert (saved["epoch"], saved["val_auroc"]) == (expected, 0.9 if expected == 2 else 0.86)
    assert run.state["best"][0] == 0.9 and run.state["stale"] == 3  # patience counts from the best
