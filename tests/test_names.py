"""Folders, names and ids as people have them: figures do not depend on what things are called."""

import csv
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import visualize
from ad import InputError, layouts, metrics
from ad.folders import SYSTEM, files_below
from ad.samples import NORMAL, UNLABELLED
from ad.sets import other_layouts, several
from ad.sets.files import named, single_files
from ad.sets.other_layouts import list_images
from conftest import run, tiny_image, write_tiny

MEMORY = ("--model", "patchcore", "--layers", 8)


def folder_of(root, *files):
    for number, file in enumerate(files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tiny_image(np.random.default_rng(number))).save(root / file)
    return root


def ids(root, category="part", split="test"):
    return [s.id for s in layouts.find_samples(root, category, split)]


PLAIN = ("part/train/good/0.png", "part/test/good/0.png", "part/test/cut/0.png")


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "@eaDir", ".Trash-1000", "__MACOSX",
                                  "#recycle", "$RECYCLE.BIN", "lost+found"])
def test_hidden_folders_are_no_categories_defects_or_classes(tmp_path, name):
    root = folder_of(tmp_path / "a", *PLAIN, f"part/test/{name}/1.png", "part/test/cut/._0.png",
                     f"part/test/cut/{name}/1.png", f"{name}/train/good/0.png",
                     f"{name}/test/cut/0.png")
    assert layouts.find_categories(root) == ["part"] and ids(root) == ["cut/0", "good/0"]
    root = folder_of(tmp_path / "b", "cat/0.png", "dog/0.png", f"{name}/0.png", f"cat/{name}/0.png")
    assert [s.id for s in other_layouts.class_samples(root, "b")] == ["cat/0", "dog/0"]


@pytest.mark.parametrize("stray", ["part/x.png", "x.png", "other/x.png", "train/x.png",
                                   "proliv/x.png", "part/train/x.png", "test/x.png"])
def test_a_stray_image_does_not_change_the_layout(tmp_path, stray):
    root = folder_of(tmp_path, *PLAIN, stray)
    assert layouts.layout(root) == "mvtec" and layouts.find_categories(root) == ["part"]
    assert ids(root) == ["cut/0", "good/0"] and ids(root, split="train") == ["good/0"]
    with pytest.raises(InputError, match="is one category.*--category part"):
        layouts.find_categories(folder_of(root / "part", "train/x.png").parent / "part")


def test_the_same_name_with_two_suffixes_is_two_images_with_their_own_masks(tmp_path):
    root = folder_of(tmp_path, *PLAIN, "part/test/cut/0.jpg", "part/test/cut/0.png.png",
                     "part/test/cut/v1.2.png", "part/test/cut/line/0.png",
                     "part/ground_truth/cut/0.jpg_mask.png", "part/ground_truth/cut/0_mask.png",
                     "part/ground_truth/cut/line/0_mask.png",
                     "part/test/cut/@.png", "part/ground_truth/cut/@_mask.png")
    samples = layouts.find_samples(root, "part", "test")
    assert {s.id: s.mask and s.mask.relative_to(root / "part/ground_truth").as_posix()
            for s in samples} == {
        "cut/0.jpg": "cut/0.jpg_mask.png", "cut/0.png": "cut/0_mask.png", "cut/0.png.png": None,
        "cut/v1.2": None, "cut/@": "cut/@_mask.png", "cut/line/0": "cut/line/0_mask.png",
        "good/0": None}
    for sample in samples:
        assert named(samples, [sample.id]) == named(samples, [f"part/{sample.id}"]) == [sample]
    assert [s.id for s in named(samples, ["0.png", "v1.2.png"])] == [
        "cut/0.png", "cut/line/0", "good/0", "cut/v1.2"]
    with pytest.raises(InputError, match="no test image 'cut/0'; ids look like cut/0.jpg"):
        named(samples, ["cut/0"])


def test_single_files_of_one_name_have_their_own_ids():
    files = [Path(name) for name in ("a/x.png", "b/x.png", "./b/x.png", "a/x.jpg")]
    found = single_files(files, "c")
    assert [(s.id, str(s.path)) for s in found] == [
        ("image/a/x.png", "a/x.png"), ("image/b/x", "b/x.png"), ("image/a/x.jpg", "a/x.jpg")]


def test_names_of_normal_and_of_unlabelled_folders(tmp_path):
    root = folder_of(tmp_path, *(f"part/train/{name}/0.png" for name in ("Good", "OK", "cut")),
                     *(f"part/test/{name}/0.png" for name in (
                         "GOOD", "ok", "Normal", "cut", "Unknown", "unlabelled", "UNLABELED")),
                     "part/test/0.png")
    assert ids(root, split="train") == ["Good/0", "OK/0"]
    samples = layouts.find_samples(root, "part", "test")
    assert {s.id: s.label for s in samples} == {
        "0": -1, "GOOD/0": 0, "Normal/0": 0, "UNLABELED/0": -1, "Unknown/0": -1, "cut/0": 1,
        "ok/0": 0, "unlabelled/0": -1}
    assert [(s.id, s.defect) for s in other_layouts.class_samples(root, "part")] == [
        ("train/Good/0", "good"), ("train/OK/0", "good"), ("GOOD/0", "good"), ("Normal/0", "good"),
        ("cut/0", "cut"), ("ok/0", "good")]


def test_photographs_below_good_are_normal_and_stray_ones_beside_it_are_not(tmp_path, capsys):
    root = folder_of(tmp_path / "parts", "good/mon/0.png", "good/tue/1.png", "bad/late/2.png",
                     "stray.png", "new/3.png")
    assert layouts.layout(root) == "photos"
    assert ids(root, "parts", "train") == ["good/mon/0", "good/tue/1"]
    assert {s.id: s.label for s in layouts.find_samples(root, "parts", "test")} == {
        "bad/late/2": 1, "new/3": -1}
    assert f"left out 1 files of {root}: 1 *.png" in capsys.readouterr().out
    assert layouts.layout(root / "good") == "photos"  # the folder is what --data names
    assert ids(root / "good", "good", "train") == ["mon/0", "tue/1"]
    assert layouts.layout(folder_of(tmp_path / "x", "mon/0.png", "tue/1.png")) == "classes"


def test_what_is_left_out_is_said_and_what_pillow_reads_is_taken(tmp_path, capsys):
    root = folder_of(tmp_path, *PLAIN, *(f"part/test/cut/{n}.{suffix}" for n, suffix in enumerate(
        ("jfif", "ppm", "gif", "JP2", "PGM", "pnm"), start=1)))
    for name in ("a.heic", "b.HEIC", "c.mp4", ".hidden.raw", "line/d.dcm", "Thumbs.db"):
        path = root / "part/test/cut" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    (root / "part/test/cut/line/above").symlink_to(root / "part/test")
    assert ids(root) == [f"cut/{n}" for n in range(7)] + ["good/0"]
    assert capsys.readouterr().out == (
        f"note: left out 4 files of {root}/part/test: 1 cut/*.heic, 1 cut/*.HEIC, 1 cut/*.mp4, "
        "1 cut/line/*.dcm\n")
    flat = folder_of(tmp_path / "flat", "train/0.png", "train/line/0.png")
    assert [s.id for s in other_layouts.flat_files(flat, "train")] == ["0"]
    assert "left out 1 files" in (said := capsys.readouterr().out) and "1 line/*.png" in said


def test_categories_may_hold_a_plus_and_clashes_of_folders_are_refused(tmp_path):
    root = folder_of(tmp_path / "d", *(
        f"{name}/{split}/good/{i}.png" for i in range(4) for split in ("train", "test")
        for name in ("a", "b", "a+b", "b+c", "pool", "a-classes")))
    names = layouts.find_categories(root)
    assert several.split_names("a+b", names) == ["a+b"] and several.split_names("a+d", names) == []
    assert several.split_names("a+b+c", [n for n in names if n != "a+b"]) == ["a", "b+c"]
    assert layouts.find_samples(root, "pool", "train")[0].category == "pool"
    for options, clash in ((("--pool",), "pool"), (("--merge-categories", "a", "b/"), "a.b"),
                           (("--category", "a", "--model", "resnet"), "a-classes")):
        for script in ("train.py", "infer.py")[:1 if "resnet" in options else 2]:
            result = run(script, "--data", root, *options, cwd=tmp_path)
            assert result.returncode == 2 and result.stderr.count("\n") == 1
            assert f"where those of the category {clash.replace('.', '+')} belong" in result.stderr


text = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/"), min_size=1,
               max_size=12).filter(lambda name: not name.startswith("."))
folders = text.filter(lambda name: name.casefold() not in (*SYSTEM, *NORMAL, *UNLABELLED))
SUFFIXES = st.sampled_from([".png", ".PNG", ".bmp", ".tif", ".Tiff"])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(folders, st.lists(folders, min_size=2, max_size=2, unique_by=str.casefold),
       st.lists(st.tuples(text, SUFFIXES), min_size=9, max_size=9,
                unique_by=lambda pair: pair[0].casefold()))
def test_figures_and_ids_do_not_depend_on_names(category, defects, files):
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        found = []
        for number, (part, kinds, names) in enumerate((
                ("part", ("cut", "hole"), [(f"{i:03}", ".png") for i in range(9)]),
                (category, defects, files))):
            base = Path(scratch, str(number), part)
            pairs = {}  # file below test: the same in both trees
            for index, (stem, suffix) in enumerate(names):
                kind = ("good", *kinds)[index % 3]
                image = base / "test" / kind / (stem + suffix)
                image.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(tiny_image(rng)).save(image)
                pairs[image] = index
                if kind != "good":
                    mask = np.zeros((64, 80), np.uint8)
                    mask[index:2 * index + 9, 5:20] = 255
                    path = base / "ground_truth" / kind / f"{stem}_mask.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(mask).save(path)
            folder_of(base, "train/good/0.png")
            assert layouts.find_categories(base.parent) == [part]
            samples = layouts.find_samples(base.parent, part, "test")
            for sample in samples:
                assert named(samples, [sample.id]) == [sample]
            samples.sort(key=lambda s: pairs[s.path])
            found.append(([s.label for s in samples], [np.asarray(Image.open(s.mask)) if s.mask else
                                                       None for s in samples]))
        scores = [rng.random((64, 80)) for _ in files]
        figures = [(labels, metrics.pixel_auroc([np.zeros((64, 80)) if m is None else m > 0
                                                 for m in masks], scores))
                   for labels, masks in found]
        assert figures[0] == figures[1] and figures[0][0] == [0, 1, 1] * 3


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A folder with data/, runs/ and results/ of categories whose names mean something elsewhere,
    with images that are not labelled, of one name, and whose names are not UTF-8."""
    cwd = tmp_path_factory.mktemp("odd")
    for seed, name in enumerate(("mean", "x$y_{$, merged")):
        base = write_tiny(cwd / "data", name, train=6, seed=seed) / name
    shutil.copytree(base / "test/gap", base / "test/unknown")
    shutil.copy(base / "test/gap/000.png", base / "test/direct.png")
    Image.open(base / "test/good/003.png").save(base / "test/good/003.tif")
    os.rename(base / "test/good/000.png", base / "test/good" / os.fsdecode(b"latin-\xe9.v1.png"))
    shutil.rmtree(cwd / "data/mean/test/good")
    for script, options in (("train.py", ("--all", *MEMORY)),
                            ("infer.py", ("--all", "--maps", "--spot-check", "gap/003", "003.tif",
                                          os.fsdecode(b"good/latin-\xe9.v1"))),
                            ("visualize.py", ("--report",))):
        result = run(script, "--data", "data", *options, cwd=cwd)
        assert result.returncode == 0, result.stderr
        if script == "infer.py":
            output = result.stdout
    with open(cwd / "results/scores.csv", errors="surrogateescape", newline="") as file:
        return cwd, output, list(csv.DictReader(file))


def test_every_image_has_a_row_a_map_and_an_id_of_its_own(odd):
    cwd, output, rows = odd
    files = [p for c in ("mean", "x$y_{$, merged") for p in files_below(cwd / "data" / c / "test")]
    assert len(rows) == len({(r["category"], r["id"]) for r in rows}) == len(files) == 26
    assert all((cwd / "results/maps" / r["category"] / f"{r['id']}.png").is_file() for r in rows)
    assert not list_images(cwd / "results/maps")
    assert {f"{r['category']}/{r['id']}" for r in rows} == {
        os.path.splitext(p.relative_to(cwd / "data").as_posix().replace("/test/", "/", 1))[0]
        if "003" not in p.name or "good" not in str(p) else
        p.relative_to(cwd / "data").as_posix().replace("/test/", "/", 1) for p in files}
    checked = [line.split("  ")[:2] for line in output.split("strangest\n")[1].splitlines()[:-1]]
    assert sorted(checked) == [["gap/003", "mean"], ["gap/003", "x$y_{$, merged"],
                               ["good/003.tif", "x$y_{$, merged"],
                               ["good/latin-\\udce9.v1", "x$y_{$, merged"]]


def test_images_without_labels_are_counted_and_a_split_without_normal_ones_is_named(odd):
    cwd, output, rows = odd
    found = json.loads((cwd / "results/metrics.json").read_text())
    own = [r for r in rows if r["label"] == "-1"]
    assert {r["defect"] for r in own} == {"unknown", ""} and len(own) == 5
    above = sum(r["prediction"] == "1" for r in own)
    assert f"x$y_{{$, merged: 5 images without labels: {above} anomalous\n" in output
    entry = found["categories"]["x$y_{$, merged"]
    assert (entry["unlabelled"], entry["unlabelled_anomalous"], entry["anomalous"]) == (5, above, 8)
    known = [r for r in rows if r["category"] != "mean" and r["label"] != "-1"]
    right = [r["label"] == r["prediction"] for r in known]
    assert entry["accuracy"] == pytest.approx(np.mean(right))
    assert "note: mean: no test folder is called good, ok, okay or normal" in output
    assert "note: x$y_" not in output and found["categories"]["mean"]["auroc"] is None
    assert found["mean"]["auroc"] == found["weighted mean"]["auroc"] == entry["auroc"]


def test_pictures_carry_the_scores_of_infer(odd, monkeypatch):
    cwd, _, rows = odd
    shown = []
    monkeypatch.chdir(cwd)
    monkeypatch.setattr("ad.pictures.plots.save_grid", lambda *parts: shown.append(parts))
    monkeypatch.setattr(sys, "argv", ["visualize.py", "--ckpt", "mean/patchcore-seed0/best.pt",
                                      "--ids", *(r["id"] for r in rows if r["category"] == "mean")])
    visualize.main(visualize.parse_args())
    expected = [f"{r['id']}\n{('normal', 'ANOMALOUS')[int(r['prediction'])]}\n"
                f"score {float(r['score']):.2f}, threshold 1.00"
                for r in rows if r["category"] == "mean"]
    (_, _, _, labels, _), = shown
    assert labels[:8] == expected and labels[8].startswith("CutPaste\n")


def test_a_folder_has_a_name_wherever_it_is_named_from(tmp_path, monkeypatch):
    root = folder_of(tmp_path / "parts", "good/mon/0.png", "good/1.png", "bad/2.png")
    folder_of(tmp_path / "sets/part", "train/good/0.png")
    monkeypatch.chdir(root / "good")
    assert layouts.find_categories(Path("..")) == ["parts"]
    assert layouts.find_categories(Path(".")) == ["good"]
    assert ids(Path("."), "good", "train") == ["1", "mon/0"]  # all below a folder called good
    monkeypatch.chdir(tmp_path / "sets/part/train")
    with pytest.raises(InputError, match=f"use --data {tmp_path}/sets --category part"):
        layouts.find_categories(Path(".."))
