"""Exact incremental occlusion of 3-D convolutional classifiers.

Occluding a region means that every voxel of the region takes the record's background value, one scalar per record.
The plain way is one full forward pass per record and region. Here a batch of records passes through the network once
and keeps its activations; a region then only updates the part of every activation that its change can reach.

Reach.      A box per activation, the same for all records: the region's bounding box, widened at every convolution
            and pooling by its kernel, stride, padding and dilation, and clipped to the grid. The layers and their
            order are read from the Keras graph. What needs the whole activation (Flatten, global maximum, a layer
            unknown here) and all that follows is the tail, which is computed for many regions at once.
Exactness.  Nothing is approximated: outside the reach an activation cannot change, inside it is recomputed. The
            logits differ from those of a full pass by the rounding of the layers' own number format alone.
Snapshot.   Batch normalisation is folded into the convolution before it, with the weights the model has when
            `Occlusion` is constructed. Construct a new one after training further.

Volumes are (batch, x, y, z, 1), activations (batch, x, y, z, channels), masks (x, y, z). A box is an array (2, 3):
the first index and one past the last along x, y and z; as a tensor (2, 5), with unused entries for batch and channels.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

import keras
import numpy as np
import tensorflow as tf
from keras import layers

SPATIAL = slice(1, 4)  # of a shape
EVERY_RECORD_AND_CHANNEL = 0b10001  # the axes, as bits, along which a box does not cut
THREADS = 3  # one region's copying runs beside the others' convolutions
TAIL_MASKS, TAIL_BYTES = 64, 2**26  # the tail takes as many regions at once as stay below both

VOXELWISE_LAYERS = (
    layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Identity, layers.Rescaling,
    layers.Dropout, layers.SpatialDropout3D, layers.AlphaDropout, layers.GaussianDropout, layers.GaussianNoise,
    layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum,
)  # fmt: skip
CHANNEL_LAYERS = (layers.BatchNormalization, layers.Concatenate)
WHOLE_VOLUME_LAYERS = (layers.Flatten, layers.GlobalMaxPooling3D, layers.GlobalAveragePooling3D)


def cut(activation: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    """Return the part of `activation` inside `box`."""
    everything = EVERY_RECORD_AND_CHANNEL
    return tf.strided_slice(activation, box[0], box[1], begin_mask=everything, end_mask=everything)


def paste(activation: tf.Tensor, box: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """Return a copy of `activation` with `value` inside `box`."""
    return tf.raw_ops.TensorStridedSliceUpdate(
        input=activation, begin=box[0], end=box[1], strides=[1] * 5, value=value,
        begin_mask=EVERY_RECORD_AND_CHANNEL, end_mask=EVERY_RECORD_AND_CHANNEL,
    )  # fmt: skip


def hull(boxes: list[np.ndarray]) -> np.ndarray:
    """Return the smallest box around all `boxes`."""
    return np.stack([np.min([box[0] for box in boxes], axis=0), np.max([box[1] for box in boxes], axis=0)])


def common(box: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the intersection of two boxes, without voxels but in place where they do not meet."""
    start = np.minimum(np.maximum(box[0], other[0]), other[1])
    return np.stack([start, np.maximum(start, np.minimum(box[1], other[1]))])


class Window:
    """The way a convolution or pooling slides over its input, with one number per axis."""

    def __init__(self, layer: keras.Layer, size: tuple[int, ...], target_size: tuple[int, ...]):
        kernel = layer.kernel_size if isinstance(layer, layers.Conv3D) else layer.pool_size
        self.size, self.target_size = np.array(size), np.array(target_size)
        self.strides = np.array(layer.strides)
        self.extent = (np.array(kernel) - 1) * getattr(layer, "dilation_rate", (1, 1, 1)) + 1
        padding = np.maximum((self.target_size - 1) * self.strides + self.extent - self.size, 0)
        self.before = padding // 2 if layer.padding == "same" else np.zeros_like(padding)

    def reach(self, box: np.ndarray) -> np.ndarray:
        """Return the box of outputs that see the input `box`; at least one voxel, as kernels refuse empty tensors."""
        start = -((self.extent - 1 - self.before - box[0]) // self.strides)
        start = np.clip(start, 0, self.target_size - 1)
        stop = (box[1] - 1 + self.before) // self.strides + 1
        return np.stack([start, np.clip(stop, start + 1, self.target_size)])

    def sources(self, box: np.ndarray) -> np.ndarray:
        """Return the box of inputs that the outputs in `box` see, which may extend into the padding."""
        start = box[0] * self.strides - self.before
        return np.stack([start, (box[1] - 1) * self.strides - self.before + self.extent])

    def inside(self, box: np.ndarray) -> np.ndarray:
        """Return the part of `sources` on the grid."""
        return common(self.sources(box), np.stack([np.zeros_like(self.size), self.size]))

    def padding(self, box: np.ndarray) -> np.ndarray:
        """Return the widths (2, 3) of the part of `sources` beyond the grid, before and after it."""
        return np.abs(self.sources(box) - self.inside(box))


def pad(values: tf.Tensor, widths: tf.Tensor, padding_value: float = 0) -> tf.Tensor:
    """Return `values` with `widths` (2, 5) of padding before and after it."""
    return tf.pad(values, tf.stack(tf.unstack(widths), axis=1), constant_values=tf.cast(padding_value, values.dtype))


def is_map(tensor: keras.KerasTensor) -> bool:
    """Whether a tensor of the graph has the axes of a volume."""
    return len(tensor.shape) == 5


class Step:
    """One layer of the local part of the network.

    `sources` and `target` are keys of activations. A change within the reach of the sources stays within the reach of
    the target. Whoever reads the target may need it on a larger box, `needed`; for that the step in turn needs its
    sources on a box of its own. This class is the layer whose output voxel depends on the same voxel of its sources.
    """

    plan_size = 0

    def __init__(self, layer, sources: list, target):
        self.layer, self.sources, self.target = layer, sources, target

    def whole(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Return the complete target from the complete sources."""
        return self.layer(inputs if len(inputs) > 1 else inputs[0])

    def reach(self, reaches: list[np.ndarray]) -> np.ndarray:
        """Return the reach of the target from those of the affected sources."""
        return hull(reaches)

    def needs(self, reach: np.ndarray, needed: np.ndarray) -> np.ndarray:
        """Return the box on which all sources are needed, given the `reach` of the first."""
        return needed

    def plan(self, reach: np.ndarray, needed: np.ndarray) -> list[np.ndarray]:
        """Return the `plan_size` index arrays (2, 3) for `update`, given the `reach` of the first source."""
        return []

    def before(self, before: list[tf.Tensor], kept: dict, needed: tf.Tensor) -> tf.Tensor:
        """Return the target of the unoccluded pass on the box `needed`, from the sources `before` occlusion."""
        return self.whole(before)

    def update(
        self, after: list[tf.Tensor], before: list[tf.Tensor], target_before: tf.Tensor, plan: list[tf.Tensor]
    ) -> tf.Tensor:
        """Return the target on its box, from the sources on theirs `before` and `after` occlusion."""
        return self.whole(after)


class Windowed(Step):
    """A layer that slides over one source."""

    plan_size = 1

    def __init__(self, layer, sources, target, size, target_size):
        super().__init__(layer, sources, target)
        self.window = Window(layer, size, target_size)

    def reach(self, reaches):
        return self.window.reach(reaches[0])

    def needs(self, reach, needed):
        return self.window.inside(needed)

    def plan(self, reach, needed):
        return [self.window.padding(needed)]

    def before(self, before, kept, needed):
        return cut(kept[self.target], needed)


class MaximumPooling(Windowed):
    """Maximum pooling."""

    def update(self, after, before, target_before, plan):
        values = pad(after[0], plan[0], after[0].dtype.min)
        return tf.nn.max_pool3d(values, self.layer.pool_size, self.layer.strides, "VALID")


class AveragePooling(Windowed):
    """Average pooling, where padding does not count in the mean."""

    def update(self, after, before, target_before, plan):
        mean, share = (
            tf.nn.avg_pool3d(pad(values, plan[0]), self.layer.pool_size, self.layer.strides, "VALID")
            for values in (after[0], tf.ones_like(after[0][:1, ..., :1]))
        )
        return mean / share


class Convolution(Windowed):
    """A convolution without its activation, possibly with the batch normalisation that follows it.

    With many channels, the difference that occlusion makes takes fewer operations (`DifferenceConvolution`).
    """

    def __init__(self, layer, sources, target, size, target_size):
        super().__init__(layer, sources, target, size, target_size)
        self.kernel = tf.cast(layer.kernel, layer.compute_dtype).numpy()
        self.bias = tf.cast(layer.bias, layer.compute_dtype).numpy() if layer.use_bias else 0

    def fold(self, normalisation: layers.BatchNormalization, target) -> None:
        """Take over the batch normalisation that is the only reader of this convolution."""
        scale = 1 / np.sqrt(normalisation.moving_variance.numpy() + normalisation.epsilon)
        if normalisation.scale:
            scale = scale * normalisation.gamma.numpy()
        self.kernel, self.bias = self.kernel * scale, (self.bias - normalisation.moving_mean.numpy()) * scale
        if normalisation.center:
            self.bias = self.bias + normalisation.beta.numpy()
        self.target = target

    def convolve(self, values: tf.Tensor, padding: str) -> tf.Tensor:
        """Return the convolution of complete values, which have their padding if `padding` is "VALID"."""
        # TensorFlow 2.21 with oneDNN reads uninitialised memory for some small volumes in bfloat16.
        values, kernel = (tf.cast(x, tf.float32) for x in (tf.cast(values, self.kernel.dtype), self.kernel))
        sums = tf.nn.convolution(values, kernel, self.layer.strides, padding, dilations=self.layer.dilation_rate)
        return tf.cast(sums, self.kernel.dtype) + self.bias

    def whole(self, inputs):
        return self.convolve(inputs[0], self.layer.padding.upper())

    def update(self, after, before, target_before, plan):
        return self.convolve(pad(after[0], plan[0]), "VALID")


class DifferenceConvolution(Convolution):
    """A convolution updated by the convolution of the difference.

    The difference is zero outside the reach of the source, so unlike the values it needs no neighbourhood: the layers
    before are not asked for more than they can change. In half precision it would not survive the rounding.
    """

    plan_size = 2

    def needs(self, reach, needed):
        return reach

    def plan(self, reach, needed):
        sources = self.window.sources(needed)
        used = common(reach, sources)
        return [used - reach[0], np.abs(sources - used)]

    def update(self, after, before, target_before, plan):
        return target_before + self.change(after[0] - before[0], *plan)

    def change(self, difference: tf.Tensor, used: tf.Tensor, padding: tf.Tensor) -> tf.Tensor:
        """Return the change of the target on the box `needed`."""
        values, dilations = pad(cut(difference, used), padding), self.layer.dilation_rate
        return tf.nn.convolution(values, self.kernel, self.layer.strides, "VALID", dilations=dilations)


class SpreadConvolution(DifferenceConvolution):
    """A convolution without strides and dilation, which spreads the difference to the outputs that see it.

    That multiplies the inputs in reach only, which are far fewer than the outputs they reach.
    """

    def plan(self, reach, needed):
        start = reach[0] + self.window.before - self.window.extent + 1
        used = common(np.stack([start, reach[1] + self.window.before]), needed)
        return [used - start, np.abs(needed - used)]

    def change(self, difference, used, padding):
        mirrored = self.kernel[::-1, ::-1, ::-1].swapaxes(3, 4)
        growth = [0, *(self.window.extent - 1), mirrored.shape[3] - mirrored.shape[4]]
        spread = tf.nn.conv3d_transpose(difference, mirrored, tf.shape(difference) + growth, 1, "VALID")
        return pad(cut(spread, used), padding)


class GlobalAverage(Step):
    """Global average pooling, updated by the mean of the difference. Its target has no box."""

    def __init__(self, layer, sources, target, size):
        super().__init__(layer, sources, target)
        self.voxels = int(np.prod(size))

    def needs(self, reach, needed):
        return reach

    def before(self, before, kept, needed):
        return kept[self.target]

    def update(self, after, before, target_before, plan):
        difference = tf.cast(after[0], tf.float32) - tf.cast(before[0], tf.float32)
        total = tf.reduce_sum(difference, (1, 2, 3), keepdims=self.layer.keepdims)
        return tf.cast(tf.cast(target_before, tf.float32) + total / self.voxels, target_before.dtype)


def is_voxelwise(function) -> bool:
    """Whether an activation function is one of Keras' own, all of which stay within a voxel."""
    return getattr(keras.activations, getattr(function, "__name__", ""), None) is function


def convolution_kind(layer: layers.Conv3D) -> type[Convolution]:
    """Return the cheapest step that is accurate."""
    if layer.compute_dtype != "float32" or layer.kernel.shape[3] == 1:
        return Convolution
    return SpreadConvolution if {*layer.strides, *layer.dilation_rate} == {1} else DifferenceConvolution


def steps_of(node, is_local) -> list[Step]:
    """Return the steps that compute a node of the graph locally, none if that is not known to be possible."""
    layer, inputs, output = node.operation, node.input_tensors, node.output_tensors[0]
    kind, sources, target = type(layer), [id(tensor) for tensor in inputs], id(output)
    activation = getattr(layer, "activation", keras.activations.linear)
    channels_last = getattr(layer, "data_format", "channels_last") == "channels_last"
    # An argument like training=True may make any layer depend on the whole batch.
    plain_call = all(value is None or value is False for value in node.arguments.kwargs.values())
    if not (channels_last and plain_call and is_voxelwise(activation) and all(map(is_local, inputs))):
        return []
    sizes = inputs[0].shape[SPATIAL], output.shape[SPATIAL]
    if kind in VOXELWISE_LAYERS or (kind in CHANNEL_LAYERS and layer.axis in (-1, 4)):
        same_grid = all(tensor.shape[SPATIAL] == sizes[1] for tensor in inputs)
        return [Step(layer, sources, target)] if same_grid else []
    if kind is layers.MaxPooling3D:
        return [MaximumPooling(layer, sources, target, *sizes)]
    if kind is layers.AveragePooling3D:
        return [AveragePooling(layer, sources, target, *sizes)]
    if kind is layers.GlobalAveragePooling3D:
        return [GlobalAverage(layer, sources, target, sizes[0])]
    # TensorFlow 2.21 with oneDNN misreads small boxes of one channel if the strides are unequal.
    misread = kind is layers.Conv3D and layer.kernel.shape[3] == 1 and len({*layer.strides}) > 1
    if kind is not layers.Conv3D or layer.groups > 1 or misread:
        return []
    convolution = convolution_kind(layer)
    if activation is keras.activations.linear:
        return [convolution(layer, sources, target, *sizes)]
    linear = (target, "linear")
    return [convolution(layer, sources, linear, *sizes), Step(activation, [linear], target)]


def foldable(convolution: Step | None, node) -> bool:
    """Whether a node normalises the result of a convolution in a way that its kernel can take over."""
    return (
        isinstance(convolution, Convolution)
        and type(node.operation) is layers.BatchNormalization
        and convolution.layer.compute_dtype == node.operation.compute_dtype == "float32"
    )


def follow(nodes: list, volume: int, outputs: list) -> tuple[list[Step], list, set]:
    """Follow the volume through the nodes of a graph, in their order, as far as that is possible locally.

    Returns the steps, the other nodes that the volume affects, and the keys of everything that it affects.
    """
    readers = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    readers.update(id(tensor) for tensor in outputs)
    steps: dict = {}
    tail, affected, followed = [], {volume}, {volume}

    def is_local(tensor):
        return is_map(tensor) and (id(tensor) in followed or id(tensor) not in affected)

    for node in nodes:
        source, target = id(node.input_tensors[0]), id(node.output_tensors[0])
        if affected.isdisjoint(id(tensor) for tensor in node.input_tensors):
            continue
        new = steps_of(node, is_local)
        affected.update(id(tensor) for tensor in node.output_tensors)
        if not new:
            tail.append(node)
            continue
        if not isinstance(new[-1], GlobalAverage):
            followed.add(target)
        if readers[source] == 1 and foldable(steps.get(source), node):
            new = [steps.pop(source)]
            new[0].fold(node.operation, target)
        steps.update((step.target, step) for step in new)
    return list(steps.values()), tail, affected


class Occlusion:
    """The logits of a functional model with regions of the volume occluded.

    The model has the input "volume" (batch, x, y, z, 1), perhaps others, which occlusion leaves alone, and the output
    logits (batch, classes). `recomputed_layers` names the layers on activations that are not followed locally but
    recomputed as a whole for each region: those of a kind unknown here, and those after them.
    """

    def __init__(self, model: keras.Model):
        (self._volume,) = (id(tensor) for tensor in model.inputs if tensor.name == "volume")
        self._input_names = [tensor.name for tensor in model.inputs]
        # Only the nodes tell apart the uses of a layer, and Keras has no public way to those of one model.
        levels = sorted(model._nodes_by_depth.items(), reverse=True)
        nodes = [node for _, level in levels for node in level if node.input_tensors]
        self._steps, tail, affected = follow(nodes, self._volume, model.outputs)
        self.recomputed_layers = tuple(
            node.operation.name
            for node in tail
            if not isinstance(node.operation, WHOLE_VOLUME_LAYERS)
            and any(is_map(tensor) and id(tensor) in affected for tensor in node.input_tensors)
        )

        read = [tensor for node in tail for tensor in node.input_tensors] + model.outputs
        produced = {id(tensor) for node in tail for tensor in node.output_tensors}
        tail_inputs = {id(tensor): tensor for tensor in read if id(tensor) not in produced}
        self._cuts = [key for key in tail_inputs if key in affected]
        self._constants = [key for key in tail_inputs if key not in affected]
        tail_inputs = [tail_inputs[key] for key in self._cuts + self._constants]
        self._tail = tf.function(keras.Function(tail_inputs, model.outputs[0]), reduce_retracing=True)

        tensors = {id(tensor): tensor for node in nodes for tensor in (*node.input_tensors, *node.output_tensors)}
        unaffected = {source for step in self._steps for source in step.sources if source in tensors} - affected
        read_again = [step.target for step in self._steps if type(step) is not Step]
        self._kept = list(dict.fromkeys([self._volume, *self._cuts, *self._constants, *unaffected, *read_again]))
        self._hidden = [step for step in self._steps if step.target in self._kept and step.target not in tensors]
        self._shown = [key for key in self._kept if key in tensors] + [step.sources[0] for step in self._hidden]
        self._model_part = keras.Function(model.inputs, [tensors[key] for key in self._shown])

    def logits(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Return the logits (batch, classes) with nothing occluded."""
        kept = self._keep(inputs)
        return self._tail([kept[key] for key in self._cuts + self._constants]).numpy()

    def occluded_logits(
        self, inputs: dict[str, np.ndarray], background: np.ndarray, masks: Iterable[np.ndarray]
    ) -> np.ndarray:
        """Return the logits (masks, batch, classes) with each mask's voxels at the record's `background` (batch,).

        The activations of the whole batch are kept meanwhile: pass batches of 16 or so at full resolution. Of the
        masks, any number will do.
        """
        kept = self._keep(inputs)
        occlude = partial(self._occlude, kept, tf.constant(background, tf.float32))
        size = sum(kept[key].dtype.size * kept[key].shape.num_elements() for key in self._cuts)
        size = max(1, min(TAIL_MASKS, TAIL_BYTES // size))
        masks, logits = iter(masks), []
        with ThreadPoolExecutor(THREADS) as threads:
            while group := list(islice(masks, size)):
                changed = [tf.concat(parts, 0) for parts in zip(*threads.map(occlude, group), strict=True)]
                constant = [tf.concat([kept[key]] * len(group), 0) for key in self._constants]
                logits.append(self._tail(changed + constant).numpy())
        return np.concatenate(logits).reshape(-1, len(background), logits[0].shape[-1])

    def _keep(self, inputs: dict[str, np.ndarray]) -> dict:
        """Run the unoccluded pass and return the activations that are read later, by key."""
        values = [tf.constant(inputs[name]) for name in self._input_names]
        return dict(zip(self._kept, self._whole(values), strict=True))

    @tf.function(reduce_retracing=True)
    def _whole(self, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
        """Return the activations that are read later."""
        values = dict(zip(self._shown, self._model_part(inputs), strict=True))
        for step in self._hidden:
            values[step.target] = step.whole([values[step.sources[0]]])
        return [values[key] for key in self._kept]

    def _occlude(self, kept: dict, background: tf.Tensor, mask: np.ndarray) -> list[tf.Tensor]:
        """Return the inputs of the tail that occlusion of `mask` affects."""
        if not mask.any():
            return [kept[key] for key in self._cuts]
        along = [np.flatnonzero(mask.any(tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        box = np.array([[indices[0] for indices in along], [indices[-1] + 1 for indices in along]])
        return self._update(list(kept.values()), background, mask, tf.constant(self._plan(box)))

    def _plan(self, box: np.ndarray) -> np.ndarray:
        """Return all boxes and widths (all, 2, 5) that `_update` needs after a change of the volume in `box`."""
        reaches = {self._volume: box}
        for step in self._steps:
            reaches[step.target] = step.reach([reaches[source] for source in step.sources if source in reaches])

        readers = defaultdict(list, {key: [reaches[key]] for key in self._cuts})
        needed, needs = {}, {}
        for step in reversed(self._steps):
            needed[step.target] = hull(readers[step.target])
            needs[step.target] = step.needs(reaches.get(step.sources[0]), needed[step.target])
            for source in step.sources:
                readers[source].append(needs[step.target])
        needed[self._volume] = hull(readers[self._volume])

        plan = [needed[self._volume]]
        for step in self._steps:
            box = needs[step.target]
            plan += [box - needed[source][0] if source in needed else box for source in step.sources]
            plan += [needed[step.target], *step.plan(reaches.get(step.sources[0]), needed[step.target])]
        for key in self._cuts:
            plan += [reaches[key], reaches[key] - needed[key][0]]
        return np.pad(plan, ((0, 0), (0, 0), (1, 1))).astype(np.int32)

    @tf.function(reduce_retracing=True)
    def _update(
        self, kept: list[tf.Tensor], background: tf.Tensor, mask: tf.Tensor, plan: tf.Tensor
    ) -> list[tf.Tensor]:
        """Return the inputs of the tail that occlusion of `mask` affects, given its plan."""
        kept = dict(zip(self._kept, kept, strict=True))
        plan = iter([tf.unstack(box) for box in tf.unstack(plan)])
        box = next(plan)
        volume = cut(kept[self._volume], box)
        background = tf.reshape(tf.cast(background, volume.dtype), (-1, 1, 1, 1, 1))
        before = {self._volume: volume}
        after = {self._volume: tf.where(cut(mask[None, ..., None], box), background, volume)}
        for step in self._steps:
            boxes = list(islice(plan, len(step.sources)))
            sources_before, sources_after = (
                [
                    cut(values.get(source, kept.get(source)), box)
                    for source, box in zip(step.sources, boxes, strict=True)
                ]
                for values in (before, after)
            )
            before[step.target] = step.before(sources_before, kept, next(plan))
            step_plan = list(islice(plan, step.plan_size))
            after[step.target] = step.update(sources_after, sources_before, before[step.target], step_plan)
        pooled = {step.target for step in self._steps if isinstance(step, GlobalAverage)}
        changed = []
        for key in self._cuts:
            reach, part = next(plan), next(plan)
            changed.append(after[key] if key in pooled else paste(kept[key], reach, cut(after[key], part)))
        return changed
