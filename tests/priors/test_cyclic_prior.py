"""The cyclic prior against the mixture it stands for, computed the long way round."""

import numpy as np
import pytest
import torch
from scipy import stats

from diffad.priors import CyclicPrior, GaussianPrior

D, PHASES = 5, 4


def example(apart=2.0):
    generator = torch.Generator().manual_seed(1)
    centres = apart * torch.randn(PHASES, D, generator=generator, dtype=torch.float64)
    factor = torch.randn(D, D, generator=generator, dtype=torch.float64)
    return centres, factor @ factor.T / D + 0.3 * torch.eye(D, dtype=torch.float64)


def masks(*visible):
    result = torch.zeros(1, D, dtype=torch.bool)
    result[0, list(visible)] = True
    return result, ~result


def draw(centres, covariance, n, seed=0):
    rng = np.random.default_rng(seed)
    phase = rng.integers(PHASES, size=n)
    noise = rng.multivariate_normal(np.zeros(D), covariance.numpy(), n)
    return torch.tensor(centres.numpy()[phase] + noise, dtype=torch.float32), phase


def test_one_phase_is_the_gaussian():
    centres, covariance = example()
    cyclic, plain = CyclicPrior(centres[:1], covariance), GaussianPrior(centres[0], covariance)
    x = torch.randn(1, 7, D, generator=torch.Generator().manual_seed(0))
    for chosen in [(), (0,), (1, 3), (0, 1, 2, 3)]:
        ours, theirs = cyclic.condition(*masks(*chosen)), plain.condition(*masks(*chosen))
        torch.testing.assert_close(ours.explain(x), theirs.explain(x), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ours.color(x), theirs.color(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("visible", [(0,), (1, 3), (0, 2, 4)])
def test_explain_is_the_mixtures_posterior_mean(visible):
    centres, covariance = example()
    seen, unseen = list(visible), [i for i in range(D) if i not in visible]
    x, _ = draw(centres, covariance, 50)
    result = CyclicPrior(centres, covariance).condition(*masks(*visible)).explain(x[None])[0]
    mu, s = centres.numpy(), covariance.numpy()
    weights = np.stack([stats.multivariate_normal.pdf(x[:, seen], m[seen], s[np.ix_(seen, seen)]) for m in mu], 1)
    weights /= weights.sum(1, keepdims=True)
    gain = s[np.ix_(unseen, seen)] @ np.linalg.inv(s[np.ix_(seen, seen)])
    each = np.stack([m[unseen] + (x[:, seen].numpy() - m[seen]) @ gain.T for m in mu], 1)
    np.testing.assert_allclose(result[:, unseen], (weights[..., None] * each).sum(1), atol=2e-4)


@pytest.mark.parametrize("visible", [(), (0,), (2, 3)])
@pytest.mark.parametrize("apart", [0.5, 2.0])
def test_hidden_entries_scatter_around_the_mean_as_much_as_promised(visible, apart):
    centres, covariance = example(apart)
    x, _ = draw(centres, covariance, 40_000)
    given = CyclicPrior(centres, covariance).condition(*masks(*visible))
    unseen = [i for i in range(D) if i not in visible]
    error = (x - given.explain(x[None])[0])[:, unseen].numpy()
    root = given.operator[0][unseen][:, unseen].numpy()
    expected = root @ root.T
    np.testing.assert_allclose(error.mean(0), 0, atol=0.05 * expected.diagonal().max() ** 0.5)
    # The doubt about the phase is simulated with few draws.
    np.testing.assert_allclose(np.cov(error.T), expected, atol=0.15 * expected.diagonal().max())
    np.testing.assert_allclose(given.scale[0, unseen], expected.diagonal() ** 0.5, rtol=1e-4)


def test_fitting_around_centres_finds_phases_and_the_shared_covariance():
    centres, covariance = example(apart=3.0)
    x, phase = draw(centres, covariance, 4000)
    known = torch.ones(x.shape, dtype=torch.bool)
    known[::7, 2] = False
    prior = CyclicPrior.around(centres, x, known)
    assert (prior.phase(x).numpy() == phase).mean() > 0.95
    np.testing.assert_allclose(prior.covariance, covariance, atol=0.12)
    np.testing.assert_allclose(prior.centres, centres, atol=0.1)


def test_selected_masks_answer_as_before():
    centres, covariance = example()
    visible = torch.rand(6, D, generator=torch.Generator().manual_seed(0)) < 0.5
    given = CyclicPrior(centres, covariance).condition(visible, ~visible)
    x = torch.randn(6, 3, D, generator=torch.Generator().manual_seed(0))
    pick = torch.tensor([4, 1])
    torch.testing.assert_close(given.select(pick).explain(x[pick]), given.explain(x)[pick])
    torch.testing.assert_close(given.select(pick).color(x[pick]), given.color(x)[pick])
