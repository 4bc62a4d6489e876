"""Single images: files of infer.py --image, arrays and tensors of a notebook, and those of a test
split that people name."""

import glob
import os
from dataclasses import replace
from pathlib import Path

from PIL import Image

import ad
from ad import InputError
from ad.cli import command
from ad.folders import (files_below, images_below, report_left_out, subfolders, unread,
                        whole_path)
from ad.samples import Sample, with_ids


def only_category(runs: Path | str) -> str:
    """The one category that has runs which score; classifiers do not. Raises InputError for none
    or several."""
    every = [folder for folder in subfolders(Path(runs)) if any(folder.glob("*/best.pt"))]
    names = [folder.name for folder in every if not any(folder.glob("*/test.json"))]
    if len(names) != 1:
        known = names or [folder.name for folder in every]
        raise InputError(f"give --category NAME, one of {', '.join(known)}" if known else
                         f"no trained run in {runs}; train one: "
                         + command("train.py", "DIR", runs))
    return names[0]


def expand(names: list[str]) -> list[Path]:
    """Files, folders (with what is below them) and wildcards -> paths of images. Raises InputError
    for what is none."""
    found = []
    for name in names:
        paths = [Path(name)] if os.path.exists(name) else [
            Path(p) for p in sorted(glob.glob(name, recursive=True))]
        if not paths:
            raise InputError(f"--image: there is no {name}")
        for path in paths:
            below = images_below(path) if path.is_dir() else [path]
            if not below:
                raise InputError(f"--image: there is no image in {path}{unread(files_below(path))}")
            if path.is_dir():
                report_left_out(path, below)
            found += below
    return found


def single_files(paths: list[Path], category: str) -> list[Sample]:
    """Samples of files from anywhere, each once, with ids image/<path below their common folder>.
    """
    files = {whole_path(path): path for path in paths}
    samples = with_ids([Sample(path, category, "image", -1, None) for path in files],
                       os.path.commonpath([path.parent for path in files]))
    return [replace(s, path=files[s.path], id=f"image/{s.id}") for s in samples]


def named(samples: list[Sample], names: list[str]) -> list[Sample]:
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


def print_rows(rows: list) -> None:
    """A line for every file, from its row of scores.csv."""
    print("verdict     score  image    (above 1.00 is anomalous)")
    for row in rows:
        path = "".join(c if c.isprintable() else repr(c)[1:-1] for c in row.path)
        print(f"{'ANOMALOUS' if row.prediction else 'normal':<9}  {float(row.score):6.2f}  {path}")
    print(f"{len(rows)} image{'s' * (len(rows) != 1)}, "
          f"{sum(row.prediction for row in rows)} of them anomalous")


def as_image(source: object, image_size: int, white: int | None = None) -> object:
    """As read_image of a path, a Pillow image, an array (H, W) or (H, W, 3), or a tensor
    (3, H, W), uint8 or float in [0, 1]. Raises InputError for anything else."""
    import torch  # here, as names of files are looked at before it is imported
    if isinstance(source, (str, os.PathLike)):
        return ad.images.read_image(source, image_size, white)
    try:
        if torch.is_tensor(source):
            if source.is_floating_point():
                low, high = source.min().item(), source.max().item()
                if not -0.1 < low <= high < 1.1:  # not for NaN either; resizing may overshoot
                    raise ValueError(f"its values, {low:g} to {high:g}, are not in [0, 1]")
                source = (source.clamp(0, 1) * 255).round().byte()
            source = source.cpu().permute(1, 2, 0).numpy()
        image = source.copy() if isinstance(source, Image.Image) else Image.fromarray(source)
        return ad.images.shrunk(image, image_size, white)
    except (TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise InputError(f"not an image: {type(source).__name__}: {error}; an array must be uint8, "
                         "(H, W) or (H, W, 3), a tensor (3, H, W)") from error
