"""What baselines predict, fitted once and stored for every model that is tested on the same people.

No baseline knows which model it is compared with, and no seed decides one. So their table is stored in
`<chkPointDir>/baselines/`, outside of the models' folders: `<key>.csv`, and a `.json` that says whose it is and its
SHA-256. The key is made from the data that baselines read, the labels, who trains and who is tested, how baselines are
fitted, and the versions and the processor that decide their last digits. If any of these changes, another table is
made. A damaged or edited one is fitted anew. The folder may be removed at any time.
"""

from contextlib import suppress
from dataclasses import asdict, astuple
from pathlib import Path

import pandas as pd

from data.base import files
from data.base.effort import EFFORT
from data.base.errors import InputError
from data.base.tables import read_csv_frame
from data.cohorts.cohort import Cohort
from data.cohorts.records import compute_digest
from data.images.atlas import compute_aal_sha256
from utils.machines import devices
from utils.runs.record import compute_run_key, compute_sha256
from utils.scores import baselines, calibration, features, ridge

FITTING_MODULES = (baselines, features, ridge, calibration)  # whose code decides what baselines predict
PROCESSOR_FIELDS = ("instruction_sets", "openblas")  # that decide last digits; fits do not depend on threads
BASELINES_BY_KEY: dict[str, pd.DataFrame] = {}  # tables that this process has fitted or read


def load_or_fit_baselines(
    tested_cohort: Cohort, training_cohort: Cohort | None, baselines_folder: Path | None
) -> pd.DataFrame:
    """`baselines.predict_baselines`: the stored table, to the last bit as it is fitted anew, or a new one, which is
    stored in `baselines_folder`, if there is one. Raises InputError for a record that cannot be read."""
    key = compute_baselines_key(tested_cohort, training_cohort)
    if key in BASELINES_BY_KEY:
        return BASELINES_BY_KEY[key]

    table_path = baselines_folder / f"{key[:16]}.csv" if baselines_folder else None
    prediction_table = try_read_baselines(table_path) if table_path else None
    if prediction_table is None:
        prediction_table = baselines.predict_baselines(tested_cohort, training_cohort)
        if table_path:
            store_baselines(table_path, prediction_table, training_cohort or tested_cohort)
    else:
        fitting_cohort = training_cohort or tested_cohort
        baselines.print_left_out_baselines(prediction_table, fitting_cohort.connectomes is not None)
    BASELINES_BY_KEY[key] = prediction_table
    return prediction_table


def compute_baselines_key(tested_cohort: Cohort, training_cohort: Cohort | None) -> str:
    """SHA-256 of all that decides the table. Folds and repeats are in it by the splits that they make."""
    cohorts = [tested_cohort, training_cohort] if training_cohort else [tested_cohort]
    processor = devices.describe_processor()
    return compute_run_key(
        [list_baseline_inputs(cohort) for cohort in cohorts],
        compute_aal_sha256(),
        baselines.SETTINGS_TEXT_BY_CLASSIFIER,
        EFFORT.inner_folds,
        compute_sha256(*(Path(str(module.__file__)) for module in FITTING_MODULES)),
        devices.package_versions(),
        [processor[field_name] for field_name in PROCESSOR_FIELDS],
    )


def list_baseline_inputs(cohort: Cohort) -> list[object]:
    """All that baselines read of a cohort. Its `identity` stands for volumes, tables and edges; rows have the labels
    and the split."""
    return [
        cohort.identity,
        [astuple(row) for row in cohort.rows],
        cohort.groups,
        asdict(cohort.metadata.preparation),  # with the constants that scale the phenotype on this fold
        cohort.standard,
        [] if cohort.covariates is None else list(cohort.covariates),
        cohort.connectomes is not None,
    ]


def try_read_baselines(table_path: Path) -> pd.DataFrame | None:
    """A stored table, as `baselines.predict_baselines` returned it; None if there is none, or, which is printed, if it
    is not as it was written."""
    if not table_path.exists():
        return None
    with suppress(InputError, OSError):
        description = files.read_json(table_path.with_suffix(".json"), dict)
        if description.get("sha256") == compute_digest(table_path.read_bytes()):
            return read_csv_frame(table_path).set_index("file").astype(float)
    print(f"{table_path} is not as it was written; baselines are fitted anew.", flush=True)
    return None


def store_baselines(table_path: Path, prediction_table: pd.DataFrame, fitting_cohort: Cohort) -> None:
    """Writes a table and what it is; if that is not possible, says so. Another process may write the same."""
    table_bytes = prediction_table.reset_index().to_csv(index=False, lineterminator="\n").encode()  # with all digits
    description = {
        "cohort": str(fitting_cohort.path),
        "training_participants": len(fitting_cohort.list_split_subjects("train")),
        "sha256": compute_digest(table_bytes),
    }
    try:
        with files.lock_exclusively(table_path, wait=True):
            files.write_json(table_path.with_suffix(".json"), description)
            with files.open_replacement(table_path, "wb") as table_file:  # last: who finds it finds its sum, too
                table_file.write(table_bytes)
    except (OSError, InputError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        print(f"{table_path.parent} cannot keep what baselines predict ({reason}): fitted for this run.", flush=True)
