"""Covariates as floors and confounds take them."""

import numpy as np
import pandas as pd
import pytest

from data.base.errors import InputError
from utils.scores.features import covariates


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
