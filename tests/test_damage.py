"""Damage for training: where it is, how much of it, and that the generator alone decides."""

import pytest
import torch

from ad.cutpaste import seeded_generator
from ad.damage import CHANGED, CLEAN, DEFAULT, FAMILIES, blobs, clouds, damage

CPU = torch.device("cpu")
OWN = [name for name in FAMILIES if name not in ("cutpaste", "scar", "texture")]


def pictures(count=6, height=96, width=128):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 12, 16, generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_damages_where_its_mask_is(name):
    images = pictures(12)
    damaged, masks = FAMILIES[name](images, seeded_generator(CPU, 1))
    assert damaged.shape == images.shape and masks.shape == (12, 1, 96, 128)
    assert damaged.min() >= 0 and damaged.max() <= 1 and torch.isfinite(damaged).all()
    assert set(masks.unique().tolist()) <= {0.0, 1.0}
    change = (damaged - images).abs().mean(1, keepdim=True)
    assert change[masks == 0].max() <= CHANGED + 1e-6
    if name in OWN:
        assert (change[masks == 1] > CHANGED).all()
    assert (masks.mean((1, 2, 3)) > 0).float().mean() > 0.6  # most of them are visible
    assert masks.mean() < 0.5


@pytest.mark.parametrize("name", FAMILIES)
def test_the_generator_alone_decides(name):
    images = pictures()
    torch.manual_seed(1)
    first = FAMILIES[name](images, seeded_generator(CPU, 7))
    torch.manual_seed(2)
    again = FAMILIES[name](images, seeded_generator(CPU, 7))
    other = FAMILIES[name](images, seeded_generator(CPU, 8))
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("area", [(0.01, 0.011), (0.2, 0.21)])
def test_blobs_have_the_area_asked_for(area):
    masks = blobs(pictures(20), seeded_generator(CPU, 3), area)
    assert masks.dtype == torch.bool
    assert ((masks.float().mean((1, 2, 3)) > 0.9 * area[0])
            & (masks.float().mean((1, 2, 3)) < 1.1 * area[1])).all()


def test_clouds_span_zero_to_one():
    noise = clouds(pictures(), seeded_generator(CPU, 3), channels=2)
    assert noise.shape == (6, 2, 96, 128)
    torch.testing.assert_close(noise.amin((2, 3)), torch.zeros(6, 2))
    torch.testing.assert_close(noise.amax((2, 3)), torch.ones(6, 2), atol=1e-4, rtol=0)


def test_a_share_stays_clean_and_every_family_gets_its_turn(monkeypatch):
    calls = {}

    def counting(name):
        def family(images, generator):
            calls[name] = calls.get(name, 0) + len(images)
            return images * 0, torch.ones_like(images[:, :1])
        return family
    for name in DEFAULT:
        monkeypatch.setitem(FAMILIES, name, counting(name))
    images = pictures(2000, 8, 8) + 0.1
    damaged, masks = damage(images, seeded_generator(CPU, 0))
    clean = masks.amax((1, 2, 3)) == 0
    assert torch.equal(damaged[clean], images[clean])
    assert clean.float().mean().item() == pytest.approx(CLEAN, abs=0.03)
    expected = 2000 * (1 - CLEAN) / len(DEFAULT)
    assert all(calls[name] == pytest.approx(expected, rel=0.2) for name in DEFAULT)


def test_what_is_validated_on_is_not_trained_on():
    assert not {"cutpaste", "scar", "texture"} & set(DEFAULT)


def test_one_image_alone_and_odd_sizes():
    for name in DEFAULT:
        damaged, masks = FAMILIES[name](pictures(1, 33, 57), seeded_generator(CPU, 2))
        assert damaged.shape == (1, 3, 33, 57) and masks.shape == (1, 1, 33, 57)
