"""Convolutions of one channel into one, which compute several neighbours at once; all others are those of Keras.

Weights, their names and results are those of Keras's layers, whose names these have, so that checkpoints fit both.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from keras import layers

LANES = 8  # of float32 in a register of AVX2


def is_one_channel(layer: Any) -> bool:
    """Whether `Conv3D` or `Conv3DTranspose` computes this 'same' convolution by `LANES` neighbours along z.

    It must have one channel, one filter, and strides of 1 or as wide as its kernel. The neighbours take the place of
    filters: oneDNN multiplies as many numbers at once as there are filters, so one filter leaves a processor idle.
    """
    return layer.kernel.shape[3:] == (1, 1) and layer.strides[0] in (1, layer.kernel_size[0])


def of_lanes(kernel: Any, stride: int) -> Any:
    """(x, y, z) -> (x, y, values, LANES): the kernel of each neighbour, at the values along z that it reads."""
    size = kernel.shape[2]
    value, lane, weight = np.ogrid[: (LANES - 1) * stride + size, :LANES, :size]
    return tf.einsum("xyw,vlw->xyvl", kernel, tf.cast(value - lane * stride == weight, kernel.dtype))


def padded(volume: Any, before: Sequence[int], sizes: Sequence[int]) -> Any:
    """(batch, x, y, z) -> (batch, *sizes), with so many zeros before each axis."""
    after = [size - first - own for first, size, own in zip(before, sizes, volume.shape[1:], strict=True)]
    return tf.pad(volume, [(0, 0), *zip(before, after, strict=True)])


def cut(volume: Any, first: Sequence[int], sizes: Sequence[int]) -> Any:
    """(batch, x, y, z, ...) -> (batch, *sizes, ...) from the voxel `first`. Plain slicing has a gradient that takes ten
    times as long."""
    rest = [0] * (len(volume.shape) - 4)
    return tf.slice(volume, [0, *first, *rest], [-1, *sizes, *(-1 for _ in rest)])


def correlated(volume: Any, kernel: Any, first: int) -> Any:
    """(batch, x, y, z) with `first` zeros before each axis, and as many as are needed after, times (k, k, k) ->
    (batch, x, y, z)."""
    x, y, z = volume.shape[1:]
    lanes, more = math.ceil(z / LANES) * LANES, kernel.shape[0] - 1
    values = padded(volume, [first] * 3, (x + more, y + more, lanes + more))
    found = tf.nn.conv3d(tf.expand_dims(values, -1), of_lanes(kernel, 1)[..., None, :], (1, 1, 1, LANES, 1), "VALID")
    return cut(tf.reshape(found, (-1, x, y, lanes)), [0] * 3, (x, y, z))


def convolved(volume: Any, kernel: Any, first: int) -> Any:
    """`correlated` with a gradient that is one, too; that of TensorFlow takes several times as long."""

    @tf.custom_gradient
    def differentiable(volume: Any, kernel: Any) -> tuple:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(kernel)
            found = correlated(volume, kernel, first)

        def gradient(upstream: Any) -> tuple:
            of_volume = correlated(upstream, kernel[::-1, ::-1, ::-1], kernel.shape[0] - 1 - first)
            return of_volume, tape.gradient(found, kernel, upstream)

        return found, gradient

    return differentiable(volume, kernel)


class Conv3D(layers.Conv3D):
    """A convolution; see `is_one_channel`."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        if not is_one_channel(self):
            return super().convolution_op(inputs, kernel)
        volume, kernel, stride = tf.squeeze(inputs, -1), tf.squeeze(kernel, (3, 4)), self.strides[0]
        if stride == 1:
            return tf.expand_dims(convolved(volume, kernel, (kernel.shape[0] - 1) // 2), -1)
        x, y, z = (math.ceil(size / stride) for size in volume.shape[1:])
        blocks = math.ceil(z / LANES)
        before = [(edge * stride - size) // 2 for edge, size in zip((x, y, z), volume.shape[1:], strict=True)]
        values = padded(volume, before, (x * stride, y * stride, blocks * LANES * stride))
        values = tf.reshape(values, (-1, x * stride, y * stride, blocks, LANES * stride))
        found = tf.nn.conv3d(values, of_lanes(kernel, stride)[:, :, None], (1, stride, stride, 1, 1), "VALID")
        return tf.expand_dims(cut(tf.reshape(found, (-1, x, y, blocks * LANES)), [0] * 3, (x, y, z)), -1)


class Conv3DTranspose(layers.Conv3DTranspose):
    """A transposed convolution; see `is_one_channel`."""

    def call(self, inputs: Any) -> Any:
        if not is_one_channel(self):
            return super().call(inputs)
        values, kernel, stride = tf.squeeze(inputs, -1), tf.squeeze(self.kernel, (3, 4)), self.strides[0]
        if stride == 1:
            return tf.expand_dims(convolved(values, kernel[::-1, ::-1, ::-1], kernel.shape[0] // 2), -1) + self.bias
        x, y, z = values.shape[1:]
        blocks = math.ceil(z / LANES)
        values = tf.reshape(padded(values, [0] * 3, (x, y, blocks * LANES)), (-1, x, y, blocks, LANES))
        shape = (tf.shape(values)[0], x * stride, y * stride, blocks, LANES * stride)
        found = tf.nn.conv3d_transpose(
            values, of_lanes(kernel, stride)[:, :, None], shape, (1, stride, stride, 1, 1), "VALID"
        )
        volume = tf.reshape(found, (-1, *shape[1:3], blocks * LANES * stride))
        return tf.expand_dims(cut(volume, [0] * 3, (*shape[1:3], z * stride)), -1) + self.bias


class Cropping3D(layers.Cropping3D):
    """The inside of a volume; see `cut`."""

    def call(self, inputs: Any) -> Any:
        first, sizes = [before for before, _ in self.cropping], self.compute_output_shape(inputs.shape)[1:4]
        return cut(inputs, first, sizes)
