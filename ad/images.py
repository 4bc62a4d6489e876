"""Image files -> 8-bit RGB: whatever Pillow reads, deep or large, grey, colour or transparent."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps

from ad import InputError
from ad.cli import progress

MIN_SIDE = 16  # pixels; the SSIM window is 11 wide
# Pixels of a file. Decoding needs 1 byte for each of 8-bit grey, 4 of colour, 12 at most: 6 GB.
MOST = 500_000_000
LARGE = 2 ** 25  # pixels; of larger files one is decoded at a time, whatever the number of threads
ONE_LARGE = threading.Lock()
RANGES = 255, 4095, 65535  # the value of deep grey that is white is one of these
BACKGROUND = "white"  # lies under what is transparent, as most viewers show it
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit warns in one thread and not in another


@contextmanager
def opened(path):
    """The file as a Pillow image that is not decoded yet. Raises ValueError above MOST pixels."""
    with Image.open(path) as image:
        image.filename = ""  # no memory map, in which Pillow 13 muddles turned TIFFs
        pixels = image.width * image.height
        if pixels > MOST:
            raise ValueError(f"it has {pixels / 1e6:.0f} megapixels, the most that is read are "
                             f"{MOST / 1e6:.0f}; cut it into tiles")
        with ONE_LARGE if pixels > LARGE else nullcontext():
            yield image


def read_image(path, image_size, white=None):
    """Any image file -> uint8 (3, H, W), shrunk (never enlarged) to long side `image_size` pixels.

    Of several frames the first; grey is repeated to three channels, transparency laid over
    BACKGROUND, EXIF rotation applied, deep grey scaled so that `white` becomes 255, see to_bytes.
    Raises InputError naming the file when it cannot be decoded, has more than MOST pixels, or is
    left with a side below MIN_SIDE.
    """
    try:
        with opened(path) as image:
            return shrunk(image, image_size, white)
    except Exception as error:  # a damaged file makes Pillow raise anything
        raise InputError(f"cannot read image {path}: {error or type(error).__name__}") from error


def shrunk(image, image_size, white):
    """A Pillow image as read_image gives it. Raises ValueError for what that refuses."""
    scale = image_size / max(image.size)
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
                         + ("; train with a larger --image-size" if scale < 1 else ""))
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def as_image(source, image_size, white=None):
    """As read_image of a path, a Pillow image, an array (H, W) or (H, W, 3), or a tensor
    (3, H, W), uint8 or float in [0, 1]. Raises InputError for anything else."""
    if isinstance(source, (str, os.PathLike)):
        return read_image(source, image_size, white)
    try:
        if torch.is_tensor(source):
            if source.is_floating_point():
                source = (source.clamp(0, 1) * 255).round().byte()
            source = source.cpu().permute(1, 2, 0).numpy()
        return shrunk(source.copy() if isinstance(source, Image.Image) else Image.fromarray(source),
                      image_size, white)
    except (TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise InputError(f"not an image: {type(source).__name__}: {error}") from error


def flat(image, white):
    """Pillow image of any mode -> one of mode L or RGB."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(to_bytes(np.asarray(image), white))
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    if image.has_transparency_data:
        image = image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
        if image.getextrema()[-1][0] < 255:
            under = Image.new(mode, image.size, BACKGROUND)
            under.paste(image, mask=image)
            return under
    return image if image.mode == mode else image.convert(mode)


def to_bytes(grey, white=None):
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


def brightest(paths):
    """{path: largest value} of the files of deep grey integers; others are not even decoded."""
    def one(path):
        try:
            with opened(path) as image:
                return int(np.asarray(image).max()) if image.mode.startswith("I") else None
        except Exception:  # read_image says what is wrong with it
            return None
    with ThreadPoolExecutor(min(8, os.cpu_count())) as pool:
        return {path: value for path, value in zip(paths, pool.map(one, paths))
                if value is not None}


def white_of(paths):
    """The smallest of RANGES that holds all deep grey of these files, None where there is none.
    Cameras of 12 bits fill files of 16."""
    most = max(brightest(paths).values(), default=None)
    return None if most is None else next((w for w in RANGES if most <= w), RANGES[-1])


def reading(config):
    """(image_size, white) with which the images of a run are read, from its config.json; without
    `white` its training images have 8 bits."""
    return config["image_size"], config.get("white")


def report_range(samples, config):
    """Say which images have deep grey above the range of a run's training images."""
    white, paths = config.get("white"), [s.path for s in samples]
    if white == RANGES[-1]:
        return
    above = [path for path, value in brightest(paths).items() if value > (white or 0)]
    if above:
        print(f"note: {samples[0].category}: {len(above)} of {len(paths)} images have "
              + (f"values above {white}, the range of the training images, and are white there"
                 if white else f"more than 8 bits, unlike the training images; {RANGES[-1]} is "
                 "read as white") + f", first {above[0]}")


def load_images(samples, image_size, white=None):
    """Decode samples once, on threads: list of uint8 (3, H, W), in order. See read_image. Raises
    InputError with a line for every file that cannot be read."""
    return load_readable(samples, image_size, white, skip=False)[1]


def load_readable(samples, image_size, white=None, skip=True):
    """As load_images, but with `skip` leaves out what cannot be read, and says so: (samples,
    images)."""
    def one(sample):
        try:
            return read_image(sample.path, image_size, white)
        except InputError as error:
            return error
    with ThreadPoolExecutor(min(8, os.cpu_count())) as pool, progress(
            len(samples), "reading images") as bar:
        found = []
        for image in pool.map(one, samples):
            found.append(image)
            bar.update()
    errors = [str(f) for f in found if isinstance(f, InputError)]
    if errors and not skip:
        raise InputError("\n".join(errors))
    if errors:
        print(f"left out {len(errors)} of {len(samples)} images:\n" + "\n".join(errors))
    kept = [(s, f) for s, f in zip(samples, found) if not isinstance(f, InputError)]
    return [s for s, _ in kept], [i for _, i in kept]


def orientation(path):
    """The EXIF orientation of an image file: 1 as stored, 2 to 8 mirrored or turned."""
    with Image.open(path) as image:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
