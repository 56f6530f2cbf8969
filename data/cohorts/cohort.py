"""A cohort: rows and the records that belong to them, on one grid, read in batches. `data.cohorts.stored` opens it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from data.base.errors import InputError
from data.base.listing import join_names
from data.base.processes import read_ahead
from data.base.terminal import format_participants
from data.cohorts import groups as subject_groups
from data.cohorts import records
from data.cohorts import rows as cohort_rows
from data.cohorts.connectomes import Connectomes
from data.cohorts.entries import RecordEntry
from data.cohorts.findings import CheckVerdict, CohortFindings, make_census
from data.cohorts.groups import SubjectGroups
from data.cohorts.metadata import Metadata
from data.cohorts.problems import Problem
from data.cohorts.records import Digests
from data.cohorts.rows import RecordRow
from data.images import brain, grids
from data.tables.vocabulary import find_recorded_sites

if TYPE_CHECKING:
    import pandas as pd

    from data.cohorts.scaling import Scaler

COVARIATES_FILE = "covariates.csv"
PHENOTYPE_FILE = "phenotype.csv"
MAP_MEASURES_FILE = "maps.csv"  # of each subject, beside the records
SERIES_FILE = "series.csv"  # of each subject with a connectome
LIKENESS_FILE = "likeness.json"
LIKENESS_MEANS_FILE = "likeness.npz"  # the training people whom new people were prepared like
SIDE_TABLE_FILES = (COVARIATES_FILE, PHENOTYPE_FILE, MAP_MEASURES_FILE, SERIES_FILE, LIKENESS_FILE, LIKENESS_MEANS_FILE)
UNKNOWN_LABEL = -1  # in a batch
ADVICE_BY_EMPTY_SPLIT = {  # a split: what to do
    "train": "Train on others: participants whom convert --like made are for tests only.",
    "test": "Convert more participants, or test everybody by run.py with --folds.",
}
VolumeStandard = Literal["stored", "brain", "site"]  # see `data.cohorts.variants`


@dataclass(frozen=True)
class ControlLabels:
    """What the labels of a control were before `seed` permuted them."""

    seed: int
    true_label_by_subject: Mapping[str, float]


@dataclass(frozen=True)
class Cohort:
    """Records on one grid with one number of maps; without maps there are rows and tables, and no records. `entries[i]`
    holds the bytes of `rows[i]`, `digests[i]` are the SHA-256 of its content. `identity` tells cohorts apart: it is the
    SHA-256 of `SHA256SUMS` or, without tables, over the names and digests of all records, which
    `data.cohorts.stored.open_run_cohort` computes."""

    path: Path
    record_grid: grids.Grid | None  # None without maps
    rows: tuple[RecordRow, ...]
    entries: tuple[RecordEntry, ...]  # where the bytes of `rows[i]` lie; empty without maps
    metadata: Metadata
    tables_folder: Path | None = None  # the folder of the side tables
    num_maps: int = 1  # of each record; 0 without maps
    digests: tuple[Digests, ...] = ()  # none as long as they are not known
    identity: str = ""  # a SHA-256 that tells cohorts apart
    check_verdict: CheckVerdict | None = None  # of the check of just this cohort
    groups: SubjectGroups = ()  # subjects who share a scan or are of one family, each group in one split
    standard: VolumeStandard = "stored"  # of the volumes in `make_batch`
    # by site: mean and spread (x, y, z, maps)
    moments_by_site: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None
    means_folder: Path | None = None  # the folder that keeps means of the volumes
    connectomes: Connectomes | None = None  # of all records
    control: ControlLabels | None = None  # if the labels are permuted ones
    # (records, 29)
    scaled_phenotype: np.ndarray | None = field(
        default=None, repr=False, compare=False
    )  # replaces the stored `phenotype`
    verified_entries: set[RecordEntry] = field(default_factory=set, repr=False, compare=False)  # in this process

    def __str__(self) -> str:
        subject_count = len({row.subject for row in self.rows})
        content_text = format_participants(subject_count)
        if self.record_grid:
            content_text = f"{len(self.rows)} records of {content_text}, {self.record_grid}"
        maps_text = f", maps {', '.join(self.map_names)}" if self.num_maps > 1 else ""
        connectomes_text = f", connectomes {self.metadata.connectome}" if self.metadata.connectome else ""
        simulated_text = ", SIMULATED" if self.is_simulated else ""
        return f"{self.path}: {content_text}{maps_text}{connectomes_text}{simulated_text}"

    def take_census(self, fold_by_subject: Mapping[str, str] | None = None) -> CohortFindings:
        """What the cohort is, and its subjects counted; see `findings.make_census`."""
        findings = make_census(str(self), self.rows, fold_by_subject)
        if accepted_leaks := self.metadata.accepted_leaks:
            problem_text = (
                f"accepted by convert --allowLeak, though they tell the diagnosis: {join_names(accepted_leaks)}"
            )
            findings.participants.problems.append(Problem(f"leaks-accepted: {', '.join(accepted_leaks)}", problem_text))
        if members_by_family := self.metadata.families:
            families_text = subject_groups.format_family_counts(
                members_by_family, len({row.subject for row in self.rows})
            )
            findings.participants.counts.append(f"families by {self.metadata.family_column}: {families_text}")
        return findings

    def find_problems(
        self, fold_by_subject: Mapping[str, str] | None = None, include_label_problems: bool = True
    ) -> list[Problem]:
        """What invalidates results, by the census and the stored verdict. With `fold_by_subject`, these folds replace
        the split. Without `include_label_problems`, problems of labels and their split, which the census finds, are
        left out."""
        split_census_problems = self.take_census().problems
        split_census_codes = {problem.code for problem in split_census_problems}
        census_problems = self.take_census(fold_by_subject).problems if fold_by_subject else split_census_problems

        # The verdict repeats what the census by split found, which folds may have replaced
        verdict_problems = self.check_verdict.problems if self.check_verdict else ()
        further_problems = [problem for problem in verdict_problems if problem.code not in split_census_codes]
        distinct_problems = dict.fromkeys([*census_problems, *further_problems])
        return [
            problem for problem in distinct_problems if include_label_problems or problem.code not in split_census_codes
        ]

    @property
    def is_simulated(self) -> bool:
        return self.metadata.simulated

    @property
    def is_site_unknown(self) -> bool:
        """Whether nobody's site is known."""
        return not find_recorded_sites(row.site for row in self.rows)

    @property
    def grid(self) -> grids.Grid:
        """The grid of the records. Raises InputError for a cohort without maps."""
        if self.record_grid is None:
            raise InputError(
                f"{self.path} has no maps, which this reads; expected a cohort with maps. Make one by abide-data "
                "convert --maps NAMES, or use what needs none."
            )
        return self.record_grid

    @property
    def region_grid(self) -> grids.Grid:
        """The grid of regions: that of the maps, or without maps the full one, on which images of parcels are."""
        return self.record_grid or grids.FULL

    @property
    def map_names(self) -> tuple[str, ...]:
        """The names of the maps, in the order of records; those of a bare folder are called 1, 2, ..."""
        return self.metadata.maps or tuple(str(map_number) for map_number in range(1, self.num_maps + 1))

    @property
    def side_table_path_by_name(self) -> dict[str, Path]:
        """The paths of the side tables that exist, by name."""
        if self.tables_folder is None:
            return {}
        possible_path_by_name = {table_name: self.tables_folder / table_name for table_name in SIDE_TABLE_FILES}
        return {
            table_name: table_path for table_name, table_path in possible_path_by_name.items() if table_path.is_file()
        }

    @property
    def without_connectomes(self) -> "Cohort":
        """The cohort as if it had none."""
        digests_without_connectome = tuple(replace(record_digests, connectome="") for record_digests in self.digests)
        metadata = replace(self.metadata, connectome="", parcels_sha256="")
        return replace(self, digests=digests_without_connectome, metadata=metadata, connectomes=None)

    @property
    def without_maps(self) -> "Cohort":
        """The cohort as if it had none."""
        metadata = replace(self.metadata, maps=(), grid=())
        # Without tables, the records hold the phenotype, too
        scaled_phenotype = self.phenotype if self.tables_folder is None else self.scaled_phenotype
        return replace(
            self, record_grid=None, entries=(), num_maps=0, metadata=metadata, scaled_phenotype=scaled_phenotype
        )

    def find_split_record_indices(self, split: str) -> np.ndarray:
        """Positions of a split's records. Raises InputError if it has none."""
        record_indices = np.flatnonzero([row.split == split for row in self.rows])
        if not record_indices.size:
            raise InputError(
                f"{self.path} has no {split} participants among {len(self.rows)} records; expected some. "
                f"{ADVICE_BY_EMPTY_SPLIT.get(split, '')}"
            )
        return record_indices

    def list_split_subjects(self, split: str) -> list[str]:
        """A split's subjects, sorted."""
        return sorted({row.subject for row in self.rows if row.split == split})

    def find_unswapped_record_indices(self) -> list[int]:
        """Positions of the records that are of one person each: all but those whose regions were swapped."""
        has_swaps = any("swap" in provenance_fields for provenance_fields in self.metadata.lineage)
        return [
            index for index, row in enumerate(self.rows) if not (has_swaps and cohort_rows.is_swapped_file(row.file))
        ]

    @cached_property
    def covariates(self) -> "pd.DataFrame | None":
        """`covariates.csv`: text by subject, in the order of `rows`; None if there is none. Raises InputError."""
        from data.tables.phenotype import read_subject_table  # pandas and scikit-learn, which `--help` can do without

        covariates_path = self.side_table_path_by_name.get(COVARIATES_FILE)
        if covariates_path is None:
            return None
        subjects = list(self.find_first_record_indices(range(len(self.rows))))
        return read_subject_table(covariates_path, subjects)

    @cached_property
    def unscaled_phenotype(self) -> "pd.DataFrame | None":
        """`phenotype.csv`: the 29 values (subjects, 29) before imputation and scaling, NaN where unknown, in the order
        of `rows`; None if there is none. Raises InputError."""
        from data.tables.phenotype import read_phenotype

        phenotype_path = self.side_table_path_by_name.get(PHENOTYPE_FILE)
        if phenotype_path is None:
            return None
        subjects = list(self.find_first_record_indices(range(len(self.rows))))
        return read_phenotype(phenotype_path, subjects, self.metadata.phenotype)

    @cached_property
    def phenotype(self) -> np.ndarray:
        """(records, 29) float32: `phenotype.csv`, imputed and scaled by the constants of `cohort.json`; without these,
        as the records hold it. Raises InputError, naming the file."""
        from data.cohorts.scaling import Scaler

        if self.scaled_phenotype is not None:
            return self.scaled_phenotype
        scaler = Scaler.from_preparation(self.metadata)
        if PHENOTYPE_FILE not in self.side_table_path_by_name or scaler is None:
            return np.stack([self._read_stored_phenotype(index) for index in range(len(self.rows))])
        return self.scale_phenotype(scaler)

    def scale_phenotype(self, scaler: "Scaler") -> np.ndarray:
        """`phenotype.csv`, imputed and scaled by these constants, (records, 29) float32."""
        assert self.unscaled_phenotype is not None
        raw_values = self.unscaled_phenotype.loc[[row.subject for row in self.rows]]
        return scaler.transform(raw_values.to_numpy()).astype(records.RECORD_DTYPE)

    def _read_stored_phenotype(self, record_index: int) -> np.ndarray:
        entry = self.entries[record_index]
        header_bytes = entry.read(records.HEADER_BYTES)
        if self.digests and self.digests[record_index].header:
            records.check_digest(header_bytes, self.digests[record_index].header, str(entry), "label and phenotype")
        return records.unpack_header(header_bytes, str(entry))[1]

    def find_first_record_indices(self, record_indices: Iterable[int]) -> dict[str, int]:
        """Subjects in the order of their first records among these positions, with its position."""
        first_index_by_subject: dict[str, int] = {}
        for index in record_indices:
            first_index_by_subject.setdefault(self.rows[index].subject, index)
        return first_index_by_subject

    def relabel(self, label_by_subject: Mapping[str, float]) -> "Cohort":
        """The cohort with other labels of some subjects, in all their records."""
        return replace(
            self, rows=tuple(replace(row, label=label_by_subject.get(row.subject, row.label)) for row in self.rows)
        )

    def read_volume(self, record_index: int) -> np.ndarray:
        """The volume (x, y, z, maps) float32 of one record as it is stored, verified when it is first read. Raises
        InputError, naming the file, or the cohort if it has no maps."""
        grid = self.grid
        entry = self.entries[record_index]
        record_content = entry.read()
        volume = records.unpack_volume(record_content, grid, self.num_maps, str(entry))

        # Once in this process, its digest is compared
        if self.digests and entry not in self.verified_entries:
            volume_bytes = memoryview(record_content)[records.HEADER_BYTES :]
            records.check_digest(volume_bytes, self.digests[record_index].volume, str(entry), "volume")
            self.verified_entries.add(entry)
        return volume

    def make_record_bytes(self, record_index: int, volume_bytes: bytes | None = None) -> bytes:
        """The bytes of one record with label and phenotype as they are now; with `volume_bytes`, if given, in place of
        its volume, in the order in which records hold it."""
        header_bytes = records.pack_header(self.rows[record_index].label, self.phenotype[record_index])
        if volume_bytes is None:
            volume_bytes = records.volume_to_bytes_map_by_map(self.read_volume(record_index))
        return header_bytes + volume_bytes

    @property
    def digests_by_file(self) -> dict[str, Digests]:
        """The digests of the records by file, as far as they are known."""
        return dict(zip((row.file for row in self.rows), self.digests, strict=False))

    def collect_scan_digests(self, split: str | None = None) -> dict[str, set[str]]:
        """By subject, the digests of the scans of a split's records, or of all (see `Digests.scan_digests`): they
        recognise people whatever their names. The sets are empty as long as digests are not known."""
        scan_digests_by_subject: dict[str, set[str]] = {
            row.subject: set() for row in self.rows if split in (None, row.split)
        }
        for row, record_digests in zip(self.rows, self.digests, strict=False):
            if row.subject in scan_digests_by_subject:
                scan_digests_by_subject[row.subject] |= record_digests.scan_digests
        return scan_digests_by_subject

    def compute_scans_sha256(self, split: str | None = None) -> str:
        """SHA-256 over the scans of a split, or of all, which tells who is in it, whatever the names."""
        scan_digests = set[str]().union(*self.collect_scan_digests(split).values())
        return records.compute_digest("".join(sorted(scan_digests)).encode())

    def make_batch(
        self,
        record_indices: Sequence[int] | np.ndarray,
        with_volumes: bool = True,
        record_table_by_name: Mapping[str, Any] = MappingProxyType({}),
    ) -> dict[str, np.ndarray]:
        """`label` (n,) int32, -1 if unknown; `phenotype` (n, 29) and, if `with_volumes`, `volume` (n, x, y, z, maps),
        both float32; volumes are standardised as `standard` says. Also the rows of these records in each table of
        `record_table_by_name`, whose rows are all records."""
        labels = [self.rows[record_index].label for record_index in record_indices]
        batch = {
            "label": np.nan_to_num(labels, nan=UNKNOWN_LABEL).astype(np.int32),
            "phenotype": self.phenotype[np.asarray(record_indices, int)],
        }
        if with_volumes:
            volumes = np.empty((len(record_indices), *self.grid.shape, self.num_maps), np.float32)
            for batch_row, record_index in enumerate(record_indices):
                volumes[batch_row] = self._read_standardised_volume(record_index)
            batch["volume"] = volumes
        return batch | {
            table_name: np.ascontiguousarray(table[record_indices])
            for table_name, table in record_table_by_name.items()
        }

    def _read_standardised_volume(self, record_index: int) -> np.ndarray:
        """The volume (x, y, z, maps) of one record as `standard` says."""
        volume = self.read_volume(record_index)
        if self.standard != "stored":
            volume = brain.z_score_within_brain(volume)
        if self.moments_by_site:
            site_mean, site_sd = self.moments_by_site[self.rows[record_index].site]
            volume = (volume - site_mean) / site_sd
        return volume

    def iterate_batches(
        self,
        record_index_batches: Iterable[np.ndarray],
        with_volumes: bool = True,
        record_table_by_name: Mapping[str, Any] = MappingProxyType({}),
    ) -> Iterator[dict[str, np.ndarray]]:
        """The batch of each selection of records, read ahead in other threads."""
        return read_ahead(
            partial(self.make_batch, with_volumes=with_volumes, record_table_by_name=record_table_by_name),
            record_index_batches,
        )


def split_into_batches(record_indices: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """`record_indices` cut into batches; the last may be smaller."""
    return [
        record_indices[batch_start : batch_start + batch_size]
        for batch_start in range(0, len(record_indices), batch_size)
    ]


def flatten_record_files(cohort: Cohort) -> Cohort:
    """The cohort with its records named as files of one folder, if it has any. Raises InputError if two names collide
    there."""
    if not cohort.num_maps:
        return cohort
    return replace(cohort, rows=cohort_rows.flatten_row_files(cohort.rows, cohort.path))


class RunningMoments:
    """Mean and spread of values that come in batches, (n, ...) each."""

    def __init__(self) -> None:
        self.sample_count = 0
        self.mean = np.zeros(())
        self._squared_deviation_sums = np.zeros(())

    def add_batch(self, batch_values: np.ndarray) -> None:
        """Adds a batch by the stable update of Chan et al. (1979)."""
        batch_values = np.asarray(batch_values, np.float64)
        batch_size = len(batch_values)
        new_sample_count = self.sample_count + batch_size
        batch_mean = batch_values.mean(0)
        mean_shift = batch_mean - self.mean

        within_batch_sums = np.square(batch_values - batch_mean).sum(0)
        mean_shift_sums = np.square(mean_shift) * (self.sample_count * batch_size / new_sample_count)
        self._squared_deviation_sums = self._squared_deviation_sums + within_batch_sums + mean_shift_sums
        self.mean = self.mean + mean_shift * (batch_size / new_sample_count)
        self.sample_count = new_sample_count

    @property
    def nonzero_sd(self) -> np.ndarray:
        """The standard deviation; 1 where values do not vary, so that they are only centred."""
        sd = np.sqrt(self._squared_deviation_sums / self.sample_count)
        return np.where(sd > brain.MIN_SD, sd, 1)
