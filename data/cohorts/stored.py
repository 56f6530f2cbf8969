"""A cohort on disk, in any form of --dataDir: opened, verified, written.

A cohort is a folder of records, as `.bin` files or in zip chunks, and of tables. `SHA256SUMS` names all its files but
the verdict of its check, and is written last: only a complete cohort has it, and its own SHA-256 tells the cohort. When
a cohort is opened, its tables and the names of its files are verified; a record is when it is first read, a connectome
whenever it is read, and all files are by `compared`. A bare folder of records has nothing that verifies it.
"""

import hashlib
import json
import shlex
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from pathlib import Path
from types import MappingProxyType

from data.base import manifest
from data.base.errors import InputError
from data.base.manifest import SUMS
from data.base.terminal import open_progress_bar
from data.cohorts import connectomes as connectomes_of
from data.cohorts import records
from data.cohorts import rows as rows_of
from data.cohorts.cohort import COVARIATES, PHENOTYPE, SERIES, SIDE_TABLES, Cohort
from data.cohorts.connectomes import CONNECTOMES
from data.cohorts.derivation import FOLDER
from data.cohorts.duplicates import kept_together, told_groups, with_groups
from data.cohorts.entries import Entry, entries_of
from data.cohorts.findings import read_verdict
from data.cohorts.records import HEADER_BYTES, Digests
from data.cohorts.rows import METADATA, TABLE, Metadata, Row, listed

FOLDS = "folds.json"  # of a set of cohorts, one a fold
EDITABLE = (TABLE, COVARIATES, PHENOTYPE)  # what `abide-data pack --tables` takes
THREADS = 2  # that compute digests


def open_cohort(path: Path, unverified: Collection[str] = ()) -> Cohort:
    """Opens any form of --dataDir. Raises InputError, naming the path, for what cannot be trained or tested on, and for
    tables that are not as they were written, unless they are `unverified`; if `SHA256SUMS` is, it may be absent. Such
    cohorts are to be packed."""
    entries = records_in(path)
    grid, num_maps = kind_of(entries.values())
    if not has_tables(path):
        rows = tuple(rows_of.guess_row(name, label_in(entry)) for name, entry in entries.items())
        return Cohort(path, grid, rows, tuple(entries.values()), Metadata(), num_maps=num_maps)
    identity = verified(path, entries.values(), unverified)
    metadata, (table, digests) = rows_of.read_metadata(path / METADATA), rows_of.read_table(path / TABLE)
    rows_of.match_table(path / TABLE, table, entries)
    if (metadata.grid, len(metadata.maps) or num_maps) != (grid.shape, num_maps):
        kept = f"{len(metadata.maps)} maps on the grid {list(metadata.grid)}"
        raise InputError(f"{path / METADATA} says {kept}, its records hold {num_maps} on {grid}. Convert again.")
    of_row, edges = tuple(entries[row.file] for row in table), None
    if metadata.connectome:
        known = [of.connectome for of in digests if of.connectome]
        edges = connectomes_of.opened(path, metadata, [row.subject for row in table], known)
    return Cohort(
        path,
        grid,
        tuple(table),
        of_row,
        metadata,
        tables=path,
        num_maps=num_maps,
        digests=tuple(digests) if len(digests) == len(table) else (),
        identity=identity,
        verdict=read_verdict(path, identity),
        groups=told_groups(metadata),
        connectomes=edges,
    )


def label_in(entry: Entry) -> float:
    """The label of a record without tables. Raises InputError if it is none."""
    label, _ = records.unpack_header(entry.read(HEADER_BYTES), str(entry))
    records.check_label(label, str(entry))
    return label


def records_in(path: Path) -> dict[str, Entry]:
    """The records of any form of --dataDir by name. Raises InputError if there are none."""
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a cohort or a folder of records.")
    if (path / FOLDS).is_file():
        raise InputError(
            f"{path} is a set of cohorts, one for each fold; use it in run.py with the --folds that made it."
        )
    if not path.is_dir():
        raise InputError(f"{path} is a file; expected a folder of records.")
    if not (entries := entries_of(path)):
        raise InputError(f"{path} holds no records; expected .bin files or zip chunks. Make them: abide-data convert.")
    return entries


def has_tables(path: Path) -> bool:
    """Whether a folder has, or had, the tables of a cohort."""
    return (path / METADATA).exists() or (path / TABLE).exists() or TABLE in manifest.read_sums(path)


def files_of(path: Path, entries: Iterable[Entry]) -> list[str]:
    """The names of all files that a cohort is made of, as `SHA256SUMS` has them."""
    images = [f"{FOLDER}/{image.name}" for image in (path / FOLDER).glob("[!.]*")]
    tables = [name for name in (METADATA, TABLE, *SIDE_TABLES, CONNECTOMES) if (path / name).is_file()]
    return sorted({*images, *tables, *(entry.path.name for entry in entries)})


def verified(path: Path, entries: Collection[Entry], unverified: Collection[str] = ()) -> str:
    """The identity of a cohort; empty without a `SHA256SUMS`. Raises InputError that names all files that are missing,
    edited or added; of records and connectomes only the names are known."""
    named = shlex.quote(str(path))
    if not (path / SUMS).exists():
        if SUMS in unverified:
            return ""
        raise InputError(
            f"{path} has tables and no {SUMS}, which tells whether they are as they were written. Is it of a script? "
            f"Seal a copy, and use that: abide-data pack {named} COPY"
        )
    sums, there = manifest.read_sums(path), files_of(path, entries)
    large = {CONNECTOMES, *(entry.path.name for entry in entries)}
    small = [name for name in there if name in sums and name not in large and name not in unverified]
    now = manifest.compute_sums(path / name for name in small)
    wrong = {
        "missing": sorted(sums.keys() - {*there}),
        "edited": [name for name, value in zip(small, now, strict=True) if value != sums[name]],
        "added": [name for name in there if name not in sums],
    }
    if told := [f"{listed(names)} {what}" for what, names in wrong.items() if names]:
        edit = (
            f" To make an edit count: abide-data pack {named} NEW --tables {named}, or convert again --keepSplit OLD."
        )
        advice = edit if {*wrong["edited"]} & {*EDITABLE} else ""
        raise InputError(f"{path} is not as it was written: {'; '.join(told)}. Copy it again.{advice}")
    return manifest.compute_identity(path)


def compared(cohort: Cohort) -> tuple[list[str], list[str]]:
    """The files of a cohort that are not as they were written, and those of which that is not known, by name."""
    return manifest.compare_sums(cohort.path, files_of(cohort.path, cohort.entries))


def sealed(path: Path, together: bool = True) -> Cohort:
    """The cohort at `path` for a run, which knows the digests of its records. With `together`, the people of a group
    are put in one split; folds see to that themselves. Raises InputError as `open_cohort` does."""
    cohort = open_cohort(path)
    if not cohort.identity:
        cohort = identified(cohort)
    return kept_together(with_groups(cohort)) if together else cohort


def identified(cohort: Cohort) -> Cohort:
    """Records without tables, with their digests, which are computed and printed. Raises InputError for a record that
    cannot be read."""
    names = [row.file for row in cohort.rows]
    print(f"{cohort.path} has no tables: the digests of its {len(names)} records are computed.")
    digests = computed_digests(dict(zip(names, cohort.entries, strict=True)))
    said = json.dumps([[name, *astuple(of)] for name, of in digests.items()])
    return replace(cohort, digests=tuple(digests.values()), identity=hashlib.sha256(said.encode()).hexdigest())


def computed_digests(entries: Mapping[str, Entry]) -> dict[str, Digests]:
    """The digests of records by file."""
    found = {}
    with ThreadPoolExecutor(THREADS) as pool, open_progress_bar("Computing digests", len(entries)) as shown:
        every = pool.map(lambda entry: records.digests_of(entry.read()), entries.values())
        for name, digests in zip(entries, every, strict=True):
            found[name] = digests
            shown.advance()
    return found


def kind_of(entries: Iterable[Entry]) -> tuple[records.Grid, int]:
    """The grid and the number of maps of a cohort's records. Raises InputError if they differ."""
    found: dict[tuple[records.Grid, int], Entry] = {}
    for entry in entries:
        found.setdefault(records.form_of_size(entry.size, str(entry)), entry)
    (first, one), *others = found.items()
    if others:
        other, another = others[0]
        raise InputError(
            f"{one} is a {records.kind(*first)}, {another} a {records.kind(*other)}; expected one grid and one number "
            "of maps. Separate them."
        )
    return first


def carry_tables(source: Cohort, target: Path) -> None:
    """Copies a cohort's side tables, connectomes and images of its derivation byte by byte into the folder of another
    one, which holds the same subjects. Raises InputError for what is not as it was written."""
    carried = dict(source.side_tables)
    if source.connectomes:
        manifest.verify_sums(source.path, [CONNECTOMES])
        carried[CONNECTOMES] = source.connectomes.path
    else:
        carried.pop(SERIES, None)
    for name, path in carried.items():
        shutil.copyfile(path, target / name)
    if source.tables and (source.tables / FOLDER).is_dir():
        shutil.copytree(source.tables / FOLDER, target / FOLDER, ignore=shutil.ignore_patterns(".*"))


def write_tables(
    path: Path,
    table: Sequence[Row],
    metadata: Metadata,
    digests: Mapping[str, Digests] = MappingProxyType({}),
) -> None:
    """Writes `cohort.json`, `subjects.csv` with the digests of the records, and `SHA256SUMS`; all other files are there
    before. Of the `digests` by record, those that are not known are computed."""
    rows_of.write_metadata(path / METADATA, metadata)
    entries, edges = entries_of(path), {name: of.connectome for name, of in digests.items()}
    if metadata.connectome and not all(edges.get(row.file) for row in table):
        edges = connectomes_of.digests_by_file(path, metadata, table)
    unknown = {name: entry for name, entry in entries.items() if name not in digests}
    known = {**digests, **(computed_digests(unknown) if unknown else {})}
    said = metadata.has_constants and (path / PHENOTYPE).is_file()
    header = {} if said else {name: records.digest_of(entry.read(HEADER_BYTES)) for name, entry in entries.items()}
    names = [row.file for row in table]
    of_rows = [replace(known[name], connectome=edges.get(name, ""), header=header.get(name, "")) for name in names]
    rows_of.write_table(path / TABLE, table, of_rows)
    manifest.write_sums(path, files_of(path, entries.values()))
