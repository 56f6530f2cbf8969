"""The column of diagnoses -> labels: 1.0 autism, 0.0 control, NaN unknown."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from data.base.errors import InputError
from data.conversion.options import SourceOptions
from data.conversion.tables import canonical_value

ABIDE_LABEL, ABIDE_AUTISM, ABIDE_CONTROL = "DX_GROUP", "1", "2"
ABIDE_SUBJECT = "SUB_ID"


@dataclass(frozen=True)
class LabelCoding:
    """Which values of a column are autism and which control; `negative` is None for the only other value."""

    name: str
    positive: str
    negative: str | None


def is_abide(table: pd.DataFrame) -> bool:
    """Whether a table is ABIDE's own."""
    return {ABIDE_LABEL, ABIDE_SUBJECT} <= set(table.columns)


def coding_of(table: pd.DataFrame, options: SourceOptions, path: Path, optional: bool) -> LabelCoding | None:
    """The coding that the options give, or ABIDE's own; None if there is neither and labels are `optional`."""
    name, positive = options.label_column, options.positive
    if name is None and positive is None:
        if is_abide(table):  # new people may all be of one class, so that the other value does not occur
            return LabelCoding(ABIDE_LABEL, ABIDE_AUTISM, options.negative or (ABIDE_CONTROL if optional else None))
        if optional:
            return None
    if name is None or positive is None:
        raise InputError(
            f"Which column of {path} is the diagnosis, and which of its values is autism? "
            "Say so with --labelColumn NAME --positive VALUE."
        )
    return LabelCoding(name, positive, options.negative)


def label_notes(coding: LabelCoding | None, diagnosis: pd.Series, label: pd.Series) -> list[str]:
    """How the labels of those who are kept were read, and how many of them have none."""
    if coding:
        autism, control = (counted(diagnosis[label == value]) for value in (1, 0))
        notes = [f"Label: {coding.name}, {autism} autism, {control} control."]
    else:
        notes = ["Label: no column is used; --labelColumn and --positive name one."]
    unknown = diagnosis.isna().sum()
    return [*notes, f"{unknown} subjects of unknown diagnosis are kept."] if unknown else notes


def counted(values: pd.Series) -> str:
    """Each value with its count: `1 (20 subjects)`."""
    return ", ".join(f"{value} ({count} subjects)" for value, count in sorted(Counter(values).items())) or "nobody"


def named_values(text: str, known: set[str]) -> list[str]:
    """The values that `1,2` or `1` names; a known value may itself hold a comma."""
    parts = [text] if canonical_value(text) in known else text.split(",")
    return [canonical_value(part) for part in parts]


def labels(values: pd.Series, coding: LabelCoding, table: Path, optional: bool = False) -> pd.Series:
    """1.0 where a column of canonical values says autism, 0.0 where it says control, NaN elsewhere. Raises InputError
    unless every named value occurs, and exactly one value is left for control if none is named. If labels are
    `optional`, named values may be absent if both sides are named, no value need be left for control, and no label
    need be known."""
    known = set(values.dropna())
    if optional and not known:
        return values.astype(float)
    absent_allowed = optional and coding.negative is not None
    positive = named_values(coding.positive, known)
    rest = sorted(known - set(positive))
    negative = rest if coding.negative is None else named_values(coding.negative, known)
    shown = ", ".join(sorted(known)[:6]) or "nothing"
    too_many = coding.negative is None and len(rest) not in ((0, 1) if optional else (1,))
    if not (absent_allowed or set(positive) <= known) or too_many:
        raise InputError(
            f"{table}: {values.name} holds {shown}; expected two values, {coding.positive} (--positive, autism) and "
            "another (control). Where there are more, name the controls with --negative; the others are left out."
        )
    if set(positive) & set(negative) or not (absent_allowed or set(negative) <= known):
        raise InputError(
            f"{table}: {values.name} holds {shown}; expected --negative {coding.negative} (control) to name some of "
            f"them, and none of --positive {coding.positive} (autism)."
        )
    return values.map(dict.fromkeys(positive, 1.0) | dict.fromkeys(negative, 0.0)).astype(float)
