"""What became of a file that is written to by another program: renamed by rotation, packed, gone."""

from __future__ import annotations

import os
import re
from itertools import chain
from pathlib import Path

from diffad.flows.readers import GZIP_MAGIC, format_of

#: What rotation adds to a name, before or after its suffix: .1, -20260131, .2026-01-31-00, .00:00:00-01:00:00.
TURN = r"[._-]\d[\dTZ:+._-]*"


def rotated_names(log: Path) -> re.Pattern[str]:
    """Return the names that a log may get by rotation; logs of other sensors begin like it, too.

    Examples
    --------
    >>> names = rotated_names(Path("conn.log"))
    >>> [name for name in ("conn.log.1", "conn-20260131.log", "conn_dmz.log") if names.fullmatch(name)]
    ['conn.log.1', 'conn-20260131.log']
    """
    stem, suffix = re.escape(log.stem), re.escape(log.suffix)
    return re.compile(rf"{stem}(?:{suffix}{TURN}|{TURN}{suffix})(?:\.gz)?")


def later_logs(log: Path, old: Path, format: str, without: set[Path]) -> list[Path]:
    """Return the rotated logs of a format that were written to after another one, in this order, packed or not."""
    rotated = rotated_names(log)
    named = [p for p in log.parent.iterdir() if rotated.fullmatch(p.name) and p not in without and p.is_file()]
    times = {path: path.stat().st_mtime_ns for path in (old, *named)}
    return sorted((p for p in named if times[p] > times[old] and _has_format(p, format)), key=times.__getitem__)


def _has_format(path: Path, format: str) -> bool:
    try:
        return format_of(path) == format
    except ValueError:
        return False


def size_of(path: Path) -> int:
    """Return how many bytes a file has, 0 where there is none."""
    found = stat_of(path)
    return found.st_size if found else 0


def stat_of(path: Path) -> os.stat_result | None:
    """Return what is known of a file, None where there is none: it may be renamed at any moment."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def file_of(name: Path, inode: int) -> Path | None:
    """Return the file with this inode that has a name, or had it and was renamed in its folder."""
    places = chain([name], name.parent.iterdir())
    return next((path for path in places if (found := stat_of(path)) and found.st_ino == inode), None)


def is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == GZIP_MAGIC
