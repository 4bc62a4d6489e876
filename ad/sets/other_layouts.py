"""Layouts other than MVTec AD's: casting wells, folders without categories (flat), photographs of
one category, and class folders."""

from dataclasses import replace
from pathlib import Path

import ad
from ad import InputError, layouts
from ad.cli import require
from ad.folders import (files_below, images_below, is_image, report_left_out, subfolders, unread,
                        visible, whole_path)
from ad.runs import run_files
from ad.samples import NORMAL, Sample, label_of, with_ids

LAYOUT_HELP = ("MVTec AD: ROOT/<category>/{train/good, test/<good|defect>, "
               "ground_truth/<defect>/*_mask.png}; flat: ROOT/{train, test}/*.png; or casting "
               "wells: ROOT/{train/*.jpg, proliv/*.jpg, test/imgs/*.jpg, test/test_annotation.txt}"
               "; photographs: DIR/*.png, all normal, or DIR/good/*.png beside other folders"
               "; or, for classifiers, class folders: ROOT/<class>/*")
WELLS = "wells"  # the one category of the casting layout
# Folders of anomalous images in a folder of photographs, where any other has no label.
ANOMALOUS = ("bad", "defect", "defects", "defective", "anomaly", "anomalies", "anomalous",
             "abnormal", "faulty", "broken", "damaged", "reject", "rejects", "ng", "nok", "not ok")


def layout(root: Path) -> str | None:
    """"wells", "flat": ROOT/{train, test}/*.png without categories, "photos": of one category,
    "classes": ROOT/<class>/*.png, or None: the first it looks like."""
    if (root / "proliv").is_dir() or (root / "test/test_annotation.txt").is_file():
        return "wells"
    if list_images(root / "train"):
        return "flat"
    if has_good(root) or label_of(whole_path(root).name) == 0 and images_below(root):
        return "photos"
    if any(list_images(folder) for folder in subfolders(root)):
        return "classes"
    return "photos" if list_images(root) else None


def has_good(root: Path) -> bool:
    """Is one of its folders called good, or the like, and holds images, at any depth?"""
    return any(label_of(f.name) == 0 and images_below(f) for f in subfolders(root))


def describe(root: Path, kind: str, names: list[str]) -> bool:
    """Say what was understood of a folder of this layout; names: of its categories. Returns whether
    it holds photographs to test with."""
    if kind == "photos":
        test = [sample.label for sample in photos(root, "test")]
        print(f"{root}: photographs of one category, {names[0]}: {len(photos(root, 'train'))} "
              f"normal, {test.count(1)} anomalous, {test.count(-1)} without a label")
        return bool(test)
    what = {"wells": "casting wells", "classes": "class folders",
            "flat": "images without categories, which were grouped"}[kind]
    print(f"{root}: {what}, {len(names)} categor{'y' if len(names) == 1 else 'ies'}")
    return False


def find_categories(root: Path, table: dict | None = None) -> list[str]:
    """As layouts.find_categories. Raises InputError for a layout without categories."""
    kind = layouts.layout(root)
    if kind == "mvtec":
        root = whole_path(root)
        raise InputError(f"{root} is one category, not a data set: use --data {root.parent} "
                         f"--category {root.name}")
    if kind == "wells":
        return [WELLS]
    if kind in ("classes", "photos"):
        return [whole_path(root).name]
    if table is None:
        parts = [folder for folder in subfolders(root) if has_good(folder)]
        require(not parts, f"{root} holds folders of photographs; give one of them: "
                f"--data {parts[0] if parts else ''}")
        found = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
        raise InputError(f"{root} holds no known layout (found: {found}{unread(files_below(root))})"
                         f"; it should be {LAYOUT_HELP}")
    return sorted({c for file, c in table.items() if file.startswith("train/")})


def find_samples(root: Path, category: str, wanted: list[str], split: str,
                 table: dict | None = None) -> list[Sample]:
    """As layouts.find_samples. wanted: the categories that are meant by `category`."""
    kind = layout(root)
    if kind == "classes":
        raise InputError(f"{root} holds class folders; they are for classifiers: train.py --model "
                         "resnet; and infer.py --image FOLDER scores single images with them. Are "
                         "all normal, whatever their folder? Then call the outer folder good")
    if kind == "wells":
        samples = ad.sets.wells.samples(root, split)
    elif split == "validation":
        return []
    elif kind == "photos":
        samples = photos(root, split)
    else:
        samples = [s for s in flat_files(root, split, table) if s.category in wanted]
    if not samples and split != "validation":
        if kind == "photos":
            raise InputError(f"{root} has only images to learn from; infer.py --image {root} judges"
                             " them, with the --runs and the --category of what has learned")
        raise InputError(f"no images in {root / split}"
                         + (f" for the category {category}" if table else ""))
    return samples


def class_samples(root: Path, category: str) -> list[Sample]:
    """Samples of a category as classes, whose names are in `defect`: those of class folders or, in
    MVTec AD's layout, good, which is train/good and test/good, and every test/<defect>."""
    kind = layouts.layout(root)
    if kind in ("classes", "photos") and subfolders(root):
        files = [path for folder in subfolders(root) for path in images_below(folder)]
        report_left_out(root, files)
        return with_ids([Sample(path, category, path.relative_to(root).parts[0], -1, None)
                         for path in files], root)
    if kind != "mvtec":
        raise InputError(f"{root} has no classes; a classifier needs ROOT/<class>/* or MVTec AD's "
                         "layout")
    return [replace(s, id=f"train/{s.id}") for s in layouts.find_samples(
        root, category, "train")] + [s for s in layouts.find_samples(root, category, "test")
                                     if s.label >= 0]


def own_samples(root: Path, config: dict) -> list[Sample]:
    """The test split of the classifier's run with this config.json, labelled normal or not.
    InputError where none of it is there."""
    chosen, normal = set(config["test"]), config["args"]["normal_class"]
    found = [replace(s, label=int(s.defect != normal))
             for s in class_samples(root, config["category"])
             if s.path.relative_to(root).as_posix() in chosen]
    require(found, f"{root} has none of the test images of this run ({config['test'][0]}, ...); "
            "say where they are with --data DIR")
    return found


def flat_files(root: Path, split: str, table: dict | None = None) -> list[Sample]:
    """All samples of a flat folder; their category is that of `table`, or "" without one."""
    return [replace(s, category=table[f"{split}/{s.path.name}"] if table else "")
            for s in as_taken(root / split, "", 0 if split == "train" else -1)]


def as_taken(folder: Path, category: str, label: int) -> list[Sample]:
    """Samples of the images directly in `folder`; says what is left out of it."""
    files = list_images(folder)
    report_left_out(folder, files)
    return with_ids([Sample(path, category, "", label, None) for path in files], folder)


def photos(root: Path, split: str) -> list[Sample]:
    """Samples of a folder of photographs, one category: where one of its folders is called good,
    those in good/, bad/ and the like are what they are called, all others unknown; otherwise all
    images in it are normal, those of its folders only where it is called good itself."""
    category, samples = whole_path(root).name, []
    if has_good(root):
        folders = {folder: images_below(folder) for folder in subfolders(root)}
    else:
        every = images_below if label_of(category) == 0 else list_images
        folders = {Path(root, "good"): every(root)}
    report_left_out(root, [path for files in folders.values() for path in files])
    for folder, files in folders.items():
        name = folder.name.casefold()
        label = 0 if name in NORMAL else 1 if name in ANOMALOUS else -1
        if (label == 0) == (split == "train"):
            samples += [Sample(path, category, folder.name, label, None) for path in files]
    return with_ids(samples, root)


def only_normal(root: Path) -> bool:
    """Is it a folder of photographs, none of them to test with?"""
    return layouts.layout(root) == "photos" and not photos(root, "test")


def photos_to_look_at(root: Path, config: dict) -> list[Sample]:
    """Of a folder of photographs those to test with or, where there are none, those from which the
    run with this config.json has not learned, or by which it was judged."""
    learned, judged = (set(run_files(config, part)) for part in ("train", "validation"))
    found = photos(root, "test") or [
        replace(s, label=0 if s.path in judged else -1) for s in photos(root.resolve(), "train")
        if s.path in judged or s.path not in learned]
    require(found, f"{root} has only images that the run has learned from")
    return found


def has_no_test(root: Path) -> bool:
    """Is it in MVTec AD's layout, without any test split?"""
    names = layouts.mvtec_categories(root)
    return bool(names) and not any((root / name / "test").is_dir() for name in names)


def judging_samples(root: Path, config: dict) -> list[Sample]:
    """Samples of the normal images by which the run with this config.json was judged."""
    found = [Sample(path, config["category"], "good", 0, None)
             for path in map(root.joinpath, config["validation"]) if path.exists()]
    require(found, f"{root} has no images that the run has not learned from; say where they are "
            "with --data DIR")
    return with_ids(found, root)


def list_images(folder: Path) -> list[Path]:
    """Image files directly in `folder`, sorted by name; [] where there is no such folder."""
    return [p for p in visible(folder) if is_image(p) and not p.is_dir()]
