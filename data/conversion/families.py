"""A column of a table -> who is of which family, what is said of it, and who is a relative of training people."""

import re
from collections.abc import Collection
from dataclasses import replace

import pandas as pd

from data.base.errors import InputError
from data.cohorts.cohort import Cohort
from data.cohorts.duplicates import counted_families
from data.cohorts.phenotype import clean
from data.cohorts.rows import listed, named_groups
from data.conversion.source import Source
from data.conversion.tables import canonical_value, column

FAMILY = re.compile(r"(fam(ily)?|twin(pair)?|pedigree)[ _.-]*(id|no|nr|number|code)?", re.IGNORECASE)
MOST = 0.5  # share of the people: a column with one value for as many is none of families


def added(source: Source, name: str | None, used: Collection[str], few: bool = False) -> Source:
    """The source with the column `family` of its subjects, empty where it is unknown; as it is without a `name`. Raises
    InputError for a column that is missing or `used` otherwise. Unless there may be `few` people, also for one in which
    nobody has a relative, or one family holds most of them."""
    if name is None:
        return source
    if name in (*used, source.site_column, source.label_column):
        raise InputError(
            f"--family {name} is also the site, the diagnosis, or of the phenotype or the covariates; expected a "
            "column that says no more than who is related."
        )
    values = clean(column(source.rows, name, source.table)).map(canonical_value, na_action="ignore")
    sizes = values.value_counts()
    largest = int(sizes.max()) if len(sizes) else 0
    if largest < 2 and not few:
        raise InputError(
            f"--family {name} of {source.table} has no value twice among {len(values)} people; expected one value for "
            "all of a family. Name another column, or leave it out."
        )
    if largest >= MOST * len(values) and not few:
        raise InputError(
            f"--family {name} of {source.table} has one value, {sizes.idxmax()}, for {largest} of {len(values)} "
            "people; expected one for each family. Name another column, or leave it out."
        )
    return replace(source, subjects=source.subjects.assign(family=values.fillna("").to_numpy()), family_column=name)


def added_like(source: Source, name: str | None, like: Cohort) -> Source:
    """The source with the families of new people, by a column that is named, or that `like` has."""
    there = like.metadata.family_column
    used = (*like.metadata.phenotype_columns, *like.metadata.covariate_columns)
    return added(source, name or (there if there in source.rows else None), used, few=True)


def families_of(subjects: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """The members of each family, of one member, too, by its name in the column `family`; none without the column."""
    if "family" not in subjects:
        return {}
    known = subjects[subjects["family"] != ""]
    return {str(family): tuple(of) for family, of in known.groupby("family", sort=False)["subject"]}


def notes(source: Source) -> list[str]:
    """How the column was read: how many families it has, the largest, and how many people have no value; without one,
    which columns look like it."""
    if not (name := source.family_column):
        return [
            f"{other} looks like a column of families; if it is, name it with --family, or relatives are on both sides."
            for other in source.rows
            if FAMILY.fullmatch(other) and clean(source.rows[other]).dropna().duplicated().any()
        ]
    family = source.subjects["family"]
    members = families_of(source.subjects)
    told = [f"Families by {name}: {counted_families(members, len(family))}. Each is in one split, and in one fold."]
    if (largest := max(members, key=lambda of: len(members[of]), default="")) and len(members[largest]) > 1:
        told[0] += f" The largest is {largest}: {named_groups([members[largest]])}."
    if unknown := (family == "").sum():
        told.append(f"{unknown} of {len(family)} people have no value of {name}; each is taken to have no relatives.")
    return told


def notes_like(source: Source, like: Cohort) -> list[str]:
    """`notes`, and which of the new people are relatives of people of `like`."""
    there, several = like.metadata.family_column, len(source.subjects) > 1
    if not source.family_column:
        lacking = f"{source.table} lacks {there}, so families are not known; --family names a column."
        return [lacking] if there and several else []
    found: dict[str, list[str]] = {"train": [], "test": []}
    for subject, family in zip(source.subjects["subject"], source.subjects["family"], strict=True):
        for split, of_split in found.items():
            known = [one for one in like.metadata.families.get(family, ()) if one in set(like.subjects(split))]
            of_split += [f"{subject} of {known[0]}"] if known else []
    by = f"people of {like.path}, by {source.family_column}"
    told = [f"Relatives of training {by}: {listed(found['train'])}. Scores on them are too good; leave them out with "
            "--exclude."] if found["train"] else []  # fmt: skip
    told += [f"Relatives of test {by}: {listed(found['test'])}. Scores on them are too good for a model of "
             "everybody, which these trained, too."] if found["test"] else []  # fmt: skip
    return [*notes(source), *told]
