"""Arrays that do not say NaN where they miss something: numpy's masked ones, and objects with pandas' NA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def unmasked(X: Any) -> Any:
    """Return a masked array as float64 with NaN where it is masked, objects with NaN for NA, anything else as it is.

    Examples
    --------
    >>> unmasked(np.ma.array([1, 999], mask=[False, True]))
    array([ 1., nan])
    >>> unmasked(np.array([1, pd.NA], dtype=object))
    array([1, nan], dtype=object)
    >>> unmasked([1, 2])
    [1, 2]
    """
    if isinstance(X, np.ma.MaskedArray):
        return np.ma.filled(X.astype(np.float64), np.nan)
    if not isinstance(X, np.ndarray) or X.dtype != object:
        return X
    missing = np.asarray(np.frompyfunc(lambda value: value is pd.NA, 1, 1)(X), bool)
    return np.where(missing, np.nan, X) if missing.any() else X
