"""What a check found, with pictures of people -> one page, and sheets of their other maps beside it."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import pandas as pd

from data.base import files
from data.base.errors import InputError
from data.base.tables import printable
from data.cohorts import records
from data.cohorts.cohort import Cohort
from data.cohorts.covariates import HEAD_MOTION, known_covariates
from data.cohorts.phenotype import numbers
from data.cohorts.pictures import CUTS, Pictures, Sheet, cuts_of
from data.cohorts.rows import SITE_UNKNOWN, Row
from data.cohorts.seal import CohortFindings
from data.likeness.scans import MIN_COVERED
from data.pages.mosaic import (
    CHOOSE,
    LARGER,
    LEGEND,
    MOTION_UNKNOWN,
    PICTURES,
    SCRIPT,
    SHEET,
    Mosaic,
    Tile,
    counted,
    left_out,
    sheet_name,
    url,
)
from data.pages.page import Number, Page, Section, is_page, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND = "check"
BRIGHTEST = 99.5  # percent of the values of a mean map, or of a spread, that are told apart
COLOURS = {"control": "C0", "autism": "C1", "unknown": "C2"}


def check_place(page: Path) -> None:
    """Raises InputError unless `page`, and the folder beside it, can be written without replacing anything but what an
    earlier check wrote."""
    if not page.parent.is_dir() or page.is_dir():
        raise InputError(f"{page} is no place for a page; name a file in a folder that exists, such as check.html.")
    if page.exists() and not is_page(page, KIND):
        raise InputError(f"{page} exists and is no page of a check; name another file.")
    beside = folder_beside(page)
    if beside.exists() and not (  # of pictures that a check wrote; without its page nobody knows
        page.exists() and beside.is_dir() and all(SHEET.fullmatch(path.name) for path in beside.iterdir())
    ):
        raise InputError(f"{beside} is needed for pictures and holds something else; name another file than {page}.")


def folder_beside(page: Path) -> Path:
    """Where the pictures of all maps but the first lie."""
    return page.with_name(f"{page.stem}_files")


@dataclass(frozen=True)
class People:
    """Everybody of a cohort, by subject, as the first record has them."""

    rows: dict[str, Row]
    motion: pd.Series | None  # float64, NaN where unknown; None if nothing is known, or tables are damaged

    @classmethod
    def of(cls, cohort: Cohort) -> "People":
        return cls({row.subject: row for row in reversed(cohort.rows)}, head_motion(cohort))


def write(page: Path, cohort: Cohort, findings: CohortFindings, pictures: Pictures) -> None:
    """The page, and the folder beside it if there are several maps. The page comes first: it says whose folder it is
    if the command is killed meanwhile."""
    people, beside = People.of(cohort), folder_beside(page)
    tiles = tiles_of(people, findings, pictures)
    maps = list(pictures.maps) if pictures.of_people else []
    shown = [pictures.of_people[tile.name] for tile in tiles if tile.name in pictures.of_people]
    images = [Sheet(len(shown)).image([of_maps[at] for of_maps in shown]) for at in range(len(maps))]
    sheets = {sheet_name(at, maps[at]): image for at, image in enumerate(images) if at}
    urls = [*map(url, images[:1]), *(f"url({quote(beside.name)}/{name})" for name in sheets)]
    mosaic = Mosaic(tiles, maps, ";".join(f"--m{at}:{of}" for at, of in enumerate(urls)))
    with files.replacing(page) as file:
        file.write(render(page_of(cohort, findings, pictures, people, mosaic)))
    if sheets:
        beside.mkdir(exist_ok=True)
    for name, image in sheets.items():
        with files.replacing(beside / name, "wb") as file:
            file.write(image)
    for path in beside.iterdir() if beside.exists() else ():  # of an earlier check, perhaps of other maps
        if path.name not in sheets:
            path.unlink()


def tiles_of(people: People, findings: CohortFindings, pictures: Pictures) -> list[Tile]:
    """People, those with something odd first, then by site."""
    odd: dict[str, list[str]] = {}
    for subject, what in chain.from_iterable(part.odd for part in findings.headings.values()):
        odd.setdefault(subject, []).append(what)
    ordered = sorted(people.rows.values(), key=lambda row: (row.subject not in odd, row.site, row.subject))
    sheet, at, tiles = Sheet(len(pictures.of_people)), 0, []
    for row in ordered:
        about = [row.site, group_of(row)]
        if people.motion is not None and np.isfinite(moved := people.motion[row.subject]):
            about.append(f"{moved:.3g}")
        there = row.subject in pictures.of_people
        style = sheet.style(at) if there else "background:#000"
        tiles.append(Tile(row.subject, ", ".join(about), style, odd.get(row.subject, ())))
        at += there
    return tiles


def group_of(row: Row) -> str:
    return records.CLASSES[int(row.label)] if row.known else "unknown"


def head_motion(cohort: Cohort) -> pd.Series | None:
    """That of `People`."""
    try:
        table = known_covariates(cohort)
        if table is None or not (columns := HEAD_MOTION.of(table)):
            return None
        values = numbers(table, columns[0])
    except InputError:  # which the check says
        return None
    return values if values.notna().any() else None


def page_of(cohort: Cohort, findings: CohortFindings, pictures: Pictures, people: People, mosaic: Mosaic) -> Page:
    problems, odd = findings.every("problems"), sum(bool(tile.odd) for tile in mosaic.tiles)
    numbers_shown = [
        Number(f"{len(mosaic.tiles):,}", "people", f"{len(pictures.of_people):,} of them with pictures"),
        Number(str(len(problems)), "problems", "invalidate results"),
        Number(str(odd), "people with something odd", "listed first"),
    ]
    concluded = "warning" if problems or findings.site_unknown else "conclusion"
    sections = [
        Section("Pictures of people", [PICTURES], kind="warning"),
        Section("Conclusion", [findings.conclusion, *problems], kind=concluded),
        *([Section("What these people can show", findings.forecast, kind="conclusion")] if findings.forecast else []),
        *not_known(cohort, people),
        Section("Everybody", about_tiles(people, pictures, odd), markup=mosaic.markup, open=True),
        *of_group(pictures),
        *of_motion(people),
        *of_signal(findings),
        left_out(cohort.metadata.people_left_out, "The conversion names nobody."),
        *of_headings(findings),
    ]
    mark = f" ({SITE_UNKNOWN})" if findings.site_unknown else ""
    title = f"Check of {os.path.basename(os.path.abspath(cohort.path))}{mark}"  # which may be `.`
    return Page(KIND, title, findings.title, sections, numbers_shown, script=SCRIPT)


def not_known(cohort: Cohort, people: People) -> Iterator[Section]:
    """What a check cannot see and a reader must know."""
    derivation = cohort.metadata.derivation
    uncleaned, unknown = derivation.uncleaned if derivation else "", "" if people.motion is not None else MOTION_UNKNOWN
    if told := [*filter(None, [uncleaned, unknown])]:
        yield Section("What is not known", told, kind="warning")


def about_tiles(people: People, pictures: Pictures, odd: int) -> list[str]:
    """How to read the mosaic."""
    motion = people.motion
    number = [] if motion is None else [f"The number below a picture is head motion, {motion.name}."]
    marked = ["Marked people come first: the check found something odd about them."] if odd else []
    return [
        f"A picture shows {CUTS}. {LEGEND}",
        " ".join([*marked, *number, CHOOSE if len(pictures.maps) > 1 else "", LARGER]),
    ]


def of_group(pictures: Pictures) -> Iterator[Section]:
    """Mean and spread of each map over people."""
    if not pictures.of_people:
        return
    text = (
        f"Of {counted(len(pictures.of_people))}, one record each, on the grid of 6 mm; {CUTS}. Values are as records "
        "hold them: z-scores over the whole volume."
    )
    yield Section("Mean and spread of the group", [text], drawn_group(pictures), open=True)


def drawn_group(pictures: Pictures) -> "Figure":
    """A row a map: its mean and, of several people, its standard deviation over them, each with its scale."""
    from matplotlib.figure import Figure

    rows = [pictures.mean_and_sd(at) for at in range(len(pictures.maps))]
    figure = Figure(figsize=(4.2 * len(rows[0]), 0.3 + 1.5 * len(rows)), layout="constrained")
    figure.set_label("mean-and-spread-of-the-group")
    axes = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for at, name in enumerate(pictures.maps):
        for axis, (what, volume) in zip(axes[at], rows[at].items(), strict=True):
            values = cuts_of(volume, records.REDUCED.affine, records.REDUCED.spacing_mm)
            low, high = values.min(), np.percentile(values, BRIGHTEST)
            image = axis.imshow(values, cmap="inferno" if what == "SD" else "gray", vmin=low, vmax=high)
            axis.set_axis_off()
            axis.set_title(f"{printable(name)}, {what}")
            figure.colorbar(image, ax=axis, shrink=0.9, aspect=12)
    return figure


def of_motion(people: People) -> Iterator[Section]:
    """Head motion by site and group: points and medians."""
    motion = people.motion
    if motion is None:
        return
    rows = [people.rows[one] for one in motion.index]
    sites, labels = [row.site for row in rows], [group_of(row) for row in rows]
    known = pd.DataFrame({"site": sites, "group": labels, "motion": motion}).dropna()
    groups = [group for group in COLOURS if (known["group"] == group).any()]
    table = [
        {
            "site": site,
            "people": str(len(of_site)),
            **{f"median, {group}": median_of(of_site, group) for group in groups},
        }
        for site, of_site in [("all sites", known), *known.groupby("site")]
    ]
    text = f"{motion.name}, known of {len(known):,} of {len(rows):,} people. A dot is a person, a line a median."
    yield Section(
        "Head motion by site and group", [text], drawn_motion(known, groups, str(motion.name)), table, open=True
    )


def median_of(people: pd.DataFrame, group: str) -> str:
    of_group = people.loc[people["group"] == group, "motion"]
    return f"{of_group.median():.3g}" if len(of_group) else "-"


def drawn_motion(people: pd.DataFrame, groups: Sequence[str], name: str) -> "Figure":
    """A row a site: each person a point, by group, with the groups' medians."""
    from matplotlib.figure import Figure

    sites = sorted(people["site"].unique())
    figure = Figure(figsize=(7, 0.9 + 0.36 * len(sites)), layout="constrained")
    figure.set_label("head-motion-by-site-and-group")
    axis, random = figure.subplots(), np.random.default_rng(0)
    for number, group in enumerate(groups):
        of_group = people[people["group"] == group]
        place = of_group["site"].map(sites.index).to_numpy() + (number - (len(groups) - 1) / 2) * 0.36
        jitter = random.uniform(-0.12, 0.12, len(place))
        axis.scatter(
            of_group["motion"], place + jitter, s=14, color=COLOURS[group], alpha=0.6, linewidths=0, label=group
        )
        medians = of_group["motion"].groupby(place).median()
        axis.plot(medians, medians.index, "|", color=COLOURS[group], markersize=13, markeredgewidth=2)
    axis.set_yticks(range(len(sites)), [printable(site) for site in sites])
    axis.set_ylim(len(sites) - 0.5, -0.5)
    axis.set_xlabel(printable(name))
    axis.legend(loc="best")
    return figure


def of_signal(findings: CohortFindings) -> Iterator[Section]:
    """Regions and parcels of which people lack the signal."""
    table = [
        {"of": name, "region or parcel": region, "people": str(count)}
        for name, counts in findings.without_signal.items()
        for region, count in counts.most_common()
    ]
    if findings.without_signal:
        what = f"A region of the AAL atlas counts as without signal if under {MIN_COVERED:.0%} of its voxels hold any."
        told = f"{what} A parcel of a connectome does if no correlation is known of it."
        nobody = [] if table else ["Everybody has signal everywhere."]
        yield Section("Without signal", [told, *nobody], table=table or None, filtered=bool(table))


def of_headings(findings: CohortFindings) -> Iterator[Section]:
    """What the check says in the terminal, but for the problems."""
    for heading, part in findings.headings.items():
        if part.counts or part.notes:
            yield Section(
                heading.capitalize(), [*part.counts, *map("note: {}".format, part.notes)], open=bool(part.notes)
            )
