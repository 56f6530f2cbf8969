"""A table of people -> which rows are converted, by `--exclude` and `--where`. An expression is parsed, never run."""

import ast
import operator
import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

import pandas as pd

from data.base.errors import InputError
from data.base.listing import join_names
from data.base.terminal import SummaryRow
from data.tables.missing import clean_column
from data.tables.people import canonicalise_value, normalise_id, select_column
from data.tables.phenotype import is_mostly_numbers, parse_number_column

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
                row_masks = [self.evaluate_node(value_node) for value_node in condition_node.values]
                return reduce(combine_masks, row_masks)
            case ast.UnaryOp(op=ast.Not()):
                return ~self.evaluate_node(condition_node.operand)
            case ast.Compare():
                left_nodes = [condition_node.left, *condition_node.comparators[:-1]]
                row_masks = [
                    self.compare_nodes(left_node, comparison_operator, right_node)
                    for left_node, comparison_operator, right_node in zip(
                        left_nodes, condition_node.ops, condition_node.comparators, strict=True
                    )
                ]
                return reduce(operator.and_, row_masks)  # as 5 < age < 18
        raise self.make_condition_error(f"{ast.unparse(condition_node)[:60]} is no comparison")

    def compare_nodes(self, left_node: ast.expr, comparison_operator: ast.cmpop, right_node: ast.expr) -> pd.Series:
        """One comparison, such as `age < 18`, of a column with a value or another column."""
        listed_value_nodes = getattr(right_node, "elts", None)  # of brackets
        if isinstance(comparison_operator, ast.In | ast.NotIn) and listed_value_nodes:
            equality_masks = [self.compare_nodes(left_node, ast.Eq(), value_node) for value_node in listed_value_nodes]
            is_any_equal = reduce(operator.or_, equality_masks)
            return is_any_equal if isinstance(comparison_operator, ast.In) else ~is_any_equal

        operands = [self.evaluate_operand(left_node), self.evaluate_operand(right_node)]
        operand_columns = [operand for operand in operands if isinstance(operand, pd.Series)]
        operand_values = [operand for operand in operands if not isinstance(operand, pd.Series)]
        if type(comparison_operator) not in COMPARISON_OPERATORS or not operand_columns:
            raise self.make_condition_error(
                "expected a column in each comparison, and <, <=, >, >=, ==, != or in and brackets"
            )

        is_equality = type(comparison_operator) in EQUALITY_OPERATORS
        is_text_comparison = self.decide_text_comparison(operand_columns, operand_values, is_equality)
        left_operand = make_operand_comparable(operands[0], is_text_comparison)
        right_operand = make_operand_comparable(operands[1], is_text_comparison)
        is_comparison_true = COMPARISON_OPERATORS[type(comparison_operator)](left_operand, right_operand)
        if operand_values and is_equality:
            is_equal = is_comparison_true if isinstance(comparison_operator, ast.Eq) else ~is_comparison_true
            if not is_equal.any():
                self.add_absent_value_row(operand_columns[0], operand_values[0])
        return is_comparison_true

    def decide_text_comparison(
        self, operand_columns: Sequence[pd.Series], operand_values: Sequence[str | float], is_equality: bool
    ) -> bool:
        """Whether the sides of a comparison are text, and not numbers. Raises InputError if one is text and the other a
        number, or text is compared by order with a column of numbers."""
        is_numeric_per_column = [is_mostly_numbers(operand_column) for operand_column in operand_columns]
        has_text_value = any(isinstance(operand_value, str) for operand_value in operand_values)
        has_number_value = any(isinstance(operand_value, float) for operand_value in operand_values)
        is_text_comparison = has_text_value or not all(is_numeric_per_column)
        is_number_comparison = has_number_value or (any(is_numeric_per_column) and not is_equality)
        if is_text_comparison and is_number_comparison:
            column_type_text = "numbers" if is_numeric_per_column[0] else "text"
            raise self.make_condition_error(
                f"{operand_columns[0].name} holds {column_type_text}, which are compared with {column_type_text}"
            )
        return is_text_comparison

    def add_absent_value_row(self, text_column: pd.Series, absent_value: str | float) -> None:
        """Adds to the summary that nobody has a value, and which values the column has."""
        column_values = sorted(clean_column(text_column).dropna().unique())
        column_values_text = join_names(column_values) or "always missing"
        self.summary_rows.append(
            ("left out", f"--where: nobody's {text_column.name} is {absent_value}; it is {column_values_text}")
        )

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
