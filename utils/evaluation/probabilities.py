"""Predictions of people who were left out by groups -> `probabilities.csv`, what calibration on all other groups gives
of each, and `calibration.csv`, how well that did."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from data.cohorts.records import CLASSES
from utils.report.tables import BOTH, COVERAGE, KINDS, NONE, ONE, UNEQUAL, UNITS, column_of_sets
from utils.scores.calibration import FLAT, LEVELS, agreements, constants_of, left_out, shortage
from utils.scores.metrics import Predictions
from utils.scores.results import CALIBRATION_COLUMNS, CONFIDENCE, MIN_PER_CLASS, SAME_SCAN, UNDEFINED, Estimate
from utils.scores.statistics import RESAMPLES

Row = dict[str, object]
NAMES = ("probabilities", "group", "diagnosis")  # columns of text that not every row has
DRAWS = 9999  # of people to groups, by which chance is known
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
    label, raw, fold = (table[name].to_numpy() for name in ("label", "probability", "fold"))
    rows, group, whole = (
        [*of_agreement(table, seed)],
        table[by].astype(str).replace("", "-"),
        constants_of(label, raw, fold, ""),
    )
    unit = Predictions.of(table).unit
    for level in LEVELS:
        holds = whole.sets(raw, level)[np.arange(len(label)), label.astype(int)]
        rows += of_level(table.assign(set=table[column_of_sets(level)], group=group, by_all=holds, unit=unit), level)
    return pd.DataFrame(rows, columns=[*CALIBRATION_COLUMNS, UNITS]).fillna(dict.fromkeys(NAMES, ""))


def of_agreement(table: pd.DataFrame, seed: int) -> Iterator[Row]:
    """How raw and calibrated probabilities agree with labels, with intervals like those of all scores."""
    label = table["label"].to_numpy()
    for (name, column), least in zip(KINDS.items(), (0.0, FLAT), strict=True):
        of = replace(Predictions.of(table.assign(probability=table[column])), site=None)

        def statistic(weight: np.ndarray, of: Predictions = of, least: float = least) -> np.ndarray:
            return np.stack([*agreements(of.label, of.probability, weight, least).values()], axis=1)

        everybody = np.ones((1, len(label)))
        value = agreements(of.label, of.probability, everybody, least)
        ends = of.bootstrap(statistic, seed, RESAMPLES)
        for measure, (at,), low, high in zip(value, value.values(), *ends, strict=True):
            low, high = at + of.widening(measure) * (np.array([low, high]) - at)
            if measure == "brier":
                low, high = np.clip([low, high], 0, 1)
            yield {"measure": measure, "probabilities": name} | told(len(label), Estimate.of(at, low, high))


def of_level(table: pd.DataFrame, level: float) -> Iterator[Row]:
    """The sets of one level (`set`): for how many people of each class they hold the label, and how many labels they
    have. A row for all people, and one for each group. Also whether groups differ by more than chance, by thresholds of
    all people (`by_all`) and the first of each unit. Their number is told, too (`UNITS`). Thresholds of all other
    groups would make a group's difference larger than it is."""
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
    for value, name in enumerate(CLASSES):
        own = table[(table["label"] == value) & table["first"]]
        p = p_of_equal(own["by_all"], own["group"])
        yield {"measure": UNEQUAL, "diagnosis": name, "level": level} | told(len(own), Estimate.of(p))


def share(holds: pd.Series, unit: pd.Series) -> Row:
    """The share of people (n,) bool, with the Wilson interval of as many people as there are units; of nobody it is
    undefined."""
    if not len(holds):
        return told(0, UNDEFINED)
    units = unit.nunique()
    ends = binomtest(round(holds.mean() * units), units).proportion_ci(CONFIDENCE, method="wilson")
    return told(len(holds), Estimate.of(holds.mean(), ends.low, ends.high))


def told(count: int, estimate: Estimate) -> Row:
    return {"people": count, **estimate.columns()}


def p_of_equal(holds: pd.Series, group: pd.Series) -> float:
    """The p-value of the hypothesis that sets hold the label (n,) bool as often in all groups (n,) with at least ten
    people; 1 if there is nothing to compare. It is Pearson's chi-squared of groups by `holds`; people are drawn into
    the groups at random."""
    table = pd.crosstab(group, holds).reindex(columns=[False, True], fill_value=0)
    table = table[table.sum(axis=1) >= MIN_PER_CLASS]
    size, total = table.sum(axis=1).to_numpy(), int(table[True].sum())
    if len(table) < 2 or total in (0, size.sum()):
        return 1.0
    drawn = np.random.default_rng(0).multivariate_hypergeometric(size, total, DRAWS)
    expected = size * total / size.sum()
    chance, seen = (np.square(of - expected) @ (1 / size) for of in (drawn, table[True].to_numpy()))
    return float((1 + (chance >= seen * (1 - 1e-12)).sum()) / (1 + DRAWS))
