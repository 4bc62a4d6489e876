"""Calibration by hand and against numpy; auto chooses position where position matters."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from ad.calibration import (BORDER, GRID, OFFSET, PRIOR, Calibration, choose_blur,
                            fit_calibration, held_out_likelihood, log_map, mean_moments, moments,
                            refit)


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


def framed(count, seed=0):
    """Noise that is higher at the border, as everything is that looks at surroundings."""
    generator = torch.Generator().manual_seed(seed)
    maps = 0.5 + 0.2 * torch.rand(count, 1, 192, 128, generator=generator)
    for depth, factor in ((0, 2.0), (4, 1.5)):
        inside = torch.zeros(192, 128, dtype=torch.bool)
        inside[depth + 4:192 - depth - 4, depth + 4:128 - depth - 4] = True
        maps[..., ~inside] *= factor
    return {"a": maps}


def test_border_by_hand():
    """The mean of the logarithms by distance from the edges, one standard deviation for all."""
    maps = framed(3)
    calibration, cells = fit_calibration([maps], "border", 0.0)
    assert calibration.kind == calibration.blur == "border"
    pixels = maps["a"].double().numpy()[:, 0]
    logs = np.log(pixels + OFFSET * pixels.mean()).reshape(3, GRID, 3, GRID, 2).mean((0, 2, 4))
    depth = np.minimum(np.minimum(np.arange(GRID), np.arange(GRID)[::-1]), BORDER)
    expected = np.empty_like(logs)
    for y in range(GRID):
        for x in range(GRID):
            alike = (depth[:, None] == depth[y]) & (depth[None] == depth[x])
            expected[y, x] = logs[alike].mean()
    np.testing.assert_allclose(calibration.mean["a"][0, 0], expected, rtol=1e-4)
    assert calibration.std["a"].shape == (1, 1, 1, 1)
    left = np.log(pixels + OFFSET * pixels.mean()) - np.kron(expected, np.ones((3, 2)))
    assert calibration.std["a"].item() == pytest.approx(left.std(), rel=1e-3)


def test_less_than_usual_is_not_strange():
    """A copy of a normal image is nearer to a memory than any new one, and the least strange."""
    for kind in ("global", "border", "position"):
        calibration, _ = fit_calibration([aligned(8)], kind, 0.0)
        copy, new = ({"a": factor * aligned(1, seed=5)["a"]} for factor in (0.1, 1))
        assert calibration.apply(copy)["a"].max() < calibration.apply(new)["a"].mean()


def test_auto_takes_position_for_aligned_and_border_for_unaligned_maps():
    for maps, kind in ((aligned(8), "position"), (unaligned(8), "border"), (framed(8), "border")):
        calibration, _ = fit_calibration([maps], "auto", 2.0)
        assert calibration.kind == kind and (calibration.blur == "border") == (kind == "border")
        assert len(calibration.evidence) == 5
        assert f"{calibration.evidence['border'][0]:.3f} +- " in calibration.describe()


def test_position_must_lead_by_more_than_its_standard_error():
    """Pure noise: the table of positions fits it by chance."""
    for seed in range(4):
        noise = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(seed))
        blur, evidence = choose_blur(moments({"a": noise}))
        lead = max(value for value, _ in list(evidence.values())[:-1]) - evidence["border"][0]
        assert (blur == "border") == (lead <= evidence["border"][1])
        gains = held_out_likelihood(moments({"a": noise}), 4.0) - held_out_likelihood(
            moments({"a": noise}), "border")
        if max(evidence, key=lambda n: evidence[n][0] - (n == "border") * 9) == "position, blur 4":
            assert evidence["border"][1] == pytest.approx(gains.std().item() / 2)


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
    alone, _ = fit_calibration([{"mask@0": both["mask@0"]}], "position", 2.0)
    assert alone.mean["mask@0"].shape == (1, 1, 1, 1)
    others = refit(calibration, cells, without=0)
    assert others.mean["mask@0"].shape == (1, 1, 1, 1)


def test_batches_make_no_difference():
    maps = aligned(5)["a"]
    whole, _ = fit_calibration([{"a": maps}], "auto", 2.0)
    parts, _ = fit_calibration([{"a": maps[:2]}, {"a": maps[2:]}], "auto", 2.0)
    torch.testing.assert_close(parts.mean["a"], whole.mean["a"])
    torch.testing.assert_close(parts.std["a"], whole.std["a"])
    for name, values in parts.evidence.items():
        assert values == pytest.approx(whole.evidence[name])


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
    np.testing.assert_allclose(ours - 0.5 * np.log(2 * np.pi), expected, rtol=1e-4)


def test_without_one_is_the_mean_of_the_others():
    cells = torch.rand(3, 2, GRID, GRID, dtype=torch.float64)
    torch.testing.assert_close(mean_moments(cells, 1)[0], (cells[0] + cells[2]) / 2)
    torch.testing.assert_close(mean_moments(cells)[0], cells.mean(0))


@pytest.mark.parametrize("kind", ["global", "border", "position"])
def test_constant_maps_stay_finite(kind):
    flat = {"a": torch.full((3, 1, 20, 30), 0.5)}
    calibration, _ = fit_calibration([flat], kind, 1.0)
    assert calibration.apply(flat)["a"].abs().max() < 0.1  # rounding of 0.5, over eps
    assert torch.isfinite(calibration.apply({"a": flat["a"] + 1})["a"]).all()
