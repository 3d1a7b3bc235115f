"""Input that a detector cannot use is refused with an error that names what is wrong and what to do about it;
input that can be used in spite of its form is used.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from diffad import AlarmsPerDay, FalseAlarmRate, SeriesDetector
from diffad.faults import inject
from diffad.plot import plot_detection


def small(**options):
    """Return a detector of the cheapest evidence."""
    return SeriesDetector(**{"kinds": ("energy", "quiet"), **options})


@pytest.fixture(scope="module")
def table(waves):
    index = pd.date_range("2026-01-01", periods=len(waves), freq="10s", name="time")
    return pd.DataFrame(waves, index, ["flow", "pressure", "power"])


@pytest.fixture(scope="module")
def fitted(table):
    return small().fit(table)


@pytest.fixture(scope="module")
def on_arrays(waves):
    return small().fit(waves)


def refused(kind, call, *words):
    """Assert that the call raises `kind` with every one of `words` in its message."""
    with pytest.raises(kind) as caught:
        call()
    for word in words:
        assert word in str(caught.value), f"{word!r} is missing in: {caught.value}"


METHODS = [
    "score_samples",
    "decision_function",
    "predict",
    "p_values",
    "events",
    "explain",
    "evidence",
    "recalibrate",
    "adapt",
]


# --- values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity(waves, table, on_arrays, fitted, value):
    bad = waves.copy()
    bad[3, 1] = value
    refused(ValueError, lambda: small().fit(bad), "X", "infinity")
    refused(ValueError, lambda: on_arrays.predict(bad), "X", "infinity")
    told = table.copy()
    told.iloc[3, 1] = value
    refused(ValueError, lambda: small().fit(told), "X", "infinity")
    refused(ValueError, lambda: fitted.events(told), "X", "infinity")


def test_complex_numbers(table, fitted):
    with pytest.raises(ValueError, match=r"'.*' of X holds values that are no numbers \(complex"):
        fitted.score_samples(table.astype(complex) + 1j)


def test_text(table, fitted):
    bad = table.assign(power=["off"] * len(table))
    refused(ValueError, lambda: small().fit(bad), "off")
    refused(ValueError, lambda: fitted.score_samples(bad), "off")
    refused(ValueError, lambda: small().fit(np.array([["a", "b"]])), "a")


def test_no_observed_value_at_all(table):
    refused(ValueError, lambda: small().fit(np.full((30, 2), np.nan)), "no observed value")
    refused(ValueError, lambda: small().fit(table.map(lambda v: np.nan)), "no observed value")


def test_a_channel_without_a_value_in_training_is_named(table):
    with pytest.warns(UserWarning, match=r"\['power'\] hold no observed value"):
        small().fit(table.assign(power=np.nan))


# --- sizes and shapes -------------------------------------------------------------------------------------


def test_no_rows_and_one_dimension(on_arrays):
    refused(ValueError, lambda: small().fit(np.empty((0, 3))), "0 sample", "minimum of 1")
    refused(ValueError, lambda: small().fit(pd.DataFrame({"a": pd.Series(dtype=float)})), "0 sample")
    refused(ValueError, lambda: on_arrays.score_samples(np.empty((0, 3))), "0 sample")
    refused(ValueError, lambda: small().fit(np.arange(5.0)), "Expected 2D", "reshape")


@pytest.mark.parametrize("context", ["both", "past"])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 17, 40])
def test_fewer_rows_than_a_window_can_be_fitted(rows, context, waves):
    detector = SeriesDetector(context=context).fit(waves[:rows])
    assert np.isfinite(detector.score_samples(waves)).all()
    assert set(np.unique(detector.predict(waves[:100]))) <= {-1, 1}
    told = detector.explain(waves[:20])
    assert np.isfinite(told.lower).all(axis=None) and np.isfinite(told.upper).all(axis=None)
    assert detector.explain(waves[:1]).share.shape == (1, 3)


def test_a_single_row_is_a_constant_and_another_row_an_alarm():
    detector = SeriesDetector().fit([[1.0, 2.0]])
    assert detector.predict([[1.0, 2.0], [1.0, 3.0]]).tolist() == [1, -1]


@pytest.mark.parametrize("evidence", [("quiet",), ("shape",), ("quiet", "shape")], ids="+".join)
def test_a_detector_without_any_window_that_fits_says_so(evidence, waves):
    x = waves.copy()
    x[150] += 20.0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            alarms = SeriesDetector(kinds=evidence).fit(waves[:12]).predict(x)
        except ValueError as error:
            assert "evidence" in str(error)
            return
    assert (alarms == -1).any() or any("evidence" in str(w.message) for w in caught)


def test_missing_surplus_reordered_and_renamed_columns(table, fitted):
    refused(ValueError, lambda: fitted.predict(table.drop(columns="power")), "power")
    refused(ValueError, lambda: fitted.predict(table.assign(extra=1.0)), "extra")
    refused(ValueError, lambda: fitted.predict(table[table.columns[::-1]]), "order")
    refused(ValueError, lambda: fitted.predict(table.rename(columns={"power": "load"})), "load", "power")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_refuses_other_channels(method, waves, table, fitted, on_arrays):
    refused(ValueError, lambda: getattr(fitted, method)(table[["flow", "power"]]), "pressure")
    refused(ValueError, lambda: getattr(on_arrays, method)(waves[:, :2]), "2 features", "3 features")


def test_two_columns_of_one_name(table):
    X = table.set_axis(["flow", "power", "power"], axis=1)
    refused(ValueError, lambda: small().fit(X), "more than once", "'power'")


@pytest.mark.parametrize("method", [m for m in METHODS if m != "p_values"])
def test_not_fitted(method, waves):
    refused(NotFittedError, lambda: getattr(small(), method)(waves), "fit")


def test_p_values_not_fitted(waves):
    refused(NotFittedError, lambda: small().p_values(waves), "fit")


def test_recalibrate_not_fitted(waves):
    refused(NotFittedError, lambda: small().recalibrate(waves), "fit")


# --- timestamps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("regularize", [False, True])
def test_duplicate_timestamps(table, fitted, regularize):
    X = table.set_axis(table.index[[0, 0, *range(1, 299)]])
    refused(ValueError, lambda: small(regularize=regularize).fit(X), "more than once", "groupby")
    refused(ValueError, lambda: fitted.predict(X), "more than once", "groupby")


def test_unsorted_timestamps(table, fitted):
    refused(ValueError, lambda: small().fit(table[::-1]), "order", "sort_index")
    refused(ValueError, lambda: fitted.predict(table[::-1]), "order", "sort_index")


def test_missing_timestamps(table, fitted):
    X = table.set_axis(table.index.where(np.arange(300) != 5))
    refused(ValueError, lambda: small().fit(X), "NaT", "notna")
    refused(ValueError, lambda: fitted.predict(X), "NaT", "notna")


def test_irregular_timestamps_are_refused_or_put_on_a_grid(table, fitted):
    X = table.drop(table.index[100:105])
    refused(ValueError, lambda: small().fit(X), "irregular", "10 s", "60 s", "regularize=True")
    refused(ValueError, lambda: fitted.predict(X), "irregular", "regularize=True")
    on_grid = small(regularize=True).fit(X)
    assert len(on_grid.score_samples(X)) == len(table), "scores belong to the grid"
    assert on_grid.evidence(X).index.equals(table.index)
    holes = table.copy()
    holes.iloc[100:105] = np.nan
    np.testing.assert_array_equal(on_grid.score_samples(X), small().fit(holes).score_samples(holes))


def test_other_frequency_at_score_time(table, fitted):
    slow = table.set_axis(pd.date_range("2026-01-01", periods=len(table), freq="1min"))
    for method in METHODS:
        refused(ValueError, lambda method=method: getattr(fitted, method)(slow), "60 s", "10 s", "resample")


def test_column_of_timestamps(table):
    refused(TypeError, lambda: small().fit(table.reset_index()), "'time'", "set_index")


# --- groups -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 299, 301])
def test_groups_of_wrong_length(table, fitted, length):
    labels = np.zeros(length)
    refused(ValueError, lambda: small().fit(table, groups=labels), "groups", "300")
    refused(ValueError, lambda: fitted.predict(table, groups=labels), "groups", "300")


def test_groups_with_missing_labels_a_panel_or_a_grid(waves, table):
    labels = np.zeros(300)
    labels[4] = np.nan
    refused(ValueError, lambda: small().fit(waves, groups=labels), "groups", "missing")
    refused(ValueError, lambda: small().fit(waves.reshape(3, 100, 3), groups=[0, 1, 2]), "groups must be None")
    refused(ValueError, lambda: small(regularize=True).fit(table, groups=np.zeros(300)), "regularize", "groups")


# --- unusual but usable -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8, np.uint16, np.int64, bool, object])
def test_numbers_of_any_kind_of_array(dtype):
    X = (np.random.default_rng(0).integers(0, 5, (120, 2)) % 5).astype(dtype)
    detector = small().fit(X)
    expected = small().fit(X.astype(float)).score_samples(X.astype(float))
    np.testing.assert_array_equal(detector.score_samples(X), expected)
    assert np.isfinite(detector.score_samples(X[:5])).all()


def test_half_precision_with_gaps(gaps):
    X = gaps[:120].astype(np.float16)
    for given in (X, pd.DataFrame(X)):
        detector = small().fit(given)
        np.testing.assert_array_equal(detector.score_samples(given), detector.score_samples(X.astype(float)))


@pytest.mark.parametrize("dtype", [object, "Float64", "float32"])
def test_tables_of_any_kind_of_number(table, fitted, dtype):
    holes = table.copy()
    holes.iloc[40:50, 1] = np.nan
    X = holes.astype(dtype)
    # float32 rounds; the others hold the same numbers.
    np.testing.assert_allclose(fitted.score_samples(X), fitted.score_samples(holes), rtol=1e-3)
    np.testing.assert_allclose(small().fit(table.astype(dtype)).offset_, fitted.offset_, rtol=1e-3)


def test_boolean_and_integer_columns(table):
    X = table.assign(on=np.arange(len(table)) % 3 == 0, count=np.arange(len(table)) % 7)
    expected = small().fit(X.astype(float)).score_samples(X.astype(float))
    np.testing.assert_array_equal(small().fit(X).score_samples(X), expected)


def test_lists_fortran_order_strides_and_read_only_memory(waves, on_arrays):
    expected = on_arrays.score_samples(waves)
    frozen = waves.copy()
    frozen.flags.writeable = False
    for X in (waves.tolist(), np.asfortranarray(waves), np.repeat(waves, 2, axis=1)[:, ::2], frozen):
        np.testing.assert_array_equal(on_arrays.score_samples(X), expected)
        np.testing.assert_array_equal(small().fit(X).score_samples(X), expected)
    frozen = frozen.reshape(3, 100, 3)
    assert np.isfinite(small().fit(frozen).score_samples(frozen)).all()


def test_an_array_after_a_table_is_scored_with_a_warning(waves, table, fitted):
    with pytest.warns(UserWarning, match="feature names"):
        scores = fitted.score_samples(waves)
    np.testing.assert_array_equal(scores, fitted.score_samples(table))


HUGE = np.finfo(float).max


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", [-9999.0, 9.97e36, HUGE])
def test_wild_readings_are_alarms(value, waves):
    detector = SeriesDetector().fit(waves)
    x = waves.copy()
    x[150, 1] = value
    score = detector.score_samples(x)
    assert np.isfinite(score).all()
    assert detector.predict(x)[150] == -1
    np.testing.assert_array_equal(score[:100], detector.score_samples(waves)[:100])


FILL = 9.97e36


@pytest.mark.parametrize("value", [-9999.0, 1e12, FILL])
def test_a_wild_reading_in_training_does_not_make_normal_rows_alarms(value, waves):
    x = waves.copy()
    x[150, 1] = value
    detector = SeriesDetector().fit(x)
    assert detector.scaling_.modelled.all()
    assert (detector.predict(waves) == 1).mean() > 0.9


# --- parameters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"context": "future"}, ("context", "both", "past", "'future'")),
        ({"context": None}, ("context", "both", "past", "None")),
        ({"contamination": -0.1}, ("contamination", "[0, 0.5)", "-0.1")),
        ({"contamination": 0.5}, ("contamination", "[0, 0.5)", "0.5")),
        ({"contamination": float("nan")}, ("contamination", "nan")),
        ({"threshold": 0.01}, ("threshold", "FalseAlarmRate", "AlarmsPerDay", "0.01")),
        ({"threshold": "auto"}, ("threshold", "FalseAlarmRate", "'auto'")),
        ({"threshold": FalseAlarmRate}, ("threshold", "FalseAlarmRate")),
        ({"kinds": ("energy", "smell")}, ("kinds", "smell", "energy", "shape")),
        ({"kinds": "energy"}, ("kinds", "'energy'")),
        ({"kinds": ()}, ("kinds", "None or some of")),
        ({"kinds": []}, ("kinds", "None or some of")),
        ({"kinds": (None,)}, ("kinds", "None or some of")),
        ({"device": "toaster"}, ("toaster",)),
    ],
)
def test_bad_parameters_are_refused_by_fit(waves, options, words):
    detector = small(**options)  # the constructor only stores
    refused((ValueError, RuntimeError), lambda: detector.fit(waves), *words)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"contamination": "auto"}, "contamination"),
        ({"contamination": None}, "contamination"),
        ({"kinds": 5}, "kinds"),
    ],
)
def test_parameters_of_another_type_are_refused_by_name(waves, options, word):
    refused((ValueError, TypeError), lambda: small(**options).fit(waves), word)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FalseAlarmRate(0), ("rate", "between 0 and 1", "0")),
        (lambda: FalseAlarmRate(1.5), ("rate", "between 0 and 1", "1.5")),
        (lambda: FalseAlarmRate().but(rate=-1), ("rate", "between 0 and 1")),
        (lambda: AlarmsPerDay(0), ("number", "positive")),
        (lambda: AlarmsPerDay(True), ("number", "positive", "True")),
        (lambda: AlarmsPerDay(1, rows_per_day=-5), ("rows_per_day", "positive", "-5")),
    ],
)
def test_bad_thresholds(make, words):
    refused(ValueError, make, *words)


def test_alarms_per_day_need_to_know_the_day(waves, table):
    detector = small(threshold=AlarmsPerDay(1))
    refused(ValueError, lambda: detector.fit(waves), "AlarmsPerDay", "DatetimeIndex", "rows_per_day")
    assert detector.fit(table).offset_ < 0
    assert small(threshold=AlarmsPerDay(1, rows_per_day=8640)).fit(waves).offset_ == detector.offset_


def test_a_refused_table_leaves_the_detector_usable(table):
    detector = small().fit(table)
    before = detector.score_samples(table), detector.offset_
    refused(ValueError, lambda: detector.predict(table[::-1]), "order")
    refused(ValueError, lambda: detector.recalibrate(table[["flow"]]), "pressure")
    np.testing.assert_array_equal(detector.score_samples(table), before[0])
    assert detector.offset_ == before[1]


def test_labels_of_another_length_are_refused():
    X = np.random.default_rng(0).standard_normal((200, 2))
    y = np.zeros(200, int)
    y[50:60] = 1
    with pytest.raises(ValueError, match="199 labels"):
        SeriesDetector(kinds=("energy",)).fit(X, y[:-1])
    plain = SeriesDetector(kinds=("energy",)).fit(X, y)
    booleans = SeriesDetector(kinds=("energy",)).fit(X, y.astype(bool).astype(object))
    assert plain.offset_ == booleans.offset_ != SeriesDetector(kinds=("energy",)).fit(X).offset_


def test_labels_follow_their_rows_onto_the_grid():
    X = np.random.default_rng(0).standard_normal((300, 2))
    X[50:60] += 20
    frame = pd.DataFrame(X, pd.date_range("2024-01-01", periods=300, freq="s"), ["a", "b"])
    y = np.isin(np.arange(300), np.arange(50, 60)).astype(int)
    keep = np.delete(np.arange(300), np.arange(20, 30))
    detector = SeriesDetector(kinds=("energy",), regularize=True)
    assert detector.fit(frame.iloc[keep], y[keep]).score_samples(frame)[50:60].max() < detector.offset_


def test_outages_are_no_normal_rows_for_a_threshold():
    X = np.random.default_rng(0).standard_normal((600, 2))
    detector = SeriesDetector(kinds=("energy",)).fit(X[:300])
    half = X[300:].copy()
    half[:150] = np.nan
    assert len(detector.recalibrate(half).normal_.scores) == 150
    with pytest.raises(ValueError, match="no observed value"):
        detector.recalibrate(np.full((50, 2), np.nan))


def test_columns_named_by_numbers_keep_their_names():
    X = pd.DataFrame(np.random.default_rng(0).standard_normal((300, 2)), columns=[10, 20])
    new = X.copy()
    new.iloc[100:105, 1] += 30
    detector = SeriesDetector(context="past", kinds=("energy",)).fit(X)
    assert detector.events(new).loc[0, "channels"][0] == "20"
    assert list(detector.explain(new).share.columns) == [10, 20]
    detector.stream().update(X.iloc[0])
    plot_detection(new, detector.explain(new), -detector.score_samples(new), detector.offset_, detector.events(new))


def test_nullable_rows_are_live_rows_and_test_rows():
    X = pd.DataFrame(np.random.default_rng(0).standard_normal((300, 2)), columns=["a", "b"]).astype("Float64")
    X.iloc[5, 0] = pd.NA
    detector = SeriesDetector(context="past", kinds=("energy",)).fit(X)
    assert np.isfinite(detector.stream().update(X.iloc[5]).score)
    assert inject(X, "shift").y.sum() > 0


def test_a_centred_fit_gives_no_stream_whatever_is_set_since():
    detector = SeriesDetector(kinds=("energy",)).fit(np.random.default_rng(0).standard_normal((200, 2)))
    with pytest.raises(ValueError, match="context='past'"):
        detector.set_params(context="past").stream()


def test_a_dead_channel_can_be_drawn():
    X = pd.DataFrame(np.random.default_rng(0).standard_normal((200, 2)), columns=["a", "b"])
    detector = SeriesDetector(kinds=("energy",)).fit(X)
    dead = X.assign(b=np.nan)
    with pytest.warns(UserWarning, match="'b'"):
        explanation, events = detector.explain(dead), detector.events(dead)
        plot_detection(dead, explanation, -detector.score_samples(dead), detector.offset_, events)


@pytest.mark.parametrize("kinds", [("decoupled",), ("missing",), ("decoupled", "missing")])
def test_kinds_that_compare_channels_need_several(waves, kinds):
    resting = waves.copy()
    resting[:, 1:] = 3.0
    for single in (waves[:, :1], resting):
        refused(ValueError, lambda X=single: SeriesDetector(kinds=kinds).fit(X), "compare channels", "energy")
    assert np.isfinite(SeriesDetector(kinds=(*kinds, "quiet")).fit(waves[:, :1]).score_samples(waves[:, :1])).all()
