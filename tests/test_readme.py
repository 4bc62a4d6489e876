"""What README promises: its model in 20 lines works, its options are those of the scripts."""

import re
import shutil
import subprocess
import sys

import pytest

import infer
import train
import visualize
from conftest import PROJECT


def test_the_model_of_the_readme_trains_scores_and_shows(tiny, tmp_path):
    text = (PROJECT / "README.md").read_text("utf-8")
    code, = (part for part in re.findall(r"```python\n(.*?)```", text, re.S) if "Mine" in part)
    line, = re.findall(r'`(MODELS\["mine"\] = [^`]*)`', text)
    for name in ("train.py", "infer.py", "visualize.py"):
        shutil.copy(PROJECT / name, tmp_path)
    shutil.copytree(PROJECT / "ad", tmp_path / "ad")
    (tmp_path / "ad/mine.py").write_text(code)
    with open(tmp_path / "ad/model.py", "a") as file:
        file.write(f"\n\n{line}\n")
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


@pytest.mark.parametrize("script", [train, infer, visualize])
def test_commands_in_the_texts_have_options_that_there_are(script):
    known = {name for action in script.build_parser()._actions for name in action.option_strings}
    texts = [(PROJECT / name).read_text("utf-8") for name in ("README.md", "REPORT.md")]
    lines = re.findall(rf"\b{script.__name__}\.py( [^\n`|&#]*)", "\n".join(texts))
    if script is train:
        lines += re.findall(r"^[^#(\n]+$", (PROJECT / "benchmarks/experiments.txt").read_text(),
                            re.MULTILINE)
    for line in lines:
        assert set(re.findall(r"(?<= )--[a-z][a-z-]+", line)) <= known, line
    assert len(lines) > 5


def test_every_table_is_as_its_records():
    result = subprocess.run([sys.executable, "benchmarks/make_report.py", "--check"], cwd=PROJECT,
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
