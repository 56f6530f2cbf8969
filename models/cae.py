"""Convolutional autoencoder: volume 91x109x91 -> code (31x37x31 with stride 3) -> the volume again."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from data.images.grids import Grid
from models import (
    BatchSize,
    BelowOne,
    Edge,
    EdgeLengths,
    Penalty,
    Settings,
    Sparsity,
    Widths,
    count_dense_weights,
    require,
)


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """A sparse 3-D convolutional autoencoder: convolutions, mirrored by transposed ones."""

    batch_size: BatchSize = 4
    optimizer: Literal["adam", "rmsprop"] = "rmsprop"
    initializer: Literal["averaging", "glorot_uniform", "he_normal"] = "averaging"  # type: ignore[assignment]
    decay: BelowOne = 0.99
    l2: Penalty = 0.0
    filters: Widths = (1, 1)
    strides: EdgeLengths = (1, 3)
    kernel: Edge = 3
    sparsity: Sparsity = 0.7  # rho, the wanted mean of sigmoid(code)
    sparsity_weight: Penalty = 0.6  # lambda

    def __post_init__(self) -> None:
        require(len(self.filters) == len(self.strides), "filters and strides differ in length; expected one each.")
        super().__post_init__()

    def count_weights(self) -> int:
        return 2 * self.kernel**3 * count_dense_weights(1, *self.filters)


PRESETS = {
    "stride3-bn": Config(),
    "stride3": Config(batch_norm=False),
    "stride1": Config(batch_norm=False, strides=(1, 1), sparsity=0.5),
}


def compute_code_shape(config: Config, grid: Grid) -> tuple[int, ...]:
    """(x, y, z, channels) of the code."""
    total_stride = math.prod(config.strides)
    return (*(math.ceil(grid_size / total_stride) for grid_size in grid.shape), config.filters[-1])


def build(config: Config, grid: Grid, maps: int = 1) -> Any:
    """Input "volume" (batch, x, y, z, maps) float32, z-scored; outputs "code" and "reconstruction", of its rank."""
    import keras

    from models import layers

    layer_settings = config.layer_settings(config.l2)
    volume = x = layers.volume_input(grid, maps)
    layer_input_shapes = []
    for layer_index, (filter_count, stride) in enumerate(zip(config.filters, config.strides, strict=True)):
        x = layers.apply_activation(x, layer_settings) if layer_index else x
        layer_input_shapes.append(x.shape[1:])
        x = layers.convolution(x, filter_count, config.kernel, stride, layer_settings)
    code = x = layers.apply_batch_norm(x, layer_settings)
    for layer_index, stride in reversed(list(enumerate(config.strides))):
        x = layers.transposed_convolution(x, layer_input_shapes[layer_index], config.kernel, stride, layer_settings)
        x = layers.apply_activation(x, layer_settings) if layer_index else x
    return keras.Model({"volume": volume}, {"code": code, "reconstruction": x}, name="cae")
