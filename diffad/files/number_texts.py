"""Texts of numbers, as they are written in different countries, to numbers; words among them are missing readings."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from diffad.base.telling import tell

#: Values that tell whether a column is text of numbers.
PROBED = 100


def _notation(decimal: str, thousands: str) -> re.Pattern[str]:
    groups = "|".join(rf"[1-9]\d{{0,2}}(?:{sign}\d{{3}})+" for sign in (thousands, r"[\s'\u2019]"))
    return re.compile(rf"[+-]?(?:(?:\d+|{groups})(?:{decimal}\d*)?|{decimal}\d+)(?:e[+-]?\d+)?", re.IGNORECASE)


#: How numbers are written with each decimal sign.
NOTATIONS = {".": _notation(r"\.", ","), ",": _notation(",", r"\.")}


def as_number(text: str, decimal: str) -> float | None:
    """Return the number that a text is with a decimal sign; thousands may be set off.

    Examples
    --------
    >>> as_number("1.234,5", ","), as_number("1.234", ","), as_number("1.234", "."), as_number("Bad", ".")
    (1234.5, 1234.0, 1.234, None)
    """
    text = text.strip()
    if NOTATIONS[decimal].fullmatch(text) is None:
        return None
    return float(re.sub(r"[^\d+e.-]", "", text.lower().replace("." if decimal == "," else ",", "").replace(",", ".")))


def first_misfit(column: pd.Series) -> int | None:
    """Return the row of the first value that is no number as most of a column are written.

    Examples
    --------
    >>> first_misfit(pd.Series(["1,5", "80", "1,7", "2.5x"]))
    3
    """
    texts = [(row, str(value)) for row, value in enumerate(column) if not pd.isna(value)]
    misfits = min(
        ([(row, text) for row, text in texts if as_number(text, sign) is None] for sign in NOTATIONS), key=len
    )
    # Words alone would have been read as missing.
    typos = [row for row, text in misfits if holds_a_digit(text)] if 2 * len(misfits) < len(texts) else []
    return next(iter(typos or [row for row, _ in misfits]), None)


def with_numbers(table: pd.DataFrame, decimal: str, path: Path) -> pd.DataFrame:
    """Read the columns that pandas left as text and that are numbers in one notation, but for words."""
    texts = {k: _counts(column) for k, (_, column) in enumerate(table.items()) if _may_be_numbers(column)}
    notations = {k: signs for k, counts in texts.items() if (signs := _notations(counts))}
    if not notations:
        return table
    decimal = _decimal_of_columns(table, list(notations.values()), decimal)
    columns, words = [column for _, column in table.items()], []
    for k, signs in notations.items():
        sign = decimal if decimal in signs else signs[0]
        read = {text: number for text in texts[k].index if (number := as_number(text, sign)) is not None}
        if len(signs) == 2:
            _tell_thousands(list(read), sign, f"{path}: column {columns[k].name!r}")
        words += [f"{text!r} ({n} in {columns[k].name!r})" for text, n in texts[k].items() if text not in read]
        columns[k] = columns[k].astype(object).map(lambda text, read=read: read.get(_stripped(text))).astype(float)
    if words:
        more = f", and {len(words) - 10} more" if len(words) > 10 else ""
        tell(f"{path}: words among numbers are read as missing: {', '.join(words[:10])}{more}")
    return pd.concat(columns, axis=1)


def _notations(counts: pd.Series) -> list[str]:
    """Return the decimal signs that suit all texts with a digit, if these are half of a column or more."""
    figures = counts[[holds_a_digit(text) for text in counts.index]]
    if not len(figures) or 2 * figures.sum() < counts.sum():
        return []
    return [sign for sign in NOTATIONS if all(as_number(text, sign) is not None for text in figures.index)]


def _decimal_of_columns(table: pd.DataFrame, notations: list[list[str]], decimal: str) -> str:
    """Return the one decimal sign of the columns that leave no choice, or else the one given, which the others had."""
    votes = {signs[0] for signs in notations if len(signs) == 1}
    if any((column.dropna() % 1 != 0).any() for _, column in table.select_dtypes("float").items()):
        votes.add(decimal)
    return votes.pop() if len(votes) == 1 else decimal


def _may_be_numbers(column: pd.Series) -> bool:
    """Return whether a column is text whose first figures are numbers: those of a clock, which are many, are not."""
    if column.dtype.kind in "biufc":
        return False
    known = [str(value) for value in column.iloc[:PROBED].dropna()]
    return all(reads_as_number(text) for text in known if holds_a_digit(text))


def holds_a_digit(text: str) -> bool:
    if text.startswith("#") and text.endswith(("!", "?")):
        return False  # what spreadsheets write where a formula failed: #DIV/0! is no figure
    return any(character.isdigit() for character in text)


def reads_as_number(text: str) -> bool:
    return any(as_number(text, sign) is not None for sign in NOTATIONS)


def _stripped(text: object) -> object:
    return text.strip() if isinstance(text, str) else text


def _counts(column: pd.Series) -> pd.Series:
    """Return how often each text occurs, blanks not counted; none where something else is among them."""
    known = column.dropna().astype(object)
    if not all(isinstance(text, str) for text in known):
        return pd.Series(dtype="int64", index=pd.Index([], dtype=object))
    counts = known.str.strip().value_counts(sort=False) if len(known) else known.value_counts()
    return counts[counts.index != ""]


def _tell_thousands(texts: list[str], decimal: str, what: str) -> None:
    """Warn where a column may be a thousand times smaller."""
    other = "," if decimal == "." else "."
    for text in texts:
        value = as_number(text, decimal)
        if value != as_number(text, other) and decimal not in text:
            tell(f"{what}: {text!r} is read as {value:.15g}; write thousands without a sign to leave no doubt")
            return
