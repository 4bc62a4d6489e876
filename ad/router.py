"""Which category is this image? Groups in a flat folder of normal images, and routing to them."""

import csv
import io
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.cluster import AgglomerativeClustering
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from ad import InputError, data
from ad.backbones import Gradients
from ad.checkpoint import write_atomic
from ad.plots import save_picture

SIDE = 128  # pixels of the square at which images are described
CHUNK = 64  # images described at a time
MOST = 24  # groups that are tried
COLUMNS = ("file", "category", "confidence")
FULL = {"categories": 15, "train": 3629, "test": 1725}  # MVTec AD, and the competition's release


def describe(paths):
    """Image files -> descriptors (N, 246): what they are made of, and where which colour is.

    Mean (27) and standard deviation (27) of gradient energies and colour over 8 x 8 cells, and the
    colours of the cells (192), each of the three parts with the same weight in distances.
    """
    gradients, parts = Gradients((SIDE // 8,)), []
    for start in range(0, len(paths), CHUNK):
        images = data.load_images(paths[start:start + CHUNK], 2 * SIDE)
        batch = torch.cat([F.interpolate(image[None].float() / 255, (SIDE, SIDE), mode="bilinear",
                                         antialias=True) for image in images])
        cells = gradients(batch)[0].flatten(2)
        parts.append(torch.cat([cells.mean(2), cells.std(2), cells[:, 24:].flatten(1)], 1))
    return torch.cat(parts).numpy()


class Space:
    """Descriptors of training images -> at most 32 coordinates in which distances mean something:
    each of the three parts is scaled to the same spread, then the principal components."""

    def __init__(self, described):
        spread = [np.sqrt(part.var(0).sum()) for part in np.split(described, (27, 54), 1)]
        self.scale = np.repeat(np.maximum(spread, 1e-9), (27, 27, described.shape[1] - 54))
        self.pca = PCA(min(32, *described.shape), random_state=0).fit(described / self.scale)
        self.train = self(described)

    def __call__(self, described):
        return self.pca.transform(described / self.scale)


def group(points, groups=None):
    """Points (N, D) -> (label of each, {number of groups: silhouette}). Ward's clustering; without
    `groups` that number, 2 to MOST, with the highest silhouette (Rousseeuw, 1987)."""
    if groups is not None and not 1 <= groups <= len(points):
        raise InputError(f"--groups must be 1 to the number of images ({len(points)}), got "
                         f"{groups}")
    tried = [groups] if groups else range(2, min(MOST, len(points) - 1) + 1)
    labels = {k: AgglomerativeClustering(k).fit_predict(points) for k in tried}
    evidence = {k: float(silhouette_score(points, v)) for k, v in labels.items()
                if 1 < k < len(points)}
    return labels[groups or max(evidence, key=evidence.get)], evidence


def route(queries, points, labels, themselves=False):
    """Nearest labelled point's label for each query (M, D), and a confidence in [0, 1]: 1 - the
    distance to it over that to the nearest point of another label. themselves: queries are the
    points, and none is its own neighbour."""
    labels, found, confidence = np.asarray(labels), [], []
    for start in range(0, len(queries), CHUNK):
        distance = np.linalg.norm(queries[start:start + CHUNK, None] - points, axis=2)
        if themselves:
            np.fill_diagonal(distance[:, start:], np.inf)
        own = labels[distance.argmin(1)]
        other = np.where(labels == own[:, None], np.inf, distance).min(1)
        found += own.tolist()
        confidence += (1 - distance.min(1) / np.maximum(other, 1e-12)).tolist()
    return found, confidence


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
        if not name or name.startswith(".") or set(name) & set('/\\') or name == data.POOL:
            raise InputError(f"{path}: {name!r} of {file} cannot be a category's name")
    return {file: table[file] for file in files}


def real_names(space, labels, folder):
    """{label: name}: every category in the MVTec layout `folder` names the group that most of its
    images are nearest to; the others stay unnamed."""
    votes, folder = {}, Path(folder)
    for name in data.find_categories(folder):
        samples = data.find_samples(folder, name, "train")[:20]
        found, _ = route(space(describe(samples)), space.train, labels)
        best = max(set(found), key=found.count)
        votes.setdefault(best, []).append((found.count(best), name))
    return {label: max(names)[1] for label, names in votes.items()}


def contact_sheet(path, samples, confidence, columns=10, rows=6, side=96):
    """Write one PNG of a group's images, evenly drawn; the last row has the least certain ones."""
    order = np.argsort(confidence, kind="stable")
    certain = order[columns:]
    even = certain[np.linspace(0, len(certain) - 1, columns * (rows - 1)).astype(int)] \
        if len(certain) > columns * (rows - 1) else certain
    sheet = Image.new("RGB", (columns * side, rows * side), "white")
    for place, index in enumerate([*np.sort(even), *order[:columns]]):
        image = Image.fromarray(data.read_image(samples[index].path, side).permute(1, 2, 0).numpy())
        # The least certain ones stand in the last row, however few there are above.
        place = place if place < len(even) else place - len(even) + columns * (rows - 1)
        sheet.paste(image, (place % columns * side, place // columns * side))
    save_picture(path, np.asarray(sheet))


def make_table(root, runs, groups=None, names_from=None):
    """Group the images of a flat folder, write categories.csv and a contact sheet per group."""
    samples = data.flat_files(root, "train")
    space = Space(describe(samples))
    labels, evidence = group(space.train, groups)
    confidence = np.array(route(space.train, space.train, labels, themselves=True)[1])
    print("groups: silhouette  " + ", ".join(f"{k}: {v:.3f}" for k, v in evidence.items()))
    names = real_names(space, labels, names_from) if names_from else {}
    table = {}
    for number, label in enumerate(dict.fromkeys(labels)):  # in the order of their first files
        name, members = names.get(label, f"group_{number:02}"), np.nonzero(labels == label)[0]
        print(f"{name}: {len(members)} images, least confidence {confidence[members].min():.2f}")
        contact_sheet(runs / "groups" / f"{name}.png", [samples[i] for i in members],
                      confidence[members])
        table |= {f"train/{samples[i].path.name}": name for i in members}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((file, table[file], f"{c:.4f}") for file, c in
                     zip((f"train/{s.path.name}" for s in samples), confidence))
    write_atomic(runs / "categories.csv", text.getvalue())
    print(f"wrote {runs / 'categories.csv'}: rename the categories there, and move single files, "
          f"after a look at {runs / 'groups'}/*.png")


def check_counts(root, table):
    """Say in one line how the counts of a flat folder differ from the full MVTec AD's."""
    found = {"categories": len(set(table.values())), **{split: len(data.list_images(root / split))
                                                        for split in ("train", "test")}}
    if found != FULL:
        print(f"note: {root} has " + ", ".join(
            f"{found[k]} {k}{'' if k == 'categories' else ' images'}" + (
                "" if found[k] == v else f" (the full MVTec AD: {v:,})") for k, v in FULL.items()))


def training_table(root, runs, groups=None, names_from=None):
    """{training file: category} of a flat folder, from runs/categories.csv, which is made where
    there is none; None for other layouts."""
    if not data.is_flat(root):
        return None
    path = runs / "categories.csv"
    if path.exists():
        print(f"categories: {path}, as it is")
    else:
        make_table(root, runs, groups, names_from)
    table = read_table(path, [f"train/{s.path.name}" for s in data.flat_files(root, "train")])
    check_counts(root, table)
    return table


def full_table(root, runs):
    """{training or test file: category} of a flat folder; None for other layouts. Test files go to
    the category of the nearest training image; those are named that are less certain of it than
    every training image."""
    if not data.is_flat(root):
        return None
    train, test = (data.flat_files(root, split) for split in ("train", "test"))
    if not test:
        raise InputError(f"no images in {root / 'test'}")
    table = read_table(runs / "categories.csv", [f"train/{s.path.name}" for s in train])
    labels = list(table.values())
    if len(set(labels)) == 1:
        return table | {f"test/{s.path.name}": labels[0] for s in test}
    space = Space(describe(train))
    found, confidence = route(space(describe(test)), space.train, labels)
    least = min(route(space.train, space.train, labels, themselves=True)[1])
    doubtful = [f"{s.path.name} ({name}, {c:.2f})" for s, name, c in zip(test, found, confidence)
                if c < least]
    if doubtful:
        print(f"{len(doubtful)} test images are less certain of their category than any training "
              f"image ({least:.2f}): {', '.join(doubtful)}")
    return table | {f"test/{s.path.name}": name for s, name in zip(test, found)}
