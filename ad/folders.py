"""What is in a folder: images, sub-folders, and what is left out of it; hidden things are not."""

import os
from collections import Counter
from functools import cache
from pathlib import Path

from PIL import Image

from ad import InputError

FORMATS = {"AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP"}
IMAGE_SUFFIXES = {suffix for suffix, kind in Image.registered_extensions().items()
                  if kind in FORMATS and kind in Image.OPEN}  # of this Pillow
# Of macOS, Windows, and the network storage of Synology and QNAP; in lower case.
SYSTEM = {"__macosx", "$recycle.bin", "recycler", "system volume information", "thumbs.db",
          "desktop.ini", "lost+found", "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle",
          "@recently-snapshot"}


def visible(folder: Path) -> list[Path]:
    """Paths directly in `folder`, sorted, without hidden and system ones; [] where there is none.
    """
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir()
                  if not p.name.startswith(".") and p.name.casefold() not in SYSTEM)


def is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def unread(paths: list[Path]) -> str:
    """"; HEIC ..." where one of the files is of that kind, as telephones write them, else ""."""
    heic = any(path.suffix.lower() in (".heic", ".heif") for path in paths)
    return "; HEIC is not read, convert it to JPEG" if heic else ""


def subfolders(folder: Path) -> list[Path]:
    return [p for p in visible(folder) if p.is_dir()]


def files_below(folder: Path, above: tuple = ()) -> list[Path]:
    """All files in `folder` and its sub-folders, sorted; a link to a folder above is not followed.
    """
    above, found = (*above, folder.resolve()), []
    for path in visible(folder):
        if not path.is_dir():
            found.append(path)
        elif path.resolve() not in above:
            found += files_below(path, above)
    return found


def whole_path(path: str | Path) -> Path:
    """The same from the root of the file system, without . and ..; links stay."""
    return Path(os.path.abspath(path))


def images_below(folder: Path) -> list[Path]:
    """The image files among files_below."""
    return [path for path in files_below(folder) if is_image(path)]


@cache
def say_once(text: str) -> None:
    """Print a note, unless this process has printed it: folders are looked at more than once."""
    print(text)


def report_left_out(folder: Path, taken: list[Path]) -> None:
    """Say in one line which files below `folder` are not among the paths `taken`."""
    taken = set(taken)
    kinds = Counter((p.parent.relative_to(folder) / f"*{p.suffix}").as_posix()
                    for p in files_below(folder) if p not in taken)
    if kinds:
        say_once(f"note: left out {kinds.total()} files of {folder}: "
                 + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(6))
                 + (", ..." if len(kinds) > 6 else ""))


def root_of(name: str | None) -> Path:
    """--data (or None: AD_DATA, else data/mvtec_ad) -> root of the data; that of demo sets is
    written by layouts.resolve_data. Raises InputError where there is no such folder."""
    name = name or os.environ.get("AD_DATA") or "data/mvtec_ad"
    if name in ("demo", "demo-wells"):
        return Path("data", name)
    if Path(name).is_file():
        raise InputError(f"--data {name} is a file; give the folder that it is in")
    if not Path(name).is_dir():
        raise InputError(
            f"no data at {name} (looked in {Path(name).absolute()}): name a folder of photographs "
            "of good parts with --data DIR or AD_DATA, get MVTec AD from "
            "https://www.mvtec.com/company/research/datasets/mvtec-ad and unpack it there, or try "
            "--data demo, which works now")
    return Path(name)
