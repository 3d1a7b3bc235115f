"""Samplers: short functions over a denoiser, a start and falling sigmas.

``denoise(y, sigma)`` estimates the clean sample.  ``sigmas`` falls and ends in 0.  ``noise()``
draws noise shaped like y; it is how a prior gives the noise its own covariance.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[], Tensor]
Solver = Callable[[Denoise, Tensor, Tensor, Noise], Tensor]


def ddim(denoise: Denoise, y: Tensor, sigmas: Tensor, noise: Noise, eta: float = 0.0) -> Tensor:
    """Denoising diffusion implicit models (Song et al. 2021, eq. 12 and 16), in sigmas.

    ``eta = 0`` is deterministic, ``eta = 1`` is ancestral sampling.
    """
    for sigma, lower in zip(sigmas[:-1], sigmas[1:], strict=True):
        clean = denoise(y, sigma)
        # Variance-exploding form of DDIM's sigma_t: the part of the new noise that is fresh.
        fresh = eta * lower / sigma * (sigma**2 - lower**2).clamp(min=0).sqrt()
        kept = (lower**2 - fresh**2).clamp(min=0).sqrt()
        y = clean + kept / sigma * (y - clean)
        if float(fresh) > 0:
            y = y + fresh * noise()
    return y


def ddpm(denoise: Denoise, y: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """Ancestral sampling with the true posterior variance (Ho et al. 2020, eq. 6 and 7)."""
    return ddim(denoise, y, sigmas, noise, eta=1.0)


def heun(denoise: Denoise, y: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """Heun's second-order solver of the probability-flow ODE (Karras et al. 2022, algorithm 1)."""
    for sigma, lower in zip(sigmas[:-1], sigmas[1:], strict=True):
        slope = (y - denoise(y, sigma)) / sigma
        ahead = y + (lower - sigma) * slope
        if float(lower) > 0:
            slope = (slope + (ahead - denoise(ahead, lower)) / lower) / 2
        y = y + (lower - sigma) * slope
    return y


def dpmpp_2m(denoise: Denoise, y: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """DPM-Solver++(2M), two-step multistep (Lu et al. 2022, algorithm 2), in sigmas."""
    previous, h_previous = None, 0.0
    for sigma, lower in zip(sigmas[:-1], sigmas[1:], strict=True):
        clean = denoise(y, sigma)
        if float(lower) == 0:
            return clean
        h = math.log(float(sigma) / float(lower))
        target = clean
        if previous is not None:
            r = h_previous / h
            target = (1 + 1 / (2 * r)) * clean - 1 / (2 * r) * previous
        y = lower / sigma * y - math.expm1(-h) * target
        previous, h_previous = clean, h
    return y


def angle(velocity: Callable[[Tensor, Tensor], Tensor], v: Tensor, sigmas: Tensor) -> Tensor:
    """Integrate the probability-flow ODE in the angle, exactly for the prior.

    With the state ``z = cos(theta) (y - m) / s`` and ``theta = arctan(sigma)`` the ODE around
    :func:`diffad.diffusion.denoiser.precondition` is ``dz / dtheta = -F(z, theta)`` (TrigFlow, Lu
    and Song 2024).  At pi/2 the state is a sample of the prior, and a zero velocity leaves it
    there: the prior is sampled exactly in any number of steps.  Second order by extrapolating
    the velocity of the step before (Adams-Bashforth).

    Parameters
    ----------
    velocity : callable
        ``F(z, theta)``.
    v : Tensor
        Sample of the prior, standardised: the state at ``theta = pi / 2``.
    sigmas : Tensor
        From :func:`diffad.diffusion.noise.angle_sigmas`.
    """
    thetas = torch.atan(sigmas)
    previous = None
    for theta, lower in zip(thetas[:-1], thetas[1:], strict=True):
        now = velocity(v, theta)
        step = now if previous is None else 1.5 * now - 0.5 * previous
        v = v + float(theta - lower) * step
        previous = now
    return v


SAMPLERS: dict[str, Solver] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
}
