"""Reading and writing recordings as CSV or Parquet files."""

from __future__ import annotations

import os
import re
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from diffad.telling import tell
from diffad.whole_files import replacing

WRITABLE = (".csv", ".csv.gz", ".txt", ".parquet", ".pq")
#: What names of a first column of numbers begin with where it counts time or rows.
CLOCKS = re.compile(r"(time|timestamp|datetime|date|ts|t|epoch|unix|seconds?|secs?|index|rows?|samples?|id)([^a-z]|$)")
#: Seconds since 1970 of the years that timestamps in numbers may be of, and their units in parts of a second.
EPOCHS, UNITS = (6e8, 5e9), {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}
#: Year before which a text was read as a date that is none.
FIRST_YEAR = 1900
#: Lines that tell how a CSV file separates its fields.
PROBED = 20


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a recording; a first column of timestamps becomes the index.

    CSV may be separated by commas, semicolons or tabs; with the latter two, numbers may have decimal commas. Seconds
    since 1970 (or milli-, micro-, nanoseconds) are timestamps as well; a first column without a name that numbers the
    rows is left out.

    Parameters
    ----------
    path : path to a ``.csv``, ``.csv.gz``, ``.txt``, ``.parquet`` or ``.pq`` file

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is empty, broken, of another kind, holds columns that are not numbers, or a first one that counts time
        or rows, which is no sensor.

    Warns
    -----
    UserWarning
        With the numbers of lines of a CSV that had too many fields and were left out (fields that a line lacks
        are missing values), and where numbers are read as timestamps or left out as row numbers.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file")
    kind = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    if kind in (".parquet", ".pq"):
        table = _read_parquet(path)
    elif kind in (".csv", ".csv.gz", ".txt"):
        table = _read_csv(path)
    else:
        raise ValueError(f"{path} is neither CSV nor Parquet: expected .csv, .csv.gz or .parquet, got {kind!r}")
    if table.empty:
        raise ValueError(f"{path} holds no rows")
    return _index_by_time(table, path)


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            separator, decimal = _separator(path)
            table = pd.read_csv(
                path,
                sep=separator,
                decimal=decimal,
                on_bad_lines="warn",
                float_precision="round_trip",
                low_memory=False,
            )
    except pd.errors.EmptyDataError as error:
        raise ValueError(f"{path} is empty") from error
    except (pd.errors.ParserError, UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}") from error
    _refuse_headless(path, separator)
    if not table.index.equals(pd.RangeIndex(len(table))):
        raise ValueError(f"{path}: its lines have more fields than its head of {table.shape[1]} names; add the names")
    bad = [line for w in said for line in re.findall(r"Skipping line (\d+)", str(w.message))]
    if bad:
        some = ", ".join(bad[:5]) + (", ..." if len(bad) > 5 else "")
        tell(f"{path}: left out {len(bad)} lines with too many fields: {some}")
    return table


def _separator(path: Path) -> tuple[str, str]:
    """Return what separates the fields of a CSV file, and its decimal sign."""
    lines = pd.read_csv(path, sep="\0", header=None, nrows=PROBED, dtype=str, engine="c", quoting=3)[0].astype(str)
    counts = {sign: lines.iloc[0].count(sign) for sign in ",;\t"}
    separator = max(counts, key=lambda sign: counts[sign])
    if separator == ",":
        return ",", "."
    fields = lines.iloc[1:].str.split(separator).explode()
    return separator, "," if fields.str.fullmatch(r'\s*"?[+-]?\d+,\d+(e[+-]?\d+)?"?\s*', case=False).any() else "."


def _refuse_headless(path: Path, separator: str) -> None:
    """Raise where the first line holds readings: it would be lost as a head."""
    names = pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str).iloc[0].dropna()
    numbers = pd.to_numeric(names.str.replace(",", "."), errors="coerce")
    # Columns may be numbered.
    if numbers.isna().iloc[1:].any() or numbers.isna().all() or (numbers.dropna() % 1 == 0).all():
        return
    raise ValueError(
        f"{path}: its first line holds numbers ({', '.join(names[:3])}, ...) where the columns' names belong; put a line "
        "of names before it"
    )


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from error


def _index_by_time(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    first = table.columns[0]
    if pd.api.types.is_numeric_dtype(table[first]):
        table = _without_clock(table, path)
    else:
        try:
            stamps = _timestamps(table[first], path)
        except (ValueError, TypeError) as error:
            mostly_numbers = pd.to_numeric(table[first], errors="coerce").notna().mean() > 0.5
            why = f"{_no_number(table[first])} is none" if mostly_numbers else error
            raise ValueError(f"{path}: column {first!r} holds neither numbers nor timestamps: {why}") from error
        table = table.drop(columns=first).set_index(pd.DatetimeIndex(stamps, name=first))
    if not table.shape[1]:
        raise ValueError(f"{path} holds {first!r} and no column of numbers")
    text = [c for c in table.columns if not pd.api.types.is_numeric_dtype(table[c]) and table[c].notna().any()]
    if text:
        raise ValueError(
            f"{path}: columns {[str(c) for c in text]} are not numbers, such as {_no_number(table[text[0]])}; "
            "remove or encode them first"
        )
    return table.astype({c: float for c in table.columns if table[c].isna().all()})


def _without_clock(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return a table whose first column of numbers is a sensor: what counts time becomes the index."""
    first = table.columns[0]
    name, values = str(first).strip().lower(), table[first].to_numpy(float)
    unnamed = name.startswith("unnamed:") or not name
    clock = unnamed or CLOCKS.match(name) is not None
    known = values[~np.isnan(values)]
    if len(known) < 2:
        return table
    steps = np.diff(known)
    even = bool(np.ptp(steps) <= 1e-6 * np.abs(steps).max()) and bool(steps[0])
    units = [
        unit for unit, parts in UNITS.items() if EPOCHS[0] * parts <= known.min() and known.max() <= EPOCHS[1] * parts
    ]
    if units and (clock or even):
        if len(known) < len(values):
            line = int(np.isnan(values).argmax()) + 2
            raise ValueError(f"{path}: line {line} has no timestamp in column {first!r}; remove it, or give its time")
        stamps = pd.DatetimeIndex(pd.to_datetime(table[first], unit=units[0]), name=first)
        tell(f"{path}: column {first!r} is read as timestamps, from {stamps[0]} on")
        return table.drop(columns=first).set_index(stamps)
    rows = np.arange(len(values))
    if unnamed and (np.array_equal(values, rows) or np.array_equal(values, rows + 1)):
        tell(f"{path}: its first column, without a name, numbers the rows and is left out")
        return table.drop(columns=first)
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


def _no_number(column: pd.Series) -> str:
    """Return the first value that is none, and its line in a file with a head."""
    wrong = (column.notna() & pd.to_numeric(column, errors="coerce").isna()).to_numpy()
    return (
        f"{column.iloc[int(wrong.argmax())]!r} in line {int(wrong.argmax()) + 2}" if wrong.any() else str(column.dtype)
    )


def _timestamps(texts: pd.Series, path: Path) -> pd.Series:
    """Read timestamps; days and months in an order that the file does not tell come with a warning."""
    dotted = texts.astype(str).str.match(r"\s*\d{1,2}\.\d{1,2}\.\d{4}").any()
    slashed = texts.astype(str).str.match(r"\s*\d{1,2}[/-]\d{1,2}[/-]\d{4}").any()
    if not (dotted or slashed):
        return _parsed(texts, dayfirst=False)
    found = {}
    for dayfirst in (True, False):
        with suppress(ValueError, TypeError):
            found[dayfirst] = _parsed(texts, dayfirst)
    if not found or len(found) == 1:
        return next(iter(found.values())) if found else _parsed(texts, dayfirst=False)
    if found[True].equals(found[False]) or dotted:  # nobody writes months first with dots
        return found[True]
    ordered = [dayfirst for dayfirst, stamps in found.items() if stamps.is_monotonic_increasing]
    if len(ordered) == 1:
        return found[ordered[0]]
    tell(
        f"{path}: {texts.iloc[0]!r} is read with the month first; write dates as {found[False].iloc[0]:%Y-%m-%d} to "
        "leave no doubt",
    )
    return found[False]


def _parsed(texts: pd.Series, dayfirst: bool) -> pd.Series:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Could not infer format|Parsing dates in")
        try:
            stamps = pd.to_datetime(texts, dayfirst=dayfirst)
        except ValueError as error:
            if "utc=True" not in str(error):
                raise
            stamps = pd.to_datetime(texts, utc=True)  # the clock was changed on the way
    if stamps.dt.year.min() < FIRST_YEAR:
        raise ValueError(f"{texts.iloc[int(stamps.argmin())]!r} would be a date of the year {stamps.min().year}")
    return stamps


def check_writable(path: str | Path, *inputs: Path) -> None:
    """Raise before any work is done for a file that `write_table` could not write, or that would replace `inputs`."""
    path = Path(path)
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    if suffix not in WRITABLE:
        raise ValueError(f"{path}: cannot write {suffix!r}; use one of {WRITABLE}")
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
    """Write a table whole or not at all; see :func:`diffad.whole_files.replacing`."""
    path = Path(path)
    check_writable(path)
    with replacing(path) as draft:
        if draft.suffix in (".parquet", ".pq"):
            table.to_parquet(draft)
        else:
            table.to_csv(draft, index=isinstance(table.index, pd.DatetimeIndex))
