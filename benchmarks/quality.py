"""How good is every model on every set? One row a set, model and seed, and one table of them.

    python benchmarks/quality.py --data DIR... demo --models unet memory lite0 vote all
    python benchmarks/quality.py --data DIR --models unet --epochs 60 --out trial.json
    python benchmarks/quality.py --data DIR --models "wide=--width 64" wide+memory
    python benchmarks/quality.py                         # the table of what is recorded

DIR: a folder of sets in any layout that train.py knows, or a single category of MVTec AD's; a set
is called <DIR>/<category>. train.py and infer.py run as a user would run them, with the same
options for every set. A model is one of MODELS, NAME=OPTIONS of train.py, or a vote, NAME+NAME; a
member is trained once for all votes, in --work. Rows that are there are not made again.

recall, alarms: at the default threshold, of the defective and of the good test images; promised,
bound: the alarms that infer.py says to expect, and at most; best: recall at the lowest threshold
with no more alarms; called: share of the training images called anomalous; pseudo: AUROC of the
pseudo-anomalies of validation, of single models. seconds: of the whole
command, a vote's training is that of its members; peak_mib: the most memory of a process. With
--maps also the image AUROC of each error map of a U-Net alone.
"""

import csv
import json
import os
import sys
import tempfile
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev

from timing import PROJECT, RESULTS, markdown, measure, parser_of

from ad import InputError, checkpoint, layouts

MODELS = {"unet": "", "memory": "--model patchcore",
          "lite0": "--model patchcore --backbone efficientnet_lite0"}
VOTES = {"vote": "unet+memory", "all": "unet+memory+lite0"}
MAPS = ("mse", "ssim", "mask", "memory")
# Columns of the table, and their digits.
DIGITS = {"auroc": 3, "ap": 3, "pixel_auroc": 3, "pro": 3, "recall": 3, "best": 3, "alarms": 3,
          "promised": 3, "bound": 3, "called": 3, "pseudo": 3, "train_s": 0, "infer_s": 0,
          "peak_mib": 0}
SPREAD = ("auroc", "ap", "pixel_auroc", "pro", "recall", "alarms")  # shown with it
Set = namedtuple("Set", "name data category")  # data: for --data
Job = namedtuple("Job", "set model seed members")  # members: {name: words for train.py}
writing = threading.Lock()


class Failed(Exception):
    """A script ended with an error; the message is its last line."""


def sets_of(names):
    """--data -> Sets. SystemExit where two would have one name."""
    found = []
    for name in names:
        root = layouts.resolve_data(name)
        alone = [root.absolute().name] if layouts.has_normals(root) else []
        root = root.parent if alone else root
        data = name if name.startswith("demo") and not alone else str(root.absolute())
        found += [Set(f"{root.absolute().name}/{category}", data, category)
                  for category in alone or layouts.find_categories(root)]
    twice = {s.name for s in found if [other.name for other in found].count(s.name) > 1}
    if twice:
        sys.exit(f"two sets are called {', '.join(sorted(twice))}; rename a folder")
    return found


def models_of(words, budget):
    """--models -> {model: {member: words for train.py}}; the budget is of what is trained."""
    given = MODELS | dict(word.split("=", 1) for word in words if "=" in word)
    found = {}
    for name in (word.split("=")[0] for word in words):
        members = VOTES.get(name, name).split("+")
        if unknown := [member for member in members if member not in given]:
            sys.exit(f"unknown model {unknown[0]}; there are {', '.join((*given, *VOTES))}, "
                     "NAME=OPTIONS and NAME+NAME")
        found[name] = {member: given[member].split() + (
            [] if "patchcore" in given[member] else budget) for member in members}
    return found


def key(job):
    """What tells rows apart: set, model, seed, and the options of all members."""
    return [job.set.name, job.model, job.seed,
            "; ".join(" ".join(words) for words in job.members.values())]


def read_rows(path):
    return json.loads(path.read_text())["rows"] if path.is_file() else []


def run(script, *options):
    """Run a script of the project to its end: Done. Raises Failed, and SystemExit where it was
    interrupted, as the others will have been."""
    done = measure([PROJECT / script, *options])
    if done.code in (130, 143):
        sys.exit("stopped; the same command goes on")
    if done.code:
        raise Failed(f"{script}: {(done.err.strip() or done.out.strip()).splitlines()[-1]}")
    return done


def train(job, member, work):
    """{"seconds", "peak_mib"} of a member's training, which is not done again if it is there."""
    words = ["--data", job.set.data, "--category", job.set.category, "--seed", str(job.seed),
             *job.members[member]]
    note = work / f"{member}-seed{job.seed}.json"
    if not note.is_file() or json.loads(note.read_text())["words"] != words:
        done = run("train.py", *words, "--runs", work / "runs", "--name",
                   f"{member}-seed{job.seed}", "--overwrite")
        checkpoint.write_atomic(note, json.dumps(
            {"words": words, "seconds": done.seconds, "peak_mib": done.peak_mib}))
    return json.loads(note.read_text())


def score(job, work, *more):
    """What infer.py makes of a job: (Done, metrics.json, its only entry, rows of scores.csv)."""
    with tempfile.TemporaryDirectory() as folder:
        done = run("infer.py", "--data", job.set.data, "--category", job.set.category, "--runs",
                   work / "runs", "--results", folder, *more, "--members",
                   *(f"{member}-seed{job.seed}" for member in job.members))
        metrics = json.loads(Path(folder, "metrics.json").read_text())
        with open(f"{folder}/scores.csv", newline="") as file:
            rows = list(csv.DictReader(file))
    entry, = metrics["categories"].values()
    return done, metrics, entry, rows


def best_recall(rows):
    """Recall at the lowest threshold with no more false alarms than rows of scores.csv have; None
    without good or without defective images."""
    good, bad = (sorted(float(r["score"]) for r in rows if r["label"] == k) for k in "01")
    alarms = sum(r["prediction"] == "1" for r in rows if r["label"] == "0")
    lowest = good[-alarms - 1] if alarms < len(good) else float("-inf")
    return mean(score > lowest for score in bad) if good and bad else None


def measured(job, work, maps):
    """Train what is not there, score, and return the row."""
    work = work / job.set.name
    trained = [train(job, member, work) for member in job.members]
    done, metrics, found, rows = score(job, work)
    row = dict(zip(("set", "model", "seed", "options"), key(job))) | {
        name: found[name] for name in ("auroc", "ap", "pixel_auroc", "pro")} | {
        "recall": found["tpr"], "best": best_recall(rows),
        "alarms": None if found["tnr"] is None else 1 - found["tnr"],
        "promised": found["limits"]["expected"], "bound": found["limits"]["bound"]}
    images = layouts.find_samples(layouts.resolve_data(job.set.data), job.set.category, "train")
    row["called"] = mean(r["prediction"] == "1" for r in score(
        job, work, "--image", *(sample.path for sample in images))[3])
    if len(trained) == 1:
        name = f"{job.model}-seed{job.seed}"
        saved = checkpoint.load(work / "runs" / job.set.category / name / "best.pt")
        row["pseudo"] = saved["val_auroc"]
        if maps and saved["model_args"]["name"] == "unet":
            row["maps"] = {map_: score(job, work, "--error", map_)[2]["auroc"] for map_ in MAPS}
    return row | {"train_s": sum(t["seconds"] for t in trained), "infer_s": done.seconds,
                  "peak_mib": max(done.peak_mib, *(t["peak_mib"] for t in trained)),
                  **{name: metrics["environment"][name] for name in (
                      "git_commit", "device", "threads")}, "date": time.strftime("%Y-%m-%d")}


def work_on(job, args):
    """Make a job's row and write it beside the others; False, and one line, if that fails."""
    try:
        row = measured(job, args.work, args.maps)
    except (Failed, InputError, OSError, ValueError, KeyError) as error:
        print(f"{job.set.name}, {job.model}, seed {job.seed}: failed: {error}", flush=True)
        return False
    with writing:
        rows = [*read_rows(args.out), row]
        checkpoint.write_atomic(args.out, json.dumps({"rows": rows}, indent=1) + "\n")
    print(f"{job.set.name}, {job.model}, seed {job.seed}: AUROC {cell(row, 'auroc')}, trained in "
          f"{row['train_s']:.0f} s, scored in {row['infer_s']:.0f} s", flush=True)
    return True


def cell(row, name):
    """A number of a row as text, - without one."""
    return "-" if row.get(name) is None else f"{row[name]:.{DIGITS[name]}f}"


def cells(rows, spread, sign):
    """Means of rows, each with what `spread` makes of the values of several rows."""
    found = []
    for name in DIGITS:
        values = [row[name] for row in rows if row.get(name) is not None]
        text = cell({name: mean(values) if values else None}, name)
        if len(values) > 1 and name in SPREAD:
            text += sign.format(f"{spread(values):.3f}")
        found.append(text)
    return found


def titled(model, options):
    return f"{model} `{options}`" if options else model


def table_lines(rows):
    """Cells, the header first: a line a set and model, means over seeds with largest minus smallest
    in brackets, then a line a model, the mean of its sets with its standard error."""
    groups, models = {}, {}
    for row in rows:
        groups.setdefault((row["model"], row["options"], row["set"]), []).append(row)
    lines = [["model", "set", "seeds", *DIGITS]]
    for (model, options, place), group in groups.items():
        lines.append([titled(model, options), place, str(len(group)), *cells(
            group, lambda values: max(values) - min(values), " ({})")])
        models.setdefault((model, options), []).append({name: mean(known) for name in DIGITS if (
            known := [row[name] for row in group if row.get(name) is not None])})
    for (model, options), sets in models.items():
        lines.append([titled(model, options), f"mean of {len(sets)}", "", *cells(
            sets, lambda values: stdev(values) / len(values) ** 0.5, " ± {}")])
    return lines


def main():
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--data", nargs="+", default=[], metavar="DIR")
    add("--models", nargs="+", default=list(MODELS), metavar="MODEL", help="names of "
        f"{', '.join((*MODELS, *VOTES))}, NAME=OPTIONS or NAME+NAME (default: {' '.join(MODELS)})")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    add("--minutes", type=float, help="for what is trained (default: train.py's epochs)")
    add("--epochs", type=int, help="in place of those")
    add("--maps", action="store_true", help="score with each map of a U-Net alone, too")
    add("--workers", type=int, default=1, metavar="N", help="sets at once (default: 1)")
    add("--work", type=Path, default=Path("runs/quality"), metavar="DIR",
        help="folder of the runs (default: runs/quality)")
    add("--out", type=Path, default=RESULTS / "quality.json", metavar="FILE",
        help="default: benchmarks/results/quality.json")
    args = parser.parse_args()
    budget = ["--epochs", str(args.epochs)] if args.epochs else \
        ["--minutes", f"{args.minutes:g}"] if args.minutes else []
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, os.cpu_count() // args.workers)))
    models, sets = models_of(args.models, budget), sets_of(args.data)
    there = [[row[k] for k in ("set", "model", "seed", "options")] for row in read_rows(args.out)]
    # What is of one set and seed goes to one worker: its votes share members.
    todo = [[job for model, members in models.items()
             if key(job := Job(place, model, seed, members)) not in there]
            for seed in args.seeds for place in sets]
    with ThreadPoolExecutor(args.workers) as pool:
        done = sum(pool.map(lambda jobs: [work_on(job, args) for job in jobs], todo), [])
    print(markdown(table_lines(read_rows(args.out))))
    sys.exit(not all(done))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
