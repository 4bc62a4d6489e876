"""Tables about the detectors that learn from normal images: see tables.py."""

from statistics import mean, stdev

from cells import (DEMO, REAL, RESULTS, SEEDS, by_set, minutes, over_seeds, own_error, recorded,
                   runs, test, text)
from quality import table_lines


def unet(records):
    rows = [["data", "image AUROC", "AP", "best F1", "pixel AUROC", "PRO 0.3", "epochs; best",
             "training"]]
    for category in (*REAL, *DEMO):
        found = runs(records, category, SEEDS)
        rows.append([category if category in REAL else f"demo {category}",
                     over_seeds(test(found, "auroc")), text(mean(test(found, "ap"))),
                     text(mean(test(found, "f1"))), over_seeds(test(found, "pixel_auroc")),
                     text(mean(test(found, "pro"))),
                     f"{found[0]['stopped at epoch']}; "
                     + ", ".join(str(r["best epoch"]) for r in found), minutes(found)])
    return rows


def normals(records):
    """normals.py's: promises of the memories beside what was seen: a row a set and memory, means
    over its seeds."""
    columns = ("auroc", "plain", "pixel_auroc", "pro", "called", "promised", "bound", "seen",
               "recall", "best", "mask", "fair")
    lines, groups = [["set", "memory", *columns]], {}
    for key, row in recorded("normals")["rows"].items():
        groups.setdefault(tuple(key.split("|")[:2]), []).append(row)
    for (name, backbone), rows in groups.items():
        found = [[row[c] for row in rows if row.get(c) is not None] for c in columns]
        lines.append([name + (f" ({len(rows)})" if len(rows) > 1 else ""),
                      backbone.removeprefix("efficientnet_"),
                      *(text(mean(values) if values else None) for values in found)])
    return lines


def memory_mean(name, backbone, key="auroc"):
    """Mean over the seeds of a row of results/normals.json, e.g. of "demo carpet"."""
    return mean(row[key] for place, row in recorded("normals")["rows"].items()
                if place.startswith(f"{name}|{backbone}|"))


QUALITY = {"unet": "U-Net", "memory": "memory without weights", "lite0": "memory with Lite0",
           "vote": "vote of the first two"}
SETS = {"mvtec_ad/transistor": "MVTec transistor", "mvtec_ad/toothbrush": "MVTec toothbrush",
        "mvtec_ad_more/grid": "MVTec grid", "paper/BDP01": "three papers",
        "paper/BTN01": "three papers", "paper/FVN02": "three papers",
        **{f"demo/{c}": f"demo {c}" for c in (*DEMO, "bolt")}}


def quality(records):
    """quality.py's image AUROC by set and model, with default options: mean of the runs and, where
    there are several, its standard error; below, the mean over all sets, and differences to the
    U-Net with 95 % intervals by set."""
    found = {place: {k: [] for k in QUALITY} for place in SETS.values()}
    for row in recorded("quality")["rows"]:
        if row["set"] in SETS and row["model"] in QUALITY:
            found[SETS[row["set"]]][row["model"]].append(row["auroc"])
    means = {k: {place: mean(row[k]) for place, row in found.items() if row[k]} for k in QUALITY}

    def cell(values):
        error = f" ± {stdev(values) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
        return text(mean(values)) + error if values else "-"
    apart = [[means[k][place] - means["unet"][place] for place in means[k]
              if place in means["unet"]] for k in QUALITY]
    return [["image AUROC", *QUALITY.values()],
            *([place, *(cell(row[k]) for k in QUALITY)] for place, row in found.items()),
            ["mean of the sets", *(text(mean(means[k].values())) if len(means[k]) == len(found)
                                   else "-" for k in QUALITY)],
            ["minus the U-Net, 95 % interval by set", "",
             *(by_set(values) if len(values) > 1 else "-" for values in apart[1:])]]


def quality_all(records):
    """Every figure of quality.py but pseudo-anomalies' of votes, which have none."""
    return table_lines(recorded("quality")["rows"])


PUBLISHED = [["published, at full data and GPU budgets: RIAD", "0.909", "1.000"],
             ["DRAEM", "0.931", "1.000"], ["NSA", "0.951", "1.000"],
             ["PatchCore (ImageNet weights)", "1.000", "1.000"]]


def published(records):
    def ours(title, names):
        return [title, *(text(mean(test(runs(records, c, names), "auroc"))) for c in REAL)]
    windows = scoring()
    return [["", *REAL],
            ["memory of gradients", *(text(memory_mean(c, "gradients")) for c in REAL)],
            ours("U-Net (repair), mean of the seeds", SEEDS),
            ["`--objective reconstruct`, scored by position", *(
                text(window(windows, c, "multi", 256, "auto", "test")) for c in REAL)],
            ["the same, the homework plan's one mean and standard deviation", *(
                text(window(windows, c, "multi", 256, "global", "test")) for c in REAL)],
            *PUBLISHED]


def scoring():
    """{category: rows} of benchmarks/scoring.py, whose JSON files are scoring_<category>.json."""
    return {c: recorded(f"scoring_{c}")["rows"]
            for c in (*REAL, "carpet") if (RESULTS / f"scoring_{c}.json").exists()}


def window(results, category, windows, side, calibration, kind):
    """Image AUROC of one row of benchmarks/scoring.py."""
    return next(r[kind] for r in results[category] if (
        r["windows"], r["window_input"], r["calibration"]) == (windows, side, calibration))


def windows(records):
    found = scoring()
    rows = [["windows, resized to", *(f"{c}, {k}: {s}" for c in found for k in ("global", "auto")
                                      for s in ("pseudo", "test"))]]
    for name, side in dict.fromkeys((r["windows"], r["window_input"]) for c in found.values()
                                    for r in c):
        rows.append([f"{name}, {side or 'native'}", *(
            text(window(found, c, name, side, k, s)) for c in found for k in ("global", "auto")
            for s in ("pseudo", "test"))])
    return rows


def pooled(records):
    rows = [["", "mean of the categories", "pooled, calibrated", "pooled, raw scores"]]
    for title, name in (("a memory of gradients for each category", "pooled-memory"),
                        ("a U-Net (repair) for each category", "pooled-unet"),
                        ("`--pool`, one memory for all", "pooled-one")):
        found = records[name]
        one = name == "pooled-one"
        rows.append([title, *("" if one else text(found[k]["auroc"]) for k in ("mean", "pooled")),
                     text((found["categories"]["pool"] if one else found["pooled, raw"])["auroc"])])
    return rows


ABLATIONS = {"default: cosine, augmentation": "default", "`--schedule constant`": "constant",
             "`--no-augment`": "noaugment", "moving average of the weights": "ema"}


def ablations(records):
    rows = [["", *REAL, "mean"]]
    for title, name in ABLATIONS.items():
        values = [records[f"{c}/short-{name}"]["pseudo"] for c in REAL]
        rows.append([title, *map(text, values), text(mean(values))])
    return rows


def objectives(records):
    """Repairing against reproducing, each error compared with those of its place where that suits.
    """
    categories = (*REAL, "carpet")
    rows = [["", *(f"{c}: {k}" for k in ("pseudo", "test") for c in categories), "mean, pseudo",
             "mean, test"]]
    tested = []
    for title, names in (("`--objective repair`, mean of the seeds", SEEDS),
                         ("`--objective reconstruct`", ["reconstruct"])):
        found = [runs(records, c, names) for c in categories]
        values = [[mean(r["pseudo"] for r in part) for part in found],
                  [mean(test(part, "auroc")) for part in found]]
        rows.append([title, *map(text, values[0] + values[1]), *(text(mean(v)) for v in values)])
        tested.append([(mean(test(part, "auroc")), own_error(part[0]["test"])) for part in found])
    apart = [(a - b, 1.96 * (c ** 2 + d ** 2) ** 0.5) for (a, c), (b, d) in zip(*tested)]
    return rows + [["difference, 95 % interval", "", "", "", *(
        f"{gap:+.3f} ± {half:.2f}" for gap, half in apart), "", by_set([gap for gap, _ in apart])]]


def maps(records):
    found = list(recorded("validation").values())
    rows = [["`--error`", *(f"{c}: {k}" for c in REAL for k in ("pseudo", "test"))]]
    for parts in zip(*(f["fusion"] for f in found)):
        rows.append([f"`{parts[0]['error']}`", *(
            text(p[k]) for p in parts for k in ("all pseudo-anomalies", "test"))])
    return rows


def correlation(records):
    found = list(recorded("validation").values())
    rows = [["rank correlation with the test AUROC", *(
        f"{c}, {len(f['rows'])} epochs" for c, f in zip(REAL, found))]]
    return rows + [[kind, *(text(f["spearman"][kind], 2) for f in found)]
                   for kind in found[0]["spearman"]]


def memory(records):
    rows = [["options of `--model patchcore`",
             *(f"{c}: {k}" for c in REAL for k in ("pseudo", "test", "pixels"))]]
    names = ["patchcore-seed0"] + [n.split("/")[1] for n in records
                                   if n.startswith("transistor/memory-")] + ["lite0"]
    for name in names:
        found = [records[f"{c}/{name}"] for c in REAL]
        options = found[0]["options"].removeprefix("--model patchcore").strip().replace(
            "RUNS/transistor/", "")
        rows.append([f"`{options or '(defaults)'}`", *(
            text(v) for r in found for v in (r["pseudo"], r["test"]["auroc"],
                                             r["test"]["pixel_auroc"]))])
    return rows
