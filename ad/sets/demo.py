"""A small procedural data set in MVTec AD layout: what `--data demo` writes.

A scene is a function of warped coordinates, so bending resamples no pixels. A defective scene and
its clean twin share every random draw, so the mask is where the two differ. Light varies far more
than a defect changes it: the mean or the contrast of an image does not give the defect away.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from ad.sets.once import write_once
from ad.sets.demo_scenes import bolt, carpet, grid, tablet

VERSION = 2  # raise it when the pictures change, so that an older set on disk is not mistaken
SIZE = 256
CATEGORIES = {"carpet": ("cut", "stain", "thread"), "grid": ("bent", "broken", "glue"),
              "tablet": ("chip", "crack", "print"), "bolt": ("bent", "thread", "notch")}
ANY_ANGLE = {"bolt"}
DIM = {"bolt": 0.75}  # how much darker the test photographs of a category are, which is no defect
COUNTS = {"train": 64, "good": 20}  # photographs per group; 10 per defect


def photograph(rng: np.random.Generator, scene: np.ndarray, index: int,
               dim: float = 1.0) -> np.ndarray:
    """Light, colour cast and sensor noise: scene (H, W, 3) in [0, 1] -> uint8 of that shape."""
    # A low-discrepancy sequence over the index: ten photographs span the same light as twenty.
    level, contrast = (index * np.array([0.7549, 0.5698]) + rng.uniform(-0.1, 0.1, 2)) % 1
    down, right = rng.uniform(-0.1, 0.1, (2, 1)) * np.linspace(-1, 1, SIZE)  # the gradient
    cast = (1 + down[:, None] + right)[..., None] * rng.normal(1, 0.015, 3)
    seen = ((scene - 0.45) * (0.8 + 0.35 * contrast) + 0.45) * (0.8 + 0.35 * level) * dim * cast
    return np.uint8(255 * np.clip(seen + rng.normal(0, 0.015, scene.shape), 0, 1) + 0.5)


def render(category: str, group: str, index: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """One photograph from its own random draws; `group` is "train", "good" or a defect.

    Returns uint8 (image, clean, mask): the photograph and its twin without the defect, both
    (256, 256, 3), and (256, 256), 255 on the defect; outside it the two are equal.
    """
    number, groups = list(CATEGORIES).index(category), (*COUNTS, *CATEGORIES[category])
    key, paint = [seed, number, groups.index(group), index], (carpet, grid, tablet, bolt)[number]
    turn, *shift = np.random.default_rng([*key, 0]).uniform(-1, 1, 3) * [0.07, 7, 7]
    turn *= np.pi / 0.07 if category in ANY_ANGLE else 1
    dim = 1.0 if group == "train" else DIM.get(category, 1.0)
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2 - np.reshape(shift, (2, 1, 1))
    y, x = np.cos(turn) * y - np.sin(turn) * x, np.sin(turn) * y + np.cos(turn) * x
    clean = paint(*(np.random.default_rng([*key, i]) for i in (1, 2)), y, x, None)
    picture = photograph(np.random.default_rng([*key, 3]), clean, index, dim)
    if group in COUNTS:
        return picture, picture, np.zeros((SIZE, SIZE), np.uint8)
    flawed = paint(*(np.random.default_rng([*key, i]) for i in (1, 2)), y, x, group)
    mask = Image.fromarray(np.uint8(255) * (np.abs(flawed - clean).max(2) > 0.05))
    # Where a texture hides the change for a pixel or two, those pixels still are of the defect.
    mask = mask.filter(ImageFilter.MaxFilter(5)).filter(ImageFilter.MinFilter(5))
    mask = np.array(mask.filter(ImageFilter.MedianFilter(3)))
    flawed = np.where(mask[..., None] > 0, flawed, clean)
    return photograph(np.random.default_rng([*key, 3]), flawed, index, dim), picture, mask


def write_demo(root: Path | str, seed: int = 0) -> Path:
    """Write the data set below `root` unless it is there already; return `root` as a Path.

    A killed call leaves nothing under that name. InputError if anything else is at `root`.
    """
    def build(built):
        for category, group in [(c, g) for c, d in CATEGORIES.items() for g in (*COUNTS, *d)]:
            images = built / category / ("train/good" if group == "train" else f"test/{group}")
            masks = built / category / "ground_truth" / group
            for folder in (images,) if group in COUNTS else (images, masks):
                folder.mkdir(parents=True)
            for index in range(COUNTS.get(group, 10)):
                image, _, mask = render(category, group, index, seed)
                Image.fromarray(image).save(images / f"{index:03d}.png", compress_level=1)
                if group not in COUNTS:
                    Image.fromarray(mask).save(masks / f"{index:03d}_mask.png")
    return write_once(Path(root), json.dumps({"version": VERSION, "seed": seed}), build)
