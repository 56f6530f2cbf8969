"""Regions of an atlas, or cubes of voxels -> the means of volumes over them."""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from data.images import grids
from data.images.atlas import Atlas


def find_dominant_places(
    parcel_indices: np.ndarray, parcel_count: int, place_indices: np.ndarray, outside_index: int
) -> np.ndarray:
    """For each of `parcel_count` parcels, the place that holds more of its voxels than any other place, and than lie in
    none, (parcels,) int; without such a place `outside_index`, the largest index.

    `parcel_indices` (x, y, z) int is the parcel of each voxel, `parcel_count` where there is none; `place_indices` (x,
    y, z) int is its place, `outside_index` where there is none.
    """
    # (parcels + 1, places + 1); the last of each: in none
    voxel_counts = np.zeros((parcel_count + 1, outside_index + 1), int)
    np.add.at(voxel_counts, (parcel_indices.ravel(), place_indices.ravel()), 1)
    voxel_counts = voxel_counts[:parcel_count]
    is_tied = (voxel_counts == voxel_counts.max(1, keepdims=True)).sum(1) > 1
    return np.where(is_tied, outside_index, voxel_counts.argmax(1))


@dataclass(frozen=True, eq=False)
class Parcels:
    """Parts of a grid."""

    name: str  # "regions" or "cubes<edge>"
    parcel_indices: np.ndarray  # (x, y, z) int: of each voxel; `parcel_count` in none
    means_shape: tuple[int, ...]  # of one map's means: (parcels,) or (x, y, z) of cubes

    @cached_property
    def parcel_voxel_counts(self) -> np.ndarray:
        """Voxels of each parcel (parcels,)."""
        return np.bincount(self.parcel_indices.ravel(), minlength=self.parcel_count + 1)[:-1]

    @property
    def parcel_count(self) -> int:
        return math.prod(self.means_shape)

    @cached_property
    def _membership_matrix(self) -> Any:
        """(parcels, voxels) float32, 1 where a voxel is in a parcel."""
        from scipy import sparse

        flat_parcel_indices = self.parcel_indices.ravel()
        voxel_indices_by_parcel = np.argsort(flat_parcel_indices, kind="stable")[
            : np.count_nonzero(flat_parcel_indices < self.parcel_count)
        ]
        csr_entries = (
            np.ones(len(voxel_indices_by_parcel), np.float32),
            voxel_indices_by_parcel,
            np.cumsum([0, *self.parcel_voxel_counts]),
        )
        return sparse.csr_array(csr_entries, (self.parcel_count, flat_parcel_indices.size))

    def average_volumes(self, volumes: np.ndarray) -> np.ndarray:
        """Volumes (n, x, y, z, maps) float32 -> the mean of each map in each parcel, (n, *means_shape, maps) float32;
        summed in the order of the voxels, as TensorFlow does on a CPU, so that the results are the same to the last
        bit."""
        # (records, parcels, maps)
        parcel_sums = np.stack(
            [self._membership_matrix @ volume.reshape(self.parcel_indices.size, -1) for volume in volumes]
        )
        return (parcel_sums / self.parcel_voxel_counts[:, None].astype(np.float32)).reshape(
            len(volumes), *self.means_shape, -1
        )


@lru_cache(4)
def make_cube_parcels(grid: grids.Grid, cube_edge_voxels: int) -> Parcels:
    """Cubes of `cube_edge_voxels` voxels, fewer at the border, as a pooling with padding "same" lays them."""
    cube_counts = [math.ceil(axis_length / cube_edge_voxels) for axis_length in grid.shape]
    padding_before = [
        (cube_count * cube_edge_voxels - axis_length) // 2
        for cube_count, axis_length in zip(cube_counts, grid.shape, strict=True)
    ]
    cube_indices = [
        (np.arange(axis_length) + axis_padding) // cube_edge_voxels
        for axis_length, axis_padding in zip(grid.shape, padding_before, strict=True)
    ]
    return Parcels(
        f"cubes{cube_edge_voxels}",
        np.ravel_multi_index(np.meshgrid(*cube_indices, indexing="ij"), cube_counts),
        tuple(cube_counts),
    )


def make_region_parcels(atlas: Atlas) -> Parcels:
    """The regions of an atlas, in its order."""
    return Parcels("regions", atlas.find_region_indices(atlas.region_labels), (len(atlas.region_numbers),))
