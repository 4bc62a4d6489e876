"""The demo set: its layout, its masks, that it repeats, and that light alone does not solve it."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from ad import InputError, layouts
from ad.sets import demo_wells
from ad.sets.demo import CATEGORIES, VERSION, render, write_demo

DEFECTS = [(category, defect) for category, names in CATEGORIES.items() for defect in names]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_demo(tmp_path_factory.mktemp("data") / "nested" / "demo")


def read(folder):
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("category", CATEGORIES)
def test_layout_is_that_of_mvtec(root, category):
    defects = list(CATEGORIES[category])
    assert len(defects) == 3
    assert names(root) == sorted([*CATEGORIES, "demo.json"])
    assert names(root / category) == ["ground_truth", "test", "train"]
    assert names(root / category / "test") == sorted(["good", *defects])
    assert names(root / category / "ground_truth") == sorted(defects)
    assert names(root / category / "train/good") == [f"{i:03d}.png" for i in range(64)]
    assert names(root / category / "test/good") == [f"{i:03d}.png" for i in range(20)]
    for defect in defects:
        assert names(root / category / "test" / defect) == [f"{i:03d}.png" for i in range(10)]
        masks = names(root / category / "ground_truth" / defect)
        assert masks == [f"{i:03d}_mask.png" for i in range(10)]
    with Image.open(root / category / "train/good/000.png") as picture:
        assert picture.size == (256, 256) and picture.mode == "RGB"


@pytest.mark.parametrize("category, defect", DEFECTS)
def test_masks_are_binary_and_of_a_realistic_area(root, category, defect):
    masks = read(root / category / "ground_truth" / defect)
    assert masks.dtype == np.uint8 and masks.shape == (10, 256, 256)
    assert set(np.unique(masks)) == {0, 255}
    areas = (masks > 0).mean((1, 2))
    assert areas.min() > 0.0018 and areas.max() < 0.04


@pytest.mark.parametrize("category, defect", DEFECTS)
def test_the_defect_is_visible_inside_the_mask_and_absent_outside(category, defect):
    for index in range(2):
        image, clean, mask = render(category, defect, index)
        difference = np.abs(image.astype(int) - clean).max(2)
        assert difference[mask > 0].mean() > 18  # of 255; the sensor's noise has a sigma of 4
        assert (difference[mask == 0] == 0).all()


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_good_photograph_has_no_defect(category):
    image, clean, mask = render(category, "good", 0)
    assert np.array_equal(image, clean) and not mask.any()


@pytest.mark.parametrize("category", CATEGORIES)
def test_light_alone_does_not_separate(root, category):
    def measure(folder):  # the mean and the standard deviation of every photograph, in grey
        grey = read(root / category / folder) @ [0.299, 0.587, 0.114]
        return np.stack([grey.mean((1, 2)), grey.std((1, 2))], 1)

    good = measure("test/good")
    bad = np.concatenate([measure(f"test/{defect}") for defect in CATEGORIES[category]])
    labels = np.repeat([0, 1], [len(good), len(bad)])
    values, usual = np.concatenate([good, bad]), measure("train/good").mean(0)
    for scores in (*values.T, *-values.T, *np.abs(values - usual).T):
        assert roc_auc_score(labels, scores) < 0.65


def test_same_seed_same_bytes_and_no_image_depends_on_another(root):
    for category, defects in CATEGORIES.items():
        for group in ("train", "good", defects[-1]):
            image, _, mask = render(category, group, 7)
            folder = root / category / ("train/good" if group == "train" else f"test/{group}")
            assert np.array_equal(image, np.asarray(Image.open(folder / "007.png")))
        assert np.array_equal(mask, read(root / category / "ground_truth" / group)[7])


@pytest.mark.parametrize("category", CATEGORIES)
def test_another_seed_index_or_group_is_another_photograph(category):
    first = render(category, "good", 0)[1].astype(int)
    others = [("good", 0, 1), ("good", 1, 0), ("train", 0, 0), (CATEGORIES[category][0], 0, 0)]
    for group, index, seed in others:
        assert np.abs(first - render(category, group, index, seed)[1]).mean() > 5


def test_a_second_call_writes_nothing(root):
    def stamps():
        return {path: path.stat().st_mtime_ns for path in [root, *root.rglob("*")]}

    before = stamps()
    assert write_demo(str(root)) == root
    assert stamps() == before
    assert names(root.parent) == ["demo"]  # the scratch folder is gone


@pytest.mark.parametrize("marker", [None, {"version": VERSION, "seed": 1}, {"version": -1}])
def test_any_other_folder_is_refused_and_left_alone(tmp_path, marker):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "keep.txt").write_text("precious")
    if marker is not None:
        (folder / "demo.json").write_text(json.dumps(marker))
    before = names(folder)
    with pytest.raises(InputError, match=r"mine is not the complete demo set .*delete it"):
        write_demo(folder)
    assert names(folder) == before and names(tmp_path) == ["mine"]


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ad.sets.demo.render", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_demo(tmp_path / "demo")
    assert names(tmp_path) == []


def test_unknown_names_raise():
    with pytest.raises(ValueError, match="bottle"):
        render("bottle", "good", 0)
    with pytest.raises(ValueError, match="not in tuple"):
        render("carpet", "glue", 0)


def test_wells_are_written_in_the_casting_layout_with_spills_where_they_say(tmp_path):
    root = demo_wells.write_wells(tmp_path / "wells")
    counts = {split: len(layouts.find_samples(root, "wells", split))
              for split in ("train", "validation", "test")}
    assert counts == {"train": 400, "validation": 60, "test": 200}
    samples = layouts.find_samples(root, "wells", "test")
    assert sum(s.label for s in samples) == 100
    sizes = {Image.open(s.path).size for s in samples}
    assert max(w for w, _ in sizes) <= 72 and max(h for _, h in sizes) <= 40 and len(sizes) > 30
    for index in range(20):  # a spill is drawn over the same well, and some of it shows
        solid, spilled = (demo_wells.render("test/imgs", index, s).astype(int) for s in (0, 1))
        assert solid.shape == spilled.shape
        changed = (np.abs(solid - spilled).max(2) > 8).mean()
        assert 0.002 < changed < 0.5
    before = sorted(root.rglob("*"))
    assert demo_wells.write_wells(root) == root and sorted(root.rglob("*")) == before
