"""--train: what it leaves, exact resuming, signals, kills, and what overriding keeps."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import (
    ROOT,
    SMALL_BATCH,
    add_connectomes,
    assert_bit_equal,
    commands_of,
    read_rows,
    start_worker,
    step_of,
    training,
    variables,
    without_speed,
)
from sklearn.linear_model import Ridge

from data.cohorts.stored import open_cohort
from utils.machines import devices
from utils.runs.checkpoints import CheckpointFolder
from utils.scores import ridge

pytestmark = pytest.mark.usefixtures("undrawn")
PNG = b"\x89PNG"


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("model, measures", [("cnn", ["loss", "accuracy"]), ("ae", ["loss"])])
def test_training_leaves_history_figure_events_and_run(model, measures, train, cohort, tmp_path):
    outcome = train("one", model, 5)
    assert outcome.status == 0, outcome.err
    assert outcome.err == ""
    out = tmp_path / "one" / "out"
    rows = read_rows(out / "history.csv")
    assert list(rows[0]) == ["step", *measures, "samples_per_s"]
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5]
    assert all(0 < float(row["loss"]) < 100 and float(row["samples_per_s"]) > 0 for row in rows)
    assert all(float(row.get("accuracy", 0)) * 8 % 1 == 0 for row in rows)  # batches of 8
    assert (out / "history.png").read_bytes().startswith(PNG)
    assert list(out.glob("events.out.tfevents.*"))
    run = json.loads((out / "run.json").read_text())
    assert run["command"][0] == "run.py"
    assert "--numIters" in run["command"]
    assert (run["model"], run["seed"], run["config"]["batch_size"]) == (model, 0, 8)
    assert run["cohort_sha256"] == open_cohort(cohort).digest
    assert run["checkpoint_sha256"] == CheckpointFolder(tmp_path / "one" / "ckpt" / model).digest()
    assert run["wall_time_s"] > 0
    assert {"tensorflow", "numpy"} <= run["packages"].keys()
    assert run["processor"] == devices.processor()
    assert "git_commit" in run


@pytest.mark.slow
def test_training_learns(train, tmp_path):
    """The phenotype of 36 subjects can be learnt by heart."""
    assert train("one", "nn", 150, "--set", "learning_rate=0.01").status == 0
    rows = read_rows(tmp_path / "one" / "out" / "history.csv")
    assert np.mean([float(row["accuracy"]) for row in rows[-10:]]) > 0.9
    assert np.mean([float(row["accuracy"]) for row in rows[:5]]) < 0.8


@pytest.mark.slow
@pytest.mark.bits
@pytest.mark.parametrize(
    "model, more",
    [
        ("cnn", ()),
        ("ae", ()),
        ("mmnn", ("--preset", "regions", "--set", "members=2")),
        ("cnn", ("--preset", "combined", "--set", "members=2")),  # has dropout and shares
        ("nn", ("--precision", "mixed_float16", "--set", "batch_size=3", "--seed", "7")),
    ],
)
def test_continuing_is_bit_equal_to_one_go(model, more, train, tmp_path):
    assert train("whole", model, 5, *more).status == 0
    assert train("parts", model, 2, *more).status == 0
    continued = train("parts", model, 5, *more)
    assert "at iteration 2." in continued.out
    assert_bit_equal(tmp_path / "whole" / "ckpt" / model, tmp_path / "parts" / "ckpt" / model)
    whole, parts = (without_speed(tmp_path / name / "out" / "history.csv") for name in ("whole", "parts"))
    assert parts == whole


@pytest.fixture(scope="module")
def with_connectomes(cohort, tmp_path_factory):
    """The cohort of other tests, and connectomes whose first edges tell the diagnosis."""
    folder = tmp_path_factory.mktemp("connectomes") / "cohort"
    shutil.copytree(cohort, folder)
    return add_connectomes(folder, difference=2.0)


TRAIN_MMNN = ("--train", "--model", "mmnn", "--preset", "regions", "--set", "members=1", *SMALL_BATCH)


@pytest.mark.slow
def test_connectomes_are_read_by_a_ridge_of_the_training_records(with_connectomes, cohort, cli, tmp_path):
    folders = ("--chkPointDir", tmp_path / "ckpt", "--dataDir", with_connectomes.path, "--outDir", tmp_path / "out")
    assert cli(*TRAIN_MMNN, "--numIters", 2, *folders).status == 0
    weights = [value for value in variables(tmp_path / "ckpt" / "mmnn").values() if value.shape == (28,)]
    training = with_connectomes.indices("train")
    edges, rows = with_connectomes.connectomes[training], pd.DataFrame([with_connectomes.rows[at] for at in training])
    target = rows["label"] - rows.groupby("site")["label"].transform("mean")
    filled = np.where(np.isnan(edges), np.nanmean(edges, 0), edges)
    scale = np.sqrt(ridge.WEIGHT / 28) / filled.std(0)
    scores = (filled - filled.mean(0)) * scale
    ridges = [Ridge(alpha=penalty).fit(scores, target).coef_ for penalty in ridge.PENALTIES]
    closest = [max(np.corrcoef(value, one)[0, 1] for one in (filled.mean(0), scale, *ridges)) for value in weights]
    assert len(weights) == 3
    assert min(closest) > 1 - 1e-5
    test = ("--test", "--model", "mmnn", *folders[:2], "--outDir", tmp_path / "test")
    refused = cli(*test, "--dataDir", cohort)
    assert (refused.status, "has no connectomes, and the checkpoint reads them" in refused.err) == (2, True)
    tested = cli(*test, *folders[2:4])
    assert tested.status == 0, tested.err


@pytest.mark.slow
def test_connectomes_are_left_out_where_they_are_not_wanted_or_not_there(with_connectomes, cohort, cli, tmp_path):
    def train(name, data, *more):
        folders = ("--chkPointDir", tmp_path / name, "--dataDir", data, "--outDir", tmp_path / f"{name}-out")
        return cli(*TRAIN_MMNN, "--numIters", 1, *more, *folders)

    assert train("without", with_connectomes.path, "--set", "connectome=false").status == 0
    assert train("none", cohort).status == 0
    for name in ("without", "none"):
        assert json.loads((tmp_path / name / "mmnn" / "run.json").read_text())["config"]["connectome"] is False
        assert (28,) not in {value.shape for value in variables(tmp_path / name / "mmnn").values()}
    words = "asks for them; convert it with --connectome, or leave it out."
    for text in ("true", "True"):
        asked = train("asked", cohort, "--set", f"connectome={text}")
        assert asked.status == 2
        assert f"has no connectomes, and --set connectome=true {words}" in asked.err


def test_a_finished_command_repeated_changes_nothing(train, seen_two, tmp_path):
    shutil.copytree(seen_two, tmp_path / "one")
    before = variables(tmp_path / "one" / "ckpt" / "nn")
    outcome = train("one", "nn", 2)
    assert outcome.status == 0
    assert "has seen 2 of 2 iterations: nothing to train" in outcome.out
    after = variables(tmp_path / "one" / "ckpt" / "nn")
    assert all((before[name] == after[name]).all() for name in before)


@pytest.mark.slow
def test_results_of_another_training_are_moved_aside_by_one_that_goes_on(train, seen_two, tmp_path):
    """Of the same model, with other settings."""
    shutil.copytree(seen_two, tmp_path / "one")
    assert train("other", "nn", 3, "--seed", "1").status == 0
    history = (tmp_path / "other" / "out" / "history.csv").read_bytes()
    outcome = train("one", "nn", 4, "--outDir", tmp_path / "other" / "out")
    assert outcome.status == 0, outcome.err
    assert "history.csv has no row of the 2 batches before; it begins with the next one." in outcome.out
    (moved,) = (tmp_path / "other" / "out" / "earlier").glob("*/history.csv")
    assert moved.read_bytes() == history
    assert [row["step"] for row in read_rows(tmp_path / "other" / "out" / "history.csv")] == ["3", "4"]


def ended(*_) -> None:
    """In place of a save: the process ends before it."""
    raise KeyboardInterrupt


@pytest.mark.slow
def test_rows_of_a_training_from_zero_that_never_saved_are_not_continued(train, seen_two, tmp_path, monkeypatch):
    shutil.copytree(seen_two, tmp_path / "one")
    with monkeypatch.context() as patch:
        patch.setattr("utils.training.network.Saver.save", ended)
        assert train("one", "nn", 3, "--overrideChkpt").status == 130
    out = tmp_path / "one" / "out"
    assert [row["step"] for row in read_rows(out / "history.csv")] == ["1", "2", "3"]
    outcome = train("one", "nn", 4)
    assert "at iteration 2." in outcome.out, outcome.err
    assert [row["step"] for row in read_rows(out / "history.csv")] == ["3", "4"]
    assert len(list((out / "earlier").glob("*/history.csv"))) == 2


@pytest.mark.slow
def test_a_figure_that_was_deleted_is_drawn_again_without_training(train, seen_two, tmp_path):
    shutil.copytree(seen_two, tmp_path / "one")
    out = tmp_path / "one" / "out"
    history = (out / "history.csv").read_bytes()
    (out / "history.png").unlink()
    outcome = train("one", "nn", 2)
    assert (outcome.status, outcome.err) == (0, "")
    assert (out / "history.png").exists()
    assert (out / "history.csv").read_bytes() == history
    assert "nothing to train" in train("one", "nn", 2).out


@pytest.mark.slow
def test_another_seed_gives_other_weights(train, seen_two, tmp_path):
    train("other", "nn", 2, "--seed", "1")
    one, other = (variables(folder / "ckpt" / "nn") for folder in (seen_two, tmp_path / "other"))
    assert any((one[name] != other[name]).any() for name in one)


@pytest.mark.slow
def test_a_signal_saves_and_the_same_command_completes_the_job_bit_equal(train, cohort, tmp_path):
    """A real process, stopped when it reports its first iteration."""
    command = [sys.executable, str(ROOT / "run.py"), *training(tmp_path / "parts", cohort, "nn", 1_000_000)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert any(line.startswith("Training nn 1/") for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert err == ""
    done = int(re.search(r"Stopped at iteration (\d+) and saved; the same command continues", out)[1])
    assert step_of(tmp_path / "parts" / "ckpt" / "nn") == done
    assert train("parts", "nn", done + 3).status == 0
    assert train("whole", "nn", done + 3).status == 0
    assert_bit_equal(tmp_path / "whole" / "ckpt" / "nn", tmp_path / "parts" / "ckpt" / "nn")


# In this process, since the signal has to arrive after a certain batch; the test above sends one to a process.
@pytest.mark.slow
def test_a_signal_saves_and_says_how_far_it_came(train, tmp_path, monkeypatch):
    from data.base.terminal import PlainProgress

    advance, number = PlainProgress.advance, signal.SIGINT

    def advance_and_interrupt(self, *arguments):
        advance(self, *arguments)
        if self.done == 4:
            signal.raise_signal(number)

    monkeypatch.setattr(PlainProgress, "advance", advance_and_interrupt)
    handler = signal.getsignal(number)
    outcome = train("one", "nn", 9)
    assert (outcome.status, outcome.err) == (128 + number, "")
    assert "Stopped at iteration 4 and saved" in outcome.out
    assert signal.getsignal(number) is handler
    assert step_of(tmp_path / "one" / "ckpt" / "nn") == 4
    manifest = json.loads((tmp_path / "one" / "out" / "run.json").read_text())
    assert (manifest["finished"], manifest["step"]) == (False, 4)
    assert not (tmp_path / "one" / "runs.csv").exists()  # of runs that are finished


@pytest.fixture(scope="module")
def killed(cohort, tmp_path_factory) -> Path:
    """The folder of a training with a checkpoint every 2 batches that SIGKILL ended at batch 6, whose row the history
    has and no checkpoint."""
    folder = tmp_path_factory.mktemp("six")
    commands = commands_of(folder, training(folder, cohort, "nn", 8))
    process = start_worker(commands, "--interval", "2", "--kill", "6")
    process.communicate(timeout=180)
    assert process.returncode == -signal.SIGKILL
    return folder


@pytest.mark.slow
def test_killed_between_checkpoints_the_last_one_is_continued(train, killed, tmp_path):
    """Batches 5 and 6 are done again, in weights and in history."""
    parts = shutil.copytree(killed, tmp_path / "parts")
    assert step_of(parts / "ckpt" / "nn") == 4
    assert [row["step"] for row in read_rows(parts / "out" / "history.csv")] == list("123456")
    assert "at iteration 4." in train("parts", "nn", 8).out
    train("whole", "nn", 8)
    assert_bit_equal(tmp_path / "whole" / "ckpt" / "nn", parts / "ckpt" / "nn")
    assert without_speed(parts / "out" / "history.csv") == without_speed(tmp_path / "whole" / "out" / "history.csv")


@pytest.mark.slow
def test_override_keeps_the_old_checkpoint_until_the_new_run_has_saved(
    train, seen_two, cli, cohort, tmp_path, monkeypatch
):
    """What overrides, with another seed, ends before its first checkpoint."""
    folder = CheckpointFolder(shutil.copytree(seen_two, tmp_path / "one") / "ckpt" / "nn")
    with monkeypatch.context() as patch:
        patch.setattr("utils.training.network.Saver.save", ended)
        assert train("one", "nn", 5, "--overrideChkpt", "--seed", "1").status == 130
    assert (folder.current, folder.digest()) == (folder.replaced, CheckpointFolder(seen_two / "ckpt" / "nn").digest())
    where = ("--chkPointDir", tmp_path / "one" / "ckpt", "--dataDir", cohort)
    assert cli("--test", "--model", "nn", *where).status == 0
    assert "at iteration 2." in train("one", "nn", 3).out

    assert train("one", "nn", 5, "--overrideChkpt", "--seed", "1").status == 0
    assert {path.name for path in (tmp_path / "one" / "ckpt").iterdir()} - {"means"} == {"nn"}
    assert train("fresh", "nn", 5, "--seed", "1").status == 0
    assert_bit_equal(folder.path, tmp_path / "fresh" / "ckpt" / "nn")


@pytest.mark.slow
def test_override_keeps_the_earlier_results_and_what_the_user_put_beside_them(train, seen_two, tmp_path):
    shutil.copytree(seen_two, tmp_path / "one")
    out = tmp_path / "one" / "out"
    (out / "note.txt").write_text("mine")
    old = (out / "history.csv").read_text()
    outcome = train("one", "nn", 3, "--overrideChkpt")
    assert "The earlier results in" in outcome.out
    assert [path.read_text() for path in (out / "earlier").rglob("history.csv")] == [old]
    assert len(read_rows(out / "history.csv")) == 3
    assert (out / "note.txt").read_text() == "mine"
    assert not list((out / "earlier").rglob("note.txt"))


@pytest.mark.slow
def test_overriding_gets_past_a_description_that_is_damaged(train, seen_two, tmp_path):
    shutil.copytree(seen_two, tmp_path / "one")
    described = tmp_path / "one" / "ckpt" / "nn" / "run.json"
    described.write_bytes(described.read_bytes()[:300])
    assert "is damaged" in train("one", "nn", 3).err
    outcome = train("one", "nn", 2, "--overrideChkpt")
    assert outcome.status == 0, outcome.err
    assert_bit_equal(tmp_path / "one" / "ckpt" / "nn", seen_two / "ckpt" / "nn")
