"""Promised rates hold: p-values, thresholds, false events a day and false discoveries, checked by simulation.

Data are drawn from known laws, so that the true rate of a threshold is the law's survival function
and needs no second sample.  Tolerances of counted shares are three standard errors.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.ndimage import maximum_filter1d

from diffad import SeriesDetector
from diffad.drift import drifted
from diffad.thresholds import (
    MERGE,
    TAIL_LEAST,
    TAIL_SHARE,
    AlarmsPerDay,
    FalseAlarmRate,
    NormalScores,
    benjamini_hochberg,
    merge,
)

LAWS = {
    "exponential": stats.expon(),
    "normal": stats.norm(3, 2),
    "gamma": stats.gamma(3),
    "student": stats.t(4),
}


def normal_scores(scores):
    return NormalScores.of_blocks([np.asarray(scores, dtype=float)])


def runs(rows, seed, width):
    """Return scores whose alarms come in runs of `width` rows."""
    return maximum_filter1d(np.random.default_rng(seed).exponential(size=rows), width)


def test_blocks_are_joined_and_their_starts_kept():
    joined = NormalScores.of_blocks([np.array([1.0, 2.0]), np.array([3.0]), np.array([4.0, 5.0])])
    assert joined.scores.tolist() == [1, 2, 3, 4, 5]
    assert joined.breaks.tolist() == [2, 3]


@pytest.mark.parametrize("rounding", [None, 0], ids=["continuous", "ties"])
@pytest.mark.parametrize("n", [19, 99])
def test_p_values_of_exchangeable_rows_are_valid(n, rounding):
    """Exchangeable, not independent: a common offset moves the normal rows and the new one alike."""
    rng = np.random.default_rng(n)
    repetitions = 4000
    p = np.empty(repetitions)
    for i in range(repetitions):
        rows = rng.standard_normal(n + 1) + 3 * rng.standard_normal()
        rows = rows if rounding is None else rows.round(rounding)
        p[i] = normal_scores(rows[:n]).p_values(rows[n:])[0]
    for alpha in (0.01, 0.05, 0.1, 0.25, 0.5, 0.9):
        error = 3 * np.sqrt(alpha * (1 - alpha) / repetitions)
        assert (p <= alpha).mean() <= alpha + error
        if rounding is None:
            # Without ties they are uniform on 1/(n + 1), ..., 1: valid, and not wasteful.
            assert (p <= alpha).mean() >= np.floor(alpha * (n + 1)) / (n + 1) - error


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30), st.lists(st.integers(-7, 7), min_size=1, max_size=10))
def test_p_values_count_the_normal_rows_that_look_as_strange(normal, scores):
    found = normal_scores(normal).p_values(np.array(scores, dtype=float))
    expected = [(1 + sum(n >= s for n in normal)) / (len(normal) + 1) for s in scores]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_smallest_p_value_is_one_over_n_plus_one():
    normal = normal_scores(np.random.default_rng(0).standard_normal(199))
    assert normal.p_values(np.array([1e6]))[0] == pytest.approx(1 / 200)
    assert normal.p_values(np.array([-1e6]))[0] == 1


@pytest.mark.parametrize("rate", [0.2, 0.05, 0.01])
@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_the_threshold_holds_its_rate(law, rate):
    threshold = normal_scores(law.rvs(5000, random_state=0)).quantile(rate)
    assert rate / 2 < law.sf(threshold) < 2 * rate


@pytest.mark.parametrize("rate", [1e-3, 2e-4, 1e-4])
@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_the_threshold_holds_rates_that_few_or_no_rows_have_shown(law, rate):
    """5000 rows show 1e-4 every second time; one fit is off by a factor of 3, the mean of many is not."""
    found = [law.sf(normal_scores(law.rvs(5000, random_state=seed)).quantile(rate)) for seed in range(30)]
    assert rate / 2 < np.mean(found) < 1.5 * rate


def test_few_exceedances_do_not_throw_the_threshold_far_off():
    # Of 1,000 exponential scores 50 carry the tail; by likelihood alone thresholds for 1e-4 lie between 6 and 18.
    rng = [np.random.default_rng(seed) for seed in range(60)]
    found = np.array([normal_scores(r.exponential(size=1000)).quantile(1e-4) for r in rng])
    off = np.abs(found - -np.log(1e-4))
    assert off.mean() < 2.5 and off.max() < 8, (off.mean(), off.max())


@pytest.mark.parametrize("n", [960, 1040, 2000])
def test_a_rare_rate_is_held_over_many_fits_however_many_rows_carry_the_tail(n):
    """What the likeliest tail says is exceeded three times as often as it says, once it is asked."""
    rng = [np.random.default_rng(seed) for seed in range(60)]
    found = [normal_scores(r.exponential(size=n)).quantile(1e-4) for r in rng]
    assert 0.3 < np.exp(-np.array(found)).mean() / 1e-4 < 1.5


@pytest.mark.parametrize("rate", [0.2, 0.05, 0.01, 0.002])
def test_a_rate_that_ten_rows_show_is_that_of_the_normal_rows(rate):
    """Whatever their law: here a second hump, which no Pareto tail fits."""
    rng = np.random.default_rng(0)
    scores = np.r_[rng.standard_normal(4950), rng.normal(50, 1, 50)]
    share = (scores > normal_scores(scores).quantile(rate)).mean()
    assert rate - 2 / 5000 <= share <= rate


def test_a_rarer_alarm_has_a_higher_threshold():
    normal = normal_scores(stats.expon().rvs(5000, random_state=0))
    thresholds = [normal.quantile(rate) for rate in (0.5, 0.1, 0.06, 0.04, 1e-2, 1e-3, 1e-4, 1e-5)]
    assert (np.diff(thresholds) > 0).all()
    assert thresholds[-1] > normal.scores.max(), "a rate of 1e-5 is rarer than anything 5000 rows show"


@pytest.mark.parametrize("seed", range(4))
def test_a_tail_that_does_not_fit_gives_no_rarer_alarm_a_lower_threshold(seed):
    """Neighbours that share windows: what exceeds a level comes in few, long runs."""
    rng = np.random.default_rng(seed)
    normal = normal_scores(np.convolve(rng.exponential(size=20_030) ** 2, np.ones(31) / 31, "valid"))
    thresholds = [normal.quantile(rate) for rate in np.geomspace(0.2, 1e-5, 80)]
    assert (np.diff(thresholds) >= 0).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(2, int(0.9 * TAIL_LEAST / TAIL_SHARE)), st.floats(1e-9, 0.5), st.integers(0, 99))
def test_with_few_rows_no_more_of_them_exceed_a_threshold_than_asked(n, rate, seed):
    normal = normal_scores(np.random.default_rng(seed).exponential(size=n))
    threshold = normal.quantile(rate)
    assert (normal.scores > threshold).mean() <= rate
    assert np.isfinite(threshold) and threshold <= normal.quantile(rate / 2)


@pytest.mark.parametrize("n", [5, 22, 42, 100, 400, 900])
@pytest.mark.parametrize("rate", [0.01, 0.001])
def test_rates_that_few_rows_cannot_show_hold_on_new_rows(n, rate):
    # Scores are logarithms of probabilities: about exponential.  The largest of 42 is exceeded by 1 in 43.
    rng = np.random.default_rng(0)
    thresholds = [NormalScores.of_blocks([rng.exponential(size=n)]).quantile(rate) for _ in range(1000)]
    assert rate / 2 < np.exp(-np.array(thresholds)).mean() < 2 * rate


@pytest.mark.parametrize("n", [60, 100, 300, 1000, 3000])
def test_events_that_few_rows_cannot_show_come_as_often_as_asked(n):
    rng, seen = np.random.default_rng(0), []
    for _ in range(100):
        threshold = normal_scores(rng.exponential(size=n)).event_quantile(0.001)
        seen.append(len(merge(rng.exponential(size=20_000) > threshold)) / 20)
    assert 0.5 < np.mean(seen) < 2


@pytest.mark.parametrize("n", [500, 1000, 3000])
@pytest.mark.parametrize("rate", [0.01, 0.001])
def test_few_events_hold_a_rate_however_many_rows_they_last(n, rate):
    # The largest of thirty exponential scores around each row: alarms last for thirty rows at least.
    rng, seen = np.random.default_rng(0), []
    for _ in range(300):
        normal = NormalScores.of_blocks([maximum_filter1d(rng.exponential(size=n), 30, mode="wrap")])
        seen.append(1 - (1 - np.exp(-normal.quantile(rate))) ** 30)
    assert np.mean(seen) < 2 * rate


@pytest.mark.parametrize("seed", range(10, 20))
def test_a_rarer_alarm_of_a_walk_has_no_lower_threshold(seed):
    """The higher a level of a walk, the fewer events exceed it, which by chance may look more."""
    normal = NormalScores.of_blocks([np.abs(np.cumsum(np.random.default_rng(seed).standard_normal(2000)))])
    thresholds = [normal.quantile(rate) for rate in np.geomspace(0.2, 1e-4, 60)]
    assert (np.diff(thresholds) >= -1e-9).all()


def test_no_event_goes_on_in_another_block():
    """Twenty blocks with an event each show a rate, whatever the times between the two of another."""
    blocks = [np.repeat([0.0, 1.0 + 1e-3 * k, 0.0], (20, 10, 70)) for k in range(200)]
    scores = [*blocks, np.repeat([5.0, 0.0, 5.0, 0.0], (10, 29, 10, 51))]
    threshold = NormalScores.of_blocks(scores).quantile(0.01)
    assert 0.008 < (np.concatenate(scores) > threshold).mean() <= 0.01


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", range(6))
def test_a_tail_with_an_end_is_found_without_a_warning(seed):
    """Some of the laws that are tried make an exceedance impossible."""
    scores = maximum_filter1d(np.random.default_rng(seed).exponential(size=829), 30)
    normal = NormalScores.of_blocks([scores])
    for rate in (0.01, 0.001, 1e-5):
        assert scores.mean() < normal.quantile(rate, doubt=False) <= normal.quantile(rate) < np.inf


def test_rows_that_come_in_runs_tell_less_of_a_tail():
    scores = np.random.default_rng(0).exponential(size=300)
    alone, runs = np.sort(scores)[np.random.default_rng(1).permutation(300)], np.sort(scores)
    assert NormalScores.of_blocks([runs]).quantile(0.001) > 1.2 * NormalScores.of_blocks([alone]).quantile(0.001)


def test_scores_that_are_all_equal_never_alarm():
    for n in (10, 5000):
        normal = normal_scores(np.full(n, 2.5))
        assert normal.quantile(0.01) == 2.5
        assert AlarmsPerDay(1, rows_per_day=100).find(normal, None) >= 2.5


@pytest.mark.parametrize(
    ("rows", "gap", "events"),
    [
        ([], 3, []),
        ([4], 3, [(4, 5)]),
        ([0, 1, 2], 1, [(0, 3)]),
        ([0, 3, 7], 3, [(0, 4), (7, 8)]),
        ([0, 3, 6], 3, [(0, 7)]),
        ([5, 19], 0, [(5, 6), (19, 20)]),
        ([0, MERGE], MERGE, [(0, MERGE + 1)]),
        ([0, MERGE + 1], MERGE, [(0, 1), (MERGE + 1, MERGE + 2)]),
    ],
)
def test_alarms_at_most_a_gap_apart_are_one_event(rows, gap, events):
    alarm = np.zeros(40, bool)
    alarm[rows] = True
    assert merge(alarm, gap) == events


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), max_size=80), st.integers(1, 20))
def test_every_alarm_is_inside_one_event_and_events_are_apart(alarm, gap):
    events = merge(np.array(alarm, dtype=bool), gap)
    for row, alarms in enumerate(alarm):
        inside = sum(start <= row < stop for start, stop in events)
        assert inside <= 1
        assert inside or not alarms
    for start, stop in events:
        assert alarm[start] and alarm[stop - 1], "an event starts and ends with an alarm"
        rows = np.flatnonzero(alarm[start:stop])
        assert (np.diff(rows) <= gap).all()
    for (_, stop), (start, _) in zip(events[:-1], events[1:], strict=True):
        assert start - (stop - 1) > gap


@pytest.mark.parametrize("rate", [0, 1, -0.1, 2, float("nan")])
def test_a_false_alarm_rate_lies_between_0_and_1(rate):
    with pytest.raises(ValueError, match=r"^rate must .* got"):
        FalseAlarmRate(rate)
    with pytest.raises(ValueError, match=r"^rate must .* got"):
        FalseAlarmRate().but(rate=rate)
    with pytest.raises(ValueError, match=r"^rate must .* got"):
        benjamini_hochberg([0.1, 0.2], rate=rate)


@pytest.mark.parametrize("name", ["number", "rows_per_day"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_alarms_per_day_need_positive_numbers(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be a positive number, got"):
        AlarmsPerDay(**{name: value})


def test_alarms_per_day_ask_for_the_sampling_period():
    normal = normal_scores(runs(2000, 0, 3))
    with pytest.raises(ValueError, match=r"DatetimeIndex.*rows_per_day"):
        AlarmsPerDay(1).find(normal, None)
    # Ten seconds are 8640 rows a day; what was said counts for more than what was measured.
    told = AlarmsPerDay(30, rows_per_day=8640)
    assert AlarmsPerDay(30).find(normal, 10.0) == told.find(normal, None) == told.find(normal, 60.0)
    assert AlarmsPerDay(30).find(normal, 60.0) < told.find(normal, None)


def test_the_false_alarm_rate_is_the_share_of_rows():
    normal = normal_scores(runs(4000, 0, 8))
    threshold = FalseAlarmRate(0.02).find(normal, None)
    assert (normal.scores > threshold).mean() == pytest.approx(0.02, abs=8.5 / 4000)  # a run of 8 shares one score
    assert threshold == FalseAlarmRate(0.02).find(normal, 10.0)


@pytest.mark.parametrize(("number", "rows_per_day"), [(1, 1000), (2, 500), (5, 10_000)])
@pytest.mark.parametrize("width", [1, 10, 30])
def test_alarms_per_day_raise_that_many_merged_events_on_new_data(width, number, rows_per_day):
    """One row in a hundred that alarms is one event in a hundred rows, or in 3000: it depends on the runs.

    10,000 normal rows show 5 to 40 such events: the median of five thresholds is off by less than 1.5.
    """
    new = runs(200_000, 999, width)
    found = []
    for seed in range(5):
        normal = NormalScores.of_blocks([runs(2500, 10 * seed + block, width) for block in range(4)])
        threshold = AlarmsPerDay(number, rows_per_day).find(normal, None)
        found.append(len(merge(new > threshold)) / len(new) * rows_per_day)
    assert number / 2 < np.median(found) < 2 * number


@pytest.mark.parametrize("width", [1, 10, 30])
def test_alarms_per_day_reach_events_that_the_normal_rows_have_hardly_shown(width):
    """10,000 normal rows show such an event once: one threshold is off by 3, the mean of 15 logarithms by 2 or less."""
    new = runs(300_000, 999, width)
    found = []
    for seed in range(15):
        normal = NormalScores.of_blocks([runs(2500, 10 * seed + block, width) for block in range(4)])
        threshold = AlarmsPerDay(1, rows_per_day=10_000).find(normal, None)
        found.append(len(merge(new > threshold)) / 30)
    assert 1 / 2.5 < np.exp(np.mean(np.log(found))) < 2.5


def test_alarms_of_different_blocks_are_different_events():
    """Every block starts and ends with an alarm: two events a block, or one where blocks were one recording."""
    blocks = list(np.random.default_rng(0).random((100, 200)))
    for block in blocks:
        block[[0, -1]] += 10
    ask = AlarmsPerDay(1.5, rows_per_day=200)
    assert ask.find(NormalScores.of_blocks(blocks), None) > 9
    assert ask.find(normal_scores(np.concatenate(blocks)), None) < 2


def test_events_that_last_are_not_asked_for_more_often_than_they_come():
    """Runs of 40 rows: a day of 24 cannot hold one of its own."""
    normal = normal_scores(runs(6000, 0, 40))
    with pytest.warns(UserWarning, match=r"250 events are asked for in 6000 normal rows.*alarms on 10% of the rows"):
        threshold = AlarmsPerDay(1, rows_per_day=24).find(normal, None)
    assert (normal.scores > threshold).mean() == pytest.approx(0.1, abs=41 / 6000)


@pytest.mark.filterwarnings("ignore:.* events are asked for:UserWarning")
def test_more_alarms_per_day_are_never_a_higher_threshold():
    normal = normal_scores(runs(3000, 0, 5))
    thresholds = [AlarmsPerDay(number, rows_per_day=1000).find(normal, None) for number in np.geomspace(1e-3, 100, 30)]
    assert (np.diff(thresholds) <= 1e-12).all()
    assert thresholds[0] > thresholds[-1]


def definition(p, rate):
    """Return what Benjamini and Hochberg (1995) reject: the k smallest, k the last with p_(k) <= k rate / m."""
    below = np.flatnonzero(np.sort(p) <= rate * np.arange(1, len(p) + 1) / len(p))
    return np.array([bool(len(below)) and v <= np.sort(p)[below[-1]] for v in p])


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.floats(0.1, 3), st.floats(0.01, 0.9), st.integers(0, 999))
def test_discoveries_are_those_of_the_definition(n, power, rate, seed):
    p = np.random.default_rng(seed).random(n) ** power
    np.testing.assert_array_equal(benjamini_hochberg(p, rate), definition(p, rate))


@pytest.mark.parametrize("p", [[[0.001, 0.8], [0.02, 0.5]], 0.001], ids=["table", "number"])
def test_discoveries_are_of_one_list(p):
    with pytest.raises(ValueError, match="one list"):
        benjamini_hochberg(p)


def test_a_masked_p_value_is_not_discovered():
    with pytest.raises(ValueError, match="got nan"):
        benjamini_hochberg(np.ma.array([0.001, 0.5], mask=[True, False]))


def test_few_of_the_discoveries_are_false():
    rng = np.random.default_rng(0)
    rate, repetitions, n, faults = 0.2, 400, 100, 20
    shares, found = [], []
    for _ in range(repetitions):
        z = rng.standard_normal(n)
        z[:faults] += 3
        reported = benjamini_hochberg(stats.norm.sf(z), rate)
        shares.append(reported[faults:].sum() / max(1, reported.sum()))
        found.append(reported[:faults].mean())
    expected = rate * (n - faults) / n  # exact for independent p-values
    assert np.mean(shares) == pytest.approx(expected, abs=3 * np.std(shares) / np.sqrt(repetitions))
    assert np.mean(found) > 0.7


def test_normal_data_have_not_drifted():
    rng = np.random.default_rng(0)
    assert not any(drifted(rng.random(640)) for _ in range(300))


def test_neighbours_that_share_windows_are_no_drift():
    normal = normal_scores(runs(4000, 0, 30))
    drifts = [drifted(normal.p_values(runs(2000, seed, 30))) for seed in range(1, 101)]
    assert np.mean(drifts) <= 0.02


@pytest.mark.parametrize("scattered", [False, True])
def test_a_tenth_of_faults_is_no_drift(scattered):
    rng = np.random.default_rng(0)
    for _ in range(100):
        p = rng.random(1280)
        faults = rng.choice(1280, 128, replace=False) if scattered else slice(500, 628)
        p[faults] = 1e-3
        assert not drifted(p)


def test_a_bulk_that_moved_is_drift():
    normal = normal_scores(np.random.default_rng(0).standard_normal(3000))
    new = np.random.default_rng(1).standard_normal(1000) + 1
    assert drifted(normal.p_values(new))
    assert not drifted(normal.p_values(new - 2)), "rows more normal than normal are no alarm"


def test_a_few_rows_do_not_show_drift():
    assert not drifted(np.full(64 * 6, 0.2))
    assert not drifted(np.array([]))
    assert drifted(np.full(64 * 10, 0.2))


@pytest.mark.parametrize(("rise", "factor"), [(0.5, 1.0), (1.0, 1.0), (1.2, 1.2), (100.0, 1.5)])
def test_a_threshold_rises_with_training_data_that_drift_and_no_further(rise, factor):
    scores = np.random.default_rng(0).random(1000) + 1
    steady, drifting = SeriesDetector(), SeriesDetector()
    for detector, later in ((steady, scores), (drifting, rise * scores)):
        detector.period_ = None
        detector._decide(NormalScores.of_blocks([scores]), halves=([scores], later))
    assert drifting.offset_ == pytest.approx(factor * steady.offset_)


def test_half_of_a_block_far_out_is_drift_however_few_blocks_there_are():
    rng = np.random.default_rng(0)
    assert drifted(np.where(rng.random(64) < 0.7, 0.001, rng.random(64)))
    assert not drifted(np.where(rng.random(64) < 0.3, 0.001, rng.random(64)))
    assert not drifted(np.full(63, 0.001))


@pytest.mark.parametrize("wrong", [np.nan, -0.1, 1.5])
def test_p_values_that_are_none_are_named(wrong):
    with pytest.raises(ValueError, match=f"p_values must lie between 0 and 1, got {wrong}"):
        benjamini_hochberg([0.5, wrong])


def test_no_event_goes_on_through_a_long_outage():
    numbers = np.r_[0:5, 6:10, 60:70]  # a row is missing, then fifty are
    scores = NormalScores.of_rows(np.ones(19 + 4), [numbers, np.empty(0, int), np.arange(4)])
    assert scores.breaks.tolist() == [9, 19]
    assert [len(part) for part in np.split(scores.scores, scores.breaks)] == [9, 10, 4]
