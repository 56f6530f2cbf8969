"""Tables of a blackout -> what their columns are called on its page, how numbers are written, and what they mean.

In these texts `{noun}` and `{output}` stand for what predicts and what it gives, see `BlackoutResults.fill_words`.
"""

from collections.abc import Set

from data.base.listing import join_names
from utils.blackout.direction import CORRELATION_COLUMN, DIFFERENCE_COLUMN, DIRECTION_COLUMN
from utils.blackout.families import FeatureFamily
from utils.blackout.fills import FILLS, RELIANCE_FILL, UNIQUE_FILL
from utils.blackout.people import BlackoutVerdict
from utils.blackout.replication import BETWEEN_HALVES, BETWEEN_REPEATS, EXPECTED_COLUMN
from utils.report.columns import ColumnSpec

MAX_SUPPRESSORS_LISTED = 5  # suppressors to name in a footnote
P_MEANING_TEMPLATE = (
    "Family-wise p of {0} over all rows of its level, and of no other family: labels permuted, one-sided"
)
FAMILY_COLUMN_SPECS = {
    "name": ColumnSpec("region"),
    "level": ColumnSpec(
        "level",
        column_meaning="Pairs of systems, or pairs of regions within those that are significant; no p of these is "
        "below that of their systems.",
    ),
    "b": ColumnSpec("b", column_meaning="If it is the same as a: the edges within it."),
    **{fill.fill_name: ColumnSpec(fill.fill_name, ".4f", fill.column_meaning) for fill in FILLS},
    **{
        f"p_{fill.fill_name}": ColumnSpec(
            f"{fill.heading_prefix}p",
            ".4f",
            f"{P_MEANING_TEMPLATE.format(fill.fill_name)}; adjusted for the covariates below, if any.",
        )
        for fill in FILLS
        if fill.has_p_values
    },
    DIRECTION_COLUMN: ColumnSpec(
        DIRECTION_COLUMN, column_meaning="Which way participants differ there, and how the {noun} reads it."
    ),
    DIFFERENCE_COLUMN: ColumnSpec(
        DIFFERENCE_COLUMN,
        ".2f",
        "Autism minus control, within sites where these are known, in standard deviations, with its 95% interval. It "
        "is of these participants, not of the {noun}.",
    ),
    "difference_of": ColumnSpec("difference of"),
}
FOOTNOTE_BY_COLUMN = {  # footnotes of columns
    RELIANCE_FILL: "An interval is for its row alone. Of so many the strongest look stronger than they are.",
    DIFFERENCE_COLUMN: "Not adjusted for covariates: it may be one of age or motion.",
}
REPLICATION_COLUMN_SPECS = {
    "between": ColumnSpec(
        "between",
        column_meaning="Halves of these participants, drawn often within sites and folds. Repeats: {noun}s trained "
        "again, on the same participants.",
    ),
    "family": ColumnSpec("family"),
    "thing": ColumnSpec(
        "thing",
        column_meaning="What is significant, here or in a half or repeat. A row without a thing is of the family.",
    ),
    "significant": ColumnSpec(
        "significant", ".0f", "1: in all participants here. Of the whole family, the number of things."
    ),
    "replicates": ColumnSpec(
        "replicates",
        ".2f",
        "The share of halves or repeats in which it is significant, too. Of the whole family, the share of significant "
        "things of which this is more than one half.",
    ),
    EXPECTED_COLUMN: ColumnSpec(
        "expected of true effects",
        ".2f",
        "The chance that a true effect of this size is significant in more than half of all halves. Of the whole "
        "family, the mean over its significant things.",
    ),
    "positive_agreement": ColumnSpec(
        "positive agreement",
        ".2f",
        "Of the halves or repeats in which it is significant, the share in whose partners it is, too.",
    ),
    CORRELATION_COLUMN: ColumnSpec(
        CORRELATION_COLUMN,
        ".2f",
        "Of the mean effects of all things of a family in one half, or repeat, with those in the other. Below it "
        "stands the range of 95% of them, which is no interval.",
    ),
}
COUNT_COLUMN_SPECS = {  # of `BlackoutResults.family_counts`
    "family": ColumnSpec("family"),
    "things": ColumnSpec("how many", ",.0f"),
    RELIANCE_FILL: ColumnSpec("significant", ".0f"),
    f"{RELIANCE_FILL}_plain": ColumnSpec("before adjustment", ".0f"),
    UNIQUE_FILL: ColumnSpec("unique", ".0f"),
    f"{UNIQUE_FILL}_plain": ColumnSpec("unique before adjustment", ".0f"),
    BETWEEN_HALVES: ColumnSpec("also with half of the participants", ".0f"),
    EXPECTED_COLUMN: ColumnSpec("expected of true effects", ".1f"),
    BETWEEN_REPEATS: ColumnSpec("replicate in repeats", ".0f"),
}
COUNT_FOOTNOTE_BY_COLUMN = {  # footnotes of the columns of `COUNT_COLUMN_SPECS`
    UNIQUE_FILL: "They say what the rest of the brain does not.",
    BETWEEN_HALVES: "Significant in more than half of all halves, too: a second, stricter threshold "
    "on the same participants, "
    "which many true effects miss. Both halves have the same {noun}s.",
    BETWEEN_REPEATS: "Significant in more than half of the repeats, too. "
    "The participants are the same, the {noun}s others.",
}


def get_family_column_heading(column_name: str) -> str:
    """What a column of a family is called."""
    return FAMILY_COLUMN_SPECS[column_name].heading if column_name in FAMILY_COLUMN_SPECS else column_name


def make_family_footnotes(feature_family: FeatureFamily, explained_column_names: Set[str]) -> dict[str, str]:
    """The footnotes of a family's columns, by name; `explained_column_names` are columns whose general footnotes the
    page has shown already."""
    footnote_by_column = {
        column_name: footnote
        for column_name, footnote in FOOTNOTE_BY_COLUMN.items()
        if column_name not in explained_column_names
    } | dict(feature_family.footnote_by_column)
    if feature_family.people.verdict is not BlackoutVerdict.CONCLUSIVE:
        return footnote_by_column
    if feature_family.inner_family:
        is_pair_significant = feature_family.inner_family.reliance_effect.is_significant
        footnote_by_column["level"] = (
            f"{is_pair_significant.sum()} of {len(is_pair_significant):,} "
            f"{feature_family.feature_kind.plural_inner_feature_name} are significant."
        )
    if "remark" in feature_family.ranked_table and (
        suppressor_names := feature_family.ranked_table.query("remark != ''")["name"].tolist()
    ):
        footnote_by_column[f"p_{UNIQUE_FILL}"] = (
            f"Unique without reliance: {join_names(suppressor_names, MAX_SUPPRESSORS_LISTED)}, possibly suppressors. "
            "Such a region need not differ between the classes, but tells the {noun} how to read others."
        )
    return footnote_by_column


def list_page_column_names(feature_family: FeatureFamily) -> list[str]:
    """The columns of a family that its page shows; those of directions only if any feature has one."""
    effect_column_names = [
        column_name
        for fill_effect in feature_family.tested_effects
        for column_name in (fill_effect.fill.fill_name, f"p_{fill_effect.fill.fill_name}")
    ]
    effect_column_names += [
        fill_effect.fill.fill_name for fill_effect in feature_family.fill_effects if not fill_effect.fill.has_p_values
    ]
    direction_column_names = (
        (DIRECTION_COLUMN, DIFFERENCE_COLUMN) if feature_family.ranked_table[DIRECTION_COLUMN].any() else ()
    )
    difference_source_column_names = ["difference_of"] if "difference_of" in feature_family.ranked_table else []
    return [
        *feature_family.feature_kind.identifying_column_names,
        *effect_column_names,
        *direction_column_names,
        *difference_source_column_names,
    ]
