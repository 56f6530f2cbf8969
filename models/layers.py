"""Layers that the models share: each takes a Keras tensor and a config and gives a Keras tensor."""

import keras
import numpy as np
from keras import layers

from data.grids import BLOCK, Grid
from data.records import PHENOTYPE_SIZE
from models.settings import Settings


def volume_input(grid: Grid, maps: int = 1):
    """(batch, x, y, z, maps) float32, z-scored."""
    return keras.Input((*grid.shape, maps), name="volume")


def phenotype_input():
    """(batch, 29) float32, scaled."""
    return keras.Input((PHENOTYPE_SIZE,), name="phenotype")


class Averaging(keras.initializers.Initializer):
    """A convolution of stride s starts as the mean of s^3 voxels, its mirror image as their repetition.

    A little of Xavier's noise tells filters apart.
    """

    NOISE = 0.1

    def __init__(self, stride: int, transposed: bool):
        self.stride, self.transposed = stride, transposed

    def __call__(self, shape, dtype=None):
        kernel = np.zeros(shape, np.float32)
        centre = tuple(slice((size - self.stride) // 2, (size + self.stride) // 2) for size in shape[:3])
        kernel[centre] = 1 / shape[-1] if self.transposed else 1 / (self.stride**3 * shape[-2])
        return keras.ops.cast(kernel, dtype) + self.NOISE * keras.initializers.GlorotUniform()(shape, dtype)

    def get_config(self):
        return {"stride": self.stride, "transposed": self.transposed}


def weights(config: Settings, averaging: Averaging | None = None) -> dict:
    """Keyword arguments for a layer with a kernel; `averaging` is what it starts from where the config wants that."""
    return {
        "kernel_initializer": averaging if config.initializer == "averaging" else config.initializer,
        "kernel_regularizer": keras.regularizers.L1L2(config.l1, config.l2) if config.l1 or config.l2 else None,
    }


def normalised(x, config: Settings):
    return layers.BatchNormalization()(x) if config.batch_norm else x


def activated(x, config: Settings):
    return layers.ReLU()(normalised(x, config))


def convolution(x, filters: int, kernel: int, stride: int, config: Settings):
    """A 3-D convolution alone; batch norm brings the bias where it follows."""
    options = weights(config, Averaging(stride, transposed=False))
    return layers.Conv3D(filters, kernel, stride, padding="same", use_bias=not config.batch_norm, **options)(x)


def residual_block(x, filters: int, kernel: int, stride: int, config: Settings):
    """Two convolutions and a shortcut (He et al. 2016); the shortcut is projected where the shape changes."""
    inside = activated(convolution(x, filters, kernel, stride, config), config)
    inside = normalised(convolution(inside, filters, kernel, 1, config), config)
    if stride != 1 or x.shape[-1] != filters:
        x = normalised(convolution(x, filters, 1, stride, config), config)
    return layers.ReLU()(layers.Add()([inside, x]))


def max_pool(x, stride: int):
    return layers.MaxPooling3D(BLOCK, stride, padding="same")(x)


def dense(x, units: int, config: Settings):
    return layers.Dense(units, **weights(config))(x)


def hidden(x, units: int, config: Settings):
    return activated(layers.Dense(units, use_bias=not config.batch_norm, **weights(config))(x), config)


def logits(x, config: Settings):
    """(batch, 2) float32 logits of (control, autism)."""
    return layers.Dense(2, dtype="float32", name="logits", **weights(config))(x)


def transposed_convolution(x, filters: int, kernel: int, stride: int, shape: tuple[int, ...], config: Settings):
    """The mirror image of `convolution` from `shape` (x, y, z): what the padding added is cropped evenly."""
    options = weights(config, Averaging(stride, transposed=True))
    x = layers.Conv3DTranspose(filters, kernel, stride, padding="same", **options)(x)
    excess = [x.shape[1 + axis] - size for axis, size in enumerate(shape)]
    return layers.Cropping3D([(extra // 2, extra - extra // 2) for extra in excess])(x) if any(excess) else x
