"""The figures of README and REPORT, drawn from run folders and records: see make_report.py."""

import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from timing import FIGURES, PROJECT

from ad.checkpoint import write_atomic
from ad.config import MEMORY
from ad.data import to_float
from ad.detector import Detector
from ad.sets.files import as_image
from ad.pictures import compare
from ad.pictures.plots import (COLOURS, ORANGE, heat, overlay, plt,
                               save_figure, to_picture)
from ad.scoring import combine, final_maps, load_calibration, raw_maps

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
CURVES = {"failure_curves": ("carpet/reconstruct", "carpet/unet-seed0"),
          "vae_wells_curves": ("wells/vae-linear", "wells/vae-small", "wells/vae-big"),
          "classes_curves": ("transistor-classes/resnet", "transistor-classes/lite0-scratch",
                             "transistor-classes/lite0-pretrained",
                             "transistor-classes/lite0-frozen")}


# The way of an image from file to score: the file of the program for each step, and what it does.
WAY = (("ad/images.py", "Read the file; shrink it to a long\nside of 512 pixels at most."),
       ("ad/sliding_window.py", "Cut windows, or take the whole\nimage, which is the default."),
       ("ad/model.py", "The U-Net repairs what it sees,\nand guesses where the damage is."),
       ("ad/errors.py", "How much does the repair differ\nfrom the image? 1 - SSIM per pixel."),
       ("ad/models/memory.py", "How far are the features of each\npatch from what is normal?"),
       ("ad/calibration.py", "How unusual is each map, compared\nwith those of normal images?"),
       ("ad/scoring.py", "Average the maps, smooth them, take\nthe mean of the highest 0.5 %."),
       ("ad/detector.py", "Let several runs vote. 0 is a typical\nscore, 1 the threshold. "))
WAY_OF = ("carpet/unet-seed0", "carpet/test/cut/004.png")  # run below --runs, image of the demo


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


@torch.no_grad()
def steps_of(detector, path):
    """Pictures of the steps of WAY for one image, uint8 (H, W, 3), and its score."""
    member, image = detector.members[0], as_image(path, *detector.readings[0])
    picture, values = to_picture(image), to_float(image, "cpu")[None]
    maps = raw_maps(member.model, values, member.scoring)
    calibration = load_calibration(member.calibration)
    near = combine({k: m for k, m in maps.items() if k.split("@")[0] in MEMORY})
    ours = [maps["ssim@0"], near, combine(calibration.apply(maps)),
            final_maps(maps, calibration, member.scoring)]
    cut, side = picture.copy(), picture.shape[0] // 2
    for start in (0, side // 2, side):
        edges = [*range(start, start + 3), *range(start + side - 3, start + side)]
        cut[start:start + side, edges] = cut[edges, start:start + side] = ORANGE
    scores, (final,) = detector.score([path])
    return [picture, cut, to_picture(member.model(values)[0]), *(
        heat((m[0] - m.median()).clamp_min(0), (m.max() - m.median()).item()) for m in ours),
        overlay(picture, torch.from_numpy(final)[None], detector.top_of_maps)], scores[0]


def draw_way(folder, path):
    """The way of the image `path` from file to score through the detector in `folder`."""
    pictures, score = steps_of(Detector.load(folder), path)
    figure = plt.figure(figsize=(6.6, 10.4))
    for row, (picture, (file, words)) in enumerate(zip(pictures, WAY)):
        top = 1 - row / len(WAY)
        axis = figure.add_axes((0.02, top - 0.119, 0.182, 0.115), xticks=[], yticks=[])
        axis.imshow(picture)
        last = f"Here: {score:.1f}." if row == len(WAY) - 1 else ""
        figure.text(0.24, top - 0.012, f"{row + 1}  {file}", size=17, weight="bold", va="top",
                    color=COLOURS[0])
        figure.text(0.24, top - 0.046, words + last, size=17, va="top", linespacing=1.15)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    save_small(FIGURES / "way_of_an_image.png", Image.open(buffer).convert("RGB"))


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
    if (runs / WAY_OF[0] / "best.pt").exists():
        draw_way(runs / WAY_OF[0], Path("data/demo") / WAY_OF[1])
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
