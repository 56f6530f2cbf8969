"""Results of a blackout -> `blackout.html`, a page that needs no network: a section for each family."""

import re
import warnings
from collections.abc import Iterator, Set
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup

from data.cohorts import records, variants
from data.cohorts.atlas import Atlas
from data.cohorts.rows import join_names
from data.pages import page
from data.pages.drawings import Forest, ForestBar
from data.pages.page import HeadlineNumber, Page, Section
from utils.blackout import columns
from utils.blackout.colours import largest_effect, painted, ranked
from utils.blackout.families import Family
from utils.blackout.fills import RELIANCE
from utils.blackout.results import BlackoutResults
from utils.report.adjusted import adjusted_section
from utils.report.columns import rows_of, section
from utils.scores.results import ALPHA, HEADLINES, INTERVAL, Estimate

HERE = Path(__file__).parent
SHOWN = 5  # problems
STRONGEST = 12  # bars of the figure, more if more are significant
ROWS = 200  # of a table, or of a level of it; more if more are significant
SLIDER = 'class="slider"'  # of nilearn, which does not name it
EXPECTED = "Warning: 'partition' will ignore the 'mask'"  # nilearn on its own mask


def render(found: BlackoutResults, adjusted: pd.DataFrame) -> str:
    """The page; `adjusted` is what the tests are adjusted for, as in `adjusted.csv`."""
    script, style = (Markup((HERE / f"brain.{form}").read_text(encoding="utf-8")) for form in ("js", "css"))  # noqa: S704
    return page.render_page(
        Page(
            "blackout",
            found.title,
            f"Mean over {found.sample}. It shows what this network uses, not what autism is.",
            [*sections(found, adjusted)],
            found.verdict,
            numbers(found),
            forest(found),
            script=script if any(family.atlas for family in found.families) else "",
            style=style,
        )
    )


def numbers(found: BlackoutResults) -> list[HeadlineNumber]:
    """How well the network predicts; how many things of each family are significant, and replicate."""
    judged = found.judged
    score = HeadlineNumber(judged.score.text(".2f", "undefined"), f"{HEADLINES[judged.metric]}, {INTERVAL}")
    return [score, *(number_of(found, family) for family in found.families)] if found.is_open else [score]


def number_of(found: BlackoutResults, family: Family) -> HeadlineNumber:
    """How many things of a family are significant, and replicate."""
    row, kind = found.counted.loc[family.kind.name], family.kind
    by_any = any(effect.significant.any() for effect in family.tested)
    notes = [] if by_any or not kind.none else [kind.none]
    return HeadlineNumber(
        f"{row[RELIANCE]} of {row['things']:,}", f"{kind.many} significant", found.replicates(family), notes
    )


def forest(found: BlackoutResults) -> Forest | None:
    """The significant things of the first family, then the strongest; None if nothing is concluded."""
    if not found.is_open:
        return None
    family, bars = found.families[0], list[ForestBar]()
    for thing in family.first(STRONGEST):
        reliance = Estimate.in_row(family.rows.iloc[thing], RELIANCE)
        value, low, high = reliance.numbers
        kind = "main" if family.reliance.significant[thing] else ""
        bars.append(ForestBar(family.things[thing], value, low, high, reliance.text(), kind))
    what = f"{len(family.things)} {family.kind.many}, {INTERVAL} of each alone"
    if family.reliance.significant.any():
        return Forest(f"Reliance on {what}; bold and first: significant, p < {ALPHA:g} over all, by p.", bars, 0)
    return Forest(f"Reliance on the strongest of {what}.", bars, 0)


def sections(found: BlackoutResults, adjusted: pd.DataFrame) -> Iterator[Section]:
    """In the order of the page."""
    if warnings := [*mistrusted(found), *found.cautions]:
        yield Section("Warnings", warnings, kind="warning")
    if found.is_open:
        yield of_counts(found)
    background, told = (
        variants.FILL_TEXT_BY_STANDARD[found.run.standardisation],
        set[str](),
    )  # columns that are explained already
    for family in found.families:
        if family.atlas:
            yield of_brain(family, family.atlas)
        yield of_family(family, background, told)
        told.update(columns.columns_of(family))
    yield adjusted_section(adjusted, in_file("What is in no test may explain a result", "adjusted"))
    yield of_replication(found)


def mistrusted(found: BlackoutResults) -> list[str]:
    """Why nothing of this may be believed."""
    caveats, told = found.run.caveats, list[str]()
    if caveats.simulated:
        told.append("The data are SIMULATED: nothing here is about people.")
    if caveats.problems:
        told.append(f"PROBLEMS that invalidate these results: {join_names(caveats.problems, SHOWN, '; ')}")
    return told


def of_counts(found: BlackoutResults) -> Section:
    """How many things of each family are significant, and replicate."""
    names = [name for name in columns.OF_COUNTS if name in found.counted]
    if not found.people.adjusted.beside.covariates:
        names = [name for name in names if not name.endswith("_plain")]
    notes = {columns.OF_COUNTS[name].label: text for name, text in columns.COUNT_NOTES.items() if name in names}
    about = f"Significant: family-wise p < {ALPHA:g} over all things of a family."
    return section("What is significant", found.counted, names, about, columns.OF_COUNTS, open=True, notes=notes)


def of_family(family: Family, background: str, told: Set[str]) -> Section:
    """What is significant, by p, then what is strongest. Columns of `told` are explained before."""
    kind, names = family.kind, columns.columns_of(family)
    notes = columns.notes_of(family, told)
    levels = [level for level in (family, family.inner) if level]
    explained = {
        name: replace(of, meaning="" if name in told else of.meaning.replace("{background}", background))
        for name, of in columns.COLUMNS.items()
    }
    return section(
        kind.many.capitalize(),
        pd.concat([level.rows.iloc[level.first(ROWS)] for level in levels]),
        names,
        in_file(kind.about, kind.table),
        explained,
        notes={columns.label(name): notes[name] for name in names if name in notes},
        open=True,
        filtered=len(family.table) > STRONGEST,
    )


def of_replication(found: BlackoutResults) -> Section:
    """What is significant in halves and repeats."""
    rows = rows_of(found.replication, [*columns.OF_REPLICATION], columns.OF_REPLICATION, no_interval="no range")
    meanings = {of.label: of.meaning for of in columns.OF_REPLICATION.values() if of.meaning}
    about = in_file("What is significant in all participants, in a half or in a repeat", "replication")
    return Section("Replication", [about], table=rows, meanings=meanings)


def in_file(about: str, name: str) -> Markup:
    """A sentence about a table, and where all its rows and columns are."""
    return Markup('{0} (in full: <a href="{1}.csv">{1}.csv</a>).').format(about, name)


def of_brain(family: Family, atlas: Atlas) -> Section:
    """nilearn's viewer of the group map."""
    start, largest = atlas.name_by_region[ranked(family, atlas)[0]], largest_effect(family.reliance.of_people.mean(0))
    pale = "all is pale, as nothing is concluded" if family.people.verdict else "pale is not significant"
    about = f"Red speaks for the true class, blue against it (deepest at {largest:.3g}); {pale}"
    about += f"; the cross-hair begins in {start}, and moves with a click."
    drawn = Markup('<iframe id="viewer" title="The group map in the brain" srcdoc="{}"></iframe>')
    return Section("The brain", [about], markup=drawn.format(viewer(family, atlas)), open=True)


def innermost_voxel(labels: np.ndarray, region: int) -> tuple[float, ...]:
    """The voxel of a region on the full grid that is nearest to its centre, which may lie outside: mm in MNI space."""
    voxels = np.argwhere(labels == region)
    nearest = voxels[np.square(voxels - voxels.mean(0)).sum(1).argmin()]
    return tuple(float(at) for at in records.FULL.origin_mm + records.FULL.spacing_mm * nearest)


def viewer(family: Family, atlas: Atlas) -> str:
    """nilearn's interactive viewer of the group map: a page of its own, which needs no network connection."""
    from nilearn.plotting import view_img

    image, options = painted(family, atlas)
    crossed = innermost_voxel(atlas.full_region_labels, ranked(family, atlas)[0])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", EXPECTED, UserWarning)
        view = view_img(image, cut_coords=crossed, **options).get_standalone()
    offline = re.sub(r"<link[^>]*icon[^>]*>", "", view)  # without nilearn's link to an icon
    return offline.replace(SLIDER, f'aria-label="opacity" {SLIDER}')
