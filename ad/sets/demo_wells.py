"""Procedural casting wells in the casting layout: what `--data demo-wells` writes.

A stand-in for photographs of wells cut from those of castings, most 40 x 72 pixels: a rounded
cavity in sand, seen under light that varies. Anomalous ones ("proliv") have metal spilled over the
rim: from a smear of a few pixels to a tongue across the well.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from ad.sets.once import write_once
from ad.sets.demo_scenes import noise, ramp, rough_distance

VERSION = 1  # raise it when the pictures change
HEIGHT, WIDTH = 40, 72  # pixels, of the largest
COUNTS = {"train": (400, 0), "proliv": (0, 60), "test/imgs": (100, 100)}  # solid, spilled


def render(group: str, index: int, spilled: bool, seed: int = 0) -> np.ndarray:
    """One photograph, uint8 (height, width, 3), up to 6 and 10 pixels smaller than the largest."""
    key = [seed, list(COUNTS).index(group), index]
    rng, flaw, light = (np.random.default_rng([*key, part]) for part in range(3))
    height, width = HEIGHT - rng.integers(0, 7), WIDTH - rng.integers(0, 11)
    y, x = np.mgrid[:height, :width] - np.reshape([height - 1, width - 1], (2, 1, 1)) / 2
    y, x = y - rng.uniform(-1.5, 1.5), x - rng.uniform(-2.5, 2.5)
    half = np.array([0.31 * height, 0.34 * width]) * rng.uniform(0.92, 1.08, 2)
    # Distance to a rounded rectangle: below 0 inside the cavity.
    radius = 0.6 * half[0]
    outside = [np.maximum(np.abs(a) - h + radius, 0) for a, h in zip((y, x), half)]
    rim = np.hypot(*outside) - radius + 0.6 * noise(rng, y, x, 5, 5)
    sand = 0.52 + 0.07 * noise(rng, y, x, 2, 2) + 0.05 * noise(rng, y, x, 9, 9)
    depth = 0.18 + 0.1 * noise(rng, y, x, 6, 10) + 0.12 * ramp(-6, -1, rim)
    grey = sand + (depth - sand) * ramp(0.8, -0.8, rim)
    grey = grey + 0.14 * np.exp(-(rim / 1.2) ** 2) * (1 + 0.6 * noise(rng, y, x, 6, 6))
    if spilled:
        angle, size = flaw.uniform(0, 2 * np.pi), flaw.uniform(1.2, 6.5)
        start = half * np.array([np.sin(angle), np.cos(angle)]) * flaw.uniform(0.7, 1.05)
        far = rough_distance(flaw, y, x, start, flaw.uniform(0, 14), flaw.uniform(0, 2 * np.pi))
        metal = flaw.uniform(0.35, 0.8) + 0.1 * noise(flaw, y, x, 4, 4)
        grey = grey + (metal - grey) * ramp(size + 1, size - 1, far)
    turn = light.uniform(0, 2 * np.pi)
    grey = grey * (light.uniform(0.75, 1.25) + 0.15 * (np.sin(turn) * y / height
                                                      + np.cos(turn) * x / width))
    tint = 1 + light.normal(0, 0.02, 3)
    picture = grey[..., None] * tint + light.normal(0, 0.02, (height, width, 1))
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


def write_wells(root: Path, seed: int = 0) -> Path:
    """Write the data set below `root` unless it is there already; return `root`, see write_once."""
    def build(built):
        lines = []
        for group, counts in COUNTS.items():
            (built / group).mkdir(parents=True)
            for index in range(sum(counts)):
                spilled, name = index >= counts[0], f"{index:03d}.jpg"
                Image.fromarray(render(group, index, spilled, seed)).save(
                    built / group / name, quality=92)
                lines += [f"{name} {int(spilled)}\n"] if group == "test/imgs" else []
        (built / "test/test_annotation.txt").write_text("".join(lines))
    return write_once(root, json.dumps({"version": VERSION, "seed": seed}), build)
