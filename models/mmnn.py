"""Multimodal classifier: reduced volume, phenotype, connectome if there is one -> logits of (control, autism)."""

from dataclasses import dataclass
from typing import Any, Literal

from data.cohorts.records import Grid
from models import WidthsOrNone, cnn, dense_weights, nn


@dataclass(frozen=True, kw_only=True)
class Config(cnn.Config, nn.Config):
    """The settings of `cnn` and of `nn`, and how both are joined.

    By `logits`: those of all parts are averaged, by learned weights. Each part is trained by a loss of its own, as if
    alone, so that none leans on another. By `features`: dense layers of `joined_units` read those of all parts, and all
    are trained by one loss. The part that reads connectomes is fitted by itself (`models/connectomes.py`).
    """

    fusion: Literal["logits", "features"] = "logits"
    joined_units: WidthsOrNone = (32,)
    connectome: bool = True  # a cohort without any turns it off

    def weights(self) -> int:
        joined = self.members * dense_weights(*self.joined_units)
        return cnn.Config.weights(self) + nn.Config.weights(self) + joined

    def has_hidden_layers(self) -> bool:
        of_parts = cnn.Config.has_hidden_layers(self) or nn.Config.has_hidden_layers(self)
        return of_parts or self.fusion == "features"

    def idle(self) -> dict[str, str]:
        idle = cnn.Config.idle(self) | nn.Config.idle(self)
        if self.fusion == "logits":
            return idle | {"joined_units": "fusion=features"}
        return {name: needs for name, needs in idle.items() if name != "l2"}  # the penalty of joined layers, too


SINE, BRAIN = nn.PRESETS["sine"], cnn.PRESETS
PRESETS = {
    "combined": Config(**vars(SINE) | vars(BRAIN["combined"])),
    "regions": Config(**vars(SINE) | vars(BRAIN["regions"])),
    "residual": Config(**vars(BRAIN["residual"]), fusion="features", phenotype_l2=0.0001),
    "plain": Config(**vars(BRAIN["plain"]), fusion="features", phenotype_l2=0.0001),
}


def build(config: Config, grid: Grid, maps: int = 1, edges: int = 0) -> Any:
    """Inputs "volume" (batch, x, y, z, maps), "phenotype" (batch, 29) and, if there are `edges`, "connectome" (batch,
    edges), NaN where unknown, all float32; output (batch, 2) float32 logits."""
    import keras

    from models import averaging, connectomes, layers, parts

    inputs = {"volume": layers.volume_input(grid, maps), "phenotype": layers.phenotype_input()}
    read = [*parts.of_volume(inputs["volume"], config, grid), parts.of_phenotype(inputs["phenotype"], config)]
    if config.fusion == "features":
        read = [parts.joined(read, config)]
    beside = None
    if edges:
        inputs["connectome"] = keras.Input((edges,), name="connectome")
        beside = connectomes.RidgeLogits(dtype="float32", name="connectome_logits")(inputs["connectome"])
    return averaging.classifier("mmnn", inputs, read, config.members, beside)
