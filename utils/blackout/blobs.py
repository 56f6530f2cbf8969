"""Random connected blobs of voxels, of the size of a region, with which the region's effect is compared."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from data.cohorts import records
from data.cohorts.cohort import Cohort

BLOBS = 100  # of each region's size, at least, over all records
MIN_SHARE = 0.5  # of the records in which a voxel of the brain holds signal


def brain(cohort: Cohort, indices: np.ndarray) -> np.ndarray:
    """Voxels (x, y, z) bool that hold signal, in any map, in half of the records or more: where blobs may lie."""
    count = np.zeros(cohort.grid.shape)
    for index in indices:
        _, _, volume = cohort.read(index)
        count += np.any([values != records.background(values) for values in np.moveaxis(volume, -1, 0)], axis=0)
    return count >= MIN_SHARE * len(indices)


def random_blobs(
    inside: np.ndarray, sizes: Sequence[int] | np.ndarray, seed: int | Sequence[int]
) -> list[np.ndarray | None]:
    """For each of `sizes`, a random face-connected blob (x, y, z) bool of so many voxels within `inside`, alike.

    A blob grows from a random voxel; each step takes a random voxel of its border. None for a size that is larger than
    every connected part of `inside`.
    """
    random = np.random.default_rng(seed)
    padded = np.pad(inside, 1)
    steps = [sign * stride // padded.itemsize for stride in padded.strides for sign in (1, -1)]
    free, (parts, _) = padded.tobytes(), ndimage.label(padded)
    room = np.where(padded, np.bincount(parts.ravel())[parts], 0).ravel()
    blobs: list[np.ndarray | None] = []
    for size in sizes:
        starts = np.flatnonzero(room >= size)
        if not starts.size:
            blobs.append(None)
            continue
        flat = np.zeros(padded.size, bool)
        flat[grow(free, steps, int(random.choice(starts)), random.random(size))] = True
        blobs.append(flat.reshape(padded.shape)[1:-1, 1:-1, 1:-1])
    return blobs


def grow(free: bytes, steps: list[int], start: int, draws: np.ndarray) -> list[int]:
    """Flat indices of a blob of `len(draws)` voxels where `free` is 1, which must have room for it around `start`."""
    blob, seen, border = [], {start}, [start]
    for draw in draws.tolist():
        pick = int(draw * len(border))
        border[pick], border[-1] = border[-1], border[pick]
        voxel = border.pop()
        blob.append(voxel)
        for step in steps:
            neighbour = voxel + step
            if free[neighbour] and neighbour not in seen:
                seen.add(neighbour)
                border.append(neighbour)
    return blob
