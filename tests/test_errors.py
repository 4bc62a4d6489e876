"""Error maps against naive numpy and scikit-image."""

import numpy as np
import pytest
import torch

from ad import InputError
from ad.errors import error_maps
from ad.ssim import ssim_map


def pair(shape=(2, 3, 40, 56)):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, generator=generator)
    return x, (x + 0.2 * torch.rand(shape, generator=generator)).clamp(0, 1)


def test_error_maps_by_hand():
    x, y = pair()
    maps = error_maps(x, y, ("mse", "ssim"))
    assert all(m.shape == (2, 1, 40, 56) for m in maps.values())
    np.testing.assert_allclose(maps["mse"][:, 0], ((x - y) ** 2).mean(1), atol=1e-6)
    similarity = ssim_map(y, x, 1.0, padding="reflect").mean(1)
    np.testing.assert_allclose(maps["ssim"][:, 0], 1 - similarity, atol=1e-6)
    assert list(error_maps(x, y, ("ssim",))) == ["ssim"]


def test_a_map_of_another_model_is_refused():
    with pytest.raises(InputError, match="--error elbo is not one of this model's"):
        error_maps(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16), ["elbo"])
