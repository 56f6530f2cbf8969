"""A network on disk and over records: its checkpoints are saved and restored, and it is run over a cohort.

What averages volumes over parcels is not run again for each batch: the cohort keeps these means.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.special import expit

from data.base import files
from data.base.errors import InputError
from data.base.terminal import open_progress_bar
from data.cohorts.atlas import Parcels, load_parcel_means, make_cube_parcels
from data.cohorts.cohort import Cohort
from data.cohorts.records import GRID_BY_SHAPE
from models.layers import RegionMeans
from utils.runs.checkpoints import KEPT, CheckpointFolder, short
from utils.runs.record import Record
from utils.runs.run import Run


class Saver:
    """Saves and restores a network and its optimizer; the latest checkpoint, which is named by the number of batches
    seen, is always a whole one."""

    def __init__(self, folder: CheckpointFolder, name: str, model: keras.Model, optimizer: keras.Optimizer):
        self.folder, self.name = folder, name
        self.checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)

    def restore(self) -> int:
        """Restores the latest checkpoint; returns the number of batches it has seen."""
        self.folder.read(self.checkpoint, lambda status: status.assert_consumed())
        found, prefix = self.folder.record(), self.folder.latest().name
        if not found.outputs:  # a run was killed amid this save, which ends here
            self.folder.write(prefix, found, saved=True)
        return found.step

    @cached_property
    def manager(self) -> tf.train.CheckpointManager:
        return tf.train.CheckpointManager(self.checkpoint, self.folder.path, KEPT, checkpoint_name=self.name)

    def save(self, record: Record) -> None:
        """Saves, with a record. Raises InputError if that cannot be written; the checkpoint before is intact."""
        prefix, before = f"{self.name}-{record.step}", self.folder.exists
        try:
            self.folder.write(prefix, record, saved=False)  # first: a checkpoint without its record cannot be used
            self.manager.save(checkpoint_number=record.step)
            self.folder.write(prefix, record, saved=True)
            self.folder.remove_but(self.folder.prefixes[:KEPT])
        except (tf.errors.OpError, OSError) as error:
            self.folder.prepare(anew=False)
            kept = "the one before is intact" if before else "there is none before it"
            is_limit = os.strerror(errno.EFBIG) in str(error)  # TensorFlow's errors have no number
            advice = files.FILE_TOO_LARGE_ADVICE if is_limit else "Make room for it and repeat the command."
            raise InputError(
                f"{self.folder.path} cannot take a checkpoint at iteration {record.step} ({short(error)}); {kept}. "
                f"{advice}"
            ) from error


def restored_network(run: Run) -> keras.Model:
    """The trained network, of a checkpoint or a bundle. Raises InputError if its training diverged."""
    network = run.model.build_network(run.config, run.cohort)
    run.checkpoints.restore(network)
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
    """The part of a network that a run computes, and what it reads. The cohort keeps the means of volumes over parcels,
    so the layers that give them need not be computed. `tables` are these means, and connectomes."""

    run: Run
    network: keras.Model
    tables: dict[str, Any]

    def batches(self, selections: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """The batches of each selection of records, see `Model.read_batches`."""
        volumes = "volume" in self.network.input
        return self.run.model.read_batches(self.run.cohort, selections, volumes, self.tables)

    def inputs(self, batch: dict) -> dict:
        """What the network reads of a batch."""
        return {name: batch[name] for name in self.network.input}


def reading(run: Run, network: keras.Model, volumes: bool = False) -> Reading:
    """How a run reads records for a network: means of volumes where it begins with these, unless it needs `volumes`."""
    rest, parcels = (network, []) if volumes else split_after_means(network)
    tables: dict[str, Any] = {}
    if parcels:
        tables |= zip((one.name for one in parcels), load_parcel_means(run.cohort, parcels), strict=True)
    if run.cohort.connectomes and "connectome" in network.input:
        tables["connectome"] = run.cohort.connectomes
    return Reading(run, rest, tables)


def split_after_means(network: keras.Model) -> tuple[keras.Model, list[Parcels]]:
    """The network after its first layers, and the parcels over which these average the volume. It takes the means by
    the names of the parcels. If other layers read the volume too: the network itself, and no parcels."""
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
    grid = GRID_BY_SHAPE.get(tuple(layer.input.shape[1:4]))
    if isinstance(layer, keras.layers.AveragePooling3D) and grid and layer.padding == "same":
        return make_cube_parcels(grid, layer.pool_size[0])
    return None


def outputs_of(
    run: Run, network: keras.Model, selections: list[np.ndarray], title: str = "", others: Sequence[Cohort] = ()
) -> Iterator[tuple[np.ndarray, dict, Any]]:
    """For each selection of records: it, the batch (see `Model.read_batches`), and the network's outputs in NumPy;
    then the same with the phenotype of each of the `others`. Without a `title` no progress is shown."""
    reader = reading(run, network)
    forward = tf.function(lambda inputs: reader.network(inputs, training=False), reduce_retracing=True)
    with open_progress_bar(title, sum(map(len, selections))) if title else nullcontext() as shown:
        for selection, batch in zip(selections, reader.batches(selections), strict=True):
            for other in ({}, *(of.make_batch(selection, with_volumes=False) for of in others)):
                outputs = forward(reader.inputs(batch | other))
                outputs = tf.nest.map_structure(lambda tensor: tensor.numpy(), outputs)
                check_finite(run, "outputs", outputs)
                yield selection, batch | other, outputs
            if shown:
                shown.advance(steps=len(selection))


def predicted(run: Run, network: keras.Model, batches: list[np.ndarray], others: Sequence[Cohort] = ()) -> np.ndarray:
    """Probabilities of autism of the records in all batches (1 + others, n), also with the phenotype of `others`."""
    logits = [outputs for _, _, outputs in outputs_of(run, network, batches, "Testing", others)]
    count = 1 + len(others)
    return probability_of_autism(np.stack([np.concatenate(logits[at::count]) for at in range(count)]))


def logit_of_autism(logits: np.ndarray) -> np.ndarray:
    """Logits of (control, autism) (..., 2) -> the log odds of autism, (...) float64."""
    return logits[..., 1].astype(float) - logits[..., 0]


def probability_of_autism(logits: np.ndarray) -> np.ndarray:
    """(..., 2) logits of (control, autism) -> (...) float64."""
    return expit(logit_of_autism(np.asarray(logits, np.float64)))
