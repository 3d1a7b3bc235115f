"""A stream says row by row what the batch says of the whole recording, in constant memory.

A row that cannot be used is refused before anything is remembered of it, and a restart leaves no trace.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from diffad import SeriesDetector
from diffad.stream import Stream
from diffad.thresholds import MERGE, merge

PERIOD = pd.Timedelta("10s")


def noisy(x, seed):
    return x + 0.3 * np.random.default_rng(seed).standard_normal(x.shape)


@pytest.fixture(scope="module")
def detector(waves):
    """Return a detector whose clock ticks every 10 s, and that counts rows missing from a recording."""
    index = pd.date_range("2026-01-01", periods=len(waves), freq=PERIOD)
    train = pd.DataFrame(noisy(waves, 10), index, ["flow", "pressure", "power"])
    return SeriesDetector(context="past", regularize=True).fit(train)


@pytest.fixture(scope="module")
def live(gaps):
    """Return a later day of the same process with gaps, an outage, and two faults."""
    x = noisy(gaps, 11)
    x[60:64, 0] += 6.0
    x[250:254, 1] -= 6.0
    index = pd.date_range("2026-02-01", periods=len(x), freq=PERIOD)
    return pd.DataFrame(x, index, ["flow", "pressure", "power"])


@pytest.fixture(scope="module")
def batch(detector, live):
    return detector.score_samples(live)


@pytest.fixture(scope="module")
def results(detector, live):
    stream = detector.stream()
    return [stream.update(row, time) for time, row in live.iterrows()]


def running(detector, live, n=40):
    """Return a stream that has seen the first `n` rows."""
    stream = detector.stream()
    for time, row in live.iloc[:n].iterrows():
        stream.update(row, time)
    return stream


# Sums over a window run in another order when a single row is scored: float32 keeps 6 digits of scores near 10.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


# --- the same numbers as the batch ------------------------------------------------------------------------


def test_every_row_scores_as_in_the_batch(results, batch, live):
    assert live.isna().any().any() and live.isna().all(axis=1).any(), "gaps and an outage are meant to be there"
    np.testing.assert_allclose([r.score for r in results], batch, **CLOSE)
    assert [r.row for r in results] == list(range(len(live)))


def test_beside_a_dead_channel_every_row_scores_as_in_the_batch(detector, live):
    dead = live[:200].copy()
    dead.iloc[20:, 0] = np.nan
    dead.iloc[110:150, 1] = np.nan
    stream = detector.stream()
    found = [stream.update(row, time) for time, row in dead.iterrows()]
    with pytest.warns(UserWarning, match="'flow'.* hold no value"):
        shares = detector.explain(dead).share
    np.testing.assert_allclose([r.score for r in found], -shares.sum(axis=1), **CLOSE)
    assert (shares.iloc[100:, 0] < 1e-9).all(), "what is not there is not to blame"


def test_alarms_are_those_of_the_batch(results, detector, live):
    alarm = np.array([r.alarm for r in results])
    np.testing.assert_array_equal(alarm, detector.predict(live) == -1)
    assert 0 < alarm.mean() < 1, "the fixture is meant to hold both"


def test_shares_add_up_to_the_score_and_are_those_of_explain(results, detector, live):
    shares = pd.DataFrame([r.shares for r in results], live.index)
    np.testing.assert_allclose(shares.sum(axis=1), [-r.score for r in results], rtol=1e-9)
    # Channels are weighted by the 16th power of their strangeness, which multiplies rounding.
    np.testing.assert_allclose(shares, detector.explain(live).share, rtol=2e-4, atol=2e-4)


def test_explain_names_the_broken_channel_first(results):
    assert results[63].explain().index[0] == "flow"
    assert results[253].explain().index[0] == "pressure"
    assert results[63].explain().is_monotonic_decreasing


def test_without_a_clock_rows_follow_each_other(detector, live, batch):
    stream = detector.stream()
    np.testing.assert_allclose([stream.update(row).score for row in live.to_numpy()[:120]], batch[:120], **CLOSE)


def test_a_detector_of_arrays_streams_too(waves, gaps):
    detector = SeriesDetector(context="past").fit(waves)
    stream = detector.stream()
    live = [stream.update(row).score for row in gaps[:120]]
    # Next to no noise: a window meets a nearly equal one, and float32 keeps few digits of their distance.
    np.testing.assert_allclose(live, detector.score_samples(gaps[:120]), rtol=2e-4, atol=2e-4)


def test_a_detector_of_constants_streams_too():
    x = np.full((80, 2), 3.0)
    stream = SeriesDetector(context="past").fit(x).stream()
    assert not stream.update([3.0, 3.0]).alarm
    moved = stream.update([3.0, 4.0])
    assert moved.alarm and moved.explain().index[0] == "1"
    assert not stream.update([3.0, np.nan]).alarm


@pytest.mark.parametrize("form", ["dict", "reversed dict", "series", "reversed series", "list", "tuple", "array"])
def test_rows_come_in_any_form_and_dicts_in_any_order(form, detector, live, batch):
    forms = {
        "dict": lambda row: row.to_dict(),
        "reversed dict": lambda row: row[::-1].to_dict(),
        "series": lambda row: row,
        "reversed series": lambda row: row[::-1],
        "list": lambda row: row.tolist(),
        "tuple": lambda row: tuple(row),
        "array": lambda row: row.to_numpy(),
    }
    stream = detector.stream()
    scores = [stream.update(forms[form](row)).score for _, row in live.iloc[:30].iterrows()]
    np.testing.assert_allclose(scores, batch[:30], **CLOSE)


def test_two_streams_of_one_detector_do_not_share_a_state(detector, live, batch):
    first, second = detector.stream(), detector.stream()
    for row in live.to_numpy()[:30]:
        first.update(row)
    assert second.update(live.iloc[0]).score == pytest.approx(batch[0], **{"rel": 1e-5, "abs": 1e-5})


# --- the clock --------------------------------------------------------------------------------------------


def test_rows_missing_from_the_clock_count_as_rows_of_nan(detector, live):
    keep = np.random.default_rng(3).random(len(live)) > 0.2
    keep[[0, -1]] = True
    keep[120:150] = False
    part = live[keep]
    stream = detector.stream()
    found = [stream.update(row, time) for time, row in part.iterrows()]
    assert [r.row for r in found] == np.flatnonzero(keep).tolist()
    on_grid = detector.score_samples(part)
    assert len(on_grid) == len(live), "regularize=True is meant to put the missing rows back"
    np.testing.assert_allclose([r.score for r in found], on_grid[keep], **CLOSE)


def test_a_year_of_silence_costs_one_window(detector, live):
    stream = running(detector, live)
    late = live.index[39] + pd.Timedelta("365D")
    found = stream.update(live.iloc[40], late)
    assert found.row == 39 + round(pd.Timedelta("365D") / PERIOD)
    assert found.score == pytest.approx(detector.stream().update(live.iloc[40]).score, rel=1e-5)
    assert len(stream._rows) <= stream.detector.scorer_.longest


def test_a_jittering_clock_loses_no_row(detector, live, batch):
    part, stream = live[:120], detector.stream()
    jitter = pd.to_timedelta(np.random.default_rng(0).uniform(-2, 2, len(part)), unit="s")
    found = [stream.update(row, time) for time, row in zip(part.index + jitter, part.to_numpy(), strict=True)]
    assert found[-1].row == len(part) - 1
    np.testing.assert_allclose([r.score for r in found], batch[:120], **CLOSE)


def test_without_a_known_period_the_clock_only_orders(waves):
    stream = SeriesDetector(context="past", kinds=("energy",)).fit(waves).stream()
    stream.update(waves[0], "2026-01-01")
    assert stream.update(waves[1], "2026-03-01").row == 1
    with pytest.raises(ValueError, match="backwards"):
        stream.update(waves[2], "2026-02-01")


def test_a_row_without_a_time_takes_one_period(detector, live):
    stream = detector.stream()
    stream.update(live.iloc[0], live.index[0])
    stream.update(live.iloc[1])
    assert stream.update(live.iloc[2], live.index[2]).row == 2


def calendar(waves, freq, start="1950-01-31", periods=300):
    """Return a table with a row every month, quarter or year, noise on all of them."""
    index = pd.date_range(start, periods=periods, freq=freq)
    return pd.DataFrame(noisy(np.resize(waves, (periods, waves.shape[1])), 12), index, ["flow", "pressure", "power"])


@pytest.mark.parametrize("freq", ["MS", "ME", "QS"])
def test_years_of_missing_months_lose_no_row(freq, waves):
    fitted = SeriesDetector(context="past", kinds=("energy",), regularize=True).fit(calendar(waves, freq))
    live = calendar(waves, freq, "2030-01-31", 200)
    kept = [0, 1, 2, 5, 17, 41, 101, 199]
    stream, part = fitted.stream(), live.iloc[kept]
    found = [stream.update(row, time) for time, row in part.iterrows()]
    assert [r.row for r in found] == kept
    np.testing.assert_allclose([r.score for r in found], fitted.score_samples(part)[kept], **CLOSE)


def test_months_are_counted_whatever_the_day_on_which_a_row_comes(waves):
    fitted = SeriesDetector(context="past", kinds=("energy",)).fit(calendar(waves, "MS").to_period("M"))
    stream = fitted.stream()
    times = ["2030-01-01", "2030-02-03", "2030-02-27", "2035-02-27", "2035-04-02"]
    assert [stream.update([0.0, 0.0, 0.0], time).row for time in times] == [0, 1, 2, 62, 63]
    with pytest.raises(ValueError, match="give one row a period"):
        stream.update([0.0, 0.0, 0.0], "2035-04-09")


def test_rows_without_a_time_take_a_month_each(waves):
    stream = SeriesDetector(context="past", kinds=("energy",)).fit(calendar(waves, "MS")).stream()
    stream.update([0.0, 0.0, 0.0], "2030-01-01")
    for _ in range(119):
        stream.update([0.0, 0.0, 0.0])
    assert stream.update([0.0, 0.0, 0.0], "2040-01-01").row == 120


def test_four_weeks_are_no_month(waves):
    stream = SeriesDetector(context="past", kinds=("energy",)).fit(calendar(waves, "28D")).stream()
    stream.update([0.0, 0.0, 0.0], "2030-01-01")
    assert stream.update([0.0, 0.0, 0.0], pd.Timestamp("2030-01-01") + 130 * pd.Timedelta("28D")).row == 130


# --- rows that are refused --------------------------------------------------------------------------------


BAD = {
    "short list": (lambda row: row.tolist()[:2], 1, ("2 values", "3 channels")),
    "long list": (lambda row: [*row, 0.0], 1, ("4 values", "3 channels")),
    "number": (lambda row: 3.0, 1, ("1 values", "3 channels")),
    "missing name": (lambda row: row.drop("power"), 1, ("power",)),
    "surplus name": (lambda row: {**row, "extra": 0.0}, 1, ("extra",)),
    "other name": (lambda row: row.rename({"power": "load"}), 1, ("load", "power")),
    "infinity": (lambda row: [np.inf, 0.0, 0.0], 1, ("'flow'", "infinity", "NaN")),
    "minus infinity": (lambda row: {**row, "flow": -np.inf}, 1, ("infinity",)),
    "text": (lambda row: {**row, "flow": "off"}, 1, ("'flow'", "'off'", "NaN")),
    "complex number": (lambda row: [1.0, np.complex128(2 + 5j), 2.0], 1, ("'pressure'", "no number")),
    "number beyond all floats": (lambda row: [1.0, 10**400, 2.0], 1, ("'pressure'", "no number")),
    "decimal comma": (lambda row: [1.0, "12,5", 2.0], 1, ("'pressure'", "'12,5'")),
    "clock backwards": (lambda row: row, -1, ("backwards", "order")),
    "clock stands": (lambda row: row, 0, ("backwards", "order")),
}


@pytest.mark.parametrize("case", BAD)
def test_a_refused_row_leaves_no_trace(case, detector, live):
    bad, ticks, words = BAD[case]
    stream, untouched = running(detector, live, 15), running(detector, live, 15)
    before = pickle.dumps(stream)
    with pytest.raises(ValueError) as caught:
        stream.update(bad(live.iloc[15]), live.index[14] + ticks * PERIOD)
    for word in words:
        assert word in str(caught.value), f"{word!r} is missing in: {caught.value}"
    assert pickle.dumps(stream) == before
    for i in range(15, 18):
        assert stream.update(live.iloc[i], live.index[i]) == untouched.update(live.iloc[i], live.index[i])


@pytest.mark.parametrize("seen", [0, 40])
def test_a_time_that_is_missing_is_refused_by_name(seen, detector, live):
    stream = running(detector, live, seen)
    with pytest.raises(ValueError, match=r"NaT|time is missing"):
        stream.update(live.iloc[seen], pd.NaT)
    assert stream.update(live.iloc[seen], live.index[seen]).row == seen


def test_a_channel_given_twice_is_refused(detector, live):
    twice = pd.concat([live.iloc[0], pd.Series({"flow": 99.0})])
    with pytest.raises(ValueError, match="flow"):
        detector.stream().update(twice)


def test_a_table_of_one_row_is_read_by_name_or_refused(detector, live, batch):
    table = live.iloc[[0]][["power", "flow", "pressure"]]
    try:
        score = detector.stream().update(table).score
    except (TypeError, ValueError):
        return
    assert score == pytest.approx(batch[0], abs=1e-5)


def test_windows_around_a_row_cannot_stream(waves):
    with pytest.raises(ValueError, match="context='past'"):
        SeriesDetector(kinds=("energy",)).fit(waves).stream()


def test_a_detector_that_is_not_fitted_cannot_stream():
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        SeriesDetector(context="past").stream()


REFITS = {
    "windows around rows": (lambda d, X: d.set_params(context="both").fit(X), "context='both'"),
    "other order": (
        lambda d, X: d.fit(X[["power", "flow", "pressure"]]),
        r"\['power', 'flow', 'pressure'\] instead of",
    ),
    "other names": (lambda d, X: d.fit(X.rename(columns={"power": "load"})), "'load'"),
    "more channels": (lambda d, X: d.fit(X.assign(load=X["power"])), "'load'"),
    "other period": (lambda d, X: d.fit(X.set_axis(X.index[0] + 6 * (X.index - X.index[0]))), "every 60.0 s"),
    "no clock": (lambda d, X: d.fit(X.reset_index(drop=True)), "every None s"),
}


@pytest.mark.parametrize("case", REFITS)
def test_a_detector_fitted_anew_to_something_else_is_refused(case, waves, live, tmp_path):
    refit, words = REFITS[case]
    index = pd.date_range("2026-01-01", periods=len(waves), freq=PERIOD)
    train = pd.DataFrame(noisy(waves, 10), index, ["flow", "pressure", "power"])
    own = SeriesDetector(context="past", kinds=("energy",)).fit(train)
    stream = running(own, live)
    refit(own, train)
    stream.save(tmp_path / "stream.pkl")
    for going_on in (stream, Stream.load(tmp_path / "stream.pkl")):
        before = pickle.dumps(going_on)
        with pytest.raises(ValueError, match=rf"fitted anew.*{words}.*new stream"):
            going_on.update(live.iloc[40].tolist())
        assert pickle.dumps(going_on) == before


def test_a_detector_fitted_anew_to_the_same_channels_goes_on(waves, live):
    index = pd.date_range("2026-01-01", periods=len(waves), freq=PERIOD)
    train = pd.DataFrame(noisy(waves, 10), index, ["flow", "pressure", "power"])
    own = SeriesDetector(context="past", kinds=("energy",)).fit(train)
    stream = running(own, live)
    own.fit(train + 0.1 * noisy(waves, 12))
    expected = own.score_samples(live[:60])[40:]
    found = [stream.update(row, time).score for time, row in live[40:60].iterrows()]
    np.testing.assert_allclose(found, expected, **CLOSE)


# --- memory -----------------------------------------------------------------------------------------------


def test_memory_is_one_window_however_many_rows(waves, tmp_path):
    stream = SeriesDetector(context="past", kinds=("quiet",)).fit(waves).stream()
    sizes = []
    for i in range(1000):
        stream.update(waves[i % len(waves)])
        assert len(stream._rows) <= stream.detector.scorer_.longest
        if i in (200, 999):
            stream.save(tmp_path / "stream")
            sizes.append((tmp_path / "stream").stat().st_size)
    assert sizes[1] <= sizes[0] + 64, "a few bytes for larger counters"
    kept = stream._rows if stream._rows.base is None else stream._rows.base
    assert len(kept) <= 2 * stream.detector.scorer_.longest, "a view keeps the memory of all it was cut from"


# --- restart ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 70])
def test_a_restart_leaves_no_trace(at, detector, live, results, tmp_path):
    running(detector, live, at).save(tmp_path / "stream.pkl")
    stream = Stream.load(tmp_path / "stream.pkl")
    again = [stream.update(row, time) for time, row in live.iloc[at : at + 10].iterrows()]
    assert again == results[at : at + 10]


def test_a_silence_across_a_restart_is_seen(detector, live, tmp_path):
    running(detector, live).save(tmp_path / "stream.pkl")
    stream = Stream.load(tmp_path / "stream.pkl")
    assert stream.update(live.iloc[50], live.index[50]).row == 50
    with pytest.raises(ValueError, match="backwards"):
        stream.update(live.iloc[45], live.index[45])


def test_another_pickle_is_refused(tmp_path, detector):
    (tmp_path / "detector.pkl").write_bytes(pickle.dumps(detector))
    with pytest.raises(ValueError, match="SeriesDetector, not a saved stream"):
        Stream.load(tmp_path / "detector.pkl")


def test_save_takes_text_and_leaves_one_file(detector, live, tmp_path):
    running(detector, live).save(str(tmp_path / "stream.pkl"))
    assert [f.name for f in tmp_path.iterdir()] == ["stream.pkl"]


@pytest.mark.parametrize("cause", ["pickle", "write", "rename"])
def test_a_failed_save_leaves_the_old_file(cause, detector, live, tmp_path, monkeypatch):
    file = tmp_path / "stream.pkl"
    stream = running(detector, live)
    stream.save(file)

    def full(*args):
        raise OSError("no space left on device")

    if cause == "pickle":
        stream.note = lambda: None
    elif cause == "write":
        monkeypatch.setattr(Path, "write_bytes", full)
    else:
        monkeypatch.setattr("os.replace", full)
    with pytest.raises((OSError, AttributeError, pickle.PicklingError)):
        stream.save(file)
    monkeypatch.undo()
    expected = running(detector, live).update(live.iloc[40], live.index[40])
    assert Stream.load(file).update(live.iloc[40], live.index[40]) == expected


# --- events -----------------------------------------------------------------------------------------------


def test_alarms_near_each_other_share_a_number(results):
    alarm = np.array([r.alarm for r in results])
    numbers = [r.event for r in results]
    assert all(n is None for n, a in zip(numbers, alarm, strict=True) if not a)
    spans = merge(alarm)
    assert len(spans) >= 2, "the fixture is meant to hold two events"
    for k, (start, stop) in enumerate(spans):
        assert {numbers[i] for i in range(start, stop) if alarm[i]} == {k}


def test_events_are_those_of_the_batch(results, detector, live):
    events = detector.events(live)
    numbers = pd.Series([r.event for r in results], live.index).dropna()
    spans = numbers.index.to_series().groupby(numbers).agg(["first", "last"])
    assert spans["first"].tolist() == events["start"].tolist()
    assert spans["last"].tolist() == events["end"].tolist()


@pytest.mark.parametrize(("rows_between", "events"), [(0, 1), (MERGE - 1, 1), (MERGE, 2), (200, 2)])
def test_the_clock_decides_what_is_near(rows_between, events):
    """A channel that never moved alarms in just the rows in which it moves; silence counts as rows."""
    index = pd.date_range("2026-01-01", periods=80, freq=PERIOD)
    stream = SeriesDetector(context="past").fit(pd.DataFrame({"valve": np.ones(80)}, index)).stream()
    first = stream.update([2.0], index[0])
    second = stream.update([2.0], index[0] + (rows_between + 1) * PERIOD)
    assert (first.event, second.event) == (0, events - 1)


@pytest.mark.parametrize("time", ["04.03.2026 10:00", "4/3/26 10:00", "10:00"])
def test_a_time_that_may_be_read_in_several_ways_is_refused(time, detector, live):
    with pytest.raises(ValueError, match=r"ISO text, as .*, or a pandas Timestamp"):
        running(detector, live).update(live.iloc[40], time)


def test_a_time_in_iso_text_is_that_timestamp(detector, live):
    expected = running(detector, live).update(live.iloc[40], live.index[40])
    assert running(detector, live).update(live.iloc[40], live.index[40].isoformat()) == expected


@pytest.mark.parametrize("time", [1_700_000_000, 1.7e9, np.int64(5)])
def test_a_time_without_unit_is_refused(time, detector, live):
    with pytest.raises(ValueError, match="unit"):
        running(detector, live).update(live.iloc[40], time)


@pytest.mark.parametrize("time", [pd.Timedelta("10s"), pd.Period("2026-02-01 10:00", "s"), [1]], ids=str)
def test_a_time_that_is_no_timestamp_is_refused_by_name(time, detector, live):
    with pytest.raises(ValueError, match=r"time .* is no timestamp"):
        running(detector, live).update(live.iloc[40], time)


def test_rows_that_come_several_a_period_are_refused(detector, live):
    stream = running(detector, live)
    with pytest.raises(ValueError, match="every 10 s"):
        stream.update(live.iloc[40], live.index[39] + pd.Timedelta("2s"))


def test_what_is_missing_may_be_written_in_any_way(detector, live):
    expected = running(detector, live).update([1.0, np.nan, 2.0]).score
    masked = np.ma.MaskedArray([1.0, 99.0, 2.0], mask=[False, True, False])
    for row in ([1.0, pd.NA, 2.0], [1.0, None, 2.0], masked, {"flow": 1.0, "pressure": pd.NaT, "power": 2.0}):
        assert running(detector, live).update(row).score == expected


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x04\x95"])
def test_a_broken_file_is_named(tmp_path, content):
    path = tmp_path / "state"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="state is no saved stream"):
        Stream.load(path)


def test_a_stream_begins_anew_after_a_wrong_time(detector, live):
    stream, fresh = detector.stream(), detector.stream()
    for time, row in live[:5].iterrows():
        stream.update(row, time=time)
    rows = stream.update(live.iloc[5], time=pd.Timestamp("2036-01-01")).row
    with pytest.raises(ValueError, match=r"clock goes backwards.*restart\(\)"):
        stream.update(live.iloc[6], time=live.index[6])
    stream.restart()
    for time, row in live[6:30].iterrows():
        found, expected = stream.update(row, time=time), fresh.update(row, time=time)
        assert found.score == expected.score
    assert found.row == rows + 24


def test_a_missing_file_is_no_broken_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        Stream.load(tmp_path / "state")


@pytest.mark.parametrize("grid", [0.5, 0.1])
def test_rounded_readings_score_as_in_the_batch(waves, grid):
    """Readings of few values tie, and a tie must not break by an ulp."""
    rows = np.round(noisy(waves, 10) / grid) * grid
    fitted = SeriesDetector(context="past", kinds=("energy", "filter", "step", "window", "quiet")).fit(rows)
    new = np.round(noisy(waves[:150], 11) / grid) * grid
    stream = fitted.stream()
    live = [stream.update(row).score for row in new]
    np.testing.assert_allclose(live, fitted.score_samples(new), rtol=1e-4, atol=1e-5)


def test_torchs_defaults_do_not_reach_a_stream(detector, live):
    expected = running(detector, live).update([1.0, np.nan, 2.0]).score
    stream = running(detector, live)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert stream.update([1.0, np.nan, 2.0]).score == expected
    finally:
        torch.set_default_dtype(before)


def test_a_row_that_could_not_be_scored_has_not_come(detector, live, monkeypatch):
    stream = running(detector, live)
    time = stream._time + pd.Timedelta(seconds=detector.period_)
    with monkeypatch.context() as broken:
        broken.setattr(type(detector.scorer_), "shares_of_last", lambda self, rows, threshold: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            stream.update([1.0, 2.0, 3.0], time)
    assert stream.update([1.0, 2.0, 3.0], time).score == running(detector, live).update([1.0, 2.0, 3.0], time).score


def test_a_detector_that_learnt_from_gaps_streams_as_it_scores(waves):
    holes = np.random.default_rng(0).random(waves.shape) < 0.2
    fitted = SeriesDetector(context="past").fit(np.where(holes, np.nan, noisy(waves, 10)))
    assert fitted.scorer_.learnt.scorer.tails.whole, "whole windows are meant to have tails of their own"
    new = noisy(waves[:120], 11)
    new[40:80][holes[:40]] = np.nan
    stream = fitted.stream()
    np.testing.assert_allclose([stream.update(row).score for row in new], fitted.score_samples(new), **CLOSE)
