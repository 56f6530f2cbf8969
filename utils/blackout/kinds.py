"""All kinds of things that a blackout replaces, in the order in which they are told."""

from collections.abc import Mapping

from utils.blackout import connections, regions, values
from utils.blackout.effects import Effects
from utils.blackout.families import Blackout, Family
from utils.blackout.setup import Measured, Setup

KINDS = (regions.REGIONS, connections.CONNECTIONS, values.VALUES, regions.BY_MAP)


def measure(setup: Setup) -> dict[str, Measured]:
    """Replaces all that the network reads, a part at a time, in all tested records: by kind."""
    return {kind.name: kind.measure(setup) for kind in KINDS if kind.measure}


def effects_of(setup: Setup, measured: Mapping[str, Measured]) -> Effects:
    """The effects of all kinds."""
    arrays = {name: array for of in reversed([*measured.values()]) for name, array in of.arrays.items()}
    return Effects(arrays, [setup.run.cohort.rows[index] for index in setup.donors.tested])


def families_of(of: Blackout) -> list[Family]:
    """Those of all that was replaced."""
    return [family for kind in KINDS if (family := kind.family(of))]
