"""Scores by site, fold, head motion, sex and age; whether the output says more of the diagnosis than covariates do.

The test asks whether label and output are still correlated beside the covariates, products of two of them and their
curves (the generalised covariance measure; Shah & Peters 2020, Annals of Statistics 48:1514). `utils.scores.adjustment`
says which of these enter.

Covariates that are not in the tables are not in the test, nor are products of three. One that is measured with error,
or not known for everybody, is not all in it.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from data.base.effort import EFFORT
from data.base.thresholds import CONFIDENCE_LEVEL, MIN_CLASS_SUBJECTS
from data.tables.covariates import AGE_KIND, HEAD_MOTION_KIND, SEX_KIND
from utils.evaluation import sensitivity
from utils.scores.adjustment import (
    MIN_RESIDUAL_SHARE,
    Adjustment,
    compute_regression_residuals,
    find_measured_covariates,
    find_unmeasured_covariate_kinds,
    make_adjustment,
)
from utils.scores.conclusion import (
    CONSTANT_OUTPUT_REASON,
    DIAGNOSIS_FOLLOWS_REASON,
    ONE_CLASS_REASON,
    OUTPUT_FOLLOWS_REASON,
    CovariateResult,
    explain_too_few_people,
)
from utils.scores.features import make_covariate_table
from utils.scores.metrics import Predictions, choose_headline_metric, estimate_scores, find_first_and_inverse_indices
from utils.scores.results import GIVEN_DIAGNOSIS_MEASURE, UNDEFINED, Estimate, finite_or_none, flatten_estimates
from utils.scores.statistics import bootstrap_percentile_interval, permute_within_sites, to_log_odds

MIN_FINITE_P = 1e-300  # least p, whose t is finite
AGE_THIRDS = ("youngest", "middle", "oldest")
GROUPING_KINDS = ("head motion", "sex", "age")
MOVED_LESS = "moved less"
MOVED_MORE = "moved more"
MAX_SEX_VALUES = 6  # of a column of sexes; more values are no codes


def measure_confounds(predictions: Predictions, covariate_table: pd.DataFrame | None, seed: int) -> dict | None:
    """Whether the network's output says more of the diagnosis than the covariates do; None if there are none.

    `covariate_table` is as `load_all_covariates` returns it. Each subject counts once, with the mean logit of its
    records and repeats. The result contains:
    - `partial`: the correlation of label and output given the covariates, and its `p`; or `reason`: why it cannot be
      computed;
    - `subjects`, and `left_out`: how many are at a site of one class;
    - `beside`: the Adjustment;
    - where the correlation is shown: `reliability` and `unmeasured`, see `sensitivity.py`;
    - `given_diagnosis`: see `correlate_within_diagnosis`.
    """
    if covariate_table is None:
        return None
    subject_table = make_subject_table(predictions)
    subject_covariates = make_covariate_table(
        subject_table.index.tolist(), subject_table["site"].tolist(), covariate_table
    )
    tested_people, covariate_adjustment = choose_people_and_adjustment(subject_table, subject_covariates)
    partial_result = compute_partial_correlation(
        tested_people,
        subject_covariates.loc[tested_people.index],
        covariate_adjustment,
        predictions.compute_interval_widening("auc"),
    )
    return {
        "subjects": len(tested_people),
        "left_out": len(subject_table) - len(tested_people),
        "beside": covariate_adjustment,
        **partial_result,
        "given_diagnosis": correlate_within_diagnosis(subject_table, subject_covariates, seed),
    }


def make_subject_table(predictions: Predictions) -> pd.DataFrame:
    """`label`, `site`, `unit` (the cluster) and `logit`, the mean of all records and repeats, by subject."""
    mean_logits = to_log_odds(predictions.probabilities).mean(0)
    first_value_columns = {"label": predictions.label, "site": predictions.site, "unit": predictions.cluster}
    grouped_records = pd.DataFrame(first_value_columns | {"logit": mean_logits}).groupby(predictions.subject)
    return grouped_records.agg(dict.fromkeys(first_value_columns, "first") | {"logit": "mean"})


def choose_people_and_adjustment(
    subject_table: pd.DataFrame, subject_covariates: pd.DataFrame
) -> tuple[pd.DataFrame, Adjustment]:
    """The people at sites of both classes, and the adjustment for these; everybody where the site does not enter."""
    tested_people = subject_table[subject_table.groupby("site")["label"].transform("nunique") == 2]
    covariate_adjustment = make_adjustment(subject_covariates.loc[tested_people.index])
    if "site" not in covariate_adjustment.covariates and len(tested_people) < len(subject_table):
        covariates_without_site = subject_covariates.drop(columns="site", errors="ignore")
        tested_people = subject_table
        covariate_adjustment = make_adjustment(covariates_without_site.reindex(columns=subject_covariates.columns))
    unmeasured_kinds = find_unmeasured_covariate_kinds(subject_covariates, subject_table["site"])
    return tested_people, replace(covariate_adjustment, unmeasured_kinds=unmeasured_kinds)


def compute_partial_correlation(
    tested_people: pd.DataFrame,
    subject_covariates: pd.DataFrame,
    covariate_adjustment: Adjustment,
    standard_error_factor: float,  # 1 for independent models
) -> dict:
    """The `partial` correlation of label and logit given the covariates, and its `p`; or the `reason` why there is
    none.

    Standard errors are robust (HC3; MacKinnon & White 1985), also to what the subjects of a cluster have in common
    (Liang & Zeger 1986). Those of several folds are `standard_error_factor` times as large, since their models share
    training subjects: see `utils.scores.metrics`.
    """
    if tested_people["label"].nunique() < 2:
        return {"reason": ONE_CLASS_REASON}
    reason = covariate_adjustment.no_adjustment_reason or explain_too_few_people(tested_people)
    if reason:
        return {"reason": reason}
    label_and_logit = tested_people[["label", "logit"]].to_numpy(float)  # (people, 2)
    if label_and_logit[:, 1].std() < MIN_RESIDUAL_SHARE:
        return {"reason": CONSTANT_OUTPUT_REASON}

    # What the covariates say of both is removed, by the terms that either needs
    label_and_logit = (label_and_logit - label_and_logit.mean(axis=0)) / label_and_logit.std(axis=0)
    label_z, logit_z = label_and_logit.T  # (people,) each, mean 0 and SD 1
    term_indices = frozenset(
        covariate_adjustment.select_term_indices(label_z) | covariate_adjustment.select_term_indices(logit_z)
    )
    covariate_basis = covariate_adjustment.make_basis_with_terms(term_indices)  # (people, columns)
    label_residuals, output_residuals = compute_regression_residuals(label_and_logit, covariate_basis).T
    if output_residuals.std() < MIN_RESIDUAL_SHARE:
        return {"reason": OUTPUT_FOLLOWS_REASON}
    if label_residuals.std() < MIN_RESIDUAL_SHARE:
        return {"reason": DIAGNOSIS_FOLLOWS_REASON}

    partial_correlation, p_value = correlate_residuals(
        label_residuals, output_residuals, covariate_basis, standard_error_factor, tested_people["unit"]
    )
    partial_result = {"partial": partial_correlation, "p": p_value}
    if partial_correlation.low is not None and partial_correlation.low > 0:
        cluster_indices = tested_people["unit"].factorize()[0]
        test_inputs = sensitivity.CovariateTestInputs(
            label_z,
            logit_z,
            cluster_indices,
            subject_covariates,
            covariate_adjustment,
            term_indices,
            standard_error_factor,
        )
        freedom_degrees = max(cluster_indices.max() + 1 - covariate_basis.shape[1] - 1, 2)
        t_value = stats.t.isf(max(p_value, MIN_FINITE_P) / 2, freedom_degrees)
        partial_result["reliability"] = sensitivity.find_critical_reliability(test_inputs)
        partial_result["unmeasured"] = sensitivity.find_unmeasured_covariate(test_inputs, t_value, freedom_degrees)
    return partial_result


def correlate_residuals(
    label_residuals: np.ndarray,  # (people,)
    output_residuals: np.ndarray,  # (people,)
    covariate_basis: np.ndarray,  # (people, columns), orthonormal
    standard_error_factor: float,  # 1 for independent models
    cluster_per_person: pd.Series,
) -> tuple[Estimate, float]:
    """The correlation of two columns of residuals (n,) of a regression on `covariate_basis` (n, k), and its p; errors
    within a `cluster_per_person` (n,) are not independent."""
    output_square_sum = output_residuals @ output_residuals
    slope = output_residuals @ label_residuals / output_square_sum
    errors = label_residuals - slope * output_residuals  # (people,)

    # HC3: an error over 1 minus its leverage, which is 0 for those whom the regression fits in any case
    leverage_complement = 1 - (covariate_basis**2).sum(axis=1) - output_residuals**2 / output_square_sum  # (people,)
    person_scores = np.where(
        leverage_complement > MIN_RESIDUAL_SHARE,
        output_residuals * errors / np.maximum(leverage_complement, MIN_RESIDUAL_SHARE),
        0,
    )
    cluster_scores = np.bincount(cluster_per_person.factorize()[0], person_scores)  # (clusters,)

    sd_ratio = output_residuals.std() / label_residuals.std()
    correlation = sd_ratio * slope
    standard_error = sd_ratio * standard_error_factor * np.sqrt(cluster_scores @ cluster_scores) / output_square_sum
    freedom_degrees = max(len(cluster_scores) - covariate_basis.shape[1] - 1, 1)
    half_width = stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, freedom_degrees) * standard_error
    correlation_estimate = Estimate.from_numbers(
        correlation, max(correlation - half_width, -1), min(correlation + half_width, 1)
    )
    p_value = 2 * stats.t.sf(abs(correlation) / max(standard_error, 1e-12), freedom_degrees)
    return correlation_estimate, float(p_value)


def correlate_within_diagnosis(
    subject_table: pd.DataFrame, subject_covariates: pd.DataFrame, seed: int
) -> dict[str, tuple[Estimate, float]]:
    """Of each number among the covariates, and of the sex, its correlation with the logit among people of one diagnosis
    and site, and a two-sided p of the permutations of its values among these people.

    An output that follows the diagnosis alone goes with whatever goes with the diagnosis. It does not when the
    diagnosis is given (a partial confounder test; arXiv 2111.00814). Families are exchanged as a whole. The interval is
    that of these networks. What is known for fewer than `MIN_CLASS_SUBJECTS` clusters is left out.
    """
    correlation_and_p_by_covariate = {}
    for covariate, covariate_values in select_numeric_covariates(subject_covariates).items():
        measured_people = subject_table.assign(value=covariate_values).dropna(subset="value")
        cell_by_subject = measured_people.groupby(["label", "site"]).ngroup()
        logit_and_value = measured_people[["logit", "value"]]
        cell_deviations = logit_and_value - logit_and_value.groupby(cell_by_subject).transform("mean")
        # neither is the same in all people of a cell
        is_varying = (cell_deviations.std() > MIN_RESIDUAL_SHARE * logit_and_value.std()).all()
        if is_varying and measured_people["unit"].nunique() >= MIN_CLASS_SUBJECTS:
            logit_deviations, value_deviations = cell_deviations.to_numpy().T
            correlation_and_p_by_covariate[covariate] = correlate_within_cells(
                logit_deviations, value_deviations, cell_by_subject.to_numpy(), measured_people["unit"].to_numpy(), seed
            )
    return correlation_and_p_by_covariate


def select_numeric_covariates(subject_covariates: pd.DataFrame) -> dict[str, pd.Series]:
    """The covariates that are a number and known for enough people; and of a sex of two codes whether it is the second,
    `sex (M)`."""
    values_by_covariate = {}
    for covariate in find_measured_covariates(subject_covariates):
        covariate_values = subject_covariates[covariate]
        if pd.api.types.is_numeric_dtype(covariate_values):
            values_by_covariate[covariate] = covariate_values
        elif SEX_KIND.matches_column_name(covariate) and covariate_values.nunique() == 2:
            second_sex = max(covariate_values.dropna())
            values_by_covariate[f"{covariate} ({second_sex})"] = (
                (covariate_values == second_sex).astype(float).where(covariate_values.notna())
            )
    return values_by_covariate


def correlate_within_cells(
    logit_deviations: np.ndarray,  # (people,), from the mean of the cell
    value_deviations: np.ndarray,  # (people,), from the mean of the cell
    cell_by_subject: np.ndarray,  # (people,), cell number
    cluster_per_subject: np.ndarray,  # (people,), cluster ID
    seed: int,
) -> tuple[Estimate, float]:
    """The correlation of two columns (n,) that have the mean 0 in each cell, and its p; values change places within the
    cells `cell_by_subject` (n,), and people of a `cluster_per_subject` (n,) stay together."""
    first_subject_indices, cluster_indices = find_first_and_inverse_indices(cluster_per_subject)
    products = logit_deviations * value_deviations  # (people,)
    dot_product = logit_deviations @ value_deviations
    logit_square_sum = logit_deviations @ logit_deviations
    value_square_sum = value_deviations @ value_deviations
    correlation = dot_product / np.sqrt(logit_square_sum * value_square_sum)

    def compute_resampled_correlations(cluster_weights: np.ndarray) -> np.ndarray:
        subject_weights = cluster_weights[:, cluster_indices]  # (resamples, people)
        logit_variances = subject_weights @ logit_deviations**2
        value_variances = subject_weights @ value_deviations**2
        with np.errstate(divide="ignore", invalid="ignore"):
            return subject_weights @ products / np.sqrt(logit_variances * value_variances)

    generator = np.random.default_rng(seed)
    low, high = bootstrap_percentile_interval(
        compute_resampled_correlations, len(first_subject_indices), generator, EFFORT.resamples
    )

    value_orders = permute_within_sites(cluster_indices, cell_by_subject, EFFORT.resamples, generator)
    permuted_dot_products = value_deviations[value_orders] @ logit_deviations  # (permutations,)
    least_extreme_product = np.abs(dot_product) * (1 - MIN_RESIDUAL_SHARE)
    extreme_count = np.count_nonzero(np.abs(permuted_dot_products) >= least_extreme_product)
    p_value = float((1 + extreme_count) / (1 + EFFORT.resamples))
    return Estimate.from_numbers(*np.clip([correlation, low, high], -1, 1)), p_value


def make_covariate_result(confound_result: dict | None) -> CovariateResult | None:
    """The result of `measure_confounds` as part of what a test shows."""
    if confound_result is None:
        return None
    sensitivity_fields: dict[str, Any] = {}
    unmeasured_covariate = confound_result.get("unmeasured")
    if unmeasured_covariate:
        sensitivity_fields = {
            "reliability": confound_result["reliability"],
            "unmeasured": unmeasured_covariate.needed_correlation,
            "strongest": unmeasured_covariate.strongest_measured_covariate,
            "times_strongest": finite_or_none(unmeasured_covariate.times_strongest_measured),
        }
    return CovariateResult(
        names=[*confound_result["beside"].nearly_complete_covariates],
        partial=confound_result.get("partial", UNDEFINED),
        reason=confound_result.get("reason", ""),
        left_out=confound_result["left_out"],
        **sensitivity_fields,
    )


def make_confound_rows(
    confound_result: dict | None, group_score_rows: list[dict], masked_auc_and_difference: tuple[Estimate, Estimate]
) -> list[dict]:
    """Rows of `confounds.csv`: the test; the correlation with each covariate given the diagnosis; the half that moved
    least; and the `masked_auc_and_difference`: the AUC where missingness is masked, and the score minus it."""
    confound_result = confound_result or {}
    measured_estimates: list[tuple[str, str, Estimate, float | None]] = []  # measure, covariate, estimate, p
    if "partial" in confound_result:
        measured_estimates.append(("partial", "", confound_result["partial"], confound_result["p"]))
    if "unmeasured" in confound_result:
        reliability = Estimate.from_numbers(confound_result["reliability"])
        measured_estimates.append(("reliability", "", reliability, None))
        unmeasured_covariate = confound_result["unmeasured"]
        needed_correlation = Estimate.from_numbers(unmeasured_covariate.needed_correlation)
        strongest_covariate = unmeasured_covariate.strongest_measured_covariate
        measured_estimates.append(("unmeasured", strongest_covariate, needed_correlation, None))
    for covariate, (correlation, p_value) in confound_result.get("given_diagnosis", {}).items():
        measured_estimates.append((GIVEN_DIAGNOSIS_MEASURE, covariate, correlation, p_value))
    less_moving_row = next((group_row for group_row in group_score_rows if group_row["group"] == MOVED_LESS), None)
    if less_moving_row:
        auc_name = "auc_sites" if less_moving_row.get("auc_sites") is not None else "auc"
        measured_estimates.append((auc_name, "", Estimate.from_row(less_moving_row, auc_name), None))
    masked_auc, score_minus_masked = masked_auc_and_difference
    measured_estimates.append(("masked", "", masked_auc, None))
    measured_estimates.append(("minus_masked", "", score_minus_masked, None))
    return [
        {"measure": measure, "covariate": covariate} | estimate.to_cells() | {"p": p_value}
        for measure, covariate, estimate, p_value in measured_estimates
        if estimate.value is not None
    ]


def make_group_score_rows(predictions: Predictions, covariate_table: pd.DataFrame | None, seed: int) -> list[dict]:
    """Rows of `groups.csv`: the halves that moved less and more than the median of their site, the sexes, the thirds of
    age; number of subjects, AUC and, where there are several sites, AUC within them, with intervals. At small sites
    there is the latter only, see `make_site_score_rows`."""
    if covariate_table is None:
        return []
    first_record_indices, _ = predictions.first_records_and_subject_indices
    subjects = predictions.subject[first_record_indices].tolist()
    sites = predictions.site[first_record_indices].tolist()
    subject_covariates = make_covariate_table(subjects, sites, covariate_table)
    group_score_rows = []
    for grouping_kind, group_by_subject in find_groupings(subject_covariates, sites):
        group_by_record = group_by_subject.reindex(predictions.subject).to_numpy(object)
        for group_name in group_by_subject.dropna().unique():
            group_predictions = predictions.select_records(group_by_record == group_name)
            subject_count_by_column, estimate_by_metric = count_and_score_group(group_predictions, seed)
            estimate_by_auc: dict[str, Estimate] = {}
            if predictions.in_small_sites:
                estimate_by_auc["auc_sites"] = estimate_by_metric[choose_headline_metric(estimate_by_metric)]
                estimate_by_auc["auc"] = UNDEFINED
            else:
                if "auc_sites" in estimate_by_metric:
                    estimate_by_auc["auc_sites"] = estimate_by_metric["auc_sites"]
                estimate_by_auc["auc"] = estimate_by_metric["auc"]
            group_score_rows.append(
                {"kind": grouping_kind, "group": str(group_name)}
                | subject_count_by_column
                | flatten_estimates(estimate_by_auc)
            )
    return sorted(group_score_rows, key=lambda group_row: GROUPING_KINDS.index(group_row["kind"]))


def count_and_score_group(group_predictions: Predictions, seed: int) -> tuple[dict[str, int], dict[str, Estimate]]:
    """How many subjects a part has, in all and of each class; and its metrics."""
    subject_count_by_column = {
        "subjects": group_predictions.count_subjects(group_predictions.label >= 0),
        "autism": group_predictions.count_subjects(group_predictions.label == 1),
        "control": group_predictions.count_subjects(group_predictions.label == 0),
    }
    return subject_count_by_column, estimate_scores(group_predictions, seed)


def find_groupings(subject_covariates: pd.DataFrame, sites: list[str]) -> Iterator[tuple[str, pd.Series]]:
    """Each grouping by its kind: the name of the group of each subject, the groups in order; NaN where unknown."""
    for covariate in subject_covariates:
        covariate_values = subject_covariates[covariate]
        is_number = covariate_values.dtype == float
        has_few_values = covariate_values.nunique() <= MAX_SEX_VALUES
        if HEAD_MOTION_KIND.matches_column_name(covariate) and is_number:
            site_medians = covariate_values.groupby(np.array(sites)).transform("median")
            half_names = np.where(covariate_values < site_medians, MOVED_LESS, MOVED_MORE)
            half_by_subject = pd.Series(half_names, subject_covariates.index)
            yield "head motion", half_by_subject.where(covariate_values.notna()).sort_values()
        elif AGE_KIND.matches_column_name(covariate) and is_number and not has_few_values:
            age_ranks = covariate_values.rank(method="first")
            third_by_subject = pd.qcut(age_ranks, len(AGE_THIRDS), labels=AGE_THIRDS).astype(object)
            lower_age, upper_age = covariate_values.quantile([1 / 3, 2 / 3])
            youngest, middle, oldest = AGE_THIRDS
            text_by_third = {
                youngest: f"{youngest} third, below {lower_age:.1f}",
                middle: f"{middle} third, {lower_age:.1f} to {upper_age:.1f}",
                oldest: f"{oldest} third, above {upper_age:.1f}",
            }
            yield "age", third_by_subject.map(text_by_third)[covariate_values.sort_values().index]
        elif SEX_KIND.matches_column_name(covariate) and has_few_values:
            sex_texts = covariate_values.dropna().map("{:g}".format if is_number else str)
            yield "sex", (f"{covariate} " + sex_texts).sort_values()


def make_site_score_rows(predictions: Predictions, seed: int) -> list[dict]:
    """A row a site, the largest first: counts of subjects, AUC and accuracy with `_low`, `_high`; None if undefined.

    Where sites are small the AUC is that within folds. Models of different folds have seen different people of the site
    (`data.cohorts.peers.compute_pull_log_odds`).
    """
    site_rows = []
    for site_name in np.unique(predictions.site):
        site_predictions = predictions.select_records(predictions.site == site_name)
        subject_count_by_column, estimate_by_metric = count_and_score_group(site_predictions, seed)
        auc_name = choose_headline_metric(estimate_by_metric) if predictions.in_small_sites else "auc"
        estimate_by_column = {"auc": estimate_by_metric[auc_name], "accuracy": estimate_by_metric["accuracy"]}
        site_rows.append({"site": str(site_name)} | subject_count_by_column | flatten_estimates(estimate_by_column))
    return sorted(site_rows, key=lambda site_row: -site_row["subjects"])


def score_folds(predictions: Predictions, seed: int) -> dict[str, dict[str, Estimate]]:
    """The metrics of each fold, in the order in which folds appear, by the fold's name as text."""
    fold_by_record = predictions.fold_names[0]
    return {
        str(fold_name): estimate_scores(predictions.select_records(fold_by_record == fold_name), seed)
        for fold_name in dict.fromkeys(fold_by_record.tolist())
    }
