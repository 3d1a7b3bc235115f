"""Injected faults are what their names say, only where their labels say, and repeatable.

The oracle is the clean recording: the difference to it is the fault.
"""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from diffad.faults import FAULTS, NEIGHBOURHOOD, RESTING, inject

KINDS = tuple(FAULTS)
#: Faults that put readings of another row or channel in place of those that were there.
BORROWED = ("delay", "swap", "decorrelate", "frequency")


def recording(rows=600, channels=3, seed=0):
    """Return a recording whose channels have different levels and spreads, no value twice."""
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.standard_normal((rows, channels)), axis=0) / 5 + rng.standard_normal((rows, channels))
    return x * (1 + np.arange(channels)) + 10.0 * np.arange(channels)


def with_gaps(x, share=0.2, seed=0):
    holes = x.copy()
    holes[np.random.default_rng(seed).random(x.shape) < share] = np.nan
    return holes


def single(kind, size=3.0, length=30, x=None, random_state=0):
    """Inject one fault; return the clean and the faulty values in its rows, its event and the clean recording."""
    x = recording() if x is None else x
    faulty = inject(x, kind, n_events=1, length=length, size=size, random_state=random_state)
    event = faulty.events.iloc[0]
    rows = slice(event.start, event.stop)
    return x[rows, event.channel], faulty.X[rows, event.channel], event, x


def local_deviation(x, event):
    """Return the deviation of the channel in the neighbourhood of the event's first row."""
    first = max(0, event.start - NEIGHBOURHOOD)
    return x[first : event.start + NEIGHBOURHOOD, event.channel].std()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), st.integers(1, 4), st.integers(2, 40), st.integers(1, 8), st.integers(0, 999))
def test_only_labelled_values_change_and_labels_are_those_of_the_events(kind, channels, length, n_events, seed):
    x = recording(n_events * (length + 2) + seed % 300, channels, seed)
    faulty = inject(x, kind, n_events=n_events, length=length, random_state=seed)
    changed = x != faulty.X
    allowed = np.zeros(x.shape, bool)
    for event in faulty.events.itertuples():
        assert not allowed[event.start : event.stop].any(), "events do not overlap"
        allowed[event.start : event.stop, event.channel] = True
        assert event.kind == kind
        assert event.stop - event.start == length
    assert len(faulty.events) == n_events
    assert not changed[~allowed].any()
    labelled = allowed.any(1) if kind == "stuck" else changed.any(1)  # what is stuck is stuck from its first reading
    np.testing.assert_array_equal(faulty.y, labelled.astype(int))
    expected = np.where(labelled, allowed.argmax(1), -1)
    np.testing.assert_array_equal(faulty.channel, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_changes_most_of_its_events(kind):
    x = recording(2000)
    faulty = inject(x, kind, n_events=20, length=20)
    per_event = [faulty.y[e.start : e.stop].sum() for e in faulty.events.itertuples()]
    # A spike is a few readings, a dropout about half of them.
    least = {"spike": 3, "dropout": 5}.get(kind, 18)
    assert min(per_event) >= least, per_event


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_missing_stays_missing_and_labels_stay_in_the_events(kind):
    x = with_gaps(recording())
    faulty = inject(x, kind, n_events=8)
    assert np.isnan(faulty.X[np.isnan(x)]).all()
    inside = np.zeros(len(x), bool)
    for event in faulty.events.itertuples():
        inside[event.start : event.stop] = True
    assert not faulty.y[~inside].any()
    np.testing.assert_array_equal(faulty.X[~inside], x[~inside])


@pytest.mark.parametrize(
    "kind",
    KINDS,
)
def test_what_is_visible_stays_visible(kind):
    x = with_gaps(recording())
    faulty = inject(x, kind, n_events=8)
    lost = np.isnan(faulty.X) & ~np.isnan(x)
    assert not lost.any(), f"{lost.sum()} readings were deleted"


@pytest.mark.parametrize(
    "kind",
    KINDS,
)
def test_a_missing_reading_is_not_labelled(kind):
    x = recording()
    x[::3] = np.nan
    faulty = inject(x, kind, n_events=8)
    assert not faulty.y[::3].any()


@pytest.mark.parametrize("kind", KINDS)
def test_tables_stay_tables_and_the_input_is_left_alone(kind):
    index = pd.date_range("2026-01-01", periods=600, freq="10s", name="time")
    table = pd.DataFrame(with_gaps(recording()), index, ["flow", "pressure", "power"])
    before = table.copy()
    faulty = inject(table, kind)
    pd.testing.assert_frame_equal(table, before)
    pd.testing.assert_index_equal(faulty.X.index, index)
    assert list(faulty.X.columns) == ["flow", "pressure", "power"]
    array = table.to_numpy()
    plain = inject(array, kind)
    np.testing.assert_array_equal(array, before.to_numpy())
    assert isinstance(plain.X, np.ndarray)
    np.testing.assert_array_equal(plain.X, faulty.X.to_numpy())


def test_whole_numbers_may_become_fractions():
    x = np.random.default_rng(0).integers(0, 9, (300, 2))
    faulty = inject(x, "shift", n_events=2, size=0.5)
    assert not np.isin(faulty.X[faulty.y == 1], np.arange(-20, 20)).all()


def test_equal_random_states_are_equal_faults():
    x = recording()
    first, second, other = (inject(x, random_state=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.X, second.X)
    np.testing.assert_array_equal(first.channel, second.channel)
    pd.testing.assert_frame_equal(first.events, second.events)
    assert not first.events.equals(other.events)
    generator = np.random.RandomState(3)
    np.testing.assert_array_equal(inject(x, random_state=generator).X, first.X)
    assert not np.array_equal(inject(x, random_state=generator).X, first.X), "a generator moves on"


@pytest.mark.parametrize("size", [0.5, 2.0, 6.0])
def test_a_shift_is_as_many_local_deviations_as_its_size(size):
    clean, faulty, event, x = single("shift", size)
    difference = faulty - clean
    np.testing.assert_allclose(difference, difference[0])
    assert abs(difference[0]) == pytest.approx(size * local_deviation(x, event), rel=1e-9)
    assert event["size"] == pytest.approx(size)


@pytest.mark.parametrize("kind", ["spike", "shift", "drift", "noise"])
def test_faults_go_up_and_down(kind):
    x = recording(2000)
    faulty = inject(x, kind, n_events=20, length=20)
    sums = [(faulty.X - x)[e.start : e.stop].sum() for e in faulty.events.itertuples()]
    assert 3 <= (np.array(sums) > 0).sum() <= 17


@pytest.mark.parametrize("kind", ["spike", "shift", "drift", "noise", "scale"])
def test_the_change_is_proportional_to_the_size(kind):
    clean, small, _, _ = single(kind, 1.5)
    _, large, _, _ = single(kind, 4.5)
    np.testing.assert_allclose(large - clean, 3 * (small - clean), rtol=1e-6, atol=1e-9)


def test_spikes_are_few_and_far_off():
    clean, faulty, event, x = single("spike", 3.0)
    difference = (faulty - clean)[faulty != clean]
    assert len(difference) == 5  # a sixth of 30
    np.testing.assert_allclose(np.abs(difference), 6 * local_deviation(x, event))
    assert (single("spike", length=1)[1] != single("spike", length=1)[0]).sum() == 1


def test_a_drift_grows_from_nothing_in_a_line():
    clean, faulty, event, x = single("drift", 3.0)
    difference = faulty - clean
    assert difference[0] == 0
    np.testing.assert_allclose(np.diff(difference), difference[-1] / 29, rtol=1e-6)
    assert abs(difference[-1]) == pytest.approx(1.7 * 3 * local_deviation(x, event))


def test_noise_is_white_and_centred():
    clean, faulty, event, x = single("noise", 3.0, length=400)
    difference = (faulty - clean) / (0.7 * 3 * local_deviation(x, event))
    assert stats.kstest(difference, "norm").pvalue > 1e-3
    assert difference.std() == pytest.approx(1, abs=4 / np.sqrt(2 * 400))
    assert abs(np.corrcoef(difference[1:], difference[:-1])[0, 1]) < 4 / np.sqrt(400)


def test_a_scaled_channel_swings_around_the_same_mean():
    clean, faulty, _, _ = single("scale", 2.0)
    assert faulty.mean() == pytest.approx(clean.mean())
    np.testing.assert_allclose(faulty - faulty.mean(), 3 * (clean - clean.mean()), rtol=1e-9)


def test_a_stuck_channel_repeats_its_first_reading():
    clean, faulty, _, _ = single("stuck")
    assert (faulty == clean[0]).all()


@pytest.mark.parametrize(("size", "late"), [(0.1, 1), (1.0, 4), (3.0, 12)])
def test_a_delayed_channel_shows_earlier_readings(size, late):
    _, faulty, event, x = single("delay", size)
    assert event.start > late
    np.testing.assert_array_equal(faulty, x[event.start - late : event.stop - late, event.channel])


def test_a_swapped_channel_shows_another_in_its_own_level_and_spread():
    x = recording(channels=2)
    _, faulty, event, _ = single("swap", x=x)
    theirs = stats.zscore(x[:, 1 - event.channel])[event.start : event.stop]
    ours = x[:, event.channel]
    np.testing.assert_allclose(faulty, ours.mean() + ours.std() * theirs, rtol=1e-9)


@pytest.mark.parametrize(("kind", "channels"), [("decorrelate", 3), ("decorrelate", 1), ("swap", 1)])
def test_a_decorrelated_channel_shows_its_own_readings_of_another_time(kind, channels):
    clean, faulty, event, x = single(kind, x=recording(channels=channels))
    elsewhere = np.lib.stride_tricks.sliding_window_view(x[:, event.channel], len(faulty))
    assert (elsewhere == faulty).all(1).any()
    assert not np.array_equal(faulty, clean)


def test_a_faster_channel_takes_the_same_course():
    clean, faulty, event, x = single("frequency", 3.0, random_state=1)  # twice the speed
    assert event.start + 60 < len(x)
    np.testing.assert_allclose(faulty, x[event.start : event.start + 60 : 2, event.channel])
    assert faulty[0] == clean[0]
    # A third of the way between rows: the line through its neighbours.
    _, slower, event, x = single("frequency", 1.0, random_state=1)
    rows = event.start + 4 / 3 * np.arange(30)
    np.testing.assert_allclose(slower, np.interp(rows, np.arange(len(x)), x[:, event.channel]))


@pytest.mark.parametrize("size", [3.0, 6.0, 60.0])
def test_a_dropout_falls_towards_the_lowest_reading(size):
    clean, faulty, event, x = single("dropout", size, length=200)
    lowest = x[:, event.channel].min()
    lost = faulty != clean
    assert 0.35 < lost.mean() < 0.65
    np.testing.assert_allclose((clean - faulty)[lost], min(1, size / 6) * (clean - lowest)[lost], rtol=1e-9)
    assert (single("dropout", length=1)[1] < single("dropout", length=1)[0]).all(), "one reading at least is lost"


def test_where_a_channel_rests_a_fault_is_measured_by_its_overall_deviation():
    x = np.random.default_rng(0).standard_normal((2000, 1)) * 5
    x[:1000] = 3.0
    faulty = inject(x, "shift", n_events=4, length=20, size=2.0)
    resting = faulty.events.iloc[0]
    assert resting.stop + NEIGHBOURHOOD < 1000
    change = faulty.X[resting.start, 0] - x[resting.start, 0]
    assert abs(change) == pytest.approx(2 * RESTING * x.std())
    never = np.full((200, 1), 7.0)
    assert np.abs(inject(never, "shift", n_events=1, size=2.0).X - never).max() == pytest.approx(2.0)


def test_sizes_are_drawn_log_uniformly_from_a_pair():
    events = inject(recording(9000, 1), "shift", n_events=300, length=5, size=(0.5, 8.0)).events
    assert events["size"].between(0.5, 8.0).all()
    assert stats.kstest(np.log(events["size"]), stats.uniform(np.log(0.5), np.log(16)).cdf).pvalue > 1e-3


def test_kinds_and_channels_are_those_asked_for():
    x = recording(9000, 4)
    events = inject(x, n_events=200, length=10).events
    assert set(events["kind"]) == set(KINDS)
    assert set(events["channel"]) == {0, 1, 2, 3}
    events = inject(x, ["shift", "stuck"], n_events=60, length=10, channels=[1, 3]).events
    assert set(events["kind"]) == {"shift", "stuck"}
    assert set(events["channel"]) == {1, 3}


def test_events_are_spread_evenly():
    events = inject(recording(1000), "shift", n_events=10, length=20).events
    assert (events["start"] // 100).tolist() == list(range(10))
    assert len(set(events["start"] % 100)) > 3, "with some jitter"


@pytest.mark.parametrize("kinds", ["rust", ["shift", "rust"], []])
def test_unknown_kinds_are_refused_by_name(kinds):
    with pytest.raises(ValueError, match=r"kinds must be some of .*'shift'.*got"):
        inject(recording(), kinds)


@pytest.mark.parametrize(("n_events", "length"), [(11, 25), (1, 300)])
def test_events_that_do_not_fit_are_refused(n_events, length):
    with pytest.raises(ValueError, match=rf"{n_events} events of length={length} do not fit in 280 rows"):
        inject(recording(280), "shift", n_events=n_events, length=length)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 0.0),
        ("size", -1.0),
        ("size", (2.0, 1.0)),
        ("length", 0),
        ("size", "3"),
        ("size", np.inf),
        ("size", [1, 2]),
        ("channels", [5]),
        ("channels", [-1]),
        ("channels", [0.7]),
        ("channels", ["c0"]),
        ("length", 2.5),
    ],
)
def test_bad_parameters_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        inject(recording(), "shift", n_events=3, **{name: value})


@pytest.mark.parametrize(
    ("X", "n_events", "words"),
    [(np.zeros(300), 3, "shape"), (np.full((300, 2), np.inf), 3, "infinity"), (np.zeros((300, 2)), 0, "n_events")],
)
def test_what_is_no_recording_is_refused(X, n_events, words):
    with pytest.raises(ValueError, match=words):
        inject(X, "shift", n_events=n_events)


@pytest.mark.parametrize(("kind", "seed"), [("delay", 0), ("decorrelate", 6)])
def test_no_event_is_without_a_fault(kind, seed):
    """The delay starts in row 0, the other time is the same time."""
    faulty = inject(recording(29, 2), kind, n_events=1, length=25, random_state=seed)
    assert faulty.y.any()


@pytest.mark.parametrize("length", [5, 25])
def test_spikes_are_in_readings_that_are_there(length):
    faulty = inject(with_gaps(recording(), 0.5), "spike", n_events=20, length=length)
    per_event = [faulty.y[e.start : e.stop].sum() for e in faulty.events.itertuples()]
    assert min(per_event) >= max(1, length // 6 - 1), per_event


@pytest.mark.parametrize(
    "kind",
    KINDS,
)
def test_a_channel_that_was_never_known_is_no_obstacle(kind):
    x = recording(600, 2)
    x[:, 1] = np.nan
    faulty = inject(x, kind, n_events=8)
    assert np.isnan(faulty.X[:, 1]).all()
    assert not np.isnan(faulty.X[:, 0]).any()


@pytest.mark.parametrize("kind", KINDS)
def test_no_event_changes_nothing_and_none_is_labelled_where_a_channel_rests(kind):
    x = recording(1000, 2)
    x[:620] = x[0]
    faulty = inject(x, kind, n_events=10, length=25)
    changed = (x != faulty.X).any(1)
    assert len(faulty.events) >= 3
    for event in faulty.events.itertuples():
        assert changed[event.start : event.stop].any(), event
    # The repeated reading itself is the only one that is labelled and right.
    unchanged = (faulty.y == 1) & ~changed
    assert unchanged.sum() <= (len(faulty.events) if kind == "stuck" else 0)


@pytest.mark.parametrize(("kind", "events"), [("stuck", 0), ("shift", 4)])
def test_a_recording_that_rests_has_only_faults_that_change_it(kind, events):
    faulty = inject(np.full((400, 2), 7.0), kind, n_events=4)
    assert len(faulty.events) == events
    assert (faulty.y.sum() > 0) == (events > 0)
    assert list(faulty.events.columns) == ["start", "stop", "channel", "kind", "size"]


def test_what_is_stuck_is_labelled_as_long_as_it_can_be_told():
    """A valve that opens for ten rows, and a sensor that says it stays shut."""
    x = np.zeros((40, 1))
    x[15:25] = 1.0
    faulty = inject(x, "stuck", n_events=1, length=36, random_state=0)
    assert (faulty.X == 0).all()
    assert np.flatnonzero(faulty.y).tolist() == list(range(14, 25))


def test_of_two_channels_the_fault_is_in_the_one_that_moves():
    x = recording(600, 2)
    x[:, 1] = 5.0
    faulty = inject(x, "stuck", n_events=8)
    assert faulty.events["channel"].tolist() == [0] * 8
