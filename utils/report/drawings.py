"""The report's figures, each labelled with its name: forest plot, ROC, calibration.

Equal tables give equal bytes. A figure is no wider than a telephone's screen needs.
"""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from data.base.tables import make_printable
from data.cohorts.records import CLASS_NAMES
from data.pages.drawings import PAGE_FIGURE_SETTINGS, Forest
from utils import figures
from utils.scores.metrics import Predictions
from utils.scores.results import (
    CONFIDENCE_LEVEL,
    NO_INTERVAL,
    THRESHOLD,
    UNDEFINED,
    Estimate,
)
from utils.scores.statistics import share_of

DARK = 0.6  # share of a class from which on its cell takes white letters
WIDTH = 4.2  # inches
BINS = 10  # of probabilities, in a figure
NAME_WIDTH, LINE_WIDTH = 60, 26  # characters of a baseline's name, of a line of it
Scores = Mapping[str, Estimate]


def axes(name: str, height: float, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure of the common width with the label `name`, and its axes from top to bottom."""
    with plt.rc_context(PAGE_FIGURE_SETTINGS):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")  # unknown to pyplot: nobody has to close it
        figure.set_label(name)
        return figure, figure.subplots(rows, squeeze=False, **options)[:, 0]


def forest(of: Forest) -> Figure:
    """The forest plot of the page as a figure: the first bar on top, the interval of the main one behind all."""
    figure, (axis,) = axes("forest", 0.6 + 0.34 * len(of.bars))
    for place, bar in enumerate(of.bars):
        colour = {"main": "C0", "named": "C1"}.get(bar.kind, "0.35")
        axis.plot([bar.interval_low, bar.interval_high], [place, place], color=colour, linewidth=1.8)
        axis.plot(bar.value, place, "o", color=colour, markersize=5)
        if bar.kind == "main":
            axis.axvspan(bar.interval_low, bar.interval_high, color="C0", alpha=0.1, linewidth=0)
    names = [textwrap.fill(figures.shortened(make_printable(bar.name), NAME_WIDTH), LINE_WIDTH) for bar in of.bars]
    axis.axvline(of.line, color="0.3", linestyle=":", linewidth=1)
    axis.set_yticks(np.arange(len(of.bars)), names)
    axis.set_ylim(len(of.bars) - 0.5, -0.5)
    axis.set_xlabel(of.about)
    return figure


def classification(predictions: Predictions, scores: Scores, folder: Path, marks: str) -> None:
    """`roc.png` and `confusion_matrix.png` in a folder, as the report draws and counts them."""
    for name, figure in (("roc", roc(predictions, scores)), ("confusion_matrix", confusion(predictions, scores))):
        figure.suptitle(marks.strip(), fontsize=8.5)
        figures.save(figure, folder / f"{name}.png")


def roc(predictions: Predictions, scores: Scores) -> Figure:
    """ROC curve of all records, with the AUC; without a curve where a class is missing."""
    figure, (axis,) = axes("roc", 3.8)
    if len(np.unique(predictions.label)) < len(CLASS_NAMES):
        axis.set(title="No ROC curve: all records are of one class.", xticks=[], yticks=[])
        return figure
    name = f"AUC {scores['auc'].text('.2f')}"
    axis.plot(*roc_curve(predictions.label, predictions.probability)[:2], color="C0", label=name)
    axis.plot([0, 1], [0, 1], color="0.3", linestyle=":", linewidth=1, label="guessing")
    control, autism = CLASS_NAMES
    axis.set_xlabel(f"false positive rate ({control} taken for {autism})")
    axis.set_ylabel(f"true positive rate ({autism} found)")
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axis.legend(loc="lower right")
    return figure


def confusion_rows(predictions: Predictions, scores: Scores, no_interval: str = NO_INTERVAL) -> list[list[str]]:
    """True classes (control, autism) by predicted ones, such as `22: 88% (70% to 96%)`: how many records, and which
    share of the row. The share has an interval if recall or specificity has one."""
    rows = []
    for label, name in enumerate(("specificity", "recall")):
        taken = predictions.probability[predictions.label == label] >= THRESHOLD
        found = scores.get(name, UNDEFINED)
        cells = []
        for to in (False, True):
            low, high = found.numbers[1:] if to == bool(label) else 1 - np.array(found.numbers[:0:-1])
            share = Estimate.of((taken == to).sum() / max(len(taken), 1), low, high)
            cells.append(f"{(taken == to).sum()}: {share.text('.0%', no_interval=no_interval)}")
        rows.append(cells)
    return rows


def confusion(predictions: Predictions, scores: Scores) -> Figure:
    """The counts of `confusion_rows`, coloured by their share of the true class."""
    figure, (axis,) = axes("confusion", 3.4)
    taken = predictions.probability >= THRESHOLD
    counts = np.array([[((predictions.label == of) & (taken == to)).sum() for to in (0, 1)] for of in (0, 1)])
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (of, to), share in np.ndenumerate(shares):
        text = confusion_rows(predictions, scores)[of][to].replace(": ", "\n").replace(" (", "\n").rstrip(")")
        axis.text(to, of, text, ha="center", va="center", color="white" if share > DARK else "black")
    names = [str(name) for name in CLASS_NAMES]
    axis.set(xticks=(0, 1), yticks=(0, 1), xticklabels=names, yticklabels=names)
    axis.set(
        xlabel=f"predicted diagnosis; intervals: {CONFIDENCE_LEVEL:.0%}, over participants", ylabel="true diagnosis"
    )
    return figure


def calibrated(label: np.ndarray, named: Mapping[str, np.ndarray]) -> Figure:
    """Share of autism against predicted probabilities (n,), one or two kinds of them by name, above the number of
    records in each bin."""
    figure, (shares, counts) = axes("calibration", 4.4, 2, sharex=True, height_ratios=(4, 1))
    width = 0.9 / BINS / len(named)
    for at, (name, probability) in enumerate(named.items()):
        table, colour = calibration(label, probability), f"C{at}"
        error = np.maximum([table["observed"] - table["low"], table["high"] - table["observed"]], 0)
        shares.errorbar(table["predicted"], table["observed"], error, fmt="o", color=colour, capsize=2, label=name)
        places = (table["bin"] + 0.5) / BINS + width * (at - (len(named) - 1) / 2)
        bars = counts.bar(places, table["count"], width=width, color="0.75" if len(named) == 1 else colour)
        counts.bar_label(bars, fontsize=8.5 if len(named) == 1 else 5.5)
    shares.plot([0, 1], [0, 1], color="0.3", linestyle=":", linewidth=1)
    shares.set(ylabel="share with autism", ylim=(-0.04, 1.04), xlim=(-0.02, 1.02))
    if len(named) > 1:
        shares.legend(loc="upper left")
    counts.margins(y=0.35)
    counts.set(xlabel="predicted probability of autism", ylabel="records")
    return figure


def calibration(label: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    """A row for each of `BINS` bins of equal width that holds a record.

    `bin`, `count`, `predicted` (mean probability), and `observed` (share of autism) with its Wilson interval `low`,
    `high`.
    """
    index = np.minimum((probability * BINS).astype(int), BINS - 1)
    rows = []
    for number in np.unique(index):
        positive, count = int(label[index == number].sum()), int((index == number).sum())
        rows.append((number, count, probability[index == number].mean(), *share_of(positive, count).numbers))
    return pd.DataFrame(rows, columns=["bin", "count", "predicted", "observed", "low", "high"])
