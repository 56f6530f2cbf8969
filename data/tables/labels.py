"""A table of people -> their labels: 1.0 autism, 0.0 control, NaN unknown."""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import numpy as np
import pandas as pd

from data.base.errors import InputError
from data.base.listing import join_names
from data.base.terminal import SummaryRow
from data.tables.missing import clean_column
from data.tables.people import canonicalise_value, group_spellings, select_column

ABIDE_LABEL_COLUMN = "DX_GROUP"
ABIDE_AUTISM_VALUE = "1"
ABIDE_CONTROL_VALUE = "2"
ABIDE_ID_COLUMN = "SUB_ID"


@dataclass(frozen=True)
class LabelCoding:
    """Which values of a column are autism and which control."""

    label_column: str
    autism_values_text: str  # one value, or several as A,B
    control_values_text: str | None  # one value, or several as A,B; None for the only other value


def is_abide_table(text_table: pd.DataFrame) -> bool:
    """Whether a table is ABIDE's own."""
    return {ABIDE_LABEL_COLUMN, ABIDE_ID_COLUMN} <= set(text_table.columns)


def summarise_labels(
    label_coding: LabelCoding | None, diagnosis_values: pd.Series, label_values: pd.Series
) -> SummaryRow:
    """How the labels of those who are kept were read, and how many of them have none."""
    label_message = "no column is used; --labelColumn and --positive name one"
    if label_coding is not None:
        autism_values_with_counts_text = format_values_with_counts(diagnosis_values[label_values == 1])
        control_values_with_counts_text = format_values_with_counts(diagnosis_values[label_values == 0])
        label_message = (
            f"{label_coding.label_column}: {autism_values_with_counts_text} autism, {control_values_with_counts_text} "
            "control"
        )
    unknown_diagnosis_count = diagnosis_values.isna().sum()
    if unknown_diagnosis_count:
        label_message += f"; {unknown_diagnosis_count} of unknown diagnosis are kept"
    return "label", label_message


def format_values_with_counts(diagnosis_values: pd.Series) -> str:
    """Each value with its number of subjects, as `2 (30)`."""
    value_texts = [
        f"{diagnosis_value} ({subject_count})"
        for diagnosis_value, subject_count in diagnosis_values.value_counts().sort_index().items()
    ]
    return ", ".join(value_texts) or "nobody"


def parse_label_values(values_text: str, column_values: set[str]) -> set[str]:
    """The values that `1,2` or `1` names; a known value may itself hold a comma."""
    canonical_text = canonicalise_value(values_text)
    if canonical_text in column_values:
        return {canonical_text}
    return {canonicalise_value(value_text) for value_text in values_text.split(",")}


def read_labels(
    text_table: pd.DataFrame, label_coding: LabelCoding | None, table_path: Path, is_label_optional: bool
) -> tuple[pd.Series, pd.Series]:
    """The diagnosis of each row as a canonical value, NaN if unknown, and the label: 1.0 where it says autism, 0.0
    where it says control, NaN elsewhere. Raises InputError unless every named value occurs, and exactly one value is
    left for control if none is named. If `is_label_optional`, no label need be known, and no value need be left for
    control. Named values may then be absent, if both sides are named."""
    if label_coding is None:
        return pd.Series(np.nan, text_table.index, object), pd.Series(np.nan, text_table.index)
    diagnosis_values = clean_column(select_column(text_table, label_coding.label_column, table_path)).map(
        canonicalise_value, na_action="ignore"
    )
    distinct_values = set(diagnosis_values.dropna())
    if is_label_optional and not distinct_values:
        return diagnosis_values, diagnosis_values.astype(float)
    autism_values = parse_label_values(label_coding.autism_values_text, distinct_values)
    control_values = (
        distinct_values - autism_values
        if label_coding.control_values_text is None
        else parse_label_values(label_coding.control_values_text, distinct_values)
    )
    chosen_values = autism_values | control_values if label_coding.control_values_text else autism_values
    if incomplete_spelling_groups := [
        spelling_group
        for spelling_group in group_spellings(distinct_values)
        if chosen_values & {*spelling_group} and not chosen_values >= {*spelling_group}
    ]:
        option_flag = "--positive" if autism_values & {*incomplete_spelling_groups[0]} else "--negative"
        raise InputError(
            f"{table_path}: {diagnosis_values.name} holds "
            f"{join_names([' and '.join(spelling_group) for spelling_group in incomplete_spelling_groups])}, of which "
            "some are named as autism or control, and others, which differ only in spelling, are not. Write one for "
            f"all in the table, or name each, as in {option_flag} {','.join(incomplete_spelling_groups[0])}."
        )
    if (
        is_label_optional
        and label_coding.control_values_text is None
        and len(distinct_values) == 1
        and not autism_values & distinct_values
    ):
        sole_value = next(iter(distinct_values))
        raise InputError(
            f"{table_path}: {diagnosis_values.name} holds {sole_value} only, and --positive "
            f"{label_coding.autism_values_text} is nobody's. If {sole_value} is control, say so with --negative "
            f"{quote(sole_value)}; if it is autism, with --positive {quote(sole_value)}."
        )
    allowed_absent_values = (
        autism_values | control_values if is_label_optional and label_coding.control_values_text else set()
    )
    has_too_many_control_values = label_coding.control_values_text is None and len(control_values) > 1
    lacks_control_values = not control_values and not is_label_optional
    if (
        has_too_many_control_values
        or lacks_control_values
        or autism_values & control_values
        or not autism_values | control_values <= distinct_values | allowed_absent_values
    ):
        control_option_text = (
            f"--negative {label_coding.control_values_text}" if label_coding.control_values_text else "one other"
        )
        raise InputError(
            f"{table_path}: {diagnosis_values.name} holds {join_names(sorted(distinct_values), 6) or 'nothing'}; "
            f"expected two values: --positive {label_coding.autism_values_text} (autism) and {control_option_text} "
            "(control), none of them in both. Where there are more, name the controls with --negative; the others are "
            "left out."
        )
    return diagnosis_values, diagnosis_values.map(
        dict.fromkeys(autism_values, 1.0) | dict.fromkeys(control_values, 0.0)
    ).astype(float)
