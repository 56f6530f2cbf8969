"""What a model of everybody says of each person -> `participants.csv`: the probability, calibrated; a set of labels;
why the person is out of distribution."""

import pandas as pd

from data.base import files
from data.tables.vocabulary import CLASS_NAMES
from utils.evaluation.options import TestOptions
from utils.report.tables import EvaluationResults
from utils.runs.run import Run
from utils.scores.calibration import COVERAGE_LEVELS, Calibration
from utils.scores.conclusion import (
    AT_CHANCE_WARNING,
    NO_CALIBRATION_WARNING,
    NO_SCORE_WARNING,
    format_calibration_promise,
)

PARTICIPANT_SET_LEVEL = COVERAGE_LEVELS[0]


def load_calibration(run: Run) -> Calibration | None:
    """How probabilities become those of people whom the network has not seen; None without a test on folds that says
    it."""
    calibration_json = run.cross_validation.calibration if run.cross_validation else None
    return files.parse_json(files.format_json(calibration_json), Calibration) if calibration_json else None


def add_participants_table(
    results: EvaluationResults,
    prediction_table: pd.DataFrame,
    calibration: Calibration | None,
    out_of_distribution_records: pd.DataFrame | None,
) -> list[str]:
    """Adds `participants.csv` of a test, whose `predictions.csv` is `prediction_table`, with the reasons of
    `out_of_distribution.csv`, if anybody could be compared; sets what it promises, and returns what speaks against
    it."""
    run = results.run
    raw_probabilities = prediction_table["probability"].to_numpy()
    prevalence = run.options.prevalence if isinstance(run.options, TestOptions) else None
    participant_table = prediction_table[["file", "subject"]].assign(raw=raw_probabilities, probability=None, labels="")
    if calibration:
        participant_table["probability"] = calibration.calibrate(raw_probabilities, prevalence)
        label_set_texts = []
        for set_mask in calibration.find_label_sets(raw_probabilities, PARTICIPANT_SET_LEVEL):  # (classes,) bool
            set_labels = [class_name for class_name, is_in_set in zip(CLASS_NAMES, set_mask, strict=True) if is_in_set]
            label_set_texts.append(" or ".join(set_labels) or "none")
        participant_table["labels"] = label_set_texts
    if out_of_distribution_records is not None:
        outlier_reasons = participant_table["file"].map(out_of_distribution_records.set_index("file")["reasons"])
        participant_table["out_of_distribution"] = outlier_reasons.astype(object).fillna("")
    results.write_result_table("participants", participant_table)
    cross_validation = run.cross_validation
    score_warnings = []
    if cross_validation is None:
        score_warnings.append(NO_SCORE_WARNING)
    elif not cross_validation.headline_score.beats_chance:
        score_warnings.append(AT_CHANCE_WARNING)
    if cross_validation is None or calibration is None:
        return [*score_warnings, NO_CALIBRATION_WARNING]
    results.calibration_promise = format_calibration_promise(
        prevalence, calibration.prevalence, PARTICIPANT_SET_LEVEL, cross_validation.lowest_coverage
    )
    return score_warnings
