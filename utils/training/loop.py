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
from data.base.listing import join_names
from models import Settings, averaging, losses
from utils.runs.duration import BatchTimer
from utils.runs.run import Run
from utils.scores.ridge import find_record_cluster_ids, make_inner_folds, read_labels_and_sites, sample_training_indices
from utils.training import shares
from utils.training.network import NetworkReader, make_network_reader

BATCH_NORM_CALIBRATION_BATCHES = 20  # batches
# people like all others whom each site has beside its own, when its share of autism is counted
PRIOR_PEOPLE_PER_SITE = 2
Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Training:
    """A network and its optimizer on the devices that train it; `caught_signals` holds the signals that arrived."""

    run: Run
    network: keras.Model
    optimizer: keras.Optimizer
    caught_signals: list[int] = field(default_factory=list)

    def draw_record_indices(self, first_batch: int, stop_batch: int) -> Iterator[np.ndarray]:
        """The records of batches first_batch..stop_batch-1, positions in the cohort."""
        train_indices = self.run.cohort.find_split_record_indices("train")
        seed = self.run.seed
        batch_size = self.run.config.batch_size
        return (
            train_indices[draw_batch_positions(seed, batch_number, batch_size, len(train_indices))]
            for batch_number in range(first_batch, stop_batch)
        )

    def read_device_batches(self, batches_done: int) -> Iterator[list[Batch]]:
        """For each batch from number `batches_done` on, the shares of this process's devices, with volumes if they are
        read."""
        run = self.run
        batch_size = self.run.config.batch_size
        positions_by_replica = np.array_split(np.arange(batch_size), run.workers.replica_count)
        device_positions = [positions_by_replica[replica_index] for replica_index in run.workers.local_replica_indices]
        process_positions = np.concatenate(device_positions)
        index_batches, index_batches_to_read = tee(
            batch_indices[process_positions] for batch_indices in self.draw_record_indices(batches_done, run.num_iters)
        )
        for batch_indices, batch in zip(index_batches, self.reader.read_batches(index_batches_to_read), strict=True):
            batch |= {
                input_name: cohort_values[batch_indices] for input_name, cohort_values in self.loss_inputs.items()
            }
            yield [
                select_batch_rows(batch, np.searchsorted(process_positions, positions))
                for positions in device_positions
            ]

    @cached_property
    def reader(self) -> NetworkReader:
        return make_network_reader(self.run, averaging.make_branch_logits_network(self.network))

    @cached_property
    def logit_mean_layer(self) -> averaging.MeanOfLogits | None:
        """The mean over the parts of a classifier; None for an autoencoder."""
        last_layer = self.network.layers[-1]
        return last_layer if isinstance(last_layer, averaging.MeanOfLogits) else None

    @cached_property
    def loss_inputs(self) -> dict[str, np.ndarray]:
        """What losses read of each record beside its label."""
        return make_loss_inputs(self.run, self.logit_mean_layer) if self.logit_mean_layer else {}

    @cached_property
    def train_step(self) -> Callable:
        """A compiled function: each device's share of a batch -> the metrics of one update.

        "loss" and, for classifiers, "accuracy" are those before the update, without penalties on weights. Parts count
        as before their shares are learned. "stopping" is above 0 if a worker wants to stop. Each of several averaged
        networks has a loss of its own. Devices count by their share.
        """
        run = self.run
        network = self.network
        optimizer = self.optimizer
        compute_loss = getattr(losses, run.model.loss_name)
        input_names = run.model.input_names
        config = run.config
        trained_network = self.reader.network
        select_inputs = self.reader.select_inputs
        logit_mean_layer = self.logit_mean_layer
        strategy = run.workers.strategy
        replica_count = run.workers.replica_count

        def train_replica(batch: dict) -> dict:
            batch_fraction = tf.size(batch["label"]) / config.batch_size
            with tf.GradientTape() as tape:
                outputs = trained_network(select_inputs(batch), training=True)
                weight_penalty_sum = sum(trained_network.losses)
                branch_logits = outputs if isinstance(outputs, list) else [outputs]
                if logit_mean_layer:
                    objective = sum(
                        map(partial(losses.sum_network_losses, batch), branch_logits, logit_mean_layer.branches)
                    )
                else:
                    objective = compute_loss(batch, outputs, config, input_names)
                scaled_loss = optimizer.scale_loss(
                    objective * tf.cast(batch_fraction, tf.float32) + weight_penalty_sum / replica_count
                )
            optimizer.apply(tape.gradient(scaled_loss, network.trainable_variables), network.trainable_variables)
            combined_outputs = (
                logit_mean_layer.average_with_initial_weights(branch_logits) if logit_mean_layer else outputs
            )
            replica_metrics = {"loss": compute_loss(batch, combined_outputs, config, input_names)}
            if run.model.predicted == "label":
                is_correct = tf.argmax(combined_outputs, 1, tf.int32) == batch["label"]
                replica_metrics["accuracy"] = tf.reduce_mean(tf.cast(is_correct, tf.float32))
            weighted_metric_by_name = {
                metric_name: metric_value * tf.cast(batch_fraction, metric_value.dtype)
                for metric_name, metric_value in replica_metrics.items()
            }
            return weighted_metric_by_name | {"stopping": batch["stopping"]}

        @tf.function(reduce_retracing=True)
        def train_all_replicas(distributed_batch: Any) -> dict:
            per_replica_metrics = strategy.run(train_replica, (distributed_batch,))
            return {
                metric_name: strategy.reduce(tf.distribute.ReduceOp.SUM, metric_value, None)
                for metric_name, metric_value in per_replica_metrics.items()
            }

        return train_all_replicas

    def find_layers(self, layer_type: type) -> list[Any]:
        """The network's layers of a kind, those inside of other layers, too."""
        return [layer for layer in self.network._flatten_layers() if isinstance(layer, layer_type)]

    def run_steps(self, batches_done: int) -> Iterator[tuple[int, dict[str, Any], bool]]:
        """Trains until `num_iters` batches have been seen; yields, after each, how many have been, its metrics, and
        whether training stops there because a worker has caught a signal."""
        run = self.run
        last_batch_time = time.perf_counter()
        batch_timer = BatchTimer(self.run, batches_done)
        dropout_layers = [layer for layer in self.find_layers(keras.layers.Dropout) if layer.rate]
        for device_batches in self.read_device_batches(batches_done):
            for layer in dropout_layers:  # what it draws next is a function of the seed and of the batches seen
                layer.seed_generator.state.assign([layer.seed_generator.state[0], batches_done])
            stopping_input = {"stopping": np.float32(bool(self.caught_signals))}
            distributed_batch = run.workers.distribute_values(
                [device_batch | stopping_input for device_batch in device_batches]
            )
            batch_metrics = {
                metric_name: float(metric_value)
                for metric_name, metric_value in self.train_step(distributed_batch).items()
            }
            batches_done += 1
            is_stopped = batch_metrics.pop("stopping") > 0
            self.check_loss(batches_done, batch_metrics["loss"])
            current_time = time.perf_counter()
            batch_metrics["samples_per_s"], last_batch_time = (
                round(run.config.batch_size / (current_time - last_batch_time), 2),
                current_time,
            )
            batch_timer.count_batch()
            yield batches_done, batch_metrics, is_stopped
            if is_stopped:
                return

    def calibrate_batch_norm_and_branches(
        self,
        batches_done: int,
        max_batch_norm_seconds: float = math.inf,
        report_progress: Callable[[str], object] = lambda message: None,
    ) -> dict[str, float]:
        """Learns what the parts of a classifier count, and returns their shares, see `shares.learn_branch_weights`.
        Before that, it replaces batch norm's running statistics by the exact means over the last batches, or over as
        many of them as `max_batch_norm_seconds` seconds allow; `report_progress` is told of it.

        The running ones lag behind the weights. All brains look alike, so a small lag moves every prediction the same
        way ("precise" batch norm: Wu & Johnson, Rethinking "Batch" in BatchNorm, 2021). Raises InputError if a weight
        is not finite.
        """
        if not all(np.isfinite(weight_array).all() for weight_array in self.network.get_weights()):
            raise self.make_divergence_error(f"Weights are not finite after iteration {batches_done}")
        if batch_norm_layers := self.find_layers(keras.layers.BatchNormalization):
            self.set_batch_norm_means(batches_done, batch_norm_layers, max_batch_norm_seconds, report_progress)
        if self.logit_mean_layer is None or not self.logit_mean_layer.is_learned:
            return {}
        return shares.learn_branch_weights(self.run, self.logit_mean_layer, self.reader, self.loss_inputs["weight"])

    def set_batch_norm_means(
        self,
        batches_done: int,
        batch_norm_layers: list[keras.layers.BatchNormalization],
        max_batch_norm_seconds: float,
        report_progress: Callable[[str], object],
    ) -> None:
        """Gives layers the exact means and variances of the last batches, see `calibrate_batch_norm_and_branches`."""
        original_momentums = [layer.momentum for layer in batch_norm_layers]
        deadline = time.monotonic() + max_batch_norm_seconds
        first_batch = max(batches_done - BATCH_NORM_CALIBRATION_BATCHES, 0)
        for batch_number, batch in enumerate(
            self.reader.read_batches(self.draw_record_indices(first_batch, batches_done))
        ):
            for layer in batch_norm_layers:
                layer.momentum = batch_number / (batch_number + 1)
            self.reader.network(self.reader.select_inputs(batch), training=True)
            report_progress(f"means for batch norm: {batch_number + 1} of {batches_done - first_batch} batches")
            if time.monotonic() > deadline:
                break
        for layer, momentum in zip(batch_norm_layers, original_momentums, strict=True):
            layer.momentum = momentum

    def check_loss(self, batches_done: int, loss: float) -> None:
        """Raises InputError that names iteration and records if the loss is not finite."""
        if not math.isfinite(loss):
            (batch_indices,) = self.draw_record_indices(batches_done - 1, batches_done)
            file_names = join_names(sorted({self.run.cohort.rows[record_index].file for record_index in batch_indices}))
            raise self.make_divergence_error(
                f"The loss is {loss} at iteration {batches_done}, of the records {file_names}"
            )

    def make_divergence_error(self, problem_text: str) -> InputError:
        lower_rate_text = f"{self.run.config.learning_rate / 10:g}"
        return InputError(
            f"{problem_text}: the training diverges. What was saved before is intact. Repeat the command with a "
            f"smaller learning rate: --overrideChkpt --set learning_rate={lower_rate_text}"
        )


def is_save_due(batches_done: int, batch_total: int) -> bool:
    """Whether a training of `batch_total` batches is saved after `batches_done` of them."""
    return batches_done % EFFORT.save_every == 0 or batches_done == batch_total


def make_optimizer(config: Settings, precision: str) -> keras.Optimizer:
    """The optimizer that the settings describe."""
    learning_rate = config.learning_rate
    if config.half_rate_after:  # independent of --numIters, so that a training may be continued after it
        learning_rate = keras.optimizers.schedules.InverseTimeDecay(learning_rate, config.half_rate_after, 1)
    if config.optimizer == "adam":
        optimizer = keras.optimizers.Adam(learning_rate, beta_1=config.decay)
    else:
        optimizer = keras.optimizers.RMSprop(learning_rate, rho=config.decay)
    return keras.optimizers.LossScaleOptimizer(optimizer) if precision == "mixed_float16" else optimizer


def draw_batch_positions(seed: int, batch_number: int, batch_size: int, record_count: int) -> np.ndarray:
    """Positions (batch_size,) in 0..record_count-1 of batch `batch_number` (0, 1, ...): batches run through one seeded
    permutation after another, so every record is seen once an epoch."""
    epoch_by_position, positions = np.divmod(
        np.arange(batch_number * batch_size, (batch_number + 1) * batch_size), record_count
    )
    for epoch in np.unique(epoch_by_position):
        is_in_epoch = epoch_by_position == epoch
        positions[is_in_epoch] = np.random.default_rng((seed, epoch)).permutation(record_count)[positions[is_in_epoch]]
    return positions


def make_loss_inputs(run: Run, logit_mean_layer: averaging.MeanOfLogits) -> dict[str, np.ndarray]:
    """What the losses of networks read of each record of the cohort beside its label, float32. `weight`
    (records, members) is 0 where the member leaves it out. `relative_site_log_odds` (records,) are those of autism
    among the training people of its site, minus those among all."""
    config: Any = run.config  # of a classifier
    train_indices = run.cohort.find_split_record_indices("train")
    member_count = config.members
    record_count = len(run.cohort.rows)
    # (records, members), (records,)
    member_weights = np.ones((record_count, member_count), np.float32)
    relative_site_log_odds = np.zeros(record_count, np.float32)
    if logit_mean_layer.is_learned:
        sampled_indices = sample_training_indices(train_indices)
        inner_fold_splits = make_inner_folds(
            read_labels_and_sites(run.cohort, sampled_indices)[0], find_record_cluster_ids(run.cohort, sampled_indices)
        )
        for member_index in range(member_count if inner_fold_splits else 0):
            left_out_indices = sampled_indices[inner_fold_splits[member_index % len(inner_fold_splits)][1]]
            member_weights[:, member_index] = len(train_indices) / (len(train_indices) - len(left_out_indices))
            member_weights[left_out_indices, member_index] = 0
    if any(branch.within_sites for branch in logit_mean_layer.branches):
        labels, sites = read_labels_and_sites(run.cohort, train_indices)
        relative_site_log_odds[train_indices] = compute_relative_site_log_odds(labels, sites)
    return {"weight": member_weights, "site_log_odds": relative_site_log_odds}


def compute_relative_site_log_odds(labels: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """The log odds of autism (n,) at the site of each person, minus those of all; 0 if all have one label."""
    autism_fraction = labels.mean()
    if not 0 < autism_fraction < 1:
        return np.zeros(len(labels))
    _, site_indices, site_counts = np.unique(sites, return_inverse=True, return_counts=True)
    # (sites,)
    site_autism_fractions = (np.bincount(site_indices, labels) + PRIOR_PEOPLE_PER_SITE * autism_fraction) / (
        site_counts + PRIOR_PEOPLE_PER_SITE
    )
    return (logit(site_autism_fractions) - logit(autism_fraction))[site_indices]


def select_batch_rows(batch: Batch, record_positions: np.ndarray) -> Batch:
    """The part of a batch that holds the records at `record_positions`, which are in order and without gaps."""
    first_record = record_positions[0]
    stop_record = record_positions[-1] + 1
    rows_per_record_by_input = {
        input_name: len(input_values) // len(batch["label"]) for input_name, input_values in batch.items()
    }  # one, or one for each map
    return {
        input_name: input_values[
            first_record * rows_per_record_by_input[input_name] : stop_record * rows_per_record_by_input[input_name]
        ]
        for input_name, input_values in batch.items()
    }
