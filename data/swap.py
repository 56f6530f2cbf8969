"""Swap augmentation: new training records whose regions come from other training subjects of the same label."""

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data.base.errors import InputError
from data.base.files import new_folder
from data.base.progress import progress
from data.base.sums import check_sums
from data.cohorts import atlas, records
from data.cohorts.cohort import Cohort, carry_tables, in_one_folder, write_tables
from data.cohorts.rows import Row, swapped_name


def donors_of(cohort: Cohort) -> Callable[[int], np.ndarray]:
    """A function: training record -> the training records of the same label and another subject.

    Raises InputError if a label has one training subject only.
    """
    training = cohort.indices("train")
    rows = [cohort.rows[index] for index in training]
    label, subject = np.array([row.label for row in rows]), np.array([row.subject for row in rows])
    if alone := next((row for row in rows if not ((label == row.label) & (subject != row.subject)).any()), None):
        raise InputError(f"{cohort.path} has no other training subject with the label of {alone.subject}; add some.")

    def donors(index: int) -> np.ndarray:
        row = cohort.rows[index]
        return training[(label == row.label) & (subject != row.subject)]

    return donors


def check_unswapped(cohort: Cohort, copies: int) -> None:
    """Raises InputError if a new record would replace an existing one."""
    new = {swapped_name(row.file, copy) for row in cohort.rows for copy in range(copies)}
    if taken := sorted(new & {row.file for row in cohort.rows}):
        raise InputError(f"{cohort.path} already holds {taken[0]}; swap the cohort that it was made from.")


def swap(cohort: Cohort, target: Path, num_regions: int, copies: int, seed: int) -> list[Row]:
    """Writes `cohort`, and `copies` new records for each training record, into the new folder `target`.

    In each new record, `num_regions` random AAL regions are replaced in all maps by the same regions of other training
    subjects of the same label, with a donor drawn for each region; phenotype, label, subject and site stay those of the
    base record. Returns the rows. Raises InputError if a subject has no donor, or the cohort was swapped before.
    """
    regions = atlas.load_atlas(None, cohort.grid)
    if num_regions > len(regions.regions):
        raise InputError(
            f"--regions {num_regions} is more than the atlas has; expected at most {len(regions.regions)}."
        )
    digest, cohort = cohort.digest, in_one_folder(cohort)
    check_unswapped(cohort, copies)
    provenance = {
        "swap": {"regions": num_regions, "copies": copies, "seed": seed, "source_sha256": digest},
        "source": cohort.metadata.provenance,
    }
    with new_folder(target) as folder:
        check_sums(cohort.paths)
        swaps = RegionSwaps(regions.voxels, num_regions, np.random.default_rng(seed))
        table = write_records(folder, cohort, swaps, copies)
        carry_tables(cohort, folder)
        write_tables(folder, table, replace(cohort.metadata, grid=cohort.grid.shape, provenance=provenance))
    return table


@dataclass(frozen=True)
class RegionSwaps:
    """Swaps `count` random regions; `regions` holds the places of each region's voxels in a flattened volume."""

    regions: list[np.ndarray]
    count: int
    random: np.random.Generator

    def swapped(
        self, own: np.ndarray, donors: np.ndarray, region_of: Callable[[int, np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """A record's voxels (voxels, maps) with regions of others, a donor drawn for each region, float32.

        `donors` are record indices (n,); `region_of` reads a donor's values at some places, (places, maps).
        """
        values = np.array(own)
        for region in self.random.choice(len(self.regions), self.count, replace=False):
            values[self.regions[region]] = region_of(self.random.choice(donors), self.regions[region])
        return values


def write_records(folder: Path, cohort: Cohort, swaps: RegionSwaps, copies: int) -> list[Row]:
    """Writes every record, then its copies with swapped regions, which are read from the written ones; returns their
    rows."""
    donors = donors_of(cohort)
    paths = [os.path.join(folder, row.file) for row in cohort.rows]
    with progress("Copying", len(cohort.rows)) as shown:
        for index, path in enumerate(paths):
            write(Path(path), cohort.header(index), cohort.read(index)[2])
            shown.advance()

    def region_of(donor: int, places: np.ndarray) -> np.ndarray:
        return written(paths[donor], cohort.num_maps)[places]

    table = []
    with progress("Swapping", len(cohort.rows)) as shown:
        for index, row in enumerate(cohort.rows):
            table.append(row)
            for copy in range(copies if row.split == "train" else 0):
                volume = swaps.swapped(written(paths[index], cohort.num_maps), donors(index), region_of)
                table.append(replace(row, file=swapped_name(row.file, copy)))
                write(folder / table[-1].file, cohort.header(index), volume)
            shown.advance()
    return table


def written(path: str, num_maps: int) -> np.ndarray:
    """The volume of a written record, (voxels, maps); only the bytes that are used are read."""
    with open(path, "rb", buffering=0) as file:  # several times as fast as numpy.memmap
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(content, records.DTYPE, offset=records.HEADER_BYTES).reshape(num_maps, -1).T


def write(path: Path, header: bytes, volume: np.ndarray) -> None:
    path.write_bytes(header + records.stored(volume))


def swapped_within(
    volume: np.ndarray, label: np.ndarray, regions: list[np.ndarray], count: int, random: np.random.Generator
) -> np.ndarray:
    """A batch (n, x, y, z, maps) in which `count` regions of each record come from others of the same label (n,).

    `regions` are the places of each region's voxels in a flattened volume; a donor is drawn for each. A record without
    another one of its label stays as it is.
    """
    values = volume.reshape(len(volume), -1, volume.shape[-1])
    found, swaps = values.copy(), RegionSwaps(regions, count, random)
    for index in range(len(volume)):
        others = np.flatnonzero((label == label[index]) & (np.arange(len(label)) != index))
        if others.size:
            found[index] = swaps.swapped(values[index], others, lambda donor, places: values[donor, places])
    return found.reshape(volume.shape)
