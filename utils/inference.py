"""A trained network: restored from its checkpoint, and run over records."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.special import expit

from data.base.errors import InputError
from data.base.progress import progress
from utils.runs.run import Run
from utils.training.saver import restore_weights


def restored_network(run: Run) -> keras.Model:
    """The trained network. Raises InputError if its training diverged."""
    network = run.model.build(run.config, run.cohort.grid, run.cohort.num_maps)
    restore_weights(run.checkpoints, network)
    check_finite(run, "weights", network.get_weights())
    return network


def check_finite(run: Run, what: str, values: Any) -> None:
    """Raises InputError if an array in `values`, nested in any way, holds NaN or infinity."""
    if not all(np.isfinite(array).all() for array in tf.nest.flatten(values)):
        raise InputError(
            f"{run.checkpoints.path} has {what} that are not finite: its training diverged. Train again with a smaller "
            f"learning rate: {run.checkpoints.training} --overrideChkpt "
            f"--set learning_rate={run.config.learning_rate / 10:g}"
        )


def outputs_of(
    run: Run, network: keras.Model, selections: list[np.ndarray], title: str
) -> Iterator[tuple[np.ndarray, dict, Any]]:
    """For each selection of records: it, the batch (see `Model.batches`), and the network's outputs in NumPy."""
    forward = tf.function(lambda inputs: network(inputs, training=False), reduce_retracing=True)
    with progress(title, sum(map(len, selections))) as shown:
        batches = run.model.batches(run.cohort, selections)
        for selection, batch in zip(selections, batches, strict=True):
            outputs = forward(run.model.inputs(batch))
            outputs = tf.nest.map_structure(lambda tensor: tensor.numpy(), outputs)
            check_finite(run, "outputs", outputs)
            shown.advance(steps=len(selection))
            yield selection, batch, outputs


def probability_of_autism(logits: np.ndarray) -> np.ndarray:
    """(..., 2) logits of (control, autism) -> (...) float64."""
    logits = np.asarray(logits, np.float64)
    return expit(logits[..., 1] - logits[..., 0])
