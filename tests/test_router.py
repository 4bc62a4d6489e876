"""Flat folders: grouping, routing, categories.csv, and the whole way to a submission."""

import csv
import json
import random
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.cluster import AgglomerativeClustering

from ad import InputError, jobs
from ad.folders import subfolders
from ad.samples import Sample
from ad.sets import other_layouts
from ad.sets.demo import render, write_demo
from ad.sets.categories import describe_split, full_table, read_table, training_table
from ad.pictures.plots import save_sheet
from ad.sets.router import PARTS, Space, confidence, describe, distances, group, route
from conftest import PROJECT, run

REAL = PROJECT.parent / "shared/data/mvtec_ad"  # two real categories, where they are laid beside


def flatten(roots, target, seed=0):
    """Images of MVTec layouts, shuffled and numbered, as links in a flat folder: {file: category}.
    """
    truth = {}
    for split in ("train", "test"):
        (target / split).mkdir(parents=True)
        files = [(base.name, path) for root in roots for base in subfolders(root)
                 for path in sorted((base / split).rglob("*.png"))]
        random.Random(seed).shuffle(files)
        for number, (category, path) in enumerate(files):
            (target / split / f"{number}.png").symlink_to(path)
            truth[f"{split}/{number}.png"] = category
    return truth


def test_real_and_procedural_categories_are_grouped_and_test_images_routed(tmp_path):
    roots = [write_demo(tmp_path / "demo").absolute(), *([REAL] if REAL.is_dir() else [])]
    truth = flatten(roots, tmp_path / "flat")
    table = training_table(tmp_path / "flat", tmp_path / "runs", save_sheet)
    assert len(set(table.values())) == len(set(truth.values()))  # the silhouette found the number
    groups = {}
    for file, name in table.items():
        groups.setdefault(name, []).append(truth[file])
    right = sum(max(map(found.count, found)) for found in groups.values())
    assert right >= 0.99 * len(table)
    meaning = {name: max(found, key=found.count) for name, found in groups.items()}
    routed = full_table(tmp_path / "flat", tmp_path / "runs")
    tests = [file for file in truth if file.startswith("test/")]
    assert sum(meaning[routed[file]] == truth[file] for file in tests) >= 0.99 * len(tests)
    for name in groups:
        assert Image.open(tmp_path / f"runs/groups/{name}.png").width == 1400


def clouds(sizes=(30, 20, 10), seed=0):
    """Points around corners of a cube, far from each other: (points, label of each)."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(range(len(sizes)), sizes)
    return np.eye(3)[labels] * 10 + rng.normal(0, 0.5, (len(labels), 3)), labels


def test_group_finds_clouds_and_their_number():
    points, truth = clouds()
    labels, margins = group(points)
    assert max(k for k, margin in margins.items() if margin >= 0.3) == 3
    assert len({*zip(labels, truth)}) == 3  # one to one
    assert len(set(group(points, 5)[0])) == 5 and set(group(points, 1)[0]) == {0}
    assert set(group(np.random.default_rng(0).normal(size=(40, 2)))[0]) == {0}  # nothing separate
    assert set(group(points[:1])[0]) == {0}
    for wrong in (-1, 0, 16):
        with pytest.raises(InputError, match="--groups must be 1 to [0-9]+, as these 60 images"):
            group(points, wrong)


def test_groups_are_those_of_scikit_learns_own_cut():
    points = np.random.default_rng(0).normal(size=(60, 3))
    for number in (2, 7, 30):
        labels = group(points, number, least=1)[0]
        expected = AgglomerativeClustering(number).fit(points)
        assert len({*zip(labels, expected.labels_)}) == number


def test_what_is_too_few_for_a_group_joins_the_nearest():
    points, truth = clouds((30, 20, 3))
    points[truth == 2] = [6, 0, 30], [6, 0, 30.1], [0, 6, 30]  # the nearest: 0, 0 and 1
    labels = group(points)[0]
    assert len(set(labels)) == 2 and labels[0] != labels[30]
    assert (labels[:30] == labels[0]).all() and (labels[30:50] == labels[30]).all()
    assert labels[50:].tolist() == [labels[0], labels[0], labels[30]]
    labels = group(np.random.default_rng(0).normal(size=(60, 3)), 9)[0]
    assert len(set(labels)) == 9 and np.bincount(labels).min() >= 4


def test_a_turned_or_mirrored_image_has_the_same_descriptor(tmp_path):
    samples = []
    for category in ("bolt", "grid"):
        for kind in range(8):
            image = Image.fromarray(render(category, "train", 0)[0]).resize((200, 160))
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if kind % 2 else image
            image.rotate(90 * (kind // 2), expand=True).save(tmp_path / f"{category}{kind}.png")
            samples.append(Sample(tmp_path / f"{category}{kind}.png", "", "", 0,
                                          None))
    described = describe(samples).reshape(2, 8, -1)
    spread = np.abs(described - described[:, :1]).max()
    assert spread < 0.02 * np.abs(described[0, 0] - described[1, 0]).max()


def test_objects_at_any_angle_are_one_group(tmp_path):
    """Few images of each, with which grouping by place made groups of bolts at similar angles."""
    truth, kinds = [], ("bolt", "carpet", "tablet")
    for number in range(36):
        image = Image.fromarray(render(kinds[number % 3], "train", number)[0]).resize((128, 128))
        image.transpose(Image.Transpose(number // 3 % 7)).save(tmp_path / f"{number:02}.png")
        truth.append(number % 3)
    samples = [Sample(path, "", "", 0, None)
               for path in sorted(tmp_path.iterdir())]
    labels = group(Space(describe(samples)).train)[0]
    assert len({*zip(labels, truth)}) == len(set(labels)) == 3


def test_route_and_confidence_by_hand():
    points, labels = np.array([[0.0], [1.0], [10.0]]), ["a", "a", "b"]
    found, certain = route(distances(points, np.array([[2.0], [7.0]])), labels)
    assert found == ["a", "b"] and certain == pytest.approx([1 - 1 / 8, 1 - 3 / 6])
    found, certain = route(distances(points), labels)
    assert found == ["a", "a", "a"] and certain == pytest.approx([0.9, 1 - 1 / 9, 1])
    # The point at 10 has no other of its own label, and one of another label at 9.
    assert confidence(distances(points), labels, labels) == pytest.approx(
        [0.9, 1 - 1 / 9, -np.inf])


def test_parts_of_a_description_weigh_the_same():
    rng = np.random.default_rng(0)
    described = rng.normal(0, 1, (50, sum(PARTS))) * np.repeat([100, 1, 0.01], PARTS)
    space, cuts = Space(described), np.cumsum(PARTS)[:-1]
    spreads = [part.var(0).sum() for part in np.split(described / space.scale, cuts, 1)]
    assert spreads == pytest.approx([1, 1, 1])
    assert space.train.shape == (50, 32)


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """Demo carpets and tablets, 12 normal ones of each and 3 + 3 to test: (flat folder, MVTec
    layout of the same)."""
    root = tmp_path_factory.mktemp("flat")
    for category, defect in (("carpet", "stain"), ("tablet", "crack")):
        for group_, count in (("train", 12), ("good", 3), (defect, 3)):
            folder = root / "mvtec" / category / (
                "train/good" if group_ == "train" else f"test/{group_}")
            folder.mkdir(parents=True)
            for index in range(count):
                image = Image.fromarray(render(category, group_, index)[0]).resize((96, 96))
                image.save(folder / f"{index}.png")
    truth = flatten([root / "mvtec"], root / "flat")
    (root / "truth.json").write_text(json.dumps(truth))
    return root


def test_a_flat_folder_trains_scores_and_is_submitted(flat, tmp_path):
    options = ("--data", flat / "flat")
    result = run("train.py", *options, "--all", "--model", "patchcore", "--layers", 8,
                 "--groups", 2, "--names-from", flat / "mvtec", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    truth = json.loads((flat / "truth.json").read_text())
    rows = list(csv.DictReader((tmp_path / "runs/categories.csv").read_text().splitlines()))
    assert {r["file"]: r["category"] for r in rows} == {
        f: c for f, c in truth.items() if f.startswith("train/")}
    # Renamed by hand, and one image moved: obeyed, byte for byte kept.
    for row in rows:
        row["category"] = {"carpet": "rug", "tablet": "pill"}[row["category"]]
    edited = "file,category,confidence\n" + "".join(",".join(r.values()) + "\n" for r in rows)
    (tmp_path / "runs/categories.csv").write_text(edited)
    result = run("train.py", *options, "--all", "--model", "patchcore", "--layers", 8, cwd=tmp_path)
    assert result.returncode == 0 and "categories.csv, as it is" in result.stdout, result.stderr
    for old, new in (("carpet", "rug"), ("tablet", "pill")):
        assert f"no image is in the category {old} now" in result.stdout
        assert f"rename runs/{old} to runs/{new}" in result.stdout
        assert "best epoch" not in result.stdout  # a memory has none
    assert (tmp_path / "runs/categories.csv").read_text() == edited
    sample = tmp_path / "sample.csv"
    sample.write_text("id,prediction\n" + "".join(f"{i},0\n" for i in range(12)))
    result = run("infer.py", *options, "--all", "--spot-check", 11, 2, "--check-submission", sample,
                 cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = (tmp_path / "results/submission.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["id", *map(str, range(12))]
    scores = {r["id"]: r for r in csv.DictReader(
        (tmp_path / "results/scores.csv").read_text().splitlines())}
    assert all(scores[line.split(",")[0]]["score"] == line.split(",")[1] for line in lines[1:])
    assert {scores[str(i)]["category"] for i in range(12)
            if truth[f"test/{i}.png"] == "carpet"} == {"rug"}
    assert scores["0"]["label"] == "-1"
    above = sum(float(r["score"]) > float(scores["11"]["score"]) for r in scores.values())
    assert f"11  {scores['11']['category']}  {scores['11']['score']}  " \
           f"{scores['11']['prediction']}  {above + 1}\n" in result.stdout
    assert Image.open(tmp_path / "results/spot_check.png").width > 100
    order = random.Random(1).sample(range(12), 12)
    like = tmp_path / "like.csv"
    like.write_bytes(("\ufeffImage; Class\r\n" + "".join(f"{i}.png;\r\n" for i in order)).encode())
    result = run("infer.py", *options, "--all", "--like", like, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    expected = [f"{i}.png,{scores[str(i)]['score']}" for i in order]
    assert (tmp_path / "results/submission.csv").read_text().splitlines() == [
        "Image,Class", *expected]
    sample.write_text(sample.read_text().replace("5,0", "50,0"))
    result = run("infer.py", *options, "--all", "--binary", "--check-submission", sample,
                 cwd=tmp_path)
    assert result.returncode == 2 and "line 7: our id is 5, that of" in result.stderr
    lines = (tmp_path / "results/submission.csv").read_text().splitlines()
    assert {line.split(",")[1] for line in lines[1:]} <= {"0", "1"}
    before = (tmp_path / "results/submission.csv").read_text()
    (tmp_path / "runs/pill").rename(tmp_path / "runs/pills")
    for more, message in ((["--groups", 3], "with 2 categories: leave out --groups"),
                          (["--names-from", flat / "mvtec"], "or delete it to group anew")):
        result = run("train.py", *options, "--all", *more, cwd=tmp_path)
        assert result.returncode == 2 and message in result.stderr, result.stderr
    for more, message in ((["--category", "rug", "--like", like], "give --all"),
                          (["--all"], "no trained run in runs for pill, which has"),
                          (["--category", "rug", "--spot-check", "x"], "no test image 'x'; ids")):
        result = run("infer.py", *options, *more, cwd=tmp_path)
        assert result.returncode == 2 and message in result.stderr, result.stderr
    assert (tmp_path / "results/submission.csv").read_text() == before
    result = run("visualize.py", *options, "--ckpt", "runs/rug/patchcore-seed0/best.pt",
                 "--ids", next(i for i in scores if scores[i]["category"] == "rug"), cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_pool_is_one_model_of_all_and_pooled_metrics_are_shown(flat, tmp_path):
    for which in (["--all"], ["--pool"]):
        result = run("train.py", "--data", flat / "mvtec", *which, "--model", "patchcore",
                     cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    config = json.loads((tmp_path / "runs/pool/patchcore-seed0/config.json").read_text())
    assert len(config["train"]) == len(config["validation"]) == 24
    result = run("infer.py", "--data", flat / "mvtec", "--all", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "results/metrics.json").read_text())
    rows = list(csv.DictReader((tmp_path / "results/scores.csv").read_text().splitlines()))
    for name, column in (("pooled", "score"), ("pooled, raw", "raw")):
        positive, negative = ([float(r[column]) for r in rows if r["label"] == label]
                              for label in "10")
        expected = np.mean([(p > n) + 0.5 * (p == n) for p in positive for n in negative])
        assert found[name]["auroc"] == pytest.approx(expected, abs=1e-3)
    result = run("infer.py", "--data", flat / "mvtec", "--pool", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = list(csv.DictReader((tmp_path / "results/scores.csv").read_text().splitlines()))
    assert len(rows) == 12 and {r["category"] for r in rows} == {"carpet", "tablet"}


@pytest.mark.parametrize("text, message", [
    ("file,kind\ntrain/0.png,a\n", "needs the columns file, category, confidence"),
    ("file,category\ntrain/0.png,a\n", "no line for 1 files, train/1.png first"),
    ("file,category\ntrain/0.png,a\ntrain/1.png,../b\n", "'../b' of train/1.png cannot be"),
    ("file,category\ntrain/0.png,a\ntrain/1.png\n", "'' of train/1.png cannot be"),
    ("file,category\ntrain/0.png,a\ntrain/0.png,b\n", "two lines for train/0.png, a and b"),
    ("", "needs the columns file, category, confidence, and has none"),
    ("file,category\ntrain/0.png,a\ntrain/1.png,pool\n", "'pool' of train/1.png cannot be")])
def test_a_table_that_cannot_be_used_is_named(tmp_path, text, message):
    (tmp_path / "categories.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "categories.csv", ["train/0.png", "train/1.png"])


@pytest.mark.parametrize("text", [
    "file;category;confidence\r\ntrain/0.png;ä b;0,9\r\n\r\ntrain/1.png;b;1\r\n;;\r\n",
    "File, Category\n train/0.png, ä b\n train/1.png, b",
    "category\tfile\nä b\ttrain/0.png\nb\ttrain/1.png"])
def test_a_table_is_read_as_a_spreadsheet_saves_it(tmp_path, text):
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "categories.csv").write_bytes(text.encode(encoding))
        assert read_table(tmp_path / "categories.csv", ["train/0.png", "train/1.png"]) == {
            "train/0.png": "ä b", "train/1.png": "b"}


def test_without_training_there_is_no_table(flat, tmp_path):
    with pytest.raises(InputError, match="no .*categories.csv; this makes it: python train.py --a"):
        full_table(flat / "flat", tmp_path)
    assert jobs.full_table(flat / "mvtec", tmp_path) is None


def test_the_first_files_stand_in_the_last_row_of_a_sheet(tmp_path):
    files = [tmp_path / f"{value}.png" for value in range(25)]
    for value, file in enumerate(files):
        Image.new("RGB", (96, 96), (value * 9, 0, 99)).save(file)

    def sheet(count):
        """Red in the middle of each picture, by rows; pictures are 96 wide, every 108 pixels."""
        save_sheet(tmp_path / "sheet.png", files[:count], ["confidence 1.00"] * count, "a group",
                   columns=5, rows=3, side=96)
        found = np.array(Image.open(tmp_path / "sheet.png").convert("RGB"))
        found = found[np.nonzero((found == found[0, 0]).all((1, 2)) == 0)[0]]  # not the margins
        rows = [row for row in found[:, 56::108] if row[0, 2] == 99]
        first = [b for a, b in zip([None, *rows], rows) if a is None or (a[0] != b[0]).any()]
        return [[value // 9 for value, green, blue in row if (green, blue) == (0, 99)]
                for row in first]
    all_ = sheet(25)
    assert len(all_) == 3 and all_[2] == [0, 1, 2, 3, 4]
    assert all_[0][0] == 5 and all_[1][4] == 24  # the other 20, evenly, in two rows of five
    assert sheet(7) == [[5, 6], [0, 1, 2, 3, 4]]  # no empty row
    assert sheet(3) == [[0, 1, 2]]


def test_descriptors_are_kept_until_a_file_changes(flat, tmp_path, monkeypatch):
    root = tmp_path / "flat"
    shutil.copytree(flat / "flat", root)
    samples, first = describe_split(root, "train", tmp_path)
    np.testing.assert_allclose(first, describe(samples), atol=1e-5)
    asked = []
    monkeypatch.setattr("ad.sets.categories.describe", lambda some, white:
                        asked.append(some) or describe(some, white))
    np.testing.assert_array_equal(describe_split(root, "train", tmp_path)[1], first)
    assert not asked
    shutil.copy(samples[1].path, samples[0].path)  # another picture under the same name
    changed = describe_split(root, "train", tmp_path)[1]
    assert asked == [samples[:1]]
    np.testing.assert_allclose(changed, [first[1], *first[1:]], atol=1e-5)
    (tmp_path / "descriptors_train.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot read .*descriptors_train.npz .*delete it"):
        describe_split(root, "train", tmp_path)


def test_descriptions_do_not_depend_on_the_batch(flat):
    samples = other_layouts.flat_files(flat / "flat", "train")
    np.testing.assert_allclose(describe(samples[:3]), describe(samples)[:3], atol=1e-5)
    assert describe(samples[:3]).shape == (3, sum(PARTS))
