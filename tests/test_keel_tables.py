"""KEEL's files become sets of numbers and anomalies, each whole or not there at all."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from pipelines.benchmarks import keel_tables

FILE = """@relation wine
@data
1.0, red, 0, 1
2.5, white, 0, 2
?, red, 0, 2
4.0, white, 0, 2
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Return a function that makes the set of one table, whose class 1 is the anomaly."""
    raw = tmp_path / "data" / "balanced" / "raw"
    raw.mkdir(parents=True)
    (raw / "wine.dat").write_text(FILE)
    monkeypatch.setattr(keel_tables, "IMBALANCED", [])
    monkeypatch.setattr(keel_tables, "BALANCED", {"wine": "1"})
    monkeypatch.setattr(sys, "argv", ["keel_tables.py", str(tmp_path / "sets"), "--data", str(tmp_path / "data")])
    return keel_tables.main


def test_whole_rows_become_numbers_and_constant_columns_go(make, tmp_path):
    make()
    made = np.load(tmp_path / "sets" / "wine.npz")
    np.testing.assert_array_equal(made["X"], [[1.0, 0.0], [2.5, 1.0], [4.0, 1.0]])
    assert made["y"].tolist() == [1, 0, 0]


def test_what_is_cut_off_leaves_the_older_set(make, tmp_path, monkeypatch):
    make()
    file = tmp_path / "sets" / "wine.npz"
    whole = file.read_bytes()

    def cut_off(path, **arrays):
        with open(path, "wb") as half:
            half.write(b"PK")
            raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", cut_off)
    with pytest.raises(KeyboardInterrupt):
        make()
    assert file.read_bytes() == whole
    assert list(file.parent.iterdir()) == [file]
