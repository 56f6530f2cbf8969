"""Results of a blackout -> `blackout.html`, a page that needs no network: a section for each family."""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.colors import to_hex

from data.cohorts import records, variants
from data.cohorts.atlas import Atlas
from data.cohorts.rows import listed
from data.pages import page
from data.pages.drawings import Bar, Forest
from data.pages.page import Number, Page, Section
from utils.blackout import columns
from utils.blackout.colours import PALE, Matrix, effect_ticks, largest_effect, on_white, painted, ranked, shades
from utils.blackout.effects import ONE_SUBJECT
from utils.blackout.families import Family, Verdict
from utils.blackout.fills import RELIANCE
from utils.blackout.replication import HALVES
from utils.blackout.results import BlackoutResults
from utils.blackout.sentences import TEMPLATES, counts, families_in, in_repeats
from utils.scores.metrics import HEADLINES
from utils.scores.results import ALPHA, INTERVAL, Estimate

HERE = Path(__file__).parent
SHOWN = 5  # problems
INTERVALS = (
    "Below an effect stands its 95% interval, for this row alone. Of so many the strongest look stronger than they are."
)
STRONGEST = 12  # bars of the figure, more if more are named
ROWS = 200  # of a table, or of a level of it; more if more are named
STOPS = 17  # colours of a bar of them
BRAIN = "brain.html"  # the template of what is of this page alone
SLIDER = 'class="slider"'  # of nilearn, which does not name it
EXPECTED = "Warning: 'partition' will ignore the 'mask'"  # nilearn on its own mask


def render(found: BlackoutResults) -> str:
    """The page."""
    script, style = (Markup((HERE / f"brain.{form}").read_text(encoding="utf-8")) for form in ("js", "css"))  # noqa: S704
    return page.render(
        Page(
            "blackout",
            found.title,
            f"Mean over {found.sample}. It shows what this network uses, not what autism is.",
            [*sections(found)],
            found.first[0],
            numbers(found),
            forest(found),
            script=script if any(family.atlas for family in found.families) else "",
            style=style,
        )
    )


def numbers(found: BlackoutResults) -> list[Number]:
    """How well the network predicts; how many things of each family are named, and come out in halves."""
    judged, verdict = found.judged, found.people.verdict
    score = Number(judged.score.text(".2f", "undefined"), f"{HEADLINES[judged.metric]}, {INTERVAL}")
    if verdict is not Verdict.OPEN:
        return [score, Number("nothing", "is named", f"{str(verdict).capitalize()}.")]
    halves, shown = families_in(found.replication, HALVES), [score]
    for family in found.families:
        named, again = counts(halves[family.kind.name])
        out = f"; {again} come out in halves of these participants" if named else ""
        count = f"{named} of {len(family.things):,}"
        shown.append(Number(count, f"{family.kind.many} named", f"p < {ALPHA:g} over all{out}"))
    return shown


def forest(found: BlackoutResults) -> Forest | None:
    """The strongest things of the first family, and those that are named; None if nothing can be named."""
    if found.people.verdict is not Verdict.OPEN:
        return None
    family = found.families[0]
    kept = family.named | (np.arange(len(family.things)) < STRONGEST)
    rows = family.table.head(len(family.things))[kept].to_dict("records")
    names = np.array(family.things)[family.order[kept]].tolist()
    bars = [bar(*of) for of in zip(names, rows, family.named[kept].tolist(), strict=True)]
    named = f"Bold: named, p < {ALPHA:g} over all" if family.named.any() else "None is named"
    what = f"Reliance on the strongest and the named of {len(family.things)} {family.kind.many}"
    return Forest(f"{what}, {INTERVAL} of each alone. {named}.", bars, 0)


def bar(name: str, row: dict[str, Any], named: bool) -> Bar:
    """Of the reliance on a thing."""
    reliance = Estimate.in_row(row, RELIANCE)
    value, low, high = reliance.numbers
    return Bar(name, value, low, high, reliance.text(".3f", no_interval=ONE_SUBJECT), "main" if named else "")


def sections(found: BlackoutResults) -> Iterator[Section]:
    """In the order of the page."""
    yield Section("What may be concluded", found.said, kind="warning")
    if warnings := cautions(found):
        yield Section("Warnings", warnings, kind="warning")
    background = variants.BACKGROUND[found.run.standard]
    meanings = {name: text.replace("{background}", background) for name, text in columns.MEANINGS.items()}
    for family in found.families:
        if family.atlas:
            yield of_brain(found, family, family.atlas)
        yield of_family(family, meanings)
    rows = columns.table_rows(found.replication, columns.OF_REPLICATION)
    about = in_repeats(found.replication) or None
    yield Section("Would it come out in others", about, table=rows, meanings=meanings)


def cautions(found: BlackoutResults) -> list[str]:
    """What a reader must know before any number."""
    caveats, told = found.run.caveats, list[str]()
    if caveats.simulated:
        told.append("The data are SIMULATED: nothing here is about participants.")
    if caveats.problems:
        told.append(f"PROBLEMS that invalidate these results: {listed(caveats.problems, SHOWN, '; ')}.")
    return told


def of_family(family: Family, meanings: dict[str, str]) -> Section:
    """What is named or strongest, and a matrix as a table of colours if the family has one."""
    kind, table = family.kind, family.table
    named = np.concatenate([of.named for of in (family, family.inner) if of])
    shown = table[named | (table["rank"] <= ROWS)]
    about = [*filter(None, [kind.about]), *([family.shading] if family.axes else [])]
    about += [INTERVALS, file(kind.table)]
    matrix = markup("matrix", kind.title, Matrix.of(family, family.axes)) if family.axes else None
    rows, many = columns.table_rows(shown, columns.columns_of(family)), len(table) > STRONGEST
    return Section(kind.title, about, table=rows, markup=matrix, meanings=meanings, open=True, filtered=many)


def file(name: str) -> Markup:
    """Where all columns are."""
    return Markup('All rows and columns are in <a href="{0}.csv">{0}.csv</a>.').format(name)


def of_brain(found: BlackoutResults, family: Family, atlas: Atlas) -> Section:
    """nilearn's viewer of the group map."""
    start = atlas.names[ranked(family, atlas)[0]]
    cross = f"Reliance, mean over {found.sample}. Click into the brain to move the cross-hair, which begins in {start}."
    ticks = [f"{tick:.3g}" for tick in effect_ticks(largest_effect(family.reliance.of_people.mean(0)))]
    drawn = markup("group_map", viewer(family, atlas), stops(), bool(family.named.any()), ticks)
    return Section("The brain", [cross, family.shading], markup=drawn, open=True)


def innermost_voxel(labels: np.ndarray, region: int) -> tuple[float, ...]:
    """The voxel of a region on the full grid that is nearest to its centre, which may lie outside: mm in MNI space."""
    voxels = np.argwhere(labels == region)
    nearest = voxels[np.square(voxels - voxels.mean(0)).sum(1).argmin()]
    return tuple(float(at) for at in records.FULL.origin_mm + records.FULL.spacing_mm * nearest)


def viewer(family: Family, atlas: Atlas) -> str:
    """nilearn's interactive viewer of the group map: a page of its own, which needs no network connection."""
    from nilearn.plotting import view_img

    image, options = painted(family, atlas)
    crossed = innermost_voxel(atlas.full, ranked(family, atlas)[0])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", EXPECTED, UserWarning)
        view = view_img(image, cut_coords=crossed, **options).get_standalone()
    offline = re.sub(r"<link[^>]*icon[^>]*>", "", view)  # without nilearn's link to an icon
    return offline.replace(SLIDER, f'aria-label="opacity" {SLIDER}')


def stops() -> dict[str, list[str]]:
    """Colours from the largest effect against the true class on, full and pale, for CSS."""
    every = {name: on_white(shades(opacity)) for name, opacity in (("full", 1), ("pale", PALE))}
    return {
        name: [to_hex(colour) for colour in of[np.linspace(0, len(of) - 1, STOPS).astype(int)]]
        for name, of in every.items()
    }


def markup(macro: str, *values: Any) -> Markup:
    """What is of this page alone, by a macro of its template."""
    return Markup(getattr(TEMPLATES.get_template(BRAIN).module, macro)(*values))  # noqa: S704  it escapes what it takes
