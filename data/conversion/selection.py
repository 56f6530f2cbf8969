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
from data.conversion.tables import canonicalise_value, check_columns_exist, group_spellings, normalise_id, select_column

EQUALITY_OPERATORS: dict[type[ast.cmpop], Callable] = {ast.Eq: operator.eq, ast.NotEq: operator.ne}
COMPARISON_OPERATORS = EQUALITY_OPERATORS | {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
BACKTICKED_NAME = re.compile(r"`([^`]+)`")  # around a column's name
PLACEHOLDER_PREFIX = "column_"  # begins its placeholder, which goes on with the name in hexadecimal digits
CONDITION_EXAMPLE = "\"AGE_AT_SCAN < 18 and SITE_ID in ('NYU', 'USM')\""
ABIDE_LABEL_COLUMN, ABIDE_AUTISM_VALUE, ABIDE_CONTROL_VALUE = "DX_GROUP", "1", "2"
ABIDE_ID_COLUMN = "SUB_ID"


def parse_excluded_ids(exclude_option: str) -> dict[str, str]:
    """The IDs of `A,B`, or of a file with one a line, by the form that is compared (see `normalise_id`). Raises
    InputError for a file that cannot be read or holds more than IDs."""
    id_list_path = Path(exclude_option)
    try:
        if id_list_path.is_file():
            id_lines = id_list_path.read_text(encoding="utf-8-sig").splitlines()
        elif len(id_list_path.parts) > 1 or id_list_path.suffix.lower() in (".txt", ".csv", ".tsv"):
            raise ValueError("there is no such file")
        else:
            id_lines = exclude_option.split(",")
        if bad_lines := [id_line[:60] for id_line in id_lines if re.search(r"[,;\t]", id_line)]:
            raise ValueError(f"it has the line {bad_lines[0]!r}")
    except (ValueError, OSError) as error:
        raise InputError(
            f"--exclude {exclude_option[:60]} cannot be read ({error}); expected a file with one ID a line and nothing "
            "else, or IDs as in A,B."
        ) from error
    return {normalise_id(id_text): id_text.strip() for id_text in id_lines if id_text.strip()}


@dataclass(frozen=True)
class RowCondition:
    """An expression about the columns of a table of text, as on the command line."""

    condition_text: str
    text_table: pd.DataFrame
    table_path: Path  # of `text_table`
    summary_rows: list[SummaryRow] = field(default_factory=list)  # on values that no row has

    def evaluate_rows(self) -> pd.Series:
        """Whether each row meets it (boolean), NA if a missing value decides. Raises InputError for what does not
        compare columns with values."""
        escaped_condition_text = BACKTICKED_NAME.sub(
            lambda backtick_match: PLACEHOLDER_PREFIX + backtick_match[1].encode().hex(), self.condition_text.strip()
        )
        try:
            with warnings.catch_warnings(action="ignore"):
                return self.evaluate_node(ast.parse(escaped_condition_text, mode="eval").body)
        except (SyntaxError, ValueError) as error:
            raise self.make_condition_error(getattr(error, "msg", None) or str(error)) from error

    def make_condition_error(self, reason: str) -> InputError:
        return InputError(
            f"--where {self.condition_text[:100]!r}: {reason}. Expected columns of {self.table_path} compared with "
            f"values, text in quotes, joined by and, or, not, such as {CONDITION_EXAMPLE}; other names of columns in "
            "backticks."
        )

    def evaluate_node(self, condition_node: ast.expr) -> pd.Series:
        match condition_node:
            case ast.BoolOp():
                combine_masks = operator.and_ if isinstance(condition_node.op, ast.And) else operator.or_
                return reduce(combine_masks, map(self.evaluate_node, condition_node.values))
            case ast.UnaryOp(op=ast.Not()):
                return ~self.evaluate_node(condition_node.operand)
            case ast.Compare():
                operand_nodes = [condition_node.left, *condition_node.comparators]
                return reduce(
                    operator.and_, map(self.compare_nodes, operand_nodes, condition_node.ops, operand_nodes[1:])
                )
        raise self.make_condition_error(f"{ast.unparse(condition_node)[:60]} is no comparison")

    def compare_nodes(self, left_node: ast.expr, comparison_operator: ast.cmpop, right_node: ast.expr) -> pd.Series:
        if isinstance(comparison_operator, ast.In | ast.NotIn) and (
            operand_values := getattr(right_node, "elts", None)
        ):
            is_comparison_true = reduce(
                operator.or_,
                (self.compare_nodes(left_node, ast.Eq(), operand_value) for operand_value in operand_values),
            )
            return is_comparison_true if isinstance(comparison_operator, ast.In) else ~is_comparison_true
        operands = [self.evaluate_operand(left_node), self.evaluate_operand(right_node)]
        operand_columns = [operand for operand in operands if isinstance(operand, pd.Series)]
        operand_values = [operand for operand in operands if not isinstance(operand, pd.Series)]
        if type(comparison_operator) not in COMPARISON_OPERATORS or not operand_columns:
            raise self.make_condition_error(
                "expected a column in each comparison, and <, <=, >, >=, ==, != or in and brackets"
            )
        is_numeric_per_column = [is_mostly_numbers(operand_column) for operand_column in operand_columns]
        is_text_comparison = any(isinstance(operand_value, str) for operand_value in operand_values) or not all(
            is_numeric_per_column
        )
        has_number_comparison = any(isinstance(operand_value, float) for operand_value in operand_values) or (
            any(is_numeric_per_column) and type(comparison_operator) not in EQUALITY_OPERATORS
        )
        if is_text_comparison and has_number_comparison:
            column_type_text = "numbers" if is_numeric_per_column[0] else "text"
            raise self.make_condition_error(
                f"{operand_columns[0].name} holds {column_type_text}, which are compared with {column_type_text}"
            )
        left_operand, right_operand = (make_operand_comparable(operand, is_text_comparison) for operand in operands)
        is_comparison_true = COMPARISON_OPERATORS[type(comparison_operator)](left_operand, right_operand)
        if (
            operand_values
            and type(comparison_operator) in EQUALITY_OPERATORS
            and not (is_comparison_true if isinstance(comparison_operator, ast.Eq) else ~is_comparison_true).any()
        ):
            column_values_text = (
                join_names(sorted(clean_column(operand_columns[0]).dropna().unique())) or "always missing"
            )
            self.summary_rows.append(
                (
                    "left out",
                    f"--where: nobody's {operand_columns[0].name} is {operand_values[0]}; it is {column_values_text}",
                )
            )
        return is_comparison_true

    def evaluate_operand(self, operand_node: ast.expr) -> pd.Series | str | float:
        """One side of a comparison: a column as text, or a value."""
        if isinstance(operand_node, ast.Name):
            column_name = operand_node.id
            if column_name not in self.text_table and column_name.startswith(PLACEHOLDER_PREFIX):
                column_name = bytes.fromhex(column_name.removeprefix(PLACEHOLDER_PREFIX)).decode()
            return select_column(self.text_table, column_name, self.table_path)
        with suppress(ValueError):  # of what is no constant
            literal_value = ast.literal_eval(operand_node)
            if isinstance(literal_value, str | int | float) and not isinstance(literal_value, bool):
                return literal_value if isinstance(literal_value, str) else float(literal_value)
        raise self.make_condition_error(f"{ast.unparse(operand_node)[:60]} is neither a column nor a value")


def make_operand_comparable(operand: pd.Series | str | float, is_text_comparison: bool) -> pd.Series | str | float:
    """A side of a comparison; a column becomes text or numbers, NA where it is missing."""
    if isinstance(operand, pd.Series):
        if is_text_comparison:
            return clean_column(operand).map(canonicalise_value, na_action="ignore").astype("string")
        return parse_number_column(operand.to_frame(), operand.name).astype("Float64")
    return canonicalise_value(operand) if isinstance(operand, str) else operand


@dataclass(frozen=True)
class LabelCoding:
    """Which values of a column are autism and which control."""

    label_column: str
    autism_values_text: str  # one value, or several as A,B
    control_values_text: str | None  # one value, or several as A,B; None for the only other value


def is_abide_table(text_table: pd.DataFrame) -> bool:
    """Whether a table is ABIDE's own."""
    return {ABIDE_LABEL_COLUMN, ABIDE_ID_COLUMN} <= set(text_table.columns)


def find_label_coding(
    text_table: pd.DataFrame, options: SourceOptions, table_path: Path, is_label_optional: bool
) -> LabelCoding | None:
    """The coding that the options give, or ABIDE's own; None if there is neither and `is_label_optional`."""
    label_column, autism_values_text = options.label_column, options.positive
    check_columns_exist(
        text_table, {"--labelColumn": [label_column], "--siteColumn": [options.site_column]}, table_path
    )
    if label_column is None and autism_values_text is None:
        if is_abide_table(text_table):  # new people may all be of one class, so that the other value does not occur
            return LabelCoding(
                ABIDE_LABEL_COLUMN,
                ABIDE_AUTISM_VALUE,
                options.negative or (ABIDE_CONTROL_VALUE if is_label_optional else None),
            )
        if is_label_optional:
            return None
    if label_column is None or autism_values_text is None:
        raise InputError(
            f"Which column of {table_path} is the diagnosis, and which of its values is autism? "
            "Say so with --labelColumn NAME --positive VALUE."
        )
    return LabelCoding(label_column, autism_values_text, options.negative)


def summarise_labels(
    label_coding: LabelCoding | None, diagnosis_values: pd.Series, label_values: pd.Series
) -> SummaryRow:
    """How the labels of those who are kept were read, and how many of them have none."""
    if label_coding is None:
        label_message = "no column is used; --labelColumn and --positive name one"
    else:
        autism_counts_text, control_counts_text = (
            ", ".join(
                f"{diagnosis_value} ({subject_count})"
                for diagnosis_value, subject_count in group_diagnoses.value_counts().sort_index().items()
            )
            for group_diagnoses in (diagnosis_values[label_values == 1], diagnosis_values[label_values == 0])
        )
        label_message = (
            f"{label_coding.label_column}: {autism_counts_text or 'nobody'} autism, {control_counts_text or 'nobody'} "
            "control"
        )
    unknown_diagnosis_count = diagnosis_values.isna().sum()
    return "label", label_message + (
        f"; {unknown_diagnosis_count} of unknown diagnosis are kept" if unknown_diagnosis_count else ""
    )


def parse_label_values(values_text: str, column_values: set[str]) -> set[str]:
    """The values that `1,2` or `1` names; a known value may itself hold a comma."""
    return {
        canonicalise_value(value_text)
        for value_text in (
            [values_text] if canonicalise_value(values_text) in column_values else values_text.split(",")
        )
    }


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
