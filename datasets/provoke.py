"""Faults: their seeded schedule, the processes that provoke them, and the layer of sensor faults."""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import signal
import socket
import statistics
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

MEAN_SLOT = 62.0  # seconds of the second half that one event needs, normal time included
MAX_EVENTS = 30

HOST_CHANNELS: dict[str, list[str]] = {
    "cpu_hog": ["cpu0", "cpu1", "cpu_nice", "load1", "cpu_pressure", "sleep_jitter"],
    "memory_leak": ["mem_used", "mem_available"],
    "disk_flood": ["disk_write", "io_pressure", "cpu_iowait"],
    "traffic_flood": ["lo_bytes", "lo_packets", "ctx_switches"],
    "throttled_web": ["web_requests", "web_latency", "lo_packets", "lo_bytes"],
    "throttled_db": ["db_commits", "db_latency", "disk_write"],
}
SENSOR_KINDS = ["stuck", "noise", "clock_drift", "dropout", "scale"]
KINDS = ["cpu_hog", "memory_leak", "disk_flood", "traffic_flood", "throttled", *SENSOR_KINDS]
LIVELY = ["cpu0", "cpu1", "cpu_nice", "ctx_switches", "interrupts", "web_requests", "lo_packets", "mem_copy"]
STEADY = ["mem_used", "mem_available", "load1", "tcp_timewait", "sleep_jitter", "mem_copy"]
GROUPS = [
    ["cpu0", "cpu1", "cpu_user", "cpu_nice", "cpu_system"],
    ["lo_bytes", "lo_packets", "tcp_inuse", "tcp_timewait"],
    ["web_requests", "web_latency", "db_commits", "db_latency"],
]


@dataclass
class Event:
    """One planned fault; times are seconds after the recording's start."""

    kind: str
    start: float
    seconds: float
    channels: list[str]
    note: str


def schedule(seed: int, total: float, scale: float = 1.0) -> list[Event]:
    """Plan the faults of the second half: 10-60 s each, at least 20 s apart (all times `scale`)."""
    rng = random.Random(seed + 7)
    half = total / 2
    count = min(MAX_EVENTS, int(half // (MEAN_SLOT * scale)))
    kinds: list[str] = []
    while len(kinds) < count:
        kinds += rng.sample(KINDS, len(KINDS))
    lengths = [rng.uniform(12, 50) * scale for _ in range(count)]
    slack = half - sum(lengths) - 20.5 * scale * (count + 1)
    if slack < 0:
        lengths = [max(10 * scale, x * (1 + slack / sum(lengths))) for x in lengths]
    shares = [rng.expovariate(1) for _ in range(count + 1)]
    events, at = [], half
    for i in range(count):
        at += 20.5 * scale + max(0.0, slack) * shares[i] / sum(shares)
        events.append(plan_event(kinds[i], at, lengths[i], rng, i // len(KINDS)))
        at += lengths[i]
    return events


def plan_event(kind: str, at: float, seconds: float, rng: random.Random, turn: int) -> Event:
    """Choose the channels and strength of one event."""
    if kind == "throttled":
        kind = "throttled_web" if turn % 2 == 0 else "throttled_db"
    if kind in HOST_CHANNELS:
        return Event(kind, at, seconds, HOST_CHANNELS[kind], "provoked on the host")
    if kind == "dropout":
        return Event(kind, at, seconds, GROUPS[turn % len(GROUPS)], "readings missing intermittently")
    channel = rng.choice(STEADY if kind == "scale" else LIVELY)
    notes = {
        "stuck": "last value repeated",
        "noise": "Gaussian noise, 1.5 standard deviations of the last 120 s",
        "clock_drift": "readings delayed by a lag growing from 0 to 10 s",
        "scale": "readings multiplied by 1.5",
    }
    return Event(kind, at, seconds, [channel], notes[kind])


def provoke_host(kind: str, seconds: float, stamps: Any, pid: int) -> None:
    """Provoke one host fault in this process; leaves its true start and end in `stamps`."""
    os.nice(5)
    stamps[0] = time.time()
    end = time.monotonic() + seconds
    {"cpu_hog": cpu_hog, "memory_leak": memory_leak, "disk_flood": disk_flood, "traffic_flood": traffic_flood}.get(
        kind, lambda stop: throttle(stop, pid)
    )(end)
    stamps[1] = time.time()


def cpu_hog(end: float) -> None:
    """Spin."""
    while time.monotonic() < end:
        math.factorial(300)


def memory_leak(end: float) -> None:
    """Take about 1 GB in 8 MB steps until the end, then give it back."""
    held, begin = [], time.monotonic()
    while (now := time.monotonic()) < end:
        if len(held) < 125 * (now - begin) / (end - begin):
            held.append(b"\1" * (8 << 20))
        time.sleep(0.02)


def disk_flood(end: float) -> None:
    """Overwrite a 64 MB temporary file again and again with forced writes, about 40 MB/s."""
    block = os.urandom(4 << 20)
    with tempfile.TemporaryFile() as file:
        turn = 0
        while time.monotonic() < end:
            file.seek((turn % 16) * len(block))
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
            turn += 1
            time.sleep(0.1)


def traffic_flood(end: float) -> None:
    """Send about 40 MB/s to ourselves over the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        receiver, _ = server.accept()

    def drain() -> None:
        while receiver.recv(1 << 16):
            pass

    thread = threading.Thread(target=drain)
    thread.start()
    while time.monotonic() < end:
        for _ in range(100):
            sender.sendall(bytes(4096))
        time.sleep(0.01)
    sender.close()
    thread.join()
    receiver.close()


def throttle(end: float, pid: int) -> None:
    """Stop and continue a worker process: 0.6 to 1.6 s stopped, 0.25 s running."""
    rng = random.Random(pid)
    try:
        while time.monotonic() < end:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(min(rng.uniform(0.6, 1.6), max(0.0, end - time.monotonic())))
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.25)
    finally:
        os.kill(pid, signal.SIGCONT)


class SensorFault:
    """Stands between the readings and the file; changes nothing unless a sensor fault is active."""

    def __init__(self, seed: int, hz: float) -> None:
        self.rng = random.Random(seed + 11)
        self.hz = hz
        self.past: deque[dict[str, float]] = deque(maxlen=int(120 * hz))
        self.active: Event | None = None
        self.written: dict[str, float] = {}
        self.since = 0.0
        self.spread = 1.0

    def begin(self, event: Event) -> None:
        """Switch a fault on."""
        self.since = time.monotonic()
        values = [row[event.channels[0]] for row in list(self.past) if row[event.channels[0]] == row[event.channels[0]]]
        self.spread = (statistics.pstdev(values) if values else 0.0) or 1.0
        self.active = event

    def end(self) -> None:
        """Switch it off."""
        self.active = None

    def apply(self, row: dict[str, float]) -> dict[str, float]:
        """The readings as the faulty sensor reports them."""
        self.past.append(row)
        event, out = self.active, dict(row)
        if event is not None:
            name = event.channels[0]
            if event.kind == "stuck":
                out[name] = self.written.get(name, row[name])
            elif event.kind == "noise":
                out[name] = row[name] + self.rng.gauss(0, 1.5 * self.spread)
            elif event.kind == "scale":
                out[name] = 1.5 * row[name]
            elif event.kind == "clock_drift":
                out[name] = self.delayed(name, 10.0 * min(1.0, (time.monotonic() - self.since) / event.seconds))
            elif event.kind == "dropout" and self.rng.random() < 0.55:
                out.update(dict.fromkeys(event.channels, math.nan))
        self.written = out
        return out

    def delayed(self, name: str, lag: float) -> float:
        """The reading of `lag` seconds ago, interpolated between samples."""
        back = lag * self.hz
        whole = min(int(back), len(self.past) - 1)
        new, old = self.past[-1 - whole][name], self.past[max(-len(self.past), -2 - whole)][name]
        return new + (back - int(back)) * (old - new)


class FaultRunner(threading.Thread):
    """Walks through the schedule and notes the true start and end of each event."""

    def __init__(self, events: list[Event], origin: float, layer: SensorFault, pids: dict[str, int]) -> None:
        super().__init__(daemon=True)
        self.events, self.origin, self.layer, self.pids = events, origin, layer, pids
        self.done: list[tuple[Event, float, float]] = []

    def run(self) -> None:
        """Provoke every event in turn; `origin` is on the monotonic clock."""
        context = multiprocessing.get_context("spawn")
        for event in self.events:
            time.sleep(max(0.0, self.origin + event.start - time.monotonic()))
            if event.kind in SENSOR_KINDS:
                begun = time.time()
                self.layer.begin(event)
                time.sleep(event.seconds)
                self.layer.end()
                self.done.append((event, begun, time.time()))
                continue
            stamps = context.RawArray("d", 2)
            pid = self.pids["database" if event.kind == "throttled_db" else "web_server"]
            child = context.Process(target=provoke_host, args=(event.kind, event.seconds, stamps, pid), daemon=True)
            child.start()
            child.join()
            self.done.append((event, stamps[0], stamps[1] or time.time()))
