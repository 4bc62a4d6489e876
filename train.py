"""Learn what normal looks like, from normal images alone.

    python train.py --category carpet --epochs 200           # one category of data/mvtec_ad
    python train.py --all --data DIR                          # every category found
    python train.py --data demo --category carpet             # no data needed
    python train.py --category carpet --epochs 300 --resume   # go on where it stopped

Writes runs/<category>/<name>/: config.json, log.jsonl, best.pt, last.pt, epoch_N.pt.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from ad import InputError, checkpoint, data
from ad.cli import (Parser, add_data_arguments, add_scoring_arguments, autocast, require,
                    run_script, scoring_from, select_device, select_precision)
from ad.cutpaste import seeded_generator
from ad.model import MODELS, build_model
from ad.scoring import Scoring, calibrate, load_calibration
from ad.seed import environment, seed_everything
from ad.validation import validate, validation_set

# Arguments that do not change what is learned up to an epoch: --resume may change them.
MAY_CHANGE = {"epochs", "patience", "save_every", "resume", "overwrite", "runs", "name", "data",
              "device", "window_batch", "all", "seeds"}


def parse_args():
    parser = Parser(__doc__)
    group = add_data_arguments(parser)
    group.add_argument("--category", help="folder name of the category to train on")
    group.add_argument("--all", action="store_true", help="train every category found")
    group.add_argument("--image-size", type=int, default=512, metavar="PX",
                       help="larger images are shrunk to this long side (default: 512)")
    group.add_argument("--val-fraction", type=float, default=0.1, metavar="SHARE",
                       help="share of the normal images kept for validation (default: 0.1)")
    group = parser.add_argument_group("model")
    group.add_argument("--model", default="unet", choices=MODELS, help="(default: unet)")
    group.add_argument("--width", type=int, default=32, help="base channels (default: 32)")
    group.add_argument("--depth", type=int, default=4, help="halvings (default: 4)")
    group = parser.add_argument_group("optimisation")
    add = group.add_argument
    add("--epochs", type=int, default=200, help="passes over the training images (default: 200)")
    add("--batch", type=int, default=32, help="images per step (default: 32)")
    add("--lr", type=float, default=1e-4, help="Adam's learning rate (default: 1e-4)")
    add("--weight-decay", type=float, default=1e-5, help="Adam's L2 penalty (default: 1e-5)")
    add("--long-side", type=int, nargs=2, default=(256, 512), metavar="PX",
        help="images are resized to a long side drawn from this range (default: 256 512)")
    add("--crop", type=int, default=256, metavar="PX", help="largest side of the random crops; "
        "each batch draws it from half of this to all of it, in steps of 32 (default: 256)")
    add("--seed", type=int, default=0, help="of the split, the weights, every draw (default: 0)")
    add("--seeds", type=int, nargs="+", metavar="N", help="train one run per seed, to vote")
    add("--val-every", type=int, default=4, metavar="EPOCHS", help="validate (default: 4)")
    add("--patience", type=int, default=10, metavar="N", help="stop after this many validations "
        "without a better pseudo-anomaly AUROC (default: 10)")
    add_scoring_arguments(parser, Scoring())
    group = parser.add_argument_group("output")
    group.add_argument("--name", help="of the run (default: <model>-seed<seed>)")
    group.add_argument("--save-every", type=int, default=4, metavar="EPOCHS",
                       help="write epoch_N.pt; 1 is the debug mode (default: 4)")
    group.add_argument("--resume", action="store_true", help="continue an existing run exactly")
    group.add_argument("--overwrite", action="store_true", help="start an existing run anew")
    args = parser.parse_args()
    check_args(args)
    return args


def check_args(args):
    """Raise InputError, naming the value, for arguments that cannot work."""
    require(bool(args.category) != args.all, "give --category NAME or --all, one of the two")
    require(not (args.resume and args.overwrite), "--resume and --overwrite exclude each other")
    require(not (args.seeds and args.name), "--seeds makes several runs, --name names one")
    for name in ("epochs", "batch", "val_every", "patience", "save_every", "window_batch", "lr"):
        value = getattr(args, name)
        require(value > 0, f"--{name.replace('_', '-')} must be positive, got {value}")
    require(args.weight_decay >= 0, f"--weight-decay must be >= 0, got {args.weight_decay}")
    args.seeds = args.seeds or [args.seed]
    require(all(0 <= s < 2 ** 32 for s in args.seeds), f"seeds must be 0 to 2^32 - 1: {args.seeds}")
    require(0 < args.val_fraction < 1, f"--val-fraction must be in (0, 1), got {args.val_fraction}")
    low, high = args.long_side
    require(32 <= low <= high, f"--long-side must be LOW HIGH, both >= 32, got {low} {high}")
    require(min(args.crop, args.image_size) >= 32, f"--crop ({args.crop}) and --image-size "
            f"({args.image_size}) must be >= 32")
    try:
        with torch.device("meta"):
            build_model(args.model, width=args.width, depth=args.depth)
    except ValueError as error:
        raise InputError(str(error)) from error


def train_epoch(model, images, optimizer, scaler, epoch, args):
    """One pass over the images: {"loss", ..., "images_per_s"}, means over images."""
    device = next(model.parameters()).device
    # Every epoch draws from its own seed, so a resumed run needs no random state to be exact.
    seed_everything((args.seed * 1_000_003 + epoch) % 2 ** 32)
    generator = seeded_generator(device, args.seed, epoch)
    order = torch.randperm(len(images), generator=generator, device=device).tolist()
    # Batches of equal size (+-1): a last batch of one image would upset batch normalisation.
    count = -(-len(images) // args.batch)
    batches = [order[i * len(order) // count:(i + 1) * len(order) // count] for i in range(count)]
    model.train()
    totals, start = {}, time.perf_counter()
    with tqdm(total=len(images), desc=f"epoch {epoch}/{args.epochs}", unit="img", leave=False,
              disable=not sys.stderr.isatty()) as bar:
        for batch in batches:
            draws = torch.rand(2, generator=generator, device=device).tolist()
            low, high = args.long_side
            sides = range(max(32, args.crop // 64 * 32), args.crop + 1, 32)
            crops = data.random_crops([images[i] for i in batch],
                                      round(low + draws[0] * (high - low)),
                                      sides[int(draws[1] * len(sides))], generator)
            with autocast(device, args.precision):
                losses = model.loss(crops.contiguous(memory_format=torch.channels_last), generator)
            if not torch.isfinite(losses["loss"]):
                raise InputError(f"the loss is not finite in epoch {epoch}; try a lower --lr or "
                                 "--precision fp32, then --resume from the last epoch")
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(losses["loss"]).backward()
            scaler.step(optimizer)
            scaler.update()
            for name, value in losses.items():
                totals[name] = totals.get(name, 0) + value.item() * len(batch)
            bar.update(len(batch))
            bar.set_postfix(loss=f"{totals['loss'] / bar.n:.4f}" if bar.n else "")
    seconds = time.perf_counter() - start
    return {k: v / len(images) for k, v in totals.items()} | {"images_per_s": len(images) / seconds}


def run_epochs(model, images, validation, state, folder, args):
    """Train until --epochs or --patience; after every epoch log.jsonl, last.pt and the like."""
    device = next(model.parameters()).device
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    scaler = torch.amp.GradScaler(device.type, enabled=args.precision == "fp16")
    if "optimizer" in state:
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
    # The windows and the sizes belong to the final score; validation looks at whole images.
    scoring = replace(scoring_from(args), windows=(0,), window_input=0, calibration="global")
    for epoch in range(state["epoch"] + 1, args.epochs + 1):
        if state["stale"] >= args.patience:
            print(f"stopped early: {args.patience} validations without a better one", flush=True)
            break
        start = time.perf_counter()
        record = {"epoch": epoch} | train_epoch(model, images, optimizer, scaler, epoch, args)
        better = False
        if epoch % args.val_every == 0 or epoch == args.epochs:
            with autocast(device, args.precision):
                result = validate(model, validation, scoring, device, args.window_batch)
            record |= result
            # At equal AUROC (an easy 1.0) the lower loss on normal images decides.
            key = [result["auroc"], -result["val_loss"]]
            better = state["best"] is None or key > state["best"]
            state |= {"stale": 0, "best": key} if better else {"stale": state["stale"] + 1}
        record["seconds"] = time.perf_counter() - start
        state |= {"epoch": epoch}
        weights = {"model": {k: v.cpu() for k, v in model.state_dict().items()},
                   "model_args": state["model_args"], "config": state["config"], "epoch": epoch,
                   "val_auroc": record.get("auroc"), "calibration": None}
        if better:
            checkpoint.save(folder / "best.pt", weights)
        if epoch % args.save_every == 0:
            checkpoint.save(folder / f"epoch_{epoch}.pt", weights)
        with open(folder / "log.jsonl", "a") as log:
            log.write(json.dumps(record) + "\n")
        checkpoint.save(folder / "last.pt", weights | {
            "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict(),
            "best": state["best"], "stale": state["stale"]})
        left = (args.epochs - epoch) * record["seconds"]
        print(f"epoch {epoch}/{args.epochs}  loss {record['loss']:.4f}  "
              f"{record['images_per_s']:.1f} images/s  {left / 60:.1f} min left" + (
                  "  pseudo-anomaly AUROC {auroc:.3f} (small {auroc_small:.3f} medium "
                  "{auroc_medium:.3f} large {auroc_large:.3f})".format(**record)
                  if "auroc" in record else "") + ("  best" if better else ""), flush=True)


def train_category(root, args):
    """Train args.category into its run folder, then calibrate best.pt and last.pt."""
    category, folder = args.category, run_folder(args)
    samples = data.find_samples(root, category, "train")
    parts = data.split_normals(samples, args.val_fraction, args.seed)
    images, val_images = (data.load_images(part, args.image_size) for part in parts)
    scoring = scoring_from(args)
    names = [[s.path.relative_to(root).as_posix() for s in part] for part in parts]
    device = torch.device(args.device)
    config = {"args": vars(args) | {"long_side": list(args.long_side),
                                    "windows": list(args.windows)},
              "command": sys.argv, "environment": environment(device),
              "root": str(root.resolve()), "category": category, "image_size": args.image_size,
              "sizes": sorted({tuple(image.shape[1:]) for image in images + val_images}),
              "train": names[0], "validation": names[1]}
    last = checkpoint.open_run(folder, config, args.overwrite, MAY_CHANGE)
    print(f"{category}: {len(images)} training and {len(val_images)} validation images on {device} "
          f"in {args.precision} -> {folder}", flush=True)
    seed_everything(args.seed)
    model_args = {"name": args.model, "width": args.width, "depth": args.depth}
    state = last or {"model_args": model_args, "epoch": 0, "best": None, "stale": 0}
    state["config"] = config
    model = checkpoint.restore_model(state, folder) if last else build_model(**model_args)
    model.to(device, memory_format=torch.channels_last)
    validation = validation_set(val_images, args.crop, args.seed)
    run_epochs(model, images, validation, state, folder, args)
    for name in ("last.pt", "best.pt"):
        saved = checkpoint.load(folder / name)
        model = checkpoint.restore_model(saved, folder / name, device)
        with autocast(device, args.precision):
            saved["calibration"] = calibrate(model, val_images, scoring, device, args.window_batch)
        checkpoint.save(folder / name, saved)
    print(f"{category}: calibration {load_calibration(saved['calibration']).describe()}\n"
          f"{category}: best epoch {saved['epoch']}, pseudo-anomaly AUROC {saved['val_auroc']:.3f} "
          f"(cut-and-pasted damage, not real defects); wrote {folder}/best.pt, last.pt, log.jsonl")


def run_folder(args):
    return Path(args.runs) / args.category / (args.name or f"{args.model}-seed{args.seed}")


def main():
    args = parse_args()
    device = select_device(args.device)
    args.device, args.precision = device.type, select_precision(args.precision, device)
    scoring_from(args)
    root = data.resolve_data(args.data)
    found = data.find_categories(root)
    require(args.all or args.category in found,
            f"unknown category {args.category!r} in {root}; there are: {', '.join(found)}")
    categories = found if args.all else [args.category]
    jobs = [argparse.Namespace(**vars(args) | {"category": category, "seed": seed})
            for category in categories for seed in args.seeds]
    for job in jobs:
        require(args.resume or args.overwrite or not run_folder(job).exists(),
                f"{run_folder(job)} exists; --resume continues it, --overwrite starts anew, --name "
                "NAME makes another")
    for job in jobs:
        train_category(root, job)
    if any((root / category / "test").is_dir() for category in categories):
        which = "--all" if args.all else f"--category {args.category}"
        print(f"test AUROC: python infer.py {which}" + (f" --data {args.data}" if args.data else "")
              + (f" --runs {args.runs}" if args.runs != "runs" else ""))


if __name__ == "__main__":
    run_script(main)
