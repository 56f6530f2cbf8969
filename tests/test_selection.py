"""--exclude and --where: each expression against Python's own reading of it, row by row, and nothing is ever run."""

from pathlib import Path

import lab as labs
import pandas as pd
import pytest
from commands import done
from hypothesis import given, settings
from hypothesis import strategies as st

from data.tables.selection import RowCondition

PATH = Path("table.csv")
TABLE = pd.DataFrame(
    {
        "age": ["12.5", "17", "18.0", "", "33"],
        "fd": ["0.1", "0.5", "-9999", "0.2", "0.05"],
        "site": ["NYU", "USM", "NYU", "", "SBL"],
        "sex": ["1", "2", "1.0", "2", ""],
        "mean fd": ["1", "2", "3", "4", "5"],
        "class": ["a", "b", "a", "b", "a"],
    }
)


def truth(text: str) -> str:
    return "".join({True: "y", False: "n"}.get(value, "?") for value in RowCondition(text, TABLE, PATH).evaluate_rows())


@pytest.mark.parametrize(
    "text, expected",
    [
        ("age < 18", "yyn?n"),
        ("age <= 18 and fd < 0.3", "yn?" + "?n"),
        ("fd < 0.3 or site == 'NYU'", "yn" + "yyy"),
        ("not age < 18", "nny?y"),
        ("12 < age < 20", "yyy?n"),
        ("site in ('NYU', 'SBL')", "yny?y"),
        ("site not in ['NYU']", "nyn?y"),
        ("sex == 1", "ynyn?"),
        ("sex == '1'", "ynyn?"),
        ("age > -1", "yyy?y"),
        ("fd > -9999", "yy?yy"),
        ('`mean fd` >= 3 and `class` != "b"', "nnyny"),
        ("age > `mean fd`", "yyy?y"),
        ("site >= 'O'", "nyn?y"),
        ("(age<18)", "yyn?n"),
    ],
)
def test_conditions_by_hand(text, expected):
    assert truth(text) == expected


def test_an_absent_value_is_reported():
    condition = RowCondition("site == 'nyu' or site in ('SBL',)", TABLE, PATH)
    condition.evaluate_rows()
    assert condition.summary_rows == [("left out", "--where: nobody's site is nyu; it is NYU, SBL, USM")]


NUMBERS = st.sampled_from(["age", "fd", "sex", "3", "0.2", "-1", "18"])
PAIRS = st.tuples(
    st.sampled_from(["age", "fd", "sex"]), st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), NUMBERS
).map(" ".join)
TEXTS = st.sampled_from(["site == 'NYU'", "site in ('SBL', 'USM')", "site != 'USM'", "site > 'P'"])
CONDITIONS = st.recursive(
    PAIRS | TEXTS,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda operands: f"({' '.join(operands)})")
        | inner.map("(not {})".format)
    ),
    max_leaves=5,
)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(CONDITIONS)
def test_conditions_against_python(text):
    """A row is YES or NO only where Python says so for each of a few values in place of the missing ones."""
    names, truth_values = ["age", "fd", "sex", "site"], RowCondition(text, TABLE, PATH).evaluate_rows()
    for row, value in zip(TABLE[names].replace("-9999", "").to_dict("records"), truth_values, strict=True):
        possible_truths = set()
        for number, word in [(-5.0, "A"), (0.15, "NYU"), (2.0, "Q"), (40.0, "Z")]:
            filled = {name: text or word if name == "site" else float(text or number) for name, text in row.items()}
            possible_truths.add(bool(eval(text, {}, filled)))  # noqa: S307
        assert value in possible_truths if all(row.values()) else (value is pd.NA or possible_truths == {value})


@pytest.mark.slow
def test_people_are_excluded_by_id_or_by_a_file_and_a_column_may_have_any_name(lab, tmp_path):
    """IDs as in BIDS, with leading zeros or from a spreadsheet; a heading of two lines, as Excel writes it."""
    copy = labs.copy(lab, tmp_path / "lab")
    labs.edit(copy / "Phenotypic.csv", lambda original_table: original_table.rename(columns={"iq": "Age\n(years)"}))
    (tmp_path / "bad.txt").write_text("\ufeff0050003\r\n\n 50004 \n")
    table = labs.read_table(lab / "Phenotypic.csv")
    command = "abide-data convert {lab} {to} --grid reduced --where '`Age (years)` > 100' --exclude {who}"
    for exclude_option, excluded in (
        ("sub-50007,50010.0", ["50007", "50010"]),
        (tmp_path / "bad.txt", ["50003", "50004"]),
    ):
        done(command, lab=copy, to=(to := tmp_path / Path(exclude_option).stem), who=exclude_option)
        expected_rows = table[(pd.to_numeric(table["iq"]) > 100) & ~table["SUB_ID"].isin(excluded)]
        assert sorted(labs.read_table(to / "subjects.csv")["subject"]) == sorted(expected_rows["SUB_ID"])


def test_conditions_hold_for_empty_tables():
    assert RowCondition("age < 18 and site == 'NYU'", TABLE.iloc[:0], PATH).evaluate_rows().shape == (0,)
    assert RowCondition("age < 18", TABLE.assign(age=""), PATH).evaluate_rows().isna().all()
