"""Volume classifier: reduced volume 31x37x31 -> logits of (control, autism), by convolutions, regions or both."""

import math
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Len

from data.cohorts.cohort import VolumeStandard
from data.images.atlas import AAL_REGION_COUNT
from data.images.grids import BLOCK_EDGE, REDUCED, Grid
from models import (
    BelowOne,
    Edge,
    EdgeLengths,
    EdgeLengthsOrNone,
    EdgeOrNone,
    LayerSettings,
    MemberCount,
    Penalty,
    Settings,
    Widths,
    WidthsOrNone,
    count_dense_weights,
    require,
)

if TYPE_CHECKING:
    from keras import KerasTensor

    from models.averaging import Branch

COARSE_CUBE_EDGE = 3  # voxels along an edge of the cubes whose means `combined` reads
MAX_MAPS_FULL_FILTERS = 3  # a brain of more maps has no more filters
ALL_MAPS_PENALTY_FACTOR = 10  # times the penalty: a network that reads the regions of all maps has many more weights


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """An ensemble of views of a brain, its `parts`, each trained by a loss of its own.

    `regions` are multilayer perceptrons on the mean of each map in each region of AAL, z-scored over the training
    records. Each map has a perceptron of its own, and their logits are averaged. Of several maps, one more perceptron
    reads all of them. It is a part of its own.

    `convolutions` are a 3-D convolutional network (filters, kernels, strides), each convolution followed by a 3-wide
    max pool where `pools` gives its stride. With `residual`, every one after the first is a residual block.

    It reads the volume of all maps. With `cubes` above 1, it reads means of cubes of so many voxels instead, z-scored
    over the training records, and each map by itself. All maps go through the same filters, and their logits are
    averaged. Of more than three maps each has fewer filters, so that all together have about as many.

    The last activations are averaged over the volume (`global_average`); or averaged over cubes of `average_pool`
    voxels, flattened, dropped out by `dropout` and read where they are; or, where that is 0, flattened and passed
    through a dense layer of the same width.
    """

    parts: Annotated[tuple[Literal["regions", "convolutions"], ...], Len(1, 2)]
    members: MemberCount = 1
    standardise: VolumeStandard = "stored"  # how volumes are z-scored: see `data.cohorts.variants`
    region_units: WidthsOrNone = (64,)
    region_l2: Penalty = 0.01
    cubes: Edge = 1
    filters: Widths = (16, 32, 64)
    kernels: EdgeLengths = (3, 3, 3)
    strides: EdgeLengths = (2, 2, 2)
    pools: EdgeLengthsOrNone = (0, 0, 0)  # 0: none
    residual: bool = True
    global_average: bool = True
    average_pool: EdgeOrNone = 0
    dropout: BelowOne = 0.0
    l2: Penalty = 0.0001

    def __post_init__(self) -> None:
        layer_counts = set(map(len, (self.filters, self.kernels, self.strides, self.pools)))
        require(len(layer_counts) == 1, "filters, kernels, strides and pools differ in length; give one each a layer.")
        require(len(set(self.parts)) == len(self.parts), f"parts are {','.join(self.parts)}; expected each once.")
        super().__post_init__()

    def count_weights(self) -> int:
        region_weight_count = count_dense_weights(AAL_REGION_COUNT, *self.region_units)
        convolution_weight_count = 0
        for kernel_edge, (input_channels, output_channels) in zip(
            self.kernels, pairwise((1, *self.filters)), strict=True
        ):
            convolution_weight_count += 2 * kernel_edge**3 * input_channels * output_channels
        dense_weight_count = self.count_flattened_activations() ** 2
        return self.members * (region_weight_count + convolution_weight_count + dense_weight_count)

    def count_flattened_activations(self) -> int:
        """The activations that are passed through a dense layer of their number."""
        if "convolutions" not in self.parts or self.global_average or self.average_pool:
            return 0
        total_stride = math.prod(max(stride, 1) for stride in (self.cubes, *self.strides, *self.pools))
        return self.filters[-1] * math.prod(math.ceil(grid_size / total_stride) for grid_size in REDUCED.shape)

    def has_hidden_layers(self) -> bool:
        return "convolutions" in self.parts or bool(self.region_units)

    @property
    def keeps_place(self) -> bool:
        """Whether the logits read the averages of cubes."""
        return not self.global_average and self.average_pool > 0

    def idle(self) -> dict[str, str]:
        requirement_by_idle_setting = Settings.idle(self)
        if self.global_average:
            requirement_by_idle_setting["average_pool"] = "global_average=false"
        if not self.keeps_place:
            requirement_by_idle_setting["dropout"] = "global_average=false and average_pool"
        if len(self.filters) == 1:
            requirement_by_idle_setting["residual"] = "two filters or more"
        for branch_name, branch_setting_names in SETTING_NAMES_BY_BRANCH.items():
            if branch_name not in self.parts:
                requirement_by_idle_setting |= dict.fromkeys(branch_setting_names, f"{branch_name} among the parts")
        return requirement_by_idle_setting


SETTING_NAMES_BY_BRANCH = {
    "regions": ("region_units", "region_l2"),
    "convolutions": (
        *("cubes", "filters", "kernels", "strides", "pools", "residual"),
        *("global_average", "average_pool", "dropout", "l2"),
    ),
}

COMBINED_PRESET = Config(
    parts=("regions", "convolutions"), standardise="brain", cubes=COARSE_CUBE_EDGE, filters=(8,), kernels=(3,),
    strides=(2,), pools=(0,), batch_norm=False, global_average=False, average_pool=1, dropout=0.5, l2=0.01,
    members=4, learning_rate=0.003, half_rate_after=50,
)  # fmt: skip
PRESETS = {
    "combined": COMBINED_PRESET,
    "regions": replace(COMBINED_PRESET, parts=("regions",)),
    "residual": Config(parts=("convolutions",)),
    "plain": Config(
        parts=("convolutions",),
        filters=(16, 32, 32, 32, 16, 1),
        kernels=(5, 5, 3, 3, 3, 3),
        strides=(1, 1, 1, 1, 1, 1),
        pools=(0, 1, 0, 2, 0, 1),
        residual=False,
        global_average=False,
        learning_rate=0.0001,
    ),
}


def build(config: Config, grid: Grid, maps: int = 1) -> Any:
    """Input "volume" (batch, x, y, z, maps) float32, z-scored; output (batch, 2) float32 logits."""
    from models import averaging, layers

    volume = layers.volume_input(grid, maps)
    return averaging.classifier("cnn", {"volume": volume}, make_volume_branches(volume, config, grid), config.members)


def make_volume_branches(volume: "KerasTensor", config: Config, grid: Grid) -> "list[Branch]":
    """(batch, x, y, z, maps) -> the parts that read it."""
    branches = []
    if "regions" in config.parts:
        branches += make_region_branches(volume, config, grid)
    if "convolutions" in config.parts:
        branches.append(make_convolution_branch(volume, config))
    return [branch._replace(branch_weight=1 / len(branches)) for branch in branches]


def make_region_branches(volume: "KerasTensor", config: Config, grid: Grid) -> "list[Branch]":
    """(batch, x, y, z, maps) -> the part that reads the means of regions of each map, and that which reads those of all
    maps if there are several."""
    from keras.layers import Permute, Reshape

    from models import layers
    from models.averaging import Branch

    region_means = layers.Standardise(dtype="float32")(layers.RegionMeans(grid, dtype="float32")(volume))
    # (name, input (batch, inputs, values), penalty factor)
    branch_designs = [("regions", Permute((2, 1))(region_means), 1)]
    if region_means.shape[-1] > 1:
        branch_designs.append(("regions of all maps", Reshape((1, -1))(region_means), ALL_MAPS_PENALTY_FACTOR))
    branches = []
    for branch_name, input_values, penalty_factor in branch_designs:
        layer_settings = config.layer_settings(penalty_factor * config.region_l2)
        build_features = partial(layers.hidden_layers, input_values, config.region_units, layer_settings=layer_settings)
        branches.append(Branch(branch_name, build_features, layer_settings, starts_from_zero=True, within_sites=True))
    return branches


def make_convolution_branch(volume: "KerasTensor", config: Config) -> "Branch":
    """(batch, x, y, z, maps) -> the part that convolves all maps, or each map by the same filters."""
    from keras.layers import GlobalAveragePooling3D, Reshape

    from models import layers
    from models.averaging import Branch

    map_count = volume.shape[-1]
    is_map_by_map = config.cubes > 1
    layer_settings = config.layer_settings(config.l2)
    if is_map_by_map:
        volume = layers.Standardise(dtype="float32")(layers.cube_means(volume, config.cubes))
        filter_counts = tuple(
            math.ceil(filter_count * MAX_MAPS_FULL_FILTERS / max(map_count, MAX_MAPS_FULL_FILTERS))
            for filter_count in config.filters
        )
        config = replace(config, filters=filter_counts)

    def build_features(member_count: int) -> "KerasTensor":
        x = layers.SplitMaps(dtype="float32")(volume) if is_map_by_map else volume
        x = apply_convolutions(x, config, layer_settings, member_count)
        if config.global_average:
            x = GlobalAveragePooling3D(keepdims=True)(x)
        elif config.average_pool:
            x = layers.cube_means(x, config.average_pool)
        x = layers.SplitMembers(member_count)(x)
        x = layers.JoinMaps(map_count)(x) if is_map_by_map else Reshape((1, *x.shape[1:]))(x)
        if config.keeps_place:
            return layers.Dropout(config.dropout)(x)
        if config.global_average:
            return x
        return layers.hidden_layers(x, x.shape[-1:], member_count, layer_settings)

    return Branch("convolutions", build_features, layer_settings, config.keeps_place, within_sites=True)


def apply_convolutions(
    x: "KerasTensor", config: Config, layer_settings: LayerSettings, member_count: int
) -> "KerasTensor":
    """(batch, x, y, z, channels) -> the last activations of all members side by side, (batch, x, y, z, members *
    filters). Their first convolutions, which read the same, are one layer."""
    from keras.layers import Concatenate

    from models import layers

    # (filters, kernel, stride, pool) a layer
    first_layer, *later_layers = zip(config.filters, config.kernels, config.strides, config.pools, strict=True)

    member_filter_count, kernel_edge, stride, pool_stride = first_layer
    first_layer_settings = layer_settings
    if member_count > 1:
        member_initializer = layers.MemberInitializer(layer_settings.initializer, member_count)
        first_layer_settings = replace(layer_settings, initializer=member_initializer)
    x = layers.convolution(x, member_count * member_filter_count, kernel_edge, stride, first_layer_settings)
    x = layers.apply_activation(x, layer_settings)
    x = apply_max_pool(x, pool_stride)
    if not later_layers:
        return x

    activations_per_member = []
    for member_index in range(member_count):
        member_x = x
        if member_count > 1:
            first_channel = member_index * member_filter_count
            member_x = layers.ChannelSlice(first_channel, first_channel + member_filter_count)(x)
        for filter_count, kernel_edge, stride, pool_stride in later_layers:
            if config.residual:
                member_x = layers.residual_block(member_x, filter_count, kernel_edge, stride, layer_settings)
            else:
                member_x = layers.convolution(member_x, filter_count, kernel_edge, stride, layer_settings)
                member_x = layers.apply_activation(member_x, layer_settings)
            member_x = apply_max_pool(member_x, pool_stride)
        activations_per_member.append(member_x)
    return Concatenate()(activations_per_member) if member_count > 1 else activations_per_member[0]


def apply_max_pool(x: "KerasTensor", pool_stride: int) -> "KerasTensor":
    """The maximum of cubes of 3 voxels; as it is if the stride is 0."""
    from keras.layers import MaxPooling3D

    return MaxPooling3D(BLOCK_EDGE, pool_stride, padding="same")(x) if pool_stride else x
