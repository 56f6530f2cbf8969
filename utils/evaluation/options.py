"""The options of --test, and when they are possible; without TensorFlow."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.base.cli import make_int_parser, option, parse_seed_option
from data.base.errors import InputError, quote_text
from utils.runs.record import compute_sha256
from utils.runs.run import PredictorOptions, Run

MAX_PERMUTATIONS = 100_000


def parse_prevalence(prevalence_text: str) -> float:
    try:
        parsed_prevalence = float(prevalence_text)
    except ValueError:
        parsed_prevalence = 0.0
    if not 0 < parsed_prevalence < 1:
        raise argparse.ArgumentTypeError(
            f"{quote_text(prevalence_text)} is not allowed; expected a share between 0 and 1, such as 0.01"
        )
    return parsed_prevalence


@dataclass(frozen=True)
class TestOptions(PredictorOptions):
    """What a test does besides testing; it changes none of its other results."""

    permutations: int | None = option(
        None,
        "the p-value: repeat the whole procedure on N permutations of the labels",
        type=make_int_parser(1, MAX_PERMUTATIONS),
        metavar="N",
    )
    prevalence: float | None = option(
        None, "of a model of everybody: the share of autism where it is used", type=parse_prevalence, metavar="P"
    )

    predictions: Path | None = option(
        None,
        "test predictions made elsewhere, a CSV file: id,probability and, if cross-validated, fold (and repeat)",
        type=Path,
        metavar="FILE.csv",
    )
    control: int | None = option(
        None,
        "with --predictions: test for a leak, against the labels that abide-data export --control SEED has permuted",
        type=parse_seed_option,
        metavar="SEED",
    )

    def select_result_settings(self) -> dict[str, Any]:
        result_settings: dict[str, Any] = {}
        if self.prevalence is not None:
            result_settings["prevalence"] = self.prevalence
        if self.control is not None:
            result_settings["control"] = self.control
        if self.estimator is not None:
            result_settings["inputs"] = self.inputs
            result_settings["atlas_sha256"] = compute_sha256(self.atlas) if self.atlas else None
        return result_settings


def check_prevalence(run: Run) -> None:
    """Raises InputError for a prevalence where there is no calibration that could use it."""
    prevalence = run.options.prevalence if isinstance(run.options, TestOptions) else None
    if prevalence is not None and not (run.cross_validation and run.cross_validation.calibration):
        raise InputError(
            f"--prevalence moves calibrated probabilities, and {run.predictor.path} has none: no test on folds with "
            "enough participants goes with it. Leave it out."
        )


def check_estimator_options(run: Run) -> None:
    """Raises InputError for regions of an atlas that nothing reads."""
    test_options = run.options
    if not isinstance(test_options, TestOptions) or test_options.atlas is None:
        return
    if not test_options.estimator:
        raise InputError(
            "--atlas goes with --estimator, or with --blackout; a network reads what it was trained on. Leave it out."
        )
    if "volume" not in run.predictor.input_names:
        raise InputError(
            f"--atlas {test_options.atlas} is about maps, which the estimator does not read; leave it out."
        )
