"""The recorded channels: reads the host's counters and the services' own figures once per call."""

from __future__ import annotations

import math
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from datasets import workloads as work

CHANNELS: dict[str, str] = {
    "cpu0": "%",
    "cpu1": "%",
    "cpu_user": "%",
    "cpu_nice": "%",
    "cpu_system": "%",
    "cpu_iowait": "%",
    "load1": "1",
    "cpu_pressure": "%",
    "io_pressure": "%",
    "mem_used": "MB",
    "mem_available": "MB",
    "mem_cached": "MB",
    "mem_dirty": "MB",
    "disk_read": "kB/s",
    "disk_write": "kB/s",
    "lo_bytes": "kB/s",
    "lo_packets": "1/s",
    "ctx_switches": "1/s",
    "interrupts": "1/s",
    "processes": "1",
    "tcp_inuse": "1",
    "tcp_timewait": "1",
    "web_requests": "1/s",
    "web_latency": "ms",
    "db_commits": "1/s",
    "db_latency": "ms",
    "compression": "MB/s",
    "queue_length": "1",
    "sleep_jitter": "ms",
    "mem_copy": "ms",
}


def pressure(kind: str) -> float:
    """Total seconds in which some task waited for the resource (Linux pressure stall information)."""
    try:
        line = Path(f"/proc/pressure/{kind}").read_text().splitlines()[0]
    except OSError:
        return math.nan
    return int(line.rsplit("=", 1)[1]) / 1e6


def dirty_megabytes() -> float:
    """Memory waiting to be written to disk."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Dirty:"):
            return int(line.split()[1]) / 1e3
    return math.nan


def tcp_counts() -> tuple[float, float]:
    """TCP sockets in use, and in the TIME_WAIT state."""
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            words = line.split()
            return float(words[2]), float(words[6])
    return math.nan, math.nan


class Sensors:
    """Turns cumulative counters into rates between two calls."""

    def __init__(self, shared: Any) -> None:
        self.shared = shared
        self.source = np.random.default_rng(0).random(500_000)
        self.target = np.empty_like(self.source)
        self.last_latency = {"web": 0.0, "db": 0.0}
        self.seen = {"web": 0, "db": 0}
        self.before = self.counters()
        self.at = time.monotonic()

    def counters(self) -> dict[str, float]:
        """Everything that only grows, in the unit whose rate is recorded."""
        cores = psutil.cpu_times(percpu=True)
        total = psutil.cpu_times()
        count = len(cores)
        disk, stats = psutil.disk_io_counters(), psutil.cpu_stats()
        net = psutil.net_io_counters(pernic=True)["lo"]
        values = {f"cpu{i}": 100 * (sum(core[:8]) - core.idle - core.iowait) for i, core in enumerate(cores[:2])}
        return values | {
            "cpu_user": 100 * total.user / count,
            "cpu_nice": 100 * total.nice / count,
            "cpu_system": 100 * total.system / count,
            "cpu_iowait": 100 * total.iowait / count,
            "cpu_pressure": 100 * pressure("cpu"),
            "io_pressure": 100 * pressure("io"),
            "disk_read": disk.read_bytes / 1e3 if disk else math.nan,
            "disk_write": disk.write_bytes / 1e3 if disk else math.nan,
            "lo_bytes": net.bytes_sent / 1e3,
            "lo_packets": net.packets_sent,
            "ctx_switches": stats.ctx_switches,
            "interrupts": stats.interrupts,
            "web_requests": self.shared[work.WEB_SERVED],
            "db_commits": self.shared[work.DB_COMMITS],
            "compression": self.shared[work.BYTES_COMPRESSED] / 1e6,
        }

    def latency(self, name: str, ring: int, count: int, since: int) -> float:
        """Median latency (ms) since the last call; the age of a stalled request; else the last value."""
        done, waiting = int(self.shared[count]), self.shared[since]
        new = min(done - self.seen[name], work.RING)
        self.seen[name] = done
        if new:
            self.last_latency[name] = statistics.median(
                self.shared[ring + i % work.RING] for i in range(done - new, done)
            )
        elif waiting:
            self.last_latency[name] = max(self.last_latency[name], 1000 * (time.monotonic() - waiting))
        return self.last_latency[name]

    def read(self) -> dict[str, float]:
        """One sample of every channel."""
        now, after = time.monotonic(), self.counters()
        row = {key: (after[key] - self.before[key]) / (now - self.at) for key in after}
        row = {key: 0.0 if rate < 1e-9 else rate for key, rate in row.items()}  # iowait may step back
        self.before, self.at = after, now
        memory = psutil.virtual_memory()
        row["load1"] = os.getloadavg()[0]
        row["mem_used"], row["mem_available"] = memory.used / 1e6, memory.available / 1e6
        row["mem_cached"], row["mem_dirty"] = memory.cached / 1e6, dirty_megabytes()
        row["processes"] = len(psutil.pids())
        row["tcp_inuse"], row["tcp_timewait"] = tcp_counts()
        row["web_latency"] = self.latency("web", work.WEB_RING, work.WEB_SENT, work.WEB_SINCE)
        row["db_latency"] = self.latency("db", work.DB_RING, work.DB_DONE, work.DB_SINCE)
        row["queue_length"] = self.shared[work.JOBS_IN] - self.shared[work.JOBS_DONE]
        begin = time.perf_counter()
        time.sleep(0.005)
        awake = time.perf_counter()
        np.copyto(self.target, self.source)
        row["sleep_jitter"] = 1000 * (awake - begin) - 5.0
        row["mem_copy"] = 1000 * (time.perf_counter() - awake)
        return {name: row[name] for name in CHANNELS}
