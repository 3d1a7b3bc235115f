"""numpy's masked arrays, which hold any number at all where they are masked."""

from __future__ import annotations

from typing import Any

import numpy as np


def unmasked(X: Any) -> Any:
    """Return a masked array as float64 with NaN where it is masked, and anything else as it is.

    Examples
    --------
    >>> unmasked(np.ma.array([1, 999], mask=[False, True]))
    array([ 1., nan])
    >>> unmasked([1, 2])
    [1, 2]
    """
    if not isinstance(X, np.ma.MaskedArray):
        return X
    return np.ma.filled(X.astype(np.float64), np.nan)
