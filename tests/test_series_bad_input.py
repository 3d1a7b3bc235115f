"""Input that cannot be used is refused with an error that names what is wrong and what to do about it;
input that can be used in spite of its form is used.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from diffad import Sampler, SeriesImputer, Training


@pytest.fixture
def fitted(prior_only, frame):
    return prior_only().fit(frame)


def refused(kind, call, *words):
    """Assert that the call raises `kind` with every one of `words` in its message."""
    with pytest.raises(kind) as caught:
        call()
    for word in words:
        assert word in str(caught.value), f"{word!r} is missing in: {caught.value}"


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity(prior_only, gaps, frame, value):
    bad = gaps.copy()
    bad[3, 1] = value
    refused(ValueError, lambda: prior_only().fit(bad), "X", "infinity")
    refused(ValueError, lambda: prior_only().fit(gaps).transform(bad), "X", "infinity")
    table = frame.copy()
    table.iloc[3, 1] = value
    refused(ValueError, lambda: prior_only().fit(table), "X", "infinity")


def test_text(prior_only, frame, fitted):
    bad = frame.assign(power=["off"] * len(frame))
    refused(ValueError, lambda: prior_only().fit(bad), "off")
    refused(ValueError, lambda: fitted.transform(bad), "off")
    refused(ValueError, lambda: prior_only().fit(np.array([["a", "b"]])), "a")


def test_one_row_and_no_rows(prior_only):
    np.testing.assert_array_equal(prior_only().fit_transform([[1.0, 2.0]]), [[1.0, 2.0]])
    refused(ValueError, lambda: prior_only().fit(np.empty((0, 3))), "0 sample", "minimum of 1")
    refused(ValueError, lambda: prior_only().fit(pd.DataFrame({"a": pd.Series(dtype=float)})), "0 sample")


def test_one_dimension(prior_only):
    refused(ValueError, lambda: prior_only().fit(np.arange(5.0)), "Expected 2D", "reshape")


def test_no_observed_value_at_all(prior_only):
    refused(ValueError, lambda: prior_only().fit(np.full((30, 2), np.nan)), "no observed value")


def test_missing_surplus_and_reordered_columns(frame, fitted):
    refused(ValueError, lambda: fitted.transform(frame.drop(columns="power")), "power")
    refused(ValueError, lambda: fitted.transform(frame.assign(extra=1.0)), "extra")
    refused(ValueError, lambda: fitted.transform(frame[frame.columns[::-1]]), "order")


@pytest.mark.parametrize(
    "names", [[7, 8, 9], pd.MultiIndex.from_product([["pump"], list("abc")])], ids=["numbers", "two levels"]
)
def test_reordered_and_renamed_columns_that_are_no_texts(prior_only, gaps, names):
    X = pd.DataFrame(gaps, columns=names)
    fitted = prior_only().fit(X)
    assert not fitted.transform(X).isna().any(axis=None)
    assert np.isfinite(fitted.transform(gaps)).all()
    refused(ValueError, lambda: fitted.transform(X[X.columns[::-1]]), "order")
    refused(ValueError, lambda: fitted.transform(X.set_axis([1, 2, 3], axis=1)), "[1, 2, 3]")


def test_a_stray_timestamp_years_away_makes_no_grid_of_a_million_rows(prior_only, frame):
    stray = frame.iloc[-1:].set_axis(frame.index[-1:] + pd.Timedelta("366D"))
    X = pd.concat([frame, stray])
    refused(ValueError, lambda: prior_only(regularize=True).fit(X), str(stray.index[0]), "clock")


def test_durations_and_periods_must_be_regular_too(prior_only, gaps):
    steps = pd.timedelta_range("0s", periods=300, freq="1s")
    days = pd.period_range("2026-01-01", periods=300, freq="D")
    months = pd.date_range("2000-01-01", periods=300, freq="MS")
    quarters = pd.period_range("2026-01-01", periods=300, freq="15min")
    for index in (steps, days, months, months.to_period("M"), quarters):
        X = pd.DataFrame(gaps, index)
        filled = prior_only().fit(X).transform(X)
        pd.testing.assert_index_equal(filled.index, index)
        refused(ValueError, lambda X=X: prior_only().fit(X.drop(index=X.index[7])), str(X.index[8]))
        refused(ValueError, lambda X=X: prior_only().fit(X[::-1]), "order")
    refused(ValueError, lambda: prior_only(regularize=True).fit(pd.DataFrame(gaps, steps)), "DatetimeIndex")


@pytest.mark.parametrize("freq", ["bh", "B"])
def test_business_hours_and_days_are_irregular(prior_only, gaps, freq):
    X = pd.DataFrame(gaps, pd.date_range("2026-01-05 09:00", periods=300, freq=freq))
    refused(ValueError, lambda: prior_only().fit(X), "irregular")


def test_no_row(prior_only, frame):
    refused(ValueError, lambda: prior_only().fit(frame).transform(frame.iloc[:0]), "no row")


def test_two_columns_of_one_name(prior_only, frame):
    X = frame.set_axis(["flow", "power", "power"], axis=1)
    refused(ValueError, lambda: prior_only().fit(X), "more than once", "'power'")


def test_number_of_channels(prior_only, gaps):
    refused(ValueError, lambda: prior_only().fit(gaps).transform(gaps[:, :2]), "2 features", "3 features")
    refused(ValueError, lambda: prior_only().fit(gaps).transform(gaps.reshape(3, 100, 3)[..., :2]), "3 features")


def test_not_fitted(prior_only, gaps):
    from sklearn.exceptions import NotFittedError

    for call in (prior_only().transform, prior_only().sample, prior_only().interval):
        refused(NotFittedError, lambda call=call: call(gaps), "fit")


def test_duplicate_timestamps(prior_only, frame):
    X = frame.set_axis(frame.index[[0, 0, *range(1, 299)]])
    refused(ValueError, lambda: prior_only().fit(X), "more than once", "groupby")
    refused(ValueError, lambda: prior_only(regularize=True).fit(X), "more than once", "groupby")


def test_unsorted_timestamps(prior_only, frame, fitted):
    refused(ValueError, lambda: prior_only().fit(frame[::-1]), "order", "sort_index")
    refused(ValueError, lambda: fitted.transform(frame[::-1]), "order", "sort_index")


def test_missing_timestamps(prior_only, frame):
    X = frame.set_axis(frame.index.where(np.arange(300) != 5))
    refused(ValueError, lambda: prior_only().fit(X), "NaT", "notna")


def test_irregular_timestamps(prior_only, frame, fitted):
    X = frame.drop(frame.index[20])
    refused(ValueError, lambda: prior_only().fit(X), "irregular", "10 s", "20 s", "regularize=True")
    refused(ValueError, lambda: fitted.transform(X), "irregular", "regularize=True")


def test_rows_too_close_for_a_grid(prior_only, frame):
    close = frame.index.to_series()
    close.iloc[10] = close.iloc[9] + pd.Timedelta("1s")
    refused(ValueError, lambda: prior_only(regularize=True).fit(frame.set_axis(close)), "two rows", "resample")


def test_other_frequency_at_transform(frame, fitted):
    slow = frame.set_axis(pd.date_range("2026-01-01", periods=len(frame), freq="1min"))
    refused(ValueError, lambda: fitted.transform(slow), "60 s", "10 s", "resample")


def test_column_of_timestamps(prior_only, frame):
    X = frame.reset_index()
    refused(TypeError, lambda: prior_only().fit(X), "'time'", "set_index")
    zoned = frame.tz_localize("UTC").reset_index()
    refused(TypeError, lambda: prior_only().fit(zoned), "'time'", "set_index")


@pytest.mark.parametrize("length", [0, 299, 301])
def test_groups_of_wrong_length(prior_only, frame, gaps, length):
    labels = np.zeros(length)
    refused(ValueError, lambda: prior_only().fit(gaps, groups=labels), "groups", "300")
    refused(ValueError, lambda: prior_only().fit(frame, groups=labels), "groups", "300")


def test_groups_with_missing_labels_or_a_panel(prior_only, gaps):
    labels = np.zeros(300)
    labels[4] = np.nan
    refused(ValueError, lambda: prior_only().fit(gaps, groups=labels), "groups", "missing")
    panel = gaps.reshape(3, 100, 3)
    refused(ValueError, lambda: prior_only().fit(panel, groups=[0, 1, 2]), "groups must be None")


def test_groups_cannot_be_put_on_one_grid(prior_only, frame):
    refused(ValueError, lambda: prior_only(regularize=True).fit(frame, groups=np.zeros(300)), "regularize", "groups")


# --- unusual but usable -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.uint16, np.int64, bool, object])
def test_numbers_of_any_kind_of_array(prior_only, dtype):
    X = (np.arange(120).reshape(60, 2) % 5).astype(dtype)
    imputer = prior_only().fit(X)
    filled = imputer.transform(X)
    np.testing.assert_array_equal(np.asarray(filled, float), X.astype(float))
    assert imputer.transform(X[:5]).shape == (5, 2)


def test_half_precision_with_gaps(prior_only, gaps):
    X = gaps.astype(np.float16)
    for filled in (prior_only().fit_transform(X), prior_only().fit_transform(pd.DataFrame(X)).to_numpy()):
        assert np.isfinite(filled).all()
        np.testing.assert_array_equal(filled[~np.isnan(X)], X[~np.isnan(X)])


def test_object_columns_of_numbers(prior_only, frame):
    X = frame.astype(object)
    filled = prior_only().fit(X).transform(X)
    np.testing.assert_array_equal(filled.to_numpy(float), prior_only().fit_transform(frame).to_numpy())


def test_boolean_columns(prior_only, frame):
    X = frame.assign(on=np.arange(len(frame)) % 3 == 0)
    filled = prior_only().fit(X).transform(X)
    assert filled["on"].dtype == bool
    assert (filled["on"] == X["on"]).all()


def test_lists(prior_only, gaps):
    np.testing.assert_array_equal(prior_only().fit_transform(gaps.tolist()), prior_only().fit_transform(gaps))


def test_fortran_order_and_strides(prior_only, gaps):
    expected = prior_only().fit_transform(gaps)
    np.testing.assert_array_equal(prior_only().fit_transform(np.asfortranarray(gaps)), expected)
    wide = np.repeat(gaps, 2, axis=1)[:, ::2]
    np.testing.assert_array_equal(prior_only().fit_transform(wide), expected)


# --- parameters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 1}, ("window", "at least 2", "1")),
        ({"window": 0}, ("window", "at least 2")),
        ({"window": 8.5}, ("window", "8.5")),
        ({"window": "long"}, ("window", "long")),
        ({"prior": "x"}, ("prior", "gaussian", "lowrank", "None", "'x'")),
        ({"sampler": "x"}, ("sampler", "angle", "ddim", "'x'")),
        ({"n_samples": 0}, ("n_samples", "at least 1", "0")),
        ({"n_samples": -3}, ("n_samples", "at least 1")),
    ],
)
def test_bad_parameters_are_refused_by_fit(waves, options, words):
    imputer = SeriesImputer(training=Training(max_steps=0), **options)  # the constructor only stores
    refused((ValueError, TypeError), lambda: imputer.fit(waves), *words)


def test_unknown_device_is_refused_by_name(waves):
    imputer = SeriesImputer(training=Training(max_steps=0), device="toaster")
    refused((ValueError, RuntimeError), lambda: imputer.fit(waves), "toaster")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_steps": -1}, ("max_steps", "at least 0", "-1")),
        ({"masks_per_batch": 0}, ("masks_per_batch", "at least 1")),
        ({"windows_per_mask": 0}, ("windows_per_mask", "at least 1")),
        ({"evaluate_every": 0}, ("evaluate_every", "at least 1")),
        ({"patience": 0}, ("patience", "at least 1")),
        ({"mixing": 1.5}, ("mixing", "from 0 to 1", "1.5")),
    ],
)
def test_bad_training(options, words):
    refused(ValueError, lambda: Training(**options), *words)
    if "mixing" not in options:
        refused(ValueError, lambda: Training().but(**options), *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "x"}, ("sampler", "'x'", "angle")),
        ({"schedule": "x"}, ("schedule", "'x'", "karras")),
        ({"n_steps": 0}, ("n_steps", "at least 1")),
    ],
)
def test_bad_sampler(options, words):
    refused(ValueError, lambda: Sampler(**options), *words)


@pytest.mark.parametrize("coverage", [2, 1, 0, -0.1, float("nan")])
def test_bad_coverage(fitted, frame, coverage):
    refused(ValueError, lambda: fitted.interval(frame, coverage), "coverage", "between 0 and 1", str(coverage))


@pytest.mark.parametrize("q", [0, 1, 50, -0.5])
def test_bad_quantile(fitted, frame, q):
    refused(ValueError, lambda: fitted.quantile(frame, q), "q must", "between 0 and 1", str(q))


@pytest.mark.parametrize("n_samples", [0, -1])
def test_bad_number_of_samples(fitted, frame, n_samples):
    for call in (
        lambda: fitted.sample(frame, n_samples),
        lambda: fitted.quantile(frame, 0.5, n_samples=n_samples),
        lambda: fitted.interval(frame, n_samples=n_samples),
    ):
        refused(ValueError, call, "n_samples", "at least 1")


def test_a_refused_transform_leaves_the_imputer_usable(fitted, frame):
    before = fitted.transform(frame)
    refused(ValueError, lambda: fitted.transform(frame[::-1]), "order")
    pd.testing.assert_frame_equal(fitted.transform(frame), before)


def test_gaps_and_jitter_go_onto_the_fitted_grid():
    clock = pd.date_range("2024-01-01", periods=200, freq="s")
    rows = pd.DataFrame(np.sin(np.arange(200) / 5)[:, None] + np.zeros((200, 2)), clock, ["a", "b"])
    imputer = SeriesImputer(training=Training(max_steps=0), regularize=True).fit(rows)
    sparse = rows.iloc[[0, 2, 3, 7, 9, 12]]
    filled = imputer.transform(sparse)
    assert filled.index.equals(clock[:13])
    pd.testing.assert_frame_equal(filled.loc[sparse.index], sparse, check_freq=False)


@pytest.mark.parametrize("unit", ["s", "ms"])
def test_periods_that_are_no_multiple_of_the_index_unit(unit):
    clock = pd.DatetimeIndex(1e9 * np.round(np.arange(200) * 16.67), name="t").as_unit(unit)
    rows = pd.DataFrame({"a": np.sin(np.arange(200) / 5)}, clock).drop(index=clock[50:53])
    filled = SeriesImputer(training=Training(max_steps=0), regularize=True).fit_transform(rows)
    assert len(filled) == 200 and filled["a"].notna().all()


def test_groups_of_several_periods_are_refused():
    slow, fast = (pd.date_range("2024-01-01", periods=60, freq=f) for f in ("min", "s"))
    rows = pd.DataFrame({"a": np.random.default_rng(0).standard_normal(120)}, slow.append(fast))
    with pytest.raises(ValueError, match="every 1 to 60 s"):
        SeriesImputer(training=Training(max_steps=0)).fit(rows, groups=np.repeat([0, 1], 60))


def test_a_recording_that_never_varies_has_bands():
    rows = np.full((100, 2), 3.0)
    rows[5, 0] = np.nan
    lower, upper = SeriesImputer(training=Training(max_steps=0)).fit(rows).interval(rows)
    assert lower[5, 0] == upper[5, 0] == 3.0


def test_bands_beyond_what_is_known_are_said():
    rows = np.random.default_rng(0).standard_normal((100, 2))
    rows[5, 0] = np.nan
    with pytest.warns(UserWarning, match="nearest of them"):
        SeriesImputer(training=Training(max_steps=0)).fit(rows).interval(rows, coverage=0.99999)


@pytest.mark.parametrize("name", ["sampler", "training"])
def test_parameters_of_another_kind_are_refused(name):
    with pytest.raises(ValueError, match=name):
        SeriesImputer(**{name: 0}).fit(np.random.default_rng(0).standard_normal((100, 2)))


def test_objects_with_missing_values_are_numbers():
    rows = pd.DataFrame(np.random.default_rng(0).standard_normal((100, 2)), columns=["a", "b"]).astype(object)
    rows.iloc[7, 1] = pd.NA
    assert SeriesImputer(training=Training(max_steps=0)).fit_transform(rows).notna().all(axis=None)
