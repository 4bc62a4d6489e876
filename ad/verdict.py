"""What a run is worth, and what to do next, in plain sentences."""

import numpy as np

from ad.cli import command
from ad.config import DEFAULT_RULE
from ad.judging import aurocs
from ad.scoring import load_calibration
from ad.threshold import FEW, false_alarms, parse_threshold
from ad.vote import standard_error

FOUND = 0.8  # share of a kind of damage that is found; from there on it is good enough to try


def verdict(saved, path, before=None, verbose=False):
    """Lines about the checkpoint `saved`, written to `path`: what it finds, and what to do next.

    before: its AUROC in its epoch, None for what is not trained in epochs.
    """
    known, config = saved["calibration"], saved["config"]
    name, normal, auroc = config["category"], np.asarray(known["scores"]), aurocs(known)["auroc"]
    lines = [f"calibration {load_calibration(known).describe()}"] if verbose else []
    if None not in (before, auroc) and abs(auroc - before) > standard_error(before, len(normal)):
        lines.append(changed(before, auroc, config, known["scoring"]))
    cut = parse_threshold(DEFAULT_RULE)(normal)
    shares = {kind: np.mean([score > cut for score, own in zip(known["positives"], known["kinds"])
                             if own == kind]) for kind in dict.fromkeys(known["kinds"])}
    epoch = f"epoch {saved['epoch']} is the best; " if before is not None else ""
    if "labelled" in shares:
        lines.append(f"{epoch}it finds {shares['labelled']:.0%} of the anomalous validation images "
                     f"(AUROC {auroc:.3f})")
    elif shares:
        lines.append(f"{epoch}of damage pasted into normal images it finds " + ", ".join(
            f"{share:.0%} of the {kind}" for kind, share in shares.items())
            + f" (AUROC {auroc:.3f}); real defects may be harder")
    bound = false_alarms(int((normal > cut).sum()), len(normal))[1]
    lines.append(f"{len(normal)} normal images judged: at most {bound:.0%} false alarms, 90 % sure; "
                 + advice(shares, len(normal), config, path))
    return "\n".join(f"{name}: {line}" for line in lines)


def changed(before, after, config, scoring):
    """Why the AUROC of best.pt is another than its epoch had."""
    looks = ", ".join(f"windows of {w} pixels" if w else "as a whole" for w in scoring["windows"])
    asked = config["args"]
    return (f"the AUROC was {before:.3f} in its epoch and is {after:.3f} now: epochs are judged by "
            f"images shrunk to {asked['crop'] or asked['long_side'][1]} pixels, best.pt by images "
            f"as infer.py scores them ({looks}; --windows, --window-input)"
            + ("" if asked["error"] == scoring["error"] else
               ", here without the memory of features"))


def advice(shares, count, config, path):
    """What to do next."""
    weak, model = [k for k, share in shares.items() if share < FOUND], config["args"]["model"]
    look = "to look at it: " + command("visualize.py", None, "runs", "--ckpt", path)
    if count < FEW:
        return f"that is few: more photographs of good parts would help most; {look}"
    if not weak:
        return f"good enough to try; {look}"
    if model == "patchcore":
        return f"for finer damage: --image-size 1024, or a vote with a U-Net; {look}"
    return f"more epochs, or a vote with --model patchcore (seconds), may find more; {look}"
