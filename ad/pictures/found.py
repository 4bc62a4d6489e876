"""Pictures of what a Detector found: --maps, --masks and --spot-check of infer.py."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ad.config import DEFECT
from ad.detector import Detector, Scored
from ad.images import read_image
from ad.pictures.plots import (LONGEST, caption, overlay, save_grid, save_heat, save_masks,
                               to_picture)
from ad.threshold import judged_by_all


def pixel_threshold(members: list, quantile: float) -> float:
    """The quantile of the pixels of the members' mean map of normal images that they have not
    learned from."""
    pixels = [member.calibration["pixels"].float().numpy() for member in members]
    common = judged_by_all(members, pixels)
    return float(np.quantile(common, quantile)) if common is not None else sum(
        member.weight * float(np.quantile(p, quantile)) for member, p in zip(members, pixels))


def painter(detector: Detector, folder: Path, maps: bool, masks: float | None) -> Callable:
    """The function (Scored, its true mask (H, W) or None) that writes its heat map (maps) and its
    predicted mask (masks: of which quantile, see pixel_threshold) below folder/maps, folder/masks.
    """
    cut = pixel_threshold(detector.members, masks or DEFECT) if detector.localises else None

    def paint(found: Scored, truth: np.ndarray | None):
        sample, name = found.sample, f"{found.sample.category}/{found.sample.id}.png"
        if maps:
            photo = read_image(sample.path, LONGEST, detector.readings[0][1])
            save_heat(folder / "maps" / name, to_picture(photo), found.map_,
                      (detector.top_of_maps, cut), f"{sample.id}\n{caption(found.score)}")
        if masks and cut is not None:
            save_masks(folder / "masks" / name, to_picture(found.picture),
                       (found.map_[0] > cut).numpy(), truth)
    return paint


def side_by_side(found: Scored, detector: Detector) -> list[np.ndarray]:
    """The image of a Scored, and its map over it."""
    picture = to_picture(found.picture)
    return [picture, overlay(picture, found.map_, detector.top_of_maps)]


def spot_check(path: Path, rows: list, shown: dict) -> None:
    """Print score, verdict and rank, among all rows of scores.csv, of some of them, and write their
    pictures as one PNG. shown: {(category, id): side_by_side}."""
    ranked = sorted(rows, key=lambda row: -float(row.score))
    chosen = [(rank, row) for rank, row in enumerate(ranked, start=1)
              if (row.category, row.id) in shown]
    print(f"id  category  score  prediction  rank of {len(rows)}, 1 the strangest")
    for rank, row in chosen:
        print(f"{row.id}  {row.category}  {row.score}  {row.prediction}  {rank}")
    save_grid(path, [shown[row.category, row.id] for _, row in chosen], ("image", "anomaly map"),
              [f"{row.id}\n{row.category}\n{caption(float(row.score))}\nrank {rank} of {len(rows)}"
               for rank, row in chosen])
