"""The table of a cohort's records: `subjects.csv`, a row a record, with its split and digests."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath

from data.base import tables
from data.base.errors import InputError, find_name_clashes
from data.base.listing import join_names
from data.cohorts import records
from data.cohorts.records import Digests
from data.tables.vocabulary import UNKNOWN_SITE

SUBJECTS_FILE = "subjects.csv"
MAX_RECORDS = 1_000_000  # of a cohort
SPLITS = ("train", "test")
ASIDE_SPLIT = "aside"  # the split, in memory only, of those whom an outer fold tests while inner folds are made
SUBJECTS_PER_TEST_SUBJECT = 10  # one subject in ten is a test subject


@dataclass(frozen=True)
class RecordRow:
    """A row of `subjects.csv`."""

    file: str  # the name of the record's file; without maps there is no file, and it only tells rows apart
    subject: str
    site: str
    label: float  # 1.0 autism, 0.0 control, NaN unknown
    split: str  # train or test

    @property
    def is_labelled(self) -> bool:
        """Whether the label is known."""
        return self.label == self.label


SUBJECTS_TABLE_COLUMNS = tuple(row_field.name for row_field in fields(RecordRow))
# by column, what it holds of `Digests`; those of several maps stand in one cell, with spaces between them
DIGEST_FIELD_BY_COLUMN = {
    "volume_sha256": "volume",
    "source_sha256": "source",
    "connectome_sha256": "connectome",
    "map_sha256": "maps",
    "source_map_sha256": "source_maps",
    "header_sha256": "header",
    "row_sha256": "row",
}
PERSON_DIGEST_COLUMNS = ("volume_sha256", "connectome_sha256", "row_sha256")  # one of which each person has


def read_subjects_table(table_path: Path) -> tuple[list[RecordRow], list[Digests]]:
    """`subjects.csv`, and the digests of its records, if it has them. Raises InputError, naming file and line, for a
    missing column or an impossible value."""
    rows = []
    record_digests = []
    for line_number, cell_by_column in tables.read_csv_rows(table_path, SUBJECTS_TABLE_COLUMNS).items():
        line_location = f"{table_path} line {line_number}"
        try:
            label = float(cell_by_column["label"] or "nan")
        except ValueError:
            raise InputError(
                f"{line_location} has the label {cell_by_column['label']!r}; expected 1 (autism) or 0 (control)."
            ) from None
        row = RecordRow(
            cell_by_column["file"], cell_by_column["subject"], cell_by_column["site"], label, cell_by_column["split"]
        )
        rows.append(check_row(line_location, row))
        if any(cell_by_column.get(column) for column in PERSON_DIGEST_COLUMNS):
            digest_by_field = {
                digest_field: cell_by_column.get(column, "") for column, digest_field in DIGEST_FIELD_BY_COLUMN.items()
            }
            map_digests = tuple(digest_by_field.pop("maps").split())
            source_map_digests = tuple(digest_by_field.pop("source_maps").split())
            record_digests.append(Digests(**digest_by_field, maps=map_digests, source_maps=source_map_digests))
    return rows, record_digests


def check_row(location: str, row: RecordRow) -> RecordRow:
    """The row. Raises InputError, naming where it stands, for an impossible label or split."""
    records.check_label(row.label, location, allow_unknown=row.split == "test")
    if row.split not in SPLITS:
        raise InputError(f"{location} has the split {row.split!r}; expected {' or '.join(SPLITS)}.")
    return row


def write_subjects_table(table_path: Path, rows: Sequence[RecordRow], digests: Sequence[Digests]) -> None:
    """Writes `subjects.csv` with those digests of the records that some have; an unknown label is empty."""
    digest_field_by_column = {}
    for column, digest_field in DIGEST_FIELD_BY_COLUMN.items():
        if any(getattr(record_digests, digest_field) for record_digests in digests):
            digest_field_by_column[column] = digest_field
    table_rows = [
        [row.file, row.subject, row.site, int(row.label) if row.is_labelled else "", row.split] for row in rows
    ]
    for cells, record_digests in zip(table_rows, digests, strict=True):
        digest_values = (getattr(record_digests, digest_field) for digest_field in digest_field_by_column.values())
        cells += [digest if isinstance(digest, str) else " ".join(digest) for digest in digest_values]
    tables.write_csv_rows(table_path, [*SUBJECTS_TABLE_COLUMNS, *digest_field_by_column], table_rows)


def check_table_files(table_path: Path, rows: Sequence[RecordRow], record_files: Iterable[str]) -> None:
    """Raises InputError unless the table names each of the records' files once and no subject is in both splits."""
    record_files = set(record_files)
    listed_files = {row.file for row in rows}
    if len(listed_files) < len(rows):
        raise InputError(f"{table_path} names a file twice; expected one row a record.")
    if missing_files := sorted(listed_files - record_files):
        raise InputError(
            f"{table_path.parent} lacks {missing_files[0]}, which {table_path.name} names ({len(missing_files)} "
            "missing). Copy it again."
        )
    if unlisted_files := sorted(record_files - listed_files):
        raise InputError(
            f"{table_path} has no row for {unlisted_files[0]} ({len(unlisted_files)} such records). Add it or remove "
            "the file."
        )
    split_by_subject: dict[str, str] = {}
    for row in rows:
        if split_by_subject.setdefault(row.subject, row.split) != row.split:
            raise InputError(
                f"{table_path} has participant {row.subject} in train and in test; expected one split a participant."
            )


def guess_row(file_name: str, label: float) -> RecordRow:
    """The row of a record without a table: the subject is the first number in its name, the split a hash of it."""
    stem = Path(file_name).stem
    number_match = re.search(r"\d+", stem)
    subject = number_match.group().lstrip("0") or "0" if number_match else stem  # of any length, which int() is not
    hash_remainder = int.from_bytes(hashlib.sha256(subject.encode()).digest()[:8], "big") % SUBJECTS_PER_TEST_SUBJECT
    return RecordRow(file_name, subject, UNKNOWN_SITE, label, "test" if hash_remainder == 0 else "train")


def flatten_row_files(rows: Iterable[RecordRow], cohort_path: Path) -> tuple[RecordRow, ...]:
    """The rows with their records named as files of one folder. Raises InputError for two that would be one file."""
    rows = tuple(rows)
    if colliding_files := find_name_clashes([row.file for row in rows], lambda file: PurePosixPath(file).stem):
        raise InputError(
            f"{cohort_path} has the records {join_names(colliding_files)}, which are one file in one folder; expected "
            "others. Rename one."
        )
    return tuple(replace(row, file=f"{PurePosixPath(row.file).stem}.bin") for row in rows)


def make_swapped_file_name(file: str, copy_number: int) -> str:
    """The name of a copy of a record in which regions were swapped."""
    return f"{Path(file).stem}_swap_{copy_number}.bin"


def is_swapped_file(file: str) -> bool:
    """Whether `make_swapped_file_name` made a record's name."""
    return re.search(r"_swap_\d+\.bin$", file) is not None
