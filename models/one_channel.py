"""Convolutions of one channel into one, which compute several neighbours at once; all others are those of Keras.

Weights, their names and results are those of Keras's layers, whose names these have, so that checkpoints fit both.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from keras import layers

LANE_COUNT = 8  # of float32 in a register of AVX2


def may_compute_in_lanes(layer: Any) -> bool:
    """Whether `Conv3D` or `Conv3DTranspose` computes this 'same' convolution by `LANE_COUNT` neighbours along z.

    It must have one channel, one filter, and strides of 1 or as wide as its kernel. The neighbours take the place of
    filters: oneDNN multiplies as many numbers at once as there are filters, so one filter leaves a processor idle.
    """
    return layer.kernel.shape[3:] == (1, 1) and layer.strides[0] in (1, layer.kernel_size[0])


def make_lane_kernel(kernel: Any, stride: int) -> Any:
    """(x, y, z) -> (x, y, values, LANE_COUNT): the kernel of each neighbour, at the values along z that it reads."""
    kernel_size = kernel.shape[2]
    value_count = (LANE_COUNT - 1) * stride + kernel_size
    value_number, output_lane_number, weight_number = np.ogrid[:value_count, :LANE_COUNT, :kernel_size]
    is_weight_read = value_number - output_lane_number * stride == weight_number  # (values, LANE_COUNT, weights)
    return tf.einsum("xyw,vlw->xyvl", kernel, tf.cast(is_weight_read, kernel.dtype))


def pad_to_lanes(volume: Any, zeros_before: Sequence[int], padded_sizes: Sequence[int]) -> Any:
    """(batch, x, y, z) -> (batch, *padded_sizes), with `zeros_before` each axis."""
    zeros_after = [
        padded_size - axis_zeros_before - volume_size
        for axis_zeros_before, padded_size, volume_size in zip(
            zeros_before, padded_sizes, volume.shape[1:], strict=True
        )
    ]
    return tf.pad(volume, [(0, 0), *zip(zeros_before, zeros_after, strict=True)])


def slice_volume(volume: Any, first_voxel: Sequence[int], slice_sizes: Sequence[int]) -> Any:
    """(batch, x, y, z, ...) -> (batch, *slice_sizes, ...) from `first_voxel` on. Plain slicing has a gradient that
    takes ten times as long."""
    trailing_starts = [0] * (len(volume.shape) - 4)
    return tf.slice(volume, [0, *first_voxel, *trailing_starts], [-1, *slice_sizes, *(-1 for _ in trailing_starts)])


def correlate_volume(volume: Any, kernel: Any, leading_zero_count: int) -> Any:
    """(batch, x, y, z) with `leading_zero_count` zeros before each axis, and as many as are needed after, times (k, k,
    k) -> (batch, x, y, z)."""
    x, y, z = volume.shape[1:]
    padded_z = math.ceil(z / LANE_COUNT) * LANE_COUNT
    extra_voxels = kernel.shape[0] - 1
    padded_volume = pad_to_lanes(
        volume, [leading_zero_count] * 3, (x + extra_voxels, y + extra_voxels, padded_z + extra_voxels)
    )
    # (batch, x, y, z / LANE_COUNT, LANE_COUNT)
    lane_sums = tf.nn.conv3d(
        tf.expand_dims(padded_volume, -1), make_lane_kernel(kernel, 1)[..., None, :], (1, 1, 1, LANE_COUNT, 1), "VALID"
    )
    return slice_volume(tf.reshape(lane_sums, (-1, x, y, padded_z)), [0] * 3, (x, y, z))


def convolve_volume(volume: Any, kernel: Any, leading_zero_count: int) -> Any:
    """`correlate_volume` with a gradient that is one, too; that of TensorFlow takes several times as long."""

    @tf.custom_gradient
    def correlate_differentiably(volume: Any, kernel: Any) -> tuple:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(kernel)
            correlation = correlate_volume(volume, kernel, leading_zero_count)

        def compute_gradients(upstream_gradient: Any) -> tuple:
            volume_gradient = correlate_volume(
                upstream_gradient, kernel[::-1, ::-1, ::-1], kernel.shape[0] - 1 - leading_zero_count
            )
            return volume_gradient, tape.gradient(correlation, kernel, upstream_gradient)

        return correlation, compute_gradients

    return correlate_differentiably(volume, kernel)


class Conv3D(layers.Conv3D):
    """A convolution; see `may_compute_in_lanes`."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        if not may_compute_in_lanes(self):
            return super().convolution_op(inputs, kernel)
        volume = tf.squeeze(inputs, -1)
        kernel = tf.squeeze(kernel, (3, 4))
        stride = self.strides[0]
        if stride == 1:
            return tf.expand_dims(convolve_volume(volume, kernel, (kernel.shape[0] - 1) // 2), -1)
        x, y, z = (math.ceil(volume_size / stride) for volume_size in volume.shape[1:])
        lane_block_count = math.ceil(z / LANE_COUNT)
        zeros_before = [
            (output_size * stride - volume_size) // 2
            for output_size, volume_size in zip((x, y, z), volume.shape[1:], strict=True)
        ]
        padded_volume = pad_to_lanes(
            volume, zeros_before, (x * stride, y * stride, lane_block_count * LANE_COUNT * stride)
        )
        input_lanes = tf.reshape(padded_volume, (-1, x * stride, y * stride, lane_block_count, LANE_COUNT * stride))
        # (batch, x, y, z / LANE_COUNT, LANE_COUNT)
        lane_sums = tf.nn.conv3d(
            input_lanes, make_lane_kernel(kernel, stride)[:, :, None], (1, stride, stride, 1, 1), "VALID"
        )
        padded_output = tf.reshape(lane_sums, (-1, x, y, lane_block_count * LANE_COUNT))
        return tf.expand_dims(slice_volume(padded_output, [0] * 3, (x, y, z)), -1)


class Conv3DTranspose(layers.Conv3DTranspose):
    """A transposed convolution; see `may_compute_in_lanes`."""

    def call(self, inputs: Any) -> Any:
        if not may_compute_in_lanes(self):
            return super().call(inputs)
        input_volume = tf.squeeze(inputs, -1)
        kernel = tf.squeeze(self.kernel, (3, 4))
        stride = self.strides[0]
        if stride == 1:
            correlation = convolve_volume(input_volume, kernel[::-1, ::-1, ::-1], kernel.shape[0] // 2)
            return tf.expand_dims(correlation, -1) + self.bias
        x, y, z = input_volume.shape[1:]
        lane_block_count = math.ceil(z / LANE_COUNT)
        padded_volume = pad_to_lanes(input_volume, [0] * 3, (x, y, lane_block_count * LANE_COUNT))
        input_lanes = tf.reshape(padded_volume, (-1, x, y, lane_block_count, LANE_COUNT))
        output_shape = (tf.shape(input_lanes)[0], x * stride, y * stride, lane_block_count, LANE_COUNT * stride)
        lane_values = tf.nn.conv3d_transpose(
            input_lanes, make_lane_kernel(kernel, stride)[:, :, None], output_shape, (1, stride, stride, 1, 1), "VALID"
        )
        padded_output = tf.reshape(lane_values, (-1, *output_shape[1:3], lane_block_count * LANE_COUNT * stride))
        output_volume = slice_volume(padded_output, [0] * 3, (*output_shape[1:3], z * stride))
        return tf.expand_dims(output_volume, -1) + self.bias


class Cropping3D(layers.Cropping3D):
    """The inside of a volume; see `slice_volume`."""

    def call(self, inputs: Any) -> Any:
        first_voxel = [voxels_before for voxels_before, _ in self.cropping]
        output_sizes = self.compute_output_shape(inputs.shape)[1:4]
        return slice_volume(inputs, first_voxel, output_sizes)
