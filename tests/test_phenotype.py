"""The 29 phenotype values: each against a reading by hand; nothing that leaks the diagnosis; scaling as in SciPy."""

import math

import numpy as np
import pandas as pd
import pytest
from helpers import BY_HAND, PCP_COLUMNS, PCP_ROWS
from hypothesis import given, settings
from hypothesis import strategies as st

from data import phenotype
from data.errors import InputError

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
