"""What a check found, with pictures of people -> one page."""

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from data.base import files, tables
from data.base.errors import InputError
from data.base.tables import printable
from data.base.terminal import participants
from data.check import DERIVED
from data.cohorts import records
from data.cohorts.cohort import Cohort
from data.cohorts.covariates import HEAD_MOTION, known_covariates
from data.cohorts.findings import CohortFindings
from data.cohorts.phenotype import numbers
from data.cohorts.pictures import CUTS, Pictures, Sheet, cuts_of
from data.cohorts.rows import SITE_UNKNOWN, Row
from data.likeness.scans import MIN_COVERED
from data.pages.mosaic import LARGER, LEGEND, MOTION_UNKNOWN, PICTURES, SCRIPT, Mosaic, Tile, left_out, url
from data.pages.page import Number, Page, Section, is_page, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND = "check"
BRIGHTEST = 99.5  # percent of the values of a mean map, or of a spread, that are told apart
COLOURS = {"control": "C0", "autism": "C1", "unknown": "C2"}


def check_place(page: Path) -> None:
    """Raises InputError unless `page` can be written without replacing anything but the page of an earlier check."""
    if not page.parent.is_dir() or page.is_dir():
        raise InputError(f"{page} is no place for a page; name a file in a folder that exists, such as check.html.")
    if page.exists() and not is_page(page, KIND):
        raise InputError(f"{page} exists and is no page of a check; name another file.")


def write(page: Path, cohort: Cohort, findings: CohortFindings, pictures: Pictures) -> None:
    """The page, in which all pictures lie."""
    people, motion = {row.subject: row for row in reversed(cohort.rows)}, head_motion(cohort)
    tiles = tiles_of(people, motion, findings, pictures)
    shown = [pictures.of_people[tile.name] for tile in tiles if tile.name in pictures.of_people]
    maps = pictures.maps if shown else []
    images = [Sheet(len(shown)).image([of_maps[at] for of_maps in shown]) for at in range(len(maps))]
    mosaic = Mosaic(tiles, maps, ";".join(f"--m{at}:{url(image)}" for at, image in enumerate(images)))
    problems, odd = findings.every("problems"), sum(bool(tile.odd) for tile in tiles)
    numbers_shown = [
        Number(f"{len(tiles):,}", "participants", f"{len(shown):,} of them with pictures"),
        Number(str(len(problems)), "problems", "invalidate results"),
        Number(str(odd), "participants with something odd", "listed first"),
    ]
    sections = [
        Section("Pictures of participants", [PICTURES], kind="warning"),
        *([Section("Problems", problems, kind="warning")] if problems else []),
        *not_known(cohort, motion),
        Section("Everybody", about_tiles(motion, pictures), markup=mosaic.markup, open=True),
        *([Section("What these participants can show", findings.forecast[:1], open=True)] if findings.forecast else []),
        *of_group(pictures),
        *of_motion(people, motion),
        *of_derivation(cohort.path / DERIVED),
        *of_signal(findings),
        left_out(cohort.metadata.people_left_out, "The conversion names nobody."),
        *of_headings(findings),
    ]
    mark = f" ({SITE_UNKNOWN})" if findings.site_unknown else ""
    title = f"Check of {os.path.basename(os.path.abspath(cohort.path))}{mark}"  # which may be `.`
    verdict = " ".join([findings.conclusion, *findings.forecast[1:]])
    with files.replacing(page) as file:
        file.write(render(Page(KIND, title, findings.title, sections, verdict, numbers_shown, script=SCRIPT)))


def tiles_of(
    people: dict[str, Row], motion: pd.Series | None, findings: CohortFindings, pictures: Pictures
) -> list[Tile]:
    """People, those with something odd first, then by site."""
    odd: dict[str, list[str]] = {}
    for subject, what in chain.from_iterable(part.odd for part in findings.headings.values()):
        odd.setdefault(subject, []).append(what)
    sheet, at, tiles = Sheet(len(pictures.of_people)), 0, []
    for row in sorted(people.values(), key=lambda row: (row.subject not in odd, row.site, row.subject)):
        about = [row.site, group_of(row)]
        if motion is not None and np.isfinite(moved := motion[row.subject]):
            about.append(f"{moved:.3g}")
        there = row.subject in pictures.of_people
        style = sheet.style(at) if there else "background:#000"
        tiles.append(Tile(row.subject, ", ".join(about), style, odd.get(row.subject, ())))
        at += there
    return tiles


def group_of(row: Row) -> str:
    return records.CLASSES[int(row.label)] if row.known else "unknown"


def head_motion(cohort: Cohort) -> pd.Series | None:
    """By subject, float64, NaN where unknown; None if nothing is known, or tables are damaged, which the check says."""
    try:
        table = known_covariates(cohort)
        columns = [] if table is None else HEAD_MOTION.of(table)
        values = numbers(table, columns[0]) if columns else None
    except InputError:
        return None
    return values if values is not None and values.notna().any() else None


def not_known(cohort: Cohort, motion: pd.Series | None) -> Iterator[Section]:
    """What a check cannot see and a reader must know."""
    derivation = cohort.metadata.derivation
    told = [derivation.uncleaned if derivation else "", "" if motion is not None else MOTION_UNKNOWN]
    if any(told):
        yield Section("What is not known", [*filter(None, told)], kind="warning")


def about_tiles(motion: pd.Series | None, pictures: Pictures) -> list[str]:
    """How to read the mosaic."""
    number = [] if motion is None else [f"The number below a picture is head motion, {motion.name}."]
    choose = ["Choose another map above the pictures."] if len(pictures.maps) > 1 else []
    return [
        f"A picture shows {CUTS}. {LEGEND}",
        " ".join(["Marked participants come first.", *number, *choose, LARGER]),
    ]


def of_group(pictures: Pictures) -> Iterator[Section]:
    """Mean and spread of each map over people."""
    if pictures.of_people:
        text = (
            f"Of {participants(len(pictures.of_people))}, one record each, on the grid of 6 mm; {CUTS}. Values are as "
            "records hold them: z-scores over the whole volume."
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


def of_motion(people: dict[str, Row], motion: pd.Series | None) -> Iterator[Section]:
    """Head motion by site and group: each person a point, and medians."""
    if motion is None:
        return
    rows = [people[one] for one in motion.index]
    known = pd.DataFrame({"site": [of.site for of in rows], "group": [*map(group_of, rows)], "motion": motion}).dropna()
    everybody = pd.concat([known, known.assign(site="all sites")])
    medians = everybody.groupby(["site", "group"])["motion"].median().map("{:.3g}".format).unstack(fill_value="-")
    counts = everybody["site"].value_counts()
    table = [
        {"site": site, "participants": str(counts[site]), **medians.loc[site].add_prefix("median, ")}
        for site in sorted(medians.index, key=lambda site: (site != "all sites", site))
    ]
    text = f"{motion.name}, known of {len(known)} of {participants(len(rows))}."
    yield Section("Head motion by site and group", [text], drawn_motion(known, str(motion.name)), table, open=True)


def drawn_motion(people: pd.DataFrame, name: str) -> "Figure":
    """A row a site, by group."""
    from matplotlib.figure import Figure

    sites = sorted(people["site"].unique())
    figure = Figure(figsize=(7, 0.9 + 0.36 * len(sites)), layout="constrained")
    figure.set_label("head-motion-by-site-and-group")
    axis, random = figure.subplots(), np.random.default_rng(0)
    for number, (group, of_group) in enumerate(people.groupby("group")):
        place = of_group["site"].map(sites.index) + 0.3 * (number - 0.5) + random.uniform(-0.12, 0.12, len(of_group))
        axis.scatter(of_group["motion"], place, s=14, color=COLOURS[group], alpha=0.6, linewidths=0, label=group)
    axis.set_yticks(range(len(sites)), [printable(site) for site in sites])
    axis.set_ylim(len(sites) - 0.5, -0.5)
    axis.set_xlabel(printable(name))
    axis.legend(loc="best")
    return figure


def of_derivation(path: Path) -> Iterator[Section]:
    """What `derive` wrote of each person: head motion, volumes kept, what failed; who failed comes first."""
    if path.is_file():
        table = tables.read_frame(path)
        failed = table["failed"].ne("")
        text = f"{participants(failed.sum())} of {len(table)} could not be derived. Head motion is mean FD in mm."
        rows = [{name: value or "-" for name, value in row.items()} for row in table.to_dict("records")]
        first = sorted(zip(~failed, rows, strict=True), key=lambda pair: bool(pair[0]))
        yield Section("Derivation", [text], table=[row for _, row in first], open=bool(failed.any()), filtered=True)


def of_signal(findings: CohortFindings) -> Iterator[Section]:
    """Regions and parcels of which people lack the signal."""
    table = [
        {"of": name, "region or parcel": region, "participants": str(count)}
        for name, counts in findings.without_signal.items()
        for region, count in counts.most_common()
    ]
    if table:
        what = f"A region of the AAL atlas counts as without signal if under {MIN_COVERED:.0%} of its voxels hold any."
        told = f"{what} A parcel of a connectome does if no correlation is known of it."
        yield Section("Without signal", [told], table=table, filtered=True)


def of_headings(findings: CohortFindings) -> Iterator[Section]:
    """What the check says in the terminal, but for the problems."""
    for heading, part in findings.headings.items():
        if part.counts or part.notes:
            texts = [*part.counts, *map("note: {}".format, part.notes)]
            yield Section(heading.capitalize(), texts, open=bool(part.notes))
