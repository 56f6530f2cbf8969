"""A folder -> preprocessed 4-D scans by person, in MNI space, with the files that describe them.

Layouts: BIDS derivatives of fMRIPrep and others (`sub-*_space-MNI152*_desc-preproc_bold.nii.gz` with mask and
confounds), XCP-D (`desc-denoised_bold`), C-PAC (`desc-cleaned_bold`) and the Preprocessed Connectomes Project
(`<FILE_ID>_func_preproc.nii.gz`). A column of a table may name other files.
"""

import os
import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from glob import escape
from itertools import chain, combinations, groupby
from pathlib import Path, PurePosixPath

from data.base.errors import InputError, shown
from data.cohorts.nifti import beside
from data.cohorts.rows import listed
from data.conversion.layouts import MNI_SPACE, matching

RUNS = ("ses", "run")  # what scans of a person may differ in: their maps are averaged
MAX_FOLDERS = 4096


@dataclass(frozen=True)
class Layout:
    """How a pipeline names its scans."""

    name: str
    pattern: str  # of a file's name without its ending, the person as the first group
    example: str
    cleaned: bool = False  # confounds were regressed out already
    space: str | None = None  # that of scans whose names do not say it


WHOSE = r"sub-([A-Za-z0-9]+)_(?:[A-Za-z0-9]+-[^_]+_)*"  # the beginning of BIDS names
LAYOUTS = (
    Layout("BIDS (fMRIPrep, C-PAC)", WHOSE + "desc-preproc_bold", "sub-*_desc-preproc_bold.nii.gz"),
    Layout("XCP-D", WHOSE + "desc-denoised_bold", "sub-*_desc-denoised_bold.nii.gz", cleaned=True),
    Layout("C-PAC", WHOSE + "desc-cleaned_bold", "sub-*_desc-cleaned_bold.nii.gz", cleaned=True),
    Layout("PCP", r"(?:.+_)?([A-Za-z0-9]+)_func_preproc", "*_func_preproc.nii.gz", cleaned=True, space="MNI152"),
)
NAMELESS = re.compile(r"sub-.+_desc-(?:preproc|denoised|cleaned)_bold")
NAMED = Layout("files that a column names", "", "", space="MNI152")
ENDING = re.compile(r"\.nii(\.gz)?$")


@dataclass(frozen=True)
class ScanFile:
    """A scan, recognised by its name or named by a table."""

    path: Path
    inside: PurePosixPath  # the same in the folder of all
    person: str
    layout: Layout
    entities: dict[str, str] = field(default_factory=dict)  # of its BIDS name, without `sub`

    @property
    def space(self) -> str:
        return self.entities.get("space") or self.layout.space or ""

    @property
    def treated(self) -> str:
        """Whether confounds were regressed out already; empty if that is not known."""
        return "" if self.layout is NAMED else "cleaned" if self.layout.cleaned else "preprocessed"

    @property
    def kind(self) -> dict[str, str]:
        """What scans of one person must share."""
        return {name: of for name, of in self.entities.items() if name not in RUNS} | {"layout": self.layout.name}

    @cached_property
    def mask(self) -> Path | None:
        if self.layout.name == "PCP":
            path = self.path.with_name(self.path.name.replace("_func_preproc", "_func_mask"))
            return path if path.exists() else None
        return self.companion("mask", ("brain", "bold"), ("space", "res"))

    @cached_property
    def confounds(self) -> Path | None:
        return self.companion("timeseries", ("confounds",)) or self.companion("regressors", ("confounds",))

    @cached_property
    def motion(self) -> Path | None:
        """XCP-D's table of head motion."""
        return self.companion("motion", (None, "filtered"))

    @cached_property
    def outliers(self) -> Path | None:
        """XCP-D's table of censored volumes."""
        return self.companion("outliers", (None,))

    @property
    def described_by(self) -> list[Path]:
        """The scan and all files whose content changes what is derived from it."""
        described = beside(self.path, ".json")
        tables = [self.motion, self.outliers] if self.layout.cleaned else [self.confounds]
        return [self.path, *filter(None, [described if described.is_file() else None, self.mask, *tables])]

    def companion(self, suffix: str, desc: Collection[str | None], same: Iterable[str] = ()) -> Path | None:
        """The file beside the scan with most of its entities and no others, but for `desc`; all of `same` are the
        scan's."""
        own, found = entities_of(self.path.name), list[tuple[int, Path]]()
        for path in siblings(self.path.parent).get((own.get("sub", ""), suffix), []):
            entities = entities_of(path.name)
            fits = entities.pop("desc", None) in desc and own.items() >= entities.items()
            if fits and all(entities.get(name) == own.get(name) for name in same):
                found.append((len(entities), path))
        return max(found)[1] if found else None


@dataclass(frozen=True)
class ScannedPerson:
    label: str  # `sub-<label>`
    scans: tuple[ScanFile, ...]  # its runs and sessions

    @cached_property
    def unclear(self) -> str:
        """Why it is not known which scans to take: they differ in more than run and session, or are twice the same.
        Empty if it is known. People whose scans differ alike have the same words."""
        kinds = [scan.kind for scan in self.scans]
        differing = [name for name in dict.fromkeys(chain(*kinds)) if len({kind.get(name) for kind in kinds}) > 1]
        alike = any(one.entities == other.entities for one, other in combinations(self.scans, 2))
        if not (differing or alike):
            return ""
        what = f"that differ in {listed(differing)}" if differing else "whose names have the same parts"
        return f"several scans {what}; expected one, or runs and sessions alike in all else. {choice(*self.scans)}"


def entities_of(name: str) -> dict[str, str]:
    """`sub-1_task-rest_bold.nii.gz` -> {"sub": "1", "task": "rest"}."""
    parts = (part.partition("-") for part in name.split(".")[0].split("_") if "-" in part)
    return {key: value for key, _, value in parts}


@lru_cache(MAX_FOLDERS)
def siblings(folder: Path) -> dict[tuple[str, str], list[Path]]:
    """The images and tables in a folder by person, of those whose BIDS names say one, and suffix, as `mask`."""
    found = dict[tuple[str, str], list[Path]]()
    for path in sorted(folder.iterdir()):
        label = entities_of(path.name).get("sub")
        if label and path.suffix in (".gz", ".nii", ".tsv") and not path.name.startswith("."):
            found.setdefault((label, path.name.split(".")[0].rpartition("_")[2]), []).append(path)
    return found


def recognised(path: Path, inside: PurePosixPath) -> ScanFile | None:
    """The scan at a path, None if its name is not that of one."""
    name = ENDING.sub("", path.name)
    for layout in LAYOUTS:
        if match := re.fullmatch(layout.pattern, name):
            entities = {key: of for key, of in entities_of(name).items() if key != "sub"} if not layout.space else {}
            return ScanFile(path, inside, match[1], layout, entities)
    return None


def nameless(images: Iterable[PurePosixPath]) -> list[str]:
    """A note on scans whose names do not say whose they are, as `sub-A_1_*` or `sub-A.1_*` do not; none without any."""
    scans = [inside.name for inside in images if NAMELESS.fullmatch(ENDING.sub("", inside.name))]
    if not (odd := [name for name in scans if not recognised(Path(name), PurePosixPath(name))]):
        return []
    return [
        f"Left alone: {len(odd)} scans whose names do not say whose they are: {listed(list(map(shown, odd)), 1)}; "
        "expected sub-<letters and digits>_<key>-<value>_... Rename them."
    ]


def found_by_name(folder: Path, images: Iterable[PurePosixPath], only: str | None) -> list[ScanFile]:
    """The scans in a folder that match one of the globs `A,B`. Raises InputError if there are none."""
    images = list(images)
    found = [scan for inside in images if (scan := recognised(folder / inside, inside))]
    if not found:
        if odd := nameless(images):
            raise InputError(f"{folder} holds no other scans. {odd[0]}")
        expected = ", ".join(layout.example for layout in LAYOUTS)
        raise InputError(
            f"{folder} holds no preprocessed scans by their names; expected {expected}, or --boldColumn with a column "
            "of paths."
        )
    return chosen_of(folder, found, only)


def chosen_of(folder: Path, found: list[ScanFile], only: str | None) -> list[ScanFile]:
    """The scans that match one of the globs `A,B`. Raises InputError if there are none."""
    chosen = [scan for scan in found if matching(scan.inside, only)]
    if not chosen:
        raise InputError(f"--only {only!r} matches none of {len(found)} scans in {folder}, such as {found[0].inside}.")
    return chosen


def by_person(folder: Path, scans: list[ScanFile]) -> tuple[list[ScannedPerson], list[str]]:
    """The scans in MNI space of each person, sorted, and notes on them. Raises InputError, with globs that choose, if
    there are none, of many people it is unclear which to take, or they are of several kinds."""
    usable = [scan for scan in scans if MNI_SPACE.fullmatch(scan.space)]
    others = Counter(f"space {scan.space}" if scan.space else "no space" for scan in scans if scan not in usable)
    counted = ", ".join(f"{count} in {space}" for space, count in others.items())
    if not usable:
        raise InputError(
            f"{folder} has no scan in MNI space: {counted}, such as {scans[0].inside}; expected names with "
            "space-MNI152*. Preprocess them again, with fMRIPrep's output space MNI152NLin6Asym:res-2, or, if they are "
            "in MNI space all the same, name them in a column of paths: --boldColumn."
        )
    usable.sort(key=lambda scan: (scan.person, os.path.abspath(scan.path)))
    groups = groupby(usable, key=lambda scan: scan.person)
    people = [ScannedPerson(label, tuple(of_person)) for label, of_person in groups]
    check_kinds(folder, people)
    first = next(person for person in people if not person.unclear).scans[0]
    notes = [f"Layout: {first.layout.name}, {len(usable)} scans of {len(people)} people in space {first.space}."]
    if counted:
        notes.append(f"Left alone: {counted}.")
    if several := [person.label for person in people if len(person.scans) > 1 and not person.unclear]:
        notes.append(
            f"{len(several)} people have several runs or sessions, whose maps are averaged, by the volumes kept: "
            f"{listed(several)}. Choose with --only."
        )
    return people, notes


def check_kinds(folder: Path, people: Sequence[ScannedPerson]) -> None:
    """Raises InputError if it is unclear of half the people which scans to take, since then nobody knows which are
    usual. It does, too, if the scans of the others differ in layout or space."""
    unclear, kinds = dict[str, list[str]](), dict[tuple[str, str], list[ScannedPerson]]()
    for person in people:
        if person.unclear:
            unclear.setdefault(person.unclear, []).append(person.label)
        else:
            kinds.setdefault((person.scans[0].layout.name, person.scans[0].space), []).append(person)
    if 2 * sum(map(len, unclear.values())) >= len(people):
        named = " ".join(f"{len(labels)} people, {listed(labels)}, have {why}" for why, labels in unclear.items())
        raise InputError(f"{folder} does not say which scans to take of {len(people)} people: {named}")
    if len(kinds) > 1:
        counted = (f"{', '.join(kind)}: {listed([one.label for one in of])}" for kind, of in kinds.items())
        raise InputError(
            f"{folder} has scans of several kinds, each of other people ({'; '.join(counted)}); expected one layout "
            f"and space. {choice(*(of[0].scans[0] for of in kinds.values()))}"
        )


def choice(*scans: ScanFile) -> str:
    """Advice with the globs that tell scans apart, by a part of their names or else by their folders."""
    parts = [part for scan in scans for part in scan.entities.items() if part[0] not in RUNS]
    apart = [f"*_{key}-{escape(of)}_*" for key, of in parts if any(scan.entities.get(key) != of for scan in scans)]
    globs = apart or [escape(str(scan.inside)).replace(scan.person, "*") for scan in scans]
    return f"Choose with --only, such as --only {' or --only '.join(map(shlex.quote, dict.fromkeys(globs)))}."
