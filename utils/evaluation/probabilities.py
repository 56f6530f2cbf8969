"""Predictions of people who were left out by groups -> `probabilities.csv`, what calibration on all other groups gives
of each, and `calibration.csv`, how well that did."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from data.base.effort import EFFORT
from data.cohorts.records import CLASS_NAMES
from utils.report.tables import BOTH, COVERAGE, KINDS, NONE, ONE, column_of_sets
from utils.scores.calibration import FLAT, LEVELS, agreements, enough, left_out
from utils.scores.metrics import Predictions
from utils.scores.results import CALIBRATION_COLUMNS, MIN_CLASS_SUBJECTS, SAME_SCAN, UNDEFINED, UNITS, Estimate
from utils.scores.statistics import share_of

Row = dict[str, object]
NAMES = ("probabilities", "group", "diagnosis")  # columns of text that not every row has
SIZES = (NONE, ONE, BOTH)  # of a set, by its number of labels
STEEP = 1e3  # a slope that is infinite in a resample, in an interval


def people(predictions: pd.DataFrame) -> pd.DataFrame:
    """`probabilities.csv` of rows of `predictions.csv` whose label is known, with their folds: a row a person, by the
    first record; no rows if there are too few people for a calibration."""
    own = predictions.drop_duplicates("subject")
    own = own[["file", "subject", "site", "fold", "label", "probability", *({SAME_SCAN} & {*own})]]
    label, raw, groups = (own[name].to_numpy() for name in ("label", "probability", "fold"))
    if not enough(label, groups):
        return own.iloc[:0]
    folds_of_site = own.groupby("site")["fold"].nunique()
    are_known = len(folds_of_site) > 1 and folds_of_site.max() > 1  # to the models that predict others of a site
    calibrated, prevalence, found = left_out(label, raw, groups, own["site"].to_numpy() if are_known else None)
    names = np.array([[NONE, CLASS_NAMES[1]], [CLASS_NAMES[0], BOTH]])  # by whether control is in the set, and autism
    sets = {column_of_sets(level): names[tuple(of.astype(int).T)] for level, of in zip(LEVELS, found, strict=True)}
    return own.assign(calibrated=calibrated, prevalence=prevalence, **sets)


def observed(table: pd.DataFrame, by: str, seed: int) -> pd.DataFrame:
    """`calibration.csv` of the table of `people`: a row a number, coverage also by the groups in the column `by`."""
    raw, rows, group = Predictions.of(table), [], table[by].astype(str).replace("", "-")
    for (name, column), least in zip(KINDS.items(), (0.0, FLAT), strict=True):
        found = agreement(raw.with_probabilities([table[column]]), seed, least)
        rows += [{"measure": of, "probabilities": name} | told(len(table), one) for of, one in found.items()]
    for level in LEVELS:
        rows += of_level(table.assign(set=table[column_of_sets(level)], group=group, unit=raw.unit), level)
    return pd.DataFrame(rows, columns=[*CALIBRATION_COLUMNS]).fillna(dict.fromkeys(NAMES, ""))


def agreement(predictions: Predictions, seed: int, least: float = 0.0) -> dict[str, Estimate]:
    """How probabilities agree with labels, each person once, by the first record: the numbers of `agreements`, with
    intervals like those of all scores; none of fewer than MIN_PER_CLASS units of a class."""
    of = predictions.subset(np.isin(np.arange(len(predictions.label)), predictions.people[0]))

    def statistic(weight: np.ndarray) -> np.ndarray:
        return np.stack([*agreements(of.label, of.probability, weight, least).values()], axis=1).clip(-STEEP, STEEP)

    value = agreements(of.label, of.probability, np.ones((1, len(of.label))), least)
    ends, found = of.bootstrap(statistic, seed, EFFORT.resamples), {}
    few = min(of.units(of.label == label) for label in range(len(CLASS_NAMES))) < MIN_CLASS_SUBJECTS
    for measure, (at,), *sides in zip(value, value.values(), *ends, strict=True):
        found[measure] = Estimate.of(at)
        if np.isfinite(at) and not few:
            interval = at + of.widening(measure) * (np.array(sides) - at)
            found[measure] = Estimate.of(at, *(np.clip(interval, 0, 1) if measure == "brier" else interval))
    return found


def of_level(table: pd.DataFrame, level: float) -> Iterator[Row]:
    """The sets of one level (`set`): for how many people of each class they hold the label, and how many labels they
    have. A row for all people, and one for each group. Units count once (`UNITS`), in the group of their first."""
    table = table.assign(first=~table.duplicated(["label", "unit"]))
    for group, part in [("", table), *(table.groupby("group") if table["group"].nunique() > 1 else ())]:
        about = {"group": group, "level": level}
        for value, name in enumerate(CLASS_NAMES):
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
    of_units = share_of(holds.mean() * unit.nunique(), unit.nunique())
    return told(len(holds), Estimate.of(holds.mean(), of_units.low, of_units.high))


def told(count: int, estimate: Estimate) -> Row:
    return {"participants": count, **estimate.columns()}
