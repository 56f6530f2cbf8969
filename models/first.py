"""A network -> the rest after its first, fixed layers, whose results are kept: means over parcels."""

import keras
from keras import layers

from data.cohorts.means import Parcels, cubes
from data.grids import GRIDS
from models.layers import RegionMeans


def on_means(network: keras.Model) -> tuple[keras.Model, list[Parcels]]:
    """The network after its first layers, if these are fixed and are all that reads the volume: it takes their results
    by the names of the parcels, which are given too. Else the network itself, and no parcels."""
    volume = network.input.get("volume") if isinstance(network.input, dict) else None
    operations = [layer for layer in network.layers if not isinstance(layer, layers.InputLayer)]
    reading = [layer for layer in operations if volume is not None and layer.input is volume]
    found = {parcels.name: parcels for layer in reading if (parcels := parcels_of(layer))}
    if not reading or len(found) < len(reading):
        return network, []
    for name, layer in zip(found, reading, strict=True):
        layer.output.name = name
    results = {name: layer.output for name, layer in zip(found, reading, strict=True)}
    rest = {name: tensor for name, tensor in network.input.items() if name != "volume"}
    return keras.Model(rest | results, network.output), list(found.values())


def parcels_of(layer: keras.Layer) -> Parcels | None:
    """What a layer averages a volume over; None if it does something else."""
    if isinstance(layer, RegionMeans):
        return layer.parcels
    grid = next((grid for grid in GRIDS.values() if grid.shape == tuple(layer.input.shape[1:4])), None)
    if isinstance(layer, layers.AveragePooling3D) and grid and layer.padding == "same":
        return cubes(grid, layer.pool_size[0])
    return None
