"""Volume classifier: reduced volume 31x37x31 -> logits of (control, autism)."""

import math
from dataclasses import dataclass

from data.grids import REDUCED, Grid
from models.settings import MAX_KERNEL, Settings, require, require_sizes, require_weights


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """Convolutions (filters, kernels, strides), each followed by a 3-wide max pool where `pools` gives its stride.

    With `regions`, dense layers (`region_units`) on the means of each map in the regions of AAL take their place.

    With `residual`, every convolution after the first is a residual block. The last activations are averaged over the
    volume (`global_average`), or flattened and passed through a dense layer of the same width.
    """

    filters: tuple[int, ...] = (16, 32, 64)
    kernels: tuple[int, ...] = (3, 3, 3)
    strides: tuple[int, ...] = (2, 2, 2)
    pools: tuple[int, ...] = (0, 0, 0)
    residual: bool = True
    global_average: bool = True
    l2: float = 0.0001
    regions: bool = False
    region_units: tuple[int, ...] = (64,)

    def __post_init__(self):
        super().__post_init__()
        layers = (self.filters, self.kernels, self.strides, self.pools)
        require(
            len(set(map(len, layers))) == 1,
            "filters, kernels, strides and pools differ in length; give one each a layer.",
        )
        require(bool(self.filters), "filters is empty; expected at least one layer.")
        require_sizes("filters", self.filters)
        require_sizes("kernels", self.kernels, largest=MAX_KERNEL)
        require_sizes("strides", self.strides, largest=MAX_KERNEL)
        require_sizes("region_units", self.region_units)
        require_sizes("pools", self.pools, smallest=0, largest=MAX_KERNEL)  # 0: none
        sizes = zip(self.kernels, (1, *self.filters), self.filters, strict=False)
        require_weights(
            2 * sum(kernel**3 * inputs * outputs for kernel, inputs, outputs in sizes) + self.head_weights()
        )

    def head_weights(self) -> int:
        """Of the dense layer on the flattened activations, if there is one."""
        shape: tuple[int, ...] = REDUCED.shape
        for stride in (max(stride, 1) for layer in zip(self.strides, self.pools, strict=True) for stride in layer):
            shape = tuple(math.ceil(size / stride) for size in shape)
        return 0 if self.global_average else (math.prod(shape) * self.filters[-1]) ** 2


PRESETS = {
    "regions": Config(regions=True, members=4, l2=0.01, batch_norm=False),
    "linear": Config(regions=True, region_units=(), l2=0.1, batch_norm=False),
    "residual": Config(),
    "plain": Config(
        filters=(16, 32, 32, 32, 16, 1),
        kernels=(5, 5, 3, 3, 3, 3),
        strides=(1, 1, 1, 1, 1, 1),
        pools=(0, 1, 0, 2, 0, 1),
        residual=False,
        global_average=False,
        learning_rate=0.0001,
    ),
}


def features(x, config: Config):
    """(batch, x, y, z, maps), or (batch, values) of regions -> (batch, features)."""
    from keras import layers as keras_layers

    from models import layers

    if config.regions:
        for units in config.region_units:
            x = layers.hidden(x, units, config)
        return x
    for depth, (filters, kernel, stride, pool) in enumerate(
        zip(config.filters, config.kernels, config.strides, config.pools, strict=True)
    ):
        if config.residual and depth:
            x = layers.residual_block(x, filters, kernel, stride, config)
        else:
            x = layers.activated(layers.convolution(x, filters, kernel, stride, config), config)
        x = layers.max_pool(x, pool) if pool else x
    if config.global_average:
        return keras_layers.GlobalAveragePooling3D()(x)
    flat = keras_layers.Flatten()(x)
    return layers.hidden(flat, flat.shape[-1], config)


def members(volume, config: Config, grid: Grid) -> list:
    """(batch, x, y, z, maps) -> the (batch, 2) logits of each member."""
    from models import layers

    x = layers.region_values(volume, grid) if config.regions else volume
    return [layers.logits(features(x, config), config, even=config.regions) for _ in range(config.members)]


def build(config: Config, grid: Grid, maps: int = 1):
    """Input "volume" (batch, x, y, z, maps) float32, z-scored; output (batch, 2) float32 logits."""
    import keras

    from models import layers

    volume = layers.volume_input(grid, maps)
    logits = layers.joined(members(volume, config, grid), config.members)
    return keras.Model({"volume": volume}, logits, name="cnn")
