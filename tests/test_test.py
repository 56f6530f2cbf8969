"""--test: predictions and metrics of the test subjects alone, recomputed from what was written; reconstructions."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lab
import numpy as np
import pandas as pd
import pytest
from commands import done, read_manifest, refused
from conftest import without_figures
from helpers import SMALL_OPTIONS_BY_MODEL, read_rows, reseal
from sklearn.decomposition import PCA
from sklearn.metrics import accuracy_score, r2_score, recall_score, roc_auc_score

from models import MODELS

pytestmark = pytest.mark.usefixtures("undrawn")
METRICS = ["accuracy", "balanced_accuracy", "recall", "specificity", "precision", "f_score", "brier"]
METRICS += ["auc", "auc_sites"]
BATCHES_BY_MODEL = {"cnn": 4, "mmnn": 6, "nn": 6}
JOB = "run.py --{job} --model {model} --chkPointDir {to}/ckpt --dataDir {of} --outDir {to}/{job}"


def train_and_test(model: str, cohort: Path, to: Path, more: str) -> Path:
    for job, settings in (("train", more), ("test", "")):
        done(f"{JOB} {settings}", job=job, model=model, to=to, of=cohort)
    return to


@pytest.fixture(scope="module", params=BATCHES_BY_MODEL)
def tested(request, trained, seen_six, cohort, undrawn, tmp_path_factory) -> tuple[str, Path]:
    """A classifier that has seen `BATCHES_BY_MODEL`, and the folder with its checkpoints and its test."""
    model, folder = request.param, tmp_path_factory.mktemp("tested") / request.param
    if model == "mmnn":
        small_options = " ".join(SMALL_OPTIONS_BY_MODEL[model])
        train_and_test(model, cohort, folder, f"--numIters {BATCHES_BY_MODEL[model]} {small_options}")
    else:
        shutil.copytree({"cnn": trained.parent, "nn": seen_six}[model], folder)
        done(JOB, job="test", model=model, to=folder, of=cohort)
    return model, folder


def independent_probability(model: str, folder: Path, cohort: Path, subjects: pd.DataFrame) -> list[float]:
    """Of autism, one record at a time, by a network that is built anew from what the checkpoint says."""
    import tensorflow as tf

    config = read_manifest(folder)["config"]
    network = MODELS[model].module.build(MODELS[model].parse_settings(config), MODELS["cnn"].required_grid)
    tf.train.Checkpoint(model=network).restore(tf.train.latest_checkpoint(folder)).expect_partial()
    probabilities = []
    for file in subjects["file"]:
        _, values, volume = lab.read_record(cohort / file)
        inputs = {"volume": np.moveaxis(volume, 0, -1)[None], "phenotype": values[None]}
        control, autism = network({name: inputs[name] for name in MODELS[model].input_names}, training=False).numpy()[0]
        probabilities.append(np.exp(autism) / (np.exp(control) + np.exp(autism)))
    return probabilities


@pytest.mark.slow
def test_predictions_are_for_test_subjects_and_metrics_follow(tested, cohort):
    model, folder = tested
    rows = lab.read_table(folder / "test/predictions.csv")
    expected = lab.read_table(cohort / "subjects.csv").query("split == 'test'").reset_index(drop=True)
    shared_columns = ["file", "subject", "site", "label"]
    assert [*rows] == [*shared_columns, "probability", *(["missingness_masked"] if model != "cnn" else [])]
    pd.testing.assert_frame_equal(rows[shared_columns], expected[shared_columns])
    probability = rows["probability"].astype(float)
    independent = independent_probability(model, folder / "ckpt" / model, cohort, expected)
    assert probability.tolist() == pytest.approx(independent, abs=1e-5)

    label, metrics = rows["label"].astype(int), json.loads((folder / "test/metrics.json").read_text())
    assert list(metrics) == METRICS and all(
        estimate.keys() == {"value", "low", "high"} for estimate in metrics.values()
    )
    for name, value in (
        ("accuracy", accuracy_score(label, probability >= 0.5)),
        ("recall", recall_score(label, probability >= 0.5)),
        ("auc", roc_auc_score(label, probability)),
    ):
        assert metrics[name]["value"] == pytest.approx(value)
    (row,) = read_rows(folder / "test/checkpoint_results.csv")
    assert list(row) == ["checkpoint", "accuracy", "recall", "precision", "f_score"]
    assert row["checkpoint"] == str(folder / "ckpt" / model / f"ckpt-{BATCHES_BY_MODEL[model]}")
    assert float(row["accuracy"]) == pytest.approx(metrics["accuracy"]["value"], abs=1e-6)

    prepared = read_manifest(folder / "test")["prepared"]
    raw = pd.read_csv(cohort / "phenotype.csv").drop(columns="subject")
    assert prepared["num_phenotype"] == (raw.min() < raw.max()).sum() and "AGE_AT_SCAN" in prepared["phenotype_columns"]
    assert (prepared["standard"], prepared["same_scan"]) == ("" if model == "nn" else "stored", 0)
    everybody, *variable_rows = read_rows(folder / "test/table1.csv")
    assert int(everybody["autism_known"]) + int(everybody["control_known"]) == 40
    assert {"AGE_AT_SCAN", "SEX", "func_mean_fd", "fiq"} <= {row["variable"] for row in variable_rows}


PLACES = "--chkPointDir {at} --dataDir {of} --outDir {at}/out"


@pytest.fixture(scope="module")
def results(trained, cohort, undrawn, tmp_path_factory) -> Path:
    """The checkpoints of `trained`, in a folder whose name has a comma, and in `out` a test of them, with figures."""
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("results") / 'lab, "new"')
    undrawn.undo()
    done(f"run.py --test --model cnn {PLACES}", at=folder, of=cohort)
    without_figures(undrawn)
    return folder


@pytest.mark.slow
def test_a_second_test_appends_a_row_and_keeps_the_first_results(results, cohort, tmp_path):
    """One that is done is not repeated, but if a file is gone. A folder with a comma in its name is one cell; what an
    editor saved in another encoding is kept, too."""
    for name in ("confusion_matrix", "roc"):  # a forest needs a site with both classes among these four
        assert (results / f"out/{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (results / f"out/{name}.svg").read_text().endswith("</svg>\n")
    folder = shutil.copytree(results, tmp_path / results.name)
    table, first = folder / "out/checkpoint_results.csv", (folder / "out/predictions.csv").read_bytes()
    done(f"run.py --test --model cnn {PLACES}", at=folder, of=cohort)
    assert len(read_rows(table)) == 1
    lab.edit(folder / "out/roc.png", "gone")
    done(f"run.py --test --model cnn {PLACES}", at=folder, of=cohort)
    assert [Path(row["checkpoint"]) for row in read_rows(table)] == [
        checkpoint_folder / "cnn/ckpt-4" for checkpoint_folder in (results, folder)
    ]
    (earlier,) = (folder / "out/earlier").rglob("predictions.csv")
    assert earlier.read_bytes() == (folder / "out/predictions.csv").read_bytes() == first
    before = table.read_bytes() + "café,1,1,1,1\n".encode("latin-1")
    table.write_bytes(before)
    lab.edit(folder / "out/roc.png", "gone")
    done(f"run.py --test --model cnn {PLACES}", at=folder, of=cohort)
    assert table.read_bytes().startswith(before) and len(table.read_bytes().splitlines()) == 5


def copy_without(cohort: Path, to: Path, choose_removed: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    """The cohort without the test subjects whom `choose_removed` names of a table of them."""
    shutil.copytree(cohort, to)
    table = lab.read_table(to / "subjects.csv")
    left_out = choose_removed(table.query("split == 'test'"))
    for file in left_out["file"]:
        (to / file).unlink()
    lab.edit(to / "subjects.csv", lambda rows: rows[~rows["file"].isin(left_out["file"])])
    return reseal(to)


@pytest.mark.slow
def test_test_subjects_in_a_single_class_or_a_single_subject_leave_metrics_undefined(trained, cohort, tmp_path):
    autism_cohort = copy_without(cohort, tmp_path / "autism", lambda table: table.query("label == '0'"))
    alone = copy_without(cohort, tmp_path / "alone", lambda table: table.iloc[1:])
    for test_cohort in (autism_cohort, alone):
        done(
            "run.py --test --model cnn --chkPointDir {at} --dataDir {of} --outDir {of}-out", at=trained, of=test_cohort
        )
    metrics, single_subject_metrics = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("autism-out", "alone-out")
    )
    assert metrics["auc"] == {"value": None, "low": None, "high": None}
    assert metrics["recall"]["value"] is not None
    assert len(single_subject_metrics.pop("problems")) == 1 and single_subject_metrics["accuracy"]["value"] in (
        0.0,
        1.0,
    )
    assert all(metric["low"] is None and metric["high"] is None for metric in single_subject_metrics.values())


def write_nan_weights(folder: Path) -> None:
    """Weights of NaN, as a learning rate of 1e30 leaves them."""
    import tensorflow as tf

    network = MODELS["cnn"].module.build(
        MODELS["cnn"].parse_settings(read_manifest(folder)["config"]), MODELS["cnn"].required_grid
    )
    checkpoint = tf.train.Checkpoint(model=network)
    checkpoint.restore(tf.train.latest_checkpoint(folder)).expect_partial()
    network.weights[0].assign(network.weights[0] * np.nan)
    for path in folder.glob("ckpt-4.[di]*"):
        path.unlink()
    checkpoint.write(folder / "ckpt-4")
    lab.edit(folder / "ckpt-4.json", {"outputs": {}})


@pytest.mark.slow
def test_a_diverged_training_is_reported_before_anything_is_written(trained, cohort, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "ckpt")
    write_nan_weights(folder / "cnn")
    places = {"at": folder, "of": cohort, "new": tmp_path / "out"}
    for job in ("test", "blackout"):
        command = f"run.py --{job} --model cnn --chkPointDir {{at}} --dataDir {{of}} --outDir {{new}}"
        refused(command, "diverged", **places)


@pytest.mark.slow
def test_people_without_labels_get_the_same_probabilities(results, trained, cohort, tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    rows = lab.read_table(cohort / "subjects.csv").query("split == 'test'")
    for file in rows["file"]:
        (new / file).write_bytes(np.float32(np.nan).tobytes() + (cohort / file).read_bytes()[4:])
    rows.assign(label="").to_csv(new / "subjects.csv", index=False)
    for name in ("cohort.json", "covariates.csv"):
        shutil.copy(cohort / name, new)
    places = {"at": trained, "of": reseal(new), "new": tmp_path / "unknown"}
    command = "--model cnn --chkPointDir {at} --dataDir {of} --outDir {new}"
    printed_text = done(f"run.py --test {command}", **places)
    for name in ("predictions", "baseline_predictions"):  # these by the people who trained the checkpoint
        labelled_table, unlabelled_table = (
            lab.read_table(folder_or_table / f"{name}.csv").set_index("file")
            for folder_or_table in (results / "out", places["new"])
        )
        pd.testing.assert_frame_equal(
            *(
                folder_or_table.drop(columns="label", errors="ignore")
                for folder_or_table in (labelled_table, unlabelled_table)
            )
        )
    assert "No diagnosis is known" in printed_text and (tmp_path / "unknown/report.html").is_file()
    assert not (tmp_path / "unknown/metrics.json").exists()
    refused(f"run.py --blackout {command}", "no label", "one of each", **places | {"new": tmp_path / "b"})


# Autoencoders


@pytest.mark.slow
def test_ae_is_measured_against_principal_components(cohort, tmp_path):
    folder = train_and_test("ae", cohort, tmp_path, "--numIters 3 --set units=8,4 --set batch_size=8")
    metrics = json.loads((folder / "test/metrics.json").read_text())
    table = lab.read_table(cohort / "subjects.csv")
    values = np.stack([lab.read_record(cohort / file)[1] for file in table["file"]])
    training, test = (values[table["split"] == split] for split in ("train", "test"))
    fitted = PCA(4).fit(training)
    guess = fitted.inverse_transform(fitted.transform(test))
    assert metrics["explained_variance_baseline"] == pytest.approx(r2_score(test.ravel(), guess.ravel()), abs=1e-4)
    assert {"mse", "explained_variance", "code_mean_activation"} <= metrics.keys()
    assert not list((folder / "test").glob("*.png"))


@pytest.mark.slow
def test_cae_pictures_show_the_same_anatomy_on_a_single_scale(train_cae, full_cohort, tmp_path, monkeypatch):
    """Of one whose code is 11x13x11 in two channels."""
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig",
        lambda figure, file, format, **_: drawn.setdefault(figure.get_suptitle(), figure),
    )
    coarse = train_cae("--numIters 1 --set strides=3,3 --set filters=1,2 --set batch_size=1")
    drawn.clear()
    places = {"at": coarse, "of": full_cohort, "new": tmp_path / "out"}
    done("run.py --test --model cae --chkPointDir {at} --dataDir {of} --outDir {new}", **places)
    row = lab.read_table(full_cohort / "subjects.csv").query("split == 'test'").iloc[0]
    _, _, (volume,) = lab.read_record(full_cohort / row["file"], shape=(91, 109, 91))
    original_picture, encoded_picture, _ = pictures = [
        drawn_figure for name, drawn_figure in drawn.items() if f"of participant {row['subject']}" in name
    ]
    for figure in pictures:
        panels = figure.axes[:3]
        assert [axis.get_title().split(" (")[0] for axis in panels] == ["z = 8 mm", "z = 38 mm", "z = 48 mm"]
        assert {axis.images[0].get_clim() for axis in panels} == {(volume.min(), volume.max())}
    assert (original_picture.axes[0].images[0].get_array() == volume[:, :, 40].T).all()
    assert encoded_picture.axes[0].images[0].get_array().shape == (13, 11)
    assert "channel 1 of 2" in encoded_picture.get_suptitle()
