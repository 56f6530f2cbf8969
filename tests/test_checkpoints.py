"""Checkpoints on disk: which one is used, what is said of damage, what a training goes on from, and that nothing of the
user's is lost by a replacement."""

import json
import shutil
import time
from pathlib import Path

import lab
import pytest
from commands import Outcome, done, read_manifest, run
from helpers import assert_bit_equal

pytestmark = pytest.mark.usefixtures("undrawn")
DATA_SUFFIX = "data-00000-of-00001"
TEST_COMMAND = "run.py --test --model nn --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/test"


@pytest.fixture
def six(seen_six, tmp_path) -> Path:
    """The folder of a nn with checkpoints of the 2nd, the 4th and the 6th batch, which may be changed."""
    return shutil.copytree(seen_six, tmp_path / "six")


def train_until(folder: Path, cohort: Path, iterations: int, more: str = "") -> Outcome:
    """Trains the nn in a folder until so many batches were seen, as it was begun."""
    command = f"run.py --train --model nn --numIters {iterations} --set members=1 --set batch_size=8 {more} "
    return run(command + "--dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/out", of=cohort, to=folder)


def find_damage_message(folder: Path, cohort: Path) -> str:
    """The damage that a test says it has found, before it does anything."""
    lines = done(f"{TEST_COMMAND} --dryRun", of=cohort, to=folder).splitlines()
    return next((line for line in lines if "digest" in line), "")


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    "spoil, damaged, step",
    [
        ({}, "", 6),
        ({"ckpt-6.index": "flipped"}, "ckpt-6", 4),
        ({f"ckpt-6.{DATA_SUFFIX}": "gone", f"ckpt-4.{DATA_SUFFIX}": "flipped"}, "ckpt-6, ckpt-4", 2),
        ({"ckpt-6.json": "cut"}, "ckpt-6", 4),
        ({"checkpoint": "gone"}, "checkpoint", 6),
        ({"checkpoint": b'model_checkpoint_path: "ckpt-' + b"9" * 5000 + b'"'}, "checkpoint", 6),
        ({"checkpoint": b'model_checkpoint_path: "/where/it/was/trained/nn/ckpt-6"\n'}, "", 6),
        ({"ckpt-6.json": {"outputs": {}}, "ckpt-6.index": "gone"}, "ckpt-6", 4),
        ({"ckpt-6.json": {"outputs": {}}, "ckpt-6.index": "flipped"}, "", 6),  # TensorFlow finds it
    ],
)
def test_the_latest_undamaged_checkpoint_is_used(spoil, damaged, step, six, cohort):
    for name, change in spoil.items():
        lab.edit(six / "ckpt/nn" / name, change)
    damage_message = find_damage_message(six, cohort)
    assert damage_message.partition(" in ")[0] == damaged
    assert not damaged or damage_message.endswith(f"of iteration {step}.")


@pytest.mark.slow
def test_damage_is_followed_by_the_previous_checkpoint(six, seen_six, cohort, effort):
    """Tested and trained from the one before it, with three kept, which are ordered by number."""
    effort(save_every=2)
    folder = six / "ckpt/nn"
    lab.edit(folder / f"ckpt-6.{DATA_SUFFIX}", "flipped")
    done(TEST_COMMAND, of=cohort, to=six)
    assert read_manifest(six / "test")["weights"] == json.loads((folder / "ckpt-4.json").read_text())["weights"]
    assert "at iteration 4" in train_until(six, cohort, 6).out
    assert_bit_equal(folder, seen_six / "ckpt/nn")
    assert names_in(folder) == names_in(seen_six / "ckpt/nn")
    assert train_until(six, cohort, 10).status == 0
    assert {json.loads(path.read_text())["step"] for path in folder.glob("*.json")} == {6, 8, 10}
    lab.edit(folder / f"ckpt-10.{DATA_SUFFIX}", "cut")
    assert find_damage_message(six, cohort).endswith("used instead: ckpt-8, of iteration 8.")


@pytest.mark.slow
def test_incomplete_checkpoints_are_not_used(six, seen_six, cohort, effort):
    """A checkpoint later than the one that the state file names, and half of another."""
    effort(save_every=2)
    folder = six / "ckpt/nn"
    lab.edit(folder / "checkpoint", b'model_checkpoint_path: "ckpt-4"\n')
    (folder / "ckpt-8_temp").mkdir()
    (folder / "ckpt-8_temp" / f"part-00000-of-00001.{DATA_SUFFIX}").write_bytes(b"half")
    assert "at iteration 4" in train_until(six, cohort, 6).out
    assert names_in(folder) == names_in(seen_six / "ckpt/nn")
    assert_bit_equal(folder, seen_six / "ckpt/nn")


@pytest.mark.slow
def test_an_incomplete_first_checkpoint_is_none(six, seen_two, cohort):
    """TensorFlow has written an index, perhaps to a full disk, but not its state file; nor is the digest recorded."""
    folder = six / "ckpt/nn"
    for path in folder.glob("*.json"):
        lab.edit(path, {"outputs": {}})
    (folder / "checkpoint").unlink()
    outcome = run(TEST_COMMAND, of=cohort, to=six)
    assert outcome.status == 2 and "holds no checkpoint" in outcome.err
    outcome = train_until(six, cohort, 2)
    assert outcome.status == 0 and "Continuing" not in outcome.out, outcome.err
    assert_bit_equal(folder, seen_two / "ckpt/nn")


@pytest.mark.slow
def test_a_save_interrupted_by_a_kill_counts(six, cohort, effort):
    """TensorFlow has listed the new checkpoint; its digest is not recorded, nor is the oldest removed."""
    effort(save_every=2)
    folder = shutil.copytree(six, six.with_name("later")) / "ckpt/nn"
    assert train_until(six.with_name("later"), cohort, 8).status == 0
    names = names_in(folder)
    for path in (six / "ckpt/nn").glob("ckpt-2.*"):
        shutil.copy(path, folder)
    lab.edit(folder / "ckpt-8.json", {"outputs": {}, "finished": False})
    assert "at iteration 8" in train_until(six.with_name("later"), cohort, 10).out
    assert len(names_in(folder)) == len(names)
    assert train_until(six, cohort, 10).status == 0
    assert_bit_equal(folder, six / "ckpt/nn")


@pytest.mark.slow
@pytest.mark.parametrize("spoil, words", [({"outputs": {}}, "cannot be read"), ("cut", "is damaged")])
def test_where_all_are_damaged_a_single_line_reports_it_and_replacement_works(spoil, words, six, seen_two, cohort):
    """Without digests TensorFlow finds the damage."""
    folder = six / "ckpt/nn"
    for path in folder.glob("*.json"):
        lab.edit(path, spoil)
    lab.edit(folder / f"ckpt-6.{DATA_SUFFIX}", "cut")
    outcome = run(TEST_COMMAND, of=cohort, to=six)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert words in outcome.err and str(folder) in outcome.err
    assert train_until(six, cohort, 2, "--overrideChkpt").status == 0
    assert_bit_equal(folder, seen_two / "ckpt/nn")
    done(TEST_COMMAND, of=cohort, to=six)


@pytest.mark.slow
@pytest.mark.bits
def test_equal_weights_have_one_digest_though_an_interruption_saves_once_more(seen_two, six, cohort, tmp_path):
    """An interrupted training counts its saves otherwise."""
    interrupted = shutil.copytree(seen_two, tmp_path / "interrupted")
    assert train_until(interrupted, cohort, 6).status == 0
    checkpoint_names = [f"ckpt-6.{kind}" for kind in (DATA_SUFFIX, "index")]
    assert any(
        (interrupted / "ckpt/nn" / name).read_bytes() != (six / "ckpt/nn" / name).read_bytes()
        for name in checkpoint_names
    )
    assert_bit_equal(interrupted / "ckpt/nn", six / "ckpt/nn")
    digests = {read_manifest(folder / "out")["weights"] for folder in (interrupted, six)}
    for folder in (interrupted, six):
        done(TEST_COMMAND, of=cohort, to=folder)
        digests.add(read_manifest(folder / "test")["weights"])
    assert len(digests) == 1 and read_manifest(seen_two / "out")["weights"] not in digests


@pytest.mark.slow
def test_the_time_of_a_continued_training_is_that_of_all_parts(seen_two, cohort, tmp_path):
    folder = shutil.copytree(seen_two, tmp_path / "continued")
    lab.edit(folder / "ckpt/nn/ckpt-2.json", {"wall_time_s": 1000.0})
    lowest_s = 1000.0
    highest_s = 1000.0
    for iterations in (4, 6):
        start_time = time.monotonic()
        assert train_until(folder, cohort, iterations).status == 0
        highest_s += time.monotonic() - start_time
        seconds = [read_manifest(folder / name)["wall_time_s"] for name in ("ckpt/nn", "out")]
        assert lowest_s < seconds[0] <= seconds[1] <= highest_s + 0.01
        lowest_s = seconds[0]


@pytest.mark.slow
def test_an_edited_seed_is_refused_until_it_is_trained_anew(six, seen_two, cohort):
    folder = six / "ckpt/nn"
    lab.edit_manifest(folder / "ckpt-6.json", seed=7)
    for outcome in (run(TEST_COMMAND, of=cohort, to=six), train_until(six, cohort, 8)):
        assert outcome.status == 2 and outcome.err.count("\n") == 1
        assert f"{folder}/ckpt-6.json" in outcome.err and "--overrideChkpt" in outcome.err
    assert train_until(six, cohort, 2, "--overrideChkpt").status == 0
    assert_bit_equal(folder, seen_two / "ckpt/nn")
    done(TEST_COMMAND, of=cohort, to=six)


# The user's choice beats the checkpoint's, which beats the default


@pytest.mark.slow
def test_options_left_open_come_from_the_checkpoint(cohort, tmp_path):
    places = "--model nn --dataDir {of} --chkPointDir ckpt"
    done(f"run.py --train --numIters 1 --seed 7 --set members=2 --set learning_rate=0.5 {places}", of=cohort)
    done(f"run.py --train --numIters 2 {places}", of=cohort)  # with none of it said again
    done(f"run.py --test {places}", of=cohort)
    trained, tested = (read_manifest(tmp_path / name) for name in ("ckpt/nn", "results/nn-test"))
    names = ("model", "preset", "config", "grid", "seed", "precision", "step")
    assert {name: tested[name] for name in names} == {name: trained[name] for name in names}
    assert (tested["seed"], tested["config"]["members"], tested["config"]["learning_rate"]) == (7, 2, 0.5)
    done(f"run.py --test --seed 0 {places}", of=cohort)
    again = read_manifest(tmp_path / "results/nn-test")
    assert again["seed"] == 0 and again["config"] == tested["config"]


# What may differ from the data that it was trained on


@pytest.mark.parametrize(
    "model, changes, not_compared",
    [
        ("nn", {"normalisation": "other", "maps": ["reho"]}, []),
        ("cnn", {"phenotype": ["other"], "phenotype_mean": [1.0]}, []),
        ("cnn", {"normalisation": ""}, ["normalisation."]),
        ("cnn", {"reduction": ""}, ["reduction."]),
    ],
)
def test_unread_or_unknown_preparation_is_not_compared(
    model, changes, not_compared, seen_six, trained, cohort, tmp_path
):
    copy = shutil.copytree({"nn": seen_six / "ckpt", "cnn": trained}[model], tmp_path / "ckpt")
    (path,) = copy.glob(f"{model}/ckpt-{read_manifest(copy / model)['step']}.json")
    preparation = read_manifest(copy / model)["preparation"]
    other_cohort = {"cohort_sha256": "0" * 64, "training_sha256": ""}
    lab.edit(path, {"preparation": preparation | changes} | other_cohort)
    out = done(f"run.py --test --dryRun --model {model} --dataDir {{of}} --chkPointDir {{to}}", of=cohort, to=copy)
    line_partitions = [line.partition("so not compared: ") for line in out.splitlines()]
    assert [names for _, separator, names in line_partitions if separator] == not_compared


# What is said before anything is written


def test_a_dry_run_lists_the_inputs_and_writes_nothing(cohort, converted, tmp_path, monkeypatch):
    """Only the path that TensorFlow gets must not be a pattern."""
    pattern_folder = tmp_path / "a[1]*"
    pattern_folder.mkdir()
    monkeypatch.chdir(pattern_folder)
    command = "run.py --train --dryRun --model {model} --dataDir {of} --chkPointDir ckpt"
    out = done(command, model="nn", of=cohort)
    assert "SIMULATED" in out and "train 36 (" in out and "1 of 1 to train, of 200 batches" in out
    out = done(f"{command} --preset regions --set standardise=site --numIters 9", model="cnn", of=converted)
    assert "TRANSDUCTIVE" in out and "of 9 batches" in out
    assert "SIMULATED" not in out and not list(pattern_folder.iterdir())
