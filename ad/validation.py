"""Validation: damage that was never seen on normal images never trained on, or real anomalies."""

import torch

from ad.cutpaste import pseudo_anomalies, seeded_generator
from ad.data import resize_long_side, to_float
from ad.metrics import auroc
from ad.scoring import calibrate, score_images


def validation_set(images, size, seed, anomalous=()):
    """Normal uint8 images -> (normals, positives, their kinds), all uint8 of long side `size`.

    Positives are labelled `anomalous` images where there are any, otherwise pseudo-anomalies of
    the normal ones; kinds: "labelled", or those of SIZES.
    """
    normals, positives, kinds = [], [], []
    for index, image in enumerate(images):
        small = resize_long_side(image, size)
        normals.append(small[0])
        for _, name, damaged, _ in pseudo_anomalies(small, seed, index) if not anomalous else ():
            positives.append(damaged[0])
            kinds.append(name)
    for image in anomalous:
        positives.append(resize_long_side(image, size)[0])
        kinds.append("labelled")
    to_bytes = [[(image * 255).round().byte() for image in part] for part in (normals, positives)]
    return *to_bytes, kinds


@torch.no_grad()
def mean_loss(model, images, device):
    """The model's own loss, mean over uint8 images, one at a time, with fixed draws."""
    losses = [model.loss(to_float(image, device)[None], seeded_generator(device, 0, i))["loss"]
              for i, image in enumerate(images)]
    return torch.stack(losses).mean().item()


def validate(model, validation, scoring, device, window_batch):
    """AUROC of whole-image scores on a validation_set: {"auroc", "auroc_<kind>", ..., "val_loss",
    "val_loss_anomalous"}.

    val_loss is the model's own loss on the normals, mean over images, where it has one; that of
    the positives means nothing where the loss itself does damage.
    """
    normals, positives, kinds = validation
    model.eval()
    saved = calibrate(model, normals, scoring, device, window_batch)
    scores = torch.cat([scores.cpu() for scores, _ in score_images(
        model, positives, saved, device, window_batch)]).tolist()
    result = {"auroc": auroc([0] * len(normals) + [1] * len(scores), saved["scores"] + scores)}
    for name in dict.fromkeys(kinds):
        part = [s for s, kind in zip(scores, kinds) if kind == name]
        result[f"auroc_{name}"] = auroc([0] * len(normals) + [1] * len(part),
                                        saved["scores"] + part)
    if hasattr(model, "loss"):
        result["val_loss"] = mean_loss(model, normals, device)
        if not getattr(model, "repairs", False):
            result["val_loss_anomalous"] = mean_loss(model, positives, device)
    return result
