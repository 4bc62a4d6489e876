"""Properties that hold whatever the input: windows, SSIM, pseudo-anomalies, top-k, the CSV."""

import csv
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ad.cutpaste import SIZES, cutpaste, cutpaste_scar, seeded_generator, texture_damage
from ad.scoring import topk_mean
from ad.sliding_window import sliding_window, window_starts
from ad.ssim import ssim_loss, ssim_map
from ad.sets.submission import submission
from ad.sets.rules import best_threshold

quick = settings(max_examples=60, deadline=None, derandomize=True)
sides, seeds = st.integers(11, 40), st.integers(0, 2 ** 31)


def rand(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


@quick
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 300))
def test_windows_reach_both_ends_and_skip_nothing(length, window, stride):
    window = min(window, length)
    stride = min(stride, window)
    starts = window_starts(length, window, stride)
    assert starts[0] == 0 and starts[-1] == length - window
    steps = np.diff(starts)
    assert (steps >= 1).all() and (steps <= stride).all()
    assert len(steps) == 0 or steps.max() - steps.min() <= 1  # evenly spaced
    assert len(starts) == math.ceil((length - window) / stride) + 1  # as few as possible


@quick
@given(seeds, st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.integers(1, 30),
       st.integers(1, 30), st.integers(1, 9), st.sampled_from(["uniform", "gaussian"]))
def test_merged_windows_of_the_image_itself_are_the_image(seed, count, height, width, window,
                                                          stride, batch, weighting):
    images = rand(seed, count, 2, height, width).float()
    found = sliding_window(images, lambda w: w * 2, window, min(window, stride), "replicate",
                           weighting, batch)
    torch.testing.assert_close(found, images * 2)


@quick
@given(seeds, sides, sides, st.floats(0, 1), st.sampled_from([3, 5, 11]))
def test_ssim_is_symmetric_bounded_and_one_for_equals(seed, height, width, blend, window):
    x, y = rand(seed, 1, 2, height, width), rand(seed + 1, 1, 2, height, width)
    y = blend * x + (1 - blend) * y
    one, other = (ssim_map(a, b, 1.0, window) for a, b in ((x, y), (y, x)))
    torch.testing.assert_close(one, other)
    assert one.max() <= 1 + 1e-9 and one.min() >= -1
    assert one.shape == (1, 2, height - window + 1, width - window + 1)
    torch.testing.assert_close(ssim_map(x, x, 1.0, window), torch.ones_like(one))
    assert ssim_loss(x, y, 1.0, window).item() == pytest.approx(1 - one.mean().item())
    # The same in units 255 times as large.
    torch.testing.assert_close(ssim_map(255 * x, 255 * y, 255.0, window), one)


@quick
@given(seeds, st.integers(16, 64), st.integers(16, 64),
       st.sampled_from([cutpaste, cutpaste_scar, texture_damage]), st.sampled_from(list(SIZES)))
def test_damage_stays_in_its_mask_and_in_range(seed, height, width, damage, size):
    images = rand(seed, 2, 3, height, width)
    out, masks = damage(images, seeded_generator("cpu", seed), area=SIZES[size])
    assert out.shape == images.shape and masks.shape == (2, 1, height, width)
    assert set(masks.unique().tolist()) <= {0.0, 1.0} and (masks.sum((1, 2, 3)) > 0).all()
    assert 0 <= out.min() and out.max() <= 1
    outside = (masks == 0).expand_as(out)
    assert torch.equal(out[outside], images[outside])
    again = damage(images, seeded_generator("cpu", seed), area=SIZES[size])
    assert all(torch.equal(a, b) for a, b in zip((out, masks), again))


@quick
@given(seeds, st.integers(1, 20), st.integers(1, 20), st.floats(1e-6, 1))
def test_topk_mean_is_that_of_the_sorted_pixels(seed, height, width, fraction):
    maps = rand(seed, 2, 1, height, width)
    count = max(1, round(fraction * height * width))
    expected = np.sort(maps.flatten(1).numpy(), axis=1)[:, -count:].mean(1)
    np.testing.assert_allclose(topk_mean(maps, fraction).numpy(), expected)


finite = st.floats(-1e6, 1e6).map(lambda v: round(v, 3))


@quick
@given(st.lists(finite, min_size=1, max_size=30), st.lists(finite, min_size=1, max_size=30))
def test_no_observed_score_is_a_better_threshold(normal, anomalous):
    def accuracy(tp, fp, fn, tn):
        return (tp + tn) / (tp + fp + fn + tn)

    def reached(cut):
        tp, fp = sum(s > cut for s in anomalous), sum(s > cut for s in normal)
        return accuracy(tp, fp, len(anomalous) - tp, len(normal) - fp)
    found = reached(best_threshold(normal, anomalous, accuracy))
    assert all(found >= reached(cut) - 1e-12 for cut in [*normal, *anomalous, -math.inf])


ids = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)


@quick
@given(st.dictionaries(ids, st.one_of(finite, st.integers(0, 1)), max_size=30))
def test_a_submission_reads_back_as_it_was_written(predictions):
    rows = list(csv.reader(submission(predictions).splitlines(keepends=True)))
    assert rows[0] == ["id", "prediction"]
    assert {name: float(value) for name, value in rows[1:]} == pytest.approx(predictions)
    numbers = [int(name) for name, _ in rows[1:] if name.isdecimal()]
    assert numbers == sorted(numbers)
