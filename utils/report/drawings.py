"""The report's figures as SVG texts that can stand in one page: forest plot, ROC, calibration, losses, probabilities.

Equal tables give equal bytes. A figure is no wider than a telephone's screen needs.
"""

import io
import re
import textwrap
import warnings
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binomtest
from sklearn.metrics import roc_curve

from data.base.tables import printable
from utils import figures
from utils.metrics import BINS, Predictions, headline
from utils.report.tables import MODEL, RULE
from utils.statistics import CHANCE, CONFIDENCE, MIN_PER_CLASS, THRESHOLD

BAND_RESAMPLES = 500  # a quarter of the metrics': each draws a whole curve
FALSE_RATES = np.linspace(0, 1, 101)  # where the band is given
WIDTH = 4.2  # inches
NAME_WIDTH, LINE_WIDTH = 40, 20  # characters of a floor's name, of a line of it
SETTINGS: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "report", "font.size": 8.5}


def svg(figure: Figure, name: str) -> Markup:
    """A figure as an SVG element whose ids begin with `name`, and closes it."""
    file = io.StringIO()
    with plt.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", figures.NO_GLYPH)
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    plt.close(figure)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", "<svg" + file.getvalue().partition("<svg")[2])
    text = text.replace("<svg", f'<svg role="img" aria-label="{name}"', 1)
    return Markup(text)  # noqa: S704  matplotlib escapes what it draws


def axes(height: float, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure of the common width, and its axes from top to bottom."""
    with plt.rc_context(SETTINGS):
        figure, found = plt.subplots(rows, figsize=(WIDTH, height), layout="constrained", squeeze=False, **options)
    return figure, found[:, 0]


def forest(floors: pd.DataFrame, model: str) -> Markup:
    """AUC of model and floors, that of the verdict: the model on top and the interval of its AUC behind all."""
    area = headline(floors)
    named = {"auc_sites": "AUC within sites", "auc_folds": "AUC within folds"}.get(area, "AUC")
    known = floors[floors[area].notna()]
    figure, (axis,) = axes(0.6 + 0.34 * len(known))
    for place, (_, row) in enumerate(known.iterrows()):
        colour = {MODEL: "C0", RULE: "C2"}.get(row["floor"], "0.35")
        axis.plot([row[f"{area}_low"], row[f"{area}_high"]], [place, place], color=colour, linewidth=1.8)
        axis.plot(row[area], place, "o", color=colour, markersize=5)
        if row["floor"] == MODEL:
            axis.axvspan(row[f"{area}_low"], row[f"{area}_high"], color="C0", alpha=0.1, linewidth=0)
    short = [figures.shortened(printable(name), NAME_WIDTH) for name in known["floor"]]
    names = [model if name == MODEL else textwrap.fill(name, LINE_WIDTH) for name in short]
    axis.axvline(CHANCE, color="0.3", linestyle=":", linewidth=1)
    axis.set_yticks(np.arange(len(known)), names)
    axis.set_ylim(len(known) - 0.5, -0.5)
    axis.set_xlabel(f"{named}, {CONFIDENCE:.0%} interval")
    return svg(figure, "forest")


def roc(predictions: Predictions, seed: int) -> Markup:
    """ROC curve with the band of `roc_band`; both classes must be there."""
    figure, (axis,) = axes(3.8)
    if band := roc_band(predictions, seed):
        axis.fill_between(FALSE_RATES, *band, color="C0", alpha=0.2, linewidth=0, label=f"{CONFIDENCE:.0%} band")
    axis.plot(*roc_curve(predictions.label, predictions.probability)[:2], color="C0", label="model")
    axis.plot([0, 1], [0, 1], color="0.3", linestyle=":", linewidth=1, label="guessing")
    axis.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axis.set_aspect("equal")
    axis.legend(loc="lower right")
    return svg(figure, "roc")


def roc_band(predictions: Predictions, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Low and high true positive rate at `FALSE_RATES`, each an interval over subjects as those of the metrics.

    None if one of the classes has fewer subjects than MIN_PER_CLASS.
    """
    label, probability = predictions.label, predictions.probability
    if any(predictions.count(label == value) < MIN_PER_CLASS for value in (0, 1)):
        return None

    def curve(weight: np.ndarray) -> np.ndarray:
        if len(np.unique(label[weight > 0])) < 2:
            return np.full(len(FALSE_RATES), np.nan)
        return np.interp(FALSE_RATES, *roc_curve(label, probability, sample_weight=weight)[:2])

    ends = predictions.bootstrap(lambda weight: np.stack([curve(row) for row in weight]), seed, BAND_RESAMPLES)
    centre, wider = curve(np.ones(len(label))), predictions.widening("auc")
    low, high = (np.clip(centre + wider * (end - centre), 0, 1) for end in ends)
    return None if np.isnan(low).any() else (low, high)


def calibrated(label: np.ndarray, probability: np.ndarray) -> Markup:
    """Share of autism against predicted probability, above the number of records in each bin."""
    table = calibration(label, probability)
    figure, (shares, counts) = axes(4.4, 2, sharex=True, height_ratios=(4, 1))
    error = [table["observed"] - table["low"], table["high"] - table["observed"]]
    shares.errorbar(table["predicted"], table["observed"], np.maximum(error, 0), fmt="o-", color="C0", capsize=2)
    shares.plot([0, 1], [0, 1], color="0.3", linestyle=":", linewidth=1)
    shares.set(ylabel="share with autism", ylim=(-0.04, 1.04), xlim=(-0.02, 1.02))
    bars = counts.bar((table["bin"] + 0.5) / BINS, table["count"], width=0.9 / BINS, color="0.75")
    counts.bar_label(bars)
    counts.margins(y=0.35)
    counts.set(xlabel="predicted probability of autism", ylabel="records")
    return svg(figure, "calibration")


def calibration(label: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    """A row for each of `BINS` bins of equal width that holds a record.

    `bin`, `count`, `predicted` (mean probability), and `observed` (share of autism) with its Wilson interval `low`,
    `high`.
    """
    index = np.minimum((probability * BINS).astype(int), BINS - 1)
    rows = []
    for number in np.unique(index):
        positive, count = int(label[index == number].sum()), int((index == number).sum())
        ends = binomtest(positive, count).proportion_ci(CONFIDENCE, method="wilson")
        predicted = probability[index == number].mean()
        rows.append((number, count, predicted, positive / count, ends.low, ends.high))
    return pd.DataFrame(rows, columns=["bin", "count", "predicted", "observed", "low", "high"])


def distribution(probability: np.ndarray) -> Markup:
    """How many records have which predicted probability."""
    figure, (axis,) = axes(2.8)
    axis.hist(probability, bins=np.linspace(0, 1, 2 * BINS + 1), color="C0")
    axis.axvline(THRESHOLD, color="0.3", linestyle=":", linewidth=1)
    axis.set(xlabel="predicted probability of autism", ylabel="records", xlim=(0, 1))
    return svg(figure, "distribution")


def losses(training: pd.DataFrame) -> Markup:
    """Losses, and accuracy or AUC, over batches: a thin line a fold, a thick one for their mean; empty without any."""
    known = set(training.columns[training.notna().any()])
    panels = {"loss": ("loss", "validation_loss"), "accuracy, AUC": ("accuracy", "validation_auc")}
    shown = {title: [name for name in names if name in known] for title, names in panels.items() if known & {*names}}
    if not shown:
        return Markup()
    figure, its_axes = axes(0.3 + 2.5 * len(shown), len(shown), sharex=True)
    for axis, (title, names) in zip(its_axes, shown.items(), strict=True):
        for name in names:
            label = name.replace("_", " ").replace("auc", "AUC")
            draw_curves(axis, training, name, "C1" if name.startswith("validation") else "C0", label)
        axis.set_ylabel(title)
        axis.legend()
    its_axes[-1].set_xlabel("batches seen")
    return svg(figure, "losses")


def draw_curves(axis: Axes, training: pd.DataFrame, name: str, colour: str, label: str) -> None:
    """One column over `step`; the mean over folds at the steps that all folds have."""
    table = training.dropna(subset=[name, "step"]).sort_values("step", kind="stable")
    folds = table.groupby("fold")
    for _, rows in folds:
        thin = {"alpha": 0.3, "linewidth": 0.7} if len(folds) > 1 else {"linewidth": 1.2, "label": label}
        axis.plot(rows["step"], rows[name], color=colour, **thin)
    if len(folds) > 1:
        by_step = table.groupby("step")[name].agg(["mean", "count"])
        mean = by_step["mean"][by_step["count"] == len(folds)]
        axis.plot(mean.index, mean, color=colour, linewidth=1.8, label=f"{label}, mean of {len(folds)} folds")
