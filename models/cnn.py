"""Volume classifier: reduced volume 31x37x31 -> logits of (control, autism), by convolutions, regions or both."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from data.grids import BLOCK, REDUCED, Grid
from models import regions
from models.regions import OfVolume, Regions
from models.settings import (
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
    require,
)

COARSE = 3  # voxels along an edge of the cubes whose means `linear` and `combined` read
MOST_MAPS = 3  # a brain of more maps does not count more beside the phenotype


def reduced_by(*strides: int) -> int:
    """The voxels that are left of a reduced volume after layers of these strides."""
    shape: tuple[int, ...] = REDUCED.shape
    for stride in strides:
        shape = tuple(math.ceil(size / stride) for size in shape)
    return math.prod(shape)


@dataclass(frozen=True, kw_only=True)
class Linear(OfVolume):
    """A linear classifier (logistic regression) of the means of cubes of `average_pool` voxels, with dropout."""

    average_pool: Edge = COARSE
    dropout: BelowOne = 0.0
    l2: Penalty = 0.0001

    def num_features(self) -> int:
        return super().num_features() + reduced_by(self.average_pool)


@dataclass(frozen=True, kw_only=True)
class Convolutions(OfVolume, HiddenLayers):
    """A 3-D convolutional network: convolutions (filters, kernels, strides), each followed by a 3-wide max pool where
    `pools` gives its stride. With `residual`, every convolution after the first is a residual block.

    It reads the volume or, with `cubes` above 1, means of cubes of so many voxels, z-scored over the training records.
    The last activations are averaged over the volume (`global_average`); or averaged over cubes of `average_pool`
    voxels, flattened, dropped out by `dropout` and read where they are; or, where that is 0, flattened and passed
    through a dense layer of the same width.
    """

    cubes: Edge = 1
    convolutions_by_map: bool = False  # each map by itself, by the same filters; their logits are averaged
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
    """An ensemble of two views of a brain: a perceptron on regions of interest beside a convolutional network.

    Each network is trained by a loss of its own. Their logits are averaged, either those of all networks alike, or
    those of each part, however many networks it has, by the part's weight (`weights_of`).
    """

    mean_over: Literal["networks", "parts"] = "networks"


NETWORKS: tuple[type[OfVolume], ...] = (Regions, Linear, Convolutions, Combined)


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
    return Regions if "region_units" in values else Linear


PRESETS: dict[str, OfVolume] = {
    "combined": Combined(
        standardise="brain", region_networks="both", cubes=COARSE, convolutions_by_map=True,
        filters=(8,), kernels=(3,), strides=(2,), pools=(0,), batch_norm=False,
        global_average=False, average_pool=1, dropout=0.5, l2=0.01, mean_over="parts",
        members=4, learning_rate=0.003, half_rate_after=50,
    ),
    "regions": Regions(
        standardise="brain", region_networks="both", batch_norm=False,
        members=4, learning_rate=0.003, half_rate_after=50,
    ),
    "linear": Linear(standardise="voxel", l2=0.03, half_rate_after=50),
    "convolutional": Convolutions(
        standardise="voxel", filters=(16,), kernels=(3,), strides=(2,), pools=(0,), batch_norm=False,
        global_average=False, average_pool=2, dropout=0.5, l2=0.01, members=4, half_rate_after=100,
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


def cube_features(x: Any, size: int, dropout: float) -> Any:
    """(batch, x, y, z, channels) -> (batch, features), the means of all cubes."""
    from keras import layers as keras_layers

    from models import layers

    return layers.Dropout(dropout)(keras_layers.Flatten()(cube_means(x, size)))


def of_all_maps(build: Callable[[], Any], members: int) -> Any:
    """The features (batch, features) that `build` gives to each member, (batch, 1, members, features)."""
    import keras

    from models import layers

    each = layers.of_members(build, members)
    return keras.layers.Reshape((1, *each.shape[1:]))(each)


def features(x: Any, config: Convolutions, settings: LayerSettings) -> Any:
    """(batch, x, y, z, channels) -> (batch, features)."""
    from keras import layers as keras_layers

    from models import layers

    blocks = zip(config.filters, config.kernels, config.strides, config.pools, strict=True)
    for depth, (filters, kernel, stride, pool) in enumerate(blocks):
        if config.residual and depth:
            x = layers.residual_block(x, filters, kernel, stride, settings)
        else:
            x = layers.activated(layers.convolution(x, filters, kernel, stride, settings), settings)
        x = keras_layers.MaxPooling3D(BLOCK, pool, padding="same")(x) if pool else x
    if config.global_average:
        return keras_layers.GlobalAveragePooling3D()(x)
    if config.average_pool:
        return cube_features(x, config.average_pool, config.dropout)
    flat = keras_layers.Flatten()(x)
    return layers.hidden(flat, flat.shape[-1], settings)


def convolutional_part(volume: Any, config: Convolutions) -> Part:
    """(batch, x, y, z, maps) -> the part of a classifier that convolves all maps, or each map by the same filters."""
    from models import layers

    if config.cubes > 1:
        volume = layers.Standardise(dtype="float32")(cube_means(volume, config.cubes))
    settings = config.layer_settings(config.l2)

    def of_each_map(members: int) -> Any:
        each = layers.MapsApart(dtype="float32")(volume)
        together = layers.MapsTogether(volume.shape[-1])
        return together(layers.of_members(lambda: features(each, config, settings), members))

    of_all = partial(of_all_maps, lambda: features(volume, config, settings))
    of_maps = of_each_map if config.convolutions_by_map else of_all
    return Part("convolutions", of_maps, settings, config.keeps_place)


def parts(volume: Any, config: OfVolume, grid: Grid) -> list[Part]:
    """(batch, x, y, z, maps) -> the parts of a classifier that read volumes."""
    from models import layers

    if config.standardise == "voxel":
        volume = layers.Standardise(dtype="float32")(volume)
    found = regions.parts(volume, config, grid) if isinstance(config, Regions) else []
    if isinstance(config, Linear):
        settings = LayerSettings(config.l1, config.l2)
        of_member = partial(cube_features, volume, config.average_pool, config.dropout)
        found.append(Part("linear", partial(of_all_maps, of_member), settings, True))
    if isinstance(config, Convolutions):
        found.append(convolutional_part(volume, config))
    return found


def weights_of(config: Settings, maps: int) -> dict[str, float] | None:
    """How much each part's logits count; None where those of all networks count alike.

    The brain counts as much as the phenotype for each of its maps, up to `MOST_MAPS`; two thirds of that are the
    regions', which told most in five folds of 664 people, by site and by person.
    """
    if not (isinstance(config, Combined) and config.mean_over == "parts"):
        return None
    brain = min(maps, MOST_MAPS)
    return {"regions": 2 * brain / 3, "convolutions": brain / 3, "phenotype": 1.0}


def build(config: OfVolume, grid: Grid, maps: int = 1) -> Any:
    """Input "volume" (batch, x, y, z, maps) float32, z-scored; output (batch, 2) float32 logits."""
    import keras

    from models import layers

    volume = layers.volume_input(grid, maps)
    logits = layers.averaged(parts(volume, config, grid), config.members, weights_of(config, maps))
    return keras.Model({"volume": volume}, logits, name="cnn")
