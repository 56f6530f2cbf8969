"""A folder -> its maps, preprocessed scans or series of parcels by person, recognised by the names of files.

ROWS says how each pipeline names them: BIDS derivatives of fMRIPrep, XCP-D and C-PAC, the Preprocessed Connectomes
Project as `nilearn.datasets.fetch_abide_pcp` stores it, and DPABI. A column of a table may name other files instead.
"""

import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from glob import escape
from itertools import chain
from pathlib import Path, PurePosixPath

import pandas as pd

from data.base.errors import InputError, compose_accents
from data.base.files import LEDGER
from data.base.terminal import SummaryRow, format_participants
from data.cohorts.derivation import DERIVED_TABLE_FILE as DERIVED
from data.cohorts.rows import MAX_LISTED_NAMES, join_names
from data.conversion.tables import key, read_table


@dataclass(frozen=True)
class Product:
    """What files may hold, and in which `traits` they may differ."""

    name: str
    column: str = ""  # the option that names such files in a table
    alike: tuple[str, ...] = ("pipeline", "folder", "name")  # what files of all people must share
    averaged: tuple[str, ...] = ()  # over files of a person that differ in these; without any, one is expected


MAPS, SERIES = Product("maps", "--mapColumn"), Product("series")
SCANS = Product("scans", "--boldColumn", ("pipeline", "space"), ("ses", "run", "folder", "name"))


@dataclass(frozen=True)
class Row:
    """How a pipeline names the files of a product."""

    product: Product
    pipeline: str
    pattern: str  # of names, the ID as the first group; {fields} are `spellings` of what a map or series is called
    example: str
    cleaned: bool | None = None  # whether confounds were regressed out of scans already, if that is known
    space: str = "MNI152"  # of files whose names do not say theirs; "": they must


NII, PERSON = r"\.nii(?:\.gz)?", "sub-([A-Za-z0-9]+)_"
SCAN = PERSON + "(?:[A-Za-z0-9]+-[^_]+_)*desc-{}_bold" + NII
SEGMENTED = rf"(?i:{PERSON}(?:.*_)?(?:seg|atlas)-{{atlas}}_(?:.*_)?timeseries\.(?:tsv|1D))"
UNNAMED = f"sub-(.+)_desc-(?:preproc|denoised|cleaned)_bold{NII}"
NAMELESS = Row(
    SCANS, "whose names do not say whose they are, as sub-<letters and digits>_* do", UNNAMED, ""
)  # as sub-A_1_* or sub-A.1_*
OLD = Row(SCANS, "of fMRIPrep 1.0 or 1.1, which is not read", f"{PERSON}(?:[^_]+_)*bold_(?:[^_]+_)*preproc{NII}", "")
UNREAD = (NAMELESS, OLD)
ROWS = (  # of maps, those of the first pipeline that has any are taken
    Row(MAPS, "BIDS", f"(?i:{PERSON}(?:.*_)?{{bids}}{NII})", "sub-*_{name}.nii.gz"),
    Row(MAPS, "PCP", f"(.+)_{{name}}{NII}", "*_{name}.nii.gz"),
    Row(MAPS, "DPABI", f"(?i:[a-eg-z]*{{dpabi}}Map_(.+?){NII})", "{dpabi}Map_*.nii"),  # m, s, z: scaled, smoothed
    Row(SCANS, "BIDS (fMRIPrep, C-PAC)", SCAN.format("preproc"), "sub-*_desc-preproc_bold.nii.gz", False, ""),
    Row(SCANS, "XCP-D", SCAN.format("denoised"), "sub-*_desc-denoised_bold.nii.gz", True, ""),
    Row(SCANS, "C-PAC", SCAN.format("cleaned"), "sub-*_desc-cleaned_bold.nii.gz", True, ""),
    Row(SCANS, "PCP", f"(?:.+_)?([A-Za-z0-9]+)_func_preproc{NII}", "*_func_preproc.nii.gz", True),
    *UNREAD,
    Row(SERIES, "BIDS", SEGMENTED, "sub-*_seg-<atlas>_*timeseries.tsv (--connectome seg-<atlas>)"),
    Row(SERIES, "PCP", r"(.+)_(?=rois_){name}\.1D", "*_rois_cc200.1D (--connectome rois_cc200)"),
)
DPABI_MAPS = {
    "falff": "fALFF",
    "degree_weighted": "DegreeCentrality_[A-Za-z]*Weighted[A-Za-z]*",
    "degree_binarize": "DegreeCentrality_[A-Za-z]*Binarized[A-Za-z]*",
}
CPAC_MAPS = {
    "degree_weighted": "desc-[^_]*weighted[^_]*_degree-centrality",
    "degree_binarize": "desc-[^_]*binarized[^_]*_degree-centrality",
    "eigenvector_weighted": "desc-[^_]*weighted[^_]*_eigen-centrality",
    "eigenvector_binarize": "desc-[^_]*binarized[^_]*_eigen-centrality",
    "dual_regression": "desc-[^_]*DualReg[^_]*_[^_]+",
}
KNOWN_MAPS = ("falff", "alff", "reho", *CPAC_MAPS, "lfcd", "vmhc")  # that --maps all looks for
PIPELINES = re.compile(  # folders of the PCP and of DPABI that say how a map was made; others may be sites
    r"c-?pac|dparsfa?|dpabi|niak|ccs|fmriprep|xcp_?d|(no)?filt_(no)?global|S\d_.*"
    r"|m?z?s?(f?ALFF|ReHo|DegreeCentrality)_.*|(ses|run|task)-.*",
    re.IGNORECASE,
)
SESSION = re.compile(r"[_-](ses|session|run|visit|wave|tp|timepoint|scan)[_-]?\w{1,4}$", re.IGNORECASE)  # ends an ID
MNI_SPACE = re.compile(r"MNI(152.*)?|template")  # C-PAC calls its own, which is MNI152, template
ANY_TABLES = ("*.csv", "*.tsv")
TABLES = ("participants.tsv", "Phenotypic_*.csv", *ANY_TABLES)
OF_PARCELS = re.compile(r"_rois_\w+\.1D$|_(seg|atlas)-.+_timeseries\.(tsv|1D)$")
OURS = (LEDGER, DERIVED)  # tables that this program leaves in folders of maps and results
OF_A_SCAN = re.compile(r"_(timeseries|regressors|motion|outliers|dseg)\.tsv$")  # tables in BIDS that hold no people


@dataclass(frozen=True)
class Found:
    """A file of a product, recognised by its name or named by a table."""

    path: Path
    inside: PurePosixPath  # the same in the folder of all
    row: Row
    label: str  # the subject, as the name has it
    identifier: str = ""  # as `key` has it, with a session or run that ends an ID
    name: str = ""  # a glob of the name without the subject
    entities: dict[str, str] = field(default_factory=dict)  # of its BIDS name, without `sub`

    @property
    def person(self) -> str:
        return key(self.label)

    @property
    def space(self) -> str:
        return self.entities.get("space") or self.row.space

    @property
    def unfit(self) -> str:
        """Why it is left alone, if it does not lie in MNI space, is nobody's, or is too old."""
        if self.row in UNREAD:
            return self.row.pipeline
        in_space = f"in space {self.space}" if self.space else "in no space"
        return "" if MNI_SPACE.fullmatch(self.space) else in_space

    @property
    def traits(self) -> dict[str, str]:
        """What may tell it from other files of this product, but for whose it is."""
        folder = "/".join(part for part in self.inside.parts[:-1] if PIPELINES.fullmatch(part))
        of_row = {"space": self.space, "pipeline": self.row.pipeline}
        return {**self.entities, **of_row, "folder": folder, "name": self.name}

    @property
    def kind(self) -> str:
        """What files of all people must share."""
        return ", ".join(filter(None, map(self.traits.get, self.row.product.alike)))


def patterns_of(product: Product, name: str = "") -> dict[Row, re.Pattern]:
    """Of the files of a product, or of one kind of it."""
    joined = re.escape(name).replace("_", "_?")  # BIDS separates other parts of a name by underscores
    cpac = f"|{CPAC_MAPS[name]}" if name in CPAC_MAPS else ""
    spellings = {
        "name": re.escape(name),
        "bids": f"(?:{joined}|(?:stat|desc)-{joined}(?:_[^_]+)*{cpac})",
        "dpabi": DPABI_MAPS.get(name, joined),
        "atlas": re.escape(name.removeprefix("seg-")),
    }
    return {row: re.compile(row.pattern.format(**spellings)) for row in ROWS if row.product is product}


def entities_of(name: str) -> dict[str, str]:
    """`sub-1_task-rest_bold.nii.gz` -> {"sub": "1", "task": "rest"}."""
    parts = (part.partition("-") for part in name.split(".")[0].split("_") if "-" in part)
    return {key: value for key, _, value in parts}


def recognised(folder: Path, inside: PurePosixPath, patterns: dict[Row, re.Pattern]) -> Found | None:
    """The file at a path in the folder, None if its name is not that of the product."""
    for row, pattern in patterns.items():
        if match := pattern.fullmatch(inside.name):
            label = SESSION.sub("", match[1]) or match[1]
            before, after = inside.name[: match.start(1)], inside.name[match.start(1) + len(label) :]
            name = f"{escape(before)}*{escape(after).removesuffix('.gz')}*"
            entities = {part: of for part, of in entities_of(inside.name).items() if part != "sub"}
            return Found(folder / inside, inside, row, label, key(match[1]), name, entities)
    return None


@dataclass(frozen=True)
class Listing:
    """The files below a folder, which is walked once."""

    folder: Path

    @cached_property
    def files(self) -> list[Path]:
        """Sorted, through links to folders too, but for those that lead back up; without hidden ones, which macOS
        leaves beside others."""
        found = []
        for place, inner, files in os.walk(self.folder, followlinks=True):
            here = Path(place).resolve()
            inner[:] = [name for name in inner if not here.is_relative_to((here / name).resolve())]
            found += [Path(place) / name for name in files if not name.startswith(".")]
        return sorted(found)

    @cached_property
    def inside(self) -> list[PurePosixPath]:
        """The same in the folder."""
        return [PurePosixPath(path.relative_to(self.folder).as_posix()) for path in self.files]

    def found(self, product: Product, name: str = "") -> list[Found]:
        """All files of a product, or of one kind of it, of all pipelines."""
        patterns = patterns_of(product, name)
        return [found for inside in self.inside if (found := recognised(self.folder, inside, patterns))]


def find(
    listing: Listing, product: Product, name: str = "", only: str | None = None, maps: Iterable[str] = ()
) -> tuple[list[Found], dict[str, str], list[SummaryRow]]:
    """The files of a product, or of one kind of it, as `settled`; if an error must advise a glob, it chooses among the
    `maps` of these names, too. Raises InputError if there are none."""
    there = listing.found(product, name)
    if not there:
        raise InputError(nothing(listing, product, name))
    others = (found for other in maps if other != name and (found := listing.found(MAPS, other)))  # for an error only
    return settled(listing.folder, there, only, others)


def nothing(listing: Listing, product: Product, name: str) -> str:
    """That a folder holds no such files, what is expected, and what to do."""
    spelt = {"name": name, "dpabi": DPABI_MAPS.get(name, name)}
    examples = ", ".join(row.example.format(**spelt) for row in ROWS if row.product is product and row.example)
    column = f", or a column of paths: {product.column}" if product.column else ""
    wanted = f"{name} {product.name}".strip()
    told = f"{listing.folder} holds no {wanted} by their names; expected {examples}{column}."
    if product is MAPS:
        told += (
            " Of preprocessed scans, abide-data derive makes maps; files of other formats, such as .img, must be "
            "converted to NIfTI first, and surfaces to volumes."
        )
    maps = [known for known in KNOWN_MAPS if product is MAPS and listing.found(MAPS, known)]
    series = [path.name for path in listing.files if product is SERIES and OF_PARCELS.search(path.name)]
    there = [*maps, *series[:1]]
    return f"{told} It holds {', '.join(there)}." if there else told


def matching(inside: PurePosixPath, only: str | None) -> bool:
    """Whether a path in a folder matches `only`, a glob or one of several as `A,B`; without any all do."""
    path = compose_accents(str(inside))
    return not only or any(fnmatchcase(path, compose_accents(glob)) for glob in {only, *only.split(",")})


def chosen(found: Sequence[Found], only: str | None) -> list[Found]:
    """The files that match one of the globs `A,B` and lie in MNI space; maps of one pipeline. Series have no voxels:
    all are taken if no name matches, or says MNI space."""
    product, wanted = found[0].row.product, [one for one in found if matching(one.inside, only)]
    usable = [one for one in wanted if not one.unfit]
    if product is SERIES:
        return usable or wanted or list(found)
    if product is MAPS and usable:
        first = min((one.row for one in usable), key=ROWS.index)
        return [one for one in usable if one.row is first]
    return usable


def settled(
    folder: Path, found: Sequence[Found], only: str | None, others: Iterable[Sequence[Found]] = ()
) -> tuple[list[Found], dict[str, str], list[SummaryRow]]:
    """The files that are `chosen`; of people of whom it is unclear which to take, why; and facts. Raises InputError if
    there are none, and as `check_clear`, with a glob that chooses among these and `others`."""
    product, files = found[0].row.product, chosen(found, only)
    taken, left = {one.path for one in files}, dict[str, list[PurePosixPath]]()
    for one in found:
        if one.path not in taken and matching(one.inside, only):
            left.setdefault(one.unfit or f"of {one.row.pipeline}", []).append(one.inside)
    counted = ", ".join(f"{len(paths)} {why}, such as {paths[0]}" for why, paths in left.items())
    if not files and not left:
        raise InputError(
            f"--only {only!r} matches none of the {len(found)} {product.name} in {folder}, such as {found[0].inside}."
        )
    if not files and [*left] == [OLD.pipeline]:
        raise InputError(
            f"{folder} has no scans but {counted}; expected those of fMRIPrep 1.2 or newer, whose tables of confounds "
            "nilearn reads. Preprocess them again with a newer fMRIPrep."
        )
    if not files:
        raise InputError(
            f"{folder} has no {product.name} in MNI space: {counted}; expected names with space-MNI152*. Make them "
            f"again in it, or, if they are in it all the same, name them in a column of paths: {product.column}."
        )
    unclear = check_clear(folder, files, chain([found], others))
    where, _, name = next(one.kind for one in files if one.person not in unclear).rpartition(", ")
    people = len(by_person(files))
    several = f" of {format_participants(people)}" if people < len(files) else ""
    facts = [("layout", f"{where}: {len(files)} {product.name}{several} ({name})")]
    facts += [("layout", f"left alone: {counted}; choose with --only")] * bool(left)
    return files, unclear, facts


def check_clear(folder: Path, files: Sequence[Found], groups: Iterable[Sequence[Found]]) -> dict[str, str]:
    """Of people of whom it is unclear which files to take, why. Raises InputError, with a glob that chooses in all
    `groups`, if these are half of all people, since then nobody knows what is usual, or any people where nothing is
    averaged; or if the files of the others differ in kind."""
    people, averaged = by_person(files), files[0].row.product.averaged
    alike = dict[str, list[list[Found]]]()  # the files of people of whom it is unclear, by how they differ
    for of_person in people.values():
        if ambiguous(of_person):
            alike.setdefault(str(differing(of_person)), []).append(of_person)
    told = (several(some[0], [list(chain(*some))] if averaged else groups) for some in alike.values())
    labels = [of_person[0].label for some in alike.values() for of_person in some]
    if labels and (not averaged or 2 * len(labels) >= len(people)):
        raise InputError(f"{folder} has, for {join_names(labels)} of {format_participants(len(people))}, {next(told)}")
    unclear = {of[0].person: why for some, why in zip(alike.values(), told, strict=True) for of in some}
    kinds = {of[0].kind: of[0] for person, of in people.items() if person not in unclear}
    if len(kinds) > 1:
        raise InputError(f"{folder} has, each for other participants, {several(list(kinds.values()), groups)}")
    return unclear


def by_person(files: Iterable[Found]) -> dict[str, list[Found]]:
    people = dict[str, list[Found]]()
    for one in files:
        people.setdefault(one.person, []).append(one)
    return people


def differing(files: Sequence[Found]) -> dict[str, list[str]]:
    """The traits in which files differ, but for those that are averaged over, and their values."""
    every = [one.traits for one in files]
    parts = dict.fromkeys(part for of in every for part in of if part not in files[0].row.product.averaged)
    values = {part: list(dict.fromkeys(of.get(part) or "none" for of in every)) for part in parts}
    found = {part: of for part, of in values.items() if len(of) > 1}
    return {part: of for part, of in found.items() if part != "name"} or found


def ambiguous(files: Sequence[Found]) -> bool:
    """Whether it is unclear which of a person's files to take: they differ, or two names have the same parts."""
    return bool(differing(files)) or len({str(one.entities) for one in files}) < len(files)


def several(rivals: Sequence[Found], groups: Iterable[Sequence[Found]]) -> str:
    """That one of several files must be chosen. The shortest glob that leaves most people what is clear in all groups
    is advised. One that leaves less than its share of them loses people, as where one ID is spelt in two ways."""
    product, groups = rivals[0].row.product, list(groups)
    names = [dict.fromkeys(f"*{one.name}" for one in group) for group in groups]
    each = [max(globs, key=lambda glob: useful(glob, [group])) for globs, group in zip(names, groups, strict=True)]
    every = {",".join(each), *(glob for one in rivals for glob in globs_of(one))}
    best = max(sorted(every, key=lambda glob: (len(glob), glob)), key=lambda glob: useful(glob, groups))
    number, people = useful(best, groups), min(len(by_person(chosen(group, None))) for group in groups)
    advice = "Remove or rename one"
    if number and number * len(rivals) >= people:
        advice = f"Choose, such as with --only {shlex.quote(best)} ({format_participants(number)})"
    apart = ", ".join(f"{part} ({join_names(values, 3)})" for part, values in differing(rivals).items())
    such = f"that differ in {apart}" if apart else f"alike in name, {rivals[0].inside} and {rivals[1].inside}"
    runs = ", but for runs and sessions" if product.averaged else ""
    column = f", or name each in a column: {product.column}" if product.column else ""
    return f"several {product.name} {such}; expected one a participant{runs}. {advice}{column}."


def useful(only: str, groups: Iterable[Sequence[Found]]) -> int:
    """For how many people globs leave what is clear, of one kind, in all groups; 0 if they do not in one of them."""
    counts = []
    for group in groups:
        files = chosen(group, only)
        people = by_person(files)
        clear = len({one.kind for one in files}) == 1 and not any(map(ambiguous, people.values()))
        counts.append(len(people) if clear else 0)
    return min(counts)


def globs_of(found: Found) -> Iterator[str]:
    """Globs that match a file and others like it: by a folder, by a part of its name, by all of its name or path."""
    folders, name = list(map(escape, found.inside.parts[:-1])), found.name
    yield from (f"{folder}/*" for folder in folders[:1])
    yield from (f"*/{folder}/*" for folder in folders)
    yield from (f"*_{escape(part)}[_.]*" for part in found.inside.name.split(".")[0].split("_")[1:])
    yield "*.nii.gz" if found.path.suffix == ".gz" else "*.nii"
    whole = escape(str(found.inside)).replace(escape(found.label), "*").removesuffix(".gz") + "*"
    yield from (name, f"*/{name}", f"*{name}", whole, "/".join([*folders, name]))


def find_table(folder: Path, files: Iterable[Path], fits: Callable[[pd.DataFrame], bool]) -> Path:
    """The only table beside files or above them, see `table_near`. Raises InputError if there is none, or several."""
    if found := table_near(folder, files, fits=fits):
        return found
    raise InputError(
        f"{folder} has no table of participants; expected a CSV or TSV in it, or above it with their IDs or paths. "
        "Name it with --table."
    )


def table_near(
    folder: Path,
    files: Iterable[Path],
    patterns: Sequence[str] = TABLES,
    fits: Callable[[pd.DataFrame], bool] = lambda table: True,
) -> Path | None:
    """The only table of the first pattern of which there is any, beside files or else up to two folders above; None
    without one. What lies above and is not called as tables of participants are must be one that `fits`: much else may
    lie there. Raises InputError if there are several."""
    inside = {parent for path in files for parent in path.parents if parent.is_relative_to(folder)}
    beside, above = sorted(inside | {folder}), list(folder.resolve().parents)[:2]
    for places in (beside, above):
        for pattern in patterns:
            there = sorted(path for place in places for path in place.glob(pattern))
            tables = [path for path in there if path.name not in OURS and not OF_A_SCAN.search(path.name)]
            if places is above and pattern in ANY_TABLES and len(tables) <= MAX_LISTED_NAMES:
                tables = [path for path in tables if is_fit(path, fits)]
            if len(tables) > 1:
                raise InputError(
                    f"{folder} has several tables ({join_names(list(map(str, tables)))}); name one with --table."
                )
            if tables:
                return tables[0]
    return None


def is_fit(path: Path, fits: Callable[[pd.DataFrame], bool]) -> bool:
    """Whether a file is a table that fits; what cannot be read does not."""
    try:
        return fits(read_table(path))
    except InputError:
        return False
