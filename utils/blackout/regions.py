"""Regions of an atlas, each replaced in the records of tested people by every fill: the family of regions, and that of
regions in one map alone.

Effects are on the logit of the true class, log(p / (1 - p)), for probabilities saturate. For two classes it is the
difference of the network's two outputs.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pandas as pd
from scipy.special import expit

from data.base.listing import join_names
from data.base.processes import read_ahead
from data.base.tables import make_printable
from data.base.terminal import open_progress_bar
from data.images import grids
from data.images.atlas import Atlas
from utils.blackout import options
from utils.blackout.direction import DIRECTION_COLUMN
from utils.blackout.donors import compute_control_variate_mean
from utils.blackout.edge_regions import measure_edge_regions
from utils.blackout.edges import MAX_FITTING_PEOPLE, Replacement, find_parcel_region_indices
from utils.blackout.families import Blackout, FeatureFamily, FeatureKind
from utils.blackout.fills import BACKGROUND_FILL, FILL_BY_NAME, FILLS, RELIANCE_FILL, FilledBatch, Fills
from utils.blackout.options import CONNECTOME_INPUT, RECORDS_PER_BATCH
from utils.blackout.setup import BlackoutSetup, Measurements, RecomputationCheck, VolumeOcclusion
from utils.runs.network import NetworkPredictor

if TYPE_CHECKING:
    from utils.blackout.edge_logits import EdgeLogits

BY_MAP_FOOTNOTE = (
    "A sum over maps is the reliance on the region only if each network reads one map. As the map connectome, edges "
    "alone are replaced."
)
LEVEL_REMOVED_FOOTNOTE = (
    "Each map was z-scored, which removed its global level: lower is lower relative to the rest of the map."
)
MIN_HEMISPHERE_FRACTION = 0.7  # share of a region's voxels in one hemisphere that makes it left or right


class FillLogOdds(NamedTuple):
    """The log odds of autism with one of `FILLS`, by record and donor. `log_odds_by_map` are those after a region was
    replaced in one of `Fills.separate_map_indices` alone; of `RELIANCE_FILL` only, others have no maps."""

    intact_log_odds: np.ndarray  # (records, donors), before anything was replaced
    occluded_log_odds: np.ndarray  # (records, donors, regions), after the voxels of a region were replaced
    edge_log_odds_changes: np.ndarray  # (records, donors, regions), by replacing its edges, too; 0 if they are not
    log_odds_by_map: np.ndarray  # (records, donors, regions, maps)

    @property
    def log_odds_falls_by_donor(self) -> np.ndarray:
        """How far the log odds fall if the voxels are replaced, (records, donors, regions)."""
        return self.intact_log_odds[..., None] - self.occluded_log_odds


def measure_regions(setup: BlackoutSetup) -> Measurements:
    """Replaces each region in all tested records."""
    from utils.runs.inference import check_network_finite  # imports Keras, which is slow

    if setup.volume_occlusion is None:
        if setup.region_edges is None or setup.edge_logits is None:
            return Measurements()
        return measure_edge_regions(setup, setup.region_edges, setup.edge_logits)
    fills = setup.volume_occlusion.fills
    tested_record_indices = setup.donors.tested_record_indices
    record_index_batches = np.array_split(
        tested_record_indices, math.ceil(len(tested_record_indices) / RECORDS_PER_BATCH)
    )
    replacements_per_batch = sum(setup.donors.donors_per_record if fill.is_by_donor else 1 for fill in FILLS)
    log_odds_by_batch = []
    with open_progress_bar("Blacking out", len(record_index_batches) * replacements_per_batch) as progress_bar:
        for filled_batch in read_ahead(fills.fill_batch, record_index_batches):
            batch_log_odds = occlude_batch(
                setup.volume_occlusion, setup.edge_logits, filled_batch, progress_bar.advance
            )
            check_network_finite(setup.run.trained_network, "outputs", batch_log_odds)
            log_odds_by_batch.append(batch_log_odds)

    # The records of all batches, one batch after another
    log_odds_by_fill = {}
    for fill_name in log_odds_by_batch[0]:
        fill_batches = [batch_log_odds[fill_name] for batch_log_odds in log_odds_by_batch]
        log_odds_by_fill[fill_name] = FillLogOdds(*map(np.concatenate, zip(*fill_batches, strict=True)))
    return Measurements(
        compute_effect_arrays(setup, fills, log_odds_by_fill),
        partial(make_region_checks, setup, fills, log_odds_by_fill),
    )


def occlude_batch(
    volume_occlusion: VolumeOcclusion,
    edge_logits: "EdgeLogits | None",
    filled_batch: FilledBatch,
    advance_progress: Callable[[], None],
) -> dict[str, FillLogOdds]:
    """The log odds with each fill in the records of a batch. `advance_progress` is called after each donor of a
    fill."""
    intact_pass = volume_occlusion.occlusion.run_intact(filled_batch.intact_input_by_name)
    log_odds_by_fill = dict[str, FillLogOdds]()
    for fill_name, replacements_by_donor in filled_batch.replacements_by_fill.items():
        log_odds_by_donor = list[FillLogOdds]()
        for replacement_by_input in replacements_by_donor:
            donor_log_odds = occlude_with_donor(
                volume_occlusion,
                edge_logits,
                filled_batch.intact_input_by_name,
                intact_pass,
                replacement_by_input,
                with_single_maps=fill_name == RELIANCE_FILL,
            )
            log_odds_by_donor.append(donor_log_odds)
            advance_progress()
        # (records, ...) of each donor -> (records, donors, ...)
        log_odds_by_fill[fill_name] = FillLogOdds(
            *(np.stack(donor_arrays, axis=1) for donor_arrays in zip(*log_odds_by_donor, strict=True))
        )
    return log_odds_by_fill


def occlude_with_donor(
    volume_occlusion: VolumeOcclusion,
    edge_logits: "EdgeLogits | None",
    person_input_by_name: dict[str, np.ndarray],
    person_pass: Any,
    replacement_by_input: dict[str, Replacement],
    with_single_maps: bool,
) -> FillLogOdds:
    """The log odds with each region replaced as one donor's `replacement_by_input` says, without the axis of donors.
    `person_pass` is the intact pass of `person_input_by_name`, used again if the fill leaves the person's volume."""
    from utils.runs.inference import compute_autism_log_odds  # imports Keras, which is slow

    fills, occlusion = volume_occlusion
    shown_input_by_name = {
        input_name: replacement.input_values for input_name, replacement in replacement_by_input.items()
    }
    if shown_input_by_name["volume"] is person_input_by_name["volume"]:
        shown_pass = person_pass
    else:
        shown_pass = occlusion.run_intact(person_input_by_name | shown_input_by_name)

    # The voxels of each region, in all maps at once and in one map at a time
    fill_volume = cast(np.ndarray, replacement_by_input["volume"].replacement_values)
    if with_single_maps:
        all_maps_logits, single_map_logits = occlusion.compute_logits_by_map(
            shown_pass, fill_volume, fills.region_masks, fills.separate_map_indices
        )
    else:
        all_maps_logits = occlusion.compute_occluded_logits(shown_pass, fill_volume, fills.region_masks)
        single_map_logits = np.zeros((*all_maps_logits.shape[:2], 0, 2))
    occluded_log_odds = compute_autism_log_odds(all_maps_logits).T  # (records, regions)
    log_odds_by_map = compute_autism_log_odds(single_map_logits).swapaxes(0, 1)  # (records, regions, maps)

    # Its edges
    if edge_logits and fills.region_edges:
        edge_log_odds_changes = edge_logits.compute_log_odds_changes(replacement_by_input[CONNECTOME_INPUT])
    else:
        edge_log_odds_changes = np.zeros(occluded_log_odds.shape)
    return FillLogOdds(
        intact_log_odds=compute_autism_log_odds(occlusion.get_intact_logits(shown_pass)),
        occluded_log_odds=occluded_log_odds,
        edge_log_odds_changes=edge_log_odds_changes,
        log_odds_by_map=log_odds_by_map.astype(np.float32),
    )


def compute_effect_arrays(
    setup: BlackoutSetup, fills: Fills, log_odds_by_fill: dict[str, FillLogOdds]
) -> dict[str, np.ndarray]:
    """The arrays of `RecordEffects` that regions have."""
    class_signs = setup.class_signs  # (records, 1)
    record_array_by_name = dict[str, np.ndarray]()
    for fill in FILLS:
        fill_log_odds = log_odds_by_fill[fill.fill_name]
        if fill.compute_region_levels:
            donor_pool_deviations = fills.compute_replaced_map_deviations(fill.compute_region_levels(fills))
            voxel_falls = compute_control_variate_mean(fill_log_odds.log_odds_falls_by_donor, donor_pool_deviations)
        else:
            voxel_falls = fill_log_odds.log_odds_falls_by_donor.mean(1)
        log_odds_falls = voxel_falls - fill_log_odds.edge_log_odds_changes.mean(1)  # (records, regions)
        effect_signs = -class_signs if fill.is_logit_rise else class_signs
        record_array_by_name[fill.stored_array_name] = effect_signs * log_odds_falls

    # The probability with the background in place of each region
    intact_log_odds = log_odds_by_fill[BACKGROUND_FILL].intact_log_odds  # (records, 1)
    background_effects = record_array_by_name[FILL_BY_NAME[BACKGROUND_FILL].stored_array_name]
    occluded_autism_probability = expit(intact_log_odds - class_signs * background_effects)
    falls_by_map = compute_log_odds_falls_by_map(fills, log_odds_by_fill[RELIANCE_FILL])  # (records, regions, maps)
    return record_array_by_name | {
        "delta_probability": class_signs * (expit(intact_log_odds) - occluded_autism_probability),
        "reliance_by_map": (class_signs[..., None] * falls_by_map).astype(np.float32),
        "region_means": fills.region_means[fills.donors.tested_record_indices].astype(np.float32),
        "probability": expit(intact_log_odds[:, 0]),
    }


def compute_log_odds_falls_by_map(fills: Fills, fill_log_odds: FillLogOdds) -> np.ndarray:
    """How far the log odds fall if a region is replaced in one map alone, a mean over donors: (records, regions, maps).
    If edges are replaced, these alone are one map more."""
    donor_pool_deviations = fills.compute_replaced_map_deviations(fills.region_means)
    log_odds_falls_by_map = np.empty((len(fill_log_odds.intact_log_odds), *fill_log_odds.log_odds_by_map.shape[2:]))
    for map_position in range(log_odds_falls_by_map.shape[-1]):  # one after another, to save memory
        log_odds_falls_by_donor = (
            fill_log_odds.intact_log_odds[..., None] - fill_log_odds.log_odds_by_map[..., map_position]
        )
        log_odds_falls_by_map[..., map_position] = compute_control_variate_mean(
            log_odds_falls_by_donor, donor_pool_deviations[..., [map_position]]
        )
    if not fills.region_edges:
        return log_odds_falls_by_map
    edge_falls = -fill_log_odds.edge_log_odds_changes.mean(1)  # (records, regions)
    return np.concatenate([log_odds_falls_by_map, edge_falls[..., None]], axis=-1)


def make_region_checks(
    setup: BlackoutSetup,
    fills: Fills,
    log_odds_by_fill: dict[str, FillLogOdds],
    tested_position: int,
    rng: np.random.Generator,
) -> Iterable[RecomputationCheck]:
    """A region of a record replaced by every fill, in each map alone, and its edges alone."""
    region_index = int(rng.integers(len(fills.region_masks)))
    filled_batch = fills.fill_batch(setup.donors.tested_record_indices[[tested_position]])
    for fill_name, replacements_by_donor in filled_batch.replacements_by_fill.items():
        fill_log_odds = log_odds_by_fill[fill_name]
        for donor_number, replacement_by_input_name in enumerate(replacements_by_donor):
            intact_input_by_name = filled_batch.intact_input_by_name | {
                input_name: replacement.input_values for input_name, replacement in replacement_by_input_name.items()
            }
            replaced_input_by_name = {
                input_name: replacement.apply_replacement(region_index)
                for input_name, replacement in replacement_by_input_name.items()
            }
            edge_log_odds_change = fill_log_odds.edge_log_odds_changes[tested_position, donor_number, region_index]
            yield RecomputationCheck(
                intact_input_by_name | replaced_input_by_name,
                fill_log_odds.occluded_log_odds[tested_position, donor_number, region_index] + edge_log_odds_change,
            )
            if fill_name != RELIANCE_FILL:
                continue
            for map_position, map_index in enumerate(fills.separate_map_indices):
                is_replaced_map = np.arange(len(fills.is_replaced_map)) == map_index
                mixed_volume = np.where(
                    is_replaced_map, replaced_input_by_name["volume"], intact_input_by_name["volume"]
                )
                yield RecomputationCheck(
                    intact_input_by_name | {"volume": mixed_volume},
                    fill_log_odds.log_odds_by_map[tested_position, donor_number, region_index, map_position],
                )
            if fills.region_edges:
                yield RecomputationCheck(
                    intact_input_by_name | {CONNECTOME_INPUT: replaced_input_by_name[CONNECTOME_INPUT]},
                    fill_log_odds.intact_log_odds[tested_position, donor_number] + edge_log_odds_change,
                )


def make_region_family(blackout: Blackout) -> FeatureFamily | None:
    """The family of regions. Its values are known if one map is replaced: several have no direction together."""
    if RELIANCE_FILL not in blackout.record_effects:
        return None
    atlas = blackout.atlas
    region_names = [atlas.name_by_region[region_number] for region_number in atlas.region_numbers]
    fill_effects = [
        blackout.make_fill_effect(fill, blackout.average_subject_records(fill.stored_array_name))
        for fill in FILLS
        if fill.stored_array_name in blackout.record_effects
    ]

    feature_values = np.full(fill_effects[0].subject_effects.shape, np.nan)  # (subjects, regions)
    if "region_means" in blackout.record_effects:
        is_replaced_map = options.get_blackout_options(blackout.run).make_replaced_map_mask(blackout.cohort)
        region_means = blackout.average_subject_records("region_means")[..., is_replaced_map]
        if region_means.shape[2] == 1:
            feature_values = region_means[..., 0]

    footnote_sentences = (
        describe_vanished_regions(atlas),
        describe_replaced_maps(blackout),
        describe_replaced_edges(blackout),
    )
    footnote_by_column = {}
    if name_footnote := " ".join(filter(None, footnote_sentences)):
        footnote_by_column["name"] = name_footnote
    # Others than networks read maps as they are
    if blackout.cohort.num_maps and isinstance(blackout.run.predictor, NetworkPredictor):
        footnote_by_column[DIRECTION_COLUMN] = LEVEL_REMOVED_FOOTNOTE
    return FeatureFamily(
        REGION_KIND,
        region_names,
        pd.DataFrame([describe_region(atlas, region_number) for region_number in atlas.region_numbers]),
        fill_effects,
        feature_values,
        atlas=atlas,
        footnote_by_column=footnote_by_column,
        stored_arrays={"region": np.array(atlas.region_numbers, np.int32), "atlas": atlas.region_labels},
    )


def make_region_by_map_family(blackout: Blackout) -> FeatureFamily | None:
    """The family of regions in one map each. Its values are means over a region; edges that are replaced alone have
    none."""
    blackout_options = options.get_blackout_options(blackout.run)
    cohort = blackout.cohort
    if not cohort.num_maps:
        return None
    separate_map_indices = blackout_options.find_separate_map_indices(cohort)
    map_names = [make_printable(cohort.map_names[map_index]) for map_index in separate_map_indices]
    if blackout_options.replaces_edges(cohort):
        map_names.append(CONNECTOME_INPUT)
    if RELIANCE_FILL not in blackout.record_effects or not map_names:
        return None

    # A feature is a region in a map, region by region
    effects_by_region_and_map = blackout.average_subject_records("reliance_by_map")  # (subjects, regions, maps)
    subject_count = len(effects_by_region_and_map)
    reliance_effect = blackout.make_fill_effect(
        FILL_BY_NAME[RELIANCE_FILL], effects_by_region_and_map.reshape(subject_count, -1)
    )
    region_and_map_rows = [
        (region_number, blackout.atlas.name_by_region[region_number], map_name)
        for region_number in blackout.atlas.region_numbers
        for map_name in map_names
    ]

    # Edges, which are the last map, have no values
    region_means = blackout.average_subject_records("region_means")[..., separate_map_indices]
    feature_values = np.full(effects_by_region_and_map.shape, np.nan)
    feature_values[..., : region_means.shape[2]] = region_means
    return FeatureFamily(
        REGION_BY_MAP_KIND,
        [f"{region_name} in {map_name}" for _, region_name, map_name in region_and_map_rows],
        pd.DataFrame(region_and_map_rows, columns=["region", "name", "map"]),
        [reliance_effect],
        feature_values.reshape(subject_count, -1),
        matrix_axis_columns=("name", "map"),
        footnote_by_column={"map": BY_MAP_FOOTNOTE, DIRECTION_COLUMN: LEVEL_REMOVED_FOOTNOTE},
        stored_arrays={"map": np.array(map_names, object)},
    )


def describe_region(atlas: Atlas, region_number: int) -> dict:
    """Number, name, hemisphere, voxels on the volume's grid, and centre in mm of MNI space."""
    full_grid_affine = np.array(grids.FULL.affine)
    voxel_centres_mm = (
        np.argwhere(atlas.full_region_labels == region_number) @ full_grid_affine[:3, :3].T + full_grid_affine[:3, 3]
    )
    left_fraction = (voxel_centres_mm[:, 0] < 0).mean()
    right_fraction = (voxel_centres_mm[:, 0] > 0).mean()
    if left_fraction > MIN_HEMISPHERE_FRACTION:
        hemisphere = "left"
    elif right_fraction > MIN_HEMISPHERE_FRACTION:
        hemisphere = "right"
    else:
        hemisphere = "both"
    x_mm, y_mm, z_mm = voxel_centres_mm.mean(0).round(1)
    return {
        "region": region_number,
        "name": atlas.name_by_region[region_number],
        "hemisphere": hemisphere,
        "voxels": int((atlas.region_labels == region_number).sum()),
        "x_mm": x_mm,
        "y_mm": y_mm,
        "z_mm": z_mm,
    }


def describe_vanished_regions(atlas: Atlas) -> str:
    """Which regions are lost on a coarse grid; nothing if none is."""
    vanished_region_names = atlas.vanished_region_names
    if not vanished_region_names:
        return ""
    return (
        f"{len(vanished_region_names)} more have no voxel on the {atlas.grid} grid: "
        f"{join_names(vanished_region_names)}."
    )


def describe_replaced_maps(blackout: Blackout) -> str:
    """Which of a cohort's maps were replaced; nothing if all were."""
    is_replaced_map = options.get_blackout_options(blackout.run).make_replaced_map_mask(blackout.cohort)
    if is_replaced_map.all():
        return ""
    map_names = np.array([make_printable(map_name) for map_name in blackout.cohort.map_names])
    replaced_maps_text = ", ".join(map_names[is_replaced_map])
    remaining_maps_text = ", ".join(map_names[~is_replaced_map])
    return f"Only {replaced_maps_text} of each region was replaced; {remaining_maps_text} stayed."


def describe_replaced_edges(blackout: Blackout) -> str:
    """Whether the edges of regions were replaced, and which regions have some; nothing if the network reads none."""
    if (connectomes := blackout.cohort.connectomes) is None:
        return ""
    if connectomes.parcel_image is None:
        return "Its edges stayed, as it is not known where parcels lie (convert with --parcels FILE replaces them)."
    if not options.get_blackout_options(blackout.run).replaces_edges(blackout.cohort):
        return "Its edges of the connectome stayed, since --maps says what was replaced."
    region_count = len(blackout.atlas.region_numbers)
    region_index_by_parcel = find_parcel_region_indices(connectomes, blackout.atlas)
    region_index_by_inside_parcel = region_index_by_parcel[region_index_by_parcel < region_count]
    replaced_text = "Its edges of the connectome were replaced with it"
    if not blackout.cohort.num_maps:
        replaced_text = "A region is the edges of its parcels"
    edge_replacement_sentence = (
        f"{replaced_text}: {len(region_index_by_inside_parcel)} of "
        f"{len(region_index_by_parcel)} parcels lie in {len(np.unique(region_index_by_inside_parcel))} of "
        f"{region_count} regions, the others have no edges. The background of edges is the training participants' mean."
    )
    are_people_sampled = len({record_row.subject for record_row in blackout.run.cohort.rows}) > MAX_FITTING_PEOPLE
    return (
        f"{edge_replacement_sentence} Expected edges are fitted on at most {MAX_FITTING_PEOPLE:,} participants."
        if are_people_sampled
        else edge_replacement_sentence
    )


REGION_KIND = FeatureKind(
    "regions",
    "regions",
    "regions",
    make_region_family,
    measure_regions,
    section_explanation="Each region is replaced, by another participant's or as the columns say",
    no_finding_message="No region is shown to matter alone; many may matter together.",
    identifying_column_names=("name",),
)
REGION_BY_MAP_KIND = FeatureKind(
    "maps",
    "regions_by_map",
    "regions in one map",
    make_region_by_map_family,
    section_explanation="Each region is replaced by another participant's in one map alone; the other maps stay",
    no_finding_message="No region is shown to matter in one map alone; it may matter in several maps together.",
    identifying_column_names=("name", "map"),
)
