"""File names in pictures: fonts that have their characters, and a plain form where none has."""

import functools
import unicodedata

import matplotlib
from matplotlib import font_manager


def entries() -> list:
    """Installed fonts for running text, DejaVu Sans first. Of those that matplotlib brings, no
    other: its symbol fonts hold other signs than they say."""
    own = [f for f in font_manager.fontManager.ttflist
           if f.name == "DejaVu Sans" or not f.fname.startswith(matplotlib.get_data_path())]
    return sorted((f for f in own if (f.style, f.weight) == ("normal", 400)),
                  key=lambda f: f.name != "DejaVu Sans")


@functools.cache
def characters(path: str) -> frozenset[int]:
    """The code points that a font file has; none where it cannot be read."""
    try:
        return frozenset(font_manager.get_font(path).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()


@functools.cache
def family_with(character: str) -> str | None:
    """Name of the first font with this character; None without one."""
    return next((f.name for f in entries() if ord(character) in characters(f.fname)), None)


def drawable(text: str, most: int = 999) -> str:
    """Any text as matplotlib can draw it, without a warning: its fonts are added to those in use,
    characters without a font are escaped as in Python, and $ does not begin a formula. Its middle
    is left out where it is wider than `most` letters. To be called before the figure is made."""
    parts, families = [], dict.fromkeys(["DejaVu Sans", *matplotlib.rcParams["font.family"]])
    families.pop("sans-serif", None)
    for character in unicodedata.normalize("NFC", text):
        family = family_with(character)
        if character.isspace():
            parts.append("\n" if character == "\n" else " ")
        elif family and character.isprintable():
            parts.append("\\$" if character == "$" else character)
            families[family] = None
        else:
            parts.append(character.encode("unicode_escape").decode())
    matplotlib.rcParams["font.family"] = list(families)
    head, tail = parts[:len(parts) // 2], parts[len(parts) // 2:]
    if width(parts) > most:
        while width(head + tail) >= most:
            head, tail = head[:-1], tail[1:]
        head.append("…")
    return "".join(head + tail)


def width(parts: list[str]) -> int:
    """Letters that fit in the place of these; Chinese, Japanese and Korean ones are two wide."""
    return sum(len(p) + (unicodedata.east_asian_width(p[0]) in "WF") for p in parts)
