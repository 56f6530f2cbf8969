"""An adjustment for covariates -> a table of what is in the test, what is not, and why: shown once on a page."""

from collections.abc import Iterator

import pandas as pd

from data.pages.page import Section
from utils.report.columns import COUNT_FORMAT, ColumnSpec, make_table_section
from utils.scores.adjustment import MAX_IMPUTED_SHARE, Adjustment

ADJUSTED_COLUMNS = ("covariate", "in_the_test", "missing", "why_not")
ADJUSTED_COLUMN_SPECS = {
    "covariate": ColumnSpec("covariate"),
    "in_the_test": ColumnSpec("in the test"),
    "missing": ColumnSpec(
        "missing in", COUNT_FORMAT, "Unknown numbers are the median, with a mark; unknown texts a category."
    ),
    "why_not": ColumnSpec("why not, or not wholly"),
}
TOO_FEW_KNOWN_REASON = "known for too few, the same in all, or too few participants"
NEVER_MEASURED_TEXT = "what nobody measured, such as the length of the scan and medication"


def make_adjusted_table(covariate_adjustment: Adjustment) -> pd.DataFrame:
    """A row for each covariate, product or curve that is in a test, or is not; the columns are `ADJUSTED_COLUMNS`."""
    return pd.DataFrame(make_adjusted_rows(covariate_adjustment), columns=[*ADJUSTED_COLUMNS])


def make_adjusted_rows(adjustment: Adjustment) -> Iterator[tuple[str, str, float | None, str]]:
    for covariate_name in adjustment.covariates:
        has_gaps = covariate_name in adjustment.incomplete_covariates
        incompleteness_reason = (
            f"unknown for more than {MAX_IMPUTED_SHARE:.0%}: it may explain the result there" if has_gaps else ""
        )
        yield (
            covariate_name,
            "partly" if has_gaps else "yes",
            adjustment.imputed_count_by_covariate.get(covariate_name, 0),
            incompleteness_reason,
        )
    for covariate_name in adjustment.unusable_covariates:
        yield covariate_name, "no", None, TOO_FEW_KNOWN_REASON
    for covariate_name in adjustment.unmeasured_kinds:
        yield covariate_name, "no", None, "not in the tables"
    if adjustment.covariates[1:]:
        yield "products of two, and curves", "yes" if adjustment.term_columns.shape[1] else "no", None, ""
    for second_covariate, first_covariates in adjustment.oversized_products.items():
        yield f"{', '.join(first_covariates)} by {second_covariate}", "no", None, "too few participants"
    if adjustment.covariates[1:]:
        yield "products of three", "no", None, "not tested"
    yield NEVER_MEASURED_TEXT, "no", None, "unknown"


def make_adjusted_section(adjusted_table: pd.DataFrame, introduction: str) -> Section:
    """The section with the table of `make_adjusted_table`: what is not in the test may explain a result."""
    return make_table_section(
        "Covariates", adjusted_table, ADJUSTED_COLUMNS, introduction, ADJUSTED_COLUMN_SPECS, open=True
    )
