"""--choose: candidates -> the one that does best in inner folds of the training people."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd

from data.base.errors import InputError
from data.base.tables import read_csv_frame, write_csv_frame
from data.base.terminal import open_progress_bar
from data.cohorts.folds import InnerFolds, divide_into_inner_folds
from utils.runs.candidates import Candidate
from utils.runs.duration import get_trainings_ahead, set_trainings_ahead
from utils.runs.run import Run
from utils.runs.statements import CandidateChoice
from utils.scores.metrics import Predictions, compute_headline_auc

INNER_COLUMNS = ["candidate", "inner_fold", "batches", "file", "probability"]  # of `inner.csv`
TrainingKey = tuple[str, str, str]  # candidate, inner fold, batches
PredictByFile = Callable[[Run], dict[str, float]]  # trains, and gives the probability of autism by test record's file


def choose_candidate(
    run: Run, train_and_predict: PredictByFile, inner_predictions_path: Path | None = None
) -> tuple[Candidate, CandidateChoice]:
    """The candidate that does best in inner folds of the training people, of equal ones the first; and what the record
    says of it. `inner_predictions_path` is a table of all that was predicted, which grows with each training: a run
    that is killed goes on where it was."""
    assert run.folds
    inner_fold_set = divide_into_inner_folds(run.folds, run.cohort, run.seed)
    probabilities_by_training = predict_inner_folds(run, inner_fold_set, train_and_predict, inner_predictions_path)

    metric_by_candidate = dict[str, str]()
    score_by_candidate = dict[str, float]()
    for candidate_name in map(str, run.candidates):
        candidate_probabilities = [
            probabilities_by_training[candidate_name, inner_fold, str(run.num_iters)]
            for inner_fold in inner_fold_set.fold_names
        ]
        metric_name, candidate_score = score_candidate(inner_fold_set, candidate_probabilities)
        metric_by_candidate[candidate_name] = metric_name
        score_by_candidate[candidate_name] = candidate_score

    best_candidate = max(run.candidates, key=lambda candidate: score_by_candidate[str(candidate)])
    choice = CandidateChoice(
        name=str(best_candidate),
        preset=best_candidate.preset_name,
        config=asdict(best_candidate.config),
        batches=run.num_iters,
        metric=metric_by_candidate[str(best_candidate)],
        scores=score_by_candidate,
    )
    return best_candidate, choice


def predict_inner_folds(
    run: Run, inner_fold_set: InnerFolds, train_and_predict: PredictByFile, inner_predictions_path: Path | None
) -> dict[TrainingKey, dict[str, float]]:
    """What each candidate predicts, by file, in each inner fold. Only what the table does not hold yet is trained."""
    run_by_candidate = {str(candidate): run.with_single_candidate(candidate) for candidate in run.candidates}
    training_keys = [
        (candidate_name, inner_fold, str(run.num_iters))
        for candidate_name in run_by_candidate
        for inner_fold in inner_fold_set.fold_names
    ]
    probabilities_by_training = dict[TrainingKey, dict[str, float]]()
    for training_key, stored_probabilities in load_inner_predictions(inner_predictions_path).items():
        _, inner_fold, _ = training_key
        if training_key in training_keys and (
            stored_probabilities.keys() == inner_fold_set.find_tested_record_files(inner_fold)
        ):
            probabilities_by_training[training_key] = stored_probabilities

    missing_keys = [training_key for training_key in training_keys if training_key not in probabilities_by_training]
    with open_progress_bar("Choosing", len(training_keys), len(probabilities_by_training)) as progress_bar:
        for training_key in missing_keys:
            candidate_name, inner_fold, _ = training_key
            trainings_ahead = get_trainings_ahead().multiply_trainings(len(inner_fold_set.fold_names))
            with set_trainings_ahead(trainings_ahead):
                candidate_run = run_by_candidate[candidate_name]
                inner_cohort = inner_fold_set.make_inner_cohort(inner_fold, candidate_run.cohort)
                inner_run = replace(candidate_run, cohort=inner_cohort)
                probabilities_by_training[training_key] = train_and_predict(inner_run)
            if inner_predictions_path:
                inner_table_rows = [
                    (*done_key, file_name, probability)
                    for done_key in training_keys
                    for file_name, probability in probabilities_by_training.get(done_key, {}).items()
                ]
                write_csv_frame(inner_predictions_path, pd.DataFrame(inner_table_rows, columns=INNER_COLUMNS))
            progress_bar.advance(f"{candidate_name}, inner fold {inner_fold}")
    return probabilities_by_training


def load_inner_predictions(inner_predictions_path: Path | None) -> dict[TrainingKey, dict[str, float]]:
    """What an interrupted run has kept, by training; nothing of a damaged file."""
    if inner_predictions_path is None or not inner_predictions_path.is_file():
        return {}
    try:
        prediction_table = read_csv_frame(inner_predictions_path, INNER_COLUMNS)
        prediction_table["probability"] = prediction_table["probability"].map(float)
    except (InputError, ValueError):
        return {}
    return {
        training_key: dict(zip(training_rows["file"], training_rows["probability"], strict=True))
        for training_key, training_rows in prediction_table.groupby(INNER_COLUMNS[:3])
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
