"""Flat folders: categories.csv, made by grouping or by hand, and the category of every image."""

import csv
import io
import zipfile
from pathlib import Path

import numpy as np

from ad import InputError, layouts
from ad.checkpoint import write_atomic
from ad.plots import save_sheet
from ad.router import MARGIN, PARTS, Space, confidence, describe, distances, group, route

DOUBT = 0.1  # a test image with a confidence below this is named
COLUMNS = ("file", "category", "confidence")
FULL = {"categories": 15, "train": 3629, "test": 1725}  # MVTec AD, and the competition's release


def describe_split(root, split, runs):
    """A flat folder's (samples, descriptors). Descriptors are kept in runs/descriptors_<split>.npz
    and made again only for files that are new, or have changed."""
    samples, path = layouts.flat_files(root, split), runs / f"descriptors_{split}.npz"
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
        known |= zip([keys[i] for i in new], describe([samples[i] for i in new]))
        buffer = io.BytesIO()
        np.savez(buffer, keys=keys, values=[known[key] for key in keys])
        write_atomic(path, buffer.getvalue())
    return samples, np.stack([known[key] for key in keys])


def read_table(path, files):
    """categories.csv -> {file: category} of `files`. InputError for a line that cannot be read, a
    file without a line, or a name that cannot be a folder's."""
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        table = {row["file"]: row["category"].strip() for row in rows}
    except FileNotFoundError as error:
        raise InputError(f"no {path}; it is made by python train.py --data DIR --all") from error
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError) as error:
        raise InputError(f"cannot read {path}: it needs the columns {', '.join(COLUMNS)} "
                         f"({error})") from error
    missing = [file for file in files if file not in table]
    if missing:
        raise InputError(f"{path} has no line for {len(missing)} files, {missing[0]} first; add "
                         "it, or delete the file to group anew")
    for file, name in table.items():
        if not name or name.startswith(".") or set(name) & set('/\\') or name == layouts.POOL:
            raise InputError(f"{path}: {name!r} of {file} cannot be a category's name")
    return {file: table[file] for file in files}


def real_names(space, labels, folder):
    """{label: name}: every category in the MVTec layout `folder` names the group that most of its
    images are nearest to; the others stay unnamed."""
    votes, folder = {}, Path(folder)
    for name in layouts.find_categories(folder):
        samples = layouts.find_samples(folder, name, "train")[:20]
        found, _ = route(distances(space.train, space(describe(samples))), labels)
        best = max(set(found), key=found.count)
        votes.setdefault(best, []).append((found.count(best), name))
    return {label: max(names)[1] for label, names in votes.items()}


def make_table(root, runs, groups=None, names_from=None):
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
        save_sheet(runs / "groups" / f"{name}.png", [samples[i].path for i in order])
        table |= {f"train/{samples[i].path.name}": name for i in members}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((file, table[file], f"{c:.4f}") for file, c in
                     zip((f"train/{s.path.name}" for s in samples), certain))
    write_atomic(runs / "categories.csv", text.getvalue())
    print(f"wrote {runs / 'categories.csv'}: rename the categories there, and move single files, "
          f"after a look at {runs / 'groups'}/*.png")


def check_counts(root, table):
    """Say in one line how the counts of a flat folder differ from the full MVTec AD's."""
    found = {"categories": len(set(table.values())), **{
        split: len(layouts.list_images(root / split)) for split in ("train", "test")}}
    if found != FULL:
        print(f"note: {root} has " + ", ".join(
            f"{found[k]} {k}{'' if k == 'categories' else ' images'}" + (
                "" if found[k] == v else f" (the full MVTec AD: {v:,})") for k, v in FULL.items()))


def training_table(root, runs, groups=None, names_from=None):
    """{training file: category} of a flat folder, from runs/categories.csv, which is made where
    there is none; None for other layouts."""
    if not layouts.is_flat(root):
        return None
    path = runs / "categories.csv"
    if path.exists():
        print(f"categories: {path}, as it is")
    else:
        make_table(root, runs, groups, names_from)
    table = read_table(path, [f"train/{s.path.name}" for s in layouts.flat_files(root, "train")])
    check_counts(root, table)
    return table


def full_table(root, runs):
    """{training or test file: category} of a flat folder; None for other layouts. Test files go to
    the category of the nearest training image; those are named that are less certain of it than
    every training image."""
    if not layouts.is_flat(root):
        return None
    train, test = (layouts.flat_files(root, split) for split in ("train", "test"))
    if not test:
        raise InputError(f"no images in {root / 'test'}")
    table = read_table(runs / "categories.csv", [f"train/{s.path.name}" for s in train])
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
