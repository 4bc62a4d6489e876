"""Images: decoding, the cache in memory, sizes, the split, and copies that leak."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from ad import InputError

MIN_SIDE = 16  # pixels; the SSIM window is 11 wide


def read_image(path, image_size):
    """Any image file -> uint8 (3, H, W), shrunk (never enlarged) to long side `image_size` pixels.

    Grey is repeated to three channels, transparency dropped, EXIF rotation applied, deep grey
    scaled by its range, see to_bytes. Raises InputError naming the file when it cannot be decoded,
    or is left with a side below MIN_SIDE.
    """
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith(("I", "F")):
                image = Image.fromarray(to_bytes(np.asarray(image)))
            image = image.convert("RGB")
            scale = image_size / max(image.size)
            if scale < 1:
                image = image.resize([max(1, round(s * scale)) for s in image.size],
                                     Image.Resampling.BICUBIC)
            if min(image.size) < MIN_SIDE:
                raise ValueError(f"{image.height} x {image.width} pixels at a long side of "
                                 f"{image_size}; both sides must be {MIN_SIDE} or more")
            return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
    except (OSError, SyntaxError, ValueError, Warning, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read image {path}: {error}") from error


def to_bytes(grey):
    """Grey pixels of more than 8 bits (H, W) -> uint8, scaled by their range, never clipped: of
    integers that of 16 bits or, where all fit, of the 12 bits of many cameras; of floats [0, 1].
    Raises ValueError for values outside, whose range cannot be known."""
    high = 1 if grey.dtype.kind == "f" else 4095 if grey.max() < 4096 else 65535
    if not (0 <= grey.min() and grey.max() <= high):  # not for NaN either
        raise ValueError(f"its values, {grey.min():g} to {grey.max():g}, are not in [0, {high}]; "
                         "save it with 8 or 16 bits")
    return (grey / high * 255).round().astype(np.uint8)


def read_mask(path, height, width):
    """Ground-truth mask file -> bool (1, height, width), nearest neighbour; > 127 is defect.

    Raises InputError when it cannot be read, or has not the image's shape (it may be a multiple).
    """
    try:
        with Image.open(path) as image:
            if abs(image.width * height - image.height * width) > max(image.size):
                raise ValueError(f"it is {image.height} x {image.width} pixels, but its image "
                                 f"{height} x {width}, or larger in proportion")
            image = image.convert("L").resize((width, height), Image.Resampling.NEAREST)
            return torch.from_numpy(np.array(image) > 127)[None]
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"cannot read mask {path}: {error}") from error


def load_images(samples, image_size):
    """Decode samples once, on threads: list of uint8 (3, H, W), in order. See read_image. Raises
    InputError with a line for every file that cannot be read."""
    return load_readable(samples, image_size, skip=False)[1]


def load_readable(samples, image_size, skip=True):
    """As load_images, but with `skip` leaves out what cannot be read, and says so: (samples,
    images)."""
    images, errors = decode(samples, image_size)
    if errors and not skip:
        raise InputError("\n".join(errors))
    if errors:
        print(f"left out {len(errors)} of {len(samples)} images:\n" + "\n".join(errors))
    kept = [(s, i) for s, i in zip(samples, images) if i is not None]
    return [s for s, _ in kept], [i for _, i in kept]


def decode(samples, image_size):
    """(images in order, None where one cannot be read; what is wrong with those)."""
    def one(sample):
        try:
            return read_image(sample.path, image_size)
        except InputError as error:
            return error
    with ThreadPoolExecutor(min(8, os.cpu_count())) as pool:
        found = list(pool.map(one, samples))
    return ([None if isinstance(f, InputError) else f for f in found],
            [str(f) for f in found if isinstance(f, InputError)])


def copies(files, others):
    """[(file, its copy among others), ...]: files with the same bytes, by SHA-256."""
    sizes = {path.stat().st_size for path in others}
    near = [path for path in files if path.stat().st_size in sizes]
    sizes = {path.stat().st_size for path in near}
    known = {digest(path): path for path in others if path.stat().st_size in sizes}
    pairs = [(path, known.get(digest(path))) for path in near]
    return [(path, other) for path, other in pairs if other]


def digest(path):
    return sha256(path.read_bytes()).digest()


def drop_copies(samples, images):
    """Normal samples and their images without those that show the same pixels as one before, which
    would be judged by what has learned them; says which."""
    first, copied = {}, []
    for sample, image in zip(samples, images):
        key = tuple(image.shape), sha256(image.numpy()).digest()
        if key in first:
            copied.append(f"{sample.path} = {first[key][0].path}")
        else:
            first[key] = sample, image
    if copied:
        print(f"left out {len(copied)} of {len(samples)} normal images, copies of others: "
              + ", ".join(copied[:3]) + (", ..." if len(copied) > 3 else ""))
    return [s for s, _ in first.values()], [i for _, i in first.values()]


def report_copies(files, others, what):
    """Print which of `files` are copies of `others`, if any: leakage; what: e.g. "test"."""
    found = copies(files, [path for path in others if path.is_file()])
    if found:
        print(f"LEAKAGE: {len(found)} of {len(files)} {what} images are copies of training images, "
              "which makes the figures too good: " + ", ".join(
                  f"{a} = {b}" for a, b in found[:3]) + (", ..." if len(found) > 3 else ""))


def to_float(image, device):
    """uint8 (..., 3, H, W) in [0, 255] -> float32 in [0, 1] on `device`."""
    if torch.device(device).type == "cuda" and not image.is_cuda:
        image = image.pin_memory()  # so that nothing waits for the copy
    return image.to(device, non_blocking=True).float() / 255


def resize_to(images, size):
    """Float (N, 3, H, W) in [0, 1] -> (N, 3, *size), untouched where it has that size."""
    return images if images.shape[-2:] == size else F.interpolate(
        images, size, mode="bilinear", antialias=True).clamp(0, 1)


def resize_long_side(image, size):
    """uint8 or float (3, H, W) -> float (1, 3, h, w) in [0, 1], long side `size` pixels, the other
    one at least MIN_SIDE."""
    if not image.is_floating_point():
        image = image.float() / 255
    scale = size / max(image.shape[-2:])
    shape = [max(MIN_SIDE, round(s * scale)) for s in image.shape[-2:]]
    return F.interpolate(image[None], shape, mode="bilinear", antialias=True).clamp(0, 1)


def split_normals(samples, fraction, seed):
    """Normal samples -> (train, validation), whole images, order kept; >= 2 in validation.

    Raises InputError for fewer than 4 samples, which leave nothing to train or validate on.
    """
    count = max(2, round(len(samples) * fraction))
    if len(samples) - count < 2:
        raise InputError(f"{samples[0].path.parent} has only {len(samples)} images; at least 4 are "
                         "needed to train and validate")
    order = np.random.default_rng(seed).permutation(len(samples))
    chosen = set(order[:count].tolist())
    return ([s for i, s in enumerate(samples) if i not in chosen],
            [s for i, s in enumerate(samples) if i in chosen])
