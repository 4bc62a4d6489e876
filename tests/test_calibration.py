"""Calibration by hand and against numpy; auto chooses position where position matters."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from ad.calibration import (GRID, OFFSET, PRIOR, Calibration, fit_calibration,
                            held_out_likelihood, leave_one_out, log_map, moments, refit)


def aligned(count, seed=0):
    """Error maps that are high on a fixed edge and low elsewhere, as of an aligned object."""
    generator = torch.Generator().manual_seed(seed)
    maps = 0.1 + 0.02 * torch.rand(count, 1, 192, 128, generator=generator)
    maps[..., 40:44] += 1 + 0.1 * torch.rand(count, 1, 192, 4, generator=generator)
    return {"a": maps}


def unaligned(count, seed=0):
    """The same edge, at another place in every map."""
    places = torch.Generator().manual_seed(seed + 1)
    rolled = [torch.roll(m, int(torch.randint(128, (1,), generator=places)), -1)
              for m in aligned(count, seed)["a"]]
    return {"a": torch.stack(rolled)}


def test_moments_are_cell_means():
    maps = {"a": torch.rand(2, 1, 2 * GRID, 3 * GRID)}
    cells = moments(maps)["a"].numpy()
    blocks = maps["a"].double().numpy().reshape(2, GRID, 2, GRID, 3)
    np.testing.assert_allclose(cells[:, 0], blocks.mean((2, 4)))
    np.testing.assert_allclose(cells[:, 1], (blocks ** 2).mean((2, 4)), rtol=1e-6)


def test_global_is_mean_and_std_over_all_normal_pixels():
    maps = aligned(5)
    calibration, _ = fit_calibration([maps], "global", 2.0)
    assert calibration.blur is None and calibration.mean["a"].shape == (1, 1, 1, 1)
    pixels = maps["a"].double().numpy()
    z = calibration.apply({"a": maps["a"] + 1})["a"]
    expected = (pixels + 1 - pixels.mean()) / (pixels.std() + 1e-6)
    np.testing.assert_allclose(z, expected, rtol=1e-4, atol=1e-4)


def test_position_by_hand():
    """Cell moments of the log, blurred, shrunk by PRIOR images' worth of the global ones."""
    maps = aligned(3)
    calibration, cells = fit_calibration([maps], "position", 1.5)
    calibration = refit(Calibration("position", 2.0, 1.5, calibration.offset), cells)
    pixels = maps["a"].double().numpy()
    offset = OFFSET * pixels.mean()
    assert calibration.offset["a"] == pytest.approx(offset)
    logs = np.log(gaussian_filter(pixels, (0, 0, 1.5, 1.5), mode="mirror", radius=(0, 0, 5, 5))
                  + offset)[:, 0].reshape(3, GRID, 3, GRID, 2)
    first, second = (part.mean((0, 2, 4)) for part in (logs, logs ** 2))
    mean, variance = first.mean(), second.mean() - first.mean() ** 2
    first, second = (gaussian_filter(m, 2.0, mode="mirror", radius=6) for m in (first, second))
    weight = 3 / (3 + PRIOR)
    np.testing.assert_allclose(calibration.mean["a"][0, 0], weight * first + (1 - weight) * mean,
                               rtol=1e-4)
    np.testing.assert_allclose(
        calibration.std["a"][0, 0],
        np.sqrt(weight * (second - first ** 2) + (1 - weight) * variance), rtol=1e-3)


def test_position_is_two_sided_and_global_is_not():
    """A missing edge, easy to reconstruct, has too low an error for its place."""
    missing = {"a": torch.full((1, 1, 192, 128), 0.11)}
    position, _ = fit_calibration([aligned(8)], "position", 0.0)
    one, _ = fit_calibration([aligned(8)], "global", 0.0)
    z = position.apply(missing)["a"]
    assert z[..., 41:43].mean() > 3 * z[..., 80:].mean() and z.min() >= 0
    assert one.apply(missing)["a"].max() < 0


def test_auto_takes_position_for_aligned_and_global_for_unaligned_maps():
    for maps, kind in ((aligned(8), "position"), (unaligned(8), "global")):
        calibration, _ = fit_calibration([maps], "auto", 2.0)
        assert calibration.kind == kind and (calibration.blur is None) == (kind == "global")
        best = max(calibration.evidence, key=calibration.evidence.get)
        assert best.startswith(kind) and len(calibration.evidence) == 5
        assert f"{calibration.evidence['global']:.3f}" in calibration.describe()


def test_the_mask_keeps_one_mean_and_std_beside_a_map_of_positions():
    both = {"a@0": aligned(8)["a"], "mask@0": unaligned(8)["a"]}
    calibration, cells = fit_calibration([both], "auto", 2.0)
    assert calibration.kind == "position" and calibration.mean["a@0"].shape[-1] == GRID
    alone, _ = fit_calibration([{"a@0": both["a@0"]}], "auto", 2.0)
    assert calibration.evidence == alone.evidence
    torch.testing.assert_close(calibration.mean["a@0"], alone.mean["a@0"])
    z = calibration.apply(both)
    logs = log_map(both["mask@0"], calibration.offset["mask@0"], 2.0)
    torch.testing.assert_close(z["mask@0"], (logs - logs.mean()) / logs.std(), rtol=1e-3, atol=1e-3)
    assert z["mask@0"].min() < 0 <= z["a@0"].min()
    alone, _ = fit_calibration([{"mask@0": both["mask@0"]}], "position", 2.0)
    assert alone.kind == "global"
    others = refit(calibration, dict(leave_one_out(cells))[0])
    assert others.mean["mask@0"].shape == (1, 1, 1, 1)


def test_batches_make_no_difference():
    maps = aligned(5)["a"]
    whole, _ = fit_calibration([{"a": maps}], "auto", 2.0)
    parts, _ = fit_calibration([{"a": maps[:2]}, {"a": maps[2:]}], "auto", 2.0)
    torch.testing.assert_close(parts.mean["a"], whole.mean["a"])
    torch.testing.assert_close(parts.std["a"], whole.std["a"])
    assert parts.evidence == pytest.approx(whole.evidence)


def test_log_map_of_nothing_is_finite():
    flat = log_map(torch.zeros(1, 1, 9, 9), 0.0, 2.0)
    assert torch.isfinite(flat).all()
    assert torch.isfinite(log_map(torch.full((1, 1, 9, 9), -1e-9), 0.0, 0.0)).all()


def test_likelihood_is_the_gaussian_one_of_held_out_pixels():
    """Global: every image's pixels under the normal density of all other images' pixels."""
    maps = aligned(4)
    expected = []
    for index in range(4):
        rest = maps["a"][[i for i in range(4) if i != index]].double()
        std, mean = torch.std_mean(rest, correction=0)
        density = torch.distributions.Normal(mean, std + 1e-6)
        expected.append(density.log_prob(maps["a"][index].double()).mean())
    ours = held_out_likelihood(moments(maps), None)  # leaves out the density's constant
    assert ours - 0.5 * np.log(2 * np.pi) == pytest.approx(np.mean(expected), rel=1e-4)


def test_leave_one_out_leaves_out_one():
    cells = {"a": torch.arange(3.0).view(3, 1, 1, 1)}
    assert [(i, c["a"].flatten().tolist()) for i, c in leave_one_out(cells)] == [
        (0, [1, 2]), (1, [0, 2]), (2, [0, 1])]


def test_image_calibration_erases_how_strange_an_image_is():
    maps = torch.rand(2, 1, 8, 9)
    maps[1] = maps[0] * 100 + 7
    z = Calibration("image", {}, {}).apply({"a": maps})["a"]
    torch.testing.assert_close(z[0], z[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["global", "position", "image"])
def test_constant_maps_stay_finite(kind):
    flat = {"a": torch.full((3, 1, 20, 30), 0.5)}
    calibration, _ = fit_calibration([flat], kind, 1.0)
    assert calibration.apply(flat)["a"].abs().max() < 0.1  # rounding of 0.5, over eps
    assert torch.isfinite(calibration.apply({"a": flat["a"] + 1})["a"]).all()
