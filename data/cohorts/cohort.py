"""A cohort: rows and the records that belong to them, on one grid, read in batches. `data.cohorts.stored` opens it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from data.base.errors import InputError
from data.base.processes import read_ahead
from data.base.terminal import format_participants
from data.cohorts import duplicates, records
from data.cohorts import rows as rows_of
from data.cohorts.connectomes import Connectomes
from data.cohorts.duplicates import Groups
from data.cohorts.entries import Entry
from data.cohorts.findings import CohortFindings, Verdict, census
from data.cohorts.records import Digests
from data.cohorts.rows import Metadata, Row, known_sites, listed

if TYPE_CHECKING:
    import pandas as pd

    from data.cohorts.phenotype import Scaler

COVARIATES, PHENOTYPE, MAPS = "covariates.csv", "phenotype.csv", "maps.csv"  # of each subject, beside the records
SERIES = "series.csv"  # of each subject with a connectome
LIKENESS, MEANS = "likeness.json", "likeness.npz"  # what those are like whom new people were prepared like
SIDE_TABLES = (COVARIATES, PHENOTYPE, MAPS, SERIES, LIKENESS, MEANS)
UNKNOWN_LABEL = -1  # in a batch
WITHOUT = {  # a split: what to do
    "train": "Train on others: participants whom convert --like made are for tests only.",
    "test": "Convert more participants, or test everybody by run.py with --folds.",
}
Standard = Literal["stored", "brain", "site"]  # see `data.cohorts.variants`


@dataclass(frozen=True)
class Cohort:
    """Records on one grid with one number of maps. `entries[i]` holds the bytes of `rows[i]`, `digests[i]` tells its
    content. `identity` tells cohorts apart: it is the SHA-256 of `SHA256SUMS` or, without tables, over the names and
    digests of all records, which `data.cohorts.stored.sealed` computes."""

    path: Path
    grid: records.Grid
    rows: tuple[Row, ...]
    entries: tuple[Entry, ...]
    metadata: Metadata
    tables: Path | None = None  # the folder of the side tables
    num_maps: int = 1
    digests: tuple[Digests, ...] = ()  # none as long as they are not known
    identity: str = ""
    verdict: Verdict | None = None  # of the check of just this cohort
    groups: Groups = ()  # subjects who share a scan or are of one family, each group in one split
    standard: Standard = "stored"  # of the volumes in `batch`
    moments: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None  # by site: mean and spread (x, y, z, maps)
    kept_in: Path | None = None  # the folder that keeps means of the volumes
    connectomes: Connectomes | None = None  # of all records
    scaled: np.ndarray | None = field(default=None, repr=False, compare=False)  # a `phenotype` in place of the stored
    verified: set[Entry] = field(default_factory=set, repr=False, compare=False)  # in this process

    def __str__(self) -> str:
        subjects = len({row.subject for row in self.rows})
        shape = "x".join(map(str, self.grid.shape))
        maps = f", maps {', '.join(self.maps)}" if self.num_maps > 1 else ""
        of_edges = f", connectomes {self.metadata.connectome}" if self.metadata.connectome else ""
        simulated = ", SIMULATED" if self.simulated else ""
        return (
            f"{self.path}: {len(self.rows)} records of {format_participants(subjects)}, "
            f"{shape}{maps}{of_edges}{simulated}"
        )

    def census(self, fold_of: Mapping[str, str] | None = None) -> CohortFindings:
        """What the cohort is, and its subjects counted; see `findings.census`."""
        found = census(str(self), self.rows, fold_of)
        if leaks := self.metadata.accepted_leaks:
            found.participants.problems.append(
                f"accepted by convert --allowLeak, though they tell the diagnosis: {listed(leaks)}"
            )
        if families := self.metadata.families:
            told = duplicates.counted_families(families, len({row.subject for row in self.rows}))
            found.participants.counts.append(f"families by {self.metadata.family_column}: {told}")
        return found

    def problems(self, fold_of: Mapping[str, str] | None = None, of_labels: bool = True) -> list[str]:
        """What invalidates results, by the census and the stored verdict; a split that folds replace has no part, nor
        have labels and their split unless `of_labels`."""
        own, verdict = self.census().every("problems"), self.verdict
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

    @property
    def side_tables(self) -> dict[str, Path]:
        """Those that are there, by name."""
        paths = {name: self.tables / name for name in SIDE_TABLES} if self.tables else {}
        return {name: path for name, path in paths.items() if path.is_file()}

    @property
    def without_connectomes(self) -> "Cohort":
        """The cohort as if it had none."""
        digests = tuple(replace(of, connectome="") for of in self.digests)
        metadata = replace(self.metadata, connectome="", parcels_sha256="")
        return replace(self, digests=digests, metadata=metadata, connectomes=None)

    def indices(self, split: str) -> np.ndarray:
        """Positions of a split's records. Raises InputError if it has none."""
        found = np.flatnonzero([row.split == split for row in self.rows])
        if not found.size:
            raise InputError(
                f"{self.path} has no {split} participants among {len(self.rows)} records; expected some. "
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
        from data.cohorts.phenotype import read_by_subject  # pandas and scikit-learn, which `--help` can do without

        path, subjects = self.side_tables.get(COVARIATES), list(self.first_records(range(len(self.rows))))
        return read_by_subject(path, subjects) if path else None

    @cached_property
    def raw_phenotype(self) -> "pd.DataFrame | None":
        """`phenotype.csv`: the 29 values (subjects, 29) before imputation and scaling, NaN where unknown, as above."""
        from data.cohorts.phenotype import read_phenotype

        path, subjects = self.side_tables.get(PHENOTYPE), list(self.first_records(range(len(self.rows))))
        return read_phenotype(path, subjects, self.metadata.phenotype) if path else None

    @cached_property
    def phenotype(self) -> np.ndarray:
        """(records, 29) float32: `phenotype.csv`, imputed and scaled by the constants of `cohort.json`; without these,
        as the records hold it. Raises InputError, naming the file."""
        from data.cohorts.phenotype import Scaler

        if self.scaled is not None:
            return self.scaled
        scaler = Scaler.of(self.metadata)
        if PHENOTYPE not in self.side_tables or scaler is None:
            return np.stack([self._stored_phenotype(index) for index in range(len(self.rows))])
        return self.scaled_by(scaler)

    def scaled_by(self, scaler: "Scaler") -> np.ndarray:
        """`phenotype.csv`, imputed and scaled by these constants, (records, 29) float32."""
        assert self.raw_phenotype is not None
        values = self.raw_phenotype.loc[[row.subject for row in self.rows]]
        return scaler.transform(values.to_numpy()).astype(records.DTYPE)

    def _stored_phenotype(self, index: int) -> np.ndarray:
        entry = self.entries[index]
        header = entry.read(records.HEADER_BYTES)
        if self.digests and self.digests[index].header:
            records.check_digest(header, self.digests[index].header, str(entry), "label and phenotype")
        return records.unpack_header(header, str(entry))[1]

    def first_records(self, indices: Iterable[int]) -> dict[str, int]:
        """Subjects in the order of their first records among these positions, with its position."""
        first: dict[str, int] = {}
        for index in indices:
            first.setdefault(self.rows[index].subject, index)
        return first

    def relabelled(self, label: Mapping[str, float]) -> "Cohort":
        """The cohort with other labels of some subjects, in all their records."""
        return replace(self, rows=tuple(replace(row, label=label.get(row.subject, row.label)) for row in self.rows))

    def volume(self, index: int) -> np.ndarray:
        """The volume (x, y, z, maps) float32 of one record as it is stored, verified when it is first read. Raises
        InputError, naming the file."""
        entry = self.entries[index]
        content = entry.read()
        volume = records.unpack_volume(content, self.grid, self.num_maps, str(entry))
        if self.digests and entry not in self.verified:
            stored = memoryview(content)[records.HEADER_BYTES :]
            records.check_digest(stored, self.digests[index].volume, str(entry), "volume")
            self.verified.add(entry)
        return volume

    def record(self, index: int, volume: bytes | None = None) -> bytes:
        """The bytes of one record with label and phenotype as they are now; with another `volume`, if one is given, in
        the order in which records hold it."""
        header = records.pack_header(self.rows[index].label, self.phenotype[index])
        return header + (records.stored(self.volume(index)) if volume is None else volume)

    @property
    def known_digests(self) -> dict[str, Digests]:
        """The digests of the records by file, as far as they are known."""
        return dict(zip((row.file for row in self.rows), self.digests, strict=False))

    def scans(self, split: str | None = None) -> dict[str, set[str]]:
        """By subject, the scans of a split's records, or of all, see `Digests.scans`: they tell people whatever their
        names. None as long as digests are not known."""
        found: dict[str, set[str]] = {row.subject: set() for row in self.rows if split in (None, row.split)}
        for row, digests in zip(self.rows, self.digests, strict=False):
            if row.subject in found:
                found[row.subject] |= digests.scans
        return found

    def scans_sha256(self, split: str | None = None) -> str:
        """SHA-256 over the scans of a split, or of all, which tells who is in it, whatever the names."""
        return records.digest_of("".join(sorted(set().union(*self.scans(split).values()))).encode())

    def batch(
        self,
        indices: Sequence[int] | np.ndarray,
        volumes: bool = True,
        tables: Mapping[str, Any] = MappingProxyType({}),
    ) -> dict[str, np.ndarray]:
        """`label` (n,) int32, -1 if unknown; `phenotype` (n, 29) and, if `volumes`, `volume` (n, x, y, z, maps), both
        float32; volumes are standardised as `standard` says. Of `tables` of all records, by name, the rows of these."""
        label = np.nan_to_num([self.rows[index].label for index in indices], nan=UNKNOWN_LABEL).astype(np.int32)
        batch = {"label": label, "phenotype": self.phenotype[np.asarray(indices, int)]}
        if volumes:
            batch["volume"] = np.empty((len(indices), *self.grid.shape, self.num_maps), np.float32)
            for row, index in enumerate(indices):
                batch["volume"][row] = self._standardised(index)
        return batch | {name: np.ascontiguousarray(table[indices]) for name, table in tables.items()}

    def _standardised(self, index: int) -> np.ndarray:
        """The volume (x, y, z, maps) of one record as `standard` says."""
        volume = self.volume(index) if self.standard == "stored" else records.within_brain(self.volume(index))
        if self.moments:
            mean, spread = self.moments[self.rows[index].site]
            volume = (volume - mean) / spread
        return volume

    def batches(
        self, selections: Iterable[np.ndarray], volumes: bool = True, tables: Mapping[str, Any] = MappingProxyType({})
    ) -> Iterator[dict[str, np.ndarray]]:
        """The batch of each selection of records, read ahead in other threads."""
        return read_ahead(partial(self.batch, volumes=volumes, tables=tables), selections)


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
