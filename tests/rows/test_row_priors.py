"""Priors of rows equal textbook formulas and scipy: densities, conditionals of any mask, quantiles, samples; and they
learn from incomplete rows what the complete ones would have told.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from sklearn.mixture import GaussianMixture

from diffad.priors.conditional_rows import MixtureMarginals, pool
from diffad.priors.kernel import CORRELATION, DONORS, KernelPrior
from diffad.priors.mixture import NUGGET, MixturePrior
from diffad.priors.wide import WideGaussian


def spd(rng, d):
    root = rng.standard_normal((d, d))
    return root @ root.T / d + 0.3 * np.eye(d)


def mixture(k=3, d=4, seed=0):
    """Return weights, means and covariances."""
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(k, 3.0)), 2 * rng.standard_normal((k, d)), np.stack([spd(rng, d) for _ in range(k)])


def prior_of(parts):
    return MixturePrior(*(torch.from_numpy(p) for p in parts))


def rows_of(n, parts, seed):
    weights, means, covariances = parts
    rng = np.random.default_rng(seed)
    label = rng.choice(len(weights), n, p=weights)
    return np.stack([rng.multivariate_normal(means[k], covariances[k]) for k in label])


def given_visible(row, parts):
    """Condition by the textbook: weights, means and covariances of the hidden entries."""
    weights, means, covariances = parts
    h, o = np.flatnonzero(np.isnan(row)), np.flatnonzero(~np.isnan(row))
    found = []
    for w, m, c in zip(weights, means, covariances, strict=True):
        gain = c[np.ix_(h, o)] @ np.linalg.inv(c[np.ix_(o, o)])
        density = stats.multivariate_normal(m[o], c[np.ix_(o, o)]).pdf(row[o]) if len(o) else 1.0
        found.append((w * density, m[h] + gain @ (row[o] - m[o]), c[np.ix_(h, h)] - gain @ c[np.ix_(o, h)]))
    joint = np.array([f[0] for f in found])
    return joint / joint.sum(), np.stack([f[1] for f in found]), np.stack([f[2] for f in found])


def holed(rows, rate, seed):
    rows = rows.copy()
    rows[np.random.default_rng(seed).random(rows.shape) < rate] = np.nan
    return rows


# --- the mixture ------------------------------------------------------------------------------------------


def test_log_density_is_scipys():
    parts = mixture()
    x = rows_of(20, parts, 1)
    expected = np.log(sum(w * stats.multivariate_normal(m, c).pdf(x) for w, m, c in zip(*parts, strict=True)))
    np.testing.assert_allclose(prior_of(parts).log_density(torch.from_numpy(x)), expected, rtol=1e-8)


def test_log_density_of_incomplete_rows_is_the_marginal():
    parts = mixture()
    x = rows_of(20, parts, 1)[:, [0, 2]]
    marginal = (parts[0], parts[1][:, [0, 2]], parts[2][:, [0, 2]][:, :, [0, 2]])
    full = np.full((20, 4), np.nan)
    full[:, [0, 2]] = x
    np.testing.assert_allclose(
        prior_of(parts).log_density(torch.from_numpy(full)), prior_of(marginal).log_density(torch.from_numpy(x))
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=4, max_size=4), st.integers(0, 1000))
def test_conditional_of_any_mask_is_the_textbooks(known, seed):
    parts = mixture(seed=seed)
    row = np.where(known, rows_of(1, parts, seed)[0], np.nan)
    found = prior_of(parts).condition(torch.from_numpy(row[None]))
    weights, means, covariances = given_visible(row, parts)
    hidden = np.flatnonzero(np.isnan(row))
    np.testing.assert_allclose(found.log_weights[0].exp(), weights, atol=1e-9)
    np.testing.assert_allclose(found.means[0][:, hidden], means, atol=1e-8)
    block = found.covariances[0][:, hidden][:, :, hidden]
    np.testing.assert_allclose(block, covariances, atol=1e-8)
    outside = found.covariances[0].clone()
    outside[:, hidden[:, None], hidden] = 0
    assert not outside.any(), "visible entries do not vary"


def test_quantiles_of_a_mixture_invert_its_distribution():
    rng = np.random.default_rng(0)
    weights, means = rng.dirichlet(np.ones(4), 6), rng.standard_normal((6, 4)) * 4
    deviations = rng.uniform(0.1, 2, (6, 4))
    marginals = MixtureMarginals(*(torch.from_numpy(a) for a in (weights, means, deviations)))
    levels = [0.01, 0.3, 0.5, 0.99]
    found = marginals.quantile(torch.tensor(levels, dtype=torch.float64)).numpy()
    for e in range(6):
        for q, value in zip(levels, found[e], strict=True):
            exact = optimize.brentq(
                lambda v, e=e, q=q: weights[e] @ stats.norm.cdf(v, means[e], deviations[e]) - q, -99, 99
            )
            assert value == pytest.approx(exact, abs=0.02)


def test_samples_have_the_moments_of_the_conditional():
    parts = mixture()
    row = rows_of(1, parts, 3)[0]
    row[[1, 3]] = np.nan
    weights, means, covariances = given_visible(row, parts)
    conditional = prior_of(parts).condition(torch.from_numpy(row[None]))
    generator = torch.Generator().manual_seed(0)
    n = 20_000
    uniform = torch.rand((n, 1), generator=generator, dtype=torch.float64)
    noise = torch.randn((n, 1, 4), generator=generator, dtype=torch.float64)
    drawn = conditional.sample(uniform, noise)[:, 0].numpy()
    np.testing.assert_array_equal(drawn[:, [0, 2]], np.broadcast_to(row[[0, 2]], (n, 2)))
    centre = weights @ means
    spread = np.einsum("k,kij->ij", weights, covariances + np.einsum("ki,kj->kij", means - centre, means - centre))
    # Five standard errors of a mean of n draws.
    assert np.abs(drawn[:, [1, 3]].mean(0) - centre).max() < 5 * np.sqrt(np.diag(spread).max() / n)
    np.testing.assert_allclose(np.cov(drawn[:, [1, 3]].T), spread, atol=0.1 * np.diag(spread).max())


def test_one_component_of_complete_rows_is_their_mean_and_nearly_their_covariance():
    x = rows_of(2000, mixture(1), 0)
    prior = MixturePrior.fit(torch.from_numpy(x), 1)
    np.testing.assert_allclose(prior.means[0], x.mean(0), atol=1e-9)
    np.testing.assert_allclose(prior.covariances[0], np.cov(x.T, bias=True) + NUGGET * np.eye(4), atol=2e-3)


def test_mixture_is_as_likely_as_scikit_learns_on_new_rows():
    parts = mixture(3, 3)
    train, new = rows_of(1500, parts, 0), rows_of(1500, parts, 1)
    ours = float(MixturePrior.fit(torch.from_numpy(train), 3).log_density(torch.from_numpy(new)).mean())
    theirs = GaussianMixture(3, n_init=3, random_state=0).fit(train).score(new)
    assert ours > theirs - 0.03, f"{ours:.3f} per row, scikit-learn's has {theirs:.3f}"


@pytest.mark.parametrize("k", [1, 3])
def test_incomplete_rows_teach_nearly_what_complete_rows_teach(k):
    parts = mixture(k, 4)
    complete, new = rows_of(2000, parts, 0), torch.from_numpy(rows_of(1000, parts, 1))
    full, partial = (
        float(MixturePrior.fit(torch.from_numpy(x), k).log_density(new).mean())
        for x in (complete, holed(complete, 0.3, 2))
    )
    means_filled = np.where(np.isnan(holed(complete, 0.3, 2)), complete.mean(0), complete)
    naive = float(MixturePrior.fit(torch.from_numpy(means_filled), k).log_density(new).mean())
    assert partial > full - 0.15 and partial > naive + 0.1, (full, partial, naive)


def test_a_seed_repeats_a_fit_to_the_bit():
    x = torch.from_numpy(holed(rows_of(300, mixture(), 0), 0.2, 1))
    one, two = (MixturePrior.fit(x, 3, seed=5) for _ in range(2))
    assert torch.equal(one.covariances, two.covariances)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_rows_or_constant_columns_give_a_density(n):
    x = torch.ones((n, 3), dtype=torch.float64)
    assert MixturePrior.fit(x, 5).log_density(x).isfinite().all()


# --- the kernel -------------------------------------------------------------------------------------------


def kernel_parts(rows, mean, covariance, bandwidth):
    """Return the kernel density as a mixture of as many components as rows."""
    noise = bandwidth**2 * (CORRELATION * covariance + (1 - CORRELATION) * np.diag(np.diag(covariance)))
    noise += NUGGET * np.eye(len(mean))
    centres = mean + np.sqrt(1 - bandwidth**2) * (rows - mean)
    return np.full(len(rows), 1 / len(rows)), centres, np.repeat(noise[None], len(rows), 0)


@pytest.mark.parametrize("bandwidth", [0.3, 0.9])
def test_kernel_is_the_mixture_of_all_rows(bandwidth):
    rows = rows_of(DONORS, mixture(), 0)
    mean, covariance = rows.mean(0), np.cov(rows.T)
    observed = torch.ones(rows.shape, dtype=torch.bool)
    moments_given = torch.from_numpy(mean), torch.from_numpy(covariance)
    kernel = KernelPrior(torch.from_numpy(rows), observed, *moments_given, bandwidth)
    x = holed(rows_of(10, mixture(), 1), 0.4, 2)
    ours = kernel.condition(torch.from_numpy(x)).marginals()
    theirs = prior_of(kernel_parts(rows, mean, covariance, bandwidth)).condition(torch.from_numpy(x)).marginals()
    np.testing.assert_allclose(ours.mean(), theirs.mean(), atol=1e-7)
    value = torch.zeros((len(ours.means), 1), dtype=torch.float64)
    np.testing.assert_allclose(ours.cdf(value), theirs.cdf(value), atol=1e-7)


def test_a_row_fitted_on_is_not_its_own_evidence():
    rows = rows_of(200, mixture(), 0)
    rows[0, 2] = np.nan
    x = torch.from_numpy(rows)
    kernel = KernelPrior.fit(x, MixturePrior.fit(x, 1), 0.1)
    without = KernelPrior(kernel_rows(x)[1:], ~x[1:].isnan(), *moments(x), 0.1)
    np.testing.assert_allclose(
        kernel.condition(x[:1]).marginals().mean(), without.condition(x[:1]).marginals().mean(), atol=1e-9
    )


def kernel_rows(x):
    return MixturePrior.fit(x, 1).condition(x).means[:, 0]


def moments(x):
    gaussian = MixturePrior.fit(x, 1)
    return gaussian.means[0], gaussian.covariances[0]


# --- pools and wide rows ----------------------------------------------------------------------------------


def test_pool_has_the_mean_of_the_distribution_functions():
    x = torch.from_numpy(holed(rows_of(30, mixture(), 1), 0.4, 2))
    one = MixturePrior.fit(torch.from_numpy(rows_of(300, mixture(), 0)), 1)
    two = KernelPrior.fit(torch.from_numpy(rows_of(300, mixture(), 0)), one, 0.4)
    parts = [one.condition(x), two.condition(x)]
    value = torch.full((int(x.isnan().sum()), 1), 0.3, dtype=torch.float64)
    expected = 0.25 * parts[0].marginals().cdf(value) + 0.75 * parts[1].marginals().cdf(value)
    np.testing.assert_allclose(pool(parts, (0.25, 0.75)).marginals().cdf(value), expected, atol=1e-9)
    assert pool(parts, (1.0, 0.0)) is parts[0]


def test_wide_gaussian_is_the_dense_conditional_of_its_covariance():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 3)) @ rng.standard_normal((3, 30)) + 0.3 * rng.standard_normal((400, 30))
    wide = WideGaussian.fit(torch.from_numpy(x))
    prior = wide.prior
    covariance = prior.factor @ prior.factor.T + torch.diag(prior.noise_variance)
    dense = MixturePrior(torch.ones(1), prior.mean[None], covariance[None])
    holes = torch.from_numpy(holed(x[:7], 0.3, 1))
    ours, theirs = (model.condition(holes).marginals() for model in (wide, dense))
    np.testing.assert_allclose(ours.means, theirs.means, atol=1e-3)
    np.testing.assert_allclose(ours.deviations, theirs.deviations, atol=1e-3)
    noise = torch.randn((4000, 7, 30), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = wide.condition(holes).sample(torch.zeros(4000, 7), noise)
    hidden = holes.isnan()
    assert torch.equal(drawn[0][~hidden], holes[~hidden])
    np.testing.assert_allclose(drawn.std(0)[hidden], ours.deviations[:, 0], rtol=0.1)


def test_rows_that_are_equally_near_are_chosen_alike_in_any_batch():
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(np.column_stack([rng.integers(0, 2, 400), rng.standard_normal(400)]))
    prior = KernelPrior.fit(rows, MixturePrior.fit(rows, 1), 0.3)
    asked = torch.tensor([[0.0, torch.nan], [1.0, torch.nan]]).repeat(50, 1).double()
    together = prior.condition(asked)
    for i in range(2):
        alone = prior.condition(asked[i : i + 1])
        torch.testing.assert_close(alone.means[0], together.means[i], rtol=0, atol=1e-12)
