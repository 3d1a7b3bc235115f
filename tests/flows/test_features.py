"""Features of flows are what their names say, the same however a log is cut, and digestible for `TabularDetector`;
the windows of a source agree with counting by hand, and what is remembered stays bounded.
"""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from diffad import TabularDetector
from diffad.flows import FlowFeatures
from diffad.flows.context import BACKWARDS, PATIENCE, SECOND, SourceContext
from diffad.flows.table import ReadReport, failed, flow_table

DAY = pd.Timedelta(days=1)


def flows(**fields):
    """Return a flow table; every field is a value or one per flow."""
    defaults = {
        "start": 0.0, "duration": 0.5, "source": "10.0.0.1", "source_port": 40000, "destination": "10.0.0.2",
        "destination_port": 443, "protocol": "tcp", "service": "tls", "state": "SF", "bytes_out": 1000,
        "bytes_in": 4000, "packets_out": 10, "packets_in": 8,
    }  # fmt: skip
    n = max((len(v) for v in fields.values() if isinstance(v, list | np.ndarray)), default=1)
    filled = {k: v if isinstance(v, list | np.ndarray) else [v] * n for k, v in (defaults | fields).items()}
    return flow_table(filled, [""] * n, ReadReport())


def traffic(n=300, seed=0, hosts=5, late=0.3):
    """Return n flows of few hosts, some logged long after they began."""
    rng = np.random.default_rng(seed)
    start = np.sort(rng.uniform(0, n / 3, n)) - rng.exponential(20, n) * (rng.random(n) < late)
    states = rng.choice(np.array(["S0", "SF", None], dtype=object), n)
    return flows(
        start=1.7e9 + start,
        duration=rng.exponential(1, n) * (rng.random(n) < 0.8),
        source=rng.choice(np.array([*(f"10.0.0.{k}" for k in range(hosts)), None], dtype=object), n),
        destination=rng.choice(np.array(["10.0.0.9", "8.8.8.8", "2001:db8::1", None], dtype=object), n),
        destination_port=rng.choice([22, 53, 443, np.nan], n),
        state=states,
        bytes_out=np.where(rng.random(n) < 0.2, np.nan, rng.integers(0, 10**6, n)),
    )


def counted_by_hand(table, seconds, max_flows=10**9):
    """Return connections, peers, ports, failed share and bytes out of each flow's source, by looking at every pair."""
    known, states = table["source"].notna(), failed(table)
    rows, past, behind = [], {}, {}
    for i, flow in enumerate(table.itertuples()):
        if not known[i]:
            rows.append([np.nan] * 5)
            continue
        seen = [old for old in past.get(flow.source, []) if i - old[0] < max_flows]
        far = bool(seen) and flow.start < seen[-1][1] - pd.Timedelta(BACKWARDS // SECOND, "s")
        # The patience of a source outlasts the memory of its flows.
        behind[flow.source] = behind.get(flow.source, 0) + 1 if far else 0
        if behind[flow.source] == PATIENCE:
            seen, behind[flow.source] = [], 0
        moment = max([flow.start, *(old[1] for old in seen)])
        seen.append((i, moment, flow))
        past[flow.source] = seen
        window = [old for old in seen if moment - old[1] < pd.Timedelta(seconds, "s")]
        judged = [states[old[0]] for old in window if not np.isnan(states[old[0]])]
        sent = [old[2].bytes_out for old in window if not np.isnan(old[2].bytes_out)]
        rows.append(
            [
                len(window),
                len({old[2].destination for old in window if not pd.isna(old[2].destination)}),
                len({old[2].destination_port for old in window if not pd.isna(old[2].destination_port)}),
                np.mean(judged) if judged else np.nan,
                sum(sent) if sent else np.nan,
            ]
        )
    return np.array(rows, dtype=float).reshape(len(table), 5)


@pytest.fixture(scope="module")
def table():
    return traffic()


# --- a flow by itself -------------------------------------------------------------------------------------


def test_numbers_are_logarithms_of_what_their_names_say():
    row = FlowFeatures().fit_transform(flows(duration=0.5)).iloc[0]
    expected = {
        "duration_ms": 500, "bytes_out": 1000, "bytes_in": 4000, "packets_out": 10, "packets_in": 8,
        "bytes_per_second": 10000, "packets_per_second": 36, "bytes_per_packet_out": 100, "bytes_per_packet_in": 500,
    }  # fmt: skip
    assert {name: np.expm1(row[f"log_{name}"]) for name in expected} == pytest.approx(expected)


def test_what_cannot_be_divided_is_missing_and_nothing_is_infinite():
    table = flows(
        duration=[0, np.nan, 1.0, 1.0], bytes_out=[10, 10, 0, np.nan], packets_out=[1, 0, 0, np.nan],
        bytes_in=[0, 0, 0, 70], packets_in=[0, 0, 0, np.nan],
    )  # fmt: skip
    features = FlowFeatures().fit_transform(table)
    assert features["log_bytes_per_second"].isna().tolist() == [True, True, False, False]
    assert features["log_bytes_per_packet_out"].isna().tolist() == [False, True, True, True]
    assert np.expm1(features["log_bytes_per_second"][3]) == pytest.approx(70), "one direction is better than none"
    assert not np.isinf(features.select_dtypes("number").to_numpy(dtype=float)).any()


def test_counters_beyond_int64():
    features = FlowFeatures().fit_transform(flows(start=[0, 1, 2], bytes_out=[2.0**63, 1e30, 5.0]))
    assert np.isfinite(features["log_bytes_out"]).all() and features["log_bytes_out"][0] == pytest.approx(
        63 * np.log(2)
    )
    assert np.isfinite(features["log_bytes_out_10s"]).all()


@pytest.mark.parametrize(
    ("port", "service"),
    [
        (22, "ssh"), (53, "dns"), (443, "https"), (3306, "mysql"), (7, "system"), (1023, "system"), (1024, "registered"),
        (32767, "registered"), (32768, "ephemeral"), (65535, "ephemeral"), (0, "system"), (np.nan, None),
    ],
)  # fmt: skip
def test_ports_are_services_or_classes(port, service):
    got = FlowFeatures().fit(flows()).transform(flows(destination_port=[port], source_port=[port]))
    assert (
        got["destination_service"].fillna("").tolist() == got["source_service"].fillna("").tolist() == [service or ""]
    )


@pytest.mark.parametrize(
    ("source", "destination", "direction"),
    [
        ("10.1.2.3", "192.168.0.1", "internal"), ("172.31.0.1", "8.8.8.8", "outbound"), ("172.32.0.1", "10.0.0.1", "inbound"),
        ("1.1.1.1", "8.8.8.8", "external"), ("fd00::1", "2001:db8::1", "outbound"), ("fe80::1", "ff02::fb", "multicast"),
        ("10.0.0.1", "224.0.0.251", "multicast"), ("10.0.0.1", "255.255.255.255", "multicast"),
        ("::ffff:10.0.0.1", "127.0.0.1", "internal"), ("host-17", "8.8.8.8", "unknown"), (None, "8.8.8.8", "unknown"),
    ],
)  # fmt: skip
def test_direction_by_private_addresses(source, destination, direction):
    features = FlowFeatures().fit_transform(flows(source=[source], destination=[destination]))
    assert features["direction"].tolist() == [direction]


def test_own_networks_replace_the_private_ones():
    table = flows(source=["198.51.100.7", "10.0.0.1"], destination="8.8.8.8")
    features = FlowFeatures(inside=["198.51.100.0/24", "2001:db8::/32"]).fit_transform(table)
    assert features["direction"].tolist() == ["outbound", "external"]


def test_features_that_no_flow_has_are_left_out():
    netflow = traffic().assign(bytes_in=np.nan, packets_in=np.nan, service=pd.NA)
    fitted = FlowFeatures().fit(netflow)
    absent = {"log_bytes_in", "log_packets_in", "log_bytes_per_packet_in", "service"}
    assert absent.isdisjoint(fitted.columns_) and absent < set(FlowFeatures().fit(traffic()).columns_)
    assert list(fitted.transform(traffic())) == fitted.columns_ == fitted.get_feature_names_out().tolist()


def test_a_sensor_that_recognised_nothing_says_so():
    table = flows(service=["tls", None])
    assert FlowFeatures().fit(table).transform(table)["service"].tolist() == ["tls", "none"]


# --- what the source did lately ---------------------------------------------------------------------------


@pytest.mark.parametrize("max_flows", [1, 2, 25, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_windows_are_counted_exactly(seed, max_flows):
    table = traffic(seed=seed)
    got = SourceContext((3.0, 20.0), max_flows).update(table)
    expected = np.hstack([counted_by_hand(table, w, max_flows) for w in (3, 20)])
    np.testing.assert_allclose(got.to_numpy(), expected, rtol=1e-12)
    assert list(got)[:5] == ["connections_3s", "peers_3s", "ports_3s", "failed_share_3s", "bytes_out_3s"]


events = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 5, 9, 10, 11, 60, 100, -5, -50, -90_000, 90_000, 400_000]),
        st.sampled_from(["10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", None]),
        st.sampled_from(["8.8.8.8", "9.9.9.9", None]),
        st.sampled_from([22, 80, None]),
        st.sampled_from(["S0", "SF", None]),
    ),
    min_size=1,
    max_size=30,
)


@given(events=events, cuts=st.sets(st.integers(0, 30)), max_flows=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_chunks_equal_the_whole_and_both_equal_counting_by_hand(events, cuts, max_flows):
    time = 1.7e9 + np.cumsum([step if abs(step) < 1000 else 0 for step, *_ in events])
    time += [step if abs(step) > 1000 else 0 for step, *_ in events]  # single outliers
    columns = [list(column) for column in zip(*events, strict=True)][1:]
    names = ("source", "destination", "destination_port", "state")
    table = flows(start=time, **dict(zip(names, columns, strict=True)))
    features = FlowFeatures(windows=(10,), max_flows=max_flows).fit(table)
    whole = features.transform(table)
    stream = features.stream()
    edges = sorted({0, len(table), *(cut for cut in cuts if cut < len(table))})
    parts = [stream.update(table.iloc[a:b]) for a, b in pairwise(edges)]
    pd.testing.assert_frame_equal(pd.concat(parts), whole, check_exact=True)
    got = SourceContext((10.0,), max_flows).update(table)
    np.testing.assert_allclose(got.to_numpy(), counted_by_hand(table, 10, max_flows), rtol=1e-12)


def test_a_scan_stands_out_by_its_ports_and_failures():
    n = 100
    scan = flows(start=1.7e9 + np.arange(n) / 50, destination_port=np.arange(1, n + 1), state="S0", bytes_out=60)
    last = FlowFeatures().fit_transform(scan).iloc[-1]
    counts = {
        name: round(np.expm1(last[f"log_{name}_10s"]), 9) for name in ("connections", "peers", "ports", "bytes_out")
    }
    assert counts == {"connections": n, "peers": 1, "ports": n, "bytes_out": 60 * n}
    assert last["failed_share_10s"] == 1


def test_a_window_begins_after_its_length():
    table = flows(start=1.7e9 + np.array([0, 9.999999, 10, 20.5]))
    assert SourceContext((10.0,), 100).update(table)["connections_10s"].tolist() == [1, 2, 2, 1]


def test_a_start_in_the_far_future_stops_a_source_for_few_flows_only():
    start = 1.7e9 + np.arange(20.0)
    start[5] += 50 * 24 * 3600  # NetFlow's clock runs over after 49.7 days
    counts = SourceContext((3.0,), 100).update(flows(start=start))["connections_3s"].tolist()
    assert counts[:5] == [1, 2, 3, 3, 3] and counts[-10:] == [3.0] * 10


def test_a_long_connection_logged_late_neither_clears_nor_misses_what_is_going_on():
    table = flows(start=1.7e9 + np.array([100, 101, -80_000, 102.0]))
    assert SourceContext((10.0,), 100).update(table)["connections_10s"].tolist() == [1, 2, 3, 4]


def test_logs_of_two_days_may_come_in_any_order():
    day = traffic(late=0)
    other = day.assign(start=day["start"] - 3 * DAY)
    features = FlowFeatures(windows=(10,)).fit(day)
    both = features.transform(pd.concat([day, other], ignore_index=True))
    settled = both.index >= len(day) + 60
    # The latest intervals of a conversation may be of the day before.
    windows = [name for name in features.columns_ if name not in ("log_interval_ms", "log_jitter_percent")]
    pd.testing.assert_frame_equal(
        both.loc[settled, windows].reset_index(drop=True),
        features.transform(other)[windows][60:].reset_index(drop=True),
    )


def test_a_destination_is_told_by_how_many_speak_to_it():
    table = flows(
        start=[1.7e9, 1.7e9 + 1, 1.7e9 + 2, 1.7e9 + 20], source=["10.0.0.1", "10.0.0.3", "10.0.0.1", "10.0.0.4"]
    )
    features = FlowFeatures().fit_transform(table)
    assert np.expm1(features["log_sources_10s"]).round(6).tolist() == [1, 2, 2, 1]
    assert np.expm1(features["log_sources_600s"]).round(6).tolist() == [1, 2, 2, 3]


def test_memory_is_bounded_in_time_and_in_hosts():
    stream = FlowFeatures(windows=(10,), max_flows=500).fit(flows()).stream()
    for k in range(12):
        hosts = [f"10.{k}.{i // 250}.{i % 250}" for i in range(400)]
        stream.update(flows(start=1.7e9 + 3600 * k + np.arange(400), source=hosts))
    assert len(stream.sources.remembered) <= 500 and len(stream.sources.clocks) <= 1400
    idle = FlowFeatures(windows=(10,)).fit(flows()).stream()
    for k in range(5):
        idle.update(flows(start=1.7e9 + 100 * k + np.arange(100), source="10.0.0.1"))
    assert len(idle.sources.remembered) == 10, "what has left the longest window is forgotten"


# --- as a transformer -------------------------------------------------------------------------------------


def test_tabular_detector_takes_the_features(table):
    features = FlowFeatures().fit(table)
    detector = TabularDetector().fit(features.transform(table))
    strange = flows(start=1.7e9, bytes_out=1e12, protocol="ip-99", destination="8.8.8.8")
    assert detector.predict(features.transform(strange)).tolist() == [-1]
    scores = make_pipeline(FlowFeatures(), TabularDetector()).fit(table).score_samples(table)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("n", [0, 1])
def test_hardly_any_flows(table, n):
    features = FlowFeatures().fit(table).transform(table[:n])
    assert features.shape == (n, len(FlowFeatures().fit(table).columns_))
    kinds = FlowFeatures().fit(table).transform(table).dtypes
    assert features.dtypes.equals(kinds), "dtypes do not depend on the flows"


def test_dtypes_are_numbers_and_strings(table):
    assert set(map(str, FlowFeatures().fit_transform(table).dtypes)) == {"float64", "string"}


def test_deterministic_and_the_input_stays(table):
    before = table.copy(deep=True)
    one, other = FlowFeatures().fit_transform(table), FlowFeatures().fit(table).transform(table)
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    pd.testing.assert_frame_equal(table, before, check_exact=True)


def test_index_and_further_columns(table):
    labelled = table.assign(label="normal").set_axis(np.arange(len(table)) * 7 + 3)
    features = FlowFeatures().fit(labelled).transform(labelled)
    pd.testing.assert_index_equal(features.index, labelled.index)
    pd.testing.assert_frame_equal(features.reset_index(drop=True), FlowFeatures().fit_transform(table))
    repeated = table.set_axis(np.zeros(len(table), dtype=int))
    features = FlowFeatures().fit_transform(repeated)
    pd.testing.assert_frame_equal(features.reset_index(drop=True), FlowFeatures().fit_transform(table))


def test_a_stream_can_be_stored_between_chunks(table):
    features = FlowFeatures().fit(table)
    stream = features.stream()
    stream.update(table[:100])
    resumed = pickle.loads(pickle.dumps(stream)).update(table[100:])
    pd.testing.assert_frame_equal(resumed, features.transform(table)[100:], check_exact=True)


def test_clone_and_unfitted():
    features = FlowFeatures(windows=(5, 50), inside=["10.0.0.0/8"], max_flows=10)
    assert clone(features).get_params() == features.get_params()
    for call in (features.stream, features.get_feature_names_out, lambda: features.transform(flows())):
        with pytest.raises(NotFittedError):
            call()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"windows": ()}, "windows"), ({"windows": (0,)}, "windows"), ({"windows": (10, 10.0)}, "windows"),
        ({"windows": (np.nan,)}, "windows"), ({"inside": ["10.0.0.1/8"]}, "inside"), ({"inside": ["lan"]}, "inside"),
        ({"inside": 5}, "inside"),
        ({"max_flows": 0}, "max_flows"), ({"max_flows": 1.5}, "max_flows"),
    ],
)  # fmt: skip
def test_impossible_parameters_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        FlowFeatures(**options).fit(flows())


def test_other_tables_are_refused():
    with pytest.raises(ValueError, match=r"no flow table.*bytes_out"):
        FlowFeatures().fit(flows().drop(columns="bytes_out"))
    with pytest.raises(ValueError, match="no flow table"):
        FlowFeatures().fit(np.zeros((3, 13)))
    for name, wrong in {
        "start": flows()["start"].astype(str),
        "duration": pd.to_timedelta(flows()["duration"], unit="s"),
        "bytes_in": flows()["bytes_in"].astype(object),
    }.items():
        with pytest.raises(ValueError, match=f"{name} holds"):
            FlowFeatures().fit(flows().assign(**{name: wrong}))
    with pytest.raises(ValueError, match="start is missing"):
        FlowFeatures().fit(flows().assign(start=lambda t: t["start"].mask(t["start"].notna())))
