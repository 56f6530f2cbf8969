"""Networks on the means of AAL regions: reduced volume 31x37x31 -> features of each person's region means."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from data.cohorts.atlas import AAL_REGIONS
from data.cohorts.cohort import Standard
from data.cohorts.records import Grid
from models import (
    Between,
    Classifier,
    HiddenLayers,
    LayerSettings,
    Part,
    Penalty,
    Widths,
    dense_weights,
    require,
)


@dataclass(frozen=True, kw_only=True)
class OfVolume(Classifier):
    """What every network on volumes has beside: how volumes are z-scored, and augmentation."""

    standardise: Standard = "stored"  # the volume: see `data.cohorts.variants`
    # Regions of AAL of each training record, taken from others of its label in the same batch
    swap_regions: Annotated[int, Between(0, AAL_REGIONS)] = 0

    def check(self) -> None:
        super().check()
        require(
            self.batch_size > 1 or not self.swap_regions,
            "swap_regions takes regions from others of the batch; expected batch_size of 2 or more.",
        )


@dataclass(frozen=True, kw_only=True)
class Regions(OfVolume, HiddenLayers):
    """Multilayer perceptrons on regions of interest: the mean of each map in each region of AAL, z-scored over the
    training records. Each map has a perceptron of its own, or one reads all maps (`region_networks`); "both" has the
    first beside the second if there are several maps. Their logits are averaged."""

    region_networks: Literal["each", "all", "both"] = "all"
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
    """(batch, x, y, z, maps) -> the parts of a classifier that read the regions of each map, or of all maps."""
    import keras

    from models import layers

    means = layers.Standardise(dtype="float32")(layers.RegionMeans(grid, dtype="float32")(volume))
    inputs, settings = [], config.layer_settings(config.region_l2)
    if config.region_networks != "all":
        inputs.append(keras.layers.Permute((2, 1))(means))
    if config.region_networks == "all" or (config.region_networks == "both" and means.shape[-1] > 1):
        inputs.append(keras.layers.Reshape((1, -1))(means))
    return [Part("regions", partial(features, x, config.region_units, settings), settings, even=True) for x in inputs]
