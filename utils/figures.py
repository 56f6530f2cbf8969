"""Figures as PNG and SVG files: training history, slices of a volume; and texts in figures."""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import matplotlib
import numpy as np

from data.base import files
from data.images.grids import FULL, Grid

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

plt.rcParams["text.parse_math"] = False  # a dollar in a user's name starts no formula
plt.rcParams["figure.dpi"] = 120  # dots an inch of a figure that does not say

LEFT_RIGHT_CAPTION = "L is the participant's left (neurological)"
FIGURE_SLICE_HEIGHTS_MM = (8, 38, 48)  # z of the slices shown, MNI space
SMOOTHING_BATCHES = 20  # batches of a running mean

FIGURE_GLYPH_WARNING = r"Glyph \d+ .* missing from font"
FIGURE_METADATA_BY_FORMAT: dict[
    str, dict[str, None]
] = {  # the forms of a figure, each with the metadata that it does without
    "png": {},
    "svg": dict.fromkeys(("Creator", "Date", "Format", "Type")),
}
# Equal figures give equal bytes; texts stay texts, which a journal may set in its own font
FIGURE_RC_SETTINGS: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "figure"}


def save_figure(figure: Figure, png_path: Path) -> list[Path]:
    """Writes a figure as PNG to `png_path`, as SVG beside it, and closes it; equal figures give equal bytes."""
    written_paths = [png_path.with_suffix(f".{file_format}") for file_format in FIGURE_METADATA_BY_FORMAT]
    for target_path, file_format in zip(written_paths, FIGURE_METADATA_BY_FORMAT, strict=True):
        with files.open_replacement(target_path, "w" if file_format == "svg" else "wb") as file:
            write_figure(figure, file, file_format)
    plt.close(figure)
    return written_paths


def write_figure(figure: Figure, file: IO, file_format: str) -> None:
    """Writes a figure in one of the forms; a letter that the font lacks is drawn as a box."""
    with plt.rc_context(FIGURE_RC_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", FIGURE_GLYPH_WARNING)
        figure.savefig(file, format=file_format, dpi="figure", metadata=FIGURE_METADATA_BY_FORMAT[file_format])


def save_history_figure(history_rows: list[dict], figure_path: Path) -> None:
    """Loss, and accuracy where there is a label, over batches: each of them, and their running mean."""
    metric_names = [metric for metric in ("loss", "accuracy") if metric in history_rows[0]]
    figure, axes = plt.subplots(
        1, len(metric_names), figsize=(5 * len(metric_names), 3.5), layout="constrained", squeeze=False
    )
    batches_seen = np.array([row["step"] for row in history_rows], float)
    window_batches = min(SMOOTHING_BATCHES, len(history_rows))
    for metric, ax in zip(metric_names, axes[0], strict=True):
        metric_values = np.array([row[metric] for row in history_rows], float)
        running_mean = np.convolve(metric_values, np.full(window_batches, 1 / window_batches), "valid")
        ax.plot(batches_seen, metric_values, color="0.75", linewidth=0.8, label="each batch")
        ax.plot(
            batches_seen[window_batches - 1 :],
            running_mean,
            color="C0",
            label=f"mean of the last {window_batches} batches",
        )
        ax.set(xlabel="batches seen", ylabel=f"training {metric}")
        ax.legend(fontsize=8)
    figure.supxlabel("These are the records that the network was trained on.", fontsize=9)
    save_figure(figure, figure_path)


@dataclass(frozen=True)
class VolumePicture:
    """A volume (x, y, z) on a grid, with the unit of its values."""

    title: str
    volume: np.ndarray
    grid: Grid
    value_unit: str


def save_slices_figure(picture: VolumePicture, grey_limits: tuple[float, float], figure_path: Path) -> None:
    """The axial slices at `FIGURE_SLICE_HEIGHTS_MM`, in the frame of the full grid; `grey_limits` are the values drawn
    black and white.

    Where no slice of the grid is centred at a height, the nearest one is shown, with its own height in the title.
    """
    volume = picture.volume
    grid = picture.grid
    figure, axes = plt.subplots(1, len(FIGURE_SLICE_HEIGHTS_MM), figsize=(10, 4.4), layout="constrained")
    black_value, white_value = grey_limits
    x_extents_mm, y_extents_mm, _ = (
        (compute_grid_extent_mm(grid, axis), compute_grid_extent_mm(FULL, axis)) for axis in range(3)
    )
    for z_mm, axis in zip(FIGURE_SLICE_HEIGHTS_MM, axes, strict=True):
        slice_index = int(np.clip(round((z_mm - grid.origin_mm[2]) / grid.spacing_mm), 0, grid.shape[2] - 1))
        slice_z_mm = grid.origin_mm[2] + grid.spacing_mm * slice_index
        image = axis.imshow(
            volume[:, :, slice_index].T,
            origin="lower",
            cmap="gray",
            vmin=black_value,
            vmax=white_value,
            extent=(*x_extents_mm[0], *y_extents_mm[0]),
        )
        axis.set(xlim=x_extents_mm[1], ylim=y_extents_mm[1], xticks=[], yticks=[], facecolor="black")
        axis.set_title(
            f"z = {z_mm} mm" if slice_z_mm == z_mm else f"z = {z_mm} mm (slice at {slice_z_mm:g} mm)", fontsize=10
        )
        axis.set_title("L", loc="left")
        axis.set_title("R", loc="right")
    figure.suptitle(picture.title)
    figure.supxlabel(f"axial slices, MNI space; {LEFT_RIGHT_CAPTION}", fontsize=9)
    colorbar_extend = ("neither", "min", "max", "both")[(volume.min() < black_value) + 2 * (volume.max() > white_value)]
    figure.colorbar(image, ax=axes, shrink=0.8, label=picture.value_unit, extend=colorbar_extend)
    save_figure(figure, figure_path)


def compute_grid_extent_mm(grid: Grid, axis_index: int) -> tuple[float, float]:
    """Both ends of a grid along an axis, mm."""
    begin_mm = grid.origin_mm[axis_index] - grid.spacing_mm / 2
    return begin_mm, begin_mm + grid.spacing_mm * grid.shape[axis_index]


def shorten_text(text: str, max_length: int) -> str:
    """At most `max_length` characters, the last one an ellipsis if any were cut off."""
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


def format_number(value: float, number_format: str, undefined_text: str = "-") -> str:
    """A number in a format; `undefined_text` for NaN and infinity."""
    return format(value, number_format) if math.isfinite(value) else undefined_text
