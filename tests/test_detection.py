"""What all detectors do alike with their thresholds: recalibrating on little, on nothing, and by a changed one."""

from __future__ import annotations

import warnings
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from sklearn.utils import get_tags

from diffad import (
    AlarmsPerDay,
    DiffusionVAE,
    FalseAlarmRate,
    ImageDetector,
    ImageImputer,
    Sampler,
    SeriesDetector,
    SeriesImputer,
    TabularDetector,
    TabularImputer,
    Training,
    benjamini_hochberg,
)

rng = np.random.default_rng(0)
ROWS, NEW = rng.standard_normal((2, 400, 3))
IMAGES = rng.random((120, 1, 1)) + 0.1 * rng.standard_normal((120, 8, 8))


@pytest.fixture(scope="module")
def detectors():
    return {
        "series": SeriesDetector(kinds=("energy", "quiet")).fit(ROWS),
        "rows": TabularDetector().fit(ROWS),
        "images": ImageDetector().fit(IMAGES[:60]),
    }


#: Normal data that nothing was fitted to.
DATA = {"series": NEW, "rows": NEW, "images": IMAGES[60:]}
EVERY = pytest.mark.parametrize("shape", DATA)


@EVERY
def test_nothing_cannot_be_what_is_normal(detectors, shape):
    detector, before = detectors[shape], detectors[shape].offset_
    with (
        warnings.catch_warnings(),
        pytest.raises(ValueError, match="no observed value at all; normal data are needed"),
    ):
        warnings.simplefilter("ignore")
        detector.recalibrate(np.full_like(DATA[shape][:30], np.nan))
    assert detector.offset_ == before


@EVERY
def test_little_to_recalibrate_on_is_warned_of(detectors, shape):
    detector = detectors[shape]
    with pytest.warns(UserWarning, match=f"X holds 7 normal .*: with fewer than {detector.few}, more may alarm"):
        detector.recalibrate(DATA[shape][:7])


@EVERY
def test_what_shows_nothing_has_no_say_in_what_is_normal(detectors, shape):
    detector, data = detectors[shape], DATA[shape][:50]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = detector.recalibrate(data).offset_
        mixed = detector.recalibrate(np.concatenate([data, np.full_like(data[:40], np.nan)])).offset_
    assert mixed == pytest.approx(plain, rel=0.02)


def test_empty_rows_are_not_learnt_from():
    mixed = np.concatenate([ROWS[:80], np.full((320, 3), np.nan)])
    plain, with_empty = TabularDetector().fit(ROWS[:80]), TabularDetector().fit(mixed)
    new = np.random.default_rng(1).standard_normal((5000, 3))
    assert (with_empty.predict(new) == -1).mean() < (plain.predict(new) == -1).mean() + 0.01
    with pytest.raises(ValueError, match="holds no value at all"):
        TabularDetector().fit(np.full((50, 3), np.nan))


@EVERY
def test_a_threshold_that_is_none_is_refused_after_fit_as_before(detectors, shape):
    detector = detectors[shape]
    before = detector.offset_
    try:
        with pytest.raises(ValueError, match=r"threshold must be FalseAlarmRate, AlarmsPerDay or None, got 0\.01"):
            detector.set_params(threshold=0.01).recalibrate(DATA[shape])
        if not detector.timed:
            with pytest.raises(ValueError, match="counts events in time"):
                detector.set_params(threshold=AlarmsPerDay(1, rows_per_day=1000)).recalibrate(DATA[shape])
        assert detector.offset_ == before
        assert detector.set_params(threshold=FalseAlarmRate(0.2)).recalibrate(DATA[shape]).offset_ != before
    finally:
        detector.set_params(threshold=None)


def test_devices_are_checked_before_work(monkeypatch):
    monkeypatch.setattr("diffad.series_imputer.fit_marginals", lambda *args: pytest.fail("worked in vain"))
    for given in (np.ones((200, 2)), ROWS):
        with pytest.raises(ValueError, match="device must be"):
            SeriesDetector(device="gpu").fit(given)


@pytest.mark.parametrize("labels", [[10, 20, 30], ["a", "b", "c"]])
@pytest.mark.parametrize("kind", [SeriesDetector, TabularDetector])
def test_explanations_carry_the_columns_of_the_table(kind, labels):
    table = pd.DataFrame(ROWS, columns=labels)
    detector = kind(kinds=("energy", "quiet") if kind is SeriesDetector else None).fit(table)
    for found in vars(detector.explain(table)).values():
        assert found.columns.equals(table.columns)
    gap = (table - detector.explain(table).expected).to_numpy()
    assert gap.shape == table.shape and np.isfinite(gap).all()


def test_parts_of_a_large_table_are_explained_as_the_whole(monkeypatch):
    detector = TabularDetector().fit(ROWS)
    whole = detector.explain(ROWS)
    monkeypatch.setattr("diffad.tabular_detector.CHUNK", 64)
    for one, other in zip(vars(whole).values(), vars(detector.explain(ROWS)).values(), strict=True):
        pd.testing.assert_frame_equal(one, other, rtol=1e-6)


@pytest.mark.parametrize("context", ["both", "past"])
def test_evidence_of_series_is_minus_the_log_probability_as_that_of_tables(context):
    detector = SeriesDetector(kinds=("energy",), context=context).fit(rng.standard_normal((4000, 3)))
    for judged, columns in ((detector, 3), (TabularDetector(kinds=("mixture",)).fit(ROWS), 1)):
        found = judged.evidence(NEW).to_numpy()
        assert found.shape == (400, columns)
        assert 0.95 < found.mean() < 1.2, "of normal rows 1 nat; its root would have a mean of .89"


def test_only_the_kinds_asked_for_have_weights():
    assert list(SeriesDetector(kinds=("energy", "quiet")).fit(ROWS).weights_) == ["energy", "quiet"]


@pytest.mark.parametrize("kind", [ImageDetector, ImageImputer, DiffusionVAE])
def test_estimators_of_images_say_what_they_take(kind):
    tags = get_tags(kind()).input_tags
    assert tags.three_d_array and not tags.two_d_array and tags.allow_nan == (kind is not DiffusionVAE)


def test_a_share_of_the_training_rows_is_one_of_those_that_show_something():
    mixed = np.concatenate([ROWS[:300], np.full((300, 3), np.nan)])
    alarms = TabularDetector(contamination=0.1).fit_predict(mixed) == -1
    assert alarms[:300].mean() == pytest.approx(0.1, abs=0.01) and not alarms[300:].any()


def test_a_model_can_judge_a_single_channel_beside_kinds_that_cannot(prior_only):
    rows = np.random.default_rng(0).standard_normal((800, 1)).cumsum(0) * 0.1
    detector = SeriesDetector(kinds=("decoupled",), model=prior_only()).fit(rows)
    assert set(detector.weights_) == {"model"}


@pytest.mark.parametrize("kind", [SeriesDetector, TabularDetector, SeriesImputer, TabularImputer])
def test_tables_without_columns_are_refused_by_number(kind):
    with pytest.raises(ValueError, match="0 feature"):
        kind().fit(pd.DataFrame(index=range(300)))


@pytest.mark.parametrize(
    "columns",
    [
        pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["l", "m"]),
        pd.Index(["a", "b", "c"], name="sensor"),
        pd.CategoricalIndex(["a", "b", "c"]),
    ],
    ids=["levels", "named", "categories"],
)
def test_explanations_carry_columns_of_any_kind(columns):
    table = pd.DataFrame(ROWS[:200], columns=columns)
    for found in vars(TabularDetector().fit(table).explain(table[:5])).values():
        pd.testing.assert_index_equal(found.columns, columns)


@pytest.mark.parametrize("value", [Fraction(1, 10), True, np.True_, "a", 10**400, float("nan")])
def test_what_is_no_plain_number_is_refused_wherever_numbers_are_taken(value):
    for call in (
        lambda: FalseAlarmRate(value),
        lambda: Training(mixing=value),
        lambda: Sampler(eta=value),
        lambda: benjamini_hochberg([0.1], rate=value),
        lambda: TabularDetector(contamination=value).fit(ROWS),
        lambda: AlarmsPerDay(value),
    ):
        with pytest.raises(ValueError, match="must"):
            call()
