"""From flows to explained alerts: a model of normal traffic, and what is strange about a flow or about its source.

Data flow one way: flow table -> features -> detector -> strangeness of flows -> of those who made them -> alerts with
reasons.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffad.base.arguments import is_number
from diffad.base.telling import tell
from diffad.base.whole_files import replacing
from diffad.flows.features import FlowFeatures, FlowStream, filled
from diffad.flows.persistence import MOST as MOST_NATS
from diffad.flows.persistence import Persistence
from diffad.flows.ranges import Ranges
from diffad.flows.reasons import reasons_of
from diffad.flows.thinning import Latest, Thinned
from diffad.tabular_detector import TabularDetector
from diffad.thresholds import NormalScores

#: Share of the flows, the last, that are not fitted on but set the threshold: traffic of another hour.
HELD_OUT = 0.25
#: Fewest flows to learn from, most of which features are held in memory, and those kept of the last, all in a row.
FEWEST, MOST, LATEST = 200, 400_000, 100_000
#: Whose latest flows are looked at together, in the words of a reason.
WHOSE = {"source": "this source's latest flows", "pair": "this source's latest flows to this destination"}
#: Share of alerts among flows from which on the log itself is in doubt.
MOST_ALERTS = 0.5
#: Least strangeness from which on there is an alert, in nats: where all normal flows are alike, or none has a source.
LEAST_LIMIT = 0.1
#: Flows of a source, or of a pair, after which their mean varies as it will.
OFTEN = 10
#: Share of the flows at either end of a log that may have a wrong clock.
TAIL = 0.005
DAY = 86_400.0


@dataclass(frozen=True)
class Limits:
    """Strangeness from which on there is an alert: of a flow by itself, of its source's latest, of its pair's latest."""

    flow: float
    source: float
    pair: float


@dataclass
class Watch:
    """Features of a log that comes in chunks and whose past is unknown.

    Windows that reach back beyond the beginning of the log are missing: what nobody has seen is no
    evidence, neither of quiet nor of noise.
    """

    stream: FlowStream
    lasting: dict[str, Persistence]
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

    A flow alarms by itself, or because the latest flows of its source, or of its source to its destination, are
    strange on the whole: each may use up a third of the alerts asked for.

    Examples
    --------
    >>> from diffad.flows import load_flows
    >>> from diffad.flows.alerts import FlowModel
    >>> model = FlowModel.fit(load_flows("conn.log"))  # doctest: +SKIP
    >>> model.save("traffic.model")  # doctest: +SKIP
    """

    features: FlowFeatures
    detector: TabularDetector
    ranges: Ranges
    usual: float
    lasting: dict[str, NormalScores]
    flows_per_day: float
    n_flows: int

    @classmethod
    def fit(
        cls,
        flows: pd.DataFrame | Iterable[pd.DataFrame],
        contamination: float = 0.0,
        inside: Sequence[str] | None = None,
    ) -> Self:
        """Learn from flows in the order of their log; the last quarter sets the threshold.

        Where most pairs of hosts are seen fewer than ten times, more alerts come of their latest flows than are asked
        for: how means of many flows spread is then not known. Fit longer logs.

        Parameters
        ----------
        flows : DataFrame or iterable of DataFrames
            As of `diffad.flows.load_flows`, or the chunks of `diffad.flows.read_flows`: a log may be larger than
            memory. At least 200 flows; of more than 400,000, about every second, every fourth and so on is learnt from.
        contamination : float, default=0.0
            Share of the flows that may be attacks. Say no more than there are: rare normal flows go with them, and
            then set a threshold that attacks do not reach.
        inside : sequence of str, default=None
            Networks of one's own, as of `FlowFeatures`; None takes the private ones.
        """
        seen = _seen([flows] if isinstance(flows, pd.DataFrame) else flows, FlowFeatures(inside=inside))
        if seen.n_flows < FEWEST:
            raise ValueError(f"flows holds {seen.n_flows} flows; a model of normal traffic takes at least {FEWEST}")
        features, table = seen.features, seen.spread[seen.features.columns_]
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
        # What happens in a row can be seen in flows in a row only, of which none is left out.
        latest = seen.latest
        normal = -detector.score_samples(latest[features.columns_])
        usual = float(np.minimum(normal, MOST_NATS).mean())
        lasting = {who: _normal_means(latest[who], normal, usual, cut / len(table)) for who in WHOSE}
        # Some flows with a wrong clock must not stretch the log.
        first, last = seen.spread["start"].quantile([TAIL, 1 - TAIL])
        per_day = (1 - 2 * TAIL) * seen.n_flows * DAY / max((last - first).total_seconds(), 1.0)
        return cls(features, detector, Ranges.fit(table, contamination), usual, lasting, per_day, seen.n_flows)

    @property
    def digest(self) -> str:
        """Return a name for what was learnt: the scores of normal flows, which no two models share."""
        scores = [self.detector.normal_.scores, *(self.lasting[who].scores for who in WHOSE)]
        parts = [repr(self.features.get_params()).encode(), *(np.ascontiguousarray(part).tobytes() for part in scores)]
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def watch(self) -> Watch:
        """Return what goes through a log with `alerts`; it can be pickled between chunks."""
        return Watch(self.features.stream(), {who: Persistence(self.usual) for who in WHOSE})

    def limits(self, alerts_per_day: float) -> Limits:
        """Return the strangeness that normal traffic passes so many times a day.

        A day is taken to bring flows at the mean rate of the log fitted on: one of working hours alone promises more
        flows, and so fewer of the alerts asked for come.

        Parameters
        ----------
        alerts_per_day : float
            More than 0, and fewer than the flows of a day.

        Returns
        -------
        Limits
            Of a flow, its source and its pair.
        """
        if not is_number(alerts_per_day) or not 0 < alerts_per_day < self.flows_per_day:
            raise ValueError(
                f"alerts_per_day must lie between 0 and the {self.flows_per_day:.0f} flows of a day, "
                f"got {alerts_per_day!r}"
            )
        rate = alerts_per_day / self.flows_per_day / (1 + len(WHOSE))
        normal = {"flow": self.detector.normal_, **self.lasting}
        return Limits(**{what: max(scores.quantile(rate), LEAST_LIMIT) for what, scores in normal.items()})

    def alerts(self, flows: pd.DataFrame, watch: Watch, limits: Limits) -> pd.DataFrame:
        """Return the flows that are stranger than the limits, or those who made them, with scores and reasons.

        Parameters
        ----------
        flows : DataFrame
            The next flows of a log.
        watch : Watch
            Of `watch()`: what its sources did before.
        limits : Limits
            As of `limits()`.

        Returns
        -------
        DataFrame
            The columns of the flows, ``score`` (larger = stranger), ``severity`` (how many times the limit is reached,
            by the flow, its source or its pair), ``p_value`` and ``reasons`` (list of dict with ``feature``, ``value``,
            ``expected``, ``lower``, ``upper`` and ``text``).
        """
        table = watch.update(flows)
        score = -self.detector.score_samples(table) if len(table) else np.zeros(0)
        whose = _whose(flows)
        lasting = pd.DataFrame({who: watch.lasting[who].update(whose[who], score) for who in WHOSE})
        upper = pd.Series({who: getattr(limits, who) for who in WHOSE})
        strange = np.flatnonzero((score > limits.flow) | (lasting > upper).any(axis=1))
        if len(strange) > MOST_ALERTS * len(flows) and len(flows) >= FEWEST:
            tell(
                f"{len(strange)} of {len(flows)} flows are alerts: is this log of the same kind and sensor as the normal "
                "one? States, services and byte counts differ between formats; fit on a log of this one",
            )
        found = flows.iloc[strange].copy()
        score, lasting = score[strange], lasting.iloc[strange]
        found["score"] = score
        found["severity"] = np.maximum(score / limits.flow, (lasting / upper).max(axis=1).to_numpy())
        # Of several looks at a flow the best one is told.
        looks = [
            self.detector.normal_.p_values(score),
            *(self.lasting[w].p_values(lasting[w].to_numpy()) for w in WHOSE),
        ]
        found["p_value"] = np.minimum(1.0, len(looks) * np.min(looks, axis=0))
        reasons = reasons_of(table.iloc[strange], self.detector, self.ranges) if len(strange) else []
        for own, (_, means) in zip(reasons, lasting.iterrows(), strict=True):
            worst = (means / upper).idxmax()
            if means[worst] > upper[worst]:
                own.insert(0, self._lasting(worst, means[worst], upper[worst]))
        found["reasons"] = reasons
        return found

    def _lasting(self, who: str, mean: float, upper: float) -> dict[str, Any]:
        # A mean just above what is normal is written with as many digits as tell it from that.
        digits = next((d for d in range(3, 17) if f"{mean:.{d}g}" != f"{upper:.{d}g}"), 17)
        return {
            "feature": f"{who}_strangeness",
            "value": float(mean),
            "expected": self.usual,
            "lower": 0.0,
            "upper": float(upper),
            "text": f"strangeness of {WHOSE[who]} {mean:.{digits}g}, normal below {upper:.{digits}g}",
        }

    def save(self, path: str | Path) -> None:
        """Write the model; never half of it.

        Parameters
        ----------
        path : str or Path
        """
        with replacing(path) as draft:
            joblib.dump(self, draft)

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
        if vars(model).keys() != cls.__dataclass_fields__.keys():
            raise ValueError(f"{path} was made by another version of diffad; fit it anew with: diffad flows fit")
        return model


def _normal_means(sources: pd.Series, strangeness: NDArray[np.float64], usual: float, lead: float) -> NormalScores:
    """Return the means (n,) of normal flows of each source, after a share `lead` of them that only leads up to the others.

    Means of few flows vary less than they will in time: those of sources that were seen often set limits, if there are
    enough.
    """
    means = Persistence(usual).update(sources, strangeness)
    later = np.arange(len(means)) >= lead * len(means)
    often = later & (sources.groupby(sources).cumcount().to_numpy() >= OFTEN) & sources.notna().to_numpy()
    return NormalScores.of_blocks([means[often if often.sum() >= FEWEST else later]])


@dataclass(frozen=True)
class _Seen:
    """What is kept of a log: fitted features, those of evenly spread and of the latest flows, how many there were.

    The tables have the columns of `WHOSE` beside the features, and ``start``.
    """

    features: FlowFeatures
    spread: pd.DataFrame
    latest: pd.DataFrame
    n_flows: int


def _seen(chunks: Iterable[pd.DataFrame], features: FlowFeatures) -> _Seen:
    thinned, latest = Thinned(MOST), Latest(LATEST)
    watch = Watch(features.whole_stream(), {})
    known: pd.Series | bool = False
    for flows in chunks:
        table = watch.stream.update(flows)
        known = table.notna().any() | known
        table = filled(watch.without_past(table, flows)).assign(start=flows["start"], **_whose(flows))
        thinned.add(table)
        latest.add(table)
    if not thinned.seen:
        return _Seen(features, pd.DataFrame(), pd.DataFrame(), 0)
    assert isinstance(known, pd.Series)
    features.columns_ = list(known.index[known])
    return _Seen(features, thinned.table(), latest.table(), thinned.seen)


def _whose(flows: pd.DataFrame) -> dict[str, pd.Series]:
    """Return who made each flow: its source, and the pair of its source and its destination."""
    return {"source": flows["source"], "pair": flows["source"].str.cat(flows["destination"], sep=" ")}
