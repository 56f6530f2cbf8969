"""A folder of runs -> those that are finished; a run -> tests and blackouts of the same network beside it.

They lie in the folder that holds the run's folder. A report and the page of a blackout link to each other.
"""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from data.pages.drawings import Picture
from data.pages.page import Link, Section
from utils.runs.folders import described, read_manifest
from utils.scores.results import PAGE

PAGES = {"test": PAGE, "blackout": "blackout.html", "compare": "compare.html"}
FIGURE = "blackout.png"


@dataclass(frozen=True)
class FinishedRun:
    """The folder of a run that is finished, and what its `run.json` says."""

    folder: Path

    @cached_property
    def content(self) -> dict[str, Any]:
        return described(self.folder)

    @property
    def page(self) -> Path | None:
        """Its page, if there is one."""
        path = self.folder / PAGES.get(self.content.get("job", ""), PAGE)
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
        manifest = read_manifest(path)
        if manifest is not None and manifest.finished:
            found.append(FinishedRun(path))
    return found


def of_same_network(folder: Path, job: str) -> list[FinishedRun]:
    """The runs of a job with a page beside a run's folder that are of the same checkpoints and the same people."""
    own = described(folder) if read_manifest(folder) else {}
    same = ("checkpoint_sha256", "records_sha256", "model")
    if not own.get("checkpoint_sha256"):
        return []
    every = [run for run in runs_in(folder.absolute().parent) if run.content.get("job") == job and run.page]
    return [run for run in every if all(run.content.get(name) == own.get(name) for name in same)]


def links(folder: Path, runs: list[FinishedRun]) -> list[Link]:
    """Links from the page in a folder to the pages of runs."""
    return [Link(f"{run.content['job']}: {run.name}", relative(run, folder)) for run in runs]


def relative(run: FinishedRun, folder: Path) -> str:
    return quote(Path(os.path.relpath(run.page or run.folder, folder)).as_posix())


def where_it_lies(folder: Path, blackouts: list[FinishedRun]) -> list[Section]:
    """What the report says and shows of the blackouts of its network; nothing without one. What a blackout says last,
    how much would come out in others, comes first."""
    return [
        Section(
            "Where the evidence lies" + (f": {run.name}" if len(blackouts) > 1 else ""),
            last_first([line for line in run.content.get("conclusion", "").splitlines() if line]),
            Picture((run.folder / FIGURE).read_bytes(), f"The figure of {run.name}", target=relative(run, folder)),
            open=True,
        )
        for run in blackouts
        if run.content.get("conclusion") and (run.folder / FIGURE).is_file()
    ]


def last_first(lines: list[str]) -> list[str]:
    return [*lines[-1:], *lines[:-1]]
