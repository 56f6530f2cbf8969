"""--train: a cohort's training subjects -> a checkpoint, `history.csv`, `history.png`, TensorBoard events."""

import csv
import dataclasses
import math
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from data.base import files
from data.base.errors import InputError
from data.base.progress import progress
from data.base.signals import handled
from data.cohorts.atlas import load_atlas
from data.cohorts.census import listed
from data.cohorts.folds import Folds
from data.swap import swapped_within
from models import layers, losses
from models.settings import Settings
from utils import figures
from utils.batches import ahead, batch_positions, in_order, read_batches
from utils.inference import all_finite
from utils.runs.checkpoints import INTERVAL, Identity, Saver
from utils.runs.run import Run, prepare_folder, read_manifest
from utils.training.validation import Validation

CALIBRATION = 20  # batches
HASHED = 64  # records that one thread hashes at a time
STEP = re.compile(r"\d{1,18}")  # of a history


def make_optimizer(config: Settings, precision: str) -> keras.Optimizer:
    rate = config.learning_rate
    if config.half_rate_after:  # whatever --numIters is, so that a training may go on after it
        rate = keras.optimizers.schedules.InverseTimeDecay(rate, config.half_rate_after, 1)
    if config.optimizer == "adam":
        optimizer = keras.optimizers.Adam(rate, beta_1=config.decay)
    else:
        optimizer = keras.optimizers.RMSprop(rate, rho=config.decay)
    return keras.optimizers.LossScaleOptimizer(optimizer) if precision == "mixed_float16" else optimizer


def make_step(run: Run, network: keras.Model, optimizer: keras.Optimizer):
    """A compiled function: what each replica has of a batch -> metrics before the update, {"loss"} and for classifiers
    {"accuracy"}, and {"stopping"}, which is above 0 if a process wants to stop.

    Networks whose logits are averaged are trained each by a loss of its own; the metrics are those of the average, and
    have no penalties on weights. Gradients are summed over replicas, so each counts by its share of the batch.
    """
    loss_of = getattr(losses, run.model.loss)
    trained = layers.summands(network)
    strategy, replicas = run.workers.strategy, run.workers.replicas

    def of_replica(batch):
        share = tf.size(batch["label"]) / run.config.batch_size
        with tf.GradientTape() as tape:
            inputs = {name: batch[name] for name in run.model.reads}
            outputs = trained(inputs, training=True)
            summands, penalties = outputs if isinstance(outputs, list) else [outputs], sum(trained.losses)
            objective = sum(loss_of(batch, part, run.config, run.model.reads) for part in summands)
            scaled = optimizer.scale_loss(objective * tf.cast(share, tf.float32) + penalties / replicas)
        optimizer.apply(tape.gradient(scaled, network.trainable_variables), network.trainable_variables)
        whole = network.layers[-1](outputs) if isinstance(outputs, list) else outputs
        metrics = {"loss": loss_of(batch, whole, run.config, run.model.reads)}
        if run.model.predicts == "label":
            correct = tf.argmax(whole, 1, tf.int32) == batch["label"]
            metrics["accuracy"] = tf.reduce_mean(tf.cast(correct, tf.float32))
        return {name: value * tf.cast(share, value.dtype) for name, value in metrics.items()} | {
            "stopping": batch["stopping"]
        }

    @tf.function(reduce_retracing=True)
    def step(batch):
        of_replicas = strategy.run(of_replica, (batch,))
        return {name: strategy.reduce(tf.distribute.ReduceOp.SUM, value, None) for name, value in of_replicas.items()}

    return step


def hang_up() -> None:
    """Sends what is printed from here on nowhere: writing to a terminal that is gone fails."""
    with open(os.devnull, "w") as nowhere:
        for stream in (1, 2):
            if os.isatty(stream):
                os.dup2(nowhere.fileno(), stream)


@contextmanager
def caught_signals():
    """Yields a list that SIGINT, SIGTERM and SIGHUP append themselves to, instead of ending the process."""
    caught: list[int] = []

    def catch(number: int, _) -> None:
        caught.append(number)
        if number == getattr(signal, "SIGHUP", None):
            hang_up()

    with handled(catch):
        yield caught


def earlier_history(path: Path, step: int) -> list[dict]:
    """The rows up to `step` of a history that this run continues, without a last line that was cut off."""
    if not step or not path.exists():
        return []
    text = path.read_text(errors="replace")
    rows = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    try:
        whole = [row for row in rows if None not in row and None not in row.values()]
    except csv.Error as error:
        raise InputError(f"{path} is damaged ({error}); copy it again, or remove it and repeat the command.") from error
    return [row for row in whole if STEP.fullmatch(row.get("step", "")) and int(row["step"]) <= step]


class History:
    """`history.csv`, written row by row, and the same numbers for TensorBoard."""

    def __init__(self, folder: Path, step: int):
        self.path = folder / "history.csv"
        self.rows = earlier_history(self.path, step)
        with files.replacing(self.path, newline="") as file:
            if self.rows:
                self.write(file, self.rows, header=True)
        self.file = open(self.path, "a", newline="")  # noqa: SIM115
        self.events = tf.summary.create_file_writer(str(folder))

    @staticmethod
    def write(file, rows: list[dict], header: bool) -> None:
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


def pool(run: Run, folds: Folds) -> None:
    """Of trainings there is nothing to pool but that all are done."""
    run.finish()


def train(run: Run) -> int:
    """Trains until `num_iters` batches have been seen in all; returns the exit status (128 + signal if stopped)."""
    run.checkpoints.prepare(run.override)
    network, optimizer = networks(run)
    saver = Saver(run.checkpoints, network, optimizer)
    validation = Validation(run, network, optimizer) if run.validation else None
    done = 0 if run.override else saver.restore()
    complete = done >= run.num_iters and not is_unfinished(run.out_dir)
    if complete:
        print(f"{run.checkpoints.path} has seen {done} of {run.num_iters} iterations: nothing to train.")
    elif done:
        print(f"Continuing {run.checkpoints.path} at iteration {done}.")
        run.out_dir.mkdir(parents=True, exist_ok=True)
        run.write_manifest(finished=False)
    else:
        prepare_folder(run)
        measure(run, network)
    begin_alike(run, network, optimizer, done)
    if complete:
        return 0
    history = History(run.out_dir, done)
    with caught_signals() as caught:
        try:
            done = loop(run, network, optimizer, saver, validation, history, done, caught)
        finally:
            history.close()
    run.finish(headline_of(history.rows), step=done)
    if caught or done < run.num_iters:
        without = ", without --overrideChkpt," if run.override else ""
        print(f"Stopped at iteration {done} and saved; the same command{without} continues.")
        return 128 + (caught[0] if caught else signal.SIGTERM)
    return 0


def assist(run: Run) -> int:
    """What a worker does that is not the chief: its share of every batch; returns the exit status."""
    network, optimizer = networks(run)
    done = begin_alike(run, network, optimizer)
    with caught_signals() as caught:
        stopped = any(stopping for _, _, stopping in steps(run, network, optimizer, done, caught))
    return 128 + (caught[0] if caught else signal.SIGTERM) if stopped else 0


def networks(run: Run) -> tuple[keras.Model, keras.Optimizer]:
    """The network and its optimizer, on all devices that it is trained on. Raises InputError if one would idle."""
    if run.config.batch_size < run.workers.replicas:
        raise InputError(
            f"batch_size {run.config.batch_size} leaves nothing to do for some of {run.workers.replicas} devices; "
            f"use --set batch_size={run.workers.replicas} or more, or fewer devices."
        )
    with run.workers.strategy.scope():
        network = run.model.build(run.config, run.cohort.grid, run.cohort.num_maps)
        optimizer = make_optimizer(run.config, run.precision)
        optimizer.build(network.trainable_variables)
    return network, optimizer


def begin_alike(run: Run, network: keras.Model, optimizer: keras.Optimizer, done: int = 0) -> int:
    """Gives every worker the state of the chief's network; returns how many batches that has seen."""
    run.workers.share_state([*network.variables, *optimizer.variables])
    return int(run.workers.of_chief(str(done).encode()))


def headline_of(rows: list[dict]) -> tuple | None:
    """The last loss, of the validation subjects if there are any."""
    if not rows:
        return None
    name = "validation_loss" if "validation_loss" in rows[-1] else "loss"
    return (f"{name} after {rows[-1]['step']} batches", float(rows[-1][name]), None, None)


def is_unfinished(folder: Path) -> bool:
    """Whether a run has begun to write a folder and could not complete it, as on a full disk."""
    manifest = read_manifest(folder)
    return manifest is not None and not manifest.finished


def identity_of(run: Run) -> Identity:
    """What the checkpoints of this run say of themselves."""
    metadata = run.cohort.metadata
    return Identity(
        model=run.model.name,
        preset=run.preset,
        config=dataclasses.asdict(run.config),
        grid=run.grid_name,
        seed=run.seed,
        precision=run.precision,
        cohort=str(run.cohort.path),
        cohort_sha256=run.cohort.digest,
        out_dir=str(run.out_dir),
        training_subjects=tuple(run.cohort.subjects("train")),
        encoder_subjects=metadata.encoder_subjects,
        training_volumes=volumes_of(run),
        preparation=metadata.preparation,
        num_maps=run.cohort.num_maps,
        validation=run.validation,
        shuffled_labels=run.shuffled_labels,
    )


def volumes_of(run: Run) -> tuple[str, ...]:
    """By what the volumes that the network learns from are known."""
    if "volume" not in run.model.reads:
        return ()
    chunks = in_order(run.cohort.indices("train"), HASHED)
    found = ahead(lambda chunk: {run.cohort.volume_sha256(index) for index in chunk}, chunks)
    return tuple(sorted(set().union(*found)))


def measure(run: Run, network: keras.Model) -> None:
    """Gives every layer that standardises its values' mean and spread over the training records."""
    for layer in network.layers:
        if isinstance(layer, layers.Standardise):
            batches = read_batches(run.cohort, run.model, in_order(run.trained(), run.config.batch_size))
            layer.measure(map(values_before(run, network, layer), batches))


def values_before(run: Run, network: keras.Model, layer: layers.Standardise) -> Callable[[dict], np.ndarray]:
    """Batch -> what a layer of the network reads of it."""
    for regions in network.layers:
        if isinstance(regions, layers.RegionMeans) and regions.output is layer.input and run.precision == "float32":
            return lambda batch: regions.in_numpy(batch["volume"])
    before = keras.Model(network.input, layer.input)
    return lambda batch: np.asarray(before({name: batch[name] for name in run.model.reads}))


def calibrate(run: Run, network: keras.Model, done: int) -> None:
    """Replaces batch norm's running statistics by the exact means over the last batches, with the weights as they are.

    Running statistics lag behind the weights, and since all brains look alike, a small lag moves every prediction of
    the trained network the same way ("precise" batch norm: Wu & Johnson, Rethinking "Batch" in BatchNorm, 2021).
    """
    normalisations = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    if not normalisations:
        return
    usual = [layer.momentum for layer in normalisations]
    selections = batch_selections(run, max(done - CALIBRATION, 0), done)
    for seen, batch in enumerate(read_batches(run.cohort, run.model, selections)):
        for layer in normalisations:
            layer.momentum = seen / (seen + 1)
        network({name: batch[name] for name in run.model.reads}, training=True)
    for layer, momentum in zip(normalisations, usual, strict=True):
        layer.momentum = momentum


def batch_selections(run: Run, start: int, stop: int) -> Iterator[np.ndarray]:
    """The records of batches start..stop-1."""
    indices, size = run.trained(), run.config.batch_size
    return (indices[batch_positions(run.seed, at, size, len(indices))] for at in range(start, stop))


def count_from(network: keras.Model, done: int) -> None:
    """Makes what dropout draws next a function of the seed and of how many batches have been seen."""
    for layer in network.layers:
        if isinstance(layer, keras.layers.Dropout) and layer.rate:
            state = layer.seed_generator.state
            state.assign([state[0], done])


def batches_of(run: Run, done: int) -> Iterator[list[dict]]:
    """For batches done, done + 1, ..., what each replica of this process has of it: functions of seed and step.

    A batch whose records are mixed with each other is read whole by every worker, others in shares.
    """
    count = getattr(run.config, "swap_regions", 0)
    regions = load_atlas(None, run.cohort.grid).voxels if count else []
    shares = np.array_split(np.arange(run.config.batch_size), run.workers.replicas)
    own = [shares[replica] for replica in run.workers.own_replicas]
    wanted = np.arange(run.config.batch_size) if count else np.concatenate(own)
    selections = (selection[wanted] for selection in batch_selections(run, done, run.num_iters))
    for step, batch in enumerate(read_batches(run.cohort, run.model, selections), done):
        if count:
            random = np.random.default_rng((run.seed, step, 1))  # not the stream that orders an epoch
            batch["volume"] = swapped_within(batch["volume"], batch["label"], regions, count, random)
        yield [rows_of(batch, np.searchsorted(wanted, share)) for share in own]


def rows_of(batch: dict, records: np.ndarray) -> dict:
    """The part of a batch that holds these of its `records`, in order and without gaps."""
    first, stop = records[0], records[-1] + 1
    rows = {name: len(values) // len(batch["label"]) for name, values in batch.items()}  # of a record, one a map
    return {name: values[first * rows[name] : stop * rows[name]] for name, values in batch.items()}


def steps(
    run: Run, network: keras.Model, optimizer: keras.Optimizer, done: int, caught: list[int]
) -> Iterator[tuple[int, dict[str, Any], bool]]:
    """Trains on batches done+1..num_iters; gives for each how many have been seen, its metrics, and whether it is the
    last because a process has caught a signal."""
    step, last = make_step(run, network, optimizer), time.perf_counter()
    for of_replicas in batches_of(run, done):
        count_from(network, done)
        stopping = {"stopping": np.float32(bool(caught))}
        batch = run.workers.of_replicas([of_replica | stopping for of_replica in of_replicas])
        values = {name: float(value) for name, value in step(batch).items()}
        done += 1
        stopped = values.pop("stopping") > 0
        check_loss(run, done, values["loss"])
        now = time.perf_counter()
        values["samples_per_s"], last = round(run.config.batch_size / (now - last), 2), now
        yield done, values, stopped
        if stopped:
            return


def check_loss(run: Run, done: int, loss: float) -> None:
    """Raises InputError that names iteration and records if the loss is no number."""
    if not math.isfinite(loss):
        (selection,) = batch_selections(run, done - 1, done)
        names = listed(sorted({run.cohort.rows[index].file for index in selection}))
        raise InputError(
            f"The loss is {loss} at iteration {done}, of the records {names}: the training diverges. What was saved "
            f"before is intact. Use a smaller learning rate: {smaller_rate(run)}"
        )


def check_weights(run: Run, done: int, network: keras.Model) -> None:
    """Raises InputError if a weight is no number, which must not be saved."""
    if not all_finite(network.get_weights()):
        raise InputError(
            f"Weights are not finite after iteration {done}: the training diverges. What was saved before is intact. "
            f"Use a smaller learning rate: {smaller_rate(run)}"
        )


def smaller_rate(run: Run) -> str:
    """The command for a diverging training."""
    return f"{run.checkpoints.training} --overrideChkpt --set learning_rate={run.config.learning_rate / 10:g}"


def loop(
    run: Run,
    network: keras.Model,
    optimizer: keras.Optimizer,
    saver: Saver,
    validation: Validation | None,
    history: History,
    done: int,
    caught: list[int],
) -> int:
    """Runs batches done+1..num_iters, saving on the way; returns how many have been seen."""
    identity = cache(lambda: identity_of(run))  # which takes a while of many people: not before the first batch
    with progress(f"Training {run.model.name}", run.num_iters, done) as shown:
        for seen, values, stopping in steps(run, network, optimizer, done, caught):
            done = seen
            shown.advance(f"loss {values['loss']:.4f}, {values['samples_per_s']:.0f} samples/s")
            stopping |= bool(caught) and run.workers.count == 1  # several stop together, at the next batch
            due = done % INTERVAL == 0 or done == run.num_iters
            if due or stopping:
                check_weights(run, done, network)
                calibrate(run, network, done)
            if validation:  # not where a signal stops it, so that the best checkpoint is the one of a run in one go
                values |= validation.measure() if due else validation.nothing
            history.add(done, values)
            if due or stopping:
                history.flush()  # first: rows after the last checkpoint are dropped when it is continued
                if validation and due:  # before the checkpoint, for a repeated command begins there
                    validation.keep_best(done, values["validation_loss"], identity())
                saver.save(done, identity())
            if stopping:
                break
    return done
