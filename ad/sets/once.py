"""Procedural data sets are written whole, or not at all."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from ad import InputError


def write_once(root: Path, marker: str, build: Callable[[Path], None]) -> Path:
    """Let build(folder) write the data set `root`, unless it is there already with the same
    `marker` in its demo.json; return `root`. Raises InputError if anything else is there."""
    if (root / "demo.json").is_file() and (root / "demo.json").read_text() == marker:
        return root
    if root.exists():
        raise InputError(f"{root} is not the complete demo set {marker}: delete it and run again")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as scratch:
        built = Path(scratch) / "demo"  # inside, as the scratch folder is closed to other users
        built.mkdir()
        try:
            build(built)
            (built / "demo.json").write_text(marker)
        except OSError as error:
            raise InputError(f"cannot write {root}: {error.strerror}") from error
        if not root.exists():  # another process may have been faster
            built.rename(root)
    return root
