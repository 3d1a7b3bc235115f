"""Reading and writing recordings as CSV or Parquet files."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import pandas as pd

WRITABLE = (".csv", ".csv.gz", ".txt", ".parquet", ".pq")


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a recording; a first column of timestamps becomes the index.

    Parameters
    ----------
    path : path to a ``.csv``, ``.csv.gz``, ``.parquet`` or ``.pq`` file

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is empty, broken, of another kind, or holds columns that are not numbers.

    Warns
    -----
    UserWarning
        With the numbers of lines of a CSV that had too many fields and were left out. Fields that a line lacks
        are missing values.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
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
            table = pd.read_csv(path, on_bad_lines="warn", float_precision="round_trip", low_memory=False)
    except pd.errors.EmptyDataError as error:
        raise ValueError(f"{path} is empty") from error
    except (pd.errors.ParserError, UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}") from error
    if not table.index.equals(pd.RangeIndex(len(table))):
        raise ValueError(f"{path}: its lines have more fields than its head of {table.shape[1]} names; add the names")
    bad = [line for w in said for line in re.findall(r"Skipping line (\d+)", str(w.message))]
    if bad:
        some = ", ".join(bad[:5]) + (", ..." if len(bad) > 5 else "")
        warnings.warn(f"{path}: left out {len(bad)} lines with too many fields: {some}", stacklevel=3)
    return table


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from error


def _index_by_time(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    first = table.columns[0]
    if not pd.api.types.is_numeric_dtype(table[first]):
        try:
            stamps = _timestamps(table[first], path)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: column {first!r} holds neither numbers nor timestamps: {error}") from error
        table = table.drop(columns=first).set_index(pd.DatetimeIndex(stamps, name=first))
        if not table.shape[1]:
            raise ValueError(f"{path} holds timestamps and no column of numbers")
    text = [str(c) for c in table.columns if not pd.api.types.is_numeric_dtype(table[c]) and table[c].notna().any()]
    if text:
        raise ValueError(f"{path}: columns {text} are not numbers; remove or encode them first")
    return table.astype({c: float for c in table.columns if table[c].isna().all()})


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
    warnings.warn(
        f"{path}: {texts.iloc[0]!r} is read with the month first; write dates as {found[False].iloc[0]:%Y-%m-%d} to "
        "leave no doubt",
        UserWarning,
        stacklevel=5,
    )
    return found[False]


def _parsed(texts: pd.Series, dayfirst: bool) -> pd.Series:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Could not infer format|Parsing dates in")
        try:
            return pd.to_datetime(texts, dayfirst=dayfirst)
        except ValueError as error:
            if "utc=True" not in str(error):
                raise
            return pd.to_datetime(texts, utc=True)  # the clock was changed on the way


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
    """Write a table beside its place, then move it there: a full disk leaves nothing half-written.

    A file that is replaced hands down its mode; a link is followed.
    """
    path = Path(path)
    check_writable(path)
    place = path.resolve()
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    draft = place.with_name(f".{place.stem}-{secrets.token_hex(4)}{suffix}")
    try:
        if suffix in (".parquet", ".pq"):
            table.to_parquet(draft)
        else:
            table.to_csv(draft, index=isinstance(table.index, pd.DatetimeIndex))
        if place.exists():
            shutil.copymode(place, draft)
        os.replace(draft, place)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)
