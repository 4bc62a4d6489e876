"""What train.py trains; what infer.py scores, and with which runs."""

from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import ad
from ad import checkpoint, layouts
from ad.cli import command, near, require
from ad.config import Choice
from ad.samples import NORMAL, Sample

# name: in the results; folder, members: which runs, below --runs; samples: of the test split.
Job = namedtuple("Job", "name folder members samples")


def categories_to_train(choice: Choice, ending: str, groups: int | None,
                        names_from: str | None, resumed: object) -> tuple:
    """(root of the data, table of a flat folder, names of what to train, has it a test split?);
    says what was understood. ending: of the names of their folders of runs; groups, names_from,
    resumed: see sets.categories."""
    root, table = layouts.resolve_data(choice.data), None
    kind = layouts.layout(root)
    if kind == "flat":
        table = ad.sets.categories.training_table(
            root, Path(choice.runs), ad.pictures.plots.save_sheet, groups, names_from, resumed)
    else:
        require(groups is None and not names_from, "--groups and --names-from are for a folder "
                f"without categories; {root} is none")
    found = layouts.find_categories(root, table)
    choice = the_category(choice, root, found)
    tested = any((root / category / "test").is_dir() for category in ("", *found))
    if kind == "mvtec":
        print(f"{root}: MVTec AD's layout, {len(found)} categor{'y' if len(found) == 1 else 'ies'}")
    else:
        tested |= ad.sets.other_layouts.describe(root, kind, found)
    names = found if choice.every else ["+".join(choice.merged or [choice.category])]
    for name in names if ending or choice.pool or choice.merged else ():
        ad.sets.several.check_folder(name + ending, replace(choice, category=name), found)
    return root, table, names, tested


def the_category(choice: Choice, root: Path, found: list[str]) -> Choice:
    """The Choice with the only category that was found in a folder, where it names none. Raises
    InputError where there are several, and for a name that is not among them."""
    if not (choice.category or choice.every or choice.merged):
        require(len(found) == 1, f"give --all, or --category NAME, one of {', '.join(found)}")
        choice = replace(choice, category=found[0])
    for name in choice.merged or ([] if choice.every else [choice.category]):
        require(name in found or ad.sets.several.parts(name, found), f"unknown category {name!r} "
                f"in {root}; there are: {', '.join(found)}{near(name, found)}")
    return choice


def how_to_go_on(choice: Choice, tested: bool, path: Path | None) -> str:
    """Lines after training. tested: is there a test split?; path: of the checkpoint, None for
    several."""
    name = "+".join(choice.merged) or choice.category or path and path.parent.parent.name
    options = ["--all"] if choice.every else ["--category", name] if name else []
    score = command("infer.py", choice.data, choice.runs, *options) if tested else command(
        "infer.py", None, choice.runs, "--image", "FOLDER", *([] if choice.every else options))
    lines = [f"to score {'the test images' if tested else 'new images'}: {score}"]
    if path:
        lines.append("to look at it: " + command("visualize.py", None, choice.runs, "--ckpt", path))
    return "\n".join(lines)


def jobs_to_score(choice: Choice, members: list | None = None, separately: bool = False,
                  spot_check: list | tuple = (), like: Path | None = None,
                  submits: bool = False) -> tuple[list[Job], bool, set]:
    """(Jobs; is it a folder without categories?; paths of the images of --spot-check). members:
    names of the runs that vote, None = all; like: a sample submission; submits: is a submission
    asked for, which only a folder without categories gets?"""
    root = layouts.resolve_data(choice.data)
    table = full_table(root, choice.runs)
    require(table is not None or not submits, "--like, --check-submission and --binary are for a "
            "folder without categories, which alone gets a submission.csv")
    samples = {c: layouts.find_samples(root, c, "test", table)
               for c in categories_to_score(root, choice, table)}
    found = [s for part in samples.values() for s in part]
    if table is not None:  # now, not after the images are scored
        ad.sets.submission.check_submits(table, found, like, separately or choice.merged)
    for category, part in samples.items():
        ad.masks.report_masks(category, part)
        if layouts.layout(root) == "mvtec":
            report_labels(category, part)
    if separately or choice.merged:
        jobs = ad.sets.several.find_jobs(root, samples, choice, members, separately)
    else:
        jobs = [find_job(c, part, choice, members) for c, part in samples.items()]
    shown = ad.sets.files.named(found, spot_check) if spot_check else ()
    return jobs, table is not None, {sample.path for sample in shown}


def report_labels(category: str, samples: list[Sample]) -> None:
    """Say where a test split has no folder of normal images."""
    known = [sample.label for sample in samples if sample.label >= 0]
    if known and all(known):
        print(f"note: {category}: no test folder is called {', '.join(NORMAL[:-1])} or "
              f"{NORMAL[-1]}, so all {len(known)} images with labels count as anomalous")


def full_table(root: Path, runs: str | Path) -> dict | None:
    """{file below root: category} of a folder without categories; None for other layouts."""
    return ad.sets.categories.full_table(root, Path(runs)) \
        if layouts.layout(root) == "flat" else None


def categories_to_score(root: Path, choice: Choice, table: dict | None) -> list[str]:
    """The categories asked for or, with --all, those that have a run; says which have none."""
    everything = layouts.find_categories(root, table)
    if not choice.every:
        choice = the_category(choice, root, everything)
        if choice.pool or choice.merged:
            ad.sets.several.check_folder("+".join(choice.merged or [choice.category]), choice,
                                         everything)
        return list(choice.merged) or [choice.category]
    found = [c for c in everything if any(Path(choice.runs, c).glob("*/best.pt"))]
    require(found, f"no trained run in {choice.runs} for any category of {root}; train them: "
            + command("train.py", choice.data, choice.runs, "--all"))
    if table is not None:
        return ad.sets.categories.tested(table, found, choice)
    if len(found) < len(everything):
        print(f"not trained, not scored: {', '.join(c for c in everything if c not in found)}")
    return found


def find_job(category: str, samples: list[Sample], choice: Choice,
             members: list | None = None) -> Job:
    """The Job of a category with its own runs, which vote."""
    runs = checkpoint.find_runs(choice.runs, category, members, choice.data)
    if any(sample.category != category for sample in samples):
        samples = ad.sets.several.renamed(samples, category)
    return Job(category, category, [run.name for run in runs], samples)
