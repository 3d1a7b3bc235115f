"""Regular times: the period of timestamps, and the grid on which rows appear where none was."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffad.base.telling import tell
from diffad.files.timestamps import DAYS_OF_MONTH

#: Rows that a regular grid may have for each row given, and always.
MOST_SPARSE, FEW = 20, 10_000
#: Periods between most rows from which on a grid that was given is too fine.
SPARSE = 1.5
#: Seconds of a month, on average.
MONTH = DAYS_OF_MONTH * 86400
SHORTEST_MONTH, LONGEST_MONTH = 28 * 86400, 31 * 86400
#: Units of timestamps in a second.
PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


def _check_order(index: pd.Index) -> None:
    if index.hasnans:
        raise ValueError("the index holds NaT; drop those rows: X = X[X.index.notna()]")
    if index.has_duplicates:
        twice = index[index.duplicated()][0]
        raise ValueError(
            f"timestamp {twice} occurs more than once; aggregate first: X.groupby(level=0).mean(), or give times with "
            "their UTC offset if a clock was set back"
        )
    if not index.is_monotonic_increasing:
        raise ValueError("timestamps are not in order; sort first: X = X.sort_index()")


def period_of(index: pd.Index) -> float | None:
    """Return the sampling period in seconds of timestamps, periods or durations, and refuse an irregular one."""
    _check_order(index)
    if isinstance(index, pd.PeriodIndex):
        skipped = np.flatnonzero(np.diff(index.asi8) > index.freq.n)
        if len(skipped):
            after = int(skipped[0])
            raise ValueError(
                f"periods are missing: {index[after + 1]} follows {index[after]}; put them in: X.resample(...).asfreq()"
            )
        index = index.to_timestamp()
    steps = np.diff(index.asi8) / PER_SECOND[index.unit]
    if not len(steps):
        return None
    period = float(np.median(steps))
    worst = int(np.argmax(np.abs(steps - period)))
    if abs(steps[worst] - period) > 0.05 * period and not _of_months(index):
        raise ValueError(
            f"timestamps are irregular: most rows are {period:g} s apart, but {index[worst + 1]} follows "
            f"{index[worst]} after {steps[worst]:g} s; pass regularize=True to put them on a regular grid"
        )
    return period


def _is_regular(index: pd.DatetimeIndex, seconds: float | None) -> bool:
    """Return whether timestamps come every so many seconds as they are: months and local days stay what they were."""
    try:
        period = period_of(index)
    except ValueError:
        return False
    return period is not None and (seconds is None or abs(period / seconds - 1) <= 0.05)


def _of_months(index: pd.Index) -> bool:
    """Return whether timestamps are months, quarters or years apart: of several lengths, and regular all the same."""
    if not isinstance(index, pd.DatetimeIndex):
        return False
    steps = np.diff(_month_numbers(index))
    return bool(steps.min() == steps.max() > 0) and _on_one_day(index)


def _on_one_day(index: pd.DatetimeIndex) -> bool:
    """Return whether timestamps come on one day of the month, as the 30th, or where a month lacks it on its last."""
    return bool(index.is_month_end.all() or (index.day == np.minimum(index.day.max(), index.days_in_month)).all())


def months_apart(index: pd.Index) -> int:
    """Return how many months lie between most rows; 0 where they do not come on one day of the month.

    Examples
    --------
    >>> months_apart(pd.DatetimeIndex(["2024-01-01", "2024-02-01", "2024-06-01", "2024-07-01"]))
    1
    """
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if not isinstance(index, pd.DatetimeIndex) or len(index) < 2:
        return 0
    return int(np.median(np.diff(_month_numbers(index)))) if _on_one_day(index) else 0


def same_period(a: float, b: float) -> bool:
    """Return whether two periods in seconds are one: but for some jitter, or of February and another month.

    Examples
    --------
    >>> same_period(60.0, 61.0), same_period(60.0, 70.0), same_period(28 * 86400, 31 * 86400)
    (True, False, True)
    """
    short, long = sorted((a, b))
    both_months = short >= SHORTEST_MONTH and long <= LONGEST_MONTH
    return both_months or long <= 1.05 * short


def _month_numbers(index: pd.DatetimeIndex) -> NDArray[np.int64]:
    return np.asarray(12 * index.year + index.month, np.int64)


def _grid_of_months(index: pd.DatetimeIndex, months: int, rows: int) -> pd.DatetimeIndex:
    """Return so many timestamps, so many months apart, from the first of an index on."""
    # Of the 30th, too, February has the last day.
    day = 31 if index.is_month_end.all() else index.day.max()
    begin = index[0] - pd.DateOffset(days=index[0].day - 1)
    starts = [begin + pd.DateOffset(months=months * k) for k in range(rows)]
    dates = [start + pd.DateOffset(days=min(day, start.days_in_month) - 1) for start in starts]
    return pd.DatetimeIndex(dates, name=index.name).as_unit(index.unit)


def _even_grid(index: pd.DatetimeIndex, nanoseconds: int, rows: int) -> pd.DatetimeIndex:
    """Return so many timestamps, so many nanoseconds apart, from the first of an index on."""
    return _timestamps(index.as_unit("ns").asi8[0] + nanoseconds * np.arange(rows), index)


def _timestamps(nanoseconds: NDArray[np.int64], like: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Return timestamps of nanoseconds (n,), in the zone of an index and, if they are whole, in its unit."""
    grid = pd.DatetimeIndex(nanoseconds, name=like.name)
    coarse = grid.as_unit(like.unit)
    grid = coarse if (coarse.as_unit("ns") == grid).all() else grid
    return grid.tz_localize("UTC").tz_convert(like.tz) if like.tz is not None else grid


def _own_times(index: pd.DatetimeIndex, slots: NDArray[np.int64]) -> pd.DatetimeIndex:
    """Return the timestamps of an index, each at its slot, and others evenly between them in the slots left open.

    Between days that begin at one local time, so do those put in, whatever the clocks did.
    """
    local = index.tz_localize(None) if index.tz is not None else index
    daily = bool((local == local.normalize() + (local[0] - local[0].normalize())).all())
    stamps = (local if daily else index).as_unit("ns").asi8
    steps, wide = np.diff(slots), np.diff(stamps)
    nth = np.arange(slots[-1] + 1) - np.repeat(slots, np.r_[steps, 1])
    # Whole parts first: a product of nanoseconds and slots would not fit.
    part, rest = (np.r_[np.repeat(part, steps), 0] for part in np.divmod(wide, steps))
    between = np.repeat(stamps, np.r_[steps, 1]) + nth * part + nth * rest // np.r_[np.repeat(steps, steps), 1]
    times = pd.DatetimeIndex(between)
    if index.tz is not None:
        times = times.tz_localize(
            index.tz if daily else "UTC", ambiguous=np.ones(len(times), bool), nonexistent="shift_forward"
        )
    found = times.as_unit("ns").asi8.copy()
    found[slots] = index.as_unit("ns").asi8
    return _timestamps(found, index)


def on_grid(X: pd.DataFrame, seconds: float | None) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Put rows on a grid of a period, or the median one; empty points become NaN rows.

    Rows that are regular but for those missing keep their times, others are moved to the nearest point of an even grid.
    Returns the table and where in it the rows of X are.
    """
    index = pd.DatetimeIndex(X.index)
    _check_order(index)
    if len(index) < 2 or _is_regular(index, seconds):
        return X, np.arange(len(X))
    months = months_apart(index)
    if months and seconds:
        months = round(seconds / MONTH)
    # Integer nanoseconds throughout: floats cannot hold today's date to the nanosecond.
    stamps, second = (_month_numbers(index), 1 / MONTH) if months else (index.as_unit("ns").asi8, 1e9)
    usual = float(months or (second * seconds if seconds else np.median(np.diff(stamps))))
    apart = float(np.median(np.diff(stamps))) / usual
    if apart > SPARSE:
        tell(
            f"most rows of X are {apart * usual / second:g} s apart, on a grid of {usual / second:g} s: "
            f"{1 - 1 / apart:.0%} of its rows are missing; fit on data of the same period, or resample them"
        )
    steps = np.rint(np.diff(stamps) / usual).astype(np.int64)
    # Counting step by step keeps jitter from adding up; the mean period then spans the whole.
    slots = np.r_[0, steps.cumsum()]
    period = months or round(int(stamps[-1] - stamps[0]) / max(1, int(slots[-1])))
    if (steps == 0).any():
        crowded = index[1:][steps == 0][0]
        raise ValueError(
            f"two rows near {crowded} fall on the same point of a grid of {usual / second:g} s; "
            "resample first: X.resample(...).mean()"
        )
    if slots[-1] > max(FEW, MOST_SPARSE * len(index)):
        widest = int(np.argmax(steps))
        raise ValueError(
            f"a grid of {period / second:g} s from {index[0]} to {index[-1]} has {slots[-1] + 1} rows for {len(index)} "
            f"given: {index[widest + 1]} follows {index[widest]}; mend the clock, or pass the parts by themselves"
        )
    if months:
        grid = _grid_of_months(index, months, int(slots[-1]) + 1)
    elif not _is_regular(grid := _own_times(index, slots), seconds):
        grid = _even_grid(index, period, int(slots[-1]) + 1)
    return X.set_axis(grid[slots]).reindex(grid), slots
