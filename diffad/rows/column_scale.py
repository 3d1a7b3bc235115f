"""One column of numbers on the scale of a normal, and back to values that the column can take.

Two maps: linear by centre and deviation, or normal scores, the quantile of the standard normal at
the value's rank (van der Waerden 1952), which turns any marginal, heavy tails included, into a
normal one; with a Gaussian of the scores this is the Gaussian copula.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Vector = NDArray[np.float64]

#: A column takes steps where its distinct values are at most this many, or this part of all values.
FEW_VALUES, FEW_PART = 20, 0.3
#: Quantiles kept of a column of many values.
MOST_VALUES = 2000


@dataclass(frozen=True)
class ColumnScale:
    """Map of one column.

    Attributes
    ----------
    values : array (v,)
        Distinct values, rising; `MOST_VALUES` quantiles of them where they are more.
    place : array (v,)
        Where each value lies on the normal scale.
    edges : array (v - 1,)
        On the normal scale, what lies between a value and the next.
    stepped : bool
        Only `values` come back; otherwise anything between the least and the largest.
    whole : bool
        Only whole numbers come back, as only they were seen.
    """

    values: Vector
    place: Vector
    edges: Vector
    stepped: bool
    whole: bool

    @classmethod
    def fit(cls, column: Vector, linear: bool) -> ColumnScale:
        """Learn from a column (n,), NaN = missing, of which at least one value is known."""
        values, count = np.unique(column[~np.isnan(column)], return_counts=True)
        stepped = len(values) <= max(FEW_VALUES, FEW_PART * count.sum())
        whole = bool((values == values.round()).all())
        rank = (np.cumsum(count) - count / 2) / count.sum()
        if len(values) > MOST_VALUES and not stepped:
            kept = np.unique(np.linspace(0, len(values) - 1, MOST_VALUES).round().astype(int))
            values, rank, count = values[kept], rank[kept], count[kept]
        if linear:
            centre, spread = float(np.nanmean(column)), float(np.nanstd(column))
            place = (values - centre) / (spread if spread > 1e-12 * abs(centre) else 1.0)
            return cls(values, place, (place[1:] + place[:-1]) / 2, stepped, whole)
        upper = ndtri(np.clip((np.cumsum(count) / count.sum())[:-1], 1e-12, 1 - 1e-12))
        return cls(values, ndtri(rank), upper, stepped, whole)

    def forward(self, column: Vector) -> Vector:
        """Map values (n,) to the normal scale; beyond the values seen it ends."""
        return np.where(np.isnan(column), np.nan, np.interp(column, self.values, self.place))

    def inverse(self, place: Vector) -> Vector:
        """Return the value at each place, of any shape."""
        if self.stepped:
            return np.asarray(self.values[np.searchsorted(self.edges, place)])
        value = np.interp(place, self.place, self.values)
        return value.round() if self.whole else value

    @property
    def spread(self) -> float:
        """Standard deviation of the values, each as often as it was seen; 1 where they are one."""
        weight = np.diff(np.r_[0.0, ndtr(self.edges), 1.0])
        centre = (weight * self.values).sum()
        found = float(np.sqrt((weight * (self.values - centre) ** 2).sum()))
        return found if found > 0 else 1.0
