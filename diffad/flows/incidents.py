"""Alerts of one source that belong together: a scan of 1,000 ports is one incident."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import pandas as pd

from diffad.flows.reasons import why

#: Seconds without an alert of a source after which its next one is another incident.
QUIET = 600.0
#: Incidents of a source that may go on: a wrong clock, or the end of a connection that began hours ago, opens one of
#: its own and must not end the others.
AT_ONCE = 3
#: Sources remembered: those of the latest alerts.
REMEMBERED = 100_000


@dataclass
class Incidents:
    """Group alerts by source and time, in the order of the log: a scan of 1,000 ports is one incident.

    Nothing depends on how the alerts are cut into chunks.

    Attributes
    ----------
    latest : OrderedDict
        Source -> the times of the first and last alert of each of its incidents that may go on. Both the sources and
        their incidents stand in the order of their last alerts in the log.

    Examples
    --------
    >>> starts = pd.to_datetime([0, 4_000_000_000, 300, 2000], unit="s", utc=True)
    >>> Incidents().assign(pd.DataFrame({"start": starts, "source": "a"}))["incident"].tolist()
    ['a@19700101T000000', 'a@20961002T070640', 'a@19700101T000000', 'a@19700101T003320']
    """

    latest: OrderedDict[str, list[tuple[float, float]]] = field(default_factory=OrderedDict)

    def assign(self, alerts: pd.DataFrame) -> pd.DataFrame:
        """Return the alerts with a column ``incident``."""
        times = alerts["start"].to_numpy(dtype="datetime64[ns]").astype("int64") / 1e9
        each = zip(alerts["source"].fillna("unknown"), times.tolist(), strict=True)
        return alerts.assign(incident=[self._name(source, time) for source, time in each])

    def _name(self, source: str, time: float) -> str:
        """Return the incident of the next alert: its source and the time of its first alert."""
        known = self.latest.pop(source, [])
        near = (k for k, (first, last) in reversed([*enumerate(known)]) if first - QUIET <= time <= last + QUIET)
        at = next(near, None)
        first, last = (time, time) if at is None else known.pop(at)
        self.latest[source] = [*known, (first, max(last, time))][-AT_ONCE:]
        if len(self.latest) > REMEMBERED:
            self.latest.popitem(last=False)
        return f"{source}@{pd.Timestamp(first, unit='s').strftime('%Y%m%dT%H%M%S')}"


def incidents(alerts: pd.DataFrame) -> pd.DataFrame:
    """Summarise alerts that `Incidents` has grouped, the strangest incident first.

    Returns
    -------
    DataFrame
        ``incident``, ``source``, ``start``, ``end``, ``alerts``, ``destinations``, ``ports`` (numbers of different
        ones), ``score`` and ``severity`` (the highest), ``p_value`` (the lowest) and ``why`` (of the most severe alert).
    """
    columns = [
        "incident",
        "source",
        "start",
        "end",
        "alerts",
        "destinations",
        "ports",
        "score",
        "severity",
        "p_value",
        "why",
    ]
    rows = [
        (
            name,
            group["source"].iloc[0],
            group["start"].min(),
            group["start"].max(),
            len(group),
            group["destination"].nunique(),
            group["destination_port"].nunique(),
            group["score"].max(),
            group["severity"].max(),
            group["p_value"].min(),
            why(group.loc[group["severity"].idxmax(), "reasons"]),
        )
        for name, group in alerts.reset_index(drop=True).groupby("incident", sort=False)
    ]
    return pd.DataFrame(rows, columns=columns).sort_values("severity", ascending=False, ignore_index=True)
