"""Covariates as floors and confounds take them."""

import numpy as np
import pandas as pd
import pytest

from data.base.errors import InputError
from utils.scores.features import AGE, IQ, SEX, covariates, with_iq


def test_covariates_are_numbers_logarithms_and_categories():
    table = pd.DataFrame(
        {"age": ["9", "NA", "30"], "MeanFD_Jenkinson": ["0.5", "0", ""], "scanner": ["x", "y", "?"]}, index=list("abc")
    )
    found = covariates(["c", "a", "unheard of"], ["S", "S", "T"], table)
    assert found["site"].tolist() == ["S", "S", "T"]
    assert found["age"].tolist() == pytest.approx([30, 9, np.nan], nan_ok=True)
    assert found["log MeanFD_Jenkinson"].tolist() == pytest.approx([np.nan, np.log(0.5), np.nan], nan_ok=True)
    assert found["scanner"].fillna("unknown").tolist() == ["unknown", "x", "unknown"]
    assert covariates(["a"], ["S"], None).shape == (1, 0)
    table["age"] = ["9", "old", "30"]
    with pytest.raises(InputError, match="Column age holds 'old'"):
        covariates(["a"], ["S"], table)


def test_the_iq_of_the_phenotype_joins_the_covariates():
    table = pd.DataFrame({"age": ["9", "30"]}, index=["a", "b"])
    raw = pd.DataFrame({"fiq_missing": [0.0, 1.0], "fiq": [101.5, np.nan], "viq": [90.0, 91.0]}, index=["a", "b"])
    joined = with_iq(table, raw)
    assert list(joined) == ["age", "fiq"]
    assert covariates(["b", "a"], ["S", "S"], joined)["fiq"].tolist() == pytest.approx([np.nan, 101.5], nan_ok=True)
    own = table.assign(FSIQ=["1", "2"])
    assert with_iq(own, raw) is own and with_iq(None, raw) is None and with_iq(table, None) is table
    assert list(with_iq(table, raw.assign(fiq=np.nan))) == ["age"]


def test_age_sex_and_iq_are_known_by_their_names():
    names = [
        "AGE_AT_SCAN",
        "age",
        "Age (years)",
        "SEX",
        "gender",
        "FIQ",
        "full_scale_iq",
        "IQ",
        "image",
        "VIQ",
        "average",
    ]
    found = [[name for name in names if pattern.search(name)] for pattern in (AGE, SEX, IQ)]
    assert found == [names[:3], names[3:5], names[5:8]]
