"""What a user gives of one person -> a folder of links to the files and a table of one row, as `convert` reads them."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from data.base import files, tables
from data.base.errors import InputError
from data.cohorts.nifti import beside, num_volumes, open_image
from data.cohorts.phenotype import ABIDE_COLUMNS, clean
from data.cohorts.rows import listed
from data.conversion.derived import compared
from data.conversion.options import SourceOptions
from data.conversion.plan import is_abide, unknown_categories
from data.conversion.source import Source, read_source
from data.conversion.volumes import labels_beside
from utils.bundle.model import Bundle

ID, ID_COLUMN, TABLE = "person", "participant_id", "people.csv"
ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Given:
    """Files of maps by their names, phenotype and covariates by column, the series of parcels."""

    maps: dict[str, Path]
    phenotype: dict[str, str]
    series: Path | None = None


@dataclass(frozen=True)
class Linked:
    """Files of a user by the names that `convert` knows them by, names of volumes by those of 4-D files, and notes."""

    files: dict[str, Path]
    volumes: dict[str, list[str]]
    notes: tuple[str, ...]


def linked(bundle: Bundle, given: Given) -> Linked:
    """The files that the bundle reads, with the JSON beside them. Raises InputError for files that it does not read,
    that are missing, or that hold other volumes."""
    expected = volumes_by_file(bundle, given)
    check_series(bundle, given)
    found, volumes, notes = dict[str, Path](), dict[str, list[str]](), []
    for name, path in given.maps.items():
        found[f"{ID}_{name}{ending(path)}"] = path
        found[f"{ID}_{name}.json"] = beside(path, ".json")
        if are_guessed(path, expected[name], bundle):
            volumes[name] = expected[name]
            notes.append(f"The volumes of {path} have no names; taken as {', '.join(expected[name])}, in this order.")
    if given.series:
        name = bundle.like.cohort.metadata.connectome
        of_bids = name.startswith("seg-")
        stem = f"sub-{ID}_{name}_timeseries" if of_bids else f"{ID}_{name}"
        found[f"{stem}.tsv" if of_bids else f"{stem}.1D"] = given.series
        found[f"{stem}.json"] = given.series.with_name(given.series.name.split(".")[0] + ".json")
    there = {name: path for name, path in found.items() if path.is_file()}
    return Linked(there, volumes, tuple(notes))


def volumes_by_file(bundle: Bundle, given: Given) -> dict[str, list[str]]:
    """By the name of each file of maps the volumes that it must hold, none if it is 3-D. Raises InputError unless there
    is one for each map, and no other."""
    maps = bundle.like.cohort.maps
    found: dict[str, list[str]] = {}
    for name, path in given.maps.items():
        of_name = [one for one in maps if one.startswith(f"{name}_")]
        if name not in maps and not of_name:
            raise InputError(f"--maps {name} is no map of {bundle.path}; it reads {', '.join(maps)}.")
        found[name] = [] if name in maps else [one.removeprefix(f"{name}_") for one in of_name]
        check_file(path)
    named = [f"{name}_{volume}" for name, volumes in found.items() for volume in volumes]
    named += [name for name, volumes in found.items() if not volumes]
    if lacking := [name for name in maps if name not in named]:
        raise InputError(f"--maps lacks {listed(lacking)}, which {bundle.path} reads; give a file of each, NAME=FILE.")
    if twice := [name for name in maps if named.count(name) > 1]:
        raise InputError(f"--maps names {twice[0]} twice, alone and as a volume of a file; leave one of them out.")
    owner: dict[str, str] = {}
    for name, path in given.maps.items():
        if (first := owner.setdefault(os.path.realpath(path), name)) != name:
            raise InputError(f"--maps gives {path} to {first} and to {name}; expected a file of each.")
    return found


def check_series(bundle: Bundle, given: Given) -> None:
    """Raises InputError unless there are series where the bundle reads connectomes, and only there."""
    wanted = bundle.like.cohort.metadata.connectome
    if wanted and given.series is None:
        raise InputError(f"{bundle.path} prepares people with connectomes of {wanted}; give --series FILE.")
    if given.series and not wanted:
        raise InputError(f"{bundle.path} reads no connectomes; leave --series {given.series} out.")
    if given.series:
        check_file(given.series)


def check_file(path: Path) -> None:
    """Raises InputError unless it is a file."""
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a file.")
    files.regular(path)


def ending(path: Path) -> str:
    """`.nii.gz` or `.nii`."""
    found = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)
    if found is None:
        raise InputError(f"{path} is no NIfTI by its name; expected {' or '.join(ENDINGS)}. Convert it to NIfTI.")
    return found


def are_guessed(path: Path, expected: list[str], bundle: Bundle) -> bool:
    """Whether nobody names the volumes of a file, so that they are taken to be the `expected` ones. Raises InputError
    if it holds others, or is 4-D where it should be 3-D."""
    count = num_volumes(open_image(path))
    if (count is None) != (not expected):
        wanted, found = f"a 4-D file of {listed(expected)}" if expected else "one 3-D map", f"{count} volumes"
        raise InputError(f"{path} holds {found if count else 'one 3-D map'}; {bundle.path} reads {wanted}.")
    if count is None:
        return False
    named = labels_beside(path)
    labels = [str(number) for number in range(count)] if named is None else named  # as `convert` calls them
    if set(expected) <= set(labels):
        return False
    if named is None and count == len(expected):
        return True
    raise InputError(
        f"{path} holds {count} volumes, {listed(labels)}; {bundle.path} reads {listed(expected)}. Name them by "
        f"LabelMap in the JSON beside it, or make the map again: abide-data derive BOLD OUT --like {bundle.path}"
    )


def source_of(bundle: Bundle, given: Given, links: Linked, folder: Path) -> tuple[Source, list[str]]:
    """The person in a new folder of links, which no conversion writes, as `convert` finds people; notes on what is
    unknown or measured. Raises InputError for what it cannot read."""
    metadata = bundle.like.cohort.metadata
    named = ABIDE_COLUMNS if is_abide(metadata) else metadata.phenotype_columns
    columns = list(dict.fromkeys([*named, *metadata.covariate_columns]))
    if unknown := [name for name in given.phenotype if name not in columns]:
        raise InputError(
            f"--phenotype {unknown[0]} is no column that {bundle.path} knows; it has {', '.join(columns)}."
        )
    folder.mkdir()
    for name, path in links.files.items():
        (folder / name).symlink_to(path.absolute())
    for name, labels in links.volumes.items():
        (folder / f"{name}.txt").write_text("\n".join(labels), encoding="utf-8")
    row = {ID_COLUMN: ID} | dict.fromkeys(named, "") | given.phenotype  # head motion may stand beside maps
    tables.write_frame(folder / TABLE, pd.DataFrame([row]))
    options = SourceOptions(maps=metadata.maps, connectome=metadata.connectome or None, table=folder / TABLE)
    source = read_source(folder, options, optional=True)
    for column, values in unknown_categories(source.rows, metadata).items():
        known = listed(metadata.phenotype_categories[column])
        raise InputError(f"--phenotype {column}={values[0]} is not known to {bundle.path}, which has {known}.")
    told = compared(source.derivation, metadata.derivation, bundle.path)
    return source, [*links.notes, *notes_on(source, columns), *told]


def notes_on(source: Source, columns: list[str]) -> list[str]:
    """Which columns are measured by the JSON beside the maps, and which are unknown."""
    row = clean(source.rows.iloc[0])
    measured = [f"{name} {row[name]} mm, by the JSON beside the maps." for name in source.measured if name in columns]
    absent = [name for name in columns if pd.isna(row.get(name))]
    return [*measured, f"Not given, and taken as unknown: {', '.join(absent)}."] if absent else measured


@contextmanager
def naming(links: Linked, folder: Path) -> Iterator[None]:
    """Errors name the user's files, and the option, in place of links and of the table in the folder."""
    named = {name: str(path) for name, path in links.files.items()} | {TABLE: "--phenotype"}
    try:
        yield
    except InputError as error:
        pattern = f"(?:{re.escape(str(folder))}/)?({'|'.join(map(re.escape, named))})"
        raise InputError(re.sub(pattern, lambda found: named[found[1]], str(error))) from error
