"""What each flow log calls its fields, and how these become the columns of `diffad.flows.table`.

Sources: Zeek's ``base/protocols/conn/main.zeek``, Suricata's ``output-json-flow.c``, nfdump's ``output_csv.c`` (1.6 to
1.7) and ``output_csv_fast.c``, CICFlowMeter's ``FlowFeature.java`` and the headers of its data sets, nfstream's
``flow.py``.

Bytes are what the exporter counts: IP packets for Zeek (payload where it does not count packets), nfdump and captures;
whole frames for Suricata; payload for CICFlowMeter. NetFlow is one-way: the answer is another flow, and counters back
are missing or 0 unless nfdump joined both (``-B``). A finishing function takes one column per field, text or numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from diffad.flows.table import COUNTERS, FIN, PORTS, RST, SYN, connection_state

Fields = dict[str, Any]
Names = dict[str, tuple[str, ...]]

#: Our field, and what Zeek, Suricata, nfdump (| from 1.7.5 on) and nfstream call it.
_NAMES = """
start             ts             flow.start           ts|firstseen                bidirectional_first_seen_ms
end               -              flow.end             te|lastseen                 -
duration          duration       -                    td|duration                 bidirectional_duration_ms
source            id.orig_h      src_ip               sa|srcaddr                  src_ip
source_port       id.orig_p      src_port             sp|srcport                  src_port
destination       id.resp_h      dest_ip              da|dstaddr                  dst_ip
destination_port  id.resp_p      dest_port            dp|dstport                  dst_port
protocol          proto          proto                pr|proto                    protocol
service           service        app_proto            -                           application_name
state             conn_state     flow.state           flg|flags                   -
flags_out         -              tcp.tcp_flags_ts     -                           -
flags_in          -              tcp.tcp_flags_tc     -                           -
bytes_out         orig_ip_bytes  flow.bytes_toserver  ibyt|inbytes|bytes|byt      src2dst_bytes
bytes_in          resp_ip_bytes  flow.bytes_toclient  obyt|outbytes               dst2src_bytes
packets_out       orig_pkts      flow.pkts_toserver   ipkt|inpackets|packets|pkt  src2dst_packets
packets_in        resp_pkts      flow.pkts_toclient   opkt|outpackets             dst2src_packets
payload_out       orig_bytes     -                    -                           -
payload_in        resp_bytes     -                    -                           -
"""
_ROWS = [line.split() for line in _NAMES.strip().splitlines()]
ZEEK, SURICATA, NFDUMP, NFSTREAM = (
    {row[0]: tuple(row[k].split("|")) for row in _ROWS if row[k] != "-"} for k in range(1, 5)
)
BITS = {"fin": FIN, "syn": SYN, "rst": RST}
NFSTREAM |= {f"{ways[:3]}_{flag}": (f"{ways}_{flag}_packets",) for ways in ("src2dst", "dst2src") for flag in BITS}
#: CICFlowMeter 4, the data sets of 2017 and 2018, and the Python port.
CICFLOWMETER: Names = {
    "start": ("timestamp",),
    "duration": ("flow_duration",),
    "source": ("src_ip", "source_ip"),
    "source_port": ("src_port", "source_port"),
    "destination": ("dst_ip", "destination_ip"),
    "destination_port": ("dst_port", "destination_port"),
    "protocol": ("protocol",),
    "packets_out": ("total_fwd_packet", "total_fwd_packets", "tot_fwd_pkts"),
    "packets_in": ("total_bwd_packets", "total_backward_packets", "tot_bwd_pkts"),
    "bytes_out": ("total_length_of_fwd_packet", "total_length_of_fwd_packets", "totlen_fwd_pkts"),
    "bytes_in": ("total_length_of_bwd_packet", "total_length_of_bwd_packets", "totlen_bwd_pkts"),
    "rate": ("flow_packets/s", "flow_pkts/s", "flow_pkts_s"),
}
#: Flags that CICFlowMeter counts, in the order and letters of nfdump's text.
FLAGS = {"ece": "E", "urg": "U", "ack": "A", "psh": "P", "rst": "R", "syn": "S", "fin": "F"}
CICFLOWMETER |= {flag: (f"{flag}_flag_count", f"{flag}_flag_cnt") for flag in FLAGS}
#: Fields that hold numbers, whatever the format.
NUMERIC = {*COUNTERS, *PORTS, *FLAGS, "rate", "payload_out", "payload_in"}


@dataclass(frozen=True)
class Format:
    """A flow log: the names of its fields and the function that makes columns of them.

    Attributes
    ----------
    names : dict
        Field of ours -> names of theirs, for columns in lower case with underscores.
    finish : callable
        Turns the fields found, one column each, into columns for `flow_table`.
    needs : set of str
        Fields of ours that a header of flows has.
    proof : tuple of str
        Names of which a record of flows has at least one, and records of other logs under the same roof have none.
    """

    names: Names
    finish: Callable[[pd.DataFrame], Fields]
    needs: Set[str] = frozenset({"start", "source", "destination"})
    proof: tuple[str, ...] = ()


def _zeek(frame: pd.DataFrame) -> Fields:
    fields = dict(frame.items())
    for name in ("bytes_out", "bytes_in"):
        payload = fields.pop(name.replace("bytes", "payload"), None)
        if payload is not None:
            fields[name] = fields[name].where(fields[name].notna(), payload) if name in fields else payload
    if "duration" in fields:  # Zeek leaves out a duration of zero, as that of a single packet
        fields["duration"] = fields["duration"].where(fields["duration"].notna(), 0.0)
    return fields


def _suricata(frame: pd.DataFrame) -> Fields:
    fields = dict(frame.items())
    out, back = (fields.pop(name).map(_hexadecimal).to_numpy(dtype=np.int64) for name in ("flags_out", "flags_in"))
    tcp = frame["protocol"].astype(str).str.lower().to_numpy() == "tcp"
    replied = pd.to_numeric(frame["packets_in"], errors="coerce").to_numpy(dtype=float) > 0
    # Without a TCP session of its own Suricata writes the flags as 00, but knows a word for the state.
    known = ~tcp | ((out | back) > 0)
    fields["state"] = frame["state"].mask(known, pd.Series(connection_state(tcp, out, back, replied)))
    fields["service"] = frame["service"].where(frame["service"] != "failed")
    return fields


def _hexadecimal(flags: Any) -> int:
    try:
        return int(flags, 16) & 0xFF
    except (TypeError, ValueError):
        return 0


def _nfdump(frame: pd.DataFrame) -> Fields:
    fields = dict(frame.items())
    if "state" in fields:  # 1.6 leaves out the two leftmost flags
        flags = fields["state"].map(lambda text: str(text).strip().rjust(8, "."), na_action="ignore")
        fields["state"] = flags.where(flags != "........")
    return fields


def _cicflowmeter(frame: pd.DataFrame) -> Fields:
    fields = dict(frame.items())
    known = frame.columns.intersection([*NUMERIC, "protocol"])
    numbers = {name: pd.to_numeric(frame[name], errors="coerce").astype(float) for name in known}
    if "duration" in fields:
        seconds = _cic_seconds(numbers)
        fields["duration"] = seconds.where(seconds.notna(), frame["duration"])
    if numbers.keys() >= {*FLAGS, "protocol", "packets_in"}:
        seen = {flag: (numbers[flag] > 0).to_numpy() for flag in FLAGS}
        text = np.full(len(frame), ".", dtype=object)
        for flag, letter in FLAGS.items():
            text = text + np.where(seen[flag], letter, ".").astype(object)
        tcp = (numbers["protocol"] == 6).to_numpy()
        unanswered = (numbers["packets_in"] == 0).to_numpy() & (seen["syn"] | ~tcp)
        fields["state"] = np.where(unanswered, "S0", np.where(tcp, text, "SF"))
    return fields


def _cic_seconds(numbers: dict[str, pd.Series]) -> pd.Series:
    """Return durations in seconds.

    CICFlowMeter writes microseconds, some ports of it seconds: packets and packets per second tell which.
    """
    given = numbers["duration"]
    if not numbers.keys() >= {"rate", "packets_out", "packets_in"}:
        return given * 1e-6
    implied = (numbers["packets_out"] + numbers["packets_in"]) / numbers["rate"].where(numbers["rate"] > 0)
    return given.where((given - implied).abs() < 1e-3 * implied, given * 1e-6)


def _nfstream(frame: pd.DataFrame) -> Fields:
    fields = dict(frame.items())
    out, back = (
        np.sum([bit * (frame[f"{way}_{flag}"] > 0) for flag, bit in BITS.items()], axis=0) for way in ("src", "dst")
    )
    tcp, replied = (frame["protocol"] == 6).to_numpy(), (frame["packets_in"] > 0).to_numpy()
    fields["state"] = connection_state(tcp, out, back, replied)
    fields["duration"] = frame["duration"] / 1e3
    names = frame["service"].map(lambda name: str(name).split(".")[0].lower(), na_action="ignore")
    fields["service"] = names.where(names != "unknown")
    return fields


_CONN = ("conn_state", "orig_bytes", "orig_pkts", "orig_ip_bytes", "missed_bytes", "history")
#: Formats by name.
FORMATS = {
    "zeek": Format(ZEEK, _zeek, proof=_CONN),
    "zeek-json": Format(ZEEK, _zeek, proof=_CONN),
    "suricata": Format(SURICATA, _suricata, proof=("flow",)),
    "nfdump": Format(NFDUMP, _nfdump),
    "cicflowmeter": Format(CICFLOWMETER, _cicflowmeter, needs=frozenset({"start", "duration", "packets_out"})),
    "pcap": Format(NFSTREAM, _nfstream),
}
