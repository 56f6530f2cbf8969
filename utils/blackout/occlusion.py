"""Exact incremental occlusion of 3-D convolutional classifiers.

Occluding a region means that its voxels are replaced by those of a fill: the background's value, or another volume. The
plain way is one full forward pass per record, region and fill. Here a batch of records passes through the network once;
its activations are kept, and a region then only updates the part of every activation that its change can reach.

Reach.      A box per activation, the same for all records. It is the region's bounding box, clipped to the grid and
            widened at every convolution and pooling by its kernel, stride, padding and dilation. The layers and their
            order are read from the Keras graph. Sums over voxels, of global averages, regions and dense layers on
            flattened activations, change by the sum over the box. Flatten, the global maximum and layers unknown here
            need the whole activation. With all that follows they are the tail, computed for many regions at once.
Exactness.  Nothing is approximated: outside the reach an activation cannot change, inside it is recomputed. The
            logits differ from those of a full pass by the rounding of the layers' own number format alone.
One map.    A classifier is the mean of networks. With a region replaced in all maps, what a network that reads one map
            adds to the logits is due to this map. Other networks read all maps, of activations that keep them apart:
            they take one map as it is then, and the others as they were. So neither needs a pass beyond that of
            all maps; networks whose convolutions mix maps take one a map.
Snapshot.   Batch normalisation is folded into the convolution before it, with the weights the model has when
            `Occlusion` is constructed. Construct a new one after training further.

Volumes are (batch, x, y, z, maps), activations (batch, x, y, z, channels), masks (x, y, z); boxes as in `steps`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import islice
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models import averaging
from utils.blackout.graph import RANK, WHOLE_VOLUME_LAYERS, feeds, follow, maps_apart, nodes_of
from utils.blackout.steps import GlobalAverage, Step, cut, hull, paste

Kept = dict[Any, tf.Tensor]  # activations of a batch with nothing occluded
NOWHERE = np.zeros((2, 3), int)
THREADS = 3  # one region's copying runs beside the others' convolutions
TAIL_MASKS, TAIL_BYTES = 64, 2**26  # the tail takes as many regions at once as stay below both
PLANS = 2048  # kept, so that a region is planned once for all batches and fills


def added(logits: tf.Tensor, inputs: int, share: float) -> tf.Tensor:
    """Return what a part of a classifier adds to the mean by each of its inputs, (batch, inputs, classes)."""
    by_input = tf.reshape(logits, (tf.shape(logits)[0], inputs, -1, logits.shape[-1]))
    return tf.reduce_mean(by_input, 2) * (share / inputs)


def tail_of_joint(
    sources: list[keras.KerasTensor], parts: list[keras.KerasTensor], kinds: list[tuple[int, float]]
) -> Callable[[list[tf.Tensor]], tf.Tensor]:
    """Return what gives, of `sources`, the sum of what parts that read all maps add to the logits (batch, classes);
    `kinds` are the number of inputs and the share of each part. It is compiled once it is called."""

    def summed(values: list[tf.Tensor]) -> tf.Tensor:
        logits = keras.Function(sources, parts)(values)
        return sum(added(part, *kind)[:, 0] for part, kind in zip(logits, kinds, strict=True))

    return tf.function(summed, reduce_retracing=True)


class Occlusion:
    """The logits of a functional model with regions of the volume occluded.

    The model has the input "volume" (batch, x, y, z, maps), perhaps others, which occlusion leaves alone, and the
    output logits (batch, classes). `recomputed_layers` names layers that are recomputed as a whole for each region:
    those of a kind unknown here, and those after them.
    """

    def __init__(self, model: keras.Model):
        (volume,) = (tensor for tensor in model.inputs if tensor.name == "volume")
        self._volume = id(volume)
        self._input_names = [tensor.name for tensor in model.inputs]
        nodes, last, self._maps = nodes_of(model), model.layers[-1], volume.shape[-1]
        parts = keras.tree.flatten(last.input) if isinstance(last, averaging.MeanOfLogits) else model.outputs
        inputs = [part.inputs for part in getattr(last, "parts", [])] or [1]
        shares = getattr(last, "shares", [1])
        outputs = [*model.outputs, *parts]
        self._steps, tail, affected = follow(nodes, self._volume, outputs)
        self.recomputed_layers = tuple(
            node.operation.name
            for node in tail
            if not isinstance(node.operation, WHOLE_VOLUME_LAYERS)
            and any(len(tensor.shape) == RANK and id(tensor) in affected for tensor in node.input_tensors)
        )

        read = [tensor for node in tail for tensor in node.input_tensors] + outputs
        produced = {id(tensor) for node in tail for tensor in node.output_tensors}
        tail_inputs = {id(tensor): tensor for tensor in read if id(tensor) not in produced}
        self._cuts = [key for key in tail_inputs if key in affected]
        self._constants = [key for key in tail_inputs if key not in affected]
        ordered = [tail_inputs[key] for key in self._cuts + self._constants]
        ends = keras.Function(ordered, outputs)

        def tail_of(values: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
            """The logits, and what each part adds to them by its inputs, (batch, inputs, classes)."""
            logits, *of_parts = ends(values)
            return logits, [added(*part) for part in zip(of_parts, inputs, shares, strict=True)]

        self._tail = tf.function(tail_of, reduce_retracing=True)
        of_volume = [at for at, part in enumerate(parts) if id(part) in affected]
        self._own = [at for at in of_volume if inputs[at] == self._maps]  # parts that read each map by itself
        self._joint = [at for at in of_volume if inputs[at] != self._maps]  # that read all maps
        joint = [parts[at] for at in self._joint]
        read_by_joint = [key for key in self._cuts if feeds(tail, key, map(id, joint))]
        self._mixed = read_by_joint if maps_apart(nodes, self._volume).issuperset(read_by_joint) else []
        self._joint_tail = tail_of_joint(
            [tail_inputs[key] for key in self._mixed + self._constants],
            joint,
            [(inputs[at], shares[at]) for at in self._joint],
        )

        tensors = {id(tensor): tensor for node in nodes for tensor in (*node.input_tensors, *node.output_tensors)}
        unaffected = {source for step in self._steps for source in step.sources if source in tensors} - affected
        read_again = [step.target for step in self._steps if type(step) is not Step]
        self._kept = list(dict.fromkeys([self._volume, *self._cuts, *self._constants, *unaffected, *read_again]))
        self._hidden = [step for step in self._steps if step.target in self._kept and step.target not in tensors]
        self._shown = [key for key in self._kept if key in tensors] + [step.sources[0] for step in self._hidden]
        self._model_part = keras.Function(model.inputs, [tensors[key] for key in self._shown])
        self._form = self._plan(np.array([[0, 0, 0], [1, 1, 1]]))
        self._planned = lru_cache(PLANS)(self._boxes)

    def keep(self, inputs: dict[str, np.ndarray]) -> Kept:
        """Run a batch with nothing occluded and return the activations from which any occlusion of it follows.

        They take memory: pass batches of 16 or so at full resolution.
        """
        values = [tf.constant(inputs[name]) for name in self._input_names]
        return dict(zip(self._kept, self._whole(values), strict=True))

    def logits(self, kept: Kept) -> np.ndarray:
        """Return the logits (batch, classes) with nothing occluded."""
        return self._tail(self._inputs_of_tail(kept))[0].numpy()

    def occluded_logits(self, kept: Kept, fill: np.ndarray, masks: Iterable[np.ndarray]) -> np.ndarray:
        """Return the logits (masks, batch, classes) with each mask's voxels taken from `fill`.

        `fill` is one volume per record, or broadcasts to that: (batch, 1, 1, 1, 1) is one value per record. Any number
        of masks (x, y, z) bool is allowed.
        """
        return self._occluded(kept, fill, masks)[0]

    def logits_by_map(
        self, kept: Kept, fill: np.ndarray, masks: Sequence[np.ndarray], maps: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return `occluded_logits`, and the logits (masks, batch, maps, classes) with each mask's voxels taken from
        `fill` in one of `maps` alone. In all other maps `fill` is the volume."""
        logits, parts, joint = self._occluded(kept, fill, masks, maps if self._mixed else ())
        shown, of_parts = self._tail(self._inputs_of_tail(kept))
        found = np.repeat(shown.numpy()[None, :, None], len(masks), 0).repeat(len(maps), 2)
        for at in self._own:
            found += (parts[at] - of_parts[at].numpy())[:, :, maps]
        for place, one in enumerate(maps if self._joint else ()):
            if not self._mixed:
                alone = np.where(np.arange(self._maps) == one, fill, kept[self._volume].numpy())
                found_alone = self._occluded(kept, alone, masks)[1]
                found[:, :, place] += np.sum([found_alone[at][:, :, 0] for at in self._joint], axis=0)
            else:
                found[:, :, place] += joint[:, :, place]
            found[:, :, place] -= np.sum([of_parts[at].numpy()[:, 0] for at in self._joint], axis=0)
        return logits, found

    def _inputs_of_tail(self, kept: Kept) -> list[tf.Tensor]:
        return [kept[key] for key in self._cuts + self._constants]

    def _occluded(
        self, kept: Kept, fill: np.ndarray, masks: Iterable[np.ndarray], maps: Sequence[int] = ()
    ) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        """Return the logits (masks, batch, classes), and what each part adds to them by its inputs (masks, batch,
        inputs, classes). The third is what parts that read all maps would add if one of `maps` had changed (masks,
        batch, maps, classes)."""
        volume = kept[self._volume]
        occlude = partial(self._occlude, kept, tf.broadcast_to(tf.cast(fill, volume.dtype), tf.shape(volume)))
        size = sum(kept[key].dtype.size * kept[key].shape.num_elements() for key in self._cuts)
        size = max(1, min(TAIL_MASKS, TAIL_BYTES // size))
        masks, found = iter(masks), []
        with ThreadPoolExecutor(THREADS) as threads:
            while group := list(islice(masks, size)):
                changed = [tf.concat(parts, 0) for parts in zip(*threads.map(occlude, group), strict=True)]
                constant = [tf.concat([kept[key]] * len(group), 0) for key in self._constants]
                logits, parts = self._tail(changed + constant)
                joint = [self._with_one_map(kept, changed, len(group), one, constant) for one in maps]
                found.append(
                    (logits, *parts, tf.stack(joint, 1) if joint else tf.zeros((len(logits), 0, logits.shape[-1])))
                )
        arrays = [np.concatenate([array.numpy() for array in arrays]) for arrays in zip(*found, strict=True)]
        by_mask = [array.reshape(len(array) // volume.shape[0], volume.shape[0], *array.shape[1:]) for array in arrays]
        return by_mask[0], by_mask[1:-1], by_mask[-1]

    def _with_one_map(
        self, kept: Kept, changed: list[tf.Tensor], count: int, one: int, constant: list[tf.Tensor]
    ) -> tf.Tensor:
        """Return what the parts that read all maps add to the logits (masks * batch, classes). One map is as `changed`
        for `count` masks, the others are as shown."""
        chosen = tf.range(self._maps) == one
        mixed = [
            tf.where(chosen, after, tf.concat([kept[key]] * count, 0))
            for key, after in zip(self._cuts, changed, strict=True)
            if key in self._mixed
        ]
        return self._joint_tail(mixed + constant)

    @tf.function(reduce_retracing=True)
    def _whole(self, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
        """Return the activations that are read later."""
        values = dict(zip(self._shown, self._model_part(inputs), strict=True))
        for step in self._hidden:
            values[step.target] = step.whole([values[step.sources[0]]])
        return [values[key] for key in self._kept]

    def _occlude(self, kept: Kept, fill: tf.Tensor, mask: np.ndarray) -> list[tf.Tensor]:
        """Return the inputs of the tail that occlusion of `mask` affects."""
        if not mask.any():
            return [kept[key] for key in self._cuts]
        along = [np.flatnonzero(mask.any(tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        boxes = self._planned(tuple((int(indices[0]), int(indices[-1]) + 1) for indices in along))
        return self._update(list(kept.values()), fill, mask, boxes)

    def _boxes(self, along: tuple[tuple[int, int], ...]) -> tf.Tensor:
        """Return the plan of a change between these indices along x, y and z. It is one tensor (boxes * 2, 5) int32,
        which TensorFlow takes faster than many."""
        boxes = tf.nest.flatten(self._plan(np.array(along).T))
        return tf.constant(np.pad(np.concatenate(boxes), ((0, 0), (1, 1))).astype(np.int32))

    def _plan(self, box: np.ndarray) -> tuple[np.ndarray, list, list]:
        """Return boxes and widths, alike in structure for every region, for a change of the volume in `box`: the box of
        the volume; of each step that of each source within what is held of it, that of the target, and what `Step.plan`
        adds; of each input of the tail the box that changes, and where that lies within what was computed."""
        reaches = {self._volume: box}
        for step in self._steps:
            reaches[step.target] = step.reach([reaches[source] for source in step.sources if source in reaches])

        readers = defaultdict(list, {key: [reaches[key]] for key in self._cuts})
        needed, needs = {}, {}
        for step in reversed(self._steps):
            needed[step.target] = hull(readers[step.target])
            needs[step.target] = step.needs(reaches.get(step.sources[0], NOWHERE), needed[step.target])
            for source in step.sources:
                readers[source].append(needs[step.target])
        needed[self._volume] = hull(readers[self._volume])

        plans = [
            (
                [needs[step.target] - needed.get(source, NOWHERE)[0] for source in step.sources],
                needed[step.target],
                step.plan(reaches.get(step.sources[0], NOWHERE), needed[step.target]),
            )
            for step in self._steps
        ]
        cuts = [(reaches[key], reaches[key] - needed[key][0]) for key in self._cuts]
        return needed[self._volume], plans, cuts

    @tf.function(reduce_retracing=True)
    def _update(
        self, activations: list[tf.Tensor], fill: tf.Tensor, mask: tf.Tensor, boxes: tf.Tensor
    ) -> list[tf.Tensor]:
        """Return the inputs of the tail that occlusion of `mask` affects, given its plan."""
        kept = dict(zip(self._kept, activations, strict=True))
        ends = tf.unstack(boxes)
        box, plans, cuts = tf.nest.pack_sequence_as(self._form, [*zip(ends[::2], ends[1::2], strict=True)])
        shown, filled, inside = (cut(whole, box) for whole in (kept[self._volume], fill, mask[None, ..., None]))
        before, after = {self._volume: shown}, {self._volume: tf.where(inside, filled, shown)}
        pooled = {step.target for step in self._steps if isinstance(step, GlobalAverage)}
        for step, (source_boxes, target_box, own) in zip(self._steps, plans, strict=True):
            places = [*zip(step.sources, source_boxes, strict=True)]
            sources_before, sources_after = (
                [cut(values.get(source, kept.get(source)), box) for source, box in places] for values in (before, after)
            )
            if type(step) is Step:
                target_before = step.whole(sources_before)
            else:
                target_before = kept[step.target] if step.target in pooled else cut(kept[step.target], target_box)
            before[step.target] = target_before
            after[step.target] = step.update(sources_after, sources_before, target_before, own)
        return [
            after[key] if key in pooled else paste(kept[key], reach, cut(after[key], part))
            for key, (reach, part) in zip(self._cuts, cuts, strict=True)
        ]
