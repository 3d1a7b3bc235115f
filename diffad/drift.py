"""Whether new rows are still like those that a detector was calibrated on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Scores = NDArray[np.float64]

#: Blocks from which on a sign test can tell, and a p-value of half of the rows that needs no test.
LEAST_BLOCKS, FAR = 7, 0.01
#: Rows of a block.
DRIFT_BLOCK = 64


def drifted(p_values: Scores) -> bool:
    """Return whether the bulk of p-values is too small for data like those calibrated on.

    Faults are few: the median of block means does not see them, drift moves it.  Blocks count as
    one observation each, since neighbours share windows.  Half of a block's rows far out is enough.
    """
    n = len(p_values) // DRIFT_BLOCK
    if n and float(np.median(p_values)) < FAR:
        return True
    if n < LEAST_BLOCKS:
        return False
    means = p_values[: n * DRIFT_BLOCK].reshape(n, DRIFT_BLOCK).mean(1)
    low = int((means < 0.5).sum())
    return float(np.median(means)) < 0.4 and stats.binomtest(low, n, 0.5, alternative="greater").pvalue < 0.01
