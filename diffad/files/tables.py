"""Recordings from CSV or Parquet files and back: which column is the clock, and that all others are numbers."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from diffad.base.telling import tell
from diffad.base.whole_files import ending, replacing
from diffad.files.csv_files import Place, read_csv
from diffad.files.number_texts import first_misfit
from diffad.files.timestamps import are_times_of_day, timestamps

CSV, PARQUET = (".csv", ".csv.gz", ".txt", ".tsv"), (".parquet", ".pq")
WRITABLE = (*CSV, *PARQUET)
#: What names of a first column of numbers begin with where it counts time or rows.
CLOCKS = re.compile(
    r"(time|timestamp|datetime|date|ts|t|epoch|unix|elapsed|seconds?|secs?|minutes?|hours?|index|rows?|samples?|id"
    r"|zeit|zeitstempel|zeitpunkt|messzeit|uhrzeit|datum|sekunden?|minuten?|stunden?|zeile"
    r"|temps|horodatage|heure|secondes?|heures?|tiempo|fecha|hora|marca|segundos?|minutos?|horas?)([^a-zäöüéè]|$)"
)
#: What spreadsheets add to a date.
MIDNIGHT = re.compile(r"[ T]0?0:00(:00(\.0+)?)?$")
#: Seconds since 1970 of the years that timestamps in numbers may be of, and their units in parts of a second.
EPOCHS, UNITS = (6e8, 5e9), {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a recording; a first column of timestamps becomes the index.

    CSV may be separated by commas, semicolons, tabs or bars, with decimal points or commas, in UTF-8, UTF-16 or Windows-1252;
    lines before the names of the columns, and a line of units after them, are left out. A first column of dates and a
    second of times of day are one clock. Seconds since 1970 (or milli-, micro-, nanoseconds) are timestamps as well; a
    first column without a name that numbers the rows is left out. In a column of numbers, words without a digit
    ("Bad", "No Data") are missing values.

    Parameters
    ----------
    path : path to a ``.csv``, ``.csv.gz``, ``.txt``, ``.tsv``, ``.parquet`` or ``.pq`` file

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is empty, broken, of another kind, holds infinity or columns that are not numbers, or a first one that
        counts time or rows, which is no sensor.

    Warns
    -----
    UserWarning
        With the numbers of lines of a CSV that were left out (fields that a line lacks are missing values), words that
        were read as missing, and where numbers are read as timestamps or left out as row numbers, or dates may be
        read in several ways.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file")
    kind = _kind(path)
    if kind in PARQUET:
        table, place = _read_parquet(path)
    elif kind in CSV:
        table, place = read_csv(path)
    else:
        advice = "; save it as CSV" if kind.startswith((".xls", ".ods")) else ""
        raise ValueError(f"{path} is neither CSV nor Parquet: expected one of {WRITABLE}, got {kind!r}{advice}")
    if table.empty:
        raise ValueError(f"{path} holds no rows")
    table = _of_channels(_with_clock(_without_row_numbers(table, path), path, place), path, place)
    return _without_empty_rows(table, path, place)


def _kind(path: Path) -> str:
    """Return the ending that says what a file is, whatever its case."""
    return ending(path).lower()


def _read_parquet(path: Path) -> tuple[pd.DataFrame, Place]:
    try:
        return pd.read_parquet(path), lambda row: f"row {row}"
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from error


# --- the clock ----------------------------------------------------------------------------------------------


def _without_row_numbers(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return a table without a first column that has no name and numbers the rows."""
    first, rows = table.columns[0], np.arange(len(table))
    if not _unnamed(first) or not pd.api.types.is_integer_dtype(table[first]) or len(table) < 2:
        return table
    values = table[first].to_numpy(float)
    if not np.array_equal(values, rows) and not np.array_equal(values, rows + 1):
        return table
    tell(f"{path}: its first column, without a name, numbers the rows and is left out")
    return table.drop(columns=first)


def _unnamed(name: object) -> bool:
    return not str(name).strip() or str(name).startswith("Unnamed: ")


def _with_clock(table: pd.DataFrame, path: Path, place: Place) -> pd.DataFrame:
    """Return a table whose index is the clock that its first column, or the first two, are."""
    if isinstance(table.index, pd.DatetimeIndex) or not table.shape[1]:
        return table
    first = table.columns[0]
    if pd.api.types.is_numeric_dtype(table[first]):
        return _without_counter(table, path, place)
    try:
        joined = _date_and_time(table, path)
        if joined is not None:
            return table.drop(columns=table.columns[:2]).set_index(joined)
        if not are_times_of_day(table[first]):
            clock = pd.DatetimeIndex(timestamps(table[first], str(path)), name=first)
            return table.drop(columns=first).set_index(clock)
    except (ValueError, TypeError) as error:
        _refuse_long_format(table, first, path)
        mostly_numbers = pd.to_numeric(table[first], errors="coerce").notna().mean() > 0.5
        why = f"{_no_number(table[first], place)} is none" if mostly_numbers else error
        raise ValueError(f"{path}: column {first!r} holds neither numbers nor timestamps: {why}") from error
    raise ValueError(f"{path}: column {first!r} holds times of day without a date; join it with the date")


def _without_empty_rows(table: pd.DataFrame, path: Path, place: Place) -> pd.DataFrame:
    """Return a table without rows of neither a time nor a reading, which spreadsheets leave at the end."""
    if not isinstance(table.index, pd.DatetimeIndex) or not table.index.hasnans:
        return table
    lost = table.index.isna() & table.notna().any(axis=1).to_numpy()
    if lost.any():
        raise ValueError(
            f"{path}: {place(int(lost.argmax()))} has no timestamp in column {table.index.name!r}; remove it, or give "
            "its time"
        )
    return table[table.index.notna()]


def _date_and_time(table: pd.DataFrame, path: Path) -> pd.DatetimeIndex | None:
    """Return the clock of a first column of dates and a second of times of day, in either order, if they are."""
    for date, time in (table.columns[:2], table.columns[1::-1]) if table.shape[1] > 1 else ():
        if not are_times_of_day(table[time]) or pd.api.types.infer_dtype(table[date], skipna=True) != "string":
            continue
        days = table[date].str.replace(MIDNIGHT, "", regex=True)
        if not days.str.contains(":").any():
            return pd.DatetimeIndex(timestamps(days + " " + table[time], str(path)), name=f"{date} {time}")
    return None


def _without_counter(table: pd.DataFrame, path: Path, place: Place) -> pd.DataFrame:
    """Return a table whose first column of numbers is a sensor: what counts time becomes the index."""
    first = table.columns[0]
    name, values = str(first).strip(" #").lower(), table[first].to_numpy(float)
    clock = _unnamed(first) or CLOCKS.match(name) is not None
    known = values[~np.isnan(values)]
    if len(known) < 2:
        return table
    steps = np.diff(known)
    even = bool(np.ptp(steps) <= 1e-6 * np.abs(steps).max()) and bool(steps[0])
    units = [
        unit for unit, parts in UNITS.items() if EPOCHS[0] * parts <= known.min() and known.max() <= EPOCHS[1] * parts
    ]
    if units and (clock or even or (steps > 0).all()):
        if len(known) < len(values):
            where = place(int(np.isnan(values).argmax()))
            raise ValueError(f"{path}: {where} has no timestamp in column {first!r}; remove it, or give its time")
        stamps = pd.DatetimeIndex(pd.to_datetime(table[first], unit=units[0]), name=first)
        tell(f"{path}: column {first!r} is read as timestamps, from {stamps[0]} on")
        return table.drop(columns=first).set_index(stamps)
    if clock and ((steps >= 0).all() or (steps <= 0).all()) and known[0] != known[-1]:
        raise ValueError(
            f"{path}: its first column, {first!r}, counts time or rows ({known[0]:g}, {known[1]:g}, ...) and is no "
            "sensor; write it as dates, or remove it"
        )
    if even and len(known) > 2:
        tell(
            f"{path}: its first column, {first!r}, grows by {steps[0]:g} from row to row; remove it if it is no sensor"
        )
    return table


# --- the channels -------------------------------------------------------------------------------------------


def _of_channels(table: pd.DataFrame, path: Path, place: Place) -> pd.DataFrame:
    """Return a table of numbers, or raise."""
    if not table.shape[1]:
        raise ValueError(f"{path} holds {table.index.name!r} and no column of numbers")
    table = table.astype({name: float for name in table.columns if _of_flags(table[name])})
    text = [c for c in table.columns if not pd.api.types.is_numeric_dtype(table[c])]
    if text:
        _refuse_long_format(table, text[0], path)
        raise ValueError(
            f"{path}: columns {[str(c) for c in text]} are not numbers, such as {_no_number(table[text[0]], place)}; "
            "remove or encode them first"
        )
    for name, column in table.select_dtypes("float").items():
        infinite = np.isinf(column.to_numpy(float))
        if infinite.any():
            raise ValueError(
                f"{path}: column {name!r} holds infinity in {place(int(infinite.argmax()))}; leave the field empty if "
                "the reading is missing"
            )
    return table


def _of_flags(column: pd.Series) -> bool:
    """Return whether a column holds nothing, or flags and gaps, which have no type of their own."""
    known = column.dropna()
    return not len(known) or (column.dtype == object and all(isinstance(v, bool | np.bool_) for v in known))


def _no_number(column: pd.Series, place: Place) -> str:
    """Return the first value that is none, and where it is."""
    row = first_misfit(column)
    return str(column.dtype) if row is None else f"{column.iloc[row]!r} in {place(row)}"


def _refuse_long_format(table: pd.DataFrame, names: Any, path: Path) -> None:
    """Raise where each row is one reading of the channel that a column names: times then repeat."""
    tags = table[names].dropna()
    values = [c for c in table.columns if pd.api.types.is_numeric_dtype(table[c])]
    if not values or tags.nunique() < 2 or 2 * tags.nunique() > len(tags):
        return
    clocks = {table.index.name: table.index} if isinstance(table.index, pd.DatetimeIndex) else {}
    for other in table.columns.drop([names, *values]):
        with suppress(ValueError, TypeError):
            clocks[other] = pd.DatetimeIndex(timestamps(table[other], str(path)))
    for name, clock in clocks.items():
        if clock.has_duplicates:
            some = ", ".join(repr(tag) for tag in tags.unique()[:3])
            raise ValueError(
                f"{path}: each line is one reading of what column {names!r} names ({some}, ...); make a column of each: "
                f"table.pivot(index={name!r}, columns={names!r}, values={values[-1]!r})"
            )


# --- writing ------------------------------------------------------------------------------------------------


def check_writable(path: str | Path, *inputs: Path) -> None:
    """Raise before any work is done for a file that `write_table` could not write, or that would replace `inputs`."""
    path = Path(path)
    if _kind(path) not in WRITABLE:
        raise ValueError(f"{path}: cannot write {_kind(path)!r}; use one of {WRITABLE}")
    check_place(path, *inputs)


def check_place(path: Path, *inputs: Path) -> None:
    """Raise before any work is done for a file that cannot be written, or that would replace one of those read."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file")
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no file that could be replaced; name another")
    if not os.access(path.resolve().parent, os.W_OK):
        raise PermissionError(f"{path}: nothing may be written into the folder {path.resolve().parent}")
    for file in inputs:
        if path.resolve() == file.resolve():
            raise ValueError(f"{path} would replace the file that is read; name another output")


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table whole or not at all, with its index unless that only numbers the rows.

    See :func:`diffad.base.whole_files.replacing`.
    """
    path = Path(path)
    check_writable(path)
    with replacing(path) as draft:
        if _kind(path) in PARQUET:
            table.to_parquet(draft)
        else:
            numbered = table.index.name is None and table.index.equals(pd.RangeIndex(len(table)))
            table.to_csv(draft, sep="\t" if _kind(path) == ".tsv" else ",", index=not numbered)
