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
from data.cohorts.phenotype import is_mostly_numbers, match_fully
from data.cohorts.rows import join_names

COLUMNS_SHOWN = 12  # in a message
EXAMPLES = 2  # of IDs
DELIMITERS = (",", ";", "\t")
DECLARED = re.compile(r"sep=(.)\r?\n")  # a first line of Excel, which names the delimiter
DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
SUBJECT_ID = r"\w[\w.-]{0,99}"  # which is also the name of a file
ROW_NUMBER = re.compile(
    r"unnamed.*|column \d+|level_\d+|\.{3}\d+|index|idx|[inxv]1?|n[or]\.?|#"
    r"|rows?[ _.]?(names?|numbers?|n[or]|id|index)?"
)
SUBJECT_NAME = re.compile(
    r"(sub|subj|subject|participant|patient|file|person|proband|study|scan)?(id|code)s?|(subject|participant|patient)s?"
)
NUMBERED = re.compile(r"(\D*)(\d{1,18})(\D*)", re.ASCII)
CODE = re.compile(  # letters and digits, but no age, no score of two digits, no date
    r"(?=.*\d)(?!\d{1,2}$)(?!\d+([-_]\d+){2}$)[A-Za-z0-9]+([-_][A-Za-z0-9]+)*", re.ASCII
)
SEPARATOR = re.compile(r"(?<=[^\W\d_])[\s_-]+(?=\w)|(?<=\w)[\s_-]+(?=[^\W\d_])")  # not the sign of a number
SHIFTS = {-2, -1, 1, 2}  # between two numberings of the same people, beside those that align their ends
MIN_OVERLAP = 0.25  # of the people of two numberings; ones that share fewer are of two studies
MIN_MATCHED = 0.5  # of the IDs that could match
RIVAL_SHARE = 0.8  # of the matches of the best column; a column with as many is as good a guess


def read_table(path: Path) -> pd.DataFrame:
    """A CSV or TSV as text, with decimal commas as points if semicolons separate the columns; a byte-order mark and
    Windows line ends are allowed, and a line end within a cell becomes a space. Raises InputError for two columns of
    one name, a row longer than the header, or a cell that is not plain text."""
    check_regular_file(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        delimiter, content = delimiter_of(text, path), io.StringIO(DECLARED.sub("", text, count=1), newline="")
        rows = pd.read_csv(content, sep=delimiter, header=None, dtype=object, na_filter=False)
    except (ValueError, OSError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path} is not a readable table: {reason}. Expected comma-, semicolon- or tab-separated text in UTF-8."
        ) from error
    rows = rows.fillna("").map(lambda cell: compose_accents(" ".join(cell.split())))
    names = pd.Series([name or f"column {number}" for number, name in enumerate(rows.iloc[0], 1)])
    if (twice := names[names.duplicated()]).size:
        raise InputError(f"{path} has the column {twice.iloc[0]} twice; expected each once. Rename one.")
    table = rows[1:].set_axis(names.to_list(), axis=1).loc[lambda body: (body != "").any(axis=1)]
    if odd := next((cell for cell in [*names, *table.to_numpy().ravel()] if not is_plain_text(cell)), None):
        raise InputError(f"{path} holds {quote_text(odd)}; {PLAIN_TEXT_EXPECTED}. Correct it.")
    return (table.apply(with_points) if delimiter == ";" else table).reset_index(drop=True)


def delimiter_of(text: str, path: Path) -> str:
    """What separates the columns: what the file declares, or else what parts the header into most columns; in a TSV
    tabs, if there are any."""
    if declared := DECLARED.match(text):
        return declared[1]
    rows = {of: csv.reader(io.StringIO(text, newline=""), delimiter=of) for of in DELIMITERS}
    sizes = {of: len(next(filter(None, of_file), [])) for of, of_file in rows.items()}
    return "\t" if path.suffix.lower() == ".tsv" and sizes["\t"] > 1 else max(DELIMITERS, key=sizes.__getitem__)


def with_points(column: pd.Series) -> pd.Series:
    """Decimal commas as points, in a column of numbers that has no points."""
    if not is_mostly_numbers(column) or column.str.contains(r"\d\.\d").any():
        return column
    return column.where(~match_fully(column, DECIMAL_COMMA), column.str.replace(",", "."))


def key(identifier: str) -> str:
    """An ID in the form that is compared: without BIDS's `sub-`, without leading zeros, `51456` for `51456.0`, accents
    `compose_accents`."""
    bare = re.sub(r"^sub[-_]?(?=.)", "", compose_accents(identifier.strip()), flags=re.IGNORECASE)
    bare = re.sub(r"^(\d+)\.0*$", r"\1", bare)
    return bare.lstrip("0") or "0" if bare.isdecimal() else bare


def canonical_value(text: str) -> str:
    """One text for each number: `1` for `1.0`."""
    text = text.strip()
    number = pd.to_numeric(text, errors="coerce")
    return str(int(number)) if number == number and abs(number) < 1e15 and number == int(number) else text


def respelled(values: Iterable[str]) -> list[list[str]]:
    """The values that differ only in capitals, or in the blanks, hyphens and underscores beside a letter."""
    groups: dict[str, list[str]] = {}
    for value in sorted({*values}):
        groups.setdefault(SEPARATOR.sub("", value).casefold(), []).append(value)
    return [group for group in groups.values() if len(group) > 1]


def column(table: pd.DataFrame, name: str, path: Path) -> pd.Series:
    """A column. Raises InputError, which lists the existing columns, if it is missing."""
    check_columns(table, {"": [name]}, path)
    return table[name]


def check_columns(table: pd.DataFrame, named: Mapping[str, Iterable[str | None]], path: Path) -> None:
    """Raises InputError, which names all missing columns by the options that name them, and columns like them."""
    absent = {name: f" ({option})" * bool(option) for option, names in named.items() for name in names
              if name and name not in table}  # fmt: skip
    if absent:
        alike = [one for one in table if any(name.casefold() in one.casefold() for name in absent)]
        near = f" Did you mean {join_names(alike)}?" if alike else ""
        told = ", ".join(name + option for name, option in absent.items())
        raise InputError(
            f"{path} has no column {told}; it has {join_names(table.columns.tolist(), COLUMNS_SHOWN)}.{near}"
        )


def matching_column(table: pd.DataFrame, maps: set[str], path: Path) -> str:
    """The column that holds the IDs of most maps. It is never one of row numbers: where IDs are numbers, too, each
    subject could get another one's row. Raises InputError if it is ambiguous."""
    keys = {name: table[name].map(key) for name in table.columns}
    matched = {name: ids[ids.isin(maps)] for name, ids in keys.items() if ids.isin(maps).any()}
    rows = {name: dict(zip(ids, ids.index, strict=True)) for name, ids in matched.items()}  # the last, if repeated
    if not rows:
        raise unmatched(table, "", maps, path)
    named = [name for name in rows if not numbers_rows(table[name])]
    if not named:
        first = next(iter(rows))
        raise InputError(
            f"Only the column {first} of {path} holds the IDs of the maps, and it seems to number the rows; "
            f"expected a column of IDs. If it is one, say so with --idColumn {quote(first)}."
        )
    candidates = [name for name in named if matched[name].is_unique] or named
    best = max(candidates, key=lambda name: len(rows[name]))
    for other, of_other in rows.items():
        as_good = other in candidates and len(of_other) >= len(rows[best]) * RIVAL_SHARE
        if not of_other.items() <= rows[best].items() and (as_good or len(of_other) > len(rows[best])):
            raise rivals(best, other, path)
    check_codes(table, best, rows[best], path)
    if len(rows[best]) < MIN_MATCHED * min(len(maps), (table[best] != "").sum()) and not names_subjects(best):
        raise InputError(
            f"The column {best} of {path} holds {len(rows[best])} of {len(maps)} IDs of the maps, as if by chance; if "
            f"it names the participants, say so with --idColumn {quote(best)}. The maps have IDs such as {min(maps)}."
        )
    check_shift(table[best], maps, path)
    return best


def rivals(best: str, other: str, path: Path) -> InputError:
    return InputError(
        f"The columns {best} and {other} of {path} could both name the participants of the maps, and would give them "
        f"different rows; say which does with --idColumn, or name the map of each in a column of paths, --mapColumn."
    )


def unmatched(table: pd.DataFrame, name: str, maps: Collection[str], path: Path) -> InputError:
    """The error that no row has the ID of a map, with examples of both: of the column that was named, or of one that is
    called as columns of IDs are."""
    shown_column = name or max(table.columns, key=names_subjects)
    there = [quote_text(value) for value in table[shown_column] if value][:EXAMPLES]
    nowhere = f"The column {name} of {path} holds none of" if name else f"No column of {path} holds"
    return InputError(
        f"{nowhere} the IDs of the maps, such as "
        f"{', '.join(sorted(maps)[:EXAMPLES])}; {shown_column} holds {', '.join(there) or 'nothing'}. Expected the "
        "same IDs: correct one of both, or name another column with --idColumn or another table with --table."
    )


def check_identifiers(identifier: pd.Series, path: Path) -> None:
    """Raises InputError, which names all others, unless the IDs are unique, capitals aside, and can be file names."""
    odd = [quote_text(name) for name in identifier[~identifier.str.fullmatch(SUBJECT_ID)]]
    if wrong := [*odd, *find_name_clashes(identifier)]:
        raise InputError(
            f"{path} has the participants {join_names(wrong)}; expected one row each, with an ID of 1 to 100 letters, "
            "digits, "
            "'.', '_' and '-' that differs in more than capitals. Rename them, or leave rows out with --where."
        )


def check_codes(table: pd.DataFrame, best: str, rows: Mapping[str, int], path: Path) -> None:
    """Raises InputError if maps that are numbers, found in the column `best` in `rows`, could be meant by another
    column. It holds codes with these numbers in other rows, as P017 for 17; any codes will do if `best` numbers the
    rows."""
    if not all(map(str.isdecimal, rows)):
        return
    for name in table.columns.drop(best):
        values = table[name].map(key)
        if not (values.is_unique and match_fully(values, CODE).all()) or numbers_rows(table[name]):
            continue
        found = {str(parts[1]): row for row, value in enumerate(values) if (parts := numbered(value))}
        shared = found.keys() & rows.keys()
        as_good = len(shared) >= RIVAL_SHARE * len(rows)
        if any(found[number] != rows[number] for number in shared) if as_good else counts_rows(table[best]):
            raise rivals(best, name, path)


def check_shift(column: pd.Series, maps: set[str], path: Path) -> None:
    """Raises InputError if IDs may be shifted, so that each subject would have the map of a neighbour. Then a column's
    IDs and the maps do not match to their ends, and IDs that are higher or lower would match as well."""
    of_column, of_maps = ({parts for name in names if (parts := numbered(name))} for names in (column.map(key), maps))
    together = of_column & of_maps
    from_0 = any(number == 0 for _, number, _ in of_column - of_maps)  # as programs number rows
    whole = together in (of_column, of_maps) and not from_0
    if whole or len(together) < MIN_OVERLAP * min(len(of_column), len(of_maps)):
        return
    low, high, low_map, high_map = (
        end(number for _, number, _ in parts) for parts in (of_column, of_maps) for end in (min, max)
    )
    apart = from_0 or (low - low_map) * (high - high_map) > 0  # both ends, the same way
    for shift in {*SHIFTS, low_map - low, high_map - high} - {0}:
        shifted = {(head, number + shift, tail) for head, number, tail in of_column}
        if len(shifted & of_maps) >= len(together) + (not apart):
            raise InputError(
                f"The numbers in the column {column.name} of {path}, {low} to {high}, match {len(together)} of "
                f"{len(of_maps)} maps, {low_map} to {high_map}, and would match as many if they were higher by "
                f"{shift}, as shifted numbers do. Correct the table; if it is right, say so with --idColumn "
                f"{quote(str(column.name))}."
            )


def numbered(identifier: str) -> tuple[str, int, str] | None:
    """An ID with one number in it as the text before it, the number, and the text after it."""
    parts = NUMBERED.fullmatch(identifier)
    return (parts[1], int(parts[2]), parts[3]) if parts else None


def names_subjects(name: str) -> bool:
    """Whether a column's name is one of those that columns of IDs have."""
    return SUBJECT_NAME.fullmatch(re.sub(r"[^a-z]", "", name.lower())) is not None


def numbers_rows(column: pd.Series) -> bool:
    """Whether a column has the name, or the values, of row numbers, and not the name of IDs."""
    name = str(column.name).strip().lower()
    return ROW_NUMBER.fullmatch(name) is not None or (not names_subjects(name) and counts_rows(column))


def counts_rows(column: pd.Series) -> bool:
    """Whether a column holds 0, 1, 2, ... or 1, 2, 3, ..., not padded with zeros."""
    values = column.str.removesuffix(".0").tolist()
    return any(values == list(map(str, range(first, len(values) + first))) for first in (0, 1))


def without_codes(table: pd.DataFrame, missing: Sequence[str], path: Path) -> pd.DataFrame:
    """The table with empty cells for the values that --missing names, `NAME=VALUE`. Raises InputError for one that
    nobody has."""
    for named in missing:
        name, _, code = named.rpartition("=")
        coded = column(table, name, path).map(canonical_value) == canonical_value(code)
        if not coded.any():
            raise InputError(f"--missing {named}: nobody in {path} has {code!r} there; expected NAME=VALUE.")
        table = table.assign(**{name: table[name].mask(coded, "")})
    return table
