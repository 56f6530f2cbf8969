"""Tables of subjects: read whatever separates their columns, and joined by the one column that holds the IDs."""

import contextlib
import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.base.errors import InputError
from data.conversion.tables import key, matching_column, read_table

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


@pytest.mark.parametrize("text", ["51456.0", "0051456", "sub-0051456", "51456.", " 51456 ", "5.1456e4", "5.1456E+04"])
def test_ids_are_compared_as_numbers(text):
    assert key(text) == "51456"
    assert matching_column(columns(ID=lambda row: f"{row + 50001}.0"), maps(50001, 50040), PATH) == "ID"


@pytest.mark.parametrize("text", ["1e5", "12.5", "1.25e1", "5E2", "1e+999999999", "P17.0", "-3.0", "1.2.0"])
def test_what_may_be_a_name_is_compared_as_text(text):
    assert key(text) == text


@pytest.mark.parametrize(
    "ids, found", [((0, 59), (1, 60)), ((1, 60), (0, 59)), ((1, 60), (31, 90)), ((0, 70), (1, 60))]
)
@pytest.mark.parametrize("head", ["", "S"])
def test_a_match_of_all_but_the_ends_is_refused(head, ids, found):
    table = pd.DataFrame({"ID": [f"{head}{number}" for number in range(ids[0], ids[1] + 1)], "age": "12"})
    with pytest.raises(InputError, match=r"IDs match all but the ends, as shifted numbers do.*--idColumn 'ID'"):
        matching_column(table.sample(frac=1, random_state=0), {f"{head}{name}" for name in maps(*found)}, PATH)


def test_people_without_a_map_and_maps_without_a_row_are_no_shift():
    assert matching_column(columns(60, ID=identity), maps(3, 50), PATH) == "ID"
    assert matching_column(columns(60, ID=identity), maps(1, 60) - {"7", "30"} | {"90"}, PATH) == "ID"
    assert matching_column(columns(30, ID=lambda row: row + 11), maps(1, 60), PATH) == "ID"


@pytest.mark.parametrize("code", ["P{:03}", "7{:04}", "AB-{}", "{}A"])
def test_row_numbers_beside_codes_are_a_tie(code):
    """The maps are 1 to 60, whether as the codes say or as the rows lie."""
    table = columns(60, ID=identity, code=lambda row: code.format(row * 7 % 60 + 1), age=lambda row: 9 + row // 3)
    with pytest.raises(
        InputError, match=r"The columns ID and code of .* could both name the subjects.*--idColumn 'ID'"
    ):
        matching_column(table, maps(1, 60), PATH)
    same = columns(60, ID=identity, code=lambda row: f"P{row + 1:03}", day=lambda row: f"2010-01-{row}")
    assert matching_column(same, maps(1, 60), PATH) == "ID"
    assert matching_column(
        columns(60, ID=lambda row: f"{row + 1:02}", code=lambda row: f"x9{row:02}"), maps(1, 60), PATH
    )


FORMS = ["{}", "{:06}", "sub-{:03}", "{}.0", "P{:03}", "{}_x"]  # of IDs, beside numbers that are no IDs


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    *map(st.sampled_from, (FORMS, ["rows", "shifted", "permuted"], [0, 1, 7, 50001])),
    st.integers(-3, 3),
    st.integers(0),
)
def test_shifted_and_permuted_numbers_never_give_a_wrong_row_in_silence(form, kind, first, shift, seed):
    random = np.random.default_rng(seed)
    count = random.integers(20, 40)
    people = random.permutation(count) + first if random.random() < 0.7 else np.arange(count) + first
    numbers = {
        "rows": np.arange(count) + first + shift,
        "shifted": people + shift,
        "permuted": random.permutation(people),
    }
    table = pd.DataFrame({"code": list(map(form.format, people)), "ID": numbers[kind].astype(str)})
    table = table.drop(index=random.choice(count, random.integers(3), replace=False)).sample(
        frac=1, axis=1, random_state=random
    )
    found = set(map(str, people)) - set(map(str, random.choice(people, random.integers(3), replace=False)))
    with contextlib.suppress(InputError):
        chosen = table[matching_column(table, found, PATH)].map(key)
        assert all(str(people[row]) == name for row, name in chosen.items() if name in found)


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
