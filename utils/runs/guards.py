"""What a run must not do, checked before anything is written: each guard returns None, or raises an InputError.

A guard looks at a run and at `saved`, the record of its checkpoint, if there is one.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.base import files
from data.base.errors import InputError
from data.base.terminal import format_participants
from data.cohorts.cohort import flatten_cohort
from data.cohorts.duplicates import PeopleScans, find_people_in_common, load_people_scans
from data.cohorts.records import CLASS_NAMES, REDUCED
from data.cohorts.rows import join_names
from utils.runs import record
from utils.runs.checkpoints import EVERYBODY, OF_FOLDS, CheckpointFolder
from utils.runs.cross_validation import CrossValidation
from utils.runs.record import Choices, Record
from utils.runs.run import Run

OTHER = "another --chkPointDir, or --train --overrideChkpt"
WITHOUT_THEM = (
    "Keep the split of the cohort that was trained on (abide-data convert --keepSplit), or leave them out (--exclude)."
)
IN_FOLDS = (
    "Reduce without learning (abide-data convert --grid reduced), or train cae and do its full pass with the same "
    "--folds."
)
EDITED = "Was folds.csv among the checkpoints edited? Copy it again, or train with another --chkPointDir."
THEIR_SCORE = (
    "Test other participants; what is known of these is a test on folds, which --train --everybody --score names."
)
CHECKPOINT = "this checkpoint"
YOUR_OWN = "name a folder of your own with {}"


def trained_otherwise(folder: CheckpointFolder, of_model: Path) -> None:
    """Raises InputError if a checkpoint is missing, and the model was trained in other folds, or on a split."""
    if folder.exists:
        return
    found = [path.name for path in sorted(of_model.glob("*")) if path.name.startswith((OF_FOLDS, EVERYBODY))]
    found += ["one of a split"] if CheckpointFolder(of_model).exists else []
    if found := [name for name in found if name not in folder.path.parts]:
        raise InputError(
            f"{folder.path} holds no checkpoint, but {of_model} has {join_names(found)}; say so with --folds, "
            f"--wholeSites or --everybody, or make this one: {folder.training}"
        )


def by_checkpoint(run: Run, saved: Record | None) -> None:
    """What holds for every use of a checkpoint or a bundle: the cohort is as its own was, and has none of its people
    among those who are tested."""
    if saved is None:
        return
    same_settings(run, saved)
    no_leak(run, saved)
    same_preparation(run, saved)
    no_near_copy(run, saved)


def same_settings(run: Run, saved: Record) -> None:
    """The checkpoint must have this preset, these hyper-parameters and this grid; if inner folds chose them, these
    candidates."""
    if not run.job.needs_checkpoint and (run.candidates or saved.candidates):
        if saved.candidates != (compared := tuple(map(str, run.candidates))):
            raise InputError(
                f"{run.checkpoints.path} was chosen among {join_names(saved.candidates) or 'no candidates'}, this run "
                f"compares {join_names(compared) or 'none'}; use --choose accordingly or {OTHER}."
            )
        if (batches := saved.told.get("chosen", {}).get("batches", run.num_iters)) != run.num_iters:
            raise InputError(
                f"{run.checkpoints.path} was chosen by trainings of {batches} batches, this run asks for "
                f"{run.num_iters}; use --numIters {batches}, or {OTHER}."
            )
        return
    assert saved.settings
    its, own = asdict(run.model.parse_settings(saved.settings.config)), asdict(run.config)
    there = {"preset": saved.settings.preset, "grid": saved.settings.grid} | its
    here = {"preset": run.choices.preset, "grid": run.choices.grid} | own
    refuse_others(run.checkpoints.path, there, here, f"Leave --preset and --set out, use its --dataDir, or {OTHER}.")


def same_training(run: Run, saved: Record) -> None:
    """A training is continued with the seed and precision that it was started with, on the same data."""
    there, here = ({name: getattr(of, name) for name in ("seed", "precision")} for of in (saved.settings, run.choices))
    refuse_others(run.checkpoints.path, there, here, f"Use the same, or {OTHER}.")
    if saved.cohort_sha256 != run.cohort.identity:
        raise InputError(
            f"{run.checkpoints.path} was trained on other data ({saved.cohort}, as it was then); use {OTHER}."
        )


def refuse_others(where: object, there: Mapping[str, Any], here: Mapping[str, Any], advice: str) -> None:
    """Raises InputError for what is otherwise here than there."""
    names = [name for name in here if there.get(name) != here[name]]
    if odd := [f"{name}={there.get(name)} there, {name}={here[name]} asked for" for name in names]:
        raise InputError(f"{where} differs: {join_names(odd, 3, '; ')}. {advice}")


def as_scored(run: Run) -> None:
    """The test on folds that goes with a model of everybody was of the same records, trained with the same settings."""
    if run.cross_validation:
        check_score(run.cross_validation, run.cohort.path, run.cohort.identity, run.choices, run.num_iters)


def check_score(
    of_folds: CrossValidation, cohort: object, cohort_sha256: str, choices: Choices, num_iters: int
) -> None:
    """Raises InputError unless a test on folds was of the same records as a model, trained with the same settings."""
    if of_folds.cohort_sha256 != cohort_sha256:
        raise InputError(
            f"--score {of_folds.folder} is of other data than {cohort} has now; name a test on folds of these."
        )
    there = of_folds.config | {name: getattr(of_folds, name) for name in ("preset", "precision", "num_iters")}
    here = record.as_json(choices.config) | {"preset": choices.preset, "precision": choices.precision}
    advice = "Use the same, or test these settings on folds."
    refuse_others(f"--score {of_folds.folder}", there, here | {"num_iters": num_iters}, advice)


def no_leak_by_encoder(run: Run) -> None:
    """No test subject of this cohort may have trained the encoder that made its volumes."""
    metadata = run.cohort.metadata
    refuse_leak(run, "the encoder of these volumes", metadata.encoder_subjects, metadata.encoder_volumes)


def no_leak(run: Run, saved: Record) -> None:
    """No test subject of this cohort may have trained the checkpoint, or the encoder behind it."""
    if (people := saved.people) is None or (people.subjects and not people.scans):
        raise InputError(
            f"{run.checkpoints.path} does not say which scans its training participants have; was its record edited? "
            f"Copy it again, or use {OTHER}."
        )
    own = saved.cohort_sha256 == run.cohort.identity and saved.everybody
    if people.scans_sha256 and (own or run.cohort.scans_sha256("test") == people.scans_sha256):
        raise InputError(
            f"{run.cohort.path} trained {run.checkpoints.path}, so that results would be too good; test other "
            "participants."
        )
    refuse_leak(run, CHECKPOINT, people.subjects, people.scans)
    refuse_leak(run, "the encoder behind this checkpoint", people.encoder_subjects, people.encoder_scans)


def refuse_leak(run: Run, what: str, subjects: Collection[str], volumes: Collection[str]) -> None:
    """Raises InputError if a test subject is one of those who trained `what`, by the name or by the scan under another
    name."""
    if not subjects and not volumes:
        return  # as of an encoder, where there is none
    cohort, known = run.cohort, set(map(bare_name, subjects))
    tested = cohort.split_subjects("test")
    by_scan = find_people_in_common(
        PeopleScans({what: set(volumes)}), load_people_scans(cohort, tested, with_means=False)
    )
    if leaked := [name for name in tested if bare_name(name) in known or name in by_scan]:
        renamed = [name for name in leaked if bare_name(name) not in known]
        which = "all of them" if renamed == leaked else join_names(renamed)
        names = f" By their scans, whatever their names: {which}." if renamed else ""
        in_folds = EDITED if what == CHECKPOINT else IN_FOLDS
        advice = in_folds if run.folds else THEIR_SCORE if run.everybody else WITHOUT_THEM
        raise InputError(
            f"{len(leaked)} of {format_participants(len(tested), 'test')} of {cohort.path} trained {what}: "
            f"{join_names(leaked)}.{names} Results on them would be too good. {advice}"
        )


def no_near_copy(run: Run, saved: Record) -> None:
    """No test subject of another cohort may have nearly the scan of a training subject, such as one with noise. What
    cannot be compared is printed."""
    cohort = run.cohort
    if saved.cohort_sha256 == cohort.identity or cohort.is_simulated:
        return  # its own cohort, in which near_duplicates are in one split
    if not saved.everybody and saved.cohort_sha256 == cohort.metadata.provenance.get("like"):
        return  # compared when it was converted
    training = run.checkpoints.training_cohort()
    if training is None or saved.people is None or training.num_maps != cohort.num_maps:
        print(run.checkpoints.overlap)
        return
    trained = load_people_scans(training, saved.people.subjects)
    if leaked := find_people_in_common(trained, load_people_scans(cohort, cohort.split_subjects("test"))):
        pairs = join_names([f"{one} has that of {other}" for one, other in leaked.items()])
        raise InputError(
            f"At least {len(leaked)} test participants of {cohort.path} have the scan of a training participant of "
            f"this checkpoint, with noise or exported again: {pairs}. {WITHOUT_THEM}"
        )


def bare_name(subject: str) -> str:
    """A subject's ID without leading zeros, which spreadsheets drop."""
    return subject.lstrip("0") or subject


def same_preparation(run: Run, saved: Record) -> None:
    """The cohort must have been made as the checkpoint's own was, as far as both say."""
    if saved.cohort_sha256 == run.cohort.identity:
        return
    reads = run.model.list_inputs(run.config)
    of_saved = saved.preparation.select_for_inputs(reads) if saved.preparation else {}
    unknown = []
    for name, here in run.cohort.metadata.select_for_inputs(reads).items():
        there = of_saved.get(name)
        if None in (there, here):
            unknown.append(name)
        elif there != here:
            raise InputError(
                f"{run.checkpoints.path} was trained on data with {name} {excerpt(there, here)}, "
                f"{run.cohort.path} has {excerpt(here, there)}; use a cohort made like {saved.cohort}."
            )
    if unknown:
        print(f"Not known of both the checkpoint's data and {run.cohort.path}, so not compared: {', '.join(unknown)}.")
    if "volume" in run.model.input_names and saved.num_maps != run.cohort.num_maps:
        its, own = (f"{count} map{'s' if count > 1 else ''}" for count in (saved.num_maps, run.cohort.num_maps))
        raise InputError(
            f"{run.checkpoints.path} was trained on records of {its}, {run.cohort.path} has {own} a record; "
            f"use a cohort made like {saved.cohort}."
        )


def excerpt(value: object, other: object) -> str:
    """A value to show beside another one; of lists the first entry that differs."""
    if not isinstance(value, tuple) or not isinstance(other, tuple):
        return str(value)
    if len(value) != len(other):
        return f"of {len(value)} entries"
    at = next(index for index, (mine, its) in enumerate(zip(value, other, strict=True)) if mine != its)
    return f"{value[at]} as entry {at + 1}"


def two_classes(run: Run) -> None:
    """A classifier is trained on both classes."""
    labels = {run.cohort.rows[index].label for index in run.cohort.split_indices("train")}
    if run.model.predicted == "label" and len(labels) < len(CLASS_NAMES):
        raise InputError(
            f"{run.cohort.path} has one class only among its training participants; expected two. Convert "
            "participants of both."
        )


def free_output(run: Run) -> None:
    """The output folder holds nothing but what a run of this job and model wrote, and can be written; so can that of
    the checkpoints of a training."""
    record.check_free(run.out_dir, run.job.name, run.model.model_name)
    files.check_writable(run.out_dir, YOUR_OWN.format("--outDir"))
    if not run.job.needs_checkpoint:
        files.check_writable(run.checkpoints.path, YOUR_OWN.format("--chkPointDir"))


def new_output(run: Run) -> None:
    """The reduced cohort does not exist yet."""
    files.check_new(run.out_dir)
    files.check_writable(run.out_dir, YOUR_OWN.format("--outDir"))


def distinct_names(run: Run) -> None:
    """A file can be written for each record, whatever folder it comes from."""
    flatten_cohort(run.cohort)


def code_fits(run: Run) -> None:
    """The code of the autoencoder is what the other models read."""
    code = run.model.module.code_shape(run.config, run.cohort.grid)
    if code != (*REDUCED.shape, 1):
        raise InputError(
            f"This {run.model.model_name} gives a code of {'x'.join(map(str, code))} (x, y, z, channels); the other "
            f"models read {REDUCED} in one channel. Train it with strides whose product is 3 and one filter last."
        )
