"""The steps of local recomputation: one layer, its inputs before and after occlusion -> its new output.

A box is an array (2, 3): the first index and one past the last along x, y and z; as a tensor (2, 5), with unused
entries for batch and channels. Activations are (batch, x, y, z, channels).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from keras import layers

Tensors = list[tf.Tensor]
Size = tuple[int, ...]  # of a grid
EVERY_RECORD_AND_CHANNEL = 0b10001  # the axes, as bits, along which a box does not cut


def cut(activation: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    """Return the part of `activation` inside `box`."""
    everything = EVERY_RECORD_AND_CHANNEL
    return tf.strided_slice(activation, box[0], box[1], [1] * 5, begin_mask=everything, end_mask=everything)


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
    """Return the intersection of two boxes; where they do not meet, a box without voxels between them."""
    start = np.minimum(np.maximum(box[0], other[0]), other[1])
    return np.stack([start, np.maximum(start, np.minimum(box[1], other[1]))])


def pad(values: tf.Tensor, widths: tf.Tensor, padding_value: float = 0) -> tf.Tensor:
    """Return `values` with `widths` (2, 5) of padding before and after it."""
    padding_value = tf.cast(padding_value, values.dtype)
    return tf.pad(values, tf.stack([widths[0], widths[1]], axis=1), constant_values=padding_value)


@dataclass
class Step:
    """One layer of the local part of the network.

    `sources` and `target` are keys of activations; `sizes` are the grids of the first source and of the target. A
    change within the reach of the sources stays within the reach of the target. The next steps may need the target on a
    larger box, `needed`; for that the step in turn needs its sources on a box of its own. This class is the layer whose
    output voxel depends on the same voxel of its sources.
    """

    layer: Any
    sources: list
    target: Any
    sizes: tuple[Size, Size]

    def whole(self, inputs: Tensors) -> tf.Tensor:
        """Return the complete target from the complete sources."""
        return self.layer(inputs if len(inputs) > 1 else inputs[0])

    def reach(self, reaches: list[np.ndarray]) -> np.ndarray:
        """Return the reach of the target from those of the affected sources."""
        return hull(reaches)

    def needs(self, reach: np.ndarray, needed: np.ndarray) -> np.ndarray:
        """Return the box on which all sources are needed, given the `reach` of the first."""
        return needed

    def plan(self, reach: np.ndarray, needed: np.ndarray) -> list[np.ndarray]:
        """Return the index arrays (2, 3) for `update`, given the `reach` of the first source."""
        return []

    def update(self, after: Tensors, before: Tensors, target_before: tf.Tensor, plan: Tensors) -> tf.Tensor:
        """Return the target on its box, from the sources on theirs `before` and `after` occlusion."""
        return self.whole(after)


class Standardise(Step):
    """z-scores by the mean and the spread of each voxel."""

    def plan(self, reach: np.ndarray, needed: np.ndarray) -> list[np.ndarray]:
        return [needed]

    def update(self, after: Tensors, before: Tensors, target_before: tf.Tensor, plan: Tensors) -> tf.Tensor:
        mean, spread = (cut(weight[None], plan[0]) for weight in (self.layer.mean, self.layer.spread))
        return self.layer.scores(after[0], mean, spread)


def extent_of(layer: Any) -> np.ndarray:
    """Return how many voxels the window of a convolution or pooling spans along each axis."""
    window = layer.kernel_size if isinstance(layer, layers.Conv3D) else layer.pool_size
    return (np.array(window) - 1) * getattr(layer, "dilation_rate", (1, 1, 1)) + 1


def padding_needed(layer: Any, sizes: tuple[Size, Size]) -> np.ndarray:
    """Return by how many voxels windows exceed the grid along each axis, negative if they end before it does; `sizes`
    are those of the grid and of what the windows give."""
    size, target_size = map(np.array, sizes)
    return (target_size - 1) * layer.strides + extent_of(layer) - size


@dataclass
class Windowed(Step):
    """A layer that slides a window over one source, with one number per axis for its extent, strides and padding."""

    def __post_init__(self) -> None:
        self.size, self.target_size = map(np.array, self.sizes)
        self.strides, self.extent = np.array(self.layer.strides), extent_of(self.layer)
        padding = np.maximum(padding_needed(self.layer, self.sizes), 0)
        self.padding_before = padding // 2 if self.layer.padding == "same" else np.zeros_like(padding)

    def reach(self, reaches: list[np.ndarray]) -> np.ndarray:
        """Return the box of outputs that see the change; at least one voxel, as kernels refuse empty tensors."""
        first, last = reaches[0][0], reaches[0][1] - 1
        start = -((self.extent - 1 - self.padding_before - first) // self.strides)
        start = np.clip(start, 0, self.target_size - 1)
        stop = (last + self.padding_before) // self.strides + 1
        return np.stack([start, np.clip(stop, start + 1, self.target_size)])

    def seen(self, box: np.ndarray) -> np.ndarray:
        """Return the box of inputs that the outputs in `box` see, which may extend into the padding."""
        start = box * self.strides - self.padding_before
        return np.stack([start[0], start[1] - self.strides + self.extent])

    def needs(self, reach: np.ndarray, needed: np.ndarray) -> np.ndarray:
        return common(self.seen(needed), np.stack([np.zeros_like(self.size), self.size]))

    def plan(self, reach: np.ndarray, needed: np.ndarray) -> list[np.ndarray]:
        """Return the widths of the padding before and after the grid."""
        return [np.abs(self.seen(needed) - self.needs(reach, needed))]


class MaximumPooling(Windowed):
    """Maximum pooling."""

    def update(self, after: Tensors, before: Tensors, target_before: tf.Tensor, plan: Tensors) -> tf.Tensor:
        values = tf.cast(after[0], self.layer.compute_dtype)
        values = pad(values, plan[0], values.dtype.min)
        return tf.nn.max_pool3d(values, self.layer.pool_size, self.layer.strides, "VALID")


class AveragePooling(Windowed):
    """Average pooling, where padding does not count in the mean."""

    def update(self, after: Tensors, before: Tensors, target_before: tf.Tensor, plan: Tensors) -> tf.Tensor:
        values = tf.cast(after[0], self.layer.compute_dtype)
        mean, share = (
            tf.nn.avg_pool3d(pad(x, plan[0]), self.layer.pool_size, self.layer.strides, "VALID")
            for x in (values, tf.ones_like(values[:1, ..., :1]))
        )
        return mean / share


class Convolution(Windowed):
    """A convolution without its activation, possibly with the batch normalisation that follows it.

    With many channels, the difference that occlusion makes takes fewer operations (`DifferenceConvolution`).
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        dtype = self.layer.compute_dtype
        self.kernel = tf.cast(self.layer.kernel, dtype).numpy()
        self.bias = tf.cast(self.layer.bias, dtype).numpy() if self.layer.use_bias else 0

    def fold(self, normalisation: layers.BatchNormalization, target: Any) -> None:
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

    def whole(self, inputs: Tensors) -> tf.Tensor:
        return self.convolve(inputs[0], self.layer.padding.upper())

    def update(self, after: Tensors, before: Tensors, target_before: tf.Tensor, plan: Tensors) -> tf.Tensor:
        return self.convolve(pad(after[0], plan[0]), "VALID")


class DifferenceConvolution(Convolution):
    """A convolution updated by the convolution of the difference.

    The difference is zero outside the reach of the source. So, unlike the values, it needs no neighbourhood, and the
    layers before recompute only what they can change. In half precision the difference would be lost in the rounding.
    """

    def needs(self, reach: np.ndarray, needed: np.ndarray) -> np.ndarray:
        return reach

    def plan(self, reach: np.ndarray, needed: np.ndarray) -> list[np.ndarray]:
        seen = self.seen(needed)
        used = common(reach, seen)
        return [used - reach[0], np.abs(seen - used)]

    def update(self, after: Tensors, before: Tensors, target_before: tf.Tensor, plan: Tensors) -> tf.Tensor:
        values, dilations = pad(cut(after[0] - before[0], plan[0]), plan[1]), self.layer.dilation_rate
        return target_before + tf.nn.convolution(values, self.kernel, self.layer.strides, "VALID", dilations=dilations)


class SpreadConvolution(DifferenceConvolution):
    """A convolution without strides and dilation, which spreads the difference to the outputs that see it.

    That multiplies the inputs in reach only, which are far fewer than the outputs they reach.
    """

    def plan(self, reach: np.ndarray, needed: np.ndarray) -> list[np.ndarray]:
        start = reach[0] + self.padding_before - self.extent + 1
        used = common(np.stack([start, reach[1] + self.padding_before]), needed)
        return [used - start, np.abs(needed - used)]

    def update(self, after: Tensors, before: Tensors, target_before: tf.Tensor, plan: Tensors) -> tf.Tensor:
        difference = after[0] - before[0]
        mirrored = self.kernel[::-1, ::-1, ::-1].swapaxes(3, 4)
        growth = [0, *(self.extent - 1), mirrored.shape[3] - mirrored.shape[4]]
        spread = tf.nn.conv3d_transpose(difference, mirrored, tf.shape(difference) + growth, 1, "VALID")
        return target_before + pad(cut(spread, plan[0]), plan[1])


class GlobalAverage(Step):
    """Global average pooling, updated by the mean of the difference. Its target has no box, as of all sums over voxels
    (the kinds below)."""

    def needs(self, reach: np.ndarray, needed: np.ndarray) -> np.ndarray:
        return reach

    def update(self, after: Tensors, before: Tensors, target_before: tf.Tensor, plan: Tensors) -> tf.Tensor:
        difference = tf.cast(after[0], tf.float32) - tf.cast(before[0], tf.float32)
        return tf.cast(tf.cast(target_before, tf.float32) + self.change(difference, plan), target_before.dtype)

    def change(self, difference: tf.Tensor, plan: Tensors) -> tf.Tensor:
        """Return how the target changes by a difference that is 0 outside its box."""
        return tf.reduce_sum(difference, (1, 2, 3), keepdims=self.layer.keepdims) / math.prod(self.sizes[0])


class RegionMeans(GlobalAverage):
    """Means of regions, updated by the differences that lie in each. Its target has no box."""

    def plan(self, reach: np.ndarray, needed: np.ndarray) -> list[np.ndarray]:
        return [reach]

    def change(self, difference: tf.Tensor, plan: Tensors) -> tf.Tensor:
        position = cut(tf.constant(self.layer.position)[None, ..., None], plan[0])
        flat = tf.reshape(difference, (tf.shape(difference)[0], -1, difference.shape[-1]))
        return self.layer.sums(flat, tf.reshape(position, [-1])) / self.layer.sizes[:, None].astype(np.float32)


@dataclass
class Readout(GlobalAverage):
    """A dense layer of several networks on flattened activations, updated by the difference times the weights of the
    voxels in reach. Its target has no box."""

    def __post_init__(self) -> None:
        inputs, members, features, units = self.layer.kernel.shape
        filters = features // math.prod(self.sizes[0])
        self.of_voxel = inputs, members, filters, units
        of_voxels = tf.reshape(self.layer.kernel, (inputs, members, *self.sizes[0], filters, units))
        self.kernel = tf.reshape(tf.transpose(of_voxels, (2, 3, 4, 0, 1, 5, 6)), (1, *self.sizes[0], -1))

    def plan(self, reach: np.ndarray, needed: np.ndarray) -> list[np.ndarray]:
        return [reach]

    def change(self, difference: tf.Tensor, plan: Tensors) -> tf.Tensor:
        """Return how the target changes by a difference (batch * inputs, x, y, z, members * filters) in a box."""
        inputs, members, filters, _ = self.of_voxel
        weights = tf.reshape(cut(self.kernel, plan[0]), (-1, *self.of_voxel))
        values = tf.reshape(difference, (-1, inputs, tf.shape(weights)[0], members, filters))
        return tf.einsum("bivmf,vimfu->bimu", values, weights)
