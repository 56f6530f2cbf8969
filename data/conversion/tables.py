"""A table of subjects on disk -> its columns as text, and the column that holds the IDs of the maps."""

import csv
import io
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import pandas as pd

from data.base import files
from data.base.errors import PLAIN, InputError, check_plain, is_plain, shown, taken_for_one
from data.cohorts.phenotype import matches, mostly_numbers
from data.cohorts.rows import listed

COLUMNS_SHOWN = 12  # in a message
EXAMPLES = 2  # of IDs
MAX_ID_BYTES = 200  # the names of files have at most 255, and more than an ID
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
DECLARED = re.compile(r"sep=(.)\r?\n")  # a first line of Excel, which names the delimiter
WHITESPACE = re.compile(r"[\t\n\r\x0b\x0c\x1c-\x1f\x85\u2028\u2029]+")  # but plain spaces
DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
ROW_NUMBER = re.compile(
    r"unnamed.*|column \d+|level_\d+|\.{3}\d+|index|idx|[inxv]1?|n[or]\.?|#"
    r"|rows?[ _.]?(names?|numbers?|n[or]|id|index)?"
)
SUBJECT_NAME = re.compile(
    r"(sub|subj|subject|participant|patient|file|person|proband|study|scan)?(id|code)s?|(subject|participant|patient)s?"
)
FLOATED = re.compile(r"\d+\.0*|\d+\.\d+e\+?\d{1,2}|\d+e\+\d{1,2}", re.ASCII | re.IGNORECASE)  # an integer, as a float
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
    Windows line ends are allowed, and a line end within a cell becomes a space. Raises InputError for an
    ambiguous delimiter, two columns of one name, a row longer than the header, or a cell that is not plain text."""
    check_plain(str(path), "The table is")
    try:
        text = files.regular(path).read_text(encoding="utf-8-sig")
        delimiter = delimiter_of(text, path)
        reader = csv.reader(io.StringIO(DECLARED.sub("", text, count=1), newline=""), delimiter=delimiter, strict=True)
        skipped = 1 if DECLARED.match(text) else 0
        rows = [(reader.line_num + skipped, list(map(on_one_line, row))) for row in reader if any(map(str.strip, row))]
        if not rows:
            raise ValueError("it is empty")
    except (ValueError, OSError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path} is not a readable table: {reason}. Expected comma-, semicolon- or tab-separated text in UTF-8."
        ) from error
    (_, header), *body = rows
    names = pd.Series([name or f"column {number}" for number, name in enumerate(header, 1)])
    if (twice := names[names.duplicated()]).size:
        raise InputError(f"{path} has the column {twice.iloc[0]} twice; expected each once. Rename one.")
    for line, row in rows:
        check_row(row, names.tolist(), f"{path} line {line}")
    table = pd.DataFrame([row + [""] * (len(names) - len(row)) for _, row in body], columns=names, dtype=object)
    return table.apply(with_points) if delimiter == ";" else table


def on_one_line(cell: str) -> str:
    return WHITESPACE.sub(" ", cell).strip()


def check_row(row: list[str], columns: list[str], where: str) -> None:
    """Raises InputError for a row that is longer than the header, or a cell that no cohort could hold."""
    if len(row) > len(columns):
        raise InputError(
            f"{where} has {len(row)} values, the header names {len(columns)} columns; expected as many. Correct the "
            "line, or quote the values that hold a delimiter."
        )
    for name, cell in zip(columns, row, strict=False):
        if not is_plain(cell):
            raise InputError(f"{where} holds {shown(cell)} in the column {shown(name)}; {PLAIN}. Correct it.")


def delimiter_of(text: str, path: Path) -> str:
    """What separates the columns, by the header line. Raises InputError if it is ambiguous."""
    if declared := DECLARED.match(text):
        return declared[1]
    found = [delimiter for delimiter in DELIMITERS if len(next(fields(text, delimiter), [])) > 1]
    if path.suffix.lower() == ".tsv" and "\t" in found:
        return "\t"
    regular = [delimiter for delimiter in found if len(set(map(len, fields(text, delimiter)))) == 1]
    if len(found) > 1 and len(regular) != 1:
        ways = " or by ".join(DELIMITERS[delimiter] for delimiter in found)
        raise InputError(f"{path} can be read as separated by {ways}; expected one. Quote the names that hold another.")
    return (regular if len(found) > 1 else found or [","])[0]


def fields(text: str, delimiter: str) -> Iterator[list[str]]:
    """The fields of each line that is not blank."""
    return filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))


def with_points(column: pd.Series) -> pd.Series:
    """Decimal commas as points, in a column of numbers that has no points."""
    if not mostly_numbers(column) or column.str.contains(r"\d\.\d").any():
        return column
    return column.where(~matches(column, DECIMAL_COMMA), column.str.replace(",", "."))


def key(identifier: str) -> str:
    """An ID in the form that is compared: without BIDS's `sub-`, without leading zeros, `51456` for `51456.0`."""
    bare = re.sub(r"^sub[-_]?(?=.)", "", identifier.strip(), flags=re.IGNORECASE)
    if FLOATED.fullmatch(bare) and (number := Decimal(bare)) == int(number):
        bare = str(int(number))
    return bare.lstrip("0") or "0" if bare.isdecimal() else bare


def ids_of(table: pd.DataFrame, known: Collection[str]) -> pd.Series:
    """The column, as `key` has it, that holds most of the IDs which are `known` in this form. Of two that hold as many,
    it is the one that is called as columns of IDs are."""
    columns = [table[name].map(key) for name in table.columns]
    return max(columns, key=lambda ids: (len({*known} & {*ids}), names_subjects(str(ids.name))))


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
    if name not in table:
        check_columns(table, {"": [name]}, path)
    return table[name]


def check_columns(table: pd.DataFrame, named: Mapping[str, Iterable[str | None]], path: Path) -> None:
    """Raises InputError, which names all missing columns by the options that name them, and columns like them."""
    absent = {option: [name for name in dict.fromkeys(names) if name and name not in table]
              for option, names in named.items()}  # fmt: skip
    if wrong := list(dict.fromkeys(name for names in absent.values() for name in names)):
        by = {option: f" ({option})" if option else "" for option in absent}
        told = "; ".join(f"{', '.join(names)}{by[option]}" for option, names in absent.items() if names)
        alike = [one for one in table if any(name.casefold() in one.casefold() for name in wrong)]
        near = f" Did you mean {listed(alike)}?" if alike else ""
        has = listed(table.columns.tolist(), COLUMNS_SHOWN)
        raise InputError(f"{path} has no column{'s' if len(wrong) > 1 else ''} {told}; it has {has}.{near}")


def matching_column(table: pd.DataFrame, maps: set[str], path: Path) -> str:
    """The column that holds the IDs of most maps. It is never one of row numbers: where IDs are numbers, too, each
    subject could get another one's row. Raises InputError if it is ambiguous."""
    matches: dict[str, dict[str, int]] = {}  # of each column, the row of each ID of a map, the last one if repeated
    repeating = set()
    for name in table.columns:
        found = [(identifier, row) for row, identifier in enumerate(table[name].map(key)) if identifier in maps]
        if found:
            matches[name] = dict(found)
        if len(dict(found)) < len(found):
            repeating.add(name)
    if not matches:
        raise unmatched(table, "", maps, path)
    named = [name for name in matches if not numbers_rows(table[name])]
    if not named:
        first = next(iter(matches))
        raise InputError(
            f"Only the column {first} of {path} holds the IDs of the maps, and it seems to number the rows; "
            f"expected a column of IDs. If it is one, say so with --idColumn {quoted(first)}."
        )
    candidates = [name for name in named if name not in repeating] or named
    best = max(candidates, key=lambda name: len(matches[name]))
    rows = matches[best]
    for other, of_other in matches.items():
        as_good = other in candidates and len(of_other) >= len(rows) * RIVAL_SHARE
        if not of_other.items() <= rows.items() and (as_good or len(of_other) > len(rows)):
            raise InputError(
                f"The columns {best} and {other} of {path} both hold IDs of the maps ({len(rows)} and {len(of_other)} "
                f"of {len(maps)}) and would give them different rows; say which names the subjects with --idColumn."
            )
    check_codes(table, best, rows, path)
    if len(rows) < MIN_MATCHED * min(len(maps), (table[best] != "").sum()) and not names_subjects(best):
        raise InputError(
            f"The column {best} of {path} holds {len(rows)} of {len(maps)} IDs of the maps, as if by chance; if it "
            f"names the subjects, say so with --idColumn {quoted(best)}. The maps have IDs such as {min(maps)}."
        )
    check_shift(table[best], maps, path)
    return best


def unmatched(table: pd.DataFrame, name: str, maps: Collection[str], path: Path) -> InputError:
    """The error that no row has the ID of a map, with examples of both: of the column that was named, or of one that is
    called as columns of IDs are, and whose values come nearest."""

    def nearness(column: str) -> tuple[bool, int]:
        within = (any(one in other or other in one for other in maps) for one in table[column].map(key) if one)
        return names_subjects(column), sum(within)

    shown_column = name or max(table.columns, key=nearness)
    there = [shown(value) for value in table[shown_column] if value][:EXAMPLES]
    nowhere = f"The column {name} of {path} holds none of" if name else f"No column of {path} holds"
    return InputError(
        f"{nowhere} the IDs of the maps, such as "
        f"{', '.join(sorted(maps)[:EXAMPLES])}; {shown_column} holds {', '.join(there) or 'nothing'}. Expected the "
        "same IDs: correct one of both, or name another column with --idColumn or another table with --table."
    )


def check_identifiers(identifier: pd.Series, path: Path) -> None:
    """Raises InputError, which names all others, unless the IDs are unique, capitals aside, and can be file names."""
    wrong = []
    if (long := identifier[identifier.str.encode("utf-8").str.len() > MAX_ID_BYTES]).size:
        wrong.append(
            f"has the subjects {listed(list(map(shown, long)))}; expected at most {MAX_ID_BYTES} bytes of UTF-8"
        )
    if (odd := identifier[~identifier.str.fullmatch(r"\w[\w.-]*")]).size:
        told = listed(list(map(shown, odd)))
        wrong.append(f"has the subjects {told}; expected letters, digits, '.', '_' and '-'. Rename them")
    if twice := taken_for_one(identifier):
        wrong.append(
            f"names subjects more than once: {listed(twice)}; expected one row a subject, by IDs that differ in more "
            "than capitals. Rename them, or leave rows out with --where"
        )
    if wrong:
        raise InputError(f"{path} {'. It '.join(wrong)}.")


def check_codes(table: pd.DataFrame, best: str, rows: Mapping[str, int], path: Path) -> None:
    """Raises InputError if maps that are numbers, found in the column `best` in `rows`, could be meant by another
    column. It holds codes with these numbers in other rows, as P017 for 17; any codes will do if `best` numbers the
    rows."""
    if not all(map(str.isdecimal, rows)):
        return
    for name in table.columns.drop(best):
        values = table[name].map(key)
        if not (values.is_unique and matches(values, CODE).all()) or numbers_rows(table[name]):
            continue
        found = {str(parts[1]): row for row, value in enumerate(values) if (parts := numbered(value))}
        shared = found.keys() & rows.keys()
        as_good = len(shared) >= RIVAL_SHARE * len(rows)
        if any(found[number] != rows[number] for number in shared) if as_good else counts_rows(table[best]):
            raise InputError(
                f"The columns {best} and {name} of {path} could both name the subjects: {best} holds the numbers of "
                f"the maps, {name} codes such as {values.iloc[0]}. If the maps are numbered as in {best}, say so with "
                f"--idColumn {quoted(best)}; otherwise name the map of each subject in a column of paths, --mapColumn."
            )


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
    for shift in sorted({*SHIFTS, low_map - low, high_map - high} - {0}, key=abs):
        shifted = {(head, number + shift, tail) for head, number, tail in of_column}
        if len(shifted & of_maps) >= len(together) + (not apart):
            raise InputError(
                f"The numbers in the column {column.name} of {path}, {low} to {high}, match {len(together)} of "
                f"{len(of_maps)} maps, {low_map} to {high_map}. They would match as many if they were {abs(shift)} "
                f"{'higher' if shift > 0 else 'lower'}: IDs match all but the ends, as shifted numbers do. Correct the "
                f"table; if it is right, say so with --idColumn {quoted(column.name)}."
            )


def numbered(identifier: str) -> tuple[str, int, str] | None:
    """An ID with one number in it as the text before it, the number, and the text after it."""
    parts = NUMBERED.fullmatch(identifier)
    return (parts[1], int(parts[2]), parts[3]) if parts else None


def quoted(name: object) -> str:
    """A column's name as it is given on the command line."""
    return shlex.quote(str(name)) if "'" in str(name) else f"'{name}'"


def names_subjects(name: str) -> bool:
    """Whether a column's name is one of those that columns of IDs have."""
    return SUBJECT_NAME.fullmatch(re.sub(r"[^a-z]", "", name.lower())) is not None


def numbers_rows(column: pd.Series) -> bool:
    """Whether a column has the name, or the values from 0 or 1, of row numbers, and not the name of IDs."""
    name = str(column.name).strip().lower()
    if ROW_NUMBER.fullmatch(name):
        return True
    if names_subjects(name):
        return False
    return counts_rows(column)


def counts_rows(column: pd.Series) -> bool:
    """Whether a column holds 0, 1, 2, ... or 1, 2, 3, ..., not padded with zeros."""
    values = column.str.strip().str.removesuffix(".0").tolist()
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
