"""Autoencoder of the phenotype: 29 values -> code -> 29 values."""

from dataclasses import dataclass
from typing import Any, Literal

from data.images.grids import Grid
from data.tables.vocabulary import PHENOTYPE_SIZE
from models import BelowOne, Penalty, Settings, Sparsity, Widths, count_dense_weights


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """A sparse autoencoder: a multilayer perceptron and its mirror image; the last of `units` is the code."""

    optimizer: Literal["adam", "rmsprop"] = "rmsprop"
    decay: BelowOne = 0.99
    l2: Penalty = 0.0
    units: Widths = (24, 16)
    sparsity: Sparsity = 0.5  # rho, the wanted mean of sigmoid(code)
    sparsity_weight: Penalty = 0.6  # lambda

    def count_weights(self) -> int:
        return 2 * count_dense_weights(PHENOTYPE_SIZE, *self.units)


PRESETS = {"default": Config()}


def build(config: Config, grid: Grid | None, maps: int = 1) -> Any:
    """Input "phenotype" (batch, 29) float32, scaled; outputs "code" (batch, units[-1]) and "reconstruction"."""
    import keras

    from models import layers

    layer_settings = config.layer_settings(config.l2)
    phenotype = x = layers.phenotype_input()
    for layer_width in config.units[:-1]:
        x = layers.hidden_layer(x, layer_width, layer_settings)
    code = x = layers.dense(x, config.units[-1], layer_settings)
    for layer_width in reversed(config.units[:-1]):
        x = layers.hidden_layer(x, layer_width, layer_settings)
    return keras.Model(
        {"phenotype": phenotype},
        {"code": code, "reconstruction": layers.dense(x, PHENOTYPE_SIZE, layer_settings)},
        name="ae",
    )
