"""Multimodal classifier: reduced volume, phenotype, connectome if there is one -> logits of (control, autism)."""

from dataclasses import dataclass, fields, make_dataclass, replace
from functools import partial
from typing import Any

from data.cohorts.records import Grid
from models import LayerSettings, Part, Penalty, Settings, Widths, cnn, dense_weights, nn
from models.regions import OfVolume


@dataclass(frozen=True, kw_only=True)
class Multimodal(nn.Phenotype):
    """What goes beside the volume. The part that reads connectomes is fitted by itself (`models/connectomes.py`)."""

    connectome: bool = False  # all presets read it; a cohort without any turns it off


@dataclass(frozen=True, kw_only=True)
class Averaged(Multimodal):
    """Late fusion: the logits of networks on the volume and on the phenotype are averaged, by learned weights.

    Each is trained by a loss of its own, as if alone, so that neither leans on the other.
    """

    phenotype_l2: Penalty = nn.Config.l2


@dataclass(frozen=True, kw_only=True)
class Joined(Multimodal):
    """Intermediate fusion: dense layers read the features of both, and all are trained by one loss."""

    joined_units: Widths = (32,)
    l2: Penalty = cnn.Convolutions.l2

    def weights_of_member(self) -> int:
        return super().weights_of_member() + dense_weights(self.num_features(), *self.joined_units)

    @property
    def has_hidden_layers(self) -> bool:
        return True


# The settings of each network of `cnn` beside those of each way to join it with the phenotype.
NETWORKS = {
    (brain, fusion): make_dataclass(
        fusion.__name__ + brain.__name__, (), bases=(brain, fusion), frozen=True, kw_only=True
    )
    for brain in cnn.NETWORKS
    for fusion in (Averaged, Joined)
}


@dataclass(frozen=True, kw_only=True)
class Config(OfVolume):
    """Any of the networks above: `from_json` gives the settings of that which is saved."""

    @classmethod
    def of_saved(cls, values: dict) -> type[Settings]:
        return NETWORKS[cnn.network_of(values), Joined if "joined_units" in values else Averaged]


JOINED_BY_FEATURES = ("residual", "plain")


def preset_of(name: str) -> Any:
    """The preset of `cnn` with this name and what goes with it of `nn`."""
    brain, sine = cnn.PRESETS[name], nn.PRESETS["sine"]
    fusion = Joined if name in JOINED_BY_FEATURES else Averaged
    of_brain = {field.name: getattr(brain, field.name) for field in fields(brain)}
    config = NETWORKS[type(brain), fusion](**of_brain, connectome=True)
    if fusion is Joined:
        return config
    return replace(
        config, phenotype_units=sine.phenotype_units, phenotype_activation=sine.phenotype_activation,
        phenotype_l2=sine.l2,
    )  # fmt: skip


PRESETS = {name: preset_of(name) for name in cnn.PRESETS}


def features_of_both(parts: list[Part], config: Joined, settings: LayerSettings, members: int) -> Any:
    """What dense layers make of the features of all parts, in each member: (batch, 1, members, joined_units[-1])."""
    import keras

    from models import layers

    flatten, joined = keras.layers.Flatten(), keras.layers.Concatenate()
    each = [joined([flatten(part.features(1)) for part in parts]) for _ in range(members)]
    x = cnn.of_all_maps(layers.side_by_side(each))
    for units in config.joined_units:
        x = layers.hidden_of_each(x, units, members, settings)
    return x


def build(config: Any, grid: Grid, maps: int = 1, edges: int = 0) -> Any:
    """Inputs "volume" (batch, x, y, z, maps), "phenotype" (batch, 29) and, if there are `edges`, "connectome" (batch,
    edges), NaN where unknown, all float32; output (batch, 2) float32 logits."""
    import keras

    from models import averaging, connectomes, layers

    inputs = {"volume": layers.volume_input(grid, maps), "phenotype": layers.phenotype_input()}
    brain, beside = cnn.parts(inputs["volume"], config, grid), None
    if edges:
        inputs["connectome"] = keras.Input((edges,), name="connectome")
        beside = connectomes.logits(inputs["connectome"])
    if isinstance(config, Joined):
        settings, both = config.layer_settings(config.l2), [*brain, nn.part(inputs["phenotype"], config, config.l2)]
        parts = [Part("joined", partial(features_of_both, both, config, settings), settings, even=False)]
    else:
        parts = [*brain, nn.part(inputs["phenotype"], config, config.phenotype_l2)]
    return keras.Model(inputs, averaging.averaged(parts, config.members, beside), name="mmnn")
