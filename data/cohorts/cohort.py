"""The one loader: any form of --dataDir -> a Cohort that reads batches.

Forms: a cohort (records with `cohort.json` and `subjects.csv`), a bare folder of `.bin` files or zip chunks, a JSON
list of record paths, an HDF5 file. Sizes and labels are checked when it is opened, values as records are read.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from data import grids
from data.base import files, sums
from data.base.errors import InputError
from data.cohorts import entries as entries_of
from data.cohorts import records
from data.cohorts import rows as rows_of
from data.cohorts.rows import METADATA, TABLE, Metadata, Row

if TYPE_CHECKING:
    import pandas as pd

FOLDS = "folds.json"  # of a set of cohorts, one a fold
COVARIATES, PHENOTYPE, MAPS = "covariates.csv", "phenotype.csv", "maps.csv"  # of each subject, beside the records
UNKNOWN_LABEL = -1  # in a batch
READ_AHEAD = 2  # batches
Standard = Literal["stored", "brain", "voxel", "site"]  # see `data.cohorts.standards`


@dataclass(frozen=True)
class Cohort:
    """Records on one grid with one number of maps; `entries[i]` holds the bytes of `rows[i]`."""

    path: Path
    grid: grids.Grid
    rows: tuple[Row, ...]
    entries: tuple["entries_of.Entry", ...]
    metadata: Metadata
    tables: Path | None = None  # the folder of the side tables
    num_maps: int = 1
    standard: Standard = "stored"  # of the volumes in `batch`
    moments: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None  # by site: mean and spread (x, y, z, maps)

    def __str__(self) -> str:
        subjects = len({row.subject for row in self.rows})
        shape = "x".join(map(str, self.grid.shape))
        maps = f", maps {', '.join(self.maps)}" if self.num_maps > 1 else ""
        simulated = ", SIMULATED" if self.simulated else ""
        return f"{self.path}: {len(self.rows)} records of {subjects} subjects, {shape}{maps}{simulated}"

    def census(self, fold_of: Mapping[str, str] | None = None) -> rows_of.Findings:
        """What the cohort is, and its subjects counted; see `rows.census`."""
        found = rows_of.census(self.rows, fold_of)
        found.counts.insert(0, str(self))
        return found

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
        several = [self.num_maps] if self.num_maps > 1 else []
        content = [self.grid.name, list(map(astuple, self.rows)), self.metadata.json(), *several]
        text = json.dumps(content, sort_keys=True)
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
        """A split's subjects, sorted."""
        return sorted({row.subject for row in self.rows if row.split == split})

    def unswapped(self) -> list[int]:
        """Positions of the records that are of one person each: all but those whose regions were swapped."""
        swapped = any("swap" in source for source in self.metadata.lineage)
        return [at for at, row in enumerate(self.rows) if not (swapped and rows_of.is_swapped(row.file))]

    @cached_property
    def covariates(self) -> "pd.DataFrame | None":
        """`covariates.csv`: text by subject, in the order of `rows`; None if there is none. Raises InputError."""
        return self._side_table(COVARIATES)

    @cached_property
    def raw_phenotype(self) -> "pd.DataFrame | None":
        """`phenotype.csv`: the 29 values (subjects, 29) before imputation and scaling, NaN where unknown, as above."""
        return self._side_table(PHENOTYPE)

    def _side_table(self, name: str) -> "pd.DataFrame | None":
        """A table by subject, in the order of their first records."""
        if self.tables is None or not (self.tables / name).is_file():
            return None
        from data.cohorts.side_tables import read, read_phenotype

        path, subjects = self.tables / name, list(dict.fromkeys(row.subject for row in self.rows))
        return read_phenotype(path, subjects, self.metadata.phenotype) if name == PHENOTYPE else read(path, subjects)

    def resplit(self, split: Mapping[str, str]) -> "Cohort":
        """The cohort with another split, subject -> train or test; the phenotype is scaled on its training subjects, or
        stays if there is no `phenotype.csv`. Raises InputError for a subject without a split, a training subject of
        unknown label, subjects of one scan in both splits, and if nobody is left to train on."""
        if absent := {row.subject for row in self.rows} - split.keys():
            raise InputError(f"The split lacks {len(absent)} subjects of {self.path}, such as {min(absent)}; add them.")
        if parted := [
            group for group in self.metadata.same_scan if len({split.get(one) for one in group} - {None}) > 1
        ]:
            raise InputError(
                f"The split parts {' and '.join(parted[0])} of {self.path}, who share a scan; keep them together."
            )
        rows = (rows_of.checked(str(self.path), replace(row, split=split[row.subject])) for row in self.rows)
        cohort = replace(self, rows=tuple(rows), metadata=replace(self.metadata, phenotype_auc={}))
        cohort.indices("train")
        if (raw := self.raw_phenotype) is None:
            return cohort
        from data.cohorts.phenotype import fit_scaler

        training = set(cohort.subjects("train"))
        scaler = fit_scaler(raw[[subject in training for subject in raw.index]].to_numpy())
        scaled = dict(zip(raw.index, scaler.transform(raw.to_numpy()).astype(records.DTYPE), strict=True))
        entries = tuple(
            entries_of.RefittedEntry(entry, scaled[row.subject].tobytes())
            for row, entry in zip(cohort.rows, cohort.entries, strict=True)
        )
        return replace(cohort, entries=entries, metadata=replace(cohort.metadata, **scaler.constants()))

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
        """The beginning of the SHA-256 of a record's volume: it identifies a scan whatever its subject is called."""
        return hashlib.sha256(memoryview(self.entries[index].read())[records.HEADER_BYTES :]).hexdigest()[:16]

    def batch(self, indices: Sequence[int] | np.ndarray, volumes: bool = True) -> dict[str, np.ndarray]:
        """`label` (n,) int32, -1 if unknown; `phenotype` (n, 29) and, if `volumes`, `volume` (n, x, y, z, maps), both
        float32; volumes are standardised as `standard` says."""
        label = np.nan_to_num([self.rows[index].label for index in indices], nan=UNKNOWN_LABEL).astype(np.int32)
        phenotype = np.empty((len(indices), records.PHENOTYPE_SIZE), np.float32)
        if not volumes:
            for row, index in enumerate(indices):
                phenotype[row] = np.frombuffer(self.header(index), records.DTYPE)[1:]
            return {"label": label, "phenotype": phenotype}
        volume = np.empty((len(indices), *self.grid.shape, self.num_maps), np.float32)
        for row, index in enumerate(indices):
            _, phenotype[row], values = self.read(index)
            volume[row] = values if self.standard == "stored" else records.within_brain(values)
            if self.moments:
                mean, spread = self.moments[self.rows[index].site]
                volume[row] = (volume[row] - mean) / spread
        return {"label": label, "phenotype": phenotype, "volume": volume}

    def batches(self, selections: Iterable[np.ndarray], volumes: bool = True) -> Iterator[dict[str, np.ndarray]]:
        """The batch of each selection of records, read ahead in other threads."""
        return ahead(partial(self.batch, volumes=volumes), selections)


def ahead(read: Callable[[Any], Any], arguments: Iterable) -> Iterator[Any]:
    """`map(read, arguments)`, a few results ahead, each in another thread."""
    from collections import deque
    from concurrent.futures import Future, ThreadPoolExecutor

    waiting: deque[Future] = deque()
    with ThreadPoolExecutor(READ_AHEAD) as pool:
        for argument in arguments:
            waiting.append(pool.submit(read, argument))
            if len(waiting) > READ_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def in_order(indices: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """`indices` cut into batches; the last may be smaller."""
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]


def open_cohort(path: Path) -> Cohort:
    """Opens any form of --dataDir. Raises InputError, naming the path, for what cannot be trained or tested on."""
    entries, table, metadata = read_form(path)
    found: dict[tuple[grids.Grid, int], entries_of.Entry] = {}
    for entry in entries.values():
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
    if metadata.maps and len(metadata.maps) != num_maps:
        raise InputError(
            f"{path} names {len(metadata.maps)} maps ({', '.join(metadata.maps)}), its records hold {num_maps}. "
            "Convert again."
        )
    of_row = tuple(entries[row.file] for row in table)
    folder = path.parent if path.name == entries_of.HDF5_NAME and path.is_file() else path
    has_tables = (folder / METADATA).is_file() or (folder / entries_of.HDF5_NAME).is_file()
    return Cohort(path, grid, tuple(table), of_row, metadata, folder if has_tables else None, num_maps)


def carry_tables(source: Cohort, target: Path) -> None:
    """Copies a cohort's side tables byte by byte into the folder of another one, which holds the same subjects."""
    for name in (COVARIATES, PHENOTYPE, MAPS):
        if source.tables and (source.tables / name).is_file():
            shutil.copyfile(source.tables / name, target / name)


def in_one_folder(cohort: Cohort) -> Cohort:
    """The cohort with its records named as files of one folder. Raises InputError if two names collide there."""
    return replace(cohort, rows=rows_of.flattened(cohort.rows, cohort.path))


def read_form(path: Path) -> tuple[Mapping[str, "entries_of.Entry"], list[Row], Metadata]:
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
        entries: Mapping[str, entries_of.Entry] = folder_entries(path)
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
        return entries, [rows_of.guess_row(name, label) for name, label in labels.items()], Metadata()
    metadata, table = rows_of.read_metadata(path), rows_of.read_table(path / TABLE)
    rows_of.match_table(path / TABLE, table, entries)
    for row in table:
        if row.label != labels[row.file] and (row.known or labels[row.file] == labels[row.file]):
            raise InputError(
                f"{entries[row.file]} has the label {labels[row.file]:g}, the table says {row.label:g}. Convert again."
            )
    return entries, table, metadata


def folder_entries(folder: Path) -> dict[str, "entries_of.Entry"]:
    """The records of a folder by file or member name, sorted."""
    entries: dict[str, entries_of.Entry] = {}
    for path, zipped in records.record_files(folder):
        records.check_plain(folder, path.name)
        one: Mapping[str, entries_of.Entry] = {path.name: records.FileEntry(path)}
        found = entries_of.zip_entries(path) if zipped else one
        if twice := entries.keys() & found.keys():
            raise InputError(f"{path} and {entries[min(twice)]} are the same record; expected each once. Remove one.")
        entries.update(found)
    return dict(sorted(entries.items()))


def labels_of(entries: Mapping[str, "entries_of.Entry"], unknown: bool) -> dict[str, float]:
    """Each record's label. Raises InputError, naming the record, unless it is 0.0, 1.0, or NaN if `unknown`."""
    return {
        name: records.header_label(entry.read(records.DTYPE.itemsize), str(entry), unknown)
        for name, entry in entries.items()
    }


def read_hdf5(path: Path) -> tuple[Mapping[str, "entries_of.Entry"], list[Row], Metadata]:
    """`read_form` of an HDF5 file, which holds its table itself."""
    entries, texts, text = entries_of.hdf5_store(path)
    labels = labels_of(entries, unknown=True)
    cells = zip(labels, texts["subject"], texts["site"], labels.values(), texts["split"], strict=True)
    table = [rows_of.checked(f"{path} row {number}", Row(*row)) for number, row in enumerate(cells)]
    rows_of.match_table(path, table, entries)
    try:
        metadata = files.typed(text, Metadata)
    except ValueError as error:
        raise InputError(f"{path} has damaged metadata ({error}); expected a cohort's. Pack it again.") from error
    return entries, table, metadata


def write_tables(path: Path, table: Sequence[Row], metadata: Metadata) -> None:
    """Writes `cohort.json`, the sums of the records, then `subjects.csv`, which shows that the cohort is complete."""
    files.write_json(path / METADATA, metadata.json())
    sums.write_sums(path, [file.name for file, _ in records.record_files(path)])
    rows_of.write_table(path / TABLE, table)
