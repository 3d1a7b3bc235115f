"""Texts to timestamps: one order of day and month for a whole column, and no guess that is not told.

Dates in figures are taken apart here and put together in every order that all of a column's rows allow; pandas and
dateutil, which choose an order for each row, only see ISO texts and names of months.
"""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd

from diffad.base.telling import tell

#: Year before which a text was read as a date that is none.
FIRST_YEAR = 1900
#: Two-digit years from here on are of the last century, as POSIX has it.
LAST_CENTURY = 69
#: Days of a month, on average.
DAYS_OF_MONTH = 365.2425 / 12

TIME = r"(\d{1,2})[:.](\d{2})(?:[:.](\d{2})(?:[.,](\d{1,9}))?)?\s*(?:([AaPp])\.?[Mm]\.?)?(?:\s*Uhr)?"
OFFSET = r"(?:\s*(Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?))?"
#: With colons: figures with dots may as well be a date.
TIME_OF_DAY = re.compile(rf"\s*(?=\d+:){TIME}\s*")
DAY_AND_TIME = re.compile(rf"(?:[\sT,_-]*{TIME}{OFFSET})?\s*")
#: Dates whose year comes last, and first.
YEAR_LAST = re.compile(r"\s*(\d{1,2})([./-])(\d{1,2})\2(\d{4}|\d{2})(?!\d)(.*)")
YEAR_FIRST = re.compile(r"\s*(\d{4})([./-])(\d{1,2})\2(\d{1,2})(?!\d)(.*)")
#: How most programs write the time behind the date.
TIMES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %H:%M:%S,%f", " %I:%M %p", " %I:%M:%S %p")
ZONED = re.compile(r"Z$|[+-]\d{2}:?\d{2}$|\d:\d{2}.*[+-]\d{2}$")
MONTHS = re.compile(r"jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec", re.IGNORECASE)


def are_times_of_day(texts: pd.Series) -> bool:
    """Return whether a column holds times of day, such as 10:15, and nothing else.

    Examples
    --------
    >>> are_times_of_day(pd.Series(["10:15", "24:00"])), are_times_of_day(pd.Series(["2024-02-01 10:15"]))
    (True, False)
    """
    known = texts.dropna()
    return bool(len(known)) and all(isinstance(t, str) and TIME_OF_DAY.fullmatch(t) for t in known)


def timestamps(texts: pd.Series, source: str) -> pd.Series:
    """Read a column of timestamps, all of them in one order of day and month.

    With dots, days come first. Otherwise the order is the only one that is possible, or the only one in which the
    clock never goes back; where neither tells, months come first, with a warning.

    Parameters
    ----------
    texts : Series
        Dates are taken as they are, missing values become NaT.
    source : str
        What warnings begin with: the file.

    Returns
    -------
    Series of datetime64, in UTC where the texts have several offsets

    Raises
    ------
    ValueError
        If one of the texts is no timestamp, tells no date, or is written differently from the others.

    Warns
    -----
    UserWarning
        Where days and months may be either way round.

    Examples
    --------
    >>> timestamps(pd.Series(["13.02.24 24:00", "01.03.24 0:15"]), "x.csv").tolist()
    [Timestamp('2024-02-14 00:00:00'), Timestamp('2024-03-01 00:15:00')]
    """
    kind = pd.api.types.infer_dtype(texts, skipna=True)
    if kind in ("datetime64", "datetime", "date"):
        return _late_enough(pd.to_datetime(texts), texts)
    if kind != "string":
        strange = next((value for value in texts.dropna() if not isinstance(value, str)), "a column without any value")
        raise ValueError(f"{strange!r} is no timestamp")
    known = texts.dropna()
    stamps = _of_iso(known)
    if stamps is None:
        known = known.astype(object).str.strip()
        if are_times_of_day(known):
            raise ValueError(f"{known.iloc[0]!r} is a time of day without a date")
        in_figures = YEAR_LAST.match(known.iloc[0]) or YEAR_FIRST.match(known.iloc[0])
        stamps = _of_figures(known, source) if in_figures else _of_names(known)
    return _late_enough(stamps.reindex(texts.index), texts)


def timestamp(time: Any) -> pd.Timestamp:
    """Return the timestamp of one row; a text must leave no doubt by itself.

    Examples
    --------
    >>> timestamp("2024-03-04 10:00")
    Timestamp('2024-03-04 10:00:00')
    >>> timestamp("04.03.2024 10:00")
    Traceback (most recent call last):
    ValueError: time '04.03.2024 10:00' may be read in several ways; give an ISO text, as 2024-03-04 10:00, or a pandas Timestamp
    """
    if not isinstance(time, str):
        try:
            return pd.Timestamp(time)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"time {time!r} is no timestamp ({error}); give a pandas Timestamp: of a period its to_timestamp(), of a "
                "duration a start + the duration"
            ) from None
    text = time.strip()
    stamps = _of_iso(pd.Series([text], dtype=object))
    if stamps is not None:
        return stamps.iloc[0]
    if text in ("", "NaT") or (MONTHS.search(text) and re.search(r"\d{4}", text)):
        with suppress(ValueError):
            return pd.Timestamp(text)
        raise ValueError(f"time {time!r} is no timestamp; give an ISO text, as 2024-03-04 10:00, or a pandas Timestamp")
    raise ValueError(
        f"time {time!r} may be read in several ways; give an ISO text, as 2024-03-04 10:00, or a pandas Timestamp"
    )


def months_between(earlier: pd.Timestamp, later: pd.Timestamp) -> float:
    """Return how many months passed, the rest of one in parts of its mean length.

    Examples
    --------
    >>> round(months_between(pd.Timestamp("2024-01-31"), pd.Timestamp("2024-02-29")))
    1
    """
    if earlier.tz is not None:
        later = later.tz_convert(earlier.tz)
    whole = 12 * (later.year - earlier.year) + later.month - earlier.month
    return float(whole + (later.day - earlier.day) / DAYS_OF_MONTH)


def _late_enough(stamps: pd.Series, texts: pd.Series) -> pd.Series:
    """Raise where a text was taken for a date of antiquity."""
    if stamps.dt.year.min() < FIRST_YEAR:
        raise ValueError(f"{texts.loc[stamps.idxmin()]!r} would be a date of the year {stamps.min().year}")
    return stamps


def _of_iso(texts: pd.Series) -> pd.Series | None:
    """Read texts that are all in ISO 8601, or return None."""
    try:
        return pd.to_datetime(texts, format="ISO8601")
    except ValueError as error:
        if "utc=True" not in str(error) or not texts.map(lambda text: bool(ZONED.search(text))).all():
            return None
    try:
        return pd.to_datetime(texts, format="ISO8601", utc=True)  # the clock was changed on the way
    except ValueError:
        return None


def _of_names(texts: pd.Series) -> pd.Series:
    """Read texts that name their months; figures of another form than dates have are refused."""
    stamps = next(iter(_in_one_format(texts, {"day": "%d-%b-%y"}).values()), None)
    stamps = next(iter(_in_one_format(texts, {"day": "%d-%b-%Y"}).values()), stamps)
    if stamps is not None:
        return stamps
    for text in texts:
        if not MONTHS.search(text) or len(re.findall(r"\d+", text)) < 2:
            raise ValueError(f"{text!r} is no timestamp; write it as 2024-03-04 10:00")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Could not infer format|Parsing dates in")
        try:
            return pd.to_datetime(texts)
        except ValueError as error:
            stamps = pd.to_datetime(texts, utc=True, errors="coerce")
            if "utc=True" in str(error) and stamps.notna().all():
                return stamps
    # Months of other languages begin as English ones do: Januar, mars.
    misfit = int(stamps.isna().argmax())
    among = ", or not written as the others" if misfit else ""
    raise ValueError(f"{texts.iloc[misfit]!r} is no timestamp{among}; write it as 2024-03-04 10:00")


def _of_figures(texts: pd.Series, source: str) -> pd.Series:
    """Read dates in figures, each with a time of day or without."""
    first = YEAR_LAST.match(texts.iloc[0])
    if first is None:
        return _by_parts(texts, YEAR_FIRST, {"year": (0, 1, 2)})["year"]
    sign, year = first[2], "%Y" if len(first[4]) == 4 else "%y"
    formats = {"day": f"%d{sign}%m{sign}{year}", "month": f"%m{sign}%d{sign}{year}"}
    orders = {"day": (2, 1, 0), "month": (2, 0, 1)}
    if year == "%y":
        formats["year"], orders["year"] = f"%y{sign}%m{sign}%d", (0, 1, 2)
    clocks = _in_one_format(texts, formats) or _by_parts(texts, YEAR_LAST, orders)
    return _in_order(clocks, sign, texts, source)


def _in_order(clocks: dict[str, pd.Series], sign: str, texts: pd.Series, source: str) -> pd.Series:
    """Return the clock of the one order of day and month that suits all rows."""
    year_first = clocks.pop("year", None)
    if not clocks and year_first is not None:
        return year_first
    # Nobody writes months first with dots.
    if sign == "." and "day" in clocks:
        return clocks["day"]
    first, certain = _likely_order(clocks)
    if year_first is not None and year_first.is_monotonic_increasing:
        certain &= _span(year_first) >= _span(clocks[first])
    if certain:
        return clocks[first]
    tell(
        f"{source}: {texts.iloc[0]!r} is read with the {first} first; write dates as {clocks[first].iloc[0]:%Y-%m-%d} to "
        "leave no doubt"
    )
    return clocks[first]


def _likely_order(clocks: dict[str, pd.Series]) -> tuple[str, bool]:
    """Return whether the day or the month comes first, and whether that is certain."""
    if len(clocks) == 1 or clocks["day"].equals(clocks["month"]):
        return next(iter(clocks)), True
    forward = [first for first, clock in clocks.items() if clock.is_monotonic_increasing]
    if len(forward) == 1:
        return forward[0], True
    if forward and (clocks["day"] - clocks["day"].dt.normalize()).nunique() > 1:
        # Readings of several a day leap at midnight where their days are taken for months.
        return min(("month", "day"), key=lambda order: clocks[order].diff().max()), False
    return "month", False


def _span(clock: pd.Series) -> pd.Timedelta:
    return clock.max() - clock.min()


def _in_one_format(texts: pd.Series, dates: dict[str, str]) -> dict[str, pd.Series]:
    """Read texts that are all alike, which is fast, in every order that all of them allow; perhaps none."""
    for time in TIMES:
        clocks = {}
        for first, form in dates.items():
            with suppress(ValueError):
                clocks[first] = pd.to_datetime(texts, format=form + time)
        if clocks:
            return clocks
    return {}


def _by_parts(texts: pd.Series, form: re.Pattern[str], orders: dict[str, tuple[int, int, int]]) -> dict[str, pd.Series]:
    """Read texts that need not be alike in every order, of places of year, month and day, that all of them allow."""
    parts = _groups(texts, form, texts)
    figures = parts[[0, 2, 3]].set_axis(range(3), axis=1)
    times = _groups(parts[4], DAY_AND_TIME, texts)
    clocks, wrong = {}, []
    for first, places in orders.items():
        dates = _dates(figures, places)
        if dates.notna().all():
            clocks[first] = _in_utc(dates + _since_midnight(times, texts), times[5])
        else:
            wrong.append(f"{texts[dates.isna()].iloc[0]!r} is no date with the {first} first")
    if not clocks:
        raise ValueError(", and ".join(wrong))
    return clocks


def _dates(figures: pd.DataFrame, places: tuple[int, int, int]) -> pd.Series:
    """Return dates with NaT where there is no such day."""
    year, month, day = (figures[place].astype(int) for place in places)
    short = figures[places[0]].str.len() < 4
    year += np.where(short, np.where(year < LAST_CENTURY, 2000, 1900), 0)
    return pd.to_datetime(pd.DataFrame({"year": year, "month": month, "day": day}), errors="coerce")


def _groups(texts: pd.Series, form: re.Pattern[str], whole: pd.Series) -> pd.DataFrame:
    """Return a column for each group of a pattern that all texts, parts of the `whole` ones, fit."""
    matches = [form.fullmatch(text) for text in texts]
    misfit = next((k for k, match in enumerate(matches) if match is None), None)
    if misfit is not None:
        raise ValueError(f"{whole.iloc[misfit]!r} is no timestamp, or not written as the others")
    rows = [match.groups() for match in matches if match is not None]
    return pd.DataFrame(rows, texts.index, range(form.groups), dtype=object)


def _since_midnight(parts: pd.DataFrame, texts: pd.Series) -> pd.Series:
    """Return durations since midnight of the groups of TIME."""
    hour, minute, second = (parts[k].fillna("0").astype(int) for k in range(3))
    fraction = parts[3].fillna("0").str.ljust(9, "0").astype("int64")
    halves = parts[4].str.lower()
    wrong = (hour > np.where(halves.notna(), 12, 24)) | (minute > 59) | (second > 60)
    wrong |= (hour == 24) & (minute + second + fraction > 0)
    if wrong.any():
        raise ValueError(f"{texts[wrong].iloc[0]!r} holds no time of day")
    hour = hour.where(halves.isna(), hour % 12 + 12 * (halves == "p"))
    nanoseconds = (3600 * hour + 60 * minute + second).astype("int64") * 10**9 + fraction
    durations = pd.to_timedelta(nanoseconds, unit="ns")
    return durations if (fraction % 1000).any() else durations.dt.as_unit("us")


def _in_utc(stamps: pd.Series, offsets: pd.Series) -> pd.Series:
    """Return timestamps as they are where none has an offset, and in UTC where all have one."""
    if offsets.isna().all():
        return stamps
    if offsets.isna().any():
        raise ValueError("some have an offset from UTC and others none; give all of them one")
    digits = offsets.where(offsets.str.match(r"[+-]"), "+00").str.replace(":", "").str.ljust(5, "0")
    minutes = 60 * digits.str[1:3].astype(int) + digits.str[3:5].astype(int)
    ahead = pd.to_timedelta(minutes.where(digits.str[0] == "+", -minutes), unit="min").dt.as_unit("us")
    return (stamps - ahead).dt.tz_localize("UTC")
