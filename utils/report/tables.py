"""The tables that a classifier's test saves: their names and columns; read and checked for the report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from data.base import files
from data.base.errors import InputError
from data.base.tables import read_frame
from models import MODELS
from utils.runs.caveats import Caveats
from utils.runs.checkpoints import Choices
from utils.scores.sequential import Permuted

PREDICTIONS = "predictions.csv"
FLOORS = "floors.csv"  # the model and its floors, with intervals
SITES = "sites.csv"
REPEATS = "repeats.csv"  # the scores of each repeat
GROUPS = "groups.csv"  # scores by head motion, sex and age
CONFOUNDS = "confounds.csv"  # whether the output says more than the covariates
PROBABILITIES = "probabilities.csv"  # each person's, calibrated on the other folds, and sets of labels
CALIBRATION = "calibration.csv"  # how well that did
EXTERNAL = "external.csv"  # people none of whom took part in the training, beside those who did
UNLIKE = "unlike.csv"  # who of them is unlike all of these, and why
CANDIDATES = "candidates.csv"  # the scores of all among which was chosen, and how often each was
CHOICES_OF_FOLDS = "choices.csv"  # who was chosen in each fold, and by what scores
CANDIDATE = "candidate"  # a column of both, and of predictions
PERMUTATIONS = "permutations"  # of run.json
CHOICES = ["fold", CANDIDATE, "inner_folds", "score", "chosen"]
TRAINING = "training.csv"  # the history of the training, thinned
METRICS = "metrics.json"
TABLE1 = "table1.csv"  # the cohort's people by diagnosis
TRIPOD = "tripod_ai.csv"
PEOPLE, SITE = "people", "site"  # rows of it that are not covariates
PREDICTION_COLUMNS = ("file", "subject", "site", "label", "probability")
UNLIKE_COLUMNS = ("file", "subject", "reasons")
SITE_COUNTS = ("subjects", "autism", "control")
LABELS = ("autism", "control", "unknown")
NAMES = (  # columns of text in tables of numbers
    *("floor", "site", "fold", "best_floor", "kind", "group", "measure"),
    *("variable", "category", "test", CANDIDATE, "probabilities", "diagnosis", "how", *UNLIKE_COLUMNS),
)
KINDS = {"as predicted": "probability", "calibrated": "calibrated"}  # of it, and their columns in probabilities.csv
COVERAGE, NONE, ONE, BOTH, UNEQUAL = "coverage", "none", "one", "both", "p of equal coverage"  # measures there
COLUMNS_OF_CALIBRATION = ["measure", "probabilities", "group", "diagnosis", "level", "people", "value", "low", "high"]
MINUS = "model_minus_floor_"  # before the name of an AUC, a column of `floors.csv`


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
    """How the data that a test read had been prepared; older results do not say."""

    normalisation: str = ""  # of the volumes, at conversion
    reduction: str = ""  # see `Preparation`
    standard: str = ""  # of the volumes, as they are read
    connectome: str = ""  # the series whose correlations the cohort has
    phenotype_columns: tuple[str, ...] = ()
    scaled_by: str = ""  # whose medians, means and spreads the phenotype takes: `fold` or `split`; empty if unknown
    same_scan: int = 0  # groups of people who share a scan
    together: bool = False  # whether these are in one split or fold
    conversion: str = ""  # the command


@dataclass(frozen=True)
class Score:
    """A metric with its 95 % interval; None where undefined."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def numbers(self) -> tuple[float, ...]:
        """Value, low, high; NaN where undefined."""
        return tuple(math.nan if number is None else number for number in (self.value, self.low, self.high))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A choice among candidates: by inner folds, or `quick`, by the predictions themselves. `chosen` counts the folds
    of each who was; `agreement` is the share of pairs of folds with the same one. `metric` is what all scores are of:
    that of the `best` candidate itself, how far it lies above the procedure's, and the best one's as corrected."""

    quick: bool
    candidates: list[str]
    chosen: dict[str, int]
    agreement: float | None
    metric: str
    best: str
    best_score: Score
    optimism: Score | None
    corrected: Score


@dataclass(frozen=True, kw_only=True)
class Described(Choices, Caveats):
    """The description of a test in `run.json`; `left_out` holds the number of people by the reason of a conversion."""

    command: list[str]
    cohort: str
    cohort_sha256: str
    simulated: bool
    checkpoint_folder: str
    checkpoint_sha256: str | dict[str, str] | None
    git_commit: str | None
    packages: dict[str, str]
    started: str
    wall_time_s: float
    num_iters: int
    folds: str | None  # how many, or the covariate whose values are left out one at a time
    fold: str | None = None  # the one that was tested, if only one was
    conclusion: str
    warnings: list[str]
    motion: str | None
    subjects: list[Count]
    maps: tuple[str, ...] = ()  # in a record, where they have names
    left_out: dict[str, int] = field(default_factory=dict)
    repeats: int = 1
    choice: Choice | None = None
    permutations: Permuted | None = None
    prepared: Prepared = field(default_factory=Prepared)
    floor_settings: dict[str, str] = field(default_factory=dict)  # of each classifier that is a floor


@dataclass(frozen=True)
class Tables:
    """All of a test's tables; `scores` is empty where no label is known, `folds` unless folds were pooled.

    `predictions`: `label` 1 autism, 0 control, NaN unknown; `probability` of autism. The other tables are None where
    they do not apply; cells that hold no finite number are NaN.
    """

    run: Described
    predictions: pd.DataFrame
    scores: dict[str, Score]
    folds: dict[str, dict[str, Score]]
    floors: pd.DataFrame | None
    sites: pd.DataFrame | None
    training: pd.DataFrame | None
    repeats: pd.DataFrame | None = None
    groups: pd.DataFrame | None = None
    confounds: pd.DataFrame | None = None
    table1: pd.DataFrame | None = None
    candidates: pd.DataFrame | None = None
    choices: pd.DataFrame | None = None
    probabilities: pd.DataFrame | None = None
    calibration: pd.DataFrame | None = None
    prevalence: float | None = None  # of autism, where decisions are made; None: that among the people here
    external: pd.DataFrame | None = None
    unlike: pd.DataFrame | None = None

    @property
    def labelled(self) -> pd.DataFrame:
        """The predictions whose label is known."""
        return self.predictions[self.predictions["label"].notna()]


def read(folder: Path) -> Tables:
    """Reads a folder. Raises InputError, naming the file, for what is missing or damaged."""
    if not (folder / PREDICTIONS).is_file():
        raise InputError(f"{folder} holds no {PREDICTIONS}; expected the folder of a classifier's `run.py --test`.")
    run = files.read_json(folder / "run.json", Described)
    if run.model not in MODELS or MODELS[run.model].predicts != "label":
        raise InputError(f"{folder / 'run.json'} has the model {run.model}; expected a classifier. Test one.")
    predictions = read_predictions(folder / PREDICTIONS)
    scores, folds = read_scores(folder / METRICS) if predictions["label"].notna().any() else ({}, {})
    if ("fold" in predictions) != bool(folds) and scores:
        raise InputError(f"{folder} has folds in one of {PREDICTIONS} and {METRICS} only. Test again.")
    floors = read_numbers(folder / FLOORS, "floor", *interval("auc"))
    sites = read_numbers(folder / SITES, "site", *SITE_COUNTS, *interval("auc"), *interval("accuracy"))
    training = read_numbers(folder / TRAINING, "fold", "step", "loss")
    groups = read_numbers(folder / GROUPS, "kind", "group", *SITE_COUNTS, *interval("auc"))
    confounds = read_numbers(folder / CONFOUNDS, "measure", "value", "low", "high", "p")
    if scores and sites is None:
        raise InputError(f"{folder} holds no {SITES}. Test again.")
    repeats = read_numbers(folder / REPEATS, "repeat", "seed", *interval("auc"))
    table1 = read_numbers(folder / TABLE1, "variable", SITE, "category", "p")
    candidates = read_numbers(folder / CANDIDATES, CANDIDATE, "chosen", *interval("auc"))
    choices = read_numbers(folder / CHOICES_OF_FOLDS, *CHOICES)
    calibration = read_numbers(folder / CALIBRATION, *COLUMNS_OF_CALIBRATION) if run.folds else None
    probabilities = read_probabilities(folder / PROBABILITIES) if calibration is not None else None
    external = read_numbers(folder / EXTERNAL, "kind", "measure", "value", "low", "high")
    unlike = read_numbers(folder / UNLIKE, *UNLIKE_COLUMNS)
    of_floors = (floors, sites, training, repeats, groups, confounds, table1, candidates, choices)
    of_people = {"probabilities": probabilities, "calibration": calibration, "external": external, "unlike": unlike}
    return Tables(run, predictions, scores, folds, *of_floors, **of_people)


def column_of_sets(level: float) -> str:
    """The column of probabilities.csv with the sets of a level."""
    return f"set_{100 * level:.0f}"


def interval(metric: str) -> list[str]:
    """The three columns of a metric."""
    return [metric, f"{metric}_low", f"{metric}_high"]


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A table as text, with at least these columns and a row. Raises InputError."""
    table = read_frame(path, columns)
    if table.empty:
        raise InputError(f"{path} has no rows; expected one at least. Test again.")
    return table


def read_numbers(path: Path, *columns: str) -> pd.DataFrame | None:
    """A table of numbers, NaN for anything else, beside `NAMES`; None if it is absent. Raises InputError."""
    if not path.exists():
        return None
    return read_table(path, columns).apply(lambda column: column if column.name in NAMES else as_numbers(column))


def as_numbers(column: pd.Series) -> pd.Series:
    """Finite numbers; NaN for everything else."""
    return pd.to_numeric(column, errors="coerce").astype(float).replace([np.inf, -np.inf], np.nan)


def read_predictions(path: Path) -> pd.DataFrame:
    """`predictions.csv`. Raises InputError for an impossible label or probability, or a subject in two folds."""
    table = read_table(path, PREDICTION_COLUMNS)
    given = table["label"]
    table["label"], table["probability"] = as_numbers(given), as_numbers(table["probability"])
    for name, expected, wrong in (
        ("label", "1, 0 or nothing", (given != "") & ~table["label"].isin([0, 1])),
        ("probability", "a number from 0 to 1", ~table["probability"].between(0, 1)),
    ):
        if wrong.any():
            record = table["file"][wrong].iloc[0]
            raise InputError(f"{path} has a wrong {name} in record {record}; expected {expected}. Test again.")
    if "fold" in table and (table.groupby("subject")["fold"].nunique() > 1).any():
        raise InputError(f"{path} has a subject in two folds; expected each to be tested once. Test again.")
    return table


def read_probabilities(path: Path) -> pd.DataFrame:
    """The folds and the numbers of `probabilities.csv`. Raises InputError for an impossible one, or if it is not
    there."""
    names = ["label", *KINDS.values(), "prevalence"]
    found = read_table(path, ["fold", *names])
    table = found[names].apply(as_numbers)
    if set(table["label"]) != {0, 1} or not ((table >= 0) & (table <= 1)).all(axis=None):
        raise InputError(f"{path} has a wrong number; expected both labels, and probabilities from 0 to 1. Test again.")
    return table.assign(fold=found["fold"])


def read_scores(path: Path) -> tuple[dict[str, Score], dict[str, dict[str, Score]]]:
    """The metrics, and those of each fold. Raises InputError."""
    content = files.read_json(path, dict[str, Score | dict[str, dict[str, Score]] | list[str] | bool])
    scores = {name: value for name, value in content.items() if isinstance(value, Score)}
    if missing := {"auc", "accuracy"} - scores.keys():
        raise InputError(f"{path} has no {min(missing)}. Test again.")
    folds = content.get("folds", {})
    return scores, folds if isinstance(folds, dict) else {}
