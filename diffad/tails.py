"""Evidence of any unit as minus the log probability that normal data look as strange."""

from __future__ import annotations

from dataclasses import dataclass

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

    def __call__(self, evidence: NDArray[np.floating]) -> Array:
        """Map evidence (n, channels) to -log p, at least 0."""
        result = np.zeros(evidence.shape, np.float32)
        for k in range(evidence.shape[1]):
            e, grid = evidence[:, k].astype(np.float64), self.grid[:, k]
            # Of equal quantiles the lowest level counts: ties are not strange.
            first = np.r_[True, grid[1:] > grid[:-1]]
            body = -np.log1p(-np.interp(e, grid[first], self.LEVELS[first]))
            beyond = -np.log(1 - self.LEVELS[-1]) + (e - grid[-1]) / self.excess[k]
            result[:, k] = np.where(e > grid[-1], beyond, body)
        return result
