"""Regular times, and grids on which rows appear where none was."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from diffad import SeriesImputer, Training
from diffad.series.recordings import read


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize(("freq", "seconds"), [("500ms", 0.5), ("1h", 3600.0), ("1D", 86400.0)])
def test_period_does_not_depend_on_the_unit_of_the_index(unit, freq, seconds):
    if unit == "s" and seconds < 1:
        unit = "ms"
    index = pd.date_range("2026-01-01", periods=5, freq=freq).as_unit(unit)
    _, period = read(pd.DataFrame({"a": np.arange(5.0)}, index))
    assert period == seconds


def test_period_of_days_that_are_a_change_of_clocks_long():
    index = pd.date_range("2026-03-27", periods=5, freq="1h", tz="Europe/Berlin")
    _, period = read(pd.DataFrame({"a": np.arange(5.0)}, index))
    assert period == 3600


def test_one_row_has_no_period():
    assert read(pd.DataFrame({"x": [1.0]}, pd.DatetimeIndex(["2026-01-01"])))[1] is None


def test_small_jitter_is_regular_and_a_step_off_by_more_is_not():
    times = pd.date_range("2026-01-01", periods=20, freq="10s").to_series().reset_index(drop=True)
    X = pd.DataFrame({"x": np.arange(20.0)})
    times[5] += pd.Timedelta("0.3s")
    assert read(X.set_axis(pd.DatetimeIndex(times)))[1] == 10
    times[5] += pd.Timedelta("2s")
    with pytest.raises(ValueError, match="irregular"):
        read(X.set_axis(pd.DatetimeIndex(times)))


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Asia/Kathmandu"])
def test_grid_has_all_points_between_first_and_last_row(unit, zone):
    full = pd.date_range("2026-01-01", periods=10, freq="3s", tz=zone, name="t").as_unit(unit)
    X = pd.DataFrame({"x": np.arange(10.0)}, full).drop(full[[3, 7, 8]])
    recording, period = read(X, regularize=True)
    assert period == 3
    table = recording.template
    assert (table.index == full).all()
    assert table.index.dtype == full.dtype and table.index.name == "t"
    expected = np.where(np.isin(np.arange(10), [3, 7, 8]), np.nan, np.arange(10.0))
    np.testing.assert_array_equal(table["x"], expected)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_jitter_does_not_stretch_the_grid(seed):
    # Every row is up to 2 % of a period early or late; none is missing, so none may appear or vanish.
    full = pd.date_range("2026-01-01", periods=2000, freq="1s")
    jitter = pd.to_timedelta(np.random.default_rng(seed).integers(-20, 21, 2000), "ms")
    X = pd.DataFrame({"x": np.arange(2000.0)}, full + jitter)
    recording, _ = read(X, regularize=True)
    table = recording.template
    assert len(table) == 2000
    np.testing.assert_array_equal(table["x"], X["x"])
    assert np.abs(table.index - X.index).max() < pd.Timedelta("100ms")


@pytest.mark.parametrize(
    "index",
    [
        pd.date_range("1990-01-31", periods=60, freq="ME"),
        pd.date_range("2026-01-01", periods=400, freq="D", tz="Europe/Berlin"),
    ],
)
def test_regular_months_and_local_days_keep_their_times_on_a_grid(index):
    X = pd.DataFrame({"x": np.arange(float(len(index)))}, index)
    recording, _ = read(X, regularize=True)
    pd.testing.assert_frame_equal(recording.template, X)
    np.testing.assert_array_equal(recording.given, np.arange(len(index)))


def come_back(full, hole):
    """Check that a grid puts back what is left out of times, a hole and three in ten of the others."""
    keep = np.random.default_rng(0).random(len(full)) < 0.7
    keep[[0, -1]], keep[hole] = True, False
    X = pd.DataFrame({"x": np.arange(float(len(full)))}, full)
    recording, _ = read(X[keep], regularize=True)
    pd.testing.assert_frame_equal(recording.template, X.where(keep[:, None]), check_freq=False)
    np.testing.assert_array_equal(recording.given, np.flatnonzero(keep))


@pytest.mark.parametrize("freq", ["MS", "ME", "QS", "YS", pd.DateOffset(months=1)])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_missing_months_are_put_back_where_the_calendar_has_them(freq, zone):
    come_back(pd.date_range("1990-01-15", periods=200, freq=freq, tz=zone), hole=slice(50, 150))


@pytest.mark.parametrize("day", [28, 29, 30])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_months_on_a_day_that_february_lacks(day, zone):
    first = pd.Timestamp(2001, 1, day, 12, tz=zone)
    full = pd.DatetimeIndex([first + pd.DateOffset(months=k) for k in range(60)])
    come_back(full, hole=slice(11, 15))
    from_february = full[1:]
    come_back(from_february, hole=slice(20, 25))
    X = pd.DataFrame({"x": np.arange(60.0)}, full)
    recording, _ = read(X, regularize=True)
    pd.testing.assert_frame_equal(recording.template, X, check_freq=False)
    assert read(X[20:])[1] == pytest.approx(read(X)[1])


@pytest.mark.parametrize("zone", [None, "Europe/Berlin", "America/Santiago"])
@pytest.mark.parametrize("freq", ["D", "W", "2D"])
def test_missing_days_are_put_back_at_their_local_time(freq, zone):
    come_back(pd.date_range("2026-01-01 12:30", periods=200, freq=freq, tz=zone, name="day"), hole=slice(80, 100))


def test_local_days_read_as_universal_time_keep_their_times():
    X = pd.DataFrame({"x": np.arange(200.0)}, pd.date_range("2026-01-01", periods=200, freq="D", tz="Europe/Berlin"))
    X = X.tz_convert("UTC").drop(index=X.index[[50, 87, 88]])
    recording, _ = read(X, regularize=True)
    table = recording.template
    assert len(table) == 200
    pd.testing.assert_frame_equal(table.iloc[recording.given], X, check_freq=False)
    assert (np.diff(table.index) < pd.Timedelta("25h30min")).all()


def test_days_whose_hour_the_clock_skips_are_put_back_an_hour_later():
    days = pd.date_range("2026-03-20 02:30", periods=20, freq="D")
    full = days.tz_localize("Europe/Berlin", nonexistent="shift_forward")  # no half past two on 29 March
    X = pd.DataFrame({"x": np.arange(20.0)}, full)
    recording, _ = read(X.drop(full[[9, 15]]), regularize=True)
    assert (recording.template.index == full).all()


def test_rows_before_the_time_that_nanoseconds_can_tell():
    X = pd.DataFrame({"x": np.arange(50.0)}, pd.date_range("0900-01-01", periods=50, freq="YS", unit="s"))
    recording, _ = read(X.drop(X.index[[7, 30]]), regularize=True)
    assert (recording.template.index == X.index).all()
    assert read(X)[1] == pytest.approx(365 * 86400)


def test_rows_on_the_first_of_months_are_days_to_a_model_of_days():
    days = pd.DataFrame({"x": 1.0}, pd.DatetimeIndex(["2026-01-01", "2026-02-01", "2026-04-01"]))
    with pytest.warns(UserWarning, match="on a grid of 86400 s"):
        recording, _ = read(days, regularize=True, period=86400.0)
    assert recording.given.tolist() == [0, 31, 90]


def test_rows_that_are_all_too_close_are_told_of_the_grid_they_were_meant_for():
    X = pd.DataFrame({"a": np.arange(3.0)}, pd.date_range("2026-01-01", periods=3, freq="10s"))
    with pytest.raises(ValueError, match=r"two rows near .*:10 fall on the same point of a grid of 60 s"):
        read(X, regularize=True, period=60.0)


def test_a_grid_much_finer_than_the_rows_is_told():
    X = pd.DataFrame({"a": np.arange(50.0)}, pd.date_range("2026-01-01", periods=50, freq="5min"))
    with pytest.warns(UserWarning, match="300 s apart, on a grid of 60 s: 80% of its rows are missing"):
        recording, _ = read(X, regularize=True, period=60.0)
    assert np.isnan(recording.series[0]).mean() > 0.75


def test_a_short_piece_of_monthly_rows_is_monthly():
    months = pd.DataFrame({"a": np.sin(np.arange(120.0))}, pd.date_range("2010-01-01", periods=120, freq="MS"))
    imputer = SeriesImputer(window=4, training=Training(max_steps=0)).fit(months)
    assert len(imputer.transform(months["2011-02":"2011-03"])) == 2
    with pytest.raises(ValueError, match="sampled every"):
        imputer.transform(months.asfreq("14D").iloc[:10])
