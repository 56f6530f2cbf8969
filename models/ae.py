"""Autoencoder of the phenotype: 29 values -> code -> 29 values."""

from dataclasses import dataclass
from typing import Any, Literal

from data.cohorts.records import PHENOTYPE_SIZE
from data.grids import Grid
from models.settings import HiddenLayers, require, require_sizes, require_sparsity


@dataclass(frozen=True, kw_only=True)
class Config(HiddenLayers):
    """A sparse autoencoder: a multilayer perceptron and its mirror image; the last of `units` is the code."""

    optimizer: Literal["adam", "rmsprop"] = "rmsprop"
    decay: float = 0.99
    l2: float = 0.0
    units: tuple[int, ...] = (24, 16)
    sparsity: float = 0.5  # rho, the wanted mean of sigmoid(code)
    sparsity_weight: float = 0.6  # lambda

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.units), "units is empty; expected at least one layer.")
        require_sizes("units", self.units)
        require_sparsity(self.sparsity, self.sparsity_weight)


PRESETS = {"default": Config()}


def build(config: Config, grid: Grid, maps: int = 1) -> Any:
    """Input "phenotype" (batch, 29) float32, scaled; outputs "code" (batch, units[-1]) and "reconstruction"."""
    import keras

    from models import layers

    settings = config.layer_settings(config.l2)
    phenotype = x = layers.phenotype_input()
    for units in config.units[:-1]:
        x = layers.hidden(x, units, settings)
    code = x = layers.dense(x, config.units[-1], settings)
    for units in reversed(config.units[:-1]):
        x = layers.hidden(x, units, settings)
    return keras.Model(
        {"phenotype": phenotype}, {"code": code, "reconstruction": layers.dense(x, PHENOTYPE_SIZE, settings)}, name="ae"
    )
