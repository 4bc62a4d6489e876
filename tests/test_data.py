"""Layouts, the split, and crops."""

import math

import pytest
import torch
from PIL import Image

from ad import InputError, data, layouts
from ad import augment as augmenting
from ad.augment import random_crops
from ad.images import read_image
from conftest import write_tiny


def test_samples_of_the_mvtec_layout(tiny):
    assert layouts.find_categories(tiny) == ["stripes"]
    train = layouts.find_samples(tiny, "stripes", "train")
    assert len(train) == 12 and all(s.label == 0 and s.mask is None for s in train)
    test = layouts.find_samples(tiny, "stripes", "test")
    assert [s.id for s in test] == [f"{d}/{i:03}" for d in ("blot", "gap", "good")
                                    for i in range(4)]
    assert [s.label for s in test] == [1] * 8 + [0] * 4
    assert all((s.mask is not None) == (s.label == 1) for s in test)
    assert test[0].mask.name == "000_mask.png"


def test_split_is_by_image_seeded_and_disjoint(tiny):
    samples = layouts.find_samples(tiny, "stripes", "train")
    train, val = data.split_normals(samples, 0.25, seed=3)
    assert len(train) == 9 and len(val) == 3
    assert sorted([*train, *val], key=lambda s: s.path) == samples
    assert data.split_normals(samples, 0.25, seed=3) == (train, val)
    assert any(data.split_normals(samples, 0.25, seed=s)[1] != val for s in range(4, 8))
    assert list(map(len, data.split_normals(samples, 0.99, seed=0))) == [2, 10]
    with pytest.raises(InputError, match="only 3 different normal images"):
        data.split_normals(samples[:3], 0.1, seed=0)


def test_crops_are_what_resizing_and_slicing_gives():
    """At scale 1 a crop is a slice of the image, bit for bit."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(256, (3, 60, 100), dtype=torch.uint8) for _ in range(4)]
    crops = random_crops(images, long_side=100, crop=32, generator=generator)
    assert crops.shape == (4, 3, 32, 32) and crops.dtype == torch.float32
    corners = set()
    for image, crop in zip(images, crops):
        places = [(y, x) for y in range(60 - 31) for x in range(100 - 31)
                  if torch.equal(image[:, y:y + 32, x:x + 32].float() / 255, crop)]
        assert len(places) == 1
        corners.add(places[0])
    assert len(corners) > 1


def test_crops_of_mixed_sizes_and_small_images():
    generator = torch.Generator().manual_seed(0)
    images = [torch.full((3, 30, 90), 51, dtype=torch.uint8),
              torch.full((3, 200, 200), 51, dtype=torch.uint8)]
    crops = random_crops(images, long_side=120, crop=64, generator=generator)
    assert crops.shape == (2, 3, 32, 64)  # the flat one is 40 high: the largest multiple of 16
    torch.testing.assert_close(crops, torch.full_like(crops, 0.2))


def test_crops_depend_on_the_generator_alone():
    images = [torch.randint(256, (3, 70, 50), dtype=torch.uint8) for _ in range(3)]
    one, two, other = (random_crops(images, 96, 48, torch.Generator().manual_seed(s))
                       for s in (5, 5, 6))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_wrong_folders_and_files_raise(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AD_DATA", raising=False)
    with pytest.raises(InputError, match="data/mvtec_ad.*--data demo"):
        layouts.resolve_data(None)
    monkeypatch.setenv("AD_DATA", str(tiny))
    assert layouts.resolve_data(None) == tiny
    monkeypatch.setenv("AD_DATA", "demo")
    monkeypatch.setattr("ad.sets.demo.write_demo", lambda root: root)
    assert str(layouts.resolve_data(None)) == "data/demo"
    monkeypatch.delenv("AD_DATA")
    with pytest.raises(InputError, match="unknown category 'x'.*stripes"):
        layouts.find_samples(tiny, "x", "train")
    with pytest.raises(InputError, match="is one category.*--category stripes"):
        layouts.find_categories(tiny / "stripes")
    (tmp_path / "odd.txt").write_text("")
    with pytest.raises(InputError, match="no known layout .found: odd.txt"):
        layouts.find_categories(tmp_path)
    (tmp_path / "bad.png").write_bytes((tiny / "stripes/train/good/000.png").read_bytes()[:200])
    with pytest.raises(InputError, match="cannot read image .*bad.png"):
        read_image(tmp_path / "bad.png", 512)
    for size in ((1, 1), (4096, 3), (15, 15)):
        Image.new("RGB", size).save(tmp_path / "thin.png")
        with pytest.raises(InputError, match="thin.png.*both sides must be 16 or more"):
            read_image(tmp_path / "thin.png", 512)
    (tmp_path / "empty/train/good").mkdir(parents=True)
    with pytest.raises(InputError, match="no images in .*empty"):
        layouts.find_samples(tmp_path, "empty", "train")


def wells(root, annotation="a.png 1\nb.png 0\n"):
    for folder, names in (("train", "xyz"), ("proliv", "p"), ("test/imgs", "ab")):
        (root / folder).mkdir(parents=True)
        for name in names:
            Image.new("RGB", (40, 24)).save(root / folder / f"{name}.png")
    (root / "test/test_annotation.txt").write_text(annotation)
    return root


def test_the_casting_layout(tmp_path):
    root = wells(tmp_path / "w")
    assert layouts.find_categories(root) == ["wells"] and layouts.layout(root) == "wells"
    found = {split: [(s.path.name, s.label) for s in layouts.find_samples(root, "wells", split)]
             for split in ("train", "validation", "test")}
    assert found == {"train": [("x.png", 0), ("y.png", 0), ("z.png", 0)],
                     "validation": [("p.png", 1)], "test": [("a.png", 1), ("b.png", 0)]}


@pytest.mark.parametrize("annotation, message", [
    ("a.png 1\n", "no line for 1 images, b.png first"),
    ("a.png 1\nb.png 2\n", "line 2: it must be a file's name and 0 or 1"),
    ("a.png 1\nb.png 0\nc.png 0\n", "line 3: there is no image test/imgs/c.png")])
def test_an_annotation_that_does_not_fit_is_named(tmp_path, annotation, message):
    with pytest.raises(InputError, match=message):
        layouts.find_samples(wells(tmp_path / "w", annotation), "wells", "test")


def test_merged_categories_are_those_of_both(tmp_path):
    write_tiny(tmp_path, "a")
    write_tiny(tmp_path, "b", train=5)
    samples = layouts.find_samples(tmp_path, "a+b", "train")
    assert [s.category for s in samples] == ["a"] * 12 + ["b"] * 5
    assert layouts.find_samples(tmp_path, "a", "validation") == []
    with pytest.raises(InputError, match="unknown category 'a.c'"):
        layouts.find_samples(tmp_path, "a+c", "train")


@pytest.mark.parametrize("flips", [(), ("left-right",), ("up-down", "diagonal")])
def test_augmented_images_are_flipped_half_of_the_time(monkeypatch, flips):
    """Without turn, shift, zoom and light: each is the image or a flip of it, as flip() says."""
    for name in ("TURN", "SHIFT", "ZOOM", "LIGHT"):
        monkeypatch.setattr(augmenting, name, 0.0)
    image = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0))
    expected = [image]
    for name in flips:
        expected += [augmenting.FLIPS[name][0](e) for e in expected]
    result = augmenting.augment(image.expand(400, -1, -1, -1), torch.Generator().manual_seed(1),
                                flips)
    near = torch.stack([(result - e).abs().amax((1, 2, 3)) < 1e-4 for e in expected], 1)
    assert (near.sum(1) == 1).all()
    assert (near.float().mean(0) - 1 / len(expected)).abs().max() < 0.1


def test_augmented_images_are_moved_turned_zoomed_and_lit_a_little():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 65), torch.linspace(-1, 1, 65), indexing="ij")
    image = torch.exp(-20 * ((x - 0.5) ** 2 + y ** 2)).expand(200, 3, -1, -1)  # a spot at (0.5, 0)
    result = augmenting.augment(image, torch.Generator().manual_seed(1))
    mass = result.sum(1)
    where = torch.stack([(mass * at).sum((1, 2)) / mass.sum((1, 2)) for at in (x, y)], 1)
    # Up to SHIFT and, at half the side, ZOOM along and TURN across.
    off = (where - torch.tensor([0.5, 0])).abs()
    assert 0.02 < off[:, 0].max() < 0.04 + 0.5 * 0.03 + 0.005
    assert 0.04 < off[:, 1].max() < 0.04 + 0.5 * 0.0525 + 0.005
    light = result.amax((2, 3)) / image.amax((2, 3))
    assert light.mean(1).std() > 0.03 and light.std(1).max() > 0.005
    assert result.max() <= 1 and light.min() > 0.87


def test_turned_means_turned_whatever_the_shape(monkeypatch):
    for name in ("SHIFT", "ZOOM", "LIGHT"):
        monkeypatch.setattr(augmenting, name, 0.0)
    y, x = torch.meshgrid(torch.arange(-31.5, 32), torch.arange(-95.5, 96), indexing="ij")
    for ax, ay in ((60, 0), (0, 20)):  # a spot keeps its distance from the centre
        image = torch.exp(-((x - ax) ** 2 + (y - ay) ** 2) / 20).expand(50, 3, -1, -1)
        mass = augmenting.augment(image, torch.Generator().manual_seed(1)).sum(1)
        where = torch.stack([(mass * at).sum((1, 2)) / mass.sum((1, 2)) for at in (x, y)], 1)
        torch.testing.assert_close(where.norm(dim=1), torch.full((50,), float(ax + ay)), atol=0.1,
                                   rtol=0)
        angle = torch.atan2(where[:, 1], where[:, 0]) - math.atan2(ay, ax)
        assert 2.5 < angle.abs().max().rad2deg() < 3.1


@pytest.mark.parametrize("count, epochs", [(14, 2800), (54, 800), (96, 467), (2000, 200)])
def test_few_images_are_passed_more_often(count, epochs):
    """5,600 steps of batches of 8, the last of which may be smaller; 200 epochs at least."""
    assert data.enough_epochs(count, 8) == epochs
