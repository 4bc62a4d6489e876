"""SSIM against a float64 loop written from the paper, and against scikit-image."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from ad.ssim import gaussian_blur, ssim_loss, ssim_map

SHAPE = (2, 3, 27, 34)


def pair(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(SHAPE, generator=generator, dtype=dtype)
    return x, (x + 0.2 * torch.randn(SHAPE, generator=generator, dtype=dtype)).clamp(0, 1)


def naive_ssim(x, y, data_range, size=11, sigma=1.5):
    """SSIM of two 2-D float64 arrays, one window at a time, five explicit moments."""
    g = np.array([math.exp(-((i - size // 2) ** 2) / (2 * sigma ** 2)) for i in range(size)])
    w = np.outer(g, g) / g.sum() ** 2
    out = np.empty((x.shape[0] - size + 1, x.shape[1] - size + 1))
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            a, b = x[i:i + size, j:j + size], y[i:i + size, j:j + size]
            ma, mb = (w * a).sum(), (w * b).sum()
            va, vb = (w * (a - ma) ** 2).sum(), (w * (b - mb) ** 2).sum()
            cov = (w * (a - ma) * (b - mb)).sum()
            c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
            out[i, j] = ((2 * ma * mb + c1) * (2 * cov + c2)
                         / ((ma ** 2 + mb ** 2 + c1) * (va + vb + c2)))
    return out


@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_map_equals_naive_loop(data_range):
    x, y = (t * data_range for t in pair())
    ours = ssim_map(x, y, data_range)
    assert ours.dtype == torch.float64
    for n in range(SHAPE[0]):
        for c in range(SHAPE[1]):
            reference = naive_ssim(x[n, c].numpy(), y[n, c].numpy(), data_range)
            np.testing.assert_allclose(ours[n, c], reference, rtol=0, atol=1e-10)


def test_map_and_gradient_equal_scikit_image():
    """Inside the borders, where the two paddings do not matter."""
    x, y = pair()
    x.requires_grad_()
    ours = ssim_map(x, y, 1.0, padding="reflect")
    assert ours.shape == SHAPE
    ours.sum().backward()
    for n in range(SHAPE[0]):
        for c in range(SHAPE[1]):
            _, gradient, reference = structural_similarity(
                y[n, c].numpy(), x[n, c].detach().numpy(), data_range=1.0, gaussian_weights=True,
                sigma=1.5, use_sample_covariance=False, full=True, gradient=True)
            np.testing.assert_allclose(ours[n, c, 5:-5, 5:-5].detach(), reference[5:-5, 5:-5],
                                       rtol=0, atol=1e-6)
            # Theirs is the gradient of the mean, with respect to the second image.
            np.testing.assert_allclose(x.grad[n, c, 10:-10, 10:-10],
                                       gradient[10:-10, 10:-10] * reference.size,
                                       rtol=0, atol=1e-6)


def test_gradients_against_finite_differences():
    x, y = (t[:1, :1, :13, :12].clone().requires_grad_() for t in pair())
    assert torch.autograd.gradcheck(lambda a, b: ssim_map(a, b, 1.0), (x, y))
    assert torch.autograd.gradcheck(lambda a: ssim_map(a, y.detach(), 1.0), (x,))
    assert torch.autograd.gradcheck(lambda b: ssim_map(x.detach(), b, 255.0), (y,))
    assert torch.autograd.gradcheck(lambda a, b: ssim_map(a, b, 1.0, padding="reflect"), (x, y))


def test_float32_is_close_to_float64():
    x, y = pair()
    low = ssim_map(x.float(), y.float(), 1.0)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.double(), ssim_map(x, y, 1.0), rtol=0, atol=1e-5)


def test_autocast_changes_nothing():
    x, y = pair(torch.float32)
    plain = ssim_map(x, y, 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ssim_map(x, y, 1.0), plain)


def test_loss_and_symmetry():
    x, y = pair()
    assert ssim_loss(x, x, 1.0).abs() < 1e-12
    torch.testing.assert_close(ssim_loss(x, y, 1.0), 1 - ssim_map(y, x, 1.0).mean())
    flipped = ssim_map(x.flip(-1), y.flip(-1), 1.0).flip(-1)
    torch.testing.assert_close(flipped, ssim_map(x, y, 1.0))


def test_constant_images_by_hand():
    """No variance: structure is 1, luminance is (2ab + C1) / (a^2 + b^2 + C1)."""
    a, b = torch.full((1, 1, 12, 15), 0.2), torch.full((1, 1, 12, 15), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2 ** 2 + 0.6 ** 2 + 1e-4)
    torch.testing.assert_close(ssim_map(a, b, 1.0), torch.full((1, 1, 2, 5), expected),
                               rtol=0, atol=1e-4)


def test_blur_of_an_impulse_is_the_kernel():
    image = torch.zeros(1, 1, 9, 11, dtype=torch.float64)
    image[0, 0, 4, 5] = 1
    g = np.exp(-np.arange(-2, 3) ** 2 / (2 * 0.8 ** 2))
    expected = np.zeros((9, 11))
    expected[2:7, 3:8] = np.outer(g, g) / g.sum() ** 2
    np.testing.assert_allclose(gaussian_blur(image, 5, 0.8)[0, 0], expected, atol=1e-12)


@pytest.mark.parametrize("change, message", [
    (dict(y=torch.zeros(2, 3, 27, 33)), "equal"), (dict(window_size=10), "odd"),
    (dict(window_size=29), "smaller than the ssim window"), (dict(padding="same"), "padding"),
    (dict(data_range=0), "data_range")])
def test_wrong_input_raises(change, message):
    x, y = pair()
    with pytest.raises(ValueError, match=message):
        ssim_map(**({"x": x, "y": y, "data_range": 1.0} | change))
