"""The JSON files that `derive` left beside maps and series -> how all people's were derived, with the images for it;
head motion, for tables of subjects that lack it."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from data.base import files
from data.base.errors import InputError, check_plain, shown
from data.base.manifest import sum_of
from data.cohorts.covariates import HEAD_MOTION
from data.cohorts.derivation import (
    CHOICES,
    FIELDS,
    IMAGES,
    PROGRAM,
    Derivation,
    DerivationWithImages,
    choices,
)
from data.cohorts.nifti import beside
from data.cohorts.rows import listed
from data.conversion.discovery import Listing
from data.conversion.series import ATLASES

IMAGE = re.compile(r".+_(dseg|probseg)\.nii(\.gz)?", re.IGNORECASE)  # that `derive` keeps in the folder `atlases/`
MOTION_KEY, MOTION_COLUMN = "MeanFramewiseDisplacement", "mean_fd"  # mm


def said_beside(path: Path) -> Derivation | None:
    """How a map, or the series of a person, was derived; None if no JSON of `derive` says it. Raises InputError for one
    that is damaged."""
    described = path.with_name(path.name.split(".")[0] + ".json")
    if not described.is_file():
        return None
    said = files.read_json(described, dict)
    versions, measure = said.get("Versions"), said.get("Measure")
    if not isinstance(versions, dict) or PROGRAM not in versions:
        return None
    keys = {name: of.key for name, of in FIELDS.items() if of.key}
    values: dict[str, Any] = {name: said[key] for name, key in keys.items() if said.get(key) is not None}
    if "parcels" not in values:
        values["measures"] = [measure]
    try:
        found = files.typed(json.dumps(values), Derivation)
    except ValueError as error:
        raise InputError(f"{described} is damaged ({error}). Copy it again.") from error
    for value in vars(found).values():
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str):
                check_plain(text, f"{described} has the text")
    return found


def paths_of(maps: pd.DataFrame, series: pd.Series | None) -> dict[str, list[Path]]:
    """The files of all people by the first map in them, or the series' name; a 4-D file holds several maps."""
    of_files = dict[tuple[Path, ...], str]()
    for name in maps:
        of_files.setdefault(tuple(of_map.path for of_map in maps[name]), str(name))
    if series is not None:
        of_files[tuple(series)] = str(series.name)
    return {name: list(paths) for paths, name in of_files.items() if paths}


def common(
    maps: pd.DataFrame, series: pd.Series | None, subjects: Sequence[str]
) -> tuple[Derivation | None, list[str]]:
    """How the files of all people were derived, None if that is not known of all or is not one way; and notes. Maps are
    a column of MapOnDisk for each, series the paths, both with a row for each of the subjects. Raises InputError if
    people's maps of one name were derived in several ways."""
    said = {name: list(map(said_beside, paths)) for name, paths in paths_of(maps, series).items()}
    for name, of_people in said.items():
        for choice in choices(may_vary=False):
            check_alike(name, choice, of_people, subjects)
    found = [one for of_people in said.values() for one in of_people if one]
    if not found:
        return None, []
    notes = varying(said, subjects)
    if unknown := [one for one, *of_files in zip(subjects, *said.values(), strict=True) if None in of_files]:
        notes.append(
            f"How all maps were derived is not known of {len(unknown)} people, so not kept: {listed(unknown)}."
        )
        return None, notes
    first = [of_people[0] for of_people in said.values() if of_people[0]]
    fixed = choices(may_vary=False)
    if differences := list(filter(None, (one.difference(other, fixed) for one, other in combinations(first, 2)))):
        choice = differences[0]
        shown = [f"{name} {one.shown(choice)}" for name, one in zip(said, first, strict=True) if one.known(choice)]
        notes.append(f"Maps were derived in several ways, so how is not kept: {choice} of {listed(shown)}.")
        return None, notes
    return merged(first, found), notes


def check_alike(name: str, choice: str, of_people: Sequence[Derivation | None], subjects: Sequence[str]) -> None:
    """Raises InputError, naming the fewer, if people's maps of one name differ in a choice."""
    ways = by_way(choice, of_people, subjects)
    if len(ways) > 1:
        (most, many), *others = sorted(ways, key=lambda way: -len(way[1]))
        named = "; ".join(f"{choice} {way} of {listed(people)}" for way, people in others)
        raise InputError(
            f"People's {name} was derived in several ways: {named}; {choice} {most} of {len(many)} others. "
            "Expected one way. Derive them again with the same options, or leave people out with --exclude."
        )


def by_way(choice: str, of_people: Sequence[Derivation | None], subjects: Sequence[str]) -> list[tuple[str, list[str]]]:
    """What was chosen, for people, and for whom; of whom it is known."""
    ways = dict[tuple[Any, ...], tuple[str, list[str]]]()
    for subject, one in zip(subjects, of_people, strict=True):
        if one and one.known(choice):
            ways.setdefault(one.compared(choice), (one.shown(choice), []))[1].append(subject)
    return list(ways.values())


def varying(said: Mapping[str, Sequence[Derivation | None]], subjects: Sequence[str]) -> list[str]:
    """Notes on what people may differ in."""
    notes = []
    for choice in choices(may_vary=True):
        every = (by_way(choice, of_people, subjects) for of_people in said.values())
        if ways := next((ways for ways in every if len(ways) > 1), None):
            named = [f"{way} of {len(people)} people, {listed(people)}" for way, people in sorted(ways)]
            notes.append(f"The scans of people were treated in several ways, {choice}: {'; '.join(named)}.")
    return notes


def merged(first: Sequence[Derivation], found: Iterable[Derivation]) -> Derivation:
    """One derivation of those of all files of a person; empty in what `found`, of all people, differ in."""
    values = dict[str, Any]()
    for one in first:
        values |= {name: value for name, value in vars(one).items() if value}
    values["measures"] = tuple(dict.fromkeys(measure for one in first for measure in one.measures))
    values |= {choice: "" for choice in choices(may_vary=True) if len({getattr(of, choice) for of in found}) > 1}
    return Derivation(**values)


def with_images(
    derivation: Derivation | None, listing: Listing, given: Path | None
) -> tuple[DerivationWithImages | None, list[str]]:
    """The derivation with its images, known by their sums among those in `atlases/` and the one that is given; notes on
    those that are missing."""
    if derivation is None:
        return None, []
    wanted = {name: of for name in IMAGES if (of := getattr(derivation, f"{name}_sha256"))}
    there = [path for path in listing.files if ATLASES in path.parts and IMAGE.fullmatch(path.name)] if wanted else []
    known = {sum_of(path): path for path in [*there, *filter(None, [given])]} if wanted else {}
    notes = [
        f"The {name} {getattr(derivation, name)} are not in {ATLASES}/, and not kept; derive --like then needs them."
        for name, of in wanted.items()
        if of not in known
    ]
    networks, parcels = (known.get(wanted.get(name, "")) for name in IMAGES)
    return DerivationWithImages(derivation, networks, parcels), notes


def check_each(paths: Iterable[Path], like: Derivation, path: Path) -> None:
    """Raises InputError for the first of these maps or series that was derived otherwise than those of the cohort at
    `path`. What no JSON says is not compared."""
    for one in paths:
        said = said_beside(one)
        if said and (choice := said.difference(like)):
            raise InputError(
                f"{one} was derived with {choice} {said.shown(choice)}, those of {path} with {like.shown(choice)}; "
                f"expected the same. Derive it again: abide-data derive BOLD OUT --like {path}"
            )


def compared(one: Derivation | None, like: Derivation | None, path: Path) -> list[str]:
    """A note on what could not be compared with the cohort at `path`. Raises InputError if new people's maps were
    derived otherwise."""
    if one is None or like is None:
        whose = "the new maps" if one is None else f"the maps of {path}"
        return [f"How {whose} were derived is not known, so that could not be compared."] if one or like else []
    if choice := one.difference(like):
        raise InputError(
            f"The maps were derived with {choice} {one.shown(choice)}, those of {path} with {like.shown(choice)}; "
            f"expected the same. Derive them again: abide-data derive BOLD OUT --like {path}"
        )
    unsaid = [choice for choice in CHOICES if one.known(choice) != like.known(choice)]
    return [f"Not known of all people, so not compared with {path}: {', '.join(unsaid)}."] if unsaid else []


def with_motion(rows: pd.DataFrame, maps: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The table of subjects with a column of the mean framewise displacement that `derive` wrote beside their maps, and
    a note. The table is as it is if it has head motion, or if nobody has such a file. `maps` has a column of MapOnDisk
    for each map, rows as in the table. Raises InputError for what is no number."""
    if maps.empty or any(map(HEAD_MOTION.names, rows)):
        return rows, []
    values = [motion_beside(of_map.path) for of_map in maps.iloc[:, 0]]
    known = sum(value is not None for value in values)
    if not known:
        return rows, []
    told = f"Head motion: {MOTION_COLUMN}, mm, by the JSON beside the maps of {known} of {len(values)} people."
    return rows.assign(**{MOTION_COLUMN: ["" if value is None else f"{value:g}" for value in values]}), [told]


def motion_beside(path: Path) -> float | None:
    """In mm; None if it is not known."""
    described = beside(path, ".json")
    value = files.read_json(described, dict).get(MOTION_KEY) if described.is_file() else None
    if value is not None and (not isinstance(value, int | float) or not 0 <= value < math.inf):
        raise InputError(
            f"{described}: {MOTION_KEY} is {shown(str(value))}; expected millimetres. Correct it, or remove it."
        )
    return value
