"""Runs beside each other: curves on shared axes, bars of their test figures, and a table."""

import itertools
import json
from pathlib import Path

from matplotlib.ticker import AsinhLocator, LogLocator, MaxNLocator, NullLocator

from ad import InputError, checkpoint
from ad.folders import whole_path
from ad.pictures.fonts import drawable
from ad.model import build_model
from ad.pictures.plots import COLOURS, plt, save_figure

NEAR = 0.99  # converged: the first validation at this share of the best one
# Of log.jsonl: what a value is, the panel it belongs to, and its line's dashes and gaps.
LOSS, RATE = "loss", "validation accuracy or AUROC"
CURVES = {"loss": ("training loss", LOSS, ()),
          "val_loss": ("validation loss, normal", LOSS, (5, 2)),
          "val_loss_anomalous": ("validation loss, anomalous", LOSS, (1, 2)),
          "accuracy": ("accuracy", RATE, (6, 2, 1, 2)), "auroc": ("AUROC", RATE, (10, 3))}
MARKERS = ".x^s"  # another one each time the colours begin again


def load_run(folder: str | Path, results: str | Path) -> dict:
    """A run folder -> {"name", "config", "log", "parameters", "test"}.

    test: a classifier's test.json or, for a detector, its entry in results/metrics.json, which
    infer.py --separately writes; {} without one.
    """
    folder = whole_path(folder)
    try:
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is not a run folder that can be read: {error}") from error
    if not log:
        raise InputError(f"{folder} has no finished epoch")
    name = f"{folder.parent.name}/{folder.name}"
    saved = checkpoint.load(folder / "best.pt")
    # A memory has no parameters that are trained.
    parameters = 0 if len(log) == 1 and "loss" not in log[0] else sum(
        p.numel() for p in build_model(**saved["model_args"]).parameters())
    test, path = {}, Path(results) / "metrics.json"
    if (folder / "test.json").is_file():
        test = json.loads((folder / "test.json").read_text())
    elif path.is_file():
        try:
            test = json.loads(path.read_text())["categories"].get(name, {})
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not what infer.py writes: {error!r}") from error
    return {"name": name, "config": saved["config"], "log": log, "parameters": parameters,
            "test": test}


def summary(run: dict) -> dict:
    """One row of the table: {column: value}, None where there is none."""
    log, key = run["log"], "accuracy" if "accuracy" in run["log"][-1] else "auroc"
    checked = points(run, key)
    best = max((value for _, value in checked), default=None)
    return {"run": run["name"], "stopped at epoch": log[-1]["epoch"],
            "training, s": sum(r["seconds"] for r in log),
            "final training loss": log[-1].get("loss"),
            "converged at epoch": next((e for e, v in checked if v >= NEAR * best), None),
            "parameters": run["parameters"], f"best validation {key}": best,
            "test accuracy": run["test"].get("accuracy"), "test AUROC": run["test"].get("auroc"),
            "test TPR": run["test"].get("tpr"), "test TNR": run["test"].get("tnr")}


def points(run: dict, key: str) -> list[tuple]:
    """(epoch, value) of the epochs of load_run's answer that have this value."""
    return [(row["epoch"], row[key]) for row in run["log"] if row.get(key) is not None]


def text(value: float | int | str | None) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else value


def markdown(rows: list[dict]) -> str:
    """[{column: value}, ...] -> a Markdown table of the columns that any row has."""
    columns = [name for name in dict.fromkeys(name for row in rows for name in row)
               if any(row.get(name) is not None for row in rows)]
    lines = [columns, ["---"] * len(columns)]
    lines += [[text(row.get(column)) for column in columns] for row in rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def save_curves(path: Path, runs: list[dict]) -> None:
    """Losses and validation rates over the epochs, one colour a run, one kind of dashes a quantity.
    """
    names = [drawable(run["name"], 40) for run in runs]
    looks = [{"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i // len(COLOURS) % 4]}
             for i in range(len(runs))]
    there = [key for key in CURVES if any(points(run, key) for run in runs)]
    panels = list(dict.fromkeys(CURVES[key][1] for key in there))
    figure, axes = plt.subplots(1, len(panels), figsize=(5.5 * len(panels), 4.2), squeeze=False,
                                layout="constrained")
    for axis, panel in zip(axes[0], panels):
        lowest = float("inf")
        for (look, run), key in itertools.product(zip(looks, runs), there):
            if CURVES[key][1] == panel and (found := points(run, key)):
                epochs, values = zip(*found)
                axis.plot(epochs, values, linestyle=(0, CURVES[key][2]), **look,
                          markevery=max(1, len(found) // 20))
                lowest = min(lowest, *values)
        axis.set(xlabel="epoch", ylabel=panel,
                 xlim=(0, 1.03 * max(run["log"][-1]["epoch"] for run in runs)))
        if panel == LOSS:  # that of a sigma-VAE is a log-likelihood, of either sign
            scale, locator = ("log", LogLocator(subs=(1, 2, 5))) if lowest > 0 else (
                "asinh", AsinhLocator(1, 7, base=0))
            axis.set(ylabel=f"{panel} ({scale} axis)", yscale=scale)
            axis.yaxis.set(major_locator=locator, minor_locator=NullLocator(),
                           major_formatter=lambda value, _: f"{value:.12g}")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
    handles = [plt.Line2D([], [], **look) for look in looks]
    handles += [plt.Line2D([], [], color="grey", linestyle=(0, CURVES[k][2])) for k in there]
    figure.legend(handles, names + [CURVES[key][0] for key in there], handlelength=4,
                  loc="outside lower center", ncols=3, fontsize=8)
    save_figure(path, figure)


def save_bars(path: Path, runs: list[dict]) -> None:
    """Test accuracy and AUROC of every run that infer.py --separately has scored."""
    scored = [run for run in runs if run["test"]]
    names = [drawable(run["name"], 40) for run in scored]
    figure, axis = plt.subplots(figsize=(7, 1.4 + 0.5 * len(scored)), layout="constrained")
    for offset, (key, label) in enumerate((("accuracy", "accuracy"), ("auroc", "AUROC"))):
        values = [run["test"].get(key) for run in scored]
        bars = axis.barh([i + 0.38 * offset for i in range(len(scored))],
                         [value or 0 for value in values], 0.36, color=COLOURS[offset],
                         label=f"test {label}")
        axis.bar_label(bars, ["-" if v is None else f"{v:.3f}" for v in values], padding=3,
                       fontsize=8)
    axis.set_yticks([i + 0.19 for i in range(len(scored))], names)
    axis.set(xlim=(0, 1.12), xlabel="share of the test images, or area under the ROC curve")
    axis.invert_yaxis()
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.3), ncols=2)
    save_figure(path, figure)
