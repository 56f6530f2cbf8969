"""The form of all results: statistical conventions, a value with its 95 % interval, and the tables of a test.

The outputs of `--test`, writing, reading and the report follow from `ROWS`.
"""

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

from data.cohorts.records import MIN_DESCRIBED_PEOPLE
from data.cohorts.rows import CHANCE_AUC
from data.cohorts.rows import CONFIDENCE_LEVEL as CONFIDENCE_LEVEL
from data.cohorts.rows import MIN_CLASS_SUBJECTS as MIN_CLASS_SUBJECTS
from data.cohorts.rows import POWER as POWER

if TYPE_CHECKING:
    import pandas as pd

ALPHA = 0.05  # family-wise p below which a region is significant
MAJORITY = "majority"  # the row of `baselines.csv` that reads nothing
ROLE, NAMED, OTHER = "role", "pre-specified", "other"  # a column of it, and what it says of baselines
GIVEN_DIAGNOSIS = "given_diagnosis"  # a measure of `confounds.csv`, of each covariate
MASKED = "missingness_masked"  # a column of `predictions.csv`: the probability where missingness is masked
DETECTABLE = "minimum_detectable_difference"  # a column of `baselines.csv` and `compare.csv`
PRESPECIFIED_BASELINE = "prespecified_baseline"  # a column of `repeats.csv`
THRESHOLD = 0.5  # probability of autism from which on a record is predicted as autism
MIN_SUBJECTS = 2  # of a bootstrap: resampling a single one gives the same value every time
HEADLINES = {"auc_sites": "AUC within sites", "auc_folds": "AUC within folds", "auc": "AUC"}  # see `metrics.headline`
INTERVAL, NO_INTERVAL = f"{CONFIDENCE_LEVEL:.0%} interval", "no interval: too few participants"


def or_none(value: float | None) -> float | None:
    """A number for JSON, which has no NaN and no infinity: None for them."""
    return float(value) if value is not None and math.isfinite(value) else None


def columns_of(name: str = "") -> list[str]:
    """The three columns of an estimate in a table; without a name those of a table that holds one estimate a row."""
    return [name, f"{name}_low", f"{name}_high"] if name else ["value", "low", "high"]


def counted(people: float) -> str:
    """A number of people where it may leave the lab: fewer than TELLING are not told apart."""
    return (
        f"< {MIN_DESCRIBED_PEOPLE}"
        if 0 < people < MIN_DESCRIBED_PEOPLE
        else f"{people:.0f}"
        if math.isfinite(people)
        else "-"
    )


@dataclass(frozen=True)
class Estimate:
    """A number with both ends of its interval; None where undefined."""

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, value: float | None, low: float | None = None, high: float | None = None) -> "Estimate":
        """Of numbers that may be NaN or infinite, which are undefined."""
        return cls(or_none(value), or_none(low), or_none(high))

    @classmethod
    def in_row(cls, row: "Mapping[str, Any] | pd.Series", name: str = "") -> "Estimate":
        """From the columns `columns_of(name)` of a row of a table."""
        return cls.of(*(row[column] for column in columns_of(name)))

    def columns(self, name: str = "") -> dict[str, float | None]:
        """The cells of the columns `columns_of(name)`; without a name they are the estimate in JSON."""
        return dict(zip(columns_of(name), astuple(self), strict=True))

    @property
    def numbers(self) -> tuple[float, ...]:
        """Value, low, high; NaN where undefined."""
        return tuple(math.nan if number is None else number for number in astuple(self))

    @property
    def beats_chance(self) -> bool | None:
        """Of an AUC: whether its interval is above chance; None where there is no interval."""
        return None if self.low is None else self.low > CHANCE_AUC

    def ends(self, form: str = ".3f", no_interval: str = NO_INTERVAL) -> str:
        """`0.500 to 0.720`, or that there is no interval, and why."""
        return no_interval if self.low is None or self.high is None else f"{self.low:{form}} to {self.high:{form}}"

    def text(self, form: str = ".3f", undefined: str = "-", no_interval: str = NO_INTERVAL) -> str:
        """`0.610 (0.500 to 0.720)`, or `0.610 (no interval: too few people)`: no value stands without one of both."""
        return undefined if self.value is None else f"{self.value:{form}} ({self.ends(form, no_interval)})"


UNDEFINED = Estimate(None, None, None)


def simultaneous(among: int) -> float:
    """How much wider intervals are that are to hold all of so many numbers at once (Bonferroni)."""
    normal = NormalDist()
    return normal.inv_cdf(1 - (1 - CONFIDENCE_LEVEL) / (2 * among)) / normal.inv_cdf((1 + CONFIDENCE_LEVEL) / 2)


def minimum_detectable_difference(difference: Estimate, among: int = 1) -> float | None:
    """The true difference, of a score that is 1 at most, which 8 of 10 studies with intervals of this width would show
    (POWER); None without an interval. `among` how many the interval is `simultaneous`."""
    if difference.low is None or difference.high is None or difference.low == difference.high:
        return None
    half, normal = (difference.high - difference.low) / 2, NormalDist()
    errors = simultaneous(among) * normal.inv_cdf((1 + CONFIDENCE_LEVEL) / 2)  # standard errors in `half`
    return min(half * (1 + normal.inv_cdf(POWER) / errors), 1.0)


def flat(estimates: Mapping[str, Estimate]) -> dict[str, float | None]:
    """The cells of several estimates, by their names, in one row of a table."""
    return {column: number for name, one in estimates.items() for column, number in one.columns(name).items()}


class Headline(NamedTuple):
    """The metric that stands for a run, by its name."""

    metric: str
    score: Estimate


METRICS = "metrics.json"
PAGE, BLACKOUT_PAGE = "report.html", "blackout.html"
SAME_SCAN = "same_scan"  # the first of a group: who shares a scan, or is of one family; a column where some do
PREDICTION_COLUMNS = ("file", "subject", "site", "label", "probability")
OUT = "out of distribution"
OUT_COLUMNS = ("file", "subject", "reasons")
SITE_COUNTS = ("subjects", "autism", "control")
UNITS = "units"  # people, of whom those of a group count as one
CALIBRATION_COLUMNS = ("measure", "probabilities", "group", "diagnosis", "level", "participants", *columns_of(), UNITS)


@dataclass(frozen=True)
class Table:
    """A CSV of a test. `texts`: the columns that hold names and words; others are read as numbers. `pooled`: each fold
    writes one, and these are put together."""

    name: str  # without .csv
    texts: tuple[str, ...]
    pooled: bool = False

    @property
    def file(self) -> str:
        return f"{self.name}.csv"


ROWS = (
    Table("predictions", ("file", "subject", "site", "fold", SAME_SCAN), pooled=True),
    Table("baseline_predictions", ("file", "fold"), pooled=True),  # baselines' probabilities of autism
    Table("baselines", ("baseline", ROLE)),
    Table("sites", ("site",)),
    Table("groups", ("kind", "group")),  # by motion, sex and age
    Table(
        "confounds", ("measure", "covariate")
    ),  # whether the output says more than covariates, motion and what is missing
    Table("adjusted", ("covariate", "in_the_test", "why_not")),  # which covariates are in that test
    Table("repeats", (PRESPECIFIED_BASELINE,)),  # the scores of each
    Table("probabilities", ("file", "subject", "site", "fold", SAME_SCAN)),  # calibrated on other folds, sets of labels
    Table("calibration", ("measure", "probabilities", "group", "diagnosis")),  # how well that did
    Table("external", ("kind", "measure", "how")),  # people beside training people
    Table("out_of_distribution", OUT_COLUMNS),  # who of them is, and why
    Table("table1", ("variable", "site", "category", "test")),  # by diagnosis
    Table("participants", ("file", "subject", "labels", "out_of_distribution")),  # what a model of everybody says
)
TABLES = {table.name: table for table in ROWS}
POOLED = tuple(table.name for table in ROWS if table.pooled)
DATA = (METRICS, *(table.file for table in ROWS))  # what the report is made of
