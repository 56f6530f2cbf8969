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
from data.base.listing import MAX_LISTED_NAMES, join_names
from data.base.tables import make_printable
from data.base.terminal import SummaryRow, format_participants
from data.cohorts.problems import Problem
from data.cohorts.rows import SPLITS, RecordRow
from data.tables import vocabulary
from data.tables.vocabulary import SITE_UNKNOWN_SENTENCE, find_recorded_sites

VERDICT_FILE = "check.json"  # beside a cohort's records, without a sum
MAX_PROBLEMS_IN_LINE = 3
MAX_NOTES_IN_TERMINAL = 2  # how many problems and notes are listed
MAX_MAPS_BELOW_PICTURE = 2  # maps whose names stand below a person's picture
MAX_SITES_LISTED = 50
SPLIT_LACKS_CLASS_TEXT = "the {} split lacks a class ({})"  # split, participants of each class


@dataclass
class Findings:
    """What was found on one aspect of a cohort."""

    counts: list[str] = field(default_factory=list)  # texts of facts
    problems: list[Problem] = field(default_factory=list)  # what invalidates a result
    notes: list[str] = field(default_factory=list)  # texts for the researcher to judge
    outliers: list[tuple[str, str]] = field(default_factory=list)  # (subject, what is odd), of problems and notes

    def mark_outliers(self, reason: str, subjects: Iterable[str]) -> None:
        self.outliers += [(subject, reason) for subject in subjects]

    def add_map_findings(self, findings_by_map: Mapping[str, "Findings"]) -> None:
        """Adds the findings on maps, with their names; what holds for several maps is said once."""
        for finding_kind, cohort_findings in vars(self).items():
            map_names_by_finding: dict[str | Problem | tuple[str, str], list[str]] = {}
            for map_name, map_findings in findings_by_map.items():
                for map_finding in getattr(map_findings, finding_kind):
                    map_names_by_finding.setdefault(map_finding, []).append(map_name)
            for map_finding, map_names in map_names_by_finding.items():
                long_prefix = ""
                short_prefix = ""
                if len(findings_by_map) > 1:
                    long_prefix = f"{join_names(map_names, MAX_LISTED_NAMES)}: "
                    short_prefix = f"{join_names(map_names, MAX_MAPS_BELOW_PICTURE)}: "
                if isinstance(map_finding, str):
                    cohort_findings.append(long_prefix + map_finding)
                elif isinstance(map_finding, Problem):
                    map_code = f"{map_finding.code}, of {', '.join(map_names)}"
                    cohort_findings.append(Problem(map_code, long_prefix + map_finding.text))
                else:
                    subject, outlier_reason = map_finding
                    cohort_findings.append((subject, short_prefix + outlier_reason))


@dataclass
class CohortFindings:
    """The findings on a cohort by heading."""

    title: str  # the cohort in words
    files: Findings = field(default_factory=Findings)  # first: what it says is about all
    participants: Findings = field(default_factory=Findings)
    sites: Findings = field(default_factory=Findings)
    maps: Findings = field(default_factory=Findings)
    connectomes: Findings = field(default_factory=Findings)
    phenotype: Findings = field(default_factory=Findings)
    is_site_unknown: bool = False  # of everybody
    # How many people lack the signal of a region, by map, or of a parcel, by series
    no_signal_counts_by_map: dict[str, Counter[str]] = field(default_factory=dict)
    forecast_sentences: list[str] = field(default_factory=list)  # sentences on what can be concluded

    @property
    def findings_by_heading(self) -> dict[str, Findings]:
        """The findings of each heading, except empty ones."""
        return {
            field_name: field_value
            for field_name, field_value in vars(self).items()
            if isinstance(field_value, Findings) and field_value != Findings()
        }

    @property
    def problems(self) -> list[Problem]:
        """All of them."""
        return [
            problem for heading_findings in self.findings_by_heading.values() for problem in heading_findings.problems
        ]

    @property
    def notes(self) -> list[str]:
        """All of them."""
        return [note for heading_findings in self.findings_by_heading.values() for note in heading_findings.notes]

    @property
    def conclusion(self) -> str:
        problem_count = len(self.problems)
        problem_sentence = "No problem was found in the records themselves."
        if problem_count:
            problem_sentence = f"{format_problem_count(problem_count)}."
        site_sentence = f" {SITE_UNKNOWN_SENTENCE}." if self.is_site_unknown else ""
        return problem_sentence + site_sentence

    def make_count_rows(self, excluded_heading: str = "") -> Iterator[SummaryRow]:
        """Rows for `print_summary`: what the cohort is, and the counts of each heading but `excluded_heading`."""
        yield "cohort", self.title
        for heading, heading_findings in self.findings_by_heading.items():
            if heading != excluded_heading and heading_findings.counts:
                yield heading, "; ".join(heading_findings.counts)

    def make_problem_rows(self, cohort_path: object) -> Iterator[SummaryRow]:
        """Rows for `print_summary`: the first few problems and notes on the cohort at `cohort_path`, how many more
        there are, and the forecast."""
        problem_texts = [problem.text for problem in self.problems]
        for row_name, finding_texts, max_texts in (
            ("PROBLEM", problem_texts, MAX_PROBLEMS_IN_LINE),
            ("note", self.notes, MAX_NOTES_IN_TERMINAL),
        ):
            yield from ((row_name, text) for text in finding_texts[:max_texts])
            remaining_count = len(finding_texts) - max_texts
            if remaining_count > 0:
                yield "", f"and {remaining_count} more: {format_check_command(cohort_path)} --html FILE"
        if self.forecast_sentences:
            yield "forecast", " ".join(self.forecast_sentences)


@dataclass(frozen=True)
class CheckVerdict:
    """What the full check of a cohort concluded, as `check.json` holds it."""

    cohort_sha256: str  # see `Cohort.identity`
    when: str  # time of the check, ISO 8601
    version: str  # of this program
    problems: tuple[Problem, ...]
    notes: int  # how many
    about: tuple[str, ...] = ()  # the heading of each problem


def read_verdict(cohort_folder: Path, cohort_sha256: str) -> CheckVerdict | None:
    """The verdict in the folder of a cohort; None if there is none, or it is of another one or damaged: the cohort can
    be checked again."""
    if not (cohort_folder / VERDICT_FILE).is_file():
        return None
    try:
        verdict = files.read_json(cohort_folder / VERDICT_FILE, CheckVerdict)
    except InputError:
        return None
    return verdict if verdict.cohort_sha256 == cohort_sha256 else None


def write_verdict(cohort_folder: Path, cohort_sha256: str, findings: CohortFindings) -> str | None:
    """Writes the verdict of a full check into the cohort's folder; returns the reason if it cannot be written."""
    check_time = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    problem_headings = tuple(
        heading for heading, heading_findings in findings.findings_by_heading.items() for _ in heading_findings.problems
    )
    verdict = CheckVerdict(
        cohort_sha256, check_time, __version__, tuple(findings.problems), len(findings.notes), problem_headings
    )
    try:
        with files.lock_exclusively(cohort_folder / VERDICT_FILE, wait=True):
            files.write_json(cohort_folder / VERDICT_FILE, asdict(verdict))
    except OSError as error:
        return f"{cohort_folder / VERDICT_FILE}: {error.strerror}"
    return None


def format_check_line(verdict: CheckVerdict | None, problem_texts: Sequence[str], cohort_folder: Path) -> str:
    """What every job says of whether its cohort was checked: when, and the problems that matter to the run."""
    problems_text = ""
    if problem_texts:
        listed_problems_text = join_names(list(map(make_printable, problem_texts)), MAX_PROBLEMS_IN_LINE, "; ")
        problems_text = f"{format_problem_count(len(problem_texts))}: {listed_problems_text}"
    if verdict is None and problems_text:
        return f"{problems_text}; not checked further: {format_check_command(cohort_folder)}"
    if verdict is None:
        return f"no: {format_check_command(cohort_folder)}"
    no_problem_text = f"no problem was found in the records themselves, {verdict.notes} notes"
    return f"on {make_printable(verdict.when)[:10]}: {problems_text or no_problem_text}"


def format_check_command(cohort_folder: object) -> str:
    return f"abide-data check {shlex.quote(str(cohort_folder))}"


def format_problem_count(problem_count: int) -> str:
    return f"{problem_count} problem{'s invalidate' if problem_count > 1 else ' invalidates'} results"


def make_census(
    cohort_title: str, rows: Sequence[RecordRow], fold_by_subject: Mapping[str, str] | None = None
) -> CohortFindings:
    """Counts of subjects by split, or by fold where each has one, by label and by site, and what is wrong with them."""
    findings = CohortFindings(cohort_title)
    if fold_by_subject:
        fold_sizes = Counter(fold_by_subject.values()).values()
        fold_sizes_text = " to ".join(map(str, dict.fromkeys((min(fold_sizes), max(fold_sizes)))))
        findings.participants.counts.append(f"{len(fold_sizes)} folds of {fold_sizes_text}, each tested by the others")
    else:
        add_split_findings(findings.participants, rows)
    add_contradictory_label_problem(findings.participants, rows)
    add_site_findings(findings, rows)
    return findings


def add_split_findings(participant_findings: Findings, rows: Sequence[RecordRow]) -> None:
    """Adds how many subjects of each class a split has; and whether it lacks a class, or has nobody."""
    row_by_subject = {row.subject: row for row in rows}
    label_counts_by_split: dict[str, Counter] = {split: Counter() for split in SPLITS}
    for row in row_by_subject.values():
        label_counts_by_split[row.split][row.label if row.is_labelled else None] += 1

    has_training_subjects = bool(label_counts_by_split["train"])
    if not has_training_subjects:
        participant_findings.notes.append("no training participants: a model can be tested on this cohort, not trained")
    for split, label_counts in label_counts_by_split.items():
        class_counts_text = ", ".join(
            f"{label_counts[class_index]} {class_name}" for class_index, class_name in enumerate(vocabulary.CLASS_NAMES)
        )
        class_counts_text += f", {label_counts[None]} unknown" if label_counts[None] else ""
        participant_findings.counts.append(f"{split} {label_counts.total()} ({class_counts_text})")

        lacks_class = min(label_counts[0.0], label_counts[1.0]) == 0
        if split == "test" and not label_counts:
            participant_findings.notes.append("no test participants: a model can be trained on this cohort, not tested")
        elif lacks_class and has_training_subjects:
            participant_findings.problems.append(
                Problem(
                    f"split-lacks-class: {split}, {label_counts[0.0]}, {label_counts[1.0]}, {label_counts[None]}",
                    SPLIT_LACKS_CLASS_TEXT.format(split, class_counts_text),
                )
            )
        elif lacks_class and split == "test":
            participant_findings.notes.append(SPLIT_LACKS_CLASS_TEXT.format(split, class_counts_text))


def add_contradictory_label_problem(participant_findings: Findings, rows: Sequence[RecordRow]) -> None:
    """Adds a problem if records of one subject have different labels."""
    labels_by_subject: dict[str, set[float]] = defaultdict(set)
    for row in rows:
        if row.is_labelled:
            labels_by_subject[row.subject].add(row.label)
    contradictory_subjects = sorted(subject for subject, labels in labels_by_subject.items() if len(labels) > 1)
    if contradictory_subjects:
        problem_text = (
            f"both labels for one participant, of {format_participants(len(contradictory_subjects))}: "
            f"{join_names(contradictory_subjects)}"
        )
        participant_findings.problems.append(Problem(f"both-labels: {', '.join(contradictory_subjects)}", problem_text))


def add_site_findings(findings: CohortFindings, rows: Sequence[RecordRow]) -> None:
    """Adds how many subjects of each class a site has; whose site is unknown; and at which sites all are of one
    class."""
    site_findings = findings.sites
    row_by_subject = {row.subject: row for row in rows}
    label_counts_by_site: dict[str, Counter] = defaultdict(Counter)  # an unknown label counts as None
    for row in row_by_subject.values():
        label_counts_by_site[row.site][row.label if row.is_labelled else None] += 1

    recorded_sites = find_recorded_sites(label_counts_by_site)
    findings.is_site_unknown = not recorded_sites
    if not recorded_sites:
        site_findings.notes.append(
            f"{SITE_UNKNOWN_SENTENCE}: name its column with convert --siteColumn, also if it has one value"
        )
        return
    unknown_site_people_count = sum(
        label_counts.total() for site, label_counts in label_counts_by_site.items() if site not in recorded_sites
    )
    if unknown_site_people_count:
        site_findings.notes.append(
            f"site unknown of {format_participants(unknown_site_people_count)}, compared as if of one site"
        )

    # Counts as in `autism/control by site: NYU 20/25, USM 10/8`; an unknown label has its own count if anybody has one
    class_name_by_label: dict[float | None, str] = {1.0: "autism", 0.0: "control"}
    if not all(row.is_labelled for row in rows):
        class_name_by_label[None] = "unknown"
    site_texts = []
    for site, label_counts in sorted(label_counts_by_site.items()):
        counts_text = "/".join(str(label_counts[label]) for label in class_name_by_label)
        site_texts.append(f"{site} {counts_text}")
    class_names_text = "/".join(class_name_by_label.values())
    site_findings.counts.append(f"{class_names_text} by site: {join_names(site_texts, MAX_SITES_LISTED)}")

    single_class_sites = []
    for site in recorded_sites:
        control_count = label_counts_by_site[site][0.0]
        autism_count = label_counts_by_site[site][1.0]
        if min(control_count, autism_count) == 0 and control_count + autism_count > 1:
            single_class_sites.append(site)
    if single_class_sites:
        site_findings.notes.append(
            f"sites of several participants with one class only, where site tells the label: "
            f"{join_names(single_class_sites)}"
        )
