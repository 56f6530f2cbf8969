"""`convert --dryRun`: a planned cohort -> who and how long, in lines; nothing is written."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from data.base.processes import cpu_count
from data.base.terminal import duration
from data.cohorts import records
from data.cohorts.duplicates import told_groups
from data.cohorts.findings import census
from data.cohorts.forecast import forecast
from data.conversion.plan import PlannedCohort
from data.conversion.series import parcels_of
from data.conversion.source import Source
from data.conversion.volumes import read_person


def preview(source: Source, planned: PlannedCohort) -> Iterator[str]:
    """Lines on the cohort that would be made. The maps of one person are read, to know how long it takes. Raises
    InputError if one cannot be read."""
    yield from census("Who it would be", planned.rows).lines()
    yield from forecast(planned.rows, told_groups(planned.metadata), connectome=planned.metadata.connectome)
    maps, people = source.maps.to_numpy().tolist(), len(planned.rows)
    yield f"Maps of each: {', '.join(source.maps)}. Who shares a scan is known once all are read."
    if source.series is not None:
        parcels = len(parcels_of(source.series.tolist()))
        yield f"Series of each: {source.series.name}, {parcels} parcels."
    started = time.monotonic()
    read_person(maps[0], records.GRID_OF_SHAPE[planned.metadata.grid], Path(os.devnull))
    seconds, cores = time.monotonic() - started, cpu_count()
    of_all = duration(seconds * people / min(cores, people))
    yield f"Time: about {of_all} on {cores} cores to read the maps; {planned.rows[0].subject} took {seconds:.1f} s."
    yield "Dry run: nothing was written."
