"""--train: a cohort's training subjects -> a checkpoint, `history.csv`, `history.png`, TensorBoard events.

Batches and random draws are functions of the seed and of the number of batches seen. So a training that is stopped and
continued ends with the same weights.
"""

import csv
import math
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import tee
from pathlib import Path
from typing import IO, Any

import keras
import numpy as np
import tensorflow as tf
from scipy.special import logit

from data.base import files
from data.base.effort import EFFORT
from data.base.errors import InputError
from data.base.listing import join_names
from data.base.processes import handle_signals
from data.base.terminal import open_progress_bar, print_summary, print_unless_quiet
from data.cohorts.cohort import Cohort, split_into_batches
from models import Settings, averaging, layers, losses
from models.connectomes import RidgeLogits
from utils import figures
from utils.runs import record
from utils.runs.checkpoints import CheckpointFolder
from utils.runs.duration import BatchTimer
from utils.runs.inference import (
    NetworkReader,
    compute_autism_probability,
    make_network_reader,
    run_network,
)
from utils.runs.record import MANIFEST_FILE, Manifest, average_branch_weights
from utils.runs.run import Run
from utils.runs.statements import CandidateChoice
from utils.scores.results import Estimate, Headline
from utils.scores.ridge import (
    find_record_cluster_ids,
    fit_or_reuse_edge_classifier,
    make_inner_folds,
    read_labels_and_sites,
    sample_training_indices,
)
from utils.training import shares
from utils.training.choose import choose_candidate
from utils.training.saver import CheckpointSaver, compute_weights_sha256

HISTORY_FILE = "history.csv"
INNER_PREDICTIONS_FILE = "inner.csv"
STOPPING_S = 5.0  # for batch norm, of a training that is stopped: Slurm kills 30 s after SIGTERM, Docker after 10
STEP_PATTERN = re.compile(r"\d{1,18}")  # of a history
BATCH_NORM_CALIBRATION_BATCHES = 20  # batches
# people like all others whom each site has beside its own, when its share of autism is counted
PRIOR_PEOPLE_PER_SITE = 2
Batch = dict[str, np.ndarray]


def train_network(run: Run) -> int:
    """Trains until `num_iters` batches have been seen in all, from zero or from the checkpoint that there is; returns
    the exit status (128 + signal if stopped)."""
    is_from_zero = run.overrides_checkpoint or not run.checkpoints.has_checkpoint
    if not is_from_zero:
        checkpoint_manifest = run.checkpoints.read_latest_manifest()
        if checkpoint_manifest.begun != run.training_id:
            raise InputError(f"{run.checkpoints.path} was trained by another process meanwhile; repeat the command.")
        run = replace(run, earlier_wall_time_s=checkpoint_manifest.wall_time_s or 0.0)
    checkpoint_name = run.checkpoints.prepare_folder_and_choose_name(run.overrides_checkpoint)

    choice: CandidateChoice | None = None
    if is_from_zero:
        run = replace(run, training_id=choose_training_id(run))
        replace(run, num_iters=0).claim_output_folder()
        if run.candidates:
            inner_predictions_path = run.out_dir / INNER_PREDICTIONS_FILE
            candidate, choice = choose_candidate(run, train_and_predict_by_file, inner_predictions_path)
            run = run.with_candidate_settings(candidate)
            run.reset_keras()

    training = make_training(run)
    saver = CheckpointSaver(run.checkpoints, checkpoint_name, training.network, training.optimizer)
    if is_from_zero:
        fit_input_layers(training)
        batches_done = 0
    else:
        batches_done = saver.restore_latest_checkpoint()
        choice = run.checkpoints.update_cross_validation(run.cross_validation).choice
        print_unless_quiet(f"Continuing {run.checkpoints.path} at iteration {batches_done}.")
        replace(run, num_iters=batches_done).claim_output_folder()
    history = TrainingHistory(run.out_dir, run.checkpoints.history_path(checkpoint_name), batches_done)

    def catch_signal(signal_number: int, _: object) -> None:
        training.caught_signals.append(signal_number)
        silence_after_sighup(signal_number)

    with handle_signals(catch_signal):
        try:
            batches_done = run_training_loop(training, batches_done, saver, history, choice)
        finally:
            history.close()

    ended_run = replace(run, num_iters=batches_done)
    is_unfinished = batches_done < run.num_iters
    if is_unfinished:
        record.write_manifest(run.out_dir / MANIFEST_FILE, replace(ended_run.make_manifest(), choice=choice))
        flag_text = ", without --overrideChkpt," if run.overrides_checkpoint else ""
        print(f"Stopped at iteration {batches_done} and saved; the same command{flag_text} continues.")
    else:
        print_branch_weights([run.checkpoints])
        ended_run.finish_run(history.headline, choice=choice)

    if training.caught_signals:
        return 128 + training.caught_signals[0]
    return 128 + signal.SIGTERM if is_unfinished else 0  # unfinished: another worker caught a signal


def choose_training_id(run: Run) -> str:
    """What tells a training from zero apart: as in results of one that was begun and never saved, or else new."""
    earlier_manifest = record.read_manifest(run.out_dir)
    checkpoint_training_id = ""
    if intact_prefix := run.checkpoints.latest_intact_prefix:
        checkpoint_training_id = run.checkpoints.read_prefix_manifest(intact_prefix).begun
    if (
        earlier_manifest
        and not earlier_manifest.finished
        and earlier_manifest.key == run.run_key
        and earlier_manifest.begun != checkpoint_training_id
    ):
        return earlier_manifest.begun
    return str(time.time_ns())


def make_training(run: Run) -> "Training":
    """The network and its optimizer on all devices. Raises InputError if one of these would have nothing to do."""
    if run.config.batch_size < run.workers.replica_count:
        raise InputError(
            f"batch_size {run.config.batch_size} leaves nothing to do for some of {run.workers.replica_count} devices; "
            f"use --set batch_size={run.workers.replica_count} or more, or fewer devices."
        )
    with run.workers.strategy.scope():
        network = run.model.build_network(run.config, run.cohort)
        optimizer = make_optimizer(run.config, run.trained_network.precision)
        optimizer.build(network.trainable_variables)
    return Training(run, network, optimizer)


def make_optimizer(config: Settings, precision: str) -> keras.Optimizer:
    """The optimizer that the settings describe."""
    learning_rate_or_schedule = config.learning_rate
    if config.half_rate_after:  # independent of --numIters, so that a training may be continued after it
        learning_rate_or_schedule = keras.optimizers.schedules.InverseTimeDecay(
            config.learning_rate, config.half_rate_after, 1
        )
    if config.optimizer == "adam":
        optimizer = keras.optimizers.Adam(learning_rate_or_schedule, beta_1=config.decay)
    else:
        optimizer = keras.optimizers.RMSprop(learning_rate_or_schedule, rho=config.decay)
    return keras.optimizers.LossScaleOptimizer(optimizer) if precision == "mixed_float16" else optimizer


def fit_input_layers(training: "Training") -> None:
    """Sets what layers take from the training records: mean and spread of each that standardises, and the regression of
    the one that reads connectomes."""
    run = training.run
    network = training.network
    train_indices = run.cohort.find_split_record_indices("train")
    index_batches = split_into_batches(train_indices, run.config.batch_size)
    # of connectomes, and of means of volumes where they suffice
    table_reader = make_network_reader(run.model, run.cohort, network)
    volume_reader = make_network_reader(run.model, run.cohort, network, needs_volumes=True)
    for layer in network.layers:
        if isinstance(layer, RidgeLogits):
            connectomes = table_reader.table_by_input[layer.input.name]
            ridge_fit = fit_or_reuse_edge_classifier(run.cohort, connectomes, train_indices)
            layer.assign_ridge_weights(
                ridge_fit.edge_scale.edge_means,
                ridge_fit.edge_scale.weighted_inverse_sd,
                ridge_fit.scaled_edge_classifier.weights,
                ridge_fit.scaled_edge_classifier.bias,
            )
        elif isinstance(layer, layers.Standardise) and layer.input.name in table_reader.table_by_input:
            layer.fit_moments(batch[layer.input.name] for batch in table_reader.read_batches(index_batches))
        elif isinstance(layer, layers.Standardise):
            input_network = keras.Model(network.input, layer.input)
            layer.fit_moments(
                np.asarray(input_network(volume_reader.select_inputs(batch)))
                for batch in volume_reader.read_batches(index_batches)
            )


def silence_after_sighup(signal_number: int) -> None:
    """After SIGHUP, sends the output to nowhere: writing to a terminal that is gone fails."""
    if signal_number == signal.SIGHUP:
        with open(os.devnull, "w") as null_file:
            for file_descriptor in (1, 2):
                if os.isatty(file_descriptor):
                    os.dup2(null_file.fileno(), file_descriptor)


def run_training_loop(
    training: "Training",
    batches_before: int,
    saver: CheckpointSaver,
    history: "TrainingHistory",
    choice: CandidateChoice | None,
) -> int:
    """Runs until `num_iters` batches have been seen, saving on the way; returns how many have been."""
    run = training.run
    batches_done = batches_before
    checkpoint_manifest: Manifest | None = None  # made at the first save, since that is slow
    with open_progress_bar(f"Training {run.model.model_name}", run.num_iters, batches_before) as progress_bar:
        for batches_done, batch_metrics, is_stopped_by_worker in training.run_steps(batches_before):
            progress_bar.advance(f"loss {batch_metrics['loss']:.4f}, {batch_metrics['samples_per_s']:.0f} samples/s")
            # several workers stop together, at the next batch
            is_stopped_here = bool(training.caught_signals) and run.workers.worker_count == 1
            is_stopping = is_stopped_by_worker or is_stopped_here
            history.add_row(batches_done, batch_metrics)

            is_regular_save = is_save_due(batches_done, run.num_iters)
            if is_stopping or is_regular_save:
                max_batch_norm_seconds = math.inf if is_regular_save else STOPPING_S
                branch_weights = training.calibrate_batch_norm_and_branches(
                    batches_done, max_batch_norm_seconds, lambda message: progress_bar.advance(message, 0)
                )
                # before the checkpoint: rows after it are dropped on continuing
                history.save_copy(run.checkpoints.history_path(saver.checkpoint_name))
                if checkpoint_manifest is None:
                    checkpoint_manifest = replace(run.make_manifest(), people=run.training_people, choice=choice)
                saver.save_checkpoint(
                    replace(
                        checkpoint_manifest,
                        weights=compute_weights_sha256(training.network),
                        shares=branch_weights,
                        step=batches_done,
                        wall_time_s=run.wall_time_s,
                    )
                )
            if is_stopping:
                break
    return batches_done


def is_save_due(batches_done: int, batch_total: int) -> bool:
    """Whether a training of `batch_total` batches is saved after `batches_done` of them."""
    return batches_done % EFFORT.save_every == 0 or batches_done == batch_total


@dataclass(frozen=True)
class Training:
    """A network and its optimizer on the devices that train it; `caught_signals` holds the signals that arrived."""

    run: Run
    network: keras.Model
    optimizer: keras.Optimizer
    caught_signals: list[int] = field(default_factory=list)

    def run_steps(self, batches_before: int) -> Iterator[tuple[int, dict[str, Any], bool]]:
        """Trains until `num_iters` batches have been seen; yields, after each, how many have been, its metrics, and
        whether training stops there because a worker has caught a signal."""
        run = self.run
        batch_timer = BatchTimer(run, batches_before)
        dropout_layers = [layer for layer in self.find_layers(keras.layers.Dropout) if layer.rate]
        batches_done = batches_before
        last_batch_time = time.perf_counter()
        for device_batches in self.read_device_batches(batches_before):
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
            batch_metrics["samples_per_s"] = round(run.config.batch_size / (current_time - last_batch_time), 2)
            last_batch_time = current_time
            batch_timer.count_batch()
            yield batches_done, batch_metrics, is_stopped
            if is_stopped:
                return

    def read_device_batches(self, batches_done: int) -> Iterator[list[Batch]]:
        """For each batch from number `batches_done` on, the shares of this process's devices, with volumes if they are
        read."""
        run = self.run
        positions_by_replica = np.array_split(np.arange(run.config.batch_size), run.workers.replica_count)
        device_positions = [positions_by_replica[replica_index] for replica_index in run.workers.local_replica_indices]
        process_positions = np.concatenate(device_positions)  # of the batch, those that this process reads
        index_batches, index_batches_to_read = tee(
            batch_indices[process_positions] for batch_indices in self.draw_record_indices(batches_done, run.num_iters)
        )
        for batch_indices, batch in zip(index_batches, self.reader.read_batches(index_batches_to_read), strict=True):
            for input_name, cohort_values in self.loss_inputs.items():
                batch[input_name] = cohort_values[batch_indices]
            yield [
                select_batch_rows(batch, np.searchsorted(process_positions, positions))
                for positions in device_positions
            ]

    def draw_record_indices(self, first_batch: int, stop_batch: int) -> Iterator[np.ndarray]:
        """The records of batches first_batch..stop_batch-1, positions in the cohort."""
        train_indices = self.run.cohort.find_split_record_indices("train")
        seed = self.run.seed
        batch_size = self.run.config.batch_size
        return (
            train_indices[draw_batch_positions(seed, batch_number, batch_size, len(train_indices))]
            for batch_number in range(first_batch, stop_batch)
        )

    @cached_property
    def reader(self) -> NetworkReader:
        return make_network_reader(self.run.model, self.run.cohort, averaging.make_branch_logits_network(self.network))

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
                        losses.sum_network_losses(batch, network_logits, branch)
                        for network_logits, branch in zip(branch_logits, logit_mean_layer.branches, strict=True)
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

    def check_loss(self, batches_done: int, loss: float) -> None:
        """Raises InputError that names iteration and records if the loss is not finite."""
        if not math.isfinite(loss):
            (batch_indices,) = self.draw_record_indices(batches_done - 1, batches_done)
            file_names = {self.run.cohort.rows[record_index].file for record_index in batch_indices}
            raise self.make_divergence_error(
                f"The loss is {loss} at iteration {batches_done}, of the records {join_names(sorted(file_names))}"
            )

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

    def find_layers(self, layer_type: type) -> list[Any]:
        """The network's layers of a kind, those inside of other layers, too."""
        return [layer for layer in self.network._flatten_layers() if isinstance(layer, layer_type)]

    def make_divergence_error(self, problem_text: str) -> InputError:
        lower_rate_text = f"{self.run.config.learning_rate / 10:g}"
        return InputError(
            f"{problem_text}: the training diverges. What was saved before is intact. Repeat the command with a "
            f"smaller learning rate: --overrideChkpt --set learning_rate={lower_rate_text}"
        )


def draw_batch_positions(seed: int, batch_number: int, batch_size: int, record_count: int) -> np.ndarray:
    """Positions (batch_size,) in 0..record_count-1 of batch `batch_number` (0, 1, ...): batches run through one seeded
    permutation after another, so every record is seen once an epoch."""
    draw_numbers = np.arange(batch_number * batch_size, (batch_number + 1) * batch_size)
    epoch_by_draw, rank_by_draw = np.divmod(draw_numbers, record_count)  # a batch may end one epoch and begin the next
    record_positions = np.empty_like(rank_by_draw)
    for epoch in np.unique(epoch_by_draw):
        is_in_epoch = epoch_by_draw == epoch
        epoch_permutation = np.random.default_rng((seed, epoch)).permutation(record_count)
        record_positions[is_in_epoch] = epoch_permutation[rank_by_draw[is_in_epoch]]
    return record_positions


def make_loss_inputs(run: Run, logit_mean_layer: averaging.MeanOfLogits) -> dict[str, np.ndarray]:
    """What the losses of networks read of each record of the cohort beside its label, float32. `weight`
    (records, members) is 0 where the member leaves it out. `relative_site_log_odds` (records,) are those of autism
    among the training people of its site, minus those among all."""
    config: Any = run.config  # of a classifier
    train_indices = run.cohort.find_split_record_indices("train")
    record_count = len(run.cohort.rows)

    member_weights = np.ones((record_count, config.members), np.float32)
    if logit_mean_layer.is_learned:
        left_out_indices_by_fold = find_left_out_indices_by_fold(run.cohort, train_indices)
        for member_index in range(config.members if left_out_indices_by_fold else 0):
            left_out_indices = left_out_indices_by_fold[member_index % len(left_out_indices_by_fold)]
            member_weights[:, member_index] = len(train_indices) / (len(train_indices) - len(left_out_indices))
            member_weights[left_out_indices, member_index] = 0

    relative_site_log_odds = np.zeros(record_count, np.float32)
    if any(branch.within_sites for branch in logit_mean_layer.branches):
        labels, sites = read_labels_and_sites(run.cohort, train_indices)
        relative_site_log_odds[train_indices] = compute_relative_site_log_odds(labels, sites)
    return {"weight": member_weights, "site_log_odds": relative_site_log_odds}


def find_left_out_indices_by_fold(cohort: Cohort, train_indices: np.ndarray) -> list[np.ndarray]:
    """The records that members of a classifier leave out, those of one inner fold each; none if people are too few."""
    sampled_indices = sample_training_indices(train_indices)
    labels, _ = read_labels_and_sites(cohort, sampled_indices)
    inner_fold_splits = make_inner_folds(labels, find_record_cluster_ids(cohort, sampled_indices))
    return [sampled_indices[left_out_positions] for _, left_out_positions in inner_fold_splits]


def compute_relative_site_log_odds(labels: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """The log odds of autism (n,) at the site of each person, minus those of all; 0 if all have one label."""
    autism_fraction = labels.mean()
    if not 0 < autism_fraction < 1:
        return np.zeros(len(labels))
    _, site_indices, site_counts = np.unique(sites, return_inverse=True, return_counts=True)
    site_autism_counts = np.bincount(site_indices, labels) + PRIOR_PEOPLE_PER_SITE * autism_fraction  # (sites,)
    site_autism_fractions = site_autism_counts / (site_counts + PRIOR_PEOPLE_PER_SITE)  # (sites,)
    return (logit(site_autism_fractions) - logit(autism_fraction))[site_indices]


def select_batch_rows(batch: Batch, record_positions: np.ndarray) -> Batch:
    """The part of a batch that holds the records at `record_positions`, which are in order and without gaps."""
    first_record = record_positions[0]
    stop_record = record_positions[-1] + 1
    selected_rows = {}
    for input_name, input_values in batch.items():
        rows_per_record = len(input_values) // len(batch["label"])  # one, or one for each map
        selected_rows[input_name] = input_values[first_record * rows_per_record : stop_record * rows_per_record]
    return selected_rows


class TrainingHistory:
    """`history.csv`, written row by row, and the same numbers for TensorBoard. The history at `earlier_history_path`,
    kept beside a checkpoint of `batches_done` batches, is continued."""

    def __init__(self, output_folder: Path, earlier_history_path: Path, batches_done: int):
        self.csv_path = output_folder / HISTORY_FILE
        self.history_rows = (
            read_earlier_history(earlier_history_path, batches_done)
            if batches_done and earlier_history_path.exists()
            else []
        )
        if batches_done and not self.history_rows:
            print(
                f"{earlier_history_path} has no row of the {batches_done} batches before; {self.csv_path} begins with "
                "the next one."
            )
        with files.open_replacement(self.csv_path, newline="") as new_csv_file:
            if self.history_rows:
                self.write_rows(new_csv_file, self.history_rows, writes_header=True)
        self.csv_file = open(self.csv_path, "a", newline="")  # noqa: SIM115
        self.event_writer = tf.summary.create_file_writer(str(output_folder))

    @staticmethod
    def write_rows(csv_file: IO, history_rows: list[dict], writes_header: bool) -> None:
        csv_writer = csv.DictWriter(csv_file, history_rows[0], lineterminator="\n")
        if writes_header:
            csv_writer.writeheader()
        csv_writer.writerows(history_rows)

    def add_row(self, batches_done: int, batch_metrics: dict) -> None:
        history_row = {"step": batches_done} | batch_metrics
        self.write_rows(self.csv_file, [history_row], writes_header=not self.history_rows)
        self.history_rows.append(history_row)
        with self.event_writer.as_default(batches_done):
            for metric_name, metric_value in batch_metrics.items():
                tf.summary.scalar(metric_name, metric_value)

    def save_copy(self, copy_path: Path) -> None:
        """Copies what there is to where a checkpoint is about to be saved."""
        self.csv_file.flush()
        self.event_writer.flush()
        with files.make_unfinished_path(copy_path) as unfinished_path:
            shutil.copyfile(self.csv_path, unfinished_path)

    def close(self) -> None:
        self.csv_file.close()
        self.event_writer.close()
        if self.history_rows:
            figures.save_history_figure(self.history_rows, self.csv_path.with_suffix(".png"))

    @property
    def headline(self) -> Headline | None:
        """The last loss."""
        if not self.history_rows:
            return None
        last_row = self.history_rows[-1]
        return Headline(f"loss after {last_row['step']} batches", Estimate(float(last_row["loss"]), None, None))


def read_earlier_history(history_path: Path, max_batch_number: int) -> list[dict]:
    """The rows up to `max_batch_number` of a history that this run continues, without a last line that was cut off."""
    csv_text = history_path.read_text(encoding="utf-8", errors="replace")
    csv_rows = csv.DictReader(csv_text[: csv_text.rfind("\n") + 1].splitlines())
    try:
        intact_rows = [csv_row for csv_row in csv_rows if None not in csv_row and None not in csv_row.values()]
    except csv.Error as error:
        raise InputError(
            f"{history_path} is damaged ({error}); copy it again, or remove it and repeat the command."
        ) from error
    return [
        csv_row
        for csv_row in intact_rows
        if STEP_PATTERN.fullmatch(csv_row.get("step", "")) and int(csv_row["step"]) <= max_batch_number
    ]


def print_branch_weights(checkpoint_folders: Sequence[CheckpointFolder]) -> None:
    """Prints what each part of the trained networks counts, if that was learned."""
    branch_weights = average_branch_weights(
        [checkpoint_folder.read_latest_manifest().shares for checkpoint_folder in checkpoint_folders]
    )
    if branch_weights:
        weights_text = ", ".join(
            f"{branch_name} {branch_weight:.0%}" for branch_name, branch_weight in branch_weights.items()
        )
        print_summary([("parts", f"what they count, learned from training participants: {weights_text}")])


def pool_trainings(pooled_run: Run, fold_runs: Sequence[Run]) -> None:
    """Records that the trainings of all parts are done, with the settings that inner folds chose, if they did."""
    print_branch_weights([run.checkpoints for run in fold_runs])
    fold_manifests = [run.checkpoints.read_latest_manifest() for run in fold_runs]
    chosen_settings = [fold_manifest.settings for fold_manifest in fold_manifests if fold_manifest.settings]
    preset_names_text = ", ".join(sorted({fold_settings.preset for fold_settings in chosen_settings}))
    first_config = pooled_run.model.parse_settings(chosen_settings[0].config)
    pooled_run.with_network(preset_name=preset_names_text, config=first_config).finish_run()


def train_and_predict_by_file(run: Run) -> dict[str, float]:
    """The probability of autism of each test record, by file, by a network that is trained on `num_iters` batches; with
    candidates by the one that inner folds choose. TensorFlow must have been started. The weights are those of
    `--train`, bit for bit on the same CPU; they are not kept."""
    if run.candidates:
        candidate, _ = choose_candidate(run, train_and_predict_by_file)
        run = run.with_single_candidate(candidate)
    with run.with_fresh_keras():
        training = make_training(run)
        fit_input_layers(training)
        for _ in training.run_steps(0):
            pass
        training.calibrate_batch_norm_and_branches(run.num_iters)

        test_indices = run.cohort.find_split_record_indices("test")
        test_index_batches = split_into_batches(test_indices, run.config.batch_size)
        logits_per_batch = [
            batch_logits
            for _, _, batch_logits in run_network(run.trained_network, run.cohort, training.network, test_index_batches)
        ]
        test_logits = np.concatenate(logits_per_batch)  # (test records, 2)
        file_names = [run.cohort.rows[record_index].file for record_index in test_indices]
        return dict(zip(file_names, compute_autism_probability(test_logits).tolist(), strict=True))
