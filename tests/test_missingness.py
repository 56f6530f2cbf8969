"""How much of a score is what is missing: missingness is masked, and the scores follow from that."""

import lab as labs
import numpy as np
import pandas as pd
import pytest
from commands import done, read_manifest
from oracles import average_group_auc

pytestmark = pytest.mark.slow
MASKED, LOGISTIC = "missingness_masked", "missingness, logistic regression"
NAMES = ["handedness_unknown", "handedness_score_missing", "fiq_missing", "viq_missing", "piq_missing", "bmi_missing"]
TESTS = ["iq_test_wasi", "iq_test_wisc", "iq_test_wais", "iq_test_other"]


def test_the_network_is_told_marks_of_missing_values_as_of_most_training_people(nn_on_folds, converted):
    """Nothing else: so who has the usual marks and the usual test has the same output, and others another one."""
    predicted = pd.read_csv(nn_on_folds / "test/predictions.csv", dtype={"subject": str}).set_index("file")
    raw = pd.read_csv(converted / "phenotype.csv", dtype={"subject": str}).set_index("subject")
    told = pd.Series(False, predicted.index)
    for fold, own in predicted.groupby("fold"):
        training, here = raw.loc[predicted[predicted["fold"] != fold]["subject"]], raw.loc[own["subject"]]
        marks = (here[NAMES] == training[NAMES].mode().iloc[0]).all(axis=1)
        taken, its = (of[TESTS].idxmax(axis=1).where(of[TESTS].any(axis=1), "none") for of in (training, here))
        told[own.index] = (marks & (its == taken.mode()[0])).to_numpy()
    same = np.isclose(predicted[MASKED], predicted["probability"], atol=1e-6)
    assert same.tolist() == told.tolist() and 0 < same.sum() < 40


@pytest.mark.parametrize("rung", ["on_folds", "nn_on_folds"])
def test_scores_where_it_is_masked_are_those_of_the_predictions(rung, request):
    folder = request.getfixturevalue(rung) / "test"
    rows, confounds = (pd.read_csv(folder / f"{name}.csv", index_col=0) for name in ("baselines", "confounds"))
    predicted, baselines = (pd.read_csv(folder / f"{name}.csv") for name in ("predictions", "baseline_predictions"))
    each = [predicted.assign(probability=of) for of in (predicted[MASKED], baselines[LOGISTIC])]
    masked, logistic = (average_group_auc(table, "site") for table in each)
    assert rows.loc[LOGISTIC, "auc_sites"] == pytest.approx(logistic)
    expected = [masked, average_group_auc(predicted, "site") - masked]
    assert confounds.loc[["masked", "minus_masked"], "value"].tolist() == pytest.approx(expected, abs=1e-6)
    told = read_manifest(folder)["conclusion"]
    assert [told[name]["value"] for name in ("masked", "minus_masked")] == pytest.approx(expected, abs=1e-6)
    assert sum(told["others"].values()) == len({*rows.index} - {"majority"}) - 1  # beside the pre-specified one


def test_what_separates_the_labels_is_not_said_of_few_people(tmp_path):
    people = labs.people()
    people["DX_GROUP"] = ["1" if at % 7 == 0 else "2" for at in range(len(people))]
    labs.pcp(tmp_path / "lab", people)
    printed = done("abide-data convert {lab} {to} --grid reduced --dryRun", lab=tmp_path / "lab", to=tmp_path / "new")
    assert "whether a value separates the training labels is not known, since 5 training" in printed
