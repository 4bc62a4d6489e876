"""PatchCore as short as it gets, a floor for the memories: two stages of EfficientNet-Lite0, means
over 3 x 3 cells, random patches, and the largest distance of an image; no coreset, calibration,
light or position. Roth et al., "Towards total recall in industrial anomaly detection", CVPR 2022.
"""

import torch
import torch.nn.functional as F

from ad.models.backbones import load_backbone
from ad.data import resize_long_side

PATCHES = 8_000  # random ones, of all normal images


@torch.no_grad()
def patches(trunk, image):
    """uint8 (3, H, W) -> (h * w, C)."""
    maps = [F.avg_pool2d(m, 3, 1, 1) for m in trunk(resize_long_side(image, 256))]
    maps = [F.interpolate(m, maps[0].shape[-2:], mode="bilinear") for m in maps]
    return torch.cat(maps, 1)[0].flatten(1).T


def plain_patchcore(normals, tests, seed=0):
    """Lists of uint8 images (3, H, W) -> scores of the tests."""
    trunk = load_backbone("efficientnet_lite0", (8, 16))[0]
    known = torch.cat([patches(trunk, image) for image in normals])
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))
    bank = known[order[:PATCHES]]
    return [torch.cdist(patches(trunk, image), bank).amin(1).max().item() for image in tests]
