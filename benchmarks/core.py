"""The core: which modules of ad a default U-Net run of both scripts loads, and their lines.

    python benchmarks/core.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).parent.parent
CODE = ("import os, runpy, sys\nsys.argv = sys.argv[1:]\nsys.path.insert(0, os.path.dirname("
        "sys.argv[0]))\ntry:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit:\n    pass\nprint('\\n', *(m.__file__ for n, m in sys.modules.items() "
        "if n.split('.')[0] == 'ad' and m.__file__))")


def loaded(cwd, script, *options):
    """Files of the package that a script has imported when it ends."""
    result = subprocess.run([sys.executable, "-c", CODE, PROJECT / script, *map(str, options)],
                            cwd=cwd, capture_output=True, text=True)
    return set(result.stdout.splitlines()[-1].split())


def main():
    sys.path.insert(0, str(PROJECT / "tests"))
    from conftest import write_tiny
    with tempfile.TemporaryDirectory() as folder:
        data = write_tiny(Path(folder) / "data")
        options = ("--data", data, "--category", "stripes")
        files = loaded(folder, "train.py", *options, "--epochs", 4, "--width", 2, "--depth", 1)
        files |= loaded(folder, "infer.py", *options)
    files |= {str(PROJECT / script) for script in ("train.py", "infer.py")}
    counts = {str(Path(f).relative_to(PROJECT)): len(Path(f).read_text().splitlines())
              for f in files}
    for name, count in sorted(counts.items(), key=lambda pair: -pair[1]):
        print(f"{count:5}  {name}")
    everything = [*(PROJECT / "ad").rglob("*.py"), *PROJECT.glob("*.py")]
    print(f"{sum(counts.values()):5}  the core, {len(counts)} files, of "
          f"{sum(len(p.read_text().splitlines()) for p in everything)} in {len(everything)}")


if __name__ == "__main__":
    main()
