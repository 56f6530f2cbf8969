"""The parts of a classifier: volume or phenotype -> features, which its networks turn into logits (`averaging.py`)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import keras
from keras import KerasTensor
from keras.layers import Concatenate, Flatten, GlobalAveragePooling3D, MaxPooling3D, Permute, Reshape

from data.cohorts.records import BLOCK_EDGE, Grid
from models import LayerSettings, cnn, layers, mmnn, nn

MOST_MAPS = 3  # a brain of more maps has no more filters
OF_ALL_MAPS = 10  # times the penalty: a network that reads the regions of all maps has many more weights


class Part(NamedTuple):
    """A part of a classifier. `features(members)` builds the layers below the logits, for so many networks an input.
    Their output is (batch, inputs, features) if these share it, else (batch, inputs, members, features)."""

    name: str
    features: Callable[[int], KerasTensor]
    settings: LayerSettings
    even: bool  # the logits begin at 0
    share: float = 1.0  # of the mean of logits, before it is learned
    within_sites: bool = False  # it learns how far labels are from the mean of their site


def of_volume(volume: KerasTensor, config: cnn.Config, grid: Grid) -> list[Part]:
    """(batch, x, y, z, maps) -> the parts that read it."""
    found = []
    if "regions" in config.parts:
        found += of_regions(volume, config, grid)
    if "convolutions" in config.parts:
        found.append(of_convolutions(volume, config))
    return [part._replace(share=1 / len(found)) for part in found]


def of_regions(volume: KerasTensor, config: cnn.Config, grid: Grid) -> list[Part]:
    """(batch, x, y, z, maps) -> the part that reads the means of regions of each map, and that which reads those of all
    maps if there are several."""
    means = layers.Standardise(dtype="float32")(layers.RegionMeans(grid, dtype="float32")(volume))
    read = [("regions", Permute((2, 1))(means), 1)]
    if means.shape[-1] > 1:
        read.append(("regions of all maps", Reshape((1, -1))(means), OF_ALL_MAPS))
    found = []
    for name, values, penalty in read:  # values (batch, inputs, values)
        settings = config.layer_settings(penalty * config.region_l2)
        features = partial(layers.hidden_of_each, values, config.region_units, settings=settings)
        found.append(Part(name, features, settings, even=True, within_sites=True))
    return found


def of_convolutions(volume: KerasTensor, config: cnn.Config) -> Part:
    """(batch, x, y, z, maps) -> the part that convolves all maps, or each map by the same filters."""
    maps, by_map, settings = volume.shape[-1], config.cubes > 1, config.layer_settings(config.l2)
    if by_map:
        volume = layers.Standardise(dtype="float32")(layers.cube_means(volume, config.cubes))
        fewer = tuple(math.ceil(width * MOST_MAPS / max(maps, MOST_MAPS)) for width in config.filters)
        config = replace(config, filters=fewer)

    def features(members: int) -> KerasTensor:
        x = layers.MapsApart(dtype="float32")(volume) if by_map else volume
        x = convolved(x, config, settings, members)
        if config.global_average:
            x = GlobalAveragePooling3D(keepdims=True)(x)
        elif config.average_pool:
            x = layers.cube_means(x, config.average_pool)
        each = layers.MembersApart(members)(x)
        found = layers.MapsTogether(maps)(each) if by_map else Reshape((1, *each.shape[1:]))(each)
        if config.keeps_place:
            return layers.Dropout(config.dropout)(found)
        return found if config.global_average else layers.hidden_of_each(found, found.shape[-1:], members, settings)

    return Part("convolutions", features, settings, config.keeps_place, within_sites=True)


def convolved(x: KerasTensor, config: cnn.Config, settings: LayerSettings, members: int) -> KerasTensor:
    """(batch, x, y, z, channels) -> the last activations of all members side by side, (batch, x, y, z, members *
    filters). Their first convolutions, which read the same, are one layer."""
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
    return Concatenate()(towers) if members > 1 else towers[0]


def pooled(x: KerasTensor, stride: int) -> KerasTensor:
    """The maximum of cubes of 3 voxels; as it is if the stride is 0."""
    return MaxPooling3D(BLOCK_EDGE, stride, padding="same")(x) if stride else x


def of_phenotype(phenotype: KerasTensor, config: nn.Config) -> Part:
    """(batch, 29) -> the part that reads them."""
    settings = config.layer_settings(config.phenotype_l2)

    def features(members: int) -> KerasTensor:
        x, units = Reshape((1, -1))(phenotype), config.phenotype_units
        if units and config.phenotype_activation == "sine":
            x, units = layers.fourier_features(x, units[0], members), units[1:]
        return layers.hidden_of_each(x, units, members, settings)

    even = config.phenotype_activation == "sine" or not config.phenotype_units
    return Part("phenotype", features, settings, even)


def joined(parts: Sequence[Part], config: mmnn.Config) -> Part:
    """One part: what dense layers make of the features of all, in each member."""
    settings = config.layer_settings(config.l2)

    def features(members: int) -> KerasTensor:
        flatten, concatenate = Flatten(), Concatenate()
        each = [concatenate([flatten(part.features(1)) for part in parts]) for _ in range(members)]
        x = keras.ops.stack(each, axis=1)
        return layers.hidden_of_each(Reshape((1, *x.shape[1:]))(x), config.joined_units, members, settings)

    return Part("joined", features, settings, even=False)
