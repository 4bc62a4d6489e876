"""Variational autoencoders: closed forms, sizes, parameter counts, and the way through the scripts.
"""

import json

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.distributions import Normal, kl_divergence as torch_kl

from ad import InputError, checkpoint
from ad.config import Training
from ad.sets.demo_wells import render
from ad.model import build_model
from ad.models.vae import (VAE, big_conv_vae, kl_divergence, linear_vae, reparameterise,
                           small_conv_vae)
from ad.training import learning_rate
from conftest import run, write_tiny

SMALL = {"image_height": 41, "image_width": 73, "latent_dim": 8}


def test_kl_divergence_is_that_of_torch_and_of_samples():
    generator = torch.Generator().manual_seed(0)
    mu, logvar = torch.randn(2, 5, 6, generator=generator, dtype=torch.double)
    own, prior = Normal(mu, (0.5 * logvar).exp()), Normal(torch.zeros(()).double(), 1.0)
    torch.testing.assert_close(kl_divergence(mu, logvar), torch_kl(own, prior).sum(1))
    assert kl_divergence(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0
    assert kl_divergence(torch.tensor([[3.0]]), torch.zeros(1, 1)).item() == 4.5
    draws = reparameterise(mu, logvar, torch.randn(200_000, 5, 6, generator=generator).double())
    sampled = (own.log_prob(draws) - prior.log_prob(draws)).sum(2).mean(0)
    torch.testing.assert_close(sampled, kl_divergence(mu, logvar), atol=0.05, rtol=0.01)


def test_reparameterised_draws_have_the_mean_the_variance_and_gradients():
    mu, logvar = torch.tensor([[1.5, -2.0]]), torch.tensor([[0.0, 1.0]])
    mu.requires_grad_(), logvar.requires_grad_()
    noise = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(1))
    draws = reparameterise(mu, logvar, noise)
    torch.testing.assert_close(draws.mean(0), mu[0], atol=0.02, rtol=0)
    torch.testing.assert_close(draws.var(0), logvar[0].exp(), atol=0.03, rtol=0)
    draws.sum().backward()
    assert mu.grad.tolist() == [[100_000, 100_000]]
    # d(mu + e^(l/2) noise) / dl = e^(l/2) noise / 2
    torch.testing.assert_close(logvar.grad, (0.5 * logvar).exp() * noise.sum(0) / 2)


@pytest.mark.parametrize("model, millions", [
    (linear_vae, 90), (small_conv_vae, 2.5), (big_conv_vae, 12)])
def test_parameters_are_as_many_as_reported(model, millions):
    with torch.device("meta"):
        count = sum(p.numel() for p in model().parameters())
    assert count == pytest.approx(millions * 1e6, rel=0.03)


@pytest.mark.parametrize("name, options", [
    ("vae", {}), ("vae", {"encoder": "resnet18"}), ("vae", {"encoder": "vit_b_16"}),
    ("linear_vae", {}), ("small_conv_vae", {}), ("big_conv_vae", {})])
def test_odd_sizes_ranges_and_the_batch(name, options):
    torch.manual_seed(0)
    model = build_model(name, **SMALL, **options).eval()
    images = torch.rand(3, 3, 50, 61)
    with torch.no_grad():
        output = model(images)
        maps = model.anomaly_maps(images, ("mse", "elbo", "ssim"))
        alone = model.anomaly_maps(images[1:2], ("mse", "elbo", "ssim"))
    assert output.shape == images.shape and 0 < output.min() and output.max() < 1
    assert model.decode(torch.zeros(2, 8)).shape == (2, 3, 41, 73)
    for key, map_ in maps.items():
        assert map_.shape == (3, 1, 50, 61)
        torch.testing.assert_close(map_[1:2], alone[key], atol=1e-5, rtol=1e-4)


def test_the_loss_is_the_negative_evidence_lower_bound_up_to_constants():
    """-E[log N(x; decoded, 1)] + KL, by torch.distributions, for the same draw."""
    torch.manual_seed(0)
    model = small_conv_vae(**SMALL).eval()
    images = torch.rand(4, 3, 41, 73)
    parts = model.loss(images, torch.Generator().manual_seed(5))
    mu, logvar = model.encode(images)
    noise = torch.randn(4, 8, generator=torch.Generator().manual_seed(5))
    decoded = model.decode(mu + (0.5 * logvar).exp() * noise)
    likelihood = Normal(decoded, 2 ** -0.5).log_prob(images) - Normal(0.0, 2 ** -0.5).log_prob(
        torch.zeros(()))
    kl = torch_kl(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum(1)
    expected = (kl - likelihood.sum((1, 2, 3))).mean() / images[0].numel()
    torch.testing.assert_close(parts["loss"], expected)
    torch.testing.assert_close(parts["kl"], kl.mean())
    torch.testing.assert_close(parts["loss"], parts["mse"] + parts["kl"] / images[0].numel())


def test_elbo_maps_add_the_kl_and_draws_are_the_same_every_time():
    torch.manual_seed(0)
    model = small_conv_vae(**SMALL, beta=2.0).eval()
    images = torch.rand(2, 3, 41, 73)
    with torch.no_grad():
        maps = model.anomaly_maps(images, ("mse", "elbo"))
        mu, logvar = model.encode(images)
        share = 2 * kl_divergence(mu, logvar) / (3 * 41 * 73)
        torch.testing.assert_close((maps["elbo"] - maps["mse"]).mean((1, 2, 3)), share)
        torch.testing.assert_close(maps["mse"][:, 0], (model(images) - images).square().mean(1))
        model.latent_samples = 3
        drawn = [model.anomaly_maps(images, ("mse",))["mse"] for _ in range(2)]
        noise = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
        each = [(model.decode(mu + (0.5 * logvar).exp() * n) - images).square().mean(1, True)
                for n in noise]
    torch.testing.assert_close(drawn[0], drawn[1], atol=0, rtol=0)
    torch.testing.assert_close(drawn[0], torch.stack(each).mean(0))


@pytest.mark.parametrize("name, features", [("resnet18", 512), ("vit_b_16", 768)])
def test_pretrained_encoders_are_torchvisions_without_the_head(name, features, tmp_path):
    torch.manual_seed(1)
    whole = torchvision.models.get_model(name, weights=None).eval()
    torch.save(whole.state_dict(), tmp_path / "weights.pt")
    model = VAE(encoder=name, image_height=224, image_width=224, latent_dim=4).eval()
    model.load_pretrained(tmp_path / "weights.pt")
    head, captured = whole.fc if name == "resnet18" else whole.heads, []
    head.register_forward_hook(lambda _, inputs, __: captured.append(inputs[0]))
    images = torch.rand(1, 3, 224, 224)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406),
                                                         (0.229, 0.224, 0.225)))
    with torch.no_grad():
        whole((images - mean) / std)
        torch.testing.assert_close(model.encoder(images), captured[0], atol=1e-4, rtol=1e-4)
    assert captured[0].shape == (1, features)
    (tmp_path / "other.pt").write_bytes(b"no weights")
    with pytest.raises(InputError, match=f"other.pt does not hold the weights of {name}"):
        model.load_pretrained(tmp_path / "other.pt")
    with pytest.raises(InputError, match="are for --encoder resnet18 and vit_b_16"):
        small_conv_vae().load_pretrained(tmp_path / "weights.pt")


@pytest.mark.parametrize("bad", [{"encoder": "mlp"}, {"image_height": 8}, {"beta": -1.0},
                                 {"latent_samples": -1}, {"latent_dim": 0}])
def test_wrong_arguments_raise(bad):
    with pytest.raises(ValueError, match="VAE needs"):
        VAE(**bad)


OPTIONS = ("--image-height", 32, "--image-width", 40, "--latent-dim", 8, "--epochs", 2, "--batch",
           6, "--val-every", 1)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    root = tmp_path_factory.mktemp("two")
    write_tiny(root, "stripes")
    return write_tiny(root, "bands", seed=1)


def test_merged_and_separate_training_are_compared_in_one_command(two, tmp_path):
    for which in (["--all"], ["--merge-categories", "bands", "stripes"]):
        result = run("train.py", "--data", two, "--model", "vae", *OPTIONS, *which, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    config = json.loads((tmp_path / "runs/bands+stripes/vae-seed0/config.json").read_text())
    assert len(config["train"]) + len(config["validation"]) == 24
    result = run("infer.py", "--data", two, "--merge-categories", "bands", "stripes",
                 "--threshold", "best-accuracy", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "results/metrics.json").read_text())
    own = [found["categories"][name]["accuracy"] for name in ("bands", "stripes")]
    merged = [found["categories"][f"bands+stripes/{name}"]["accuracy"]
              for name in ("bands", "stripes")]
    assert found["mean, separate"]["accuracy"] == pytest.approx(np.mean(own))
    assert found["mean, merged"]["accuracy"] == pytest.approx(np.mean(merged))
    assert found["mean, all anomalous"]["accuracy"] == pytest.approx(2 / 3)
    assert "weighted mean, merged" in result.stdout


def test_encoders_train_and_are_compared(two, tmp_path):
    for encoder in ("resnet18", "cnn"):
        result = run("train.py", "--data", two, "--category", "bands", "--model", "vae",
                     "--encoder", encoder, "--name", encoder, *OPTIONS, "--epochs", 1, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert ("everything starts random" in result.stdout) == (encoder == "resnet18")
    result = run("infer.py", "--data", two, "--category", "bands", "--separately", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    result = run("visualize.py", "--compare", "runs/bands/resnet18", "runs/bands/cnn",
                 cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    table = (tmp_path / "results/compare.md").read_text().splitlines()
    assert table[0].startswith("| run | stopped at epoch | training, s |") and len(table) == 4
    assert table[2].startswith("| bands/resnet18 | 1 |") and "test accuracy" in table[0]
    assert {p.name for p in (tmp_path / "results").glob("*.png")} == {
        "compare_curves.png", "compare_bars.png"}
    result = run("train.py", "--data", two, "--category", "bands", "--model", "vae", "--weights",
                 tmp_path / "none.pt", "--encoder", "resnet18", "--name", "new", cwd=tmp_path)
    assert result.returncode == 2 and "does not hold the weights of resnet18" in result.stderr
    assert not (tmp_path / "runs/bands/new").exists()


def test_the_cosine_is_torchs():
    plan = Training(lr=5e-4, schedule="cosine", t_max=100, epochs=500)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)
    for epoch in range(250):
        assert learning_rate(plan, epoch) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-9)
        optimizer.step(), scheduler.step()


def write_wells_like(root):
    """A few images in the casting layout, of several sizes."""
    names = []
    for folder, count, spilled in (("train", 12, 0), ("proliv", 4, 1), ("test/imgs", 6, None)):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            label = index % 2 if spilled is None else spilled
            Image.fromarray(render("train", index, label)).save(root / folder / f"{index}.jpg")
            names += [f"{index}.jpg {label}\n"] if spilled is None else []
    (root / "test/test_annotation.txt").write_text("".join(names))
    return root


def test_models_for_wells_train_score_and_are_looked_at(tmp_path):
    options = ("--data", write_wells_like(tmp_path / "wells"), "--category", "wells")
    for model in ("linear_vae", "small_conv_vae", "big_conv_vae"):
        result = run("train.py", *options, "--model", model, "--epochs", 1, "--image-height", 20,
                     "--image-width", 36, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert "of the anomalous validation images, AUROC" in result.stdout
        known = checkpoint.load(tmp_path / f"runs/wells/{model}-seed0/best.pt")["calibration"]
        assert len(known["positives"]) == 4
        record = json.loads((tmp_path / f"runs/wells/{model}-seed0/log.jsonl").read_text())
        assert {"mse", "kl", "val_loss", "val_loss_anomalous", "auroc_labelled"} <= record.keys()
    config = json.loads((tmp_path / "runs/wells/small_conv_vae-seed0/config.json").read_text())
    assert config["args"]["lr"] == 3e-4 and config["args"]["batch"] == 512
    result = run("infer.py", *options, "--threshold", "midpoint", "--members",
                 "small_conv_vae-seed0", "--error", "elbo", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "scoring 4 labelled anomalous validation" in result.stdout
    rows = (tmp_path / "results/scores.csv").read_text().splitlines()
    assert len(rows) == 7 and sum(",wells,,1," in row for row in rows) == 3
    result = run("visualize.py", *options[:2], "--ckpt", "runs/wells/small_conv_vae-seed0/best.pt",
                 cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "results/latent_wells_small_conv_vae-seed0_best.png").is_file()
