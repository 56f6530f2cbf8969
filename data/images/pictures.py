"""Volumes of people -> small pictures of them, sheets of these, and sums over people, for a page.

A picture has three cuts of a volume in MNI space: seen from the right, from behind and from above.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from data.images import brain, grids

SLICE_POSITIONS_MM = (-6.0, -18.0, 6.0)  # x, y and z of the cuts
SLICE_EXTENTS_MM = ((-84.0, 84.0), (-120.0, 90.0), (-72.0, 96.0))  # what they show; a brain lies well within
SLICE_PLANE_AXES = ((1, 2), (0, 2), (0, 1))  # the axes to the right and up
SLICES_CAPTION = "cuts at x = -6, y = -18 and z = 6 mm in MNI space; the participant's left is on the left"
BRIGHTNESS_PERCENTILES = (1.0, 99.5)  # percent of a brain's values: the darkest and the brightest
DARKEST_BRAIN_GREY = 40  # grey of what lies in the brain; outside it is black
OUTSIDE_POINT_MM = 1e6  # a coordinate outside every volume
WEBP_QUALITY = 75  # of WebP, which has no more than 16,383 pixels along a side
MAX_FULL_SIZE_PEOPLE = 5000
MAX_PICTURES_PER_ROW = 59  # how many pictures, (106, 276) at 2 mm, one sheet holds, and a row of it


@lru_cache(maxsize=8)
def locate_slice_voxels(
    volume_shape: tuple[int, ...], affine_bytes: bytes, step_mm: float
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Where the cuts lie in volumes of this shape and affine (4, 4) float64. The indices of the voxel nearest to each
    point are three arrays (rows, columns); with them, which points (rows, columns) lie in a volume."""
    axis_points_mm = [np.arange(low_mm, high_mm + 1, step_mm) for low_mm, high_mm in SLICE_EXTENTS_MM]
    picture_row_count = max(map(len, axis_points_mm))
    padded_slice_points_mm = []
    for right_axis, up_axis in SLICE_PLANE_AXES:
        points_mm = np.empty((len(axis_points_mm[up_axis]), len(axis_points_mm[right_axis]), 3))
        points_mm[...] = SLICE_POSITIONS_MM
        points_mm[..., right_axis] = axis_points_mm[right_axis]
        points_mm[..., up_axis] = axis_points_mm[up_axis][::-1, None]
        rows_above = (picture_row_count - len(points_mm)) // 2
        rows_below = picture_row_count - len(points_mm) - rows_above
        padded_slice_points_mm.append(
            np.pad(points_mm, ((rows_above, rows_below), (0, 0), (0, 0)), constant_values=OUTSIDE_POINT_MM)
        )
    mm_to_voxel_affine = np.linalg.inv(np.frombuffer(affine_bytes).reshape(4, 4))
    all_points_mm = np.concatenate(padded_slice_points_mm, axis=1)  # (rows, columns, 3)
    point_positions = all_points_mm @ mm_to_voxel_affine[:3, :3].T + mm_to_voxel_affine[:3, 3]  # in voxels
    nearest_voxels = np.rint(point_positions).astype(int)  # (rows, columns, 3)
    is_inside = ((nearest_voxels >= 0) & (nearest_voxels < volume_shape)).all(-1)
    voxel_indices_by_axis = np.moveaxis(np.where(is_inside[..., None], nearest_voxels, 0), -1, 0)
    return tuple(voxel_indices_by_axis), is_inside


def sample_slices(volume: np.ndarray, affine: Sequence[Sequence[float]] | np.ndarray, step_mm: float) -> np.ndarray:
    """The values (rows, columns) of the cuts through a volume (x, y, z), its background outside of it."""
    affine_bytes = np.asarray(affine, np.float64).tobytes()
    voxel_indices_by_axis, is_inside = locate_slice_voxels(volume.shape, affine_bytes, step_mm)
    return np.where(is_inside, volume[voxel_indices_by_axis], brain.find_background_value(volume))


def draw_slices(volume: np.ndarray, affine: Sequence[Sequence[float]] | np.ndarray, step_mm: float) -> np.ndarray:
    """The cuts (rows, columns) uint8: black outside the brain, the brighter the greater within, by its own values."""
    slice_values = sample_slices(volume, affine, step_mm)
    background_value = brain.find_background_value(volume)
    brain_mask = np.abs(slice_values - background_value) > 1e-4 * np.ptp(slice_values)
    if not brain_mask.any():
        return np.zeros(slice_values.shape, np.uint8)
    darkest_value, brightest_value = np.percentile(slice_values[brain_mask], BRIGHTNESS_PERCENTILES)
    brightness_fractions = np.clip(
        (slice_values - darkest_value) / max(brightest_value - darkest_value, np.finfo(np.float32).tiny), 0, 1
    )
    return np.where(brain_mask, DARKEST_BRAIN_GREY + (255 - DARKEST_BRAIN_GREY) * brightness_fractions, 0).astype(
        np.uint8
    )


def encode_webp(grey_pixels: np.ndarray) -> bytes:
    """A picture (rows, columns) uint8 as a WebP file."""
    from PIL import Image

    webp_buffer = io.BytesIO()
    Image.fromarray(grey_pixels).save(webp_buffer, "WEBP", quality=WEBP_QUALITY)
    return webp_buffer.getvalue()


@dataclass(frozen=True)
class PictureSheet:
    """`picture_count` pictures of one size in one image, row by row."""

    picture_count: int

    @property
    def row_and_column_count(self) -> tuple[int, int]:
        """Rows, and pictures in a row."""
        pictures_per_row = max(1, min(math.ceil(math.sqrt(self.picture_count)), MAX_PICTURES_PER_ROW))
        return math.ceil(self.picture_count / pictures_per_row), pictures_per_row

    def encode_pictures(self, pictures: Sequence[np.ndarray]) -> bytes:
        """The sheet of these pictures (rows, columns) uint8 as a WebP file."""
        row_count, pictures_per_row = self.row_and_column_count
        pixel_rows, pixel_columns = pictures[0].shape
        picture_slots = np.zeros((row_count * pictures_per_row, pixel_rows, pixel_columns), np.uint8)
        picture_slots[: len(pictures)] = pictures
        picture_rows = picture_slots.reshape(row_count, pictures_per_row, pixel_rows, pixel_columns).swapaxes(1, 2)
        return encode_webp(picture_rows.reshape(row_count * pixel_rows, -1))

    def make_css_style(self, picture_index: int) -> str:
        """Where a picture lies, as CSS."""
        row_count, pictures_per_row = self.row_and_column_count
        sheet_row, sheet_column = divmod(picture_index, pictures_per_row)
        across_percent = 100 * sheet_column / max(pictures_per_row - 1, 1)
        down_percent = 100 * sheet_row / max(row_count - 1, 1)
        return (
            f"background-size:{100 * pictures_per_row}% {100 * row_count}%;"
            f"background-position:{across_percent:.4f}% {down_percent:.4f}%"
        )


@dataclass
class PeoplePictures:
    """What is kept of people's maps while these are read: pictures of each person, and sums over people."""

    map_names: Sequence[str]
    expected_people_count: int  # decides how finely the first map is drawn
    pictures_by_subject: dict[str, list[np.ndarray]] = field(default_factory=dict)  # by subject, one a map
    map_sums: np.ndarray = field(init=False)  # (maps, 2, x, y, z) on the reduced grid, of values and of their squares

    def __post_init__(self) -> None:
        self.map_sums = np.zeros((len(self.map_names), 2, *grids.REDUCED.shape))

    def add_person_maps(
        self, subject: str, first_map_volume: np.ndarray, reduced_map_volumes: Sequence[np.ndarray]
    ) -> None:
        """Adds the maps of a person on the reduced grid, and the first one as it is stored."""
        first_map_grid = grids.GRID_BY_SHAPE[first_map_volume.shape]
        reduced_grid = grids.REDUCED
        first_map_step_mm = reduced_grid.spacing_mm
        if self.expected_people_count <= MAX_FULL_SIZE_PEOPLE:
            first_map_step_mm = first_map_grid.spacing_mm
        self.pictures_by_subject[subject] = [
            draw_slices(first_map_volume, first_map_grid.affine, first_map_step_mm),
            *(draw_slices(volume, reduced_grid.affine, reduced_grid.spacing_mm) for volume in reduced_map_volumes[1:]),
        ]
        for sum_and_square_sum, volume in zip(self.map_sums, reduced_map_volumes, strict=True):
            sum_and_square_sum += volume, np.square(volume, dtype=np.float64)

    def compute_mean_and_sd(self, map_index: int) -> dict[str, np.ndarray]:
        """The `mean_volume` and the `SD` of a map over people, each (x, y, z); of one person there is no SD."""
        people_count = len(self.pictures_by_subject)
        value_sums, squared_value_sums = self.map_sums[map_index]
        mean_volume = value_sums / people_count
        if people_count < 2:
            return {"mean": mean_volume}
        squared_deviation_sums = np.maximum(squared_value_sums - people_count * mean_volume**2, 0)
        return {"mean": mean_volume, "SD": np.sqrt(squared_deviation_sums / (people_count - 1))}
