"""A cohort's table -> who is in it by split, label and site, and what is wrong with that; told before a training."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from data import records
from data.cohort import SPLITS, Cohort

SHOWN = 10  # names in a line


@dataclass
class Findings:
    """`counts` are lines of fact; `problems` invalidate a result, `notes` are for the researcher to judge."""

    counts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

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


def census(cohort: Cohort) -> Findings:
    """Counts by split, label and site, and what is wrong with them."""
    findings = Findings()
    subjects = {row.subject: row for row in cohort.rows}
    findings.counts.append(
        f"{cohort.path}: {len(cohort.rows)} records of {len(subjects)} subjects, {cohort.grid}"
        + (", SIMULATED" if cohort.simulated else "")
    )
    for split in SPLITS:
        labels = Counter(row.label for row in subjects.values() if row.split == split)
        named = ", ".join(f"{labels[value]} {name}" for value, name in enumerate(records.CLASSES))
        findings.counts.append(f"{split}: {sum(labels.values())} subjects ({named})")
        if min(labels[0.0], labels[1.0]) == 0:
            findings.problems.append(f"the {split} split lacks a class ({named})")
    labels_of = defaultdict(set)
    for row in cohort.rows:
        labels_of[row.subject].add(row.label)
    if both := sorted(subject for subject, labels in labels_of.items() if len(labels) > 1):
        findings.problems.append(f"both labels for one subject, of {len(both)} subjects: {listed(both)}")
    sites: dict[str, Counter] = defaultdict(Counter)
    for row in subjects.values():
        sites[row.site][row.label] += 1
    findings.counts.append(
        "autism/control by site: " + ", ".join(f"{site} {count[1]}/{count[0]}" for site, count in sorted(sites.items()))
    )
    if single := [site for site, count in sorted(sites.items()) if len(count) == 1 and sum(count.values()) > 1]:
        findings.notes.append(f"sites with one class only, where site tells the label: {listed(single)}")
    return findings
