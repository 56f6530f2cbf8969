"""A cohort: rows and the records that belong to them, on one grid, read in batches. `data.cohorts.stored` opens it."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from data.base.errors import InputError
from data.base.processes import ahead
from data.cohorts import duplicates, records
from data.cohorts import rows as rows_of
from data.cohorts import seal as seal_of
from data.cohorts.connectomes import Connectomes
from data.cohorts.duplicates import Groups
from data.cohorts.rows import Metadata, Row, known_sites, listed
from data.cohorts.seal import CohortFindings, Seal

if TYPE_CHECKING:
    import pandas as pd

COVARIATES, PHENOTYPE, MAPS = "covariates.csv", "phenotype.csv", "maps.csv"  # of each subject, beside the records
SERIES = "series.csv"  # of each subject with a connectome
SIDE_TABLES = (COVARIATES, PHENOTYPE, MAPS, SERIES)
UNKNOWN_LABEL = -1  # in a batch
WITHOUT = {  # a split: what to do
    "train": "Train on others: people whom convert --like made are for tests only.",
    "test": "Convert more people, or test everybody by run.py with --folds.",
}
Standard = Literal["stored", "brain", "site"]  # see `data.cohorts.variants`


@dataclass(frozen=True)
class Cohort:
    """Records on one grid with one number of maps; `entries[i]` holds the bytes of `rows[i]`, `seal.digests[i]` tells
    its content."""

    path: Path
    grid: records.Grid
    rows: tuple[Row, ...]
    entries: tuple[records.Entry, ...]
    metadata: Metadata
    tables: Path | None = None  # the folder of the side tables
    num_maps: int = 1
    seal: Seal = field(default_factory=Seal)
    groups: Groups = ()  # subjects who share a scan or are of one family, each group in one split
    standard: Standard = "stored"  # of the volumes in `batch`
    moments: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None  # by site: mean and spread (x, y, z, maps)
    kept_in: Path | None = None  # the folder that keeps means of the volumes
    connectomes: Connectomes | None = None  # of all records

    def __str__(self) -> str:
        subjects = len({row.subject for row in self.rows})
        shape = "x".join(map(str, self.grid.shape))
        maps = f", maps {', '.join(self.maps)}" if self.num_maps > 1 else ""
        of_edges = f", connectomes {self.metadata.connectome}" if self.metadata.connectome else ""
        simulated = ", SIMULATED" if self.simulated else ""
        return f"{self.path}: {len(self.rows)} records of {subjects} subjects, {shape}{maps}{of_edges}{simulated}"

    def census(self, fold_of: Mapping[str, str] | None = None) -> CohortFindings:
        """What the cohort is, and its subjects counted; see `seal.census`."""
        found = seal_of.census(str(self), self.rows, fold_of)
        if leaks := self.metadata.accepted_leaks:
            found.people.problems.append(
                f"accepted by convert --allowLeak, though they tell the diagnosis: {listed(leaks)}"
            )
        if families := self.metadata.families:
            told = duplicates.counted_families(families, len({row.subject for row in self.rows}))
            found.people.counts.append(f"families by {self.metadata.family_column}: {told}")
        return found

    def problems(self, fold_of: Mapping[str, str] | None = None, of_labels: bool = True) -> list[str]:
        """What invalidates results, by the census and the stored verdict; a split that folds replace has no part, nor
        have labels and their split unless `of_labels`."""
        own, verdict = self.census().every("problems"), self.seal.verdict
        now = self.census(fold_of).every("problems") if fold_of else own
        found = dict.fromkeys([*now, *(text for text in (verdict.problems if verdict else ()) if text not in own)])
        return [text for text in found if of_labels or text not in own]

    @property
    def simulated(self) -> bool:
        return self.metadata.simulated

    @property
    def unknown_site(self) -> bool:
        """Whether nobody's site is known."""
        return not known_sites(row.site for row in self.rows)

    @property
    def maps(self) -> tuple[str, ...]:
        """The names of the maps, in the order of records; those of a bare folder are called 1, 2, ..."""
        return self.metadata.maps or tuple(str(number) for number in range(1, self.num_maps + 1))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the table of records and the metadata but for commands; tells cohorts apart without reading
        volumes."""
        several = [self.num_maps] if self.num_maps > 1 else []
        content = [self.grid.name, list(map(astuple, self.rows)), self.metadata.decisive(), *several]
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def records_sha256(self) -> str:
        """SHA-256 over what the records hold, as they are stored; tells cohorts apart that have the same tables."""
        every = (f"{of.header}{of.volume}{of.source}{of.connectome}" for of in self.seal.digests)
        return hashlib.sha256("".join(every).encode()).hexdigest()

    @property
    def side_tables(self) -> dict[str, Path]:
        """Those that are there, by name."""
        paths = {name: self.tables / name for name in SIDE_TABLES} if self.tables else {}
        return {name: path for name, path in paths.items() if path.is_file()}

    @property
    def paths(self) -> set[Path]:
        """The files that hold the records, and their connectomes."""
        return {entry.path for entry in self.entries} | ({self.connectomes.path} if self.connectomes else set())

    @property
    def file_names(self) -> list[str]:
        """`paths` from the folder of the cohort."""
        return sorted(str(path.relative_to(self.path)) for path in self.paths)

    @property
    def without_connectomes(self) -> "Cohort":
        """The cohort as if it had none."""
        seal = replace(self.seal, digests=tuple(replace(of, connectome="") for of in self.seal.digests))
        metadata = replace(self.metadata, connectome="", parcels_sha256="")
        return replace(self, seal=seal, metadata=metadata, connectomes=None)

    def indices(self, split: str) -> np.ndarray:
        """Positions of a split's records. Raises InputError if it has none."""
        found = np.flatnonzero([row.split == split for row in self.rows])
        if not found.size:
            raise InputError(
                f"{self.path} has no {split} subjects among {len(self.rows)} records; expected some. "
                f"{WITHOUT.get(split, '')}"
            )
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
        """`phenotype.csv`: the 29 values (subjects, 29) before imputation and scaling, NaN where unknown, as above.
        Raises InputError if they are not those that the records hold."""
        return self._side_table(PHENOTYPE)

    def _side_table(self, name: str) -> "pd.DataFrame | None":
        """A table by subject, in the order of their first records."""
        if self.tables is None or not (self.tables / name).is_file():
            return None
        from data.cohorts.phenotype import check_scaled, read_by_subject, read_phenotype

        path, first = self.tables / name, self.first_records(range(len(self.rows)))
        if name != PHENOTYPE:
            return read_by_subject(path, list(first))
        values = read_phenotype(path, list(first), self.metadata.phenotype)
        headers = [np.frombuffer(self.header(index), records.DTYPE)[1:] for index in first.values()]
        check_scaled(path, values, np.stack(headers), self.metadata)
        return values

    def first_records(self, indices: Iterable[int]) -> dict[str, int]:
        """Subjects in the order of their first records among these positions, with its position."""
        first: dict[str, int] = {}
        for index in indices:
            first.setdefault(self.rows[index].subject, index)
        return first

    def relabelled(self, label: Mapping[str, float]) -> "Cohort":
        """The cohort with other labels of some subjects, in all their records."""
        return replace(self, rows=tuple(replace(row, label=label.get(row.subject, row.label)) for row in self.rows))

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

    def scans(self, split: str | None = None) -> dict[str, set[str]]:
        """By subject, the scans of a split's records, or of all, see `Digests.scans`: they tell people whatever their
        names. None as long as digests are not known."""
        found: dict[str, set[str]] = {row.subject: set() for row in self.rows if split in (None, row.split)}
        for row, digests in zip(self.rows, self.seal.digests, strict=False):
            if row.subject in found:
                found[row.subject] |= digests.scans
        return found

    def origins(self, encoded: bool = False) -> dict[str, records.Origin]:
        """The digests, by file, of the volumes that an encoder reduced to these; if these are what it reads, to be
        `encoded`, their own."""
        known = zip(self.rows, self.seal.digests, strict=False)  # of which there may be none
        return {row.file: (of.volume, of.maps) if encoded and not of.source else of.origin for row, of in known}

    def keep_digests(self, folder: Path) -> None:
        """Writes the digests beside what a run writes, if the cohort has no table of them."""
        if self.seal.computed:
            seal_of.write_digests(folder, self._digests)

    def changed_since(self, folder: Path) -> list[str]:
        """Which of the records, by file, are others than those whose digests an earlier run kept in `folder`."""
        before = seal_of.read_digests(folder) or {}
        return [name for name, now in self._digests.items() if before.get(name, now) != now]

    @property
    def _digests(self) -> dict[str, records.Digests]:
        return dict(zip((row.file for row in self.rows), self.seal.digests, strict=True))

    def batch(
        self,
        indices: Sequence[int] | np.ndarray,
        volumes: bool = True,
        tables: Mapping[str, Any] = MappingProxyType({}),
    ) -> dict[str, np.ndarray]:
        """`label` (n,) int32, -1 if unknown; `phenotype` (n, 29) and, if `volumes`, `volume` (n, x, y, z, maps), both
        float32; volumes are standardised as `standard` says. Of `tables` of all records, by name, the rows of these;
        records of which only means are read are verified if their files have changed."""
        label = np.nan_to_num([self.rows[index].label for index in indices], nan=UNKNOWN_LABEL).astype(np.int32)
        phenotype = np.empty((len(indices), records.PHENOTYPE_SIZE), np.float32)
        batch, of_means = {"label": label, "phenotype": phenotype}, set(map(type, tables.values())) - {Connectomes}
        if volumes:
            batch["volume"] = np.empty((len(indices), *self.grid.shape, self.num_maps), np.float32)
        for row, index in enumerate(indices):
            if volumes:
                phenotype[row], batch["volume"][row] = self._standardised(index)
                continue
            phenotype[row] = np.frombuffer(self.header(index), records.DTYPE)[1:]
            if of_means:
                records.verifier_of(self.entries[index]).confirm()
        return batch | {name: np.ascontiguousarray(table[indices]) for name, table in tables.items()}

    def _standardised(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Phenotype (29,) and volume (x, y, z, maps) of one record, the volume as `standard` says."""
        _, phenotype, volume = self.read(index)
        volume = volume if self.standard == "stored" else records.within_brain(volume)
        if self.moments:
            mean, spread = self.moments[self.rows[index].site]
            volume = (volume - mean) / spread
        return phenotype, volume

    def batches(
        self, selections: Iterable[np.ndarray], volumes: bool = True, tables: Mapping[str, Any] = MappingProxyType({})
    ) -> Iterator[dict[str, np.ndarray]]:
        """The batch of each selection of records, read ahead in other threads."""
        return ahead(partial(self.batch, volumes=volumes, tables=tables), selections)


def in_order(indices: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """`indices` cut into batches; the last may be smaller."""
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]


def in_one_folder(cohort: Cohort) -> Cohort:
    """The cohort with its records named as files of one folder. Raises InputError if two names collide there."""
    return replace(cohort, rows=rows_of.flattened(cohort.rows, cohort.path))


class Moments:
    """Mean and spread of values that come in batches, (n, ...) each."""

    def __init__(self) -> None:
        self.count, self.mean, self._squares = 0, np.zeros(()), np.zeros(())

    def add(self, values: np.ndarray) -> None:
        """Adds a batch by the stable update of Chan et al. (1979)."""
        values = np.asarray(values, np.float64)
        mean, total = values.mean(0), self.count + len(values)
        difference = mean - self.mean
        self._squares = self._squares + np.square(values - mean).sum(0)
        self._squares = self._squares + np.square(difference) * (self.count * len(values) / total)
        self.mean, self.count = self.mean + difference * (len(values) / total), total

    @property
    def spread(self) -> np.ndarray:
        """The standard deviation; 1 where values do not vary, so that they are only centred."""
        spread = np.sqrt(self._squares / self.count)
        return np.where(spread > records.SMALLEST_SPREAD, spread, 1)
