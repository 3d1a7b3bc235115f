"""The normal life of the network: what users, visitors and machines do, and how often, over compressed days.

Every activity is one call: it draws its own content, runs to its end and forgives failures, as people do. The load
follows a day of `DAY` seconds with quiet nights, busy mornings and afternoons, and bursts; machines keep their own
periods. The same process runs from the first second to the last, whether or not somebody attacks.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from datasets.flows import clients
from datasets.flows.network import FAILURES, RELAYS, SERVERS, SILENT, SITES, WORKSTATIONS, Network
from datasets.flows.servers import sized

DAY = 440.0  # seconds
Activity = Callable[[Network, str], Coroutine[Any, Any, None]]


def load(t: float, burst: bool = True) -> float:
    """Share of the mean load at second t: two humps a day, a quiet night, a short rush now and then."""
    hour = 24 * (t % DAY) / DAY
    humps = math.exp(-(((hour - 10) / 2.4) ** 2)) + 0.9 * math.exp(-(((hour - 15) / 2.6) ** 2))
    rush = 2.2 if burst and (t * 0.731) % 67 < 3.5 else 1.0
    return (0.35 + 1.55 * humps) * rush


def size(net: Network, median: float, spread: float, most: float) -> int:
    """A lognormal number of bytes, at most `most`."""
    return int(min(most, net.rng.lognormvariate(math.log(median), spread))) + 1


def site(net: Network) -> tuple[str, str]:
    """Name and address of a site; few are popular, many are not."""
    index = min(int(net.rng.paretovariate(0.75)) - 1, len(SITES) - 1)
    return f"{net.rng.choice(['www', 'cdn', 'static', 'api'])}.site{index}.example", SITES[index]


def visitor(net: Network) -> str:
    """Somebody from outside; some come back."""
    return f"127.30.{net.rng.randrange(1, 20)}.{int(net.rng.paretovariate(0.6)) % 250 + 1}"


# ---- users


async def browse(net: Network, user: str) -> None:
    """Names, then one to five parallel connections to a site and its helpers."""
    name, host = site(net)
    await clients.lookup(net, user, name)
    if net.rng.random() < 0.4:
        net.spawn(forgive(clients.lookup(net, user, name, kind=28)))
    await connection(net, user, host)
    for _ in range(min(int(net.rng.paretovariate(1.1)) - 1, 5)):
        other, helper = site(net) if net.rng.random() < 0.5 else (name, host)
        if other != name:
            await clients.lookup(net, user, other)
        net.spawn(forgive(connection(net, user, helper)))


async def connection(net: Network, user: str, host: str) -> None:
    """Pages from one site over one connection, left open for a while."""
    paths = []
    for _ in range(min(int(net.rng.paretovariate(1.2)), 12)):
        paths.append(f"/page?n={size(net, 9000, 1.5, 2e6)}&r={size(net, 2e6, 0.8, 2e7) + 50000}")
    await clients.web(
        net,
        user,
        host,
        paths,
        service="https" if net.rng.random() < 0.88 else "http",
        post=size(net, 700, 1.2, 60000) if net.rng.random() < 0.12 else 0,
        pause=net.rng.choice([0.05, 0.4, 2.0]),
        linger=net.rng.choice([0, 0, 0, 1, 5, 20]),
        abort=net.rng.random() < 0.06,
    )


async def intranet(net: Network, user: str) -> None:
    """The company's own pages, often with the database behind."""
    if net.rng.random() < 0.4:
        await clients.lookup(net, user, "app.corp.example")
    paths = ["/query"] * net.rng.randrange(1, 5) if net.rng.random() < 0.5 else [f"/page?n={size(net, 15000, 1, 5e5)}"]
    service = net.rng.choice(["https", "https", "http", "http-alt"])
    await clients.web(net, user, SERVERS["app"], paths, service=service, linger=net.rng.choice([0, 0, 4]))


async def login(net: Network, user: str) -> None:
    """Log in to the web application, sometimes only at the second or third try."""
    ok = net.rng.random() < 0.8
    tries = ["/login?ok=0"] * (0 if ok else net.rng.randrange(1, 4)) + [
        "/login?ok=1",
        f"/page?n={size(net, 30000, 1, 3e5)}",
    ]
    await clients.web(net, user, SERVERS["app"], tries, post=90, pause=1.5)


async def download(net: Network, user: str) -> None:
    """A long download."""
    await clients.lookup(net, user, f"mirror.site{net.rng.randrange(6)}.example")
    path = f"/file?n={size(net, 2.5e6, 1.0, 2.5e7)}&r={size(net, 8e5, 0.7, 4e6) + 80000}"
    host = SITES[net.rng.randrange(6)]
    await clients.web(net, user, host, [path], service="https" if net.rng.random() < 0.7 else "http")


async def upload(net: Network, user: str) -> None:
    """Pictures, backups and big attachments go to a file share outside."""
    await clients.lookup(net, user, "drive.site4.example")
    pieces = ["/upload"] * net.rng.randrange(1, 4)
    rate = size(net, 9e5, 0.6, 4e6) + 80000
    await clients.web(net, user, SITES[4], pieces, post=size(net, 180000, 1.4, 6e6), rate=rate)


async def names(net: Network, user: str) -> None:
    """Names asked for by programs: addresses, texts, reverse names, mistyped and vanished ones."""
    kind = net.rng.random()
    if kind < 0.15:
        await clients.lookup(net, user, f"{sized(net, net.rng.randrange(4, 16))}.nx.example")
    elif kind < 0.25:  # content networks and virus scanners encode things in names
        hashed = sized(net, net.rng.choice([32, 40, 52]))
        await clients.lookup(net, user, f"{hashed}.n{net.rng.choice([16, 60, 120])}.rep.site7.example", kind=16)
    elif kind < 0.35:
        await clients.lookup(net, user, f"{net.rng.randrange(255)}.2.10.127.in-addr.nx.example", kind=12)
    else:
        await clients.lookup(net, user, site(net)[0], kind=net.rng.choice([1, 1, 28, 65]))


async def mail(net: Network, user: str) -> None:
    """Send a mail, now and then after mistyping the password."""
    words = ["0", "1"] if net.rng.random() < 0.06 else ["1"]
    to = [net.rng.choice(["a", "b", "c", "unknown"]) for _ in range(net.rng.choice([1, 1, 1, 2, 8]))]
    host = SERVERS["mail"]
    await clients.send_mail(net, user, host, size(net, 6000, 1.6, 6e6), to, service="submission", words=words)


async def inbox(net: Network, user: str) -> None:
    """Read mail; some programs stay connected and wait for more."""
    sizes = [size(net, 8000, 1.5, 3e6) for _ in range(net.rng.choice([0, 0, 1, 2, 6]))]
    words = ["0", "0", "1"] if net.rng.random() < 0.03 else ["1"]
    await clients.read_mail(net, user, sizes, words=words, idle=net.rng.choice([0, 0, 0, 50, 150, 300]))


async def files(net: Network, user: str) -> None:
    """Fetch and store some files."""
    down = [size(net, 60000, 1.8, 8e6) for _ in range(net.rng.choice([0, 1, 2, 5]))]
    up = [size(net, 50000, 1.8, 5e6) for _ in range(net.rng.choice([0, 0, 1, 3]))]
    words = net.rng.choice([["1"]] * 8 + [["0", "1"], ["0", "0", "0"]])
    await clients.files(
        net, user, SERVERS["files"], down=down, up=up, words=words, rate=size(net, 3e6, 0.8, 2e7) + 90000
    )


async def shell(net: Network, user: str) -> None:
    """An administrator at work, with a typing error in the password now and then."""
    host = net.rng.choice(list(SERVERS.values()))
    words = net.rng.choice([["1"]] * 8 + [["0", "1"], ["0", "0", "0"]])
    down = [size(net, 80000, 2, 5e6)] if net.rng.random() < 0.2 else []
    await clients.shell(net, user, host, keys=int(net.rng.paretovariate(0.7)) % 60, down=down, words=words, pause=1.2)


async def report(net: Network, user: str) -> None:
    """A query tool: a few rows mostly, a whole table at times."""
    counts = [net.rng.choice([1, 10, 10, 50, 200, 2000]) for _ in range(int(net.rng.paretovariate(1.0)) % 12 + 1)]
    words = ["0", "1"] if net.rng.random() < 0.04 else ["1"]
    await clients.query(net, user, counts, words=words, pause=net.rng.choice([0.02, 0.5, 3.0]))


async def chat(net: Network, user: str) -> None:
    """Stay in the chat room for minutes."""
    await clients.talk(net, user, net.rng.uniform(40, 500), net.rng.choice([8.0, 30.0, 200.0]))


async def misfit(net: Network, user: str) -> None:
    """What goes wrong on any network: closed ports, hosts behind a filter, services that moved."""
    kind = net.rng.random()
    if kind < 0.35:
        await clients.knock(net, user, net.rng.choice(SILENT), net.rng.choice([80, 443, 445]) + net.shift, wait=3.3)
    elif kind < 0.7:
        host = net.rng.choice([*SERVERS.values(), *SITES])
        await clients.knock(net, user, host, net.rng.choice([80, 139, 445, 631, 8080, 8443]) + net.shift)
    else:
        for _ in range(net.rng.randrange(2, 5)):
            await clients.knock(net, user, SERVERS["files"], 445 + net.shift)
            await asyncio.sleep(1)


# ---- from outside


async def visit(net: Network, _: str) -> None:
    """A visitor of the public web server, some on slow lines."""
    slow = net.rng.random() < 0.08
    rate = f"&r={size(net, 25000, 0.5, 60000) + 8000}" if slow else ""
    paths = [f"/page?n={size(net, 14000, 1.2, 8e5)}{rate}" for _ in range(min(int(net.rng.paretovariate(1.1)), 8))]
    if net.rng.random() < 0.15:
        paths = ["/query", *paths]
    await clients.web(
        net,
        visitor(net),
        SERVERS["web"],
        paths,
        service="https" if net.rng.random() < 0.8 else "http",
        pause=net.rng.choice([0.1, 1.0, 4.0]),
        linger=net.rng.choice([0, 0, 0, 3, 20]),
        abort=net.rng.random() < 0.07,
    )


async def crawl(net: Network, _: str) -> None:
    """A search engine reads many pages in a row."""
    source = f"127.30.40.{net.rng.randrange(1, 9)}"
    for _page in range(net.rng.randrange(15, 60)):
        path = f"/page?n={size(net, 12000, 1.1, 4e5)}"
        with contextlib.suppress(*FAILURES):
            await clients.web(net, source, SERVERS["web"], [path], service="https")
        await asyncio.sleep(net.rng.uniform(0.05, 0.6))


async def mail_in(net: Network, _: str) -> None:
    """A foreign server delivers a mail; ours asks the name service about it."""
    server = SERVERS["mail"]
    relay = net.rng.choice(RELAYS)
    for list_name in ("zen", "bl")[: net.rng.randrange(1, 3)]:
        await clients.lookup(net, server, f"{net.rng.randrange(255)}.0.21.127.{list_name}.nx.example")
    await clients.lookup(net, server, f"n{net.rng.choice([80, 200, 420])}.key._domainkey.site9.example", kind=16)
    to = [net.rng.choice(["a", "b", "grey", "unknown"]) for _ in range(net.rng.choice([1, 1, 2]))]
    await clients.send_mail(net, relay, server, size(net, 9000, 1.5, 5e6), to, service="smtp")


async def mail_out(net: Network, _: str) -> None:
    """Our mail server delivers a mail to a foreign one."""
    await clients.lookup(net, SERVERS["mail"], f"site{net.rng.randrange(40)}.example", kind=15)
    await clients.send_mail(
        net, SERVERS["mail"], net.rng.choice(RELAYS), size(net, 7000, 1.5, 5e6), ["a"], service="smtp"
    )


# ---- machines


async def clock(net: Network, host: str) -> None:
    """Ask for the time."""
    server = net.rng.choice([SERVERS["dns"], SITES[3]])
    await clients.ask(net, host, server, net.port("ntp"), net.blob[:48], wait=1.0)


async def log(net: Network, host: str) -> None:
    """Send some log lines; nobody answers."""
    with net.datagrams(host, SERVERS["monitor"], net.port("syslog")) as sock:
        for _ in range(int(net.rng.paretovariate(0.8)) % 30 + 1):
            with contextlib.suppress(OSError):
                sock.send(net.blob[: size(net, 140, 0.4, 900)])
            await asyncio.sleep(net.rng.uniform(0.0, 0.2))


async def metrics(net: Network, host: str) -> None:
    """The monitor reads a server's metrics."""
    path = f"/metrics?n={9000 + 37 * (sum(map(ord, host)) % 300)}"
    await clients.web(net, SERVERS["monitor"], host, [path], service="metrics")


async def health(net: Network, _: str) -> None:
    """The monitor knocks at the services of every server."""
    for service, server in (
        ("http", "web"),
        ("https", "web"),
        ("smtp", "mail"),
        ("imap", "mail"),
        ("ftp", "files"),
        ("ssh", "backup"),
        ("postgresql", "database"),
        ("irc", "chat"),
        ("http-alt", "app"),
    ):
        await clients.knock(net, SERVERS["monitor"], SERVERS[server], net.port(service))


async def heartbeat(net: Network, host: str) -> None:
    """An installed program tells its maker that it is there."""
    maker = SITES[10 + sum(map(ord, host)) % 4]
    await clients.web(net, host, maker, [f"/alive?n={60 + net.rng.randrange(40)}"], post=220 + net.rng.randrange(300))


async def push(net: Network, host: str) -> None:
    """A long poll that waits for news."""
    await clients.lookup(net, host, "push.site14.example")
    await clients.web(net, host, SITES[14], [f"/poll?s={net.rng.uniform(20, 55):.1f}&n=80"] * 3, pause=0.1)


async def backup(net: Network, host: str) -> None:
    """A server copies its changes to the backup host."""
    up = [size(net, 900000, 1.0, 1e7) for _ in range(net.rng.randrange(1, 4))]
    await clients.shell(net, host, SERVERS["backup"], up=up, rate=4_000_000)


async def replicate(net: Network, host: str) -> None:
    """The application writes what happened into the database."""
    await clients.query(net, host, [1, 5], store=[size(net, 20000, 1.2, 1e6)])


USERS = WORKSTATIONS
MACHINES = list(SERVERS.values())

# (activity, mean calls per second at load 1, who)
BY_LOAD: list[tuple[Activity, float, list[str]]] = [
    (browse, 1.1, USERS),
    (intranet, 0.8, USERS),
    (login, 0.07, USERS),
    (download, 0.045, USERS),
    (upload, 0.07, USERS),
    (names, 2.5, USERS),
    (mail, 0.13, USERS),
    (inbox, 0.17, USERS),
    (files, 0.07, USERS[:16]),
    (shell, 0.06, USERS[:5]),
    (report, 0.35, USERS[8:20]),
    (chat, 0.05, USERS),
    (misfit, 0.2, USERS),
    (visit, 1.1, [""]),
    (crawl, 0.01, [""]),
    (mail_in, 0.2, [""]),
    (mail_out, 0.11, [""]),
]
# (activity, seconds between two calls, relative jitter, who)
BY_PERIOD: list[tuple[Activity, float, float, list[str]]] = [
    (clock, 64.0, 0.02, [*USERS, *MACHINES]),
    (log, 22.0, 0.5, MACHINES),
    (metrics, 15.0, 0.01, MACHINES),
    (health, 60.0, 0.01, [""]),
    (heartbeat, 30.0, 0.05, USERS[4:18]),
    (heartbeat, 75.0, 0.2, USERS[18:34]),
    (push, 160.0, 0.2, USERS[20:34]),
    (backup, DAY / 3, 0.1, [SERVERS["files"], SERVERS["database"], SERVERS["mail"]]),
    (replicate, 6.0, 0.6, [SERVERS["app"], SERVERS["web"]]),
]


async def forgive(work: Awaitable[object]) -> None:
    """Let one activity fail without ending the others."""
    with contextlib.suppress(*FAILURES):
        await work


async def arrivals(net: Network, activity: Activity, rate: float, who: list[str], scale: float) -> None:
    """Start an activity at random (Poisson) moments whose rate follows the load; some people do more than others."""
    loop = asyncio.get_running_loop()
    begun, rng = loop.time(), random.Random(f"{activity.__name__}{net.rng.random()}")
    weights = [rng.lognormvariate(0, 0.8) for _ in who]
    while True:
        now = rate * scale * load(loop.time() - begun)
        gap = rng.expovariate(now)
        if gap > 2.0:  # look again soon: the load may have changed
            await asyncio.sleep(2.0)
            continue
        await asyncio.sleep(gap)
        net.spawn(forgive(activity(net, rng.choices(who, weights)[0])))


async def periodic(net: Network, activity: Activity, period: float, jitter: float, host: str) -> None:
    """Start an activity again and again, about every `period` s."""
    await asyncio.sleep(net.rng.uniform(0, period))
    while True:
        net.spawn(forgive(activity(net, host)))
        await asyncio.sleep(period * net.rng.uniform(1 - jitter, 1 + jitter))


def begin(net: Network, scale: float = 1.0) -> list[asyncio.Task]:
    """Start the normal life; `scale` multiplies how often people do things."""
    tasks = [net.spawn(arrivals(net, activity, rate, who, scale)) for activity, rate, who in BY_LOAD]
    for activity, period, jitter, who in BY_PERIOD:
        tasks += [net.spawn(periodic(net, activity, period, jitter, host)) for host in who]
    return tasks
