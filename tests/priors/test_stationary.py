"""A covariance that depends on the lag only: exact where that is the truth, and better where rows are few."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import toeplitz

from diffad import SeriesImputer, Training
from diffad.metrics import coverage
from diffad.priors import GaussianPrior, gaussian_of_few, stationary_covariance

LENGTH, CHANNELS = 12, 3


def truth(rhythm=(0.9, 0.9, 0.9)):
    """Covariance of AR(1) channels that share a rhythm or not; innovations correlate."""
    shared = np.array([[1.0, 0.6, 0.3], [0.6, 1.0, 0.5], [0.3, 0.5, 1.0]])
    factors = [np.linalg.cholesky(toeplitz(a ** np.arange(LENGTH))) for a in rhythm]
    blocks = np.einsum("ilk,ij,jmk->limj", factors, shared, factors)
    return torch.from_numpy(blocks.reshape(LENGTH * CHANNELS, -1))


@pytest.mark.parametrize("rhythm", [(0.9, 0.9, 0.9), (0.2, 0.6, 0.95)])
def test_a_stationary_covariance_comes_back(rhythm):
    expected = truth(rhythm)
    torch.testing.assert_close(stationary_covariance(expected, LENGTH, CHANNELS), expected, atol=1e-6, rtol=1e-6)


def test_few_windows_give_a_better_covariance_with_it():
    expected = truth()
    rng = np.random.default_rng(0)
    x = torch.from_numpy(
        rng.multivariate_normal(np.zeros(len(expected)), expected.numpy(), 60, method="cholesky")
    ).float()
    sample = GaussianPrior.fit(x, torch.ones_like(x, dtype=torch.bool)).covariance
    stationary = stationary_covariance(sample, LENGTH, CHANNELS)
    error = {name: float(_divergence(found, expected)) for name, found in (("own", sample), ("even", stationary))}
    assert error["even"] < 0.8 * error["own"]
    assert float(torch.linalg.eigvalsh(stationary).min()) > 0


def _divergence(found, expected):
    """Kullback-Leibler divergence of the normal found from the true one, up to its constant and factor."""
    return torch.trace(torch.linalg.solve(found, expected)) + torch.logdet(found) - torch.logdet(expected) - len(found)


@pytest.mark.parametrize("covariance", [torch.eye(36), torch.ones(36, 36) + 1e-3 * torch.eye(36)])
def test_degenerate_covariances_give_a_positive_definite_one(covariance):
    found = stationary_covariance(covariance, LENGTH, CHANNELS)
    assert found.dtype == torch.float64
    torch.linalg.cholesky(found)


@pytest.mark.parametrize("rows", [600, 150])  # 150 rows are too few to hold any out
def test_many_channels_and_few_rows_are_filled_better_than_by_a_plain_gaussian(rows):
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((16, 16)) / 4
    noise = rng.standard_normal((1200, 16)) @ mixing
    process = np.zeros_like(noise)
    for t in range(1, len(process)):
        process[t] = 0.9 * process[t - 1] + noise[t]
    train, later = process[:rows], process[600:]
    gaps = np.where(rng.random(later.shape) < 0.3, np.nan, later)
    error = {}
    for prior in ("gaussian", "auto"):
        model = SeriesImputer(window=24, prior=prior, training=Training(max_steps=0)).fit(train)
        error[prior] = np.abs(model.transform(gaps) - later)[np.isnan(gaps)].mean()
    assert error["auto"] < 0.9 * error["gaussian"]


def smooth(rows, channels, seed):
    """Channels whose levels wander smoothly, tied to three that nobody sees."""
    rng = np.random.default_rng(seed)
    steps = np.zeros((rows + 50, 3))
    for t in range(1, len(steps)):
        steps[t] = 0.9 * steps[t - 1] + rng.standard_normal(3)
    hidden = np.cumsum(steps, 0)[50:]
    return hidden @ rng.standard_normal((3, channels)) + 0.02 * rng.standard_normal((rows, channels))


def windows_of(rows, length=LENGTH):
    return torch.from_numpy(np.lib.stride_tricks.sliding_window_view(rows, length, 0).swapaxes(1, 2).copy()).float()


def test_of_many_windows_the_sample_covariance_is_kept():
    rng = np.random.default_rng(0)
    windows = windows_of(rng.standard_normal((50_000, 2)) @ np.array([[1.0, 0.4], [0.0, 2.0]]))
    # Channels that follow each other are no target's: only the sample knows.
    windows[:, 1:, 1] += windows[:, :-1, 0]
    found = gaussian_of_few(windows)
    expected = torch.cov(windows.flatten(1).double().T)
    torch.testing.assert_close(found.covariance, expected, atol=0.1, rtol=0)
    torch.testing.assert_close(found.mean, windows.flatten(1).double().mean(0), atol=1e-6, rtol=0)


def test_of_few_windows_it_is_nine_tenths_stationary():
    windows = windows_of(smooth(60, 4, 0))
    windows /= windows.std((0, 1))
    found = gaussian_of_few(windows)
    sample = torch.cov(windows.flatten(1).double().T, correction=0) + 1e-4 * torch.eye(LENGTH * 4)
    expected = 0.9 * stationary_covariance(sample, LENGTH, 4) + 0.1 * sample
    torch.testing.assert_close(found.covariance, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_gaps_leave_it_positive_definite(share):
    windows = windows_of(smooth(40, 8, 1))
    windows[torch.rand(windows.shape, generator=torch.Generator().manual_seed(0)) < share] = torch.nan
    torch.linalg.cholesky(gaussian_of_few(windows).covariance)


def test_a_channel_that_never_moves_is_no_trouble():
    windows = windows_of(np.stack([np.sin(np.arange(60) / 4), np.zeros(60)], 1))
    given = gaussian_of_few(windows).condition(
        torch.tensor([[True, False] * LENGTH]), torch.tensor([[False, True] * LENGTH])
    )
    assert float(given.explain(windows[None, :1].flatten(2))[0, 0, 1::2].abs().max()) < 0.05


@pytest.mark.parametrize("seed", range(3))
def test_few_rows_of_many_smooth_channels_are_filled_better_than_by_lines(seed):
    rows = smooth(120, 20, seed)
    rows /= rows.std(0)
    hidden = np.random.default_rng(seed).random(rows.shape) < 0.1
    gaps = np.where(hidden, np.nan, rows)
    imputer = SeriesImputer(training=None).fit(gaps)
    lines = pd.DataFrame(gaps).interpolate(limit_direction="both").to_numpy()
    own, line = (np.abs(found - rows)[hidden].mean() for found in (imputer.transform(gaps), lines))
    assert own < line
    low, high = imputer.interval(gaps, 0.9)
    assert coverage(low[hidden], high[hidden], rows[hidden]) > 0.8
