"""Thresholds of scores and of pixels, from validation images only."""

import math
from dataclasses import dataclass

import numpy as np

from ad import InputError
from ad.config import DEFAULT_RULE
from ad.vote import common_normals

FEW = 20  # normal images; a threshold by fewer is called rough


def standardise(scores, normal_scores):
    """z of image scores on those of normal images, so that members and categories compare."""
    scores, normal = (np.asarray(s, dtype=np.float64) for s in (scores, normal_scores))
    return (scores - normal.mean()) / (normal.std() + 1e-6)


def best_threshold(normal, anomalous, measure):
    """The threshold with the highest measure(TP, FP, FN, TN) of "score > threshold is anomalous".

    Exact: every threshold between two neighbouring observed scores, and below and above all, is
    tried; of equally good ones the one in the widest gap is taken.
    """
    scores = np.concatenate([normal, anomalous])
    values = np.unique(scores)
    cuts = np.concatenate([[values[0] - 1], (values[:-1] + values[1:]) / 2, [values[-1] + 1]])
    gaps = np.concatenate([[0], np.diff(values), [0]])
    tp, fp = ((np.asarray(part)[None] > cuts[:, None]).sum(1) for part in (anomalous, normal))
    found = measure(tp, fp, len(anomalous) - tp, len(normal) - fp)
    return float(cuts[max(range(len(cuts)), key=lambda i: (found[i], gaps[i]))])


LABELLED = {  # rules that need scores of anomalous validation images, too
    "midpoint": lambda normal, anomalous: float((np.mean(normal) + np.mean(anomalous)) / 2),
    "best-accuracy": lambda normal, anomalous: best_threshold(
        normal, anomalous, lambda tp, fp, fn, tn: (tp + tn) / (tp + fp + fn + tn)),
    "best-f1": lambda normal, anomalous: best_threshold(
        normal, anomalous, lambda tp, fp, fn, tn: 2 * tp / (2 * tp + fp + fn))}


def is_number(text):
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def parse_threshold(text):
    """"quantile:0.99", a number, or a key of LABELLED -> function (normal scores, anomalous scores)
    -> threshold; only those of LABELLED look at the second."""
    kind, _, value = text.rpartition(":")
    if text in LABELLED:
        return LABELLED[text]
    if kind == "quantile" and is_number(value) and 0 <= float(value) <= 1:
        # Never between two scores: a threshold just below the highest would let it alarm.
        return lambda normal, _=None: float(np.quantile(normal, float(value), method="higher"))
    if kind == "" and is_number(value):
        return lambda *_: float(value)
    raise InputError(f"--threshold must be quantile:Q with Q in [0, 1], a number, or one of "
                     f"{', '.join(LABELLED)}, got {text!r}")


def pixel_threshold(members, quantile):
    """The quantile of the pixels of the members' mean map of normal images that they have not
    learned from."""
    pixels = [member.calibration["pixels"].float().numpy() for member in members]
    common = common_normals(members, pixels)
    return float(np.quantile(common, quantile)) if common is not None else sum(
        member.weight * float(np.quantile(p, quantile)) for member, p in zip(members, pixels))


def known_scores(member):
    """Standardised scores of the member's normal images and of its positives, for LABELLED rules.
    There may be more pseudo-anomalies than normal images, which then count as often: otherwise
    calling everything anomalous would be right nine times in ten."""
    saved = member.calibration
    normal, positives = (standardise(saved[part], saved["scores"])
                         for part in ("scores", "positives"))
    pseudo = max(saved["sources"], default=-1) >= 0
    times = max(1, round(len(positives) / len(normal))) if pseudo else 1
    return np.repeat(normal, times), positives


def false_alarms(above, count, confidence=0.9):
    """(expected share, upper bound that holds with this confidence) of new normal images above a
    threshold that `above` of `count` exchangeable normal images exceed.

    The share is distributed as Beta(above + 1, count - above): exactly, if the threshold is the
    score of the next one (David and Nagaraja, "Order statistics", 2003, 2.3); for a threshold that
    was set without looking this is Clopper and Pearson's bound (Biometrika, 1934).
    """
    if above >= count:
        return 1.0, 1.0

    def at_most(share):
        """Probability that Beta(above + 1, count - above) is at most `share`."""
        return sum(math.comb(count, k) * share ** k * (1 - share) ** (count - k)
                   for k in range(above + 1, count + 1))
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(middle) < confidence else (low, middle)
    return (above + 1) / (count + 1), high


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

    def scale(self, votes):
        """Votes -> scores: 0 typical, 1 the threshold (1 apart where that is not above typical)."""
        unit = self.threshold - self.typical
        return 1 + (np.asarray(votes) - self.threshold) / (unit if unit > 1e-9 else 1.0)

    def describe(self):
        return (f"expected false alarms {self.expected:.1%}, at most {self.bound:.1%} (90 % sure, "
                f"by {self.count} normal images)" + (
                    f"; {self.count} are few: with {FEW} or more the bound is tighter"
                    if self.count < FEW else ""))


def decide_limits(members, rule):
    """Limits of the members' vote, by a rule of `parse_threshold`; a number is a score on the scale
    of the default rule.

    Where all judged the same normal images the threshold is that of the votes on those. Otherwise
    it is the weighted mean of their own, and as the vote is only above it where some member is
    above its own, the members' rates add up to a bound.
    """
    number = is_number(rule)
    find, weights = parse_threshold(DEFAULT_RULE if number else rule), [m.weight for m in members]
    own = [standardise(member.normal, member.normal) for member in members]
    votes = common_normals(members, own)
    groups = own if votes is None else [votes]
    middles = [float(np.median(z)) for z in groups]
    typical = middles[0] if votes is not None else float(np.average(middles, weights=weights))
    if rule in LABELLED or votes is None:
        cuts = [find(*known_scores(m)) if rule in LABELLED else find(z) for m, z in
                zip(members, own)]
        threshold = float(np.average(cuts, weights=weights))
    else:
        threshold = find(votes)
    cuts = cuts if votes is None else [threshold]
    if number:
        threshold = typical + float(rule) * (threshold - typical)
        cuts = [middle + float(rule) * (cut - middle) for middle, cut in zip(middles, cuts)]
    # One bound in ten may fail, of several that are added up one in ten of all together.
    rates = [false_alarms(int((z > cut).sum()), len(z), 1 - 0.1 / len(groups))
             for z, cut in zip(groups, cuts)]
    expected, bound = (min(1.0, sum(part)) for part in zip(*rates))
    return Limits(typical, threshold, expected, bound, min(map(len, own)))
