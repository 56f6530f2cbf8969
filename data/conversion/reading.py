"""The maps of one person, read once -> their measures, and a record without its header, which is planned later."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data import grids
from data.base import files
from data.base.files import sum_of
from data.cohorts import nifti, records, resampling, twins
from data.conversion import measures


@dataclass(frozen=True)
class PersonMaps:
    """What is known of a person's maps before any record is planned."""

    sums: list[tuple[str, str]]  # the name and the SHA-256 of each file
    measured: list[dict[str, float]]  # MEASURES of each map
    means: np.ndarray  # (regions, maps), of the volumes in the record


def read(maps: Sequence[nifti.MapOnDisk], grid: grids.Grid, record: Path) -> PersonMaps:
    """Measures maps and writes their volumes, each z-scored by itself, as a record whose header is 0. Raises
    InputError, naming the file."""
    sums = [(path.name, sum_of(path)) for path in dict.fromkeys(of_map.path for of_map in maps)]
    measured, means = [], []
    with files.replacing(record, "wb") as file:
        file.write(bytes(records.HEADER_BYTES))
        for image in nifti.read_brains(maps):
            volume = nifti.stored_volume(image, grid)
            file.write(np.ascontiguousarray(volume, records.DTYPE))
            measured.append(measures.of_image(image))
            means.append(twins.of_reduced(resampling.reduced(volume)))
    return PersonMaps(sums, measured, np.column_stack(means))


def finish(record: Path, label: float, phenotype: np.ndarray, target: Path) -> None:
    """Moves a record of `read` to `target` with its label and scaled phenotype (29,), unless one is there."""
    if target.exists() and target.stat().st_size == record.stat().st_size:
        return
    with open(record, "r+b") as file:
        file.write(records.pack_header(label, phenotype))
    os.replace(record, target)
