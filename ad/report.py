"""One web page, report.html filled with data, about what infer.py left: no network is needed."""

import base64
import csv
import html
import io
import json
import sys
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ad import InputError, checkpoint, compare, data, layouts, metrics, plots
from ad.cli import autocast, command, require
from ad.collapse import CHECKS, check_member, grades, reconstructs, side_seen, verdict
from ad.ensemble import chunked, decoded, load_members, localise, readings, score_chunk
from ad.masks import find_masks, read_mask
from ad.runs import run_images
from ad.samples import Sample
from ad.scoring import resized
from ad.threshold import top_of_maps

QUALITY, BINS = 80, 40  # of WebP; of the histograms
SIDES, PIXELS = (128, 512), 2e7  # pictures' long side in pixels: such that all images have so many
NEAR = 0.1  # standard deviations of normal images: scores that differ by less are the same
PARTS = ("train", "validation", "anomalous", "test")  # lists of files in config.json
PICTURES = ("input", "reconstruction", "anomaly map", "predicted mask", "ground truth")


def read_results(args):
    """--results -> (metrics.json, {name in its categories: rows of scores.csv}); InputError where
    they are missing, cannot be read, or do not fit each other. args.masks: are there predicted?"""
    for path in (paths := [args.results / name for name in ("scores.csv", "metrics.json")]):
        require(path.is_file(), f"no {path}; this makes it: " + command(
            "infer.py", args.data, args.runs, "--all", "--results", args.results))
    try:
        text, results = (path.read_text("utf-8", "surrogateescape") for path in paths)
        results = json.loads(results)
        rows = [row | {"label": int(row["label"]), "prediction": int(row["prediction"]),
                       "score": float(row["score"])} for row in csv.DictReader(io.StringIO(text))]
        args.masks = any(word.startswith("--masks") for word in results["command"])
        # A single entry may be of several categories, and so may a run of --separately.
        parts = {name: rows if len(results["categories"]) == 1 else [
            row for row in rows if f"{row['category']}/".startswith(f"{name}/")]
            for name in results["categories"]}
        fit = [len(part) == results["categories"][name]["images"] and
               "folder" in results["categories"][name] for name, part in parts.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{args.results} does not hold what infer.py writes: {error!r}") from error
    require(rows and all(fit), f"{paths[0]} and {paths[1]} are not of the same run of infer.py")
    return results, parts


def charts(rows, edges):
    """Points of metrics.curves, and {label: how many scores lie between the `edges`}."""
    labels, scores = (np.array([row[key] for row in rows]) for key in ("label", "score"))
    counts = {str(label): np.histogram(scores[labels == label], edges)[0].tolist()
              for label in np.unique(labels)}
    return metrics.curves(labels, scores) | {"histogram": counts}


def describe_run(member, folder, args, device):
    """What the page says about a member: training curves, collapse check, configuration."""
    config = member["config"]
    run = compare.load_run(Path(args.runs, folder, member["name"]), args.results)
    found = {"name": member["name"], "weight": member["weight"], "parameters": run["parameters"],
             "config": {key: f"{len(value)} files" if key in PARTS else value
                        for key, value in config.items()},
             "log": {key: points for key in compare.CURVES if (points := [
                 [r["epoch"], r[key]] for r in run["log"] if r.get(key) is not None])}}
    if not reconstructs(member["model"]):
        return found
    try:
        normals = run_images(config, "validation", most=8)
    except InputError as error:
        return found | {"verdict": f"not checked: {error}"}
    numbers = check_member(member, normals, args, device)
    return found | {"verdict": verdict(numbers), "collapse": [
        [name, numbers[name], f">= {low}", meaning, grades(numbers)[name] != "fails"]
        for name, (low, _, meaning, *_) in CHECKS.items()]}


def to_sample(row, root):
    """A row of scores.csv -> its Sample, without mask. The image is looked for at its path and, as
    that may be another machine's, at each end of it below `root`."""
    parts = Path(row["path"]).parts
    path = next((p for i in range(len(parts)) if (p := root.joinpath(*parts[i:])).is_file()), None)
    require(path, f"no image {row['path']}, which scores.csv names; say where with --data DIR")
    return Sample(path.absolute(), row["category"], "test", row["defect"], row["label"], None,
                  row["id"])


def to_text(picture, side):
    """uint8 (H, W, 3) -> WebP of this long side at most, in base64."""
    image, buffer = Image.fromarray(picture), io.BytesIO()
    image.thumbnail((side, side))
    image.save(buffer, "WEBP", quality=QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()


@torch.no_grad()
def show_images(rows, members, side, args, device):
    """Yield for each row the score that it gets now, and PICTURES of it as text, None = without."""
    root = layouts.resolve_data(args.data) if args.data else Path()
    samples, high = [to_sample(row, root) for row in rows], top_of_maps(members)
    painters = sorted((m for m in members if reconstructs(m["model"])), key=lambda m: m["weight"])
    masks = find_masks([sample.path for sample in samples])
    chunks, ways, rows = chunked(samples), readings(members), iter(rows)
    for chunk, pictures in tqdm(decoded(chunks, ways), desc=samples[0].category, leave=False,
                                total=len(chunks), disable=not sys.stderr.isatty()):
        scores, maps = score_chunk(members, chunk, pictures, args, device)
        for sample, row, score, map_, image in zip(chunk, rows, scores[0], maps,
                                                   pictures[ways[0]]):
            found = dict.fromkeys(PICTURES) | {"input": plots.to_picture(image / 255)}
            for member in painters[-1:]:  # with the most weight
                with autocast(device, args.precision):
                    output = resized(member["model"], side_seen(member))(
                        data.to_float(image, device)[None])[0]
                found["reconstruction"] = plots.to_picture(output)
            if localise(members):
                found["anomaly map"] = plots.overlay(found["input"], map_, high)
            predicted = args.results / "masks" / row["category"] / f"{row['id']}.png"
            for name, path in (("predicted mask", predicted if args.masks else None),
                               ("ground truth", masks.get(sample.path))):
                if path and path.is_file():
                    mask = read_mask(path, *map_.shape[1:], sample.path)
                    found[name] = plots.to_picture(mask.float())
            yield score, [None if p is None else to_text(p, side) for p in found.values()]


def write_report(args, device):
    """visualize.py --report: report.html in --results."""
    args.ckpt = args.ckpt or "best.pt"
    results, parts = read_results(args)
    ends = np.arcsinh([row["score"] for rows in parts.values() for row in rows]
                      + [result["threshold"] for result in results["categories"].values()])
    edges = np.sinh(np.linspace(ends.min() - 1e-6, ends.max() + 1e-6, BINS + 1))
    entries, images, roots = [], [], {}
    side = round(np.clip(np.sqrt(PIXELS / sum(map(len, parts.values()))), *SIDES))
    for name, rows in parts.items():
        result, folder = results["categories"][name], results["categories"][name]["folder"]
        members = load_members(folder, list(result["members"]), args, device)
        differ, roots = 0, roots | {Path(m["config"]["root"]).name: None for m in members}
        for row, (score, pictures) in zip(rows, show_images(rows, members, side, args, device)):
            differ += int(abs(score - row["score"]) > NEAR)
            images.append(row | {"entry": len(entries), "pictures": pictures})
        if differ:
            print(f"note: {name}: {differ} of {len(rows)} scores are not those of scores.csv; give "
                  "the --ckpt, --precision and scoring options that infer.py was given")
        entries.append({"name": name, "metrics": result, "differ": differ, **charts(rows, edges),
                        "runs": [describe_run(m, folder, args, device) for m in members]})
    text = json.dumps({"entries": entries, "images": images, "columns": PICTURES,
                       "edges": edges.tolist(), "curves": compare.CURVES, "results": results})
    page = (Path(__file__).parent / "report.html").read_text("utf-8")
    page = page.replace("PLACE_OF_THE_TITLE", html.escape(
        f"Anomaly detection report: {', '.join(roots)}, {date.today():%d %B %Y}"))
    page = page.replace("PLACE_OF_THE_DATA", text.replace("<", "\\u003c"))  # no tag can end it
    checkpoint.write_atomic(args.results / "report.html", page)
    print(f"wrote {args.results / 'report.html'}: {len(images)} images, {len(page) / 1e6:.1f} MB, "
          f"{len(page) / 1e3 / len(images):.1f} KB an image")
