"""Grey images of more than 8 bits, integers or floats, as 8 bits."""

import numpy as np

from ad.images import on_threads, opened

RANGES = 255, 4095, 65535  # the value of deep grey that is white is one of these


def white_of(paths: list) -> int | None:
    """The smallest of RANGES that holds all deep grey of these files, None where none can
    be read. Cameras of 12 bits fill files of 16."""
    most = max(brightest(paths).values(), default=None)
    return None if most is None else next((w for w in RANGES if most <= w), RANGES[-1])


def report_range(samples: list, deep: list, config: dict) -> None:
    """Say which images have deep grey above the range of a run's training images. deep: the files
    with deep grey among the samples'."""
    white = config.get("white")
    above = [path for path, value in brightest(deep).items() if value > (white or 0)]
    if above:
        print(f"note: {samples[0].category}: {len(above)} of {len(samples)} images have "
              + (f"values above {white}, the range of the training images, and are white there"
                 if white else f"more than 8 bits, unlike the training images; {RANGES[-1]} is "
                 "read as white") + f", first {above[0]}")


def brightest(paths: list) -> dict:
    """{path: largest value} of files of deep grey integers that can be read."""
    def one(path):
        try:
            with opened(path) as image:
                return int(np.asarray(image).max())
        except Exception:  # read_image says what is wrong with it
            return None
    return {path: value for path, value in zip(paths, on_threads(one, paths)) if value is not None}


def to_bytes(grey: np.ndarray, white: int | None = None) -> np.ndarray:
    """Grey pixels of more than 8 bits (H, W) -> uint8: integers from [0, white], or 16 bits where
    that is None, white where they are higher; floats from [0, 1]. Raises ValueError for floats
    outside and for integers outside 16 bits, whose range cannot be known."""
    high = 1 if grey.dtype.kind == "f" else RANGES[-1]
    if not (0 <= grey.min() and grey.max() <= high):  # not for NaN either
        raise ValueError(f"its values, {grey.min():g} to {grey.max():g}, are not in [0, {high}]; "
                         "save it with 8 or 16 bits")
    high = high if high == 1 else white or high
    found, parts = np.empty(grey.shape, np.uint8), 1 + grey.size // 2 ** 20  # little at a time
    for part, values in zip(np.array_split(found, parts), np.array_split(grey, parts)):
        part[:] = (np.minimum(values, high) / high * 255).round()
    return found
