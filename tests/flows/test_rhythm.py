"""How regularly conversations come back, against a count by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from diffad.flows.rhythm import BEATS, FEWEST, SAME_BEAT, Rhythm
from diffad.flows.table import ReadReport, flow_table


def conversation(starts, source="10.0.0.1", port=443):
    fields = {"start": starts, "source": source, "destination": "10.0.0.2", "destination_port": port, "protocol": "tcp"}
    return flow_table(
        {k: v if np.ndim(v) else [v] * len(starts) for k, v in fields.items()}, [""] * len(starts), ReadReport()
    )


def by_hand(table, max_flows):
    """Return the median interval and its jitter at every flow, conversation by conversation."""
    beats, last, rows = {}, {}, []
    starts = table["start"].astype("datetime64[us, UTC]").astype("int64")
    ends = table[["source", "destination", "destination_port"]]
    for i, (key, start) in enumerate(zip(ends.itertuples(index=False, name=None), starts, strict=True)):
        if any(pd.isna(end) for end in key):
            rows.append((np.nan, np.nan))
            continue
        if key not in last or i - last[key][0] >= max_flows or start - last[key][1] >= SAME_BEAT:
            beats.setdefault(key, []).append((i, start))
        last[key] = i, start
        known = [beat for at, beat in beats[key][-BEATS - 1 :] if i - at < max_flows]
        intervals = [gap / 1e3 for gap in np.diff(known) if gap > 0]
        if len(intervals) < FEWEST:
            rows.append((np.nan, np.nan))
            continue
        middle = np.median(intervals)
        rows.append((middle, 100 * np.median(np.abs(intervals - middle)) / middle))
    return np.array(rows, dtype=float).reshape(len(table), 2)


def traffic(seed, n=400):
    """Return flows of few conversations: bursts, logs out of order, unknown ends."""
    rng = np.random.default_rng(seed)
    starts = 1.7e9 + np.cumsum(rng.exponential(0.3, n)) - rng.exponential(3, n) * (rng.random(n) < 0.2)
    sources = rng.choice(np.array(["10.0.0.1", "10.0.0.3", None], dtype=object), n)
    return conversation(starts, sources, rng.choice([53.0, 443.0, np.nan], n))


@settings(max_examples=30, deadline=None)
@example(408, 5, [38])
@example(2, 1, list(range(401)))
@given(st.integers(0, 1000), st.sampled_from([5, 60, 10_000]), st.lists(st.integers(0, 400), max_size=5))
def test_rhythms_are_those_counted_by_hand_however_a_log_is_cut(seed, max_flows, cuts):
    table = traffic(seed)
    edges, rhythm = [0, *sorted(cuts), len(table)], Rhythm(max_flows)
    found = pd.concat([rhythm.update(table.iloc[a:b]) for a, b in zip(edges[:-1], edges[1:], strict=True)])
    np.testing.assert_allclose(found, by_hand(table, max_flows))
    assert list(found.index) == list(table.index)


def test_a_beacon_has_its_period_and_a_small_jitter():
    rng = np.random.default_rng(0)
    beacon = Rhythm(1000).update(conversation(1.7e9 + 60 * np.arange(40) + rng.uniform(-3, 3, 40)))
    person = Rhythm(1000).update(conversation(1.7e9 + np.cumsum(rng.exponential(60, 40))))
    assert beacon["interval_ms"].median() == pytest.approx(60_000, rel=0.02)
    assert beacon["jitter_percent"].max() < 8
    assert person["jitter_percent"].median() > 30


def test_a_beat_left_out_and_a_wrong_clock_hardly_change_a_rhythm():
    starts = 1.7e9 + 10.0 * np.delete(np.arange(40), 20)
    starts[30] += 1e6
    found = Rhythm(1000).update(conversation(starts)).dropna()
    assert len(found) == len(starts) - FEWEST
    np.testing.assert_allclose(found["interval_ms"], 10_000)
    np.testing.assert_allclose(found["jitter_percent"], 0, atol=1e-9)


def test_a_flow_within_a_beat_that_is_forgotten_has_no_rhythm_and_takes_no_others():
    rhythm = Rhythm(3)
    rhythm.update(conversation(1.7e9 + 0.01 * np.arange(4)))
    assert not rhythm.remembered["beat"].any()
    assert rhythm.update(conversation([1.7e9 + 0.05])).isna().all(axis=None)


def test_a_burst_is_one_beat():
    starts = 1.7e9 + np.repeat(10.0 * np.arange(12), 5) + np.tile(0.05 * np.arange(5), 12)
    np.testing.assert_allclose(Rhythm(1000).update(conversation(starts)).dropna()["interval_ms"], 10_000)


def test_memory_is_bounded_and_no_flows_are_no_rhythm():
    rhythm = Rhythm(100)
    assert rhythm.update(conversation([])).shape == (0, 2)
    for k in range(20):
        rhythm.update(conversation(1.7e9 + 10.0 * np.arange(50 * k, 50 * k + 50), port=k % 3))
    assert len(rhythm.remembered) <= 100
