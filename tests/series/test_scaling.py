"""Scaling is undone exactly, is not moved by wild readings, and knows what a channel cannot exceed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffad.series.marginals import Marginals
from diffad.series.scaling import CALM_KNEE, KNEE, Scaling, squash, unsquash

#: Readings of two decimals, as sensors give them.
VALUES = st.integers(-(10**8), 10**8).map(lambda i: i / 100) | st.integers(-5, 5).map(float) | st.just(np.nan)


@settings(max_examples=150, deadline=None)
@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(1, 4)), elements=VALUES))
def test_round_trip_returns_what_was_learnt_from(rows):
    scaling = Scaling.fit(rows)
    forward = scaling.forward(rows)
    assert forward.shape == (len(rows), int(scaling.modelled.sum()))
    back = scaling.inverse(forward)
    seen = ~np.isnan(rows)
    # Rounding of a float64 at the channel's largest value.
    tolerance = 1e-12 * max(1.0, np.nanmax(np.abs(rows), initial=0.0))
    np.testing.assert_allclose(back[seen], rows[seen], rtol=0, atol=tolerance)


def test_standardised_channels_have_mean_zero_and_deviation_one():
    rows = np.random.default_rng(0).standard_normal((5000, 3)) * [0.01, 1, 1e4] + [5, 0, -1e5]
    forward = Scaling.fit(rows).forward(rows)
    np.testing.assert_allclose(forward.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(forward.std(0), 1, rtol=1e-9)


def test_any_leading_shape_and_single_precision():
    rows = np.random.default_rng(0).standard_normal((40, 3))
    scaling = Scaling.fit(rows)
    batch = rows.reshape(2, 4, 5, 3)
    np.testing.assert_allclose(scaling.forward(batch).reshape(40, 3), scaling.forward(rows))
    single = scaling.inverse(scaling.forward(batch).astype(np.float32))
    np.testing.assert_allclose(single, batch, atol=1e-6)


def test_a_few_wild_readings_do_not_hide_the_rest():
    x = np.random.default_rng(0).standard_normal((2000, 1))
    x[:10] = 1e9
    assert Scaling.fit(x).scale[0] == pytest.approx(1, rel=0.3)
    assert abs(Scaling.fit(x).centre[0]) < 0.2


def test_a_channel_that_switches_is_measured_by_its_switching():
    """A pump that is off for 60 % of the time: the other 40 % are no wild readings.

    The network clamps its inputs at 8 deviations, so that larger values would all look alike.
    """
    rng = np.random.default_rng(0)
    x = np.where(rng.random((2000, 1)) < 0.6, 0.01 * rng.standard_normal((2000, 1)), rng.normal(100, 5, (2000, 1)))
    assert np.abs(Scaling.fit(x).forward(x)).max() < 8


def test_rounding_of_the_usual_value_does_not_make_a_channel_constant():
    x = np.tile([0.3, 0.1 + 0.2, 0.3, 0.1 + 0.2, 0.3, 0.1 + 0.2, 5.0, 5.0, 4.0, 6.0], 20)[:, None]
    scaling = Scaling.fit(x)
    assert scaling.modelled.tolist() == [True]
    np.testing.assert_allclose(scaling.inverse(scaling.forward(x)), x, atol=1e-9)


@pytest.mark.parametrize("value", [0.0, -7.25, 0.1, 1e12])
def test_a_constant_channel_is_not_modelled_and_filled_with_its_constant(value):
    rows = np.column_stack([np.arange(9.0), np.full(9, value)])
    rows[3, 1] = np.nan
    scaling = Scaling.fit(rows)
    assert scaling.modelled.tolist() == [True, False]
    assert scaling.forward(rows).shape == (9, 1)
    assert (scaling.inverse(scaling.forward(rows))[:, 1] == value).all()


def test_rounding_is_not_variation():
    x = np.full((50, 1), 0.1 + 0.2)
    x[::2] = 0.3
    assert Scaling.fit(x).modelled.tolist() == [False]


def test_a_channel_that_was_never_observed_stays_missing():
    rows = np.column_stack([np.arange(5.0), np.full(5, np.nan)])
    scaling = Scaling.fit(rows)
    assert scaling.modelled.tolist() == [True, False]
    assert np.isnan(scaling.scale[1])
    assert np.isnan(scaling.inverse(scaling.forward(rows))[:, 1]).all()


def test_extremes_a_channel_rests_on_are_bounds():
    """A rate that is often 0 is never negative; a sensor that saturates at 5 never shows 6."""
    x = np.clip(np.random.default_rng(0).normal(2, 2.5, (1000, 1)), 0, 5)
    scaling = Scaling.fit(x)
    filled = scaling.inverse(np.array([[-100.0], [0.0], [100.0]]))[:, 0]
    assert filled[[0, 2]] == pytest.approx([0, 5], abs=1e-12)
    assert 0 < filled[1] < 5


def test_extremes_met_by_chance_are_no_bounds():
    x = np.random.default_rng(0).standard_normal((1000, 1))
    filled = Scaling.fit(x).inverse(np.array([[-9.0], [9.0]]))[:, 0]
    assert filled[0] < x.min() - 1
    assert filled[1] > x.max() + 1


def test_missing_values_stay_missing_and_do_not_count():
    x = np.random.default_rng(0).standard_normal((300, 1))
    holes = np.insert(x, [0, 100, 100, 300], np.nan, axis=0)
    for name in ("centre", "scale", "lower", "upper"):
        np.testing.assert_allclose(getattr(Scaling.fit(holes), name), getattr(Scaling.fit(x), name))
    assert np.isnan(Scaling.fit(holes).forward(holes)).sum() == 4


def test_levels_at_which_a_channel_rests_come_back_exactly():
    """Single precision loses the last digits of what is filled in: a band from 1e-7 on misses every 0."""
    rng = np.random.default_rng(0)
    x = np.where(rng.random((1000, 1)) < 0.5, 0.0, rng.exponential(3, (1000, 1)) + 1)
    x[rng.random(1000) < 0.1] = 0.7
    scaling = Scaling.fit(x)
    back = scaling.inverse(scaling.forward(x).astype(np.float32))
    for level in (0.0, 0.7):
        assert (back[x == level] == level).all()
    free = (x != 0) & (x != 0.7)
    np.testing.assert_allclose(back[free], x[free], rtol=1e-5)
    assert len(np.unique(back[free])) == len(np.unique(x[free].astype(np.float32)))


def test_bent_channels_bound_what_a_wild_reading_can_do():
    rows = np.random.default_rng(0).lognormal(size=(2000, 1))
    scaling = Scaling.fit(rows)
    scaling = replace(scaling, marginals=Marginals.fit(scaling.forward(rows)))
    wild = np.array([[1e9], [1e3], [rows.max()]])
    z = scaling.forward(wild)
    assert (np.diff(z[:, 0]) < 0).all()
    assert z[0, 0] < 40
    np.testing.assert_allclose(scaling.inverse(z), wild, rtol=1e-5)


def test_only_channels_that_burst_are_compressed_early():
    rng = np.random.default_rng(0)
    calm, burst = rng.standard_normal(5000), rng.standard_t(2, 5000)
    one_wild = np.r_[rng.standard_normal(4999), 1e6]
    rows = np.column_stack([calm, burst, one_wild, np.full(5000, 7.0), np.full(5000, np.nan)])
    assert Scaling.fit(rows).knee.tolist() == [CALM_KNEE, KNEE, KNEE, KNEE, KNEE]
    assert Scaling.fit(1e-200 * rows[:, :2]).knee.tolist() == [CALM_KNEE, KNEE]


@given(st.floats(-1e6, 1e6), st.sampled_from([KNEE, CALM_KNEE]))
def test_compressing_can_be_undone(z, knee):
    back = unsquash(squash(np.array([z]), knee), knee)
    np.testing.assert_allclose(back, z, rtol=1e-9, atol=1e-9)
    assert abs(squash(np.array([z]), knee)[0]) <= abs(z) + 1e-9
