"""`adapt` learns a process that has changed from its new rows alone: alarms keep their promise again, faults are found
that recalibration cannot see, what was normal stays normal, and a failure changes nothing.
"""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter
from sklearn.metrics import average_precision_score

from diffad import SeriesDetector, SeriesImputer, Training
from diffad.evidence.fitting import MOST_REMEMBERED, Memory
from diffad.faults import inject

#: Cheap kinds of either sort: Gaussians of windows, quietness.
KINDS = ("energy", "filter", "quiet")


def process(n, seed):
    """Two autoregressive factors seen by four channels, with a little noise on each."""
    rng = np.random.default_rng(seed)
    factors = lfilter([1], [1, -0.7], rng.standard_normal((n + 100, 2)), axis=0)[100:]
    mix = np.array([[1.0, 0.8, -0.6, 0.4], [0.0, 0.6, 0.8, -0.9]])
    return factors @ mix + 0.3 * rng.standard_normal((n, 4))


REGIMES = {
    "a correlation flips": lambda x: x * np.array([1.0, 1.0, 1.0, -1.0]),
    "everything doubles": lambda x: 2 * x,
}


@pytest.fixture(scope="module")
def fitted():
    return {c: SeriesDetector(context=c, kinds=KINDS).fit(process(1500, 0)) for c in ("both", "past")}


@pytest.fixture(scope="module", params=["both", "past"])
def detector(request, fitted):
    return fitted[request.param]


@pytest.fixture(scope="module", params=REGIMES)
def later(request, detector):
    """Return the regime, and the detector as it was, recalibrated and adapted on 1,500 rows of it."""
    change = REGIMES[request.param]
    new = change(process(1500, 5))
    return request.param, detector, copy.copy(detector).recalibrate(new), copy.copy(detector).adapt(new)


def alarm_rate(detector, x):
    return float((detector.decision_function(x) < 0).mean())


def precision(detector, x):
    """Return the mean average precision of five kinds of faults put into x."""
    faulty = [inject(x, k, 10, 25, 3.0, random_state=2) for k in ("spike", "shift", "noise", "stuck", "decorrelate")]
    return np.mean([average_precision_score(f.y, -detector.score_samples(f.X)) for f in faulty])


def test_alarms_keep_their_promise_again(later):
    regime, before, _, adapted = later
    tests = [REGIMES[regime](process(2000, seed)) for seed in (600, 601)]
    assert min(alarm_rate(before, x) for x in tests) > 0.3, "the change is meant to break the promise"
    rates = [alarm_rate(adapted, x) for x in tests]
    # Asked for 1 %: measured up to 2.8 % here, of more than 30 % before.
    assert np.mean(rates) < 0.03, rates
    assert 0.3 < np.median(np.concatenate([adapted.p_values(x) for x in tests])) < 0.7


def test_faults_are_found_as_well_as_by_recalibration_and_far_better_where_it_is_blind(later):
    regime, _, recalibrated, adapted = later
    x = REGIMES[regime](process(2000, 7))
    old, new = precision(recalibrated, x), precision(adapted, x)
    assert new > old - 0.03, (old, new)
    if regime == "a correlation flips":
        assert new > old + 0.2, (old, new)


def test_what_was_normal_stays_normal(later):
    regime, _, _, adapted = later
    without_memory = SeriesDetector(context=adapted.context, kinds=KINDS).fit(REGIMES[regime](process(1500, 5)))
    old = process(1500, 9)
    assert alarm_rate(without_memory, old) > 0.5, "the regimes are meant to differ"
    # The threshold is of new rows alone: what restless rows make of quiet ones may cost more than the promise.
    assert alarm_rate(adapted, old) < 0.15


def test_bands_follow_what_has_changed(later):
    regime, before, _, adapted = later
    x = REGIMES[regime](process(1000, 6))
    stale, inside = (((x >= t.lower) & (x <= t.upper)).mean().mean() for t in (before.explain(x), adapted.explain(x)))
    assert stale < 0.8 and 0.86 < inside < 0.94, (stale, inside)


def test_an_adapted_copy_leaves_the_original_alone(detector):
    x = process(200, 8)
    before, offset = detector.score_samples(x), detector.offset_
    other = copy.copy(detector)
    assert other.adapt(2 * process(400, 5)) is other
    np.testing.assert_array_equal(detector.score_samples(x), before)
    assert detector.offset_ == offset
    assert np.abs(other.score_samples(x) - before).max() > 0.1


@pytest.mark.slow
def test_a_regime_met_before_the_last_one_is_remembered(fitted):
    detector = copy.copy(fitted["both"])
    first, second = (lambda x: x * [1, 1, 1, -1]), (lambda x: x * [1, -1, 1, 1])
    for change in (first, second):
        detector.adapt(change(process(600, 5)))
    assert alarm_rate(detector, first(process(1500, 11))) < 0.03


@pytest.mark.slow
def test_faults_in_new_rows_are_trimmed_as_in_fit():
    detector = SeriesDetector(contamination=0.05, kinds=KINDS).fit(process(600, 0))
    dirty = inject(2 * process(1000, 5), ["spike", "noise"], 4, 12, 8.0)
    assert abs(alarm_rate(detector.adapt(dirty.X), dirty.X) - 0.05) < 0.01


def test_a_stream_follows_its_detector(fitted):
    detector, x = copy.copy(fitted["past"]), 2 * process(120, 12)
    running = detector.stream()
    for row in x[:60]:
        running.update(row)
    detector.adapt(2 * process(600, 5))
    fresh = detector.stream()
    scores, expected = [fresh.update(row).score for row in x], detector.score_samples(x)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose([running.update(r).score for r in x[60:]], expected[60:], rtol=1e-5, atol=1e-5)


def test_longer_windows_that_new_rows_allow_reach_a_running_stream():
    x = process(700, 0)
    detector = SeriesDetector(context="past", kinds=KINDS).fit(x[:60])
    stream = detector.stream()
    before = stream.detector.scorer_.longest
    detector.adapt(x[60:600])
    assert detector.scorer_.longest > before
    live = [stream.update(row).score for row in x[600:]]
    np.testing.assert_allclose(live, detector.score_samples(x[600:]), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_weights_learnt_from_labels_stay():
    faulty = inject(process(1000, 0), "stuck", 6, 25)
    detector = SeriesDetector(kinds=KINDS).fit(faulty.X, faulty.y)
    plain = SeriesDetector(kinds=KINDS).fit(process(1000, 0))
    learnt = dict(detector.weights_)
    assert learnt != plain.weights_, "the labels are meant to matter"
    assert detector.adapt(process(400, 5)).weights_ == learnt


def test_panels_gaps_and_tables(fitted):
    new = 2 * process(800, 5)
    as_panel = copy.copy(fitted["both"]).adapt(new.reshape(2, 400, 4))
    as_groups = copy.copy(fitted["both"]).adapt(new, groups=np.repeat([0, 1], 400))
    assert as_panel.offset_ == as_groups.offset_
    new[100:130, 2] = np.nan
    new[300:310] = np.nan
    assert alarm_rate(copy.copy(fitted["both"]).adapt(new), 2 * process(1000, 6)) < 0.04


@pytest.mark.slow
def test_the_residuals_of_a_model_are_learnt_as_well():
    model = SeriesImputer(window=8, prior="gaussian", n_samples=2, training=Training(max_steps=0)).fit(process(500, 0))
    detector = SeriesDetector(kinds=("energy",), model=model).fit(process(500, 0))
    before = detector.scorer_.learnt.model.scorer
    detector.adapt(2 * process(400, 5))
    assert detector.scorer_.learnt.model.scorer is not before
    assert alarm_rate(detector, 2 * process(800, 6)) < 0.04


# --- what is remembered -----------------------------------------------------------------------------------


def test_memory_is_bounded_keeps_every_time_and_whole_blocks():
    rows = np.arange(50_000.0)[:, None]
    kept = Memory([rows[:30_000], rows[30_000:]], {}).thinned().series
    values = np.concatenate(kept)[:, 0]
    assert MOST_REMEMBERED / 2 < len(values) <= MOST_REMEMBERED
    assert all((np.diff(block[:, 0]) == 1).all() for block in kept)
    assert values.min() < 1000 and values.max() > 49_000 and np.diff(np.sort(values)).max() < 2000


def test_memory_is_bounded_where_series_are_little_longer_than_a_block():
    kept = Memory([np.full((550, 1), float(k)) for k in range(144)], {}).thinned().series
    assert MOST_REMEMBERED / 2 < sum(len(block) for block in kept) <= MOST_REMEMBERED
    assert len({block[0, 0] for block in kept}) > 30


def test_labelled_faults_are_not_remembered():
    faulty = inject(process(400, 0), "shift", 3, 20, 8.0)
    (rows,) = SeriesDetector(kinds=KINDS).fit(faulty.X, faulty.y).memory_.series
    np.testing.assert_array_equal(np.isnan(rows).all(1), faulty.y == 1)
    np.testing.assert_array_equal(rows[faulty.y == 0], faulty.X[faulty.y == 0])


# --- failures change nothing ------------------------------------------------------------------------------


@pytest.fixture
def untouched(fitted):
    """Give a detector, and assert afterwards that it is as it was."""
    detector, x = copy.copy(fitted["both"]), process(100, 8)
    before = vars(detector).copy(), detector.score_samples(x)
    yield detector
    assert vars(detector) == before[0]
    np.testing.assert_array_equal(detector.score_samples(x), before[1])


@pytest.mark.parametrize("rows", [10, 179])
def test_too_few_rows_say_how_many_are_needed(rows, untouched):
    with pytest.raises(ValueError, match=rf"{rows} rows.*45 rows.*180 or more.*recalibrate"):
        untouched.adapt(process(rows, 5))


def test_rows_without_a_value_do_not_count(untouched):
    x = process(300, 5)
    x[:150] = np.nan
    with pytest.raises(ValueError, match=r"150 rows with a value.*180 or more"):
        untouched.adapt(x)


def test_a_channel_of_which_nothing_is_known_is_named(untouched):
    x = process(300, 5)
    x[:, 2] = np.nan
    with pytest.raises(ValueError, match=r"\['2'\] hold no value.*fit without"):
        untouched.adapt(x)
    with pytest.raises(ValueError, match=r"hold no value"):
        untouched.adapt(np.full((300, 4), np.nan))


def test_an_error_on_the_way_changes_nothing(untouched, monkeypatch):
    def broken(*args):
        raise MemoryError("no memory left")

    monkeypatch.setattr("diffad.evidence.fitting.look_ahead", broken)
    with pytest.raises(MemoryError):
        untouched.adapt(2 * process(300, 5))


def test_constants_stay_constants():
    x = np.column_stack([process(600, 0), np.ones(600)])
    detector = SeriesDetector(kinds=KINDS).fit(x)
    detector.adapt(np.column_stack([2 * process(300, 5), np.ones(300)]))
    new = np.column_stack([2 * process(200, 6), np.ones(200)])
    new[100, 4] = 2.0
    assert detector.predict(new)[100] == -1
    nothing = pd.DataFrame({"a": np.ones(50), "b": np.zeros(50)})
    assert (SeriesDetector().fit(nothing).adapt(nothing).predict(nothing) == 1).all()


@pytest.mark.parametrize("changed", [{"context": "past"}, {"kinds": ["quiet"]}, {"model": SeriesImputer()}])
def test_what_was_set_after_fit_takes_another_fit(changed):
    detector = SeriesDetector(context="both", kinds=KINDS).fit(process(600, 0)).set_params(**changed)
    with pytest.raises(ValueError, match=r"set to others after fit .*; call fit again"):
        detector.adapt(process(600, 1))
