"""The collapse check on models whose fault is known by construction, and on trained ones."""

import re
import shutil

import pytest
import torch

from ad import InputError
from ad.pictures.collapse import collapse_check, grades, verdict
from ad.cutpaste import seeded_generator
from ad.layouts import find_samples
from ad.model import build_model
from ad.ssim import gaussian_blur
from conftest import run, write_tiny
from visualize import pick


def normals(count=4):
    """Noise on gradients of different directions: images that differ and have fine structure."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 80), indexing="ij")
    images = [0.2 + 0.5 * (x * (i % 2) + y * (1 - i % 2)) + 0.02 * i for i in range(count)]
    images = torch.stack(images)[:, None].repeat(1, 3, 1, 1)
    return (images + 0.05 * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def failing(numbers):
    return {name for name, grade in grades(numbers).items() if grade == "fails"}


class Repair:
    """Knows the clean images and gives them back whatever is pasted into them."""

    def __call__(self, images):
        return normals()


@pytest.mark.parametrize("model, expected", [
    (Repair(), set()),
    (lambda images: images, {"trace"}),
    (lambda images: torch.full_like(images, 0.5), {"contrast", "variety", "sharpness"}),
    (lambda images: normals().mean(0, keepdim=True).expand_as(images), {"variety"}),
    (lambda images: gaussian_blur(normals(), 15, 4.0), {"sharpness"}),
], ids=["repair", "identity", "grey", "average image", "blurred repair"])
def test_every_fault_is_told_apart(model, expected):
    numbers = collapse_check(model, normals(), seeded_generator("cpu", 0))
    assert failing(numbers) == expected
    assert verdict(numbers).startswith("healthy") == (not expected)


def discs(count, seed):
    """Photographs of one part, a barred disc, in light and grain that vary."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 64)] * 2, indexing="ij")
    part = 0.3 + 0.4 * (x ** 2 + y ** 2 < 0.6) * (0.6 + 0.4 * torch.sign(torch.sin(12 * x)))
    light, slope = torch.rand(2, count, 1, 1, 1, generator=generator)
    grain = 0.008 * torch.randn(count, 3, 64, 64, generator=generator)
    return (part * (0.6 + 0.8 * light) + 0.2 * slope * x + grain).clamp(0, 1)


@pytest.mark.parametrize("objective, steps, weight_decay, expected", [
    ("reconstruct", 100, 0, "usable: defects leave a weak error"),
    ("repair", 200, 0, "healthy|usable: outputs vary less than inputs"),
    ("reconstruct", 0, 0, "grey collapse"), ("reconstruct", 30, 1, "grey collapse")],
    ids=["reconstruct", "repair", "untrained", "over-regularised"])
def test_trained_networks_are_told_apart(objective, steps, weight_decay, expected):
    torch.manual_seed(0)
    model = build_model("unet", width=8, depth=3, patch=1 + (objective == "repair"),
                        objective=objective)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=weight_decay)
    generator, images = torch.Generator().manual_seed(0), discs(32, seed=1)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        optimizer.zero_grad()
        model.loss(images[torch.randint(32, (8,), generator=generator)], generator)[
            "loss"].backward()
        optimizer.step()
    numbers = collapse_check(model.eval(), discs(6, seed=2), seeded_generator("cpu", 0))
    assert re.match(expected, verdict(numbers)), numbers


def test_numbers_of_identity_repair_and_half_of_each_by_hand():
    identity = collapse_check(lambda images: images, normals(), seeded_generator("cpu", 0))
    assert identity == pytest.approx({"contrast": 1, "variety": 1, "sharpness": 1, "trace": 0.5,
                                      "copied": 1}, abs=1e-4)
    repair = collapse_check(Repair(), normals(), seeded_generator("cpu", 0))
    assert repair["copied"] == pytest.approx(0, abs=1e-4) and repair["trace"] > 0.99
    half = collapse_check(lambda images: (images + normals()) / 2, normals(),
                          seeded_generator("cpu", 0))
    assert half["copied"] == pytest.approx(0.5, abs=1e-4) and half["trace"] > 0.99


def test_verdicts_are_graded():
    fine = {"contrast": 0.9, "variety": 0.9, "sharpness": 0.6, "trace": 0.95, "copied": 0.4}
    assert verdict(fine).startswith("healthy")
    assert verdict(fine | {"sharpness": 0.3}) == "usable: fine structure is softened"
    assert verdict(fine | {"trace": 0.6, "copied": 0.6}).startswith("identity shortcut")
    assert verdict(fine | {"trace": 0.6}) == verdict(fine | {"copied": 0.6}) == \
        "usable: defects leave a weak error"
    assert verdict(fine | {"contrast": 0.1, "sharpness": 0.3}).startswith("grey collapse")


def test_pick_by_name_and_at_random(tiny):
    samples = find_samples(tiny, "stripes", "test")
    assert [s.id for s in pick(samples, ["gap/001", "003.png"], 0, 0)] == [
        "gap/001", "blot/003", "gap/003", "good/003"]
    drawn = pick(samples, None, 5, 1)
    assert [s.label for s in drawn] == [1, 1, 1, 0, 0] and drawn == pick(samples, None, 5, 1)
    assert [len(pick([s for s in samples if s.label == label], None, 4, 0)) for label in (0, 1)] \
        == [4, 4]
    assert [s.label for s in pick([samples[0], *samples[-4:]], None, 5, 0)] == [1, 0, 0, 0, 0]
    with pytest.raises(InputError, match="no test image 'x'"):
        pick(samples, ["x"], 5, 0)


def test_without_a_test_split_the_judging_images_are_looked_at(tmp_path):
    root = write_tiny(tmp_path / "data")
    shutil.rmtree(root / "stripes/test")
    result = run("train.py", "--data", root, "--category", "stripes", "--model", "patchcore",
                 "--layers", 8, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    hint, = re.findall(r"to look at it: \S+ \S*visualize.py (.*)", result.stdout)
    result = run("visualize.py", *hint.split(), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "results/look_stripes_patchcore-seed0_best.png").is_file()
    shutil.rmtree(root / "stripes/train")
    result = run("visualize.py", *hint.split(), cwd=tmp_path)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
