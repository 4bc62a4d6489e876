"""Score images with trained runs: verdicts, metrics, heat maps.

    python infer.py --all --topk 0.005               # every trained category of data/mvtec_ad
    python infer.py --category carpet --maps         # one category, with heat maps
    python infer.py --image photos/today             # new photographs: files, folders, "*.png"
    python infer.py --data FLAT --all --like sample_submission.csv    # a folder without categories
    python infer.py --category capsule --separately --masks    # every run alone, defect masks
    torchrun --nproc-per-node 4 infer.py --all       # on 4 GPUs
    python infer.py --category carpet --export carpet.pt2      # a program that needs only torch

Reads runs/<category>/*/best.pt (several runs of a category vote), writes results/scores.csv,
metrics.json and, with --maps, histograms.png and maps/<category>/<id>.png, with --masks masks/. For
a folder without categories also submission.csv. A score is 0 for a typical normal image and 1 at
the threshold: what is above 1 is anomalous.
"""

import json
import os
import sys
import time
from argparse import Namespace
from collections import namedtuple
from pathlib import Path

import ad
from ad.cli import Parser, require, run_script
from ad.config import DEFAULT_RULE, DEFECT
from ad.options.add import add_data_arguments, add_scoring_arguments
from ad.options.read import choice_from, given_scoring

FIRST = ("data", "runs", "category", "all", "image", "threshold", "topk", "results", "maps",
         "masks")
FEW = 50  # images without a label; of so many each verdict is printed
HEADER = ("id", "category", "defect", "label", "score", "prediction", "raw", "path")
Row = namedtuple("Row", HEADER)  # of scores.csv


def build_parser() -> Parser:
    parser = Parser(__doc__, FIRST)
    group = add_data_arguments(parser)
    group.add_argument("--image", nargs="+", action="extend", metavar="PATH", help="score these "
                       "files and folders with the runs of --category, which may be left out "
                       "where only one has runs")
    group = parser.add_argument_group("model")
    group.add_argument("--members", nargs="+", metavar="RUN",
                       help="names of the category's runs that vote (default: all)")
    group.add_argument("--ckpt", default="best.pt", metavar="FILE",
                       help="which checkpoint of each run (default: best.pt)")
    group.add_argument("--separately", action="store_true", help="no vote: score with every run "
                       "alone, which visualize.py --compare wants")
    add_scoring_arguments(parser, trained=True)
    parser.add_argument("--threshold", default=DEFAULT_RULE, metavar="RULE", help="of the verdict: "
                        "quantile:Q of the scores of normal images, a score (2: twice as far as "
                        "the default), or, from normal and anomalous (or pseudo-anomalous) "
                        f"validation images, midpoint, best-accuracy, best-f1 (default: "
                        f"{DEFAULT_RULE})")
    group = parser.add_argument_group("output")
    group.add_argument("--results", type=Path, default=Path("results"), metavar="DIR",
                       help="folder to write into (default: results)")
    group.add_argument("--maps", action="store_true", help="write heat maps, too")
    group.add_argument("--masks", nargs="?", type=float, const=DEFECT, metavar="Q", help="write "
                       "predicted defect masks, too: pixels above this quantile of those of normal "
                       f"validation images (default: {DEFECT})")
    group.add_argument("--fail-on-anomaly", action="store_true", help="exit code 1 if an image is "
                       "anomalous")
    group.add_argument("--binary", action="store_true", help="submission.csv gets 0 and 1, not "
                       "scores")
    group.add_argument("--like", type=Path, metavar="FILE", help="write submission.csv with the "
                       "header, the ids and the order of this sample")
    group.add_argument("--check-submission", type=Path, metavar="FILE", help="compare ids, order, "
                       "header and count of submission.csv with this sample")
    group.add_argument("--spot-check", nargs="+", action="extend", default=[], metavar="ID",
                       help="print scores and ranks of these test images, and write their pictures")
    group.add_argument("--export", type=Path, metavar="FILE", help="only write the run of "
                       "--category as a torch.export program: float images (N, 3, H, W) in [0, 1] "
                       "-> anomaly maps (N, 1, H, W), scores (N,)")
    group.add_argument("--verbose", action="store_true", help="say how every run was calibrated")
    return parser


def parse_args() -> Namespace:
    args = build_parser().parse_args()
    alone = args.image or args.export
    if alone and not (args.category or args.all or args.pool or args.merge_categories):
        args.category = ad.sets.files.only_category(args.runs)
    choice = choice_from(args)  # refuses options that exclude each other
    if alone:
        args.category, args.pool = choice.category, False
    require(args.category or not alone, "--image, --export: give --category")
    require(not (args.separately and args.merge_categories), "--separately compares single runs, "
            "--merge-categories votes; give one of them")
    require(not (args.image and (args.spot_check or args.like or args.check_submission
                                 or args.binary or args.separately or args.merge_categories)),
            "--spot-check, --like, --check-submission, --binary, --separately and "
            "--merge-categories are for a test split, not for --image")
    require(args.window_batch > 0, f"--window-batch must be positive, got {args.window_batch}")
    require(args.masks is None or 0 < args.masks < 1,
            f"--masks must be in (0, 1), got {args.masks}")
    there = next(p for p in (args.results, *args.results.absolute().parents) if p.exists())
    require(there.is_dir(), f"--results {there} is a file, not a folder")
    require(os.access(there, os.W_OK), f"--results {args.results}: {there} cannot be written to")
    ad.threshold.parse_threshold(args.threshold)
    given_scoring(args)
    if args.image:
        args.image = ad.sets.files.expand(args.image)
    elif not args.export:
        ad.folders.root_of(args.data)
    return args


def load(job: "ad.jobs.Job", args: Namespace,
         machine: "ad.machine.Machine") -> "ad.detector.Detector":
    """The Detector of a Job; says how many false alarms to expect of it."""
    paths = [Path(args.runs, job.folder, name, args.ckpt) for name in job.members]
    detector = ad.detector.Detector.load(paths, machine, args.threshold, given_scoring(args),
                                         args.data)
    if not args.members:
        ad.runs.check_one_origin({m.name: m.config for m in detector.members})
    for member in detector.members:
        if args.verbose:
            print(f"{job.folder}/{member.name}: weight {member.weight:.3f}, validation AUROC "
                  f"{member.auroc or float('nan'):.3f}, calibration "
                  f"{ad.scoring.load_calibration(member.calibration).describe()}")
    vote = f"{len(detector.members)} runs vote; " if len(detector.members) > 1 else ""
    print(f"{job.name}: {vote}{detector.limits.describe()}")
    return detector


def score_job(job: "ad.jobs.Job", args: Namespace, machine: "ad.machine.Machine") -> tuple:
    """Score the images of a Job: (Rows, pictures of --spot-check, its entry in metrics.json).

    Maps are kept for normal images and those with a mask where there is a mask at all; without any,
    memory does not grow with the number of images.
    """
    samples, detector, start = job.samples, load(job, args, machine), time.perf_counter()
    if not args.image:
        ad.runs.report_origin(job.name, detector.config, args.data, samples)
    if deep := ad.images.deep_grey([sample.path for sample in samples]):
        ad.sets.deep_grey.report_range(samples, deep, detector.config)
    paint = ad.pictures.found.painter(detector, args.results, args.maps, args.masks) \
        if args.maps or args.masks else None
    any_mask, rows, pixels, shown = any(sample.mask for sample in samples), [], [], []
    for found in detector.score_samples(samples, skip=bool(args.image)):
        sample = found.sample
        truth = ad.masks.true_mask(sample.mask, sample.label, found.map_.shape[1:], sample.path)
        truth = None if truth is None else truth[0].numpy()
        if any_mask and truth is not None:
            pixels.append((truth, found.map_[0].numpy()))
        if paint:
            paint(found, truth)
        if sample.path in args.spot_check:
            shown.append(((sample.category, sample.id),
                          ad.pictures.found.side_by_side(found, detector)))
        rows.append(Row(sample.id, sample.category, sample.defect, sample.label,
                        f"{found.score:.6f}", int(found.score > 1), f"{found.raw:.6f}",
                        sample.path.as_posix()))
    rows, pixels, shown = map(ad.ranks.gather, (rows, pixels, shown))
    result = ad.results.summary(rows, pixels if detector.localises else [])
    result |= {"folder": job.folder, "rule": args.threshold, "threshold": 1.0,
               "limits": vars(detector.limits), "seconds": time.perf_counter() - start,
               "members": dict.fromkeys(job.members, 0.0) | {
                   member.name: member.weight for member in detector.members},
               "scoring": given_scoring(args), "ckpt": args.ckpt}
    return rows, dict(shown), result


def score_jobs(jobs: list, args: Namespace, machine: "ad.machine.Machine") -> tuple:
    """What score_job makes of each Job: {name: Rows}, pictures, {name: entry}, and the errors of
    those that have one, which need not cost the others."""
    parts, shown, results, failed = {}, {}, {}, []
    for job in jobs:
        try:
            parts[job.name], pictures, results[job.name] = score_job(job, args, machine)
            shown |= pictures
        except ad.InputError as error:
            if len(jobs) == 1 or ad.ranks.size() > 1:  # the other processes wait for this one
                raise
            failed.append(f"{job.name}: {error}")
    return parts, shown, results, failed


def write_results(rows: list, results: dict, averages: dict, args: Namespace,
                  machine: "ad.machine.Machine", flat: bool) -> list:
    """scores.csv, metrics.json and, for a folder without categories, submission.csv; returns the
    names of all that was written."""
    files = {"scores.csv": ad.checkpoint.write_rows([HEADER, *rows]), "metrics.json": json.dumps(
        {"categories": results, **averages, "runs": str(args.runs), "command": sys.argv,
         "environment": ad.seed.environment(machine.device)}, indent=2) + "\n"}
    if flat:
        files["submission.csv"] = ad.sets.submission.of_rows(rows, args.binary, args.like)
    for name, content in files.items():
        ad.checkpoint.write_atomic(args.results / name, content)
    return [*files, *(["histograms.png", "maps/"] if args.maps else []),
            *(["masks/"] if (args.results / "masks").is_dir() and args.masks else [])]


def main(args: Namespace) -> int:
    machine = ad.machine.choose_machine(args.device, window_batch=args.window_batch,
                                        deterministic=args.deterministic)
    choice = choice_from(args)
    if args.export:
        job = ad.jobs.find_job(args.category, [], choice, args.members)
        print(ad.models.export.export(load(job, args, machine), args.export))
        return 0
    submits = bool(args.like or args.check_submission or args.binary)
    jobs, flat, args.spot_check = ad.ranks.from_rank_0(lambda: (
        [ad.jobs.find_job(args.category, ad.sets.files.single_files(args.image, args.category),
                          choice, args.members)], False, set()) if args.image
        else ad.jobs.jobs_to_score(choice, args.members, args.separately, args.spot_check,
                                   args.like, submits))
    parts, shown, results, failed = score_jobs(jobs, args, machine)
    if ad.ranks.rank():
        return 0
    rows = [row for part in parts.values() for row in part]
    require(rows, "\n".join(failed) or "none of the images can be read")
    flat = flat and not failed  # a submission is of all images
    averages = {} if args.separately or len(results) == 1 else \
        ad.sets.several.all_averages(results, rows, choice.merged)
    if args.maps:
        ad.pictures.charts.save_histograms(args.results / "histograms.png", parts)
    written = write_results(rows, results, averages, args, machine, flat)
    if not args.image:
        print(ad.results.table(results, averages))
    unknown = [row for row in rows if row.label < 0]
    if args.image or 0 < len(unknown) <= FEW:
        ad.sets.files.print_rows(unknown)
    if args.spot_check:
        ad.pictures.found.spot_check(args.results / "spot_check.png", rows, shown)
        written.append("spot_check.png")
    print("wrote " + ", ".join(f"{args.results}/{name}" for name in written))
    if flat and args.check_submission:
        ad.sets.submission.check_submission((args.results / "submission.csv").read_text(),
                                            args.check_submission)
        print(f"submission.csv has the header, ids and order of {args.check_submission}")
    require(not failed, "\n".join(failed))
    left_out = sum(len(job.samples) for job in jobs) > len(rows)
    return 2 if left_out else int(args.fail_on_anomaly and any(r.prediction for r in rows))


if __name__ == "__main__":
    run_script(parse_args, main)
