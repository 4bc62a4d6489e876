"""Group and route a flat folder as large as the competition's: 3,629 + 1,725 images, 256 pixels.

    python benchmarks/router.py        # 10 minutes, most of which it draws the images

15 categories: three of the demo, each as it is, inverted, as outlines, enlarged and
turned. Grouping and routing run in a process of their own, whose time and peak memory are reported.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps
from timing import alone, arguments, report

from ad.sets.demo import CATEGORIES, SIZE, render
from ad.pictures.plots import save_sheet
from ad.sets.categories import full_table, training_table

FULL = {"train": 3629, "test": 1725}  # images of the competition's release
VARIANTS = {"plain": lambda image: image,
            "inverted": ImageOps.invert,
            "outlines": lambda image: image.filter(ImageFilter.FIND_EDGES),
            "enlarged": lambda image: image.crop((64, 64, 192, 192)).resize((SIZE, SIZE)),
            "turned": lambda image: image.rotate(45, Image.Resampling.BICUBIC).crop(
                (38, 38, 218, 218)).resize((SIZE, SIZE))}


def draw(root):
    """Write the flat folder, in an order without meaning; {"train/0.png": category}."""
    kinds = [(c, v) for c in list(CATEGORIES)[:3] for v in VARIANTS]
    truth = {}
    for split in ("train", "test"):
        (root / split).mkdir(parents=True)
        for number in np.random.default_rng(0).permutation(FULL[split]).tolist():
            category, variant = kinds[number % len(kinds)]
            # Half of the test images have a defect, as in the original.
            defects = CATEGORIES[category] if split == "test" and number // 15 % 2 else ("train",)
            kind = defects[number // 30 % len(defects)]
            index = number + (0 if split == "train" else 10_000)
            VARIANTS[variant](Image.fromarray(render(category, kind, index)[0])).save(
                root / split / f"{number}.png")
            truth[f"{split}/{number}.png"] = f"{category} {variant}"
    return truth


def work(root):
    """Group and route, and print how long that took, and the table: be the process measured."""
    start = time.perf_counter()
    training_table(root, root / "runs", save_sheet)
    grouped = time.perf_counter()
    table = full_table(root, root / "runs")
    print(json.dumps({"grouping": grouped - start, "routing": time.perf_counter() - grouped,
                      "table": table}))


def main():
    args = arguments(__doc__, lambda add: add("--work", type=Path, help=argparse.SUPPRESS))
    if args.work:
        return work(args.work)
    with tempfile.TemporaryDirectory() as folder:
        truth = draw(Path(folder))
        print(f"drew {len(truth)} images", flush=True)
        found = alone("--work", folder, "--threads", args.threads)
    table = found["table"]
    groups = {}
    for file in (f for f in truth if f.startswith("train/")):
        groups.setdefault(table[file], Counter())[truth[file]] += 1
    meaning = {name: kinds.most_common(1)[0][0] for name, kinds in groups.items()}
    shares = {split: sum(meaning[table[f]] == truth[f] for f in truth if f.startswith(split))
              / FULL[split] for split in ("train", "test")}
    report(args, "router", {
        "group": {"ours": {"seconds": found["grouping"], "ratio": 1, "groups": len(groups),
                           "purity": shares["train"]}},
        "route": {"ours": {"seconds": found["routing"], "ratio": 1, "right": shares["test"],
                           "peak_gib": found["peak_mib"] / 1024}}}, [])


if __name__ == "__main__":
    main()
