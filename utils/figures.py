"""Figures as PNG and SVG files: training history, slices of a volume; and texts in figures."""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import matplotlib
import numpy as np

from data.base import files
from data.cohorts.records import FULL, Grid

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

plt.rcParams["text.parse_math"] = False  # a dollar in a user's name starts no formula
plt.rcParams["figure.dpi"] = 120  # dots an inch of a figure that does not say

SIDES = "L is the participant's left (neurological)"
CUTS_MM = (8, 38, 48)  # z of the slices shown, MNI space
SMOOTHED = 20  # batches

NO_GLYPH = r"Glyph \d+ .* missing from font"
UNDATED: dict[str, dict[str, None]] = {  # the forms of a figure, each with the metadata that it does without
    "png": {},
    "svg": dict.fromkeys(("Creator", "Date", "Format", "Type")),
}
# Equal figures give equal bytes; texts stay texts, which a journal may set in its own font
SETTINGS: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "figure"}


def save(figure: Figure, path: Path) -> list[Path]:
    """Writes a figure as PNG to `path`, as SVG beside it, and closes it; equal figures give equal bytes."""
    written = [path.with_suffix(f".{form}") for form in UNDATED]
    for target, form in zip(written, UNDATED, strict=True):
        with files.open_replacement(target, "w" if form == "svg" else "wb") as file:
            write(figure, file, form)
    plt.close(figure)
    return written


def write(figure: Figure, file: IO, form: str) -> None:
    """Writes a figure in one of the forms; a letter that the font lacks is drawn as a box."""
    with plt.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", NO_GLYPH)
        figure.savefig(file, format=form, dpi="figure", metadata=UNDATED[form])


def history(rows: list[dict], path: Path) -> None:
    """Loss, and accuracy where there is a label, over batches: each of them, and their running mean."""
    names = [name for name in ("loss", "accuracy") if name in rows[0]]
    figure, axes = plt.subplots(1, len(names), figsize=(5 * len(names), 3.5), layout="constrained", squeeze=False)
    steps = np.array([row["step"] for row in rows], float)
    width = min(SMOOTHED, len(rows))
    for name, axis in zip(names, axes[0], strict=True):
        values = np.array([row[name] for row in rows], float)
        mean = np.convolve(values, np.full(width, 1 / width), "valid")
        axis.plot(steps, values, color="0.75", linewidth=0.8, label="each batch")
        axis.plot(steps[width - 1 :], mean, color="C0", label=f"mean of the last {width} batches")
        axis.set(xlabel="batches seen", ylabel=f"training {name}")
        axis.legend(fontsize=8)
    figure.supxlabel("These are the records that the network was trained on.", fontsize=9)
    save(figure, path)


@dataclass(frozen=True)
class Picture:
    """A volume (x, y, z) on a grid, with the unit of its values."""

    title: str
    volume: np.ndarray
    grid: Grid
    unit: str


def slices(picture: Picture, limits: tuple[float, float], path: Path) -> None:
    """The axial slices at `CUTS_MM`, in the frame of the full grid; `limits` are the values drawn black and white.

    Where no slice of the grid is centred at a height, the nearest one is shown, with its own height in the title.
    """
    volume, grid = picture.volume, picture.grid
    figure, axes = plt.subplots(1, len(CUTS_MM), figsize=(10, 4.4), layout="constrained")
    low, high = limits
    left, front, _ = ((edges(grid, axis), edges(FULL, axis)) for axis in range(3))
    for z, axis in zip(CUTS_MM, axes, strict=True):
        level = int(np.clip(round((z - grid.origin_mm[2]) / grid.spacing_mm), 0, grid.shape[2] - 1))
        centre = grid.origin_mm[2] + grid.spacing_mm * level
        image = axis.imshow(
            volume[:, :, level].T, origin="lower", cmap="gray", vmin=low, vmax=high, extent=(*left[0], *front[0])
        )
        axis.set(xlim=left[1], ylim=front[1], xticks=[], yticks=[], facecolor="black")
        axis.set_title(f"z = {z} mm" if centre == z else f"z = {z} mm (slice at {centre:g} mm)", fontsize=10)
        axis.set_title("L", loc="left")
        axis.set_title("R", loc="right")
    figure.suptitle(picture.title)
    figure.supxlabel(f"axial slices, MNI space; {SIDES}", fontsize=9)
    extend = ("neither", "min", "max", "both")[(volume.min() < low) + 2 * (volume.max() > high)]
    figure.colorbar(image, ax=axes, shrink=0.8, label=picture.unit, extend=extend)
    save(figure, path)


def edges(grid: Grid, axis: int) -> tuple[float, float]:
    """Both ends of a grid along an axis, mm."""
    begin = grid.origin_mm[axis] - grid.spacing_mm / 2
    return begin, begin + grid.spacing_mm * grid.shape[axis]


def shortened(text: str, width: int) -> str:
    """At most `width` characters, the last one an ellipsis if any were cut off."""
    return text if len(text) <= width else text[: width - 1] + "…"


def number(value: float, form: str, undefined: str = "-") -> str:
    """A number in a format; `undefined` for NaN and infinity."""
    return format(value, form) if math.isfinite(value) else undefined
