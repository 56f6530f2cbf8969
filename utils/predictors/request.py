"""`--estimator` and `--predictions`: the user's predictor in place of a network."""

from dataclasses import replace
from pathlib import Path

from utils.predictors.estimator import EstimatorPredictor
from utils.predictors.predictions import FilePredictor
from utils.predictors.predictions_file import read_predictions_file
from utils.predictors.user_file import load_user_file
from utils.runs.plan import Request


def use_estimator_in_request(
    request: Request, estimator_text: str, input_kinds_text: str | None, atlas_path: Path | None, shows_traceback: bool
) -> Request:
    """The request with the estimator of the user's file, which runs, in place of a network. Raises InputError."""
    user_file = load_user_file(estimator_text, shows_traceback)
    return replace(request, predictor=EstimatorPredictor(user_file, input_kinds_text, atlas_path))


def use_predictions_in_request(request: Request, predictions_path: Path) -> Request:
    """The request with the predictions of the user's file in place of a network, and with its folds and repeats. Raises
    InputError."""
    predictions_file = read_predictions_file(predictions_path)
    predictor = FilePredictor(predictions_file)
    if not predictor.folds_option:
        return replace(request, predictor=predictor)
    return replace(request, predictor=predictor, folds=predictor.folds_option, repeats=predictions_file.repeat_count)
