"""The attacks: what attackers do, from where, when, and how hard.

Each attack is a number of steps spread over a time; all are bounded, all go to loopback addresses, and every socket
is written down under the attack's id. Kinds come in several strengths: some are loud, some hide below what users do.
Attackers on workstations sit beside those workstations' normal life.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datasets.flows import clients
from datasets.flows.network import ATTACK, SERVERS, SILENT, SITES, WORKSTATIONS, Network, tcp_syn
from datasets.flows.normal import forgive, size
from datasets.flows.servers import sized

PART = 1080.0  # seconds for which the plan below is written
MOST_STEPS, MOST_SECONDS = 1500, 1080.0
COMMON_PORTS = (
    21,
    22,
    23,
    25,
    53,
    80,
    110,
    111,
    135,
    139,
    143,
    443,
    445,
    993,
    1433,
    3306,
    3389,
    5432,
    5900,
    6379,
    8080,
)

Step = Callable[[Network, str, int], Coroutine[Any, Any, Any]]


@dataclass(frozen=True)
class Attack:
    """`count` steps of one attack, spread evenly over `seconds` from `start` (s after the quiet part), with jitter."""

    id: str
    kind: str
    start: float
    seconds: float
    count: int
    step: Step
    sources: Sequence[str]
    note: str
    jitter: float = 0.5

    def __post_init__(self) -> None:
        if self.count > MOST_STEPS or self.seconds > MOST_SECONDS:
            raise ValueError(
                f"{self.id}: count={self.count}, seconds={self.seconds}; at most {MOST_STEPS} and {MOST_SECONDS}"
            )


# ---- port scan


def knocks(targets: Sequence[tuple[str, int]]) -> Step:
    """Step i connects to target i, whether anybody listens or not."""

    async def step(net: Network, source: str, i: int) -> None:
        host, port = targets[i % len(targets)]
        await clients.knock(net, source, host, port + net.shift)

    return step


async def half_open(net: Network, source: str, host: str, port: int) -> None:
    """Ask for a connection by hand; the kernel, which knows nothing of it, resets what comes back."""
    with socket.socket() as reserved, socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        reserved.bind((source, 0))  # so that nobody else gets this port
        source_port = reserved.getsockname()[1]
        net.note_half_open(source, source_port, host, port)
        raw.sendto(tcp_syn(source, source_port, host, port, net.rng.randrange(1 << 32)), (host, 0))
        await asyncio.sleep(0.5)


def syns(host: str, ports: Sequence[int]) -> Step:
    """Step i sends one SYN to port i of a host and never completes the handshake."""

    async def step(net: Network, source: str, i: int) -> None:
        await half_open(net, source, host, ports[i % len(ports)] + net.shift)

    return step


def probes(host: str, ports: Sequence[int]) -> Step:
    """Step i sends a datagram to port i."""

    async def step(net: Network, source: str, i: int) -> None:
        await clients.ask(net, source, host, ports[i % len(ports)] + net.shift, b"\0" * 12, wait=0.5)

    return step


# ---- password guessing


def guesses(service: str, host: str, tries: int) -> Step:
    """Each step connects and sends `tries` wrong passwords."""
    words = ["0"] * tries

    async def step(net: Network, source: str, i: int) -> None:
        if service == "ssh":
            await clients.shell(net, source, host, words=words)
        elif service == "ftp":
            await clients.files(net, source, host, words=words)
        elif service == "postgresql":
            await clients.query(net, source, [], words=words)
        elif service == "imap":
            await clients.read_mail(net, source, [], words=words)
        elif service == "submission":
            await clients.send_mail(net, source, host, 0, [], service=service, words=words)
        else:
            await clients.web(net, source, host, ["/login?ok=0"] * tries, service=service, post=90)

    return step


# ---- slow requests and floods


def drips(service: str, body: bool, gap: float, seconds: float) -> Step:
    """Each step holds a worker of the web server with a request that never ends."""

    async def step(net: Network, source: str, i: int) -> None:
        await clients.drip(net, source, SERVERS["web"], service=service, body=body, gap=gap, seconds=seconds)

    return step


def sips(page: int, gap: float, seconds: float) -> Step:
    """Each step holds a worker by reading very slowly."""

    async def step(net: Network, source: str, i: int) -> None:
        await clients.sip(net, source, SERVERS["web"], service="http", size=page, gap=gap, seconds=seconds)

    return step


def pages(service: str, path: str) -> Step:
    """Each step fetches one page over a connection of its own."""

    async def step(net: Network, source: str, i: int) -> None:
        await clients.web(net, source, SERVERS["web"], [path], service=service)

    return step


async def random_name(net: Network, source: str, i: int) -> None:
    """Ask for a name that nobody has asked for before."""
    await clients.lookup(net, source, f"{sized(net, 12)}.nx.site5.example", tries=1)


async def blast(net: Network, source: str, i: int) -> None:
    """Throw 120 datagrams at the log server."""
    with net.datagrams(source, SERVERS["monitor"], net.port("syslog")) as sock:
        for n in range(120):
            with contextlib.suppress(OSError):
                sock.send(net.blob[:1000])
            if n % 10 == 9:
                await asyncio.sleep(0.02)


# ---- exfiltration, beacons, tunnels


def uploads(name: str, host: str, least: int, most: int, rate: int = 1_500_000) -> Step:
    """Each step posts a piece of the loot to a site."""

    async def step(net: Network, source: str, i: int) -> None:
        if i % 4 == 0:
            await clients.lookup(net, source, name)
        await clients.web(net, source, host, ["/upload"], post=net.rng.randrange(least, most), rate=rate)

    return step


async def copy_out(net: Network, source: str, i: int) -> None:
    """Copy some megabytes to a shell account outside."""
    await clients.shell(net, source, SITES[1], up=[net.rng.randrange(2_000_000, 7_000_000)], rate=2_000_000)


async def mail_out(net: Network, source: str, i: int) -> None:
    """Mail an archive to oneself."""
    sent = net.rng.randrange(900_000, 2_500_000)
    await clients.send_mail(net, source, SERVERS["mail"], sent, ["a"], service="submission", words=["1"])


async def store_out(net: Network, source: str, i: int) -> None:
    """Store files on a server outside."""
    sent = [net.rng.randrange(150_000, 900_000) for _ in range(2)]
    await clients.files(net, source, SITES[0], up=sent, rate=1_200_000)


def calls_home(name: str, host: str, service: str) -> Step:
    """Each step reports to the controller and fetches orders, which are mostly none."""

    async def step(net: Network, source: str, i: int) -> None:
        if i % 10 == 0:
            await clients.lookup(net, source, name)
        orders = size(net, 20000, 1, 200000) if net.rng.random() < 0.05 else 48
        await clients.web(net, source, host, [f"/c?n={orders}"], service=service, post=net.rng.choice([112, 128, 144]))

    return step


def tunnel_query(net: Network, label: int, answer: int) -> str:
    """A name that carries about `label` bytes and asks for `answer` bytes back."""
    text = sized(net, max(8, int(label * net.rng.uniform(0.7, 1.0))))
    labels = [text[k : k + 60] for k in range(0, len(text), 60)]
    return ".".join([*labels, f"n{answer + net.rng.randrange(12)}", "t.site33.example"])


def tunnels(label: int, answer: int, queries: int = 1) -> Step:
    """Each step sends `queries` pieces in names; several go through one socket."""

    async def step(net: Network, source: str, i: int) -> None:
        if queries == 1:
            await clients.lookup(net, source, tunnel_query(net, label, answer), kind=16)
            return
        with net.datagrams(source, SERVERS["dns"], net.port("dns")) as sock:
            for _ in range(queries):
                message = clients.dns_query(net, tunnel_query(net, label, answer), 16)
                sock.send(message)
                with contextlib.suppress(TimeoutError, ConnectionError):
                    await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 65536), 0.5)
                await asyncio.sleep(net.rng.uniform(0.02, 0.3))

    return step


# ---- the plan


def outside(group: int, count: int = 1) -> list[str]:
    """Addresses among which the visitors are, too."""
    return [f"127.30.{group}.{7 + 11 * i % 240}" for i in range(count)]


def inside(i: int) -> list[str]:
    """A workstation taken over."""
    return [WORKSTATIONS[i]]


def scans() -> list[Attack]:
    """Port scans, from a thousand ports in 25 s to a knock every 7 s."""
    hosts = [*SERVERS.values(), *SITES[:2]]
    slow = [(hosts[(7 * i) % len(hosts)], COMMON_PORTS[(5 * i) % len(COMMON_PORTS)]) for i in range(231)]
    sweep = [(f"127.10.1.{i}", port) for port in (445, 22, 3389) for i in range(5, 45)] + [(h, 445) for h in SILENT]
    public = [(SERVERS[name], port) for port in COMMON_PORTS for name in ("web", "mail", "dns", "app")]
    ladder = [(SERVERS["web"], 1 + (i * 389) % 1000) for i in range(1000)]
    udp = [53, 67, 69, 111, 123, 137, 161, 500, 514, 520, 623, 1194, 1434, 1900, 4500, 5060, 5353, 11211]
    kind = "port_scan"
    return [
        Attack("scan-1", kind, 40, 25, 1000, knocks(ladder), outside(7), "1,000 ports of the web server, connecting"),
        Attack("scan-2", kind, 210, 60, 300, syns(SERVERS["files"], range(1, 301)), inside(6), "300 ports, half-open"),
        Attack("scan-3", kind, 60, 950, 135, knocks(slow), inside(17), "common ports of the servers, one in 7 s", 0.8),
        Attack("scan-4", kind, 520, 100, 136, knocks(sweep), inside(23), "three ports of 40 workstations, and 16 more"),
        Attack("scan-5", kind, 640, 300, 72, probes(SERVERS["monitor"], udp), outside(11), "18 UDP ports, 4 times"),
        Attack("scan-6", kind, 400, 600, 84, knocks(public), outside(3, 12), "public servers, from 12 addresses", 0.9),
    ]


def guessing() -> list[Attack]:
    """Password guessing, from two a second to one in 8 s, alone and distributed."""
    kind, server = "password_guessing", SERVERS
    return [
        Attack("guess-1", kind, 120, 80, 160, guesses("ssh", server["backup"], 1), outside(9), "ssh, 2 a second"),
        Attack("guess-2", kind, 300, 240, 60, guesses("ftp", server["files"], 3), inside(11), "ftp, 3 a connection"),
        Attack("guess-3", kind, 150, 720, 90, guesses("https", server["app"], 1), inside(3), "web login, one in 8 s"),
        Attack(
            "guess-4",
            kind,
            500,
            500,
            90,
            guesses("submission", server["mail"], 1),
            outside(5, 14),
            "mail login, from 14 addresses",
            0.9,
        ),
        Attack("guess-5", kind, 820, 120, 60, guesses("postgresql", server["database"], 2), inside(13), "database"),
        Attack(
            "guess-6", kind, 700, 330, 55, guesses("imap", server["mail"], 3), outside(14), "mailbox, 3 a connection"
        ),
    ]


def exhaustion() -> list[Attack]:
    """Slow requests that hold the web server's workers, and floods."""
    slow, flood, fast = "slow_requests", "flood", "/page?n=900"
    spoofed = [f"127.31.{i}.{(37 * i) % 250 + 1}" for i in range(40)]
    web, dns = [80], inside(1) + inside(8) + inside(16) + inside(24) + inside(31)
    return [
        Attack("slow-1", slow, 260, 30, 150, drips("http", False, 7, 60), outside(2), "150 headers that never end"),
        Attack("slow-2", slow, 540, 180, 60, drips("https", True, 9, 70), outside(6, 3), "bodies, from 3 addresses"),
        Attack("slow-3", slow, 560, 440, 60, sips(3_000_000, 3, 25), outside(13), "slow readers, about 3 at a time"),
        Attack("flood-1", flood, 480, 20, 700, syns(SERVERS["web"], web), spoofed, "SYN, from 40 forged addresses"),
        Attack("flood-2", flood, 720, 45, 700, pages("https", fast), outside(8, 10), "pages, 16 a second"),
        Attack("flood-3", flood, 860, 90, 600, random_name, dns, "random names, from 5 workstations"),
        Attack("flood-4", flood, 600, 240, 260, pages("http", "/query"), outside(12, 3), "costly pages, 1 a second"),
        Attack("flood-5", flood, 960, 40, 40, blast, inside(28), "datagrams at the log server"),
    ]


def theft() -> list[Attack]:
    """Exfiltration, from loud to hidden in what users send anyway."""
    kind = "exfiltration"
    loud = uploads("files.site31.example", SITES[31], 3_000_000, 7_000_000)
    low = uploads("drive.site4.example", SITES[4], 50_000, 250_000)
    return [
        Attack("theft-1", kind, 90, 200, 10, loud, inside(9), "3 to 7 MB a time to a rarely used site"),
        Attack("theft-2", kind, 120, 850, 85, low, inside(27), "50 to 250 kB in 10 s to the usual file share"),
        Attack("theft-3", kind, 600, 240, 8, copy_out, [SERVERS["database"]], "from the database server by ssh"),
        Attack("theft-4", kind, 430, 400, 25, mail_out, inside(20), "by mail, 0.9 to 2.5 MB each"),
        Attack("theft-5", kind, 880, 150, 15, store_out, inside(2), "by ftp to a server outside"),
    ]


def control() -> list[Attack]:
    """Beacons of infected workstations and tunnels in DNS."""
    beacon, tunnel = "beaconing", "dns_tunnelling"
    home, plain = calls_home("a.site22.example", SITES[22], "https"), calls_home("b.site25.example", SITES[25], "http")
    hidden = calls_home("c.site10.example", SITES[10], "https")
    return [
        Attack("beacon-1", beacon, 30, 950, 95, home, inside(30), "https, every 10 s", 0.05),
        Attack("beacon-2", beacon, 20, 1025, 41, plain, inside(15), "http, every 25 s, irregular", 0.35),
        Attack("beacon-3", beacon, 150, 880, 55, tunnels(24, 40), inside(19), "DNS texts, every 16 s", 0.2),
        Attack("beacon-4", beacon, 60, 960, 16, hidden, inside(26), "like the heartbeats, every minute", 0.1),
        Attack("tunnel-1", tunnel, 340, 40, 500, tunnels(150, 400), inside(12), "500 long names in 40 s"),
        Attack(
            "tunnel-2", tunnel, 300, 720, 180, tunnels(52, 120), inside(29), "one in 4 s, like a virus scanner", 0.8
        ),
        Attack("tunnel-3", tunnel, 760, 240, 8, tunnels(170, 300, 120), inside(21), "120 names through one socket"),
    ]


def plan(seconds: float) -> list[Attack]:
    """Every attack in order of start, written for `PART` seconds; times and counts shrink with `seconds`."""
    scale = min(1.0, seconds / PART)
    attacks = [*scans(), *guessing(), *exhaustion(), *theft(), *control()]
    shrunk = (
        replace(a, start=a.start * scale, seconds=a.seconds * scale, count=max(2, round(a.count * scale)))
        for a in attacks
    )
    return sorted(shrunk, key=lambda attack: attack.start)


async def run(net: Network, attack: Attack) -> None:
    """Carry out one attack under its id."""
    ATTACK.set(attack.id)
    gap = attack.seconds / attack.count
    tasks = []
    for i in range(attack.count):
        source = attack.sources[i % len(attack.sources)]
        tasks.append(net.spawn(forgive(attack.step(net, source, i))))
        await asyncio.sleep(gap * net.rng.uniform(1 - attack.jitter, 1 + attack.jitter))
    await asyncio.gather(*tasks)
