"""Alarms of series as a table of events, each with its peak and the channels to blame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffad.series.recordings import Recording
from diffad.thresholds import NormalScores, merge

Scores = NDArray[np.float64]

#: Share of an event's score from which on a channel is to blame.
GUILTY = 0.2


def event_table(
    recording: Recording, shares: Sequence[Scores], threshold: float, normal: NormalScores, names: Sequence[str]
) -> pd.DataFrame:
    """Return the alarms of a recording, merged.

    Parameters
    ----------
    recording : Recording
    shares : sequence of array (n_timestamps, n_features)
        Each channel's part of each row's score, one array per series.
    threshold : float
        Rows that score more alarm.
    normal : NormalScores
    names : sequence of str
        Of the channels.

    Returns
    -------
    DataFrame
        As :meth:`diffad.SeriesDetector.events` returns it.
    """
    index, several, rows = recording.index, len(recording.rows) > 1, []
    for number, (places, share) in enumerate(zip(recording.rows, shares, strict=True)):
        score = share.sum(1)
        for start, stop in merge(score > threshold):
            peak = start + int(score[start:stop].argmax())
            event = {
                "start": index[places[start]],
                "end": index[places[stop - 1]],
                "peak": index[places[peak]],
                "severity": score[peak] / threshold if threshold else np.inf,
                "p_value": float(normal.p_values(score[[peak]])[0]),
                "channels": _to_blame(share[start:stop].sum(0), names),
            }
            rows.append(({"series": number} if several else {}) | event)
    if rows:
        return pd.DataFrame(rows)
    nothing = dict.fromkeys(("start", "end", "peak"), index[:0])
    numbers = {name: np.empty(0) for name in ("severity", "p_value")}
    first = {"series": np.empty(0, np.int64)} if several else {}
    return pd.DataFrame(first | nothing | numbers | {"channels": np.empty(0, object)})


def _to_blame(blame: Scores, names: Sequence[str]) -> list[str]:
    """Return the channels with a large part in an event, the largest first; the largest at least."""
    order = np.argsort(-blame)
    return [names[k] for k in order if blame[k] > GUILTY * blame.sum()] or [names[order[0]]]
