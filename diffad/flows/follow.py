"""Alerts from a log that grows: every flow once, whatever happens to this process, or to a log that is renamed.

What has been read, what its sources did and how far the output reached are written to one state
file after every batch of alerts.  A process that died in between finds the state before, cuts
the output back to it and reads on from there.
"""

from __future__ import annotations

import io
import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

from diffad.base.telling import tell
from diffad.base.whole_files import replacing
from diffad.flows.alerts import FlowModel, Limits, Watch
from diffad.flows.ecs import ecs_lines
from diffad.flows.incidents import Incidents
from diffad.flows.lines import line_parser
from diffad.flows.readers import format_of, skip_zeros
from diffad.flows.rotation import file_of, is_packed, later_logs, rotated_names, size_of, stat_of
from diffad.flows.table import ReadReport

#: Bytes of the log that are read at a time; bounds memory.
BATCH_BYTES = 4 << 20
#: Times as long as it takes that pass between two states without an alert between them: a large one must not be written
#: for every line.
PAUSE = 10.0
#: Bytes by which a log is known again.
MARK_BYTES = 1 << 12


@dataclass
class State:
    """What a restart needs.

    Attributes
    ----------
    inode, offset : int
        The log that is being read (0: none yet), and how many of its bytes are done.
    before : bytes
        The last of these: another file may get the inode of one that is gone.
    output, written : int
        Inode of the output (0: none yet), and how many of its bytes belong to these.
    format : str
        As of `diffad.flows.read_flows`; "auto" until a log has a first line.
    belongs_to : dict of str to str
        By name: log, output and time zone, which a restart must not change, and model.
    parser, watch, incidents
        What they remember of lines and flows before.
    """

    watch: Watch
    format: str
    belongs_to: dict[str, str]
    parser: Any = None
    incidents: Incidents = field(default_factory=Incidents)
    inode: int = 0
    offset: int = 0
    before: bytes = b""
    output: int = 0
    written: int = 0


class Follower:
    """Judge the lines of a growing log and append alerts to a file of JSON lines.

    Parameters
    ----------
    log : Path
        A log of lines, plain. When it is rotated (another file takes its name), the old one is read until the new one
        has bytes, then those between, also after a restart, if they stay in the same folder, unpacked, and are named
        after the log with a number, date or time (conn.log.1, conn.2026-01-31.log). When it is cut in place
        (logrotate's ``copytruncate``), lines not yet read are lost, and those that come stand under the header of
        before.
    model : FlowModel
    output : Path
        Appended to; cut back to the last complete batch at a restart. Where it is renamed, as by rotation, or removed,
        a new one is begun.
    limits : Limits
        As of `FlowModel.limits`.
    format : str
        As of `diffad.flows.read_flows`; "auto" waits for the log's first line.
    state : Path
        Where to keep what a restart needs; belongs to one log, format, time zone and output. With another model, as one
        fitted anew, reading goes on as well, but what sources did before is forgotten.
    timezone : str, default="UTC"
        As of `diffad.flows.read_flows`.
    """

    def __init__(
        self,
        log: Path,
        model: FlowModel,
        output: Path,
        limits: Limits,
        format: str,
        state: Path,
        timezone: str = "UTC",
    ) -> None:
        self.log, self.model, self.output = log, model, output
        self.limits, self.format, self.state_file, self.timezone = limits, format, state, timezone
        self._saved_at = self._saving_took = 0.0
        # Whether lines were judged since, and whether some are being judged: then no state tells what is done.
        self._unsaved = self._judging = False
        self.state = self._restored()
        if not self.state_file.exists():
            self._save()  # how long the output was before, should the first batch be broken off
        self._file: io.BufferedReader | None = None

    def run(self, stop: Callable[[], bool] = lambda: False, wait: float = 1.0) -> None:
        """Follow the log until `stop` says so; looks every `wait` seconds for new lines."""
        try:
            while not stop():
                if not self.step():
                    time.sleep(wait)
        finally:
            if self._unsaved and not self._judging:
                self._save()

    def step(self) -> int:
        """Judge the lines that are there, at most a batch of them; return how many."""
        if self._file is not None and not self._is_continued(self._file):
            self._close()
        if self._file is None:
            self._file = self._open()
        if self._file is None:
            return self._rest()
        over = self._is_over()  # asked first: what is written until the next log begins is read below
        lines, block = self._lines(over)
        if lines:
            self._judge(lines, block)
        elif over:
            self._close()
            return self.step()
        return len(lines) or self._rest()

    def _rest(self) -> int:
        """Save what was judged since the last state, if that is long enough ago; return 0."""
        if self._unsaved and self._may_save():
            self._save()
        return 0

    def _may_save(self) -> bool:
        return time.monotonic() - self._saved_at > PAUSE * self._saving_took

    def _lines(self, over: bool) -> tuple[list[str], bytes]:
        """Return the next complete lines, without and with their ends; the last of a log that is over may lack its own."""
        assert self._file is not None
        self._file.seek(self.state.offset)
        hole = skip_zeros(self._file)
        block = self._file.read(BATCH_BYTES)
        # Zeros with nothing behind them may be a block that is yet to be written.
        if hole and not (block or over):
            return [], b""
        if hole:
            self.state.offset += hole
            self.state.before = bytes(min(hole, MARK_BYTES))
        end = block.rfind(b"\n") + 1
        if not end and len(block) == BATCH_BYTES:
            return self._lines(over) if self._skip_line(block, over) else ([], b"")
        if not end and over:
            end = len(block)
        if not end:
            return [], b""
        if self.state.format == "auto":
            self.state.format = format_of(Path(self._file.name))
        text = block[:end].decode("utf-8" if self.state.offset else "utf-8-sig", errors="replace")
        return [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")], block[:end]

    def _skip_line(self, block: bytes, over: bool) -> bool:
        """Go on after a line that is too long for a batch and begins with `block`; False if its end is yet to come."""
        assert self._file is not None
        size, last = len(block), block[-MARK_BYTES:]
        while not last.endswith(b"\n") and (more := self._file.read(BATCH_BYTES)):
            part = more[: more.find(b"\n") + 1] or more
            size, last = size + len(part), (last + part)[-MARK_BYTES:]
        if not (over or last.endswith(b"\n")):
            return False
        tell(f"{self.log}: left out a line of {size} bytes")
        self.state.offset += size
        self.state.before = last
        self._save()
        return True

    def _judge(self, lines: list[str], block: bytes) -> None:
        # Before anything is judged: what a state tells must all be done, or none of it.
        self._find_output()
        self._judging, state = True, self.state
        state.parser = state.parser or line_parser(state.format, ReadReport(), self.timezone)
        state.parser.report = ReadReport()
        flows = state.parser.parse(lines)
        report = state.parser.report
        if report.left_out or report.set_missing:
            tell(f"{self.log}: {report}")
        text = b""
        if len(flows):
            alerts = state.incidents.assign(self.model.alerts(flows, state.watch, self.limits))
            text = "".join(line + "\n" for line in ecs_lines(alerts)).encode()
        if text:
            with self.output.open("ab") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        state.written += len(text)
        state.offset += len(block)
        state.before = (state.before + block)[-MARK_BYTES:]
        self._judging, self._unsaved = False, True
        if text or self._may_save():
            self._save()

    def _find_output(self) -> None:
        """Begin a new output where the one before was renamed, removed or cut, and remember how long it is."""
        with self.output.open("ab") as file:
            place = os.fstat(file.fileno())
        if place.st_ino == self.state.output and place.st_size >= self.state.written:
            return
        if self.state.output:
            tell(f"{self.output} is another file than before, or was cut; alerts are appended to it")
        self.state.output, self.state.written = place.st_ino, place.st_size
        self._save()

    def _save(self) -> None:
        began = time.monotonic()
        with replacing(self.state_file) as draft, draft.open("wb") as file:
            pickle.dump(self.state, file)
            file.flush()
            os.fsync(file.fileno())
        self._unsaved, self._saved_at = False, time.monotonic()
        self._saving_took = self._saved_at - began

    def _belongs_to(self) -> dict[str, str]:
        # Not resolved: the name of a log may be a link that moves on.
        paths = {"log": os.path.abspath(self.log), "output": os.path.abspath(self.output)}
        return {**paths, "timezone": self.timezone, "model": self.model.digest}

    def _restored(self) -> State:
        place = stat_of(self.output)
        if not self.state_file.exists():
            inode, size = (place.st_ino, place.st_size) if place else (0, 0)
            return State(self.model.watch(), self.format, self._belongs_to(), output=inode, written=size)
        try:
            state = pickle.loads(self.state_file.read_bytes())
        except Exception as error:
            raise ValueError(f"state file {self.state_file} is broken ({error}); remove it to start anew") from error
        if not isinstance(state, State):
            raise ValueError(f"{self.state_file} is no state of diffad flows; give another file")
        if not _is_current(state):
            raise ValueError(
                f"state file {self.state_file} was written by another version of diffad; remove it to start anew"
            )
        self._check_same(state)
        written = file_of(self.output, state.output) if state.output else None
        # A file of another name may have got the inode of one that is gone: it must not be cut.
        own = written == self.output or (written and rotated_names(self.output).fullmatch(written.name))
        if written and own and not is_packed(written) and size_of(written) > state.written:
            with written.open("ab") as file:
                file.truncate(state.written)
        return state

    def _check_same(self, state: State) -> None:
        """Refuse a state that belongs to something else, and say to what; another model begins to watch."""
        given, known = self._belongs_to(), dict(state.belongs_to)
        if self.format != "auto" and state.format != "auto":
            given, known = given | {"format": self.format}, known | {"format": state.format}
        for name in known.keys() - {"model"}:
            if given[name] != known[name]:
                raise ValueError(
                    f"state file {self.state_file} belongs to {name} {known[name]!r}, not {given[name]!r}; give the "
                    f"{name} that it belongs to, or remove it to start anew"
                )
        if given["model"] != known["model"]:
            tell(f"{self.log} goes on with another model; what its sources did before is forgotten")
            state.watch, state.belongs_to = self.model.watch(), self._belongs_to()
        if state.format == "auto":
            state.format = self.format

    def _open(self) -> io.BufferedReader | None:
        """Open the log that comes next; None where there is none yet."""
        path, goes_on = self._next()
        if not path.exists():
            return None
        if is_packed(path):
            raise ValueError(f"{path} is compressed; a log that is followed must be plain")
        file = path.open("rb")
        if goes_on and not self._is_continued(file):
            # A log that was cut in place goes on without a header; one that comes replaces the columns.
            tell(f"{path} is shorter or another one: lines not yet read are lost, and it is read from its beginning")
            self.state.offset, self.state.before = 0, b""
        if not goes_on:
            self.state.inode, self.state.offset = os.fstat(file.fileno()).st_ino, 0
            self.state.before, self.state.parser = b"", None
            self._save()  # by its inode a log is found again, whatever it is called by then
        return file

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def _next(self) -> tuple[Path, bool]:
        """Return which log to read, and whether it is the one read so far."""
        if not self.state.inode:
            return self.log, False
        old = file_of(self.log, self.state.inode)
        if old is None:
            tell(
                f"the log read until byte {self.state.offset} is gone; lines written to it after that are lost",
            )
            return self.log, False
        if old == self.log:
            return old, True
        after = self._after(old)
        # In this order: what was written to the old log before the new one had bytes is there to be read.
        if not size_of(after) or self.state.offset < old.stat().st_size:
            return old, True
        self._tell_of_packed(old, after)
        return after, False

    def _is_continued(self, file: io.BufferedReader) -> bool:
        """Return whether a file still has what was read of it."""
        before = self.state.before
        file.seek(self.state.offset - len(before))
        return file.read(len(before)) == before

    def _after(self, old: Path) -> Path:
        """Return the log that followed a rotated one: the log itself, unless it was rotated more than once."""
        return next((path for path in self._later(old) if not is_packed(path)), self.log)

    def _later(self, old: Path) -> list[Path]:
        return later_logs(self.log, old, self.state.format, {self.output, self.state_file})

    def _tell_of_packed(self, old: Path, after: Path) -> None:
        """Name the logs between two that cannot be read."""
        for path in takewhile(lambda path: path != after, self._later(old)):
            tell(f"{path} was packed before it was read; its lines are left out")

    def _is_over(self) -> bool:
        """Return whether the log was cut, or another one came after it and has bytes.

        A new log that is empty says nothing: its writer may not have let go of the old one yet.
        """
        assert self._file is not None
        here = os.fstat(self._file.fileno())
        if here.st_size < self.state.offset:
            return True
        old = file_of(self.log, here.st_ino)
        if old == self.log:
            return False
        return size_of(self.log if old is None else self._after(old)) > 0


@contextmanager
def only_follower(output: Path) -> Iterator[None]:
    """Hold an output for this process alone: two followers would cut off each other's alerts.

    Raises
    ------
    BlockingIOError
        If another process holds it.
    """
    if fcntl is None:
        yield
        return
    with output.with_name(f"{output.name}.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                f"another process writes its alerts to {output}; stop it, or name another file"
            ) from None
        yield


def _is_current(kept: Any) -> bool:
    """Return whether what was unpickled, and what it holds, have the fields that this version gives them."""
    if not is_dataclass(kept):
        return True
    same = vars(kept).keys() == {field.name for field in fields(kept)}
    return same and all(map(_is_current, vars(kept).values()))
