"""Alerts of one source that belong together: a scan of 1,000 ports is one incident."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from diffad.flows.reasons import why

#: Seconds without an alert of a source after which its next one is another incident.
QUIET = 600.0


@dataclass
class Incidents:
    """Group alerts by source and time, in the order of the log: a scan of 1,000 ports is one incident.

    Attributes
    ----------
    open : dict
        Source -> (incident, time of its last alert); those quiet for `QUIET` seconds are forgotten.
    """

    open: dict[str, tuple[str, float]] = field(default_factory=dict)

    def assign(self, alerts: pd.DataFrame) -> pd.DataFrame:
        """Return the alerts with a column ``incident``."""
        names = []
        times = alerts["start"].to_numpy(dtype="datetime64[ns]").astype("int64") / 1e9
        for source, time in zip(alerts["source"].fillna("unknown"), times, strict=True):
            name, last = self.open.get(source, ("", -np.inf))
            own = f"{source}@{pd.Timestamp(time, unit='s').strftime('%Y%m%dT%H%M%S')}"
            if time < last - QUIET:
                names.append(own)  # of a wrong clock, or long ago: what goes on goes on
                continue
            name = own if time > last + QUIET else name
            self.open[source] = (name, max(time, last))
            names.append(name)
        if len(times):
            self.open = {s: (n, last) for s, (n, last) in self.open.items() if times.max() - last <= QUIET}
        return alerts.assign(incident=names)


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
