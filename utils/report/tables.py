"""The tables of a classifier's test in its folder. A test writes them, and reads them again to pool them. The report
reads and checks them, with the description in `run.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from data.base import files
from data.base.errors import InputError
from data.base.tables import read_frame, write_frame
from models import MODELS
from utils.runs import record
from utils.runs.cross_validation import CrossValidation
from utils.runs.record import MANIFEST_FILE, Caveats, Choices, Manifest
from utils.runs.run import Run
from utils.scores.conclusion import Conclusion
from utils.scores.results import CONFIDENCE_LEVEL, HEADLINES, METRICS, ROWS, TABLES, Estimate, Table

PERMUTATIONS = "permutations"  # of run.json
PEOPLE, SITE = "participants", "site"  # rows of table1.csv that are not covariates
LABELS = ("autism", "control", "unknown")
KINDS = {"as predicted": "probability", "calibrated": "calibrated"}  # of it, and their columns in probabilities.csv
COVERAGE, NONE, ONE, BOTH = "coverage", "none", "one", "both"  # measures there
FOLDS = "folds"  # of metrics.json: the scores of each
DIGITS = 8  # of numbers in tables, significant ones
MINUS = "model_minus_baseline_"  # before the name of an AUC, a column of `baselines.csv`


@dataclass(frozen=True)
class Count:
    """Subjects of one split and site, by label."""

    split: str
    site: str
    autism: int
    control: int
    unknown: int


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """How the data that a test read had been prepared."""

    normalisation: str  # of the volumes, at conversion
    reduction: str  # see `Preparation`
    standard: str  # of the volumes, as they are read
    connectome: str  # the series whose correlations the cohort has
    phenotype_columns: tuple[str, ...]
    num_phenotype: int  # values made of these that are not alike for all; 0 if unknown
    derivation: str  # of maps and series from scans, in words
    scaled_by: str  # whose medians, means and spreads the phenotype takes: `fold` or `split`; empty if unknown
    same_scan: int  # groups of people who share a scan
    together: bool  # whether these are in one split or fold
    families: int  # of two people or more
    family_column: str
    conversion: str  # the command


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The candidate that inner folds chose in a training, with its settings, and the scores of all: the `metric`
    there."""

    name: str
    preset: str
    config: dict[str, Any]
    batches: int  # of the trainings in inner folds
    metric: str
    scores: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Permuted:
    """The end of a series: `high` of `count` permutations score at least as high as the `observed` score. `bound` is
    the upper end of the one-sided 95 % interval of the p of infinitely many permutations (Clopper & Pearson 1934)."""

    p: float
    bound: float
    high: int
    count: int
    asked: int
    observed: float
    metric: str
    mean: float  # score on permuted labels

    @property
    def sentence(self) -> str:
        work = "Besag and Clifford 1991, doi:10.1093/biomet/78.2.301"
        early = f" No more were needed ({work})." if self.count < self.asked else ""
        return (
            f"p = {self.p:.2g} for the whole procedure: on labels permuted within sites its "
            f"{HEADLINES[self.metric]} was as high in {self.high} of {self.count} permutations (mean {self.mean:.3f})."
            f"{early} Infinitely many would give at most {self.bound:.2g} ({CONFIDENCE_LEVEL:.0%} bound)."
        )


@dataclass(frozen=True, kw_only=True)
class Described(Choices, Caveats):
    """The record of a test, without groups; `left_out` holds the number of people by the reason of a conversion."""

    command: list[str]
    cohort: str
    cohort_sha256: str
    simulated: bool
    checkpoint_folder: str
    weights: str | dict[str, str] | None
    git_commit: str | None
    packages: dict[str, str]
    started: str
    step: int
    folds: str | None  # the name of a `Division`
    fold: str | None  # the one that was tested, if only one was
    conclusion: Conclusion | None = None  # None without labels, and of one fold
    warnings: list[str]
    subjects: list[Count]
    maps: tuple[str, ...]  # in a record, where they have names
    left_out: dict[str, int]
    repeats: int
    chosen: dict[str, Chosen] = field(default_factory=dict)  # in each fold, among candidates
    permutations: Permuted | None = None
    prepared: Prepared
    promise: str = ""  # what probabilities and sets of labels promise to new people
    baseline_settings: dict[str, str]  # of each classifier that is a baseline
    shares: dict[str, float]  # what each part of the networks counts, if it was learned
    cross_validation: CrossValidation | None = None  # the test on folds that goes with a model of everybody

    @property
    def small_sites(self) -> bool:
        return bool(self.conclusion and self.conclusion.small_sites)

    @property
    def cohort_name(self) -> str:
        """What a page says of where the cohort lies: nothing of the folders of who made it."""
        return Path(self.cohort).name


@dataclass(frozen=True)
class Tables:
    """All of a test's tables; `scores` is empty where no label is known, `folds` unless folds were pooled.

    `predictions`: `label` 1 autism, 0 control, NaN unknown; `probability` of autism, of repeats the mean, and the fold
    of the first. `others`: the tables that there are, by their names in `TABLES` of `utils/scores/results.py`. Such a
    name is also an attribute, None where there is no table or it has no row.
    """

    run: Described
    predictions: pd.DataFrame
    scores: dict[str, Estimate]
    folds: dict[str, dict[str, Estimate]]
    others: dict[str, pd.DataFrame]

    @classmethod
    def of(cls, run: Described, tables: Mapping[str, pd.DataFrame], metrics: Mapping[str, Any]) -> "Tables":
        """Of typed tables by name, and the content of `metrics.json`."""
        others = {name: table for name, table in tables.items() if len(table) or name == "out_of_distribution"}
        predictions = mean_of(by_repeat(others.pop("predictions")))
        of_all = {name: of for name, of in metrics.items() if name != FOLDS and isinstance(of, dict)}
        folds = {fold: estimates(of) for fold, of in metrics.get(FOLDS, {}).items()}
        return cls(run, predictions, estimates(of_all), folds, others)

    def __getattr__(self, name: str) -> pd.DataFrame | None:
        """One of `others`. Raises AttributeError if no table has this name."""
        if name not in TABLES:
            raise AttributeError(f"a test has no table {name}")
        return self.others.get(name)

    @property
    def labelled(self) -> pd.DataFrame:
        """The predictions whose label is known."""
        return self.predictions[self.predictions["label"].notna()]


def estimates(of: Mapping[str, Mapping[str, Any]]) -> dict[str, Estimate]:
    """Scores by name, of `metrics.json`."""
    return {name: Estimate(**values) for name, values in of.items()}


def read_test(folder: Path) -> Tables:
    """Reads a folder. Raises InputError, naming the file, for what is missing or damaged."""
    if not (folder / TABLES["predictions"].file).is_file():
        raise InputError(f"{folder} holds no predictions.csv; expected the folder of a classifier's `run.py --test`.")
    found = record.read_manifest(folder)
    if found is None:
        raise InputError(f"{folder / MANIFEST_FILE} cannot be read (No such file or directory). Copy it again.")
    if found.model not in MODELS or MODELS[found.model].predicted != "label":
        raise InputError(f"{folder / MANIFEST_FILE} has the model {found.model}; expected a classifier. Test one.")
    run, there = described(found, folder), [table for table in ROWS if (folder / table.file).exists()]
    others = {table.name: typed(read_frame(folder / table.file), table) for table in there}
    is_known = others["predictions"]["label"].notna().any()
    metrics = files.read_json(folder / METRICS, dict[str, Any]) if is_known else {}
    return Tables.of(run, others, metrics)


def described(found: Manifest, folder: Path) -> Described:
    """The record of the test in a folder. Raises InputError if it is damaged."""
    try:
        return files.parse_json(files.format_json(found.flat_fields), Described)
    except ValueError as error:
        raise InputError(f"{folder / MANIFEST_FILE} is damaged ({error}). Copy it again.") from error


def typed(table: pd.DataFrame, of: Table) -> pd.DataFrame:
    """A table as it was written: texts, none of which is unknown, and numbers, NaN where unknown."""
    found = {
        name: column.astype(object).where(column.notna(), "").astype(str)
        if name in of.texts
        else pd.to_numeric(column, errors="coerce").astype(float)
        for name, column in table.items()
    }
    return pd.DataFrame(found, index=table.index)


def column_of_sets(level: float) -> str:
    """The column of probabilities.csv with the sets of a level."""
    return f"set_{100 * level:.0f}"


@dataclass(frozen=True)
class Tested:
    """What one repeat of a test predicts, a row a record: `predictions.csv` and `baseline_predictions.csv`, which is
    empty where no baseline could be fitted."""

    predictions: pd.DataFrame
    baselines: pd.DataFrame

    def of_records(self, file: pd.Series) -> "Tested":
        """The rows of some records, in their order; of baselines the probabilities only."""
        predictions = self.predictions.set_index("file").loc[file].reset_index()
        if not len(self.baselines):
            return Tested(predictions, pd.DataFrame(index=file))
        return Tested(predictions, self.baselines.drop(columns="fold", errors="ignore").set_index("file").loc[file])


def tested(run: Run) -> list[Tested]:
    """The tables in the output folder of a run, of each repeat."""
    predictions, baselines = (by_repeat(read_table(run, of)) for of in ("predictions", "baseline_predictions"))
    baselines = baselines if len(baselines) == len(predictions) else [pd.DataFrame()] * len(predictions)
    return [Tested(*both) for both in zip(predictions, baselines, strict=True)]


def by_repeat(table: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each repeat; all if there is one."""
    if "repeat" not in table:
        return [table]
    return [of.drop(columns="repeat").reset_index(drop=True) for _, of in table.groupby("repeat")]


def mean_of(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables with a row a record (`file`), in any order, as one in the order of the first, with its texts, such as the
    fold, and the mean of numbers that all have."""
    first, *others = (table.set_index("file") for table in tables)
    others = [other.loc[first.index] for other in others]
    mean = first[[name for name in first if all(name in other for other in others)]].copy()
    for name in mean.select_dtypes("number"):
        mean[name] = sum((other[name] for other in others), first[name]) / len(tables)
    return mean.reset_index()


class Results:
    """The tables of a test: each is written, and kept as its file has it, digit by digit, for the report."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.tables = dict[str, pd.DataFrame]()
        self.promise = ""  # see `Described`

    def add(self, name: str, table: pd.DataFrame) -> None:
        """A table by its name in `TABLES`."""
        path = self.run.out_dir / TABLES[name].file
        write_frame(path, table, DIGITS)
        self.tables[name] = typed(read_frame(path, list(table)), TABLES[name])


def read_predictions(path: Path) -> pd.DataFrame:
    """`predictions.csv`."""
    return typed(read_frame(path), TABLES["predictions"])


def read_table(run: Run, name: str) -> pd.DataFrame:
    """A table that a run on a fold wrote, texts as they are; no rows if it is not there."""
    of = TABLES[name]
    path = run.out_dir / of.file
    if not path.is_file():
        return pd.DataFrame()
    try:
        return read_frame(path).apply(lambda column: column if column.name in of.texts else pd.to_numeric(column))
    except (InputError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); remove {path.parent} and repeat the command.") from error
