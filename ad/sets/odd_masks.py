"""Masks as people have them: of any name, format and colour; and what to say about them."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from ad.folders import visible
from ad.samples import Sample

ENDING = re.compile(r"[-_. ](mask|gt|ground[-_ ]?truth|label|seg)$", re.IGNORECASE)
LOSSY = "JPEG", "MPO", "JPEG2000", "WEBP"  # formats that leave noise around 0
NOISE = 16  # of 255; the least that is not noise there


def find(group: list[Path], truth: Path) -> dict[Path, Path]:
    """{image: its mask} of the images of one folder; truth: the folder of their masks.

    A mask has the image's name, without or, as 0.png_mask.png, with its suffix, and mostly an
    ENDING; any suffix. Of images that share a name without suffix, a mask without it belongs to the
    one with the mask's own suffix. Names that end in _mask are preferred, then any ENDING.
    """
    found = {}
    for file in sorted(filter(is_mask, visible(truth)), key=lambda p: (
            not p.stem.lower().endswith("_mask"), not ENDING.search(p.stem))):
        for name in (ENDING.sub("", file.stem), file.stem):
            same = [p for p in group if p.name == name] or [p for p in group if p.stem == name]
            if len(same) > 1:
                same = [p for p in same if p.suffix.lower() == file.suffix.lower()]
            if len(same) == 1:
                found.setdefault(same[0], file)
                break
    return found


def is_mask(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in Image.registered_extensions()


def defect(image: Image.Image) -> np.ndarray:
    """Pillow image of a mask -> bool (H, W): True for what is not background.

    Where something is fully transparent, that is the background, else black, the value 0. Of a
    lossy file, and of the edge of a transparent one, what has a quarter of the highest value is
    not background.
    """
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        if alpha.min() == 0:
            return alpha > alpha.max() // 4
    lossy = image.format in LOSSY
    if not image.mode.startswith(("1", "L", "I", "F")):
        image = image.convert("RGB")
    values = np.asarray(image)
    if values.ndim == 3:  # of colours the highest, of LA the first
        values = values.max(2) if image.mode == "RGB" else values[..., 0]
    return values > (max(NOISE, int(values.max()) // 4) if lossy else 0)


def report(category: str, samples: list[Sample], masks: dict, shares: dict,
           files: set) -> None:
    """Say what is odd about the masks of a category's test samples, in a line each. masks: {mask:
    its sample}; shares: {mask: share of defect pixels}; files: all that are in ground_truth."""
    stray = sorted(filter(is_mask, files - masks.keys()))
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
