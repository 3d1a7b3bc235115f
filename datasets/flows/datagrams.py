"""Name service, clock and log: servers of single datagrams."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import zlib
from collections.abc import Callable

from datasets.flows.network import SERVERS, SITES, Network, loopback


def dns_question(message: bytes) -> tuple[str, int, int]:
    """Name, type and end of the first question of a DNS message (RFC 1035)."""
    labels, at = [], 12
    while message[at]:
        labels.append(message[at + 1 : at + 1 + message[at]].decode("latin-1"))
        at += 1 + message[at]
    return ".".join(labels), struct.unpack("!H", message[at + 1 : at + 3])[0], at + 5


def dns_answer(net: Network, query: bytes, limit: int = 1232) -> bytes:
    """The answer to one DNS query: addresses, texts, or that there is no such name; cut at `limit` bytes."""
    name, kind, end = dns_question(query)
    mark = zlib.crc32(name.encode())
    question, records = query[12:end], []
    missing = ".nx." in name or name.endswith(".nx")
    if missing:
        records = [struct.pack("!HHHIH", 0xC00C, 6, 1, 300, 58 + mark % 12) + net.blob[: 58 + mark % 12]]
    elif kind == 16:  # TXT: a name of the form x.n123.y asks for 123 bytes
        asked = next((int(label[1:]) for label in name.split(".") if label[1:].isdigit() and label[0] == "n"), 90)
        for size in [250] * (asked // 250) + [asked % 250]:
            records.append(struct.pack("!HHHIHB", 0xC00C, 16, 1, 60, size + 1, size) + net.blob[:size])
    else:
        for i in range(1 + mark % 4 + (26 if mark % 37 == 0 else 0)):
            address = socket.inet_aton(SITES[(mark + i) % len(SITES)])
            records.append(struct.pack("!HHHIH", 0xC00C, 1, 1, 60 + mark % 3600, 4) + address)
    body = b"".join(records)
    flags = 0x8180 | (3 if missing else 0)
    if 12 + len(question) + len(body) > limit:
        body, records, flags = b"", [], flags | 0x0200  # truncated: ask again over TCP
    counts = (1, 0, len(records), 0) if missing else (1, len(records), 0, 0)
    return query[:2] + struct.pack("!HHHHH", flags, *counts) + question + body


class Datagrams(asyncio.DatagramProtocol):
    """Answers each datagram by `reply(data)`, late if the resolver has to ask around, sometimes never."""

    def __init__(self, net: Network, reply: Callable[[bytes], bytes], slow: float, lost: float):
        self.net, self.reply, self.slow, self.lost = net, reply, slow, lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.DatagramTransport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: tuple) -> None:
        if self.net.rng.random() < self.lost:
            return
        with contextlib.suppress(IndexError, struct.error):
            if not (answer := self.reply(data)):
                return
            late = self.net.rng.random() < self.slow
            delay = self.net.rng.lognormvariate(-3.5, 0.8) if late else self.net.rng.uniform(0.0002, 0.002)
            asyncio.get_running_loop().call_later(delay, self.transport.sendto, answer, addr)


async def over_tcp(net: Network, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """DNS messages behind their length."""
    while True:
        size = struct.unpack("!H", await asyncio.wait_for(reader.readexactly(2), 10))[0]
        answer = dns_answer(net, await asyncio.wait_for(reader.readexactly(size), 10), 1 << 16)
        writer.write(struct.pack("!H", len(answer)) + answer)


async def start(net: Network) -> None:
    """Start the servers of datagrams; they run until the loop ends."""
    for service, hosts, reply, slow, lost in (
        ("dns", [SERVERS["dns"]], lambda query: dns_answer(net, query), 0.3, 0.008),
        ("ntp", [SERVERS["dns"], SITES[3]], lambda query: net.blob[:48], 0.2, 0.02),
        ("syslog", [SERVERS["monitor"]], lambda query: b"", 0.0, 0.0),
    ):
        for host in hosts:
            await asyncio.get_running_loop().create_datagram_endpoint(
                lambda reply=reply, slow=slow, lost=lost: Datagrams(net, reply, slow, lost),  # type: ignore[misc]
                local_addr=(loopback(host), net.port(service)),
            )
