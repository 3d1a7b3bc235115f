"""The programs to copy run from their first line to their last, on small data, and say what they found."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]


def run(program, *options):
    command = [sys.executable, ROOT / "pipelines" / program, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_sensors_tell_what_they_found_in_two_files(tmp_path):
    rng = np.random.default_rng(0)
    times = pd.date_range("2026-01-01", periods=900, freq="min", name="time")
    rows = pd.DataFrame(
        np.sin(np.arange(900)[:, None] / [8, 9]) + 0.1 * rng.standard_normal((900, 2)), times, ["a", "b"]
    )
    rows.iloc[:600].to_csv("good.csv")
    rows.iloc[600:].assign(b=lambda t: t["b"] + 3 * (np.arange(300) // 20 == 5)).to_csv("today.csv")
    said = run("sensors.py", "--normal", "good.csv", "--new", "today.csv", "--no-detectability")
    events = pd.read_csv("sensors-output/events.csv", parse_dates=["start", "end"])
    assert f"{len(events)} events" in said, said
    assert len(events) <= 3, "of 280 good rows 1 % may alarm"
    assert ((events["start"] <= times[720]) & (events["end"] >= times[700]) & (events["channels"] == "b")).any()
    assert Path("sensors-output/events.png").stat().st_size > 10_000


@pytest.mark.slow
def test_network_ranks_the_provoked_attacks():
    said = run("network.py")
    found = pd.read_csv("network-output/found.csv")
    attacks = found[found["kind"] != "normal"]
    assert len(attacks) == 7, found
    assert attacks["noticed"].sum() >= 12, found
    assert found.set_index("kind").loc["normal", "share of alarms"] < 0.05
    assert "incidents among" in said
    assert Path("network-output/traffic.model").exists()


@pytest.mark.slow
def test_inspection_tells_other_digits_from_the_one_it_learnt():
    roc = float(re.search(r"ROC-AUC ([0-9.]+)", run("inspection.py"))[1])
    assert roc > 0.95
    assert Path("inspection-output/worst.png").stat().st_size > 10_000


@pytest.mark.parametrize("program", ["sensors.py", "network.py", "inspection.py"])
def test_one_of_two_inputs_is_refused(program, monkeypatch, capsys):
    first = {"inspection.py": "--good"}.get(program, "--normal")
    monkeypatch.setattr(sys, "argv", [program, first, "x"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(ROOT / "pipelines" / program), run_name="__main__")
    assert "give both" in capsys.readouterr().err
