"""Thresholds of scores, from validation images only."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import ad
from ad import InputError
from ad.config import DEFAULT_RULE

LABELLED = ("midpoint", "best-accuracy", "best-f1")  # rules of ad.sets.rules
FEW = 20  # normal images; a threshold by fewer is called rough


def standardise(scores: np.ndarray | list, normal_scores: np.ndarray | list) -> np.ndarray:
    """z of image scores on those of normal images, so that members and categories compare."""
    scores, normal = (np.asarray(s, dtype=np.float64) for s in (scores, normal_scores))
    return (scores - normal.mean()) / (normal.std() + 1e-6)


@dataclass(frozen=True)
class Limits:
    """What a vote (the members' weighted mean of standardised scores) means.

    typical: of a normal image; threshold: above it is anomalous. expected: share of new normal
    images above it, and bound: the most that it is, 90 % sure, by `count` normal images.
    """
    typical: float
    threshold: float
    expected: float
    bound: float
    count: int

    def scale(self, votes: np.ndarray) -> np.ndarray:
        """Votes -> scores: 0 typical, 1 the threshold (1 apart where that is not above typical)."""
        unit = self.threshold - self.typical
        return 1 + (np.asarray(votes) - self.threshold) / (unit if unit > 1e-9 else 1.0)

    def describe(self) -> str:
        return (f"expected false alarms {self.expected:.1%}, at most {self.bound:.1%} (90 % sure, "
                f"by {self.count} normal images)" + (
                    f"; {self.count} are few: with {FEW} or more the bound is tighter"
                    if self.count < FEW else ""))


def decide_limits(members: list, rule: str) -> Limits:
    """Limits of the members' vote, by a rule of `parse_threshold`; a number is a score on the scale
    of the default rule.

    The threshold is the weighted mean of the members' own: the images that judged all are often
    few, and other members may know their like. The rates are those of the votes on these images,
    see common_normals, or without them, as a vote is only above the threshold where some member is
    above its own, the members' together.
    """
    number = is_number(rule)
    find, weights = parse_threshold(DEFAULT_RULE if number else rule), [m.weight for m in members]
    groups = [standardise(member.normal_scores, member.normal_scores) for member in members]
    middles = np.array([np.median(z) for z in groups])
    cuts = np.array([
        find(*ad.sets.rules.known_scores(member)) if rule in LABELLED else
        standardise(own_threshold(member.calibration, find), member.normal_scores)
        for member in members])
    if number:
        cuts = middles + float(rule) * (cuts - middles)
    typical, threshold = (float(np.average(part, weights=weights)) for part in (middles, cuts))
    count, votes = min(map(len, groups)), judged_by_all(members, groups)
    if votes is not None:
        groups, cuts = [votes], [threshold]
    # One bound in ten may fail, of several that are added up one in ten of all together.
    rates = [false_alarms(int((z > cut).sum()), len(z), 1 - 0.1 / len(groups))
             for z, cut in zip(groups, cuts)]
    expected, bound = (min(1.0, sum(part)) for part in zip(*rates))
    return Limits(typical, threshold, expected, bound, count)


def own_threshold(saved: dict, find: Callable) -> float:
    """Raw threshold of a run by a function of parse_threshold. saved: the checkpoint's calibration:
    of the images that judged it, and no lower than that of those which taught it: a normal image
    that was learned is not anomalous."""
    return max(find(saved[part]) for part in ("scores", "taught") if saved.get(part))


def parse_threshold(text: str) -> Callable:
    """"quantile:0.99", a number, or one of LABELLED -> function (normal scores, anomalous scores)
    -> threshold; only those of LABELLED look at the second. Raises InputError for another text."""
    kind, _, value = text.rpartition(":")
    if text in LABELLED:
        return ad.sets.rules.RULES[text]
    if kind == "quantile" and is_number(value) and 0 <= float(value) <= 1:
        # Never between two scores: a threshold just below the highest would let it alarm.
        return lambda normal, _=None: float(np.quantile(normal, float(value), method="higher"))
    if is_number(text):
        return lambda *_: float(text)
    raise InputError(f"--threshold must be quantile:Q with Q in [0, 1], a number, or one of "
                     f"{', '.join(LABELLED)}, got {text!r}")


def is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def false_alarms(above: int, count: int, confidence: float = 0.9) -> tuple[float, float]:
    """(expected share, upper bound that holds with this confidence) of new normal images above a
    threshold that `above` of `count` exchangeable normal images exceed.

    The share is distributed as Beta(above + 1, count - above): exactly, if the threshold is the
    score of the next one (David and Nagaraja, "Order statistics", 2003, 2.3); for a threshold that
    was set without looking this is Clopper and Pearson's bound (Biometrika, 1934).
    """
    if above >= count:
        return 1.0, 1.0

    ways = [math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
            for k in range(above + 1)]  # logarithms of binomial coefficients

    def at_most(share):
        """Probability that Beta(above + 1, count - above) is at most `share`."""
        return 1 - sum(math.exp(way + k * math.log(share) + (count - k) * math.log1p(-share))
                       for k, way in enumerate(ways))
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(middle) < confidence else (low, middle)
    return (above + 1) / (count + 1), high


def judged_by_all(members: list, values: list) -> np.ndarray | None:
    """The members' weighted mean of `values` (one a normal image), see votes.common_normals."""
    return values[0] if len(members) == 1 else ad.sets.votes.common_normals(members, values)
