"""Checkpoints on disk: `<chkPointDir>/<model>` with TensorFlow's files and the `run.json` of the run that trains them.

TensorFlow is imported only inside functions, so that a wrong checkpoint is told before its seconds-long import. A run
that overrides a checkpoint first renames its folder to `<model>.replaced`; that is removed once the new run has saved,
and used as before if it never does.
"""

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data import files
from data.errors import InputError

STATE = "checkpoint"  # TensorFlow's own file, replaced only after a checkpoint is whole
IDENTITY = "run.json"
INTERVAL = 150  # batches between checkpoints
KEPT = 3
NEEDED = {
    "model", "preset", "config", "grid", "seed", "precision", "cohort", "cohort_sha256", "out_dir",
    "training_subjects", "encoder_subjects",
}  # fmt: skip


@dataclass(frozen=True)
class CheckpointFolder:
    """Where one model's checkpoints lie, whether or not there are any."""

    path: Path

    @property
    def replaced(self) -> Path:
        return self.path.with_name(self.path.name + ".replaced")

    @property
    def current(self) -> Path | None:
        """The folder whose checkpoint is to be used; None if there is none."""
        return next((folder for folder in (self.path, self.replaced) if (folder / STATE).is_file()), None)

    def latest(self) -> Path:
        """The prefix of the latest checkpoint's files. Raises InputError if they are damaged."""
        match = re.search(r'^model_checkpoint_path: "(.*)"', (self.current / STATE).read_text(), re.MULTILINE)
        prefix = self.current / Path(match[1]).name if match else self.current
        if not match or not prefix.with_name(prefix.name + ".index").is_file():
            raise InputError(f"{self.current / STATE} names no checkpoint that exists; copy the whole folder again.")
        return prefix

    def identity(self) -> dict | None:
        """What `run.json` says of the checkpoint; None if there is none. Raises InputError if it is damaged."""
        if self.current is None:
            return None
        self.latest()
        path = self.current / IDENTITY
        try:
            identity = json.loads(path.read_text())
            if missing := NEEDED - identity.keys():
                raise ValueError(f"no {', '.join(sorted(missing))}")
        except (OSError, ValueError, AttributeError) as error:
            raise InputError(f"{path} is missing or damaged ({error}); copy the whole folder again.") from error
        return identity

    def digest(self) -> str | None:
        """SHA-256 of the latest checkpoint's files; None if there is none."""
        if self.current is None:
            return None
        prefix, digest = self.latest(), hashlib.sha256()
        for path in sorted(prefix.parent.glob(prefix.name + ".*")):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def check_writable(self) -> None:
        """Makes the folder. Raises InputError if it cannot be made or written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with files.replacing(self.path / ".writable"):
                pass
            (self.path / ".writable").unlink()
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written ({error.strerror}); name a folder of your own with --chkPointDir."
            ) from error

    def prepare(self, override: bool) -> None:
        """Puts back a checkpoint whose replacement was never saved; then, to override, sets the present one aside."""
        if (self.replaced / STATE).is_file() and not (self.path / STATE).is_file():
            shutil.rmtree(self.path, ignore_errors=True)
            self.replaced.rename(self.path)
        if override and (self.path / STATE).is_file():
            shutil.rmtree(self.replaced, ignore_errors=True)
            self.path.rename(self.replaced)
        self.path.mkdir(exist_ok=True)


class Saver:
    """Saves and restores a model, its optimizer and its step; the latest checkpoint is always a whole one."""

    def __init__(self, folder: CheckpointFolder, model, optimizer):
        import tensorflow as tf

        self.folder = folder
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, step=self.step)

    def restore(self) -> int:
        """Restores the latest checkpoint, if any; returns the number of batches it has seen."""
        if self.folder.current is not None:
            read(self.checkpoint, self.folder).assert_consumed()
        return int(self.step.numpy())

    @cached_property
    def manager(self):
        import tensorflow as tf

        return tf.train.CheckpointManager(self.checkpoint, self.folder.path, max_to_keep=KEPT)

    def save(self, step: int, identity: dict) -> None:
        """Saves after `step` batches. Raises InputError if the disk is full; the checkpoint before is intact then."""
        import tensorflow as tf

        self.step.assign(step)
        try:
            files.write_json(self.folder.path / IDENTITY, identity)
            self.manager.save()
        except (tf.errors.OpError, OSError) as error:
            raise InputError(
                f"{self.folder.path} cannot take a checkpoint at iteration {step} ({short(error)}); "
                "the one before is intact. Free space and repeat the command."
            ) from error
        shutil.rmtree(self.folder.replaced, ignore_errors=True)


def read(checkpoint, folder: CheckpointFolder):
    """Restores the latest files. Raises InputError if they are damaged or of other shapes."""
    import tensorflow as tf

    try:
        return checkpoint.restore(str(folder.latest()))
    except (tf.errors.OpError, ValueError, AssertionError, LookupError) as error:
        raise InputError(
            f"{folder.latest()} cannot be read ({short(error)}); train again with --overrideChkpt."
        ) from error


def restore_weights(folder: CheckpointFolder, model) -> None:
    """Restores the model alone, for inference."""
    import tensorflow as tf

    read(tf.train.Checkpoint(model=model), folder).expect_partial().assert_existing_objects_matched()


def short(error: Exception) -> str:
    """An error's first line, cut to a readable length."""
    return (str(getattr(error, "message", error)).strip().splitlines() or [type(error).__name__])[0][:160]
