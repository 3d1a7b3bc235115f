"""The embedded recording: one hour of a working computer, with provoked and labelled faults."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

_NAMES = ("telemetry.csv.gz", "telemetry_events.csv")


def load_telemetry() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Load the embedded recording; its data card is ``datasets/README.md``.

    Returns
    -------
    rows : DataFrame of shape (n_timestamps, n_channels)
        Two rows a second with a UTC DatetimeIndex; NaN is missing. The first half is free of
        provoked faults.
    events : DataFrame
        ``kind``, ``start``, ``end``, ``channels`` (separated by semicolons) and ``note`` per fault.

    Examples
    --------
    >>> rows, events = load_telemetry()
    >>> rows.index.freqstr, rows.shape[1] >= 16
    ('500ms', True)
    """
    data, labels = (_find(name) for name in _NAMES)
    rows = pd.read_csv(data, index_col="time", parse_dates=["time"])
    rows.index = pd.DatetimeIndex(rows.index, freq="500ms")
    return rows, pd.read_csv(labels, parse_dates=["start", "end"])


def _find(name: str) -> Path:
    """Look in the installed package first, then in a checkout."""
    here = Path(__file__).parent
    for folder in (here / "data", here.parent / "datasets"):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"{name} is neither in the installed package nor in the checkout's datasets folder")
