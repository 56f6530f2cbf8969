"""Maps and a table -> a cohort: z-scored records, split by subject, phenotype scaled on training subjects."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
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
from data.cohorts.rows import METADATA, Metadata, Row
from data.conversion import measures
from data.conversion.leaks import accepted, check_coding, check_measures, check_names, separating
from data.conversion.options import ConversionOptions
from data.conversion.plan import PlannedCohort, plan, plan_like
from data.conversion.source import Source, is_abide
from data.conversion.tables import column


def convert(source: Source, target: Path, options: ConversionOptions, command: str) -> tuple[PlannedCohort, list[str]]:
    """Writes the cohort `target`, using every core, and returns it with notes on the maps; repeating an interrupted
    command completes it. Raises InputError for a leak, or if another process writes `target`."""
    provenance = provenance_of(source, command)
    check_coding(source.rows, source.subjects["label"].to_numpy(), source.label_column)
    covariates = covariate_columns(source, options)
    if not options.allow_leak:
        check_names(options.phenotype or (), source.label_column)
        check_names(options.covariates or (), source.label_column, "--covariates")
    options = replace(options, covariates=covariates)
    planned = plan(source.subjects, source.rows, options, provenance, source.maps.columns.tolist())
    if options.allow_leak:
        chosen, auc = [*(options.phenotype or ()), *covariates], planned.metadata.phenotype_auc
        leaks = accepted(list(dict.fromkeys(chosen)), source.label_column, auc)
        planned = replace(planned, metadata=replace(planned.metadata, accepted_leaks=leaks))
    return planned, write(source, target, planned, options.allow_leak)


def convert_like(source: Source, target: Path, like: Cohort, command: str) -> tuple[PlannedCohort, list[str]]:
    """`convert` for test subjects, prepared as `like` was: nothing is learnt from `source`. Raises InputError if the
    maps or the table do not allow it, or for training subjects of `like`."""
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
        if allow_leak:
            planned = with_leaks_of_maps(planned, measured)
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
    """Raises InputError if the folder holds anything but what an interrupted run of the same conversion left."""
    if (target / METADATA).exists():
        there, here = dict[str, Any](), metadata.json()
        with suppress(InputError):  # what is damaged is none of this conversion
            there = files.read_json(target / METADATA, dict)
        for content in (there, here):
            content.pop("accepted_leaks", None)  # those of maps are known after these are read
        if files.json_text(there) != files.json_text(here):
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
