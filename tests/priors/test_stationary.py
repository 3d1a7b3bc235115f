"""A covariance that depends on the lag only: exact where that is the truth, and better where rows are few."""

import numpy as np
import pytest
import torch
from scipy.linalg import toeplitz

from diffad import SeriesImputer, Training
from diffad.priors import GaussianPrior, stationary_covariance

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
