"""Filled values for columns of integers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def whole_numbers(values: NDArray[np.float64], kind: Any) -> NDArray[np.integer]:
    """Return the nearest integers (n,) that an integer dtype, of NumPy or pandas, can hold.

    Examples
    --------
    >>> whole_numbers(np.array([-3.0, 2.6, 300.0]), np.dtype("uint8"))
    array([  0,   3, 255], dtype=uint8)
    """
    plain = np.dtype(getattr(kind, "numpy_dtype", kind))
    bounds = np.iinfo(plain)
    # The largest float below a power of two: the bound itself may round up to it.
    most = min(float(bounds.max), np.nextafter(2.0 ** (bounds.bits - (plain.kind == "i")), 0))
    return np.clip(values.round(), float(bounds.min), most).astype(plain)
