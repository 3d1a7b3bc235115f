"""A column comes back from the normal scale as it went in, and as nothing that it cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from diffad.rows.column_scale import FEW_VALUES, MOST_VALUES, ColumnScale

LINEAR = pytest.mark.parametrize("linear", [True, False])


@LINEAR
@settings(max_examples=60, deadline=None)
@given(hnp.arrays(float, st.integers(1, 60), elements=st.floats(-1e6, 1e6)))
def test_values_seen_come_back(linear, column):
    scale = ColumnScale.fit(column, linear)
    back = scale.inverse(scale.forward(column))
    np.testing.assert_allclose(back, column, rtol=1e-6, atol=1e-6 * (np.abs(column).max() + 1e-300))


@LINEAR
def test_only_seen_values_come_back_where_they_are_few(linear):
    column = np.random.default_rng(0).choice([0.0, 0.1, 7.0], 500)
    back = ColumnScale.fit(column, linear).inverse(np.linspace(-9, 9, 1000))
    assert set(back) == {0.0, 0.1, 7.0}


@LINEAR
def test_nothing_beyond_the_extremes_and_whole_numbers_stay_whole(linear):
    column = np.random.default_rng(0).permutation(3000).astype(float)
    back = ColumnScale.fit(column, linear).inverse(np.linspace(-9, 9, 1000))
    assert back.min() == 0 and back.max() == 2999 and (back == back.round()).all()


def test_scores_of_a_heavy_tail_are_normal():
    column = np.random.default_rng(0).standard_cauchy(5000)
    scale = ColumnScale.fit(column, linear=False)
    assert len(scale.values) <= MOST_VALUES
    assert stats.kstest(scale.forward(column), "norm").pvalue > 0.5


def test_share_of_each_value_is_kept_on_the_normal_scale():
    column = np.repeat([1.0, 2.0, 5.0], [700, 200, 100])
    place = stats.norm.ppf((np.arange(10_000) + 0.5) / 10_000)
    back = ColumnScale.fit(column, linear=False).inverse(place)
    assert [np.mean(back == v) for v in (1.0, 2.0, 5.0)] == pytest.approx([0.7, 0.2, 0.1], abs=1e-3)


@LINEAR
def test_missing_stays_missing_and_teaches_nothing(linear):
    column = np.r_[np.arange(100.0), np.full(50, np.nan)]
    scale, other = ColumnScale.fit(column, linear), ColumnScale.fit(np.arange(100.0), linear)
    np.testing.assert_array_equal(scale.place, other.place)
    np.testing.assert_array_equal(np.isnan(scale.forward(column)), np.isnan(column))


@LINEAR
def test_constant_column(linear):
    scale = ColumnScale.fit(np.full(9, 3.5), linear)
    assert (scale.inverse(np.array([-5.0, 0.0, 5.0])) == 3.5).all() and scale.spread == 1.0


def test_spread_is_the_standard_deviation():
    column = np.random.default_rng(0).integers(0, FEW_VALUES, 5000) * 1.7
    assert ColumnScale.fit(column, linear=False).spread == pytest.approx(column.std(), rel=1e-6)
