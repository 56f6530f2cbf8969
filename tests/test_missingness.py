"""Missing values that tell the label within a site: against ABIDE's SBL, and against chance."""

import math

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from data.cohorts.missingness import MISSING_P_VALUE, missing_by_label

NAN = math.nan


def sbl(lacking_controls: int = 13, lacking_autism: int = 2) -> tuple[pd.DataFrame, np.ndarray, list[str]]:
    """13 controls and 13 people with autism of the site SBL, as many at NYU who lack nothing."""
    label = np.array([0.0] * 13 + [1.0] * 13)
    viq = np.where(np.arange(26) % 13 < np.where(label == 1, lacking_autism, lacking_controls), NAN, 100.0)
    both = pd.DataFrame({"age": 12.0, "viq": [*viq, *[90.0] * 26]})
    both = both.assign(piq=both["viq"], viq_missing=both["viq"].isna().astype(float))
    return both, np.tile(label, 2), ["SBL"] * 26 + ["NYU"] * 26


def test_what_is_missing_in_one_class_of_a_site_is_told():
    assert missing_by_label(*sbl()) == [
        "viq, piq missing in 13 of 13 controls and 2 of 13 people with autism at SBL (p = 2e-05)"
    ]
    assert missing_by_label(*sbl(2, 13))[0].startswith("viq, piq missing in 2 of 13 controls and 13 of 13 people with")


def test_a_gap_is_seen_in_the_value_that_only_says_so_and_in_text():
    values, label, site = sbl()
    assert missing_by_label(values[["viq_missing"]], label, site)[0].startswith("viq missing in 13 of 13")
    hand = pd.DataFrame({"hand": values["viq"].map(lambda value: "R" if value == value else None)})
    assert missing_by_label(hand, label, site)[0].startswith("hand missing in 13 of 13")


def test_gaps_that_both_classes_have_and_unknown_labels_are_not_told():
    assert missing_by_label(*sbl(13, 13)) == missing_by_label(*sbl(0, 0)) == missing_by_label(*sbl(5, 2)) == []
    values, label, site = sbl()
    assert missing_by_label(values, np.full(52, NAN), site) == missing_by_label(values.iloc[:0], label[:0], []) == []


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 30), st.integers(0, 30))
def test_told_if_and_only_if_chance_does_not_explain_it(controls, autism):
    """By the sum of the probabilities of all tables that are no likelier, with the same margins."""
    label = np.array([0.0, 1.0] * 30)
    number = np.arange(60) // 2
    values = pd.DataFrame({"iq": np.where(number < np.where(label == 1, autism, controls), NAN, 1.0)})
    chances = hypergeom.pmf(np.arange(31), 60, controls + autism, 30)
    p_value = chances[chances <= chances[controls] * (1 + 1e-9)].sum()
    assert bool(missing_by_label(values, label, ["A"] * 60)) == (p_value < MISSING_P_VALUE)
