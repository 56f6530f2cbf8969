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

METADATA = "cohort.json"
TABLE = "subjects.csv"
MAX_RECORDS = 1_000_000
SPLITS = ("train", "test")
HELD_OUT = "aside"  # the split, in memory only, of those whom an outer fold tests while inner folds are made
CHANCE = 0.5  # AUC of guessing
CONFIDENCE = 0.95  # of an interval: the share of the resamples that it holds
POWER = 0.8  # of studies that show what is there: the share in forecasts and minimum detectable differences
MIN_PER_CLASS = 10  # subjects, of an interval: percentiles of fewer are too narrow
TEST_SHARE = 10  # one subject in ten is a test subject
TYPED = "converted_by"  # in a provenance: the command
UNSEALED = "sealed_without_sums"  # in it: true if its tables may be other than they were written
UNLIKE_RECORDS = "unlike_records"  # in it: the cells of these that the records contradicted
LISTED = 10  # names in a line
NAMED = 4  # members of a group in it
TOGETHER, APART = "together", "apart"  # subjects who share a scan


@dataclass(frozen=True)
class Row:
    """A row of `subjects.csv`. `label` is 1.0 autism, 0.0 control, NaN unknown; `split` is train or test."""

    file: str
    subject: str
    site: str
    label: float
    split: str

    @property
    def known(self) -> bool:
        """Whether the label is known."""
        return self.label == self.label


COLUMNS = tuple(column.name for column in fields(Row))
DIGESTS = {  # by column, what it holds of `Digests`; those of several maps stand in one cell, with spaces between them
    "volume_sha256": "volume",
    "source_sha256": "source",
    "connectome_sha256": "connectome",
    "map_sha256": "maps",
    "source_map_sha256": "source_maps",
    "header_sha256": "header",
}
UNKNOWN_SITE = "unknown"  # of people of whom no column tells it
SITE_UNKNOWN = "SITE UNKNOWN"  # the mark of a result
SITE_IS_UNKNOWN = "Site is unknown, and may be the whole result"


def known_sites(sites: Iterable[str]) -> list[str]:
    """Each site that is known, sorted: nothing may count people of none of them as one site."""
    return sorted({*sites} - {UNKNOWN_SITE, ""})


def read_table(path: Path) -> tuple[list[Row], list[Digests]]:
    """`subjects.csv`, and the digests of its records, if it has them. Raises InputError, naming file and line, for a
    missing column or an impossible value."""
    found, digests = [], []
    for line, row in tables.read_csv_rows(path, COLUMNS).items():
        where = f"{path} line {line}"
        try:
            label = float(row["label"] or "nan")
        except ValueError:
            raise InputError(f"{where} has the label {row['label']!r}; expected 1 (autism) or 0 (control).") from None
        found.append(checked(where, Row(row["file"], row["subject"], row["site"], label, row["split"])))
        if row.get("volume_sha256"):
            known = {name: row.get(column, "") for column, name in DIGESTS.items()}
            maps, source_maps = (tuple(known.pop(name).split()) for name in ("maps", "source_maps"))
            digests.append(Digests(**known, maps=maps, source_maps=source_maps))
    return found, digests


def checked(where: str, row: Row) -> Row:
    """The row. Raises InputError, naming where it stands, for an impossible label or split."""
    records.check_label(row.label, where, unknown=row.split == "test")
    if row.split not in SPLITS:
        raise InputError(f"{where} has the split {row.split!r}; expected {' or '.join(SPLITS)}.")
    return row


def write_table(path: Path, rows: Sequence[Row], digests: Sequence[Digests]) -> None:
    """Writes `subjects.csv` with those digests of the records that some have; an unknown label is empty."""
    kept = {column: name for column, name in DIGESTS.items() if any(getattr(of, name) for of in digests)}
    texts = [[row.file, row.subject, row.site, int(row.label) if row.known else "", row.split] for row in rows]
    for text, of in zip(texts, digests, strict=True):
        every = (getattr(of, name) for name in kept.values())
        text += [value if isinstance(value, str) else " ".join(value) for value in every]
    tables.write_rows(path, [*COLUMNS, *kept], texts)


def match_table(path: Path, table: Sequence[Row], files: Iterable[str]) -> None:
    """Raises InputError unless the table names each of the records' files once and no subject is in both splits."""
    files, named = set(files), {row.file for row in table}
    if len(named) < len(table):
        raise InputError(f"{path} names a file twice; expected one row a record.")
    if absent := sorted(named - files):
        raise InputError(
            f"{path.parent} lacks {absent[0]}, which {path.name} names ({len(absent)} missing). Copy it again."
        )
    if stray := sorted(files - named):
        raise InputError(f"{path} has no row for {stray[0]} ({len(stray)} such records). Add it or remove the file.")
    split_of: dict[str, str] = {}
    for row in table:
        if split_of.setdefault(row.subject, row.split) != row.split:
            raise InputError(
                f"{path} has participant {row.subject} in train and in test; expected one split a participant."
            )


def guess_row(name: str, label: float) -> Row:
    """The row of a record without a table: the subject is the first number in its name, the split a hash of it."""
    stem = Path(name).stem
    number = re.search(r"\d+", stem)
    subject = number.group().lstrip("0") or "0" if number else stem  # of any length, which int() is not
    part = int.from_bytes(hashlib.sha256(subject.encode()).digest()[:8], "big") % TEST_SHARE
    return Row(name, subject, UNKNOWN_SITE, label, "test" if part == 0 else "train")


def flattened(rows: Iterable[Row], path: Path) -> tuple[Row, ...]:
    """The rows with their records named as files of one folder. Raises InputError for two that would be one file."""
    rows = tuple(rows)
    if alike := find_name_clashes([row.file for row in rows], lambda file: PurePosixPath(file).stem):
        raise InputError(
            f"{path} has the records {listed(alike)}, which are one file in one folder; expected others. Rename one."
        )
    return tuple(replace(row, file=f"{PurePosixPath(row.file).stem}.bin") for row in rows)


def swapped_name(file: str, copy: int) -> str:
    """The name of a copy of a record in which regions were swapped."""
    return f"{Path(file).stem}_swap_{copy}.bin"


def is_swapped(file: str) -> bool:
    """Whether `swapped_name` made a record's name."""
    return re.search(r"_swap_\d+\.bin$", file) is not None


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How records were made from scans: all cohorts that one model reads must have it in common. Empty if unknown, as
    for a bare folder. `phenotype` names the 29 values, imputed and scaled by the other three; `connectome` the series
    whose correlations are in `connectomes.h5`, `parcels_sha256` tells the parcels that these are of."""

    maps: tuple[str, ...] = ()
    normalisation: str = ""
    reduction: str = ""  # of the volumes: "none", "block mean", or "encoder" and the beginning of its digest
    phenotype: tuple[str, ...] = ()
    phenotype_median: tuple[float, ...] = ()
    phenotype_mean: tuple[float, ...] = ()
    phenotype_scale: tuple[float, ...] = ()
    connectome: str = ""
    parcels_sha256: str = ""

    @property
    def has_constants(self) -> bool:
        """Whether it holds those that impute and scale each value of the phenotype."""
        constants = self.phenotype_median, self.phenotype_mean, self.phenotype_scale
        return {len(values) for values in constants} == {records.PHENOTYPE_SIZE}

    def of_inputs(self, reads: Sequence[str]) -> dict[str, object]:
        """What matters to a model that reads these of PREPARED_BY: floats to nine digits, None if unknown or NaN."""
        part: dict[str, object] = {}
        for name in [name for inputs in reads for name in PREPARED_BY[inputs]]:
            value = getattr(self, name)
            if isinstance(value, tuple):
                known = (None if entry != entry else entry for entry in value)
                value = tuple(float(f"{entry:.9g}") if isinstance(entry, float) else entry for entry in known)
            part[name] = value or None
        return part


PREPARED_BY = {
    "volume": ("maps", "normalisation", "reduction"),
    "phenotype": ("phenotype", "phenotype_median", "phenotype_mean", "phenotype_scale"),
    "connectome": ("connectome", "parcels_sha256"),
}


@dataclass(frozen=True, kw_only=True)
class Metadata(Preparation):
    """The content of `cohort.json`; a bare folder has the defaults. `..._columns` are those of the table that it was
    converted from, `phenotype_categories` the values of columns of text that became 0/1 values. Subjects who share a
    scan are in `same_scan`; `duplicates` is TOGETHER, APART if the user wants it so, empty if nobody looked for them.
    `families` are the people of each family, of one person, too, by its value in `family_column`."""

    grid: tuple[int, ...] = ()
    affine: tuple[tuple[float, ...], ...] = ()
    phenotype_auc: dict[str, float] = field(default_factory=dict)  # of each value on the training labels
    phenotype_columns: tuple[str, ...] = ()
    phenotype_categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    covariate_columns: tuple[str, ...] = ()
    id_column: str = ""  # as --idColumn named it
    map_column: str = ""  # as --mapColumn named it
    column_maps: tuple[str, ...] = ()  # what files that its columns name are called; a 4-D file holds several maps
    site_column: str = ""  # of the covariates, which holds the sites
    covariates_named: bool = False  # by the user, so that the phenotype adds none
    same_scan: tuple[tuple[str, ...], ...] = ()
    duplicates: str = ""
    family_column: str = ""
    families: dict[str, tuple[str, ...]] = field(default_factory=dict)
    accepted_leaks: tuple[str, ...] = ()  # what tells the diagnosis and was accepted by --allowLeak
    derivation: Derivation | None = None  # of maps and series from scans
    simulated: bool = False
    encoder_sha256: str = ""
    encoder_subjects: tuple[str, ...] = ()  # whom the encoder of these volumes was trained on
    encoder_volumes: tuple[str, ...] = ()  # the digests of their volumes, see `Digests.scans`
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def preparation(self) -> Preparation:
        return Preparation(**{part.name: getattr(self, part.name) for part in fields(Preparation)})

    @property
    def lineage(self) -> Iterator[dict[str, Any]]:
        """The provenance, and that of each cohort that this one was made from, the latest first."""
        source: Any = self.provenance
        while source and isinstance(source, dict):
            yield source
            source = source.get("source")

    @property
    def unsealed(self) -> bool:
        """Whether it was sealed without sums, or made from what was."""
        return any(source.get(UNSEALED) for source in self.lineage)

    @property
    def unlike_records(self) -> list[dict[str, str]]:
        """The cells (subject, column, before, after) that tables without sums had other than the records."""
        return next((source[UNLIKE_RECORDS] for source in self.lineage if UNLIKE_RECORDS in source), [])

    @property
    def people_left_out(self) -> dict[str, list[str]]:
        """Whom the conversion left out, for each reason that its provenance gives."""
        given = next((source["left_out"] for source in self.lineage if "left_out" in source), None)
        reasons = given.items() if isinstance(given, dict) else ()
        return {reason: list(map(str, names)) for reason, names in reasons if names and isinstance(names, list)}

    @property
    def left_out(self) -> dict[str, int]:
        return {reason: len(names) for reason, names in self.people_left_out.items()}

    @property
    def command(self) -> str:
        """The command of the conversion, as it was typed; empty if that is not known."""
        return next((source.get(TYPED, "") for source in self.lineage if "left_out" in source), "")

    def json(self) -> dict[str, Any]:
        """All but the defaults."""
        return asdict(self, dict_factory=lambda pairs: {name: value for name, value in pairs if value})


def read_metadata(path: Path) -> Metadata:
    """`cohort.json`. Raises InputError for damage, and for another format than a script's, which says none, or this."""
    found = files.read_json(path, dict)
    files.check_format(path, found.get("format", files.FORMAT_VERSION), "convert again")
    metadata = files.read_json(path, Metadata)
    if not metadata.grid:
        raise InputError(f"{path} names no grid; expected a cohort's metadata. Convert again.")
    return metadata


def write_metadata(path: Path, metadata: Metadata) -> None:
    files.write_json(path, {"format": files.FORMAT_VERSION} | metadata.json())


def listed(names: Sequence[str], most: int = LISTED, between: str = ", ") -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return between.join(names[:most]) + more


def named_groups(groups: Sequence[Sequence[str]], told: Callable[[str], str] = str) -> str:
    """The first groups, and the first members of each as they are `told`."""
    texts = [" and ".join(map(told, group[:NAMED])) for group in groups]
    more = [f" and {len(group) - NAMED} more" if len(group) > NAMED else "" for group in groups]
    return listed([text + rest for text, rest in zip(texts, more, strict=True)])
