"""A test in which no tested person was used for training -> `external.csv` and `out_of_distribution.csv`: external
validity.

The score stands beside that of the training; calibration says whether probabilities are what they say here; the shift
says in what these people differ from the training people, and `out_of_distribution.csv` who of them is unlike all of
these. What a model of everybody says of each of them goes to `participants.csv`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit

from data.base.errors import InputError
from data.cohorts.cohort import Cohort
from data.likeness.reasons import PERSON, SDS, measure_of
from data.likeness.reference import UNKNOWN, Compared, Reference, as_category, compared
from utils.evaluation import people
from utils.evaluation.comparisons import write_baselines
from utils.evaluation.confounds import subjects_of
from utils.report.tables import Results, read_table
from utils.runs.cross_validation import CrossValidation
from utils.runs.run import Run
from utils.scores.calibration import Calibration, logistic
from utils.scores.metrics import Predictions, with_intervals
from utils.scores.results import CONFIDENCE, MIN_PER_CLASS, OUT_COLUMNS, UNDEFINED, Estimate

COMPARED = ("auc_sites", "auc", "accuracy", "balanced_accuracy", "brier")  # that stand beside those of the training
Row = dict[str, object]


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of the people who trained a model; None for what is not."""

    score: CrossValidation | None = None
    reference: Reference | None = None
    calibration: Calibration | None = None
    notes: tuple[str, ...] = ()  # why something is not known


def write_beside(results: Results) -> list[str]:
    """Writes `baseline_predictions.csv`. If no tested person was used for training, it also writes `external.csv` and
    `out_of_distribution.csv`, as far as anything is known, and by a model of everybody `participants.csv`. Returns what
    must stand beside these, or why there are none."""
    run = results.run
    if run.cohort.subjects("train") and not run.everybody:
        return write_baselines(results)
    known, predictions = known_of(run), read_table(run, "predictions")
    notes = [*known.notes, *write_baselines(results)]
    found, unlike = tables(run.cohort, predictions, known, run.seed)
    if len(found):
        results.add("external", found)
    if known.reference:
        results.add("out_of_distribution", unlike)
    if run.everybody:
        notes = [*people.write(run, predictions, known.calibration, unlike if known.reference else None), *notes]
    return notes


def known_of(run: Run) -> Known:
    """Of the people who trained a network, as far as their cohort is there as it was, or a bundle says what they are
    like, and has the same maps."""
    score, source = run.cross_validation, run.checkpoints.training_cohort()
    notes = [] if source and source.maps == run.cohort.maps else [run.checkpoints.overlap]
    why = "what these are like is not known, or is known of other maps."
    try:
        found = run.checkpoints.reference()
    except InputError as error:  # too few people
        found, why = None, str(error)
    if found is None or found.constants.maps != run.cohort.maps:
        found = None
        notes.append(f"Nobody is compared with the training participants: {why}")
    return Known(score, found, people.calibration_of(run), tuple(notes))


def tables(cohort: Cohort, table: pd.DataFrame, known: Known, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`external.csv` and `out_of_distribution.csv` of a cohort's test records; `table` is `predictions.csv`, a row for
    each."""
    labelled = table[table["label"].notna()]
    found = [*scored(Predictions.of(labelled), known, seed)] if len(labelled) else []
    told = pd.DataFrame(columns=OUT_COLUMNS)
    if known.reference:
        indices = cohort.indices("test")
        beside = compared(known.reference, cohort, indices)
        rows = [(cohort.rows[at], reasons) for at, reasons in zip(indices, beside.reasons, strict=True) if reasons]
        cells = [(row.file, row.subject, "; ".join(reasons)) for row, reasons in rows]
        told = pd.DataFrame(cells, columns=OUT_COLUMNS)
        found += [unlike_share(len(told), len(indices)), *shifts(known.reference, once(beside, cohort, indices))]
    table = pd.DataFrame(found)
    return table.fillna({"how": ""}) if "how" in table else table, told


def scored(predictions: Predictions, known: Known, seed: int) -> Iterator[Row]:
    """Rows of the scores, those of the training beside them, and how right probabilities are, as the networks give them
    and `calibrated`."""
    found, before = with_intervals(predictions, seed), known.score
    for name in COMPARED:
        score = before.scores.get(name) if before else None
        if name not in found and score is None:
            continue
        training = score.columns("training") if score else {}
        about = {"training_people": before.conclusion.participants, "how": before.how} if before and score else {}
        yield {"kind": "score", "measure": name, **found.get(name, UNDEFINED).columns(), **training, **about}
    kinds = {"calibration": predictions}
    if known.calibration:
        calibrated = known.calibration.probability(predictions.probability)
        kinds["calibrated"] = replace(predictions, probability=calibrated)
    for kind, of_kind in kinds.items():
        for name, estimate in calibration(of_kind).items():
            yield {"kind": kind, "measure": name, **estimate.columns()}


def calibration(predictions: Predictions) -> dict[str, Estimate]:
    """Calibration in the large, and the slope of the log odds, each subject once (Cox 1958; Van Calster et al. 2019,
    doi:10.1186/s12916-019-1466-7).

    The former is the intercept of a logistic regression of the label with the log odds as offset; 0 is right. The
    latter is the coefficient of the log odds; 1 is right. Intervals are Wald's; there are none of fewer than
    MIN_PER_CLASS units of a class. People of one class have neither number; a slope may be undefined, too.
    """
    everybody = subjects_of(predictions)
    label, logit = everybody["label"].to_numpy(float), everybody["logit"].to_numpy(float)
    if len(set(label)) < 2:
        return {}
    one, unit = np.ones(len(label)), everybody["unit"].factorize()[0]
    enough = min(len(np.unique(unit[label == value])) for value in (0, 1)) >= MIN_PER_CLASS
    found = {"in_the_large": regression(one[:, None], logit, label, unit)}
    overlap = logit[label == 1].min() < logit[label == 0].max() and logit[label == 0].min() < logit[label == 1].max()
    if overlap and logit.std() > 0:
        found["slope"] = regression(np.column_stack([logit, one]), np.zeros(len(label)), label, unit)
    reach = stats.norm.ppf((1 + CONFIDENCE) / 2) if enough else np.nan
    return {name: Estimate.of(at, at - reach * error, at + reach * error) for name, (at, error) in found.items()}


def regression(design: np.ndarray, offset: np.ndarray, label: np.ndarray, unit: np.ndarray) -> tuple[float, float]:
    """The first coefficient, with its standard error, of a logistic regression of labels (n,) on the columns of a
    design (n, k), by maximum likelihood. The error grows by what those of a `unit` (n,) have in common: the ratio of
    robust errors with units (Liang & Zeger 1986) and without."""
    spread = np.abs(design).max(0)  # so that the steps of `logistic` reach any coefficient
    (found,) = logistic((design / spread).T, label, offset, np.ones((1, len(label))))
    share = expit(offset + design @ (found / spread))
    curvature = design.T @ (design * (share * (1 - share))[:, None])
    inverse = np.linalg.inv(curvature)
    parts = (label - share) * (design @ inverse[0])
    grown = max(np.square(np.bincount(unit, parts)).sum() / max(np.square(parts).sum(), np.finfo(float).tiny), 1.0)
    return float(found[0] / spread[0]), float(np.sqrt(inverse[0, 0] * grown))


def unlike_share(told: int, count: int) -> Row:
    """The share of records that are unlike the training people, with its Wilson interval."""
    low, high = stats.binomtest(told, count).proportion_ci(CONFIDENCE, method="wilson")
    share = Estimate.of(told / count, low, high).columns()
    return {"kind": "out of distribution", "measure": "out of distribution", **share, "participants": count}


def once(beside: Compared, cohort: Cohort, indices: np.ndarray) -> Compared:
    """The first record of each person."""
    first = ~pd.Series([cohort.rows[index].subject for index in indices]).duplicated()
    return replace(beside, values=beside.values[first.to_numpy()], table=beside.table[first.to_numpy()])


def shifts(of: Reference, beside: Compared) -> Iterator[Row]:
    """How far these people lie from the training people, in standard deviations of these. It is the median of each
    measure, in robust ones, and the share of each category."""
    for view, measure in beside.values:
        if (found := of.constants.ranges.get(view, {}).get(measure)) is not None:
            values = beside.values[view, measure].dropna().to_numpy()
            of_measure = measure_of(view, measure)
            named = {"kind": "shift", "measure": measure}
            if view != PERSON:
                named = {"kind": "shift of maps", "measure": f"{view}: {of_measure.words}"}
            if len(values):
                yield named | moved(values, found.middle, sum(found.halves(of_measure.least)) / (2 * SDS))
    for name, shares in of.constants.categories.items():
        text = as_category(beside.table[name]) if name in beside.table else pd.Series(dtype=str)
        text = text[text != UNKNOWN]
        for category, share in binary(shares).items():
            if len(text):
                about = more_often(int((text == category).sum()), len(text), share)
                yield {"kind": "shift", "measure": f"{name} {category}"} | about


def binary(shares: Mapping[str, float]) -> dict[str, float]:
    """The shares of known categories among those who are known, of two that of the second one only."""
    known = {name: share for name, share in shares.items() if name != UNKNOWN}
    total = sum(known.values())
    found = {name: share / total for name, share in known.items()}
    return dict([*found.items()][-1:]) if len(found) <= 2 else found


def moved(values: np.ndarray, middle: float, sd: float) -> Row:
    """The median of values (n,) minus that of the training people, in standard deviations, with the interval of a sign
    test; it does not count that the training people are a sample."""
    value = float((np.median(values) - middle) / sd)
    low = high = np.nan
    if len(values) >= MIN_PER_CLASS:
        ends = stats.quantile_test(values, p=0.5).confidence_interval(CONFIDENCE)
        low, high = ((end - middle) / sd for end in ends)
    return {**Estimate.of(value, low, high).columns(), "participants": len(values)}


def more_often(count: int, total: int, share: float) -> Row:
    """A share of people minus that of training people, in standard deviations of these, with its Wilson interval."""
    sd = np.sqrt(max(share * (1 - share), 1e-4))
    ends = stats.binomtest(count, total).proportion_ci(CONFIDENCE, method="wilson")
    low, high = ((end - share) / sd if total >= MIN_PER_CLASS else np.nan for end in ends)
    return {**Estimate.of((count / total - share) / sd, low, high).columns(), "participants": total}
