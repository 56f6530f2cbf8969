"""A table of people -> which rows are converted, by `--exclude` and `--where`, and their labels: 1.0 autism,
0.0 control, NaN unknown. An expression is parsed, never run."""

import ast
import operator
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from shlex import quote

import numpy as np
import pandas as pd

from data.base.errors import InputError
from data.base.terminal import SummaryRow
from data.cohorts.phenotype import clean_column, is_mostly_numbers, parse_number_column
from data.cohorts.rows import join_names
from data.conversion.options import SourceOptions
from data.conversion.tables import canonical_value, check_columns, column, key, respelled

EQUAL: dict[type[ast.cmpop], Callable] = {ast.Eq: operator.eq, ast.NotEq: operator.ne}
COMPARE = EQUAL | {ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge}
BACKTICKS = re.compile(r"`([^`]+)`")  # around a column's name
NAMED = "column_"  # begins what stands in its place, with the name in hexadecimal digits
EXAMPLE = "\"AGE_AT_SCAN < 18 and SITE_ID in ('NYU', 'USM')\""
ABIDE_LABEL, ABIDE_AUTISM, ABIDE_CONTROL = "DX_GROUP", "1", "2"
ABIDE_SUBJECT = "SUB_ID"


def excluded(option: str) -> dict[str, str]:
    """The IDs of `A,B`, or of a file with one a line, by the form that is compared (see `key`). Raises InputError for a
    file that cannot be read or holds more than IDs."""
    path = Path(option)
    try:
        if path.is_file():
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        elif len(path.parts) > 1 or path.suffix.lower() in (".txt", ".csv", ".tsv"):
            raise ValueError("there is no such file")
        else:
            lines = option.split(",")
        if odd := [line[:60] for line in lines if re.search(r"[,;\t]", line)]:
            raise ValueError(f"it has the line {odd[0]!r}")
    except (ValueError, OSError) as error:
        raise InputError(
            f"--exclude {option[:60]} cannot be read ({error}); expected a file with one ID a line and nothing else, "
            "or IDs as in A,B."
        ) from error
    return {key(text): text.strip() for text in lines if text.strip()}


@dataclass(frozen=True)
class Condition:
    """An expression about the columns of a table of text, as on the command line."""

    text: str
    table: pd.DataFrame
    path: Path  # of the table
    facts: list[SummaryRow] = field(default_factory=list)  # on values that no row has

    def truth(self) -> pd.Series:
        """Whether each row meets it (boolean), NA if a missing value decides. Raises InputError for what does not
        compare columns with values."""
        text = BACKTICKS.sub(lambda name: NAMED + name[1].encode().hex(), self.text.strip())
        try:
            with warnings.catch_warnings(action="ignore"):
                return self.of_node(ast.parse(text, mode="eval").body)
        except (SyntaxError, ValueError) as error:
            raise self.wrong(getattr(error, "msg", None) or str(error)) from error

    def wrong(self, reason: str) -> InputError:
        return InputError(
            f"--where {self.text[:100]!r}: {reason}. Expected columns of {self.path} compared with values, text in "
            f"quotes, joined by and, or, not, such as {EXAMPLE}; other names of columns in backticks."
        )

    def of_node(self, node: ast.expr) -> pd.Series:
        match node:
            case ast.BoolOp():
                join = operator.and_ if isinstance(node.op, ast.And) else operator.or_
                return reduce(join, map(self.of_node, node.values))
            case ast.UnaryOp(op=ast.Not()):
                return ~self.of_node(node.operand)
            case ast.Compare():
                sides = [node.left, *node.comparators]
                return reduce(operator.and_, map(self.of_pair, sides, node.ops, sides[1:]))
        raise self.wrong(f"{ast.unparse(node)[:60]} is no comparison")

    def of_pair(self, left: ast.expr, how: ast.cmpop, right: ast.expr) -> pd.Series:
        if isinstance(how, ast.In | ast.NotIn) and (values := getattr(right, "elts", None)):
            found = reduce(operator.or_, (self.of_pair(left, ast.Eq(), value) for value in values))
            return found if isinstance(how, ast.In) else ~found
        sides = [self.side(left), self.side(right)]
        columns = [side for side in sides if isinstance(side, pd.Series)]
        values = [side for side in sides if not isinstance(side, pd.Series)]
        if type(how) not in COMPARE or not columns:
            raise self.wrong("expected a column in each comparison, and <, <=, >, >=, ==, != or in and brackets")
        of_numbers = [is_mostly_numbers(column) for column in columns]
        as_text = any(isinstance(value, str) for value in values) or not all(of_numbers)
        mixed = any(isinstance(value, float) for value in values) or (any(of_numbers) and type(how) not in EQUAL)
        if as_text and mixed:
            holds = "numbers" if of_numbers[0] else "text"
            raise self.wrong(f"{columns[0].name} holds {holds}, which are compared with {holds}")
        one, other = (comparable(side, as_text) for side in sides)
        found = COMPARE[type(how)](one, other)
        if values and type(how) in EQUAL and not (found if isinstance(how, ast.Eq) else ~found).any():
            there = join_names(sorted(clean_column(columns[0]).dropna().unique())) or "always missing"
            self.facts.append(("left out", f"--where: nobody's {columns[0].name} is {values[0]}; it is {there}"))
        return found

    def side(self, node: ast.expr) -> pd.Series | str | float:
        """One side of a comparison: a column as text, or a value."""
        if isinstance(node, ast.Name):
            name = node.id
            if name not in self.table and name.startswith(NAMED):
                name = bytes.fromhex(name.removeprefix(NAMED)).decode()
            return column(self.table, name, self.path)
        with suppress(ValueError):  # of what is no constant
            value = ast.literal_eval(node)
            if isinstance(value, str | int | float) and not isinstance(value, bool):
                return value if isinstance(value, str) else float(value)
        raise self.wrong(f"{ast.unparse(node)[:60]} is neither a column nor a value")


def comparable(side: pd.Series | str | float, as_text: bool) -> pd.Series | str | float:
    """A side of a comparison, of a column as text or as numbers, NA where it is missing."""
    if isinstance(side, pd.Series):
        if as_text:
            return clean_column(side).map(canonical_value, na_action="ignore").astype("string")
        return parse_number_column(side.to_frame(), side.name).astype("Float64")
    return canonical_value(side) if isinstance(side, str) else side


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
    check_columns(table, {"--labelColumn": [name], "--siteColumn": [options.site_column]}, path)
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


def of_labels(coding: LabelCoding | None, diagnosis: pd.Series, label: pd.Series) -> SummaryRow:
    """How the labels of those who are kept were read, and how many of them have none."""
    if coding is None:
        told = "no column is used; --labelColumn and --positive name one"
    else:
        autism, control = (
            ", ".join(f"{value} ({count})" for value, count in of.value_counts().sort_index().items())
            for of in (diagnosis[label == 1], diagnosis[label == 0])
        )
        told = f"{coding.name}: {autism or 'nobody'} autism, {control or 'nobody'} control"
    unknown = diagnosis.isna().sum()
    return "label", told + (f"; {unknown} of unknown diagnosis are kept" if unknown else "")


def named_values(text: str, known: set[str]) -> set[str]:
    """The values that `1,2` or `1` names; a known value may itself hold a comma."""
    return {canonical_value(part) for part in ([text] if canonical_value(text) in known else text.split(","))}


def labels(table: pd.DataFrame, coding: LabelCoding | None, path: Path, optional: bool) -> tuple[pd.Series, pd.Series]:
    """The diagnosis of each row as a canonical value, NaN if unknown, and the label: 1.0 where it says autism, 0.0
    where it says control, NaN elsewhere. Raises InputError unless every named value occurs, and exactly one value is
    left for control if none is named. If labels are `optional`, no label need be known, and no value need be left for
    control. Named values may then be absent, if both sides are named."""
    if coding is None:
        return pd.Series(np.nan, table.index, object), pd.Series(np.nan, table.index)
    values = clean_column(column(table, coding.name, path)).map(canonical_value, na_action="ignore")
    known = set(values.dropna())
    if optional and not known:
        return values, values.astype(float)
    positive = named_values(coding.positive, known)
    negative = known - positive if coding.negative is None else named_values(coding.negative, known)
    chosen = positive | negative if coding.negative else positive
    if lost := [group for group in respelled(known) if chosen & {*group} and not chosen >= {*group}]:
        side = "--positive" if positive & {*lost[0]} else "--negative"
        raise InputError(
            f"{path}: {values.name} holds {join_names([' and '.join(group) for group in lost])}, of which some are "
            "named as autism or control, and others, which differ only in spelling, are not. Write one for all in the "
            f"table, or name each, as in {side} {','.join(lost[0])}."
        )
    if optional and coding.negative is None and len(known) == 1 and not positive & known:
        value = next(iter(known))
        raise InputError(
            f"{path}: {values.name} holds {value} only, and --positive {coding.positive} is nobody's. If {value} is "
            f"control, say so with --negative {quote(value)}; if it is autism, with --positive {quote(value)}."
        )
    absent = positive | negative if optional and coding.negative else set()
    too_many = coding.negative is None and len(negative) > 1
    too_few = not negative and not optional
    if too_many or too_few or positive & negative or not positive | negative <= known | absent:
        control = f"--negative {coding.negative}" if coding.negative else "one other"
        raise InputError(
            f"{path}: {values.name} holds {join_names(sorted(known), 6) or 'nothing'}; expected two values: --positive "
            f"{coding.positive} (autism) and {control} (control), none of them in both. Where there are more, name the "
            "controls with --negative; the others are left out."
        )
    return values, values.map(dict.fromkeys(positive, 1.0) | dict.fromkeys(negative, 0.0)).astype(float)
