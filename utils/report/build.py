"""The saved tables of a classifier's test -> `report.html`, one page that opens from disk without a network."""

from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from data.base import files
from data.base.errors import InputError
from data.cohorts.rows import listed
from data.pages.page import Page, Section, render
from utils import figures
from utils.report import drawings, people, scores, texts
from utils.report import headline as headlines
from utils.report.tables import Described, Tables, read_test
from utils.runs import record
from utils.scores.metrics import headline
from utils.scores.results import DATA, PAGE

ROC = "roc"  # the figure that the test itself writes
FIGURES = ("forest", "calibration", "losses", "distribution")  # those that the page writes
REMADE = (PAGE, *(f"{name}.{form}" for name in FIGURES for form in figures.UNDATED))
INTENDED_USE = (
    "For research on groups of participants. Not a diagnosis: no probability here says anything reliable about one "
    "participant, and nothing here has been tested for clinical use."
)


def write(folder: Path) -> list[Path]:
    """Builds the page from the tables in `folder`, and beside it, unless it is of one fold, its figures; the page is
    the first of the files. Raises InputError for a table that is missing, damaged or empty.
    """
    tables = read_test(folder)
    shown = [*sections(tables)]
    drawn = [section.figure for section in shown if isinstance(section.figure, Figure)]
    if bars := headlines.forest(tables):
        drawn.append(drawings.forest(bars))
    for figure in drawn:
        figure.suptitle(tables.run.marks.strip())
    run, cut = tables.run, f", folds: {tables.run.folds}" if tables.run.folds else ""
    page = Page(
        "report",
        f"Test of {run.model}{cut}{run.marks}",
        f"{run.cohort_name}, {run.started}",
        shown,
        headlines.numbers(tables),
        bars if tables.scores and tables.scores[headline(tables.scores)].low is not None else None,
    )
    with files.replacing(folder / PAGE) as file:
        file.write(render(page))
    written = [folder / PAGE]
    if tables.run.fold:
        return written
    for figure in drawn:
        if figure.get_label() != ROC:
            written += figures.save(figure, folder / f"{figure.get_label()}.png")
    return written


def write_again(folder: Path) -> list[Path]:
    """Builds the page of a finished test anew and records it in `run.json`. Raises InputError, as `write` does, and if
    tables are gone or not as the test wrote them."""
    with files.locked(folder):
        found = record.read(folder)
        if found and found.finished and (odd := [name for name in record.changed(folder, found) if name in DATA]):
            what = f"is not as the test wrote it: {listed(odd)}; copy the folder again, or test again"
            raise InputError(f"{folder} {what}.")
        read_test(folder)  # nothing is changed before all that is needed can be read
        with record.rewriting(folder, REMADE):
            return write(folder)


def sections(tables: Tables) -> Iterator[Section]:
    """The sections that apply, in the order of the page."""
    run, label = tables.run, tables.predictions["label"]
    concluded = [*texts.sentences(run.conclusion), *(texts.sentences(run.motion) if run.motion else [])]
    concluded += texts.paragraphs("permutations", of=run.permutations) if run.permutations else []
    yield Section("What may be concluded", concluded, kind="conclusion")
    if found := texts.warnings(tables):
        yield Section("Warnings", found, kind="warning")
    yield Section("Intended use", [INTENDED_USE], open=True)
    if tables.external is not None:
        yield from people.beside_training(tables, tables.external)
    if tables.scores:
        yield from scores.scored(tables)
    if unknown := int(label.isna().sum()):
        about = [f"The diagnosis of {unknown} of {len(label)} records is unknown; the figure shows all of them."]
        drawn = drawings.distribution(tables.predictions["probability"].to_numpy())
        yield Section("Predicted probabilities", about, drawn)
    if tables.training is None:
        yield Section("Training", ["The history of the training is not there any more, so no loss can be shown."])
    else:
        about = texts.paragraphs("training")
        curves = drawings.losses(tables.training)
        yield Section("Training", about if curves else ["The history of the training holds no finite loss."], curves)
    unknown = sum(count.unknown for count in run.subjects)
    about = texts.paragraphs("flow", run=run, unknown=unknown)
    yield Section("Flow of participants", about or None, table=people.flow(tables))
    if tables.table1 is not None:
        about = texts.paragraphs("table1", tests=int(tables.table1[["p", "p_ranks"]].notna().sum().sum()))
        yield Section("Table 1: participants by diagnosis", about, table=people.by_diagnosis(tables.table1))
        if rows := people.by_site(tables.table1):
            about = ["Autism / control: mean of numbers, share of categories."]
            yield Section("Table 1, by site", about, **texts.few_apart(rows))
    yield Section("The cohort", ["run.json has all numbers."], table=people.cohort(run))
    yield how_to_repeat(run)
    yield Section("Methods, to paste", texts.methods(tables))


def how_to_repeat(run: Described) -> Section:
    """The command, and when, where and with what versions the test was done; the checkpoints of pooled folds."""
    digest, key = run.weights, "checkpoint, SHA-256"
    of_folds = [{"fold": fold, key: sha256} for fold, sha256 in digest.items()] if isinstance(digest, dict) else None
    facts = {
        "started": run.started,
        "took": f"{run.wall_time_s:,.0f} s",
        "commit": run.git_commit or "-",
        "cohort": run.cohort_name,
        "cohort, SHA-256": run.cohort_sha256,
        "checkpoint": run.checkpoint_folder,
        key: "below, for each fold" if isinstance(digest, dict) else digest or "-",
        "versions": ", ".join(f"{name} {version}" for name, version in run.packages.items()) or "-",
    }
    return Section("How to repeat it", table=of_folds, facts=facts, command=texts.quoted(run.command))
