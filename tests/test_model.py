"""The U-Net: shapes, real skips, the loss by hand, batch invariance; build_model's errors."""

import math

import pytest
import torch
import torch.nn.functional as F

from ad import InputError
from ad.config import Scoring
from ad.cutpaste import seeded_generator
from ad.damage import damage
from ad.fitting import remember
from ad.model import SSIM_WEIGHT, build_model, mask_losses
from ad.scoring import raw_maps
from ad.ssim import ssim_map


def unet(**changes):
    torch.manual_seed(0)
    options = {"width": 4, "depth": 3, "objective": "reconstruct"} | changes
    return build_model("unet", **options).eval()


@pytest.mark.parametrize("patch", [1, 2, 3])
@pytest.mark.parametrize("shape", [(64, 64), (37, 50), (16, 129), (11, 11)])
def test_output_has_the_size_of_the_input(shape, patch):
    images = torch.rand(2, 3, *shape)
    assert unet(patch=patch)(images).shape == images.shape


def test_patches_keep_pixels_in_their_places():
    """With all weights 0 but those that carry each pixel of a block through, it comes out again."""
    model, images = unet(patch=2, width=12, depth=1), torch.rand(1, 3, 8, 12)
    for parameter in model.parameters():
        parameter.data.zero_()
    for block in (model.down[0], model.up[0]):
        for at in (0, 3):
            block[at].weight.data[range(12), range(12), 1, 1] = 1
            block[at + 1].weight.data.fill_((1 + 1e-5) ** 0.5)
    model.head.weight.data[range(12), range(12)] = 1
    torch.testing.assert_close(model(images).logit(), images, rtol=1e-4, atol=1e-5)


def test_padding_is_replication():
    """37 x 50 padded by hand to 40 x 56 gives the same answer."""
    model, images = unet(), torch.rand(1, 3, 37, 50)
    padded = torch.nn.functional.pad(images, (0, 6, 0, 3), mode="replicate")
    torch.testing.assert_close(model(images), model(padded)[..., :37, :50])


def test_every_skip_reaches_the_output():
    """With the path from below cut, every level's own skip still changes the output."""
    model = unet()
    for level in range(3):
        images = torch.rand(1, 3, 32, 40, requires_grad=True)
        seen = []
        handle = model.down[level].register_forward_hook(lambda m, i, o: seen.append(o) or o)
        below = model.down[level + 1].register_forward_hook(lambda m, i, o: o.detach())
        output = model(images)
        gradient, = torch.autograd.grad(output.sum(), seen[0])
        assert gradient.abs().sum() > 0
        handle.remove()
        below.remove()


def test_loss_is_mse_plus_weighted_dssim():
    model, images = unet(), torch.rand(3, 3, 32, 40)
    parts = model.loss(images, None)
    output = model(images)
    mse = ((output - images) ** 2).mean()
    dssim = 1 - ssim_map(output, images, 1.0).mean()
    torch.testing.assert_close(parts["loss"], mse + SSIM_WEIGHT * dssim)
    torch.testing.assert_close(parts["mse"] + 0.84 * parts["ssim"], parts["loss"])
    assert parts["loss"].requires_grad


def test_maps_by_hand():
    model, images = unet(), torch.rand(2, 3, 32, 40)
    maps = model.anomaly_maps(images)
    output = model(images)
    torch.testing.assert_close(maps["mse"][:, 0], ((output - images) ** 2).mean(1))
    torch.testing.assert_close(
        maps["ssim"][:, 0], 1 - ssim_map(output, images, 1.0, padding="reflect").mean(1))


def test_batch_size_changes_nothing_and_flips_are_no_noop():
    model, images = unet(), torch.rand(4, 3, 32, 48)
    whole = model(images)
    torch.testing.assert_close(torch.cat([model(i[None]) for i in images]), whole,
                               rtol=1e-4, atol=1e-5)
    assert not torch.allclose(model(images.flip(-1)).flip(-1), whole)


def test_a_few_steps_learn_to_reproduce():
    """Trained on one batch the loss falls well below that of the best constant image."""
    torch.manual_seed(0)
    model = build_model("unet", width=8, depth=2, objective="reconstruct")
    images = torch.nn.functional.interpolate(torch.rand(4, 3, 6, 8), (48, 64), mode="bilinear")
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(60):
        loss = model.loss(images, None)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    constant = images.mean((0, 2, 3), keepdim=True).expand_as(images)
    worst = (constant - images).square().mean() + 0.84 * (1 - ssim_map(constant, images, 1.).mean())
    assert loss < 0.3 * worst


def test_head_is_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert unet()(torch.rand(1, 3, 32, 32)).dtype == torch.float32


@pytest.mark.parametrize("arguments, message", [
    (dict(name="gan"), "unknown model 'gan'; there are: unet"),
    (dict(name="unet", width=0), "width >= 1"), (dict(name="unet", depth=9), "depth 1 to 7"),
    (dict(name="unet", patch=0), "patch 1 to 8"),
    (dict(name="unet", objective="copy"), "repair or reconstruct"),
    (dict(name="unet", damage=("dust",)), "dropout, perlin")])
def test_wrong_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model(**arguments)


def test_the_output_stays_in_the_range_of_the_data():
    """SSIM takes -x for x, negative luminance times negative structure, so -x must not exist."""
    images = torch.rand(2, 3, 32, 32)
    assert ssim_map(-images, images, 1.0).mean() > 0.8
    model = unet()
    with torch.no_grad():
        model.head.weight *= 1e4
    output = model(images)
    assert 0 <= output.min() < 0.01 and 0.99 < output.max() <= 1


def test_repair_damages_the_input_and_learns_the_mask():
    torch.manual_seed(0)
    model = build_model("unet", width=4, depth=2, objective="repair", damage=("dropout",))
    images = torch.rand(4, 3, 32, 48)
    assert model.outputs(images).shape == (4, 4, 32, 48) and model(images).shape == images.shape
    losses = model.loss(images, seeded_generator(torch.device("cpu"), 1))
    assert {"loss", "mse", "ssim", "focal", "dice"} == losses.keys()
    total = losses["mse"] + SSIM_WEIGHT * losses["ssim"] + losses["focal"] + losses["dice"]
    torch.testing.assert_close(losses["loss"].detach(), total)
    damaged = damage(images, seeded_generator(torch.device("cpu"), 1), ("dropout",))[0]
    torch.testing.assert_close(losses["mse"], F.mse_loss(model(damaged), images).detach())
    losses["loss"].backward()
    assert model.head.weight.grad[3].abs().sum() > 0
    assert list(model.anomaly_maps(images, ("mse", "mask"))) == ["mse", "mask"]


def test_light_is_brought_to_that_of_training():
    model = build_model("unet", width=4, depth=2)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.5
    assert (model.gain(images) == 1).all()  # nothing learned yet
    for _ in range(3):
        model.loss(images, torch.Generator().manual_seed(0))
    assert model.brightness.item() == pytest.approx(images.mean().item())
    model.eval()
    model.loss(images / 2, torch.Generator().manual_seed(0))
    assert model.brightness.item() == pytest.approx(images.mean().item())  # validation teaches none
    scoring = Scoring(windows=(0,), window_input=0, error="repaired")
    bright, dark = (raw_maps(model, x, scoring)["mask@0"] for x in (images, images * 0.7))
    torch.testing.assert_close(dark, bright, atol=1e-4, rtol=1e-3)


def test_errors_are_measured_in_the_photographs_own_light():
    """Noise is as strong in a dark photograph as in others, and no stranger for that."""
    model = build_model("unet", width=4, depth=2, objective="reconstruct").eval()
    model.brightness.fill_(0.4)
    model.outputs = lambda images: torch.full_like(images, 0.4).logit()
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.02
    scoring = Scoring(windows=(0,), window_input=0, error="both")
    usual, dark = (raw_maps(model, light + noise, scoring) for light in (0.4, 0.25))
    for name, atol in (("mse@0", 1e-5), ("ssim@0", 0.01)):
        torch.testing.assert_close(dark[name], usual[name], atol=atol, rtol=0.05)
    split = raw_maps(model, 0.25 + noise, Scoring(windows=(32,), window_input=0, error="mse"))
    torch.testing.assert_close(split["mse@32"], dark["mse@0"], atol=1e-6, rtol=1e-3)


def test_a_memory_remembers_images_in_the_light_in_which_it_is_asked():
    """Though an image is so dark that it is not brought all the way to that of training."""
    model = build_model("unet", width=4, depth=2).eval()
    model.brightness.fill_(0.8)
    dark, seen, blocks = torch.randint(60, (3, 32, 32), dtype=torch.uint8), [], model.blocks
    model.blocks = lambda images: seen.append(images) or blocks(images)
    model.memory = remember(model, [dark, dark], 32, "cpu", 0)
    raw_maps(model, dark[None] / 255, Scoring(windows=(0,), window_input=32, error="memory"))
    assert len(seen) == 4  # two images remembered; its output and its features of one scored
    for images in seen:
        torch.testing.assert_close(images, dark[None] / 255 * 2)


def test_reconstruction_has_no_mask():
    model = build_model("unet", width=4, depth=2, objective="reconstruct")
    images = torch.rand(2, 3, 32, 32)
    assert model.outputs(images).shape == (2, 3, 32, 32)
    assert model.loss(images, None).keys() == {"loss", "mse", "ssim"}
    assert list(model.anomaly_maps(images, ("mse", "mask"))) == ["mse"]
    with pytest.raises(InputError, match="none of the maps mask"):
        model.anomaly_maps(images, ("mask",))


def test_mask_losses_against_their_definitions():
    logits, masks = torch.tensor([[-2., 0.5, 3.]]), torch.tensor([[0., 1., 1.]])
    p = [1 / (1 + math.exp(-x)) for x in (-2, 0.5, 3)]
    focal = (-math.log(1 - p[0]) * p[0] ** 2 - math.log(p[1]) * (1 - p[1]) ** 2
             - math.log(p[2]) * (1 - p[2]) ** 2) / 3
    dice = 1 - (2 * (p[1] + p[2]) + 1) / (sum(p) + 2 + 1)
    for found, expected in zip(mask_losses(logits, masks), (focal, dice)):
        assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("patch, level", [(1, 3), (2, 2), (4, 1)])
def test_features_are_those_of_the_encoder_at_eight_pixels(patch, level):
    model, images = unet(patch=patch), torch.rand(2, 3, 37, 50)
    caught = []
    model.down[level].register_forward_hook(lambda module, inputs, output: caught.append(output))
    model.outputs(images)
    features, = model.features(images)
    assert features.shape == (2, 4 * 2 ** level, 5, 7)  # partial cells at the edges, no padding
    torch.testing.assert_close(features, caught[0][..., :5, :7])


def test_a_memory_of_normal_images_is_part_of_the_model():
    model = unet(objective="repair", patch=2)
    normals = torch.rand(8, 3, 32, 48)
    before = model.anomaly_maps(normals, ("mask", "memory"))
    assert list(before) == ["mask"]
    bytes_ = [(image * 255).byte() for image in normals]
    model.eval()
    model.memory = remember(model, bytes_, 48, torch.device("cpu"), 0)
    maps = model.anomaly_maps(normals, ("mask", "memory"))
    assert list(maps) == ["mask", "neighbours", "gaussian"]
    torch.testing.assert_close(maps["mask"], before["mask"])
    # A patch that none of them has is farther away than they are, where it is.
    strange = normals[:1].clone()
    strange[..., :16, :16] = 0
    found = model.anomaly_maps(strange, ("memory",))
    for name, m in found.items():
        assert m.shape == (1, 1, 32, 48)
        assert m[..., 4:12, 4:12].mean() > 1.5 * maps[name][0, 0, 4:12, 4:12].mean()
    copy = unet(objective="repair", patch=2)
    copy.load_state_dict(model.state_dict())
    again = copy.anomaly_maps(strange, ("memory",))
    assert all(torch.equal(again[name], m) for name, m in found.items())
