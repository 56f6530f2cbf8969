"""The 29 phenotype values: each against a reading by hand; nothing that leaks the diagnosis; scaling as in SciPy."""

import math

import numpy as np
import pandas as pd
import pytest
from helpers import BY_HAND, PCP_COLUMNS, PCP_ROWS
from hypothesis import given, settings
from hypothesis import strategies as st

from data.base.errors import InputError
from data.cohorts import phenotype

NAN = math.nan
LEAKING = {
    "ADOS_MODULE": "3",
    "ADOS_TOTAL": "14",
    "ADI_R_SOCIAL_TOTAL_A": "20",
    "SRS_RAW_TOTAL": "99",
    "SCQ_TOTAL": "",
    "AQ_TOTAL": "-9999",
    "VINELAND_ABC_STANDARD": "80",
    "DSM_IV_TR": "1",
    "CURRENT_MED_STATUS": "1",
    "COMORBIDITY": "ADHD",
    "DX_GROUP": "1",
}


def table(**changes) -> pd.DataFrame:
    """The six rows of `PCP_ROWS`, with columns replaced or added."""
    return pd.DataFrame(PCP_ROWS, columns=PCP_COLUMNS).assign(**changes)


def test_every_value_against_a_reading_by_hand():
    values = phenotype.abide_values(table())
    assert values.shape == (6, 29)
    for row, expected in zip(values.to_numpy(), BY_HAND, strict=True):
        np.testing.assert_array_equal(row, expected)


def test_columns_that_leak_the_diagnosis_change_nothing():
    assert phenotype.abide_values(table(**LEAKING)).equals(phenotype.abide_values(table()))
    words = ("ados", "adi", "srs", "scq", "aq", "vineland", "dsm", "med", "comorb", "dx")
    names = phenotype.abide_values(table()).columns
    assert not [name for name in names if any(name.startswith(word) for word in words)]
    assert names.is_unique


@pytest.mark.parametrize("missing", ["", "-9999", "`", " -9999 "])
@pytest.mark.parametrize("column, place", [("FIQ", 8), ("BMI", 28), ("AGE_AT_SCAN", 0), ("HANDEDNESS_SCORES", 7)])
def test_missing_values_are_unknown_not_numbers(missing, column, place):
    assert phenotype.abide_values(table(**{column: missing})).iloc[:, place].isna().all()


def test_text_in_a_column_of_numbers_is_refused():
    with pytest.raises(InputError, match="Column FIQ holds 'high'; expected numbers"):
        phenotype.abide_values(table(FIQ="high"))


@pytest.mark.parametrize(
    "missing",
    ["NA", "#N/A", "n/a", "nan", "NaN", ".", "-", "--", "", " ", "-9999", "-9999.0", "-999", "`", "NULL", "?"],
)
def test_marks_of_missing_values(missing):
    """In numbers, ABIDE's and one's own, and in text."""
    assert phenotype.abide_values(table(FIQ=missing))["fiq"].isna().all()
    own = pd.DataFrame({"iq": ["100", missing, "98"], "hand": ["R", "L", missing]})
    values = phenotype.custom_values(own, ["iq", "hand"], np.ones(3, bool))
    assert values.columns.tolist()[:4] == ["iq", "iq_missing", "hand_L", "hand_R"]
    np.testing.assert_array_equal(values["iq"], [100, NAN, 98])
    np.testing.assert_array_equal(values[["hand_L", "hand_R"]], [[0, 1], [1, 0], [0, 0]])


@pytest.mark.parametrize("odd", [">18", "3,5", "~40", "12 y", "1.234,5", "x", "unknown", "inf"])
def test_what_is_no_number_among_numbers_is_refused_by_name(odd):
    words = rf"Column age holds '{odd}'; expected numbers, or nothing where unknown, but 2 of 5 values are none"
    own = pd.DataFrame({"age": ["12", odd, "9", "", "20.5", odd]})
    with pytest.raises(InputError, match=words):
        phenotype.custom_values(own, ["age"], np.ones(6, bool))
    with pytest.raises(InputError, match=words.replace("age", "AGE_AT_SCAN").replace("5 values", "6 values")):
        phenotype.abide_values(table(AGE_AT_SCAN=["12", odd, "9", "11", "20.5", odd]))


@pytest.mark.parametrize("values", [["3,5", "4,5", "5,0"], [">18", "<12", "13"], ["1,234.5", "2,000", "7"]])
def test_numbers_in_another_writing_do_not_become_categories(values):
    with pytest.raises(InputError, match=r"Column age holds .*; write decimals with a point"):
        phenotype.custom_values(pd.DataFrame({"age": values}), ["age"], np.ones(3, bool))


def test_text_with_some_numbers_is_text():
    own = pd.DataFrame({"scanner": ["A", "B", "3", "A"], "scanner_x": ["1", "2", "3", ""]})
    every = np.ones(4, bool)
    assert phenotype.categories(own, ["scanner", "scanner_x"], every) == {"scanner": ("3", "A", "B")}
    values = phenotype.custom_values(own, ["scanner", "scanner_x"], every)
    assert values.columns[:6].tolist() == [
        *("scanner_3", "scanner_A", "scanner_B", "scanner_x", "scanner_x_missing", "unused_6")
    ]


@pytest.mark.parametrize("column, odd", [("SEX", "0"), ("HANDEDNESS_CATEGORY", "Right"), ("EYE_STATUS_AT_SCAN", "3")])
def test_codes_that_abide_does_not_have_are_refused(column, odd):
    with pytest.raises(InputError, match=rf"Column {column} holds '?{odd}.*; expected .* but 6 of 6 values are others"):
        phenotype.abide_values(table(**{column: odd}))


def test_a_missing_column_is_named():
    with pytest.raises(InputError, match="lacks FIQ, BMI"):
        phenotype.abide_values(table().drop(columns=["FIQ", "BMI"]))


@settings(max_examples=25)
@given(
    st.lists(
        st.lists(st.one_of(st.just(NAN), st.integers(-1000, 1000)), min_size=3, max_size=3), min_size=1, max_size=9
    )
)
def test_scaling_is_median_imputation_then_z_scores(rows):
    training = np.array(rows, float)
    training[:, 2] = NAN  # a column that nobody has
    expected = training.copy()
    for column in expected.T:
        known = column[~np.isnan(column)]
        column[np.isnan(column)] = np.median(known) if known.size else 0.0
    spread = expected.std(0)
    scaled = phenotype.fit_scaler(training).transform(training)
    constant = spread < 1e-9
    np.testing.assert_allclose(
        scaled[:, ~constant], ((expected - expected.mean(0)) / np.where(constant, 1, spread))[:, ~constant], atol=1e-6
    )
    assert (np.abs(scaled[:, constant]) < 1e-5).all()
    assert (scaled[:, 2] == 0).all()
