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
from utils.figures import format_number
from utils.report.columns import find_heading
from utils.runs.record import MANIFEST_FILE, Manifest, read_manifest
from utils.scores.results import NO_INTERVAL_TEXT, TITLE_BY_AUC, Estimate
from utils.scores.results import TEST_PAGE_FILE as TEST_REPORT_PAGE

INDEX_FILE = "index.html"
INDEX_PAGE_KIND = "index"
# of the jobs whose page is no report
PAGE_FILE_BY_JOB = {"blackout": "blackout.html", "compare": "compare.html", "agreement": "agreement.html"}
NO_INTERVAL_TEXT_BY_METRIC = dict.fromkeys(TITLE_BY_AUC, NO_INTERVAL_TEXT) | {"explained_variance": "no interval"}
PICTURE_FILES = ("blackout.png", "roc.png", "encodedImage.png", "history.png")  # the first that exists is shown
INDEX_MEANING_BY_HEADING = {
    "score": "The number that stands for the run, and its 95% interval. Compare only scores of the same participants.",
    "participants": "How participants were divided. Empty: by the split of the cohort.",
    "took": "Wall time, where it was recorded.",
}


@dataclass(frozen=True)
class FinishedRun:
    """The folder of a run that is finished, and its record."""

    run_folder: Path
    manifest: Manifest

    @property
    def page_path(self) -> Path | None:
        """Its page, if there is one."""
        expected_path = self.run_folder / PAGE_FILE_BY_JOB.get(self.manifest.job, TEST_REPORT_PAGE)
        return expected_path if expected_path.is_file() else None

    @property
    def run_folder_name(self) -> str:
        return self.run_folder.name


def find_finished_runs(runs_folder: Path) -> list[FinishedRun]:
    """The finished runs whose folders lie in a folder, by name; those with a damaged `run.json` are left out."""
    finished_runs = []
    try:
        subfolders = sorted(runs_folder.iterdir())
    except OSError:  # no permission to list it
        return []
    for candidate_path in subfolders:
        with suppress(InputError):
            if (manifest := read_manifest(candidate_path / MANIFEST_FILE)) is not None and manifest.finished:
                finished_runs.append(FinishedRun(candidate_path, manifest))
    return finished_runs


def write_index(runs_folder: Path, finished_runs: Sequence[FinishedRun]) -> Path:
    """Writes the page of finished runs in a folder. Raises InputError if another page lies in its place."""
    index_path = runs_folder / INDEX_FILE
    if index_path.exists() and not is_page(index_path, INDEX_PAGE_KIND):
        raise InputError(f"{index_path} exists and is no index of runs; move it, or name another folder.")
    run_count_by_job = Counter(finished_run.manifest.job for finished_run in finished_runs)
    headline_numbers = [
        HeadlineNumber(str(run_count), f"runs of {job}") for job, run_count in run_count_by_job.most_common()
    ]
    index_rows = [
        make_index_row(finished_run)
        for finished_run in sorted(finished_runs, key=lambda finished_run: finished_run.manifest.started, reverse=True)
    ]
    runs_section = Section("Runs", table=index_rows, open=True, meanings=INDEX_MEANING_BY_HEADING, filtered=True)
    introduction = f"{len(finished_runs)} finished runs; abide-report makes this page anew"
    with files.open_replacement(index_path) as file:
        file.write(
            render_page(
                Page(
                    INDEX_PAGE_KIND,
                    f"Runs in {runs_folder.absolute().name}",
                    introduction,
                    [runs_section],
                    numbers=headline_numbers,
                )
            )
        )
    return index_path


def make_index_row(finished_run: FinishedRun) -> CellByHeading:
    """What its record says of a run; empty where it is silent."""
    manifest = finished_run.manifest
    headline_metric, *score_and_interval = manifest.headline or ("",)
    cell_by_heading = {
        "run": make_page_link(finished_run),
        "picture": make_picture_link(finished_run),
        "job": manifest.job,
        "model": f"{manifest.settings.model}, {manifest.settings.preset}" if manifest.settings else "",
        "score": Estimate.from_numbers(*score_and_interval).text(
            no_interval_text=NO_INTERVAL_TEXT_BY_METRIC[headline_metric]
        )
        if headline_metric in NO_INTERVAL_TEXT_BY_METRIC
        else "",
        "of": find_heading(headline_metric) if headline_metric in NO_INTERVAL_TEXT_BY_METRIC else "",
        "cohort": Path(manifest.cohort).name + manifest.caveats.caveat_marks,
        "participants": describe_folds(manifest),
        "seed": str(manifest.settings.seed) if manifest.settings else "",
        "started": manifest.started[:16].replace("T", " "),
        "took": "" if manifest.wall_time_s is None else f"{format_number(manifest.wall_time_s, ',.0f')} s",
    }
    return {
        heading: cell if isinstance(cell, Markup) else make_printable(cell) for heading, cell in cell_by_heading.items()
    }


def describe_folds(manifest: Manifest) -> str:
    """How the people of a run were divided."""
    if manifest.folds is None:
        return ""
    return f"folds: {manifest.folds}" + (f", {manifest.repeats} repeats" if manifest.repeats > 1 else "")


def make_page_link(finished_run: FinishedRun) -> str:
    """The name of a run, which links to its page."""
    if finished_run.page_path is None:
        return finished_run.run_folder_name
    page_address = quote(f"{finished_run.run_folder_name}/{finished_run.page_path.name}")
    return Markup('<a href="{}">{}</a>').format(page_address, make_printable(finished_run.run_folder_name))


def make_picture_link(finished_run: FinishedRun) -> str:
    """A small figure of a run, which links to the page of the run or, without one, to the figure."""
    picture_file = next(
        (picture_file for picture_file in PICTURE_FILES if (finished_run.run_folder / picture_file).is_file()), None
    )
    if picture_file is None:
        return ""
    linked_file_name = finished_run.page_path.name if finished_run.page_path else picture_file
    picture_address = quote(f"{finished_run.run_folder_name}/{picture_file}")
    image_template = Markup('<a href="{}"><img src="{}" alt="{} of {}" width="120" loading="lazy"></a>')
    return image_template.format(
        quote(f"{finished_run.run_folder_name}/{linked_file_name}"),
        picture_address,
        picture_file.removesuffix(".png"),
        make_printable(finished_run.run_folder_name),
    )
