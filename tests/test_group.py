"""Folds and repeats: each is a plain run with another split or seed; in pieces they come out the same, and what is done
is not done again. Side by side, and killed: see test_processes."""

import json
import re
import shutil
from pathlib import Path

import lab as labs
import numpy as np
import pandas as pd
import pytest
from commands import Outcome, done, read_manifest, read_page_text, run
from conftest import TINY_TRAINING, without_drawing
from helpers import assert_bit_equal
from oracles import average_group_auc
from sklearn.metrics import brier_score_loss, roc_auc_score

pytestmark = pytest.mark.usefixtures("undrawn", "no_baselines")


def run_in_folds(run_folder: Path, cohort: Path, command: str) -> Outcome:
    """A job of a tiny nn, such as `--train --folds 3`, on a cohort, with all of it in the folder `run_folder`."""
    job = re.search("--(train|test|blackout)", command)[1]
    settings = TINY_TRAINING if job == "train" else ""
    places = f"--dataDir {{of}} --chkPointDir {{at}}/ckpt --outDir {{at}}/{job}"
    return run(f"run.py --model nn {settings} {command} {places}", of=cohort, at=run_folder)


def run_all_in_folds(run_folder: Path, cohort: Path, *commands: str) -> str:
    """What the last of these jobs printed."""
    for command in commands:
        outcome = run_in_folds(run_folder, cohort, command)
        assert (outcome.status, outcome.err) == (0, ""), outcome.err
    return outcome.out


@pytest.fixture
def tested(nn_on_folds) -> Path:
    """The folder of a nn trained and tested on 3 folds."""
    return nn_on_folds


def read_people_table(path: Path) -> pd.DataFrame:
    """A table with a row a record, or a record and repeat."""
    return pd.read_csv(path, dtype={"subject": str})


@pytest.mark.slow  # first, so that the rung is made before baselines are made up
def test_everybody_is_tested_once_by_a_model_trained_without_it(tested, converted):
    table = labs.read_table(tested / "test/predictions.csv")
    assert list(table) == ["file", "subject", "site", "label", "probability", "missingness_masked", "fold"]
    assert len(table) == 40
    label, expected_label = (
        subject_table.set_index("subject")["label"]
        for subject_table in (table, labs.read_table(converted / "subjects.csv"))
    )
    assert label.to_dict() == expected_label.to_dict()
    folds_folder = tested / "ckpt" / "nn" / "folds-3"
    fold_by_subject = labs.read_table(folds_folder / "folds.csv").set_index("subject")["fold"]
    assert (fold_by_subject[table["subject"]].to_numpy() == table["fold"]).all()
    for name in "012":
        assert set(read_manifest(folds_folder / name)["people"]["subjects"]) == set(
            fold_by_subject.index[fold_by_subject != name]
        )


@pytest.mark.slow
def test_column_values_may_be_called_low_or_high(tmp_path):
    table = labs.people(24).assign(dose=[("low", "medium", "high")[number % 3] for number in range(24)])
    labs.pcp(tmp_path / "lab", table)
    done("abide-data convert {of}/lab {of}/cohort --grid reduced --covariates SITE_ID,dose", of=tmp_path)
    run_all_in_folds(tmp_path, tmp_path / "cohort", "--train --folds dose", "--test --folds dose")
    done("abide-report {of}/test", of=tmp_path)
    folds = json.loads((tmp_path / "test/metrics.json").read_text())["folds"]
    report_lines = read_page_text(tmp_path / "test/report.html").splitlines()
    assert {*folds} == {"low", "medium", "high"} and all(
        any(line.startswith(f"{name} | ") for line in report_lines) for name in folds
    )


def compute_scores(table: pd.DataFrame) -> dict[str, float]:
    """By scikit-learn."""
    auc = roc_auc_score(table["label"], table["probability"])
    return {"auc": auc, "auc_folds": average_group_auc(table, "fold"), "auc_sites": average_group_auc(table, "site")}


@pytest.mark.slow
def test_pooled_metrics_use_all_predictions(tested):
    table = pd.read_csv(tested / "test" / "predictions.csv")
    metrics = json.loads((tested / "test" / "metrics.json").read_text())
    expected = compute_scores(table) | {"brier": brier_score_loss(table["label"], table["probability"])}
    assert {name: metrics[name]["value"] for name in expected} == pytest.approx(expected)
    for name, fold in table.groupby("fold"):
        assert metrics["folds"][str(name)]["auc"]["value"] == pytest.approx(compute_scores(fold)["auc"])


@pytest.mark.slow
def test_a_test_leaves_the_promised_files(tested):
    names = {path.name for path in (tested / "test").iterdir()}
    assert {"predictions.csv", "metrics.json", "sites.csv", "table1.csv", "report.html", "runs.csv"} <= names
    assert "table1.csv" not in {path.name for path in (tested / "test" / "fold-0").iterdir()}
    written = read_manifest(tested / "test")
    assert (written["folds"], written["fold"], written["finished"]) == ("3", None, True)
    assert (written["prepared"]["scaled_by"], written["prepared"]["together"]) == ("fold", True)
    assert written["weights"] == {name: read_manifest(tested / "test" / f"fold-{name}")["weights"] for name in "012"}
    trained, entered = labs.read_table(tested / "runs.csv").to_dict("records")
    headline = json.loads((tested / "test" / "metrics.json").read_text())["auc_sites"]
    assert (trained["job"], entered["job"], entered["metric"]) == ("train", "test", "auc_sites")
    assert [float(entered[key]) for key in ("value", "low", "high")] == pytest.approx([*headline.values()], rel=1e-5)


@pytest.mark.slow
def test_a_fold_is_a_plain_run_on_a_cohort_with_the_split(tested, lab, converted, tmp_path):
    """Which is converted anew, so that the phenotype is scaled by those whom the fold trains on."""
    fold_by_subject = labs.read_table(tested / "ckpt/nn/folds-3/folds.csv").set_index("subject")["fold"]
    (tmp_path / "split").mkdir()
    for name in ("cohort.json", "connectomes.h5", *(path.name for path in converted.glob("*.bin"))):
        shutil.copy(converted / name, tmp_path / "split")
    people = labs.read_table(converted / "subjects.csv")
    split = people.assign(split=np.where(fold_by_subject[people["subject"]] == "1", "test", "train"))
    split.to_csv(tmp_path / "split/subjects.csv", index=False)
    done("abide-data pack split sealed --bin")
    done("abide-data convert {lab} cohort --grid reduced --maps falff --keepSplit sealed", lab=lab)
    run_all_in_folds(tmp_path, tmp_path / "cohort", "--train", "--test")
    alone = labs.read_table(tmp_path / "test" / "predictions.csv")
    assert alone.equals(labs.read_table(tested / "test/fold-1/predictions.csv")) and 12 < len(alone) < 15


@pytest.mark.slow
def test_folds_in_pieces_give_the_same(tested, converted, tmp_path):
    for job in ("--train", "--test"):
        for name in "201":
            out = run_all_in_folds(tmp_path, converted, f"{job} --folds 3 --fold {name}")
            left = {"2": "folds 0, 1", "0": "fold 1"}.get(name)
            assert not left or f"Still to be done before the results are pooled: {left}.\n" in out
    assert "Still to be done" not in out
    again = run_in_folds(tmp_path, converted, "--train --folds 3 --fold 1 --overrideChkpt").out
    assert "Not pooled, since other folds may yet be overridden" in again
    for name in ("predictions.csv", "metrics.json", "sites.csv"):
        assert (tmp_path / "test" / name).read_bytes() == (tested / "test" / name).read_bytes(), name


@pytest.mark.slow
def test_only_lost_or_changed_results_are_repeated(tested, converted, tmp_path):
    copy = shutil.copytree(tested, tmp_path / "copy")
    first = copy / "test/fold-0/predictions.csv"
    written = first.stat().st_mtime_ns
    (copy / "test/thesis.txt").write_text("mine")
    assert "Everything is done." in run_all_in_folds(copy, converted, "--test --folds 3")
    (copy / "test/report.html").unlink()
    labs.edit(copy / "test/fold-1/predictions.csv", lambda table: table.assign(probability="0.9"))
    out = run_all_in_folds(copy, converted, "--test --folds 3")
    assert re.search("to do +1 of 3 folds", out)
    assert (copy / "test/report.html").is_file() and first.stat().st_mtime_ns == written
    for name in ("predictions.csv", "fold-1/predictions.csv"):
        assert (copy / "test" / name).read_bytes() == (tested / "test" / name).read_bytes()
    for old_name, new_name in (("fold-0", "was-0"), ("fold-2", "fold-0"), ("was-0", "fold-2")):
        (copy / "test" / old_name).rename(copy / "test" / new_name)
    assert run_all_in_folds(copy, converted, "--test --folds 3").count("were folders exchanged?") == 2
    assert (copy / "test/predictions.csv").read_bytes() == (tested / "test/predictions.csv").read_bytes()
    shutil.rmtree(copy / "train/fold-1")
    run_all_in_folds(copy, converted, "--train --folds 3")
    assert_bit_equal(copy / "ckpt/nn/folds-3/1", tested / "ckpt/nn/folds-3/1")
    assert "Everything is done." in run_all_in_folds(copy, converted, "--train --folds 3")
    run_all_in_folds(copy, converted, "--train --folds 3 --numIters 6")
    assert "Everything is done." not in run_all_in_folds(copy, converted, "--test --folds 3")
    assert (copy / "test/predictions.csv").read_bytes() != (tested / "test/predictions.csv").read_bytes()
    earlier = [path.read_bytes() for path in copy.glob("test/earlier/*/predictions.csv")]
    assert (tested / "test/predictions.csv").read_bytes() in earlier
    assert [path.read_text() for path in copy.glob("test/earlier/*/thesis.txt")] == ["mine"]


# Repeats


@pytest.fixture(scope="module")
def twice(converted, tmp_path_factory) -> Path:
    """The folder of a `nn` trained and tested twice on two folds, with the seeds 5 and 6."""
    folder = tmp_path_factory.mktemp("repeats")
    with without_drawing():
        run_all_in_folds(folder, converted, "--train --folds 2 --repeats 2 --seed 5", "--test --folds 2 --repeats 2")
    return folder


@pytest.mark.slow
def test_a_repeat_is_a_plain_run_with_the_seed(twice, converted, tmp_path):
    run_all_in_folds(tmp_path, converted, "--train --folds 2 --seed 6 --fold 1")
    repeat_folder, plain_folder = twice / "ckpt/nn/folds-2/repeat-1", tmp_path / "ckpt/nn/folds-2"
    assert (repeat_folder / "folds.csv").read_bytes() == (plain_folder / "folds.csv").read_bytes()
    assert_bit_equal(repeat_folder / "1", plain_folder / "1")
    assert (repeat_folder / "folds.csv").read_bytes() != (
        repeat_folder.with_name("repeat-0") / "folds.csv"
    ).read_bytes()


@pytest.mark.slow
def test_repeats_are_pooled_and_means_are_calibrated_by_the_first_folds(twice):
    for name in ("predictions.csv", "baseline_predictions.csv"):
        pooled = read_people_table(twice / "test" / name)
        for (repeat, fold), pooled_rows in pooled.groupby(["repeat", "fold"]):
            fold_table = read_people_table(twice / f"test/repeat-{repeat}/fold-{fold}" / name)
            assert pooled_rows.drop(columns=["repeat", "fold"]).reset_index(drop=True).equals(fold_table)
        assert len(pooled) == 80
    pooled = read_people_table(twice / "test/predictions.csv")
    table = read_people_table(twice / "test/probabilities.csv").set_index("file")
    np.testing.assert_allclose(table["probability"], pooled.groupby("file")["probability"].mean()[table.index])
    assert table["fold"].equals(pooled.query("repeat == 0").set_index("file")["fold"][table.index]) and len(table) == 40
    assert set(pd.read_csv(twice / "test/calibration.csv")["group"].dropna()) == set(pooled["site"])


@pytest.mark.slow
def test_repeat_scores_equal_the_predictions_scores(twice):
    rows = labs.read_table(twice / "test/repeats.csv")
    assert [*zip(rows["repeat"], rows["seed"], strict=True)] == [("0", "5"), ("1", "6")]
    areas = []
    for repeat, table in read_people_table(twice / "test/predictions.csv").groupby("repeat"):
        expected, row = compute_scores(table), rows.loc[repeat]
        assert {name: float(row[name]) for name in expected} == pytest.approx(expected)
        assert float(row["auc_folds_low"]) <= expected["auc_folds"] <= float(row["auc_folds_high"])
        areas.append(expected["auc_sites"])
    metrics = json.loads((twice / "test/metrics.json").read_text())
    assert metrics["auc_sites"]["value"] == pytest.approx(np.mean(areas))
    written = read_manifest(twice / "test")
    assert (written["repeats"], written["seed"], written["finished"]) == (2, 5, True)
    assert set(written["weights"]) == {f"{fold}, repeat {repeat}" for fold in "01" for repeat in "01"}
    assert written["conclusion"]["score"]["value"] == pytest.approx(np.mean(areas))
    assert [*labs.read_table(twice / "runs.csv")["folds"]] == ["2, 2 repeats"] * 2


@pytest.mark.slow
def test_more_repeats_continue_fewer_also_in_pieces(twice, converted, tmp_path):
    copy = shutil.copytree(twice, tmp_path / "copy")
    mtime_by_path = {path: path.stat().st_mtime_ns for path in copy.glob("ckpt/nn/folds-2/repeat-[01]/*/*")}
    out = run_all_in_folds(copy, converted, "--train --folds 2 --repeats 3 --fold 0")
    assert "Still to be done before the results are pooled: fold 1, repeat 2.\n" in out
    assert re.search("to do +1 of 3 folds", out)
    assert "Everything is done" not in run_all_in_folds(copy, converted, "--train --folds 2 --repeats 3")
    assert "Everything is done" in run_all_in_folds(copy, converted, "--train --folds 2 --repeats 3")
    assert read_manifest(copy / "ckpt/nn/folds-2/repeat-2/1")["seed"] == 7
    assert all(path.stat().st_mtime_ns == when for path, when in mtime_by_path.items())


@pytest.mark.slow
def test_repeats_on_column_folds_differ_in_their_starts(converted, tmp_path):
    out = run_all_in_folds(tmp_path, converted, "--train --folds SEX --repeats 2 --numIters 1")
    assert out.count("The repeats have the same folds, and differ in the networks' starts") == 1
    first_folder, second_folder = (tmp_path / f"ckpt/nn/folds-SEX/repeat-{repeat}" for repeat in (0, 1))
    assert (first_folder / "folds.csv").read_bytes() == (second_folder / "folds.csv").read_bytes()
    assert [read_manifest(repeat_folder / "1")["seed"] for repeat_folder in (first_folder, second_folder)] == [0, 1]


@pytest.mark.slow
def test_folds_read_volumes_by_separate_standards(converted, tmp_path):
    """Beside one that standardises sites, a fold is tested as beside one that does not."""
    for run_name, first in (("mixed", "site"), ("alike", "brain")):
        command = "run.py --train --model cnn --preset regions --folds 2 --numIters 2 --set members=1 --dataDir {of} "
        command += "--chkPointDir {to}/ckpt --outDir {to}/train "
        for fold, standard in enumerate((first, "brain")):
            done(f"{command} --fold {fold} --set standardise={standard}", of=converted, to=tmp_path / run_name)
        test = "run.py --test --model cnn --folds 2 --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/test"
        done(test, of=converted, to=tmp_path / run_name)
    mixed, alike = (
        read_people_table(tmp_path / run_name / "test/fold-1/predictions.csv") for run_name in ("mixed", "alike")
    )
    assert mixed["probability"].equals(alike["probability"])
    mixed, alike = (
        read_people_table(tmp_path / run_name / "test/fold-0/predictions.csv") for run_name in ("mixed", "alike")
    )
    assert not mixed["probability"].equals(alike["probability"])
