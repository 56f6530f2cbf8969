"""The one loader: any form of --dataDir -> a Cohort that reads batches.

Forms: a cohort (records with `cohort.json` and `subjects.csv`), a bare folder of `.bin` files or zip chunks, a JSON
list of record paths, an HDF5 file. Sizes and labels are checked when a cohort is opened, finiteness as records are
read.
"""

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from pathlib import Path, PurePosixPath

import numpy as np

from data import entries as entries_of
from data import files, grids, records
from data.errors import InputError

METADATA = "cohort.json"
TABLE = "subjects.csv"
SPLITS = ("train", "test")
TEST_SHARE = 10  # one subject in ten is a test subject


@dataclass(frozen=True)
class Row:
    """A row of `subjects.csv`. `label` is 1.0 autism, 0.0 control; `split` is train or test."""

    file: str
    subject: str
    site: str
    label: float
    split: str


@dataclass(frozen=True)
class Cohort:
    """Records on one grid; `entries[i]` holds the bytes of `records[i]`."""

    path: Path
    grid: grids.Grid
    rows: tuple[Row, ...]
    entries: tuple[entries_of.Entry, ...]
    metadata: dict

    @property
    def simulated(self) -> bool:
        return bool(self.metadata.get("simulated"))

    @property
    def digest(self) -> str:
        """SHA-256 over the table of records and the metadata; tells cohorts apart without reading volumes."""
        rows = [astuple(record) for record in self.rows]
        text = json.dumps([self.grid.name, rows, self.metadata], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def indices(self, split: str) -> np.ndarray:
        """Positions of a split's records. Raises InputError if it has none."""
        found = np.flatnonzero([record.split == split for record in self.rows])
        if not found.size:
            raise InputError(f"{self.path} has no {split} subjects among {len(self.rows)} records; add subjects.")
        return found

    def subjects(self, split: str) -> list[str]:
        return sorted({record.subject for record in self.rows if record.split == split})

    def read(self, index: int) -> tuple[float, np.ndarray, np.ndarray]:
        """Label, phenotype (29,) and volume (x, y, z) of one record. Raises InputError, naming the file."""
        entry = self.entries[index]
        return records.unpack(entry.read(), self.grid, str(entry))

    def batch(self, indices: Sequence[int], volumes: bool = True) -> dict[str, np.ndarray]:
        """`label` (n,) int32, `phenotype` (n, 29) and, unless not wanted, `volume` (n, x, y, z, 1), float32."""
        label = np.array([self.rows[index].label for index in indices], np.int32)
        phenotype = np.empty((len(indices), records.PHENOTYPE_SIZE), np.float32)
        if not volumes:
            for row, index in enumerate(indices):
                entry = self.entries[index]
                phenotype[row] = records.unpack_phenotype(entry.read(records.HEADER_BYTES), str(entry))
            return {"label": label, "phenotype": phenotype}
        volume = np.empty((len(indices), *self.grid.shape, 1), np.float32)
        for row, index in enumerate(indices):
            _, phenotype[row], volume[row, ..., 0] = self.read(index)
        return {"label": label, "phenotype": phenotype, "volume": volume}


def open_cohort(path: Path) -> Cohort:
    """Opens any form of --dataDir. Raises InputError, naming the path, for what cannot be trained or tested on."""
    entries, table, metadata = read_form(path)
    grid = common_grid(entries)
    if metadata and list(grid.shape) != metadata["grid"]:
        raise InputError(f"{path} says grid {metadata['grid']}, its records are {grid}. Convert again.")
    for record in table:
        label = records.header_label(entries[record.file].read(records.DTYPE.itemsize), str(entries[record.file]))
        if label != record.label:
            raise InputError(
                f"{entries[record.file]} has the label {label:g}, the table says {record.label:g}. Convert again."
            )
    return Cohort(path, grid, tuple(table), tuple(entries[record.file] for record in table), metadata)


def in_one_folder(cohort: Cohort) -> Cohort:
    """The cohort with its records named as files of one folder, so that none lands elsewhere.

    Raises InputError if two records have the same name.
    """
    table = tuple(replace(record, file=f"{PurePosixPath(record.file).stem}.bin") for record in cohort.rows)
    name, count = Counter(record.file for record in table).most_common(1)[0]
    if count > 1:
        raise InputError(f"{cohort.path} has two records named {name}; expected each name once. Rename one.")
    return replace(cohort, rows=table)


def read_form(path: Path) -> tuple[dict[str, entries_of.Entry], list[Row], dict]:
    """Entries by file name, the table and the metadata ({} where there is none) of any form of --dataDir."""
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a cohort, a folder of records or a JSON list of them.")
    if (path / entries_of.HDF5_NAME).is_file():
        path = path / entries_of.HDF5_NAME
    if path.suffix in (".h5", ".hdf5"):
        return read_hdf5(path)
    if path.is_dir():
        entries = entries_of.folder_entries(path)
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
    if not (path / METADATA).exists() and not (path / TABLE).exists():
        return entries, [guess_record(name, entry) for name, entry in entries.items()], {}
    metadata, table = read_metadata(path), read_table(path / TABLE)
    match_table(path / TABLE, table, entries)
    return entries, table, metadata


def read_hdf5(path: Path) -> tuple[dict[str, entries_of.Entry], list[Row], dict]:
    """`read_form` of an HDF5 file, which holds its table itself."""
    entries, texts, metadata = entries_of.hdf5_store(path)
    table = []
    for row, (name, entry) in enumerate(entries.items()):
        label = records.header_label(entry.read(records.DTYPE.itemsize), str(entry))
        table.append(
            checked_record(
                f"{path} row {row}", name, texts["subject"][row], texts["site"][row], label, texts["split"][row]
            )
        )
    match_table(path, table, entries)
    if metadata and not isinstance(metadata.get("grid"), list):
        raise InputError(f"{path} has damaged metadata; expected a cohort's. Pack it again.")
    return entries, table, metadata


def checked_record(where: str, file: str, subject: str, site: str, label: float, split: str) -> Row:
    """A row of the table. Raises InputError, naming where it stands, for an impossible label or split."""
    records.check_label(label, where)
    if split not in SPLITS:
        raise InputError(f"{where} has the split {split!r}; expected {' or '.join(SPLITS)}.")
    return Row(file, subject, site, label, split)


def common_grid(entries: dict) -> grids.Grid:
    """The grid that all records share, told by their size."""
    grids = {}
    for entry in entries.values():
        try:
            grids.setdefault(records.grid_of_size(entry.size, str(entry)), entry)
        except OSError as error:
            raise InputError(f"{entry} cannot be read: {error.strerror}.") from error
    if len(grids) > 1:
        (first, one), (second, other) = list(grids.items())[:2]
        raise InputError(f"{one} is a {first} record and {other} a {second} one; expected one grid. Separate them.")
    return next(iter(grids))


def guess_record(name: str, entry: entries_of.Entry) -> Row:
    """A record without a table: the subject is the first number in its name, the split a hash of the subject."""
    stem = Path(name).stem
    number = re.search(r"\d+", stem)
    subject = str(int(number.group())) if number else stem
    part = int.from_bytes(hashlib.sha256(subject.encode()).digest()[:8], "big") % TEST_SHARE
    label = records.header_label(entry.read(records.DTYPE.itemsize), str(entry))
    return Row(name, subject, "unknown", label, "test" if part == 0 else "train")


def read_metadata(path: Path) -> dict:
    """`cohort.json` of a finished cohort."""
    for name in (METADATA, TABLE):
        if not (path / name).is_file():
            raise InputError(f"{path} has no {name}: its conversion was interrupted. Repeat the same command.")
    try:
        metadata = json.loads((path / METADATA).read_text(encoding="utf-8"))
        if not isinstance(metadata["grid"], list):
            raise TypeError("grid is no list")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path / METADATA} is damaged ({error}); expected a cohort's metadata. Convert again."
        ) from error
    return metadata


def read_table(path: Path) -> list[Row]:
    """`subjects.csv`. Raises InputError, naming file and line, for a missing column or an impossible value."""
    wanted = [field.name for field in fields(Row)]
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
                label = float(row["label"])
            except (TypeError, ValueError):
                raise InputError(
                    f"{where} has the label {row['label']!r}; expected 1 (autism) or 0 (control)."
                ) from None
            if None in row.values():
                raise InputError(f"{where} ends early; expected {', '.join(wanted)}.")
            table.append(checked_record(where, row["file"], row["subject"], row["site"], label, row["split"]))
    return table


def match_table(path: Path, table: list[Row], entries: dict) -> None:
    """Raises InputError unless the table names each record once and no subject is in both splits."""
    named = {record.file for record in table}
    if len(named) < len(table):
        raise InputError(f"{path} names a file twice; expected one row a record.")
    if absent := sorted(named - entries.keys()):
        raise InputError(
            f"{path.parent} lacks {absent[0]}, which {path.name} names ({len(absent)} missing). Copy it again."
        )
    if stray := sorted(entries.keys() - named):
        raise InputError(f"{path} has no row for {stray[0]} ({len(stray)} such records). Add it or remove the file.")
    split_of = {}
    for record in table:
        if split_of.setdefault(record.subject, record.split) != record.split:
            raise InputError(f"{path} has subject {record.subject} in train and in test; expected one split a subject.")


def write_tables(path: Path, table: Sequence[Row], metadata: dict) -> None:
    """Writes `cohort.json`, then `subjects.csv`, whose presence says that the cohort is complete."""
    files.write_json(path / METADATA, metadata)
    with files.replacing(path / TABLE, newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(record) | {"label": int(record.label)} for record in table)


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
