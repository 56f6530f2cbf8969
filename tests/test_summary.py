"""What a blackout says in words: which regions are significant, and whether the network is better than chance."""

import numpy as np
import pandas as pd

from utils.blackout.summary import accuracy_sentence, beats_chance, evidence_sentence


def regions(reliance, unique):
    """The columns of the table that the sentence rests on, given (name, p) of each region."""
    names, p_reliance = zip(*reliance, strict=True)
    return pd.DataFrame({"name": names, "p_reliance": p_reliance, "p_unique": [p for _, p in unique]})


AUC = {"value": 0.8, "low": 0.7, "high": 0.9}


def test_the_summary_says_what_is_significant_and_names_few():
    p = {"one": 0.04, "two": 0.01, "three": 0.05}

    def said(reliance, unique, subjects=20):
        return evidence_sentence(regions(reliance.items(), unique.items()), np.arange(subjects) % 2)

    assert said(p, dict.fromkeys(p, 0.2) | {"two": 0.01}) == (
        "The network's evidence rests on 2 (one, two) of 3 regions (reliance, family-wise p < 0.05); 1 (two) says what "
        "the rest of the brain does not (unique)."
    )
    assert "none is shown to say what the rest" in said(p, dict.fromkeys(p, 0.2))
    many = dict.fromkeys(map(str, range(6)), 0.01)
    assert "rests on 6 of 6 regions" in said(many, many)
    assert said({"one": 0.05}, {"one": 0.9}).startswith("None of 1 regions is significant at family-wise p < 0.05")
    assert said({"one": np.nan}, {"one": np.nan}) == "No p-values: the subjects are of one class."
    assert said({"one": 0.125}, {"one": 0.2}, subjects=4) == "4 subjects are too few for family-wise p < 0.05."
    twice = [("same", 0.01), ("same", 0.9)]
    assert "rests on 1 (same) of 2 regions" in evidence_sentence(regions(twice, twice), np.arange(20) % 2)
    assert evidence_sentence(regions(twice, twice), np.arange(20) % 4 == 0).endswith(
        "Only 25% are of one class: where effects are skewed, p is too small."
    )


def test_the_summary_says_chance_and_what_is_unknown():
    assert accuracy_sentence(AUC, "AUC") == "AUC on these subjects 0.80 (0.70 to 0.90)." and beats_chance(AUC)
    poor = {"value": 0.55, "low": 0.4, "high": 0.7}
    assert "0.55 (0.40 to 0.70): the network is not better than chance" in accuracy_sentence(poor, "AUC within folds")
    assert beats_chance(poor) is False
    alone = {"value": 1.0, "low": None, "high": None}
    assert "1.00, without an interval: whether the network is better" in accuracy_sentence(alone, "AUC")
    assert beats_chance(alone) is None
    assert "undefined, since they are of one class" in accuracy_sentence({"value": None, "low": None}, "AUC")
