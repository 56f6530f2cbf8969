"""A column of a table -> who is of which family, what is said of it, and who is a relative of training people."""

import re
from collections.abc import Collection
from dataclasses import replace

import pandas as pd

from data.base.errors import InputError
from data.base.terminal import SummaryRow, format_participants
from data.cohorts.cohort import Cohort
from data.cohorts.duplicates import format_family_counts
from data.cohorts.phenotype import clean_column
from data.cohorts.rows import join_group_names, join_names
from data.conversion.source import Source
from data.conversion.tables import canonical_value, column

FAMILY = re.compile(r"(fam(ily)?|twin(pair)?|pedigree)[ _.-]*(id|no|nr|number|code)?", re.IGNORECASE)
MOST = 0.5  # share of the people: a column with one value for as many is none of families


def added(source: Source, name: str | None, used: Collection[str], like: Cohort | None = None) -> Source:
    """The source with the column `family` of its subjects, empty where it is unknown; as it is without a `name`, unless
    the column of `like` is there. Raises InputError for a column that is missing or `used` otherwise; and unless people
    are prepared `like` others, for one in which nobody has a relative, or one family holds most of them."""
    if like and not name and like.metadata.family_column in source.rows:
        name = like.metadata.family_column
    if not name:
        return source
    if name in (*used, source.site_column, source.label_column):
        raise InputError(
            f"--family {name} is also the site, the diagnosis, or of the phenotype or the covariates; expected a "
            "column that says no more than who is related."
        )
    values = clean_column(column(source.rows, name, source.table)).map(canonical_value, na_action="ignore")
    largest = int(values.value_counts().max()) if values.notna().any() else 0
    if not like and not 2 <= largest < MOST * len(values):
        raise InputError(
            f"--family {name} of {source.table} has no value for more than {largest} of "
            f"{format_participants(len(values))}; expected "
            "one for each family, of two participants or more, but not of most. Name another column, or leave it out."
        )
    return replace(source, subjects=source.subjects.assign(family=values.fillna("").to_numpy()), family_column=name)


def families_of(subjects: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """The members of each family, of one member, too, by its name in the column `family`; none without the column."""
    if "family" not in subjects:
        return {}
    known = subjects[subjects["family"] != ""]
    return {str(family): tuple(of) for family, of in known.groupby("family", sort=False)["subject"]}


def facts(source: Source, like: Cohort | None = None) -> list[SummaryRow]:
    """How the column was read: how many families it has, the largest, how many people have no value, and who is a
    relative of people of `like`. Without one, which columns look like it; or that it lacks the one of `like`."""
    name, people, families = source.family_column, len(source.subjects), families_of(source.subjects)
    if like and not name:
        there = like.metadata.family_column
        lacking = f"not known, since {source.table} lacks {there}; --family names a column"
        return [("families", lacking)] if there and people > 1 else []
    if not name:
        return [
            ("families", f"{other} looks like their column; if it is, name it with --family, or they are on both sides")
            for other in source.rows
            if FAMILY.fullmatch(other) and clean_column(source.rows[other]).dropna().duplicated().any()
        ]
    unknown = people - sum(map(len, families.values()))
    largest = max(families.values(), key=len, default=("nobody",))
    told = [
        f"by {name}: {format_family_counts(families, people)}; the largest: {join_group_names([largest])}. Each is in "
        f"one split, and in one fold. {unknown} of {format_participants(people)} have no value, and so no known "
        "relatives"
    ]
    if like and (shared := families.keys() & like.metadata.families.keys()):
        split = {row.subject: row.split for row in like.rows}
        first = {of: min(like.metadata.families[of], key=lambda one: split[one] != "train") for of in shared}
        each = zip(source.subjects["subject"], source.subjects["family"], strict=True)
        relatives = [f"{one} of {first[of]} ({split[first[of]]})" for one, of in each if of in first]
        told.append(
            f"relatives of participants of {like.path}, by {name}: {join_names(relatives)}. Scores on them are too "
            "good for a model that these trained; leave them out with --exclude"
        )
    return [("families", text) for text in told]
