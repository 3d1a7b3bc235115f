"""How far a denoiser moves rows, against Gaussians and mixtures whose denoisers are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffad import Training
from diffad.rows.residual import RIDGE, SIGMA, RowResidual, together

CPU = torch.device("cpu")
#: Two separate kinds of rows in the second of two independent columns.
CENTRES, WITHIN = np.array([-1.0, 1.0]), 0.3


def two_kinds(n, seed):
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.standard_normal(n), rng.choice(CENTRES, n) + WITHIN * rng.standard_normal(n)])


def moves_of_a_gaussian(rows, mean, covariance):
    """Return log squared moves (n,): noise of size sigma shrinks a direction of variance v by v / (v + ...)."""
    values, vectors = np.linalg.eigh(covariance)
    standard = (rows - mean) @ vectors / np.sqrt(values)
    noise = SIGMA**2 * (values + RIDGE) / values  # in each direction's own variance
    return np.log(standard**2 @ (noise / (1 + noise)))


def moves_of_two_kinds(rows, covariance):
    """Return the same for rows of `two_kinds`, by the posterior mean of a mixture, column by column."""
    total = np.zeros(len(rows))
    for j, centres in enumerate(([0.0], CENTRES)):
        v = covariance[j, j]
        within = 1.0 if j == 0 else WITHIN**2
        noise = SIGMA**2 * (v + RIDGE)
        # The network is shown the row shrunk as a noisy one would be; this is the noisy row it stands for.
        seen = rows[:, j]
        weight = np.exp(-((seen[:, None] - centres) ** 2) / (2 * (within + noise)))
        weight /= weight.sum(1, keepdims=True)
        best = (weight * (centres + within / (within + noise) * (seen[:, None] - centres))).sum(1)
        # In units of the Gaussian's own doubt about the clean value.
        total += (seen - best) ** 2 / (v * noise / (v + noise))
    return np.log(total)


def test_an_untrained_network_moves_rows_as_their_gaussian_does():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((400, 4)) @ rng.standard_normal((4, 4)) + 5
    residual, history = RowResidual.fit(rows, Training(max_steps=0), 0, CPU)
    new = rows[:50] + rng.standard_normal((50, 4))
    expected = moves_of_a_gaussian(new, rows.mean(0), np.cov(rows.T))
    np.testing.assert_allclose(residual(new), expected, rtol=1e-3, atol=1e-3)
    assert history == []


def test_a_trained_network_learns_that_there_are_two_kinds():
    rows = two_kinds(4000, 0)
    rows = (rows - rows.mean(0)) / 1.0
    residual, history = RowResidual.fit(rows, Training(max_steps=800), 0, CPU)
    new = np.column_stack([np.zeros(41), np.linspace(-2, 2, 41)])
    found, exact = residual(new), moves_of_two_kinds(new, np.cov(rows.T))
    gaussian = moves_of_a_gaussian(new, rows.mean(0), np.cov(rows.T))
    # Between the kinds, where no row is, and at their outer edges: what matters is how large, not how small a move is.
    far = exact > np.log(0.05)
    error, before = (np.abs(m - exact)[far].mean() for m in (found, gaussian))
    assert far.sum() > 30 and error < 0.35 < before / 3
    assert {"step", "seconds", "loss"} <= set(history[-1]) and history[-1]["step"] == 800


def test_equal_seeds_give_equal_bits_and_torch_is_left_alone():
    rows, state = two_kinds(200, 0), torch.get_rng_state()
    first, second, other = (RowResidual.fit(rows, Training(max_steps=20), s, CPU)[0](rows) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()
    assert torch.equal(torch.get_rng_state(), state)


def test_a_rows_moves_do_not_depend_on_other_rows(monkeypatch):
    rows = two_kinds(300, 0)
    residual, _ = RowResidual.fit(rows, Training(max_steps=20), 0, CPU)
    whole = residual(rows)
    monkeypatch.setattr("diffad.rows.residual.CHUNK", 7)
    np.testing.assert_allclose(residual(rows), whole, rtol=1e-4, atol=1e-4)
    assert residual(rows[:0]).shape == (0,)


@pytest.mark.parametrize("far", [1e3, 1e9, 1e30, 1e200])
def test_the_farther_a_row_the_larger_its_move_and_none_is_infinite(far):
    rows = two_kinds(300, 0)
    residual, _ = RowResidual.fit(rows, Training(max_steps=20), 0, CPU)
    moves = residual(np.array([[0.0, 1.0], [0.0, 10.0], [0.0, far]]))
    assert np.isfinite(moves).all() and (np.diff(moves) > 0).all()


def test_columns_that_hardly_vary_or_never_do_are_no_obstacle():
    rows = np.column_stack([two_kinds(100, 0), np.zeros(100), 1e-9 * np.arange(100)])
    residual, _ = RowResidual.fit(rows, Training(max_steps=20), 0, CPU)
    assert np.isfinite(residual(rows)).all()


def test_networks_judge_together_by_their_mean():
    rows = two_kinds(200, 0)
    networks = [RowResidual.fit(rows[i::2], Training(max_steps=10), i, CPU)[0] for i in range(2)]
    np.testing.assert_allclose(together(networks, rows), (networks[0](rows) + networks[1](rows)) / 2)


@pytest.mark.gpu
def test_cuda_moves_rows_about_as_the_cpu_does():
    rows = two_kinds(1000, 0)
    devices = (CPU, torch.device("cuda"))
    on_cpu, on_gpu = (RowResidual.fit(rows, Training(max_steps=200), 0, device)[0](rows) for device in devices)
    assert np.corrcoef(on_cpu, on_gpu)[0, 1] > 0.9
