"""Volume classifier: reduced volume 31x37x31 -> logits of (control, autism)."""

import math
from dataclasses import dataclass, replace
from functools import partial

from data.cohorts.atlas import AAL_REGIONS
from data.cohorts.cohort import Standard
from data.grids import REDUCED, Grid
from models.settings import MAX_KERNEL, Classifier, require, require_sizes, require_weights

COARSE = 3  # voxels along an edge of the cubes whose means `linear` reads


@dataclass(frozen=True, kw_only=True)
class Config(Classifier):
    """Convolutions (filters, kernels, strides), each followed by a 3-wide max pool where `pools` gives its stride.

    With `residual`, every convolution after the first is a residual block. The last activations are averaged over the
    volume (`global_average`); or averaged over cubes of `average_pool` voxels, flattened, dropped out by `dropout` and
    read where they are; or, where that is 0, flattened and passed through a dense layer of the same width.

    With `regions`, dense layers (`region_units`) read the means of each map in the regions of AAL: beside the
    convolutions, with whose logits theirs are averaged, or alone, where there are neither filters nor another head.
    """

    standardise: Standard = "stored"  # the volume: see `data.cohorts.standards`
    filters: tuple[int, ...] = (16, 32, 64)
    kernels: tuple[int, ...] = (3, 3, 3)
    strides: tuple[int, ...] = (2, 2, 2)
    pools: tuple[int, ...] = (0, 0, 0)
    residual: bool = True
    global_average: bool = True
    average_pool: int = 0
    dropout: float = 0.0
    l2: float = 0.0001
    regions: bool = False
    regions_by_map: bool = False  # a network for each map, whose logits are averaged
    region_units: tuple[int, ...] = (64,)
    region_l2: float = 0.01
    swap_regions: int = 0  # of each training record, taken from others of its label in the same batch; of AAL

    def __post_init__(self):
        super().__post_init__()
        layers = (self.filters, self.kernels, self.strides, self.pools)
        require(
            len(set(map(len, layers))) == 1,
            "filters, kernels, strides and pools differ in length; give one each a layer.",
        )
        require(self.regions or self.convolutional, "filters is empty; expected at least one layer.")
        require_sizes("filters", self.filters)
        require_sizes("kernels", self.kernels, largest=MAX_KERNEL)
        require_sizes("strides", self.strides, largest=MAX_KERNEL)
        require_sizes("region_units", self.region_units)
        require_sizes("pools", self.pools, smallest=0, largest=MAX_KERNEL)  # 0: none
        require_sizes("average_pool", (self.average_pool,), smallest=0, largest=MAX_KERNEL)
        require_sizes("swap_regions", (self.swap_regions,), smallest=0, largest=AAL_REGIONS)
        require(0 <= self.dropout < 1, f"dropout is {self.dropout}; expected 0 or more and less than 1.")
        require(0 <= self.region_l2 < math.inf, f"region_l2 is {self.region_l2}; expected 0 or more.")
        require(
            self.batch_size > 1 or not self.swap_regions,
            "swap_regions takes regions from others of the batch; expected batch_size of 2 or more.",
        )
        sizes = zip(self.kernels, (1, *self.filters), self.filters, strict=False)
        convolutions = 2 * sum(kernel**3 * inputs * outputs for kernel, inputs, outputs in sizes)
        require_weights(self.members * (convolutions + self.head_weights()))

    @property
    def convolutional(self) -> bool:
        """Whether it reads the volume other than by its regions."""
        return bool(self.filters) or not self.global_average

    @property
    def dense_head(self) -> bool:
        """Whether a dense layer reads all of the flattened activations."""
        return not self.global_average and not self.average_pool

    @property
    def keeps_place(self) -> bool:
        """Whether the logits read the averages of cubes."""
        return not self.global_average and self.average_pool > 0

    def idle(self) -> dict[str, str]:
        hidden = bool(self.filters) or self.dense_head or (self.regions and bool(self.region_units))
        used = {
            ("regions_by_map", "region_units", "region_l2"): (self.regions, "regions=true"),
            ("average_pool",): (not self.global_average, "global_average=false"),
            ("dropout",): (self.keeps_place, "global_average=false and average_pool"),
            ("residual",): (len(self.filters) > 1, "two filters or more"),
            ("l2",): (self.convolutional, "layers that read the volume itself; see region_l2"),
            ("batch_norm", "initializer"): (hidden, "filters, region_units or phenotype_activation=relu"),
        }
        return super().idle() | {name: needs for names, (use, needs) in used.items() if not use for name in names}

    @property
    def of_regions(self) -> "Config":
        """The settings of the layers that read regions."""
        return replace(self, l2=self.region_l2)

    def head_weights(self) -> int:
        """Of the dense layer on the flattened activations, if there is one."""
        shape: tuple[int, ...] = REDUCED.shape
        for stride in (max(stride, 1) for layer in zip(self.strides, self.pools, strict=True) for stride in layer):
            shape = tuple(math.ceil(size / stride) for size in shape)
        return (math.prod(shape) * (self.filters or (1,))[-1]) ** 2 if self.dense_head else 0


PRESETS = {
    "regions": Config(
        standardise="brain", regions=True, regions_by_map=True, filters=(), kernels=(), strides=(), pools=(),
        batch_norm=False, members=4, learning_rate=0.003, half_rate_after=50,
    ),
    "linear": Config(
        standardise="voxel", filters=(), kernels=(), strides=(), pools=(),
        global_average=False, average_pool=COARSE, l2=0.03, learning_rate=0.001, half_rate_after=50,
    ),
    "convolutional": Config(
        standardise="voxel", filters=(16,), kernels=(3,), strides=(2,), pools=(0,), batch_norm=False,
        global_average=False, average_pool=2, dropout=0.5, l2=0.01, members=4, half_rate_after=100,
    ),
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
}  # fmt: skip


def of_regions(values, config: Config):
    """(batch, values) of regions -> (batch, features)."""
    from models import layers

    for units in config.region_units:
        values = layers.hidden(values, units, config.of_regions)
    return values


def of_volume(x, config: Config):
    """(batch, x, y, z, maps) -> (batch, features)."""
    from keras import layers as keras_layers

    from models import layers

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
    if config.average_pool:
        # TensorFlow 2.21 cannot pool float16 on a CPU.
        x = keras_layers.AveragePooling3D(config.average_pool, padding="same", dtype="float32")(x)
        return layers.Dropout(config.dropout)(keras_layers.Flatten()(x))
    flat = keras_layers.Flatten()(x)
    return layers.hidden(flat, flat.shape[-1], config)


def features(volume, config: Config, grid: Grid) -> list:
    """(batch, x, y, z, maps) -> functions that make (batch, features) anew, each with the settings of its logits.

    One of the regions, or of those of each map, and one of the volume, as far as the config has them.
    """
    from keras import layers as keras_layers

    from models import layers

    if config.standardise == "voxel":
        volume = layers.Standardise(dtype="float32")(volume)
    found: list = []
    if config.regions:
        means = layers.Standardise(dtype="float32")(layers.RegionMeans(grid, dtype="float32")(volume))
        each = [means[:, :, at] for at in range(means.shape[-1])]
        inputs = each if config.regions_by_map else [keras_layers.Flatten()(means)]
        found += [(partial(of_regions, values, config), config.of_regions) for values in inputs]
    if config.convolutional:
        found.append((partial(of_volume, volume, config), config))
    return found


def members(volume, config: Config, grid: Grid) -> list:
    """(batch, x, y, z, maps) -> the (batch, 2) logits of each member, or of all parts of each member."""
    from models import layers

    return [
        layers.logits(make(), settings, even=settings is not config or config.keeps_place)
        for make, settings in features(volume, config, grid)
        for _ in range(config.members)
    ]


def build(config: Config, grid: Grid, maps: int = 1):
    """Input "volume" (batch, x, y, z, maps) float32, z-scored; output (batch, 2) float32 logits."""
    import keras

    from models import layers

    volume = layers.volume_input(grid, maps)
    logits = layers.joined(members(volume, config, grid))
    return keras.Model({"volume": volume}, logits, name="cnn")
