"""Phenotype classifier: 29 values -> logits of (control, autism)."""

from dataclasses import dataclass
from typing import Literal

from data.grids import Grid
from models.settings import Classifier, require_sizes


@dataclass(frozen=True, kw_only=True)
class Config(Classifier):
    """Dense layers on the phenotype; the first may be of sines, `models.layers.fourier_features`."""

    phenotype_units: tuple[int, ...] = (32, 16)
    phenotype_activation: Literal["relu", "sine"] = "relu"  # of the first layer
    l2: float = 0.001

    def __post_init__(self):
        super().__post_init__()
        require_sizes("phenotype_units", self.phenotype_units)

    def idle(self) -> dict[str, str]:
        return super().idle() | idle_of(self)


def idle_of(config) -> dict[str, str]:
    """What changes nothing for the phenotype; `config` has `phenotype_units` and `phenotype_activation`."""
    sines = config.phenotype_activation == "sine" and len(config.phenotype_units) == 1
    return dict.fromkeys(("batch_norm", "initializer"), "phenotype_activation=relu, or a second layer") if sines else {}


PRESETS = {
    "sine": Config(
        phenotype_units=(256,), phenotype_activation="sine", members=4, l2=0.0, batch_norm=False,
        learning_rate=0.003, half_rate_after=50,
    ),
    "default": Config(),
}  # fmt: skip


def features(phenotype, config):
    """(batch, 29) -> (batch, phenotype_units[-1]); `config` has `phenotype_units` and `phenotype_activation`."""
    from models import layers

    for depth, units in enumerate(config.phenotype_units):
        sines = config.phenotype_activation == "sine" and not depth
        phenotype = layers.fourier_features(phenotype, units) if sines else layers.hidden(phenotype, units, config)
    return phenotype


def members(phenotype, config) -> list:
    """(batch, 29) -> the (batch, 2) logits of each member; `config` as in `features`."""
    from models import layers

    even = config.phenotype_activation == "sine"
    return [layers.logits(features(phenotype, config), config, even) for _ in range(config.members)]


def build(config: Config, grid: Grid, maps: int = 1):
    """Input "phenotype" (batch, 29) float32, scaled; output (batch, 2) float32 logits."""
    import keras

    from models import layers

    phenotype = layers.phenotype_input()
    logits = layers.joined(members(phenotype, config))
    return keras.Model({"phenotype": phenotype}, logits, name="nn")
