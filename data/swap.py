"""Swap augmentation: new training records whose regions come from other training subjects of the same label."""

import mmap
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.base.errors import InputError
from data.base.files import create_folder
from data.base.terminal import open_progress_bar
from data.cohorts import records
from data.cohorts.cohort import Cohort, flatten_record_files
from data.cohorts.rows import MAX_RECORDS, RecordRow, make_swapped_file_name
from data.cohorts.stored import copy_side_tables, open_cohort, write_cohort_tables
from data.images import atlas
from data.images.grids import Grid


def swap_regions(
    cohort: Cohort, target_folder: Path, swapped_region_count: int, copies_per_training_record: int, seed: int
) -> list[RecordRow]:
    """Writes `cohort`, and `copies_per_training_record` new records for each training record, into the new folder
    `target_folder`. Its connectomes are left out, which is printed: they belong to scans as they were.

    In each new record, `swapped_region_count` random AAL regions come from other training subjects of the same label,
    in all maps. A donor is drawn for each region; the rest stays that of the base record. Returns the rows. Raises
    InputError if a subject has no donor, or if the cohort was swapped before.
    """
    grid = cohort.grid
    if swapped_region_count > atlas.AAL_REGION_COUNT:
        raise InputError(
            f"--regions {swapped_region_count} is more than AAL has; expected at most {atlas.AAL_REGION_COUNT}."
        )
    new_record_count = copies_per_training_record * len(cohort.find_split_record_indices("train"))
    record_count = len(cohort.rows) + new_record_count
    if record_count > MAX_RECORDS:
        raise InputError(
            f"--copies {copies_per_training_record} makes {record_count:,} records; expected at most {MAX_RECORDS:,}."
        )
    swap_provenance = {
        "regions": swapped_region_count,
        "copies": copies_per_training_record,
        "seed": seed,
        "source_sha256": cohort.identity,
    }
    provenance = {"swap": swap_provenance, "source": cohort.metadata.provenance}
    if cohort.connectomes:
        print(f"The connectomes of {cohort.path} are left out: they are of scans whose regions are as they were.")
    cohort = flatten_record_files(cohort.without_connectomes)
    existing_file_names = {row.file for row in cohort.rows}
    new_file_names = {
        make_swapped_file_name(file_name, copy_index)
        for file_name in existing_file_names
        for copy_index in range(copies_per_training_record)
    }
    if taken_file_names := sorted(new_file_names & existing_file_names):
        raise InputError(f"{cohort.path} already holds {taken_file_names[0]}; swap the cohort that it was made from.")
    for label in (0.0, 1.0):
        subjects = {row.subject for row in cohort.rows if (row.split, row.label) == ("train", label)}
        if len(subjects) == 1:
            only_subject = subjects.pop()
            raise InputError(
                f"{cohort.path} has no other training participant with the label of {only_subject}; add some."
            )
    with create_folder(target_folder) as unfinished_folder:
        original_and_swapped_rows = write_original_and_swapped_records(
            unfinished_folder, cohort, swapped_region_count, copies_per_training_record, np.random.default_rng(seed)
        )
        copy_side_tables(cohort, unfinished_folder)
        metadata = replace(cohort.metadata, grid=grid.shape, provenance=provenance)
        write_cohort_tables(unfinished_folder, original_and_swapped_rows, metadata, cohort.digests_by_file)
        open_cohort(unfinished_folder)  # a cohort must be readable before it takes its name
    return original_and_swapped_rows


def write_original_and_swapped_records(
    target_folder: Path,
    cohort: Cohort,
    swapped_region_count: int,
    copies_per_training_record: int,
    random_generator: np.random.Generator,
) -> list[RecordRow]:
    """Writes every record, then its copies, which are made of the written ones; returns their rows."""
    record_paths = [target_folder / row.file for row in cohort.rows]
    with open_progress_bar("Copying", len(cohort.rows)) as progress_bar:
        for record_index in range(len(cohort.rows)):
            record_paths[record_index].write_bytes(cohort.make_record_bytes(record_index))
            progress_bar.advance()

    voxel_indices_per_region = list_region_voxel_indices(cohort.grid)
    training_record_indices = cohort.find_split_record_indices("train")
    training_rows = [cohort.rows[record_index] for record_index in training_record_indices]
    training_labels = np.array([row.label for row in training_rows])
    training_subjects = np.array([row.subject for row in training_rows])

    original_and_swapped_rows = list[RecordRow]()
    with open_progress_bar("Swapping", len(cohort.rows)) as progress_bar:
        for record_index, row in enumerate(cohort.rows):
            original_and_swapped_rows.append(row)
            donor_record_indices = training_record_indices[
                (training_labels == row.label) & (training_subjects != row.subject)
            ]
            for copy_index in range(copies_per_training_record if row.split == "train" else 0):
                volume = np.array(read_written_volume(record_paths[record_index], cohort.num_maps))
                region_indices = random_generator.choice(
                    len(voxel_indices_per_region), swapped_region_count, replace=False
                )
                for region_index in region_indices:
                    donor_record_index = random_generator.choice(donor_record_indices)
                    donor_volume = read_written_volume(record_paths[donor_record_index], cohort.num_maps)
                    voxel_indices = voxel_indices_per_region[region_index]
                    volume[:, voxel_indices] = donor_volume[:, voxel_indices]
                swapped_row = replace(row, file=make_swapped_file_name(row.file, copy_index))
                swapped_path = target_folder / swapped_row.file
                swapped_path.write_bytes(cohort.make_record_bytes(record_index, volume.tobytes()))
                original_and_swapped_rows.append(swapped_row)
            progress_bar.advance()
    return original_and_swapped_rows


def list_region_voxel_indices(grid: Grid) -> list[np.ndarray]:
    """The voxels of each AAL region, by their positions in the flattened grid."""
    region_atlas = atlas.load_atlas(None, grid)
    return [
        np.flatnonzero(region_atlas.region_labels == region_number) for region_number in region_atlas.region_numbers
    ]


def read_written_volume(record_path: Path, num_maps: int) -> np.ndarray:
    """The volume of a written record, (maps, voxels); only the bytes that are used are read."""
    with open(record_path, "rb", buffering=0) as file:  # several times as fast as numpy.memmap
        mapped_bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped_bytes, records.RECORD_DTYPE, offset=records.HEADER_BYTES).reshape(num_maps, -1)
