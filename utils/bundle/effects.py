"""The folder of a blackout on folds -> the group's effects, which go with networks that are trained on the same people.
A blackout of other people compares its own effects with them."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from data.base import files, tables
from data.base.cli import MAX_COUNT
from data.base.errors import InputError
from data.cohorts.phenotype import MAX_NUMBER
from utils.runs.folders import MANIFEST, check_finished
from utils.scores.results import ALPHA

HOW = "expected the folder of a finished run.py --blackout on folds"
FAMILIES = {  # the table of each, and the columns that name a thing
    "regions": ("regions.csv", ("name",)),
    "maps": ("regions_by_map.csv", ("name", "map")),
    "connections": ("connections.csv", ("a", "b")),
    "values": ("values.csv", ("group",)),
}
EFFECT, P = "reliance_adjusted", "p_reliance"  # columns of each
LEVEL, OF_SYSTEMS = "level", "systems"  # of connections: the pairs that all blackouts have


@dataclass(frozen=True, kw_only=True)
class BundledFamily:
    """The effects of one kind of `things`, each of which is one or two words. `effect` (things,) has the means over
    people, adjusted, on the logit of the true class. `named` (things,) says which were named."""

    things: tuple[tuple[str, ...], ...]
    effect: tuple[float, ...]
    named: tuple[bool, ...]
    people: int

    def can_be(self, words: int) -> bool:
        """Whether each thing has so many words of its own, and a number."""
        sizes = {len(self.things), len({*self.things}), len(self.effect), len(self.named)}
        numbers = all(math.isfinite(value) and abs(value) <= MAX_NUMBER for value in self.effect)
        named = all(len(thing) == words for thing in self.things)
        return len(sizes) == 1 and numbers and named and 1 <= self.people <= MAX_COUNT


@dataclass(frozen=True, kw_only=True)
class BundledBlackout:
    """By family, what a blackout on folds found. `atlas_sha256` is of its regions on the grid of the volumes, and
    `systems_sha256` of the system of each region; empty if it had none."""

    atlas_sha256: str
    systems_sha256: str = ""
    families: dict[str, BundledFamily]

    @property
    def can_be(self) -> bool:
        return all(name in FAMILIES and of.can_be(len(FAMILIES[name][1])) for name, of in self.families.items())


@dataclass(frozen=True, kw_only=True)
class DescribedBlackout:
    """What the `run.json` of a blackout says of whom it blacked out, by what."""

    model: str
    config: dict[str, Any]
    records_sha256: str
    folds: str | None
    fold: str | None = None
    shuffled_labels: bool = False
    chosen_maps: tuple[str, ...] | None = None
    subjects: int
    concluded: bool


def labels_sha256(labels: np.ndarray) -> str:
    """SHA-256 of the regions of an atlas, (x, y, z) int."""
    return hashlib.sha256(labels.astype("<i4").tobytes()).hexdigest()


def names_sha256(names: Sequence[str]) -> str:
    """SHA-256 of names in their order."""
    return hashlib.sha256("\0".join(names).encode()).hexdigest()


def read_description(folder: Path, model: str) -> DescribedBlackout:
    """Raises InputError if a folder does not hold a whole blackout by this model on folds."""
    name = f"--blackout {folder}"
    manifest = check_finished(name, folder, HOW)
    if (manifest.job, manifest.model) != ("blackout", model):
        raise InputError(f"{name} holds a {manifest.job or 'run'} of {manifest.model}; {HOW} of {model}.")
    found = files.read_json(folder / MANIFEST, DescribedBlackout)
    if found.folds is None or found.fold:
        raise InputError(f"{name} is of one split, which leaves most people out; {HOW}.")
    if found.shuffled_labels:
        raise InputError(f"{name} is of shuffled labels, so that it says nothing of a model; {HOW}.")
    if found.chosen_maps:
        raise InputError(f"{name} is of some maps only; repeat it without --maps.")
    return found


def read_blackout(folder: Path, told: DescribedBlackout) -> BundledBlackout:
    """The tables of a blackout, as far as it has them. Raises InputError for damage, or two things of one name."""
    there = [name for name, (file, _) in FAMILIES.items() if (folder / file).is_file()]
    try:
        with h5py.File(folder / "blackout.h5") as store:
            atlas = labels_sha256(store["atlas"][:]) if "atlas" in store else ""
            systems = names_sha256([name.decode() for name in store["system"]]) if "system" in store else ""
    except OSError as error:
        raise InputError(f"{folder / 'blackout.h5'} cannot be read ({error}); repeat the blackout.") from error
    families = {name: read_family(folder, name, told) for name in there}
    return BundledBlackout(atlas_sha256=atlas, systems_sha256=systems, families=families)


def read_family(folder: Path, name: str, told: DescribedBlackout) -> BundledFamily:
    """The table of a family. Raises InputError."""
    file, columns = FAMILIES[name]
    every = tables.read_rows(folder / file, (*columns, EFFECT, P)).values()
    rows = [row for row in every if row.get(LEVEL, OF_SYSTEMS) == OF_SYSTEMS]
    try:
        found = BundledFamily(
            things=tuple(tuple(row[column] for column in columns) for row in rows),
            effect=tuple(float(row[EFFECT]) for row in rows),
            named=tuple(told.concluded is True and float(row[P]) < ALPHA for row in rows),
            people=told.subjects,
        )
    except ValueError as error:
        raise InputError(f"{folder / file} is damaged ({error}); repeat the blackout.") from error
    if not found.can_be(len(columns)):
        raise InputError(f"{folder / file} has two things of one name, or no numbers, which no bundle can hold.")
    return found
