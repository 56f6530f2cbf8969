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
from utils.blackout.features import FeatureOcclusion, in_groups, readers_by_averages
from utils.blackout.graph import follow, nodes_of, volume_of
from utils.blackout.steps import Box, StepPlan, cut, hull, paste

RANK = 5  # of a tensor with the axes of a volume
Kept = dict[KerasTensor, tf.Tensor]  # activations of a batch with nothing occluded
WHOLE_VOLUME_LAYERS = (
    layers.Flatten, SplitMembers, RegionMeans,
    layers.GlobalMaxPooling3D, layers.GlobalAveragePooling3D, layers.AveragePooling3D,
)  # fmt: skip
THREADS = 3  # one region's copying runs beside the others' convolutions
PLANS = 2048  # kept, so that a region is planned once for all batches and fills


class RegionPlan(NamedTuple):
    """Where a region's change goes, in boxes. For every region it has the same form."""

    volume: Box  # what is read of the volume
    steps: list[StepPlan]
    changed: list[Box]  # of each input of the tail, where it changes
    held: list[Box]  # the same box within what was computed of it


class LocalOcclusion:
    """The logits of a functional model with regions of the volume occluded.

    The model has the input "volume" (batch, x, y, z, maps), perhaps others, which occlusion leaves alone, and the
    output logits (batch, classes). `recomputed_layers` names layers that are recomputed as a whole for each region:
    those of a kind unknown here, and those after them.
    """

    def __init__(self, network: keras.Model):
        self._volume, self._inputs = volume_of(network), network.inputs
        self._steps, others, affected = follow(nodes_of(network), self._volume)
        self.recomputed_layers = tuple(
            node.operation.name
            for node in others
            if not isinstance(node.operation, WHOLE_VOLUME_LAYERS)
            and any(len(tensor.shape) == RANK and tensor in affected for tensor in node.input_tensors)
        )
        # The tail reads activations, which a region changes, and what no region changes.
        computed = {tensor for node in others for tensor in node.output_tensors}
        read = dict.fromkeys([*(tensor for node in others for tensor in node.input_tensors), *network.outputs])
        self._changed = [tensor for tensor in read if tensor in affected - computed]
        self._constant = [tensor for tensor in read if tensor not in affected]
        tail = keras.Function(self._changed + self._constant, network.outputs[0])
        self._tail = tf.function(tail, reduce_retracing=True)
        read_again = [step.target for step in self._steps if step.is_kept]
        self._kept = [*dict.fromkeys([self._volume, *self._changed, *self._constant, *read_again])]
        self._whole = tf.function(keras.Function(network.inputs, self._kept), reduce_retracing=True)
        self._form = self._plan(np.array([[0, 0, 0], [1, 1, 1]]))
        self._packed = lru_cache(PLANS)(self._packed_plan)

    def keep(self, inputs: dict[str, np.ndarray]) -> Any:
        """Run a batch with nothing occluded and return the activations from which any occlusion of it follows.

        They take memory: pass batches of 16 or so at full resolution.
        """
        values = [tf.constant(inputs[tensor.name]) for tensor in self._inputs]
        return dict(zip(self._kept, self._whole(values), strict=True))

    def logits(self, kept: Kept) -> np.ndarray:
        """Return the logits (batch, classes) with nothing occluded."""
        return self._tail([kept[tensor] for tensor in self._changed + self._constant]).numpy()

    def occluded_logits(self, kept: Kept, fill: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
        """Return the logits (masks, batch, classes) with each mask's voxels taken from `fill`.

        `fill` is one volume per record, or broadcasts to that: (batch, 1, 1, 1, 1) is one value per record. Masks
        are (x, y, z) bool; they may overlap, and be of any number.
        """
        volume, found = kept[self._volume], []
        occlude = partial(self._occlude, kept, tf.broadcast_to(tf.cast(fill, volume.dtype), tf.shape(volume)))
        bytes_a_mask = sum(kept[tensor].dtype.size * kept[tensor].shape.num_elements() for tensor in self._changed)
        with ThreadPoolExecutor(THREADS) as threads:
            for group in in_groups(masks, bytes_a_mask):
                changed = [tf.concat(parts, 0) for parts in zip(*threads.map(occlude, group), strict=True)]
                constant = [tf.concat([kept[tensor]] * len(group), 0) for tensor in self._constant]
                logits = self._tail(changed + constant).numpy()
                found.append(logits.reshape(len(group), volume.shape[0], -1))
        return np.concatenate(found)

    def logits_by_map(
        self, kept: Kept, fill: np.ndarray, masks: Sequence[np.ndarray], maps: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return `occluded_logits`, and the logits (masks, batch, maps, classes) with each mask's voxels taken from
        `fill` in one of `maps` alone."""
        volume, in_all = kept[self._volume].numpy(), self.occluded_logits(kept, fill, masks)
        in_one = np.repeat(in_all[:, :, None], len(maps), axis=2)
        for place, one in enumerate(maps):
            mixed = np.where(np.arange(volume.shape[-1]) == one, fill, volume)
            in_one[:, :, place] = self.occluded_logits(kept, mixed, masks)
        return in_all, in_one

    def _occlude(self, kept: Kept, fill: tf.Tensor, mask: np.ndarray) -> list[tf.Tensor]:
        """Return the inputs of the tail that occlusion of `mask` changes."""
        if not mask.any():
            return [kept[tensor] for tensor in self._changed]
        along = [np.flatnonzero(mask.any(tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        plan = self._packed(tuple((int(indices[0]), int(indices[-1]) + 1) for indices in along))
        return self._update(list(kept.values()), fill, mask, plan)

    def _packed_plan(self, along: tuple[tuple[int, int], ...]) -> tf.Tensor:
        """Return the plan of a change between these indices along x, y and z. It is one tensor (boxes * 2, 5) int32,
        which TensorFlow takes faster than many."""
        boxes = np.concatenate(tf.nest.flatten(self._plan(np.array(along).T)))
        return tf.constant(np.pad(boxes, ((0, 0), (1, 1))).astype(np.int32))

    def _plan(self, box: np.ndarray) -> RegionPlan:
        """Return the plan of a change of the volume in `box`: first, how far it reaches; then backwards, what has to be
        held of each activation for those who read it."""
        reach = {self._volume: box}
        for step in self._steps:
            reach[step.target] = step.reach(hull([reach[source] for source in step.sources]))

        read = defaultdict(list, {tensor: [reach[tensor]] for tensor in self._changed})  # by each reader
        held, boxes = {}, {}
        for step in reversed(self._steps):
            held[step.target] = hull(read[step.target])
            boxes[step.target] = step.boxes(reach[step.sources[0]], held[step.target])
            for source in step.sources:
                read[source].append(boxes[step.target][0])
        held[self._volume] = hull(read[self._volume])

        plans = []
        for step in self._steps:
            of_sources, used, padding = boxes[step.target]
            within = [of_sources - held[source][0] for source in step.sources]
            plans.append(StepPlan(within, held[step.target], used, padding))
        changed = [reach[tensor] for tensor in self._changed]
        within = [reach[tensor] - held[tensor][0] for tensor in self._changed]
        return RegionPlan(held[self._volume], plans, changed, within)

    @tf.function(reduce_retracing=True)
    def _update(
        self, activations: list[tf.Tensor], fill: tf.Tensor, mask: tf.Tensor, packed: tf.Tensor
    ) -> list[tf.Tensor]:
        """Return the inputs of the tail that occlusion of `mask` changes, given its plan."""
        kept, ends = dict(zip(self._kept, activations, strict=True)), tf.unstack(packed)
        plan = tf.nest.pack_sequence_as(self._form, [*zip(ends[::2], ends[1::2], strict=True)])
        shown, filled, inside = (cut(x, plan.volume) for x in (kept[self._volume], fill, mask[None, ..., None]))
        before, after = {self._volume: shown}, {self._volume: tf.where(inside, filled, shown)}
        for step, own in zip(self._steps, plan.steps, strict=True):
            places = [*zip(step.sources, own.sources, strict=True)]
            read_before, read_after = (
                [cut(values[source], box) for source, box in places] for values in (before, after)
            )
            if step.is_kept:
                target_before = cut(kept[step.target], own.target)
            else:
                target_before = step.update(read_before, read_before, None, own)
            before[step.target] = target_before
            after[step.target] = step.update(read_after, read_before, target_before, own)
        return [
            paste(kept[tensor], changed, cut(after[tensor], held))
            for tensor, changed, held in zip(self._changed, plan.changed, plan.held, strict=True)
        ]


Occlusion = LocalOcclusion | FeatureOcclusion


def occlusion_of(network: keras.Model) -> Occlusion:
    """The exact occlusion of a network with the input "volume", of its weights as they are now."""
    averages = readers_by_averages(network)
    return FeatureOcclusion(network, averages) if averages else LocalOcclusion(network)
