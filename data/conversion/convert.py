"""Maps and a table -> a cohort: z-scored records, split by subject, phenotype scaled on training subjects."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.base import files, manifest
from data.base.errors import InputError
from data.base.processes import Processes, processes
from data.cohorts import phenotype, records, twins
from data.cohorts.cohort import MAPS, Cohort
from data.cohorts.duplicates import leaders, sharing, united
from data.cohorts.phenotype import ABIDE_COLUMNS, mostly_numbers, numbers
from data.cohorts.records import KEPT_DIGITS
from data.cohorts.rows import METADATA, TYPED, Row, listed
from data.cohorts.stored import open_cohort
from data.conversion import families, measures
from data.conversion.derived import check_each, compared
from data.conversion.leaks import (
    accepted,
    check_coding,
    check_informative,
    check_measures,
    check_names,
    check_numbers,
    mixed_codings,
    separating,
    uninformative,
    units_by_site,
)
from data.conversion.options import ConversionOptions
from data.conversion.plan import (
    BEFORE_MAPS,
    PlannedCohort,
    check_empty,
    check_like,
    check_rows,
    check_target,
    copy_notes,
    plan,
    plan_like,
    unknown_categories,
)
from data.conversion.selection import is_abide
from data.conversion.series import correlate
from data.conversion.source import Source
from data.conversion.split import KeptSplit
from data.conversion.tables import check_columns, column
from data.conversion.template import TemplateCohort
from data.conversion.volumes import PersonMaps, finish_record, read_person

FIRST_MAPS, FIRST_OF = 16, 4  # how many are read first, where there are as many times more
Planning = Callable[[pd.DataFrame, Sequence[PersonMaps]], PlannedCohort]  # of subjects and, once read, their maps


def convert(
    source: Source, target: Path | None, options: ConversionOptions, command: str
) -> tuple[PlannedCohort, list[str]]:
    """Writes the cohort `target`, using every core, and returns it with notes on the maps; repeating an interrupted
    command completes it. Without a target nothing is written and no map is read. Raises InputError for a leak, or if
    another process writes `target`."""
    check_coding(source.rows, source.subjects["label"].to_numpy(), source.label_column)
    phenotypes, own = options.phenotype or (), options.covariates or ()
    named_by = {"--phenotype": phenotypes, "--covariates": own, "--family": [options.family]}
    check_columns(source.rows, named_by, source.table)
    if not options.allow_leak:
        check_names(phenotypes, source.label_column)
        check_names(own, source.label_column, "--covariates")
    people = source.subjects["subject"].tolist()
    not_site = [name for name in own if name != source.site_column]
    check_informative(source.rows, people, {"--phenotype": phenotypes, "--covariates": not_site})
    covariates, are_named = covariate_columns(source, options), options.covariates is not None
    options = replace(options, covariates=covariates)
    named = ABIDE_COLUMNS if options.phenotype is None else options.phenotype
    used = [name for name in dict.fromkeys([*named, *covariates]) if name in source.rows]
    if not source.odd_allowed:
        check_numbers(source.rows, [name for name in used if name != source.site_column], source.table)
    told = [*units_by_site(source.rows, used, source.subjects["site"]), *mixed_codings(source.rows, used)]
    told += [f"Nothing can be learnt from {what}." for what in uninformative(source.rows, people, used).values()]
    source = families.added(source, options.family, used)
    earlier = KeptSplit.of(options.keep_split)

    def planning(subjects: pd.DataFrame, found: Sequence[PersonMaps]) -> PlannedCohort:
        provenance = provenance_of(source, found, command)
        if earlier:
            subjects = earlier.added(subjects, [person.means for person in found])
            provenance["split_of"] = earlier.cohort.digest
        planned = plan(subjects, source.rows, options, provenance, source.maps.columns.tolist())
        planned = replace(planned, metadata=replace(planned.metadata, covariates_named=are_named))
        if not options.allow_leak:
            return planned
        chosen, auc = [*(options.phenotype or ()), *covariates], planned.metadata.phenotype_auc
        leaks = accepted(list(dict.fromkeys(chosen)), source.label_column, auc)
        return replace(planned, metadata=replace(planned.metadata, accepted_leaks=leaks))

    planned, notes = write_cohort(source, target, planning, options.allow_leak)
    kept = earlier.notes(planned.rows, planned.metadata) if earlier else []
    return planned, [*told, *families.notes(source), *kept, *notes]


def convert_like(
    source: Source, target: Path | None, like: TemplateCohort, command: str, family_column: str | None = None
) -> tuple[PlannedCohort, list[str]]:
    """`convert` for test subjects, prepared as `like` was: nothing is learnt from `source`. Raises InputError if the
    maps or the table do not allow it, or for training subjects of `like`."""
    check_like(source, like.cohort)
    used = (*like.cohort.metadata.phenotype_columns, *like.cohort.metadata.covariate_columns)
    if not source.odd_allowed:
        check_numbers(source.rows, [name for name in used if name != source.site_column], source.table)
    source = families.added_like(source, family_column, like.cohort)
    derivation = like.cohort.metadata.derivation
    if derivation and not source.derivation:  # not one way of all maps, or not known of all
        check_each(source.files, derivation, like.cohort.path)
    told = compared(source.derivation, derivation, like.cohort.path)
    labelled = source.subjects["label"].notna().to_numpy()
    check_coding(source.rows[labelled], source.subjects["label"].to_numpy()[labelled], source.label_column)

    def planning(subjects: pd.DataFrame, found: Sequence[PersonMaps]) -> PlannedCohort:
        return plan_like(subjects, like.cohort, source, provenance_of(source, found, command))

    planned, notes = write_cohort(source, target, planning, like=like)
    if absent := [name for name in like.cohort.metadata.covariate_columns if name not in source.rows]:
        notes.append(f"Covariates that {source.table} lacks are empty: {', '.join(absent)}.")
    for name, values in unknown_categories(source.rows, like.cohort.metadata).items():
        known = listed(planned.metadata.phenotype_categories[name])
        notes.append(f"{name} {listed(values)} is none of {known}, and taken as unknown.")
    return planned, [*like.notes, *told, *families.notes_like(source, like.cohort), *notes]


def by_map(maps: pd.DataFrame, found: Sequence[PersonMaps]) -> dict[str, pd.DataFrame]:
    """For each map (a column of `maps`) a table of its measures with a row a subject."""
    return {name: pd.DataFrame([person.measured[at] for person in found]) for at, name in enumerate(maps.columns)}


def provenance_of(source: Source, found: Sequence[PersonMaps], command: str) -> dict[str, Any]:
    """Where a cohort comes from, with SHA-256 over the names and contents of files."""
    digest, of_table = hashlib.sha256(), (source.table.name, manifest.sum_of(source.table))
    for name, value in [of_table, *chain.from_iterable(of.sums for of in found)]:
        digest.update(name.encode() + b"\0" + bytes.fromhex(value))
    return {TYPED: command, "input_sha256": digest.hexdigest(), "left_out": source.left_out}


def covariate_columns(source: Source, options: ConversionOptions) -> tuple[str, ...]:
    """The column of sites and --covariates; by default ABIDE's, if the table or its phenotype is ABIDE's, and head
    motion that is known by the maps. Raises InputError for a column of numbers that holds anything else, on which no
    floor could be fitted."""
    named = options.covariates
    if named is None:
        known = phenotype.ABIDE_COVARIATES if options.phenotype is None or is_abide(source.rows) else ()
        named = tuple(name for name in (*known, *source.measured) if name in source.rows)
    for name in named:
        values = column(source.rows, name, source.table)
        if name != source.site_column and mostly_numbers(values):
            numbers(source.rows, name)
    return tuple(dict.fromkeys(filter(None, [source.site_column, *named])))


def check_new_scans(source: Source, like: Cohort, found: Sequence[PersonMaps]) -> None:
    """Raises InputError if new people have a scan of training subjects of `like`, or a map or connectome of one, under
    whatever ID."""
    training = sorted(set(like.indices("train")) & set(like.unswapped()))
    known, subjects = twins.of_cohort(like, training), source.subjects["subject"].tolist()
    scans = like.scans("train")
    leaked = twins.shared(known, (subjects, np.array([of.means for of in found])))
    for subject, of in zip(subjects, found, strict=True):
        for scan in {digest[:KEPT_DIGITS] for digest in of.digests} & scans.keys():
            leaked[subject] = scans[scan]
    if leaked:
        pairs = listed([f"{one} has that of {other}" for one, other in leaked.items()])
        raise InputError(
            f"At least {len(leaked)} of {source.table} have a scan of training subjects of {like.path}: {pairs}; "
            f"expected new people. Leave them out: --exclude {','.join(leaked)}"
        )


def write_cohort(
    source: Source,
    target: Path | None,
    planning: Planning,
    allow_leak: bool = False,
    like: TemplateCohort | None = None,
) -> tuple[PlannedCohort, list[str]]:
    """Writes the cohort planned for the table of subjects, once it is known who shares a scan; returns it with notes on
    its maps (see `check_maps`). Nothing stays in `target` of a cohort that is refused."""
    maps, subjects = source.maps, source.subjects["subject"].tolist()
    planned = planning(source.subjects, [])  # what is wrong with the table is told before maps are read
    if target is None:
        return planned, []
    grid = records.GRID_OF_SHAPE[planned.metadata.grid]
    with files.locked(target):
        check_empty(target)
        if (target / METADATA).exists():
            begun = planning(source.subjects, [PersonMaps(sums, [], np.empty(0), ()) for sums in source.sums()])
            check_target(target, begun.metadata, BEFORE_MAPS)
        with unfinished_records(target) as folder, processes() as pool:
            edges = correlate(pool, source.series, folder, like.cohort if like else None)
            found = read_maps(pool, source, [folder / f"{number}.bin" for number in range(len(maps))], grid)
            found = edges.beside(found) if edges else found
            if like and like.cohort.subjects("train"):
                check_new_scans(source, like.cohort, found)
            alike = twins_of(subjects, found)
            planned = planning(source.subjects.assign(scan=[*leaders(subjects, alike.same_scan).values()]), found)
            metadata = edges.planned(planned.metadata) if edges else planned.metadata
            planned = replace(planned, metadata=replace(metadata, derivation=source.derivation))
            check_target(target, planned.metadata)
            check_rows(target, planned.rows)
            measured = by_map(maps, found)
            notes = [*copy_notes(alike, planned), *check_all_maps(maps, measured, planned, allow_leak, like)]
            notes += edges.notes if edges else []
            if allow_leak:
                planned = with_leaks_of_maps(planned, measured)
            files.write_json(target / METADATA, planned.metadata.json())
            people = enumerate(zip(planned.rows, planned.scaled, strict=True))
            headers = [(folder / f"{at}.bin", row.label, scaled, target / row.file) for at, (row, scaled) in people]
            pool.run("Finishing", finish_record, headers)
            if edges:
                edges.write(target, subjects)
            if source.kept:
                source.kept.write(target)
        measures.write_measures(target / MAPS, source.subjects["subject"], measured)
        planned.write_tables(target)
        open_cohort(target)  # nothing is called done that cannot be read
    return planned, notes


def twins_of(subjects: Sequence[str], found: Sequence[PersonMaps]) -> twins.Twins:
    """The twins among subjects: those whose maps are alike, and those with an equal map or connectome."""
    alike = twins.alike(subjects, np.array([person.means for person in found]))
    equal = sharing((subject, of.digests) for subject, of in zip(subjects, found, strict=True))
    groups = united([*([subject] for subject in subjects), *alike.same_scan, *equal])
    leader = leaders(subjects, groups)
    apart = tuple(pair for pair in alike.same_person if len({leader[one] for one in pair}) > 1)
    return twins.Twins(groups, apart)


@contextmanager
def unfinished_records(target: Path) -> Iterator[Path]:
    """A folder in `target` for records until they are finished; `target` goes, too, if nothing else is in it."""
    for leftover in target.glob(".unfinished.*"):  # of killed processes
        files.remove(leftover)
    folder = target / ".unfinished.records"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        files.remove(folder)
        with suppress(OSError):  # it is not empty
            target.rmdir()


def read_maps(pool: Processes, source: Source, records: Sequence[Path], grid: records.Grid) -> list[PersonMaps]:
    """Reads the maps of each subject and writes their unfinished `records`. Of many subjects a few, spread over all,
    come first. Raises InputError if their maps are of several kinds."""
    tasks = [(maps, grid, record) for maps, record in zip(source.maps.to_numpy().tolist(), records, strict=True)]
    found = dict[int, PersonMaps]()
    if len(tasks) >= FIRST_OF * FIRST_MAPS:
        first = np.linspace(0, len(tasks) - 1, FIRST_MAPS).astype(int).tolist()
        found |= zip(first, pool.run("Converting the first", read_person, [tasks[at] for at in first]), strict=True)
        for name, measured in by_map(source.maps, list(found.values())).items():
            try:
                check_kind(measured, [of_map.name for of_map in source.maps[name].iloc[first]], None)
            except InputError as error:
                raise InputError(f"{name}, {FIRST_MAPS} of {len(tasks)} maps: {error}") from error
    rest = [at for at in range(len(tasks)) if at not in found]
    found |= zip(rest, pool.run("Converting", read_person, [tasks[at] for at in rest]), strict=True)
    return [found[at] for at in range(len(tasks))]


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


def check_all_maps(
    maps: pd.DataFrame,
    measured: Mapping[str, pd.DataFrame],
    planned: PlannedCohort,
    allow_leak: bool,
    like: TemplateCohort | None,
) -> list[str]:
    """Notes on each map; see `check_maps`, whose errors name the map if there are several."""
    known = like.measured if like else None
    notes = []
    for name, of_map in measured.items():
        prefix, of_like = f"{name}: " if len(measured) > 1 else "", known[name] if known else None
        try:
            told = check_maps(of_map, [one.name for one in maps[name]], planned.rows, allow_leak, of_like)
        except InputError as error:
            raise InputError(f"{prefix}{error}") from error
        notes += [f"{prefix}{note}" for note in told]
    if like and known is None:
        notes.append(
            f"{like.cohort.path} has no {MAPS}, so whether its maps were of the same kind could not be checked."
        )
    return notes


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
    """The kind of all maps. Raises InputError if they are of several kinds, or of another one than `like`. The latter
    counts as more maps than are `measured`, lest these decide what all are."""
    known = [] if like is None else [like] * (len(measured) // len(like) + 1)
    kinds = measures.kinds(pd.concat([*known, measured], ignore_index=True))
    found = kinds.iloc[-len(measured) :].set_axis(measured.index)
    if mixed := measures.mixture(found, names):
        raise InputError(
            f"The maps are of several kinds: {mixed}; expected one kind. Convert those of one kind: choose with --only "
            "or --mapColumn."
        )
    kind = str(found.iloc[0])
    if kind != (wanted := kinds.iloc[0]):
        raise InputError(
            f"The maps are {kind}, such as {names[0]}, unlike those of the cohort or bundle, {wanted}; expected one "
            "kind. Choose the same maps with --only or --mapColumn."
        )
    return kind
