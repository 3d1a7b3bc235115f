"""The boundary between tables and arrays for series: what users give, as a list of float arrays.

Here pandas ends.  A `Recording` remembers how to give results back in the shape they came in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils.validation import check_array

from diffad.base.integers import whole_numbers
from diffad.base.masked_arrays import unmasked
from diffad.base.telling import tell
from diffad.files.timestamps import DAYS_OF_MONTH

Rows = NDArray[np.float64]

#: Rows that a regular grid may have for each row given, and always.
MOST_SPARSE, FEW = 20, 10_000
#: Periods between most rows from which on a grid that was given is too fine.
SPARSE = 1.5
#: Seconds of a month, on average.
MONTH = DAYS_OF_MONTH * 86400
SHORTEST_MONTH, LONGEST_MONTH = 28 * 86400, 31 * 86400
#: Units of timestamps in a second.
PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
#: Last day that every month has.
COMMON_DAY = 28


@dataclass(frozen=True)
class Recording:
    """Series of one input and where its rows belong.

    Attributes
    ----------
    series : list of array (n_timestamps, channels), float64, NaN = missing
    rows : list of int arrays
        Row numbers of each series in the flat input.
    template : DataFrame, array or None
        The validated input that results are shaped after.
    given : int array
        Row numbers in the flat input of the rows that were given; the others were put between on a regular grid.
    """

    series: list[Rows]
    rows: list[NDArray[np.int64]]
    template: Any
    given: NDArray[np.int64]

    @property
    def index(self) -> pd.Index:
        """The times of the flat input's rows, or their numbers."""
        if isinstance(self.template, pd.DataFrame):
            return self.template.index
        return pd.RangeIndex(sum(len(r) for r in self.rows))

    def flat(self, pieces: list[NDArray[Any]]) -> NDArray[Any]:
        """Put one result (..., n_timestamps, channels) per series in the order of the flat input's rows."""
        flat = np.empty((*pieces[0].shape[:-2], len(self.index), pieces[0].shape[-1]), pieces[0].dtype)
        for rows, piece in zip(self.rows, pieces, strict=True):
            flat[..., rows, :] = piece
        return flat

    def assemble(self, pieces: list[NDArray[Any]]) -> NDArray[Any]:
        """Put one result (..., n_timestamps, channels) per series back into the input's shape."""
        flat = self.flat(pieces)
        if getattr(self.template, "ndim", 2) == 3:
            return flat.reshape(*flat.shape[:-2], *self.template.shape)
        return flat

    def blanked(self, where: list[NDArray[np.bool_]]) -> Recording:
        """Return the same with the rows of each series missing that are marked in `where` (n_timestamps,)."""
        series = [np.where(marked[:, None], np.nan, rows) for rows, marked in zip(self.series, where, strict=True)]
        template: Any = self.assemble(series)
        if isinstance(self.template, pd.DataFrame):
            template = pd.DataFrame(template, self.template.index, self.template.columns)
        return replace(self, series=series, template=template)

    def fill(self, filled: NDArray[np.float64]) -> Any:
        """Return the template with its missing entries taken from `filled`; the rest bit for bit."""
        if isinstance(self.template, pd.DataFrame):
            return _fill_frame(self.template, filled)
        kind = self.template.dtype
        values = self.template if kind in (np.float32, np.float64) else self.template.astype(np.float64)
        missing = np.isnan(values)
        return np.where(missing, filled.astype(values.dtype), values)


def read(
    X: Any, groups: Any = None, regularize: bool = False, period: float | None = None
) -> tuple[Recording, float | None]:
    """Turn input into a recording and its sampling period in seconds (None without timestamps).

    Parameters
    ----------
    X : DataFrame, array of shape (n_timestamps, channels) or (n_series, n_timestamps, channels)
    groups : array-like of shape (n_timestamps,), optional
        Label of the series each row belongs to.
    regularize : bool
        Put the rows of an irregular DatetimeIndex on a regular grid, with NaN where none falls.
    period : float, optional
        Of that grid in seconds; the median of X's own otherwise.

    Raises
    ------
    ValueError
        For text, infinity, timestamps out of order, repeated or irregular, or groups of several periods.
    """
    if isinstance(X, pd.DataFrame):
        return _read_frame(X, groups, regularize, period)
    array = X if isinstance(X, np.ndarray) else np.asarray(X)
    if array.ndim == 3:
        if groups is not None:
            raise ValueError("groups must be None for a 3-D X: its first axis already separates the series")
        flat = _floats(array.reshape(-1, array.shape[-1]))
        length = array.shape[1]
        rows = [np.arange(i * length, (i + 1) * length) for i in range(len(array))]
        return Recording([flat[r] for r in rows], rows, array, np.arange(len(flat))), None
    flat = _floats(array)
    rows = _group_rows(groups, len(flat))
    return Recording([flat[r] for r in rows], rows, _numeric(array), np.arange(len(flat))), None


def as_floats(X: Any) -> Rows:
    """Return a copy of a table or an array as float64; pandas' NA and what is masked becomes NaN."""
    if isinstance(X, pd.DataFrame):
        columns = [_column_of_floats(column) for _, column in X.items()]
        return np.array(columns, dtype=np.float64).reshape(X.shape[1], len(X)).T.copy()
    return np.array(unmasked(X), dtype=np.float64)


def _column_of_floats(column: pd.Series) -> Rows:
    try:
        if column.dtype.kind in "mMc":
            raise TypeError("complex numbers" if column.dtype.kind == "c" else "times")
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"column {column.name!r} of X holds values that are no numbers ({error}); leave it out: "
            f"X = X.drop(columns={column.name!r})"
        ) from None


def _floats(array: Any) -> Rows:
    checked: Rows = check_array(array, dtype=np.float64, ensure_all_finite="allow-nan", copy=True, input_name="X")
    return checked


def _numeric(array: NDArray[Any]) -> NDArray[Any]:
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def _read_frame(X: pd.DataFrame, groups: Any, regularize: bool, fitted: float | None) -> tuple[Recording, float | None]:
    dates = [c for c, kind in X.dtypes.items() if pd.api.types.is_datetime64_any_dtype(kind)]
    if dates:
        raise TypeError(f"column {dates[0]!r} holds timestamps; make it the index: X = X.set_index({dates[0]!r})")
    period, given = None, np.arange(len(X))
    if regularize and isinstance(X.index, pd.PeriodIndex | pd.TimedeltaIndex):
        raise ValueError(
            f"regularize=True takes timestamps, X has a {type(X.index).__name__}; give it a DatetimeIndex: "
            "X.index.to_timestamp() of periods, a start + X.index of durations"
        )
    if isinstance(X.index, pd.DatetimeIndex | pd.PeriodIndex | pd.TimedeltaIndex):
        labels = np.zeros(len(X)) if groups is None else np.asarray(groups)
        if regularize:
            if groups is not None:
                raise ValueError("regularize=True takes one series at a time: give groups=None")
            X, given = _on_grid(X, fitted)
            labels = np.zeros(len(X))
        periods = [p for r in _group_rows(labels, len(X)) if (p := _period(X.index[r])) is not None]
        if periods and not same_period(min(periods), max(periods)):
            raise ValueError(
                f"groups are sampled every {min(periods):g} to {max(periods):g} s; fit each period by itself, or "
                "resample: X.resample(...).mean()"
            )
        period = next(iter(periods), None)
    nullable = any(pd.api.types.is_extension_array_dtype(t) or t.kind not in "biuf" for t in X.dtypes)
    flat = _floats(as_floats(X) if nullable else X)
    rows = _group_rows(groups, len(flat))
    return Recording([flat[r] for r in rows], rows, X, given), period


def _group_rows(groups: Any, n: int) -> list[NDArray[np.int64]]:
    if not n:
        raise ValueError("X holds no row")
    if groups is None:
        return [np.arange(n)]
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise ValueError(f"groups must have one label per row: X has {n} rows, groups has shape {labels.shape}")
    codes, _ = pd.factorize(labels)
    if (codes < 0).any():
        raise ValueError("groups holds missing labels; give every row the label of its series")
    return [np.flatnonzero(codes == g) for g in range(codes.max() + 1)]


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


def _period(index: pd.Index) -> float | None:
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
        period = _period(index)
    except ValueError:
        return False
    return period is not None and (seconds is None or abs(period / seconds - 1) <= 0.05)


def _of_months(index: pd.Index) -> bool:
    """Return whether timestamps are months, quarters or years apart: of several lengths, and regular all the same."""
    if not isinstance(index, pd.DatetimeIndex):
        return False
    steps = np.diff(_month_numbers(index))
    same_day = bool((index.day == index.day[0]).all() or index.is_month_end.all())
    return bool(steps.min() == steps.max() > 0) and same_day


def months_apart(index: pd.Index) -> int:
    """Return how many months lie between most rows; 0 where they do not come on one day of the month, or the last.

    Examples
    --------
    >>> months_apart(pd.DatetimeIndex(["2024-01-01", "2024-02-01", "2024-06-01", "2024-07-01"]))
    1
    """
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if not isinstance(index, pd.DatetimeIndex) or len(index) < 2:
        return 0
    same_day = bool((index.day == index.day[0]).all()) and index.day[0] <= COMMON_DAY
    return int(np.median(np.diff(_month_numbers(index)))) if same_day or index.is_month_end.all() else 0


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
    first, at_end = index[0], bool(index.is_month_end.all())
    later = [pd.offsets.MonthEnd(months * k) if at_end else pd.DateOffset(months=months * k) for k in range(rows)]
    return pd.DatetimeIndex([first + offset for offset in later], name=index.name).as_unit(index.unit)


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


def _on_grid(X: pd.DataFrame, seconds: float | None) -> tuple[pd.DataFrame, NDArray[np.int64]]:
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


def _fill_frame(frame: pd.DataFrame, filled: NDArray[np.float64]) -> pd.DataFrame:
    columns = {}
    for k in range(frame.shape[1]):
        column = frame.iloc[:, k]
        if isinstance(column.dtype, pd.SparseDtype):
            column = column.sparse.to_dense()
        missing = column.isna().to_numpy()
        columns[k] = _fill_column(column, missing, filled[missing, k]) if missing.any() else column
    result = pd.DataFrame(columns, index=frame.index)
    result.columns = frame.columns
    return result


def _fill_column(column: pd.Series, missing: NDArray[np.bool_], values: NDArray[np.float64]) -> pd.Series:
    """Put values in the places of what is missing, in the column's own dtype where it can hold gaps and is of numbers."""
    kind = column.dtype
    as_text = pd.api.types.is_string_dtype(kind) and not isinstance(kind, pd.CategoricalDtype)
    if as_text or (isinstance(kind, np.dtype) and kind.kind != "f"):
        column, kind = pd.Series(column.to_numpy(dtype=np.float64, na_value=np.nan), column.index), np.dtype(float)
    column = column.copy()
    if isinstance(kind, np.dtype):
        column.iloc[missing] = values.astype(kind)
        return column
    places, values = np.flatnonzero(missing)[np.isfinite(values)], values[np.isfinite(values)]
    if isinstance(kind, pd.CategoricalDtype):
        labels = kind.categories.to_numpy(dtype=np.float64)
        column.iloc[places] = kind.categories[np.abs(values[:, None] - labels).argmin(1)]
    elif pd.api.types.is_bool_dtype(kind):
        column.iloc[places] = values > 0.5
    elif pd.api.types.is_integer_dtype(kind):
        column.iloc[places] = whole_numbers(values, kind)
    else:
        column.iloc[places] = values
    return column
