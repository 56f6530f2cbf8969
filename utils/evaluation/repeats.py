"""Repeats of a test on folds -> the mean of their predictions, and `repeats.csv`: the scores of each."""

from collections.abc import Sequence

import pandas as pd

from data.base.tables import read_frame
from data.cohorts.cohort import Cohort
from utils.report.registry import METRICS, TABLES
from utils.report.tables import MINUS, as_numbers, read_scores
from utils.runs.group import Group
from utils.runs.run import Run
from utils.scores import floors
from utils.scores.estimate import columns_of, flat
from utils.scores.metrics import HEADLINES, headline
from utils.scores.statistics import MAJORITY, MODEL, RULE

BEST_FLOOR = "best_floor"  # of a repeat, by the AUC that the verdict names
fitted: dict[tuple[str, ...], pd.DataFrame] = {}  # what floors predict, by the data, split and standard


def predicted_by_floors(cohort: Cohort, training: Cohort | None = None) -> pd.DataFrame:
    """`floors.predict`, once in a process: no seed decides it, and repeats with the same folds have the same floors."""
    key = tuple(part for of in filter(None, (cohort, training)) for part in (of.identity, of.standard))
    if key not in fitted:
        fitted[key] = floors.predict(cohort, training)
    return fitted[key]


def mean_of(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables with a row a record (`file`), in any order, as one in the order of the first: the mean of numbers that
    all have, and of other columns, such as the fold, those that are the same in all."""
    first, *others = (table.set_index("file") for table in tables)
    others = [other.loc[first.index] for other in others]
    mean = first.copy()
    for name in first:
        columns = [other[name] for other in others if name in other]
        if len(columns) == len(others) and all(column.equals(first[name]) for column in columns):
            continue
        if len(columns) < len(others) or not pd.api.types.is_numeric_dtype(first[name]):
            del mean[name]
        else:
            mean[name] = sum(columns, first[name]) / len(tables)
    return mean.reset_index()


def scores(group: Group) -> pd.DataFrame:
    """A row a repeat, from the results of each: number, seed, every metric of `metrics.json` with its interval, the
    floor of the largest AUC, and the network's AUC minus its."""
    rows = []
    for number, part in enumerate(repeat.run for repeat in group.groups):
        found, _ = read_scores(part.out_dir / METRICS)
        rows.append({"repeat": number, "seed": part.seed} | flat(found) | beside_best(part, [*found]))
    return pd.DataFrame(rows).fillna({BEST_FLOOR: ""})


def beside_best(part: Run, metrics: Sequence[str]) -> dict[str, object]:
    """The best floor of one repeat and the differences of AUC from it; nothing without floors."""
    table = read_frame(part.out_dir / TABLES["floors"].file)
    others = table[~table["floor"].isin([MODEL, MAJORITY, RULE])]
    if others.empty:
        return {}
    best = others.loc[as_numbers(others[headline(metrics)]).idxmax()]
    differences = [name for area in HEADLINES for name in columns_of(f"{MINUS}{area}") if name in table]
    return {BEST_FLOOR: best["floor"]} | {name: as_numbers(best[[name]]).item() for name in differences}
