"""What the command line says of bad files names them, and the options that help: never X or a call of Python."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from diffad.cli import app
from diffad.files.tables import write_table


def recording(n, **index):
    rng = np.random.default_rng(0)
    values = np.sin(np.arange(n)[:, None] / 4 + [0.0, 1.0, 2.0]) + 0.1 * rng.standard_normal((n, 3))
    times = pd.date_range("2026-01-01", periods=n, name="time", **(index or {"freq": "1min"}))
    return pd.DataFrame(values, times, ["flow (l/s)", "X", "power"])


def periods(kind):
    table = recording(200)
    table.index = {
        "periods": pd.period_range("2026-01-01", periods=200, freq="min", name="time"),
        "durations": pd.timedelta_range(0, periods=200, freq="min", name="time"),
    }[kind]
    return table.drop(table.index[50:60])


BAD = {
    "few.csv": recording(60),
    "counter.csv": recording(200).assign(**{"flow (l/s)": np.arange(200.0) ** 1.1}),
    "held.csv": recording(200).iloc[np.r_[:100, [100] * 40, 140:200]].set_axis(recording(200).index),
    "dead.csv": recording(200).assign(X=np.nan),
    "void.csv": recording(200) * np.nan,
    "fast.csv": recording(200, freq="10s"),
    "slow.csv": recording(200, freq="5min"),
    "back.csv": recording(200)[::-1],
    "twice.csv": recording(200).iloc[np.arange(200) // 2],
    "holes.csv": recording(200).drop(recording(200).index[50:60]),
    "long.csv": recording(40).reset_index().melt("time", var_name="tag", value_name="reading").set_index("time"),
    "counted.csv": recording(200).reset_index(drop=True),
    "gaps.csv": recording(60).drop(columns="X").assign(X=[np.nan, *range(59)]),
    "periods.parquet": periods("periods"),
    "durations.parquet": periods("durations"),
}

#: Files, options, and what is said of the file.
SAID = [
    ("detect good.csv --fit-on few.csv", "few.csv holds 60 normal rows"),
    ("detect good.csv --fit-on counter.csv", "rise or fall in counter.csv"),
    ("detect good.csv --fit-on held.csv", "rows of held.csv"),
    ("detect good.csv --fit-on dead.csv", "channels ['X'] hold no observed value"),
    ("detect good.csv --fit-on void.csv", "void.csv holds no observed value"),
    ("detect fast.csv --fit-on good.csv", "fast.csv is sampled every 10 s"),
    ("detect fast.csv --fit-on good.csv --regularize", "fast.csv: two rows near"),
    ("detect slow.csv --fit-on good.csv --regularize", "rows of slow.csv are 300 s apart"),
    ("detect back.csv --fit-on good.csv", "back.csv: timestamps are not in order"),
    ("detect twice.csv --fit-on good.csv", "twice.csv: timestamp"),
    ("detect holes.csv --fit-on good.csv", "holes.csv: timestamps are irregular"),
    ("detect long.csv --fit-on good.csv", "make a column of each"),
    ("detect counted.csv --fit-on counted.csv --alarms-per-day 1", "--alarms-per-day needs to know"),
    ("detect good.csv --fit-on good.csv --contamination 1", "error: --contamination must lie"),
    ("detect periods.parquet --fit-on good.csv", "periods.parquet: periods are missing"),
    ("detect good.csv --fit-on durations.parquet --regularize", "durations.parquet has a TimedeltaIndex"),
    ("impute gaps.csv --steps 1", "gaps.csv has too few rows"),
    ("impute void.csv", "void.csv holds no observed value"),
    ("inspect nine --fit-on nine --false-alarm-rate 2", "error: --false-alarm-rate must lie"),
    ("inspect nine --fit-on four", "four holds 4 images"),
    ("inspect nine --fit-on nine", "nine holds 9 normal images"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    write_table(recording(200), folder / "good.csv")
    for name, table in BAD.items():
        write_table(table, folder / name)
    noise = np.random.default_rng(0).integers(0, 255, (9, 16, 16), np.uint8)
    for name, n in (("four", 4), ("nine", 9)):
        (folder / name).mkdir()
        for i, pixels in enumerate(noise[:n]):
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.mark.parametrize(("command", "words"), SAID)
def test_messages_speak_of_the_file_and_not_of_python(folder, monkeypatch, command, words):
    monkeypatch.chdir(folder)
    said = CliRunner().invoke(app, command.split()).output
    assert words in said
    unquoted = re.sub(r"'[^']*'", "", said)
    assert not re.search(r"\bX(_normal)?\b|\w\(.*\)|=True|----", unquoted), said
