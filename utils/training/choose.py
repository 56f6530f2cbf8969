"""Trainings in memory: a run -> the probabilities of autism of its test records; and the choice by them, in inner
folds, among candidates. What is trained is not kept.

The weights are those of `--train`, bit for bit on the same CPU.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.base.errors import InputError
from data.base.tables import read_csv_frame, write_csv_frame
from data.base.terminal import open_progress_bar
from data.cohorts.cohort import split_into_batches
from data.cohorts.folds import InnerFolds, divide_into_inner_folds
from utils.runs.candidates import Candidate
from utils.runs.duration import get_trainings_ahead, set_trainings_ahead
from utils.runs.run import Run
from utils.scores.metrics import Predictions, compute_headline_auc
from utils.training.network import compute_autism_probability, run_network
from utils.training.train import fit_input_layers, make_training

INNER_COLUMNS = ["candidate", "inner_fold", "batches", "file", "probability"]  # of `inner.csv`


def train_and_predict_by_file(run: Run) -> dict[str, float]:
    """The probability of autism of each test record, by file, by a network that is trained on `num_iters` batches; with
    candidates by the one that inner folds choose. TensorFlow must have been started."""
    if run.candidates:
        run = run.with_single_candidate(choose_candidate(run)[0])
    with run.with_fresh_keras():
        training = make_training(run)
        fit_input_layers(training)
        for _ in training.run_steps(0):
            pass
        training.calibrate_batch_norm_and_branches(run.num_iters)
        test_indices = run.cohort.find_split_record_indices("test")
        test_index_batches = split_into_batches(test_indices, run.config.batch_size)
        # (test records, 2)
        test_logits = np.concatenate(
            [batch_logits for _, _, batch_logits in run_network(run, training.network, test_index_batches)]
        )
        file_names = [run.cohort.rows[record_index].file for record_index in test_indices]
        return dict(zip(file_names, compute_autism_probability(test_logits).tolist(), strict=True))


def choose_candidate(run: Run, inner_predictions_path: Path | None = None) -> tuple[Candidate, dict[str, Any]]:
    """The candidate that does best in inner folds of the training people, of equal ones the first; and what the record
    says of it. `inner_predictions_path` is a table of all that was predicted, which grows with each training: a run
    that is killed goes on where it was."""
    assert run.folds
    inner_fold_set = divide_into_inner_folds(run.folds, run.cohort, run.seed)
    run_by_candidate = {str(candidate): run.with_single_candidate(candidate) for candidate in run.candidates}
    # candidate name, inner fold, batches; all text
    training_keys = [
        (candidate_name, inner_fold, str(run.num_iters))
        for candidate_name in run_by_candidate
        for inner_fold in inner_fold_set.fold_names
    ]
    file_probabilities_by_key = {
        training_key: stored_file_probabilities
        for training_key, stored_file_probabilities in load_inner_predictions(inner_predictions_path).items()
        if training_key in training_keys
        and stored_file_probabilities.keys() == inner_fold_set.find_tested_record_files(training_key[1])
    }
    with open_progress_bar("Choosing", len(training_keys), len(file_probabilities_by_key)) as progress_bar:
        for candidate_name, inner_fold, batch_count_text in [
            training_key for training_key in training_keys if training_key not in file_probabilities_by_key
        ]:
            with set_trainings_ahead(get_trainings_ahead().multiply_trainings(len(inner_fold_set.fold_names))):
                file_probabilities = train_and_predict_by_file(
                    replace(
                        run_by_candidate[candidate_name],
                        cohort=inner_fold_set.make_inner_cohort(inner_fold, run_by_candidate[candidate_name].cohort),
                    )
                )
            file_probabilities_by_key[candidate_name, inner_fold, batch_count_text] = file_probabilities
            if inner_predictions_path:
                inner_table_rows = [
                    (*training_key, *file_and_probability)
                    for training_key in training_keys
                    for file_and_probability in file_probabilities_by_key.get(training_key, {}).items()
                ]
                write_csv_frame(inner_predictions_path, pd.DataFrame(inner_table_rows, columns=INNER_COLUMNS))
            progress_bar.advance(f"{candidate_name}, inner fold {inner_fold}")
    metric_and_score_by_candidate = {
        candidate_name: score_candidate(
            inner_fold_set,
            [
                file_probabilities_by_key[training_key]
                for training_key in training_keys
                if training_key[0] == candidate_name
            ],
        )
        for candidate_name in run_by_candidate
    }
    best_candidate = max(run.candidates, key=lambda candidate: metric_and_score_by_candidate[str(candidate)][1])
    metric_name, _ = metric_and_score_by_candidate[str(best_candidate)]
    score_by_candidate = {candidate_name: score for candidate_name, (_, score) in metric_and_score_by_candidate.items()}
    best_candidate_settings = {
        "preset": best_candidate.preset_name,
        "config": asdict(best_candidate.config),
        "batches": run.num_iters,
    }
    return best_candidate, {
        "chosen": {"name": str(best_candidate), "metric": metric_name, "scores": score_by_candidate}
        | best_candidate_settings
    }


def load_inner_predictions(inner_predictions_path: Path | None) -> dict[tuple[str, str, str], dict[str, float]]:
    """What an interrupted run has kept, by candidate, inner fold and batches seen; nothing of a damaged file."""
    try:
        stored_predictions_table = (
            read_csv_frame(inner_predictions_path, INNER_COLUMNS)
            if inner_predictions_path and inner_predictions_path.is_file()
            else pd.DataFrame(columns=INNER_COLUMNS)
        )
        stored_predictions_table["probability"] = stored_predictions_table["probability"].map(float)
    except (InputError, ValueError):
        return {}
    grouped_rows = stored_predictions_table.groupby(INNER_COLUMNS[:3])
    return {
        training_key: dict(zip(group_rows["file"], group_rows["probability"], strict=True))
        for training_key, group_rows in grouped_rows
    }


def score_candidate(
    inner_fold_set: InnerFolds, file_probabilities_per_fold: Sequence[dict[str, float]]
) -> tuple[str, float]:
    """The AUC that a verdict would rest on, by its name, of what a candidate predicts in each inner fold."""
    probability_by_file = {
        file_name: file_probability
        for file_probabilities in file_probabilities_per_fold
        for file_name, file_probability in file_probabilities.items()
    }
    prediction_rows = [
        (
            cohort_row.label,
            probability_by_file[cohort_row.file],
            cohort_row.subject,
            cohort_row.site,
            inner_fold_set.inner_fold_by_subject[cohort_row.subject],
        )
        for cohort_row in inner_fold_set.outer_cohort.rows
        if cohort_row.file in probability_by_file
    ]
    prediction_columns = ["label", "probability", "subject", "site", "fold"]
    return compute_headline_auc(Predictions.from_tables(pd.DataFrame(prediction_rows, columns=prediction_columns)))
