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
from data.pages.page import Link, Page, Row, Section, render
from utils.compare.runs import MINUS, FinishedTest
from utils.machines.devices import git_commit
from utils.report import methods
from utils.report.build import cautions
from utils.report.columns import spelled
from utils.runs import record
from utils.scores.conclusion import SAME, UNKNOWN
from utils.scores.metrics import HEADLINES
from utils.scores.results import INTERVAL, Estimate
from utils.scores.results import PAGE as REPORT

JOB, PAGE, TABLE = "compare", "compare.html", "compare.csv"
SHOWN = (*HEADLINES, "brier")
VERDICTS = {
    "a is better": "{a} is better than {b}",
    "b is better": "{b} is better than {a}",
    SAME: "Between {a} and {b} no difference is shown, which does not say that they are equally good",
    UNKNOWN: "It is unknown which of {a} and {b} is better",
}
PAIRED = (
    "A difference is paired: both runs are scored on the same resamples of participants, within folds. Below 0, that "
    "of the Brier score speaks for the first run."
)
DECISIVE = (  # what `run.json` says of what decides a result
    *("model", "preset", "config", "seed", "step", "precision", "grid", "folds"),
    *("cohort", "cohort_sha256", "maps", "prepared", "transductive", "unknown_site", "git_commit", "packages"),
)


def write(folder: Path, runs: Sequence[FinishedTest], pairs: Sequence[dict[str, Any]]) -> Path:
    """Writes the table, the page, whose path is returned, and the record of a comparison."""
    path, started = folder / PAGE, time.strftime("%Y-%m-%dT%H:%M:%S%z")
    write_frame(folder / TABLE, pd.DataFrame(pairs), digits=8)
    title = f"Comparison of {len(runs)} tests{marks(runs)}"
    about = f"{pairs[0]['subjects']} participants, {pairs[0]['records']} records, {started}"
    reports = {run.folder: os.path.relpath(run.folder / REPORT, folder) for run in runs}
    links = [Link(f"report of {folder}", quote(report)) for folder, report in reports.items()]
    page = Page("compare", title, about, [*sections(runs, pairs)], verdict(pairs), links=links)
    with files.replacing(path) as file:
        file.write(render(page))
    finished = record.Record(
        job=JOB,
        finished=True,
        command=(Path(sys.argv[0]).name, *sys.argv[1:]),
        started=started,
        versions={"git_commit": git_commit()},
        outputs=record.outputs_of(folder),
    )
    record.write(folder / record.RECORD, finished)
    return path


def marks(runs: Sequence[FinishedTest]) -> str:
    """Those of all runs, such as ` (SIMULATED)`."""
    return "".join(dict.fromkeys(run.described.marks for run in runs))


def difference(pair: dict[str, Any], name: str) -> Estimate:
    return Estimate.in_row(pair, f"{MINUS}{name}")


def minus(pair: dict[str, Any]) -> str:
    return f"{pair['a']} minus {pair['b']}"


def verdict(pairs: Sequence[dict[str, Any]]) -> str:
    """What is concluded of one pair, or in how many pairs a difference is shown."""
    if len(pairs) == 1:
        return conclusions(pairs)[0]
    differ = sum(pair["conclusion"] not in (SAME, UNKNOWN) for pair in pairs)
    return f"A difference is shown in {differ} of {len(pairs)} pairs."


def conclusions(pairs: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence a pair, and one on what holds together if there are several."""
    found = []
    for pair in pairs:
        less = difference(pair, pair["by"]).text(undefined="undefined, since no two participants can be compared")
        verdict = VERDICTS[pair["conclusion"]].format(**pair)
        found.append(f"{verdict}. {HEADLINES[pair['by']]}, {minus(pair)}, {INTERVAL}: {less}.")
    if len(pairs) > 1:
        found.append(
            f"The intervals hold for all {len(pairs)} pairs together (Bonferroni). If all runs were equally good, one "
            "pair or more would seem to differ in one of twenty comparisons at most."
        )
    return found


def sections(runs: Sequence[FinishedTest], pairs: Sequence[dict[str, Any]]) -> Iterator[Section]:
    """In the order of the page."""
    if about := warnings(runs):
        yield Section("Warnings", about, kind="warning")
    if len(pairs) > 1:
        yield Section("Pairs", conclusions(pairs), open=True)
    yield Section("Scores and differences", [PAIRED], table=scores(runs, pairs), open=True)
    if table := differing(runs):
        yield Section("What differs between the runs", table=table, open=True)


def warnings(runs: Sequence[FinishedTest]) -> list[str]:
    """The caveats of runs and their own warnings, each once."""
    found = dict[str, list[str]]()
    for run in runs:
        for text in [*cautions(run.described), *run.described.warnings]:
            found.setdefault(text, []).append(str(run.folder))
    return [f"{', '.join(folders)}: {text}" for text, folders in found.items()]


def scores(runs: Sequence[FinishedTest], pairs: Sequence[dict[str, Any]]) -> list[Row]:
    """The scores of each run, and their difference in each pair."""
    names = [name for name in SHOWN if f"{MINUS}{name}" in pairs[0]]
    rows = {str(run.folder): {name: run.scores[name] for name in names} for run in runs}
    rows |= {minus(pair): {name: difference(pair, name) for name in names} for pair in pairs}
    return [{"run": run} | {spelled(name): score.text() for name, score in of.items()} for run, of in rows.items()]


def differing(runs: Sequence[FinishedTest]) -> list[Row]:
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
