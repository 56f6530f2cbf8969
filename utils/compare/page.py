"""Pairs of runs -> `compare.html`, one page that opens from disk, and two tables, in a folder of their own."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from data.base import files
from data.base.tables import write_frame
from data.pages.page import Page, Row, Section, render
from utils.compare.runs import FinishedTest, Pair, RightCounts, rows_by_site, rows_of_pairs
from utils.figures import number
from utils.machines.devices import git_commit
from utils.report import drawings, texts
from utils.report.build import INTENDED_USE
from utils.report.texts import spelled
from utils.runs.folders import RESULTS, Results, refuse
from utils.scores.metrics import HEADLINES
from utils.scores.results import CHANCE, CONFIDENCE, Estimate

PAGE, TABLE, SITES = "compare.html", "compare.csv", "compare_sites.csv"
OUTPUTS = (PAGE, TABLE, SITES)
JOB, OF = "compare", "runs"  # in the manifest, in the places of job and model
SENTENCES = "compare/sentences.jinja"
DIGITS = 8  # significant ones
NAMES = ("a", "b", "site")  # columns of text


def check_place(folder: Path, runs: Sequence[Path]) -> None:
    """Raises InputError for a folder that is one of the runs', or lies in results, a cohort or checkpoints."""
    refuse("--outDir", folder, "a comparison", dict.fromkeys(runs, RESULTS))


def begin(folder: Path) -> None:
    """Claims the folder. Raises InputError if it holds what no comparison wrote."""
    results_of(folder).own_files()
    folder.mkdir(parents=True, exist_ok=True)
    results_of(folder).write({}, finished=False)


def results_of(folder: Path) -> Results:
    """The folder, whose `run.json` says that a comparison wrote it."""
    return Results(folder, JOB, OF, OUTPUTS)


def write(folder: Path, runs: Sequence[FinishedTest], found: Sequence[Pair]) -> Path:
    """Writes the tables and the page, whose path is returned; files of an earlier comparison are replaced."""
    for name, rows in ((TABLE, rows_of_pairs(found)), (SITES, rows_by_site(found))):
        write_frame(folder / name, pd.DataFrame(list(rows)), NAMES, DIGITS)
    when, commit = time.strftime("%Y-%m-%dT%H:%M:%S%z"), git_commit()
    title = f"Comparison of {len(runs)} tests{' '.join(dict.fromkeys(run.described.marks for run in runs))}"
    people = f"{runs[0].known['subject'].nunique()} people, {len(runs[0].known)} records, {when}"
    with files.replacing(folder / PAGE) as file:
        file.write(render(Page("compare", title, people, [*sections(runs, found)])))
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    described = {"command": command, "runs": [str(run.folder.absolute()) for run in runs], "started": when}
    more = described | {"git_commit": commit, "conclusions": conclusions(found)}
    results_of(folder).write({}, finished=True, more=more)
    return folder / PAGE


def conclusions(found: Sequence[Pair]) -> list[str]:
    """A sentence a pair, and one on what holds together if there are several."""
    each = [texts.paragraph("conclusion", SENTENCES, pair=pair) for pair in found]
    return each + texts.paragraphs("several", SENTENCES, count=len(found))


def sections(runs: Sequence[FinishedTest], found: Sequence[Pair]) -> Iterator[Section]:
    """In the order of the page."""
    repeats = {"repeats": len(runs[0].repeats)}
    small = any(run.predictions.in_small_sites for run in runs)
    yield Section("What may be concluded", conclusions(found), kind="conclusion")
    yield Section("Intended use", [INTENDED_USE])
    if about := warnings(runs):
        yield Section("Warnings", about, kind="warning")
    area = found[0].area
    drawn = forest("aucs", {run.letter: run.scores[area] for run in runs}, HEADLINES[area], CHANCE)
    of_sites = texts.paragraphs("scores", SENTENCES) if small else None
    yield Section("The runs", of_sites, drawn, [row_of(run) for run in runs])
    less = {minus(pair): pair.less[area] for pair in found}
    drawn = forest("differences", less, f"difference of {HEADLINES[area]}", 0)
    about = texts.paragraphs("differences", SENTENCES, pairs=len(found), **repeats)
    yield Section("Differences", about, drawn, [differences(pair) for pair in found])
    about = texts.paragraphs("correlations", SENTENCES, **repeats)
    yield Section("Do they predict alike?", about, table=[correlations(pair) for pair in found])
    about = texts.paragraphs("agreement", SENTENCES, **repeats)
    in_all = [{"runs": pair.name} | agreement(pair.agreement) for pair in found]
    yield Section("Who is right where", about, table=in_all)
    by_site = [
        {"runs, site": f"{pair.name}, {site.name or '-'}", "subjects": str(site.subjects)} | agreement(site.agreement)
        for pair in found
        for site in pair.sites
    ]
    yield Section("Who is right where, by site", table=by_site)
    differ = differing(runs)
    same = ["Nothing of what their run.json says of model, settings, data and program."]
    yield Section("What differs between the runs", None if differ else same, table=differ or None)


def warnings(runs: Sequence[FinishedTest]) -> list[str]:
    """The caveats of each run."""
    found = []
    for run in runs:
        of_run = texts.paragraphs("warnings", run=run.described, subjects=None, auc=None, accuracy=None)
        of_run += [text for text in run.described.warnings if text == texts.ONE_OF_SEVERAL]
        found += [f"{run.letter}: {text}" for text in of_run]
    return found


def minus(pair: Pair) -> str:
    return f"{pair.a.letter} minus {pair.b.letter}"


def forest(label: str, rows: Mapping[str, Estimate], about: str, line: float) -> Figure | None:
    """A row a value with its interval, from top to bottom, beside a line; None if all are undefined."""
    known = {name: estimate for name, estimate in rows.items() if estimate.value is not None}
    if not known:
        return None
    figure, (axis,) = drawings.axes(label, 0.7 + 0.26 * len(known))
    for place, estimate in enumerate(known.values()):
        value, *ends = estimate.numbers
        if estimate.low is not None:
            axis.plot(ends, [place, place], color="C0", linewidth=1.8)
        axis.plot(value, place, "o", color="C0", markersize=5)
    axis.axvline(line, color="0.3", linestyle=":", linewidth=1)
    axis.set_yticks(np.arange(len(known)), [*known])
    axis.set_ylim(len(known) - 0.5, -0.5)
    axis.set_xlabel(f"{about}, {CONFIDENCE:.0%} interval")
    return figure


def row_of(run: FinishedTest) -> Row:
    """A run with its scores."""
    of = run.described
    named = {"run": run.letter, "folder": f"{run.folder}{of.marks}", "model": f"{of.model}, {of.preset}"}
    return named | {spelled(name): run.scores[name].text() for name in (*HEADLINES, "brier") if name in run.scores}


def differences(pair: Pair) -> Row:
    """The difference of each score."""
    names = [name for name in (*HEADLINES, "brier") if name in pair.less]
    return {"difference": minus(pair)} | {spelled(name): pair.less[name].text() for name in names}


def correlations(pair: Pair) -> Row:
    names = {"correlation": "over all records", "correlation_sites": "within sites"}
    values = {names[name]: np.nan if value is None else value for name, value in pair.correlations.items()}
    return {"runs": pair.name} | {name: number(value, ".2f") for name, value in values.items()}


def agreement(found: RightCounts) -> Row:
    """The first of the two runs that a row names is a."""
    counts = {
        "both": found.both_right,
        "only the first": found.only_a_right,
        "only the second": found.only_b_right,
        "neither": found.neither_right,
    }
    return {name: str(count) for name, count in counts.items()} | {"p (McNemar)": number(found.p, ".2g")}


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
        "batches seen": of.num_iters,
        "validation": of.validation,
        "precision": of.precision,
        "people in training": sum(count.autism + count.control + count.unknown for count in training) or None,
        "cohort": of.cohort_name,
        "cohort, SHA-256": of.cohort_sha256,
        "maps": of.maps,
        "grid": of.grid,
        **{f"data: {name.replace('_', ' ')}": value for name, value in asdict(of.prepared).items()},
        "standardised by all people of a site": of.transductive,
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
