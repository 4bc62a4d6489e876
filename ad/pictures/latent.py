"""The latent space of a VAE, in pictures."""

from pathlib import Path

import torch

from ad.pictures import plots
from ad.cutpaste import seeded_generator
from ad.data import resize_to


@torch.no_grad()
def save_latent(path: Path, model: torch.nn.Module, images: list[torch.Tensor], seed: int) -> None:
    """Pictures of a VAE's latent space: images decoded from noise, and, a row for each of two
    pairs of images (2 or more (3, H, W) in [0, 1]), the way from one mean latent to the other."""
    generator = seeded_generator(images[0].device, seed)
    noise = torch.randn(16, model.latent_dim, generator=generator, device=generator.device)
    rows = [list(model.decode(part)) for part in noise.split(8)]
    means = [model.encode(resize_to(image[None], model.size))[0] for image in images[:4]]
    for first, last in zip(means[::2], means[1::2]):
        way = torch.linspace(0, 1, 8, device=first.device)[:, None]
        rows.append(list(model.decode((1 - way) * first + way * last)))
    plots.save_grid(path, [[plots.to_picture(p) for p in row] for row in rows], [""] * 8,
                    ["from noise", "from noise"] + ["from one\nto another"] * (len(rows) - 2))
