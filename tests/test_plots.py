"""Heat maps, outlines, names in pictures, ticks: against pixels and values counted by hand."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib import font_manager
from PIL import Image

from ad import images
from ad.pictures import charts, compare, fonts, plots


def spot(height, width):
    """A map (1, height, width), 3 in a rectangle off the middle, 0 elsewhere."""
    map_ = torch.zeros(1, height, width)
    map_[0, height // 4:height // 2, width // 2:width * 3 // 4] = 3
    return map_


@pytest.mark.parametrize("height, width", [(60, 700), (700, 60), (40, 40)])
def test_a_heat_map_has_the_size_of_the_photograph_and_does_not_paint_the_defect(
        height, width, tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    plots.save_heat(tmp_path / "a.png", photo, spot(20, 20), (6, 1.5), "a name\nANOMALOUS")
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    tall = height >= width
    wide = width * (1 + tall)
    left = (max(wide, 400) - wide) // 2
    assert picture.shape[1] == max(wide, 400) and len(picture) > height * (2 - tall) + 60
    shown = picture[:height, left:left + width]
    inside = np.zeros((height, width), bool)  # of the rectangle without its edge
    inside[int(.3 * height):int(.45 * height), int(.55 * width):int(.7 * width)] = True
    changed = (shown != photo).any(-1)
    assert 0 < changed.sum() < 0.5 * inside.size and not (changed & inside).any()
    assert changed[int(.1 * height):int(.65 * height)].sum() == changed.sum()
    assert (shown[changed] == plots.ORANGE).all(-1).any()
    heat = picture[:height, left + width:left + wide] if tall else \
        picture[height:2 * height, left:left + width]
    middle = heat[3 * height // 8, 5 * width // 8].astype(int)
    assert middle.sum() > 200 and heat[-1, 0].sum() < 20  # half way to yellow; black
    strip = picture[height * (2 - tall):]
    assert (strip == 255).mean() > 0.5 and (strip.max(-1) < 60).any()  # ink on white


def test_an_outline_stays_at_its_own_edge_and_follows_the_mask():
    mask = np.zeros((40, 50), bool)
    mask[10:20, 0:8] = True
    shown = plots.outlined(np.full((40, 50, 3), 200, np.uint8), mask, plots.BLUE)
    rows, columns = np.nonzero((shown != 200).any(-1))
    assert columns.max() == 10 and rows.min() == 7 and rows.max() == 22  # 2 of colour, 1 of black
    assert (shown[10:20, 2:8] == 200).all() and (shown[10:20, :2] == plots.BLUE).all()
    shown = plots.outlined(np.full((40, 50, 3), 200, np.uint8), np.ones((40, 50), bool), plots.BLUE)
    assert (shown[:2] == plots.BLUE).all() and (shown[2:-2, 2:-2] == 200).all()


def test_a_turned_photograph_is_shown_upright(tmp_path):
    image = Image.fromarray(np.zeros((30, 90, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    image.save(tmp_path / "a.jpg", exif=exif)
    photo = plots.to_picture(images.read_image(tmp_path / "a.jpg", plots.LONGEST))
    assert photo.shape == (90, 30, 3)


def test_a_verdict_names_score_and_threshold():
    assert plots.caption(2.345) == "ANOMALOUS\nscore 2.35, threshold 1.00"
    assert plots.caption(1.0).startswith("normal\n")  # above, not at, the threshold


def rows(labels, scores):
    """As of scores.csv."""
    return [SimpleNamespace(label=a, score=f"{b:.6f}") for a, b in zip(labels, scores)]


HARD = "缺陷 $x$_\u0e01\udc80 é\u200b\U0001f9ff"  # CJK, formula, Thai, a bad byte, NFD, no width


def test_names_that_no_font_has_are_escaped_and_no_warning_is_printed(tmp_path, capfd):
    picture = np.zeros((40, 60, 3), np.uint8)
    file = tmp_path / "缺陷_$a$_\u0e01.png"
    Image.fromarray(picture).save(file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.save_grid(tmp_path / "g.png", [[picture]], ["input"], [HARD])
        plots.save_sheet(tmp_path / "s.png", [file], [HARD], HARD)
        plots.save_heat(tmp_path / "h.png", picture, spot(10, 10), (6, None), HARD)
        charts.save_histograms(tmp_path / "i.png", {HARD: rows((0, 1, -1), (0.0, 2, 2))})
        charts.save_confusion(tmp_path / "c.png", ["good", HARD], [[3, 1], [0, 4]])
    assert capfd.readouterr() == ("", "")


def test_drawable_uses_fonts_that_are_there(monkeypatch):
    """Only DejaVu Sans: what it lacks is escaped. With a font that has 缺: its family is used."""
    entry = next(f for f in font_manager.fontManager.ttflist if f.name == "DejaVu Sans")
    other = font_manager.FontEntry("other.ttf", 0, "Other Sans", "normal", "normal", 400)
    for kept, first in (([entry], "\\u7f3a"), ([entry, other], "缺")):
        fonts.family_with.cache_clear()
        monkeypatch.setattr(fonts, "entries", lambda kept=kept: kept)
        known = fonts.characters
        monkeypatch.setattr(fonts, "characters", lambda path, known=known:
                            {0x7f3a} if path == "other.ttf" else known(path))
        assert fonts.drawable("缺 a$b e\u0301 \udc80") == first + " a\\$b é \\udc80"
        families = fonts.matplotlib.rcParams["font.family"]
        assert families[0] == "DejaVu Sans" and ("Other Sans" in families) == (other in kept)
    fonts.family_with.cache_clear()
    fonts.matplotlib.rcParams["font.family"] = ["DejaVu Sans"]


def test_dollars_are_drawn_as_they_are():
    def pixels(text, **settings):
        with plots.matplotlib.rc_context(settings):
            figure = plots.plt.figure(figsize=(2, 0.5))
            figure.text(0.1, 0.3, text)
            figure.canvas.draw()
            return np.array(figure.canvas.buffer_rgba())
    for name in ("a$b", "$a_{1}$ b"):
        as_it_is = pixels(name, **{"text.parse_math": False})
        assert (pixels(fonts.drawable(name)) == as_it_is).all() and as_it_is.min() == 0


def test_long_names_keep_both_ends_and_wide_characters_count_twice():
    assert fonts.drawable("abcdefgh", 8) == "abcdefgh"
    assert fonts.drawable("abcdefghij", 7) == "abc…hij"
    assert fonts.drawable("a\u0e01$c", 20) == "a\\u0e01\\$c"  # escapes are never cut apart
    assert fonts.drawable("a\u0e01$c", 9) == "a…c"
    assert fonts.width("ab缺") == 4


def drawn(monkeypatch, module, function, *arguments):
    """The figure that a function saves."""
    found = []
    monkeypatch.setattr(module, "save_figure", lambda path, figure: found.append(figure))
    function(None, *arguments)
    found[0].canvas.draw()
    return found[0]


def test_bars_have_no_figure_where_there_is_none(monkeypatch):
    runs = [{"name": "a", "test": {"accuracy": None, "auroc": 0.75}}, {"name": "b", "test": {}}]
    axis, = drawn(monkeypatch, compare, compare.save_bars, runs).axes
    assert sorted(t.get_text() for t in axis.texts) == ["-", "0.750"]


def test_histograms_count_whole_images_of_every_label(monkeypatch):
    labels, scores = (0, 0, 1, -1, -1, -1), (0.0, 0.1, 3, 0, 3, 3)
    figure = drawn(monkeypatch, charts, charts.save_histograms,
                   {"a": rows(labels[:2], scores), "b": rows(labels, scores)})
    for axis, count in zip(figure.axes, (2, 6)):
        assert sum(bar.get_height() for bar in axis.patches) == count
        assert all(tick == round(tick) for tick in axis.get_yticks())
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(names) == ["anomalous", "no label", "normal", "threshold"]


@pytest.mark.parametrize("low", (0.3, 1.5, -1.0))
def test_curves_have_dashes_of_their_own_and_plain_ticks(monkeypatch, low):
    log = [{"epoch": e, "loss": low + 1 / e, "val_loss": low + 1.1 / e, "auroc": 1 - 1 / e,
            "val_loss_anomalous": low + 2 / e, "accuracy": 1 - 1 / e} for e in (1, 2, 3)]
    runs = [{"name": f"run {i}", "log": log} for i in range(9)]
    figure = drawn(monkeypatch, compare, compare.save_curves, runs)
    looks = {(str(line._dash_pattern), line.get_color(), line.get_marker())
             for axis in figure.axes for line in axis.lines}
    assert len(looks) == 9 * 5
    ticks = [label.get_text() for axis in figure.axes for side in (axis.xaxis, axis.yaxis)
             for label in side.get_ticklabels(which="both")]
    assert not [t for t in ticks if "$" in t or "e" in t] and len(ticks) > 10
    assert all(float(label.get_text()).is_integer() for label in figure.axes[0].get_xticklabels())
