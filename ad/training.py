"""From images in memory to checkpoints: epochs with validation, or a single pass."""

import ctypes
import json
import math
import sys
import time
from dataclasses import replace

import torch
from tqdm import tqdm

from ad import InputError, checkpoint, data, distributed
from ad.augment import augment, random_crops
from ad.batchnorm import synchronise
from ad.arguments import scoring_from
from ad.cli import autocast
from ad.cutpaste import seeded_generator
from ad.errors import ERRORS
from ad.seed import seed_everything
from ad.validation import validate


def learning_rate(args, epochs):
    """After so many epochs: constant, or a cosine that is 0 at --t-max (and back at 2 --t-max)."""
    cosine = math.cos(math.pi * epochs / (args.t_max or args.epochs))
    return args.lr * (0.5 + 0.5 * cosine if args.schedule == "cosine" else 1)


def validation_size(args):
    """Long side in pixels at which the U-Net is validated."""
    return args.crop or args.long_side[1]


def validation_scoring(args):
    """Scoring of the U-Net's validation. Windows belong to the final score; validation looks at
    whole images, as large as in training."""
    scoring = scoring_from(args)
    return replace(scoring, windows=(0,), window_input=0,
                   sigma=scoring.sigma * validation_size(args) / args.image_size)


def at_one_size(model, images, args):
    """uint8 images, resized here, to the nearest 1/255, if every epoch would resize them alike."""
    fixed, (low, high) = hasattr(model, "size"), args.long_side
    if not fixed and (args.crop or low != high):
        return images
    resized = (model.resize(data.to_float(i, i.device)[None]) if fixed else
               data.resize_long_side(i, low) for i in images)
    return [(r[0] * 255).round().byte() for r in resized]


def keep_freed_memory():
    """Have glibc keep what is freed, which every step needs again: on a CPU page faults of large
    tensors are a tenth of a step. Elsewhere nothing happens."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(-1, 2 ** 31 - 1)  # M_TRIM_THRESHOLD
    mallopt(-4, 0)  # M_MMAP_MAX


def draw_crops(model, images, generator, args):
    """A batch (N, 3, h, w) in [0, 1] of uint8 images: random crops, or whole images for a model of
    one fixed `size`."""
    if hasattr(model, "size"):
        return torch.cat([model.resize(data.to_float(image, generator.device)[None])
                          for image in images])
    draws = torch.rand(2, generator=generator, device=generator.device).tolist()
    low, high = args.long_side
    long_side = round(low + draws[0] * (high - low))
    sides = range(max(32, args.crop // 64 * 32), args.crop + 1, 32) or [long_side]
    return random_crops(images, long_side, sides[int(draws[1] * len(sides))], generator)


def require_finite(tensors, what, epoch):
    """Raise InputError unless all tensors are finite: a run that diverged is not saved."""
    if not all(torch.isfinite(tensor).all() for tensor in tensors):
        raise InputError(f"{what} not finite in epoch {epoch}; train anew with a lower --lr or "
                         "--precision fp32 (what was saved is from the epochs before)")


def train_epoch(model, data_set, optimizer, scaler, epoch, args):
    """One pass over the images: {"loss", ..., "images_per_s"}, means over images. data_set: (uint8
    images, class numbers (N,) or None)."""
    images, labels = data_set
    device = next(model.parameters()).device
    # Every epoch draws from its own seed, so a resumed run needs no random state to be exact.
    seed_everything((args.seed * 1_000_003 + epoch) % 2 ** 32)
    generator = seeded_generator(device, args.seed, epoch)
    order = torch.randperm(len(images), generator=generator, device=device).tolist()
    # Batches of equal size (+-1): a last batch of one image would upset batch normalisation.
    count = -(-len(images) // args.batch)
    if len(order) // count < distributed.size():
        raise InputError(f"batches of {len(order) // count} images are too small for "
                         f"{distributed.size()} processes; take fewer, or a larger --batch")
    batches = [order[i * len(order) // count:(i + 1) * len(order) // count] for i in range(count)]
    model.train()
    totals, start = {}, time.perf_counter()
    with tqdm(total=len(images), desc=f"epoch {epoch}/{args.epochs}", unit="img", leave=False,
              disable=distributed.rank() > 0 or not sys.stderr.isatty()) as bar:
        for number, batch in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(args, epoch - 1 + number / count)
            crops = draw_crops(model, [images[i] for i in batch], generator, args)
            if args.augment:
                crops = augment(crops, generator, args.symmetries)
            with autocast(device, args.precision):
                losses = model.loss(crops.contiguous(memory_format=torch.channels_last), generator,
                                    *([] if labels is None else [labels[batch].to(device)]))
            share = len(distributed.own(batch)) / len(batch)
            values = distributed.total(torch.stack([*losses.values()]).detach() * share).tolist()
            require_finite(torch.tensor(values[:1]), "the loss is", epoch)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(losses["loss"] * share).backward()
            distributed.sum_gradients(model)
            scaler.step(optimizer)
            scaler.update()
            for name, value in zip(losses, values):
                totals[name] = totals.get(name, 0) + value * len(batch)
            bar.update(len(batch))
            bar.set_postfix(loss=f"{totals['loss'] / bar.n:.4f}" if bar.n else "")
    require_finite(model.state_dict().values(), "the weights are", epoch)  # after the last step
    seconds = time.perf_counter() - start
    return {k: v / len(images) for k, v in totals.items()} | {"images_per_s": len(images) / seconds}


def make_optimizer(model, args):
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[args.optimizer](
        [p for p in model.parameters() if p.requires_grad], lr=args.lr,
        weight_decay=args.weight_decay, fused=True)


def print_epoch(record, better, folder, args):
    """One line about an epoch; record: that of log.jsonl."""
    left = (args.epochs - record["epoch"]) * record["seconds"]
    rates = [f"{name} {value:.3f}" for name, value in record.items()
             if name.startswith(("auroc", "acc", "bal"))]
    print((f"{folder}: " if args.parallel else "")
          + f"epoch {record['epoch']}/{args.epochs}  loss {record['loss']:.4f}  "
          f"{record['images_per_s']:.1f} images/s  {left / 60:.1f} min left"
          + (f"  validation: {' '.join(rates)}" if rates else "") + ("  best" if better else ""),
          flush=True)


def run_epochs(model, data_set, check, state, folder, args):
    """Train until --epochs or --patience; after every epoch log.jsonl, last.pt and the like.

    data_set: see train_epoch. check(): the validation's figures, among them val_loss and accuracy
    or, without it, auroc, the highest of which makes best.pt.
    """
    device, (images, labels) = next(model.parameters()).device, data_set
    data_set = at_one_size(model, images, args), labels
    synchronise(model)
    keep_freed_memory()
    optimizer = make_optimizer(model, args)
    scaler = torch.amp.GradScaler(device.type, enabled=args.precision == "fp16")
    if "optimizer" in state:
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
    for epoch in range(state["epoch"] + 1, args.epochs + 1):
        if state["stale"] >= args.patience:
            print(f"stopped early: {args.patience} validations without a better one", flush=True)
            break
        start = time.perf_counter()
        record = {"epoch": epoch} | train_epoch(model, data_set, optimizer, scaler, epoch, args)
        better = False
        if epoch % args.val_every == 0 or epoch == args.epochs:
            with autocast(device, args.precision):
                result = distributed.from_rank_0(check)
            record |= result
            # At equal figures (an easy 1.0) the lower loss decides.
            key = [result.get("accuracy", result["auroc"]), -result["val_loss"]]
            better = state["best"] is None or key > state["best"]
            state |= {"stale": 0, "best": key} if better else {"stale": state["stale"] + 1}
        record |= {"seconds": time.perf_counter() - start,
                   "lr": optimizer.param_groups[0]["lr"]}
        state |= {"epoch": epoch}
        if distributed.rank():
            continue
        weights = {"model": {k: v.cpu() for k, v in model.state_dict().items()},
                   "model_args": state["model_args"], "config": state["config"], "epoch": epoch,
                   "val_auroc": record.get("auroc"), "calibration": None}
        if better:
            checkpoint.save(folder / "best.pt", weights)
        if epoch % args.save_every == 0:
            checkpoint.save(folder / f"epoch_{epoch}.pt", weights)
        checkpoint.append_line(folder / "log.jsonl", json.dumps(record))
        checkpoint.save(folder / "last.pt", weights | {
            "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict(),
            "best": state["best"], "stale": state["stale"]})
        print_epoch(record, better, folder, args)


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
