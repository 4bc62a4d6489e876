"""Score images with trained runs: metrics, scores.csv, heat maps.

    python infer.py --all --topk 0.005               # every trained category of data/mvtec_ad
    python infer.py --category carpet --maps         # one category, with heat-map PNGs
    python infer.py --category carpet --image a.png  # single files
    python infer.py --data FLAT --all --spot-check 1512 832    # a flat folder; a look at two images
    python infer.py --category capsule --separately --masks    # every run alone, defect masks
    torchrun --nproc-per-node 4 infer.py --all       # on 4 GPUs
    python infer.py --category carpet --export carpet.pt2      # a program that needs only torch

Reads runs/<category>/*/best.pt (several runs of a category vote), writes results/scores.csv,
metrics.json, histograms.png and, with --maps and --masks, maps/ and masks/<category>/<id>.png. For
a flat folder also submission.csv: id,prediction.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.profiler import record_function

from ad import categories, checkpoint, data, distributed, layouts, metrics, plots
from ad.arguments import add_data_arguments, add_scoring_arguments
from ad.cli import Parser, require, run_script, select_device, select_precision
from ad.ensemble import CHUNK, load_members, localise, score_samples
from ad.export import export
from ad.jobs import find_jobs, samples_to_score
from ad.runs import run_files
from ad.seed import environment
from ad.submission import check_submission, sample_order, submission, write_rows
from ad.threshold import decide_threshold, parse_threshold

STAGES = ("decode", "cut", "model", "merge", "combine", "smooth", "write")


def build_parser():
    parser = Parser(__doc__)
    group = add_data_arguments(parser)
    group.add_argument("--category", help="the category to score")
    group.add_argument("--pool", dest="category", action="store_const", const=layouts.POOL,
                       help="score all images with the run of train.py --pool")
    group.add_argument("--merge-categories", nargs="+", metavar="NAME", help="compare the run of "
                       "train.py --merge-categories with the categories' own runs")
    group.add_argument("--all", action="store_true", help="score every category that has a run")
    group.add_argument("--image", nargs="+", type=Path, metavar="FILE",
                       help="score these files with the runs of --category")
    group = parser.add_argument_group("model")
    group.add_argument("--members", nargs="+", metavar="RUN",
                       help="names of the category's runs that vote (default: all)")
    group.add_argument("--ckpt", default="best.pt", metavar="FILE",
                       help="which checkpoint of each run (default: best.pt)")
    group.add_argument("--separately", action="store_true", help="no vote: score with every run "
                       "alone, which visualize.py --compare wants")
    add_scoring_arguments(parser, trained=True)
    parser.add_argument("--threshold", default="quantile:0.99", metavar="RULE",
                        help="of the prediction: quantile:Q of the validation normals' scores, a "
                        "number, or, from normal and anomalous (or pseudo-anomalous) validation "
                        "images, midpoint, best-accuracy, best-f1 (default: quantile:0.99)")
    group = parser.add_argument_group("output")
    group.add_argument("--results", type=Path, default=Path("results"), metavar="DIR",
                       help="folder to write into (default: results)")
    group.add_argument("--maps", action="store_true", help="write heat-map PNGs, too")
    group.add_argument("--masks", nargs="?", type=float, const=0.995, metavar="Q", help="write "
                       "predicted defect masks, too: pixels above this quantile of those of normal "
                       "validation images (default: 0.995)")
    group.add_argument("--binary", action="store_true", help="submission.csv gets 0 and 1, not "
                       "scores")
    group.add_argument("--like", type=Path, metavar="FILE", help="write submission.csv with the "
                       "header, the ids and the order of this sample")
    group.add_argument("--check-submission", type=Path, metavar="FILE", help="compare ids, order, "
                       "header and count of submission.csv with this sample")
    group.add_argument("--spot-check", nargs="+", default=[], metavar="ID", help="print scores and "
                       "ranks of these test images, and write their pictures")
    group.add_argument("--export", type=Path, metavar="FILE", help="only write the run of "
                       "--category as a torch.export program: float images (N, 3, H, W) in [0, 1] "
                       "-> anomaly maps (N, 1, H, W), scores (N,)")
    group.add_argument("--profile", action="store_true", help="only time the stages on a few images"
                       " of --category, one scale at a time, then all")
    return parser


def parse_args():
    args = build_parser().parse_args()
    require((args.category is not None) + args.all + bool(args.merge_categories) == 1,
            "give --category NAME, --all, --pool or --merge-categories, one of them")
    require(args.category or not (args.image or args.profile or args.export),
            "--image, --profile, --export: give --category")
    require(not (args.separately and args.merge_categories), "--separately compares single runs, "
            "--merge-categories votes; give one of them")
    require(args.window_batch > 0, f"--window-batch must be positive, got {args.window_batch}")
    require(args.masks is None or 0 < args.masks < 1,
            f"--masks must be in (0, 1), got {args.masks}")
    parse_threshold(args.threshold)
    return args


def score_job(job, root, args, device):
    """Score the test images of a Job: (rows of scores.csv, raw scores, pictures of --spot-check,
    its entry in metrics.json)."""
    samples, members = job.samples, load_members(job.folder, job.members, args, device)
    for member in members:
        trained = member["config"].get("moved", member["config"]["root"])
        if trained != str(root.resolve()):
            print(f"note: {job.folder}/{member['name']} was trained on {trained}")
    config = members[0]["config"]
    data.report_copies([s.path for s in samples], run_files(config, "train")
                       + run_files(config, "validation"), "test")
    bare = sum(s.label == 1 and s.mask is None for s in samples)
    if bare and any(s.mask for s in samples):
        print(f"note: {job.name}: {bare} anomalous images have no mask; the figures of pixels "
              "leave them out")
    start = time.perf_counter()
    (scores, raw), maps, masks, shown = score_samples(members, samples, args, device)
    seconds = time.perf_counter() - start
    labels = np.array([sample.label for sample in samples])
    threshold = decide_threshold(members, args.threshold)
    predictions = (scores > threshold).astype(int)
    result = metrics.known_metrics(labels, scores, predictions)
    has_masks = any(mask.any() for mask in masks) and localise(members)
    result |= {"pixel_auroc": metrics.pixel_auroc(masks, maps) if has_masks else None,
               "pro": metrics.pro(masks, maps) if has_masks else None,
               "images": len(samples), "anomalous": int((labels == 1).sum()),
               "threshold": threshold, "seconds": seconds,
               "members": {member["name"]: member["weight"] for member in members},
               "scoring": members[0]["calibration"]["scoring"]}
    rows = [(s.id, s.category, s.defect, s.label, f"{score:.6f}", prediction, s.path.as_posix())
            for s, score, prediction in zip(samples, scores, predictions)]
    return rows, raw, shown, result


def score_files(args, device):
    """Print score, prediction and path of single files."""
    members = load_members(args.category, args.members, args, device)
    samples = [layouts.Sample(path, args.category, "test", "image", -1, None)
               for path in args.image]
    threshold = decide_threshold(members, args.threshold)
    (scores, _), _, _, _ = score_samples(members, samples, args, device)
    print(f"score (threshold {threshold:.3f})  prediction  path")
    for sample, score in zip(samples, scores):
        print(f"{score:.6f}  {'anomalous' if score > threshold else 'normal'}  {sample.path}")


def profile(root, table, args, device):
    """Print seconds per stage for CHUNK test images: each window size alone, then all of them."""
    member = load_members(args.category, args.members, args, device)[0]
    member["weight"] = 1.0
    samples = layouts.find_samples(root, args.category, "test", table)[:CHUNK]
    calibration = member["calibration"]
    windows = calibration["scoring"]["windows"]
    print(f"{'seconds for ' + str(len(samples)) + ' images':<24}"
          + "".join(f"{stage:>10}" for stage in (*STAGES, "total")))
    for some in [*((w,) for w in windows), windows]:
        scoring = calibration["scoring"] | {"windows": some}
        member["calibration"] = calibration | {"scoring": scoring}
        with tempfile.TemporaryDirectory() as scratch:
            args.maps, args.masks, args.results = True, None, Path(scratch)
            score_samples([member], samples[:2], args, device)  # warm up
            with torch.profiler.profile() as profiler, record_function("total"):
                score_samples([member], samples, args, device)
        times = {e.key: e.cpu_time_total / 1e6 for e in profiler.key_averages()}
        print(f"{'windows ' + ' '.join(map(str, some)):<24}"
              + "".join(f"{times.get(stage, 0):>10.4f}" for stage in (*STAGES, "total")))


def spot_check(rows, shown, args):
    """Print score, prediction and rank of the images of --spot-check; write spot_check.png."""
    ranked = sorted(rows, key=lambda row: -float(row[4]))
    chosen = [(rank, row) for rank, row in enumerate(ranked, start=1) if row[0] in shown]
    print(f"id  category  score  prediction  rank of {len(rows)}, 1 the strangest")
    for rank, row in chosen:
        print(f"{row[0]}  {row[1]}  {row[4]}  {row[5]}  {rank}")
    titles = [f"{row[0]}, {row[1]}\n{float(row[4]):.2f}, rank {rank}" for rank, row in chosen]
    plots.save_grid(args.results / "spot_check.png", [shown[row[0]] for _, row in chosen],
                    ("image", "anomaly map"), titles)


def write_results(rows, results, extra, flat, args, device):
    """scores.csv, metrics.json and, for a flat folder, submission.csv."""
    header = "id", "category", "defect", "label", "score", "prediction", "path"
    files = {"scores.csv": write_rows([header, *rows]), "metrics.json": json.dumps(
        {"categories": results, **extra, "command": sys.argv,
         "environment": environment(device)}, indent=2) + "\n"}
    if flat:
        files["submission.csv"] = submission(
            {row[0]: int(row[5]) if args.binary else float(row[4]) for row in rows},
            args.like and sample_order(args.like, {row[0]: Path(row[6]).name for row in rows}))
    for name, content in files.items():
        checkpoint.write_atomic(args.results / name, content)
    print("wrote " + ", ".join(str(args.results / name) for name in (*files, "histograms.png"))
          + "".join(f", {args.results / part}/" for part in ("maps", "masks") if vars(args)[part]))
    if flat and args.check_submission:
        check_submission(files["submission.csv"], args.check_submission)
        print(f"submission.csv has the header, ids and order of {args.check_submission}")


def main():
    args = distributed.from_rank_0(parse_args)
    device = select_device(args.device, args.deterministic)
    args.precision = select_precision(args.precision, device)
    if args.image:
        return score_files(args, device)
    if args.export:
        members = load_members(args.category, args.members, args, device)
        require(len(members) == 1, f"--export is of one run; choose with --members one of "
                f"{', '.join(member['name'] for member in members)}")
        print(export(members[0], args.export, device))
        return decide_threshold(members, args.threshold)
    root = distributed.from_rank_0(lambda: layouts.resolve_data(args.data))
    table = distributed.from_rank_0(lambda: categories.full_table(root, Path(args.runs)))
    if args.profile:
        return profile(root, table, args, device)
    rows, raw, shown, results = [], [], {}, {}
    for job in distributed.from_rank_0(
            lambda: find_jobs(root, samples_to_score(root, table, args), args)):
        more = score_job(job, root, args, device)
        rows, raw, shown = rows + more[0], raw + more[1].tolist(), shown | more[2]
        results[job.name] = more[3]
    if distributed.rank():
        return
    if args.merge_categories:
        extra = metrics.merged_averages(results)
    elif args.separately:
        extra = {}
    else:
        extra = metrics.averages(results) | metrics.pooled(
            *(np.array([float(row[i]) for row in rows]) for i in (3, 4, 5)), np.array(raw))
    print(metrics.table(results | extra))
    groups = {name: [row for row in rows if name in (row[1], layouts.POOL)] for name in results}
    plots.save_histograms(args.results / "histograms.png", {
        name: (np.array([row[3] for row in part]), np.array([float(row[4]) for row in part]),
               results[name]["threshold"]) for name, part in groups.items()})
    if args.spot_check:
        spot_check(rows, shown, args)
    write_results(rows, results, extra, table is not None, args, device)


if __name__ == "__main__":
    run_script(main)
