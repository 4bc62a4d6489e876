"""Learn what normal looks like, from normal images alone.

    python train.py --category carpet --epochs 200           # one category of data/mvtec_ad
    python train.py --data photos/good --minutes 5            # a folder of photographs
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

import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import ad
from ad import InputError
from ad.cli import Parser, require, run_script
from ad.config import Scoring
from ad.options.add import (add_data_arguments, add_model_arguments, add_scoring_arguments,
                            add_training_arguments)
from ad.options.read import (apply_recipe, check_model, check_training, choice_from, config_of,
                             given_scoring, model_arguments, read_arguments, settle_epochs,
                             training_from)

started = time.perf_counter()
FIRST = ("data", "runs", "category", "all", "model", "minutes", "epochs", "seeds", "resume",
         "overwrite")
# Pixels. A texture's fine damage is lost at 256. Where images are aligned, neighbours are looked
# for one cell away at most, and a finer grid would halve how far a part may move.
CLOSELY = 512


def build_parser() -> Parser:
    parser = Parser(__doc__, FIRST)
    group = add_data_arguments(parser)
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
    group.add_argument("--save-every", type=int, metavar="EPOCHS",
                       help="write epoch_N.pt; 1 is the debug mode (default: 4, or --epochs / 50)")
    group.add_argument("--resume", action="store_true", help="continue an existing run exactly")
    group.add_argument("--overwrite", action="store_true", help="start an existing run anew")
    group.add_argument("--verbose", action="store_true", help="a line for every epoch, and how the "
                       "run was calibrated")
    parser.add_argument("--config", type=Path, metavar="FILE", help="take the arguments of this "
                        "run's config.json; those that are given, too, win")
    return parser


def parse_args() -> Namespace:
    parser = build_parser()
    config = parser.parse_known_args()[0].config
    if config:
        parser.set_defaults(**read_arguments(config))
    args = parser.parse_args()
    require(not (args.minutes and args.epochs) or config, "--minutes and --epochs exclude each "
            "other")
    apply_recipe(args)
    # Whether a pretrained memory looks closely depends on the images, see train_detector.
    args.closely = (args.window_input is None and args.model == "patchcore"
                    and args.backbone not in (None, "gradients", "unet"))
    vars(args).update(asdict(Scoring(**given_scoring(args))))
    choice_from(args)  # refuses options that exclude each other
    check_training(args)
    ad.folders.root_of(args.data)
    return args


def run_folder(args: Namespace) -> Path:
    """runs/<category>/<name>; of a classifier runs/<category>-classes/<name>."""
    name = args.name or f"{args.model}-seed{args.seed}"
    return Path(args.runs, args.category + ending(args), name)


def ending(args: Namespace) -> str:
    return "-classes" if ad.model.is_classifier(args.model) else ""


def jobs_to_train(args: Namespace) -> tuple:
    """(root of the data, table of a flat folder, options of each run, has it a test split?)."""
    root, table, names, tested = ad.jobs.categories_to_train(
        choice_from(args), ending(args), args.groups, args.names_from, args.resume or args.config)
    jobs = [Namespace(**vars(args) | {"category": name, "seed": seed})
            for name in names for seed in args.seeds]
    for folder in map(run_folder, jobs):
        require(args.resume or args.overwrite or not folder.exists(), f"{folder} exists; --resume "
                "continues it, --overwrite starts anew, --name NAME makes another")
    return root, table, jobs, tested


def read(args: Namespace, *parts) -> tuple:
    """Lists of samples -> what is white in deep grey, by the first; (samples, images) of each."""
    white = ad.images.white_of([sample.path for sample in parts[0]])
    try:
        return white, *(ad.images.load_readable(part, args.image_size, white, args.skip_bad_images)
                        for part in parts)
    except InputError as error:
        raise InputError(f"{error}; --skip-bad-images leaves out what cannot be read") from error


def begin(config: dict, model_args: dict, args: Namespace,
          machine: "ad.machine.Machine") -> tuple:
    """(model, Run) of this config.json; says what is about to be trained, on what and where."""
    model, run = ad.runs.begin(run_folder(args), config, model_args, machine, args.resume,
                               args.overwrite)
    print(f"{args.category}: learns from {len(config['train'])} images, on {machine.device} in "
          f"{machine.precision} -> {run.folder}", flush=True)
    return model, run


def fit(model: object, data_set: tuple, check: Callable, run: "ad.runs.Run",
        args: Namespace, machine: "ad.machine.Machine") -> None:
    """Train a model's weights: as many epochs as were asked for, or as fit into --minutes."""
    images, labels = data_set
    plan = training_from(args)
    data_set = ad.augment.at_one_size(model, images, plan), labels
    if run.config["args"]["minutes"]:
        seconds = 60 * args.minutes - (time.perf_counter() - started)
        epochs = ad.training.epochs_in(seconds, model, data_set, check, plan, machine)
        print(f"{args.category}: epochs that fit into --minutes {args.minutes:g}: {epochs}",
              flush=True)
        run.set_epochs(epochs)
    plan = replace(plan, epochs=run.config["args"]["epochs"])
    ad.training.run_epochs(model, data_set, check, run, plan, machine, args.verbose)


def train_detector(root: Path, table: dict | None, args: Namespace,
                   machine: "ad.machine.Machine") -> None:
    """Find, split, build, learn, judge, save: the run of one category, from normal images alone."""
    args.white, (samples, images), (anomalous, positives) = ad.ranks.from_rank_0(
        lambda: read(args, *(ad.layouts.find_samples(root, args.category, split, table)
                             for split in ("train", "validation"))))
    samples, images = ad.data.drop_copies(samples, images)
    trained = not hasattr(ad.model.model_class(args.model), "fit")
    train, val = ad.data.split_normals(samples, args.val_fraction, args.seed)
    if not trained:  # all normal images judge, each a memory that does not hold it
        train, val = samples, ad.fitting.judges(samples, args.seed)
    images = dict(zip(samples, images))
    judging = set(val)
    rest = [images[s] for s in train if s not in judging]
    images, val_images = ([images[s] for s in part] for part in (train, val))
    aligned = ad.gradients.alignment(val_images)
    if args.closely and aligned < ad.gradients.ALIGNED:
        args.window_input = CLOSELY
    args.symmetries = ad.augment.symmetries(images) if args.augment else []
    # A network learned them all; windows, many a photo, take long enough as they are.
    args.flips = args.symmetries if trained and args.windows == (0,) else ()
    scoring = Scoring(**given_scoring(args))
    settle_epochs(args, len(images))
    config = config_of(args, root, {"train": train, "validation": val, "anomalous": anomalous},
                       images + val_images, machine)
    model, run = begin(config, {"name": args.model} | model_arguments(args), args, machine)
    if trained:
        plan = training_from(args)
        looking = ad.training.validation_scoring(scoring, plan, max(
            max(image.shape) for image in val_images))
        small = ad.validation.make_examples(val_images, args.seed, positives,
                                            plan.validation_side, aligned)
        check = ad.fitting.validation(model, images, small, looking, plan, machine)
        fit(model, (images, None), check, run, args, machine)
    examples = ad.validation.make_examples(val_images, args.seed, positives, alignment=aligned)
    saved, before = ad.fitting.finish(run, None if trained else model, rest, examples, scoring,
                                      machine)
    if args.verbose and hasattr(model, "describe") and not ad.ranks.rank():
        print(f"{args.category}: {model.describe()}")
    print(ad.verdict.verdict(saved, before, args.verbose))


def train_classifier(root: Path, args: Namespace, machine: "ad.machine.Machine") -> None:
    """Find, split, build, learn, calibrate, test: the run of a classifier of one category."""
    classify = ad.models.classify
    args.white, (samples, images) = ad.ranks.from_rank_0(
        lambda: read(args, ad.sets.other_layouts.class_samples(root, args.category)))
    classes, (train, val, test) = classify.divide(samples, images, args.seed)
    args.symmetries = ad.augment.symmetries(train.images) if args.augment else []
    normal = [s for s in val.samples if s.defect == args.normal_class]
    other = [s for s in val.samples if s.defect != args.normal_class]
    require(len(normal) != 1, f"the class {args.normal_class} of {args.category} has too few "
            "images to judge by: 8 or more are needed")
    config = config_of(args, root, {"train": train.samples, "validation": normal,
                                    "anomalous": other, "test": test.samples}, train.images,
                       machine)
    model, run = begin(config, {"name": args.model, "classes": classes, "class_weights":
                                classify.balanced_weights(train.labels, len(classes))}
                       | model_arguments(args), args, machine)
    fit(model, (train.images, train.labels), lambda: classify.check(model, val), run, args, machine)
    if not ad.ranks.rank():
        epoch, found = classify.finish(run, val, test, Scoring(**given_scoring(args)), machine)
        ad.pictures.charts.save_confusion(run.folder / "confusion.png", classes,
                                          found["confusion"])
        print(f"{args.category}: best epoch {epoch}, on {len(test.samples)} test images:\n"
              f"{classify.describe(found)}\nwrote {run.folder}/best.pt, test.json, confusion.png")


def main(args: Namespace) -> None:
    global started
    check_model(args)
    machine = ad.machine.choose_machine(args.device, args.precision, args.window_batch,
                                        args.deterministic)
    args.device, args.precision = machine.device.type, machine.precision
    root, table, jobs, tested = ad.ranks.from_rank_0(lambda: jobs_to_train(args))
    labelled = ad.model.is_classifier(args.model)
    if args.parallel:  # this process its own ones, from now on alone
        jobs = jobs[ad.ranks.rank()::ad.ranks.size()]
        ad.ranks.leave()
    failed = []
    for job in jobs:
        try:
            if labelled:
                train_classifier(root, job, machine)
            else:
                train_detector(root, table, job, machine)
        except InputError as error:
            failed.append(f"{job.category}, seed {job.seed}: {error}")
            if ad.ranks.size() > 1:  # the others have ended
                break
            if len(jobs) > 1:
                print(failed[-1], flush=True)
        started = time.perf_counter()  # of the next run, which has its own --minutes
    if len(failed) < len(jobs) and not labelled and not args.parallel:
        path = run_folder(jobs[0]) / "best.pt" if len(jobs) == 1 else None
        print(ad.jobs.how_to_go_on(choice_from(args), tested, path))
    if failed:
        raise InputError("\n".join(failed))


if __name__ == "__main__":
    run_script(parse_args, main)
