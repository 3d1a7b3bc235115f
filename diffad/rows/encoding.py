"""Tables in: mixed columns as a matrix of comparable numbers, NaN kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffad.base.telling import tell
from diffad.series.constant_channels import same
from diffad.series.scaling import FARTHEST

Matrix = NDArray[np.float64]

#: How far beyond the central 99 %, in widths of these, a number says nothing of the scale of a column: a reading in
#: other units, or a code for "missing", must not make all others look alike.
GROSS = 1e4
#: Categories with an indicator of their own, the commonest first; the rest count as unseen.
MOST_CATEGORIES = 60
#: Where a number is that left a value which never varied: far enough to be seen beside a hundred others.
MOVED = 3.0
#: What the indicator of a category is: two different ones are one unit apart.
HOT = float(1 / np.sqrt(2))
#: Share of a column's texts from which on they are numbers, or names of rows where there are so many rows.
MOSTLY, NAMES = 0.9, 50


@dataclass(frozen=True)
class Columns:
    """How each column becomes numbers.

    Attributes
    ----------
    names : list of str
    centre, scale : array (n_columns,)
        Mean and standard deviation of numeric columns, gross values aside; the latter is 0 where they do not vary, and
        the distance of the two values of a column that has but two: it is a category in all but name, and in units of
        its deviation a rare one would drown the rest.
    categories : dict of int to dict
        Per categorical column the code of each category.
    """

    names: list[str]
    centre: Matrix
    scale: Matrix
    categories: dict[int, dict[Any, int]]

    @classmethod
    def fit(cls, table: pd.DataFrame, categorical: Sequence[str | int] | None) -> Columns:
        """Learn the columns of a table.

        Raises
        ------
        ValueError
            If a column holds no value at all, or a numeric one infinity.
        """
        names = [str(c) for c in table.columns]
        chosen = _categorical(table, categorical)
        if categorical is None:
            _warn_of_no_categories([table.iloc[:, k] for k in sorted(chosen)])
        centre, scale = np.zeros(len(names)), np.ones(len(names))
        categories: dict[int, dict[Any, int]] = {}
        for k, name in enumerate(names):
            column = table.iloc[:, k]
            if column.isna().all():
                raise ValueError(f"column {name!r} holds no value at all; leave it out")
            if k in chosen:
                try:
                    categories[k] = {value: i for i, value in enumerate(_commonest(column))}
                except TypeError:
                    raise ValueError(f"column {name!r} holds lists or other values that are no categories") from None
            else:
                values = _numbers(column, name)
                values = values[~np.isnan(values)]
                usual = _without_gross(values)
                # Squares of numbers beyond 1e154 overflow, those of numbers below 1e-162 vanish.
                unit = 2.0 ** (np.frexp(np.abs(usual).max() or 1.0)[1] - 1)
                centre[k], spread = unit * (usual / unit).mean(), float(unit * (usual / unit).std())
                if len(distinct := np.unique(values)) == 2:
                    spread = float(distinct[1] - distinct[0])
                scale[k] = spread if spread > 1e-12 * abs(centre[k]) else 0.0
        return cls(names, centre, scale, categories)

    def encode(self, table: pd.DataFrame) -> Matrix:
        """Return rows (n, width): standardised numbers, and indicators of categories; see `raw`.

        A number off a value that never varied is as far from it in any unit.
        """
        rows = self.raw(table)
        entry = np.searchsorted(self.owner, np.arange(len(self.names)))
        for k in set(range(len(self.names))) - set(self.categories):
            off = rows[:, entry[k]] - self.centre[k]
            if self.scale[k]:
                rows[:, entry[k]] = np.clip(off / self.scale[k], -FARTHEST, FARTHEST)
            else:
                rows[:, entry[k]] = np.where(same(rows[:, entry[k]], self.centre[k]), 0.0, MOVED * np.sign(off))
        return rows

    def check(self, table: pd.DataFrame) -> None:
        """Raise ValueError where a numeric column of a table holds something else, or infinity."""
        for k in set(range(len(self.names))) - set(self.categories):
            _numbers(table.iloc[:, k], self.names[k])

    def raw(self, table: pd.DataFrame) -> Matrix:
        """Return rows (n, width): numbers as they are, and indicators of categories.

        An unseen category has none of the indicators and is as far from every other as they are
        from each other; a missing one is NaN in all of them.
        """
        parts = []
        for k, name in enumerate(self.names):
            column = table.iloc[:, k]
            if k not in self.categories:
                parts.append(_numbers(column, name)[:, None])
                continue
            codes = _as_bools(column, self.categories[k]).map(self.categories[k]).to_numpy(float)
            hot = HOT * (codes[:, None] == np.arange(len(self.categories[k]) + 1))
            hot[np.isnan(codes), -1] = HOT  # an unseen one is one unit from all
            hot[column.isna().to_numpy()] = np.nan
            parts.append(hot)
        return np.concatenate(parts, 1) if parts else np.empty((len(table), 0))

    @property
    def owner(self) -> NDArray[np.int64]:
        """Column number behind each encoded entry."""
        widths = [len(self.categories[k]) + 1 if k in self.categories else 1 for k in range(len(self.names))]
        return np.repeat(np.arange(len(self.names)), widths)


def indicators(codes: NDArray[np.int64], width: int) -> Matrix:
    """Return the encoded entries (n, width) of categories by their codes (n,)."""
    return np.asarray(HOT * np.eye(width)[codes])


def _categorical(table: pd.DataFrame, chosen: Sequence[str | int] | None) -> set[int]:
    names = list(table.columns)
    found = _chosen(table, names, chosen)
    # Times may be declared categories; as numbers they would be nanoseconds, and NaT one of them.
    times = [
        str(n) for k, n in enumerate(names) if (chosen is None or k not in found) and _holds_times(table.iloc[:, k])
    ]
    if times:
        raise ValueError(
            f"columns {times} hold times, which are neither numbers nor categories; give what matters of them, as "
            "their hour, or leave them out"
        )
    return found


def _chosen(table: pd.DataFrame, names: list[Any], chosen: Sequence[str | int] | None) -> set[int]:
    if chosen is None:
        return {k for k in range(len(names)) if _is_category(table.iloc[:, k])}
    if isinstance(chosen, str) or not np.iterable(chosen):
        raise ValueError(f"categorical_features must be a list of columns, or a mask of all of them, got {chosen!r}")
    chosen = list(chosen)
    if chosen and all(isinstance(c, bool | np.bool_) for c in chosen):
        if len(chosen) != len(names):
            raise ValueError(f"categorical_features is a mask of {len(chosen)} columns, X has {len(names)}")
        return {k for k, marked in enumerate(chosen) if marked}
    unknown = [c for c in chosen if c not in names and not (isinstance(c, Integral) and 0 <= c < len(names))]
    if unknown:
        raise ValueError(f"categorical_features names {unknown}, X has the columns {names}")
    return {names.index(c) if c in names else int(c) for c in chosen}


def _commonest(column: pd.Series) -> list[Any]:
    """Return the categories that get an indicator; of equally common ones not those that happen to come first."""
    counts = column.value_counts()
    seen = [(-count, str(value), type(value).__name__, value) for value, count in counts.items() if count]
    return [value for *_, value in sorted(seen, key=lambda entry: entry[:3])[:MOST_CATEGORIES]]


def _as_bools(column: pd.Series, categories: Mapping[Any, int]) -> pd.Series:
    """Return numbers 0 and 1 as what they are where all categories are bools; files know no difference."""
    if not all(isinstance(value, bool | np.bool_) for value in categories):
        return column
    if pd.api.types.is_bool_dtype(column.dtype) or not pd.api.types.is_numeric_dtype(column.dtype):
        return column
    return column.astype(object).where(~column.isin([0, 1]), column == 1)


#: What pandas calls times in object columns.
TIMES = ("date", "datetime", "datetime64", "time", "period", "timedelta", "timedelta64")


def _holds_times(column: pd.Series) -> bool:
    inside = pd.api.types.infer_dtype(column, skipna=True) if column.dtype == object else ""
    return column.dtype.kind in "mM" or isinstance(column.dtype, pd.PeriodDtype) or inside in TIMES


def _is_category(column: pd.Series) -> bool:
    """Return whether a column is not one of numbers; numbers kept as objects, beside None, are numbers."""
    kind = column.dtype
    if pd.api.types.is_object_dtype(kind) and pd.api.types.infer_dtype(column, skipna=True) in (
        "floating",
        "integer",
        "mixed-integer-float",
        "decimal",
    ):
        return False
    return not pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind)


def _warn_of_no_categories(columns: Sequence[pd.Series]) -> None:
    """Warn once of texts that are read as categories and hardly mean them: numbers, and names of rows or dates."""
    numbers: dict[str, str] = {}
    labels: dict[str, str] = {}
    for column in columns:
        if not (pd.api.types.is_object_dtype(column.dtype) or pd.api.types.is_string_dtype(column.dtype)):
            continue
        texts = column[column.map(lambda value: isinstance(value, str))].astype(str)
        if texts.empty:
            continue
        is_number = pd.to_numeric(texts.str.replace(",", ".", regex=False), errors="coerce").notna()
        if is_number.mean() > MOSTLY:
            rest = f", but for {texts[~is_number].iloc[0]!r}" if not is_number.all() else ""
            numbers[str(column.name)] = f"{texts.iloc[0]!r}{rest}"
        elif len(texts) >= NAMES and texts.nunique() > MOSTLY * len(texts):
            labels[str(column.name)] = f"{texts.iloc[0]!r}, {texts.iloc[1]!r}, ..."
    if numbers:
        tell(
            f"{_named(numbers)} numbers as text ({next(iter(numbers.values()))}) and is read as categories; make it "
            "numbers, as by pandas.to_numeric, or name it in categorical_features"
        )
    if labels:
        tell(
            f"{_named(labels)} another text in nearly every row ({next(iter(labels.values()))}), from which nothing can be "
            "learnt; drop it, or make dates and the like numbers"
        )


def _named(columns: Mapping[str, str]) -> str:
    first = next(iter(columns))
    return f"column {first!r} holds" if len(columns) == 1 else f"each of the columns {list(columns)} holds"


def _without_gross(values: Matrix) -> Matrix:
    """Return the values (n,) that lie within `GROSS` widths of the central 99 % around it; all where that has none."""
    low = np.quantile(values, 0.005, method="higher")
    high = np.quantile(values, 0.995, method="lower")
    with np.errstate(over="ignore"):
        reach = GROSS * (high - low)
        near = (values >= low - reach) & (values <= high + reach)
    return values[near] if reach > 0 and near.any() else values


def _numbers(column: pd.Series, name: str) -> Matrix:
    if pd.api.types.is_complex_dtype(column.dtype):
        raise ValueError(f"column {name!r} holds complex numbers; give their parts as columns of their own")
    if _holds_times(column):
        raise ValueError(f"column {name!r} holds times where numbers were fitted; give it as it was in fit")
    try:
        values = column.to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError):
        raise ValueError(
            f"column {name!r} holds text where numbers were fitted, or is categorical: name it in categorical_features"
        ) from None
    if np.isinf(values).any():
        raise ValueError(f"column {name!r} holds infinity; replace it by NaN or by the largest value that is possible")
    # What other programs call missing, as R's NA, may be a NaN that arithmetic complains of.
    missing = np.isnan(values)
    return np.where(missing, np.nan, values) if missing.any() else values
