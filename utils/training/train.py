"""--train: a cohort's training subjects -> a checkpoint, `history.csv`, `history.png`, TensorBoard events."""

import csv
import math
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import IO, Any

import keras
import numpy as np
import tensorflow as tf

from data.base import files
from data.base.errors import InputError
from data.base.processes import handle_signals
from data.base.terminal import open_progress_bar, print_summary, print_unless_quiet
from data.cohorts.cohort import split_into_batches
from models import layers
from models.connectomes import RidgeLogits
from utils import figures
from utils.runs import record
from utils.runs.checkpoints import CheckpointFolder
from utils.runs.record import RECORD, Record, mean_of_shares
from utils.runs.run import Run
from utils.scores.results import Estimate, Headline
from utils.scores.ridge import fit_edges
from utils.training.loop import Training, is_due, make_optimizer
from utils.training.network import Saver, reading

HISTORY = "history.csv"
INNER = "inner.csv"
STOPPING_S = 5.0  # for batch norm, of a training that is stopped: Slurm kills 30 s after SIGTERM, Docker after 10
STEP = re.compile(r"\d{1,18}")  # of a history


def train(run: Run) -> int:
    """Trains until `num_iters` batches have been seen in all, from zero or from the checkpoint that there is; returns
    the exit status (128 + signal if stopped)."""
    anew = run.override or not run.checkpoints.exists
    if not anew and run.checkpoints.record().begun != run.begun:
        raise InputError(f"{run.checkpoints.path} was trained by another process meanwhile; repeat the command.")
    name, told = run.checkpoints.prepare(run.override), dict[str, Any]()
    if anew:
        run = replace(run, begun=begun_of(run))
        replace(run, num_iters=0).claim()
        if run.candidates:
            from utils.training.choose import chosen

            candidate, told = chosen(run, run.out_dir / INNER)
            run = run.settled(candidate)
            run.forget_networks()
    training = built(run)
    saver = Saver(run.checkpoints, name, training.network, training.optimizer)
    if anew:
        measure(training)
    done = 0 if anew else saver.restore()
    if not anew:
        told = run.checkpoints.scored(run.cross_validation).told
        print_unless_quiet(f"Continuing {run.checkpoints.path} at iteration {done}.")
        replace(run, num_iters=done).claim()
    history = History(run.out_dir, run.checkpoints.history(name), done)
    caught: list[int] = []

    def stop(number: int, _: object) -> None:
        caught.append(number)
        silence_after_sighup(number)

    with handle_signals(stop):
        try:
            training = replace(training, caught=caught)
            described = cache(lambda: replace(run.record(**told), people=run.people, weights=None))  # slow: when needed
            done = loop(training, done, saver, history, described)
        finally:
            history.close()
    ended = replace(run, num_iters=done)
    if done < run.num_iters:
        record.write(run.out_dir / RECORD, ended.record(**told))
        without = ", without --overrideChkpt," if run.override else ""
        print(f"Stopped at iteration {done} and saved; the same command{without} continues.")
    else:
        tell_shares([run.checkpoints])
        ended.finish(history.headline, **told)
    stopped = caught or done < run.num_iters
    return 128 + (caught[0] if caught else signal.SIGTERM) if stopped else 0


def begun_of(run: Run) -> str:
    """Tells a training from zero apart from others: as results say that were begun and never saved, or new."""
    found, saved = record.read(run.out_dir), run.checkpoints.record().begun if run.checkpoints.whole else ""
    if found and not found.finished and found.key == run.key and found.begun != saved:
        return found.begun
    return str(time.time_ns())


def tell_shares(folders: Sequence[CheckpointFolder]) -> None:
    """Prints what each part of the trained networks counts, if that was learned."""
    if shares := mean_of_shares([folder.record().shares for folder in folders]):
        told = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        print_summary([("parts", f"what they count, learned from training participants: {told}")])


def loop(training: Training, done: int, saver: Saver, history: "History", described: Callable[[], Record]) -> int:
    """Runs batches done+1..num_iters, saving on the way; returns how many have been seen."""
    run = training.run
    with open_progress_bar(f"Training {run.model.model_name}", run.num_iters, done) as shown:
        for seen, values, stopping in training.steps(done):
            done = seen
            shown.advance(f"loss {values['loss']:.4f}, {values['samples_per_s']:.0f} samples/s")
            stopping |= bool(training.caught) and run.workers.count == 1  # several stop together, at the next batch
            history.add(done, values)
            if stopping or is_due(done, run.num_iters):
                most_s = math.inf if is_due(done, run.num_iters) else STOPPING_S
                shares = training.calibrate(done, most_s, lambda text: shown.advance(text, 0))
                history.keep(run.checkpoints.history(saver.name))  # first: rows after it are dropped on continuing
                took = round(time.time() - run.started, 2)
                saver.save(replace(described(), shares=shares, step=done, wall_time_s=took))
            if stopping:
                break
    return done


def pool(whole: Run, runs: Sequence[Run]) -> None:
    """Records that the trainings of all parts are done, with the settings that inner folds chose, if they did."""
    tell_shares([run.checkpoints for run in runs])
    chosen = [of for run in runs if (of := run.checkpoints.record().settings)]
    presets = ", ".join(sorted({of.preset for of in chosen}))
    replace(whole, choices=replace(chosen[0], preset=presets)).finish()


def built(run: Run) -> Training:
    """The network and its optimizer on all devices. Raises InputError if one of these would have nothing to do."""
    if run.config.batch_size < run.workers.replicas:
        raise InputError(
            f"batch_size {run.config.batch_size} leaves nothing to do for some of {run.workers.replicas} devices; "
            f"use --set batch_size={run.workers.replicas} or more, or fewer devices."
        )
    with run.workers.strategy.scope():
        network = run.model.build_network(run.config, run.cohort)
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


def measure(training: Training) -> None:
    """Sets what layers take from the training records: mean and spread of each that standardises, and the regression of
    the one that reads connectomes."""
    run, network = training.run, training.network
    of_means, of_volumes = reading(run, network), reading(run, network, volumes=True)
    selections = split_into_batches(run.cohort.split_indices("train"), run.config.batch_size)
    for layer in network.layers:
        if isinstance(layer, RidgeLogits):
            found = fit_edges(run.cohort, of_means.tables[layer.input.name], run.cohort.split_indices("train"))
            layer.assign(found.scale.mean, found.scale.scale, found.of_scaled.weights, found.of_scaled.bias)
        elif isinstance(layer, layers.Standardise):
            if layer.input.name in of_means.tables:
                layer.fit_moments(batch[layer.input.name] for batch in of_means.batches(selections))
            else:
                before = keras.Model(network.input, layer.input)
                layer.fit_moments(
                    np.asarray(before(of_volumes.inputs(batch))) for batch in of_volumes.batches(selections)
                )


class History:
    """`history.csv`, written row by row, and the same numbers for TensorBoard. What was `kept` beside a checkpoint of
    so many batches (`step`) goes on."""

    def __init__(self, folder: Path, kept: Path, step: int):
        self.path = folder / HISTORY
        self.rows = earlier_history(kept, step) if step and kept.exists() else []
        if step and not self.rows:
            print(f"{kept} has no row of the {step} batches before; {self.path} begins with the next one.")
        with files.open_replacement(self.path, newline="") as file:
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

    def keep(self, kept: Path) -> None:
        """Copies what there is to where a checkpoint is about to be saved."""
        self.file.flush()
        self.events.flush()
        with files.unfinished(kept) as path:
            shutil.copyfile(self.path, path)

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
