"""What every prior offers: a distribution of the hidden entries for each of a stack of masks.

A prior works on flat, standardised entries of dimension d (a window's time steps x channels).
Its :class:`Conditional` depends on masks alone, never on values, so one is shared by all windows,
samples and noise levels that hide the same entries.
"""

from __future__ import annotations

from typing import Protocol, Self

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

    @classmethod
    def fit(cls, x: Tensor, known: Tensor) -> Self:
        """Fit to rows (n, d) of which the entries with `known` true were observed."""

    def condition(self, visible: Tensor, hidden: Tensor) -> Conditional:
        """Condition on the entries of M masks (M, d); see :class:`Conditional`."""

    def log_density(self, x: Tensor) -> Tensor:
        """Return log p(x) of complete rows (n, d) -> (n,)."""
