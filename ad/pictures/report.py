"""One web page, report.html filled with data, about what infer.py left: no network is needed."""

import base64
import csv
import html
import io
import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.metrics import precision_recall_curve, roc_curve

from ad import InputError, checkpoint, data, layouts
from ad.pictures import compare, plots
from ad.cli import command, require
from ad.pictures.collapse import CHECKS, check_member, grades, reconstruct, reconstructs, verdict
from ad.detector import Detector, Member
from ad.machine import Machine
from ad.masks import find_masks, read_mask
from ad.runs import run_images
from ad.samples import Sample

QUALITY, BINS = 80, 40  # of WebP; of the histograms
POINTS = 200  # of a curve, at most
SIDES, PIXELS = (128, 512), 2e7  # pictures' long side in pixels: such that all images have so many
NEAR = 0.03  # scores that differ by less are the same
PARTS = ("train", "validation", "anomalous", "test")  # lists of files in config.json
PICTURES = ("input", "reconstruction", "anomaly map", "predicted mask", "ground truth")


def read_results(folder: Path, advice: str) -> tuple[dict, dict]:
    """What infer.py left in a folder -> (metrics.json, {name in its categories: rows of
    scores.csv}); InputError where it is missing (advice: how to make it), cannot be read, or does
    not fit each other."""
    for path in (paths := [folder / name for name in ("scores.csv", "metrics.json")]):
        require(path.is_file(), f"no {path}; this makes it: {advice}")
    try:
        text, results = (path.read_text("utf-8", "surrogateescape") for path in paths)
        results = json.loads(results)
        rows = [row | {"label": int(row["label"]), "prediction": int(row["prediction"]),
                       "score": float(row["score"])} for row in csv.DictReader(io.StringIO(text))]
        # A single entry may be of several categories, and so may a run of --separately.
        parts = {name: rows if len(results["categories"]) == 1 else [
            row for row in rows if f"{row['category']}/".startswith(f"{name}/")]
            for name in results["categories"]}
        fit = [len(part) == results["categories"][name]["images"] and
               "ckpt" in results["categories"][name] for name, part in parts.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder} does not hold what infer.py writes: {error!r}") from error
    require(rows and all(fit), f"{paths[0]} and {paths[1]} are not of the same run of infer.py")
    return results, parts


def charts(rows: list[dict], edges: np.ndarray) -> dict:
    """Points of `curves`, and {label: how many scores lie between the `edges`}."""
    labels, scores = (np.array([row[key] for row in rows]) for key in ("label", "score"))
    counts = {str(label): np.histogram(scores[labels == label], edges)[0].tolist()
              for label in np.unique(labels)}
    return curves(labels, scores) | {"histogram": counts}


def curves(labels: np.ndarray, scores: np.ndarray) -> dict:
    """labels (N,) in {0, 1, -1 unknown}, scores (N,) -> {"roc": [[fpr, tpr], ...], "pr": [[recall,
    precision], ...]}, at most POINTS of each; {} where only one class is known."""
    scores, labels = scores[labels >= 0], labels[labels >= 0]
    if len(np.unique(labels)) < 2:
        return {}
    precision, recall, _ = precision_recall_curve(labels, scores, drop_intermediate=True)
    found = {}
    for name, (x, y) in {"roc": roc_curve(labels, scores)[:2], "pr": (recall, precision)}.items():
        chosen = np.linspace(0, len(x) - 1, min(len(x), POINTS)).round().astype(int)
        found[name] = np.stack([x, y], 1)[chosen].round(6).tolist()
    return found


def describe_run(member: Member, run: dict, machine: Machine) -> dict:
    """What the page says about a detector.Member: training curves, collapse check, configuration.
    run: of compare.load_run."""
    config = member.config
    found = {"name": member.name, "weight": member.weight, "parameters": run["parameters"],
             "config": {key: f"{len(value)} files" if key in PARTS else value
                        for key, value in config.items()},
             "log": {key: curve for key in compare.CURVES if (curve := compare.points(run, key))}}
    if not reconstructs(member.model):
        return found
    try:
        normals = run_images(config, "validation", most=8)
    except InputError as error:
        return found | {"verdict": f"not checked: {error}"}
    numbers = check_member(member, normals, machine)
    return found | {"verdict": verdict(numbers), "collapse": [
        [name, numbers[name], f">= {low}", meaning, grades(numbers)[name] != "fails"]
        for name, (low, _, meaning, *_) in CHECKS.items()]}


def to_sample(row: dict, root: Path) -> Sample:
    """A row of scores.csv -> its Sample, without mask. The image is looked for at its path and, as
    that may be another machine's, at each end of it below `root`."""
    parts = Path(row["path"]).parts
    path = next((p for i in range(len(parts)) if (p := root.joinpath(*parts[i:])).is_file()), None)
    require(path, f"no image {row['path']}, which scores.csv names; say where with --data DIR")
    return Sample(path.absolute(), row["category"], row["defect"], row["label"], None,
                  row["id"])


def to_text(picture: np.ndarray, side: int) -> str:
    """uint8 (H, W, 3) -> WebP of this long side at most, in base64."""
    image, buffer = Image.fromarray(picture), io.BytesIO()
    image.thumbnail((side, side))
    image.save(buffer, "WEBP", quality=QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()


def show_images(rows: list[dict], detector: Detector, side: int, root: Path,
                predicted: Path | None) -> Iterator[tuple]:
    """Yield for each row the score that it gets now, and PICTURES of it as text, None = without.
    root: below which the images are; predicted: the folder of predicted masks, None = without."""
    samples = [to_sample(row, root) for row in rows]
    painter = max((m for m in detector.members if reconstructs(m.model)),
                  key=lambda m: m.weight, default=None)
    masks = find_masks([sample.path for sample in samples])
    for found in detector.score_samples(samples):
        sample, picture = found.sample, plots.to_picture(found.picture)
        shown = dict.fromkeys(PICTURES) | {"input": picture}
        if painter:
            image = data.to_float(found.picture, detector.machine.device)
            shown["reconstruction"] = plots.to_picture(reconstruct(painter, [image])[0])
        if detector.localises:
            shown["anomaly map"] = plots.overlay(picture, found.map_, detector.top_of_maps)
        own = predicted and predicted / sample.category / f"{sample.id}.png"
        for name, path in (("predicted mask", own), ("ground truth", masks.get(sample.path))):
            if path and path.is_file():
                mask = read_mask(path, *found.map_.shape[1:], sample.path)
                shown[name] = plots.to_picture(mask.float())
        yield found.score, [None if p is None else to_text(p, side) for p in shown.values()]


def write_report(folder: Path, runs: str, data_name: str | None, machine: Machine) -> None:
    """visualize.py --report: report.html in the --results folder. runs: folder of the runs;
    data_name: --data."""
    results, parts = read_results(folder, command(
        "infer.py", data_name, runs, "--all", "--results", folder) + ", or with --image FOLDER in "
        "place of --all")
    runs = results.get("runs", runs) if str(runs) == "runs" else runs
    root = layouts.resolve_data(data_name) if data_name else Path()
    masks = any(word.startswith("--masks") for word in results["command"])
    ends = np.arcsinh([1, *(row["score"] for rows in parts.values() for row in rows)])
    edges = np.sinh(np.linspace(ends.min() - 1e-6, ends.max() + 1e-6, BINS + 1))
    entries, images, roots = [], [], {}
    side = round(np.clip(np.sqrt(PIXELS / sum(map(len, parts.values()))), *SIDES))
    for name, rows in parts.items():
        result = results["categories"][name]
        paths = {member: Path(runs, result["folder"], member) for member in result["members"]}
        detector = Detector.load([path / result["ckpt"] for path in paths.values()], machine,
                                 result["rule"], result["scoring"], data_name)
        differ, roots = 0, roots | {Path(m.config["root"]).name: None for m in detector.members}
        for row, (score, pictures) in zip(rows, show_images(
                rows, detector, side, root, folder / "masks" if masks else None)):
            differ += int(abs(score - row["score"]) > NEAR)
            images.append(row | {"entry": len(entries), "pictures": pictures})
        if differ:
            print(f"note: {name}: {differ} of {len(rows)} scores are not those of scores.csv; "
                  "give the --runs of then, or run infer.py again")
        entries.append({"name": name, "metrics": result, "differ": differ, **charts(rows, edges),
                        "runs": [describe_run(m, compare.load_run(paths[m.name], folder), machine)
                                 for m in detector.members]})
    text = json.dumps({"entries": entries, "images": images, "columns": PICTURES,
                       "edges": edges.tolist(), "curves": compare.CURVES, "results": results})
    page = (Path(__file__).parent / "report.html").read_text("utf-8")
    page = page.replace("PLACE_OF_THE_TITLE", html.escape(
        f"Anomaly detection report: {', '.join(roots)}, {date.today():%d %B %Y}"))
    page = page.replace("PLACE_OF_THE_DATA", text.replace("<", "\\u003c"))  # no tag can end it
    checkpoint.write_atomic(folder / "report.html", page)
    print(f"wrote {folder / 'report.html'}: {len(images)} images, {len(page) / 1e6:.1f} MB, "
          f"{len(page) / 1e3 / len(images):.1f} KB an image")
