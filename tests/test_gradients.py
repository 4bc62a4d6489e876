"""Gradients by hand, alignment on images that are aligned or not, and light taken out."""

import math

import numpy as np
import pytest
import torch

from ad.sets.demo import render
from ad.gradients import ALIGNED, STRETCH, Gradients, alignment, equalise, exposure, light
from ad.models.angles import lies_at_any_angle, rotated


def test_gradients_of_a_ramp_point_one_way():
    ramp = torch.linspace(0, 1, 128).expand(1, 3, 48, 128)
    features = Gradients((8,))(ramp)[0]
    assert features.shape == (1, 27, 6, 16)
    energy = features[0, :8, 2, 8]  # the finest scale, away from the border; directions from +x on
    slope = 1 / 127
    for direction, value in enumerate(energy):
        part = max(0.0, slope * math.cos(direction * math.pi / 4))
        # Of all directions together the energy is 2 slope ** 2 (1 + 1/2 + 1/2).
        expected = part / math.sqrt(2 * slope ** 2 + 0.02 ** 2)
        assert value.item() == pytest.approx(expected, abs=1e-3)
    np.testing.assert_allclose(features[0, 24:, 2, 8].numpy(), ramp[0, :, 0, 64:72].mean(1),
                               atol=1e-5)


def test_gradients_turn_with_the_image_and_do_not_care_about_contrast():
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    image = image.expand(1, 3, -1, -1)
    module = Gradients((8, 16))
    first, second = module(image)
    assert second.shape == (1, 27, 4, 4)
    turned = module(image.flip(3))[0].flip(3)
    mirrored = [(4 - d) % 8 for d in range(8)]
    order = [8 * scale + d for scale in range(3) for d in mirrored] + [24, 25, 26]
    torch.testing.assert_close(turned, first[:, order], atol=1e-5, rtol=0)
    ratio = (module(image * 0.5)[0][:, :8] / first[:, :8]).mean()
    assert 0.9 < ratio < 1.0  # what is missing is the noise floor's


def test_partial_cells_are_averaged_over_what_is_there():
    assert Gradients((8,))(torch.full((1, 3, 20, 33), 0.5))[0].shape == (1, 27, 3, 5)
    assert (Gradients((8,))(torch.full((1, 3, 20, 33), 0.5))[0][:, 24:] == 0.5).all()


def test_half_precision_does_not_reach_the_gradients():
    image = torch.rand(1, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = Gradients((8,))(image)[0]
    assert torch.equal(inside, Gradients((8,))(image)[0])


def pictures(category, count, order=None):
    return [torch.from_numpy(render(category, "train", i)[0]).permute(2, 0, 1)
            for i in (range(count) if order is None else order)]


@pytest.mark.parametrize("category, aligned", [("tablet", True), ("bolt", False), ("carpet", False),
                                               ("grid", False)])
@pytest.mark.parametrize("count", [2, 4, 12])
def test_alignment_is_judged_where_the_object_is(category, aligned, count):
    """The bolt lies at any angle on a tray that is plain, and alike, in most places."""
    assert (alignment(pictures(category, count)) >= ALIGNED) == aligned


def test_alignment_of_shifted_images_by_hand():
    """The same picture, moved by more than REACH cells each time: no neighbour is at its place."""
    image = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.avg_pool2d(image, 5, 1, 2)
    assert alignment([image] * 3) == pytest.approx(1)
    moved = [image.roll(40 * i, 2) for i in range(3)]
    assert alignment(moved) < 0.05
    assert 0.9 < alignment([torch.full((3, 64, 80), 0.5)] * 2) + 1  # plain: finite, whatever it is


@pytest.mark.parametrize("category", ["tablet", "bolt", "carpet", "grid"])
def test_only_the_bolt_lies_at_any_angle(category):
    assert lies_at_any_angle(pictures(category, 12)) == (category == "bolt")


@pytest.mark.parametrize("seed", (0, 1, 2))
def test_few_bolts_of_unlucky_angles_lie_at_any_angle_too(seed):
    order = 4 * np.random.default_rng(seed).permutation(16)[:12]
    assert lies_at_any_angle(pictures("bolt", 12, order))


def test_rotated_is_numpys_quarter_turn():
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rotated(image, math.pi / 2), torch.rot90(image, 1, (2, 3)),
                               atol=1e-4, rtol=0)
    wide = torch.zeros(1, 3, 40, 80)
    wide[:, :, 8:32, 38:42] = 1  # an upright bar, which lies on its side, as long, a quarter later
    torch.testing.assert_close(rotated(wide, math.pi / 2)[0, 0, 18:22, 28:52], torch.ones(4, 24),
                               atol=0.1, rtol=0)


def test_exposing_undoes_more_or_less_light():
    image = torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(0)) * 0.6
    darker = image * torch.tensor([0.6, 1.5]).view(2, 1, 1, 1)
    found = darker * exposure(darker, torch.tensor(0.3))
    torch.testing.assert_close(found, image * (0.3 / image.mean((1, 2, 3))).view(2, 1, 1, 1))
    assert (exposure(image / 100, torch.tensor(0.3)) == STRETCH).all()  # no further


def test_equalise_takes_light_out_and_nothing_else():
    image = torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.2
    target = light(image).mean(0)
    darker = 0.7 * image + 0.05
    torch.testing.assert_close(equalise(darker, target), equalise(image, target), atol=1e-5, rtol=0)
    torch.testing.assert_close(equalise(image[:1], light(image[:1])[0]), image[:1])
    # Colours keep their relations: a red image does not turn grey.
    red = image * torch.tensor([1.0, 0.5, 0.5]).view(3, 1, 1)
    means = equalise(red, target).mean((2, 3))
    assert (means[:, 0] > means[:, 1] + 0.05).all()
    # What has hardly any contrast is not blown up to full contrast.
    dull = 0.5 + 0.01 * (image - 0.5)
    assert equalise(dull, target).std() < 1.1 * STRETCH * dull.std()
