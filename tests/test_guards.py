"""Each guard refuses what it must and lets pass what it must; runs, checkpoints and records are made up by hand."""

import dataclasses
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import an_identity, cohort_of, row, sha256
from helpers import run_of as any_run

from data.base.errors import InputError
from data.cohorts.cohort import Cohort
from data.cohorts.records import FULL
from data.cohorts.seal import Seal
from utils.jobs import TEST
from utils.runs import guards
from utils.runs.checkpoints import Identity
from utils.runs.run import Run

CONSTANTS = {"phenotype": ("age", "FIQ"), "phenotype_mean": (12.0, 105.5)}
VOLUMES = {"maps": ("falff",), "normalisation": "brain"}


def four(**metadata) -> Cohort:
    """Two training and two test subjects, one of each class."""
    people = row("1"), row("2", 0.0), row("3", 1.0, "test"), row("4", 0.0, "test")
    return replace(cohort_of(*people, **VOLUMES | CONSTANTS | metadata), path=Path("here"))


def scans(*subjects: str) -> tuple[str, ...]:
    """The scans of `four`, as checkpoints know them."""
    return tuple(sha256(f"scan {subject}")[:16] for subject in subjects)


def run_of(model: str = "nn", cohort: Cohort | None = None, **more) -> Run:
    """A training of the default preset, on the four people if on nothing else."""
    return any_run(model, cohort or four(), **more)


def saved_by(run: Run, **changes) -> Identity:
    """The identity of the checkpoint that the run would have written."""
    of_cohort = {"cohort": "there", "cohort_sha256": run.cohort.digest, "records_sha256": run.cohort.records_sha256}
    return an_identity(**vars(run.choices) | of_cohort | {"preparation": run.cohort.metadata.preparation} | changes)


def test_other_hyper_parameters():
    run = run_of()
    saved = saved_by(run, config=run.choices.config | {"learning_rate": 0.5, "members": 2})
    words = r"differs: learning_rate=0\.5 there, learning_rate=0\.003 asked for; members=2 there, members=4 asked for"
    with pytest.raises(InputError, match=words):
        guards.same_settings(run, saved)


@pytest.mark.parametrize(
    "choice, there, words",
    [
        ("seed", 5, "of seed 5, this run of seed 0; use --seed"),
        ("precision", "mixed_float16", "of precision mixed_float16, this run of precision float32; use --precision"),
        ("cohort_sha256", "0" * 64, r"was trained on other data \(there\); use another --chkPointDir, or"),
        ("records_sha256", "0" * 64, "was trained on other records of the same names in there; use another"),
    ],
)
def test_a_training_of_another_kind_is_not_continued(choice, there, words):
    run = run_of()
    guards.same_settings(run, saved_by(run, **{choice: there}))  # for --test that is no other
    with pytest.raises(InputError, match=words):
        guards.same_training(run, saved_by(run, **{choice: there}))


def leaks(run: Run, saved: Identity) -> None:
    """Refuses people who trained the encoder of the volumes, the checkpoint, or the encoder behind it."""
    guards.no_leak_by_encoder(run)
    guards.no_leak(run, saved)


@pytest.mark.parametrize(
    "where, what",
    [
        ("training_subjects", "this checkpoint"),
        ("encoder_subjects", "the encoder behind this checkpoint"),
        ("cohort", "the encoder of these volumes"),
    ],
)
def test_a_test_subject_that_was_learnt_from(where, what):
    """4 and 3 are test subjects, 2 is not."""
    leaked = ("4", "2", "3")
    run = run_of(cohort=four(encoder_subjects=leaked) if where == "cohort" else None)
    saved = saved_by(run, **{where: leaked} if where != "cohort" else {})
    words = f"^2 of 2 test subjects of here trained {what}: 3, 4. Results .* Keep the split of .*--keepSplit"
    with pytest.raises(InputError, match=words):
        leaks(run, saved)
    of_folds = r"folds\.csv among the checkpoints edited\? Copy it again, or train with another --chkPointDir"
    advice = of_folds if what == "this checkpoint" else r"abide-data convert --grid reduced\), or train cae"
    with pytest.raises(InputError, match=advice):
        leaks(replace(run, folds=SimpleNamespace(how="3")), saved)
    leaks(run_of(cohort=four(encoder_subjects=("1", "2"))), saved_by(run, training_subjects=("1", "2")))


@pytest.mark.parametrize(
    "where, what",
    [
        ("training_volumes", "this checkpoint"),
        ("encoder_volumes", "the encoder behind this checkpoint"),
        ("cohort", "the encoder of these volumes"),
    ],
)
def test_a_test_subject_that_was_learnt_from_under_another_name(where, what):
    """A nn reads no volumes, and still knows people by them."""
    run = run_of("nn", four(encoder_volumes=scans("3", "1")) if where == "cohort" else None)
    saved = saved_by(run, **{where: scans("3", "1")} if where != "cohort" else {})
    words = f"^1 of 2 test subjects of here trained {what}: 3. By their scans, whatever their names: all of them"
    with pytest.raises(InputError, match=words):
        leaks(run, saved)
    leaks(run_of("nn", four(encoder_volumes=scans("2", "1"))), saved_by(run, training_volumes=scans("1")))


def test_a_volume_that_was_reduced_is_known_by_what_it_was_reduced_from():
    cohort = four()
    reduced = tuple(replace(of, volume=sha256(of.volume), source=of.volume) for of in cohort.seal.digests)
    run = run_of(cohort=replace(cohort, seal=Seal(reduced)))
    with pytest.raises(InputError, match=r"^1 of 2 test subjects of here trained this checkpoint: 4"):
        leaks(run, saved_by(run, training_volumes=scans("4")))


@pytest.mark.parametrize("there, here", [("0000003", "3"), ("3", "0003")])
def test_leading_zeros_make_no_other_person(there, here):
    people = tuple(replace(person, subject=person.subject.replace("3", here)) for person in four().rows)
    run = run_of(cohort=replace(four(), rows=people))
    with pytest.raises(InputError, match=f"^1 of 2 test subjects of here trained this checkpoint: {here}. Results"):
        leaks(run, saved_by(run, training_subjects=(there,)))


def elsewhere(run: Run, **changes) -> Identity:
    """The identity of a checkpoint of another cohort, prepared as this one but for `changes`."""
    prepared = replace(run.cohort.metadata.preparation, **changes)
    return saved_by(run, cohort_sha256="0" * 64, preparation=prepared)


@pytest.mark.parametrize(
    "model, changes, words",
    [
        (
            "nn",
            {"phenotype": ("age", "IQ")},
            "with phenotype IQ as entry 2, here has FIQ as entry 2; use",
        ),
        ("nn", {"phenotype_mean": (12.0, 105.6)}, r"phenotype_mean 105\.6 as entry 2, here has 105\.5 as entry 2"),
        ("nn", {"phenotype": ("age",)}, "with phenotype of 1 entries, here has of 2 entries"),
        ("cnn", {"normalisation": "none"}, "with normalisation none, here has brain; use a cohort made like there"),
        ("cnn", {"maps": ("reho",)}, "with maps reho as entry 1, here has falff as entry 1"),
        ("mmnn", {"phenotype": ("age", "IQ")}, "phenotype IQ"),
    ],
)
def test_a_cohort_made_otherwise(model, changes, words):
    run = run_of(model)
    guards.same_preparation(run, elsewhere(run))
    with pytest.raises(InputError, match=words):
        guards.same_preparation(run, elsewhere(run, **changes))
    guards.same_preparation(run, saved_by(run, preparation=elsewhere(run, **changes).preparation))  # its own cohort


@pytest.mark.parametrize("model, name", [("nn", "normalisation"), ("cnn", "phenotype")])
def test_what_a_model_does_not_read_may_be_made_otherwise(model, name):
    run = run_of(model)
    guards.same_preparation(run, elsewhere(run, **{name: ("other",) if name == "phenotype" else "other"}))


def test_what_is_not_known_is_not_compared():
    run = run_of("mmnn")
    unknown = elsewhere(run, phenotype_mean=(), normalisation="")
    guards.same_preparation(run, unknown)
    named = sorted(name for name, both in guards.preparations(run, unknown).items() if None in both)
    assert named == sorted(["phenotype_mean", "normalisation", "reduction", "phenotype_median", "phenotype_scale"])


def test_records_of_another_number_of_maps():
    run = run_of("cnn", replace(four(maps=()), num_maps=2))
    words = "was trained on records of 1 map, here has 2 maps a record; use a cohort made like there"
    with pytest.raises(InputError, match=words):
        guards.same_preparation(run, elsewhere(run))
    guards.same_preparation(run, replace(elsewhere(run), num_maps=2))
    without_volumes = run_of("nn", run.cohort)
    guards.same_preparation(without_volumes, elsewhere(without_volumes))


def test_folders_that_can_be_written(tmp_path, monkeypatch):
    guards.writable_checkpoints(run_of(folder=tmp_path / "not" / "there"))
    assert not (tmp_path / "not").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/ckpt/nn cannot be written \(.*/file is a file\); .* --chkPointDir"):
        guards.writable_checkpoints(run_of(folder=tmp_path / "file"))
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write everywhere
    for guard in (guards.free_output, guards.new_output):
        with pytest.raises(InputError, match=r"out cannot be written \(Permission denied\); .* --outDir"):
            guard(run_of(folder=tmp_path))


def test_one_class():
    labels = {"train": 1.0, "test": 0.0}
    rows = tuple(replace(person, label=labels[person.split]) for person in four().rows)
    alike = replace(four(), rows=rows)
    guards.two_classes(run_of("nn"))
    guards.two_classes(run_of("ae", alike))
    with pytest.raises(InputError, match=r"^here has one class only among its training subjects"):
        guards.two_classes(run_of("nn", alike))


@pytest.mark.parametrize("other, whose", [(run_of("ae"), "train of ae"), (replace(run_of(), job=TEST), "test of nn")])
def test_a_folder_of_results_belongs_to_the_job_and_model_that_wrote_it(other, whose, tmp_path):
    run = run_of(folder=tmp_path)
    run.out_dir.mkdir()
    replace(other, out_dir=run.out_dir).write_manifest(finished=False)
    with pytest.raises(InputError, match=rf"out holds the results of another run \({whose}\), this one is train of nn"):
        guards.free_output(run)


def test_records_that_would_be_one_file():
    guards.distinct_names(run_of())
    rows = tuple(replace(person, file=f"{person.subject}/scan.bin") for person in four().rows)
    with pytest.raises(InputError, match=r"here has the records '1/scan\.bin' and .*, which are one file"):
        guards.distinct_names(run_of(cohort=replace(four(), rows=rows)))


@pytest.mark.parametrize(
    "changes, code",
    [({"filters": (4, 4), "strides": (3, 1)}, "31x37x31x4"), ({"filters": (4, 1), "strides": (1, 1)}, "91x109x91x1")],
)
def test_a_code_that_the_other_models_do_not_read(changes, code):
    run = run_of("cae", replace(four(), grid=FULL))
    guards.code_fits(run)
    other = replace(run, config=dataclasses.replace(run.config, **changes))
    with pytest.raises(InputError, match=rf"gives a code of {code} \(x, y, z, channels\)"):
        guards.code_fits(other)
