"""The low-rank prior is the dense Gaussian of the same covariance, for any mask, at a lower price."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffad.priors import GaussianPrior, LowRankPrior

D, RANK = 9, 3
VISIBLE, HIDDEN, PADDING = range(3)


def pair(seed=0, d=D, rank=RANK):
    """Return a low-rank prior and the dense one of the same mean and covariance."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(d, generator=generator, dtype=torch.float64)
    factor = torch.randn(d, rank, generator=generator, dtype=torch.float64)
    noise = 0.05 + torch.rand(d, generator=generator, dtype=torch.float64)
    return LowRankPrior(mean, factor, noise), GaussianPrior(mean, factor @ factor.T + noise.diag())


def masks_of(roles):
    roles = torch.as_tensor(roles)
    return roles == VISIBLE, roles == HIDDEN


def covariance_of_color(given_masks, d=D):
    root = given_masks.color(torch.eye(d).expand(len(given_masks.visible), d, d))
    return root.mT @ root


ROLES = st.lists(st.lists(st.sampled_from([VISIBLE, HIDDEN, PADDING]), min_size=D, max_size=D), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(ROLES)
def test_equals_the_dense_prior_for_any_masks(roles):
    low, dense = (prior.condition(*masks_of(roles)) for prior in pair())
    x = torch.randn(len(roles), 3, D, generator=torch.Generator().manual_seed(1))
    # Both are float32; Woodbury's difference costs a digit.
    torch.testing.assert_close(low.explain(x), dense.explain(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(low.scale, dense.scale, rtol=1e-4, atol=0)
    torch.testing.assert_close(covariance_of_color(low), covariance_of_color(dense), rtol=1e-4, atol=1e-4)


def test_only_visible_entries_are_read():
    roles = [[VISIBLE, HIDDEN, PADDING] * 3]
    given_masks = pair()[0].condition(*masks_of(roles))
    visible, hidden = masks_of(roles)
    x = torch.randn(1, 2, D, generator=torch.Generator().manual_seed(0))
    assert torch.equal(given_masks.explain(torch.where(visible[:, None], x, torch.nan)), given_masks.explain(x))
    assert torch.equal(given_masks.color(torch.where(hidden[:, None], x, torch.nan)), given_masks.color(x))


def test_select_returns_the_conditionals_of_those_masks():
    low = pair()[0]
    roles = torch.randint(3, (5, D), generator=torch.Generator().manual_seed(0))
    index = torch.tensor([4, 1, 4])
    selected, direct = low.condition(*masks_of(roles)).select(index), low.condition(*masks_of(roles[index]))
    x = torch.randn(3, 2, D, generator=torch.Generator().manual_seed(1))
    assert torch.equal(selected.explain(x), direct.explain(x))
    assert torch.equal(selected.color(x), direct.color(x))
    assert torch.equal(selected.scale, direct.scale)


def test_fit_recovers_a_low_rank_normal():
    low, dense = pair(d=30, rank=3)
    x = np.random.default_rng(1).multivariate_normal(dense.mean.numpy(), dense.covariance.numpy(), 20_000)
    fitted = LowRankPrior.fit(torch.from_numpy(x), torch.ones(x.shape, dtype=torch.bool), rank=3)
    ours = (fitted.factor @ fitted.factor.T + fitted.noise_variance.diag()).numpy()
    deviation = dense.covariance.diagonal().sqrt().numpy()
    # Sampling error 0.05 (five standard errors); equal noise is assumed when the factors are shrunk.
    np.testing.assert_allclose(
        ours / np.outer(deviation, deviation), dense.covariance.numpy() / np.outer(deviation, deviation), atol=0.15
    )
    np.testing.assert_allclose(fitted.mean.numpy() / deviation, low.mean.numpy() / deviation, atol=0.05)


def test_fit_leaves_the_global_generator_alone_and_repeats():
    x = torch.randn(40, 12, generator=torch.Generator().manual_seed(0))
    known = torch.rand(40, 12, generator=torch.Generator().manual_seed(1)) < 0.8
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = LowRankPrior.fit(x, known, rank=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    second = LowRankPrior.fit(torch.where(known, x, torch.nan), known, rank=4)
    assert torch.equal(first.factor, second.factor)
    assert torch.equal(first.noise_variance, second.noise_variance)


def test_a_missing_value_does_not_shrink_a_variance():
    x = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    known = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    fitted = LowRankPrior.fit(x, known, rank=2)
    variance = (fitted.factor**2).sum(1) + fitted.noise_variance
    # Four standard errors of a variance from 10,000 values, and the nugget.
    np.testing.assert_allclose(variance.numpy(), 4.0, rtol=4 * np.sqrt(2 / 10_000) + 0.01)


def test_rank_is_bounded_by_the_data():
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    fitted = LowRankPrior.fit(x, torch.ones(3, 5, dtype=torch.bool), rank=128)
    assert fitted.factor.shape[0] == 5
    given_masks = fitted.condition(*masks_of([[VISIBLE, HIDDEN, HIDDEN, PADDING, VISIBLE]]))
    assert bool(given_masks.explain(x[None]).isfinite().all())
    assert bool((given_masks.scale > 0).all())
