"""Sliding windows against a triple loop in float64, with a predictor that depends on the call."""

import numpy as np
import pytest
import torch

from ad.sliding_window import NonFiniteError, sliding_window, window_starts


def counting(channels=2):
    """A predictor whose answer is its window's number, so that any wrong weight or order shows."""
    calls = []

    def predict(windows):
        first = sum(calls)
        calls.append(len(windows))
        index = torch.arange(first, first + len(windows), dtype=torch.float32) + 1
        maps = index.view(-1, 1, 1, 1).expand(-1, channels, *windows.shape[-2:])
        return maps * torch.tensor([1.0, -0.5][:channels]).view(1, -1, 1, 1)
    return predict, calls


def reference(shape, window, stride, weighting, channels=2):
    """What sliding_window must give for `counting`, one pixel at a time, in float64."""
    count, _, height, width = shape
    starts = []
    for side, w, s in zip((height, width), window, stride):
        steps = int(np.ceil((side - w) / s))
        starts.append([0] if steps == 0 else
                      [int(np.floor(i * (side - w) / steps + 0.5)) for i in range(steps + 1)])
    weight = np.ones(window)
    if weighting == "gaussian":
        axes = [np.exp(-0.5 * ((np.arange(w) - (w - 1) / 2) / (w / 8)) ** 2) for w in window]
        axes = [np.maximum(a / a.max(), 1e-3) for a in axes]
        weight = np.outer(*axes)
    total = np.zeros((count, channels, height, width))
    norm = np.zeros((count, 1, height, width))
    number = 0
    for n in range(count):
        for y in starts[0]:
            for x in starts[1]:
                number += 1
                for i in range(window[0]):
                    for j in range(window[1]):
                        norm[n, 0, y + i, x + j] += weight[i, j]
                        for k, factor in enumerate([1, -0.5][:channels]):
                            total[n, k, y + i, x + j] += weight[i, j] * number * factor
    return total / norm


@pytest.mark.parametrize("weighting", ["uniform", "gaussian"])
@pytest.mark.parametrize("window_batch", [1, 5, 64])
@pytest.mark.parametrize("window, stride", [((8, 8), (4, 4)), ((9, 6), (5, 6)), ((13, 17), (1, 3)),
                                            ((7, 17), (7, 2))])
def test_equals_triple_loop(window, stride, window_batch, weighting):
    images = torch.rand(3, 3, 13, 17)
    predict, calls = counting()
    ours = sliding_window(images, predict, window, stride, weighting=weighting,
                          window_batch=window_batch)
    expected = reference(images.shape, window, stride, weighting)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
    assert ours.dtype == torch.float32 and max(calls) <= window_batch


def test_windows_of_several_images_share_batches():
    predict, calls = counting()
    sliding_window(torch.rand(5, 1, 8, 12), predict, 8, 4, window_batch=8)  # two windows an image
    assert calls == [8, 2]


def test_identity_predictor_returns_the_images():
    images = torch.rand(2, 3, 21, 34, dtype=torch.float64)
    for weighting in ("uniform", "gaussian"):
        for window, stride in ((8, 3), ((21, 34), 5), ((5, 11), (2, 11))):
            ours = sliding_window(images, lambda w: w, window, stride, weighting=weighting)
            torch.testing.assert_close(ours, images.float())


@pytest.mark.parametrize("padding", ["reflect", "replicate", "constant"])
def test_window_larger_than_image_is_padded_and_cut_back(padding):
    images = torch.rand(2, 3, 20, 30)
    seen = []

    def predict(windows):
        seen.append(windows)
        return windows
    ours = sliding_window(images, predict, (32, 16), 8, padding=padding)
    torch.testing.assert_close(ours, images)
    assert seen[0].shape[-2:] == (32, 16)
    mode = {"reflect": "reflect", "replicate": "edge", "constant": "constant"}[padding]
    expected = np.pad(images[0, :, :, :16].numpy(), ((0, 0), (6, 6), (0, 0)), mode=mode)
    np.testing.assert_array_equal(seen[0][0], expected)


def test_flips_commute():
    images = torch.rand(1, 1, 23, 31)

    def predict(windows):  # symmetric, and different at the window's borders
        return torch.nn.functional.avg_pool2d(windows, 5, 1, 2)
    for axis in (-1, -2):
        for weighting in ("uniform", "gaussian"):
            ours = sliding_window(images, predict, (11, 11), (4, 5), weighting=weighting)
            flipped = sliding_window(images.flip(axis), predict, (11, 11), (4, 5),
                                     weighting=weighting)
            torch.testing.assert_close(flipped.flip(axis), ours)


def test_batch_size_changes_nothing():
    images = torch.rand(4, 3, 33, 40)

    def predict(windows):
        return windows.square().mean(1, keepdim=True).sqrt()
    whole = sliding_window(images, predict, 16, 8, window_batch=64)
    for n in range(4):
        single = sliding_window(images[n:n + 1], predict, 16, 8, window_batch=3)
        torch.testing.assert_close(single[0], whole[n], rtol=0, atol=1e-6)


def test_starts_are_even_and_reach_both_edges():
    for length in range(8, 60):
        for window in (1, 5, 8):
            for stride in range(1, window + 1):
                starts = window_starts(length, window, stride)
                steps = np.diff(starts)
                assert starts[0] == 0 and starts[-1] == length - window
                assert len(steps) == 0 or (steps.max() <= stride
                                           and steps.max() - steps.min() <= 1)
                # No fewer windows could do: one less would need a longer step.
                assert len(starts) == 1 or (len(starts) - 2) * stride < length - window


def test_non_finite_prediction_names_the_image():
    images = torch.zeros(3, 1, 16, 16)
    images[1, 0, 9, 9] = float("nan")
    with pytest.raises(NonFiniteError, match="image 1 of the batch"):
        sliding_window(images, lambda w: w, 8, 4)


@pytest.mark.parametrize("change, message", [
    (dict(stride=9), "stride 9 is larger"), (dict(window=0), "window must be"),
    (dict(stride=(4, 0)), "stride must be"), (dict(window=(8, 8, 8)), "window must be"),
    (dict(images=torch.zeros(3, 16, 16)), "non-empty"),
    (dict(images=torch.zeros(0, 3, 16, 16)), "non-empty"),
    (dict(window=20, stride=8, padding="none"), "padding is none"),
    (dict(window=64, stride=8), "too much to reflect"), (dict(padding="same"), "padding is one"),
    (dict(weighting="hann"), "weighting one of"), (dict(window_batch=0), "window_batch"),
    (dict(predict=lambda w: w[..., 1:]), "predict returned")])
def test_impossible_arguments_raise(change, message):
    arguments = dict(images=torch.zeros(1, 3, 16, 16), predict=lambda w: w, window=8, stride=4)
    with pytest.raises(ValueError, match=message):
        sliding_window(**(arguments | change))
