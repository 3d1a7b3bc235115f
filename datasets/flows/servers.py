"""The servers of connections: web, mail, file transfer, remote shell, database, chat and metrics.

Small but real: each speaks its protocol (or, where stated, a line protocol in its place) over real sockets, thinks
before it answers, refuses wrong passwords, gives up on clients that are too slow and turns clients away when busy.
They know nothing of attacks.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import sqlite3
import struct
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, urlsplit

from datasets.flows import datagrams
from datasets.flows.network import (
    FAILURES,
    FILTERED_PORTS,
    PASSIVE,
    RELAYS,
    SERVERS,
    SILENT,
    SITES,
    SO_MAX_PACING_RATE,
    Network,
    close,
    drop_everything,
    loopback,
    reset,
)

Handler = Callable[[Network, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
WORKERS = 160  # connections a web server takes at once
HEADER_SECONDS, BODY_SECONDS, IDLE_SECONDS = 40.0, 60.0, 15.0


def think(net: Network, median: float, spread: float = 0.6) -> Awaitable[None]:
    """Sleep for a lognormal time (s)."""
    return asyncio.sleep(min(net.rng.lognormvariate(math.log(median), spread), 20 * median))


async def line(reader: asyncio.StreamReader, wait: float = 60.0) -> str:
    """The next line, without its end; an empty read means that the client left."""
    raw = await asyncio.wait_for(reader.readline(), wait)
    if not raw:
        raise EOFError("the other end closed the connection")
    return raw.decode("latin-1").rstrip("\r\n")


def say(writer: asyncio.StreamWriter, *lines: str) -> None:
    """Send lines in one write."""
    writer.write("".join(f"{text}\r\n" for text in lines).encode("latin-1"))


async def send_bytes(net: Network, writer: asyncio.StreamWriter, size: int) -> None:
    """Send `size` bytes in pieces, no faster than the other end reads."""
    for start in range(0, size, 1 << 16):
        writer.write(net.blob[: min(1 << 16, size - start)])
        await writer.drain()


async def discard(reader: asyncio.StreamReader, size: int, wait: float = 120.0) -> None:
    """Read and forget exactly `size` bytes within `wait` seconds."""

    async def read() -> None:
        left = size
        while left:
            piece = await reader.read(min(left, 1 << 16))
            if not piece:
                raise EOFError(f"the other end closed the connection {left} bytes early")
            left -= len(piece)

    await asyncio.wait_for(read(), wait)


def sized(net: Network, length: int) -> str:
    """Text of a given length."""
    start = net.rng.randrange(1 << 19)
    return net.blob[start : start + length // 2 + 1].hex()[:length]


# ---- web


def http() -> Handler:
    """HTTP/1.1 with keep-alive: `/PAGE?n=bytes&r=bytes per second`, `/login?ok=0`, `/query`, `/poll`, POST bodies."""
    busy: Counter[str] = Counter()

    async def handler(net: Network, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = writer.get_extra_info("sockname")[0]
        if busy[host] >= WORKERS:
            say(writer, "HTTP/1.1 503 Service Unavailable", "Connection: close", "Content-Length: 0", "")
            return
        busy[host] += 1
        try:
            for turn in range(100):
                wait = IDLE_SECONDS if turn else HEADER_SECONDS
                head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), wait)).decode("latin-1")
                await answer_http(net, head, reader, writer)
                if "connection: close" in head.lower():
                    return
        finally:
            busy[host] -= 1

    return handler


async def answer_http(net: Network, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request whose header is `head`."""
    first, *fields = head.split("\r\n")
    path = urlsplit(first.split()[1])
    asked = {name: values[0] for name, values in parse_qs(path.query).items()}
    length = next((int(field.split(":")[1]) for field in fields if field.lower().startswith("content-length")), 0)
    if length:
        await discard(reader, length, BODY_SECONDS)
    size, status = int(asked.get("n", 0)), "200 OK"
    if "r" in asked:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, int(asked["r"]))
    if path.path == "/login":
        await think(net, 0.12, 0.3)  # hashing a password takes its time
        status, size = ("302 Found", 0) if asked.get("ok") == "1" else ("401 Unauthorized", 640)
    elif path.path == "/query":
        size = len(await ask_database(net, writer.get_extra_info("sockname")[0])) + 900
    elif path.path == "/poll":
        await asyncio.sleep(float(asked.get("s", 20)))
    else:
        await think(net, 0.02, 0.9)
    say(writer, f"HTTP/1.1 {status}", f"Server: site{sized(net, 6)}", "Content-Type: text/html; charset=utf-8")
    say(writer, f"Content-Length: {size}", f"Set-Cookie: session={sized(net, 64)}; Path=/; Secure; HttpOnly", "")
    await send_bytes(net, writer, size)
    await writer.drain()


async def ask_database(net: Network, host: str) -> bytes:
    """One query of a web application to the database behind it."""
    async with net.dial(host, SERVERS["database"], net.port("postgresql")) as (reader, writer):
        say(writer, "USER app 1")
        await line(reader)
        say(writer, f"QUERY {net.rng.randrange(4000)} {net.rng.choice([1, 5, 20, 80])}")
        size = int((await line(reader)).split()[1])
        return await asyncio.wait_for(reader.readexactly(size), 20)


# ---- mail


async def smtp(net: Network, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """SMTP (RFC 5321) with AUTH; a client may fail three times, some senders are asked to come again."""
    say(writer, "220 mail.example ESMTP ready")
    failures = 0
    while True:
        command, _, rest = (await line(reader)).partition(" ")
        await think(net, 0.015)
        if command == "EHLO":
            say(
                writer,
                "250-mail.example",
                "250-PIPELINING",
                "250-SIZE 52428800",
                "250-AUTH PLAIN LOGIN",
                "250 8BITMIME",
            )
        elif command == "AUTH" and rest.endswith("1"):
            say(writer, "235 2.7.0 Authentication successful")
        elif command == "AUTH":
            failures += 1
            await think(net, 0.6, 0.2)
            say(writer, "535 5.7.8 Authentication credentials invalid")
            if failures == 3:
                return
        elif command == "RCPT" and "unknown" in rest:
            say(writer, "550 5.1.1 No such user here")
        elif command == "RCPT" and "grey" in rest:
            say(writer, "450 4.2.0 Greylisted, please try again later")
        elif command == "DATA":
            say(writer, "354 End data with <CR><LF>.<CR><LF>")
            await discard(reader, int(rest or 0))
            await line(reader)
            say(writer, f"250 2.0.0 Ok: queued as {sized(net, 10)}")
        elif command == "QUIT":
            say(writer, "221 2.0.0 Bye")
            return
        else:
            say(writer, "250 2.1.0 Ok")


async def imap(net: Network, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The part of IMAP (RFC 9051) that fetches mail and waits for more."""
    say(writer, "* OK IMAP4rev1 ready")
    failures = 0
    while True:
        tag, command, *rest = (await line(reader, 900)).split()
        await think(net, 0.01)
        if command == "LOGIN" and rest[-1] != "1":
            failures += 1
            await think(net, 0.8, 0.2)
            say(writer, f"{tag} NO [AUTHENTICATIONFAILED] Authentication failed.")
            if failures == 3:
                return
        elif command == "FETCH":
            say(writer, f"* 1 FETCH (BODY[] {{{rest[-1]}}}")
            await send_bytes(net, writer, int(rest[-1]))
            say(writer, ")", f"{tag} OK Fetch completed.")
        elif command == "LOGOUT":
            say(writer, "* BYE Logging out", f"{tag} OK Logout completed.")
            return
        else:
            say(writer, *[f"* LIST () folder{i}" for i in range(6 if command == "LIST" else 0)], f"{tag} OK done")


# ---- files


async def ftp(net: Network, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """FTP (RFC 959), passive mode; three wrong passwords end the session."""
    host = writer.get_extra_info("sockname")[0]
    say(writer, "220 Files")
    failures, data = 0, None
    while True:
        command, _, rest = (await line(reader, 120)).partition(" ")
        await think(net, 0.005)
        if command == "PASS" and rest != "1":
            failures += 1
            await think(net, 0.9, 0.2)
            say(writer, "530 Login incorrect.")
            if failures == 3:
                return
        elif command == "PASV":
            data = await passive(net, host)
            port = data[0].sockets[0].getsockname()[1]
            say(writer, f"227 Entering Passive Mode ({host.replace('.', ',')},{port >> 8},{port & 255})")
        elif command in ("RETR", "LIST", "STOR") and data:
            say(writer, "150 Opening data connection")
            await transfer(net, data, 0 if command == "STOR" else int(rest.split("/")[-1]))
            data = None
            say(writer, "226 Transfer complete")
        elif command == "QUIT":
            say(writer, "221 Goodbye.")
            return
        else:
            say(writer, {"USER": "331 Password required", "PASS": "230 User logged in."}.get(command, "200 Ok"))


async def passive(net: Network, host: str) -> tuple[asyncio.Server, asyncio.Future]:
    """Listen for one data connection on a free passive port."""
    arrival: asyncio.Future = asyncio.get_running_loop().create_future()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if arrival.done():
            reset(writer)
        else:
            arrival.set_result((reader, writer))

    while True:
        with contextlib.suppress(OSError):  # somebody else's transfer
            return await asyncio.start_server(accept, loopback(host), net.rng.choice(PASSIVE) + net.shift), arrival


async def transfer(net: Network, data: tuple[asyncio.Server, asyncio.Future], size: int) -> None:
    """Send `size` bytes over the data connection, or read all there is if `size` is 0."""
    server, arrival = data
    try:
        reader, writer = await asyncio.wait_for(arrival, 10)
    finally:
        server.close()
    try:
        if size:
            await send_bytes(net, writer, size)
        else:
            while await asyncio.wait_for(reader.read(1 << 16), 60):
                pass
    finally:
        await close(writer)


async def ssh(net: Network, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Shaped like SSH: banner, key exchange, password, then frames (length, kind) up or down. Nothing is encrypted."""
    say(writer, "SSH-2.0-OpenSSH_9.6")
    await line(reader, 20)
    writer.write(net.blob[:1080])
    await discard(reader, 1500, 20)
    await think(net, 0.01)
    writer.write(net.blob[:700])
    failures = 0
    while True:
        length, kind = struct.unpack("!Ic", await asyncio.wait_for(reader.readexactly(5), 300))
        if kind == b"A":  # a password; its last byte says whether it is right
            word = await asyncio.wait_for(reader.readexactly(length), 30)
            failures += word[-1:] != b"1"
            await think(net, 0.05 if word[-1:] == b"1" else 1.2, 0.3)
            writer.write(b"1" * 36 if word[-1:] == b"1" else b"0" * 52)
            if failures == 3:
                return
        elif kind == b"U":
            await discard(reader, length, 300)
            writer.write(net.blob[:36])
        elif kind == b"D":
            await send_bytes(net, writer, length)
        else:
            return


# ---- database, chat


def make_table() -> sqlite3.Connection:
    """An in-memory table of 4,100 rows."""
    link = sqlite3.connect(":memory:")
    link.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, price REAL, note TEXT)")
    rows = ((i, f"item {i:05}", zlib.crc32(b"%d" % i) / 1e6, "x" * (i * 37 % 200)) for i in range(4100))
    link.executemany("INSERT INTO item VALUES (?, ?, ?, ?)", rows)
    return link


def database() -> Handler:
    """A line protocol in front of SQLite: USER name password, QUERY first count, STORE bytes."""
    link = make_table()

    async def handler(net: Network, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        failures = 0
        while True:
            command, *rest = (await line(reader, 1200)).split()
            await think(net, 0.004, 1.0)
            if command == "USER" and rest[1] != "1":
                failures += 1
                await think(net, 0.3, 0.2)
                say(writer, 'FATAL: password authentication failed for user "app"')
                if failures == 2:
                    return
            elif command == "QUERY":
                first, count = map(int, rest)
                rows = link.execute("SELECT * FROM item WHERE id >= ? LIMIT ?", (first, count)).fetchall()
                result = "\n".join(map(str, rows)).encode()
                say(writer, f"ROWS {len(result)}")
                writer.write(result)
            elif command == "STORE":
                await discard(reader, int(rest[0]))
                say(writer, "OK")
            elif command == "QUIT":
                return
            else:
                say(writer, "OK")

    return handler


def chat() -> Handler:
    """IRC (RFC 1459) in one room: what one says, all others hear; a ping every 25 s."""
    room: dict[asyncio.StreamWriter, str] = {}

    async def ping(writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            await asyncio.sleep(25)
            say(writer, "PING :chat.example")

    async def handler(net: Network, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = (await line(reader, 20)).split()[-1]
        say(writer, f":chat.example 001 {name} :Welcome", *[f":chat.example 353 {name} :{x}" for x in room.values()])
        room[writer] = name
        pinging = net.spawn(ping(writer))
        try:
            while not (text := await line(reader, 120)).startswith("QUIT"):
                if text.startswith("PRIVMSG"):
                    for other in room:
                        if other is not writer and not other.is_closing():
                            say(other, f":{name}!{name}@example {text}")
        finally:
            pinging.cancel()
            del room[writer]

    return handler


# ---- all of them


def guarded(net: Network, handler: Handler) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """A connection's failure ends that connection only."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(*FAILURES):
                await handler(net, reader, writer)
        finally:
            await close(writer)

    return serve


def listeners() -> dict[str, tuple[Handler, list[str]]]:
    """Handler and addresses of every TCP service."""
    web = [SERVERS["web"], SERVERS["app"], *SITES]
    everyone = list(SERVERS.values())
    pages = http()  # one pool of workers for all ports of a host
    return {
        "http": (pages, web),
        "https": (pages, web),
        "http-alt": (pages, [SERVERS["app"], SERVERS["monitor"]]),
        "metrics": (http(), everyone),
        "smtp": (smtp, [SERVERS["mail"], *RELAYS]),
        "submission": (smtp, [SERVERS["mail"]]),
        "imap": (imap, [SERVERS["mail"]]),
        "ftp": (ftp, [SERVERS["files"], SITES[0]]),
        "ssh": (ssh, [*everyone, SITES[1], SITES[2]]),
        "postgresql": (database(), [SERVERS["database"]]),
        "irc": (chat(), [SERVERS["chat"]]),
        "dns": (datagrams.over_tcp, [SERVERS["dns"]]),
    }


async def start(net: Network) -> list[asyncio.Server]:
    """Start every server and the packet filters of the silent hosts; the filters' sockets stay open with `net`."""
    running = []
    for service, (handler, hosts) in listeners().items():
        tls = net.tls[0] if net.tls and service == "https" else None
        addresses = [loopback(host) for host in hosts]
        running.append(
            await asyncio.start_server(
                guarded(net, handler), addresses, net.port(service), ssl=tls, backlog=256, limit=1 << 16
            )
        )
    await datagrams.start(net)
    for host in SILENT:
        for port in FILTERED_PORTS:
            sock = socket.create_server((loopback(host), port + net.shift))
            drop_everything(sock)
            net.walls.append(sock)
    return running
