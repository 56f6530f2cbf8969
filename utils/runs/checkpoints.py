"""Checkpoints on disk: `<chkPointDir>/<model>` with TensorFlow's files and the `run.json` of the run that trains them.

TensorFlow is imported only inside functions, so that a wrong checkpoint is told before its seconds-long import. A run
that overrides a checkpoint first renames its folder to `<model>.replaced`; that is removed once the new run has saved,
and used as before if it never does. A checkpoint whose bytes are not those that were saved gives way to the one before
it, which is said. Whatever else lies in the folder stays where it is: `folds-<how>/<K>`, which are
checkpoints of other trainings, and what the user put there. `best` is the checkpoint that did best on the validation
subjects.
"""

import dataclasses
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

from data.base import files
from data.base.errors import InputError
from data.cohorts.cohort import Preparation
from models import Model
from models.settings import Settings, from_json

STATE = "checkpoint"  # TensorFlow's own file, replaced only after a checkpoint is whole
IDENTITY = "run.json"
BEST = "best"
OF_FOLDS = "folds-"  # begins the name of a folder of other checkpoints, one a fold
INTERVAL = 150  # batches between checkpoints
KEPT = 3
FILES = re.compile(r"ckpt-(\d{1,18})(\.index|\.data-\d{5}-of-\d{5}|_temp)")  # as TensorFlow names them


@dataclass(frozen=True)
class Saved:
    """What is known of a checkpoint's files: after how many batches they were written, and their digest then."""

    step: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a checkpoint says of itself; what older checkpoints do not say has a default."""

    model: str
    preset: str
    config: dict[str, Any]  # hyper-parameters
    grid: str | None
    seed: int
    precision: str
    cohort: str
    cohort_sha256: str
    out_dir: str
    training_subjects: tuple[str, ...]
    encoder_subjects: tuple[str, ...]
    training_volumes: tuple[str, ...] = ()  # see Cohort.volume_sha256; empty if the model reads none
    preparation: Preparation = field(default_factory=Preparation)
    num_maps: int = 1  # in a record; 1 of checkpoints that do not say
    step: int = 0  # batches seen; 0 of checkpoints that do not say
    validation: float = 0.0  # share of the training subjects
    validation_loss: float | None = None  # of the best checkpoint
    shuffled_labels: bool = False
    saved: dict[str, Saved] = field(default_factory=dict)  # by the name of the files

    def settings(self, model: Model) -> Settings:
        """The hyper-parameters. Raises InputError if they are of other code."""
        return from_json(model.module.Config, self.config)


@dataclass(frozen=True)
class CheckpointFolder:
    """Where one model's checkpoints lie, whether or not there are any; `training` is the command that makes them."""

    path: Path
    training: str = "run.py --train"

    @property
    def replaced(self) -> Path:
        return self.path.with_name(self.path.name + ".replaced")

    @property
    def current(self) -> Path | None:
        """The folder whose checkpoint is to be used; None if there is none."""
        return next((folder for folder in (self.path, self.replaced) if latest_in(folder)), None)

    @property
    def trained(self) -> "CheckpointFolder":
        """That of the latest checkpoint, of which this may be the best one's."""
        return CheckpointFolder(self.path.parent, self.training) if self.path.name == BEST else self

    @property
    def best(self) -> "CheckpointFolder":
        """That of the checkpoint which did best on the validation subjects; there may be none."""
        return CheckpointFolder((self.current or self.path) / BEST, self.training)

    @property
    def to_use(self) -> "CheckpointFolder":
        """The best checkpoint if subjects were set aside to tell which that is, else the latest."""
        return self.best if self.best.current else self

    def latest(self) -> Path:
        """The prefix of the latest checkpoint's files that are whole. Raises InputError if there are none."""
        if whole := self.whole:
            return whole
        if self.current is None:
            raise InputError(f"{self.path} holds no checkpoint; make one: {self.training}")
        raise InputError(
            f"{latest_in(self.current)} is not there or not as it was saved, nor is one before it; copy the whole "
            "folder again, or train again with --overrideChkpt."
        )

    @property
    def whole(self) -> Path | None:
        """The prefix of the latest checkpoint that is there and as it was saved; None if there is none."""
        if self.current is None:
            return None
        try:
            saved = self._identity().saved
        except InputError:  # told where it is needed
            saved = {}
        prefixes = prefixes_in(self.current)
        return next((prefix for prefix in prefixes if is_whole(prefix, saved.get(prefix.name))), None)

    @property
    def damaged(self) -> list[str]:
        """The names of later checkpoints than the latest that is whole, or of the file that should say which it is."""
        latest = self.latest()
        prefixes = prefixes_in(latest.parent)
        names = [prefix.name for prefix in takewhile(lambda prefix: prefix != latest, prefixes)]
        return names if latest_in(latest.parent) in prefixes else [STATE, *names]

    def identity(self) -> Identity:
        """What `run.json` says of the checkpoint. Raises InputError if there is none or it is damaged."""
        name, identity = self.latest().name, self._identity()
        return dataclasses.replace(identity, step=identity.saved[name].step) if name in identity.saved else identity

    def _identity(self) -> Identity:
        """What `run.json` says of the latest checkpoint, whole or not."""
        return files.read_json((self.current or self.path) / IDENTITY, Identity)

    def digest(self) -> str:
        """SHA-256 of the latest checkpoint's files. Raises InputError if there are none."""
        return digest_of(self.latest())

    def prepare(self, override: bool) -> None:
        """Puts back a checkpoint whose replacement was never saved; then, to override, sets the present one aside.

        What a killed run has left of a checkpoint that it could not complete is removed.
        """
        if latest_in(self.replaced) and not latest_in(self.path):
            remove_own(self.path, self.replaced)
            self.replaced.rename(self.path)
        if override and latest_in(self.path):
            remove_own(self.replaced, self.path)
            self.path.rename(self.replaced)
            move_others(self.replaced, self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        self.remove_incomplete()

    def remove_incomplete(self) -> None:
        """Removes the files of a checkpoint later than the latest, which was never completed, and a state that names
        none."""
        latest = FILES.fullmatch(f"{self.latest().name}.index") if latest_in(self.path) else None
        if latest_in(self.path) not in (None, *prefixes_in(self.path)):
            (self.path / STATE).unlink()
        for path in self.path.iterdir():
            found = FILES.fullmatch(path.name)
            if found and int(found[1]) > (int(latest[1]) if latest else 0):
                files.remove(path)


def prefixes_in(folder: Path) -> list[Path]:
    """The prefixes of the checkpoints in a folder, the latest first."""
    latest = latest_in(folder)
    found = [FILES.fullmatch(path.name) for path in folder.glob("ckpt-*.index")]
    numbers = sorted((int(match[1]) for match in found if match), reverse=True)
    named = FILES.fullmatch(f"{latest.name}.index") if latest else None
    before = [folder / f"ckpt-{number}" for number in numbers if not named or number < int(named[1])]
    return [*([latest] if latest and named else []), *before]


def is_whole(prefix: Path, saved: Saved | None) -> bool:
    """Whether a checkpoint's files are there, and as they were saved if that is known."""
    if saved:
        return digest_of(prefix) == saved.sha256
    return os.path.isfile(f"{prefix}.index") and any(prefix.parent.glob(f"{prefix.name}.data-*"))


def digest_of(prefix: Path) -> str:
    """SHA-256 of a checkpoint's files."""
    paths = sorted(prefix.parent.glob(prefix.name + ".*"))
    return digest_of_files(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths))


@cache
def digest_of_files(stamped: tuple[tuple[Path, int, int], ...]) -> str:
    """SHA-256 of files that are told by path, size and time; once, though a run asks several times."""
    digest = hashlib.sha256()
    for path, _, _ in stamped:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def latest_in(folder: Path) -> Path | None:
    """The prefix of the latest checkpoint in a folder, None if there is none.

    That is what TensorFlow's state file names; without that file, the last one whose index, written last, is there.
    """
    state = folder / STATE
    if state.is_file():
        match = re.search(rb'^model_checkpoint_path: "(.*)"', state.read_bytes(), re.MULTILINE)
        return folder / (os.path.basename(os.fsdecode(match[1])) if match else "unnamed")
    found = [FILES.fullmatch(path.name) for path in folder.glob("ckpt-*.index")]
    return folder / f"ckpt-{max(int(match[1]) for match in found if match)}" if any(found) else None


def is_own(path: Path) -> bool:
    """Whether something in a checkpoint's folder belongs to the checkpoint."""
    return path.name in (STATE, IDENTITY, BEST) or FILES.fullmatch(path.name) is not None


def move_others(source: Path, target: Path) -> None:
    """Moves what is no part of a checkpoint, and so is not replaced with it."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if not is_own(path):
            place = target / path.name
            while os.path.lexists(place):
                place = place.with_name(place.name + "+")
            path.rename(place)


def remove_own(folder: Path, other: Path) -> None:
    """Removes a checkpoint with its folder, if it is there; what else is in it goes to `other`."""
    if folder.exists():
        move_others(folder, other)
        shutil.rmtree(folder, ignore_errors=True)


class Saver:
    """Saves and restores a model, its optimizer and its step; the latest checkpoint is always a whole one."""

    def __init__(self, folder: CheckpointFolder, model, optimizer, kept: int = KEPT):
        import tensorflow as tf

        self.folder, self.kept = folder, kept
        self.saved: dict[str, Saved] = {}
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, step=self.step)

    def restore(self) -> int:
        """Restores the latest checkpoint, if any; returns the number of batches it has seen."""
        if self.folder.current is not None:
            self.saved = dict(self.folder.identity().saved)
            read(self.checkpoint, self.folder, lambda status: status.assert_consumed())
            latest = self.folder.latest()  # of which a run that ended in this moment has not written down what it is
            self.saved.setdefault(latest.name, Saved(int(self.step.numpy()), digest_of(latest)))
        return int(self.step.numpy())

    @cached_property
    def manager(self):
        import tensorflow as tf

        return tf.train.CheckpointManager(self.checkpoint, self.folder.path, max_to_keep=self.kept)

    def save(self, step: int, identity: Identity) -> None:
        """Saves after `step` batches. Raises InputError if that cannot be written; the checkpoint before is intact."""
        import tensorflow as tf

        self.step.assign(step)
        before = self.folder.current
        try:
            self.folder.path.mkdir(parents=True, exist_ok=True)
            self.describe(identity, step)  # before: a checkpoint without it is none
            prefix = Path(self.manager.save())
            there = {os.path.basename(name) for name in self.manager.checkpoints}
            self.saved = {name: saved for name, saved in self.saved.items() if name in there}
            self.saved[prefix.name] = Saved(step, digest_of(prefix))
            self.describe(identity, step)
        except (tf.errors.OpError, OSError) as error:
            self.folder.remove_incomplete()
            kept = "the one before is intact" if before else "there is none before it"
            raise InputError(
                f"{self.folder.path} cannot take a checkpoint at iteration {step} ({short(error)}); {kept}. "
                "Make room for it and repeat the command."
            ) from error
        remove_own(self.folder.replaced, self.folder.path)

    def describe(self, identity: Identity, step: int) -> None:
        """Writes `run.json`."""
        described = dataclasses.replace(identity, step=step, saved=self.saved)
        files.write_json(self.folder.path / IDENTITY, dataclasses.asdict(described))


def read(checkpoint, folder: CheckpointFolder, check: Callable[[Any], object]) -> None:
    """Restores the latest files. Raises InputError if they are damaged, or of another network as `check` finds."""
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # it lists what could not be restored, each variable on a line
    try:
        check(checkpoint.restore(str(folder.latest())))
    except (tf.errors.OpError, ValueError, AssertionError, LookupError) as error:
        raise InputError(
            f"{folder.latest()} cannot be read ({short(error)}); train again with --overrideChkpt."
        ) from error


def restore_weights(folder: CheckpointFolder, model) -> None:
    """Restores the model alone, for inference."""
    import tensorflow as tf

    read(
        tf.train.Checkpoint(model=model),
        folder,
        lambda status: status.expect_partial().assert_existing_objects_matched(),
    )


def short(error: Exception) -> str:
    """An error's first line, cut to a readable length."""
    return (str(getattr(error, "message", error)).strip().splitlines() or [type(error).__name__])[0][:160]
