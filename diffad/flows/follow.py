"""Alerts from a log that grows: every flow once, whatever happens to the log or to this process.

What has been read, what its sources did and how far the output reached are written to one state
file after every batch.  A process that died in between finds the state of the batch before, cuts
the output back to it and reads on from there.
"""

from __future__ import annotations

import os
import pickle
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from diffad.flows.alerts import FlowModel, Incidents, Watch, ecs_lines
from diffad.flows.readers import line_parser
from diffad.flows.table import ReadReport

#: Bytes of the log that are read at a time; bounds memory.
BATCH_BYTES = 4 << 20


@dataclass
class State:
    """What a restart needs.

    Attributes
    ----------
    inode, offset : int
        The log that is being read (0: none yet), and how many of its bytes are done.
    written : int
        Bytes of output that belong to these.
    parser, watch, incidents
        What they remember of lines and flows before.
    """

    parser: Any
    watch: Watch
    incidents: Incidents = field(default_factory=Incidents)
    inode: int = 0
    offset: int = 0
    written: int = 0


class Follower:
    """Judge the lines of a growing log and append alerts to a file of JSON lines.

    Parameters
    ----------
    log : Path
        A log of lines, plain. When it is rotated (another file takes its name), the rest of the old one is read
        first, also after a restart if it stays in the same folder, unpacked.
    model : FlowModel
    output : Path
        Appended to; cut back to the last complete batch at a restart.
    threshold : float
        As of `FlowModel.threshold`.
    format : str
        As of `diffad.flows.read_flows`, without "auto".
    state : Path
        Where to keep what a restart needs; belongs to one log, model and output.
    """

    def __init__(self, log: Path, model: FlowModel, output: Path, threshold: float, format: str, state: Path) -> None:
        self.log, self.model, self.output = log, model, output
        self.threshold, self.format, self.state_file = threshold, format, state
        self.state = self._restored()
        self._file: BinaryIO | None = None

    def run(self, stop: Callable[[], bool] = lambda: False, wait: float = 1.0) -> None:
        """Follow the log until `stop` says so; looks every `wait` seconds for new lines."""
        while not stop():
            if not self.step():
                time.sleep(wait)

    def step(self) -> int:
        """Judge the lines that are there, at most a batch of them; return how many."""
        if self._file is None and not self._open():
            return 0
        assert self._file is not None
        lines, size = self._lines()
        if lines:
            self._judge(lines, size)
        elif self._rotated():
            self._file.close()
            self._file = None
            return self.step()
        return len(lines)

    def _lines(self) -> tuple[list[str], int]:
        """Return the next complete lines, and their bytes."""
        assert self._file is not None
        self._file.seek(self.state.offset)
        block = self._file.read(BATCH_BYTES)
        end = block.rfind(b"\n") + 1
        if not end and len(block) == BATCH_BYTES:
            raise ValueError(f"{self.log} has a line of more than {BATCH_BYTES} bytes at byte {self.state.offset}")
        if not end and block and self._rotated():
            end = len(block)  # a file that nobody writes to any more may end without a newline
        if not end:
            return [], 0
        text = block[:end].decode("utf-8", errors="replace")
        return [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")], end

    def _judge(self, lines: list[str], size: int) -> None:
        state = self.state
        state.parser.report = ReadReport()
        flows = state.parser.parse(lines)
        report = state.parser.report
        if report.left_out or report.set_missing:
            warnings.warn(f"{self.log}: {report}", UserWarning, stacklevel=4)
        text = b""
        if len(flows):
            alerts = state.incidents.assign(self.model.alerts(flows, state.watch, self.threshold))
            text = "".join(line + "\n" for line in ecs_lines(alerts)).encode()
        with self.output.open("ab") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        state.written += len(text)
        state.offset += size
        self._save()

    def _save(self) -> None:
        partial = self.state_file.with_name(self.state_file.name + ".partial")
        with partial.open("wb") as file:
            pickle.dump(self.state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.state_file)

    def _restored(self) -> State:
        if not self.state_file.exists():
            size = self.output.stat().st_size if self.output.exists() else 0
            return State(line_parser(self.format, ReadReport()), self.model.watch(), written=size)
        try:
            state = pickle.loads(self.state_file.read_bytes())
        except Exception as error:
            raise ValueError(f"state file {self.state_file} is broken ({error}); remove it to start anew") from error
        if not isinstance(state, State):
            raise ValueError(f"{self.state_file} is no state of diffad flows; give another file")
        size = self.output.stat().st_size if self.output.exists() else 0
        if size < state.written:
            raise ValueError(
                f"{self.output} has {size} bytes, but {state.written} were written; put it back, or remove "
                f"{self.state_file} to start anew"
            )
        with self.output.open("ab") as file:
            file.truncate(state.written)
        return state

    def _open(self) -> bool:
        """Open the log that comes next; False where there is none yet."""
        state = self.state
        old = self._by_inode(state.inode) if state.inode else None
        path = old or self.log
        if not path.exists():
            return False
        self._file = path.open("rb")
        inode = os.fstat(self._file.fileno()).st_ino
        done = inode == state.inode and path != self.log and state.offset >= path.stat().st_size
        if inode == state.inode and not done:
            if path.stat().st_size < state.offset:
                warnings.warn(f"{path} became shorter; it is read from its beginning", UserWarning, stacklevel=4)
                self._begin(inode)
            return True
        if done:
            self._file.close()
            if not self.log.exists():
                self._file = None
                return False
            self._file = self.log.open("rb")
            inode = os.fstat(self._file.fileno()).st_ino
        elif state.inode and old is None:
            warnings.warn(
                f"the log read until byte {state.offset} is gone; lines written to it after that are lost",
                UserWarning,
                stacklevel=4,
            )
        self._begin(inode)
        return True

    def _begin(self, inode: int) -> None:
        self.state.inode, self.state.offset = inode, 0
        self.state.parser = line_parser(self.format, ReadReport())

    def _by_inode(self, inode: int) -> Path | None:
        """Return the file in the log's folder with this inode: the log itself, or where it was moved."""
        folder = self.log.parent
        same = [p for p in folder.iterdir() if p.is_file() and p.stat().st_ino == inode]
        return self.log if self.log in same else next(iter(same), None)

    def _rotated(self) -> bool:
        """Return whether another file has taken the log's name, or the log was cut."""
        assert self._file is not None
        here = os.fstat(self._file.fileno())
        if here.st_size < self.state.offset:
            return True
        try:
            return self.log.stat().st_ino != here.st_ino
        except FileNotFoundError:
            return False
