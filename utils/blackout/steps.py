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

TensorList = list[tf.Tensor]
Box = Any  # array (2, 3), or two tensors (5,): first index and one past the last, along x, y, z
EMPTY_BOX = np.zeros((2, 3), int)
UNCUT_AXES_BITS = 0b10001  # the axes, as bits, along which a box does not cut


def slice_box(activation: tf.Tensor, box: Box) -> tf.Tensor:
    """Return the part of `activation` inside `box`."""
    return tf.strided_slice(activation, box[0], box[1], [1] * 5, begin_mask=UNCUT_AXES_BITS, end_mask=UNCUT_AXES_BITS)


def paste_box(activation: tf.Tensor, box: Box, box_values: tf.Tensor) -> tf.Tensor:
    """Return a copy of `activation` with `box_values` inside `box`."""
    return tf.raw_ops.TensorStridedSliceUpdate(
        input=activation, begin=box[0], end=box[1], strides=[1] * 5, value=box_values,
        begin_mask=UNCUT_AXES_BITS, end_mask=UNCUT_AXES_BITS,
    )  # fmt: skip


def find_hull(boxes: list[np.ndarray]) -> np.ndarray:
    """Return the smallest box around all `boxes`."""
    hull_start = np.min([box[0] for box in boxes], axis=0)
    hull_end = np.max([box[1] for box in boxes], axis=0)
    return np.stack([hull_start, hull_end])


def intersect_boxes(first_box: np.ndarray, second_box: np.ndarray) -> np.ndarray:
    """Return the intersection of two boxes; where they do not meet, a box without voxels between them."""
    common_start = np.minimum(np.maximum(first_box[0], second_box[0]), second_box[1])
    common_end = np.maximum(common_start, np.minimum(first_box[1], second_box[1]))
    return np.stack([common_start, common_end])


def pad_volume(activation: tf.Tensor, padding_widths: Box, padding_value: float = 0) -> tf.Tensor:
    """Return `activation` with `padding_widths` of padding before and after it."""
    widths_by_axis = tf.stack([padding_widths[0], padding_widths[1]], axis=1)  # (5, 2)
    return tf.pad(activation, widths_by_axis, constant_values=tf.cast(padding_value, activation.dtype))


class StepPlan(NamedTuple):
    """What one step does for one region, in boxes."""

    source_boxes: list[Box]  # what is read of each source, within the part of it that was computed
    target_box: Box  # what is computed of the target
    used_difference_box: Box  # of the differences that a convolution reads or gives: those that count
    padding_widths: Box  # widths before and after what the window reads or gives


class StepBoxes(NamedTuple):
    """Which boxes a step needs to compute its target, on the grids of the layers."""

    source_box: np.ndarray  # on which all sources are read
    used_difference_box: np.ndarray  # as in `StepPlan`
    padding_widths: np.ndarray  # as in `StepPlan`


@dataclass
class Step:
    """One layer of the local part of the network.

    A change within the reach of the sources stays within the reach of the target. The next steps may need the target on
    a larger box, which is what is computed; for that the step in turn reads its sources on a box of its own. This class
    is the layer whose output voxel depends on the same voxel of its sources.
    """

    layer: Any  # a Keras layer
    source_tensors: list[KerasTensor]  # symbolic inputs of the layer
    target_tensor: KerasTensor  # symbolic output of the layer
    is_target_cached = False  # whether the target of a pass with nothing occluded is kept, and not computed again

    def propagate_reach(self, source_reach: np.ndarray) -> np.ndarray:
        """Return the reach of the target from that of the sources."""
        return source_reach

    def find_boxes(self, source_reach: np.ndarray, target_box: np.ndarray) -> StepBoxes:
        """Return the boxes of this step, given the reach of the sources and the box on which the target is computed."""
        return StepBoxes(target_box, EMPTY_BOX, EMPTY_BOX)

    def update_target(
        self,
        occluded_source_values: TensorList,
        intact_source_values: TensorList,
        intact_target_values: tf.Tensor | None,
        step_plan: StepPlan,
    ) -> tf.Tensor:
        """Return what is computed of the target, from what is read of the sources before and after occlusion."""
        return self.layer(occluded_source_values if len(occluded_source_values) > 1 else occluded_source_values[0])


def compute_window_extent(layer: Any) -> np.ndarray:
    """Return how many voxels the window of a convolution or pooling spans along each axis."""
    window_size = layer.kernel_size if isinstance(layer, layers.Conv3D) else layer.pool_size
    return (np.array(window_size) - 1) * getattr(layer, "dilation_rate", (1, 1, 1)) + 1


@dataclass
class WindowedStep(Step):
    """A layer that slides a window over one source, with one number per axis for its extent, strides and padding."""

    is_target_cached = True

    def __post_init__(self) -> None:
        self.source_grid_shape = np.array(self.source_tensors[0].shape[1:4])
        self.target_grid_shape = np.array(self.target_tensor.shape[1:4])
        self.strides = np.array(self.layer.strides)
        self.window_extent = compute_window_extent(self.layer)
        total_padding = np.maximum(
            (self.target_grid_shape - 1) * self.strides + self.window_extent - self.source_grid_shape, 0
        )
        self.padding_before = total_padding // 2 if self.layer.padding == "same" else np.zeros_like(total_padding)

    def propagate_reach(self, source_reach: np.ndarray) -> np.ndarray:
        """Return the box of outputs that see the change; at least one voxel, as kernels refuse empty tensors."""
        first_changed_voxel = source_reach[0]
        last_changed_voxel = source_reach[1] - 1
        first_seeing_voxel = -((self.window_extent - 1 - self.padding_before - first_changed_voxel) // self.strides)
        end_seeing_voxel = (last_changed_voxel + self.padding_before) // self.strides + 1
        # Within the grid of the target
        first_output_voxel = np.clip(first_seeing_voxel, 0, self.target_grid_shape - 1)
        end_output_voxel = np.clip(end_seeing_voxel, first_output_voxel + 1, self.target_grid_shape)
        return np.stack([first_output_voxel, end_output_voxel])

    def find_seen_box(self, output_box: np.ndarray) -> np.ndarray:
        """Return the box of inputs that the outputs in `output_box` see, which may extend into the padding."""
        # of the first output, and of the one past the last
        window_starts = output_box * self.strides - self.padding_before
        return np.stack([window_starts[0], window_starts[1] - self.strides + self.window_extent])

    def find_boxes(self, source_reach: np.ndarray, target_box: np.ndarray) -> StepBoxes:
        seen_box = self.find_seen_box(target_box)
        source_grid_box = np.stack([np.zeros_like(self.source_grid_shape), self.source_grid_shape])
        seen_box_in_source_grid = intersect_boxes(seen_box, source_grid_box)
        padding_widths = np.abs(seen_box - seen_box_in_source_grid)
        return StepBoxes(seen_box_in_source_grid, EMPTY_BOX, padding_widths)


class MaximumPoolingStep(WindowedStep):
    """Maximum pooling."""

    def update_target(
        self,
        occluded_source_values: TensorList,
        intact_source_values: TensorList,
        intact_target_values: tf.Tensor | None,
        step_plan: StepPlan,
    ) -> tf.Tensor:
        layer_input = tf.cast(occluded_source_values[0], self.layer.compute_dtype)
        padded_input = pad_volume(layer_input, step_plan.padding_widths, layer_input.dtype.min)
        return tf.nn.max_pool3d(padded_input, self.layer.pool_size, self.layer.strides, "VALID")


@dataclass
class ConvolutionStep(WindowedStep):
    """A convolution, computed again from all that its window sees."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.kernel = self.layer.kernel.numpy()  # weights (x, y, z, inputs, outputs)
        self.bias = self.layer.bias.numpy() if self.layer.use_bias else np.zeros(self.kernel.shape[-1], np.float32)

    def can_fold_normalisation(self, next_layer: Any) -> bool:
        """Return whether the only layer that reads the target can become a part of this convolution."""
        is_linear = self.layer.activation is keras.activations.linear
        is_single_precision = self.layer.compute_dtype == next_layer.compute_dtype == "float32"
        return is_linear and is_single_precision and type(next_layer) is layers.BatchNormalization

    def fold_normalisation(self, batch_normalisation: layers.BatchNormalization, target_tensor: KerasTensor) -> None:
        """Take over the batch normalisation that is the only reader of this convolution."""
        channel_factors = 1 / np.sqrt(batch_normalisation.moving_variance.numpy() + batch_normalisation.epsilon)
        if batch_normalisation.scale:
            channel_factors = channel_factors * batch_normalisation.gamma.numpy()
        self.kernel = self.kernel * channel_factors
        self.bias = (self.bias - batch_normalisation.moving_mean.numpy()) * channel_factors
        if batch_normalisation.center:
            self.bias = self.bias + batch_normalisation.beta.numpy()
        self.target_tensor = target_tensor

    def update_target(
        self,
        occluded_source_values: TensorList,
        intact_source_values: TensorList,
        intact_target_values: tf.Tensor | None,
        step_plan: StepPlan,
    ) -> tf.Tensor:
        layer = self.layer
        compute_dtype = layer.compute_dtype
        # Rounded to the layer's number format, but convolved in float32: TensorFlow 2.21 with oneDNN reads
        # uninitialised memory for some small volumes in bfloat16.
        rounded_input = tf.cast(tf.cast(occluded_source_values[0], compute_dtype), tf.float32)
        rounded_kernel = tf.cast(tf.cast(self.kernel, compute_dtype), tf.float32)
        padded_input = pad_volume(rounded_input, step_plan.padding_widths)
        convolved_input = tf.nn.convolution(
            padded_input, rounded_kernel, layer.strides, "VALID", dilations=layer.dilation_rate
        )
        return layer.activation(tf.cast(convolved_input, compute_dtype) + tf.cast(self.bias, compute_dtype))


class DifferenceConvolutionStep(ConvolutionStep):
    """A convolution updated by the convolution of the difference.

    The difference is zero outside the reach of the source. So, unlike the values, it needs no neighbourhood, and the
    layers before recompute only what they can change. In half precision the difference would be lost in the rounding.
    """

    def find_boxes(self, source_reach: np.ndarray, target_box: np.ndarray) -> StepBoxes:
        seen_box = self.find_seen_box(target_box)
        seen_reach_box = intersect_boxes(source_reach, seen_box)
        used_difference_box = seen_reach_box - source_reach[0]
        padding_widths = np.abs(seen_box - seen_reach_box)
        return StepBoxes(source_reach, used_difference_box, padding_widths)

    def update_target(
        self,
        occluded_source_values: TensorList,
        intact_source_values: TensorList,
        intact_target_values: tf.Tensor | None,
        step_plan: StepPlan,
    ) -> tf.Tensor:
        layer = self.layer
        input_difference = occluded_source_values[0] - intact_source_values[0]
        used_difference = slice_box(input_difference, step_plan.used_difference_box)
        padded_difference = pad_volume(used_difference, step_plan.padding_widths)
        output_difference = tf.nn.convolution(
            padded_difference, self.kernel, layer.strides, "VALID", dilations=layer.dilation_rate
        )
        return intact_target_values + output_difference


class SpreadConvolutionStep(DifferenceConvolutionStep):
    """A convolution without strides and dilation, which spreads the difference to the outputs that see it.

    That multiplies the inputs in reach only, which are far fewer than the outputs they reach.
    """

    def find_boxes(self, source_reach: np.ndarray, target_box: np.ndarray) -> StepBoxes:
        spread_start = source_reach[0] + self.padding_before - self.window_extent + 1
        spread_box = np.stack([spread_start, source_reach[1] + self.padding_before])  # all outputs that see the change
        reached_target_box = intersect_boxes(spread_box, target_box)
        used_difference_box = reached_target_box - spread_start
        padding_widths = np.abs(target_box - reached_target_box)
        return StepBoxes(source_reach, used_difference_box, padding_widths)

    def update_target(
        self,
        occluded_source_values: TensorList,
        intact_source_values: TensorList,
        intact_target_values: tf.Tensor | None,
        step_plan: StepPlan,
    ) -> tf.Tensor:
        input_difference = occluded_source_values[0] - intact_source_values[0]
        mirrored_kernel = self.kernel[::-1, ::-1, ::-1].swapaxes(3, 4)
        shape_growth = [0, *(self.window_extent - 1), mirrored_kernel.shape[3] - mirrored_kernel.shape[4]]
        output_difference = tf.nn.conv3d_transpose(
            input_difference, mirrored_kernel, tf.shape(input_difference) + shape_growth, 1, "VALID"
        )
        used_difference = slice_box(output_difference, step_plan.used_difference_box)
        return intact_target_values + pad_volume(used_difference, step_plan.padding_widths)


def choose_convolution_step(layer: Any) -> type[ConvolutionStep]:
    """Return the cheapest kind of step that is accurate for a convolution."""
    is_linear = layer.activation is keras.activations.linear
    if not is_linear or layer.compute_dtype != "float32" or layer.kernel.shape[3] == 1:
        return ConvolutionStep
    return SpreadConvolutionStep if {*layer.strides, *layer.dilation_rate} == {1} else DifferenceConvolutionStep
