"""Damage for training: where it is, how much of it, and that the generator alone decides."""

import pytest
import torch

from ad.config import DAMAGE, VALIDATION
from ad.cutpaste import seeded_generator
from ad.damage import CLEAN, FAMILIES, ROUNDS, damage, apply_plan
from ad.regions import CHANGED, blobs, centres, clouds, density, waves

CPU = torch.device("cpu")


def pictures(count=6, height=96, width=128):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 12, 16, generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")


def once(name, images, seed):
    return apply_plan(images, [(0, len(images), name)], seeded_generator(CPU, seed))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_damages_where_its_mask_is(name):
    images = pictures(12)
    damaged, masks = once(name, images, 1)
    assert damaged.shape == images.shape and masks.shape == (12, 1, 96, 128)
    assert damaged.min() >= 0 and damaged.max() <= 1 and torch.isfinite(damaged).all()
    assert set(masks.unique().tolist()) <= {0.0, 1.0}
    change = (damaged - images).abs().mean(1, keepdim=True)
    assert change[masks == 0].max() <= CHANGED + 1e-6 < change[masks == 1].min() + 2e-6
    assert not torch.equal(masks[0], masks[1])  # no two draws alike
    assert (masks.mean((1, 2, 3)) > 0).float().mean() > 0.6  # most of them are visible
    assert masks.mean() < 0.5


@pytest.mark.parametrize("name", FAMILIES)
def test_the_generator_alone_decides(name):
    images = pictures()
    torch.manual_seed(1)
    first = once(name, images, 7)
    torch.manual_seed(2)
    again = once(name, images, 7)
    other = once(name, images, 8)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first[0], other[0])


def covers(area, edge=4e-5, rough=0.13, count=20):
    generator = seeded_generator(CPU, 3)
    return blobs(pictures(count), torch.rand(count, 2, generator=generator),
                 torch.tensor([[area, edge, rough]]).expand(count, -1), generator)


@pytest.mark.parametrize("area", [0.01, 0.2])
def test_blobs_have_the_area_asked_for(area):
    shares = (covers(area) > 0).float().mean((1, 2, 3))
    assert (shares > 0.9 * area).all() and (shares < 1.1 * area).all()


def test_edges_of_blobs_are_as_wide_as_asked_for():
    hard, soft = covers(0.1, rough=0.0), covers(0.1, 0.08, 0.0)
    assert ((hard > 0) == (soft > 0)).float().mean() > 0.999
    edge = ((soft > 0) & (soft < 1)).sum((1, 2, 3)) / (hard > 0).sum((1, 2, 3))
    # A disc of radius r = sqrt(0.1 / pi) of the side has 1 - (1 - 0.08 / r) ** 2 = 0.70 of its area
    # there, wherever it is whole; at the image's edge more or less.
    assert edge.median().item() == pytest.approx(0.70, abs=0.05)
    assert ((hard > 0) & (hard < 1)).sum() < 0.02 * (hard > 0).sum()


def test_waves_are_as_fine_as_asked_for():
    """The gradient of noise of cells c has c / 2 / sqrt(3) cycles across (uniform up to c / 2),
    times sqrt(0.8 + 0.2 * 4) for the finer octave."""
    for cells in (4, 16):
        noise = waves(torch.zeros(40, 3, 128, 96), seeded_generator(CPU, 3), (cells, cells + 1e-3))
        assert noise.mean().abs() < 0.1 and noise.std().item() == pytest.approx(1, abs=0.1)
        for axis in (2, 3):
            pace = noise.diff(dim=axis).std().item() * 128 / 6.283
            assert pace == pytest.approx(cells / 2 / 3 ** 0.5 * 1.6 ** 0.5, rel=0.1)


def test_clouds_span_zero_to_one():
    noise = clouds(pictures(), seeded_generator(CPU, 3), channels=2)
    assert noise.shape == (6, 2, 96, 128)
    torch.testing.assert_close(noise.amin((2, 3)), torch.zeros(6, 2))
    torch.testing.assert_close(noise.amax((2, 3)), torch.ones(6, 2), atol=1e-4, rtol=0)


def test_a_share_stays_clean_and_every_family_gets_its_turn(monkeypatch):
    """300 batches of 8, in which every family leaves a mark of its own."""
    calls = dict.fromkeys(DAMAGE, 0)

    def marking(name, number):
        def family(images, cover, centre, generator):
            calls[name] += len(images)
            marks = torch.zeros_like(images[:, :1])
            marks[..., number, 0] = 1
            return images + marks, torch.ones_like(marks)
        return family
    for number, name in enumerate(DAMAGE):
        monkeypatch.setitem(FAMILIES, name, marking(name, number))
    generator = seeded_generator(CPU, 0)
    damaged, masks = (torch.cat(parts) for parts in zip(*(
        damage(torch.zeros(8, 3, 8, 8), generator) for _ in range(300))))
    rounds = damaged[:, 0].sum((1, 2))
    shares = [(rounds == r).float().mean().item() for r in range(ROUNDS + 1)]
    assert shares == pytest.approx([CLEAN] + [(1 - CLEAN) / ROUNDS] * ROUNDS, abs=0.03)
    assert sum(shares) == pytest.approx(1)
    expected = rounds.sum().item() / len(DAMAGE)
    assert all(calls[name] == pytest.approx(expected, rel=0.15) for name in DAMAGE)
    # The mask holds what all rounds did; none where nothing was done.
    assert torch.equal(masks, (damaged[:, :1] > 0).float())
    # Halves of a batch are damaged by families of their own.
    first, last = damaged.view(300, 8, -1)[:, 0], damaged.view(300, 8, -1)[:, 3]
    assert (first != last).any(1).float().mean() > 0.7


def test_damage_prefers_places_where_there_is_something():
    """A picture plain but for its right half: its weights are 0.25 and 2.25, nine out of ten."""
    images = torch.full((600, 3, 64, 64), 0.5)
    images[..., 33::2] = 0.9
    found = centres(density(images), seeded_generator(CPU, 4))
    assert found.min() >= 0 and found.max() <= 1
    assert (found[:, 1] > 0.5).float().mean().item() == pytest.approx(0.9, abs=0.06)
    assert (found[:, 0] > 0.5).float().mean().item() == pytest.approx(0.5, abs=0.08)
    plain = centres(density(torch.full((600, 3, 64, 64), 0.5)), seeded_generator(CPU, 4))
    assert (plain[:, 1] > 0.5).float().mean().item() == pytest.approx(0.5, abs=0.08)


def test_missing_takes_a_thin_part_away():
    """A line on a plain ground: where it is missing there is ground, and only that is masked."""
    images = torch.full((200, 3, 64, 64), 0.2)
    images[..., 30:33] = 0.8
    damaged, masks = apply_plan(images, [(i, i + 2, "missing") for i in range(0, 200, 2)],
                            seeded_generator(CPU, 2))
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


@pytest.mark.parametrize("shape", [(1, 33, 57), (1, 9, 12), (2, 40, 24)])
@pytest.mark.parametrize("name", DAMAGE)
def test_one_image_alone_and_odd_sizes(name, shape):
    for seed in range(8):
        damaged, masks = once(name, pictures(*shape), seed)
        assert damaged.shape == (shape[0], 3, *shape[1:]) and torch.isfinite(damaged).all()
        assert masks.shape == (shape[0], 1, *shape[1:])
