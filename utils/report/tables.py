"""The tables of a classifier's test in its folder. A test writes them, and reads them again to pool them. The report
reads and checks them, with the description in `run.json`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.base import files
from data.base.errors import InputError
from data.base.tables import read_frame, write_frame
from models import MODELS
from utils.runs import record
from utils.runs.checkpoints import name_of
from utils.runs.cross_validation import CrossValidation
from utils.runs.record import RECORD, Caveats, Choices
from utils.runs.run import Run
from utils.scores.results import METRICS, PREDICTION_COLUMNS, ROWS, TABLES, Estimate, Table

PERMUTATIONS = "permutations"  # of run.json
PEOPLE, SITE = "participants", "site"  # rows of table1.csv that are not covariates
LABELS = ("autism", "control", "unknown")
KINDS = {"as predicted": "probability", "calibrated": "calibrated"}  # of it, and their columns in probabilities.csv
COVERAGE, NONE, ONE, BOTH = "coverage", "none", "one", "both"  # measures there
DIGITS = 8  # of numbers in tables, significant ones
POINTS = 200  # of a history
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
    wall_time_s: float
    step: int
    folds: str | None  # how many, or the covariate whose values are left out one at a time
    fold: str | None  # the one that was tested, if only one was
    conclusion: str
    warnings: list[str]
    motion: str | None
    subjects: list[Count]
    maps: tuple[str, ...]  # in a record, where they have names
    left_out: dict[str, int]
    repeats: int
    chosen: dict[str, Chosen] = field(default_factory=dict)  # in each fold, among candidates
    permutations: Permuted | None = None
    prepared: Prepared
    small_sites: bool = False  # whether the AUC within sites compares people of one fold only, see `Predictions`
    baseline_settings: dict[str, str]  # of each classifier that is a baseline
    shares: dict[str, float]  # what each part of the networks counts, if it was learned
    cross_validation: CrossValidation | None = None  # the test on folds that goes with a model of everybody

    @property
    def cohort_name(self) -> str:
        """What a page says of where the cohort lies: nothing of the folders of who made it."""
        return Path(self.cohort).name


@dataclass(frozen=True)
class Tables:
    """All of a test's tables; `scores` is empty where no label is known, `folds` unless folds were pooled.

    `predictions`: `label` 1 autism, 0 control, NaN unknown; `probability` of autism. `others`: the tables that there
    are, by their names in `TABLES` of `utils/scores/results.py`; cells that hold no finite number are NaN. Such a name
    is also an attribute, None where there is no table.
    """

    run: Described
    predictions: pd.DataFrame
    scores: dict[str, Estimate]
    folds: dict[str, dict[str, Estimate]]
    others: dict[str, pd.DataFrame]

    def __getattr__(self, name: str) -> pd.DataFrame | None:
        """One of `others`. Raises AttributeError if no table has this name."""
        if name not in TABLES:
            raise AttributeError(f"a test has no table {name}")
        return self.others.get(name)

    @property
    def labelled(self) -> pd.DataFrame:
        """The predictions whose label is known."""
        return self.predictions[self.predictions["label"].notna()]


def read_test(folder: Path) -> Tables:
    """Reads a folder. Raises InputError, naming the file, for what is missing or damaged."""
    path = folder / TABLES["predictions"].file
    if not path.is_file():
        raise InputError(f"{folder} holds no {path.name}; expected the folder of a classifier's `run.py --test`.")
    run = described(folder)
    if run.model not in MODELS or MODELS[run.model].predicts != "label":
        raise InputError(f"{folder / 'run.json'} has the model {run.model}; expected a classifier. Test one.")
    predictions = mean_of(by_repeat(read_predictions(path)))
    scores, folds = read_scores(folder / METRICS) if predictions["label"].notna().any() else ({}, {})
    if ("fold" in predictions) != bool(folds) and scores:
        raise InputError(f"{folder} has folds in one of {path.name} and {METRICS} only. Test again.")
    without = () if run.folds else ("calibration",)
    asked = [table for table in ROWS if table.needed and table.name not in without and (folder / table.file).exists()]
    others = {table.name: read_numbers(folder / table.file, table) for table in asked}
    if scores and "sites" not in others:
        raise InputError(f"{folder} holds no {TABLES['sites'].file}. Test again.")
    if "calibration" in others:
        others["probabilities"] = read_probabilities(folder / TABLES["probabilities"].file)
    return Tables(run, predictions, scores, folds, others)


def described(folder: Path) -> Described:
    """The record of a test. Raises InputError if there is none."""
    found = record.read(folder)
    if found is None:
        raise InputError(f"{folder / RECORD} cannot be read (No such file or directory). Copy it again.")
    try:
        return files.typed(files.json_text(found.flat), Described)
    except ValueError as error:
        raise InputError(f"{folder / RECORD} is damaged ({error}). Copy it again.") from error


def column_of_sets(level: float) -> str:
    """The column of probabilities.csv with the sets of a level."""
    return f"set_{100 * level:.0f}"


def read_rows(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A table as text, with at least these columns and a row. Raises InputError."""
    table = read_frame(path, columns)
    if table.empty:
        raise InputError(f"{path} has no rows; expected one at least. Test again.")
    return table


def read_numbers(path: Path, of: Table) -> pd.DataFrame:
    """A table of numbers, NaN for anything else, beside its texts. Raises InputError."""
    table = read_rows(path, of.needed)
    return table.apply(lambda column: column if column.name in of.texts else as_numbers(column))


def as_numbers(column: pd.Series) -> pd.Series:
    """Finite numbers; NaN for everything else."""
    return pd.to_numeric(column, errors="coerce").astype(float).replace([np.inf, -np.inf], np.nan)


def read_predictions(path: Path) -> pd.DataFrame:
    """`predictions.csv`. Raises InputError for an impossible label or probability, or a subject in two folds."""
    table = read_rows(path, PREDICTION_COLUMNS)
    given = table["label"]
    table["label"], table["probability"] = as_numbers(given), as_numbers(table["probability"])
    for name, expected, wrong in (
        ("label", "1, 0 or nothing", (given != "") & ~table["label"].isin([0, 1])),
        ("probability", "a number from 0 to 1", ~table["probability"].between(0, 1)),
    ):
        if wrong.any():
            record = table["file"][wrong].iloc[0]
            raise InputError(f"{path} has a wrong {name} in record {record}; expected {expected}. Test again.")
    once = ["subject", *(name for name in ("repeat",) if name in table)]
    if "fold" in table and (table.groupby(once)["fold"].nunique() > 1).any():
        raise InputError(f"{path} has a participant in two folds; expected each to be tested once. Test again.")
    return table


def read_probabilities(path: Path) -> pd.DataFrame:
    """The folds and the numbers of `probabilities.csv`. Raises InputError for an impossible one, or if it is not
    there."""
    names = ["label", *KINDS.values()]
    found = read_rows(path, ["fold", *names])
    table = found[names].apply(as_numbers)
    if set(table["label"]) != {0, 1} or not ((table >= 0) & (table <= 1)).all(axis=None):
        raise InputError(f"{path} has a wrong number; expected both labels, and probabilities from 0 to 1. Test again.")
    return table.assign(fold=found["fold"])


def read_scores(path: Path) -> tuple[dict[str, Estimate], dict[str, dict[str, Estimate]]]:
    """The metrics, and those of each fold. Raises InputError."""
    content = files.read_json(path, dict[str, Estimate | dict[str, dict[str, Estimate]] | list[str] | bool])
    scores = {name: value for name, value in content.items() if isinstance(value, Estimate)}
    if missing := {"auc", "accuracy"} - scores.keys():
        raise InputError(f"{path} has no {min(missing)}. Test again.")
    folds = content.get("folds", {})
    return scores, folds if isinstance(folds, dict) else {}


@dataclass(frozen=True)
class Tested:
    """What one repeat of a test predicts, a row a record: `predictions.csv` and `baseline_predictions.csv`, which has
    no
    rows where no baseline could be fitted."""

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
    predictions, baselines = (
        by_repeat(read_table(run, "predictions")),
        by_repeat(read_table(run, "baseline_predictions")),
    )
    baselines = baselines if len(baselines) == len(predictions) else [pd.DataFrame()] * len(predictions)
    return [Tested(*both) for both in zip(predictions, baselines, strict=True)]


def by_repeat(table: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each repeat; all if there is one."""
    if "repeat" not in table:
        return [table]
    return [of.drop(columns="repeat").reset_index(drop=True) for _, of in table.groupby("repeat")]


def mean_of(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables with a row a record (`file`), in any order, as one in the order of the first. It has the mean of numbers
    that all have. Other columns, such as the fold, stay if they are the same in all."""
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


def write_table(run: Run, name: str, table: pd.DataFrame) -> None:
    """A table by its name in `TABLES`."""
    write_frame(run.out_dir / TABLES[name].file, table, DIGITS)


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


def write_history(run: Run) -> None:
    """`training.csv`, by the history beside the checkpoint, unless this was trained further since."""
    try:
        history = pd.read_csv(run.checkpoints.history(name_of(run.checkpoints.latest())))
        history = history[history["step"] <= run.num_iters]
    except (KeyError, OSError, ValueError):
        return
    if not len(history) or history["step"].iloc[-1] < run.num_iters:
        return
    chunk = np.arange(len(history)) * min(POINTS, len(history)) // len(history)
    how = {"step": "last"} | {name: "mean" for name in history if name not in ("step", "samples_per_s")}
    thinned = history.groupby(chunk).agg(how)
    thinned.insert(0, "fold", run.fold)
    write_table(run, "training", thinned)
