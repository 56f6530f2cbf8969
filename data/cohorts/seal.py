"""What is known of a cohort beside its rows: the digests of its records, findings by heading, the verdict of its check.

`digests.csv` holds the digests, `check.json` the verdict. People are known by their volumes' digests, whatever their
names.
"""

import re
import shlex
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from types import MappingProxyType

from data import __version__
from data.base import files, tables
from data.base.errors import InputError
from data.base.tables import printable
from data.base.terminal import progress
from data.cohorts import records
from data.cohorts.records import Digests, Entry
from data.cohorts.rows import DIGESTS, SPLITS, Row, listed

VERDICT = "check.json"  # beside a cohort's records
COLUMNS = ("file", "header_sha256", "volume_sha256", "source_sha256")
CONNECTOME = "connectome_sha256"  # a further column, if the cohort has connectomes
SHA256 = re.compile(r"[0-9a-f]{64}")
THREADS = 2
SHOWN = 3  # problems in a line
SITES_SHOWN = 50


@dataclass
class Findings:
    """What is known of one side of a cohort: `counts` are facts, `problems` invalidate a result, `notes` are for the
    researcher to judge."""

    counts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_parts(self, parts: Mapping[str, "Findings"]) -> None:
        """Adds the findings on parts by their names; what holds for several parts is said once."""
        for kind, texts in vars(self).items():
            names: dict[str, list[str]] = {}
            for name, part in parts.items():
                for text in getattr(part, kind):
                    names.setdefault(text, []).append(name)
            texts += [f"{listed(of)}: {text}" if len(parts) > 1 else text for text, of in names.items()]


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
        return f"{invalidating(number)}." if number else "Nothing here invalidates a result."

    def lines(self, counts: bool = True) -> Iterator[str]:
        """The findings as lines of text, the problems first; without the conclusion."""
        if counts:
            yield self.title
        yield from map("PROBLEM: {}".format, self.every("problems"))
        for heading, part in self.headings.items():
            if found := [*(part.counts if counts else []), *map("note: {}".format, part.notes)]:
                yield heading
                yield from map("  {}".format, found)


@dataclass(frozen=True)
class Verdict:
    """What the full check of a cohort concluded, as `check.json` holds it."""

    cohort_sha256: str
    when: str
    version: str  # of this program
    problems: tuple[str, ...]
    notes: int


@dataclass(frozen=True)
class Seal:
    """What tells whether a cohort is as it was: the digests of its records, in the order of its rows; and the stored
    verdict, if it is of these very files. No digests are known before `stored.sealed` computes them."""

    digests: tuple[Digests, ...] = ()
    computed: bool = False  # whether the digests were, since the cohort has no table of them
    verdict: Verdict | None = None

    def check_line(self, problems: Sequence[str], folder: Path) -> str:
        """What every job says of its cohort: the stored verdict with the `problems` that matter to the run."""
        named = listed(list(map(printable, problems)), SHOWN, "; ")
        found = f"{invalidating(len(problems))}: {named}" if problems else ""
        command = f"python -m data check {shlex.quote(str(folder))}"
        if self.verdict is None:
            return f"{found}. Not checked further: {command}" if found else f"Not checked: {command}"
        version, notes = self.verdict.version, self.verdict.notes
        by = "" if version == __version__ else f" by version {printable(version)}"
        nothing = f"nothing that invalidates a result, {notes} notes"
        return f"Checked on {printable(self.verdict.when)[:10]}{by}: {found or nothing}."


def computed_digests(
    entries: Mapping[str, Entry],
    sources: Mapping[str, str] = MappingProxyType({}),
    connectomes: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Digests]:
    """The digests of all records, by file; `sources` are those of the volumes that they were reduced from,
    `connectomes` those of their people's."""

    def one(name: str) -> Digests:
        return records.digests_of(entries[name].read(), sources.get(name, ""), connectomes.get(name, ""))

    found = {}
    with ThreadPoolExecutor(THREADS) as pool, progress("Computing digests", len(entries)) as shown:
        for name, digests in zip(entries, pool.map(one, entries), strict=True):
            found[name] = digests
            shown.advance()
    return found


def write_digests(folder: Path, digests: Mapping[str, Digests]) -> None:
    """Writes `digests.csv`."""
    columns = (*COLUMNS, CONNECTOME) if any(of_record.connectome for of_record in digests.values()) else COLUMNS
    rows = ([name, *astuple(of_record)][: len(columns)] for name, of_record in digests.items())
    tables.write_rows(folder / DIGESTS, columns, rows)


def read_digests(folder: Path) -> dict[str, Digests] | None:
    """`digests.csv` by file; None if there is none. Raises InputError, naming the line, if it is damaged."""
    path = folder / DIGESTS
    if not path.is_file():
        return None
    found = {}
    for line, row in tables.read_rows(path, COLUMNS).items():
        name, header, volume, source = (row[column] for column in COLUMNS)
        connectome = row.get(CONNECTOME, "")
        if not all(map(SHA256.fullmatch, (header, volume, source or header, connectome or header))):
            raise InputError(f"{path} line {line} is damaged; expected SHA-256 digests. Copy it again.")
        found[name] = Digests(header, volume, source, connectome)
    return found


def read_verdict(folder: Path) -> Verdict | None:
    """The verdict in a cohort's folder; None if there is none, or it is damaged: the cohort can be checked again."""
    try:
        return files.read_json(folder / VERDICT, Verdict) if (folder / VERDICT).is_file() else None
    except InputError:
        return None


def write_verdict(folder: Path, cohort_sha256: str, findings: CohortFindings) -> str | None:
    """Writes the verdict of a full check into the cohort's folder; returns the reason if it cannot be written."""
    problems, when = tuple(findings.every("problems")), time.strftime("%Y-%m-%dT%H:%M:%S%z")
    verdict = Verdict(cohort_sha256, when, __version__, problems, len(findings.every("notes")))
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
    shown = {1.0: "autism", 0.0: "control"} | ({} if all(row.known for row in rows) else {None: "unknown"})
    by_site = [f"{site} {'/'.join(str(count[label]) for label in shown)}" for site, count in sorted(sites.items())]
    of_sites.counts.append(f"{'/'.join(shown.values())} by site: {listed(by_site, SITES_SHOWN)}")
    known = {site: (count[0.0], count[1.0]) for site, count in sorted(sites.items())}
    if single := [site for site, count in known.items() if min(count) == 0 and sum(count) > 1]:
        of_sites.notes.append(f"sites with one class only, where site tells the label: {listed(single)}")
    return findings
