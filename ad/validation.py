"""Validation: damage that was never seen on normal images never trained on, or real anomalies."""

import torch

from ad.config import Scoring
from ad.cutpaste import pseudo_anomalies, seeded_generator
from ad.data import resize_long_side, to_float
from ad.judging import Examples, aurocs, held_out_maps, judge_best

DAMAGED = 24  # normal images, at most, of which pseudo-anomalies are made, nine of each


def make_examples(images: list, seed: int, anomalous: list | tuple = (), size: int | None = None,
                  alignment: float | None = None) -> Examples:
    """Normal uint8 images (3, H, W) -> Examples; with `size` all get this long side.

    Positives are labelled `anomalous` images where there are any, otherwise pseudo-anomalies of
    the first DAMAGED normal ones; kinds: "labelled", or those of cutpaste.SIZES.
    """
    def prepared(image):
        return resize_long_side(image, size or max(image.shape))

    def to_bytes(image):
        return (image[0] * 255).round().byte()
    normals = [to_bytes(prepared(image)) for image in images] if size else list(images)
    positives, sources, kinds = [], [], []
    for index, image in enumerate(images[:0 if anomalous else DAMAGED]):
        for _, name, damaged, _ in pseudo_anomalies(prepared(image), seed, index):
            positives.append(to_bytes(damaged))
            sources.append(index)
            kinds.append(name)
    for image in anomalous:
        positives.append(to_bytes(prepared(image)))
        sources.append(-1)
        kinds.append("labelled")
    return Examples(normals, positives, sources, kinds, alignment)


def validate(model: torch.nn.Module, examples: Examples, scoring: Scoring,
             device: torch.device | str, window_batch: int) -> dict:
    """`aurocs` of a model that has learned from none of the Examples, and "val_loss",
    "val_loss_anomalous".

    val_loss is the model's own loss on the normals, mean over images, where it has one; that of
    the positives means nothing where the loss itself does damage.
    """
    model.eval()
    maps = held_out_maps([(model, range(len(examples.normals)))], examples, scoring, device,
                         window_batch)
    result = aurocs(judge_best(*maps, examples, scoring))
    if hasattr(model, "loss"):
        result["val_loss"] = mean_loss(model, examples.normals, device)
        if not getattr(model, "repairs", False):
            result["val_loss_anomalous"] = mean_loss(model, examples.positives, device)
    return result


@torch.no_grad()
def mean_loss(model: torch.nn.Module, images: list, device: torch.device | str) -> float:
    """The model's own loss, mean over uint8 images, one at a time, with fixed draws."""
    losses = [model.loss(to_float(image, device)[None], seeded_generator(device, 0, i))["loss"]
              for i, image in enumerate(images)]
    return torch.stack(losses).mean().item()
