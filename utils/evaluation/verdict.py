"""The network beside its floors: the rows of `floors.csv`, and the sentence that says what may be concluded."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from utils.metrics import Predictions, difference, flat, with_intervals
from utils.report.tables import MAJORITY, MINUS, MODEL, RULE
from utils.report.texts import paragraph


def compare(predictions: Predictions, floors: pd.DataFrame, seed: int) -> list[dict]:
    """Rows of `floors.csv`: the model, then each floor, with intervals, and the model's AUC minus the floor's.

    `floors` are those of `predict`, a row for each of the predictions, in their order; a floor that could not be fitted
    in every fold is left out. With folds, the AUC and its difference are given pooled and within folds (`_folds`).
    """
    names = ["auc", "accuracy", "balanced_accuracy", "brier", *predictions.groups]
    minus = {MINUS: False} if predictions.fold is None else {MINUS: False, f"{MINUS}_folds": True}
    nothing = dict.fromkeys(("value", "low", "high"))
    rows = []
    for name, values in [(MODEL, predictions.probability), *floors.dropna(axis=1).items()]:
        floor = replace(predictions, probability=values)
        found = with_intervals(floor, seed)
        if name == MAJORITY:  # its constants differ between folds, but they rank nobody
            floor = replace(predictions, probability=np.zeros(len(values)))
            found |= {key: value for key, value in with_intervals(floor, seed).items() if key.startswith("auc")}
        less = {
            key: nothing if name == MODEL else difference(predictions, floor.probability, seed, within)
            for key, within in minus.items()
        }
        rows.append({"floor": str(name), **flat(found, names), **flat(less, list(less))})
    return rows


def verdict(rows: Sequence[dict], repeats: int = 1) -> str:
    """One sentence on the rows of `compare`: whether the network beats chance, and which floors it does not beat."""
    if within_folds := "auc_folds" in rows[0]:  # pooled probabilities come from models that need not agree
        rows = [row | {name.replace("_folds", ""): row[name] for name in row if "_folds" in name} for row in rows]
    model, *others = rows
    floors = [row for row in others if row["floor"] not in (MAJORITY, RULE)]
    return paragraph(
        "verdict",
        model=model,
        floors=floors,
        unbeaten=[row for row in floors if model["auc_low"] is not None and row[f"{MINUS}_low"] <= 0],
        rule=next((row for row in others if row["floor"] == RULE and row["auc"] is not None), None),
        within_folds=within_folds,
        repeats=repeats,
    )
