"""Channels that never moved in training: nothing can be learnt of them, but moving at all is an alarm."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from diffad.series.scaling import Scaling

Rows = NDArray[np.float64]

#: Part of the level by which a value may differ from it and be the same: what rounding to single precision does.
SAME = 2e-7


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
        return np.asarray(np.abs(rows - self.level) > SAME * np.abs(self.level))

    def without(self, channels: NDArray[np.bool_]) -> ConstantChannels:
        """Stop watching some channels (n_features,)."""
        return replace(self, level=np.where(channels, np.nan, self.level))
