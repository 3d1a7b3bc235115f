"""A Gaussian prior answers for any mask with the textbook conditional: mean, covariance, residuals.

Oracle: numpy's solve on the blocks of the covariance (Bishop 2006, eq. 2.81 and 2.82), scipy's
density.  Conditionals are float32 from float64 factorisations: 1e-4 of the entries' spread.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffad.priors import GaussianPrior, StandardPrior, gaussian

D = 7
VISIBLE, HIDDEN, PADDING = range(3)


def normal(d=D, seed=0):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((d, d))
    return rng.standard_normal(d), root @ root.T / d + 0.1 * np.eye(d)


def masks_of(roles):
    """Turn rows of VISIBLE, HIDDEN and PADDING into the two masks."""
    roles = torch.as_tensor(roles)
    return roles == VISIBLE, roles == HIDDEN


def condition(mean, covariance, roles):
    return GaussianPrior(torch.from_numpy(mean), torch.from_numpy(covariance)).condition(*masks_of(roles))


def closed_form(mean, covariance, roles, x):
    """Return numpy's mean and covariance of the hidden entries given the visible ones."""
    seen, unseen = (np.flatnonzero(np.asarray(roles) == role) for role in (VISIBLE, HIDDEN))
    cross = covariance[np.ix_(unseen, seen)]
    gain = np.linalg.solve(covariance[np.ix_(seen, seen)], cross.T).T
    return mean[unseen] + gain @ (x[seen] - mean[seen]), covariance[np.ix_(unseen, unseen)] - gain @ cross.T


ROLES = st.lists(st.lists(st.sampled_from([VISIBLE, HIDDEN, PADDING]), min_size=D, max_size=D), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(ROLES)
def test_conditionals_equal_numpy_for_any_masks(roles):
    mean, covariance = normal()
    x = np.random.default_rng(1).standard_normal((len(roles), 3, D))
    given_masks = condition(mean, covariance, roles)
    explained = given_masks.explain(torch.from_numpy(x).float()).numpy()
    root = given_masks.color(torch.eye(D).expand(len(roles), D, D)).numpy()
    for i, role in enumerate(np.array(roles)):
        unseen = role == HIDDEN
        for b in range(3):
            m, v = closed_form(mean, covariance, role, x[i, b])
            np.testing.assert_allclose(explained[i, b, unseen], m, rtol=1e-4, atol=1e-4)
        # The rows are the coloured unit vectors, so that root' root is the covariance of coloured noise.
        coloured = root[i].T @ root[i]
        expected = np.zeros((D, D))
        expected[np.ix_(unseen, unseen)] = v
        np.testing.assert_allclose(coloured, expected, atol=1e-4)
        scale = np.ones(D)
        scale[unseen] = np.sqrt(np.diag(v))
        np.testing.assert_allclose(given_masks.scale[i].numpy(), scale, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(ROLES)
def test_surprise_is_the_standardised_residual_given_the_other_visible_entries(roles):
    mean, covariance = normal()
    x = np.random.default_rng(2).standard_normal((len(roles), 1, D))
    surprise = condition(mean, covariance, roles).explain(torch.from_numpy(x).float()).numpy()
    for i, role in enumerate(np.array(roles)):
        for k in np.flatnonzero(role == VISIBLE):
            left_out = np.where(role == HIDDEN, PADDING, role)
            left_out[k] = HIDDEN
            m, v = closed_form(mean, covariance, left_out, x[i, 0])
            assert surprise[i, 0, k] == pytest.approx((x[i, 0, k] - m[0]) / np.sqrt(v[0, 0]), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("garbage", [np.nan, 1e30])
def test_only_visible_entries_are_read(garbage):
    mean, covariance = normal()
    roles = [[VISIBLE, HIDDEN, PADDING, VISIBLE, HIDDEN, PADDING, VISIBLE]]
    given_masks = condition(mean, covariance, roles)
    x = torch.randn(1, 2, D, generator=torch.Generator().manual_seed(0))
    visible, hidden = masks_of(roles)
    assert torch.equal(given_masks.explain(torch.where(visible[:, None], x, garbage)), given_masks.explain(x))
    assert torch.equal(given_masks.color(torch.where(hidden[:, None], x, garbage)), given_masks.color(x))


def test_padding_is_integrated_out():
    """Entries that are neither visible nor hidden leave the prior as if they had never been modelled."""
    mean, covariance = normal()
    roles = np.array([VISIBLE, PADDING, HIDDEN, VISIBLE, PADDING, HIDDEN, VISIBLE])
    keep = roles != PADDING
    x = np.random.default_rng(3).standard_normal((1, 4, D)).astype(np.float32)
    whole = condition(mean, covariance, roles[None])
    small = condition(mean[keep], covariance[np.ix_(keep, keep)], roles[None][:, keep])
    explained = whole.explain(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(explained[..., keep], small.explain(torch.from_numpy(x[..., keep])).numpy(), atol=1e-5)
    assert not explained[..., ~keep].any()
    assert not whole.color(torch.from_numpy(x)).numpy()[..., ~keep].any()
    np.testing.assert_allclose(whole.scale[:, keep], small.scale, rtol=1e-5)


def test_white_noise_becomes_noise_of_the_conditional_covariance():
    mean, covariance = normal()
    roles = [[VISIBLE, HIDDEN, HIDDEN, VISIBLE, HIDDEN, PADDING, VISIBLE]]
    white = torch.randn(1, 100_000, D, generator=torch.Generator().manual_seed(0))
    draws = condition(mean, covariance, roles).color(white).numpy()[0][:, [1, 2, 4]]
    v = closed_form(mean, covariance, roles[0], np.zeros(D))[1]
    deviation = np.sqrt(np.diag(v))
    # Four standard errors of a correlation from 100,000 draws, sqrt(2) more on the diagonal.
    np.testing.assert_allclose(
        np.cov(draws.T) / np.outer(deviation, deviation),
        v / np.outer(deviation, deviation),
        atol=4 * np.sqrt(2 / 100_000),
    )


@pytest.mark.parametrize("prior", ["gaussian", "standard"])
def test_select_returns_the_conditionals_of_those_masks(prior):
    mean, covariance = normal()
    roles = torch.randint(3, (5, D), generator=torch.Generator().manual_seed(0))
    made = StandardPrior(D) if prior == "standard" else GaussianPrior(*map(torch.from_numpy, (mean, covariance)))
    index = torch.tensor([3, 0, 3])
    selected, direct = made.condition(*masks_of(roles)).select(index), made.condition(*masks_of(roles[index]))
    x = torch.randn(3, 2, D, generator=torch.Generator().manual_seed(1))
    for a, b in [
        (selected.explain(x), direct.explain(x)),
        (selected.color(x), direct.color(x)),
        (selected.scale, direct.scale),
        (selected.visible, direct.visible),
        (selected.hidden, direct.hidden),
    ]:
        assert torch.equal(a, b)


def test_fit_recovers_the_normal_it_was_drawn_from():
    mean, covariance = normal()
    x = np.random.default_rng(5).multivariate_normal(mean, covariance, 20_000)
    prior = GaussianPrior.fit(torch.from_numpy(x), torch.ones(x.shape, dtype=torch.bool))
    deviation = np.sqrt(np.diag(covariance))
    # Five standard errors from 20,000 rows.
    np.testing.assert_allclose(prior.mean.numpy() / deviation, mean / deviation, atol=5 / np.sqrt(20_000))
    np.testing.assert_allclose(
        prior.covariance.numpy() / np.outer(deviation, deviation),
        covariance / np.outer(deviation, deviation),
        atol=5 * np.sqrt(2 / 20_000),
    )


@pytest.mark.parametrize("case", ["copies", "constant", "few rows", "one row"])
def test_degenerate_rows_still_give_finite_conditionals(case):
    rng = np.random.default_rng(6)
    x = rng.standard_normal((40, D))
    if case == "copies":
        x[:, 1:] = x[:, :1]
    elif case == "constant":
        x[:, :4] = 2.0
    elif case == "few rows":
        x = x[:3]
    else:
        x = x[:1]
    prior = GaussianPrior.fit(torch.from_numpy(x), torch.ones(x.shape, dtype=torch.bool))
    given_masks = prior.condition(*masks_of([[VISIBLE, HIDDEN] * 3 + [VISIBLE], [HIDDEN] * D, [VISIBLE] * D]))
    rows = torch.from_numpy(x[:1]).float().expand(3, 1, D)
    explained = given_masks.explain(rows)
    assert bool(explained.isfinite().all())
    assert bool((given_masks.scale > 0).all())
    assert bool(given_masks.color(torch.ones(3, 1, D)).isfinite().all())
    if case == "copies":  # a visible copy says what the hidden one is, to the nugget
        np.testing.assert_allclose(explained[0, 0, 1::2], x[0, 1::2], atol=0.05)


def test_hidden_copies_of_a_visible_entry_have_no_negative_variance():
    """A covariance that is singular to rounding: the conditional of an exact copy is zero, never NaN."""
    base = np.ones((3, 3)) + 1e-9 * np.eye(3)
    given_masks = condition(np.zeros(3), base, [[VISIBLE, HIDDEN, HIDDEN]])
    x = torch.tensor([[[1.5, 0.0, 0.0]]])
    np.testing.assert_allclose(given_masks.explain(x)[0, 0, 1:], 1.5, atol=1e-3)
    assert bool((given_masks.scale[0, 1:] < 1e-3).all())
    assert bool(given_masks.color(torch.ones(1, 1, 3)).isfinite().all())


def test_a_driver_that_gives_up_leaves_the_conditional_as_it_was(monkeypatch):
    mean, covariance = normal()
    roles = [[VISIBLE, HIDDEN, HIDDEN, VISIBLE, HIDDEN, PADDING, VISIBLE]]
    expected = condition(mean, covariance, roles)
    driver, calls = torch.linalg.eigh, []

    def gives_up_every_other_time(matrix):
        calls.append(matrix)
        if len(calls) % 2:
            raise torch.linalg.LinAlgError("failed to converge")
        return driver(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", gives_up_every_other_time)
    ours = condition(mean, covariance, roles)
    assert len(calls) == 2
    torch.testing.assert_close(ours.scale, expected.scale, rtol=1e-5, atol=0)
    white = torch.eye(D)[None]
    torch.testing.assert_close(ours.color(white), expected.color(white), rtol=1e-5, atol=1e-6)


def test_the_standard_prior_is_independent_unit_normals():
    roles = [[VISIBLE, HIDDEN, PADDING]]
    given_masks = StandardPrior(3).condition(*masks_of(roles))
    x = torch.tensor([[[1.5, torch.nan, torch.nan]]])
    assert given_masks.explain(x).tolist() == [[[1.5, 0, 0]]]
    assert given_masks.color(torch.ones(1, 1, 3)).tolist() == [[[0, 1, 0]]]
    assert given_masks.scale.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("entries", [1, 20, 2**21])  # systems side by side: one, a few, all
def test_gaps_that_are_rare_and_gaps_that_many_rows_share_are_filled_alike(entries, monkeypatch):
    monkeypatch.setattr(gaussian, "SYSTEM_ENTRIES", entries)
    mean, covariance = normal()
    rng = np.random.default_rng(1)
    x = rng.standard_normal((200, D)).astype(np.float32)
    x[rng.random(x.shape) < 0.4] = np.nan
    x[100:] = np.where(np.arange(D) == 2, np.nan, rng.standard_normal((100, D)))
    x[0], x[1] = np.nan, 1.0
    filled = gaussian.fill_missing(
        torch.from_numpy(x), torch.from_numpy(mean), torch.from_numpy(np.linalg.inv(covariance))
    )
    for row, found in zip(x, filled.numpy(), strict=True):
        hidden = np.isnan(row)
        gain = covariance[np.ix_(hidden, ~hidden)] @ np.linalg.inv(covariance[np.ix_(~hidden, ~hidden)])
        expected = mean[hidden] + gain @ (row[~hidden] - mean[~hidden])
        np.testing.assert_array_equal(found[~hidden], row[~hidden])
        np.testing.assert_allclose(found[hidden], expected, atol=1e-4)


@pytest.mark.parametrize("rows", [5, 200])  # alone, and with gaps that many rows share
def test_distance_is_that_of_the_visible_entries_under_each_rows_own_gaussian(rows):
    rng = np.random.default_rng(2)
    covariances = [normal()[1], np.diag(np.arange(1.0, D + 1))]
    roots = np.stack([np.linalg.inv(np.linalg.cholesky(c)) for c in covariances])
    x = rng.standard_normal((rows, D))
    x[rng.random(x.shape) < 0.3] = np.nan
    x[rows // 2 :, 1] = np.nan
    x[0] = np.nan
    which = rng.integers(0, 2, rows)
    found = gaussian.visible_distance(torch.from_numpy(x), torch.from_numpy(which), torch.from_numpy(roots))
    for row, k, distance in zip(x, which, found.tolist(), strict=True):
        seen = ~np.isnan(row)
        expected = row[seen] @ np.linalg.solve(covariances[k][np.ix_(seen, seen)], row[seen])
        assert distance == pytest.approx(expected, rel=1e-8, abs=1e-10)
