"""What is learned in one pass, without training: a memory, also that of a trained U-Net."""

import json
import time

import torch

from ad import checkpoint, data
from ad.arguments import scoring_from
from ad.cli import autocast
from ad.errors import ERRORS
from ad.seed import seed_everything
from ad.validation import validate


def wants_places(model, scoring):
    """Is the memory of a U-Net part of what is scored? (A model that is all memory has its own.)"""
    return hasattr(model, "places") and "places" in ERRORS[scoring.error]


def remember(model, images, scoring, device, precision, seed):
    """Give a trained U-Net its memory of normal images (uint8), as large as they are scored."""
    seed_everything(seed)
    size = scoring.window_input or max(max(image.shape) for image in images)
    with autocast(device, precision):
        model.remember(data.resize_long_side(image, size).to(device) for image in images)


def fit(model, images, validation, state, folder, args):
    """Fit a model that needs one pass, no training: best.pt and the one line of log.jsonl."""
    device, start = torch.device(args.device), time.perf_counter()
    size = args.window_input or args.image_size
    with autocast(device, args.precision):
        model.fit(data.resize_long_side(image, size).to(device) for image in images)
        seconds = time.perf_counter() - start
        print(f"fitted in {seconds:.1f} s: {model.describe()}", flush=True)
        result = validate(model, validation, scoring_from(args), device, args.window_batch)
    record = {"epoch": 1, "seconds": seconds} | result
    state["model_args"]["fingerprint"] = model.fingerprint
    checkpoint.save(folder / "best.pt", {
        "model": model.cpu().state_dict(), "model_args": state["model_args"], "epoch": 1,
        "config": state["config"], "val_auroc": record["auroc"], "calibration": None})
    (folder / "log.jsonl").write_text(json.dumps(record) + "\n")
