"""The tables of a cohort: `subjects.csv`, a row a record, with its split and digests; `cohort.json`."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

from data.base import files, tables
from data.base.errors import InputError, find_name_clashes
from data.cohorts import records
from data.cohorts.derivation import Derivation
from data.cohorts.records import Digests

METADATA_FILE = "cohort.json"
SUBJECTS_FILE = "subjects.csv"
MAX_RECORDS = 1_000_000  # of a cohort
SPLITS = ("train", "test")
ASIDE_SPLIT = "aside"  # the split, in memory only, of those whom an outer fold tests while inner folds are made
CHANCE_AUC = 0.5  # AUC of guessing
CONFIDENCE_LEVEL = 0.95  # of an interval: the share of the resamples that it holds
POWER = 0.8  # of studies that show what is there: the share in forecasts and minimum detectable differences
MIN_CLASS_SUBJECTS = 10  # of each class, for an interval: percentiles of fewer are too narrow
SUBJECTS_PER_TEST_SUBJECT = 10  # one subject in ten is a test subject
COMMAND_KEY = "converted_by"  # in a provenance: the command
UNSEALED_KEY = "sealed_without_sums"  # in a provenance: true if tables may be other than they were written
UNLIKE_RECORDS_KEY = "unlike_records"  # in a provenance: the cells of these tables that the records contradicted
MAX_LISTED_NAMES = 10  # names in a line
MAX_GROUP_MEMBERS_LISTED = 4  # members of a group in a line
DUPLICATES_TOGETHER, DUPLICATES_APART = "together", "apart"  # subjects who share a scan


@dataclass(frozen=True)
class RecordRow:
    """A row of `subjects.csv`."""

    file: str  # the name of the record's file
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
}
UNKNOWN_SITE = "unknown"  # of people of whom no column tells it
SITE_UNKNOWN_MARK = "SITE UNKNOWN"  # the mark of a result
SITE_UNKNOWN_SENTENCE = "Site is unknown, and may be the whole result"


def find_recorded_sites(sites: Iterable[str]) -> list[str]:
    """Each site that is known, sorted: people whose site is unknown must not count as one site."""
    return sorted({*sites} - {UNKNOWN_SITE, ""})


def read_subjects_table(table_path: Path) -> tuple[list[RecordRow], list[Digests]]:
    """`subjects.csv`, and the digests of its records, if it has them. Raises InputError, naming file and line, for a
    missing column or an impossible value."""
    rows, record_digests = [], []
    for line_number, cell_by_column in tables.read_csv_rows(table_path, SUBJECTS_TABLE_COLUMNS).items():
        line_location = f"{table_path} line {line_number}"
        try:
            label = float(cell_by_column["label"] or "nan")
        except ValueError:
            raise InputError(
                f"{line_location} has the label {cell_by_column['label']!r}; expected 1 (autism) or 0 (control)."
            ) from None
        rows.append(
            check_row(
                line_location,
                RecordRow(
                    cell_by_column["file"],
                    cell_by_column["subject"],
                    cell_by_column["site"],
                    label,
                    cell_by_column["split"],
                ),
            )
        )
        if cell_by_column.get("volume_sha256"):
            digest_by_field = {
                digest_field: cell_by_column.get(column, "") for column, digest_field in DIGEST_FIELD_BY_COLUMN.items()
            }
            map_digests, source_map_digests = (
                tuple(digest_by_field.pop(digest_field).split()) for digest_field in ("maps", "source_maps")
            )
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
    digest_field_by_column = {
        column: digest_field
        for column, digest_field in DIGEST_FIELD_BY_COLUMN.items()
        if any(getattr(record_digests, digest_field) for record_digests in digests)
    }
    table_rows = [
        [row.file, row.subject, row.site, int(row.label) if row.is_labelled else "", row.split] for row in rows
    ]
    for cells, record_digests in zip(table_rows, digests, strict=True):
        digest_values = (getattr(record_digests, digest_field) for digest_field in digest_field_by_column.values())
        cells += [digest if isinstance(digest, str) else " ".join(digest) for digest in digest_values]
    tables.write_csv_rows(table_path, [*SUBJECTS_TABLE_COLUMNS, *digest_field_by_column], table_rows)


def check_table_files(table_path: Path, rows: Sequence[RecordRow], record_files: Iterable[str]) -> None:
    """Raises InputError unless the table names each of the records' files once and no subject is in both splits."""
    record_files, listed_files = set(record_files), {row.file for row in rows}
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


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How records were made from scans: all cohorts that one model reads must have it in common. Empty if unknown, as
    for a bare folder."""

    maps: tuple[str, ...] = ()  # their names
    normalisation: str = ""  # of the volumes, in words
    reduction: str = ""  # of the volumes: "none", "block mean", or "encoder" and the beginning of its digest
    phenotype: tuple[str, ...] = ()  # the names of the 29 values
    phenotype_median: tuple[float, ...] = ()  # of each raw value; replaces unknown ones
    phenotype_mean: tuple[float, ...] = ()  # of each imputed value
    phenotype_scale: tuple[float, ...] = ()  # divisor of each value; 0 for a constant one
    connectome: str = ""  # the name of the series whose correlations are in `connectomes.h5`
    parcels_sha256: str = ""  # of the parcels that the series are of

    @property
    def has_phenotype_constants(self) -> bool:
        """Whether it holds the constants that impute and scale each value of the phenotype."""
        constants = self.phenotype_median, self.phenotype_mean, self.phenotype_scale
        return {len(constant_values) for constant_values in constants} == {records.PHENOTYPE_SIZE}

    def select_fields_for_inputs(self, input_names: Sequence[str]) -> dict[str, object]:
        """What matters to a model that reads these inputs of `PREPARATION_FIELDS_BY_INPUT`: floats to nine digits, None
        if unknown or NaN."""
        value_by_field: dict[str, object] = {}
        for field_name in [
            field_name for input_name in input_names for field_name in PREPARATION_FIELDS_BY_INPUT[input_name]
        ]:
            field_value = getattr(self, field_name)
            if isinstance(field_value, tuple):
                entries_or_none = (None if entry != entry else entry for entry in field_value)
                field_value = tuple(
                    float(f"{entry:.9g}") if isinstance(entry, float) else entry for entry in entries_or_none
                )
            value_by_field[field_name] = field_value or None
        return value_by_field


PREPARATION_FIELDS_BY_INPUT = {
    "volume": ("maps", "normalisation", "reduction"),
    "phenotype": ("phenotype", "phenotype_median", "phenotype_mean", "phenotype_scale"),
    "connectome": ("connectome", "parcels_sha256"),
}


@dataclass(frozen=True, kw_only=True)
class Metadata(Preparation):
    """The content of `cohort.json`; a bare folder has the defaults. `..._columns` are those of the table that it was
    converted from."""

    grid: tuple[int, ...] = ()  # voxels along x, y and z
    affine: tuple[tuple[float, ...], ...] = ()  # 4x4, voxel index -> mm
    phenotype_auc: dict[str, float] = field(default_factory=dict)  # of each value on the training labels
    phenotype_columns: tuple[str, ...] = ()
    phenotype_categories: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by column of text, its values
    covariate_columns: tuple[str, ...] = ()
    id_column: str = ""  # as --idColumn named it
    map_column: str = ""  # as --mapColumn named it
    column_maps: tuple[str, ...] = ()  # names of the maps in files that its columns name; a 4-D file holds several maps
    site_column: str = ""  # of the covariates, which holds the sites
    covariates_named: bool = False  # by the user, so that the phenotype adds none
    same_scan: tuple[tuple[str, ...], ...] = ()  # groups of subjects who share a scan
    duplicates: str = ""  # DUPLICATES_TOGETHER; DUPLICATES_APART, if the user wants it so; empty: not looked for
    family_column: str = ""
    families: dict[str, tuple[str, ...]] = field(default_factory=dict)  # subjects by family, even a single one
    accepted_leaks: tuple[str, ...] = ()  # what tells the diagnosis and was accepted by --allowLeak
    derivation: Derivation | None = None  # of maps and series from scans
    simulated: bool = False
    encoder_sha256: str = ""
    encoder_subjects: tuple[str, ...] = ()  # whom the encoder of these volumes was trained on
    encoder_volumes: tuple[str, ...] = ()  # the digests of their volumes, see `Digests.scan_digests`
    provenance: dict[str, Any] = field(default_factory=dict)  # how the cohort was made, see `lineage`

    @property
    def preparation(self) -> Preparation:
        return Preparation(
            **{
                preparation_field.name: getattr(self, preparation_field.name)
                for preparation_field in fields(Preparation)
            }
        )

    @property
    def lineage(self) -> Iterator[dict[str, Any]]:
        """The provenance, and that of each cohort that this one was made from, the latest first."""
        provenance: Any = self.provenance
        while provenance and isinstance(provenance, dict):
            yield provenance
            provenance = provenance.get("source")

    @property
    def is_unsealed(self) -> bool:
        """Whether it was sealed without sums, or made from what was."""
        return any(provenance.get(UNSEALED_KEY) for provenance in self.lineage)

    @property
    def cells_unlike_records(self) -> list[dict[str, str]]:
        """The cells (subject, column, before, after) in which tables without sums differed from the records."""
        return next(
            (provenance[UNLIKE_RECORDS_KEY] for provenance in self.lineage if UNLIKE_RECORDS_KEY in provenance), []
        )

    @property
    def left_out_people_by_reason(self) -> dict[str, list[str]]:
        """Whom the conversion left out, for each reason that its provenance gives."""
        left_out_names_by_reason = next(
            (provenance["left_out"] for provenance in self.lineage if "left_out" in provenance), None
        )
        reason_items = left_out_names_by_reason.items() if isinstance(left_out_names_by_reason, dict) else ()
        return {
            reason: list(map(str, subjects))
            for reason, subjects in reason_items
            if subjects and isinstance(subjects, list)
        }

    @property
    def left_out_count_by_reason(self) -> dict[str, int]:
        return {reason: len(subjects) for reason, subjects in self.left_out_people_by_reason.items()}

    @property
    def conversion_command(self) -> str:
        """The command of the conversion, as it was typed; empty if that is not known."""
        return next((provenance.get(COMMAND_KEY, "") for provenance in self.lineage if "left_out" in provenance), "")

    def to_json(self) -> dict[str, Any]:
        """All but the defaults."""
        return asdict(
            self,
            dict_factory=lambda field_items: {
                field_name: field_value for field_name, field_value in field_items if field_value
            },
        )


def read_metadata(metadata_path: Path) -> Metadata:
    """`cohort.json`. Raises InputError for damage, and for another format than this one; that of a script, which names
    none, is accepted."""
    content = files.read_json(metadata_path, dict)
    files.check_format_version(metadata_path, content.get("format", files.FORMAT_VERSION), "convert again")
    metadata = files.read_json(metadata_path, Metadata)
    if not metadata.grid:
        raise InputError(f"{metadata_path} names no grid; expected a cohort's metadata. Convert again.")
    return metadata


def write_metadata(metadata_path: Path, metadata: Metadata) -> None:
    files.write_json(metadata_path, {"format": files.FORMAT_VERSION} | metadata.to_json())


def join_names(names: Sequence[str], max_names: int = MAX_LISTED_NAMES, separator: str = ", ") -> str:
    """The first names, and how many more there are."""
    remainder_text = f" and {len(names) - max_names} more" if len(names) > max_names else ""
    return separator.join(names[:max_names]) + remainder_text


def join_group_names(groups: Sequence[Sequence[str]], format_name: Callable[[str], str] = str) -> str:
    """The first groups, and the first members of each, as `format_name` writes them."""
    group_texts = [" and ".join(map(format_name, group[:MAX_GROUP_MEMBERS_LISTED])) for group in groups]
    remainder_texts = [
        f" and {len(group) - MAX_GROUP_MEMBERS_LISTED} more" if len(group) > MAX_GROUP_MEMBERS_LISTED else ""
        for group in groups
    ]
    return join_names(
        [group_text + remainder_text for group_text, remainder_text in zip(group_texts, remainder_texts, strict=True)]
    )
