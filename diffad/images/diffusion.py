"""A diffusion model of images: prior, network and gate.

The network sees the prior's posterior mean and spread of an image and its noisy residual, and adds what is
not Gaussian, in units of that spread (:mod:`diffad.diffusion.denoiser`).  It works on images of the training
size; others are the prior's alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffad.base.telling import tell
from diffad.diffusion import samplers
from diffad.images import tiles
from diffad.images.prior import ImagePrior
from diffad.images.tiles import Observed
from diffad.model import GATE_LEVELS, Sampler, admitted
from diffad.networks.unet import UNet

#: Pixels that pass the network at once.
CHUNK = 2**20
#: Pixels of fresh noise held at once.
FRESH = 2**24
#: Ways to observe an image that the gate tells apart: hidden pixels, averages, noise.
WAYS = 3


def way_of(observed: Observed) -> int:
    """Return how images are observed, as an index below `WAYS`."""
    return 0 if observed.exact else 1 if observed.factor > 1 else 2


@dataclass
class ImageDiffusion:
    """p(image | what is known of it).

    Parameters
    ----------
    prior : ImagePrior
    network : UNet or None
        None is the prior alone.
    gate : Tensor of shape (WAYS, GATE_LEVELS + 1)
        Share of the network's velocity that is admitted, per way of observing and noise level; the
        last column is for the posterior mean.
    """

    prior: ImagePrior
    network: UNet | None = None
    gate: Tensor = field(default_factory=lambda: torch.zeros(WAYS, GATE_LEVELS + 1))

    def mean(self, observed: Observed, with_scale: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return the expected images and, on request, the prior's spread: (n, height, width, channels), float64."""
        network = self._network(observed)
        centre, scale = tiles.mean(self.prior, observed, with_scale or network is not None)
        if network is None or scale is None:
            return centre, scale
        share = float(self.gate[way_of(observed), -1])
        context = ImageContext.build(centre, scale, self.prior.device)
        angle = torch.full((len(centre),), torch.pi / 2)
        step = share * context.scale * context.velocity(network, torch.zeros_like(context.mean), angle)
        return self._agree(observed, centre + torch.where(context.hidden, step, 0.0).double().cpu()), scale

    def warn_if_classless(self) -> None:
        """Say that a class asked for changes nothing: only an admitted network knows classes."""
        if self.network is None or not bool(self.gate.any()):
            tell("y changes nothing: there is no network, which alone knows classes")

    def sample(
        self,
        observed: Observed,
        n_samples: int,
        sampler: Sampler,
        generator: torch.Generator,
        label: int | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """Draw images that agree with what is known of one: (n_samples, height, width, channels), float64.

        With a label and guidance w the velocity is that without a class plus w times the difference the
        class makes (classifier-free guidance; Ho and Salimans 2022).
        """
        network = self._network(observed)
        if network is None:
            return tiles.sample(self.prior, observed, n_samples, generator)
        fresh_steps = sampler.steps if sampler.stochastic else 0
        parts = []
        # Fresh noise has the posterior's shape: it is drawn for all steps at once, from one factorisation.
        size = observed.values[0].numel() * observed.factor**2
        room = max(1, min(CHUNK, FRESH // (1 + fresh_steps)) // size)
        for start in range(0, n_samples, room):
            n = min(room, n_samples - start)
            centre, scale, draws = tiles.moments(self.prior, observed, n * (1 + fresh_steps), generator, True)
            assert scale is not None
            context = ImageContext.build(centre, scale[None], self.prior.device).repeat(n)
            velocity = self._velocity(network, context, way_of(observed), label, guidance)
            parts.append(torch.where(context.hidden.cpu(), self._solve(sampler, velocity, context, draws), centre))
        return self._agree(observed, torch.cat(parts))

    def _solve(self, sampler: Sampler, velocity: samplers.Denoise, context: ImageContext, draws: Tensor) -> Tensor:
        noise = draws.float().to(context.mean.device).unflatten(0, (-1, len(context.mean)))
        rest = iter(noise[1:])
        found = sampler.solve(velocity, context.mean, context.scale, noise[0], lambda: next(rest))
        return found.double().cpu()

    def _velocity(
        self, network: UNet, context: ImageContext, way: int, label: int | None, guidance: float
    ) -> samplers.Denoise:
        def velocity(z: Tensor, theta: Tensor) -> Tensor:
            share = float(admitted(self.gate[way], theta))
            # Filled there: copied, it would be waited for at every step.
            angles = torch.full((len(z),), float(theta), device=z.device)
            if label is None:
                return share * context.velocity(network, z, angles)
            told = context.velocity(network, z, angles, torch.full((len(z),), label, device=z.device))
            if guidance == 1:
                return share * told
            untold = context.velocity(network, z, angles)
            return share * (untold + guidance * (told - untold))

        return velocity

    def _network(self, observed: Observed) -> UNet | None:
        return self.network if observed.shape == self.prior.shape else None

    def _agree(self, observed: Observed, images: Tensor) -> Tensor:
        """Return images corrected by what the prior makes of their averages being off, where these are exact."""
        if observed.factor == 1 or observed.noise is not None:
            return images
        off = observed.values.double() - observed.of(images)
        return images + tiles.explain(self.prior, observed, off)


@dataclass(frozen=True)
class ImageContext:
    """What the network sees of images apart from the noisy residual: (n, height, width, channels), on its device."""

    mean: Tensor
    scale: Tensor  # posterior standard deviation, 1 where a pixel is known
    hidden: Tensor

    @classmethod
    def build(cls, mean: Tensor, scale: Tensor, device: torch.device) -> ImageContext:
        hidden = (scale > 1e-6).expand(mean.shape).to(device)
        return cls(mean.float().to(device), torch.where(hidden, scale.float().to(device), 1.0), hidden)

    def repeat(self, n: int) -> ImageContext:
        """Repeat one image n times."""
        return ImageContext(*(t.expand(n, *t.shape[1:]) for t in (self.mean, self.scale, self.hidden)))

    def velocity(self, network: UNet, z: Tensor, theta: Tensor, label: Tensor | None = None) -> Tensor:
        """Run the network on noisy residuals z (n, height, width, channels) at angles (n,)."""
        device = self.mean.device
        inputs = [
            torch.where(self.hidden, z, 0.0).clamp(-8, 8),
            self.mean.clamp(-8, 8),
            torch.where(self.hidden, self.scale, 0.05).log(),
            self.hidden.float(),
        ]
        stacked = torch.cat(inputs, 3).permute(0, 3, 1, 2)
        label = None if label is None else label.to(device)
        return network(stacked, theta.to(device), label).permute(0, 2, 3, 1)
