"""A cohort's table -> who is in it by split, label and site, and what is wrong with that; told before a training."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from data.cohorts import records
from data.cohorts.cohort import SPLITS, Cohort, Row

SHOWN = 10  # names in a line


@dataclass
class Findings:
    """`counts` are lines of fact; `problems` invalidate a result, `notes` are for the researcher to judge."""

    counts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, others: "Findings", prefix: str) -> None:
        """Adds those of a part, each after the part's name."""
        self.counts += [prefix + text for text in others.counts]
        self.problems += [prefix + text for text in others.problems]
        self.notes += [prefix + text for text in others.notes]

    def lines(self) -> list[str]:
        return [
            *self.counts,
            *(f"PROBLEM: {text}" for text in self.problems),
            *(f"note: {text}" for text in self.notes),
            "Nothing here invalidates a result."
            if not self.problems
            else f"{len(self.problems)} problems invalidate results.",
        ]


def listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def census(cohort: Cohort, fold_of: Mapping[str, str] | None = None) -> Findings:
    """Counts by split, or by fold where each subject has one, by label and site, and what is wrong with them."""
    findings = Findings()
    subjects = {row.subject: row for row in cohort.rows}
    findings.counts.append(
        f"{cohort.path}: {len(cohort.rows)} records of {len(subjects)} subjects, {cohort.grid}"
        + f", maps {', '.join(cohort.maps)}" * (cohort.num_maps > 1)
        + (", SIMULATED" if cohort.simulated else "")
    )
    if fold_of:
        sizes = Counter(fold_of.values()).values()
        findings.counts.append(
            f"{len(sizes)} folds of {min(sizes)} to {max(sizes)} subjects, each tested by the others"
        )
    else:
        count_splits(findings, cohort, subjects)
    labels_of: dict[str, set[float]] = defaultdict(set)
    for row in cohort.rows:
        labels_of[row.subject] |= {row.label} if row.known else set()
    if both := sorted(subject for subject, labels in labels_of.items() if len(labels) > 1):
        findings.problems.append(f"both labels for one subject, of {len(both)} subjects: {listed(both)}")
    sites: dict[str, Counter] = defaultdict(Counter)
    for row in subjects.values():
        sites[row.site][row.label if row.known else None] += 1
    shown = {1.0: "autism", 0.0: "control"} | ({} if all(row.known for row in cohort.rows) else {None: "unknown"})
    by_site = [f"{site} {'/'.join(str(count[label]) for label in shown)}" for site, count in sorted(sites.items())]
    findings.counts.append(f"{'/'.join(shown.values())} by site: {', '.join(by_site)}")
    known = {site: (count[0.0], count[1.0]) for site, count in sorted(sites.items())}
    if single := [site for site, count in known.items() if min(count) == 0 and sum(count) > 1]:
        findings.notes.append(f"sites with one class only, where site tells the label: {listed(single)}")
    return findings


def count_splits(findings: Findings, cohort: Cohort, subjects: Mapping[str, Row]) -> None:
    """Counts by split and label; a split without a class, or a cohort that nothing can be trained on."""
    trains = any(row.split == "train" for row in cohort.rows)
    if not trains:
        findings.notes.append("no training subjects: a model can be tested on this cohort, not trained")
    for split in SPLITS:
        labels = Counter(row.label if row.known else None for row in subjects.values() if row.split == split)
        named = ", ".join(f"{labels[value]} {name}" for value, name in enumerate(records.CLASSES))
        named += f", {labels[None]} unknown" if labels[None] else ""
        findings.counts.append(f"{split}: {labels.total()} subjects ({named})")
        if min(labels[0.0], labels[1.0]) == 0 and (trains or split == "test"):
            lacking = f"the {split} split lacks a class ({named})"
            (findings.problems if trains else findings.notes).append(lacking)
