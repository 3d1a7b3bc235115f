"""Accuracy of samples: absolute error, continuous ranked probability score, coverage."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def crps(samples: ArrayLike, truth: ArrayLike) -> NDArray[np.float64]:
    """Return the fair ensemble CRPS of each entry; lower is better, in the data's unit.

    ``mean |x_i - y| - sum_ij |x_i - x_j| / (2 m (m - 1))``, unbiased for few samples (Ferro 2014).

    Parameters
    ----------
    samples : array-like of shape (m, ...), m >= 2
    truth : array-like of shape (...)

    Examples
    --------
    >>> crps([[0.0], [2.0]], [1.0]).tolist()
    [0.0]
    """
    s = np.sort(np.asarray(samples, dtype=float), axis=0)
    m = len(s)
    if m < 2:
        raise ValueError(f"samples must hold at least 2 samples along the first axis, got {m}")
    rank = np.arange(1, m + 1).reshape(-1, *([1] * (s.ndim - 1)))
    distance: NDArray[np.float64] = np.abs(s - np.asarray(truth)).mean(0)
    return distance - ((2 * rank - m - 1) * s).sum(0) / (m * (m - 1))


def coverage(lower: ArrayLike, upper: ArrayLike, truth: ArrayLike) -> float:
    """Return the share of entries inside ``[lower, upper]``.

    Examples
    --------
    >>> coverage([0.0, 0.0], [1.0, 1.0], [0.5, 2.0])
    0.5
    """
    y = np.asarray(truth)
    return float(np.mean((np.asarray(lower) <= y) & (y <= np.asarray(upper))))
