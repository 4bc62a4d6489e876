"""CSV files that people and spreadsheets write, and the competition's: id,prediction."""

import codecs
import csv
import io
from pathlib import Path

from ad import InputError
from ad.checkpoint import write_rows
from ad.cli import require

HEADER = ["id", "prediction"]


def read_rows(path: Path) -> list[list[str]]:
    """Rows of a CSV file, lists of cells without spaces around them; empty lines and empty cells at
    a line's end are left out. Separated by commas, semicolons or tabs; UTF-8 or, with its mark,
    UTF-16. Raises InputError when it cannot be read."""
    try:
        raw = path.read_bytes()
        wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = raw.decode("utf-16" if wide else "utf-8-sig")
        first = next(filter(str.strip, text.splitlines()), "")
        rows = [[cell.strip() for cell in row] for row in csv.reader(
            io.StringIO(text, newline=None), delimiter=max(",;\t", key=first.count),
            skipinitialspace=True)]
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"cannot read {path} ({error}); it must be a CSV file in UTF-8") from error
    for row in rows:
        while row and not row[-1]:
            row.pop()
    return [row for row in rows if row]


def numeric(name: str) -> tuple[int, int, str]:
    """Sort key: ids that are numbers by value, before all others."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)


def sample_order(path: Path, names: dict) -> tuple[list, list]:
    """{id: file name} of the test images -> (header, [(id there, id here), ...]) as in a sample
    submission, whose ids may have suffix and folder. Raises InputError unless every test image is
    there once."""
    header, *rows = read_rows(path) or [[]]
    if len(header) != 2:
        raise InputError(f"{path} has the header {','.join(header) or 'nothing'}; it must be two "
                         "columns, ids and predictions")
    known = {}
    for own, file in names.items():
        for name in {own, file, f"test/{file}"}:
            known.setdefault(name, []).append(own)
    order = {}
    for name in (row[0] for row in rows):
        found = known.get(name, [])
        if len(found) != 1 or found[0] in order:
            wrong = f"the name of {len(found) or 'no'} test images" if len(found) != 1 else \
                "the name of an image that has a line before"
            raise InputError(f"{path}: the id {name!r} is {wrong}; names here are like "
                             f"{' or '.join(next(iter(names.items())))}")
        order[found[0]] = name
    missing = [file for own, file in names.items() if own not in order]
    if missing:
        raise InputError(f"{path} has no line for {len(missing)} test images, {missing[0]} first")
    return header, [(name, own) for own, name in order.items()]


def of_rows(rows: list, binary: bool, like: Path | None) -> str:
    """Rows of scores.csv -> text of the CSV. binary: 0 and 1, not scores; like: a sample
    submission, or None."""
    return submission({row.id: row.prediction if binary else float(row.score) for row in rows},
                      like and sample_order(like, {row.id: Path(row.path).name for row in rows}))


def submission(predictions: dict, like: tuple | None = None) -> str:
    """{id: score or 0/1} -> text of the CSV, in numeric order or in that of `like`, what
    sample_order returns."""
    header, order = like or (HEADER, [(name, name) for name in sorted(predictions, key=numeric)])
    values = ((name, predictions[own]) for name, own in order)
    return write_rows([header, *((name, value if isinstance(value, int) else f"{value:.6f}")
                                 for name, value in values)])


def check_submission(text: str, path: Path) -> None:
    """Compare header, ids, their order and count with a sample's; InputError names what differs
    first."""
    wanted, ours = read_rows(path), list(csv.reader(text.splitlines()))
    if not wanted or ours[0] != wanted[0]:
        raise InputError(f"{path} has the header {','.join(wanted[0]) if wanted else 'nothing'}, "
                         f"ours is {','.join(ours[0])}; --like {path} writes it")
    for line, (row, other) in enumerate(zip(ours[1:], wanted[1:]), start=2):
        if row[0] != other[0]:
            raise InputError(f"line {line}: our id is {row[0]}, that of {path} is {other[0]}; "
                             f"--like {path} writes its ids in its order")
    if len(ours) != len(wanted):
        raise InputError(f"we have {len(ours) - 1} ids, {path} has {len(wanted) - 1}; the first "
                         f"ones are the same")


def check_submits(table: dict, samples: list, like: Path | None, apart: bool) -> None:
    """Raise InputError where a submission cannot be made of the scores of these samples. like: a
    sample submission or None; apart: is an image scored by several detectors?"""
    require(not apart, "a submission needs one score for each image: leave out --separately and "
            "--merge-categories")
    if like:
        require(len(samples) == sum(file.startswith("test/") for file in table), "--like needs a "
                "score for every test image: give --all")
        sample_order(like, {s.id: s.path.name for s in samples})
