"""What a run is worth, and what to do next, in plain sentences."""

import numpy as np

from ad.config import DEFAULT_RULE
from ad.judging import aurocs
from ad.metrics import standard_error
from ad.scoring import load_calibration
from ad.threshold import FEW, false_alarms, own_threshold, parse_threshold

FOUND = 0.8  # share of a kind of damage that is found; from there on it is good enough to try


def verdict(saved: dict, before: float | None = None, verbose: bool = False) -> str:
    """Lines about a checkpoint that was just written: what it finds, and what to do next.

    before: its AUROC in its epoch, None for what is not trained in epochs.
    """
    known, config = saved["calibration"], saved["config"]
    name, normal, auroc = config["category"], np.asarray(known["scores"]), aurocs(known)["auroc"]
    lines = [f"calibration {load_calibration(known).describe()}"] if verbose else []
    if None not in (before, auroc) and abs(auroc - before) > standard_error(before, len(normal)):
        lines.append(changed(before, auroc, config["args"], known["scoring"]))
    cut = own_threshold(known, parse_threshold(DEFAULT_RULE))
    shares = {kind: np.mean([score > cut for score, own in zip(known["positives"], known["kinds"])
                             if own == kind]) for kind in dict.fromkeys(known["kinds"])}
    epoch = "" if before is None else f"best epoch {saved['epoch']}; "
    if "labelled" in shares:
        lines.append(f"{epoch}finds {shares['labelled']:.0%} of the anomalous validation images, "
                     f"AUROC {auroc:.3f}")
    elif shares:
        lines.append(f"{epoch}finds " + ", ".join(
            f"{share:.0%} of {kind}" for kind, share in shares.items())
            + f" pasted damage, AUROC {auroc:.3f}")
    bound = false_alarms(int((normal > cut).sum()), len(normal))[1]
    lines.append(f"at most {bound:.0%} false alarms (by {len(normal)} normal images); "
                 + advice(shares, len(normal), len(config["train"]), config["args"]["model"]))
    return "\n".join(f"{name}: {line}" for line in lines)


def changed(before: float, after: float, asked: dict, scoring: dict) -> str:
    """Why the AUROC of best.pt is another than its epoch had. asked: arguments of the run."""
    looks = ", ".join(f"windows of {w} pixels" if w else "as a whole" for w in scoring["windows"])
    looks += f", flipped {2 ** len(scoring['flips'])} ways" if scoring["flips"] else ""
    return (f"the AUROC was {before:.3f} in its epoch and is {after:.3f} now: epochs are judged by "
            f"images shrunk to {asked['crop'] or asked['long_side'][1]} pixels, best.pt by images "
            f"as infer.py scores them ({looks}; --windows, --window-input)"
            + ("" if asked["error"] == scoring["error"] else
               ", here without the memory of features"))


def advice(shares: dict, judged: int, taught: int, model: str) -> str:
    """What to do next. judged, taught: numbers of normal images that judged, and that taught."""
    if judged < FEW <= taught and model != "patchcore":
        return "few judge: --val-fraction 0.3"
    if judged < FEW:
        return "few: more photographs of good parts help most"
    if all(share >= FOUND for share in shares.values()):
        return "good enough to try"
    if model == "patchcore":
        return "finer damage: add --model unet, which votes"
    return "more epochs, or add --model patchcore, which votes"
