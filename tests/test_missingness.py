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


def test_marks_on_missing_values_are_masked_as_for_most_training_people(nn_on_folds, converted):
    """Nothing else: so who has the usual marks and the usual test has the same output, and others another one."""
    predicted = pd.read_csv(nn_on_folds / "test/predictions.csv", dtype={"subject": str}).set_index("file")
    raw = pd.read_csv(converted / "phenotype.csv", dtype={"subject": str}).set_index("subject")
    is_usual = pd.Series(False, predicted.index)
    for fold, fold_rows in predicted.groupby("fold"):
        training, fold_phenotype = (
            raw.loc[predicted[predicted["fold"] != fold]["subject"]],
            raw.loc[fold_rows["subject"]],
        )
        marks = (fold_phenotype[NAMES] == training[NAMES].mode().iloc[0]).all(axis=1)
        training_tests, fold_tests = (
            phenotype_rows[TESTS].idxmax(axis=1).where(phenotype_rows[TESTS].any(axis=1), "none")
            for phenotype_rows in (training, fold_phenotype)
        )
        is_usual[fold_rows.index] = (marks & (fold_tests == training_tests.mode()[0])).to_numpy()
    same = np.isclose(predicted[MASKED], predicted["probability"], atol=1e-6)
    assert same.tolist() == is_usual.tolist() and 0 < same.sum() < 40


@pytest.mark.parametrize("rung", ["on_folds", "nn_on_folds"])
def test_scores_with_missingness_masked_follow_from_the_predictions(rung, request):
    folder = request.getfixturevalue(rung) / "test"
    rows, confounds = (pd.read_csv(folder / f"{name}.csv", index_col=0) for name in ("baselines", "confounds"))
    predicted, baselines = (pd.read_csv(folder / f"{name}.csv") for name in ("predictions", "baseline_predictions"))
    variant_tables = [
        predicted.assign(probability=variant_probability)
        for variant_probability in (predicted[MASKED], baselines[LOGISTIC])
    ]
    masked, logistic = (average_group_auc(table, "site") for table in variant_tables)
    assert rows.loc[LOGISTIC, "auc_sites"] == pytest.approx(logistic)
    expected = [masked, average_group_auc(predicted, "site") - masked]
    assert confounds.loc[["masked", "minus_masked"], "value"].tolist() == pytest.approx(expected, abs=1e-6)
    conclusion = read_manifest(folder)["conclusion"]
    assert [conclusion[name]["value"] for name in ("masked", "minus_masked")] == pytest.approx(expected, abs=1e-6)
    assert sum(conclusion["others"].values()) == len({*rows.index} - {"majority"}) - 1  # beside the pre-specified one


def test_separating_values_are_not_reported_for_few_people(tmp_path):
    people = labs.people()
    people["DX_GROUP"] = ["1" if person_index % 7 == 0 else "2" for person_index in range(len(people))]
    labs.pcp(tmp_path / "lab", people)
    printed = done("abide-data convert {lab} {to} --grid reduced --dryRun", lab=tmp_path / "lab", to=tmp_path / "new")
    assert "whether a value separates the training labels is not known, since 5 training" in printed
