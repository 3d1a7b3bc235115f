"""How regularly a source comes back to the same port of a host: the interval and its jitter, in one pass over the flows.

A program that calls home does so by the clock, and a flood or a tunnel in a steady stream; people do not. As in tools
that hunt beacons (Hu et al. 2016, "BAYWATCH: robust beaconing detection to identify infected hosts in large-scale
enterprise networks"; RITA), what counts are the median of the latest intervals between a source and a service, and the
median deviation from it: both bear a beat left out.

Flows of a conversation (source, destination, destination port) that begin less than `SAME_BEAT` after the one before
are one beat, as a page is that opens six connections; so is a flow that begins before it, in logs out of order.  The
latest `BEATS` intervals count, as far as their beats are among the last `max_flows` flows of all.  Nothing depends on
how the flows are cut into chunks.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Ints = NDArray[np.int64]

#: Microseconds within which the flows of a conversation are one beat.
SAME_BEAT = 100_000
#: Intervals looked at, and fewest that tell.
BEATS, FEWEST = 8, 4
#: A remembered flow: a hash of its conversation, its number in the log, its start in microseconds, whether it is a beat.
FLOW = np.dtype([("conversation", "u8"), ("arrival", "i8"), ("start", "i8"), ("beat", "?")])


class Rhythm:
    """Intervals at which conversations come back.

    Parameters
    ----------
    max_flows : int
        Latest flows of all sources among which beats are remembered, of 25 bytes each.
    """

    def __init__(self, max_flows: int) -> None:
        self.max_flows = max_flows
        self.arrived = 0
        self.remembered = np.empty(0, FLOW)

    def update(self, flows: pd.DataFrame) -> pd.DataFrame:
        """Return the rhythm of the conversation of each of the next flows in the order of the log, and remember these.

        Returns
        -------
        DataFrame of shape (n_flows, 2), index as of `flows`
            ``interval_ms``: median of the latest intervals; ``jitter_percent``: median distance from it, in percent of
            it.  NaN for fewer than `FEWEST` intervals, and where an address or the port is missing.
        """
        rows = np.concatenate([self.remembered, self._flows(flows)])
        rows = rows[np.lexsort((rows["arrival"], rows["conversation"]))]
        new = rows["arrival"] >= self.arrived
        first = np.r_[True, rows["conversation"][1:] != rows["conversation"][:-1]][: len(rows)]
        forgotten = np.diff(rows["arrival"], prepend=0) >= self.max_flows
        late = np.diff(rows["start"], prepend=0) >= SAME_BEAT
        rows["beat"] = np.where(new, first | forgotten | late, rows["beat"])
        at = np.flatnonzero(rows["beat"])
        latest = np.cumsum(rows["beat"]) - 1
        interval, jitter = _medians(self._intervals(rows, first, at, latest, new))
        result = np.full((2, len(flows)), np.nan)
        result[:, rows["arrival"][new] - self.arrived] = interval, jitter
        self._remember(rows, first, latest, len(flows))
        return pd.DataFrame({"interval_ms": result[0], "jitter_percent": result[1]}, index=flows.index)

    def _flows(self, flows: pd.DataFrame) -> NDArray[np.void]:
        """Return the flows whose conversation is known as an array of `FLOW`."""
        ends = flows[["source", "destination", "destination_port"]]
        known = ends.notna().all(axis=1).to_numpy()
        rows = np.zeros(int(known.sum()), FLOW)
        rows["conversation"] = pd.util.hash_pandas_object(
            ends[known].astype({"source": object, "destination": object, "destination_port": "int64"}), index=False
        )
        rows["arrival"] = self.arrived + np.flatnonzero(known)
        rows["start"] = flows["start"][known].dt.as_unit("us").astype("int64")
        return rows

    def _intervals(
        self, rows: NDArray[np.void], first: NDArray[np.bool_], at: Ints, latest: Ints, new: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Return (new flows, `BEATS`) the latest intervals in milliseconds, NaN where there are fewer."""
        beats = rows[at]
        gaps = np.diff(beats["start"], prepend=0) / 1e3
        gaps[gaps <= 0] = np.nan  # out of order
        # How many beats back the conversation began, or began to be known; -1 where no beat of it is remembered.
        rank = latest - np.maximum.accumulate(np.where(first, latest - rows["beat"] + 1, 0))
        windows = sliding_window_view(np.r_[np.full(BEATS, np.nan), gaps], BEATS)
        begun = sliding_window_view(np.r_[np.full(BEATS, -1), beats["arrival"]], BEATS)
        number = latest[new]
        back = np.arange(BEATS)[::-1]
        there = (back < rank[new][:, None]) & (begun[number] > rows["arrival"][new][:, None] - self.max_flows)
        return np.where(there, windows[number + 1], np.nan)

    def _remember(self, rows: NDArray[np.void], first: NDArray[np.bool_], latest: Ints, n_flows: int) -> None:
        self.arrived += n_flows
        last = np.r_[first[1:], True][: len(rows)]
        ends = np.flatnonzero(last)
        behind = latest[ends[np.searchsorted(ends, np.arange(len(rows)))]] - latest
        recent = rows["arrival"] > self.arrived - self.max_flows
        self.remembered = rows[recent & (last | (rows["beat"] & (behind <= BEATS)))]


def _medians(intervals: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the median of each row and the median distance from it in percent, NaN where there are too few."""
    result = np.full((2, len(intervals)), np.nan)
    told = np.isfinite(intervals).sum(axis=1) >= FEWEST
    result[0, told] = np.nanmedian(intervals[told], axis=1)
    result[1, told] = np.nanmedian(100 * np.abs(intervals[told] / result[0, told, None] - 1), axis=1)
    return result[0], result[1]
