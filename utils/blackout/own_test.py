"""Whether an estimator that is fitted again for a blackout predicts as it did in its test."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from data.base.errors import InputError
from utils.blackout.effects import RecordEffects
from utils.report.tables import read_predictions
from utils.runs.record import MANIFEST_FILE, Manifest, read_manifest
from utils.runs.run import Run
from utils.scores.results import RESULT_TABLE_BY_NAME

PREDICTIONS_FILE = RESULT_TABLE_BY_NAME["predictions"].file_name
MAX_PROBABILITY_DIFFERENCE = 1e-6  # by rounding in tables and in sums


def describe_test_difference(run: Run, record_effects: RecordEffects) -> str:
    """How the fit of an estimator differs from that of its finished test beside the results; nothing if it does not, or
    if there is no such test. Folds are compared once all are pooled."""
    if not run.predictor.is_fitted_when_used or run.fold:
        return ""
    record_files = [record_row.file for record_row in record_effects.record_rows]
    for test_folder, test_manifest in find_finished_tests(run):
        if test_manifest.weights != run.weights_sha256:
            return f"{run.predictor.path} is not as it was in the test in {test_folder}; repeat one of them."
        predictions_table = read_predictions(test_folder / PREDICTIONS_FILE)
        test_probabilities = predictions_table.groupby("file")["probability"].mean().reindex(record_files)
        differences = np.abs(test_probabilities.to_numpy(float) - record_effects["probability"])
        if not differences.max() <= MAX_PROBABILITY_DIFFERENCE:  # NaN: other records
            return (
                f"{run.predictor.name} was fitted again, and predicts otherwise than in the test in {test_folder}: "
                f"probabilities differ by up to {np.nanmax(differences):.2g}. What it uses may differ as much."
            )
    return ""


def find_finished_tests(run: Run) -> Iterator[tuple[Path, Manifest]]:
    """The tests of a predictor of this name, with the same inputs, on the same cohort and folds, whose results lie
    beside those of a run."""
    for manifest_path in sorted(run.out_dir.absolute().parent.glob(f"*/{MANIFEST_FILE}")):
        manifest = None
        with suppress(InputError):  # of another version, or damaged
            manifest = read_manifest(manifest_path)
        if manifest is None or not manifest.finished or manifest.job != "test" or manifest.settings is None:
            continue
        test_choices = (manifest.settings.model, manifest.settings.config, manifest.settings.seed)
        run_choices = (run.choices.model, run.choices.config, run.choices.seed)
        test_division = (manifest.cohort_sha256, manifest.folds, manifest.fold, manifest.repeats)
        folds_option = run.folds.folds_option if run.folds else None
        if test_choices == run_choices and test_division == (run.cohort.identity, folds_option, None, run.repeats):
            yield manifest_path.parent, manifest
