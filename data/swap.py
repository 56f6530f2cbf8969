"""Swap augmentation: new training records whose regions come from other training subjects of the same label."""

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data.base import manifest
from data.base.errors import InputError
from data.base.files import new_folder
from data.base.terminal import progress
from data.cohorts import atlas, records
from data.cohorts.cohort import Cohort, in_one_folder
from data.cohorts.rows import MAX_RECORDS, Row, swapped_name
from data.cohorts.stored import carry_tables, open_cohort, write_tables


def donors_of(cohort: Cohort) -> Callable[[Row], np.ndarray]:
    """A function: row of a training record -> the training records of the same label and another subject. Raises
    InputError if a label has one training subject only."""
    training = cohort.indices("train")
    rows = [cohort.rows[index] for index in training]
    label, subject = np.array([row.label for row in rows]), np.array([row.subject for row in rows])

    def donors(row: Row) -> np.ndarray:
        return training[(label == row.label) & (subject != row.subject)]

    if alone := next((row for row in rows if not donors(row).size), None):
        raise InputError(f"{cohort.path} has no other training subject with the label of {alone.subject}; add some.")
    return donors


def swap(cohort: Cohort, target: Path, num_regions: int, copies: int, seed: int) -> list[Row]:
    """Writes `cohort`, and `copies` new records for each training record, into the new folder `target`. Its connectomes
    are left out, which is printed: they belong to scans as they were.

    In each new record, `num_regions` random AAL regions come from other training subjects of the same label, in all
    maps. A donor is drawn for each region; the rest stays that of the base record. Returns the rows. Raises InputError
    if a subject has no donor, or if the cohort was swapped before.
    """
    regions = atlas.load_atlas(None, cohort.grid)
    if num_regions > (most := len(regions.regions)):
        raise InputError(f"--regions {num_regions} is more than the atlas has; expected at most {most}.")
    if (total := len(cohort.rows) + copies * len(cohort.indices("train"))) > MAX_RECORDS:
        raise InputError(f"--copies {copies} makes {total:,} records; expected at most {MAX_RECORDS:,}.")
    swapping = {"regions": num_regions, "copies": copies, "seed": seed, "source_sha256": cohort.digest}
    provenance = {"swap": swapping, "source": cohort.metadata.provenance}
    if cohort.connectomes:
        print(f"The connectomes of {cohort.path} are left out: they are of scans whose regions are as they were.")
    cohort = in_one_folder(cohort.without_connectomes)
    new = {swapped_name(row.file, copy) for row in cohort.rows for copy in range(copies)}
    if taken := sorted(new & {row.file for row in cohort.rows}):
        raise InputError(f"{cohort.path} already holds {taken[0]}; swap the cohort that it was made from.")
    with new_folder(target) as folder:
        manifest.verify(cohort.path, cohort.file_names)
        swaps = RegionSwaps(regions.voxels, num_regions, np.random.default_rng(seed))
        table = write_records(folder, cohort, swaps, copies)
        carry_tables(cohort, folder)
        metadata = replace(cohort.metadata, grid=cohort.grid.shape, provenance=provenance)
        write_tables(folder, table, metadata, cohort.origins())
        open_cohort(folder)  # nothing is called done that cannot be read
    return table


@dataclass(frozen=True)
class RegionSwaps:
    """Swaps of `count` random regions; `regions` holds the places of each region's voxels in a flattened volume."""

    regions: list[np.ndarray]
    count: int
    random: np.random.Generator

    def drawn(self, donors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """For each swapped region of one record, one of the `donors` (n,) and the places of the region's voxels."""
        for region in self.random.choice(len(self.regions), self.count, replace=False):
            yield self.random.choice(donors), self.regions[region]


def write_records(folder: Path, cohort: Cohort, swaps: RegionSwaps, copies: int) -> list[Row]:
    """Writes every record, then its copies, which are made of the written ones; returns their rows."""
    donors = donors_of(cohort)
    paths = [folder / row.file for row in cohort.rows]
    with progress("Copying", len(cohort.rows)) as shown:
        for index, path in enumerate(paths):
            path.write_bytes(cohort.header(index) + records.stored(cohort.read(index)[2]))
            shown.advance()

    table = []
    with progress("Swapping", len(cohort.rows)) as shown:
        for index, row in enumerate(cohort.rows):
            table.append(row)
            for copy in range(copies if row.split == "train" else 0):
                volume = np.array(written(paths[index], cohort.num_maps))
                for donor, places in swaps.drawn(donors(row)):
                    volume[places] = written(paths[donor], cohort.num_maps)[places]
                table.append(replace(row, file=swapped_name(row.file, copy)))
                (folder / table[-1].file).write_bytes(cohort.header(index) + records.stored(volume))
            shown.advance()
    return table


def written(path: Path, num_maps: int) -> np.ndarray:
    """The volume of a written record, (voxels, maps); only the bytes that are used are read."""
    with open(path, "rb", buffering=0) as file:  # several times as fast as numpy.memmap
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(content, records.DTYPE, offset=records.HEADER_BYTES).reshape(num_maps, -1).T
