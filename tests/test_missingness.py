"""How much of a score is what is missing: the values that are told alike, the baseline that reads them, what is
said."""

import lab as labs
import numpy as np
import pandas as pd
import pytest
from commands import done, record_of
from oracles import within

pytestmark = pytest.mark.slow
ALIKE, LOGISTIC = "model, missing values alike", "missingness, logistic regression"
NAMES = ["handedness_unknown", "handedness_score_missing", "fiq_missing", "viq_missing", "piq_missing", "bmi_missing"]
TESTS = ["iq_test_wasi", "iq_test_wisc", "iq_test_wais", "iq_test_other"]


def test_the_network_is_told_marks_of_missing_values_as_of_most_training_people(nn_on_folds, converted):
    """Nothing else: so who has the usual marks and the usual test has the same output, and others another one."""
    predicted = pd.read_csv(nn_on_folds / "test/predictions.csv", dtype={"subject": str}).set_index("file")
    alike = pd.read_csv(nn_on_folds / "test/baseline_predictions.csv").set_index("file")[ALIKE].loc[predicted.index]
    raw = pd.read_csv(converted / "phenotype.csv", dtype={"subject": str}).set_index("subject")
    told = pd.Series(False, predicted.index)
    for fold, own in predicted.groupby("fold"):
        training, here = raw.loc[predicted[predicted["fold"] != fold]["subject"]], raw.loc[own["subject"]]
        marks = (here[NAMES] == training[NAMES].mode().iloc[0]).all(axis=1)
        taken, its = (of[TESTS].idxmax(axis=1).where(of[TESTS].any(axis=1), "none") for of in (training, here))
        told[own.index] = (marks & (its == taken.mode()[0])).to_numpy()
    same = np.isclose(alike, predicted["probability"], atol=1e-6)
    assert same.tolist() == told.tolist() and 0 < same.sum() < 40


@pytest.mark.parametrize("rung", ["on_folds", "nn_on_folds"])
def test_what_is_said_of_it_is_what_the_tables_hold(rung, request):
    folder = request.getfixturevalue(rung) / "test"
    rows = pd.read_csv(folder / "baselines.csv").set_index("baseline")
    predicted, baselines = (pd.read_csv(folder / f"{name}.csv") for name in ("predictions", "baseline_predictions"))
    each = [predicted.assign(probability=baselines[name]) for name in (ALIKE, LOGISTIC)]
    areas = [within(table, "site") for table in each]
    assert rows.loc[[ALIKE, LOGISTIC], "auc_sites"].tolist() == pytest.approx(areas)
    said = record_of(folder)["conclusion"]
    less = rows.loc[ALIKE, "model_minus_baseline_auc_sites"]
    assert less == pytest.approx(within(predicted, "site") - areas[0], abs=1e-6)
    assert f"score minus this is {less:.2f}" in said and f"on these values alone has {areas[1]:.2f}" in said
    others = set(rows.index) - {"model", "majority", ALIKE}
    assert f"Of {len(others) - 1} other baselines" in said  # beside the one that is named


def test_what_separates_the_labels_is_not_said_of_few_people(tmp_path):
    people = labs.people()
    people["DX_GROUP"] = ["1" if at % 7 == 0 else "2" for at in range(len(people))]
    labs.pcp(tmp_path / "lab", people)
    printed = done("abide-data convert {lab} {to} --grid reduced --dryRun", lab=tmp_path / "lab", to=tmp_path / "new")
    assert "Phenotype: whether a value separates the training labels is not known, since 5 training" in printed
