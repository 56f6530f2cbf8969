"""A test in which no tested person was used for training -> `external.csv` and `out_of_distribution.csv`: external
validity.

The score stands beside that of the training; calibration says whether probabilities are what they say here; the shift
says in what these people differ from the training people, and `out_of_distribution.csv` who of them is unlike all of
these. What a model of everybody says of each of them goes to `participants.csv`."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from scipy import stats

from data.base.errors import InputError
from data.cohorts.cohort import Cohort
from data.likeness.reasons import PERSON_VIEW, SDS_TO_RANGE_END, find_measure
from data.likeness.reference import UNKNOWN_VALUE, Reference, compare_with_reference, parse_categories
from utils.evaluation import people
from utils.evaluation.comparisons import write_baselines
from utils.evaluation.probabilities import agreement
from utils.report.tables import Results, read_table
from utils.runs.cross_validation import CrossValidation
from utils.runs.run import Run
from utils.scores.calibration import FLAT, Calibration
from utils.scores.metrics import Predictions, with_intervals
from utils.scores.results import CONFIDENCE_LEVEL, MIN_CLASS_SUBJECTS, OUT, OUT_COLUMNS, UNDEFINED, Estimate
from utils.scores.statistics import share_of

COMPARED = ("auc_sites", "auc", "accuracy", "balanced_accuracy", "brier")  # that stand beside those of the training
Row = dict[str, object]


def write_beside(results: Results) -> list[str]:
    """Writes `baseline_predictions.csv`. If no tested person was used for training, it also writes `external.csv` and
    `out_of_distribution.csv`, as far as anything is known, and by a model of everybody `participants.csv`. Returns what
    must stand beside these, or why there are none."""
    run = results.run
    if run.cohort.split_subjects("train") and not run.everybody:
        return write_baselines(results)
    predictions, calibration, unlike = read_table(run, "predictions"), people.calibration_of(run), None
    reference, notes = reference_of(run)
    notes += write_baselines(results)
    labelled = predictions[predictions["label"].notna()]
    rows = [*scored(Predictions.of(labelled), run.seed, run.cross_validation, calibration)] if len(labelled) else []
    if reference:
        unlike, shifted = beside_training(reference, run.cohort)
        results.add("out_of_distribution", unlike)
        rows += shifted
    if rows:
        results.add("external", pd.DataFrame(rows))
    return [*people.add(results, predictions, calibration, unlike), *notes] if run.everybody else notes


def reference_of(run: Run) -> tuple[Reference | None, list[str]]:
    """What the people who trained a network are like, as far as their cohort is there as it was, or a bundle says it,
    and has the same maps; and what is not known of them."""
    source = run.checkpoints.find_training_cohort()
    notes = [] if source and source.map_names == run.cohort.map_names else [run.checkpoints.overlap_warning]
    why = "what these are like is not known, or is known of other maps."
    try:
        found = run.checkpoints.load_reference()
    except InputError as error:  # too few people
        found, why = None, str(error)
    if found and found.constants.maps == run.cohort.map_names:
        return found, notes
    return None, [*notes, f"Nobody is compared with the training participants: {why}"]


def beside_training(of: Reference, cohort: Cohort) -> tuple[pd.DataFrame, list[Row]]:
    """`out_of_distribution.csv` of a cohort's test records, and rows of their share and of shifts."""
    indices = cohort.split_indices("test")
    found, tested = compare_with_reference(of, cohort, indices), [cohort.rows[at] for at in indices]
    table = pd.DataFrame([(row.file, row.subject) for row in tested], columns=OUT_COLUMNS[:2])
    table[OUT_COLUMNS[2]] = ["; ".join(reasons) for reasons in found.reasons_per_record]
    told, first = table[table[OUT_COLUMNS[2]] != ""], ~table["subject"].duplicated().to_numpy()
    share = share_of(len(told), len(table))
    row: Row = {"kind": OUT, "measure": OUT, **share.columns(), "participants": len(table)}
    return told, [row, *shifts(of, found.measure_table[first], found.people_table[first])]  # each person once


def scored(
    predictions: Predictions,
    seed: int,
    before: CrossValidation | None = None,
    calibration: Calibration | None = None,
) -> Iterator[Row]:
    """Rows of the scores, those of the training `before` beside them, and how right probabilities are, as the networks
    give them and `calibrated`."""
    found = with_intervals(predictions, seed)
    for name in COMPARED:
        score = before.scores.get(name) if before else None
        about: Row = {}
        if before and score:
            about = {
                "training_people": before.conclusion.participants,
                "how": before.division_text,
                **score.columns("training"),
            }
        if name in found or score:
            yield {"kind": "score", "measure": name, **found.get(name, UNDEFINED).columns(), **about}
    kinds = {"calibration": agreement(predictions, seed)}
    if calibration:
        calibrated = calibration.probability(predictions.probabilities)
        kinds["calibrated"] = agreement(predictions.with_probabilities(calibrated), seed, FLAT)
    for kind, numbers in kinds.items():
        for name, estimate in numbers.items():
            yield {"kind": kind, "measure": name, **estimate.columns()}


def shifts(of: Reference, values: pd.DataFrame, table: pd.DataFrame) -> Iterator[Row]:
    """How far people with these measures (people, (view, measure)) and covariates lie from the training people: the
    median of each measure, with the interval of a sign test, and the share of each category."""
    for (view, name), column in values.items():
        known, found = column.dropna(), of.constants.ranges.get(view, {}).get(name)
        if found is None or known.empty:
            continue
        measure = find_measure(view, name)
        kind, words = ("shift", name) if view == PERSON_VIEW else ("shift of maps", f"{view}: {measure.description}")
        ends = stats.quantile_test(known, p=0.5).confidence_interval(CONFIDENCE_LEVEL)
        sd = sum(found.half_ranges(measure.min_sd)) / (2 * SDS_TO_RANGE_END)
        yield {"kind": kind, "measure": words} | shift(known.median(), ends, found.middle, sd, len(known))
    for name, shares in of.constants.categories.items():
        text = parse_categories(table[name]) if name in table else pd.Series(dtype=str)
        text, before = text[text != UNKNOWN_VALUE], pd.Series(shares, dtype=float).drop(UNKNOWN_VALUE, errors="ignore")
        before /= before.sum()  # of those who are known
        for category, share in before[-1:].items() if len(before) == 2 else before.items():
            if count := len(text):
                had, *ends = share_of((text == category).sum(), count).numbers
                of_category = shift(had, ends, share, np.sqrt(max(share * (1 - share), 1e-4)), count)
                yield {"kind": "shift", "measure": f"{name} {category}"} | of_category


def shift(value: float, ends: Iterable[float], before: float, sd: float, count: int) -> Row:
    """A number of so many people minus that of the training people, in standard deviations of these. Its interval does
    not count that the training people are a sample."""
    low, high = ends if count >= MIN_CLASS_SUBJECTS else (np.nan, np.nan)
    apart = Estimate.of(*((number - before) / sd for number in (value, low, high)))
    return {**apart.columns(), "participants": count}
