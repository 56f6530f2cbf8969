"""Finished tests and the rows that compare them -> `compare.html`, one page that opens from disk, and `compare.csv`."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from data.base import files
from data.base.tables import write_frame
from data.base.terminal import format_participants, print_table
from data.cohorts.rows import join_names
from data.pages.page import CellByHeading, Link, Page, Section, render_page
from utils.compare.runs import MINUS, FinishedTest
from utils.machines.devices import git_commit
from utils.report import methods
from utils.report.build import INVALID, cautions
from utils.report.columns import section
from utils.runs import record
from utils.scores.conclusion import SAME, UNKNOWN, would_show
from utils.scores.results import DETECTABLE, HEADLINES, INTERVAL, Estimate, flat
from utils.scores.results import PAGE as REPORT

JOB, PAGE, TABLE = "compare", "compare.html", "compare.csv"
SHOWN = (*HEADLINES, "brier")
ROWS = 3  # of the terminal
NAMED = 3  # pairs in a sentence of the page
BETTER = {"a is better": "{a} is better than {b}", "b is better": "{b} is better than {a}"}
OTHERS = {
    SAME: "No difference is shown between {}, which does not say that they are equally good{}",
    UNKNOWN: "It is unknown which is better of {}{}",
}
PAIRED = (
    "A difference is paired: both runs are scored on the same resamples of participants, within folds. Below 0, that "
    "of the Brier score speaks for the first run."
)
TOGETHER = (
    "The intervals hold for all {} pairs together (Bonferroni). If all runs were equally good, one pair or more would "
    "seem to differ in one of twenty comparisons at most."
)
DECISIVE = (  # what `run.json` says of what decides a result
    *("model", "preset", "config", "seed", "step", "precision", "grid", "folds"),
    *("cohort", "cohort_sha256", "maps", "prepared", "transductive", "unknown_site", "git_commit", "packages"),
)


def write(folder: Path, runs: Sequence[FinishedTest], pairs: Sequence[dict[str, Any]]) -> Path:
    """Writes the table, the page, whose path is returned, and the record of a comparison."""
    path, started = folder / PAGE, time.strftime("%Y-%m-%dT%H:%M:%S%z")
    write_frame(folder / TABLE, pd.DataFrame(pairs), significant_digits=8)
    title = f"Comparison of {len(runs)} tests{marks(runs)}"
    about = f"{format_participants(pairs[0]['subjects'])}, {pairs[0]['records']} records, {started}"
    reports = {run.folder: os.path.relpath(run.folder / REPORT, folder) for run in runs}
    links = [Link(f"report of {folder}", quote(report)) for folder, report in reports.items()]
    page = Page("compare", title, about, [*sections(runs, pairs)], verdict(runs, pairs), links=links)
    with files.open_replacement(path) as file:
        file.write(render_page(page))
    finished = record.Manifest(
        job=JOB,
        finished=True,
        command=(Path(sys.argv[0]).name, *sys.argv[1:]),
        started=started,
        versions={"git_commit": git_commit()},
        outputs=record.fingerprint_outputs(folder),
    )
    record.write_manifest(folder / record.MANIFEST_FILE, finished)
    return path


def marks(runs: Sequence[FinishedTest]) -> str:
    """Those of all runs, such as ` (SIMULATED)`."""
    return "".join(dict.fromkeys(run.described.marks for run in runs))


def difference(pair: dict[str, Any], name: str) -> Estimate:
    return Estimate.in_row(pair, f"{MINUS}{name}")


def minus(pair: dict[str, Any]) -> str:
    return f"{pair['a']} minus {pair['b']}"


def conclusion(pair: dict[str, Any]) -> str:
    """Which one is better, if either is."""
    return BETTER[pair["conclusion"]].format(**pair) if pair["conclusion"] in BETTER else pair["conclusion"]


def verdict(runs: Sequence[FinishedTest], pairs: Sequence[dict[str, Any]], most: int = NAMED) -> str:
    """Who is better than whom, of whom no difference is shown, and of whom it is unknown, of each so many pairs; with
    whether problems invalidate it."""
    found = [join_names([conclusion(pair) for pair in pairs if pair["conclusion"] in BETTER], most, "; ")]
    for unclear, told in OTHERS.items():
        alike = [pair for pair in pairs if pair["conclusion"] == unclear]
        named = [f"{pair['a']} and {pair['b']}" for pair in alike]
        largest = max((pair[DETECTABLE] or 0 for pair in alike), default=0)
        detectable = would_show(largest) if unclear == SAME and largest else ""
        found += [told.format(join_names(named, most, "; "), detectable)] * bool(named)
    if len(pairs) == 1:
        (pair,) = pairs
        found.append(f"{HEADLINES[pair['by']]}, {minus(pair)}, {INTERVAL}: {difference(pair, pair['by']).text()}")
    invalid = INVALID if any(run.described.problems for run in runs) else ""
    return invalid + " ".join(f"{text}." for text in found if text)


def tell(runs: Sequence[FinishedTest], pairs: Sequence[dict[str, Any]]) -> None:
    """Prints the verdict, and below it the score that decides: where several pairs have a difference this difference
    first, then that of each run."""
    by, several = pairs[0]["by"], len(pairs) > 1
    rows = [[difference(pair, by).text(), minus(pair)] for pair in pairs if several and pair["conclusion"] in BETTER]
    rows += [[run.scores[by].text(), str(run.folder)] for run in runs]
    more = [[f"and {len(rows) - ROWS} more", ""]] if len(rows) > ROWS else []
    print(verdict(runs, pairs, most=1))
    print(f"{HEADLINES[by]}, {INTERVAL}:")
    print_table([*rows[:ROWS], *more], truncate_last=True)


def sections(runs: Sequence[FinishedTest], pairs: Sequence[dict[str, Any]]) -> Iterator[Section]:
    """In the order of the page."""
    if about := warnings(runs):
        yield Section("Warnings", about, kind="warning")
    yield scores(runs, pairs)
    if table := differing(runs):
        yield Section("What differs between the runs", table=table, open=True)


def warnings(runs: Sequence[FinishedTest]) -> list[str]:
    """The caveats of runs and their own warnings, each once."""
    found = dict[str, list[str]]()
    for run in runs:
        for text in [*cautions(run.described), *run.described.warnings]:
            found.setdefault(text, []).append(str(run.folder))
    return [f"{', '.join(folders)}: {text}" for text, folders in found.items()]


def scores(runs: Sequence[FinishedTest], pairs: Sequence[dict[str, Any]]) -> Section:
    """The scores of each run, and their difference in each pair."""
    names = [name for name in SHOWN if f"{MINUS}{name}" in pairs[0]]
    rows = [{"run": str(run.folder)} | flat({name: run.scores[name] for name in names}) for run in runs]
    rows += [
        {"run": minus(pair), "conclusion": conclusion(pair), DETECTABLE: pair[DETECTABLE]}
        | flat({name: difference(pair, name) for name in names})
        for pair in pairs
    ]
    notes = {"": TOGETHER.format(len(pairs))} if len(pairs) > 1 else {}
    shown = ["run", *names, DETECTABLE, "conclusion"]
    return section("Scores and differences", pd.DataFrame(rows), shown, PAIRED, open=True, notes=notes)


def differing(runs: Sequence[FinishedTest]) -> list[CellByHeading]:
    """A row for each thing that decides results and is not the same in all runs, by its name in `run.json`."""
    facts = {}
    for run in runs:
        of = run.described
        known = asdict(of) | {"cohort": of.cohort_name, "config": methods.used(of)}
        flat = pd.json_normalize({name: known[name] for name in DECISIVE})
        facts[str(run.folder)] = flat.astype(object).iloc[0]
    table = pd.DataFrame(facts).fillna("-").map(str).replace("", "-")
    differ = table[table.nunique(axis=1) > 1]
    return differ.rename_axis("in run.json").reset_index().to_dict("records")
