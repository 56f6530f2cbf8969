"""Regions of a network that reads connectomes and no maps: a region is all edges that touch its parcels.

The fills are those of voxels (`fills.py`). What is expected of a region's edges is predicted from all other edges.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import expit

from data.base.terminal import open_progress_bar
from data.cohorts.cohort import split_into_batches
from utils.blackout.edges import RegionEdges, Replacement
from utils.blackout.fills import BACKGROUND_FILL, FILL_BY_NAME, FILLS, Fill
from utils.blackout.options import CONNECTOME_INPUT, RECORDS_PER_BATCH
from utils.blackout.setup import BlackoutSetup, Measurements, RecomputationCheck

if TYPE_CHECKING:
    from utils.blackout.edge_logits import EdgeLogits  # imports Keras, which is slow


class EdgeReplacement(NamedTuple):
    """What a fill replaces in a batch of records, by one donor of each."""

    fill: Fill
    donor_number: int
    replacement: Replacement


def measure_edge_regions(setup: BlackoutSetup, region_edges: RegionEdges, edge_logits: "EdgeLogits") -> Measurements:
    """Replaces the edges of each region in all tested records."""
    # How the log odds change, (records, donors, regions)
    log_odds_changes_by_fill: dict[str, list[np.ndarray]] = {fill.fill_name: [] for fill in FILLS}
    intact_log_odds_by_batch = []
    index_batches = split_into_batches(setup.donors.tested_record_indices, RECORDS_PER_BATCH)
    with open_progress_bar("Blacking out", len(setup.donors.tested_record_indices)) as progress_bar:
        for record_indices in index_batches:
            changes_by_donor_and_fill: dict[str, list[np.ndarray]] = {fill.fill_name: [] for fill in FILLS}
            for fill, _, replacement in iterate_edge_replacements(setup, region_edges, record_indices):
                log_odds_changes = edge_logits.compute_log_odds_changes(replacement)
                changes_by_donor_and_fill[fill.fill_name].append(log_odds_changes)
            for fill_name, changes_by_donor in changes_by_donor_and_fill.items():
                log_odds_changes_by_fill[fill_name].append(np.stack(changes_by_donor, axis=1))
            intact_log_odds_by_batch.append(setup.ready_network.compute_log_odds(setup.load_batch(record_indices)))
            progress_bar.advance(steps=len(record_indices))

    changes_by_fill = {name: np.concatenate(batches) for name, batches in log_odds_changes_by_fill.items()}
    intact_log_odds = np.concatenate(intact_log_odds_by_batch)
    return Measurements(
        compute_edge_effect_arrays(setup, changes_by_fill, intact_log_odds),
        partial(make_edge_region_checks, setup, region_edges, changes_by_fill),
    )


def iterate_edge_replacements(
    setup: BlackoutSetup, region_edges: RegionEdges, record_indices: np.ndarray
) -> Iterator[EdgeReplacement]:
    """What each fill replaces in these records, donor by donor."""
    donor_record_indices = setup.donors.select_donor_indices(record_indices)  # (donors, n)
    alternatives_by_donor = region_edges.load_alternative_edges(record_indices, donor_record_indices)
    for fill in FILLS:
        for donor_number in range(setup.donors.donors_per_record if fill.is_by_donor else 1):
            alternative_edges = alternatives_by_donor[donor_number]
            replacement = Replacement(
                fill.select_input(alternative_edges),
                fill.select_replacement(alternative_edges),
                region_edges.edge_indices_by_region,
            )
            yield EdgeReplacement(fill, donor_number, replacement)


def compute_edge_effect_arrays(
    setup: BlackoutSetup, changes_by_fill: dict[str, np.ndarray], intact_log_odds: np.ndarray
) -> dict[str, np.ndarray]:
    """The arrays of `RecordEffects` that regions have, from changes of log odds (records, donors, regions) and the log
    odds with nothing replaced (records,)."""
    class_signs = setup.class_signs  # (records, 1)
    record_array_by_name = {}
    for fill in FILLS:
        mean_changes = changes_by_fill[fill.fill_name].mean(1)  # (records, regions)
        effect_signs = class_signs if fill.is_logit_rise else -class_signs
        record_array_by_name[fill.stored_array_name] = effect_signs * mean_changes

    background_effects = record_array_by_name[FILL_BY_NAME[BACKGROUND_FILL].stored_array_name]
    intact_probability = expit(intact_log_odds)
    replaced_probability = expit(intact_log_odds[:, None] - class_signs * background_effects)
    return record_array_by_name | {
        "delta_probability": class_signs * (intact_probability[:, None] - replaced_probability),
        "region_means": np.empty((*background_effects.shape, 0), np.float32),  # of no map
        "probability": intact_probability,
    }


def make_edge_region_checks(
    setup: BlackoutSetup,
    region_edges: RegionEdges,
    changes_by_fill: dict[str, np.ndarray],
    tested_position: int,
    rng: np.random.Generator,
) -> Iterable[RecomputationCheck]:
    """The edges of a region of a record replaced by every fill."""
    region_index = int(rng.integers(len(region_edges.edge_indices_by_region)))
    record_indices = setup.donors.tested_record_indices[[tested_position]]
    record_batch = setup.load_batch(record_indices)
    compute_log_odds: Callable = setup.ready_network.compute_log_odds
    for fill, donor_number, replacement in iterate_edge_replacements(setup, region_edges, record_indices):
        shown_batch = record_batch | {CONNECTOME_INPUT: replacement.input_values}
        log_odds_change = changes_by_fill[fill.fill_name][tested_position, donor_number, region_index]
        yield RecomputationCheck(
            record_batch | {CONNECTOME_INPUT: replacement.apply_replacement(region_index)},
            float(compute_log_odds(shown_batch)[0] + log_odds_change),
        )
