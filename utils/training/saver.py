"""What a training writes: checkpoints of a network, its optimizer and its step; `history.csv` and its figure."""

import csv
import dataclasses
import os
import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import keras
import tensorflow as tf

from data.base import files
from data.base.errors import InputError
from utils import figures
from utils.runs.checkpoints import IDENTITY, STATE, CheckpointFolder, Identity, Saved, digest_of, remove_own
from utils.runs.folders import move_aside
from utils.scores.results import Estimate, Headline

KEPT = 3
STEP = re.compile(r"\d{1,18}")  # of a history


class Saver:
    """Saves and restores a network, its optimizer and its step; the latest checkpoint is always a whole one."""

    def __init__(self, folder: CheckpointFolder, model: keras.Model, optimizer: keras.Optimizer, kept: int = KEPT):
        self.folder, self.kept = folder, kept
        self.saved: dict[str, Saved] = {}
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, step=self.step)

    def restore(self) -> int:
        """Restores the latest checkpoint, if any; returns the number of batches it has seen."""
        if self.folder.current is not None:
            identity, latest = self.folder.identity(), self.folder.latest()
            self.saved = dict(identity.saved)
            read(self.checkpoint, self.folder, lambda status: status.assert_consumed())
            if latest.name not in self.saved:  # a run was killed amid this save, which ends here
                self.record(latest, self.tidied(), identity)
        return int(self.step.numpy())

    def tidied(self) -> list[str]:
        """Removes all but the newest checkpoints of TensorFlow's state file; returns the names of these."""
        if (state := tf.train.get_checkpoint_state(str(self.folder.path))) is None:
            return list(self.saved)
        names = [os.path.basename(name) for name in state.all_model_checkpoint_paths]
        for path in [path for name in names[: -self.kept] for path in self.folder.path.glob(f"{name}.*")]:
            files.remove(path)
        state.model_checkpoint_path, state.all_model_checkpoint_paths[:] = names[-1], names[-self.kept :]
        del state.all_model_checkpoint_timestamps[: -self.kept]
        with files.replacing(self.folder.path / STATE) as file:
            file.write(str(state))
        return names[-self.kept :]

    def record(self, prefix: Path, kept: list[str], identity: Identity) -> None:
        """Records the digest of a checkpoint that was saved at `self.step`, and forgets those that were not kept."""
        self.saved = {name: saved for name, saved in self.saved.items() if name in kept}
        self.saved[prefix.name] = Saved(int(self.step.numpy()), digest_of(prefix))
        self.describe(identity)

    @cached_property
    def manager(self) -> tf.train.CheckpointManager:
        return tf.train.CheckpointManager(self.checkpoint, self.folder.path, max_to_keep=self.kept)

    def save(self, step: int, identity: Identity) -> None:
        """Saves after `step` batches. Raises InputError if that cannot be written; the checkpoint before is intact."""
        self.step.assign(step)
        before = self.folder.current
        try:
            self.folder.path.mkdir(parents=True, exist_ok=True)
            self.describe(identity)  # first: a checkpoint without its identity cannot be used
            prefix = Path(self.manager.save())
            self.record(prefix, [os.path.basename(name) for name in self.manager.checkpoints], identity)
        except (tf.errors.OpError, OSError) as error:
            self.folder.remove_incomplete()
            kept = "the one before is intact" if before else "there is none before it"
            raise InputError(
                f"{self.folder.path} cannot take a checkpoint at iteration {step} ({short(error)}); {kept}. "
                "Make room for it and repeat the command."
            ) from error
        remove_own(self.folder.replaced, self.folder.path)

    def describe(self, identity: Identity) -> None:
        """Writes `run.json`."""
        described = dataclasses.replace(identity, step=int(self.step.numpy()), saved=self.saved)
        files.write_json(self.folder.path / IDENTITY, dataclasses.asdict(described))


def read(checkpoint: tf.train.Checkpoint, folder: CheckpointFolder, check: Callable[[Any], object]) -> None:
    """Restores the latest files. Raises InputError if they are damaged, or of another network as `check` finds."""
    tf.get_logger().setLevel("ERROR")  # it lists what could not be restored, each variable on a line
    try:
        check(checkpoint.restore(str(folder.latest())))
    except (tf.errors.OpError, LookupError) as error:
        raise InputError(
            f"{folder.latest()} cannot be read ({short(error)}); train again with --overrideChkpt."
        ) from error
    except (ValueError, AssertionError) as error:
        raise InputError(
            f"{folder.latest()} has weights of another network than this version builds: it is of an earlier version, "
            f"or files were mixed up. Train again: {folder.training} --overrideChkpt"
        ) from error


def restore_weights(folder: CheckpointFolder, model: keras.Model) -> None:
    """Restores the network alone, for inference."""
    checkpoint = tf.train.Checkpoint(model=model)
    read(checkpoint, folder, lambda status: status.expect_partial().assert_existing_objects_matched())


def short(error: Exception) -> str:
    """An error's first line, cut to a readable length."""
    return (str(getattr(error, "message", error)).strip().splitlines() or [type(error).__name__])[0][:160]


class History:
    """`history.csv`, written row by row, and the same numbers for TensorBoard."""

    def __init__(self, folder: Path, step: int):
        self.path = folder / "history.csv"
        self.rows = earlier_history(self.path, step)
        if step and not self.rows:
            if self.path.exists() and self.path.stat().st_size:  # of another program, such as a spreadsheet
                move_aside([self.path])
            print(f"{self.path} has no row of the {step} batches before; it begins with the next one.")
        with files.replacing(self.path, newline="") as file:
            if self.rows:
                self.write(file, self.rows, header=True)
        self.file = open(self.path, "a", newline="")  # noqa: SIM115
        self.events = tf.summary.create_file_writer(str(folder))

    @staticmethod
    def write(file: IO, rows: list[dict], header: bool) -> None:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)

    def add(self, step: int, values: dict) -> None:
        row = {"step": step} | values
        self.write(self.file, [row], header=not self.rows)
        self.rows.append(row)
        with self.events.as_default(step):
            for name, value in values.items():
                if value != "":
                    tf.summary.scalar(name, value)

    def flush(self) -> None:
        self.file.flush()
        self.events.flush()

    def close(self) -> None:
        self.file.close()
        self.events.close()
        if self.rows:
            figures.history(self.rows, self.path.with_suffix(".png"))

    @property
    def headline(self) -> Headline | None:
        """The last loss, of the validation subjects if there are any."""
        if not self.rows:
            return None
        name = "validation_loss" if "validation_loss" in self.rows[-1] else "loss"
        return Headline(
            f"{name} after {self.rows[-1]['step']} batches", Estimate(float(self.rows[-1][name]), None, None)
        )


def earlier_history(path: Path, step: int) -> list[dict]:
    """The rows up to `step` of a history that this run continues, without a last line that was cut off."""
    if not step or not path.exists():
        return []
    text = files.regular(path).read_text(encoding="utf-8", errors="replace")
    rows = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    try:
        whole = [row for row in rows if None not in row and None not in row.values()]
    except csv.Error as error:
        raise InputError(f"{path} is damaged ({error}); copy it again, or remove it and repeat the command.") from error
    return [row for row in whole if STEP.fullmatch(row.get("step", "")) and int(row["step"]) <= step]
