"""Folders of finished tests of the same people -> the rows of `compare.csv`, one for each two of the tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import pandas as pd

from data.base.errors import InputError
from models import MODELS
from utils.report.tables import Described, described, read_predictions
from utils.runs.record import read_finished_manifest
from utils.scores.conclusion import BETTER, SAME, UNKNOWN, WORSE, standing
from utils.scores.metrics import Predictions, differences, headline, with_intervals
from utils.scores.results import DETECTABLE, TABLES, Estimate, flat, minimum_detectable_difference

PREDICTIONS = TABLES["predictions"].file
EXPECTED = "expected the folder of a classifier's finished `run.py --test`"
ALIKE = ["repeat", "file", "subject", "label", "site", "fold"]  # columns that are the same in tests to be compared
SEED = 0  # of the bootstrap, whatever those of the runs are
MINUS = "a_minus_b_"  # begins the columns of differences
CONCLUSIONS = {BETTER: "a is better", WORSE: "b is better", SAME: SAME, UNKNOWN: UNKNOWN}


@dataclass(frozen=True, eq=False)
class FinishedTest:
    """A finished test, which is called by its `folder` as the user gave it. `table`: predictions.csv, a row a record
    and `repeat` (from 0), by these."""

    folder: Path
    described: Described
    table: pd.DataFrame

    @cached_property
    def predictions(self) -> Predictions:
        """Those of every repeat; records of unknown label take no part."""
        known = self.table[self.table["label"].notna()]
        return Predictions.of(*(repeat for _, repeat in known.groupby("repeat")))

    @cached_property
    def scores(self) -> dict[str, Estimate]:
        """As in `metrics.json`."""
        return with_intervals(self.predictions, self.described.seed)


def opened(folders: Sequence[Path]) -> list[FinishedTest]:
    """Raises InputError for a folder that is no finished test, and for tests that cannot be compared."""
    runs = [read(folder) for folder in folders]
    if runs[0].table["label"].isna().all():
        raise InputError(f"{runs[0].folder / PREDICTIONS} has no known label; nothing can be compared.")
    for run in runs[1:]:
        refuse_others(runs[0], run)
    return runs


def read(folder: Path) -> FinishedTest:
    """Raises InputError unless a classifier's test was finished there, and is as it was written."""
    of = read_finished_manifest(folder, EXPECTED)
    if of.job != "test" or of.model not in MODELS or MODELS[of.model].predicted != "label":
        raise InputError(f"{folder} holds a {of.job} of {of.model or 'no model'}; {EXPECTED}.")
    table = read_predictions(folder / PREDICTIONS)
    table["repeat"] = table["repeat"].astype(int) if "repeat" in table else 0
    return FinishedTest(folder, described(of, folder), table.sort_values(["repeat", "file"], ignore_index=True))


def refuse_others(one: FinishedTest, other: FinishedTest) -> None:
    """Raises InputError unless both were tested on the same people, with the same labels, sites, folds and repeats."""
    tables = [run.table.reindex(columns=ALIKE, fill_value="none") for run in (one, other)]
    joined = tables[0].merge(tables[1], how="outer", indicator="of")
    alone = joined[joined["of"] != "both"]
    if len(alone):
        first = alone.iloc[0]
        has = (one if first["of"] == "left_only" else other).folder
        row = ", ".join(f"{name} {first[name]}" for name in ALIKE)
        raise InputError(
            f"{one.folder} and {other.folder} differ in participants, labels, sites, folds or repeats: only {has} "
            f"has {row} ({len(alone)} such rows). Test both on the same cohort, folds and seed."
        )


def compared(runs: Sequence[FinishedTest]) -> list[dict[str, Any]]:
    """A row for each two of the runs, `a` and `b`. The intervals of the scores of `a` minus those of `b`, paired as
    `metrics.differences` has them, hold for all rows together."""
    rows, among = [], comb(len(runs), 2)
    for a, b in combinations(runs, 2):
        less = differences(a.predictions, b.predictions, SEED, among)
        area = headline(less)
        known: dict[str, Any] = {
            "a": str(a.folder),
            "b": str(b.folder),
            "conclusion": CONCLUSIONS[standing(less[area])],
            "by": area,
            DETECTABLE: minimum_detectable_difference(less[area], among),
            "among": among,
            "subjects": len(set(a.predictions.subject)),
            "records": len(a.predictions.label),
        }
        scores = {f"{name}_{side}": run.scores[name].value for name in less for side, run in (("a", a), ("b", b))}
        rows.append(known | scores | flat({f"{MINUS}{name}": score for name, score in less.items()}))
    return rows
