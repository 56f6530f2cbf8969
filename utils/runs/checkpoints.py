"""Checkpoints on disk: TensorFlow's files in `<chkPointDir>/<model>`, each with the `Record` of its training beside it.

A training from zero beside an earlier one gives its files another name. So the earlier checkpoint is the one in use
until the new training has saved, when TensorFlow's state file is replaced; then it is removed. If a checkpoint is not
as it was saved, the one before is used and a warning is printed. Other files in the folder stay: `folds-<how>/<K>` and
`train_on_everybody`, checkpoints of other trainings, and the user's.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.base import files
from data.base.errors import InputError
from data.cohorts.cohort import Cohort
from data.cohorts.stored import open_run_cohort
from utils.runs import record
from utils.runs.cross_validation import CrossValidation
from utils.runs.record import Record

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from data.likeness.reference import Reference

STATE = "checkpoint"  # TensorFlow's own file, replaced only after a checkpoint is whole
EVERYBODY = "everybody"  # the folder of a model that is trained on everybody
OF_FOLDS = "folds-"  # begins the name of a folder of other checkpoints, one a fold
KEPT = 3  # checkpoints of a training
NAMES = ("ckpt", "ckpt_anew")  # a training from zero takes the one that is not in use
FILES = re.compile(r"(ckpt|ckpt_anew)-(\d{1,18})(\.index|\.data-\d{5}-of-\d{5}|\.json|_temp)")


@dataclass(frozen=True)
class CheckpointFolder:
    """The folder of one network's checkpoints, which need not exist; `training` is the command that makes them. A
    checkpoint is known by its prefix, `<folder>/ckpt-<batches seen>`."""

    path: Path
    training: str = "run.py --train"

    @property
    def overlap(self) -> str:
        """What is said where people cannot be compared with those who trained it."""
        return (
            "Whether tested participants are training participants under another name is not known: the training "
            "scans are not at hand."
        )

    @property
    def named(self) -> Path | None:
        """The prefix that TensorFlow's state file names; None without that file."""
        state = self.path / STATE
        if not state.is_file():
            return None
        match = re.search(rb'^model_checkpoint_path: "(.*)"', state.read_bytes(), re.MULTILINE)
        return self.path / (os.path.basename(os.fsdecode(match[1])) if match else "unnamed")

    @property
    def prefixes(self) -> list[Path]:
        """Those of this training's checkpoints, the latest first. Where the state file names none, those count
        whose digest is recorded: the first one may not have been completed."""
        found = [match for path in self.path.glob("*.json") if (match := FILES.fullmatch(path.name))]
        last = FILES.fullmatch(f"{self.named.name}.json") if self.named else None
        if last:
            found = [match for match in found if match[1] == last[1] and int(match[2]) <= int(last[2])]
        ordered = sorted(found, key=lambda match: int(match[2]), reverse=True)
        prefixes = [self.path / f"{match[1]}-{match[2]}" for match in ordered]
        return prefixes if last else [prefix for prefix in prefixes if self.digests_at(prefix)]

    def at(self, prefix: Path) -> Record:
        """The record of a checkpoint. Raises InputError if it is gone or damaged."""
        path = prefix.with_name(f"{prefix.name}.json")
        found = record.read(path)
        if found is None:
            raise InputError(f"{path} cannot be read (No such file or directory). Copy it again.")
        return found

    def digests_at(self, prefix: Path) -> dict[str, str] | None:
        """The digests of a checkpoint's files, none before it was saved; None if its record is damaged."""
        try:
            return self.at(prefix).outputs
        except InputError:
            return None

    def is_whole(self, prefix: Path) -> bool:
        """Whether a checkpoint is as it was saved; one whose digest was not recorded any more is, if it is there."""
        paths, known = files_of(prefix), self.digests_at(prefix)
        return known == digests(paths) if known else known is not None and len(paths) > 1

    @property
    def exists(self) -> bool:
        """Whether there is a checkpoint."""
        return self.named is not None or bool(self.prefixes)

    @property
    def whole(self) -> Path | None:
        """The prefix of the latest checkpoint that is as it was saved; None if there is none."""
        for _ in range(3):
            with suppress(FileNotFoundError):  # a training that still runs has saved, and removed its oldest one
                return next((prefix for prefix in self.prefixes if self.is_whole(prefix)), None)
        return None

    def latest(self) -> Path:
        """The same. Raises InputError if there is none."""
        if whole := self.whole:
            return whole
        if not self.exists:
            raise InputError(f"{self.path} holds no checkpoint; make one: {self.training}")
        for prefix in self.prefixes[:1]:
            self.at(prefix)  # says what is wrong with its record
        raise InputError(
            f"{self.named or self.path} is not there or not as it was saved, nor is one before it; copy the whole "
            f"folder again, or train again: {self.training} --overrideChkpt"
        )

    @property
    def damaged(self) -> list[str]:
        """The names of damaged checkpoints later than the latest whole one, or of the state file."""
        prefixes, latest = self.prefixes, self.latest()
        if latest not in prefixes:  # saved meanwhile
            return []
        names = [prefix.name for prefix in takewhile(lambda prefix: prefix != latest, prefixes)]
        return names if self.named in prefixes else [STATE, *names]

    def record(self) -> Record:
        """That of the latest whole checkpoint. Raises InputError if there is none or it is damaged."""
        return self.at(self.latest())

    @property
    def cohort_of_training(self) -> str:
        """Where the cohort of the training lay, as the latest record says that can be read; empty if none can."""
        for prefix in self.prefixes:
            with suppress(InputError):
                return self.at(prefix).cohort
        return ""

    def digest(self) -> str:
        """SHA-256 of the latest checkpoint's files. Raises InputError if there are none."""
        return record.sha256(*files_of(self.latest()))

    def history(self, name: str) -> Path:
        """What a training kept of its history, whose checkpoints have this name."""
        return self.path / f"{name}.csv"

    def tell_of_training(self) -> None:
        """Prints it if a training still runs, whose later checkpoints are not used."""
        if writer := files.find_writer(self.path):
            print(f"{self.path} is still being trained, by {writer}; used as it was last saved.", flush=True)

    def prepare(self, anew: bool) -> str:
        """Makes the folder, removes the files of checkpoints but the latest whole ones, and returns the name that those
        of a training are to have."""
        self.path.mkdir(parents=True, exist_ok=True)
        whole = self.whole
        used = name_of(whole) if whole else NAMES[0]
        self.remove_but([] if whole is None else self.prefixes[self.prefixes.index(whole) :][:KEPT])
        if self.named not in (None, *self.prefixes):
            (self.path / STATE).unlink()
        return next(name for name in NAMES if name != used) if anew and whole else used

    def remove_but(self, prefixes: Iterable[Path]) -> None:
        """Removes all files of checkpoints but these."""
        kept = {prefix.name for prefix in prefixes}
        for path in self.path.iterdir():
            if (found := FILES.fullmatch(path.name)) and f"{found[1]}-{found[2]}" not in kept:
                files.remove(path)

    def write(self, prefix: str, of: Record, saved: bool) -> None:
        """Writes the record of a checkpoint: before, and once it is `saved`, with its digest."""
        outputs = digests(files_of(self.path / prefix)) if saved else {}
        record.write(self.path / f"{prefix}.json", replace(of, outputs=outputs, finished=saved))

    def scored(self, of_folds: CrossValidation | None) -> Record:
        """The record, with the test on folds that goes with the latest checkpoint."""
        prefix, found = self.latest(), replace(self.record(), cross_validation=of_folds)
        if found != self.record():
            self.write(prefix.name, found, saved=True)
        return found

    def restore(self, network: "keras.Model") -> None:
        """Gives a network the latest weights, for inference. TensorFlow must have been started. Raises InputError, see
        `read`."""
        import tensorflow as tf

        checkpoint = tf.train.Checkpoint(model=network)
        self.read(checkpoint, lambda status: status.expect_partial().assert_existing_objects_matched())

    def read(self, checkpoint: "tf.train.Checkpoint", check: Callable[[Any], object]) -> None:
        """Restores the latest files. Raises InputError if they are damaged, or of another network as `check` finds."""
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")  # it lists what could not be restored, each variable on a line
        try:
            check(checkpoint.restore(str(self.latest())))
        except (tf.errors.OpError, LookupError) as error:
            raise InputError(
                f"{self.latest()} cannot be read ({short(error)}). Train again: {self.training} --overrideChkpt"
            ) from error
        except (ValueError, AssertionError) as error:
            raise InputError(
                f"{self.latest()} has weights of another network than its record describes; were files mixed up? "
                f"Train again: {self.training} --overrideChkpt"
            ) from error

    def reference(self) -> "Reference | None":
        """What those who trained the checkpoint are like; None if their cohort is not at hand as it was. Raises
        InputError if they are too few to tell."""
        from data.likeness.reference import make_reference

        people, source = self.record().people, self.training_cohort()
        if people is None or source is None:
            return None
        trained = set(people.subjects)
        return make_reference(source, [at for at, row in enumerate(source.rows) if row.subject in trained])

    def training_cohort(self) -> Cohort | None:
        """The cohort of the training; None if it is gone or not as it was. If the checkpoint was moved with it, it lies
        from here as before."""
        saved = self.record()
        there = [Path(saved.cohort), self.path / os.path.relpath(saved.cohort, saved.checkpoint_folder)]
        return next(cohorts_like(saved, there), None)


def cohorts_like(saved: Record, places: Iterable[Path]) -> Iterator[Cohort]:
    """The cohorts in these folders that are those of a record."""
    from data.cohorts.variants import train_on_everybody

    for place in places:
        try:
            cohort = open_run_cohort(place, unite_groups=False)
            cohort = train_on_everybody(cohort) if saved.everybody else cohort
        except InputError:
            continue
        if cohort.identity == saved.cohort_sha256:
            yield cohort


def name_of(prefix: Path) -> str:
    """The name of a training's checkpoints."""
    return prefix.name.rpartition("-")[0]


def files_of(prefix: Path) -> list[Path]:
    """TensorFlow's files of a checkpoint."""
    return sorted(path for path in prefix.parent.glob(f"{prefix.name}.*") if path.suffix != ".json")


def digests(paths: Iterable[Path]) -> dict[str, str]:
    return {path.name: record.sha256(path) for path in paths}


def short(error: Exception) -> str:
    """An error's first line, without TensorFlow's names of operations, cut to a readable length."""
    text = re.sub(r"\{\{.*?\}\} | \[Op:\w+\]", "", str(getattr(error, "message", error)))
    return (text.strip().splitlines() or [type(error).__name__])[0][:160]
