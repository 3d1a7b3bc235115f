"""EDM preconditioning around a network, in the coordinates of a prior (Karras et al. 2022, eq. 7).

The prior gives the hidden entries' conditional mean m, standard deviations s (per entry) and
covariance V.  Noise has the prior's own shape: ``y = x + sigma * e`` with ``e ~ N(0, V)``.  Then the
prior's posterior mean under noise is ``m + (y - m) / (1 + sigma^2)`` in every direction at once, and

    D(y; sigma) = m + c_skip (y - m) + c_out s F(c_in (y - m) / s, theta)

with EDM's coefficients for sigma_data = 1.  F = 0 is exactly the prior.  The angle
``theta = arctan(sigma)`` turns the coefficients into ``cos`` and ``sin`` and F into the velocity
of TrigFlow (Lu and Song 2024): its regression target has unit variance at every level.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: ``F(z, theta)``: standardised noisy entries (..., d) and angle -> velocity (..., d).
Velocity = Callable[[Tensor, Tensor], Tensor]


def coefficients(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``c_skip, c_out, c_in`` of Karras et al. (2022), table 1, for sigma_data = 1.

    Examples
    --------
    >>> [round(float(c), 3) for c in coefficients(torch.tensor(1.0))]
    [0.5, 0.707, 0.707]
    """
    c_in = (1 + sigma**2).rsqrt()
    return c_in**2, sigma * c_in, c_in


def precondition(velocity: Velocity, mean: Tensor, scale: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Wrap a velocity into a denoiser ``D(y, sigma)`` around a prior's conditional mean and scale.

    Parameters
    ----------
    velocity : callable
        ``F(z, theta)`` on standardised entries; returns zeros where the prior is all there is.
    mean, scale : Tensor, broadcastable to y
        Conditional mean and standard deviation of the hidden entries.

    Returns
    -------
    callable
        ``denoise(y, sigma)``, the estimate of the clean hidden entries, of y's shape.
    """

    def denoise(y: Tensor, sigma: Tensor) -> Tensor:
        c_skip, c_out, c_in = coefficients(sigma)
        deviation = y - mean
        z = c_in * deviation / scale
        return mean + c_skip * deviation + c_out * scale * velocity(z, torch.atan(sigma))

    return denoise
