"""How soon the scripts answer: CPU seconds of whole commands, against those of importing torch.

    python benchmarks/startup.py [--runs 5]

Fits a memory to a small procedural set first, and scores one of its images.
"""

import statistics
import sys
import tempfile
from pathlib import Path

from timing import PROJECT, RESULTS, measure, parser_of, record

COMMANDS = {"import torch": ["-c", "import torch"], "train.py --help": ["train.py", "--help"],
            "infer.py --help": ["infer.py", "--help"],
            "visualize.py --help": ["visualize.py", "--help"],
            "a typo": ["train.py", "--epoch", "5"],
            "a missing folder": ["train.py", "--data", "no"],
            "one image, a memory": ["infer.py", "--image", "data/stripes/test/good/000.png"]}
REFUSED = "a typo", "a missing folder"


def seconds(words, folder, code=0):
    """CPU seconds of a command in this folder, which ends with this code."""
    done = measure([PROJECT / w if w.endswith(".py") else w for w in words], cwd=folder)
    assert done.code == code, done.err
    return done.cpu


def main():
    parser = parser_of(__doc__)
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
    record(RESULTS / "startup.json", runs=args.runs, results=found)


if __name__ == "__main__":
    main()
