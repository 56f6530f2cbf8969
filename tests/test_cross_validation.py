"""What a test on folds says of a model of everybody: the numbers of its own tables, by other means than ours."""

import json
import shutil
from dataclasses import asdict, replace

import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from data.base.errors import InputError
from utils.report.cross_validation import read_cross_validation
from utils.report.cross_validation import settled as settled_by
from utils.report.tables import read_test
from utils.runs.cross_validation import CrossValidation
from utils.scores import calibration


@pytest.fixture(scope="module")
def found(settled) -> CrossValidation:
    return read_cross_validation(settled / "test-folds", "nn")


@pytest.fixture(scope="module")
def predictions(settled) -> pd.DataFrame:
    return pd.read_csv(settled / "test-folds" / "predictions.csv", dtype={"subject": str})


@pytest.mark.slow
def test_its_scores_are_those_of_the_predictions(found, predictions):
    assert found.subjects == len(predictions) == 40
    assert found.scores["auc"][0] == pytest.approx(roc_auc_score(predictions["label"], predictions["probability"]))
    low, high = found.scores["auc"][1:]
    assert low <= found.scores["auc"][0] <= high
    assert found.headline in found.scores


@pytest.mark.slow
def test_groups_are_those_with_ten_people_of_each_class(found, predictions):
    """Of three sites of 13 or 14 people none has; sexes may."""
    for group in found.groups:
        assert min(group.autism, group.control) >= 10
    sites = predictions.groupby("site")["label"].agg(["sum", "count"])
    enough = sites[(sites["sum"] >= 10) & (sites["count"] - sites["sum"] >= 10)]
    assert [group.group for group in found.groups if group.kind == "site"] == enough.index.tolist()


@pytest.mark.slow
def test_it_says_how_people_were_cut(found):
    text = str(found)
    assert text.endswith(f" in 3 folds, 40 people{found.marks}")
    assert not found.by_left_out_groups
    by_site = str(replace(found, folds="SITE_ID", headline="auc", headline_name="AUC", scores={"auc": (None,) * 3}))
    assert by_site == f"AUC undefined leaving out one SITE_ID at a time, 40 people{found.marks}"


@pytest.mark.slow
def test_the_calibration_is_that_of_the_folds(found, predictions):
    label, group = predictions["label"].to_numpy(), predictions["fold"].to_numpy()
    expected = calibration.fit(label, predictions["probability"].to_numpy(), group, "3")
    assert found.calibration == asdict(expected)
    assert (expected.control, expected.autism, expected.groups) == (20, 20, 3)


@pytest.mark.slow
def test_nothing_of_a_person_is_in_it(found, predictions):
    text = json.dumps(found.__dict__, default=lambda one: one.__dict__)
    assert not [subject for subject in predictions["subject"] if subject in text]
    own = {f"{value:.6g}" for value in predictions["probability"]}
    assert not [number for number in own if number in text]


@pytest.mark.slow
def test_of_a_choice_it_is_who_was_chosen_most_often(settled, found):
    run = read_test(settled / "test-folds").run
    assert settled_by(run, {}) == ({"preset": run.preset, "config": run.config}, {})
    described = {"candidates": {"a": {"preset": "sine", "config": {"l2": 1.0}}, "b": {"preset": "sine"}}}
    choice = type("Choice", (), {"chosen": {"b": 2, "a": 3}})()
    chosen, counts = settled_by(replace(run, choice=choice), described)
    assert (chosen, counts) == (described["candidates"]["a"], {"b": 2, "a": 3})
    assert replace(found, chosen=counts).choice == "Settings: those of a, which was chosen in 3 of 5 folds."
    assert replace(found, chosen={"a": 2, "b": 2}).choice.endswith("in 2 of 4 folds, as often as another.")
    assert found.choice == ""


def without_labels(folder) -> None:
    table = pd.read_csv(folder / "predictions.csv", dtype=str).assign(label="")
    table.to_csv(folder / "predictions.csv", index=False)


@pytest.mark.slow
def test_what_is_no_whole_test_on_folds_is_refused(settled, tmp_path):
    folder = shutil.copytree(settled / "test-folds", tmp_path / "test")
    with pytest.raises(InputError, match="is of model nn, this run of mmnn; expected the folder of a finished"):
        read_cross_validation(folder, "mmnn")
    without_labels(folder)
    with pytest.raises(InputError, match=r"predictions\.csv is not as it was written"):
        read_cross_validation(folder, "nn")
    with pytest.raises(InputError, match="test"):
        read_cross_validation(settled / "train-folds", "nn")
    with pytest.raises(InputError, match="nowhere"):
        read_cross_validation(tmp_path / "nowhere", "nn")
