"""Parsed options -> checked values, and the dataclasses that the package takes. Needs no torch
until a model is asked what its options are."""

import argparse
import inspect
import json
import sys
from dataclasses import fields
from pathlib import Path

from ad import InputError
from ad.cli import require
from ad.config import RECIPES, Choice, Scoring, Training
from ad.layouts import POOL
from ad.options.add import add_model_arguments


def choice_from(args: argparse.Namespace) -> Choice:
    """Parsed options -> Choice. InputError where more than one of --category, --pool,
    --merge-categories and --all is given; a slash after a name, which shells add, is dropped."""
    require((args.category is not None) + args.pool + args.all + bool(args.merge_categories) <= 1,
            "give --category NAME, --all, --pool or --merge-categories, one of them")
    merged = tuple(dict.fromkeys(name.rstrip("/") for name in args.merge_categories or ()))
    category = POOL if args.pool else args.category and args.category.rstrip("/")
    return Choice(args.data, args.runs, category, args.all, args.pool, merged)


def apply_recipe(args: argparse.Namespace) -> None:
    """Give options that are unset their values of the recipe that suits --model and --objective;
    classifiers, and a model of one's own, have one in common."""
    name = args.objective or "repair" if args.model == "unet" else args.model
    for option, value in RECIPES.get(name, RECIPES["classifier"]).items():
        if getattr(args, option) is None:
            setattr(args, option, value)


def check_training(args: argparse.Namespace) -> None:
    """Raise InputError, naming the value, for arguments that cannot work."""
    require(not (args.resume and args.overwrite), "--resume and --overwrite exclude each other")
    require(not (args.seeds and args.name), "--seeds makes several runs, --name names one")
    require(not args.name or args.name == Path(args.name).name != "..",
            f"--name {args.name} must be the name of one folder, without slashes")
    for name in ("epochs", "batch", "val_every", "patience", "save_every", "window_batch", "lr",
                 "t_max", "groups", "minutes"):
        value = getattr(args, name)
        require(value is None or value > 0,
                f"--{name.replace('_', '-')} must be positive, got {value}")
    require(args.weight_decay >= 0, f"--weight-decay must be >= 0, got {args.weight_decay}")
    args.seeds = args.seeds or [args.seed]
    require(all(0 <= s < 2 ** 32 for s in args.seeds), f"seeds must be 0 to 2^32 - 1: {args.seeds}")
    require(0 < args.val_fraction < 1, f"--val-fraction must be in (0, 1), got {args.val_fraction}")
    low, high = args.long_side
    require(32 <= low <= high, f"--long-side must be LOW HIGH, both >= 32, got {low} {high}")
    require(args.crop == 0 or min(args.crop, args.image_size) >= 32,
            f"--crop ({args.crop}) must be 0 or >= 32, --image-size ({args.image_size}) >= 32")


def check_model(args: argparse.Namespace) -> None:
    """Raise InputError for options that this model has not, or that do not fit each other."""
    from ad.model import build_model  # which imports torch
    try:
        own = model_arguments(args)
        if "normal_class" in own:  # its classes are known when the data are
            own["classes"] = (own["normal_class"], "another")
        Scoring(**given_scoring(args)).check(build_model(args.model, **own))
    except ValueError as error:
        raise InputError(str(error)) from error


def model_arguments(args: argparse.Namespace) -> dict:
    """Arguments of the model's class; unset options get their defaults in `args`, too. Raises
    InputError for an option that belongs to another model, ValueError for an unknown one."""
    from ad.model import model_class  # which imports torch
    model = model_class(args.model)
    own, chosen = inspect.signature(model).parameters, {}
    require(not args.pretrained or hasattr(model, "load_pretrained"),
            f"--pretrained is not an option of --model {args.model}")
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    for option in sorted(vars(parser.parse_args([])).keys() - {"model", "pretrained"}):
        value = getattr(args, option)
        if option == "weights" and hasattr(model, "load_pretrained"):
            continue  # loaded once, by train.py; after that they are the model's own
        if option in own:
            value = own[option].default if value is None else value
            chosen[option] = str(value.resolve()) if isinstance(value, Path) else value
            setattr(args, option, chosen[option])
        else:
            flag = option.replace("_", "-")
            require(value is None, f"--{flag} is not an option of --model {args.model}")
    return chosen


def given_scoring(args: argparse.Namespace) -> dict:
    """{field of Scoring: value} of those that are given; InputError for a value that is no use."""
    given = {field.name: getattr(args, field.name) for field in fields(Scoring)
             if getattr(args, field.name, None) is not None}
    Scoring(**{"windows": (0,)} | given).check()  # the recipe's windows are not known here
    return given


def training_from(args: argparse.Namespace) -> Training:
    """Parsed arguments -> Training."""
    given = {field.name: getattr(args, field.name, field.default) for field in fields(Training)}
    return Training(**{name: tuple(value) if isinstance(value, list) else value
                       for name, value in given.items()})


def settle_epochs(args: argparse.Namespace, images: int) -> None:
    """What was not given, of a U-Net that learns from so many images: epochs, and how many of them
    lie between two validations and two epoch_N.pt, about 50 times in all."""
    from ad.data import enough_epochs  # which imports torch
    args.epochs = args.epochs or enough_epochs(images, args.batch)
    often = max(4, args.epochs // 50)
    args.val_every, args.save_every = args.val_every or often, args.save_every or often


def config_of(args: argparse.Namespace, root: Path, parts: dict, images: list,
              machine: object) -> dict:
    """config.json of a run. parts: {"train", "validation", ...: samples}; images: of the run."""
    from ad.seed import environment  # which imports torch
    plain = {name: list(value) if isinstance(value, tuple) else str(value) if isinstance(
        value, Path) else value for name, value in vars(args).items()}  # what JSON can hold
    return {"args": plain, "command": sys.argv,
            "environment": environment(machine.device), "root": str(root.resolve()),
            "category": args.category, "image_size": args.image_size, "white": args.white,
            "sizes": sorted({tuple(image.shape[1:]) for image in images})} | {
        part: [s.path.relative_to(root).as_posix() for s in samples]
        for part, samples in parts.items()}


def read_arguments(path: Path) -> dict:
    """Arguments of a config.json, or of that in a run's folder, but for those that say where a run
    is, whether to replace it, and which others were trained beside it."""
    path = path / "config.json" if path.is_dir() else path
    try:
        found = json.loads(path.read_text())["args"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot take arguments from {path}: {error}") from error
    found["weights"] = Path(found["weights"]) if found.get("weights") else None
    if found.get("merge_categories") or found.get("pool"):
        del found["category"]  # which is both, a+b, or all
    return {name: value for name, value in found.items()
            if name not in ("runs", "name", "resume", "overwrite", "config", "symmetries", "flips",
                            "all", "seeds", "parallel", "verbose", "minutes")}
