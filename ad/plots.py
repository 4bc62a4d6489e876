"""Every picture and chart: heat maps, overlays, picture grids."""

import io
import textwrap

import matplotlib
import numpy as np
from PIL import Image

from ad.checkpoint import write_atomic
from ad.images import read_image, white_of

matplotlib.use("Agg")
matplotlib.rcParams["text.parse_math"] = False  # names may hold dollars
import matplotlib.pyplot as plt  # noqa: E402  (the backend must be chosen first)

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def legible(text):
    """Text without the bytes of a file's name that are not UTF-8, which no font can show."""
    return text.encode(errors="backslashreplace").decode()


def to_picture(image):
    """Float (3, H, W) or (1, H, W) tensor in [0, 1] (clamped) -> uint8 (H, W, 3) array."""
    array = image.detach().cpu().float().clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).numpy()
    return (array * 255).round().astype(np.uint8)


def heat(map_, high, low=0.0):
    """(1, H, W) map -> uint8 (H, W, 3), inferno from `low` (black) to `high` (yellow)."""
    scaled = ((map_[0].detach().cpu().float() - low) / max(high - low, 1e-12)).clamp(0, 1).numpy()
    return (matplotlib.colormaps["inferno"](scaled)[..., :3] * 255).round().astype(np.uint8)


def overlay(picture, map_, high):
    """Picture (H, W, 3) in grey, with the (1, H, W) map in colour from 0.4 high upwards."""
    grey = picture.mean(-1, keepdims=True).repeat(3, -1)
    alpha = (map_[0].detach().cpu().float() / max(high, 1e-12)).clamp(0, 1).numpy()[..., None]
    alpha = np.clip(2 * alpha - 0.8, 0, 0.75)
    return ((1 - alpha) * grey + alpha * heat(map_, high)).round().astype(np.uint8)


def outlined(picture, mask, colour):
    """Picture (H, W, 3) with the outline, two pixels wide, of a bool mask (H, W) in `colour`."""
    wide = mask
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)) * 2:
        wide = wide | np.roll(wide, step, axis)
    return np.where((wide & ~mask)[..., None], np.uint8(colour), picture)


def save_masks(path, picture, predicted, truth):
    """Write a predicted bool mask (H, W) as path, 0 and 255, and beside it <name>_beside.png: the
    picture with its outline (orange) and the truth's (blue), the mask, and, if known, the truth."""
    shown = outlined(picture, predicted, (230, 159, 0))
    white = [np.where(m[..., None], np.uint8(255), np.zeros_like(picture))
             for m in (predicted, truth) if m is not None]
    if truth is not None:
        shown = outlined(shown, truth, (86, 180, 233))
    save_picture(path, white[0])
    save_picture(path.with_name(f"{path.stem}_beside.png"), np.concatenate([shown, *white], 1))


def save_picture(path, picture):
    """Write a uint8 (H, W, 3) array as PNG, atomically."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())


def save_grid(path, rows, columns, titles, caption=""):
    """Write a grid of pictures as one PNG.

    rows: list of lists of uint8 (H, W, 3) or None (left empty), one inner list a row; columns:
    a heading for each column; titles: a label for each row; caption: printed below.
    """
    size, shapes = 1.9, [p.shape for row in rows for p in row if p is not None]
    aspect = max(0.3, np.median([height / width for height, width, _ in shapes]))
    figure, axes = plt.subplots(len(rows), len(columns), squeeze=False, layout="constrained",
                                figsize=(size * len(columns) + 0.9,
                                         size * aspect * len(rows) + 0.5))
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            axis = axes[r, c]
            axis.set(xticks=[], yticks=[])
            if picture is None:
                axis.axis("off")
            else:
                axis.imshow(picture, interpolation="nearest")
            if r == 0:
                axis.set_title(columns[c], fontsize=9)
        axes[r, 0].set_ylabel(legible(titles[r]), fontsize=8)
    if caption:
        figure.supxlabel(textwrap.fill(caption, 30 * len(columns)), fontsize=8)
    save_figure(path, figure)


def save_sheet(path, files, columns=10, rows=6, side=96):
    """Write small pictures of image files as one PNG: the first `columns` of them in the last row,
    the others, evenly drawn where they are too many, above."""
    first, rest = files[:columns], files[columns:]
    even = np.linspace(0, len(rest) - 1, min(len(rest), columns * (rows - 1))).astype(int)
    places = [*enumerate(rest[i] for i in even), *enumerate(first, columns * (rows - 1))]
    sheet, white = Image.new("RGB", (columns * side, rows * side), "white"), white_of(files)
    for place, file in places:
        picture = read_image(file, side, white).permute(1, 2, 0).numpy()
        sheet.paste(Image.fromarray(picture), (place % columns * side, place // columns * side))
    save_picture(path, np.asarray(sheet))


def save_figure(path, figure):
    """Write a matplotlib figure as PNG, atomically, and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    write_atomic(path, buffer.getvalue())


def save_histograms(path, groups):
    """Histograms of image scores with their threshold, one panel per name.

    groups: {name: (labels (N,) in {0, 1, -1 unknown}, scores (N,), threshold)}.
    """
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.2 * columns, 3 * rows + 0.4),
                                squeeze=False, layout="constrained")
    for axis in axes.flat[len(groups):]:
        axis.axis("off")
    for axis, (name, (labels, scores, threshold)) in zip(axes.flat, groups.items()):
        bins = np.linspace(min(scores.min(), threshold), max(scores.max(), threshold) + 1e-9, 31)
        for label, title, colour in ((0, "normal", COLOURS[0]), (1, "anomalous", COLOURS[1]),
                                     (-1, "unknown", COLOURS[2])):
            if (labels == label).any():
                axis.hist(scores[labels == label], bins, alpha=0.6, color=colour, label=title)
        axis.axvline(threshold, color="black", linestyle="--", label="threshold")
        axis.set(title=legible(name), xlabel="score, in standard deviations of normal images",
                 ylabel="images")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=8)
    save_figure(path, figure)


def save_confusion(path, classes, counts):
    """The confusion matrix as PNG: rows are the true classes, columns the predicted ones."""
    counts, classes = np.asarray(counts), [*map(legible, classes)]
    size = 1.6 + 0.7 * len(classes)
    figure, axis = plt.subplots(figsize=(size + 0.6, size), layout="constrained")
    axis.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        dark = count > 0.5 * max(counts[row].sum(), 1)
        axis.text(column, row, count, ha="center", va="center", color="white" if dark else "black")
    axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axis.set_yticks(range(len(classes)), classes)
    axis.set(xlabel="predicted", ylabel="true", title="test images")
    save_figure(path, figure)
