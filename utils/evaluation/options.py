"""The options of --test, and when they are possible; without TensorFlow."""

import argparse
from dataclasses import dataclass
from typing import Any

from data.base.cli import make_int_parser, option
from data.base.errors import InputError, quote_text
from utils.runs.run import BundleOptions, Run

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
class TestOptions(BundleOptions):
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

    def select_result_settings(self) -> dict[str, Any]:
        return {} if self.prevalence is None else {"prevalence": self.prevalence}


def check_prevalence(run: Run) -> None:
    """Raises InputError for a prevalence where there is no calibration that could use it."""
    prevalence = run.options.prevalence if isinstance(run.options, TestOptions) else None
    if prevalence is not None and not (run.cross_validation and run.cross_validation.calibration):
        raise InputError(
            f"--prevalence moves calibrated probabilities, and {run.predictor.path} has none: no test on folds with "
            "enough participants goes with it. Leave it out."
        )
