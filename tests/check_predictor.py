"""The contract that every predictor is held to, whatever it is: what may be asked of it before it is loaded or fitted,
and what it predicts then. `test_predictors.py` holds each kind to it, and one of its own that has nothing else.

A check takes a predictor, the data of a fold that it can predict, and an empty folder.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.cohorts.cohort import Cohort
from utils.runs.predictor import FoldData, Predictor
from utils.runs.record import MANIFEST_FILE, Caveats, Choices, Manifest, read_manifest, write_manifest

TEXTS = ("noun", "name", "description", "checkpoint_description", "unknown_overlap_warning")
FLAGS = ("is_fitted_when_used", "needs_tensorflow", "classifies")
INPUT_NAMES = {"volume", "phenotype", "connectome", "covariates"}


def check_words(predictor: Predictor, fold_data: FoldData, folder: Path) -> None:
    """Each is of its type, and the same whenever it is asked for."""
    for name in TEXTS:
        text = getattr(predictor, name)
        assert isinstance(text, str) and text.strip() == text != "" and text.isprintable(), (name, text)
    for name in FLAGS:
        assert isinstance(getattr(predictor, name), bool), name
    assert isinstance(predictor.input_names, tuple) and {*predictor.input_names} <= INPUT_NAMES
    assert isinstance(predictor.path, Path) and predictor.path.exists()
    assert isinstance(predictor.inherited_caveats, Caveats) and isinstance(predictor.training_manifest, Manifest)
    for name in (*TEXTS, *FLAGS, "input_names", "path", "standardisation", "training_manifest", "training_key"):
        assert getattr(predictor, name) == getattr(predictor, name), name


def check_digest(predictor: Predictor, fold_data: FoldData, folder: Path) -> None:
    """That of SHA-256, since it is there."""
    digest = predictor.find_sha256()
    assert digest is not None and len(bytes.fromhex(digest)) == 32
    assert predictor.find_sha256() == digest


def check_comparison(predictor: Predictor, fold_data: FoldData, folder: Path) -> None:
    """What the cohort decides, it decides once; a copy is equal."""
    assert predictor.for_cohort(fold_data.cohort) == predictor
    assert dataclasses.replace(predictor) == predictor  # type: ignore[type-var]


def check_choices(predictor: Predictor, fold_data: FoldData, folder: Path) -> None:
    """They name it, and are read from a manifest as they were written."""
    choices = predictor.make_choices(fold_data.seed, fold_data.cohort)
    assert (choices.model, choices.noun, choices.seed) == (predictor.name, predictor.noun, fold_data.seed)
    assert choices.input_names == predictor.input_names
    write_manifest(folder / MANIFEST_FILE, Manifest(job="test", settings=choices))
    manifest = read_manifest(folder)
    assert manifest and manifest.settings
    assert to_json(manifest.settings) == to_json(choices)
    assert predictor.make_choices(fold_data.seed, fold_data.cohort) == choices


def to_json(choices: Choices) -> str:
    """A tuple is a list there."""
    return json.dumps(dataclasses.asdict(choices))


def check_probabilities(predictor: Predictor, fold_data: FoldData, folder: Path) -> None:
    """One for each record, the same whenever it is asked for, and masked ones as many or none."""
    record_indices = fold_data.cohort.find_split_record_indices("test")
    ready_predictor = predictor.make_ready(fold_data)
    probabilities, masked_probabilities = ready_predictor.predict_probabilities(record_indices)
    for values in (probabilities, masked_probabilities):
        if values is not None:
            assert values.shape == record_indices.shape and values.dtype == np.float64
            assert values.min() >= 0 and values.max() <= 1
    assert isinstance(ready_predictor.printed_text, str)
    assert_same_predictions(ready_predictor.predict_probabilities(record_indices), probabilities, masked_probabilities)
    made_again = predictor.make_ready(fold_data)
    assert_same_predictions(made_again.predict_probabilities(record_indices), probabilities, masked_probabilities)


def check_each_record_alone(predictor: Predictor, fold_data: FoldData, folder: Path) -> None:
    """What is predicted of a record does not depend on who else is asked for, and in which order."""
    record_indices = fold_data.cohort.find_split_record_indices("test")
    ready_predictor = predictor.make_ready(fold_data)
    probabilities, masked_probabilities = ready_predictor.predict_probabilities(record_indices)
    positions = np.arange(len(record_indices))
    for selection in (positions[::-1], positions[1::2], *positions[:, None]):
        selected_masked = None if masked_probabilities is None else masked_probabilities[selection]
        predictions = ready_predictor.predict_probabilities(record_indices[selection])
        assert_same_predictions(predictions, probabilities[selection], selected_masked)


def check_labels_of_tested_people_are_unknown(predictor: Predictor, fold_data: FoldData, folder: Path) -> None:
    """With other labels of theirs it predicts the same."""
    record_indices = fold_data.cohort.find_split_record_indices("test")
    expected_predictions = predictor.make_ready(fold_data).predict_probabilities(record_indices)
    other_data = dataclasses.replace(fold_data, cohort=swap_test_labels(fold_data.cohort))
    predictions = predictor.make_ready(other_data).predict_probabilities(record_indices)
    assert_same_predictions(predictions, *expected_predictions)


def swap_test_labels(cohort: Cohort) -> Cohort:
    """The cohort with the other label for each test record."""
    other_rows = list(cohort.rows)
    for record_index in cohort.find_split_record_indices("test"):
        row = other_rows[record_index]
        other_rows[record_index] = dataclasses.replace(row, label=1 - row.label)
    return dataclasses.replace(cohort, rows=tuple(other_rows))


def assert_same_predictions(
    predictions: tuple[np.ndarray, np.ndarray | None],
    expected_probabilities: np.ndarray,
    expected_masked_probabilities: np.ndarray | None,
) -> None:
    """But for what batches of another size change in float32."""
    probabilities, masked_probabilities = predictions
    np.testing.assert_allclose(probabilities, expected_probabilities, rtol=0, atol=1e-6)
    assert (masked_probabilities is None) == (expected_masked_probabilities is None)
    if masked_probabilities is not None:
        np.testing.assert_allclose(masked_probabilities, expected_masked_probabilities, rtol=0, atol=1e-6)


PREDICTOR_CHECKS: list[Callable[[Predictor, FoldData, Path], None]] = [
    check_words,
    check_digest,
    check_comparison,
    check_choices,
    check_probabilities,
    check_each_record_alone,
    check_labels_of_tested_people_are_unknown,
]
