"""Folders of finished tests -> those of the same people, labels and folds, and each `Pair` of them side by side.

Tests that cannot be compared end with one line that says what differs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from string import ascii_uppercase

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from data.base import files
from data.base.errors import InputError
from models import MODELS
from utils.evaluation.comparisons import standing
from utils.report.tables import Described, read_predictions
from utils.runs.folders import MANIFEST, Manifest, is_same, read_as, sha256
from utils.runs.group import REPEAT
from utils.scores.metrics import Predictions, differences, headline, with_intervals
from utils.scores.results import TABLES, THRESHOLD, Estimate, flat, or_none
from utils.scores.statistics import log_odds

PREDICTIONS = TABLES["predictions"].file
LETTERS = ascii_uppercase[:10]  # the names of runs
EXPECTED = "expected the folder of a classifier's finished `run.py --test`"
VOID = {  # what makes a comparison void if one of the two has it: a caveat, and its words
    "simulated": "is of simulated people",
    "shuffled_labels": "was trained on shuffled labels",
    "problems": "is of a cohort with problems that invalidate its results",
    "accepted_leaks": "is of a cohort with a leak that convert --allowLeak accepted",
}
KEYS = {"subject": "", "file": "the record "}  # columns whose values both must have, and what stands before one
SAME = ("subject", "label", "site")  # columns that must be the same in each record
SEED = 0  # of the bootstrap, whatever those of the runs are
DIGITS = 6  # of log odds; what varies less is rounding
CONCLUSIONS = {"beats": "a is better", "worse": "b is better", "level": "level", "unknown": "unknown"}


@dataclass(frozen=True, eq=False)
class FinishedTest:
    """A finished test. It is `called` by its folder with its `letter` first, then by the letter. `pooled` is its
    predictions.csv, `repeats` those of its repeats, or the same again; rows are records, by file, in the same order."""

    letter: str
    called: str
    folder: Path
    described: Described
    pooled: pd.DataFrame
    repeats: tuple[pd.DataFrame, ...]

    @property
    def known(self) -> pd.DataFrame:
        """The rows of `pooled` whose label is known; of repeats, probabilities are means over them."""
        return self.pooled[self.pooled["label"].notna()]

    @property
    def predictions(self) -> Predictions:
        """Those of the first repeat, with the others."""
        first, *others = (Predictions.of(table.loc[self.known.index]) for table in self.repeats)
        return replace(first, repeats=tuple(others))

    @cached_property
    def scores(self) -> dict[str, Estimate]:
        """As in `metrics.json`."""
        return with_intervals(self.predictions, self.described.seed)

    @property
    def cut(self) -> str:
        """How people were divided into those who trained and those who were tested."""
        how, fold = self.described.folds, self.described.fold
        if how is None:
            return "tests one split"
        one = f", the fold {fold} of them" if fold else ""
        return f"is cut into {how} folds{one}" if how.isdecimal() else f"leaves out one {how} at a time{one}"


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
        refuse_incompatible(runs[0], run)
    return runs


def names_of(folders: Sequence[Path]) -> list[str]:
    """The last parts of the folders' paths, as many as tell them apart, with letters."""
    parts = [folder.absolute().parts for folder in folders]
    ends = [["/".join(path[-count:]) for path in parts] for count in range(1, max(map(len, parts)) + 1)]
    names = next((names for names in ends if len(set(names)) == len(names)), ends[-1])
    return [f"{name} ({letter})" for letter, name in zip(LETTERS, names, strict=False)]


def read(letter: str, called: str, folder: Path) -> FinishedTest:
    """Raises InputError, naming the file, unless a classifier's test was finished there and is as it was written."""
    pooled = table_of(folder)
    described = read_as(folder, Described)
    if pooled["label"].isna().all():
        raise InputError(f"{folder / PREDICTIONS} has no known label; nothing can be compared.")
    if described.repeats < 2:
        return FinishedTest(letter, called, folder, described, pooled, (pooled,))
    repeats = [table_of(folder / REPEAT.format(number)) for number in range(described.repeats)]
    columns = ["subject", "label", "site"]
    for number, table in enumerate(repeats):
        if not table[columns].equals(pooled[columns]):
            raise InputError(f"{folder} has other people, labels or sites in repeat {number}; test again.")
    return FinishedTest(letter, called, folder, described, pooled, tuple(repeats))


def table_of(folder: Path) -> pd.DataFrame:
    """The predictions of a finished test, by file. Raises InputError, see `read`."""
    manifest, path = manifest_of(folder), folder / PREDICTIONS
    table = read_predictions(path)
    written = (manifest.outputs_sha256 or {}).get(PREDICTIONS)
    if written not in (None, sha256(path)) or table["file"].duplicated().any():
        raise InputError(f"{path} is not as the test wrote it; copy the folder again, or test again.")
    return table.set_index("file").sort_index()


def manifest_of(folder: Path) -> Manifest:
    """Raises InputError unless a classifier's test was finished in the folder."""
    if not (folder / MANIFEST).is_file():
        what = files.running(folder, "holds no run.json") if folder.is_dir() else "is no folder"
        raise InputError(f"{folder} {what}; {EXPECTED}.")
    manifest = read_as(folder, Manifest)
    if manifest.job != "test":
        raise InputError(f"{folder} is of another job ({manifest.job or 'unknown'}); {EXPECTED}.")
    if manifest.model not in MODELS or MODELS[manifest.model].predicts != "label":
        raise InputError(f"{folder} is of the model {manifest.model or 'unknown'}; {EXPECTED}.")
    if not manifest.finished:
        raise InputError(f"{folder} is of a test that {files.running(folder, 'did not end; repeat its command')}.")
    return manifest


def refuse_incompatible(one: FinishedTest, other: FinishedTest) -> None:
    """Raises InputError if one of the two cannot be compared with the other."""
    if difference := next(incompatibilities(one, other), None):
        names = f"{one.letter} is {one.folder}, {other.letter} is {other.folder}"
        raise InputError(f"{difference}. ({names}.) Compare tests of the same people, labels and folds.")


def incompatibilities(one: FinishedTest, other: FinishedTest) -> Iterator[str]:
    """What makes a comparison of the two void, the most telling first."""
    for name, words in VOID.items():
        has = [bool(getattr(run.described, name)) for run in (one, other)]
        if has[0] != has[1]:
            affected, free = (one, other) if has[0] else (other, one)
            yield f"{affected.letter} {words}, {free.letter} not"
    if one.cut != other.cut:
        yield f"{one.letter} {one.cut}, {other.letter} {other.cut}, so their models were trained on other people"
    yield from other_repeats(one, other)
    for column, before in KEYS.items():
        yield from one_sided(one, other, column, before)
    for column in SAME:
        yield from differing(one, other, column, (one.pooled[column], other.pooled[column]))
    for number, (mine, its) in enumerate(zip(one.repeats, other.repeats, strict=True)):
        name = f"fold in repeat {number}" if len(one.repeats) > 1 else "fold"
        yield from differing(one, other, name, (fold_of(mine), fold_of(its)))


def fold_of(table: pd.DataFrame) -> pd.Series:
    """The fold of each record, empty where one model predicted all."""
    return table["fold"] if "fold" in table else pd.Series("", table.index)


def other_repeats(one: FinishedTest, other: FinishedTest) -> Iterator[str]:
    """A mean over repeats is steadier than one of them, so only means over as many are compared."""
    with_fewer, with_more = sorted((one, other), key=lambda run: len(run.repeats))
    few, many = len(with_fewer.repeats), len(with_more.repeats)
    if few < many:
        first = f"compare {with_more.folder / REPEAT.format(0)} with it, or " if few == 1 else ""
        advice = f"{first}train and test {with_fewer.letter} by run.py with --repeats {many}"
        yield f"{with_more.letter} is the mean of {many} repeats, {with_fewer.letter} of {few}: {advice}"


def one_sided(one: FinishedTest, other: FinishedTest, column: str, before: str) -> Iterator[str]:
    """What only one of the two has: how many, and an example."""
    values = [set(run.pooled.reset_index()[column]) for run in (one, other)]
    sides = ((one, values[0] - values[1]), (other, values[1] - values[0]))
    if found := [f"{before}{min(only)} is in {run.letter} only{more(len(only))}" for run, only in sides if only]:
        yield ", ".join(found)


def differing(one: FinishedTest, other: FinishedTest, name: str, columns: tuple[pd.Series, pd.Series]) -> Iterator[str]:
    """Which records have another value: an example, and how many more."""
    first, second = (column.map(spelled) for column in columns)
    if len(others := first.index[first != second]):
        file = others[0]
        yield (
            f"the {name} of {file} is {first[file]} in {one.letter}, {second[file]} in {other.letter}"
            f"{more(len(others))}"
        )


def spelled(value: object) -> str:
    """A cell as text: labels are 1, 0 or unknown."""
    return ("unknown" if value != value else f"{value:g}") if isinstance(value, float) else str(value) or "empty"


def more(count: int) -> str:
    """How many there are beside the one that was named."""
    return f" (and {count - 1} more)" if count > 1 else ""


@dataclass(frozen=True)
class RightCounts:
    """How many records are predicted right by whom, at the threshold of all results."""

    both_right: int
    only_a_right: int
    only_b_right: int
    neither_right: int

    @classmethod
    def of(cls, one: np.ndarray, other: np.ndarray) -> "RightCounts":
        """From which records (n,) bool either predicts right."""
        counts = (one & other, one & ~other, ~one & other, ~one & ~other)
        return cls(*(int(count.sum()) for count in counts))

    @property
    def p(self) -> float:
        """Exact McNemar test (1947): whether those whom only one predicts right are as many on both sides. It takes
        records as independent, and does not know what the models of folds share."""
        apart = self.only_a_right + self.only_b_right
        return float(binomtest(self.only_a_right, apart).pvalue) if apart else 1.0

    @property
    def row(self) -> dict[str, float]:
        return asdict(self) | {"p_mcnemar": self.p}


@dataclass(frozen=True)
class Site:
    """The people of a site, and who is predicted right there."""

    name: str
    subjects: int
    agreement: RightCounts


@dataclass(frozen=True, eq=False)
class Pair:
    """Two runs, a and b; `less`: scores of a minus those of b as `metrics.differences` has them, one `among` so many
    pairs; `correlations` of their log odds, over all records and, where there are several, within sites."""

    a: FinishedTest
    b: FinishedTest
    less: dict[str, Estimate]
    correlations: dict[str, float | None]
    agreement: RightCounts
    sites: tuple[Site, ...]
    among: int

    @property
    def name(self) -> str:
        return f"{self.a.letter} and {self.b.letter}"

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
    return [compared(one, other, len(every)) for one, other in every]


def compared(a: FinishedTest, b: FinishedTest, among: int) -> Pair:
    """Two runs that may be compared, side by side, one of so many pairs."""
    both = [run.known for run in (a, b)]
    site = both[0]["site"]
    right = [((table["probability"] >= THRESHOLD) == (table["label"] == 1)).to_numpy() for table in both]
    within = {"correlation_sites": correlation(both, site)} if site.nunique() > 1 else {}
    sites = [
        Site(name, both[0]["subject"][at].nunique(), RightCounts.of(right[0][at], right[1][at]))
        for name, at in ((name, (site == name).to_numpy()) for name in site.unique())
    ]
    return Pair(
        a,
        b,
        differences(a.predictions, b.predictions, SEED, among),
        {"correlation": correlation(both)} | within,
        RightCounts.of(*right),
        tuple(sorted(sites, key=lambda one: (-one.subjects, one.name))),
        among,
    )


def correlation(both: Sequence[pd.DataFrame], site: pd.Series | None = None) -> float | None:
    """Pearson's, of the log odds of two tables of predictions, minus their mean at each `site` if that is given; None
    if one of them does not vary."""
    values = pd.DataFrame(
        {name: log_odds(table["probability"].to_numpy()) for name, table in zip("ab", both, strict=True)}
    )
    if site is not None:
        values -= values.groupby(site.to_numpy()).transform("mean")
    return or_none(values.round(DIGITS).corr().loc["a", "b"])


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
            **pair.correlations,
            **pair.agreement.row,
        }


def rows_by_site(pairs: Sequence[Pair]) -> Iterator[dict]:
    """The rows of `compare_sites.csv`."""
    for pair in pairs:
        folders = {"a": str(pair.a.folder), "b": str(pair.b.folder)}
        for site in pair.sites:
            yield folders | {"site": site.name, "subjects": site.subjects} | site.agreement.row
