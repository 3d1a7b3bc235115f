"""The oracles of the benchmarks tell the truth: their posteriors agree with closed forms of linear models,
with a density evaluated by scipy, and with what they drew themselves.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import solve_discrete_lyapunov
from scipy.stats import kstest, multivariate_normal

from pipelines.benchmarks.posteriors import (
    GridChain,
    Mixture,
    ParticleChain,
    double_well,
    lorenz96,
    random_mixture,
)

S = 4000
LENGTH = 12


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def gaps(rng):
    """Two channels that begin with a gap, miss single entries, and have an outage."""
    window = rng.standard_normal((LENGTH, 2))
    window[[0, 0, 1, 2, 4, 10], [0, 1, 1, 1, 0, 1]] = np.nan
    window[5:9] = np.nan
    return window


def conditional(covariance, window):
    """Return mean and covariance of hidden entries of a centred normal window, by its precision matrix."""
    flat = window.ravel()
    hidden = np.isnan(flat)
    precision = np.linalg.inv(covariance)
    spread = np.linalg.inv(precision[np.ix_(hidden, hidden)])
    return -spread @ precision[np.ix_(hidden, ~hidden)] @ flat[~hidden], spread


def assert_drawn_from(draws, mean, covariance, slack=1.0):
    """Compare moments; a standard error of S draws is 1 / sqrt(S), and 4.5 of them are allowed."""
    tolerance = slack * 4.5 / np.sqrt(len(draws))
    deviation = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((draws.mean(0) - mean) / deviation, 0, atol=tolerance)
    scaled = (np.cov(draws.T) - covariance) / np.outer(deviation, deviation)
    np.testing.assert_allclose(scaled, 0, atol=tolerance * np.sqrt(2))


def test_one_normal_is_conditioned_as_by_its_precision_matrix(rng):
    root = rng.standard_normal((6, 6))
    covariance = root @ root.T + 0.1 * np.eye(6)
    row = np.array([0.3, np.nan, -1.0, np.nan, np.nan, 0.5])
    draws = Mixture(np.ones(1), np.zeros((1, 6)), covariance[None]).complete(row[None, None], S, rng)
    assert_drawn_from(draws[:, 0, 0][:, np.isnan(row)], *conditional(covariance, row))


@pytest.mark.parametrize("visible", [-1.5, 0.2, 1.0])
def test_a_mixture_follows_its_density_along_a_line(rng, visible):
    weights = np.array([0.3, 0.7])
    means = np.array([[-1.0, 2.0], [1.0, -1.0]])
    covariances = np.array([[[1.0, 0.8], [0.8, 1.0]], [[0.5, -0.3], [-0.3, 0.6]]])
    draws = Mixture(weights, means, covariances).complete(np.array([[[visible, np.nan]]]), S, rng)[:, 0, 0, 1]
    line = np.linspace(-8, 8, 4001)
    places = np.stack([np.full_like(line, visible), line], 1)
    parts = zip(weights, means, covariances, strict=True)
    density = sum(w * multivariate_normal(m, c).pdf(places) for w, m, c in parts)
    total = density.cumsum() / density.sum()
    assert kstest(draws, lambda x: np.interp(x, line, total)).pvalue > 1e-3


def test_a_mixture_draws_rows_of_its_own_moments(rng):
    mixture = random_mixture(3, 4)
    rows = mixture.simulate(40_000, rng)
    mean = mixture.weights @ mixture.means
    off = mixture.means - mean
    covariance = np.einsum("k,kij->ij", mixture.weights, mixture.covariances) + (mixture.weights * off.T) @ off
    assert_drawn_from(rows, mean, covariance)


def test_a_grid_of_a_linear_chain_gives_the_normal_posterior(rng, gaps):
    a, noise, slope, read_noise = 0.8, 0.5, 0.7, 0.4
    chain = GridChain(lambda x: a * x, noise, lambda x: slope * x, read_noise, np.linspace(-6, 6, 301))
    lag = np.abs(np.subtract.outer(np.arange(LENGTH), np.arange(LENGTH)))
    state = noise**2 * a**lag / (1 - a**2)
    reading = np.array([1.0, slope])
    covariance = np.kron(state, np.outer(reading, reading)) + np.kron(np.eye(LENGTH), np.diag([0, read_noise**2]))
    draws = chain.complete(gaps[None], S, rng)[:, 0]
    assert_drawn_from(draws[:, np.isnan(gaps)], *conditional(covariance, gaps))


def test_particles_of_a_linear_chain_give_the_normal_posterior(rng, gaps):
    transition = np.array([[0.5, 0.8], [-0.8, 0.5]])
    noise, read_noise = 0.5, 0.4
    chain = ParticleChain(lambda x: x @ transition.T, noise, read_noise, 2, n_particles=2000)
    stationary = solve_discrete_lyapunov(transition, noise**2 * np.eye(2))
    covariance = np.zeros((LENGTH, 2, LENGTH, 2))
    for s in range(LENGTH):
        for t in range(s, LENGTH):
            covariance[t, :, s] = np.linalg.matrix_power(transition, t - s) @ stationary
            covariance[s, :, t] = covariance[t, :, s].T
    covariance = covariance.reshape(2 * LENGTH, -1) + read_noise**2 * np.eye(2 * LENGTH)
    draws = chain.complete(gaps[None], 1500, rng)[:, 0]
    # The particles' own error comes on top of that of the draws.
    assert_drawn_from(draws[:, np.isnan(gaps)], *conditional(covariance, gaps), slack=1.5)


def test_a_double_well_dwells_in_both_wells_as_its_grid_says(rng):
    chain = double_well()
    x = chain.simulate(60_000, rng)[:, 0]
    places = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    expected = np.interp(places, chain.grid, chain.stationary.cumsum())
    # About 900 stays of 70 steps: a standard error of 1 / sqrt(900) / 2 at the middle.
    np.testing.assert_allclose((x[:, None] <= places).mean(0), expected, atol=0.06)


@pytest.mark.parametrize(
    ("process", "length", "n"),
    [(random_mixture(), 2, 100), (double_well(), 16, 40), (ParticleChain(lorenz96().step, 0.5, 0.7, 5, 1000), 16, 40)],
    ids=["mixture", "double-well", "Lorenz-96"],
)
def test_the_truth_has_any_rank_among_the_draws(rng, process, length, n):
    truth = process.simulate(n * length, rng).reshape(n, length, -1)
    hidden = rng.random(truth.shape) < 0.5
    draws = process.complete(np.where(hidden, np.nan, truth), 19, rng)
    share = (draws < truth).mean(0)[hidden]
    quarters = np.histogram(share, 4, (-0.01, 1.01))[0] / hidden.sum()
    np.testing.assert_allclose(quarters, 0.25, atol=0.06)


@pytest.mark.parametrize("process", [random_mixture(2, 5), double_well(), lorenz96()], ids=["mixture", "grid", "ring"])
def test_visible_entries_stay_and_hidden_ones_are_filled(rng, process):
    gaps = process.simulate(12, rng).reshape(3, 4, -1)
    gaps[0, 1:3] = np.nan
    gaps[1, :, 1] = np.nan
    gaps[2] = np.nan
    draws = process.complete(gaps, 3, rng)
    assert draws.shape == (3, *gaps.shape)
    assert np.isfinite(draws).all()
    seen = ~np.isnan(gaps)
    assert (draws[:, seen] == gaps[seen]).all()
