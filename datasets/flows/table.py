"""From captured packets to the table of flows: states, services, labels, and the file's columns.

The packets become flows in nfstream; everything else here is plain arithmetic on its counts.
"""

from __future__ import annotations

import csv
import ipaddress
import lzma
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from datasets.flows.network import PASSIVE, PORTS, UDP_ONLY, Entry
from diffad.base.whole_files import replacing

EPOCH = datetime(2026, 1, 5, 8, tzinfo=UTC).timestamp()  # a neutral start of the recording
PROTOCOLS = {6: "tcp", 17: "udp"}
IDLE_SECONDS, ACTIVE_SECONDS = 120, 1800
COLUMNS = [
    "start",
    "duration",
    "source",
    "source_port",
    "destination",
    "destination_port",
    "protocol",
    "service",
    "state",
    "bytes_out",
    "bytes_in",
    "packets_out",
    "packets_in",
    "label",
    "attack_id",
]
ATTACK_COLUMNS = ["attack_id", "kind", "start", "end", "source", "destination", "flows", "note"]
SLACK = 1.0  # s; a flow may begin this much before its socket is written down, or end after


@dataclass(frozen=True)
class Sent:
    """What one end of a flow sent: bytes of payload, packets, and packets with each TCP flag."""

    bytes: int
    packets: int
    syn: int = 0
    fin: int = 0
    rst: int = 0


@dataclass(frozen=True)
class Flow:
    """One flow; times in seconds since 1970."""

    start: float
    end: float
    source: str
    source_port: int
    destination: str
    destination_port: int
    protocol: str
    out: Sent
    back: Sent


def capture_flows(pcap: Path) -> Iterator[Flow]:
    """Flows of a capture, by nfstream, in the order in which they expire."""
    from nfstream import NFStreamer

    streamer = NFStreamer(
        source=str(pcap),
        statistical_analysis=True,  # counts TCP flags
        accounting_mode=3,  # bytes of payload
        n_dissections=0,
        n_meters=1,
        idle_timeout=IDLE_SECONDS,
        active_timeout=ACTIVE_SECONDS,
    )
    for seen in streamer:
        if seen.protocol in PROTOCOLS:
            ends = [
                Sent(*(getattr(seen, f"{way}_{what}") for what in ("bytes", "packets")), *flags)
                for way in ("src2dst", "dst2src")
                for flags in [[getattr(seen, f"{way}_{flag}_packets") for flag in ("syn", "fin", "rst")]]
            ]
            yield forward(
                Flow(
                    seen.bidirectional_first_seen_ms / 1000,
                    seen.bidirectional_last_seen_ms / 1000,
                    seen.src_ip,
                    seen.src_port,
                    seen.dst_ip,
                    seen.dst_port,
                    PROTOCOLS[seen.protocol],
                    *ends,
                )
            )


def service(protocol: str, port: int) -> str:
    """Name of the service that usually listens on a port; "other" if none of ours does."""
    if protocol == "tcp" and port in PASSIVE:
        return "ftp-data"
    names = {number: name for name, number in PORTS.items() if (name in UDP_ONLY) == (protocol == "udp")}
    if port == PORTS["dns"]:
        return "dns"
    return names.get(port, "other")


def forward(flow: Flow) -> Flow:
    """Turn a flow around that was cut in its middle and continued by its server."""
    begun = flow.protocol == "udp" or flow.out.syn
    known = service(flow.protocol, flow.source_port) != "other"
    if begun or not known or service(flow.protocol, flow.destination_port) != "other":
        return flow
    return replace(
        flow,
        source=flow.destination,
        source_port=flow.destination_port,
        destination=flow.source,
        destination_port=flow.source_port,
        out=flow.back,
        back=flow.out,
    )


def state(protocol: str, out: Sent, back: Sent) -> str:
    """How a flow began and ended, in the words of Zeek's `conn_state`, as far as counts of flags tell.

    Examples
    --------
    >>> state("tcp", Sent(0, 1, syn=1), Sent(0, 0))
    'S0'
    >>> state("tcp", Sent(0, 1, syn=1), Sent(0, 1, rst=1))
    'REJ'
    """
    if protocol == "udp":
        return "SF" if out.packets and back.packets else "S0" if out.packets else "SHR"
    if not out.syn:
        return "OTH"
    if not back.syn:
        return "REJ" if back.rst else "RSTOS0" if out.rst else "SH" if out.fin else "S0"
    if out.fin and back.fin:
        return "SF"
    if out.rst or back.rst:
        return "RSTO" if out.rst else "RSTR"
    return "S2" if out.fin else "S3" if back.fin else "S1"


class Labels:
    """Which attack, if any, a flow belongs to, by the log of the attackers' sockets."""

    def __init__(self, entries: Iterable[Entry]):
        self.by_ends: dict[tuple, list[Entry]] = defaultdict(list)
        for entry in entries:
            ends = (entry.protocol, entry.source, entry.source_port, entry.destination, entry.destination_port)
            self.by_ends[ends].append(entry)

    def attack_id(self, flow: Flow) -> str:
        """Id of the attack whose socket had the flow's two ends at the flow's time; "" if none had."""
        ends = (flow.protocol, flow.source, flow.source_port, flow.destination, flow.destination_port)
        for entry in self.by_ends.get(ends, ()):
            if flow.start <= entry.closed + SLACK and flow.end >= entry.opened - SLACK:
                return entry.attack_id
        return ""


def stamp(seconds: float) -> str:
    """ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def table(flows: Iterable[Flow], labels: Labels, kinds: dict[str, str], origin: float) -> list[list[object]]:
    """Rows of the file, sorted by start, on a clock that shows `EPOCH` at `origin`."""
    rows: list[list[object]] = []
    for flow in sorted(flows, key=lambda flow: (flow.start, flow.source, flow.source_port, flow.destination_port)):
        attack = labels.attack_id(flow)
        out, back = flow.out, flow.back
        rows.append(
            [
                stamp(flow.start - origin + EPOCH),
                f"{flow.end - flow.start:.3f}",
                flow.source,
                flow.source_port,
                flow.destination,
                flow.destination_port,
                flow.protocol,
                service(flow.protocol, flow.destination_port),
                state(flow.protocol, out, back),
                out.bytes,
                back.bytes,
                out.packets,
                back.packets,
                kinds.get(attack, ""),
                attack,
            ]
        )
    return rows


def attack_rows(
    entries: Iterable[Entry], kinds: dict[str, str], notes: dict[str, str], counts: Counter[str], origin: float
) -> list[list[object]]:
    """One row for each attack, in order of start; several addresses are separated by semicolons."""
    by_attack: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_attack[entry.attack_id].append(entry)
    rows: list[list[object]] = []
    for attack, sockets in sorted(by_attack.items(), key=lambda item: min(entry.opened for entry in item[1])):
        rows.append(
            [
                attack,
                kinds[attack],
                stamp(min(entry.opened for entry in sockets) - origin + EPOCH),
                stamp(max(entry.closed for entry in sockets) - origin + EPOCH),
                addresses(entry.source for entry in sockets),
                addresses(entry.destination for entry in sockets),
                counts[attack],
                notes[attack],
            ]
        )
    return rows


def addresses(many: Iterable[str]) -> str:
    """Distinct addresses in numeric order, separated by semicolons."""
    return ";".join(sorted(set(many), key=ipaddress.ip_address))


def write(path: Path, columns: list[str], rows: Iterable[list[object]]) -> None:
    """Write CSV whole or not at all, compressed if the name ends in .xz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        packed = path.suffix == ".xz"
        with lzma.open(draft, "wt", preset=9, newline="") if packed else draft.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(rows)
