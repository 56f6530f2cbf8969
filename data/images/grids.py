"""The voxel grids: full, of 2 mm, and reduced, of 6 mm, both in MNI152 space."""

from dataclasses import dataclass

BLOCK_EDGE = 3  # a reduced voxel stands for BLOCK_EDGE^3 full-size voxels
MAX_MAPS = 64  # of a record, which bounds the memory that one takes


@dataclass(frozen=True)
class Grid:
    """A grid of voxels in MNI152 space."""

    name: str  # "full" or "reduced"
    shape: tuple[int, int, int]  # voxels along x, y and z
    spacing_mm: float  # between voxel centres
    origin_mm: tuple[float, float, float] = (-90.0, -126.0, -72.0)  # the centre of voxel (0, 0, 0)

    @property
    def affine(self) -> list[list[float]]:
        """Voxel index -> mm, 4x4."""
        origin_x, origin_y, origin_z = self.origin_mm
        return [
            [self.spacing_mm, 0.0, 0.0, origin_x],
            [0.0, self.spacing_mm, 0.0, origin_y],
            [0.0, 0.0, self.spacing_mm, origin_z],
            [0.0, 0.0, 0.0, 1.0],
        ]

    def __str__(self) -> str:
        return "x".join(map(str, self.shape))


FULL = Grid("full", (91, 109, 91), 2.0)
REDUCED = Grid("reduced", (31, 37, 31), 6.0)
GRID_BY_NAME = {"full": FULL, "reduced": REDUCED}
GRID_BY_SHAPE: dict[tuple[int, ...], Grid] = {FULL.shape: FULL, REDUCED.shape: REDUCED}
