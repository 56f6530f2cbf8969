"""Connectomes of known truth for a simulated cohort: some regions correlate more with each other in autism.

A region of AAL is a parcel. Series of all parcels share networks, which people express to different degrees and sites
alike, and a global signal that grows with head motion; correlations of so few volumes err, together where edges share a
parcel. The difference is added to the Fisher z of edges between planted regions, so that the evidence lies in these
regions alone.
"""

from dataclasses import replace
from itertools import combinations
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
VOLUMES, NETWORKS = 150, 12
OF_PEOPLE, OF_SITES, OF_MOTION = 0.25, 0.15, 0.3  # spread of how much of a network, and of the global signal, is there


def draw(atlas: Atlas, covariates: pd.DataFrame, label: np.ndarray, effect: float, seed: int) -> np.ndarray:
    """Fisher z (people, edges) float32 of people with these `site`, `func_mean_fd` and labels; `effect` is the
    difference of an edge between planted regions."""
    random, parcels = np.random.default_rng(seed), len(atlas.regions)
    upper, planted = np.triu_indices(parcels, 1), planted_edges(atlas)
    loading = random.normal(0, 0.5, (parcels, NETWORKS)) * (random.random((parcels, NETWORKS)) < 0.4)
    of_site = {site: random.normal(0, OF_SITES, NETWORKS) for site in sorted(set(covariates["site"]))}
    motion = np.log(covariates["func_mean_fd"].astype(float)).to_numpy()
    found = np.empty((len(label), len(upper[0])), np.float32)
    for at, site in enumerate(covariates["site"]):
        own = loading * (1 + of_site[site] + random.normal(0, OF_PEOPLE, NETWORKS))
        own += random.normal(0, 0.1, own.shape)
        together = np.exp(OF_MOTION * (motion[at] - motion.mean()) + random.normal(0, OF_PEOPLE))
        series = random.normal(size=(VOLUMES, NETWORKS)) @ own.T + together * random.normal(0, 0.5, (VOLUMES, 1))
        series += random.normal(size=series.shape)
        found[at] = np.arctanh(np.corrcoef(series.T)[upper])
    found[:, planted] += effect * (label - 0.5)[:, None]
    return found


def planted_edges(atlas: Atlas) -> np.ndarray:
    """Which edges (edges,) bool lie between two planted regions."""
    planted = {atlas.regions.index(number) for number, name in atlas.names.items() if name in PLANTED}
    pairs, among = zip(*np.triu_indices(len(atlas.regions), 1), strict=True), set(combinations(sorted(planted), 2))
    return np.array([pair in among for pair in pairs])


def add(folder: Path, seed: int, effect: float) -> Cohort:
    """Gives the cohort in a folder such connectomes."""
    cohort, atlas = open_cohort(folder), load_atlas(None, records.FULL)
    of_subject = {row.subject: row for row in cohort.rows}
    known = cohort.covariates.assign(site=[row.site for row in of_subject.values()])
    values = draw(atlas, known, np.array([row.label for row in of_subject.values()]), effect, seed)
    names, image = tuple(atlas.names[region] for region in atlas.regions), atlas.places(atlas.labels) + 1
    image[image > len(names)] = 0
    connectomes.write(folder / connectomes.CONNECTOMES, [*of_subject], names, image, values)
    metadata = replace(cohort.metadata, connectome="simulated", parcels_sha256=connectomes.parcels_sha256(names, image))
    write_tables(folder, cohort.rows, metadata)
    return open_cohort(folder)
