"""Calibration, combination, smoothing, top-k and thresholds, by hand and against numpy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from ad import InputError
from ad.augment import FLIPS
from ad.config import Scoring
from ad.judging import calibrate
from ad.model import build_model
from ad.scoring import (combine, map_images, raw_maps, resized, score_images, side_for_model,
                        smooth, topk_mean)
from ad.threshold import parse_threshold, standardise


class Echo(torch.nn.Module):
    """mse map: the red channel; ssim map: the green one."""

    def anomaly_maps(self, images, names=("mse", "ssim")):
        return {name: images[:, ["mse", "ssim"].index(name)][:, None] for name in names}


def pictures(count=5, shape=(64, 128)):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(256, (3, *shape), dtype=torch.uint8, generator=generator)
            for _ in range(count)]


def test_topk_mean_by_hand_and_against_sorting():
    maps = torch.arange(20.0).view(1, 1, 4, 5)
    assert topk_mean(maps, 0.1).tolist() == [18.5]
    assert topk_mean(maps, 1.0).tolist() == [9.5]
    assert topk_mean(maps, 1e-9).tolist() == [19.0]  # at least one pixel
    maps = torch.randn(3, 1, 17, 23)
    expected = np.sort(maps.flatten(1).numpy())[:, -round(0.05 * 17 * 23):].mean(1)
    np.testing.assert_allclose(topk_mean(maps, 0.05), expected, rtol=1e-6)
    for bad in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="top-k fraction"):
            topk_mean(maps, bad)


def test_a_memory_is_one_of_whole_images():
    assert Scoring(error="fused", windows=(0,)).check()
    for error in ("fused", "memory"):
        with pytest.raises(InputError, match=f"--error {error}: .* --windows 0"):
            Scoring(error=error, windows=(128, 0)).check()


def test_an_error_map_that_a_model_has_not_is_refused():
    vae = build_model("small_conv_vae")
    for error, lacks in (("mask", "mask"), ("repaired", "mask"), ("memory", "memory")):
        with pytest.raises(InputError, match=f"--error {error}: this model has no map .*{lacks}"):
            Scoring((0,), error=error).check(vae)
    Scoring((0,), error="elbo").check(vae)
    unet = build_model("unet", width=2, depth=1, objective="reconstruct")
    with pytest.raises(InputError, match="no map called mask"):
        Scoring((0,), error="fused").check(unet)
    Scoring((0,), error="memory").check(unet)


def test_combine_is_mean_over_errors_and_max_over_windows():
    maps = {"mse@8": 1.0, "ssim@8": 3.0, "mse@16": 5.0, "ssim@16": -2.0}
    combined = combine({k: torch.full((1, 1, 2, 3), v) for k, v in maps.items()})
    assert combined.unique().tolist() == [2.0]  # max((1 + 3) / 2, (5 - 2) / 2)


def test_smooth_equals_scipy():
    maps = torch.rand(1, 1, 37, 45, dtype=torch.float64)
    expected = gaussian_filter(maps[0, 0].numpy(), 2.0, mode="mirror", radius=6)
    np.testing.assert_allclose(smooth(maps, 2.0)[0, 0], expected, atol=1e-12)
    assert smooth(maps, 0) is maps
    assert smooth(torch.rand(1, 1, 3, 4), 4.0).shape == (1, 1, 3, 4)


def test_raw_maps_names_scales_and_whole_image():
    images = torch.rand(2, 3, 40, 56)
    maps = raw_maps(Echo(), images, Scoring(windows=(32, 0, 512), window_input=0))
    assert list(maps) == ["mse@32", "ssim@32", "mse@0", "ssim@0", "mse@512", "ssim@512"]
    for name, map_ in maps.items():
        channel = 0 if name.startswith("mse") else 1
        torch.testing.assert_close(map_, images[:, channel:channel + 1])
    assert list(raw_maps(Echo(), images, Scoring(windows=(0,), error="ssim"))) == ["ssim@0"]


class Sided(torch.nn.Module):
    """The red channel, but less and less of it to the right and to the bottom."""

    def anomaly_maps(self, images, names):
        rows, columns = (torch.arange(1., side + 1).flip(0) for side in images.shape[-2:])
        return {"mse": images[:, :1] * rows[:, None] ** 2 * columns}


@pytest.mark.parametrize("shape", ((40, 40), (40, 56)))
def test_maps_that_are_the_mean_over_flips_do_not_know_which_way_round_an_image_is(shape):
    images, ways = torch.rand(2, 3, *shape), list(FLIPS) if shape[0] == shape[1] else [
        "left-right", "up-down"]

    def maps(images, *flips):
        return raw_maps(Sided(), images, Scoring((0,), 0, "mse", flips=flips))["mse@0"]
    found = maps(images, *FLIPS)  # a diagonal flip of what is not square has another shape
    for name in ways:
        torch.testing.assert_close(maps(FLIPS[name][0](images), *FLIPS), FLIPS[name][0](found))
        assert not torch.allclose(maps(FLIPS[name][0](images)), FLIPS[name][0](maps(images)))
    ramp = torch.arange(float(shape[0]), 0, -1)[:, None] ** 2 * (shape[1] + 1) / 2
    torch.testing.assert_close(maps(images, "left-right"), images[:, :1] * ramp)


def test_windows_are_resized_before_the_model_and_maps_back():
    seen = []

    def predict(windows):
        seen.append(windows.shape)
        return windows[:, :1]
    smooth_images = F.interpolate(torch.rand(2, 3, 4, 6), (64, 96), mode="bilinear")
    maps = resized(predict, 48)(smooth_images)
    assert seen == [(2, 3, 32, 48)] and maps.shape == (2, 1, 64, 96)
    torch.testing.assert_close(maps, smooth_images[:, :1], rtol=0, atol=0.06)
    assert resized(predict, 0) is predict
    # Small windows are enlarged to 256 pixels at most, large ones shrunk to any size.
    assert [side_for_model(*pair) for pair in ((128, 256), (128, 384), (300, 384), (512, 384),
                                               (512, 64), (90, 0))] == [256, 256, 300, 384, 64, 90]


def test_whole_chain_by_hand():
    """One scale, one error, no smoothing: everything follows from numpy."""
    images = pictures()
    scoring = Scoring(windows=(32,), window_input=0, error="mse", sigma=0.0, topk=0.1,
                      calibration="global")
    saved = calibrate(Echo(), images[:3], scoring, "cpu")
    red = np.stack([i[0].numpy() for i in images]) / 255

    def by_hand(images, normal):
        z = (images - normal.mean()) / (normal.std() + 1e-6)
        return np.sort(z.reshape(len(z), -1))[:, -819:].mean(1)
    scores = torch.cat([s for s, _ in score_images(Echo(), images, saved, "cpu")])
    np.testing.assert_allclose(scores, by_hand(red, red[:3]), rtol=1e-4)
    # The scores of the normal images themselves: each by the statistics of the other two.
    expected = [by_hand(red[[i]], red[[j for j in range(3) if j != i]])[0] for i in range(3)]
    np.testing.assert_allclose(saved["scores"], expected, rtol=1e-4)


def test_images_of_mixed_sizes_keep_their_order():
    images = pictures(2) + pictures(1, (33, 64)) + pictures(3)
    scoring = Scoring(windows=(32,), window_input=0, error="mse", sigma=1.0)
    saved = calibrate(Echo(), images, scoring, "cpu")
    maps = [m for _, batch in score_images(Echo(), images, saved, "cpu") for m in batch]
    assert [m.shape[1:] for m in maps] == [i.shape[1:] for i in images]
    single = [s for i in images for s, _ in score_images(Echo(), [i], saved, "cpu", 1)]
    together = [s for s, _ in score_images(Echo(), images, saved, "cpu")]
    np.testing.assert_allclose(torch.cat(single), torch.cat(together), rtol=1e-5)


def test_non_finite_model_names_the_image():
    class Broken(Echo):
        def anomaly_maps(self, images, names):
            return {k: v / (images.mean((1, 2, 3), keepdim=True) > 0) for k, v in
                    super().anomaly_maps(images, names).items()}
    images = pictures(3)
    images[1] = torch.zeros_like(images[1])
    for flips in ((), ("left-right", "up-down")):
        with pytest.raises(InputError, match="NaN or infinity for image b.png"):
            list(map_images(Broken(), images, Scoring(windows=(32,), flips=flips), "cpu",
                            names=["a.png", "b.png", "c.png"]))


def test_standardise_and_thresholds():
    normal = [1.0, 2.0, 3.0]
    np.testing.assert_allclose(standardise([2.0, 4.0], normal), [0, 2 / np.std(normal)], rtol=1e-5)
    assert parse_threshold("quantile:0.5")(normal) == 2.0
    assert parse_threshold("quantile:0.51")(normal) == 3.0  # never between two scores
    assert parse_threshold("-1.5")(normal) == -1.5
    for bad in ("quantile:2", "median:0.5", "x", "nan", "quantile:"):
        with pytest.raises(InputError, match="--threshold must be"):
            parse_threshold(bad)


@pytest.mark.parametrize("values, message", [
    (dict(topk=0), "--topk"), (dict(topk=2), "--topk"), (dict(sigma=-1), "--sigma"),
    (dict(windows=()), "--windows"), (dict(windows=(8,)), "--windows"),
    (dict(windows=(-1,)), "--windows"), (dict(window_input=8), "--window-input"),
    (dict(sigma=-1.0), "--sigma"), (dict(calibration="x"), "--calibration")])
def test_wrong_scoring_raises(values, message):
    with pytest.raises(InputError, match=message):
        Scoring(**values).check()


def brute_force(normal, anomalous, measure):
    """Best value of a measure over a fine grid of thresholds."""
    low, high = min(normal + anomalous) - 1, max(normal + anomalous) + 1
    found = []
    for cut in np.linspace(low, high, 20_001):
        tp, fp = sum(s > cut for s in anomalous), sum(s > cut for s in normal)
        found.append(measure(tp, fp, len(anomalous) - tp, len(normal) - fp))
    return max(found)


def accuracy(tp, fp, fn, tn):
    return (tp + tn) / (tp + fp + fn + tn)


def f1(tp, fp, fn, tn):
    return 2 * tp / (2 * tp + fp + fn)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rule, measure", [("best-accuracy", accuracy), ("best-f1", f1)])
def test_labelled_thresholds_are_the_best_of_all(seed, rule, measure):
    rng = np.random.default_rng(seed)
    normal = rng.normal(0, 1, 12).round(1).tolist()
    anomalous = rng.normal(1, 2, 17).round(1).tolist()
    cut = parse_threshold(rule)(normal, anomalous)
    tp, fp = sum(s > cut for s in anomalous), sum(s > cut for s in normal)
    own = measure(tp, fp, len(anomalous) - tp, len(normal) - fp)
    assert own == pytest.approx(brute_force(normal, anomalous, measure))
    assert min(abs(cut - s) for s in normal + anomalous) > 0.04  # never at an observed score


def test_labelled_thresholds_by_hand():
    assert parse_threshold("midpoint")([0.0, 1.0], [4.0, 7.0]) == 3.0
    assert parse_threshold("best-accuracy")([0.0, 1.0], [4.0, 7.0]) == 2.5  # the widest gap
    assert parse_threshold("best-f1")([0.0, 5.0], [4.0, 7.0]) == 2.0


def ternary_search(value, low, high):
    """The source report's search for a maximum, which is only right if there is one hill."""
    while high - low > 1e-6:
        third = (high - low) / 3
        if value(low + third) < value(high - third):
            low += third
        else:
            high -= third
    return (low + high) / 2


def test_ternary_search_misses_the_best_accuracy_where_there_are_two_hills():
    normal = [0.0] * 8 + [2.0] * 2
    anomalous = [1.0] * 5 + [3.0] * 2 + [9.0]

    def value(cut):
        tp, fp = sum(s > cut for s in anomalous), sum(s > cut for s in normal)
        return accuracy(tp, fp, len(anomalous) - tp, len(normal) - fp)

    exact = parse_threshold("best-accuracy")(normal, anomalous)
    assert 0 < exact < 1 and value(exact) == 16 / 18
    assert value(ternary_search(value, 0, 9)) == 13 / 18  # the hill between 2 and 3
