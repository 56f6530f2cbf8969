"""The form of all results: statistical conventions, a value with its 95 % interval, and the tables of a test.

The outputs of `--test`, writing, reading and the report follow from `RESULT_TABLES`.
"""

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

from data.base.thresholds import CHANCE_AUC, CONFIDENCE_LEVEL, MIN_DESCRIBED_PEOPLE, POWER

if TYPE_CHECKING:
    import pandas as pd

FAMILYWISE_ALPHA = 0.05  # family-wise p below which a region is significant
MAJORITY_BASELINE = "majority"  # the row of `baselines.csv` that reads nothing
ROLE_COLUMN = "role"  # a column of `baselines.csv`, with one of the next two
PRESPECIFIED_ROLE = "pre-specified"
OTHER_BASELINE_ROLE = "other"
GIVEN_DIAGNOSIS_MEASURE = "given_diagnosis"  # a measure of `confounds.csv`, of each covariate
# a column of `predictions.csv`: the probability where missingness is masked
MASKED_PROBABILITY_COLUMN = "missingness_masked"
DETECTABLE_DIFFERENCE_COLUMN = "minimum_detectable_difference"  # a column of `baselines.csv` and `compare.csv`
PRESPECIFIED_BASELINE_COLUMN = "prespecified_baseline"  # a column of `repeats.csv`
THRESHOLD = 0.5  # probability of autism from which on a record is predicted as autism
MIN_BOOTSTRAP_SUBJECTS = 2  # of a bootstrap: resampling a single one gives the same value every time
TITLE_BY_AUC = {
    "auc_sites": "AUC within sites",
    "auc_folds": "AUC within folds",
    "auc": "AUC",
}  # see `metrics.choose_headline_metric`
INTERVAL_TEXT = f"{CONFIDENCE_LEVEL:.0%} interval"
NO_INTERVAL_TEXT = "no interval: too few participants"


def finite_or_none(value: float | None) -> float | None:
    """A number for JSON, which has no NaN and no infinity: None for them."""
    return float(value) if value is not None and math.isfinite(value) else None


def list_estimate_columns(estimate_name: str = "") -> list[str]:
    """The three columns of an estimate in a table; without a name those of a table that holds one estimate a row."""
    return (
        [estimate_name, f"{estimate_name}_low", f"{estimate_name}_high"] if estimate_name else ["value", "low", "high"]
    )


def format_people_count(people_count: float) -> str:
    """A number of people where it may leave the lab: those below `MIN_DESCRIBED_PEOPLE` are not told apart."""
    if 0 < people_count < MIN_DESCRIBED_PEOPLE:
        return f"< {MIN_DESCRIBED_PEOPLE}"
    return f"{people_count:.0f}" if math.isfinite(people_count) else "-"


@dataclass(frozen=True)
class Estimate:
    """A number with both ends of its interval; None where undefined."""

    value: float | None  # None where undefined
    low: float | None  # lower end of the interval; None without one
    high: float | None  # upper end of the interval; None without one

    @classmethod
    def from_numbers(cls, value: float | None, low: float | None = None, high: float | None = None) -> "Estimate":
        """From numbers; those that are NaN or infinite are undefined."""
        return cls(finite_or_none(value), finite_or_none(low), finite_or_none(high))

    @classmethod
    def from_row(cls, row: "Mapping[str, Any] | pd.Series", estimate_name: str = "") -> "Estimate":
        """From the columns `list_estimate_columns(estimate_name)` of a row of a table."""
        return cls.from_numbers(*(row[column] for column in list_estimate_columns(estimate_name)))

    def to_cells(self, estimate_name: str = "") -> dict[str, float | None]:
        """The cells of the columns `list_estimate_columns(estimate_name)`; without a name they are the estimate in
        JSON."""
        return dict(zip(list_estimate_columns(estimate_name), astuple(self), strict=True))

    @property
    def value_low_high(self) -> tuple[float, ...]:
        """Value, low, high; NaN where undefined."""
        return tuple(math.nan if number is None else number for number in astuple(self))

    @property
    def beats_chance(self) -> bool | None:
        """Of an AUC: whether its interval is above chance; None where there is no interval."""
        return None if self.low is None else self.low > CHANCE_AUC

    def format_interval(self, number_format: str = ".3f", no_interval_text: str = NO_INTERVAL_TEXT) -> str:
        """`0.500 to 0.720`, or that there is no interval, and why."""
        return (
            no_interval_text
            if self.low is None or self.high is None
            else f"{self.low:{number_format}} to {self.high:{number_format}}"
        )

    def text(
        self, number_format: str = ".3f", undefined_text: str = "-", no_interval_text: str = NO_INTERVAL_TEXT
    ) -> str:
        """`0.610 (0.500 to 0.720)`, or `0.610 (no interval: too few participants)`: a value always comes with one of
        the two."""
        return (
            undefined_text
            if self.value is None
            else f"{self.value:{number_format}} ({self.format_interval(number_format, no_interval_text)})"
        )


UNDEFINED = Estimate(None, None, None)


def compute_bonferroni_widening(comparison_count: int) -> float:
    """How many times as wide intervals must be to contain all of `comparison_count` numbers at once (Bonferroni)."""
    standard_normal = NormalDist()
    return standard_normal.inv_cdf(1 - (1 - CONFIDENCE_LEVEL) / (2 * comparison_count)) / standard_normal.inv_cdf(
        (1 + CONFIDENCE_LEVEL) / 2
    )


def find_detectable_difference(difference: Estimate, comparison_count: int = 1) -> float | None:
    """The true difference, of a score that is 1 at most, which 8 of 10 studies with intervals of this width would show
    (`POWER`); None without an interval. The interval was widened for `comparison_count` comparisons, see
    `compute_bonferroni_widening`."""
    if difference.low is None or difference.high is None or difference.low == difference.high:
        return None
    half_width = (difference.high - difference.low) / 2
    standard_normal = NormalDist()
    standard_errors_per_half_width = compute_bonferroni_widening(comparison_count) * standard_normal.inv_cdf(
        (1 + CONFIDENCE_LEVEL) / 2
    )  # standard errors in `half_width`
    return min(half_width * (1 + standard_normal.inv_cdf(POWER) / standard_errors_per_half_width), 1.0)


def flatten_estimates(estimate_by_name: Mapping[str, Estimate]) -> dict[str, float | None]:
    """The cells of several estimates, by their names, in one row of a table."""
    return {
        column: cell_value
        for estimate_name, estimate in estimate_by_name.items()
        for column, cell_value in estimate.to_cells(estimate_name).items()
    }


class Headline(NamedTuple):
    """The metric that stands for a run, by its name."""

    metric: str  # its name, such as auc_sites
    score: Estimate  # the value of the metric, with its interval


METRICS_FILE = "metrics.json"
TEST_PAGE_FILE = "report.html"
BLACKOUT_PAGE_FILE = "blackout.html"
SAME_SCAN_COLUMN = "same_scan"  # the first of a group: who shares a scan, or is of one family; a column where some do
PREDICTION_COLUMNS = ("file", "subject", "site", "label", "probability")
# a kind of rows of `external.csv`, their measure, and a heading in the terminal
OUT_OF_DISTRIBUTION = "out of distribution"
OUT_OF_DISTRIBUTION_COLUMNS = ("file", "subject", "reasons")
SITE_COUNT_COLUMNS = ("subjects", "autism", "control")
CLUSTER_COUNT_COLUMN = "units"  # people, of whom those of a group count as one
CALIBRATION_COLUMNS = (
    "measure",
    "probabilities",
    "group",
    "diagnosis",
    "level",
    "participants",
    *list_estimate_columns(),
    CLUSTER_COUNT_COLUMN,
)


@dataclass(frozen=True)
class ResultTable:
    """A CSV of a test. `text_columns`: the columns that hold names and words; others are read as numbers. `is_pooled`:
    each fold writes one, and these are put together."""

    name: str  # without .csv
    text_columns: tuple[str, ...]
    is_pooled: bool = False

    @property
    def file_name(self) -> str:
        return f"{self.name}.csv"


RESULT_TABLES = (
    ResultTable("predictions", ("file", "subject", "site", "fold", SAME_SCAN_COLUMN), is_pooled=True),
    ResultTable("baseline_predictions", ("file", "fold"), is_pooled=True),  # baselines' probabilities of autism
    ResultTable("baselines", ("baseline", ROLE_COLUMN)),
    ResultTable("sites", ("site",)),
    ResultTable("groups", ("kind", "group")),  # by motion, sex and age
    ResultTable(
        "confounds", ("measure", "covariate")
    ),  # whether the output says more than covariates, motion and what is missing
    ResultTable("adjusted", ("covariate", "in_the_test", "why_not")),  # which covariates are in that test
    ResultTable("repeats", (PRESPECIFIED_BASELINE_COLUMN,)),  # the scores of each
    ResultTable(
        "probabilities", ("file", "subject", "site", "fold", SAME_SCAN_COLUMN)
    ),  # calibrated on other folds, sets of labels
    ResultTable("calibration", ("measure", "probabilities", "group", "diagnosis")),  # how well that did
    ResultTable("external", ("kind", "measure", "how")),  # people beside training people
    ResultTable("out_of_distribution", OUT_OF_DISTRIBUTION_COLUMNS),  # who of them is, and why
    ResultTable("table1", ("variable", "site", "category", "test")),  # by diagnosis
    ResultTable("participants", ("file", "subject", "labels", "out_of_distribution")),  # what a model of everybody says
)
RESULT_TABLE_BY_NAME = {result_table.name: result_table for result_table in RESULT_TABLES}
POOLED_TABLE_NAMES = tuple(result_table.name for result_table in RESULT_TABLES if result_table.is_pooled)
REPORT_DATA_FILES = (
    METRICS_FILE,
    *(result_table.file_name for result_table in RESULT_TABLES),
)  # what the report is made of
