"""Multimodal classifier: reduced volume and phenotype -> logits of (control, autism)."""

from dataclasses import dataclass, fields, replace
from typing import Literal

from data.grids import Grid
from models import cnn, nn
from models.settings import require_sizes


@dataclass(frozen=True, kw_only=True)
class Config(cnn.Config):
    """`cnn` and `nn`, joined by their features, which dense layers read, or by their logits, which are averaged.

    Averaged, each is trained by a loss of its own, as if alone, so that neither leans on the other.
    """

    phenotype_units: tuple[int, ...] = nn.Config.phenotype_units
    phenotype_activation: Literal["relu", "sine"] = nn.Config.phenotype_activation
    phenotype_l2: float = nn.Config.l2  # of logits that are averaged
    joined_by: Literal["features", "logits"] = "features"
    joined_units: tuple[int, ...] = (32,)

    def __post_init__(self):
        super().__post_init__()
        require_sizes("phenotype_units", self.phenotype_units)
        require_sizes("joined_units", self.joined_units)

    def idle(self) -> dict[str, str]:
        of_brain, of_phenotype, summed = super().idle(), nn.idle_of(self), self.joined_by == "logits"
        own = {"joined_units": "joined_by=features"} if summed else {"phenotype_l2": "joined_by=logits"}
        read_by_both = () if summed else ("batch_norm", "initializer", "l2")  # by the layers that join them
        used = {*read_by_both, *({"batch_norm", "initializer"} - of_phenotype.keys())}
        return own | {name: needs for name, needs in of_brain.items() if name not in used}


JOINED_BY_FEATURES = ("residual", "plain")


def preset_of(name: str) -> Config:
    """The preset of `cnn` with this name and what goes with it of `nn`."""
    brain = cnn.PRESETS[name]
    config = Config(**{field.name: getattr(brain, field.name) for field in fields(brain)})
    if name in JOINED_BY_FEATURES:
        return config
    sine = nn.PRESETS["sine"]
    return replace(
        config, phenotype_units=sine.phenotype_units, phenotype_activation=sine.phenotype_activation,
        phenotype_l2=sine.l2, joined_by="logits",
    )  # fmt: skip


PRESETS = {name: preset_of(name) for name in cnn.PRESETS}


def members(volume, phenotype, config: Config, grid: Grid) -> list:
    """The (batch, 2) logits of each member, or of each member's halves."""
    import keras

    from models import layers

    if config.joined_by == "logits":
        of_phenotype = replace(config, l2=config.phenotype_l2)
        return cnn.members(volume, config, grid) + nn.members(phenotype, of_phenotype)
    of_brain = cnn.features(volume, config, grid)
    logits = []
    for _ in range(config.members):
        both = keras.layers.Concatenate()([make() for make, _ in of_brain] + [nn.features(phenotype, config)])
        for units in config.joined_units:
            both = layers.hidden(both, units, config)
        logits.append(layers.logits(both, config))
    return logits


def build(config: Config, grid: Grid, maps: int = 1):
    """Inputs "volume" (batch, x, y, z, maps) and "phenotype" (batch, 29), float32; output (batch, 2) float32 logits."""
    import keras

    from models import layers

    volume, phenotype = layers.volume_input(grid, maps), layers.phenotype_input()
    logits = layers.joined(members(volume, phenotype, config, grid))
    return keras.Model({"volume": volume, "phenotype": phenotype}, logits, name="mmnn")
