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
from utils.runs.record import MANIFEST_FILE, Manifest, average_branch_weights
from utils.runs.run import Run
from utils.scores.results import Estimate, Headline
from utils.scores.ridge import fit_or_reuse_edge_classifier
from utils.training.loop import Training, is_save_due, make_optimizer
from utils.training.network import CheckpointSaver, make_network_reader

HISTORY_FILE = "history.csv"
INNER_PREDICTIONS_FILE = "inner.csv"
STOPPING_S = 5.0  # for batch norm, of a training that is stopped: Slurm kills 30 s after SIGTERM, Docker after 10
STEP_PATTERN = re.compile(r"\d{1,18}")  # of a history


def train_network(run: Run) -> int:
    """Trains until `num_iters` batches have been seen in all, from zero or from the checkpoint that there is; returns
    the exit status (128 + signal if stopped)."""
    is_from_zero = run.overrides_checkpoint or not run.checkpoints.has_checkpoint
    if not is_from_zero and run.checkpoints.read_latest_manifest().begun != run.training_id:
        raise InputError(f"{run.checkpoints.path} was trained by another process meanwhile; repeat the command.")
    checkpoint_name = run.checkpoints.prepare_folder_and_choose_name(run.overrides_checkpoint)
    manifest_extras = dict[str, Any]()
    if is_from_zero:
        run = replace(run, training_id=choose_training_id(run))
        replace(run, num_iters=0).claim_output_folder()
        if run.candidates:
            from utils.training.choose import choose_candidate

            candidate, manifest_extras = choose_candidate(run, run.out_dir / INNER_PREDICTIONS_FILE)
            run = run.with_candidate_settings(candidate)
            run.reset_keras()
    training = make_training(run)
    saver = CheckpointSaver(run.checkpoints, checkpoint_name, training.network, training.optimizer)
    if is_from_zero:
        fit_input_layers(training)
    batches_done = 0 if is_from_zero else saver.restore_latest_checkpoint()
    if not is_from_zero:
        manifest_extras = run.checkpoints.update_cross_validation(run.cross_validation).told
        print_unless_quiet(f"Continuing {run.checkpoints.path} at iteration {batches_done}.")
        replace(run, num_iters=batches_done).claim_output_folder()
    history = TrainingHistory(run.out_dir, run.checkpoints.history_path(checkpoint_name), batches_done)
    caught_signals: list[int] = []

    def catch_signal(signal_number: int, _: object) -> None:
        caught_signals.append(signal_number)
        silence_after_sighup(signal_number)

    with handle_signals(catch_signal):
        try:
            training = replace(training, caught_signals=caught_signals)
            make_checkpoint_manifest = cache(
                lambda: replace(run.make_manifest(**manifest_extras), people=run.training_people, weights=None)
            )  # slow, so only when needed
            batches_done = run_training_loop(training, batches_done, saver, history, make_checkpoint_manifest)
        finally:
            history.close()
    ended_run = replace(run, num_iters=batches_done)
    if batches_done < run.num_iters:
        record.write_manifest(run.out_dir / MANIFEST_FILE, ended_run.make_manifest(**manifest_extras))
        flag_text = ", without --overrideChkpt," if run.overrides_checkpoint else ""
        print(f"Stopped at iteration {batches_done} and saved; the same command{flag_text} continues.")
    else:
        print_branch_weights([run.checkpoints])
        ended_run.finish_run(history.headline, **manifest_extras)
    is_stopped = caught_signals or batches_done < run.num_iters
    return 128 + (caught_signals[0] if caught_signals else signal.SIGTERM) if is_stopped else 0


def choose_training_id(run: Run) -> str:
    """What tells a training from zero apart: as in results of one that was begun and never saved, or else new."""
    earlier_manifest = record.read_manifest(run.out_dir)
    checkpoint_training_id = (
        run.checkpoints.read_latest_manifest().begun if run.checkpoints.latest_intact_prefix else ""
    )
    if (
        earlier_manifest
        and not earlier_manifest.finished
        and earlier_manifest.key == run.run_key
        and earlier_manifest.begun != checkpoint_training_id
    ):
        return earlier_manifest.begun
    return str(time.time_ns())


def print_branch_weights(checkpoint_folders: Sequence[CheckpointFolder]) -> None:
    """Prints what each part of the trained networks counts, if that was learned."""
    if branch_weights := average_branch_weights(
        [checkpoint_folder.read_latest_manifest().shares for checkpoint_folder in checkpoint_folders]
    ):
        weights_text = ", ".join(
            f"{branch_name} {branch_weight:.0%}" for branch_name, branch_weight in branch_weights.items()
        )
        print_summary([("parts", f"what they count, learned from training participants: {weights_text}")])


def run_training_loop(
    training: Training,
    batches_done: int,
    saver: CheckpointSaver,
    history: "TrainingHistory",
    make_checkpoint_manifest: Callable[[], Manifest],
) -> int:
    """Runs until `num_iters` batches have been seen, saving on the way; returns how many have been."""
    run = training.run
    with open_progress_bar(f"Training {run.model.model_name}", run.num_iters, batches_done) as progress_bar:
        for batches_seen, batch_metrics, is_stopping in training.run_steps(batches_done):
            batches_done = batches_seen
            progress_bar.advance(f"loss {batch_metrics['loss']:.4f}, {batch_metrics['samples_per_s']:.0f} samples/s")
            # several workers stop together, at the next batch
            is_stopping |= bool(training.caught_signals) and run.workers.worker_count == 1
            history.add_row(batches_done, batch_metrics)
            if is_stopping or is_save_due(batches_done, run.num_iters):
                max_batch_norm_seconds = math.inf if is_save_due(batches_done, run.num_iters) else STOPPING_S
                branch_weights = training.calibrate_batch_norm_and_branches(
                    batches_done, max_batch_norm_seconds, lambda message: progress_bar.advance(message, 0)
                )
                # before the checkpoint: rows after it are dropped on continuing
                history.save_copy(run.checkpoints.history_path(saver.checkpoint_name))
                wall_time_s = round(time.time() - run.start_time, 2)
                saver.save_checkpoint(
                    replace(
                        make_checkpoint_manifest(), shares=branch_weights, step=batches_done, wall_time_s=wall_time_s
                    )
                )
            if is_stopping:
                break
    return batches_done


def pool_trainings(pooled_run: Run, fold_runs: Sequence[Run]) -> None:
    """Records that the trainings of all parts are done, with the settings that inner folds chose, if they did."""
    print_branch_weights([run.checkpoints for run in fold_runs])
    chosen_settings = [
        fold_settings for run in fold_runs if (fold_settings := run.checkpoints.read_latest_manifest().settings)
    ]
    preset_names_text = ", ".join(sorted({fold_settings.preset for fold_settings in chosen_settings}))
    replace(pooled_run, choices=replace(chosen_settings[0], preset=preset_names_text)).finish_run()


def make_training(run: Run) -> Training:
    """The network and its optimizer on all devices. Raises InputError if one of these would have nothing to do."""
    if run.config.batch_size < run.workers.replica_count:
        raise InputError(
            f"batch_size {run.config.batch_size} leaves nothing to do for some of {run.workers.replica_count} devices; "
            f"use --set batch_size={run.workers.replica_count} or more, or fewer devices."
        )
    with run.workers.strategy.scope():
        network = run.model.build_network(run.config, run.cohort)
        optimizer = make_optimizer(run.config, run.choices.precision)
        optimizer.build(network.trainable_variables)
    return Training(run, network, optimizer)


def silence_after_sighup(signal_number: int) -> None:
    """After SIGHUP, sends the output to nowhere: writing to a terminal that is gone fails."""
    if signal_number == signal.SIGHUP:
        with open(os.devnull, "w") as null_file:
            for file_descriptor in (1, 2):
                if os.isatty(file_descriptor):
                    os.dup2(null_file.fileno(), file_descriptor)


def fit_input_layers(training: Training) -> None:
    """Sets what layers take from the training records: mean and spread of each that standardises, and the regression of
    the one that reads connectomes."""
    run = training.run
    network = training.network
    means_reader = make_network_reader(run, network)
    volumes_reader = make_network_reader(run, network, needs_volumes=True)
    index_batches = split_into_batches(run.cohort.find_split_record_indices("train"), run.config.batch_size)
    for layer in network.layers:
        if isinstance(layer, RidgeLogits):
            ridge_fit = fit_or_reuse_edge_classifier(
                run.cohort, means_reader.table_by_input[layer.input.name], run.cohort.find_split_record_indices("train")
            )
            layer.assign_ridge_weights(
                ridge_fit.edge_scale.edge_means,
                ridge_fit.edge_scale.weighted_inverse_sd,
                ridge_fit.scaled_edge_classifier.weights,
                ridge_fit.scaled_edge_classifier.bias,
            )
        elif isinstance(layer, layers.Standardise):
            if layer.input.name in means_reader.table_by_input:
                layer.fit_moments(batch[layer.input.name] for batch in means_reader.read_batches(index_batches))
            else:
                input_network = keras.Model(network.input, layer.input)
                layer.fit_moments(
                    np.asarray(input_network(volumes_reader.select_inputs(batch)))
                    for batch in volumes_reader.read_batches(index_batches)
                )


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
