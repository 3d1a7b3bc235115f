"""What can this detector see, and how early?  Faults of growing size in data that are known to be normal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from diffad.base.arguments import check_count, is_number
from diffad.faults import FAULTS, SIZELESS, chosen_kinds, inject, on_grid
from diffad.series_detector import SeriesDetector

#: Rows from the start of each fault to its first alarm; inf where there is none.
Delays = NDArray[np.float64]

SIZES = (0.5, 1.0, 2.0, 3.0, 5.0, 8.0)
#: What a report measures: common kinds and few sizes, 10 to 20 s for 8 channels and minutes for 30.
REPORT: dict[str, Any] = {
    "kinds": ("spike", "shift", "drift", "stuck", "noise", "decorrelate"),
    "sizes": (1.0, 2.0, 4.0, 8.0),
    "n_events": 5,
}
#: Fewest normal rows, which hold one fault of the usual length.
LEAST_ROWS = 100
#: Rows of a recording whose last fifth has so many.
LEAST_RECORDING = 5 * LEAST_ROWS
#: Rows between the starts of two faults, in lengths of a fault: windows must not see both.
SPACING = 4
#: Faults that are tried at most for each that is counted: where a channel is missing, or rests, some change nothing.
TRIED = 10


def detectability(
    detector: SeriesDetector,
    X_normal: Any,
    kinds: str | Sequence[str] = tuple(FAULTS),
    sizes: Sequence[float] = SIZES,
    n_events: int = 10,
    length: int = 25,
    share: float = 0.9,
    random_state: int | np.random.RandomState | None = 0,
) -> pd.DataFrame:
    """Return the smallest fault of each kind and channel that the detector finds at its threshold.

    Parameters
    ----------
    detector : SeriesDetector
        Fitted; its threshold is the promised false-alarm rate.
    X_normal : DataFrame or array of shape (n_timestamps, n_features)
        Normal rows that were not fitted on, at least ``4 * length`` of them.
    kinds : str or sequence of str, default=all of `diffad.faults.FAULTS`
    sizes : sequence of float, default=(0.5, 1, 2, 3, 5, 8)
        In standard deviations of the channel around the fault.
    n_events : int, default=10
        Faults behind every figure, at least; cost is proportional: 8 channels take about two minutes.
    length : int, default=25
        Rows per fault.
    share : float, default=0.9
        Share of the faults that must be found.
    random_state : int, RandomState instance or None, default=0

    Returns
    -------
    DataFrame
        ``channel``, ``kind``, ``size`` (the smallest from which on at least `share` of the faults are found; inf if
        none is; the smallest of `sizes` for a kind without sizes), ``found`` (share found at that size, or at the
        largest; NaN where no fault changed anything: the channel is missing, or rests) and ``rows`` (median rows from
        the start of a fault to its first alarm, at the same size; with windows around a row the alarm itself is known
        only when these are complete: for how early, ask a detector with ``context="past"``). A few faults are hit by
        false alarms: at rate r about ``1 - (1 - r) ** length`` of them.
    """
    check_is_fitted(detector)
    _check_sizes(sizes, n_events, length, share)
    if np.ndim(X_normal) != 2:
        raise ValueError(f"X_normal must be one series of shape (n_timestamps, n_features), got {np.shape(X_normal)}")
    kinds = chosen_kinds(kinds)
    rng = check_random_state(random_state)
    X_normal = on_grid(detector, X_normal)
    if len(X_normal) < SPACING * length:
        raise ValueError(f"X_normal has {len(X_normal)} rows; detectability needs at least {SPACING * length}")
    rows = []
    for kind in kinds:
        tried = [min(sizes)] if kind in SIZELESS else sorted(sizes, reverse=True)
        for channel, name in enumerate(detector.channel_names_):
            hits = partial(_hits, detector, X_normal, kind, channel, n_events, length, rng)
            rows.append({"channel": name, "kind": kind, **_smallest_found(hits, tried, share)})
    return pd.DataFrame(rows)


def _check_sizes(sizes: Sequence[float], n_events: int, length: int, share: float) -> None:
    check_count(n_events, "n_events")
    check_count(length, "length")
    if not np.iterable(sizes) or not len(sizes) or not all(is_number(size) and size > 0 for size in sizes):
        raise ValueError(f"sizes must hold at least one positive size, got {sizes!r}")
    if not is_number(share) or not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share!r}")


def _smallest_found(hits: Callable[[float], Delays], sizes: list[float], share: float) -> dict[str, float]:
    """Go down the sizes as long as enough faults are found; return the last of these and what was found there."""
    smallest, at = np.inf, None
    for size in sizes:
        delays = hits(size)
        enough = len(delays) > 0 and np.isfinite(delays).mean() >= share
        at = delays if enough or at is None else at
        if not enough:
            break
        smallest = size
    assert at is not None
    seen = at[np.isfinite(at)]
    return {
        "size": smallest,
        "found": float(np.isfinite(at).mean()) if len(at) else np.nan,
        "rows": float(np.median(seen)) if len(seen) else np.nan,
    }


def _hits(
    detector: SeriesDetector,
    X: Any,
    kind: str,
    channel: int,
    n_events: int,
    length: int,
    rng: np.random.RandomState,
    size: float,
) -> Delays:
    """Return the rows from each fault's start to its first alarm, inf where there is none; no fault is what changes nothing."""
    delays: list[float] = []
    tried = 0
    at_once = min(len(X) // (SPACING * length), n_events)
    rows = SPACING * length * at_once
    while len(delays) < n_events and tried < TRIED * n_events:
        tried += at_once
        # Rows without a fault are only scored for nothing.
        first = rng.randint(len(X) - rows + 1)
        normal = (X.iloc if isinstance(X, pd.DataFrame) else X)[first : first + rows]
        faulty = inject(normal, kind, at_once, length, size, [channel], rng)
        if not len(faulty.events):
            continue
        alarm = detector.decision_function(faulty.X) < 0
        for start, stop in zip(faulty.events["start"], faulty.events["stop"], strict=True):
            hit = np.flatnonzero(alarm[start:stop])
            delays.append(float(hit[0]) if len(hit) else np.inf)
    return np.array(delays)
