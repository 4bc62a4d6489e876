"""Does an autoencoder repair, copy, blur, or has it collapsed? Four numbers that tell."""

import torch
import torch.nn.functional as F

from ad.cli import autocast
from ad.cutpaste import cutpaste, seeded_generator
from ad.data import resize_long_side
from ad.ssim import gaussian_blur

# Name, the healthy side of the threshold, what the number means, what the other side means.
CHECKS = {
    "contrast": (">=", 0.5, "output contrast / input contrast",
                 "grey collapse: the output is flat whatever goes in"),
    "variety": (">=", 0.5, "distance between outputs / distance between their inputs",
                "average-image collapse: every input gives much the same output"),
    "sharpness": (">=", 0.2, "high-frequency energy of output / input",
                  "blur: fine structure is lost and will look like an error everywhere"),
    "copying": ("<=", 0.5, "in a CutPaste patch, how near the output is to the pasted pixels "
                "(1) or to the original ones (0)",
                "identity shortcut: defects are copied and leave no error"),
}


@torch.no_grad()
def collapse_check(model, images, generator):
    """Numbers that tell a working autoencoder from a useless one: {name in CHECKS: float}.

    images: normal ones (N >= 2, 3, H, W) in [0, 1]. The patch is one CutPaste in each of them.
    """
    output = model(images).float().clamp(0, 1)

    def contrast(x):
        return x.std((1, 2, 3)).mean()

    def variety(x):
        return torch.pdist(x.flatten(1), 1).mean() / x[0].numel()

    def fine(x):
        return (x - gaussian_blur(x, 9, 1.5, "reflect")).square().mean()

    pasted, mask = cutpaste(images, generator)
    repaired = model(pasted).float().clamp(0, 1)
    to_original = ((repaired - images).abs() * mask).sum()
    to_pasted = ((repaired - pasted).abs() * mask).sum()
    numbers = {"contrast": contrast(output) / contrast(images).clamp_min(1e-6),
               "variety": variety(output) / variety(images).clamp_min(1e-6),
               "sharpness": fine(output) / fine(images).clamp_min(1e-9),
               "copying": to_original / (to_original + to_pasted).clamp_min(1e-9)}
    return {name: value.item() for name, value in numbers.items()}


def reconstructs(model):
    """Does it learn to give images back? A memory and a classifier do not."""
    return hasattr(model, "loss") and not hasattr(model, "classes")


def side_seen(member):
    """Long side to which the model gets whole images when it scores, 0 = as they are."""
    scoring = member["calibration"]["scoring"]
    return scoring["window_input"] if 0 in scoring["windows"] else 0


def check_member(member, normals, args, device):
    """collapse_check of a member of ad.ensemble at the size at which it scores; normals: 2 or more
    uint8 (3, H, W)."""
    # One size for all, so that outputs of different inputs can be compared.
    normals = [resize_long_side(image, side_seen(member) or max(image.shape))
               for image in normals]
    batch = torch.cat([F.interpolate(image.to(device), normals[0].shape[2:], mode="bilinear")
                       for image in normals])
    with autocast(device, args.precision):
        return collapse_check(member["model"], batch, seeded_generator(device, args.seed))


def failing(numbers):
    """collapse_check's numbers -> names of the checks that fail; [] = healthy. An output that does
    not depend on the input copies nothing, however near it is to the pasted pixels."""
    names = [name for name, (side, limit, _, _) in CHECKS.items()
             if (numbers[name] < limit if side == ">=" else numbers[name] > limit)]
    return [n for n in names if n != "copying" or not {"contrast", "variety"} & {*names}]


def verdict(numbers):
    return "; ".join(CHECKS[name][3] for name in failing(numbers)) or \
        "healthy: it changes what is strange and keeps what is normal"


def print_check(numbers):
    for name, (side, limit, meaning, _) in CHECKS.items():
        print(f"{name:<10} {numbers[name]:6.3f}  (healthy {side} {limit})  {meaning}")
    print(f"verdict: {verdict(numbers)}")
