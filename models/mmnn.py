"""Multimodal classifier: what there is of reduced volume, phenotype and connectome -> logits of (control, autism)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

from data.images.grids import Grid
from models import WidthsOrNone, cnn, count_dense_weights, nn, require

if TYPE_CHECKING:
    from keras import KerasTensor

    from models.averaging import Branch


@dataclass(frozen=True, kw_only=True)
class Config(cnn.Config, nn.Config):
    """The settings of `cnn` and of `nn`, and how both are joined.

    By `logits`: those of all parts are averaged, by learned weights. Each part is trained by a loss of its own, as if
    alone, so that none leans on another. By `features`: dense layers of `joined_units` read those of all parts, and all
    are trained by one loss. The part that reads connectomes is fitted by itself (`models/connectomes.py`).

    `volume`, `phenotype` and `connectome` say what is read; a cohort that lacks one turns it off.
    """

    fusion: Literal["logits", "features"] = "logits"
    joined_units: WidthsOrNone = (32,)
    volume: bool = True
    phenotype: bool = True
    connectome: bool = True

    def __post_init__(self) -> None:
        require(
            self.volume or self.phenotype or self.connectome,
            "volume, phenotype and connectome are all false, which leaves nothing to read; set one of them to true.",
        )
        super().__post_init__()

    def count_weights(self) -> int:
        joined_weight_count = self.members * count_dense_weights(*self.joined_units)
        return cnn.Config.count_weights(self) + nn.Config.count_weights(self) + joined_weight_count

    def has_hidden_layers(self) -> bool:
        has_branch_layers = cnn.Config.has_hidden_layers(self) or nn.Config.has_hidden_layers(self)
        return has_branch_layers or self.fusion == "features"

    def idle(self) -> dict[str, str]:
        requirement_by_idle_setting = cnn.Config.idle(self) | nn.Config.idle(self)
        if not self.volume:
            volume_setting_names = chain(VOLUME_SETTING_NAMES, *cnn.SETTING_NAMES_BY_BRANCH.values())
            requirement_by_idle_setting |= dict.fromkeys(volume_setting_names, "volume=true, and a cohort with maps")
        if not self.phenotype:
            requirement_by_idle_setting |= dict.fromkeys(
                PHENOTYPE_SETTING_NAMES, "phenotype=true, and a cohort with one"
            )
        if self.fusion == "logits":
            return requirement_by_idle_setting | {"joined_units": "fusion=features"}
        return {
            setting: requirement for setting, requirement in requirement_by_idle_setting.items() if setting != "l2"
        }  # the penalty of joined layers, too


VOLUME_SETTING_NAMES = ("parts", "standardise")  # beside those of each part
PHENOTYPE_SETTING_NAMES = ("phenotype_units", "phenotype_activation", "phenotype_l2")

SINE_PRESET = nn.PRESETS["sine"]
CNN_PRESETS = cnn.PRESETS
PRESETS = {
    "combined": Config(**vars(SINE_PRESET) | vars(CNN_PRESETS["combined"])),
    "regions": Config(**vars(SINE_PRESET) | vars(CNN_PRESETS["regions"])),
    "residual": Config(**vars(CNN_PRESETS["residual"]), fusion="features", phenotype_l2=0.0001),
    "plain": Config(**vars(CNN_PRESETS["plain"]), fusion="features", phenotype_l2=0.0001),
}


def build(config: Config, grid: Grid | None, maps: int = 1, edges: int = 0) -> Any:
    """Inputs "volume" (batch, x, y, z, maps), "phenotype" (batch, 29) and, if there are `edges`, "connectome" (batch,
    edges), NaN where unknown, all float32, as far as the settings name them; output (batch, 2) float32 logits. `grid`
    is that of volumes."""
    import keras

    from models import averaging, connectomes, layers

    input_by_name = {}
    branches = []
    if config.volume:
        assert grid
        input_by_name["volume"] = layers.volume_input(grid, maps)
        branches += cnn.make_volume_branches(input_by_name["volume"], config, grid)
    if config.phenotype:
        input_by_name["phenotype"] = layers.phenotype_input()
        branches.append(nn.make_phenotype_branch(input_by_name["phenotype"], config))
    if config.fusion == "features" and branches:
        branches = [join_branches(branches, config)]
    connectome_logits = None
    if edges:
        input_by_name["connectome"] = keras.Input((edges,), name="connectome")
        connectome_logits = connectomes.RidgeLogits(dtype="float32", name="connectome_logits")(
            input_by_name["connectome"]
        )
    return averaging.classifier("mmnn", input_by_name, branches, config.members, connectome_logits)


def join_branches(branches: Sequence["Branch"], config: Config) -> "Branch":
    """One part: what dense layers make of the features of all, in each member."""
    import keras
    from keras.layers import Concatenate, Flatten, Reshape

    from models import layers
    from models.averaging import Branch

    layer_settings = config.layer_settings(config.l2)

    def build_joined_features(member_count: int) -> "KerasTensor":
        flatten_layer = Flatten()
        concatenate_layer = Concatenate()
        features_per_member = []
        for _ in range(member_count):
            branch_features = [flatten_layer(branch.build_features(1)) for branch in branches]
            features_per_member.append(concatenate_layer(branch_features))
        member_features = keras.ops.stack(features_per_member, axis=1)  # (batch, members, features)
        joined_features = Reshape((1, *member_features.shape[1:]))(member_features)
        return layers.hidden_layers(joined_features, config.joined_units, member_count, layer_settings)

    return Branch("joined", build_joined_features, layer_settings, starts_from_zero=False)
