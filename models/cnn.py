"""Volume classifier: reduced volume 31x37x31 -> logits of (control, autism), by convolutions, regions or both."""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

from data.cohorts.records import BLOCK, REDUCED, Grid
from models import (
    MAX_KERNEL,
    BelowOne,
    Between,
    Edge,
    Edges,
    HiddenLayers,
    LayerSettings,
    Part,
    Penalty,
    Settings,
    Widths,
    regions,
    require,
)
from models.regions import OfVolume, Regions

COARSE = 3  # voxels along an edge of the cubes whose means `combined` reads
MOST_MAPS = 3  # a brain of more maps has no more filters


def reduced_by(*strides: int) -> int:
    """The voxels that are left of a reduced volume after layers of these strides."""
    shape: tuple[int, ...] = REDUCED.shape
    for stride in strides:
        shape = tuple(math.ceil(size / stride) for size in shape)
    return math.prod(shape)


@dataclass(frozen=True, kw_only=True)
class Convolutions(OfVolume, HiddenLayers):
    """A 3-D convolutional network: convolutions (filters, kernels, strides), each followed by a 3-wide max pool where
    `pools` gives its stride. With `residual`, every convolution after the first is a residual block.

    It reads the volume of all maps. With `cubes` above 1, it reads means of cubes of so many voxels instead, z-scored
    over the training records, and each map by itself. All maps go through the same filters, and their logits are
    averaged. Of more maps than `MOST_MAPS` each has fewer filters, so that all together have about as many.

    The last activations are averaged over the volume (`global_average`); or averaged over cubes of `average_pool`
    voxels, flattened, dropped out by `dropout` and read where they are; or, where that is 0, flattened and passed
    through a dense layer of the same width.
    """

    cubes: Edge = 1
    filters: Widths = (16, 32, 64)
    kernels: Edges = (3, 3, 3)
    strides: Edges = (2, 2, 2)
    pools: Annotated[tuple[int, ...], Between(0, MAX_KERNEL)] = (0, 0, 0)  # 0: none
    residual: bool = True
    global_average: bool = True
    average_pool: Annotated[int, Between(0, MAX_KERNEL)] = 0
    dropout: BelowOne = 0.0
    l2: Penalty = 0.0001

    def check(self) -> None:
        super().check()
        layers = (self.filters, self.kernels, self.strides, self.pools)
        require(
            len(set(map(len, layers))) == 1,
            "filters, kernels, strides and pools differ in length; give one each a layer.",
        )
        require(bool(self.filters), "filters is empty; expected at least one layer.")

    def weights_of_member(self) -> int:
        sizes = zip(self.kernels, (1, *self.filters), self.filters, strict=False)
        convolutions = 2 * sum(kernel**3 * inputs * outputs for kernel, inputs, outputs in sizes)
        flattened = not self.global_average and not self.average_pool  # and passed through a layer of their number
        return super().weights_of_member() + convolutions + flattened * self.num_activations() ** 2

    def num_features(self) -> int:
        return super().num_features() + self.num_activations()

    def num_activations(self) -> int:
        """The features that the convolutions give."""
        strides = (max(stride, 1) for layer in zip(self.strides, self.pools, strict=True) for stride in layer)
        voxels = 1 if self.global_average else reduced_by(self.cubes, *strides, max(self.average_pool, 1))
        return voxels * self.filters[-1]

    @property
    def has_hidden_layers(self) -> bool:
        return True

    @property
    def keeps_place(self) -> bool:
        """Whether the logits read the averages of cubes."""
        return not self.global_average and self.average_pool > 0

    def idle(self) -> dict[str, str]:
        used = {
            "average_pool": (not self.global_average, "global_average=false"),
            "dropout": (self.keeps_place, "global_average=false and average_pool"),
            "residual": (len(self.filters) > 1, "two filters or more"),
        }
        return super().idle() | {name: needs for name, (use, needs) in used.items() if not use}


@dataclass(frozen=True, kw_only=True)
class Combined(Regions, Convolutions):
    """An ensemble of two views of a brain: perceptrons on regions of interest beside a convolutional network.

    Each network is trained by a loss of its own.
    """


NETWORKS: tuple[type[OfVolume], ...] = (Regions, Convolutions, Combined)


@dataclass(frozen=True, kw_only=True)
class Config(OfVolume):
    """Any of the networks above: `from_json` gives the settings of that which is saved."""

    @classmethod
    def of_saved(cls, values: dict) -> type[Settings]:
        return network_of(values)


def network_of(values: dict) -> type[OfVolume]:
    """The class of saved settings."""
    if "filters" in values:
        return Combined if "region_units" in values else Convolutions
    return Regions


PRESETS: dict[str, OfVolume] = {
    "combined": Combined(
        standardise="brain", cubes=COARSE, filters=(8,), kernels=(3,), strides=(2,), pools=(0,), batch_norm=False,
        global_average=False, average_pool=1, dropout=0.5, l2=0.01,
        members=4, learning_rate=0.003, half_rate_after=50,
    ),
    "regions": Regions(
        standardise="brain", batch_norm=False, members=4, learning_rate=0.003, half_rate_after=50,
    ),
    "residual": Convolutions(),
    "plain": Convolutions(
        filters=(16, 32, 32, 32, 16, 1),
        kernels=(5, 5, 3, 3, 3, 3),
        strides=(1, 1, 1, 1, 1, 1),
        pools=(0, 1, 0, 2, 0, 1),
        residual=False,
        global_average=False,
        learning_rate=0.0001,
    ),
}  # fmt: skip


def cube_means(x: Any, size: int) -> Any:
    """(batch, x, y, z, channels) -> means of cubes of `size` voxels; those at the border have fewer."""
    from keras import layers as keras_layers

    # TensorFlow 2.21 cannot pool float16 on a CPU.
    return keras_layers.AveragePooling3D(size, padding="same", dtype="float32")(x)


def of_all_maps(each: Any) -> Any:
    """The features of all maps that each member reads, (batch, members, features) -> (batch, 1, members, features)."""
    import keras

    return keras.layers.Reshape((1, *each.shape[1:]))(each)


def convolved(x: Any, config: Convolutions, settings: LayerSettings, members: int) -> Any:
    """(batch, x, y, z, channels) -> the last activations of all members side by side, (batch, x, y, z, members *
    filters). Their first convolutions, which read the same, are one layer."""
    from keras import layers as keras_layers

    from models import layers

    first, *rest = zip(config.filters, config.kernels, config.strides, config.pools, strict=True)
    filters, kernel, stride, pool = first
    of_each = settings
    if members > 1:
        of_each = replace(settings, initializer=layers.OfEachMember(settings.initializer, members))
    x = pooled(layers.activated(layers.convolution(x, members * filters, kernel, stride, of_each), settings), pool)
    if not rest:
        return x
    towers = []
    for member in range(members):
        own = layers.Channels(member * filters, (member + 1) * filters)(x) if members > 1 else x
        for width, kernel, stride, pool in rest:
            if config.residual:
                own = layers.residual_block(own, width, kernel, stride, settings)
            else:
                own = layers.activated(layers.convolution(own, width, kernel, stride, settings), settings)
            own = pooled(own, pool)
        towers.append(own)
    return keras_layers.Concatenate()(towers) if members > 1 else towers[0]


def pooled(x: Any, stride: int) -> Any:
    """The maximum of cubes of 3 voxels; as it is if the stride is 0."""
    from keras import layers as keras_layers

    return keras_layers.MaxPooling3D(BLOCK, stride, padding="same")(x) if stride else x


def features(volume: Any, config: Convolutions, settings: LayerSettings, members: int) -> Any:
    """(batch, x, y, z, maps) -> (batch, inputs, members, features), the inputs being all maps, or each map."""
    from keras import layers as keras_layers

    from models import layers

    by_map, maps = config.cubes > 1, volume.shape[-1]
    x = layers.MapsApart(dtype="float32")(volume) if by_map else volume
    x = convolved(x, config, settings, members)
    if config.global_average:
        x = keras_layers.GlobalAveragePooling3D(keepdims=True)(x)
    elif config.average_pool:
        x = cube_means(x, config.average_pool)
    each = layers.MembersApart(members)(x)
    found = layers.MapsTogether(maps)(each) if by_map else of_all_maps(each)
    if config.keeps_place:
        return layers.Dropout(config.dropout)(found)
    return found if config.global_average else layers.hidden_of_each(found, found.shape[-1], members, settings)


def convolutional_part(volume: Any, config: Convolutions) -> Part:
    """(batch, x, y, z, maps) -> the part of a classifier that convolves all maps, or each map by the same filters."""
    from models import layers

    if config.cubes > 1:
        volume = layers.Standardise(dtype="float32")(cube_means(volume, config.cubes))
    maps, settings = volume.shape[-1], config.layer_settings(config.l2)
    if config.cubes > 1 and maps > MOST_MAPS:
        config = replace(config, filters=tuple(math.ceil(width * MOST_MAPS / maps) for width in config.filters))
    of_volume = partial(features, volume, config, settings)
    return Part("convolutions", of_volume, settings, config.keeps_place, within_sites=True)


def parts(volume: Any, config: OfVolume, grid: Grid) -> list[Part]:
    """(batch, x, y, z, maps) -> the parts of a classifier that read volumes."""
    found = regions.parts(volume, config, grid) if isinstance(config, Regions) else []
    if isinstance(config, Convolutions):
        found.append(convolutional_part(volume, config))
    return [part._replace(share=1 / len(found)) for part in found]


def build(config: OfVolume, grid: Grid, maps: int = 1) -> Any:
    """Input "volume" (batch, x, y, z, maps) float32, z-scored; output (batch, 2) float32 logits."""
    import keras

    from models import averaging, layers

    volume = layers.volume_input(grid, maps)
    logits = averaging.averaged(parts(volume, config, grid), config.members)
    return keras.Model({"volume": volume}, logits, name="cnn")
