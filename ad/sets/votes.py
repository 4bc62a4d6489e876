"""Runs of a category that vote: their weights, and the normal images that all have judged."""

from statistics import NormalDist

import numpy as np

from ad.metrics import standard_error

MINOR = 0.1  # share of the best member's weight below which another has no vote


def vote_weights(aurocs: list, counts: list) -> list[float]:
    """Weights of members, adding up to 1, from their pseudo-anomaly AUROCs (equal if one is
    None) and the numbers of normal images that these are of.

    In proportion to d' = sqrt(2) * the normal quantile of the AUROC: how many standard deviations
    apart it holds normal and damaged images, which is the best weight of independent standardised
    scores. Each d' is first drawn towards their mean, the more the less its standard error leaves
    of their spread (Efron and Morris, JASA 1973). One with less than MINOR of the best one's weight
    gets none: all that it would add is noise.
    """
    if None in aurocs:
        return [1 / len(aurocs)] * len(aurocs)
    counts = np.asarray(counts, dtype=float)
    # Half an image on either side: an AUROC of 1.0 only says that there were too few to tell.
    area = (np.asarray(aurocs) * counts + 0.5) / (counts + 1)
    normal = [NormalDist().inv_cdf(a) for a in area]
    d = np.sqrt(2) * np.maximum(normal, 0)
    slope = np.array([NormalDist().pdf(z) for z in normal]) / np.sqrt(2)
    error = np.array([standard_error(a, n) for a, n in zip(aurocs, counts)]) / slope
    spread = max(0.0, d.var(ddof=1) - (error ** 2).mean())
    d = d.mean() + (d - d.mean()) * spread / (spread + error ** 2)
    weights = np.where(d >= MINOR * d.max(), d, 0) if d.max() > 0 else np.ones(len(d))
    return (weights / weights.sum()).tolist()


def common_normals(members: list, values: list) -> np.ndarray | None:
    """The members' weighted mean of `values` (of each member one for each of its config.json's
    validation images), for the images that all members were judged by. None unless these are
    all the images of the member with the fewest."""
    tables = [dict(zip(member.config["validation"], part))
              for member, part in zip(members, values)]
    names = sorted(set.intersection(*map(set, tables)))
    if len(names) < min(map(len, tables)):
        return None
    return np.stack([sum(member.weight * table[name] for member, table in zip(members, tables))
                     for name in names])
