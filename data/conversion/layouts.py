"""What is on a researcher's disk -> a table of subjects with the same maps each, fALFF by default.

Layouts, told by the files' names: BIDS derivatives (`sub-*/..._falff.nii.gz`, `..._stat-falff_*.nii.gz`, with
`participants.tsv`), the Preprocessed Connectomes Project as `nilearn.datasets.fetch_abide_pcp` stores it
(`<FILE_ID>_falff.nii.gz` with `Phenotypic_*.csv`), DPABI (`fALFFMap_<ID>.nii`), and any files that columns of the table
name. Maps are called as that project calls them, in all layouts.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path, PurePosixPath

import pandas as pd

from data.base.errors import InputError
from data.base.files import LEDGER
from data.cohorts.phenotype import clean
from data.cohorts.records import MAX_MAPS
from data.conversion.tables import column, key, matching_column, read_table

DEFAULT_MAPS = ("falff",)
DPABI = {  # before them m, s and z in any order: divided by the mean, smoothed, z-scored
    "falff": "[a-z]*fALFFMap",
    "alff": "[a-eg-z]*ALFFMap",
    "reho": "[a-z]*ReHoMap",
    "degree_weighted": "[a-z]*DegreeCentrality_[A-Za-z]*Weighted[A-Za-z]*Map",
    "degree_binarize": "[a-z]*DegreeCentrality_[A-Za-z]*Binarized[A-Za-z]*Map",
}
LAYOUTS: dict[str, Callable[[str], str]] = {  # a map's name -> the pattern of its files, the ID as the first group
    "BIDS": lambda name: (
        rf"(?i:sub-([A-Za-z0-9]+)_(?:.*_)?(?:{bids(name)}|stat-{bids(name)}(?:_[^_]+)*)\.nii(?:\.gz)?)"
    ),
    "PCP": lambda name: rf"(.+)_{re.escape(name)}\.nii(?:\.gz)?",
    "DPABI": lambda name: rf"{DPABI.get(name, f'[a-z]*(?i:{re.escape(name)})Map')}_(.+?)\.nii(?:\.gz)?",
}
CALLED = {"falff": "fALFF"}  # where a map is written otherwise than by its name
PIPELINES = re.compile(  # folders that say how a map was made; others may be sites
    r"c-?pac|dparsfa?|dpabi|niak|ccs|fmriprep|xcp_?d|(no)?filt_(no)?global|S\d_.*"
    r"|m?z?s?(f?ALFF|ReHo|DegreeCentrality)_.*|(ses|run|task)-.*",
    re.IGNORECASE,
)
SESSION = re.compile(r"[_-](ses|session|run|visit|wave|tp|timepoint|scan)[_-]?\w{1,4}$", re.IGNORECASE)  # ends an ID
OTHER_FORMATS = (".img", ".hdr", ".gii", ".mnc", ".mgh", ".mgz", ".head", ".brik", ".brik.gz", ".par", ".rec")
TABLES = ("participants.tsv", "Phenotypic_*.csv", "*.csv", "*.tsv")
NAN = float("nan")
NO_FILENAME = "no_filename"  # the release's FILE_ID of a subject whose scan failed quality control
ABIDE_LABEL, ABIDE_AUTISM, ABIDE_CONTROL = "DX_GROUP", "1", "2"
ABIDE_SUBJECT = "SUB_ID"
SITE_COLUMNS = ("SITE_ID", "site")
SITE_WORDS = re.compile(
    r"site|scann?er|cent(er|re)|instit(ute|ution)|manufacturer|vendor|hospital|clinic|university|magnet|location|lab(oratory)?"
    r"|station",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Columns:
    """What the user says of the table; None where it is left to the layout."""

    table: Path | None = None
    subject: str | None = None
    label: str | None = None
    positive: str | None = None
    site: str | None = None
    map: str | None = None
    negative: str | None = None
    only: str | None = None
    maps: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Source:
    """Subjects to convert, those that cannot be, and how they were read.

    `subjects` has a row a subject: subject, site, label (1.0 autism, 0.0 control, NaN unknown); `maps` the Path of each
    map, a column a map; `rows` the table's text for the same subjects. `left_out` says for each reason which subjects
    have no record. A column is None where there is none.
    """

    table: Path
    label_column: str | None
    site_column: str | None
    subjects: pd.DataFrame
    maps: pd.DataFrame
    rows: pd.DataFrame
    left_out: dict[str, list[str]]
    notes: list[str]


@dataclass(frozen=True)
class Found:
    """A file whose name is a map's: its path in the folder, its ID, whose it is, and its kind: the name without that.

    `subject` is the ID without a session or run.
    """

    path: PurePosixPath
    layout: str
    identifier: str
    subject: str
    kind: str


def bids(name: str) -> str:
    """A map's name within a BIDS name, where underscores stand between entities only."""
    return re.escape(name).replace("_", "_?")


def patterns(name: str) -> dict[str, re.Pattern]:
    """Of the files of a map, by layout."""
    return {layout: re.compile(pattern(name)) for layout, pattern in LAYOUTS.items()}


def recognised(path: PurePosixPath, by_layout: dict[str, re.Pattern]) -> Found | None:
    """What a path in the folder says by itself, None if it is not that of a map."""
    for layout, pattern in by_layout.items():
        if match := pattern.fullmatch(path.name):
            subject = SESSION.sub("", match[1]) or match[1]
            start, end = match.start(1), match.start(1) + len(subject)
            name = f"{escape(path.name[:start])}*{escape(path.name[end:]).removesuffix('.gz')}*"
            pipeline = [part for part in path.parts[:-1] if PIPELINES.fullmatch(part)]
            return Found(path, layout, key(match[1]), key(subject), "/".join([*pipeline, name]))
    return None


def find_maps(folder: Path, only: str | None = None, name: str = "falff") -> tuple[dict[str, Path], list[str]]:
    """The maps of one name by ID (see `key`) and what is said of them; `only` is a glob of paths in the folder, None
    for all.

    Raises InputError if there are none, two for one ID, or different kinds for different IDs.
    """
    paths = [path.relative_to(folder) for path in sorted(folder.rglob("*.nii*")) if seen(path)]
    by_layout = patterns(name)
    files = [found for path in paths if (found := recognised(PurePosixPath(path.as_posix()), by_layout))]
    if not files:
        called = CALLED.get(name, name)
        raise InputError(
            f"{folder} holds no {called} maps{others(folder)}; expected BIDS (sub-*_{name}.nii.gz), PCP "
            f"(*_{name}.nii.gz), DPABI ({called}Map_*.nii), or --mapColumn with a column of paths."
        )
    chosen = [found for found in files if only is None or fnmatchcase(str(found.path), only)]
    if not chosen:
        raise InputError(f"--only {only!r} fits none of the {len(files)} maps in {folder}, such as {files[0].path}.")
    layout = next(name for name in LAYOUTS if any(found.layout == name for found in chosen))
    maps = [found for found in chosen if found.layout == layout]
    check_kinds(folder, maps)
    notes = [f"Layout: {layout}, {len(maps)} maps {maps[0].kind}."]
    if rest := [found for found in chosen if found.layout != layout]:
        notes.append(f"Left alone: {len(rest)} files named otherwise, such as {rest[0].path}; choose with --only.")
    return {found.identifier: folder / found.path for found in maps}, notes


def seen(path: Path) -> bool:
    """Whether a path is a file, or the broken link to one, that is not hidden, as macOS leaves them beside others."""
    return not path.name.startswith(".") and not path.is_dir()


def others(folder: Path) -> str:
    """What is said of maps in another format, if there are any."""
    other = next((path for path in sorted(folder.rglob("*")) if path.name.lower().endswith(OTHER_FORMATS)), None)
    return f" as NIfTI (.nii, .nii.gz) but {other.name}, which must be converted to NIfTI first" if other else ""


def check_kinds(folder: Path, maps: list[Found]) -> None:
    """Raises InputError, with a glob that chooses, if an ID has two maps or the maps are of several kinds."""
    of_subject: dict[str, Found] = {}
    for found in maps:
        if (first := of_subject.setdefault(found.subject, found)) is not found:
            raise InputError(
                f"{folder} has two maps for {found.subject}: {first.path} and {found.path}; expected one a subject. "
                f"{choice([first, found], maps)}"
            )
    kinds = Counter(found.kind for found in maps)
    if len(kinds) > 1:
        named = ", ".join(f"{kind} ({count} subjects)" for kind, count in kinds.most_common(4))
        examples = [next(found for found in maps if found.kind == kind) for kind in kinds]
        raise InputError(
            f"{folder} has maps of {len(kinds)} kinds, each for other subjects: {named}; expected one kind. "
            f"{choice(examples, maps)}"
        )


def choice(rivals: list[Found], maps: list[Found]) -> str:
    """Advice, with the glob that leaves one map each for most subjects."""
    best, most = "", 0
    for pattern in dict.fromkeys(pattern for rival in rivals for pattern in globs(rival.path, rival.kind)):
        chosen = [found for found in maps if fnmatchcase(str(found.path), pattern)]
        subjects = {found.subject for found in chosen}
        if most < len(subjects) == len(chosen) and len({found.kind for found in chosen}) == 1:
            best, most = pattern, len(subjects)
    example = f"Choose with --only, such as --only '{best}' ({most} maps); or" if best else "Remove one, or"
    return f"{example} name the map of each subject in a column of paths with --mapColumn."


def globs(path: PurePosixPath, kind: str) -> Iterator[str]:
    """Globs that fit a map and others like it: by a folder, by a part of its name, by all of its name."""
    folders, name = path.parts[:-1], kind.split("/")[-1]
    for number, folder in enumerate(folders):
        yield f"*/{escape(folder)}/*" if number else f"{escape(folder)}/*"
        yield f"*/{escape(folder)}/*"
    yield from (f"*_{escape(part)}[_.]*" for part in path.name.split(".")[0].split("_")[1:])
    yield "*.nii.gz" if path.suffix == ".gz" else "*.nii"
    yield from (name, f"*/{name}", f"*{name}", "/".join([*map(escape, folders), name]), escape(str(path)))


def find_table(folder: Path, maps: Iterable[Path]) -> Path:
    """The one table beside the maps or above them. Raises InputError if it is not plain which."""
    inside = {parent for path in maps for parent in path.parents if parent.is_relative_to(folder)}
    for places in (sorted(inside | {folder}), list(folder.resolve().parents)[:2]):
        for pattern in TABLES:
            tables = sorted(path for place in places for path in place.glob(pattern) if path.name != LEDGER)
            if len(tables) == 1:
                return tables[0]
            if tables:
                raise InputError(f"{folder} has several tables ({', '.join(map(str, tables))}); name one with --table.")
    raise InputError(f"{folder} has no table of subjects; expected a CSV or TSV. Name it with --table.")


@dataclass(frozen=True)
class Joined:
    """A table joined with maps: `maps` holds each row's maps (columns, by name), NaN if none; `stray` are the IDs of
    maps without a row."""

    path: Path
    table: pd.DataFrame
    id_column: str
    maps: pd.DataFrame
    stray: list[str]
    notes: list[str]


def join(folder: Path, columns: Columns) -> Joined:
    """Finds the table and the maps, by their names or by the column that names them."""
    if columns.map:
        return join_named(folder, columns, columns.map)
    names = columns.maps or DEFAULT_MAPS
    check_map_names(names)
    found = {name: find_maps(folder, columns.only, name) for name in names}
    maps = {name: of_map for name, (of_map, _) in found.items()}
    path = columns.table or find_table(folder, [place for of_map in maps.values() for place in of_map.values()])
    table = read_table(path)
    identifiers = set().union(*maps.values())
    subject = columns.subject or matching_column(table, identifiers, path)
    keys = column(table, subject, path).map(key)
    of_row = pd.DataFrame({name: keys.map(of_map) for name, of_map in maps.items()})
    notes = [note for _, of_map in found.values() for note in of_map]
    return Joined(path, table, subject, of_row, sorted(identifiers - set(keys)), notes)


def join_named(folder: Path, columns: Columns, map_column: str) -> Joined:
    """The same where a column holds the paths of the maps."""
    if columns.only:
        raise InputError("--only chooses among maps that are found by name; leave it out, --mapColumn names each.")
    path = columns.table or find_table(folder, [])
    table = read_table(path)
    map_columns = [map_column] if map_column in table else map_column.split(",")
    names = columns.maps or (DEFAULT_MAPS if len(map_columns) == 1 else tuple(map_columns))
    if len(names) != len(map_columns):
        raise InputError(
            f"--mapColumn {map_column} names {len(map_columns)} columns for the maps {', '.join(names)}; "
            "expected a column a map, in their order."
        )
    check_map_names(names)
    subject = columns.subject or next((name for name in (ABIDE_SUBJECT, "participant_id") if name in table), None)
    if subject is None:
        raise InputError(f"Which column of {path} names the subject? Say so with --idColumn.")
    named = pd.DataFrame({name: column(table, of_map, path) for name, of_map in zip(names, map_columns, strict=True)})
    column(table, subject, path)
    maps = named.map(lambda name: existing(folder / name) if name else NAN)
    assumed = f", taken for {', '.join(names)}; --maps says otherwise" * (columns.maps is None)
    return Joined(path, table, subject, maps, [], [f"Layout: maps that the column {map_column} names{assumed}."])


def check_map_names(names: Sequence[str]) -> None:
    """Raises InputError unless maps can be told apart, and written, by their names."""
    if len(set(names)) < len(names) or (odd := [name for name in names if not re.fullmatch(r"\w[\w.-]*", name)]):
        wrong = f"{odd[0]!r}" if len(set(names)) == len(names) else "one twice"
        raise InputError(
            f"The maps are called {', '.join(names)}, {wrong} among them; expected each once, of letters, digits, '.', "
            "'_' and '-'. Name them with --maps."
        )
    if len(names) > MAX_MAPS:
        raise InputError(f"A record would have {len(names)} maps; expected at most {MAX_MAPS}. Name fewer with --maps.")


def existing(path: Path) -> Path | float:
    return path if os.path.isfile(path) else NAN  # Path.is_file raises for a name that is too long


@dataclass(frozen=True)
class Coding:
    """Which values of a column are autism and which control; None for control where it is the one other value."""

    name: str
    positive: str
    negative: str | None


def is_abide(table: pd.DataFrame) -> bool:
    """Whether a table is ABIDE's own."""
    return {ABIDE_LABEL, ABIDE_SUBJECT} <= set(table.columns)


def coding_of(table: pd.DataFrame, columns: Columns, path: Path, optional: bool) -> Coding | None:
    """Only ABIDE's own coding is known unasked; None if there is none and labels are `optional`."""
    name, positive = columns.label, columns.positive
    if name is None and positive is None:
        if is_abide(table):  # of few people, perhaps all of one class, the one other value is not known
            return Coding(ABIDE_LABEL, ABIDE_AUTISM, columns.negative or (ABIDE_CONTROL if optional else None))
        if optional:
            return None
    if name is None or positive is None:
        raise InputError(
            f"Which column of {path} is the diagnosis, and which of its values is autism? "
            "Say so with --labelColumn NAME --positive VALUE."
        )
    return Coding(name, positive, columns.negative)


def read_source(folder: Path, columns: Columns, optional: bool = False) -> Source:
    """Joins the maps under `folder` with the table. Raises InputError where a choice is the user's to make.

    Subjects of unknown diagnosis are left out, unless labels are `optional`, and those that lack a map.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected fALFF maps, or others, as NIfTI and a table of subjects.")
    joined = join(folder, columns)
    path, table, id_column, maps = joined.path, joined.table, joined.id_column, joined.maps
    coding = coding_of(table, columns, path, optional)
    diagnosis = canonical(column(table, coding.name, path)) if coding else pd.Series(NAN, table.index, dtype=object)
    label = labels(diagnosis, coding, path, optional) if coding else diagnosis.astype(float)
    complete = maps.notna().all(axis=1)
    unknown = complete & diagnosis.isna()
    site_column = columns.site or next((name for name in SITE_COLUMNS if name in table), None)
    identifier = table[ABIDE_SUBJECT if ABIDE_SUBJECT in table else id_column].map(key)
    named = table[id_column] != NO_FILENAME
    kept = complete & (label.notna() | (diagnosis.isna() & optional))
    check_identifiers(identifier[kept], path)
    check_own(maps[kept].map(os.path.realpath), identifier, columns.map or id_column, path)
    subjects = pd.DataFrame(
        {
            "subject": identifier,
            "site": column(table, site_column, path).str.split().str.join(" ") if site_column else "unknown",
            "label": label,
        }
    )[kept].sort_values(
        "subject", key=lambda name: name.str.zfill(20)
    )  # the order, and so the split, is the layout's no more
    left_out = {
        f"{id_column} is {NO_FILENAME}": identifier[~named].tolist(),
        "no map": identifier[named & maps.isna().all(axis=1)].tolist(),
        **lacking(identifier, maps),
        f"{coding.name if coding else 'diagnosis'} unknown": identifier[unknown & ~kept].tolist(),
        "a map without a row in the table": joined.stray,
        **other_diagnoses(identifier, diagnosis[complete & label.isna()].dropna()),
    }
    rows = table.loc[subjects.index]
    notes = [
        *joined.notes,
        f"Table {path}, joined by {id_column}.",
        f"Label: {coding.name}, {counted(diagnosis[kept & (label == 1)])} autism, "
        f"{counted(diagnosis[kept & (label == 0)])} control."
        if coding
        else "Label: no column is used.",
        *([f"{(kept & unknown).sum()} subjects of unknown diagnosis are kept."] if (kept & unknown).any() else []),
        *site_notes(rows, site_column),
    ]
    label_column = coding.name if coding else None
    of_subject = maps.loc[subjects.index].reset_index(drop=True)
    return Source(path, label_column, site_column, subjects.reset_index(drop=True), of_subject, rows, left_out, notes)


def lacking(identifier: pd.Series, maps: pd.DataFrame) -> dict[str, list[str]]:
    """For each of several maps, who lacks it but has another one."""
    some = maps.notna().any(axis=1)
    found = {f"no map {name}": identifier[some & maps[name].isna()].tolist() for name in maps}
    return {reason: subjects for reason, subjects in found.items() if subjects}


def other_diagnoses(identifier: pd.Series, diagnosis: pd.Series) -> dict[str, list[str]]:
    """For each value that is neither autism nor control, whose it is."""
    return {
        f"{diagnosis.name} is {value}": identifier[diagnosis.index[diagnosis == value]].tolist()
        for value in sorted(diagnosis.unique())
    }


def counted(values: pd.Series) -> str:
    """Each value with its count: `1 (20 subjects)`."""
    return ", ".join(f"{value} ({count} subjects)" for value, count in sorted(Counter(values).items())) or "nobody"


def site_notes(rows: pd.DataFrame, site_column: str | None) -> list[str]:
    """Which column is the site, and which others look like one."""
    used = f"Site: {site_column}, {rows[site_column].nunique()} sites." if site_column else "Site: no column is used."
    alike = [
        name
        for name in rows.columns
        if name != site_column and looks_like_site(name) and 1 < clean(rows[name]).nunique() < max(len(rows), 3)
    ]
    advice = f" {', '.join(alike)} looks like a site; if it is one, name it with --siteColumn." if alike else ""
    return [used + advice]


def looks_like_site(name: str) -> bool:
    words = re.split(r"[^A-Za-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))  # scannerModel, SCAN_CENTRE
    return any(SITE_WORDS.fullmatch(word) for word in words)


def check_own(maps: pd.DataFrame, identifier: pd.Series, name: str, path: Path) -> None:
    """Raises InputError if two subjects have one map, as where a column of labels or sites is taken for IDs, or one
    subject has one file for two maps."""
    every = maps.melt(ignore_index=False)["value"]
    if (twice := every[every.duplicated(keep=False)]).size:
        owners = identifier[twice.index[twice == twice.iloc[0]][:2]]
        both = " and ".join(owners if owners.nunique() > 1 else [f"{owners.iloc[0]} for two maps"])
        raise InputError(
            f"The column {name} of {path} gives the map {Path(twice.iloc[0]).name} to {both}; expected a map of each "
            "subject's own. Correct it, or name the right column with --idColumn or --mapColumn."
        )


def check_identifiers(identifier: pd.Series, path: Path) -> None:
    """Raises InputError unless the IDs are unique, capitals aside, and can be file names."""
    if (twice := identifier[identifier.str.casefold().duplicated()]).size:
        raise InputError(f"{path} names subject {twice.iloc[0]} twice; expected one row a subject.")
    if (odd := identifier[~identifier.str.fullmatch(r"\w[\w.-]*")]).size:
        raise InputError(f"{path} has the subject {odd.iloc[0]!r}; expected letters, digits, '.', '_' and '-'.")


def canonical(column: pd.Series) -> pd.Series:
    """A column's values with one text for each number (`1` for `1.0`), NaN where missing."""
    text = clean(column)
    return text.map(canonical_value, na_action="ignore")


def canonical_value(text: str) -> str:
    text = text.strip()
    number = pd.to_numeric(text, errors="coerce")
    return str(int(number)) if number == number and abs(number) < 1e15 and number == int(number) else text


def named_values(text: str, known: set[str]) -> list[str]:
    """The values that `1,2` or `1` names; a value that holds a comma itself is taken whole."""
    return (
        [canonical_value(text)]
        if canonical_value(text) in known
        else [canonical_value(part) for part in text.split(",")]
    )


def labels(values: pd.Series, coding: Coding, table: Path, optional: bool = False) -> pd.Series:
    """1.0 where a column (see `canonical`) says autism, 0.0 where it says control, NaN elsewhere.

    Raises InputError unless every value that is named occurs, and one value is left for control if none is named.
    Where labels are `optional`, values may be absent if those of both sides are named, no value need be left for
    control, and none need be known.
    """
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
    label = values.map(dict.fromkeys(positive, 1.0) | dict.fromkeys(negative, 0.0))
    return label.astype(float)
