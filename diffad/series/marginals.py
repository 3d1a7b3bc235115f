"""Normal scores: each channel bent so that its values are normally distributed, and back.

With it a Gaussian prior of windows is a Gaussian copula (Liu et al. 2009, "The nonparanormal"):
bursts and saturation live in the marginals and no longer own the covariance.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

#: Points of a channel's quantile function.
POINTS = 201
#: Normal deviates behind the slope by which a channel goes on beyond what was seen.
TAIL = 1.5
#: Fewest values that show a channel's distribution; with fewer it is left as it is.
FEWEST = 200
#: Most different values of a channel that takes steps.
FEW_VALUES = 20


@dataclass(frozen=True)
class Marginals:
    """Monotone maps of channels to normal scores.

    A value that many rows share (a rate that is often 0) has a whole range of scores: forward it
    gets the median of the range, and backward the whole range is that value.  Where a channel has no other values
    (a flag, a state) the medians are spread to a deviation of 1: a model of them then reaches rare values as often
    as they were seen.  Beyond the largest and smallest value seen, channels go on linearly, unless they end in such a
    range.

    Attributes
    ----------
    scores : array (POINTS,)
        Rising normal scores.
    values : array (POINTS, channels)
        Quantiles of the channels at these scores; NaN for a channel that is left as it is.
    steps : dict of int to (array, array)
        Values of the channels that take steps, and their scores.

    Examples
    --------
    >>> x = np.random.default_rng(0).exponential(size=(4000, 1))
    >>> marginals = Marginals.fit(x)
    >>> z = marginals.forward(x)
    >>> bool(stats.skew(x[:, 0]) > 1.5), bool(abs(stats.skew(z[:, 0])) < 0.05)
    (True, True)
    """

    scores: Array
    values: Array
    steps: dict[int, tuple[Array, Array]] = field(default_factory=dict)

    @classmethod
    def fit(cls, rows: Array) -> Marginals:
        """Learn from rows (n, channels), NaN = missing."""
        counts = (~np.isnan(rows)).sum(0)
        last = stats.norm.ppf(1 - 0.5 / max(int(counts.max(initial=0)), FEWEST))
        scores = np.linspace(-last, last, POINTS)
        values = np.full((POINTS, rows.shape[1]), np.nan)
        levels = stats.norm.cdf(scores)
        steps = {}
        for k in np.flatnonzero(counts >= FEWEST):
            column = rows[~np.isnan(rows[:, k]), k].astype(np.float32)
            values[:, k] = np.quantile(column, levels).astype(np.float32)
            seen, count = np.unique(column, return_counts=True)
            first, last = (np.searchsorted(values[:, k], seen, side) for side in ("left", "right"))
            # Only ranges that the grid resolves: a value must come back from wherever its score lies.
            if 1 < len(seen) <= FEW_VALUES and (last - first >= 2).all():
                steps[int(k)] = seen.astype(np.float64), _places(count / count.sum(), scores[first], scores[last - 1])
        return cls(scores, values, steps)

    @property
    def bent(self) -> NDArray[np.bool_]:
        """Channels that are not left as they are."""
        return ~np.isnan(self.values[0])

    def forward(self, rows: Array) -> Array:
        """Map values (..., channels) to normal scores, NaN to NaN."""
        result = np.array(rows, dtype=np.float64)
        levels = stats.norm.cdf(self.scores)
        for k in np.flatnonzero(self.bent):
            # Equal readings must stay equal: all are looked up in single precision, as models see them.
            x, grid = result[..., k].astype(np.float32).astype(np.float64), self.values[:, k]
            first, last = np.searchsorted(grid, x, "left"), np.searchsorted(grid, x, "right") - 1
            ends = levels[np.minimum(first, POINTS - 1)], levels[np.maximum(last, 0)]
            shared = stats.norm.ppf((ends[0] + ends[1]) / 2)
            score = np.where(last > first, shared, np.interp(x, grid, self.scores))
            if int(k) in self.steps:
                score = np.interp(x, *self.steps[int(k)])
            low, high = self._slopes(k)
            # A channel that ends in a shared value cannot go beyond it; if it does, by its own unit.
            score = np.where(x < grid[0], self.scores[0] + (x - grid[0]) / (low or 1.0), score)
            score = np.where(x > grid[-1], self.scores[-1] + (x - grid[-1]) / (high or 1.0), score)
            result[..., k] = np.where(np.isnan(x), np.nan, score)
        return result

    def inverse(self, scores: NDArray[np.floating]) -> Array:
        """Map normal scores (..., channels) to values."""
        result = np.array(scores, dtype=np.float64)
        for k in np.flatnonzero(self.bent):
            z, grid = result[..., k], self.values[:, k]
            low, high = self._slopes(k)
            value = np.interp(z, self.scores, grid)
            value = np.where(z < self.scores[0], grid[0] + (z - self.scores[0]) * low, value)
            result[..., k] = np.where(z > self.scores[-1], grid[-1] + (z - self.scores[-1]) * high, value)
        return result

    def _slopes(self, k: int | np.integer) -> tuple[float, float]:
        """Return the rise per score at the lower and the upper end; 0 where they are shared values."""
        grid, scores = self.values[:, k], self.scores
        inner = int(np.searchsorted(scores, scores[0] + TAIL))
        low = (grid[inner] - grid[0]) / (scores[inner] - scores[0])
        high = (grid[-1] - grid[-1 - inner]) / (scores[-1] - scores[-1 - inner])
        return (0.0 if grid[1] == grid[0] else float(low)), (0.0 if grid[-2] == grid[-1] else float(high))


def _places(share: Array, low: Array, high: Array) -> Array:
    """Return a score for each step of a channel by their shares: of mean 0 and deviation 1, but inside each range."""
    place = stats.norm.ppf(share.cumsum() - share / 2)
    place -= (share * place).sum()
    place /= np.sqrt((share * place**2).sum())
    return np.asarray(place.clip(np.r_[-np.inf, low[1:]], np.r_[high[:-1], np.inf]))
