"""Does an autoencoder repair, copy, blur, or has it collapsed? Five numbers that tell."""

import torch
import torch.nn.functional as F

from ad.cutpaste import cutpaste, seeded_generator
from ad.config import Scoring
from ad.data import resize_long_side
from ad.detector import Member
from ad.machine import Machine
from ad.scoring import exposed, resized, side_for_model
from ad.ssim import gaussian_blur, smooth

PASTES = 10  # CutPaste patches in each image
BLUR = 2.0  # pixels; smoothing of the errors whose rise is looked for
COPIED = 0.5  # of a patch; from here on the error is only what copying it got wrong
# Name: fails below, good from, what the number means, what failing means, what is between the two.
CHECKS = {
    "contrast": (0.5, 0.8, "output contrast / input contrast",
                 "grey collapse: the output is flat whatever goes in", "outputs are pale"),
    "variety": (0.5, 0.8, "distance between outputs / distance between their inputs",
                "average-image collapse: every input gives much the same output",
                "outputs vary less than inputs"),
    "sharpness": (0.2, 0.5, "high-frequency energy of output / input",
                  "blur: fine structure is lost and will look like an error everywhere",
                  "fine structure is softened"),
    "trace": (0.75, 0.9, "share of pasted pixels where the error rises (0.5: by chance)",
              "identity shortcut: defects are copied and leave no error",
              "defects leave a weak error"),
}


def error_map(output: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """|output - images|, mean over channels, smoothed: (N, 1, H, W)."""
    return smooth((output - images).abs().mean(1, keepdim=True), BLUR)


def centred(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """values (N, 3, H, W) minus their mean inside the mask, per image and channel; 0 outside."""
    mean = (values * mask).sum((2, 3), True) / mask.sum((2, 3), True).clamp_min(1)
    return (values - mean) * mask


@torch.no_grad()
def collapse_check(model: torch.nn.Module, images: torch.Tensor,
                   generator: torch.Generator) -> dict[str, float]:
    """Numbers that tell a working autoencoder from a useless one: {name in CHECKS: float}, and
    "copied", the coefficient a of the least-squares fit output = a pasted + b original inside the
    patches.

    images: normal ones (N >= 2, 3, H, W) in [0, 1]. Each gets PASTES times a CutPaste patch; the
    trace is the share of the patches' pixels where error_map is higher than without the patch
    (pixels where it is equal count half).
    """
    output = model(images).float().clamp(0, 1)

    def contrast(x):
        return x.std((1, 2, 3)).mean()

    def variety(x):
        return torch.pdist(x.flatten(1), 1).mean() / x[0].numel()

    def fine(x):
        return (x - gaussian_blur(x, 9, 1.5)).square().mean()

    before, risen, area = error_map(output, images), 0, 0
    products, sums = torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for _ in range(PASTES):
        pasted, mask = cutpaste(images, generator)
        repaired = model(pasted).float().clamp(0, 1)
        rise = error_map(repaired, pasted) - before
        risen, area = risen + (((rise > 0) + 0.5 * (rise == 0)) * mask).sum(), area + mask.sum()
        basis = torch.stack([centred(x, mask).flatten() for x in (pasted, images)]).double().cpu()
        products += basis @ basis.T
        sums += basis @ centred(repaired, mask).flatten().double().cpu()
    ridge = 1e-6 * products.trace().clamp_min(1e-12) * torch.eye(2, dtype=torch.float64)
    numbers = {"contrast": contrast(output) / contrast(images).clamp_min(1e-6),
               "variety": variety(output) / variety(images).clamp_min(1e-6),
               "sharpness": fine(output) / fine(images).clamp_min(1e-9),
               "trace": risen / area, "copied": torch.linalg.solve(products + ridge, sums)[0]}
    return {name: value.item() for name, value in numbers.items()}


def reconstructs(model: torch.nn.Module) -> bool:
    """Does it learn to give images back? A memory and a classifier do not."""
    return hasattr(model, "loss") and not hasattr(model, "classes")


def side_of_whole(scoring: Scoring) -> int:
    """Long side to which a model gets whole images when it scores so, 0 = as they are."""
    return scoring.window_input if 0 in scoring.windows else 0


@torch.no_grad()
def reconstruct(member: Member, images: list) -> list[torch.Tensor]:
    """What a member's model makes of images (3, H, W) in [0, 1], in the light that they have: the
    same, float32."""
    predict = resized(member.model, side_of_whole(member.scoring))
    lit = (exposed(member.model, image[None]) for image in images)
    return [(predict(bright) / gain)[0] for bright, gain in lit]


def check_member(member: Member, normals: list, machine: Machine, seed: int = 0) -> dict:
    """collapse_check of a member at the size at which it scores; normals: 2 or more uint8 images
    (3, H, W)."""
    # One size for all, so that outputs of different inputs can be compared.
    side = side_of_whole(member.scoring)
    normals = [resize_long_side(image, side_for_model(max(image.shape), side)).to(machine.device)
               for image in normals]
    batch = torch.cat([F.interpolate(image, normals[0].shape[2:], mode="bilinear")
                       for image in normals])
    return collapse_check(member.model, batch, seeded_generator(machine.device, seed))


def grades(numbers: dict[str, float]) -> dict[str, str]:
    """collapse_check's numbers -> {name in CHECKS: "good", "weak" or "fails"}. Without a trace it
    only fails where the patches were copied: an output that is wrong everywhere is another fault.
    A trace beside copied patches is weak."""
    found = {name: "fails" if numbers[name] < low else "good" if numbers[name] >= high else "weak"
             for name, (low, high, *_) in CHECKS.items()}
    copied = numbers["copied"] > COPIED
    if found["trace"] == ("good" if copied else "fails"):
        found["trace"] = "weak"
    return found


def verdict(numbers: dict[str, float]) -> str:
    """The faults or, without any, what is weak, in words."""
    faults, weak = (
        [CHECKS[name][column] for name, grade in grades(numbers).items() if grade == wanted]
        for wanted, column in (("fails", 3), ("weak", 4)))
    if faults:
        return "; ".join(faults)
    return f"usable: {', '.join(weak)}" if weak else \
        "healthy: it changes what is strange and keeps what is normal"


def print_check(numbers: dict[str, float]) -> None:
    found = grades(numbers)
    for name, (low, high, meaning, *_) in CHECKS.items():
        print(f"{name:<10} {numbers[name]:6.3f}  {found[name]:<5}  {meaning} "
              f"(good from {high}, fails below {low})")
    print(f"{'copied':<10} {numbers['copied']:6.3f}         share of the patch in the output (an "
          f"identity shortcut from {COPIED} on, if there is no trace)\nverdict: {verdict(numbers)}")
