"""--train: a cohort's training subjects -> a checkpoint, `history.csv`, `history.png`, TensorBoard events."""

import dataclasses
import os
import signal
from functools import cache, partial
from typing import TYPE_CHECKING

import keras
import numpy as np

from data.base.errors import InputError
from data.base.terminal import collected
from data.cohorts.cohort import in_order
from models import layers
from models.connectomes import RidgeLogits
from utils.runs.checkpoints import Identity
from utils.runs.folders import changed
from utils.runs.run import Run
from utils.scores.ridge import fit_edges
from utils.training.inference import reading
from utils.training.loop import Training, make_optimizer
from utils.training.saver import History, Saver

if TYPE_CHECKING:
    from utils.runs.group import Group


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
    training.share_state(done)
    if complete:
        return 0
    history = History(run.out_dir, done)
    with collected(also=hang_up) as caught:
        try:
            training = dataclasses.replace(training, caught=caught)
            done = training.loop(done, saver, history, cache(partial(identity_of, run)))  # slow: when needed
        finally:
            history.close()
    if done < run.num_iters:
        run.write_manifest(finished=False, step=done)
        without = ", without --overrideChkpt," if run.override else ""
        print(f"Stopped at iteration {done} and saved; the same command{without} continues.")
    else:
        run.finish(history.headline, step=done)
    stopped = caught or done < run.num_iters
    return 128 + (caught[0] if caught else signal.SIGTERM) if stopped else 0


def has_its_results(run: Run) -> bool:
    """Whether the output folder of a training that has seen all batches lacks nothing. A single one's may be gone."""
    if run.folds:
        return run.is_done()
    manifest = run.results.manifest
    return manifest is None or (manifest.finished and not changed(run.out_dir, manifest))


def claim(run: Run, brought_back: bool) -> None:
    """Makes the output folder of a training that goes on. Results there that are not of this training are moved aside,
    and so are those of one from zero that never saved, if the checkpoint that it was to replace was `brought_back`."""
    manifest = run.results.manifest
    void = brought_back and manifest is not None and manifest.override and not manifest.finished
    if void or not run.continues():
        run.prepare_folder()
    else:
        run.write_manifest(finished=False)


def assist(run: Run) -> int:
    """Trains on this worker's share of every batch; returns the exit status."""
    training = begin(run)
    done = training.share_state()
    with collected(also=hang_up) as caught:
        training = dataclasses.replace(training, caught=caught)
        stopped = any(stopping for _, _, stopping in training.steps(done))
    return 128 + (caught[0] if caught else signal.SIGTERM) if stopped else 0


def pool(group: "Group") -> None:
    """Records that the trainings of all parts are done, and that a candidate is chosen in each fold."""
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


def hang_up(number: int) -> None:
    """After SIGHUP, sends the output to nowhere: writing to a terminal that is gone fails."""
    if number == getattr(signal, "SIGHUP", None):
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
        cohort_sha256=cohort.digest,
        records_sha256=cohort.records_sha256,
        out_dir=str(run.out_dir),
        training_subjects=tuple(cohort.subjects("train")),
        encoder_subjects=cohort.metadata.encoder_subjects,
        training_volumes=tuple(sorted(cohort.scans("train"))),
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
    selections = in_order(run.training_records(), run.config.batch_size)
    for layer in network.layers:
        if isinstance(layer, RidgeLogits):
            found = fit_edges(run.cohort, of_means.tables[layer.input.name], run.training_records())
            layer.assign(found.scale.mean, found.scale.scale, found.of_scaled.weights, found.of_scaled.bias)
        elif isinstance(layer, layers.Standardise):
            if layer.input.name in of_means.tables:
                layer.measure(batch[layer.input.name] for batch in of_means.batches(selections))
            else:
                before = keras.Model(network.input, layer.input)
                layer.measure(np.asarray(before(of_volumes.inputs(batch))) for batch in of_volumes.batches(selections))
