"""Tables of a blackout -> what their columns are called on its page, how numbers are written, and what they mean."""

from collections.abc import Set

from data.cohorts.rows import join_names
from utils.blackout.direction import CORRELATION, DIFFERENCE, DIRECTION
from utils.blackout.families import Family, Verdict
from utils.blackout.fills import FILLS, RELIANCE, UNIQUE
from utils.blackout.replication import EXPECTED, HALVES, REPEATS
from utils.report.columns import Column

FEW = 5  # things to name in a footnote
P = "Family-wise p of {0} over all rows of its level, and of no other family: labels permuted, one-sided"
COLUMNS = {
    "name": Column("region"),
    "level": Column(
        "level",
        meaning="Pairs of systems, or pairs of regions within those that are significant; no p of these is below "
        "that of their systems.",
    ),
    "b": Column("b", meaning="If it is the same as a: the edges within it."),
    **{fill.name: Column(fill.name, ".4f", fill.meaning) for fill in FILLS},
    **{
        f"p_{fill.name}": Column(
            f"{fill.prefix}p", ".4f", f"{P.format(fill.name)}; adjusted for the covariates below, if any."
        )
        for fill in FILLS
        if fill.tested
    },
    DIRECTION: Column(DIRECTION, meaning="Which way participants differ there, and how the network reads it."),
    DIFFERENCE: Column(
        DIFFERENCE,
        ".2f",
        "Autism minus control, within sites where these are known, in standard deviations, with its 95% interval. It "
        "is of these participants, not of the network.",
    ),
    "difference_of": Column("difference of"),
}
NOTES = {  # footnotes of columns
    RELIANCE: "An interval is for its row alone. Of so many the strongest look stronger than they are.",
    DIFFERENCE: "Not adjusted for covariates: it may be one of age or motion.",
}
OF_REPLICATION = {
    "between": Column(
        "between",
        meaning="Halves of these participants, drawn often within sites and folds. Repeats: networks trained again, on "
        "the same participants.",
    ),
    "family": Column("family"),
    "thing": Column(
        "thing", meaning="What is significant, here or in a half or repeat. A row without a thing is of the family."
    ),
    "significant": Column(
        "significant", ".0f", "1: in all participants here. Of the whole family, the number of things."
    ),
    "replicates": Column(
        "replicates",
        ".2f",
        "The share of halves or repeats in which it is significant, too. Of the whole family, the share of significant "
        "things of which this is more than one half.",
    ),
    EXPECTED: Column(
        "expected of true effects",
        ".2f",
        "The chance that a true effect of this size is significant in more than half of all halves. Of the whole "
        "family, the mean over its significant things.",
    ),
    "positive_agreement": Column(
        "positive agreement",
        ".2f",
        "Of the halves or repeats in which it is significant, the share in whose partners it is, too.",
    ),
    CORRELATION: Column(
        CORRELATION,
        ".2f",
        "Of the mean effects of all things of a family in one half, or repeat, with those in the other. Below it "
        "stands the range of 95% of them, which is no interval.",
    ),
}
OF_COUNTS = {  # of `BlackoutResults.counted`
    "family": Column("family"),
    "things": Column("how many", ",.0f"),
    RELIANCE: Column("significant", ".0f"),
    f"{RELIANCE}_plain": Column("before adjustment", ".0f"),
    UNIQUE: Column("unique", ".0f"),
    f"{UNIQUE}_plain": Column("unique before adjustment", ".0f"),
    HALVES: Column("also with half of the participants", ".0f"),
    EXPECTED: Column("expected of true effects", ".1f"),
    REPEATS: Column("replicate in repeats", ".0f"),
}
COUNT_NOTES = {  # footnotes of these
    UNIQUE: "They say what the rest of the brain does not.",
    HALVES: "Significant in more than half of all halves, too: a second, stricter threshold on the same participants, "
    "which many true effects miss. Both halves have the same networks.",
    REPEATS: "Significant in more than half of the repeats, too. The participants are the same, the networks others.",
}


def label(name: str) -> str:
    """What a column of a family is called."""
    return COLUMNS[name].label if name in COLUMNS else name


def notes_of(family: Family, told: Set[str]) -> dict[str, str]:
    """The footnotes of a family's columns, by name; `told` are columns of which the page has said what is general."""
    found = {name: text for name, text in NOTES.items() if name not in told} | dict(family.notes)
    if family.people.verdict is not Verdict.OPEN:
        return found
    if family.inner:
        within = family.inner.reliance.significant
        found["level"] = f"{within.sum()} of {len(within):,} {family.kind.inner} are significant."
    if "remark" in family.table and (alone := family.table.query("remark != ''")["name"].tolist()):
        found[f"p_{UNIQUE}"] = (
            f"Unique without reliance: {join_names(alone, FEW)}, possibly suppressors. Such a region need not differ "
            "between the classes, but tells the network how to read others."
        )
    return found


def columns_of(family: Family) -> list[str]:
    """Those of a family that its page shows, without directions if nothing there has one."""
    of_effects = [name for effect in family.tested for name in (effect.fill.name, f"p_{effect.fill.name}")]
    of_effects += [effect.fill.name for effect in family.effects if not effect.fill.tested]
    directed = (DIRECTION, DIFFERENCE) if family.table[DIRECTION].any() else ()
    also = ["difference_of"] if "difference_of" in family.table else []
    return [*family.kind.shown, *of_effects, *directed, *also]
