"""Swap augmentation: new training records whose regions come from other training subjects of the same label."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from data import atlas, records
from data.cohort import Cohort, Row, carry_tables, in_one_folder, write_tables
from data.errors import InputError
from data.files import new_folder
from data.progress import progress
from data.sums import check_sums


def donor_volumes(cohort: Cohort, inside: np.ndarray) -> np.ndarray:
    """The voxels `inside` (x, y, z) bool of every training record, (records, voxels, maps) float32; test rows stay
    0."""
    values = np.zeros((len(cohort.rows), int(inside.sum()), cohort.num_maps), np.float32)
    for index in cohort.indices("train"):
        values[index] = cohort.read(index)[2][inside]
    return values


def donors_of(cohort: Cohort) -> dict[int, np.ndarray]:
    """For each training record, the training records of the same label and another subject."""
    training = cohort.indices("train")
    subject = np.array([row.subject for row in cohort.rows])
    label = np.array([row.label for row in cohort.rows])
    donors = {}
    for index in training:
        donors[index] = training[(label[training] == label[index]) & (subject[training] != subject[index])]
        if not donors[index].size:
            raise InputError(
                f"{cohort.path} has no other training subject with the label of {subject[index]}; add some."
            )
    return donors


def swapped_name(file: str, copy: int) -> str:
    return f"{Path(file).stem}_swap_{copy}.bin"


def is_swapped(file: str) -> bool:
    """Whether `swapped_name` made a record's name."""
    return re.search(r"_swap_\d+\.bin$", file) is not None


def unswapped(cohort: Cohort) -> list[int]:
    """The records that are of one person each: all but those whose regions were swapped."""
    swapped = any("swap" in source for source in cohort.metadata.lineage)
    return [at for at, row in enumerate(cohort.rows) if not (swapped and is_swapped(row.file))]


def check_unswapped(cohort: Cohort, copies: int) -> None:
    """Raises InputError if a new record would take the place of one that is there."""
    new = {swapped_name(row.file, copy) for row in cohort.rows for copy in range(copies)}
    if taken := sorted(new & {row.file for row in cohort.rows}):
        raise InputError(f"{cohort.path} already holds {taken[0]}; swap the cohort that it was made from.")


def swap(cohort: Cohort, target: Path, num_regions: int, copies: int, seed: int) -> list[Row]:
    """Writes `cohort` and `copies` more records a training record into the new folder `target`; returns its table.

    In each new record, `num_regions` random AAL regions are replaced in all maps by the same regions of other training
    subjects of the same label, a donor drawn for each; phenotype, label, subject and site are the base record's.
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
        table = write_records(folder, cohort, regions, num_regions, copies, seed)
        carry_tables(cohort, folder)
        write_tables(folder, table, replace(cohort.metadata, grid=cohort.grid.shape, provenance=provenance))
    return table


def write_records(
    folder: Path, cohort: Cohort, regions: atlas.Atlas, num_regions: int, copies: int, seed: int
) -> list[Row]:
    """Writes every record and its copies with swapped regions; returns their table."""
    inside = regions.labels > 0
    labels = regions.labels[inside]
    members = [np.flatnonzero(labels == region) for region in regions.regions]
    donors, values = donors_of(cohort), donor_volumes(cohort, inside)
    random = np.random.default_rng(seed)
    table = []
    with progress("Swapping", len(cohort.rows)) as shown:
        for index, row in enumerate(cohort.rows):
            header, (_, _, volume) = cohort.header(index), cohort.read(index)
            table.append(row)
            write(folder / row.file, header, volume)
            for copy in range(copies if row.split == "train" else 0):
                swapped = volume.copy()
                swapped[inside] = mixed(values, index, donors[index], members, num_regions, random)
                table.append(replace(row, file=swapped_name(row.file, copy)))
                write(folder / table[-1].file, header, swapped)
            shown.advance()
    return table


def mixed(
    values: np.ndarray,
    index: int,
    donors: np.ndarray,
    regions: list[np.ndarray],
    count: int,
    random: np.random.Generator,
) -> np.ndarray:
    """One of some records' voxels (records, voxels, maps) with `count` random regions of others, -> (voxels, maps).

    `regions` are the places of each region's voxels, `donors` the records that they come from, drawn for each.
    """
    found = values[index].copy()
    for region in random.choice(len(regions), count, replace=False):
        found[regions[region]] = values[random.choice(donors), regions[region]]
    return found


def swapped_within(
    volume: np.ndarray, label: np.ndarray, regions: list[np.ndarray], count: int, random: np.random.Generator
) -> np.ndarray:
    """A batch (n, x, y, z, maps) in which `count` regions of each record come from others of the same label (n,).

    `regions` are the places of each region's voxels in a flattened volume; a donor is drawn for each. A record that has
    no other of its label stays as it is.
    """
    values = volume.reshape(len(volume), -1, volume.shape[-1])
    found = values.copy()
    for index in range(len(volume)):
        others = np.flatnonzero((label == label[index]) & (np.arange(len(label)) != index))
        if others.size:
            found[index] = mixed(values, index, others, regions, count, random)
    return found.reshape(volume.shape)


def write(path: Path, header: bytes, volume: np.ndarray) -> None:
    path.write_bytes(header + records.stored(volume))
