"""Volumes of people -> small pictures of them, sheets of these, and sums over people, for a page.

A picture has three cuts of a volume in MNI space: seen from the right, from behind and from above.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from data.cohorts import records

CUTS_MM = (-6.0, -18.0, 6.0)  # x, y and z of the cuts
SIDES_MM = ((-84.0, 84.0), (-120.0, 90.0), (-72.0, 96.0))  # what they show; a brain lies well within
PLANES = ((1, 2), (0, 2), (0, 1))  # the axes to the right and up
CUTS = "cuts at x = -6, y = -18 and z = 6 mm in MNI space; the participant's left is on the left"
WINDOW = (1.0, 99.5)  # percent of a brain's values: the darkest and the brightest
DARKEST = 40  # grey of what lies in the brain; outside it is black
OUTSIDE_MM = 1e6
QUALITY = 75  # of WebP, which has no more than 16,383 pixels along a side
FEW, MOST_IN_ROW = 5000, 59  # people whose pictures, (106, 276) at 2 mm, one sheet holds; of a row of it


@lru_cache(maxsize=8)
def sampled(shape: tuple[int, ...], affine: bytes, step_mm: float) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Where the cuts lie in volumes of this shape and affine (4, 4) float64. The indices of the voxel nearest to each
    point are three arrays (rows, columns); with them, which points (rows, columns) lie in a volume."""
    axes = [np.arange(low, high + 1, step_mm) for low, high in SIDES_MM]
    height, cuts = max(map(len, axes)), []
    for right, up in PLANES:
        points = np.empty((len(axes[up]), len(axes[right]), 3))
        points[...] = CUTS_MM
        points[..., right], points[..., up] = axes[right], axes[up][::-1, None]
        above = (height - len(points)) // 2
        below = height - len(points) - above
        cuts.append(np.pad(points, ((above, below), (0, 0), (0, 0)), constant_values=OUTSIDE_MM))
    to_voxels = np.linalg.inv(np.frombuffer(affine).reshape(4, 4))
    at = np.rint(np.concatenate(cuts, axis=1) @ to_voxels[:3, :3].T + to_voxels[:3, 3]).astype(int)
    inside = ((at >= 0) & (at < shape)).all(-1)
    return tuple(np.moveaxis(np.where(inside[..., None], at, 0), -1, 0)), inside


def cuts_of(volume: np.ndarray, affine: Sequence[Sequence[float]] | np.ndarray, step_mm: float) -> np.ndarray:
    """The values (rows, columns) of the cuts through a volume (x, y, z), its background outside of it."""
    at, inside = sampled(volume.shape, np.asarray(affine, np.float64).tobytes(), step_mm)
    return np.where(inside, volume[at], records.background(volume))


def picture(volume: np.ndarray, affine: Sequence[Sequence[float]] | np.ndarray, step_mm: float) -> np.ndarray:
    """The cuts (rows, columns) uint8: black outside the brain, the brighter the greater within, by its own values."""
    values, level = cuts_of(volume, affine, step_mm), records.background(volume)
    brain = np.abs(values - level) > 1e-4 * np.ptp(values)
    if not brain.any():
        return np.zeros(values.shape, np.uint8)
    low, high = np.percentile(values[brain], WINDOW)
    share = np.clip((values - low) / max(high - low, np.finfo(np.float32).tiny), 0, 1)
    return np.where(brain, DARKEST + (255 - DARKEST) * share, 0).astype(np.uint8)


def webp(image: np.ndarray) -> bytes:
    """A picture (rows, columns) uint8 as a WebP file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", quality=QUALITY)
    return file.getvalue()


@dataclass(frozen=True)
class Sheet:
    """So many pictures of one size in one image, row by row."""

    count: int

    @property
    def size(self) -> tuple[int, int]:
        """Rows, and pictures in a row."""
        width = max(1, min(math.ceil(math.sqrt(self.count)), MOST_IN_ROW))
        return math.ceil(self.count / width), width

    def image(self, pictures: Sequence[np.ndarray]) -> bytes:
        """As a WebP file."""
        (height, width), (rows, columns) = self.size, pictures[0].shape
        places = np.zeros((height * width, rows, columns), np.uint8)
        places[: len(pictures)] = pictures
        return webp(places.reshape(height, width, rows, columns).swapaxes(1, 2).reshape(height * rows, -1))

    def style(self, at: int) -> str:
        """Where a picture lies, as CSS."""
        height, width = self.size
        row, column = divmod(at, width)
        across, down = (f"{100 * of / max(most - 1, 1):.4f}%" for of, most in ((column, width), (row, height)))
        return f"background-size:{100 * width}% {100 * height}%;background-position:{across} {down}"


@dataclass
class Pictures:
    """What is kept of people's maps while these are read: pictures of each person, and sums over people."""

    maps: Sequence[str]
    people: int  # that are to be expected
    of_people: dict[str, list[np.ndarray]] = field(default_factory=dict)  # by subject, one a map
    sums: np.ndarray = field(init=False)  # (maps, 2, x, y, z) on the reduced grid, of values and of their squares

    def __post_init__(self) -> None:
        self.sums = np.zeros((len(self.maps), 2, *records.REDUCED.shape))

    def add(self, subject: str, first: np.ndarray, reduced: Sequence[np.ndarray]) -> None:
        """The maps of a person on the reduced grid, and the first one as it is stored."""
        grid = records.GRID_OF_SHAPE[first.shape]
        coarse = records.REDUCED
        self.of_people[subject] = [
            picture(first, grid.affine, grid.spacing_mm if self.people <= FEW else coarse.spacing_mm),
            *(picture(volume, coarse.affine, coarse.spacing_mm) for volume in reduced[1:]),
        ]
        for of_map, volume in zip(self.sums, reduced, strict=True):
            of_map += volume, np.square(volume, dtype=np.float64)

    def mean_and_sd(self, at: int) -> dict[str, np.ndarray]:
        """Over people, of a map, each (x, y, z), by `mean` and `SD`; of one person there is no SD."""
        count = len(self.of_people)
        mean, squares = self.sums[at, 0] / count, self.sums[at, 1]
        if count < 2:
            return {"mean": mean}
        return {"mean": mean, "SD": np.sqrt(np.maximum(squares - count * mean**2, 0) / (count - 1))}
