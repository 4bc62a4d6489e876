"""Charts of results: histograms of scores, the confusion matrix."""

from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from ad.pictures.fonts import drawable
from ad.pictures.plots import COLOURS, plt, save_figure


def save_histograms(path: Path, groups: dict[str, list]) -> None:
    """Histograms of scores and the threshold, 1, one panel per name: {name: rows of scores.csv}."""
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    titles = [drawable(name, 40) for name in groups]
    figure, axes = plt.subplots(rows, columns, figsize=(4.2 * columns, 3 * rows + 0.4),
                                squeeze=False, layout="constrained")
    for axis in axes.flat[len(groups):]:
        axis.axis("off")
    legend = {}
    for axis, title, rows in zip(axes.flat, titles, groups.values()):
        labels = np.array([row.label for row in rows])
        scores = np.array([float(row.score) for row in rows])
        low = min(scores.min(), 1)
        bins = np.linspace(low, max(scores.max(), 1, low + 0.1) + 1e-9, 31)
        kinds = [(label, kind, colour) for label, kind, colour in (
            (0, "normal", COLOURS[0]), (1, "anomalous", COLOURS[1]), (-1, "no label", COLOURS[2]))
            if (labels == label).any()]
        axis.hist([scores[labels == label] for label, *_ in kinds], bins, stacked=True,
                  label=[kind for _, kind, _ in kinds], color=[colour for *_, colour in kinds])
        axis.axvline(1, color="black", linestyle="--", label="threshold")
        axis.set(title=title, xlabel="score: 0 a typical normal image, 1 the threshold",
                 ylabel="images")
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        legend |= zip(*axis.get_legend_handles_labels()[::-1])
    figure.legend(legend.values(), legend, loc="outside lower center", ncols=4, fontsize=8)
    save_figure(path, figure)


def save_confusion(path: Path, classes: list[str], counts: list) -> None:
    """The confusion matrix as PNG: rows are the true classes, columns the predicted ones."""
    counts, classes = np.asarray(counts), [drawable(name, 30) for name in classes]
    size = 1.6 + 0.7 * len(classes)
    figure, axis = plt.subplots(figsize=(size + 1.6, size), layout="constrained")
    image = axis.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), cmap="Blues",
                        vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        dark = count > 0.5 * max(counts[row].sum(), 1)
        axis.text(column, row, count, ha="center", va="center", color="white" if dark else "black")
    axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axis.set_yticks(range(len(classes)), classes)
    axis.set(xlabel="predicted", ylabel="true", title="numbers count test images,\n"
             "colours of a row add up to 100 %")
    figure.colorbar(image, label="share of the true class", format="{x:.0%}", shrink=0.8)
    save_figure(path, figure)
