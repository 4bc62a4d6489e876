"""Folder layouts, recognised by looking: where the images of a category and split are."""

from dataclasses import replace

import ad
from ad import InputError
from ad.folders import files_below, is_image, list_images, report_left_out, root_of, subfolders
from ad.samples import Sample, as_taken, label_of, photos, with_ids

LAYOUT_HELP = ("MVTec AD: ROOT/<category>/{train/good, test/<good|defect>, "
               "ground_truth/<defect>/*_mask.png}; flat: ROOT/{train, test}/*.png; or casting "
               "wells: ROOT/{train/*.jpg, proliv/*.jpg, test/imgs/*.jpg, test/test_annotation.txt}"
               "; photographs: DIR/*.png, all normal, or DIR/good/*.png beside other folders"
               "; or, for classifiers, class folders: ROOT/<class>/*")
WELLS = "wells"  # the one category of the casting layout
POOL = "pool"  # the category that holds the images of all categories


def resolve_data(name):
    """--data (or None: AD_DATA, else data/mvtec_ad) -> existing root; "demo" and "demo-wells" are
    written first."""
    root = root_of(name)
    if name == "demo":
        return ad.sets.demo.write_demo(root)
    return ad.sets.demo_wells.write_wells(root) if name == "demo-wells" else root


def layout(root):
    """"mvtec", "wells", "flat": ROOT/{train, test}/*.png without categories, "photos": of one
    category, see ad.samples, "classes": ROOT/<class>/*.png, or None: the first it looks like."""
    if mvtec_categories(root) or has_normals(root):
        return "mvtec"
    if (root / "proliv").is_dir() or (root / "test/test_annotation.txt").is_file():
        return "wells"
    if list_images(root / "train"):
        return "flat"
    folders = [folder for folder in subfolders(root) if list_images(folder)]
    if any(label_of(folder.name) == 0 for folder in folders) or not folders and list_images(root):
        return "photos"
    return "classes" if folders else None


def describe(root, names):
    """What was understood of a folder, in one line; names: of its categories."""
    kind = layout(root)
    if kind == "photos":
        test = [sample.label for sample in photos(root, "test")]
        return (f"{root}: photographs of one category, {names[0]}: {len(photos(root, 'train'))} "
                f"normal, {test.count(1)} anomalous, {test.count(-1)} without a label")
    what = {"mvtec": "MVTec AD's layout", "wells": "casting wells", "classes": "class folders",
            "flat": "images without categories, which were grouped"}[kind]
    return f"{root}: {what}, {len(names)} categor{'y' if len(names) == 1 else 'ies'}"


def is_flat(root):
    return layout(root) == "flat"


def has_normals(folder):
    """Is it a category in MVTec AD's layout: is there a train/good?"""
    return any(label_of(p.name) == 0 for p in subfolders(folder / "train"))


def mvtec_categories(root):
    return [p.name for p in subfolders(root) if has_normals(p)]


def class_samples(root, category):
    """Samples of a category as classes, whose names are in `defect`: those of class folders or, in
    MVTec AD's layout, good, which is train/good and test/good, and every test/<defect>."""
    kind = layout(root)
    if kind in ("classes", "photos") and subfolders(root):
        report_left_out(root, files := [path for folder in subfolders(root)
                                        for path in files_below(folder) if is_image(path)])
        return with_ids([Sample(path, category, "train", path.relative_to(root).parts[0], -1, None)
                         for path in files], root)
    if kind != "mvtec":
        raise InputError(f"{root} has no classes; a classifier needs ROOT/<class>/* or MVTec AD's "
                         "layout")
    return [replace(s, id=f"train/{s.id}") for s in find_samples(root, category, "train")] + [
        s for s in find_samples(root, category, "test") if s.label >= 0]


def find_categories(root, table=None):
    """Names of the categories below `root`, sorted. Raises InputError for any other layout.

    table: of a flat folder, {file below root: category}, see ad.sets.categories.
    """
    kind, names = layout(root), mvtec_categories(root)
    if kind == "wells":
        return [WELLS]
    if kind in ("classes", "photos"):
        return [root.absolute().name]
    if table is not None:
        return sorted({c for file, c in table.items() if file.startswith("train/")})
    if kind == "mvtec" and not names:
        raise InputError(f"{root} is one category, not a data set: use --data {root.parent} "
                         f"--category {root.absolute().name}")
    if not names:
        found = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
        raise InputError(f"{root} holds no known layout (found: {found}); it should be "
                         f"{LAYOUT_HELP}")
    return names


def split_names(text, names):
    """"a+b" -> ["a", "b"], which are among `names`, and may hold a plus, too; [] for any other."""
    if text in names:
        return [text]
    for name in names:
        if text.startswith(f"{name}+") and (rest := split_names(text[len(name) + 1:], names)):
            return [name, *rest]
    return []


def flat_files(root, split, table=None):
    """All samples of a flat folder; their category is that of `table`, or "" without one."""
    return [replace(s, category=table[f"{split}/{s.path.name}"] if table else "")
            for s in as_taken(root / split, "", split, "", 0 if split == "train" else -1)]


def mvtec(root, category, split):
    """Samples of one category in MVTec AD's layout; says what is left out of the split."""
    folder, samples = root / category / split, []
    files = [*filter(is_image, files_below(folder))] if folder.is_dir() else []
    masks = ad.masks.find_masks(files)
    for path in files:
        name = path.relative_to(folder).parts[0] if path.parent != folder else ""
        label = label_of(name)
        if split == "test" or label == 0:
            samples.append(Sample(path, category, split, name if label else "good", label,
                                  masks.get(path) if label >= 0 else None))
    report_left_out(folder, [sample.path for sample in samples])
    return with_ids(samples, folder)


def find_samples(root, category, split, table=None):
    """Samples of one category (POOL: of all; a+b: of both) and split, sorted by path. Raises
    InputError when there are none. split "train": the images of train/good, or what it is called,
    see ad.samples. split "test": those of every test/<defect>, with their masks. split
    "validation": labelled anomalous images to validate with, [] but in the casting layout. table:
    see find_categories.
    """
    names, kind = find_categories(root, table), layout(root)
    wanted = split_names(category, names) or (names if category == POOL else [])
    if not wanted:
        raise InputError(f"unknown category {category!r} in {root}; there are: {', '.join(names)}")
    if kind == "classes":
        raise InputError(f"{root} holds class folders; they are for classifiers: --model resnet")
    if split == "validation" and kind != "wells":
        return []
    if kind == "wells":
        samples = ad.sets.wells.samples(root, split)
    elif kind == "photos":
        samples = photos(root, split)
    elif table:
        samples = [s for s in flat_files(root, split, table) if s.category in wanted]
    else:
        samples = [sample for name in wanted for sample in mvtec(root, name, split)]
    if not samples and split != "validation":
        if kind == "photos":
            raise InputError(f"{root} has only normal images; to judge others: python infer.py "
                             f"--image FOLDER --category {category}")
        below = "" if table or kind == "wells" else category
        raise InputError(f"no images in {root / below / split}"
                         + (f" for the category {category}" if table else ""))
    return samples
