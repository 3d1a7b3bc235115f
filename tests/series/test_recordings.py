"""The boundary between tables and arrays: a recording taken apart and put together is the recording."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffad.series.recordings import read


@settings(max_examples=30, deadline=None)
@given(labels=st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=12))
def test_series_of_any_interleaving_are_put_back_where_they_were(labels):
    X = np.arange(2.0 * len(labels)).reshape(-1, 2)
    recording, _ = read(X, groups=labels)
    assert len(recording.series) == len(set(labels))
    for series, rows in zip(recording.series, recording.rows, strict=True):
        assert len({labels[r] for r in rows}) == 1
        np.testing.assert_array_equal(series, X[rows])
        assert (np.diff(rows) > 0).all(), "rows of a series stay in time order"
    np.testing.assert_array_equal(recording.assemble(recording.series), X)


def test_a_category_of_numbers_is_filled_by_the_nearest():
    recording, _ = read(pd.DataFrame({"d": pd.Categorical([1.0, 2.0, None, None])}))
    filled = recording.fill(np.array([[1.0], [2.0], [1.7], [1.2]]))
    assert filled["d"].tolist() == [1.0, 2.0, 2.0, 1.0]
    assert filled["d"].dtype == "category"


def test_leading_axes_of_results_are_kept():
    X = np.arange(24.0).reshape(2, 4, 3)
    recording, period = read(X)
    assert period is None
    assert [s.shape for s in recording.series] == [(4, 3)] * 2
    stacked = recording.assemble([np.stack([s, -s]) for s in recording.series])
    np.testing.assert_array_equal(stacked, np.stack([X, -X]))


def test_each_group_may_start_and_stop_at_its_own_times():
    a = pd.date_range("2026-01-01", periods=4, freq="1min")
    b = pd.date_range("2025-06-01", periods=3, freq="1min")
    X = pd.DataFrame({"x": np.arange(7.0)}, a.append(b))
    recording, period = read(X, groups=list("aaaabbb"))
    assert period == 60
    assert [len(s) for s in recording.series] == [4, 3]
    with pytest.raises(ValueError, match="order"):
        read(X)


@pytest.mark.parametrize("kind", [object, "str", "string"])
def test_numbers_as_text_come_back_as_numbers(kind):
    X = pd.DataFrame({"x": pd.Series(["1.5", None, "3.5"], dtype=kind), "y": np.arange(3.0)})
    recording, _ = read(X)
    filled = recording.fill(np.full((3, 2), 2.5))
    pd.testing.assert_frame_equal(filled, pd.DataFrame({"x": [1.5, 2.5, 3.5], "y": np.arange(3.0)}))


def test_filling_touches_missing_entries_only_and_never_its_input():
    X = pd.DataFrame({"a": [1.0, np.nan, 3.0], "n": [1, 2, 3]}, index=list("pqr"))
    before = X.copy(deep=True)
    recording, _ = read(X)
    filled = recording.fill(np.full((3, 2), 9.0))
    pd.testing.assert_frame_equal(filled, pd.DataFrame({"a": [1.0, 9.0, 3.0], "n": [1, 2, 3]}, index=list("pqr")))
    recording.series[0][:] = -1
    pd.testing.assert_frame_equal(X, before)
