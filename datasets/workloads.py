"""Normal work of the recorded host: a web service, a database and batch jobs under a seeded regime process."""

from __future__ import annotations

import bisect
import hashlib
import http.client
import http.server
import lzma
import math
import os
import py_compile
import random
import shutil
import sqlite3
import subprocess
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RING = 512  # latencies kept per service

# Slots of the shared counter array; every slot has exactly one writing process.
WEB_SERVED, DB_COMMITS, BYTES_COMPRESSED, JOBS_IN, JOBS_DONE = range(5)
WEB_SENT, WEB_SINCE, DB_DONE, DB_SINCE, WEB_PORT = range(5, 10)
WEB_RING = 16
DB_RING = WEB_RING + RING
SLOTS = DB_RING + RING

# name: (web requests/s, commits/s, jobs/s, {job kind: weight})
REGIMES: dict[str, tuple[float, float, float, dict[str, int]]] = {
    "quiet": (2.0, 0.5, 0.2, {"zlib": 1, "sort": 1}),
    "web": (60.0, 4.0, 0.6, {"zlib": 2, "sort": 1}),
    "database": (8.0, 50.0, 0.5, {"sort": 1}),
    "build": (4.0, 5.0, 2.0, {"compile": 1}),
    "batch": (6.0, 2.0, 6.0, {"zlib": 3, "lzma": 1}),
    "saturated": (12.0, 8.0, 14.0, {"lzma": 3, "zlib": 2, "compile": 1, "sort": 1}),
    "mixed": (25.0, 15.0, 1.6, {"zlib": 2, "lzma": 1, "compile": 1, "sort": 2}),
}
WEIGHTS = [3.0, 3.0, 3.0, 2.5, 2.5, 0.8, 3.0]


@dataclass(frozen=True)
class Plan:
    """Regimes in time: `starts[i]` (seconds) begins regime `names[i]`."""

    starts: list[float]
    names: list[str]

    @classmethod
    def seeded(cls, seed: int, seconds: float) -> Plan:
        """Draw regimes of 20 to 120 s that cover `seconds`; never the same one twice in a row."""
        rng = random.Random(seed)
        starts, names, at = [], [], 0.0
        while at < seconds:
            name = rng.choices(list(REGIMES), WEIGHTS)[0]
            if names and name == names[-1]:
                continue
            starts.append(at)
            names.append(name)
            at += rng.uniform(20, 45) if name == "saturated" else rng.uniform(20, 120)
        return cls(starts, names)

    def regime(self, t: float) -> tuple[float, float, float, dict[str, int]]:
        """Rates of work at time t, with the smooth cycles inside a regime applied."""
        i = max(0, bisect.bisect_right(self.starts, t) - 1)
        web, commits, jobs, mix = REGIMES[self.names[i]]
        web *= 1 + 0.7 * math.sin(2 * math.pi * t / 45)
        commits *= 1 + 0.5 * math.sin(2 * math.pi * t / 31 + 1)
        if (t * 0.37) % 7.3 < 0.6:  # a short burst of visitors about every 20 s
            web = 2.5 * web + 5
        return web, commits, jobs, mix


@dataclass
class Job:
    """What every worker process is given."""

    shared: Any  # lock-free array of doubles, SLOTS long
    plan: Plan
    start: float  # time.monotonic() of the grid's origin
    parent: int
    folder: str
    seed: int


def ticks(job: Job, which: int) -> Iterator[float]:
    """Yield the time at random (Poisson) moments whose rate is entry `which` of the regime."""
    rng = random.Random(job.seed + 100 + which)
    due = time.monotonic()
    while os.getppid() == job.parent:
        rate = job.plan.regime(time.monotonic() - job.start)[which]
        gap = min(rng.expovariate(max(rate, 0.02)), 2.0)
        if gap == 2.0:  # look again soon: the regime may have changed
            time.sleep(0.5)
            due = time.monotonic()
            continue
        due = max(due + gap, time.monotonic() - 1.0)
        time.sleep(max(0.0, due - time.monotonic()))
        yield time.monotonic() - job.start


def note_latency(shared: Any, ring: int, count: int, since: int) -> None:
    """Store the latency (ms) of the request in flight and mark it done."""
    shared[ring + int(shared[count]) % RING] = 1000 * (time.monotonic() - shared[since])
    shared[count] += 1
    shared[since] = 0.0


def web_server(job: Job) -> None:
    """Serve pseudo-random pages of the asked size on the loopback interface."""
    os.nice(5)
    page = random.Random(job.seed).randbytes(1 << 17)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            size = min(int(self.path.strip("/") or 0), len(page))
            digest = hashlib.sha256(page[:size]).hexdigest()
            self.send_response(200)
            self.send_header("Content-Length", str(size))
            self.send_header("ETag", digest)
            self.end_headers()
            self.wfile.write(page[:size])
            job.shared[WEB_SERVED] += 1

        def log_message(self, format: str, *args: Any) -> None:
            """Keep quiet."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.timeout = 1.0
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        job.shared[WEB_PORT] = server.server_address[1]
        while os.getppid() == job.parent:
            server.handle_request()


def web_client(job: Job) -> None:
    """Send requests at the regime's rate and also hand in batch jobs."""
    os.nice(5)
    rng = random.Random(job.seed + 1)
    last = time.monotonic()
    for t in ticks(job, 0):
        now = time.monotonic()
        rate = job.plan.regime(t)[2] * min(now - last, 5.0)
        last = now
        arrivals = rng.randint(1, 7) if rng.random() < rate / 4 else 0  # jobs come in small batches
        job.shared[JOBS_IN] += min(arrivals, max(0, 60 - (job.shared[JOBS_IN] - job.shared[JOBS_DONE])))
        size = int(min(120_000, rng.lognormvariate(9.3, 0.8)))
        job.shared[WEB_SINCE] = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", int(job.shared[WEB_PORT]), timeout=8)
        try:
            connection.request("GET", f"/{size}")
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
            note_latency(job.shared, WEB_RING, WEB_SENT, WEB_SINCE)


def database(job: Job) -> None:
    """Insert, query and prune rows of an SQLite database with durable commits."""
    os.nice(5)
    rng = random.Random(job.seed + 2)
    link = sqlite3.connect(Path(job.folder) / "store.db")
    link.execute("PRAGMA journal_mode=WAL")
    link.execute("PRAGMA synchronous=FULL")
    link.execute("CREATE TABLE reading (id INTEGER PRIMARY KEY, k INTEGER, v REAL, body BLOB)")
    for turn, _ in enumerate(ticks(job, 1)):
        job.shared[DB_SINCE] = time.monotonic()
        rows = [(rng.randrange(100), rng.random(), rng.randbytes(200)) for _ in range(rng.randint(5, 60))]
        link.executemany("INSERT INTO reading (k, v, body) VALUES (?, ?, ?)", rows)
        if turn % 8 == 0:
            link.execute("SELECT k, avg(v), count(*) FROM reading GROUP BY k").fetchall()
        if turn % 50 == 49:
            link.execute("DELETE FROM reading WHERE id < (SELECT max(id) FROM reading) - 20000")
        link.commit()
        job.shared[DB_COMMITS] += 1
        note_latency(job.shared, DB_RING, DB_DONE, DB_SINCE)


def compress(job: Job, kind: str, rng: random.Random) -> None:
    """Compress generated text piece by piece, counting the bytes taken in."""
    words = [rng.randbytes(6).hex().encode() for _ in range(400)]
    packer = lzma.LZMACompressor(preset=1) if kind == "lzma" else zlib.compressobj(6)
    for _ in range(24 if kind == "lzma" else 60):
        piece = b" ".join(rng.choices(words, k=5000))
        packer.compress(piece)
        job.shared[BYTES_COMPRESSED] += len(piece)


def compile_source(folder: str, rng: random.Random, compiler: str | None) -> None:
    """Compile a generated C file, or byte-compile Python where there is no C compiler."""
    count = rng.randint(20, 120)
    if compiler is None:
        path = Path(folder) / "made.py"
        path.write_text("".join(f"def f{i}(x):\n    return x * {i} + {i}\n" for i in range(20 * count)))
        py_compile.compile(str(path))
        return
    path = Path(folder) / "made.c"
    body = "int f{0}(int x) {{ int s = {0}; for (int i = 0; i < x; i++) s = s * 31 + i % ({0} + 3); return s; }}\n"
    path.write_text("".join(body.format(i) for i in range(count)))
    subprocess.run([compiler, "-O2", "-c", str(path), "-o", f"{path}.o"], check=False, capture_output=True)


def batch(job: Job) -> None:
    """Work off the job queue one by one."""
    os.nice(5)
    rng = random.Random(job.seed + 3)
    compiler = shutil.which("gcc")
    while os.getppid() == job.parent:
        if job.shared[JOBS_DONE] >= job.shared[JOBS_IN]:
            time.sleep(0.05)
            continue
        mix = job.plan.regime(time.monotonic() - job.start)[3]
        kind = rng.choices(list(mix), list(mix.values()))[0]
        if kind == "compile":
            compile_source(job.folder, rng, compiler)
        elif kind == "sort":
            sorted(rng.random() for _ in range(200_000))
        else:
            compress(job, kind, rng)
        job.shared[JOBS_DONE] += 1


WORKERS = {"web_server": web_server, "web_client": web_client, "database": database, "batch": batch}
