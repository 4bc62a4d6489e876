"""Pseudo-anomalies: their geometry against naive loops, and what every family promises."""

import itertools
import math

import numpy as np
import pytest
import torch

from ad.cutpaste import (SIZES, VISIBLE, _blend, _cut, _damages, _place, cutpaste, cutpaste_scar,
                         pseudo_anomalies, seeded_generator, texture_damage)

FAMILIES = [cutpaste, cutpaste_scar, texture_damage]
HEIGHT, WIDTH = 96, 128


def noise(count=4, height=HEIGHT, width=WIDTH, dtype=torch.float32):
    return torch.rand(count, 3, height, width, generator=seeded_generator("cpu", 7), dtype=dtype)


def change_inside(before, after, masks):
    """Mean absolute change per image over the pixels of its mask and the three channels."""
    return torch.stack([(a - b).abs()[:, m[0] > 0].mean()
                        for a, b, m in zip(after, before, masks)])


def column(*values):
    return torch.tensor(values, dtype=torch.float64).view(1, -1)


# --- geometry ---------------------------------------------------------------------------------

def test_cut_without_rotation_is_a_slice():
    images = noise(2, 40, 56, torch.float64)
    # 7 wide, 5 high: columns 30..36 and rows 10..14 receive columns 4..10 and rows 25..29.
    place = column(33.5, 12.5), column(3.5, 2.5), column(0)
    patch, mask = _cut(images[:1], place, column(7.5, 27.5), column(1))
    expected = torch.zeros(40, 56, dtype=torch.bool)
    expected[10:15, 30:37] = True
    assert torch.equal(mask[0, 0], expected)
    torch.testing.assert_close(patch[0, :, 10:15, 30:37], images[0, :, 25:30, 4:11],
                               rtol=0, atol=1e-12)


def test_cut_by_a_quarter_turn_is_rot90():
    images = noise(1, 40, 56, torch.float64)
    place = column(33.5, 12.5), column(3.5, 2.5), column(math.pi / 2)
    patch, mask = _cut(images, place, column(7.5, 27.5), column(1))
    assert mask.sum() == 35 and mask[0, 0, 9:16, 31:36].all()
    # y points down, so a positive angle turns clockwise: rot90 with k = -1.
    expected = torch.rot90(images[0, :, 25:30, 4:11], -1, (1, 2))
    torch.testing.assert_close(patch[0, :, 9:16, 31:36], expected, rtol=0, atol=1e-12)


def naive_cut(image, place, source, scale):
    """The definition, pixel by pixel: rotate back, shrink, read with float64 bilinear weights."""
    (cx, cy), (half_w, half_h), angle = place
    _, height, width = image.shape
    patch, mask = np.zeros_like(image), np.zeros((height, width), bool)
    for row, col in itertools.product(range(height), range(width)):
        dx, dy = col + 0.5 - cx, row + 0.5 - cy
        u = math.cos(angle) * dx + math.sin(angle) * dy
        v = -math.sin(angle) * dx + math.cos(angle) * dy
        if abs(u) > half_w or abs(v) > half_h:
            continue
        mask[row, col] = True
        x, y = source[0] + u / scale - 0.5, source[1] + v / scale - 0.5
        left, top = math.floor(x), math.floor(y)
        fx, fy = x - left, y - top
        patch[:, row, col] = (
            (1 - fy) * ((1 - fx) * image[:, top, left] + fx * image[:, top, left + 1])
            + fy * ((1 - fx) * image[:, top + 1, left] + fx * image[:, top + 1, left + 1]))
    return patch, mask


def test_cut_rotated_and_scaled_matches_a_naive_loop():
    images = noise(2, 40, 56, torch.float64)
    places = [((36.5, 17.5), (9.3, 4.2), 0.6), ((20.5, 24.5), (3.1, 10.4), -2.1)]
    sources, scales = [(15.2, 20.7), (38.4, 21.3)], [1.3, 0.8]
    centre, half, angle = (torch.tensor(part, dtype=torch.float64) for part in zip(*places))
    patch, mask = _cut(images, (centre, half, angle[:, None]),
                       torch.tensor(sources, dtype=torch.float64),
                       torch.tensor(scales, dtype=torch.float64)[:, None])
    for i, image in enumerate(images.numpy()):
        expected, inside = naive_cut(image, places[i], sources[i], scales[i])
        np.testing.assert_array_equal(mask[i, 0].numpy(), inside)
        np.testing.assert_allclose((patch[i] * mask[i]).numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("aspect", [(0.3, 3.3), (5, 20)])
@pytest.mark.parametrize("area", SIZES.values())
@pytest.mark.parametrize("height, width", [(96, 128), (256, 160)])
def test_placed_rectangles_have_the_drawn_area_and_lie_inside(height, width, area, aspect):
    images = torch.zeros(500, 3, height, width)
    centre, half, angle = _place(images, seeded_generator("cpu", 1), area, aspect)
    fraction = 4 * half.prod(dim=1) / (height * width)
    assert (half > 0.999).all() and (centre % 1 == 0.5).all()  # a pixel is inside any shape
    if area != SIZES["small"]:  # there, 4 pixels are the least
        assert fraction.min() >= area[0] * 0.999 and fraction.max() <= area[1] * 1.001
        assert abs(fraction.mean() / (sum(area) / 2) - 1) < 0.05
    corners = torch.tensor([[1., 1], [1, -1], [-1, 1], [-1, -1]]) * half[:, None]
    cos, sin = angle.cos(), angle.sin()
    x = centre[:, :1] + cos * corners[..., 0] - sin * corners[..., 1]
    y = centre[:, 1:] + sin * corners[..., 0] + cos * corners[..., 1]
    assert x.min() > -0.51 and x.max() < width + 0.51  # half a pixel: centres are snapped
    assert y.min() > -0.51 and y.max() < height + 0.51


# --- what every family promises ---------------------------------------------------------------

@pytest.mark.parametrize("make", FAMILIES)
@pytest.mark.parametrize("size", SIZES)
def test_mask_area_tracks_the_drawn_area(make, size):
    low, high = SIZES[size]
    images = torch.full((90, 3, 160, 256), 0.5)
    _, masks = make(images, seeded_generator("cpu", 3), area=(low, high))
    fraction = masks.mean(dim=(1, 2, 3))
    assert abs(fraction.mean() / ((low + high) / 2) - 1) < 0.15
    assert fraction.max() < 1.5 * high


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", FAMILIES)
def test_masks_range_and_untouched_pixels(make, dtype):
    images = noise(8, dtype=dtype)
    original = images.clone()
    out, masks = make(images.requires_grad_(), seeded_generator("cpu", 5))
    images = images.detach()
    assert torch.equal(images, original)
    assert out.shape == images.shape and masks.shape == (8, 1, HEIGHT, WIDTH)
    assert out.dtype == masks.dtype == dtype and not out.requires_grad
    assert set(masks.unique().tolist()) == {0, 1} and masks.any(dim=(1, 2, 3)).all()
    assert out.min() >= 0 and out.max() <= 1
    outside = (masks == 0).expand_as(out)
    assert torch.equal(out[outside], images[outside])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", FAMILIES)
def test_change_is_visible_even_on_plain_images(make, size):
    ramp = torch.linspace(0, 1, WIDTH).expand(3, HEIGHT, WIDTH)
    halves = (ramp > 0.5).float()
    plain = [torch.full_like(ramp, level) for level in (0, 0.02, 0.5, 0.98, 1)]
    images = torch.stack([*plain, ramp, halves] * 8)
    out, masks = make(images, seeded_generator("cpu", 11), area=SIZES[size])
    assert change_inside(images, out, masks).min() >= VISIBLE * 0.999
    assert out.min() >= 0 and out.max() <= 1


@pytest.mark.parametrize("level", [0, 0.5, 1, 0.499])
def test_an_identical_patch_is_made_visible(level):
    images = torch.full((50, 3, 16, 24), float(level))
    mask = torch.zeros(50, 1, 16, 24, dtype=torch.bool)
    mask[:, :, 4:9, 5:7] = True
    out, masks = _blend(images, images, mask, seeded_generator("cpu", 2))
    change = change_inside(images, out, masks)
    assert change.min() > 0.149 and change.max() < 0.401
    assert change.std() > 0.03  # drawn per image, not one constant shift


def test_a_visible_patch_is_pasted_as_it_is():
    images, patch = torch.zeros(1, 3, 16, 24), torch.full((1, 3, 16, 24), 0.04)
    out, masks = _blend(images, patch, torch.ones(1, 1, 16, 24) > 0, seeded_generator("cpu", 2))
    assert torch.equal(out, patch) and masks.all()


@pytest.mark.parametrize("make", FAMILIES)
def test_tiny_images_and_tiny_areas_still_get_a_mask(make):
    _, masks = make(noise(5000, 8, 11), seeded_generator("cpu", 4), area=(1e-6, 1e-5))
    pixels = masks.sum(dim=(1, 2, 3))
    assert pixels.min() >= 1 and pixels.max() <= 12
    assert 2.5 < pixels.mean() < 6  # drawn far below a pixel, raised to 2 x 2 or pi
    _, masks = make(noise(20, 8, 64), seeded_generator("cpu", 4), area=(0.8, 0.9))
    assert masks.any(dim=(1, 2, 3)).all()


def test_a_patch_comes_from_another_place():
    images = noise(64)
    out, masks = cutpaste(images, seeded_generator("cpu", 6), area=(0.02, 0.03))
    for before, after, mask in zip(images, out, masks):
        pair = torch.stack([part[:, mask[0] > 0].flatten() for part in (before, after)])
        assert abs(torch.corrcoef(pair)[0, 1]) < 0.3  # a recoloured copy in place would give ~ 1


def test_each_texture_damage_does_what_its_name_says():
    images = noise(2) * 0.2 + 0.4
    v = torch.arange(HEIGHT).view(1, -1, 1).expand(2, HEIGHT, WIDTH) + 0.5
    blurred, noisy, shuffled, scratched = _damages(images, seeded_generator("cpu", 8), v)
    assert blurred.std() < 0.3 * images.std()
    residual = noisy - images
    assert 0.09 < residual.std() < 0.26 and residual.mean().abs() < 0.01
    values = set(images.flatten().tolist())
    assert set(shuffled.flatten().tolist()) <= values and not torch.equal(shuffled, images)
    lines = scratched - images
    assert lines.std(dim=3).max() < 1e-6 < 0.05 < lines[:, :, :, 0].std()  # constant along u only


# --- determinism ------------------------------------------------------------------------------

@pytest.mark.parametrize("make", FAMILIES)
def test_only_the_generator_decides(make):
    images = noise(24)  # enough for every kind of texture damage to occur
    torch.manual_seed(321)  # the global generator must not matter
    first = make(images, seeded_generator("cpu", 1))
    torch.manual_seed(123)
    again = make(images, seeded_generator("cpu", 1))
    other = make(images, seeded_generator("cpu", 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first[1], other[1])
    assert not torch.equal(first[1][0], first[1][1])  # every image of a batch has its own draw


def test_seeded_generator_separates_tuples():
    seeds = [seeded_generator("cpu", *numbers).initial_seed()
             for numbers in [(1, 23), (12, 3), (123,), (1, 2, 3), (3, 12), (0, 1), (1, 0), (-1, 0)]]
    seeds += [seeded_generator("cpu", 0, 0, i).initial_seed() for i in range(100)]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2 ** 63 for seed in seeds)
    # Fixed across processes and machines: SHA-256 of "1,23", first 8 bytes, halved.
    assert seeded_generator("cpu", 1, 23).initial_seed() == 8025644964615904131
    assert seeds[0] == seeded_generator("cpu", np.int64(1), torch.tensor(23)).initial_seed()


def test_pseudo_anomalies_depend_on_seed_and_index_only():
    images = noise(3)
    alone = pseudo_anomalies(images[2:], 5, 2)
    for k in (1, 0):  # other images first: nothing may carry over
        pseudo_anomalies(images[k:k + 1], 5, k)
    again = pseudo_anomalies(images[2:].clone(), 5, 2)
    assert [row[:2] for row in alone] == list(
        itertools.product(("patch", "scar", "texture"), ("small", "medium", "large")))
    for (_, _, image, mask), (_, _, image_again, mask_again) in zip(alone, again):
        assert torch.equal(image, image_again) and torch.equal(mask, mask_again)
        assert image.shape == (1, 3, HEIGHT, WIDTH) and mask.shape == (1, 1, HEIGHT, WIDTH)
    fifth = cutpaste_scar(images[2:], seeded_generator("cpu", 5, 2, 4), SIZES["medium"])
    assert all(torch.equal(a, b) for a, b in zip(alone[4][2:], fifth))
    for seed, index in ((6, 2), (5, 3)):
        other = pseudo_anomalies(images[2:], seed, index)
        assert not any(torch.equal(a[3], b[3]) for a, b in zip(alone, other))


def test_pseudo_anomalies_have_the_size_they_name():
    for family, size, _, mask in pseudo_anomalies(noise(1, 192, 256), 0, 0):
        low, high = SIZES[size]
        assert 0.5 * low < mask.mean() < 1.3 * high, (family, size)


# --- wrong input ------------------------------------------------------------------------------

@pytest.mark.parametrize("make", FAMILIES)
def test_wrong_input_raises(make):
    generator = seeded_generator("cpu", 0)
    for shape in [(3, 32, 40), (2, 1, 32, 40), (2, 3, 7, 40)]:
        with pytest.raises(ValueError, match=r"must be \(N, 3, H, W\)"):
            make(torch.zeros(shape), generator)
    for dtype in (torch.uint8, torch.float16):
        with pytest.raises(ValueError, match="must be float32 or float64, got torch"):
            make(torch.zeros(1, 3, 32, 40, dtype=dtype), generator)
    for area in [(0, 0.1), (0.2, 0.1), (0.5, 1), (-0.1, 0.1), (math.nan, 0.1), (0.1,)]:
        with pytest.raises(ValueError, match="area must be 0 < low <= high < 1, got"):
            make(torch.zeros(1, 3, 32, 40), generator, area=area)


def test_wrong_aspect_and_wrong_batch_raise():
    for aspect in [(0, 1), (2, 1), (1, math.inf)]:
        with pytest.raises(ValueError, match="aspect must be 0 < low <= high < inf, got"):
            cutpaste(noise(), seeded_generator("cpu", 0), aspect=aspect)
    for image in (noise(2), noise(1)[0]):
        with pytest.raises(ValueError, match=r"image must be \(1, 3, H, W\)"):
            pseudo_anomalies(image, 0, 0)
