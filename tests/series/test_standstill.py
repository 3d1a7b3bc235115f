"""Readings that were carried forward are found, and nothing else is."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffad import SeriesDetector, carried_forward


def noise(n=600, channels=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, channels))


@given(st.integers(0, 500), st.integers(8, 90))
def test_a_run_is_marked_but_for_its_first_reading(start, size):
    X = noise()
    X[start : start + size, 1] = X[start, 1]
    found = carried_forward(X)
    assert found[start + 1 : start + size, 1].all()
    assert found.sum() == size - 1


def test_short_runs_and_noise_are_left_alone():
    X = noise()
    X[100:107] = X[100]
    assert not carried_forward(X).any()


def test_a_coarse_channel_needs_a_longer_run():
    X = np.random.default_rng(0).integers(0, 3, (2000, 1)).astype(float)
    assert not carried_forward(X).any()
    X[500:540] = 1.0
    found = carried_forward(X)
    assert found[501:540].all()
    assert found.sum() < 50


def test_a_channel_that_rests_is_left_alone():
    X = noise()
    X[:300, 0] = 0.0
    X[:, 1] = 5.0
    assert not carried_forward(X).any()


def test_missing_readings_end_a_run_and_are_never_marked():
    X = noise()
    X[100:120, 0] = 1.0
    X[110, 0] = np.nan
    found = carried_forward(X)[:, 0]
    assert found[101:110].all() and not found[110:112].any() and found[112:120].all()


def test_frames_keep_their_order_and_may_be_masked():
    X = pd.DataFrame(noise(), columns=list("abc"), index=pd.date_range("2024", periods=600, freq="min"))
    X.iloc[50:70] = X.iloc[50]
    blanked = X.mask(carried_forward(X))
    assert blanked.isna().sum().tolist() == [19, 19, 19]


@pytest.mark.parametrize("bad", [np.zeros((2, 3, 4, 5)), np.array([["a"], ["b"]])])
def test_what_holds_no_series_of_numbers_is_refused(bad):
    with pytest.raises(ValueError):
        carried_forward(bad)


def test_series_of_a_panel_are_judged_by_the_same_measure():
    X = noise().reshape(2, 300, 3)
    X[1, 20:40, 2] = 1.0
    found = carried_forward(X)
    assert found.sum() == 19 and found[1, 21:40, 2].all()


def fit_warnings(X, **fit):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        SeriesDetector(kinds=("quiet",)).fit(X, **fit)
    return [w for w in said if "carried_forward" in str(w.message)]


def test_fit_warns_of_whole_rows_that_repeat():
    X = noise()
    X[200:230] = X[200]
    (said,) = fit_warnings(X)
    assert "29 rows of X (4.8%), the first at row 201," in str(said.message)
    assert said.filename == __file__


def test_the_row_that_fit_names_is_one_of_those_given_on_a_grid_too():
    X = pd.DataFrame(noise(), pd.date_range("2026-01-01", periods=600, freq="min"))
    X.iloc[200:230] = X.iloc[200].to_numpy()
    X = X.drop(X.index[50:60])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        SeriesDetector(kinds=("quiet",), regularize=True).fit(X)
    (message,) = [str(w.message) for w in said if "carried_forward" in str(w.message)]
    assert "the first at row 191," in message
    assert carried_forward(X).all(1).argmax() == 191, "what the message recommends takes the same table"


def test_tables_of_several_groups_are_taken_as_they_are():
    times = pd.date_range("2026-01-01", periods=300, freq="min")
    X = pd.DataFrame(noise(), times.append(times))
    X.iloc[200:230] = X.iloc[200].to_numpy()
    assert carried_forward(X).sum(0).tolist() == [29, 29, 29]


def test_fit_names_the_series_of_a_panel():
    X = noise().reshape(2, 300, 3)
    X[1, 20:40] = X[1, 20]
    (said,) = fit_warnings(X)
    assert "19 rows of X (3.2%), the first at row 21 of series 1," in str(said.message)


def test_fit_does_not_warn_of_one_stuck_sensor_nor_of_labelled_rows():
    X = noise()
    X[200:230, 0] = X[200, 0]
    assert not fit_warnings(X)
    X[200:230] = X[200]
    assert not fit_warnings(X, y=np.isin(np.arange(600), np.arange(200, 230)).astype(int))


@pytest.mark.parametrize(
    ("X", "what"),
    [
        (np.array([["2026-01-01"], ["NaT"]], dtype="M8[s]"), "times"),
        (np.array([[1], [2]], dtype="m8[s]"), "times"),
        (np.array([[1 + 2j], [0]]), "(?i)complex"),
    ],
)
def test_what_is_no_number_has_no_readings(X, what):
    for refusing in (carried_forward, SeriesDetector().fit):
        with pytest.raises(ValueError, match=what):
            refusing(X)
