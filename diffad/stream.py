"""Scoring row by row, live: the same numbers as the batch, in constant memory."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Number
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffad.base.masked_arrays import unmasked
from diffad.base.whole_files import replacing
from diffad.evidence.series_scorer import SeriesScorer
from diffad.files.timestamps import months_between, timestamp
from diffad.series.time_grid import same_period
from diffad.thresholds import MERGE

#: A mapping or Series of channel names to values, or the values in order.
Row: TypeAlias = Any


@dataclass(frozen=True)
class StreamResult:
    """What one row says.

    Attributes
    ----------
    score : float
        As `score_samples`: higher = more normal.
    alarm : bool
    event : int or None
        Number of the event this row belongs to; alarms close to each other are one event.
    row : int
        Number of the row, rows that were missing from the clock included.
    shares : dict of str to float
        Part of ``-score`` that each channel is to blame for.
    """

    score: float
    alarm: bool
    event: int | None
    row: int
    shares: dict[str, float]

    def explain(self) -> pd.Series:
        """Return the channels to blame, the first most."""
        return pd.Series(self.shares, name="share").sort_values(ascending=False)


class StreamedDetector(Protocol):
    """What a stream asks of its detector, anew with every row: it may adapt in the meantime."""

    scorer_: SeriesScorer
    offset_: float
    period_: float | None
    months_: int
    channel_names_: list[str]


class Stream:
    """Row-by-row scorer of a detector with ``context="past"``; see `SeriesDetector.stream`.

    Memory is one longest window, whatever the number of rows. It follows its detector through `adapt` and
    `recalibrate`, and through a new `fit` on the same channels and period. One thread at a time may update it.

    Examples
    --------
    >>> import numpy as np
    >>> from diffad import SeriesDetector
    >>> X = np.random.default_rng(0).standard_normal((600, 2))
    >>> detector = SeriesDetector(context="past").fit(X[:500])
    >>> stream = detector.stream()
    >>> live = [stream.update(row).score for row in X[500:]]
    >>> bool(np.allclose(live, detector.score_samples(X[500:]), atol=1e-5))
    True
    """

    def __init__(self, detector: StreamedDetector) -> None:
        self.detector = detector
        self._channels, self._period = list(detector.channel_names_), detector.period_
        self._rows: NDArray[np.float64] = np.empty((0, len(self._channels)))
        self._count = 0
        self._time: pd.Timestamp | None = None
        self._event = -1
        self._last_alarm: int | None = None

    def update(self, row: Row, time: Any = None) -> StreamResult:
        """Take the next row.

        Parameters
        ----------
        row : mapping of channel names to values, Series or sequence of n_features values
            NaN is missing.
        time : timestamp, optional
            Its time; rows that the clock shows to be missing count as rows of NaN.

        Returns
        -------
        StreamResult
            Score, alarm, event and, on demand, the channels to blame.

        Raises
        ------
        ValueError
            If the row has another length or names, holds infinity, or comes before its
            predecessor, or if the detector was fitted anew to what this stream cannot go on with; the state is then as
            before.
        """
        self._check_detector()
        values = self._values(row)
        missing, stamp = self._clock(time)
        scorer, offset = self.detector.scorer_, self.detector.offset_
        blank = np.full((min(missing, scorer.longest), values.shape[1]), np.nan)
        rows = np.concatenate([self._rows, blank, values])[-scorer.longest :]
        share = scorer.shares_of_last(rows, -offset)
        # Only now: a row that could not be scored has not come.
        self._rows, self._time = rows, stamp
        self._count += missing + 1
        score = -float(share.sum())
        alarm = score < offset
        number = self._count - 1
        if alarm:
            if self._last_alarm is None or number - self._last_alarm > MERGE:
                self._event += 1
            self._last_alarm = number
        shares = dict(zip(self.detector.channel_names_, share.tolist(), strict=True))
        return StreamResult(score, alarm, self._event if alarm else None, number, shares)

    def restart(self) -> None:
        """Forget the rows and the clock, as after a wrong time or a long standstill; events and rows count on."""
        self._rows, self._time = self._rows[:0], None
        self._last_alarm = None

    def save(self, file: str | Path) -> None:
        """Write the detector and the state, so that `Stream.load` goes on where this stopped.

        Parameters
        ----------
        file : str or Path
            Overwritten where it is there; never half written.
        """
        data = pickle.dumps(self)
        with replacing(file) as draft:
            draft.write_bytes(data)

    @staticmethod
    def load(file: str | Path) -> Stream:
        """Read a stream that `save` wrote; only from files you trust, since it unpickles.

        Parameters
        ----------
        file : str or Path

        Returns
        -------
        Stream
            Where it stopped, with its detector.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file holds something else, or a part of a stream.
        """
        data = Path(file).read_bytes()
        try:
            stream = pickle.loads(data)
        except Exception as error:  # a broken pickle may raise anything
            raise ValueError(f"{file} is no saved stream, or broken: {error}") from error
        if not isinstance(stream, Stream):
            raise ValueError(f"{file} holds a {type(stream).__name__}, not a saved stream")
        return stream

    def _check_detector(self) -> None:
        """Refuse a detector that was since fitted to what the rows remembered here do not fit."""
        names, period = self.detector.channel_names_, self.detector.period_
        if self.detector.scorer_.rows_after:
            changed = "with windows around each row (context='both'), which no stream can see"
        elif names != self._channels:
            changed = f"to the channels {names} instead of {self._channels}"
        elif not same_period(period or 0, self._period or 0):
            changed = f"to a row every {period} s instead of every {self._period} s"
        else:
            return
        raise ValueError(f"the detector was fitted anew, {changed}; make a new stream of one with context='past'")

    def _values(self, row: Row) -> NDArray[np.float64]:
        names = self.detector.channel_names_
        if isinstance(row, pd.DataFrame):
            if len(row) != 1:
                raise ValueError(f"row is a table of {len(row)} rows; give one row at a time")
            row = row.iloc[0]
        if isinstance(row, Mapping | pd.Series):
            given = {str(k): v for k, v in row.items()}
            if len(given) != len(row):
                raise ValueError(f"row names a channel more than once: {[str(k) for k, _ in row.items()]}")
            if set(given) != set(names):
                raise ValueError(f"row has the channels {sorted(given)}, the detector was fitted on {names}")
            row = [given[n] for n in names]
        given_values = np.asarray(unmasked(row), dtype=object)
        if given_values.size != len(names):
            raise ValueError(f"row has {given_values.size} values, the detector was fitted on {len(names)} channels")
        pairs = zip(names, given_values.ravel(), strict=True)
        return np.array([[_reading(name, value) for name, value in pairs]])

    def _clock(self, time: Any) -> tuple[int, pd.Timestamp | None]:
        """Return how many rows are missing before this one, and its time."""
        period = self.detector.period_
        if time is None:
            # A row without a time comes one period after its predecessor.
            return 0, self._one_row_later() if self._time is not None and period else self._time
        if isinstance(time, Number):
            raise ValueError(
                f"time is the number {time}, of no known unit; give a timestamp: pd.Timestamp({time}, unit='s')"
            )
        stamp = timestamp(time)
        if stamp is pd.NaT:
            raise ValueError("time is missing (NaT); leave it out, or give the row's timestamp")
        if self._time is None:
            return 0, stamp
        if (stamp.tz is None) != (self._time.tz is None):
            raise ValueError(f"{stamp} and {self._time} before it must both have a time zone, or neither")
        seconds = (stamp - self._time).total_seconds()
        if seconds <= 0:
            raise ValueError(
                f"the clock goes backwards: {stamp} after {self._time}; rows must come in order. If that time was wrong, "
                "restart() begins a new window"
            )
        rows = self._rows_until(stamp, seconds)
        if rows == 0:
            raise ValueError(
                f"{stamp} comes {seconds:g} s after its predecessor, but the detector was fitted on a row every {period:g} s; "
                "give one row a period"
            )
        return rows - 1, stamp

    def _rows_until(self, stamp: pd.Timestamp, seconds: float) -> int:
        """Return which row after the last one a time so many seconds later is; without a period the next."""
        period, months = self.detector.period_, self.detector.months_
        if months:
            return round(months_between(self._time, stamp) / months)
        return round(seconds / period) if period else 1

    def _one_row_later(self) -> pd.Timestamp:
        period, months = self.detector.period_, self.detector.months_
        return self._time + (pd.DateOffset(months=months) if months else pd.Timedelta(seconds=period))


def _reading(channel: str, value: Any) -> float:
    """Return the number that a channel's value is, or raise by the channel's name."""
    if value is None or value is pd.NA or value is pd.NaT:
        return math.nan
    try:
        if isinstance(value, np.complexfloating):  # numpy would leave out its imaginary part
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"channel {channel!r} holds {value!r}, which is no number; give NaN for what is missing"
        ) from None
    if math.isinf(number):
        raise ValueError(f"channel {channel!r} holds infinity; give NaN for what is missing")
    return number
