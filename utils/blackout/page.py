"""Results of a blackout -> `blackout.html`, a page that needs no network: a section for each family."""

import re
import warnings
from collections.abc import Iterator, Set
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup

from data.base.listing import join_names
from data.images import grids
from data.images.atlas import Atlas
from data.pages import page
from data.pages.drawings import Forest, ForestBar
from data.pages.page import HeadlineNumber, Page, Section
from utils.blackout import columns
from utils.blackout.colours import find_largest_absolute_effect, paint_effects, rank_regions
from utils.blackout.families import FeatureFamily
from utils.blackout.fills import RELIANCE_FILL
from utils.blackout.results import BlackoutResults
from utils.report.adjusted import make_adjusted_section
from utils.report.columns import make_page_rows, make_table_section
from utils.scores.results import FAMILYWISE_ALPHA, INTERVAL_TEXT, TITLE_BY_AUC, Estimate

SCRIPT_AND_STYLE_FOLDER = Path(__file__).parent
MAX_PROBLEMS_LISTED = 5  # problems to name in a warning
FOREST_BAR_COUNT = 12  # bars of the figure, more if more are significant
PAGE_TABLE_ROWS = 200  # of a table, or of a level of it; more if more are significant
SLIDER_ATTRIBUTE = 'class="slider"'  # of a control of nilearn's page that has no accessible name
EXPECTED_MASK_WARNING = "Warning: 'partition' will ignore the 'mask'"  # nilearn on its own mask


def render_blackout_page(results: BlackoutResults, adjustment_table: pd.DataFrame) -> str:
    """The page; `adjustment_table` is what the tests are adjusted for, as in `adjusted.csv`."""
    script_markup, style_markup = (
        Markup((SCRIPT_AND_STYLE_FOLDER / f"brain.{file_suffix}").read_text(encoding="utf-8"))  # noqa: S704
        for file_suffix in ("js", "css")
    )
    return page.render_page(
        Page(
            "blackout",
            results.page_title,
            f"Mean over {results.sample_description}. It shows what this {results.run.predictor.noun} uses, not what "
            "autism is.",
            [*make_blackout_sections(results, adjustment_table)],
            results.conclusion,
            make_headline_numbers(results),
            make_forest(results),
            script=script_markup if any(feature_family.atlas for feature_family in results.feature_families) else "",
            style=style_markup,
        )
    )


def make_headline_numbers(results: BlackoutResults) -> list[HeadlineNumber]:
    """How well the network predicts; how many features of each family are significant, and replicate."""
    prediction_headline = results.prediction_headline
    score_number = HeadlineNumber(
        prediction_headline.score.text(".2f", "undefined"),
        f"{TITLE_BY_AUC[prediction_headline.metric]}, {INTERVAL_TEXT}",
    )
    return (
        [score_number, *(make_family_number(results, feature_family) for feature_family in results.feature_families)]
        if results.is_conclusive
        else [score_number]
    )


def make_family_number(results: BlackoutResults, feature_family: FeatureFamily) -> HeadlineNumber:
    """How many features of a family are significant, and replicate."""
    count_row = results.family_counts.loc[feature_family.feature_kind.kind_name]
    feature_kind = feature_family.feature_kind
    is_any_significant = any(fill_effect.is_significant.any() for fill_effect in feature_family.tested_effects)
    no_finding_messages = (
        [] if is_any_significant or not feature_kind.no_finding_message else [feature_kind.no_finding_message]
    )
    return HeadlineNumber(
        f"{count_row[RELIANCE_FILL]} of {count_row['things']:,}",
        f"{feature_kind.plural_feature_name} significant",
        results.describe_replication_in_halves(feature_family),
        no_finding_messages,
    )


def make_forest(results: BlackoutResults) -> Forest | None:
    """The significant features of the first family, then the strongest; None if nothing is concluded."""
    if not results.is_conclusive:
        return None
    feature_family = results.feature_families[0]
    forest_bars = list[ForestBar]()
    for feature_index in feature_family.select_first_features(FOREST_BAR_COUNT):
        reliance_estimate = Estimate.from_row(feature_family.feature_rows.iloc[feature_index], RELIANCE_FILL)
        mean_effect, interval_low, interval_high = reliance_estimate.value_low_high
        bar_kind = "main" if feature_family.reliance_effect.is_significant[feature_index] else ""
        forest_bars.append(
            ForestBar(
                feature_family.feature_names[feature_index],
                mean_effect,
                interval_low,
                interval_high,
                reliance_estimate.text(),
                bar_kind,
            )
        )
    features_text = (
        f"{len(feature_family.feature_names)} {feature_family.feature_kind.plural_feature_name}, {INTERVAL_TEXT} of "
        "each alone"
    )
    if feature_family.reliance_effect.is_significant.any():
        return Forest(
            f"Reliance on {features_text}; bold and first: significant, p < {FAMILYWISE_ALPHA:g} over all, by p.",
            forest_bars,
            0,
        )
    return Forest(f"Reliance on the strongest of {features_text}.", forest_bars, 0)


def make_blackout_sections(results: BlackoutResults, adjustment_table: pd.DataFrame) -> Iterator[Section]:
    """In the order of the page."""
    if warning_texts := [*list_distrust_reasons(results), *results.cautions]:
        yield Section("Warnings", warning_texts, kind="warning")
    if results.is_conclusive:
        yield make_counts_section(results)
    explained_column_names = set[str]()  # columns that are explained already
    for feature_family in results.feature_families:
        if feature_family.atlas:
            yield make_brain_section(feature_family, feature_family.atlas)
        yield make_family_section(results, feature_family, explained_column_names)
        explained_column_names.update(columns.list_page_column_names(feature_family))
    yield make_adjusted_section(adjustment_table, add_table_link("What is in no test may explain a result", "adjusted"))
    yield make_replication_section(results)


def list_distrust_reasons(results: BlackoutResults) -> list[str]:
    """Why nothing of this may be believed."""
    caveats = results.run.caveats
    distrust_reasons = list[str]()
    if caveats.simulated:
        distrust_reasons.append("The data are SIMULATED: nothing here is about people.")
    if caveats.problems:
        distrust_reasons.append(
            f"PROBLEMS that invalidate these results: {join_names(caveats.problem_texts, MAX_PROBLEMS_LISTED, '; ')}"
        )
    return distrust_reasons


def make_counts_section(results: BlackoutResults) -> Section:
    """How many features of each family are significant, and replicate."""
    column_names = [column_name for column_name in columns.COUNT_COLUMN_SPECS if column_name in results.family_counts]
    if not results.people.adjuster.adjustment.covariates:
        column_names = [column_name for column_name in column_names if not column_name.endswith("_plain")]
    footnote_by_heading = {
        columns.COUNT_COLUMN_SPECS[column_name].heading: results.fill_words(footnote)
        for column_name, footnote in columns.COUNT_FOOTNOTE_BY_COLUMN.items()
        if column_name in column_names
    }
    significance_explanation = f"Significant: family-wise p < {FAMILYWISE_ALPHA:g} over all things of a family."
    significance_explanation = f"{significance_explanation} {results.omission_sentence}".strip()
    return make_table_section(
        "What is significant",
        results.family_counts,
        column_names,
        significance_explanation,
        columns.COUNT_COLUMN_SPECS,
        open=True,
        notes=footnote_by_heading,
    )


def make_family_section(
    results: BlackoutResults, feature_family: FeatureFamily, explained_column_names: Set[str]
) -> Section:
    """What is significant, by p, then what is strongest. Columns of `explained_column_names` were explained earlier on
    the page."""
    feature_kind = feature_family.feature_kind
    column_names = columns.list_page_column_names(feature_family)
    footnote_by_column = columns.make_family_footnotes(feature_family, explained_column_names)
    level_families = [level_family for level_family in (feature_family, feature_family.inner_family) if level_family]
    column_spec_by_name = {
        column_name: replace(
            column_spec,
            column_meaning=""
            if column_name in explained_column_names
            else results.fill_words(column_spec.column_meaning),
        )
        for column_name, column_spec in columns.FAMILY_COLUMN_SPECS.items()
    }
    return make_table_section(
        feature_kind.plural_feature_name.capitalize(),
        pd.concat(
            [
                level_family.feature_rows.iloc[level_family.select_first_features(PAGE_TABLE_ROWS)]
                for level_family in level_families
            ]
        ),
        column_names,
        add_table_link(feature_kind.section_explanation, feature_kind.table_file_stem),
        column_spec_by_name,
        notes={
            columns.get_family_column_heading(column_name): results.fill_words(footnote_by_column[column_name])
            for column_name in column_names
            if column_name in footnote_by_column
        },
        open=True,
        filtered=len(feature_family.ranked_table) > FOREST_BAR_COUNT,
    )


def make_replication_section(results: BlackoutResults) -> Section:
    """What is significant in halves and repeats."""
    replication_rows = make_page_rows(
        results.replication_table,
        [*columns.REPLICATION_COLUMN_SPECS],
        columns.REPLICATION_COLUMN_SPECS,
        no_interval_text="no range",
    )
    meaning_by_heading = {
        column_spec.heading: results.fill_words(column_spec.column_meaning)
        for column_spec in columns.REPLICATION_COLUMN_SPECS.values()
        if column_spec.column_meaning
    }
    table_explanation = add_table_link(
        "What is significant in all participants, in a half or in a repeat", "replication"
    )
    return Section("Replication", [table_explanation], table=replication_rows, meanings=meaning_by_heading)


def add_table_link(sentence: str, table_name: str) -> Markup:
    """A sentence about a table, and where all its rows and columns are."""
    return Markup('{0} (in full: <a href="{1}.csv">{1}.csv</a>).').format(sentence, table_name)


def make_brain_section(feature_family: FeatureFamily, atlas: Atlas) -> Section:
    """nilearn's viewer of the group map."""
    first_region_name = atlas.name_by_region[rank_regions(feature_family, atlas)[0]]
    largest_absolute_mean_effect = find_largest_absolute_effect(feature_family.reliance_effect.subject_effects.mean(0))
    pale_meaning = (
        "all is pale, as nothing is concluded" if feature_family.people.verdict else "pale is not significant"
    )
    colour_explanation = (
        f"Red speaks for the true class, blue against it (deepest at {largest_absolute_mean_effect:.3g}); "
        f"{pale_meaning}"
    )
    colour_explanation += f"; the cross-hair begins in {first_region_name}, and moves with a click."
    iframe_template = Markup('<iframe id="viewer" title="The group map in the brain" srcdoc="{}"></iframe>')
    return Section(
        "The brain",
        [colour_explanation],
        markup=iframe_template.format(render_brain_viewer(feature_family, atlas)),
        open=True,
    )


def find_innermost_voxel_mm(label_image: np.ndarray, region_number: int) -> tuple[float, ...]:
    """The voxel of a region on the full grid that is nearest to its centre, which may lie outside: mm in MNI space."""
    voxel_indices = np.argwhere(label_image == region_number)
    nearest_voxel_indices = voxel_indices[np.square(voxel_indices - voxel_indices.mean(0)).sum(1).argmin()]
    return tuple(
        float(coordinate_mm) for coordinate_mm in grids.FULL.origin_mm + grids.FULL.spacing_mm * nearest_voxel_indices
    )


def render_brain_viewer(feature_family: FeatureFamily, atlas: Atlas) -> str:
    """nilearn's interactive viewer of the group map: a page of its own, which needs no network connection."""
    from nilearn.plotting import view_img

    effect_image, view_options = paint_effects(feature_family, atlas)
    crosshair_mm = find_innermost_voxel_mm(atlas.full_region_labels, rank_regions(feature_family, atlas)[0])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", EXPECTED_MASK_WARNING, UserWarning)
        viewer_html = view_img(effect_image, cut_coords=crosshair_mm, **view_options).get_standalone()
    offline_html = re.sub(r"<link[^>]*icon[^>]*>", "", viewer_html)  # without nilearn's link to an icon
    return offline_html.replace(SLIDER_ATTRIBUTE, f'aria-label="opacity" {SLIDER_ATTRIBUTE}')
