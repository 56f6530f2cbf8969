"""The steps of local recomputation: one layer, its inputs before and after occlusion -> its new output.

A box is an array (2, 3): the first index and one past the last along x, y and z. As tensors it is two of (5,), with
unused entries for batch and channels. Activations are (batch, x, y, z, channels).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import KerasTensor, layers

Tensors = list[tf.Tensor]
Box = Any
NOWHERE = np.zeros((2, 3), int)
EVERY_RECORD_AND_CHANNEL = 0b10001  # the axes, as bits, along which a box does not cut


def cut(activation: tf.Tensor, box: Box) -> tf.Tensor:
    """Return the part of `activation` inside `box`."""
    everything = EVERY_RECORD_AND_CHANNEL
    return tf.strided_slice(activation, box[0], box[1], [1] * 5, begin_mask=everything, end_mask=everything)


def paste(activation: tf.Tensor, box: Box, value: tf.Tensor) -> tf.Tensor:
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


def pad(values: tf.Tensor, widths: Box, padding_value: float = 0) -> tf.Tensor:
    """Return `values` with `widths` of padding before and after it."""
    padding_value = tf.cast(padding_value, values.dtype)
    return tf.pad(values, tf.stack([widths[0], widths[1]], axis=1), constant_values=padding_value)


class StepPlan(NamedTuple):
    """What one step does for one region, in boxes."""

    sources: list[Box]  # what is read of each source, within what is held of it
    target: Box  # what is computed of the target, and held
    used: Box  # of the differences that a convolution reads or gives: those that count
    padding: Box  # widths before and after what the window reads or gives


@dataclass
class Step:
    """One layer of the local part of the network.

    A change within the reach of the sources stays within the reach of the target. The next steps may need the target on
    a larger box, which is held; for that the step in turn reads its sources on a box of its own. This class is the
    layer whose output voxel depends on the same voxel of its sources.
    """

    layer: Any
    sources: list[KerasTensor]
    target: KerasTensor
    is_kept = False  # whether the target of a pass with nothing occluded is kept, and not computed again

    def reach(self, source: np.ndarray) -> np.ndarray:
        """Return the reach of the target from that of the sources."""
        return source

    def boxes(self, reach: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the box on which all sources are read, `StepPlan.used` and `StepPlan.padding`, given the `reach` of
        the sources, and what is `held` of the target."""
        return held, NOWHERE, NOWHERE

    def update(self, after: Tensors, before: Tensors, target_before: tf.Tensor | None, plan: StepPlan) -> tf.Tensor:
        """Return what is held of the target, from what is read of the sources `before` and `after` occlusion."""
        return self.layer(after if len(after) > 1 else after[0])


def extent_of(layer: Any) -> np.ndarray:
    """Return how many voxels the window of a convolution or pooling spans along each axis."""
    window = layer.kernel_size if isinstance(layer, layers.Conv3D) else layer.pool_size
    return (np.array(window) - 1) * getattr(layer, "dilation_rate", (1, 1, 1)) + 1


@dataclass
class Windowed(Step):
    """A layer that slides a window over one source, with one number per axis for its extent, strides and padding."""

    is_kept = True

    def __post_init__(self) -> None:
        self.size, self.target_size = (np.array(one.shape[1:4]) for one in (self.sources[0], self.target))
        self.strides, self.extent = np.array(self.layer.strides), extent_of(self.layer)
        padding = np.maximum((self.target_size - 1) * self.strides + self.extent - self.size, 0)
        self.padding_before = padding // 2 if self.layer.padding == "same" else np.zeros_like(padding)

    def reach(self, source: np.ndarray) -> np.ndarray:
        """Return the box of outputs that see the change; at least one voxel, as kernels refuse empty tensors."""
        first, last = source[0], source[1] - 1
        start = -((self.extent - 1 - self.padding_before - first) // self.strides)
        start = np.clip(start, 0, self.target_size - 1)
        stop = (last + self.padding_before) // self.strides + 1
        return np.stack([start, np.clip(stop, start + 1, self.target_size)])

    def seen(self, box: np.ndarray) -> np.ndarray:
        """Return the box of inputs that the outputs in `box` see, which may extend into the padding."""
        start = box * self.strides - self.padding_before
        return np.stack([start[0], start[1] - self.strides + self.extent])

    def boxes(self, reach: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        seen = self.seen(held)
        inside = common(seen, np.stack([np.zeros_like(self.size), self.size]))
        return inside, NOWHERE, np.abs(seen - inside)


class MaximumPooling(Windowed):
    """Maximum pooling."""

    def update(self, after: Tensors, before: Tensors, target_before: tf.Tensor | None, plan: StepPlan) -> tf.Tensor:
        values = tf.cast(after[0], self.layer.compute_dtype)
        values = pad(values, plan.padding, values.dtype.min)
        return tf.nn.max_pool3d(values, self.layer.pool_size, self.layer.strides, "VALID")


@dataclass
class Convolution(Windowed):
    """A convolution, computed again from all that its window sees."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.kernel = self.layer.kernel.numpy()
        self.bias = self.layer.bias.numpy() if self.layer.use_bias else np.zeros(self.kernel.shape[-1], np.float32)

    def folds(self, following: Any) -> bool:
        """Return whether the only layer that reads the target can become a part of this convolution."""
        linear = self.layer.activation is keras.activations.linear
        single = self.layer.compute_dtype == following.compute_dtype == "float32"
        return linear and single and type(following) is layers.BatchNormalization

    def fold(self, normalisation: layers.BatchNormalization, target: KerasTensor) -> None:
        """Take over the batch normalisation that is the only reader of this convolution."""
        scale = 1 / np.sqrt(normalisation.moving_variance.numpy() + normalisation.epsilon)
        if normalisation.scale:
            scale = scale * normalisation.gamma.numpy()
        self.kernel, self.bias = self.kernel * scale, (self.bias - normalisation.moving_mean.numpy()) * scale
        if normalisation.center:
            self.bias = self.bias + normalisation.beta.numpy()
        self.target = target

    def update(self, after: Tensors, before: Tensors, target_before: tf.Tensor | None, plan: StepPlan) -> tf.Tensor:
        layer, dtype = self.layer, self.layer.compute_dtype
        # TensorFlow 2.21 with oneDNN reads uninitialised memory for some small volumes in bfloat16.
        values, kernel = (tf.cast(tf.cast(x, dtype), tf.float32) for x in (after[0], self.kernel))
        values = pad(values, plan.padding)
        sums = tf.nn.convolution(values, kernel, layer.strides, "VALID", dilations=layer.dilation_rate)
        return layer.activation(tf.cast(sums, dtype) + tf.cast(self.bias, dtype))


class DifferenceConvolution(Convolution):
    """A convolution updated by the convolution of the difference.

    The difference is zero outside the reach of the source. So, unlike the values, it needs no neighbourhood, and the
    layers before recompute only what they can change. In half precision the difference would be lost in the rounding.
    """

    def boxes(self, reach: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        seen = self.seen(held)
        used = common(reach, seen)
        return reach, used - reach[0], np.abs(seen - used)

    def update(self, after: Tensors, before: Tensors, target_before: tf.Tensor | None, plan: StepPlan) -> tf.Tensor:
        values, layer = pad(cut(after[0] - before[0], plan.used), plan.padding), self.layer
        return target_before + tf.nn.convolution(
            values, self.kernel, layer.strides, "VALID", dilations=layer.dilation_rate
        )


class SpreadConvolution(DifferenceConvolution):
    """A convolution without strides and dilation, which spreads the difference to the outputs that see it.

    That multiplies the inputs in reach only, which are far fewer than the outputs they reach.
    """

    def boxes(self, reach: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        start = reach[0] + self.padding_before - self.extent + 1
        used = common(np.stack([start, reach[1] + self.padding_before]), held)
        return reach, used - start, np.abs(held - used)

    def update(self, after: Tensors, before: Tensors, target_before: tf.Tensor | None, plan: StepPlan) -> tf.Tensor:
        difference = after[0] - before[0]
        mirrored = self.kernel[::-1, ::-1, ::-1].swapaxes(3, 4)
        growth = [0, *(self.extent - 1), mirrored.shape[3] - mirrored.shape[4]]
        spread = tf.nn.conv3d_transpose(difference, mirrored, tf.shape(difference) + growth, 1, "VALID")
        return target_before + pad(cut(spread, plan.used), plan.padding)


def convolution_of(layer: Any) -> type[Convolution]:
    """Return the cheapest kind of step that is accurate for a convolution."""
    linear = layer.activation is keras.activations.linear
    if not linear or layer.compute_dtype != "float32" or layer.kernel.shape[3] == 1:
        return Convolution
    return SpreadConvolution if {*layer.strides, *layer.dilation_rate} == {1} else DifferenceConvolution
