"""Pseudo-anomaly validation: damage that was never seen, on normal images never trained on."""

import torch

from ad.cutpaste import SIZES, pseudo_anomalies, seeded_generator
from ad.data import resize_long_side, to_float
from ad.metrics import auroc
from ad.scoring import calibrate, score_images


def validation_set(images, size, seed):
    """Normal uint8 images -> (normals, positives, their sizes), all uint8 of long side `size`."""
    normals, positives, sizes = [], [], []
    for index, image in enumerate(images):
        small = resize_long_side(image, size)
        normals.append(small[0])
        for _, name, damaged, _ in pseudo_anomalies(small, seed, index):
            positives.append(damaged[0])
            sizes.append(name)
    to_bytes = [[(image * 255).round().byte() for image in part] for part in (normals, positives)]
    return *to_bytes, sizes


def validate(model, validation, scoring, device, window_batch):
    """Pseudo-anomaly AUROC of whole-image scores: {"auroc", "auroc_small", ..., "val_loss"}.

    val_loss is the model's own loss on the normals, mean over images, where it has one.
    """
    normals, positives, sizes = validation
    model.eval()
    saved = calibrate(model, normals, scoring, device, window_batch)
    scores = torch.cat([scores.cpu() for scores, _ in score_images(
        model, positives, saved, device, window_batch)]).tolist()
    result = {"auroc": auroc([0] * len(normals) + [1] * len(scores), saved["scores"] + scores)}
    for name in SIZES:
        part = [s for s, size in zip(scores, sizes) if size == name]
        result[f"auroc_{name}"] = auroc([0] * len(normals) + [1] * len(part),
                                        saved["scores"] + part)
    if not hasattr(model, "loss"):
        return result
    with torch.no_grad():
        losses = [model.loss(to_float(image, device)[None], seeded_generator(device, 0, i))
                  for i, image in enumerate(normals)]
    return result | {"val_loss": sum(part["loss"].item() for part in losses) / len(losses)}
