"""How every command speaks: errors and warnings in one line, in the words of the command line."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

#: What messages call things, and what the command line does.
COMMANDS = {
    "regularize=True": "--regularize",
    "sort first: X = X.sort_index()": "sort its lines by time",
    "drop those rows: X = X[X.index.notna()]": "remove those lines",
    "aggregate first: X.groupby(level=0).mean()": "keep one line of each time",
    "give it a DatetimeIndex: X.index.to_timestamp() of periods, a start + X.index of durations": "write timestamps",
    "resample it: X.resample(...).mean()": "give rows that are as far apart, as their means",
    "resample first: X.resample(...).mean()": "give rows that are as far apart, as their means",
    "put them in: X.resample(...).asfreq()": "put them in",
    "AlarmsPerDay needs to know": "--alarms-per-day needs to know",
    "give X a DatetimeIndex, or say AlarmsPerDay(number, rows_per_day=...)": "give the file a first column of timestamps",
    "number must be a positive number": "--alarms-per-day must be a positive number",
    "call recalibrate(X_normal) with recent normal rows": "give newer normal data to --fit-on",
    ": np.where(diffad.carried_forward(X), np.nan, X), or X.mask(...) of a DataFrame": " (leave the fields empty)",
    "give more rows or a smaller window": "give more rows",
    "alerts_per_day must lie": "--alerts-per-day must lie",
    "rate must lie strictly": "--false-alarm-rate must lie strictly",
    "contamination must lie": "--contamination must lie",
    "longest_side must be": "--longest-side must be",
    "inside must hold": "--local must hold",
    "format must be": "--format must be",
    "timezone must be": "--timezone must be",
}
#: Calls that name columns, at the end of a message.
CALLS = {
    r": table\.pivot\(.*\)$": "",
}
#: What may be called X: the word by itself, not in the name of a column.
QUOTED_OR_X = re.compile(r"(?<!\w)'[^']*'|(?<!\w)\"[^\"]*\"|\bX\b")


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Print an error of the block as the command line calls things, and exit with 1."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError) as error:
        typer.secho(f"error: {as_commands(str(error))}", err=True, fg=typer.colors.RED)
        raise typer.Exit(1) from None


@contextmanager
def speaking_of(file: Path) -> Iterator[None]:
    """Call X, in warnings and errors of the block, by the file that it was read from."""
    show = warnings.showwarning

    def show_named(message: Warning | str, *further: Any, **named: Any) -> None:
        show(with_name(str(message), file), *further, **named)

    warnings.showwarning = show_named
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ValueError(with_name(str(error), file)) from error
    finally:
        warnings.showwarning = show


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning without the line of code that it came from."""
    typer.secho(f"warning: {as_commands(str(message))}", err=True, fg=typer.colors.YELLOW)


def as_commands(message: str) -> str:
    """Call things as the command line does.

    Examples
    --------
    >>> as_commands("contamination must lie in [0, 0.5), got 2")
    '--contamination must lie in [0, 0.5), got 2'
    """
    for python, command in COMMANDS.items():
        # No option twice: what `speaking_of` passes on has been through here before.
        message = re.sub(f"(?<!-){re.escape(python)}", command, message)
    for python, command in CALLS.items():
        message = re.sub(python, command, message)
    return message


def with_name(message: str, file: Path) -> str:
    """Call things as the command line does, and X by its file.

    Examples
    --------
    >>> with_name("channels ['X'] only ever rise or fall in X; give their differences", Path("a.csv"))
    "channels ['X'] only ever rise or fall in a.csv; give their differences"
    """
    # First the calls: they are known by the X in them.
    return QUOTED_OR_X.sub(lambda found: str(file) if found[0] == "X" else found[0], as_commands(message))
