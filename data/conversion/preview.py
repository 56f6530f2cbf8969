"""`convert --dryRun`: a planned cohort -> who and how long; nothing is written."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from data.base.processes import cpu_count
from data.base.terminal import SummaryRow, format_duration
from data.cohorts import records
from data.cohorts.duplicates import merge_recorded_groups
from data.cohorts.findings import make_census
from data.cohorts.forecast import make_forecast
from data.conversion.plan import PlannedCohort
from data.conversion.series import parcels_of
from data.conversion.source import Source
from data.conversion.volumes import read_person


def preview(source: Source, planned: PlannedCohort, path: Path) -> Iterator[SummaryRow]:
    """Facts on the cohort that would be made at `path`. The maps of one person are read, to know how long it takes.
    Raises InputError if one cannot be read."""
    of_each, metadata = list(source.maps), planned.metadata
    if source.series is not None:
        of_each.append(f"{source.series.name} of {len(parcels_of(source.series.tolist()))} parcels")
    title = f"{path}: {', '.join(of_each)} of each; who shares a scan is known once all are read"
    findings = make_census(title, planned.rows)
    findings.forecast_sentences = make_forecast(
        planned.rows, merge_recorded_groups(metadata), connectome=metadata.connectome
    )
    yield from findings.make_count_rows()
    yield from findings.make_problem_rows(path)
    maps, people, started = source.maps.to_numpy().tolist(), len(planned.rows), time.monotonic()
    read_person(maps[0], records.GRID_BY_SHAPE[planned.metadata.grid], Path(os.devnull))
    seconds, cores = time.monotonic() - started, cpu_count()
    of_all = format_duration(seconds * people / min(cores, people))
    took = f"{planned.rows[0].subject} took {seconds:.1f} s"
    yield "dry run", f"nothing was written; to read the maps takes about {of_all} on {cores} cores, {took}"
