"""Phenotype classifier: 29 values -> logits of (control, autism)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from data.images.grids import Grid
from data.tables.vocabulary import PHENOTYPE_SIZE
from models import MemberCount, Penalty, Settings, WidthsOrNone, count_dense_weights

if TYPE_CHECKING:
    from keras import KerasTensor

    from models.averaging import Branch


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """A multilayer perceptron, whose first layer may be of random Fourier features that are trained
    (`models.layers.fourier_features`): an approximate kernel machine."""

    members: MemberCount = 1
    phenotype_units: WidthsOrNone = (32, 16)
    phenotype_activation: Literal["relu", "sine"] = "relu"  # of the first layer
    phenotype_l2: Penalty = 0.001

    def count_weights(self) -> int:
        return self.members * count_dense_weights(PHENOTYPE_SIZE, *self.phenotype_units)

    def has_hidden_layers(self) -> bool:
        return len(self.phenotype_units) > (self.phenotype_activation == "sine")

    def idle(self) -> dict[str, str]:
        requirement_by_idle_setting = {} if self.phenotype_units else {"phenotype_activation": "phenotype_units"}
        return Settings.idle(self) | requirement_by_idle_setting


PRESETS = {
    "sine": Config(
        phenotype_units=(256,), phenotype_activation="sine", phenotype_l2=0.0, members=4, batch_norm=False,
        learning_rate=0.003, half_rate_after=50,
    ),
}  # fmt: skip


def build(config: Config, grid: Grid | None, maps: int = 1) -> Any:
    """Input "phenotype" (batch, 29) float32, scaled; output (batch, 2) float32 logits."""
    from models import averaging, layers

    phenotype = layers.phenotype_input()
    return averaging.classifier(
        "nn", {"phenotype": phenotype}, [make_phenotype_branch(phenotype, config)], config.members
    )


def make_phenotype_branch(phenotype: "KerasTensor", config: Config) -> "Branch":
    """(batch, 29) -> the part that reads them."""
    from keras.layers import Reshape

    from models import layers
    from models.averaging import Branch

    layer_settings = config.layer_settings(config.phenotype_l2)

    def build_features(member_count: int) -> "KerasTensor":
        x = Reshape((1, -1))(phenotype)
        hidden_widths = config.phenotype_units
        if hidden_widths and config.phenotype_activation == "sine":
            x = layers.fourier_features(x, hidden_widths[0], member_count)
            hidden_widths = hidden_widths[1:]
        return layers.hidden_layers(x, hidden_widths, member_count, layer_settings)

    starts_from_zero = config.phenotype_activation == "sine" or not config.phenotype_units
    return Branch("phenotype", build_features, layer_settings, starts_from_zero)
