"""What a blackout says in words: which regions are significant beside what, and if there is anything to explain."""

import numpy as np
import pandas as pd
import pytest

from utils.blackout.adjustment import Adjustment
from utils.blackout.effects import SUPPRESSOR
from utils.blackout.summary import accuracy_sentence, beats_chance, evidence_sentence
from utils.scores.results import UNDEFINED, Estimate

AUC = Estimate(0.8, 0.7, 0.9)
POOR = Estimate(0.55, 0.4, 0.7)
REVERSED = Estimate(0.3, 0.2, 0.45)
HALF = np.arange(20) % 2
BESIDE = ("site", "age", "log mean_fd")


def said(reliance, unique=None, plain=None, label=HALF, **more):
    """The sentences on regions, given p by name, p before adjustment, and the labels; `more` is of the Adjustment."""
    unique, plain = unique or dict.fromkeys(reliance, 0.9), plain or reliance
    columns = {"name": reliance, "p_reliance": reliance.values(), "p_reliance_plain": plain.values()}
    columns |= dict.fromkeys(("p_unique", "p_unique_plain"), unique.values())
    table = pd.DataFrame({name: list(values) for name, values in columns.items()})
    alone = (table["p_unique"] < 0.05) & (table["p_reliance"] >= 0.05)
    return evidence_sentence(
        table.assign(remark=np.where(alone, SUPPRESSOR, "")),
        Adjustment(pd.DataFrame(columns=BESIDE), label, **{"reason": "no covariates are known"} | more),
    )


P = {"one": 0.04, "two": 0.01, "three": 0.05}


def test_the_summary_says_what_is_significant_and_names_few():
    assert said(P, dict.fromkeys(P, 0.2) | {"two": 0.01}) == (
        "The network's evidence rests on 2 (one, two) of 3 regions (reliance, family-wise p < 0.05); 1 (two) says what "
        "the rest of the brain does not (unique). Not adjusted for covariates: no covariates are known."
    )
    assert "none is shown to say what the rest" in said(P)
    many = dict.fromkeys(map(str, range(6)), 0.01)
    assert "rests on 6 of 6 regions" in said(many, many) and "6 say what" in said(many, many)
    assert said({"one": 0.05}).startswith("None of 1 regions is significant at family-wise p < 0.05: nothing here says")
    assert "rests on" not in said({"one": 0.05})


def test_the_summary_says_beside_what_and_how_many_were_significant_before():
    everything = dict.fromkeys(P, 0.01)
    found = said(P, plain=everything, reason="")
    assert found == (
        "The network's evidence beside site, age and log mean_fd rests on 2 (one, two) of 3 regions (reliance, "
        "family-wise p < 0.05; 3 before adjustment); none is shown to say what the rest of the brain does not (unique; "
        "0 before adjustment). Adjusted for what is measured only."
    )
    assert said(dict.fromkeys(P, 0.2), plain=everything, reason="").startswith(
        "None of 3 regions is significant beside site, age and log mean_fd at family-wise p < 0.05 (3 in reliance and "
        "0 in unique before adjustment): nothing here says where autism is."
    )
    assert "measured only, without sex (known of too few, " in said(P, reason="", without=("sex",))
    assert "before adjustment" not in said(P) and "beside" not in said(P)


def test_unique_without_reliance_is_possibly_a_suppressor():
    unique = {"one": 0.01, "two": 0.9, "three": 0.01}
    assert "Unique without reliance: 1 (three), possibly a suppressor: " in said(P, unique)
    assert "2 (two, three), possibly suppressors: " in said(P | {"two": 0.5}, dict.fromkeys(P, 0.01))
    assert "suppressor" not in said(P, {"one": 0.01, "two": 0.9, "three": 0.9})


def test_one_class_or_few_people_of_one_name_no_region():
    assert said(P, label=np.ones(20)) == "No p-values: the subjects are of one class."
    few = "Nothing is concluded about regions: 9 subjects of one class, which takes 10 of each."
    assert said(P, label=np.arange(40) < 9) == few
    assert "rests on" in said(P, label=np.arange(40) < 10)


def test_unequal_classes_are_said_where_nothing_is_adjusted():
    unequal = " Only 25% are of one class: where effects are skewed, p is too small."
    assert said(P, label=np.arange(40) % 4 == 0).endswith(unequal)
    assert "of one class" not in said(P, label=np.arange(40) % 4 == 0, reason="") + said(P)


def test_one_name_of_two_regions_counts_once_each():
    table = pd.DataFrame({"name": ["same", "same"], "p_reliance": [0.01, 0.9], "p_unique": [0.9, 0.9], "remark": ""})
    table = table.assign(p_reliance_plain=0.9, p_unique_plain=0.9)
    found = evidence_sentence(table, Adjustment(pd.DataFrame(), np.arange(20) % 2, reason="none"))
    assert "rests on 1 (same) of 2 regions" in found


@pytest.mark.parametrize(
    "auc, better, words",
    [
        (AUC, True, "0.80 (0.70 to 0.90)."),
        (POOR, False, "0.55 (0.40 to 0.70): the network is not shown to be better than chance, so there is nothing"),
        (REVERSED, False, "0.30 (0.20 to 0.45): the network ranks them the wrong way round, so there is nothing for"),
        (Estimate(1.0, None, None), None, "1.00, without an interval: whether the network is better than chance is"),
        (
            UNDEFINED,
            None,
            "is undefined, since all of them, or all of each site, are of one class: whether",
        ),
    ],
)
def test_the_summary_says_chance_and_what_is_unknown(auc, better, words):
    found = accuracy_sentence(auc, "AUC within folds")
    assert found.startswith("AUC within folds on these subjects ") and words in found
    assert beats_chance(auc) is better
    assert [part in found for part in ("nothing for the", "not known", "wrong way")] == [
        better is False, better is None, auc is REVERSED,
    ]  # fmt: skip
