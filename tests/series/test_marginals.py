"""Normal scores are normal, rise with the value, come back exactly, and are used only where they help."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from diffad import SeriesImputer, Training
from diffad.metrics import crps
from diffad.series.marginals import FEWEST, Marginals


def readings(seed, n=1500):
    """Return a channel that rests at 0 and bursts, one in coarse steps, one that is heavy-tailed."""
    rng = np.random.default_rng(seed)
    burst = np.maximum(0, rng.standard_normal(n)) ** 3
    return np.stack([burst, np.round(3 * rng.standard_normal(n)), rng.standard_t(2, n)], 1)


def test_scores_of_a_continuous_channel_are_normal():
    x = np.random.default_rng(0).lognormal(size=(3000, 1))
    assert stats.kstest(Marginals.fit(x).forward(x)[:, 0], "norm").pvalue > 0.5


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_what_was_seen_comes_back(seed):
    x = readings(seed)
    marginals = Marginals.fit(x)
    back = marginals.inverse(marginals.forward(x))
    inner = (x > np.quantile(x, 0.001, axis=0)) & (x < np.quantile(x, 0.999, axis=0))
    # Values are looked up in single precision.
    np.testing.assert_allclose(back[inner], x[inner], rtol=1e-5, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_scores_never_fall_with_the_value(seed):
    x = readings(seed)
    line = np.linspace(1.5 * x.min(0), 1.5 * x.max(0), 5000)
    marginals = Marginals.fit(x)
    assert (np.diff(marginals.forward(line), axis=0) >= -1e-12).all()
    assert (np.diff(marginals.inverse(np.linspace(-9, 9, 5000)[:, None].repeat(3, 1)), axis=0) >= -1e-12).all()


def test_a_shared_value_has_the_median_score_of_its_rows_and_owns_their_range():
    x = readings(0)[:, :1]
    share = float(np.mean(x == 0))
    marginals = Marginals.fit(x)
    assert marginals.forward(np.zeros((1, 1)))[0, 0] == pytest.approx(stats.norm.ppf(share / 2), abs=0.05)
    scores = stats.norm.ppf(np.linspace(1e-6, 0.95 * share, 50))[:, None]
    assert (marginals.inverse(scores) == 0).all()


def test_beyond_what_was_seen_channels_go_on_unless_they_end_in_a_shared_value():
    x = readings(0)
    marginals = Marginals.fit(x)
    beyond = marginals.inverse(np.full((1, 3), 6.0))[0]
    assert (beyond[[0, 2]] > x.max(0)[[0, 2]]).all()
    assert marginals.inverse(np.full((1, 3), -9.0))[0, 0] == 0
    assert (marginals.forward(2 * x.max(0)[None]) > marginals.scores[-1]).all()


def test_missing_values_stay_missing_and_short_channels_as_they_are():
    x = readings(0)
    x[FEWEST - 1 :, 1] = np.nan
    marginals = Marginals.fit(x)
    assert marginals.bent.tolist() == [True, False, True]
    z = marginals.forward(x)
    np.testing.assert_array_equal(np.isnan(z), np.isnan(x))
    np.testing.assert_array_equal(z[:, 1], x[:, 1])


def bursts(n, seed):
    """Return two correlated autoregressive channels, cubed."""
    rng = np.random.default_rng(seed)
    x = np.zeros((n, 2))
    for t in range(1, n):
        x[t] = 0.9 * x[t - 1] + 0.4 * (rng.standard_normal(2) + rng.standard_normal())
    return x


def test_the_imputer_bends_bursts_and_leaves_normal_channels_alone():
    normal = bursts(3000, 0)
    assert SeriesImputer(window=16, training=Training(max_steps=0)).fit(normal).scaling_.marginals is None
    train, truth = normal[:2000] ** 3, normal[2000:] ** 3
    gaps = np.where(np.random.default_rng(1).random(truth.shape) < 0.3, np.nan, truth)
    error = {}
    for prior in ("auto", "gaussian"):
        model = SeriesImputer(window=16, prior=prior, training=Training(max_steps=0)).fit(train)
        gap = np.isnan(gaps)
        error[prior] = crps(model.sample(gaps, 40)[:, gap], truth[gap]).mean()
        lower, upper = model.interval(gaps, 0.9)
        assert 0.84 < ((truth >= lower) & (truth <= upper))[gap].mean() < 0.96
    assert error["auto"] < 0.9 * error["gaussian"]


@pytest.mark.parametrize("share", [0.02, 0.09, 0.5])
def test_a_normal_of_a_flags_scores_raises_it_as_often_as_it_was_seen(share):
    rng = np.random.default_rng(0)
    x = (rng.random((4000, 1)) < share).astype(float)
    marginals = Marginals.fit(x)
    scores = marginals.forward(x)
    np.testing.assert_array_equal(marginals.inverse(scores), x)
    drawn = marginals.inverse(scores.mean() + scores.std() * rng.standard_normal((100_000, 1)))
    assert drawn.mean() == pytest.approx(x.mean(), rel=0.15)


def test_steps_keep_their_order_and_their_ranges():
    x = np.random.default_rng(0).poisson(1.0, (5000, 1)).astype(float)
    marginals = Marginals.fit(x)
    steps = np.unique(x)[:, None]
    scores = marginals.forward(steps)
    assert (np.diff(scores[:, 0]) > 0).all()
    np.testing.assert_array_equal(marginals.inverse(scores), steps)
