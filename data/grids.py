"""The two voxel grids of the MNI152 space that volumes lie on, both RAS+ and isotropic."""

from collections.abc import Sequence
from dataclasses import dataclass

BLOCK = 3  # a reduced voxel stands for BLOCK^3 full-size voxels


@dataclass(frozen=True)
class Grid:
    """A grid of `shape` (x, y, z) voxels whose voxel (0, 0, 0) is centred at `origin_mm`."""

    name: str
    shape: tuple[int, int, int]
    spacing_mm: float
    origin_mm: tuple[float, float, float] = (-90.0, -126.0, -72.0)

    @property
    def affine(self) -> list[list[float]]:
        """Voxel index -> mm, 4x4."""
        rows = [[self.spacing_mm * (row == column) for column in range(3)] + [self.origin_mm[row]] for row in range(3)]
        return [*rows, [0.0, 0.0, 0.0, 1.0]]

    def lies_by(self, affine: Sequence[Sequence[float]]) -> bool:
        """Whether it is this grid's; any nested numbers can be asked for."""
        return [list(row) for row in affine] == self.affine

    def __str__(self) -> str:
        return "x".join(map(str, self.shape))


FULL = Grid("full", (91, 109, 91), 2.0)
REDUCED = Grid("reduced", (31, 37, 31), 6.0)
GRIDS = {"full": FULL, "reduced": REDUCED}
