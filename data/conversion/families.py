"""A column of a table -> who is of which family, what is said of it, and who is a relative of training people."""

import re
from collections.abc import Collection
from dataclasses import replace

import pandas as pd

from data.base.errors import InputError
from data.base.listing import join_group_names, join_names
from data.base.terminal import SummaryRow, format_participants
from data.cohorts.cohort import Cohort
from data.cohorts.groups import format_family_counts
from data.conversion.source import Source
from data.tables.missing import clean_column
from data.tables.people import canonicalise_value, select_column

FAMILY_COLUMN_NAME = re.compile(r"(fam(ily)?|twin(pair)?|pedigree)[ _.-]*(id|no|nr|number|code)?", re.IGNORECASE)
MAX_FAMILY_SHARE = 0.5  # of the people: a column with one value for as many is not one of families


def add_family_column(
    source: Source,
    family_column: str | None,
    phenotype_and_covariate_columns: Collection[str],
    template_cohort: Cohort | None = None,
) -> Source:
    """The source with the column `family` of its subjects, empty where it is unknown. Without a `family_column` that of
    `template_cohort` is taken, if the table has it; without either, the source stays as it is. Raises InputError for a
    column that is missing, or has another use (`phenotype_and_covariate_columns`, site, label); and, without a
    `template_cohort`, for one in which nobody has a relative, or one family holds most people."""
    if template_cohort and not family_column and template_cohort.metadata.family_column in source.text_table:
        family_column = template_cohort.metadata.family_column
    if not family_column:
        return source
    if family_column in (*phenotype_and_covariate_columns, source.site_column, source.label_column):
        raise InputError(
            f"--family {family_column} is also the site, the diagnosis, or of the phenotype or the covariates; "
            "expected a column that says no more than who is related."
        )
    family_texts = clean_column(select_column(source.text_table, family_column, source.table_path))
    family_name_by_row = family_texts.map(canonicalise_value, na_action="ignore")  # NaN where unknown
    largest_family_size = int(family_name_by_row.value_counts().max()) if family_name_by_row.notna().any() else 0
    if not template_cohort and not 2 <= largest_family_size < MAX_FAMILY_SHARE * len(family_name_by_row):
        raise InputError(
            f"--family {family_column} of {source.table_path} has no value for more than {largest_family_size} of "
            f"{format_participants(len(family_name_by_row))}; expected "
            "one for each family, of two participants or more, but not of most. Name another column, or leave it out."
        )
    return replace(
        source,
        subject_table=source.subject_table.assign(family=family_name_by_row.fillna("").to_numpy()),
        family_column=family_column,
    )


def group_subjects_by_family(subject_table: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """The members of each family, also of one member, by its name in the column `family`; none without the column."""
    if "family" not in subject_table:
        return {}
    rows_with_family = subject_table[subject_table["family"] != ""]
    return {
        str(family_name): tuple(member_ids)
        for family_name, member_ids in rows_with_family.groupby("family", sort=False)["subject"]
    }


def summarise_families(source: Source, template_cohort: Cohort | None = None) -> list[SummaryRow]:
    """How the column was read: how many families it has, the largest, how many people have no value, and who is a
    relative of people of `template_cohort`. Without a column, which ones look like it; or that the table lacks
    that of `template_cohort`."""
    family_column = source.family_column
    person_count = len(source.subject_table)
    if template_cohort and not family_column:
        template_family_column = template_cohort.metadata.family_column
        if not template_family_column or person_count < 2:
            return []
        message = f"not known, since {source.table_path} lacks {template_family_column}; --family names a column"
        return [("families", message)]
    if not family_column:
        candidate_columns = [
            column_name
            for column_name in source.text_table
            if FAMILY_COLUMN_NAME.fullmatch(column_name)
            and clean_column(source.text_table[column_name]).dropna().duplicated().any()
        ]
        advice = "looks like their column; if it is, name it with --family, or they are on both sides"
        return [("families", f"{column_name} {advice}") for column_name in candidate_columns]

    subjects_by_family = group_subjects_by_family(source.subject_table)
    unknown_family_count = person_count - sum(map(len, subjects_by_family.values()))
    largest_family_members = max(subjects_by_family.values(), key=len, default=("nobody",))
    family_sentences = [
        f"by {family_column}: {format_family_counts(subjects_by_family, person_count)}; the largest: "
        f"{join_group_names([largest_family_members])}. Each is in one split, and in one fold. {unknown_family_count} "
        f"of {format_participants(person_count)} have no value, and so no known relatives"
    ]
    relative_texts = describe_template_relatives(source, template_cohort) if template_cohort else []
    if template_cohort and relative_texts:
        family_sentences.append(
            f"relatives of participants of {template_cohort.path}, by {family_column}: {join_names(relative_texts)}. "
            "Scores on them are too good for a model that these trained; leave them out with --exclude"
        )
    return [("families", sentence) for sentence in family_sentences]


def describe_template_relatives(source: Source, template_cohort: Cohort) -> list[str]:
    """Who is of a family of `template_cohort`, and of whom, a training subject if the family has one."""
    split_by_template_subject = {subject_row.subject: subject_row.split for subject_row in template_cohort.rows}
    relative_texts = []
    for subject, family_name in zip(source.subject_table["subject"], source.subject_table["family"], strict=True):
        template_members = template_cohort.metadata.families.get(family_name)
        if family_name and template_members:
            template_relative = min(template_members, key=lambda member: split_by_template_subject[member] != "train")
            relative_texts.append(f"{subject} of {template_relative} ({split_by_template_subject[template_relative]})")
    return relative_texts
