"""--train: history, exact resuming, checkpoints that survive interruption, override and a full disk."""

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, SMALL_BATCH, TINY_CNN, TINY_NN, read_rows

from data.cohorts.atlas import load_atlas
from data.cohorts.cohort import open_cohort
from data.cohorts.records import within_brain
from utils.runs.checkpoints import CheckpointFolder
from utils.training.loop import SAVE_EVERY

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]

SMALL = {"cnn": TINY_CNN + SMALL_BATCH, "mmnn": TINY_CNN + SMALL_BATCH, "nn": TINY_NN + SMALL_BATCH, "ae": SMALL_BATCH}
PNG = b"\x89PNG"


@pytest.fixture
def train(cli, cohort, tmp_path):
    """`train("one", "cnn", 5)` trains a tiny cnn until iteration 5 with everything in the folder `one`."""

    def run(name, model, iterations, *more):
        places = ("--chkPointDir", tmp_path / name / "ckpt", "--outDir", tmp_path / name / "out", "--dataDir", cohort)
        return cli("--train", "--model", model, "--numIters", iterations, *places, *SMALL[model], *more)

    return run


@pytest.fixture(scope="module")
def seen_six(cli, cohort, tmp_path_factory) -> Path:
    """The folder of a nn that has seen 6 batches, with checkpoints of the 2nd, the 4th and the 6th."""
    folder = tmp_path_factory.mktemp("six")
    places = ("--chkPointDir", folder / "ckpt", "--outDir", folder / "out", "--dataDir", cohort)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utils.training.loop.SAVE_EVERY", 2)
        assert cli("--train", "--model", "nn", "--numIters", 6, *places, *SMALL["nn"]).status == 0
    return folder


@pytest.fixture(scope="module")
def seen_two(cli, cohort, tmp_path_factory) -> Path:
    """The folder of a nn that has seen 2 batches."""
    folder = tmp_path_factory.mktemp("two")
    places = ("--chkPointDir", folder / "ckpt", "--outDir", folder / "out", "--dataDir", cohort)
    assert cli("--train", "--model", "nn", "--numIters", 2, *places, *SMALL["nn"]).status == 0
    return folder


def variables(folder) -> dict[str, np.ndarray]:
    """Everything in the latest checkpoint, weights, optimizer and step, but for the number of saves."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(CheckpointFolder(folder).latest()))
    names = [name for name in reader.get_variable_to_shape_map() if "save_counter" not in name]
    return {name: reader.get_tensor(name) for name in names if "OBJECT_GRAPH" not in name}


def step_of(folder) -> int:
    return int(variables(folder)["step/.ATTRIBUTES/VARIABLE_VALUE"])


def assert_bit_equal(one, other) -> None:
    first, second = variables(one), variables(other)
    assert first.keys() == second.keys()
    assert len(first) > 10
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


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
    assert "git_commit" in run


def test_the_first_loss_is_that_of_the_first_batch_by_hand(train, cohort, tmp_path):
    """Batch 0 through a network built and initialised anew; its batch norm uses the batch, as in training."""
    import keras

    from models import MODELS
    from models.settings import override
    from utils.training.loop import batch_positions

    train("one", "nn", 1, "--preset", "default")
    row = read_rows(tmp_path / "one" / "out" / "history.csv")[0]
    opened = open_cohort(cohort)
    keras.utils.set_random_seed(0)
    module = MODELS["nn"].module
    network = module.build(override(module.PRESETS["default"], ["batch_size=8"]), opened.grid)
    batch = opened.batch(opened.indices("train")[batch_positions(0, 0, 8, 36)], volumes=False)
    logits = np.array(network({"phenotype": batch["phenotype"]}, training=True), float)
    chosen = logits[np.arange(8), batch["label"]]
    expected = (np.log(np.exp(logits).sum(1)) - chosen).mean()
    assert float(row["loss"]) == pytest.approx(expected, rel=1e-4)
    assert float(row["accuracy"]) == (logits.argmax(1) == batch["label"]).mean()


def test_training_learns(train, tmp_path):
    """The phenotype of 36 subjects can be learnt by heart."""
    assert train("one", "nn", 150, "--set", "learning_rate=0.01").status == 0
    rows = read_rows(tmp_path / "one" / "out" / "history.csv")
    assert np.mean([float(row["accuracy"]) for row in rows[-10:]]) > 0.9
    assert np.mean([float(row["accuracy"]) for row in rows[:5]]) < 0.8


@pytest.mark.parametrize(
    "model, more",
    [
        ("cnn", ()),
        ("ae", ()),
        ("mmnn", ("--preset", "regions", "--set", "members=2")),
        ("cnn", ("--preset", "convolutional", "--set", "swap_regions=13", "--set", "members=2")),  # has dropout
        ("mmnn", ("--precision", "mixed_float16", "--set", "residual=false", "--seed", "7")),
    ],
)
def test_continuing_is_bit_equal_to_one_go(model, more, train, tmp_path):
    assert train("whole", model, 8, *more).status == 0
    assert train("parts", model, 3, *more).status == 0
    continued = train("parts", model, 8, *more)
    assert "at iteration 3." in continued.out
    assert_bit_equal(tmp_path / "whole" / "ckpt" / model, tmp_path / "parts" / "ckpt" / model)
    whole, parts = (without_speed(tmp_path / name / "out" / "history.csv") for name in ("whole", "parts"))
    assert parts == whole


def test_region_means_are_standardised_by_the_training_records(train, cohort, tmp_path):
    train("one", "mmnn", 2, "--preset", "regions", "--set", "members=2")
    opened = open_cohort(cohort)
    batch = opened.batch(opened.indices("train"))
    atlas = load_atlas(None, opened.grid)
    means = atlas.means(np.stack([within_brain(volume) for volume in batch["volume"]]))[..., 0]
    found = variables(tmp_path / "one" / "ckpt" / "mmnn")
    (mean,) = [value for name, value in found.items() if "/mean/" in name and value.shape == (116, 1)]
    (spread,) = [value for name, value in found.items() if "/spread/" in name and value.shape == (116, 1)]
    np.testing.assert_allclose(mean[:, 0], means.mean(0), atol=1e-5)
    np.testing.assert_allclose(spread[:, 0], means.std(0), rtol=1e-4)


def test_a_loss_is_that_of_the_networks_together(train, tmp_path):
    """Eight networks that begin undecided have the loss of one, and weights have no penalty."""
    train("one", "nn", 1, "--set", "members=8")
    (row,) = read_rows(tmp_path / "one" / "out" / "history.csv")
    assert float(row["loss"]) == pytest.approx(np.log(2), rel=1e-5)


@pytest.mark.parametrize("half_rate_after, expected", [(0, 0.25), (2, 0.25 / 2.5)])
def test_the_rate_falls_with_the_batches_seen(half_rate_after, expected):
    from models import nn
    from utils.training.train import make_optimizer

    config = nn.Config(learning_rate=0.25, half_rate_after=half_rate_after)
    optimizer = make_optimizer(config, "float32")
    optimizer.iterations.assign(3)
    assert float(optimizer.learning_rate) == pytest.approx(expected)


def test_a_finished_command_repeated_changes_nothing(train, seen_two, tmp_path):
    shutil.copytree(seen_two, tmp_path / "one")
    before = variables(tmp_path / "one" / "ckpt" / "nn")
    outcome = train("one", "nn", 2)
    assert outcome.status == 0
    assert "has seen 2 of 2 iterations: nothing to train" in outcome.out
    after = variables(tmp_path / "one" / "ckpt" / "nn")
    assert all((before[name] == after[name]).all() for name in before)


def test_another_seed_gives_other_weights(train, seen_two, tmp_path):
    train("other", "nn", 2, "--seed", "1")
    one, other = (variables(folder / "ckpt" / "nn") for folder in (seen_two, tmp_path / "other"))
    assert any((one[name] != other[name]).any() for name in one)


def test_a_signal_saves_and_the_same_command_completes_the_job_bit_equal(train, cohort, tmp_path):
    """A real process, stopped when it reports its first iteration."""
    arguments = ["--train", "--model", "mmnn", "--numIters", "1000000", *SMALL["mmnn"], "--dataDir", str(cohort)]
    places = ["--chkPointDir", str(tmp_path / "parts" / "ckpt"), "--outDir", str(tmp_path / "parts" / "out")]
    command = [sys.executable, str(ROOT / "run.py"), *arguments, *places]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert any(line.startswith("Training mmnn 1/") for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert err == ""
    done = int(re.search(r"Stopped at iteration (\d+) and saved; the same command continues", out)[1])
    assert step_of(tmp_path / "parts" / "ckpt" / "mmnn") == done
    assert train("parts", "mmnn", done + 3).status == 0
    assert train("whole", "mmnn", done + 3).status == 0
    assert_bit_equal(tmp_path / "whole" / "ckpt" / "mmnn", tmp_path / "parts" / "ckpt" / "mmnn")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_and_says_how_far_it_came(number, train, tmp_path, monkeypatch):
    from data.base.progress import PlainProgress

    advance = PlainProgress.advance

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


def test_checkpoints_are_saved_at_intervals_and_at_the_end(train, tmp_path, monkeypatch):
    assert SAVE_EVERY == 150
    from utils.runs.checkpoints import Saver

    save, saved = Saver.save, []
    monkeypatch.setattr("utils.training.loop.SAVE_EVERY", 2)
    monkeypatch.setattr(Saver, "save", lambda self, step, identity: (saved.append(step), save(self, step, identity)))
    assert train("one", "nn", 7).status == 0
    assert saved == [2, 4, 6, 7]
    assert len(list((tmp_path / "one" / "ckpt" / "nn").glob("*.index"))) <= 3


def killed(*_):
    """Stands for a process that ends before its first checkpoint."""
    raise KeyboardInterrupt


def kill_after(step: int, patch) -> None:
    """Training ends after `step` batches as if killed: nothing is saved then."""
    from data.base.progress import PlainProgress

    patch.setattr("utils.training.loop.SAVE_EVERY", 2)
    patch.setattr(PlainProgress, "advance", lambda self, *_: killed() if next(steps) == step else None)
    steps = iter(range(1, step + 1))


def without_speed(path) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "samples_per_s"} for row in read_rows(path)]


def test_killed_between_checkpoints_the_last_one_is_continued(train, tmp_path, monkeypatch):
    """Killed after batch 5 with a checkpoint every 2: batch 5 is done again, in weights and in history."""
    with monkeypatch.context() as patch:
        kill_after(5, patch)
        assert train("parts", "nn", 8).status == 130
    assert step_of(tmp_path / "parts" / "ckpt" / "nn") == 4
    assert "at iteration 4." in train("parts", "nn", 8).out
    train("whole", "nn", 8)
    assert_bit_equal(tmp_path / "whole" / "ckpt" / "nn", tmp_path / "parts" / "ckpt" / "nn")
    whole, parts = (without_speed(tmp_path / name / "out" / "history.csv") for name in ("whole", "parts"))
    assert parts == whole


def test_override_keeps_the_history_of_a_killed_run(train, tmp_path, monkeypatch):
    out = tmp_path / "one" / "out"
    with monkeypatch.context() as patch:
        kill_after(5, patch)
        train("one", "nn", 8)
    old = (out / "history.csv").read_text()
    assert train("one", "nn", 2, "--overrideChkpt").status == 0
    assert [path.read_text() for path in (out / "earlier").rglob("history.csv")] == [old]


def test_override_keeps_the_old_checkpoint_until_the_new_run_has_saved(train, cli, cohort, tmp_path, monkeypatch):
    folder = CheckpointFolder(tmp_path / "one" / "ckpt" / "nn")
    assert train("one", "nn", 3).status == 0
    digest = folder.digest()
    with monkeypatch.context() as patch:
        patch.setattr("utils.training.loop.Training.loop", killed)
        outcome = train("one", "nn", 5, "--overrideChkpt", "--seed", "1")
    assert (outcome.status, outcome.err) == (130, "run.py: interrupted; repeat the command.\n")
    assert folder.digest() == digest
    where = ("--chkPointDir", tmp_path / "one" / "ckpt", "--dataDir", cohort)
    assert cli("--test", "--model", "nn", *where).status == 0
    assert "at iteration 3." in train("one", "nn", 4).out

    assert train("one", "nn", 5, "--overrideChkpt", "--seed", "1").status == 0
    assert [path.name for path in (tmp_path / "one" / "ckpt").iterdir()] == ["nn"]
    assert train("fresh", "nn", 5, "--seed", "1").status == 0
    assert_bit_equal(folder.path, tmp_path / "fresh" / "ckpt" / "nn")


def test_override_takes_another_preset_and_settings(train, tmp_path):
    train("one", "cnn", 1)
    assert train("one", "cnn", 1, "--overrideChkpt", "--set", "residual=false").status == 0
    assert not CheckpointFolder(tmp_path / "one" / "ckpt" / "cnn").identity().config["residual"]


def test_override_keeps_the_earlier_results(train, seen_two, tmp_path):
    shutil.copytree(seen_two, tmp_path / "one")
    old = (tmp_path / "one" / "out" / "history.csv").read_text()
    outcome = train("one", "nn", 3, "--overrideChkpt")
    assert "The earlier results in" in outcome.out
    assert [path.read_text() for path in (tmp_path / "one" / "out" / "earlier").rglob("history.csv")] == [old]
    assert len(read_rows(tmp_path / "one" / "out" / "history.csv")) == 3


@contextmanager
def largest_file(num_bytes: int):
    """Files cannot grow past `num_bytes`, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


WIDE = ("--set", "filters=8,24")  # its checkpoint has some 250 kB, more than any other file of the run


@pytest.mark.usefixtures("drawn")
def test_a_full_disk_leaves_the_last_checkpoint_which_is_resumed(train, tmp_path):
    """At 150 kB only the checkpoint does not fit, at 100 bytes nothing does."""
    folder = CheckpointFolder(tmp_path / "one" / "ckpt" / "cnn")
    assert train("one", "cnn", 2, *WIDE).status == 0
    digest = folder.digest()
    for limit, words in ((150_000, "the one before is intact. Make room for it and repeat"), (100, "")):
        with largest_file(limit):
            outcome = train("one", "cnn", 4, *WIDE)
        assert outcome.status == 2
        assert outcome.err.startswith("run.py: error: ")
        assert outcome.err.count("\n") == 1
        assert words in outcome.err
        assert folder.digest() == digest
        assert step_of(folder.path) == 2
    assert train("one", "cnn", 4, *WIDE).status == 0
    assert train("whole", "cnn", 4, *WIDE).status == 0
    assert_bit_equal(tmp_path / "whole" / "ckpt" / "cnn", folder.path)


@pytest.mark.usefixtures("drawn")
def test_outputs_that_met_a_full_disk_are_completed_when_the_command_is_repeated(train, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("utils.figures.history", full)
        outcome = train("one", "nn", 3)
        assert outcome.status == 2
        assert "No space left on device" in outcome.err
    out = tmp_path / "one" / "out"
    assert not (out / "history.png").exists()
    assert train("one", "nn", 3).status == 0
    assert (out / "history.png").read_bytes().startswith(PNG)
    assert json.loads((out / "run.json").read_text())["finished"]
    assert len(read_rows(out / "history.csv")) == 3
    assert "nothing to train" in train("one", "nn", 3).out


def test_the_first_checkpoint_on_a_full_disk_is_not_said_to_have_one_before_it(train, tmp_path):
    with largest_file(150_000):
        outcome = train("one", "cnn", 2, *WIDE)
    assert outcome.status == 2
    assert "there is none before it" in outcome.err
    assert not [path.name for path in (tmp_path / "one" / "ckpt" / "cnn").iterdir() if path.name.startswith("ckpt")]


def test_an_older_checkpoint_is_continued_after_a_setting_is_added(train, tmp_path):
    """What an older version does not say of itself is as by default."""
    assert train("one", "cnn", 2).status == 0
    path = tmp_path / "one" / "ckpt" / "cnn" / "run.json"
    identity = json.loads(path.read_text())
    del identity["config"]["l1"], identity["config"]["global_average"], identity["preparation"]
    path.write_text(json.dumps(identity))
    assert train("one", "cnn", 4).status == 0
    assert train("whole", "cnn", 4).status == 0
    assert_bit_equal(tmp_path / "whole" / "ckpt" / "cnn", tmp_path / "one" / "ckpt" / "cnn")


def test_a_second_run_on_the_same_folders_is_refused_and_names_the_first(train, cohort, tmp_path):
    """The lock of a process that was killed does not block."""
    arguments = ["--train", "--model", "nn", "--numIters", "1000000", *SMALL["nn"], "--dataDir", str(cohort)]
    places = ["--chkPointDir", str(tmp_path / "one" / "ckpt"), "--outDir", str(tmp_path / "one" / "out")]
    command = [sys.executable, str(ROOT / "run.py"), *arguments, *places]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert any(line.startswith("Training nn 1/") for line in process.stdout)
        for more in (("--outDir", tmp_path / "other"), ("--chkPointDir", tmp_path / "other")):
            outcome = train("one", "nn", 5, *more)
            assert outcome.status == 2
            assert f"is being written by process {process.pid} on " in outcome.err
            assert "run.py --train --model nn --numIters 1000000" in outcome.err
        assert not (tmp_path / "other").exists()
        process.kill()
        process.communicate()
    assert "Training nn" in train("one", "nn", 5).out


def test_what_the_user_put_beside_results_stays(train, seen_two, tmp_path):
    shutil.copytree(seen_two, tmp_path / "one")
    note = tmp_path / "one" / "out" / "note.txt"
    note.write_text("mine")
    assert train("one", "nn", 2, "--overrideChkpt").status == 0
    assert note.read_text() == "mine"
    assert not list((tmp_path / "one" / "out" / "earlier").rglob("note.txt"))


@pytest.mark.usefixtures("drawn")
def test_a_history_whose_last_line_was_cut_off_is_continued(train, seen_two, tmp_path):
    shutil.copytree(seen_two, tmp_path / "one")
    path = tmp_path / "one" / "out" / "history.csv"
    path.write_text(path.read_text() + "3,0.69")
    path.with_suffix(".png").unlink()
    assert train("one", "nn", 4).status == 0
    assert [row["step"] for row in read_rows(path)] == ["1", "2", "3", "4"]
    assert path.with_suffix(".png").read_bytes().startswith(PNG)


def test_files_of_a_checkpoint_that_was_never_completed_are_removed(train, seen_two, tmp_path):
    shutil.copytree(seen_two, tmp_path / "one")
    folder = tmp_path / "one" / "ckpt" / "nn"
    (folder / "ckpt-7_temp").mkdir()
    (folder / "ckpt-7_temp" / "part-00000-of-00001.data-00000-of-00001").write_bytes(b"half")
    (folder / "ckpt-7.index").write_bytes(b"half")
    assert train("one", "nn", 3).status == 0
    assert not list(folder.glob("ckpt-7*"))


def test_a_phenotype_made_otherwise_is_refused_and_one_of_unknown_making_is_said(cli, cohort, tmp_path):
    metadata = json.loads((cohort / "cohort.json").read_text())
    names, scale = metadata["phenotype"], [1.0] * 29

    def copy(name, **changes):
        folder = shutil.copytree(cohort, tmp_path / name)
        (folder / "cohort.json").write_text(json.dumps(metadata | {"phenotype_scale": scale} | changes))
        return folder

    where = ("--model", "nn", "--chkPointDir", tmp_path / "ckpt")
    own = copy("own")
    assert cli("--train", *where, "--numIters", 2, "--dataDir", own).status == 0
    columns = cli("--test", *where, "--dataDir", copy("columns", phenotype=[*names[:3], "IQ", *names[4:]]))
    assert columns.status == 2
    assert f"phenotype {names[3]} as entry 4, {tmp_path / 'columns'} has IQ as entry 4" in columns.err
    scaled = cli("--test", *where, "--dataDir", copy("scaled", phenotype_scale=[*scale[:28], 2.0]))
    assert scaled.status == 2
    assert f"phenotype_scale 1.0 as entry 29, {tmp_path / 'scaled'} has 2.0 as entry 29" in scaled.err
    unknown = cli("--test", *where, "--dataDir", copy("unknown", phenotype_scale=[]))
    assert unknown.status == 0, unknown.err
    assert re.search("so not compared: .*phenotype_scale", unknown.out)


def test_a_checkpoint_folder_can_be_moved(seen_two, cli, cohort, tmp_path):
    shutil.copytree(seen_two / "ckpt", tmp_path / "before")
    shutil.move(tmp_path / "before", tmp_path / "moved")
    outcome = cli("--test", "--model", "nn", "--chkPointDir", tmp_path / "moved", "--dataDir", cohort)
    assert outcome.status == 0, outcome.err


@pytest.mark.parametrize(
    "older, words", [(False, "not as it was saved, nor is one before it"), (True, "cannot be read")]
)
def test_a_damaged_checkpoint_is_told_in_one_line(older, words, train, seen_two, cli, cohort, tmp_path):
    shutil.copytree(seen_two, tmp_path / "one")
    folder = tmp_path / "one" / "ckpt" / "nn"
    if older:  # by code that kept no digests
        described = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(described | {"saved": {}}))
    data = next(folder.glob("*.data-*"))
    os.truncate(data, data.stat().st_size // 2)
    outcome = cli("--test", "--model", "nn", "--chkPointDir", folder.parent, "--dataDir", cohort)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert words in outcome.err and str(folder) in outcome.err
    assert train("one", "nn", 2, "--overrideChkpt").status == 0
    outcome = cli("--test", "--model", "nn", "--chkPointDir", folder.parent, "--dataDir", cohort)
    assert outcome.status == 0, outcome.err


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [flip_a_bit, lambda path: os.truncate(path, 100), Path.unlink])
@pytest.mark.parametrize("file", ["ckpt-3.index", "ckpt-3.data-00000-of-00001"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(file, damage, train, seen_six, cli, cohort, tmp_path):
    shutil.copytree(seen_six, tmp_path / "one")
    folder = tmp_path / "one" / "ckpt" / "nn"
    undisturbed = CheckpointFolder(folder).digest()
    damage(folder / file)
    said = f"ckpt-3 in {folder} is not as it was saved; used instead: ckpt-2, of iteration 4.\n"
    outcome = cli("--test", "--model", "nn", "--chkPointDir", folder.parent, "--dataDir", cohort)
    assert (outcome.status, said in outcome.out) == (0, True), outcome.err
    outcome = train("one", "nn", 6)
    assert (outcome.status, said in outcome.out) == (0, True), outcome.err
    assert "Continuing" in outcome.out and CheckpointFolder(folder).digest() == undisturbed


@pytest.mark.parametrize(
    "state", ["", "nonsense", f'model_checkpoint_path: "ckpt-{"9" * 5000}"', "model_checkpoint_path: 3"]
)
def test_a_file_that_does_not_say_which_checkpoint_is_the_latest(state, train, seen_two, tmp_path):
    for name in ("one", "other"):
        shutil.copytree(seen_two, tmp_path / name)
    assert train("other", "nn", 3).status == 0
    folder = tmp_path / "one" / "ckpt" / "nn"
    (folder / "checkpoint").write_text(state)
    outcome = train("one", "nn", 3)
    assert outcome.status == 0, outcome.err
    said = f"checkpoint in {folder} is not as it was saved; used instead: ckpt-1, of iteration 2.\n"
    assert said in outcome.out and outcome.err == ""
    assert_bit_equal(folder, tmp_path / "other" / "ckpt" / "nn")


def test_overriding_gets_past_a_description_that_is_damaged(train, seen_two, tmp_path):
    shutil.copytree(seen_two, tmp_path / "one")
    described = tmp_path / "one" / "ckpt" / "nn" / "run.json"
    described.write_bytes(described.read_bytes()[:300])
    assert "is damaged" in train("one", "nn", 3).err
    outcome = train("one", "nn", 2, "--overrideChkpt")
    assert outcome.status == 0, outcome.err
    assert_bit_equal(tmp_path / "one" / "ckpt" / "nn", seen_two / "ckpt" / "nn")


def test_a_damaged_best_checkpoint_is_told_before_the_first_batch(train, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.training.loop.SAVE_EVERY", 2)
    assert train("one", "nn", 2, "--validation", "0.3").status == 0
    (best,) = (tmp_path / "one" / "ckpt" / "nn" / "best").glob("*.data-*")
    flip_a_bit(best)
    outcome = train("one", "nn", 4, "--validation", "0.3")
    assert (outcome.status, "nn/best does not have its digest; copy it again, or" in outcome.err) == (2, True)
    shutil.rmtree(best.parent)
    outcome = train("one", "nn", 4, "--validation", "0.3")
    assert (outcome.status, step_of(tmp_path / "one" / "ckpt" / "nn")) == (0, 4), outcome.err


def test_a_loss_that_is_no_number_stops_the_training(train, seen_two, cohort, tmp_path, monkeypatch):
    from utils.training import loop as module

    monkeypatch.setattr(module, "SAVE_EVERY", 2)
    shutil.copytree(seen_two, tmp_path / "one")
    folder = CheckpointFolder(tmp_path / "one" / "ckpt" / "nn")
    digest, losses, check = folder.digest(), [1.0, float("nan")], module.Training.check_loss
    monkeypatch.setattr(module.Training, "check_loss", lambda self, done, _: check(self, done, losses.pop(0)))
    outcome = train("one", "nn", 9)
    assert (outcome.status, outcome.err.count("\n"), folder.digest()) == (2, 1, digest)
    opened = open_cohort(cohort)
    training = opened.indices("train")
    fourth = training[module.batch_positions(0, 3, 8, len(training))]
    names = ", ".join(sorted(opened.rows[index].file for index in fourth))
    assert f"The loss is nan at iteration 4, of the records {names}: " in outcome.err


def test_a_training_that_diverges_saves_nothing(train, tmp_path):
    outcome = train("one", "nn", 9, "--set", "learning_rate=1e38")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert re.search(r"The loss is (nan|inf) at iteration [2-9], of the records .*learning_rate=1e\+37$", outcome.err)
    assert CheckpointFolder(tmp_path / "one" / "ckpt" / "nn").current is None


def test_overriding_a_checkpoint_leaves_what_the_user_put_beside_it(train, seen_two, tmp_path):
    shutil.copytree(seen_two, tmp_path / "one")
    folder = tmp_path / "one" / "ckpt" / "nn"
    (folder / "thesis.txt").write_text("mine")
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("mine, too")
    for _ in range(2):
        outcome = train("one", "nn", 2, "--overrideChkpt")
        assert outcome.status == 0, outcome.err
        assert (folder / "thesis.txt").read_text() == "mine"
        assert (folder / "notes" / "a.txt").read_text() == "mine, too"
    assert not folder.with_name("nn.replaced").exists()


def test_a_checkpoint_without_its_state_file_is_gone_on_from(train, seen_two, tmp_path):
    shutil.copytree(seen_two, tmp_path / "one")
    (tmp_path / "one" / "ckpt" / "nn" / "checkpoint").unlink()
    outcome = train("one", "nn", 4)
    assert outcome.status == 0, outcome.err
    assert "at iteration 2" in outcome.out
    assert train("whole", "nn", 4).status == 0
    assert_bit_equal(tmp_path / "one" / "ckpt" / "nn", tmp_path / "whole" / "ckpt" / "nn")
