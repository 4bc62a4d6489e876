"""Damage for training: where it is, how much of it, and that the generator alone decides."""

import pytest
import torch

from ad.config import DAMAGE, VALIDATION
from ad.cutpaste import seeded_generator
from ad.damage import CLEAN, FAMILIES, ROUNDS, damage, missing
from ad.regions import CHANGED, blobs, centres, clouds

CPU = torch.device("cpu")
OWN = [name for name in FAMILIES if name not in VALIDATION]


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

    def counting(name, number):
        def family(images, generator):
            calls[name] = calls.get(name, 0) + len(images)
            masks = torch.zeros_like(images[:, :1])
            masks[..., number, 0] = 1
            return images + 1, masks
        return family
    for number, name in enumerate(DAMAGE):
        monkeypatch.setitem(FAMILIES, name, counting(name, number))
    images = torch.zeros(3000, 3, 8, 8)
    damaged, masks = damage(images, seeded_generator(CPU, 0))
    rounds = damaged[:, 0, 0, 0]
    shares = [(rounds == r).float().mean().item() for r in range(ROUNDS + 1)]
    assert shares == pytest.approx([CLEAN] + [(1 - CLEAN) / ROUNDS] * ROUNDS, abs=0.03)
    assert sum(shares) == pytest.approx(1)
    expected = rounds.sum().item() / len(DAMAGE)
    assert all(calls[name] == pytest.approx(expected, rel=0.1) for name in DAMAGE)
    # The mask holds what all rounds did, at most one mark a round; none where nothing was done.
    marks = masks.sum((1, 2, 3))
    assert (marks <= rounds).all() and ((marks > 0) == (rounds > 0)).all()
    assert (marks[rounds == ROUNDS] > 1).float().mean() > 0.9


def test_damage_prefers_places_where_there_is_something():
    """A picture plain but for its right half: its weights are 0.25 and 2.25, nine out of ten."""
    images = torch.full((600, 3, 64, 64), 0.5)
    images[..., 33::2] = 0.9
    found = centres(images, seeded_generator(CPU, 4))[..., 0, 0]
    assert found.min() >= 0 and found.max() <= 1
    assert (found[:, 1] > 0.5).float().mean().item() == pytest.approx(0.9, abs=0.06)
    assert (found[:, 0] > 0.5).float().mean().item() == pytest.approx(0.5, abs=0.08)
    plain = centres(torch.full((600, 3, 64, 64), 0.5), seeded_generator(CPU, 4))[..., 0, 0]
    assert (plain[:, 1] > 0.5).float().mean().item() == pytest.approx(0.5, abs=0.08)


def test_missing_takes_a_thin_part_away():
    """A line on a plain ground: where it is missing there is ground, and only that is masked."""
    images = torch.full((40, 3, 64, 64), 0.2)
    images[..., 30:33] = 0.8
    damaged, masks = missing(images, seeded_generator(CPU, 2))
    line = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    line[..., 30:33] = True
    gone = (masks > 0) & line
    assert (gone.sum((1, 2, 3)) > 0).float().mean() > 0.5
    vanished = (damaged - 0.2).abs().amax(1, keepdim=True) < 0.02
    assert (vanished & gone).sum() > 0.5 * gone.sum()
    # Most of what is masked is the line: beside it an opening changes nothing.
    assert gone.sum() > 0.6 * (masks > 0).sum()


def test_what_is_validated_on_is_not_trained_on():
    assert not {"cutpaste", "scar", "texture"} & set(DAMAGE)
    assert list(FAMILIES) == [*DAMAGE, *VALIDATION]  # what can be chosen is there


def test_one_image_alone_and_odd_sizes():
    for name in DAMAGE:
        damaged, masks = FAMILIES[name](pictures(1, 33, 57), seeded_generator(CPU, 2))
        assert damaged.shape == (1, 3, 33, 57) and masks.shape == (1, 1, 33, 57)
