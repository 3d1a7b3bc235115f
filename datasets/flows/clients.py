"""The clients, one function a protocol: a session with given content, whoever asks for it.

Users and attackers use the same clients; only what they ask for differs.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Sequence

from datasets.flows.network import FAILURES, SERVERS, Network, Streams, reset
from datasets.flows.servers import discard, line, say, send_bytes, sized, think

Sizes = Sequence[int]


def dns_query(net: Network, name: str, kind: int) -> bytes:
    """A DNS query (RFC 1035) for one name."""
    question = b"".join(bytes([len(part)]) + part.encode("latin-1") for part in name.split("."))
    header = struct.pack("!HHHHHH", net.rng.randrange(1 << 16), 0x0100, 1, 0, 0, 0)
    return header + question + b"\0" + struct.pack("!HH", kind, 1)


async def lookup(net: Network, source: str, name: str, kind: int = 1, tries: int = 3) -> bytes:
    """Ask the DNS server for a name; asks again after a silence, over TCP if the answer is cut; b"" if all fail."""
    query = dns_query(net, name, kind)
    answer = await ask(net, source, SERVERS["dns"], net.port("dns"), query, wait=1.5, tries=tries)
    if len(answer) > 2 and answer[2] & 0x02:
        async with net.dial(source, SERVERS["dns"], net.port("dns")) as (reader, writer):
            writer.write(struct.pack("!H", len(query)) + query)
            size = struct.unpack("!H", await asyncio.wait_for(reader.readexactly(2), 5))[0]
            answer = await asyncio.wait_for(reader.readexactly(size), 5)
    return answer


async def ask(
    net: Network, source: str, destination: str, port: int, message: bytes, *, wait: float = 1.5, tries: int = 1
) -> bytes:
    """Send a datagram up to `tries` times and return the answer, b"" if there is none."""
    loop = asyncio.get_running_loop()
    with net.datagrams(source, destination, port) as sock:
        for _ in range(tries):
            with contextlib.suppress(TimeoutError, ConnectionError):
                sock.send(message)
                return await asyncio.wait_for(loop.sock_recv(sock, 65536), wait)
    return b""


async def request(net: Network, streams: Streams, path: str, post: int = 0, last: bool = False) -> int:
    """One HTTP exchange, `post` bytes up; returns the status."""
    reader, writer = streams
    cookie = sized(net, net.rng.randrange(60, 420))
    head = [f"{'POST' if post else 'GET'} {path} HTTP/1.1", "Host: site.example", "User-Agent: Mozilla/5.0 (X11)"]
    head += [f"Cookie: {cookie}", "Accept: */*", *(["Connection: close"] if last else [])]
    say(writer, *head, *([f"Content-Length: {post}"] if post else []), "")
    await send_bytes(net, writer, post)
    answer = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).decode("latin-1")
    await discard(reader, int(answer.lower().split("content-length:")[1].split()[0]), 300)
    return int(answer.split()[1])


async def web(
    net: Network,
    source: str,
    host: str,
    paths: Sequence[str],
    *,
    service: str = "https",
    post: int = 0,
    pause: float = 0.3,
    linger: float = 0.0,
    rate: int = 0,
    abort: bool = False,
) -> int:
    """A connection with one request a path, then idle for `linger` s; `abort` resets it instead of closing.

    Returns the last status.
    """
    status = 0
    async with net.dial(source, host, net.port(service), rate=rate) as streams:
        for i, path in enumerate(paths):
            if i:
                await think(net, pause)
            status = await request(net, streams, path, post, last=i == len(paths) - 1 and not linger and i > 0)
        if linger:  # the server may hang up first
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(streams[0].read(1), linger)
        if abort:
            reset(streams[1])
    return status


async def send_mail(
    net: Network,
    source: str,
    host: str,
    size: int,
    recipients: Sequence[str],
    *,
    service: str,
    words: Sequence[str] = (),
) -> None:
    """Log in with each of `words` until one is right, then send one mail of `size` bytes."""
    async with net.dial(source, host, net.port(service)) as (reader, writer):

        async def tell(text: str) -> str:
            say(writer, text)
            answer = await line(reader)
            while answer[3:4] == "-":
                answer = await line(reader)
            return answer

        await line(reader)
        await tell(f"EHLO {sized(net, 8)}.example")
        for word in words:
            if (await tell(f"AUTH PLAIN {sized(net, 24)} {word}")).startswith("235"):
                break
            await think(net, 0.3)
        if size:
            await tell(f"MAIL FROM:<{sized(net, 6)}@example>")
            taken = [await tell(f"RCPT TO:<{recipient}@example>") for recipient in recipients]
            if any(answer.startswith("250") for answer in taken):
                await tell(f"DATA {size}")
                await send_bytes(net, writer, size)
                await tell(".")
        await tell("QUIT")


async def read_mail(net: Network, source: str, sizes: Sizes, *, words: Sequence[str] = "1", idle: float = 0.0) -> None:
    """Log in, fetch mails of the given sizes and keep the connection for `idle` s."""
    async with net.dial(source, SERVERS["mail"], net.port("imap")) as (reader, writer):

        async def tell(command: str) -> str:
            say(writer, f"a {command}")
            while not (answer := await line(reader)).startswith("a "):
                pass
            return answer

        await line(reader)
        for word in words:
            if " OK" in await tell(f"LOGIN {sized(net, 7)} {word}"):
                break
            await think(net, 0.5)
        await tell("LIST")
        for size in sizes:
            say(writer, f"a FETCH 1 {size}")
            await line(reader)
            await discard(reader, size)
            while not (await line(reader)).startswith("a "):
                pass
        for _ in range(int(idle / 25)):
            await asyncio.sleep(25)
            await tell("NOOP")
        await tell("LOGOUT")


async def files(
    net: Network,
    source: str,
    host: str,
    *,
    down: Sizes = (),
    up: Sizes = (),
    words: Sequence[str] = "1",
    pause: float = 0.5,
    rate: int = 0,
) -> None:
    """An FTP session: log in, list, fetch files of sizes `down`, store files of sizes `up`."""
    async with net.dial(source, host, net.port("ftp")) as (reader, writer):

        async def tell(text: str) -> str:
            say(writer, text)
            return await line(reader)

        await line(reader)
        for word in words:
            await tell(f"USER {sized(net, 7)}")
            if (await tell(f"PASS {word}")).startswith("230"):
                break
            await think(net, pause)
        else:
            return
        listing = 400 + net.rng.randrange(3000)
        for command, size in [("LIST", listing), *(("RETR", n) for n in down), *(("STOR", n) for n in up)]:
            numbers = (await tell("PASV")).split("(")[1].rstrip(")").split(",")
            say(writer, f"{command} /{size}")
            async with net.dial(source, host, (int(numbers[4]) << 8) + int(numbers[5]), rate=rate) as data:
                if command == "STOR":
                    await send_bytes(net, data[1], size)
                else:
                    await discard(data[0], size)
            await line(reader)
            await line(reader)
            await think(net, pause)
        await tell("QUIT")


async def shell(
    net: Network,
    source: str,
    host: str,
    *,
    keys: int = 0,
    down: Sizes = (),
    up: Sizes = (),
    words: Sequence[str] = "1",
    pause: float = 0.4,
    rate: int = 0,
) -> None:
    """A remote shell session: log in with `words`, type `keys` commands, copy files down and up."""
    async with net.dial(source, host, net.port("ssh"), rate=rate) as (reader, writer):

        async def frame(kind: bytes, length: int, last: bytes = b"") -> None:
            writer.write(struct.pack("!Ic", length, kind))
            if kind != b"D":
                await send_bytes(net, writer, length - len(last))
                writer.write(last)
            await writer.drain()

        say(writer, "SSH-2.0-OpenSSH_9.2")
        await line(reader, 20)
        writer.write(net.blob[:1500])
        await discard(reader, 1080 + 700, 20)
        for word in words:
            await frame(b"A", 48, word.encode()[-1:])
            if (await asyncio.wait_for(reader.readexactly(36), 20)).startswith(b"1"):
                break
            await discard(reader, 16, 20)
            await think(net, pause)
        else:
            return
        for _ in range(keys):
            await frame(b"D", 36 * (1 + int(net.rng.paretovariate(0.9)) % 200))
            await asyncio.wait_for(reader.read(1 << 16), 20)
            await think(net, pause)
        for size in down:
            await frame(b"D", size)
            await discard(reader, size, 300)
        for size in up:
            await frame(b"U", size)
            await discard(reader, 36, 300)
        await frame(b"X", 0)


async def query(
    net: Network, source: str, counts: Sizes, *, store: Sizes = (), words: Sequence[str] = "1", pause: float = 0.2
) -> None:
    """A database session: log in, one query for each number of rows, then store blobs."""
    async with net.dial(source, SERVERS["database"], net.port("postgresql")) as (reader, writer):
        for word in words:
            say(writer, f"USER {sized(net, 6)} {word}")
            if (await line(reader)) == "OK":
                break
            await think(net, pause)
        else:
            return
        for count in counts:
            say(writer, f"QUERY {net.rng.randrange(1, max(2, 4100 - count))} {count}")
            await discard(reader, int((await line(reader)).split()[1]))
            await think(net, pause)
        for size in store:
            say(writer, f"STORE {size}")
            await send_bytes(net, writer, size)
            await line(reader)
        say(writer, "QUIT")


async def talk(net: Network, source: str, seconds: float, every: float) -> None:
    """Stay in the chat room, say something about once in `every` s."""
    loop = asyncio.get_running_loop()
    async with net.dial(source, SERVERS["chat"], net.port("irc")) as (reader, writer):
        say(writer, f"NICK user{source.rsplit('.', 1)[1]}")
        end, next_word = loop.time() + seconds, loop.time() + net.rng.expovariate(1 / every)
        while (now := loop.time()) < end:
            try:
                if (await line(reader, max(0.01, min(end, next_word) - now))).startswith("PING"):
                    say(writer, "PONG :chat.example")
            except TimeoutError:
                if loop.time() >= next_word:
                    say(writer, f"PRIVMSG #all :{sized(net, int(net.rng.lognormvariate(3.5, 0.7)) + 2)}")
                    next_word = loop.time() + net.rng.expovariate(1 / every)
        say(writer, "QUIT :bye")


async def knock(net: Network, source: str, host: str, port: int, wait: float = 1.0) -> bool:
    """Connect and leave; says whether anybody answered."""
    with contextlib.suppress(*FAILURES):
        async with net.dial(source, host, port, wait=wait):
            return True
    return False


async def drip(net: Network, source: str, host: str, *, service: str, body: bool, gap: float, seconds: float) -> None:
    """Hold a web server's worker with a request that never ends: a header (or body) line each `gap` s."""
    loop = asyncio.get_running_loop()
    async with net.dial(source, host, net.port(service)) as (reader, writer):
        say(writer, f"{'POST' if body else 'GET'} /form HTTP/1.1", "Host: site.example")
        if body:
            say(writer, "Content-Length: 1000000", "")
        end = loop.time() + seconds
        while loop.time() < end and not reader.at_eof():
            say(writer, f"X-{sized(net, 4)}: {sized(net, net.rng.randrange(4, 12))}")
            await writer.drain()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(4096), net.rng.uniform(0.6, 1.4) * gap)


async def sip(net: Network, source: str, host: str, *, service: str, size: int, gap: float, seconds: float) -> None:
    """Hold a web server's worker by reading a page of `size` bytes a little at a time, each `gap` s."""
    loop = asyncio.get_running_loop()
    async with net.dial(source, host, net.port(service), small=True) as (reader, writer):
        say(writer, f"GET /page?n={size} HTTP/1.1", "Host: site.example", "")
        end = loop.time() + seconds
        while loop.time() < end and await reader.read(1024):
            await asyncio.sleep(net.rng.uniform(0.6, 1.4) * gap)
        reset(writer)
