"""From flows to explained alerts: a model of normal traffic, what is strange about a flow, and incidents.

Data flow one way: flow table -> features -> detector -> alerts (with reasons) -> incidents.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffad.detection import Explanation
from diffad.flows.features import FlowFeatures, FlowStream, filled
from diffad.flows.thinning import Thinned
from diffad.tabular_detector import TabularDetector
from diffad.telling import tell
from diffad.thresholds import FalseAlarmRate

#: Share of the flows, the last, that are not fitted on but set the threshold: traffic of another hour.
HELD_OUT = 0.25
#: Fewest flows to learn from, and most of which features are held in memory.
FEWEST, MOST = 200, 400_000
#: Reasons named with an alert, and the share of the score below which a feature is none.
REASONS, LEAST_SHARE = 3, 0.1
#: Share of alerts among flows from which on the log itself is in doubt.
MOST_ALERTS = 0.5
#: Seconds without an alert of a source after which its next one is another incident.
QUIET = 600.0
#: Share of the flows at either end of a log that may have a wrong clock.
TAIL = 0.005
DAY = 86_400.0


@dataclass
class Watch:
    """Features of a log that comes in chunks and whose past is unknown.

    Windows that reach back beyond the beginning of the log are missing: what nobody has seen is no
    evidence, neither of quiet nor of noise.
    """

    stream: FlowStream
    begin: pd.Timestamp | None = None

    def update(self, flows: pd.DataFrame) -> pd.DataFrame:
        """Return the features of the next flows."""
        return self.without_past(self.stream.update(flows), flows)

    def without_past(self, table: pd.DataFrame, flows: pd.DataFrame) -> pd.DataFrame:
        """Blank the features of the next flows that reach back beyond the beginning."""
        if not len(flows):
            return table
        # A connection may have begun long before the log that tells of its end.
        ends = (flows["start"] + pd.to_timedelta(flows["duration"].fillna(0.0), unit="s")).cummin()
        begin = ends if self.begin is None else ends.clip(upper=self.begin)
        self.begin = begin.iloc[-1]
        age = (flows["start"] - begin).dt.total_seconds()
        windows = {name: re.fullmatch(r".*_(\d+(?:\.\d+)?)s", name) for name in table}
        return table.assign(**{n: table[n].where(age >= float(m[1])) for n, m in windows.items() if m})


@dataclass(frozen=True)
class FlowModel:
    """What normal traffic looks like: features, a detector, and how much traffic a day brings.

    Examples
    --------
    >>> from diffad.flows import load_flows
    >>> from diffad.flows.alerts import FlowModel
    >>> model = FlowModel.fit(load_flows("conn.log"))  # doctest: +SKIP
    >>> model.save("traffic.model")  # doctest: +SKIP
    """

    features: FlowFeatures
    detector: TabularDetector
    flows_per_day: float
    n_flows: int

    @classmethod
    def fit(cls, flows: pd.DataFrame | Iterable[pd.DataFrame], contamination: float = 0.0) -> Self:
        """Learn from flows in the order of their log; the last quarter sets the threshold.

        Parameters
        ----------
        flows : DataFrame or iterable of DataFrames
            As of `diffad.flows.load_flows`, or the chunks of `diffad.flows.read_flows`: a log may be larger than
            memory. At least 200 flows; of more than 400,000, about every second, every fourth and so on is learnt from.
        contamination : float, default=0.0
            Share of the flows that may be attacks.
        """
        features, table, n_flows = _features_of_all([flows] if isinstance(flows, pd.DataFrame) else flows)
        if n_flows < FEWEST:
            raise ValueError(f"flows holds {n_flows} flows; a model of normal traffic takes at least {FEWEST}")
        start, table = table["start"], table[features.columns_]
        cut = int((1 - HELD_OUT) * len(table))
        usable = table.iloc[:cut].notna().any()
        if not usable.all():
            lost = list(usable.index[~usable])
            tell(
                f"the first {cut} flows say nothing of {lost}, which the model leaves out: windows that reach back "
                "beyond the beginning of a log are unknown; fit longer logs",
            )
            features.columns_ = list(usable.index[usable])
            table = table[features.columns_]
        detector = TabularDetector(contamination=contamination).fit(table.iloc[:cut])
        detector.recalibrate(table.iloc[cut:])
        # Some flows with a wrong clock must not stretch the log.
        first, last = start.quantile([TAIL, 1 - TAIL])
        seconds = (last - first).total_seconds()
        return cls(features, detector, (1 - 2 * TAIL) * n_flows * DAY / max(seconds, 1.0), n_flows)

    def watch(self) -> Watch:
        """Return what goes through a log with `alerts`; it can be pickled between chunks."""
        return Watch(self.features.stream())

    def threshold(self, alerts_per_day: float) -> float:
        """Return the strangeness that normal traffic passes so many times a day."""
        if not 0 < alerts_per_day < self.flows_per_day:
            raise ValueError(
                f"alerts_per_day must lie between 0 and the {self.flows_per_day:.0f} flows of a day, "
                f"got {alerts_per_day!r}"
            )
        return FalseAlarmRate(alerts_per_day / self.flows_per_day).find(self.detector.normal_, None)

    def alerts(self, flows: pd.DataFrame, watch: Watch, threshold: float) -> pd.DataFrame:
        """Return the flows stranger than the threshold, with scores and reasons.

        Parameters
        ----------
        flows : DataFrame
            The next flows of a log.
        watch : Watch
            Of `watch()`: what its sources did before.
        threshold : float

        Returns
        -------
        DataFrame
            The columns of the flows, ``score``, ``p_value`` and ``reasons`` (list of dict with ``feature``,
            ``value``, ``expected``, ``lower``, ``upper`` and ``text``).
        """
        table = watch.update(flows)
        score = -self.detector.score_samples(table) if len(table) else np.zeros(0)
        strange = np.flatnonzero(score > threshold)
        if len(strange) > MOST_ALERTS * len(flows) and len(flows) >= FEWEST:
            tell(
                f"{len(strange)} of {len(flows)} flows are alerts: is this log of the same kind and sensor as the normal "
                "one? States, services and byte counts differ between formats; fit on a log of this one",
            )
        found = flows.iloc[strange].copy()
        found["score"] = score[strange]
        found["p_value"] = self.detector.normal_.p_values(score[strange])
        found["reasons"] = _reasons(table.iloc[strange], self.detector) if len(strange) else []
        return found

    def save(self, path: str | Path) -> None:
        """Write the model; never half of it."""
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        joblib.dump(self, partial)
        partial.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model that `save` wrote. Like every pickle it may run code: load what you trust."""
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no model {path}; make one with: diffad flows fit LOG -o {path}")
        try:
            model = joblib.load(path)
        except Exception as error:
            raise ValueError(f"{path} is no model of diffad flows, or broken: {error}") from error
        if not isinstance(model, cls):
            raise ValueError(f"{path} holds a {type(model).__name__}, no model of diffad flows")
        return model


def _features_of_all(chunks: Iterable[pd.DataFrame]) -> tuple[FlowFeatures, pd.DataFrame, int]:
    """Return fitted features, those of evenly spread flows beside their ``start``, and how many flows there were."""
    features, thinned = FlowFeatures(), Thinned(MOST)
    watch = Watch(features.whole_stream())
    known: pd.Series | bool = False
    for flows in chunks:
        table = watch.stream.update(flows)
        known = table.notna().any() | known
        thinned.add(watch.without_past(table, flows).assign(start=flows["start"]))
    if not thinned.seen:
        return features, pd.DataFrame(), 0
    assert isinstance(known, pd.Series)
    features.columns_ = list(known.index[known])
    return features, filled(thinned.table()[["start", *features.columns_]]), thinned.seen


def _reasons(table: pd.DataFrame, detector: TabularDetector) -> list[list[dict[str, Any]]]:
    explanation = detector.explain(table)
    lower, upper = explanation.lower, explanation.upper
    result = []
    for row in range(len(table)):
        share = explanation.share.iloc[row]
        # A category that is as expected, or a number within its band, is no reason an analyst could follow.
        plain = _objects(explanation.expected.iloc[row]) == _objects(table.iloc[row])
        plain |= [_within(*bounds) for bounds in zip(table.iloc[row], lower.iloc[row], upper.iloc[row], strict=True)]
        top = (share if plain.all() else share[~plain]).sort_values(ascending=False).head(REASONS)
        named = [str(name) for name in top.index if top[name] >= LEAST_SHARE * share.sum()] or [str(top.index[0])]
        result.append([_reason(name, table.iloc[row][name], explanation, row) for name in named])
    return result


def _within(value: Any, lower: float, upper: float) -> bool:
    return not isinstance(value, str) and not pd.isna(value) and bool(lower <= value <= upper)


def _objects(row: pd.Series) -> NDArray[np.object_]:
    """Return the values of a row, None where they are missing: pandas' NA is not even equal to itself."""
    return row.astype(object).where(row.notna(), None).to_numpy()


def _reason(name: str, value: Any, explanation: Explanation, row: int) -> dict[str, Any]:
    """Say what a feature showed and what it should have, in the units of the log."""
    values = [value, *(getattr(explanation, part)[name].iloc[row] for part in ("expected", "lower", "upper"))]
    plain = name.removeprefix("log_")
    if not isinstance(value, str):
        # Every number of a flow is at least 0; a band around it need not know.
        values = [v if pd.isna(v) or isinstance(v, str) else max(float(v), 0.0) for v in values]
    if name.startswith("log_"):
        values = [v if pd.isna(v) else float(np.expm1(v)) for v in values]
    values = [None if pd.isna(v) else v for v in values]
    shown = [_shown(plain, v) for v in values]
    label = plain.removesuffix("_ms").replace("_", " ")
    normal = f"normal {shown[1]}" if values[2] is None else f"normal {shown[2]} to {shown[3]}"
    keys = ("value", "expected", "lower", "upper")
    return {"feature": plain, **dict(zip(keys, values, strict=True)), "text": f"{label} {shown[0]}, {normal}"}


def _shown(name: str, value: Any) -> str:
    """Write a value with its unit."""
    if value is None:
        return "missing"
    if isinstance(value, str):
        return value
    if name.endswith("_ms"):
        return f"{value / 1000:.3g} s"
    if name.startswith("bytes"):
        for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
            if value >= size:
                return f"{value / size:.3g} {unit}"
        return f"{value:.3g} B"
    return f"{value:.3g}"


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
        ones), ``score`` (the highest), ``p_value`` (the lowest) and ``why`` (of the strangest alert).
    """
    columns = ["incident", "source", "start", "end", "alerts", "destinations", "ports", "score", "p_value", "why"]
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
            group["p_value"].min(),
            why(group.loc[group["score"].idxmax(), "reasons"]),
        )
        for name, group in alerts.reset_index(drop=True).groupby("incident", sort=False)
    ]
    return pd.DataFrame(rows, columns=columns).sort_values("score", ascending=False, ignore_index=True)


def why(reasons: list[dict[str, Any]]) -> str:
    """Return the reasons of an alert as one sentence."""
    return "; ".join(reason["text"] for reason in reasons)


def ecs_lines(alerts: pd.DataFrame) -> list[str]:
    """Return alerts as JSON lines with the field names of the Elastic Common Schema (ECS 8)."""
    return [json.dumps(_pruned(_ecs(alert)), allow_nan=False) for alert in alerts.to_dict("records")]


def _ecs(alert: dict[str, Any]) -> dict[str, Any]:
    ends = {
        end: {
            "address": alert[end],
            "ip": _ip(alert[end]),
            "port": alert[f"{end}_port"],
            "bytes": _count(alert[f"bytes_{way}"]),
            "packets": _count(alert[f"packets_{way}"]),
        }
        for end, way in (("source", "out"), ("destination", "in"))
    }
    return {
        "@timestamp": alert["start"].isoformat(),
        "ecs": {"version": "8.11.0"},
        "event": {
            "kind": "alert",
            "category": ["network"],
            "duration": None if pd.isna(alert["duration"]) else round(alert["duration"] * 1e9),
            "risk_score": alert["score"],
            "reason": why(alert["reasons"]),
        },
        **ends,
        "network": {"transport": alert["protocol"], "protocol": alert["service"]},
        "diffad": {
            "incident": alert["incident"],
            "p_value": alert["p_value"],
            "state": alert["state"],
            "reasons": [_typed(reason) for reason in alert["reasons"]],
        },
    }


def _count(number: float) -> int | None:
    return None if pd.isna(number) else int(number)


def _typed(reason: dict[str, Any]) -> dict[str, Any]:
    """Keep numbers and text under different names: a database refuses a field that is now this, now that."""
    kinds = {key: value for key, value in reason.items() if key in ("value", "expected")}
    return reason | dict.fromkeys(kinds) | {f"{k}_text" if isinstance(v, str) else k: v for k, v in kinds.items()}


def _ip(address: Any) -> str | None:
    """Return the address if it is one: a database that knows ECS refuses pseudonyms as `ip`."""
    try:
        return str(ip_address(address)).partition("%")[0]  # a zone is no part of the address
    except ValueError:
        return None


def _pruned(value: Any) -> Any:
    """Leave out what is missing; turn NumPy's numbers into Python's."""
    if isinstance(value, dict):
        kept = {k: _pruned(v) for k, v in value.items()}
        return {k: v for k, v in kept.items() if v is not None}
    if isinstance(value, list):
        return [_pruned(v) for v in value]
    if value is None or pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
