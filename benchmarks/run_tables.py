"""Tables about the detectors that learn from normal images: see tables.py."""

from statistics import mean, stdev

from cells import DEMO, by_set, recorded, text
from quality import table_lines


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
           "vote": "vote of the first two", "all": "vote of all three"}
SETS = {"mvtec_ad/transistor": "MVTec transistor", "mvtec_ad/toothbrush": "MVTec toothbrush",
        "mvtec_ad_more/grid": "MVTec grid", "paper/BDP01": "three papers",
        "paper/BTN01": "three papers", "paper/FVN02": "three papers",
        **{f"demo/{c}": f"demo {c}" for c in (*DEMO, "bolt")}}


def quality(records):
    """quality.py's image AUROC by set and model, with default options: mean of the runs and, where
    there are several, its standard error; below, the mean over all sets, and differences to the
    U-Net of the same seeds with 95 % intervals by set."""
    found = {place: {k: {} for k in QUALITY} for place in SETS.values()}
    for row in recorded("quality")["rows"]:
        if row["set"] in SETS and row["model"] in QUALITY:
            found[SETS[row["set"]]][row["model"]][row["set"], row["seed"]] = row["auroc"]
    means = {k: {place: mean(row[k].values()) for place, row in found.items() if row[k]}
             for k in QUALITY}

    def cell(values):
        error = f" ± {stdev(values) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
        return text(mean(values)) + error if values else "-"
    apart = [[mean(row[k][run] - row["unet"][run] for run in common) for row in found.values()
              if (common := row[k].keys() & row["unet"].keys())] for k in QUALITY]
    return [["image AUROC", *QUALITY.values()],
            *([place, *(cell([*row[k].values()]) for k in QUALITY)]
              for place, row in found.items()),
            ["mean of the sets", *(text(mean(means[k].values())) if len(means[k]) == len(found)
                                   else "-" for k in QUALITY)],
            ["minus the U-Net, 95 % interval by set", "",
             *(by_set(values) if len(values) > 1 else "-" for values in apart[1:])]]


def quality_all(records):
    """Every figure of quality.py but pseudo-anomalies' of votes, which have none."""
    return table_lines(recorded("quality")["rows"])


PUBLISHED = [["published, at full data and GPU budgets: RIAD", "0.909", "1.000", "-"],
             ["DRAEM", "0.931", "1.000", "0.999"], ["NSA", "0.951", "1.000", "0.999"],
             ["PatchCore (ImageNet weights)", "1.000", "1.000", "-"]]


def published(records):
    """quality.py's image AUROC on MVTec AD, means over seeds, beside what others published."""
    places, found = [place for place in SETS if place.startswith("mvtec")], {}
    for row in recorded("quality")["rows"]:
        found.setdefault((row["model"], row["set"]), []).append(row["auroc"])
    return [["", *(SETS[place].removeprefix("MVTec ") for place in places)],
            *([QUALITY[k], *(text(mean(found[k, place])) for place in places)]
              for k in ("unet", "memory", "lite0")), *PUBLISHED]
