"""What is on a researcher's disk -> a table of subjects with a fALFF map each.

Layouts, told by the files' names: BIDS derivatives (`sub-*/..._falff.nii.gz` with `participants.tsv`), the Preprocessed
Connectomes Project as `nilearn.datasets.fetch_abide_pcp` stores it (`<FILE_ID>_falff.nii.gz` with `Phenotypic_*.csv`),
DPABI (`fALFFMap_<ID>.nii`), and any files that a column of the table names.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from data.errors import InputError
from data.phenotype import clean

LAYOUTS = (
    re.compile(r"sub-([A-Za-z0-9]+)_(?:.*_)?falff\.nii(?:\.gz)?", re.IGNORECASE),  # BIDS
    re.compile(r"(.+)_falff\.nii(?:\.gz)?"),  # PCP
    re.compile(r"[a-z]*fALFFMap_(.+?)\.nii(?:\.gz)?"),  # DPABI
)
TABLES = ("participants.tsv", "Phenotypic_*.csv", "*.csv", "*.tsv")
NO_FILENAME = "no_filename"  # the release's FILE_ID of a subject whose scan failed quality control
ABIDE_LABEL = ("DX_GROUP", "1")  # 1 autism, 2 control
ABIDE_SUBJECT = "SUB_ID"
SITE_COLUMNS = ("SITE_ID", "site")


@dataclass(frozen=True)
class Columns:
    """What the user says of the table; None where it is left to the layout."""

    table: Path | None = None
    subject: str | None = None
    label: str | None = None
    positive: str | None = None
    site: str | None = None
    map: str | None = None


@dataclass(frozen=True)
class Source:
    """Subjects to convert, those that cannot be, and how they were read.

    `subjects` has a row a subject: subject, site, label (1.0 autism, 0.0 control), map (Path). `rows` is the table's
    text for the same subjects. `left_out` says for each reason which subjects have no record.
    """

    table: Path
    label_column: str
    subjects: pd.DataFrame
    rows: pd.DataFrame
    left_out: dict[str, list[str]]
    notes: list[str]


def read_table(path: Path) -> pd.DataFrame:
    """A CSV or TSV as text, nothing interpreted; a byte-order mark and Windows line ends do no harm.

    Raises InputError if a column's name stands twice, or a row is longer than the header, which pandas would shift.
    """
    options = {"header": None, "dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
    try:
        lines = pd.read_csv(path, sep="\t" if path.suffix.lower() == ".tsv" else ",", **options)
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not a readable table: {reason}. Expected comma- or tab-separated text.") from error
    lines = lines.apply(lambda column: column.str.strip())
    names = pd.Series([name or f"column {number}" for number, name in enumerate(lines.iloc[0], 1)])
    if (twice := names[names.duplicated()]).size:
        raise InputError(f"{path} has the column {twice.iloc[0]} twice; expected each once. Rename one.")
    return lines.iloc[1:].reset_index(drop=True).set_axis(names.tolist(), axis=1)


def find_maps(folder: Path) -> dict[str, Path]:
    """The maps by ID (see `key`). Raises InputError if there are none, or two for one ID."""
    files = [path for path in sorted(folder.rglob("*.nii*")) if path.name.endswith((".nii", ".nii.gz"))]
    for pattern in LAYOUTS:
        maps = {}
        for path in files:
            if not (match := pattern.fullmatch(path.name)):
                continue
            if (identifier := key(match[1])) in maps:
                raise InputError(
                    f"{folder} has two maps for {identifier}: {maps[identifier]} and {path}; expected one a subject. "
                    "Name a folder with one kind of map, or a column of paths with --mapColumn."
                )
            maps[identifier] = path
        if maps:
            return maps
    raise InputError(
        f"{folder} holds no fALFF maps; expected BIDS (sub-*_falff.nii.gz), PCP (*_falff.nii.gz), DPABI "
        "(fALFFMap_*.nii), or --mapColumn with a column of paths."
    )


def find_table(folder: Path, maps: dict[str, Path]) -> Path:
    """The one table beside the maps or above them. Raises InputError if it is not plain which."""
    inside = {parent for path in maps.values() for parent in path.parents if parent.is_relative_to(folder)}
    for places in (sorted(inside | {folder}), list(folder.resolve().parents)[:2]):
        for pattern in TABLES:
            tables = sorted(path for place in places for path in place.glob(pattern))
            if len(tables) == 1:
                return tables[0]
            if tables:
                raise InputError(f"{folder} has several tables ({', '.join(map(str, tables))}); name one with --table.")
    raise InputError(f"{folder} has no table of subjects; expected a CSV or TSV. Name it with --table.")


def key(identifier: str) -> str:
    """An ID as it is matched: without BIDS's `sub-`, without leading zeros."""
    bare = re.sub(r"^sub[-_]?(?=.)", "", identifier.strip(), flags=re.IGNORECASE)
    return bare.lstrip("0") or "0" if bare.isdecimal() else bare


def column(table: pd.DataFrame, name: str, path: Path) -> pd.Series:
    """A column. Raises InputError, with the columns there are, if it is missing."""
    if name not in table:
        raise InputError(f"{path} has no column {name}; it has {', '.join(table.columns[:20])}.")
    return table[name]


def matching_column(table: pd.DataFrame, maps: dict[str, Path], path: Path) -> str:
    """The column that holds the IDs of the most maps. Raises InputError if none holds any."""
    matched = {name: len(maps.keys() & set(table[name].map(key))) for name in table.columns}
    best = max(matched, key=matched.get, default=None)
    if best is None or not matched[best]:
        raise InputError(f"No column of {path} holds the IDs of the maps, such as {min(maps)}; correct one of them.")
    return best


def join(folder: Path, columns: Columns) -> tuple[Path, pd.DataFrame, str, pd.Series, list[str]]:
    """Path and content of the table, its column of IDs, each row's map (NaN if none), and the maps without a row."""
    if columns.map:
        path = columns.table or find_table(folder, {})
        table = read_table(path)
        subject = columns.subject or next((name for name in (ABIDE_SUBJECT, "participant_id") if name in table), None)
        if subject is None:
            raise InputError(f"Which column of {path} names the subject? Say so with --idColumn.")
        named = column(table, columns.map, path)
        column(table, subject, path)
        return path, table, subject, named.map(lambda name: existing(folder / name) if name else float("nan")), []
    maps = find_maps(folder)
    path = columns.table or find_table(folder, maps)
    table = read_table(path)
    subject = columns.subject or matching_column(table, maps, path)
    keys = column(table, subject, path).map(key)
    return path, table, subject, keys.map(maps), sorted(maps.keys() - set(keys))


def existing(path: Path) -> Path | float:
    return path if os.path.isfile(path) else float("nan")  # Path.is_file raises for a name that is too long


def label_of(table: pd.DataFrame, columns: Columns, path: Path) -> tuple[str, str, pd.Series]:
    """The label's column, its positive value, and labels (see `labels`). Only ABIDE's own coding is known unasked."""
    name, positive = columns.label, columns.positive
    if name is None and positive is None and {ABIDE_LABEL[0], ABIDE_SUBJECT} <= set(table.columns):
        name, positive = ABIDE_LABEL
    if name is None or positive is None:
        raise InputError(
            f"Which column of {path} is the diagnosis, and which of its values is autism? "
            "Say so with --labelColumn NAME --positive VALUE."
        )
    return name, positive, labels(column(table, name, path), positive, path)


def read_source(folder: Path, columns: Columns) -> Source:
    """Joins the maps under `folder` with the table. Raises InputError where a choice is the user's to make."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected fALFF maps as NIfTI and a table of subjects.")
    path, table, id_column, maps, stray = join(folder, columns)
    label_column, positive, label = label_of(table, columns, path)
    site_column = columns.site or next((name for name in SITE_COLUMNS if name in table), None)
    identifier = table[ABIDE_SUBJECT if ABIDE_SUBJECT in table else id_column].map(key)
    named = table[id_column] != NO_FILENAME
    kept = maps.notna() & label.notna()
    check_identifiers(identifier[kept], path)
    subjects = pd.DataFrame(
        {
            "subject": identifier,
            "site": column(table, site_column, path).str.split().str.join(" ") if site_column else "unknown",
            "label": label,
            "map": maps,
        }
    )[kept].sort_values(
        "subject", key=lambda name: name.str.zfill(20)
    )  # the order, and so the split, is the layout's no more
    left_out = {
        f"{id_column} is {NO_FILENAME}": identifier[~named].tolist(),
        "no map": identifier[named & maps.isna()].tolist(),
        f"{label_column} unknown": identifier[maps.notna() & label.isna()].tolist(),
        "a map without a row in the table": stray,
    }
    notes = [f"Table {path}, joined by {id_column}.", f"Label: {label_column}, where {positive} is autism."]
    return Source(path, label_column, subjects.reset_index(drop=True), table.loc[subjects.index], left_out, notes)


def check_identifiers(identifier: pd.Series, path: Path) -> None:
    """Raises InputError unless the IDs are unique and can be file names."""
    if (twice := identifier[identifier.duplicated()]).size:
        raise InputError(f"{path} names subject {twice.iloc[0]} twice; expected one row a subject.")
    if (odd := identifier[~identifier.str.fullmatch(r"\w[\w.-]*")]).size:
        raise InputError(f"{path} has the subject {odd.iloc[0]!r}; expected letters, digits, '.', '_' and '-'.")


def labels(column: pd.Series, positive: str, table: Path) -> pd.Series:
    """1.0 where the column is `positive`, 0.0 for its other value, NaN where missing.

    Raises InputError unless the column has exactly two values, `positive` among them.
    """
    text = clean(column)
    values = pd.to_numeric(text, errors="coerce")
    text = text.where(values.isna(), values.map(lambda number: f"{number:g}"))
    known = sorted(text.dropna().unique())
    if positive not in known or len(known) != 2:
        raise InputError(
            f"{table}: {column.name} holds {', '.join(known[:6]) or 'nothing'}; expected two values, {positive} "
            "(--positive, autism) and another (control)."
        )
    return (text == positive).astype(float).where(text.notna())
