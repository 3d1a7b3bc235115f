"""The shrunk covariance is scikit-learn's on complete rows, and stays usable when entries are missing."""

import numpy as np
import pytest
import sklearn.covariance
import torch

from diffad.priors.covariance import eigh, ledoit_wolf


def correlated(n, d, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + rng.standard_normal(d)


@pytest.mark.parametrize(("n", "d"), [(5, 20), (60, 7), (3000, 12), (2, 2)])
def test_equals_scikit_learn_on_complete_rows(n, d):
    x = correlated(n, d)
    mean, covariance, shrinkage = ledoit_wolf(torch.from_numpy(x), torch.ones(n, d, dtype=torch.bool))
    expected, weight = sklearn.covariance.ledoit_wolf(x)
    np.testing.assert_allclose(mean.numpy(), x.mean(0), rtol=1e-10)
    np.testing.assert_allclose(covariance.numpy(), expected, rtol=1e-8, atol=1e-10 * np.abs(expected).max())
    assert shrinkage == pytest.approx(weight, rel=1e-8)


def test_one_column_is_its_variance():
    x = correlated(40, 1)
    _, covariance, _ = ledoit_wolf(torch.from_numpy(x), torch.ones(40, 1, dtype=torch.bool))
    assert float(covariance) == pytest.approx(x.var())


def test_rows_may_come_in_chunks():
    x = torch.from_numpy(correlated(50, 6))
    known = torch.rand(50, 6, generator=torch.Generator().manual_seed(0)) < 0.8
    whole, parts = ledoit_wolf(x, known), ledoit_wolf(x, known, chunk=7)
    torch.testing.assert_close(parts, whole)  # float64 sums in another order


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e9])
def test_unknown_values_are_never_read(garbage):
    x = torch.from_numpy(correlated(80, 5))
    known = torch.rand(80, 5, generator=torch.Generator().manual_seed(1)) < 0.7
    expected = ledoit_wolf(x, known)
    torch.testing.assert_close(ledoit_wolf(torch.where(known, x, garbage), known), expected, rtol=0, atol=0)


def test_missing_at_random_hardly_moves_the_estimate():
    x = correlated(20_000, 6)
    known = np.random.default_rng(2).random(x.shape) < 0.7
    mean, covariance, _ = ledoit_wolf(torch.from_numpy(x), torch.from_numpy(known))
    deviation = np.sqrt(np.diag(np.cov(x.T)))
    # Pairs known together: 9,800 rows, a standard error of about 0.01 per correlation.
    np.testing.assert_allclose(mean.numpy() / deviation, x.mean(0) / deviation, atol=0.05)
    np.testing.assert_allclose(covariance.numpy() / np.outer(deviation, deviation), np.corrcoef(x.T), atol=0.06)


def test_pairwise_moments_that_contradict_each_other_become_positive_definite():
    """Three columns, each pair seen apart and strongly tied: the correlations 1, 1, -1 are impossible."""
    rng = np.random.default_rng(0)
    x, known = np.zeros((300, 3)), np.zeros((300, 3), bool)
    for block, (i, j, sign) in enumerate([(0, 1, 1), (1, 2, 1), (0, 2, -1)]):
        rows = slice(100 * block, 100 * block + 100)
        z = rng.standard_normal(100)
        x[rows, i], x[rows, j] = z, sign * z
        known[rows, i] = known[rows, j] = True
    _, covariance, _ = ledoit_wolf(torch.from_numpy(x), torch.from_numpy(known))
    values = np.linalg.eigvalsh(covariance.numpy())
    assert values.min() > 1e-5 * values.max()


def test_a_column_that_was_never_observed_is_harmless():
    x = torch.from_numpy(correlated(50, 4))
    known = torch.ones(50, 4, dtype=torch.bool)
    known[:, 2] = False
    mean, covariance, _ = ledoit_wolf(torch.where(known, x, torch.nan), known)
    assert float(mean[2]) == 0
    assert np.linalg.eigvalsh(covariance.numpy()).min() > 0


def test_constant_rows_have_no_covariance():
    mean, covariance, shrinkage = ledoit_wolf(torch.full((9, 3), 4.0), torch.ones(9, 3, dtype=torch.bool))
    assert mean.tolist() == [4, 4, 4]
    assert not bool(covariance.any())
    assert 0 <= shrinkage <= 1


def test_eigenvalues_survive_a_driver_that_gives_up(monkeypatch):
    """The first call fails as LAPACK's divide and conquer does; the second must see a near-equal matrix."""
    driver, calls = torch.linalg.eigh, []

    def gives_up_once(matrix):
        calls.append(matrix)
        if len(calls) == 1:
            raise torch.linalg.LinAlgError("failed to converge (too many repeated eigenvalues)")
        return driver(matrix)

    matrix = torch.eye(5, dtype=torch.float64) + 0.5
    monkeypatch.setattr(torch.linalg, "eigh", gives_up_once)
    values, vectors = eigh(matrix)
    monkeypatch.undo()
    assert len(calls) == 2
    np.testing.assert_allclose(values.numpy(), np.linalg.eigvalsh(matrix.numpy()), atol=1e-7)
    np.testing.assert_allclose(((vectors * values) @ vectors.T).numpy(), matrix.numpy(), atol=1e-7)
