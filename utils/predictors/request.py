"""`--estimator`: the user's predictor in place of a network."""

from dataclasses import replace
from pathlib import Path

from utils.predictors.estimator import EstimatorPredictor
from utils.predictors.user_file import load_user_file
from utils.runs.plan import Request


def use_estimator_in_request(
    request: Request, estimator_text: str, input_kinds_text: str | None, atlas_path: Path | None, shows_traceback: bool
) -> Request:
    """The request with the estimator of the user's file, which runs, in place of a network. Raises InputError."""
    user_file = load_user_file(estimator_text, shows_traceback)
    return replace(request, predictor=EstimatorPredictor(user_file, input_kinds_text, atlas_path))
