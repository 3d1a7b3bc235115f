"""`diffad detect` writes one line per event, as the library would find it, and says in one line what is wrong."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from diffad import SeriesDetector
from diffad.cli import app
from diffad.detectability import detectability
from diffad.files.tables import read_table, write_table


def recording(n, seed):
    rng = np.random.default_rng(seed)
    slow = np.convolve(rng.standard_normal(n + 40), np.ones(20) / 5, "same")[20:-20]
    values = slow[:, None] * [1.0, -0.5, 0.8] + 0.1 * rng.standard_normal((n, 3))
    index = pd.date_range("2026-01-01", periods=n, freq="1min", name="time")
    return pd.DataFrame(values, index, ["flow", "pressure", "power"])


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    faulty = recording(400, 1)
    faulty.iloc[200:215, 1] += 5.0
    write_table(recording(1200, 0), tmp_path / "good.csv")
    write_table(faulty, tmp_path / "today.csv")
    return tmp_path


def detect(*arguments):
    return CliRunner().invoke(app, ["detect", *map(str, arguments)])


def test_writes_the_events_that_the_library_finds(files):
    result = detect("today.csv", "--fit-on", "good.csv")
    assert result.exit_code == 0, result.output
    alarms = pd.read_csv(files / "today.alarms.csv", parse_dates=["start", "end", "peak"])
    expected = SeriesDetector().fit(read_table(files / "good.csv")).events(read_table(files / "today.csv"))
    assert len(alarms) == len(expected) > 0
    assert (alarms["peak"] == expected["peak"].to_numpy()).all()
    worst = alarms.loc[alarms["severity"].idxmax()]
    assert "pressure" in worst["channels"].split(";")
    assert pd.Timestamp("2026-01-01 03:15") <= worst["peak"] <= pd.Timestamp("2026-01-01 03:40")


def test_events_of_a_recording_without_timestamps_start_at_row_numbers(files):
    for name in ("good", "today"):
        write_table(read_table(files / f"{name}.csv").reset_index(drop=True), files / f"{name}.csv")
    assert detect("today.csv", "--fit-on", "good.csv").exit_code == 0
    alarms = pd.read_csv(files / "today.alarms.csv")
    worst = alarms.loc[alarms["severity"].idxmax()]
    assert worst["start"] <= 200 <= worst["peak"] < 215


def test_fewer_alarms_a_day_are_fewer_events(files):
    counts = []
    for number in (5, 0.1):
        assert detect("today.csv", "--fit-on", "good.csv", "--alarms-per-day", number).exit_code == 0
        counts.append(len(pd.read_csv(files / "today.alarms.csv")))
    assert counts[0] > counts[1]


def test_picture_beside_the_output(files):
    result = detect("today.csv", "--fit-on", "good.csv", "-o", "found.csv", "--plot", "--no-detectability")
    assert result.exit_code == 0, result.output
    assert (files / "found.png").read_bytes().startswith(b"\x89PNG")


def test_what_can_be_seen_is_measured_on_rows_that_were_not_fitted_on(files, monkeypatch):
    measured = {}

    def few(detector, X_normal, **options):
        measured["rows"] = X_normal
        return detectability(detector, X_normal, **options | {"kinds": ("spike",), "sizes": (0.01, 8.0)})

    monkeypatch.setattr("diffad.detectability.detectability", few)
    result = detect("today.csv", "--fit-on", "good.csv", "--detectability", "--plot")
    assert result.exit_code == 0, result.output
    table = pd.read_csv(files / "today.alarms.detectability.csv")
    assert list(table["channel"]) == ["flow", "pressure", "power"] and (table["kind"] == "spike").all()
    assert table["size"].tolist() == [8.0, 8.0, 8.0]
    assert (files / "today.alarms.detectability.png").read_bytes().startswith(b"\x89PNG")
    pd.testing.assert_frame_equal(measured["rows"], read_table(files / "good.csv").iloc[960:], check_freq=False)


def test_a_picture_comes_with_what_can_be_seen_unless_told_otherwise(files, monkeypatch):
    asked = []

    def few(detector, X_normal, **options):
        asked.append(len(X_normal))
        return detectability(detector, X_normal, kinds=("stuck",), n_events=1)

    monkeypatch.setattr("diffad.detectability.detectability", few)
    for options, number in (((), 0), (("--plot",), 1), (("--plot", "--no-detectability"), 1)):
        result = detect("today.csv", "--fit-on", "good.csv", *options)
        assert result.exit_code == 0, result.output
        assert len(asked) == number


def test_a_short_normal_recording_says_how_many_rows_detectability_needs(files):
    write_table(recording(300, 0), files / "short.csv")
    result = detect("today.csv", "--fit-on", "short.csv", "--detectability")
    assert result.exit_code == 1
    assert "short.csv has 300 rows" in result.output and "at least 500" in result.output
    assert not (files / "today.alarms.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("nowhere.csv", "--fit-on", "good.csv"), "nowhere.csv"),
        (("today.csv", "--fit-on", "nowhere.csv"), "nowhere.csv"),
        (("today.csv", "--fit-on", "good.csv", "--alarms-per-day", "-1"), "--alarms-per-day must"),
        (("today.csv", "--fit-on", "good.csv", "--contamination", "0.9"), "--contamination must"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(files, arguments, word):
    result = detect(*arguments)
    assert result.exit_code == 1, result.output
    assert "error:" in result.output and "Traceback" not in result.output
    assert word in re.sub(r"\s+", " ", result.output)
    assert not (files / "today.alarms.csv").exists()


def test_other_columns_are_refused(files):
    write_table(recording(100, 2).rename(columns={"power": "load"}), files / "other.csv")
    result = detect("other.csv", "--fit-on", "good.csv")
    assert result.exit_code == 1
    assert "other.csv lacks the columns ['power']" in result.output


def test_further_columns_are_refused_and_another_order_is_none(files):
    table = recording(100, 2)
    write_table(table.assign(load=1.0), files / "more.csv")
    result = detect("more.csv", "--fit-on", "good.csv")
    assert result.exit_code == 1
    assert "'load'" in result.output
    write_table(table, files / "same.csv")
    write_table(table[table.columns[::-1]], files / "turned.csv")
    assert (
        detect("same.csv", "--fit-on", "good.csv").exit_code
        == detect("turned.csv", "--fit-on", "good.csv").exit_code
        == 0
    )
    pd.testing.assert_frame_equal(read_events(files / "same.alarms.csv"), read_events(files / "turned.alarms.csv"))


def read_events(file):
    return pd.read_csv(file)


def test_errors_name_the_file_and_what_to_do_at_the_command_line(files):
    table = recording(100, 2)
    write_table(table.iloc[::-1], files / "backwards.csv")
    result = detect("backwards.csv", "--fit-on", "good.csv")
    assert result.exit_code == 1
    assert "backwards.csv: " in result.output and "sort its lines by time" in result.output
    write_table(table.reset_index(drop=True), files / "bare.csv")
    result = detect("bare.csv", "--fit-on", "bare.csv", "--alarms-per-day", "1")
    assert "give the file a first column of timestamps" in result.output
