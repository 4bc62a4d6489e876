"""What README and docs/ promise: their commands, links, tables and Python code."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp

import infer
import train
import visualize
from ad import checkpoint
from ad.config import Scoring
from ad.detector import Detector, Member
from ad.fitting import remember
from ad.images import read_image
from ad.judging import calibrate
from ad.model import build_model
from conftest import PROJECT, run

sys.path.append(str(PROJECT / "benchmarks"))
import cells  # noqa: E402  (the path is set above)
import charts  # noqa: E402
import run_tables  # noqa: E402

SCRIPTS = {"train.py": train, "infer.py": infer, "visualize.py": visualize}
TEXTS = [PROJECT / name for name in ("README.md", "REPORT.md", "REPORT.zh-TW.md")] + sorted(
    (PROJECT / "docs").glob("*.md"))


def lines_of_code(text):
    """Words of the commands of a text, which are lines indented by four; what is after a # is not.
    """
    lines = re.findall(r"^    (?:\$ )?((?:python|torchrun) [^#\n]*)", text, re.M)
    return [shlex.split(part) for line in lines for part in line.split("&&")]


def commands(text):
    """[script, options ...] of all commands of a text, indented or `in backticks`."""
    inline = [shlex.split(part) for part in re.findall(r"`(python [^`]*)`", text)]
    return [words[i:] for words in lines_of_code(text) + inline
            for i, word in enumerate(words) if word.endswith(".py") and "pytest" not in words]


def test_every_command_is_one_that_the_parsers_take():
    known = 0
    for path in TEXTS:
        for script, *options in commands(path.read_text("utf-8")):
            if script in SCRIPTS:
                try:
                    SCRIPTS[script].build_parser().parse_args(options)
                except SystemExit:
                    pytest.fail(f"{path.name}: {script} {shlex.join(options)}")
                known += 1
            else:
                code = (PROJECT / script).read_text("utf-8")
                timed = (PROJECT / "benchmarks/timing.py").read_text("utf-8")
                for option in options:
                    assert not option.startswith("--") or f'"{option}"' in code + timed, (
                        path.name, script, option)
    assert known > 30  # finding none is a fault of this test


def test_examples_in_docstrings_are_parsed_too():
    for name, script in SCRIPTS.items():
        found = commands(script.__doc__)
        assert len(found) >= 4
        for called, *options in found:
            assert called == name
            script.build_parser().parse_args(options)


def anchors(path):
    """GitHub's anchors of the headings of a text."""
    headings = re.findall(r"^#+ (.*)", path.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_somewhere_and_every_picture_says_what_it_shows():
    figures = set()
    for path in TEXTS:
        for picture, words, target in re.findall(r"(!?)\[([^\]]*)\]\(([^)]+)\)",
                                                 path.read_text("utf-8")):
            if target.startswith("http"):
                continue
            name, _, anchor = target.partition("#")
            file = (path.parent / name).resolve() if name else path
            assert file.is_file(), f"{path.name}: {target}"
            assert not anchor or anchor in anchors(file), f"{path.name}: {target}"
            if picture:
                assert len(words) >= 8, f"{path.name}: {target}"
                figures.add(file)
    assert figures == set((PROJECT / "docs/figures").iterdir())  # and none is left over


def test_every_file_that_is_named_is_there():
    for path in TEXTS:
        for name in re.findall(r"`((?:ad|benchmarks|tests|\.ci|docs)/[\w./]*\w)`",
                               path.read_text("utf-8")):
            assert (PROJECT / name).exists() or name == "ad/mine.py", f"{path.name}: {name}"


def test_readme_is_two_pages():
    assert len((PROJECT / "README.md").read_text("utf-8").splitlines()) <= 200


def test_every_table_is_as_its_records():
    result = subprocess.run([sys.executable, "benchmarks/make_report.py", "--check"], cwd=PROJECT,
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_way_of_an_image_passes_files_that_are_there_and_can_be_drawn(tiny):
    files = [name for name, _ in charts.WAY]
    assert 5 <= len(set(files)) == len(files) <= 8
    assert all((PROJECT / name).is_file() for name in files)
    assert (charts.FIGURES / "way_of_an_image.png").stat().st_size < 300_000
    torch.manual_seed(0)
    paths = sorted((tiny / "stripes/train/good").iterdir())[:4]
    model = build_model("unet", width=4, depth=2, patch=4).eval()
    images = [read_image(path, 64) for path in paths]
    model.memory = remember(model, images, 64, torch.device("cpu"), 0)
    detector = Detector([Member("one", model, {"image_size": 64}, calibrate(
        model, images, Scoring((0,), 64, "fused"), "cpu"))])
    pictures, score = charts.steps_of(detector, paths[0])
    assert len(pictures) == len(charts.WAY) and score <= 1 + 1e-6
    assert all(p.dtype == np.uint8 and p.ndim == 3 and p.std() > 0 for p in pictures)


def test_intervals_of_the_tables():
    """Against the variance of Mann and Whitney's U without a difference, and scipy's t test."""
    for anomalous, normal in ((40, 60), (5, 100)):
        variance = (anomalous + normal + 1) / (12 * anomalous * normal)
        assert cells.auroc_error(0.5, anomalous, normal) ** 2 == pytest.approx(variance)
    values = [0.1, -0.02, 0.05, 0.01]
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    assert cells.by_set(values) == f"{sum(values) / 4:+.3f} ({low:+.3f} to {high:+.3f})"


def test_table_of_qualities(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "RESULTS", tmp_path)
    rows = [{"set": place, "model": model, "seed": 0, "auroc": auroc} for place, model, auroc in (
        ("mvtec_ad_more/grid", "unet", 0.9), ("mvtec_ad_more/grid", "memory", 0.8),
        ("paper/BDP01", "unet", 0.7), ("paper/BTN01", "unet", 0.9), ("paper/BTN01", "memory", 1.0),
        ("elsewhere/grid", "unet", 0.1), ("demo/carpet", "odd", 0.1))]
    (tmp_path / "quality.json").write_text(json.dumps({"rows": rows}))
    head, *found = run_tables.quality({})
    assert len({len(row) for row in (head, *found)}) == 1
    table = {row[0]: row[1:] for row in found}
    assert table["MVTec grid"] == ["0.900", "0.800", "-", "-", "-"]
    assert table["three papers"] == ["0.800 ± 0.100", "1.000", "-", "-", "-"]
    assert table["demo carpet"] == ["-"] * 5
    assert table["mean of the sets"] == ["-"] * 5  # some were not run
    # Minus 0.1 and plus 0.1: 12.7 is Student's t of one degree of freedom, 0.1 the standard error.
    assert table["minus the U-Net, 95 % interval by set"] == [
        "", "+0.000 (-1.271 to +1.271)", "-", "-", "-"]


SMALL = ("--width", "8", "--long-side", "64", "64")


def first_page(tmp_path, tiny, start, end):
    """Run README's commands between two headings in tmp_path, on tiny data with a small network;
    {script: its stdout}."""
    text = (PROJECT / "README.md").read_text("utf-8")
    part = text[text.index(f"\n## {start}\n"):text.index(f"\n## {end}\n")]
    printed = {}
    for words in lines_of_code(part):
        script, *options = words[1:]
        renamed = {"demo": str(tiny), "carpet": "stripes", **dict.fromkeys("345", "0.02")}
        options = [renamed.get(option, option) for option in options]
        result = run(script, *options, *(SMALL if script == "train.py" else ()), cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        printed[script] = result.stdout
    return printed


def test_readme_from_the_first_command_to_own_photographs(tiny, tmp_path):
    printed = first_page(tmp_path, tiny, "Try it", "Your own photographs")
    assert printed.keys() == SCRIPTS.keys()
    assert "epochs that fit into --minutes 0.02: " in printed["train.py"]
    assert "verdict" in printed["visualize.py"]
    assert (tmp_path / "results/look_stripes_unet-seed0_best.png").is_file()
    assert len(list((tmp_path / "results/maps").rglob("*.png"))) == 12

    shutil.copytree(tiny / "stripes/train/good", tmp_path / "photos/good")
    (tmp_path / "photos/today").mkdir()
    for name, source in (("a", "good/000"), ("b", "blot/001")):
        shutil.copy(tiny / f"stripes/test/{source}.png", tmp_path / f"photos/today/{name}.png")
    printed = first_page(tmp_path, tiny, "Your own photographs", "The homework's commands")
    # The word, not the score, which is rounded: 1.00 may be either.
    verdicts = {name: word == "ANOMALOUS" for word, name in re.findall(
        r"^(ANOMALOUS|normal) +\S+  (.*)", printed["infer.py"], re.M)}
    assert verdicts.keys() == {"photos/today/a.png", "photos/today/b.png"}
    code, = re.findall(r"```python\n(.*?)```", (PROJECT / "README.md").read_text("utf-8"), re.S)
    (tmp_path / "call.py").write_text("import os, sys\nsys.path.insert(0, sys.argv.pop())\n" + code)
    result = subprocess.run([sys.executable, "call.py", PROJECT], cwd=tmp_path, text=True,
                            capture_output=True)
    called = [anomalous for _, anomalous in sorted(verdicts.items())]
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f"[{' '.join(str(one).rjust(5) for one in called)}]", \
        printed["infer.py"]


def write_own_model(folder, code=None):
    """The project in a folder, with a model of one's own as ad/mine.py: by default that of the
    documents."""
    text = (PROJECT / "docs/development.md").read_text("utf-8")
    for name in SCRIPTS:
        shutil.copy(PROJECT / name, folder)
    shutil.copytree(PROJECT / "ad", folder / "ad")
    (folder / "ad/mine.py").write_text(code or re.search(r"```python\n(.*?)```", text, re.S)[1])
    with open(folder / "ad/model.py", "a") as file:
        line, = re.findall(r'`(MODELS\["mine"\] = .*?)`', text)
        file.write(f"\n\n{line}\n")


def test_a_model_that_only_fits_is_judged_by_what_it_has_not_learned(tiny, tmp_path):
    """Its score is the distance to the nearest normal image: 0 for what it holds."""
    write_own_model(tmp_path, """import torch


class Mine(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("known", torch.zeros(0, 3, 64, 80))

    def _load_from_state_dict(self, state, prefix, *rest):
        self.known = torch.zeros_like(state[prefix + "known"])
        super()._load_from_state_dict(state, prefix, *rest)

    def fit(self, batches):
        self.known = torch.cat(list(batches))

    def anomaly_maps(self, images, names=None):
        near = torch.cdist(images.flatten(1), self.known.flatten(1)).amin(1)
        return {"mse": near.view(-1, 1, 1, 1).expand(-1, 1, *images.shape[2:])}
""")
    options = ("--data", str(tiny), "--category", "stripes")
    for line in (("train.py", *options, "--model", "mine", "--verbose"), ("infer.py", *options)):
        result = subprocess.run([sys.executable, *line], cwd=tmp_path, capture_output=True,
                                text=True)
        assert result.returncode == 0, result.stderr
    saved = checkpoint.load(tmp_path / "runs/stripes/mine-seed0/best.pt")
    normals = sorted((tiny / "stripes/train/good").iterdir())
    assert len(saved["model"]["known"]) == len(normals) == len(saved["calibration"]["scores"])
    # By one that holds them all would be at the same distance, 0.
    assert len({round(score, 3) for score in saved["calibration"]["scores"]}) > 3
    assert "AUROC" in result.stdout


def test_the_model_of_the_documents_trains_scores_and_shows(tiny, tmp_path):
    write_own_model(tmp_path)
    options = ("--data", str(tiny), "--category", "stripes")
    for line in (("train.py", *options, "--model", "mine", "--width", "8", "--epochs", "8",
                  "--batch", "4", "--lr", "1e-2", "--long-side", "64", "64", "--crop", "0"),
                 ("infer.py", *options), ("visualize.py", "--ckpt", "best.pt", "--count", "2")):
        result = subprocess.run([sys.executable, *line], cwd=tmp_path, capture_output=True,
                                text=True)
        assert result.returncode == 0, result.stderr
    # Four pixels a side through a layer of 8: no fine structure, or nothing at all (on a GPU).
    assert "blur" in result.stdout or "collapse: " in result.stdout
    assert (tmp_path / "results/look_stripes_mine-seed0_best.png").is_file()
    assert len((tmp_path / "results/scores.csv").read_text().splitlines()) == 13
