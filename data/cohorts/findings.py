"""What is found of a cohort: counts, problems and notes by heading; the verdict of its check, kept in `check.json`."""

import shlex
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from data import __version__
from data.base import files
from data.base.errors import InputError
from data.base.tables import make_printable
from data.base.terminal import SummaryRow, format_participants
from data.cohorts import records
from data.cohorts.rows import LISTED, SITE_IS_UNKNOWN, SPLITS, Row, known_sites, listed

VERDICT = "check.json"  # beside a cohort's records, without a sum
SHOWN, NOTES = 3, 2  # problems of a command, and notes
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
    files: Findings = field(default_factory=Findings)  # first: what it says is about all
    participants: Findings = field(default_factory=Findings)
    sites: Findings = field(default_factory=Findings)
    maps: Findings = field(default_factory=Findings)
    connectomes: Findings = field(default_factory=Findings)
    phenotype: Findings = field(default_factory=Findings)
    site_unknown: bool = False  # of everybody
    # How many people lack the signal of a region, by map, or of a parcel, by series
    without_signal: dict[str, Counter[str]] = field(default_factory=dict)
    forecast: list[str] = field(default_factory=list)  # sentences on what can be concluded

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

    def counted(self, without: str = "") -> Iterator[SummaryRow]:
        """Facts for `print_facts`: what there is, `without` those of a heading."""
        yield "cohort", self.title
        parts = ((heading, part.counts) for heading, part in self.headings.items() if heading != without)
        yield from ((heading, "; ".join(counts)) for heading, counts in parts if counts)

    def judged(self, path: object) -> Iterator[SummaryRow]:
        """The same of problems, notes and the forecast of the cohort at `path`; the first few, and how many more."""
        for kind, about, most in (("problems", "PROBLEM", SHOWN), ("notes", "note", NOTES)):
            texts = self.every(kind)
            yield from ((about, text) for text in texts[:most])
            if (more := len(texts) - most) > 0:
                yield "", f"and {more} more: {check_command(path)} --html FILE"
        if self.forecast:
            yield "forecast", " ".join(self.forecast)


@dataclass(frozen=True)
class Verdict:
    """What the full check of a cohort concluded, as `check.json` holds it."""

    cohort_sha256: str  # see `Cohort.identity`
    when: str
    version: str  # of this program
    problems: tuple[str, ...]
    notes: int
    about: tuple[str, ...] = ()  # the heading of each problem


def read_verdict(folder: Path, cohort_sha256: str) -> Verdict | None:
    """The verdict in the folder of a cohort; None if there is none, or it is of another one or damaged: the cohort can
    be checked again."""
    try:
        found = files.read_json(folder / VERDICT, Verdict) if (folder / VERDICT).is_file() else None
    except InputError:
        return None
    return found if found and found.cohort_sha256 == cohort_sha256 else None


def write_verdict(folder: Path, cohort_sha256: str, findings: CohortFindings) -> str | None:
    """Writes the verdict of a full check into the cohort's folder; returns the reason if it cannot be written."""
    problems, when = tuple(findings.every("problems")), time.strftime("%Y-%m-%dT%H:%M:%S%z")
    about = tuple(heading for heading, part in findings.headings.items() for _ in part.problems)
    verdict = Verdict(cohort_sha256, when, __version__, problems, len(findings.every("notes")), about)
    try:
        with files.locked(folder / VERDICT, wait=True):
            files.write_json(folder / VERDICT, asdict(verdict))
    except OSError as error:
        return f"{folder / VERDICT}: {error.strerror}"
    return None


def check_line(verdict: Verdict | None, problems: Sequence[str], folder: Path) -> str:
    """What every job says of whether its cohort was checked: when, and the `problems` that matter to the run."""
    named = listed(list(map(make_printable, problems)), SHOWN, "; ")
    found = f"{invalidating(len(problems))}: {named}" if problems else ""
    if verdict is None:
        return f"{found}; not checked further: {check_command(folder)}" if found else f"no: {check_command(folder)}"
    nothing = f"no problem was found in the records themselves, {verdict.notes} notes"
    return f"on {make_printable(verdict.when)[:10]}: {found or nothing}"


def check_command(folder: object) -> str:
    return f"abide-data check {shlex.quote(str(folder))}"


def invalidating(number: int) -> str:
    return f"{number} problem{'s invalidate' if number > 1 else ' invalidates'} results"


def census(title: str, rows: Sequence[Row], fold_of: Mapping[str, str] | None = None) -> CohortFindings:
    """Counts of subjects by split, or by fold where each has one, by label and by site, and what is wrong with them."""
    findings = CohortFindings(title)
    people, of_sites = findings.participants, findings.sites
    subjects = {row.subject: row for row in rows}
    if fold_of:
        sizes = Counter(fold_of.values()).values()
        several = " to ".join(map(str, dict.fromkeys((min(sizes), max(sizes)))))
        people.counts.append(f"{len(sizes)} folds of {several}, each tested by the others")
    else:
        labels_in: dict[str, Counter] = {split: Counter() for split in SPLITS}
        for row in subjects.values():
            labels_in[row.split][row.label if row.known else None] += 1
        if not (trains := bool(labels_in["train"])):
            people.notes.append("no training participants: a model can be tested on this cohort, not trained")
        for split, counts in labels_in.items():
            named = ", ".join(f"{counts[value]} {name}" for value, name in enumerate(records.CLASSES))
            named += f", {counts[None]} unknown" if counts[None] else ""
            people.counts.append(f"{split} {counts.total()} ({named})")
            if split == "test" and not counts:
                people.notes.append("no test participants: a model can be trained on this cohort, not tested")
            elif min(counts[0.0], counts[1.0]) == 0 and (trains or split == "test"):
                lacking = people.problems if trains else people.notes
                lacking.append(f"the {split} split lacks a class ({named})")
    labels_of: dict[str, set[float]] = defaultdict(set)
    for row in rows:
        labels_of[row.subject] |= {row.label} if row.known else set()
    if both := sorted(subject for subject, labels in labels_of.items() if len(labels) > 1):
        people.problems.append(f"both labels for one participant, of {format_participants(len(both))}: {listed(both)}")
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
        of_sites.notes.append(f"site unknown of {format_participants(unknown)}, compared as if of one site")
    shown = {1.0: "autism", 0.0: "control"} | ({} if all(row.known for row in rows) else {None: "unknown"})
    by_site = [f"{site} {'/'.join(str(count[label]) for label in shown)}" for site, count in sorted(sites.items())]
    of_sites.counts.append(f"{'/'.join(shown.values())} by site: {listed(by_site, SITES_SHOWN)}")
    if single := [site for site, count in known.items() if min(count) == 0 and sum(count) > 1]:
        of_sites.notes.append(
            f"sites of several participants with one class only, where site tells the label: {listed(single)}"
        )
    return findings
