"""Predictions of people who were left out by groups -> `probabilities.csv`, what calibration on all other groups gives
of each, and `calibration.csv`, how well that did."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from data.base.effort import EFFORT
from data.cohorts.records import CLASSES
from utils.report.tables import BOTH, COVERAGE, KINDS, NONE, ONE, column_of_sets
from utils.scores.calibration import FLAT, LEVELS, agreements, left_out, shortage
from utils.scores.metrics import Predictions
from utils.scores.results import CALIBRATION_COLUMNS, CONFIDENCE, SAME_SCAN, UNDEFINED, UNITS, Estimate

Row = dict[str, object]
NAMES = ("probabilities", "group", "diagnosis")  # columns of text that not every row has
SIZES = (NONE, ONE, BOTH)  # of a set, by its number of labels


def people(predictions: pd.DataFrame, fold: np.ndarray) -> pd.DataFrame:
    """`probabilities.csv` of rows of `predictions.csv` whose label is known, and their folds (n,): a row a person, by
    the first record; no rows if there are too few people for a calibration."""
    own = predictions.assign(fold=fold).drop_duplicates("subject")
    own = own[["file", "subject", "site", "fold", "label", "probability", *({SAME_SCAN} & {*own})]]
    label, raw, groups = (own[name].to_numpy() for name in ("label", "probability", "fold"))
    if shortage(label, groups):
        return own.iloc[:0]
    found = left_out(label, raw, groups)
    names = np.array([[NONE, CLASSES[1]], [CLASSES[0], BOTH]])  # by whether control is in the set, and autism
    sets = {column_of_sets(level): names[tuple(of.astype(int).T)] for level, of in zip(LEVELS, found.sets, strict=True)}
    return own.assign(calibrated=found.probability, prevalence=found.prevalence, **sets)


def observed(table: pd.DataFrame, by: str, seed: int) -> pd.DataFrame:
    """`calibration.csv` of the table of `people`: a row a number, coverage also by the groups in the column `by`."""
    rows, group, unit = [*of_agreement(table, seed)], table[by].astype(str).replace("", "-"), Predictions.of(table).unit
    for level in LEVELS:
        rows += of_level(table.assign(set=table[column_of_sets(level)], group=group, unit=unit), level)
    return pd.DataFrame(rows, columns=[*CALIBRATION_COLUMNS]).fillna(dict.fromkeys(NAMES, ""))


def of_agreement(table: pd.DataFrame, seed: int) -> Iterator[Row]:
    """How raw and calibrated probabilities agree with labels, with intervals like those of all scores."""
    label = table["label"].to_numpy()
    for (name, column), least in zip(KINDS.items(), (0.0, FLAT), strict=True):
        of = replace(Predictions.of(table.assign(probability=table[column])), site=None)

        def statistic(weight: np.ndarray, of: Predictions = of, least: float = least) -> np.ndarray:
            return np.stack([*agreements(of.label, of.probability, weight, least).values()], axis=1)

        everybody = np.ones((1, len(label)))
        value = agreements(of.label, of.probability, everybody, least)
        ends = of.bootstrap(statistic, seed, EFFORT.resamples)
        for measure, (at,), low, high in zip(value, value.values(), *ends, strict=True):
            low, high = at + of.widening(measure) * (np.array([low, high]) - at)
            if measure == "brier":
                low, high = np.clip([low, high], 0, 1)
            yield {"measure": measure, "probabilities": name} | told(len(label), Estimate.of(at, low, high))


def of_level(table: pd.DataFrame, level: float) -> Iterator[Row]:
    """The sets of one level (`set`): for how many people of each class they hold the label, and how many labels they
    have. A row for all people, and one for each group. Units count once (`UNITS`), in the group of their first."""
    table = table.assign(first=~table.duplicated(["label", "unit"]))
    for group, part in [("", table), *(table.groupby("group") if table["group"].nunique() > 1 else ())]:
        about = {"group": group, "level": level}
        for value, name in enumerate(CLASSES):
            own = part[part["label"] == value]
            held = share(own["set"].isin([name, BOTH]), own["unit"])
            yield {"measure": COVERAGE, "diagnosis": name} | about | held | {UNITS: int(own["first"].sum())}
        size = part["set"].map({NONE: NONE, BOTH: BOTH}).fillna(ONE)
        for name in SIZES:
            yield {"measure": name} | about | share(size == name, part["unit"])


def share(holds: pd.Series, unit: pd.Series) -> Row:
    """The share of people (n,) bool, with the Wilson interval of as many people as there are units; of nobody it is
    undefined."""
    if not len(holds):
        return told(0, UNDEFINED)
    units = unit.nunique()
    ends = binomtest(round(holds.mean() * units), units).proportion_ci(CONFIDENCE, method="wilson")
    return told(len(holds), Estimate.of(holds.mean(), ends.low, ends.high))


def told(count: int, estimate: Estimate) -> Row:
    return {"participants": count, **estimate.columns()}
