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
from diffad.series.time_grid import on_grid, period_of, same_period

Rows = NDArray[np.float64]


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
    return np.array(_no_times(unmasked(X)), dtype=np.float64)


def _no_times(X: Any) -> Any:
    """Return X as an array if it holds numbers: as such, times would be nanoseconds, and NaT one of them."""
    X = np.asarray(X)
    kind = X.dtype.kind
    if kind in "mMc":
        raise ValueError(f"X holds {'complex numbers' if kind == 'c' else 'times'}; give what is measured, as floats")
    return X


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
    checked: Rows = check_array(
        _no_times(array), dtype=np.float64, ensure_all_finite="allow-nan", copy=True, input_name="X"
    )
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
            X, given = on_grid(X, fitted)
            labels = np.zeros(len(X))
        periods = [p for r in _group_rows(labels, len(X)) if (p := period_of(X.index[r])) is not None]
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
