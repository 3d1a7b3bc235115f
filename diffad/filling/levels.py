"""Levels that the mean of all rows does not tell: of channels that wander, in a long gap and where they never were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffad.priors import CyclicPrior, GaussianPrior, Prior

Array = NDArray[np.float32]

#: Windows between two of which levels are compared.
APART = 2
#: Standard deviation of a level of which nothing is known, in those of the channel; one and three are much alike.
FREE = 2.0
#: The same of levels that lie beyond all seen, in standard deviations of those seen; ten and thirty are much alike.
FAR = 30.0
#: Part of a window that must be known for it to have a level.
LEAST_KNOWN = 0.5
#: Standard deviations of a channel beyond all levels it had that are no chance: few windows show few of them.
BEYOND = 0.5


def wandering(series: list[Array], length: int) -> NDArray[np.bool_]:
    """Mark channels whose level is foretold better by that of `APART` windows before than by the mean of all rows.

    Parameters
    ----------
    series : list of array (n_timestamps, channels)
        NaN = missing.
    length : int
        Time steps of a window.

    Returns
    -------
    array (channels,)
        False where nothing is long enough to tell.
    """
    levels = [_levels(rows, length) for rows in series if len(rows) >= length]
    if not levels:
        return np.zeros(series[0].shape[1], bool)
    apart = APART * length
    moved = _mean(np.concatenate([level[apart:] - level[:-apart] for level in levels]) ** 2)
    every = np.concatenate(levels)
    # NaN, where there is nothing to compare, is smaller than nothing.
    return np.asarray(moved < _mean((every - _mean(every)) ** 2))


@dataclass(frozen=True)
class LevelRange:
    """Least and largest level of windows fitted on, (channels,) each; NaN where none is known."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def fit(cls, series: list[Array], length: int) -> Self:
        """Learn from standardised series (n_timestamps, channels), NaN = missing."""
        nothing = np.full((1, series[0].shape[1]), np.nan)
        levels = np.concatenate([nothing, *(_levels(rows, length) for rows in series if len(rows) >= length)])
        return cls(np.fmin.reduce(levels), np.fmax.reduce(levels))

    def left(self, windows: Array) -> NDArray[np.bool_]:
        """Mark windows (n, length, channels), NaN = missing, in which a channel's level is known and beyond the range."""
        known = ~np.isnan(windows)
        count = known.sum(1)
        mean = np.where(known, windows, 0.0).sum(1) / np.maximum(count, 1)
        # A wild reading moves the mean alone, bursts that a window happens to miss the median alone.
        middle = np.take_along_axis(np.sort(windows, 1), np.maximum(count - 1, 0)[:, None] // 2, 1)[:, 0]
        below = np.fmax(mean, middle) < self.low - BEYOND
        above = np.fmin(mean, middle) > self.high + BEYOND
        return np.asarray(((below | above) & (count >= LEAST_KNOWN * windows.shape[1])).any(1))


def with_free_levels(prior: Prior, length: int, which: NDArray[np.bool_]) -> Prior | None:
    """Return a dense Gaussian prior of windows to which the levels of some channels are unknown; None for any other.

    A level of its own in every window is what kriging with an unknown mean has (Matheron 1971, universal kriging).
    """
    if not which.any() or not isinstance(prior, GaussianPrior):
        return None
    return _with_levels(prior, length, FREE**2 * torch.from_numpy(which).double().diag())


def with_far_levels(prior: Prior, length: int) -> Prior | None:
    """Return a dense Gaussian prior of windows whose levels may be `FAR` away, but move together as seen; else None.

    So a channel that a window does not show at all still follows the others.
    """
    if not isinstance(prior, GaussianPrior):
        return None
    channels = len(prior.mean) // length
    levels = prior.covariance.view(length, channels, length, channels).mean((0, 2))
    return _with_levels(prior, length, FAR**2 * levels)


def _with_levels(prior: GaussianPrior, length: int, levels: Tensor) -> GaussianPrior:
    """Add levels of a covariance (channels, channels) to windows."""
    covariance = prior.covariance + torch.kron(torch.ones(length, length, dtype=torch.float64), levels)
    if isinstance(prior, CyclicPrior):
        return CyclicPrior(prior.centres, covariance)
    return GaussianPrior(prior.mean, covariance)


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of what is known of each channel (n, channels), NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(0)
    return np.where(count, np.where(known, values, 0.0).sum(0) / np.maximum(count, 1), np.nan)


def _levels(rows: Array, length: int) -> NDArray[np.float64]:
    """Return the mean of every window (n - length + 1, channels), NaN where too little of it is known."""
    known = ~np.isnan(rows)

    def total(values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.cumsum(np.concatenate([np.zeros((1, values.shape[1])), values]), 0)
        return np.asarray(sums[length:] - sums[:-length])

    count = total(known.astype(float))
    sums = total(np.where(known, rows, 0.0).astype(float))
    return np.where(count >= LEAST_KNOWN * length, sums / np.maximum(count, 1), np.nan)
