"""Error maps against naive numpy and scikit-image."""

import numpy as np
import pytest
import torch

from ad import InputError
from ad.errors import error_maps, gradient_magnitude, msgms_map
from ad.ssim import ssim_map


def pair(shape=(2, 3, 40, 56)):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, generator=generator)
    return x, (x + 0.2 * torch.rand(shape, generator=generator)).clamp(0, 1)


def naive_gradient(image):
    """Prewitt by loops over an edge-replicated 2-D array."""
    padded, out = np.pad(image, 1, mode="edge"), np.empty_like(image)
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            w = padded[i:i + 3, j:j + 3]
            dx = (w[:, 2].sum() - w[:, 0].sum()) / 3
            dy = (w[2].sum() - w[0].sum()) / 3
            out[i, j] = np.sqrt(dx * dx + dy * dy)
    return out


def test_gradient_magnitude_equals_loops():
    image = pair()[0][:1, :1].double()
    np.testing.assert_allclose(gradient_magnitude(image)[0, 0], naive_gradient(image[0, 0].numpy()),
                               atol=1e-6)


def test_msgms_equals_loops():
    x, y = pair()
    expected = np.zeros((40, 56))
    a, b = (t[0].double().mean(0).numpy() for t in (x, y))
    for scale in range(4):
        if scale:
            a, b = (m.reshape(m.shape[0] // 2, 2, m.shape[1] // 2, 2).mean((1, 3)) for m in (a, b))
        ga, gb = naive_gradient(a), naive_gradient(b)
        similar = (2 * ga * gb + 0.0026) / (ga ** 2 + gb ** 2 + 0.0026)
        expected += torch.nn.functional.interpolate(
            torch.from_numpy(similar)[None, None], (40, 56), mode="bilinear")[0, 0].numpy() / 4
    np.testing.assert_allclose(msgms_map(x, y)[0, 0], 1 - expected, atol=1e-5)


def test_msgms_of_equal_images_is_zero_and_small_images_work():
    x, _ = pair((1, 3, 5, 7))
    assert msgms_map(x, x).abs().max() < 1e-6
    x.requires_grad_()
    msgms_map(x, torch.full_like(x, 0.5)).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_error_maps_by_hand():
    x, y = pair()
    maps = error_maps(x, y, ("mse", "ssim", "msgms"))
    assert all(m.shape == (2, 1, 40, 56) for m in maps.values())
    np.testing.assert_allclose(maps["mse"][:, 0], ((x - y) ** 2).mean(1), atol=1e-6)
    similarity = ssim_map(y, x, 1.0, padding="reflect").mean(1)
    np.testing.assert_allclose(maps["ssim"][:, 0], 1 - similarity, atol=1e-6)
    assert list(error_maps(x, y, ("msgms",))) == ["msgms"]


def test_a_map_of_another_model_is_refused():
    with pytest.raises(InputError, match="--error elbo is not one of this model's"):
        error_maps(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16), ["elbo"])
