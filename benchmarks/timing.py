"""Alternating timings of several functions in one process, and their record as JSON."""

import argparse
import json
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch

PROJECT = Path(__file__).parent.parent
sys.path.insert(0, str(PROJECT))


def arguments(doc, more=lambda add: None):
    """Parse --runs, --threads and --out, and what more(parser.add_argument) adds."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--runs", type=int, default=9, help="alternating runs (default: 9)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="JSON to write (default: benchmarks/results/)")
    more(parser.add_argument)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    return args


def alternate(functions, runs, warmup=2):
    """{name: function} -> {name: {"seconds": median, "ratio": median of own time / ours}}.

    Every round runs each function once; a ratio compares two times of one round. "ours" is a name.
    """
    times = {name: [] for name in functions}
    for round_ in range(runs + warmup):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if round_ >= warmup:
                times[name].append(time.perf_counter() - start)
    return {name: {"seconds": statistics.median(own), "ratio": statistics.median(
        a / b for a, b in zip(own, times["ours"]))} for name, own in times.items()}


def report(args, name, results, packages):
    """Print a table of {case: alternate's answer} and write it with machine and versions."""
    for case, rows in results.items():
        print(case)
        for peer, row in rows.items():
            extra = "".join(f"  {k} {v:.3g}" for k, v in row.items()
                            if k not in ("seconds", "ratio"))
            print(f"  {peer:<16}{row['seconds'] * 1e3:10.2f} ms {row['ratio']:8.2f} x ours{extra}")
    out = args.out or PROJECT / "benchmarks/results" / f"{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({
        "command": sys.argv, "date": time.strftime("%Y-%m-%d"), "runs": args.runs,
        "threads": args.threads, "machine": torch.cpu.get_capabilities().get("cpu_name"),
        "python": platform.python_version(), "torch": str(torch.__version__),
        "versions": {p: version(p) for p in packages}, "results": results}, indent=1) + "\n")
    print(f"wrote {out}")
