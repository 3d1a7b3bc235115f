"""Gaps longer than a window, against processes whose conditional distribution is known exactly."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from diffad import SeriesImputer, Training
from diffad.filling.levels import with_free_levels
from diffad.filling.long_gaps import across, long_runs, stretches
from diffad.model import MaskedDiffusion
from diffad.priors import CyclicPrior, GaussianPrior

WINDOW = 16


def autoregressive(phi, n, channels=1):
    """Return the covariance (n, n) of a first-order autoregression, each channel by itself."""
    lag = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    return np.kron(phi**lag, np.eye(channels))


def model_of(phi):
    covariance = torch.from_numpy(autoregressive(phi, WINDOW))
    return MaskedDiffusion(GaussianPrior(torch.zeros(WINDOW), covariance), WINDOW, 1)


def exact(phi, rows):
    """Return the conditional mean and deviation of the missing rows."""
    hidden, covariance = np.isnan(rows[:, 0]), autoregressive(phi, len(rows))
    gain = covariance[np.ix_(hidden, ~hidden)] @ np.linalg.inv(covariance[np.ix_(~hidden, ~hidden)])
    rest = covariance[np.ix_(hidden, hidden)] - gain @ covariance[np.ix_(~hidden, hidden)]
    return gain @ rows[~hidden, 0], np.sqrt(rest.diagonal())


def walk(phi, n, seed=0):
    return np.linalg.cholesky(autoregressive(phi, n)) @ np.random.default_rng(seed).standard_normal((n, 1))


@pytest.mark.parametrize("end", [90, 120], ids=["between two ends", "a forecast"])
@pytest.mark.parametrize("phi", [0.95, 0.98, 0.998])
def test_a_long_gap_of_a_markov_process_is_filled_as_if_the_window_had_no_end(phi, end):
    rows = walk(phi, 120).astype(np.float32)
    rows[40:end] = np.nan
    noise = np.random.default_rng(1).standard_normal((600, 120, 1), dtype=np.float32)
    told, better = across(model_of(phi), rows, np.isnan(rows), noise)
    mean, deviation = exact(phi, rows)
    hidden = np.isnan(rows[:, 0])
    error = (told.middle[hidden, 0] - mean) / deviation
    assert np.sqrt((error**2).mean()) < 0.2
    np.testing.assert_allclose(np.sqrt(told.variance[hidden, 0]), deviation, rtol=0.13)
    np.testing.assert_allclose(told.deviations.std(0)[hidden, 0], np.sqrt(told.variance[hidden, 0]), rtol=0.02)
    assert better[hidden].mean() > 0.3


def test_samples_of_a_walk_are_paths_and_not_noise():
    rows = walk(0.998, 120).astype(np.float32)
    rows[40:90] = np.nan
    noise = np.random.default_rng(1).standard_normal((400, 120, 1), dtype=np.float32)
    told, _ = across(model_of(0.998), rows, np.isnan(rows), noise)
    steps = np.diff(told.middle + told.deviations, axis=1)[:, 39:90, 0]
    assert np.sqrt((steps**2).mean()) == pytest.approx(np.sqrt(1 - 0.998**2), rel=0.25)


def test_a_process_that_forgets_is_left_to_the_windows():
    rows = walk(0.3, 120).astype(np.float32)
    rows[40:90] = np.nan
    noise = np.random.default_rng(1).standard_normal((400, 120, 1), dtype=np.float32)
    _, better = across(model_of(0.3), rows, np.isnan(rows), noise)
    assert better.sum() <= 3


@settings(max_examples=50, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 60), st.integers(1, 3))), st.integers(2, 12))
def test_long_runs_are_those_counted_by_hand(missing, length):
    expected = np.zeros_like(missing)
    for k in range(missing.shape[1]):
        for i in range(len(missing)):
            left = right = i
            while left >= 0 and missing[left, k]:
                left -= 1
            while right < len(missing) and missing[right, k]:
                right += 1
            expected[i, k] = right - left - 1 > length // 2
    np.testing.assert_array_equal(long_runs(missing, length), expected)


def test_stretches_hold_every_long_run_once_and_are_bounded(monkeypatch):
    monkeypatch.setattr("diffad.filling.long_gaps.MOST_ENTRIES", 8000)
    runs = np.zeros((20_000, 2), bool)
    runs[100:130, 0] = runs[160:190, 1] = runs[5000:14_000, 0] = True
    found = list(stretches(runs, WINDOW))
    assert found[0] == (slice(100 - WINDOW, 190 + WINDOW), slice(100, 190))
    told = np.concatenate([np.arange(wanted.start, wanted.stop) for _, wanted in found])
    assert len(np.unique(told)) == len(told)
    assert np.isin(np.flatnonzero(runs.any(1)), told).all()
    assert max(here.stop - here.start for here, _ in found) <= 4000 + 2 * WINDOW


@pytest.fixture(scope="module")
def daily():
    """Return two channels with a day of 24 rows, and an imputer that saw most of them."""
    rng = np.random.default_rng(0)
    hour = np.arange(1600)
    X = np.c_[np.sin(hour / 12 * np.pi), (hour % 24 < 9) * 5.0] + 0.1 * rng.standard_normal((1600, 2))
    return X, SeriesImputer(training=Training(max_steps=0)).fit(X[:1200])


def test_a_forecast_goes_on_in_time_and_says_how_sure_it_is(daily):
    X, imputer = daily
    gap = X[:1400].copy()
    gap[1250:] = np.nan
    error = np.abs(imputer.transform(gap) - X[:1400])[1250:]
    assert error.mean(0)[0] < 0.15 and error.mean(0)[1] < 0.5
    lower, upper = (edge[1250:] for edge in imputer.interval(gap, 0.9))
    assert 0.85 < ((lower <= X[1250:1400]) & (X[1250:1400] <= upper)).mean() <= 0.99
    samples = imputer.sample(gap, n_samples=3)
    assert np.array_equal(samples, imputer.sample(gap, n_samples=3))
    np.testing.assert_array_equal(samples[:, :1250], np.broadcast_to(X[:1250], (3, 1250, 2)))


def test_a_short_gap_is_filled_as_before_beside_a_long_one(daily):
    X, imputer = daily
    short = X[:600].copy()
    short[100:110, 0] = np.nan
    both = short.copy()
    both[400:500, 1] = np.nan
    np.testing.assert_array_equal(imputer.transform(both)[100:110], imputer.transform(short)[100:110])


def test_what_is_known_from_other_channels_is_not_known_twice():
    rng = np.random.default_rng(0)
    driver = np.convolve(rng.standard_normal(2049), np.ones(50) / 7, "valid")
    X = np.c_[driver, driver + 0.2 * rng.standard_normal(len(driver))]
    imputer = SeriesImputer(training=Training(max_steps=0)).fit(X[:1400])
    gap = X[1400:].copy()
    gap[200:400, 0] = np.nan
    lower, upper = (edge[200:400, 0] for edge in imputer.interval(gap, 0.9))
    assert 0.8 < ((lower <= X[1600:1800, 0]) & (X[1600:1800, 0] <= upper)).mean() <= 0.99


class Shift(torch.nn.Module):
    """A network that moves every hidden entry alike: velocity (n, length, channels) -> the same everywhere."""

    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, inputs, theta):
        return torch.full(inputs.shape[:-1], self.by)


@pytest.mark.parametrize("by", [0.0, 0.3])
@pytest.mark.parametrize("free", [False, True])
def test_a_network_moves_the_middle_by_what_it_says_about_windows(by, free):
    rows = walk(0.98, 120).astype(np.float32)
    rows[40:90] = np.nan
    noise = np.random.default_rng(1).standard_normal((40, 120, 1), dtype=np.float32)
    closed, learnt = model_of(0.98), model_of(0.98)
    learnt.network, learnt.gate = Shift(by), torch.ones_like(learnt.gate)
    if free:
        closed.carrier = learnt.carrier = with_free_levels(closed.prior, WINDOW, np.array([True]))
    (plain, _), (moved, _) = (across(m, rows, np.isnan(rows), noise) for m in (closed, learnt))
    shift = (moved.middle - plain.middle)[np.isnan(rows)]
    assert np.abs(shift).max() < 1e-5 if by == 0 else (np.abs(shift) > 0.05).mean() > 0.9
    np.testing.assert_array_equal(moved.variance, plain.variance)


def test_both_passes_may_know_the_phase_of_a_cycle_and_no_more():
    """Inside a long outage of a cycle with noise around it, what is known is the cycle: its noise counts once."""
    rng, t = np.random.default_rng(0), np.arange(3000)[:, None]
    cycle = 3 * np.sin(2 * np.pi * t / 24 + np.arange(2))
    rows = cycle + 0.3 * rng.standard_normal((3000, 2))
    imputer = SeriesImputer(window=24, training=Training(max_steps=0)).fit(rows[:2000])
    assert isinstance(imputer.model_.prior, CyclicPrior), "the cycle is meant to be found"
    gaps = rows[2000:].copy()
    for start in range(40, 900, 120):
        gaps[start : start + 60] = np.nan
    hidden = np.isnan(gaps)
    lower, upper = imputer.interval(gaps, 0.9)
    assert ((lower <= rows[2000:]) & (rows[2000:] <= upper))[hidden].mean() == pytest.approx(0.9, abs=0.05)
    spread = imputer.sample(gaps, 40).std(0)[hidden].mean()
    assert spread == pytest.approx(0.3, rel=0.15)


@pytest.mark.parametrize("edge", ["leading", "trailing"])
def test_the_phase_of_a_cycle_lives_on_to_the_edge_of_a_recording(edge):
    """Where a recording begins or ends with an outage one pass alone knows the phase; the other must not blur it."""
    rng, t = np.random.default_rng(0), np.arange(2600)
    cycle = np.stack([np.isin((t + k) % 12, (0, 1, 2)).astype(float) for k in (0, 5)], 1)
    rows = cycle + 0.5 * rng.standard_normal(cycle.shape)
    imputer = SeriesImputer(window=24, training=Training(max_steps=0)).fit(rows[:2000])
    assert isinstance(imputer.model_.prior, CyclicPrior), "the cycle is meant to be found"
    gap = slice(0, 100) if edge == "leading" else slice(500, 600)
    gaps = rows[2000:].copy()
    gaps[gap] = np.nan
    truth = cycle[2000:][gap] - cycle[2000:][gap].mean(0)
    swing = (imputer.transform(gaps)[gap] * truth).sum() / (truth**2).sum()
    assert swing > 0.78, f"{swing:.2f} of the cycle is left"
