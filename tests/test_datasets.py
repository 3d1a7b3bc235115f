"""The embedded recording is what its data card says: long, wide, regular, and labelled with real faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from diffad import datasets
from diffad.datasets import load_telemetry


@pytest.fixture(scope="module")
def recording():
    return load_telemetry()


def test_size(recording):
    rows, _ = recording
    assert len(rows) >= 7200
    assert rows.shape[1] >= 16


def test_regular_time_in_utc(recording):
    rows, _ = recording
    assert str(rows.index.tz) == "UTC"
    assert rows.index.freq == pd.Timedelta("500ms")
    assert (np.diff(rows.index) == pd.Timedelta("500ms")).all()
    assert rows.index.name == "time"


def test_channels_are_numbers_that_vary(recording):
    rows, _ = recording
    assert rows.columns.is_unique
    assert all(pd.api.types.is_float_dtype(kind) or pd.api.types.is_integer_dtype(kind) for kind in rows.dtypes)
    values = rows.to_numpy(float)
    assert not np.isinf(values).any()
    assert rows.notna().mean().min() > 0.9
    assert (rows.nunique() > 2).all(), rows.columns[rows.nunique() <= 2].tolist()


def test_faults_are_many_and_of_many_kinds(recording):
    _, events = recording
    assert list(events.columns) == ["kind", "start", "end", "channels", "note"]
    assert len(events) >= 20
    assert events["kind"].nunique() >= 8


def test_faults_lie_in_the_second_half_one_after_the_other(recording):
    rows, events = recording
    assert len(events)
    assert pd.api.types.is_datetime64_any_dtype(events["start"])
    assert events["start"].min() >= rows.index[len(rows) // 2]
    assert events["end"].max() <= rows.index[-1]
    assert (events["end"] > events["start"]).all()
    events = events.sort_values("start")
    assert (events["start"].iloc[1:].to_numpy() >= events["end"].iloc[:-1].to_numpy()).all()


def test_faults_name_channels_of_the_recording(recording):
    rows, events = recording
    assert len(events)
    for names in events["channels"]:
        assert names and set(names.split(";")) <= set(rows.columns), names


def test_dropouts_are_missing_in_the_data(recording):
    rows, events = recording
    dropouts = events[events["kind"] == "dropout"]
    assert len(dropouts)
    for event in dropouts.itertuples():
        share = rows.loc[event.start : event.end, event.channels.split(";")].isna().mean().mean()
        # The data card says that about 55 % of the samples are missing.
        assert 0.3 < share < 0.8, event


def test_first_half_is_free_of_dropouts(recording):
    rows, _ = recording
    assert rows.iloc[: len(rows) // 2].isna().mean().max() < 0.05


def test_callers_own_what_they_load(recording):
    rows, _ = load_telemetry()
    rows.iloc[:] = 0
    assert not (load_telemetry()[0].fillna(0) == 0).all().all()


def test_both_files_are_small():
    folder = Path(datasets.__file__).parents[1] / "datasets"
    total = sum((folder / name).stat().st_size for name in ("telemetry.csv.gz", "telemetry_events.csv"))
    assert total < 3_000_000


def test_missing_files_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "__file__", str(tmp_path / "diffad" / "datasets.py"))
    with pytest.raises(FileNotFoundError, match=r"telemetry\.csv\.gz"):
        load_telemetry()
