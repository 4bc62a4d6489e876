"""Which category is this image? Descriptors of images, groups of them, and routing to groups."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from sklearn.cluster import AgglomerativeClustering
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances

from ad import InputError
from ad.gradients import Gradients
from ad.images import load_images

SIDE = 128  # pixels of the square at which images are described
CHUNK = 64  # images described at a time
RINGS = 4  # around the middle of an image, the last with its corners
PARTS = 27, 15, 2 * 18 * RINGS  # values of a descriptor, see describe
MOST, MARGIN = 24, 0.3  # groups that are tried, and how well separated they must be: see group
LEAST = 4  # images of a group, as many as training needs


def describe(samples: list, white: int | None = None) -> np.ndarray:
    """Samples -> descriptors (N, sum(PARTS)): what they are made of, and how far from the middle.

    Of 8 x 8 cells: how much gradient there is at 3 scales, and how it is directed, without where to
    (the magnitudes of the Fourier transform over directions, 15): mean, with that of the directions
    of all cells together (12); standard deviation; and, with the mean colour (3), mean and standard
    deviation in RINGS rings. Each of the three parts has the same weight in distances. An image
    that is mirrored or turned by 90 degrees has the same descriptor, by other angles a similar one.
    """
    gradients, parts = Gradients((SIDE // 8,)), []
    place = ((torch.arange(8) - 3.5) / 4).square()
    ring = ((place[:, None] + place).sqrt() * RINGS).long().clamp_max(RINGS - 1).flatten()
    share = F.one_hot(ring, RINGS) / ring.bincount()
    for start in range(0, len(samples), CHUNK):
        images = load_images(samples[start:start + CHUNK], 2 * SIDE, white)
        batch = torch.cat([F.interpolate(image[None].float() / 255, (SIDE, SIDE), mode="bilinear",
                                         antialias=True) for image in images])
        cells = gradients(batch)[0].flatten(2)
        directed = cells[:, :24].unflatten(1, (3, 8))  # (N, scales, directions, cells)
        found = torch.fft.rfft(directed, dim=2).abs().flatten(1, 2) / 8
        whole = torch.fft.rfft(directed.mean(3), dim=2).abs()[:, :, 1:].flatten(1) / 8
        both = torch.cat([found, cells[:, 24:]], 1)
        mean = both @ share
        spread = ((both * both) @ share - mean * mean).clamp_min(0).sqrt()
        parts.append(torch.cat([found.mean(2), whole, found.std(2), mean.flatten(1),
                                spread.flatten(1)], 1))
    return torch.cat(parts).numpy()


class Space:
    """Descriptors of training images -> at most 32 coordinates in which distances mean something:
    each of the three parts is scaled to the same spread, then the principal components."""

    def __init__(self, described: np.ndarray):
        spread = [np.sqrt(part.var(0).sum())
                  for part in np.split(described, np.cumsum(PARTS)[:-1], 1)]
        self.scale = np.repeat(np.maximum(spread, 1e-9), PARTS)
        self.pca = PCA(min(32, *described.shape), random_state=0).fit(described / self.scale)
        self.train = self(described)

    def __call__(self, described: np.ndarray) -> np.ndarray:
        return self.pca.transform(described / self.scale)


def group(points: np.ndarray, groups: int | None = None,
          least: int = LEAST) -> tuple[np.ndarray, dict]:
    """Points (N, D) -> (label of each, {number of groups: margin}). Ward's clustering.

    No group has fewer than `least` points: what a cut would leave alone joins, point by point, the
    group of the nearest one. The margin is that of the least separated group, the `confidence` that
    95 % of its other points reach. Without `groups` the most groups with a margin of at least
    MARGIN are taken. (The silhouette, in our experience, prefers few, mixed groups.) Raises
    InputError where there are not as many groups.
    """
    count = len(points)
    labels, margins, chosen, number = None, {}, np.zeros(count, int), 1
    distance = distances(points)
    merges = AgglomerativeClustering(None, distance_threshold=0).fit(points).children_.tolist() \
        if count > 1 else []
    members = [[index] for index in range(count)]
    for one, other in merges:
        members.append(members[one] + members[other])
    nodes, whole = [len(members) - 1], []  # groups that may be parted, and those that cannot
    while nodes and number < (MOST if groups is None else groups):
        node = nodes.pop()
        parts = [part for part in (merges[node - count] if node >= count else ())
                 if len(members[part]) >= least]
        nodes = sorted(nodes + parts)  # the last merge is the first to be undone
        whole += [] if parts else [node]
        if len(parts) < 2:
            continue
        number += 1
        labels = np.full(count, -1)
        for label, node in enumerate(nodes + whole):
            labels[members[node]] = label
        kept = labels >= 0
        labels[~kept] = labels[kept][distance[~kept][:, kept].argmin(1)]
        if groups in (None, number):
            certain = confidence(distance, labels, labels)
            margins[number] = min(float(np.quantile(certain[kept & (labels == label)], 0.05,
                                                    method="lower"))
                                  for label in range(number))
        if number == groups or groups is None and margins[number] >= MARGIN:
            chosen = labels
    if groups is not None and not 1 <= groups <= number:
        raise InputError(f"--groups must be 1 to {number}, as these {count} images make no more "
                         f"groups of {least} or more; got {groups}")
    return chosen, margins


def distances(points: np.ndarray, queries: np.ndarray | None = None) -> np.ndarray:
    """Euclidean distances (M, N) of queries to points; without queries of points to each other,
    infinite to themselves."""
    found = pairwise_distances(points if queries is None else queries, points)
    if queries is None:
        np.fill_diagonal(found, np.inf)
    return found


def confidence(distance: np.ndarray, own: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """1 - the distance to the nearest point labelled `own` over that to the nearest of another
    label: (M, N), (M,), (N,) -> (M,), at most 1, below 0 where another label is nearer."""
    same = np.asarray(labels) == np.asarray(own)[:, None]
    nearest, other = (np.where(part, distance, np.inf).min(1) for part in (same, ~same))
    return 1 - nearest / np.maximum(other, 1e-12)


def route(distance: np.ndarray, labels: ArrayLike) -> tuple[list, np.ndarray]:
    """Distances (M, N) to labelled points -> label of the nearest one for each of M, and the
    confidence in it, in [0, 1]."""
    own = np.asarray(labels)[distance.argmin(1)]
    return own.tolist(), confidence(distance, own, labels)
