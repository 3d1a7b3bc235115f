"""CSV files of loggers, historians and spreadsheets: the same readings however they are written, or an error."""

from __future__ import annotations

import csv
import gzip
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffad.files.number_texts import as_number
from diffad.files.tables import read_table

HEAD = "Zeit;Druck [bar];Durchfluß [m³/h]"
ROWS = ["01.02.2024 00:00;1,5;80", "01.02.2024 00:01;1,25;1.234,5", "01.02.2024 00:02;;999,5"]
EXPECTED = [[1.5, 80], [1.25, 1234.5], [np.nan, 999.5]]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.csv"


def quietly(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_table(path)


# --- encodings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("packed", [False, True])
def test_every_encoding_of_unicode_is_recognised(tmp_path, encoding, packed):
    data = "\r\n".join([HEAD, *ROWS]).encode(encoding)
    path = tmp_path / ("x.csv.gz" if packed else "x.csv")
    path.write_bytes(gzip.compress(data) if packed else data)
    table = quietly(path)
    assert list(table.columns) == ["Druck [bar]", "Durchfluß [m³/h]"]
    np.testing.assert_array_equal(table, EXPECTED)


def test_what_excel_calls_csv_is_read_and_said(path):
    path.write_bytes("\n".join([HEAD, *ROWS]).encode("cp1252"))
    with pytest.warns(UserWarning, match=r"x\.csv is no UTF-8 and read as Windows-1252"):
        table = read_table(path)
    assert list(table.columns) == ["Druck [bar]", "Durchfluß [m³/h]"]


@pytest.mark.parametrize("data", [bytes(range(256)), b"a,b\n\xff\xfe,1\n", b"\x89PNG\r\n\x1a\n\0\0", b"a\0,\0b\0\n\0"])
def test_other_bytes_are_no_csv(path, data):
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.csv cannot be read as CSV"):
        read_table(path)


def test_bytes_that_are_no_text_are_told_in_words(path):
    path.write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="no text; save it as"):
        read_table(path)


def test_bars_separate_fields(path):
    path.write_text("time|a|b\n2024-01-01|1,5|2\n2024-01-02|3,5|4\n")
    table = read_table(path)
    assert list(table.columns) == ["a", "b"]
    assert table["a"].tolist() == [1.5, 3.5]


# --- lines before the readings ------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [["sep=;"], ["# exported", "# by hand, on Monday"], ["", ""], ["#Zeit", "# a;b"]])
def test_lines_that_are_no_readings_are_skipped(path, before):
    path.write_text("\n".join([*before, HEAD, *ROWS]))
    np.testing.assert_array_equal(quietly(path), EXPECTED)


@pytest.mark.parametrize(
    "before",
    [["Export of 2024"], ["Export", "Station: 4711", "", "from: A, B; C"], ["Export;;", "Station;4711;"], ["x"] * 30],
)
def test_a_preamble_is_skipped_and_said(path, before):
    path.write_text("\n".join([*before, HEAD, *ROWS]))
    with pytest.warns(UserWarning, match=rf"before the names of its columns in line {len(before) + 1}: '{before[0]}'"):
        table = read_table(path)
    np.testing.assert_array_equal(table, EXPECTED)


def test_names_that_come_twice_are_told(path):
    path.write_text("time,a,a\n2026-01-01,1,2\n2026-01-02,3,4\n")
    with pytest.warns(UserWarning, match=r"the names \['a'\] come more than once"):
        assert list(read_table(path)) == ["a", "a.1"]


def test_spaces_around_names_are_no_part_of_them(path):
    path.write_text("time, a , b\n2026-01-01, 2, 3\n2026-01-02, 3, 4\n")
    table = read_table(path)
    assert list(table) == ["a", "b"] and table.index.name == "time"
    path.write_text("x,a, a\n7,1,2\n7,2,3\n7,3,4\n")
    assert list(read_table(path)) == ["x", "a", " a"], "two columns must not become one"


def test_one_column_of_decimal_commas_is_refused_with_both_ways_out(path):
    path.write_text("a\n20,5\n21,5\n20,9\n")
    with pytest.raises(ValueError, match="add the names, or write decimal points if its commas are decimal"):
        read_table(path)


def test_the_names_may_be_in_a_comment(path):
    path.write_text("# logger 7\n#time,a,b\n2024-02-01 00:00,1.5,2\n2024-02-01 00:01,2.5,3\n")
    table = quietly(path)
    assert list(table.columns) == ["a", "b"] and len(table) == 2


def test_a_line_of_units_is_left_out_and_said(path):
    path.write_text("time,a,b\n,°C,m3/h\n2024-02-01 00:00,1.5,2\n2024-02-01 00:01,2.5,3\n")
    with pytest.warns(UserWarning, match="left out line 2, which holds no reading, as units"):
        np.testing.assert_array_equal(read_table(path), [[1.5, 2], [2.5, 3]])


@pytest.mark.parametrize("before", [[], ["sep=;"], ["# a", "", "# b"], ["Export"]])
def test_errors_name_the_line_of_the_file(path, before):
    rows = [f"01.02.2024 00:{k:02d};{k},5;1{';1' if k == 2 else ''}" for k in range(9)]
    rows[7] = "01.02.2024 00:07;8o,5;1"
    path.write_text("\n".join([*before, HEAD, *rows[:4], "", *rows[4:]]))
    with (
        warnings.catch_warnings(),
        pytest.raises(
            ValueError, match=rf"\['Druck \[bar\]'\] are not numbers, such as '8o,5' in line {len(before) + 10}"
        ),
    ):
        warnings.simplefilter("ignore")
        read_table(path)


def test_columns_without_name_or_value_are_left_out(path):
    path.write_text("time,a,\n2024-02-01,1,\n2024-02-02,3,\n")
    assert list(quietly(path).columns) == ["a"]


def test_names_may_spread_over_lines(path):
    path.write_text('time;"Temp\n[°C]";P\n2024-02-01 00:00;1,5;2\n2024-02-01 00:01;2,5;3\n')
    assert list(quietly(path).columns) == ["Temp\n[°C]", "P"]


# --- separators and signs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("decimal", [",", "."])
def test_commas_in_names_are_no_separators(path, separator, decimal):
    lines = ["Time|Temp, °C|Pressure, bar|Flow, m³/h", "2024-02-01 00:00|1.5|2.5|3.5", "2024-02-01 00:01|2.5|3.5|4.5"]
    path.write_text("\n".join(lines).replace("|", separator).replace(".", decimal))
    table = quietly(path)
    assert list(table.columns) == ["Temp, °C", "Pressure, bar", "Flow, m³/h"]
    np.testing.assert_array_equal(table, [[1.5, 2.5, 3.5], [2.5, 3.5, 4.5]])


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(
        st.tuples(*[st.floats(-1e5, 1e5) | st.integers(-5000, 5000) | st.none()] * 2), min_size=1, max_size=8
    ),
    digits=st.integers(0, 5),
    separator=st.sampled_from([";", "\t", ","]),
    decimal=st.sampled_from([",", "."]),
    encoding=st.sampled_from(["utf-8", "utf-16", "cp1252"]),
)
def test_what_was_written_in_any_way_is_read(tmp_path_factory, values, digits, separator, decimal, encoding):
    table = pd.DataFrame(
        values, pd.date_range("2024-02-01", periods=len(values), freq="h"), ["°C", "m³/h"], dtype=float
    )
    # Between commas, "1,234" in quotes is rather a thousand.
    table = table.round(2 if separator == decimal and digits == 3 else digits)
    path = tmp_path_factory.getbasetemp() / "any.csv"
    quoting = csv.QUOTE_ALL if separator == decimal else csv.QUOTE_MINIMAL
    form = "%d.%m.%Y %H:%M" if decimal == "," else "%Y-%m-%d %H:%M:%S"
    table.to_csv(path, sep=separator, decimal=decimal, encoding=encoding, quoting=quoting, date_format=form)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = read_table(path)
    assert list(back.index) == list(table.index)
    np.testing.assert_array_equal(back.to_numpy(float), table.to_numpy())


def test_decimal_commas_may_come_late(path):
    whole = [f"2024-02-01 {k // 60:02d}:{k % 60:02d};80;100" for k in range(300)]
    path.write_text("\n".join(["t;a;b", *whole, "2024-02-01 05:00;80,125;100,5"]))
    assert quietly(path).iloc[-1].tolist() == [80.125, 100.5]


def test_quoted_decimal_commas_between_commas(path):
    path.write_text('"t","a","b"\n"2024-02-01","79,769","1,5"\n"2024-02-02","79,771","1,75"\n')
    np.testing.assert_array_equal(quietly(path), [[79.769, 1.5], [79.771, 1.75]])


def test_thousands_between_commas(path):
    path.write_text('t,a\n2024-02-01,"1,234.5"\n2024-02-02,999.5\n')
    assert quietly(path)["a"].tolist() == [1234.5, 999.5]


def test_thousands_that_might_be_decimals_are_said(path):
    path.write_text("t;a;b\n2024-02-01;1,5;1.234\n2024-02-02;2,5;2.468\n")
    with pytest.warns(UserWarning, match=r"'b': '1.234' is read as 1234"):
        assert read_table(path)["b"].tolist() == [1234, 2468]


@given(st.floats(-1e9, 1e9), st.sampled_from([",", "."]), st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_number_is_read_in_either_notation(value, decimal, grouped):
    text = f"{value:{',' if grouped else ''}.4f}"
    if decimal == ",":
        text = text.translate(str.maketrans(",.", ".,"))
    assert as_number(text, decimal) == float(f"{value:.4f}")


@pytest.mark.parametrize("text", ["", "Bad", "1.2.3", "12,34.5", "1,2345.0", "-", "1e", "0,123.4", "5 %", "01.02.2024"])
def test_no_number_in_either_notation(text):
    assert as_number(text, ".") is None and as_number(text, ",") is None


# --- words among the readings -------------------------------------------------------------------------------


def test_words_of_historians_are_missing_and_listed(path):
    path.write_text(
        "t,a,b\n"
        + "".join(f"2024-02-{k:02d},{k}.5,{k}\n" for k in range(1, 8))
        + "2024-02-08,Bad,I/O Timeout\n2024-02-09,Bad,3\n"
    )
    with pytest.warns(UserWarning, match=r"read as missing: 'Bad' \(2 in 'a'\), 'I/O Timeout' \(1 in 'b'\)"):
        table = read_table(path)
    assert table.isna().sum().tolist() == [2, 1]
    assert table["b"].iloc[-1] == 3


def test_a_column_of_words_or_with_a_typo_stays_an_error(path):
    path.write_text("t,a\n2024-02-01,1\n2024-02-02,on\n2024-02-03,off\n")
    with pytest.raises(ValueError, match=r"\['a'\] are not numbers, such as 'on' in line 3"):
        read_table(path)
    path.write_text("t,a\n2024-02-01,1\n2024-02-02,Bad\n2024-02-03,2o\n2024-02-04,2\n2024-02-05,2\n")
    with pytest.raises(ValueError, match=r"\['a'\] are not numbers, such as '2o' in line 4"):
        read_table(path)


def test_the_notation_of_a_column_tells_its_typo(path):
    path.write_text("t;a\n2024-02-01;1,5\n2024-02-02;2,5\n2024-02-03;2.5x\n")
    with pytest.raises(ValueError, match=r"such as '2\.5x' in line 4"):
        read_table(path)


def test_flags_with_gaps_are_numbers(path):
    path.write_text("t,a\n2024-02-01,True\n2024-02-02,\n2024-02-03,False\n")
    pd.testing.assert_series_equal(quietly(path)["a"].reset_index(drop=True), pd.Series([1.0, np.nan, 0.0], name="a"))
