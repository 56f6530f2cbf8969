"""Maps and a table -> a cohort: z-scored records, split by subject, phenotype scaled on training subjects."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data import grids
from data.base import files
from data.base.errors import InputError
from data.base.processes import processes
from data.base.sums import sum_of
from data.cohorts import records, side_tables, twins
from data.cohorts.cohort import MAPS, Cohort, open_cohort
from data.cohorts.nifti import MapOnDisk, load_maps
from data.cohorts.phenotype import ABIDE_COLUMNS, mostly_numbers, numbers
from data.cohorts.rows import APART, METADATA, Metadata, Row, leaders, listed
from data.conversion import measures
from data.conversion.codings import mixed_codings, units_by_site
from data.conversion.leaks import accepted, check_coding, check_measures, check_names, separating
from data.conversion.options import ConversionOptions
from data.conversion.plan import PlannedCohort, check_like, plan, plan_like
from data.conversion.source import Source, is_abide
from data.conversion.tables import column

FIRST_MAPS, FIRST_OF = 16, 4  # how many are measured first, where there are as many times more


def convert(source: Source, target: Path, options: ConversionOptions, command: str) -> tuple[PlannedCohort, list[str]]:
    """Writes the cohort `target`, using every core, and returns it with notes on the maps; repeating an interrupted
    command completes it. Raises InputError for a leak, or if another process writes `target`."""
    check_first_maps(source)
    provenance = provenance_of(source, command)
    check_coding(source.rows, source.subjects["label"].to_numpy(), source.label_column)
    covariates = covariate_columns(source, options)
    if not options.allow_leak:
        check_names(options.phenotype or (), source.label_column)
        check_names(options.covariates or (), source.label_column, "--covariates")
    options = replace(options, covariates=covariates)
    named = ABIDE_COLUMNS if options.phenotype is None else options.phenotype
    used = [name for name in dict.fromkeys([*named, *covariates]) if name in source.rows]
    told = [*units_by_site(source.rows, used, source.subjects["site"]), *mixed_codings(source.rows, used)]

    def planning(subjects: pd.DataFrame) -> PlannedCohort:
        planned = plan(subjects, source.rows, options, provenance, source.maps.columns.tolist())
        if not options.allow_leak:
            return planned
        chosen, auc = [*(options.phenotype or ()), *covariates], planned.metadata.phenotype_auc
        leaks = accepted(list(dict.fromkeys(chosen)), source.label_column, auc)
        return replace(planned, metadata=replace(planned.metadata, accepted_leaks=leaks))

    planned, notes = write(source, target, planning, options.allow_leak)
    return planned, [*told, *notes]


def convert_like(source: Source, target: Path, like: Cohort, command: str) -> tuple[PlannedCohort, list[str]]:
    """`convert` for test subjects, prepared as `like` was: nothing is learnt from `source`. Raises InputError if the
    maps or the table do not allow it, or for training subjects of `like`."""
    check_like(source, like)
    check_first_maps(source)
    labelled = source.subjects["label"].notna().to_numpy()
    check_coding(source.rows[labelled], source.subjects["label"].to_numpy()[labelled], source.label_column)
    measured = measures.read(like.tables, [row.subject for row in like.rows], like.maps) if like.tables else None
    planning = partial(plan_like, like=like, source=source, provenance=provenance_of(source, command))
    check_new_scans(source, like)
    planned, notes = write(source, target, planning, like_maps=measured)
    if measured is None:
        notes.append(f"{like.path} has no {MAPS}, so whether its maps were of the same kind could not be checked.")
    if absent := [name for name in like.metadata.covariate_columns if name not in source.rows]:
        notes.append(f"Covariates that {source.table} lacks are empty: {', '.join(absent)}.")
    return planned, notes


def check_first_maps(source: Source) -> None:
    """Raises InputError if a few maps, spread over many subjects, are of several kinds, before all are read."""
    if len(source.maps) < FIRST_OF * FIRST_MAPS:
        return
    some = source.maps.iloc[np.linspace(0, len(source.maps) - 1, FIRST_MAPS).astype(int)]
    for name, measured in by_map(some, [measures.of_maps(maps) for maps in some.to_numpy().tolist()]).items():
        try:
            check_kind(measured, [of_map.name for of_map in some[name]], None)
        except InputError as error:
            raise InputError(f"{name}, {FIRST_MAPS} of {len(source.maps)} maps: {error}") from error


def by_map(maps: pd.DataFrame, found: Sequence[list[tuple[dict[str, float], np.ndarray]]]) -> dict[str, pd.DataFrame]:
    """`measures.of_maps` of each subject -> for each map (a column of `maps`) a table with a row a subject."""
    return {
        name: pd.DataFrame([measured for measured, _ in of_map])
        for name, of_map in zip(maps.columns, zip(*found, strict=True), strict=True)
    }


def provenance_of(source: Source, command: str) -> dict[str, Any]:
    """Where a cohort comes from, with SHA-256 over the names and contents of files. Raises InputError for nobody."""
    if source.subjects.empty:
        raise InputError(f"{source.table} and the maps have no subject in common; expected IDs that match.")
    digest = hashlib.sha256()
    for path in [source.table, *dict.fromkeys(of_map.path for of_map in source.maps.to_numpy().ravel())]:
        digest.update(path.name.encode() + b"\0" + bytes.fromhex(sum_of(path)))
    return {"command": command, "input_sha256": digest.hexdigest(), "left_out": source.left_out}


def covariate_columns(source: Source, options: ConversionOptions) -> tuple[str, ...]:
    """The column of sites and --covariates; by default ABIDE's, if the table or its phenotype is ABIDE's. Raises
    InputError for a column of numbers that holds anything else, on which no floor could be fitted."""
    named = options.covariates
    if named is None:
        known = side_tables.ABIDE_COVARIATES if options.phenotype is None or is_abide(source.rows) else ()
        named = tuple(name for name in known if name in source.rows)
    for name in named:
        values = column(source.rows, name, source.table)
        if name != source.site_column and mostly_numbers(values):
            numbers(source.rows, name)
    return tuple(dict.fromkeys(filter(None, [source.site_column, *named])))


def check_new_scans(source: Source, like: Cohort) -> None:
    """Raises InputError if new people have a scan of training subjects of `like`, under whatever ID."""
    training = sorted(set(like.indices("train")) & set(like.unswapped())) if like.subjects("train") else []
    known, means = twins.of_cohort(like, training)
    with processes() as pool:
        maps = [(of_one,) for of_one in source.maps.to_numpy().tolist()]
        new = np.array(pool.run("Comparing", stored_means, maps))
    people = source.subjects["subject"].tolist()
    if leaked := twins.shared((known, means), (people, new)):
        pairs = listed([f"{one} has that of {other}" for one, other in leaked.items()])
        raise InputError(
            f"At least {len(leaked)} of {source.table} have a scan of training subjects of {like.path}: {pairs}; "
            f"expected new people. Leave them out: --exclude {','.join(leaked)}"
        )


def stored_means(maps: Sequence[MapOnDisk]) -> np.ndarray:
    """Region means (regions, maps) of maps on disk, resampled as in records."""
    return np.column_stack([twins.of_volume(volume[..., None]) for volume in load_maps(maps)])


def write(
    source: Source,
    target: Path,
    planning: Callable[[pd.DataFrame], PlannedCohort],
    allow_leak: bool = False,
    like_maps: Mapping[str, pd.DataFrame] | None = None,
) -> tuple[PlannedCohort, list[str]]:
    """Writes the cohort planned for the table of subjects, once it is known who shares a scan; returns it with notes on
    its maps (see `check_maps`)."""
    maps, subjects, notes = source.maps, source.subjects["subject"].tolist(), []
    planning(source.subjects)  # what is wrong with the table is told before maps are read
    with files.locked(target), processes() as pool:
        check_empty(target)
        found = pool.run("Measuring", measures.of_maps, [(of_one,) for of_one in maps.to_numpy().tolist()])
        measured = by_map(maps, found)
        means = np.array([[of_regions for _, of_regions in of_one] for of_one in found])
        alike = twins.alike(subjects, np.moveaxis(means, 1, -1))
        planned = planning(source.subjects.assign(scan=[*leaders(subjects, alike.same_scan).values()]))
        check_target(target, planned.metadata)
        notes += copy_notes(alike, planned)
        for name, of_map in measured.items():
            prefix, like = f"{name}: " if len(measured) > 1 else "", like_maps[name] if like_maps else None
            try:
                told = check_maps(of_map, [one.name for one in maps[name]], planned.rows, allow_leak, like)
            except InputError as error:
                raise InputError(f"{prefix}{error}") from error
            notes += [f"{prefix}{note}" for note in told]
        if allow_leak:
            planned = with_leaks_of_maps(planned, measured)
        target.mkdir(parents=True, exist_ok=True)
        for leftover in target.glob(".unfinished.*"):  # of killed processes
            files.remove(leftover)
        files.write_json(target / METADATA, planned.metadata.json())
        grid = next(grid for grid in grids.GRIDS.values() if grid.shape == planned.metadata.grid)
        arguments = [
            (of_one, (row.label, scaled), target / row.file, grid)
            for row, of_one, scaled in zip(planned.rows, maps.to_numpy().tolist(), planned.scaled, strict=True)
        ]
        pool.run("Converting", convert_maps, arguments)
        measures.write(target / MAPS, source.subjects["subject"], measured)
        planned.write_tables(target)
        open_cohort(target)  # nothing is called done that cannot be read
    return planned, notes


def copy_notes(found: twins.Twins, planned: PlannedCohort) -> list[str]:
    """Who shares a scan, what follows, and which of them differ in their label; then possible second sessions."""
    notes = []
    if found.same_scan:
        kept = "kept apart by --keepCopies" if planned.metadata.copies == APART else "in one split, and in one fold"
        notes.append(
            f"Subjects who share a scan, {kept}: {listed([' and '.join(group) for group in found.same_scan])}."
        )
    label = {row.subject: row.label for row in planned.rows if row.known}
    if both := [group for group in found.same_scan if len({label[one] for one in group if one in label}) > 1]:
        notes.append(f"Of these, {twins.named(both)} differ in their label; leave them out with --exclude.")
    return [*notes, *(f"{note[0].upper()}{note[1:]}." for note in found.notes())]


def check_empty(target: Path) -> None:
    """Raises InputError if the folder holds anything but a conversion that was begun."""
    if (target / METADATA).exists():
        return
    if target.exists() and any(path for path in target.iterdir() if not path.name.startswith(".")):
        raise InputError(f"{target} is not empty and holds no cohort; choose another folder.")


def with_leaks_of_maps(planned: PlannedCohort, measured: Mapping[str, pd.DataFrame]) -> PlannedCohort:
    """The planned cohort, whose metadata name the measures of maps that separate the training labels, too."""
    training = np.array([row.split == "train" for row in planned.rows])
    label = np.array([row.label for row in planned.rows])[training]
    leaks = {
        f"the maps' {measure}" if len(measured) == 1 else f"{name}'s {measure}": auc
        for name, of_map in measured.items()
        for measure, auc in separating(of_map[training], label).items()
    }
    known = planned.metadata.accepted_leaks
    metadata = replace(planned.metadata, accepted_leaks=(*known, *accepted((), None, leaks)))
    return replace(planned, metadata=metadata)


def check_target(target: Path, metadata: Metadata) -> None:
    """Raises InputError if the folder holds another cohort than an interrupted run of the same conversion left."""
    if not (target / METADATA).exists():
        return
    there, here = dict[str, Any](), metadata.json()
    with suppress(InputError):  # what is damaged is none of this conversion
        there = files.read_json(target / METADATA, dict)
    for content in (there, here):
        content.pop("accepted_leaks", None)  # those of maps are known after these are read
    if files.json_text(there) != files.json_text(here):
        raise InputError(f"{target} holds a cohort converted differently; choose another folder or remove it.")


def convert_maps(maps: Sequence[MapOnDisk], header: tuple[float, np.ndarray], target: Path, grid: grids.Grid) -> None:
    """Writes one record of a label and scaled phenotype (29,), unless it is there; each map is z-scored by itself."""
    if target.exists() and target.stat().st_size == records.record_bytes(grid, len(maps)):
        return
    volumes = map(records.normalise, load_maps(maps))
    if grid != grids.FULL:
        volumes = map(records.block_mean, volumes)
    with files.replacing(target, "wb") as file:
        file.write(records.pack(*header, *volumes))


def check_maps(
    measured: pd.DataFrame, names: Sequence[str], rows: Sequence[Row], allow_leak: bool, like: pd.DataFrame | None
) -> list[str]:
    """Notes on one map of all subjects, with the measures of each file in `names`. Raises InputError if the maps are of
    several kinds, or not of that of `like`, or separate the training labels."""
    notes = [f"Maps: {check_kind(measured, names, like)}."]
    training = np.array([row.split == "train" for row in rows])
    label = np.array([row.label for row in rows])
    if leaks := check_measures(measured[training], label[training], allow_leak):
        notes.append(f"Accepted by --allowLeak: the maps separate the training labels by {', '.join(leaks)}.")
    return notes


def check_kind(measured: pd.DataFrame, names: Sequence[str], like: pd.DataFrame | None) -> str:
    """The kind of all maps. Raises InputError if they are of several kinds, or of another one than `like`."""
    kinds = measures.kinds(pd.concat([like, measured], ignore_index=True))
    found = kinds.iloc[-len(measured) :].set_axis(measured.index)
    if mixed := measures.mixture(found, names):
        raise InputError(
            f"The maps are of several kinds: {mixed}; expected one kind. Convert those of one kind: choose with --only "
            "or --mapColumn."
        )
    kind = str(found.iloc[0])
    if kind != (wanted := kinds.iloc[0]):
        raise InputError(
            f"The maps are {kind}, such as {names[0]}, those of the cohort that --like names {wanted}; "
            "expected one kind. Choose the same maps with --only or --mapColumn."
        )
    return kind
