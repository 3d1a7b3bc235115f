"""`SeriesDetector` is a scikit-learn outlier detector: whatever works with one works with it.

Scores do not depend on the container rows come in, on other series beside them, on torch's global
settings or on random states, and the same fit gives the same bits.
"""

from __future__ import annotations

import copy
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_dataframe_column_names_consistency, parametrize_with_checks

from diffad import FalseAlarmRate, SeriesDetector

#: Checks that are excused, with the reason: scores of ordered rows depend on their neighbours.
EXCUSED = {
    "check_methods_subset_invariance": "a row is judged by the rows around it: a subset is another recording",
    "check_methods_sample_order_invariance": "rows are ordered in time: another order is another recording",
}

#: Not excused but open: strict, so that the line goes when the check passes.  The threshold comes from rows that
#: no model had seen; rows that were fitted on score lower, so that a whole training set can be without an alarm.
OPEN = dict.fromkeys(["check_outliers_train", "check_outliers_fit_predict"], "no training row alarms")

DEFAULT = SeriesDetector()
PAST = SeriesDetector(context="past", kinds=("energy", "quiet"))


@parametrize_with_checks([DEFAULT, PAST], expected_failed_checks=lambda _: EXCUSED | OPEN)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_check_that_check_estimator_leaves_out():
    check_dataframe_column_names_consistency("SeriesDetector", clone(DEFAULT))


@pytest.fixture(scope="module")
def faulty(waves):
    """Return `waves` with a few gaps and an offset in one channel: rows that alarm."""
    x = waves.copy()
    x[20:24, 0] = np.nan
    x[100:110, 1] = np.nan
    x[200:204] = np.nan
    x[150:160, 2] += 3.0
    return x


@pytest.fixture(scope="module")
def detector(waves):
    return SeriesDetector().fit(waves)


@pytest.fixture(scope="module")
def table(faulty):
    index = pd.date_range("2026-01-01", periods=len(faulty), freq="10s", name="time")
    return pd.DataFrame(faulty, index, ["flow", "pressure", "power"])


@pytest.fixture(scope="module")
def on_tables(waves, table):
    """Return the detector of `detector`, fitted on a table."""
    return SeriesDetector().fit(pd.DataFrame(waves, table.index, table.columns))


# --- decisions --------------------------------------------------------------------------------------------


def test_an_alarm_is_a_score_below_the_threshold(detector, faulty):
    score = detector.score_samples(faulty)
    np.testing.assert_array_equal(detector.decision_function(faulty), score - detector.offset_)
    np.testing.assert_array_equal(detector.predict(faulty), np.where(score < detector.offset_, -1, 1))
    assert set(np.unique(detector.predict(faulty))) == {-1, 1}, "the fixture is meant to hold both"


def test_fit_predict_takes_labels_as_fit_does(faulty):
    labels = np.zeros(len(faulty), int)
    labels[150:160] = 1
    alarms = SeriesDetector(kinds=("energy",)).fit_predict(faulty, labels)
    assert np.array_equal(alarms, SeriesDetector(kinds=("energy",)).fit(faulty, labels).predict(faulty))
    assert (alarms[150:160] == -1).sum() > (SeriesDetector(kinds=("energy",)).fit_predict(faulty)[150:160] == -1).sum()


def test_fit_predict_is_fit_and_predict(faulty):
    detector = SeriesDetector(threshold=FalseAlarmRate(0.2), kinds=("quiet",))
    alarms = detector.fit_predict(faulty)
    np.testing.assert_array_equal(alarms, clone(detector).fit(faulty).predict(faulty))
    assert (alarms == -1).any()


# --- containers -------------------------------------------------------------------------------------------


def test_array_and_table_score_alike(detector, on_tables, faulty, table):
    np.testing.assert_array_equal(on_tables.score_samples(table), detector.score_samples(faulty))
    np.testing.assert_array_equal(detector.score_samples(faulty.tolist()), detector.score_samples(faulty))


def test_events_and_tables_carry_the_labels_of_the_index(on_tables, table):
    events = on_tables.events(table)
    worst = events.loc[events["severity"].idxmax()]
    assert worst["start"] <= worst["peak"] <= worst["end"]
    assert worst["start"] <= table.index[159] and worst["end"] >= table.index[150], "the offset lies elsewhere"
    assert worst["channels"][0] == "power"
    for result in (on_tables.evidence(table), on_tables.explain(table).share, on_tables.explain(table).lower):
        pd.testing.assert_index_equal(result.index, table.index)
    assert list(on_tables.explain(table).expected.columns) == list(table.columns)


def test_events_of_arrays_carry_row_numbers(detector, faulty):
    alarm = detector.predict(faulty) == -1
    events = detector.events(faulty)
    inside = np.zeros(len(faulty), bool)
    for event in events.itertuples():
        assert alarm[[event.start, event.peak, event.end]].all()
        inside[event.start : event.end + 1] = True
    assert inside[alarm].all()


def test_other_labels_than_times_are_kept(on_tables, table):
    stamped = on_tables.evidence(table)
    with_names = table.set_axis([f"row {i}" for i in range(len(table))])
    pd.testing.assert_index_equal(on_tables.evidence(with_names).index, with_names.index)
    np.testing.assert_array_equal(on_tables.evidence(with_names), stamped)


# --- several series ---------------------------------------------------------------------------------------


def test_series_of_a_panel_are_scored_as_if_alone(detector, faulty):
    panel = faulty.reshape(3, 100, 3)
    alone = np.concatenate([detector.score_samples(series) for series in panel])
    np.testing.assert_array_equal(detector.score_samples(panel), alone)
    assert not np.array_equal(detector.score_samples(faulty), alone), "seams are meant to matter"


def test_series_of_interleaved_groups_are_scored_as_if_alone(detector, faulty):
    order = np.arange(300).reshape(3, 100).T.ravel()  # rows of three series in turn
    groups = np.array(["a", "b", "c"])[order // 100]
    alone = np.concatenate([detector.score_samples(series) for series in faulty.reshape(3, 100, 3)])
    np.testing.assert_array_equal(detector.score_samples(faulty[order], groups), alone[order])
    np.testing.assert_array_equal(
        detector.predict(faulty[order], groups), np.where(alone[order] < detector.offset_, -1, 1)
    )


def test_events_of_a_panel_name_their_series(detector, faulty):
    panel = faulty.reshape(3, 100, 3)
    found = detector.events(panel)
    assert found.columns[0] == "series" and len(found)
    assert (found["start"] // 100 == found["series"]).all() and (found["end"] // 100 == found["series"]).all()
    for number, series in enumerate(panel):
        alone = detector.events(series)
        assert "series" not in alone and len(alone) == (found["series"] == number).sum()


def test_panel_and_groups_are_fitted_alike(waves, faulty):
    groups = np.repeat([0, 1, 2], 100)
    panel = SeriesDetector().fit(waves.reshape(3, 100, 3))
    flat = SeriesDetector().fit(waves, groups=groups)
    np.testing.assert_array_equal(panel.score_samples(faulty), flat.score_samples(faulty))
    assert panel.offset_ == flat.offset_
    as_one = SeriesDetector().fit(waves)
    assert not np.array_equal(as_one.score_samples(faulty), flat.score_samples(faulty)), "no window spans a seam"


def test_an_event_ends_with_its_series(detector, waves):
    x = waves.copy()
    x[145:155, 0] += 3.0
    groups = np.repeat([0, 1], 150)
    together, apart = detector.events(x), detector.events(x, groups)
    assert ((together["start"] < 150) & (together["end"] >= 150)).any()
    assert not ((apart["start"] < 150) & (apart["end"] >= 150)).any(), apart


@pytest.mark.parametrize("method", ["decision_function", "p_values", "recalibrate"])
def test_every_method_takes_groups(detector, faulty, method):
    getattr(copy.copy(detector), method)(faulty, groups=np.repeat([0, 1, 2], 100))


# --- copies, stores, searches -----------------------------------------------------------------------------


def test_clone_copies_parameters_and_nothing_learnt(waves):
    fitted = SeriesDetector(threshold=FalseAlarmRate(0.02)).fit(waves)
    copy = clone(fitted)
    assert not hasattr(copy, "offset_")
    assert copy.threshold == fitted.threshold
    copy.set_params(threshold__rate=0.3)
    assert fitted.threshold.rate == 0.02


@pytest.mark.parametrize("way", ["pickle", "joblib"])
def test_a_stored_detector_gives_the_same_bits(way, on_tables, table, tmp_path):
    if way == "pickle":
        loaded = pickle.loads(pickle.dumps(on_tables))
    else:
        joblib.dump(on_tables, tmp_path / "detector.joblib")
        loaded = joblib.load(tmp_path / "detector.joblib")
    np.testing.assert_array_equal(loaded.score_samples(table), on_tables.score_samples(table))
    pd.testing.assert_frame_equal(loaded.events(table), on_tables.events(table))


def test_pipeline_with_a_scaler(on_tables, table, waves):
    train = pd.DataFrame(waves, table.index, table.columns)
    pipeline = make_pipeline(StandardScaler(), SeriesDetector()).set_output(transform="pandas").fit(train)
    # A linear scaler before a model that standardises itself changes the unit, and float32's last digits.
    np.testing.assert_allclose(pipeline.score_samples(table), on_tables.score_samples(table), rtol=1e-3)
    np.testing.assert_array_equal(pipeline.predict(table) == -1, pipeline.decision_function(table) < 0)
    blamed = pipeline[-1].events(pipeline[:-1].transform(table))
    assert list(blamed["start"]) == list(on_tables.events(table)["start"])


def mean_score(estimator, X, y=None):
    """Return how normal the rows look: needs no labels."""
    return estimator.score_samples(X).mean()


def test_grid_search_without_labels(waves):
    grid = {"context": ["both", "past"], "kinds": [("energy",), ("energy", "quiet")]}
    search = GridSearchCV(SeriesDetector(), grid, scoring=mean_score, cv=TimeSeriesSplit(2), error_score="raise")
    search.fit(waves)
    means = search.cv_results_["mean_test_score"]
    assert np.isfinite(means).all()
    assert len(np.unique(means)) == 4, "every choice is meant to reach the model"
    assert search.best_estimator_.get_params()["kinds"] == search.best_params_["kinds"]


def test_grid_search_reaches_the_parameters_of_the_threshold(waves):
    search = GridSearchCV(
        SeriesDetector(threshold=FalseAlarmRate()),
        {"threshold__rate": [0.02, 0.2]},
        scoring=lambda estimator, X, y=None: -(estimator.predict(X) == -1).mean(),
        cv=TimeSeriesSplit(2),
        error_score="raise",
    ).fit(waves)
    few, many = -search.cv_results_["mean_test_score"]
    assert few < many


# --- nothing else matters ---------------------------------------------------------------------------------


def test_the_same_fit_gives_the_same_bits(waves, faulty, detector):
    again = SeriesDetector().fit(faulty[:60]).fit(waves)
    np.testing.assert_array_equal(again.score_samples(faulty), detector.score_samples(faulty))
    np.testing.assert_array_equal(again.normal_.scores, detector.normal_.scores)
    assert again.offset_ == detector.offset_


def test_neither_fit_nor_scoring_change_what_they_are_given(table):
    before = table.copy(deep=True)
    detector = SeriesDetector(contamination=0.05, kinds=("quiet",)).fit(table)
    for method in (detector.predict, detector.events, detector.explain, detector.evidence, detector.recalibrate):
        method(table)
    pd.testing.assert_frame_equal(table, before)


@pytest.fixture
def double_by_default():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def test_default_dtype_float64_does_not_matter(waves, faulty, request):
    past = clone(PAST).fit(waves)
    live = past.stream()
    expected = SeriesDetector().fit(waves).score_samples(faulty), [live.update(row) for row in faulty[:20]]
    request.getfixturevalue("double_by_default")
    np.testing.assert_array_equal(SeriesDetector().fit(waves).score_samples(faulty), expected[0])
    live = past.stream()
    assert [live.update(row) for row in faulty[:20]] == expected[1]
    assert torch.get_default_dtype() == torch.float64


def test_global_random_states_neither_matter_nor_change(waves, faulty):
    results = []
    for seed in (0, 1):
        np.random.seed(seed)  # noqa: NPY002 - the legacy global state is the subject
        torch.manual_seed(seed)
        before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
        results.append(SeriesDetector().fit(waves[:150]).score_samples(faulty))
        np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), before[1])
    np.testing.assert_array_equal(*results)
