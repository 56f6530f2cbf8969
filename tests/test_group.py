"""Folds and repeats: each is a plain run with another split or seed; killed, in pieces, or beside each other, they come
out the same."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import h5py
import lab as labs
import numpy as np
import pandas as pd
import pytest
from commands import Outcome, done, run
from conftest import without_drawing
from helpers import assert_bit_equal
from sklearn.metrics import brier_score_loss, roc_auc_score

pytestmark = pytest.mark.usefixtures("undrawn", "no_floors")
TINY = "--numIters 4 --set members=1 --set batch_size=8"


def in_folds(at: Path, of: Path, command: str) -> Outcome:
    """A job of a tiny nn, such as `--train --folds 3`, on a cohort, with all of it in the folder `at`."""
    job = re.search("--(train|test|blackout)", command)[1]
    settings = TINY if job == "train" else ""
    places = f"--dataDir {{of}} --chkPointDir {{at}}/ckpt --outDir {{at}}/{job}"
    return run(f"run.py --model nn {settings} {command} {places}", of=of, at=at)


def succeeded(at: Path, of: Path, *commands: str) -> str:
    """What the last of these jobs printed."""
    for command in commands:
        outcome = in_folds(at, of, command)
        assert (outcome.status, outcome.err) == (0, ""), outcome.err
    return outcome.out


def saved_in(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


@pytest.fixture
def tested(nn_on_folds) -> Path:
    """The folder of a nn trained and tested on 3 folds."""
    return nn_on_folds


def within_sites(table: pd.DataFrame) -> float:
    """The AUC of people of one site by scikit-learn, the mean over sites."""
    sites = [of for _, of in table.groupby("site")]
    areas = [roc_auc_score(of["label"], of["probability"]) for of in sites]
    return float(np.average(areas, weights=[*map(len, sites)]))


@pytest.mark.slow
def test_everybody_is_tested_once_by_a_model_that_never_saw_them(tested, converted):
    table = labs.read_table(tested / "test" / "predictions.csv")
    assert list(table) == ["file", "subject", "site", "label", "probability", "fold"] and len(table) == 40
    label, its = (of.set_index("subject")["label"] for of in (table, labs.read_table(converted / "subjects.csv")))
    assert label.to_dict() == its.to_dict()
    of_folds = tested / "ckpt" / "nn" / "folds-3"
    fold_of = labs.read_table(of_folds / "folds.csv").set_index("subject")["fold"]
    assert (fold_of[table["subject"]].to_numpy() == table["fold"]).all()
    for name in "012":
        assert set(saved_in(of_folds / name)["training_subjects"]) == set(fold_of.index[fold_of != name])


def scores_of(table: pd.DataFrame) -> dict[str, float]:
    """By scikit-learn, the mean over folds by how many people they have."""
    of_fold = [roc_auc_score(fold["label"], fold["probability"]) for _, fold in table.groupby("fold")]
    size = table["fold"].value_counts().sort_index()
    auc = roc_auc_score(table["label"], table["probability"])
    return {"auc": auc, "auc_folds": np.average(of_fold, weights=size), "auc_sites": within_sites(table)}


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
    written = saved_in(tested / "test")
    assert (written["folds"], written["fold"], written["finished"]) == ("3", None, True)
    assert (written["prepared"]["scaled_by"], written["prepared"]["together"]) == ("fold", True)
    for name, digest in written["checkpoint_sha256"].items():
        assert digest == saved_in(tested / "ckpt/nn/folds-3" / name)["saved"]["ckpt-1"]["sha256"]
    assert set(written["checkpoint_sha256"]) == set("012")
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
    with open(copy / "test/fold-1/predictions.csv", "a") as file:
        file.write("x")
    out = succeeded(copy, converted, "--test --folds 3")
    assert ["done." in line for line in out.splitlines() if line.startswith("Fold ")] == [True, False, True]
    assert (copy / "test/report.html").is_file() and first.stat().st_mtime_ns == written
    for name in ("predictions.csv", "fold-1/predictions.csv"):
        assert (copy / "test" / name).read_bytes() == (tested / "test" / name).read_bytes()
    shutil.rmtree(copy / "train/fold-1")
    succeeded(copy, converted, "--train --folds 3")
    assert_bit_equal(copy / "ckpt/nn/folds-3/1", tested / "ckpt/nn/folds-3/1")
    assert "Everything is done." in succeeded(copy, converted, "--train --folds 3")
    out = succeeded(copy, converted, "--train --folds 3 --numIters 6")
    assert out.count("at iteration 4") == 3
    assert "done." not in succeeded(copy, converted, "--test --folds 3")
    assert (copy / "test/predictions.csv").read_bytes() != (tested / "test/predictions.csv").read_bytes()
    earlier = [path.read_bytes() for path in copy.glob("test/earlier/*/predictions.csv")]
    assert (tested / "test/predictions.csv").read_bytes() in earlier
    assert (copy / "test/thesis.txt").read_text() == "mine"


def kill_as_soon_as_one_is_replaced(folder: Path) -> None:
    """Kills the processes that do folds."""
    until = time.monotonic() + 120
    while not list(folder.glob("*.replaced")) and time.monotonic() < until:
        time.sleep(0.01)
    for process in multiprocessing.active_children():
        process.kill()


@pytest.mark.slow
@pytest.mark.bits
def test_folds_side_by_side_are_those_one_after_another(tested, converted, tmp_path, monkeypatch):
    """Also where they override others, and after a kill. The results are pooled once, when all are done."""
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        monkeypatch.delenv(name, raising=False)
    at = shutil.copytree(tested, tmp_path / "other")
    command = "--train --folds 3 --jobs 2 --overrideChkpt"
    killer = threading.Thread(target=kill_as_soon_as_one_is_replaced, args=(at / "ckpt/nn/folds-3",))
    killer.start()
    outcome = in_folds(at, converted, command)
    killer.join()
    assert outcome.status == 128 + signal.SIGKILL
    assert re.search(r"Fold \d was killed; is the memory too small for 2 jobs\?\n", outcome.err)
    assert outcome.out.count(" subjects trained on, ") < 2  # the third was not begun
    assert succeeded(at, converted, command).count(" subjects trained on, ") == 3
    for fold in "012":
        assert_bit_equal(*(of / "ckpt/nn/folds-3" / fold for of in (tested, at)))
    cores = len(os.sched_getaffinity(0))
    assert saved_in(at / "train/fold-0")["processor"]["threads"] == max(1, cores // 2)


@pytest.mark.slow
def test_blackout_pools_the_effects_of_all_folds(blackout, on_folds):
    parts = [dict(h5py.File(blackout / f"fold-{name}/blackout.h5")) for name in "012"]
    with h5py.File(blackout / "blackout.h5") as pooled:
        assert len(pooled["subject"]) == 40
        for name in ("probability", "subject", "label"):
            np.testing.assert_array_equal(pooled[name][()], np.concatenate([part[name][()] for part in parts]))
        probability = dict(zip(pooled["subject"].asstr(), pooled["probability"], strict=True))
    of_test = pd.read_csv(on_folds / "test/predictions.csv", dtype={"subject": str}).set_index("subject")
    assert of_test["probability"].to_dict() == pytest.approx(probability, abs=1e-5)


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
@pytest.mark.parametrize("name", ["predictions.csv", "floor_predictions.csv"])
def test_probabilities_are_means_over_the_repeats(name, twice):
    mean = pd.read_csv(twice / "test" / name).set_index("file")
    each = [pd.read_csv(twice / f"test/repeat-{at}" / name).set_index("file").loc[mean.index] for at in (0, 1)]
    assert "fold" in each[0] and "fold" not in mean and set(mean) == set(each[0]) - {"fold"}
    for column in mean.select_dtypes("number"):
        np.testing.assert_allclose(mean[column], (each[0][column] + each[1][column]) / 2, atol=1e-6)


@pytest.mark.slow
def test_mean_probabilities_are_calibrated_by_the_folds_of_the_first_repeat(twice):
    table, mean, first = (
        pd.read_csv(twice / "test" / name).set_index("file")
        for name in ("probabilities.csv", "predictions.csv", "repeat-0/predictions.csv")
    )
    assert table["fold"].equals(first["fold"][table.index]) and len(table) == 40
    np.testing.assert_allclose(table["probability"], mean["probability"][table.index])
    observed = pd.read_csv(twice / "test/calibration.csv")
    assert set(observed["group"].dropna()) == set(mean["site"])


@pytest.mark.slow
def test_the_scores_of_each_repeat_are_those_of_its_predictions(twice):
    rows = labs.read_table(twice / "test/repeats.csv")
    assert [*zip(rows["repeat"], rows["seed"], strict=True)] == [("0", "5"), ("1", "6")]
    within = []
    for at, row in rows.iterrows():
        table = pd.read_csv(twice / f"test/repeat-{at}/predictions.csv")
        expected = scores_of(table)
        assert {name: float(row[name]) for name in expected} == pytest.approx(expected)
        assert float(row["auc_folds_low"]) <= expected["auc_folds"] <= float(row["auc_folds_high"])
        within.append(expected["auc_sites"])
    metrics = json.loads((twice / "test/metrics.json").read_text())
    assert metrics["auc_sites"]["value"] == pytest.approx(np.mean(within))
    written = saved_in(twice / "test")
    assert (written["repeats"], written["seed"], written["finished"]) == (2, 5, True)
    assert set(written["checkpoint_sha256"]) == {f"{fold}, repeat {repeat}" for fold in "01" for repeat in "01"}
    assert "mean over 2 repeats" in written["conclusion"] and f"{np.mean(within):.2f}" in written["conclusion"]
    assert [*labs.read_table(twice / "runs.csv")["folds"]] == ["2, 2 repeats"] * 2
    assert [*labs.read_table(twice / "test/runs.csv")["folds"]] == ["2, repeat 0", "2, repeat 1"]


@pytest.mark.slow
def test_more_repeats_continue_fewer_also_in_pieces(twice, converted, tmp_path):
    copy = shutil.copytree(twice, tmp_path / "copy")
    kept = {path: path.stat().st_mtime_ns for path in copy.glob("ckpt/nn/folds-2/repeat-[01]/*/*")}
    out = succeeded(copy, converted, "--train --folds 2 --repeats 3 --fold 0")
    assert "Still to be done before the results are pooled: fold 1 of repeat 2.\n" in out
    assert out.count("Still to be done") == 1
    assert [line.endswith("done.") for line in out.splitlines() if line.startswith("Fold 0")] == [1, 1, 0]
    shutil.rmtree(copy / "train/repeat-1/fold-1")  # as if it had been killed before
    assert "Everything is done" not in succeeded(copy, converted, "--train --folds 2 --repeats 3")
    assert "Everything is done" in succeeded(copy, converted, "--train --folds 2 --repeats 3")
    assert saved_in(copy / "ckpt/nn/folds-2/repeat-2/1")["seed"] == 7
    assert_bit_equal(*(folder / "ckpt/nn/folds-2/repeat-1/1" for folder in (copy, twice)))
    again = copy / "ckpt/nn/folds-2/repeat-1/1"
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items() if path.parent != again)


@pytest.mark.slow
def test_repeats_on_the_folds_of_a_column_differ_in_their_starts(converted, tmp_path):
    out = succeeded(tmp_path, converted, "--train --folds SEX --repeats 2 --numIters 1")
    assert out.count("The repeats have the same folds, and differ in the networks' starts") == 1
    one, other = (tmp_path / f"ckpt/nn/folds-SEX/repeat-{at}" for at in (0, 1))
    assert (one / "folds.csv").read_bytes() == (other / "folds.csv").read_bytes()
    assert [saved_in(of / "1")["seed"] for of in (one, other)] == [0, 1]
