"""What scoring costs: images/s and peak memory for scales, members, image sides, numbers of images.

    python benchmarks/inference.py

Every case scores generated PNG files in a process of its own, from file to score, with the code of
infer.py and the default U-Net (random weights cost as much as trained ones): "one scale" is the
default, whole images at 256 px with the memory of places; "three scales" are windows of 128, 256
and 512 px, each enlarged or shrunk to 256 px; "three members" vote at one scale. The last cases are
a small network on many small grey files without masks. Then, in one process, decoding while the
network computes against decoding first. Writes results/inference.json and
docs/figures/bench_inference.png.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timing import PROJECT, alternate, arguments, report

from ad import ensemble, layouts, plots
from ad.cli import autocast, select_precision
from ad.judging import calibrate
from ad.model import build_model
from ad.fitting import new_places
from ad.images import load_images
from ad.scoring import Scoring

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
    return layouts.flat_files(folder, "test")


def make_members(samples, scoring, count, image_size, small, args):
    """Members as ensemble.load_member gives them, with random weights."""
    normals, device = load_images(samples[:2], image_size), torch.device("cpu")
    members = []
    for seed in range(count):
        torch.manual_seed(seed)
        model = build_model("unet", **{"width": 4, "depth": 2} if small else {"patch": 4})
        model = model.to(memory_format=torch.channels_last).eval()
        if not small:
            with autocast(device, args.precision):
                model.places = new_places(model, normals, 256, device, seed)
        with autocast(device, args.precision):
            saved = calibrate(model, normals, scoring, device)
        members.append({"name": str(seed), "model": model, "weight": 1 / count,
                        "config": {"image_size": image_size}, "calibration": saved,
                        "normal": np.asarray(saved["scores"])})
    return members


def setting(threads):
    torch.set_num_threads(threads)
    return Namespace(precision=select_precision("auto", torch.device("cpu")), window_batch=16,
                     maps=False, masks=None, spot_check=[])


def run_case(kind, side, count, threads):
    """Print one case's JSON: be the process that is measured."""
    args, small = setting(threads), kind == "many images"
    scoring, members = KINDS.get(kind, (Scoring(windows=(0,), window_input=0, error="both"), 1))
    with tempfile.TemporaryDirectory() as folder:
        samples = write_images(Path(folder), count, side, grey=small)
        members = make_members(samples, scoring, members, side, small, args)
        start = time.perf_counter()
        ensemble.score_samples(members, samples, args, torch.device("cpu"))
        seconds = time.perf_counter() - start
    print(json.dumps({"images": count, "side": side, "seconds": seconds / count, "ratio": 1.0,
                      "images_per_s": count / seconds,
                      "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def measure(kind, side, count, args):
    """run_case in a fresh process: its dict."""
    done = subprocess.run([sys.executable, __file__, "--case", kind, str(side), str(count),
                           "--threads", str(args.threads)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    row = json.loads(done.stdout.splitlines()[-1])
    print(f"{kind}, {count} images of {side} px: {row['images_per_s']:.1f} images/s, peak "
          f"{row['peak_mib']:.0f} MiB", flush=True)
    return row


def overlap(args):
    """Our decoding of the next images while the network computes, against one after the other."""
    options, ours = setting(args.threads), ensemble.decoded

    def one_after_another(chunks, ways):
        for chunk in chunks:
            yield chunk, {way: load_images(chunk, *way) for way in ways}

    def score(decoded):
        ensemble.decoded = decoded
        ensemble.score_samples(members, samples, options, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        samples = write_images(Path(folder), 64, 1024)
        members = make_members(samples, KINDS["one scale"][0], 1, 512, False, options)
        rows = alternate({"ours": lambda: score(ours),
                          "decode first": lambda: score(one_after_another)}, args.runs)
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
    if sys.argv[1:2] == ["--case"]:
        return run_case(sys.argv[2], *map(int, (sys.argv[3], sys.argv[4], sys.argv[6])))
    args = arguments(__doc__, lambda add: add(
        "--scale", type=float, default=1.0, help="share of the images, to try it out"))

    def number(count):
        return max(2, round(args.scale * count))
    # At three scales an image of 1024 px has 289 windows.
    results = {kind: {f"{side} px": measure(kind, side, number(
        32 if kind != "three scales" or side == 256 else 16 if side == 512 else 8), args)
        for side in SIDES} for kind in KINDS}
    results["many images"] = {f"{count} images": measure("many images", 128, number(count), args)
                              for count in COUNTS}
    results["decoding, 1024 px files"] = overlap(args)
    report(args, "inference", results, ("pillow",))
    draw(results, PROJECT / "docs/figures/bench_inference.png")


if __name__ == "__main__":
    main()
