"""What train.py trains; what infer.py scores, and with which runs."""

import argparse
import json
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import ad
from ad import checkpoint, distributed, layouts
from ad.cli import command, near, require
from ad.masks import report_masks
from ad.model import is_classifier, model_class
from ad.samples import named, photos, single_files
from ad.submission import sample_order

# name: in the results; folder, members: which runs, below --runs; samples: of the test split.
Job = namedtuple("Job", "name folder members samples")


def jobs_to_train(args):
    """(root of the data, table of a flat folder, arguments of each run, has a category a test
    split?)"""
    root = layouts.resolve_data(args.data)
    table = ad.categories.training_table(root, Path(args.runs), args.groups, args.names_from,
                                      args.resume or args.config)
    found = layouts.find_categories(root, table)
    choose_one(args, found)
    for name in args.merge_categories or ([] if args.all else [args.category]):
        require(name in (*found, layouts.POOL),
                f"unknown category {name!r} in {root}; there are: {', '.join(found)}"
                + near(name, found))
    print(layouts.describe(root, found))
    chosen = found if args.all else ["+".join(args.merge_categories or [args.category])]
    jobs = [argparse.Namespace(**vars(args) | {"category": category, "seed": seed})
            for category in chosen for seed in args.seeds]
    for job in jobs:
        check_folder(run_folder(job).parent.name, job, found)
        require(args.resume or args.overwrite or not run_folder(job).exists(),
                f"{run_folder(job)} exists; --resume continues it, --overwrite starts anew, --name "
                "NAME makes another")
    tested = any((root / c / "test").is_dir() for c in ("", *found)) or \
        layouts.layout(root) == "photos" and bool(photos(root, "test"))
    return root, table, jobs, tested


def choose_one(args, found):
    """Without --category, --all and the like: the only category that there is."""
    if not (args.category or args.all or args.merge_categories):
        require(len(found) == 1, f"give --all, or --category NAME, one of {', '.join(found)}")
        args.category, = found


def check_folder(folder, args, found):
    """Raise InputError where a category has the name of the folder of runs that are not its own:
    of the pool, of several categories, or of classifiers."""
    own = args.merge_categories or (
        found if args.pool else layouts.split_names(args.category, found))
    taken = layouts.split_names(folder, found)
    require(taken in ([], own), f"the runs would be in {Path(args.runs, folder)}, where those of "
            f"the category {', '.join(taken)} belong; rename that category")


def run_folder(args):
    """runs/<category>/<name>; of a classifier runs/<category>-classes/<name>."""
    labelled = "-classes" if is_classifier(args.model) else ""
    name = args.name or f"{args.model}-seed{args.seed}"
    return Path(args.runs) / f"{args.category}{labelled}" / name


def advice(args, tested):
    """How to go on after training; tested: is there a test split?"""
    which = ["--all"] if args.all else ["--merge-categories", *args.merge_categories] \
        if args.merge_categories else ["--category", args.category] if args.category else []
    score = command("infer.py", args.data, args.runs, *which) if tested else \
        command("infer.py", None, args.runs, "--image", "FOLDER", *([] if args.all else which))
    lines = [f"to score {'the test images' if tested else 'new images'}: {score}"]
    if not args.all:
        look = command("visualize.py", None, args.runs, "--ckpt", run_folder(args) / "best.pt")
        lines.append(f"to look at it: {look}")
    return "\n".join(lines)


def own_jobs(jobs, args):
    """What this one of several processes trains: all jobs, with the others, or, --parallel, its
    own ones, in turn, from now on alone."""
    if args.parallel:
        jobs = jobs[distributed.rank()::distributed.size()]
        distributed.leave()
    require(distributed.size() == 1 or not hasattr(model_class(args.model), "fit"), "a memory is "
            "fitted in one pass, by one process: without torchrun, or with --parallel categories")
    return jobs


def samples_to_score(root, table, args):
    """{category: test samples} of the categories asked for or, with --all, of those that have a
    run; says which have none, and what is odd about their masks. Of a flat folder every image must
    get a score."""
    everything = layouts.find_categories(root, table)
    choose_one(args, everything)
    found = args.merge_categories or [args.category]
    if not args.all:
        check_folder("+".join(found), args, everything)
    else:
        found = [c for c in everything if any(Path(args.runs, c).glob("*/best.pt"))]
        require(found, f"no trained run in {args.runs} for any category of {root}; train them: "
                + command("train.py", args.data, args.runs, "--all"))
        if table is not None:  # not every category has test images
            everything = sorted({c for file, c in table.items() if file.startswith("test/")})
            found = [c for c in everything if c in found]
        untrained = sorted(set(everything) - set(found))
        require(table is None or not untrained, f"no trained run in {args.runs} for "
                f"{', '.join(untrained)}, which has test images; a submission needs a score for "
                "each: " + " && ".join(command("train.py", args.data, args.runs, "--category", c)
                                       for c in untrained))
        if untrained:
            print(f"not trained, not scored: {', '.join(untrained)}")
    require(table is not None or not (args.like or args.check_submission or args.binary), "--like, "
            "--check-submission and --binary are for a folder without categories, which alone gets "
            "a submission.csv")
    require(table is None or not (args.separately or args.merge_categories), "a submission needs "
            "one score for each image: leave out --separately and --merge-categories")
    samples = {c: layouts.find_samples(root, c, "test", table) for c in found}
    for category, part in samples.items():
        report_masks(category, part)
    if args.like:  # now, not after the images are scored
        found = [s for part in samples.values() for s in part]
        require(len(found) == sum(file.startswith("test/") for file in table), "--like needs a "
                "score for every test image: give --all")
        sample_order(args.like, {s.id: s.path.name for s in found})
    return samples


def separate_jobs(root, category, samples, args):
    """Every run of a category alone: detectors on its test split, classifiers, as detectors of what
    is not normal, on their own. Raises InputError when there is none of --members."""
    jobs = []
    for folder in (category, f"{category}-classes"):
        for path in sorted(Path(args.runs, folder).glob("*/best.pt")):
            name, own = path.parent.name, samples
            if args.members is not None and name not in args.members:
                continue
            if folder != category:
                config = json.loads((path.parent / "config.json").read_text())
                if "test" not in config:  # of a category that is called so
                    continue
                own = ad.classify.own_samples(root, config)
            jobs.append(job(f"{folder}/{name}", folder, [name], own))
    if not jobs:
        checkpoint.find_runs(args.runs, category, args.members, args.data)  # says which there are
    return jobs


def job(name, folder, members, samples):
    """A Job whose samples have its name as their category; <name>/<category> where there are
    several, and their own where they are all that there is."""
    several = len({sample.category for sample in samples}) > 1
    return Job(name, folder, members, samples if name == layouts.POOL else [
        replace(s, category=f"{name}/{s.category}" if several else name) for s in samples])


def jobs_to_score(args):
    """(what to score with which runs, see find_jobs; is it a flat folder?; paths of the images of
    --spot-check)."""
    if args.image or args.export:
        samples = single_files(args.image, args.category) if args.image else []
        return find_jobs(None, {args.category: samples}, args), False, set()
    root = layouts.resolve_data(args.data)
    table = ad.categories.full_table(root, Path(args.runs))
    samples = samples_to_score(root, table, args)
    shown = named([s for part in samples.values() for s in part], args.spot_check)
    return find_jobs(root, samples, args), table is not None, {sample.path for sample in shown}


def find_jobs(root, samples, args):
    """{category: samples} -> what to score with which runs: every category with its own, voting;
    --separately, with each of them; --merge-categories, also with those of all together, whose
    jobs are called <categories>/<category>: no category's name has a slash."""
    if args.separately:
        return [job_ for c, part in samples.items() for job_ in separate_jobs(root, c, part, args)]
    jobs = [job(c, c, [f.name for f in checkpoint.find_runs(args.runs, c, args.members, args.data)],
                part) for c, part in samples.items()]
    if args.merge_categories:
        folder = "+".join(samples)
        names = [f.name for f in checkpoint.find_runs(
            args.runs, folder, args.members, args.data, args.merge_categories)]
        jobs += [job(f"{folder}/{c}", folder, names, part) for c, part in samples.items()]
    return jobs
