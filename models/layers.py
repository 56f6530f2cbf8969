"""Layers that the models share: each takes a Keras tensor and `LayerSettings` and gives a Keras tensor."""

import math
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import KerasTensor, layers

from data.cohorts.cohort import RunningMoments
from data.images.atlas import load_atlas
from data.images.grids import Grid
from data.images.parcels import make_region_parcels
from data.tables.vocabulary import PHENOTYPE_SIZE
from models import LayerSettings
from models.one_channel import Conv3D, Conv3DTranspose, Cropping3D

NETWORKS_RANK = 4  # of features of several networks: (batch, inputs, members, features)


def volume_input(grid: Grid, map_count: int = 1) -> KerasTensor:
    """(batch, x, y, z, maps) float32, each map z-scored."""
    return keras.Input((*grid.shape, map_count), name="volume")


def phenotype_input() -> KerasTensor:
    """(batch, 29) float32, scaled."""
    return keras.Input((PHENOTYPE_SIZE,), name="phenotype")


class AveragingInitializer(keras.initializers.Initializer):
    """A convolution of stride s starts as the mean of s^3 voxels, its mirror image as their repetition. A little of
    Xavier's noise tells filters apart."""

    NOISE_SCALE = 0.1  # factor of Xavier's noise

    def __init__(self, stride: int, is_transposed: bool) -> None:
        self.stride = stride
        self.is_transposed = is_transposed

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        initial_kernel = np.zeros(shape, np.float32)
        centre_slices = tuple(
            slice((kernel_edge - self.stride) // 2, (kernel_edge + self.stride) // 2) for kernel_edge in shape[:3]
        )
        initial_kernel[centre_slices] = 1 / shape[-1] if self.is_transposed else 1 / (self.stride**3 * shape[-2])
        xavier_noise = keras.initializers.GlorotUniform()(shape, dtype)
        return keras.ops.cast(initial_kernel, dtype) + self.NOISE_SCALE * xavier_noise


class RegionMeans(layers.Layer):
    """(batch, x, y, z, maps) -> (batch, regions, maps): the mean of each map in each region of AAL."""

    def __init__(self, grid: Grid, **layer_options: Any) -> None:
        super().__init__(**layer_options)
        self.grid = grid
        self.parcels = make_region_parcels(load_atlas(None, grid))
        self.region_index_by_voxel = self.parcels.parcel_indices  # (x, y, z); the last is no region
        self.region_voxel_counts = self.parcels.parcel_voxel_counts  # voxels of each region
        # into the flattened grid
        self.inside_voxel_indices = np.flatnonzero(self.region_index_by_voxel < self.parcels.parcel_count)

    def sum_by_region(self, voxel_values: Any, voxel_region_indices: Any) -> Any:
        """Values (batch, voxels, maps) and the position of each voxel's region (voxels,) -> sums (batch, regions,
        maps)."""
        voxels_first = keras.ops.transpose(voxel_values, (1, 0, 2))
        region_sums = keras.ops.segment_sum(voxels_first, voxel_region_indices, len(self.region_voxel_counts) + 1)
        return keras.ops.transpose(region_sums[:-1], (1, 0, 2))

    def call(self, volume: Any) -> Any:
        # (batch, voxels, maps)
        flat_volume = keras.ops.reshape(volume, (-1, self.region_index_by_voxel.size, volume.shape[-1]))
        inside_values = keras.ops.take(flat_volume, self.inside_voxel_indices, axis=1)
        region_sums = self.sum_by_region(inside_values, self.region_index_by_voxel.ravel()[self.inside_voxel_indices])
        region_voxel_counts = self.region_voxel_counts[:, None]
        # A graph would multiply by the reciprocal of a constant in place of a plain division
        return tf.math.divide_no_nan(region_sums, region_voxel_counts.astype(self.compute_dtype))


class Standardise(layers.Layer):
    """Values -> z-scores by the mean and the spread of training records, which `fit_moments` sets before training.

    Each feature, or each voxel of each map, has its own.
    """

    def build(self, input_shape: tuple) -> None:
        weight_options = {"shape": input_shape[1:], "trainable": False, "dtype": "float32"}
        self.mean = self.add_weight(name="mean", initializer="zeros", **weight_options)  # of the shape of one sample
        # SD, of the shape of one sample
        self.spread = self.add_weight(name="spread", initializer="ones", **weight_options)

    def fit_moments(self, value_batches: Iterable[np.ndarray]) -> None:
        """Sets the mean and the spread to those of all batches (n, ...); a constant value is only centred."""
        moments = RunningMoments()
        for batch_values in value_batches:
            moments.add_batch(batch_values)
        self.mean.assign(moments.mean)
        self.spread.assign(moments.nonzero_sd)

    def call(self, values: Any) -> Any:
        return self.compute_z_scores(values, self.mean, self.spread)

    def compute_z_scores(self, values: Any, mean: Any, spread: Any) -> Any:
        """z-scores of values by a mean and a spread of their own, both in float32."""
        return (values - keras.ops.cast(mean, values.dtype)) / keras.ops.cast(spread, values.dtype)


class Dropout(layers.Dropout):
    """Dropout with a mask of its own on each device; Keras would use the same mask on all, as they share the seed."""

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training or not self.rate:
            return inputs
        replica_id = tf.distribute.get_replica_context().replica_id_in_sync_group
        seed = tf.add(tf.cast(self.seed_generator.next(), tf.int32), [replica_id, 0])
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, seed)


class SplitMaps(layers.Layer):
    """(batch, x, y, z, maps) -> (batch * maps, x, y, z, 1): each map is a sample of its own."""

    def call(self, volume: Any) -> Any:
        maps_first = keras.ops.transpose(volume, (0, 4, 1, 2, 3))
        return keras.ops.reshape(maps_first, (-1, *keras.ops.shape(maps_first)[2:], 1))


class JoinMaps(layers.Layer):
    """(batch * maps, members, features) -> (batch, maps, members, features), for the samples of `SplitMaps`."""

    def __init__(self, map_count: int, **layer_options: Any) -> None:
        super().__init__(**layer_options)
        self.map_count = map_count

    def call(self, features: Any) -> Any:
        return keras.ops.reshape(features, (-1, self.map_count, *features.shape[1:]))


class NetworkInitializer(keras.initializers.Initializer):
    """A kernel (inputs, members, features, units) of several networks, each of which starts as if it were alone."""

    def __init__(self, single_initializer: str) -> None:
        self.single_initializer = single_initializer

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        network_kernels = [
            keras.initializers.get(self.single_initializer)(shape[2:], dtype) for _ in range(math.prod(shape[:2]))
        ]
        return keras.ops.reshape(keras.ops.stack(network_kernels), shape)


class MemberInitializer(keras.initializers.Initializer):
    """A kernel (..., inputs, members * units) of members side by side, each of which starts as if it were alone."""

    def __init__(self, single_initializer: str, member_count: int) -> None:
        self.single_initializer = single_initializer
        self.member_count = member_count

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        member_kernel_shape = (*shape[:-1], shape[-1] // self.member_count)
        member_kernels = [
            keras.initializers.get(self.single_initializer)(member_kernel_shape, dtype)
            for _ in range(self.member_count)
        ]
        return keras.ops.concatenate(member_kernels, axis=-1)


class ChannelSlice(layers.Layer):
    """(batch, x, y, z, channels) -> (batch, x, y, z, stop - start): some of the channels."""

    def __init__(self, start_channel: int, stop_channel: int, **layer_options: Any) -> None:
        super().__init__(**layer_options)
        self.start_channel = start_channel
        self.stop_channel = stop_channel

    def call(self, volume: Any) -> Any:
        return volume[..., self.start_channel : self.stop_channel]


class SplitMembers(layers.Layer):
    """Activations of members side by side (batch, x, y, z, members * filters) -> (batch, members, x * y * z * filters),
    flattened for each member."""

    def __init__(self, member_count: int, **layer_options: Any) -> None:
        super().__init__(**layer_options)
        self.member_count = member_count

    def call(self, x: Any) -> Any:
        voxel_count = math.prod(x.shape[1:4])
        filter_count = x.shape[-1] // self.member_count
        voxels_first = keras.ops.reshape(x, (-1, voxel_count, self.member_count, filter_count))
        members_first = keras.ops.transpose(voxels_first, (0, 2, 1, 3))
        return keras.ops.reshape(members_first, (-1, self.member_count, voxel_count * filter_count))


def cube_means(x: KerasTensor, cube_edge: int) -> KerasTensor:
    """(batch, x, y, z, channels) -> means of cubes of `cube_edge` voxels; those at the border have fewer."""
    # TensorFlow 2.21 cannot pool float16 on a CPU.
    return layers.AveragePooling3D(cube_edge, padding="same", dtype="float32")(x)


def make_penalty(kernel_settings: LayerSettings) -> keras.Regularizer | None:
    return (
        keras.regularizers.L1L2(kernel_settings.l1, kernel_settings.l2)
        if kernel_settings.l1 or kernel_settings.l2
        else None
    )


def make_kernel_options(
    kernel_settings: LayerSettings, averaging_initializer: AveragingInitializer | None = None
) -> dict:
    """Keyword arguments for a layer with a kernel, which starts from `averaging_initializer` if the settings say so."""
    kernel_initializer = (
        averaging_initializer if kernel_settings.initializer == "averaging" else kernel_settings.initializer
    )
    return {"kernel_initializer": kernel_initializer, "kernel_regularizer": make_penalty(kernel_settings)}


def apply_batch_norm(x: KerasTensor, layer_settings: LayerSettings) -> KerasTensor:
    """Batch norm, if the settings say so, over the whole batch however many devices share that. Of several networks,
    (batch, inputs, members, features), each feature of each is normalised by itself."""
    if not layer_settings.batch_norm:
        return x
    has_several_replicas = tf.distribute.get_strategy().num_replicas_in_sync > 1
    batch_norm_layer = layers.BatchNormalization(synchronized=has_several_replicas)
    has_several_networks = len(x.shape) == NETWORKS_RANK
    if has_several_networks:
        return layers.Reshape(x.shape[1:])(batch_norm_layer(layers.Flatten()(x)))
    return batch_norm_layer(x)


def apply_activation(x: KerasTensor, layer_settings: LayerSettings) -> KerasTensor:
    return layers.ReLU()(apply_batch_norm(x, layer_settings))


def convolution(
    x: KerasTensor, filter_count: int, kernel_edge: int, stride: int, layer_settings: LayerSettings
) -> KerasTensor:
    """A 3-D convolution alone; batch norm brings the bias where it follows."""
    kernel_options = make_kernel_options(layer_settings, AveragingInitializer(stride, is_transposed=False))
    return Conv3D(
        filter_count, kernel_edge, stride, padding="same", use_bias=not layer_settings.batch_norm, **kernel_options
    )(x)


def residual_block(
    x: KerasTensor, filter_count: int, kernel_edge: int, stride: int, layer_settings: LayerSettings
) -> KerasTensor:
    """Two convolutions and a shortcut (He et al. 2016); the shortcut is projected where the shape changes."""
    residual = apply_activation(convolution(x, filter_count, kernel_edge, stride, layer_settings), layer_settings)
    residual = apply_batch_norm(convolution(residual, filter_count, kernel_edge, 1, layer_settings), layer_settings)
    if stride != 1 or x.shape[-1] != filter_count:
        x = apply_batch_norm(convolution(x, filter_count, 1, stride, layer_settings), layer_settings)
    return layers.ReLU()(layers.Add()([residual, x]))


def dense(x: KerasTensor, units: int, kernel_settings: LayerSettings) -> KerasTensor:
    return layers.Dense(units, **make_kernel_options(kernel_settings))(x)


def hidden_layer(x: KerasTensor, units: int, layer_settings: LayerSettings) -> KerasTensor:
    dense_layer = layers.Dense(units, use_bias=not layer_settings.batch_norm, **make_kernel_options(layer_settings))
    return apply_activation(dense_layer(x), layer_settings)


def hidden_layers(
    x: KerasTensor, widths: Iterable[int], member_count: int, layer_settings: LayerSettings
) -> KerasTensor:
    """Hidden layers of these widths, in each of several networks (see `dense_per_network`)."""
    for units in widths:
        x = dense_per_network(x, units, member_count, layer_settings, use_bias=not layer_settings.batch_norm)
        x = apply_activation(x, layer_settings)
    return x


def dense_per_network(
    x: KerasTensor,
    units: int,
    member_count: int,
    kernel_settings: LayerSettings,
    use_bias: bool = True,
    **layer_options: Any,
) -> KerasTensor:
    """A dense layer for each of several networks -> (batch, inputs, members, units). The networks of an input share
    their features, (batch, inputs, features), or each has its own, (batch, inputs, members, features)."""
    einsum_equation = "bimf,imfu->bimu" if len(x.shape) == NETWORKS_RANK else "bif,imfu->bimu"
    kernel_options = {
        "kernel_initializer": NetworkInitializer(kernel_settings.initializer),
        "kernel_regularizer": make_penalty(kernel_settings),
    }
    bias_axes = "imu" if use_bias else None
    return layers.EinsumDense(
        einsum_equation, (x.shape[1], member_count, units), bias_axes=bias_axes, **(kernel_options | layer_options)
    )(x)


def make_logits(
    x: KerasTensor, member_count: int, kernel_settings: LayerSettings, starts_from_zero: bool = False
) -> KerasTensor:
    """(batch, networks, 2) float32 logits of (control, autism) of each network that `dense_per_network` reads in `x`,
    at first 0 if `starts_from_zero`.

    With many features, the effect of a random start would last through a short training.
    """
    initial_options: dict[str, Any] = {"kernel_initializer": "zeros"} if starts_from_zero else {}
    logits_per_network = dense_per_network(x, 2, member_count, kernel_settings, dtype="float32", **initial_options)
    return layers.Reshape((-1, 2), dtype="float32")(logits_per_network)


def fourier_features(x: KerasTensor, units: int, member_count: int) -> KerasTensor:
    """(batch, inputs, features) -> (batch, inputs, members, units): sines, which begin as random Fourier features.

    The kernel is exp(-|x - y|^2 / features), the default of an SVM (Rahimi & Recht 2007); training adapts the sines.
    """
    phase_initializer = keras.initializers.RandomUniform(0, 2 * np.pi)
    initial_options = {"kernel_initializer": NetworkInitializer("he_normal"), "bias_initializer": phase_initializer}
    return dense_per_network(x, units, member_count, LayerSettings(0, 0), activation=keras.ops.sin, **initial_options)


def transposed_convolution(
    x: KerasTensor, output_shape: tuple[int, ...], kernel_edge: int, stride: int, kernel_settings: LayerSettings
) -> KerasTensor:
    """The mirror image of `convolution` from `output_shape` (x, y, z, channels): padding is cropped evenly."""
    kernel_options = make_kernel_options(kernel_settings, AveragingInitializer(stride, is_transposed=True))
    x = Conv3DTranspose(output_shape[3], kernel_edge, stride, padding="same", **kernel_options)(x)
    excess_voxels_per_axis = [x.shape[1 + axis] - output_size for axis, output_size in enumerate(output_shape[:3])]
    if not any(excess_voxels_per_axis):
        return x
    return Cropping3D([(axis_excess // 2, axis_excess - axis_excess // 2) for axis_excess in excess_voxels_per_axis])(x)
