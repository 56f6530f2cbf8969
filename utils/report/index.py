"""A folder of runs -> `index.html` in it: a row a run: score, settings, time, picture, link to its page."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from data.base import files
from data.base.errors import InputError
from data.base.tables import make_printable
from data.pages.page import CellByHeading, HeadlineNumber, Page, Section, is_page, render_page
from utils.figures import number
from utils.report.columns import spelled
from utils.runs.record import MANIFEST_FILE, Manifest, read_manifest
from utils.scores.results import HEADLINES, NO_INTERVAL, Estimate
from utils.scores.results import PAGE as REPORT

PAGE, KIND = "index.html", "index"
PAGES = {"blackout": "blackout.html", "compare": "compare.html"}  # of the jobs whose page is no report
SCORES = dict.fromkeys(HEADLINES, NO_INTERVAL) | {"explained_variance": "no interval"}
PICTURES = ("blackout.png", "roc.png", "encodedImage.png", "history.png")  # the first that there is
MEANINGS = {
    "score": "The number that stands for the run, and its 95% interval. Compare only scores of the same participants.",
    "participants": "How participants were divided. Empty: by the split of the cohort.",
    "took": "Wall time, where it was recorded.",
}


@dataclass(frozen=True)
class FinishedRun:
    """The folder of a run that is finished, and its record."""

    folder: Path
    record: Manifest

    @property
    def page(self) -> Path | None:
        """Its page, if there is one."""
        path = self.folder / PAGES.get(self.record.job, REPORT)
        return path if path.is_file() else None

    @property
    def name(self) -> str:
        return self.folder.name


def runs_in(folder: Path) -> list[FinishedRun]:
    """The finished runs whose folders lie in a folder, by name; a `run.json` that is damaged is none."""
    found = []
    try:
        folders = sorted(folder.iterdir())
    except OSError:  # one may not list it
        return []
    for path in folders:
        with suppress(InputError):
            if (of := read_manifest(path / MANIFEST_FILE)) is not None and of.finished:
                found.append(FinishedRun(path, of))
    return found


def write(folder: Path, runs: Sequence[FinishedRun]) -> Path:
    """Writes the page of finished runs in a folder. Raises InputError if another page lies in its place."""
    path = folder / PAGE
    if path.exists() and not is_page(path, KIND):
        raise InputError(f"{path} exists and is no index of runs; move it, or name another folder.")
    jobs = Counter(run.record.job for run in runs)
    numbers = [HeadlineNumber(str(count), f"runs of {job}") for job, count in jobs.most_common()]
    rows = [row_of(run) for run in sorted(runs, key=lambda run: run.record.started, reverse=True)]
    listed = Section("Runs", table=rows, open=True, meanings=MEANINGS, filtered=True)
    about = f"{len(runs)} finished runs; abide-report makes this page anew"
    with files.open_replacement(path) as file:
        file.write(render_page(Page(KIND, f"Runs in {folder.absolute().name}", about, [listed], numbers=numbers)))
    return path


def row_of(run: FinishedRun) -> CellByHeading:
    """What its record says of a run; empty where it is silent."""
    of = run.record
    metric, *score = of.headline or ("",)
    cells = {
        "run": linked(run),
        "picture": picture(run),
        "job": of.job,
        "model": f"{of.settings.model}, {of.settings.preset}" if of.settings else "",
        "score": Estimate.of(*score).text(no_interval=SCORES[metric]) if metric in SCORES else "",
        "of": spelled(metric) if metric in SCORES else "",
        "cohort": Path(of.cohort).name + of.caveats.marks,
        "participants": people_of(of),
        "seed": str(of.settings.seed) if of.settings else "",
        "started": of.started[:16].replace("T", " "),
        "took": "" if of.wall_time_s is None else f"{number(of.wall_time_s, ',.0f')} s",
    }
    return {name: cell if isinstance(cell, Markup) else make_printable(cell) for name, cell in cells.items()}


def people_of(of: Manifest) -> str:
    """How the people of a run were divided."""
    if of.folds is None:
        return ""
    return f"folds: {of.folds}" + (f", {of.repeats} repeats" if of.repeats > 1 else "")


def linked(run: FinishedRun) -> str:
    """Its name, which opens its page."""
    if run.page is None:
        return run.name
    target = quote(f"{run.name}/{run.page.name}")
    return Markup('<a href="{}">{}</a>').format(target, make_printable(run.name))


def picture(run: FinishedRun) -> str:
    """A small figure of it, which opens its page or itself."""
    name = next((name for name in PICTURES if (run.folder / name).is_file()), None)
    if name is None:
        return ""
    of, source = run.page.name if run.page else name, quote(f"{run.name}/{name}")
    shown = Markup('<a href="{}"><img src="{}" alt="{} of {}" width="120" loading="lazy"></a>')
    return shown.format(quote(f"{run.name}/{of}"), source, name.removesuffix(".png"), make_printable(run.name))
