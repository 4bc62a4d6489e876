"""Is what a memory was shown as normal normal? Promises beside what is seen, and AUROC.

    python benchmarks/normals.py --data DIR...          # DIR: folders in MVTec AD layout
    python benchmarks/normals.py --table                # the table of what is recorded

Trains and scores both memories, `train.py --model patchcore` as it is and with --backbone
efficientnet_lite0: on four categories of the demo, SEEDS data sets of each, and on every category
of the folders, one seed; the floor is plain_patchcore.py. Every row is kept in
benchmarks/results/normals.json as soon as it is there, and not made again.

called: share of the training images called anomalous. promised, bound: false alarms expected at the
default threshold, and the bound that holds 9 times in 10; seen: those of test/good. recall: of the
defective images at that threshold; best: at the lowest threshold with no more false alarms. mask:
share of the pixels of good test images above the threshold of --masks, nominally 0.5 %. fair: the
pseudo-anomaly AUROC with the normal images themselves as positives, 0.5 if it is fair.
"""

import contextlib
import csv
import io
import json
import runpy
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import run_tables
import torch
from PIL import Image
from plain_patchcore import plain_patchcore
from quality import best_recall
from timing import PROJECT, RESULTS, markdown, parser_of, record

from ad import checkpoint, layouts
from ad.config import Scoring
from ad.images import load_images
from ad.judging import Examples, aurocs, judge
from ad.machine import Machine
from ad.metrics import auroc
from ad.runs import run_images
from ad.sets.demo import CATEGORIES, write_demo
from ad.sets.rejudge import judged_maps

RECORDS = RESULTS / "normals.json"
BACKBONES = ("gradients", "efficientnet_lite0")
SEEDS = 6


def run(script, *options):
    """Run a script in this process, which has imported everything already; prints nothing."""
    # The own words of the command are recorded with every row.
    with mock.patch.object(sys, "argv", [script, *map(str, options)]), \
            contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
        try:
            runpy.run_path(str(PROJECT / script), run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise


def results(folder):
    """(metrics.json's only entry, rows of scores.csv) that infer.py left."""
    found, = json.loads((folder / "metrics.json").read_text())["categories"].values()
    return found, list(csv.DictReader((folder / "scores.csv").open()))


def fair_auroc(saved, category):
    """The memory of best.pt fitted again, and its normal images judged as if they were damaged."""
    config = saved["config"]
    normals = run_images(config, "validation")
    examples = Examples(normals, normals, range(len(normals)), ["normal"] * len(normals))
    model, seed = checkpoint.restore_model(saved, category), config["args"]["seed"]
    scoring, machine = Scoring(**saved["calibration"]["scoring"]), Machine(torch.device("cpu"))
    maps = judged_maps(model, [], examples, scoring, machine, seed)
    return aurocs(judge(*maps, examples, scoring))["auroc"]


def measure(root, category, backbone, seed, folder):
    """One row of the table."""
    options = ("--data", root, "--category", category, "--runs", folder / "runs")
    start = time.perf_counter()
    run("train.py", *options, "--model", "patchcore", "--backbone", backbone, "--seed", seed)
    trained = time.perf_counter()
    run("infer.py", *options, "--results", folder, "--masks")
    scored = time.perf_counter()
    training = [s.path for s in layouts.find_samples(root, category, "train")]
    run("infer.py", *options, "--results", folder / "training", "--image", *training)
    called = sum(row["prediction"] == "1" for row in results(folder / "training")[1])
    found, rows = results(folder)
    masks = [np.asarray(Image.open(folder / "masks" / category / f"{row['id']}.png").convert("L"))
             for row in rows if row["label"] == "0"]
    saved = checkpoint.load(folder / f"runs/{category}/patchcore-seed{seed}/best.pt")
    row = {key: found[key] for key in ("auroc", "pixel_auroc", "pro")} | {
        "pseudo": saved["val_auroc"], "called": called / len(training),
        "promised": found["limits"]["expected"], "bound": found["limits"]["bound"],
        "seen": 1 - found["tnr"], "good": len(masks), "recall": found["tpr"],
        "best": best_recall(rows),
        "mask": float(np.mean([mask > 127 for mask in masks])),
        "train, s": trained - start, "infer, s": scored - trained}
    if seed == 0:
        row["fair"] = fair_auroc(saved, category)
    if backbone != "gradients":
        images = [load_images(layouts.find_samples(root, category, split), 512)
                  for split in ("train", "test")]
        row["plain"] = auroc([int(r["label"]) for r in rows], plain_patchcore(*images, seed))
    return row


def table():
    """What is recorded, as Markdown, and a sentence about all of it."""
    records = read()["rows"]
    demo = [row for key, row in records.items() if key.startswith("demo")]
    ratio = np.mean([row["mask"] for row in demo]) / 0.005
    return markdown(run_tables.normals({})) + (
        f"\nOf {len(demo)} runs on the demo: {np.mean([r['seen'] for r in demo]):.3f} false alarms "
        f"seen where {np.mean([r['promised'] for r in demo]):.3f} were promised; masks on good test"
        f" images {ratio:.2f} of the nominal share; training images called anomalous in all "
        f"{len(records)} runs: {np.mean([r['called'] for r in records.values()]):.4f}.\n")


def main():
    parser = parser_of(__doc__)
    parser.add_argument("--data", nargs="*", type=Path, default=[], metavar="DIR")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="demo sets (default: %(default)s)")
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("I", "N"),
                        help="make every N-th row only, from the I-th on, beside other processes")
    parser.add_argument("--table", action="store_true", help="print what is recorded, run nothing")
    args = parser.parse_args()
    jobs = [] if args.table else [
        *((f"demo {c}", None, c, seed) for seed in range(args.seeds) for c in CATEGORIES),
        *((c, root, c, 0) for root in args.data for c in layouts.find_categories(root))]
    jobs = [(*job, backbone) for job in jobs for backbone in BACKBONES][args.part[0]::args.part[1]]
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, root, category, seed, backbone) in enumerate(jobs):
            key = f"{name}|{backbone}|{seed}"
            if key in read()["rows"]:
                continue
            print(key, flush=True)
            folder = Path(scratch) / str(number)
            row = measure(root or write_demo(Path(scratch) / f"demo{seed}", seed), category,
                          backbone, seed, folder)
            record(RECORDS, rows=read()["rows"] | {key: row | {"date": time.strftime("%Y-%m-%d")}})
    print(table())


def read():
    """The rows so far."""
    return json.loads(RECORDS.read_text()) if RECORDS.is_file() else {"rows": {}}


if __name__ == "__main__":
    main()
