"""Learn what normal looks like, from normal images alone.

    python train.py --category carpet --epochs 200           # one category of data/mvtec_ad
    python train.py --all --data DIR                          # every category found
    python train.py --data demo --category carpet             # no data needed
    python train.py --category carpet --epochs 300 --resume   # go on where it stopped
    python train.py --category carpet --model patchcore       # remember, in one pass, not train
    python train.py --category capsule --model resnet         # with labels: a classifier
    python train.py --config runs/carpet/unet-seed0/config.json --name again    # repeat a run
    torchrun --nproc-per-node 4 train.py --category carpet    # on 4 GPUs; --parallel categories

Writes runs/<category>/<name>/: config.json, log.jsonl, best.pt, last.pt, epoch_N.pt; a classifier's
runs/<category>-classes/<name>/, with test.json and confusion.png.
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from ad import InputError, charts, checkpoint, classify, data, distributed, layouts
from ad.arguments import (add_data_arguments, add_model_arguments, add_scoring_arguments,
                          add_training_arguments, choose_categories, model_arguments, scoring_from)
from ad.augment import symmetries
from ad.classifier import Classifier
from ad.cli import Parser, autocast, command, require, run_script, select_device, select_precision
from ad.fitting import finish, judges, new_places, wants_places
from ad.gradients import ALIGNED, alignment
from ad.images import load_readable, white_of
from ad.jobs import jobs_to_train, own_jobs
from ad.judging import calibrate
from ad.model import build_model, model_class
from ad.recipes import RECIPES, recipe_name
from ad.runs import begin, read_arguments
from ad.training import run_epochs, validation_scoring, validation_size
from ad.validation import make_examples, validate

# Pixels. A texture's fine damage is lost at 256. Where images are aligned, neighbours are looked
# for one cell away at most, and a finer grid would halve how far a part may move.
CLOSELY = 512


def build_parser():
    parser = Parser(__doc__)
    group = add_data_arguments(parser)
    group.add_argument("--category", help="name of the category to train on")
    group.add_argument("--pool", action="store_true",
                       help="train one model on the images of all categories, the baseline")
    group.add_argument("--merge-categories", nargs="+", metavar="NAME", help="train one model on "
                       "these categories; the run is in <runs>/NAME+NAME")
    group.add_argument("--all", action="store_true", help="train every category found")
    group.add_argument("--parallel", choices=("categories",), help="under torchrun: every process "
                       "trains its own categories and seeds, not all the same one together")
    group.add_argument("--groups", type=int, metavar="N", help="categories to look for in a flat "
                       "folder (default: the most that are well separated)")
    group.add_argument("--names-from", metavar="DIR", help="name them after those of "
                       "this folder in MVTec AD layout")
    group.add_argument("--image-size", type=int, default=512, metavar="PX",
                       help="larger images are shrunk to this long side (default: 512)")
    group.add_argument("--skip-bad-images", action="store_true", help="leave out images that "
                       "cannot be read, and say which; otherwise they are an error")
    group.add_argument("--val-fraction", type=float, default=0.1, metavar="SHARE",
                       help="share of the normal images kept for validation (default: 0.1)")
    add_model_arguments(parser)
    add_training_arguments(parser)
    add_scoring_arguments(parser, trained=False)
    group = parser.add_argument_group("output")
    group.add_argument("--name", help="of the run (default: <model>-seed<seed>)")
    group.add_argument("--save-every", type=int, default=4, metavar="EPOCHS",
                       help="write epoch_N.pt; 1 is the debug mode (default: 4)")
    group.add_argument("--resume", action="store_true", help="continue an existing run exactly")
    group.add_argument("--overwrite", action="store_true", help="start an existing run anew")
    parser.add_argument("--config", type=Path, metavar="FILE", help="take the arguments of this "
                        "run's config.json; those that are given, too, win")
    return parser


def parse_args():
    parser = build_parser()
    config = parser.parse_known_args()[0].config
    if config:
        parser.set_defaults(**read_arguments(config))
    args = parser.parse_args()
    args.model = args.model or RECIPES.get(args.recipe, {}).get("model", "unet")
    recipe = RECIPES[recipe_name(args)]
    vars(args).update({name: v for name, v in recipe.items() if getattr(args, name) is None})
    # Whether a pretrained memory looks closely depends on the images, see train_category.
    args.closely = (args.window_input is None and args.model == "patchcore"
                    and args.backbone not in (None, "gradients", "unet"))
    model_arguments(args)
    check_args(args)
    return args


def check_args(args):
    """Raise InputError, naming the value, for arguments that cannot work."""
    choose_categories(args)
    require(not (args.resume and args.overwrite), "--resume and --overwrite exclude each other")
    require(not (args.seeds and args.name), "--seeds makes several runs, --name names one")
    for name in ("epochs", "batch", "val_every", "patience", "save_every", "window_batch", "lr",
                 "t_max", "groups"):
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
    own = model_arguments(args)
    if "normal_class" in own:  # its classes are known when the data are
        own["classes"] = (own["normal_class"], "another")
    try:
        scoring_from(args).check(build_model(args.model, **own))
    except ValueError as error:
        raise InputError(str(error)) from error
    vars(args).update(asdict(scoring_from(args)))


def load(args, *parts):
    """Lists of samples -> what is white in deep grey, by the first, and (samples, images) of each.
    """
    white = white_of([sample.path for sample in parts[0]])
    return white, *(load_readable(part, args.image_size, white, args.skip_bad_images)
                    for part in parts)


def train_category(root, table, args):
    """Train args.category into its run folder, then judge best.pt by normal images."""
    category, device = args.category, torch.device(args.device)
    args.white, (samples, images), (anomalous, positives) = distributed.from_rank_0(
        lambda: load(args, *(layouts.find_samples(root, category, split, table)
                             for split in ("train", "validation"))))
    samples, images = data.drop_copies(samples, images)
    trained = not hasattr(model_class(args.model), "fit")
    train, val = data.split_normals(samples, args.val_fraction, args.seed)
    if not trained:
        train, val = samples, judges(samples, args.seed)
    images = dict(zip(samples, images))
    images, val_images = ([images[s] for s in part] for part in (train, val))
    if args.closely and alignment(val_images) < ALIGNED:
        args.window_input = CLOSELY
    scoring = scoring_from(args)
    args.symmetries = symmetries(images) if args.augment else []
    model, state, folder = begin(
        root, {"train": train, "validation": val, "anomalous": anomalous},
        sorted({tuple(image.shape[1:]) for image in images + val_images}),
        {"name": args.model} | model_arguments(args), args)
    if trained:
        size = validation_size(args)
        examples = make_examples(val_images, args.seed, positives, size)
        looking = validation_scoring(args, max(map(max, (i.shape for i in val_images))))

        def check():
            if wants_places(model, scoring):  # as for the final score
                model.places = new_places(model, images, size, device, args.seed)
            try:
                return validate(model, examples, looking, device, args.window_batch)
            finally:
                model.places = None
        run_epochs(model, (images, None), check, state, folder, args)
    else:
        images = [image for sample, image in zip(train, images) if sample not in set(val)]

    # A memory is judged by all normal images, each by one that does not hold it.
    distributed.from_rank_0(lambda: finish(
        folder, None if trained else (model, state), images, val_images,
        make_examples(val_images, args.seed, positives), args))


def train_classifier(root, args):
    """Train a classifier of args.category's classes, calibrate it as a detector of what is not
    normal, and write its figures on its own test split: test.json and confusion.png."""
    device, scoring = torch.device(args.device), scoring_from(args)
    args.white, (samples, images) = distributed.from_rank_0(
        lambda: load(args, layouts.class_samples(root, args.category)))
    parts = classify.stratified_split(samples, args.seed)
    classes = sorted({s.defect for s in samples})
    images = dict(zip(samples, images))
    images, val_images, test_images = ([images[s] for s in part] for part in parts)
    labels, val_labels, test_labels = (torch.tensor([classes.index(s.defect) for s in part])
                                       for part in parts)
    args.symmetries = symmetries(images) if args.augment else []
    good = [s.defect == args.normal_class for s in parts[1]]
    model, state, folder = begin(
        root, {"train": parts[0], "validation": [s for s, g in zip(parts[1], good) if g],
               "anomalous": [s for s, g in zip(parts[1], good) if not g], "test": parts[2]},
        sorted({tuple(image.shape[1:]) for image in images}),
        {"name": args.model, "classes": classes, "class_weights": classify.balanced_weights(
            labels, len(classes))} | model_arguments(args), args)

    def check(model, images, labels):
        with autocast(device, args.precision):
            return classify.classification_metrics(classify.predict(model, images, device), labels,
                                                   classes, model.normal)
    run_epochs(model, (images, labels), lambda: check(model, val_images, val_labels), state, folder,
               args)
    if distributed.rank():
        return
    saved = checkpoint.load(folder / "best.pt")
    model = checkpoint.restore_model(saved, folder / "best.pt", device)
    with autocast(device, args.precision):
        saved["calibration"] = calibrate(model, [i for i, g in zip(val_images, good) if g], scoring,
                                         device, args.window_batch)
    checkpoint.save(folder / "best.pt", saved)
    result = check(model, test_images, test_labels)
    checkpoint.write_atomic(folder / "test.json", json.dumps(result, indent=1) + "\n")
    charts.save_confusion(folder / "confusion.png", classes, result["confusion"])
    print(f"{args.category}: best epoch {saved['epoch']}, on {len(test_images)} test images:\n"
          f"{classify.describe(result)}\nwrote {folder}/best.pt, test.json, confusion.png")


def main():
    args = distributed.from_rank_0(parse_args)
    device = select_device(args.device, args.deterministic)
    args.device, args.precision = device.type, select_precision(args.precision, device)
    root, table, jobs, tested = distributed.from_rank_0(lambda: jobs_to_train(args))
    labelled = model_class(args.model) is Classifier
    jobs, failed = own_jobs(jobs, args), []
    for job in jobs:
        try:
            train_classifier(root, job) if labelled else train_category(root, table, job)
        except InputError as error:
            failed.append(f"{job.category}, seed {job.seed}: {error}")
            if distributed.size() > 1:  # the others have ended
                break
            if len(jobs) > 1:
                print(failed[-1], flush=True)
    if len(failed) < len(jobs) and not labelled and tested and not args.parallel:
        which = ["--all"] if args.all else ["--category", args.category] if args.category else \
            ["--merge-categories", *args.merge_categories]
        print(f"test AUROC: {command('infer.py', args.data, args.runs, *which)}")
    if failed:
        raise InputError("\n".join(failed))


if __name__ == "__main__":
    run_script(main)
