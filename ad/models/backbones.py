"""Feature extractors for the memory: gradient energies, or networks somebody has trained."""

import hashlib
from pathlib import Path

import torch
import torch.nn as nn

from ad import InputError
from ad.gradients import Gradients
from ad.models.pretrained import (LITE0, input_statistics, load_weights, network,
                                  torchvision_models)


class Chain(nn.Module):
    """A pretrained network as a chain of parts, of which it returns the last map at each stride.

    parts: modules to apply one after the other, each (N, C, H, W) -> (N, C', H', W'). Parts after
    the last map that is wanted are dropped. mean, std: what the network's images are normalised
    with. Forward: (N, 3, H, W) in [0, 1] -> float32 maps, one per stride. Raises InputError when
    there is none at a stride.
    """

    def __init__(self, parts: list[nn.Module], strides: tuple, mean: tuple, std: tuple):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        last, x = {}, torch.zeros(1, 3, 256, 320)
        with torch.no_grad():
            for index, part in enumerate(parts):
                try:
                    x = part.eval()(x)
                except (RuntimeError, AssertionError):  # a head, which wants other shapes
                    break
                if x.ndim != 4 or x.shape[2] * 320 != x.shape[3] * 256:
                    break
                last[256 // x.shape[2]] = index
        missing = [s for s in strides if s not in last]
        if missing:
            raise InputError(f"--layers {missing[0]}: this backbone has no feature map at that "
                             f"stride; it has {', '.join(map(str, sorted(last))) or 'none'}")
        self.take = [last[s] for s in strides]
        self.parts = nn.Sequential(*parts[:max(self.take) + 1]).requires_grad_(False).eval()

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        x, maps = (images - self.mean) / self.std, {}
        for index, part in enumerate(self.parts):
            x = maps[index] = part(x)
        return [maps[index].float() for index in self.take]

    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of all weights, in order."""
        digest = hashlib.sha256()
        for tensor in self.state_dict().values():
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def parts_of_network(name: str, weights: str | Path | None) -> list[nn.Module]:
    """A pretrained network as modules to apply one after the other."""
    models = torchvision_models()
    if name != LITE0 and name.lower() not in models.list_models(module=models):
        raise InputError(f"unknown --backbone {name}; there are gradients, unet, efficientnet_lite0"
                         " and the classifiers of torchvision.models")
    model = network(name)
    load_weights(model, name, weights)
    if name == LITE0:
        return [nn.Sequential(model._conv_stem, model._bn0, model._swish), *model._blocks]
    if hasattr(model, "trunk_output"):  # RegNet
        return [model.stem, *model.trunk_output]
    return list(getattr(model, "features", None) or model.children())


def parts_of_unet(weights: str | Path | None) -> list[nn.Module]:
    """The encoder of the U-Net with this checkpoint, likewise."""
    from ad import checkpoint  # here, since a checkpoint may hold a memory, which comes from here
    if weights is None:
        raise InputError("--backbone unet needs --weights runs/<category>/<run>/best.pt")
    model = checkpoint.restore_model(checkpoint.load(weights), weights)
    if not hasattr(model, "down"):
        raise InputError(f"--weights {weights} is not a U-Net's checkpoint")
    return [nn.PixelUnshuffle(model.patch),
            *(part for block in model.down for part in (block, nn.MaxPool2d(2)))]


def load_backbone(name: str, strides: tuple,
                  weights: str | Path | None = None) -> tuple[nn.Module, str]:
    """(module, fingerprint): images (N, 3, H, W) in [0, 1] -> [(N, C, H / s, W / s) for strides].

    name: "gradients" (no weights, fingerprint ""), "unet" (the encoder of the run whose checkpoint
    `weights` is), "efficientnet_lite0" or a torchvision classifier that is a chain of convolutional
    stages. weights: file, or None for those of the package or of torchvision's weights API. Raises
    InputError when they are not there: nothing is ever left random.
    """
    if any(s < 1 for s in strides) or not strides:
        raise InputError(f"--layers must be strides in pixels, got {strides}")
    if name == "gradients":
        if weights:
            raise InputError("--backbone gradients has no weights to load, leave out --weights")
        return Gradients(strides), ""
    if weights and not Path(weights).is_file():
        raise InputError(f"no file {weights} to take the backbone's weights from")
    if name == "unet":
        chain = Chain(parts_of_unet(weights), strides, (0., 0., 0.), (1., 1., 1.))
    else:
        chain = Chain(parts_of_network(name, weights), strides, *input_statistics(name))
    return chain, chain.fingerprint()
