"""Ground-truth masks: which belongs to which image, and which of their pixels are defect."""

from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps

import ad
from ad import InputError
from ad.folders import files_below, visible
from ad.images import on_threads, opened
from ad.samples import Sample


def find_masks(images: list[Path]) -> dict[Path, Path]:
    """{image: its mask} of the images (paths below test/) that have one: <name>_mask.png in the
    same folder below ground_truth, or what sets.odd_masks finds where other files are there."""
    found, folders = {}, {}
    for path in images:
        folders.setdefault(path.parent, []).append(path)
    for folder, group in folders.items():
        truth = truth_folder(folder)
        files = visible(truth) if truth else []
        plain = {f"{path.stem}_mask.png": path for path in group}
        if len(plain) == len(group) and all(file.name in plain for file in files):
            found |= {plain[file.name]: file for file in files}
        elif truth:
            found |= ad.sets.odd_masks.find(group, truth)
    return found


def truth_folder(folder: Path) -> Path | None:
    """The folder of the masks of the images in a folder: .../test/cut -> .../ground_truth/cut;
    None where there is no ground_truth beside test."""
    return next((parent.parent / "ground_truth" / folder.relative_to(parent)
                 for parent in (folder, *folder.parents)
                 if parent.name == "test" and (parent.parent / "ground_truth").is_dir()), None)


def true_mask(path: Path | None, label: int, shape: tuple, photo: Path) -> torch.Tensor | None:
    """What is defect in an image of this label: bool (1, H, W) of the mask file at `path`, nothing
    in a normal image, None where it is not known. photo: the image's file, see read_mask."""
    if path:
        return read_mask(path, *shape, photo)
    return torch.zeros(1, *shape, dtype=torch.bool) if label == 0 else None


def read_mask(path: Path, height: int, width: int, photo: Path | None = None) -> torch.Tensor:
    """Ground-truth mask file -> bool (1, height, width), nearest neighbour; see marked.

    height, width: of its image as it is shown. A mask that fits only when it is turned as its
    image's file `photo` is turned by EXIF was drawn on that file as it is stored. Raises
    InputError when it cannot be read, or has not the image's shape (it may be a multiple).
    """
    defect, turn = marked(path)
    for turn in dict.fromkeys((turn, 1, orientation(photo) if photo else 1)):
        image = Image.fromarray(defect.astype(np.uint8))
        image.getexif()[ExifTags.Base.Orientation] = turn
        image = ImageOps.exif_transpose(image)
        if abs(image.width * height - image.height * width) <= max(image.size):
            image = image.resize((width, height), Image.Resampling.NEAREST)
            return torch.from_numpy(np.array(image) > 0)[None]
    raise InputError(f"cannot read mask {path}: it is {defect.shape[0]} x {defect.shape[1]} pixels,"
                     f" but its image {height} x {width}, or larger in proportion")


def marked(path: Path) -> tuple[np.ndarray, int]:
    """Mask file -> (bool (H, W) as stored, its EXIF orientation): True for what is not background,
    black or, see sets.odd_masks, transparent. Raises InputError when it cannot be read."""
    try:
        with opened(path) as image:
            image.load()
            turn = image.getexif().get(ExifTags.Base.Orientation, 1)
            if image.format == "PNG" and image.mode in ("1", "L") and \
                    not image.has_transparency_data:
                return np.asarray(image) > 0, turn
            return ad.sets.odd_masks.defect(image), turn
    except Exception as error:  # a damaged file makes Pillow raise anything
        raise InputError(f"cannot read mask {path}: {error or type(error).__name__}") from error


def orientation(path: Path) -> int:
    """The EXIF orientation of an image file: 1 as stored, 2 to 8 mirrored or turned."""
    with Image.open(path) as image:
        return image.getexif().get(ExifTags.Base.Orientation, 1)


def report_masks(category: str, samples: list[Sample]) -> None:
    """Say what is odd about the masks of a category's test samples: see sets.odd_masks."""
    masks = {s.mask: s for s in samples if s.mask}
    shares = dict(zip(masks, on_threads(lambda path: marked(path)[0].mean(), masks)))
    roots = {truth_folder(test) for s in samples for test in s.path.parents if test.name == "test"}
    files = {file for root in roots - {None} for file in files_below(root)}
    if files != masks.keys() or not all(s.mask for s in samples if s.label == 1) or not all(
            (share > 0 or masks[m].label == 0) and share <= 0.5 for m, share in shares.items()):
        ad.sets.odd_masks.report(category, samples, masks, shares, files)
