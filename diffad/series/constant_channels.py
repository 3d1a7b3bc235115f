"""Channels that never moved in training: nothing can be learnt of them, but moving at all is an alarm."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from diffad.series.scaling import Scaling

Rows = NDArray[np.float64]

#: Part of the level by which a value may differ from it and be the same: what rounding does.
SAME = 1e-9


def same(values: Rows, level: Rows | float) -> NDArray[np.bool_]:
    """Return which values are a level but for rounding, or but for one of both having been in single precision.

    Whole numbers do not come of rounding: a counter of 100,000,000 that moves by one has moved.

    Examples
    --------
    >>> same(np.array([0.1, np.float32(0.1), 0.1001]), 0.1)
    array([ True,  True, False])
    >>> same(np.array([1e8 + 1]), 1e8)
    array([False])
    """
    with np.errstate(over="ignore", invalid="ignore"):
        single = (values == np.float32(level)) | (np.float32(values) == level)
    return np.asarray((np.abs(values - level) <= SAME * np.abs(level)) | (single & (level != np.round(level))))


@dataclass(frozen=True)
class ConstantChannels:
    """The levels at which channels rested.

    Attributes
    ----------
    level : array (n_features,)
        NaN for channels that are not watched: those that vary, and those of which nothing is known.
    """

    level: Rows

    @classmethod
    def of(cls, scaling: Scaling) -> ConstantChannels:
        """Watch the channels that a scaling found to be constant."""
        constant = ~scaling.modelled & ~np.isnan(scaling.scale)
        return cls(np.where(constant, scaling.centre, np.nan))

    def moves(self, rows: Rows) -> NDArray[np.bool_]:
        """Mark values of rows (n, n_features) off their channel's level; a missing one has not moved."""
        return ~(same(rows, self.level) | np.isnan(rows - self.level))

    def without(self, channels: NDArray[np.bool_]) -> ConstantChannels:
        """Stop watching some channels (n_features,)."""
        return replace(self, level=np.where(channels, np.nan, self.level))
