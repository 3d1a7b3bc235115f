"""From a log to explained alerts and incidents, in one go and following a log that grows and breaks."""

import dataclasses
import gzip
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from diffad.cli import app
from diffad.datasets import load_traffic
from diffad.flows import load_flows, read_flows
from diffad.flows.alerts import FlowModel, Limits
from diffad.flows.ecs import ecs_lines
from diffad.flows.follow import Follower
from diffad.flows.incidents import Incidents, incidents
from diffad.flows.reasons import why
from diffad.flows.rotation import rotated_names
from diffad.flows.thinning import Latest, Thinned

HEADER = (
    "#separator \\x09\n#path\tconn\n"
    "#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tservice\tduration\torig_bytes\tresp_bytes"
    "\tconn_state\torig_pkts\tresp_pkts\n"
)
SCANNER, THIEF = "10.0.0.66", "10.0.0.7"


def line(ts, source, destination, port, service="http", duration=0.1, out=500, back=4000, state="SF", packets=8):
    fields = (f"{ts:.6f}", "C1", source, 40000, destination, port, "tcp", service, f"{duration:.6f}", out, back)
    return "\t".join(map(str, (*fields, state, packets, packets))) + "\n"


def normal(n, seed=0, start=1_000_000.0):
    rng = np.random.default_rng(seed)
    ts = start + np.cumsum(rng.exponential(2.0, n))
    lines = []
    for t in ts:
        source, web = f"10.0.0.{rng.integers(1, 9)}", rng.random() < 0.7
        size = rng.lognormal(0, 0.4)
        if web:
            lines.append(
                line(t, source, "10.0.1.1", 80, duration=0.1 * size, out=int(500 * size), back=int(4e4 * size))
            )
        else:
            lines.append(
                line(t, source, "10.0.1.2", 53, "dns", 0.01 * size, int(60 * size), int(120 * size), packets=1)
            )
    return lines


def attacks(start):
    scan = [line(start + 0.01 * k, SCANNER, "10.0.1.1", 1 + k, "-", 0.0, 0, 0, "REJ", 1) for k in range(1000)]
    theft = [line(start + 60, THIEF, "203.0.113.9", 80, "http", 30.0, 48_000_000, 3000, packets=40_000)]
    return scan + theft


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("flows")
    (where / "good.log").write_text(HEADER + "".join(normal(4000)))
    start = 1_100_000.0
    (where / "new.log").write_text(HEADER + "".join(normal(600, 1, start) + attacks(start + 2000)))
    model = FlowModel.fit(load_flows(where / "good.log"))
    model.save(where / "traffic.model")
    return where


@pytest.fixture(scope="module")
def model(folder):
    return FlowModel.load(folder / "traffic.model")


@pytest.fixture(scope="module")
def alerts(folder, model):
    flows = load_flows(folder / "new.log")
    return Incidents().assign(model.alerts(flows, model.watch(), model.limits(20)))


def test_attacks_are_found_and_normal_traffic_is_left_alone(alerts):
    sources = alerts["source"].value_counts()
    assert sources[SCANNER] > 900
    assert (alerts["bytes_out"] == 48_000_000).sum() == 1
    assert len(alerts) - sources[SCANNER] <= 10


def test_a_scan_of_a_thousand_ports_is_one_incident(alerts):
    scan = incidents(alerts).set_index("source").loc[[SCANNER]]
    assert len(scan) == 1
    assert scan["ports"].iloc[0] > 900


def test_reasons_are_in_the_units_of_the_log(alerts):
    theft = alerts[alerts["bytes_out"] == 48_000_000].iloc[0]
    reasons = {r["feature"]: r for r in theft["reasons"]}
    assert any("48 MB" in r["text"] or "30 s" in r["text"] or "packets" in r["text"] for r in theft["reasons"])
    for reason in reasons.values():
        if reason["lower"] is not None:
            assert reason["lower"] <= reason["expected"] <= reason["upper"]


def test_json_lines_have_the_names_of_ecs(alerts):
    lines = [json.loads(text) for text in ecs_lines(alerts)]
    assert len(lines) == len(alerts)
    theft = next(x for x in lines if x["source"].get("bytes") == 48_000_000)
    assert theft["@timestamp"].startswith("1970-01-13")
    there = {"address": "203.0.113.9", "ip": "203.0.113.9", "port": 80, "bytes": 3000.0, "packets": 40000.0}
    assert theft["destination"] == there
    assert theft["network"] == {"transport": "tcp", "protocol": "http"}
    assert theft["event"]["kind"] == "alert" and theft["event"]["duration"] == 30_000_000_000


def test_risk_scores_rank_alerts_as_severities_do(alerts):
    lines = [json.loads(text) for text in ecs_lines(alerts)]
    assert [line["event"]["risk_score"] for line in lines] == alerts["severity"].tolist()
    assert [line["diffad"]["score"] for line in lines] == alerts["score"].tolist()


def test_every_field_of_the_json_lines_has_one_type(alerts):
    """A database takes the type of a field from the first line that it meets."""
    found = {}

    def walk(value, path):
        if isinstance(value, dict):
            for key, part in value.items():
                walk(part, f"{path}.{key}")
        elif isinstance(value, list):
            for part in value:
                walk(part, path)
        else:
            found.setdefault(path, set()).add(str if isinstance(value, str) else float)

    category = {"feature": "service", "value": "dns", "expected": "http", "text": "dns instead of http"}
    with_both = alerts.assign(reasons=[[*reasons, category] for reasons in alerts["reasons"]])
    for text in ecs_lines(with_both):
        walk(json.loads(text), "")
    assert {".diffad.reasons.value", ".diffad.reasons.value_text", ".ecs.version"} <= set(found)
    assert {path for path, types in found.items() if len(types) > 1} == set()


def test_the_zone_of_an_address_is_no_part_of_its_ip(alerts):
    (line,) = ecs_lines(alerts.head(1).assign(source="fe80::1%eth0"))
    assert json.loads(line)["source"]["ip"] == "fe80::1"


def test_a_pseudonym_is_an_address_and_no_ip(alerts):
    named = alerts.head(1).assign(source="host-18")
    assert json.loads(ecs_lines(named)[0])["source"]["address"] == "host-18"
    assert "ip" not in json.loads(ecs_lines(named)[0])["source"]


@pytest.mark.parametrize("name", ["new.log", "m"])
def test_no_output_replaces_what_is_read(folder, model, tmp_path, name):
    model.save(tmp_path / "m")
    (tmp_path / "new.log").write_text((folder / "new.log").read_text())
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    model_of = ["--model", str(tmp_path / "m"), "-o", str(tmp_path / name)]
    for command in (
        ["score", str(tmp_path / "new.log"), *model_of],
        ["score", "--follow", str(tmp_path / "new.log"), *model_of],
    ):
        done = CliRunner().invoke(app, ["flows", *command])
        assert done.exit_code == 1 and "replace" in done.output
    done = CliRunner().invoke(app, ["flows", "fit", str(tmp_path / "new.log"), "-o", str(tmp_path / "new.log")])
    assert done.exit_code == 1 and "replace" in done.output
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_flows_without_ports_or_state_are_explained(folder, model):
    ping = "1100001.0 C1 10.0.0.3 - 203.0.113.5 - icmp - 500.0 90000000 0 - 800000 0".replace(" ", "\t") + "\n"
    (folder / "ping.log").write_text(HEADER + "".join(normal(50, 2, 1_100_000.0)) + ping)
    flows = load_flows(folder / "ping.log")
    found = model.alerts(flows, model.watch(), model.limits(20))
    assert (found["protocol"] == "icmp").sum() == 1
    assert json.loads(ecs_lines(Incidents().assign(found))[-1])["network"]["transport"] == "icmp"


def test_flows_without_addresses_are_judged_by_themselves(folder):
    good, new = (load_flows(folder / name).assign(source=None, destination=None) for name in ("good.log", "new.log"))
    model = FlowModel.fit(good)
    found = model.alerts(new, model.watch(), model.limits(20))
    assert (found["bytes_out"] == 48_000_000).any() and np.isfinite(found["severity"]).all()
    assert len(ecs_lines(Incidents().assign(found))) == len(found)


def test_a_strange_flow_among_equal_ones_has_a_finite_severity(tmp_path):
    same = "".join(line(1_000_000.0 + 60 * k, "10.0.0.1", "10.0.1.1", 80) for k in range(600))
    (tmp_path / "good.log").write_text(HEADER + same)
    (tmp_path / "new.log").write_text(HEADER + same + line(1_036_000.0, "10.0.0.1", "10.0.1.1", 443, "ssl", 3.0, 9000))
    model = FlowModel.fit(load_flows(tmp_path / "good.log"))
    found = model.alerts(load_flows(tmp_path / "new.log"), model.watch(), model.limits(20))
    assert found["destination_port"].tolist() == [443] and np.isfinite(found["severity"]).all()
    assert len(ecs_lines(Incidents().assign(found))) == 1


def test_no_flows_are_no_alerts(folder, model):
    nothing = load_flows(folder / "new.log").head(0)
    assert list(model.alerts(nothing, model.watch(), Limits(1.0, 1.0, 1.0))["reasons"]) == []


def test_a_short_log_makes_a_model_without_its_long_windows(tmp_path):
    (tmp_path / "short.log").write_text(HEADER + "".join(normal(250)))
    flows = load_flows(tmp_path / "short.log")
    with pytest.warns(UserWarning, match="log_connections_600s"):
        model = FlowModel.fit(flows)
    assert not any(name.endswith("600s") for name in model.features.columns_)
    assert len(model.alerts(flows, model.watch(), model.limits(50))) < 25


def test_a_log_in_chunks_makes_the_same_model(folder, model):
    chunked = FlowModel.fit(read_flows(folder / "good.log", chunk_rows=700))
    assert (chunked.n_flows, chunked.flows_per_day) == (4000, model.flows_per_day)
    assert chunked.limits(20) == model.limits(20)
    flows = load_flows(folder / "new.log")
    pd.testing.assert_frame_equal(
        chunked.alerts(flows, chunked.watch(), Limits(2.0, 2.0, 2.0)),
        model.alerts(flows, model.watch(), Limits(2.0, 2.0, 2.0)),
        check_exact=True,
    )


def test_of_a_log_larger_than_memory_evenly_spread_flows_are_learnt_from(folder, model, monkeypatch):
    monkeypatch.setattr("diffad.flows.alerts.MOST", 1500)
    thinned = FlowModel.fit(read_flows(folder / "good.log", chunk_rows=700))
    assert thinned.n_flows == 4000
    assert thinned.flows_per_day == pytest.approx(model.flows_per_day, rel=0.02)
    # About every fourth flow; what its source did lately is counted among all.
    assert 200 < len(thinned.detector.normal_.scores) < 300
    flows = load_flows(folder / "new.log")
    found = thinned.alerts(flows, thinned.watch(), thinned.limits(20))
    assert {SCANNER, THIEF} <= set(found["source"])


def test_limits_of_a_thinned_log_hold_what_they_promise(monkeypatch):
    """What one source does in a row is not what every sixteenth flow shows."""
    flows, _ = load_traffic()
    normal = flows[: int(flows["label"].notna().to_numpy().argmax())].drop(columns=["label", "attack_id"])
    cut = 3 * len(normal) // 4
    monkeypatch.setattr("diffad.flows.alerts.MOST", cut // 6)
    monkeypatch.setattr("diffad.flows.alerts.LATEST", cut // 4)
    model = FlowModel.fit(normal[:cut])
    later, watch = normal[cut:], model.watch()
    score = -model.detector.score_samples(watch.update(later))
    for who, lasting in watch.lasting.items():
        of = later["source"] if who == "source" else later["source"] + " " + later["destination"]
        limit = model.lasting[who].quantile(0.005)
        assert (lasting.update(of, score) > limit).mean() < 2 * 0.005


def test_limits_hold_once_means_had_time_to_spread(folder):
    """Most pairs of hosts have few flows in the part of a log that sets limits: their means have hardly left the usual."""
    (folder / "pairs.log").write_text(HEADER + "".join(normal(12_000, 3)))
    flows = load_flows(folder / "pairs.log")
    hosts = np.random.default_rng(0).integers(0, 20, len(flows))
    flows["destination"] = pd.array([f"10.9.0.{i}" for i in hosts], "string")
    model = FlowModel.fit(flows[:4000])
    watch = model.watch()
    score = -model.detector.score_samples(watch.update(flows))
    means = watch.lasting["pair"].update(flows["source"] + " " + flows["destination"], score)
    assert (means[4000:] > model.lasting["pair"].quantile(0.01)).mean() < 0.05


@pytest.mark.parametrize("size", [1, 7, 100, 250])
def test_the_latest_rows_are_kept_however_they_come(size):
    latest = Latest(most=100)
    for start in range(0, 250, size):
        latest.add(pd.DataFrame({"x": np.arange(start, min(start + size, 250))}))
    assert latest.table()["x"].tolist() == list(range(150, 250))
    assert sum(map(len, latest._parts)) < 100 + size


@pytest.mark.parametrize("period", [2, 4, 10])
def test_records_that_take_turns_are_thinned_alike(period):
    thinned = Thinned(most=5_000)
    for start in range(0, 100_000, 1_000):
        thinned.add(pd.DataFrame({"turn": np.arange(start, start + 1_000) % period}))
    kept = thinned.table()
    assert 2_500 <= len(kept) <= 5_000
    assert kept.index.is_monotonic_increasing
    assert kept["turn"].value_counts(normalize=True).to_numpy() == pytest.approx(1 / period, rel=0.25)
    assert kept.index.to_numpy().mean() == pytest.approx(50_000, rel=0.05)


def test_how_rows_come_does_not_change_which_are_kept():
    rows = pd.DataFrame({"x": np.arange(3_000)})
    tables = []
    for size in (7, 1_000, 3_000):
        thinned = Thinned(most=500)
        for start in range(0, len(rows), size):
            thinned.add(rows.iloc[start : start + size])
        tables.append(thinned.table())
    pd.testing.assert_frame_equal(tables[0], tables[1])
    pd.testing.assert_frame_equal(tables[0], tables[2])


def test_a_log_that_looks_strange_as_a_whole_is_doubted(folder, model):
    flows = load_flows(folder / "good.log").assign(state="...AP.SF", service=pd.NA)
    with pytest.warns(UserWarning, match="4000 of 4000 flows are alerts"):
        model.alerts(flows, model.watch(), model.limits(20))


def test_a_wrong_clock_does_not_take_an_incident_with_it(folder, model):
    flows = load_flows(folder / "new.log").iloc[:4].copy()
    flows["source"] = SCANNER
    noon = pd.Timestamp("2024-01-01 12:00", tz="UTC")
    flows["start"] = [
        noon,
        pd.Timestamp("1970-01-01", tz="UTC"),
        noon + pd.Timedelta("1min"),
        noon + pd.Timedelta("2min"),
    ]
    named = Incidents().assign(flows)["incident"].tolist()
    assert named[0] == named[2] == named[3] != named[1]


def test_reasons_lie_outside_what_is_normal(folder, model):
    flows = load_flows(folder / "new.log")
    found = model.alerts(flows, model.watch(), model.limits(20))
    for reason in (reason for reasons in found["reasons"] for reason in reasons):
        assert reason["value"] is not None or reason["feature"] == "combination", reason
        if not isinstance(reason["value"], str | None) and reason["lower"] is not None:
            assert not reason["lower"] < reason["value"] < reason["upper"], reason


def test_a_source_just_above_its_limit_is_written_so(model):
    assert model._lasting("source", 1.76349, 1.76301)["text"].endswith("1.7635, normal below 1.763")


def test_an_hour_without_traffic_has_the_columns_of_any_other(folder, tmp_path):
    (tmp_path / "empty.log").write_text(HEADER)
    for log in (tmp_path / "empty.log", folder / "good.log"):
        told = ["flows", "score", str(log), "--model", str(folder / "traffic.model"), "-o", str(tmp_path / "a.csv")]
        assert CliRunner().invoke(app, [*told, "--alerts-per-day", "0.001"]).exit_code == 0
        columns = pd.read_csv(tmp_path / "a.csv").columns.tolist()
        assert {"start", "source", "score", "p_value", "reasons", "incident"} <= set(columns)


@pytest.mark.parametrize("clock", [0.0, 4_200_000_000.0])
def test_one_wrong_clock_does_not_stretch_a_log(tmp_path, clock):
    wrong = line(clock, "10.0.0.2", "10.0.1.1", 80)
    lines = normal(1000)
    (tmp_path / "good.log").write_text(HEADER + "".join([*lines[:500], wrong, *lines[500:]]))
    model = FlowModel.fit(load_flows(tmp_path / "good.log"))
    assert model.flows_per_day == pytest.approx(43_200, rel=0.2)


def test_a_connection_older_than_the_log_does_not_make_its_past_known(folder, model):
    old = line(1_100_000.0 - 5000, "10.0.0.2", "10.0.1.1", 80, duration=5001.0)
    (folder / "old.log").write_text(HEADER + old + "".join(normal(100, 2, 1_100_001.0)))
    flows = load_flows(folder / "old.log")
    watch = model.watch()
    at_once = watch.update(flows)
    young = (flows["start"] - flows["start"].iloc[1]).dt.total_seconds() < 600
    assert at_once["log_connections_600s"].notna().equals(~young)
    one = model.watch()
    in_pieces = pd.concat([one.update(flows.iloc[k : k + 7]) for k in range(0, len(flows), 7)])
    pd.testing.assert_frame_equal(in_pieces, at_once)


def test_more_alerts_a_day_are_a_lower_threshold(model):
    few, some, many = (model.limits(n) for n in (1, 20, 500))
    assert few.flow > some.flow > many.flow
    assert few.source > some.source > many.source
    assert few.pair > some.pair > many.pair
    with pytest.raises(ValueError, match="alerts_per_day"):
        model.limits(0)
    with pytest.raises(ValueError, match="alerts_per_day"):
        model.limits(1e9)


def test_command_line_fits_and_scores(folder, tmp_path):
    run, out = CliRunner(), tmp_path / "alerts.csv"
    done = run.invoke(app, ["flows", "fit", str(folder / "good.log"), "-o", str(tmp_path / "m")])
    assert done.exit_code == 0 and "4000 flows" in done.output
    done = run.invoke(app, ["flows", "score", str(folder / "new.log"), "--model", str(tmp_path / "m"), "-o", str(out)])
    assert done.exit_code == 0 and SCANNER in done.output
    assert (pd.read_csv(out)["source"] == SCANNER).sum() > 900


@pytest.mark.parametrize("content", [b"", b"no model", None])
def test_a_broken_model_is_an_error_and_no_traceback(folder, tmp_path, content):
    path = tmp_path / "m"
    if content is not None:
        path.write_bytes(content)
    done = CliRunner().invoke(app, ["flows", "score", str(folder / "new.log"), "--model", str(path)])
    assert done.exit_code == 1 and "model" in done.output


def test_networks_of_ones_own_are_inside_beside_the_private_ones(folder, tmp_path):
    fit = ["flows", "fit", str(folder / "good.log"), "-o", str(tmp_path / "m"), "--local"]
    done = CliRunner().invoke(app, [*fit, "203.0.113.0/24", "--local", "2001:db8::/32"])
    assert done.exit_code == 0, done.output
    flows = load_flows(folder / "new.log").iloc[[0, -1]]  # the last goes to 203.0.113.9
    assert FlowModel.load(tmp_path / "m").watch().update(flows)["direction"].tolist() == ["internal", "internal"]
    done = CliRunner().invoke(app, [*fit, "203.0.113.0-255"])
    assert done.exit_code == 1 and "--local must hold networks such as" in " ".join(done.output.split())


def test_what_is_wrong_is_said_by_the_names_of_the_command_line(folder, tmp_path):
    (tmp_path / "few.log").write_text(HEADER + "".join(normal(50)))
    score = ["score", str(folder / "new.log"), "--model", str(folder / "traffic.model")]
    fit = ["fit", "-o", str(tmp_path / "m")]
    for command, words in (
        ([*score, "--alerts-per-day", "0"], "--alerts-per-day must lie between"),
        ([*score, "--timezone", "Mars"], "--timezone must be"),
        ([*score, "--format", "netflow"], "--format must be"),
        ([*fit, str(folder / "good.log"), "--contamination", "0.9"], "--contamination must lie"),
        ([*fit, str(tmp_path / "few.log")], f"{tmp_path / 'few.log'}: 50 flows; a model of normal traffic takes"),
    ):
        done = CliRunner().invoke(app, ["flows", *command])
        assert done.exit_code == 1 and f"error: {words}" in " ".join(done.output.split()), done.output


def test_too_few_flows_are_refused(folder):
    with pytest.raises(ValueError, match="at least 200"):
        FlowModel.fit(load_flows(folder / "good.log").head(50))


def expected_lines(model, path):
    flows = load_flows(path)
    found = Incidents().assign(model.alerts(flows, model.watch(), model.limits(20)))
    return ecs_lines(found)


@pytest.fixture(scope="module")
def expected(folder, model):
    """Return the alerts of the whole new log, read at once."""
    return expected_lines(model, folder / "new.log")


def same(found, expected):
    """Equal alerts; scores of other batches round differently."""
    found, expected = ([json.loads(text) for text in lines] for lines in (found, expected))
    key = [(x["@timestamp"], x["source"], x["destination"], x["diffad"]["incident"]) for x in found]
    assert key == [(x["@timestamp"], x["source"], x["destination"], x["diffad"]["incident"]) for x in expected]
    scores = [[x["event"]["risk_score"] for x in lines] for lines in (found, expected)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-3)


def follower(model, where, format="zeek"):
    return Follower(where / "conn.log", model, where / "out.jsonl", model.limits(20), format, where / "state")


def catch_up(watch):
    """Judge all that is there."""
    while watch.step():
        pass


def test_following_equals_reading_at_once_across_restarts_and_rotation(folder, model, expected, tmp_path):
    log, new = tmp_path / "conn.log", (folder / "new.log").read_text()
    turn = new.index("\n", len(new) // 2) + 1
    watch = follower(model, tmp_path)
    for part in (new[:turn], HEADER + new[turn:]):
        if log.exists():
            log.rename(tmp_path / "conn.log.1")
        for k, piece in enumerate(np.array_split(np.array(list(part)), 6)):  # cut in the middle of lines
            with log.open("a") as file:
                file.write("".join(piece))
            # Another process every second time; the last sees the rotation only after a restart.
            watch = follower(model, tmp_path) if k % 2 == 0 else watch
            while k < 5 and watch.step():
                pass
    catch_up(watch)
    same((tmp_path / "out.jsonl").read_text().splitlines(), expected)


@pytest.mark.parametrize("running", [True, False])
def test_a_log_rotated_twice_between_two_looks_is_read_whole(folder, model, expected, tmp_path, running):
    lines = (folder / "new.log").read_text()[len(HEADER) :].splitlines(keepends=True)
    log, third = tmp_path / "conn.log", len(lines) // 3
    log.write_text(HEADER + "".join(lines[:third]))
    watch = follower(model, tmp_path)
    catch_up(watch)
    log.rename(tmp_path / "conn.log.2")
    for name, part in (("conn.log.1", lines[third : 2 * third]), ("conn.log", lines[2 * third :])):
        time.sleep(0.02)  # file systems count time in steps
        (tmp_path / name).write_text(HEADER + "".join(part))
    watch = watch if running else follower(model, tmp_path)
    catch_up(watch)
    same((tmp_path / "out.jsonl").read_text().splitlines(), expected)


def test_a_log_rotated_last_is_read_though_no_other_has_begun(folder, model, expected, tmp_path):
    lines = (folder / "new.log").read_text()[len(HEADER) :].splitlines(keepends=True)
    log, half = tmp_path / "conn.log", len(lines) // 2
    log.write_text(HEADER + "".join(lines[:half]))
    watch = follower(model, tmp_path)
    catch_up(watch)
    log.rename(tmp_path / "conn.log.2")
    time.sleep(0.02)
    (tmp_path / "conn.log.1").write_text(HEADER + "".join(lines[half:]))
    catch_up(watch)
    same((tmp_path / "out.jsonl").read_text().splitlines(), expected)


@pytest.mark.parametrize("running", [True, False])
def test_what_is_written_to_a_rotated_log_before_the_next_begins_is_read(folder, model, expected, tmp_path, running):
    new = (folder / "new.log").read_text()
    log, old, third = tmp_path / "conn.log", tmp_path / "conn.log.1", len(new) // 3
    turn = new.index("\n", 2 * third) + 1
    log.write_text(new[:third])
    watch = follower(model, tmp_path)
    catch_up(watch)
    log.rename(old)
    log.touch()  # by logrotate; the writer still has the old one
    for piece in (new[third : third + 500], new[third + 500 : turn - 1]):  # cut in the middle of lines
        watch = watch if running else follower(model, tmp_path)
        catch_up(watch)
        with old.open("a") as file:
            file.write(piece)
    watch = watch if running else follower(model, tmp_path)
    catch_up(watch)
    with old.open("a") as file:
        file.write(new[turn - 1])
    log.write_text(HEADER + new[turn:])
    catch_up(watch)
    same((tmp_path / "out.jsonl").read_text().splitlines(), expected)


def test_a_log_that_is_renamed_while_it_is_looked_for_is_followed(folder, model, tmp_path, monkeypatch):
    log = tmp_path / "conn.log"
    log.write_text((folder / "new.log").read_text())
    watch = follower(model, tmp_path)
    catch_up(watch)
    is_file = Path.is_file

    def renamed_after(path):
        found = is_file(path)
        if path == log and found:
            log.rename(tmp_path / "conn.log.1")
        return found

    monkeypatch.setattr(Path, "is_file", renamed_after)
    monkeypatch.setattr(Path, "exists", renamed_after)
    assert watch.step() == 0


def test_a_last_line_without_an_end_is_whole_once_the_next_log_begins(folder, model, expected, tmp_path):
    log, lines = tmp_path / "conn.log", (folder / "new.log").read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:500]).removesuffix("\n"))
    watch = follower(model, tmp_path)
    assert watch.step() == 499
    log.rename(tmp_path / "conn.log.1")
    log.touch()
    assert watch.step() == 0
    log.write_text(HEADER + "".join(lines[500:]))
    assert watch.step() == 1
    catch_up(watch)
    same((tmp_path / "out.jsonl").read_text().splitlines(), expected)


def test_a_last_line_that_is_too_long_and_has_no_end_is_left_out(folder, model, expected, tmp_path, monkeypatch):
    monkeypatch.setattr("diffad.flows.follow.BATCH_BYTES", 8192)
    log, lines = tmp_path / "conn.log", (folder / "new.log").read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:500]) + "x" * 10_000)
    watch = follower(model, tmp_path)
    catch_up(watch)
    log.rename(tmp_path / "conn.log.1")
    log.write_text(HEADER + "".join(lines[500:]))
    with pytest.warns(UserWarning, match="left out a line of 10000 bytes"):
        catch_up(watch)
    same((tmp_path / "out.jsonl").read_text().splitlines(), expected)


@pytest.mark.parametrize(
    ("log", "rotated", "others"),
    [
        (
            "conn.log",
            "conn.log.1 conn.log.2.gz conn.log-20260131 conn.log.2026-01-31-00 conn.2026-01-31-00-00-00.log "
            "conn.00:00:00-01:00:00.log conn-20260131.log conn_2026-01-31T10:00:00Z.log.gz conn.1.log",
            "conn.log conn_dmz.log conn-dmz.log conn.dmz.log conn.log.dmz conn_dmz.log.1 conn_dmz-20260131.log "
            "connections.log conn2.log conn.log.1.alerts.jsonl conn.log.alerts.jsonl conn.log1 conn.json my-conn.log.1",
        ),
        ("eve.json", "eve.json.1 eve-2026-01-31-10:00.json", "eve-dns.json eve-dns.json.1 eve.json.state"),
        ("conn", "conn.1 conn-20260131", "conn_dmz conn.dmz.1 connection.1"),
    ],
)
def test_rotated_logs_are_known_by_their_names(log, rotated, others):
    names = rotated_names(Path(log))
    assert [name for name in (rotated + " " + others).split() if names.fullmatch(name)] == rotated.split()


@pytest.mark.parametrize("other", ["conn_dmz.log", "conn-dmz.log", "conn.dmz.log.1"])
def test_a_log_of_another_sensor_is_not_read_after_a_rotation(folder, model, expected, tmp_path, other):
    log, lines = tmp_path / "conn.log", (folder / "new.log").read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:500]))
    watch = follower(model, tmp_path)
    catch_up(watch)
    log.rename(tmp_path / "conn.log.1")
    time.sleep(0.02)  # file systems count time in steps
    (tmp_path / other).write_text(HEADER + "".join(attacks(1_100_000.0)))
    time.sleep(0.02)
    log.write_text(HEADER + "".join(lines[500:]))
    catch_up(watch)
    same((tmp_path / "out.jsonl").read_text().splitlines(), expected)


def test_a_first_batch_that_was_broken_off_is_not_repeated(folder, model, expected, tmp_path, monkeypatch):
    (tmp_path / "conn.log").write_text((folder / "new.log").read_text())
    (tmp_path / "out.jsonl").write_text('{"kept": true}\n')
    watch = follower(model, tmp_path)

    def full() -> None:
        raise OSError("no space left")

    monkeypatch.setattr(watch, "_save", full)
    with pytest.raises(OSError, match="no space"):
        catch_up(watch)
    with (tmp_path / "out.jsonl").open("a") as file:
        file.write('{"half of')
    catch_up(follower(model, tmp_path))
    kept, *found = (tmp_path / "out.jsonl").read_text().splitlines()
    assert kept == '{"kept": true}'
    same(found, expected)


def test_a_log_that_was_packed_before_it_was_read_is_named(folder, model, tmp_path):
    log, lines = tmp_path / "conn.log", (folder / "new.log").read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:500]))
    watch = follower(model, tmp_path)
    catch_up(watch)
    log.rename(tmp_path / "conn.log.2")
    time.sleep(0.02)
    with gzip.open(tmp_path / "conn.log.1.gz", "wt") as file:
        file.write(HEADER + "".join(lines[500:700]))
    time.sleep(0.02)
    log.touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing to say as long as the old log may grow
        catch_up(watch)
    log.write_text(HEADER + "".join(lines[700:]))
    with pytest.warns(UserWarning, match=r"conn\.log\.1\.gz was packed before it was read"):
        catch_up(watch)
    kept = "".join(lines[:500] + lines[700:])
    (tmp_path / "kept.log").write_text(kept)
    same((tmp_path / "out.jsonl").read_text().splitlines(), expected_lines(model, tmp_path / "kept.log"))


def test_a_line_longer_than_a_batch_is_left_out_and_the_rest_read(folder, model, expected, tmp_path, monkeypatch):
    monkeypatch.setattr("diffad.flows.follow.BATCH_BYTES", 8192)
    log, lines = tmp_path / "conn.log", (folder / "new.log").read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:500]) + "x" * 10_000)
    watch = follower(model, tmp_path)
    catch_up(watch)
    with log.open("a") as file:
        file.write("x" * 10_000 + "\n" + "".join(lines[500:]))
    with pytest.warns(UserWarning, match="left out a line of 20001 bytes"):
        catch_up(watch)
    same((tmp_path / "out.jsonl").read_text().splitlines(), expected)


def test_another_file_in_the_place_of_the_log_is_read_from_its_beginning(folder, model, tmp_path):
    log, lines = tmp_path / "conn.log", (folder / "new.log").read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:500]))
    watch = follower(model, tmp_path)
    catch_up(watch)
    with log.open("r+") as file:  # the same inode, other and more content
        file.write(HEADER + "".join(lines[-800:]))
    with pytest.warns(UserWarning, match="another one"):
        assert watch.step() == HEADER.count("\n") + 800


def test_the_format_of_a_log_shows_with_its_first_line(folder, model, expected, tmp_path):
    log = tmp_path / "conn.log"
    log.write_text("")
    watch = Follower(log, model, tmp_path / "out", model.limits(20), "auto", tmp_path / "state")
    assert watch.step() == 0
    log.write_bytes(b"\xef\xbb\xbf" + (folder / "new.log").read_bytes())
    catch_up(watch)
    same((tmp_path / "out").read_text().splitlines(), expected)


@pytest.mark.parametrize("command", ["fit", "score"])
@pytest.mark.parametrize("place", ["nowhere/out", "."])
def test_a_place_that_cannot_be_written_to_is_refused_before_any_work(folder, tmp_path, monkeypatch, command, place):
    monkeypatch.setattr(FlowModel, "load", None)  # not even the model is read
    monkeypatch.setattr("diffad.flows.readers.load_flows", None)
    model = ["--model", str(folder / "traffic.model")] if command == "score" else []
    done = CliRunner().invoke(app, ["flows", command, str(folder / "new.log"), *model, "-o", str(tmp_path / place)])
    assert done.exit_code == 1 and "error:" in done.output and "folder" in done.output


@pytest.mark.parametrize("follow", [False, True])
def test_times_without_a_zone_are_of_the_zone_given(folder, model, tmp_path, follow):
    log, out = tmp_path / "nfdump.csv", tmp_path / "out.jsonl"
    log.write_text(
        "firstSeen,duration,proto,srcAddr,srcPort,dstAddr,dstPort,flags,packets,bytes,flows\n"
        "2024-06-23 12:34:56.535,1.550,6,10.1.1.5,56730,93.184.216.34,4444,...AP.SF,11000,67000000,1\n"
    )
    if follow:
        Follower(log, model, out, Limits(0.01, 0.01, 0.01), "auto", tmp_path / "state", "Europe/Berlin").step()
    else:
        options = ["--model", str(folder / "traffic.model"), "--timezone", "Europe/Berlin", "-o", str(out)]
        done = CliRunner().invoke(app, ["flows", "score", str(log), "--alerts-per-day", "2000", *options])
        assert done.exit_code == 0, done.output
    (alert,) = out.read_text().splitlines()
    assert json.loads(alert)["@timestamp"].startswith("2024-06-23T10:34:56.535")


def test_what_cannot_be_followed_is_refused(folder, model, tmp_path):
    log = tmp_path / "conn.log"
    log.write_bytes(b"\x1f\x8b rest")
    with pytest.raises(ValueError, match="compressed"):
        follower(model, tmp_path).step()
    command = ["flows", "score", str(folder / "new.log"), "--model", str(folder / "traffic.model"), "--follow"]
    done = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "out.csv")])
    assert done.exit_code == 1 and "JSON lines" in done.output
    log.write_text((folder / "new.log").read_text())
    follower(model, tmp_path).step()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"timezone": "Europe/Berlin"}, "belongs to timezone 'UTC', not 'Europe/Berlin'; give the timezone"),
        ({"format": "nfdump"}, "belongs to format 'zeek', not 'nfdump'"),
        ({"log": "other.log"}, "belongs to log '.*conn.log', not '.*other.log'"),
        ({"output": "other.jsonl"}, "belongs to output '.*out.jsonl', not '.*other.jsonl'"),
    ],
)
def test_a_restart_with_something_else_is_refused_by_name(folder, model, tmp_path, change, words):
    log, out = tmp_path / "conn.log", tmp_path / "out.jsonl"
    log.write_text((folder / "new.log").read_text())
    limits = model.limits(20)

    def start(log=log, output=out, format="auto", timezone="UTC"):
        return Follower(log, model, output, limits, format, tmp_path / "state", timezone)

    start().step()
    before = out.read_bytes()
    (tmp_path / "other.jsonl").write_bytes(before + b"of others")
    given = {"log": tmp_path / "other.log", "output": tmp_path / "other.jsonl"}
    with pytest.raises(ValueError, match=words):
        start(**{name: given.get(name, value) for name, value in change.items()})
    assert out.read_bytes() == before and (tmp_path / "other.jsonl").read_bytes().endswith(b"of others")
    start(format="zeek").step()  # what "auto" found
    start().step()


@pytest.mark.parametrize("part", ["state", "incidents"])
def test_a_state_of_another_version_is_refused(model, tmp_path, part):
    follower(model, tmp_path)
    state = pickle.loads((tmp_path / "state").read_bytes())
    vars(state.incidents if part == "incidents" else state).popitem()
    (tmp_path / "state").write_bytes(pickle.dumps(state))
    with pytest.raises(ValueError, match=r"state was written by another version of diffad; remove it"):
        follower(model, tmp_path)


def test_a_model_of_another_version_is_refused(model, tmp_path):
    model.save(tmp_path / "m")
    loaded = FlowModel.load(tmp_path / "m")
    assert loaded.digest == model.digest
    del loaded.__dict__["ranges"]
    loaded.save(tmp_path / "m")
    with pytest.raises(ValueError, match="m was made by another version of diffad; fit it anew"):
        FlowModel.load(tmp_path / "m")


@pytest.mark.slow
def test_a_killed_follower_loses_and_repeats_nothing(folder, expected, tmp_path):
    new = (folder / "new.log").read_text()
    log, out, state = tmp_path / "conn.log", tmp_path / "out.jsonl", tmp_path / "state"
    log.write_text(HEADER)
    command = [sys.executable, "-m", "diffad.cli", "flows", "score", str(log), "--model", str(folder / "traffic.model")]
    command += ["--format", "zeek", "--follow", "-o", str(out), "--state", str(state)]
    body = new[len(HEADER) :]
    rng = np.random.default_rng(0)
    position = 0
    while position < len(body):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        killed_at = time.monotonic() + 4 + 3 * rng.random()
        while time.monotonic() < killed_at:
            step = int(rng.integers(2000, 9000))
            with log.open("a") as file:
                file.write(body[position : position + step])
            position += step
            time.sleep(0.2)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    model = FlowModel.load(folder / "traffic.model")
    watch = Follower(log, model, out, model.limits(20), "zeek", state)
    catch_up(watch)
    same(out.read_text().splitlines(), expected)


def test_output_of_a_half_written_batch_is_cut_back(folder, model, tmp_path):
    log = tmp_path / "conn.log"
    log.write_text((folder / "new.log").read_text())
    watch = follower(model, tmp_path)
    catch_up(watch)
    whole = (tmp_path / "out.jsonl").read_bytes()
    with (tmp_path / "out.jsonl").open("ab") as file:
        file.write(b'{"half": ')
    again = follower(model, tmp_path)
    assert again.step() == 0
    assert (tmp_path / "out.jsonl").read_bytes() == whole


def test_another_model_goes_on_where_the_one_before_stopped(folder, model, tmp_path):
    log, new = tmp_path / "conn.log", (folder / "new.log").read_text()
    turn = new.index("\n", len(new) // 2) + 1
    log.write_text(new[:turn])
    catch_up(follower(model, tmp_path))
    before = (tmp_path / "out.jsonl").read_text()
    log.write_text(new)
    other = dataclasses.replace(model, lasting=model.lasting | {"pair": model.lasting["source"]})
    with pytest.warns(UserWarning, match="goes on with another model"):
        watch = follower(other, tmp_path)
    assert watch.state.watch.begin is None, "it has seen nothing yet"
    assert sum(iter(watch.step, 0)) == new[turn:].count("\n"), "no line twice"
    assert (tmp_path / "out.jsonl").read_text().startswith(before)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert follower(other, tmp_path).step() == 0, "it is known now"


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("lost", ["renamed", "removed", "cut"])
def test_alerts_go_on_in_a_new_file_where_theirs_is_gone(folder, model, expected, tmp_path, lost, restarted):
    log, out, new = tmp_path / "conn.log", tmp_path / "out.jsonl", (folder / "new.log").read_text()
    turn = new.index("\n", len(new) // 2) + 1
    log.write_text(new[:turn])
    watch = follower(model, tmp_path)
    catch_up(watch)
    before = out.read_text().splitlines()
    assert before
    if lost == "cut":
        out.write_text("")
    else:
        out.rename(tmp_path / "kept") if lost == "renamed" else out.unlink()
    log.write_text(new)
    watch = follower(model, tmp_path) if restarted else watch
    with pytest.warns(UserWarning, match="another file than before, or was cut"):
        catch_up(watch)
    same(before + out.read_text().splitlines(), expected)
    whole = out.read_bytes()
    with out.open("ab") as file:
        file.write(b'{"half": ')
    assert follower(model, tmp_path).step() == 0
    assert out.read_bytes() == whole


def test_a_file_that_got_the_inode_of_alerts_that_are_gone_is_left_alone(folder, model, tmp_path):
    (tmp_path / "conn.log").write_text((folder / "new.log").read_text())
    catch_up(follower(model, tmp_path))
    out, other = tmp_path / "out.jsonl", tmp_path / "letter.txt"
    out.rename(other)  # what a reused inode looks like
    other.write_bytes(other.read_bytes() + b"of another")
    before = other.read_bytes()
    assert follower(model, tmp_path).step() == 0
    assert other.read_bytes() == before


def test_a_large_state_is_not_written_for_every_line(folder, model, tmp_path, monkeypatch):
    log, lines = tmp_path / "conn.log", (folder / "new.log").read_text().splitlines(keepends=True)
    quiet = dataclasses.replace(model.limits(20), flow=np.inf, source=np.inf, pair=np.inf)
    watch = Follower(log, model, tmp_path / "out", quiet, "zeek", tmp_path / "state")
    saved = []
    honest = watch._save
    monkeypatch.setattr(watch, "_save", lambda: saved.append(honest()))
    monkeypatch.setattr("diffad.flows.follow.PAUSE", 1e9)
    for line in lines[:30]:
        with log.open("a") as file:
            file.write(line)
        watch.step()
    assert len(saved) == 2, "for the log and for the output, once"
    saved.clear()
    monkeypatch.setattr("diffad.flows.follow.PAUSE", 0)
    with log.open("a") as file:
        file.write(lines[30])
    watch.step()
    assert len(saved) == 1
    assert Follower(log, model, tmp_path / "out", quiet, "zeek", tmp_path / "state").step() == 0


@pytest.mark.parametrize("nth", range(1, 9))
@pytest.mark.parametrize("rotated", [False, True])
def test_a_crash_at_any_moment_of_writing_loses_and_repeats_nothing(
    folder, model, expected, tmp_path, monkeypatch, nth, rotated
):
    """The output may have been renamed before, and again before the restart."""
    log, out, new = tmp_path / "conn.log", tmp_path / "out.jsonl", (folder / "new.log").read_text()
    turn = new.index("\n", len(new) // 2) + 1
    log.write_text(new[:turn])
    catch_up(follower(model, tmp_path))
    parts = [tmp_path / "out.jsonl.2", tmp_path / "out.jsonl.1", out]
    if rotated:
        out.rename(parts[0])
    log.write_text(new)
    calls, honest = [], os.fsync

    def crashing(number):
        calls.append(number)
        if len(calls) == nth:
            raise SystemError("power is gone")
        honest(number)

    monkeypatch.setattr("diffad.flows.follow.os.fsync", crashing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        watch = follower(model, tmp_path)
        try:
            catch_up(watch)
        except SystemError:
            monkeypatch.setattr("diffad.flows.follow.os.fsync", honest)
            if rotated and out.exists():
                out.rename(parts[1])
            catch_up(follower(model, tmp_path))
    same([line for part in parts if part.exists() for line in part.read_text().splitlines()], expected)


def test_a_second_follower_is_refused_and_sigterm_is_a_stop(folder, tmp_path):
    log, out = tmp_path / "conn.log", tmp_path / "out.jsonl"
    log.write_text((folder / "new.log").read_text())
    command = [sys.executable, "-m", "diffad.cli", "flows", "score", str(log), "--model", str(folder / "traffic.model")]
    command += ["--follow", "-o", str(out)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert "following" in first.stdout.readline()
        second = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert second.returncode == 1 and "another process writes" in second.stderr + second.stdout
        first.send_signal(signal.SIGTERM)
        said, _ = first.communicate(timeout=30)
        assert first.returncode == 0 and "stopped" in said
    finally:
        first.kill()


def test_a_lost_state_is_said(folder, model, tmp_path):
    (tmp_path / "conn.log").write_text((folder / "new.log").read_text())
    catch_up(follower(model, tmp_path))
    (tmp_path / "state").write_bytes(b"x")
    with pytest.raises(ValueError, match="broken"):
        follower(model, tmp_path)


def test_a_log_that_is_cut_is_read_from_its_beginning(folder, model, tmp_path):
    log = tmp_path / "conn.log"
    lines = (folder / "new.log").read_text().splitlines(keepends=True)
    log.write_text("".join(lines))
    watch = follower(model, tmp_path)
    catch_up(watch)
    log.write_text(HEADER + lines[-1])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert watch.step() == HEADER.count("\n") + 1
    assert any("shorter or another" in str(w.message) for w in caught)


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("grown", [False, True])
def test_a_log_that_is_cut_in_place_goes_on_under_its_header(folder, model, expected, tmp_path, running, grown):
    log, lines = tmp_path / "conn.log", (folder / "new.log").read_text().splitlines(keepends=True)
    first, rest = (lines[:100], lines[100:]) if grown else (lines[:-100], lines[-100:])
    log.write_text("".join(first))
    watch = follower(model, tmp_path)
    catch_up(watch)
    os.truncate(log, 0)
    with log.open("a") as file:
        file.write("".join(rest))
    watch = watch if running else follower(model, tmp_path)
    with pytest.warns(UserWarning, match="lines not yet read are lost"):
        catch_up(watch)
    same((tmp_path / "out.jsonl").read_text().splitlines(), expected)


@pytest.mark.parametrize("batch", [20_000, 2**22])
def test_a_log_that_is_cut_under_its_writer_goes_on_behind_a_hole(
    folder, model, expected, tmp_path, monkeypatch, batch
):
    monkeypatch.setattr("diffad.flows.follow.BATCH_BYTES", batch)
    log, lines = tmp_path / "conn.log", (folder / "new.log").read_text().splitlines(keepends=True)
    with log.open("w") as file:
        file.write("".join(lines[:-100]))
        file.flush()
        watch = follower(model, tmp_path)
        catch_up(watch)
        os.truncate(log, 0)
        file.write("".join(lines[-100:]))
    assert log.read_bytes().startswith(bytes(2 * 20_000)), "the writer goes on where it was"
    with pytest.warns(UserWarning, match="lines not yet read are lost"):
        catch_up(watch)
    same((tmp_path / "out.jsonl").read_text().splitlines(), expected)


def test_a_log_that_begins_with_a_hole_tells_its_format(folder, model, expected, tmp_path):
    (tmp_path / "conn.log").write_bytes(bytes(100_000) + (folder / "new.log").read_bytes())
    catch_up(follower(model, tmp_path, "auto"))
    same((tmp_path / "out.jsonl").read_text().splitlines(), expected)


def test_lines_that_replace_zeros_later_are_not_lost(folder, model, expected, tmp_path):
    log, lines = tmp_path / "conn.log", (folder / "new.log").read_bytes().splitlines(keepends=True)
    first, rest = b"".join(lines[:-100]), b"".join(lines[-100:])
    log.write_bytes(first + bytes(len(rest)))
    watch = follower(model, tmp_path)
    catch_up(watch)
    log.write_bytes(first + rest)
    catch_up(watch)
    same((tmp_path / "out.jsonl").read_text().splitlines(), expected)


def test_a_header_that_comes_after_a_cut_replaces_the_one_before(folder, model, expected, tmp_path):
    log, lines = tmp_path / "conn.log", (folder / "new.log").read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:-100]))
    watch = follower(model, tmp_path)
    catch_up(watch)
    os.truncate(log, 0)
    head, _, fields = HEADER.rstrip("\n").rpartition("#fields\t")
    turned = ["\t".join(reversed(line.rstrip("\n").split("\t"))) + "\n" for line in lines[-100:]]
    with log.open("a") as file:
        file.write(head + "#fields\t" + "\t".join(reversed(fields.split("\t"))) + "\n" + "".join(turned))
    with pytest.warns(UserWarning, match="lines not yet read are lost"):
        catch_up(watch)
    same((tmp_path / "out.jsonl").read_text().splitlines(), expected)


def test_lines_without_a_header_are_told_of(folder, model, tmp_path):
    (tmp_path / "conn.log").write_text("".join(normal(50)))
    with pytest.warns(UserWarning, match=r"0 flows from 50 lines; left out: 50 x line without a header, e\.g\. '1000"):
        catch_up(follower(model, tmp_path))


def test_logs_are_learnt_from_once_and_in_the_order_of_time(folder, tmp_path):
    fit = ["flows", "fit", "-o", str(tmp_path / "m")]
    good, new = str(folder / "good.log"), str(folder / "new.log")
    assert CliRunner().invoke(app, [*fit, good, new]).exit_code == 0
    (tmp_path / "m").unlink()
    for logs, word in (([new, good], "order of time"), ([good, good], "named twice")):
        done = CliRunner().invoke(app, [*fit, *logs])
        assert done.exit_code == 1 and word in done.output
        assert not (tmp_path / "m").exists()


def test_a_state_without_following_is_refused(folder, tmp_path):
    done = CliRunner().invoke(app, ["flows", "fit", str(folder / "good.log"), "-o", str(tmp_path / "m")])
    command = [
        "flows",
        "score",
        str(folder / "new.log"),
        "--model",
        str(tmp_path / "m"),
        "--state",
        str(tmp_path / "s"),
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1 and "--follow" in done.output


def test_a_source_that_is_a_little_strange_for_long_is_an_incident(folder, model):
    """Transfers two thirds larger than usual, each of which is met now and then."""
    (folder / "slow.log").write_text(HEADER + "".join(normal(3000, 4, 1_190_000.0)))
    flows = load_flows(folder / "slow.log")
    slow = (flows["source"] == "10.0.0.3") & (flows.index > 1500)
    flows.loc[slow, ["duration", "bytes_out", "bytes_in"]] *= 1.6
    limits = model.limits(20)
    found = Incidents().assign(model.alerts(flows, model.watch(), limits))
    lasting = found[found["reasons"].map(lambda reasons: reasons[0]["feature"] == "source_strangeness")]
    by_source = lasting["source"].value_counts()
    assert by_source.index[0] == "10.0.0.3"
    assert by_source.iloc[0] > 0.7 * len(lasting)
    assert (lasting["severity"] >= 1).all()
    assert "strangeness of this source's latest flows" in why(lasting["reasons"].iloc[0])
    assert json.loads(ecs_lines(lasting)[0])["diffad"]["reasons"][0]["upper"] == pytest.approx(limits.source)
    alone = -model.detector.score_samples(model.watch().update(flows)) > limits.flow
    assert len(lasting) > 2 * alone[slow].sum(), "most of these flows are meant to be hardly strange by themselves"


def test_a_host_that_is_a_little_strange_to_another_for_long_is_told_with_that_other(folder, model):
    """Transfers two thirds larger to one of the two servers that a host speaks to."""
    (folder / "pair.log").write_text(HEADER + "".join(normal(6000, 6, 1_190_000.0)))
    flows = load_flows(folder / "pair.log")
    slow = (flows["source"] == "10.0.0.3") & (flows["destination"] == "10.0.1.1") & (flows.index > 1500)
    flows.loc[slow, ["duration", "bytes_out", "bytes_in"]] *= 1.6
    found = model.alerts(flows, model.watch(), model.limits(20))
    of_pair = found[found["reasons"].map(lambda reasons: "pair_strangeness" in {r["feature"] for r in reasons})]
    assert of_pair[["source", "destination"]].value_counts().index[0] == ("10.0.0.3", "10.0.1.1")
    assert (of_pair["source"] == "10.0.0.3").mean() > 0.9
    assert "strangeness of this source's latest flows to this destination" in why(of_pair["reasons"].iloc[0])
