"""Phenotype classifier: 29 values -> logits of (control, autism)."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from data.cohorts.records import PHENOTYPE_SIZE, Grid
from models import Classifier, HiddenLayers, LayerSettings, Part, Penalty, Widths, dense_weights


@dataclass(frozen=True, kw_only=True)
class Phenotype(Classifier, HiddenLayers):
    """Layers on the phenotype, of any network that reads it."""

    phenotype_units: Widths = (32, 16)
    phenotype_activation: Literal["relu", "sine"] = "relu"  # of the first layer

    def weights_of_member(self) -> int:
        return super().weights_of_member() + dense_weights(PHENOTYPE_SIZE, *self.phenotype_units)

    def num_features(self) -> int:
        return super().num_features() + (PHENOTYPE_SIZE, *self.phenotype_units)[-1]

    @property
    def has_hidden_layers(self) -> bool:
        relu = len(self.phenotype_units) > (self.phenotype_activation == "sine")
        return relu or super().has_hidden_layers

    def idle(self) -> dict[str, str]:
        idle = {} if self.phenotype_units else {"phenotype_activation": "phenotype_units"}
        return super().idle() | idle


@dataclass(frozen=True, kw_only=True)
class Config(Phenotype):
    """A multilayer perceptron, whose first layer may be of random Fourier features that are trained
    (`models.layers.fourier_features`): an approximate kernel machine."""

    l2: Penalty = 0.001


PRESETS = {
    "sine": Config(
        phenotype_units=(256,), phenotype_activation="sine", members=4, l2=0.0, batch_norm=False,
        learning_rate=0.003, half_rate_after=50,
    ),
}  # fmt: skip


def features(phenotype: Any, config: Phenotype, settings: LayerSettings, members: int) -> Any:
    """(batch, 29) -> (batch, 1, members, phenotype_units[-1])."""
    import keras

    from models import layers

    x = keras.layers.Reshape((1, -1))(phenotype)
    for depth, units in enumerate(config.phenotype_units):
        sines = config.phenotype_activation == "sine" and not depth
        x = layers.fourier_features(x, units, members) if sines else layers.hidden_of_each(x, units, members, settings)
    return x


def part(phenotype: Any, config: Phenotype, l2: float) -> Part:
    """(batch, 29) -> the part of a classifier that reads them."""
    settings = config.layer_settings(l2)
    even = config.phenotype_activation == "sine"
    return Part("phenotype", partial(features, phenotype, config, settings), settings, even)


def build(config: Config, grid: Grid, maps: int = 1) -> Any:
    """Input "phenotype" (batch, 29) float32, scaled; output (batch, 2) float32 logits."""
    import keras

    from models import averaging, layers

    phenotype = layers.phenotype_input()
    logits = averaging.averaged([part(phenotype, config, config.l2)], config.members)
    return keras.Model({"phenotype": phenotype}, logits, name="nn")
