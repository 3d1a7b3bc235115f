"""Files: what was written is what is read, what is broken is named, and a failed write leaves no trace."""

from __future__ import annotations

import errno
import gzip
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from diffad.files.tables import read_table, write_table

KINDS = [".csv", ".csv.gz", ".tsv", ".CSV", ".parquet", ".pq"]


@pytest.fixture
def table():
    index = pd.date_range("2026-01-01", periods=5, freq="10s", tz="UTC", name="time")
    return pd.DataFrame({"a": [0.1, np.nan, 1 / 3, 1e-300, 1e300], "b": np.arange(5.0)}, index)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_is_read_to_the_last_bit(table, tmp_path, kind):
    write_table(table, tmp_path / f"x{kind}")
    back = read_table(tmp_path / f"x{kind}")
    pd.testing.assert_frame_equal(back, table, check_freq=False, check_exact=True, check_index_type=False)
    assert [p.name for p in tmp_path.iterdir()] == [f"x{kind}"]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_time_stay_without(tmp_path, kind):
    table = pd.DataFrame({"a": [1.5, np.nan], "b": [2.0, 3.0]})
    write_table(table, tmp_path / f"x{kind}")
    pd.testing.assert_frame_equal(read_table(str(tmp_path / f"x{kind}")), table)


def test_first_column_of_timestamps_becomes_the_index(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("when,a\n2026-01-01 00:00:00+02:00,1\n2026-01-01 00:00:10+02:00,\n")
    table = read_table(path)
    assert table.index[0] == pd.Timestamp("2025-12-31 22:00", tz="UTC")
    assert table.index.name == "when"
    assert table["a"].isna().tolist() == [False, True]


def test_column_without_any_value_is_missing_numbers(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,\n2,\n")
    assert read_table(path)["b"].dtype == float


def test_quoted_fields_and_windows_line_ends(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b'"flow, left",b\r\n1,2\r\n3,4\r\n')
    assert list(read_table(path).columns) == ["flow, left", "b"]


def test_lines_with_too_many_fields_are_counted_and_left_out(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,2\n3,4,5\n6,7\n8,9,10,11\n12,13\n")
    with pytest.warns(UserWarning, match=r"2 lines with too many fields: 3, 5"):
        table = read_table(path)
    np.testing.assert_array_equal(table, [[1, 2], [6, 7], [12, 13]])


def refused(kind, path, *words):
    with pytest.raises(kind) as caught:
        read_table(path)
    for word in (str(path), *words):
        assert word in str(caught.value), f"{word!r} is missing in: {caught.value}"


def test_a_quote_that_never_closes_swallows_no_rows(tmp_path):
    path = tmp_path / "x.csv"
    lines = ["a,b"] + [f"{i},{i}" for i in range(100)]
    lines[20] = '19,"19'
    path.write_text("\n".join(lines))
    refused(ValueError, path, "EOF inside string")


def test_a_field_of_any_length_loses_no_row(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,2\n3," + "0" * 200_000 + "4\n5,6\n")
    np.testing.assert_array_equal(read_table(path), [[1, 2], [3, 4], [5, 6]])


@pytest.mark.parametrize("content", ["a,b\n1,2,3\n4,5\n6,7\n", "a,b\n1,2,\n3,4,\n"])
def test_columns_never_shift_when_the_first_line_has_more_fields_than_the_head(tmp_path, content):
    # pandas would take the first field for a row name and put the second under the first head.
    path = tmp_path / "x.csv"
    path.write_text(content)
    refused(ValueError, path, "fields")


def test_no_such_file(tmp_path):
    refused(FileNotFoundError, tmp_path / "none.csv", "no file")


def test_folder_instead_of_a_file(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    refused((ValueError, OSError), tmp_path / "folder.csv")


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_empty_file(tmp_path, content):
    path = tmp_path / "x.csv"
    path.write_text(content)
    refused(ValueError, path, "empty")


def test_head_without_rows(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n")
    refused(ValueError, path, "no rows")


def test_unknown_kind(tmp_path):
    path = tmp_path / "x.xlsx"
    path.write_bytes(b"PK")
    refused(ValueError, path, ".csv", ".parquet", ".xlsx", "save it as CSV")


def test_text_in_a_channel(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,on\n2,off\n")
    refused(ValueError, path, "'b'", "not numbers")


def test_first_column_of_neither_numbers_nor_times(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\nleft,1\nright,2\n")
    refused(ValueError, path, "'a'", "timestamps")


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"a,b\n\xff\xfe,1\n")
    refused(ValueError, path, "CSV")


@pytest.mark.parametrize("content", [b"", b"no parquet at all", b"PAR1" + b"\0" * 40 + b"PAR1"])
def test_corrupt_parquet(tmp_path, content):
    path = tmp_path / "x.parquet"
    path.write_bytes(content)
    refused(ValueError, path, "Parquet")


def test_truncated_parquet(table, tmp_path):
    path = tmp_path / "x.parquet"
    write_table(table, path)
    path.write_bytes(path.read_bytes()[:-50])
    refused(ValueError, path, "Parquet")


def compressed():
    return gzip.compress(b"a,b\n" + b"".join(f"{i},{i * i % 997}\n".encode() for i in range(2000)))


def test_gzip_that_is_none(tmp_path):
    path = tmp_path / "x.csv.gz"
    path.write_bytes(b"a,b\n1,2\n")
    refused(ValueError, path, "CSV")


def test_gzip_cut_short(tmp_path):
    path = tmp_path / "x.csv.gz"
    path.write_bytes(compressed()[:-200])
    refused(ValueError, path, "CSV")


@pytest.mark.parametrize("place", [0.05, 0.5, 0.9])
def test_gzip_damaged_inside(tmp_path, place):
    data = bytearray(compressed())
    start = int(len(data) * place)
    data[start : start + 20] = b"\xff" * 20
    path = tmp_path / "x.csv.gz"
    path.write_bytes(data)
    refused(ValueError, path, "CSV")


# --- writing ----------------------------------------------------------------------------------------------


@pytest.fixture(params=KINDS)
def full_disk(request, monkeypatch):
    """Let the disk fill up in the middle of writing a file of this kind."""

    def half_a_file(self, target, *args, **kwargs):
        Path(target).write_bytes(b"half a f")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(pd.DataFrame, "to_csv", half_a_file)
    monkeypatch.setattr(pd.DataFrame, "to_parquet", half_a_file)
    return request.param


def test_full_disk_leaves_nothing_behind(table, tmp_path, full_disk):
    with pytest.raises(OSError, match=r"x.* cannot be written: No space left"):
        write_table(table, tmp_path / f"x{full_disk}")
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_an_existing_file_alone(table, tmp_path, full_disk):
    target = tmp_path / f"x{full_disk}"
    target.write_bytes(b"precious")
    with pytest.raises(OSError, match="No space left"):
        write_table(table, target)
    assert target.read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


def test_interruption_leaves_nothing_behind(table, tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_table(table, tmp_path / "x.csv")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_replaced(table, tmp_path):
    target = tmp_path / "x.csv"
    target.write_text("old")
    write_table(table, target)
    assert read_table(target).shape == table.shape


def test_relative_path_and_readable_mode(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table(table, "x.csv")
    assert (tmp_path / "x.csv").stat().st_mode & 0o444 == 0o444


def test_mode_is_that_of_new_files_or_of_the_file_replaced(table, tmp_path):
    (tmp_path / "plain").touch()
    target = tmp_path / "x.csv"
    write_table(table, target)
    assert target.stat().st_mode == (tmp_path / "plain").stat().st_mode
    target.chmod(0o600)
    write_table(table, target)
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_link_is_followed(table, tmp_path):
    target, link = tmp_path / "x.csv", tmp_path / "link.csv"
    target.write_text("old")
    link.symlink_to(target)
    write_table(table, link)
    assert link.is_symlink()
    assert read_table(target).shape == table.shape


def test_no_such_folder(table, tmp_path):
    with pytest.raises(OSError, match="none"):
        write_table(table, tmp_path / "none" / "x.csv")


@pytest.mark.parametrize(
    ("stamps", "first"),
    [
        (["05.03.2024 10:00", "05.03.2024 10:01"], "2024-03-05"),
        (["12/01/2024", "13/01/2024"], "2024-01-12"),
        (["31/01/2024", "01/02/2024"], "2024-01-31"),
        (["01/31/2024", "02/01/2024"], "2024-01-31"),
        (["2024-03-05", "2024-03-06"], "2024-03-05"),
    ],
)
def test_days_and_months_in_either_order(tmp_path, stamps, first):
    path = tmp_path / "x.csv"
    path.write_text("time,a\n" + "".join(f"{s},1\n" for s in stamps))
    assert str(read_table(path).index[0].date()) == first


def test_an_order_that_nothing_tells_is_said(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("time,a\n01/02/2024,1\n01/03/2024,2\n")
    with pytest.warns(UserWarning, match="month first"):
        assert str(read_table(path).index[0].date()) == "2024-01-02"


def test_a_clock_that_was_changed_on_the_way(tmp_path):
    clock = pd.date_range("2024-03-31 00:00", periods=5, freq="h", tz="Europe/Berlin")
    pd.DataFrame({"a": range(5)}, clock).to_csv(tmp_path / "x.csv")
    assert read_table(tmp_path / "x.csv").index.equals(clock.tz_convert("UTC"))


def test_timestamps_alone_are_no_recording(tmp_path):
    (tmp_path / "x.csv").write_text("time\n2024-01-01\n")
    with pytest.raises(ValueError, match="no column"):
        read_table(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("separator", "decimal"), [(",", "."), (";", "."), (";", ","), ("\t", "."), ("\t", ",")], ids=repr
)
@pytest.mark.parametrize("kind", [".csv", ".csv.gz", ".txt"])
def test_separators_and_decimal_signs_are_recognised(table, tmp_path, separator, decimal, kind):
    table.to_csv(tmp_path / f"x{kind}", sep=separator, decimal=decimal)
    back = read_table(tmp_path / f"x{kind}")
    assert list(back.columns) == ["a", "b"]
    np.testing.assert_allclose(back.to_numpy(), table.to_numpy(), rtol=1e-12)
    assert (back.index == table.index).all()


def test_a_separator_inside_a_quoted_name_is_none(tmp_path):
    (tmp_path / "x.csv").write_text('"flow; left",b\n1,2\n3,4\n')
    assert list(read_table(tmp_path / "x.csv").columns) == ["flow; left", "b"]


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
def test_seconds_since_1970_are_timestamps(tmp_path, unit):
    seconds = 1_700_000_000 + 60 * np.arange(5)
    pd.DataFrame({"time": seconds * unit, "a": np.arange(5.0)}).to_csv(tmp_path / "x.csv", index=False)
    with pytest.warns(UserWarning, match="'time' is read as timestamps, from 2023-11-14"):
        back = read_table(tmp_path / "x.csv")
    assert list(back.columns) == ["a"]
    assert (back.index == pd.to_datetime(seconds, unit="s")).all()


def test_epochs_that_go_back_are_timestamps_that_go_back(tmp_path):
    pd.DataFrame({"time": [1_700_000_060, 1_700_000_000, 1_700_000_120], "a": 1.0}).to_csv(
        tmp_path / "x.csv", index=False
    )
    with pytest.warns(UserWarning, match="read as timestamps"):
        assert not read_table(tmp_path / "x.csv").index.is_monotonic_increasing


def test_row_numbers_without_a_name_are_left_out(tmp_path):
    pd.DataFrame({"a": np.arange(5.0)}).to_csv(tmp_path / "x.csv")
    with pytest.warns(UserWarning, match="numbers the rows"):
        assert list(read_table(tmp_path / "x.csv").columns) == ["a"]


def test_a_column_that_counts_is_no_sensor_unless_it_is_named_like_one(tmp_path):
    table = pd.DataFrame({"time": np.arange(5) / 2, "a": np.arange(5.0)})
    table.to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(ValueError, match="counts time or rows"):
        read_table(tmp_path / "x.csv")
    table.assign(time=table["time"] ** 2).rename(columns={"time": "level"}).to_csv(tmp_path / "x.csv", index=False)
    assert list(read_table(tmp_path / "x.csv").columns) == ["level", "a"]
    table.assign(time=[3, 1, 2, 5, 4]).to_csv(tmp_path / "x.csv", index=False)
    assert list(read_table(tmp_path / "x.csv").columns) == ["time", "a"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a,b\n1,2\n2,3\n2e,4\n", "'2e' in line 4"),
        ("a,b\n1,2\n2,3-\n3,4\n", r"columns \['b'\] are not numbers, such as '3-' in line 3"),
        ("a,b\n1,2\n2,inf\n3,4\n", "column 'b' holds infinity in line 3"),
    ],
)
def test_the_first_value_that_is_no_number_is_named(tmp_path, text, what):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ValueError, match=what):
        read_table(tmp_path / "x.csv")


def test_a_folder_is_called_one(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        read_table(tmp_path)


def test_a_first_line_of_readings_is_no_head(tmp_path):
    (tmp_path / "x.csv").write_text("0.0125,0.828\n0.3,0.4\n0.5,0.6\n")
    with pytest.raises(ValueError, match=r"first line holds numbers \(0.0125, 0.828"):
        read_table(tmp_path / "x.csv")
    (tmp_path / "y.csv").write_text("2026-01-01,0.828\n2026-01-02,0.4\n")
    with pytest.raises(ValueError, match="put a line of names before it"):
        read_table(tmp_path / "y.csv")


@pytest.mark.parametrize("head", ["0,1,2", ",0,1", "time,1,2", "a,0.5,b"])
def test_numbered_columns_keep_their_numbers(tmp_path, head):
    (tmp_path / "x.csv").write_text(f"{head}\n0.1,5,6\n0.3,4,5\n0.2,1,2\n")
    assert len(read_table(tmp_path / "x.csv")) == 3


def test_a_clock_without_one_of_its_times_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("time,a\n1700000000,1\n,2\n1700000120,3\n")
    with pytest.raises(ValueError, match="line 3 has no timestamp in column 'time'"):
        read_table(tmp_path / "x.csv")


@pytest.mark.parametrize(
    "name", ["t", "seconds", "time_s", "Time [s]", "id", "sample", "timestamp", "Zeit", "Elapsed (s)", "Temps", "fecha"]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_clocks_of_other_names_are_no_sensors(tmp_path, name, sign):
    pd.DataFrame({name: sign * np.arange(5.0) ** 2, "a": 1.0}).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(ValueError, match="counts time or rows"):
        read_table(tmp_path / "x.csv")


def test_even_steps_under_another_name_are_told(tmp_path):
    pd.DataFrame({"level": np.arange(5) / 2, "a": 1.0}).to_csv(tmp_path / "x.csv", index=False)
    with pytest.warns(UserWarning, match="'level', grows by 0.5 from row to row"):
        assert list(read_table(tmp_path / "x.csv").columns) == ["level", "a"]
    seconds = 1_700_000_000 + 60 * np.arange(5)
    pd.DataFrame({"when": seconds, "a": 1.0}).to_csv(tmp_path / "y.csv", index=False)
    with pytest.warns(UserWarning, match="'when' is read as timestamps"):
        assert list(read_table(tmp_path / "y.csv").columns) == ["a"]


@pytest.mark.parametrize("name", ["Zeitstempel", "Uhrzeit", "whatever"])
def test_epochs_that_grow_unevenly_are_timestamps_under_any_name(tmp_path, name):
    seconds = 1_700_000_000 + np.array([0, 61, 119, 183])
    pd.DataFrame({name: seconds, "a": 1.0}).to_csv(tmp_path / "x.csv", index=False)
    with pytest.warns(UserWarning, match=f"'{name}' is read as timestamps"):
        assert (read_table(tmp_path / "x.csv").index == pd.to_datetime(seconds, unit="s")).all()


def test_a_date_and_a_time_of_day_are_one_clock(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("Datum;Uhrzeit;T\n01.02.24;23:30;1,5\n01.02.24;24:00;2,5\n")
    table = read_table(path)
    assert table.index.tolist() == [pd.Timestamp("2024-02-01 23:30"), pd.Timestamp("2024-02-02")]
    assert table.index.name == "Datum Uhrzeit" and list(table.columns) == ["T"]
    path.write_text("Uhrzeit;Datum;T\n23:30:00;01.02.24 00:00:00;1,5\n00:00:00;02.02.24 00:00:00;2,5\n")
    assert read_table(path).index.equals(table.index)
    path.write_text("Zeit;Uhrzeit;T\n01.02.24 23:30:00;23:30:00;1,5\n02.02.24 00:00:00;00:00:00;2,5\n")
    refused(ValueError, path, "'Uhrzeit'", "not numbers", "'23:30:00' in line 2")


def test_times_of_day_without_a_date_are_refused(tmp_path):
    (tmp_path / "x.csv").write_text("time,a\n00:00:00,1\n00:01:00,2\n")
    refused(ValueError, tmp_path / "x.csv", "column 'time' holds times of day without a date; join it with the date")


def test_two_digit_years_keep_their_order_through_a_file(tmp_path):
    (tmp_path / "x.csv").write_text("t;a\n13.02.24 00:00;1\n01.03.24 00:00;2\n")
    assert read_table(tmp_path / "x.csv").index.tolist() == [pd.Timestamp("2024-02-13"), pd.Timestamp("2024-03-01")]


def test_behind_row_numbers_comes_the_clock(tmp_path):
    clock = pd.date_range("2024-02-01", periods=4, freq="h")
    pd.DataFrame({"t": clock, "a": np.arange(4.0)}).to_csv(tmp_path / "x.csv")
    with pytest.warns(UserWarning, match="numbers the rows"):
        assert (read_table(tmp_path / "x.csv").index == clock).all()


@pytest.mark.parametrize("first", ["tag", "when"])
def test_one_reading_a_line_is_told_how_to_become_a_table(tmp_path, first):
    clock = np.repeat(pd.date_range("2024-02-01", periods=4, freq="h"), 2)
    table = pd.DataFrame({"when": clock, "tag": ["T", "P"] * 4, "value": np.arange(8.0)})
    table[[first, *table.columns.drop(first)]].to_csv(tmp_path / "x.csv", index=False)
    refused(ValueError, tmp_path / "x.csv", "table.pivot(index='when', columns='tag', values='value')")


@pytest.mark.parametrize(
    "index",
    [
        pd.period_range("2024-01", periods=3, freq="M"),
        pd.Index([5, 6, 9]),
        pd.RangeIndex(3, name="row"),
        pd.Index(["x", "y", "z"]),
    ],
)
def test_an_index_that_says_something_is_written(tmp_path, index):
    write_table(pd.DataFrame({"a": [1.0, 2.0, 3.0]}, index), tmp_path / "x.csv")
    assert pd.read_csv(tmp_path / "x.csv").iloc[:, 0].astype(str).tolist() == index.astype(str).tolist()


def test_the_index_of_a_parquet_file_is_its_clock(table, tmp_path):
    write_table(table.assign(b=1_700_000_000 + 60 * np.arange(5))[["b", "a"]], tmp_path / "x.parquet")
    assert (read_table(tmp_path / "x.parquet").index == table.index).all()


def test_rows_of_neither_time_nor_reading_are_left_out(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("t;a\n01.02.2024;1,5\n02.02.2024;2,5\n;\n;\n")
    assert read_table(path)["a"].tolist() == [1.5, 2.5]
    path.write_text("t;a\n01.02.2024;1,5\n;2,5\n;\n")
    refused(ValueError, path, "line 3 has no timestamp in column 't'")


@pytest.mark.parametrize("error", ["#DIV/0!", "#N/A", "#NAME?", "#WERT!"])
def test_what_a_spreadsheet_writes_for_a_failed_formula_is_missing(error, tmp_path):
    file = tmp_path / "sheet.csv"
    file.write_text("time,press\n" + "".join(f"2024-01-01 00:{k:02d},{error if k == 7 else k}\n" for k in range(30)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the word that was left out
        table = read_table(file)
    assert table["press"].dtype == float and np.flatnonzero(table["press"].isna()).tolist() == [7]
