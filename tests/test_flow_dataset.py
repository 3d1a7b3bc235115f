"""The recorded flows are what their data card says, and the recorder labels exactly what its attackers did."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datasets.flows import attacks, clients, servers, table
from datasets.flows.network import (
    PORTS,
    SERVERS,
    SITES,
    Entry,
    Network,
    drop_everything,
    loopback,
    save_ledger,
    tcp_syn,
)
from datasets.flows.table import Flow, Labels, Sent

FOLDER = Path(__file__).parents[1] / "datasets" / "flows"
KINDS = {
    "port_scan",
    "password_guessing",
    "slow_requests",
    "flood",
    "exfiltration",
    "beaconing",
    "dns_tunnelling",
}
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux answers on all of 127.0.0.0/8")


@pytest.fixture(scope="module")
def flows():
    return pd.read_csv(FOLDER / "flows.csv.xz", parse_dates=["start"], keep_default_na=False)


@pytest.fixture(scope="module")
def events():
    return pd.read_csv(FOLDER / "attacks.csv", parse_dates=["start", "end"])


@pytest.fixture(scope="module")
def card():
    return (FOLDER / "README.md").read_text()


# ---- the data


def test_columns_are_those_of_the_card(flows, events, card):
    for name in [*flows.columns, *events.columns]:
        assert f"`{name}`" in card, name
    assert list(flows.columns) == table.COLUMNS
    assert list(events.columns) == table.ATTACK_COLUMNS


def test_counts_are_those_of_the_card(flows, events, card):
    assert len(flows) >= 20_000
    assert f"{len(flows):,} flows" in card
    assert f"{(flows['label'] != '').sum():,} of them" in card
    for kind, group in flows[flows["label"] != ""].groupby("label"):
        assert re.search(rf"`{kind}` \| {(events['kind'] == kind).sum()} \| {len(group):,} \|", card), (
            kind,
            len(group),
        )


def test_files_are_small():
    assert sum((FOLDER / name).stat().st_size for name in ("flows.csv.xz", "attacks.csv")) < 3_000_000


def test_sorted_by_time_in_utc(flows):
    assert str(flows["start"].dt.tz) == "UTC"
    assert flows["start"].is_monotonic_increasing
    assert flows["start"].iloc[0] >= pd.Timestamp("2026-01-05T08:00:00Z")


def test_only_loopback_addresses(flows, events):
    many = set(flows["source"]) | set(flows["destination"])
    for column in ("source", "destination"):
        many |= {address for cell in events[column] for address in cell.split(";")}
    assert len(many) > 100
    outside = [address for address in many if not ipaddress.ip_address(address).is_loopback]
    assert outside == []


def test_counts_and_durations_are_possible(flows):
    for column in ("bytes_out", "bytes_in", "packets_out", "packets_in"):
        assert pd.api.types.is_integer_dtype(flows[column])
        assert (flows[column] >= 0).all()
    assert (flows["packets_out"] + flows["packets_in"] >= 1).all()
    for way in ("out", "in"):  # no packet is longer than 1,500 bytes with its headers
        assert (flows[f"bytes_{way}"] <= 1472 * flows[f"packets_{way}"]).all()
    assert flows["duration"].between(0, 1800).all()
    assert flows[["source_port", "destination_port"]].stack().between(1, 65535).all()


def test_states_agree_with_the_packets(flows):
    udp = flows["protocol"] == "udp"
    assert set(flows.loc[udp, "state"]) <= {"SF", "S0", "SHR"}
    assert set(flows.loc[~udp, "state"]) <= {"S0", "S1", "S2", "S3", "SF", "REJ", "RSTO", "RSTR", "RSTOS0", "SH", "OTH"}
    assert (flows.loc[flows["state"] == "S0", "packets_in"] == 0).all()
    refused = flows[flows["state"] == "REJ"]
    assert (refused[["bytes_out", "bytes_in"]] == 0).all().all()
    assert (flows.loc[(flows["state"] == "SF") & ~udp, ["packets_out", "packets_in"]] >= 2).all().all()


def test_services_follow_the_ports(flows, card):
    for service, port in (("https", 443), ("dns", 53), ("postgresql", 5432), ("irc", 6667), ("ftp", 21)):
        assert (flows.loc[flows["service"] == service, "destination_port"] == port).all()
        assert (flows["service"] == service).sum() > 50, service
        assert re.search(rf"\| `{service}` \|.*\b{port}\b", card), service


# ---- the labels


def test_first_half_is_free_of_attacks(flows, events):
    first = flows.loc[flows["label"] != "", "start"].min()
    assert first >= flows["start"].iloc[0] + 0.5 * (flows["start"].iloc[-1] - flows["start"].iloc[0])
    assert (flows["start"] < first).sum() >= 0.4 * len(flows)
    assert events["start"].min() >= flows["start"].iloc[0] + pd.Timedelta(minutes=20)


def test_every_kind_is_there_in_several_strengths(flows, events):
    assert set(events["kind"]) == KINDS
    assert set(flows["label"]) == KINDS | {""}
    for kind, group in events.groupby("kind"):
        minutes = (group["end"] - group["start"]).max() / pd.Timedelta("1min")
        assert group["flows"].sum() >= 50 or minutes >= 5, kind
        rate = group["flows"] / (group["end"] - group["start"]).dt.total_seconds()
        assert len(group) >= 3 and rate.max() > 2 * rate.min(), kind


def test_flows_agree_with_the_list_of_attacks(flows, events):
    assert ((flows["label"] == "") == (flows["attack_id"] == "")).all()
    assert events["attack_id"].is_unique
    marked = flows[flows["label"] != ""].merge(events, on="attack_id", how="left", suffixes=("", "_event"))
    assert marked["kind"].eq(marked["label"]).all()
    counted = flows.loc[flows["attack_id"] != "", "attack_id"].value_counts()
    assert counted.reindex(events["attack_id"]).tolist() == events["flows"].tolist()
    second = pd.Timedelta("1s")
    assert (marked["start"] >= marked["start_event"] - second).all()
    assert (marked["start"] <= marked["end"] + second).all()
    for ends in ("source", "destination"):
        allowed = dict(zip(events["attack_id"], events[ends].str.split(";").map(set), strict=True))
        assert all(
            address in allowed[attack] for address, attack in zip(marked[ends], marked["attack_id"], strict=True)
        )


def test_normal_life_goes_on_beside_the_attacks(flows):
    first = flows.loc[flows["label"] != "", "start"].min()
    normal = flows[flows["label"] == ""]
    before, after = normal[normal["start"] < first], normal[normal["start"] >= first]
    rate = [len(part) / (part["start"].iloc[-1] - part["start"].iloc[0]).total_seconds() for part in (before, after)]
    assert 0.6 < rate[1] / rate[0] < 1.6
    taken_over = set(flows.loc[flows["label"] != "", "source"]) & set(before["source"])
    assert len(taken_over) > 15
    inside = [address for address in taken_over if address.startswith("127.10.1.")]
    assert set(inside) <= set(after["source"])


def test_normal_life_has_failures_too(flows):
    normal = flows[flows["label"] == ""]
    for state in ("REJ", "S0", "RSTO"):
        assert (normal["state"] == state).sum() > 50, state
    assert normal["duration"].max() > 120
    assert normal["bytes_out"].max() > 1e6 and normal["bytes_in"].max() > 5e6


# ---- the recorder


@pytest.mark.parametrize("address", ["10.0.0.1", "192.0.2.7", "0.0.0.0", "126.255.255.255", "128.0.0.1", "::1"])
def test_no_address_outside_the_loopback_network(address):
    with pytest.raises(ValueError, match="loopback"):
        loopback(address)


@pytest.mark.parametrize("ends", [("127.0.0.1", "192.0.2.7"), ("192.0.2.7", "127.0.0.1")])
def test_sockets_refuse_other_addresses(ends):
    async def dial():
        async with Network(0).dial(*ends, 80):
            pass

    with pytest.raises(ValueError, match="loopback"):
        asyncio.run(dial())
    with pytest.raises(ValueError, match="loopback"), Network(0).datagrams(*ends, 53):
        pass
    with pytest.raises(ValueError, match="loopback"):
        tcp_syn(ends[0], 1, ends[1], 2, 3)


def test_plan_is_bounded_and_stays_on_the_machine():
    plan = attacks.plan(attacks.PART)
    assert {attack.kind for attack in plan} == KINDS
    assert len({attack.id for attack in plan}) == len(plan)
    assert sum(attack.count for attack in plan) < 10_000
    for attack in plan:
        assert attack.start >= 0 and attack.start + attack.seconds <= attacks.PART, attack.id
        assert all(ipaddress.ip_address(source).is_loopback for source in attack.sources), attack.id
    short = attacks.plan(60)
    assert max(attack.start + attack.seconds for attack in short) <= 60


def test_too_large_an_attack_is_refused():
    with pytest.raises(ValueError, match="count=1000000"):
        attacks.Attack("x", "flood", 0, 10, 1_000_000, attacks.random_name, ["127.0.0.1"], "")


def test_checksum_of_a_made_packet():
    packet = tcp_syn("127.1.2.3", 40000, "127.4.5.6", 443, 123456789)
    segment = packet[20:]
    pseudo = socket.inet_aton("127.1.2.3") + socket.inet_aton("127.4.5.6") + bytes([0, 6, 0, len(segment)])
    # RFC 1071: the ones' complement sum over data that holds its own checksum is all ones.
    words = np.frombuffer(pseudo + segment, ">u2").astype(int).sum()
    while words >> 16:
        words = (words & 0xFFFF) + (words >> 16)
    assert words == 0xFFFF
    assert struct.unpack("!HH", segment[:4]) == (40000, 443)
    assert segment[13] == 0x02  # SYN and nothing else


def cut_off(row):
    yield row
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["flows.csv.xz", "attacks.csv", "ledger.csv"])
def test_a_recorder_that_is_cut_off_leaves_the_older_file(tmp_path, name):
    file = tmp_path / name
    entry = Entry("a", "tcp", "127.0.0.1", 40000, "127.0.0.2", 80, 0.0, 1.0)

    def write(rows):
        if name == "ledger.csv":
            save_ledger(file, rows)
        else:
            table.write(file, ["a", "b"], rows)

    row = entry if name == "ledger.csv" else [1, 2]
    write([row, row])
    whole = file.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write(cut_off(row))
    assert file.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [file]
    assert len(pd.read_csv(file)) == 2


@linux
def test_the_log_holds_the_attackers_sockets_and_no_others():
    async def play():
        seen = {}

        async def accept(reader, writer):
            seen[writer.get_extra_info("peername")] = (await reader.readline()).strip()
            writer.close()

        listener = await asyncio.start_server(accept, "127.99.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        net = Network(0)

        async def step(net, source, i):
            async with net.dial(source, "127.99.0.1", port) as (reader, writer):
                writer.write(b"attack\n")
                await reader.read()

        async def user():
            for _ in range(5):
                async with net.dial("127.99.0.2", "127.99.0.1", port) as (reader, writer):
                    writer.write(b"user\n")
                    await reader.read()

        attack = attacks.Attack("a-1", "flood", 0, 0.2, 6, step, ["127.99.0.2", "127.99.0.3"], "")
        await asyncio.gather(asyncio.create_task(attacks.run(net, attack)), asyncio.create_task(user()))
        listener.close()
        return seen, net.ledger, port

    seen, ledger, port = asyncio.run(play())
    assert sorted(seen.values()) == [b"attack"] * 6 + [b"user"] * 5
    assert {(e.source, e.source_port) for e in ledger} == {ends for ends, who in seen.items() if who == b"attack"}
    assert {(e.attack_id, e.protocol, e.destination, e.destination_port) for e in ledger} == {
        ("a-1", "tcp", "127.99.0.1", port)
    }
    assert all(0 < e.opened <= e.closed <= time.time() for e in ledger)


@linux
def test_servers_and_clients_talk():
    user, shift = "127.10.1.10", 20000

    async def play():
        net = Network(0, shift=shift)
        await servers.start(net)
        short = await asyncio.gather(
            clients.lookup(net, user, "www.site1.example"),
            clients.lookup(net, user, "gone.nx.example"),
            clients.lookup(net, user, "x.n700.site1.example", kind=16),
            clients.web(net, user, SITES[0], ["/page?n=3000", "/page?n=10"]),
            clients.web(net, user, SERVERS["app"], ["/login?ok=0"], post=90),
            clients.web(net, user, SERVERS["app"], ["/query"]),
            clients.send_mail(net, user, SERVERS["mail"], 2000, ["a"], service="submission", words=["1"]),
            clients.read_mail(net, user, [1500]),
            clients.files(net, user, SERVERS["files"], down=[5000], up=[6000], pause=0.01),
            clients.shell(net, user, SERVERS["backup"], keys=2, up=[9000], pause=0.01),
            clients.query(net, user, [1, 50], store=[800]),
            clients.talk(net, user, 0.3, 0.1),
            clients.ask(net, user, SERVERS["dns"], net.port("ntp"), b"\0" * 48),
            clients.knock(net, user, SERVERS["web"], 1 + shift),
        )
        assert net.ledger == []  # nobody attacked
        guess = attacks.guesses("ftp", SERVERS["files"], 2)
        await attacks.run(net, attacks.Attack("g-1", "password_guessing", 0, 0.1, 2, guess, [user], ""))
        return short, net.ledger

    short, ledger = asyncio.run(asyncio.wait_for(play(), 30))
    address, missing, text, pages, refused, asked, *_, clock, closed = short
    assert address[3] & 0x0F == 0 and missing[3] & 0x0F == 3  # RFC 1035: no error, no such name
    assert len(text) > 700
    assert (pages, refused, asked) == (200, 401, 200)
    assert len(clock) == 48
    assert closed is False
    assert [(e.destination, e.destination_port) for e in ledger] == [(SERVERS["files"], PORTS["ftp"] + shift)] * 2


@linux
def test_filtered_port_never_answers():
    with socket.create_server(("127.99.0.9", 0)) as open_port, socket.create_server(("127.99.0.9", 0)) as wall:
        drop_everything(wall)
        socket.create_connection(open_port.getsockname(), timeout=1).close()
        with pytest.raises(TimeoutError):
            socket.create_connection(wall.getsockname(), timeout=0.2)


# ---- the table

NOBODY = Sent(0, 0)


@pytest.mark.parametrize(
    ("out", "back", "expected"),
    [
        (Sent(0, 3, syn=3), NOBODY, "S0"),
        (Sent(0, 1, syn=1), Sent(0, 1, rst=1), "REJ"),
        (Sent(9, 5, syn=1, fin=1), Sent(9, 5, syn=1, fin=1), "SF"),
        (Sent(9, 5, syn=1, fin=1, rst=1), Sent(9, 5, syn=1, fin=1), "SF"),
        (Sent(9, 5, syn=1), Sent(9, 5, syn=1), "S1"),
        (Sent(9, 5, syn=1, fin=1), Sent(9, 5, syn=1), "S2"),
        (Sent(9, 5, syn=1), Sent(9, 5, syn=1, fin=1), "S3"),
        (Sent(0, 2, syn=1, rst=1), Sent(0, 1, syn=1), "RSTO"),
        (Sent(9, 3, syn=1, fin=1), Sent(9, 3, syn=1, rst=1), "RSTR"),
        (Sent(0, 2, syn=1, rst=1), NOBODY, "RSTOS0"),
        (Sent(0, 2, syn=1, fin=1), NOBODY, "SH"),
        (Sent(9, 2), Sent(9, 2), "OTH"),
    ],
)
def test_states_follow_zeek(out, back, expected):
    # https://docs.zeek.org/en/master/scripts/base/protocols/conn/main.zeek.html, conn_state
    assert table.state("tcp", out, back) == expected


def make_flow(start=100.0, end=101.0, protocol="tcp", source_port=40000, destination_port=80, **ends):
    ends = {"out": Sent(9, 3, syn=1, fin=1), "back": Sent(7, 3, syn=1, fin=1)} | ends
    return Flow(start, end, "127.0.0.1", source_port, "127.0.0.2", destination_port, protocol, **ends)


def test_a_label_needs_the_same_ends_at_the_same_time():
    labels = Labels([Entry("a-1", "tcp", "127.0.0.1", 40000, "127.0.0.2", 80, 100.2, 100.9)])
    assert labels.attack_id(make_flow()) == "a-1"
    assert labels.attack_id(make_flow(source_port=40001)) == ""
    assert labels.attack_id(make_flow(protocol="udp")) == ""
    assert labels.attack_id(make_flow(start=300, end=301)) == ""
    assert labels.attack_id(make_flow(start=10, end=11)) == ""


def test_rows_are_sorted_and_on_the_neutral_clock():
    labels = Labels([Entry("a-1", "tcp", "127.0.0.1", 40000, "127.0.0.2", 80, 162.0, 163.0)])
    late, early = make_flow(162, 163.25), make_flow(100, 101, "udp", 5353, 53)
    rows = [
        dict(zip(table.COLUMNS, row, strict=True))
        for row in table.table([late, early], labels, {"a-1": "flood"}, origin=99.0)
    ]
    assert [row["start"] for row in rows] == ["2026-01-05T08:00:01.000Z", "2026-01-05T08:01:03.000Z"]
    assert [row["duration"] for row in rows] == ["1.000", "1.250"]
    assert [(row["label"], row["attack_id"]) for row in rows] == [("", ""), ("flood", "a-1")]
    assert [row["service"] for row in rows] == ["dns", "http"]


def test_a_flow_cut_in_its_middle_keeps_its_direction():
    cut = make_flow(source_port=80, destination_port=40000, out=Sent(700, 3), back=Sent(9, 2))
    turned = table.forward(cut)
    assert (turned.source, turned.destination_port, turned.out.bytes) == ("127.0.0.2", 80, 9)
    assert table.forward(make_flow()) == make_flow()
