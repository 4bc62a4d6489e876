"""The three scripts, run as a user runs them, on a tiny data set."""

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from ad import checkpoint
from ad.judging import aurocs
from ad.sets.votes import vote_weights
from conftest import PROJECT, REPEATABLE, TINY_TRAINING, run, write_tiny


def train(cwd, data, *more, name="stripes"):
    result = run("train.py", "--data", data, "--category", name, *TINY_TRAINING, *more, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """A folder with runs/stripes/unet-seed0 of six epochs and results/ of its test split."""
    cwd = tmp_path_factory.mktemp("work")
    output = train(cwd, tiny, "--epochs", 6, "--verbose")
    assert f"{PROJECT}/infer.py --category stripes --data {tiny}\n" in output
    assert "stripes: calibration border" in output and output.count(": epoch ") == 6
    result = run("infer.py", "--data", tiny, "--category", "stripes", "--maps", cwd=cwd)
    assert result.returncode == 0, result.stderr
    return cwd, result.stdout


def folder_of(cwd):
    return cwd / "runs/stripes/unet-seed0"


def test_run_folder(trained, tiny):
    folder = folder_of(trained[0])
    assert {p.name for p in folder.iterdir()} == {
        "config.json", "log.jsonl", "best.pt", "last.pt", "epoch_2.pt", "epoch_4.pt", "epoch_6.pt"}
    config = json.loads((folder / "config.json").read_text())
    names = config["train"] + config["validation"]
    assert sorted(names) == [f"stripes/train/good/{i:03}.png" for i in range(12)]
    assert len(config["validation"]) == 2 and config["args"]["width"] == 4
    assert {"python", "torch", "device", "git_commit"} <= config["environment"].keys()
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in log] == [1, 2, 3, 4, 5, 6]
    assert all(np.isfinite(r["loss"]) and r["images_per_s"] > 0 for r in log)
    assert [r["epoch"] for r in log if "auroc_small" in r] == [2, 4, 6]
    assert log[-1]["loss"] < log[0]["loss"]


def test_best_is_the_best_validated_epoch_and_calibrated(trained):
    folder = folder_of(trained[0])
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    best = max((r for r in log if "auroc" in r), key=lambda r: (r["auroc"], -r["val_loss"]))
    saved = checkpoint.load(folder / "best.pt")
    assert saved["epoch"] == best["epoch"]
    # With the windows and the size of the final score, which validation in between has not.
    assert saved["val_auroc"] == aurocs(saved["calibration"])["auroc"]
    assert len(saved["calibration"]["scores"]) == 2
    assert set(saved["calibration"]["mean"]) == {"mse@32", "ssim@32", "mse@64", "ssim@64"}


def test_scores_metrics_and_maps(trained, tiny):
    cwd, output = trained
    rows = list(csv.DictReader(open(cwd / "results/scores.csv")))
    assert list(rows[0]) == ["id", "category", "defect", "label", "score", "prediction", "raw",
                             "path"]
    assert [r["id"] for r in rows] == [f"{d}/{i:03}" for d in ("blot", "gap", "good")
                                       for i in range(4)]
    metrics = json.loads((cwd / "results/metrics.json").read_text())
    result = metrics["categories"]["stripes"]
    scores = [float(r["score"]) for r in rows]
    expected = roc_auc_score([int(r["label"]) for r in rows], scores)
    assert result["auroc"] == pytest.approx(expected) and f"{expected:.3f}" in output
    assert "mean" not in metrics  # of a single category
    assert all(0 <= result[k] <= 1 for k in ("ap", "f1", "pixel_auroc", "pro", "tpr", "tnr"))
    assert result["threshold"] == 1 and result["rule"] == "quantile:0.99"
    assert [int(s > 1) for s in scores] == [int(r["prediction"]) for r in rows]
    # Of two normal images 0 is between them, and 1 the strangest of them and of what was learned.
    known = checkpoint.load(folder_of(cwd) / "best.pt")["calibration"]
    raw, middle = np.array([float(r["raw"]) for r in rows]), np.mean(known["scores"])
    top = max(known["scores"] + known["taught"])
    np.testing.assert_allclose(scores, (raw - middle) / (top - middle), atol=1e-3)
    for row in rows:
        map_ = np.asarray(Image.open(cwd / "results/maps/stripes" / f"{row['id']}.png"))
        photo = np.asarray(Image.open(tiny / "stripes/test" / f"{row['id']}.png"))
        assert map_.shape[1] == 400 and 190 < len(map_) < 300  # for the text below
        same = (map_[:64, 160:240] == photo).all(-1)
        assert same.mean() > 0.5 and map_[64:128, 160:240].std() > 1


def test_infer_needs_the_checkpoint_alone(trained, tiny, tmp_path):
    """Without the training images: same scores; with another top-k: an error that names them."""
    shutil.copytree(trained[0] / "runs", tmp_path / "runs")
    shutil.copytree(tiny, tmp_path / "data")
    for image in (tmp_path / "data/stripes/train/good").iterdir():
        image.unlink()
    path = folder_of(tmp_path) / "best.pt"
    saved = checkpoint.load(path)
    saved["config"]["root"] = str(tmp_path / "data")
    checkpoint.save(path, saved)
    result = run("infer.py", "--data", "data", "--all", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    old, new = ([r["score"] for r in csv.DictReader(open(d / "results/scores.csv"))]
                for d in (trained[0], tmp_path))
    assert old == new
    before = (tmp_path / "results/scores.csv").read_bytes()
    result = run("infer.py", "--data", "data", "--all", "--topk", 0.1, cwd=tmp_path)
    assert result.returncode == 2 and "say where they are with --data DIR" in result.stderr
    assert (tmp_path / "results/scores.csv").read_bytes() == before


def test_data_that_moved_serve_for_all_that_a_run_names(trained, tiny, tmp_path):
    """The same scores, masks and thresholds as where they were; without --data, one line."""
    shutil.copytree(trained[0] / "runs", tmp_path / "runs")
    shutil.copytree(tiny, tmp_path / "old")
    for path in folder_of(tmp_path).glob("*.pt"):
        saved = checkpoint.load(path)
        saved["config"]["root"] = str(tmp_path / "old")
        checkpoint.save(path, saved)
    options = (["--sigma", 2, "--threshold", "best-f1", "--masks"], ["--ckpt", "epoch_4.pt"])
    found = []
    for data in ("old", "new"):
        for more in options:
            result = run("infer.py", "--data", data, "--category", "stripes", *more, cwd=tmp_path)
            assert result.returncode == 0, result.stderr
            found.append([line.rsplit(",", 1)[0] for line in
                          (tmp_path / "results/scores.csv").read_text().splitlines()])
        if data == "old":
            (tmp_path / "old").rename(tmp_path / "new")
    assert found[:2] == found[2:]
    line = ("--data", "new", "--ckpt", "epoch_4.pt")
    result = run("visualize.py", *line, "--count", 1, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    result = run("visualize.py", "--ckpt", "epoch_4.pt", cwd=tmp_path,
                 env={**os.environ, "AD_DATA": "new"})
    assert result.returncode == 0, result.stderr
    result = run("visualize.py", *line[2:], cwd=tmp_path)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "none of the images of this run" in result.stderr and "--data DIR" in result.stderr


def test_one_category_that_fails_does_not_stop_the_others(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "two words")
    few = tmp_path / "two words/few/train/good"
    few.mkdir(parents=True)
    for index in range(3):
        shutil.copy(tiny / f"stripes/train/good/{index:03}.png", few)
    shutil.copytree(few, tmp_path / "two words/few/test/good")
    common = ("--data", "two words", "--all", *TINY_TRAINING, "--epochs", 2)
    result = run("train.py", *common, cwd=tmp_path)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "few, seed 0: there are only 3 different normal images" in result.stderr
    assert (folder_of(tmp_path) / "best.pt").is_file()
    # What is advised can be pasted.
    start = "to score the test images: "
    line, = [text for text in result.stdout.splitlines() if text.startswith(start)]
    words = shlex.split(line.removeprefix(start))
    assert words[:2] == ["python", str(PROJECT / "infer.py")]  # where train.py was started, too
    result = run("infer.py", *words[2:], cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    result = run("infer.py", "--data", "two words", "--category", "few", cwd=tmp_path)
    assert result.returncode == 2
    words = shlex.split(result.stderr.split("train one: ")[1])
    assert words[2:] == ["--category", "few", "--data", "two words"]


def test_other_scoring_is_calibrated_anew(trained, tiny, tmp_path):
    common = ("--data", tiny, "--category", "stripes", "--runs", trained[0] / "runs")
    result = run("infer.py", *common, "--topk", 0.2, "--windows", 0, "--error", "ssim",
                 "--results", tmp_path, cwd=tmp_path)
    assert result.returncode == 0 and "judging by its 2 validation images" in result.stdout
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["categories"]["stripes"]["scoring"] == {
        "windows": [0], "error": "ssim", "topk": 0.2}  # the rest is each member's own


def test_single_files(trained, tiny, tmp_path):
    rows = {r["path"]: r["score"] for r in csv.DictReader(open(trained[0] / "results/scores.csv"))}
    path = tiny / "stripes/test/blot/002.png"
    result = run("infer.py", "--image", path, "--runs", trained[0] / "runs", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (word, score, _), = [line.split() for line in result.stdout.splitlines()
                         if line.endswith(f"  {path}")]
    assert word == ("ANOMALOUS" if float(rows[str(path)]) > 1 else "normal")
    assert float(score) == pytest.approx(float(rows[str(path)]), abs=0.006)
    (tmp_path / "broken.png").write_bytes(b"no image")
    bad = run("infer.py", "--image", "broken.png", "--runs", trained[0] / "runs", "--maps",
              cwd=tmp_path)
    assert bad.returncode == 2 and bad.stderr == "error: none of the images can be read\n"
    assert "cannot read image broken.png" in bad.stdout
    row, = csv.DictReader(open(tmp_path / "results/scores.csv"))  # of the run before
    assert row["path"] == str(path) and float(row["score"]) == pytest.approx(
        float(rows[str(path)]), abs=1e-4)


def test_same_seed_gives_the_same_weights_and_scores(trained, tiny, tmp_path):
    train(tmp_path, tiny, "--epochs", 6)
    result = run("infer.py", "--data", tiny, "--category", "stripes", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    one, two = (checkpoint.load(folder_of(cwd) / "best.pt") for cwd in (trained[0], tmp_path))
    assert one["model"].keys() == two["model"].keys()
    assert all(torch.equal(one["model"][k], two["model"][k]) for k in one["model"])
    assert one["calibration"]["scores"] == two["calibration"]["scores"]
    assert ((trained[0] / "results/scores.csv").read_bytes()
            == (tmp_path / "results/scores.csv").read_bytes())


def test_resumed_run_equals_an_uninterrupted_one(trained, tiny, tmp_path):
    train(tmp_path, tiny, "--epochs", 4)
    folder = folder_of(tmp_path)
    with open(folder / "log.jsonl", "a") as log:  # killed between log line and checkpoint
        log.write('{"epoch": 5, "loss": 1.0}\n')
    train(tmp_path, tiny, "--epochs", 6, "--resume")

    def losses(path):
        return [json.loads(line)["loss"] for line in open(path / "log.jsonl")]
    assert losses(folder) == losses(folder_of(trained[0]))
    one, two = (checkpoint.load(folder_of(cwd) / "last.pt") for cwd in (trained[0], tmp_path))
    assert all(torch.equal(one["model"][k], two["model"][k]) for k in one["model"])


def test_another_seed_gives_another_run(trained, tiny):
    cwd = trained[0]
    train(cwd, tiny, "--epochs", 2, "--seed", 1, "--name", "other")
    one = checkpoint.load(folder_of(cwd) / "best.pt")["model"]["head.weight"]
    two = checkpoint.load(cwd / "runs/stripes/other/best.pt")["model"]["head.weight"]
    assert not torch.equal(one, two)
    shutil.rmtree(cwd / "runs/stripes/other")


def test_early_stopping(tiny, tmp_path):
    output = train(tmp_path, tiny, "--epochs", 40, "--val-every", 1, "--patience", 1, "--lr", 10,
                   "--precision", "fp32")
    assert "stopped early: 1 validations without a better one" in output
    assert len((folder_of(tmp_path) / "log.jsonl").read_text().splitlines()) < 40


def test_seeds_make_runs_that_vote(tiny, tmp_path):
    train(tmp_path, tiny, "--epochs", 2, "--seeds", 0, 1)
    tables = []
    for members in (["--members", "unet-seed0"], ["--members", "unet-seed1"], []):
        result = run("infer.py", "--data", tiny, "--category", "stripes", *members, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert "expected false alarms 33.3%, at most 68.4%" in result.stdout or len(tables) == 2
        rows = list(csv.DictReader(open(tmp_path / "results/scores.csv")))
        tables.append(np.array([[float(r[key]) for key in ("raw", "score")] for r in rows]))
    saved = [checkpoint.load(tmp_path / f"runs/stripes/unet-seed{s}/best.pt") for s in (0, 1)]
    weights = np.array(vote_weights([run["val_auroc"] for run in saved], [2, 2]))
    # Standard deviations from a member's typical image to its threshold: what its score 1 is worth.
    units = np.array([(max(known["scores"] + known["taught"]) - np.mean(known["scores"]))
                      / np.std(known["scores"]) for known in (run["calibration"] for run in saved)])
    for column, shares in enumerate((weights, weights * units / (weights @ units))):
        np.testing.assert_allclose(tables[2][:, column], shares @ np.stack(tables[:2])[..., column],
                                   rtol=1e-3, atol=1e-3)
    assert not np.allclose(tables[0], tables[1])
    # A member that does not load is an error, not a smaller ensemble.
    path = tmp_path / "runs/stripes/unet-seed1/best.pt"
    path.write_bytes(path.read_bytes()[:1000])
    result = run("infer.py", "--data", tiny, "--category", "stripes", cwd=tmp_path)
    assert result.returncode == 2 and "unet-seed1/best.pt" in result.stderr


def test_a_memory_is_fitted_scored_and_shown_and_votes(trained, tiny, tmp_path):
    """--model patchcore through the three scripts, alone and with the U-Net."""
    shutil.copytree(trained[0] / "runs", tmp_path / "runs")
    command = ["--data", tiny, "--category", "stripes"]
    result = run("train.py", *command, "--model", "patchcore", "--coreset", 0.5, "--error", "fused",
                 "--verbose", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "patches of 54 values" in result.stdout and "alignment of normal images" in result.stdout
    folder = tmp_path / "runs/stripes/patchcore-seed0"
    assert {p.name for p in folder.iterdir()} == {"config.json", "log.jsonl", "best.pt"}
    config = json.loads((folder / "config.json").read_text())["args"]
    assert config["coreset"] == 0.5 and config["backbone"] == "gradients"
    assert config["windows"] == [0] and config["width"] is None
    assert json.loads((folder / "log.jsonl").read_text())["auroc"] > 0.8
    scores = {}
    for name, more in (("unet", ["--members", "unet-seed0"]),
                       ("memory", ["--members", "patchcore-seed0"]),
                       ("ssim", ["--members", "patchcore-seed0", "--error", "ssim"]),
                       ("both", [])):
        result = run("infer.py", *command, *more, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        with open(tmp_path / "results/scores.csv") as file:
            scores[name] = np.array([[float(row[key]) for key in ("raw", "score")]
                                     for row in csv.DictReader(file)]).T
    # Maps of a U-Net are nothing to a memory.
    np.testing.assert_allclose(scores["ssim"], scores["memory"], atol=1e-3)
    saved = [checkpoint.load(tmp_path / f"runs/stripes/{name}-seed0/best.pt")
             for name in ("unet", "patchcore")]
    weights = vote_weights([part["val_auroc"] for part in saved], [2, 12])
    np.testing.assert_allclose(scores["both"][0], weights[0] * scores["unet"][0] + weights[1] *
                               scores["memory"][0], atol=2e-6)
    # The vote: each in its standard deviations of normal images.
    normal = [part["calibration"]["scores"] for part in saved]
    votes = sum(w * (scores[name][0] - np.mean(n)) / np.std(n)
                for w, name, n in zip(weights, ("unet", "memory"), normal))
    metrics = json.loads((tmp_path / "results/metrics.json").read_text())["categories"]["stripes"]
    typical, threshold = metrics["limits"]["typical"], metrics["limits"]["threshold"]
    np.testing.assert_allclose(scores["both"][1], (votes - typical) / (threshold - typical),
                               rtol=1e-3, atol=1e-3)
    assert metrics["members"] == dict(zip(("patchcore-seed0", "unet-seed0"), weights[::-1]))
    result = run("visualize.py", "--report", cwd=tmp_path)  # each member scores in its own way
    assert result.returncode == 0 and "scores are not those" not in result.stdout, result.stderr
    result = run("visualize.py", "--ckpt", "patchcore-seed0/best.pt", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "does not reconstruct" in result.stdout
    assert (tmp_path / "results/look_stripes_patchcore-seed0_best.png").is_file()
    result = run("train.py", *command, "--model", "patchcore", "--name", "again", "--coreset", 0.5,
                 cwd=tmp_path)
    first, second = (checkpoint.load(folder.parent / name / "best.pt")
                     for name in ("patchcore-seed0", "again"))
    assert torch.equal(first["model"]["bank"], second["model"]["bank"])
    assert first["calibration"]["scores"] == second["calibration"]["scores"]


def test_repair_trains_scores_with_its_mask_and_resumes_exactly(tiny, tmp_path):
    options = ("--objective", "repair", "--crop", 0, "--windows", 0, "--schedule", "cosine",
               "--augment", "--damage", "dropout", "stain", "--epochs", 12, *REPEATABLE)
    train(tmp_path, tiny, *options)
    folder = tmp_path / "runs/stripes/halves"
    command = [sys.executable, PROJECT / "train.py", "--data", tiny, "--category", "stripes",
               *TINY_TRAINING, *options, "--name", "halves"]
    process = subprocess.Popen([str(part) for part in command], cwd=tmp_path,
                               env=os.environ | {"OMP_NUM_THREADS": "1"})
    while not (folder / "epoch_2.pt").is_file():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (folder / "epoch_12.pt").is_file()
    train(tmp_path, tiny, *options, "--name", "halves", "--resume")
    whole, halves = (checkpoint.load(tmp_path / f"runs/stripes/{name}/last.pt")
                     for name in ("unet-seed0", "halves"))
    assert all(torch.equal(v, halves["model"][k]) if torch.is_tensor(v) else v == halves["model"][k]
               for k, v in whole["model"].items())
    # It is scored in every way in which it has seen normal images; a memory is as they are.
    best = checkpoint.load(tmp_path / "runs/stripes/unet-seed0/best.pt")
    flips = best["calibration"]["scoring"]["flips"]
    assert "up-down" in flips and flips == tuple(best["config"]["args"]["symmetries"])
    assert whole["config"]["args"]["error"] == "fused" and whole["calibration"] is None
    assert whole["model_args"]["damage"] == ["dropout", "stain"]
    best = checkpoint.load(tmp_path / "runs/stripes/unet-seed0/best.pt")
    names = {n.split("@")[0] for n in best["calibration"]["mean"]}
    # The memory of features is left out where it makes the pseudo-anomaly AUROC lower.
    kept = best["calibration"]["scoring"]["error"] == "fused"
    assert names == {"ssim", "mask"} | ({"neighbours", "gaussian"} if kept else set())
    assert any(key.startswith("memory.") for key in best["model"]) == kept
    # The memory is of the weights beside it; an epoch's weights get theirs when they are scored.
    early = checkpoint.load(tmp_path / "runs/stripes/halves/epoch_2.pt")["model"]
    assert not any(key.startswith("memory.") for key in early)
    log = [json.loads(line) for line in
           (tmp_path / "runs/stripes/unet-seed0/log.jsonl").read_text().splitlines()]
    assert all(0 < r["dice"] < 1 and r["focal"] > 0 for r in log)
    for script, arguments in (("infer.py", ["--category", "stripes", "--members", "halves"]),
                              ("visualize.py", ["--ckpt", "halves/best.pt"]),
                              ("infer.py", ["--category", "stripes", "--members", "halves",
                                            "--ckpt", "epoch_12.pt"])):
        result = run(script, "--data", tiny, *arguments, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    assert "judging by its 2 validation images" in result.stdout
    rows = (tmp_path / "results/scores.csv").read_text()
    result = run("infer.py", "--data", tiny, "--category", "stripes", "--members", "halves",
                 "--ckpt", "last.pt", cwd=tmp_path)
    assert "judging by" in result.stdout
    scores = [[float(r["score"]) for r in csv.DictReader(text.splitlines())]
              for text in (rows, (tmp_path / "results/scores.csv").read_text())]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)  # the same memory, made twice


def test_odd_images_train_and_score(tmp_path):
    """Grey, RGBA, 16-bit, palette and non-square images of different sizes in one folder."""
    write_tiny(tmp_path / "data", "odd")
    files = sorted((tmp_path / "data/odd/train/good").iterdir())
    files += sorted((tmp_path / "data/odd/test").rglob("*.png"))
    for number, path in enumerate(files):
        image = Image.open(path)
        image = image.resize((64 + 8 * (number % 3), 64 + 4 * (number % 5)))
        kind = number % 4
        if kind == 3:
            image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        (image if kind == 3 else image.convert(("L", "RGBA", "P")[kind])).save(path)
        mask = tmp_path / "data/odd/ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        if mask.exists():
            Image.open(mask).resize(image.size).save(mask)
    train(tmp_path, "data", "--epochs", 2, name="odd")
    result = run("infer.py", "--data", "data", "--all", "--maps", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = list(csv.DictReader(open(tmp_path / "results/scores.csv")))
    assert len(rows) == 12 and all(np.isfinite(float(r["score"])) for r in rows)


def test_all_trains_and_scores_every_category(tmp_path):
    write_tiny(tmp_path / "data", "one")
    write_tiny(tmp_path / "data", "two", train=8, seed=1)
    env = os.environ | {"AD_DATA": "data"}
    result = run("train.py", "--all", "--epochs", 2, *TINY_TRAINING, cwd=tmp_path, env=env)
    assert result.returncode == 0 and "infer.py --all" in result.stdout, result.stderr
    result = run("infer.py", "--all", "--topk", 0.005, cwd=tmp_path, env=env)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "results/metrics.json").read_text())
    pair = [metrics["categories"][name]["auroc"] for name in ("one", "two")]
    assert metrics["mean"]["auroc"] == pytest.approx(np.mean(pair))
    shutil.rmtree(tmp_path / "runs/one")
    result = run("infer.py", "--all", cwd=tmp_path, env=env)
    assert result.returncode == 0 and "not trained, not scored: one" in result.stdout


def test_visualize(trained, tiny):
    cwd = trained[0]
    result = run("visualize.py", "--ckpt", "epoch_4.pt", "--count", 2, cwd=cwd)
    assert result.returncode == 0, result.stderr
    assert "verdict: " in result.stdout
    for name in ("contrast", "variety", "sharpness", "trace", "copied"):
        assert any(line.startswith(name) for line in result.stdout.splitlines())
    picture = np.asarray(Image.open(cwd / "results/look_stripes_unet-seed0_epoch_4.png"))
    assert min(picture.shape[:2]) > 300 and picture.std() > 10
    result = run("visualize.py", "--ckpt", "epoch_4.pt", "--ids", "gap/001", "002.png", cwd=cwd)
    assert result.returncode == 0, result.stderr
    taller = np.asarray(Image.open(cwd / "results/look_stripes_unet-seed0_epoch_4.png"))
    assert taller.shape[0] > 1.3 * picture.shape[0]  # 1 + 3 test images instead of 2


ERRORS = [
    ("train.py", ["--category", "carpet"], "no data at data/mvtec_ad.*--data demo"),
    ("train.py", ["--category", "x", "--data", "TINY"], "unknown category 'x'.*stripes"),
    ("train.py", ["--data", "TWO"], "give --all, or --category NAME, one of one, two"),
    ("train.py", ["--data", "TINY", "--category", "a", "--all"], "--category NAME, --all, --pool"),
    ("train.py", ["--category", "stripes", "--data", "TINY"], "exists; --resume.*--overwrite"),
    ("train.py", ["--category", "stripes", "--data", "TINY", "--resume", "--width", "8"],
     "other arguments.*--width 4"),
    ("train.py", ["--category", "stripes", "--data", "TINY", "--epochs", "0"], "--epochs must be"),
    ("train.py", ["--category", "stripes", "--data", "TINY", "--seeds", "1", "--name", "a"],
     "--seeds makes several runs"),
    ("train.py", ["--category", "stripes", "--data", "TINY", "--topk", "2"], "--topk must be"),
    ("train.py", ["--category", "stripes", "--data", "TINY", "--model", "gan"],
     "unknown model .gan.; there are"),
    ("train.py", ["--category", "stripes", "--data", "TINY", "--model", "patchcore", "--width",
                  "4"],
     "--width is not an option of --model patchcore"),
    ("train.py", ["--category", "stripes", "--data", "TINY", "--coreset", "0.2"],
     "--coreset is not an option of --model unet"),
    ("train.py", ["--category", "stripes", "--data", "TINY", "--pretrained"],
     "--pretrained is not an option of --model unet"),
    ("train.py", ["--category", "stripes", "--data", "TINY", "--model", "patchcore", "--windows",
                  "64"], "--windows: a memory looks at whole images"),
    ("train.py", ["--category", "stripes", "--data", "TINY", "--model", "patchcore", "--weights",
                  "no.pth", "--backbone", "resnet18"], "no file .*no.pth to take"),
    ("train.py", ["--category", "stripes", "--data", "TINY", "--model", "patchcore", "--position",
                  "here"], "--position must be auto, free or a radius"),
    ("train.py", ["--category", "stripes", "--data", "BAD"], "cannot read image .*005.png"),
    ("infer.py", ["--all", "--data", "TINY", "--topk", "0"], "--topk must be in .0, 1., got 0"),
    ("infer.py", ["--all", "--data", "TINY", "--topk", "much"], "invalid float value"),
    ("infer.py", ["--category", "x", "--data", "TINY"],
     "unknown category .x. in .*there are: stripes"),
    ("infer.py", ["--all", "--data", "TINY", "--members", "y"], "no run y with a best.pt"),
    ("infer.py", ["--all", "--data", "TINY", "--ckpt", "epoch_9.pt"], "no checkpoint .*epoch_9"),
    ("infer.py", ["--category", "stripes", "--image", "no.png"], "--image: there is no no.png"),
    ("infer.py", ["--all", "--data", "TINY", "--profile"], "unknown option|unrecognized"),
    ("infer.py", ["--all", "--data", "TINY", "--threshold", "x"], "--threshold must be"),
    ("visualize.py", ["--ckpt", "epoch_99.pt"], "no checkpoint 'epoch_99.pt'"),
    ("visualize.py", ["--ckpt", "wrong.pt"], "wrong.pt does not fit its model"),
    ("visualize.py", ["--ckpt", "best.pt", "--ids", "nope"], "no test image 'nope'"),
]


@pytest.mark.parametrize("script, arguments, message", ERRORS)
def test_bad_input_is_one_line_and_exit_code_2(script, arguments, message, trained, tiny, tmp_path):
    import re
    if "BAD" in arguments:
        write_tiny(tmp_path / "bad")
        file = tmp_path / "bad/stripes/train/good/005.png"
        file.write_bytes(file.read_bytes()[:300])
        arguments = arguments + ["--overwrite"]
    if "TWO" in arguments:
        write_tiny(write_tiny(tmp_path / "two", "one"), "two")
    if "wrong.pt" in arguments:
        saved = checkpoint.load(folder_of(trained[0]) / "best.pt")
        checkpoint.save(trained[0] / "wrong.pt", saved | {
            "model_args": saved["model_args"] | {"width": 8}})
    places = {"TINY": str(tiny), "BAD": str(tmp_path / "bad"), "TWO": str(tmp_path / "two")}
    env = {k: v for k, v in os.environ.items() if k != "AD_DATA"}
    before = {p: p.read_bytes() for p in folder_of(trained[0]).iterdir()}
    result = run(script, *(places.get(a, a) for a in arguments), cwd=trained[0], env=env)
    assert result.returncode == 2, result.stdout + result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    assert re.search(message, lines[0]), lines[0]
    assert before == {p: p.read_bytes() for p in folder_of(trained[0]).iterdir()}
