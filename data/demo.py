"""The demo cohort, made of a simulation within seconds and cached."""

import hashlib
import os
from dataclasses import asdict, replace
from pathlib import Path

from data import simulation
from data.base import files
from data.cohorts import records
from data.cohorts.rows import RecordRow
from data.images import grids
from data.simulation import PLANTED_REGIONS, SIMULATIONS, Anatomy, Simulation, draw_demographics
from data.tables import phenotype as phenotype_table


def simulate_cohort(
    target_folder: Path, grid: grids.Grid, simulation_settings: Simulation, anatomy_class: type[Anatomy] = Anatomy
) -> list[RecordRow]:
    """Writes the cohort that `simulation_settings` describe, with an `anatomy_class`, into the new folder
    `target_folder`; returns its rows."""
    from data.conversion.options import ConversionOptions  # a cached cohort does not need it
    from data.conversion.plan import plan_new_cohort

    demographic_table = draw_demographics(simulation_settings)
    conversion_options = ConversionOptions(grid=grid.name, seed=simulation_settings.seed)
    planned_cohort = plan_new_cohort(
        demographic_table,
        (),
        demographic_table,
        conversion_options,
        phenotype_table.ABIDE_COVARIATES,
        "SITE_ID",
        anatomy_class.maps,
    )
    anatomy = anatomy_class(grid, simulation_settings)
    target_folder.mkdir(parents=True)
    for subject_index, (row, scaled_phenotype) in enumerate(
        zip(planned_cohort.subject_rows, planned_cohort.scaled_phenotype, strict=True)
    ):
        map_volumes = anatomy.draw_map_volumes(subject_index, row.label)
        (target_folder / row.file).write_bytes(records.pack_record(row.label, scaled_phenotype, *map_volumes))
    provenance = {
        "simulation": asdict(simulation_settings),
        "planted": PLANTED_REGIONS,
        "seed": simulation_settings.seed,
    }
    metadata = replace(
        planned_cohort.metadata, simulated=True, duplicates="", reduction="simulated", provenance=provenance
    )
    replace(planned_cohort, metadata=metadata).write_tables(target_folder)
    return planned_cohort.subject_rows


def get_demo_cohort_path(grid: grids.Grid) -> Path:
    """The cached demo cohort on a grid; made at the first call. The cache is `$XDG_CACHE_HOME` or `~/.cache`."""
    cache_folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "falff-demo"
    simulation_settings = SIMULATIONS[grid.name]
    split_module_path = Path(__file__).with_name("conversion") / "split.py"
    source_bytes = b"".join(
        Path(module_path).read_bytes() for module_path in (simulation.__file__, split_module_path, __file__)
    )
    settings_bytes = repr((files.FORMAT_VERSION, simulation_settings)).encode()
    cohort_digest = hashlib.sha256(source_bytes + settings_bytes).hexdigest()[:12]
    cohort_folder = cache_folder / f"{grid.name}-{cohort_digest}"
    if cohort_folder.exists():
        return cohort_folder
    with files.lock_exclusively(cohort_folder, wait=True):
        if not cohort_folder.exists():  # another first run may have made it meanwhile
            with files.make_unfinished_path(cohort_folder) as unfinished_folder:
                simulate_cohort(unfinished_folder, grid, simulation_settings)
    return cohort_folder
