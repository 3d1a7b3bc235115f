"""The diffusion of rows: what a Gaussian cannot tell of a ring, which share it gets, and what stays as it was."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffad import TabularImputer, Training
from diffad.rows.diffusion import RowDiffusion

TINY = Training(max_steps=300, masks_per_batch=16, windows_per_mask=2, evaluate_every=100)
#: Enough where there is nothing to learn.
TINIER = replace(TINY, max_steps=100)
CPU = torch.device("cpu")


def ring(n, seed):
    """Return points around a ring and their angle's double: given two columns the third is known up to noise."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, n)
    points = np.stack([np.cos(angle), np.sin(angle), np.sin(2 * angle)], 1)
    return np.sqrt(2) * points + 0.05 * rng.standard_normal((n, 3))


@pytest.fixture(scope="module")
def learnt():
    found, history = RowDiffusion.fit(ring(2000, 0), np.ones((2000, 3), bool), np.arange(3), TINY, 0, CPU)
    assert [h["step"] for h in history] == [100, 200, 300]
    return found


def test_it_tells_what_a_gaussian_of_uncorrelated_columns_cannot(learnt):
    rows = ring(200, 1)
    holes = rows.copy()
    holes[:, 2] = np.nan
    expected = learnt.condition(torch.from_numpy(holes)).marginals().mean().numpy()
    # The columns are uncorrelated, so that a Gaussian expects the mean: an error of 1.
    assert np.sqrt(np.mean((expected - rows[:, 2]) ** 2)) < 0.5


def test_both_sides_of_a_ring_are_drawn(learnt):
    x = torch.tensor([[0.0, torch.nan, torch.nan]], dtype=torch.float64)
    conditional = learnt.condition(x)
    second = conditional.means[0, :, 1]
    assert bool((second > 0.7).any()) and bool((second < -0.7).any())
    assert bool((conditional.means[0, :, 0] == 0).all())
    torch.testing.assert_close(conditional.log_weights.exp().sum(1), torch.ones(1, dtype=torch.float64))


def test_rows_do_not_depend_on_their_neighbours(learnt):
    holes = torch.from_numpy(np.where(np.random.default_rng(0).random((20, 3)) < 0.4, np.nan, ring(20, 2)))
    together = learnt.condition(holes)
    for i in range(20):
        alone = learnt.condition(holes[i : i + 1])
        torch.testing.assert_close(together.means[i], alone.means[0], atol=1e-5, rtol=1e-5)


def test_noise_of_its_own_teaches_nothing():
    noise = np.random.default_rng(0).standard_normal((600, 4))
    found, history = RowDiffusion.fit(noise, np.ones(noise.shape, bool), np.arange(4), TINIER, 0, CPU)
    assert found is None and history


def test_the_share_of_the_pool_is_that_of_the_least_held_out_loss(monkeypatch):
    monkeypatch.setattr("diffad.rows.diffusion.N_DRAWS", 16)
    imputer = TabularImputer(prior="gaussian", training=TINY).fit(ring(600, 0))
    assert imputer.prior_.endswith("gaussian + network")
    least = min(imputer.losses_, key=imputer.losses_.get)
    assert "network" in least and imputer.filler_.model.shares[1] == float(least.split()[-1])
    rows = ring(100, 1)
    holes = rows.copy()
    holes[:, 2] = np.nan
    plain = TabularImputer(prior="gaussian").fit(ring(600, 0))
    error = [np.abs(i.transform(holes) - rows)[:, 2].mean() for i in (imputer, plain)]
    assert error[0] < 0.6 * error[1]
    # Bands are calibrated over gaps of every kind, so that is what they hold for.
    rows = ring(1500, 2)
    gap = np.random.default_rng(0).random(rows.shape) < 0.2
    gap[gap.all(1)] = False
    lower, upper = imputer.interval(np.where(gap, np.nan, rows), 0.9)
    # Of 16 draws instead of the usual number they are a little narrow.
    assert 0.83 <= ((lower <= rows) & (rows <= upper))[gap].mean() <= 0.95
    restored = pickle.loads(pickle.dumps(imputer))
    np.testing.assert_array_equal(restored.transform(holes[:50]), imputer.transform(holes)[:50])


def test_a_network_that_tells_nothing_leaves_the_closed_form_to_the_bit():
    X = np.random.default_rng(0).multivariate_normal([0, 0, 0], [[1, 0.8, 0], [0.8, 1, 0], [0, 0, 1]], 400)
    holes = X.copy()
    holes[:100, 1] = np.nan
    with_network, plain = (TabularImputer(prior="gaussian", training=t).fit(X) for t in (TINIER, None))
    assert with_network.prior_ == plain.prior_ and with_network.history_
    for told, closed in zip(with_network.interval(holes), plain.interval(holes), strict=True):
        np.testing.assert_array_equal(told, closed)


def test_equal_seeds_give_equal_bits_and_gaps_and_categories_are_learnt_from():
    rng = np.random.default_rng(0)
    X = np.c_[ring(200, 0), rng.integers(0, 3, 200)]
    X[rng.random(X.shape) < 0.1] = np.nan
    few = Training(max_steps=20, masks_per_batch=4, windows_per_mask=2, evaluate_every=10)
    first, second = (TabularImputer(training=few, categorical_features=[3]).fit(X) for _ in range(2))
    filled = first.transform(X)
    np.testing.assert_array_equal(filled, second.transform(X))
    assert first.history_ and [h["loss"] for h in first.history_] == [h["loss"] for h in second.history_]
    assert np.isfinite(filled).all() and set(filled[:, 3]) == {0.0, 1.0, 2.0}
    np.testing.assert_array_equal(filled[~np.isnan(X)], X[~np.isnan(X)])


@pytest.mark.parametrize(("name", "value"), [("training", 5), ("device", "gpu")])
def test_wrong_parameters_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        TabularImputer(**{name: value}).fit(ring(100, 0))


@pytest.mark.gpu
def test_a_gpu_learns_as_well():
    imputer = TabularImputer(prior="gaussian", training=TINY, device="cuda").fit(ring(2000, 0))
    assert imputer.prior_.endswith("network")
    holes = ring(50, 1)
    holes[:, 2] = np.nan
    assert np.isfinite(imputer.transform(holes)).all()
