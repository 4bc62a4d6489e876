"""Which category is this image? Descriptors of images, groups of them, and routing to groups."""

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import AgglomerativeClustering
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances

from ad import InputError
from ad.gradients import Gradients
from ad.images import load_images

SIDE = 128  # pixels of the square at which images are described
CHUNK = 64  # images described at a time
MOST, MARGIN = 24, 0.3  # groups that are tried, and how well separated they must be: see group


def describe(samples, white=None):
    """Samples -> descriptors (N, 246): what they are made of, and where which colour is. white: of
    deep grey, see ad.images.

    Mean (27) and standard deviation (27) of gradient energies and colour over 8 x 8 cells, and the
    colours of the cells (192), each of the three parts with the same weight in distances.
    """
    gradients, parts = Gradients((SIDE // 8,)), []
    for start in range(0, len(samples), CHUNK):
        images = load_images(samples[start:start + CHUNK], 2 * SIDE, white)
        batch = torch.cat([F.interpolate(image[None].float() / 255, (SIDE, SIDE), mode="bilinear",
                                         antialias=True) for image in images])
        cells = gradients(batch)[0].flatten(2)
        parts.append(torch.cat([cells.mean(2), cells.std(2), cells[:, 24:].flatten(1)], 1))
    return torch.cat(parts).numpy()


class Space:
    """Descriptors of training images -> at most 32 coordinates in which distances mean something:
    each of the three parts is scaled to the same spread, then the principal components."""

    def __init__(self, described):
        spread = [np.sqrt(part.var(0).sum()) for part in np.split(described, (27, 54), 1)]
        self.scale = np.repeat(np.maximum(spread, 1e-9), (27, 27, described.shape[1] - 54))
        self.pca = PCA(min(32, *described.shape), random_state=0).fit(described / self.scale)
        self.train = self(described)

    def __call__(self, described):
        return self.pca.transform(described / self.scale)


def group(points, groups=None):
    """Points (N, D) -> (label of each, {number of groups: margin}). Ward's clustering.

    The margin is that of the least separated group, the `confidence` that 95 % of its
    points reach; a point alone has none. Without `groups` the most groups with a margin of
    at least MARGIN are taken. (The silhouette, in our experience, prefers few, mixed groups.)
    """
    count = len(points)
    if groups is not None and not 1 <= groups <= count:
        raise InputError(f"--groups must be 1 to the number of images ({count}), got {groups}")
    if count == 1:
        return np.zeros(1, int), {}
    distance = distances(points)
    merges = AgglomerativeClustering(None, distance_threshold=0).fit(points).children_
    members = [[index] for index in range(count)]
    for one, other in merges:
        members.append(members[one] + members[other])
    nodes, labels, margins, chosen = [len(members) - 1], np.zeros(count, int), {}, None
    for number in range(1, min(max(MOST, groups or 0), count) + 1):
        for label, node in enumerate(nodes):
            labels[members[node]] = label
        if number > 1 and (groups is None or number == groups):
            certain = confidence(distance, labels, labels)
            margins[number] = min(float(np.quantile(certain[labels == label], 0.05,
                                                    method="lower"))
                                  for label in range(number))
        if number == groups or groups is None and margins.get(number, 1) >= MARGIN:
            chosen = labels.copy()
        nodes.sort()  # the last merge is the first to be undone
        nodes += merges[nodes.pop() - count].tolist() if nodes[-1] >= count else []
    return chosen, margins


def distances(points, queries=None):
    """Euclidean distances (M, N) of queries to points; without queries of points to each other,
    infinite to themselves."""
    found = pairwise_distances(points if queries is None else queries, points)
    if queries is None:
        np.fill_diagonal(found, np.inf)
    return found


def confidence(distance, own, labels):
    """1 - the distance to the nearest point labelled `own` over that to the nearest of another
    label: (M, N), (M,), (N,) -> (M,), at most 1, below 0 where another label is nearer."""
    same = np.asarray(labels) == np.asarray(own)[:, None]
    nearest, other = (np.where(part, distance, np.inf).min(1) for part in (same, ~same))
    return 1 - nearest / np.maximum(other, 1e-12)


def route(distance, labels):
    """Distances (M, N) to labelled points -> label of the nearest one for each of M, and the
    confidence in it, in [0, 1]."""
    own = np.asarray(labels)[distance.argmin(1)]
    return own.tolist(), confidence(distance, own, labels)
