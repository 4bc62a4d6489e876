"""The core: which modules of ad a default U-Net run of both scripts loads, and their lines.

    python benchmarks/core.py
"""

import sys
import tempfile
from pathlib import Path

from timing import PROJECT


def main():
    sys.path.insert(0, str(PROJECT / "tests"))
    from conftest import loaded, write_tiny
    with tempfile.TemporaryDirectory() as folder:
        data = write_tiny(Path(folder) / "data")
        options = ("--data", data, "--category", "stripes")
        names = {*loaded("train.py", *options, "--epochs", 4, "--width", 2, "--depth", 1,
                         cwd=folder), *loaded("infer.py", *options, cwd=folder)}
    files = {".".join(p.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): p
             for p in (PROJECT / "ad").rglob("*.py")}
    core = [files[name] for name in names & files.keys()]
    core += [PROJECT / script for script in ("train.py", "infer.py")]
    counts = {str(p.relative_to(PROJECT)): len(p.read_text().splitlines()) for p in core}
    for name, count in sorted(counts.items(), key=lambda pair: -pair[1]):
        print(f"{count:5}  {name}")
    everything = [*(PROJECT / "ad").rglob("*.py"), *PROJECT.glob("*.py")]
    print(f"{sum(counts.values()):5}  the core, {len(counts)} files, of "
          f"{sum(len(p.read_text().splitlines()) for p in everything)} in {len(everything)}")


if __name__ == "__main__":
    main()
