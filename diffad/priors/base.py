"""What every prior offers: a distribution of the hidden entries for each of a stack of masks.

A prior works on flat, standardised entries of dimension d (a window's time steps x channels).
Its :class:`Conditional` depends on masks alone, never on values, so one is shared by all windows,
samples and noise levels that hide the same entries.
"""

from __future__ import annotations

from typing import Protocol, Self

import torch
from torch import Tensor


class Conditional(Protocol):
    """p(hidden | visible) for M masks; tensors are (M, B, d): B windows under each mask."""

    @property
    def visible(self) -> Tensor:
        """(M, d) bool, entries that are given."""

    @property
    def hidden(self) -> Tensor:
        """(M, d) bool, entries that are wanted; what is neither is integrated out."""

    @property
    def scale(self) -> Tensor:
        """(M, d) conditional standard deviation at hidden entries, 1 elsewhere."""

    def centre(self, x: Tensor) -> Tensor:
        """Return the mean of the windows x is one of: (M, B, d), visible entries or not."""

    def explain(self, x: Tensor) -> Tensor:
        """Return the conditional mean at hidden entries and the *surprise* at visible ones.

        The surprise is a visible entry's standardised residual given the other visible entries;
        entries that are neither are 0.
        """

    def color(self, noise: Tensor) -> Tensor:
        """Turn white noise into noise with the covariance of the hidden entries given the visible."""

    def select(self, index: Tensor) -> Conditional:
        """Return the conditionals of the masks at ``index``."""


class Prior(Protocol):
    """A closed-form density of d entries."""

    mean: Tensor  #: (d,)

    @property
    def centres(self) -> Tensor:
        """(P, d) means of the kinds of rows the prior tells apart; `mean` alone for most."""

    def phase(self, x: Tensor) -> Tensor:
        """Return the index of the centre of complete rows (n, d): (n,) int64."""

    @classmethod
    def fit(cls, x: Tensor, known: Tensor) -> Self:
        """Fit to rows (n, d) of which the entries with `known` true were observed."""

    def condition(self, visible: Tensor, hidden: Tensor) -> Conditional:
        """Condition on the entries of M masks (M, d); see :class:`Conditional`."""


class OneCentre:
    """What priors with a single mean answer about their centres."""

    mean: Tensor

    @property
    def centres(self) -> Tensor:
        """(1, d)."""
        return self.mean[None]

    def phase(self, x: Tensor) -> Tensor:
        """Return zeros (n,)."""
        return torch.zeros(len(x), dtype=torch.int64)
