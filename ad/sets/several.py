"""Several categories, or several runs of one, side by side: categories merged into one run, the
pool of all, every run alone, and averages over them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

import ad
from ad import InputError, checkpoint
from ad.config import Choice
from ad.jobs import Job
from ad.layouts import POOL
from ad.metrics import auroc, image_metrics, rates
from ad.results import COLUMNS, arrays
from ad.samples import Sample


def parts(category: str, names: list[str]) -> list[str]:
    """The categories, of these names, that "a+b" or POOL is made of; [] for any other."""
    return split_names(category, names) or (names if category == POOL else [])


def split_names(text: str, names: list[str]) -> list[str]:
    """"a+b" -> ["a", "b"], which are among `names`, and may hold a plus, too; [] for any other."""
    if text in names:
        return [text]
    for name in names:
        if text.startswith(f"{name}+") and (rest := split_names(text[len(name) + 1:], names)):
            return [name, *rest]
    return []


def check_folder(folder: str, choice: Choice, found: list[str]) -> None:
    """Raise InputError where a category has the name of the folder of runs that are not its own:
    of the pool, of several categories, or of classifiers."""
    own = list(choice.merged) or (
        found if choice.pool else split_names(choice.category or folder, found))
    taken = split_names(folder, found)
    if taken not in ([], own):
        raise InputError(f"the runs would be in {Path(choice.runs, folder)}, where those of the "
                         f"category {', '.join(taken)} belong; rename that category")


def renamed(samples: list[Sample], name: str) -> list[Sample]:
    """Samples with the name of their job as their category; <name>/<category> where there are
    several, and their own where they are all that there is."""
    several = len({sample.category for sample in samples}) > 1
    return samples if name == POOL else [
        replace(s, category=f"{name}/{s.category}" if several else name) for s in samples]


def find_jobs(root: Path, samples: dict, choice: Choice, members: list[str] | None,
              separately: bool) -> list[Job]:
    """{category: samples} -> what to score with which runs: separately, every run alone; merged,
    every category with its own runs, voting, and with those of all together, whose jobs are called
    <categories>/<category>: no category's name has a slash."""
    if separately:
        return [job for c, part in samples.items()
                for job in separate_jobs(root, c, part, choice, members)]
    folder, jobs = "+".join(samples), [ad.jobs.find_job(c, part, choice, members)
                                       for c, part in samples.items()]
    names = [path.name for path in checkpoint.find_runs(
        choice.runs, folder, members, choice.data, choice.merged)]
    return jobs + [Job(f"{folder}/{c}", folder, names, renamed(part, f"{folder}/{c}"))
                   for c, part in samples.items()]


def separate_jobs(root: Path, category: str, samples: list[Sample], choice: Choice,
                  members: list[str] | None) -> list[Job]:
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
                own = ad.sets.other_layouts.own_samples(root, config)
            title = f"{folder}/{name}"
            jobs.append(Job(title, folder, [name], renamed(own, title)))
    if not jobs:
        checkpoint.find_runs(choice.runs, category, members, choice.data)  # says which there are
    return jobs


def all_averages(results: dict, rows: list, merged: tuple) -> dict:
    """{name: figures} for the table below those of several categories, or of merged ones."""
    if merged:
        return merged_averages(results)
    labels, scores, predictions, raw = arrays(rows)
    empty = dict.fromkeys(COLUMNS)  # pooled: one ranking over all categories
    return averages(results) | {
        "pooled": empty | image_metrics(labels, scores) | rates(labels, predictions),
        "pooled, raw": empty | {"auroc": auroc(labels, raw)}}


def merged_averages(results: dict) -> dict:
    """averages of the categories' own runs and of the merged one, and, as the accuracy of "all
    anomalous", what calling everything anomalous would reach."""
    own = {name: r for name, r in results.items() if r["folder"] == name}
    merged = {name: r for name, r in results.items() if name not in own}
    nothing = {name: r | dict.fromkeys(COLUMNS) | {
        "accuracy": r["anomalous"] / known if (known := r["images"] - r["unlabelled"]) else None}
        for name, r in own.items()}
    return {name + suffix: row for suffix, part in ((", separate", own), (", merged", merged), (
        ", all anomalous", nothing)) for name, row in averages(part).items()}


def averages(results: dict) -> dict:
    """{"mean", "weighted mean"}: of every column over the categories that have a value."""
    rows = {"mean": {}, "weighted mean": {}}
    for column in COLUMNS:
        pairs = [(r[column], r["images"] - r["unlabelled"]) for r in results.values()
                 if r[column] is not None]
        values, counts = zip(*pairs) if pairs else ((), ())
        rows["mean"][column] = float(np.mean(values)) if pairs else None
        rows["weighted mean"][column] = float(np.average(values, weights=counts)) if pairs else None
    return rows
