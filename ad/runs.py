"""Beginning a run, or taking one up again: its folder, its config.json, its model."""

import json
import sys
from pathlib import Path

import torch

from ad import InputError, checkpoint, data, distributed
from ad.classifier import Classifier
from ad.model import build_model, model_class
from ad.seed import environment, seed_everything

# Arguments that do not change what is learned up to an epoch: --resume may change them.
MAY_CHANGE = {"epochs", "patience", "save_every", "resume", "overwrite", "runs", "name", "data",
              "device", "window_batch", "all", "seeds", "groups", "names_from", "merge_categories",
              "config", "deterministic", "recipe", "parallel"}


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
              "image_size": args.image_size, "sizes": sizes}
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
        if part != "train":
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


def run_folder(args):
    """runs/<category>/<name>; of a classifier runs/<category>-classes/<name>."""
    labelled = "-classes" if model_class(args.model) is Classifier else ""
    name = args.name or f"{args.model}-seed{args.seed}"
    return Path(args.runs) / f"{args.category}{labelled}" / name


def run_files(config, part):
    """Paths of the images that a run's config names: "train", "validation", "anomalous", "test"."""
    return [Path(config["root"]) / name for name in config.get(part, [])]


def read_arguments(path):
    """Arguments of a config.json, but for those that say where a run is, whether to replace it, and
    which others were trained beside it."""
    try:
        found = json.loads(path.read_text())["args"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot take arguments from {path}: {error}") from error
    found["weights"] = Path(found["weights"]) if found.get("weights") else None
    if found.get("merge_categories"):
        del found["category"]  # which is both, a+b
    return {name: value for name, value in found.items()
            if name not in ("runs", "name", "resume", "overwrite", "config", "symmetries", "all",
                            "seeds", "parallel")}
