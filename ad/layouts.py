"""Where the images of a category and split are: MVTec AD's layout,
ROOT/<category>/{train/good, test/<good|defect>, ground_truth/<defect>/*_mask.png}, recognised by
looking. All others, and several categories as one, are the business of ad.sets."""

import os
from pathlib import Path

import ad
from ad import InputError
from ad.folders import images_below, report_left_out, root_of, subfolders
from ad.samples import Sample, label_of, with_ids

POOL = "pool"  # the category that holds the images of all categories


def resolve_data(name: str | None) -> Path:
    """--data (or None: AD_DATA, else data/mvtec_ad) -> existing root; "demo" and "demo-wells" are
    written first."""
    name = name or os.environ.get("AD_DATA")
    root = root_of(name)
    if name == "demo":
        return ad.sets.demo.write_demo(root)
    return ad.sets.demo_wells.write_wells(root) if name == "demo-wells" else root


def layout(root: Path) -> str | None:
    """"mvtec", or another one of sets.other_layouts.layout, or None: the first it looks like."""
    if has_normals(root) or mvtec_categories(root):
        return "mvtec"
    return ad.sets.other_layouts.layout(root)


def find_categories(root: Path, table: dict | None = None) -> list[str]:
    """Names of the categories below `root`, sorted. Raises InputError for any other layout.

    table: of a flat folder, {file below root: category}, see ad.sets.categories.
    """
    return mvtec_categories(root) or ad.sets.other_layouts.find_categories(root, table)


def find_samples(root: Path, category: str, split: str, table: dict | None = None) -> list[Sample]:
    """Samples of one category (POOL: of all; a+b: of both) and split, sorted by path. Raises
    InputError when there are none. split "train": the images of train/good, or what it is called,
    see ad.samples. split "test": those of every test/<defect>, with their masks. split
    "validation": labelled anomalous images to validate with, [] but in the casting layout. table:
    see find_categories.
    """
    names = find_categories(root, table)
    wanted = [category] if category in names else ad.sets.several.parts(category, names)
    if not wanted:
        raise InputError(f"unknown category {category!r} in {root}; there are: {', '.join(names)}")
    if not mvtec_categories(root):
        return ad.sets.other_layouts.find_samples(root, category, wanted, split, table)
    if split == "validation":
        return []
    samples = [sample for name in wanted for sample in mvtec(root, name, split)]
    if not samples:
        raise InputError(f"no images in {root / category / split}")
    return samples


def mvtec(root: Path, category: str, split: str) -> list[Sample]:
    """Samples of one category in MVTec AD's layout; says what is left out of the split."""
    folder, samples = root / category / split, []
    files = images_below(folder)
    masks = ad.masks.find_masks(files) if split == "test" else {}
    for path in files:
        name = path.relative_to(folder).parts[0] if path.parent != folder else ""
        label = label_of(name)
        if split == "test" or label == 0:
            samples.append(Sample(path, category, name if label else "good", label,
                                  masks.get(path) if label >= 0 else None))
    report_left_out(folder, [sample.path for sample in samples])
    return with_ids(samples, folder)


def has_normals(folder: Path) -> bool:
    """Is it a category in MVTec AD's layout: is there a train/good?"""
    return any(label_of(p.name) == 0 for p in subfolders(folder / "train"))


def mvtec_categories(root: Path) -> list[str]:
    return [p.name for p in subfolders(root) if has_normals(p)]
