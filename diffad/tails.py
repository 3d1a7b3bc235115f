"""Evidence of any unit as minus the log probability that normal data look as strange."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class LogTail:
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

    grid: NDArray[np.float64]
    excess: NDArray[np.float64]

    @classmethod
    def fit(cls, normal: NDArray[np.floating]) -> LogTail:
        """Learn from normal evidence (n, channels); entries of -inf say nothing."""
        columns = [c[np.isfinite(c)] for c in normal.T.astype(np.float64)]
        grid = np.stack([np.quantile(c, cls.LEVELS) if len(c) else np.full(len(cls.LEVELS), np.inf) for c in columns])
        over = [c[c > g[-1]] - g[-1] for c, g in zip(columns, grid, strict=True)]
        excess = np.array([o.mean() if len(o) else 1e-3 for o in over])
        return cls(grid.T, excess)

    @classmethod
    def beside(cls, tails: Sequence[LogTail]) -> LogTail:
        """Return one tail for the channels of several, in order."""
        return cls(np.concatenate([t.grid for t in tails], 1), np.concatenate([t.excess for t in tails]))

    def __call__(self, evidence: NDArray[np.floating]) -> Array:
        """Map evidence (n, channels) to -log p, at least 0."""
        e = evidence.astype(np.float64)
        level = np.stack([np.interp(e[:, k], *steps) for k, steps in enumerate(self._steps)], 1)
        last = self.grid[-1]
        with np.errstate(invalid="ignore"):  # inf - inf of a channel that never spoke: not beyond anything
            beyond = -np.log(1 - self.LEVELS[-1]) + (e - last) / self.excess
        return np.where(e > last + self.SAME * np.abs(last), beyond, -np.log1p(-level)).astype(np.float32)

    @cached_property
    def _steps(self) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Rising quantiles of each channel and their levels: of equal ones the lowest, since ties are not strange."""
        return [(grid[kept], self.LEVELS[kept]) for grid, kept in ((g, self._distinct(g)) for g in self.grid.T)]

    def _distinct(self, grid: NDArray[np.float64]) -> list[int]:
        """Return the levels at which rising quantiles (levels,) differ from the last one taken."""
        kept = [0]
        for level in range(1, len(grid)):
            if grid[level] > grid[kept[-1]] + self.SAME * abs(grid[level]):
                kept.append(level)
        return kept
