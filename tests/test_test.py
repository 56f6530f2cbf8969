"""--test: predictions and metrics of the test subjects alone, recomputed here from what was written."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import without_figures
from helpers import SMALL_BATCH, TINY_CNN, an_identity, cohort_of, read_rows, resealed, row
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score

from data.base.errors import InputError
from data.cohorts import phenotype
from data.cohorts.stored import open_cohort
from models import MODELS, from_json
from utils.evaluation import comparisons
from utils.evaluation.autoencoders import ExplainedVariance
from utils.evaluation.comparisons import write_floors
from utils.report.tables import write_table
from utils.runs.checkpoints import CheckpointFolder
from utils.scores import floors
from utils.training.network import probability_of_autism, restore_weights

pytestmark = pytest.mark.usefixtures("undrawn")

METRICS = [
    "accuracy",
    "balanced_accuracy",
    "recall",
    "specificity",
    "precision",
    "f_score",
    "auc",
    "brier",
    "calibration_error",
]


@pytest.fixture(scope="module", params=["cnn", "mmnn", "nn"])
def tested(request, cli, cohort, tmp_path_factory):
    """A classifier trained for a few batches and tested: its name, its checkpoints and the test's folder."""
    folder, model = tmp_path_factory.mktemp("tested"), request.param
    where = ("--chkPointDir", folder / "ckpt", "--dataDir", cohort)
    tiny = SMALL_BATCH if model == "nn" else TINY_CNN + SMALL_BATCH
    assert cli("--train", "--model", model, "--numIters", 6, *tiny, *where, "--outDir", folder / "train").status == 0
    outcome = cli("--test", "--model", model, *where, "--outDir", folder / "test")
    assert outcome.status == 0, outcome.err
    return model, CheckpointFolder(folder / "ckpt" / model), folder / "test"


def independent_probability(model: str, checkpoints: CheckpointFolder, cohort) -> list[float]:
    """Of autism, one test record at a time."""
    opened, module = open_cohort(cohort), MODELS[model].module
    network = module.build(from_json(module.Config, checkpoints.identity().config), opened.grid)
    restore_weights(checkpoints, network)
    found = []
    for index in opened.indices("test"):
        _, values, volume = opened.read(index)
        inputs = {"volume": volume[None], "phenotype": values[None]}
        control, autism = network({name: inputs[name] for name in MODELS[model].reads}, training=False).numpy()[0]
        found.append(np.exp(autism) / (np.exp(control) + np.exp(autism)))
    return found


@pytest.mark.slow
def test_predictions_are_those_of_the_test_subjects(tested, cohort):
    model, checkpoints, folder = tested
    rows = read_rows(folder / "predictions.csv")
    assert list(rows[0]) == ["file", "subject", "site", "label", "probability"]
    expected = [row for row in read_rows(cohort / "subjects.csv") if row["split"] == "test"]
    assert [{name: row[name] for name in ("file", "subject", "site", "label")} for row in rows] == [
        {name: row[name] for name in ("file", "subject", "site", "label")} for row in expected
    ]
    found = [float(row["probability"]) for row in rows]
    assert found == pytest.approx(independent_probability(model, checkpoints, cohort), abs=1e-5)


@pytest.mark.slow
def test_metrics_follow_from_the_predictions(tested):
    _, checkpoints, folder = tested
    rows = read_rows(folder / "predictions.csv")
    label = np.array([int(row["label"]) for row in rows])
    probability = np.array([float(row["probability"]) for row in rows])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert list(metrics) == [*METRICS, "auc_sites"]
    assert all(metric.keys() == {"value", "low", "high"} for metric in metrics.values())
    assert metrics["accuracy"]["value"] == pytest.approx(accuracy_score(label, probability >= 0.5))
    assert metrics["recall"]["value"] == pytest.approx(recall_score(label, probability >= 0.5))
    assert metrics["auc"]["value"] == pytest.approx(roc_auc_score(label, probability))
    (row,) = read_rows(folder / "checkpoint_results.csv")
    assert list(row) == ["checkpoint", "accuracy", "recall", "precision", "f_score"]
    assert row["checkpoint"] == str(checkpoints.latest())
    assert float(row["accuracy"]) == pytest.approx(metrics["accuracy"]["value"], abs=1e-6)


@pytest.fixture(scope="module")
def results(trained, cohort, cli, undrawn, tmp_path_factory) -> Path:
    """The checkpoints of `trained`, in a folder whose name has a comma, and in `out` a test of them, with figures."""
    folder = tmp_path_factory.mktemp("results") / 'lab, "new"'
    shutil.copytree(trained, folder)
    undrawn.undo()
    outcome = cli(*command_of(folder, cohort))
    without_figures(undrawn)
    assert outcome.status == 0, outcome.err
    return folder


def command_of(folder: Path, cohort: Path) -> tuple:
    places = ("--chkPointDir", folder, "--dataDir", cohort, "--outDir", folder / "out")
    return ("--test", "--model", "cnn", *places)


@pytest.mark.slow
def test_figures_and_run_are_written(results):
    folder, checkpoints = results / "out", CheckpointFolder(results / "cnn")
    for name in ("confusion_matrix", "roc"):  # a forest needs a site with both classes among these four
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / f"{name}.svg").read_text().endswith("</svg>\n")
    assert json.loads((folder / "run.json").read_text())["checkpoint_sha256"] == checkpoints.digest()


@pytest.mark.slow
def test_the_run_says_how_the_data_were_prepared_and_who_the_people_are(tested, cohort):
    model, _, folder = tested
    raw = open_cohort(cohort).raw_phenotype.to_numpy()
    run = json.loads((folder / "run.json").read_text())
    assert run["prepared"] == {
        "normalisation": "z-scored over the whole volume",
        "reduction": "simulated",
        "standard": "" if model == "nn" else "stored",
        "connectome": "",
        "phenotype_columns": phenotype.ABIDE_COLUMNS,
        "num_phenotype": int((np.nanmin(raw, axis=0) < np.nanmax(raw, axis=0)).sum()),
        "derivation": "",  # the maps are simulated
        "scaled_by": "split",
        "same_scan": 0,
        "together": False,
        "families": 0,
        "family_column": "",
        "conversion": "",
    }
    assert run["floor_settings"] == floors.SETTINGS
    people, *others = read_rows(folder / "table1.csv")
    assert (people["variable"], int(people["autism_known"]) + int(people["control_known"])) == ("people", 40)
    assert {"AGE_AT_SCAN", "SEX", "func_mean_fd", "fiq"} <= {row["variable"] for row in others}


@pytest.mark.slow
def test_a_second_test_appends_its_row_and_keeps_the_first_results(cli, results, cohort, tmp_path):
    """A folder with a comma in its name is one cell; what an editor saved in another encoding is kept, too."""
    folder = shutil.copytree(results, tmp_path / results.name)
    command, table = command_of(folder, cohort), folder / "out" / "checkpoint_results.csv"
    first = (folder / "out" / "predictions.csv").read_bytes()
    outcome = cli(*command)
    assert "The earlier results in" in outcome.out
    rows = read_rows(table)
    assert [row["checkpoint"] for row in rows] == [
        str(CheckpointFolder(of / "cnn").latest()) for of in (results, folder)
    ]
    assert all(0 <= float(row["accuracy"]) <= 1 for row in rows)
    (earlier,) = (folder / "out" / "earlier").rglob("predictions.csv")
    assert earlier.read_bytes() == (folder / "out" / "predictions.csv").read_bytes() == first
    before = table.read_bytes() + "café,1,1,1,1\n".encode("latin-1")
    table.write_bytes(before)
    assert cli(*command).status == 0
    assert table.read_bytes().startswith(before) and len(table.read_bytes().splitlines()) == 5


@pytest.mark.slow
def test_test_subjects_of_one_class_leave_metrics_undefined(cli, trained, cohort, tmp_path):
    """Only the autistic test subjects are kept."""
    copy = shutil.copytree(cohort, tmp_path / "copy")
    lines = (copy / "subjects.csv").read_text().splitlines(keepends=True)
    gone = [line for line in lines if line.endswith(",0,test\n")]
    assert len(gone) == 2
    for line in gone:
        (copy / line.split(",")[0]).unlink()
    (copy / "subjects.csv").write_text("".join(line for line in lines if line not in gone))
    resealed(copy)
    outcome = cli("--test", "--model", "cnn", "--chkPointDir", trained, "--dataDir", copy, "--outDir", tmp_path / "out")
    assert outcome.status == 0, outcome.err
    assert "auc undefined" in outcome.out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["auc"] == {"value": None, "low": None, "high": None}
    assert metrics["recall"]["value"] is not None


@pytest.mark.parametrize("name", ["=cmd|'/c calc'!A1", "@SUM(1)", "-a", "+a"])
def test_a_name_is_no_formula_in_tables_of_results_and_stays_as_it_is_where_tables_are_joined(name, tmp_path):
    table = pd.DataFrame({"file": [f"{name}.bin"], "site": [name], "fold": [name], "auc": [-0.5]})
    for of in ("probabilities", "predictions"):
        write_table(SimpleNamespace(out_dir=tmp_path), of, table)
    assert [*read_rows(tmp_path / "probabilities.csv")[0].values()] == [f"'{name}.bin", f"'{name}", f"'{name}", "-0.5"]
    assert [*read_rows(tmp_path / "predictions.csv")[0].values()] == [f"{name}.bin", name, name, "-0.5"]


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
def test_one_test_subject_has_metrics_and_no_interval(cli, trained, cohort, tmp_path):
    copy = shutil.copytree(cohort, tmp_path / "copy")
    lines = (copy / "subjects.csv").read_text().splitlines(keepends=True)
    for line in [line for line in lines if line.endswith(",test\n")][1:]:
        (copy / line.split(",")[0]).unlink()
        lines.remove(line)
    (copy / "subjects.csv").write_text("".join(lines))
    resealed(copy)
    outcome = cli("--test", "--model", "cnn", "--chkPointDir", trained, "--dataDir", copy, "--outDir", tmp_path / "out")
    assert outcome.status == 0, outcome.err
    assert re.search(r"accuracy [01]\.000 \(no interval: too few people\), balanced_accuracy undefined", outcome.out)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    (problem,) = metrics.pop("problems")
    assert problem.startswith("the test split lacks a class (")
    assert metrics["accuracy"]["value"] in (0.0, 1.0)
    assert all(metric["low"] is None and metric["high"] is None for metric in metrics.values())


def test_probabilities_are_a_softmax_even_far_out():
    logits = np.array([[0.0, 0.0], [1.0, 3.0], [1000.0, 0.0], [0.0, 1000.0]])
    expected = [0.5, 1 / (1 + np.exp(-2)), 0.0, 1.0]
    np.testing.assert_allclose(probability_of_autism(logits), expected, atol=1e-12)


def test_a_constant_original_has_no_explained_variance():
    measure = ExplainedVariance()
    measure.add(np.ones((2, 3)), np.zeros((2, 3)))
    assert measure.mse == 1 and np.isnan(measure.value)


@pytest.mark.slow
def test_a_training_that_diverged_is_told_before_anything_is_written(cli, trained, cohort, tmp_path, monkeypatch):
    """NaN in the restored weights, as a learning rate of 1e30 leaves them."""

    def diverged(folder, network):
        restore_weights(folder, network)
        network.weights[0].assign(network.weights[0] * np.nan)

    monkeypatch.setattr("utils.training.network.restore_weights", diverged)
    places = ("--model", "cnn", "--chkPointDir", trained, "--dataDir", cohort, "--outDir", tmp_path / "out")
    for job in ("--test", "--blackout"):
        outcome = cli(job, *places)
        assert outcome.status == 2
        assert "weights that are not finite: its training diverged. Train again with a smaller learning" in outcome.err
        assert len(outcome.err.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_a_training_subject_under_another_name_is_no_test_subject(cli, trained, cohort, tmp_path):
    renamed = shutil.copytree(cohort, tmp_path / "renamed")
    table = (renamed / "subjects.csv").read_text().replace(",train", ",TEST").replace(",test", ",train")
    lines = table.replace(",TEST", ",test").splitlines()
    changed = [lines[0], *(line.replace(",", ",P", 1) for line in lines[1:])]
    (renamed / "subjects.csv").write_text("\n".join(changed) + "\n")
    for name in ("covariates.csv", "phenotype.csv", "maps.csv"):
        (renamed / name).unlink(missing_ok=True)
    resealed(renamed)
    places = ("--chkPointDir", trained, "--dataDir", renamed, "--outDir", tmp_path / "out")
    outcome = cli("--test", "--model", "cnn", *places)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "trained this checkpoint: P" in outcome.err
    assert "By their scans, whatever their names: all of them" in outcome.err


@pytest.mark.slow
def test_people_without_labels_get_the_same_probabilities(cli, results, trained, cohort, tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    rows = [row for row in read_rows(cohort / "subjects.csv") if row["split"] == "test"]
    for of in rows:
        record = np.frombuffer((cohort / of["file"]).read_bytes(), "<f4").copy()
        record[0] = np.nan
        (new / of["file"]).write_bytes(record.tobytes())
    lines = [",".join((row | {"label": ""}).values()) for row in rows]
    (new / "subjects.csv").write_text("\n".join([",".join(rows[0]), *lines]) + "\n")
    for name in ("cohort.json", "covariates.csv"):
        shutil.copy(cohort / name, new)
    places = ("--chkPointDir", trained, "--dataDir", resealed(new), "--outDir", tmp_path / "unknown")
    outcome = cli("--test", "--model", "cnn", *places)
    assert outcome.status == 0, outcome.err
    found, floor = {}, {}
    for name, folder in (("known", results / "out"), ("unknown", tmp_path / "unknown")):
        found[name] = {row["file"]: row["probability"] for row in read_rows(folder / "predictions.csv")}
        floor[name] = pd.read_csv(folder / "floor_predictions.csv").set_index("file")
    assert found["known"] == found["unknown"]
    pd.testing.assert_frame_equal(floor["known"], floor["unknown"])  # by the people who trained the checkpoint
    assert "No label is known" in outcome.out
    assert "No floor could be fitted" not in outcome.out
    assert not (tmp_path / "unknown" / "metrics.json").exists()
    assert (tmp_path / "unknown" / "report.html").is_file()
    blackout = cli(
        "--blackout", "--model", "cnn", "--chkPointDir", trained, "--dataDir", new, "--outDir", tmp_path / "b"
    )
    assert blackout.status == 2
    assert re.search("have no label, .* among them; a blackout needs one of each", blackout.err)


def test_why_new_people_have_no_floors_and_how_many_fit_an_svm_is_told(tmp_path, monkeypatch):
    of_new = cohort_of(row("3", 1.0, "test"))
    checkpoints = SimpleNamespace(identity=lambda: an_identity(cohort="gone"))
    run = SimpleNamespace(cohort=of_new, checkpoints=checkpoints, out_dir=tmp_path)
    assert write_floors(run) == [
        "No floor could be fitted beside the score: the cohort has no training subjects. The checkpoint was "
        "trained on gone, which is gone, was changed or was prepared otherwise."
    ]
    assert not (tmp_path / "floor_predictions.csv").exists()
    training = cohort_of(row("1", 1.0, "train"), row("2", 0.0, "train"))
    monkeypatch.setattr(comparisons, "training_people", lambda *_: training)
    monkeypatch.setattr(floors, "predict", lambda *_: pd.DataFrame({"majority": [0.5]}, pd.Index(["3"], name="file")))
    assert write_floors(run) == []
    assert read_rows(tmp_path / "floor_predictions.csv") == [{"file": "3", "majority": "0.5"}]
    monkeypatch.setattr(floors, "MAX_SVM_RECORDS", 1)
    assert write_floors(run) == floors.limits(2) != []

    def unreadable(*_):
        raise InputError("age holds text.")

    monkeypatch.setattr(floors, "predict", unreadable)
    comparisons.FITTED.clear()
    assert write_floors(run) == ["No floor could be fitted beside the score: age holds text."]
