"""Classifiers, for the case with labels: ResNet-18 from scratch, and those of torchvision."""

from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

from ad import InputError
from ad.data import resize_to
from ad.ranks import shard, total
from ad.models.pretrained import (LITE0, input_statistics, load_weights, network,
                                  torchvision_models)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm, and the identity, or a 1 x 1 convolution, beside."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None if stride == 1 and in_channels == channels else nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        beside = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(x)) + beside).relu()


class ResNet(nn.Module):
    """ResNet-18 (He et al., "Deep residual learning", CVPR 2016): (N, 3, H, W) -> logits (N, K).

    Parameters have the names of torchvision's, so that weights go both ways.
    """

    def __init__(self, classes: int = 1000):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        width = 64
        for level, channels in enumerate((64, 128, 256, 512), start=1):
            setattr(self, f"layer{level}", nn.Sequential(
                BasicBlock(width, channels, 1 if level == 1 else 2),
                BasicBlock(channels, channels, 1)))
            width = channels
        self.fc = nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return self.fc(x.mean((2, 3)))


def classifiers() -> list[str]:
    """Names that Classifier takes."""
    models = torchvision_models()
    return ["resnet", LITE0, *models.list_models(module=models)]


class Classifier(nn.Module):
    """A classifier of images resized to side x side pixels.

    name: "resnet" (ours), "efficientnet_lite0" (of a package) or a classifier of
    torchvision.models. classes: their names; normal_class: which of them is no defect. freeze: only
    the last linear layer is trained. class_weights: of the loss. Everything starts random unless
    `load_pretrained` is called.
    """

    can_be_pretrained = True
    localises = False  # its anomaly map is one value an image

    def __init__(self, name: str, classes: list | tuple = ("good", "defect"),
                 normal_class: str = "good", side: int = 224, freeze: bool = False,
                 class_weights: list | None = None):
        super().__init__()
        if normal_class not in classes or len(set(classes)) < 2:
            raise InputError(f"a classifier needs two classes or more, one of them --normal-class "
                             f"{normal_class}; there are: {', '.join(classes)}")
        if side < 32:
            raise ValueError(f"--side must be >= 32 pixels, got {side}")
        self.name, self.classes, self.size = name, list(classes), (side, side)
        self.normal = self.classes.index(normal_class)
        self.net = ResNet() if name == "resnet" else network(name)
        linear = [n for n, module in self.net.named_modules() if isinstance(module, nn.Linear)]
        if not linear or hasattr(self.net, "aux_logits"):
            raise ValueError(f"--model {name} has no linear layer at its end, or more than one end")
        self.head = linear[-1]
        features = self.net.get_submodule(self.head).in_features
        parent, _, last = self.head.rpartition(".")
        setattr(self.net.get_submodule(parent), last, nn.Linear(features, len(classes)))
        self.frozen = freeze
        if freeze:
            self.net.requires_grad_(False)
            self.net.get_submodule(self.head).requires_grad_(True)
        weights = class_weights or [1.0] * len(classes)
        self.register_buffer("class_weights", torch.tensor(weights, dtype=torch.float32))
        self.original = "resnet18" if name == "resnet" else name  # whose weights fit
        for part, values in zip(("mean", "std"), input_statistics(self.original)):
            self.register_buffer(part, torch.tensor(values).view(3, 1, 1))

    def load_pretrained(self, weights: str | Path | None = None) -> None:
        """ImageNet's weights, but for the last layer: of a file or, without one, of torchvision's
        weights API or the package's. InputError when they cannot be had."""
        if self.name == "resnet" and weights is None:
            raise InputError("--model resnet is the one from scratch; torchvision's weights fit it:"
                             " give --weights FILE, or take --model resnet18 --pretrained")
        load_weights(self.net, self.original, weights, self.head)

    def train(self, mode: bool = True) -> "Classifier":
        """As nn.Module's; frozen batch norm keeps its statistics."""
        super().train(mode)
        if self.frozen:
            self.net.eval()
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) in [0, 1] -> logits (N, K), float32."""
        return self.net((resize_to(images, self.size) - self.mean) / self.std).float()

    def loss(self, images: torch.Tensor, generator: torch.Generator | None,
             labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Cross-entropy, weighted by class, of images whose classes are labels (N,)."""
        share = len(shard(labels)) / len(labels)
        images, labels = shard(images), shard(labels)
        # The weighted mean of the whole batch: torch divides by the weights of the own images.
        weight = self.class_weights[labels].mean()
        logits = self(images)
        return {"loss": F.cross_entropy(logits, labels, self.class_weights) * (
                    weight / total(weight * share)),
                "training_accuracy": (logits.argmax(1) == labels).float().mean().detach()}

    def anomaly_maps(self, images: torch.Tensor,
                     names: tuple = ("mse",)) -> dict[str, torch.Tensor]:
        """{"mse": (N, 1, H, W)}: everywhere 1 - P(normal), so that it is scored like a detector."""
        defect = 1 - self(images).softmax(1)[:, self.normal]
        return {"mse": defect.view(-1, 1, 1, 1).expand(-1, 1, *images.shape[-2:])}


def grad_cam(model: Classifier, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a Classifier looked: (N, 3, H, W) -> (N, 1, H, W) in [0, 1], and the classes (N,).

    The last feature map, its channels weighted by the mean gradient of the winning logit, positive
    part, each image's maximum 1. Selvaraju et al., "Grad-CAM", ICCV 2017. Raises InputError for a
    network without a feature map.
    """
    maps = []

    def keep(module, inputs, output):
        if torch.is_tensor(output) and output.ndim == 4 and min(output.shape[2:]) > 1:
            maps.append(output)
    hooks = [module.register_forward_hook(keep) for module in model.net.modules()]
    with torch.enable_grad():
        try:
            logits = model(images.detach().requires_grad_())
        finally:
            for hook in hooks:
                hook.remove()
        if not maps:
            raise InputError(f"--model {model.name} has no feature map to look at")
        winners = logits.argmax(1)
        gradient, = torch.autograd.grad(logits.gather(1, winners[:, None]).sum(), maps[-1])
    cam = (maps[-1] * gradient.mean((2, 3), keepdim=True)).sum(1, keepdim=True).relu().detach()
    cam = cam / cam.amax((2, 3), keepdim=True).clamp_min(1e-12)
    return F.interpolate(cam, images.shape[-2:], mode="bilinear").float(), winners
