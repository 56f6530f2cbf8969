"""Phenotype classifier: 29 values -> logits of (control, autism)."""

from dataclasses import dataclass

from data.grids import Grid
from models.settings import Settings, require_sizes


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """Dense layers on the phenotype."""

    phenotype_units: tuple[int, ...] = (32, 16)
    l2: float = 0.001

    def __post_init__(self):
        super().__post_init__()
        require_sizes("phenotype_units", self.phenotype_units)


PRESETS = {"default": Config()}


def features(phenotype, config):
    """(batch, 29) -> (batch, phenotype_units[-1]); `config` has `phenotype_units`."""
    from models import layers

    for units in config.phenotype_units:
        phenotype = layers.hidden(phenotype, units, config)
    return phenotype


def build(config: Config, grid: Grid, maps: int = 1):
    """Input "phenotype" (batch, 29) float32, scaled; output (batch, 2) float32 logits."""
    import keras

    from models import layers

    phenotype = layers.phenotype_input()
    return keras.Model({"phenotype": phenotype}, layers.logits(features(phenotype, config), config), name="nn")
