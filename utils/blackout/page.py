"""Results of a blackout -> `blackout.html`, a page that needs no network."""

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.colors import to_hex

from data.cohorts import records, variants
from data.cohorts.rows import listed
from data.pages import page
from data.pages.drawings import Bar, Forest
from data.pages.page import Number, Page, Section
from utils.blackout import columns, options
from utils.blackout.connections import SYSTEMS
from utils.blackout.effects import ONE_SUBJECT
from utils.blackout.fills import FILLS, RELIANCE
from utils.blackout.replication import HALVES
from utils.blackout.replication_words import counts, families
from utils.blackout.results import (
    PALE,
    BlackoutResults,
    ByMap,
    Pairs,
    Regions,
    Things,
    effect_ticks,
    largest_effect,
    on_white,
    painted,
    shades,
    title,
)
from utils.blackout.sentences import TEMPLATES
from utils.report.texts import sentences
from utils.runs.run import Run
from utils.scores.metrics import HEADLINES
from utils.scores.results import ALPHA, INTERVAL, MIN_PER_CLASS, Estimate

HERE = Path(__file__).parent
CALLED = {"regions": "regions", "connections": "pairs of systems", "values": "groups of values"}
SHOWN = 5  # problems
STRONGEST = 12  # bars of the figure, more if more are named
STOPS = 17  # colours of a bar of them
FRAMED = "A significant pair has a frame."
BRAIN = "brain.html"  # the template of what is of this page alone
SLIDER = 'class="slider"'  # of nilearn, which does not name it
EXPECTED = "Warning: 'partition' will ignore the 'mask'"  # nilearn on its own mask


def render(run: Run, results: BlackoutResults) -> str:
    """The page: a section for each thing that was replaced; of regions also the interactive viewer."""
    script, style = (Markup((HERE / f"brain.{form}").read_text(encoding="utf-8")) for form in ("js", "css"))  # noqa: S704
    return page.render(
        Page(
            "blackout",
            title(run, results),
            f"Mean over {results.sample}. It shows what this network uses, not what autism is.",
            [*sections(run, results)],
            numbers(results),
            forest(results),
            script=script if results.regions else "",
            style=style,
        )
    )


def tested_together(results: BlackoutResults) -> dict[str, Things]:
    """The families of the headline, by their names in `replication.csv`."""
    pairs = results.connections.of(SYSTEMS) if results.connections else None
    every = {"regions": results.regions, "connections": pairs, "values": results.values}
    return {name: of for name, of in every.items() if of}


def numbers(results: BlackoutResults) -> list[Number]:
    """How well the network predicts; how many things of each family are named, and come out in halves."""
    judged, found = results.judged, list[Number]()
    score = Number(judged.score.text(".2f", "undefined"), f"{HEADLINES[judged.metric]}, {INTERVAL}")
    if results.at_chance:
        return [score, Number("nothing", "is named", "The network is not shown to be better than chance.")]
    halves = families(results.replication, HALVES) if results.replication is not None else {}
    for name, of in tested_together(results).items():
        if of.is_tested:
            count = int(of.significant().sum())
            again = counts(halves[name])[1] if count and name in halves else None
            out = "" if again is None else f"; {again} come out in halves of these people"
            found.append(Number(f"{count} of {len(of.table)}", f"{CALLED[name]} named", f"p < {ALPHA:g} over all{out}"))
    nothing = f"p needs people of both classes, {MIN_PER_CLASS} of each or more."
    return [score, *(found or [Number("nothing", "is named", nothing)])]


def forest(results: BlackoutResults) -> Forest | None:
    """The strongest things of the first family, and those that are named; None if nothing can be named."""
    for name, of in tested_together(results).items():
        if of.is_tested:
            table = of.table.assign(named=of.significant())
            table = table[table["named"] | (table[RELIANCE].rank(ascending=False, method="first") <= STRONGEST)]
            bars = [bar(of, row) for row in table.to_dict("records")]
            named = f"Bold: named, p < {ALPHA:g} over all" if table["named"].any() else "None is named"
            what = f"Reliance on the strongest and the named of {len(of.table)} {CALLED[name]}"
            return Forest(f"{what}, {INTERVAL} of each alone. {named}.", bars, 0)
    return None


def bar(of: Things, row: dict[str, Any]) -> Bar:
    """Of the reliance on a thing."""
    name = f"{row['a']} and {row['b']}" if isinstance(of, Pairs) else row["group" if "group" in row else "name"]
    reliance = Estimate.in_row(row, RELIANCE)
    value, low, high = reliance.numbers
    return Bar(name, value, low, high, reliance.text(".3f", no_interval=ONE_SUBJECT), "main" if row["named"] else "")


def sections(run: Run, results: BlackoutResults) -> Iterator[Section]:
    """In the order of the page."""
    told = [results.first_sentence, *results.summary.splitlines()]
    concluded = [sentence for line in told for sentence in sentences(line) if sentence]
    yield Section("What may be concluded", concluded, kind="conclusion")
    if found := cautions(run, results):
        yield Section("Warnings", found, kind="warning")
    if regions := results.regions:
        yield from of_regions(run, results, regions)
    if by_map := results.by_map:
        yield of_maps(by_map)
    if pairs := results.connections:
        yield of_connections(results, pairs)
    if groups := results.values:
        yield of_values(groups)
    if (again := results.replication) is not None:
        rows = columns.table_rows(again)
        about = [*results.more] or None
        yield Section("Would it come out in others", about, table=rows, meanings=columns.OF_REPLICATION)
    yield Section("What was replaced", replaced(results.families))


def cautions(run: Run, results: BlackoutResults) -> list[str]:
    """What a reader must know before any number."""
    caveats, found = run.caveats, []
    if caveats.simulated:
        found.append("The data are SIMULATED: nothing here is about people.")
    if caveats.problems:
        found.append(f"PROBLEMS that invalidate these results: {listed(caveats.problems, SHOWN, '; ')}.")
    if results.at_chance:
        found.append(
            "The network is not shown to be better than chance on these subjects: there is nothing to explain, and "
            "nothing below says where autism is."
        )
    return found


def replaced(names: Sequence[str]) -> list[str]:
    """How effects are made, and which p belong together."""
    things = " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))).capitalize()
    effect = (
        "The effect of each is how much the logit of the true class falls: positive where it speaks for this class."
    )
    found = [f"{things} are replaced one at a time. {effect}"]
    if len(names) > 1:
        each = "A p is corrected for all rows of its own family, and for no other family."
        found.append(f"{things} are {len(names)} families, and each has its own p. {each}")
    return found


def file(name: str) -> Markup:
    """Where all columns are."""
    return Markup('All columns are in <a href="{0}">{0}</a>.').format(name)


def of_regions(run: Run, results: BlackoutResults, regions: Regions) -> Iterator[Section]:
    """The brain and the table of regions, first its most telling columns."""
    start = regions.table.set_index("region")["name"][regions.ranked[0]]
    cross = (
        f"Reliance, mean over {results.sample}. Click into the brain to move the cross-hair, which begins in {start}."
    )
    ticks = [f"{tick:.3g}" for tick in effect_ticks(largest_effect(regions.table[RELIANCE]))]
    marked = regions.significant().any()
    drawn = markup("group_map", viewer(regions), stops(), marked, ticks)
    yield Section("The brain", [cross, regions.shading], markup=drawn, open=True)
    background = variants.BACKGROUND[run.standard]
    meanings = columns.MEANINGS | {fill.name: fill.meaning.replace("{background}", background) for fill in FILLS}
    about = [
        "Below an effect stands its 95% interval, for this region alone. Of so many regions the strongest look "
        "stronger than they are."
    ]
    rows = columns.table_rows(regions.table, columns.FIRST)
    yield Section("Regions", about, table=rows, meanings=meanings, open=True, filtered=True)
    about = [file("regions.csv")]
    if results.by_map:
        about.append("In which map people differ, and which way, is in Region by map.")
    yield Section("Regions, all columns", about, table=columns.table_rows(regions.table), meanings=meanings)


def innermost_voxel(labels: np.ndarray, region: int) -> tuple[float, ...]:
    """The voxel of a region on the full grid that is nearest to its centre, which may lie outside: mm in MNI space."""
    voxels = np.argwhere(labels == region)
    nearest = voxels[np.square(voxels - voxels.mean(0)).sum(1).argmin()]
    return tuple(float(at) for at in records.FULL.origin_mm + records.FULL.spacing_mm * nearest)


def viewer(regions: Regions) -> str:
    """nilearn's interactive viewer of the group map: a page of its own, which needs no network connection."""
    from nilearn.plotting import view_img

    image, options = painted(regions)
    crossed = innermost_voxel(regions.atlas.full, regions.ranked[0])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", EXPECTED, UserWarning)
        view = view_img(image, cut_coords=crossed, **options).get_standalone()
    offline = re.sub(r"<link[^>]*icon[^>]*>", "", view)  # without nilearn's link to an icon
    return offline.replace(SLIDER, f'aria-label="opacity" {SLIDER}')


def of_maps(of: ByMap) -> Section:
    """The significant or strongest pairs, and all as a table of colours."""
    about = [
        *sentences(of.summary),
        "Each region is replaced by another person's in one map alone; the other maps stay. The table of colours shows "
        "the mean reliance on each pair, tested over all pairs together. Regions with findings come first, then those "
        "with the strongest effect in a map.",
        "A sum over maps is the reliance on the region only if each network reads one map.",
    ]
    if options.CONNECTOME in of.maps:
        about.append(f"In the column {options.CONNECTOME} the region's edges alone are replaced.")
    found = of.significant().any()
    which = "The significant pairs" if found else "The strongest pairs, none of which is marked"
    about += [f"{which}, then all. {of.shading} {FRAMED}", file("regions_by_map.csv")]
    rows, drawn = columns.table_rows(of.first, columns.BY_MAP), markup("matrix", "region", of.matrix)
    return Section(
        "Region by map", shown(about), table=rows, markup=drawn, meanings=over("all pairs"), open=bool(found)
    )


def of_connections(results: BlackoutResults, of: Pairs) -> Section:
    """All pairs, then those of systems as a table of colours."""
    about = [
        *sentences(of.summary),
        "The edges between two systems of the brain are replaced by those of other people; all else stays. The table "
        "of colours shows the mean reliance on each pair of systems, tested over all of them together. On the diagonal "
        "are the edges within a system. In the systems that are found, pairs of regions are tested, too.",
        f"{of.of(SYSTEMS).shading} {FRAMED}",
        file("connections.csv"),
    ]
    rows, drawn = columns.table_rows(of.table, columns.CONNECTIONS), markup("matrix", "system", of.matrix)
    meanings, is_open = over("all pairs of its level"), results.regions is None or bool(of.significant().any())
    return Section(
        "Connections", shown(about), table=rows, markup=drawn, meanings=meanings, open=is_open, filtered=True
    )


def of_values(of: Things) -> Section:
    """All groups of values."""
    about = [
        *sentences(of.summary),
        "A group of values is replaced by those of other people; all else stays.",
        file("values.csv"),
    ]
    meanings = over("all groups of values, each without the covariates that tell the same")
    rows = columns.table_rows(of.table, columns.VALUES)
    return Section("Values of the phenotype", shown(about), table=rows, meanings=meanings, open=True)


def shown(about: Sequence[str]) -> list[str]:
    return [text for text in about if text]


def over(things: str) -> dict[str, str]:
    """The meanings of columns where p is over these things."""
    return columns.MEANINGS | {"p": f"Family-wise p of reliance over {things}: {columns.ALL_PEOPLE}"}


def stops() -> dict[str, list[str]]:
    """Colours from the largest effect against the true class on, full and pale, for CSS."""
    every = {name: on_white(shades(opacity)) for name, opacity in (("full", 1), ("pale", PALE))}
    return {name: [to_hex(colour) for colour in of[:: len(of) // (STOPS - 1)]] for name, of in every.items()}


def markup(macro: str, *values: Any) -> Markup:
    """What is of this page alone, by a macro of its template."""
    return Markup(getattr(TEMPLATES.get_template(BRAIN).module, macro)(*values))  # noqa: S704  it escapes what it takes
