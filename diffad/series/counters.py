"""Channels that only count: what comes next lies beyond all that was seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diffad.base.telling import tell

#: Readings from which on a channel that never falls is no chance, and parts of a series in each of which it must rise.
LEAST, PARTS = 64, 4


def warn_of_counters(series: list[NDArray[np.float64]], names: Sequence[str]) -> None:
    """Warn of channels of series (n_timestamps, channels), NaN = missing, that only rise, or only fall, to the end."""
    long = [rows for rows in series if len(rows) >= LEAST]
    found = [name for k, name in enumerate(names) if long and all(_counts(rows[:, k]) for rows in long)]
    if found:
        tell(
            f"channels {found} only ever rise or fall in X: what comes next lies beyond all that was seen, and may alarm; "
            "give their differences from row to row"
        )


def _counts(values: NDArray[np.float64]) -> bool:
    known = values[~np.isnan(values)]
    steps = np.diff(known)
    if len(known) < LEAST or not ((steps >= 0).all() or (steps <= 0).all()):
        return False
    return all(np.ptp(part) > 0 for part in np.array_split(known, PARTS))
