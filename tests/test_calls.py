"""The calls people expect: a folder in, a verdict out; one scale of scores; one Python call."""

import csv
import json
import shlex
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import PROJECT, loaded, run, tiny_image, write_tiny
from PIL import Image

import infer
import train
from ad import InputError
from ad.config import Choice
from ad.detector import Detector
from ad.jobs import how_to_go_on
from ad.options.read import settle_epochs
from ad.sets.files import as_image
from ad.sets.other_layouts import photos_to_look_at

MEMORY = ("--model", "patchcore", "--layers", 8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """photos/{good, bad, today}: 24 normal images, 3 with a blot, 2 without a label."""
    root = tmp_path_factory.mktemp("calls")
    rng = np.random.default_rng(5)
    for folder, count in (("good", 24), ("bad", 3), ("today", 2)):
        (root / "photos" / folder).mkdir(parents=True)
        for index in range(count):
            image = tiny_image(rng)
            if folder == "bad":
                image[20:40, 30:50] = 250
            Image.fromarray(image).save(root / "photos" / folder / f"{index}.png")
    for data in ("photos/good", "photos"):
        result = run("train.py", "--data", data, *MEMORY, cwd=root)
        assert result.returncode == 0, result.stderr
    return root


def rows(folder):
    return list(csv.DictReader((folder / "scores.csv").read_text().splitlines()))


def test_a_folder_of_good_parts_is_a_category(photos):
    config = json.loads((photos / "runs/good/patchcore-seed0/config.json").read_text())
    assert config["category"] == "good" and len(config["train"]) == 24


def test_a_folder_with_good_and_other_folders_has_labels(photos, tmp_path):
    result = run("infer.py", "--data", photos / "photos", "--runs", photos / "runs", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert {(r["id"], r["label"]) for r in rows(tmp_path / "results")} == {
        ("bad/0", "1"), ("bad/1", "1"), ("bad/2", "1"), ("today/0", "-1"), ("today/1", "-1")}
    assert "2 images without labels" in result.stdout
    assert "today/0.png" in result.stdout and "bad/0.png" not in result.stdout


@pytest.mark.parametrize("given, found", [
    (["photos/bad"], 3), (["photos/bad/0.png", "photos/today"], 3), (["photos/*/0.png"], 3)])
def test_images_are_judged_wherever_they_are(photos, tmp_path, given, found):
    result = run("infer.py", "--image", *given, "--category", "good", "--results", tmp_path,
                 "--maps", cwd=photos)
    assert result.returncode == 0, result.stderr
    assert len(rows(tmp_path)) == found == len(list((tmp_path / "maps").rglob("*.png")))
    for row in rows(tmp_path):
        verdict = "ANOMALOUS" if "bad" in row["path"] else "normal"
        assert any(line.startswith(verdict) and line.endswith(row["path"])
                   for line in result.stdout.splitlines()), result.stdout
        assert row["prediction"] == str(int(float(row["score"]) > 1))


def test_the_exit_code_tells(photos, tmp_path):
    shutil.copytree(photos / "photos/today", tmp_path / "today")
    options = ("--runs", photos / "runs", "--category", "good", "--fail-on-anomaly")
    assert run("infer.py", "--image", "today", *options, cwd=tmp_path).returncode == 0
    assert run("infer.py", "--image", photos / "photos/bad", *options, cwd=tmp_path).returncode == 1
    (tmp_path / "today/broken.png").write_bytes(b"no image")
    result = run("infer.py", "--image", "today", *options, cwd=tmp_path)
    assert result.returncode == 2 and "cannot read image today/broken.png" in result.stdout
    assert len(rows(tmp_path / "results")) == 2, "the others are scored"


def test_the_category_may_be_left_out_where_only_one_has_runs(photos, tmp_path):
    result = run("infer.py", "--image", "photos/today", "--results", tmp_path, cwd=photos)
    assert result.returncode == 2 and "one of good, photos" in result.stderr
    shutil.copytree(photos / "runs/good", tmp_path / "runs/good")
    result = run("infer.py", "--image", photos / "photos/today", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_zero_is_typical_and_one_is_the_threshold(photos, tmp_path):
    folder = photos / "runs/good/patchcore-seed0"
    detector = Detector.load(folder)
    raw = np.array(detector.members[0].normal_scores)
    typical, threshold = np.median(raw), np.quantile(raw, 0.99, method="higher")
    paths = sorted((photos / "photos/bad").glob("*.png"))
    run("infer.py", "--image", "photos/bad", "--category", "good", "--results", tmp_path,
        cwd=photos)
    for row in rows(tmp_path):
        expected = (float(row["raw"]) - typical) / (threshold - typical)
        assert float(row["score"]) == pytest.approx(expected, rel=1e-3)
    scores, maps = detector.score(paths)
    assert scores == pytest.approx([float(r["score"]) for r in rows(tmp_path)], rel=2e-2)
    twice = Detector.load(folder, rule="2").score(paths)[0]  # as far again
    assert twice == pytest.approx(scores / 2, rel=1e-6)
    assert all(m.shape == (64, 80) for m in maps) and (scores > detector.threshold).all()


def test_a_detector_takes_what_people_have(photos):
    detector = Detector.load(str(photos / "runs/good/patchcore-seed0"))
    path = photos / "photos/bad/1.png"
    picture = Image.open(path)
    array = np.array(picture)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    scores, _ = detector.score([path, str(path), picture, array, tensor, tensor / 255])
    assert np.ptp(scores) < 1e-6
    for alone in (path, str(path), picture, array, tensor):
        assert detector.score(alone)[0] == pytest.approx(scores[:1])
    assert len(detector.score(torch.stack([tensor] * 2))[0]) == 2
    with pytest.raises(InputError, match="not an image"):
        detector.score([3])


def test_runs_on_good_photographs_alone_can_be_looked_at(photos, tmp_path):
    run_folder, more = photos / "runs/good/patchcore-seed0", ("--results", tmp_path)
    for data, kind in (((), "good/"), (("--data", "photos/today"), "")):  # held out, or unknown
        result = run("visualize.py", "--ckpt", run_folder / "best.pt", *data, *more, cwd=photos)
        assert result.returncode == 0, result.stderr
        assert (tmp_path / "look_good_patchcore-seed0_best.png").is_file()
    config = json.loads((run_folder / "config.json").read_text())
    shown = photos_to_look_at(photos / "photos/good", config)
    assert {s.label for s in shown} == {0} and len(shown) == 24  # a memory is judged by all
    network = config | {"validation": config["validation"][:3]}
    assert len(photos_to_look_at(photos / "photos/good", network)) == 3
    shown = photos_to_look_at(photos / "photos/today", config)
    assert [(s.id, s.label) for s in shown] == [("0", -1), ("1", -1)]
    result = run("visualize.py", "--compare", run_folder, *more, cwd=photos)
    assert result.returncode == 0 and "and no images to test with" in result.stdout
    result = run("visualize.py", "--compare", photos / "runs/photos/patchcore-seed0", *more,
                 cwd=tmp_path)
    line = next(text for text in result.stdout.splitlines() if ": python" in text)
    result = run("infer.py", *shlex.split(line.partition(": ")[2])[2:], cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    result = run("visualize.py", "--report", "--results", tmp_path, cwd=tmp_path)  # its --runs
    assert result.returncode == 0 and "scores are not" not in result.stdout, result.stderr


@pytest.mark.parametrize("values", [float("nan"), 128.0, -1.0])
def test_floats_that_are_no_image_are_refused(photos, values):
    detector = Detector.load(photos / "runs/good/patchcore-seed0")
    with pytest.raises(InputError, match=r"not in \[0, 1\]"):
        detector.score(torch.full((3, 64, 80), values))


def test_files_that_cannot_be_read_say_why(photos, tmp_path):
    (tmp_path / "IMG_1.HEIC").write_bytes(b"ftypheic")
    (tmp_path / "empty.png").touch()
    picture = Image.open(photos / "photos/bad/1.png")
    picture.save(tmp_path / "pages.tif", save_all=True, append_images=[picture])
    picture.save(tmp_path / "a\nnormal  0.00  b.png")
    for words, message in (
            (["IMG_1.HEIC"], "IMG_1.HEIC: it has no known format; HEIC is not read, convert it"),
            (["empty.png"], "empty.png: it is empty")):
        result = run("infer.py", "--image", *words, "--category", "good", "--runs",
                     photos / "runs", cwd=tmp_path)
        assert result.returncode == 2 and message in result.stdout + result.stderr
    result = run("infer.py", "--image", "*.tif", "*.png", "--category", "good", "--runs",
                 photos / "runs", cwd=tmp_path)
    assert "only the first one is read" in result.stdout
    assert "a\\nnormal  0.00  b.png" in result.stdout and "2 images, 2 of them" in result.stdout
    (tmp_path / "phone").mkdir()
    (tmp_path / "IMG_1.HEIC").rename(tmp_path / "phone/IMG_1.HEIC")
    shutil.copytree(photos / "photos", tmp_path / "parts/cog")
    for data, message in (("phone", "HEIC is not read"), ("pages.tif", "is a file; give the"),
                          ("parts", "folders of photographs; give one of them: --data parts/c")):
        result = run("train.py", "--data", data, cwd=tmp_path)
        assert result.returncode == 2 and message in result.stderr, result.stderr


def test_what_reads_the_lines_may_stop(photos, tmp_path):
    command = shlex.join([sys.executable, str(PROJECT / "infer.py"), "--image", "photos/bad",
                          "--category", "good", "--results", str(tmp_path)])
    found = subprocess.run(["bash", "-c", f"{command} | head -1; exit ${{PIPESTATUS[0]}}"],
                           cwd=photos, capture_output=True, text=True, timeout=120)
    assert (found.returncode, found.stderr) == (141, "") and len(rows(tmp_path)) == 3


def test_several_runs_vote_through_the_same_two_methods(photos):
    run("train.py", "--data", "photos/good", *MEMORY, "--seed", 1, cwd=photos)
    folders = [photos / f"runs/good/patchcore-seed{seed}" for seed in (0, 1)]
    vote = Detector.load(folders)
    assert [m.name for m in vote.members] == ["patchcore-seed0", "patchcore-seed1"]
    scores, maps = vote.score(sorted((photos / "photos/bad").glob("*.png")))
    assert (scores > vote.threshold).all() and len(maps) == 3
    shutil.rmtree(folders[1])


def test_minutes_become_a_number_of_epochs_that_is_kept(tmp_path):
    data = write_tiny(tmp_path / "data")
    options = ("--data", data, "--width", 2, "--depth", 1, "--val-every", 1)
    result = run("train.py", *options, "--minutes", 0.1, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "runs/stripes/unet-seed0"
    config = json.loads((folder / "config.json").read_text())
    epochs, log = config["args"]["epochs"], (folder / "log.jsonl").read_text().splitlines()
    assert f"epochs that fit into --minutes 0.1: {epochs}" in result.stdout and len(log) == epochs
    assert config["args"]["minutes"] is None
    result = run("train.py", "--config", folder / "config.json", "--name", "again", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    again = (folder.with_name("again") / "log.jsonl").read_text().splitlines()
    losses = [[json.loads(line)["loss"] for line in lines] for lines in (log, again)]
    assert losses[0] == losses[1]
    result = run("train.py", *options, "--minutes", 0.1, "--resume", cwd=tmp_path)
    assert result.returncode == 0 and "more than" not in result.stdout, result.stderr
    kept = json.loads((folder / "config.json").read_text())["args"]
    assert (kept["epochs"], kept["minutes"]) == (epochs, None)
    result = run("train.py", *options, "--minutes", 1, "--epochs", 2, cwd=tmp_path)
    assert result.returncode == 2 and "exclude each other" in result.stderr


def test_every_run_has_its_own_minutes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [
        "train.py", "--data", str(write_tiny(tmp_path / "data")), "--width", "2", "--depth", "1",
        "--minutes", "1", "--seeds", "0", "1"])
    given = []
    monkeypatch.setattr("ad.training.epochs_in", lambda seconds, *_: given.append(seconds) or 1)
    monkeypatch.setattr(train, "started", time.perf_counter())
    train.main(train.parse_args())
    assert 0 < given[0] <= given[1] + 0.5 < 61


@pytest.mark.parametrize("script, line", [
    ("train.py", ["--help"]), ("infer.py", ["--help-all"]), ("visualize.py", ["--help"]),
    ("train.py", ["--epoch", "5"]), ("infer.py", ["--image", "missing.png"]),
    ("train.py", ["--data", "missing"]), ("infer.py", ["--data", "missing", "--all"])])
def test_options_are_answered_before_torch_is_imported(script, line, tmp_path):
    assert "torch" not in loaded(script, *line, cwd=tmp_path)


def test_a_memory_scores_without_torchvision_scikit_learn_or_matplotlib(photos, tmp_path):
    found = loaded("infer.py", "--image", "photos/today", "--category", "good", "--results",
                   tmp_path, cwd=photos)
    assert "torch" in found and not {"torchvision", "sklearn", "matplotlib"} & set(found)


@pytest.mark.parametrize("script", ["train.py", "infer.py", "visualize.py"])
def test_help_is_short_and_help_all_is_not(script, tmp_path):
    short, everything = (run(script, option, cwd=tmp_path).stdout
                         for option in ("--help", "--help-all"))
    assert all(len(line) <= 100 for line in short.splitlines())
    few, many = (text.count("\n  --") for text in (short, everything))
    assert few <= 14 and few < many


def test_no_option_is_taken_for_another(tmp_path):
    for line, hint in ((["--epoch", "5"], "did you mean --epochs?"),
                       (["--categroy", "x"], "did you mean --category?")):
        result = run("train.py", *line, cwd=tmp_path)
        assert result.returncode == 2 and hint in result.stderr, result.stderr


def test_a_near_miss_of_a_category_is_named(photos, tiny, tmp_path):
    result = run("train.py", "--data", tiny, "--category", "stripe", *MEMORY, cwd=tmp_path)
    assert result.returncode == 2 and "did you mean stripes?" in result.stderr


@pytest.mark.parametrize("option", [["--binary"], ["--spot-check", "0"], ["--separately"]])
def test_what_single_images_cannot_have_is_refused(photos, option):
    result = run("infer.py", "--image", "photos/today", "--category", "good", *option, cwd=photos)
    assert result.returncode == 2 and "not for --image" in result.stderr


@pytest.mark.parametrize("tested", (False, True))
@pytest.mark.parametrize("choice", (
    Choice(category="good"), Choice(category="pool", pool=True), Choice(merged=("cut", "hole"))))
def test_what_training_advises_is_taken(photos, choice, tested, monkeypatch):
    line, = how_to_go_on(replace(choice, data=str(photos)), tested, None).splitlines()
    words = shlex.split(line.partition(": ")[2].replace("FOLDER", str(photos / "photos/today")))
    monkeypatch.setattr("sys.argv", words[1:])
    args = infer.parse_args()
    assert args.category == (choice.category or "cut+hole")
    assert len(args.image or ()) == (0 if tested else 2)


@pytest.mark.parametrize("given, images, expected", [
    ({}, 96, (467, 9, 9)), ({}, 14, (2800, 56, 56)), ({"epochs": 12}, 14, (12, 4, 4)),
    ({"val_every": 1, "save_every": 2}, 14, (2800, 1, 2))])
def test_epochs_validations_and_saves_suit_the_number_of_images(given, images, expected):
    args = Namespace(**{"epochs": None, "val_every": None, "save_every": None, "batch": 8} | given)
    settle_epochs(args, images)
    assert (args.epochs, args.val_every, args.save_every) == expected


@pytest.mark.parametrize("script, options, message", [
    ("train.py", ["--name", "a/b"], "--name a/b must be the name of one folder"),
    ("train.py", ["--name", ".."], "--name .. must be the name of one folder"),
    ("train.py", ["--error", "elbo"], "--error elbo: this model has no map called elbo"),
    ("infer.py", ["--results", "file"], "--results file is a file, not a folder")])
def test_what_cannot_work_is_told_before_any_work(tmp_path, script, options, message):
    (tmp_path / "file").touch()
    tiny = write_tiny(tmp_path / "data")
    result = run(script, "--data", tiny, "--category", "stripes", *options, cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr
    assert not (tmp_path / "runs").exists()


def test_an_array_without_pixels_is_no_image():
    with pytest.raises(InputError, match="not an image: ndarray: it has no pixels"):
        as_image(np.zeros((0, 0, 3), np.uint8), 64)
