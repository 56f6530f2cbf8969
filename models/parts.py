"""The parts of a classifier: volume or phenotype -> features, which its networks turn into logits (`averaging.py`)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import keras
from keras import KerasTensor
from keras.layers import Concatenate, Flatten, GlobalAveragePooling3D, MaxPooling3D, Permute, Reshape

from data.images.grids import BLOCK_EDGE, Grid
from models import LayerSettings, cnn, layers, mmnn, nn

MAX_MAPS_FULL_FILTERS = 3  # a brain of more maps has no more filters
ALL_MAPS_PENALTY_FACTOR = 10  # times the penalty: a network that reads the regions of all maps has many more weights


class Branch(NamedTuple):
    """A part of a classifier. `build_features(member_count)` builds the layers below the logits, for so many networks
    an input. Their output is (batch, inputs, features) if these share it, else (batch, inputs, members, features)."""

    branch_name: str
    build_features: Callable[[int], KerasTensor]
    layer_settings: LayerSettings
    starts_from_zero: bool  # the logits begin at 0
    branch_weight: float = 1.0  # of the mean of logits, before it is learned
    within_sites: bool = False  # it learns how far labels are from the mean of their site


def make_volume_branches(volume: KerasTensor, config: cnn.Config, grid: Grid) -> list[Branch]:
    """(batch, x, y, z, maps) -> the parts that read it."""
    branches = []
    if "regions" in config.parts:
        branches += make_region_branches(volume, config, grid)
    if "convolutions" in config.parts:
        branches.append(make_convolution_branch(volume, config))
    return [branch._replace(branch_weight=1 / len(branches)) for branch in branches]


def make_region_branches(volume: KerasTensor, config: cnn.Config, grid: Grid) -> list[Branch]:
    """(batch, x, y, z, maps) -> the part that reads the means of regions of each map, and that which reads those of all
    maps if there are several."""
    region_means = layers.Standardise(dtype="float32")(layers.RegionMeans(grid, dtype="float32")(volume))
    branch_names_inputs_and_penalties = [("regions", Permute((2, 1))(region_means), 1)]  # (name, input, penalty factor)
    if region_means.shape[-1] > 1:
        branch_names_inputs_and_penalties.append(
            ("regions of all maps", Reshape((1, -1))(region_means), ALL_MAPS_PENALTY_FACTOR)
        )
    branches = []
    for (
        branch_name,
        input_values,
        penalty_factor,
    ) in branch_names_inputs_and_penalties:  # `input_values` (batch, inputs, values)
        layer_settings = config.layer_settings(penalty_factor * config.region_l2)
        build_features = partial(layers.hidden_layers, input_values, config.region_units, settings=layer_settings)
        branches.append(Branch(branch_name, build_features, layer_settings, starts_from_zero=True, within_sites=True))
    return branches


def make_convolution_branch(volume: KerasTensor, config: cnn.Config) -> Branch:
    """(batch, x, y, z, maps) -> the part that convolves all maps, or each map by the same filters."""
    map_count, is_map_by_map, layer_settings = volume.shape[-1], config.cubes > 1, config.layer_settings(config.l2)
    if is_map_by_map:
        volume = layers.Standardise(dtype="float32")(layers.cube_means(volume, config.cubes))
        filter_counts = tuple(
            math.ceil(filter_count * MAX_MAPS_FULL_FILTERS / max(map_count, MAX_MAPS_FULL_FILTERS))
            for filter_count in config.filters
        )
        config = replace(config, filters=filter_counts)

    def build_features(member_count: int) -> KerasTensor:
        x = layers.SplitMaps(dtype="float32")(volume) if is_map_by_map else volume
        x = apply_convolutions(x, config, layer_settings, member_count)
        if config.global_average:
            x = GlobalAveragePooling3D(keepdims=True)(x)
        elif config.average_pool:
            x = layers.cube_means(x, config.average_pool)
        member_activations = layers.SplitMembers(member_count)(x)
        map_member_activations = (
            layers.JoinMaps(map_count)(member_activations)
            if is_map_by_map
            else Reshape((1, *member_activations.shape[1:]))(member_activations)
        )
        if config.keeps_place:
            return layers.Dropout(config.dropout)(map_member_activations)
        return (
            map_member_activations
            if config.global_average
            else layers.hidden_layers(
                map_member_activations, map_member_activations.shape[-1:], member_count, layer_settings
            )
        )

    return Branch("convolutions", build_features, layer_settings, config.keeps_place, within_sites=True)


def apply_convolutions(
    x: KerasTensor, config: cnn.Config, layer_settings: LayerSettings, member_count: int
) -> KerasTensor:
    """(batch, x, y, z, channels) -> the last activations of all members side by side, (batch, x, y, z, members *
    filters). Their first convolutions, which read the same, are one layer."""
    first_layer, *later_layers = zip(config.filters, config.kernels, config.strides, config.pools, strict=True)
    filter_count, kernel_edge, stride, pool_stride = first_layer
    first_layer_settings = layer_settings
    if member_count > 1:
        first_layer_settings = replace(
            layer_settings, initializer=layers.MemberInitializer(layer_settings.initializer, member_count)
        )
    x = apply_max_pool(
        layers.apply_activation(
            layers.convolution(x, member_count * filter_count, kernel_edge, stride, first_layer_settings),
            layer_settings,
        ),
        pool_stride,
    )
    if not later_layers:
        return x
    activations_per_member = []
    for member_index in range(member_count):
        member_activations = (
            layers.ChannelSlice(member_index * filter_count, (member_index + 1) * filter_count)(x)
            if member_count > 1
            else x
        )
        for layer_filter_count, kernel_edge, stride, pool_stride in later_layers:
            if config.residual:
                member_activations = layers.residual_block(
                    member_activations, layer_filter_count, kernel_edge, stride, layer_settings
                )
            else:
                member_activations = layers.apply_activation(
                    layers.convolution(member_activations, layer_filter_count, kernel_edge, stride, layer_settings),
                    layer_settings,
                )
            member_activations = apply_max_pool(member_activations, pool_stride)
        activations_per_member.append(member_activations)
    return Concatenate()(activations_per_member) if member_count > 1 else activations_per_member[0]


def apply_max_pool(x: KerasTensor, pool_stride: int) -> KerasTensor:
    """The maximum of cubes of 3 voxels; as it is if the stride is 0."""
    return MaxPooling3D(BLOCK_EDGE, pool_stride, padding="same")(x) if pool_stride else x


def make_phenotype_branch(phenotype: KerasTensor, config: nn.Config) -> Branch:
    """(batch, 29) -> the part that reads them."""
    layer_settings = config.layer_settings(config.phenotype_l2)

    def build_features(member_count: int) -> KerasTensor:
        x, hidden_widths = Reshape((1, -1))(phenotype), config.phenotype_units
        if hidden_widths and config.phenotype_activation == "sine":
            x, hidden_widths = layers.fourier_features(x, hidden_widths[0], member_count), hidden_widths[1:]
        return layers.hidden_layers(x, hidden_widths, member_count, layer_settings)

    starts_from_zero = config.phenotype_activation == "sine" or not config.phenotype_units
    return Branch("phenotype", build_features, layer_settings, starts_from_zero)


def join_branches(branches: Sequence[Branch], config: mmnn.Config) -> Branch:
    """One part: what dense layers make of the features of all, in each member."""
    layer_settings = config.layer_settings(config.l2)

    def build_features(member_count: int) -> KerasTensor:
        flatten_layer, concatenate_layer = Flatten(), Concatenate()
        member_features = [
            concatenate_layer([flatten_layer(branch.build_features(1)) for branch in branches])
            for _ in range(member_count)
        ]
        x = keras.ops.stack(member_features, axis=1)
        return layers.hidden_layers(Reshape((1, *x.shape[1:]))(x), config.joined_units, member_count, layer_settings)

    return Branch("joined", build_features, layer_settings, starts_from_zero=False)
