"""Pictures: heat maps, outlines, grids and contact sheets."""

import io
import textwrap
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ad.checkpoint import write_atomic
from ad.pictures.fonts import drawable
from ad.images import read_image, white_of

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend must be chosen first)

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
ORANGE, BLUE = (230, 159, 0), (86, 180, 233)  # outlines: predicted, true
LONGEST = 4096  # pixels, of the long side of a photograph beside its heat map


def caption(score: float) -> str:
    """A score and what it means."""
    return f"{'ANOMALOUS' if score > 1 else 'normal'}\nscore {score:.2f}, threshold 1.00"


def to_picture(image: torch.Tensor) -> np.ndarray:
    """uint8 or float, in [0, 1] (clamped), (3, H, W) or (1, H, W) tensor -> uint8 (H, W, 3) array.
    """
    if image.is_floating_point():
        image = (image.detach().cpu().float().clamp(0, 1) * 255).round().byte()
    return image.expand(3, -1, -1).permute(1, 2, 0).numpy()


def heat(map_: torch.Tensor, high: float) -> np.ndarray:
    """(1, H, W) map -> uint8 (H, W, 3), inferno from 0 (black) to `high` (yellow)."""
    scaled = share(map_, high)
    return matplotlib.colormaps["inferno"]((scaled * 255).round().astype(np.uint8),
                                           bytes=True)[..., :3]


def share(map_: torch.Tensor, high: float) -> np.ndarray:
    """(1, H, W) map -> (H, W), 0 to 1 where it is `high`."""
    return (map_[0].detach().cpu().float() / max(high, 1e-12)).clamp(0, 1).numpy()


def overlay(picture: np.ndarray, map_: torch.Tensor, high: float) -> np.ndarray:
    """Picture (H, W, 3) in grey, with the (1, H, W) map in colour from 0.4 high upwards."""
    grey = picture.mean(-1, keepdims=True).repeat(3, -1)
    alpha = np.clip(2 * share(map_, high)[..., None] - 0.8, 0, 0.75)
    return ((1 - alpha) * grey + alpha * heat(map_, high)).round().astype(np.uint8)


def outlined(picture: np.ndarray, mask: np.ndarray, colour: tuple) -> np.ndarray:
    """Pictures (..., H, W, 3) with a line around, not on, what a bool mask (H, W) covers: in this
    colour, and black beside it, so that it is seen on any ground; at the border it is within."""
    line = max(2, max(mask.shape) // 400)
    result, inner, inside = picture, np.zeros_like(mask), (slice(line, -line),) * 2
    inner[inside] = mask[inside]
    for ink, width in ((colour, line), ((0, 0, 0), max(1, line // 2))):
        wide, size = torch.from_numpy(inner)[None].float(), 2 * width + 1
        wide = F.max_pool2d(wide, (size, 1), 1, (width, 0))
        wide = F.max_pool2d(wide, (1, size), 1, (0, width))[0].numpy() > 0
        result, inner = np.where((wide & ~inner)[..., None], np.uint8(ink), result), wide
    return result


def save_heat(path: Path, picture: np.ndarray, map_: torch.Tensor, ends: tuple, text: str) -> None:
    """Write a picture (H, W, 3), its map (1, h, w) at the same size in colour, and below them a
    strip with a text and the colours' bar. ends: (where the colours end, above what the map is
    outlined or None)."""
    high, cut = max(ends[0], 1e-6), ends[1]
    map_ = F.interpolate(map_[None].float(), picture.shape[:2], mode="bilinear")[0]
    panels = np.stack([picture, heat(map_, high)])
    if cut is not None:
        panels = outlined(panels, map_[0].numpy() > cut, ORANGE)
    # Beside each other where they are tall, else below.
    both = np.concatenate(panels, int(picture.shape[0] >= picture.shape[1]))
    below = strip(max(both.shape[1], 400), text, high, cut)
    sides = below.shape[1] - both.shape[1]
    both = np.pad(both, ((0, 0), (sides // 2, sides - sides // 2), (0, 0)), constant_values=255)
    save_picture(path, np.concatenate([both, below]))


def strip(width: int, text: str, high: float, cut: float | None) -> np.ndarray:
    """`width` pixels of a text and, below it, the bar of heat's colours: uint8 (h, width, 3)."""
    inches = min(max(width / 100, 4), 10)
    lines = [drawable(line, int(11 * inches)) for line in text.splitlines()]
    figure = plt.figure(figsize=(inches, 0.65 + 0.19 * len(lines)), dpi=(width + 0.1) / inches)
    figure.text(0.1 / inches, 0.96, "\n".join(lines), va="top", fontsize=9, linespacing=1.3)
    height = figure.get_figheight()
    axis = figure.add_axes((0.1 / inches, 0.4 / height, 1 - 0.2 / inches, 0.14 / height))
    axis.imshow(np.linspace(0, 1, 256)[None], cmap="inferno", aspect="auto", extent=(0, high, 0, 1))
    axis.set(yticks=[], xlim=(0, high))
    axis.tick_params(labelsize=7, length=2, pad=1)
    label = "map"
    if cut is not None:
        label += f"; the outline is at {cut:.2f}"
        for colour, line in (("white", 3), ("black", 1)):
            axis.axvline(min(cut, high), color=colour, linewidth=line)
    axis.set_xlabel(label, fontsize=8, labelpad=1)
    figure.canvas.draw()
    picture = np.array(figure.canvas.buffer_rgba())[..., :3]
    plt.close(figure)
    return picture


def save_masks(path: Path, picture: np.ndarray, predicted: np.ndarray,
               truth: np.ndarray | None) -> None:
    """Write a predicted bool mask (H, W) as path, 0 and 255, and beside it <name>_beside.png: the
    picture with its outline (orange) and the truth's (blue), the mask, and, if known, the truth."""
    shown = outlined(picture, predicted, ORANGE)
    white = [np.where(m[..., None], np.uint8(255), np.zeros_like(picture))
             for m in (predicted, truth) if m is not None]
    if truth is not None:
        shown = outlined(shown, truth, BLUE)
    save_picture(path, white[0])
    save_picture(path.with_name(f"{path.stem}_beside.png"), np.concatenate([shown, *white], 1))


def save_picture(path: Path, picture: np.ndarray) -> None:
    """Write a uint8 (H, W, 3) array as PNG, atomically."""
    buffer = io.BytesIO()
    # Photographs hardly shrink by the default level, which takes five times as long.
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1 if picture.size > 1e7 else 6)
    write_atomic(path, buffer.getvalue())


def save_grid(path: Path, rows: list, columns: list | tuple, titles: list,
              caption: str = "") -> None:
    """Write a grid of pictures as one PNG.

    rows: list of lists of uint8 (H, W, 3) or None (left empty), one inner list a row; columns:
    a heading for each column; titles: a label for each row; caption: printed below.
    """
    size, shapes = 1.9, [p.shape for row in rows for p in row if p is not None]
    titles = ["\n".join(drawable(line, 30) for line in title.split("\n")) for title in titles]
    aspect = max(0.3, np.median([height / width for height, width, _ in shapes]))
    figure, axes = plt.subplots(len(rows), len(columns), squeeze=False, layout="compressed",
                                figsize=(size * len(columns) + 1.9,
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
        axes[r, 0].set_ylabel(titles[r], fontsize=8, rotation=0, ha="right", va="center")
    if caption:
        figure.supxlabel(textwrap.fill(caption, 30 * len(columns)), fontsize=8)
    save_figure(path, figure)


def save_sheet(path: Path, files: list[Path], notes: list[str], heading: str, columns: int = 10,
               rows: int = 6, side: int = 128) -> None:
    """Write small pictures of image files, each with its name and note, as one PNG below a heading:
    the first `columns` of them in the last row, the others, evenly drawn where they are too many,
    above."""
    rest = np.arange(columns, len(files))
    even = np.linspace(0, len(rest) - 1, min(len(rest), columns * (rows - 1))).astype(int)
    last = -(-len(even) // columns) * columns  # place of the last row
    white = white_of(files)
    places = [*enumerate(rest[even]), *enumerate(range(min(columns, len(files))), last)]
    labels = [f"{drawable(files[i].name, 22)}\n{drawable(notes[i], 22)}" for _, i in places]
    rows, columns = last // columns + 1, columns if last else len(places)
    cell = side + 12, side + 40  # width and height, with a margin and two lines of text
    width, height = max(columns * cell[0], 480), rows * cell[1] + 12
    heading = textwrap.fill(drawable(heading), width // 8)
    top = 22 * len(heading.splitlines()) + 8
    figure = plt.figure(figsize=(width / 100, (height + top) / 100))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, -top))
    axis.axis("off")
    axis.text(8, 8 - top, heading, va="top", fontsize=11)
    for (place, index), label in zip(places, labels):
        picture = Image.fromarray(to_picture(read_image(files[index], 4 * side, white)))
        picture.thumbnail((side, side))
        x, y = place % columns * cell[0] + 8, place // columns * cell[1] + side
        axis.imshow(picture, extent=(x, x + picture.width, y, y - picture.height))
        axis.text(x, y + 3, label, va="top", fontsize=6)
    axis.set(xlim=(0, width), ylim=(height, -top), aspect="auto")
    save_figure(path, figure, dpi=100)


def save_figure(path: Path, figure: plt.Figure, dpi: int = 110) -> None:
    """Write a matplotlib figure as PNG, atomically, and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    plt.close(figure)
    write_atomic(path, buffer.getvalue())
