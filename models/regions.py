"""Networks on the means of AAL regions: reduced volume 31x37x31 -> features of each person's region means."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from data.cohorts.atlas import AAL_REGIONS
from data.cohorts.cohort import Standard
from data.cohorts.records import Grid
from models import Classifier, HiddenLayers, LayerSettings, Part, Penalty, Widths, dense_weights

OF_ALL_MAPS = 10  # times the penalty: a network that reads all maps has many more weights


@dataclass(frozen=True, kw_only=True)
class OfVolume(Classifier):
    """What every network on volumes has beside: how volumes are z-scored."""

    standardise: Standard = "stored"  # the volume: see `data.cohorts.variants`


@dataclass(frozen=True, kw_only=True)
class Regions(OfVolume, HiddenLayers):
    """Multilayer perceptrons on regions of interest: the mean of each map in each region of AAL, z-scored over the
    training records. Each map has a perceptron of its own, and their logits are averaged. Of several maps, one more
    perceptron reads all of them. It is a part of its own."""

    region_units: Widths = (64,)
    region_l2: Penalty = 0.01

    def weights_of_member(self) -> int:
        return super().weights_of_member() + dense_weights(AAL_REGIONS, *self.region_units)

    def num_features(self) -> int:
        return super().num_features() + (AAL_REGIONS, *self.region_units)[-1]

    @property
    def has_hidden_layers(self) -> bool:
        return bool(self.region_units) or super().has_hidden_layers


def features(values: Any, units: tuple[int, ...], settings: LayerSettings, members: int) -> Any:
    """Means of regions (batch, inputs, values) -> (batch, inputs, members, units[-1])."""
    from models import layers

    for width in units:
        values = layers.hidden_of_each(values, width, members, settings)
    return values


def parts(volume: Any, config: Regions, grid: Grid) -> list[Part]:
    """(batch, x, y, z, maps) -> the parts of a classifier that read the regions of each map, and of all maps if there
    are several."""
    import keras

    from models import layers

    means = layers.Standardise(dtype="float32")(layers.RegionMeans(grid, dtype="float32")(volume))
    found = [part("regions", keras.layers.Permute((2, 1))(means), config, 1)]
    if means.shape[-1] > 1:
        found.append(part("regions of all maps", keras.layers.Reshape((1, -1))(means), config, OF_ALL_MAPS))
    return found


def part(name: str, values: Any, config: Regions, penalty: float) -> Part:
    """(batch, inputs, values) -> the part of a classifier that reads them, with so many times the penalty."""
    settings = config.layer_settings(penalty * config.region_l2)
    return Part(name, partial(features, values, config.region_units, settings), settings, even=True, within_sites=True)
