"""A cohort on disk, in any form of --dataDir: opened, verified, written.

A cohort is a folder of records, as `.bin` files or in zip chunks, and of tables. `SHA256SUMS` names all its files but
the verdict of its check, and is written last: only a complete cohort has it, and its own SHA-256 tells the cohort. When
a cohort is opened, its tables and the names of its files are verified; a record is when it is first read, a connectome
whenever it is read, and all files are by `compare_with_sums`. A bare folder of records has nothing that verifies it.
A cohort without maps has no records: its tables and connectomes are all of it.
"""

import hashlib
import json
import shlex
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from data.base import manifest
from data.base.errors import InputError
from data.base.listing import join_names
from data.base.manifest import SUMS_FILE
from data.base.terminal import open_progress_bar
from data.cohorts import connectomes as cohort_connectomes
from data.cohorts import metadata as metadata_file
from data.cohorts import records
from data.cohorts import rows as cohort_rows
from data.cohorts.cohort import COVARIATES_FILE, PHENOTYPE_FILE, SERIES_FILE, SIDE_TABLE_FILES, Cohort
from data.cohorts.connectomes import CONNECTOMES_FILE
from data.cohorts.derivation import DERIVATION_FOLDER
from data.cohorts.duplicates import add_subject_groups, keep_groups_together
from data.cohorts.entries import RecordEntry, find_folder_entries
from data.cohorts.findings import read_verdict
from data.cohorts.groups import merge_recorded_groups
from data.cohorts.metadata import METADATA_FILE, Metadata
from data.cohorts.records import HEADER_BYTES, Digests
from data.cohorts.rows import SUBJECTS_FILE, RecordRow
from data.images import grids

FOLDS_FILE = "folds.json"  # of a set of cohorts, one a fold
EDITABLE_TABLE_FILES = (SUBJECTS_FILE, COVARIATES_FILE, PHENOTYPE_FILE)  # what `abide-data pack --tables` takes
DIGEST_THREAD_COUNT = 2  # that compute digests
RECORD_DIGEST_FIELDS = ("volume", "source", "connectome", "maps", "source_maps", "header")  # in an identity, so ordered


def open_cohort(cohort_path: Path, unverified_files: Collection[str] = ()) -> Cohort:
    """Opens any form of --dataDir. Raises InputError, naming the path, for what cannot be trained or tested on, and for
    tables that are not as they were written, unless they are among `unverified_files`; if `SHA256SUMS` is, it may be
    absent. A cohort that is opened so is to be packed."""
    entry_by_file = find_cohort_entries(cohort_path)
    record_grid, num_maps = find_record_form(entry_by_file.values()) if entry_by_file else (None, 0)
    if not has_cohort_tables(cohort_path):
        rows = tuple(
            cohort_rows.guess_row(file_name, read_record_label(entry)) for file_name, entry in entry_by_file.items()
        )
        return Cohort(cohort_path, record_grid, rows, tuple(entry_by_file.values()), Metadata(), num_maps=num_maps)
    cohort_sha256 = verify_cohort(cohort_path, entry_by_file.values(), unverified_files)
    metadata = metadata_file.read_metadata(cohort_path / METADATA_FILE)
    table_rows, record_digests = cohort_rows.read_subjects_table(cohort_path / SUBJECTS_FILE)
    record_files = entry_by_file if record_grid else [row.file for row in table_rows]
    cohort_rows.check_table_files(cohort_path / SUBJECTS_FILE, table_rows, record_files)
    record_shape = record_grid.shape if record_grid else ()
    if (metadata.grid, len(metadata.maps) or num_maps) != (record_shape, num_maps):
        metadata_form_text = f"{len(metadata.maps)} maps on the grid {list(metadata.grid)}"
        raise InputError(
            f"{cohort_path / METADATA_FILE} says {metadata_form_text}, its records hold {num_maps} on {record_grid}. "
            "Convert again."
        )
    row_entries = tuple(entry_by_file[row.file] for row in table_rows) if record_grid else ()
    connectomes = None
    if metadata.connectome:
        connectome_digests = [row_digests.connectome for row_digests in record_digests if row_digests.connectome]
        connectomes = cohort_connectomes.open_connectomes(
            cohort_path, metadata, [row.subject for row in table_rows], connectome_digests
        )
    return Cohort(
        cohort_path,
        record_grid,
        tuple(table_rows),
        row_entries,
        metadata,
        tables_folder=cohort_path,
        num_maps=num_maps,
        digests=tuple(record_digests) if len(record_digests) == len(table_rows) else (),
        identity=cohort_sha256,
        check_verdict=read_verdict(cohort_path, cohort_sha256),
        groups=merge_recorded_groups(metadata),
        connectomes=connectomes,
    )


def read_record_label(entry: RecordEntry) -> float:
    """The label of a record without tables. Raises InputError if it is none."""
    label, _ = records.unpack_header(entry.read(HEADER_BYTES), str(entry))
    records.check_label(label, str(entry))
    return label


def find_cohort_entries(cohort_path: Path) -> dict[str, RecordEntry]:
    """The records of any form of --dataDir by name. Raises InputError if there are none and it is no cohort without
    maps."""
    if not cohort_path.exists():
        raise InputError(f"{cohort_path} does not exist; expected a cohort or a folder of records.")
    if (cohort_path / FOLDS_FILE).is_file():
        raise InputError(
            f"{cohort_path} is a set of cohorts, one for each fold; use it in run.py with the --folds that made it."
        )
    if not cohort_path.is_dir():
        raise InputError(f"{cohort_path} is a file; expected a folder of records.")
    entry_by_file = find_folder_entries(cohort_path)
    if not entry_by_file and not is_cohort_without_maps(cohort_path):
        raise InputError(
            f"{cohort_path} holds no records; expected .bin files or zip chunks. Make them: abide-data convert."
        )
    return entry_by_file


def is_cohort_without_maps(cohort_path: Path) -> bool:
    """Whether the metadata in a folder say that its cohort has no maps."""
    metadata_path = cohort_path / METADATA_FILE
    return metadata_path.is_file() and not metadata_file.read_metadata(metadata_path).grid


def has_cohort_tables(cohort_path: Path) -> bool:
    """Whether a folder has, or had, the tables of a cohort."""
    return (
        (cohort_path / METADATA_FILE).exists()
        or (cohort_path / SUBJECTS_FILE).exists()
        or SUBJECTS_FILE in manifest.read_checksums(cohort_path)
    )


def list_cohort_files(cohort_path: Path, entries: Iterable[RecordEntry]) -> list[str]:
    """The names of all files that a cohort is made of, as `SHA256SUMS` has them."""
    image_files = [
        f"{DERIVATION_FOLDER}/{image_path.name}" for image_path in (cohort_path / DERIVATION_FOLDER).glob("[!.]*")
    ]
    table_files = [
        file_name
        for file_name in (METADATA_FILE, SUBJECTS_FILE, *SIDE_TABLE_FILES, CONNECTOMES_FILE)
        if (cohort_path / file_name).is_file()
    ]
    return sorted({*image_files, *table_files, *(entry.path.name for entry in entries)})


def verify_cohort(cohort_path: Path, entries: Collection[RecordEntry], unverified_files: Collection[str] = ()) -> str:
    """The identity of a cohort; empty without a `SHA256SUMS`. Raises InputError that names all files that are missing,
    edited or added; of records and connectomes only the names are compared."""
    quoted_path = shlex.quote(str(cohort_path))
    if not (cohort_path / SUMS_FILE).exists():
        if SUMS_FILE in unverified_files:
            return ""
        raise InputError(
            f"{cohort_path} has tables and no {SUMS_FILE}, which tells whether they are as they were written. Is it of "
            f"a script? Seal a copy, and use that: abide-data pack {quoted_path} COPY"
        )
    sum_by_file = manifest.read_checksums(cohort_path)
    present_files = list_cohort_files(cohort_path, entries)
    record_files = {CONNECTOMES_FILE, *(entry.path.name for entry in entries)}
    verified_file_names = [
        file_name
        for file_name in present_files
        if file_name in sum_by_file and file_name not in record_files and file_name not in unverified_files
    ]
    current_sums = manifest.compute_checksums(cohort_path / file_name for file_name in verified_file_names)
    edited_files = [
        file_name
        for file_name, current_sum in zip(verified_file_names, current_sums, strict=True)
        if current_sum != sum_by_file[file_name]
    ]
    files_by_fault = {
        "missing": sorted(sum_by_file.keys() - {*present_files}),
        "edited": edited_files,
        "added": [file_name for file_name in present_files if file_name not in sum_by_file],
    }
    fault_texts = [f"{join_names(file_names)} {fault}" for fault, file_names in files_by_fault.items() if file_names]
    if fault_texts:
        advice = ""
        if {*edited_files} & {*EDITABLE_TABLE_FILES}:
            advice = (
                f" To make an edit count: abide-data pack {quoted_path} NEW --tables {quoted_path}, or convert again "
                "--keepSplit OLD."
            )
        raise InputError(f"{cohort_path} is not as it was written: {'; '.join(fault_texts)}. Copy it again.{advice}")
    return manifest.compute_sums_file_sha256(cohort_path)


def compare_with_sums(cohort: Cohort) -> tuple[list[str], list[str]]:
    """The files of a cohort that are not as they were written, and those of which that is not known, by name."""
    return manifest.compare_checksums(cohort.path, list_cohort_files(cohort.path, cohort.entries))


def open_run_cohort(cohort_path: Path, unite_groups: bool = True) -> Cohort:
    """The cohort at `cohort_path` for a run, which knows the digests of its records. With `unite_groups`, the people
    of a group are put in one split; folds see to that themselves. Raises InputError as `open_cohort` does."""
    cohort = open_cohort(cohort_path)
    if not cohort.identity:
        cohort = add_record_digests(cohort)
    return keep_groups_together(add_subject_groups(cohort)) if unite_groups else cohort


def add_record_digests(cohort: Cohort) -> Cohort:
    """Records without tables, with their digests, which are computed and printed. Raises InputError for a record that
    cannot be read."""
    file_names = [row.file for row in cohort.rows]
    print(f"{cohort.path} has no tables: the digests of its {len(file_names)} records are computed.")
    digests_by_file = compute_digests_by_file(dict(zip(file_names, cohort.entries, strict=True)))
    identity_json = json.dumps(
        [
            [file_name, *(getattr(record_digests, digest_field) for digest_field in RECORD_DIGEST_FIELDS)]
            for file_name, record_digests in digests_by_file.items()
        ]
    )
    return replace(
        cohort, digests=tuple(digests_by_file.values()), identity=hashlib.sha256(identity_json.encode()).hexdigest()
    )


def compute_digests_by_file(entry_by_file: Mapping[str, RecordEntry]) -> dict[str, Digests]:
    """The digests of records by file."""
    digests_by_file = {}
    with (
        ThreadPoolExecutor(DIGEST_THREAD_COUNT) as thread_pool,
        open_progress_bar("Computing digests", len(entry_by_file)) as progress_bar,
    ):
        digest_results = thread_pool.map(
            lambda entry: records.compute_record_digests(entry.read()), entry_by_file.values()
        )
        for file_name, record_digests in zip(entry_by_file, digest_results, strict=True):
            digests_by_file[file_name] = record_digests
            progress_bar.advance()
    return digests_by_file


def find_record_form(entries: Iterable[RecordEntry]) -> tuple[grids.Grid, int]:
    """The grid and the number of maps of a cohort's records. Raises InputError if they differ."""
    entry_by_form: dict[tuple[grids.Grid, int], RecordEntry] = {}
    for entry in entries:
        entry_by_form.setdefault(records.infer_record_form(entry.byte_count, str(entry)), entry)
    (first_form, first_entry), *remaining_form_entries = entry_by_form.items()
    if remaining_form_entries:
        second_form, second_entry = remaining_form_entries[0]
        raise InputError(
            f"{first_entry} is a {records.describe_record_form(*first_form)}, {second_entry} a "
            f"{records.describe_record_form(*second_form)}; expected one grid and one number of maps. Separate them."
        )
    return first_form


def copy_side_tables(source_cohort: Cohort, target_folder: Path) -> None:
    """Copies a cohort's side tables, connectomes and images of its derivation byte by byte into the folder of another
    one, which holds the same subjects. Raises InputError for what is not as it was written."""
    path_by_file = dict(source_cohort.side_table_path_by_name)
    if source_cohort.connectomes:
        manifest.verify_checksums(source_cohort.path, [CONNECTOMES_FILE])
        path_by_file[CONNECTOMES_FILE] = source_cohort.connectomes.path
    else:
        path_by_file.pop(SERIES_FILE, None)
    for file_name, file_path in path_by_file.items():
        shutil.copyfile(file_path, target_folder / file_name)
    if source_cohort.tables_folder and (source_cohort.tables_folder / DERIVATION_FOLDER).is_dir():
        shutil.copytree(
            source_cohort.tables_folder / DERIVATION_FOLDER,
            target_folder / DERIVATION_FOLDER,
            ignore=shutil.ignore_patterns(".*"),
        )


def write_cohort_tables(
    cohort_path: Path,
    rows: Sequence[RecordRow],
    metadata: Metadata,
    record_digests_by_file: Mapping[str, Digests] = MappingProxyType({}),
) -> None:
    """Writes `cohort.json`, `subjects.csv` with the digests of the records, and `SHA256SUMS`; all other files are there
    before. Digests of records that `record_digests_by_file`, by file, lacks are computed."""
    metadata_file.write_metadata(cohort_path / METADATA_FILE, metadata)
    entry_by_file = find_folder_entries(cohort_path)
    connectome_digest_by_file = {
        file_name: record_digests.connectome for file_name, record_digests in record_digests_by_file.items()
    }
    if metadata.connectome and not all(connectome_digest_by_file.get(row.file) for row in rows):
        connectome_digest_by_file = cohort_connectomes.compute_connectome_digests(cohort_path, metadata, rows)

    digests_by_file = dict(record_digests_by_file)
    undigested_entry_by_file = {
        file_name: entry for file_name, entry in entry_by_file.items() if file_name not in record_digests_by_file
    }
    if undigested_entry_by_file:
        digests_by_file |= compute_digests_by_file(undigested_entry_by_file)

    # Headers need a digest of their own where the tables cannot give them again
    header_digest_by_file: dict[str, str] = {}
    row_digest_by_file: dict[str, str] = {}
    if not (metadata.has_phenotype_constants and (cohort_path / PHENOTYPE_FILE).is_file()):
        for file_name, entry in entry_by_file.items():
            header_digest_by_file[file_name] = records.compute_digest(entry.read(HEADER_BYTES))

    # Who has neither a record nor a connectome is known by the row of the table
    if not entry_by_file and not metadata.connectome:
        row_digest_by_file = compute_row_digests(cohort_path / PHENOTYPE_FILE, rows)

    digests_by_row = []
    for row in rows:
        record_digests = digests_by_file.get(row.file, Digests())
        digests_by_row.append(
            replace(
                record_digests,
                connectome=connectome_digest_by_file.get(row.file, ""),
                header=header_digest_by_file.get(row.file, ""),
                row=record_digests.row or row_digest_by_file.get(row.file, ""),
            )
        )
    cohort_rows.write_subjects_table(cohort_path / SUBJECTS_FILE, rows, digests_by_row)
    manifest.write_checksums(cohort_path, list_cohort_files(cohort_path, entry_by_file.values()))


def compute_row_digests(phenotype_path: Path, rows: Sequence[RecordRow]) -> dict[str, str]:
    """By the rows' files, the digest of each one's ID and unscaled phenotype. The ID is part of it: two people may have
    the same few values."""
    from data.tables.phenotype import read_subject_table  # pandas and scikit-learn, which `--help` can do without

    phenotype_table = read_subject_table(phenotype_path, [row.subject for row in rows])
    return {
        row.file: records.compute_digest(json.dumps([row.subject, *phenotype_table.loc[row.subject]]).encode())
        for row in rows
    }
