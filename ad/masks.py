"""Ground-truth masks: which belongs to which image, and which of their pixels are defect."""

import os
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps

from ad import InputError
from ad.folders import files_below, visible
from ad.images import opened, orientation

ENDING = re.compile(r"[-_. ](mask|gt|ground[-_ ]?truth|label|seg)$", re.IGNORECASE)
LOSSY = "JPEG", "MPO", "JPEG2000", "WEBP"  # formats that leave noise around 0
NOISE = 16  # of 255; the least that is not noise there


def truth_folder(folder):
    """The folder of the masks of the images in a folder: .../test/cut -> .../ground_truth/cut;
    None where there is no ground_truth beside test."""
    return next((parent.parent / "ground_truth" / folder.relative_to(parent)
                 for parent in (folder, *folder.parents)
                 if parent.name == "test" and (parent.parent / "ground_truth").is_dir()), None)


def mask_files(folder, listed=visible):
    """Image files in a folder, as `listed` by ad.folders, those that end in _mask first, the bare
    names last."""
    files = [p for p in listed(folder) if p.is_file()
             and p.suffix.lower() in Image.registered_extensions()]
    return sorted(files, key=lambda p: (not p.stem.lower().endswith("_mask"),
                                        not ENDING.search(p.stem)))


def find_masks(images):
    """{image: its mask} of the images (paths below test/) that have one.

    The mask is in the same folder below ground_truth and has the image's name, without or, as
    0.png_mask.png, with its suffix, and mostly an ENDING; any suffix. Of images that share a name
    without suffix, a mask without it belongs to the one with the mask's own suffix.
    """
    found, folders = {}, {}
    for path in images:
        folders.setdefault(path.parent, []).append(path)
    for folder, group in folders.items():
        truth = truth_folder(folder)
        for file in mask_files(truth) if truth else []:
            for name in (ENDING.sub("", file.stem), file.stem):
                same = [p for p in group if p.name == name] or [p for p in group if p.stem == name]
                if len(same) > 1:
                    same = [p for p in same if p.suffix.lower() == file.suffix.lower()]
                if len(same) == 1:
                    found.setdefault(same[0], file)
                    break
    return found


def marked(path):
    """Mask file -> (bool (H, W) as stored, its EXIF orientation): True for what is not background.

    Where something is fully transparent, that is the background, else black, the value 0. Of a
    lossy file, and of the edge of a transparent one, what has a quarter of the highest value is
    not background. Raises InputError when it cannot be read.
    """
    try:
        with opened(path) as image:
            image.load()
            turn = image.getexif().get(ExifTags.Base.Orientation, 1)
            if image.has_transparency_data:
                alpha = np.asarray(image.convert("RGBA").getchannel("A"))
                if alpha.min() == 0:
                    return alpha > alpha.max() // 4, turn
            lossy = image.format in LOSSY
            if not image.mode.startswith(("1", "L", "I", "F")):
                image = image.convert("RGB")
            values = np.asarray(image)
            values = values[..., :3].max(2) if image.mode == "RGB" else \
                values[..., 0] if values.ndim == 3 else values
            return values > (max(NOISE, int(values.max()) // 4) if lossy else 0), turn
    except Exception as error:  # a damaged file makes Pillow raise anything
        raise InputError(f"cannot read mask {path}: {error or type(error).__name__}") from error


def read_mask(path, height, width, photo=None):
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


def true_mask(path, label, shape, photo):
    """What is defect in an image of this label: bool (1, H, W) of the mask file at `path`, nothing
    in a normal image, None where it is not known. photo: the image's file, see read_mask."""
    if path:
        return read_mask(path, *shape, photo)
    return torch.zeros(1, *shape, dtype=torch.bool) if label == 0 else None


def report_masks(category, samples):
    """Say what is odd about the masks of a category's test samples, in a line each."""
    masks = {s.mask: s for s in samples if s.mask}
    roots = {truth_folder(test) for s in samples for test in s.path.parents if test.name == "test"}
    stray = sorted({file for root in roots - {None} for file in mask_files(root, files_below)}
                   - masks.keys())
    with ThreadPoolExecutor(min(8, os.cpu_count())) as pool:
        shares = dict(zip(masks, pool.map(lambda path: marked(path)[0].mean(), masks)))
    for found, text in (
            (stray, "files in ground_truth belong to no test image, or to one that has a mask"),
            ([s.path for s in samples if s.label == 1 and s.mask is None and (masks or stray)],
             "anomalous images have no mask; the figures of pixels leave them out"),
            ([m for m, share in shares.items() if share == 0 and masks[m].label == 1],
             "masks of anomalous images are empty, without any defect pixel"),
            ([m for m, share in shares.items() if share > 0.5],
             "masks call more than half of the image defect; background is black (0) or "
             "transparent")):
        if found:
            print(f"note: {category}: {len(found)} {text}: {found[0]}"
                  + (", ..." if len(found) > 1 else ""))
