"""What is tested beside plain classifiers (baselines), and its repeats beside each other."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import pandas as pd

from data.base.errors import InputError
from data.cohorts.cohort import Cohort
from data.cohorts.variants import standardise_cohort
from utils.evaluation.stored_baselines import load_or_fit_baselines
from utils.report.tables import MODEL_MINUS_PREFIX, EvaluationResults, RepeatPredictions
from utils.runs.cross_validation import CrossValidation
from utils.runs.run import Run
from utils.scores import baselines
from utils.scores.conclusion import (
    NO_BASELINE_WARNING,
    NO_TRAINING_PEOPLE_WARNING,
    TRAINING_TEST_TEXT,
    UNKNOWN_TRAINING_COHORT_REASON,
    BaselineComparison,
    Conclusion,
    explain_no_conclusion,
    judge_auc_difference,
    make_score_footnotes,
)
from utils.scores.metrics import Predictions, choose_headline_metric, estimate_score_differences, estimate_scores
from utils.scores.named import assign_baseline_roles, choose_prespecified_baseline
from utils.scores.results import (
    DETECTABLE_DIFFERENCE_COLUMN,
    MAJORITY_BASELINE,
    OTHER_BASELINE_ROLE,
    PRESPECIFIED_BASELINE_COLUMN,
    ROLE_COLUMN,
    TITLE_BY_AUC,
    Estimate,
    find_detectable_difference,
    flatten_estimates,
)


def write_baseline_predictions(results: EvaluationResults) -> list[str]:
    """Writes `baseline_predictions.csv`, by baselines fitted on the cohort's training people or, if others trained the
    model, on these. Returns the warnings that belong beside it."""
    run = results.run
    training_cohort = None
    is_trained_elsewhere = run.everybody or not run.cohort.list_split_subjects("train")
    if is_trained_elsewhere and (training_cohort := load_training_cohort(run)) is None:
        training_cohort_path = run.predictor.training_manifest.cohort
        if not training_cohort_path:
            return [NO_BASELINE_WARNING.format(UNKNOWN_TRAINING_COHORT_REASON)]
        return [NO_TRAINING_PEOPLE_WARNING.format(training_cohort_path)]
    try:
        prediction_table = load_or_fit_baselines(run.cohort, training_cohort, run.baselines_folder)
    except InputError as error:
        if training_cohort is None:
            raise
        return [NO_BASELINE_WARNING.format(error)]
    results.write_result_table("baseline_predictions", prediction_table.reset_index())
    fitting_cohort = training_cohort or run.cohort
    return baselines.describe_record_limits(
        len(fitting_cohort.find_split_record_indices("train")), fitting_cohort.connectomes is not None
    )


def load_training_cohort(run: Run) -> Cohort | None:
    """The cohort that a checkpoint was trained on, to fit baselines that predict the tested one; its training records
    are of the people who trained the checkpoint, and are standardised as those of the tested cohort. None if it is not
    there unchanged, or was prepared otherwise."""
    tested_cohort = run.cohort
    training_cohort = run.predictor.find_training_cohort()
    checkpoint_people = run.predictor.training_manifest.people
    if (
        training_cohort is None
        or checkpoint_people is None
        or list_preparation_values(training_cohort) != list_preparation_values(tested_cohort)
    ):
        return None
    training_subjects = set(checkpoint_people.subjects)
    split_rows = tuple(
        replace(row, split="train" if row.subject in training_subjects else "test") for row in training_cohort.rows
    )
    return standardise_cohort(replace(training_cohort, rows=split_rows), tested_cohort.standard)


def list_preparation_values(cohort: Cohort) -> list[object]:
    """How all that baselines read was prepared, except connectomes."""
    covariate_columns = [] if cohort.covariates is None else sorted(cohort.covariates)
    return [
        cohort.record_grid,
        cohort.num_maps,
        cohort.metadata.select_fields_for_inputs(("volume", "phenotype")),
        covariate_columns,
    ]


def make_baseline_rows(
    predictions: Predictions, baseline_tables: Sequence[pd.DataFrame], seed: int, input_names: Sequence[str]
) -> list[dict]:
    """Rows of `baselines.csv`: each baseline with intervals, and the model's AUCs minus its.

    `baseline_tables` are the tables of `baselines.predict_baselines` for each repeat, a row for each of the
    predictions, in their order; a baseline that could not be fitted in every fold is left out. One is pre-specified,
    by the `input_names` of the model. The intervals of the model minus each other baseline hold for all of
    these together.
    """
    metric_names = ["auc", "accuracy", "balanced_accuracy", "brier", *predictions.first_repeat_groups_by_auc]
    complete_baseline_names = []
    for baseline_name in map(str, baseline_tables[0]):
        is_in_each_repeat = all(baseline_name in baseline_table for baseline_table in baseline_tables)
        if is_in_each_repeat and all(baseline_table[baseline_name].notna().all() for baseline_table in baseline_tables):
            complete_baseline_names.append(baseline_name)
    role_by_baseline = assign_baseline_roles(complete_baseline_names, input_names)
    non_prespecified_baseline_count = list(role_by_baseline.values()).count(OTHER_BASELINE_ROLE)
    baseline_rows = []
    for baseline_name in complete_baseline_names:
        baseline_predictions = predictions.with_probabilities(
            [baseline_table[baseline_name] for baseline_table in baseline_tables]
        )
        estimate_by_metric = estimate_scores(baseline_predictions, seed)
        if baseline_name == MAJORITY_BASELINE:  # its constants differ between folds, but they rank nobody
            baseline_predictions = baseline_predictions.with_probabilities(
                np.zeros_like(baseline_predictions.probabilities)
            )
            estimate_by_metric |= {
                metric: estimate
                for metric, estimate in estimate_scores(baseline_predictions, seed).items()
                if metric in TITLE_BY_AUC
            }
        comparison_count = (
            non_prespecified_baseline_count if role_by_baseline.get(baseline_name) == OTHER_BASELINE_ROLE else 1
        )
        difference_by_metric = estimate_score_differences(predictions, baseline_predictions, seed, comparison_count)
        difference_by_column = {
            f"{MODEL_MINUS_PREFIX}{auc_name}": difference_by_metric[auc_name]
            for auc_name in ("auc", *predictions.first_repeat_groups_by_auc)
        }
        row = {"baseline": baseline_name, ROLE_COLUMN: role_by_baseline.get(baseline_name, "")} | flatten_estimates(
            {metric: estimate_by_metric[metric] for metric in metric_names} | difference_by_column
        )
        baseline_rows.append(
            row
            | {
                DETECTABLE_DIFFERENCE_COLUMN: find_detectable_difference(
                    difference_by_metric[choose_headline_metric(difference_by_metric)], comparison_count
                )
            }
        )
    return baseline_rows


def make_conclusion(
    estimate_by_metric: Mapping[str, Estimate],
    predictions: Predictions,
    baseline_rows: Sequence[dict],
    input_names: Sequence[str],
    cross_validation: CrossValidation | None = None,
    noun: str = "network",
    training_sentence: str = "",
) -> Conclusion:
    """What a test shows, by its metrics and the rows of `make_baseline_rows`; without any, the baseline is that of the
    test `cross_validation` that goes with the model. `noun` is what pages call it; `training_sentence` says that nobody
    knows who trained it, if that is so."""
    headline_metric = choose_headline_metric(estimate_by_metric)
    auc_difference_by_baseline = {
        baseline_row["baseline"]: Estimate.from_row(baseline_row, f"{MODEL_MINUS_PREFIX}{headline_metric}")
        for baseline_row in baseline_rows
    }
    candidate_baseline_names = [
        baseline_name for baseline_name in auc_difference_by_baseline if baseline_name != MAJORITY_BASELINE
    ]
    prespecified_baseline = choose_prespecified_baseline(candidate_baseline_names, input_names)
    baseline_comparison = None
    if prespecified_baseline:
        prespecified_auc = next(
            Estimate.from_row(baseline_row, headline_metric)
            for baseline_row in baseline_rows
            if baseline_row["baseline"] == prespecified_baseline.name
        )
        baseline_comparison = BaselineComparison(
            **asdict(prespecified_baseline),
            noun=noun,
            are_inputs_known=bool(input_names),
            auc=prespecified_auc,
            less=auc_difference_by_baseline[prespecified_baseline.name],
        )
    elif not baseline_rows and cross_validation and (fold_conclusion := cross_validation.conclusion).baseline:
        baseline_comparison = replace(
            fold_conclusion.baseline,
            where=TRAINING_TEST_TEXT.format(cross_validation.division_text, fold_conclusion.participants),
        )
    baseline_count_by_standing = Counter(
        judge_auc_difference(auc_difference_by_baseline[baseline_name])
        for baseline_name in candidate_baseline_names
        if not prespecified_baseline or baseline_name != prespecified_baseline.name
    )
    return Conclusion(
        metric=headline_metric,
        score=estimate_by_metric[headline_metric],
        participants=predictions.count_subjects(predictions.label >= 0),
        alone=predictions.uncompared_subject_count if headline_metric == "auc_sites" else 0,
        small_sites=predictions.in_small_sites,
        why=explain_no_conclusion(estimate_by_metric[headline_metric], headline_metric, predictions),
        notes=make_score_footnotes(headline_metric, predictions, not training_sentence),
        baseline=baseline_comparison,
        others=dict(baseline_count_by_standing),
        noun=noun,
        training_sentence=training_sentence,
    )


def make_repeats_table(repeats: Sequence[RepeatPredictions], seed: int, input_names: Sequence[str]) -> pd.DataFrame:
    """A row a repeat: number, seed, every metric with its interval. Then the pre-specified baseline, and the
    model's AUC minus that of this baseline."""
    repeat_rows = []
    for repeat_number, repeat in enumerate(repeats):
        labelled_repeat = repeat.select_records(repeat.predictions["file"][repeat.predictions["label"].notna()])
        predictions = Predictions.from_tables(labelled_repeat.predictions)
        prespecified_baseline = choose_prespecified_baseline(
            [
                str(baseline_name)
                for baseline_name in labelled_repeat.baseline_predictions
                if not labelled_repeat.baseline_predictions[baseline_name].isna().any()
            ],
            input_names,
        )
        baseline_cells: dict[str, object] = {}
        if prespecified_baseline:
            difference_by_metric = estimate_score_differences(
                predictions,
                predictions.with_probabilities([labelled_repeat.baseline_predictions[prespecified_baseline.name]]),
                seed + repeat_number,
            )
            baseline_cells = {
                PRESPECIFIED_BASELINE_COLUMN: prespecified_baseline.name,
                **flatten_estimates(
                    {
                        f"{MODEL_MINUS_PREFIX}{auc_name}": difference_by_metric[auc_name]
                        for auc_name in TITLE_BY_AUC
                        if auc_name in difference_by_metric
                    }
                ),
            }
        repeat_rows.append(
            {"repeat": repeat_number, "seed": seed + repeat_number}
            | flatten_estimates(estimate_scores(predictions, seed + repeat_number))
            | baseline_cells
        )
    return pd.DataFrame(repeat_rows).fillna({PRESPECIFIED_BASELINE_COLUMN: ""})
