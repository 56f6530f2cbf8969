"""Exact logits of a network with regions of the volume replaced, without a full pass for each.

Occluding a region means that its voxels are replaced by those of a fill: the background's value, or another volume. The
plain way is one full forward pass per record, region and fill. Classifiers that only average the volume at first, as
the default does, need much less (`features.py`). For all others, a batch of records passes through the network once;
its activations are kept, and a region then only updates the part of every activation that its change can reach.

Reach.      A box per activation, the same for all records. It is the region's bounding box, clipped to the grid and
            widened at every convolution and pooling by its kernel, stride, padding and dilation. The layers and their
            order are read from the Keras graph. Layers that flatten or average the volume, and layers unknown here,
            need the whole activation. With all that follows they are the tail, computed for many regions at once.
Exactness.  Nothing is approximated: outside the reach an activation cannot change, inside it is recomputed. The
            logits differ from those of a full pass by the rounding of the layers' own number format alone.

Volumes are (batch, x, y, z, maps), activations (batch, x, y, z, channels), masks (x, y, z); boxes as in `steps`.
"""

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import KerasTensor, layers

from models.layers import RegionMeans, SplitMembers
from utils.blackout.features import FeatureOcclusion, find_averaging_nodes, split_masks
from utils.blackout.graph import GraphNode, find_volume_input, follow_volume, list_graph_nodes
from utils.blackout.steps import Box, Step, StepPlan, find_hull, paste_box, slice_box

VOLUME_RANK = 5  # of a tensor with the axes of a volume
IntactActivations = dict[KerasTensor, tf.Tensor]  # activations of a batch with nothing occluded
WHOLE_VOLUME_LAYERS = (
    layers.Flatten, SplitMembers, RegionMeans,
    layers.GlobalMaxPooling3D, layers.GlobalAveragePooling3D, layers.AveragePooling3D,
)  # fmt: skip
OCCLUSION_THREAD_COUNT = 3  # one region's copying runs beside the others' convolutions
MAX_CACHED_PLANS = 2048  # kept, so that a region is planned once for all batches and fills


class RegionPlan(NamedTuple):
    """Where a region's change goes, in boxes. For every region it has the same form."""

    volume_box: Box  # what is read of the volume
    step_plans: list[StepPlan]
    changed_tail_input_boxes: list[Box]  # of each changed input of the tail, where it changes
    changed_boxes_in_computed_tail_inputs: list[Box]  # the same box within what was computed of it


class LocalOcclusion:
    """The logits of a functional model with regions of the volume occluded.

    The model has the input "volume" (batch, x, y, z, maps), perhaps others, which occlusion leaves alone, and the
    output logits (batch, classes). `recomputed_layer_names` names layers that are recomputed as a whole for each
    region: those of a kind unknown here, and those after them.
    """

    def __init__(self, network: keras.Model):
        self._volume_tensor = find_volume_input(network)
        self._input_tensors = network.inputs
        self._local_steps, tail_nodes, affected_tensors = follow_volume(list_graph_nodes(network), self._volume_tensor)
        self.recomputed_layer_names = list_recomputed_layer_names(tail_nodes, affected_tensors)
        # The tail reads activations, which a region changes, and what no region changes.
        tail_output_tensors = {tensor for node in tail_nodes for tensor in node.output_tensors}
        tail_input_tensors = [tensor for node in tail_nodes for tensor in node.input_tensors]
        tail_read_tensors = dict.fromkeys([*tail_input_tensors, *network.outputs])
        self._changed_tail_inputs = [
            tensor for tensor in tail_read_tensors if tensor in affected_tensors - tail_output_tensors
        ]
        self._constant_tail_inputs = [tensor for tensor in tail_read_tensors if tensor not in affected_tensors]
        tail_function = keras.Function(self._changed_tail_inputs + self._constant_tail_inputs, network.outputs[0])
        self._run_tail = tf.function(tail_function, reduce_retracing=True)
        cached_target_tensors = [step.target_tensor for step in self._local_steps if step.is_target_cached]
        self._cached_tensors = [
            *dict.fromkeys(
                [self._volume_tensor, *self._changed_tail_inputs, *self._constant_tail_inputs, *cached_target_tensors]
            )
        ]
        self._run_intact_network = tf.function(
            keras.Function(network.inputs, self._cached_tensors), reduce_retracing=True
        )
        self._plan_template = self._make_plan(np.array([[0, 0, 0], [1, 1, 1]]))
        self._get_packed_plan = lru_cache(MAX_CACHED_PLANS)(self._make_packed_plan)

    def run_intact(self, input_by_name: dict[str, np.ndarray]) -> Any:
        """Run a batch with nothing occluded and return the activations from which any occlusion of it follows.

        They take memory: pass batches of 16 or so at full resolution.
        """
        input_values = [tf.constant(input_by_name[tensor.name]) for tensor in self._input_tensors]
        return dict(zip(self._cached_tensors, self._run_intact_network(input_values), strict=True))

    def get_intact_logits(self, intact_pass: IntactActivations) -> np.ndarray:
        """Return the logits (batch, classes) with nothing occluded."""
        return self._run_tail(
            [intact_pass[tensor] for tensor in self._changed_tail_inputs + self._constant_tail_inputs]
        ).numpy()

    def compute_occluded_logits(
        self, intact_pass: IntactActivations, fill_volume: np.ndarray, region_masks: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Return the logits (masks, batch, classes) with each mask's voxels taken from `fill_volume`.

        `fill_volume` is one volume per record, or broadcasts to that: (batch, 1, 1, 1, 1) is one value per record.
        Masks are (x, y, z) bool; they may overlap, and be of any number.
        """
        volume_values = intact_pass[self._volume_tensor]
        full_fill_volume = tf.broadcast_to(tf.cast(fill_volume, volume_values.dtype), tf.shape(volume_values))
        occlude_region = partial(self._occlude_region, intact_pass, full_fill_volume)
        bytes_per_mask = sum(
            intact_pass[tensor].dtype.size * intact_pass[tensor].shape.num_elements()
            for tensor in self._changed_tail_inputs
        )
        logits_by_group = []
        with ThreadPoolExecutor(OCCLUSION_THREAD_COUNT) as thread_pool:
            for mask_group in split_masks(region_masks, bytes_per_mask):
                # Regions follow one another along the batch axis: (masks * batch, ...) each
                tail_inputs_by_region = [*thread_pool.map(occlude_region, mask_group)]
                changed_activations = [
                    tf.concat(region_activations, 0) for region_activations in zip(*tail_inputs_by_region, strict=True)
                ]
                constant_activations = [
                    tf.concat([intact_pass[tensor]] * len(mask_group), 0) for tensor in self._constant_tail_inputs
                ]
                group_logits = self._run_tail(changed_activations + constant_activations).numpy()
                logits_by_group.append(group_logits.reshape(len(mask_group), volume_values.shape[0], -1))
        return np.concatenate(logits_by_group)

    def compute_logits_by_map(
        self,
        intact_pass: IntactActivations,
        fill_volume: np.ndarray,
        region_masks: Sequence[np.ndarray],
        map_indices: Sequence[int],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return `compute_occluded_logits`, and the logits (masks, batch, maps, classes) with each mask's voxels taken
        from `fill_volume` in one of `map_indices` alone."""
        volume_values = intact_pass[self._volume_tensor].numpy()
        all_maps_logits = self.compute_occluded_logits(intact_pass, fill_volume, region_masks)
        single_map_logits = np.repeat(all_maps_logits[:, :, None], len(map_indices), axis=2)
        for map_position, map_index in enumerate(map_indices):
            mixed_volume = np.where(np.arange(volume_values.shape[-1]) == map_index, fill_volume, volume_values)
            single_map_logits[:, :, map_position] = self.compute_occluded_logits(
                intact_pass, mixed_volume, region_masks
            )
        return all_maps_logits, single_map_logits

    def _occlude_region(
        self, intact_pass: IntactActivations, fill_volume: tf.Tensor, region_mask: np.ndarray
    ) -> list[tf.Tensor]:
        """Return the inputs of the tail that occlusion of `region_mask` changes."""
        if not region_mask.any():
            return [intact_pass[tensor] for tensor in self._changed_tail_inputs]
        bounds_by_axis = []  # of the region's bounding box
        for spatial_axis in range(3):
            further_axes = tuple({0, 1, 2} - {spatial_axis})
            region_indices = np.flatnonzero(region_mask.any(further_axes))
            bounds_by_axis.append((int(region_indices[0]), int(region_indices[-1]) + 1))
        packed_plan = self._get_packed_plan(tuple(bounds_by_axis))
        return self._update_activations(list(intact_pass.values()), fill_volume, region_mask, packed_plan)

    def _make_packed_plan(self, bounds_by_axis: tuple[tuple[int, int], ...]) -> tf.Tensor:
        """Return the plan of a change between these indices along x, y and z. It is one tensor (boxes * 2, 5) int32,
        which TensorFlow takes faster than many."""
        plan_boxes = np.concatenate(tf.nest.flatten(self._make_plan(np.array(bounds_by_axis).T)))
        return tf.constant(np.pad(plan_boxes, ((0, 0), (1, 1))).astype(np.int32))

    def _make_plan(self, volume_box: np.ndarray) -> RegionPlan:
        """Return the plan of a change of the volume in `volume_box`: first, how far it reaches; then backwards, which
        box of each activation the steps that read it need."""
        # Forwards: how far the change reaches
        reach_by_tensor = {self._volume_tensor: volume_box}
        for step in self._local_steps:
            source_reach = find_hull([reach_by_tensor[source_tensor] for source_tensor in step.source_tensors])
            reach_by_tensor[step.target_tensor] = step.propagate_reach(source_reach)

        # Backwards: what is computed of each activation is the hull of what its readers need
        read_boxes_by_tensor = defaultdict[KerasTensor, list[np.ndarray]](list)
        for tensor in self._changed_tail_inputs:
            read_boxes_by_tensor[tensor].append(reach_by_tensor[tensor])
        computed_box_by_tensor = {}
        boxes_by_target = {}
        for step in reversed(self._local_steps):
            target_box = find_hull(read_boxes_by_tensor[step.target_tensor])
            step_boxes = step.find_boxes(reach_by_tensor[step.source_tensors[0]], target_box)
            for source_tensor in step.source_tensors:
                read_boxes_by_tensor[source_tensor].append(step_boxes.source_box)
            computed_box_by_tensor[step.target_tensor] = target_box
            boxes_by_target[step.target_tensor] = step_boxes
        computed_box_by_tensor[self._volume_tensor] = find_hull(read_boxes_by_tensor[self._volume_tensor])

        # Boxes to read are relative to what was computed of an activation
        step_plans = []
        for step in self._local_steps:
            step_boxes = boxes_by_target[step.target_tensor]
            relative_source_boxes = [
                step_boxes.source_box - computed_box_by_tensor[source_tensor][0]
                for source_tensor in step.source_tensors
            ]
            step_plan = StepPlan(
                relative_source_boxes,
                computed_box_by_tensor[step.target_tensor],
                step_boxes.used_difference_box,
                step_boxes.padding_widths,
            )
            step_plans.append(step_plan)
        return RegionPlan(
            volume_box=computed_box_by_tensor[self._volume_tensor],
            step_plans=step_plans,
            changed_tail_input_boxes=[reach_by_tensor[tensor] for tensor in self._changed_tail_inputs],
            changed_boxes_in_computed_tail_inputs=[
                reach_by_tensor[tensor] - computed_box_by_tensor[tensor][0] for tensor in self._changed_tail_inputs
            ],
        )

    @tf.function(reduce_retracing=True)
    def _update_activations(
        self,
        intact_activations: list[tf.Tensor],
        fill_volume: tf.Tensor,
        region_mask: tf.Tensor,
        packed_plan: tf.Tensor,
    ) -> list[tf.Tensor]:
        """Return the inputs of the tail that occlusion of `region_mask` changes, given its plan."""
        intact_activation_by_tensor = dict(zip(self._cached_tensors, intact_activations, strict=True))
        region_plan = self._unpack_plan(packed_plan)

        # The volume, before and after occlusion
        intact_volume = slice_box(intact_activation_by_tensor[self._volume_tensor], region_plan.volume_box)
        fill_values = slice_box(fill_volume, region_plan.volume_box)
        is_inside_region = slice_box(region_mask[None, ..., None], region_plan.volume_box)
        intact_by_tensor = {self._volume_tensor: intact_volume}
        occluded_by_tensor = {self._volume_tensor: tf.where(is_inside_region, fill_values, intact_volume)}

        # Step by step, what each layer computes before and after
        for step, step_plan in zip(self._local_steps, region_plan.step_plans, strict=True):
            intact_sources = slice_sources(intact_by_tensor, step, step_plan)
            occluded_sources = slice_sources(occluded_by_tensor, step, step_plan)
            if step.is_target_cached:
                intact_target = slice_box(intact_activation_by_tensor[step.target_tensor], step_plan.target_box)
            else:
                intact_target = step.update_target(intact_sources, intact_sources, None, step_plan)
            intact_by_tensor[step.target_tensor] = intact_target
            occluded_by_tensor[step.target_tensor] = step.update_target(
                occluded_sources, intact_sources, intact_target, step_plan
            )

        # What the tail reads
        changed_activations = []
        for tensor, changed_box, box_in_computed_input in zip(
            self._changed_tail_inputs,
            region_plan.changed_tail_input_boxes,
            region_plan.changed_boxes_in_computed_tail_inputs,
            strict=True,
        ):
            changed_values = slice_box(occluded_by_tensor[tensor], box_in_computed_input)
            changed_activations.append(paste_box(intact_activation_by_tensor[tensor], changed_box, changed_values))
        return changed_activations

    def _unpack_plan(self, packed_plan: tf.Tensor) -> RegionPlan:
        """Return the plan that `_make_packed_plan` made one tensor of."""
        box_starts_and_ends = tf.unstack(packed_plan)
        boxes = [*zip(box_starts_and_ends[::2], box_starts_and_ends[1::2], strict=True)]
        return tf.nest.pack_sequence_as(self._plan_template, boxes)


def list_recomputed_layer_names(tail_nodes: list[GraphNode], affected_tensors: set[KerasTensor]) -> tuple[str, ...]:
    """The layers of the tail of a kind that is not known to need the whole volume, and that read an affected volume."""
    layer_names = []
    for node in tail_nodes:
        reads_affected_volume = any(
            len(tensor.shape) == VOLUME_RANK and tensor in affected_tensors for tensor in node.input_tensors
        )
        if reads_affected_volume and not isinstance(node.operation, WHOLE_VOLUME_LAYERS):
            layer_names.append(node.operation.name)
    return tuple(layer_names)


def slice_sources(values_by_tensor: dict[KerasTensor, tf.Tensor], step: Step, step_plan: StepPlan) -> list[tf.Tensor]:
    """What a step reads of its sources."""
    return [
        slice_box(values_by_tensor[source_tensor], source_box)
        for source_tensor, source_box in zip(step.source_tensors, step_plan.source_boxes, strict=True)
    ]


Occlusion = LocalOcclusion | FeatureOcclusion


def make_occlusion(network: keras.Model) -> Occlusion:
    """The exact occlusion of a network with the input "volume", with its weights as they are now."""
    averaging_nodes = find_averaging_nodes(network)
    return FeatureOcclusion(network, averaging_nodes) if averaging_nodes else LocalOcclusion(network)
