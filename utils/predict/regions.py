"""A person's regions in turn replaced by the background -> how far the logit of autism falls: the blackout that needs
nobody else. Exact, as `utils/blackout/occlusion.py` computes it."""

from typing import Any

import numpy as np

from data.cohorts import records
from data.cohorts.atlas import Atlas, load_atlas
from data.cohorts.cohort import Cohort
from utils.blackout.edges import edges_of_regions, regions_of_parcels
from utils.blackout.measure import logit_of_autism
from utils.blackout.occlusion import Occlusion
from utils.blackout.options import CONNECTOME


def background_effects(network: Any, cohort: Cohort) -> np.ndarray:
    """The logit of autism of the first record minus that with a region of AAL replaced in all maps, and its edges
    unknown, (regions,) float64: positive where the region speaks for autism."""
    atlas, occlusion = load_atlas(None, cohort.grid), Occlusion(network)
    tables = {CONNECTOME: cohort.connectomes} if occlusion.edges is not None else {}
    batch = cohort.batch([0], tables=tables)
    kept = occlusion.keep(batch)
    outside = [records.background(values) for values in np.moveaxis(batch["volume"][0], -1, 0)]
    fill = np.array(outside, np.float32)[None, None, None, None]
    masks = [atlas.labels == region for region in atlas.regions]
    shown = logit_of_autism(occlusion.logits(kept))
    effects = shown - logit_of_autism(occlusion.occluded_logits(kept, fill, masks))[:, 0]
    return effects if occlusion.edges is None else effects + of_edges(occlusion, cohort, atlas, batch[CONNECTOME])


def of_edges(occlusion: Occlusion, cohort: Cohort, atlas: Atlas, edges: np.ndarray) -> np.ndarray:
    """How far the logit falls if the edges of each region are unknown (regions,), of those of the record (1, edges)."""
    connectomes = cohort.connectomes
    assert connectomes is not None and occlusion.edges is not None
    own = edges_of_regions(regions_of_parcels(connectomes, atlas), connectomes.pairs, len(atlas.regions))
    replaced = np.repeat(edges, len(own), axis=0)
    for row, places in zip(replaced, own, strict=True):
        row[places] = np.nan
    return logit_of_autism(occlusion.edges(edges)) - logit_of_autism(occlusion.edges(replaced))
