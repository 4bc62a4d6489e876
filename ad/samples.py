"""One image of a data set: what it is called, and whether it is normal."""

import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

NORMAL = ("good", "ok", "okay", "normal")  # folders of normal images, in any case
UNLABELLED = ("unknown", "unlabelled", "unlabeled", "")  # of images of which nothing is known


@dataclass(frozen=True)
class Sample:
    """One image. defect: "good" for a normal one; label: 0 normal, 1 anomalous, -1 unknown; mask:
    None if there is none; id: see with_ids."""
    path: Path
    category: str
    defect: str
    label: int
    mask: Path | None
    id: str = ""


def with_ids(samples: list[Sample], folder: str | Path) -> list[Sample]:
    """Samples with their ids: the path below `folder` without suffix, e.g. "bent_lead/003"; with
    it where several images would have the same."""
    names = [s.path.relative_to(folder).as_posix() for s in samples]
    ids = [os.path.splitext(name)[0] for name in names]
    while len(set(ids)) < len(ids):
        count = Counter(ids)
        ids = [name if count[own] > 1 else own for name, own in zip(names, ids)]
    return [replace(sample, id=own) for sample, own in zip(samples, ids)]


def label_of(folder: str) -> int:
    """Label of the images in a test split's folder of this name."""
    return 0 if folder.casefold() in NORMAL else -1 if folder.casefold() in UNLABELLED else 1
