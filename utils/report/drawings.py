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
from data.base.thresholds import CONFIDENCE_LEVEL
from data.pages.drawings import PAGE_FIGURE_SETTINGS, Forest
from data.tables.vocabulary import CLASS_NAMES
from utils import figures
from utils.scores.metrics import Predictions
from utils.scores.results import NO_INTERVAL_TEXT, THRESHOLD, UNDEFINED, Estimate
from utils.scores.statistics import estimate_share

WHITE_TEXT_SHARE = 0.6  # share of a class from which on its cell takes white letters
REPORT_FIGURE_INCHES = 4.2  # width of a figure
CALIBRATION_BIN_COUNT = 10  # of probabilities, in a figure
MAX_BASELINE_NAME_LENGTH = 60
BASELINE_LINE_LENGTH = 26  # characters of a baseline's name, of a line of it
EstimateByMetric = Mapping[str, Estimate]


def make_figure_and_axes(
    figure_name: str, height_inches: float, axes_row_count: int = 1, **subplot_options: Any
) -> tuple[Figure, Any]:
    """A figure of the common width with the label `figure_name`, and its axes from top to bottom."""
    with plt.rc_context(PAGE_FIGURE_SETTINGS):
        figure = Figure(
            figsize=(REPORT_FIGURE_INCHES, height_inches), layout="constrained"
        )  # unknown to pyplot: nobody has to close it
        figure.set_label(figure_name)
        return figure, figure.subplots(axes_row_count, squeeze=False, **subplot_options)[:, 0]


def draw_forest(forest_plot: Forest) -> Figure:
    """The forest plot of the page as a figure: the first bar on top, the interval of the main one behind all."""
    figure, (ax,) = make_figure_and_axes("forest", 0.6 + 0.34 * len(forest_plot.bars))
    for bar_position, bar in enumerate(forest_plot.bars):
        colour = {"main": "C0", "named": "C1"}.get(bar.kind, "0.35")
        ax.plot([bar.interval_low, bar.interval_high], [bar_position, bar_position], color=colour, linewidth=1.8)
        ax.plot(bar.value, bar_position, "o", color=colour, markersize=5)
        if bar.kind == "main":
            ax.axvspan(bar.interval_low, bar.interval_high, color="C0", alpha=0.1, linewidth=0)
    bar_names = [
        textwrap.fill(figures.shorten_text(make_printable(bar.name), MAX_BASELINE_NAME_LENGTH), BASELINE_LINE_LENGTH)
        for bar in forest_plot.bars
    ]
    ax.axvline(forest_plot.line, color="0.3", linestyle=":", linewidth=1)
    ax.set_yticks(np.arange(len(forest_plot.bars)), bar_names)
    ax.set_ylim(len(forest_plot.bars) - 0.5, -0.5)
    ax.set_xlabel(forest_plot.about)
    return figure


def save_classification_figures(
    predictions: Predictions, estimate_by_metric: EstimateByMetric, folder: Path, caveat_marks: str
) -> None:
    """`roc.png` and `confusion_matrix.png` in a folder, as the report draws and counts them."""
    for figure_name, figure in (
        ("roc", draw_roc(predictions, estimate_by_metric)),
        ("confusion_matrix", draw_confusion(predictions, estimate_by_metric)),
    ):
        figure.suptitle(caveat_marks.strip(), fontsize=8.5)
        figures.save_figure(figure, folder / f"{figure_name}.png")


def draw_roc(predictions: Predictions, estimate_by_metric: EstimateByMetric) -> Figure:
    """ROC curve of all records, with the AUC; without a curve where a class is missing."""
    figure, (ax,) = make_figure_and_axes("roc", 3.8)
    if len(np.unique(predictions.label)) < len(CLASS_NAMES):
        ax.set(title="No ROC curve: all records are of one class.", xticks=[], yticks=[])
        return figure
    curve_label = f"AUC {estimate_by_metric['auc'].text('.2f')}"
    ax.plot(*roc_curve(predictions.label, predictions.mean_probability)[:2], color="C0", label=curve_label)
    ax.plot([0, 1], [0, 1], color="0.3", linestyle=":", linewidth=1, label="guessing")
    control_name, autism_name = CLASS_NAMES
    ax.set_xlabel(f"false positive rate ({control_name} taken for {autism_name})")
    ax.set_ylabel(f"true positive rate ({autism_name} found)")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    ax.legend(loc="lower right")
    return figure


def format_confusion_rows(
    predictions: Predictions, estimate_by_metric: EstimateByMetric, no_interval_text: str = NO_INTERVAL_TEXT
) -> list[list[str]]:
    """True classes (control, autism) by predicted ones, such as `22: 88% (70% to 96%)`: how many records, and which
    share of the row. The share has an interval if recall or specificity has one."""
    confusion_text_rows = []
    for true_label, metric in enumerate(("specificity", "recall")):
        is_predicted_autism = predictions.mean_probability[predictions.label == true_label] >= THRESHOLD
        rate_estimate = estimate_by_metric.get(metric, UNDEFINED)
        cell_texts = []
        for predicted_label in (False, True):
            low, high = (
                rate_estimate.value_low_high[1:]
                if predicted_label == bool(true_label)
                else 1 - np.array(rate_estimate.value_low_high[:0:-1])
            )
            class_fraction_estimate = Estimate.from_numbers(
                (is_predicted_autism == predicted_label).sum() / max(len(is_predicted_autism), 1), low, high
            )
            cell_texts.append(
                f"{(is_predicted_autism == predicted_label).sum()}: "
                f"{class_fraction_estimate.text('.0%', no_interval_text=no_interval_text)}"
            )
        confusion_text_rows.append(cell_texts)
    return confusion_text_rows


def draw_confusion(predictions: Predictions, estimate_by_metric: EstimateByMetric) -> Figure:
    """The counts of `format_confusion_rows`, coloured by their share of the true class."""
    figure, (ax,) = make_figure_and_axes("confusion", 3.4)
    is_predicted_autism = predictions.mean_probability >= THRESHOLD
    record_counts = np.empty((2, 2), int)  # (true labels, predicted labels)
    for true_label, predicted_label in np.ndindex(2, 2):
        is_in_cell = (predictions.label == true_label) & (is_predicted_autism == predicted_label)
        record_counts[true_label, predicted_label] = is_in_cell.sum()
    # (true labels, predicted labels), of the true class
    class_fractions = record_counts / np.maximum(record_counts.sum(1, keepdims=True), 1)
    ax.imshow(class_fractions, cmap="Blues", vmin=0, vmax=1)
    for (true_label, predicted_label), class_fraction in np.ndenumerate(class_fractions):
        cell_text = (
            format_confusion_rows(predictions, estimate_by_metric)[true_label][predicted_label]
            .replace(": ", "\n")
            .replace(" (", "\n")
            .rstrip(")")
        )
        ax.text(
            predicted_label,
            true_label,
            cell_text,
            ha="center",
            va="center",
            color="white" if class_fraction > WHITE_TEXT_SHARE else "black",
        )
    class_names = [str(class_name) for class_name in CLASS_NAMES]
    ax.set(xticks=(0, 1), yticks=(0, 1), xticklabels=class_names, yticklabels=class_names)
    ax.set(xlabel=f"predicted diagnosis; intervals: {CONFIDENCE_LEVEL:.0%}, over participants", ylabel="true diagnosis")
    return figure


def draw_calibration(labels: np.ndarray, probability_by_kind: Mapping[str, np.ndarray]) -> Figure:
    """Share of autism against predicted probabilities (n,), one or two kinds of them by name, above the number of
    records in each bin."""
    figure, (fraction_ax, count_ax) = make_figure_and_axes("calibration", 4.4, 2, sharex=True, height_ratios=(4, 1))
    bar_width = 0.9 / CALIBRATION_BIN_COUNT / len(probability_by_kind)
    for kind_index, (probability_kind, probability) in enumerate(probability_by_kind.items()):
        bin_table = make_calibration_bins(labels, probability)
        colour = f"C{kind_index}"
        # (2, bins), below and above
        error_lengths = np.maximum(
            [bin_table["observed"] - bin_table["low"], bin_table["high"] - bin_table["observed"]], 0
        )
        fraction_ax.errorbar(
            bin_table["predicted"],
            bin_table["observed"],
            error_lengths,
            fmt="o",
            color=colour,
            capsize=2,
            label=probability_kind,
        )
        bar_x_positions = (bin_table["bin"] + 0.5) / CALIBRATION_BIN_COUNT + bar_width * (
            kind_index - (len(probability_by_kind) - 1) / 2
        )
        count_bars = count_ax.bar(
            bar_x_positions,
            bin_table["count"],
            width=bar_width,
            color="0.75" if len(probability_by_kind) == 1 else colour,
        )
        count_ax.bar_label(count_bars, fontsize=8.5 if len(probability_by_kind) == 1 else 5.5)
    fraction_ax.plot([0, 1], [0, 1], color="0.3", linestyle=":", linewidth=1)
    fraction_ax.set(ylabel="share with autism", ylim=(-0.04, 1.04), xlim=(-0.02, 1.02))
    if len(probability_by_kind) > 1:
        fraction_ax.legend(loc="upper left")
    count_ax.margins(y=0.35)
    count_ax.set(xlabel="predicted probability of autism", ylabel="records")
    return figure


def make_calibration_bins(labels: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    """A row for each of `CALIBRATION_BIN_COUNT` bins of equal width that contains a record.

    `bin`, `count` (records), `predicted` (mean probability), and `observed` (share of autism) with its Wilson interval
    `low`, `high`.
    """
    bin_by_record = np.minimum((probability * CALIBRATION_BIN_COUNT).astype(int), CALIBRATION_BIN_COUNT - 1)
    bin_rows = []
    for bin_number in np.unique(bin_by_record):
        bin_autism_count = int(labels[bin_by_record == bin_number].sum())
        bin_record_count = int((bin_by_record == bin_number).sum())
        bin_rows.append(
            (
                bin_number,
                bin_record_count,
                probability[bin_by_record == bin_number].mean(),
                *estimate_share(bin_autism_count, bin_record_count).value_low_high,
            )
        )
    return pd.DataFrame(bin_rows, columns=["bin", "count", "predicted", "observed", "low", "high"])
