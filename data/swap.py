"""Swap augmentation: new training records whose regions come from other training subjects of the same label."""

import mmap
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.base.errors import InputError
from data.base.files import new_folder
from data.base.terminal import progress
from data.cohorts import atlas, records
from data.cohorts.cohort import Cohort, in_one_folder
from data.cohorts.rows import MAX_RECORDS, Row, swapped_name
from data.cohorts.stored import carry_tables, open_cohort, write_tables


def swap_regions(cohort: Cohort, target: Path, num_regions: int, copies: int, seed: int) -> list[Row]:
    """Writes `cohort`, and `copies` new records for each training record, into the new folder `target`. Its connectomes
    are left out, which is printed: they belong to scans as they were.

    In each new record, `num_regions` random AAL regions come from other training subjects of the same label, in all
    maps. A donor is drawn for each region; the rest stays that of the base record. Returns the rows. Raises InputError
    if a subject has no donor, or if the cohort was swapped before.
    """
    if num_regions > atlas.AAL_REGIONS:
        raise InputError(f"--regions {num_regions} is more than AAL has; expected at most {atlas.AAL_REGIONS}.")
    if (total := len(cohort.rows) + copies * len(cohort.indices("train"))) > MAX_RECORDS:
        raise InputError(f"--copies {copies} makes {total:,} records; expected at most {MAX_RECORDS:,}.")
    swapping = {"regions": num_regions, "copies": copies, "seed": seed, "source_sha256": cohort.identity}
    provenance = {"swap": swapping, "source": cohort.metadata.provenance}
    if cohort.connectomes:
        print(f"The connectomes of {cohort.path} are left out: they are of scans whose regions are as they were.")
    cohort = in_one_folder(cohort.without_connectomes)
    new = {swapped_name(row.file, copy) for row in cohort.rows for copy in range(copies)}
    if taken := sorted(new & {row.file for row in cohort.rows}):
        raise InputError(f"{cohort.path} already holds {taken[0]}; swap the cohort that it was made from.")
    for label in (0.0, 1.0):
        subjects = {row.subject for row in cohort.rows if (row.split, row.label) == ("train", label)}
        if len(subjects) == 1:
            named = subjects.pop()
            raise InputError(f"{cohort.path} has no other training participant with the label of {named}; add some.")
    with new_folder(target) as folder:
        table = write_records(folder, cohort, num_regions, copies, np.random.default_rng(seed))
        carry_tables(cohort, folder)
        metadata = replace(cohort.metadata, grid=cohort.grid.shape, provenance=provenance)
        write_tables(folder, table, metadata, cohort.known_digests)
        open_cohort(folder)  # nothing is called done that cannot be read
    return table


def write_records(
    folder: Path, cohort: Cohort, num_regions: int, copies: int, random: np.random.Generator
) -> list[Row]:
    """Writes every record, then its copies, which are made of the written ones; returns their rows."""
    paths = [folder / row.file for row in cohort.rows]
    with progress("Copying", len(cohort.rows)) as shown:
        for index, path in enumerate(paths):
            path.write_bytes(cohort.record(index))
            shown.advance()

    regions = atlas.load_atlas(None, cohort.grid)
    places = [np.flatnonzero(regions.labels == region) for region in regions.regions]
    training, table = cohort.indices("train"), list[Row]()
    label, subject = (np.array([getattr(cohort.rows[at], name) for at in training]) for name in ("label", "subject"))
    with progress("Swapping", len(cohort.rows)) as shown:
        for index, row in enumerate(cohort.rows):
            table.append(row)
            donors = training[(label == row.label) & (subject != row.subject)]
            for copy in range(copies if row.split == "train" else 0):
                volume = np.array(volume_in(paths[index], cohort.num_maps))
                for region in random.choice(len(places), num_regions, replace=False):
                    donor = volume_in(paths[random.choice(donors)], cohort.num_maps)
                    volume[:, places[region]] = donor[:, places[region]]
                table.append(replace(row, file=swapped_name(row.file, copy)))
                (folder / table[-1].file).write_bytes(cohort.record(index, volume.tobytes()))
            shown.advance()
    return table


def volume_in(path: Path, num_maps: int) -> np.ndarray:
    """The volume of a written record, (maps, voxels); only the bytes that are used are read."""
    with open(path, "rb", buffering=0) as file:  # several times as fast as numpy.memmap
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(content, records.DTYPE, offset=records.HEADER_BYTES).reshape(num_maps, -1)
