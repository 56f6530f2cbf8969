"""The network beside plain classifiers (baselines), and its repeats beside each other."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import pandas as pd

from data.base.errors import InputError
from data.cohorts.cohort import Cohort
from data.cohorts.records import CLASS_NAMES
from data.cohorts.rows import SITE_UNKNOWN_SENTENCE, find_recorded_sites, join_names
from data.cohorts.variants import standardise_cohort
from utils.report.tables import MINUS, Results, Tested
from utils.runs.cross_validation import CrossValidation
from utils.runs.run import Run
from utils.scores import baselines
from utils.scores.conclusion import Baseline, Conclusion, standing
from utils.scores.metrics import Predictions, differences, headline, with_intervals
from utils.scores.named import named, roles
from utils.scores.results import (
    DETECTABLE,
    HEADLINES,
    MAJORITY,
    MIN_CLASS_SUBJECTS,
    OTHER,
    PRESPECIFIED_BASELINE,
    ROLE,
    Estimate,
    flat,
    minimum_detectable_difference,
)

NONE_FITTED = (
    "No baseline could be fitted beside the score: the participants who trained the model, of {}, are not at hand, "
    "or were prepared otherwise."
)
FITTED: dict[tuple, pd.DataFrame] = {}  # what baselines predict, by the data, split, groups and standard


def write_baselines(results: Results) -> list[str]:
    """`baseline_predictions.csv`, by baselines of the cohort's training people or, if others trained the model, of
    these. Returns what must stand beside it."""
    run = results.run
    training, is_of_others = None, run.everybody or not run.cohort.split_subjects("train")
    if is_of_others and (training := training_people(run)) is None:
        return [NONE_FITTED.format(run.checkpoints.manifest().cohort)]
    try:
        table = predicted_by_baselines(run.cohort, training)
    except InputError as error:
        if training is None:
            raise
        return [f"No baseline could be fitted beside the score: {error}"]
    results.add("baseline_predictions", table.reset_index())
    source = training or run.cohort
    return baselines.limits(len(source.split_indices("train")), source.connectomes is not None)


def training_people(run: Run) -> Cohort | None:
    """The cohort that a checkpoint was trained on, to fit baselines that predict the tested one; its training records
    are of the people who trained the checkpoint, and are standardised as those of `cohort`. None if it is not there as
    it was, or was prepared otherwise."""
    cohort, source, people = run.cohort, run.checkpoints.find_training_cohort(), run.checkpoints.manifest().people
    if source is None or people is None or prepared(source) != prepared(cohort):
        return None
    known = set(people.subjects)
    rows = tuple(replace(row, split="train" if row.subject in known else "test") for row in source.rows)
    return standardise_cohort(replace(source, rows=rows), cohort.standard)


def prepared(cohort: Cohort) -> list[object]:
    """How everything was made that all baselines but those of connectomes read."""
    columns = [] if cohort.covariates is None else sorted(cohort.covariates)
    return [cohort.grid, cohort.num_maps, cohort.metadata.select_for_inputs(("volume", "phenotype")), columns]


def predicted_by_baselines(cohort: Cohort, training: Cohort | None = None) -> pd.DataFrame:
    """`baselines.predict`, once in a process: no seed decides it, and repeats with the same folds have the same
    baselines."""
    cohorts = filter(None, (cohort, training))
    key = tuple((of.identity, of.rows, of.metadata.preparation, of.groups, of.standard) for of in cohorts)
    if key not in FITTED:
        FITTED[key] = baselines.predict(cohort, training)
    return FITTED[key]


def baselines_table(
    predictions: Predictions, predicted: Sequence[pd.DataFrame], seed: int, inputs: Sequence[str]
) -> list[dict]:
    """Rows of `baselines.csv`: each baseline with intervals, and the model's AUCs minus its.

    `predicted` are the tables of `baselines.predict` for each repeat, a row for each of the predictions, in their
    order; a baseline that could not be fitted in every fold is left out. One is pre-specified, by the `inputs` of the
    network. The intervals of the model minus each other baseline hold for all of these together.
    """
    names = ["auc", "accuracy", "balanced_accuracy", "brier", *predictions.groups]
    common = [name for name in predicted[0] if all(name in table for table in predicted)]
    known = [str(name) for name in common if not any(table[name].isna().any() for table in predicted)]
    role = roles(known, inputs)
    among = list(role.values()).count(OTHER)
    rows = []
    for name in known:
        baseline = predictions.with_probabilities([table[name] for table in predicted])
        found = with_intervals(baseline, seed)
        if name == MAJORITY:  # its constants differ between folds, but they rank nobody
            baseline = baseline.with_probabilities(np.zeros_like(baseline.probabilities))
            found |= {key: value for key, value in with_intervals(baseline, seed).items() if key in HEADLINES}
        of_pairs = among if role.get(name) == OTHER else 1
        less = differences(predictions, baseline, seed, of_pairs)
        minus = {f"{MINUS}{area}": less[area] for area in ("auc", *predictions.groups)}
        row = {"baseline": name, ROLE: role.get(name, "")} | flat({key: found[key] for key in names} | minus)
        rows.append(row | {DETECTABLE: minimum_detectable_difference(less[headline(less)], of_pairs)})
    return rows


def conclusion(
    score: Mapping[str, Estimate],
    predictions: Predictions,
    rows: Sequence[dict],
    inputs: Sequence[str],
    of_folds: CrossValidation | None = None,
) -> Conclusion:
    """What a test shows, by its metrics and the rows of `baselines_table`; without any, the baseline is that of the
    test `of_folds` that goes with the network."""
    metric = headline(score)
    minus = {row["baseline"]: Estimate.in_row(row, f"{MINUS}{metric}") for row in rows}
    candidates = [name for name in minus if name != MAJORITY]
    first = named(candidates, inputs)
    found = None
    if first:
        auc = next(Estimate.in_row(row, metric) for row in rows if row["baseline"] == first.name)
        found = Baseline(**asdict(first), auc=auc, less=minus[first.name])
    elif not rows and of_folds and (of := of_folds.conclusion).baseline:
        found = replace(
            of.baseline, where=f"in the training's own test {of_folds.division_text}, {of.participants} participants"
        )
    others = Counter(standing(minus[name]) for name in candidates if not first or name != first.name)
    return Conclusion(
        metric=metric,
        score=score[metric],
        participants=predictions.count(predictions.label >= 0),
        alone=predictions.in_one_class_sites if metric == "auc_sites" else 0,
        small_sites=predictions.in_small_sites,
        why=why_not(score[metric], metric, predictions),
        notes=notes_of(metric, predictions),
        baseline=found,
        others=dict(others),
    )


def why_not(score: Estimate, metric: str, predictions: Predictions) -> str:
    """Why nothing can be concluded of a score; empty if something can."""
    small, everybody = predictions.in_small_sites, predictions.label >= 0
    if score.value is None and not all((predictions.label == value).any() for value in range(len(CLASS_NAMES))):
        return f"the test participants are of one class, not of {join_names(CLASS_NAMES)}"
    if score.value is None and metric == "auc_folds":
        return "in each fold all test participants have the same diagnosis"
    if score.value is None:
        where = " of a fold" if small else ""
        return (
            f"at each site all test participants{where} have the same diagnosis, and a network that tells sites apart "
            "would seem to tell diagnoses"
        )
    if score.low is None:
        tied = predictions.units(everybody) < predictions.count(everybody)
        once = " (a family, or participants who share a scan, count once)" if tied else ""
        both = f" at sites{' and folds' if small else ''} that have both" if metric == "auc_sites" else ""
        return f"an interval needs {MIN_CLASS_SUBJECTS} participants of each class{once}{both}"
    return ""


def notes_of(metric: str, predictions: Predictions) -> list[str]:
    """Footnotes of a score: whom it compares, and what it does not say."""
    people, repeats = predictions.count(predictions.label >= 0), len(predictions.repeats)
    found = [] if find_recorded_sites(predictions.site) else [f"{SITE_UNKNOWN_SENTENCE}."]
    alone = predictions.in_one_class_sites
    if metric == "auc_sites" and predictions.in_small_sites:
        found.append(
            "Sites have few participants of a class, and a model that has seen some of such a site predicts the others "
            "in the wrong direction: only those of the same site and fold are compared."
        )
        found += [f"{alone} of {people} have nobody of the other class there."] if alone else []
        found.append("Folds of whole sites (--wholeSites) compare all who are at sites of both classes.")
    elif metric == "auc_sites":
        found.append("Compares participants of the same site, averaged over sites.")
        found += [f"{alone} of {people} are at sites of one class, and not in it."] if alone else []
        if (new := new_sites(predictions)) is not None:
            found.append(
                "Each site was tested by a model that had not seen it."
                if new
                else "Participants of the tested sites were in the training: this says nothing of a new site."
            )
    elif metric == "auc_folds":
        found.append("Compares participants whom the same model tested, averaged over folds.")
    return [*found, *([f"The mean over {repeats} repeats, of those that have one."] if repeats > 1 else [])]


def new_sites(predictions: Predictions) -> bool | None:
    """Whether every site is in one fold, in each repeat, so that its model has not seen it; None if there are no
    folds."""
    if not predictions.trained.any():
        return None
    folds = [pd.Series(fold).groupby(predictions.site).nunique() for fold in predictions.folds]
    return all((of == 1).all() for of in folds)


def repeats_table(each: Sequence[Tested], seed: int, inputs: Sequence[str]) -> pd.DataFrame:
    """A row a repeat: number, seed, every metric with its interval. Then the pre-specified baseline, and the
    network's AUC minus that of this baseline."""
    rows = []
    for number, one in enumerate(each):
        of = one.of_records(one.predictions["file"][one.predictions["label"].notna()])
        predictions = Predictions.of(of.predictions)
        baseline = named([str(name) for name in of.baselines if not of.baselines[name].isna().any()], inputs)
        beside: dict[str, object] = {}
        if baseline:
            less = differences(
                predictions, predictions.with_probabilities([of.baselines[baseline.name]]), seed + number
            )
            beside = {
                PRESPECIFIED_BASELINE: baseline.name,
                **flat({f"{MINUS}{area}": less[area] for area in HEADLINES if area in less}),
            }
        rows.append(
            {"repeat": number, "seed": seed + number} | flat(with_intervals(predictions, seed + number)) | beside
        )
    return pd.DataFrame(rows).fillna({PRESPECIFIED_BASELINE: ""})
