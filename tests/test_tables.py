"""Tables of subjects: read whatever separates their columns, and joined by the one column that holds the IDs."""

import csv
import io
from pathlib import Path

import pandas as pd
import pytest

from data.base.errors import InputError
from data.conversion.tables import matching_column, read_table

PATH = Path("table.csv")


def maps(first: int, last: int) -> set[str]:
    return {str(number) for number in range(first, last + 1)}


def columns(count: int = 40, **more) -> pd.DataFrame:
    """A table of `count` rows; each column is a function of the row's number from 0."""
    return pd.DataFrame({name.replace("__", " "): [str(of(row)) for row in range(count)] for name, of in more.items()})


def identity(row: int) -> int:
    return row + 1


ROWS = ["Unnamed:__0", "column__1", "index", "X", "i", "row", "rownames", "anything"]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("name", ROWS)
def test_row_numbers_beside_ids_do_not_win(name, first):
    """Either order of the columns, and both if the index gives each map a row and if it leaves one out."""
    numbers = {name: lambda row: row + first}
    for table in (columns(**numbers, ID=lambda row: 40 - row), columns(ID=lambda row: 40 - row, **numbers)):
        assert matching_column(table, maps(1, 39), PATH) == "ID"


@pytest.mark.parametrize("name", ROWS)
def test_row_numbers_alone_are_refused(name):
    table = columns(**{name: identity}, code=lambda row: f"P{row}")
    with pytest.raises(InputError, match=r"seems to number the rows; expected a column of IDs.*--idColumn"):
        matching_column(table, maps(1, 40), PATH)


@pytest.mark.parametrize("name", ["ID", "subject", "SUB_ID", "participant_id", "Subject ID", "patient"])
def test_ids_from_1_are_ids_under_the_name_of_ids(name):
    assert matching_column(columns(**{"Unnamed:__0": lambda row: row, name: identity}), maps(1, 40), PATH) == name


@pytest.mark.parametrize(
    "other, found",
    [
        (lambda row: 40 - row, maps(1, 40)),  # the same IDs in another order
        (lambda row: row + 2, maps(2, 40)),  # shifted by one, and equally good
        (lambda row: row + 2, maps(1, 50)),  # 40 of 50 against 40 of 50
        (lambda row: row + 3, maps(2, 40)),  # 39 against 38, and one row has no map
        (lambda row: row + 101, {*maps(1, 20), *maps(101, 120)}),  # each holds the half of the maps
    ],
)
def test_columns_that_would_give_other_rows_are_refused(other, found):
    for table in (columns(code=lambda row: row * 1 + 1, ID=other), columns(ID=other, scan_id=identity)):
        with pytest.raises(InputError, match=r"The columns .* and .* both hold IDs of the maps.*--idColumn"):
            matching_column(table.assign(), found, PATH)


def test_columns_that_give_the_same_rows_are_no_conflict():
    table = columns(SUB_ID=lambda row: f"00{row + 50001}", subject=lambda row: row + 50001, X=identity)
    assert matching_column(table, maps(50001, 50030), PATH) == "SUB_ID"
    partly = columns(old_id=lambda row: row + 50001 if row % 2 else "", SUB_ID=lambda row: row + 50001)
    assert matching_column(partly, maps(50001, 50030), PATH) == "SUB_ID"


@pytest.mark.parametrize(
    "values",
    [lambda row: 1 + row % 2, lambda row: 8 + row * 7 % 30, lambda row: 90 + row * 13 % 40, lambda row: row // 20],
)
def test_labels_ages_and_scores_are_no_ids(values):
    assert matching_column(columns(dx=values, code=lambda row: 7 + (row * 3) % 40), maps(7, 46), PATH) == "code"
    assert matching_column(columns(dx=values, code=lambda row: 7 + (row * 3) % 40), maps(7, 36), PATH) == "code"


def test_a_column_with_ids_twice_beside_worse_ones_is_not_passed_over():
    table = columns(code=lambda row: row // 2 + 100, age=lambda row: 119 - row if row < 3 else 7)
    with pytest.raises(InputError, match=r"The columns age and code .*--idColumn"):
        matching_column(table, maps(100, 119), PATH)


def test_a_few_scores_that_equal_ids_are_no_column_of_ids():
    table = columns(code=lambda row: f"P{row}", iq=lambda row: 80 + row)
    with pytest.raises(InputError, match=r"The column iq .* holds 3 of 30 IDs .* by chance.*--idColumn 'iq'"):
        matching_column(table, {*maps(117, 146)}, PATH)
    assert matching_column(columns(SUB_ID=lambda row: 80 + row), maps(117, 146), PATH) == "SUB_ID"


def test_no_column_and_no_maps():
    with pytest.raises(InputError, match=r"No column of .* holds the IDs of the maps, such as 900"):
        matching_column(columns(ID=identity), {"900"}, PATH)


ROWS_OF_TEXT = [["ID", "dx", "age"], ["1", "ASD", "12.5"], ["2", "TD; mild, say", "9"], ["3", "TD", ""]]


def written(rows: list[list[str]], delimiter: str) -> str:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerows(rows)
    return file.getvalue()


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_header_says_what_separates(delimiter, bom, suffix, tmp_path):
    path = tmp_path / f"table.{suffix}"
    path.write_text(bom + written(ROWS_OF_TEXT, delimiter), encoding="utf-8")
    table = read_table(path)
    assert [table.columns.tolist(), *table.to_numpy().tolist()] == ROWS_OF_TEXT


def test_a_line_that_declares_the_delimiter_is_heeded(tmp_path):
    (tmp_path / "table.csv").write_bytes(b"sep=;\r\nID;age, years\r\n1;12,5\r\n")
    assert read_table(tmp_path / "table.csv").to_dict("list") == {"ID": ["1"], "age, years": ["12.5"]}


def test_decimal_commas_of_a_european_table(tmp_path):
    text = "ID;age;iq;note;mixed;path\n1;12,5;100;a,b;1,5;x,1.nii\n2;9;98,25;3,4;2.5;y,2.nii\n3;-0,5;NA;c;;z,3.nii\n"
    (tmp_path / "table.csv").write_text(text)
    table = read_table(tmp_path / "table.csv")
    assert table["age"].tolist() == ["12.5", "9", "-0.5"]
    assert table["iq"].tolist() == ["100", "98.25", "NA"]
    assert table["note"].tolist() == ["a,b", "3,4", "c"]
    assert table["mixed"].tolist() == ["1,5", "2.5", ""]
    assert table["path"].tolist() == ["x,1.nii", "y,2.nii", "z,3.nii"]


@pytest.mark.parametrize("text", ["ID;a,b;c\n1;2,3;4\n", "ID,a;b\n1,2\n1;2;3\n", "ID\ta,b\n1\t2,3\n"])
def test_a_header_that_can_be_read_in_two_ways_is_refused(text, tmp_path):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(InputError, match=r"can be read as separated by .* or by .*; expected one"):
        read_table(tmp_path / "table.csv")


def test_the_other_lines_decide_where_they_can(tmp_path):
    (tmp_path / "table.csv").write_text("ID;age, years;dx\n1;12;ASD\n2;13;TD\n")
    assert read_table(tmp_path / "table.csv").columns.tolist() == ["ID", "age, years", "dx"]
