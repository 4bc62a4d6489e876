"""What scoring costs: images/s and peak memory for scales, members, image sides, numbers of images.

    python benchmarks/inference.py

Every case scores generated PNG files in a process of its own, from file to score, with the code of
infer.py and the default U-Net (random weights cost as much as trained ones): "one scale" is the
default, whole images at 256 px with the memory; "three scales" are windows of 128, 256
and 512 px, each enlarged or shrunk to 256 px; "three members" vote at one scale. The last cases are
a small network on many small grey files without masks. Then, in one process, decoding while the
network computes against decoding first. Writes results/inference.json and
docs/figures/bench_inference.png.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timing import FIGURES, alone, alternate, arguments, report

from ad.sets import other_layouts
from ad.pictures import plots
from ad.config import Scoring
from ad.detector import CHUNK, Detector, Member
from ad.fitting import remember
from ad.images import load_images
from ad.judging import calibrate
from ad.machine import choose_machine
from ad.model import build_model

KINDS = {"one scale": (Scoring(windows=(0,), error="fused"), 1),
         "three scales": (Scoring(error="both"), 1),
         "three members": (Scoring(windows=(0,), error="fused"), 3)}
SIDES, COUNTS = (256, 512, 1024), (500, 1000, 2500, 5000)


def write_images(folder, count, side, grey=False):
    """`count` PNG files of noisy stripes, or of grey noise."""
    rng = np.random.default_rng(0)
    (folder / "test").mkdir(parents=True)
    for i in range(count):
        noise = rng.normal(0, 6, (side, side) if grey else (side, side, 3))
        if not grey:
            noise += 60 * np.sin((np.arange(side) + rng.uniform(0, 9)) / 9)[None, :, None]
        Image.fromarray((110 + noise).clip(0, 255).astype(np.uint8)).save(
            folder / "test" / f"{i:04}.png")
    return other_layouts.flat_files(folder, "test")


def make_detector(samples, scoring, count, image_size, small):
    """A Detector of `count` members with random weights, which all have the same vote."""
    normals, machine = load_images(samples[:2], image_size), choose_machine("cpu")
    config, members = {"image_size": image_size, "validation": ["0", "1"]}, []
    for seed in range(count):
        torch.manual_seed(seed)
        model = build_model("unet", **{"width": 4, "depth": 2} if small else {"patch": 4})
        model = model.to(memory_format=torch.channels_last).eval()
        if not small:
            model.memory = remember(model, normals, 256, machine.device, seed)
        saved = calibrate(model, normals, scoring, machine.device)
        members.append(Member(str(seed), model, config, saved))
    return Detector(members, machine)


def score(detector, samples):
    for _ in detector.score_samples(samples):
        pass


def run_case(kind, side, count):
    """Print one case's JSON: be the process that is measured."""
    small = kind == "many images"
    scoring, members = KINDS.get(kind, (Scoring(windows=(0,), window_input=0, error="both"), 1))
    with tempfile.TemporaryDirectory() as folder:
        samples = write_images(Path(folder), count, side, grey=small)
        detector = make_detector(samples, scoring, members, side, small)
        start = time.perf_counter()
        score(detector, samples)
        seconds = time.perf_counter() - start
    print(json.dumps({"images": count, "side": side, "seconds": seconds / count, "ratio": 1.0,
                      "images_per_s": count / seconds}))


def case(kind, side, count, args):
    """run_case in a fresh process: its row; count: of --scale 1."""
    count = max(2, round(args.scale * count))
    row = alone("--case", kind, side, count, "--threads", args.threads)
    print(f"{kind}, {count} images of {side} px: {row['images_per_s']:.1f} images/s, peak "
          f"{row['peak_mib']:.0f} MiB", flush=True)
    return row


def overlap(args):
    """Our decoding of the next images while the network computes, against one after the other."""
    def one_after_another():
        for start in range(0, len(samples), CHUNK):
            detector.score_read({way: load_images(samples[start:start + CHUNK], *way)
                                 for way in detector.readings})
    with tempfile.TemporaryDirectory() as folder:
        samples = write_images(Path(folder), 64, 1024)
        detector = make_detector(samples, KINDS["one scale"][0], 1, 512, False)
        rows = alternate({"ours": lambda: score(detector, samples),
                          "decode first": one_after_another}, args.runs)
    for row in rows.values():
        row["images_per_s"] = len(samples) / row["seconds"]
    return rows


def draw(results, path):
    """Images/s and peak memory against the image's side, and memory against number of images."""
    figure, axes = plots.plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    for (kind, rows), colour in zip(((k, results[k]) for k in KINDS), plots.COLOURS):
        for axis, value in zip(axes, ("images_per_s", "peak_mib")):
            axis.plot([r["side"] for r in rows.values()], [r[value] for r in rows.values()], "o-",
                      color=colour, label=kind)
    many = list(results["many images"].values())
    axes[2].plot([r["images"] for r in many], [r["peak_mib"] for r in many], "o-",
                 color=plots.COLOURS[3])
    axes[0].set(title="speed, from file to score", xlabel="side of the images, px",
                ylabel="images/s", yscale="log", xticks=SIDES)
    axes[1].set(title="peak memory of the process", xlabel="side of the images, px",
                ylabel="MiB", ylim=(0, None), xticks=SIDES)
    axes[2].set(title="peak memory, files of 128 px", xlabel="images scored", ylabel="MiB",
                ylim=(0, 1.3 * max(r["peak_mib"] for r in many)))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=3,
                  fontsize=8)
    for axis in axes:
        axis.grid(alpha=0.3)
    plots.save_figure(path, figure)


def main():
    args = arguments(__doc__, lambda add: (
        add("--scale", type=float, default=1.0, help="share of the images, to try it out"),
        add("--case", nargs=3, help=argparse.SUPPRESS)))
    if args.case:
        return run_case(args.case[0], *map(int, args.case[1:]))
    # At three scales an image of 1024 px has 289 windows.
    results = {kind: {f"{side} px": case(kind, side, (
        32 if kind != "three scales" or side == 256 else 16 if side == 512 else 8), args)
        for side in SIDES} for kind in KINDS}
    results["many images"] = {f"{count} images": case("many images", 128, count, args)
                              for count in COUNTS}
    results["decoding, 1024 px files"] = overlap(args)
    report(args, "inference", results, ("pillow",))
    draw(results, FIGURES / "bench_inference.png")


if __name__ == "__main__":
    main()
