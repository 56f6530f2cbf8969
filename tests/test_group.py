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


def in_folds(at: Path, of: Path, command: str) -> Outcome:
    """A job of a tiny nn, such as `--train --folds 3`, on a cohort, with all of it in the folder `at`."""
    job = re.search("--(train|test|blackout)", command)[1]
    settings = TINY_TRAINING if job == "train" else ""
    places = f"--dataDir {{of}} --chkPointDir {{at}}/ckpt --outDir {{at}}/{job}"
    return run(f"run.py --model nn {settings} {command} {places}", of=of, at=at)


def succeeded(at: Path, of: Path, *commands: str) -> str:
    """What the last of these jobs printed."""
    for command in commands:
        outcome = in_folds(at, of, command)
        assert (outcome.status, outcome.err) == (0, ""), outcome.err
    return outcome.out


@pytest.fixture
def tested(nn_on_folds) -> Path:
    """The folder of a nn trained and tested on 3 folds."""
    return nn_on_folds


def people_of(path: Path) -> pd.DataFrame:
    """A table with a row a record, or a record and repeat."""
    return pd.read_csv(path, dtype={"subject": str})


@pytest.mark.slow  # first, so that the rung is made before baselines are made up
def test_everybody_is_tested_once_by_a_model_that_never_saw_them(tested, converted):
    table = labs.read_table(tested / "test/predictions.csv")
    assert list(table) == ["file", "subject", "site", "label", "probability", "missingness_masked", "fold"]
    assert len(table) == 40
    label, its = (of.set_index("subject")["label"] for of in (table, labs.read_table(converted / "subjects.csv")))
    assert label.to_dict() == its.to_dict()
    of_folds = tested / "ckpt" / "nn" / "folds-3"
    fold_of = labs.read_table(of_folds / "folds.csv").set_index("subject")["fold"]
    assert (fold_of[table["subject"]].to_numpy() == table["fold"]).all()
    for name in "012":
        assert set(read_manifest(of_folds / name)["people"]["subjects"]) == set(fold_of.index[fold_of != name])


@pytest.mark.slow
def test_a_value_of_a_column_may_have_the_name_of_an_end_of_an_interval(tmp_path):
    table = labs.people(24).assign(dose=[("low", "medium", "high")[at % 3] for at in range(24)])
    labs.pcp(tmp_path / "lab", table)
    done("abide-data convert {of}/lab {of}/cohort --grid reduced --covariates SITE_ID,dose", of=tmp_path)
    succeeded(tmp_path, tmp_path / "cohort", "--train --folds dose", "--test --folds dose")
    done("abide-report {of}/test", of=tmp_path)
    folds = json.loads((tmp_path / "test/metrics.json").read_text())["folds"]
    said = read_page_text(tmp_path / "test/report.html").splitlines()
    assert {*folds} == {"low", "medium", "high"} and all(
        any(of.startswith(f"{name} | ") for of in said) for name in folds
    )


def scores_of(table: pd.DataFrame) -> dict[str, float]:
    """By scikit-learn."""
    auc = roc_auc_score(table["label"], table["probability"])
    return {"auc": auc, "auc_folds": average_group_auc(table, "fold"), "auc_sites": average_group_auc(table, "site")}


@pytest.mark.slow
def test_pooled_metrics_are_of_all_predictions(tested):
    table = pd.read_csv(tested / "test" / "predictions.csv")
    metrics = json.loads((tested / "test" / "metrics.json").read_text())
    expected = scores_of(table) | {"brier": brier_score_loss(table["label"], table["probability"])}
    assert {name: metrics[name]["value"] for name in expected} == pytest.approx(expected)
    for name, fold in table.groupby("fold"):
        assert metrics["folds"][str(name)]["auc"]["value"] == pytest.approx(scores_of(fold)["auc"])


@pytest.mark.slow
def test_a_test_leaves_what_the_contract_says(tested):
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
def test_a_fold_is_a_plain_run_on_a_cohort_with_that_split(tested, lab, converted, tmp_path):
    """Which is converted anew, so that the phenotype is scaled by those whom the fold trains on."""
    fold_of = labs.read_table(tested / "ckpt/nn/folds-3/folds.csv").set_index("subject")["fold"]
    (tmp_path / "split").mkdir()
    for name in ("cohort.json", "connectomes.h5", *(path.name for path in converted.glob("*.bin"))):
        shutil.copy(converted / name, tmp_path / "split")
    people = labs.read_table(converted / "subjects.csv")
    split = people.assign(split=np.where(fold_of[people["subject"]] == "1", "test", "train"))
    split.to_csv(tmp_path / "split/subjects.csv", index=False)
    done("abide-data pack split sealed --bin")
    done("abide-data convert {lab} cohort --grid reduced --maps falff --keepSplit sealed", lab=lab)
    succeeded(tmp_path, tmp_path / "cohort", "--train", "--test")
    alone = labs.read_table(tmp_path / "test" / "predictions.csv")
    assert alone.equals(labs.read_table(tested / "test/fold-1/predictions.csv")) and 12 < len(alone) < 15


@pytest.mark.slow
def test_folds_in_pieces_give_the_same(tested, converted, tmp_path):
    for job in ("--train", "--test"):
        for name in "201":
            out = succeeded(tmp_path, converted, f"{job} --folds 3 --fold {name}")
            left = {"2": "folds 0, 1", "0": "fold 1"}.get(name)
            assert not left or f"Still to be done before the results are pooled: {left}.\n" in out
    assert "Still to be done" not in out
    again = in_folds(tmp_path, converted, "--train --folds 3 --fold 1 --overrideChkpt").out
    assert "Not pooled, since other folds may yet be overridden" in again
    for name in ("predictions.csv", "metrics.json", "sites.csv"):
        assert (tmp_path / "test" / name).read_bytes() == (tested / "test" / name).read_bytes(), name


@pytest.mark.slow
def test_what_is_done_is_not_done_again_and_what_was_lost_or_changed_is(tested, converted, tmp_path):
    copy = shutil.copytree(tested, tmp_path / "copy")
    first = copy / "test/fold-0/predictions.csv"
    written = first.stat().st_mtime_ns
    (copy / "test/thesis.txt").write_text("mine")
    assert "Everything is done." in succeeded(copy, converted, "--test --folds 3")
    (copy / "test/report.html").unlink()
    labs.edit(copy / "test/fold-1/predictions.csv", lambda table: table.assign(probability="0.9"))
    out = succeeded(copy, converted, "--test --folds 3")
    assert re.search("to do +1 of 3 folds", out)
    assert (copy / "test/report.html").is_file() and first.stat().st_mtime_ns == written
    for name in ("predictions.csv", "fold-1/predictions.csv"):
        assert (copy / "test" / name).read_bytes() == (tested / "test" / name).read_bytes()
    for one, other in (("fold-0", "was-0"), ("fold-2", "fold-0"), ("was-0", "fold-2")):
        (copy / "test" / one).rename(copy / "test" / other)
    assert succeeded(copy, converted, "--test --folds 3").count("were folders exchanged?") == 2
    assert (copy / "test/predictions.csv").read_bytes() == (tested / "test/predictions.csv").read_bytes()
    shutil.rmtree(copy / "train/fold-1")
    succeeded(copy, converted, "--train --folds 3")
    assert_bit_equal(copy / "ckpt/nn/folds-3/1", tested / "ckpt/nn/folds-3/1")
    assert "Everything is done." in succeeded(copy, converted, "--train --folds 3")
    succeeded(copy, converted, "--train --folds 3 --numIters 6")
    assert "Everything is done." not in succeeded(copy, converted, "--test --folds 3")
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
        succeeded(folder, converted, "--train --folds 2 --repeats 2 --seed 5", "--test --folds 2 --repeats 2")
    return folder


@pytest.mark.slow
def test_a_repeat_is_a_plain_run_of_its_seed(twice, converted, tmp_path):
    succeeded(tmp_path, converted, "--train --folds 2 --seed 6 --fold 1")
    one, other = twice / "ckpt/nn/folds-2/repeat-1", tmp_path / "ckpt/nn/folds-2"
    assert (one / "folds.csv").read_bytes() == (other / "folds.csv").read_bytes()
    assert_bit_equal(one / "1", other / "1")
    assert (one / "folds.csv").read_bytes() != (one.with_name("repeat-0") / "folds.csv").read_bytes()


@pytest.mark.slow
def test_a_row_a_record_and_repeat_is_pooled_and_the_means_are_calibrated_by_the_folds_of_the_first(twice):
    for name in ("predictions.csv", "baseline_predictions.csv"):
        pooled = people_of(twice / "test" / name)
        for (repeat, fold), of in pooled.groupby(["repeat", "fold"]):
            part = people_of(twice / f"test/repeat-{repeat}/fold-{fold}" / name)
            assert of.drop(columns=["repeat", "fold"]).reset_index(drop=True).equals(part)
        assert len(pooled) == 80
    pooled = people_of(twice / "test/predictions.csv")
    table = people_of(twice / "test/probabilities.csv").set_index("file")
    np.testing.assert_allclose(table["probability"], pooled.groupby("file")["probability"].mean()[table.index])
    assert table["fold"].equals(pooled.query("repeat == 0").set_index("file")["fold"][table.index]) and len(table) == 40
    assert set(pd.read_csv(twice / "test/calibration.csv")["group"].dropna()) == set(pooled["site"])


@pytest.mark.slow
def test_the_scores_of_each_repeat_are_those_of_its_predictions(twice):
    rows = labs.read_table(twice / "test/repeats.csv")
    assert [*zip(rows["repeat"], rows["seed"], strict=True)] == [("0", "5"), ("1", "6")]
    areas = []
    for repeat, table in people_of(twice / "test/predictions.csv").groupby("repeat"):
        expected, row = scores_of(table), rows.loc[repeat]
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
    kept = {path: path.stat().st_mtime_ns for path in copy.glob("ckpt/nn/folds-2/repeat-[01]/*/*")}
    out = succeeded(copy, converted, "--train --folds 2 --repeats 3 --fold 0")
    assert "Still to be done before the results are pooled: fold 1, repeat 2.\n" in out
    assert re.search("to do +1 of 3 folds", out)
    assert "Everything is done" not in succeeded(copy, converted, "--train --folds 2 --repeats 3")
    assert "Everything is done" in succeeded(copy, converted, "--train --folds 2 --repeats 3")
    assert read_manifest(copy / "ckpt/nn/folds-2/repeat-2/1")["seed"] == 7
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())


@pytest.mark.slow
def test_repeats_on_the_folds_of_a_column_differ_in_their_starts(converted, tmp_path):
    out = succeeded(tmp_path, converted, "--train --folds SEX --repeats 2 --numIters 1")
    assert out.count("The repeats have the same folds, and differ in the networks' starts") == 1
    one, other = (tmp_path / f"ckpt/nn/folds-SEX/repeat-{at}" for at in (0, 1))
    assert (one / "folds.csv").read_bytes() == (other / "folds.csv").read_bytes()
    assert [read_manifest(of / "1")["seed"] for of in (one, other)] == [0, 1]


@pytest.mark.slow
def test_each_fold_reads_volumes_by_its_own_standard(converted, tmp_path):
    """Beside one that standardises sites, a fold is tested as beside one that does not."""
    for of, first in (("mixed", "site"), ("alike", "brain")):
        command = "run.py --train --model cnn --preset regions --folds 2 --numIters 2 --set members=1 --dataDir {of} "
        command += "--chkPointDir {to}/ckpt --outDir {to}/train "
        for fold, standard in enumerate((first, "brain")):
            done(f"{command} --fold {fold} --set standardise={standard}", of=converted, to=tmp_path / of)
        test = "run.py --test --model cnn --folds 2 --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/test"
        done(test, of=converted, to=tmp_path / of)
    mixed, alike = (people_of(tmp_path / of / "test/fold-1/predictions.csv") for of in ("mixed", "alike"))
    assert mixed["probability"].equals(alike["probability"])
    mixed, alike = (people_of(tmp_path / of / "test/fold-0/predictions.csv") for of in ("mixed", "alike"))
    assert not mixed["probability"].equals(alike["probability"])
