"""Folder layouts, recognised by looking: where the images of a category and split are."""

import os
from dataclasses import dataclass
from pathlib import Path

from ad import InputError
from ad.demo import write_demo
from ad.demo_wells import write_wells
from ad.masks import find_masks

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
LAYOUT_HELP = ("MVTec AD: ROOT/<category>/{train/good, test/<good|defect>, "
               "ground_truth/<defect>/*_mask.png}; flat: ROOT/{train, test}/*.png; or casting "
               "wells: ROOT/{train/*.jpg, proliv/*.jpg, test/imgs/*.jpg, test/test_annotation.txt}"
               "; or, for classifiers, class folders: ROOT/<class>/*")
WELLS = "wells"  # the one category of the casting layout
POOL = "pool"  # the category that holds the images of all categories


@dataclass(frozen=True)
class Sample:
    """One image. split: "train" | "validation" | "test"; label: 0 normal, 1 anomalous, -1 unknown;
    mask: None if there is none; id: path below the split without suffix, e.g. "bent_lead/003"."""
    path: Path
    category: str
    split: str
    defect: str
    label: int
    mask: Path | None

    @property
    def id(self):
        return f"{self.defect}/{self.path.stem}" if self.defect else self.path.stem


def resolve_data(name):
    """--data (or None: AD_DATA, else data/mvtec_ad) -> existing root; "demo" and "demo-wells" are
    written first."""
    name = name or os.environ.get("AD_DATA") or "data/mvtec_ad"
    if name == "demo":
        return write_demo(Path("data/demo"))
    if name == "demo-wells":
        return write_wells(Path("data/demo-wells"))
    root = Path(name)
    if not root.is_dir():
        raise InputError(
            f"no data at {root} (looked in {root.absolute()}): get MVTec AD from "
            "https://www.mvtec.com/company/research/datasets/mvtec-ad and unpack it there, name "
            "its folder with --data DIR or AD_DATA, or try --data demo, which works now")
    return root


def list_images(folder):
    """Image files directly in `folder`, sorted by name; [] where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir()
                  if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def subfolders(folder):
    return sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def is_flat(root):
    """Is it a folder of images without categories: ROOT/train/*.png, ROOT/test/*.png?"""
    return bool(list_images(root / "train")) and not is_wells(root)


def is_wells(root):
    """Is it the casting layout: ROOT/{train, proliv}/*.jpg, test/{imgs/*.jpg, test_annotation.txt}?
    """
    return (root / "proliv").is_dir() or (root / "test/test_annotation.txt").is_file()


def is_classes(root):
    """Is it a folder of class folders: ROOT/<class>/*.png?"""
    return not is_wells(root) and not list_images(root / "train") and any(
        list_images(folder) for folder in subfolders(root))


def class_samples(root, category):
    """Samples of a category as classes, whose names are in `defect`: those of class folders or, in
    MVTec AD's layout, good, which is train/good and test/good, and every test/<defect>."""
    if is_classes(root):
        return [Sample(path, category, "train", folder.name, -1, None)
                for folder in subfolders(root) for path in list_images(folder)]
    if is_wells(root) or is_flat(root):
        raise InputError(f"{root} has no classes; a classifier needs ROOT/<class>/* or MVTec AD's "
                         "layout")
    return find_samples(root, category, "train") + find_samples(root, category, "test")


def wells(root, split):
    """Samples of the casting layout: train (normal), validation (proliv: metal spilled over), test.

    Raises InputError for a line of the annotation that is not a name and 0 or 1, that names no
    image, and for an image that has no line.
    """
    if split != "test":
        folder, label = (root / "train", 0) if split == "train" else (root / "proliv", 1)
        return [Sample(path, WELLS, split, "", label, None) for path in list_images(folder)]
    path, labels = root / "test/test_annotation.txt", {}
    images = {image.name: image for image in list_images(root / "test/imgs")}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    for number, words in enumerate((line.split() for line in lines), start=1):
        if words and (len(words) != 2 or words[1] not in ("0", "1")):
            raise InputError(f"{path}, line {number}: it must be a file's name and 0 or 1")
        if words and words[0] not in images:
            raise InputError(f"{path}, line {number}: there is no image test/imgs/{words[0]}")
        labels |= {words[0]: int(words[1])} if words else {}
    missing = sorted(images.keys() - labels.keys())
    if missing:
        raise InputError(f"{path} has no line for {len(missing)} images, {missing[0]} first")
    return [Sample(image, WELLS, split, "", labels[name], None) for name, image in images.items()]


def find_categories(root, table=None):
    """Names of the categories below `root`, sorted. Raises InputError for any other layout.

    table: of a flat folder, {file below root: category}, see ad.categories.
    """
    if is_wells(root):
        return [WELLS]
    if is_classes(root):
        return [root.absolute().name]
    if table is not None:
        return sorted({c for file, c in table.items() if file.startswith("train/")})
    names = [p.name for p in subfolders(root) if (p / "train" / "good").is_dir()]
    if not names:
        if (root / "train" / "good").is_dir():
            raise InputError(f"{root} is one category, not a data set: use --data {root.parent} "
                             f"--category {root.absolute().name}")
        found = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
        raise InputError(f"{root} holds no known layout (found: {found}); it should be "
                         f"{LAYOUT_HELP}")
    return names


def flat_files(root, split, table=None):
    """All samples of a flat folder; their category is that of `table`, or "" without one."""
    return [Sample(path, table[f"{split}/{path.name}"] if table else "", split, "",
                   0 if split == "train" else -1, None) for path in list_images(root / split)]


def mvtec(root, category, split):
    """Samples of one category in MVTec AD's layout."""
    base, samples = root / category, []
    for folder in [base / "train" / "good"] if split == "train" else subfolders(base / "test"):
        defect = folder.name
        files = list_images(folder)
        masks = find_masks(files)
        samples += [Sample(path, category, split, defect, int(defect != "good"), masks.get(path))
                    for path in files]
    return samples


def find_samples(root, category, split, table=None):
    """Samples of one category (POOL: of all; a+b: of both) and split, sorted by path. Raises
    InputError when there are none. split "train": the images of train/good. split "test": every
    test/<defect>, with its mask. split "validation": labelled anomalous images to validate with,
    [] but in the casting layout. table: see find_categories.
    """
    names = find_categories(root, table)
    wanted = names if category == POOL else \
        [category] if category in names else category.split("+")
    if set(wanted) - set(names):
        raise InputError(f"unknown category {category!r} in {root}; there are: {', '.join(names)}")
    if is_classes(root):
        raise InputError(f"{root} holds class folders; they are for classifiers: --model resnet")
    if split == "validation" and not is_wells(root):
        return []
    if is_wells(root):
        samples = wells(root, split)
    elif table:
        samples = [s for s in flat_files(root, split, table) if s.category in wanted]
    else:
        samples = [sample for name in wanted for sample in mvtec(root, name, split)]
    if not samples and split != "validation":
        below = "" if table or is_wells(root) else category
        raise InputError(f"no images in {root / below / split}"
                         + (f" for the category {category}" if table else ""))
    return samples
