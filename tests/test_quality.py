"""benchmarks/quality.py: its rows against infer.py's own files, and its table against sums by hand.
And do the other benchmarks still find what they import?"""

import csv
import importlib
import json
import subprocess
import sys

import pytest
import torch
from sklearn.metrics import roc_auc_score

from ad import layouts
from ad.images import load_images
from ad.machine import Machine
from conftest import PROJECT, run, write_tiny

sys.path.append(str(PROJECT / "benchmarks"))
import quality
from timing import markdown


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality")
    write_tiny(folder / "sets")
    return folder


def benchmark(folder, *models):
    return subprocess.run(
        [sys.executable, PROJECT / "benchmarks/quality.py", "--data", "sets/stripes", "--models",
         *models, "--seeds", "3", "--epochs", "1", "--work", "work", "--out", "rows.json"],
        cwd=folder, capture_output=True, text=True)


def test_a_row_is_what_infer_says_and_is_not_made_again(folder):
    assert benchmark(folder, "memory").returncode == 0
    row, = json.loads((folder / "rows.json").read_text())["rows"]
    options = ("--data", "sets", "--category", "stripes", "--runs", "work/sets/stripes/runs")
    run("infer.py", *options, cwd=folder)
    with open(folder / "results/scores.csv") as file:
        rows = list(csv.DictReader(file))
    labels, scores = [int(r["label"]) for r in rows], [float(r["score"]) for r in rows]
    assert row["auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert row["recall"] == sum(s > 1 for s, y in zip(scores, labels) if y) / 8
    assert row["alarms"] == sum(s > 1 for s, y in zip(scores, labels) if not y) / 4
    assert (row["set"], row["model"], row["seed"]) == ("sets/stripes", "memory", 3)
    assert row["called"] == 0 and row["peak_mib"] > 100 and row["train_s"] > row["infer_s"] > 0

    again = benchmark(folder, "memory", "bad=--width no")
    assert again.returncode == 1 and "bad, seed 3: failed: train.py: error: argument --width" in \
        again.stdout and "memory, seed" not in again.stdout and not again.stderr
    assert json.loads((folder / "rows.json").read_text())["rows"] == [row]


def test_models_are_names_options_and_votes():
    found = quality.models_of(["vote", "wide=--width 9", "wide+lite0"], ["--minutes", "5"])
    memory = ["--model", "patchcore"]
    lite0 = [*memory, "--backbone", "efficientnet_lite0"]
    assert found == {"vote": {"unet": ["--minutes", "5"], "memory": memory},
                     "wide": {"wide": ["--width", "9", "--minutes", "5"]},
                     "wide+lite0": {"wide": ["--width", "9", "--minutes", "5"], "lite0": lite0}}
    with pytest.raises(SystemExit, match="unknown model net"):
        quality.models_of(["net"], [])


def test_two_sets_of_one_name_are_told(folder):
    write_tiny(folder / "other/sets")
    with pytest.raises(SystemExit, match="called sets/stripes"):
        quality.sets_of([str(folder / "sets"), str(folder / "other/sets")])


def test_best_recall_by_hand():
    def rows(alarms):
        return [{"label": label, "score": score, "prediction": str(int(score > cut))}
                for label, score, cut in (("0", 0.2, 1), ("0", 0.6, 0.5 if alarms else 1),
                                          ("1", 0.1, 1), ("1", 0.4, 1), ("1", 0.7, 1), ("-1", 9, 1)
                                          )]
    assert quality.best_recall(rows(0)) == pytest.approx(1 / 3)  # above 0.6
    assert quality.best_recall(rows(1)) == pytest.approx(2 / 3)  # above 0.2
    assert quality.best_recall(rows(0)[:2]) is None


def test_the_table_by_hand():
    rows = [{"set": place, "model": "m", "options": "o", "seed": seed, "auroc": auroc}
            for place, seed, auroc in (("a", 0, 0.9), ("a", 1, 0.8), ("b", 0, 0.95))]
    lines = markdown(quality.table_lines(rows)).splitlines()
    assert lines[2].startswith("| m `o` | a | 2 | 0.850 (0.100) | - |")
    assert lines[3].startswith("| m `o` | b | 1 | 0.950 | - |")
    assert lines[4].startswith("| m `o` | mean of 2 | | 0.900 ± 0.050 | - |")  # of 0.85 and 0.95


def test_every_benchmark_finds_what_it_imports():
    for path in (PROJECT / "benchmarks").glob("*.py"):
        try:
            importlib.import_module(path.stem)
        except ModuleNotFoundError as error:  # of what benchmarks/requirements.txt would install
            assert path.stem in ("ssim", "sliding_window"), f"{path}: {error}"


def test_the_step_that_is_timed_is_one_of_train_py(tiny, monkeypatch):
    import train
    import train_step
    monkeypatch.setattr("sys.argv", ["train.py", "--data", str(tiny), "--category", "stripes"])
    images = load_images(layouts.find_samples(tiny, "stripes", "train"), 64)
    epoch = train_step.ours(images, train.parse_args(), Machine(torch.device("cpu")))
    assert {"loss", "mse", "ssim", "focal", "dice", "images_per_s"} <= epoch().keys()
