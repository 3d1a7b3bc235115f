"""Cycles are found where there are some, and nowhere else."""

import numpy as np
import pytest

from diffad import SeriesImputer, Training
from diffad.priors import CyclicPrior
from diffad.series.seasonality import find_period, mean_cycle


def strokes(rows, period, noise=0.3, channels=2, start=0, seed=0):
    """A sawtooth with a spike: rich in harmonics, standard deviation about 1."""
    phase = (np.arange(rows) + start) % period
    shape = 3.4 * (phase / period - 0.5) + 2.0 * (phase == 1)
    rng = np.random.default_rng(seed)
    columns = [shape * (-1) ** k + noise * rng.normal(size=rows) for k in range(channels)]
    return np.stack(columns, 1).astype(np.float32)


@pytest.mark.parametrize("period", [5, 12, 24, 37, 90])
def test_period_is_found_in_noise_drift_and_gaps(period):
    rng = np.random.default_rng(1)
    x = strokes(1200, period) + np.cumsum(0.05 * rng.normal(size=(1200, 2)), 0).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    assert find_period([x], 96) == period


@pytest.mark.parametrize("seed", range(5))
def test_no_period_is_found_in_noise_and_random_walks(seed):
    noise = np.random.default_rng(seed).normal(size=(2000, 3)).astype(np.float32)
    assert find_period([noise], 96) is None
    walk = np.cumsum(noise, 0)
    assert find_period([walk / walk.std(0)], 96) is None


def test_period_must_repeat_within_the_recording():
    assert find_period([strokes(5 * 40, 40)], 96) is None
    assert find_period([strokes(12, 40)], 96) is None


def test_mean_cycle_is_the_shape_in_each_channels_level():
    x = strokes(2400, 24, noise=0.1) + 5
    cycle = mean_cycle([x], 24)
    np.testing.assert_allclose(cycle, strokes(24, 24, noise=0.0) + 5, atol=0.05)


def test_series_out_of_phase_are_aligned_with_the_longest():
    pieces = [strokes(1200, 24, start=s, seed=s) for s in (0, 7, 15)]
    alone, together = mean_cycle(pieces[:1], 24), mean_cycle(pieces, 24)
    truth = strokes(24, 24, noise=0.0)
    truth = truth - truth.mean(0) + np.concatenate(pieces).mean(0)
    assert np.abs(together - truth).mean() < np.abs(alone - truth).mean()
    np.testing.assert_allclose(together, truth, atol=0.08)


def test_an_imputer_takes_the_cycle_where_it_helps():
    x = strokes(1500, 24, noise=0.5)
    imputer = SeriesImputer(window=24, training=Training(max_steps=0)).fit(x)
    assert isinstance(imputer.model_.prior, CyclicPrior)
    noise = np.random.default_rng(0).normal(size=(1500, 2))
    assert not isinstance(imputer.fit(noise).model_.prior, CyclicPrior)
    assert not isinstance(imputer.set_params(prior="gaussian").fit(x).model_.prior, CyclicPrior)
