"""How every command speaks: errors and warnings in one line, in the words of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

#: What messages call things, and what the command line does.
COMMANDS = {
    "regularize=True": "--regularize",
    "sort first: X = X.sort_index()": "sort its lines by time",
    "drop those rows: X = X[X.index.notna()]": "remove those lines",
    "aggregate first: X.groupby(level=0).mean()": "keep one line of each time",
    "give X a DatetimeIndex, or say AlarmsPerDay(number, rows_per_day=...)": "give the file a first column of timestamps",
    "number must be a positive number": "--alarms-per-day must be a positive number",
    "call recalibrate(X_normal)": "give newer normal data to --fit-on",
    ": np.where(diffad.carried_forward(X), np.nan, X), or X.mask(...) of a DataFrame": " (leave the fields empty)",
    "alerts_per_day must lie": "--alerts-per-day must lie",
    "rate must lie strictly": "--false-alarm-rate must lie strictly",
    "contamination must lie": "--contamination must lie",
    "longest_side must be": "--longest-side must be",
    "inside must hold": "--local must hold",
    "format must be": "--format must be",
    "timezone must be": "--timezone must be",
}


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Print an error of the block as the command line calls things, and exit with 1."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError) as error:
        typer.secho(f"error: {as_commands(str(error))}", err=True, fg=typer.colors.RED)
        raise typer.Exit(1) from None


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
        message = message.replace(python, command)
    return message
