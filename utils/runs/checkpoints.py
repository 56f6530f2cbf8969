"""Checkpoints on disk: TensorFlow's files in `<chkPointDir>/<model>`, each beside the `Manifest` of its training.

A training from zero beside an earlier one gives its files another name. So the earlier checkpoint is the one in use
until the new training has saved, when TensorFlow's state file is replaced; then it is removed. If a checkpoint is not
as it was saved, the one before is used and a warning is printed. Other files in the folder stay: `folds-<how>/<K>` and
`everybody`, checkpoints of other trainings, and the user's.
"""

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.base import files
from data.base.errors import InputError
from data.cohorts.cohort import Cohort
from data.cohorts.stored import open_run_cohort
from utils.runs import record
from utils.runs.cross_validation import CrossValidation
from utils.runs.record import Manifest
from utils.runs.weights import TrainedWeights

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from data.likeness.reference import TrainingReference

STATE_FILE = "checkpoint"  # TensorFlow's own file, replaced only after a checkpoint is whole
EVERYBODY_FOLDER = "everybody"  # the folder of a model that is trained on everybody
FOLDS_FOLDER_PREFIX = "folds-"  # begins the name of a folder of other checkpoints, one a fold
MAX_CHECKPOINTS = 3  # checkpoints of a training
CHECKPOINT_NAMES = ("ckpt", "ckpt_anew")  # a training from zero takes the one that is not in use
CHECKPOINT_FILE_PATTERN = re.compile(r"(ckpt|ckpt_anew)-(\d{1,18})(\.index|\.data-\d{5}-of-\d{5}|\.json|_temp)")


@dataclass(frozen=True)
class CheckpointFolder(TrainedWeights):
    """The folder of one network's checkpoints, which need not exist. A checkpoint is known by its prefix,
    `<folder>/ckpt-<batches seen>`."""

    @property
    def unknown_overlap_warning(self) -> str:
        return (
            "Whether tested participants are training participants under another name is not known: the training "
            "scans are not at hand."
        )

    @property
    def prefix_in_state_file(self) -> Path | None:
        """The prefix that TensorFlow's state file names; None without that file."""
        latest_prefix_file_path = self.path / STATE_FILE
        if not latest_prefix_file_path.is_file():
            return None
        path_match = re.search(rb'^model_checkpoint_path: "(.*)"', latest_prefix_file_path.read_bytes(), re.MULTILINE)
        return self.path / (os.path.basename(os.fsdecode(path_match[1])) if path_match else "unnamed")

    @property
    def checkpoint_prefixes(self) -> list[Path]:
        """The prefixes of this training's checkpoints, the latest first. Where the state file names none, those count
        whose digest is recorded: the first one may not have been completed."""
        name_matches = [CHECKPOINT_FILE_PATTERN.fullmatch(json_path.name) for json_path in self.path.glob("*.json")]
        json_name_matches = [name_match for name_match in name_matches if name_match]
        json_name_matches.sort(key=lambda name_match: int(name_match[2]), reverse=True)

        state_prefix = self.prefix_in_state_file
        state_name_match = CHECKPOINT_FILE_PATTERN.fullmatch(f"{state_prefix.name}.json") if state_prefix else None
        if state_name_match:
            return [
                self.path / f"{name_match[1]}-{name_match[2]}"
                for name_match in json_name_matches
                if name_match[1] == state_name_match[1] and int(name_match[2]) <= int(state_name_match[2])
            ]
        checkpoint_prefixes = [self.path / f"{name_match[1]}-{name_match[2]}" for name_match in json_name_matches]
        return [
            checkpoint_prefix
            for checkpoint_prefix in checkpoint_prefixes
            if self.read_digest_by_file(checkpoint_prefix)
        ]

    def read_prefix_manifest(self, checkpoint_prefix: Path) -> Manifest:
        """The record of a checkpoint. Raises InputError if it is gone or damaged."""
        manifest_path = checkpoint_prefix.with_name(f"{checkpoint_prefix.name}.json")
        manifest = record.read_manifest(manifest_path)
        if manifest is None:
            raise InputError(f"{manifest_path} cannot be read (No such file or directory). Copy it again.")
        return manifest

    def read_digest_by_file(self, checkpoint_prefix: Path) -> dict[str, str] | None:
        """The digests of a checkpoint's files; none at all if a kill came between its save and their record; None if
        the record is gone or damaged."""
        try:
            return self.read_prefix_manifest(checkpoint_prefix).outputs
        except InputError:
            return None

    def is_intact(self, checkpoint_prefix: Path) -> bool:
        """Whether a checkpoint is as it was saved; if its digests were not recorded any more, whether it is there."""
        file_paths = list_checkpoint_files(checkpoint_prefix)
        digest_by_file = self.read_digest_by_file(checkpoint_prefix)
        if digest_by_file is None:
            return False
        if not digest_by_file:
            return len(file_paths) > 1
        return digest_by_file == compute_digests(file_paths)

    @property
    def description(self) -> str:
        return str(self.require_intact_prefix())

    @property
    def has_checkpoint(self) -> bool:
        return self.prefix_in_state_file is not None or bool(self.checkpoint_prefixes)

    @property
    def latest_intact_prefix(self) -> Path | None:
        """The prefix of the latest checkpoint that is as it was saved; None if there is none."""
        for _ in range(3):
            with suppress(FileNotFoundError):  # a training that still runs has saved, and removed its oldest one
                for checkpoint_prefix in self.checkpoint_prefixes:
                    if self.is_intact(checkpoint_prefix):
                        return checkpoint_prefix
                return None
        return None

    def require_intact_prefix(self) -> Path:
        """`latest_intact_prefix`. Raises InputError if there is none."""
        if intact_prefix := self.latest_intact_prefix:
            return intact_prefix
        if not self.has_checkpoint:
            raise InputError(f"{self.path} holds no checkpoint; make one: {self.training_command}")
        for checkpoint_prefix in self.checkpoint_prefixes[:1]:
            self.read_prefix_manifest(checkpoint_prefix)  # says what is wrong with its record
        raise InputError(
            f"{self.prefix_in_state_file or self.path} is not there or not as it was saved, nor is one before it; copy "
            f"the whole folder again, or train again: {self.training_command} --overrideChkpt"
        )

    @property
    def damaged_checkpoint_names(self) -> list[str]:
        """The names of damaged checkpoints later than the latest intact one, or of the state file."""
        checkpoint_prefixes = self.checkpoint_prefixes
        latest_prefix = self.require_intact_prefix()
        if latest_prefix not in checkpoint_prefixes:  # saved meanwhile
            return []
        later_prefixes = checkpoint_prefixes[: checkpoint_prefixes.index(latest_prefix)]
        damaged_checkpoint_names = [checkpoint_prefix.name for checkpoint_prefix in later_prefixes]
        if self.prefix_in_state_file not in checkpoint_prefixes:
            damaged_checkpoint_names.insert(0, STATE_FILE)
        return damaged_checkpoint_names

    def read_latest_manifest(self) -> Manifest:
        """The record of the latest whole checkpoint. Raises InputError if there is none, or it is damaged or edited."""
        latest_prefix = self.require_intact_prefix()
        manifest = self.read_prefix_manifest(latest_prefix)
        if manifest.training_sha256 not in ("", record.compute_training_sha256(manifest)):
            raise InputError(
                f"{latest_prefix}.json was edited: its settings, seed, folds or data are not those of its training. "
                f"Copy it again, or train again: {self.training_command} --overrideChkpt"
            )
        return manifest

    @property
    def training_cohort_path(self) -> str:
        """Where the cohort of the training lay, as the latest record says that can be read; empty if none can."""
        for checkpoint_prefix in self.checkpoint_prefixes:
            with suppress(InputError):
                return self.read_prefix_manifest(checkpoint_prefix).cohort
        return ""

    def find_sha256(self) -> str | None:
        return self.compute_latest_sha256() if self.latest_intact_prefix else None

    def compute_latest_sha256(self) -> str:
        """SHA-256 of the network's weights in the latest checkpoint, as its record has it; of all its files if an
        earlier version wrote that. Raises InputError if there is no checkpoint."""
        latest_prefix = self.require_intact_prefix()
        weights_sha256 = self.read_prefix_manifest(latest_prefix).weights
        if isinstance(weights_sha256, str):
            return weights_sha256
        return record.compute_sha256(*list_checkpoint_files(latest_prefix))

    def history_path(self, checkpoint_name: str) -> Path:
        """Where the history of the training is kept whose checkpoints have this name."""
        return self.path / f"{checkpoint_name}.csv"

    def print_if_training(self) -> None:
        """If a training still runs, prints that its later checkpoints are not used."""
        if writer_text := files.find_writing_process(self.path):
            print(f"{self.path} is still being trained, by {writer_text}; used as it was last saved.", flush=True)

    def prepare_folder_and_choose_name(self, is_from_zero: bool) -> str:
        """Makes the folder, removes the files of all checkpoints but the latest whole ones, and returns the name for
        the checkpoints of a training."""
        self.path.mkdir(parents=True, exist_ok=True)
        intact_prefix = self.latest_intact_prefix
        retained_prefixes = list[Path]()
        if intact_prefix:
            checkpoint_prefixes = self.checkpoint_prefixes
            intact_index = checkpoint_prefixes.index(intact_prefix)
            retained_prefixes = checkpoint_prefixes[intact_index : intact_index + MAX_CHECKPOINTS]
        self.remove_checkpoints_except(retained_prefixes)
        if self.prefix_in_state_file not in (None, *self.checkpoint_prefixes):
            (self.path / STATE_FILE).unlink()

        if intact_prefix is None:
            return CHECKPOINT_NAMES[0]
        used_name = get_checkpoint_name(intact_prefix)
        if not is_from_zero:
            return used_name
        return CHECKPOINT_NAMES[1] if used_name == CHECKPOINT_NAMES[0] else CHECKPOINT_NAMES[0]

    def remove_checkpoints_except(self, retained_prefixes: Iterable[Path]) -> None:
        """Removes all files of checkpoints but these."""
        retained_names = {checkpoint_prefix.name for checkpoint_prefix in retained_prefixes}
        for file_path in self.path.iterdir():
            name_match = CHECKPOINT_FILE_PATTERN.fullmatch(file_path.name)
            if name_match and f"{name_match[1]}-{name_match[2]}" not in retained_names:
                files.remove_file_or_folder(file_path)

    def write_manifest(self, prefix_name: str, manifest: Manifest, is_checkpoint_saved: bool) -> None:
        """Writes the record of a checkpoint: before it is saved, and again once it is, with its files' digests."""
        digest_by_file = compute_digests(list_checkpoint_files(self.path / prefix_name)) if is_checkpoint_saved else {}
        checkpoint_manifest = replace(
            manifest,
            training_sha256=record.compute_training_sha256(manifest),
            outputs=digest_by_file,
            finished=is_checkpoint_saved,
        )
        record.write_manifest(self.path / f"{prefix_name}.json", checkpoint_manifest)

    def update_cross_validation(self, cross_validation: CrossValidation | None) -> Manifest:
        """The record, with the test on folds that goes with the latest checkpoint."""
        latest_prefix = self.require_intact_prefix()
        manifest = replace(self.read_latest_manifest(), cross_validation=cross_validation)
        if manifest != self.read_latest_manifest():
            self.write_manifest(latest_prefix.name, manifest, is_checkpoint_saved=True)
        return manifest

    def restore_latest_weights(self, network: "keras.Model") -> None:
        """Gives a network the latest weights, for inference. TensorFlow must have been started. Raises InputError, see
        `restore_latest_checked`."""
        import tensorflow as tf

        checkpoint = tf.train.Checkpoint(model=network)
        self.restore_latest_checked(
            checkpoint, lambda restore_status: restore_status.expect_partial().assert_existing_objects_matched()
        )

    def restore_latest_checked(
        self, checkpoint: "tf.train.Checkpoint", check_restore_status: Callable[[Any], object]
    ) -> None:
        """Restores the latest files. Raises InputError if they are damaged, or of another network as
        `check_restore_status` finds."""
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")  # it lists what could not be restored, each variable on a line
        try:
            check_restore_status(checkpoint.restore(str(self.require_intact_prefix())))
        except (tf.errors.OpError, LookupError) as error:
            raise InputError(
                f"{self.require_intact_prefix()} cannot be read ({shorten_error(error)}). Train again: "
                f"{self.training_command} --overrideChkpt"
            ) from error
        except (ValueError, AssertionError) as error:
            raise InputError(
                f"{self.require_intact_prefix()} has weights of another network than its record describes; were files "
                f"mixed up? Train again: {self.training_command} --overrideChkpt"
            ) from error

    def load_training_people_reference(self) -> "TrainingReference | None":
        """What those who trained the checkpoint are like; None if their cohort is not at hand as it was. Raises
        InputError if they are too few to tell."""
        from data.likeness.reference import make_reference

        training_people = self.read_latest_manifest().people
        training_cohort = self.find_training_cohort()
        if training_people is None or training_cohort is None:
            return None
        training_subjects = set(training_people.subjects)
        training_record_indices = [
            record_index
            for record_index, cohort_row in enumerate(training_cohort.rows)
            if cohort_row.subject in training_subjects
        ]
        return make_reference(training_cohort, training_record_indices)

    def find_training_cohort(self) -> Cohort | None:
        """The cohort of the training; None if it is gone or not as it was. If it was moved with the checkpoint, it has
        the same relative path from here as before."""
        from data.cohorts.variants import train_on_everybody

        training_manifest = self.read_latest_manifest()
        relative_cohort_path = os.path.relpath(training_manifest.cohort, training_manifest.checkpoint_folder)
        for cohort_folder in (Path(training_manifest.cohort), self.path / relative_cohort_path):
            try:
                cohort = open_run_cohort(cohort_folder, unite_groups=False)
                if training_manifest.everybody:
                    cohort = train_on_everybody(cohort)
            except InputError:
                continue
            if cohort.identity == training_manifest.cohort_sha256:
                return cohort
        return None


def get_checkpoint_name(checkpoint_prefix: Path) -> str:
    """The name of a training's checkpoints."""
    return checkpoint_prefix.name.rpartition("-")[0]


def list_checkpoint_files(checkpoint_prefix: Path) -> list[Path]:
    """TensorFlow's files of a checkpoint."""
    return sorted(
        file_path
        for file_path in checkpoint_prefix.parent.glob(f"{checkpoint_prefix.name}.*")
        if file_path.suffix != ".json"
    )


def compute_digests(file_paths: Iterable[Path]) -> dict[str, str]:
    return {file_path.name: record.compute_sha256(file_path) for file_path in file_paths}


def shorten_error(error: Exception) -> str:
    """An error's first line, without TensorFlow's names of operations, cut to a readable length."""
    full_message = str(getattr(error, "message", error))
    message_lines = re.sub(r"\{\{.*?\}\} | \[Op:\w+\]", "", full_message).strip().splitlines()
    first_line = message_lines[0] if message_lines else type(error).__name__
    return first_line[:160]
