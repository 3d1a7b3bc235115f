"""Noise levels: schedules for sampling and distributions for training.

Everything is expressed in sigmas, the standard deviation of the noise relative to the prior's
conditional spread, so that the data have sigma 1.  DDPM timesteps are a mapping onto sigmas:
``sigma_t = sqrt((1 - abar_t) / abar_t)`` (Karras et al. 2022, table 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: Level from which on nothing of the data is left; a sampler's first step from higher ones would be a leap.
HIGHEST = 40.0


def karras_sigmas(n_steps: int, sigma_min: float = 0.02, sigma_max: float = HIGHEST, rho: float = 7.0) -> Tensor:
    """Return the schedule of Karras et al. (2022), eq. 5: ``n_steps`` falling levels, then 0.

    Parameters
    ----------
    n_steps : int
        Number of denoiser evaluations of a first-order sampler.
    sigma_min, sigma_max : float
        Smallest and largest level.
    rho : float
        Exponent; larger values spend more steps at small noise.

    Returns
    -------
    Tensor of shape (n_steps + 1,), float64

    Examples
    --------
    >>> karras_sigmas(2, 0.5, 2.0, rho=1.0).tolist()
    [2.0, 0.5, 0.0]
    """
    _check_steps(n_steps)
    ramp = torch.linspace(0, 1, n_steps, dtype=torch.float64)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return _append_zero((high + ramp * (low - high)) ** rho)


def linear_sigmas(n_steps: int, beta_start: float = 1e-4, beta_end: float = 0.02, n_train: int = 1000) -> Tensor:
    """Return DDPM's linear-beta schedule (Ho et al. 2020) as ``n_steps`` falling levels, then 0."""
    _check_steps(n_steps)
    betas = torch.linspace(beta_start, beta_end, n_train, dtype=torch.float64)
    return _append_zero(_thin(_sigmas_from_abar(torch.cumprod(1 - betas, 0)), n_steps))


def cosine_sigmas(n_steps: int, n_train: int = 1000, max_beta: float = 0.999) -> Tensor:
    """Return the cosine schedule of Nichol and Dhariwal (2021), eq. 17, as falling levels, then 0."""
    _check_steps(n_steps)
    t = torch.arange(n_train + 1, dtype=torch.float64) / n_train
    abar = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    betas = (1 - abar[1:] / abar[:-1]).clamp(max=max_beta)
    return _append_zero(_thin(_sigmas_from_abar(torch.cumprod(1 - betas, 0)), n_steps))


def angle_sigmas(n_steps: int) -> Tensor:
    """Return levels ``tan(theta)`` for angles that fall evenly from pi/2 (pure noise) to 0.

    The first level is infinite: only :func:`diffad.diffusion.samplers.angle`, which works in
    angles, can start there.
    """
    _check_steps(n_steps)
    sigmas = torch.tan(torch.linspace(math.pi / 2, 0, n_steps + 1, dtype=torch.float64))
    sigmas[0] = math.inf
    return sigmas


#: Schedules with a finite first level, for the textbook samplers.
SCHEDULES: dict[str, Callable[[int], Tensor]] = {
    "karras": karras_sigmas,
    "linear": linear_sigmas,
    "cosine": cosine_sigmas,
}


@dataclass(frozen=True)
class LogNormalLevels:
    """Training distribution of noise levels: ln sigma ~ N(mean, std) (Karras et al. 2022, table 1).

    The default sits higher than EDM's because what a network adds to a closed-form prior's
    conditional mean is learnt at large sigma; it was chosen by that argument, not by a search.
    """

    mean: float = 0.6
    std: float = 1.4

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw levels of the given shape, float32, on the generator's device."""
        z = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32)
        return torch.exp(self.mean + self.std * z)


def _check_steps(n_steps: int) -> None:
    if n_steps < 1:
        raise ValueError(f"n_steps must be at least 1, got {n_steps}")


def _append_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def _sigmas_from_abar(abar: Tensor) -> Tensor:
    return ((1 - abar) / abar).sqrt()


def _thin(sigmas: Tensor, n_steps: int) -> Tensor:
    """Keep ``n_steps`` of the training levels, evenly spaced in t, largest first.

    Levels above `HIGHEST` are kept only where all are needed: from them a few steps would leap.
    """
    useful = sigmas[sigmas <= HIGHEST]
    sigmas = useful if n_steps <= len(useful) else sigmas
    if n_steps > len(sigmas):
        raise ValueError(f"n_steps={n_steps} exceeds the schedule's {len(sigmas)} levels")
    keep = torch.linspace(len(sigmas) - 1, 0, n_steps, dtype=torch.float64).round().long()
    return sigmas[keep]
