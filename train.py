"""Learn what normal looks like, from normal images alone.

    python train.py --category carpet --epochs 200           # one category of data/mvtec_ad
    python train.py --all --data DIR                          # every category found
    python train.py --data demo --category carpet             # no data needed
    python train.py --category carpet --epochs 300 --resume   # go on where it stopped
    python train.py --category carpet --model patchcore       # remember, in one pass, not train

Writes runs/<category>/<name>/: config.json, log.jsonl, best.pt, last.pt, epoch_N.pt.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from ad import InputError, categories, checkpoint, data
from ad.augment import symmetries
from ad.cli import (Parser, add_data_arguments, add_model_arguments, add_scoring_arguments,
                    autocast, model_arguments, require, run_script, scoring_from, select_device,
                    select_precision)
from ad.model import build_model
from ad.scoring import calibrate, load_calibration
from ad.seed import environment, seed_everything
from ad.training import (fit, remember, run_epochs, validation_scoring, validation_size,
                         wants_places)
from ad.validation import validate, validation_set

# Arguments that do not change what is learned up to an epoch: --resume may change them.
MAY_CHANGE = {"epochs", "patience", "save_every", "resume", "overwrite", "runs", "name", "data",
              "device", "window_batch", "all", "seeds", "groups", "names_from", "merge_categories",
              "recipe"}


# What learning suits an objective or a model; options that are given win. The first is the seed
# plan, lab-vae and those of the wells are the source reports'.
REPORTED = {"schedule": "constant", "optimizer": "adam", "t_max": None, "augment": False,
            "weight_decay": 1e-5, "long_side": (256, 256), "crop": 0, "patience": 500}
PLAIN = {"windows": (0,), "window_input": 0, "error": "mse", "calibration": "global", "sigma": 0.0,
         "topk": 1.0}  # the score is the mean error of the whole image
RECIPES = {
    "reconstruct": REPORTED | {
        "epochs": 200, "lr": 1e-4, "batch": 32, "long_side": (256, 512), "crop": 256,
        "patience": 10},
    "repair": REPORTED | {
        "epochs": 200, "lr": 1e-3, "batch": 8, "schedule": "cosine", "augment": True, "patch": 4,
        "patience": 50, "error": "fused", "windows": (0,)},
    "lab-vae": REPORTED | PLAIN | {
        "model": "vae", "epochs": 500, "lr": 5e-4, "batch": 64, "optimizer": "adamw",
        "schedule": "cosine", "t_max": 100, "weight_decay": 0.01},
    "linear_vae": REPORTED | PLAIN | {
        "epochs": 150, "lr": 1e-3, "batch": 512, "long_side": (72, 72), "weight_decay": 0.0},
    "small_conv_vae": REPORTED | PLAIN | {
        "epochs": 200, "lr": 3e-4, "batch": 512, "long_side": (72, 72), "weight_decay": 0.0},
    "big_conv_vae": REPORTED | PLAIN | {
        "epochs": 100, "lr": 3e-4, "batch": 512, "long_side": (72, 72), "weight_decay": 0.0}}


def parse_args():
    parser = Parser(__doc__)
    group = add_data_arguments(parser)
    group.add_argument("--category", help="name of the category to train on")
    group.add_argument("--pool", dest="category", action="store_const", const=data.POOL,
                       help="train one model on the images of all categories, the baseline")
    group.add_argument("--merge-categories", nargs="+", metavar="NAME", help="train one model on "
                       "these categories; the run is in <runs>/NAME+NAME")
    group.add_argument("--all", action="store_true", help="train every category found")
    group.add_argument("--groups", type=int, metavar="N", help="categories to look for in a flat "
                       "folder (default: the most that are well separated)")
    group.add_argument("--names-from", metavar="DIR", help="name them after those of "
                       "this folder in MVTec AD layout")
    group.add_argument("--image-size", type=int, default=512, metavar="PX",
                       help="larger images are shrunk to this long side (default: 512)")
    group.add_argument("--val-fraction", type=float, default=0.1, metavar="SHARE",
                       help="share of the normal images kept for validation (default: 0.1)")
    add_model_arguments(parser)
    group = parser.add_argument_group("optimisation")
    add = group.add_argument
    add("--recipe", choices=RECIPES, help="where defaults come from (default: the --objective's or "
        "the --model's)")
    add("--epochs", type=int, help="passes over the training images (default: 200)")
    add("--batch", type=int, help="images per step (default: 8; reconstruct 32)")
    add("--lr", type=float, help="learning rate (default: 1e-3; reconstruct 1e-4)")
    add("--optimizer", choices=("adam", "adamw"), help="(default: adam)")
    add("--schedule", choices=("constant", "cosine"), help="of the learning rate; cosine is at 0 "
        "after --t-max epochs (default: cosine; reconstruct constant)")
    add("--t-max", type=int, metavar="EPOCHS", help="half a period of the cosine (default: "
        "--epochs)")
    add("--weight-decay", type=float, help="(default: 1e-5)")
    add("--long-side", type=int, nargs=2, metavar="PX", help="images are resized to a long side "
        "drawn from this range (default: 256 256; reconstruct 256 512)")
    add("--crop", type=int, metavar="PX", help="largest side of the random crops; each batch draws "
        "it from half of this to all of it, in steps of 32; 0: whole images (default: 0; "
        "reconstruct 256)")
    add("--augment", action=argparse.BooleanOptionalAction, help="turn, move, zoom and light "
        "images a little, and flip them where normal images allow it (default: yes; reconstruct "
        "no)")
    add("--seed", type=int, default=0, help="of the split, the weights, every draw (default: 0)")
    add("--seeds", type=int, nargs="+", metavar="N", help="train one run per seed, to vote")
    add("--val-every", type=int, default=4, metavar="EPOCHS", help="validate (default: 4)")
    add("--patience", type=int, metavar="N", help="stop after this many validations without a "
        "better pseudo-anomaly AUROC (default: 50, as a cosine is best at its end; reconstruct 10)")
    add_scoring_arguments(parser, trained=False)
    group = parser.add_argument_group("output")
    group.add_argument("--name", help="of the run (default: <model>-seed<seed>)")
    group.add_argument("--save-every", type=int, default=4, metavar="EPOCHS",
                       help="write epoch_N.pt; 1 is the debug mode (default: 4)")
    group.add_argument("--resume", action="store_true", help="continue an existing run exactly")
    group.add_argument("--overwrite", action="store_true", help="start an existing run anew")
    args = parser.parse_args()
    args.model = args.model or RECIPES.get(args.recipe, {}).get("model", "unet")
    own = {"unet": args.objective or "repair", "vae": "lab-vae"}.get(args.model, args.model)
    recipe = RECIPES[args.recipe or (own if own in RECIPES else "reconstruct")]
    vars(args).update({name: v for name, v in recipe.items() if getattr(args, name) is None})
    model_arguments(args)
    check_args(args)
    return args


def check_args(args):
    """Raise InputError, naming the value, for arguments that cannot work."""
    require((args.category is not None) + args.all + bool(args.merge_categories) == 1,
            "give --category NAME, --all, --pool or --merge-categories, one of them")
    require(not (args.resume and args.overwrite), "--resume and --overwrite exclude each other")
    require(not (args.seeds and args.name), "--seeds makes several runs, --name names one")
    for name in ("epochs", "batch", "val_every", "patience", "save_every", "window_batch", "lr",
                 "t_max"):
        value = 1 if getattr(args, name) is None else getattr(args, name)
        require(value > 0, f"--{name.replace('_', '-')} must be positive, got {value}")
    require(args.weight_decay >= 0, f"--weight-decay must be >= 0, got {args.weight_decay}")
    args.seeds = args.seeds or [args.seed]
    require(all(0 <= s < 2 ** 32 for s in args.seeds), f"seeds must be 0 to 2^32 - 1: {args.seeds}")
    require(0 < args.val_fraction < 1, f"--val-fraction must be in (0, 1), got {args.val_fraction}")
    low, high = args.long_side
    require(32 <= low <= high, f"--long-side must be LOW HIGH, both >= 32, got {low} {high}")
    require(args.crop == 0 or min(args.crop, args.image_size) >= 32,
            f"--crop ({args.crop}) must be 0 or >= 32, --image-size ({args.image_size}) >= 32")
    try:
        scoring_from(args).check(build_model(args.model, **model_arguments(args)))
    except ValueError as error:
        raise InputError(str(error)) from error
    vars(args).update(asdict(scoring_from(args)))


def train_category(root, table, args):
    """Train args.category into its run folder, then calibrate best.pt and last.pt."""
    category, folder = args.category, run_folder(args)
    samples = data.find_samples(root, category, "train", table)
    parts = data.split_normals(samples, args.val_fraction, args.seed)
    images, val_images = (data.load_images(part, args.image_size) for part in parts)
    scoring = scoring_from(args)
    args.symmetries = symmetries(images) if args.augment else []
    anomalous = data.find_samples(root, category, "validation", table)
    names = [[s.path.relative_to(root).as_posix() for s in part] for part in (*parts, anomalous)]
    device = torch.device(args.device)
    config = {"args": vars(args) | {"long_side": list(args.long_side),
                                    "windows": list(args.windows)},
              "command": sys.argv, "environment": environment(device),
              "root": str(root.resolve()), "category": category, "image_size": args.image_size,
              "sizes": sorted({tuple(image.shape[1:]) for image in images + val_images}),
              "train": names[0], "validation": names[1], "anomalous": names[2]}
    # Before the run's folder is made, so that weights that are not there leave none.
    seed_everything(args.seed)
    model_args = {"name": args.model} | model_arguments(args)
    model = build_model(**model_args)
    if hasattr(model, "load_pretrained") and not args.resume:
        load_pretrained(model, args)
    last = checkpoint.open_run(folder, config, args.overwrite, MAY_CHANGE)
    print(f"{category}: {len(images)} training and {len(val_images)} validation images on {device} "
          f"in {args.precision} -> {folder}", flush=True)
    state = last or {"model_args": model_args, "epoch": 0, "best": None, "stale": 0}
    state["config"] = config
    model = checkpoint.restore_model(state, folder) if last else model
    if hasattr(model, "places"):
        model.places = None  # it was of the weights as they were
    model.to(device, memory_format=torch.channels_last)
    validation = validation_set(val_images, validation_size(args), args.seed,
                                data.load_images(anomalous, args.image_size))
    learn = fit if hasattr(model, "fit") else run_epochs
    learn(model, images, validation, state, folder, args)
    for name in ("last.pt", "best.pt") if learn is run_epochs else ("best.pt",):
        saved = checkpoint.load(folder / name)
        model = checkpoint.restore_model(saved, folder / name, device)
        if wants_places(model, scoring):
            remember(model, images, scoring, device, args.precision, args.seed)
            saved["model"] = {k: v.cpu() if torch.is_tensor(v) else v
                              for k, v in model.state_dict().items()}
        with autocast(device, args.precision):
            if wants_places(model, scoring):
                saved["val_auroc"] = validate(model, validation, validation_scoring(args), device,
                                              args.window_batch)["auroc"]
            saved["calibration"] = calibrate(model, val_images, scoring, device, args.window_batch)
        checkpoint.save(folder / name, saved)
    print(f"{category}: calibration {load_calibration(saved['calibration']).describe()}\n"
          f"{category}: best epoch {saved['epoch']}, "
          + (f"AUROC of {len(anomalous)} anomalous validation images {saved['val_auroc']:.3f}"
             if anomalous else f"pseudo-anomaly AUROC {saved['val_auroc']:.3f} (cut-and-pasted "
             "damage, not real defects)") + f"; wrote {folder}/best.pt")


def load_pretrained(model, args):
    """Give the model the weights that --pretrained or --weights ask for, or say that it has none.
    """
    if args.pretrained or args.weights:
        model.load_pretrained(args.weights)
        print(f"pretrained weights from {args.weights or 'torchvision'}")
    elif model.can_be_pretrained:
        print("neither --pretrained nor --weights: the encoder starts random")


def run_folder(args):
    return Path(args.runs) / args.category / (args.name or f"{args.model}-seed{args.seed}")


def main():
    args = parse_args()
    device = select_device(args.device)
    args.device, args.precision = device.type, select_precision(args.precision, device)
    root = data.resolve_data(args.data)
    table = categories.training_table(root, Path(args.runs), args.groups, args.names_from)
    found = data.find_categories(root, table)
    for name in args.merge_categories or [args.category or data.POOL]:
        require(name in (*found, data.POOL),
                f"unknown category {name!r} in {root}; there are: {', '.join(found)}")
    chosen = found if args.all else ["+".join(args.merge_categories or [args.category])]
    jobs = [argparse.Namespace(**vars(args) | {"category": category, "seed": seed})
            for category in chosen for seed in args.seeds]
    for job in jobs:
        require(args.resume or args.overwrite or not run_folder(job).exists(),
                f"{run_folder(job)} exists; --resume continues it, --overwrite starts anew, --name "
                "NAME makes another")
    for job in jobs:
        train_category(root, table, job)
    if any((root / c / "test").is_dir() for c in ("", *found)):
        which = "--all" if args.all else f"--category {args.category}" if args.category else \
            f"--merge-categories {' '.join(args.merge_categories)}"
        print(f"test AUROC: python infer.py {which}" + (f" --data {args.data}" if args.data else "")
              + (f" --runs {args.runs}" if args.runs != "runs" else ""))


if __name__ == "__main__":
    run_script(main)
