"""An estimator's log odds with one part of each tested person replaced -> effects by record, as a network has them.

Where a network's edges are linear, so that effects of edges add up, an estimator is called on the whole row each time.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from data.base.terminal import open_progress_bar
from utils.blackout.column_setup import ColumnEffect, ColumnSetup, ReplacedRows
from utils.blackout.donors import compute_control_variate_mean
from utils.blackout.effects import RecordEffects
from utils.blackout.options import get_blackout_options

CLIPPED_ARRAY = "clipped_share"  # in `blackout.h5`
REGION_MEANS_ARRAY = "region_means"
ROUNDING_SHARE = 1e-6  # of the largest log odds: a smaller change is rounding, of which no test shall be made


class ColumnLogOdds(NamedTuple):
    """The log odds of autism of the tested records, before and after each replacement."""

    intact_log_odds: np.ndarray  # (records,)
    replaced_log_odds_by_array: dict[str, np.ndarray]  # (records, donors, parts) each, by `ColumnEffect.array_name`
    clipped_shares: np.ndarray  # (records,), of a record's rows, how many have a clipped probability


def measure_columns(setup: ColumnSetup) -> ColumnLogOdds:
    """Replaces each part of all tested records. Raises InputError for what the estimator does then."""
    record_count = len(setup.tested_record_indices)
    position_by_record = {record_index: position for position, record_index in enumerate(setup.tested_record_indices)}
    intact_log_odds = np.empty(record_count)
    clipped_counts = np.zeros(record_count)
    replaced_log_odds_by_array = {
        effect.array_name: np.empty(
            (record_count, effect.count_donors(setup.donors), len(effect.column_indices_by_part))
        )
        for effect in setup.effects
    }
    with open_progress_bar("Rows", record_count * setup.rows_per_record) as progress_bar:
        progress_bar.advance(steps=0)
        for record_indices in setup.split_records():
            tested_positions = np.array([position_by_record[record_index] for record_index in record_indices])
            intact_table = setup.inputs.select_records(record_indices)
            outputs = setup.ready_estimator.compute_log_odds(intact_table)
            intact_log_odds[tested_positions] = outputs.log_odds
            clipped_counts[tested_positions] += outputs.is_clipped
            progress_bar.advance(steps=len(record_indices))
            for replaced_rows in setup.iterate_replaced_rows(record_indices):
                effect = replaced_rows.effect
                # What has no columns stays as it is
                part_log_odds = np.repeat(outputs.log_odds[:, None], len(effect.column_indices_by_part), axis=1)
                for record_positions, part_indices in split_rows(setup, effect, len(record_indices)):
                    replaced_outputs = setup.ready_estimator.compute_log_odds(
                        replaced_rows.make_table(record_positions, part_indices)
                    )
                    part_log_odds[record_positions, part_indices] = replaced_outputs.log_odds
                    np.add.at(clipped_counts, tested_positions[record_positions], replaced_outputs.is_clipped)
                    progress_bar.advance(steps=len(record_positions))
                array = replaced_log_odds_by_array[effect.array_name]
                array[tested_positions, replaced_rows.donor_number] = part_log_odds
    return ColumnLogOdds(intact_log_odds, replaced_log_odds_by_array, clipped_counts / setup.rows_per_record)


def split_rows(setup: ColumnSetup, effect: ColumnEffect, record_count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows of `record_count` records and all parts that have columns, as many at a time as a table may have:
    positions of records and of parts (rows,), one part after another."""
    part_indices_with_columns = [
        part_index for part_index, column_indices in enumerate(effect.column_indices_by_part) if len(column_indices)
    ]
    part_indices = np.repeat(np.array(part_indices_with_columns, int), record_count)
    record_positions = np.tile(np.arange(record_count), len(part_indices_with_columns))
    for start in range(0, len(part_indices), setup.inputs.rows_per_table):
        rows = slice(start, start + setup.inputs.rows_per_table)
        yield record_positions[rows], part_indices[rows]


def collect_column_effects(setup: ColumnSetup, measured: ColumnLogOdds) -> RecordEffects:
    """The effects on the true class."""
    record_array_by_name = {}
    for effect in setup.effects:
        replaced_log_odds = measured.replaced_log_odds_by_array[effect.array_name]
        log_odds_falls = measured.intact_log_odds[:, None, None] - replaced_log_odds  # (records, donors, parts)
        log_odds_falls[np.abs(log_odds_falls) < ROUNDING_SHARE * np.abs(measured.intact_log_odds).max()] = 0
        if effect.part_levels is None:
            mean_falls = log_odds_falls.mean(1)
        else:
            # Without the chance of having drawn these donors
            donor_pool_deviations = setup.donors.compute_donor_pool_deviations(effect.part_levels)
            mean_falls = compute_control_variate_mean(log_odds_falls, donor_pool_deviations)
        record_array_by_name[effect.array_name] = setup.class_signs * mean_falls

    tested_record_indices = setup.tested_record_indices
    if setup.region_fills and setup.region_fills.region_means.size:
        record_array_by_name[REGION_MEANS_ARRAY] = setup.region_fills.region_means[tested_record_indices]
    record_array_by_name["probability"] = setup.ready_estimator.predict_of_inputs(
        setup.inputs.select_records(tested_record_indices)
    )
    record_array_by_name[CLIPPED_ARRAY] = measured.clipped_shares
    return RecordEffects(
        record_array_by_name, [setup.run.cohort.rows[record_index] for record_index in tested_record_indices]
    )


def verify_columns(setup: ColumnSetup, measured: ColumnLogOdds) -> None:
    """Recomputes random records, each with a part of every kind replaced by each donor: the estimator is called on one
    row at a time. Prints the largest difference, which is 0 up to rounding unless rows depend on others."""
    rng = np.random.default_rng(setup.run.seed)
    verified_count = get_blackout_options(setup.run).verify
    tested_positions = rng.permutation(len(setup.tested_record_indices))[:verified_count].tolist()
    log_odds_differences = list[float]()
    for tested_position in tested_positions:
        record_indices = setup.tested_record_indices[[tested_position]]
        for replaced_rows in setup.iterate_replaced_rows(record_indices):
            part_index = choose_part(replaced_rows, rng)
            recomputed_outputs = setup.ready_estimator.compute_log_odds(
                replaced_rows.make_table(np.array([0]), np.array([part_index]))
            )
            measured_log_odds = measured.replaced_log_odds_by_array[replaced_rows.effect.array_name]
            log_odds_differences.append(
                float(
                    recomputed_outputs.log_odds[0]
                    - measured_log_odds[tested_position, replaced_rows.donor_number, part_index]
                )
            )
    recomputation_summary = f"{len(log_odds_differences)} blackouts of {len(tested_positions)} records, row by row"
    largest_difference = np.abs(log_odds_differences).max()
    output_noun = setup.run.predictor.output_noun
    print(f"{recomputation_summary}: the {output_noun} differs by at most {largest_difference:.2g}.")


def choose_part(replaced_rows: ReplacedRows, rng: np.random.Generator) -> int:
    """A part with columns, at random."""
    column_counts = np.array([len(column_indices) for column_indices in replaced_rows.effect.column_indices_by_part])
    return int(rng.choice(np.flatnonzero(column_counts)))
