"""Score images with trained runs: metrics, scores.csv, heat maps.

    python infer.py --all --topk 0.005               # every trained category of data/mvtec_ad
    python infer.py --category carpet --maps         # one category, with heat-map PNGs
    python infer.py --category carpet --image a.png  # single files

Reads runs/<category>/*/best.pt (several runs of a category vote), writes results/scores.csv,
results/metrics.json and, with --maps, results/maps/<category>/<id>.png.
"""

import csv
import io
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.profiler import record_function
from tqdm import tqdm

from ad import checkpoint, data, metrics, plots
from ad.cli import (Parser, add_data_arguments, add_scoring_arguments, autocast, load_member,
                    require, run_script, select_device, select_precision)
from ad.scoring import parse_threshold, score_images, standardise
from ad.seed import environment
from ad.validation import vote_weights

CHUNK = 16  # images decoded at a time
STAGES = ("decode", "cut", "model", "merge", "combine", "smooth", "write")


def parse_args():
    parser = Parser(__doc__)
    group = add_data_arguments(parser)
    group.add_argument("--category", help="the category to score")
    group.add_argument("--all", action="store_true", help="score every category that has a run")
    group.add_argument("--image", nargs="+", type=Path, metavar="FILE",
                       help="score these files with the runs of --category")
    group = parser.add_argument_group("model")
    group.add_argument("--members", nargs="+", metavar="RUN",
                       help="names of the category's runs that vote (default: all)")
    group.add_argument("--ckpt", default="best.pt", metavar="FILE",
                       help="which checkpoint of each run (default: best.pt)")
    add_scoring_arguments(parser, trained=True)
    parser.add_argument("--threshold", default="quantile:0.99", metavar="RULE",
                        help="of the prediction: quantile:Q of the validation normals' scores, or "
                        "a number (default: quantile:0.99)")
    group = parser.add_argument_group("output")
    group.add_argument("--results", type=Path, default=Path("results"), metavar="DIR",
                       help="folder to write into (default: results)")
    group.add_argument("--maps", action="store_true", help="write heat-map PNGs, too")
    group.add_argument("--profile", action="store_true", help="only time the stages on a few images"
                       " of --category, one scale at a time, then all")
    args = parser.parse_args()
    require(bool(args.category) != args.all, "give --category NAME or --all, one of the two")
    require(not (args.all and (args.image or args.profile)), "--image, --profile: give --category")
    require(args.window_batch > 0, f"--window-batch must be positive, got {args.window_batch}")
    parse_threshold(args.threshold)
    return args


def load_members(category, args, device):
    """The category's runs that vote, with their weights; prints them where there are several."""
    folders = checkpoint.find_runs(args.runs, category, args.members)
    members = [load_member(folder / args.ckpt, args, device) for folder in folders]
    for member, weight in zip(members, vote_weights([m["val_auroc"] for m in members])):
        member["weight"] = weight
        if len(members) > 1:
            print(f"{category}/{member['name']}: weight {weight:.3f} in the vote, for its "
                  f"pseudo-anomaly AUROC of {member['val_auroc'] or float('nan'):.3f}")
    return [member for member in members if member["weight"]]


def score_chunk(members, samples, args, device):
    """Scores (N,) and maps [(1, H, W), ...] of a few samples, the members' weighted means.

    Scores are z-scores on each member's own validation normals. Maps take the first one's size.
    """
    scores, maps, pictures = [], [], {}
    names = [str(sample.path) for sample in samples]
    for member in members:
        size = member["config"]["image_size"]
        if size not in pictures:
            with record_function("decode"):
                pictures[size] = data.load_images(samples, size)
        with autocast(device, args.precision):
            parts = list(score_images(member["model"], pictures[size], member["calibration"],
                                      device, args.window_batch, names))
        scores.append(standardise(torch.cat([s for s, _ in parts]).cpu(), member["normal"]))
        own = [m.cpu() for _, batch in parts for m in batch]
        maps.append(own if not maps else [
            F.interpolate(m[None], first.shape[-2:], mode="bilinear")[0]
            for m, first in zip(own, maps[0])])
    weights = [member["weight"] for member in members]
    mean = [sum(w * m for w, m in zip(weights, group)) for group in zip(*maps)]
    shown = pictures[members[0]["config"]["image_size"]]
    return np.average(scores, axis=0, weights=weights), mean, shown


def score_samples(members, samples, args, device):
    """Score samples chunk by chunk: scores (N,), maps and masks for pixel metrics (see below).

    Heat maps go to disk on the way. Maps are kept for normal images and those with a mask.
    """
    scores, maps, masks = [], [], []
    # A score is a mean of map values, so twice the threshold is a scale that fits the map.
    high = sum(2 * m["weight"] * parse_threshold("quantile:0.99")(m["normal"]) for m in members)
    for start in tqdm(range(0, len(samples), CHUNK), desc=samples[0].category, leave=False,
                      disable=not sys.stderr.isatty()):
        chunk = samples[start:start + CHUNK]
        part, chunk_maps, pictures = score_chunk(members, chunk, args, device)
        scores.append(part)
        for sample, map_, picture in zip(chunk, chunk_maps, pictures):
            if args.maps:
                path = args.results / "maps" / sample.category / f"{sample.id}.png"
                with record_function("write"):
                    plots.save_picture(path, np.concatenate([
                        plots.overlay(plots.to_picture(picture / 255), map_, high),
                        plots.heat(map_, high)], axis=1))
            if sample.label == 0 or sample.mask:
                maps.append(map_[0].numpy())
                masks.append(np.zeros(maps[-1].shape, bool) if not sample.mask else
                             data.read_mask(sample.mask, *maps[-1].shape)[0].numpy())
    return np.concatenate(scores), maps, masks


def decide_threshold(members, rule):
    """Threshold from the members' normal scores alone, weighted; prints the false-alarm rate."""
    normal = [standardise(member["normal"], member["normal"]) for member in members]
    thresholds = [parse_threshold(rule)(z) for z in normal]
    threshold = float(np.average(thresholds, weights=[member["weight"] for member in members]))
    count = min(len(z) for z in normal)
    above = np.mean([(z > own).mean() for z, own in zip(normal, thresholds)]) * count
    print(f"{members[0]['config']['category']}: threshold {threshold:.3f} ({rule}), expected false "
          f"alarms {(above + 1) / (count + 1):.1%} or fewer (one in {count + 1} is the finest that "
          f"{count} normal images can tell)")
    return threshold


def score_category(root, category, args, device):
    """Score one category's test images: (rows of scores.csv, its entry in metrics.json)."""
    members = load_members(category, args, device)
    for member in members:
        if member["config"]["root"] != str(root.resolve()):
            print(f"note: {category}/{member['name']} was trained on {member['config']['root']}")
    samples = data.find_samples(root, category, "test")
    start = time.perf_counter()
    scores, maps, masks = score_samples(members, samples, args, device)
    seconds = time.perf_counter() - start
    labels = np.array([sample.label for sample in samples])
    threshold = decide_threshold(members, args.threshold)
    predictions = (scores > threshold).astype(int)
    result = metrics.image_metrics(labels, scores) | metrics.rates(labels, predictions)
    has_masks = any(mask.any() for mask in masks)
    result |= {"pixel_auroc": metrics.pixel_auroc(masks, maps) if has_masks else None,
               "pro": metrics.pro(masks, maps) if has_masks else None,
               "images": len(samples), "threshold": threshold, "seconds": seconds,
               "members": {member["name"]: member["weight"] for member in members},
               "scoring": members[0]["calibration"]["scoring"]}
    rows = [(s.id, s.category, s.defect, s.label, f"{score:.6f}", prediction, s.path.as_posix())
            for s, score, prediction in zip(samples, scores, predictions)]
    return rows, result


def score_files(args, device):
    """Print score, prediction and path of single files."""
    members = load_members(args.category, args, device)
    samples = [data.Sample(path, args.category, "test", "image", -1, None) for path in args.image]
    threshold = decide_threshold(members, args.threshold)
    scores, _, _ = score_samples(members, samples, args, device)
    print(f"score (threshold {threshold:.3f})  prediction  path")
    for sample, score in zip(samples, scores):
        print(f"{score:.6f}  {'anomalous' if score > threshold else 'normal'}  {sample.path}")


def profile(root, args, device):
    """Print seconds per stage for CHUNK test images: each window size alone, then all of them."""
    member = load_members(args.category, args, device)[0]
    member["weight"] = 1.0
    samples = data.find_samples(root, args.category, "test")[:CHUNK]
    calibration = member["calibration"]
    windows = calibration["scoring"]["windows"]
    print(f"{'seconds for ' + str(len(samples)) + ' images':<24}"
          + "".join(f"{stage:>10}" for stage in (*STAGES, "total")))
    for some in [*((w,) for w in windows), windows]:
        scoring = calibration["scoring"] | {"windows": some}
        member["calibration"] = calibration | {"scoring": scoring}
        with tempfile.TemporaryDirectory() as scratch:
            args.maps, args.results = True, Path(scratch)
            score_samples([member], samples[:2], args, device)  # warm up
            with torch.profiler.profile() as profiler, record_function("total"):
                score_samples([member], samples, args, device)
        times = {e.key: e.cpu_time_total / 1e6 for e in profiler.key_averages()}
        print(f"{'windows ' + ' '.join(map(str, some)):<24}"
              + "".join(f"{times.get(stage, 0):>10.4f}" for stage in (*STAGES, "total")))


def print_table(results):
    """Print one line per category, the mean, and the mean weighted by image count."""
    columns = metrics.COLUMNS
    print(f"{'category':<16}" + "".join(f"{name:>12}" for name in (*columns, "images", "seconds")))
    for name, result in results.items():
        cells = ["-" if result[c] is None else f"{result[c]:.4f}" for c in columns]
        if "seconds" in result:
            cells += [str(result["images"]), f"{result['seconds']:.1f}"]
        print(f"{name:<16}" + "".join(f"{cell:>12}" for cell in cells))


def main():
    args = parse_args()
    device = select_device(args.device)
    args.precision = select_precision(args.precision, device)
    if args.image:
        return score_files(args, device)
    root = data.resolve_data(args.data)
    if args.profile:
        return profile(root, args, device)
    categories = [args.category]
    if args.all:
        found = data.find_categories(root)
        categories = [c for c in found if any(Path(args.runs, c).glob("*/best.pt"))]
        require(categories, f"no trained run in {args.runs} for any category of {root}; train "
                "them: python train.py --all")
        if len(categories) < len(found):
            print(f"not trained, not scored: {', '.join(sorted(set(found) - set(categories)))}")
    rows, results = [], {}
    for category in categories:
        new_rows, results[category] = score_category(root, category, args, device)
        rows += new_rows
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "category", "defect", "label", "score", "prediction", "path"))
    writer.writerows(rows)
    mean = metrics.averages(results)
    print_table(results | mean)
    checkpoint.write_atomic(args.results / "scores.csv", text.getvalue())
    checkpoint.write_atomic(args.results / "metrics.json", json.dumps(
        {"categories": results, **mean, "command": sys.argv,
         "environment": environment(device)}, indent=2) + "\n")
    print(f"wrote {args.results / 'scores.csv'}, {args.results / 'metrics.json'}"
          + (f", {args.results / 'maps'}/" if args.maps else ""))


if __name__ == "__main__":
    run_script(main)
