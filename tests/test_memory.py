"""The memory of normal patches: Gaussians and re-weighting against naive ones, round trips."""

import io
import math

import numpy as np
import pytest
import torch
import torchvision

from ad import InputError, checkpoint, fitting, neighbours
from ad.config import Scoring
from ad.models.angles import rotated
from ad.models import memory
from ad.sets.demo import render
from ad.models.memory import ALIGNED, ANGLES, GAUSSIAN, PatchMemory
from ad.neighbours import SHRINKAGE, gaussians
from ad.model import build_model
from ad.ssim import gaussian_blur
from conftest import CONFIG


def images(count, height=64, width=80, seed=0):
    """A bright bar at one place, on noise: (count, 3, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    result = 0.3 + 0.05 * torch.rand(count, 3, height, width, generator=generator)
    result[:, :, 16:48, 24:32] += 0.5
    return result


def texture(count, height=64, width=80):
    """Crops of one blotchy texture at random places."""
    generator = torch.Generator().manual_seed(0)
    whole = gaussian_blur(torch.rand(1, 3, 256, 256, generator=generator), 13, 2.0)[0]
    corners = torch.randint(0, 256 - width, (count, 2), generator=generator).tolist()
    return 0.5 + 3 * (torch.stack([whole[:, y:y + height, x:x + width] for y, x in corners]) - 0.5)


def fitted(train, seed=0, **options):
    torch.manual_seed(seed)
    model = PatchMemory(**options)
    model.fit(train.split(5))
    return model


def test_gaussians_are_numpys_mahalanobis_distances():
    sets = torch.randn(3, 30, 4, generator=torch.Generator().manual_seed(0))
    sets[1] *= 3
    centre, whitening = gaussians(sets)
    local = [np.cov(s.double().numpy().T, bias=True) for s in sets]
    query = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    for i in range(3):
        weight = 30 / (30 + SHRINKAGE)
        covariance = weight * local[i] + (1 - weight) * np.mean(local, 0) + 0.01 * np.eye(4)
        off = (query[i] - sets[i].mean(0)).double().numpy()
        expected = np.sqrt(off @ np.linalg.inv(covariance) @ off)
        found = (whitening[i] @ (query[i] - centre[i])).norm().item()
        assert found == pytest.approx(expected, rel=1e-4)


def test_what_lies_at_any_angle_is_remembered_at_several(monkeypatch):
    """A part at an angle that no normal image shows is normal; without turned copies it is not."""
    bar = torch.full((1, 3, 64, 64), 0.5)
    bar[:, :, 30:34, 16:48] = 1
    bar[:, :, 26:30, 40:48] = 0.8
    train = torch.cat([rotated(bar, 0.01 * i) for i in range(12)])
    test = rotated(bar, math.pi / 4)
    found = []
    for turned in (True, False):
        monkeypatch.setattr("ad.models.angles.lies_at_any_angle", lambda images: turned)
        monkeypatch.setattr("ad.models.memory.alignment", lambda images: 0.1)
        model = fitted(train, distance="neighbours", coreset=1.0)
        found.append(model.anomaly_maps(test)["neighbours"].max().item())
        assert model.angles == (ANGLES if turned else 1)
    assert found[0] < 0.7 * found[1]


def test_normal_is_near_and_strange_is_far():
    model = fitted(images(12))
    normal, strange = images(2, seed=1), images(2, seed=1)
    strange[:, :, 40:56, 48:64] = 0.9
    for name, far in model.anomaly_maps(strange).items():
        near = model.anomaly_maps(normal)[name]
        assert near.shape == far.shape == (2, 1, 64, 80) and near.dtype == torch.float32
        assert far[..., 44:52, 52:60].mean() > 3 * near[..., 44:52, 52:60].mean()


def test_what_is_normal_elsewhere_is_strange_here_only_with_position():
    moved = images(1, seed=1).roll(32, dims=3)
    ratios = {}
    for position in ("0", "free"):
        model = fitted(images(12), position=position, distance="neighbours", coreset=1.0)
        here = model.anomaly_maps(moved)["neighbours"][..., 20:44, 57:63].mean()
        ratios[position] = (here / model.anomaly_maps(images(1, seed=2))["neighbours"].mean())
    assert ratios["0"] > 3 * ratios["free"]


@pytest.mark.parametrize("train, radius", [(images(30), 1), (texture(30), None)])
def test_auto_looks_at_the_place_where_images_are_aligned(train, radius):
    model = fitted(train)
    assert model.radius == radius
    assert (model.evidence >= ALIGNED) == (radius is not None)
    assert f"alignment of normal images {model.evidence:.2f}" in model.describe()


@pytest.mark.parametrize("coreset", [0.1, 0.5, 1.0])
def test_coreset_is_the_share_that_is_kept(coreset):
    near = fitted(images(20), coreset=coreset, position="1")
    assert near.bank.shape == (80, round(coreset * 20), 54)
    free = fitted(images(20), coreset=coreset, position="free")
    assert free.bank.shape == (1, round(coreset * 1600), 54)


@pytest.mark.parametrize("options", [
    {}, {"position": "free"}, {"distance": "gaussian"},
    {"distance": "neighbours"}, {"position": "2", "layers": (8, 16)}])
def test_round_trip_through_a_checkpoint(options, tmp_path):
    model = fitted(images(12), **options)
    path = tmp_path / "best.pt"
    checkpoint.save(path, {"model": model.state_dict(), "config": CONFIG, "epoch": 1,
                           "val_auroc": 1.0, "calibration": None,
                           "model_args": {"name": "patchcore", **options}})
    again = checkpoint.restore_model(checkpoint.load(path), path)
    queries = images(3, seed=7)
    for name, expected in model.anomaly_maps(queries).items():
        assert torch.equal(again.anomaly_maps(queries)[name], expected)
    assert again.describe() == model.describe()


def test_many_values_are_projected_for_the_gaussians(tmp_path):
    """Unprojected whitening matrices of a wide network would not fit into memory."""
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "a.pth")
    options = {"backbone": "resnet18", "weights": str(tmp_path / "a.pth"), "position": "1"}
    model = fitted(images(8), **options)
    assert len(model.mean) == 128 + 256 and model.whitening.shape == (80, GAUSSIAN, GAUSSIAN)
    torch.testing.assert_close(model.projection.T @ model.projection, torch.eye(GAUSSIAN))
    again = build_model("patchcore", **options)
    again.load_state_dict(model.state_dict())
    maps = model.anomaly_maps(images(1, seed=2))["gaussian"]
    assert torch.equal(again.anomaly_maps(images(1, seed=2))["gaussian"], maps)


def test_same_seed_same_memory_other_seed_other_pool(monkeypatch):
    monkeypatch.setattr("ad.models.memory.POOL", 300)
    first, second, other = (fitted(images(12), seed=s, position="free") for s in (4, 4, 5))
    assert torch.equal(first.bank, second.bank)
    assert not torch.equal(first.bank, other.bank)


def test_backbone_weights_are_not_in_the_checkpoint_but_must_be_the_same(tmp_path):
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None)
    torch.save(network.state_dict(), tmp_path / "a.pth")
    options = {"backbone": "resnet18", "weights": str(tmp_path / "a.pth"), "distance": "neighbours"}
    model = fitted(images(6), **options)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    assert not any(name.startswith("trunk") for name in model.state_dict())
    assert buffer.tell() < 2e6  # ResNet-18 alone would be 45 MB
    build_model("patchcore", **options, fingerprint=model.fingerprint)
    network.conv1.weight.data += 1
    torch.save(network.state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match="made with other weights of resnet18"):
        build_model("patchcore", **options, fingerprint=model.fingerprint)
    (tmp_path / "a.pth").unlink()
    with pytest.raises(InputError, match="no file"):
        build_model("patchcore", **options, fingerprint=model.fingerprint)


def test_half_precision_around_it_changes_no_distance():
    plain = fitted(images(12))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = fitted(images(12))
        maps = half.anomaly_maps(images(2, seed=1))
    for name, expected in plain.anomaly_maps(images(2, seed=1)).items():
        torch.testing.assert_close(maps[name], expected)


def test_images_of_several_sizes():
    torch.manual_seed(0)
    model = PatchMemory()
    model.fit([images(8), images(4, 80, 64)])
    assert model.grid == (8, 10) and len(model.mean) == 54
    assert model.anomaly_maps(images(1, 50, 70))["gaussian"].shape == (1, 1, 50, 70)


def test_no_fold_of_many_images_learns_from_what_it_judges(monkeypatch):
    """Features are the numbers of images, of which a sample is learned."""
    learned = []
    for module in (neighbours, memory):
        monkeypatch.setattr(module, "ENTRIES", 12)
    monkeypatch.setattr(PatchMemory, "features", lambda self, x, grid=None: x[:, :1, ::8, ::8])
    monkeypatch.setattr(PatchMemory, "learn", lambda self, placed: learned.append(
        set((255 * placed).round().flatten().tolist())))
    shown = [torch.full((3, 64, 64), i, dtype=torch.uint8) for i in range(40)]
    *parts, last = fitting.folds(PatchMemory(equalise=False), shown[:20], shown[20:],
                                 Scoring((0,), 0), torch.device("cpu"), 0)
    assert last[1] == [] and len(parts) == 5
    assert sorted(i for _, part in parts for i in part) == list(range(20))
    assert len(learned[0]) > 35  # nearly all are somewhere
    for (_, part), known in zip(parts, learned[1:]):
        assert known == learned[0] - {20 + i for i in part}
        assert known < learned[0]


@pytest.mark.parametrize("options, expected", [
    ({"coreset": 0}, "--coreset must be in"), ({"coreset": 1.5}, "--coreset must be in"),
    ({"position": "near"}, "--position must be"), ({"position": "-1"}, "--position must be"),
    ({"distance": "mahalanobis"}, "--distance must be")])
def test_impossible_options(options, expected):
    with pytest.raises(ValueError, match=expected):
        PatchMemory(**options)


def test_light_is_no_defect_but_tone_and_colour_are():
    """The demo's carpet, remembered: a dimmer photograph is as near as it was, a stain and another
    dye are not."""
    def photograph(group, index):
        image, _, mask = render("carpet", group, index)
        return torch.from_numpy(image).permute(2, 0, 1)[None] / 255, torch.from_numpy(mask > 0)
    torch.manual_seed(0)
    model = PatchMemory()
    model.fit([photograph("train", i)[0] for i in range(16)])
    blind = PatchMemory(equalise=False)
    blind.fit([photograph("train", i)[0] for i in range(16)])

    def strangeness(image, memory=model):
        return memory.anomaly_maps(image)["gaussian"].mean().item()
    good = [photograph("good", i)[0] for i in range(4)]
    usual = max(strangeness(image) for image in good)
    dimmed = [0.6 * image for image in good]
    assert max(map(strangeness, dimmed)) < 1.01 * usual
    assert sum(strangeness(image, blind) for image in dimmed) > 1.08 * sum(
        strangeness(image, blind) for image in good)
    dyed = [image * torch.tensor([1.25, 1.0, 0.8]).view(3, 1, 1) for image in good]
    assert min(map(strangeness, dyed)) > 2 * usual
    for index in range(4):
        image, mask = photograph("stain", index)
        found = model.anomaly_maps(image)["gaussian"][0, 0]
        assert found[mask].mean() > 1.5 * found[~mask].mean()


def test_a_training_image_is_the_least_strange():
    """And near copies of it: one-sided distances have no other meaning."""
    model = fitted(images(12))
    new = model.anomaly_maps(images(4, seed=1))
    for known in (images(12)[:4], (1.02 * images(12)[:4]).clamp(0, 1)):
        for name, near in model.anomaly_maps(known).items():
            assert near.mean() < new[name].mean()
