"""Casting wells, the layout of a source report: proliv (Russian: spilt metal) are the defects."""

from dataclasses import replace
from pathlib import Path

from ad import InputError
from ad.samples import Sample
from ad.sets.other_layouts import WELLS, as_taken


def samples(root: Path, split: str) -> list[Sample]:
    """Samples of the casting layout: train (normal), validation (proliv: metal spilled over), test.

    Raises InputError for a line of the annotation that is not a name and 0 or 1, that names no
    image, and for an image that has no line.
    """
    if split != "test":
        folder, label = (root / "train", 0) if split == "train" else (root / "proliv", 1)
        return as_taken(folder, WELLS, label)
    path, labels = root / "test/test_annotation.txt", {}
    found = as_taken(root / "test/imgs", WELLS, -1)
    images = {sample.path.name for sample in found}
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    for number, words in enumerate((line.rsplit(None, 1) for line in lines), start=1):
        if not words:
            continue
        if len(words) != 2 or words[1] not in ("0", "1"):
            raise InputError(f"{path}, line {number}: it must be a file's name and 0 or 1")
        if words[0] not in images:
            raise InputError(f"{path}, line {number}: there is no image test/imgs/{words[0]}")
        labels[words[0]] = int(words[1])
    missing = sorted(images - labels.keys())
    if missing:
        raise InputError(f"{path} has no line for {len(missing)} images, {missing[0]} first")
    return [replace(sample, label=labels[sample.path.name]) for sample in found]
