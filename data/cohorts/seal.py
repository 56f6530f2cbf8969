"""What is known of a cohort beside its rows: digests of its records, its seal, findings, and the verdict of its check.

`digests.csv` holds the digests, `seal.json` the seal, `check.json` the verdict. People are known by the digests of
their maps and connectomes, whatever their names. What makes a cohort seals it; a check does not.
"""

import hashlib
import json
import re
import shlex
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, compress
from pathlib import Path
from types import MappingProxyType

from data import __version__
from data.base import files, manifest, tables
from data.base.errors import InputError
from data.base.tables import printable
from data.base.terminal import progress
from data.cohorts import records
from data.cohorts.derivation import FOLDER
from data.cohorts.records import UNREDUCED, Digests, Entry, Origin
from data.cohorts.rows import (
    DIGESTS,
    LISTED,
    METADATA,
    SITE_IS_UNKNOWN,
    SPLITS,
    TABLE,
    Metadata,
    Row,
    known_sites,
    listed,
)

SEAL, VERDICT = "seal.json", "check.json"  # beside a cohort's records
COLUMNS = ("file", "header_sha256", "volume_sha256", "source_sha256")
FURTHER = {"connectome": "connectome_sha256", "maps": "map_sha256", "source_maps": "source_map_sha256"}  # if known
SHA256 = re.compile(r"[0-9a-f]{64}")
THREADS = 2
SHOWN = 3  # problems in a line
FEW_PARTS = 2  # maps whose names stand below a person's picture
SITES_SHOWN = 50


@dataclass
class Findings:
    """What is known of one side of a cohort: `counts` are facts, `problems` invalidate a result, `notes` are for the
    researcher to judge. `odd` names the subjects that these two are about, each with what is odd."""

    counts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    odd: list[tuple[str, str]] = field(default_factory=list)

    def mark(self, what: str, subjects: Iterable[str]) -> None:
        self.odd += [(subject, what) for subject in subjects]

    def add_parts(self, parts: Mapping[str, "Findings"]) -> None:
        """Adds the findings on parts by their names; what holds for several parts is said once."""
        for kind, texts in vars(self).items():
            names: dict[str | tuple[str, str], list[str]] = {}
            for name, part in parts.items():
                for text in getattr(part, kind):
                    names.setdefault(text, []).append(name)
            for found, of in names.items():
                prefix, short = (f"{listed(of, most)}: " if len(parts) > 1 else "" for most in (LISTED, FEW_PARTS))
                texts.append(prefix + found if isinstance(found, str) else (found[0], short + found[1]))


@dataclass
class CohortFindings:
    """The findings on a cohort by heading."""

    title: str
    people: Findings = field(default_factory=Findings)
    sites: Findings = field(default_factory=Findings)
    maps: Findings = field(default_factory=Findings)
    connectomes: Findings = field(default_factory=Findings)
    phenotype: Findings = field(default_factory=Findings)
    files: Findings = field(default_factory=Findings)
    site_unknown: bool = False  # of everybody
    # How many people lack the signal of a region, by map, or of a parcel, by series
    without_signal: dict[str, Counter[str]] = field(default_factory=dict)
    forecast: list[str] = field(default_factory=list)  # lines on what can be concluded

    @property
    def headings(self) -> dict[str, Findings]:
        """Those with something to say."""
        parts = vars(self).items()
        return {name: part for name, part in parts if isinstance(part, Findings) and part != Findings()}

    def every(self, kind: str) -> list[str]:
        """All `counts`, `problems` or `notes`."""
        return [text for part in self.headings.values() for text in getattr(part, kind)]

    @property
    def conclusion(self) -> str:
        number = len(self.every("problems"))
        site = f" {SITE_IS_UNKNOWN}." if self.site_unknown else ""
        return (f"{invalidating(number)}." if number else "No problem was found in the records themselves.") + site

    def lines(self, counts: bool = True) -> Iterator[str]:
        """The findings as lines of text, the problems first, the forecast last; without the conclusion."""
        if counts:
            yield self.title
        yield from map("PROBLEM: {}".format, self.every("problems"))
        for heading, part in self.headings.items():
            if (
                told := [heading + ":", "; ".join(part.counts)]
                if counts and part.counts
                else [heading] * bool(part.notes)
            ):
                yield " ".join(told)
                yield from map("  note: {}".format, part.notes)
        yield from self.forecast


@dataclass(frozen=True)
class Verdict:
    """What the full check of a cohort concluded, as `check.json` holds it."""

    cohort_sha256: str  # of its seal
    when: str
    version: str  # of this program
    problems: tuple[str, ...]
    notes: int
    sha256: str = ""  # of all the others

    @property
    def is_intact(self) -> bool:
        """Whether it says what a check wrote."""
        return self.sha256 == sha256_of(asdict(replace(self, sha256="")))


@dataclass(frozen=True)
class SealFile:
    """The content of `seal.json`: SHA-256 of what each part of a cohort says, by its name; of the files of tables as
    they were written, so that they need not be parsed; and over both."""

    format: int
    sha256: str
    parts: dict[str, str]
    files: dict[str, str]


@dataclass(frozen=True)
class Seal:
    """What tells whether a cohort is as it was: the digests of its records, in the order of its rows; the one over all
    that it says; and the stored verdict, if it is of just this. No digests are known before `stored.sealed` computes
    them."""

    digests: tuple[Digests, ...] = ()
    computed: bool = False  # whether the digests were, since the cohort has no table of them
    verdict: Verdict | None = None
    sha256: str = ""  # of `seal.json`, which verifies; empty of records without tables

    def check_line(self, problems: Sequence[str], folder: Path) -> str:
        """What every job says of its cohort: the stored verdict with the `problems` that matter to the run."""
        named = listed(list(map(printable, problems)), SHOWN, "; ")
        found = f"{invalidating(len(problems))}: {named}" if problems else ""
        command = f"abide-data check {shlex.quote(str(folder))}"
        if self.verdict is None:
            return f"{found}. Not checked further: {command}" if found else f"Not checked: {command}"
        nothing = f"no problem was found in the records themselves, {self.verdict.notes} notes"
        return f"Checked on {printable(self.verdict.when)[:10]}: {found or nothing}."


def sha256_of(content: object) -> str:
    """SHA-256 of what can be written as JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def parts_of(metadata: Metadata, rows: Sequence[Row], digests: Sequence[Digests]) -> dict[str, str]:
    """SHA-256 of what metadata, the table of records, and the parts of each person say."""
    people = [[row.file, *vars(of).values()] for row, of in zip(rows, digests, strict=False)]  # none without a table
    contents = {METADATA: metadata.json(), TABLE: [[*vars(row).values()] for row in rows], DIGESTS: people}
    return {name: sha256_of(content) for name, content in contents.items()}


def parts_by_sums(folder: Path) -> dict[str, str]:
    """SHA-256 of the sums of a folder's files, and of the images of its derivation that are there."""
    sums = manifest.read(folder / FOLDER)
    images = {name: value for name, value in sums.items() if (folder / FOLDER / name).is_file()}
    of_images = {FOLDER: sha256_of(images)} if sums else {}
    return {manifest.SUMS: sha256_of(manifest.read(folder)), **of_images}


def write_seal(folder: Path, parts: Mapping[str, str], of_tables: Iterable[Path] = ()) -> None:
    """Writes `seal.json` of these parts and tables, and of the files that have sums."""
    contents = {path.name: tables.content_sha256(path) for path in of_tables}
    every = {**parts, **contents, **parts_by_sums(folder)}
    as_written = dict(zip(contents, manifest.sums_of(map(folder.joinpath, contents)), strict=True))
    files.write_json(folder / SEAL, asdict(SealFile(files.FORMAT, sha256_of([every, as_written]), every, as_written)))


def read_seal(folder: Path) -> SealFile:
    """`seal.json`. Raises InputError for damage, and for another format."""
    path = folder / SEAL
    files.check_format(path, files.read_json(path, dict).get("format"), "convert again")
    return files.read_json(path, SealFile)


def verified_seal(folder: Path, parts: Mapping[str, str], of_tables: Iterable[Path] = ()) -> str:
    """The seal of a folder with these parts and tables. Raises InputError if there is none, and names the files that
    say something else than was sealed."""
    if not (folder / SEAL).is_file():
        named = shlex.quote(str(folder))
        raise InputError(
            f"{folder} has tables and no {SEAL}, which tells whether they are as they were written. Is it of a script? "
            f"Seal a copy, and use that: abide-data pack {named} COPY --bin"
        )
    known = read_seal(folder)
    now = {**parts, **parts_by_sums(folder)}
    for path in of_tables:
        unchanged = manifest.sum_of(path) == known.files.get(path.name)
        now[path.name] = known.parts.get(path.name, "") if unchanged else tables.content_sha256(path)
    different = [name for name in {**known.parts, **now} if known.parts.get(name) != now.get(name)]
    if not different and sha256_of([known.parts, known.files]) != known.sha256:
        different = [SEAL]
    if different:
        raise InputError(
            f"{folder} is not what was sealed: {listed(sorted(different))}. Copy it again, or convert again. Values "
            "are corrected by: abide-data correct."
        )
    return known.sha256


def computed_digests(
    entries: Mapping[str, Entry],
    origins: Mapping[str, Origin] = MappingProxyType({}),
    connectomes: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Digests]:
    """The digests of all records, by file; `origins` are those of the volumes that they were reduced from,
    `connectomes` those of their people's."""

    def one(name: str) -> Digests:
        return records.digests_of(entries[name].read(), origins.get(name, UNREDUCED), connectomes.get(name, ""))

    found = {}
    with ThreadPoolExecutor(THREADS) as pool, progress("Computing digests", len(entries)) as shown:
        for name, digests in zip(entries, pool.map(one, entries), strict=True):
            found[name] = digests
            shown.advance()
    return found


def write_digests(folder: Path, digests: Mapping[str, Digests]) -> None:
    """Writes `digests.csv`; those of several maps stand in one cell, with spaces between them."""
    further = [name for name in FURTHER if any(getattr(of_record, name) for of_record in digests.values())]
    rows = (
        [name, of.header, of.volume, of.source, of.connectome, " ".join(of.maps), " ".join(of.source_maps)]
        for name, of in digests.items()
    )
    kept = [True] * len(COLUMNS) + [name in further for name in FURTHER]
    columns = [*COLUMNS, *(FURTHER[name] for name in further)]
    tables.write_rows(folder / DIGESTS, columns, (compress(row, kept) for row in rows))


def read_digests(folder: Path) -> dict[str, Digests] | None:
    """`digests.csv` by file; None if there is none. Raises InputError, naming the line, if it is damaged."""
    path = folder / DIGESTS
    if not path.is_file():
        return None
    found = {}
    for line, row in tables.read_rows(path, COLUMNS).items():
        name, header, volume, source = (row[column] for column in COLUMNS)
        connectome, *of_maps = (tuple(row.get(column, "").split()) for column in FURTHER.values())
        if not all(map(SHA256.fullmatch, (header, volume, source or header, *chain(connectome, *of_maps)))):
            raise InputError(f"{path} line {line} is damaged; expected SHA-256 digests. Copy it again.")
        found[name] = Digests(header, volume, source, "".join(connectome), *of_maps)
    return found


def read_verdict(folder: Path) -> Verdict | None:
    """The verdict in a cohort's folder; None if there is none, or it is damaged: the cohort can be checked again."""
    try:
        found = files.read_json(folder / VERDICT, Verdict) if (folder / VERDICT).is_file() else None
    except InputError:
        return None
    return found if found and found.is_intact else None


def write_verdict(folder: Path, cohort_sha256: str, findings: CohortFindings) -> str | None:
    """Writes the verdict of a full check into the cohort's folder; returns the reason if it cannot be written."""
    problems, when = tuple(findings.every("problems")), time.strftime("%Y-%m-%dT%H:%M:%S%z")
    verdict = Verdict(cohort_sha256, when, __version__, problems, len(findings.every("notes")))
    verdict = replace(verdict, sha256=sha256_of(asdict(verdict)))
    try:
        with files.locked(folder / VERDICT, wait=True):
            files.write_json(folder / VERDICT, asdict(verdict))
    except OSError as error:
        return f"{folder / VERDICT}: {error.strerror}"
    return None


def invalidating(number: int) -> str:
    return f"{number} problem{'s invalidate' if number > 1 else ' invalidates'} results"


def census(title: str, rows: Sequence[Row], fold_of: Mapping[str, str] | None = None) -> CohortFindings:
    """Counts of subjects by split, or by fold where each has one, by label and by site, and what is wrong with them."""
    findings = CohortFindings(title)
    people, of_sites = findings.people, findings.sites
    subjects = {row.subject: row for row in rows}
    if fold_of:
        sizes = Counter(fold_of.values()).values()
        several = f"{len(sizes)} folds of {min(sizes)} to {max(sizes)} subjects"
        people.counts.append(f"{several}, each tested by the others")
    else:
        labels_in: dict[str, Counter] = {split: Counter() for split in SPLITS}
        for row in subjects.values():
            labels_in[row.split][row.label if row.known else None] += 1
        if not (trains := bool(labels_in["train"])):
            people.notes.append("no training subjects: a model can be tested on this cohort, not trained")
        for split, counts in labels_in.items():
            named = ", ".join(f"{counts[value]} {name}" for value, name in enumerate(records.CLASSES))
            named += f", {counts[None]} unknown" if counts[None] else ""
            people.counts.append(f"{split}: {counts.total()} subjects ({named})")
            if split == "test" and not counts:
                people.notes.append("no test subjects: a model can be trained on this cohort, not tested")
            elif min(counts[0.0], counts[1.0]) == 0 and (trains or split == "test"):
                lacking = people.problems if trains else people.notes
                lacking.append(f"the {split} split lacks a class ({named})")
    labels_of: dict[str, set[float]] = defaultdict(set)
    for row in rows:
        labels_of[row.subject] |= {row.label} if row.known else set()
    if both := sorted(subject for subject, labels in labels_of.items() if len(labels) > 1):
        people.problems.append(f"both labels for one subject, of {len(both)} subjects: {listed(both)}")
    sites: dict[str, Counter] = defaultdict(Counter)
    for row in subjects.values():
        sites[row.site][row.label if row.known else None] += 1
    known = {site: (sites[site][0.0], sites[site][1.0]) for site in known_sites(sites)}
    unknown = sum(count.total() for site, count in sites.items() if site not in known)
    findings.site_unknown = not known
    if not known:
        of_sites.notes.append(f"{SITE_IS_UNKNOWN}: name its column with convert --siteColumn, also if it has one value")
        return findings
    if unknown:
        of_sites.notes.append(f"site unknown of {unknown} subjects, who are compared as if they were of one")
    shown = {1.0: "autism", 0.0: "control"} | ({} if all(row.known for row in rows) else {None: "unknown"})
    by_site = [f"{site} {'/'.join(str(count[label]) for label in shown)}" for site, count in sorted(sites.items())]
    of_sites.counts.append(f"{'/'.join(shown.values())} by site: {listed(by_site, SITES_SHOWN)}")
    if single := [site for site, count in known.items() if min(count) == 0 and sum(count) > 1]:
        of_sites.notes.append(
            f"sites of several people with one class only, where site tells the label: {listed(single)}"
        )
    return findings
