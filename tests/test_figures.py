"""Figures, as drawn: what is named, and that slices of all grids show the same anatomy in the same frame."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import pyplot as plt

from utils import figures

ORIGIN_MM = (-90.0, -126.0, -72.0)
FULL, REDUCED, COARSE = (
    figures.Grid(name, shape, spacing_mm, ORIGIN_MM)
    for name, shape, spacing_mm in (
        ("full", (91, 109, 91), 2.0),
        ("reduced", (31, 37, 31), 6.0),
        ("code", (11, 13, 11), 18.0),
    )
)


PATH = Path("path")  # where nothing is written


@pytest.fixture
def drawn(monkeypatch):
    """Figures that would have been written, by their path."""
    figure_by_path: dict[Path, Any] = {}
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: figure_by_path.setdefault(path, figure))
    yield figure_by_path
    plt.close("all")


def make_z_volume(grid: figures.Grid) -> np.ndarray:
    """A volume whose values are their own z in mm."""
    z = grid.origin_mm[2] + grid.spacing_mm * np.arange(grid.shape[2])
    return np.broadcast_to(z, grid.shape).astype(np.float32)


@pytest.mark.parametrize(
    "grid, heights",
    [(FULL, (8, 38, 48)), (REDUCED, (6, 36, 48)), (COARSE, (0, 36, 54))],
    ids=["full", "code", "9 fold"],
)
def test_slices_on_all_grids_have_the_same_mm(grid, heights, drawn):
    figures.save_slices_figure(figures.VolumePicture("title", make_z_volume(grid), grid, "unit"), (-72.0, 108.0), PATH)
    panels = drawn[PATH].axes[:3]
    for requested_mm, height, axis in zip((8, 38, 48), heights, panels, strict=True):
        (image,) = axis.images
        assert (image.get_array() == height).all()
        assert image.get_clim() == (-72, 108)
        expected_title = (
            f"z = {requested_mm} mm" if requested_mm == height else f"z = {requested_mm} mm (slice at {height} mm)"
        )
        assert [axis.get_title(loc) for loc in ("left", "center", "right")] == ["L", expected_title, "R"]
        assert axis.get_xlim() == (-91, 91) and axis.get_ylim() == (-127, 91)
    assert drawn[PATH].axes[3].get_ylabel() == "unit"


def test_left_is_left_and_the_front_is_up(drawn):
    """One bright voxel at (-60, 30, 38) mm: left of and above the middle, drawn at its own mm."""
    volume = np.zeros(FULL.shape, np.float32)
    volume[15, 78, 55] = 1
    figures.save_slices_figure(figures.VolumePicture("title", volume, FULL, "unit"), (0.0, 0.5), PATH)
    (image,) = drawn[PATH].axes[1].images
    (row,), (column,) = np.nonzero(image.get_array())
    left, right, bottom, top = image.get_extent()
    assert left + (column + 0.5) / 91 * (right - left) == pytest.approx(-60)
    assert bottom + (row + 0.5) / 109 * (top - bottom) == pytest.approx(30)
    assert image.origin == "lower"


@pytest.mark.slow
def test_a_constant_volume_is_drawn(tmp_path):
    picture = figures.VolumePicture("title", np.zeros(FULL.shape, np.float32), FULL, "unit")
    figures.save_slices_figure(picture, (0.0, 0.0), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size


def test_history_names_axes_and_curves(drawn):
    rows = [{"step": step, "loss": 1 / step, "accuracy": 0.5} for step in range(1, 31)]
    figures.save_history_figure(rows, PATH)
    for axis, name in zip(drawn[PATH].axes, ("loss", "accuracy"), strict=True):
        assert (axis.get_xlabel(), axis.get_ylabel()) == ("batches seen", f"training {name}")
        assert [text.get_text() for text in axis.get_legend().get_texts()] == [
            "each batch",
            "mean of the last 20 batches",
        ]
    assert drawn[PATH].get_supxlabel() == "These are the records that the network was trained on."
    mean = drawn[PATH].axes[0].lines[1].get_ydata()
    assert mean[0] == pytest.approx(np.mean([1 / step for step in range(1, 21)]))


def test_a_figure_is_a_picture_and_a_vector_file_with_the_same_bytes_again(tmp_path):
    before = {}
    for name in ("one", "two"):
        figure, axis = plt.subplots(figsize=(1, 1))
        axis.plot([0, 1], label="model")
        axis.legend()
        (tmp_path / name).mkdir()
        written = figures.save_figure(figure, tmp_path / name / "roc.png")
        assert [path.name for path in written] == ["roc.png", "roc.svg"]
        before[name] = [path.read_bytes() for path in written]
    assert before["one"] == before["two"]
    png, svg = before["one"]
    assert png.startswith(b"\x89PNG") and ElementTree.fromstring(svg) is not None
    assert b">model<" in svg  # a text that can be edited


@pytest.mark.slow
def test_user_texts_are_drawn_verbatim(tmp_path):
    """A dollar is no mathematics, and a letter without a glyph no warning."""
    figure, axis = plt.subplots()
    axis.set_title("$\\frac{1}{0$ 額葉 \x07")
    figures.save_figure(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
