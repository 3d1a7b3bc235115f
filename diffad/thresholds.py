"""From scores to alarms: p-values, thresholds that hold a promised rate, events.

Here a *score* is larger = stranger; the estimators turn its sign at their public face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from diffad.base.arguments import check_share, is_number
from diffad.base.masked_arrays import unmasked
from diffad.base.parameters import Parameters
from diffad.base.telling import tell

Scores = NDArray[np.float64]

#: Alarms at most this many rows apart are one event.
MERGE = 16
#: Share of the rows that a tail is fitted to, and of rows that fewer than `TAIL_EVENTS` independent events hold at most.
TAIL_SHARE, TAIL_MOST, TAIL_EVENTS = 0.05, 0.3, 15
#: The fewest exceedances that carry a generalised Pareto tail.
TAIL_LEAST = 50
#: Independent events above a threshold that need no tail, and at how many larger rates they are counted.
TAIL_ROWS, RATES = 10, 12
#: Standard deviation of the tail's shape before any exceedance is seen.
SHAPE_SPREAD = 0.2
#: Exceedances whose laws are worked out at once; bounds memory.
AT_ONCE = 2000
#: What a law loses under which an exceedance is impossible.
IMPOSSIBLE = 1e300
#: Rows above the level at which the rarest events are counted.
EVENTS_LEAST = 50
#: Most normal rows that events may take up: an alarm that hardly ends tells nothing.
EVENTS_SHARE = 0.1
#: What rounding may add to an adjusted p-value, as a part of it.
ROUNDING = 1e-12
#: Rounds of leaving out the strangest where `contamination` says that there are faults among the training data.
TRIMMING = 2


@dataclass(frozen=True)
class NormalScores:
    """Scores of normal rows by models that had not seen them, in time order.

    Attributes
    ----------
    scores : array (n,)
    breaks : array of int
        Positions in `scores` at which a new contiguous block starts.
    """

    scores: Scores
    breaks: NDArray[np.int64]

    @classmethod
    def of_blocks(cls, blocks: list[Scores]) -> NormalScores:
        """Join the scores of contiguous blocks of rows."""
        return cls(np.concatenate(blocks), np.cumsum([len(b) for b in blocks])[:-1])

    @classmethod
    def of_rows(cls, scores: Scores, rows: list[NDArray[np.int64]]) -> NormalScores:
        """Take the scores of some rows of several blocks, by their numbers: no event goes on through a long outage."""
        starts = [np.r_[True, np.diff(numbers) > MERGE] for numbers in rows if len(numbers)]
        return cls(scores, np.flatnonzero(np.concatenate(starts))[1:])

    def p_values(self, scores: Scores) -> Scores:
        """Return conformal p-values ``(1 + #{normal >= score}) / (n + 1)``.

        They are valid in finite samples where new normal rows are exchangeable with these
        (Vovk et al. 2005; Bates et al. 2023); neighbouring rows share windows, so errors come in
        runs.
        """
        ordered = np.sort(self.scores)
        larger = len(ordered) - np.searchsorted(ordered, scores, side="left")
        return (1.0 + larger) / (len(ordered) + 1)

    def quantile(self, rate: float, doubt: bool = True) -> float:
        """Return the score that a share `rate` of normal rows exceeds.

        Rates that hardly any event has shown are reached by the tail: a generalised Pareto law (peaks over threshold;
        Siffer et al. 2017) where at least `TAIL_LEAST` exceedances carry it, else an exponential one.  What a few events
        tell of it is uncertain, and a threshold allows for it (Aitchison and Dunsmore 1975, "Statistical prediction
        analysis"): what counts is the next exceedance, over all laws that the others leave likely; of exponential ones
        it is Lomax distributed.  Exceedances that come in runs count as fewer: a hundred rows of one event say no more
        of the next than a single one.  Without `doubt`, rows are counted instead, and few of them give at most the
        largest score: to compare stretches.
        """
        n = len(self.scores)
        seen = float(np.quantile(self.scores, 1 - rate, method="higher"))
        if rate >= TAIL_SHARE or (rate * n >= TAIL_ROWS and not (doubt and self._few_events(rate))):
            return seen
        start = self._start() if doubt else self._level(TAIL_SHARE)
        over = self.scores[self.scores > start] - start
        if len(over) >= TAIL_LEAST:
            part = rate * n / len(over)
            beyond = _predicted(over, part, self._independent(start)) if doubt else _likeliest(over, part)
            # A tail that does not fit must not undo what the rows show of less rare scores.
            return max(start + beyond, float(np.quantile(self.scores, 1 - max(rate, TAIL_ROWS / n), method="higher")))
        if not len(over) or not doubt:
            return seen
        part = min(1.0, rate * (n + 1) / (len(over) + 1))
        events = self._independent(start)
        return max(seen, start + float(stats.lomax.isf(part, events, scale=events * over.mean())))

    def _few_events(self, rate: float) -> bool:
        """Return whether too few independent events show a rate: of it, or of a larger one, which shows no fewer."""
        larger = np.geomspace(TAIL_SHARE, TAIL_ROWS / len(self.scores), RATES)
        levels = np.quantile(self.scores, 1 - np.append(larger[larger > rate], rate), method="higher")
        return any(self._independent(level) < TAIL_ROWS for level in np.unique(levels))

    def _start(self) -> float:
        """Return where the tail starts: the highest level, of some, that enough independent events exceed."""
        for share in np.geomspace(TAIL_SHARE, TAIL_MOST, 6):
            level = self._level(share)
            if self._independent(level) >= TAIL_EVENTS:
                break
        return level

    def _level(self, share: float) -> float:
        # A row's score: exceedances of a point between two rows would not be of the tail's law.
        return float(np.quantile(self.scores, 1 - share, method="lower"))

    def event_quantile(self, rate: float, compared: bool = False) -> float:
        """Return the score that merged events exceed `rate` times a row.

        Events are counted on the normal rows down to the level that `EVENTS_LEAST` of them exceed, or `TAIL_SHARE` of
        few; rarer ones are extrapolated with as many rows per event as there (the extremal index; Coles 2001, section
        5.2).  Where events last so long that `EVENTS_SHARE` of the rows show fewer
        than asked, the score that this share exceeds is returned, with a warning.  To compare stretches, `compared`, there
        is neither that nor doubt in a tail.
        """
        n = len(self.scores)
        most = EVENTS_SHARE if EVENTS_SHARE * n > EVENTS_LEAST else 0.5
        least = min(most, EVENTS_LEAST / n, TAIL_SHARE)
        levels = np.unique(np.quantile(self.scores, 1 - np.geomspace(most, least, 60)))
        counts = np.array([self._events(level) for level in levels])
        if rate * n < counts[-1] or counts[-1] == 0:
            rows = int((self.scores > levels[-1]).sum())
            each = rows / self._independent(levels[-1]) if rows else 1.0
            return self.quantile(min(most, rate * each), doubt=not compared)
        enough = np.flatnonzero(counts >= rate * n)
        if len(enough):
            return float(levels[enough[-1]])
        if not compared:
            tell(
                f"{rate * n:.0f} events are asked for in {n} normal rows, but they last too long for that: alarms on "
                f"{(self.scores > levels[0]).mean():.0%} of the rows merge into {counts[0]}; that is the threshold",
            )
        return float(levels[0])

    def _independent(self, level: float) -> float:
        """Return how many independent events the rows above a level, at least one, are worth.

        Their number times the extremal index, by the times between them (Ferro and Segers 2003, "Inference for
        clusters of extreme values", equation 9); where these say nothing, the number of runs of them. No event goes on in
        another block.
        """
        rows = [np.flatnonzero(block) for block in np.split(self.scores > level, self.breaks)]
        n = sum(map(len, rows))
        between = np.concatenate([np.diff(block) for block in rows]).astype(float)
        if not len(between) or between.max() <= 2:
            return float((between > 1).sum() + sum(len(block) > 0 for block in rows))
        index = 2 * (between - 1).mean() ** 2 / ((between - 1) * (between - 2)).mean()
        return float(np.clip(index * n, sum(len(block) > 0 for block in rows), n))

    def _events(self, level: float) -> int:
        return sum(len(merge(a)) for a in np.split(self.scores > level, self.breaks))


def _likeliest(over: Scores, part: float) -> float:
    """Return what a share `part` passes under the generalised Pareto law most probable given exceedances (n,).

    Dozens of exceedances hardly tell a heavy tail from a light one, and a threshold far beyond them depends on it:
    the shape has a prior (Martins and Stedinger 2000), normal around the exponential tail that scores, being
    logarithms of probabilities, would have.
    """

    def loss(place: Scores) -> float:
        shape, scale = place[0], np.exp(place[1])
        found = -stats.genpareto.logpdf(over, shape, scale=scale).sum() + (shape / SHAPE_SPREAD) ** 2 / 2
        # Infinite where an exceedance is impossible: differences of losses must stay numbers.
        return min(float(found), IMPOSSIBLE)

    # From a tail without an end: none of the exceedances is impossible.
    shape, scale = optimize.minimize(loss, [0.05, np.log(over.mean())], method="Nelder-Mead").x
    # A heavier tail than this has no variance: a few faults in the data, not the process.
    return float(stats.genpareto.isf(part, np.clip(shape, -0.5, 0.5), scale=np.exp(scale)))


def _predicted(over: Scores, part: float, events: float) -> float:
    """Return what a share `part` of further exceedances passes, given exceedances (n,) worth so many independent ones.

    The generalised Pareto laws are those of `_likeliest`, on a grid, each as likely as the exceedances and the prior say.
    """
    shape = np.linspace(-0.5, 0.5, 22)[:, None]  # none is 0, where the law has a form of its own
    scale = np.exp(np.log(over.mean()) + np.linspace(-1, 1, 41))
    grown = np.zeros((shape.size, scale.size))
    with np.errstate(divide="ignore", invalid="ignore"):
        for part_of in np.array_split(over, len(over) // AT_ONCE + 1):
            grown += np.log(1 + shape[..., None] * (part_of / scale[:, None])).sum(2)
    likely = -(np.log(scale) + (1 / shape + 1) * grown / len(over))  # NaN where an exceedance is impossible
    likely = np.where(np.isnan(likely), -np.inf, events * likely) - (shape / SHAPE_SPREAD) ** 2 / 2
    weight = np.exp(likely - likely.max())
    weight /= weight.sum()

    def beyond(excess: float) -> float:
        return float((weight * (1 + shape * excess / scale).clip(0) ** (-1 / shape)).sum() - part)

    most = float(over.max())
    while beyond(most) > 0:
        most *= 2
    return float(optimize.brentq(beyond, 0.0, most))


def merge(alarm: NDArray[np.bool_], gap: int = MERGE) -> list[tuple[int, int]]:
    """Return (first row, row after the last) of runs of alarms at most `gap` rows apart.

    Examples
    --------
    >>> merge(np.array([True, False, True, False, False, True]), gap=2)
    [(0, 3), (5, 6)]
    """
    rows = np.flatnonzero(alarm)
    if not len(rows):
        return []
    cuts = np.flatnonzero(np.diff(rows) > gap) + 1
    return [(int(r[0]), int(r[-1]) + 1) for r in np.split(rows, cuts)]


@dataclass(frozen=True)
class FalseAlarmRate(Parameters):
    """Alarm on a share `rate` of normal rows.

    Parameters
    ----------
    rate : float in (0, 1), default=0.01

    Examples
    --------
    >>> import numpy as np
    >>> normal = NormalScores.of_blocks([np.arange(1000.0)])
    >>> float(FalseAlarmRate(0.05).find(normal, None))
    950.0
    """

    rate: float = 0.01

    def __post_init__(self) -> None:
        check_share(self.rate, "rate")

    def find(self, normal: NormalScores, period: float | None, compared: bool = False) -> float:
        """Return the threshold on the score.

        Parameters
        ----------
        normal : NormalScores
        period : float or None
            Seconds between rows; not needed.
        compared : bool, default=False
            As in `AlarmsPerDay.find`.
        """
        return normal.quantile(self.rate, doubt=not compared)


@dataclass(frozen=True)
class AlarmsPerDay(Parameters):
    """Raise `number` false events a day on normal data.

    Alarms at most `MERGE` rows apart count as one event, as `events` reports them. At most a tenth of the normal
    rows alarm (half where there are 500 or fewer), with a warning where events last too long to come as often.

    Parameters
    ----------
    number : float, default=1.0
    rows_per_day : float or None, default=None
        None takes the frequency of the DatetimeIndex that the detector was fitted on.

    Examples
    --------
    >>> import numpy as np
    >>> spikes = np.zeros(5000)
    >>> spikes[::100] = 1 + np.arange(50)
    >>> threshold = AlarmsPerDay(2, rows_per_day=1000).find(NormalScores.of_blocks([spikes]), None)
    >>> 8 <= int((spikes > threshold).sum()) <= 10  # of five days
    True
    """

    number: float = 1.0
    rows_per_day: float | None = None

    def __post_init__(self) -> None:
        for name in ("number", "rows_per_day"):
            value = getattr(self, name)
            if value is None and name == "rows_per_day":
                continue
            if not is_number(value) or not 0 < float(value) < np.inf:
                raise ValueError(f"{name} must be a positive number, got {value!r}")

    def find(self, normal: NormalScores, period: float | None, compared: bool = False) -> float:
        """Return the threshold on the score.

        Parameters
        ----------
        normal : NormalScores
        period : float or None
            Seconds between rows.
        compared : bool, default=False
            To compare stretches: without warnings, and without allowing for how little a few rows tell.

        Raises
        ------
        ValueError
            Where neither `period` nor `rows_per_day` tells how often rows come.
        """
        if self.rows_per_day is None and period is None:
            raise ValueError(
                "AlarmsPerDay needs to know how often rows come: give X a DatetimeIndex, or say "
                "AlarmsPerDay(number, rows_per_day=...)"
            )
        per_day = self.rows_per_day or 86400 / float(period or 1)
        return normal.event_quantile(self.number / per_day, compared)


Threshold = FalseAlarmRate | AlarmsPerDay


def benjamini_hochberg(p_values: ArrayLike, rate: float = 0.1) -> NDArray[np.bool_]:
    """Return which rows to report so that at most a share `rate` of the reported are false.

    Parameters
    ----------
    p_values : array-like of shape (n,)
    rate : float in (0, 1), default=0.1
        False discovery rate (Benjamini and Hochberg 1995).

    Returns
    -------
    array of shape (n,), bool

    Examples
    --------
    >>> benjamini_hochberg([0.001, 0.8, 0.02, 0.5], rate=0.1)
    array([ True, False,  True, False])
    """
    check_share(rate, "rate")
    p = np.asarray(unmasked(p_values), dtype=float)
    if p.ndim != 1:
        raise ValueError(f"p_values must be one list of p-values, got an array of shape {p.shape}; give p.ravel()")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p_values must lie between 0 and 1, got {p[~((p >= 0) & (p <= 1))][0]}")
    # Conformal p-values are whole parts of n + 1, and often lie on the bound but for rounding.
    return np.asarray(stats.false_discovery_control(p) <= rate * (1 + ROUNDING))
