"""The steps of a training: a network and its optimizer see batch after batch, until a signal stops them.

Batches and random draws are functions of the seed and of the number of batches seen. So a training that is stopped and
continued ends with the same weights.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import tee
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.special import logit

from data.base.effort import EFFORT
from data.base.errors import InputError
from data.cohorts.rows import join_names
from models import Settings, averaging, losses
from utils.runs.duration import BatchTimer
from utils.runs.run import Run
from utils.scores.ridge import inner_folds, labels_and_sites, people_of, some_of
from utils.training import shares
from utils.training.network import Reading, reading

CALIBRATION = 20  # batches
AT_SITES = 2  # people like all others whom each site has beside its own, when its share of autism is counted
Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Training:
    """A network and its optimizer on the devices that train it; `caught` holds the signals that arrived."""

    run: Run
    network: keras.Model
    optimizer: keras.Optimizer
    caught: list[int] = field(default_factory=list)

    def records_of(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """The records of batches start..stop-1, positions in the cohort."""
        indices, seed, size = self.run.cohort.split_indices("train"), self.run.seed, self.run.config.batch_size
        return (indices[batch_positions(seed, step, size, len(indices))] for step in range(start, stop))

    def batches(self, done: int) -> Iterator[list[Batch]]:
        """For batches done, done + 1, ..., the shares of this process's devices, with volumes if they are read."""
        run, size = self.run, self.run.config.batch_size
        of_replicas = np.array_split(np.arange(size), run.workers.replicas)
        own = [of_replicas[replica] for replica in run.workers.own_replicas]
        wanted = np.concatenate(own)
        selections, read = tee(selection[wanted] for selection in self.records_of(done, run.num_iters))
        for selection, batch in zip(selections, self.reading.batches(read), strict=True):
            batch |= {name: values[selection] for name, values in self.beside_labels.items()}
            yield [rows_of(batch, np.searchsorted(wanted, share)) for share in own]

    @cached_property
    def reading(self) -> Reading:
        return reading(self.run, averaging.make_branch_logits_network(self.network))

    @cached_property
    def mean(self) -> averaging.MeanOfLogits | None:
        """The mean over the parts of a classifier; None for an autoencoder."""
        last = self.network.layers[-1]
        return last if isinstance(last, averaging.MeanOfLogits) else None

    @cached_property
    def beside_labels(self) -> dict[str, np.ndarray]:
        """What losses read of each record beside its label."""
        return beside_labels(self.run, self.mean) if self.mean else {}

    @cached_property
    def step(self) -> Callable:
        """A compiled function: each device's share of a batch -> the metrics of one update.

        "loss" and, for classifiers, "accuracy" are those before the update, without penalties on weights. Parts count
        as before their shares are learned. "stopping" is above 0 if a worker wants to stop. Each of several averaged
        networks has a loss of its own. Devices count by their share.
        """
        run, network, optimizer = self.run, self.network, self.optimizer
        loss_of, reads, config = getattr(losses, run.model.loss_name), run.model.input_names, run.config
        trained, inputs = self.reading.network, self.reading.inputs
        mean = self.mean
        strategy, replicas = run.workers.strategy, run.workers.replicas

        def of_replica(batch: dict) -> dict:
            share = tf.size(batch["label"]) / config.batch_size
            with tf.GradientTape() as tape:
                outputs, penalties = trained(inputs(batch), training=True), sum(trained.losses)
                parts = outputs if isinstance(outputs, list) else [outputs]
                if mean:
                    objective = sum(map(partial(losses.sum_network_losses, batch), parts, mean.branches))
                else:
                    objective = loss_of(batch, outputs, config, reads)
                scaled = optimizer.scale_loss(objective * tf.cast(share, tf.float32) + penalties / replicas)
            optimizer.apply(tape.gradient(scaled, network.trainable_variables), network.trainable_variables)
            whole = mean.average_initially(parts) if mean else outputs
            metrics = {"loss": loss_of(batch, whole, config, reads)}
            if run.model.predicted == "label":
                correct = tf.argmax(whole, 1, tf.int32) == batch["label"]
                metrics["accuracy"] = tf.reduce_mean(tf.cast(correct, tf.float32))
            weighted = {name: value * tf.cast(share, value.dtype) for name, value in metrics.items()}
            return weighted | {"stopping": batch["stopping"]}

        @tf.function(reduce_retracing=True)
        def step(batch: Any) -> dict:
            metrics = strategy.run(of_replica, (batch,))
            return {name: strategy.reduce(tf.distribute.ReduceOp.SUM, value, None) for name, value in metrics.items()}

        return step

    def layers_of(self, kind: type) -> list[Any]:
        """The network's layers of a kind, those inside of other layers, too."""
        return [layer for layer in self.network._flatten_layers() if isinstance(layer, kind)]

    def steps(self, done: int) -> Iterator[tuple[int, dict[str, Any], bool]]:
        """Trains on batches done+1..num_iters; yields how many have been seen, the metrics of the last one, and whether
        training stops there because a worker has caught a signal."""
        run, last, timer = self.run, time.perf_counter(), BatchTimer(self.run, done)
        dropouts = [layer for layer in self.layers_of(keras.layers.Dropout) if layer.rate]
        for of_devices in self.batches(done):
            for layer in dropouts:  # what it draws next is a function of the seed and of the batches seen
                layer.seed_generator.state.assign([layer.seed_generator.state[0], done])
            stopping = {"stopping": np.float32(bool(self.caught))}
            batch = run.workers.of_replicas([share | stopping for share in of_devices])
            values = {name: float(value) for name, value in self.step(batch).items()}
            done += 1
            stopped = values.pop("stopping") > 0
            self.check_loss(done, values["loss"])
            now = time.perf_counter()
            values["samples_per_s"], last = round(run.config.batch_size / (now - last), 2), now
            timer.tick()
            yield done, values, stopped
            if stopped:
                return

    def calibrate(
        self, done: int, most_s: float = math.inf, note: Callable[[str], object] = lambda text: None
    ) -> dict[str, float]:
        """Learns what the parts of a classifier count, and returns their shares, see `shares.learn`. Before that, it
        replaces batch norm's running statistics by the exact means over the last batches, or over as many of them as
        `most_s` seconds allow; `note` is told of it.

        The running ones lag behind the weights. All brains look alike, so a small lag moves every prediction the same
        way ("precise" batch norm: Wu & Johnson, Rethinking "Batch" in BatchNorm, 2021). Raises InputError if a weight
        is not finite.
        """
        if not all(np.isfinite(weight).all() for weight in self.network.get_weights()):
            raise self.diverged(f"Weights are not finite after iteration {done}")
        if found := self.layers_of(keras.layers.BatchNormalization):
            self.take_means(done, found, most_s, note)
        if self.mean is None or not self.mean.is_learned:
            return {}
        return shares.learn(self.run, self.mean, self.reading, self.beside_labels["weight"])

    def take_means(
        self,
        done: int,
        normalisations: list[keras.layers.BatchNormalization],
        most_s: float,
        note: Callable[[str], object],
    ) -> None:
        """Gives layers the exact means and variances of the last batches, see `calibrate`."""
        usual, end = [layer.momentum for layer in normalisations], time.monotonic() + most_s
        first = max(done - CALIBRATION, 0)
        for seen, batch in enumerate(self.reading.batches(self.records_of(first, done))):
            for layer in normalisations:
                layer.momentum = seen / (seen + 1)
            self.reading.network(self.reading.inputs(batch), training=True)
            note(f"means for batch norm: {seen + 1} of {done - first} batches")
            if time.monotonic() > end:
                break
        for layer, momentum in zip(normalisations, usual, strict=True):
            layer.momentum = momentum

    def check_loss(self, done: int, loss: float) -> None:
        """Raises InputError that names iteration and records if the loss is not finite."""
        if not math.isfinite(loss):
            (selection,) = self.records_of(done - 1, done)
            names = join_names(sorted({self.run.cohort.rows[index].file for index in selection}))
            raise self.diverged(f"The loss is {loss} at iteration {done}, of the records {names}")

    def diverged(self, what: str) -> InputError:
        rate = f"{self.run.config.learning_rate / 10:g}"
        return InputError(
            f"{what}: the training diverges. What was saved before is intact. Repeat the command with a smaller "
            f"learning rate: --overrideChkpt --set learning_rate={rate}"
        )


def is_due(done: int, last: int) -> bool:
    """Whether a training of `last` batches is saved after `done` of them."""
    return done % EFFORT.save_every == 0 or done == last


def make_optimizer(config: Settings, precision: str) -> keras.Optimizer:
    """The optimizer that the settings describe."""
    rate = config.learning_rate
    if config.half_rate_after:  # independent of --numIters, so that a training may be continued after it
        rate = keras.optimizers.schedules.InverseTimeDecay(rate, config.half_rate_after, 1)
    if config.optimizer == "adam":
        optimizer = keras.optimizers.Adam(rate, beta_1=config.decay)
    else:
        optimizer = keras.optimizers.RMSprop(rate, rho=config.decay)
    return keras.optimizers.LossScaleOptimizer(optimizer) if precision == "mixed_float16" else optimizer


def batch_positions(seed: int, step: int, batch_size: int, count: int) -> np.ndarray:
    """Positions (batch_size,) in 0..count-1 of batch `step` (0, 1, ...): batches run through one seeded permutation
    after another, so every record is seen once an epoch."""
    epochs, positions = np.divmod(np.arange(step * batch_size, (step + 1) * batch_size), count)
    for epoch in np.unique(epochs):
        now = epochs == epoch
        positions[now] = np.random.default_rng((seed, epoch)).permutation(count)[positions[now]]
    return positions


def beside_labels(run: Run, mean: averaging.MeanOfLogits) -> dict[str, np.ndarray]:
    """What the losses of networks read of each record of the cohort beside its label, float32. `weight` (records,
    members) is 0 where the member leaves it out. `site_log_odds` (records,) are those of autism among the training
    people of its site, minus those among all."""
    config: Any = run.config  # of a classifier
    records, members, count = run.cohort.split_indices("train"), config.members, len(run.cohort.rows)
    weight, of_site = np.ones((count, members), np.float32), np.zeros(count, np.float32)
    if mean.is_learned:
        some = some_of(records)
        folds = inner_folds(labels_and_sites(run.cohort, some)[0], people_of(run.cohort, some))
        for member in range(members if folds else 0):
            out = some[folds[member % len(folds)][1]]
            weight[:, member] = len(records) / (len(records) - len(out))
            weight[out, member] = 0
    if any(part.within_sites for part in mean.branches):
        label, site = labels_and_sites(run.cohort, records)
        of_site[records] = log_odds_at(label, site)
    return {"weight": weight, "site_log_odds": of_site}


def log_odds_at(label: np.ndarray, site: np.ndarray) -> np.ndarray:
    """The log odds of autism (n,) at the site of each person, minus those of all; 0 if all have one label."""
    share = label.mean()
    if not 0 < share < 1:
        return np.zeros(len(label))
    _, place, count = np.unique(site, return_inverse=True, return_counts=True)
    at_site = (np.bincount(place, label) + AT_SITES * share) / (count + AT_SITES)
    return (logit(at_site) - logit(share))[place]


def rows_of(batch: Batch, records: np.ndarray) -> Batch:
    """The part of a batch that holds these of its `records`, in order and without gaps."""
    first, stop = records[0], records[-1] + 1
    rows = {name: len(values) // len(batch["label"]) for name, values in batch.items()}  # of a record, one a map
    return {name: values[first * rows[name] : stop * rows[name]] for name, values in batch.items()}
