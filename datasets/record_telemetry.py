"""Record telemetry of this host while it works normally and, in the second half, suffers provoked faults."""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from datasets import workloads as work
from datasets.provoke import Event, FaultRunner, SensorFault, schedule
from datasets.sensors import CHANNELS, Sensors

EVENT_COLUMNS = ["kind", "start", "end", "channels", "note"]


def stamp(seconds: float) -> str:
    """ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_csv(header: list[str], rows: Iterable[list[str]]) -> bytes:
    """A table as CSV text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def event_rows(done: list[tuple[Event, float, float]]) -> list[list[str]]:
    """The log of faults."""
    return [[e.kind, stamp(begin), stamp(end), ";".join(e.channels), e.note] for e, begin, end in done]


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside the target, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    beside.write_bytes(data)
    beside.replace(path)


def start_workers(seed: int, seconds: float, folder: str) -> tuple[object, dict[str, multiprocessing.Process], float]:
    """Start the services of the normal work; returns their counters, processes and the grid's origin."""
    context = multiprocessing.get_context("spawn")
    shared = context.RawArray("d", work.SLOTS)
    ahead = math.ceil(time.time() + 3.0) - time.time()  # begin on a whole second, when all are up
    origin = time.monotonic() + ahead
    job = work.Job(shared, work.Plan.seeded(seed, seconds), origin, os.getpid(), folder, seed)
    workers = {}
    for name, target in work.WORKERS.items():
        workers[name] = context.Process(target=target, args=(job,), daemon=True, name=name)
        workers[name].start()
        if name == "web_server":
            while not shared[work.WEB_PORT] and workers[name].is_alive():
                time.sleep(0.02)
    return shared, workers, origin


def cells(when: float, row: dict[str, float]) -> list[str]:
    """One line of the file; missing values are empty."""
    return [stamp(when), *("" if math.isnan(v) else f"{v:.6g}" for v in row.values())]


def record(minutes: float, hz: float, seed: int, fault_scale: float, partial: Path) -> tuple[list, list]:
    """Sample on the grid start + k / hz until the time is over; returns the lines and the events."""
    count = round(minutes * 60 * hz)
    missing = dict.fromkeys(CHANNELS, math.nan)
    with tempfile.TemporaryDirectory() as folder:
        shared, workers, origin = start_workers(seed, minutes * 60, folder)
        wall = round(time.time() + origin - time.monotonic(), 3)
        layer, sensors = SensorFault(seed, hz), Sensors(shared)
        pids = {name: worker.pid or 0 for name, worker in workers.items()}
        faults = FaultRunner(schedule(seed, count / hz, fault_scale), origin, layer, pids)
        print(f"start {stamp(wall)} end {stamp(wall + count / hz)} faults {len(faults.events)}", flush=True)
        faults.start()
        time.sleep(max(0.0, origin - 1 / hz - time.monotonic()))
        sensors.read()  # fills the counters one period before the first sample
        lines: list[list[str]] = []
        skipped, k = 0, 0
        while k < count:
            wait = origin + k / hz - time.monotonic()
            if wait < -1 / hz:
                lines.append(cells(wall + k / hz, layer.apply(missing)))
                skipped += 1
            else:
                time.sleep(max(0.0, wait))
                lines.append(cells(wall + k / hz, layer.apply(sensors.read())))
            k += 1
            if k % round(60 * hz) == 0:
                write_atomically(partial, to_csv(["time", *CHANNELS], lines))
                write_atomically(partial.with_suffix(".events.csv"), to_csv(EVENT_COLUMNS, event_rows(faults.done)))
                alive = sum(worker.is_alive() for worker in workers.values())
                print(f"{k}/{count} skipped {skipped} events {len(faults.done)} workers {alive}", flush=True)
        faults.join(10)
        for worker in workers.values():
            worker.kill()
            worker.join()
    return lines, faults.done


def main() -> None:
    """Parse the command line, record, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=66, help="length; the second half has the faults")
    parser.add_argument("--hz", type=float, default=2)
    parser.add_argument("--out", type=Path, default=Path("datasets"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fault-scale", type=float, default=1.0, help="shorten faults and gaps, for trials")
    args = parser.parse_args()
    partial = Path(tempfile.gettempdir()) / "telemetry_partial.csv"
    lines, done = record(args.minutes, args.hz, args.seed, args.fault_scale, partial)
    table = gzip.compress(to_csv(["time", *CHANNELS], lines), mtime=0)
    write_atomically(args.out / "telemetry.csv.gz", table)
    write_atomically(args.out / "telemetry_events.csv", to_csv(EVENT_COLUMNS, event_rows(done)))
    print(f"wrote {len(lines)} rows, {len(done)} events", flush=True)


if __name__ == "__main__":
    main()
