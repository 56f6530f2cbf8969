"""--exclude and --where: each expression against Python's own reading of it, row by row, and nothing is ever run."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.base.errors import InputError
from data.conversion.selection import NO, UNKNOWN, YES, Condition, excluded

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
    letter = {YES: "y", NO: "n", UNKNOWN: "?"}
    return "".join(letter[value] for value in Condition(text, TABLE, PATH).truth())


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


@pytest.mark.parametrize(
    "text, words",
    [
        ("AGE < 18", "has no column AGE; it has age, fd"),
        ("age = 18", "--where 'age = 18': .*Expected columns of table.csv compared with values"),
        ("age", "age is no comparison"),
        ("1 < 2", "expected a column in each comparison"),
        ("age < '18'", "age holds numbers; compare it with one, without quotes"),
        ("site == 3", "site holds text; compare it with text in quotes"),
        ("age < 2j", "2j is neither a column nor a value"),
        ("age < True", "True is neither"),
        ("age is 3", "expected a column in each comparison, and <"),
        ("age in 3", "after in, expected values in brackets"),
        ("age in ()", "after in, expected values in brackets"),
        ("'N' in site", "after in, expected values in brackets"),
        ("__import__('os').system('touch x') == 0 and age < 1", "is neither a column nor a value"),
        ("(lambda: 0)() < age", "is neither a column nor a value"),
        ("age.real < 3", "age.real is neither"),
        ("[age for age in (1,)] == age", "is neither"),
        ("f'{age}' == age", "is neither"),
        ("not " * 600 + "age", "--where"),
        ("(" * 900 + "age < 1" + ")" * 900, "--where"),
        ("age < 1" * 1000, "it has 7000 characters, of at most 2000"),
        ("age < 1\0", "--where"),
        ("", "--where"),
        ("age < ", "--where"),
        ("`age", "--where"),
    ],
)
def test_what_is_no_condition_on_columns_is_refused_in_a_line(text, words):
    with pytest.raises(InputError, match=words):
        Condition(text, TABLE, PATH).truth()


def test_a_value_that_nobody_has_is_told():
    condition = Condition("site == 'nyu' or site in ('SBL',)", TABLE, PATH)
    condition.truth()
    assert condition.notes == ["--where: nobody's site is nyu; it is NYU, SBL, USM."]


NUMBERS = st.sampled_from(["age", "fd", "sex", "3", "0.2", "-1", "18"])
PAIRS = st.tuples(
    st.sampled_from(["age", "fd", "sex"]), st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), NUMBERS
).map(" ".join)
TEXTS = st.sampled_from(["site == 'NYU'", "site in ('SBL', 'USM')", "site != 'USM'", "site > 'P'"])
CONDITIONS = st.recursive(
    PAIRS | TEXTS,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda parts: f"({' '.join(parts)})")
        | inner.map("(not {})".format)
    ),
    max_leaves=5,
)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(CONDITIONS)
def test_conditions_against_python(text):
    """A row is YES or NO only where Python says so for each of a few values in place of the missing ones."""
    names, found = ["age", "fd", "sex", "site"], Condition(text, TABLE, PATH).truth()
    for row, value in zip(TABLE[names].replace("-9999", "").to_dict("records"), found, strict=True):
        said = set()
        for number, word in [(-5.0, "A"), (0.15, "NYU"), (2.0, "Q"), (40.0, "Z")]:
            filled = {name: text or word if name == "site" else float(text or number) for name, text in row.items()}
            said.add(YES if eval(text, {}, filled) else NO)  # noqa: S307
        assert value in said if all(row.values()) else (value == UNKNOWN or said == {value})


def test_people_to_exclude_by_id_or_by_file(tmp_path):
    assert excluded("sub-007, 51456.0") == {"7": "sub-007", "51456": "51456.0"}
    (tmp_path / "bad.txt").write_text("\ufeff0050003\r\n\n 12 \n")
    assert excluded(str(tmp_path / "bad.txt")) == {"50003": "0050003", "12": "12"}
    (tmp_path / "table.csv").write_text("id,age\n1,12\n")
    with pytest.raises(InputError, match=r"has the line 'id,age'; expected one ID a line and nothing else"):
        excluded(str(tmp_path / "table.csv"))
    for absent in ("absent.txt", "some/where", str(tmp_path / "no")):
        with pytest.raises(InputError, match="is no file; expected a file with one ID a line, or IDs as in A,B"):
            excluded(absent)
    (tmp_path / "latin").write_bytes(b"\xe9\xff")
    with pytest.raises(InputError, match="cannot be read"):
        excluded(str(tmp_path / "latin"))


def test_conditions_hold_for_no_rows_at_all():
    assert Condition("age < 18 and site == 'NYU'", TABLE.iloc[:0], PATH).truth().shape == (0,)
    np.testing.assert_array_equal(Condition("age < 18", TABLE.assign(age=""), PATH).truth(), UNKNOWN)
