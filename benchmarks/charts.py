"""The figures of README and REPORT, drawn from run folders and records: see make_report.py."""

import io
import re
import subprocess
import sys

import numpy as np
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from timing import FIGURES, PROJECT

from ad.pictures import compare
from ad.checkpoint import write_atomic
from ad.pictures.plots import COLOURS, plt, save_figure

LARGEST = 290_000  # bytes of a figure
EXAMPLE = "transistor/unet-seed0"  # whose test scores show what F1 depends on
SHARES = (0.02, 0.1, 0.4, 0.8)  # of anomalous images, that are shown
CHOSEN_AT = 0.4  # share of anomalous images for which a threshold is chosen and then kept

# figure: (checkpoint below --runs, what visualize.py writes, its options)
PICTURES = {
    "look_transistor_unet": ("transistor/unet-seed0/best.pt", "look", "--count 4 --seed 1"),
    "look_transistor_gradients": ("transistor/patchcore-seed0/best.pt", "look",
                                  "--ids bent_lead/007 misplaced/009 good/047"),
    "look_transistor_reconstruct": ("transistor/homework/last.pt", "look", "--count 4 --seed 1"),
    "look_transistor_collapsed": ("transistor/collapsed/last.pt", "look", "--count 2 --seed 1"),
    "vae_wells_latent": ("wells/vae-small/best.pt", "latent", "--count 2"),
    "classes_transistor": ("transistor-classes/lite0-pretrained/best.pt", "look",
                           "--count 4 --detector RUNS/transistor/patchcore-seed0/best.pt")}
CURVES = {"failure_curves": ("transistor/homework", "transistor/unet-seed0"),
          "vae_wells_curves": ("wells/vae-linear", "wells/vae-small", "wells/vae-big"),
          "classes_curves": ("transistor-classes/resnet", "transistor-classes/lite0-scratch",
                             "transistor-classes/lite0-pretrained",
                             "transistor-classes/lite0-frozen")}


def weights(labels, share):
    """Sample weights that make anomalous images so large a share, with the same scores."""
    return np.where(labels == 1, share / (labels == 1).sum(), (1 - share) / (labels == 0).sum())


def f1_curve(labels, scores, share):
    """(thresholds, F1 at each) of "score >= threshold is anomalous"."""
    precision, recall, thresholds = precision_recall_curve(
        labels, scores, sample_weight=weights(labels, share))
    return thresholds, (2 * precision * recall / np.maximum(precision + recall, 1e-12))[:-1]


def at_share(example, share):
    """What the metrics of one detector would be at another share of anomalous images."""
    labels, scores = (np.asarray(example[k]) for k in ("labels", "scores"))
    thresholds, f1 = f1_curve(labels, scores, share)
    known, own = f1_curve(labels, scores, CHOSEN_AT)
    kept, weight = known[own.argmax()], weights(labels, share)
    return {"best F1": f1.max(), "its threshold": thresholds[f1.argmax()],
            f"F1 at the threshold chosen on {CHOSEN_AT:.0%}": f1[
                np.searchsorted(thresholds, kept)],
            "AP": average_precision_score(labels, scores, sample_weight=weight),
            "AUROC": roc_auc_score(labels, scores, sample_weight=weight)}


def draw_f1(example):
    """F1 against the threshold, and every metric against the share of anomalous images."""
    labels, scores = (np.asarray(example[k]) for k in ("labels", "scores"))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
    for share, colour in zip(SHARES, COLOURS):
        left.plot(*f1_curve(labels, scores, share), color=colour, label=f"{share:.0%} anomalous")
    left.set(xlabel="threshold of the score", ylabel="F1, AP, AUROC", ylim=(0, 1.02),
             title="F1 against the threshold")
    shares = np.linspace(0.01, 0.9, 60)
    found = [at_share(example, share) for share in shares]
    for (kind, colour) in zip((k for k in found[0] if k != "its threshold"), COLOURS):
        right.plot(shares, [f[kind] for f in found], color=colour, label=kind)
    right.set(xlabel="share of anomalous images", title="the same scores, another class ratio")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    save_figure(FIGURES / "f1_and_auc.png", figure)


def save_small(path, picture):
    """Write a picture in 256 colours, as wide as it may be to stay below LARGEST bytes."""
    width, content = picture.width, bytes(LARGEST + 1)
    while len(content) > LARGEST:
        buffer, height = io.BytesIO(), round(picture.height * width / picture.width)
        picture.resize((width, height), Image.Resampling.LANCZOS).quantize(256).save(
            buffer, "PNG", optimize=True)
        content, width = buffer.getvalue(), round(0.9 * width)
    write_atomic(path, content)


def draw(records, runs, results):
    """Draw every figure whose runs are there; says which are not. records gets "collapse"."""
    if "example" in records:
        draw_f1(records["example"])
    for name, folders in CURVES.items():
        if all((runs / f / "best.pt").exists() for f in folders):
            compare.save_curves(FIGURES / f"{name}.png", [
                compare.load_run(runs / f, results) for f in folders])
        else:
            print(f"not drawn, as a run is missing: {name}.png of {', '.join(folders)}")
    for name, (file, kind, options) in PICTURES.items():
        if not (runs / file).exists():
            print(f"not drawn, as a run is missing: {name}.png of {file}")
            continue
        shown = subprocess.run([
            sys.executable, PROJECT / "visualize.py", "--ckpt", str(runs / file), "--results",
            str(results / "look"), *options.replace("RUNS", str(runs)).split()],
            check=True, stdout=subprocess.PIPE, text=True).stdout
        folder, run, checkpoint = file.removesuffix(".pt").split("/")
        numbers = dict(re.findall(
            r"^(contrast|variety|sharpness|trace|copied) +(-?[\d.]+)", shown, re.M))
        if numbers and folder == "transistor":
            verdict, = re.findall(r"^verdict: (.*)", shown, re.M)
            records.setdefault("collapse", {})[f"{folder}/{run}"] = numbers | {"verdict": verdict}
        category = folder.removesuffix("-classes")
        with Image.open(results / "look" / f"{kind}_{category}_{run}_{checkpoint}.png") as picture:
            save_small(FIGURES / f"{name}.png", picture.convert("RGB"))
