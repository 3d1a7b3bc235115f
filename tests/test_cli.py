"""The command line fills files as the library would, explains what is wrong in one line, and starts fast."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import diffad
from diffad.cli import app
from diffad.command_line import COMMANDS
from diffad.files.tables import read_table, write_table


@pytest.fixture
def impute(tmp_path, monkeypatch):
    """Return a function that runs ``diffad impute --steps 0`` in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return CliRunner().invoke(app, ["impute", "--steps", "0", *map(str, arguments)])

    return run


@pytest.fixture
def pump(frame):
    """A table with gaps in two of three channels."""
    frame["power"] = frame["power"].interpolate(limit_direction="both")
    return frame


def failed(result, *words):
    """Assert exit code 1 and a message with `words`, but no traceback."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert "error:" in result.output and "Traceback" not in result.output
    text = re.sub(r"\s+", " ", result.output)
    for word in words:
        assert word in text, f"{word!r} is missing in: {text}"


@pytest.mark.parametrize("kind", [".csv", ".csv.gz", ".parquet"])
def test_fills_a_file_and_adds_bands(impute, pump, tmp_path, kind):
    write_table(pump, tmp_path / f"pump{kind}")
    result = impute(f"pump{kind}")
    assert result.exit_code == 0, result.output
    assert f"filled {int(pump.isna().sum().sum())} values" in result.output
    filled = read_table(tmp_path / f"pump.filled{kind}")
    assert list(filled.columns) == [*pump, "flow_lower", "flow_upper", "pressure_lower", "pressure_upper"]
    assert (filled.index == pump.index).all()
    assert not filled.isna().any().any()
    pd.testing.assert_frame_equal(
        filled[pump.columns].where(pump.notna()), pump, check_freq=False, check_index_type=False
    )
    gap = pump["flow"].isna()
    assert (filled["flow_lower"] < filled["flow"])[gap].all() and (filled["flow"] < filled["flow_upper"])[gap].all()
    assert (filled["flow_lower"] == filled["flow"])[~gap].all()


def test_gives_what_the_library_gives(impute, pump, tmp_path):
    from diffad import SeriesImputer, Training

    write_table(pump, tmp_path / "pump.parquet")
    assert impute("pump.parquet", "-o", "out.parquet").exit_code == 0
    expected = SeriesImputer(training=Training(max_steps=0)).fit_transform(pump)
    np.testing.assert_array_equal(read_table(tmp_path / "out.parquet")[pump.columns], expected)


def test_wider_coverage_gives_wider_bands(impute, pump, tmp_path):
    write_table(pump, tmp_path / "pump.csv")
    widths = []
    for coverage in ("0.5", "0.95"):
        assert impute("pump.csv", "-o", "out.csv", "--coverage", coverage).exit_code == 0
        out = read_table(tmp_path / "out.csv")
        widths.append((out["flow_upper"] - out["flow_lower"]).sum())
    assert widths[1] > 1.5 * widths[0]


def test_dots_in_the_name_of_a_file(impute, pump, tmp_path):
    write_table(pump, tmp_path / "pump.3.day.csv")
    assert impute("pump.3.day.csv").exit_code == 0
    assert (tmp_path / "pump.3.day.filled.csv").exists(), sorted(p.name for p in tmp_path.iterdir())


def test_picture_beside_the_output(impute, pump, tmp_path):
    write_table(pump, tmp_path / "pump.csv")
    result = impute("pump.csv", "--plot")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "pump.filled.png").read_bytes().startswith(b"\x89PNG")
    assert "pump.filled.png" in result.output


def test_a_full_disk_leaves_an_older_picture_as_it_was(impute, pump, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def half_a_picture(self, target, **kwargs):
        Path(target).write_bytes(b"half a p")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Figure, "savefig", half_a_picture)
    write_table(pump, tmp_path / "pump.csv")
    (tmp_path / "pump.filled.png").write_bytes(b"precious")
    failed(impute("pump.csv", "--plot"), "pump.filled.png cannot be written", "No space left")
    assert (tmp_path / "pump.filled.png").read_bytes() == b"precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pump.csv", "pump.filled.csv", "pump.filled.png"]


def test_picture_of_a_recording_without_gaps_is_no_accident(impute, pump, tmp_path):
    write_table(pump.dropna().reset_index(drop=True), tmp_path / "pump.csv")
    result = impute("pump.csv", "--plot")
    assert result.exit_code == 0, repr(result.exception)
    assert "no gaps" in result.output
    assert len(read_table(tmp_path / "pump.filled.csv")) == len(pump.dropna())


def test_picture_names_the_coverage_that_was_asked_for(impute, pump, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    seen = []
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (seen.append(figure), savefig(figure, *a, **k)))
    write_table(pump, tmp_path / "pump.csv")
    assert impute("pump.csv", "--plot", "--coverage", "0.5").exit_code == 0
    labels = [text.get_text() for text in seen[0].legends[0].get_texts()]
    assert any(re.search(r"50\s*%", label) for label in labels), labels


def test_irregular_timestamps(impute, pump, tmp_path):
    write_table(pump.drop(pump.index[[40, 41]]), tmp_path / "pump.csv")
    failed(impute("pump.csv"), "irregular", "pass --regularize")
    result = impute("pump.csv", "--regularize")
    assert result.exit_code == 0, result.output
    out = read_table(tmp_path / "pump.filled.csv")
    assert len(out) == len(pump) and not out.isna().any().any()


def test_jitter_is_not_counted_as_gaps(impute, pump, tmp_path):
    late = np.where(np.arange(len(pump)) % 10 == 5, 200, 0)
    times = pump.index + pd.to_timedelta(late, "ms")
    X = pump.set_axis(times).drop(times[[40, 41]])
    write_table(X, tmp_path / "pump.csv")
    result = impute("pump.csv", "--regularize")
    assert result.exit_code == 0, result.output
    # Two rows of three channels were inserted.
    assert f"filled {int(X.isna().sum().sum()) + 6} values" in result.output


def test_missing_file(impute):
    failed(impute("none.csv"), "none.csv")


def test_empty_broken_and_foreign_files(impute, tmp_path):
    (tmp_path / "empty.csv").write_text("")
    failed(impute("empty.csv"), "empty.csv", "empty")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no more")
    failed(impute("broken.parquet"), "broken.parquet", "Parquet")
    (tmp_path / "sheet.xlsx").write_bytes(b"PK")
    failed(impute("sheet.xlsx"), "sheet.xlsx", ".csv")
    (tmp_path / "words.csv").write_text("a,b\n1,on\n2,off\n")
    failed(impute("words.csv"), "words.csv", "'b'")


@pytest.mark.parametrize(
    ("arguments", "word"), [(("--coverage", "2"), "coverage"), (("--steps", "-1"), "steps")], ids=["coverage", "steps"]
)
def test_bad_options(impute, pump, tmp_path, arguments, word):
    write_table(pump, tmp_path / "pump.csv")
    failed(impute("pump.csv", *arguments), word)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pump.csv"]


def test_output_folder_that_does_not_exist(impute, pump, tmp_path):
    write_table(pump, tmp_path / "pump.csv")
    failed(impute("pump.csv", "-o", "none/out.csv"), "none")


def test_lines_left_out_are_reported(impute, tmp_path):
    rows = [f"{i},{i % 7}" for i in range(60)]
    rows[3] = "3,"
    (tmp_path / "x.csv").write_text("\n".join(["a,b", *rows[:30], "1,2,3", *rows[30:], ""]))
    result = impute("x.csv")
    assert result.exit_code == 0
    assert "warning:" in result.output and "too many fields" in result.output and "cli.py" not in result.output
    assert len(read_table(tmp_path / "x.filled.csv")) == 60


def test_help_names_the_commands_and_bad_usage_exits_2():
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert "impute" in result.output and "demo" in result.output
    assert CliRunner().invoke(app, ["impute"]).exit_code == 2


# --- what is loaded when ----------------------------------------------------------------------------------


def loaded_by(statement):
    """Return the top-level modules that a fresh interpreter loads."""
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_import_of_the_package_costs_nothing():
    names = loaded_by("import diffad")
    assert "diffad" in names
    assert not names & {"torch", "mlflow", "matplotlib", "pandas", "sklearn"}


def test_no_module_that_fills_loads_tracking_or_drawing():
    names = loaded_by("import diffad.series_imputer, diffad.files.tables, diffad.tracking")
    assert "torch" in names
    assert not names & {"mlflow", "matplotlib"}


def test_help_does_not_load_torch():
    names = loaded_by("import diffad.cli")
    assert "typer" in names
    assert not names & {"torch", "mlflow", "matplotlib"}


def test_public_names_are_found_and_others_are_not():
    import diffad

    for name in diffad.__all__:
        assert getattr(diffad, name) is not None
        assert name in dir(diffad)
    with pytest.raises(AttributeError, match="nonsense"):
        diffad.nonsense  # noqa: B018


@pytest.mark.parametrize(
    ("target", "word"),
    [
        ("out.xlsx", "cannot write"),
        ("none/out.csv", "no folder"),
        ("x.csv", "replace the file that is read"),
        ("out.csv", "is a folder"),
    ],
)
def test_an_output_that_cannot_be_written_is_told_before_training(tmp_path, target, word, monkeypatch):
    monkeypatch.setattr("diffad.series_imputer.SeriesImputer.fit", lambda *args: pytest.fail("trained in vain"))
    (tmp_path / "x.csv").write_text("a\n" + "1\n2\n\n" * 40)
    (tmp_path / "out.png").mkdir()
    done = CliRunner().invoke(app, ["impute", str(tmp_path / "x.csv"), "--plot", "-o", str(tmp_path / target)])
    assert done.exit_code == 1 and word in done.output


def test_a_column_with_the_name_of_an_edge_is_told_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr("diffad.series_imputer.SeriesImputer.fit", lambda *args: pytest.fail("trained in vain"))
    table = pd.DataFrame({"a": np.sin(np.arange(100.0)), "a_lower": np.cos(np.arange(100.0))})
    table.loc[5, "a"] = np.nan
    table.to_csv(tmp_path / "x.csv", index=False)
    done = CliRunner().invoke(app, ["impute", str(tmp_path / "x.csv")])
    assert done.exit_code == 1 and "a_lower" in done.output


@pytest.mark.parametrize("python", COMMANDS)
def test_messages_that_are_reworded_for_the_shell_are_still_said(python):
    """A message that changes in the library would reach the shell with advice for Python."""
    said = "".join(
        file.read_text() for file in Path(diffad.__file__).parent.rglob("*.py") if file.name != "command_line.py"
    )
    said = re.sub(r'"\s*\n\s*f?"', "", said)
    assert python in said or all(part in said for part in re.split(r"number|X_normal", python) if part.strip(" ():="))


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "diffad", "--help"], capture_output=True, text=True, check=True)
    assert "Usage: diffad [OPTIONS]" in done.stdout and "impute" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["impute", "."], ["is a folder; name a file"]),
        (["detect", ".", "--fit-on", "good.csv"], ["is a folder; name a file"]),
        (["flows", "score", ".", "--model", "m"], ["is a folder; name a file"]),
        (["impute", "good.csv", "--steps", "-1"], ["--steps", "-1"]),
        (["demo", "--steps", "-1"], ["--steps", "-1"]),
        (["demo", "--folder", "good.csv"], ["good.csv"]),
        (["detect", "good.csv", "--fit-on", "good.csv", "--detectability"], ["good.csv has 40 rows", "at least 500"]),
        (
            ["detect", "w.detectability.csv", "--fit-on", "good.csv", "-o", "w.csv", "--detectability"],
            ["would replace"],
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_before_any_work(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    rows = pd.DataFrame({"a": np.sin(np.arange(40.0)), "b": np.cos(np.arange(40.0))})
    for name in ("good.csv", "w.detectability.csv"):
        rows.to_csv(name, index=False)
    kept = (tmp_path / "w.detectability.csv").read_bytes()
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1 and len(done.output.splitlines()) == 1
    assert all(word in done.output for word in words), done.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["good.csv", "w.detectability.csv"]
    assert (tmp_path / "w.detectability.csv").read_bytes() == kept


def test_pictures_lie_beside_packed_tables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = pd.DataFrame({"a": np.sin(np.arange(80.0) / 3), "b": np.cos(np.arange(80.0) / 3)})
    rows.iloc[20:22, 0] = np.nan
    rows.to_csv("x.csv", index=False)
    assert CliRunner().invoke(app, ["impute", "x.csv", "--steps", "0", "--plot", "-o", "o.csv.gz"]).exit_code == 0
    assert {"o.csv.gz", "o.png"} <= {p.name for p in tmp_path.iterdir()}


def test_the_version_is_told():
    from diffad import __version__

    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0 and done.output.strip() == __version__
