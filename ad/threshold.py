"""Thresholds of scores and of pixels, from validation images only."""

import numpy as np
import torch

from ad import InputError
from ad.cli import autocast
from ad.runs import run_images
from ad.scoring import score_images, standardise
from ad.validation import validation_set


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


def parse_threshold(text):
    """"quantile:0.99", a number, or a key of LABELLED -> function (normal scores, anomalous scores)
    -> threshold; only those of LABELLED look at the second."""
    kind, _, value = text.rpartition(":")
    if text in LABELLED:
        return LABELLED[text]
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if kind == "quantile" and 0 <= number <= 1:
        # Never between two scores: a threshold just below the highest would let it alarm.
        return lambda normal, _=None: float(np.quantile(normal, number, method="higher"))
    if kind == "" and np.isfinite(number):
        return lambda *_: number
    raise InputError(f"--threshold must be quantile:Q with Q in [0, 1], a number, or one of "
                     f"{', '.join(LABELLED)}, got {text!r}")


def top_of_maps(members):
    """Where the colours of their mean map end. A score is a mean of map values, so twice the
    threshold is a scale that fits the map."""
    return sum(2 * m["weight"] * parse_threshold("quantile:0.99")(m["normal"]) for m in members)


def pixel_threshold(members, args, device):
    """The --masks quantile of the maps of the members' own normal validation images, weighted."""
    total = 0
    for member in members:
        with autocast(device, args.precision):
            maps = [m.flatten().cpu() for _, m in score_images(
                member["model"], run_images(member["config"], "validation"),
                member["calibration"], device, args.window_batch)]
        total += member["weight"] * float(np.quantile(torch.cat(maps).numpy(), args.masks))
    print(f"{members[0]['config']['category']}: masks are where the map is above {total:.3f}, the "
          f"{args.masks:g} quantile of the pixels of normal validation images")
    return total


def labelled_scores(member, args, device):
    """Scores of the member's normal and anomalous validation images, what a threshold is learned
    from: the labelled ones its config.json names or, without any, pseudo-anomalies of the normal
    ones. There are nine of these to a normal image, which then counts as often: otherwise calling
    everything anomalous would be right nine times in ten."""
    config = member["config"]
    normals, labelled = (run_images(config, part) for part in ("validation", "anomalous"))
    _, positives, kinds = validation_set(normals, config["image_size"], config["args"]["seed"],
                                         labelled)
    print(f"{config['category']}/{member['name']}: scoring {len(positives)} "
          f"{'labelled anomalous' if labelled else 'pseudo-anomalous'} validation images for the "
          "threshold")
    with autocast(device, args.precision):
        scores = torch.cat([scores.cpu() for scores, _ in score_images(
            member["model"], positives, member["calibration"], device, args.window_batch)]).numpy()
    times = 1 if labelled else round(len(scores) / len(normals))
    return [standardise(part, member["normal"])
            for part in (np.repeat(member["normal"], times), scores)]


def decide_threshold(members, args, device):
    """Threshold of standardised scores, the members' own ones weighted, from their validation
    images; prints the false-alarm rate."""
    normal = [standardise(member["normal"], member["normal"]) for member in members]
    known = [labelled_scores(member, args, device) if args.threshold in LABELLED else [own]
             for member, own in zip(members, normal)]
    thresholds = [parse_threshold(args.threshold)(*scores) for scores in known]
    threshold = float(np.average(thresholds, weights=[member["weight"] for member in members]))
    count = min(len(z) for z in normal)
    above = np.mean([(z > own).mean() for z, own in zip(normal, thresholds)]) * count
    print(f"{members[0]['config']['category']}: threshold {threshold:.3f} ({args.threshold}), "
          f"expected false alarms {(above + 1) / (count + 1):.1%} or fewer (one in {count + 1} is "
          f"the finest that {count} normal images can tell)")
    return threshold
