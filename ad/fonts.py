"""File names in pictures: fonts that have their characters, and a plain form where none has."""

import functools
import unicodedata

import matplotlib
from matplotlib import font_manager


def entries():
    """Installed fonts for running text, DejaVu Sans first. Of those that matplotlib brings, no
    other: its symbol fonts hold other signs than they say."""
    own = [f for f in font_manager.fontManager.ttflist
           if f.name == "DejaVu Sans" or not f.fname.startswith(matplotlib.get_data_path())]
    return sorted((f for f in own if (f.style, f.weight) == ("normal", 400)),
                  key=lambda f: f.name != "DejaVu Sans")


@functools.cache
def characters(path):
    """The code points that a font file has; none where it cannot be read."""
    try:
        return frozenset(font_manager.get_font(path).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()


@functools.cache
def family_with(character):
    """Name of the first font with this character; None without one."""
    return next((f.name for f in entries() if ord(character) in characters(f.fname)), None)


def drawable(text):
    """Any text as matplotlib can draw it, without a warning: its fonts are added to those in use,
    characters without a font are escaped as in Python, and $ does not begin a formula. To be called
    before the figure is made."""
    result, families = "", dict.fromkeys(["DejaVu Sans", *matplotlib.rcParams["font.family"]])
    families.pop("sans-serif", None)
    for character in unicodedata.normalize("NFC", text):
        if character.isspace():
            character = "\n" if character == "\n" else " "
        elif not character.isprintable() or not family_with(character):
            character = character.encode("unicode_escape").decode()
        else:
            families[family_with(character)] = None
        result += "\\$" if character == "$" else character
    matplotlib.rcParams["font.family"] = list(families)
    return result


def short(text, most):
    """A text with its middle left out where it is wider than `most` letters; Chinese, Japanese and
    Korean characters are two wide."""
    def width(part):
        return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in part)
    if width(text) <= most:
        return text
    head, tail = text[:len(text) // 2], text[len(text) // 2:]
    while width(head + tail) >= most:
        head, tail = head[:-1], tail[1:]
    return f"{head}…{tail}"
