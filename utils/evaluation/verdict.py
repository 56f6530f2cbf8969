"""The network beside its floors: the rows of `floors.csv`, and the sentence that says what may be concluded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from utils.report.tables import MINUS
from utils.report.texts import paragraph
from utils.scores.estimate import UNDEFINED, Estimate, flat
from utils.scores.metrics import HEADLINES, Predictions, differences, headline, with_intervals
from utils.scores.statistics import MAJORITY, MODEL, RULE


def compare(predictions: Predictions, floors: Sequence[pd.DataFrame], seed: int) -> list[dict]:
    """Rows of `floors.csv`: the model, then each floor, with intervals, and the model's AUCs minus the floor's.

    `floors` are those of `floors.predict` for each repeat, a row for each of the predictions, in their order; a floor
    that could not be fitted in every fold is left out.
    """
    names = ["auc", "accuracy", "balanced_accuracy", "brier", *predictions.groups]
    known = [name for name in floors[0] if not any(table[name].isna().any() for table in floors)]
    candidates = {MODEL: predictions}
    candidates |= {name: predictions.with_probabilities([table[name] for table in floors]) for name in known}
    rows = []
    for name, floor in candidates.items():
        found = with_intervals(floor, seed)
        if name == MAJORITY:  # its constants differ between folds, but they rank nobody
            floor = floor.with_probabilities([np.zeros(len(one.label)) for one in floor.all])
            found |= {key: value for key, value in with_intervals(floor, seed).items() if key in HEADLINES}
        areas = ("auc", *predictions.groups)
        less = dict.fromkeys(areas, UNDEFINED) if name == MODEL else differences(predictions, floor, seed)
        named = {key: found[key] for key in names} | {f"{MINUS}{area}": less[area] for area in areas}
        rows.append({"floor": str(name)} | flat(named))
    return rows


@dataclass(frozen=True)
class Beside:
    """The AUC of the headline, of the model or a floor, and the model's minus that of a floor."""

    name: str
    auc: Estimate
    less: Estimate

    @property
    def standing(self) -> str:
        """See `standing`."""
        return standing(self.less)


def standing(less: Estimate) -> str:
    """What the interval of a difference says of the one from which the other was subtracted."""
    if less.low is None or less.high is None:
        return "unknown"
    return "beats" if less.low > 0 else "worse" if less.high < 0 else "level"


def beside(rows: Sequence[dict]) -> list[Beside]:
    """The rows of `compare` by the AUC that the verdict rests on."""
    name = headline(rows[0])
    return [Beside(row["floor"], Estimate.in_row(row, name), Estimate.in_row(row, f"{MINUS}{name}")) for row in rows]


def verdict(rows: Sequence[dict], predictions: Predictions) -> str:
    """What the rows of `compare` allow to conclude: whether the network beats chance, and how it stands beside the
    floors, by the AUC within sites where there are several."""
    model, *others = [one for one in beside(rows) if one.name == MODEL or one.auc.value is not None]
    return paragraph(
        "verdict",
        model=model,
        auc=headline(rows[0]),
        floors=[floor for floor in others if floor.name not in (MAJORITY, RULE)],
        rule=next((floor for floor in others if floor.name == RULE), None),
        people={
            "subjects": predictions.count(predictions.label >= 0),
            "in_one_class_sites": predictions.in_one_class_sites,
            "new_sites": new_sites(predictions),
            "fewest": min(predictions.count(predictions.label == value) for value in (0, 1)),
        },
        repeats=len(predictions.all),
    )


def new_sites(predictions: Predictions) -> bool | None:
    """Whether every site is in one fold, so that its model has not seen it; None if there are no folds."""
    if predictions.fold is None or predictions.site is None:
        return None
    return all(len(np.unique(predictions.fold[predictions.site == name])) == 1 for name in np.unique(predictions.site))
