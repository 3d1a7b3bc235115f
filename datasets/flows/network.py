"""The recorded network: its addresses, its guarded sockets and the log of the attackers' sockets.

Every address of 127.0.0.0/8 acts as a host. Servers, clients and attackers open sockets only through `Network`, which
refuses any other address, and which writes down each socket opened on behalf of an attack. The labels of the flows
come from that log alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import ctypes
import ipaddress
import random
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffad.base.whole_files import replacing

PORTS = {
    "ftp": 21,
    "ssh": 22,
    "smtp": 25,
    "dns": 53,
    "http": 80,
    "ntp": 123,
    "imap": 143,
    "https": 443,
    "syslog": 514,
    "submission": 587,
    "postgresql": 5432,
    "irc": 6667,
    "http-alt": 8080,
    "metrics": 9100,
}
UDP_ONLY = {"ntp", "syslog"}
PASSIVE = range(30000, 30200)  # data ports of the file server, below the ephemeral ports

SERVERS = {
    "web": "127.10.2.80",
    "app": "127.10.2.81",
    "dns": "127.10.2.53",
    "mail": "127.10.2.25",
    "files": "127.10.2.21",
    "backup": "127.10.2.22",
    "database": "127.10.2.54",
    "chat": "127.10.2.66",
    "monitor": "127.10.2.90",
}
WORKSTATIONS = [f"127.10.1.{i}" for i in range(10, 58)]
SITES = [f"127.20.{i // 10}.{10 + i % 10}" for i in range(40)]  # stand-ins for the world outside
RELAYS = [f"127.21.0.{i}" for i in range(1, 9)]  # foreign mail servers
SILENT = [f"127.10.1.{i}" for i in range(200, 216)]  # behind a packet filter: they never answer
FILTERED_PORTS = (22, 23, 25, 80, 139, 443, 445, 3306, 3389, 5432, 8080)

SO_ATTACH_FILTER = 26
SO_MAX_PACING_RATE = 47

ATTACK: ContextVar[str] = ContextVar("attack", default="")  # tasks started by an attack inherit its id
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
FAILURES = (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError)


def loopback(address: str) -> str:
    """The address itself, if it lies in 127.0.0.0/8.

    Raises
    ------
    ValueError
        If it does not: nothing here may ever talk to another machine.
    """
    if ipaddress.ip_address(address) not in ipaddress.ip_network("127.0.0.0/8"):
        raise ValueError(f"address={address!r} is not a loopback address; use one of 127.0.0.0/8")
    return address


@dataclass
class Entry:
    """One socket of an attacker: whose, between which ends, from when to when (seconds since 1970)."""

    attack_id: str
    protocol: str
    source: str
    source_port: int
    destination: str
    destination_port: int
    opened: float
    closed: float


def save_ledger(path: Path, entries: list[Entry]) -> None:
    """Write the log as CSV, whole or not at all: it is written again and again while the network lives."""
    with replacing(path) as draft, draft.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Entry.__dataclass_fields__)
        writer.writerows([*list(vars(entry).values())] for entry in entries)


def load_ledger(path: Path) -> list[Entry]:
    """Read what `save_ledger` wrote."""
    with path.open(newline="") as file:
        return [
            Entry(
                row["attack_id"],
                row["protocol"],
                row["source"],
                int(row["source_port"]),
                row["destination"],
                int(row["destination_port"]),
                float(row["opened"]),
                float(row["closed"]),
            )
            for row in csv.DictReader(file)
        ]


def tls_contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS settings of server and client around a fresh self-signed certificate made in `folder`."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "3", "-subj", "/CN=site.example"]
    subprocess.run(command, check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(certificate)
    return server, client


def drop_everything(sock: socket.socket) -> None:
    """Attach a filter that discards every packet before the socket sees it, as a firewall would."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0 bytes
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))


def tcp_syn(source: str, source_port: int, destination: str, destination_port: int, sequence: int) -> bytes:
    """An IPv4 packet that asks for a connection (RFC 9293); the kernel fills in the IP checksum."""
    ends = socket.inet_aton(loopback(source)) + socket.inet_aton(loopback(destination))
    options = struct.pack("!BBH", 2, 4, 1460)
    tcp = struct.pack("!HHIIBBHHH", source_port, destination_port, sequence, 0, 6 << 4, 2, 1024, 0, 0) + options
    pseudo = ends + struct.pack("!BBH", 0, 6, len(tcp)) + tcp
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    tcp = tcp[:16] + struct.pack("!H", checksum) + tcp[18:]
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), sequence & 0xFFFF, 0, 64, 6, 0) + ends + tcp


async def close(writer: asyncio.StreamWriter) -> None:
    """Send what is left and say goodbye, but wait no longer than 3 s for the other end."""
    writer.close()
    try:
        await asyncio.wait_for(writer.wait_closed(), 3.0)
    except TimeoutError:
        writer.transport.abort()
    except FAILURES:
        return  # already broken off


def reset(writer: asyncio.StreamWriter) -> None:
    """Break the connection off with a RST."""
    sock = writer.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return  # the other end was faster
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Network:
    """Sockets between loopback hosts, with a log of those that belong to an attack.

    Parameters
    ----------
    seed : int
        Seed of all random choices; timing decides the rest.
    tls : pair of ssl.SSLContext, optional
        Settings of server and client. Without it port 443 speaks plain HTTP.
    shift : int, default 0
        Added to every port of a service, so that a trial needs no privileges.
    """

    def __init__(self, seed: int, tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None, shift: int = 0):
        self.rng = random.Random(seed)
        self.tls = tls
        self.shift = shift
        self.ledger: list[Entry] = []
        self.blob = self.rng.randbytes(1 << 20)
        self.tasks: set[asyncio.Task] = set()
        self.walls: list[socket.socket] = []  # sockets whose packets are filtered away

    def port(self, service: str) -> int:
        """Where a service listens."""
        return PORTS[service] + self.shift

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task:
        """Run a coroutine beside the others and keep it from being collected."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    @contextlib.contextmanager
    def logged(self, protocol: str, sock: socket.socket, destination: str, port: int) -> Iterator[None]:
        """Write the socket down while an attack owns it."""
        if not ATTACK.get():
            yield
            return
        source, source_port = sock.getsockname()[:2]
        now = time.time()
        entry = Entry(ATTACK.get(), protocol, source, source_port, destination, port, now, now)
        self.ledger.append(entry)
        try:
            yield
        finally:
            entry.closed = time.time()

    @contextlib.asynccontextmanager
    async def dial(
        self, source: str, destination: str, port: int, *, wait: float = 6.0, rate: int = 0, small: bool = False
    ) -> AsyncIterator[Streams]:
        """A TCP connection, with TLS to the https port, closed on leaving.

        `wait` bounds the connecting (s), `rate` the sending (bytes/s; 0 = unbounded); `small` shrinks the buffer of
        received data, for readers that read slowly.
        """
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind((loopback(source), 0))
        if rate:
            sock.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, rate)
        if small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with self.logged("tcp", sock, loopback(destination), port), contextlib.closing(sock):
            loop = asyncio.get_running_loop()
            await asyncio.wait_for(loop.sock_connect(sock, (destination, port)), wait)
            secure: dict[str, Any] = {}
            if self.tls and port == self.port("https"):
                secure = {"ssl": self.tls[1], "server_hostname": "site.example", "ssl_shutdown_timeout": 2.0}
            opening = asyncio.open_connection(sock=sock, limit=1024 if small else 1 << 16, **secure)
            reader, writer = await asyncio.wait_for(opening, wait)
            try:
                yield reader, writer
            finally:
                await close(writer)

    @contextlib.contextmanager
    def datagrams(self, source: str, destination: str, port: int) -> Iterator[socket.socket]:
        """A UDP socket connected to one destination."""
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.bind((loopback(source), 0))
            sock.connect((loopback(destination), port))
            with self.logged("udp", sock, destination, port):
                yield sock

    def note_half_open(self, source: str, source_port: int, destination: str, port: int) -> None:
        """Write down a connection request made by hand."""
        now = time.time()
        self.ledger.append(Entry(ATTACK.get(), "tcp", source, source_port, destination, port, now, now))
