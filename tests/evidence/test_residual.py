"""What a model leaves over of a channel is its distance to what all else says, in units of what is left unsaid."""

import numpy as np
import pytest
import torch

from diffad.evidence.residual import left_over
from diffad.model import MaskedDiffusion
from diffad.priors import GaussianPrior

LENGTH, CHANNELS = 6, 2


@pytest.fixture
def model():
    root = np.random.default_rng(0).standard_normal((12, 12))
    covariance = root @ root.T / 12 + 0.2 * np.eye(12)
    return MaskedDiffusion(GaussianPrior(torch.linspace(-1, 1, 12), torch.from_numpy(covariance)), LENGTH, CHANNELS)


def expected(model, window, hidden):
    """Return the residuals of hidden entries of a flat window by the precision matrix (NaN: unknown)."""
    known = ~np.isnan(window)
    mean = model.prior.mean.numpy()[known]
    precision = np.linalg.inv(model.prior.covariance.numpy()[np.ix_(known, known)])
    hidden = hidden[known]
    x = window[known] - mean
    spread = np.linalg.inv(precision[np.ix_(hidden, hidden)])
    centre = -spread @ precision[np.ix_(hidden, ~hidden)] @ x[~hidden]
    return (x[hidden] - centre) / np.sqrt(np.diag(spread))


def test_residuals_are_those_of_the_conditional_normal(model):
    rows = np.random.default_rng(1).standard_normal((20, CHANNELS)).astype(np.float32)
    rows[9, 1] = np.nan
    residual = left_over(model, rows)
    for block in range(2, 16, 2):  # a third of the window, two rows, in its middle
        window = rows[block - 2 : block + 4]
        for k in range(CHANNELS):
            hidden = np.zeros((LENGTH, CHANNELS), bool)
            hidden[2:4, k] = True
            seen = ~np.isnan(rows[block : block + 2, k])
            np.testing.assert_allclose(
                residual[block : block + 2, k][seen], expected(model, window.ravel(), hidden.ravel()), atol=1e-3
            )


@pytest.mark.parametrize("n", [1, 2, 5, 6, 7, 31])
def test_any_number_of_rows_has_as_many_residuals_and_missing_ones_stay_so(model, n):
    rows = np.random.default_rng(n).standard_normal((n, CHANNELS)).astype(np.float32)
    rows[n // 2, 0] = np.nan
    residual = left_over(model, rows)
    assert residual.shape == rows.shape
    np.testing.assert_array_equal(np.isnan(residual), np.isnan(rows))


def test_a_fault_in_the_hidden_block_does_not_explain_itself(model):
    rows = np.random.default_rng(2).standard_normal((24, CHANNELS)).astype(np.float32)
    faulty = rows.copy()
    faulty[10:12, 0] += 5
    change = left_over(model, faulty)[10:12, 0] - left_over(model, rows)[10:12, 0]
    hidden = _middle_of_first_channel()
    window = model.condition(~hidden, hidden)
    scale = window.scale[0].view(LENGTH, CHANNELS)[2:4, 0].numpy()
    np.testing.assert_allclose(change, 5 / scale, rtol=1e-3)


def _middle_of_first_channel():
    hidden = torch.zeros(1, LENGTH, CHANNELS, dtype=torch.bool)
    hidden[0, 2:4, 0] = True
    return hidden
