"""`convert --dryRun`: a planned cohort -> who and how long; nothing is written."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from data.base.processes import cpu_count
from data.base.terminal import SummaryRow, format_duration
from data.cohorts.findings import make_census
from data.cohorts.forecast import make_forecast
from data.cohorts.groups import merge_recorded_groups
from data.conversion.connectomes import count_parcels
from data.conversion.plan import PlannedCohort
from data.conversion.source import Source
from data.conversion.volumes import read_person_maps
from data.images import grids


def preview_conversion(source: Source, planned_cohort: PlannedCohort, cohort_path: Path) -> Iterator[SummaryRow]:
    """Facts on the cohort that would be made at `cohort_path`. The maps of one person are read, to know how long it
    takes. Raises InputError if one cannot be read."""
    record_content_texts = list(source.map_files) or ["no maps"]
    metadata = planned_cohort.metadata
    connectome_name = ""
    if source.series_paths is not None:
        connectome_name = str(source.series_paths.name)
        parcel_count = count_parcels(source.series_paths.tolist(), source.connectome_reading)
        record_content_texts.append(f"{connectome_name} of {parcel_count} parcels")
    census_title = (
        f"{cohort_path}: {', '.join(record_content_texts)} of each; who shares a scan is known once all are read"
    )
    findings = make_census(census_title, planned_cohort.subject_rows)
    findings.forecast_sentences = make_forecast(
        planned_cohort.subject_rows, merge_recorded_groups(metadata), connectome_name=connectome_name
    )
    yield from findings.make_count_rows()
    yield from findings.make_problem_rows(cohort_path)
    if source.map_files.columns.empty:
        yield "dry run", "nothing was written"
        return
    map_files_per_subject = source.map_files.to_numpy().tolist()
    person_count = len(planned_cohort.subject_rows)
    monotonic_start_seconds = time.monotonic()
    read_person_maps(map_files_per_subject[0], grids.GRID_BY_SHAPE[planned_cohort.metadata.grid], Path(os.devnull))
    first_person_seconds = time.monotonic() - monotonic_start_seconds
    core_count = cpu_count()
    total_duration_text = format_duration(first_person_seconds * person_count / min(core_count, person_count))
    timing_text = f"{planned_cohort.subject_rows[0].subject} took {first_person_seconds:.1f} s"
    yield (
        "dry run",
        f"nothing was written; to read the maps takes about {total_duration_text} on {core_count} cores, {timing_text}",
    )
