"""Runs of marked rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def in_runs(marks: NDArray[np.bool_], least: NDArray[Any]) -> NDArray[np.bool_]:
    """Keep marks (n, channels) in runs along the rows of at least `least` (channels,).

    Examples
    --------
    >>> in_runs(np.array([[True], [False], [True], [True]]), np.array([2]))[:, 0].tolist()
    [False, False, True, True]
    """
    padded = np.pad(marks, ((1, 1), (0, 0))).astype(np.int8)
    change = np.diff(padded, axis=0).T
    channel, start = np.nonzero(change == 1)
    stop = np.nonzero(change == -1)[1]
    keep = stop - start >= least[channel]
    edges = np.zeros((marks.shape[0] + 1, marks.shape[1]), np.int64)
    np.add.at(edges, (start[keep], channel[keep]), 1)
    np.add.at(edges, (stop[keep], channel[keep]), -1)
    return np.asarray(edges[:-1].cumsum(0) > 0)
