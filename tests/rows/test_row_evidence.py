"""Each kind of evidence equals what plain numpy, scipy or a textbook formula makes of the same rows, and rows are
judged as strange as new ones are.
"""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.covariance import ledoit_wolf

from diffad.priors.gaussian import NUGGET
from diffad.rows.encoding import Columns
from diffad.rows.evidence import (
    KINDS,
    MOST_DIMENSIONS,
    GaussianFill,
    Mixture,
    RowModels,
    best_components,
    fit_rows,
    score,
)
from diffad.rows.neighbours import FLOOR, GLOBAL, N_LOCAL, N_NEIGHBOURS, Neighbours, Ranks, Sheet, least_differences


def gaussian(n, d, seed):
    """Return rows of a Gaussian with mean 1 and correlated entries."""
    rng = np.random.default_rng(seed)
    factor = np.random.default_rng(99).standard_normal((d, d)) / np.sqrt(d) + 0.5 * np.eye(d)
    return 1 + rng.standard_normal((n, d)) @ factor


def brute(train, rows, order):
    """Return the distances to the nearest training rows, by looking at all of them."""
    return np.stack([np.sort(np.linalg.norm(train - r, ord=order, axis=1))[:N_NEIGHBOURS] for r in rows])


# Among 150 rows all are looked at, among 1003 only those of the nearest groups.
@pytest.mark.parametrize("n", [150, 1003])
@pytest.mark.parametrize("d", [3, 20])
def test_distances_of_new_rows_equal_brute_force(n, d):
    train, rows = gaussian(n, d, 0), gaussian(30, d, 1)
    neighbours = Neighbours.fit(train)
    distances, place = neighbours(rows)
    np.testing.assert_allclose(distances[:, :N_NEIGHBOURS], brute(train, rows, 2), rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(train[place[:, 0]] - rows, axis=1), distances[:, 0], rtol=1e-9)
    everywhere = np.broadcast_to(np.arange(n), (30, n))
    np.testing.assert_allclose(least_differences(neighbours.rows, rows, everywhere), brute(train, rows, 1), rtol=1e-9)


def test_neighbours_are_the_nearest_however_many_rows_tie():
    rng = np.random.default_rng(0)
    train = rng.integers(0, 3, (1003, 4)).astype(float)
    rows = rng.integers(0, 4, (40, 4)) + 0.25
    distances, place = Neighbours.fit(train, 30)(rows)
    everyone = np.linalg.norm(train - rows[:, None], axis=2)
    np.testing.assert_allclose(distances, np.sort(everyone, 1)[:, :30], rtol=1e-9)
    np.testing.assert_allclose(np.take_along_axis(everyone, place, 1), distances, rtol=1e-9)
    assert all(len(set(row)) == 30 for row in place)


@pytest.mark.parametrize(("d", "excess"), [(3, 1e-3), (20, 0.03)])
def test_least_differences_are_among_the_nearest_rows(d, excess):
    train, rows = gaussian(1000, d, 0), gaussian(100, d, 1)
    neighbours = Neighbours.fit(train)
    found, exact = least_differences(neighbours.rows, rows, neighbours(rows)[1]).mean(1), brute(train, rows, 1).mean(1)
    assert (found >= exact * (1 - 1e-9)).all() and np.mean(found / exact - 1) < excess


@pytest.mark.parametrize("d", [3, 20])
def test_distances_of_a_row_fitted_on_leave_that_row_out(d):
    train = gaussian(100, d, 0)
    expected = [brute(np.delete(train, i, 0), train[i : i + 1], 2)[0] for i in range(100)]
    np.testing.assert_allclose(Neighbours.fit(train)(train)[0][:, :N_NEIGHBOURS], expected, rtol=1e-6)


@pytest.mark.parametrize("n", [100, 1003])
def test_all_neighbours_of_a_row_fitted_on_are_found(n):
    train = gaussian(n, 4, 0)
    expected = np.sort(np.linalg.norm(train[:20, None] - train, axis=2), 1)[:, 1:31]
    np.testing.assert_allclose(Neighbours.fit(train, 30)(train[:20])[0], expected, rtol=1e-9)


def test_copies_of_a_row_are_no_distance_apart():
    rows = np.random.default_rng(0).standard_normal((200, 3)).round(1)
    assert (Neighbours.fit(np.repeat(rows, 5, 0))(rows)[0][:, 0] == 0).all()


def test_rows_that_are_equally_near_are_chosen_alike_in_any_batch():
    rng = np.random.default_rng(0)
    train, rows = (rng.integers(0, 2, (n, 10)) / 0.4999 - 1 for n in (1000, 257))
    models = RowModels.fit(train, KINDS, 1)
    together = models(rows)
    for size in (1, 3, 50):
        alone = [models(rows[i : i + size]) for i in range(0, 150, size)]
        for kind, values in together.items():
            np.testing.assert_allclose(np.concatenate([part[kind] for part in alone]), values[:150], atol=1e-9)


def test_only_one_of_several_equal_rows_is_left_out():
    train = np.array([[0.0], [0.0], [5.0]])
    found = Neighbours.fit(train)(np.array([[0.0], [5.0]]))[0]
    np.testing.assert_array_equal(found, [[0.0, 5.0], [5.0, 5.0]])


def test_fewer_rows_than_neighbours():
    np.testing.assert_allclose(Neighbours.fit(np.array([[2.0]]))(np.array([[5.0]]))[0], [[3.0]])
    found = Neighbours.fit(np.array([[2.0], [1.0]]))(np.array([[5.0]]))[0]
    assert found[0, 0] == 3.0


def test_kinds_are_the_nearest_and_the_mean_of_five_in_both_metrics():
    train, rows = gaussian(150, 3, 0), gaussian(30, 3, 1)
    found = RowModels.fit(train, KINDS, 1)(rows)
    assert tuple(found) == KINDS
    for suffix, order in (("", 2), ("_manhattan", 1)):
        expected = brute(train, rows, order)
        np.testing.assert_allclose(found[f"nearest{suffix}"], expected[:, 0], rtol=1e-9)
        np.testing.assert_allclose(found[f"neighbours{suffix}"], expected.mean(1), rtol=1e-9)
    np.testing.assert_allclose(found["mixture"], Mixture.fit(train, 1)(rows))
    np.testing.assert_allclose(found["ranks"], ranks(train, rows))
    np.testing.assert_allclose(found["sheet"], sheet(train, rows))


def test_only_the_kinds_asked_for_are_fitted():
    models = RowModels.fit(gaussian(50, 3, 0), ("neighbours_manhattan",), 1)
    assert tuple(models(gaussian(5, 3, 1))) == ("neighbours_manhattan",)
    assert models.mixture is None and models.ranks is None and models.sheet is None


def test_ranks_are_distances_among_normal_scores():
    rng = np.random.default_rng(0)
    train, rows = np.c_[rng.standard_cauchy(400), np.arange(400) % 2], np.c_[rng.standard_normal(30), np.arange(30) % 2]
    order = np.sort(train[:, 0])
    scores = stats.norm.ppf((np.arange(400) + 0.5) / 400)

    def place(x):
        return np.c_[np.interp(x[:, 0], order, scores), x[:, 1]]

    near = Neighbours.fit(train)(rows)[1]
    expected = [
        np.sort(np.abs(place(train[some]) - own).sum(1))[:N_NEIGHBOURS].mean()
        for some, own in zip(near, place(rows), strict=True)
    ]
    np.testing.assert_allclose(ranks(train, rows), expected, rtol=1e-9)
    far = np.array([[order[-1] + 1, 0.0], [order[-1] + 50, 0.0]])
    assert np.diff(ranks(train, far)) == pytest.approx(49), "beyond the extremes strange goes on"


def ranks(train, rows):
    """Return the evidence of ranks among the neighbours in `train`."""
    return Ranks.fit(train)(rows, Neighbours.fit(train)(rows)[1])


def sheet(train, rows):
    """Return the evidence of the sheet of the neighbours in `train`."""
    return Sheet.fit(train)(rows, Neighbours.fit(train, N_LOCAL)(rows)[1])


def test_sheet_is_the_mahalanobis_distance_to_the_neighbours():
    train, rows = gaussian(200, 3, 0), gaussian(10, 3, 1)
    floor = GLOBAL * np.cov(train.T, bias=True) + FLOOR * np.eye(3)
    for row, found in zip(rows, sheet(train, rows), strict=True):
        near = train[np.argsort(np.linalg.norm(train - row, axis=1))[:N_LOCAL]]
        off = row - near.mean(0)
        assert np.exp(found) == pytest.approx(off @ np.linalg.solve(np.cov(near.T, bias=True) + floor, off), rel=1e-4)


def test_sheet_sees_a_row_beside_it_that_distances_take_for_near():
    rng = np.random.default_rng(0)
    train, on = (np.c_[rng.uniform(-1, 1, (n, 2)), 0.01 * rng.standard_normal(n)] for n in (1000, 100))
    beside = on + np.array([0, 0, 0.1])
    assert sheet(train, beside).min() > np.quantile(sheet(train, on), 0.9)


@pytest.mark.parametrize("n", [1, 2, 10])
def test_few_rows_have_ranks_and_a_sheet(n):
    train = gaussian(n, 3, 0)
    for rows in (gaussian(5, 3, 1), train):
        assert np.isfinite(ranks(train, rows)).all() and np.isfinite(sheet(train, rows)).all()


# --- densities --------------------------------------------------------------------------------------------


def test_mixture_of_one_is_the_gaussian_of_the_rows():
    train, rows = gaussian(400, 5, 0), gaussian(30, 5, 1)
    covariance = np.cov(train.T, bias=True) + 1e-3 * np.eye(5)
    expected = -stats.multivariate_normal(train.mean(0), covariance).logpdf(rows)
    np.testing.assert_allclose(Mixture.fit(train, 1)(rows), expected, rtol=1e-6)


def test_mixture_is_scikit_learns():
    rng = np.random.default_rng(0)
    centres = 6 * rng.standard_normal((3, 4))
    train, rows = (centres[rng.integers(0, 3, n)] + rng.standard_normal((n, 4)) for n in (500, 40))
    mixture = Mixture.fit(train, 3)
    expected = -mixture.model.score_samples(mixture.pca.transform(rows))
    np.testing.assert_allclose(mixture(rows), expected, rtol=1e-9)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(mixture))(rows), mixture(rows))


def test_mixture_sees_what_its_principal_components_leave_out():
    rng = np.random.default_rng(0)
    d = MOST_DIMENSIONS + 5
    train = np.c_[3 * rng.standard_normal((500, MOST_DIMENSIONS)), np.zeros((500, 5))]
    mixture = Mixture.fit(train, 1)
    row = np.zeros((1, d))
    off = row.copy()
    off[0, -1] = 4.0
    np.testing.assert_allclose(mixture(off) - mixture(row), 16.0, rtol=1e-6)


def test_equal_rows_are_no_reason_to_warn(recwarn):
    rows = np.repeat(np.eye(3), 60, 0)
    assert np.isfinite(Mixture.fit(rows, best_components(rows))(rows)).all() and not recwarn.list


def test_best_components_are_one_for_a_gaussian_and_three_for_three():
    rng = np.random.default_rng(0)
    assert best_components(rng.standard_normal((600, 3))) == 1
    centres = np.array([[0.0, 0, 0], [12, 0, 0], [0, 12, 0]])
    assert best_components(centres[rng.integers(0, 3, 600)] + rng.standard_normal((600, 3))) == 3


def test_best_components_of_few_rows_are_few():
    centres = np.array([[0.0, 0], [50, 0], [0, 50]])
    rows = centres[np.arange(30) % 3] + np.random.default_rng(0).standard_normal((30, 2))
    assert best_components(rows) == 1, "two components need 40 rows"


# --- filling ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filled():
    """Return a filler, its mean and covariance by scikit-learn, and rows with holes."""
    train = gaussian(500, 5, 0)
    holes = gaussian(40, 5, 1)
    holes[np.random.default_rng(2).random(holes.shape) < 0.3] = np.nan
    holes[0], holes[1] = np.nan, gaussian(1, 5, 3)[0]
    return GaussianFill.fit(train, np.arange(5)), train.mean(0), ledoit_wolf(train)[0] + NUGGET * np.eye(5), holes


def test_filler_gives_the_conditional_mean(filled):
    filler, mean, covariance, holes = filled
    expected = holes.copy()
    for row in expected:
        hidden, seen = np.flatnonzero(np.isnan(row)), np.flatnonzero(~np.isnan(row))
        gain = covariance[np.ix_(hidden, seen)] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
        row[hidden] = mean[hidden] + gain @ (row[seen] - mean[seen])
    np.testing.assert_allclose(filler(holes), expected, rtol=1e-8)
    assert np.isnan(holes).any(), "the input is not written to"


def test_residual_is_that_of_the_conditional_given_all_others(filled):
    filler, mean, covariance, holes = filled
    rows, (residual, blame) = filler(holes), filler.residual(holes)
    for k in range(5):
        others = np.delete(np.arange(5), k)
        gain = covariance[k, others] @ np.linalg.inv(covariance[np.ix_(others, others)])
        expected = rows[:, k] - mean[k] - (rows[:, others] - mean[others]) @ gain
        np.testing.assert_allclose(residual[:, k], expected, atol=1e-8)
        schur = covariance[k, k] - gain @ covariance[others, k]
        np.testing.assert_allclose(blame[:, k], residual[:, k] ** 2 / schur, atol=1e-8)
    assert np.abs(residual[np.isnan(holes)]).max() < 1e-8, "what is missing has no residual"


def test_draws_follow_the_conditional_given_what_is_visible(filled):
    filler, mean, covariance, holes = filled
    hidden, seen = [0, 3], [1, 2, 4]
    row = holes[1].copy()
    row[hidden] = np.nan
    drawn = filler.draw(np.tile(row, (20_000, 1)), np.random.default_rng(0))
    gain = covariance[np.ix_(hidden, seen)] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
    expected = mean[hidden] + gain @ (row[seen] - mean[seen])
    spread = covariance[np.ix_(hidden, hidden)] - gain @ covariance[np.ix_(seen, hidden)]
    assert (drawn[:, seen] == row[seen]).all()
    np.testing.assert_allclose(drawn[:, hidden].mean(0), expected, atol=0.04)
    np.testing.assert_allclose(np.cov(drawn[:, hidden].T), spread, rtol=0.05, atol=0.02)


def test_a_drawn_category_is_one_of_them():
    rows = np.eye(3)[np.arange(300) % 3] / np.sqrt(2)
    filler = GaussianFill.fit(rows, np.zeros(3, int))
    drawn = filler.draw(np.full((300, 3), np.nan), np.random.default_rng(0))
    assert (np.sort(drawn, 1) == [0, 0, 1 / np.sqrt(2)]).all() and (drawn.argmax(1) != drawn[0].argmax()).any()


# --- encoding ---------------------------------------------------------------------------------------------


def test_two_categories_are_one_unit_apart_and_an_unseen_one_is_as_far():
    columns = Columns.fit(pd.DataFrame({"k": ["a", "b", "c", "a"]}), None)
    rows = columns.encode(pd.DataFrame({"k": ["a", "b", "c", "zebra"]}))
    distance = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    np.testing.assert_allclose(distance, 1 - np.eye(4), atol=1e-12)


def test_encoding_keeps_nan_and_knows_whose_entry_is_whose():
    table = pd.DataFrame({"x": [1.0, 3.0, np.nan], "k": ["a", None, "b"], "y": [5, 5, 5]})
    columns = Columns.fit(table, None)
    rows = columns.encode(table)
    assert columns.owner.tolist() == [0, 1, 1, 1, 2]
    np.testing.assert_allclose(rows[:, 0], [-0.5, 0.5, np.nan])
    assert np.isnan(rows[1, 1:4]).all() and not np.isnan(rows[[0, 2], 1:4]).any()
    np.testing.assert_array_equal(rows[:, 4], 0)


def test_a_column_of_two_values_counts_as_a_category():
    table = pd.DataFrame({"rare": [0.0] * 999 + [8.0]})
    assert np.ptp(Columns.fit(table, None).encode(table)) == 1.0


# --- all together -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [(kind,) for kind in KINDS] + [KINDS])
def test_cross_fitted_scores_are_distributed_like_those_of_new_rows(kinds):
    train, new = gaussian(1500, 4, 0), gaussian(3000, 4, 1)
    scorer, cross_fitted = fit_rows(train, np.arange(train.shape[1]), kinds, 0)
    fresh = score(scorer.evidence(new))
    # 5 % of distances between samples of these sizes from one distribution exceed 0.043.  Cross-fitted rows see
    # four fifths of the training rows, so that their neighbours are 0.8 ** (-1 / 4) = 1.06 times as far: new rows
    # may look a little more normal, never stranger.
    assert stats.ks_2samp(cross_fitted, fresh, alternative="greater", method="asymp").statistic < 0.043, (
        "new rows are stranger"
    )
    assert stats.ks_2samp(cross_fitted, fresh, method="asymp").statistic < 0.13
    above = (fresh > np.quantile(cross_fitted, 0.95)).mean()
    assert 0.025 < above < 0.075, f"{above:.1%} of new rows exceed the 95 % quantile of the cross-fitted"


def test_evidence_is_minus_the_log_probability_of_normal_rows():
    scorer, _ = fit_rows(gaussian(1500, 4, 0), np.arange(4), KINDS, 0)
    for kind, values in scorer.evidence(gaussian(3000, 4, 1)).items():
        for p in (0.5, 0.1, 0.01):
            share = (values > -np.log(p)).mean()
            assert p / 2 < share < 2 * p, f"{kind}: {share:.3f} of new rows have a p-value below {p}"


def test_score_is_a_power_mean_between_the_average_and_the_largest():
    np.testing.assert_allclose(score({"a": np.array([3.0, 0.0]), "b": np.array([4.0, 0.0])}), [168.5**0.25, 0.0])
    evidence = {k: np.random.default_rng(i).exponential(size=50) for i, k in enumerate("abc")}
    rows = np.stack(list(evidence.values()))
    assert (score(evidence) >= rows.mean(0)).all() and (score(evidence) <= rows.max(0)).all()
