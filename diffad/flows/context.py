"""What a source did lately: exact counts over sliding windows in one pass over the flows, with bounded memory.

The clock of a source is the latest start among its flows so far. A flow belongs to the moment that its source's
clock shows when it comes in: a long connection that is logged at its end is news of that moment, and logs may be out
of order; of a source that was absent among the last `max_flows` flows it begins anew. A window of w seconds holds the flows of the source, the present one included, to whose moments its clock
is now less than w seconds ahead, as far as they are among the last `max_flows` flows of all sources.

A start far in the future would stop the clock. Therefore, after `PATIENCE` flows in a row that began more than
`BACKWARDS` before it, the clock is set to the present flow and the windows begin anew.

Nothing depends on how the flows are cut into chunks. Sorted by source, windows are ranges of rows whose limits never
go back, so every count is a difference of two running sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffad.flows.table import failed

Ints = NDArray[np.int64]

SECOND = 1_000_000  # moments are whole microseconds
BACKWARDS = 24 * 3600 * SECOND
PATIENCE = 3
#: A remembered flow. Addresses are hashes, 0 for none; a port is -1 and `failed` is -1 where unknown.
FLOW = np.dtype(
    {
        "names": ["source", "life", "moment", "arrival", "peer", "port", "failed", "has_bytes", "bytes_out"],
        "formats": ["u8", "i8", "i8", "i8", "u8", "i4", "i1", "i1", "u8"],
    }
)


class SourceContext:
    """Counts over sliding windows for the source of each flow.

    Parameters
    ----------
    windows : sequence of float
        Lengths in seconds.
    max_flows : int
        Flows remembered, of 54 bytes each, and clocks of at most twice as many sources.
    """

    def __init__(self, windows: tuple[float, ...], max_flows: int) -> None:
        self.lengths = {f"{window:g}s": round(window * SECOND) for window in windows}
        self.max_flows = max_flows
        self.arrived = 0
        self.remembered = np.empty(0, FLOW)
        # Source: its clock, how many flows in a row were far behind, how often it began anew, its last arrival.
        self.clocks: dict[int, tuple[int, int, int, int]] = {}

    def update(self, flows: pd.DataFrame) -> pd.DataFrame:
        """Return the counts for the next flows in the order of the log, and remember these.

        Returns
        -------
        DataFrame of shape (n_flows, 5 x n_windows), index as of `flows`
            For each window w ``connections_w``, ``peers_w`` and ``ports_w`` (different destinations, and different
            destination ports), ``failed_share_w`` (of the flows whose state is known) and ``bytes_out_w``. NaN where
            the source is missing.
        """
        present = self._flows(flows)
        rows = np.concatenate([self.remembered, present])
        order = np.lexsort((rows["life"], rows["source"]))
        rows = rows[order]
        longest = max(self.lengths.values())
        begins = np.r_[True, np.any([rows[key][1:] != rows[key][:-1] for key in ("source", "life")], axis=0)][
            : len(rows)
        ]
        # Time with idle gaps cut short, running on from source to source: a window never reaches into another.
        gaps = np.minimum(np.diff(rows["moment"], prepend=0), longest + 1)
        time = np.cumsum(np.where(begins, longest + 1, gaps))
        recent = self._recent(rows["arrival"], begins)
        at = rows["arrival"] - (self.arrived - len(flows))
        new = at >= 0
        counts = {}
        for name, length in self.lengths.items():
            first = np.maximum(np.searchsorted(time, time - length, side="right"), recent)
            for what, values in _counts(rows, first).items():
                column = np.full(len(flows), np.nan)
                column[at[new]] = values[new]
                counts[f"{what}_{name}"] = column
        ends = np.flatnonzero(np.r_[rows["source"][1:] != rows["source"][:-1], True][: len(rows)])
        end = ends[np.searchsorted(ends, np.arange(len(rows)))]
        needed = (time[end] - time < longest) & (rows["arrival"] > self.arrived - self.max_flows)
        self.remembered = rows[needed]
        if len(self.clocks) > 2 * self.max_flows:
            forgotten = self.arrived - self.max_flows
            self.clocks = {source: clock for source, clock in self.clocks.items() if clock[3] >= forgotten}
        return pd.DataFrame(counts, index=flows.index)

    def _flows(self, flows: pd.DataFrame) -> NDArray[np.void]:
        """Return the flows whose source is known as an array of `FLOW`, and advance the clocks."""
        known = flows["source"].notna().to_numpy()
        arrival = self.arrived + np.flatnonzero(known)
        self.arrived += len(flows)
        flows = flows[known]
        rows = np.empty(len(flows), FLOW)
        rows["source"], rows["peer"] = _hashes(flows["source"]), _hashes(flows["destination"])
        rows["arrival"] = arrival
        rows["port"] = flows["destination_port"].to_numpy(dtype=np.int64, na_value=-1)
        rows["failed"] = np.nan_to_num(failed(flows), nan=-1)
        sent = flows["bytes_out"].to_numpy(dtype=float)
        rows["has_bytes"] = ~np.isnan(sent)
        # Sums of integers are exact, and the largest possible window stays below 2**63.
        rows["bytes_out"] = np.minimum(np.nan_to_num(sent), 2**62 // self.max_flows).astype(np.uint64)
        starts = flows["start"].dt.as_unit("us").astype("int64")
        rows["moment"], rows["life"] = self._advance(rows["source"].tolist(), starts.tolist(), arrival.tolist())
        return rows

    def _advance(self, sources: list[int], starts: list[int], arrivals: list[int]) -> tuple[Ints, Ints]:
        """Return the moment of each flow, and how often its source began anew before."""
        moments, lives = np.empty(len(starts), np.int64), np.empty(len(starts), np.int64)
        for k, (source, start, arrival) in enumerate(zip(sources, starts, arrivals, strict=True)):
            clock, behind, life, last = self.clocks.get(source, (start, 0, 0, arrival))
            behind = behind + 1 if start < clock - BACKWARDS else 0
            if behind == PATIENCE or arrival - last >= self.max_flows:
                clock, behind, life = start, 0, life + 1
            clock = max(clock, start)
            moments[k], lives[k] = clock, life
            self.clocks[source] = clock, behind, life, arrival
        return moments, lives

    def _recent(self, arrival: Ints, begins: NDArray[np.bool_]) -> Ints:
        """Return for each row the first of its group that is among the last `max_flows` then."""
        offset = np.ptp(arrival) + self.max_flows + 1 if len(arrival) else 0
        rank = np.cumsum(begins) * offset + arrival - arrival.min(initial=0)
        return np.searchsorted(rank, rank - self.max_flows, side="right")


def _hashes(addresses: pd.Series) -> NDArray[np.uint64]:
    codes, unique = pd.factorize(addresses.to_numpy(dtype=object, na_value=None))
    return np.r_[pd.util.hash_array(unique, categorize=False), np.uint64(0)][codes]


def _counts(rows: NDArray[np.void], first: Ints) -> dict[str, NDArray[np.float64]]:
    """Return counts over the rows from `first[i]` to i, for each row i."""
    here = np.arange(len(rows))

    def total(values: NDArray[Any]) -> NDArray[Any]:
        sums = np.concatenate([np.zeros(1, values.dtype), np.cumsum(values)])
        return sums[here + 1] - sums[first]

    judged = total((rows["failed"] >= 0).astype(np.int64))
    counted = total(rows["has_bytes"].astype(np.int64))
    with np.errstate(invalid="ignore"):
        share = total((rows["failed"] > 0).astype(np.int64)) / judged
    return {
        "connections": here - first + 1.0,
        "peers": _different(rows["peer"], rows["peer"] != 0, first),
        "ports": _different(rows["port"], rows["port"] >= 0, first),
        "failed_share": share,
        "bytes_out": np.where(counted, total(rows["bytes_out"]).astype(float), np.nan),
    }


def _different(values: NDArray[Any], known: NDArray[np.bool_], first: Ints) -> NDArray[np.float64]:
    """Return how many different known values there are from row `first[i]` to i, for each row i.

    `first` never falls. Row i adds a value unless the same is in the window already; row j takes its value out at
    the first i with first[i] > j, unless the same has come in again.
    """
    n = len(values)
    # A value outside of the window is another one, so that all sources can be looked at together.
    order = np.argsort(values, kind="stable")
    same = values[order][1:] == values[order][:-1]
    before, after = np.full(n, -1), np.full(n, n)
    before[order[1:]] = np.where(same, order[:-1], -1)
    after[order[:-1]] = np.where(same, order[1:], n)
    leaves = np.searchsorted(first, np.arange(n), side="right")
    gone = np.bincount(leaves[known & (after >= leaves)], minlength=n + 1)[:n]
    return np.cumsum((known & (before < first)).astype(np.int64) - gone).astype(float)
