"""Means over repeats by hand, whatever order the records are in; floors that are the same are fitted once."""

from dataclasses import replace

import pandas as pd
import pytest
from helpers import cohort_of

from data.cohorts.rows import Row
from utils.evaluation import repeats
from utils.evaluation.repeats import mean_of, predicted_by_floors

ONE = pd.DataFrame({"file": ["a", "b"], "label": [1, 0], "probability": [0.2, 0.6], "fold": ["0", "1"], "x": [1, 1]})
OTHER = pd.DataFrame({"file": ["b", "a"], "label": [0, 1], "probability": [0.8, 0.1], "fold": ["1", "0"]})


def test_records_are_found_by_their_file():
    mean = mean_of([ONE, OTHER])
    assert list(mean) == ["file", "label", "probability", "fold"]  # not what only one of them has
    assert mean["file"].tolist() == ["a", "b"] and mean["label"].tolist() == [1, 0]
    assert mean["probability"].tolist() == pytest.approx([0.15, 0.7])


def test_a_fold_that_differs_is_no_column():
    assert "fold" in mean_of([ONE, OTHER])
    assert "fold" not in mean_of([ONE, OTHER.assign(fold=["0", "0"])])


def test_what_is_not_known_in_one_repeat_is_not_known():
    assert mean_of([ONE, OTHER.assign(probability=[0.8, None])])["probability"].isna().tolist() == [True, False]


def test_floors_are_fitted_once_unless_labels_or_volumes_differ(monkeypatch):
    fitted = []
    monkeypatch.setattr(repeats, "fitted", {})
    monkeypatch.setattr("utils.scores.floors.predict", lambda cohort, _: fitted.append(cohort) or ONE)
    cohort = cohort_of(Row("a.bin", "a", "", 1.0, "train"))
    others = [replace(cohort, standard="voxel"), replace(cohort, rows=(replace(cohort.rows[0], label=0.0),))]
    for of in (cohort, replace(cohort), *others):
        assert predicted_by_floors(of) is ONE
    assert fitted == [cohort, *others]
