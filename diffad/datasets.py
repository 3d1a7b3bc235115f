"""The embedded recordings: a working computer with provoked faults, and a small network with provoked attacks."""

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


def load_traffic() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Load the embedded flows of a small network; their data card is ``datasets/flows/README.md``.

    Returns
    -------
    flows : DataFrame
        A flow table (`diffad.flows.COLUMNS`) in the order of time, and ``label`` (the kind of attack,
        NA for normal traffic) and ``attack_id``. The first attack begins after 22 of 40 minutes.
    attacks : DataFrame
        ``attack_id``, ``kind``, ``start``, ``end``, ``source``, ``destination`` (separated by
        semicolons), ``flows`` and ``note``.

    Examples
    --------
    >>> flows, attacks = load_traffic()
    >>> len(flows) >= 20_000, flows["label"].head(len(flows) // 3).isna().all()
    (True, np.True_)
    """
    data, labels = (_find(f"flows/{name}") for name in ("flows.csv.xz", "attacks.csv"))
    text = ("source", "destination", "protocol", "service", "state", "label", "attack_id")
    kinds = dict.fromkeys(text, "string") | {"source_port": "Int32", "destination_port": "Int32"}
    counters = dict.fromkeys(("bytes_out", "bytes_in", "packets_out", "packets_in"), "float64")
    flows = pd.read_csv(data, dtype=kinds | counters, parse_dates=["start"])
    flows["start"] = flows["start"].dt.as_unit("ns")
    return flows, pd.read_csv(labels, parse_dates=["start", "end"])


def _find(name: str) -> Path:
    """Look in the installed package first, then in a checkout."""
    here = Path(__file__).parent
    for folder in (here / "data", here.parent / "datasets"):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"{name} is neither in the installed package nor in the checkout's datasets folder")
