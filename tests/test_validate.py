"""Arguments -> a run: the user's choice beats the checkpoint's, which beats the default; misfits are refused."""

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
from helpers import an_identity, cohort_of, requested, row, write_checkpoints

from data.base.errors import InputError
from data.cohorts.cohort import Cohort
from data.cohorts.records import FULL, REDUCED
from data.cohorts.rows import read_table
from data.cohorts.stored import open_cohort, write_tables
from models import MODELS, cnn, nn
from run import parser
from utils.jobs import JOBS, TEST, TRAIN
from utils.runs.checkpoints import CheckpointFolder, Identity
from utils.runs.group import folded_run
from utils.runs.guards import check
from utils.runs.run import Job, Run
from utils.runs.validate import Request, TrainOptions, check_options, single_run


def asked(words: str) -> Request:
    """What a command line of run.py asks for."""
    return Request(parser().parse_args(words.split()))


TRAINED = cohort_of(*(row(str(at), float(at % 2)) for at in range(8)), row("8", 0.0, "test"), row("9", 1.0, "test"))


def run_of(words: str, saved: Identity | None, cohort: Cohort = TRAINED) -> Run:
    request = asked(words)
    return request.run(CheckpointFolder(Path("ckpt")), saved, cohort, Path("out"))


def saved_by(**changes) -> Identity:
    """The identity of a nn of another preset, seed and so on than by default."""
    config = asdict(replace(nn.PRESETS["sine"], learning_rate=0.5, members=3))
    chosen = {"preset": "sine", "config": config, "seed": 7, "precision": "mixed_float16"}
    return an_identity(**chosen | {"step": 40, "out_dir": "there/out"} | changes)


# The user's choice, the checkpoint's, the default


def test_without_checkpoint_and_choice_all_is_as_by_default():
    run = run_of("--train --model nn", None)
    assert (run.config, run.num_iters, run.override) == (next(iter(nn.PRESETS.values())), 200, False)
    chosen = vars(run.choices)
    assert chosen | {"config": 0} == {
        **{"model": "nn", "preset": "sine", "config": 0, "grid": None, "seed": 0, "precision": "float32"},
    }
    assert chosen["config"] == asdict(run.config)


def test_what_the_user_leaves_open_is_the_checkpoints():
    run = run_of("--train --model nn", saved_by())
    assert vars(run.choices) == {name: getattr(saved_by(), name) for name in vars(run.choices)}
    assert (run.config.learning_rate, run.config.members) == (0.5, 3)


@pytest.mark.parametrize(
    "words, name, value",
    [
        ("--seed 0", "seed", 0),
        ("--seed 1", "seed", 1),
        ("--precision float32", "precision", "float32"),
    ],
)
def test_the_users_choice_beats_the_checkpoints(words, name, value):
    run = run_of(f"--train --model nn {words}", saved_by())
    assert getattr(run.choices, name) == value
    others = [other for other in vars(run.choices) if other not in (name, "config")]
    assert all(getattr(run.choices, other) == getattr(saved_by(), other) for other in others)


def test_one_setting_of_the_user_leaves_the_checkpoints_others():
    of_both = run_of("--train --model nn --set members=2", saved_by()).config
    assert (of_both.members, of_both.learning_rate) == (2, 0.5)


def test_another_preset_of_the_user_has_its_own_settings():
    saved = saved_by(model="cnn", preset="residual", config=asdict(cnn.PRESETS["residual"]))
    run = run_of("--train --model cnn --preset regions --set members=2", saved)
    assert (run.choices.preset, run.config) == ("regions", replace(cnn.PRESETS["regions"], members=2))


def test_a_test_is_of_what_the_checkpoint_has_seen():
    run = run_of("--test --model nn", saved_by())
    assert (run.num_iters, run.override) == (40, False)
    assert run_of("--train --model nn --numIters 9 --overrideChkpt", None).override


def test_the_grid_is_of_models_that_read_volumes():
    assert run_of("--train --model cnn", None).choices.grid == "reduced"
    assert run_of("--train --model nn", None).choices.grid is None
    with pytest.raises(InputError, match="cohort is 91x109x91, cnn reads 31x37x31"):
        run_of("--train --model cnn", None, cohort_of(grid=FULL))


# The checkpoint


@pytest.mark.parametrize(
    "words, step", [("--train", 6), ("--test", 6), ("--train --overrideChkpt", None), ("--blackout", 6)]
)
def test_which_checkpoint_is_used(words, step, tmp_path):
    folder = write_checkpoints(tmp_path / "nn", (2, 4, 6))
    saved = asked(f"{words} --model nn").saved(folder)
    assert (saved and saved.step) == step


# Folders


@pytest.mark.parametrize(
    "words, saved, expected",
    [
        ("--train --model nn", None, "results/nn-train"),
        ("--train --model nn", saved_by(), "there/out"),
        ("--train --model nn --folds 3", saved_by(), "there"),
        ("--test --model nn", saved_by(), "results/nn-test"),
        ("--test --model nn --folds site", None, "results/nn-test-folds-site"),
        ("--test --folds ../x", None, "results/mmnn-test-folds-%2E.%2Fx"),
        ("--model cae --dataDir /a/full.2", None, "/a/full.2_reduced"),
        ("--model cae --dataDir /a/full --folds 3", None, "/a/full_reduced"),
        ("--model cae", None, "results/cae-encode"),  # beside the demo cohort nobody would look
        ("--model cae --dataDir .", None, "{here}_reduced"),  # which has no name of its own to add _reduced to
    ],
)
def test_where_results_go(words, saved, expected, tmp_path):
    assert asked(words).default_folder(saved) == Path(expected.format(here=tmp_path))


def test_the_command_that_trains():
    assert asked("--test --chkPointDir x --folds 3").training_command == (
        "run.py --train --model mmnn --chkPointDir x --folds 3"
    )


# What does not fit


@dataclass(frozen=True)
class Census(TrainOptions):
    """Options of a job that takes those of a training too."""


@pytest.mark.parametrize(
    "job, given, words",
    [
        (TEST, {"numIters"}, "--numIters goes with --train, not with --test; leave it out"),
        (TRAIN, {"donors", "seed"}, "--donors goes with --blackout, not with --train"),
    ],
)
def test_options_of_another_job(job, given, words):
    with pytest.raises(InputError, match=words):
        check_options(job, given, JOBS.values())
    check_options(job, {"seed", "dataDir", "job"}, JOBS.values())


def test_options_that_several_jobs_take_are_of_all_of_them():
    census = Job(name="census", help="", module="census", guards=(), options=Census)
    check_options(census, {"numIters"}, [TRAIN, TEST, census])
    with pytest.raises(InputError, match="--numIters goes with --train or --census, not with --test"):
        check_options(TEST, {"numIters"}, [TRAIN, TEST, census])


@pytest.mark.parametrize(
    "job, able",
    [("--train", " ".join(MODELS)), ("--test", " ".join(MODELS)), ("--blackout", "cnn nn mmnn"), ("", "cae")],
)
def test_models_that_a_job_can_be_done_with(job, able):
    for name in MODELS:
        if name in able.split():
            assert requested(f"{job} --model {name}").model.name == name
        else:
            with pytest.raises(InputError, match=" or ".join(able.split())) as caught:
                requested(f"{job} --model {name}")
            assert name in str(caught.value)


@pytest.mark.parametrize(
    "model, grid, words",
    [
        (
            "cnn",
            FULL,
            r"^cohort is 91x109x91, cnn reads 31x37x31; reduce it: run\.py --model cae --dataDir d --chk",
        ),
        ("cae", REDUCED, "^cohort is 31x37x31, cae reads 91x109x91; abide-data convert --grid full makes"),
    ],
)
def test_a_cohort_on_another_grid(model, grid, words):
    places = "--train --dataDir d --chkPointDir c --model"
    asked(f"{places} nn").check_grid(cohort_of(grid=grid))
    asked(f"{places} {model}").check_grid(cohort_of(grid={FULL: REDUCED, REDUCED: FULL}[grid]))
    with pytest.raises(InputError, match=words):
        asked(f"{places} {model}").check_grid(cohort_of(grid=grid))


def validated(words: str) -> Run:
    """The run of a command line, as run.py makes it."""
    found = requested(words)
    return folded_run(found) if found.args.folds else single_run(found)


@pytest.mark.parametrize(
    "words, message",
    [
        ("--jobs 2", "--jobs 2 counts folds that are done at a time; use it with --folds, without --fold"),
        ("--jobs 2 --folds 2 --fold 0", "--jobs 2 counts folds that are done at a time"),
        ("--set members=0", "members is 0; expected 1 to 64"),
        ("", "missing does not exist"),
    ],
)
def test_mistakes_are_found_before_data_are_read(words, message, tmp_path):
    with pytest.raises(InputError, match=message):
        validated(f"--train --model nn --dataDir missing --chkPointDir {tmp_path} {words}")
    with pytest.raises(InputError, match="ae cannot be blacked out"):
        validated("--blackout --model ae --dataDir missing")


def test_a_run_is_made_and_nothing_is_written(cohort, tmp_path, capsys):
    two_sites = shutil.copytree(cohort, tmp_path / "cohort")
    rows = [replace(person, site="AB"[at % 2]) for at, person in enumerate(read_table(cohort / "subjects.csv"))]
    write_tables(two_sites, rows, open_cohort(cohort).metadata)
    capsys.readouterr()
    words = f"--train --model cnn --preset regions --set standardise=site --dataDir {two_sites} --chkPointDir ckpt"
    run = validated(words)
    assert (run.out_dir.name, run.checkpoints.path, run.cohort.rows) == ("cnn-train", Path("ckpt/cnn"), tuple(rows))
    assert list(tmp_path.iterdir()) == [two_sites]
    simulated, transductive, *counts, verdict = capsys.readouterr().out.splitlines()
    assert simulated == "Data: the demo cohort. It is SIMULATED; its results say nothing about people."
    assert transductive.startswith("TRANSDUCTIVE: each of 2 sites is standardised by its own people")
    assert counts[2].startswith("  train: 36 subjects") and verdict == f"Not checked: abide-data check {two_sites}"
    assert validated(f"{words} --outDir elsewhere").out_dir == Path("elsewhere")
    run.out_dir.mkdir(parents=True)
    (run.out_dir / "mine.txt").write_text("")
    with pytest.raises(InputError, match=r"holds mine\.txt, and no run\.json that says which run wrote that"):
        validated(words)


def test_a_default_folder_of_checkpoints_that_is_not_there_is_told(cohort, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("utils.runs.validate.USUAL_CHECKPOINTS", tmp_path / "data" / "ckpt")
    words = f"Checkpoints go to {tmp_path}/data/ckpt, which does not exist yet; --chkPointDir names another folder.\n"
    of = f"--train --model nn --dataDir {cohort} --chkPointDir"
    validated(f"{of} {tmp_path}/data/ckpt")
    assert words in capsys.readouterr().out
    validated(f"{of} {tmp_path}/data/other")
    (tmp_path / "data" / "ckpt").mkdir(parents=True)
    validated(f"{of} {tmp_path}/data/ckpt")
    assert "--chkPointDir" not in capsys.readouterr().out


def test_guards_are_called_in_order_and_comparisons_only_with_a_checkpoint(tmp_path):
    called: list[str] = []

    def note(run: Run, *saved: Identity) -> None:
        called.append(f"{run.model.name} with {len(saved)}")

    def refuse(run: Run, *saved: Identity) -> None:
        note(run, *saved)
        raise InputError("refused")

    run = replace(run_of("--train --model nn", None), out_dir=tmp_path / "out")
    check(replace(run, job=replace(TRAIN, guards=(note,), comparisons=(refuse,))), None)
    with pytest.raises(InputError, match="refused"):
        check(replace(run, job=replace(TRAIN, guards=(note,), comparisons=(note, refuse, note))), saved_by())
    assert called == ["nn with 0", "nn with 0", "nn with 1", "nn with 1"]


def test_what_guards_could_not_compare_is_printed(capsys, tmp_path):
    run = replace(run_of("--test --model nn", saved_by()), out_dir=tmp_path / "out")
    check(run, saved_by())
    out = capsys.readouterr().out
    assert out.startswith("Not known of both the checkpoint's data and cohort, so not compared: phenotype, ")


def test_people_of_a_site_standardise_each_other():
    plain = run_of("--train --model cnn --preset regions", None)
    assert (plain.transductive, plain.cohort.standard, plain.cohort.moments) == (False, "brain", None)
    run = run_of("--train --model cnn --preset regions --set standardise=site", None)
    assert (run.transductive, run.cohort.standard, run.cohort.moments is None) == (True, "site", False)
