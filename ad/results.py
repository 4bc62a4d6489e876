"""What infer.py tells about its scores: figures of each category, and one table."""

import numpy as np

from ad.metrics import image_metrics, pixel_auroc, pro, rates

# Figures of a table, and their headings.
TITLES = {"auroc": "AUROC", "ap": "AP", "f1": "F1", "pixel_auroc": "pAUROC", "pro": "PRO",
          "tpr": "TPR", "tnr": "TNR", "accuracy": "acc"}
COLUMNS = tuple(TITLES)


def summary(rows: list, pixels: list) -> dict:
    """One category's entry in metrics.json. pixels: [(true mask (H, W), map (H, W)), ...]."""
    labels, scores, predictions, _ = arrays(rows)
    masks, maps = zip(*pixels) if any(mask.any() for mask, _ in pixels) else ((), ())
    unknown = [row for row in rows if row.label < 0]
    return image_metrics(labels, scores) | rates(labels, predictions) | {
        "pixel_auroc": pixel_auroc(masks, maps) if masks else None,
        "pro": pro(masks, maps) if masks else None, "images": len(rows),
        "anomalous": int((labels == 1).sum()), "unlabelled": len(unknown),
        "unlabelled_anomalous": sum(row.prediction for row in unknown)}


def arrays(rows: list) -> tuple:
    """Rows of scores.csv -> labels, scores, predictions, raw scores of those whose label is known,
    arrays (N,)."""
    known = [row for row in rows if row.label >= 0]
    return (np.array([row.label for row in known], dtype=int),
            *(np.array([float(getattr(row, name)) for row in known])
              for name in ("score", "prediction", "raw")))


def table(results: dict, averages: dict) -> str:
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
    return "\n".join(lines)
