"""The U-Net autoencoder (Ronneberger et al., MICCAI 2015) and build_model."""

from collections.abc import Callable
from importlib import import_module

import torch
import torch.nn as nn
import torch.nn.functional as F

from ad import InputError
from ad.config import DAMAGE, MODELS
from ad.damage import FAMILIES, damage
from ad.ranks import shard, total
from ad.errors import error_maps
from ad.gradients import exposure
from ad.ssim import ssim_loss

MOMENTUM = 0.01  # of the mean brightness of training images
GAMMA = 2.0  # of the focal loss
SSIM_WEIGHT = 0.84  # Zhao et al., "Loss Functions for Image Restoration", 2017


def conv_block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3 x 3 convolutions with batch norm and ReLU, size kept."""
    layers = []
    for channels in (in_channels, out_channels):
        layers += [nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
                   nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def mask_losses(logits: torch.Tensor, masks: torch.Tensor) -> tuple:
    """Focal loss (Lin et al., ICCV 2017; per pixel, mean) and Dice loss (over the batch)."""
    cross = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    probability = logits.sigmoid()
    focal = (cross * (probability - masks).abs() ** GAMMA).mean()
    overlap, area = total(torch.stack([(probability * masks).sum(),
                                       probability.sum() + masks.sum()]))
    return focal, 1 - (2 * overlap + 1) / (area + 1)


class UNetAutoencoder(nn.Module):
    """U-Net with skip connections that repairs its input, or reproduces it.

    width: channels of the first level, doubled at each of `depth` halvings. objective "repair":
    the input of training is damaged (families: see ad.damage), the target is the clean image, and
    a fourth output channel is the logit of "damaged here"; "reconstruct": both are the same.
    patch: the first level works on blocks of patch x patch pixels, as so many more channels, and
    the head takes them apart again: faster, and it sees farther. Any image size works: the input is
    replicate-padded to a multiple of patch * 2 ** depth and the output cropped back.
    brightness: mean of the images that it learned from, 0 before; whole images are brought to it,
    see gain. memory: of its features at normal images, see ad.fitting; None before.
    """
    STRIDE = 8  # pixels; of the features that are remembered

    def __init__(self, width: int = 32, depth: int = 4, objective: str = "repair",
                 damage: tuple | list = DAMAGE, patch: int = 1):
        super().__init__()
        if width < 1 or not 1 <= depth <= 7 or not 1 <= patch <= 8:
            raise ValueError("U-Net needs --width >= 1, --depth 1 to 7 and --patch 1 to 8, got "
                             f"{width}, {depth} and {patch}")
        if objective not in ("repair", "reconstruct") or not set(damage) <= FAMILIES.keys():
            raise ValueError("objective must be repair or reconstruct, damage of "
                             f"{', '.join(FAMILIES)}; got {objective} and {', '.join(damage)}")
        self.step, self.families = patch * 2 ** depth, tuple(damage)
        self.repairs = objective == "repair"
        self.patch = patch
        widths = [width * 2 ** level for level in range(depth + 1)]
        self.down = nn.ModuleList(conv_block(i, o) for i, o in zip([3 * patch ** 2] + widths,
                                                                 widths))
        self.shrink = nn.ModuleList(nn.Conv2d(o, i, 1) for i, o in zip(widths, widths[1:]))
        self.up = nn.ModuleList(conv_block(2 * w, w) for w in widths[:-1])
        self.head = nn.Conv2d(width, patch ** 2 * (3 + self.repairs), 1)
        self.register_module("memory", None)
        self.register_buffer("brightness", torch.tensor(0.0))

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        if any(key.startswith(prefix + "memory.") for key in state_dict):
            self.memory = new_memory(self)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def features(self, images: torch.Tensor) -> list:
        """(N, 3, H, W) -> [the encoder's map (N, C, H / s, W / s)], s STRIDE or what is nearest."""
        x, stride = self.blocks(images), self.patch
        for block in self.down:
            x = block(x)
            if stride >= self.STRIDE or block is self.down[-1]:
                height, width = (-(-side // stride) for side in images.shape[-2:])
                return [x[..., :height, :width].float()]
            x, stride = F.max_pool2d(x, 2), 2 * stride

    def gain(self, images: torch.Tensor) -> torch.Tensor:
        """Factors (N, 1, 1, 1) that make whole images (N, 3, H, W) as bright as those of training,
        since more or less light is no defect."""
        return torch.where(self.brightness > 0, exposure(images, self.brightness), 1.0)

    def blocks(self, images: torch.Tensor) -> torch.Tensor:
        """What the first level gets: the input, padded, in blocks of patch x patch pixels."""
        height, width = images.shape[-2:]
        x = F.pad(images, (0, -width % self.step, 0, -height % self.step), mode="replicate")
        return F.pixel_unshuffle(x, self.patch)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) in [0, 1] -> reconstruction (N, 3, H, W), float32, in (0, 1)."""
        return self.outputs(images)[:, :3].sigmoid()

    def outputs(self, images: torch.Tensor) -> torch.Tensor:
        """As forward, but logits; the fourth channel of what repairs is the mask's.

        A sigmoid keeps the reconstruction in the range of the data: SSIM multiplies luminance by
        structure, and a negative, inverted channel has both negative, their product as good as the
        true one's. Unbounded outputs get stuck there.
        """
        height, width = images.shape[-2:]
        x, skips = self.blocks(images), []
        for block in self.down[:-1]:
            skips.append(block(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.down[-1](x)
        for shrink, block, skip in zip(self.shrink[::-1], self.up[::-1], skips[::-1]):
            # A 1 x 1 convolution commutes with nearest upsampling: run it on the small side.
            x = F.interpolate(shrink(x), scale_factor=2, mode="nearest")
            x = block(torch.cat([skip, x], dim=1))
        # Half precision would round the output to 1/256, about the size of a faint defect.
        with torch.autocast(images.device.type, enabled=False):
            x = F.pixel_shuffle(self.head(x.to(self.head.weight.dtype)), self.patch)
            return x[..., :height, :width]

    def loss(self, images: torch.Tensor, generator: torch.Generator) -> dict:
        """Loss of a batch (N, 3, H, W): the homework's MSE + 0.84 (1 - SSIM), of repair
        plus focal and Dice, and all parts; of several processes that of the own images, but for
        Dice. generator: of the damage."""
        with torch.autocast(images.device.type, enabled=False):
            images = images.contiguous()  # faster for all but convolutions
            if self.training:
                step = torch.where(self.brightness > 0, MOMENTUM, 1.0)
                self.brightness.lerp_(images.mean(), step)
            damaged, masks = damage(images, generator, self.families) if self.repairs else \
                (images, None)
        images, damaged = shard(images), shard(damaged)
        output = self.outputs(damaged.contiguous(memory_format=torch.channels_last)).contiguous()
        repaired, logits = output[:, :3].sigmoid(), output[:, 3:]
        mse = F.mse_loss(repaired, images)
        ssim = ssim_loss(repaired, images, data_range=1.0)
        parts = {"loss": mse + SSIM_WEIGHT * ssim, "mse": mse.detach(), "ssim": ssim.detach()}
        if self.repairs:
            focal, dice = mask_losses(logits, shard(masks))
            parts |= {"focal": focal.detach(), "dice": dice.detach()}
            parts["loss"] = parts["loss"] + focal + dice
        return parts

    def anomaly_maps(self, images: torch.Tensor, names: tuple = ("mse", "ssim"),
                     gain: torch.Tensor | float = 1.0) -> dict:
        """(N, 3, H, W) -> {name: (N, 1, H, W)} for the names in errors.error_maps; "mask", in
        [0, 1], of what repairs; for "memory" the memory's maps, once it is there. Errors are those
        in the photographs' own light, where noise is as strong as in others; see gain."""
        output = self.outputs(images).sigmoid()
        maps = error_maps(images / gain, output[:, :3] / gain,
                          [n for n in names if n not in ("mask", "memory")])
        if self.repairs and "mask" in names:
            maps["mask"] = output[:, 3:]
        if self.memory is not None and "memory" in names:
            maps |= self.memory.anomaly_maps(images)
        if not maps:
            raise InputError(f"this model has none of the maps {', '.join(names)}")
        return maps


CLASSIFIER = "ad.models.classifier.Classifier"


def load_object(path: str) -> Callable:
    """"package.module.name" -> what it names."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def new_memory(unet: nn.Module) -> nn.Module:
    """An empty memory of the features of a U-Net, whose input has the same light everywhere."""
    return load_object(MODELS["patchcore"])(unet.features, equalise=False)


def is_classifier(name: str) -> bool:
    """Does the name stand for a model that learns from labels?"""
    return name not in MODELS and name in load_object("ad.models.classifier.classifiers")()


def model_class(name: str) -> Callable:
    """What builds the model of this name: of MODELS, or Classifier. Raises ValueError for another
    name."""
    if name in MODELS or is_classifier(name):
        return load_object(MODELS.get(name, CLASSIFIER))
    raise ValueError(f"unknown model {name!r}; there are: {', '.join(MODELS)}, and, for images "
                     "with labels, resnet, efficientnet_lite0 and torchvision's classifiers")


def build_model(name: str, **model_args) -> nn.Module:
    """Build a model by name; raises ValueError for an unknown name or argument."""
    build = model_class(name)
    return build(**model_args) if name in MODELS else build(name, **model_args)
