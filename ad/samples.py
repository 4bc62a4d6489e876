"""One image of a data set: what it is called, and whether it is normal."""

import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from ad import InputError
from ad.folders import files_below, is_image, list_images, report_left_out, subfolders

NORMAL = ("good", "ok", "okay", "normal")  # folders of normal images, in any case
# Folders of anomalous images in a folder of photographs, where any other has no label.
ANOMALOUS = ("bad", "defect", "defects", "defective", "anomaly", "anomalies", "anomalous",
             "abnormal", "faulty", "broken", "damaged", "reject", "rejects", "ng", "nok", "not ok")
UNLABELLED = ("unknown", "unlabelled", "unlabeled", "")  # of images of which nothing is known


@dataclass(frozen=True)
class Sample:
    """One image. split: "train" | "validation" | "test"; defect: "good" for a normal one; label: 0
    normal, 1 anomalous, -1 unknown; mask: None if there is none; id: see with_ids."""
    path: Path
    category: str
    split: str
    defect: str
    label: int
    mask: Path | None
    id: str = ""


def with_ids(samples, folder):
    """Samples with their ids: the path below `folder` without suffix, e.g. "bent_lead/003"; with
    it where several images would have the same."""
    names = [s.path.relative_to(folder).as_posix() for s in samples]
    ids = [os.path.splitext(name)[0] for name in names]
    while len(set(ids)) < len(ids):
        count = Counter(ids)
        ids = [name if count[own] > 1 else own for name, own in zip(names, ids)]
    return [replace(sample, id=own) for sample, own in zip(samples, ids)]


def single_files(paths, category):
    """Samples of files from anywhere, each once, with ids image/<path below their common folder>.
    """
    files = {Path(os.path.abspath(path)): path for path in paths}
    samples = with_ids([Sample(path, category, "test", "image", -1, None) for path in files],
                       os.path.commonpath([path.parent for path in files]))
    return [replace(s, path=files[s.path], id=f"image/{s.id}") for s in samples]


def named(samples, names):
    """The samples that people mean by `names`: ids or, where none has that id, <category>/<id>,
    names of files, or those without suffix. Raises InputError for what is none of them."""
    chosen = []
    for name in names:
        meanings = ([s for s in samples if name in names_of(s)] for names_of in (
            lambda s: (s.id,), lambda s: (f"{s.category}/{s.id}",),
            lambda s: (s.path.name, s.id + s.path.suffix), lambda s: (s.path.stem,)))
        found = next(filter(None, meanings), None)
        if not found:
            raise InputError(f"no test image {name!r}; ids look like {samples[0].id}")
        chosen += found
    return list(dict.fromkeys(chosen))


def as_taken(folder, category, split, defect, label):
    """Samples of the images directly in `folder`; says what is left out of it."""
    files = list_images(folder)
    report_left_out(folder, files)
    return with_ids([Sample(path, category, split, defect, label, None) for path in files], folder)


def photos(root, split):
    """Samples of a folder of photographs, one category: the images in it are normal or, where it
    has folders, those in good/, bad/ and the like are what they are called, all others unknown."""
    category, samples = root.absolute().name, []
    folders = [] if list_images(root) else subfolders(root)
    if not folders:
        return as_taken(root, category, split, "good", 0) if split == "train" else []
    for folder in folders:
        name = folder.name.casefold()
        label = 0 if name in NORMAL else 1 if name in ANOMALOUS else -1
        if (label == 0) == (split == "train"):
            files = [path for path in files_below(folder) if is_image(path)]
            report_left_out(folder, files)
            samples += [Sample(path, category, split, folder.name, label, None) for path in files]
    return with_ids(samples, root)


def label_of(folder):
    """Label of the images in a test split's folder of this name."""
    return 0 if folder.casefold() in NORMAL else -1 if folder.casefold() in UNLABELLED else 1
