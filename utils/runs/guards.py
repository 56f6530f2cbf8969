"""What a run must not do, checked before anything is written: each guard returns None, or raises an InputError.

A guard looks at a run alone. A comparison looks at a run and at `saved`, the identity of its checkpoint.
"""

import dataclasses
import os
from collections.abc import Collection
from pathlib import Path

from data.base import files
from data.base.errors import InputError
from data.cohorts.cohort import in_one_folder
from data.cohorts.duplicates import People, in_common, people_of
from data.cohorts.records import CLASSES, REDUCED
from data.cohorts.rows import listed
from utils.runs.checkpoints import Identity, training_cohort
from utils.runs.run import Run

OTHER = "another --chkPointDir, or --train --overrideChkpt"
WITHOUT_THEM = (
    "Keep the split of the cohort that was trained on (abide-data convert --keepSplit), or leave them out (--exclude)."
)
IN_FOLDS = (
    "Reduce without learning (abide-data convert --grid reduced), or train cae and do its full pass with the same "
    "--folds."
)
OF_FOLDS = "Was folds.csv among the checkpoints edited? Copy it again, or train with another --chkPointDir."
OF_EVERYBODY = "Test other people; what is known of these is a test on folds, which --train --everybody --score names."
CHECKPOINT = "this checkpoint"
FLAGS = {"grid": "--dataDir"}  # of choices that are called otherwise


def check(run: Run, saved: Identity | None) -> None:
    """Raises InputError for the first guard or comparison that refuses the run; prints what could not be compared."""
    for guard in run.job.guards:
        guard(run)
    if saved is None:
        return
    for comparison in run.job.comparisons:
        comparison(run, saved)
    if same_preparation in run.job.comparisons and saved.cohort_sha256 != run.cohort.identity:
        unknown = [name for name, both in preparations(run, saved).items() if None in both]
        if unknown:
            print(
                f"Not known of both the checkpoint's data and {run.cohort.path}, so not compared: {', '.join(unknown)}."
            )


def same_settings(run: Run, saved: Identity) -> None:
    """The checkpoint must have this preset, these hyper-parameters and this grid."""
    refuse_others(run, saved, "preset", "grid")
    there, here = dataclasses.asdict(run.model.settings(saved.config)), dataclasses.asdict(run.config)
    changed = [name for name in here if there.get(name) != here[name]]
    if differing := [f"{name}={there.get(name)} there, {name}={here[name]} asked for" for name in changed]:
        raise InputError(f"{run.checkpoints.path} differs: {'; '.join(differing)}. Leave --set out or use {OTHER}.")


def same_training(run: Run, saved: Identity) -> None:
    """A training is continued with the seed and precision that it was started with, on the same data."""
    refuse_others(run, saved, "seed", "precision")
    if saved.cohort_sha256 != run.cohort.identity:
        raise InputError(
            f"{run.checkpoints.path} was trained on other data ({saved.cohort}, as it was then); use {OTHER}."
        )


def refuse_others(run: Run, saved: Identity, *names: str) -> None:
    """Raises InputError for the first of these choices that differs from the checkpoint's."""
    for name in names:
        there, here = getattr(saved, name), getattr(run.choices, name)
        if there != here:
            what = name.replace("_", " ")
            raise InputError(
                f"{run.checkpoints.path} is of {what} {there}, this run of {what} {here}; "
                f"use {FLAGS.get(name, f'--{name}')} accordingly or {OTHER}."
            )


def no_leak_by_encoder(run: Run) -> None:
    """No test subject of this cohort may have trained the encoder that made its volumes."""
    metadata = run.cohort.metadata
    refuse_leak(run, "the encoder of these volumes", metadata.encoder_subjects, metadata.encoder_volumes)


def no_leak(run: Run, saved: Identity) -> None:
    """No test subject of this cohort may have trained the checkpoint, or the encoder behind it."""
    if saved.training_subjects and not saved.training_volumes:
        raise InputError(
            f"{run.checkpoints.path} does not say which scans its {len(saved.training_subjects)} training subjects "
            f"have; was its run.json edited? Copy it again, or use {OTHER}."
        )
    refuse_leak(run, CHECKPOINT, saved.training_subjects, saved.training_volumes)
    refuse_leak(run, "the encoder behind this checkpoint", saved.encoder_subjects, saved.encoder_volumes)


def refuse_leak(run: Run, what: str, subjects: Collection[str], volumes: Collection[str]) -> None:
    """Raises InputError if a test subject is one of those who trained `what`, by the name or by the scan under another
    name."""
    if not subjects and not volumes:
        return  # as of an encoder, where there is none
    cohort, known = run.cohort, set(map(bare_name, subjects))
    tested = cohort.subjects("test")
    by_scan = in_common(People({what: set(volumes)}), people_of(cohort, tested, with_means=False))
    if leaked := [name for name in tested if bare_name(name) in known or name in by_scan]:
        renamed = [name for name in leaked if bare_name(name) not in known]
        which = "all of them" if renamed == leaked else listed(renamed)
        names = f" By their scans, whatever their names: {which}." if renamed else ""
        in_folds = OF_FOLDS if what == CHECKPOINT else IN_FOLDS
        advice = in_folds if run.folds else OF_EVERYBODY if run.everybody else WITHOUT_THEM
        raise InputError(
            f"{len(leaked)} of {len(tested)} test subjects of {cohort.path} trained {what}: {listed(leaked)}."
            f"{names} Results on them would be too good. {advice}"
        )


def no_near_copy(run: Run, saved: Identity) -> None:
    """No test subject of another cohort may have nearly the scan of a training subject, such as one with noise. A
    warning is printed where the training cohort cannot be compared."""
    cohort = run.cohort
    if not saved.training_subjects or saved.cohort_sha256 == cohort.identity or cohort.simulated:
        return  # its own cohort, in which twins are in one split
    if not saved.everybody and saved.cohort_sha256 == cohort.metadata.provenance.get("like"):
        return  # compared when it was converted
    training = training_cohort(saved)
    if training is None or training.num_maps != cohort.num_maps:
        print(f"Not compared, whether test subjects have nearly a training scan: {saved.cohort} is not as it was.")
        return
    if leaked := in_common(people_of(training, saved.training_subjects), people_of(cohort, cohort.subjects("test"))):
        pairs = listed([f"{one} has that of {other}" for one, other in leaked.items()])
        raise InputError(
            f"At least {len(leaked)} test subjects of {cohort.path} have the scan of a training subject of this "
            f"checkpoint, with noise or exported again: {pairs}. {WITHOUT_THEM}"
        )


def bare_name(subject: str) -> str:
    """A subject's ID without leading zeros, which spreadsheets drop."""
    return subject.lstrip("0") or subject


def same_preparation(run: Run, saved: Identity) -> None:
    """The cohort must have been made as the checkpoint's own was, as far as both say."""
    if saved.cohort_sha256 == run.cohort.identity:
        return
    for name, (there, here) in preparations(run, saved).items():
        if None not in (there, here) and there != here:
            raise InputError(
                f"{run.checkpoints.path} was trained on data with {name} {excerpt(there, here)}, "
                f"{run.cohort.path} has {excerpt(here, there)}; use a cohort made like {saved.cohort}."
            )
    if "volume" in run.model.reads and saved.num_maps != run.cohort.num_maps:
        its, own = (f"{count} map{'s' if count > 1 else ''}" for count in (saved.num_maps, run.cohort.num_maps))
        raise InputError(
            f"{run.checkpoints.path} was trained on records of {its}, {run.cohort.path} has {own} a record; "
            f"use a cohort made like {saved.cohort}."
        )


def preparations(run: Run, saved: Identity) -> dict[str, tuple[object, object]]:
    """How the checkpoint's data and the run's were made, as far as the model reads them; None where unknown."""
    reads = run.model.inputs(run.config)
    there, here = (preparation.of_inputs(reads) for preparation in (saved.preparation, run.cohort.metadata))
    return {name: (there[name], here[name]) for name in here}


def excerpt(value: object, other: object) -> str:
    """A value to show beside another one; of lists the first entry that differs."""
    if not isinstance(value, tuple) or not isinstance(other, tuple):
        return str(value)
    if len(value) != len(other):
        return f"of {len(value)} entries"
    at = next(index for index, (mine, its) in enumerate(zip(value, other, strict=True)) if mine != its)
    return f"{value[at]} as entry {at + 1}"


def writable_checkpoints(run: Run) -> None:
    """The checkpoint folder can be made and written."""
    check_writable(run.checkpoints.path, "--chkPointDir")


def check_writable(folder: Path, flag: str) -> None:
    """Raises InputError unless a folder can be made, and written."""
    nearest = next(parent for parent in (folder, *folder.absolute().parents) if os.path.lexists(parent))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        reason = "Permission denied" if nearest.is_dir() else f"{nearest} is a file"
        raise InputError(f"{folder} cannot be written ({reason}); name a folder of your own with {flag}.")


def two_classes(run: Run) -> None:
    """A classifier is trained on both classes."""
    labels = {run.cohort.rows[index].label for index in run.cohort.indices("train")}
    if run.model.predicts == "label" and len(labels) < len(CLASSES):
        raise InputError(
            f"{run.cohort.path} has one class only among its training subjects; expected two. Convert people of both."
        )


def free_output(run: Run) -> None:
    """The output folder holds nothing but what a run of this job and model wrote."""
    run.results.own_files()
    check_writable(run.out_dir, "--outDir")


def new_output(run: Run) -> None:
    """The reduced cohort does not exist yet."""
    files.check_new(run.out_dir)
    check_writable(run.out_dir, "--outDir")


def distinct_names(run: Run) -> None:
    """A file can be written for each record, whatever folder it comes from."""
    in_one_folder(run.cohort)


def code_fits(run: Run) -> None:
    """The code of the autoencoder is what the other models read."""
    code = run.model.module.code_shape(run.config, run.cohort.grid)
    if code != (*REDUCED.shape, 1):
        raise InputError(
            f"This {run.model.name} gives a code of {'x'.join(map(str, code))} (x, y, z, channels); the other models "
            f"read {REDUCED} in one channel. Train it with strides whose product is 3 and one filter last."
        )
