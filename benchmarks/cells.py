"""What the tables of tables.py are made with: where records are, and numbers as text."""

import json
import math
from statistics import mean, stdev

from scipy.stats import t

from timing import RESULTS

DEMO = "carpet", "grid", "tablet"


def recorded(name):
    """What a benchmark left in its JSON file."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def bench(name):
    return recorded(name)["results"]


def text(value, digits=3):
    """A number with so many digits; - for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def auroc_error(area, anomalous, normal):
    """Standard error of an AUROC of so many images (Hanley and McNeil, Radiology 1982)."""
    one, two = area / (2 - area), 2 * area ** 2 / (1 + area)
    return math.sqrt((area * (1 - area) + (anomalous - 1) * (one - area ** 2) + (normal - 1) * (
        two - area ** 2)) / (anomalous * normal))


def own_error(result):
    """auroc_error of an entry of metrics.json."""
    return auroc_error(result["auroc"], result["anomalous"],
                       result["images"] - result["anomalous"])


def ranged(result):
    """AUROC, and half of its 95 % interval over images."""
    return f"{text(result['auroc'])} ± {text(1.96 * own_error(result), 2)}"


def by_set(values):
    """Mean and 95 % interval (Student's t) of one value a data set."""
    half = t.ppf(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return f"{mean(values):+.3f} ({mean(values) - half:+.3f} to {mean(values) + half:+.3f})"


def minutes(found):
    """Training times in minutes; under one minute in seconds."""
    short = all(r["training, s"] < 60 for r in found)
    return ", ".join(f"{r['training, s'] / (1 if short else 60):.0f}" for r in found) + (
        " s" if short else " min")


def rates(result):
    return f"{text(result['tpr'], 2)} / {text(result['tnr'], 2)}"
