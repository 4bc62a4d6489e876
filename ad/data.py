"""Images in memory: sizes, the split, and copies that leak."""

import math
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ad import InputError, ranks
from ad.images import MIN_SIDE

# Of a U-Net that repairs: epochs and, as many as an average category of MVTec AD gets of them, the
# least steps: what a part must look like is learned last.
EPOCHS, LEAST = 200, 5600


def copies(files: list, others: list) -> list:
    """[(file, its copy among others), ...]: files with the same bytes, by SHA-256."""
    sizes = {path.stat().st_size for path in files} & {path.stat().st_size for path in others}
    files, others = ([path for path in part if path.stat().st_size in sizes]
                     for part in (files, others))
    known = {digest(path): path for path in others}
    pairs = [(path, known.get(digest(path))) for path in files]
    return [(path, other) for path, other in pairs if other]


def digest(path: Path) -> bytes:
    """SHA-256 of a file."""
    return sha256(path.read_bytes()).digest()


def drop_copies(samples: list, images: list) -> tuple[list, list]:
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


def report_copies(files: list, others: list, what: str) -> None:
    """Print which of `files` are copies of `others`, if any: leakage; what: e.g. "test"."""
    found = copies(files, [path for path in others if path.is_file()])
    if found:
        print(f"LEAKAGE: {len(found)} of {len(files)} {what} images are copies of training images, "
              "which makes the figures too good: " + ", ".join(
                  f"{a} = {b}" for a, b in found[:3]) + (", ..." if len(found) > 3 else ""))


def on_device(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """The tensor there; nothing waits for the copy to a GPU."""
    if torch.device(device).type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def cache_on_device(images: list, device: torch.device) -> list:
    """uint8 images on the GPU, where they take up to a quarter of its free memory; else as they
    are."""
    if device.type != "cuda" or 4 * sum(i.nbytes for i in images) > torch.cuda.mem_get_info(
            device)[0]:
        return images
    return [image.to(device) for image in images]


def read_later(values: torch.Tensor) -> Callable[[], list]:
    """A function that returns values (N,) as a list. From a GPU they are copied at once; the
    function waits for that copy, not for what the GPU is told to do after it."""
    if not values.is_cuda:
        return values.tolist
    copied, arrived = values.to("cpu", non_blocking=True), torch.cuda.Event()
    arrived.record()

    def read():
        arrived.synchronize()
        return copied.tolist()
    return read


def to_float(image: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """uint8 (..., 3, H, W) in [0, 255] -> float32 in [0, 1] on `device`."""
    return on_device(image, device) / 255


def resize_to(images: torch.Tensor, size: tuple) -> torch.Tensor:
    """Float (N, 3, H, W) in [0, 1] -> (N, 3, *size), untouched where it has that size."""
    return images if images.shape[-2:] == size else F.interpolate(
        images, size, mode="bilinear", antialias=True).clamp(0, 1)


def resize_long_side(image: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 or float (3, H, W) -> float (1, 3, h, w) in [0, 1], long side `size` pixels, the other
    one at least MIN_SIDE."""
    if not image.is_floating_point():
        image = image.float() / 255
    scale = size / max(image.shape[-2:])
    shape = [max(MIN_SIDE, round(s * scale)) for s in image.shape[-2:]]
    return F.interpolate(image[None], shape, mode="bilinear", antialias=True).clamp(0, 1)


def split_normals(samples: list, fraction: float, seed: int) -> tuple[list, list]:
    """Normal samples -> (train, validation), whole images, order kept; >= 2 in validation.

    Raises InputError for fewer than 4 samples, which leave nothing to train or validate on.
    """
    if not samples:
        raise InputError("there is no normal image that can be read")
    count = min(max(2, round(len(samples) * fraction)), len(samples) - 2)
    if count < 2:
        raise InputError(f"there are only {len(samples)} different normal images of "
                         f"{samples[0].category} in {samples[0].path.parent}; at least 4 are "
                         "needed to train and validate")
    order = np.random.default_rng(seed).permutation(len(samples))
    chosen = set(order[:count].tolist())
    return ([s for i, s in enumerate(samples) if i not in chosen],
            [s for i, s in enumerate(samples) if i in chosen])


def enough_epochs(images: int, batch: int) -> int:
    """EPOCHS, or as many as make LEAST steps where images are few."""
    steps = math.ceil(images / batch)  # of an epoch
    return max(EPOCHS, math.ceil(LEAST / steps))


def divide(order: list, batch: int) -> list:
    """Image numbers -> batches of equal size (+-1): a last batch of one image would upset batch
    normalisation."""
    count = -(-len(order) // batch)
    if len(order) // count < ranks.size():
        raise InputError(f"batches of {len(order) // count} images are too small for "
                         f"{ranks.size()} processes; take fewer, or a larger --batch")
    return [order[i * len(order) // count:(i + 1) * len(order) // count] for i in range(count)]
