"""How soon the scripts answer: CPU seconds of whole commands, against those of importing torch.

    python benchmarks/startup.py [--runs 5]

Fits a memory to a small procedural set first, and scores one of its images.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).parent.parent
COMMANDS = {"import torch": ["-c", "import torch"], "train.py --help": ["train.py", "--help"],
            "infer.py --help": ["infer.py", "--help"],
            "visualize.py --help": ["visualize.py", "--help"],
            "a typo": ["train.py", "--epoch", "5"],
            "a missing folder": ["train.py", "--data", "no"],
            "one image, a memory": ["infer.py", "--image", "data/stripes/test/good/000.png"]}
REFUSED = "a typo", "a missing folder"


def seconds(words, folder, code=0):
    """CPU seconds, user and system, of a command of this Python, which ends with this code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *(str(PROJECT / w) if w.endswith(".py") else w for w in words)],
        cwd=folder, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="alternating runs (default: 5)")
    args = parser.parse_args()
    sys.path.insert(0, str(PROJECT / "tests"))
    from conftest import write_tiny
    with tempfile.TemporaryDirectory() as folder:
        write_tiny(Path(folder) / "data")
        seconds(["train.py", "--data", "data", "--model", "patchcore"], folder)
        rounds = [{name: seconds(words, folder, 2 * (name in REFUSED)) for name, words in
                   COMMANDS.items()}
                  for _ in range(args.runs)]
    found = {name: {"cpu_seconds": round(statistics.median(r[name] for r in rounds), 3),
                    "of_import_torch": round(statistics.median(
                        r[name] / r["import torch"] for r in rounds), 3)} for name in COMMANDS}
    for name, row in found.items():
        print(f"{name:<20} {row['cpu_seconds']:7.2f} s {row['of_import_torch']:7.2f}")
    out = PROJECT / "benchmarks/results/startup.json"
    out.write_text(json.dumps({"command": sys.argv, "date": time.strftime("%Y-%m-%d"),
                               "machine": platform.machine(), "python": platform.python_version(),
                               "runs": args.runs, "results": found}, indent=1) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
