"""A small convolutional variational autoencoder of images (Kingma and Welling 2014).

Encoder and decoder halve and double the resolution; a latent is a small image of few channels, so that a
U-Net or a Gaussian field can model it in turn (Rombach et al. 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional


class VAE(nn.Module):
    """Autoencoder with a normal posterior per latent entry, channels first.

    Parameters
    ----------
    channels : int
        Of the images.
    latent : int, default=4
        Channels of a latent.
    width : int, default=32
        Channels of each layer, a multiple of 8.
    """

    #: Halvings: a latent has a quarter of the height and width, rounded up.
    DEPTH = 2

    def __init__(self, channels: int, latent: int = 4, width: int = 32) -> None:
        super().__init__()
        self.multiple = 2**self.DEPTH
        down: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1)]
        up: list[nn.Module] = [nn.Conv2d(latent, width, 3, padding=1)]
        for _ in range(self.DEPTH):
            down += [nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 4, stride=2, padding=1)]
            up += [nn.GroupNorm(8, width), nn.SiLU(), nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)]
        self.encoder = nn.Sequential(
            *down, nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, 2 * latent, 3, padding=1)
        )
        self.decoder = nn.Sequential(*up, nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of the latents (n, latent, h, w) of images (n, channels, height, width)."""
        height, width = x.shape[2:]
        x = functional.pad(x, (0, -width % self.multiple, 0, -height % self.multiple), mode="replicate")
        mean, log_variance = self.encoder(x).chunk(2, 1)
        return mean, log_variance.clamp(-12.0, 4.0)

    def decode(self, z: Tensor, height: int, width: int) -> Tensor:
        """Return images (n, channels, height, width) of latents."""
        return self.decoder(z)[:, :, :height, :width]


def evidence_loss(network: VAE, x: Tensor, beta: float, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return reconstruction error plus ``beta`` times the divergence from N(0, 1), per pixel, and the reconstructions.

    The noise is shaped like a latent.
    """
    mean, log_variance = network.encode(x)
    again = network.decode(mean + torch.exp(0.5 * log_variance) * noise, *x.shape[2:])
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum()
    return functional.mse_loss(again, x) + beta * divergence / x.numel(), again


class Critic(nn.Sequential):
    """Tells patches of images from decoded ones: one number, positive for an image, at each of a few places.

    Spectral normalisation keeps it from running away from the decoder (Miyato et al. 2018); seeing patches, not
    the whole, it asks for sharpness and leaves the rest to the reconstruction (Isola et al. 2017).

    Parameters
    ----------
    channels : int
        Of the images.
    """

    #: Channels of the first layer.
    WIDTH = 32

    def __init__(self, channels: int) -> None:
        width = self.WIDTH
        normal = nn.utils.parametrizations.spectral_norm
        super().__init__(
            normal(nn.Conv2d(channels, width, 3, padding=1)),
            nn.LeakyReLU(0.2),
            normal(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            normal(nn.Conv2d(2 * width, 1, 3, padding=1)),
        )


def adversarial_loss(critic: Critic, x: Tensor, again: Tensor, weight: float) -> Tensor:
    """Return the critic's loss plus ``weight`` times that of the decoder which wants to pass for real.

    One sum for both players (Goodfellow et al. 2014, the non-saturating game): the first two terms move the critic
    alone, the last the decoder alone.
    """
    told = functional.softplus(-critic(x)).mean() + functional.softplus(critic(again.detach())).mean()
    frozen = {name: value.detach() for name, value in critic.named_parameters()}
    return told + weight * functional.softplus(-functional_call(critic, frozen, (again,))).mean()
