"""How far "carries more than the covariates" depends on what nobody knows: how reliably covariates are measured, and a
covariate that nobody measured.

An output that follows the true IQ carries more than an IQ that is measured with error. So the test is repeated as if
numbers had been measured with less and less reliability (errors in variables; Fuller 1987, Measurement Error Models):
their error is subtracted from their covariances, and what they then explain from that of diagnosis and output.

A covariate that nobody measured would have to go with both diagnosis and output. How strongly, is the robustness value
of Cinelli and Hazlett (2020, J R Stat Soc B 82:39, doi:10.1111/rssb.12348).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from data.base.thresholds import CONFIDENCE_LEVEL
from data.tables.covariates import AGE_KIND, SEX_KIND
from utils.scores.adjustment import (
    Adjustment,
    compute_regression_residuals,
    make_linear_columns,
    make_orthonormal_basis,
)

RELIABILITIES = np.linspace(0.99, 0.3, 70)  # at which the test is repeated, one after another


@dataclass(frozen=True)
class UnmeasuredCovariate:
    """A covariate that nobody measured makes the result vanish if its partial correlation with both diagnosis and
    output is at least `needed_correlation`. That is `times_strongest_measured` times the partial correlation of
    `strongest_measured_covariate`, the strongest measured covariate, with the one of both with which it goes less; NaN
    and "" if none goes with both."""

    needed_correlation: float  # with both diagnosis and output
    strongest_measured_covariate: str  # its name; empty if none goes with both
    times_strongest_measured: float  # ratio of correlations; NaN without a strongest one


@dataclass(frozen=True)
class CovariateTestInputs:
    """The inputs of the test given covariates."""

    z_scored_labels: np.ndarray  # (people,)
    z_scored_logits: np.ndarray  # (people,)
    cluster_indices: np.ndarray  # (people,)
    subject_covariates: pd.DataFrame  # a row a person
    adjustment: Adjustment
    term_indices: frozenset[int]  # of the adjustment's terms that entered
    standard_error_factor: float  # how much wider the spread is than that of independent people

    def is_mean_significantly_positive(self, products: np.ndarray, parameter_count: int) -> bool:
        """Whether the mean of products (n,) is above 0, as `correlate_residuals` in `confounds.py` judges it: those of
        a cluster are not independent, and the regression had `parameter_count` parameters."""
        cluster_sums = np.bincount(self.cluster_indices, products - products.mean())  # (clusters,)
        freedom_degrees = max(len(cluster_sums) - parameter_count - 1, 1)
        sum_standard_error = (
            self.standard_error_factor * np.sqrt(cluster_sums @ cluster_sums) * len(cluster_sums) / freedom_degrees
        )
        return bool(products.sum() > stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, freedom_degrees) * sum_standard_error)


def find_error_prone_covariates(test_inputs: CovariateTestInputs) -> list[str]:
    """The numbers among the covariates in the test, except age and sex, which are known exactly."""
    covariate_names = test_inputs.adjustment.covariates
    return [
        covariate
        for covariate in covariate_names
        if pd.api.types.is_numeric_dtype(test_inputs.subject_covariates[covariate])
        and not AGE_KIND.matches_column_name(covariate)
        and not SEX_KIND.matches_column_name(covariate)
    ]


def find_critical_reliability(test_inputs: CovariateTestInputs) -> float | None:
    """The highest reliability, the same of all numbers, at which the output no longer carries more than the covariates;
    None if no number is measured with error, and the lowest of `RELIABILITIES` if it carries more at all of them."""
    error_prone_covariates = find_error_prone_covariates(test_inputs)
    if not error_prone_covariates:
        return None
    columns_by_covariate = {
        covariate: make_linear_columns(test_inputs.subject_covariates[covariate])
        for covariate in test_inputs.adjustment.covariates
    }
    # (people, error-prone covariates)
    error_prone_values = np.column_stack(
        [columns_by_covariate[covariate][:, 0] for covariate in error_prone_covariates]
    )
    exact_column_blocks = [
        covariate_columns[:, 1:] if covariate in error_prone_covariates else covariate_columns
        for covariate, covariate_columns in columns_by_covariate.items()
    ]
    term_columns = test_inputs.adjustment.term_columns[:, sorted(test_inputs.term_indices)]
    exact_basis = make_orthonormal_basis(
        np.column_stack([np.ones(len(error_prone_values)), *exact_column_blocks, term_columns])
    )
    label_residuals = compute_regression_residuals(test_inputs.z_scored_labels, exact_basis)
    output_residuals = compute_regression_residuals(test_inputs.z_scored_logits, exact_basis)
    error_prone_residuals = compute_regression_residuals(error_prone_values, exact_basis)

    error_prone_covariance = error_prone_residuals.T @ error_prone_residuals / len(error_prone_residuals)
    smallest_eigenvalue = np.linalg.eigvalsh(error_prone_covariance).min()
    parameter_count = exact_basis.shape[1] + error_prone_residuals.shape[1]
    for covariate_reliability in RELIABILITIES:
        error_variance = 1 - covariate_reliability
        if error_variance >= smallest_eigenvalue:  # such values would be nothing but error
            return float(covariate_reliability)
        residual_products = compute_corrected_products(
            label_residuals, output_residuals, error_prone_residuals, error_variance
        )
        if not test_inputs.is_mean_significantly_positive(residual_products, parameter_count):
            return float(covariate_reliability)
    return float(RELIABILITIES[-1])


def compute_corrected_products(
    label_residuals: np.ndarray,  # (people,)
    output_residuals: np.ndarray,  # (people,)
    error_prone_residuals: np.ndarray,  # (people, error-prone covariates)
    error_variance: float,
) -> np.ndarray:
    """The products (people,) of what is left of label and output beside the covariates, if these were measured with
    errors of this variance."""
    people_count, covariate_count = error_prone_residuals.shape
    measured_covariance = error_prone_residuals.T @ error_prone_residuals / people_count
    inverse_true_covariance = np.linalg.inv(measured_covariance - error_variance * np.eye(covariate_count))
    label_coefficients, output_coefficients = (
        inverse_true_covariance @ (error_prone_residuals.T @ residuals) / people_count
        for residuals in (label_residuals, output_residuals)
    )
    label_errors = label_residuals - error_prone_residuals @ label_coefficients
    output_errors = output_residuals - error_prone_residuals @ output_coefficients
    return label_errors * output_errors - error_variance * label_coefficients @ output_coefficients


def find_unmeasured_covariate(
    test_inputs: CovariateTestInputs, t_value: float, freedom_degrees: int
) -> UnmeasuredCovariate:
    """How strong a covariate that nobody measured would have to be to explain the result, if the test given all others
    has this `t_value` and these `freedom_degrees`; and the strongest of those that were measured."""
    needed_partial_f = abs(t_value) / np.sqrt(freedom_degrees) - stats.t.ppf(
        (1 + CONFIDENCE_LEVEL) / 2, freedom_degrees - 1
    ) / np.sqrt(freedom_degrees - 1)
    squared_partial_f = max(needed_partial_f, 0) ** 2
    explained_variance_share = (
        np.sqrt(squared_partial_f**2 + 4 * squared_partial_f) - squared_partial_f
    ) / 2  # of the variance of both that it explains
    correlation_by_covariate = {
        covariate: compute_lesser_partial_correlation(test_inputs, covariate)
        for covariate in test_inputs.adjustment.covariates
    }
    strongest_covariate = max(correlation_by_covariate, key=correlation_by_covariate.__getitem__, default="")
    needed_correlation = float(np.sqrt(explained_variance_share))
    strongest_correlation = correlation_by_covariate.get(strongest_covariate, 0.0)
    return UnmeasuredCovariate(
        needed_correlation,
        strongest_covariate if strongest_correlation else "",
        needed_correlation / strongest_correlation if strongest_correlation else np.nan,
    )


def compute_lesser_partial_correlation(test_inputs: CovariateTestInputs, covariate: str) -> float:
    """The multiple partial correlation of a covariate with the label, or with the output if that is less, given all
    other covariates."""
    remaining_columns = [
        make_linear_columns(test_inputs.subject_covariates[remaining_covariate])
        for remaining_covariate in test_inputs.adjustment.covariates
        if remaining_covariate != covariate
    ]
    remaining_basis = make_orthonormal_basis(
        np.column_stack([np.ones(len(test_inputs.z_scored_labels)), *remaining_columns])
    )
    covariate_basis = make_orthonormal_basis(
        compute_regression_residuals(make_linear_columns(test_inputs.subject_covariates[covariate]), remaining_basis)
    )
    target_residuals = (
        compute_regression_residuals(column, remaining_basis)
        for column in (test_inputs.z_scored_labels, test_inputs.z_scored_logits)
    )
    return float(
        min(np.sqrt(np.square(covariate_basis.T @ column).sum() / (column @ column)) for column in target_residuals)
    )
