"""The CRPS is the fair ensemble score by its definition, and tends to the closed form of a Gaussian."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from diffad.metrics import coverage, crps, vus_pr

NUMBERS = st.floats(-1e3, 1e3)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(float, st.tuples(st.integers(2, 6), st.integers(1, 3)), elements=NUMBERS), st.data())
def test_crps_is_its_double_sum(samples, data):
    truth = data.draw(hnp.arrays(float, samples.shape[1], elements=NUMBERS))
    m = len(samples)
    for k, ours in enumerate(crps(samples, truth)):
        error = sum(abs(x - truth[k]) for x in samples[:, k]) / m
        pairs = sum(abs(x - y) for x in samples[:, k] for y in samples[:, k])
        # Differences of numbers up to 1,000 in float64.
        assert ours == pytest.approx(error - pairs / (2 * m * (m - 1)), abs=1e-10)


@pytest.mark.parametrize("mean", [-1.0, 0.0, 2.5])
@pytest.mark.parametrize("deviation", [0.3, 1.0])
def test_crps_of_many_samples_is_the_closed_form_of_a_gaussian(mean, deviation):
    """Gneiting and Raftery (2007), eq. 21."""
    truth = np.linspace(-2, 3, 7)
    samples = np.random.default_rng(0).normal(mean, deviation, (200_000, 7))
    z = (truth - mean) / deviation
    expected = deviation * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    # The error of a mean over 200,000 samples is at most deviation / 447; five of them.
    np.testing.assert_allclose(crps(samples, truth), expected, atol=5 * deviation / np.sqrt(200_000))


def test_crps_of_few_samples_has_no_bias():
    """Two samples score on average what infinitely many do, so that sample counts compare."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(200_000)
    few, more = (crps(rng.standard_normal((m, len(truth))), truth).mean() for m in (2, 20))
    # The CRPS of a perfect Gaussian forecast is 1 / sqrt(pi); four standard errors.
    assert few == pytest.approx(1 / np.sqrt(np.pi), abs=4 * 0.9 / np.sqrt(len(truth)))
    assert more == pytest.approx(1 / np.sqrt(np.pi), abs=4 * 0.5 / np.sqrt(len(truth)))


def test_crps_takes_any_shape_and_order():
    rng = np.random.default_rng(0)
    samples, truth = rng.standard_normal((5, 2, 3, 4)), rng.standard_normal((2, 3, 4))
    before = samples.copy()
    scores = crps(samples, truth)
    assert scores.shape == (2, 3, 4)
    np.testing.assert_allclose(scores, crps(samples[::-1], truth))
    np.testing.assert_array_equal(samples, before)


def test_crps_of_one_sample_is_refused():
    with pytest.raises(ValueError, match="at least 2 samples along the first axis, got 1"):
        crps([[1.0]], [1.0])


def test_coverage_counts_the_edges_as_inside():
    assert coverage([0, 0, 0, 0], [1, 1, 1, 1], [0.0, 1.0, 1.1, -0.1]) == 0.5


def test_entries_without_a_truth_do_not_count_for_coverage():
    assert coverage([0, 0, 0], [1, 1, 1], [0.5, np.nan, 2.0]) == 0.5
    assert np.isnan(coverage([0.0], [1.0], [np.nan]))


def test_coverage_takes_bands_of_several_draws_dates_and_large_integers():
    assert coverage(np.full((3, 4), -1.0), np.full((3, 4), 1.0), [0.0, 0.5, np.nan, 2.0]) == pytest.approx(2 / 3)
    assert coverage([2**60 + 1], [2**60 + 3], [2**60]) == 0
    days = np.array(["2026-01-01", "2026-01-03"], dtype="M8[D]")
    assert coverage(days[:1], days[1:], days[:1]) == 1


def test_masked_entries_are_unknown():
    hidden = np.ma.array([0.5, 0.5, 2.0], mask=[False, True, False])
    assert coverage([0, 0, 0], [1, 1, 1], hidden) == 0.5
    np.testing.assert_array_equal(np.isnan(crps(np.zeros((3, 3)), hidden)), hidden.mask)
    with pytest.raises(ValueError, match="strangeness holds NaN in 1 rows"):
        vus_pr([0, 0, 1], hidden, buffer=0)


def test_masked_dates_and_large_integers_are_unknown():
    days = np.array(["2026-01-01", "2026-01-02"], "M8[D]")
    assert coverage(days, days, np.ma.array(days[[1, 1]], mask=[False, True])) == 0
    assert coverage([2**60 + 1, 0], [2**60 + 3, 0], np.ma.array([2**60, 0], mask=[False, True])) == 0


def test_coverage_of_true_intervals_is_nominal():
    y = np.random.default_rng(0).standard_normal(100_000)
    edge = stats.norm.ppf(0.95)
    # Four standard errors.
    assert coverage(np.full(y.shape, -edge), np.full(y.shape, edge), y) == pytest.approx(0.9, abs=0.004)


def test_a_row_without_a_score_is_refused():
    y = np.zeros(50, int)
    y[10:15] = 1
    with pytest.raises(ValueError, match="strangeness holds NaN in 1 rows"):
        vus_pr(y, np.where(np.arange(50) == 3, np.nan, y), buffer=2)


@pytest.mark.parametrize("wrong", [-1, 2, np.nan, "1"])
def test_labels_other_than_0_and_1_are_refused(wrong):
    """As -1 of predict, which is true where rows are anomalous, as 1 is where they are not."""
    y = [*[1, 1, 1], wrong] if wrong == -1 else [0, 0, 1, wrong]
    with pytest.raises(
        ValueError, match="y must hold 1 for anomalous rows and 0.*" + ("predict" if wrong == -1 else "")
    ):
        vus_pr(y, [0.0, 0.1, 0.2, 0.3], buffer=0)


@pytest.mark.parametrize("buffer", [-1, 1.5, True])
def test_a_buffer_is_a_number_of_rows(buffer):
    with pytest.raises(ValueError, match="buffer must be an integer of at least 0"):
        vus_pr([0, 1, 0], [0.0, 1.0, 0.0], buffer=buffer)
