"""What train.py trains; what infer.py scores, and with which runs."""

import json
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import ad
from ad import checkpoint, layouts
from ad import ranks
from ad.cli import command, near, require
from ad.masks import report_masks
from ad.samples import named, photos, single_files

# name: in the results; folder, members: which runs, below --runs; samples: of the test split.
Job = namedtuple("Job", "name folder members samples")


def advise(choice, script, *more):
    """A command line of a script for the same data, runs and categories."""
    return command(script, choice.data, choice.runs, *choice.options, *more)


def the_category(choice, root, found):
    """The Choice with the only category that was found in a folder, where it names none. Raises
    InputError where there are several, and for a name that is not among them."""
    if not (choice.category or choice.every or choice.merged):
        require(len(found) == 1, f"give --all, or --category NAME, one of {', '.join(found)}")
        choice = replace(choice, category=found[0])
    for name in choice.merged or ([] if choice.every else [choice.category]):
        if not layouts.split_names(name, found) and name != layouts.POOL:
            raise ad.InputError(f"unknown category {name!r} in {root}; there are: "
                                f"{', '.join(found)}{near(name, found)}")
    return choice


def categories_to_train(choice, groups=None, names_from=None, resumed=False):
    """(root of the data, table of a flat folder, names of what to train, has it a test split?);
    says what was understood. groups, names_from, resumed: see sets.categories."""
    root, table = layouts.resolve_data(choice.data), None
    if layouts.is_flat(root):
        table = ad.sets.categories.training_table(
            root, Path(choice.runs), ad.pictures.plots.save_sheet, groups, names_from, resumed)
    else:
        require(groups is None and not names_from, "--groups and --names-from are for a folder "
                f"without categories; {root} is none")
    found = layouts.find_categories(root, table)
    choice = the_category(choice, root, found)
    print(layouts.describe(root, found))
    chosen = found if choice.every else ["+".join(choice.merged or [choice.category])]
    tested = any((root / c / "test").is_dir() for c in ("", *found)) or \
        layouts.layout(root) == "photos" and bool(photos(root, "test"))
    return root, table, chosen, tested


def check_folder(folder, choice, found):
    """Raise InputError where a category has the name of the folder of runs that are not its own:
    of the pool, of several categories, or of classifiers."""
    own = list(choice.merged) or (
        found if choice.pool else layouts.split_names(choice.category or folder, found))
    taken = layouts.split_names(folder, found)
    require(taken in ([], own), f"the runs would be in {Path(choice.runs, folder)}, where those of "
            f"the category {', '.join(taken)} belong; rename that category")


def how_to_go_on(choice, tested, path):
    """Lines after training. tested: is there a test split?; path: of the checkpoint, None for
    several."""
    which = [] if choice.every else choice.options
    score = advise(choice, "infer.py") if tested else command(
        "infer.py", None, choice.runs, "--image", "FOLDER", *which)
    lines = [f"to score {'the test images' if tested else 'new images'}: {score}"]
    if path:
        lines.append("to look at it: " + command("visualize.py", None, choice.runs, "--ckpt", path))
    return "\n".join(lines)


def own_jobs(jobs, model_class, parallel):
    """What this one of several processes trains: all jobs, with the others, or, parallel, its own
    ones, in turn, from now on alone. model_class: what builds the model."""
    if parallel:
        jobs = jobs[ranks.rank()::ranks.size()]
        ranks.leave()
    require(ranks.size() == 1 or not hasattr(model_class, "fit"), "a memory is fitted in one "
            "pass, by one process: without torchrun, or with --parallel categories")
    return jobs


def samples_to_score(root, table, choice):
    """{category: test samples} of the categories asked for or, with --all, of those that have a
    run; says which have none, and what is odd about their masks. Of a flat folder every image must
    get a score."""
    everything = layouts.find_categories(root, table)
    if not choice.every:
        choice = the_category(choice, root, everything)
        found = list(choice.merged) or [choice.category]
        check_folder("+".join(found), choice, everything)
    else:
        found = [c for c in everything if any(Path(choice.runs, c).glob("*/best.pt"))]
        require(found, f"no trained run in {choice.runs} for any category of {root}; train them: "
                + advise(choice, "train.py"))
        if table is not None:  # not every category has test images
            everything = sorted({c for file, c in table.items() if file.startswith("test/")})
            found = [c for c in everything if c in found]
        untrained = sorted(set(everything) - set(found))
        require(table is None or not untrained, f"no trained run in {choice.runs} for "
                f"{', '.join(untrained)}, which has test images; a submission needs a score for "
                "each: " + " && ".join(command("train.py", choice.data, choice.runs, "--category",
                                               c) for c in untrained))
        if untrained:
            print(f"not trained, not scored: {', '.join(untrained)}")
    samples = {c: layouts.find_samples(root, c, "test", table) for c in found}
    for category, part in samples.items():
        report_masks(category, part)
    return samples


def full_table(root, runs):
    """{file below root: category} of a folder without categories; None for other layouts."""
    return ad.sets.categories.full_table(root, Path(runs)) if layouts.is_flat(root) else None


def jobs_to_score(choice, members=None, separately=False, spot_check=(), like=None, submits=False):
    """(Jobs, see find_jobs; is it a folder without categories?; paths of the images of
    --spot-check). members: names of the runs that vote, None = all; like: a sample submission;
    submits: is a submission asked for, which only a folder without categories gets?"""
    root = layouts.resolve_data(choice.data)
    table = full_table(root, choice.runs)
    require(table is not None or not submits, "--like, --check-submission and --binary are for a "
            "folder without categories, which alone gets a submission.csv")
    require(table is None or not (separately or choice.merged), "a submission needs one score for "
            "each image: leave out --separately and --merge-categories")
    samples = samples_to_score(root, table, choice)
    found = [s for part in samples.values() for s in part]
    if like:  # now, not after the images are scored
        require(len(found) == sum(file.startswith("test/") for file in table), "--like needs a "
                "score for every test image: give --all")
        ad.sets.submission.sample_order(like, {s.id: s.path.name for s in found})
    shown = {sample.path for sample in named(found, spot_check)}
    return find_jobs(root, samples, choice, members, separately), table is not None, shown


def job_of_files(choice, paths, members=None):
    """The Job of single image files, none where only the Detector is wanted."""
    samples = single_files(paths, choice.category) if paths else []
    return find_jobs(None, {choice.category: samples}, choice, members)[0]


def separate_jobs(root, category, samples, choice, members):
    """Every run of a category alone: detectors on its test split, classifiers, as detectors of what
    is not normal, on their own. Raises InputError when there is none of the members."""
    jobs = []
    for folder in (category, f"{category}-classes"):
        for path in sorted(Path(choice.runs, folder).glob("*/best.pt")):
            name, own = path.parent.name, samples
            if members is not None and name not in members:
                continue
            if folder != category:
                config = json.loads((path.parent / "config.json").read_text())
                if "test" not in config:  # of a category that is called so
                    continue
                own = ad.models.classify.own_samples(root, config)
            jobs.append(job(f"{folder}/{name}", folder, [name], own))
    if not jobs:
        checkpoint.find_runs(choice.runs, category, members, choice.data)  # says which there are
    return jobs


def job(name, folder, members, samples):
    """A Job whose samples have its name as their category; <name>/<category> where there are
    several, and their own where they are all that there is."""
    several = len({sample.category for sample in samples}) > 1
    return Job(name, folder, members, samples if name == layouts.POOL else [
        replace(s, category=f"{name}/{s.category}" if several else name) for s in samples])


def find_jobs(root, samples, choice, members=None, separately=False):
    """{category: samples} -> what to score with which runs: every category with its own, voting;
    separately, with each of them; merged ones also with those of all together, whose jobs are
    called <categories>/<category>: no category's name has a slash."""
    if separately:
        return [one for c, part in samples.items()
                for one in separate_jobs(root, c, part, choice, members)]

    def runs_of(folder, merged=()):
        return [path.name for path in checkpoint.find_runs(choice.runs, folder, members,
                                                           choice.data, merged)]
    jobs = [job(c, c, runs_of(c), part) for c, part in samples.items()]
    if choice.merged:
        folder = "+".join(samples)
        names = runs_of(folder, choice.merged)
        jobs += [job(f"{folder}/{c}", folder, names, part) for c, part in samples.items()]
    return jobs
