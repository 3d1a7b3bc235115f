"""How wide the prior's conditional is here: its spread scaled by what surprised it nearby.

A Gaussian's conditional spread depends on the mask alone, but recordings have quiet and restless
stretches.  The surprises of visible entries (standardised leave-one-out residuals) tell which this
is: the variance of hidden entries is multiplied by their mean square near by, shrunk to one by
`doubt` surprises of size one, the posterior mean scale of a normal-inverse-gamma model in which
evidence fades with distance (Student-t processes; Shah, Wilson and Ghahramani 2014).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Surprises beyond this many deviations count as this: one wild reading says little of its neighbours.
MOST = 4.0
#: Weight of a surprise in another channel, beside one in the same channel.
ACROSS = 0.1
#: Time constant of fading evidence, as a share of the window.
REACH = 1 / 3


@dataclass(frozen=True)
class LocalScale:
    """Scale of the prior's conditional spread, entry by entry.

    Parameters
    ----------
    fading : Tensor of shape (length, length)
        Weight of a surprise at a row's time step for the scale at a column's.
    doubt : float
        Surprises of size one that are added to those seen; infinite is a scale of one.

    Examples
    --------
    >>> local = LocalScale.of_window(length=4, doubt=1.0)
    >>> visible = torch.tensor([[True, True, True, False]])
    >>> surprise = torch.tensor([[[3.0, -3.0, 3.0, 0.0]]])
    >>> local(surprise, visible).round(decimals=1)
    tensor([[[2.5000, 2.5000, 2.5000, 2.1000]]])
    """

    fading: Tensor
    doubt: float

    @classmethod
    def of_window(cls, length: int, doubt: float) -> LocalScale:
        """Let evidence fade exponentially in time."""
        step = torch.arange(length)
        return cls(torch.exp(-(step[:, None] - step).abs() / (REACH * length)), doubt)

    def __call__(self, surprise: Tensor, visible: Tensor) -> Tensor:
        """Return scales (M, B, d) from surprises (M, B, d) at the visible entries of masks (M, d)."""
        square = torch.where(visible[:, None], surprise, 0.0).clamp(-MOST, MOST) ** 2
        return ((self.doubt + self._near(square)) / (self.doubt + self._near(visible.float()))[:, None]).sqrt()

    def _near(self, values: Tensor) -> Tensor:
        """Add up entries (..., d) near each, those of other channels with the weight `ACROSS`."""
        length = len(self.fading)
        steps = values.unflatten(-1, (length, -1))
        steps = torch.einsum("...sc,st->...tc", steps, self.fading.to(values.device))
        return (steps * (1 - ACROSS) + ACROSS * steps.sum(-1, keepdim=True)).flatten(-2)
