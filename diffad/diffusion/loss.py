"""The training loss: regression of the velocity on entries that are hidden and known.

In standardised residuals ``r = (x - m) / s`` and noise ``e`` of the prior's shape, the noisy entry
is ``z = cos(theta) r + sin(theta) e`` and the target ``v = sin(theta) r - cos(theta) e``.  This is
EDM's weighted denoising loss (Karras et al. 2022, eq. 8; weight ``(1 + sigma^2) / sigma^2``).
"""

from __future__ import annotations

from torch import Tensor


def noisy_and_target(residual: Tensor, noise: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Return the network's noisy input and its velocity target for angle ``theta`` (broadcastable)."""
    cos, sin = theta.cos(), theta.sin()
    return cos * residual + sin * noise, sin * residual - cos * noise


def masked_mse(prediction: Tensor, target: Tensor, where: Tensor) -> Tensor:
    """Return the mean squared error over entries with ``where`` true; 0 if there are none."""
    weight = where.to(prediction.dtype)
    return ((prediction - target) ** 2 * weight).sum() / weight.sum().clamp(min=1)
