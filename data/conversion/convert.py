"""Maps and a table -> a cohort: z-scored records, split by subject, phenotype scaled on training subjects.

What is wrong with the table is told first. Then each map is read once, which tells who shares a scan; people are split,
and the phenotype is scaled. All is written into a folder beside the target, which takes its place at the end.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from data.base import files, manifest
from data.base.errors import InputError
from data.base.pool import Pool
from data.base.terminal import SummaryRow
from data.cohorts import phenotype, records
from data.cohorts.cohort import MAPS_FILE, Cohort
from data.cohorts.derivation import copy_derivation_images
from data.cohorts.duplicates import (
    PeopleScans,
    SubjectGroups,
    find_duplicates,
    find_people_in_common,
    load_people_scans,
)
from data.cohorts.phenotype import ABIDE_PHENOTYPE_COLUMNS, is_mostly_numbers, parse_number_column
from data.cohorts.rows import COMMAND_KEY, Metadata, join_names
from data.cohorts.stored import open_cohort, open_run_cohort
from data.conversion import families, measures
from data.conversion.derived import compared
from data.conversion.leaks import (
    accepted,
    check_coding,
    check_informative,
    check_measures,
    check_names,
    check_numbers,
    mixed_codings,
    uninformative,
    units_by_site,
)
from data.conversion.options import ConversionOptions
from data.conversion.plan import PlannedCohort, check_like, plan, plan_like
from data.conversion.selection import is_abide
from data.conversion.series import correlate
from data.conversion.source import Source
from data.conversion.split import KeptSplit
from data.conversion.tables import check_columns, column
from data.conversion.template import TemplateCohort, unknown_categories
from data.conversion.volumes import PersonMaps, read_person

Likeness = Callable[[], tuple[Mapping[str, bytes], str]]  # files by name; if there are none, why


@dataclass(frozen=True)
class Conversion:
    """People to convert, and how. New people are prepared as `like`, and nothing is learnt of them; `likeness` makes
    the files that tell what those of `like` are like."""

    source: Source
    options: ConversionOptions
    command: str  # as it was typed
    like: TemplateCohort | None
    likeness: Likeness | None
    earlier: KeptSplit | None

    def plan(self, people: PeopleScans | None = None, same_scan: SubjectGroups = ()) -> PlannedCohort:
        """The cohort of the subjects. What tells `people`, and who of them share a scan, is known once their maps are
        read."""
        source, subjects = self.source, self.source.subjects
        if self.like:
            return plan_like(subjects, same_scan, source, self.like.cohort)
        if self.earlier:
            subjects = self.earlier.added(subjects, people)
        covariates = covariate_columns(source, self.options)
        return plan(subjects, same_scan, source.rows, self.options, covariates, source.site_column, list(source.maps))

    def write(self, folder: Path, grid: records.Grid) -> tuple[PlannedCohort, list[SummaryRow]]:
        """Writes the cohort into a folder; returns it with facts on people and maps."""
        source, like = self.source, self.like.cohort if self.like else None
        subjects, maps = source.subjects["subject"].tolist(), source.maps.to_numpy().tolist()
        with TemporaryDirectory(dir=folder) as place, Pool() as pool:
            volumes = [Path(place, f"{number}.bin") for number in range(len(maps))]
            series, parcels = source.series, source.parcels
            edges = None if series is None else correlate(pool, series, parcels, Path(place), like)
            found = pool.run("Converting", read_person, [(of, grid, to) for of, to in zip(maps, volumes, strict=True)])
            if edges:
                found = edges.beside(found)
                edges.write(folder, subjects)
            scans = {subject: of.of_record.scan_digests for subject, of in zip(subjects, found, strict=True)}
            people = PeopleScans(scans, np.array([of.means for of in found]))
            if like and like.split_subjects("train"):
                check_new_scans(source, like, people)
            planned = self.plan(people, find_duplicates(people).same_scan)
            measured = {name: pd.DataFrame([of.measured[at] for of in found]) for at, name in enumerate(source.maps)}
            facts, leaks = self.check_maps(measured, planned)
            planned = replace(planned, metadata=self.described(planned, found, leaks))
            if edges:
                planned = replace(planned, metadata=edges.planned(planned.metadata))
            for volume, row, scaled in zip(volumes, planned.rows, planned.scaled, strict=True):
                with open(volume, "r+b") as file:
                    file.write(records.pack_header(row.label, scaled))
                volume.rename(folder / row.file)
        facts += self.keep_likeness(folder)
        copy_derivation_images(folder, source.images)
        measures.write_measures(folder / MAPS_FILE, subjects, measured)
        planned.write_tables(folder, [of.of_record for of in found])
        open_cohort(folder)  # nothing is called done that cannot be read
        return planned, [*facts, *(edges.facts if edges else [])]

    def keep_likeness(self, folder: Path) -> list[SummaryRow]:
        """Writes what those of `like` are like into the folder of a cohort, or tells why that is not known."""
        if self.likeness is None:
            return []
        contents, why = self.likeness()
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        return [] if contents else [("note", f"Nobody is compared with the training participants: {why}")]

    def described(self, planned: PlannedCohort, found: Sequence[PersonMaps], leaks: Sequence[str]) -> Metadata:
        """The metadata with what all was made of and by, and what --allowLeak accepts, `leaks` of maps among it."""
        source, metadata, digest = self.source, planned.metadata, hashlib.sha256()
        every = [(source.table.name, manifest.compute_sum(source.table)), *chain.from_iterable(of.sums for of in found)]
        for name, value in every:
            digest.update(name.encode() + b"\0" + bytes.fromhex(value))
        split_of = {"split_of": self.earlier.cohort.identity} if self.earlier else {}
        taken = {"like": self.like.cohort.identity} if self.like else split_of | {"seed": self.options.seed or 0}
        made_of = {COMMAND_KEY: self.command, "input_sha256": digest.hexdigest(), "left_out": source.left_out}
        if self.options.allow_leak:
            chosen = dict.fromkeys([*(self.options.phenotype or ()), *metadata.covariate_columns])
            leaks = (*accepted(list(chosen), source.label_column, metadata.phenotype_auc), *leaks)
            metadata = replace(metadata, accepted_leaks=leaks)
        return replace(
            metadata,
            id_column=source.id_column,
            map_column=source.map_column,
            column_maps=source.column_maps,
            provenance=made_of | taken,
            derivation=source.derivation,
        )

    def check_maps(
        self, measured: Mapping[str, pd.DataFrame], planned: PlannedCohort
    ) -> tuple[list[SummaryRow], list[str]]:
        """Facts on the maps by their measures, and those measures that separate the training labels. Raises InputError,
        naming the map if there are several, if they are of several kinds, or not of that of `like`, or if they separate
        the labels and that is not allowed."""
        training = np.array([row.split == "train" for row in planned.rows])
        label = np.array([row.label for row in planned.rows])[training]
        known = self.like.measured if self.like else None
        facts, leaks = list[SummaryRow](), list[str]()
        for name, of_map in measured.items():
            prefix = f"{name}: " if len(measured) > 1 else ""
            try:
                kind = check_kind(of_map, [of.name for of in self.source.maps[name]], known[name] if known else None)
                separating = check_measures(of_map.loc[training, [*measures.COMPARED]], label, self.options.allow_leak)
            except InputError as error:
                raise InputError(f"{prefix}{error}") from error
            facts.append(("maps", f"{prefix}{kind}"))
            leaks += [f"{name}'s {of}" if prefix else f"the maps' {of}" for of in separating]
        if self.like and known is None:
            told = (
                f"whether those of {self.like.cohort.path} were of this kind is not known, since it has no {MAPS_FILE}"
            )
            facts.append(("maps", told))
        return facts, leaks


def convert(
    source: Source,
    target: Path | None,
    options: ConversionOptions,
    command: str,
    like: TemplateCohort | None = None,
    likeness: Likeness | None = None,
) -> tuple[PlannedCohort, list[SummaryRow]]:
    """Writes the new cohort `target`, using every core, and returns it with facts on people and maps. Without a target
    no map is read. Raises InputError, and leaves nothing, if the maps or the table do not allow it."""
    source, facts = check_new_people(source, options, like) if like else check_table(source, options)
    earlier = KeptSplit(open_run_cohort(options.keep_split)) if options.keep_split else None
    conversion = Conversion(source, options, command, like, likeness, earlier)
    planned = conversion.plan()  # what is wrong with the table is told before maps are read
    if target:
        with files.create_folder(target) as folder:
            planned, of_maps = conversion.write(folder, records.GRID_BY_SHAPE[planned.metadata.grid])
            facts += of_maps
    if conversion.earlier:
        facts += conversion.earlier.facts(planned.rows, planned.metadata)
    return planned, facts


def check_table(source: Source, options: ConversionOptions) -> tuple[Source, list[SummaryRow]]:
    """The source with its families, and facts on the table. Raises InputError for columns that are not there, tell the
    diagnosis, or tell nothing, and for numbers that are no measurements."""
    rows, label = source.rows, source.subjects["label"].to_numpy()
    phenotypes, own = options.phenotype or (), options.covariates or ()
    check_coding(rows, label, source.label_column)
    named_by = {"--phenotype": phenotypes, "--covariates": own, "--family": [options.family]}
    check_columns(rows, named_by, source.table)
    if not options.allow_leak:
        check_names({"--phenotype": phenotypes, "--covariates": own}, source.label_column)
    people = source.subjects["subject"].tolist()
    not_site = [name for name in own if name != source.site_column]
    check_informative(rows, people, {"--phenotype": phenotypes, "--covariates": not_site})
    named = ABIDE_PHENOTYPE_COLUMNS if options.phenotype is None else options.phenotype
    used = [name for name in dict.fromkeys([*named, *covariate_columns(source, options)]) if name in rows]
    check_measurements(source, used)
    told = [*units_by_site(rows, used, source.subjects["site"]), *mixed_codings(rows, used)]
    if nothing := uninformative(rows, people, used):
        told.append(f"nothing can be learnt from {', '.join(nothing)}")
    source = families.added(source, options.family, used)
    return source, [*(("phenotype", text) for text in told), *families.facts(source)]


def check_new_people(
    source: Source, options: ConversionOptions, like: TemplateCohort
) -> tuple[Source, list[SummaryRow]]:
    """The source with its families, and facts on the table of new people. Raises InputError if they cannot be prepared
    as `like`, or are its training subjects."""
    cohort, metadata = like.cohort, like.cohort.metadata
    check_like(source, cohort)
    used = (*metadata.phenotype_columns, *metadata.covariate_columns)
    check_measurements(source, used)
    source = families.added(source, options.family, used, cohort)
    told = [*like.facts, *compared(source, cohort)]
    labelled = source.subjects["label"].notna().to_numpy()
    check_coding(source.rows[labelled], source.subjects["label"].to_numpy()[labelled], source.label_column)
    told += families.facts(source, cohort)
    if absent := [name for name in metadata.covariate_columns if name not in source.rows]:
        told.append(("covariates", f"those that {source.table} lacks are empty: {', '.join(absent)}"))
    for name, values in unknown_categories(source.rows, metadata).items():
        known = join_names(metadata.phenotype_categories[name])
        told.append(("phenotype", f"{name} {join_names(values)} is none of {known}, and taken as unknown"))
    return source, told


def check_measurements(source: Source, columns: Sequence[str]) -> None:
    """Raises InputError for numbers that are likely no measurements, unless --missing has told which are."""
    if not source.odd_allowed:
        check_numbers(source.rows, [name for name in columns if name != source.site_column], source.table)


def covariate_columns(source: Source, options: ConversionOptions) -> tuple[str, ...]:
    """The column of sites and --covariates; by default ABIDE's, if the table or its phenotype is ABIDE's, and head
    motion that is known by the maps. Raises InputError for a column of numbers that holds anything else, on which no
    baseline could be fitted."""
    named = options.covariates
    if named is None:
        known = phenotype.ABIDE_COVARIATES if options.phenotype is None or is_abide(source.rows) else ()
        named = tuple(name for name in (*known, *source.measured) if name in source.rows)
    for name in named:
        values = column(source.rows, name, source.table)
        if name != source.site_column and is_mostly_numbers(values):
            parse_number_column(source.rows, name)
    return tuple(dict.fromkeys(filter(None, [source.site_column, *named])))


def check_new_scans(source: Source, like: Cohort, people: PeopleScans) -> None:
    """Raises InputError if new people have a scan of training subjects of `like`, or a map or connectome of one, under
    whatever ID."""
    if leaked := find_people_in_common(load_people_scans(like, like.split_subjects("train")), people):
        pairs = join_names([f"{one} has that of {other}" for one, other in leaked.items()])
        raise InputError(
            f"At least {len(leaked)} of {source.table} have a scan of training participants of {like.path}: {pairs}; "
            f"expected new participants. Leave them out: --exclude {','.join(leaked)}"
        )


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
