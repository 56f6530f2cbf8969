"""Pairs of runs -> `compare.html`, one page that opens from disk, and a table, in a folder of their own."""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from data.base import files
from data.base.tables import write_frame
from data.pages.drawings import Bar, Forest
from data.pages.page import Link, Number, Page, Row, Section, render
from utils.compare.runs import FinishedTest, Pair, rows_of_pairs
from utils.machines.devices import git_commit
from utils.report import texts
from utils.report.build import INTENDED_USE
from utils.report.meanings import MEANINGS
from utils.report.texts import spelled
from utils.runs import record
from utils.runs.places import RESULTS, refuse
from utils.runs.record import RECORD, Record
from utils.scores.metrics import HEADLINES
from utils.scores.results import CHANCE, INTERVAL, Estimate
from utils.scores.results import PAGE as REPORT

PAGE, TABLE = "compare.html", "compare.csv"
JOB = "compare"
SENTENCES = "compare/sentences.jinja"
DIGITS = 8  # significant ones


def check_place(folder: Path, runs: Sequence[Path]) -> None:
    """Raises InputError for a folder that is one of the runs', or lies in results, a cohort or checkpoints."""
    refuse("--outDir", folder, "a comparison", dict.fromkeys(runs, RESULTS))


def begin(folder: Path) -> None:
    """Claims the folder. Raises InputError if it holds what no comparison wrote."""
    record.check_free(folder, JOB, "")
    folder.mkdir(parents=True, exist_ok=True)
    record.write(folder / RECORD, Record(job=JOB))


def write(folder: Path, runs: Sequence[FinishedTest], found: Sequence[Pair]) -> Path:
    """Writes the table and the page, whose path is returned; files of an earlier comparison are replaced."""
    write_frame(folder / TABLE, pd.DataFrame(rows_of_pairs(found)), DIGITS)
    when, commit = time.strftime("%Y-%m-%dT%H:%M:%S%z"), git_commit()
    marks = " ".join(dict.fromkeys(run.described.marks for run in runs))
    people = f"{runs[0].known['subject'].nunique()} people, {len(runs[0].known)} records, {when}"
    page = Page(
        "compare",
        f"Comparison of {len(runs)} tests{marks}",
        people,
        [*sections(runs, found)],
        numbers(runs, found),
        aucs(runs, found[0].area),
        links(runs, folder),
    )
    with files.replacing(folder / PAGE) as file:
        file.write(render(page))
    finished = Record(
        job=JOB,
        finished=True,
        command=(Path(sys.argv[0]).name, *sys.argv[1:]),
        started=when,
        versions={"git_commit": commit},
        outputs=record.outputs_of(folder),
        told={"runs": [str(run.folder.absolute()) for run in runs], "conclusions": conclusions(found)},
    )
    record.write(folder / RECORD, finished)
    return folder / PAGE


def conclusions(found: Sequence[Pair]) -> list[str]:
    """A sentence a pair, and one on what holds together if there are several."""
    each = [texts.paragraph("conclusion", SENTENCES, pair=pair) for pair in found]
    return each + texts.paragraphs("several", SENTENCES, count=len(found))


def links(runs: Sequence[FinishedTest], folder: Path) -> list[Link]:
    """To the reports, from a folder."""
    reports = {run.called: run.folder / REPORT for run in runs}
    paths = {name: Path(os.path.relpath(path, folder)) for name, path in reports.items() if path.is_file()}
    return [Link(f"report of {name}", quote(path.as_posix())) for name, path in paths.items()]


def numbers(runs: Sequence[FinishedTest], found: Sequence[Pair]) -> list[Number]:
    """Of two runs their scores and the difference; the figure shows those of more."""
    if len(found) > 1:
        return []
    (pair,), area = found, found[0].area
    scores = {f"{HEADLINES[area]}, {INTERVAL}: {run.called}": run.scores[area].text(".2f", "undefined") for run in runs}
    scores[f"difference, {INTERVAL}: {minus(pair)}"] = pair.less[area].text(undefined="undefined")
    return [Number(score, name) for name, score in scores.items()]


def aucs(runs: Sequence[FinishedTest], area: str) -> Forest | None:
    """The AUC of each run that the conclusions rest on."""
    better = {run.letter for run in runs if run.scores[area].beats_chance}
    about = f"{HEADLINES[area]}, {INTERVAL}; {CHANCE:g} is guessing. Bold: better than chance."
    return forest(about, {run.called: (run.scores[area], run.letter in better) for run in runs}, CHANCE)


def less(found: Sequence[Pair]) -> Forest | None:
    """The differences of these AUCs."""
    among = f" of all {len(found)} pairs together" if len(found) > 1 else ""
    about = f"Difference of {HEADLINES[found[0].area]}, {INTERVAL}{among}. Bold: one is better."
    rows = {minus(pair): (pair.less[pair.area], pair.standing in ("beats", "worse")) for pair in found}
    return forest(about, rows, 0)


def forest(about: str, rows: Mapping[str, tuple[Estimate, bool]], line: float) -> Forest | None:
    """Values with their intervals, and whether they are bold; what has none is not drawn. None if none has one."""
    bars = []
    for name, (estimate, bold) in rows.items():
        value, low, high = estimate.numbers
        if estimate.low is not None:
            bars.append(Bar(name, value, low, high, estimate.text(), "main" if bold else ""))
    return Forest(about, bars, line) if bars else None


def sections(runs: Sequence[FinishedTest], found: Sequence[Pair]) -> Iterator[Section]:
    """In the order of the page."""
    small = any(run.predictions.in_small_sites for run in runs)
    yield Section("What may be concluded", conclusions(found), kind="conclusion")
    if about := warnings(runs):
        yield Section("Warnings", about, kind="warning")
    yield Section("Intended use", [INTENDED_USE], open=True)
    about = texts.paragraphs("differences", SENTENCES, pairs=len(found), repeats=len(runs[0].tables))
    yield Section(
        "Differences", about, less(found), [differences(pair) for pair in found], open=True, meanings=MEANINGS
    )
    of_sites = texts.paragraphs("scores", SENTENCES) if small else None
    yield Section("The runs", of_sites, table=[row_of(run) for run in runs], open=True, meanings=MEANINGS)
    differ = differing(runs)
    same = ["Nothing of what their run.json says of model, settings, data and program."]
    yield Section("What differs between the runs", None if differ else same, table=differ or None, open=True)


def warnings(runs: Sequence[FinishedTest]) -> list[str]:
    """The caveats of each run."""
    found = []
    for run in runs:
        of_run = texts.paragraphs("warnings", run=run.described, subjects=None, auc=None, accuracy=None)
        found += [f"{run.letter}: {text}" for text in of_run]
    return found


def minus(pair: Pair) -> str:
    return f"{pair.a.letter} minus {pair.b.letter}"


def row_of(run: FinishedTest) -> Row:
    """A run with its scores."""
    of = run.described
    named = {"run": run.letter, "folder": f"{run.folder}{of.marks}", "model": f"{of.model}, {of.preset}"}
    return named | {spelled(name): run.scores[name].text() for name in (*HEADLINES, "brier") if name in run.scores}


def differences(pair: Pair) -> Row:
    """The difference of each score."""
    names = [name for name in (*HEADLINES, "brier") if name in pair.less]
    return {"difference": minus(pair)} | {spelled(name): pair.less[name].text() for name in names}


def differing(runs: Sequence[FinishedTest]) -> list[Row]:
    """A row for each thing that decides results and is not the same in all runs."""
    each = [facts(run) for run in runs]
    names = dict.fromkeys(name for found in each for name in found)
    cells = {name: [text_of(found.get(name)) for found in each] for name in names}
    letters = [run.letter for run in runs]
    return [
        {"what": name} | dict(zip(letters, values, strict=True))
        for name, values in cells.items()
        if len(set(values)) > 1
    ]


def facts(run: FinishedTest) -> dict[str, object]:
    """What `run.json` says of what decides the results, by its name for people."""
    of, training = run.described, [count for count in run.described.subjects if count.split == "train"]
    return {
        "model": of.model,
        "preset": of.preset,
        **{f"setting {name}": value for name, value in of.config.items()},
        "seed": of.seed,
        "batches seen": of.step,
        "precision": of.precision,
        "people in training": sum(count.autism + count.control + count.unknown for count in training) or None,
        "cohort": of.cohort_name,
        "cohort, SHA-256": of.cohort_sha256,
        "maps": of.maps,
        "grid": of.grid,
        **{f"data: {name.replace('_', ' ')}": value for name, value in asdict(of.prepared).items()},
        "standardised by all people of a site": of.transductive,
        "site unknown": of.unknown_site,
        "commit of the program": of.git_commit,
        **{f"version of {name}": version for name, version in of.packages.items()},
    }


def text_of(value: object) -> str:
    """Of a fact, a dash if it is not known."""
    if value is None or value in ("", (), []):
        return "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)
