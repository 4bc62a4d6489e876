"""The competition's CSV: id,prediction, in numeric order; and its comparison with a sample."""

import csv
import io

from ad import InputError

HEADER = ("id", "prediction")


def numeric(name):
    """Sort key: ids that are numbers by value, before all others."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)


def submission(predictions):
    """{id: score or 0/1} -> text of the CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows((name, value if isinstance(value, int) else f"{value:.6f}")
                     for name, value in sorted(predictions.items(), key=lambda p: numeric(p[0])))
    return text.getvalue()


def check_submission(text, path):
    """Compare header, ids, their order and count with a sample's; InputError names what differs
    first."""
    try:
        wanted = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    ours = list(csv.reader(text.splitlines()))
    if not wanted or ours[0] != wanted[0]:
        raise InputError(f"{path} has the header {','.join(wanted[0]) if wanted else 'nothing'}, "
                         f"ours is {','.join(ours[0])}")
    for line, (row, other) in enumerate(zip(ours[1:], wanted[1:]), start=2):
        if row[0] != other[0]:
            raise InputError(f"line {line}: our id is {row[0]}, that of {path} is {other[0]}")
    if len(ours) != len(wanted):
        raise InputError(f"we have {len(ours) - 1} ids, {path} has {len(wanted) - 1}; the first "
                         f"ones are the same")
