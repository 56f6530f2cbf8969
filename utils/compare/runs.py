"""Folders of finished tests -> those of the same people, labels and folds, and each `Pair` of them side by side.

Tests of other people, labels or folds end with one line that says what only one of them has.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from string import ascii_uppercase

import pandas as pd

from data.base.errors import InputError
from data.cohorts.records import CLASSES
from models import MODELS
from utils.evaluation.comparisons import standing
from utils.report.tables import Described, by_repeat, described, read_predictions
from utils.runs.checkpoints import is_same
from utils.runs.record import check_finished
from utils.scores.metrics import Predictions, differences, headline, with_intervals
from utils.scores.results import TABLES, Estimate, flat

PREDICTIONS = TABLES["predictions"].file
LETTERS = ascii_uppercase[:10]  # the names of runs
EXPECTED = "expected the folder of a classifier's finished `run.py --test`"
LABELS = dict(enumerate(CLASSES))
SEED = 0  # of the bootstrap, whatever those of the runs are
CONCLUSIONS = {"beats": "a is better", "worse": "b is better", "level": "level", "unknown": "unknown"}


@dataclass(frozen=True, eq=False)
class FinishedTest:
    """A finished test. It is `called` by its folder with its `letter` first, then by the letter. `tables` are the
    predictions.csv of its repeats; rows are records, by file, in the same order."""

    letter: str
    called: str
    folder: Path
    described: Described
    tables: tuple[pd.DataFrame, ...]

    @property
    def known(self) -> pd.DataFrame:
        """The rows of the first repeat whose label is known."""
        return self.tables[0][self.tables[0]["label"].notna()]

    @property
    def predictions(self) -> Predictions:
        """Those of the first repeat, with the others."""
        first, *others = (Predictions.of(table.loc[self.known.index]) for table in self.tables)
        return replace(first, repeats=tuple(others))

    @cached_property
    def scores(self) -> dict[str, Estimate]:
        """As in `metrics.json`."""
        return with_intervals(self.predictions, self.described.seed)

    @property
    def records(self) -> set[str]:
        """What must be the same in two tests: a text for each record and repeat."""
        folds, fold = self.described.folds, self.described.fold
        cut = (f"folds: {folds}" if folds else "one split") + (f" (only {fold})" if fold else "")
        return {
            f"record {row['file']} of subject {row['subject']}, {LABELS.get(row['label'], 'unknown')}, "
            f"site {row['site'] or 'unknown'}, {cut}, fold {row.get('fold', 'none')}, repeat {number}"
            for number, table in enumerate(self.tables)
            for row in table.reset_index().to_dict("records")
        }


def opened(folders: Sequence[Path]) -> list[FinishedTest]:
    """Raises InputError for a folder that is no finished test, and for tests that cannot be compared."""
    if len(folders) > len(LETTERS):
        raise InputError(f"{len(folders)} runs were named; expected {len(LETTERS)} at most.")
    runs: list[FinishedTest] = []
    for letter, called, folder in zip(LETTERS, names_of(folders), folders, strict=False):
        if twice := next((run.folder for run in runs if is_same(run.folder, folder)), None):
            raise InputError(f"{twice} and {folder} are the same folder; name two runs.")
        runs.append(read(letter, called, folder))
    for run in runs[1:]:
        refuse_others(runs[0], run)
    return runs


def names_of(folders: Sequence[Path]) -> list[str]:
    """The last parts of the folders' paths, as many as tell them apart, with letters."""
    parts = [folder.absolute().parts for folder in folders]
    ends = [["/".join(path[-count:]) for path in parts] for count in range(1, max(map(len, parts)) + 1)]
    names = next((names for names in ends if len(set(names)) == len(names)), ends[-1])
    return [f"{name} ({letter})" for letter, name in zip(LETTERS, names, strict=False)]


def read(letter: str, called: str, folder: Path) -> FinishedTest:
    """Raises InputError unless a classifier's test was finished there, and is as it was written."""
    tables = tables_of(folder)
    if tables[0]["label"].isna().all():
        raise InputError(f"{folder / PREDICTIONS} has no known label; nothing can be compared.")
    return FinishedTest(letter, called, folder, described(folder), tables)


def tables_of(folder: Path) -> tuple[pd.DataFrame, ...]:
    """The predictions of a finished test, by file, of each repeat. Raises InputError, see `read`."""
    of = check_finished(folder, EXPECTED)
    if of.job != "test" or of.model not in MODELS or MODELS[of.model].predicts != "label":
        raise InputError(f"{folder} holds a {of.job} of {of.model or 'no model'}; {EXPECTED}.")
    tables = by_repeat(read_predictions(folder / PREDICTIONS))
    return tuple(table.set_index("file").sort_index() for table in tables)


def refuse_others(one: FinishedTest, other: FinishedTest) -> None:
    """Raises InputError unless both were tested on the same people, with the same labels, sites, folds and repeats."""
    mine, its = one.records, other.records
    if first := min(mine ^ its, default=""):
        raise InputError(
            f"{one.letter} ({one.folder}) and {other.letter} ({other.folder}) differ in people, labels, sites, folds "
            f"or repeats: only {one.letter if first in mine else other.letter} has {first} ({len(mine ^ its)} such "
            "rows). Test both on the same cohort, folds and seed; repeat-0 of repeats may stand beside a single test."
        )


@dataclass(frozen=True, eq=False)
class Pair:
    """Two runs, a and b; `less`: scores of a minus those of b as `metrics.differences` has them, one `among` so many
    pairs."""

    a: FinishedTest
    b: FinishedTest
    less: dict[str, Estimate]
    among: int

    @property
    def area(self) -> str:
        """The AUC that the conclusion rests on."""
        return headline(self.less)

    @property
    def standing(self) -> str:
        """What the interval of the difference of that AUC says of a."""
        return standing(self.less[self.area])


def pairs(runs: Sequence[FinishedTest]) -> list[Pair]:
    """Each two of the runs, whose intervals hold for all pairs together."""
    every = [*combinations(runs, 2)]
    return [
        Pair(one, other, differences(one.predictions, other.predictions, SEED, len(every)), len(every))
        for one, other in every
    ]


def rows_of_pairs(pairs: Sequence[Pair]) -> Iterator[dict]:
    """The rows of `compare.csv`."""
    for pair in pairs:
        names = [name for name in pair.less if name in pair.a.scores]
        yield {
            "a": str(pair.a.folder),
            "b": str(pair.b.folder),
            "conclusion": CONCLUSIONS[pair.standing],
            "by": pair.area,
            "among": pair.among,
            "subjects": pair.a.known["subject"].nunique(),
            "records": len(pair.a.known),
            **{
                f"{name}_{side}": run.scores[name].value
                for name in names
                for side, run in (("a", pair.a), ("b", pair.b))
            },
            **flat({f"a_minus_b_{name}": pair.less[name] for name in names}),
        }
