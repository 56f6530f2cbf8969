"""Connectomes of known truth for a simulated cohort: some regions correlate more with each other in autism.

A region of AAL is a parcel. Series of all parcels share networks, which people express to different degrees and sites
alike, and a global signal that grows with head motion; correlations of so few volumes err, together where edges share a
parcel. A difference, or what edges carry, is added to the Fisher z of edges between chosen pairs of regions.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from data.cohorts import connectomes, records
from data.cohorts.atlas import Atlas, load_atlas
from data.cohorts.cohort import Cohort
from data.cohorts.stored import open_cohort, write_tables

PLANTED = (
    "Frontal_Sup_Medial_L", "Cingulum_Post_R", "Precuneus_L", "Angular_R", "Temporal_Mid_L", "ParaHippocampal_R",
)  # fmt: skip
Pairs = tuple[tuple[str, str], ...]
VOLUMES, NETWORKS = 150, 12
OF_PEOPLE, OF_SITES, OF_MOTION = 0.25, 0.15, 0.3  # spread of how much of a network, and of the global signal, is there


def draw(atlas: Atlas, covariates: pd.DataFrame, seed: int) -> np.ndarray:
    """Fisher z (people, edges) float32 of people with these `site` and `func_mean_fd`."""
    random, parcels = np.random.default_rng(seed), len(atlas.regions)
    upper = np.triu_indices(parcels, 1)
    loading = random.normal(0, 0.5, (parcels, NETWORKS)) * (random.random((parcels, NETWORKS)) < 0.4)
    of_site = {site: random.normal(0, OF_SITES, NETWORKS) for site in sorted(set(covariates["site"]))}
    motion = np.log(covariates["func_mean_fd"].astype(float)).to_numpy()
    found = np.empty((len(covariates), len(upper[0])), np.float32)
    for at, site in enumerate(covariates["site"]):
        own = loading * (1 + of_site[site] + random.normal(0, OF_PEOPLE, NETWORKS))
        own += random.normal(0, 0.1, own.shape)
        together = np.exp(OF_MOTION * (motion[at] - motion.mean()) + random.normal(0, OF_PEOPLE))
        series = random.normal(size=(VOLUMES, NETWORKS)) @ own.T + together * random.normal(0, 0.5, (VOLUMES, 1))
        series += random.normal(size=series.shape)
        found[at] = np.arctanh(np.corrcoef(series.T)[upper])
    return found


def edges_between(atlas: Atlas, pairs: Pairs) -> np.ndarray:
    """Which edges (edges,) bool lie between the regions of a pair."""
    place = {atlas.names[region]: at for at, region in enumerate(atlas.regions)}
    among = np.sort([[place[name] for name in pair] for pair in pairs], axis=1).T
    chosen = np.zeros((len(place), len(place)), bool)
    chosen[tuple(among)] = True
    return chosen[np.triu_indices(len(place), 1)]


def add(folder: Path, seed: int, moved: Mapping[Pairs, Callable[[np.ndarray], np.ndarray]]) -> Cohort:
    """Gives the cohort in a folder such connectomes. `moved` tells of pairs of regions what is added to their edges,
    (people,), given the labels (people,)."""
    cohort, atlas = open_cohort(folder), load_atlas(None, records.FULL)
    of_subject = {row.subject: row for row in cohort.rows}
    known = cohort.covariates.assign(site=[row.site for row in of_subject.values()])
    values, label = draw(atlas, known, seed), np.array([row.label for row in of_subject.values()])
    for pairs, amount in moved.items():
        values[:, edges_between(atlas, pairs)] += amount(label)[:, None]
    names, image = tuple(atlas.names[region] for region in atlas.regions), atlas.places(atlas.labels) + 1
    image[image > len(names)] = 0
    connectomes.write(folder / connectomes.CONNECTOMES, [*of_subject], names, image, values)
    metadata = replace(cohort.metadata, connectome="simulated", parcels_sha256=connectomes.parcels_sha256(names, image))
    write_tables(folder, cohort.rows, metadata)
    return open_cohort(folder)
