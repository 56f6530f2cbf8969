"""`--estimator` and `--predictions`: the user's predictor in place of a network."""

from dataclasses import replace
from pathlib import Path

from data.base.errors import InputError
from utils.predictors.estimator import EstimatorPredictor
from utils.predictors.predictions import FilePredictor
from utils.predictors.predictions_file import PredictionsFile, read_predictions_file
from utils.predictors.user_file import load_user_file
from utils.runs.plan import Request


def use_estimator_in_request(
    request: Request, estimator_text: str, input_kinds_text: str | None, atlas_path: Path | None, shows_traceback: bool
) -> Request:
    """The request with the estimator of the user's file, which runs, in place of a network. Raises InputError."""
    user_file = load_user_file(estimator_text, shows_traceback)
    return replace(request, predictor=EstimatorPredictor(user_file, input_kinds_text, atlas_path))


def use_predictions_in_request(request: Request, predictions_path: Path, control_seed: int | None) -> Request:
    """The request with the predictions of the user's file in place of a network, and with its folds and repeats; they
    are of the labels that `control_seed` permutes, if it is not None. Raises InputError."""
    predictions_file = read_predictions_file(predictions_path)
    check_same_control(predictions_file, control_seed)
    predictor = FilePredictor(predictions_file, control_seed)
    if not predictor.folds_option:
        return replace(request, predictor=predictor)
    return replace(request, predictor=predictor, folds=predictor.folds_option, repeats=predictions_file.repeat_count)


def check_same_control(predictions_file: PredictionsFile, control_seed: int | None) -> None:
    """Raises InputError if a column of the file names another control than the command, or the command names none."""
    file_seed = predictions_file.control_seed
    if file_seed is None or file_seed == control_seed:
        return
    command_text = "has no --control" if control_seed is None else f"has --control {control_seed}"
    raise InputError(
        f"{predictions_file.path} predicts permuted labels (its column control holds {file_seed}), and the command "
        f"{command_text}; expected --control {file_seed}. Correct the option, or predict the labels that are meant."
    )
