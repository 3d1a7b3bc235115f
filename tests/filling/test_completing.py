"""Gaps in training data cost next to nothing: what is filled in keeps the covariance that faults show in."""

import numpy as np
import pytest

from diffad import SeriesImputer, Training
from diffad.filling.completing import LENGTH, complete


def process(n, seed=0):
    """Return four smooth, nearly dependent channels: their small eigenvalues are what gaps destroy."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((n + 200, 2))
    factors = np.stack([np.convolve(f, np.ones(12) / 3, "same") for f in noise.T], 1)[100:-100]
    mix = np.array([[1.0, 0.5, -0.7, 0.3], [0.2, 1.0, 0.6, -0.8]])
    return (factors @ mix + 0.05 * rng.standard_normal((n, 4))).astype(np.float32)


@pytest.fixture(scope="module")
def holes():
    X = process(3000)
    rng = np.random.default_rng(1)
    X[rng.random(X.shape) < 0.05] = np.nan
    for start in range(150, 2900, 300):
        X[start : start + 8] = np.nan
    return X


def test_observed_values_stay_and_gaps_are_filled(holes):
    (filled,) = complete([holes])
    seen = ~np.isnan(holes)
    assert np.array_equal(filled[seen], holes[seen])
    assert not np.isnan(filled).any()


def test_complete_recordings_come_back_as_they_are():
    series = [process(200)]
    assert complete(series) is series


def test_long_outages_stay_missing(holes):
    cut = holes.copy()
    cut[500 : 500 + LENGTH] = np.nan
    (filled,) = complete([cut])
    assert np.isnan(filled[500 : 500 + LENGTH]).all()
    assert not np.isnan(np.delete(filled, range(500, 500 + LENGTH), 0)).any()


def test_draws_keep_the_covariance(holes):
    (filled,) = complete([holes])
    truth = process(3000)
    error = np.abs(np.linalg.eigvalsh(np.cov(filled.T)) / np.linalg.eigvalsh(np.cov(truth.T)) - 1)
    assert error.max() < 0.3


def test_an_imputer_learns_from_gaps_nearly_what_it_learns_from_complete_rows(holes):
    new = process(600, seed=9).astype(float)
    gaps = new.copy()
    gaps[np.random.default_rng(2).random(new.shape) < 0.3] = np.nan
    hidden = np.isnan(gaps)

    def error(training_rows):
        imputer = SeriesImputer(window=16, n_samples=40, training=Training(max_steps=0)).fit(training_rows)
        return np.abs(imputer.transform(gaps) - new)[hidden].mean()

    assert error(holes.astype(float)) < 1.1 * error(process(3000).astype(float))
