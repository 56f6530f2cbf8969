"""--train: a cohort's training subjects -> a checkpoint, `history.csv`, `history.png`, TensorBoard events."""

import csv
import dataclasses
import os
import re
import signal
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from data.base import files
from data.base.errors import InputError
from data.base.processes import handled
from data.base.terminal import print_unless_quiet, progress
from data.cohorts.cohort import in_order
from models import layers
from models.connectomes import RidgeLogits
from utils import figures
from utils.runs.checkpoints import CheckpointFolder, Identity, mean_shares
from utils.runs.folders import changed, move_aside
from utils.runs.run import Run
from utils.scores.results import Estimate, Headline
from utils.scores.ridge import fit_edges
from utils.training.loop import Training, is_due, make_optimizer
from utils.training.network import Saver, reading

if TYPE_CHECKING:
    from utils.runs.group import Group

STEP = re.compile(r"\d{1,18}")  # of a history


def train(run: Run) -> int:
    """Trains until `num_iters` batches have been seen in all; returns the exit status (128 + signal if stopped)."""
    brought_back = run.checkpoints.prepare(run.override)
    training = begin(run)
    saver = Saver(run.checkpoints, training.network, training.optimizer)
    done = 0 if run.override else saver.restore()
    complete = done >= run.num_iters and has_its_results(run)
    if complete:
        print(f"{run.checkpoints.path} has seen {done} of {run.num_iters} iterations: nothing to train.")
        if run.results.manifest is None:
            print(f"{run.out_dir} has no results of it, which only --overrideChkpt makes again.")
    elif done:
        print(f"Continuing {run.checkpoints.path} at iteration {done}.")
        claim(run, brought_back)
    else:
        run.prepare_folder()
        measure(training)
    if complete:
        return 0
    history = History(run.out_dir, done)
    caught: list[int] = []

    def stop(number: int, _: object) -> None:
        caught.append(number)
        silence_after_sighup(number)

    with handled(stop):
        try:
            training = dataclasses.replace(training, caught=caught)
            done = loop(training, done, saver, history, cache(partial(identity_of, run)))  # slow: when needed
        finally:
            history.close()
    if done < run.num_iters:
        run.write_manifest(finished=False, step=done)
        without = ", without --overrideChkpt," if run.override else ""
        print(f"Stopped at iteration {done} and saved; the same command{without} continues.")
    else:
        tell_shares([run.checkpoints])
        run.finish(history.headline, step=done)
    stopped = caught or done < run.num_iters
    return 128 + (caught[0] if caught else signal.SIGTERM) if stopped else 0


def tell_shares(folders: Sequence[CheckpointFolder]) -> None:
    """Prints what each part of the trained networks counts, if that was learned."""
    if shares := mean_shares(folders):
        told = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        print_unless_quiet(f"What the parts count, learned from training people: {told}.")


def loop(training: Training, done: int, saver: Saver, history: "History", identity: Callable[[], Identity]) -> int:
    """Runs batches done+1..num_iters, saving on the way; returns how many have been seen."""
    run = training.run
    with progress(f"Training {run.model.name}", run.num_iters, done) as shown:
        for seen, values, stopping in training.steps(done):
            done = seen
            shown.advance(f"loss {values['loss']:.4f}, {values['samples_per_s']:.0f} samples/s")
            stopping |= bool(training.caught) and run.workers.count == 1  # several stop together, at the next batch
            history.add(done, values)
            if stopping or is_due(done, run.num_iters):
                shares = training.calibrate(done)
                history.flush()  # first: rows after the last checkpoint are dropped when training continues
                saver.save(done, dataclasses.replace(identity(), shares=shares))
            if stopping:
                break
    return done


def has_its_results(run: Run) -> bool:
    """Whether the output folder of a training that has seen all batches lacks nothing. A single one's may be gone."""
    if run.folds:
        return run.is_done()
    manifest = run.results.manifest
    return manifest is None or (manifest.finished and not changed(run.out_dir, manifest))


def claim(run: Run, brought_back: bool) -> None:
    """Makes the output folder of a training that goes on. Results of another training are moved aside. So are those of
    one from zero that never saved, if the checkpoint that it was to replace was `brought_back`."""
    manifest = run.results.manifest
    void = brought_back and manifest is not None and manifest.override and not manifest.finished
    if void or not run.continues():
        run.prepare_folder()
    else:
        run.write_manifest(finished=False)


def pool(group: "Group") -> None:
    """Records that the trainings of all parts are done, and that a candidate is chosen in each fold."""
    tell_shares([leaf.checkpoints for leaf in group.leaves])
    group.whole.finish()


average = select = pool


def begin(run: Run) -> Training:
    """The network and its optimizer on all devices. Raises InputError if one of these would have nothing to do."""
    if run.config.batch_size < run.workers.replicas:
        raise InputError(
            f"batch_size {run.config.batch_size} leaves nothing to do for some of {run.workers.replicas} devices; "
            f"use --set batch_size={run.workers.replicas} or more, or fewer devices."
        )
    with run.workers.strategy.scope():
        network = run.model.build(run.config, run.cohort)
        optimizer = make_optimizer(run.config, run.choices.precision)
        optimizer.build(network.trainable_variables)
    return Training(run, network, optimizer)


def silence_after_sighup(number: int) -> None:
    """After SIGHUP, sends the output to nowhere: writing to a terminal that is gone fails."""
    if number == signal.SIGHUP:
        with open(os.devnull, "w") as nowhere:
            for stream in (1, 2):
                if os.isatty(stream):
                    os.dup2(nowhere.fileno(), stream)


def identity_of(run: Run) -> Identity:
    """The identity of this run's checkpoints."""
    cohort = run.cohort
    return Identity(
        **vars(run.choices),
        cohort=str(cohort.path),
        cohort_sha256=cohort.identity,
        out_dir=str(run.out_dir),
        training_subjects=tuple(cohort.subjects("train")),
        encoder_subjects=cohort.metadata.encoder_subjects,
        training_volumes=tuple(sorted(set().union(*cohort.scans("train").values()))),
        encoder_volumes=cohort.metadata.encoder_volumes,
        preparation=cohort.metadata.preparation,
        num_maps=cohort.num_maps,
        everybody=run.everybody,
        internal=run.cross_validation,
    )


def measure(training: Training) -> None:
    """Sets what layers take from the training records: mean and spread of each that standardises, and the regression of
    the one that reads connectomes."""
    run, network = training.run, training.network
    of_means, of_volumes = reading(run, network), reading(run, network, volumes=True)
    selections = in_order(run.cohort.indices("train"), run.config.batch_size)
    for layer in network.layers:
        if isinstance(layer, RidgeLogits):
            found = fit_edges(run.cohort, of_means.tables[layer.input.name], run.cohort.indices("train"))
            layer.assign(found.scale.mean, found.scale.scale, found.of_scaled.weights, found.of_scaled.bias)
        elif isinstance(layer, layers.Standardise):
            if layer.input.name in of_means.tables:
                layer.measure(batch[layer.input.name] for batch in of_means.batches(selections))
            else:
                before = keras.Model(network.input, layer.input)
                layer.measure(np.asarray(before(of_volumes.inputs(batch))) for batch in of_volumes.batches(selections))


class History:
    """`history.csv`, written row by row, and the same numbers for TensorBoard."""

    def __init__(self, folder: Path, step: int):
        self.path = folder / "history.csv"
        self.rows = earlier_history(self.path, step) if step and self.path.exists() else []
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
        """The last loss."""
        if not self.rows:
            return None
        last = self.rows[-1]
        return Headline(f"loss after {last['step']} batches", Estimate(float(last["loss"]), None, None))


def earlier_history(path: Path, step: int) -> list[dict]:
    """The rows up to `step` of a history that this run continues, without a last line that was cut off."""
    text = path.read_text(encoding="utf-8", errors="replace")
    rows = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    try:
        whole = [row for row in rows if None not in row and None not in row.values()]
    except csv.Error as error:
        raise InputError(f"{path} is damaged ({error}); copy it again, or remove it and repeat the command.") from error
    return [row for row in whole if STEP.fullmatch(row.get("step", "")) and int(row["step"]) <= step]
