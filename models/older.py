"""Networks of earlier states of this version. Their checkpoints and bundles are tested; none is trained any more.

Of several maps, one more perceptron could read the regions of all. The parts of a classifier had fixed weights, and all
networks learned from all training people.
"""

from dataclasses import dataclass, make_dataclass
from functools import cache
from typing import Any, Literal

from models import Part

MOST_MAPS = 3  # a brain of more maps did not count more beside the phenotype


@dataclass(frozen=True, kw_only=True)
class Older:
    """The settings that only these networks have."""

    swap_regions: int = 0  # regions that a training record took from others of its label, in the training alone
    region_networks: Literal["each", "all", "both"] = "all"
    convolutions_by_map: bool = False
    mean_over: Literal["networks", "parts"] = "networks"

    def idle(self) -> dict[str, str]:
        """All of them: a training cannot go on."""
        return dict.fromkeys(Older.__dataclass_fields__, "a network of an earlier state of this version")


@cache
def older(kind: type) -> Any:
    """The settings of an older network of this kind."""
    return make_dataclass(f"Older{kind.__name__}", (), bases=(Older, kind), frozen=True, kw_only=True)


def kind_of(kind: type, values: dict) -> Any:
    """The class of the settings that were saved as `values` of a network of this kind."""
    return older(kind) if "swap_regions" in values else kind


def weighted(parts: list[Part], config: Older, maps: int, edges: int) -> list[Part]:
    """The parts with the weights that they had: all networks alike, or those of a name by its own weight."""
    brain = 1 if edges else min(maps, MOST_MAPS)
    weights = dict.fromkeys((part.name for part in parts), 1.0)
    if config.mean_over == "parts":
        weights |= {"regions": 2 * brain / 3, "convolutions": brain / 3}
    names, alike = [part.name for part in parts], config.mean_over == "networks" and not edges
    shares = [None if alike else weights[name] / names.count(name) for name in names]
    return [part._replace(share=share, within_sites=False) for part, share in zip(parts, shares, strict=True)]
