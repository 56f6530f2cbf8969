"""A trained network over records: it is restored, and run over a cohort.

What averages volumes over parcels is not run again for each batch: the cohort keeps these means.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.special import expit

from data.base.errors import InputError
from data.base.terminal import open_progress_bar
from data.cohorts.cohort import Cohort
from data.cohorts.parcel_means import load_parcel_means
from data.images.grids import GRID_BY_SHAPE
from data.images.parcels import Parcels, make_cube_parcels
from models import Model
from models.layers import RegionMeans
from utils.runs.weights import TrainedNetwork


def restore_network(trained_network: TrainedNetwork, cohort: Cohort) -> keras.Model:
    """The trained network, of a checkpoint or a bundle, for the records of a cohort. Raises InputError if its training
    diverged."""
    network = trained_network.model.build_network(trained_network.config, cohort)
    trained_network.weights.restore_latest_weights(network)
    check_network_finite(trained_network, "weights", network.get_weights())
    return network


def check_network_finite(trained_network: TrainedNetwork, array_kind: str, nested_arrays: Any) -> None:
    """Raises InputError if an array in `nested_arrays`, nested in any way, holds NaN or infinity."""
    if not all(np.isfinite(array).all() for array in tf.nest.flatten(nested_arrays)):
        raise InputError(
            f"{trained_network.weights.path} has {array_kind} that are not finite: its training diverged. Train again "
            f"with a smaller learning rate: {trained_network.weights.training_command} --overrideChkpt "
            f"--set learning_rate={trained_network.config.learning_rate / 10:g}"
        )


@dataclass(frozen=True)
class NetworkReader:
    """The part of a network that is computed, and what it reads. The cohort keeps the means of volumes over parcels,
    so the layers that give them need not be computed. `table_by_input` holds these means, and connectomes."""

    model: Model
    cohort: Cohort
    network: keras.Model  # without layers whose parcel averages the cohort keeps
    table_by_input: dict[str, Any]  # parcel means or connectomes, a row a record

    def read_batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """The batches of each selection of records, see `Model.read_batches`."""
        needs_volumes = "volume" in self.network.input
        return self.model.read_batches(self.cohort, index_batches, needs_volumes, self.table_by_input)

    def select_inputs(self, batch: dict) -> dict:
        """What the network reads of a batch."""
        return {input_name: batch[input_name] for input_name in self.network.input}


def make_network_reader(
    model: Model, cohort: Cohort, network: keras.Model, needs_volumes: bool = False
) -> NetworkReader:
    """How the records of a cohort are read for a network: means of volumes where it begins with these, unless
    `needs_volumes`."""
    table_by_input: dict[str, Any] = {}
    remaining_network = network
    if not needs_volumes:
        remaining_network, parcel_sets = split_off_parcel_averages(network)
        if parcel_sets:
            for parcel_set, parcel_means in zip(parcel_sets, load_parcel_means(cohort, parcel_sets), strict=True):
                table_by_input[parcel_set.name] = parcel_means
    if cohort.connectomes and "connectome" in network.input:
        table_by_input["connectome"] = cohort.connectomes
    return NetworkReader(model, cohort, remaining_network, table_by_input)


def split_off_parcel_averages(network: keras.Model) -> tuple[keras.Model, list[Parcels]]:
    """The network after its first layers, and the parcels over which these average the volume. It takes the means by
    the names of the parcels. If other layers read the volume too: the network itself, and no parcels."""
    if not isinstance(network.input, dict) or "volume" not in network.input:
        return network, []
    volume_layers = [
        layer
        for layer in network.layers
        if not isinstance(layer, keras.layers.InputLayer) and layer.input is network.input["volume"]
    ]
    parcels_by_name = dict[str, Parcels]()
    means_tensor_by_name = dict[str, Any]()  # symbolic outputs of the averaging layers
    for layer in volume_layers:
        layer_parcels = find_averaged_parcels(layer)
        if layer_parcels:
            parcels_by_name[layer_parcels.name] = layer_parcels
            means_tensor_by_name[layer_parcels.name] = layer.output
    if not volume_layers or len(parcels_by_name) < len(volume_layers):
        return network, []

    for parcels_name, means_tensor in means_tensor_by_name.items():
        means_tensor.name = parcels_name
    remaining_input_tensors = {
        input_name: input_tensor for input_name, input_tensor in network.input.items() if input_name != "volume"
    }
    remaining_network = keras.Model(remaining_input_tensors | means_tensor_by_name, network.output)
    return remaining_network, list(parcels_by_name.values())


def find_averaged_parcels(layer: keras.Layer) -> Parcels | None:
    """What a layer averages a volume over; None if it does something else."""
    if isinstance(layer, RegionMeans):
        return layer.parcels
    grid = GRID_BY_SHAPE.get(tuple(layer.input.shape[1:4]))
    if isinstance(layer, keras.layers.AveragePooling3D) and grid and layer.padding == "same":
        return make_cube_parcels(grid, layer.pool_size[0])
    return None


def run_network(
    trained_network: TrainedNetwork,
    cohort: Cohort,
    network: keras.Model,
    index_batches: list[np.ndarray],
    progress_title: str = "",
    substitute_phenotype_cohorts: Sequence[Cohort] = (),
) -> Iterator[tuple[np.ndarray, dict, Any]]:
    """For each selection of records: it, the batch (see `Model.read_batches`), and the network's outputs in NumPy;
    then the same with the phenotype of each of the `substitute_phenotype_cohorts`. Without a `progress_title` no
    progress is shown."""
    reader = make_network_reader(trained_network.model, cohort, network)
    compute_outputs = tf.function(lambda inputs: reader.network(inputs, training=False), reduce_retracing=True)
    with (
        open_progress_bar(progress_title, sum(map(len, index_batches)))
        if progress_title
        else nullcontext() as progress_bar
    ):
        for batch_indices, batch in zip(index_batches, reader.read_batches(index_batches), strict=True):
            substitute_batches = [
                batch | substitute_cohort.make_batch(batch_indices, with_volumes=False)
                for substitute_cohort in substitute_phenotype_cohorts
            ]
            for read_batch in (batch, *substitute_batches):
                output_tensors = compute_outputs(reader.select_inputs(read_batch))
                outputs = tf.nest.map_structure(lambda tensor: tensor.numpy(), output_tensors)
                check_network_finite(trained_network, "outputs", outputs)
                yield batch_indices, read_batch, outputs
            if progress_bar:
                progress_bar.advance(steps=len(batch_indices))


def predict_probabilities(
    trained_network: TrainedNetwork,
    cohort: Cohort,
    network: keras.Model,
    index_batches: list[np.ndarray],
    substitute_phenotype_cohorts: Sequence[Cohort] = (),
) -> np.ndarray:
    """Probabilities of autism of the records in all batches (1 + cohorts, n): first as they are, then with
    the phenotype of each of the `substitute_phenotype_cohorts`."""
    logits_per_batch_and_cohort = [
        batch_logits
        for _, _, batch_logits in run_network(
            trained_network, cohort, network, index_batches, "Testing", substitute_phenotype_cohorts
        )
    ]
    cohort_count = 1 + len(substitute_phenotype_cohorts)
    logits_per_cohort = [
        np.concatenate(logits_per_batch_and_cohort[cohort_index::cohort_count]) for cohort_index in range(cohort_count)
    ]
    return compute_autism_probability(np.stack(logits_per_cohort))


def compute_autism_log_odds(logits: np.ndarray) -> np.ndarray:
    """Logits of (control, autism) (..., 2) -> the log odds of autism, (...) float64."""
    return logits[..., 1].astype(float) - logits[..., 0]


def compute_autism_probability(logits: np.ndarray) -> np.ndarray:
    """(..., 2) logits of (control, autism) -> (...) float64."""
    return expit(compute_autism_log_odds(np.asarray(logits, np.float64)))
