"""Coresets and neighbour search against naive float64 loops and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from ad import neighbours
from ad.neighbours import farthest_points, nearest, nearest_around, sample, shares


def naive_farthest(features, count):
    """One set (N, C) in float64, entry by entry."""
    features = features.double().numpy()
    chosen = [0]
    while len(chosen) < count:
        distances = [min(np.sqrt(((f - features[c]) ** 2).sum()) for c in chosen)
                     for f in features]
        chosen.append(int(np.argmax(distances)))
    return chosen


@pytest.mark.parametrize("count", [1, 2, 17, 40])
def test_coreset_is_the_naive_farthest_point_one(count):
    sets = torch.randn(3, 40, 5, generator=torch.Generator().manual_seed(0))
    chosen = farthest_points(sets, count)
    assert chosen.tolist() == [naive_farthest(s, count) for s in sets]


def test_coreset_covers_duplicates_last():
    points = torch.tensor([[[0.0], [0.0], [10.0], [10.0], [4.0]]])
    assert set(farthest_points(points, 3)[0].tolist()) == {0, 2, 4}


@pytest.mark.parametrize("block", [1, 300, 2 ** 24])
def test_nearest_is_scikit_learns_brute_force(block, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    generator = torch.Generator().manual_seed(1)
    queries = torch.randn(2, 23, 7, generator=generator)
    bank = torch.randn(2, 31, 7, generator=generator)
    distance, index = nearest(queries, bank)
    assert distance.shape == index.shape == (2, 23)
    for q, b, d, i in zip(queries, bank, distance, index):
        reference = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(b.double().numpy())
        expected, where = reference.kneighbors(q.double().numpy())
        np.testing.assert_allclose(d.sqrt().numpy(), expected[:, 0], atol=1e-5)
        assert (i.numpy() == where[:, 0]).all()


@pytest.mark.parametrize("radius", [0, 1, 2, 9])
@pytest.mark.parametrize("block", [1, 2 ** 24])
def test_nearest_around_is_the_naive_loop(radius, block, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    h, w, m, k, c = 4, 6, 3, 5, 2
    generator = torch.Generator().manual_seed(2)
    queries = torch.randn(h * w, m, c, generator=generator)
    bank = torch.randn(h * w, k, c, generator=generator)
    distance = nearest_around(queries, bank, (h, w), radius)
    flat = bank.view(h * w * k, c).double()
    for y in range(h):
        for x in range(w):
            allowed = [(yy * w + xx) * k + e for yy in range(h) for xx in range(w)
                       for e in range(k) if max(abs(yy - y), abs(xx - x)) <= radius]
            for j in range(m):
                d = (flat[allowed] - queries[y * w + x, j].double()).square().sum(1)
                assert distance[y * w + x, j].item() == pytest.approx(d.min().item(), abs=1e-5)


def test_a_sample_takes_all_of_few_and_of_many_each_with_the_same_chance():
    def entries(count):  # at 4000 places the number of the image
        return (torch.full((4000, 1), float(i)) for i in range(count))
    generator = torch.Generator().manual_seed(0)
    few, = sample(entries(7), 7, generator)
    assert torch.equal(few[..., 0], torch.arange(7.0).expand(4000, 7))
    assert sample(entries(0), 7, generator) == []
    many, = sample(entries(30), 6, generator)
    assert many.shape == (4000, 6, 1)
    assert (many[..., 0].sort(1).values.diff(dim=1) > 0).all()  # no image twice at a place
    counts = many.flatten().long().bincount(minlength=30)
    assert (counts - 800).abs().max() < 5 * (800 * 0.8) ** 0.5  # 5 standard deviations


def test_shares_are_all_of_few_and_in_proportion_of_many():
    assert shares([0, 200, 200]) == [0, 200, 200]
    assert shares([2600, 399, 0, 1]) == [346, 53, 0, 1]
