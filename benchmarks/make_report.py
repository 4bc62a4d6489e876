"""Fill the tables of README.md, docs/ and both REPORTs, and draw their figures, from runs.

    python benchmarks/make_report.py --data DIR            # read what is in runs/, fill and draw
    python benchmarks/make_report.py --data DIR --train    # first train and score what is missing
    python benchmarks/make_report.py                       # from the records alone, after cloning

DIR is mvtec_ad with transistor and toothbrush. benchmarks/experiments.txt lists the runs. What is
read of their folders and of infer.py's results is kept in benchmarks/results/report.json, from
which, and from the other files there, tables.py makes the tables: every table in these texts that
stands between <!-- table NAME --> and <!-- end --> comes from there. docs/options.md is made of the
scripts' options in the same way.
"""

import csv
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import charts
import tables
from timing import PROJECT, RESULTS, parser_of

from ad import checkpoint
from ad.checkpoint import write_atomic
from ad.pictures import compare

RECORDS = RESULTS / "report.json"
TEXTS = [PROJECT / name for name in ("README.md", "REPORT.md", "REPORT.zh-TW.md")] + sorted(
    (PROJECT / "docs").glob("*.md"))
# Scored in another way than every run alone: folder of the results, options of infer.py.
TOGETHER = {"wells-midpoint": "--data demo-wells --category wells --separately "
                              "--threshold midpoint",
            "merged": "--data DATA --merge-categories toothbrush transistor --members vae-cnn "
                      "--threshold best-accuracy"}


def experiments():
    """{run folder below --runs: options of train.py}."""
    lines = (PROJECT / "benchmarks/experiments.txt").read_text().splitlines()
    return dict((line.split(maxsplit=1) + [""])[:2] for line in lines
                if line and not line.startswith("#"))


def data_options(category, args):
    """--data and the category, as train.py and infer.py want them."""
    name = category.removesuffix("-classes")
    root = "demo-wells" if name == "wells" else args.data if set(name.split("+")) <= {
        "transistor", "toothbrush"} else "demo"
    which = ["--merge-categories", *name.split("+")] if "+" in name else ["--category", name]
    return ["--data", str(root), *which]


def run(script, *options):
    print("python", script, *options, flush=True)
    subprocess.run([sys.executable, PROJECT / script, *options], check=True)


def train_missing(args):
    """Train every listed run that has no best.pt, and score what has no results."""
    for name, options in experiments().items():
        category, run_name = name.split("/")
        if not (args.runs / name / "best.pt").exists():
            run("train.py", *data_options(category, args), "--name", run_name, "--runs",
                str(args.runs), *options.replace("RUNS", str(args.runs)).split())
    for category in dict.fromkeys(name.split("/")[0] for name in experiments()):
        if category.endswith("-classes") or "+" in category:
            continue  # scored below, or by train.py itself
        names = [n.split("/")[1] for n in experiments() if n.startswith(f"{category}/")]
        vaes = [n for n in names if n.startswith("vae")]
        for members, part, more in ((vaes, "vae", ["--threshold", "best-accuracy"]),
                                    ([n for n in names if n not in vaes], "", [])):
            out = args.results / category / part
            if members and not (out / "metrics.json").exists():
                run("infer.py", *data_options(category, args), "--separately", "--members",
                    *members, "--runs", str(args.runs), "--results", str(out), *more)
    for name, options in TOGETHER.items():
        if not (args.results / name / "metrics.json").exists():
            run("infer.py", *options.replace("DATA", str(args.data)).split(), "--runs",
                str(args.runs), "--results", str(args.results / name))


def record(folder, results, options):
    """What the tables need of one run."""
    category = folder.parent.name
    found = compare.load_run(folder, results / category / (
        "vae" if folder.name.startswith("vae") else ""))
    saved = checkpoint.load(folder / "best.pt")
    config = json.loads((folder / "config.json").read_text())
    return {"options": options, **compare.summary(found), "best epoch": saved["epoch"],
            "pseudo": saved["val_auroc"], "test": found["test"],
            "date": time.strftime("%Y-%m-%d", time.localtime(
                (folder / "log.jsonl").stat().st_mtime)),
            "threads": config["environment"]["threads"], "device": config["environment"]["device"]}


def collect(args, records):
    """records, and what is in the run folders and the results now."""
    for name, options in experiments().items():
        if (args.runs / name / "best.pt").exists():
            records[name] = record(args.runs / name, args.results, options)
    for name in TOGETHER:
        if (args.results / name / "metrics.json").exists():
            metrics = json.loads((args.results / name / "metrics.json").read_text())
            records[name] = {k: v for k, v in metrics.items() if k != "environment"}
    scores = args.results / "transistor/scores.csv"
    if scores.exists():
        rows = [r for r in csv.DictReader(scores.open()) if r["category"] == charts.EXAMPLE]
        records["example"] = {"labels": [int(r["label"]) for r in rows],
                              "scores": [float(r["score"]) for r in rows]}
    return records


def fill(text, records, language):
    """The text with every table made anew; a name that tables.py does not know is an error."""
    def made(match):
        return f"<!-- table {match[1]} -->\n{tables.make(match[1], records, language)}<!-- end -->"
    return re.sub(r"<!-- table ([\w-]+) -->\n.*?<!-- end -->", made, text, flags=re.DOTALL)


def main():
    parser = parser_of(__doc__)
    parser.add_argument("--data", type=Path, help="mvtec_ad with transistor and toothbrush")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=Path("results/report"))
    parser.add_argument("--train", action="store_true", help="train and score what is missing")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a "
                        "table differs from its records")
    args = parser.parse_args()
    records = json.loads(RECORDS.read_text()) if RECORDS.exists() else {}
    if args.data:
        if args.train:
            train_missing(args)
        records = collect(args, records)
        charts.draw(records, args.runs, args.results)
        write_atomic(RECORDS, json.dumps(records, indent=1, sort_keys=True) + "\n")
        records = json.loads(RECORDS.read_text())  # in the order in which it is read later
    differ = []
    for path in TEXTS:
        old = path.read_text(encoding="utf-8")
        new = fill(old, records, "zh" if "zh" in path.name else "en")
        differ += [path.name] if new != old else []
        if new != old and not args.check:
            write_atomic(path, new)
    print(f"{'differ from' if args.check else 'filled from'} their records: {', '.join(differ)}"
          if differ else "every table is as its records")
    sys.exit(1 if args.check and differ else 0)


if __name__ == "__main__":
    main()
