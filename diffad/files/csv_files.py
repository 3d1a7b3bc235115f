"""Raw tables from CSV files as loggers, historians and spreadsheets write them.

Encoding, lines before the head, separator, decimal sign, lines of too many fields; what their fields say is in
`number_texts`.  What a column means, a clock or a channel, is for `tables` to say.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import IO, TypeAlias

import pandas as pd

from diffad.base.telling import tell
from diffad.files.number_texts import NOTATIONS, as_number, reads_as_number, with_numbers

#: Where a row of a table stands in its file, as errors say it.
Place: TypeAlias = Callable[[int], str]

#: Lines that tell how a file is laid out.
PROBED = 100
#: What separates fields; where several do so alike, the first: commas are also decimal signs and parts of names.
SIGNS = "\t;,|"
#: Control characters, and the letter of a byte that Western European text hardly holds and other bytes always do.
RUBBISH = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7fÿ]")
#: First line by which Excel is told the separator.
SEPARATOR_LINE = re.compile(r'"?sep=([;,|\t])"?[;,\t]*', re.IGNORECASE)
DATE = re.compile(r"\s*(\d{1,4}[./:-]\d|\d{1,2}[ .-]+[A-Za-z]{3,}[ .-]+\d{2})")


@dataclass(frozen=True)
class _Layout:
    """How a file is laid out: lines are counted from 1, `skipped` are those that hold neither names nor readings."""

    encoding: str
    separator: str
    decimal: str
    skipped: tuple[int, ...]


def read_csv(path: Path) -> tuple[pd.DataFrame, Place]:
    """Read a CSV file; columns that are not all numbers stay text.

    Parameters
    ----------
    path : Path
        ``.gz`` is decompressed.

    Returns
    -------
    table : DataFrame
    place : callable
        Takes a row number, and returns which line of the file it is.

    Raises
    ------
    ValueError
        If it is empty, broken, no text, or its first line holds readings.

    Warns
    -----
    UserWarning
        Where lines are left out, the encoding is a guess, or words are read as missing.
    """
    try:
        layout = _layout(path, _encoding(path))
        table, crowded = _parsed(path, layout)
    except pd.errors.EmptyDataError as error:
        raise ValueError(f"{path} is empty") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} cannot be read as CSV: its bytes are no text; save it as 'CSV UTF-8'") from error
    except (pd.errors.ParserError, UnicodeError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}") from error
    if not table.index.equals(pd.RangeIndex(len(table))):
        decimal = ", or write decimal points if its commas are decimal" if table.shape[1] == 1 else ""
        raise ValueError(
            f"{path}: its lines have more fields than its head of {table.shape[1]} names; add the names{decimal}"
        )
    if crowded:
        some = ", ".join(map(str, crowded[:5])) + (", ..." if len(crowded) > 5 else "")
        tell(f"{path}: left out {len(crowded)} lines with too many fields: {some}")
    table = table.drop(columns=[c for c in table if str(c).startswith("Unnamed: ") and table[c].isna().all()])
    names = table.columns.str.strip()
    table = table.set_axis(names, axis=1) if names.is_unique else table
    left_out = {*layout.skipped, *crowded}
    return with_numbers(table, layout.decimal, path), lambda row: f"line {_line(path, layout.encoding, left_out, row)}"


# --- the layout of a file -----------------------------------------------------------------------------------


def _bytes(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb")  # type: ignore[return-value]


def _encoding(path: Path) -> str:
    """Return UTF-16 where its mark is there, UTF-8, or else what Excel calls CSV in Western Europe."""
    with _bytes(path) as file:
        start = file.read(2)
    if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    with _bytes(path) as file:
        try:
            for text in codecs.iterdecode(iter(lambda: file.read(2**20), b""), "utf-8"):
                if "\0" in text:
                    raise UnicodeError("it holds zero bytes; save it as 'CSV UTF-8'")
            return "utf-8"
        except UnicodeDecodeError as error:
            file.seek(0)
            if RUBBISH.search(file.read().decode("cp1252")):
                raise error from None
    tell(f"{path} is no UTF-8 and read as Windows-1252, Western European; save it as 'CSV UTF-8' if letters are wrong")
    return "cp1252"


def _lines(path: Path, encoding: str) -> IO[str]:
    return TextIOWrapper(_bytes(path), "utf-8-sig" if encoding == "utf-8" else encoding)


def _layout(path: Path, encoding: str) -> _Layout:
    """Find the head, and what separates fields; lines before the head that are no comments are told."""
    with _lines(path, encoding) as file:
        numbered = islice(enumerate(file, 1), PROBED)
        lines = [(number, text.strip("\n")) for number, text in numbered if text.strip()]
    if not lines:
        raise pd.errors.EmptyDataError
    said = SEPARATOR_LINE.fullmatch(lines[0][1]) if len(lines) > 1 else None
    start = 1 if said else 0
    while start < len(lines) - 1 and lines[start][1].startswith("#"):
        start += 1
    separator = said[1] if said else _separator([text for _, text in lines[start:]])
    rows = [_fields(text, separator) for _, text in lines]
    if start > bool(said) and _any_reading(rows[start]) and len(rows[start - 1]) == len(rows[start]):
        start -= 1  # the last comment holds the names
    head = start + _head(rows[start:])
    if head > start:
        tell(
            f"{path}: left out the lines before the names of its columns in line {lines[head][0]}: "
            + ", ".join(repr(text[:60]) for _, text in lines[start:head][:3])
            + (", ..." if head > start + 3 else "")
        )
    _refuse_readings(path, rows[head])
    repeated = [name for name, times in Counter(rows[head]).items() if times > 1 and name.strip()]
    if repeated:
        tell(f"{path}: the names {repeated} come more than once; later columns of a name get a number behind it")
    skipped = [number for number, _ in lines[:head]]
    if _units_follow(rows[head:]):
        number, text = lines[head + 1]
        tell(f"{path}: left out line {number}, which holds no reading, as units: {text[:60]!r}")
        skipped.append(number)
    return _Layout(encoding, separator, _decimal(rows[head + 1 :], separator), tuple(skipped))


def _fields(line: str, separator: str) -> list[str]:
    if '"' not in line:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator))
    except csv.Error:  # a field of more than 128 KiB
        return line.split(separator)


def _usual_length(rows: list[list[str]]) -> tuple[int, int]:
    """Return how many rows have the most frequent number of fields, and that number; one field only if all have one."""
    return max(((times, fields) for fields, times in Counter(map(len, rows)).items() if fields > 1), default=(0, 1))


def _separator(lines: list[str]) -> str:
    """Return what splits the most lines into one number of fields."""

    def agreeing(sign: str) -> int:
        return _usual_length([_fields(line, sign) for line in lines])[0]

    best = max(SIGNS, key=agreeing)
    return best if agreeing(best) else ","


def _is_reading(field: str) -> bool:
    return bool(DATE.match(field)) or reads_as_number(field)


def _any_reading(row: list[str]) -> bool:
    return any(_is_reading(field) for field in row)


def _head(rows: list[list[str]]) -> int:
    """Return which row holds the names: the first of usual length, unless something else is before readings."""
    _, usual = _usual_length(rows)

    def full(row: list[str]) -> bool:
        return len(row) == usual and 2 * sum(bool(field.strip()) for field in row) >= usual

    if full(rows[0]):
        return 0
    heads = (
        k for k in range(1, len(rows) - 1) if full(rows[k]) and not _any_reading(rows[k]) and _follows(rows[k + 1 :])
    )
    return next(heads, 0)


def _follows(rows: list[list[str]]) -> bool:
    """Return whether readings come next, or after a row of units."""
    return any(_any_reading(row) for row in rows[:2])


def _units_follow(rows: list[list[str]]) -> bool:
    """Return whether the row after the head holds words alone, and the one after that readings."""
    if len({len(row) for row in rows[:3]}) > 1 or len(rows) < 3 or not any(field.strip() for field in rows[1]):
        return False
    return not _any_reading(rows[1]) and _any_reading(rows[2])


def _refuse_readings(path: Path, head: list[str]) -> None:
    """Raise where the first line holds readings: it would be lost as a head."""
    names = [field.strip() for field in head if field.strip()]
    numbers = [next((n for sign in NOTATIONS if (n := as_number(name, sign)) is not None), None) for name in names]
    known = [number for number in numbers if number is not None]
    # Columns may be numbered.
    numbered = all(number % 1 == 0 for number in known) and not DATE.match(names[0] if names else "")
    if not known or None in numbers[1:] or numbered:
        return
    raise ValueError(
        f"{path}: its first line holds numbers ({', '.join(names[:3])}, ...) where the columns' names belong; put a line "
        "of names before it"
    )


def _decimal(rows: list[list[str]], separator: str) -> str:
    """Return the decimal sign of most numbers that tell it."""
    votes: Counter[str] = Counter()
    commas = False
    for field in (field for row in rows for field in row):
        values = {sign: value for sign in NOTATIONS if (value := as_number(field, sign)) is not None}
        if len(values) == 1:
            votes.update(values)
        commas |= len(set(values.values())) == 2 and "," in field
    if votes["."] == votes[","]:
        return "," if commas and separator != "," else "."
    return max(votes, key=lambda sign: votes[sign])


# --- its readings -------------------------------------------------------------------------------------------


def _parsed(path: Path, layout: _Layout) -> tuple[pd.DataFrame, list[int]]:
    """Return the table, and the lines of too many fields, which are left out."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        table = pd.read_csv(
            path,
            sep=layout.separator,
            decimal=layout.decimal,
            encoding=layout.encoding,
            skiprows=[number - 1 for number in layout.skipped],
            on_bad_lines="warn",
            float_precision="round_trip",
            low_memory=False,
        )
    return table, [int(line) for w in said for line in re.findall(r"Skipping line (\d+)", str(w.message))]


def _line(path: Path, encoding: str, left_out: set[int], row: int) -> int:
    """Return the line of a row; one that a quoted line break spreads over several counts as one."""
    with _lines(path, encoding) as file:
        kept = (number for number, text in enumerate(file, 1) if number not in left_out and text.strip())
        return next(islice(kept, row + 1, None), row + 2)
