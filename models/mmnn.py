"""Multimodal classifier: reduced volume and phenotype -> logits of (control, autism)."""

from dataclasses import dataclass, fields

from data.grids import Grid
from models import cnn, nn
from models.settings import require_sizes


@dataclass(frozen=True, kw_only=True)
class Config(cnn.Config):
    """The features of `cnn` and of `nn`, joined, then dense layers."""

    phenotype_units: tuple[int, ...] = nn.Config.phenotype_units
    joined_units: tuple[int, ...] = (32,)

    def __post_init__(self):
        super().__post_init__()
        require_sizes("phenotype_units", self.phenotype_units)
        require_sizes("joined_units", self.joined_units)


PRESETS = {
    name: Config(**{field.name: getattr(preset, field.name) for field in fields(preset)})
    for name, preset in cnn.PRESETS.items()
}


def build(config: Config, grid: Grid, maps: int = 1):
    """Inputs "volume" (batch, x, y, z, maps) and "phenotype" (batch, 29), float32; output (batch, 2) float32 logits."""
    import keras

    from models import layers

    volume, phenotype = layers.volume_input(grid, maps), layers.phenotype_input()
    x = keras.layers.Concatenate()([cnn.features(volume, config), nn.features(phenotype, config)])
    for units in config.joined_units:
        x = layers.hidden(x, units, config)
    return keras.Model({"volume": volume, "phenotype": phenotype}, layers.logits(x, config), name="mmnn")
