"""Results of a blackout -> what a browser draws of them: nilearn's viewers, and slices for the map of each record."""

import base64
import html
import re
import warnings
from functools import cache
from typing import Any

import numpy as np
from matplotlib.colors import to_hex

from data.cohorts import records
from utils.blackout.fills import RELIANCE
from utils.blackout.results import PALE, BlackoutResults, Network, Regions, on_white, painted, shades

PLOT = '<div id="connectome-plot">'  # of nilearn
SLIDER = 'class="slider"'  # of nilearn, which does not name it
COLOURED = "Colours: reliance, the mean effect on the logit of the true class."
EXPECTED = "Warning: 'partition' will ignore the 'mask'"  # nilearn on its own mask


def record_maps(results: BlackoutResults, regions: Regions) -> dict:
    """What the page draws a record's map from: slices of the atlas and of the MNI152 template, front upward, each
    record's effects, and the colours."""
    effects, atlas = results.effects, regions.atlas
    rows = zip(effects.rows, effects["probability"].tolist(), effects[RELIANCE].round(5).tolist(), strict=True)
    return {
        "shape": [len(regions.cuts), *atlas.full.shape[1::-1]],
        "slices": encoded_slices(atlas.full, regions, "<i4"),
        "anatomy": encoded_slices(anatomy(), regions, "u1"),
        "colours": [to_hex(colour) for colour in on_white(shades(PALE))],
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
        page = standalone(view_img(image, cut_coords=crossed, **options))
    return page.replace(SLIDER, f'aria-label="opacity" {SLIDER}')


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
