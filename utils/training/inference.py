"""A trained network: restored from its checkpoint, and run over records."""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.special import expit

from data.base.errors import InputError
from data.base.terminal import progress
from data.cohorts.means import Parcels, cubes, means_of
from data.grids import GRIDS
from models.layers import RegionMeans
from utils.runs.run import Run
from utils.training.saver import restore_weights


def restored_network(run: Run) -> keras.Model:
    """The trained network. Raises InputError if its training diverged."""
    network = run.model.build(run.config, run.cohort)
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


@dataclass(frozen=True)
class Reading:
    """What of a network is computed in a run, and of what: the layers after those that give means of volumes over
    parcels, which the cohort keeps; or all of them, of volumes. `tables` are these means, and connectomes."""

    run: Run
    network: keras.Model
    tables: dict[str, Any]

    def batches(self, selections: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """The batches of each selection of records, see `Model.batches`."""
        volumes = "volume" in self.network.input
        return self.run.model.batches(self.run.cohort, selections, volumes, self.tables)

    def inputs(self, batch: dict) -> dict:
        """What the network reads of a batch."""
        return {name: batch[name] for name in self.network.input}


def reading(run: Run, network: keras.Model, volumes: bool = False) -> Reading:
    """How a run reads records for a network: means of volumes where it begins with these, unless it needs `volumes`."""
    rest, parcels = (network, []) if volumes else split_after_means(network)
    tables: dict[str, Any] = {}
    if parcels:
        tables |= zip((one.name for one in parcels), means_of(run.cohort, parcels), strict=True)
    if run.cohort.connectomes and "connectome" in network.input:
        tables["connectome"] = run.cohort.connectomes
    return Reading(run, rest, tables)


def split_after_means(network: keras.Model) -> tuple[keras.Model, list[Parcels]]:
    """The network after its first layers, if these are fixed and are all that reads the volume: it takes their results
    by the names of the parcels, which are given too. Else the network itself, and no parcels."""
    volume = network.input.get("volume") if isinstance(network.input, dict) else None
    operations = [layer for layer in network.layers if not isinstance(layer, keras.layers.InputLayer)]
    reading = [layer for layer in operations if volume is not None and layer.input is volume]
    found = {parcels.name: parcels for layer in reading if (parcels := parcels_of(layer))}
    if not reading or len(found) < len(reading):
        return network, []
    for name, layer in zip(found, reading, strict=True):
        layer.output.name = name
    results = {name: layer.output for name, layer in zip(found, reading, strict=True)}
    rest = {name: tensor for name, tensor in network.input.items() if name != "volume"}
    return keras.Model(rest | results, network.output), list(found.values())


def parcels_of(layer: keras.Layer) -> Parcels | None:
    """What a layer averages a volume over; None if it does something else."""
    if isinstance(layer, RegionMeans):
        return layer.parcels
    grid = next((grid for grid in GRIDS.values() if grid.shape == tuple(layer.input.shape[1:4])), None)
    if isinstance(layer, keras.layers.AveragePooling3D) and grid and layer.padding == "same":
        return cubes(grid, layer.pool_size[0])
    return None


def outputs_of(
    run: Run, network: keras.Model, selections: list[np.ndarray], title: str = ""
) -> Iterator[tuple[np.ndarray, dict, Any]]:
    """For each selection of records: it, the batch (see `Model.batches`), and the network's outputs in NumPy. Without a
    `title` no progress is shown."""
    reader = reading(run, network)
    forward = tf.function(lambda inputs: reader.network(inputs, training=False), reduce_retracing=True)
    with progress(title, sum(map(len, selections))) if title else nullcontext() as shown:
        for selection, batch in zip(selections, reader.batches(selections), strict=True):
            outputs = forward(reader.inputs(batch))
            outputs = tf.nest.map_structure(lambda tensor: tensor.numpy(), outputs)
            check_finite(run, "outputs", outputs)
            if shown:
                shown.advance(steps=len(selection))
            yield selection, batch, outputs


def probability_of_autism(logits: np.ndarray) -> np.ndarray:
    """(..., 2) logits of (control, autism) -> (...) float64."""
    logits = np.asarray(logits, np.float64)
    return expit(logits[..., 1] - logits[..., 0])
