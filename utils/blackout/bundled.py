"""What the bundle whose networks black out people says of the same effects in the people who trained them."""

from collections.abc import Callable

import numpy as np

from utils.blackout import options
from utils.blackout.connections import pair_name
from utils.blackout.replication import GroupEffects
from utils.blackout.tables import in_map
from utils.bundle.effects import labels_sha256, names_sha256
from utils.bundle.run import bundle_of
from utils.runs.run import Run

NAMES: dict[str, Callable[..., str]] = {  # family -> the name of a thing by the words that tell it
    "regions": str, "maps": in_map, "connections": pair_name, "values": str,
}  # fmt: skip


def group_effects(run: Run) -> dict[str, GroupEffects]:
    """The effects in the training people, by family; none by a checkpoint, or as `not_compared` says."""
    bundle = bundle_of(run)
    if bundle is None or bundle.model.blackout is None or not_compared(run):
        return {}
    return {
        name: GroupEffects(
            [NAMES[name](*thing) for thing in of.things], np.array(of.effect), np.array(of.named), of.people
        )
        for name, of in bundle.model.blackout.families.items()
    }


def not_compared(run: Run) -> str:
    """Why the effects in the training people are not compared; nothing if they are, or if no bundle is used."""
    if (bundle := bundle_of(run)) is None:
        return ""
    if (of_group := bundle.model.blackout) is None:
        return (
            f"{bundle.path} does not hold the group's effects, so that they are not compared with those here; "
            "abide-bundle --blackout DIR adds them."
        )
    chosen, grid = options.of(run), run.cohort.grid
    systems = names_sha256(chosen.systems_of(grid).of_each)
    differs = {
        "these people": bundle.model.records_sha256 == run.cohort.records_sha256,
        "all maps": chosen.maps is not None,
        "the regions of another atlas": of_group.atlas_sha256 not in ("", labels_sha256(chosen.regions(grid).labels)),
        "other systems": of_group.systems_sha256 not in ("", systems),
    }
    what = next((what for what, is_so in differs.items() if is_so), "")
    said = f"{bundle.path} holds the group's effects of {what}, so that they are not compared with those here."
    return said if what else ""
