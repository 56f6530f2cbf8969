"""Checkpoints on disk: which one is used, what is said of damage, what a training goes on from, and that nothing of the
user's is lost by a replacement."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import lab
import pytest
from commands import Outcome, done, run
from helpers import assert_bit_equal

pytestmark = pytest.mark.usefixtures("undrawn")
HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    open(sys.argv[1], "w").write("process 7 on there (run.py --train)")
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def six(seen_six, tmp_path) -> Path:
    """The folder of a nn with checkpoints of the 2nd, the 4th and the 6th batch, which may be changed."""
    return shutil.copytree(seen_six, tmp_path / "six")


def train(folder: Path, cohort: Path, iterations: int, more: str = "") -> Outcome:
    """Trains the nn in a folder until so many batches were seen, as it was begun."""
    command = f"run.py --train --model nn --numIters {iterations} --set members=1 --set batch_size=8 {more} "
    return run(command + "--dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/out", of=cohort, to=folder)


def told_of(folder: Path, cohort: Path) -> str:
    """The damage that a test says it has found, before it does anything."""
    lines = done("run.py --test --model nn --dryRun --dataDir {of} --chkPointDir {to}/ckpt", of=cohort, to=folder)
    return next((line for line in lines.splitlines() if "digest" in line), "")


def saved_in(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


DATA = "data-00000-of-00001"


@pytest.mark.parametrize(
    "spoil, damaged, step",
    [
        ({}, None, 6),
        ({"ckpt-3.index": "flipped"}, "ckpt-3", 4),
        ({f"ckpt-3.{DATA}": "gone", f"ckpt-2.{DATA}": "flipped"}, "ckpt-3, ckpt-2", 2),
        ({"checkpoint": "gone"}, None, 6),
        ({"checkpoint": b'model_checkpoint_path: "ckpt-' + b"9" * 5000 + b'"'}, "checkpoint", 6),
        ({"checkpoint": b'model_checkpoint_path: "/where/it/was/trained/nn/ckpt-3"\n'}, None, 6),
        ({"run.json": {"saved": {}}, "ckpt-3.index": "gone"}, "ckpt-3", 6),
        ({"run.json": {"saved": {}}, "ckpt-3.index": "flipped"}, None, 6),
    ],
)
def test_the_latest_whole_checkpoint_is_used(spoil, damaged, step, six, cohort):
    folder = six / "ckpt" / "nn"
    for name, change in spoil.items():
        lab.edit(folder / name, change)
    told = told_of(six, cohort)
    assert told.partition(" in ")[0] == (damaged or "")
    assert not damaged or told.endswith(f"of iteration {step}.")


def test_numbers_of_checkpoints_are_ordered_as_numbers(six, cohort):
    folder = six / "ckpt" / "nn"
    for before, now in (("ckpt-3", "ckpt-10"), ("ckpt-2", "ckpt-9")):
        for path in folder.glob(f"{before}.*"):
            path.rename(folder / path.name.replace(before, now))
    saved = saved_in(folder)["saved"]
    lab.edit(folder / "run.json", {"saved": {"ckpt-9": saved["ckpt-2"], "ckpt-10": saved["ckpt-3"]}})
    (folder / "checkpoint").unlink()
    assert told_of(six, cohort) == ""
    lab.edit(folder / f"ckpt-10.{DATA}", "flipped")
    assert "ckpt-10 in" in (told := told_of(six, cohort)) and told.endswith("used instead: ckpt-9, of iteration 4.")


def test_a_training_that_still_runs_is_told_and_one_of_folds_in_the_folder_is_not(six, cohort):
    folder = six / "ckpt" / "nn"
    (folder / "folds-3" / "0").mkdir(parents=True)
    for of, told in ((folder / "folds-3" / "0", False), (folder, True)):
        command = [sys.executable, "-c", HOLD, str(of.with_name(f".{of.name}.lock"))]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout.readline() == "held\n"
            out = done("run.py --test --model nn --dryRun --dataDir {of} --chkPointDir {to}/ckpt", of=cohort, to=six)
            assert (f"{folder} is still being trained, by process 7" in out) is told, out
            other.stdin.close()


@pytest.mark.slow
def test_trained_and_tested_from_the_one_before_a_damaged_one(six, seen_six, cohort, effort):
    effort(save_every=2)
    folder = six / "ckpt" / "nn"
    lab.edit(folder / f"ckpt-3.{DATA}", "flipped")
    used = saved_in(folder)["saved"]["ckpt-2"]["sha256"]
    done("run.py --test --model nn --dataDir {of} --chkPointDir {to}/ckpt --outDir test", of=cohort, to=six)
    assert saved_in(Path("test"))["checkpoint_sha256"] == used
    assert "at iteration 4" in train(six, cohort, 6).out
    assert_bit_equal(folder, seen_six / "ckpt" / "nn")
    assert saved_in(folder)["saved"] == saved_in(seen_six / "ckpt" / "nn")["saved"]


@pytest.mark.slow
def test_what_was_never_completed_is_not_used(six, seen_six, cohort, effort):
    """A checkpoint later than the one that the state file names, and half of another; without a state file, too."""
    effort(save_every=2)
    folder = six / "ckpt" / "nn"
    lab.edit(folder / "checkpoint", b'model_checkpoint_path: "ckpt-2"\n')
    (folder / "ckpt-4_temp").mkdir()
    (folder / "ckpt-4_temp" / f"part-00000-of-00001.{DATA}").write_bytes(b"half")
    assert "at iteration 4" in train(six, cohort, 6).out
    assert names_in(folder) == names_in(seen_six / "ckpt" / "nn")
    assert_bit_equal(folder, seen_six / "ckpt" / "nn")
    (folder / "checkpoint").write_text("nonsense")
    assert "at iteration 6" in train(six, cohort, 7).out
    other = shutil.copytree(seen_six, six.with_name("other"))
    assert train(other, cohort, 7).status == 0
    assert_bit_equal(folder, other / "ckpt" / "nn")


@pytest.mark.slow
def test_a_first_checkpoint_that_was_not_completed_is_none(six, seen_two, cohort):
    """TensorFlow has written an index, perhaps to a full disk, but not its state file; nor is the digest recorded."""
    folder = six / "ckpt" / "nn"
    lab.edit(folder / "run.json", {"saved": {}})
    (folder / "checkpoint").unlink()
    outcome = run("run.py --test --model nn --dataDir {of} --chkPointDir {to}/ckpt", of=cohort, to=six)
    assert outcome.status == 2 and "holds no checkpoint" in outcome.err
    outcome = train(six, cohort, 2)
    assert outcome.status == 0 and "Continuing" not in outcome.out, outcome.err
    assert_bit_equal(folder, seen_two / "ckpt" / "nn")


@pytest.mark.slow
def test_a_save_that_a_kill_cut_short_is_completed(six, cohort, effort):
    """TensorFlow deletes the oldest checkpoint after it has listed the new one, whose digest is recorded last."""
    effort(save_every=2)
    ckpt = six / "ckpt" / "nn"
    oldest = (ckpt / f"ckpt-1.{DATA}").read_bytes()
    train(six, cohort, 8)
    listed, described = (ckpt / "checkpoint").read_text(), saved_in(ckpt)
    paths = names_in(ckpt)
    first = listed.index("all_model_checkpoint_paths")
    stamp = listed.index("all_model_checkpoint_timestamps")
    stamped = f'{listed[:first]}all_model_checkpoint_paths: "ckpt-1"\n{listed[first:stamp]}'
    (ckpt / "checkpoint").write_text(f"{stamped}all_model_checkpoint_timestamps: 1.5\n{listed[stamp:]}")
    (ckpt / f"ckpt-1.{DATA}").write_bytes(oldest)
    saved = {"ckpt-1": described["saved"]["ckpt-2"]} | described["saved"]
    lab.edit(ckpt / "run.json", {"saved": {name: of for name, of in saved.items() if name != "ckpt-4"}})
    assert "nothing to train" in train(six, cohort, 8).out
    assert names_in(ckpt) == paths
    now = (ckpt / "checkpoint").read_text()
    assert [line for line in now.splitlines() if "stamp" not in line] == [
        line for line in listed.splitlines() if "stamp" not in line
    ]
    assert saved_in(ckpt) == described


@pytest.mark.slow
def test_what_is_overridden_is_used_until_the_new_one_is_there_and_what_is_the_users_stays(six, seen_two, cohort):
    folder, replaced = six / "ckpt" / "nn", six / "ckpt" / "nn.replaced"
    own = names_in(folder)
    folder.rename(replaced)  # as an overriding run leaves it that was killed before it saved
    (folder / "ckpt-1_temp").mkdir(parents=True)
    (folder / "notes.txt").write_text("written meanwhile")
    (replaced / "notes.txt").write_text("written there")
    (replaced / "folds-3").mkdir()
    assert told_of(six, cohort) == "" and names_in(replaced) == own | {"notes.txt", "folds-3"}
    assert "nothing to train" in train(six, cohort, 6).out
    assert names_in(folder) == own | {"notes.txt", "notes.txt+", "folds-3"} and not replaced.exists()
    kept = {(folder / name).read_text() for name in ("notes.txt", "notes.txt+")}
    assert kept == {"written meanwhile", "written there"}
    assert train(six, cohort, 2, "--overrideChkpt").status == 0
    assert_bit_equal(folder, seen_two / "ckpt" / "nn")
    assert {"notes.txt", "notes.txt+", "folds-3"} < names_in(folder) and not replaced.exists()
    shutil.copytree(seen_two / "ckpt" / "nn", replaced)  # killed after it saved: what it replaced is not used again
    assert "at iteration 2" in train(six, cohort, 3).out


@pytest.mark.slow
def test_a_damaged_checkpoint_without_a_digest_is_told_in_one_line_and_can_be_replaced(six, cohort):
    """TensorFlow finds the damage."""
    folder = six / "ckpt" / "nn"
    lab.edit(folder / "run.json", {"saved": {}})
    lab.edit(folder / f"ckpt-3.{DATA}", "cut")
    test = "run.py --test --model nn --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/test"
    outcome = run(test, of=cohort, to=six)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "cannot be read" in outcome.err and str(folder) in outcome.err
    assert train(six, cohort, 2, "--overrideChkpt").status == 0
    done(test, of=cohort, to=six)


# Where what was trained on lies


@pytest.mark.slow
def test_results_go_where_the_checkpoint_lies_and_a_copy_never_writes_into_those_of_the_original(six, cohort):
    """`seen_six` is still there, so that `six` is a copy; then it is moved."""
    again = "run.py --train --model nn --numIters {to} --set members=1 --set batch_size=8 --dataDir {of} "
    for number, at in ((7, six), (8, six.with_name("moved"))):
        if not at.exists():
            six.rename(at)
        done(again + "--chkPointDir {at}/ckpt", to=number, of=cohort, at=at)
        assert lab.read_table(at / "out" / "history.csv")["step"].iloc[-1] == str(number)


# The user's choice beats the checkpoint's, which beats the default


@pytest.mark.slow
def test_what_the_user_leaves_open_is_the_checkpoints(cohort, tmp_path):
    places = "--model nn --dataDir {of} --chkPointDir ckpt"
    done(f"run.py --train --numIters 1 --seed 7 --set members=2 --set learning_rate=0.5 {places}", of=cohort)
    done(f"run.py --train --numIters 2 {places}", of=cohort)  # with none of it said again
    done(f"run.py --test {places}", of=cohort)
    trained, tested = (saved_in(tmp_path / name) for name in ("ckpt/nn", "results/nn-test"))
    names = ("model", "preset", "config", "grid", "seed", "precision")
    assert {name: tested[name] for name in names} == {name: trained[name] for name in names}
    assert (tested["seed"], tested["config"]["members"], tested["config"]["learning_rate"]) == (7, 2, 0.5)
    assert (trained["step"], tested["num_iters"], trained["precision"]) == (2, 2, "float32")
    done(f"run.py --test --seed 0 {places}", of=cohort)
    again = saved_in(tmp_path / "results/nn-test")
    assert again["seed"] == 0 and again["config"] == tested["config"]


# What may differ from the data that it was trained on


@pytest.mark.parametrize(
    "model, changes, not_compared",
    [
        ("nn", {"normalisation": "other", "maps": ["reho"]}, ""),
        ("cnn", {"phenotype": ["other"], "phenotype_mean": [1.0]}, ""),
        ("cnn", {"normalisation": ""}, "normalisation"),
        ("cnn", {"reduction": ""}, "reduction"),
    ],
)
def test_what_a_model_does_not_read_or_nobody_knows_is_not_compared(
    model, changes, not_compared, seen_six, trained, cohort, tmp_path
):
    source = {"nn": seen_six / "ckpt", "cnn": trained}[model]
    copy = shutil.copytree(source, tmp_path / "ckpt")
    known = saved_in(copy / model)["preparation"]
    other = {"preparation": known | changes, "cohort_sha256": "0" * 64, "seed": 9}
    lab.edit(copy / model / "run.json", other)
    out = done(f"run.py --test --dryRun --model {model} --dataDir {{of}} --chkPointDir {{to}}", of=cohort, to=copy)
    told = [line for line in out.splitlines() if "so not compared: " in line]
    assert [line.partition("so not compared: ")[2] for line in told] == ([f"{not_compared}."] if not_compared else [])


# What is said before anything is written


def test_a_dry_run_says_what_is_read_and_writes_nothing(cohort, converted, tmp_path):
    command = "run.py --train --dryRun --model {model} --dataDir {of} --chkPointDir ckpt"
    out = done(command, model="nn", of=cohort)
    assert "Data: the demo cohort. It is SIMULATED; its results say nothing about people." in out
    assert "people: train: 36 subjects" in out and "Networks to train: 1 of 1, of 200 batches." in out
    out = done(f"{command} --preset regions --set standardise=site --numIters 9", model="cnn", of=converted)
    assert "TRANSDUCTIVE: each of 3 sites is standardised by its own people" in out and "of 9 batches" in out
    assert "SIMULATED" not in out and not list(tmp_path.iterdir())


def test_only_the_path_that_tensorflow_gets_must_not_be_a_pattern(cohort, tmp_path, monkeypatch):
    odd = tmp_path / "a[1]*"
    odd.mkdir()
    monkeypatch.chdir(odd)
    done("run.py --train --dryRun --model nn --dataDir {of} --chkPointDir ckpt", of=cohort)


@pytest.mark.slow
@pytest.mark.parametrize("strides, filters, code", [("3,1", "1,4", "31x37x31x4"), ("1,1", "1,1", "91x109x91x1")])
def test_a_code_that_the_other_models_do_not_read_is_refused(strides, filters, code, trained, full_cohort, tmp_path):
    """As of an autoencoder that was trained with other settings than those of a full pass."""
    from models import cae

    (shutil.copytree(trained, tmp_path / "ckpt") / "cnn").rename(tmp_path / "ckpt" / "cae")
    changes = {name: [*map(int, text.split(","))] for name, text in {"strides": strides, "filters": filters}.items()}
    config = asdict(cae.PRESETS["stride3"]) | changes
    about = {"model": "cae", "preset": "stride3", "config": config, "grid": "full"}
    lab.edit(tmp_path / "ckpt" / "cae" / "run.json", about)
    outcome = run("run.py --model cae --dataDir {of} --chkPointDir ckpt", of=full_cohort)
    assert (outcome.status, f"gives a code of {code} (x, y, z, channels)" in outcome.err) == (2, True), outcome.err
