"""What was tried and survived: kills, random command lines, mutations; its table is in
docs/development.md.

    python tests/survive.py            # about 20 minutes; tests/test_survive.py does a little of it
    python tests/survive.py --kills 50 --lines 500
"""

import argparse
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

PROJECT = Path(__file__).parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from ad import InputError, checkpoint  # noqa: E402  (the project's folder is put on the path above)
from conftest import FRESH, TINY_TRAINING, in_child, run, tiny_image, write_tiny  # noqa: E402

EPOCHS = 4
# file, what is there, what it becomes, the tests that must notice.
MUTATIONS = [
    ("ssim", "/ 2\n    kernel", "/ 3\n    kernel", "ssim"),
    ("ssim", "-0.5 * (offsets", "-0.6 * (offsets", "ssim"),
    ("ssim", "mean_y, c1, alpha=-2)", "mean_y, c1, alpha=-1)", "ssim"),
    ("ssim", "(mean_squares + (c1 + c2)).sub_(", "(mean_squares + (c1 + c2)).add_(", "ssim"),
    ("ssim", "alpha=-2).sub_(above_1)", "alpha=-2).add_(above_1)", "ssim"),
    ("ssim", "int(3 * sigma + 0.5)", "int(2 * sigma + 0.5)", "scoring"),
    ("sliding_window", "span = length - window", "span = length + window", "sliding_window"),
    ("sliding_window", "(2 * i * span + count - 1)", "(2 * i * span - count - 1)",
     "sliding_window"),
    ("sliding_window", "clamp_min(1e-3)", "clamp_min(1e-1)", "sliding_window"),
    ("sliding_window", "window / 8", "window / 7", "sliding_window"),
    ("sliding_window", "missing[0] // 2, missing[1] // 2", "missing[0] // 3, missing[1] // 2",
     "sliding_window"),
    ("scoring", "flat.topk(max(1, round(fraction", "flat.topk(max(2, round(fraction", "scoring"),
    ("scoring", "means.amax(1", "means.amin(1", "scoring"),
    ("threshold", "(scores - normal.mean())", "(scores + normal.mean())", "scoring"),
    ("threshold", "- self.threshold) / (unit", "- self.typical) / (unit", "validation"),
    ("sets/rules", "(values[:-1] + values[1:]) / 2", "(values[:-1] + values[1:]) / 3", "scoring"),
    ("cutpaste", "angle.cos()[:, None], angle.sin()", "angle.sin()[:, None], angle.sin()",
     "cutpaste"),
    ("cutpaste", "cos * y - sin * x", "cos * y + sin * x", "cutpaste"),
    ("cutpaste", "half[:, :1] * along", "half[:, 1:] * along", "cutpaste"),
    ("cutpaste", "2 * x / images.shape[3] - 1", "2 * x / images.shape[2] - 1", "cutpaste")]


def slow_writes(*arguments):
    """in_child with an fsync of 50 ms, so that kills often hit a checkpoint being written."""
    fsync = os.fsync
    os.fsync = lambda file: (time.sleep(0.05), fsync(file))
    in_child(*arguments)


def start(script, arguments, cwd, files):
    process = FRESH.Process(target=slow_writes, args=(
        script, [str(a) for a in arguments], str(cwd), {**os.environ, "OMP_NUM_THREADS": "1"},
        files))
    process.start()
    return process


def kill_after(process, seconds):
    """SIGKILL after so many seconds; was it still running? If not, it must have done its work."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return process.exitcode == -signal.SIGKILL


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


def training_kills(count, folder):
    """Kill one run at random moments and resume it, over and over, until `count` kills; whenever it
    ends its weights must be those of the run that was left alone: (kills, finished runs)."""
    data = write_tiny(folder / "data")
    options = ["--data", data, "--category", "stripes", *TINY_TRAINING, "--epochs", EPOCHS]
    run("train.py", "--help", cwd=folder)  # the first has to wait for the imports
    begin = time.time()
    result = run("train.py", *options, "--name", "whole", cwd=folder)
    seconds = time.time() - begin
    assert result.returncode == 0, result.stderr
    whole = checkpoint.load(folder / "runs/stripes/whole/last.pt")["model"]
    rng, kills, finished, number = random.Random(0), 0, 0, 0
    while kills < count:
        name, number = f"killed{number}", number + 1
        run_folder = folder / "runs/stripes" / name
        for _ in range(8):
            killed = kill_after(start("train.py", [*options, "--name", name, "--resume"], folder,
                                      [folder / "out", folder / "err"]),
                                rng.uniform(0.2, 1.5 * seconds))
            kills += killed
            for path in run_folder.glob("*.pt"):
                checkpoint.load(path)  # whatever is there is whole
            if not killed:
                break
        result = run("train.py", *options, "--name", name, "--resume", cwd=folder)
        assert result.returncode == 0, result.stderr
        assert same(whole, checkpoint.load(run_folder / "last.pt")["model"]), name
        finished += 1
        shutil.rmtree(run_folder)
    return kills, finished


def inference_kills(count, folder):
    """Kill infer.py at random moments: results/scores.csv is the old one or the new one."""
    options = ["--data", folder / "data", "--category", "stripes", "--runs", folder / "runs"]
    texts = []
    for topk in (0.1, 0.2):
        begin = time.time()
        result = run("infer.py", *options, "--topk", topk, cwd=folder)
        seconds = time.time() - begin
        assert result.returncode == 0, result.stderr
        texts.append((folder / "results/scores.csv").read_text())
    assert texts[0] != texts[1]
    rng, kills = random.Random(1), 0
    while kills < count:
        kills += kill_after(start("infer.py", [*options, "--topk", rng.choice((0.1, 0.2))], folder,
                                  [folder / "out", folder / "err"]), rng.uniform(0.2, seconds))
        assert (folder / "results/scores.csv").read_text() in texts
    return kills


def values(rng, folder):
    """Values that options may get, sensible and not."""
    return rng.choice(["0", "1", "2", "-1", "0.5", "1e9", "nan", "inf", "", "x", "ssim", "mask",
                       "auto", "unet", "patchcore",
                       "vae", "resnet", "global", "position", "bf16", "fp32",
                       "stripes", "none", "32", "64", str(folder / "data"), str(folder), "best.pt",
                       "quantile:0.5", "quantile:2", "midpoint", "cosine", "gradients", "../..",
                       "ünïcode", "a b", "stripes/x", "demo-wells/x", "--", "8 16"])


def options_of(script):
    """Its long options, as --help-all names them."""
    import re
    text = run(script, "--help-all", cwd=PROJECT).stdout
    return sorted(set(re.findall(r"--[a-z][a-z-]+", text)) - {"--help", "--help-all"})


def random_lines(count, folder):
    """Random command lines of the three scripts; (lines, how many of them worked). None may give
    a traceback; a refusal is one line and exit code 2."""
    rng, worked = random.Random(2), 0
    scripts = {script: options_of(script) for script in ("train.py", "infer.py", "visualize.py")}
    for number in range(count):
        script = rng.choice(list(scripts))
        line = {"train.py": ["--category", "stripes", "--width", "2", "--depth", "1", "--name",
                             f"fuzz{number}", "--val-every", "1"],
                "infer.py": ["--category", "stripes"],
                "visualize.py": ["--ckpt", "whole/best.pt"]}[script] if rng.random() < 0.8 else []
        line = line + ["--epochs", "1"] if script == "train.py" else line
        line = line + ["--data", str(folder / "data")] if rng.random() < 0.9 else line
        for _ in range(rng.randint(0, 3)):
            option = rng.choice(scripts[script])
            if option in ("--epochs", "--minutes", "--side", "--image-height", "--image-width",
                          "--groups"):
                continue  # large ones work, for hours
            line += [option] + [values(rng, folder) for _ in range(rng.randint(0, 2))]
        result = run(script, *line, cwd=folder)
        shown = f"{script} {line}: {result.returncode}\n{result.stderr}"
        assert "Traceback" not in result.stderr, shown
        assert result.returncode in (0, 1 if "--fail-on-anomaly" in line else 2, 2), shown
        if result.returncode == 2:
            last = result.stderr.strip().splitlines()[-1]
            assert last.startswith("error: ") or "cannot read image" in last, shown
        worked += result.returncode == 0
    return count, worked


def spoil_file(rng, path):
    """Make an image or a mask something else: damaged, or sound and of another kind."""
    whole, image = bytearray(path.read_bytes()), Image.open(path).convert("RGB")
    kind = rng.randrange(6)
    if kind == 0:
        whole = whole[:rng.randrange(len(whole))]
    elif kind == 1:
        whole = rng.randbytes(rng.randrange(300))
    elif kind == 2:
        for _ in range(4):
            whole[rng.randrange(len(whole))] = rng.randrange(256)
    else:
        buffer, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = rng.randrange(10)
        image = image.resize(rng.choice([image.size] * 4 + [(15, 15), (600, 20), (20, 600)]))
        image = image.convert("L").convert(rng.choice(["1", "L", "LA", "P", "RGBA", "CMYK", "I;16",
                                                       "I", "F"]))
        image.save(buffer, "TIFF", exif=exif)  # by whatever name; the content decides
        whole = buffer.getvalue()
    path.write_bytes(whole)


def bad_files(count, folder):
    """Train and score with a few spoilt images and masks, again and again; (runs, how many of them
    worked). A refusal is lines that name the files, and exit code 2."""
    rng, worked = random.Random(3), 0
    for number in range(count):
        data = folder / f"spoilt{number}"
        shutil.copytree(folder / "data", data)
        for path in rng.sample(sorted(data.rglob("*.png")), rng.randint(1, 4)):
            spoil_file(rng, path)
        script, *line = rng.choice([
            ("infer.py", "--runs", folder / "runs", "--members", "whole"),
            ("train.py", "--model", "patchcore", "--layers", 8),
            ("train.py", "--model", "patchcore", "--layers", 8, "--skip-bad-images")])
        result = run(script, "--data", data, "--category", "stripes", *line, cwd=data)
        assert result.returncode in (0, 2) and "Traceback" not in result.stderr, result.stderr
        assert result.returncode == 0 or f"{data}/stripes/" in result.stderr, result.stderr
        worked += result.returncode == 0
        shutil.rmtree(data)
    return count, worked


def spoil_folder(rng, base):
    """Change one thing in a category's folder, as people, their systems and their tools do."""
    files = [p for p in sorted(base.rglob("*.png")) if p.is_file()]
    folders = [p for p in sorted(base.rglob("*")) if p.is_dir() and not p.is_symlink()]
    if not files or not folders:
        return
    file, place = rng.choice(files), rng.choice([base.parent, base, *folders])
    odd = rng.choice([".hidden", "@eaDir", "line 1", "a,b", "näme", "名前", "x$y_{", "-dash",
                      "good", "unknown", "OK", "test", "train", "a+b", "pool", "%s", "[x]", "1.png",
                      os.fsdecode(b"latin-\xe9")])
    change = rng.randrange(10)
    if change == 0:
        place.joinpath(odd).mkdir(exist_ok=True)
    elif change == 1 and not place.joinpath(odd).exists():
        shutil.copytree(file.parent, place / odd, symlinks=True)
    elif change == 2 and not place.joinpath(odd).exists():
        shutil.copy(file, place / (odd + rng.choice([".png", ".jpg", ".heic", ".gif", ""])))
    elif change == 3 and not file.with_name(odd + ".png").exists():
        file.rename(file.with_name(odd + ".png"))
    elif change == 4:
        shutil.rmtree(rng.choice(folders))
    elif change == 5:
        file.write_bytes(file.read_bytes()[:rng.choice((0, 100))])
    elif change == 6 and not place.joinpath("link").is_symlink():
        place.joinpath("link").symlink_to(rng.choice([base, file, base / "nowhere"]))
    elif change == 7:
        folder = rng.choice(folders)
        shutil.rmtree(folder)
        folder.write_text("a file")
    elif change == 8:
        file.unlink()
    elif not place.joinpath(odd).exists() and place not in (base, base.parent):
        place.rename(place.with_name(odd))


def bad_folders(count, folder):
    """Data sets with up to four things wrong, through the three scripts: (data sets, how many of
    them were trained and scored). None may give a traceback; a refusal is one line a file."""
    rng, worked = random.Random(3), 0
    for number in range(count):
        cwd = folder / f"bad{number}"
        for seed, name in enumerate(("stripes", "bands")):
            write_tiny(cwd / "data", name, train=5, seed=seed)
        for _ in range(rng.randint(1, 4)):
            spoil_folder(rng, cwd / "data" / rng.choice(("stripes", "bands")))
        for script, options in (("train.py", ("--all", "--model", "patchcore", "--layers", "8")),
                                ("infer.py", ("--all", "--maps", "--masks")),
                                ("visualize.py", ("--report",))):
            result = run(script, "--data", cwd / "data", *options, cwd=cwd)
            shown = f"{script}, {cwd}: {result.returncode}\n{result.stderr}"
            assert "Traceback" not in result.stderr and result.returncode in (0, 2), shown
            if result.returncode:
                first = result.stderr.strip().splitlines()
                assert any(line.startswith("error: ") for line in first), shown
                break
        worked += result.returncode == 0
        shutil.rmtree(cwd)
    return count, worked


def random_tables(count, folder):
    """A flat folder with a damaged categories.csv and sample submission, over and over: (tries, how
    many worked). None may give a traceback; a refusal is exit code 2, and leaves the table."""
    rng, worked, flat = random.Random(3), 0, folder / "flat"
    for split, number in (("train", 8), ("test", 2)):
        (flat / split).mkdir(parents=True)
        for index in range(number):
            Image.fromarray(tiny_image(np.random.default_rng(index))).save(
                flat / split / f"{index}.png")
    lines = [f"train/{i}.png,{'ab'[i // 4]},1" for i in range(8)]
    table, sample = "\n".join(["file,category,confidence", *lines]), "id,prediction\n0,0\n1.png,0"
    for number in range(count):
        runs, texts = folder / f"tables{number}", []
        for text in (table, sample):
            for _ in range(rng.randrange(3)):
                at, end = sorted(rng.choices(range(len(text) + 1), k=2))
                text = text[:at] + rng.choice(["", ";", '"', "\n", "\0", "/", "é", text[at:end] * 2]
                                              ) + text[rng.choice((at, min(end, at + 8))):]
            text = text.replace(",", rng.choice(",,;\t")).replace("\n", rng.choice(("\n", "\r\n")))
            texts.append(text.encode(rng.choice(("utf-8", "utf-8-sig", "utf-16", "latin-1"))))
        runs.mkdir()
        (runs / "categories.csv").write_bytes(texts[0])
        (runs / "sample.csv").write_bytes(texts[1])
        common = ["--data", flat, "--all", "--runs", runs]
        for line in (["train.py", *common, "--model", "patchcore", "--name", "x"],
                     ["infer.py", *common, "--like", runs / "sample.csv"]):
            result = run(*line, cwd=folder)
            shown = f"{texts}: {result.returncode}\n{result.stderr}"
            assert "Traceback" not in result.stderr and result.returncode in (0, 2), shown
            assert result.returncode == 0 or result.stderr.startswith("error: "), shown
        assert (runs / "categories.csv").read_bytes() == texts[0]
        worked += result.returncode == 0
    return count, worked


def mutants():
    """Change one thing at a time in a copy of the project; do the tests notice?"""
    killed = 0
    for number, (module, old, new, tests) in enumerate(MUTATIONS):
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / "project"
            shutil.copytree(PROJECT, copy, ignore=shutil.ignore_patterns(".git", "runs", "data"))
            path = copy / "ad" / f"{module}.py"
            text = path.read_text()
            assert text.count(old) >= 1, (module, old)
            path.write_text(text.replace(old, new, 1))
            found = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "-n", "0",
                                    f"tests/test_{tests}.py"], cwd=copy, capture_output=True)
            verdict = "noticed" if found.returncode else "NOT NOTICED"
            print(f"mutation {number}: {verdict}: {module}: {old!r} -> {new!r}", flush=True)
            killed += found.returncode != 0
    return killed


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="of training, and half as many of "
                        "inference (default: 50)")
    parser.add_argument("--lines", type=int, default=500, help="random ones (default: 500)")
    parser.add_argument("--folders", type=int, default=60, help="bad ones (default: 60)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        kills, finished = training_kills(args.kills, folder)
        print(f"training: {kills} kills, {finished} runs to the end", flush=True)
        inferences = inference_kills(args.kills // 2, folder)
        print(f"inference: {inferences} kills", flush=True)
        lines, worked = random_lines(args.lines, folder)
        spoilt, right = bad_files(args.lines // 5, folder)
        folders, scored = bad_folders(args.folders, folder)
        tables, read = random_tables(args.lines // 5, folder)
    killed = mutants()
    rows = [["SIGKILL during training, at random moments, writes slowed", kills,
             f"every checkpoint loads; {finished} runs, resumed again and again, end with the "
             "weights of an undisturbed one"],
            ["SIGKILL during inference", inferences, "scores.csv is the old or the new one"],
            ["random command lines", lines, f"no traceback; {worked} worked, {lines - worked} were "
             "refused in one line"],
            ["spoilt images and masks", spoilt, f"no traceback; {right} worked, the others named "
             "the files"],
            ["folders with up to four things wrong", folders, f"no traceback; {scored} were "
             f"trained and scored, {folders - scored} refused, every bad file in a line"],
            ["damaged categories.csv and sample submissions", tables,
             f"no traceback; {read} worked, {tables - read} were refused in one line"],
            ["mutations of SSIM, windows, scoring, CutPaste", len(MUTATIONS), f"{killed} noticed"]]
    out = PROJECT / "benchmarks/results/survive.json"
    checkpoint.write_atomic(out, json.dumps(
        {"command": sys.argv, "date": time.strftime("%Y-%m-%d"), "results": rows}, indent=1) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"a checkpoint was damaged: {error}")
