"""A cohort on disk, in any form of --dataDir: opened, sealed for a run, written.

A cohort is records with `cohort.json` and `subjects.csv`, or a bare folder of records; these are `.bin` files or lie in
zip chunks. Sizes and headers are checked when a cohort is opened, volumes as they are read.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from data.base import files, manifest
from data.base.errors import InputError, check_plain
from data.cohorts import connectomes as connectomes_of
from data.cohorts import derivation as derivation_of
from data.cohorts import records, seal
from data.cohorts import rows as rows_of
from data.cohorts.cohort import SERIES, SIDE_TABLES, Cohort
from data.cohorts.connectomes import CONNECTOMES
from data.cohorts.duplicates import kept_together, told_groups, with_groups
from data.cohorts.records import Entry, Origin, VerifiedEntry
from data.cohorts.rows import DIGESTS, METADATA, TABLE, Metadata, Row
from data.cohorts.seal import Seal

FOLDS = "folds.json"  # of a set of cohorts, one a fold


def open_cohort(path: Path, is_sealed: bool = True) -> Cohort:
    """Opens any form of --dataDir. Raises InputError, naming the path, for what cannot be trained or tested on. Unless
    it `is_sealed`, tables that a script wrote are read without a seal, to be packed."""
    entries, table, metadata = read_form(path)
    grid, num_maps = kind_of(path, entries.values(), metadata)
    of_row = tuple(entries[row.file] for row in table)
    tables = path if (path / METADATA).is_file() else None
    known = tuple(entry.digests for entry in of_row if isinstance(entry, VerifiedEntry))
    cohort = Cohort(path, grid, tuple(table), of_row, metadata, tables, num_maps, Seal(known), told_groups(metadata))
    if metadata.connectome and tables:
        subjects, edges = [row.subject for row in table], [of.connectome for of in known]
        cohort = replace(cohort, connectomes=connectomes_of.opened(path, metadata, subjects, edges))
    if tables is None or not (is_sealed or (path / seal.SEAL).is_file()):
        return cohort
    parts = seal.parts_of(metadata, table, known)
    cohort = replace(cohort, seal=Seal(known, sha256=seal.verified_seal(path, parts, cohort.side_tables.values())))
    verdict = seal.read_verdict(path)
    if verdict is None or verdict.cohort_sha256 != cohort.seal.sha256:
        return cohort
    return replace(cohort, seal=replace(cohort.seal, verdict=verdict))


def sealed(path: Path, together: bool = True) -> Cohort:
    """The cohort at `path` for a run: the digests of its records are known, and each is verified as it is read. With
    `together`, the people of a group are put in one split; folds see to that themselves. Raises InputError as
    `open_cohort` does."""
    cohort = open_cohort(path)
    if not cohort.seal.digests:
        cohort = identified(cohort)
    return kept_together(with_groups(cohort)) if together else cohort


def identified(cohort: Cohort) -> Cohort:
    """Records without tables, with their digests, which are computed and printed. From then on records are verified as
    they are read. Raises InputError for a record that cannot be read."""
    names = [row.file for row in cohort.rows]
    print(f"{cohort.path} has no {DIGESTS}: computed for {len(names)} records, kept with the results.")
    found = tuple(seal.computed_digests(dict(zip(names, cohort.entries, strict=True))).values())
    return replace(cohort, seal=Seal(found, True), entries=tuple(map(VerifiedEntry, cohort.entries, found)))


def read_form(path: Path) -> tuple[Mapping[str, Entry], list[Row], Metadata]:
    """Entries by file name, the table and the metadata of any form of --dataDir."""
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a cohort or a folder of records.")
    if (path / FOLDS).is_file():
        raise InputError(
            f"{path} is a set of cohorts, one for each fold; use it in run.py with the --folds that made it."
        )
    if not path.is_dir():
        raise InputError(f"{path} is a file; expected a folder of records.")
    entries: Mapping[str, Entry] = folder_entries(path)
    if not entries:
        raise InputError(f"{path} holds no records; expected .bin files or zip chunks. Make them: abide-data convert.")
    bare = not (path / METADATA).exists() and not (path / TABLE).exists()
    entries = entries if bare else verified(entries, path)
    labels = labels_of(entries, unknown=not bare)
    if bare:
        return entries, [rows_of.guess_row(name, label) for name, label in labels.items()], Metadata()
    metadata, table = rows_of.read_metadata(path), rows_of.read_table(path / TABLE)
    rows_of.match_table(path / TABLE, table, entries)
    for row in table:
        if row.label != labels[row.file] and (row.known or labels[row.file] == labels[row.file]):
            raise InputError(
                f"{entries[row.file]} has the label {labels[row.file]:g}, the table says {row.label:g}. Convert again."
            )
    return entries, table, metadata


def kind_of(path: Path, entries: Iterable[Entry], metadata: Metadata) -> tuple[records.Grid, int]:
    """The grid and the number of maps of a cohort's records. Raises InputError if they differ, or are not what the
    metadata say."""
    found: dict[tuple[records.Grid, int], Entry] = {}
    for entry in entries:
        try:
            found.setdefault(records.form_of_size(entry.size, str(entry)), entry)
        except OSError as error:
            raise InputError(f"{entry} cannot be read: {error.strerror}.") from error
    (grid, num_maps), *others = found
    if others:
        raise InputError(
            f"{found[grid, num_maps]} is a {records.kind(grid, num_maps)}, {found[others[0]]} a "
            f"{records.kind(*others[0])}; expected one grid and one number of maps. Separate them."
        )
    if metadata.grid and grid.shape != metadata.grid:
        raise InputError(f"{path} says grid {list(metadata.grid)}, its records are {grid}. Convert again.")
    if metadata.affine and not grid.lies_by(metadata.affine):
        raise InputError(f"{path / METADATA} has an affine that is not that of {grid}; was it edited? Convert again.")
    if metadata.maps and len(metadata.maps) != num_maps:
        raise InputError(
            f"{path} names {len(metadata.maps)} maps ({', '.join(metadata.maps)}), its records hold {num_maps}. "
            "Convert again."
        )
    return grid, num_maps


def folder_entries(folder: Path) -> dict[str, Entry]:
    """The records of a folder by file or member name, sorted."""
    entries: dict[str, Entry] = {}
    for path, zipped in records.record_files(folder):
        check_plain(path.name, f"{folder} names a record")
        found: Mapping[str, Entry] = {path.name: records.FileEntry(path)}
        if zipped:
            from data.cohorts.entries import zip_entries

            found = zip_entries(path)
        if twice := entries.keys() & found.keys():
            raise InputError(f"{path} and {entries[min(twice)]} are the same record; expected each once. Remove one.")
        entries.update(found)
    return dict(sorted(entries.items()))


def labels_of(entries: Mapping[str, Entry], unknown: bool) -> dict[str, float]:
    """Each record's label. Raises InputError, naming the record, unless it is 0.0, 1.0, or NaN if `unknown`."""
    return {
        name: records.header_label(entry.read(records.HEADER_BYTES), str(entry), unknown)
        for name, entry in entries.items()
    }


def verified(entries: Mapping[str, Entry], folder: Path) -> Mapping[str, Entry]:
    """The entries, which are verified as they are read if the folder has `digests.csv`. Raises InputError if that lacks
    one of them."""
    if (known := seal.read_digests(folder)) is None:
        return entries
    if lacking := [name for name in entries if name not in known]:
        raise InputError(
            f"{folder / DIGESTS} has no digests of {rows_of.listed(lacking)}; was that added by hand? Copy it "
            "again, or convert again."
        )
    return {name: VerifiedEntry(entry, known[name]) for name, entry in entries.items()}


def carry_tables(source: Cohort, target: Path) -> None:
    """Copies a cohort's side tables, connectomes and images of its derivation byte by byte into the folder of another
    one, which holds the same subjects. Raises InputError for what is not as it was written."""
    carried = dict(source.side_tables)
    if source.connectomes:
        source.connectomes.verify()
        carried[CONNECTOMES] = source.connectomes.path
    else:
        carried.pop(SERIES, None)
    for name, path in carried.items():
        shutil.copyfile(path, target / name)
    if source.tables and source.metadata.derivation:
        derivation_of.keep(target, derivation_of.kept_in(source.tables, source.metadata.derivation))


def write_tables(
    path: Path,
    table: Sequence[Row],
    metadata: Metadata,
    origins: Mapping[str, Origin] = MappingProxyType({}),
    digests: Mapping[str, records.Digests] = MappingProxyType({}),
) -> None:
    """Writes `cohort.json`; sums of the files that hold records, and the connectomes; the digests of both; the seal;
    then `subjects.csv`, which shows that the cohort is complete. Its side tables are written before. `origins` are the
    digests of the volumes, by file, that an encoder reduced to these. The `digests` of the records are computed unless
    they are known."""
    files.write_json(path / METADATA, metadata.json())
    entries = folder_entries(path)
    names = {str(entry.path.relative_to(path)) for entry in entries.values()}
    manifest.write(path, names | ({CONNECTOMES} if metadata.connectome else set()))
    if not digests:
        digests = seal.computed_digests(entries, origins, connectomes_of.digests_by_file(path, metadata, table))
    seal.write_digests(path, digests)
    tables = [path / name for name in SIDE_TABLES if (path / name).is_file()]
    seal.write_seal(path, seal.parts_of(metadata, table, [digests[row.file] for row in table]), tables)
    rows_of.write_table(path / TABLE, table)
