"""The one flow table: columns, units and dtypes, and what was met on the way into it.

Every reader ends in `flow_table`. Nothing here knows a file format.

=================================== ===================== ==================================================
column                              dtype                 meaning
=================================== ===================== ==================================================
start                               datetime64[ns, UTC]   first packet
duration                            float64               seconds
source, destination                 string                address of the initiator, and of its peer
source_port, destination_port       Int32                 none for ICMP
protocol                            string                ``tcp``, ``udp``, ``icmp`` (v6 as well), ``ip-99``
service                             string                application as the sensor named it
state                               string                Zeek's conn_state, or flags as in ``...AP.SF``
bytes_out, bytes_in                 float64               from source to destination, and back
packets_out, packets_in             float64               likewise
=================================== ===================== ==================================================

An address that is no IP address is kept as it is: it may be a pseudonym. IPv6 is written in its short form.
Missing values are NaN, NaT or NA. Counters are float64: exact to 2**53, and larger ones than int64 holds fit.
Whether bytes include headers is up to the exporter; see `diffad.flows.formats`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

#: Columns of a flow table and their dtypes, in order.
COLUMNS = {
    "start": "datetime64[ns, UTC]",
    "duration": "float64",
    "source": "string",
    "source_port": "Int32",
    "destination": "string",
    "destination_port": "Int32",
    "protocol": "string",
    "service": "string",
    "state": "string",
    "bytes_out": "float64",
    "bytes_in": "float64",
    "packets_out": "float64",
    "packets_in": "float64",
}
PORTS = ("source_port", "destination_port")
COUNTERS = ("duration", "bytes_out", "bytes_in", "packets_out", "packets_in")
PROTOCOLS = {"1": "icmp", "2": "igmp", "6": "tcp", "17": "udp", "47": "gre", "50": "esp", "51": "ah", "132": "sctp"}
PROTOCOLS |= dict.fromkeys(("58", "icmp6", "icmpv6", "ipv6-icmp"), "icmp")
#: States of attempts that never became a connection, in Zeek's words and in Suricata's.
FAILED = ("S0", "REJ", "RSTOS0", "SH", "new")
FIN, SYN, RST = 1, 2, 4
#: Date formats of CICFlowMeter and its data sets: the day comes first.
DAY_FIRST = ("%d/%m/%Y %I:%M:%S %p", "%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S.%f", "%d/%m/%Y %H:%M")
#: Nanoseconds in int64 end in the year 2262: the last start and the longest duration in seconds stay below together.
LAST_YEAR, LONGEST = 2200, 1e9
#: Counters beyond are no counts, and their rates would leave the range of numbers.
LARGEST = 2.0**100
N_EXAMPLES = 3


@dataclass
class ReadReport:
    """What reading met; every line is counted once.

    ``lines == flows + headers + sum(left_out) + sum(other)`` holds at the end of each chunk.

    Attributes
    ----------
    lines, flows, headers : int
        Lines read, flows made of them, and headers, comments, summaries and blank lines.
    left_out : Counter
        Reason -> lines that are no flow although they should be.
    set_missing : Counter
        Reason -> values set to missing in flows that were kept.
    other : Counter
        Kind -> records that are rightly no flows, as the alerts of an eve.json.
    examples : dict of str to list of str
        The first lines met for each reason, cut to 200 characters.
    """

    lines: int = 0
    flows: int = 0
    headers: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    set_missing: Counter[str] = field(default_factory=Counter)
    other: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, counts: Counter[str], reason: str, lines: Iterable[str], n: int) -> None:
        """Add `n` cases of a reason to one of the counters, with their first lines."""
        if not n:
            return
        counts[reason] += n
        seen = self.examples.setdefault(reason, [])
        seen += [line[:200] for line in islice(lines, N_EXAMPLES - len(seen))]

    def __str__(self) -> str:
        """Return a paragraph with all counts and one example for each trouble."""
        parts = [f"{self.flows} flows from {self.lines} lines"]
        for label, counts in (("left out", self.left_out), ("set to missing", self.set_missing)):
            parts += [f"{label}: {n} x {why}, e.g. {next(iter(self.examples[why]), '')!r}" for why, n in counts.items()]
        parts += [f"no flows: {n} x {kind}" for kind, n in self.other.items()]
        return "; ".join(parts)


def flow_table(
    fields: Mapping[str, Any], lines: Sequence[str], report: ReadReport, timezone: str = "UTC"
) -> pd.DataFrame:
    """Turn the fields of flows, text or numbers, into a flow table.

    Flows without a readable start are left out; other values that cannot be are set to missing. Both are counted.

    Parameters
    ----------
    fields : mapping of column name to sequence of length n
        ``start`` (and ``end``, where there is no duration) in seconds, milli- or microseconds since 1970 or as
        text; ``duration`` in seconds. Columns that are absent or None become missing.
    lines : sequence of n str
        Where the flows came from, for the report.
    report : ReadReport
        Counts are added to it.
    timezone : str, default="UTC"
        Zone of times written without one. An hour that occurs twice counts as the first, a skipped one as its end.

    Returns
    -------
    DataFrame with the columns `COLUMNS`
    """
    raw = {name: pd.Series(values) for name, values in fields.items() if values is not None}
    start = _times(raw["start"], timezone)
    timeless = start.isna().to_numpy()
    if timeless.any():
        report.note(report.left_out, "no readable start time", _at(lines, timeless), int(timeless.sum()))
        lines = list(_at(lines, ~timeless))
        start = start[~timeless].reset_index(drop=True)
        raw = {name: values[~timeless].reset_index(drop=True) for name, values in raw.items()}
    if "duration" not in raw and "end" in raw:
        raw["duration"] = (_times(raw["end"], timezone) - start).dt.total_seconds()
    n = len(start)
    columns: dict[str, Any] = {"start": start}
    for name in ("source", "destination"):
        columns[name] = _each(raw.get(name), _address, n)
    columns["protocol"] = _each(raw.get("protocol"), _protocol, n)
    for name in ("service", "state"):
        columns[name] = _each(raw.get(name), _text, n)
    for name in (*COUNTERS, *PORTS):
        columns[name] = _numbers(raw.get(name), name, lines, report)
    icmp = columns["protocol"] == "icmp"
    for name in PORTS:
        # Exporters write the type and code of ICMP where others have ports.
        ports = np.where(icmp, np.nan, columns[name])
        wrong = (ports > 65535) | (ports % 1 > 0)
        report.note(report.set_missing, f"{name} is no port", _at(lines, wrong), int(wrong.sum()))
        columns[name] = pd.array(np.where(wrong, np.nan, ports), dtype="Int32")
    report.flows += n
    return pd.DataFrame({name: columns[name] for name in COLUMNS}).astype(COLUMNS)


def connection_state(
    tcp: NDArray[np.bool_], flags_out: NDArray[np.int64], flags_in: NDArray[np.int64], replied: NDArray[np.bool_]
) -> NDArray[Any]:
    """Return Zeek's conn_state from the TCP flags (FIN 1, SYN 2, RST 4) seen in each direction, as an array of str.

    Without TCP it only says whether the destination `replied` (SF) or not (S0).
    """
    opened, accepted = (flags_out & SYN) > 0, (flags_in & SYN) > 0
    reset_out, reset_in = (flags_out & RST) > 0, (flags_in & RST) > 0
    closed_out, closed_in = (flags_out & FIN) > 0, (flags_in & FIN) > 0
    rules = [
        (~tcp & replied, "SF"),
        (~tcp, "S0"),
        (~opened, "OTH"),
        (reset_in & ~accepted, "REJ"),
        (reset_in, "RSTR"),
        (reset_out & ~accepted, "RSTOS0"),
        (reset_out, "RSTO"),
        (closed_out & ~accepted, "SH"),
        (~accepted, "S0"),
        (closed_out & closed_in, "SF"),
        (closed_out, "S2"),
        (closed_in, "S3"),
    ]
    return np.select([where for where, _ in rules], [state for _, state in rules], "S1").astype(object)


def failed(table: pd.DataFrame) -> NDArray[np.float64]:
    """Return 1 for flows that never became a connection, 0 for others and NaN where the state is unknown.

    Failed are Zeek's S0, REJ, RSTOS0 and SH, Suricata's ``new``, and TCP flags with SYN and without ACK.
    """
    codes, states = pd.factorize(table["state"].to_numpy(dtype=object, na_value=None))
    never = [s in FAILED or (s.endswith(("S.", "SF")) and "." in s and "A" not in s) for s in states]
    return np.r_[np.array(never, float), np.nan][codes]


def _at(lines: Sequence[str], mask: NDArray[np.bool_]) -> Iterable[str]:
    return (lines[int(k)] for k in np.flatnonzero(mask))


def _each(values: pd.Series | None, function: Callable[[str], str | None], n: int) -> NDArray[Any]:
    """Apply a function to each different value, and return text (n,); None and NaN stay missing.

    Halves of characters, which JSON can escape, become question marks.
    """
    if values is None:
        return np.full(n, None, dtype=object)
    given = values.to_numpy(dtype=object)
    try:
        codes, unique = pd.factorize(given)
    except TypeError:  # JSON can hold lists and objects, too
        codes, unique = pd.factorize(values.map(str, na_action="ignore").to_numpy(dtype=object))
    texts = (str(value).encode("utf-8", "replace").decode() for value in unique)
    return np.array([*(function(text) for text in texts), None], dtype=object)[codes]


def _text(value: str) -> str | None:
    return value.strip() or None


@lru_cache(maxsize=1 << 16)
def _address(value: str) -> str | None:
    try:
        return str(ip_address(value.strip()))
    except ValueError:  # a pseudonym is an address, too
        return value.strip() or None


def _protocol(value: str) -> str | None:
    name = value.strip().lower().removesuffix(".0")
    return PROTOCOLS.get(name, f"ip-{name}" if name.isdecimal() else name) or None


def _numbers(values: pd.Series | None, name: str, lines: Sequence[str], report: ReadReport) -> NDArray[np.float64]:
    """Return numbers that may be so large and are not negative, NaN for the others."""
    if values is None:
        return np.full(len(lines), np.nan)
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    given = values.notna().to_numpy() & (values != "").to_numpy(dtype=bool, na_value=False)
    most = LONGEST if name == "duration" else LARGEST
    unreadable = given & ~np.isfinite(numbers)
    troubles = {"unreadable": unreadable, "negative": numbers < 0, "too large": (numbers > most) & ~unreadable}
    for trouble, mask in troubles.items():
        report.note(report.set_missing, f"{name} {trouble}", _at(lines, mask), int(mask.sum()))
    return np.where((numbers >= 0) & (numbers <= most), numbers, np.nan)


def _times(values: pd.Series, timezone: str) -> pd.Series:
    """Return times (n,) in UTC, NaT where there is none to read."""
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    # Today is 1.8e9 in seconds, 1.8e12 in milli- and 1.8e15 in microseconds. Rounding makes up for the digits
    # that float64 lacks.
    size = np.abs(numbers)
    with np.errstate(invalid="ignore"):
        micro = np.rint(numbers * np.select([size < 1e11, size < 1e14], [1e6, 1e3], 1.0))
        readable = np.abs(micro) < (LAST_YEAR - 1970) * 31556952e6
    stamps = np.full(len(values), "NaT", dtype="datetime64[us]")
    stamps[readable] = micro[readable].astype(np.int64).astype("datetime64[us]")
    times = pd.Series(stamps).dt.tz_localize("UTC")
    texts = values.reset_index(drop=True)[np.isnan(numbers) & values.notna().to_numpy()].astype(str).str.strip()
    if len(texts):
        zoned = texts.str.contains(r"[T ].*(?:Z|[+-]\d\d(?::?\d\d)?)$").to_numpy(dtype=bool)
        times[texts.index[zoned]] = _in_range(pd.to_datetime(texts[zoned], format="ISO8601", utc=True, errors="coerce"))
        times[texts.index[~zoned]] = _in_range(_local_times(texts[~zoned], timezone))
    return times.astype("datetime64[ns, UTC]")


def _local_times(texts: pd.Series, timezone: str) -> pd.Series:
    wall = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce").dt.tz_localize(None)
    wall = wall.astype("datetime64[us]")
    for pattern in DAY_FIRST:
        if not (missing := wall.isna()).any():
            break
        wall[missing] = pd.to_datetime(texts[missing], format=pattern, errors="coerce").astype("datetime64[us]")
    first = np.ones(len(wall), dtype=bool)
    return wall.dt.tz_localize(timezone, ambiguous=first, nonexistent="shift_forward").dt.tz_convert("UTC")


def _in_range(times: pd.Series) -> pd.Series:
    times = times.astype("datetime64[us, UTC]")
    return times.where(times.dt.year.between(1678, LAST_YEAR - 1))


def joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Return flow tables as one."""
    filled = [table for table in tables if len(table)]
    if len(filled) == 1:
        return filled[0]
    if filled:
        return pd.concat(filled, ignore_index=True)
    return no_flows()


def no_flows() -> pd.DataFrame:
    """Return a flow table without any."""
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
