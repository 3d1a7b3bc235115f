"""Parsers of lines of flow logs: text to fields; fields become flows in `diffad.flows.table`.

`SeparatedLines` reads columns under headers, `JsonLines` objects.  A line that is no flow is counted and reported,
whatever it is.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from diffad.flows.formats import FORMATS, NUMERIC, Format
from diffad.flows.table import ReadReport, flow_table, joined


@dataclass
class SeparatedLines:
    """Lines of separated fields under headers, which may change at any time."""

    format: Format
    report: ReadReport
    timezone: str = "UTC"
    separator: str = ","
    unset: str = ""
    empty: str = ""
    kind: str = "record of another log"
    columns: dict[str, int] = field(default_factory=dict)
    width: int = 0
    in_totals: bool = False

    def parse(self, lines: Sequence[str]) -> pd.DataFrame:
        """Return the flows of complete lines, given without their line ends."""
        self.report.lines += len(lines)
        tables: list[pd.DataFrame] = []
        batch: list[str] = []
        first = 0
        # Flows begin with a time, a number or an address, so few lines need a closer look.
        for k in (k for k, line in enumerate(lines) if not "0" <= line[:1] <= "9"):
            header, totals = self.header(lines[k]), lines[k].startswith("Summary")
            if header is None and not self._comment(lines[k]):
                continue
            batch += lines[first:k]
            first = k + 1
            self.report.headers += 1
            if header is not None or totals:
                tables += self._flows(batch)
                batch = []
                self.in_totals = totals
                self._lay_out(header or [])
        tables += self._flows(batch + list(lines[first:]))
        return joined(tables)

    def header(self, line: str) -> list[str] | None:
        """Return the field names if the line is a header, else None."""
        if line.startswith("#fields"):
            return line.split(self.separator)[1:]
        if line.startswith("#") or self.separator not in line:
            return None
        names = [name.strip(' "').lower().replace(" ", "_") for name in line.split(self.separator)]
        return names if self.format.needs <= self._find(names).keys() else None

    def _find(self, names: list[str]) -> dict[str, int]:
        """Return the position of each field that the format knows."""
        found = {ours: [names.index(n) for n in theirs if n in names] for ours, theirs in self.format.names.items()}
        return {name: at[0] for name, at in found.items() if at}

    def _comment(self, line: str) -> bool:
        """Return whether the line is a comment, after taking from it what Zeek says there."""
        value = line.split(self.separator, 1)[-1]
        if line.startswith("#separator"):
            code = re.fullmatch(r"#separator \\x([0-9a-fA-F]{2})", line.strip())
            self.separator = chr(int(code[1], 16)) if code else self.separator
        elif line.startswith("#unset_field"):
            self.unset = value
        elif line.startswith("#empty_field"):
            self.empty = value
        elif line.startswith("#path"):
            self.kind = f"Zeek {value} record"
        return not line.strip(" ") or line.startswith(("#", "Summary", "No matched"))

    def _lay_out(self, header: list[str]) -> None:
        self.width, self.columns = len(header), self._find(header)
        proof = self.format.proof
        if not self.format.needs <= self.columns.keys() or (proof and set(proof).isdisjoint(header)):
            self.columns = {}

    def _flows(self, lines: list[str]) -> list[pd.DataFrame]:
        if self.in_totals:
            self.report.headers += len(lines)
            return []
        if not self.width:
            self.report.note(self.report.left_out, "line without a header", lines, len(lines))
            return []
        if not self.columns:
            self.report.note(self.report.other, self.kind, lines, len(lines))
            return []
        n_separators = self.width - 1
        whole = [line for line in lines if line.count(self.separator) == n_separators]
        broken = (line for line in lines if line.count(self.separator) != n_separators)
        self.report.note(self.report.left_out, "wrong number of fields", broken, len(lines) - len(whole))
        if not whole:
            return []
        text = "\n".join(whole)
        numeric = {self.columns[name]: "float64" for name in NUMERIC & self.columns.keys()}
        try:
            frame = self._read(text, numeric)
        except ValueError:  # some number is unreadable: `flow_table` says which
            frame = self._read(text, dict.fromkeys(numeric, "object"))
        return [flow_table(self.format.finish(frame), whole, self.report, self.timezone)]

    def _read(self, text: str, numeric: dict[int, str]) -> pd.DataFrame:
        frame = pd.read_csv(
            # A quote that is never closed must not swallow lines, so quotes are no syntax.
            io.StringIO(text if self.separator == "\t" else text.replace('"', "")),
            sep=self.separator,
            header=None,
            usecols=sorted(self.columns.values()),
            dtype={k: "object" for name, k in self.columns.items() if name not in ("start", "end")} | numeric,
            quoting=csv.QUOTE_NONE,
            keep_default_na=False,
            na_values=[self.unset, self.empty, ""],
            skip_blank_lines=False,
            lineterminator="\n",
            low_memory=False,
        )
        return pd.DataFrame({name: frame[k] for name, k in self.columns.items()})


@dataclass
class JsonLines:
    """One JSON object a line."""

    format: Format
    report: ReadReport
    timezone: str = "UTC"

    def parse(self, lines: Sequence[str]) -> pd.DataFrame:
        """Return the flows of complete lines, given without their line ends."""
        given = [line for line in lines if line.strip()]
        self.report.lines += len(lines)
        self.report.headers += len(lines) - len(given)
        records, kept = [], []
        for line, record in zip(given, _objects(given), strict=True):
            if not isinstance(record, dict):
                self.report.note(self.report.left_out, "no JSON object", [line], 1)
            elif record.get("event_type", "flow") != "flow" or record.keys().isdisjoint(self.format.proof):
                kind = record.get("event_type", record.get("_path", "unnamed"))
                self.report.note(self.report.other, f"{kind} record", [line], 1)
            else:
                records.append(record)
                kept.append(line)
        if not records:
            return joined([])
        frame = pd.DataFrame({name: _column(records, key) for name, (key,) in self.format.names.items()}, dtype=object)
        return flow_table(self.format.finish(frame), kept, self.report, self.timezone)


def _column(records: list[dict[str, Any]], key: str) -> list[Any]:
    """Return a field of every record; ``id.orig_h`` is a name of its own or ``orig_h`` inside of ``id``."""
    values = [record.get(key) for record in records]
    outer, _, inner = key.partition(".")
    if not inner or None not in values:
        return values
    nests = (record.get(outer) for record in records)
    pairs = zip(values, nests, strict=True)
    return [nest.get(inner) if value is None and isinstance(nest, dict) else value for value, nest in pairs]


def _objects(lines: list[str]) -> list[Any]:
    """Return what each line says in JSON, None where it is broken."""
    try:
        together = json.loads(f"[{','.join(lines)}]")
        if len(together) == len(lines):
            return list(together)
    except (ValueError, RecursionError):
        pass
    objects = []
    for line in lines:
        try:
            objects.append(json.loads(line))
        except (ValueError, RecursionError):
            objects.append(None)
    return objects


def line_parser(format: str, report: ReadReport, timezone: str = "UTC") -> SeparatedLines | JsonLines:
    """Return the parser of a format of lines; feed its `parse` with the lines of a growing log, in order.

    It remembers headers from call to call and fills the report; parameters as of `read_flows`.
    """
    if format not in FORMATS or format == "pcap":
        raise ValueError(f"format must be one of {[name for name in FORMATS if name != 'pcap']}, got {format!r}")
    if format == "zeek":
        return SeparatedLines(FORMATS[format], report, timezone, "\t", "-", "(empty)")
    return (JsonLines if format in ("zeek-json", "suricata") else SeparatedLines)(FORMATS[format], report, timezone)
