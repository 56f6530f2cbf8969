"""What a model of everybody says of each person -> `participants.csv`: the probability, calibrated; a set of labels;
why the person is out of distribution."""

import pandas as pd

from data.base import files
from data.cohorts.records import CLASS_NAMES
from utils.evaluation.options import TestOptions
from utils.report.tables import Results
from utils.runs.cross_validation import CrossValidation
from utils.runs.run import Run
from utils.scores.calibration import LEVELS, Calibration

LEVEL = LEVELS[0]
NO_CALIBRATION = (
    "Probabilities are not calibrated and there are no sets of labels: no test on folds of enough participants goes "
    "with this model."
)
NO_SCORE = "How good this network is nobody knows: what it says of a participant may be chance."
AT_CHANCE = (
    "The test on folds does not show that such networks beat chance: what this one says of a participant may be chance."
)


def calibration_of(run: Run) -> Calibration | None:
    """How probabilities become those of people whom the network has not seen; None if no test on folds tells."""
    found = run.cross_validation.calibration if run.cross_validation else None
    return files.parse_json(files.format_json(found), Calibration) if found else None


def add(
    results: Results, table: pd.DataFrame, calibration: Calibration | None, unlike: pd.DataFrame | None
) -> list[str]:
    """Adds `participants.csv` of a test, whose `predictions.csv` is `table`, with the reasons of
    `out_of_distribution.csv`, if anybody could be compared, and what it promises; returns what speaks against it."""
    run, raw = results.run, table["probability"].to_numpy()
    prevalence = run.options.prevalence if isinstance(run.options, TestOptions) else None
    people = table[["file", "subject"]].assign(raw=raw, probability=None, labels="")
    if calibration:
        sets = [
            [of for of, is_in in zip(CLASS_NAMES, row, strict=True) if is_in] for row in calibration.sets(raw, LEVEL)
        ]
        people["probability"] = calibration.probability(raw, prevalence)
        people["labels"] = [" or ".join(of) or "none" for of in sets]
    if unlike is not None:
        reasons = people["file"].map(unlike.set_index("file")["reasons"])
        people["out_of_distribution"] = reasons.astype(object).fillna("")
    results.add("participants", people)
    score = run.cross_validation
    doubts = [] if score and score.score.beats_chance else [AT_CHANCE if score else NO_SCORE]
    if score is None or calibration is None:
        return [*doubts, NO_CALIBRATION]
    results.promise = promise_of(score, calibration, prevalence)
    return doubts


def promise_of(score: CrossValidation, calibration: Calibration, prevalence: float | None) -> str:
    """What probabilities and sets promise, and to whom."""
    share = f"{prevalence or calibration.prevalence:.3g}"
    share += "" if prevalence else ", as in the training; --prevalence names another one"
    whom = "of participants of sites that trained the network; at a new site nobody knows"
    if score.lowest_coverage is not None:
        held = f"at one site that was left out for {score.lowest_coverage:.0%} of a class"
        whom = f"of participants like those of its sites; {held}, and at yours nobody knows"
    return (
        f"Calibrated probabilities are for a share of autism of {share}. Sets of labels hold the true one for "
        f"{LEVEL:.0%} of each class, {whom}."
    )
