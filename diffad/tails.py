"""Evidence of any unit as minus the log probability that normal data look as strange."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffad.base.caching import ForgetsCaches

Array = NDArray[np.float32]


@dataclass(frozen=True)
class LogTail(ForgetsCaches):
    """Minus the log probability that normal evidence is as large, per channel.

    Below the 95 % quantile it is the empirical one, above it an exponential tail, so that stranger
    is always worse.

    Attributes
    ----------
    grid : array (levels, channels)
        Quantiles of normal evidence at `LEVELS`.
    excess : array (channels,)
        Mean excess over the last quantile.
    """

    LEVELS = np.linspace(0, 0.95, 96)
    #: Part by which values differ that are one but for rounding: the same rows come in other batches, or live.
    SAME = 1e-4
    #: Rows looked at together: what is in hand stays in the cache.
    ROWS = 2048
    #: Steps of a channel, those of no use included: a power of 2 above the number of levels.
    PADDED = 128

    grid: NDArray[np.float64]
    excess: NDArray[np.float64]

    @classmethod
    def fit(cls, normal: NDArray[np.floating], least_excess: float = 0.0) -> LogTail:
        """Learn from normal evidence (n, channels); entries of -inf say nothing.

        A tail falls no faster than one of `least_excess`, in the evidence's unit. Where a channel has no evidence at
        all, nothing is strange.
        """
        columns = [c[np.isfinite(c)] for c in normal.T.astype(np.float64)]
        grid = np.stack([np.quantile(c, cls.LEVELS) if len(c) else np.full(len(cls.LEVELS), np.inf) for c in columns])
        over = [c[c > g[-1]] - g[-1] for c, g in zip(columns, grid, strict=True)]
        excess = np.maximum([o.mean() if len(o) else 1e-3 for o in over], least_excess)
        return cls(grid.T, excess)

    @classmethod
    def beside(cls, tails: Sequence[LogTail]) -> LogTail:
        """Return one tail for the channels of several, in order."""
        return cls(np.concatenate([t.grid for t in tails], 1), np.concatenate([t.excess for t in tails]))

    def __call__(self, evidence: NDArray[np.floating]) -> Array:
        """Map evidence (n, channels) to -log p, at least 0."""
        parts = [self._of_part(evidence[start : start + self.ROWS]) for start in range(0, len(evidence), self.ROWS)]
        return np.concatenate(parts) if parts else np.empty(evidence.shape, np.float32)

    def _of_part(self, evidence: NDArray[np.floating]) -> Array:
        e = evidence.astype(np.float64)
        level = self._level(e)
        last = self.grid[-1]
        with np.errstate(invalid="ignore"):  # inf - inf of a channel that never spoke: not beyond anything
            beyond = -np.log(1 - self.LEVELS[-1]) + (e - last) / self.excess
        return np.where(e > last + self.SAME * np.abs(last), beyond, -np.log1p(-level)).astype(np.float32)

    def _level(self, e: NDArray[np.float64]) -> NDArray[np.float64]:
        """Interpolate between the steps of each channel, as `numpy.interp` does, for all channels together."""
        steps, levels = self._flat_steps
        first = np.arange(e.shape[1]) * self.PADDED
        place = np.tile(first, (len(e), 1))
        for stride in self.PADDED >> np.arange(1, self.PADDED.bit_length()):
            place += stride * (steps.take(place + stride) <= e)
        after = np.minimum(place + 1, first + self.PADDED - 1)
        low, high, base = steps.take(place), steps.take(after), levels.take(place)
        with np.errstate(invalid="ignore"):  # inf - inf of a channel that never spoke
            part = ((e - low) / (high - low)).clip(0, 1)
        return base + np.where(np.isnan(part), 0.0, part) * (levels.take(after) - base)

    @cached_property
    def _flat_steps(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rising quantiles of each channel and their levels, flat: of equal ones the lowest, since ties are not strange.

        Each channel has `PADDED` of them, filled up with inf.
        """
        steps = np.full((self.grid.shape[1], self.PADDED), np.inf)
        levels = np.empty(steps.shape)
        for k, grid in enumerate(self.grid.T):
            kept = self._distinct(grid)
            levels[k] = self.LEVELS[kept[-1]]
            steps[k, : len(kept)], levels[k, : len(kept)] = grid[kept], self.LEVELS[kept]
        return steps.ravel(), levels.ravel()

    def _distinct(self, grid: NDArray[np.float64]) -> list[int]:
        """Return the levels at which rising quantiles (levels,) differ from the last one taken."""
        kept = [0]
        for level in range(1, len(grid)):
            if grid[level] > grid[kept[-1]] + self.SAME * abs(grid[level]):
                kept.append(level)
        return kept


def completed(
    usual: NDArray[Any], whole: NDArray[Any], visible: NDArray[np.floating], usually: float
) -> NDArray[np.floating]:
    """Return what is said by `usual` tails where no more is visible than usually, and by those of whole data where all is.

    Parameters
    ----------
    usual, whole : array (n, ...)
        What either tails say of the same data.
    visible : array, broadcast against them
        Visible share of each.
    usually : float
        Of the data that the usual tails are of.

    Examples
    --------
    >>> completed(np.array([1.0, 1.0, 1.0]), np.array([0.0, 0.0, 0.0]), np.array([0.4, 0.75, 1.0]), 0.5)
    array([1. , 0.5, 0. ])
    """
    part = ((visible - usually) / (1 - usually)).clip(0, 1) if usually < 1 else 1.0
    return np.asarray(usual + part * (whole - usual))
