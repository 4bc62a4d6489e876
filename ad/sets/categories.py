"""Flat folders: categories.csv, made by grouping or by hand, and the category of every image."""

import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ad import InputError, layouts
from ad.checkpoint import write_atomic, write_rows
from ad.cli import command, require
from ad.config import Choice
from ad.images import white_of
from ad.layouts import POOL
from ad.sets.other_layouts import flat_files
from ad.sets.several import parts
from ad.sets.router import MARGIN, PARTS, Space, confidence, describe, distances, group, route
from ad.sets.submission import read_rows

DOUBT = 0.1  # a test image with a confidence below this is named
COLUMNS = ("file", "category", "confidence")


def describe_split(root: Path, split: str, runs: Path) -> tuple[list, np.ndarray]:
    """A flat folder's (samples, descriptors). Descriptors are kept in runs/descriptors_<split>.npz
    and made again only for files that are new, or have changed."""
    samples, path = flat_files(root, split), runs / f"descriptors_{split}.npz"
    stats = [s.path.stat() for s in samples]
    keys = [f"{s.path.resolve()} {i.st_size} {i.st_mtime_ns}" for s, i in zip(samples, stats)]
    known = {}
    if path.exists():
        try:
            with np.load(path) as saved:
                if saved["values"].shape[1] == sum(PARTS):  # not those of another version
                    known = dict(zip(saved["keys"].tolist(), saved["values"]))
        except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"cannot read {path} ({error}); delete it, it is made anew") from error
    new = [index for index, key in enumerate(keys) if key not in known]
    if new:
        white = white_of([s.path for s in flat_files(root, "train")])
        known |= zip([keys[i] for i in new], describe([samples[i] for i in new], white))
        buffer = io.BytesIO()
        np.savez(buffer, keys=keys, values=[known[key] for key in keys])
        write_atomic(path, buffer.getvalue())
    return samples, np.stack([known[key] for key in keys])


def read_table(path: Path, files: list[str]) -> dict[str, str]:
    """categories.csv -> {file: category} of `files`. InputError for a line that cannot be read, a
    file without a line or with two that differ, or a name that cannot be a folder's."""
    header, *rows = read_rows(path) or [[]]
    header = [name.lower() for name in header]
    if not {"file", "category"} <= set(header):
        raise InputError(f"cannot read {path}: it needs the columns {', '.join(COLUMNS)}, and has "
                         f"{', '.join(header) or 'none'}")
    columns, table = [header.index(name) for name in COLUMNS[:2]], {}
    for row in rows:
        file, name = (row[i] if i < len(row) else "" for i in columns)
        if (not name or name.startswith(".") or set(name) & set('/\\') or not name.isprintable()
                or name == POOL):
            raise InputError(f"{path}: {name!r} of {file} cannot be a category's name")
        if table.setdefault(file, name) != name:
            raise InputError(f"{path} has two lines for {file}, {table[file]} and {name}")
    missing = [file for file in files if file not in table]
    if missing:
        raise InputError(f"{path} has no line for {len(missing)} files, {missing[0]} first; add "
                         "it, or delete the file to group anew")
    return {file: table[file] for file in files}


def report_orphans(runs: Path, table: dict) -> None:
    """Say which run folders a renaming in categories.csv has left without images, and which name
    most of these have now."""
    names = set(table.values())
    for path in sorted(runs.glob("*/*/config.json")):
        folder = path.parent.parent
        try:
            config = json.loads(path.read_text("utf-8"))
            now = Counter(table[file] for file in config["train"] if file in table)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"cannot read {path} ({error}); delete its folder") from error
        if now and not parts(folder.name, [*names]):
            new = now.most_common(1)[0][0]
            print(f"note: no image is in the category {folder.name} now, most of those of its run "
                  f"{path.parent} are in {new}; to use it, rename {folder} to {runs / new}")


def real_names(space: Space, labels: np.ndarray, folder: Path | str) -> dict[int, str]:
    """{label: name}: every category in the MVTec layout `folder` names the group that most of its
    images are nearest to; the others stay unnamed."""
    votes, folder = {}, Path(folder)
    for name in layouts.find_categories(folder):
        samples = layouts.find_samples(folder, name, "train")[:20]
        described = describe(samples, white_of([s.path for s in samples]))
        found, _ = route(distances(space.train, space(described)), labels)
        best = max(set(found), key=found.count)
        votes.setdefault(best, []).append((found.count(best), name))
    return {label: max(names)[1] for label, names in votes.items()}


def make_table(root: Path, runs: Path, draw: Callable, groups: int | None = None,
               names_from: Path | str | None = None) -> None:
    """Group the images of a flat folder, write categories.csv and a contact sheet per group."""
    samples, described = describe_split(root, "train", runs)
    space = Space(described)
    labels, margins = group(space.train, groups)
    certain = confidence(distances(space.train), labels, labels).clip(0)
    print(f"groups and the margin between them (asked for: {MARGIN}): "
          + ", ".join(f"{k}: {v:.2f}" for k, v in margins.items()))
    names = real_names(space, labels, names_from) if names_from else {}
    table = {}
    for number, label in enumerate(dict.fromkeys(labels)):  # in the order of their first files
        name, members = names.get(label, f"group_{number:02}"), np.nonzero(labels == label)[0]
        print(f"{name}: {len(members)} images, least confidence {certain[members].min():.2f}")
        order = members[np.argsort(certain[members], kind="stable")]
        draw(runs / "groups" / f"{name}.png", [samples[i].path for i in order],
                   [f"confidence {certain[i]:.2f}" for i in order],
                   f"{name}: {len(members)} images, the least certain ones in the last row")
        table |= {f"train/{samples[i].path.name}": name for i in members}
    files = (f"train/{s.path.name}" for s in samples)
    write_atomic(runs / "categories.csv", write_rows(
        [COLUMNS, *((file, table[file], f"{c:.4f}") for file, c in zip(files, certain))]))
    print(f"wrote {runs / 'categories.csv'}: rename the categories there, and move single files, "
          f"after a look at {runs / 'groups'}/*.png; where all are of one, delete it and give "
          "--groups 1")


def training_table(root: Path, runs: Path, draw: Callable, groups: int | None = None,
                   names_from: Path | str | None = None, again: bool = False) -> dict[str, str]:
    """{training file: category} of a flat folder, from runs/categories.csv, which is made where
    there is none. draw(path, files, notes, heading) writes a contact sheet. Raises InputError
    where a table is there and `groups` is not its number of them, or names_from is given; `again`,
    for a run that is repeated, lets names_from pass."""
    path = runs / "categories.csv"
    there = path.exists()
    if not there:
        make_table(root, runs, draw, groups, names_from)
    table = read_table(path, [f"train/{s.path.name}" for s in flat_files(root, "train")])
    if there:
        count = len(set(table.values()))
        require(groups in (None, count) and (again or not names_from), f"{path} is there, with "
                f"{count} categories: leave out --groups and --names-from to keep it, or delete "
                "it to group anew")
        print(f"categories: {path}, as it is")
        report_orphans(runs, table)
    return table


def full_table(root: Path, runs: Path) -> dict[str, str]:
    """{training or test file: category} of a flat folder. Test files go to the category of the
    nearest training image; those are named that are less certain of it than every training image.
    """
    train, test = (flat_files(root, split) for split in ("train", "test"))
    if not test:
        raise InputError(f"no images in {root / 'test'}")
    path = runs / "categories.csv"
    require(path.exists(), f"no {path}; this makes it: {command('train.py', root, runs, '--all')}")
    table = read_table(path, [f"train/{s.path.name}" for s in train])
    report_orphans(runs, table)
    labels = list(table.values())
    if len(set(labels)) == 1:
        return table | {f"test/{s.path.name}": labels[0] for s in test}
    space = Space(describe_split(root, "train", runs)[1])
    queries = space(describe_split(root, "test", runs)[1])
    found, certain = route(distances(space.train, queries), labels)
    least = max(DOUBT, min(route(distances(space.train), labels)[1]))
    doubtful = [f"{s.path.name} ({name}, {c:.2f})" for s, name, c in zip(test, found, certain)
                if c < least]
    if doubtful:
        print(f"{len(doubtful)} test images are less certain of their category than {least:.2f}, "
              f"and than every training image: {', '.join(doubtful)}")
    return table | {f"test/{s.path.name}": name for s, name in zip(test, found)}


def tested(table: dict, trained: list, choice: Choice) -> list[str]:
    """Categories of a flat folder that have test images. Raises InputError unless all of them are
    `trained`: every image must get a score."""
    names = sorted({c for file, c in table.items() if file.startswith("test/")})
    untrained = [c for c in names if c not in trained]
    require(not untrained, f"no trained run in {choice.runs} for {', '.join(untrained)}, which has "
            "test images; a submission needs a score for each: " + " && ".join(command(
                "train.py", choice.data, choice.runs, "--category", c) for c in untrained))
    return names
