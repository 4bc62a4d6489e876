"""Image files -> 8-bit RGB: whatever Pillow reads, deep or large, grey, colour or transparent."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

import ad
from ad import InputError
from ad.cli import progress
from ad.folders import say_once, unread

MIN_SIDE = 16  # pixels; the SSIM window is 11 wide
# Pixels of a file. Decoding needs 1 byte for each of 8-bit grey, 4 of colour, 12 at most: 6 GB.
MOST = 500_000_000
LARGE = 2 ** 25  # pixels; of larger files one is decoded at a time, whatever the number of threads
ONE_LARGE = threading.Lock()
BACKGROUND = "white"  # lies under what is transparent, as most viewers show it
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit warns in one thread and not in another


def read_image(path: str | Path, image_size: int, white: int | None = None) -> torch.Tensor:
    """Any image file -> uint8 (3, H, W), shrunk (never enlarged) to long side `image_size` pixels.

    Of several frames the first; grey is repeated to three channels, transparency laid over
    BACKGROUND, EXIF rotation applied, deep grey scaled so that `white` becomes 255, see
    sets.deep_grey.
    Raises InputError naming the file when it cannot be decoded, has more than MOST pixels, or is
    left with a side below MIN_SIDE.
    """
    try:
        with opened(path) as image:
            if image.format != "MPO" and getattr(image, "is_animated", False):
                say_once("note: of files with several pages or frames only the first one is read")
            return shrunk(image, image_size, white)
    except Exception as error:  # a damaged file makes Pillow raise anything
        what = str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            what = "it has no known format" if os.path.getsize(path) else "it is empty"
        raise InputError(f"cannot read image {path}: {what}{unread([Path(path)])}") from error


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """The file as a Pillow image that is not decoded yet. Raises ValueError above MOST pixels."""
    with Image.open(path) as image:
        image.filename = ""  # no memory map, in which Pillow 13 muddles turned TIFFs
        pixels = image.width * image.height
        if pixels > MOST:
            raise ValueError(f"it has {pixels / 1e6:.0f} megapixels, the most that is read are "
                             f"{MOST / 1e6:.0f}; cut it into tiles")
        with ONE_LARGE if pixels > LARGE else nullcontext():
            yield image


def shrunk(image: Image.Image, image_size: int, white: int | None) -> torch.Tensor:
    """A Pillow image as read_image gives it. Raises ValueError for what that refuses."""
    if not min(image.size):
        raise ValueError("it has no pixels")
    scale, small = image_size / max(image.size), min(image.size) < MIN_SIDE
    if image.width * image.height > LARGE:  # a JPEG is decoded at a fraction of its size
        image.draft(None, [max(1, int(2 * scale * side)) for side in image.size])
        scale = image_size / max(image.size)
    ImageOps.exif_transpose(image, in_place=True)
    image = flat(image, white)
    if scale < 1:
        image = image.resize([max(1, round(s * scale)) for s in image.size],
                             Image.Resampling.BICUBIC)
    if min(image.size) < MIN_SIDE:
        raise ValueError(f"{image.height} x {image.width} pixels at a long side of "
                         f"{image_size}; both sides must be {MIN_SIDE} or more"
                         + ("" if small else "; train with a larger --image-size"))
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def flat(image: Image.Image, white: int | None) -> Image.Image:
    """Pillow image of any mode -> one of mode L or RGB."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(ad.sets.deep_grey.to_bytes(np.asarray(image), white))
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    if image.has_transparency_data:
        image = image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
        if image.getextrema()[-1][0] < 255:
            under = Image.new(mode, image.size, BACKGROUND)
            under.paste(image, mask=image)
            return under
    return image if image.mode == mode else image.convert(mode)


def load_images(samples: list, image_size: int, white: int | None = None) -> list[torch.Tensor]:
    """Decode samples once, on threads: list of uint8 (3, H, W), in order. See read_image. Raises
    InputError with a line for every file that cannot be read."""
    return load_readable(samples, image_size, white, skip=False)[1]


def on_threads(function: Callable, items: Iterable) -> Iterator:
    """Yield function(item) of all items, in order, several at a time."""
    with ThreadPoolExecutor(min(8, os.cpu_count())) as pool:
        yield from pool.map(function, items)


def load_readable(samples: list, image_size: int, white: int | None = None,
                  skip: bool = True) -> tuple[list, list]:
    """As load_images, but with `skip` leaves out what cannot be read, and says so: (samples,
    images)."""
    def one(sample):
        try:
            return read_image(sample.path, image_size, white)
        except InputError as error:
            return error
    with progress(len(samples), "reading images") as bar:
        found = []
        for image in on_threads(one, samples):
            found.append(image)
            bar.update()
    errors = [str(f) for f in found if isinstance(f, InputError)]
    if errors and not skip:
        raise InputError("\n".join(errors))
    if errors:
        print(f"left out {len(errors)} of {len(samples)} images:\n" + "\n".join(errors))
    kept = [(s, f) for s, f in zip(samples, found) if not isinstance(f, InputError)]
    return [s for s, _ in kept], [i for _, i in kept]


def reading(config: dict) -> tuple[int, int | None]:
    """(image_size, white) with which the images of a run are read, from its config.json; without
    `white` its training images have 8 bits."""
    return config["image_size"], config.get("white")


def white_of(paths: list) -> int | None:
    """The value of deep grey that is white in these files, None where there is none."""
    deep = deep_grey(paths)
    return ad.sets.deep_grey.white_of(deep) if deep else None


def deep_grey(paths: list) -> list:
    """Those of the files that hold grey integers of more than 8 bits."""
    def is_deep(path):
        try:
            with opened(path) as image:
                return image.mode.startswith("I")
        except Exception:  # read_image says what is wrong with it
            return False
    return [path for path, deep in zip(paths, on_threads(is_deep, paths)) if deep]
