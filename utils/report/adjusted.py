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
REASON_TOO_FEW = "known for too few, the same in all, or too few participants"
NEVER_MEASURED = "what nobody measured, such as the length of the scan and medication"


def make_adjusted_table(adjustment: Adjustment) -> pd.DataFrame:
    """A row for each covariate, product or curve that is in a test, or is not; the columns are `ADJUSTED_COLUMNS`."""
    return pd.DataFrame(make_adjusted_rows(adjustment), columns=[*ADJUSTED_COLUMNS])


def make_adjusted_rows(adjustment: Adjustment) -> Iterator[tuple[str, str, float | None, str]]:
    for covariate in adjustment.covariates:
        has_gaps = covariate in adjustment.incomplete_covariates
        reason = f"unknown for more than {MAX_IMPUTED_SHARE:.0%}: it may explain the result there" if has_gaps else ""
        yield (
            covariate,
            "partly" if has_gaps else "yes",
            adjustment.imputed_count_by_covariate.get(covariate, 0),
            reason,
        )
    for covariate in adjustment.unusable_covariates:
        yield covariate, "no", None, REASON_TOO_FEW
    for covariate in adjustment.unmeasured_kinds:
        yield covariate, "no", None, "not in the tables"
    if adjustment.covariates[1:]:
        yield "products of two, and curves", "yes" if adjustment.term_columns.shape[1] else "no", None, ""
    for second_covariate, first_covariates in adjustment.oversized_products.items():
        yield f"{', '.join(first_covariates)} by {second_covariate}", "no", None, "too few participants"
    if adjustment.covariates[1:]:
        yield "products of three", "no", None, "not tested"
    yield NEVER_MEASURED, "no", None, "unknown"


def make_adjusted_section(table: pd.DataFrame, introduction: str) -> Section:
    """The section with the table of `make_adjusted_table`: what is not in the test may explain a result."""
    return make_table_section("Covariates", table, ADJUSTED_COLUMNS, introduction, ADJUSTED_COLUMN_SPECS, open=True)
