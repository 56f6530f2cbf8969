"""How many rows a blackout of an estimator predicts, and how long that takes, before anything is written."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from data.base.terminal import SummaryRow, format_duration
from utils.blackout.column_effects import split_rows
from utils.blackout.column_setup import ColumnSetup
from utils.runs.run import Run


def preview_rows(due_runs: Sequence[Run]) -> Iterator[SummaryRow]:
    """The rows of all runs, and the time that they take one after another, by the fit of the first and one table.
    Raises InputError for what the estimator does then."""
    if not due_runs:
        return
    first_run = due_runs[0]
    first_run = replace(first_run, cohort=replace(first_run.cohort, means_folder=None))  # keeps no means of regions
    start_time = time.monotonic()
    setup = ColumnSetup.from_run(first_run)
    fit_seconds = time.monotonic() - start_time

    # What replaces parts of some records is computed once for all their rows
    start_time = time.monotonic()
    record_indices = setup.split_records()[0]
    replaced_rows = next(setup.iterate_replaced_rows(record_indices))
    seconds_per_record = (time.monotonic() - start_time) / len(record_indices)

    start_time = time.monotonic()
    record_positions, part_indices = next(split_rows(setup, replaced_rows.effect, len(record_indices)))
    setup.ready_estimator.compute_log_odds(replaced_rows.make_table(record_positions, part_indices))
    seconds_per_row = (time.monotonic() - start_time) / len(record_positions)

    tested_count = sum(len(run.cohort.find_split_record_indices("test")) for run in due_runs)
    row_count = tested_count * setup.rows_per_record
    yield "rows", f"{setup.rows_per_record:,} a scan, {row_count:,} in all; {setup.inputs.rows_per_table:,} at a time"
    duration_text = format_duration(
        fit_seconds * len(due_runs) + seconds_per_record * tested_count + seconds_per_row * row_count
    )
    yield "duration", f"about {duration_text}, by the first fit and {len(record_positions):,} rows that were timed"
