"""Find the cycle of a recording: its period in rows and what a period looks like.

No timestamps are asked for.  A period is a peak of the autocorrelation whose mean cycle, learnt on
one half of the recording, explains the other half.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import signal

Array = NDArray[np.float32]
Profile = NDArray[np.float64]

#: Shortest period in rows, and periods that a recording must hold.
SHORTEST, CYCLES = 4, 6
#: Share of the faster variation of the second half that the first half's cycle must explain.
ENOUGH = 0.05
#: Peaks of the autocorrelation that are tried.
CANDIDATES = 6


def find_period(series: list[Array], longest: int) -> int | None:
    """Return the period of standardised series, or None where there is none.

    Parameters
    ----------
    series : list of array (n_timestamps, channels)
        NaN = missing; the longest of them decides.
    longest : int
        Longest period in rows to look for.
    """
    rows = max(series, key=len)
    longest = min(longest, len(rows) // CYCLES)
    if longest < SHORTEST:
        return None
    fast = np.nan_to_num(_faster(rows, longest))
    each = [signal.correlate(c, c, "full", "fft")[len(rows) - 1 :][: longest + 2] for c in fast.T]
    correlation = np.sum(each, 0)
    peaks = signal.find_peaks(correlation[SHORTEST - 1 :])[0] + SHORTEST - 1
    peaks = peaks[np.argsort(-correlation[peaks], kind="stable")][:CANDIDATES]
    gains = {int(p): _gain(rows, int(p)) for p in peaks}
    if not gains or max(gains.values()) < ENOUGH:
        return None
    # A multiple of the period explains as much: the shortest of the good ones is meant.
    return min(p for p, gain in gains.items() if gain >= 0.9 * max(gains.values()))


def mean_cycle(series: list[Array], period: int) -> Profile:
    """Return the mean cycle (period, channels) of standardised series, in the phase of the longest."""
    leader = max(series, key=len)
    total, count = _sums(leader, period)
    for other in series:
        if other is leader or len(other) < period:
            continue
        more, seen = _sums(other, period)
        lag = _lag(total / np.maximum(count, 1), more / np.maximum(seen, 1))
        total, count = total + np.roll(more, lag, 0), count + np.roll(seen, lag, 0)
    level = np.nanmean(np.concatenate(series), 0)
    return np.asarray(total / np.maximum(count, 1) + level)


def _gain(rows: Array, period: int) -> float:
    """Return the share of the second half's faster variation that the first half's cycle explains."""
    middle = len(rows) // 2 // period * period
    total, count = _sums(rows[:middle], period)
    rest = _faster(rows[middle:], period)
    error = rest - (total / np.maximum(count, 1))[np.arange(len(rest)) % period]
    return float(1 - np.nansum(error**2) / max(float(np.nansum(rest**2)), 1e-12))


def _sums(rows: Array, period: int) -> tuple[Profile, Profile]:
    """Return sums and counts of the faster variation per phase, each (period, channels)."""
    fast = _faster(rows, period)
    whole = -(-len(rows) // period) * period
    padded = np.full((whole, rows.shape[1]), np.nan)
    padded[: len(rows)] = fast
    cycles = padded.reshape(-1, period, rows.shape[1])
    return np.nansum(cycles, 0), (~np.isnan(cycles)).sum(0).astype(float)


def _faster(rows: Array, width: int) -> Profile:
    """Return rows minus their running mean over `width` rows."""
    kernel = np.ones((width, 1))
    seen = ~np.isnan(rows)
    total = signal.fftconvolve(np.where(seen, rows, 0.0).astype(float), kernel, "same", axes=0)
    count = signal.fftconvolve(seen.astype(float), kernel, "same", axes=0)
    return np.asarray(rows - total / np.maximum(count, 1.0))


def _lag(profile: Profile, other: Profile) -> int:
    """Return by how many rows a cycle has to be rolled to match `profile`."""
    return int(np.argmax([(np.roll(other, lag, 0) * profile).sum() for lag in range(len(profile))]))
