"""Exact occlusion of classifiers that read the volume by averages alone: means of regions, or of cubes of voxels.

Averages are linear: replacing a region changes each by the sum of the differences at its voxels, times their weight.
From there on the network computes many regions of all records at once.

Volumes are (batch, x, y, z, maps), averages (batch, ..., maps), masks (x, y, z).
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import KerasTensor, layers
from scipy import sparse

from models.averaging import AveragedBranch, MeanOfLogits
from models.layers import RegionMeans
from utils.blackout.graph import GraphNode, feeds, find_volume_input, list_graph_nodes

ArrayByTensor = dict[KerasTensor, np.ndarray]
MAX_CHANGED_BYTES = 2**24  # of what regions change that passes through the network at once


def split_masks(region_masks: Sequence[np.ndarray], bytes_per_mask: int) -> list[np.ndarray]:
    """Masks in groups that need about `MAX_CHANGED_BYTES`, or one by one."""
    filled_group_count = math.ceil(len(region_masks) * bytes_per_mask / MAX_CHANGED_BYTES)
    return np.array_split(region_masks, min(len(region_masks), filled_group_count))


class IntactPass(NamedTuple):
    """The pass of a batch with nothing occluded."""

    intact_volume: np.ndarray  # (batch, x, y, z, maps)
    array_by_tensor: ArrayByTensor  # the averages and all inputs
    intact_logits: np.ndarray  # (batch, classes)
    added_logits_by_branch: list[np.ndarray]  # what a branch adds to them by its inputs, (batch, inputs, classes)


def is_averaging_layer(reading_layer: keras.Layer) -> bool:
    """Whether a layer averages voxels of each map, none of them twice, in float32."""
    is_cube_pooling = (
        type(reading_layer) is layers.AveragePooling3D and reading_layer.strides == reading_layer.pool_size
    )
    return (is_cube_pooling or type(reading_layer) is RegionMeans) and reading_layer.compute_dtype == "float32"


def find_averaging_nodes(network: keras.Model) -> list[GraphNode]:
    """The uses of layers that read the volume of a classifier, if all of them average voxels; otherwise none."""
    volume_reading_nodes = [
        node for node in list_graph_nodes(network) if find_volume_input(network) in node.input_tensors
    ]
    is_all_averaging = all(is_averaging_layer(node.operation) for node in volume_reading_nodes)
    return volume_reading_nodes if is_all_averaging and isinstance(network.layers[-1], MeanOfLogits) else []


class VoxelAverages(NamedTuple):
    """How a layer averages voxels of each map: for each voxel (voxels,) the number of its average, and its weight
    there, 0 if it is in none."""

    average_index_by_voxel: np.ndarray  # (voxels,) int
    weight_by_voxel: np.ndarray  # (voxels,), 0 for a voxel in no average

    @classmethod
    def from_layer(cls, averaging_layer: keras.Layer, grid_shape: tuple[int, ...]) -> "VoxelAverages":
        """The averages of a layer that takes no voxel twice.

        The gradient of the sum of all averages is each voxel's weight. If each average is multiplied by its number, the
        gradient is the weight times the number of the voxel's average.
        """
        zero_volume = tf.zeros((1, *grid_shape, 2))
        with tf.GradientTape() as gradient_tape:
            gradient_tape.watch(zero_volume)
            zero_volume_averages = averaging_layer(zero_volume)
        average_count = math.prod(zero_volume_averages.shape[1:-1])
        output_factors = np.stack([np.ones(average_count), np.arange(average_count)], axis=1).astype(np.float32)
        shaped_factors = tf.reshape(output_factors, zero_volume_averages.shape)
        voxel_gradient = tf.convert_to_tensor(gradient_tape.gradient(zero_volume_averages, zero_volume, shaped_factors))
        voxel_weights, index_weighted_gradient = voxel_gradient.numpy().reshape(-1, 2).T
        nonzero_weights = np.where(voxel_weights == 0, 1, voxel_weights)
        return cls(np.rint(index_weighted_gradient / nonzero_weights).astype(int), voxel_weights)

    def find_changed_averages(self, voxel_mask: np.ndarray) -> tuple[np.ndarray, sparse.csr_array]:
        """The averages (n,) int that voxels of a mask (voxels,) are in, and the weights (n, voxels) of these there."""
        (voxel_indices,) = np.nonzero(voxel_mask & (self.weight_by_voxel != 0))
        average_indices, average_positions = np.unique(self.average_index_by_voxel[voxel_indices], return_inverse=True)
        average_weights = sparse.csr_array(
            (self.weight_by_voxel[voxel_indices], (average_positions, voxel_indices)),
            (len(average_indices), len(voxel_mask)),
        )
        return average_indices, average_weights


class VolumeBranch:
    """A part of a classifier: the values of its `source_tensors` -> what each of its inputs adds to the mean of the
    logits."""

    def __init__(
        self,
        branch: AveragedBranch,
        branch_weight: float,
        logits_tensor: KerasTensor,
        source_tensors: list[KerasTensor],
    ):
        self.source_tensors = source_tensors
        self.input_count = branch.input_count
        branch_network = keras.Function(source_tensors, logits_tensor)

        def compute_added_logits(source_values: list[tf.Tensor]) -> tf.Tensor:
            branch_logits = branch_network(source_values)
            logits_by_input = tf.reshape(
                branch_logits,
                (-1, branch.input_count, branch_logits.shape[1] // branch.input_count, branch_logits.shape[2]),
            )
            return tf.reduce_mean(logits_by_input, 2) * (branch_weight / branch.input_count)

        self._compute_added_logits = tf.function(compute_added_logits, reduce_retracing=True)

    def compute_added_logits(self, array_by_tensor: ArrayByTensor) -> np.ndarray:
        """Values (masks, batch, ...) by source -> (masks, batch, inputs, classes)."""
        source_arrays = [array_by_tensor[source_tensor] for source_tensor in self.source_tensors]
        # (masks * batch, ...) each
        merged_batch_tensors = [
            tf.constant(source_array.reshape(-1, *source_array.shape[2:])) for source_array in source_arrays
        ]
        added_logits = self._compute_added_logits(merged_batch_tensors).numpy()
        return added_logits.reshape(*source_arrays[0].shape[:2], self.input_count, -1)


class FeatureOcclusion:
    """The logits of a classifier with regions of the volume occluded; its methods are those of `LocalOcclusion`. Only
    the `averaging_nodes`, see `find_averaging_nodes`, read the volume."""

    recomputed_layer_names: tuple[str, ...] = ()

    def __init__(self, network: keras.Model, averaging_nodes: list[GraphNode]):
        volume_tensor = find_volume_input(network)
        graph_nodes = list_graph_nodes(network)
        logits_mean_layer = network.layers[-1]
        grid_shape = volume_tensor.shape[1:4]
        self._map_count = volume_tensor.shape[-1]
        self._input_tensors = network.inputs
        self._voxel_averages_by_tensor = {
            node.output_tensors[0]: VoxelAverages.from_layer(node.operation, grid_shape) for node in averaging_nodes
        }
        intact_function = keras.Function(network.inputs, [*network.outputs, *self._voxel_averages_by_tensor])
        self._run_intact_network = tf.function(intact_function, reduce_retracing=True)
        # the same masks come with each batch and each fill
        self._find_changed_averages = cache(
            lambda averages_tensor, mask_bytes: self._voxel_averages_by_tensor[averages_tensor].find_changed_averages(
                np.frombuffer(mask_bytes, bool)
            )
        )
        # What a branch may read: averages of the volume, and all inputs besides the volume
        further_input_tensors = [tensor for tensor in network.inputs if tensor is not volume_tensor]
        source_tensors = [*self._voxel_averages_by_tensor, *further_input_tensors]
        self._volume_branches = []
        for branch, branch_weight, logits_tensor in zip(
            logits_mean_layer.branches,
            logits_mean_layer.branch_weights,
            keras.tree.flatten(logits_mean_layer.input),
            strict=True,
        ):
            if feeds(graph_nodes, volume_tensor, logits_tensor):
                branch_sources = [tensor for tensor in source_tensors if feeds(graph_nodes, tensor, logits_tensor)]
                self._volume_branches.append(VolumeBranch(branch, branch_weight, logits_tensor, branch_sources))

    def run_intact(self, input_by_name: dict[str, np.ndarray]) -> Any:
        array_by_tensor = {tensor: input_by_name[tensor.name] for tensor in self._input_tensors}
        output_tensors = self._run_intact_network([*map(tf.constant, array_by_tensor.values())])
        intact_logits, *average_arrays = (output_tensor.numpy() for output_tensor in output_tensors)
        array_by_tensor |= zip(self._voxel_averages_by_tensor, average_arrays, strict=True)

        # What branches add with nothing replaced, as if by a single mask
        single_mask_arrays = {
            source_tensor: source_values[None] for source_tensor, source_values in array_by_tensor.items()
        }
        added_logits_by_branch = [
            branch.compute_added_logits(single_mask_arrays)[0] for branch in self._volume_branches
        ]
        return IntactPass(input_by_name["volume"], array_by_tensor, intact_logits, added_logits_by_branch)

    def get_intact_logits(self, intact_pass: IntactPass) -> np.ndarray:
        return intact_pass.intact_logits

    def compute_occluded_logits(
        self, intact_pass: IntactPass, fill_volume: np.ndarray, region_masks: Sequence[np.ndarray]
    ) -> np.ndarray:
        return self.compute_logits_by_map(intact_pass, fill_volume, region_masks, ())[0]

    def compute_logits_by_map(
        self,
        intact_pass: IntactPass,
        fill_volume: np.ndarray,
        region_masks: Sequence[np.ndarray],
        map_indices: Sequence[int],
    ) -> tuple[np.ndarray, np.ndarray]:
        intact_volume = intact_pass.intact_volume
        fill_differences = (np.asarray(fill_volume, np.float32) - intact_volume).reshape(
            len(intact_volume), -1, self._map_count
        )  # (batch, voxels, maps)
        fill_differences_by_voxel = np.ascontiguousarray(fill_differences.swapaxes(0, 1)).reshape(
            fill_differences.shape[1], -1
        )  # (voxels, batch * maps)
        bytes_per_mask = sum(
            intact_pass.array_by_tensor[averages_tensor].nbytes for averages_tensor in self._voxel_averages_by_tensor
        )
        all_maps_groups = []
        single_map_groups = []
        for mask_group in split_masks(region_masks, bytes_per_mask):
            replaced_array_by_tensor = self._replace_voxels(intact_pass, fill_differences_by_voxel, mask_group)
            all_maps_logits, single_map_logits = self._compute_replaced_logits(
                intact_pass, replaced_array_by_tensor, list(map_indices)
            )
            all_maps_groups.append(all_maps_logits)
            single_map_groups.append(single_map_logits)
        return np.concatenate(all_maps_groups), np.concatenate(single_map_groups)

    def _replace_voxels(
        self, intact_pass: IntactPass, fill_differences_by_voxel: np.ndarray, region_masks: np.ndarray
    ) -> ArrayByTensor:
        """Return what is read, (masks, batch, ...), with each mask's voxels replaced, which adds the differences
        `fill_differences_by_voxel` (voxels, batch * maps) to them."""
        replaced_array_by_tensor = {
            source_tensor: np.broadcast_to(intact_values, (len(region_masks), *intact_values.shape))
            for source_tensor, intact_values in intact_pass.array_by_tensor.items()
        }
        for source_tensor in self._voxel_averages_by_tensor:
            intact_averages = intact_pass.array_by_tensor[source_tensor]
            replaced_averages = np.repeat(
                intact_averages.reshape(1, len(intact_averages), -1, self._map_count), len(region_masks), axis=0
            )
            for mask_averages, region_mask in zip(replaced_averages, region_masks, strict=True):
                changed_average_indices, average_weights = self._find_changed_averages(
                    source_tensor, region_mask.tobytes()
                )
                average_changes = average_weights @ fill_differences_by_voxel
                mask_averages[:, changed_average_indices] += average_changes.reshape(
                    len(changed_average_indices), len(intact_averages), self._map_count
                ).swapaxes(0, 1)
            replaced_array_by_tensor[source_tensor] = replaced_averages.reshape(
                len(region_masks), *intact_averages.shape
            )
        return replaced_array_by_tensor

    def _compute_replaced_logits(
        self, intact_pass: IntactPass, replaced_array_by_tensor: ArrayByTensor, map_indices: list[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the logits with voxels replaced in all maps, (masks, batch, classes), and with those of one of
        `map_indices` alone replaced, (masks, batch, maps, classes).

        What a network that reads one map adds to the logits is due to this map. Parts that read all maps are then given
        the replaced averages of one map and the intact ones of all others.
        """
        logit_changes_by_branch = [
            branch.compute_added_logits(replaced_array_by_tensor) - intact_added_logits
            for branch, intact_added_logits in zip(
                self._volume_branches, intact_pass.added_logits_by_branch, strict=True
            )
        ]
        all_maps_logits = intact_pass.intact_logits + sum(
            branch_logit_changes.sum(2) for branch_logit_changes in logit_changes_by_branch
        )
        # Changes of one map at a time are added to the intact logits, (masks, batch, maps, classes)
        logits_with_one_map_replaced = np.repeat(
            intact_pass.intact_logits[None, :, None], len(all_maps_logits), axis=0
        ).repeat(len(map_indices), axis=2)
        for branch, intact_added_logits, branch_logit_changes in zip(
            self._volume_branches, intact_pass.added_logits_by_branch, logit_changes_by_branch, strict=True
        ):
            if branch.input_count == self._map_count:
                logits_with_one_map_replaced += branch_logit_changes[:, :, map_indices]
                continue
            average_tensors = self._voxel_averages_by_tensor.keys() & branch.source_tensors
            for map_position, map_index in enumerate(map_indices):
                is_replaced_map = np.arange(self._map_count) == map_index
                mixed_array_by_tensor = dict(replaced_array_by_tensor)
                for averages_tensor in average_tensors:
                    mixed_array_by_tensor[averages_tensor] = np.where(
                        is_replaced_map,
                        replaced_array_by_tensor[averages_tensor],
                        intact_pass.array_by_tensor[averages_tensor],
                    )
                mixed_added_logits = branch.compute_added_logits(mixed_array_by_tensor)
                map_logit_changes = (mixed_added_logits - intact_added_logits).sum(2)
                logits_with_one_map_replaced[:, :, map_position] += map_logit_changes
        return all_maps_logits, logits_with_one_map_replaced
