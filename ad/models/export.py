"""A run as a torch.export program, which needs torch and nothing else."""

import copy
import io
import warnings
from pathlib import Path
from textwrap import shorten

import numpy as np
import torch
import torch.nn as nn

from ad import InputError
from ad.checkpoint import write_atomic
from ad.detector import Detector
from ad.scoring import final_maps, load_calibration, raw_maps, topk_mean
from ad.threshold import standardise


class Program(nn.Module):
    """What infer.py does with an image: the final anomaly map, and the score in scores.csv."""

    def __init__(self, detector: Detector):
        super().__init__()
        member, = detector.members
        self.model, self.scoring = member.model, member.scoring
        self.calibration = load_calibration(member.calibration)
        # A score is linear in the raw one.
        zero, one = detector.limits.scale(standardise(np.array([0.0, 1.0]), member.normal_scores))
        self.offset, self.slope = float(zero), float(one - zero)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3, H, W) in [0, 1] -> maps (N, 1, H, W), scores (N,)."""
        maps = final_maps(raw_maps(self.model, images, self.scoring), self.calibration,
                          self.scoring)
        return maps, topk_mean(maps, self.scoring.topk) * self.slope + self.offset


@torch.no_grad()
def export(detector: Detector, path: Path) -> str:
    """Write a Detector of one run as a program in float32, for any number of images of the one size
    that its category has; returns a line that says so. Raises InputError for several runs or
    sizes, for windows, and for a model that torch.export cannot follow."""
    config = detector.config
    if len(detector.members) > 1:
        raise InputError("--export is of one run; choose with --members one of "
                         f"{', '.join(member.name for member in detector.members)}")
    if len(config["sizes"]) != 1:
        raise InputError("--export: a program is for images of one size, these have "
                         f"{len(config['sizes'])}: {config['sizes'][:3]}")
    if detector.members[0].scoring.windows != (0,):
        raise InputError("--export: only whole images, which is --windows 0, can be exported")
    height, width = config["sizes"][0]
    try:
        program = torch.export.export(
            copy.deepcopy(Program(detector)).cpu().eval(), (torch.rand(2, 3, height, width),),
            dynamic_shapes={"images": {0: torch.export.Dim("N", min=1)}})
    except Exception as error:  # whatever torch.export raises
        raise InputError(f"--export: torch.export cannot follow {config['args']['model']}: "
                         f"{shorten(str(error) or type(error).__name__, 200)}") from error
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that weights in channels_last are not contiguous
        torch.export.save(program, buffer)
    write_atomic(path, buffer.getvalue())
    return (f"wrote {path}: float images (N, 3, {height}, {width}) in [0, 1] -> anomaly maps "
            f"(N, 1, {height}, {width}), scores (N,)")
