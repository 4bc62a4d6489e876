"""Variational autoencoders (Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014)."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

from ad import InputError
from ad.config import ENCODERS, VARIANCES
from ad.data import resize_to
from ad.ranks import shard, total
from ad.errors import error_maps
from ad.models.pretrained import Pretrained, load_weights

MOMENTUM = 0.1  # of the running mean of the decoder's variance


def kl_divergence(mu: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """KL(N(mu, exp(logvar)) || N(0, 1)) in nats: (N, L) twice -> (N,). The paper's appendix B."""
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)


def reparameterise(mu: torch.Tensor, logvar: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """mu + sigma * noise, noise ~ N(0, 1): a draw of which mu and sigma have gradients."""
    return mu + (0.5 * logvar).exp() * noise


def conv_layer(kind: type, in_channels: int, out_channels: int) -> nn.Sequential:
    """4 x 4 convolution, or its transpose, of stride 2, batch norm, LeakyReLU."""
    return nn.Sequential(kind(in_channels, out_channels, 4, 2, 1), nn.BatchNorm2d(out_channels),
                         nn.LeakyReLU())


def linear_stack(sizes: list) -> nn.Sequential:
    """Fully connected layers with LeakyReLU between and after them."""
    return nn.Sequential(*(layer for i, o in zip(sizes, sizes[1:])
                           for layer in (nn.Linear(i, o), nn.LeakyReLU())))


class VAE(nn.Module):
    """VAE of images resized to image_height x image_width pixels.

    encoder: "cnn" (convolutions of `widths` channels, each halving the image), "resnet18" or
    "vit_b_16" (random unless `load_pretrained` is called), "linear" (layers of `widths` units). The
    decoder mirrors cnn or linear and ends in a sigmoid. latent_dim: of the diagonal Gaussian. beta:
    weight of the KL divergence. latent_samples: draws, the same for every image, whose error maps
    are averaged when scoring; 0 takes the mean latent. variance: of the decoder's Gaussian.
    "fixed": MSE + KL / values, which is the negative evidence lower bound for the variance 1/2.
    "learned": log(MSE) / 2 + KL / values, that for the variance that fits best (sigma-VAE: Rybkin,
    Daniilidis and Levine, "Simple and effective VAE training with calibrated decoders", ICML 2021).
    """

    def __init__(self, encoder: str = "cnn", image_height: int = 256, image_width: int = 256,
                 latent_dim: int = 512, widths: tuple = (32, 64, 128, 256, 512),
                 beta: float = 1.0, latent_samples: int = 0, variance: str = "fixed"):
        super().__init__()
        if encoder not in ENCODERS or variance not in VARIANCES or min(latent_dim, *widths) < 1:
            raise ValueError(f"VAE needs --encoder {', '.join(ENCODERS)}, --variance "
                             f"{' or '.join(VARIANCES)} and sizes >= 1")
        if min(image_height, image_width) < 16 or beta < 0 or latent_samples < 0:
            raise ValueError("VAE needs --image-height and --image-width >= 16, --beta >= 0 and "
                             f"--latent-samples >= 0, got {image_height}, {image_width}, {beta} "
                             f"and {latent_samples}")
        self.size, self.latent_dim, widths = (image_height, image_width), latent_dim, list(widths)
        self.beta, self.latent_samples, self.learned = beta, latent_samples, variance == "learned"
        self.register_buffer("variance", torch.tensor(0.5))
        self.can_be_pretrained = encoder in ("resnet18", "vit_b_16")
        step = 2 ** len(widths)
        grid = [-(-side // step) for side in self.size]
        self.padded = [side * step for side in grid]
        if encoder == "linear":
            sizes = [3 * image_height * image_width, *widths]
            self.encoder = nn.Sequential(nn.Flatten(), linear_stack(sizes))
            self.decoder = nn.Sequential(linear_stack([latent_dim, *widths[::-1]]), nn.Linear(
                widths[0], sizes[0]), nn.Unflatten(1, (3, *self.size)))
            features, self.padded = widths[-1], self.size
        else:
            features = widths[-1] * grid[0] * grid[1]
            self.decoder = nn.Sequential(
                nn.Linear(latent_dim, features), nn.Unflatten(1, (widths[-1], *grid)),
                *(conv_layer(nn.ConvTranspose2d, i, o) for i, o in zip(widths[:0:-1],
                                                                       widths[-2::-1])),
                nn.ConvTranspose2d(widths[0], 3, 4, 2, 1))
            if self.can_be_pretrained:
                self.encoder = Pretrained(encoder)
                features = self.encoder.channels
            else:
                self.encoder = nn.Sequential(*(conv_layer(nn.Conv2d, i, o) for i, o in zip(
                    [3, *widths], widths)), nn.Flatten())
        self.decoder.apply(initialise)
        if not self.can_be_pretrained:
            self.encoder.apply(initialise)
        self.mu, self.logvar = nn.Linear(features, latent_dim), nn.Linear(features, latent_dim)
        self.mu.apply(initialise), self.logvar.apply(initialise)
        # All variances start at 1: the exponential of a wide random layer is where training of
        # the fully connected one blew up.
        nn.init.zeros_(self.logvar.weight)

    def load_pretrained(self, weights: str | Path | None = None) -> None:
        """Give the encoder ImageNet's weights: of a file (torchvision's state dict) or, without
        one, of torchvision's weights API. InputError when they cannot be had."""
        if not self.can_be_pretrained:
            raise InputError("--pretrained and --weights are for --encoder resnet18 and vit_b_16")
        load_weights(self.encoder.net, self.encoder.name, weights, self.encoder.head)

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Resized images -> mean and log-variance of the latent distribution, (N, L) float32."""
        if not self.can_be_pretrained:
            bottom, right = (p - s for p, s in zip(self.padded, self.size))
            images = F.pad(2 * images - 1, (0, right, 0, bottom), mode="replicate")
        features = self.encoder(images.contiguous())
        with torch.autocast(images.device.type, enabled=False):
            # A variance of e^20 or e^-20 is as good as any beyond; exp would overflow.
            features = features.to(self.mu.weight.dtype)
            return self.mu(features), self.logvar(features).clamp(-20, 20)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(N, L) -> images (N, 3, image_height, image_width) in (0, 1), float32."""
        return self.decoder(latents)[..., :self.size[0], :self.size[1]].float().sigmoid()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) in [0, 1] -> reconstruction from the mean latent, at the same size."""
        output = self.decode(self.encode(resize_to(images, self.size))[0])
        return F.interpolate(output, images.shape[-2:], mode="bilinear")

    def loss(self, images: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """{"loss": see `variance`, "mse", "kl" (nats)}, means over the batch. generator: of the
        latent draw."""
        noise = torch.randn(len(images), self.latent_dim, generator=generator, device=images.device)
        share = len(shard(images)) / len(images)
        images, noise = shard(resize_to(images, self.size)), shard(noise)
        mu, logvar = self.encode(images)
        mse = F.mse_loss(self.decode(reparameterise(mu, logvar, noise)), images)
        kl = kl_divergence(mu, logvar).mean()
        error = mse
        if self.learned:
            whole = total(mse * share).clamp_min(1e-8)
            # Of several processes: this part's share of the whole batch's log(MSE) / 2.
            error = 0.5 * (whole.detach().log() + (mse - mse.detach()) / whole.detach())
            if self.training:
                self.variance.lerp_(whole.detach().to(self.variance.dtype), MOMENTUM)
        return {"loss": error + self.beta * kl / images[0].numel(), "mse": mse.detach(),
                "kl": kl.detach()}

    def anomaly_maps(self, images: torch.Tensor,
                     names: tuple = ("mse",)) -> dict[str, torch.Tensor]:
        """(N, 3, H, W) -> {name: (N, 1, H, W)} for names of errors.error_maps, and "elbo": squared
        error + 2 variance beta KL / values, everywhere the same: the negative evidence lower bound
        up to a factor and a constant."""
        small = resize_to(images, self.size)
        mu, logvar = self.encode(small)
        draws = torch.zeros(1, self.latent_dim)
        if self.latent_samples:
            draws = torch.randn(self.latent_samples, self.latent_dim,
                                generator=torch.Generator().manual_seed(0))
        kl = self.beta * kl_divergence(mu, logvar) / small[0].numel()
        kl = (2 * self.variance * kl).view(-1, 1, 1, 1)
        maps = {}
        for noise in draws.to(mu.device):
            output = self.decode(reparameterise(mu, logvar, noise))
            found = error_maps(small, output, {"mse" if n == "elbo" else n for n in names})
            for name in names:
                map_ = found["mse"] + kl if name == "elbo" else found[name]
                maps[name] = maps.get(name, 0) + map_ / len(draws)
        return {name: F.interpolate(m, images.shape[-2:], mode="bilinear")
                for name, m in maps.items()}


def initialise(layer: nn.Module) -> None:
    """Kaiming's (He et al., ICCV 2015) for convolutions, Xavier's (Glorot and Bengio, AISTATS 2010)
    for linear layers, zero biases."""
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.kaiming_normal_(layer.weight, a=0.01, nonlinearity="leaky_relu")
    elif isinstance(layer, nn.Linear):
        nn.init.xavier_normal_(layer.weight)
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.zeros_(layer.bias)


def wells_vae(encoder: str, latent_dim: int, widths: tuple) -> Callable[..., VAE]:
    """The function that builds a VAE of the casting wells' report, for their images of 40 x 72."""
    def build(image_height=40, image_width=72, latent_dim=latent_dim, beta=1.0, latent_samples=0,
              variance="fixed"):
        return VAE(encoder, image_height, image_width, latent_dim, widths, beta, latent_samples,
                   variance)
    return build


linear_vae = wells_vae("linear", 256, (4096, 2048))  # fully connected, 89 million parameters
small_conv_vae = wells_vae("cnn", 128, (32, 64, 128))  # three convolutions, 2.5 million
big_conv_vae = wells_vae("cnn", 280, (64, 128, 256, 512))  # four wide ones, 12 million
