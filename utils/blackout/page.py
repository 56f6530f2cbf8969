"""Results of a blackout -> sentences, the terminal's table, and `blackout.html`, a page that needs no network."""

import base64
import html
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import compress
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from data.base.tables import printable
from data.base.terminal import print_unless_quiet
from data.cohorts import records, variants
from data.cohorts.atlas import Atlas
from data.cohorts.records import CLASSES
from data.cohorts.rows import listed
from utils import figures
from utils.blackout import options
from utils.blackout.columns import ON_PAGE, table_rows
from utils.blackout.connections import Connections
from utils.blackout.edges import MAX_PEOPLE, regions_of_parcels
from utils.blackout.effects import ONE_SUBJECT, SUPPRESSOR, Adjusted, Effects
from utils.blackout.fills import RELIANCE, TESTED, Fills
from utils.blackout.results import (
    PALE,
    UNTESTED,
    BlackoutResults,
    Network,
    Regions,
    effect_ticks,
    largest_effect,
    painted,
    shades,
    title,
)
from utils.figures import number, shortened
from utils.runs.run import Run
from utils.scores import results
from utils.scores.results import ALPHA, MIN_PER_CLASS, Estimate

NAME_WIDTH = 23  # letters of a region's name in the terminal
TOP = 10  # regions in the terminal
LINE = "{:24}{:>28}{:>9}{:>9}{:>9}{:>12}{:>17}"  # of its table
HEADINGS = ("region", "reliance", "p", "unique", "p", "background", "size percentile")
DONORS = {"train": "training subjects", "test": "tested subjects"}  # by split
SHOWN = 5  # problems
PLOT = '<div id="connectome-plot">'  # of nilearn
COLOURED = "Colours: reliance, the mean effect on the logit of the true class."
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader([Path(__file__).parent, figures.TABLES_CSS.parent]),
    autoescape=jinja2.select_autoescape(["html"], default_for_string=False),
    undefined=jinja2.StrictUndefined,
)
TEMPLATES.globals.update(results=results)
EXPECTED = "Warning: 'partition' will ignore the 'mask'"  # nilearn on its own mask


def donors_sentence(fills: Fills) -> str:
    """Who the donors are."""
    origins: Counter = Counter()
    for (split, site), count in fills.subjects_of_origin.items():
        origins[f"{DONORS[split]} of {'any' if site is None else 'the same'} site"] += count
    subjects = origins.total()
    several = "; ".join(f"for {count} of {subjects} subjects {who}" for who, count in origins.items())
    return f"Donors: {fills.count} per record, {several if len(origins) > 1 else next(iter(origins))}."


def maps_sentence(maps: Sequence[str], replaced: np.ndarray) -> str:
    """Which of a cohort's maps were replaced, (maps,) bool; nothing if all were."""
    if replaced.all():
        return ""
    chosen, kept = (", ".join(map(printable, np.array(maps)[which])) for which in (replaced, ~replaced))
    return f"Only {chosen} of each region was replaced; {kept} stayed."


def edges_sentence(run: Run, atlas: Atlas) -> str:
    """Whether the edges of regions were replaced, and which regions have some; nothing if the network reads none."""
    cohort, regions = options.cohort_of(run), len(atlas.regions)
    if (connectomes := cohort.connectomes) is None:
        return ""
    if not options.of(run).replaces_edges(cohort):
        return said("edges_stay", named=connectomes.image is not None)
    region_of = regions_of_parcels(connectomes, atlas)
    within = region_of[region_of < regions].tolist()
    capped = len({row.subject for row in run.cohort.rows}) > MAX_PEOPLE
    counts = {"parcels": len(region_of), "within": len(within), "having": len(set(within)), "regions": regions}
    return said("edges", **counts, people=f"{MAX_PEOPLE:,}" if capped else "")


def blobs_sentence(effects: Effects) -> str:
    """How many blobs a region is compared with, and on how many records each."""
    groups, records = np.unique(effects["group"], return_counts=True)
    placed = ~np.isnan(effects["blob_excess"]).all(1)  # (records, blobs)
    blobs = sum(int(placed[effects["group"] == group].any(0).sum()) for group in groups)
    size = " to ".join(map(str, sorted({records.min(), records.max()})))
    return f"Size percentile: among {blobs} blobs per region, each on {size} records."


def accuracy_sentence(auc: Estimate, name: str) -> str:
    """How well the network predicts the subjects whose regions were occluded."""
    return said("accuracy", auc=auc, score=name)


def evidence_sentence(table: pd.DataFrame, adjusted: Adjusted) -> str:
    """Which regions are significant, given the table of regions, and beside which covariates."""
    named = [fill.name for fill in TESTED]
    chosen = {kind: table["name"][table[f"p_{kind}"] < ALPHA].tolist() for kind in named}
    before = {kind: int((table[f"p_{kind}_plain"] < ALPHA).sum()) for kind in named}
    alone = table["name"][table["remark"] == SUPPRESSOR].tolist()
    rarer = np.bincount(adjusted.label.astype(int), minlength=len(CLASSES)).min()
    counts = {"total": len(table), "rarer": int(rarer), "share": rarer / len(adjusted.label)}
    return said("evidence", chosen=chosen, before=before, alone=alone, adjusted=adjusted.beside, **counts)


def basis_sentence(adjusted: Adjusted) -> str:
    """Beside which covariates p stands where no evidence is named; nothing without p."""
    return said("basis", adjusted=adjusted.beside) if len(np.unique(adjusted.label)) > 1 else ""


def by_map_sentence(table: pd.DataFrame, adjusted: Adjusted) -> str:
    """Which pairs of region and map are significant, given `effects.map_table`; nothing if too few people have a p."""
    if np.bincount(adjusted.label.astype(int), minlength=len(CLASSES)).min() < MIN_PER_CLASS:
        return ""
    chosen = table[table[f"p_{RELIANCE}"] < ALPHA]
    pairs = [f"{row.name} in {row.map}" for row in chosen[["name", "map"]].itertuples(index=False)]
    before = int((table[f"p_{RELIANCE}_plain"] < ALPHA).sum())
    return said("by_map", pairs=pairs, before=before, total=f"{len(table):,}", adjusted=adjusted.beside)


def systems_sentence(found: Connections) -> str:
    """In which systems parcels lie, and what lies in none."""
    systems, outside = found.systems, len(found.regions)
    having = np.setdiff1d(systems.of_region[np.unique(found.region_of)], len(systems.names) - 1)
    counts = {"having": len(having), "systems": len(systems.names) - 1, "parcels": len(found.region_of)}
    unplaced = [found.regions[at] for at in systems.unplaced]
    told = {"outside": int((found.region_of == outside).sum()), "unplaced": unplaced, "alone": systems.are_regions}
    return said("systems", **counts, **told)


def connections_sentence(found: Connections) -> str:
    """Which pairs of systems, and of regions within them, are significant; nothing if nothing is concluded."""
    if not found.people.concludes:
        return ""
    family, within = found.of_systems, found.of_regions
    pairs, regions = (list(compress(one.things, one.named)) if one else [] for one in (family, within))
    counts = {"before": int((family.plain < ALPHA).sum()), "total": f"{len(family.things):,}"}
    inner = {"regions": regions, "inner": f"{len(found.chosen):,}"}
    return said("connections", pairs=pairs, **counts, **inner, adjusted=found.people.adjusted.beside)


def said(macro: str, **values: object) -> str:
    """The text of a macro of `sentences.jinja` on one line; not escaped for HTML."""
    return " ".join(getattr(TEMPLATES.get_template("sentences.jinja").module, macro)(**values).split())


def print_table(table: pd.DataFrame) -> None:
    """The ten regions of most reliance, and which regions have no size percentile."""
    print_unless_quiet(f"The strongest of {len(table)} regions; an interval is for its region alone, p for all.")
    print_unless_quiet(LINE.format(*HEADINGS))
    for row in table.head(TOP).to_dict("records"):
        reliance = Estimate.in_row(row, RELIANCE).text(".4f", no_interval=ONE_SUBJECT)
        cells = (
            shortened(row["name"], NAME_WIDTH), reliance, number(row["p_reliance"], ".4f"), f"{row['unique']:.4f}",
            number(row["p_unique"], ".4f"), f"{row['background']:.4f}", number(row["size_percentile"], ".0f"),
        )  # fmt: skip
        print_unless_quiet(LINE.format(*cells))
    unplaced = table[table["size_percentile"].isna()].itertuples()
    if regions := listed([f"{shortened(row.name, NAME_WIDTH)} ({row.voxels} voxels)" for row in unplaced]):
        print_unless_quiet(
            f"No size percentile, since no connected part of the brain has room for a blob of the size of: {regions}."
        )


def record_maps(results: BlackoutResults, regions: Regions) -> dict:
    """What the page draws a record's map from: slices of the atlas and of the MNI152 template, front upward, each
    record's effects, and the colours."""
    effects, atlas = results.effects, regions.atlas
    rows = zip(effects.rows, effects["probability"].tolist(), effects[RELIANCE].round(5).tolist(), strict=True)
    return {
        "shape": [len(regions.cuts), *atlas.full.shape[1::-1]],
        "slices": encoded_slices(atlas.full, regions, "<i4"),
        "anatomy": encoded_slices(anatomy(), regions, "u1"),
        "colours": [to_hex(colour) for colour in shades(1)],
        "cuts": [*regions.cuts.values()],
        "regions": atlas.regions,
        "subjects": [
            {"name": row.file, "label": int(row.label), "probability": round(probability, 4), "effect": effect}
            for row, probability, effect in rows
        ],
    }


def encoded_slices(volume: np.ndarray, regions: Regions, kind: str) -> str:
    """The slices at `cuts` of a volume on the full grid, (slice, row, column) with the front upward, as base64."""
    slices = np.ascontiguousarray(volume[:, ::-1, [*regions.cuts]].transpose(2, 1, 0), kind)
    return base64.b64encode(slices.tobytes()).decode()


@cache
def anatomy() -> np.ndarray:
    """The MNI152 template that nilearn carries, on the full grid, 0 to 255 (Fonov et al. 2011); read-only, since the
    pages of all folds share it."""
    from nilearn.datasets import load_mni152_template
    from nilearn.image import resample_img

    affine, shape = np.array(records.FULL.affine), records.FULL.shape
    template = resample_img(load_mni152_template(2), affine, shape, interpolation="nearest").get_fdata()
    found = np.clip(255 * template / template.max(), 0, 255)
    found.setflags(write=False)
    return found


def innermost_voxel(labels: np.ndarray, region: int) -> tuple[float, ...]:
    """The voxel of a region on the full grid that is nearest to its centre, which may lie outside: mm in MNI space."""
    voxels = np.argwhere(labels == region)
    nearest = voxels[np.square(voxels - voxels.mean(0)).sum(1).argmin()]
    return tuple(float(at) for at in records.FULL.origin_mm + records.FULL.spacing_mm * nearest)


def viewer(regions: Regions) -> str:
    """nilearn's interactive viewer of the group map: a page of its own."""
    from nilearn.plotting import view_img

    image, options = painted(regions)
    crossed = innermost_voxel(regions.atlas.full, regions.ranked[0])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", EXPECTED, UserWarning)
        return standalone(view_img(image, cut_coords=crossed, **options))


def network_viewer(network: Network) -> str:
    """nilearn's interactive viewer of pairs of regions: a page of its own, with their names."""
    from nilearn.plotting import view_connectome

    names = [html.escape(name) for name in network.names]  # they stand in a script
    options = {"node_labels": names, "node_color": "black", "node_size": 5, "colorbar_fontsize": 14}
    page = standalone(view_connectome(network.effect, network.centre, **options))
    return page.replace(PLOT, f'<p style="font-family: sans-serif">{network.shown} {COLOURED}</p>\n{PLOT}', 1)


def standalone(view: Any) -> str:
    """A page that needs no network connection: without nilearn's link to an icon."""
    return re.sub(r"<link[^>]*icon[^>]*>", "", view.get_standalone())


def render(run: Run, results: BlackoutResults) -> str:
    """The page: a section for each thing that was replaced, with sortable tables; of regions also the interactive
    viewer, and a map of each record drawn from the atlas's slices."""
    regions = results.regions
    of_regions = (
        {}
        if regions is None
        else {
            "viewer": viewer(regions),
            "drawing": record_maps(results, regions),
            "ticks": [f"{tick:.3g}" for tick in effect_ticks(largest_effect(regions.table[RELIANCE]))],
            "start": regions.table.set_index("region")["name"][regions.ranked[0]],
            "marked": regions.significant().any(),
        }
    )
    return TEMPLATES.get_template("page.html").render(
        title=title(run, results),
        found=results,
        regions=regions,
        replaced=results.families,
        caveats=run.caveats,
        problems=listed(run.caveats.problems, SHOWN, "; "),
        on_page=ON_PAGE,
        tested=TESTED,
        background=variants.BACKGROUND[run.standard],
        connectome=options.CONNECTOME,
        table_rows=table_rows,
        pale=PALE,
        untested=UNTESTED,
        **of_regions,
    )
