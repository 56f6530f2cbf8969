"""A table of subjects on disk -> its columns as text, and the column that holds the IDs of the maps."""

import csv
import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from shlex import quote

import pandas as pd

from data.base.errors import (
    PLAIN_TEXT_EXPECTED,
    InputError,
    compose_accents,
    find_name_clashes,
    is_plain_text,
    quote_text,
)
from data.base.files import check_regular_file
from data.base.listing import join_names
from data.tables.phenotype import is_mostly_numbers, match_fully

PARTICIPANT_TABLE_GLOBS = ("participants.tsv", "Phenotypic_*.csv")  # usual names: of BIDS, of ABIDE
MAX_LISTED_COLUMNS = 12  # in a message
EXAMPLE_ID_COUNT = 2  # of IDs
DELIMITERS = (",", ";", "\t")
DECLARED_DELIMITER = re.compile(r"sep=(.)\r?\n")  # a first line of Excel, which names the delimiter
DECIMAL_COMMA_NUMBER = re.compile(r"[-+]?\d+,\d+")
SUBJECT_ID_PATTERN = r"\w[\w.-]{0,99}"  # which is also the name of a file
ROW_NUMBER_COLUMN_NAME = re.compile(
    r"unnamed.*|column \d+|level_\d+|\.{3}\d+|index|idx|[inxv]1?|n[or]\.?|#"
    r"|rows?[ _.]?(names?|numbers?|n[or]|id|index)?"
)
ID_COLUMN_NAME = re.compile(
    r"(sub|subj|subject|participant|patient|file|person|proband|study|scan)?(id|code)s?|(subject|participant|patient)s?"
)
NUMBERED_ID = re.compile(r"(\D*)(\d{1,18})(\D*)", re.ASCII)
ID_CODE = re.compile(  # letters and digits, but no age, no score of two digits, no date
    r"(?=.*\d)(?!\d{1,2}$)(?!\d+([-_]\d+){2}$)[A-Za-z0-9]+([-_][A-Za-z0-9]+)*", re.ASCII
)
WORD_SEPARATOR = re.compile(r"(?<=[^\W\d_])[\s_-]+(?=\w)|(?<=\w)[\s_-]+(?=[^\W\d_])")  # not the sign of a number
TRIED_ID_SHIFTS = {-2, -1, 1, 2}  # between two numberings of the same people, beside those that align their ends
NumberedId = tuple[str, int, str]  # the text before a number, the number, the text after it
MIN_OVERLAP_SHARE = 0.25  # of the people of two numberings; ones that share fewer are of two studies
MIN_RIVAL_SHARE = 0.8  # of the matches of the best column; a column with as many is as good a guess


def read_text_table(table_path: Path) -> pd.DataFrame:
    """A CSV or TSV as text, with decimal commas as points if semicolons separate the columns; a byte-order mark and
    Windows line ends are allowed, and a line end within a cell becomes a space. Raises InputError for two columns of
    one name, a row longer than the header, or a cell that is not plain text."""
    check_regular_file(table_path)
    try:
        file_text = table_path.read_text(encoding="utf-8-sig")
        delimiter = find_delimiter(file_text, table_path)
        text_stream = io.StringIO(DECLARED_DELIMITER.sub("", file_text, count=1), newline="")
        raw_rows = pd.read_csv(text_stream, sep=delimiter, header=None, dtype=object, na_filter=False)
    except (ValueError, OSError, csv.Error) as error:
        read_error_reason = " ".join(str(error).split())
        raise InputError(
            f"{table_path} is not a readable table: {read_error_reason}. Expected comma-, semicolon- or tab-separated "
            "text in UTF-8."
        ) from error
    raw_rows = raw_rows.fillna("").map(lambda cell: compose_accents(" ".join(cell.split())))

    column_names = pd.Series(
        [column_name or f"column {column_number}" for column_number, column_name in enumerate(raw_rows.iloc[0], 1)]
    )
    repeated_names = column_names[column_names.duplicated()]
    if repeated_names.size:
        raise InputError(f"{table_path} has the column {repeated_names.iloc[0]} twice; expected each once. Rename one.")

    table_body = raw_rows[1:].set_axis(column_names.to_list(), axis=1)
    text_table = table_body[(table_body != "").any(axis=1)]  # without empty rows
    for cell in [*column_names, *text_table.to_numpy().ravel()]:
        if not is_plain_text(cell):
            raise InputError(f"{table_path} holds {quote_text(cell)}; {PLAIN_TEXT_EXPECTED}. Correct it.")
    if delimiter == ";":
        text_table = text_table.apply(replace_decimal_commas)
    return text_table.reset_index(drop=True)


def find_delimiter(file_text: str, table_path: Path) -> str:
    """What separates the columns: what the file declares, or else what parts the header into most columns; in a TSV
    tabs, if there are any."""
    if declared_match := DECLARED_DELIMITER.match(file_text):
        return declared_match[1]
    column_count_by_delimiter = {}
    for delimiter in DELIMITERS:
        csv_reader = csv.reader(io.StringIO(file_text, newline=""), delimiter=delimiter)
        first_filled_row: list[str] = next(filter(None, csv_reader), [])
        column_count_by_delimiter[delimiter] = len(first_filled_row)
    if table_path.suffix.lower() == ".tsv" and column_count_by_delimiter["\t"] > 1:
        return "\t"
    return max(DELIMITERS, key=column_count_by_delimiter.__getitem__)


def replace_decimal_commas(text_column: pd.Series) -> pd.Series:
    """Decimal commas as points, in a column of numbers that has no points."""
    if not is_mostly_numbers(text_column) or text_column.str.contains(r"\d\.\d").any():
        return text_column
    return text_column.where(~match_fully(text_column, DECIMAL_COMMA_NUMBER), text_column.str.replace(",", "."))


def normalise_id(raw_id: str) -> str:
    """An ID in the form that is compared: without BIDS's `sub-`, without leading zeros, `51456` for `51456.0`, accents
    composed."""
    bare_id = re.sub(r"^sub[-_]?(?=.)", "", compose_accents(raw_id.strip()), flags=re.IGNORECASE)
    bare_id = re.sub(r"^(\d+)\.0*$", r"\1", bare_id)
    return bare_id.lstrip("0") or "0" if bare_id.isdecimal() else bare_id


def canonicalise_value(value_text: str) -> str:
    """One text for each number: `1` for `1.0`."""
    value_text = value_text.strip()
    number = pd.to_numeric(value_text, errors="coerce")
    return str(int(number)) if number == number and abs(number) < 1e15 and number == int(number) else value_text


def group_spellings(column_values: Iterable[str]) -> list[list[str]]:
    """The values that differ only in capitals, or in the blanks, hyphens and underscores beside a letter."""
    values_by_folded_spelling: dict[str, list[str]] = {}
    for column_value in sorted({*column_values}):
        values_by_folded_spelling.setdefault(WORD_SEPARATOR.sub("", column_value).casefold(), []).append(column_value)
    return [spelling_group for spelling_group in values_by_folded_spelling.values() if len(spelling_group) > 1]


def select_column(text_table: pd.DataFrame, column_name: str, table_path: Path) -> pd.Series:
    """A column. Raises InputError, which lists the existing columns, if it is missing."""
    check_columns_exist(text_table, {"": [column_name]}, table_path)
    return text_table[column_name]


def check_columns_exist(
    text_table: pd.DataFrame, columns_by_option: Mapping[str, Iterable[str | None]], table_path: Path
) -> None:
    """Raises InputError, which names all missing columns by the options that name them, and columns like them."""
    option_text_by_column = {}
    for option_text, column_names in columns_by_option.items():
        for column_name in column_names:
            if column_name and column_name not in text_table:
                option_text_by_column[column_name] = f" ({option_text})" if option_text else ""
    if option_text_by_column:
        similar_columns = []
        for existing_column in text_table:
            if any(absent_column.casefold() in existing_column.casefold() for absent_column in option_text_by_column):
                similar_columns.append(existing_column)
        suggestion = f" Did you mean {join_names(similar_columns)}?" if similar_columns else ""
        absent_columns_text = ", ".join(
            column_name + option_text for column_name, option_text in option_text_by_column.items()
        )
        raise InputError(
            f"{table_path} has no column {absent_columns_text}; it has "
            f"{join_names(text_table.columns.tolist(), MAX_LISTED_COLUMNS)}.{suggestion}"
        )


def find_matching_id_column(text_table: pd.DataFrame, map_ids: set[str], table_path: Path) -> str:
    """The column of IDs: one whose name is usual for IDs and that holds some of the maps' IDs, or else the one that
    holds all of them and does not number the rows, since each subject could get another one's row. Raises InputError
    if there is none, or if several would give the maps different rows."""
    ids_by_column = {column_name: text_table[column_name].map(normalise_id) for column_name in text_table.columns}
    matched_ids_by_column = {
        column_name: column_ids[column_ids.isin(map_ids)]
        for column_name, column_ids in ids_by_column.items()
        if column_ids.isin(map_ids).any()
    }
    if not matched_ids_by_column:
        raise make_unmatched_ids_error(text_table, "", map_ids, table_path)

    usual_columns = [column_name for column_name in matched_ids_by_column if is_id_column_name(column_name)]
    complete_columns = [
        column_name
        for column_name, matched_ids in matched_ids_by_column.items()
        if map_ids.issubset(matched_ids) and matched_ids.is_unique and not is_row_number_column(text_table[column_name])
    ]
    unrepeated_usual_columns = [
        column_name for column_name in usual_columns if matched_ids_by_column[column_name].is_unique
    ]
    candidate_columns = unrepeated_usual_columns or usual_columns or complete_columns
    if not candidate_columns:
        raise make_unusual_id_column_error(text_table, matched_ids_by_column, map_ids, table_path)
    id_column = max(candidate_columns, key=lambda column_name: matched_ids_by_column[column_name].nunique())

    row_by_id_by_column = {
        column_name: dict(zip(matched_ids, matched_ids.index, strict=True))  # the last row, if an ID is repeated
        for column_name, matched_ids in matched_ids_by_column.items()
    }
    row_by_id = row_by_id_by_column[id_column]
    rival_columns = candidate_columns if id_column in complete_columns else [*candidate_columns, *complete_columns]
    for rival_column in rival_columns:
        if not row_by_id_by_column[rival_column].items() <= row_by_id.items():
            raise make_rival_error(id_column, rival_column, table_path)
    check_code_columns(text_table, id_column, row_by_id, table_path)
    check_shifted_ids(text_table[id_column], map_ids, table_path)
    return id_column


def make_unusual_id_column_error(
    text_table: pd.DataFrame, matched_ids_by_column: Mapping[str, pd.Series], map_ids: set[str], table_path: Path
) -> InputError:
    """The error that no column is called as columns of IDs are, and none holds all IDs of the maps; it names the one
    that holds most."""
    fullest_column = max(matched_ids_by_column, key=lambda column_name: matched_ids_by_column[column_name].nunique())
    matched_id_count = matched_ids_by_column[fullest_column].nunique()
    doubt_text = ", but seems to number the rows" if is_row_number_column(text_table[fullest_column]) else ""
    return InputError(
        f"No column of {table_path} whose name says that it holds IDs has those of the maps, such as {min(map_ids)}; "
        f"expected one that names the participants. Say which with --idColumn, such as --idColumn "
        f"{quote(fullest_column)}, which holds {matched_id_count} of {len(map_ids)}{doubt_text}."
    )


def make_rival_error(best_id_column: str, rival_column: str, table_path: Path) -> InputError:
    return InputError(
        f"The columns {best_id_column} and {rival_column} of {table_path} could both name the participants of the "
        f"maps, and would give them different rows; say which does with --idColumn, or name the map of each in a "
        "column of paths, --mapColumn."
    )


def make_unmatched_ids_error(
    text_table: pd.DataFrame, requested_id_column: str, map_ids: Collection[str], table_path: Path
) -> InputError:
    """The error that no row has the ID of a map, with examples of both: of the column that was named, or of one that is
    called as columns of IDs are."""
    example_id_column = requested_id_column or max(text_table.columns, key=is_id_column_name)
    example_id_texts = [quote_text(cell_text) for cell_text in text_table[example_id_column] if cell_text][
        :EXAMPLE_ID_COUNT
    ]
    absence_text = (
        f"The column {requested_id_column} of {table_path} holds none of"
        if requested_id_column
        else f"No column of {table_path} holds"
    )
    return InputError(
        f"{absence_text} the IDs of the maps, such as "
        f"{', '.join(sorted(map_ids)[:EXAMPLE_ID_COUNT])}; {example_id_column} holds "
        f"{', '.join(example_id_texts) or 'nothing'}. Expected the same IDs: correct one of both, or name another "
        "column with --idColumn or another table with --table."
    )


def check_subject_ids(subject_ids: pd.Series, table_path: Path) -> None:
    """Raises InputError, naming the wrong ones, unless the IDs are unique, capitals aside, and can be file names."""
    invalid_id_texts = [
        quote_text(subject_id) for subject_id in subject_ids[~subject_ids.str.fullmatch(SUBJECT_ID_PATTERN)]
    ]
    if wrong_ids := [*invalid_id_texts, *find_name_clashes(subject_ids)]:
        raise InputError(
            f"{table_path} has the participants {join_names(wrong_ids)}; expected one row each, with an ID of 1 to 100 "
            "letters, digits, "
            "'.', '_' and '-' that differs in more than capitals. Rename them, or leave rows out with --where."
        )


def check_code_columns(
    text_table: pd.DataFrame, best_id_column: str, row_index_by_id: Mapping[str, int], table_path: Path
) -> None:
    """Raises InputError if maps that are numbers, found in the column `best_id_column` in `row_index_by_id`, could be
    meant by another column. It holds codes with these numbers in other rows, as P017 for 17; any codes will do if
    `best_id_column` numbers the rows."""
    if not all(map(str.isdecimal, row_index_by_id)):
        return
    for column_name in text_table.columns.drop(best_id_column):
        column_ids = text_table[column_name].map(normalise_id)
        if not (column_ids.is_unique and match_fully(column_ids, ID_CODE).all()) or is_row_number_column(
            text_table[column_name]
        ):
            continue
        row_index_by_number = {
            str(split_id[1]): row_index
            for row_index, column_id in enumerate(column_ids)
            if (split_id := split_numbered_id(column_id))
        }
        shared_numbers = row_index_by_number.keys() & row_index_by_id.keys()
        is_column_as_good = len(shared_numbers) >= MIN_RIVAL_SHARE * len(row_index_by_id)
        if (
            any(row_index_by_number[id_number] != row_index_by_id[id_number] for id_number in shared_numbers)
            if is_column_as_good
            else has_row_numbers(text_table[best_id_column])
        ):
            raise make_rival_error(best_id_column, column_name, table_path)


def check_shifted_ids(id_column: pd.Series, map_ids: set[str], table_path: Path) -> None:
    """Raises InputError if IDs may be shifted, so that each subject would have the map of a neighbour. Then a column's
    IDs and the maps do not match to their ends, and IDs that are higher or lower would match as well."""
    column_id_triples = split_numbered_ids(id_column.map(normalise_id))
    map_id_triples = split_numbered_ids(map_ids)
    if not column_id_triples or not map_id_triples:
        return  # no numbers that could be shifted

    # All of the table or of the maps match, or too few to be people of one study
    common_id_triples = column_id_triples & map_id_triples
    unmatched_column_triples = column_id_triples - map_id_triples
    is_column_from_zero = any(id_number == 0 for _, id_number, _ in unmatched_column_triples)  # as programs number rows
    if common_id_triples in (column_id_triples, map_id_triples) and not is_column_from_zero:
        return
    if len(common_id_triples) < MIN_OVERLAP_SHARE * min(len(column_id_triples), len(map_id_triples)):
        return

    # Both ends differ in the same direction: then a shift that matches as many suffices, else it must match more
    lowest_column_number, highest_column_number = find_number_range(column_id_triples)
    lowest_map_number, highest_map_number = find_number_range(map_id_triples)
    lowest_offset = lowest_map_number - lowest_column_number
    highest_offset = highest_map_number - highest_column_number
    are_ranges_offset = is_column_from_zero or lowest_offset * highest_offset > 0
    match_count_of_shift = len(common_id_triples) if are_ranges_offset else len(common_id_triples) + 1

    for number_shift in {*TRIED_ID_SHIFTS, lowest_offset, highest_offset} - {0}:
        shifted_id_triples = shift_numbers(column_id_triples, number_shift)
        if len(shifted_id_triples & map_id_triples) >= match_count_of_shift:
            raise InputError(
                f"The numbers in the column {id_column.name} of {table_path}, {lowest_column_number} to "
                f"{highest_column_number}, match {len(common_id_triples)} of {len(map_id_triples)} maps, "
                f"{lowest_map_number} to {highest_map_number}, and would match as many if they were higher by "
                f"{number_shift}, as shifted numbers do. Correct the table; if it is right, say so with --idColumn "
                f"{quote(str(id_column.name))}."
            )


def split_numbered_ids(subject_ids: Iterable[str]) -> set[NumberedId]:
    """Those IDs that have one number in them, see `split_numbered_id`."""
    return {id_triple for subject_id in subject_ids if (id_triple := split_numbered_id(subject_id))}


def find_number_range(id_triples: Iterable[NumberedId]) -> tuple[int, int]:
    """The lowest and the highest number in IDs."""
    id_numbers = [id_number for _, id_number, _ in id_triples]
    return min(id_numbers), max(id_numbers)


def shift_numbers(id_triples: Iterable[NumberedId], number_shift: int) -> set[NumberedId]:
    """The same IDs with numbers that are higher by `number_shift`."""
    return {(text_before, id_number + number_shift, text_after) for text_before, id_number, text_after in id_triples}


def split_numbered_id(subject_id: str) -> NumberedId | None:
    """An ID with one number in it as the text before it, the number, and the text after it."""
    number_match = NUMBERED_ID.fullmatch(subject_id)
    return (number_match[1], int(number_match[2]), number_match[3]) if number_match else None


def is_id_column_name(column_name: str) -> bool:
    """Whether a column's name is one of those that columns of IDs have."""
    return ID_COLUMN_NAME.fullmatch(re.sub(r"[^a-z]", "", column_name.lower())) is not None


def is_row_number_column(text_column: pd.Series) -> bool:
    """Whether a column has the name, or the values, of row numbers, and not the name of IDs."""
    column_name = str(text_column.name).strip().lower()
    return ROW_NUMBER_COLUMN_NAME.fullmatch(column_name) is not None or (
        not is_id_column_name(column_name) and has_row_numbers(text_column)
    )


def has_row_numbers(text_column: pd.Series) -> bool:
    """Whether a column holds 0, 1, 2, ... or 1, 2, 3, ..., not padded with zeros."""
    cell_texts = text_column.str.removesuffix(".0").tolist()
    return any(
        cell_texts == list(map(str, range(first_number, len(cell_texts) + first_number))) for first_number in (0, 1)
    )


def clear_missing_codes(text_table: pd.DataFrame, missing_options: Sequence[str], table_path: Path) -> pd.DataFrame:
    """The table with empty cells for the values that --missing names, `NAME=VALUE`. Raises InputError for one that
    nobody has."""
    for missing_option in missing_options:
        column_name, _, missing_code = missing_option.rpartition("=")
        is_missing_code = select_column(text_table, column_name, table_path).map(
            canonicalise_value
        ) == canonicalise_value(missing_code)
        if not is_missing_code.any():
            raise InputError(
                f"--missing {missing_option}: nobody in {table_path} has {missing_code!r} there; expected NAME=VALUE."
            )
        text_table = text_table.assign(**{column_name: text_table[column_name].mask(is_missing_code, "")})
    return text_table
