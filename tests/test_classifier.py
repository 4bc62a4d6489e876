"""Classifiers: against torchvision and scikit-learn, by hand, and through the scripts."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from ad import InputError
from ad.models import classify
from ad.models.classifier import Classifier, ResNet, grad_cam
from ad.model import build_model
from ad.samples import Sample
from conftest import run


def test_resnet_is_torchvisions():
    torch.manual_seed(0)
    theirs, ours = torchvision.models.resnet18(weights=None), ResNet()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(2, 3, 97, 130)
    for mode in (True, False):  # batch statistics, then running ones
        theirs.train(mode), ours.train(mode)
        torch.testing.assert_close(ours(images), theirs(images))
    (a,), (b,) = (torch.autograd.grad(net(images).square().sum(), [net.conv1.weight])
                  for net in (ours, theirs))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name, head", [
    ("resnet", "fc"), ("resnet18", "fc"), ("efficientnet_b0", "classifier.1"),
    ("vit_b_32", "heads.head"), ("mobilenet_v3_small", "classifier.3")])
def test_any_classifier_gets_a_head_for_the_classes(name, head, tmp_path):
    model = build_model(name, classes=["blot", "good", "gap"], side=224 if "vit" in name else 64)
    assert model.head == head
    assert model.eval()(torch.rand(2, 3, 50, 60)).shape == (2, 3)
    original = torchvision.models.get_model("resnet18" if name == "resnet" else name, weights=None)
    torch.save(original.state_dict(), tmp_path / "weights.pt")
    before = {k: v.clone() for k, v in model.net.get_submodule(head).state_dict().items()}
    model.load_pretrained(tmp_path / "weights.pt")
    for key, value in model.net.state_dict().items():
        expected = before[key.removeprefix(head + ".")] if key.startswith(head + ".") else \
            original.state_dict()[key]
        assert torch.equal(value, expected), key


def test_pretrained_weights_that_cannot_be_had_are_an_error(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no route to host")
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(InputError, match="could not be fetched .no route.*give --weights FILE"):
        Classifier("resnet18").load_pretrained()
    with pytest.raises(InputError, match="is the one from scratch"):
        Classifier("resnet").load_pretrained()
    (tmp_path / "w.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match="w.pt does not hold the weights of efficientnet_b0"):
        Classifier("efficientnet_b0").load_pretrained(tmp_path / "w.pt")


@pytest.mark.parametrize("options, message", [
    ({"classes": ["a", "b"]}, "one of them --normal-class good; there are: a, b"),
    ({"classes": ["good"]}, "two classes or more"), ({"side": 8}, "--side must be >= 32")])
def test_wrong_arguments_raise(options, message):
    with pytest.raises(ValueError, match=message):
        Classifier("resnet", **options)


def test_unknown_names_raise():
    with pytest.raises(ValueError, match="unknown model 'resnet99'"):
        build_model("resnet99")
    with pytest.raises(ValueError, match="more than one end"):
        build_model("inception_v3")


def test_loss_map_and_what_is_frozen():
    torch.manual_seed(0)
    model = Classifier("resnet", ["bad", "good"], side=32, freeze=True, class_weights=[3.0, 1.0])
    model.train()
    assert not any(module.training for module in model.net.modules())
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ["net.fc.weight",
                                                                           "net.fc.bias"]
    images, labels = torch.rand(4, 3, 40, 48), torch.tensor([0, 1, 1, 1])
    log_p = model(images).log_softmax(1)
    own = -log_p[range(4), labels] * torch.tensor([3.0, 1, 1, 1])
    torch.testing.assert_close(model.loss(images, None, labels)["loss"], own.sum() / 6)
    map_ = model.anomaly_maps(images)["mse"]
    torch.testing.assert_close(map_, log_p.exp()[:, :1, None, None].expand(4, 1, 40, 48))


def test_grad_cam_of_pooling_and_a_linear_layer_is_the_class_activation_map():
    """There the gradient is the layer's weight, so that it is CAM (Zhou et al., CVPR 2016)."""
    torch.manual_seed(0)
    model = Classifier("resnet", ["bad", "good"], side=128).eval()
    images, kept = torch.rand(2, 3, 128, 128), []
    model.net.layer4.register_forward_hook(lambda *a: kept.append(a[2].detach()))
    cam, winners = grad_cam(model, images)
    expected = torch.einsum("nchw,nc->nhw", kept[0], model.net.fc.weight[winners])[:, None].relu()
    expected = F.interpolate(expected / expected.amax((2, 3), keepdim=True), (128, 128),
                             mode="bilinear")
    torch.testing.assert_close(cam, expected.detach(), atol=1e-5, rtol=1e-4)
    assert winners.tolist() == model(images).argmax(1).tolist()


def samples_of(counts):
    return [Sample(f"{name}{i}", "c", name, -1, None)
            for name, count in counts.items() for i in range(count)]


def test_the_split_is_stratified_complete_and_seeded():
    samples = samples_of({"good": 50, "dent": 10, "scratch": 3})
    parts = classify.stratified_split(samples, 0)
    counts = [[sum(s.defect == name for s in part) for part in parts]
              for name in ("good", "dent", "scratch")]
    assert counts == [[30, 10, 10], [6, 2, 2], [1, 1, 1]]
    assert sorted(s.path for part in parts for s in part) == sorted(s.path for s in samples)
    assert classify.stratified_split(samples, 0) == parts
    assert classify.stratified_split(samples, 1) != parts
    with pytest.raises(InputError, match="the class dent has only 2 images"):
        classify.stratified_split(samples_of({"good": 5, "dent": 2}), 0)


def test_weights_and_metrics():
    labels = np.array([0] * 6 + [1] * 3 + [2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert classify.balanced_weights(labels, 3) == pytest.approx(expected.tolist())
    probabilities = np.array([[.8, .1, .1], [.2, .7, .1], [.6, .3, .1], [.3, .3, .4]])
    found = classify.classification_metrics(probabilities, [0, 1, 1, 2], ["a", "b", "good"], 2)
    assert found["accuracy"] == 0.75 and found["balanced_accuracy"] == pytest.approx(2.5 / 3)
    assert found["confusion"] == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert found["classes"]["b"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3),
                                     "images": 2.0}
    assert found["classes"]["a"]["precision"] == 0.5 and found["auroc"] == 1.0
    assert found["val_loss"] == pytest.approx(-np.log([.8, .7, .3, .4]).mean())


OPTIONS = ("--side", 64, "--epochs", 2, "--batch", 8)


def test_models_train_on_an_mvtec_category_and_stand_in_one_table(tiny, tmp_path):
    where = ("--data", tiny, "--category", "stripes")
    for model in ("resnet", "efficientnet_b0"):
        result = run("train.py", *where, "--model", model, *OPTIONS, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert "everything starts random" in result.stdout and "balanced" in result.stdout
    folder = tmp_path / "runs/stripes-classes/resnet-seed0"
    config, test = (json.loads((folder / f"{n}.json").read_text()) for n in ("config", "test"))
    # 12 + 4 good ones, 4 of each defect.
    assert [len(config[part]) for part in ("train", "validation", "anomalous", "test")] == [
        14, 3, 2, 5]
    assert len(set(config["train"] + config["validation"] + config["anomalous"]
                   + config["test"])) == 24
    assert np.sum(test["confusion"]) == 5 and set(test["classes"]) == {"good", "blot", "gap"}
    assert Image.open(folder / "confusion.png").width > 100
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert {"loss", "accuracy", "balanced_accuracy", "lr", "seconds"} <= records[0].keys()
    result = run("train.py", *where, "--model", "patchcore", "--layers", 8, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    result = run("infer.py", *where, "--separately", "--masks", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "results/metrics.json").read_text())["categories"]
    assert found["stripes-classes/resnet-seed0"]["images"] == 5
    assert found["stripes-classes/resnet-seed0"]["auroc"] == pytest.approx(test["auroc"])
    assert found["stripes-classes/resnet-seed0"]["pixel_auroc"] is None
    assert found["stripes/patchcore-seed0"]["images"] == 12
    mask = np.array(Image.open(tmp_path / "results/masks/stripes/patchcore-seed0/blot/000.png"))
    assert mask.shape == (64, 80, 3) and set(np.unique(mask)) <= {0, 255} and mask.any()
    beside = Image.open(tmp_path / "results/masks/stripes/patchcore-seed0/blot/000_beside.png")
    assert beside.size == (240, 64)
    assert not (tmp_path / "results/masks/stripes-classes").exists()
    runs = sorted((tmp_path / "runs/stripes-classes").iterdir())
    result = run("visualize.py", "--compare", *runs, cwd=tmp_path)
    assert result.returncode == 0 and "best validation accuracy" in result.stdout, result.stderr
    result = run("visualize.py", "--ckpt", folder / "best.pt", "--detector",
                 "patchcore-seed0/best.pt", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "results/look_stripes_resnet-seed0_best.png").is_file()


def test_class_folders_train_classifiers_only(tmp_path):
    rng = np.random.default_rng(0)
    for name, value in (("ok", 60), ("dent", 200)):
        (tmp_path / "parts" / name).mkdir(parents=True)
        for i in range(8):
            image = np.clip(rng.normal(value, 20, (40, 48, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / "parts" / name / f"{i}.png")
    where = ("--data", tmp_path / "parts", "--category", "parts")
    result = run("train.py", *where, "--model", "resnet18", "--normal-class", "ok", *OPTIONS,
                 cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    test = json.loads((tmp_path / "runs/parts-classes/resnet18-seed0/test.json").read_text())
    assert set(test["classes"]) == {"ok", "dent"}
    (tmp_path / "parts/ok/7.png").unlink()  # one of 7 is kept for validation
    result = run("train.py", *where, "--model", "resnet18", "--normal-class", "ok", "--name", "x",
                 cwd=tmp_path)
    assert result.returncode == 2 and "too few images to judge by" in result.stderr
    (tmp_path / "parts/ok").rename(tmp_path / "parts/plain")  # no name of normal photographs
    for options, message in (
            (["--model", "resnet18"], "one of them --normal-class good; there are: dent, plain"),
            (["--model", "unet"], "holds class folders; they are for classifiers"),
            (["--model", "resnet18", "--width", 3], "--width is not an option of --model resnet18"),
            (["--model", "resnet77"], "unknown model 'resnet77'")):
        result = run("train.py", *where, *options, "--name", "x", cwd=tmp_path)
        assert result.returncode == 2 and message in result.stderr, result.stderr
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "runs/parts-classes/x").exists()
