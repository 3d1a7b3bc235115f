"""Faults to test with: what sensors do when they break, put into real recordings, with labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state

from diffad.base.arguments import check_count, is_number
from diffad.series.recordings import as_floats, read

Values = NDArray[np.float64]

#: Rows on either side that say how much a channel varies just here.
NEIGHBOURHOOD = 100
#: Share of a channel's overall deviation below which it counts as resting.
RESTING = 0.1
#: Faults tried for each event: where a channel rests, or is missing, some change nothing.
TRIED = 30


class Place(NamedTuple):
    """Where a fault goes: rows `start` to `stop` of `channel`, and the channel's local deviation."""

    start: int
    stop: int
    channel: int
    deviation: float


Fault = Callable[[Values, Place, float, np.random.RandomState], Values]


def _spike(x: Values, at: Place, size: float, rng: np.random.RandomState) -> Values:
    """A few single readings far off."""
    block = _block(x, at)
    visible = np.flatnonzero(~np.isnan(block))
    rows = rng.choice(visible, min(len(visible), max(1, len(block) // 6)), replace=False)
    block[rows] += 2 * size * at.deviation * rng.choice([-1, 1], len(rows))
    return block


def _shift(x: Values, at: Place, size: float, rng: np.random.RandomState) -> Values:
    """A constant offset."""
    return _block(x, at) + size * at.deviation * rng.choice([-1, 1])


def _drift(x: Values, at: Place, size: float, rng: np.random.RandomState) -> Values:
    """An offset that grows from nothing."""
    ramp = np.linspace(0, 1, at.stop - at.start)
    return _block(x, at) + 1.7 * size * at.deviation * ramp * rng.choice([-1, 1])


def _stuck(x: Values, at: Place, size: float, rng: np.random.RandomState) -> Values:
    """The first reading repeated."""
    block = _block(x, at)
    visible = block[~np.isnan(block)]
    return np.full_like(block, visible[0]) if len(visible) else block


def _noise(x: Values, at: Place, size: float, rng: np.random.RandomState) -> Values:
    """White noise on top."""
    return _block(x, at) + 0.7 * size * at.deviation * rng.standard_normal(at.stop - at.start)


def _scale(x: Values, at: Place, size: float, rng: np.random.RandomState) -> Values:
    """Swings around their mean that are too large."""
    block = _block(x, at)
    middle = np.nanmean(block) if not np.isnan(block).all() else 0.0
    return middle + (1 + size) * (block - middle)


def _delay(x: Values, at: Place, size: float, rng: np.random.RandomState) -> Values:
    """Readings that come `4 x size` rows late."""
    rows = np.arange(at.start, at.stop) - max(1, round(4 * size))
    return x[np.maximum(rows, 0), at.channel]


def _swap(x: Values, at: Place, size: float, rng: np.random.RandomState) -> Values:
    """Another channel's readings, in this channel's level and spread; alone, another time's."""
    others = [k for k in range(x.shape[1]) if k != at.channel and not np.isnan(x[:, k]).all()]
    if not others:
        return _decorrelate(x, at, size, rng)
    other = rng.choice(others)
    theirs, ours = x[:, other], x[:, at.channel]
    unit = (theirs[at.start : at.stop] - np.nanmean(theirs)) / (np.nanstd(theirs) or 1.0)
    return np.nanmean(ours) + np.nanstd(ours) * unit


def _decorrelate(x: Values, at: Place, size: float, rng: np.random.RandomState) -> Values:
    """The same channel's readings of another time: right by themselves, wrong beside the others."""
    size_ = at.stop - at.start
    source = rng.randint(max(1, len(x) - size_))
    source += source >= at.start and source < len(x) - size_
    return x[source : source + size_, at.channel].copy()


def _frequency(x: Values, at: Place, size: float, rng: np.random.RandomState) -> Values:
    """The same course at ``1 + size / 3`` times the speed."""
    rows = at.start + (1 + size / 3) * np.arange(at.stop - at.start)
    return np.interp(np.minimum(rows, len(x) - 1), np.arange(len(x)), x[:, at.channel])


def _dropout(x: Values, at: Place, size: float, rng: np.random.RandomState) -> Values:
    """Every second reading or so falls towards the channel's lowest value."""
    block = _block(x, at)
    lost = rng.random_sample(len(block)) < 0.5
    lost[rng.randint(len(block))] = True
    depth = min(1.0, size / 6)
    return np.where(lost, block + depth * (np.nanmin(x[:, at.channel]) - block), block)


def _block(x: Values, at: Place) -> Values:
    return x[at.start : at.stop, at.channel].copy()


FAULTS: dict[str, Fault] = {
    "spike": _spike,
    "shift": _shift,
    "drift": _drift,
    "stuck": _stuck,
    "noise": _noise,
    "scale": _scale,
    "delay": _delay,
    "swap": _swap,
    "decorrelate": _decorrelate,
    "frequency": _frequency,
    "dropout": _dropout,
}

#: Faults that are there or not.
SIZELESS = ("stuck", "swap", "decorrelate")


class Injected(NamedTuple):
    """A recording with faults.

    Attributes
    ----------
    X : DataFrame or array of shape (n_timestamps, n_features)
        As given, in floats, with faults.
    y : array of shape (n_timestamps,)
        1 where a value was changed by a fault; of what is stuck also the reading that is repeated, and readings between
        that are the same by chance.
    channel : array of shape (n_timestamps,)
        The channel concerned, -1 elsewhere.
    events : DataFrame
        ``start``, ``stop`` (row numbers; stop is the row after the last), ``channel`` (number),
        ``kind`` and ``size``.
    """

    X: Any
    y: NDArray[np.int64]
    channel: NDArray[np.int64]
    events: pd.DataFrame


def inject(
    X: Any,
    kinds: str | Sequence[str] = tuple(FAULTS),
    n_events: int = 10,
    length: int = 25,
    size: float | tuple[float, float] = 3.0,
    channels: Sequence[int] | None = None,
    random_state: int | np.random.RandomState | None = 0,
) -> Injected:
    """Put faults of single channels into a recording, evenly spread with some jitter.

    An event that would change nothing, such as a sensor stuck where it rests, is drawn anew. What changes nothing
    in `TRIED` draws is left out: of sensors stuck in a recording that rests throughout, there is no event at all.

    Parameters
    ----------
    X : DataFrame or array of shape (n_timestamps, n_features)
        A recording without faults; NaN stays NaN.
    kinds : str or sequence of str, default=all of `FAULTS`
        One is drawn for each event.
    n_events : int, default=10
        Events at most.
    length : int, default=25
        Rows per event.
    size : float or (low, high), default=3.0
        In standard deviations of the channel around the event; a pair is drawn from
        log-uniformly. `SIZELESS` kinds have none.
    channels : sequence of int, optional
        Channels to choose from; default all.
    random_state : int, RandomState instance or None, default=0

    Returns
    -------
    Injected

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).standard_normal((500, 3))
    >>> faulty = inject(X, "shift", n_events=2, size=5.0)
    >>> faulty.events[["kind", "size"]].to_numpy().tolist()
    [['shift', 5.0], ['shift', 5.0]]
    >>> int(faulty.y.sum())
    50
    """
    kinds = chosen_kinds(kinds)
    values = _checked(X, n_events, length)
    n, n_channels = values.shape
    low, high = _sizes(size)
    allowed = list(range(n_channels)) if channels is None else list(channels)
    if not allowed or not all(isinstance(k, Integral) and 0 <= k < n_channels for k in allowed):
        raise ValueError(f"channels must be numbers from 0 to {n_channels - 1}, got {channels!r}")
    rng = check_random_state(random_state)
    clean, changed, events = values.copy(), np.zeros(values.shape, bool), []
    room = n // n_events
    for i in range(n_events):
        for _ in range(TRIED):
            start = i * room + int(rng.randint(max(1, room - length)))
            channel = int(rng.choice(allowed))
            kind = str(rng.choice(kinds))
            strength = float(low * (high / low) ** rng.uniform())
            place = Place(start, start + length, channel, _deviation(clean[:, channel], start))
            block = _faulty(clean, kind, place, strength, rng)
            marks = _labels(kind, _block(clean, place), block)
            if marks.any():
                values[start : start + length, channel] = block
                changed[start : start + length, channel] = marks
                events.append((start, start + length, channel, kind, strength))
                break
    y = np.asarray(changed.any(1), dtype=np.int64)
    faulty = pd.DataFrame(values, X.index, X.columns) if isinstance(X, pd.DataFrame) else values
    channel_of = np.full(n, -1)
    channel_of[y == 1] = changed[y == 1].argmax(1)
    return Injected(faulty, y, channel_of, pd.DataFrame(events, columns=["start", "stop", "channel", "kind", "size"]))


def _faulty(clean: Values, kind: str, place: Place, size: float, rng: np.random.RandomState) -> Values:
    """Return a channel's readings with a fault, which neither fills gaps nor makes new ones."""
    before = _block(clean, place)
    if np.isnan(before).all():
        return before
    block = FAULTS[kind](clean, place, size, rng)
    return np.where(np.isnan(before) | np.isnan(block), before, block)


def _labels(kind: str, before: Values, after: Values) -> NDArray[np.bool_]:
    """Mark the readings of a channel that belong to a fault."""
    known = ~np.isnan(before)
    changed = known & (before != after)
    if kind == "stuck" and changed.any():
        rows, seen = np.flatnonzero(changed), np.flatnonzero(known)
        first = seen[seen < rows[0]][-1]  # the reading that is repeated from here on
        changed[first : rows[-1] + 1] = known[first : rows[-1] + 1]
    return changed


def chosen_kinds(kinds: str | Sequence[str]) -> list[str]:
    """Return kinds of faults as a list, or raise ValueError unless there is one and all are known.

    Examples
    --------
    >>> chosen_kinds("spike"), chosen_kinds(("stuck", "drift"))
    (['spike'], ['stuck', 'drift'])
    """
    chosen = [kinds] if isinstance(kinds, str) else list(kinds) if np.iterable(kinds) else []
    if not chosen or not all(isinstance(kind, str) and kind in FAULTS for kind in chosen):
        raise ValueError(f"kinds must be some of {list(FAULTS)}, got {kinds!r}")
    return chosen


def _checked(X: Any, n_events: int, length: int) -> Values:
    """Return the recording's values, and refuse what faults cannot be put into."""
    if np.ndim(X) != 2:
        raise ValueError(f"X must be a recording of shape (n_timestamps, n_features), its shape is {np.shape(X)}")
    values = as_floats(X)
    if np.isinf(values).any():
        raise ValueError("X holds infinity; give NaN for what is missing")
    check_count(n_events, "n_events")
    check_count(length, "length")
    n = len(values)
    if n < n_events * (length + 2):
        raise ValueError(f"{n_events} events of length={length} do not fit in {n} rows; ask for fewer or shorter ones")
    return values


def _sizes(size: float | tuple[float, float]) -> tuple[float, float]:
    low, high = size if isinstance(size, tuple) and len(size) == 2 else (size, size)
    if not (is_number(low) and is_number(high) and 0 < float(low) <= float(high) < np.inf):
        raise ValueError(f"size must be positive, or a pair (low, high) of growing positive sizes, got {size!r}")
    return float(low), float(high)


def _deviation(x: Values, start: int) -> float:
    """Return how much a channel varies around a row; where it rests, a share of its overall deviation."""
    near = x[max(0, start - NEIGHBOURHOOD) : start + NEIGHBOURHOOD]
    overall = float(np.nanstd(x)) if not np.isnan(x).all() else 1.0
    local = float(np.nanstd(near)) if not np.isnan(near).all() else 0.0
    return max(local, RESTING * overall) or 1.0


def injected_fault_score(detector: Any, X: Any, y: Any = None) -> float:
    """Score a fitted detector without labels: how well it ranks faults put into X.

    A scorer for scikit-learn's model selection: ``GridSearchCV(detector, grid,
    scoring=injected_fault_score, cv=TimeSeriesSplit())``.

    Parameters
    ----------
    detector : fitted estimator of recordings with `score_samples`, or a pipeline that ends in one
    X : DataFrame or array of shape (n_timestamps, n_features)
        Normal rows that were not fitted on, at least 27 of them.
    y : ignored

    Returns
    -------
    float
        Mean over all kinds of faults of the average precision per row; higher is better.
    """
    X = on_grid(detector, X)
    n_events = max(1, min(20, len(X) // 100))
    faulty = [inject(X, kind, n_events, random_state=i) for i, kind in enumerate(FAULTS)]
    return float(np.mean([average_precision_score(f.y, -detector.score_samples(f.X)) for f in faulty if f.y.any()]))


def on_grid(detector: Any, X: Any) -> Any:
    """Return X as a detector with ``regularize=True`` sees it: rows that are not there are rows of NaN."""
    last = detector
    while isinstance(last, Pipeline):
        last = last[-1]
    if not getattr(last, "regularize", False) or not isinstance(X, pd.DataFrame):
        return X
    return read(X, regularize=True, period=last.period_)[0].template
