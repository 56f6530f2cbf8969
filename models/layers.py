"""Layers that the models share: each takes a Keras tensor and `LayerSettings` and gives a Keras tensor."""

import math
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import KerasTensor, layers

from data.cohorts.atlas import load_atlas, make_region_parcels
from data.cohorts.cohort import RunningMoments
from data.cohorts.records import PHENOTYPE_SIZE, Grid
from models import LayerSettings
from models.one_channel import Conv3D, Conv3DTranspose, Cropping3D

NETWORKS_RANK = 4  # of features of several networks: (batch, inputs, members, features)


def volume_input(grid: Grid, maps: int = 1) -> KerasTensor:
    """(batch, x, y, z, maps) float32, each map z-scored."""
    return keras.Input((*grid.shape, maps), name="volume")


def phenotype_input() -> KerasTensor:
    """(batch, 29) float32, scaled."""
    return keras.Input((PHENOTYPE_SIZE,), name="phenotype")


class Averaging(keras.initializers.Initializer):
    """A convolution of stride s starts as the mean of s^3 voxels, its mirror image as their repetition. A little of
    Xavier's noise tells filters apart."""

    NOISE = 0.1

    def __init__(self, stride: int, transposed: bool) -> None:
        self.stride, self.transposed = stride, transposed

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        kernel = np.zeros(shape, np.float32)
        centre = tuple(slice((size - self.stride) // 2, (size + self.stride) // 2) for size in shape[:3])
        kernel[centre] = 1 / shape[-1] if self.transposed else 1 / (self.stride**3 * shape[-2])
        return keras.ops.cast(kernel, dtype) + self.NOISE * keras.initializers.GlorotUniform()(shape, dtype)


class RegionMeans(layers.Layer):
    """(batch, x, y, z, maps) -> (batch, regions, maps): the mean of each map in each region of AAL."""

    def __init__(self, grid: Grid, **options: Any) -> None:
        super().__init__(**options)
        self.grid, self.parcels = grid, make_region_parcels(load_atlas(None, grid))
        self.position = self.parcels.parcel_indices  # (x, y, z); the last is no region
        self.sizes = self.parcels.voxel_counts  # voxels of each region
        self.inside = np.flatnonzero(self.position < self.parcels.parcel_count)

    def sums(self, values: Any, position: Any) -> Any:
        """Values (batch, voxels, maps) at the `position` (voxels,) of their regions -> sums (batch, regions, maps)."""
        voxels_first = keras.ops.transpose(values, (1, 0, 2))
        sums = keras.ops.segment_sum(voxels_first, position, len(self.sizes) + 1)
        return keras.ops.transpose(sums[:-1], (1, 0, 2))

    def call(self, volume: Any) -> Any:
        flat = keras.ops.reshape(volume, (-1, self.position.size, volume.shape[-1]))
        values = keras.ops.take(flat, self.inside, axis=1)
        sums, sizes = self.sums(values, self.position.ravel()[self.inside]), self.sizes[:, None]
        # A graph would multiply by the reciprocal of a constant in place of a plain division
        return tf.math.divide_no_nan(sums, sizes.astype(self.compute_dtype))


class Standardise(layers.Layer):
    """Values -> their z-scores by the mean and the spread of training records, which `measure` sets before training.

    Each feature, or each voxel of each map, has its own.
    """

    def build(self, input_shape: tuple) -> None:
        shape = {"shape": input_shape[1:], "trainable": False, "dtype": "float32"}
        self.mean = self.add_weight(name="mean", initializer="zeros", **shape)
        self.spread = self.add_weight(name="spread", initializer="ones", **shape)

    def measure(self, batches: Iterable[np.ndarray]) -> None:
        """Sets the mean and the spread to those of all batches (n, ...); a constant value is only centred."""
        moments = RunningMoments()
        for values in batches:
            moments.add(values)
        self.mean.assign(moments.mean)
        self.spread.assign(moments.spread)

    def call(self, values: Any) -> Any:
        return self.scores(values, self.mean, self.spread)

    def scores(self, values: Any, mean: Any, spread: Any) -> Any:
        """z-scores of values by a mean and a spread of their own, both in float32."""
        return (values - keras.ops.cast(mean, values.dtype)) / keras.ops.cast(spread, values.dtype)


class Dropout(layers.Dropout):
    """Dropout with a mask of its own on each device; Keras would use the same mask on all, as they share the seed."""

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training or not self.rate:
            return inputs
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        seed = tf.add(tf.cast(self.seed_generator.next(), tf.int32), [replica, 0])
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, seed)


class MapsApart(layers.Layer):
    """(batch, x, y, z, maps) -> (batch * maps, x, y, z, 1): each map is a sample of its own."""

    def call(self, volume: Any) -> Any:
        maps_first = keras.ops.transpose(volume, (0, 4, 1, 2, 3))
        return keras.ops.reshape(maps_first, (-1, *keras.ops.shape(maps_first)[2:], 1))


class MapsTogether(layers.Layer):
    """(batch * maps, members, features) -> (batch, maps, members, features), for the samples of `MapsApart`."""

    def __init__(self, maps: int, **options: Any) -> None:
        super().__init__(**options)
        self.maps = maps

    def call(self, features: Any) -> Any:
        return keras.ops.reshape(features, (-1, self.maps, *features.shape[1:]))


class OfEachNetwork(keras.initializers.Initializer):
    """A kernel (inputs, members, features, units) of several networks, each of which starts as if it were alone."""

    def __init__(self, alone: str) -> None:
        self.alone = alone

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        kernels = [keras.initializers.get(self.alone)(shape[2:], dtype) for _ in range(math.prod(shape[:2]))]
        return keras.ops.reshape(keras.ops.stack(kernels), shape)


class OfEachMember(keras.initializers.Initializer):
    """A kernel (..., inputs, members * units) of members side by side, each of which starts as if it were alone."""

    def __init__(self, alone: str, members: int) -> None:
        self.alone, self.members = alone, members

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        own = (*shape[:-1], shape[-1] // self.members)
        kernels = [keras.initializers.get(self.alone)(own, dtype) for _ in range(self.members)]
        return keras.ops.concatenate(kernels, axis=-1)


class Channels(layers.Layer):
    """(batch, x, y, z, channels) -> (batch, x, y, z, stop - start): some of the channels."""

    def __init__(self, start: int, stop: int, **options: Any) -> None:
        super().__init__(**options)
        self.start, self.stop = start, stop

    def call(self, volume: Any) -> Any:
        return volume[..., self.start : self.stop]


class MembersApart(layers.Layer):
    """Activations of members side by side (batch, x, y, z, members * filters) -> (batch, members, x * y * z * filters),
    flattened for each member."""

    def __init__(self, members: int, **options: Any) -> None:
        super().__init__(**options)
        self.members = members

    def call(self, x: Any) -> Any:
        of_each = keras.ops.reshape(x, (-1, math.prod(x.shape[1:4]), self.members, x.shape[-1] // self.members))
        of_each = keras.ops.transpose(of_each, (0, 2, 1, 3))
        return keras.ops.reshape(of_each, (-1, self.members, math.prod(of_each.shape[2:])))


def cube_means(x: KerasTensor, size: int) -> KerasTensor:
    """(batch, x, y, z, channels) -> means of cubes of `size` voxels; those at the border have fewer."""
    # TensorFlow 2.21 cannot pool float16 on a CPU.
    return layers.AveragePooling3D(size, padding="same", dtype="float32")(x)


def penalty(settings: LayerSettings) -> keras.Regularizer | None:
    return keras.regularizers.L1L2(settings.l1, settings.l2) if settings.l1 or settings.l2 else None


def weights(settings: LayerSettings, averaging: Averaging | None = None) -> dict:
    """Keyword arguments for a layer with a kernel, which starts from `averaging` if the settings say so."""
    initializer = averaging if settings.initializer == "averaging" else settings.initializer
    return {"kernel_initializer": initializer, "kernel_regularizer": penalty(settings)}


def normalised(x: KerasTensor, settings: LayerSettings) -> KerasTensor:
    """Batch norm, if the settings say so, over the whole batch however many devices share that. Of several networks,
    (batch, inputs, members, features), each feature of each is normalised by itself."""
    if not settings.batch_norm:
        return x
    several = tf.distribute.get_strategy().num_replicas_in_sync > 1
    batch_norm = layers.BatchNormalization(synchronized=several)
    of_networks = len(x.shape) == NETWORKS_RANK
    return layers.Reshape(x.shape[1:])(batch_norm(layers.Flatten()(x))) if of_networks else batch_norm(x)


def activated(x: KerasTensor, settings: LayerSettings) -> KerasTensor:
    return layers.ReLU()(normalised(x, settings))


def convolution(x: KerasTensor, filters: int, kernel: int, stride: int, settings: LayerSettings) -> KerasTensor:
    """A 3-D convolution alone; batch norm brings the bias where it follows."""
    options = weights(settings, Averaging(stride, transposed=False))
    return Conv3D(filters, kernel, stride, padding="same", use_bias=not settings.batch_norm, **options)(x)


def residual_block(x: KerasTensor, filters: int, kernel: int, stride: int, settings: LayerSettings) -> KerasTensor:
    """Two convolutions and a shortcut (He et al. 2016); the shortcut is projected where the shape changes."""
    inside = activated(convolution(x, filters, kernel, stride, settings), settings)
    inside = normalised(convolution(inside, filters, kernel, 1, settings), settings)
    if stride != 1 or x.shape[-1] != filters:
        x = normalised(convolution(x, filters, 1, stride, settings), settings)
    return layers.ReLU()(layers.Add()([inside, x]))


def dense(x: KerasTensor, units: int, settings: LayerSettings) -> KerasTensor:
    return layers.Dense(units, **weights(settings))(x)


def hidden(x: KerasTensor, units: int, settings: LayerSettings) -> KerasTensor:
    return activated(layers.Dense(units, use_bias=not settings.batch_norm, **weights(settings))(x), settings)


def hidden_of_each(x: KerasTensor, widths: Iterable[int], members: int, settings: LayerSettings) -> KerasTensor:
    """`hidden` layers of these widths, in each of several networks (see `dense_of_each`)."""
    for units in widths:
        x = activated(dense_of_each(x, units, members, settings, use_bias=not settings.batch_norm), settings)
    return x


def dense_of_each(
    x: KerasTensor, units: int, members: int, settings: LayerSettings, use_bias: bool = True, **options: Any
) -> KerasTensor:
    """A dense layer for each of several networks -> (batch, inputs, members, units). The networks of an input share
    their features, (batch, inputs, features), or each has its own, (batch, inputs, members, features)."""
    equation = "bimf,imfu->bimu" if len(x.shape) == NETWORKS_RANK else "bif,imfu->bimu"
    own = {"kernel_initializer": OfEachNetwork(settings.initializer), "kernel_regularizer": penalty(settings)}
    bias = "imu" if use_bias else None
    return layers.EinsumDense(equation, (x.shape[1], members, units), bias_axes=bias, **(own | options))(x)


def logits(x: KerasTensor, members: int, settings: LayerSettings, even: bool = False) -> KerasTensor:
    """(batch, networks, 2) float32 logits of (control, autism) of each network that `dense_of_each` reads in `x`, at
    first 0 if `even`.

    With many features, the effect of a random start would last through a short training.
    """
    start: dict[str, Any] = {"kernel_initializer": "zeros"} if even else {}
    return layers.Reshape((-1, 2), dtype="float32")(dense_of_each(x, 2, members, settings, dtype="float32", **start))


def fourier_features(x: KerasTensor, units: int, members: int) -> KerasTensor:
    """(batch, inputs, features) -> (batch, inputs, members, units): sines, which begin as random Fourier features.

    The kernel is exp(-|x - y|^2 / features), the default of an SVM (Rahimi & Recht 2007); training adapts the sines.
    """
    phases = keras.initializers.RandomUniform(0, 2 * np.pi)
    start = {"kernel_initializer": OfEachNetwork("he_normal"), "bias_initializer": phases}
    return dense_of_each(x, units, members, LayerSettings(0, 0), activation=keras.ops.sin, **start)


def transposed_convolution(
    x: KerasTensor, shape: tuple[int, ...], kernel: int, stride: int, settings: LayerSettings
) -> KerasTensor:
    """The mirror image of `convolution` from `shape` (x, y, z, channels): padding is cropped evenly."""
    options = weights(settings, Averaging(stride, transposed=True))
    x = Conv3DTranspose(shape[3], kernel, stride, padding="same", **options)(x)
    excess = [x.shape[1 + axis] - size for axis, size in enumerate(shape[:3])]
    return Cropping3D([(extra // 2, extra - extra // 2) for extra in excess])(x) if any(excess) else x
