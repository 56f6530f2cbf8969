"""Results of a blackout -> the terminal's tables, and `blackout.html`, a page that needs no network."""

import base64
import html
import re
import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from data.base.terminal import print_unless_quiet
from data.cohorts import records, variants
from data.cohorts.rows import listed
from utils.blackout import options
from utils.blackout.columns import ON_PAGE, table_rows
from utils.blackout.effects import ONE_SUBJECT
from utils.blackout.fills import RELIANCE, TESTED
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
from utils.blackout.sentences import TEMPLATES, blobs_sentence
from utils.figures import number, shortened
from utils.runs.run import Run
from utils.scores.results import Estimate

NAME_WIDTH = 23  # letters of a region's name in the terminal
TOP = 10  # regions in the terminal
LINE = "{:24}{:>28}{:>9}{:>9}{:>9}{:>12}{:>17}"  # of its table
HEADINGS = ("region", "reliance", "p", "unique", "p", "background", "size percentile")
SHOWN = 5  # problems
PLOT = '<div id="connectome-plot">'  # of nilearn
COLOURED = "Colours: reliance, the mean effect on the logit of the true class."
EXPECTED = "Warning: 'partition' will ignore the 'mask'"  # nilearn on its own mask


def print_tables(results: BlackoutResults) -> None:
    """The strongest regions, and all groups of values."""
    if results.regions:
        print_table(results.regions.table)
        print_unless_quiet(blobs_sentence(results.effects))
    if results.values:
        print_unless_quiet(LINE.format("values", *HEADINGS[1:3], *[""] * 4).rstrip())
        for row in results.values.table.to_dict("records"):
            line = LINE.format(*reliance_cells(row["group"], row), *[""] * 4).rstrip()
            print_unless_quiet(f"{line}  {row['difference_of']}: {row['direction'] or 'direction not known'}")


def reliance_cells(name: str, row: dict) -> tuple[str, str, str]:
    """The first cells of a row of the terminal's table."""
    reliance = Estimate.in_row(row, RELIANCE).text(".4f", no_interval=ONE_SUBJECT)
    return shortened(name, NAME_WIDTH), reliance, number(row[f"p_{RELIANCE}"], ".4f")


def print_table(table: pd.DataFrame) -> None:
    """The ten regions of most reliance, and which regions have no size percentile."""
    print_unless_quiet(f"The strongest of {len(table)} regions; an interval is for its region alone, p for all.")
    print_unless_quiet(LINE.format(*HEADINGS))
    for row in table.head(TOP).to_dict("records"):
        cells = (
            *reliance_cells(row["name"], row), f"{row['unique']:.4f}",
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
