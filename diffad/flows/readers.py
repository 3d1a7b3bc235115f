"""Readers of flow logs and packet captures, in chunks, plain or gzip; see `diffad.flows.formats` for what they read.

Files become blocks of lines here, lines become fields in `diffad.flows.lines`, fields become flows in
`diffad.flows.table`.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pandas as pd

from diffad.base.arguments import check_count
from diffad.base.telling import tell
from diffad.flows.formats import FORMATS
from diffad.flows.lines import SeparatedLines, line_parser
from diffad.flows.table import ReadReport, flow_table, joined

GZIP_MAGIC = b"\x1f\x8b"
#: First bytes of pcap in both byte orders and resolutions, and of pcapng.
PCAP_MAGIC = tuple(map(bytes.fromhex, ("a1b2c3d4", "d4c3b2a1", "a1b23c4d", "4d3cb2a1", "0a0d0d0a")))
#: Characters after which a line is cut in two, lest a file without line ends fill the memory.
LONGEST_LINE = 1 << 20
#: Bytes by which a format is told.
SAMPLE_BYTES = 1 << 16


def read_flows(
    path: str | os.PathLike[str],
    format: str = "auto",
    chunk_rows: int = 100_000,
    timezone: str = "UTC",
    report: ReadReport | None = None,
) -> Iterator[pd.DataFrame]:
    """Read a log of flows in chunks, in the order of the file.

    Parameters
    ----------
    path : path
        A log or a packet capture, plain or gzip.
    format : {"auto", "zeek", "zeek-json", "suricata", "nfdump", "cicflowmeter", "pcap"}, default="auto"
        "auto" looks at the content. Captures need the extra ``network``.
    chunk_rows : int, default=100_000
        Lines held in memory at a time.
    timezone : str, default="UTC"
        Zone of times written without one: nfdump and CICFlowMeter write those of the machine they ran on.
    report : ReadReport, optional
        A new one, filled while reading.

    Yields
    ------
    DataFrame with the columns `diffad.flows.COLUMNS`, never empty

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is empty, of an unknown format, or holds lines and none of them a flow. A log of headers only
        is an hour without traffic: no chunk and no error.
    ImportError
        If a capture is to be read without nfstream.

    Warns
    -----
    UserWarning
        At the end, with counts and examples of lines left out and values set to missing.
    """
    path, report = Path(path), report if report is not None else ReadReport()
    check_count(chunk_rows, "chunk_rows")
    if format not in ("auto", *FORMATS):
        raise ValueError(f"format must be 'auto' or one of {list(FORMATS)}, got {format!r}")
    if report.lines:
        raise ValueError("report holds the counts of another file; give each file a new ReadReport()")
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, TypeError, ValueError, OSError) as error:
        raise ValueError(f"timezone must be a name such as 'Europe/Berlin', got {timezone!r}") from error
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    sample, zipped = _sample(path)
    format = _detect(sample, path) if format == "auto" else format
    if format == "pcap":
        return _finished(_captured(path, zipped, chunk_rows, report), path, format, report)
    parser = line_parser(format, report, timezone)
    return _finished(map(parser.parse, _blocks(path, zipped, chunk_rows, report)), path, format, report)


def load_flows(
    path: str | os.PathLike[str], format: str = "auto", timezone: str = "UTC", report: ReadReport | None = None
) -> pd.DataFrame:
    """Read a log of flows into one table; errors as of `read_flows`.

    Parameters
    ----------
    path, format, timezone, report
        As in `read_flows`.

    Returns
    -------
    DataFrame with the columns `diffad.flows.COLUMNS`, in the order of the file
    """
    return joined(list(read_flows(path, format, timezone=timezone, report=report)))


def format_of(path: str | os.PathLike[str]) -> str:
    """Return the format of a log or capture by its content, as "auto" of `read_flows` does."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return _detect(_sample(path)[0], path)


def _finished(tables: Iterable[pd.DataFrame], path: Path, format: str, report: ReadReport) -> Iterator[pd.DataFrame]:
    yield from (table for table in tables if len(table))
    if not report.flows and (report.left_out or report.other):
        raise ValueError(f"{path} holds no flow that can be read as {format}: {report}")
    if report.left_out or report.set_missing:
        tell(f"{path}: {report}")


def _sample(path: Path) -> tuple[bytes, bool]:
    """Return the beginning of a file, unzipped and behind a hole of zeros, and whether it is zipped."""
    with path.open("rb") as file:
        if not file.peek(2).startswith(GZIP_MAGIC):
            skip_zeros(file)
            return file.read(SAMPLE_BYTES), False
        head, unzip = b"", zlib.decompressobj(wbits=31)
        try:
            # Block by block: a hole of many megabytes is zipped into a few kilobytes.
            while len(head) < SAMPLE_BYTES and (block := file.read(SAMPLE_BYTES)):
                head = (head + unzip.decompress(block)).lstrip(b"\0")
        except zlib.error as error:
            raise ValueError(f"{path} begins like gzip but cannot be unzipped: {error}") from error
    return head, True


def skip_zeros(file: io.BufferedReader | gzip.GzipFile) -> int:
    """Go on to the next byte that is not zero, and return how many were passed.

    A log that was cut under a writer who does not append begins with a hole as long as what was cut off.
    """
    size = 0
    while block := file.peek(1):
        zeros = len(block) - len(block.lstrip(b"\0"))
        file.read(zeros)
        size += zeros
        if zeros < len(block):
            break
    return size


def _detect(sample: bytes, path: Path) -> str:
    if sample[:4] in PCAP_MAGIC:
        return "pcap"
    text = sample.decode("utf-8-sig", errors="replace")
    lines = [line.rstrip("\r") for line in text.split("\n") if line.strip()]
    if not lines:
        raise ValueError(f"{path} is empty")
    if re.match(r"\[\s*\{", text.lstrip()):
        raise ValueError(f"{path} is one JSON array; write one object a line, as with: jq -c '.[]' {path}")
    if lines[0].strip() == "{":
        raise ValueError(f"{path} has JSON objects of several lines; write one a line, as with: jq -c . {path}")
    if lines[0].startswith("{"):
        if '"event_type"' in text or "orig_h" in text:
            return "suricata" if '"event_type"' in text else "zeek-json"
        raise ValueError(f"{path} is JSON of neither Suricata (event_type) nor Zeek (id.orig_h): {lines[0][:200]}")
    if lines[0].startswith(("#separator", "#fields", "#path")):
        return "zeek"
    for format in ("zeek", "nfdump", "cicflowmeter"):
        parser = line_parser(format, ReadReport())
        if isinstance(parser, SeparatedLines) and any(parser.header(line) for line in lines[:20]):
            return format
    raise ValueError(
        f"{path} has no header of Zeek, nfdump (ts,td,pr,sa,da,... or firstSeen,...) or CICFlowMeter (Timestamp, Flow "
        f"Duration, ...), and is neither JSON nor a capture; it begins with {lines[0][:200]!r}"
    )


def _blocks(path: Path, zipped: bool, n: int, report: ReadReport) -> Iterator[list[str]]:
    """Yield lists of n lines without their ends; a broken gzip stream ends them and is reported."""
    block: list[str] = []
    with gzip.open(path) if zipped else path.open("rb") as file:
        # Only the newline ends a line: a carriage return or another separator inside is data.
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="\n")  # type: ignore[type-var]
        try:
            skip_zeros(file)
            for line in iter(partial(text.readline, LONGEST_LINE), ""):
                block.append(line.rstrip("\r\n"))
                if len(block) == n:
                    yield block
                    block = []
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            report.lines += 1
            report.note(report.left_out, f"the gzip stream breaks off ({error})", block[-1:], 1)
        if block:
            yield block


def _captured(path: Path, zipped: bool, n: int, report: ReadReport) -> Iterator[pd.DataFrame]:
    """Yield the flows of a packet capture, bytes as of IP packets."""
    try:
        from nfstream import NFStreamer
    except ImportError as error:
        raise ImportError(
            f"reading the capture {path} needs nfstream: pip install 'diffad[network]', or give Zeek's conn.log of it"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        if zipped:
            unzipped = Path(folder) / "capture.pcap"
            with gzip.open(path) as source, unzipped.open("wb") as target:
                shutil.copyfileobj(source, target)
            path = unzipped
        # Several meters would hand flows over in any order.
        flows = iter(NFStreamer(source=str(path), statistical_analysis=True, accounting_mode=1, n_meters=1))
        kind = FORMATS["pcap"]
        while block := list(islice(flows, n)):
            report.lines += len(block)
            frame = pd.DataFrame({name: [getattr(f, key) for f in block] for name, (key,) in kind.names.items()})
            yield flow_table(kind.finish(frame), [f"{f.src_ip} -> {f.dst_ip}" for f in block], report)
