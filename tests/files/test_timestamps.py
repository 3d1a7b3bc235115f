"""Timestamps: what was written is what is read, in one order of day and month, or something is said."""

from __future__ import annotations

import warnings
from datetime import datetime

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffad.files.timestamps import timestamp, timestamps

WRITTEN = {
    "d.m.Y": lambda t: f"{t:%d.%m.%Y}",
    "d.m.y": lambda t: f"{t:%d.%m.%y}",
    "j.n.Y": lambda t: f"{t.day}.{t.month}.{t.year}",
    "j.n.y": lambda t: f"{t.day}.{t.month}.{t:%y}",
    "m/d/Y": lambda t: f"{t:%m/%d/%Y}",
    "n/j/y": lambda t: f"{t.month}/{t.day}/{t:%y}",
    "d/m/Y": lambda t: f"{t:%d/%m/%Y}",
    "d/m/y": lambda t: f"{t:%d/%m/%y}",
    "d-m-y": lambda t: f"{t:%d-%m-%y}",
    "ISO": lambda t: f"{t:%Y-%m-%d}",
    "Y/m/d": lambda t: f"{t:%Y/%m/%d}",
    "Y.n.j": lambda t: f"{t.year}.{t.month}.{t.day}",
    "d-b-y": lambda t: f"{t:%d-%b-%y}",
}
CLOCKS = {
    "H:M:S": lambda t: f" {t:%H:%M:%S}",
    "G:M:S": lambda t: f" {t.hour}:{t:%M:%S}",
    "p": lambda t: f" {t:%I:%M:%S %p}",
    "S.f": lambda t: f" {t:%H:%M:%S}.{t.microsecond:06d}",
    "S,f": lambda t: f" {t:%H:%M:%S},{t.microsecond // 1000:03d}",
}
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2068, 12, 31))


def read(texts):
    return timestamps(pd.Series(texts, dtype=object), "x.csv")


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("clock", CLOCKS)
@settings(max_examples=15, deadline=None)
@given(moments=st.lists(MOMENTS, min_size=1, max_size=6), late=MOMENTS.filter(lambda t: t.day > 12))
def test_what_was_written_is_read(written, clock, moments, late):
    # A day above 12 tells the order; dots do so by themselves.
    moments = [t.replace(microsecond=t.microsecond // 1000 * 1000) for t in [*moments, late]]
    if not clock.startswith("S"):
        moments = [t.replace(microsecond=0) for t in moments]
    if "." in written:
        moments = moments[:-1]
    with warnings.catch_warnings():
        # Two figures for a year may also come first.
        warnings.simplefilter("ignore" if written.endswith("y") and "." not in written else "error")
        back = read([WRITTEN[written](t) + CLOCKS[clock](t) for t in moments])
    assert back.tolist() == [pd.Timestamp(t) for t in moments]


@pytest.mark.parametrize("sign", [".", "/", "-"])
@given(moments=st.lists(MOMENTS, min_size=2, max_size=6))
@settings(max_examples=50, deadline=None)
def test_no_column_mixes_two_orders(sign, moments):
    texts = [f"{t:%d{sign}%m{sign}%y %H:%M}" for t in moments]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = read(texts)
    orders = [f"{order} %H:%M".replace(".", sign) for order in ("%d.%m.%y", "%m.%d.%y", "%y.%m.%d")]
    assert texts in [[stamp.strftime(order) for stamp in back] for order in orders]


def test_the_end_of_a_day_is_the_start_of_the_next():
    assert read(["31.12.2024 23:00", "31.12.2024 24:00"]).iloc[1] == pd.Timestamp("2025-01-01")
    assert read(["2024-02-28T24:00:00", "2024-02-29T01:00:00"]).iloc[0] == pd.Timestamp("2024-02-29")
    with pytest.raises(ValueError, match=r"'31\.12\.2024 24:01' holds no time of day"):
        read(["31.12.2024 24:01"])


def test_the_only_order_in_which_the_clock_goes_on_is_taken():
    back = read(["01/02/24 10:00", "05/02/24 10:00", "01/03/24 10:00"])
    assert back.iloc[0] == pd.Timestamp("2024-02-01 10:00")


@pytest.mark.parametrize(
    ("texts", "first", "how"),
    [
        (["1/2/24", "1/3/24"], "2024-01-02", "month first"),
        (["1/2/24 0:00", "1/2/24 12:00", "2/2/24 0:00"], "2024-02-01", "day first"),
        (["2/1/24 0:00", "2/1/24 12:00", "2/2/24 0:00"], "2024-02-01", "month first"),
        (["24-02-01 0:00", "24-02-02 0:00"], "2001-02-24", "day first"),
        (["5/6/24 0:00", "1/2/24 0:00", "3/4/24 0:00"], "2024-05-06", "month first"),
    ],
)
def test_an_order_that_nothing_tells_is_said(texts, first, how):
    with pytest.warns(UserWarning, match=rf"x\.csv: .* is read with the {how}; write dates as {first}"):
        assert read(texts).iloc[0] == pd.Timestamp(first)


def test_a_year_that_can_only_come_first_does():
    assert read(["99-02-01 24:00", "99-02-03 0:00"]).tolist() == [
        pd.Timestamp("1999-02-02"),
        pd.Timestamp("1999-02-03"),
    ]


def test_offsets_from_utc_are_kept():
    summer = ["31.03.2024 01:00+01:00", "31.03.2024 03:00+02:00"]
    iso = ["2024-03-31 01:00+01:00", "2024-03-31T03:00:00+02:00"]
    expected = [pd.Timestamp("2024-03-31 00:00Z"), pd.Timestamp("2024-03-31 01:00Z")]
    assert read(summer).tolist() == read(iso).tolist() == expected


@pytest.mark.parametrize(
    ("texts", "what"),
    [
        (["13/02/2024", "02/13/2024"], r"'02/13/2024' is no date with the day first, and '13/02/2024' is no date with"),
        (["30.02.2024"], r"'30\.02\.2024' is no date with the day first"),
        (["2024-13-02"], "'2024-13-02' is no date with the year first"),
        (["01.02.2024", "soon"], "'soon' is no timestamp"),
        (["01.02.2024", "2024-02-01"], "'2024-02-01' is no timestamp, or not written as the others"),
        (["10:15 1/2/24"], "'10:15 1/2/24' is no timestamp; write it as 2024-03-04 10:00"),
        (["1/2", "2/2"], "'1/2' is no timestamp"),
        (["1 mars 2024 10:00", "2 mars 2024 10:00"], "'1 mars 2024 10:00' is no timestamp; write it as 2024-03-04"),
        (["1. Januar 2024"], "'1. Januar 2024' is no timestamp; write it as 2024-03-04 10:00"),
        (["1 nov 2024", "2 novembre 2024"], "'2 novembre 2024' is no timestamp, or not written as the others; write"),
        (["Jan 5 2024 10:00 MEZ"], "'Jan 5 2024 10:00 MEZ' is no timestamp; write it as"),
        (["00:00:00", "00:01:00"], "'00:00:00' is a time of day without a date"),
        (["2024-03-31 01:00", "2024-03-31 03:00+02:00"], "some have an offset from UTC and others none"),
        (["0024-01-01"], "would be a date of the year 24"),
        ([1, "2024-01-01"], "1 is no timestamp"),
    ],
)
def test_what_cannot_be_read_is_named(texts, what):
    with pytest.raises(ValueError, match=what):
        read(texts)


def test_missing_times_stay_missing():
    assert read(["01.02.2024", None, "03.02.2024"]).isna().tolist() == [False, True, False]


@pytest.mark.parametrize("text", ["04.03.2024 10:00", "13.02.2024", "3/4/24", "10:00", "4-3-2024 10:00"])
def test_one_text_of_several_meanings_is_refused(text):
    with pytest.raises(ValueError, match="may be read in several ways; give an ISO text"):
        timestamp(text)


@pytest.mark.parametrize("text", ["1. Januar 2024 10:00", "1 mars 2024", "5 Jan 2024 10:00 MEZ"])
def test_one_text_with_the_month_of_another_language_is_refused(text):
    with pytest.raises(ValueError, match=f"'{text}' is no timestamp; give an ISO text"):
        timestamp(text)


@pytest.mark.parametrize("time", ["2024-03-04T10:00", "4 Mar 2024 10:00", datetime(2024, 3, 4, 10)])
def test_one_time_that_leaves_no_doubt_is_read(time):
    assert timestamp(time) == pd.Timestamp("2024-03-04 10:00")
