"""The tables of a classifier's test -> `report.html`, a page that opens without a network, and its figures."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from data.base import files
from data.base.errors import InputError
from data.cohorts.records import CLASS_NAMES
from data.cohorts.rows import SITE_UNKNOWN_SENTENCE, join_names
from data.pages.drawings import Forest, ForestBar
from data.pages.page import HeadlineNumber, Page, Section, render_page
from utils import figures
from utils.report import drawings, sections
from utils.report.columns import spelled
from utils.report.methods import methods, quoted, seen_by_authors, told_sites
from utils.report.tables import Described, Tables, read_test
from utils.runs import record
from utils.runs.record import Caveats
from utils.scores.conclusion import OF_FOLD, UNLABELLED
from utils.scores.metrics import headline
from utils.scores.results import CHANCE_AUC, DATA, INTERVAL, NAMED, PAGE, ROLE, Estimate

ROC = "roc"  # the figure that the test itself writes
FIGURES = ("forest", "calibration")  # those that the page writes
REMADE = (PAGE, *(f"{name}.{form}" for name in FIGURES for form in figures.UNDATED))
INTENDED_USE = (
    "For research on groups. Not a diagnosis: no probability here says anything reliable about one participant, and "
    "nothing here has been tested for clinical use."
)
FEW = 100  # test participants
SEEN_BY_AUTHORS = "The preset was made by results on ABIDE I, on whose participants the score may be a little too good"
PUBLISHED = 0.70  # accuracy of the best honest results on ABIDE
SUSPICIOUS = 0.80  # accuracy that is far above it, however wide its interval
SHOWN = 5  # problems
INVALID = "Problems invalidate this. "


def write(folder: Path, tables: Tables) -> list[Path]:
    """Writes the page into a folder, and beside it, unless it is of one fold, its figures; the page is the first of the
    files."""
    run, shown, bars = tables.run, [*sections_of(tables)], forest(tables)
    drawn = [section.figure for section in shown if isinstance(section.figure, Figure)]
    drawn += [drawings.forest(bars)] if bars else []
    for figure in drawn:
        figure.suptitle(run.marks.strip())
    cut = f", folds: {run.folds}" if run.folds else ""
    page = Page(
        "report",
        f"Test of {run.model}{cut}{run.marks}",
        f"{run.cohort_name}, {run.started}",
        shown,
        verdict(run),
        [*numbers(run), people(tables)],
        bars,
    )
    with files.open_replacement(folder / PAGE) as file:
        file.write(render_page(page))
    written = [folder / PAGE]
    for figure in [] if run.fold else drawn:
        if figure.get_label() != ROC:
            written += figures.save(figure, folder / f"{figure.get_label()}.png")
    return written


def write_again(folder: Path) -> list[Path]:
    """Builds the page of a finished test anew and records it in `run.json`. Raises InputError if tables are gone or not
    as the test wrote them."""
    with files.locked(folder):
        found = record.read_manifest(folder)
        if (
            found
            and found.finished
            and (odd := [name for name in record.find_changed_outputs(folder, found) if name in DATA])
        ):
            what = f"is not as the test wrote it: {join_names(odd)}; copy the folder again, or test again"
            raise InputError(f"{folder} {what}.")
        tables = read_test(folder)  # nothing is changed before all that is needed can be read
        with record.rewrite_outputs(folder, REMADE):
            return write(folder, tables)


def verdict(run: Described) -> str:
    """What a reader takes away, with whether problems invalidate it."""
    if run.conclusion is None:
        return OF_FOLD if run.fold else UNLABELLED
    return f"{INVALID if run.problems else ''}{run.conclusion.verdict}"


def numbers(run: Described) -> list[HeadlineNumber]:
    """The score and its baseline, with their footnotes."""
    if run.conclusion is None:
        return []
    first, *others = run.conclusion.numbers
    seen = [f"{SEEN_BY_AUTHORS}."] if seen_by_authors(run) else []
    return [replace(first, notes=[*first.notes, *seen]), *others]


def people(tables: Tables) -> HeadlineNumber:
    """Who was tested."""
    tested = tables.predictions.groupby("subject").first()
    classes = [f"{(tested['label'] == label).sum()} {name}" for label, name in enumerate(CLASS_NAMES)]
    unknown = tested["label"].isna().sum()
    of_each = ", ".join([*reversed(classes), *([f"{unknown} of unknown diagnosis"] if unknown else [])])
    return HeadlineNumber(str(len(tested)), "participants tested", f"{told_sites(tested['site'])}; {of_each}")


def forest(tables: Tables) -> Forest | None:
    """The AUC of the verdict, that of the model and of baselines; None without baselines. What has no interval is not
    drawn."""
    table = tables.baselines
    if table is None or not tables.scores:
        return None
    area = headline(tables.scores)
    rows = [(tables.run.model, tables.scores[area], "main")]
    for _, row in sections.prespecified_first(table).iterrows():
        is_named = row[ROLE] == NAMED
        name = f"{row['baseline']} ({NAMED})" if is_named else row["baseline"]
        rows.append((name, Estimate.in_row(row, area), "named" if is_named else ""))
    bars = [bar(*row) for row in rows if row[1].low is not None]
    return Forest(f"{spelled(area)}, {INTERVAL}; {CHANCE_AUC:g} is guessing", bars, CHANCE_AUC) if bars else None


def bar(name: str, score: Estimate, kind: str) -> ForestBar:
    value, low, high = score.numbers
    return ForestBar(name, value, low, high, score.text(".2f"), kind)


def cautions(caveats: Caveats) -> list[str]:
    """What a reader must know before any number, of any page."""
    found = []
    if caveats.simulated:
        found.append("SIMULATED cohort: its people were made by a program, and nothing here is about people.")
    if caveats.problems:
        found.append(f"PROBLEMS that invalidate these results: {join_names(caveats.problems, SHOWN, '; ')}.")
    if caveats.accepted_leaks:
        found.append(
            f"LEAK ACCEPTED: the cohort was converted with --allowLeak, though "
            f"{join_names(caveats.accepted_leaks, SHOWN)} tells the diagnosis. Do not trust the scores."
        )
    if caveats.transductive:
        found.append(
            "TRANSDUCTIVE: each site's volumes were standardised by its own participants, tested ones too (without "
            "labels). So the score is for participants who come together with others of their site."
        )
    if caveats.unknown_site:
        found.append(
            f"{SITE_UNKNOWN_SENTENCE}: what differs between scanners can look like what differs between diagnoses, and "
            "nothing here would show it. Convert again with the column of sites (--siteColumn), also if all are of one."
        )
    return found


def warnings(tables: Tables) -> list[str]:
    """The caveats, what the tables show, and the run's own warnings."""
    found, run = cautions(tables.run), tables.run
    if tables.scores:
        subjects, accuracy = tables.labelled["subject"].nunique(), tables.scores["accuracy"]
        if subjects < FEW:
            found.append(f"Few participants: another sample than these {subjects} may score otherwise.")
        if not run.simulated and (accuracy.numbers[0] > SUSPICIOUS or accuracy.numbers[1] > PUBLISHED):
            found.append(
                f"An accuracy of {accuracy.text('.2f')} is far above the {PUBLISHED:.2f} that honest tests on ABIDE "
                "reach. Look for a leak before you believe it."
            )
    return list(dict.fromkeys(found + run.warnings))


def sections_of(tables: Tables) -> Iterator[Section]:
    """The sections that apply, in the order of the page."""
    run = tables.run
    if run.permutations:
        yield Section("Permutations", [run.permutations.sentence], open=True)
    if found := warnings(tables):
        yield Section("Warnings", found, kind="warning")
    if run.promise:
        yield Section("Predictions of participants", [run.promise, "They are in participants.csv."], open=True)
    if tables.external is not None:
        yield from sections.external(tables, tables.external)
    if tables.scores:
        yield from sections.scored(tables)
    yield sections.flow(tables)
    if tables.table1 is not None:
        yield sections.by_diagnosis(tables.table1)
    yield how_to_repeat(run)
    yield Section("Intended use", [INTENDED_USE], open=True)
    yield Section("Methods, to paste", methods(tables))


def how_to_repeat(run: Described) -> Section:
    """The command, and when, where and with what versions the test was done; the checkpoints of pooled folds."""
    digest, key = run.weights, "checkpoint, SHA-256"
    of_folds = [{"fold": fold, key: sha256} for fold, sha256 in digest.items()] if isinstance(digest, dict) else None
    facts = {
        "started": run.started,
        "commit": run.git_commit or "-",
        "cohort": run.cohort_name,
        "cohort, SHA-256": run.cohort_sha256,
        "checkpoint": run.checkpoint_folder,
        key: "below, for each fold" if isinstance(digest, dict) else digest or "-",
        "versions": ", ".join(f"{name} {version}" for name, version in run.packages.items()) or "-",
    }
    return Section("How to repeat it", table=of_folds, facts=facts, command=quoted(run.command))
