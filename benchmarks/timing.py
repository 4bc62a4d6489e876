"""What the benchmarks share: options, alternating timings, measured commands, records as JSON."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from importlib.metadata import version
from pathlib import Path

PROJECT = Path(__file__).parent.parent
RESULTS, FIGURES = PROJECT / "benchmarks/results", PROJECT / "docs/figures"
sys.path.insert(0, str(PROJECT))

# A command that has ended. seconds: of the clock; cpu: user and system; peak_mib: of its memory.
# All are those of the command and of the processes that it waited for.
Done = namedtuple("Done", "code out err seconds cpu peak_mib")


def arguments(doc, more=lambda add: None):
    """Parse --runs, --threads and --out, and what more(parser.add_argument) adds."""
    import torch  # not needed by what measures commands
    parser = parser_of(doc)
    parser.add_argument("--runs", type=int, default=9, help="alternating runs (default: 9)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="JSON to write (default: benchmarks/results/)")
    more(parser.add_argument)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    return args


def parser_of(doc):
    """A parser whose --help is a benchmark's docstring as it is written."""
    return argparse.ArgumentParser(description=doc,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)


def measure(words, **options):
    """Run a command, this Python with these words, to its end: Done. options: of Popen."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *map(str, words)], stdout=out, stderr=err,
                                   **options)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        return Done(process.returncode, out.read(), err.read(), seconds,
                    used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def alone(*words):
    """Run this benchmark with these words in a process of its own: the JSON that it prints last,
    and its "peak_mib". SystemExit with its error where it fails."""
    done = measure([sys.argv[0], *words])
    if done.code:
        sys.exit(done.err[-2000:])
    return json.loads(done.out.splitlines()[-1]) | {"peak_mib": done.peak_mib}


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


def markdown(lines):
    """Lists of cells, the header first, as a Markdown table."""
    lines = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "".join("| " + " | ".join(line).replace("|  |", "| |") + " |\n" for line in lines)


def record(path, packages=(), **content):
    """Write a benchmark's JSON: content, and the command, date, machine and versions."""
    import torch
    from ad.checkpoint import write_atomic
    about = {"command": sys.argv, "date": time.strftime("%Y-%m-%d"),
             "threads": torch.get_num_threads(),
             "machine": torch.cpu.get_capabilities().get("cpu_name") or platform.machine(),
             "python": platform.python_version(), "torch": str(torch.__version__),
             "versions": {package: version(package) for package in packages}}
    write_atomic(path, json.dumps(about | content, indent=1) + "\n")
    print(f"wrote {path}", flush=True)


def report(args, name, results, packages):
    """Print a table of {case: alternate's answer} and write it as --out or results/<name>.json."""
    for case, rows in results.items():
        print(case)
        for peer, row in rows.items():
            extra = "".join(f"  {k} {v:.3g}" for k, v in row.items()
                            if k not in ("seconds", "ratio"))
            print(f"  {peer:<16}{row['seconds'] * 1e3:10.2f} ms {row['ratio']:8.2f} x ours{extra}")
    record(args.out or RESULTS / f"{name}.json", packages, runs=args.runs, results=results)
