"""An adjustment for covariates -> a table of what is in the test, what is not, and why: told once on a page."""

from collections.abc import Iterator

import pandas as pd

from data.pages.page import Section
from utils.report.columns import COUNT, Column, section
from utils.scores.adjustment import MOST_IMPUTED, Adjustment

ADJUSTED = ("covariate", "in_the_test", "missing", "why_not")
COLUMNS = {
    "covariate": Column("covariate"),
    "in_the_test": Column("in the test"),
    "missing": Column("missing in", COUNT, "Unknown numbers are the median, with a mark; unknown texts a category."),
    "why_not": Column("why not, or not wholly"),
}
FEW = "known for too few, the same in all, or too few participants"
NOBODY = "what nobody measured, such as the length of the scan and medication"


def adjusted_table(beside: Adjustment) -> pd.DataFrame:
    """A row for each covariate, product or curve that is in a test, or is not; see ADJUSTED."""
    return pd.DataFrame(rows(beside), columns=[*ADJUSTED])


def rows(beside: Adjustment) -> Iterator[tuple[str, str, float | None, str]]:
    for name in beside.covariates:
        partly = name in beside.gaps
        why = f"unknown for more than {MOST_IMPUTED:.0%}: it may explain the result there" if partly else ""
        yield name, "partly" if partly else "yes", beside.imputed.get(name, 0), why
    for name in beside.without:
        yield name, "no", None, FEW
    for name in beside.unknown:
        yield name, "no", None, "not in the tables"
    if beside.covariates[1:]:
        yield "products of two, and curves", "yes" if beside.terms.shape[1] else "no", None, ""
    for other, names in beside.no_room.items():
        yield f"{', '.join(names)} by {other}", "no", None, "too few participants"
    if beside.covariates[1:]:
        yield "products of three", "no", None, "not tested"
    yield NOBODY, "no", None, "unknown"


def adjusted_section(table: pd.DataFrame, about: str) -> Section:
    """What stands in no test may explain a result."""
    return section("Covariates", table, ADJUSTED, about, COLUMNS, open=True)
