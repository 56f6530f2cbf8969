"""The one loader: any form of --dataDir -> a Cohort that reads batches.

Forms: a cohort (records with `cohort.json` and `subjects.csv`), a bare folder of `.bin` files or zip chunks, a JSON
list of record paths, an HDF5 file. Sizes and labels are checked when a cohort is opened, finiteness as records are
read.
"""

import csv
import hashlib
import io
import json
import math
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from data import grids
from data.base import files, sums
from data.base.errors import InputError
from data.cohorts import entries as entries_of
from data.cohorts import records

if TYPE_CHECKING:
    import pandas as pd

METADATA = "cohort.json"
TABLE = "subjects.csv"
FOLDS = "folds.json"  # of a set of cohorts, one a fold
COVARIATES, PHENOTYPE, MAPS = "covariates.csv", "phenotype.csv", "maps.csv"  # of each subject, beside the records
SPLITS = ("train", "test")
UNKNOWN = -1  # the label in a batch of a subject whose label is unknown
TEST_SHARE = 10  # one subject in ten is a test subject


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
        return self.label == self.label


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How records were made from scans, which all cohorts that one model reads must have in common.

    Empty where it is not known, as of a bare folder. `phenotype` names the 29 values; the other three are what they
    were imputed and scaled by.
    """

    maps: tuple[str, ...] = ()
    normalisation: str = ""
    reduction: str = ""  # of the volumes: "none", "block mean", or "encoder" and the beginning of its digest
    phenotype: tuple[str, ...] = ()
    phenotype_median: tuple[float, ...] = ()
    phenotype_mean: tuple[float, ...] = ()
    phenotype_scale: tuple[float, ...] = ()

    def of_inputs(self, reads: Sequence[str]) -> dict[str, object]:
        """What concerns a model that reads these inputs ("volume", "phenotype"); None where it is not known."""
        concern = {"volume": VOLUME_PREPARATION, "phenotype": PHENOTYPE_PREPARATION}
        return {name: comparable(getattr(self, name)) for inputs in reads for name in concern[inputs]}


def comparable(value: str | tuple) -> object:
    """A value that equals another one of the same text, whatever the last bit: None for an unknown one or NaN."""
    if isinstance(value, tuple):
        known = (None if entry != entry else entry for entry in value)
        value = tuple(float(f"{entry:.9g}") if isinstance(entry, float) else entry for entry in known)
    return value or None


VOLUME_PREPARATION = ("maps", "normalisation", "reduction")
PHENOTYPE_PREPARATION = ("phenotype", "phenotype_median", "phenotype_mean", "phenotype_scale")


@dataclass(frozen=True, kw_only=True)
class Metadata(Preparation):
    """What `cohort.json` says; a bare folder has nothing but the defaults.

    `phenotype_columns` and `covariate_columns` are those of the table that the cohort was converted from;
    `phenotype_categories` the values of such columns of text that became 0/1 values.
    """

    grid: tuple[int, ...] = ()
    affine: tuple[tuple[float, ...], ...] = ()
    phenotype_auc: dict[str, float] = field(default_factory=dict)  # of each value on the training labels
    phenotype_columns: tuple[str, ...] = ()
    phenotype_categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    covariate_columns: tuple[str, ...] = ()
    simulated: bool = False
    encoder_sha256: str = ""
    encoder_subjects: tuple[str, ...] = ()  # whom the encoder of these volumes was trained on
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

    def json(self) -> dict[str, Any]:
        """Everything that is not as by default, so that a field that comes later changes no older digest."""
        return {name: value for name, value in asdict(self).items() if value}


@dataclass(frozen=True)
class Cohort:
    """Records on one grid, of one number of maps; `entries[i]` holds the bytes of `rows[i]`.

    `tables` is the folder of the side tables.
    """

    path: Path
    grid: grids.Grid
    rows: tuple[Row, ...]
    entries: tuple[entries_of.Entry, ...]
    metadata: Metadata
    tables: Path | None = None
    num_maps: int = 1
    standard: Callable[[np.ndarray, Row], np.ndarray] | None = None  # what `batch` makes of a volume

    @property
    def simulated(self) -> bool:
        return self.metadata.simulated

    @property
    def maps(self) -> tuple[str, ...]:
        """The names of the maps, in the order of records; those of a bare folder are called 1, 2, ..."""
        return self.metadata.maps or tuple(str(number) for number in range(1, self.num_maps + 1))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the table of records and the metadata; tells cohorts apart without reading volumes."""
        rows = [astuple(row) for row in self.rows]
        several = [self.num_maps] * (self.num_maps > 1)
        text = json.dumps([self.grid.name, rows, self.metadata.json(), *several], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def paths(self) -> set[Path]:
        """The files that hold the records."""
        return {entry.path for entry in self.entries}

    def indices(self, split: str) -> np.ndarray:
        """Positions of a split's records. Raises InputError if it has none."""
        found = np.flatnonzero([row.split == split for row in self.rows])
        if not found.size:
            raise InputError(f"{self.path} has no {split} subjects among {len(self.rows)} records; add subjects.")
        return found

    def subjects(self, split: str) -> list[str]:
        return sorted({row.subject for row in self.rows if row.split == split})

    @cached_property
    def covariates(self) -> "pd.DataFrame | None":
        """`covariates.csv`: text by subject, in the order of `rows`; None if there is none. Raises InputError."""
        if (path := self._side_table(COVARIATES)) is None:
            return None
        from data.cohorts.side_tables import read

        return read(path, self._subjects)

    @cached_property
    def raw_phenotype(self) -> "pd.DataFrame | None":
        """`phenotype.csv`: the 29 values (subjects, 29) before imputation and scaling, NaN where unknown, as above."""
        if (path := self._side_table(PHENOTYPE)) is None:
            return None
        from data.cohorts.side_tables import read_phenotype

        return read_phenotype(path, self._subjects, self.metadata.phenotype)

    @property
    def _subjects(self) -> list[str]:
        """In the order of their first records."""
        return list(dict.fromkeys(row.subject for row in self.rows))

    def _side_table(self, name: str) -> Path | None:
        return self.tables / name if self.tables and (self.tables / name).is_file() else None

    def resplit(self, split: Mapping[str, str]) -> "Cohort":
        """The cohort with another split, subject -> train or test, and the phenotype scaled on its training subjects.

        Without `phenotype.csv` the phenotype stays as it is stored. Raises InputError for a subject without a split,
        for a training subject of unknown label, and where nobody is left to train on.
        """
        if absent := {row.subject for row in self.rows} - split.keys():
            raise InputError(f"The split lacks {len(absent)} subjects of {self.path}, such as {min(absent)}; add them.")
        rows = tuple(
            checked_row(str(self.path), row.file, row.subject, row.site, row.label, split[row.subject])
            for row in self.rows
        )
        cohort = replace(self, rows=rows, metadata=replace(self.metadata, phenotype_auc={}))
        cohort.indices("train")
        return cohort if self.raw_phenotype is None else cohort._refitted(self.raw_phenotype)

    def _refitted(self, raw: "pd.DataFrame") -> "Cohort":
        """The cohort with its phenotype imputed and scaled again from `raw` (subjects, 29)."""
        from data.cohorts.phenotype import fit_scaler

        training = set(self.subjects("train"))
        scaler = fit_scaler(raw[[subject in training for subject in raw.index]].to_numpy())
        scaled = dict(zip(raw.index, scaler.transform(raw.to_numpy()).astype(records.DTYPE), strict=True))
        entries = tuple(
            entries_of.RefittedEntry(entry, scaled[row.subject].tobytes())
            for row, entry in zip(self.rows, self.entries, strict=True)
        )
        return replace(self, entries=entries, metadata=replace(self.metadata, **scaler.constants()))

    def shuffled(self, seed: int) -> "Cohort":
        """The cohort with the training labels permuted over subjects; all records of a subject take its new label."""
        label = {row.subject: row.label for row in reversed(self.rows) if row.split == "train"}
        permuted = np.random.default_rng(seed).permutation(list(label.values())).tolist()
        new = dict(zip(label, permuted, strict=True))
        return replace(self, rows=tuple(replace(row, label=new.get(row.subject, row.label)) for row in self.rows))

    def read(self, index: int) -> tuple[float, np.ndarray, np.ndarray]:
        """Label, phenotype (29,) and volume (x, y, z, maps) of one record. Raises InputError, naming the file."""
        entry, unknown = self.entries[index], self.rows[index].split == "test"
        return records.unpack(entry.read(), self.grid, str(entry), unknown, self.num_maps)

    def header(self, index: int) -> bytes:
        """Label and phenotype of one record as they are on disk, checked."""
        entry = self.entries[index]
        header = entry.read(records.HEADER_BYTES)
        records.unpack_phenotype(header, str(entry), unknown=self.rows[index].split == "test")
        return header

    def volume_sha256(self, index: int) -> str:
        """The beginning of the SHA-256 of one record's volume: a scan is known by it whatever its subject is called."""
        return hashlib.sha256(memoryview(self.entries[index].read())[records.HEADER_BYTES :]).hexdigest()[:16]

    def batch(self, indices: Sequence[int] | np.ndarray, volumes: bool = True) -> dict[str, np.ndarray]:
        """`label` (n,) int32, -1 for unknown; `phenotype` (n, 29) and, unless not wanted, `volume`
        (n, x, y, z, maps), float32, standardised if the cohort is (`data.cohorts.standards`)."""
        label = np.nan_to_num([self.rows[index].label for index in indices], nan=UNKNOWN).astype(np.int32)
        phenotype = np.empty((len(indices), records.PHENOTYPE_SIZE), np.float32)
        if not volumes:
            for row, index in enumerate(indices):
                phenotype[row] = np.frombuffer(self.header(index), records.DTYPE)[1:]
            return {"label": label, "phenotype": phenotype}
        volume = np.empty((len(indices), *self.grid.shape, self.num_maps), np.float32)
        for row, index in enumerate(indices):
            _, phenotype[row], values = self.read(index)
            volume[row] = self.standard(values, self.rows[index]) if self.standard else values
        return {"label": label, "phenotype": phenotype, "volume": volume}


def open_cohort(path: Path) -> Cohort:
    """Opens any form of --dataDir. Raises InputError, naming the path, for what cannot be trained or tested on."""
    entries, table, metadata = read_form(path)
    grid, num_maps = common_form(entries)
    if metadata.grid and grid.shape != metadata.grid:
        raise InputError(f"{path} says grid {list(metadata.grid)}, its records are {grid}. Convert again.")
    if metadata.maps and len(metadata.maps) != num_maps:
        raise InputError(
            f"{path} names {len(metadata.maps)} maps ({', '.join(metadata.maps)}), its records hold {num_maps}. "
            "Convert again."
        )
    of_row = tuple(entries[row.file] for row in table)
    return Cohort(path, grid, tuple(table), of_row, metadata, tables_of(path), num_maps)


def tables_of(path: Path) -> Path | None:
    """The folder that holds a cohort's side tables; None for what has none: a bare folder, a list of records."""
    if path.is_file():
        return path.parent if path.name == entries_of.HDF5_NAME else None
    return path if any((path / name).is_file() for name in (METADATA, entries_of.HDF5_NAME)) else None


def carry_tables(source: Cohort, target: Path) -> None:
    """Copies a cohort's side tables byte by byte into the folder of another one, which holds the same subjects."""
    for name in (COVARIATES, PHENOTYPE, MAPS):
        if source.tables and (source.tables / name).is_file():
            shutil.copyfile(source.tables / name, target / name)


def in_one_folder(cohort: Cohort) -> Cohort:
    """The cohort with its records named as files of one folder, so that none lands elsewhere.

    Raises InputError, naming both, if two records would have names that some file systems take for the same.
    """
    first: dict[str, Row] = {}
    for row in cohort.rows:
        key = unicodedata.normalize("NFC", flat_name(row).casefold())
        if (other := first.setdefault(key, row)) is not row:
            raise InputError(
                f"{cohort.path} has the records {other.file} and {row.file}, which are one file in one folder; "
                "expected names that differ, and not only in capitals or in their folders. Rename one."
            )
    return replace(cohort, rows=tuple(replace(row, file=flat_name(row)) for row in cohort.rows))


def flat_name(row: Row) -> str:
    return f"{PurePosixPath(row.file).stem}.bin"


def read_form(path: Path) -> tuple[Mapping[str, entries_of.Entry], list[Row], Metadata]:
    """Entries by file name, the table and the metadata of any form of --dataDir."""
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a cohort, a folder of records or a JSON list of them.")
    if (path / FOLDS).is_file():
        raise InputError(f"{path} is a set of cohorts, one for each fold; use it with the --folds that made it.")
    if (path / entries_of.HDF5_NAME).is_file():
        path = path / entries_of.HDF5_NAME
    if path.suffix in (".h5", ".hdf5"):
        return read_hdf5(path)
    if path.is_dir():
        entries: Mapping[str, entries_of.Entry] = entries_of.folder_entries(path)
    elif path.suffix == ".json":
        entries = entries_of.list_entries(path)
    else:
        raise InputError(
            f"{path} is a file; expected a folder of records, a JSON list of them or {entries_of.HDF5_NAME}."
        )
    if not entries:
        raise InputError(
            f"{path} holds no records; expected .bin files or zip chunks. Make them: python -m data convert."
        )
    bare = not (path / METADATA).exists() and not (path / TABLE).exists()
    labels = labels_of(entries, unknown=not bare)
    if bare:
        return entries, [guess_row(name, label) for name, label in labels.items()], Metadata()
    metadata, table = read_metadata(path), read_table(path / TABLE)
    match_table(path / TABLE, table, entries)
    for row in table:
        if row.label != labels[row.file] and (row.known or labels[row.file] == labels[row.file]):
            raise InputError(
                f"{entries[row.file]} has the label {labels[row.file]:g}, the table says {row.label:g}. Convert again."
            )
    return entries, table, metadata


def labels_of(entries: Mapping[str, entries_of.Entry], unknown: bool) -> dict[str, float]:
    """Each record's label. Raises InputError, naming the record, for one that is neither 0.0 nor 1.0 (nor NaN, where
    it may be `unknown`)."""
    return {
        name: records.header_label(entry.read(records.DTYPE.itemsize), str(entry), unknown)
        for name, entry in entries.items()
    }


def read_hdf5(path: Path) -> tuple[Mapping[str, entries_of.Entry], list[Row], Metadata]:
    """`read_form` of an HDF5 file, which holds its table itself."""
    entries, texts, text = entries_of.hdf5_store(path)
    columns = [texts[name] for name in ("subject", "site", "split")]
    table = [
        checked_row(f"{path} row {number}", name, subject, site, label, split)
        for number, ((name, label), subject, site, split) in enumerate(
            zip(labels_of(entries, unknown=True).items(), *columns, strict=True)
        )
    ]
    match_table(path, table, entries)
    try:
        metadata = files.typed(text, Metadata)
    except ValueError as error:
        raise InputError(f"{path} has damaged metadata ({error}); expected a cohort's. Pack it again.") from error
    return entries, table, metadata


def checked_row(where: str, file: str, subject: str, site: str, label: float, split: str) -> Row:
    """A row of the table. Raises InputError, naming where it stands, for an impossible label, split or text; only a
    test subject's label may be unknown."""
    records.check_label(label, where, unknown=split == "test")
    if odd := next((text for text in (file, subject, site, split) if entries_of.NOT_PLAIN.search(text)), None):
        raise InputError(f"{where} holds the text {odd!r}; expected one line without control characters.")
    if split not in SPLITS:
        raise InputError(f"{where} has the split {split!r}; expected {' or '.join(SPLITS)}.")
    return Row(file, subject, site, label, split)


def common_form(entries: Mapping[str, entries_of.Entry]) -> tuple[grids.Grid, int]:
    """The grid and the number of maps that all records share, told by their size."""
    found: dict[tuple[grids.Grid, int], entries_of.Entry] = {}
    for entry in entries.values():
        try:
            found.setdefault(records.form_of_size(entry.size, str(entry)), entry)
        except OSError as error:
            raise InputError(f"{entry} cannot be read: {error.strerror}.") from error
    if len(found) > 1:
        (first, one), (second, other) = list(found.items())[:2]
        raise InputError(
            f"{one} is a {records.kind(*first)}, {other} a {records.kind(*second)}; expected one grid and one number "
            "of maps. Separate them."
        )
    return next(iter(found))


def guess_row(name: str, label: float) -> Row:
    """A record's row without a table: the subject is the first number in its name, the split a hash of the subject."""
    stem = Path(name).stem
    number = re.search(r"\d+", stem)
    subject = str(int(number.group())) if number else stem
    part = int.from_bytes(hashlib.sha256(subject.encode()).digest()[:8], "big") % TEST_SHARE
    return Row(name, subject, "unknown", label, "test" if part == 0 else "train")


def read_metadata(path: Path) -> Metadata:
    """`cohort.json` of a finished cohort."""
    for name in (METADATA, TABLE):
        if not (path / name).is_file():
            raise InputError(f"{path} has no {name}: its conversion was interrupted. Repeat the same command.")
    metadata = files.read_json(path / METADATA, Metadata)
    if not metadata.grid:
        raise InputError(f"{path / METADATA} names no grid; expected a cohort's metadata. Convert again.")
    return metadata


def read_table(path: Path) -> list[Row]:
    """`subjects.csv`. Raises InputError, naming file and line, for a missing column or an impossible value."""
    wanted = [column.name for column in fields(Row)]
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error}); expected UTF-8 text. Save it again.") from error
    with io.StringIO(text, newline="") as file:
        reader = csv.DictReader(file)
        try:
            names, rows = reader.fieldnames or [], [(f"{path} line {reader.line_num}", row) for row in reader]
        except csv.Error as error:
            raise InputError(f"{path} is damaged ({error}); expected a row a record. Convert again.") from error
        if missing := [name for name in wanted if name not in names]:
            raise InputError(f"{path} lacks the columns {', '.join(missing)}; expected {', '.join(wanted)}.")
        table = []
        for where, row in rows:
            try:
                label = float(row["label"]) if row["label"] != "" else math.nan
            except (TypeError, ValueError):
                raise InputError(
                    f"{where} has the label {row['label']!r}; expected 1 (autism) or 0 (control)."
                ) from None
            if None in row.values():
                raise InputError(f"{where} ends early; expected {', '.join(wanted)}.")
            table.append(checked_row(where, row["file"], row["subject"], row["site"], label, row["split"]))
    return table


def match_table(path: Path, table: list[Row], entries: Mapping[str, entries_of.Entry]) -> None:
    """Raises InputError unless the table names each record once and no subject is in both splits."""
    named = {row.file for row in table}
    if len(named) < len(table):
        raise InputError(f"{path} names a file twice; expected one row a record.")
    if absent := sorted(named - entries.keys()):
        raise InputError(
            f"{path.parent} lacks {absent[0]}, which {path.name} names ({len(absent)} missing). Copy it again."
        )
    if stray := sorted(entries.keys() - named):
        raise InputError(f"{path} has no row for {stray[0]} ({len(stray)} such records). Add it or remove the file.")
    split_of: dict[str, str] = {}
    for row in table:
        if split_of.setdefault(row.subject, row.split) != row.split:
            raise InputError(f"{path} has subject {row.subject} in train and in test; expected one split a subject.")


def write_tables(path: Path, table: Sequence[Row], metadata: Metadata) -> None:
    """Writes `cohort.json`, the sums of the records, then `subjects.csv`, which says that the cohort is complete."""
    files.write_json(path / METADATA, metadata.json())
    sums.write_sums(path, [file.name for file, _ in entries_of.record_files(path)])
    with files.replacing(path / TABLE, newline="") as file:
        writer = csv.DictWriter(file, [column.name for column in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) | {"label": int(row.label) if row.known else ""} for row in table)


def assign_splits(subjects: Sequence[str], sites: Sequence[str], labels: Sequence[float], seed: int) -> dict[str, str]:
    """Subject -> train or test: one in ten is a test subject, in proportion over labels and sites.

    Systematic sampling: subjects are put in order of label, site and a seeded random number, and every tenth is taken,
    so that strata smaller than ten are represented fairly too. One entry a subject in each argument.
    """
    random = np.random.default_rng(seed)
    order = np.lexsort([random.random(len(subjects)), np.asarray(sites), np.asarray(labels)])
    offset = random.integers(min(TEST_SHARE, len(subjects)))
    split = dict.fromkeys(subjects, "train")
    split.update(dict.fromkeys((subjects[index] for index in order[offset::TEST_SHARE]), "test"))
    return split
