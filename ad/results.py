"""What infer.py tells about its scores: figures of each category, averages, one table."""

import numpy as np

from ad.metrics import auroc, image_metrics, pixel_auroc, pro, rates
from ad.samples import NORMAL

# Figures of a table, and their headings.
TITLES = {"auroc": "AUROC", "ap": "AP", "f1": "F1", "pixel_auroc": "pixels", "pro": "PRO",
          "tpr": "TPR", "tnr": "TNR", "accuracy": "right"}
COLUMNS = tuple(TITLES)


def averages(results):
    """{"mean", "weighted mean"}: of every column over the categories that have a value."""
    rows = {"mean": {}, "weighted mean": {}}
    for column in COLUMNS:
        pairs = [(r[column], r["images"] - r["unlabelled"]) for r in results.values()
                 if r[column] is not None]
        values, counts = zip(*pairs) if pairs else ((), ())
        rows["mean"][column] = float(np.mean(values)) if pairs else None
        rows["weighted mean"][column] = float(np.average(values, weights=counts)) if pairs else None
    return rows


def merged_averages(results):
    """averages of the categories' own runs and of the merged one, and, as the accuracy of "all
    anomalous", what calling everything anomalous would reach."""
    own = {name: r for name, r in results.items() if r["folder"] == name}
    merged = {name: r for name, r in results.items() if name not in own}
    nothing = {name: r | dict.fromkeys(COLUMNS) | {
        "accuracy": r["anomalous"] / known if (known := r["images"] - r["unlabelled"]) else None}
        for name, r in own.items()}
    return {name + suffix: row for suffix, part in ((", separate", own), (", merged", merged), (
        ", all anomalous", nothing)) for name, row in averages(part).items()}


def arrays(rows):
    """Rows of scores.csv -> labels, scores, predictions, raw scores of those whose label is known,
    arrays (N,)."""
    known = [row for row in rows if row.label >= 0]
    return (np.array([row.label for row in known], dtype=int),
            *(np.array([float(getattr(row, name)) for row in known])
              for name in ("score", "prediction", "raw")))


def summary(rows, pixels):
    """One category's entry in metrics.json. pixels: [(true mask (H, W), map (H, W)), ...]."""
    labels, scores, predictions, _ = arrays(rows)
    masks, maps = zip(*pixels) if any(mask.any() for mask, _ in pixels) else ((), ())
    unknown = [row for row in rows if row.label < 0]
    return image_metrics(labels, scores) | rates(labels, predictions) | {
        "pixel_auroc": pixel_auroc(masks, maps) if masks else None,
        "pro": pro(masks, maps) if masks else None, "images": len(rows),
        "anomalous": int((labels == 1).sum()), "unlabelled": len(unknown),
        "unlabelled_anomalous": sum(row.prediction for row in unknown)}


def pooled(rows):
    """{"pooled", "pooled, raw"}: metrics of one ranking over all categories, by scores and by raw
    scores."""
    labels, scores, predictions, raw = arrays(rows)
    empty = dict.fromkeys(COLUMNS)
    return {"pooled": empty | image_metrics(labels, scores) | rates(labels, predictions),
            "pooled, raw": empty | {"auroc": auroc(labels, raw)}}


def table(results, averages):
    """{name: metrics} of both as text: one line per name, without columns that nobody has."""
    rows = results | averages
    shown = [c for c in COLUMNS if any(row[c] is not None for row in rows.values())]
    wide = max(map(len, ("category", *rows)))
    lines = [f"{'category':<{wide}}" + "".join(f"{TITLES[c]:>8}" for c in shown)] if shown else []
    for name, row in rows.items() if shown else ():
        lines.append(f"{name:<{wide}}" + "".join(
            f"{'-' if row[c] is None else f'{row[c]:.3f}':>8}" for c in shown))
    for name, row in results.items():
        if row["unlabelled"]:
            lines.append(f"{name}: {row['unlabelled']} images without labels: "
                         f"{row['unlabelled_anomalous']} anomalous")
        if row["anomalous"] and row["anomalous"] == row["images"] - row["unlabelled"]:
            lines.append(f"note: {name}: no test folder is called {', '.join(NORMAL[:-1])} or "
                         f"{NORMAL[-1]}, so all {row['anomalous']} images with labels count as "
                         "anomalous")
    return "\n".join(lines)
