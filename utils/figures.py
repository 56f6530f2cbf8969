"""Figures as PNG files: training history, confusion matrix, ROC curve, slices of a volume."""

import warnings
from pathlib import Path

import matplotlib
import numpy as np

from data import files
from data.grids import FULL
from data.records import CLASSES
from utils.statistics import THRESHOLD

matplotlib.use("Agg")
from matplotlib import pyplot as plt

plt.rcParams["text.parse_math"] = False  # a dollar in a user's name is a dollar

SIDES = "L is the subject's left (neurological)"
SLICES = {True: (40, 55, 60), False: (10, 15, 19)}  # z of the slices shown, at full size and reduced


def save(figure, path: Path) -> None:
    """Writes a figure as PNG and closes it; a letter that the font lacks is drawn as a box."""
    with files.replacing(path, "wb") as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        figure.savefig(file, format="png", dpi=120)
    plt.close(figure)


def history(rows: list[dict], path: Path) -> None:
    """Loss, and accuracy where there is a label, over batches; thin: each batch, thick: running mean of 20."""
    names = [name for name in ("loss", "accuracy") if name in rows[0]]
    figure, axes = plt.subplots(1, len(names), figsize=(5 * len(names), 3.5), layout="constrained", squeeze=False)
    steps = np.array([row["step"] for row in rows], float)
    width = min(20, len(rows))
    for name, axis in zip(names, axes[0], strict=True):
        values = np.array([row[name] for row in rows], float)
        axis.plot(steps, values, color="0.75", linewidth=0.8)
        axis.plot(steps[width - 1 :], np.convolve(values, np.full(width, 1 / width), "valid"), color="C0")
        axis.set(xlabel="batches seen", ylabel=f"training {name}")
    save(figure, path)


def confusion_matrix(label: np.ndarray, probability: np.ndarray, path: Path) -> None:
    """Counts of true against predicted classes at the threshold."""
    from sklearn.metrics import ConfusionMatrixDisplay

    figure, axis = plt.subplots(figsize=(4.5, 4), layout="constrained")
    predicted = (probability >= THRESHOLD).astype(int)
    options = {"labels": [0, 1], "display_labels": CLASSES, "cmap": "Blues", "colorbar": False}
    ConfusionMatrixDisplay.from_predictions(label.astype(int), predicted, ax=axis, **options)
    save(figure, path)


def roc(label: np.ndarray, probability: np.ndarray, path: Path) -> None:
    """True against false positive rate of autism."""
    from sklearn.metrics import RocCurveDisplay

    figure, axis = plt.subplots(figsize=(4.5, 4), layout="constrained")
    if len(np.unique(label)) == len(CLASSES):
        RocCurveDisplay.from_predictions(label, probability, ax=axis, name="autism", plot_chance_level=True)
    else:
        axis.set_title("undefined: one class only")
    save(figure, path)


def slices(volume: np.ndarray, title: str, path: Path) -> None:
    """Three z slices of a volume (x, y, z), left is left, anterior up, grey, one colour bar."""
    at = SLICES[volume.shape == FULL.shape]
    figure, axes = plt.subplots(1, len(at), figsize=(9, 3.6), layout="constrained")
    limits = {"vmin": float(volume.min()), "vmax": float(volume.max())}
    for z, axis in zip(at, axes, strict=True):
        image = axis.imshow(volume[:, :, z].T, origin="lower", cmap="gray", **limits)
        axis.set(title=f"z = {z}", xticks=[], yticks=[])
    figure.suptitle(title)
    figure.colorbar(image, ax=axes, shrink=0.8)
    save(figure, path)
