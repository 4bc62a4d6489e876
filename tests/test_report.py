"""visualize.py --report: the page's data against scores.csv and metrics.json, and the page itself
in a browser where there is one."""

import base64
import csv
import html
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score

from ad import checkpoint, metrics
from ad.pictures import report
from conftest import PROJECT, TINY_TRAINING, run, write_tiny

EVIL = "<img src=x onerror=alert(1)>"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
                None)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A folder with data/ (two of the defects have evil names, and two images the wrong label, so
    that there are mistakes of both kinds), runs/ and results/report.html."""
    cwd = tmp_path_factory.mktemp("report")
    base = write_tiny(cwd / "data") / "stripes"
    for part in ("test", "ground_truth"):
        (base / part / "blot").rename(base / part / EVIL)
        (base / part / "gap").rename(base / part / "<")
    (base / "test/</003.png").rename(base / "test/</script>.png")
    (base / "ground_truth/</003_mask.png").rename(base / "ground_truth/</script>_mask.png")
    one, other = base / "test" / EVIL / "000.png", base / "test/good/003.png"
    pictures = one.read_bytes(), other.read_bytes()
    one.write_bytes(pictures[1])
    other.write_bytes(pictures[0])
    for script, arguments in (
            ("train.py", ("--category", "stripes", *TINY_TRAINING, "--epochs", 4)),
            ("infer.py", ("--all", "--masks", "--threshold", 30)),
            ("visualize.py", ("--report",))):
        result = run(script, "--data", "data", *arguments, cwd=cwd)
        assert result.returncode == 0, result.stderr
    assert "wrote results/report.html: 12 images" in result.stdout
    assert "not those of scores.csv" not in result.stdout
    return cwd


def page_data(cwd):
    page = (cwd / "results/report.html").read_text()
    return json.loads(re.search(r'id="data">(.*)</script>\n<script>', page).group(1))


def rows_of(cwd):
    with open(cwd / "results/scores.csv", newline="") as file:
        return list(csv.DictReader(file))


def picture(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("L"))


def test_data_are_those_of_scores_and_metrics(reported):
    found, rows = page_data(reported), rows_of(reported)
    assert [[str(i[k]) for k in ("id", "defect", "label", "prediction")] for i in found["images"]] \
        == [[r[k] for k in ("id", "defect", "label", "prediction")] for r in rows]
    assert [i["score"] for i in found["images"]] == [float(r["score"]) for r in rows]
    results = json.loads((reported / "results/metrics.json").read_text())
    assert found["results"] == results
    entry, = found["entries"]
    assert entry["name"] == "stripes" and entry["metrics"] == results["categories"]["stripes"]
    fpr, tpr = np.transpose(entry["roc"])
    assert np.trapezoid(tpr, fpr) == pytest.approx(entry["metrics"]["auroc"], abs=1e-5)
    recall, precision = np.transpose(entry["pr"])
    assert -np.sum(np.diff(recall) * precision[:-1]) == pytest.approx(
        entry["metrics"]["ap"], abs=1e-5)
    for label, total in (("0", 4), ("1", 8)):
        scores = [float(r["score"]) for r in rows if r["label"] == label]
        counts, edges = entry["histogram"][label], found["edges"]
        assert sum(counts) == total
        assert counts == [sum(low <= s < high for s in scores)
                          for low, high in zip(edges, edges[1:])]
    assert edges[0] < entry["metrics"]["threshold"] < edges[-1]


def test_runs_curves_and_collapse_check(reported):
    member, = page_data(reported)["entries"][0]["runs"]
    folder = reported / "runs/stripes/unet-seed0"
    log = [json.loads(line) for line in open(folder / "log.jsonl")]
    assert member["log"]["loss"] == [[r["epoch"], r["loss"]] for r in log]
    assert member["log"]["auroc"] == [[r["epoch"], r["auroc"]] for r in log if "auroc" in r]
    config = json.loads((folder / "config.json").read_text())
    assert member["config"]["args"] == config["args"] and member["config"]["train"] == "10 files"
    output = run("visualize.py", "--data", "data", "--ckpt", "best.pt", cwd=reported).stdout
    for name, value, healthy, *_ in member["collapse"]:
        assert re.search(rf"^{name} +{value:.3f} .*fails below {healthy[3:]}\)", output, re.M)
    assert f"verdict: {member['verdict']}\n" in output and len(member["collapse"]) == 4


def test_pictures_show_the_image_and_its_masks(reported):
    found, base = page_data(reported), reported / "data/stripes"
    for image, row in zip(found["images"], rows_of(reported)):
        shown = dict(zip(found["columns"], image["pictures"]))
        original = np.asarray(Image.open(row["path"] if Path(row["path"]).is_absolute() else
                                         reported / row["path"]).convert("L"), dtype=float)
        assert np.abs(picture(shown["input"]) - original).mean() < 8
        assert picture(shown["reconstruction"]).shape == picture(shown["anomaly map"]).shape \
            == original.shape
        assert (shown["ground truth"] is None) == (image["label"] == 0)
        assert shown["predicted mask"]
        for name, path in (
                ("ground truth", base / f"ground_truth/{image['id']}_mask.png"),
                ("predicted mask", reported / f"results/masks/stripes/{image['id']}.png")):
            if shown[name]:
                expected = np.asarray(Image.open(path).convert("L")) > 127
                assert ((picture(shown[name]) > 127) == expected).mean() > 0.99


def test_page_asks_for_nothing_and_nothing_ends_its_data(reported):
    page = (reported / "results/report.html").read_text()
    assert EVIL not in page and page.count("<script") == page.count("</script") == 2
    template = (PROJECT / "ad/pictures/report.html").read_text()
    assert not re.search(r"https?:|//\w+\.|\bimport\b|@import|url\(|<link", template)
    assert not re.search(r"(src|href)\s*=\s*[\"']?(?!#|x on)[\w/.]", template)
    assert "default-src 'none'" in page and not re.search(r"innerHTML|document\.write", page)


def test_curves_are_thinned_and_keep_their_area():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 3000)
    scores = labels + rng.normal(size=3000)
    found = report.curves(np.append(labels, -1), np.append(scores, 99.0))
    for points in found.values():
        assert len(points) == 200
    assert found["roc"][0] == [0, 0] and found["roc"][-1] == [1, 1]
    assert np.trapezoid(*np.transpose(found["roc"])[::-1]) == pytest.approx(
        metrics.auroc(labels, scores), abs=2e-3)
    recall, precision = np.transpose(found["pr"])
    assert -np.trapezoid(precision, recall) == pytest.approx(
        average_precision_score(labels, scores), abs=0.01)
    assert report.curves(np.array([1, 1, -1]), np.array([0.0, 1, 2])) == {}


def test_separate_runs_scores_of_another_scoring_and_no_training_images(reported, tmp_path):
    """Entries like stripes/unet-seed0; scores that are not those of scores.csv are counted; the
    collapse check, which needs validation images, says that it has none."""
    shutil.copytree(reported / "runs", tmp_path / "runs")
    path = tmp_path / "runs/stripes/unet-seed0/best.pt"
    saved = checkpoint.load(path)
    saved["config"]["root"] = str(tmp_path / "gone")
    checkpoint.save(path, saved)
    shutil.copytree(reported / "data", tmp_path / "data")
    for image in (tmp_path / "data/stripes/train/good").iterdir():
        image.unlink()
    common = ("--data", "data")
    result = run("infer.py", *common, "--category", "stripes", "--separately", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    scores = tmp_path / "results/scores.csv"
    head, first, *rest = scores.read_text().splitlines(True)
    cells = first.split(",")
    cells[4] = str(float(cells[4]) + 1)
    scores.write_text("".join([head, ",".join(cells), *rest]))
    result = run("visualize.py", *common, "--report", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "note: stripes/unet-seed0: 1 of 12 scores are not those of scores.csv" in result.stdout
    entry, = page_data(tmp_path)["entries"]
    assert entry["name"] == "stripes/unet-seed0" and entry["differ"] == 1
    assert entry["runs"][0]["verdict"].startswith("not checked: ") and "--data DIR" in entry[
        "runs"][0]["verdict"]


def test_images_without_labels_and_a_memory(tmp_path):
    """A flat folder: no curves; a memory: no reconstruction, no collapse check."""
    write_tiny(tmp_path / "tiny")
    for split in ("train", "test"):
        (tmp_path / "flat" / split).mkdir(parents=True)
        for i, path in enumerate(sorted((tmp_path / "tiny/stripes" / split).rglob("*.png"))):
            shutil.copy(path, tmp_path / "flat" / split / f"{i}.png")
    for script, arguments in (("train.py", ("--all", "--groups", 1, "--model", "patchcore")),
                              ("infer.py", ("--all",)), ("visualize.py", ("--report",))):
        result = run(script, "--data", "flat", *arguments, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    found = page_data(tmp_path)
    entry, = found["entries"]
    assert "roc" not in entry and entry["metrics"]["auroc"] is None
    assert sum(entry["histogram"]["-1"]) == 12 and len(found["images"]) == 12
    assert "collapse" not in entry["runs"][0]
    shown = {name for i in found["images"] for name, p in zip(found["columns"], i["pictures"]) if p}
    assert shown == {"input", "anomaly map"}
    if CHROMIUM:
        page = browse(tmp_path, "")
        scores = {i["id"]: i["score"] for i in found["images"]}
        assert shown_ids(page) == sorted(scores, key=scores.get, reverse=True)
        badges = re.findall(r'<span class="badge \w+">([^<]*)<', page)
        threshold = entry["metrics"]["threshold"]
        assert badges == [f"called {'anomalous' if scores[i] > threshold else 'normal'}"
                          for i in shown_ids(page)]
        called = sum(score > threshold for score in scores.values())
        assert f"called anomalous: {called} of 12 without a label" in page
        assert "missed" not in tables(page)[1][0]


@pytest.mark.parametrize("change, message", [
    (lambda folder: (folder / "scores.csv").unlink(), "no .*scores.csv.*infer.py --all"),
    (lambda folder: (folder / "metrics.json").unlink(), "no .*metrics.json.*infer.py --all"),
    (lambda folder: (folder / "metrics.json").write_text("{"), "does not hold what infer.py"),
    (lambda folder: (folder / "scores.csv").write_text("a,b\n1,2\n"), "does not hold what infer"),
    (lambda folder: (folder / "scores.csv").write_text("".join(
        (folder / "scores.csv").read_text().splitlines(True)[:-1])), "not of the same run"),
    (lambda folder: (folder / "scores.csv").write_text(
        (folder / "scores.csv").read_text().replace("data/stripes", "elsewhere/none")),
     "no image elsewhere/none.*--data DIR"),
    (lambda folder: (folder / "metrics.json").write_text(
        (folder / "metrics.json").read_text().replace("unet-seed0", "gone")),
     "no checkpoint runs/stripes/gone/best.pt"),
], ids=["no scores", "no metrics", "broken", "other columns", "a row less", "moved", "no run"])
def test_what_is_missing_is_one_line(change, message, reported, tmp_path):
    shutil.copytree(reported / "results", tmp_path / "results")
    change(tmp_path / "results")
    (tmp_path / "results/report.html").unlink()
    result = run("visualize.py", "--report", "--results", tmp_path / "results", cwd=reported)
    assert result.returncode == 2
    assert re.fullmatch(f"error: .*{message}.*\n", result.stderr), result.stderr
    assert not (tmp_path / "results/report.html").exists()


def test_report_alone_and_images_found_below_data(reported, tmp_path):
    result = run("visualize.py", "--report", "--compare", "runs/stripes/unet-seed0", cwd=reported)
    assert result.returncode == 2 and "--report or --compare" in result.stderr
    result = run("visualize.py", "--report", "--runs", reported / "runs", "--results",
                 shutil.copytree(reported / "results", tmp_path / "results"), "--data",
                 shutil.copytree(reported / "data", tmp_path / "moved"), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert page_data(tmp_path)["images"] == page_data(reported)["images"]


def browse(cwd, hash_):
    """Open the report in headless Chromium: the document after its scripts have run. Fails when
    the console holds an error."""
    if not CHROMIUM:
        pytest.skip("no chromium or google-chrome on PATH")
    result = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", f"--user-data-dir={cwd / 'browser'}", "--enable-logging=stderr",
         "--v=0", "--dump-dom", f"{(cwd / 'results/report.html').as_uri()}#{hash_}"],
        capture_output=True, text=True, timeout=120)
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    assert result.returncode == 0 and not console, console
    return result.stdout


def tables(page):
    """The text of the cells of every table, row by row."""
    return [[[html.unescape(re.sub("<[^>]*>", "", cell)) for cell in
              re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
             for row in re.findall("<tr>(.*?)</tr>", table)]
            for table in re.findall("<table>(.*?)</table>", page.split('id="data"')[0], re.S)]


def shown_ids(page):
    return [html.unescape(name) for name in re.findall(r'<article data-id="([^"]*)"', page)]


def test_browser_shows_the_worst_mistakes_first(reported):
    page, rows = browse(reported, ""), rows_of(reported)
    threshold = json.loads((reported / "results/metrics.json").read_text())["categories"][
        "stripes"]["threshold"]
    wrong = {r["id"]: (float(r["score"]) - threshold) * (1 if r["label"] == "0" else -1)
             for r in rows}
    assert shown_ids(page) == sorted(wrong, key=wrong.get, reverse=True)
    # Names are text, not markup; every chart is there.
    assert "&lt;img src=x onerror=alert(1)&gt;" in page and "<img src=\"x\"" not in page
    titles = re.findall(r'<svg viewBox="0 0 320 220" role="img" aria-label="([^",]*)', page)
    assert titles == ["Scores", "ROC", "Precision and recall", "Loss", "Validation"]
    assert "NaN" not in page.split('id="data"')[0] + page.split("</script>")[-1]


def test_browser_sorts_and_filters_as_the_address_says(reported):
    rows = rows_of(reported)
    scores = {r["id"]: float(r["score"]) for r in rows}
    by_score = sorted(scores, key=scores.get, reverse=True)
    assert shown_ids(browse(reported, "sort=score&category=stripes")) == by_score
    assert shown_ids(browse(reported, "sort=lowest&defect=good")) == [
        i for i in by_score[::-1] if i.startswith("good/")]
    for kind, pair in (("fn", ("1", "0")), ("fp", ("0", "1"))):
        expected = {r["id"] for r in rows if (r["label"], r["prediction"]) == pair}
        found = shown_ids(browse(reported, f"kind={kind}"))
        assert expected and set(found) == expected and len(found) == len(expected)
    assert len(shown_ids(browse(reported, "kind=correct"))) == sum(
        r["label"] == r["prediction"] for r in rows)


@pytest.mark.parametrize("threshold", (None, 0.5, 2.0))
def test_browser_counts_again_at_a_moved_threshold(reported, threshold):
    """Counts, table by defect and the filter against scores.csv; None: as infer.py left it."""
    rows = rows_of(reported)
    page = browse(reported, f"kind=fp&t0={threshold}" if threshold else "kind=fp")
    at = threshold or page_data(reported)["entries"][0]["metrics"]["threshold"]
    above = [float(r["score"]) > at for r in rows]
    alarms = [r["id"] for r, high in zip(rows, above) if high and r["label"] == "0"]
    missed = sum(r["label"] == "1" and not high for r, high in zip(rows, above))
    assert (f"false alarms: {len(alarms)} of 4 normal images; missed: {missed} of 8 anomalous"
            in page)
    assert sorted(shown_ids(page)) == sorted(alarms)
    assert ("No image matches" in page.split("<script")[0]) == (not alarms)
    lines = {cells[0]: cells[1:] for cells in tables(page)[1]}
    assert lines["type"] == ["images", "found", "missed", "false alarms", "mean score"]
    for defect in ("good", EVIL, "<"):
        part = [(float(r["score"]), high) for r, high in zip(rows, above) if r["defect"] == defect]
        found = sum(high for _, high in part)
        assert lines[defect][:-1] == (["4", "–", "–", str(found)] if defect == "good" else
                                      ["4", str(found), str(4 - found), "–"])
        assert float(lines[defect][-1]) == pytest.approx(np.mean([s for s, _ in part]), abs=5e-4)


def test_browser_offers_only_what_the_other_filters_leave(reported):
    page, rows = browse(reported, "kind=fn"), rows_of(reported)
    pairs = [(r["label"], r["prediction"]) for r in rows]
    missed = [r["defect"] for r, pair in zip(rows, pairs) if pair == ("1", "0")]
    offered = {name: re.findall(r">([^<>]*)</option>", options) for name, options in
               re.findall(r'<select name="(\w+)">(.*?)</select>', page)}
    assert offered["defect"] == ["all"] + [html.escape(f"{name} ({missed.count(name)})")
                                           for name in sorted(set(missed))]
    assert offered["kind"] == ["all", f"missed ({len(missed)})", "false alarm "
                               f"({pairs.count(('0', '1'))})",
                               f"correct ({pairs.count(('0', '0')) + pairs.count(('1', '1'))})"]


def test_title_and_pictures_that_can_be_enlarged(reported):
    found = page_data(reported)
    page = (reported / "results/report.html").read_text()
    assert re.search(r"<title>Anomaly detection report: data, \d\d? \w+ \d{4}</title>", page)
    pictures = sum(p is not None for image in found["images"] for p in image["pictures"])
    names = re.findall(r'<button type="button" class="zoom" [^>]*aria-label="enlarge ([^"]*)"',
                       browse(reported, ""))
    assert len(names) == pictures and f"ground truth of {html.escape(EVIL)}/000" in names
