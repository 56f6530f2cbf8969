"""Metrics and numbers -> the cells of the page's tables."""

import math
from collections.abc import Iterable

from utils.figures import number

Row = dict[str, str]  # heading -> cell
SPELLED = {
    "auc": "AUC, all people together",
    "auc_sites": "AUC within sites",
    "auc_folds": "AUC within folds",
    "f_score": "F score",
    "brier": "Brier score",
    "model_minus_floor_auc": "AUC, model minus floor",
    "model_minus_floor_auc_sites": "AUC within sites, model minus floor",
    "model_minus_floor_auc_folds": "AUC within folds, model minus floor",
}


def spelled(name: str) -> str:
    """The name of a metric on the page."""
    return SPELLED.get(name, name.replace("_", " "))


def shown(numbers: Iterable[float]) -> str:
    """`0.610 (0.500 to 0.720)` of a value and its interval; a dash where undefined."""
    value, low, high = numbers
    text, its_ends = number(value, ".3f"), ends(low, high)
    return text if "-" in (text, its_ends) else f"{text} ({its_ends})"


def ends(low: float, high: float) -> str:
    """`0.500 to 0.720`; a dash where undefined."""
    return f"{low:.3f} to {high:.3f}" if math.isfinite(low + high) else "-"
