"""Run folders, atomic writes, safe loading, and finding a checkpoint by its short name."""

import csv
import io
import json
import os
import pickle
import zipfile
from glob import escape
from pathlib import Path
from textwrap import shorten

import torch

from ad import InputError
from ad.calibration import Calibration
from ad.cli import command
from ad.config import Scoring
from ad.model import build_model

KEYS = {"model", "model_args", "config", "epoch", "val_auroc", "calibration"}
CONFIG = {"args", "root", "category", "image_size", "train", "validation"}  # of its config
SCORING = set(Scoring.__dataclass_fields__)
CALIBRATION = {"scoring", "scores", "positives", "sources", "kinds", "pixels",
               *Calibration.__dataclass_fields__}  # see judging.judge


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write bytes or text under a temporary name, flush to disk, rename: never a half file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            # Names of files need not be UTF-8; so they come back as they were.
            file.write(data if isinstance(data, bytes) else data.encode(errors="surrogateescape"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_rows(rows: list) -> str:
    """Rows -> text of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def save(path: Path, checkpoint: dict) -> None:
    """Save a checkpoint dict of plain types and tensors (KEYS at least) atomically."""
    missing = KEYS - checkpoint.keys()
    if missing:
        raise ValueError(f"checkpoint lacks {', '.join(sorted(missing))}")
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    write_atomic(path, buffer.getvalue())


def load(path: Path) -> dict:
    """Read a checkpoint dict, on the CPU. Never runs code from the file; raises InputError where
    there is none, and for what is not ours, or of another version."""
    if not Path(path).is_file():
        raise InputError(f"no checkpoint {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError,
            zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"cannot load checkpoint {path}: it is damaged, or no PyTorch file "
                         f"({reason[:100]})") from error
    if not isinstance(checkpoint, dict) or KEYS - checkpoint.keys():
        raise InputError(f"{path} is not a checkpoint of this project")
    config, known = checkpoint["config"], checkpoint["calibration"]
    odd = CONFIG - config.keys()
    if known:
        odd |= CALIBRATION - known.keys() or SCORING ^ known["scoring"].keys()
    else:
        odd |= SCORING - config.get("args", {}).keys()
    if odd:
        raise InputError(f"{path} is of another version of this project, which differs in "
                         f"{', '.join(sorted(odd))}; train it again")
    return checkpoint


def restore_model(checkpoint: dict, path: Path,
                  device: torch.device | str = "cpu") -> torch.nn.Module:
    """Checkpoint dict -> its model in eval mode on `device`; `path` is for the error message."""
    try:
        model = build_model(**checkpoint["model_args"])
        model.load_state_dict(checkpoint["model"])
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{path} does not fit its model: {shorten(str(error), 160)}; if it is "
                         "of another version of this project, train it again") from error
    return model.to(device, memory_format=torch.channels_last).eval()


def find(name: str, runs: str | Path) -> Path:
    """A checkpoint path, or a short name (epoch_12.pt, unet-seed0/best.pt) below `runs`; of a run's
    folder (unet-seed0) best.pt."""
    for path in (Path(name), Path(name, "best.pt")):
        if path.is_file():
            return path
    matches = sorted(p for pattern in (escape(name), f"{escape(name)}/best.pt") if name
                     for p in Path(runs).glob(f"**/{pattern}") if p.is_file())
    if len(matches) == 1:
        return matches[0]
    if matches:
        listed = ", ".join(str(m) for m in matches)
        raise InputError(f"{name!r} is the name of {len(matches)} checkpoints, give one as a path: "
                         f"{listed}")
    raise InputError(f"no checkpoint {name!r}, as a path or below {runs}; train one with train.py")


def find_runs(runs: str | Path, category: str, members: list | None = None,
              data: str | None = None, merged: tuple = ()) -> list[Path]:
    """Run folders of a category that hold a best.pt, sorted; `members` picks names among them.

    Raises InputError when a named member is not there, or when there is none; that says how to
    train one with --data `data`, of the categories `merged` together.
    """
    folder = Path(runs) / category
    names = sorted(p.parent.name for p in folder.glob("*/best.pt"))
    if members is not None:
        missing = [m for m in members if m not in names]
        if missing:
            raise InputError(f"no run {', '.join(missing)} with a best.pt in {folder}; "
                             f"there are: {', '.join(names) or 'none'}")
        names = sorted(set(members))
    if not names:
        known = sorted({path.parent.parent.name for path in Path(runs).glob("*/*/best.pt")})
        hint = f" (there are runs of {', '.join(known)})" if known else ""
        which = ("--merge-categories", *merged) if merged else ("--category", category)
        raise InputError(f"no trained run in {folder}{hint}; train one: "
                         + command("train.py", data, runs, *which))
    return [folder / name for name in names]


def write_config(folder: Path, config: dict) -> None:
    """Write a run folder's config.json."""
    write_atomic(folder / "config.json", json.dumps(config, indent=2) + "\n")
