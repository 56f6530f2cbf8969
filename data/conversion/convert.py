"""Maps and a table -> a cohort: z-scored records, split by subject, phenotype scaled on training subjects."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import compress, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data import grids
from data.base import files
from data.base.errors import InputError
from data.base.processes import processes
from data.cohorts import records, side_tables
from data.cohorts.cohort import MAPS, Cohort
from data.cohorts.nifti import load_map
from data.cohorts.phenotype import ABIDE_COLUMNS
from data.cohorts.rows import METADATA, Metadata, Row
from data.conversion import measures
from data.conversion.codings import mixed_codings, units_by_site
from data.conversion.leaks import check_coding, check_measures, check_names
from data.conversion.options import ConversionOptions
from data.conversion.plan import PlannedCohort, plan, plan_like
from data.conversion.source import Source, is_abide
from data.conversion.tables import column

MAPS_NAMED = 10  # in a note
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
    planned = plan(source.subjects, source.rows, options, provenance, source.maps.columns.tolist())
    return planned, [*told, *write(source, target, planned, options.allow_leak)]


def convert_like(source: Source, target: Path, like: Cohort, command: str) -> tuple[PlannedCohort, list[str]]:
    """`convert` for test subjects, prepared as `like` was: nothing is learnt from `source`. Raises InputError if the
    maps or the table do not allow it, or for training subjects of `like`."""
    check_first_maps(source)
    planned = plan_like(like, source, provenance_of(source, command))
    labelled = source.subjects["label"].notna().to_numpy()
    check_coding(source.rows[labelled], source.subjects["label"].to_numpy()[labelled], source.label_column)
    measured = measures.read(like.tables, [row.subject for row in like.rows], like.maps) if like.tables else None
    notes = write(source, target, planned, like_maps=measured)
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
    for name, paths in some.items():
        try:
            check_kind(pd.DataFrame(list(map(measures.of_map, paths))), [path.name for path in paths], None)
        except InputError as error:
            raise InputError(f"{name}, {FIRST_MAPS} of {len(source.maps)} maps: {error}") from error


def provenance_of(source: Source, command: str) -> dict[str, Any]:
    """Where a cohort comes from, with SHA-256 over the names and contents of files. Raises InputError for nobody."""
    if source.subjects.empty:
        raise InputError(f"{source.table} and the maps have no subject in common; expected IDs that match.")
    digest = hashlib.sha256()
    for path in [source.table, *source.maps.to_numpy().ravel()]:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return {"command": command, "input_sha256": digest.hexdigest(), "left_out": source.left_out}


def covariate_columns(source: Source, options: ConversionOptions) -> tuple[str, ...]:
    """The column of sites and --covariates; by default ABIDE's, if the table or its phenotype is ABIDE's."""
    named = options.covariates
    if named is None:
        known = side_tables.ABIDE_COVARIATES if options.phenotype is None or is_abide(source.rows) else ()
        named = tuple(name for name in known if name in source.rows)
    for name in named:
        column(source.rows, name, source.table)
    return tuple(dict.fromkeys(filter(None, [source.site_column, *named])))


def write(
    source: Source,
    target: Path,
    planned: PlannedCohort,
    allow_leak: bool = False,
    like_maps: Mapping[str, pd.DataFrame] | None = None,
) -> list[str]:
    """Writes the planned cohort; returns notes on its maps (see `check_maps`)."""
    maps, notes = source.maps, []
    with files.locked(target), processes() as pool:
        check_target(target, planned.metadata)
        every = iter(pool.run("Measuring", measures.of_map, [(path,) for path in maps.to_numpy().T.ravel()]))
        measured = {name: pd.DataFrame(list(islice(every, len(maps)))) for name in maps.columns}
        for name, of_map in measured.items():
            prefix, like = f"{name}: " if len(measured) > 1 else "", like_maps[name] if like_maps else None
            try:
                found = check_maps(of_map, [path.name for path in maps[name]], planned.rows, allow_leak, like)
            except InputError as error:
                raise InputError(f"{prefix}{error}") from error
            notes += [f"{prefix}{note}" for note in found]
        target.mkdir(parents=True, exist_ok=True)
        for leftover in target.glob(".unfinished.*"):  # of killed processes
            files.remove(leftover)
        files.write_json(target / METADATA, planned.metadata.json())
        grid = next(grid for grid in grids.GRIDS.values() if grid.shape == planned.metadata.grid)
        arguments = [
            (paths, (row.label, scaled), target / row.file, grid)
            for row, paths, scaled in zip(planned.rows, maps.to_numpy().tolist(), planned.scaled, strict=True)
        ]
        pool.run("Converting", convert_maps, arguments)
        measures.write(target / MAPS, source.subjects["subject"], measured)
        planned.write_tables(target)
    return notes


def check_target(target: Path, metadata: Metadata) -> None:
    """Raises InputError if the folder holds anything but what an interrupted run of the same conversion left."""
    if (target / METADATA).exists():
        if (target / METADATA).read_bytes() != files.json_text(metadata.json()).encode():
            raise InputError(f"{target} holds a cohort converted differently; choose another folder or remove it.")
    elif target.exists() and any(path for path in target.iterdir() if not path.name.startswith(".")):
        raise InputError(f"{target} is not empty and holds no cohort; choose another folder.")


def convert_maps(paths: Sequence[Path], header: tuple[float, np.ndarray], target: Path, grid: grids.Grid) -> None:
    """Writes one record of a label and scaled phenotype (29,), unless it is there; each map is z-scored by itself."""
    if target.exists() and target.stat().st_size == records.record_bytes(grid, len(paths)):
        return
    volumes = [records.normalise(load_map(path)) for path in paths]
    if grid != grids.FULL:
        volumes = [records.block_mean(volume) for volume in volumes]
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
    if alike := list(compress(names, measured.duplicated(keep=False))):
        shown = ", ".join(alike[:MAPS_NAMED])
        notes.append(f"{len(alike)} maps equal another one in all measures; are they of other people? {shown}")
    if sizes := measures.voxel_sizes(measured, names):
        notes.append(f"{sizes[0].upper()}{sizes[1:]}.")
    if by_site := measures.by_site(measured, [row.site for row in rows]):
        notes.append(f"The maps' {', '.join(by_site)} differ by site; compare subjects within sites.")
    if (far := measures.far(measured)).any():
        shifted = [f"{names[at]} ({measures.where(measured.iloc[at])})" for at in np.flatnonzero(far).tolist()]
        centre = measures.where(measured.median())
        notes.append(f"Far from the others, centre at {centre}: {', '.join(shifted[:MAPS_NAMED])}.")
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
