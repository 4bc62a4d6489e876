"""Beginning a run, or taking one up again: its folder, its config.json, its model; and what an
epoch leaves in it."""

import json
import os
import sys
from pathlib import Path

import torch

from ad import InputError, checkpoint, data, distributed, layouts
from ad.classifier import Classifier
from ad.images import read_image, reading
from ad.model import build_model, model_class
from ad.seed import environment, seed_everything

UPDATES = "optimizer", "scaler"  # their names in last.pt
# Arguments that do not change what is learned up to an epoch: --resume may change them.
MAY_CHANGE = {"epochs", "patience", "save_every", "resume", "overwrite", "runs", "name", "data",
              "device", "window_batch", "all", "seeds", "groups", "names_from", "merge_categories",
              "pool", "config", "deterministic", "recipe", "parallel", "white"}


def begin(root, parts, sizes, model_args, args):
    """Make the run folder, or open it to resume: (model on its device, state, folder).

    parts: {"train", "validation", ...: samples}, whose file names config.json gets.
    """
    folder, device = run_folder(args), torch.device(args.device)
    config = {"args": {name: list(value) if isinstance(value, tuple) else
                       str(value) if isinstance(value, Path) else value
                       for name, value in vars(args).items()},
              "command": sys.argv, "environment": environment(device),
              "root": str(root.resolve()), "category": args.category,
              "image_size": args.image_size, "white": args.white,
              "sizes": sizes}
    config |= {part: [s.path.relative_to(root).as_posix() for s in samples]
               for part, samples in parts.items()}
    # Before the run's folder is made, so that weights that are not there leave none.
    seed_everything(args.seed)
    try:
        model = build_model(**model_args)
    except ValueError as error:
        raise InputError(str(error)) from error
    if hasattr(model, "load_pretrained") and not args.resume:
        load_pretrained(model, args)
    last = distributed.from_rank_0(
        lambda: checkpoint.open_run(folder, config, args.overwrite, MAY_CHANGE))
    for part, samples in parts.items():
        if not set(samples) <= set(parts["train"]):
            data.report_copies([s.path for s in samples], run_files(config, "train"), part)
    print(f"{args.category}: {len(parts['train'])} training and {len(parts['validation'])} "
          f"validation images on {device} in {args.precision} -> {folder}", flush=True)
    state = last or {"model_args": model_args, "epoch": 0, "best": None, "stale": 0}
    state["config"] = config
    model = checkpoint.restore_model(state, folder) if last else model
    return model.to(device, memory_format=torch.channels_last), state, folder


def load_pretrained(model, args):
    """Give the model the weights that --pretrained or --weights ask for, or say that it has none.
    """
    if args.pretrained or args.weights:
        model.load_pretrained(args.weights)
        print(f"pretrained weights from {args.weights or 'the internet or a package'}")
    elif model.can_be_pretrained:
        print("neither --pretrained nor --weights: everything starts random")


def save_epoch(model, updates, state, record, folder, args):
    """After an epoch, whose line of log.jsonl is `record`, or in the midst of one ({}): everything
    needed to resume, in last.pt, and what else is due."""
    better = False
    if "auroc" in record:
        # At equal figures (an easy 1.0) the lower loss decides.
        key = [record.get("accuracy", record["auroc"]), -record["val_loss"]]
        better = state["best"] is None or key > state["best"]
        state |= {"stale": 0, "best": key} if better else {"stale": state["stale"] + 1}
    if distributed.rank():
        return
    weights = {"model": {k: v.cpu() for k, v in model.state_dict().items()},
               "model_args": state["model_args"], "config": state["config"],
               "epoch": state["epoch"], "val_auroc": record.get("auroc"), "calibration": None}
    if better:
        checkpoint.save(folder / "best.pt", weights)
    if record and state["epoch"] % args.save_every == 0:
        checkpoint.save(folder / f"epoch_{state['epoch']}.pt", weights)
    if record:
        checkpoint.append_line(folder / "log.jsonl", json.dumps(record))
    checkpoint.save(folder / "last.pt", weights | {
        name: part.state_dict() for part, name in zip(updates, UPDATES)} | {
            "best": state["best"], "stale": state["stale"], "begun": state.get("begun", {})})
    if record:
        print_epoch(record, better, folder, args)


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


def run_folder(args):
    """runs/<category>/<name>; of a classifier runs/<category>-classes/<name>."""
    labelled = "-classes" if model_class(args.model) is Classifier else ""
    name = args.name or f"{args.model}-seed{args.seed}"
    return Path(args.runs) / f"{args.category}{labelled}" / name


def run_files(config, part):
    """Paths of the images that a run's config names: "train", "validation", "anomalous", "test"."""
    return [Path(config["root"]) / name for name in config.get(part, [])]


def moved(config, name):
    """A run's config with the root at which its images are now: --data `name` (or AD_DATA), where
    none are left at its own, which is its "moved" then."""
    name = name or os.environ.get("AD_DATA")
    if not name or any(path.exists() for path in run_files(config, "train")):
        return config
    root = str(layouts.resolve_data(name).resolve())
    return config | {"root": root, "moved": config["root"]}


def run_images(config, part, most=None):
    """The images, the first `most` of them, that a run's config names, uint8 (3, H, W): see
    run_files. Raises InputError where they are not."""
    paths = run_files(config, part)
    if paths and not any(path.exists() for path in paths):
        raise InputError(f"{config['root']} has none of the images of this run "
                         f"({config[part][0]}, ...); say where they are with --data DIR")
    return [read_image(path, *reading(config)) for path in paths[:most]]


def read_arguments(path):
    """Arguments of a config.json, but for those that say where a run is, whether to replace it, and
    which others were trained beside it."""
    try:
        found = json.loads(path.read_text())["args"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot take arguments from {path}: {error}") from error
    found["weights"] = Path(found["weights"]) if found.get("weights") else None
    if found.get("merge_categories") or found.get("pool"):
        del found["category"]  # which is both, a+b, or all
    return {name: value for name, value in found.items()
            if name not in ("runs", "name", "resume", "overwrite", "config", "symmetries", "all",
                            "seeds", "parallel")}
