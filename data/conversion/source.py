"""A folder of maps and a table -> subjects with their maps, site and label, and who is left out and why."""

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from data.base.errors import InputError, quote_text
from data.base.files import find_file
from data.base.terminal import SummaryRow
from data.cohorts.derivation import Derivation
from data.cohorts.rows import Metadata, join_names
from data.conversion import derived
from data.conversion.discovery import KNOWN_MAPS, MAPS, SERIES, Listing, find, find_table
from data.conversion.options import SourceOptions
from data.conversion.selection import (
    ABIDE_SUBJECT,
    Condition,
    coding_of,
    excluded,
    labels,
    of_labels,
)
from data.conversion.series import image_of
from data.conversion.sites import SITE_COLUMNS, check_known, read_sites
from data.conversion.tables import (
    check_identifiers,
    column,
    key,
    matching_column,
    read_table,
    unmatched,
    without_codes,
)
from data.conversion.template import TemplateCohort
from data.conversion.volumes import check_map_names, files_of, maps_in

DEFAULT_MAPS = ("falff",)
EVERY_MAP = ("all",)  # that everybody has


@dataclass(frozen=True)
class Source:
    """Subjects to convert, those that cannot be, and how they were read; each data frame has a row for each subject."""

    table: Path
    label_column: str | None  # None if the table has none, as below
    site_column: str | None
    subjects: pd.DataFrame  # subject, site, label (1.0 autism, 0.0 control, NaN unknown)
    maps: pd.DataFrame  # MapOnDisk, a column for each map, by name
    rows: pd.DataFrame  # the table's text
    measured: tuple[str, ...]  # columns of `rows` that the table lacks, see `with_motion`
    left_out: dict[str, list[str]]  # for each reason, the subjects without a record
    facts: list[SummaryRow]  # how all of this was found
    series: pd.Series | None = None  # the file of each, called by what they hold; None without --connectome
    parcels: Path | None = None  # the image of their labels
    derivation: Derivation | None = None  # how all of this was derived from scans, if that is known
    images: Mapping[str, Path] = field(default_factory=dict)  # that were taken for it
    odd_allowed: bool = False  # whether --missing says which numbers are codes, and so that all others are right
    family_column: str | None = None  # of which `subjects` have the column `family`
    id_column: str = ""  # that was named, now or of those who were prepared before, as the next two
    map_column: str = ""
    column_maps: tuple[str, ...] = ()  # what the files that its columns name are called


@dataclass(frozen=True)
class JoinedTable:
    """A table joined with maps."""

    path: Path
    table: pd.DataFrame
    id_column: str
    maps: pd.DataFrame  # the files of maps of each row (a column for each name), NaN if none
    wanted: list[str]  # maps in these files
    facts: list[SummaryRow]
    stray: list[str] = field(default_factory=list)  # IDs of maps without a row
    series: pd.Series | None = None  # the file of each row, NaN if there is none; None without --connectome
    named_id: str = ""  # the column of IDs, if it was named
    map_column: str = ""  # that of paths, if one was

    @property
    def complete(self) -> pd.Series:
        """Whether each row has all maps, and series."""
        with_maps = self.maps.notna().all(axis=1)
        return with_maps if self.series is None else with_maps & self.series.notna()

    @property
    def identifier(self) -> pd.Series:
        """The subject of each row."""
        return self.table[ABIDE_SUBJECT if ABIDE_SUBJECT in self.table else self.id_column].map(key)


def read_source(
    folder: Path, options: SourceOptions, like: TemplateCohort | None = None, optional: bool = False
) -> Source:
    """Joins the maps under `folder` with the table. Who lacks a map or a diagnosis is left out; the latter is
    `optional` of new people, who are prepared `like` others. Raises InputError if a choice must be made by the user."""
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder; expected fALFF maps, or others, as NIfTI and a table of participants."
        )
    site_columns, before = list(SITE_COLUMNS), Metadata()
    if like:
        optional, before = True, like.cohort.metadata
        options = replace(options, maps=like.cohort.map_names, connectome=like.cohort.metadata.connectome or None)
        site_columns = [like.cohort.metadata.site_column, *site_columns]
    listing = Listing(folder)
    joined = join(listing, options, before)
    path, table, identifier = joined.path, joined.table, joined.identifier
    coding = coding_of(table, options, path, optional)
    diagnosis, label = labels(table, coding, path, optional)
    labelled = label.notna() | (diagnosis.isna() & optional)
    unwanted, of_unwanted = unwanted_rows(joined, options)
    if options.maps == EVERY_MAP:
        joined = of_everybody(joined, labelled & (unwanted == ""))
    reasons = left_out(joined, diagnosis, labelled, unwanted)
    kept = joined.complete & labelled & (unwanted == "")
    if not kept.any():
        why = "; ".join(f"{reason} ({len(names)})" for reason, names in reasons.items())
        raise InputError(
            f"Nobody of {path} can be converted: {why or 'it has no rows'}. Expected maps and a diagnosis of some."
        )
    check_identifiers(identifier[kept], path)
    check_own_maps(joined, kept, joined.map_column or joined.id_column)
    others = [joined.id_column, ABIDE_SUBJECT, coding.name if coding else None, *joined.map_column.split(",")]
    site_column, sites, of_sites = read_sites(table[kept], options.site_column, site_columns, others, path)
    if not optional:
        check_known(sites, site_column, identifier, path)
    subjects = pd.DataFrame({"subject": identifier, "site": sites, "label": label})[kept]
    subjects = subjects.sort_values("subject", key=lambda name: name.str.zfill(20))
    maps, of_volumes = maps_in(joined.maps.loc[subjects.index].reset_index(drop=True), joined.wanted, folder)
    image, of_image = (None, []) if optional else image_of(listing, options.connectome, options.parcels)
    rows, of_motion = derived.with_motion(table.loc[subjects.index], maps)
    here = set(subjects["subject"])
    twice = {reason: shared for reason, names in reasons.items() if (shared := [one for one in names if one in here])}
    absent = {reason: [name for name in names if name not in here] for reason, names in reasons.items()}
    source = Source(
        table=path,
        label_column=coding.name if coding else None,
        site_column=site_column,
        subjects=subjects.reset_index(drop=True),
        maps=maps,
        rows=rows,
        measured=tuple(rows.columns.difference(table.columns)),
        left_out=absent,
        facts=[
            *joined.facts,
            *of_volumes,
            ("layout", f"table {path}, joined by {joined.id_column}"),
            of_labels(coding, diagnosis[kept], label[kept]),
            of_sites,
            *of_motion,
            *of_image,
            *of_unwanted,
            *(
                ("left out", f"another row or map of {join_names(names)}, who have a record: {reason}")
                for reason, names in twice.items()
            ),
            *(
                ("left out", f"{len(names)}, {reason}: {join_names(names)}")
                for reason, names in absent.items()
                if names
            ),
        ],
        series=None if joined.series is None else joined.series[subjects.index],
        parcels=image,
        odd_allowed=options.missing is not None,
        id_column=joined.named_id,
        map_column=joined.map_column,
        column_maps=tuple(map(str, joined.maps)) if joined.map_column else (),
    )
    derivation, of_derivation = derived.common(source)
    images, missing = derived.images_of(derivation, listing, options.parcels)
    return replace(source, derivation=derivation, images=images, facts=[*source.facts, *of_derivation, *missing])


def unwanted_rows(joined: JoinedTable, options: SourceOptions) -> tuple[pd.Series, list[SummaryRow]]:
    """Why --exclude or --where leaves out each row, empty where they do not; facts on either. Raises InputError."""
    reason, facts = pd.Series("", joined.table.index), list[SummaryRow]()
    if options.where:
        condition = Condition(options.where, joined.table, joined.path)
        truth = condition.truth()
        reason = reason.mask(~truth.fillna(True), f"--where {options.where} is false")
        reason = reason.mask(truth.isna(), f"--where {options.where} depends on a missing value")
        facts += condition.facts
    if options.exclude:
        named = excluded(options.exclude)
        ids = [joined.identifier, joined.table[joined.id_column].map(key)]
        reason = reason.mask(ids[0].isin(named) | ids[1].isin(named), "named by --exclude")
        known = {*ids[0], *ids[1], *joined.stray}
        if nobody := [text for identifier, text in named.items() if identifier not in known]:
            told = f"--exclude names {len(nobody)} of whom there is neither a row nor a map: {join_names(nobody)}"
            facts.append(("left out", told))
    return reason, facts


def left_out(
    joined: JoinedTable, diagnosis: pd.Series, labelled: pd.Series, unwanted: pd.Series
) -> dict[str, list[str]]:
    """For each reason, the subjects that are left out, or a row or map of whom is; each row for its first reason."""
    maps, complete = joined.maps, joined.complete
    some, others = maps.notna().any(axis=1), complete & ~labelled
    rows = {"no map": ~some} | {f"no map {name}": some & maps[name].isna() for name in maps}
    if joined.series is not None:
        rows["no series of parcels"] = some & joined.series.isna()
    rows[f"{diagnosis.name or 'diagnosis'} unknown"] = others & diagnosis.isna()
    for value in sorted(diagnosis[others].dropna().unique()):
        rows[f"{diagnosis.name} is {value}"] = others & (diagnosis == value)
    for reason in sorted({*unwanted} - {""}):
        rows[reason] = complete & labelled & (unwanted == reason)
    found = {reason: joined.identifier[of].tolist() for reason, of in rows.items()}
    found["a map without a row in the table"] = joined.stray
    return {reason: subjects for reason, subjects in found.items() if subjects}


def join(listing: Listing, options: SourceOptions, before: Metadata) -> JoinedTable:
    """Finds the table, the maps, by their names or by the column that names them, and the series that --connectome
    asks for; cells that --missing names are empty. Columns of IDs and of paths that are not named are those of
    `before`, as far as the table has them. Raises InputError."""
    if before.map_column and not options.map_column:
        path = options.table or find_table(listing.folder, (), lambda table: True)
        table = read_table(path)
        has_them = {*map_columns_of(table, before.map_column)} <= {*table}
        options = replace(options, map_column=before.map_column if has_them else None)
    by_column = join_named(listing.folder, options, before) if options.map_column else None
    joined = by_column or join_found(listing, options, before)
    table, path = joined.table, joined.path
    joined = replace(joined, table=without_codes(table, options.missing or (), path))
    if not options.connectome:
        if options.parcels:
            raise InputError("--parcels is about the series that --connectome names; name them, or leave it out.")
        return joined
    names = [] if options.map_column else list(joined.maps)
    files, _, facts = find(listing, SERIES, options.connectome, options.only, names)
    found = {one.identifier: one.path for one in files}
    subject = joined.named_id or matching_column(table, set(found), path)
    series = column(table, subject, path).map(key).map(found).rename(options.connectome)
    return replace(joined, series=series, facts=[*joined.facts, *facts])


def named_id(table: pd.DataFrame, options: SourceOptions, before: Metadata) -> str:
    """The column of IDs that is named, or that of `before`, if the table has it; empty without any."""
    return options.id_column or (before.id_column if before.id_column in table else "")


def map_columns_of(table: pd.DataFrame, named: str) -> list[str]:
    """The columns that --mapColumn names: one, whose name may have a comma, or several."""
    return [named] if named in table else named.split(",")


def join_found(listing: Listing, options: SourceOptions, before: Metadata) -> JoinedTable:
    """The table and the maps that are recognised by their names."""
    names = options.maps or DEFAULT_MAPS
    if names == EVERY_MAP:  # if there are none, the error says what is expected
        names = tuple(name for name in KNOWN_MAPS if listing.found(MAPS, name)) or DEFAULT_MAPS
    check_map_names(names)
    of_files = list(dict.fromkeys(files_of(listing, name) for name in names))
    found = {name: find(listing, MAPS, name, options.only, of_files) for name in of_files}
    maps = {name: {one.identifier: one.path for one in files} for name, (files, _, _) in found.items()}
    identifiers = set().union(*maps.values())
    places = [place for of_map in maps.values() for place in of_map.values()]
    path = options.table or find_table(listing.folder, places, lambda table: names_some(table, identifiers))
    table = read_table(path)
    id_column = named_id(table, options, before)
    subject = id_column or matching_column(table, identifiers, path)
    keys = column(table, subject, path).map(key)
    of_row = pd.DataFrame({name: keys.map(of_map) for name, of_map in maps.items()})
    if of_row.isna().all(axis=None):
        raise unmatched(table, subject, identifiers, path)
    facts = [fact for _, _, of_map in found.values() for fact in of_map]
    stray = sorted(identifiers - set(keys))
    return JoinedTable(path, table, subject, of_row, list(names), facts, stray, named_id=id_column)


def names_some(table: pd.DataFrame, identifiers: Collection[str]) -> bool:
    """Whether a column of a table holds the ID of somebody."""
    return any(table[name].map(key).isin(identifiers).any() for name in table)


def join_named(folder: Path, options: SourceOptions, before: Metadata) -> JoinedTable:
    """The table and the maps whose paths its columns hold; those of `before` say what their files are called."""
    map_column = options.map_column or ""
    if options.maps == EVERY_MAP or (options.only and not options.connectome):
        raise InputError("--mapColumn names each map; leave out --maps all and --only, which are about finding them.")
    path = options.table or find_table(folder, (), lambda table: {*map_columns_of(table, map_column)} <= {*table})
    table = read_table(path)
    map_columns = map_columns_of(table, map_column)
    unnamed = DEFAULT_MAPS if len(map_columns) == 1 else tuple(map_columns)
    names = before.column_maps or options.maps or unnamed
    if len(names) != len(map_columns):
        raise InputError(
            f"{'--like' if before.maps else '--maps'} names {len(names)} maps, {', '.join(names)}; expected a name for "
            f"each column of --mapColumn, {', '.join(map_columns)}."
        )
    check_map_names(names)
    id_column = named_id(table, options, before)
    subject = subject_column(table, id_column, path)
    named = pd.DataFrame({name: column(table, of, path) for name, of in zip(names, map_columns, strict=True)})
    column(table, subject, path)
    maps = named.map(lambda name: find_file(folder, name) or math.nan)
    if maps.isna().all(axis=None):
        there = join_names([quote_text(name) for name in named.iloc[:, 0]], 2) or "nothing"
        raise InputError(f"{map_column} of {path} holds {there}; expected paths of maps in {folder}. Correct them.")
    assumed = "" if options.maps else f", assumed to be {', '.join(names)}; if they are others, name them with --maps"
    facts = [("layout", f"maps that the column {map_column} names{assumed}")]
    wanted = list(options.maps or names)
    return JoinedTable(path, table, subject, maps, wanted, facts, named_id=id_column, map_column=map_column)


def subject_column(table: pd.DataFrame, named: str | None, path: Path) -> str:
    """The column of subjects in a table of paths: the one that is `named`, or else ABIDE's or BIDS'. Raises
    InputError."""
    if found := named or next((name for name in (ABIDE_SUBJECT, "participant_id") if name in table), None):
        return found
    raise InputError(f"Which column of {path} names the participant? Say so with --idColumn.")


def of_everybody(joined: JoinedTable, chosen: pd.Series) -> JoinedTable:
    """The table with those maps only that all of the `chosen` rows with any map have; facts say which, and who lacks
    another. Raises InputError if there are none."""
    people = chosen & joined.maps.notna().any(axis=1)
    lacking = {name: joined.identifier[people & of_map.isna()].tolist() for name, of_map in joined.maps.items()}
    kept = [name for name, subjects in lacking.items() if not subjects]
    without = [
        f"without {name}, which {len(subjects)} of {people.sum()} participants lack, {join_names(subjects)}"
        for name, subjects in lacking.items()
        if subjects
    ]
    if not kept:
        raise InputError(f"No map is there for everybody: {'; '.join(without)}. Name those to use with --maps.")
    told = [f"{', '.join(kept)}, which all {people.sum()} participants have; --maps names others", *without]
    facts = [*joined.facts, *(("layout", text) for text in told)]
    return replace(joined, maps=joined.maps[kept], wanted=kept, facts=facts)


def check_own_maps(joined: JoinedTable, kept: pd.Series, name: str) -> None:
    """Raises InputError if the column `name` gives several of the `kept` subjects one map, or one subject one file
    twice. It may be one of labels or sites, in place of IDs."""
    every = joined.maps[kept].map(os.path.realpath).melt(ignore_index=False)["value"]
    if (twice := every[every.duplicated(keep=False)]).size:
        owners = joined.identifier.loc[twice.index].groupby(twice.to_numpy(), sort=False).agg(list)
        told = [f"{Path(file).name} to {join_names(of, 3, ' and ')}" for file, of in owners.items()]
        raise InputError(
            f"The column {name} of {joined.path} gives the map {join_names(told, 2)}; expected one of each "
            "participant's own. Correct it, or name the right column with --idColumn or --mapColumn."
        )
