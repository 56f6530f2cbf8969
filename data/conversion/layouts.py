"""A folder -> its maps of one name by subject, and the table beside them, recognised by the files' names.

Layouts: BIDS derivatives (`sub-*/..._falff.nii.gz`, `..._stat-falff_*.nii.gz`, `..._desc-falff_*.nii.gz`, with
`participants.tsv`), the Preprocessed Connectomes Project as `nilearn.datasets.fetch_abide_pcp` stores it
(`<FILE_ID>_falff.nii.gz` with `Phenotypic_*.csv`), and DPABI (`fALFFMap_<ID>.nii`). In all layouts, maps have the names
that the PCP gives them.
"""

import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from glob import escape
from pathlib import Path, PurePosixPath

from data.base.errors import InputError, check_plain
from data.base.files import LEDGER
from data.cohorts.rows import listed
from data.conversion.tables import key

DPABI_MAPS = {  # pattern and example; prefixes m, s and z in any order: divided by the mean, smoothed, z-scored
    "falff": ("[a-z]*fALFFMap", "fALFFMap"),
    "alff": ("[a-eg-z]*ALFFMap", "ALFFMap"),
    "reho": ("[a-z]*ReHoMap", "ReHoMap"),
    "degree_weighted": (
        "[a-z]*DegreeCentrality_[A-Za-z]*Weighted[A-Za-z]*Map", "DegreeCentrality_PositiveWeightedSumBrainMap"
    ),
    "degree_binarize": (
        "[a-z]*DegreeCentrality_[A-Za-z]*Binarized[A-Za-z]*Map", "DegreeCentrality_PositiveBinarizedSumBrainMap"
    ),
}  # fmt: skip
BIDS_MAPS = {  # patterns of C-PAC
    **{
        f"{kind}_{weight}": f"desc-[^_]*{word}[^_]*_{short}-centrality"
        for kind, short in (("degree", "degree"), ("eigenvector", "eigen"))
        for weight, word in (("weighted", "weighted"), ("binarize", "binarized"))
    },
    "dual_regression": "desc-[^_]*DualReg[^_]*_[^_]+",
}
KNOWN_MAPS = ("falff", "alff", "reho", *BIDS_MAPS, "lfcd", "vmhc")  # that --maps all looks for
Layout = Callable[
    [str], tuple[str, str]
]  # a map's name -> the pattern of its files, the ID as the first group; example
LAYOUTS: dict[str, Layout] = {  # of a folder with files of several, the first one is taken
    "BIDS": lambda name: (
        r"(?i:sub-([A-Za-z0-9]+)_(?:.*_)?(?:{0}|(?:stat|desc)-{0}(?:_[^_]+)*{1})\.nii(?:\.gz)?)".format(
            separated(name), f"|{BIDS_MAPS[name]}" if name in BIDS_MAPS else ""
        ),
        f"sub-*_{name}.nii.gz",
    ),
    "PCP": lambda name: (rf"(.+)_{re.escape(name)}\.nii(?:\.gz)?", f"*_{name}.nii.gz"),
    "DPABI": lambda name: (rf"{dpabi(name)[0]}_(.+?)\.nii(?:\.gz)?", f"{dpabi(name)[1]}_*.nii"),
}
PIPELINES = re.compile(  # folders of the PCP and of DPABI that say how a map was made; others may be sites
    r"c-?pac|dparsfa?|dpabi|niak|ccs|fmriprep|xcp_?d|(no)?filt_(no)?global|S\d_.*"
    r"|m?z?s?(f?ALFF|ReHo|DegreeCentrality)_.*|(ses|run|task)-.*",
    re.IGNORECASE,
)
SESSION = re.compile(r"[_-](ses|session|run|visit|wave|tp|timepoint|scan)[_-]?\w{1,4}$", re.IGNORECASE)  # ends an ID
SPACE = re.compile(r"_space-([A-Za-z0-9]+)_")
MNI_SPACE = re.compile(r"MNI(152.*)?|template")  # C-PAC calls its own, which is MNI152, template
SURFACE = re.compile(r"\.(dtseries\.nii|func\.gii)$")
SCAN = re.compile(rf"(_bold|_func_preproc)(\.nii|\.nii\.gz|{SURFACE.pattern})$")  # of which maps are made
OTHER_FORMATS = (".img", ".hdr", ".gii", ".mnc", ".mgh", ".mgz", ".head", ".brik", ".brik.gz", ".par", ".rec")
TABLES = ("participants.tsv", "Phenotypic_*.csv", "*.csv", "*.tsv")
OF_A_SCAN = re.compile(r"_(timeseries|regressors|motion|outliers|dseg)\.tsv$")  # tables in BIDS that hold no people
MIN_CHOSEN = 0.5  # of the people whose maps a glob must choose to be advised


def dpabi(name: str) -> tuple[str, str]:
    """The pattern and an example of how DPABI begins the files of a map."""
    return DPABI_MAPS.get(name, (f"[a-z]*(?i:{separated(name)})Map", f"{name}Map"))


def separated(name: str) -> str:
    """The pattern of a map's name where underscores may be left out, since they separate other parts of a file's."""
    return re.escape(name).replace("_", "_?")


@dataclass(frozen=True)
class MapFile:
    """A map, recognised by its name."""

    path: PurePosixPath  # relative to the folder
    layout: str
    identifier: str
    subject: str  # the identifier without a session or run
    kind: str  # the name without the subject
    whole: str  # a glob of the path without the subject

    @property
    def name(self) -> str:
        """A glob of the name without the subject."""
        return self.kind.split("/")[-1]


def recognised(path: PurePosixPath, by_layout: dict[str, re.Pattern]) -> MapFile | None:
    """The map at a path in the folder, None if its name is not that of a map."""
    for layout, pattern in by_layout.items():
        if match := pattern.fullmatch(path.name):
            subject = SESSION.sub("", match[1]) or match[1]
            start, end = match.start(1), match.start(1) + len(subject)
            name = f"{escape(path.name[:start])}*{escape(path.name[end:]).removesuffix('.gz')}*"
            pipeline = [part for part in path.parts[:-1] if PIPELINES.fullmatch(part)]
            whole = escape(str(path)).replace(escape(subject), "*").removesuffix(".gz") + "*"
            return MapFile(path, layout, key(match[1]), key(subject), "/".join([*pipeline, name]), whole)
    return None


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, sorted, through links to folders too, but for those that lead back up."""
    found = []
    for place, inner, files in os.walk(folder, followlinks=True):
        here = Path(place).resolve()
        inner[:] = [name for name in inner if not here.is_relative_to((here / name).resolve())]
        found += [Path(place) / name for name in files]
    return sorted(found)


@dataclass(frozen=True)
class Listing:
    """The files below a folder, which is walked once."""

    folder: Path

    @cached_property
    def files(self) -> list[Path]:
        return files_below(self.folder)

    @cached_property
    def images(self) -> list[PurePosixPath]:
        """Of the files, relative to the folder, those that are NIfTI by their names. Raises InputError for a name that
        is not plain text."""
        # Broken links too, which are reported as such; macOS leaves hidden files beside others
        paths = [path for path in self.files if ".nii" in path.name and not path.name.startswith(".")]
        relative = [PurePosixPath(path.relative_to(self.folder).as_posix()) for path in paths]
        for path in relative:
            check_plain(str(path), f"{self.folder} has the file")
        return relative

    def maps_called(self, name: str) -> list[MapFile]:
        """All maps of one name, in all layouts."""
        by_layout = {layout: re.compile(of_map(name)[0]) for layout, of_map in LAYOUTS.items()}
        return [found for path in self.images if (found := recognised(path, by_layout))]


def matching(path: PurePosixPath, only: str | None) -> bool:
    """Whether a path in a folder matches `only`, a glob or one of several as `A,B`; without any all do."""
    return not only or any(fnmatchcase(str(path), glob) for glob in {only, *only.split(",")})


def chosen_of(files: list[MapFile], only: str | None) -> tuple[list[MapFile], list[MapFile]]:
    """The maps that match one of the globs `A,B`, of the first layout that any of them has, and those of others."""
    chosen = [found for found in files if matching(found.path, only)]
    first = next((layout for layout in LAYOUTS if any(found.layout == layout for found in chosen)), None)
    return [found for found in chosen if found.layout == first], [found for found in chosen if found.layout != first]


def find_maps(
    listing: Listing, only: str | None = None, name: str = "falff", names: Sequence[str] = ()
) -> tuple[dict[str, Path], list[str]]:
    """The maps of one name by ID (see `key`), and notes on them; `only` is a glob of paths in the folder, or several as
    `A,B`, and chooses among the maps of all `names`. Raises InputError if there are none, two for one subject, or
    several kinds of them."""
    folder, files = listing.folder, listing.maps_called(name)
    if not files:
        raise InputError(f"{folder} holds no {'fALFF' if name == 'falff' else name} maps{instead(listing, name)}")
    spaces = {found: space[1] for found in files if (space := SPACE.search(found.path.name))}
    away = {found: space for found, space in spaces.items() if not MNI_SPACE.fullmatch(space)}
    counted = ", ".join(f"{count} in space {space}" for space, count in Counter(away.values()).items())
    if len(away) == len(files):
        raise InputError(
            f"{folder} has no map {name} in MNI space: {counted}, such as {files[0].path}; expected names with "
            "space-MNI152*, or without a space. Make them again in that space, or, if they are in MNI space all the "
            "same, name them in a column of paths: --mapColumn."
        )
    files = [found for found in files if found not in away]
    maps, rest = chosen_of(files, only)
    if not maps:
        raise InputError(f"--only {only!r} matches none of the {len(files)} maps in {folder}, such as {files[0].path}.")
    others = [other for other in names if other != name]
    check_kinds(folder, maps, lambda: [files, *filter(None, map(listing.maps_called, others))])
    notes = [f"Layout: {maps[0].layout}, {len(maps)} maps {maps[0].kind}."]
    if counted:
        notes.append(f"Left alone: {counted}.")
    if rest:
        notes.append(f"Left alone: {len(rest)} files named otherwise, such as {rest[0].path}; choose with --only.")
    return {found.identifier: folder / found.path for found in maps}, notes


def instead(listing: Listing, name: str) -> str:
    """What a folder without maps of this name holds instead, and what is expected."""
    other = next((path for path in listing.files if path.name.lower().endswith(OTHER_FORMATS)), None)
    but = f" as NIfTI (.nii, .nii.gz) but {other.name}, which must be converted to NIfTI first" if other else ""
    if scans := [path.name for path in listing.files if SCAN.search(path.name)]:
        volumes = [name for name in scans if not SURFACE.search(name)]
        first = "" if volumes else "preprocess them to volumes in MNI space and "
        make = f"{first}make maps of these first: abide-data derive {listing.folder} MAPS"
        but = f" but scans, such as {(volumes or scans)[0]}; {make}"
    expected = ", ".join(f"{layout} ({of_map(name)[1]})" for layout, of_map in LAYOUTS.items())
    there = [known for known in KNOWN_MAPS if known != name and listing.maps_called(known)]
    choose = f"choose with --maps {','.join(there)}; --like needs all of its maps"
    named = f" It holds {', '.join(there)}: {choose}." if there else ""
    return f"{but}; expected {expected}, or --mapColumn with a column of paths.{named}"


def check_kinds(
    folder: Path, maps: list[MapFile], groups: Callable[[], list[list[MapFile]]], what: str = "maps"
) -> None:
    """Raises InputError if a subject has two of these maps, or they are of several kinds; `what` they are. The error
    has globs that choose among the maps of all `groups`, each of one name."""
    of_subject: dict[str, list[MapFile]] = {}
    for found in maps:
        of_subject.setdefault(found.subject, []).append(found)
    if several := {subject: of for subject, of in of_subject.items() if len(of) > 1}:
        first, second, *_ = rivals = next(iter(several.values()))
        such = "such as " if len(several) > 1 else ""
        raise InputError(
            f"{folder} has two {what} for {listed([*several])}: {such}{first.path} and {second.path}; expected one a "
            f"subject. {choice(rivals, groups(), what, MIN_CHOSEN)}"
        )
    kinds = Counter(found.kind for found in maps)
    if len(kinds) > 1:
        named = listed([f"{kind} ({count} subjects)" for kind, count in kinds.most_common()])
        examples = [next(found for found in maps if found.kind == kind) for kind in kinds]
        raise InputError(
            f"{folder} has {what} of {len(kinds)} kinds, each for other subjects: {named}; expected one kind. "
            f"{choice(examples, groups(), what)}"
        )


def choice(rivals: list[MapFile], groups: list[list[MapFile]], what: str, share: float = 0) -> str:
    """Advice, with the glob that leaves one map each, in all groups, for most subjects; or one for each group. A glob
    must leave a `share` of the people: none does where one person's ID is spelt in two ways."""
    each = ",".join(most_useful((f"*{found.name}" for found in group), [group]) for group in groups)
    best = most_useful([*(glob for rival in rivals for glob in globs(rival)), each], groups)
    number = useful(best, groups)
    people = min(len({found.subject for found in group}) for group in groups)
    example = (
        f"Choose, such as with --only {shlex.quote(best)} ({number} {what})"
        if number > 0 and number >= share * people
        else "Remove or rename one"
    )
    return f"{example}, or name each in a column of paths: --mapColumn." if what == "maps" else f"{example}."


def most_useful(every: Iterable[str], groups: list[list[MapFile]]) -> str:
    """The first of the globs that are useful for most subjects."""
    return max(dict.fromkeys(every), key=lambda glob: useful(glob, groups))


def useful(only: str, groups: list[list[MapFile]]) -> int:
    """For how many subjects globs leave one map each, of one kind, in all groups; 0 if they do not in one of them."""
    counts = []
    for group in groups:
        chosen, _ = chosen_of(group, only)
        alone = len({found.subject for found in chosen}) == len(chosen) and len({found.kind for found in chosen}) == 1
        counts.append(len(chosen) if alone else 0)
    return min(counts)


def globs(found: MapFile) -> Iterator[str]:
    """Globs that match a map and others like it: by a folder, by a part of its name, by all of its name or path."""
    path, name = found.path, found.name
    folders = path.parts[:-1]
    for number, folder in enumerate(folders):
        yield f"*/{escape(folder)}/*" if number else f"{escape(folder)}/*"
        yield f"*/{escape(folder)}/*"
    yield from (f"*_{escape(part)}[_.]*" for part in path.name.split(".")[0].split("_")[1:])
    yield "*.nii.gz" if path.suffix == ".gz" else "*.nii"
    yield from (name, f"*/{name}", f"*{name}", found.whole, "/".join([*map(escape, folders), name]), escape(str(path)))


def find_table(folder: Path, maps: Iterable[Path]) -> Path:
    """The only table beside the maps or above them. Raises InputError if there is none, or several."""
    tables = tables_near(folder, maps)
    if not tables:
        raise InputError(f"{folder} has no table of subjects; expected a CSV or TSV. Name it with --table.")
    if len(tables) > 1:
        raise InputError(f"{folder} has several tables ({listed(list(map(str, tables)))}); name one with --table.")
    return tables[0]


def tables_near(folder: Path, maps: Iterable[Path] = (), patterns: Sequence[str] = TABLES) -> list[Path]:
    """The tables of the first pattern of which there are any, beside the maps or else up to two folders above."""
    inside = {parent for path in maps for parent in path.parents if parent.is_relative_to(folder)}
    for places in (sorted(inside | {folder}), list(folder.resolve().parents)[:2]):
        for pattern in patterns:
            found = sorted(path for place in places for path in place.glob(pattern))
            if tables := [path for path in found if path.name != LEDGER and not OF_A_SCAN.search(path.name)]:
                return tables
    return []
