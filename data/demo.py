"""The demo cohort, made of a simulation within seconds and cached."""

import hashlib
import os
from dataclasses import asdict, replace
from pathlib import Path

from data import simulation
from data.base import files
from data.cohorts import phenotype, records
from data.cohorts.rows import Row
from data.simulation import PLANTED, SIMULATIONS, Anatomy, Simulation, demographics


def simulate(target: Path, grid: records.Grid, drawn: Simulation, kind: type[Anatomy] = Anatomy) -> list[Row]:
    """Writes the simulated cohort `drawn`, with a kind of anatomy, into the new folder `target`; returns its rows."""
    from data.conversion.options import ConversionOptions  # which a cohort that is made already does without
    from data.conversion.plan import plan

    table = demographics(drawn)
    options = ConversionOptions(grid=grid.name, seed=drawn.seed)
    planned = plan(table, (), table, options, phenotype.ABIDE_COVARIATES, "SITE_ID", kind.maps)
    anatomy = kind(grid, drawn)
    target.mkdir(parents=True)
    for index, (row, scaled) in enumerate(zip(planned.rows, planned.scaled, strict=True)):
        (target / row.file).write_bytes(records.pack(row.label, scaled, *anatomy.volumes(index, row.label)))
    provenance = {"simulation": asdict(drawn), "planted": PLANTED, "seed": drawn.seed}
    metadata = replace(planned.metadata, simulated=True, duplicates="", reduction="simulated", provenance=provenance)
    replace(planned, metadata=metadata).write_tables(target)
    return planned.rows


def demo_cohort(grid: records.Grid) -> Path:
    """The cached demo cohort on a grid; made at the first call. The cache is `$XDG_CACHE_HOME` or `~/.cache`."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "falff-demo"
    drawn = SIMULATIONS[grid.name]
    drawing = Path(__file__).with_name("conversion") / "split.py"
    source = b"".join(Path(file).read_bytes() for file in (simulation.__file__, drawing, __file__))
    target = cache / f"{grid.name}-{hashlib.sha256(source + repr((files.FORMAT, drawn)).encode()).hexdigest()[:12]}"
    if target.exists():
        return target
    with files.locked(target, wait=True):
        if not target.exists():  # another first run may have made it meanwhile
            with files.unfinished(target) as folder:
                simulate(folder, grid, drawn)
    return target
