"""What a check found, with pictures of people -> one page."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from data.base import files, tables
from data.base.errors import InputError
from data.base.tables import make_printable
from data.base.terminal import format_participants
from data.check import DERIVATION_TABLE
from data.cohorts.cohort import Cohort
from data.cohorts.covariates import load_all_covariates
from data.cohorts.findings import CohortFindings
from data.cohorts.rows import RecordRow
from data.images import grids
from data.images.pictures import SLICES_CAPTION, PeoplePictures, PictureSheet, sample_slices
from data.likeness.scans import MIN_COVERED_FRACTION
from data.pages.mosaic import (
    ENLARGE_HINT,
    MOSAIC_LEGEND,
    MOSAIC_SCRIPT,
    MOTION_UNKNOWN_WARNING,
    PICTURES_WARNING,
    Mosaic,
    Tile,
    make_css_url,
    make_left_out_section,
)
from data.pages.page import HeadlineNumber, Page, Section, is_page, render_page
from data.tables import vocabulary
from data.tables.covariates import HEAD_MOTION_KIND
from data.tables.phenotype import parse_number_column
from data.tables.vocabulary import SITE_UNKNOWN_MARK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHECK_PAGE_KIND = "check"
BRIGHTEST_PERCENTILE = 99.5  # percentile of the values of a mean or SD map that is drawn brightest
COLOUR_BY_GROUP = {"control": "C0", "autism": "C1", "unknown": "C2"}


def check_page_path(page_path: Path) -> None:
    """Raises InputError unless `page_path` can be written without replacing anything but the page of an earlier
    check."""
    if not page_path.parent.is_dir() or page_path.is_dir():
        raise InputError(
            f"{page_path} is no place for a page; name a file in a folder that exists, such as check.html."
        )
    if page_path.exists() and not is_page(page_path, CHECK_PAGE_KIND):
        raise InputError(f"{page_path} exists and is no page of a check; name another file.")


def write_check_page(page_path: Path, cohort: Cohort, findings: CohortFindings, pictures: PeoplePictures) -> None:
    """Writes the page, which contains all pictures."""
    row_by_subject = {row.subject: row for row in reversed(cohort.rows)}
    head_motion_by_subject = read_head_motion(cohort)
    tiles = make_tiles(row_by_subject, head_motion_by_subject, findings, pictures)
    map_images_per_person = [
        pictures.pictures_by_subject[tile.name] for tile in tiles if tile.name in pictures.pictures_by_subject
    ]
    mosaic = make_mosaic(tiles, pictures.map_names if map_images_per_person else [], map_images_per_person)

    problem_texts = [problem.text for problem in findings.problems]
    marked_people_count = sum(bool(tile.outlier_notes) for tile in tiles)
    picture_count_text = f"{len(map_images_per_person):,} of them with pictures" if pictures.map_names else ""
    headline_numbers = [
        HeadlineNumber(f"{len(tiles):,}", "participants", picture_count_text),
        HeadlineNumber(str(len(problem_texts)), "problems", "invalidate results"),
        HeadlineNumber(str(marked_people_count), "participants with something odd", "listed first"),
    ]
    problem_sections = [Section("Problems", problem_texts, kind="warning")] if problem_texts else []
    forecast_sections = list[Section]()
    if findings.forecast_sentences:
        forecast_sections.append(
            Section("What these participants can show", findings.forecast_sentences[:1], open=True)
        )
    picture_warning_sections = list[Section]()
    if pictures.map_names:
        picture_warning_sections.append(Section("Pictures of participants", [PICTURES_WARNING], kind="warning"))
    sections = [
        *picture_warning_sections,
        *problem_sections,
        *make_caveat_sections(cohort, head_motion_by_subject),
        Section("Everybody", describe_mosaic(head_motion_by_subject, pictures), markup=mosaic.markup, open=True),
        *forecast_sections,
        *make_group_sections(pictures),
        *make_motion_sections(row_by_subject, head_motion_by_subject),
        *make_derivation_sections(cohort.path / DERIVATION_TABLE),
        *make_no_signal_sections(findings),
        make_left_out_section(cohort.metadata.left_out_people_by_reason, "The conversion names nobody."),
        *make_heading_sections(findings),
    ]

    site_suffix = f" ({SITE_UNKNOWN_MARK})" if findings.is_site_unknown else ""
    page_title = f"Check of {os.path.basename(os.path.abspath(cohort.path))}{site_suffix}"  # which may be `.`
    verdict = " ".join([findings.conclusion, *findings.forecast_sentences[1:]])
    page = Page(CHECK_PAGE_KIND, page_title, findings.title, sections, verdict, headline_numbers, script=MOSAIC_SCRIPT)
    with files.open_replacement(page_path) as page_file:
        page_file.write(render_page(page))


def make_tiles(
    row_by_subject: dict[str, RecordRow],
    head_motion_by_subject: pd.Series | None,
    findings: CohortFindings,
    pictures: PeoplePictures,
) -> list[Tile]:
    """People, those with something odd first, then by site."""
    oddities_by_subject: dict[str, list[str]] = {}
    for heading_findings in findings.findings_by_heading.values():
        for subject, oddity in heading_findings.outliers:
            oddities_by_subject.setdefault(subject, []).append(oddity)
    marked_first_rows = sorted(
        row_by_subject.values(), key=lambda row: (row.subject not in oddities_by_subject, row.site, row.subject)
    )

    sheet = PictureSheet(len(pictures.pictures_by_subject))
    picture_index = 0
    tiles = []
    for row in marked_first_rows:
        caption_words = [row.site, name_diagnosis_group(row)]
        if head_motion_by_subject is not None and np.isfinite(head_motion_by_subject[row.subject]):
            caption_words.append(f"{head_motion_by_subject[row.subject]:.3g}")
        has_picture = row.subject in pictures.pictures_by_subject
        tile_style = sheet.make_css_style(picture_index) if has_picture else "background:#000"
        tiles.append(Tile(row.subject, ", ".join(caption_words), tile_style, oddities_by_subject.get(row.subject, ())))
        picture_index += has_picture
    return tiles


def make_mosaic(
    tiles: list[Tile], map_names: Sequence[str], map_images_per_person: Sequence[Sequence[np.ndarray]]
) -> Mosaic:
    """The tiles with a sheet of all pictures of each map, which is a variable of CSS."""
    sheet_css_texts = list[str]()
    for map_index in range(len(map_names)):
        map_images = [person_images[map_index] for person_images in map_images_per_person]
        sheet_image = PictureSheet(len(map_images)).encode_pictures(map_images)
        sheet_css_texts.append(f"--m{map_index}:{make_css_url(sheet_image)}")
    return Mosaic(tiles, map_names, ";".join(sheet_css_texts))


def name_diagnosis_group(row: RecordRow) -> str:
    return vocabulary.CLASS_NAMES[int(row.label)] if row.is_labelled else "unknown"


def read_head_motion(cohort: Cohort) -> pd.Series | None:
    """Head motion by subject, float64, NaN where unknown; None if all is unknown, or if tables are damaged (a
    problem)."""
    try:
        covariates = load_all_covariates(cohort)
        if covariates is None:
            return None
        motion_columns = HEAD_MOTION_KIND.find_matching_column_names(covariates)
        if not motion_columns:
            return None
        head_motion_by_subject = parse_number_column(covariates, motion_columns[0])
    except InputError:
        return None
    return head_motion_by_subject if head_motion_by_subject.notna().any() else None


def make_caveat_sections(cohort: Cohort, head_motion_by_subject: pd.Series | None) -> Iterator[Section]:
    """What a check cannot see and a reader must know."""
    derivation = cohort.metadata.derivation
    caveat_sentences = list[str]()
    if derivation and derivation.uncleaned_warning:
        caveat_sentences.append(derivation.uncleaned_warning)
    if head_motion_by_subject is None:
        caveat_sentences.append(MOTION_UNKNOWN_WARNING)
    if caveat_sentences:
        yield Section("What is not known", caveat_sentences, kind="warning")


def describe_mosaic(head_motion_by_subject: pd.Series | None, pictures: PeoplePictures) -> list[str]:
    """How to read the mosaic."""
    reading_sentences = ["Marked participants come first."]
    if not pictures.map_names:
        if head_motion_by_subject is not None:
            reading_sentences.append(f"The number is head motion, {head_motion_by_subject.name}.")
        return [" ".join(reading_sentences)]
    if head_motion_by_subject is not None:
        reading_sentences.append(f"The number below a picture is head motion, {head_motion_by_subject.name}.")
    if len(pictures.map_names) > 1:
        reading_sentences.append("Choose another map above the pictures.")
    reading_sentences.append(ENLARGE_HINT)
    return [f"A picture shows {SLICES_CAPTION}. {MOSAIC_LEGEND}", " ".join(reading_sentences)]


def make_group_sections(pictures: PeoplePictures) -> Iterator[Section]:
    """Mean and spread of each map over people."""
    if pictures.pictures_by_subject:
        group_sentence = (
            f"Of {format_participants(len(pictures.pictures_by_subject))}, one record each, on the grid of 6 mm; "
            f"{SLICES_CAPTION}. Values are as records hold them: z-scores over the whole volume."
        )
        yield Section("Mean and spread of the group", [group_sentence], draw_group_mean_and_spread(pictures), open=True)


def draw_group_mean_and_spread(pictures: PeoplePictures) -> "Figure":
    """A row a map: its mean and, of several people, its standard deviation over them, each with its scale."""
    from matplotlib.figure import Figure

    statistic_volumes_per_map = [
        pictures.compute_mean_and_sd(map_index) for map_index in range(len(pictures.map_names))
    ]
    map_count = len(statistic_volumes_per_map)
    statistic_count = len(statistic_volumes_per_map[0])
    figure = Figure(figsize=(4.2 * statistic_count, 0.3 + 1.5 * map_count), layout="constrained")
    figure.set_label("mean-and-spread-of-the-group")
    axes_grid = figure.subplots(map_count, statistic_count, squeeze=False)
    for map_index, map_name in enumerate(pictures.map_names):
        for panel_axes, (statistic_name, statistic_volume) in zip(
            axes_grid[map_index], statistic_volumes_per_map[map_index].items(), strict=True
        ):
            slice_values = sample_slices(statistic_volume, grids.REDUCED.affine, grids.REDUCED.spacing_mm)
            darkest = slice_values.min()
            brightest = np.percentile(slice_values, BRIGHTEST_PERCENTILE)
            image = panel_axes.imshow(
                slice_values, cmap="inferno" if statistic_name == "SD" else "gray", vmin=darkest, vmax=brightest
            )
            panel_axes.set_axis_off()
            panel_axes.set_title(f"{make_printable(map_name)}, {statistic_name}")
            figure.colorbar(image, ax=panel_axes, shrink=0.9, aspect=12)
    return figure


def make_motion_sections(
    row_by_subject: dict[str, RecordRow], head_motion_by_subject: pd.Series | None
) -> Iterator[Section]:
    """Head motion by site and group: each person a point, and medians."""
    if head_motion_by_subject is None:
        return
    rows = [row_by_subject[subject] for subject in head_motion_by_subject.index]
    measured_motion_table = pd.DataFrame(
        {
            "site": [row.site for row in rows],
            "group": [*map(name_diagnosis_group, rows)],
            "motion": head_motion_by_subject,
        }
    ).dropna()
    motion_table_with_all_sites = pd.concat([measured_motion_table, measured_motion_table.assign(site="all sites")])
    median_text_by_site_and_group = (
        motion_table_with_all_sites.groupby(["site", "group"])["motion"]
        .median()
        .map("{:.3g}".format)
        .unstack(fill_value="-")
    )
    people_count_by_site = motion_table_with_all_sites["site"].value_counts()
    table_rows = [
        {
            "site": site,
            "participants": str(people_count_by_site[site]),
            **median_text_by_site_and_group.loc[site].add_prefix("median, "),
        }
        for site in sorted(median_text_by_site_and_group.index, key=lambda site: (site != "all sites", site))
    ]
    motion_sentence = (
        f"{head_motion_by_subject.name}, known of {len(measured_motion_table)} of {format_participants(len(rows))}."
    )
    yield Section(
        "Head motion by site and group",
        [motion_sentence],
        draw_motion(measured_motion_table, str(head_motion_by_subject.name)),
        table_rows,
        open=True,
    )


def draw_motion(motion_table: pd.DataFrame, motion_column_name: str) -> "Figure":
    """A row a site, by group."""
    from matplotlib.figure import Figure

    sites = sorted(motion_table["site"].unique())
    figure = Figure(figsize=(7, 0.9 + 0.36 * len(sites)), layout="constrained")
    figure.set_label("head-motion-by-site-and-group")
    axes = figure.subplots()
    random_generator = np.random.default_rng(0)
    for group_index, (group, group_rows) in enumerate(motion_table.groupby("group")):
        y_positions = (
            group_rows["site"].map(sites.index)
            + 0.3 * (group_index - 0.5)
            + random_generator.uniform(-0.12, 0.12, len(group_rows))
        )
        axes.scatter(
            group_rows["motion"], y_positions, s=14, color=COLOUR_BY_GROUP[group], alpha=0.6, linewidths=0, label=group
        )
    axes.set_yticks(range(len(sites)), [make_printable(site) for site in sites])
    axes.set_ylim(len(sites) - 0.5, -0.5)
    axes.set_xlabel(make_printable(motion_column_name))
    axes.legend(loc="best")
    return figure


def make_derivation_sections(derivation_table_path: Path) -> Iterator[Section]:
    """What `derive` wrote of each person: head motion, volumes kept, what failed; who failed comes first."""
    if derivation_table_path.is_file():
        derivation_table = tables.read_csv_frame(derivation_table_path)
        is_failed = derivation_table["failed"].ne("")
        failure_sentence = (
            f"{format_participants(is_failed.sum())} of {len(derivation_table)} could not be derived. Head motion is "
            "mean FD in mm."
        )
        failed_rows = derivation_table[is_failed].to_dict("records")
        derived_rows = derivation_table[~is_failed].to_dict("records")
        table_rows = []
        for derivation_row in [*failed_rows, *derived_rows]:
            table_rows.append({column: cell or "-" for column, cell in derivation_row.items()})
        yield Section(
            "Derivation",
            [failure_sentence],
            table=table_rows,
            open=bool(is_failed.any()),
            filtered=True,
        )


def make_no_signal_sections(findings: CohortFindings) -> Iterator[Section]:
    """Regions and parcels without signal, and in how many people."""
    table_rows = [
        {"of": map_or_series, "region or parcel": region, "participants": str(people_count)}
        for map_or_series, people_count_by_region in findings.no_signal_counts_by_map.items()
        for region, people_count in people_count_by_region.most_common()
    ]
    if table_rows:
        region_sentence = (
            f"A region of the AAL atlas counts as without signal if under {MIN_COVERED_FRACTION:.0%} of its voxels "
            "hold any."
        )
        signal_text = f"{region_sentence} A parcel of a connectome does if no correlation is known of it."
        yield Section("Without signal", [signal_text], table=table_rows, filtered=True)


def make_heading_sections(findings: CohortFindings) -> Iterator[Section]:
    """What the check says in the terminal, but for the problems."""
    for heading, heading_findings in findings.findings_by_heading.items():
        if heading_findings.counts or heading_findings.notes:
            sentences = [*heading_findings.counts, *map("note: {}".format, heading_findings.notes)]
            yield Section(heading.capitalize(), sentences, open=bool(heading_findings.notes))
