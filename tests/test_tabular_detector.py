"""`TabularDetector` finds strange rows of mixed tables, holds the false-alarm rate it promises, says which column
is to blame and what it should have shown, and refuses tables that it cannot judge by name.
"""

from __future__ import annotations

import datetime
import decimal
import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_dataframe_column_names_consistency, parametrize_with_checks

from diffad import AlarmsPerDay, FalseAlarmRate, TabularDetector, TabularImputer, tabular_detector
from diffad.rows.evidence import KINDS, score

METHODS = ["score_samples", "decision_function", "predict", "p_values", "explain", "evidence", "recalibrate"]


def mixed(n, seed):
    """Return a table: `load` drives `power`, `state` follows the load's sign, the rest is independent."""
    rng = np.random.default_rng(seed)
    load = rng.standard_normal(n)
    return pd.DataFrame(
        {
            "load": load,
            "power": 100 + 10 * load + 2 * rng.standard_normal(n),
            "state": np.where(load > 0, "high", "low"),
            "line": rng.choice(["A", "B", "C"], n, p=[0.5, 0.3, 0.2]),
            "night": rng.random(n) < 0.4,
        }
    )


def numbers(n, seed):
    """Return four numeric columns, the first two of correlation 0.95."""
    x = np.random.default_rng(seed).standard_normal((n, 4))
    x[:, 1] = 0.95 * x[:, 0] + np.sqrt(1 - 0.95**2) * x[:, 1]
    return x


def strangeness(detector, X):
    return -detector.score_samples(X)


def roc(detector, normal, strange):
    y = np.r_[np.zeros(len(normal)), np.ones(len(strange))]
    return roc_auc_score(y, np.r_[strangeness(detector, normal), strangeness(detector, strange)])


def refused(call, *words):
    """Assert that the call raises ValueError with every one of `words` in its message."""
    with pytest.raises(ValueError) as caught:
        call()
    for word in words:
        assert word in str(caught.value), f"{word!r} is missing in: {caught.value}"


@pytest.fixture(scope="module")
def table():
    return mixed(800, 0)


@pytest.fixture(scope="module")
def new():
    return mixed(400, 1)


@pytest.fixture(scope="module")
def detector(table):
    return TabularDetector().fit(table)


@pytest.fixture(scope="module")
def numeric():
    return TabularDetector().fit(numbers(1000, 0))


# --- scikit-learn -----------------------------------------------------------------------------------------


@parametrize_with_checks([TabularDetector()])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_check_that_check_estimator_leaves_out():
    check_dataframe_column_names_consistency("TabularDetector", TabularDetector())


def test_clone_copies_parameters_and_nothing_learnt(table):
    fitted = TabularDetector(FalseAlarmRate(0.05), contamination=0.1, kinds=("nearest",)).fit(table)
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "offset_")


def test_a_stored_detector_gives_the_same_bits(detector, new):
    loaded = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(loaded.score_samples(new), detector.score_samples(new))
    np.testing.assert_array_equal(loaded.predict(new), detector.predict(new))
    pd.testing.assert_frame_equal(loaded.explain(new).share, detector.explain(new).share)


def test_pipeline_with_a_scaler_changes_the_unit_and_no_score(numeric):
    pipeline = make_pipeline(StandardScaler(), TabularDetector()).fit(numbers(1000, 0) * 7 + 3)
    new = numbers(50, 1)
    np.testing.assert_allclose(pipeline.score_samples(new * 7 + 3), numeric.score_samples(new), rtol=1e-4, atol=1e-5)


def test_predict_is_the_sign_of_the_decision_function(numeric):
    new = np.r_[numbers(100, 1), [[9.0, -9.0, 0.0, 0.0]]]
    decision = numeric.decision_function(new)
    np.testing.assert_array_equal(numeric.predict(new), np.where(decision < 0, -1, 1))
    np.testing.assert_allclose(decision, numeric.score_samples(new) - numeric.offset_)
    assert numeric.predict(new)[-1] == -1


def test_unfitted(new):
    for method in METHODS:
        with pytest.raises(NotFittedError):
            getattr(TabularDetector(), method)(new)


# --- what it finds ----------------------------------------------------------------------------------------


def test_far_points_are_found(numeric):
    strange = numbers(50, 2)
    strange[:, 3] += 8.0
    assert (numeric.predict(strange) == -1).all()


def test_broken_correlation_is_found_though_every_value_is_common(numeric):
    x = np.random.default_rng(3).uniform(1, 2, 50)
    strange = np.c_[x, -x, np.zeros((50, 2))]
    assert (numeric.predict(strange) == -1).all()
    assert roc(numeric, numbers(300, 4), strange) > 0.99


def test_rare_combination_is_found_though_both_values_are_common(detector, new):
    strange = new.assign(state=np.where(new["load"] > 0, "low", "high"))[new["load"].abs() > 0.5]
    assert roc(detector, new, strange) > 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_evidence_alone_sees_far_points_and_is_the_only_column(kind):
    alone = TabularDetector(kinds=(kind,)).fit(numbers(500, 0))
    strange = numbers(50, 1) + np.array([0.0, 0.0, 7.0, 0.0])
    assert roc(alone, numbers(300, 2), strange) > 0.97
    evidence = alone.evidence(strange)
    assert list(evidence.columns) == [kind]
    np.testing.assert_allclose(evidence[kind], strangeness(alone, strange), rtol=1e-6)


def test_score_combines_the_evidence_of_all_kinds(detector, new):
    evidence = detector.evidence(new)
    assert list(evidence.columns) == list(KINDS)
    pd.testing.assert_index_equal(evidence.index, new.index)
    np.testing.assert_allclose(
        score({kind: values.to_numpy() for kind, values in evidence.items()}), strangeness(detector, new)
    )


def test_array_and_table_of_the_same_numbers_score_equally(numeric):
    named = pd.DataFrame(numbers(1000, 0), columns=list("abcd"))
    new = numbers(50, 1)
    on_table = TabularDetector().fit(named).score_samples(pd.DataFrame(new, columns=list("abcd")))
    np.testing.assert_array_equal(on_table, numeric.score_samples(new))


def test_neither_the_order_of_rows_nor_their_number_matters_to_a_score(detector, new):
    together = detector.score_samples(new)
    np.testing.assert_allclose(detector.score_samples(new[::-1])[::-1], together, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(detector.score_samples(new[7:8]), together[7:8], rtol=1e-5, atol=1e-6)


def test_unit_of_a_column_does_not_matter(table, new, detector):
    other = {"power": lambda t: t["power"] * 1e6}
    scores = TabularDetector().fit(table.assign(**other)).score_samples(new.assign(**other))
    np.testing.assert_allclose(scores, detector.score_samples(new), rtol=1e-4, atol=1e-5)


def test_columns_of_tiny_unit_are_not_taken_for_constant():
    x = numbers(500, 0)
    x[:, 2] *= 1e-13  # capacitances in farad
    strange = numbers(50, 1) + np.array([0.0, 0.0, 8.0, 0.0])
    strange[:, 2] *= 1e-13
    normal = numbers(300, 2)
    normal[:, 2] *= 1e-13
    assert roc(TabularDetector().fit(x), normal, strange) > 0.97


# --- categories -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtypes",
    [
        {},
        {"state": "category", "line": "category"},
        {"state": "string", "line": "string", "night": "boolean"},
        {"state": object, "line": object, "night": object},
    ],
)
def test_text_category_and_bool_are_recognised_whatever_their_dtype(table, new, detector, dtypes):
    other = TabularDetector().fit(table.astype(dtypes))
    assert sorted(other.columns_.categories) == [2, 3, 4]
    np.testing.assert_allclose(other.score_samples(new.astype(dtypes)), detector.score_samples(new), atol=1e-6)


@pytest.mark.parametrize("chosen", [["code"], [1]])
def test_numbers_named_as_categories_are_categories(chosen):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"x": rng.standard_normal(400), "code": rng.choice([10, 20, 30], 400)})
    as_category = TabularDetector(categorical_features=chosen).fit(X)
    assert set(as_category.columns_.categories) == {1}
    between = pd.DataFrame({"x": [0.0], "code": [25]})
    assert as_category.predict(between)[0] == -1, "a code between codes is no code"
    assert as_category.explain(between).expected["code"][0] in {10, 20, 30}


def test_columns_of_arrays_can_be_categories_by_number():
    X = np.random.default_rng(0).integers(0, 3, (300, 2)).astype(float)
    fitted = TabularDetector(categorical_features=[1]).fit(X)
    assert set(fitted.columns_.categories) == {1}
    assert fitted.predict([[1.0, 1.5]])[0] == -1


def test_category_numbers_may_be_numpy_integers(table):
    fitted = TabularDetector(categorical_features=np.array([2, 3, 4])).fit(table)
    assert set(fitted.columns_.categories) == {2, 3, 4}


def test_unseen_category_is_strange_and_no_error(detector, new):
    strange = new[:20].assign(line="Z")
    assert (detector.predict(strange) == -1).all()
    assert (detector.explain(strange).share.idxmax(axis=1) == "line").all()


def test_more_categories_than_codes_work():
    rng = np.random.default_rng(0)
    names = [f"k{i}" for i in range(90)]
    train, later = (pd.DataFrame({"k": rng.choice(names, 900), "x": rng.standard_normal(900)}) for _ in range(2))
    fitted = TabularDetector(FalseAlarmRate(0.05)).fit(train)
    assert (fitted.predict(later) == -1).mean() < 0.1


# --- missing values ---------------------------------------------------------------------------------------


def test_nan_anywhere_gives_finite_scores(detector, new):
    holes = new.astype({"night": object}).mask(np.random.default_rng(0).random(new.shape) < 0.3)
    holes.iloc[0] = np.nan
    assert np.isfinite(detector.score_samples(holes)).all()
    assert np.isfinite(detector.explain(holes).share.to_numpy()).all()


def test_nan_in_training_is_no_obstacle(new):
    X = numbers(1000, 0)
    X[np.random.default_rng(0).random(X.shape) < 0.1] = np.nan
    fitted = TabularDetector(FalseAlarmRate(0.05)).fit(X)
    assert (fitted.predict(numbers(1000, 1)) == -1).mean() < 0.1
    assert roc(fitted, numbers(300, 2), numbers(50, 3) + np.array([0.0, 0.0, 8.0, 0.0])) > 0.97


@pytest.mark.parametrize("column", range(4))
def test_a_missing_number_is_no_evidence(numeric, column):
    new = numbers(400, 5)
    holes = new.copy()
    holes[:, column] = np.nan
    more = strangeness(numeric, holes) - strangeness(numeric, new)
    assert np.median(more) < 0.3 and (numeric.predict(holes) == -1).mean() < 0.03


def test_a_missing_number_hides_what_was_strange_about_it(numeric):
    strange = numbers(20, 5)
    strange[:, 3] = 9.0
    assert (numeric.predict(strange) == -1).all()
    strange[:, 3] = np.nan
    assert (numeric.predict(strange) == 1).all()


@pytest.mark.parametrize("column", ["state", "line", "night"])
def test_a_missing_category_is_no_evidence(detector, new, column):
    holes = new.assign(**{column: None})
    more = strangeness(detector, holes) - strangeness(detector, new)
    assert np.median(more) < 0.5, f"a missing {column} makes the median row stranger by {np.median(more):.0f}"


# --- explanations -----------------------------------------------------------------------------------------


def test_shares_add_up_to_the_score_and_are_named(detector, new):
    share = detector.explain(new).share
    assert list(share.columns) == list(new.columns)
    pd.testing.assert_index_equal(share.index, new.index)
    np.testing.assert_allclose(share.sum(axis=1), strangeness(detector, new), rtol=1e-6)
    assert (share.to_numpy() >= 0).all()


def test_the_column_that_is_off_gets_the_blame(numeric):
    strange = np.zeros((3, 4))
    strange[[0, 1, 2], [0, 2, 3]] = 6.0
    share = numeric.explain(strange).share.to_numpy()
    # Of two correlated columns that disagree either may be wrong.
    assert share[0, :2].sum() > 0.9 * share[0].sum()
    assert (share.argmax(1)[1:] == [2, 3]).all()


def test_band_of_a_correlated_column_covers_90_percent_and_is_narrow(numeric):
    new = numbers(4000, 7)
    found = numeric.explain(new)
    covered = ((new >= found.lower) & (new <= found.upper)).mean()
    # The shrinkage of the covariance weakens a correlation of 0.95 a little: its band is on the wide side.
    assert covered.between(0.87, 0.95).all(), covered
    width = (found.upper - found.lower).mean().to_numpy()
    # 90 % of a standard normal spans 3.29; given its partner the deviation is sqrt(1 - 0.95^2).
    np.testing.assert_allclose(width, 3.29 * np.array([0.312, 0.312, 1, 1]), rtol=0.1)


@pytest.mark.parametrize("n", [60, 500])
def test_band_of_columns_that_nearly_repeat_each_other_is_no_wider_than_needed(n):
    def twins(n, seed):
        x = np.random.default_rng(seed).standard_normal((n, 2))
        return np.column_stack([x[:, 0], x[:, 0] + 0.1 * x[:, 1]])

    new = twins(2000, 1)
    found = TabularDetector().fit(twins(n, 0)).explain(new)
    covered = ((new >= found.lower) & (new <= found.upper)).to_numpy().mean()
    assert 0.82 < covered < 0.96, covered


def test_band_is_that_of_rows_its_gaussian_has_not_seen():
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((12, 12))
    within = []
    for _ in range(5):
        new = rng.standard_normal((500, 12)) @ mixing
        found = TabularDetector(kinds=["nearest"]).fit(rng.standard_normal((40, 12)) @ mixing).explain(new)
        within.append(((new >= found.lower) & (new <= found.upper)).to_numpy().mean())
    assert 0.85 < np.mean(within) < 0.95, within


def test_whole_rows_have_tails_of_their_own_only_where_hardly_one_was_whole():
    for share, whole in ((0.05, False), (0.5, True)):
        scorer = TabularDetector(kinds=["nearest"]).fit(with_holes(200, 5, share, 0)).scorer_
        assert bool(scorer.tails.whole) == whole


def test_expected_value_is_in_the_units_of_the_column(detector, new):
    found = detector.explain(new)
    assert np.abs(found.expected["power"] - (100 + 10 * new["load"])).median() < 1.5
    broken = new.assign(power=300.0)
    assert np.abs(detector.explain(broken).expected["power"] - found.expected["power"]).max() < 1e-6, (
        "the column itself has no say in what it should have shown"
    )


def test_expected_category_is_one_that_was_seen_and_has_no_band(detector, new):
    for rows in (new, new.assign(line="Z", state="off"), new.assign(line=None, state=None)):
        found = detector.explain(rows)
        assert set(found.expected["state"]) <= {"high", "low"}
        assert set(found.expected["line"]) <= {"A", "B", "C"}
        assert set(found.expected["night"]) <= {True, False}
        assert found.lower[["state", "line", "night"]].isna().all(axis=None)


def test_missing_category_is_expected_from_the_other_columns(detector, new):
    clear = new[new["load"].abs() > 0.5]
    expected = detector.explain(clear.assign(state=None)).expected["state"]
    assert (expected == clear["state"]).mean() > 0.95


def test_wrong_category_is_not_what_is_expected(detector, new):
    clear = new[new["load"].abs() > 0.5]
    swapped = clear.assign(state=np.where(clear["load"] > 0, "low", "high"))
    expected = detector.explain(swapped).expected["state"]
    share = (expected.to_numpy() == clear["state"].to_numpy()).mean()
    assert share > 0.9, f"the right state is expected in {share:.0%} of the rows with a wrong one"


# --- the promise ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.01, 0.05])
def test_false_alarm_rate_holds_on_new_rows(rate):
    for make in (numbers, mixed):
        fitted = TabularDetector(FalseAlarmRate(rate)).fit(make(2000, 10))
        found = (fitted.predict(make(4000, 11)) == -1).mean()
        assert rate / 2 < found < 2 * rate, f"{make.__name__}: promised {rate}, got {found}"


@pytest.mark.parametrize("make", [numbers, mixed])
def test_p_values_of_new_normal_rows_are_about_uniform(make):
    p = TabularDetector().fit(make(2000, 10)).p_values(make(2000, 11))
    # Both samples of 2,000 vary: 5 % of distances between equal distributions exceed 0.043.  Cross-fitting on four
    # fifths of the rows makes p-values a little too large, never too small.
    assert stats.kstest(p, "uniform", alternative="greater").statistic < 0.043, "p-values are too small"
    assert stats.kstest(p, "uniform").statistic < 0.1


def with_holes(n, d, share, seed):
    """Return rows of one common cause, of which a share of the entries is missing."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 1)) + 0.5 * rng.standard_normal((n, d))
    hidden = rng.random(x.shape) < share
    hidden[hidden.all(1), 0] = False
    return np.where(hidden, np.nan, x)


@pytest.mark.parametrize(("n", "d", "fitted", "new", "most"), [(60, 10, 0.5, 0.5, 0.14), (300, 4, 0.5, 0.0, 0.2)])
def test_p_values_hold_where_values_are_missing(n, d, fitted, new, most):
    """A tenth of normal rows has p-values up to a tenth: that many missing everywhere, or in the rows fitted on alone."""
    p = [
        TabularDetector().fit(with_holes(n, d, fitted, seed)).p_values(with_holes(400, d, new, 100 + seed))
        for seed in range(6)
    ]
    assert (np.concatenate(p) <= 0.1).mean() < most


def test_a_column_that_one_row_knows_is_no_obstacle():
    x = numbers(80, 0)
    x[1:, 2] = np.nan
    detector = TabularDetector().fit(x)
    assert np.isfinite(detector.score_samples(numbers(20, 1))).all()
    assert np.isfinite(detector.explain(x).upper.iloc[0]).all()


def test_p_value_of_a_far_row_is_the_smallest_possible(numeric):
    assert numeric.p_values([[0.0, 0.0, 0.0, 20.0]])[0] == pytest.approx(1 / 1001)


def test_contamination_forgives_anomalies_in_training():
    clean, normal = numbers(1000, 0), numbers(500, 1)
    rng = np.random.default_rng(3)
    strange = numbers(200, 2) + rng.choice([-1, 1], (200, 4)) * rng.uniform(1, 4, (200, 4))
    training = np.r_[clean[:950], strange[:50]]
    forgiving = TabularDetector(contamination=0.05).fit(training)
    assert roc(forgiving, normal, strange[50:]) > roc(TabularDetector().fit(clean), normal, strange[50:]) - 0.02
    assert (forgiving.predict(training) == -1).mean() == pytest.approx(0.05, abs=0.005)
    assert (forgiving.predict(strange[:50]) == -1).mean() > 0.6


def test_contaminating_anomalies_that_resemble_each_other_do_not_vouch_for_one_another():
    """Each has 49 others close by: neighbours and mixture take the group for one more kind of normal rows."""
    group = 0.3 * numbers(200, 2) + np.array([3.0, -3.0, 3.0, 0.0])
    training, normal = np.r_[numbers(950, 0), group[:50]], numbers(500, 1)
    assert roc(TabularDetector().fit(training), normal, group[50:]) < 0.6
    forgiving = TabularDetector(contamination=0.05).fit(training)
    assert roc(forgiving, normal, group[50:]) > 0.9
    assert "crowd" in forgiving.evidence(normal)


def test_recalibrate_moves_the_threshold_to_the_new_normal(table):
    fitted = TabularDetector(FalseAlarmRate(0.05)).fit(table)
    shifted, later = (t.assign(power=t["power"] + 5) for t in (mixed(1000, 5), mixed(1000, 6)))
    before = fitted.score_samples(later)
    assert (before < fitted.offset_).mean() > 0.1
    assert fitted.recalibrate(shifted) is fitted
    np.testing.assert_array_equal(fitted.score_samples(later), before)
    assert 0.025 < (fitted.predict(later) == -1).mean() < 0.1


def test_same_seed_same_bits_other_seed_other_folds():
    X = numbers(300, 0)
    one, two, other = (TabularDetector(random_state=s).fit(X) for s in (3, 3, 4))
    np.testing.assert_array_equal(one.normal_.scores, two.normal_.scores)
    assert one.offset_ == two.offset_
    assert (one.normal_.scores != other.normal_.scores).any()


def test_global_random_state_neither_matters_nor_changes():
    X, offsets = numbers(300, 0), []
    for seed in (0, 1):
        np.random.seed(seed)  # noqa: NPY002 - the legacy global state is the subject
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        offsets.append(TabularDetector().fit(X).offset_)
        np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert offsets[0] == offsets[1]


def test_input_is_not_written_to(table, new):
    before = table.copy(), new.copy()
    TabularDetector().fit(table).explain(new)
    pd.testing.assert_frame_equal(table, before[0])
    pd.testing.assert_frame_equal(new, before[1])


# --- tables at the edge -----------------------------------------------------------------------------------


def test_duplicated_rows_are_normal_and_others_are_not():
    distinct = numbers(5, 0)
    fitted = TabularDetector().fit(np.repeat(distinct, 60, axis=0))
    assert (fitted.predict(distinct) == 1).all()
    assert (fitted.predict(distinct + 3) == -1).all()


def test_discrete_columns_hold_the_rate_and_see_impossible_values():
    rng = np.random.default_rng(0)
    fitted = TabularDetector(FalseAlarmRate(0.05)).fit(rng.integers(0, 4, (1000, 3)))
    assert (fitted.predict(rng.integers(0, 4, (1000, 3))) == -1).mean() < 0.1
    assert (fitted.predict([[9, 0, 0], [1, 1, -6]]) == -1).all()


@pytest.mark.parametrize("value", [0.0, 1000.0])
def test_a_change_in_a_constant_column_is_seen(value):
    X = np.c_[numbers(400, 0), np.full(400, value)]
    fitted = TabularDetector().fit(X)
    assert (fitted.predict(X) == 1).mean() > 0.97
    changed = X[:30].copy()
    changed[:, -1] += 5.0
    assert (fitted.predict(changed) == -1).all()
    assert (fitted.explain(changed).share.to_numpy().argmax(1) == 4).all()


@pytest.mark.parametrize("value", [0.0, 1000.0])
def test_the_unit_of_a_constant_column_does_not_matter(value):
    X = np.c_[numbers(400, 0), np.full(400, value)]
    changed = np.c_[numbers(30, 1), np.full(30, value + 5.0)]
    unit = np.array([1, 1, 1, 1, 1e-6])
    judged, other = TabularDetector().fit(X), TabularDetector().fit(X * unit)
    np.testing.assert_array_equal(judged.score_samples(changed), other.score_samples(changed * unit))


def test_a_change_in_one_constant_column_is_seen_beside_sixty_others():
    rng = np.random.default_rng(0)
    fitted = TabularDetector().fit(np.c_[rng.standard_normal((400, 60)), np.zeros(400)])
    assert (fitted.predict(np.c_[rng.standard_normal((50, 60)), np.full(50, 0.01)]) == -1).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_single_precision_is_no_change_of_a_constant_column(dtype):
    X = np.c_[numbers(400, 0), np.full(400, 0.1)]
    fitted = TabularDetector().fit(X.astype(dtype))
    single, double = (fitted.score_samples(X.astype(d)) for d in ("float32", "float64"))
    np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-4)


def test_which_of_equally_common_categories_count_does_not_depend_on_the_order_of_rows():
    X = pd.DataFrame({"port": np.repeat([f"p{k}" for k in range(90)], 4), "load": numbers(360, 0)[:, 0]})
    same = X.iloc[np.random.default_rng(0).permutation(len(X))]
    assert TabularDetector().fit(X).columns_.categories == TabularDetector().fit(same).columns_.categories


def test_one_constant_column_alone():
    fitted = TabularDetector().fit(np.full((40, 1), 7.0))
    assert fitted.predict([[7.0], [9.0]]).tolist() == [1, -1]


@pytest.mark.parametrize(
    "n",
    [3, 10, 50],
)
def test_few_rows_work(n):
    fitted = TabularDetector().fit(numbers(n, 0))
    assert len(fitted.normal_.scores) == n
    assert np.isfinite(fitted.score_samples(numbers(20, 1))).all()
    assert fitted.predict(np.full((1, 4), 50.0))[0] == -1


def test_few_mixed_rows_work():
    fitted = TabularDetector().fit(mixed(10, 0))
    assert np.isfinite(fitted.score_samples(mixed(20, 1))).all()


def test_more_rows_than_the_limit_are_sampled_by_the_seed(monkeypatch):
    monkeypatch.setattr(tabular_detector, "MOST_ROWS", 300)
    X = numbers(900, 0)
    one, two, other = (TabularDetector(random_state=s).fit(X) for s in (0, 0, 1))
    assert len(one.normal_.scores) == 300
    new = numbers(50, 1)
    np.testing.assert_array_equal(one.score_samples(new), two.score_samples(new))
    assert (one.score_samples(new) != other.score_samples(new)).any()


def test_rows_scored_in_chunks_get_the_scores_of_all_at_once(monkeypatch):
    fitted, new = TabularDetector().fit(mixed(200, 0)), mixed(100, 1)
    whole = fitted.score_samples(new)
    monkeypatch.setattr(tabular_detector, "CHUNK", 16)
    np.testing.assert_allclose(fitted.score_samples(new), whole, rtol=1e-6)


@pytest.mark.parametrize("call", ["fit", "score"])
def test_memory_does_not_grow_with_a_table_of_categories(call):
    """Encoded at once, sixty indicators in double precision of each of 100,000 rows are 48 MB, and kept several times."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"x": rng.standard_normal(100_000), "k": pd.Categorical(rng.integers(0, 60, 100_000).astype(str))})
    fitted = TabularDetector(kinds=("mixture",)).fit(X.iloc[:2000])
    tracemalloc.start()
    fitted.fit(X) if call == "fit" else fitted.score_samples(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6, peak


# --- refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity_is_refused_by_column(table, detector, value):
    bad = table.copy()
    bad.loc[3, "power"] = value
    refused(lambda: TabularDetector().fit(bad), "'power'", "infinity")
    refused(lambda: detector.score_samples(bad), "'power'", "infinity")
    refused(lambda: TabularDetector().fit(np.full((9, 2), value)), "infinity")


@pytest.mark.parametrize("time", [pd.Timestamp("2026"), pd.NaT, pd.Timedelta("1h"), datetime.date(2026, 1, 1)])
def test_times_in_a_numeric_column_are_refused_by_column(detector, new, time):
    wrong = new.astype({"load": object}).assign(load=pd.Series([time] * len(new), new.index))
    with pytest.raises(ValueError, match="'load' holds times where numbers were fitted"):
        detector.score_samples(wrong)


def test_arrays_with_text_are_tables(table, new):
    found = TabularDetector().fit(table).score_samples(new)
    for train, test in ((table.to_numpy(), new.to_numpy()), (table.to_numpy().tolist(), new.to_numpy().tolist())):
        np.testing.assert_array_equal(TabularDetector().fit(train).score_samples(test), found)


def test_text_in_a_numeric_column_is_refused_by_column(table, detector):
    for text in ("n/a", "3 kW"):
        bad = table.astype({"power": object})
        bad.loc[3, "power"] = text
        refused(lambda bad=bad: detector.score_samples(bad), "'power'", "text")
    refused(lambda: TabularDetector(categorical_features=["line", "night"]).fit(table), "'state'", "text")


def test_column_without_any_value_is_refused_by_name(table):
    for name in ("power", "line"):
        refused(lambda name=name: TabularDetector().fit(table.assign(**{name: None})), f"'{name}'", "no value")


def test_duplicate_column_names_are_refused(table, detector):
    twice = table.set_axis(["load", "load", "state", "line", "night"], axis=1)
    refused(lambda: TabularDetector().fit(twice), "'load'")
    refused(lambda: detector.predict(twice), "'load'")


def test_reordered_columns_named_by_numbers_are_refused():
    X = pd.DataFrame(np.random.default_rng(0).standard_normal((60, 3)), columns=[7, 8, 9])
    for estimator in (TabularDetector().fit(X), TabularImputer().fit(X)):
        call = getattr(estimator, "transform", None) or estimator.predict
        call(X)
        call(X.to_numpy())
        with pytest.raises(ValueError, match="order"):
            call(X[[9, 8, 7]])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (pd.period_range("2026-01", periods=60, freq="D"), "hold times"),
        (pd.Series([datetime.date(2026, 1, 1)] * 60, dtype=object), "hold times"),
        (np.arange(60) * 1j, "complex"),
        (pd.Series([[1, 2]] * 60), "lists"),
    ],
    ids=["periods", "dates", "complex", "lists"],
)
def test_what_is_neither_number_nor_category(values, words):
    X = pd.DataFrame({"a": np.arange(60.0), "b": values})
    for estimator in (TabularDetector(), TabularImputer()):
        with pytest.raises(ValueError, match=words):
            estimator.fit(X)


def test_decimals_are_numbers():
    X = pd.DataFrame({"a": np.arange(60.0), "b": pd.Series([decimal.Decimal(k) for k in range(60)], dtype=object)})
    assert not TabularDetector().fit(X).columns_.categories


def test_missing_extra_and_reordered_columns_are_refused(detector, new):
    refused(lambda: detector.predict(new.drop(columns="line")), "line")
    refused(lambda: detector.predict(new.assign(humidity=1.0)), "humidity")
    refused(lambda: detector.predict(new[new.columns[::-1]]), "order")
    refused(lambda: TabularDetector().fit(numbers(50, 0)).predict(numbers(5, 0)[:, :3]), "3", "4")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kinds": ("nearest", "magic")}, ("kinds", "magic", "neighbours")),
        ({"kinds": ()}, ("kinds",)),
        ({"kinds": "mixture"}, ("kinds",)),
        ({"contamination": 0.5}, ("contamination", "0.5")),
        ({"contamination": -0.1}, ("contamination", "-0.1")),
        ({"contamination": float("nan")}, ("contamination", "nan")),
        ({"contamination": "auto"}, ("contamination", "auto")),
        ({"contamination": None}, ("contamination", "None")),
        ({"kinds": 3}, ("kinds", "3")),
        ({"threshold": 0.01}, ("threshold", "FalseAlarmRate")),
        ({"categorical_features": ["colour"]}, ("categorical_features", "colour", "line")),
        ({"categorical_features": [5]}, ("categorical_features", "5")),
        ({"categorical_features": [-1]}, ("categorical_features", "-1")),
    ],
)
def test_wrong_parameters_are_refused_by_name(table, options, words):
    refused(lambda: TabularDetector(**options).fit(table), *words)


def test_empty_tables_are_refused(table, detector):
    refused(lambda: TabularDetector().fit(table[:0]), "no row")
    refused(lambda: detector.predict(table[:0]), "no row")
    refused(lambda: TabularDetector().fit(table[[]]), "0 feature")


def test_score_of_an_absurd_value_is_finite(numeric):
    assert np.isfinite(numeric.score_samples([[0.0, 0.0, 0.0, 1e60]])).all()


@pytest.mark.parametrize("n", [1, 2])
def test_too_few_rows_are_refused_by_number(n):
    with pytest.raises(ValueError, match=f"{n} rows.*at least 3"):
        TabularDetector().fit(np.random.default_rng(0).standard_normal((n, 4)))


@pytest.mark.parametrize("gross", [1e3, 1e6, 1e300])
def test_a_gross_row_that_is_allowed_for_does_not_blind_the_detector(gross):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((500, 3))
    strange = rng.standard_normal((50, 3))
    strange[:, 0] += 8 * rng.choice([-1, 1], 50)
    rows[7, 0] = gross
    assert (TabularDetector(contamination=0.01).fit(rows).predict(strange) < 0).mean() > 0.9


def test_numbers_kept_as_objects_are_numbers():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((200, 2)), columns=["a", "b"])
    objects = frame.astype(object).where(frame > -2, None)
    far = objects.head(1).assign(a=1e6)
    assert TabularDetector().fit(objects).predict(far)[0] == -1
    filled = TabularImputer().fit_transform(objects)
    assert filled.notna().all(axis=None)


@pytest.mark.parametrize("kind", [TabularDetector, TabularImputer])
def test_times_are_refused_by_name(kind):
    frame = pd.DataFrame({"a": np.arange(50.0), "when": pd.date_range("2024-01-01", periods=50)})
    with pytest.raises(ValueError, match=r"when.*hold times"):
        kind().fit(frame)
    kind(categorical_features=["when"]).fit(frame.assign(when=frame["when"].dt.floor("30D")))


def test_a_mask_marks_categories():
    rows = np.random.default_rng(0).integers(0, 3, (100, 3)).astype(float)
    assert set(TabularDetector(categorical_features=[False, True, False]).fit(rows).columns_.categories) == {1}


def test_events_a_day_are_refused_before_the_work():
    with pytest.raises(ValueError, match="FalseAlarmRate"):
        TabularDetector(threshold=AlarmsPerDay(1)).fit(np.random.default_rng(0).standard_normal((50, 2)))


def test_a_far_training_row_is_not_its_own_neighbour():
    for seed in range(8):
        rows = np.random.default_rng(seed).standard_normal((1500, 60))
        rows[3] *= 1000
        assert TabularDetector(kinds=("nearest",)).fit(rows).predict(rows[3:4])[0] == -1


def test_columns_named_by_numbers_and_sparse_columns():
    frame = pd.DataFrame(np.random.default_rng(0).standard_normal((60, 2)), columns=[3, 5])
    frame.iloc[4, 1] = np.nan
    assert list(TabularImputer().fit_transform(frame).columns) == [3, 5]
    sparse = frame.assign(**{"s": pd.arrays.SparseArray(np.r_[np.zeros(59), np.nan])})
    for named in (sparse.rename(columns=str), sparse.set_axis([1, 2, 3], axis=1)):
        assert TabularImputer().fit_transform(named).notna().all(axis=None)


@pytest.mark.parametrize("unit", [1e-300, 1e-160, 1e160, 1e300])
def test_any_magnitude(unit):
    rows = np.random.default_rng(0).standard_normal((200, 2))
    detector = TabularDetector().fit(rows * unit)
    expected = TabularDetector().fit(rows).score_samples(rows)
    np.testing.assert_allclose(detector.score_samples(rows * unit), expected, rtol=1e-6)
    assert detector.predict([[30 * unit, 0.0]])[0] == -1


def test_defaults_of_torch_do_not_matter():
    rows = np.random.default_rng(0).standard_normal((60, 3))
    rows[5, 1] = np.nan
    expected = TabularDetector().fit(rows).explain(rows).expected
    torch.set_default_device("meta")
    try:
        found = TabularDetector().fit(rows).explain(rows).expected
    finally:
        torch.set_default_device(None)
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize("columns", [60, 200])
def test_few_wide_rows_hold_the_alarm_rate(columns):
    """A mixture of as many components as there are columns' worth of rows finds all new rows strange."""
    rates = []
    for seed in range(4):
        X = np.random.default_rng(seed).standard_normal((1060, columns))
        detector = TabularDetector(threshold=FalseAlarmRate(0.05)).fit(X[:60])
        rates.append((detector.predict(X[60:]) < 0).mean())
    assert max(rates) < 0.2, rates
    assert np.mean(rates) < 0.1, rates


@pytest.mark.parametrize("kind", [int, float, "Int64"])
def test_a_bool_column_that_comes_as_numbers_is_the_same(kind):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.standard_normal(300), "on": rng.random(300) < 0.4})
    detector = TabularDetector().fit(table)
    again = table.assign(on=table["on"].astype(kind))
    np.testing.assert_array_equal(detector.score_samples(again), detector.score_samples(table))
    assert detector.score_samples(table.assign(on=2)).max() < detector.score_samples(table).min()


def test_a_missing_category_is_not_to_blame():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(300)
    train = pd.DataFrame({"a": x, "b": x + 0.1 * rng.standard_normal(300), "c": rng.choice(["x", "y", "z"], 300)})
    detector = TabularDetector().fit(train)
    odd = pd.DataFrame({"a": [2.5, 0.0, np.nan], "b": [2.5, 1.0, np.nan], "c": [None, None, None]})
    share = detector.explain(odd).share
    np.testing.assert_allclose(share.sum(axis=1), -detector.score_samples(odd))
    np.testing.assert_array_equal(share["c"][:2], 0)
    assert share.loc[2].nunique() == 1, "a row that shows nothing has nothing to blame, all alike"
