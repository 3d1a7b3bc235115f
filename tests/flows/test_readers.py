"""Every reader gives the flows that its log holds, in stated units; every line is a flow, a header, or counted.

Logs are literal, in the fields and notation of the programs' sources; different notations of one log are each
other's oracle.
"""

from __future__ import annotations

import gzip
import json
import re
import struct
import sys
import types
import warnings
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffad.flows import COLUMNS, ReadReport, load_flows, read_flows
from diffad.flows.lines import line_parser
from diffad.flows.table import connection_state, failed, flow_table

ZEEK = """\
#separator \\x09
#set_separator	,
#empty_field	(empty)
#unset_field	-
#path	conn
#open	2024-06-23-12-00-00
#fields	ts	uid	id.orig_h	id.orig_p	id.resp_h	id.resp_p	proto	service	duration	orig_bytes	resp_bytes	conn_state	local_orig	missed_bytes	history	orig_pkts	orig_ip_bytes	resp_pkts	resp_ip_bytes	tunnel_parents
#types	time	string	addr	port	addr	port	enum	string	interval	count	count	string	bool	count	string	count	count	count	count	set[string]
1719146096.535021	CHh1	10.1.1.5	56730	93.184.216.34	443	tcp	ssl	1.550793	98	9417	SF	T	0	ShADadFf	11	670	10	9945	-
1719146097.000001	CHh2	fe80::1	135	fe80::2	136	icmp	-	-	-	-	OTH	-	0	-	1	72	0	0	-
1719146098.250000	CHh3	10.1.1.9	40000	10.1.1.7	22	tcp	-	-	-	-	S0	T	0	S	1	60	0	0	-
#close	2024-06-23-13-00-00
"""
#: The same from a Zeek that counts no packets and orders its fields differently.
ZEEK_OTHER = """\
#separator \\x09
#unset_field	-
#path	conn
#fields	ts	id.resp_h	id.resp_p	id.orig_h	id.orig_p	proto	conn_state	duration	orig_bytes	resp_bytes
1719150000.5	10.0.0.2	53	10.0.0.1	5353	udp	SF	0.25	40	80
"""
EVE = [
    '{"timestamp":"2024-06-23T14:36:00.100000+0200","flow_id":1,"event_type":"dns","src_ip":"10.1.1.5","dns":{}}',
    '{"timestamp":"2024-06-23T14:36:00.100000+0200","flow_id":2,"event_type":"flow","src_ip":"10.1.1.5","src_port":56730,'
    '"dest_ip":"93.184.216.34","dest_port":443,"proto":"TCP","app_proto":"tls","flow":{"pkts_toserver":11,'
    '"pkts_toclient":10,"bytes_toserver":824,"bytes_toclient":10085,"start":"2024-06-23T14:34:56.535021+0200",'
    '"end":"2024-06-23T14:34:58.085814+0200","age":2,"state":"closed","reason":"timeout","alerted":false},'
    '"tcp":{"tcp_flags":"1b","tcp_flags_ts":"1b","tcp_flags_tc":"1b","syn":true,"fin":true,"state":"closed"}}',
    '{"timestamp":"2024-06-23T14:36:01.000000+0200","flow_id":3,"event_type":"flow",'
    '"src_ip":"fe80:0000:0000:0000:0000:0000:0000:0001","dest_ip":"ff02::1","proto":"IPv6-ICMP","icmp_type":135,'
    '"icmp_code":0,"flow":{"pkts_toserver":1,"pkts_toclient":0,"bytes_toserver":86,"bytes_toclient":0,'
    '"start":"2024-06-23T14:34:57.000001+0200","end":"2024-06-23T14:34:57.000001+0200","age":0,"state":"new"}}',
    '{"timestamp":"2024-06-23T14:36:02.000000+0200","flow_id":4,"event_type":"flow","src_ip":"10.1.1.9","src_port":40000,'
    '"dest_ip":"10.1.1.7","dest_port":22,"proto":"TCP","app_proto":"failed","flow":{"pkts_toserver":1,"pkts_toclient":1,'
    '"bytes_toserver":74,"bytes_toclient":54,"start":"2024-06-23T14:34:58.250000+0200",'
    '"end":"2024-06-23T14:34:58.251000+0200","age":0,"state":"closed"},'
    '"tcp":{"tcp_flags":"16","tcp_flags_ts":"02","tcp_flags_tc":"14"}}',
]
NFDUMP_OLD = """\
ts,te,td,sa,da,sp,dp,pr,flg,fwd,stos,ipkt,ibyt,opkt,obyt,in,out,sas,das
2024-06-23 12:34:56.535,2024-06-23 12:34:58.085,1.550,10.1.1.5,93.184.216.34,56730,443,TCP,.AP.SF,0,0,11,670,10,9945,0,0,0,0
2024-06-23 12:34:57.000,2024-06-23 12:34:57.000,0.000,fe80::1,ff02::1,0,135.0,ICMP6,......,0,0,1,72,0,0,0,0,0,0
2024-06-23 12:34:58.250,2024-06-23 12:34:58.250,0.000,10.1.1.9,10.1.1.7,40000,22,TCP,....S.,0,0,1,60,0,0,0,0,0,0
Summary
flows,bytes,packets,avg_bps,avg_pps,avg_bpp
3,802,13,3000,8,61
"""
NFDUMP_NEW = """\
firstSeen,duration,proto,srcAddr,srcPort,dstAddr,dstPort,flags,packets,bytes,flows
2024-06-23 12:34:56.535,1.550,6,10.1.1.5,56730,93.184.216.34,443,...AP.SF,11,670,1
2024-06-23 12:34:57.000,0.000,58,fe80::1,0,ff02::1,135.0,........,1,72,1
2024-06-23 12:34:58.250,0.000,6,10.1.1.9,40000,10.1.1.7,22,......S.,1,60,1
"""
NFDUMP_FAST = """\
cnt,af,firstSeen,lastSeen,proto,srcAddr,srcPort,dstAddr,dstPort,srcAS,dstAS,input,output,flags,srcTos,packets,bytes
1,2,1719146096535,1719146098085,6,10.1.1.5,56730,93.184.216.34,443,0,0,0,0,...AP.SF,0,11,670
2,10,1719146097000,1719146097000,58,fe80::1,0,ff02::1,34560,0,0,0,0,........,0,1,72
3,2,1719146098250,1719146098250,6,10.1.1.9,40000,10.1.1.7,22,0,0,0,0,......S.,0,1,60
"""
CIC_HEADERS = {
    "version 4": "Flow ID,Src IP,Src Port,Dst IP,Dst Port,Protocol,Timestamp,Flow Duration,Total Fwd Packet,"
    "Total Bwd packets,Total Length of Fwd Packet,Total Length of Bwd Packet,Flow Packets/s,FIN Flag Count,"
    "SYN Flag Count,RST Flag Count,PSH Flag Count,ACK Flag Count,URG Flag Count,ECE Flag Count,Label",
    "2017": "Flow ID, Source IP, Source Port, Destination IP, Destination Port, Protocol, Timestamp, Flow Duration,"
    " Total Fwd Packets, Total Backward Packets,Total Length of Fwd Packets, Total Length of Bwd Packets,"
    " Flow Packets/s,FIN Flag Count, SYN Flag Count, RST Flag Count, PSH Flag Count, ACK Flag Count, URG Flag Count,"
    " ECE Flag Count, Label",
    "2018": "Flow ID,Src IP,Src Port,Dst IP,Dst Port,Protocol,Timestamp,Flow Duration,Tot Fwd Pkts,Tot Bwd Pkts,"
    "TotLen Fwd Pkts,TotLen Bwd Pkts,Flow Pkts/s,FIN Flag Cnt,SYN Flag Cnt,RST Flag Cnt,PSH Flag Cnt,ACK Flag Cnt,"
    "URG Flag Cnt,ECE Flag Cnt,Label",
    "python": "flow_id,src_ip,src_port,dst_ip,dst_port,protocol,timestamp,flow_duration,tot_fwd_pkts,tot_bwd_pkts,"
    "totlen_fwd_pkts,totlen_bwd_pkts,flow_pkts_s,fin_flag_cnt,syn_flag_cnt,rst_flag_cnt,psh_flag_cnt,ack_flag_cnt,"
    "urg_flag_cnt,ece_flag_cnt,label",
}
CIC_ROW = "a-b-1-2-6,10.1.1.5,56730,93.184.216.34,443,6,23/06/2024 02:34:56 PM,1550793,11,10,98.0,9417.0,13.541356,1,1,0,1,1,0,0,B"
GOOD = {
    "zeek": ZEEK,
    "suricata": "\n".join(EVE) + "\n",
    "nfdump": NFDUMP_NEW,
    "cicflowmeter": CIC_HEADERS["version 4"] + "\n" + "\n".join([CIC_ROW] * 3) + "\n",
}


@pytest.fixture
def write(tmp_path):
    def file(content, name="flows.log"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return file


def zeek_json(text=ZEEK):
    """Return a TSV log as the JSON lines that Zeek writes: unset fields are left out."""
    lines = text.splitlines()
    names = next(line for line in lines if line.startswith("#fields")).split("\t")[1:]
    rows = [dict(zip(names, line.split("\t"), strict=True)) for line in lines if not line.startswith("#")]
    texts = ("uid", "id.orig_h", "id.resp_h", "proto", "service", "conn_state", "history", "local_orig")
    return [
        {k: v if k in texts else float(v) if "." in v else int(v) for k, v in row.items() if v != "-"} for row in rows
    ]


def assert_equal(one, other):
    pd.testing.assert_frame_equal(one.reset_index(drop=True), other.reset_index(drop=True), check_exact=True)


def accounted(report):
    return report.flows + report.headers + sum(report.left_out.values()) + sum(report.other.values())


# --- what each format says --------------------------------------------------------------------------------


def test_zeek(write):
    table = load_flows(write(ZEEK))
    assert {name: str(kind) for name, kind in table.dtypes.items()} == COLUMNS
    first = table.iloc[0].to_dict()
    assert first == {
        "start": pd.Timestamp("2024-06-23 12:34:56.535021", tz="UTC"),
        "duration": 1.550793,
        "source": "10.1.1.5",
        "source_port": 56730,
        "destination": "93.184.216.34",
        "destination_port": 443,
        "protocol": "tcp",
        "service": "ssl",
        "state": "SF",
        "bytes_out": 670,
        "bytes_in": 9945,
        "packets_out": 11,
        "packets_in": 10,
    }
    assert table["start"][1] == pd.Timestamp("2024-06-23 12:34:57.000001", tz="UTC"), "exact to the microsecond"
    assert table["source_port"].isna().tolist() == [False, True, False], "ICMP has no ports"
    assert table["service"].isna().tolist() == [False, True, True]
    assert table["duration"].tolist() == [1.550793, 0, 0], "Zeek leaves a duration of zero out"
    assert failed(table).tolist() == [0, 0, 1]


def test_zeek_headers_may_change_in_mid_file(write):
    report = ReadReport()
    table = load_flows(write(ZEEK + ZEEK_OTHER), report=report)
    last = table.iloc[3]
    assert len(table) == 4 and not report.left_out
    assert (last["source"], last["source_port"], last["destination"], last["destination_port"]) == (
        "10.0.0.1",
        5353,
        "10.0.0.2",
        53,
    )
    assert (last["bytes_out"], last["bytes_in"]) == (40, 80), "payload where packets are not counted"
    assert np.isnan(last["packets_out"])
    assert_equal(table[:3], load_flows(write(ZEEK)))


def test_lines_before_the_first_header_are_left_out_and_told(write):
    report, row = ReadReport(), ZEEK.splitlines()[-2]
    with pytest.warns(UserWarning, match="left out: 1 x line without a header"):
        table = load_flows(write(f"{row}\n{ZEEK}"), format="zeek", report=report)
    assert len(table) == report.flows and dict(report.left_out) == {"line without a header": 1}


def test_zeek_separator_and_markers_are_those_of_the_header(write):
    other = ZEEK.replace("\\x09", "\\x7c").replace("\t", "|").replace("|-", "|NONE").replace("field|NONE", "field|NONE")
    assert_equal(load_flows(write(other)), load_flows(write(ZEEK)))


def test_a_garbled_separator_is_no_disaster(write):
    for line in ("#separator \\x", "#separator", "#separator \\x0z", "#separator abc"):
        assert_equal(load_flows(write(ZEEK.replace("#separator \\x09", line))), load_flows(write(ZEEK)))


def test_zeek_without_meta_lines(write):
    plain = "\n".join(
        line.removeprefix("#fields\t") for line in ZEEK.splitlines() if line[:7] == "#fields" or line[0] != "#"
    )
    assert_equal(load_flows(write(plain)), load_flows(write(ZEEK)))


def iso(record):
    return record | {"ts": pd.Timestamp(record["ts"], unit="s").round("us").isoformat() + "Z"}


def millis(record):
    return record | {"ts": round(record["ts"] * 1000)}


def nested(record):
    return {k: v for k, v in record.items() if k[:3] != "id."} | {
        "id": {k[3:]: v for k, v in record.items() if k[:3] == "id."}
    }


@pytest.mark.parametrize("change", [dict, iso, nested])
def test_zeek_json_holds_the_same_flows(write, change):
    text = "".join(json.dumps(change(record)) + "\n" for record in zeek_json())
    assert_equal(load_flows(write(text)), load_flows(write(ZEEK)))


def test_zeek_json_in_milliseconds(write):
    table = load_flows(write("\n".join(json.dumps(millis(record)) for record in zeek_json())))
    assert table["start"][0] == pd.Timestamp("2024-06-23 12:34:56.535", tz="UTC")


def test_suricata(write):
    report = ReadReport()
    table = load_flows(write(GOOD["suricata"]), report=report)
    zeek = load_flows(write(ZEEK))
    for name in ("start", "duration", "source", "source_port", "destination_port", "protocol", "packets_out"):
        expected = [1.550793, 0, 0.001] if name == "duration" else zeek[name].tolist()
        assert table[name].tolist() == expected or table[name].equals(zeek[name]), name
    assert table["state"].tolist() == ["SF", "S0", "REJ"]
    assert table["service"].fillna("").tolist() == ["tls", "", ""]
    assert table["bytes_in"].tolist() == [10085, 0, 54]
    assert dict(report.other) == {"dns record": 1}, "other events are no errors, but counted"


def test_suricata_without_a_tcp_session_keeps_its_word_for_the_state(write):
    event = json.loads(EVE[1])
    event["tcp"] = {"tcp_flags": "00", "tcp_flags_ts": "00", "tcp_flags_tc": "00"}
    event["flow"]["state"] = "new"
    table = load_flows(write(json.dumps(event)))
    assert table["state"].tolist() == ["new"] and failed(table).tolist() == [1]


@pytest.mark.parametrize(
    ("out", "back", "state"),
    [
        ("S", "", "S0"), ("S", "RA", "REJ"), ("SA", "SA", "S1"), ("SAF", "SAF", "SF"), ("SAF", "SA", "S2"),
        ("SA", "SAF", "S3"), ("SAR", "SA", "RSTO"), ("SA", "SAR", "RSTR"), ("SR", "", "RSTOS0"), ("SF", "", "SH"),
        ("A", "A", "OTH"), ("", "SA", "OTH"),
    ],
)  # fmt: skip
def test_state_follows_from_flags_as_zeek_defines_it(out, back, state):
    bits = [np.array([sum({"F": 1, "S": 2, "R": 4, "A": 16}[flag] for flag in way)]) for way in (out, back)]
    assert connection_state(np.array([True]), *bits, np.array([bool(back)])).tolist() == [state]


def test_nfdump_old_and_new_hold_the_same_flows(write):
    report = ReadReport()
    old, new, fast = (
        load_flows(write(text), report=r) for text, r in ((NFDUMP_OLD, report), (NFDUMP_NEW, None), (NFDUMP_FAST, None))
    )
    one_way = old.assign(bytes_in=np.nan, packets_in=np.nan)
    assert_equal(one_way, new)
    assert_equal(new, fast)
    assert old["bytes_in"].tolist() == [9945, 0, 0], "counters back of flows joined by nfdump"
    assert old["protocol"].tolist() == ["tcp", "icmp", "tcp"]
    assert old["state"].fillna("").tolist() == ["...AP.SF", "", "......S."]
    np.testing.assert_array_equal(failed(old), [0, np.nan, 1])
    assert (report.flows, report.headers, report.left_out) == (3, 4, {}), "the totals are no flows"


def test_nfdump_outputs_one_after_the_other(write):
    both = load_flows(write(NFDUMP_OLD + NFDUMP_NEW + NFDUMP_OLD))
    assert len(both) == 9
    assert_equal(both[6:], load_flows(write(NFDUMP_OLD)))


@pytest.mark.parametrize("header", CIC_HEADERS)
def test_cicflowmeter_under_all_its_headers(write, header):
    table = load_flows(write(f"{CIC_HEADERS[header]}\n{CIC_ROW}\n"))
    row = table.iloc[0]
    assert row["start"] == pd.Timestamp("2024-06-23 14:34:56", tz="UTC")
    assert row["duration"] == pytest.approx(1.550793)
    assert (row["source"], row["destination"], row["destination_port"], row["protocol"]) == (
        "10.1.1.5",
        "93.184.216.34",
        443,
        "tcp",
    )
    assert (row["packets_out"], row["packets_in"], row["bytes_out"], row["bytes_in"]) == (11, 10, 98, 9417)
    assert row["state"] == "...AP.SF"


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("7/6/2017 3:30", "2017-06-07 03:30"), ("03/07/2017 08:55:58", "2017-07-03 08:55:58"),
        ("2018-12-01 10:51:39.813448", "2018-12-01 10:51:39.813448"), ("23/06/2024 12:00:01 AM", "2024-06-23 00:00:01"),
    ],
)  # fmt: skip
def test_cicflowmeter_times_put_the_day_first(write, text, time):
    table = load_flows(write(f"{CIC_HEADERS['2017']}\n{CIC_ROW.replace('23/06/2024 02:34:56 PM', text)}\n"))
    assert table["start"][0] == pd.Timestamp(time, tz="UTC")


def test_cicflowmeter_ports_that_write_seconds_are_told_by_their_rate(write):
    table = load_flows(write(f"{CIC_HEADERS['python']}\n{CIC_ROW.replace('1550793', '1.550793')}\n{CIC_ROW}\n"))
    assert table["duration"].tolist() == pytest.approx([1.550793, 1.550793])


def test_cicflowmeter_repeated_headers_and_unanswered_flows(write):
    silent = CIC_ROW.replace("1550793,11,10,98.0,9417.0", "1550793,11,0,98.0,0")
    udp = CIC_ROW.replace(",443,6,", ",53,17,")
    text = "\n".join([CIC_HEADERS["2018"], CIC_ROW, CIC_HEADERS["2018"], silent, udp])
    report = ReadReport()
    table = load_flows(write(text), report=report)
    assert table["state"].tolist() == ["...AP.SF", "S0", "SF"] and report.headers == 2 and not report.left_out


def test_times_without_a_zone_are_of_the_zone_given(write):
    table = load_flows(write(NFDUMP_NEW), timezone="Europe/Berlin")
    assert table["start"][0] == pd.Timestamp("2024-06-23 10:34:56.535", tz="UTC")
    for with_zone in (ZEEK, GOOD["suricata"], NFDUMP_FAST):
        assert_equal(load_flows(write(with_zone), timezone="Europe/Berlin"), load_flows(write(with_zone)))


def test_hours_that_occur_twice_or_never_lose_no_flow(write):
    twice = NFDUMP_NEW.replace("2024-06-23 12:", "2024-10-27 02:").replace("12:34:57", "02:34:57")
    never = NFDUMP_NEW.replace("2024-06-23 12:", "2024-03-31 02:")
    assert load_flows(write(twice), timezone="Europe/Berlin")["start"][0] == pd.Timestamp("2024-10-27 00:34:56.535Z")
    assert load_flows(write(never), timezone="Europe/Berlin")["start"][0] == pd.Timestamp("2024-03-31 01:00Z")


# --- captures ---------------------------------------------------------------------------------------------


def capture():
    """Return a capture of a TCP handshake with a close and an unanswered UDP packet, as the bytes of a pcap."""

    def packet(time, source, destination, protocol, body):
        ip = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0, bytes(source), bytes(destination)
        )
        frame = bytes(12) + b"\x08\x00" + ip + body
        return struct.pack("<IIII", int(time), round(time % 1 * 1e6), len(frame), len(frame)) + frame

    def tcp(source, destination, flags):
        return struct.pack("!HHIIBBHHH", source, destination, 1, 1, 5 << 4, flags, 1024, 0, 0)

    a, b = (10, 0, 0, 1), (10, 0, 0, 2)
    flags = [(a, b, 2), (b, a, 0x12), (a, b, 0x10), (a, b, 0x11), (b, a, 0x11)]
    out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    for k, (source, destination, bits) in enumerate(flags):
        ports = (40000, 8080) if source == a else (8080, 40000)
        out += packet(1719146096 + k / 10, source, destination, 6, tcp(*ports, bits))
    return out + packet(1719146097, a, b, 17, struct.pack("!HHHH", 40001, 9999, 12, 0) + b"abcd")


@pytest.mark.parametrize("zipped", [False, True])
def test_captures(write, zipped):
    pytest.importorskip("nfstream")
    table = load_flows(write(gzip.compress(capture()) if zipped else capture())).sort_values("protocol")
    assert table["start"].tolist() == [
        pd.Timestamp(1719146096, unit="s", tz="UTC"),
        pd.Timestamp(1719146097, unit="s", tz="UTC"),
    ]
    assert table["state"].tolist() == ["SF", "S0"]
    assert table["destination_port"].tolist() == [8080, 9999]
    assert table["duration"].tolist() == pytest.approx([0.4, 0])
    assert table["packets_in"].tolist() == [2, 0] and table["bytes_out"].tolist() == [120, 32]


def test_what_nfstream_says_becomes_flows(write, monkeypatch):
    counts = {f"{way}_{flag}_packets": 1 for way in ("src2dst", "dst2src") for flag in ("syn", "fin")}
    counts |= {f"{way}_rst_packets": 0 for way in ("src2dst", "dst2src")}
    flow = types.SimpleNamespace(
        bidirectional_first_seen_ms=1719146096535, bidirectional_duration_ms=1550, src_ip="10.1.1.5", src_port=56730,
        dst_ip="93.184.216.34", dst_port=443, protocol=6, application_name="TLS.Example", src2dst_bytes=670,
        dst2src_bytes=9945, src2dst_packets=11, dst2src_packets=10, **counts,
    )  # fmt: skip
    seen = {}

    def streamer(**options):
        seen.update(options)
        return [flow] * 5

    monkeypatch.setitem(sys.modules, "nfstream", types.SimpleNamespace(NFStreamer=streamer))
    path = write(capture())
    chunks = list(read_flows(path, chunk_rows=2))
    zeek = load_flows(write(ZEEK, "conn.log"))[:1]
    expected = zeek.assign(start=zeek["start"].dt.floor("ms"), duration=1.55, service=pd.array(["tls"], "string"))
    assert [len(chunk) for chunk in chunks] == [2, 2, 1] and seen["source"] == str(path)
    assert_equal(chunks[0][:1], expected)


def test_captures_without_nfstream_name_the_extra(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "nfstream", None)
    with pytest.raises(ImportError, match=r"diffad\[network\]"):
        load_flows(write(capture()))


# --- files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", GOOD)
@pytest.mark.parametrize("name", ["a.txt", "a.json", "a.csv.gz"])
def test_format_and_compression_are_told_by_the_content(write, format, name):
    plain = load_flows(write(GOOD[format]), format=format)
    assert len(plain) == 3
    assert_equal(load_flows(write(GOOD[format], name)), plain)
    assert_equal(load_flows(write(gzip.compress(GOOD[format].encode()), name)), plain)


@pytest.mark.parametrize("format", GOOD)
def test_byte_order_mark_and_line_ends_of_windows(write, format):
    windows = b"\xef\xbb\xbf" + GOOD[format].replace("\n", "\r\n").encode()
    assert_equal(load_flows(write(windows)), load_flows(write(GOOD[format])))


@pytest.mark.parametrize("format", GOOD)
@given(chunk_rows=st.integers(1, 12))
@settings(max_examples=8, deadline=None)
def test_chunks_are_the_whole_wherever_they_are_cut(tmp_path_factory, format, chunk_rows):
    text = GOOD[format] + (ZEEK_OTHER if format == "zeek" else "") + GOOD[format]
    path = tmp_path_factory.mktemp("chunks") / "log"
    path.write_text(text)
    chunks = list(read_flows(path, chunk_rows=chunk_rows))
    assert all(0 < len(chunk) <= chunk_rows for chunk in chunks)
    assert_equal(pd.concat(chunks), load_flows(path))


def test_reading_is_lazy(write):
    path = write(ZEEK + ZEEK.splitlines()[8] + "\n" + "garbage\n" * 50_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = ReadReport()
        first = next(read_flows(path, chunk_rows=10, report=report))
    assert len(first) == 2 and report.lines == 10


def test_a_line_without_end_is_cut_and_counted(write, monkeypatch):
    monkeypatch.setattr("diffad.flows.readers.LONGEST_LINE", 1000)
    report = ReadReport()
    with pytest.warns(UserWarning, match="3 x wrong number of fields"):
        table = load_flows(write(ZEEK + "\x00" * 2500 + "\n"), report=report)
    assert_equal(table, load_flows(write(ZEEK)))
    assert report.lines == accounted(report)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("text", [ZEEK, "\n".join(EVE) + "\n"], ids=["zeek", "suricata"])
@pytest.mark.parametrize("hole", [1, 100_000, 2_000_000])
def test_a_hole_of_zeros_before_the_first_line_hides_nothing(write, hole, text, zipped):
    report = ReadReport()
    content = bytes(hole) + text.encode()
    table = load_flows(write(gzip.compress(content) if zipped else content), report=report)
    assert_equal(table, load_flows(write(text, "plain.log")))
    assert report.lines == len(text.splitlines()) and not report.left_out


def test_a_hole_that_zips_into_next_to_nothing_hides_no_line(write):
    table = load_flows(write(gzip.compress(bytes(16 << 20) + ZEEK.encode(), 1)))
    assert_equal(table, load_flows(write(ZEEK, "plain.log")))


def test_nothing_but_zeros_is_an_empty_log(write):
    with pytest.raises(ValueError, match="is empty"):
        load_flows(write(bytes(100_000)))


def test_a_growing_log_is_parsed_as_it_comes():
    report = ReadReport()
    parser = line_parser("zeek", report)
    tables = [parser.parse([line]) for line in (ZEEK + ZEEK_OTHER).splitlines()]
    assert sum(map(len, tables)) == report.flows == 4
    with pytest.raises(ValueError, match="format"):
        line_parser("pcap", report)


# --- bad lines and values ---------------------------------------------------------------------------------


def test_bad_lines_are_counted_with_examples_and_warned_about(write):
    lines = ZEEK.splitlines()
    lines[9:9] = ["1719146098.1\tonly\tfour\tfields", "", "x" + lines[8][1:], "\t" * 19, "garbage"]
    report = ReadReport()
    with pytest.warns(UserWarning) as caught:
        table = load_flows(write("\n".join(lines)), report=report)
    assert_equal(table, load_flows(write(ZEEK)))
    assert dict(report.left_out) == {"wrong number of fields": 2, "no readable start time": 2}
    assert report.examples["wrong number of fields"] == ["1719146098.1\tonly\tfour\tfields", "garbage"]
    assert len(caught) == 1 and "2 x wrong number of fields" in str(caught[0].message)
    assert "2 x no readable start time" in str(caught[0].message)
    assert report.lines == accounted(report) == len(lines)


def test_broken_json_is_counted(write):
    report = ReadReport()
    with pytest.warns(UserWarning, match="3 x no JSON object"):
        table = load_flows(write("\n".join([EVE[1][:-20], *EVE, "[1]", '{"a":1},{"b":2}'])), report=report)
    assert_equal(table, load_flows(write("\n".join(EVE))))
    assert report.lines == accounted(report) == 7


@pytest.mark.parametrize(
    ("old", "new", "column", "value", "reason"),
    [
        ("1.550793", "-1.5", "duration", np.nan, "duration negative"),
        ("1.550793", "soon", "duration", np.nan, "duration unreadable"),
        ("1.550793", "1e10", "duration", np.nan, "duration too large"),
        ("\t670\t", "\t1e308\t", "bytes_out", np.nan, "bytes_out too large"),
        ("\t670\t", "\t0\t", "bytes_out", 0, None),
        ("\t670\t", "\t-670\t", "bytes_out", np.nan, "bytes_out negative"),
        ("\t670\t", "\tinf\t", "bytes_out", np.nan, "bytes_out unreadable"),
        ("\t670\t", "\t9223372036854775808\t", "bytes_out", 2.0**63, None),
        ("\t670\t", "\t1" + "0" * 30 + "\t", "bytes_out", 1e30, None),
        ("\t443\t", "\t65536\t", "destination_port", None, "destination_port is no port"),
        ("\t443\t", "\t44.5\t", "destination_port", None, "destination_port is no port"),
        ("\t443\t", "\t0\t", "destination_port", 0, None),
        ("93.184.216.34", "2001:DB8:0:0:0:0:0:1", "destination", "2001:db8::1", None),
        ("93.184.216.34", "host-17", "destination", "host-17", None),
        ("\ttcp\tssl", "\t132\tssl", "protocol", "sctp", None),
        ("\ttcp\tssl", "\t253\tssl", "protocol", "ip-253", None),
    ],
)  # fmt: skip
def test_single_values_that_cannot_be_cost_only_themselves(write, old, new, column, value, reason):
    report = ReadReport()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = load_flows(write(ZEEK.replace(old, new, 1)), report=report)
    assert dict(report.set_missing) == ({reason: 1} if reason else {})
    assert len(caught) == bool(reason) and not report.left_out
    got = table.at[0, column]
    assert pd.isna(got) if value is None or value is np.nan else got == value
    rest = table.drop(columns=column)
    assert_equal(rest, load_flows(write(ZEEK)).drop(columns=column))


@pytest.mark.parametrize(
    "time", ["1e300", "99999999999999999999", "nan", "0000-00-00 00:00:00.000", "2500-01-01 00:00:00", ""]
)
def test_impossible_times_leave_the_flow_out(time):
    report = ReadReport()
    table = flow_table({"start": ["1719146096", time], "bytes_out": [1, 2]}, ["good", "bad"], report)
    assert table["bytes_out"].tolist() == [1] and report.left_out == {"no readable start time": 1}
    assert report.examples == {"no readable start time": ["bad"]}


def test_half_a_character_in_json_costs_only_itself(write):
    broken = EVE[1].replace('"src_ip":"', '"src_ip":"\\ud800', 1)
    assert broken != EVE[1]
    table = load_flows(write("\n".join([broken, *EVE])))
    assert table["source"].iloc[0].startswith("?")
    assert_equal(table[1:].reset_index(drop=True), load_flows(write("\n".join(EVE))))


def test_flags_beyond_a_byte_are_cut(write):
    flagged = next(line for line in EVE if "tcp_flags_ts" in line)
    long = re.sub(r'"tcp_flags_ts":\s*"', r"\g<0>" + "f" * 30, flagged)
    assert_equal(load_flows(write(long)).drop(columns="state"), load_flows(write(flagged)).drop(columns="state"))


def test_gzip_that_breaks_off_keeps_what_was_there(write):
    text = ZEEK + ZEEK.splitlines()[8] * 1 + "\n"
    rows = "".join(ZEEK.splitlines()[8].replace("56730", str(k)) + "\n" for k in range(20_000))
    zipped = gzip.compress((text + rows).encode())
    report = ReadReport()
    with pytest.warns(UserWarning, match="breaks off"):
        table = load_flows(write(zipped[: len(zipped) // 2]), report=report)
    assert 1000 < len(table) < 20_004
    assert_equal(table, load_flows(write(text + rows))[: len(table)])
    assert report.lines == accounted(report)


bits = st.sampled_from(
    ["", "\t", ",", "\x00", '"', "-1", "1e999", "nan", "é", "{", "}", "#", "\r", "NaN", "99999999999999999999"]
)


@pytest.mark.parametrize("format", [*GOOD, "zeek-json"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_no_line_is_fatal_and_every_line_is_accounted_for(format, data):
    text = "\n".join(map(json.dumps, zeek_json())) if format == "zeek-json" else GOOD[format]
    lines = text.rstrip("\n").split("\n")
    for _ in range(data.draw(st.integers(1, 4))):
        k = data.draw(st.integers(0, len(lines) - 1))
        cut = sorted(data.draw(st.tuples(*[st.integers(0, len(lines[k]))] * 2)))
        lines[k] = lines[k][: cut[0]] + data.draw(bits) + lines[k][cut[1] :]
    report = ReadReport()
    parser = line_parser(format, report)
    table = parser.parse(lines)
    assert report.lines == accounted(report) == len(lines)
    assert len(table) == report.flows
    assert {name: str(kind) for name, kind in table.dtypes.items()} == COLUMNS
    numbers = table[["duration", "bytes_out", "bytes_in", "packets_out", "packets_in"]].to_numpy()
    assert not np.isinf(numbers).any() and not (numbers < 0).any()
    assert table["start"].notna().all()


# --- files that hold no flows -----------------------------------------------------------------------------

DNS = "#separator \\x09\n#path\tdns\n#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tquery\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (DNS + "1719146096.5\tC1\t10.0.0.1\t5353\t10.0.0.2\t53\tudp\texample.org\n", "1 x Zeek dns record"),
        (
            '{"ts":1.5,"uid":"C1","id.orig_h":"10.0.0.1","id.resp_h":"10.0.0.2","query":"a","_path":"dns"}',
            "1 x dns record",
        ),
        (EVE[0] + "\n" + EVE[0], "2 x dns record"),
        ("[" + ",".join(EVE) + "]", "one JSON array"),
        (json.dumps([json.loads(line) for line in EVE], indent=2), r"one JSON array; .* jq -c '\.\[\]'"),
        (json.dumps(json.loads(EVE[0]), indent=2), r"objects of several lines; .* jq -c \."),
        ('{"a": 1}', "neither Suricata"),
        ("ts,te,td,pr,val,fl,flP,ipkt,ipktP\n1,2,3,4,5,6,7,8,9\n", "wrong|no header"),
        ("a,b,c\n1,2,3\n", "no header of Zeek, nfdump"),
        ("\x7fELF\x00\x01binary", "no header"),
        (b"\x1f\x8bnot gzip at all", "cannot be unzipped"),
        (ZEEK.split("1719146096")[0] + "broken\n", "wrong number of fields"),
    ],
)
def test_files_without_flows_are_refused_by_what_they_are(write, content, words):
    with pytest.raises(ValueError, match=words):
        load_flows(write(content))


def test_an_hour_without_traffic_is_an_empty_table(write):
    for text in (ZEEK.split("1719146096")[0], NFDUMP_NEW.split("\n")[0] + "\n", NFDUMP_OLD[:72] + "No matched flows\n"):
        assert list(read_flows(write(text))) == []
        table = load_flows(write(text))
        assert len(table) == 0 and {name: str(kind) for name, kind in table.dtypes.items()} == COLUMNS


def test_parameters_are_checked_before_anything_is_read(write, tmp_path):
    path = write(ZEEK)
    used = ReadReport()
    load_flows(path, report=used)
    for options, words in [
        ({"format": "netflow"}, "format must be"), ({"chunk_rows": 0}, "chunk_rows"), ({"chunk_rows": 2.5}, "chunk_rows"),
        ({"chunk_rows": True}, "chunk_rows"),
        ({"timezone": "Berlin"}, "timezone"), ({"timezone": "Europe"}, "timezone"), ({"report": used}, "report"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=words):
            read_flows(path, **options)
    assert len(next(read_flows(path, chunk_rows=np.int64(2)))) == 2
    for missing in (tmp_path / "none.log", tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            read_flows(missing)


def test_flows_keep_the_order_of_the_file(write):
    lines = ZEEK.splitlines(keepends=True)
    table = load_flows(write("".join([*lines[:8], lines[10], lines[8], lines[9]])))
    assert not all(a <= b for a, b in pairwise(table["start"]))
