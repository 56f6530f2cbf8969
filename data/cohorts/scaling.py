"""The values of a phenotype -> scaled by those of training subjects; which are impossible, or missing by class."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from data.base.listing import join_names
from data.cohorts.metadata import Metadata, Preparation
from data.cohorts.problems import Problem
from data.cohorts.rows import RecordRow
from data.tables.phenotype import (
    CATEGORY_CODES_BY_VARIABLE,
    INDICATOR_PATTERN,
    IQ_TEST_VALUE_PREFIX,
    VALUE_NAMES_BY_INDICATOR,
    list_abide_value_names,
)

MAX_MISSING_P_VALUE = 0.01  # over all columns and sites (Bonferroni)


def list_value_names_by_variable(metadata: Metadata) -> dict[str, list[str]]:
    """By variable, the names of the 0/1 values that its categories became."""
    categories_by_variable: Mapping[str, Iterable[str]] = metadata.phenotype_categories
    if metadata.phenotype == list_abide_value_names():
        categories_by_variable = CATEGORY_CODES_BY_VARIABLE  # by variable, the codes by category
    value_names_by_variable = {}
    for variable, categories in categories_by_variable.items():
        value_names_by_variable[variable] = [f"{variable}_{category}" for category in categories]
    return value_names_by_variable


def list_value_names_by_indicator(metadata: Metadata) -> dict[str, list[str]]:
    """By indicator, a value that is 1 where others are unknown and 0 elsewhere, the names of these others."""
    value_names_by_indicator = {f"{value_name}_missing": [value_name] for value_name in metadata.phenotype}
    if metadata.phenotype == list_abide_value_names():
        value_names_by_indicator |= {
            indicator: list(value_names) for indicator, value_names in VALUE_NAMES_BY_INDICATOR.items()
        }
    added_names = set(metadata.phenotype) - set(metadata.phenotype_columns)  # not a column of the user's own
    return {
        indicator: value_names
        for indicator, value_names in value_names_by_indicator.items()
        if indicator in added_names
    }


def compute_expected_indicators(raw_values: pd.DataFrame, metadata: Metadata) -> pd.DataFrame:
    """What the indicators (`list_value_names_by_indicator`) must be beside raw values (people, 29): 0.0 or 1.0."""
    category_value_names = [
        value_name for value_names in list_value_names_by_variable(metadata).values() for value_name in value_names
    ]
    # A variable is unknown if none of its categories is 1
    is_measured = raw_values.notna() & ~(raw_values.eq(0) & raw_values.columns.isin(category_value_names))
    indicator_columns = {
        indicator: (~is_measured[value_names].any(axis=1)).astype(float)
        for indicator, value_names in list_value_names_by_indicator(metadata).items()
    }
    return pd.DataFrame(indicator_columns, is_measured.index)


def describe_impossible_values(raw_values: pd.DataFrame, metadata: Metadata) -> list[Problem]:
    """The problems of raw values (people, 29) that no conversion gives: categories other than 0 and 1, several of one
    variable, indicators that contradict what they are about. Nothing is said of what no conversion made."""
    if not metadata.phenotype_columns:
        return []
    problems = list[Problem]()
    for value_names in list_value_names_by_variable(metadata).values():
        rule_text = (
            f"expected 1 for one of {join_names(value_names)} and 0 for others, or 0 for all where it is unknown"
        )
        for value_name in value_names:
            if (wrong_values := raw_values[value_name][~raw_values[value_name].isin([0, 1])]).size:
                wrong_value_text = f"{wrong_values.iloc[0]:g}" if wrong_values.notna().iloc[0] else "empty"
                wrong_subjects = wrong_values.index.tolist()
                problem_text = f"{value_name} of {join_names(wrong_subjects)} is {wrong_value_text}; {rule_text}"
                problem_code = f"impossible-category: {value_name}, {', '.join(wrong_subjects)}"
                problems.append(Problem(problem_code, problem_text))
        if (excess_category_counts := raw_values[value_names].eq(1).sum(axis=1).loc[lambda count: count > 1]).size:
            wrong_subjects = excess_category_counts.index.tolist()
            problem_text = f"{join_names(wrong_subjects)} has several of one variable; {rule_text}"
            problem_code = f"several-categories: {value_names[0]}, {', '.join(wrong_subjects)}"
            problems.append(Problem(problem_code, problem_text))
    expected_indicators = compute_expected_indicators(raw_values, metadata)
    value_names_by_indicator = list_value_names_by_indicator(metadata)
    for value_name in expected_indicators:
        if (wrong_values := raw_values[value_name][raw_values[value_name].ne(expected_indicators[value_name])]).size:
            rule_text = f"expected 1 if {join_names(value_names_by_indicator[value_name])} is unknown, else 0"
            wrong_subjects = wrong_values.index.tolist()
            problem_text = f"{value_name} of {join_names(wrong_subjects)} is {wrong_values.iloc[0]:g}; {rule_text}"
            problems.append(Problem(f"impossible-indicator: {value_name}, {', '.join(wrong_subjects)}", problem_text))
    return problems


@dataclass(frozen=True)
class Scaler:
    """Constants that impute and scale a phenotype, each (29,) float64."""

    median: np.ndarray  # (29,) of raw values; replaces unknown ones
    mean: np.ndarray  # (29,) of imputed values
    scale: np.ndarray  # 0 for a value that was constant or wholly unknown

    def transform(self, raw_values: np.ndarray) -> np.ndarray:
        """Raw values (n, 29), NaN where unknown -> z-scores (n, 29) float64; values with a scale of 0 become 0."""
        imputed_values = np.where(np.isnan(raw_values), self.median, raw_values)
        nonzero_scale = np.where(self.scale > 0, self.scale, 1)
        return np.where(self.scale > 0, (imputed_values - self.mean) / nonzero_scale, 0)

    @classmethod
    def from_preparation(cls, preparation: Preparation) -> "Scaler | None":
        """The constants that a preparation holds; None if it holds none, or not one for each value."""
        if not preparation.has_phenotype_constants:
            return None
        return cls(
            np.array(preparation.phenotype_median),
            np.array(preparation.phenotype_mean),
            np.array(preparation.phenotype_scale),
        )

    def to_preparation_fields(self) -> dict[str, Any]:
        """The constants as fields of `Preparation`."""
        return {
            f"phenotype_{constant_name}": tuple(constant_values.tolist())
            for constant_name, constant_values in vars(self).items()
        }


def fit_scaler(raw_values: np.ndarray) -> Scaler:
    """Median imputation, then z-scores, fitted on training subjects (n, 29)."""
    from sklearn.impute import SimpleImputer  # slow, and the processes that read maps can do without
    from sklearn.preprocessing import StandardScaler

    raw_values = np.ascontiguousarray(raw_values)  # the last bit of a sum depends on the order in memory
    imputer = SimpleImputer(strategy="median", keep_empty_features=True).fit(raw_values)
    imputed_values = imputer.transform(raw_values)
    standard_scaler = StandardScaler().fit(imputed_values)
    return Scaler(
        imputer.statistics_,
        standard_scaler.mean_,
        np.where(np.ptp(imputed_values, axis=0) > 0, standard_scaler.scale_, 0),
    )


def find_recording_value_indices(preparation: Preparation) -> list[int]:
    """The positions of the values that say only what of a person is missing, and how it was measured; empty if they are
    the same for all training people."""
    recording_value_indices = []
    is_any_varying = False
    for value_index, (value_name, scale) in enumerate(
        zip(preparation.phenotype, preparation.phenotype_scale, strict=False)
    ):
        if INDICATOR_PATTERN.search(value_name) or value_name.startswith(IQ_TEST_VALUE_PREFIX):
            recording_value_indices.append(value_index)
            is_any_varying = is_any_varying or scale > 0
    return recording_value_indices if is_any_varying else []


def describe_missing_by_class(value_table: pd.DataFrame | None, rows: Sequence[RecordRow]) -> list[str]:
    """A sentence for each site at which one class lacks values more often than the other (Fisher's exact test), the
    clearest first. There, a classifier can read the label from the gap. `value_table` (people, columns) is NaN where a
    value is missing; without it, there are no sentences."""
    if value_table is None:
        return []
    row_by_subject = {row.subject: row for row in rows}
    labels = np.array([row_by_subject[subject].label for subject in value_table.index])
    sites = np.array([row_by_subject[subject].site for subject in value_table.index])

    # Columns that the same people of a site lack are one gap, which is tested once
    columns_by_gap: dict[tuple[str, bytes], list[str]] = {}
    p_value_and_text_by_gap: dict[tuple[str, bytes], tuple[float, str]] = {}
    for column_name, column in value_table.items():
        is_missing = mark_missing_values(column)
        for site_name in np.unique(sites):
            control_missing_mask = is_missing[(sites == site_name) & (labels == 0.0)]
            autism_missing_mask = is_missing[(sites == site_name) & (labels == 1.0)]
            site_missing_mask = np.concatenate([control_missing_mask, autism_missing_mask])
            if control_missing_mask.size == 0 or autism_missing_mask.size == 0:
                continue
            if site_missing_mask.all() or not site_missing_mask.any():
                continue
            gap_key = (str(site_name), site_missing_mask.tobytes())
            columns_by_gap.setdefault(gap_key, []).append(INDICATOR_PATTERN.sub("", str(column_name)))
            p_value_and_text_by_gap[gap_key] = (
                compute_missing_p_value(control_missing_mask, autism_missing_mask),
                f"{control_missing_mask.sum()} of {control_missing_mask.size} controls and {autism_missing_mask.sum()} "
                f"of {autism_missing_mask.size} participants with autism at {site_name}",
            )

    max_p_value = MAX_MISSING_P_VALUE / max(len(p_value_and_text_by_gap), 1)
    sentences = []
    for gap_key, (p_value, counts_text) in sorted(p_value_and_text_by_gap.items(), key=lambda gap_item: gap_item[1]):
        if p_value < max_p_value:
            distinct_columns = list(dict.fromkeys(columns_by_gap[gap_key]))
            sentences.append(f"{join_names(distinct_columns)} missing in {counts_text} (p = {p_value:.1g})")
    return sentences


def mark_missing_values(column: pd.Series) -> np.ndarray:
    """Where a column lacks a value, or is an indicator that says so of another column, (people,) bool."""
    is_indicator = bool(INDICATOR_PATTERN.search(str(column.name)))
    return (column.isna() | is_indicator & (column == 1)).to_numpy()


def compute_missing_p_value(control_missing_mask: np.ndarray, autism_missing_mask: np.ndarray) -> float:
    """Fisher's exact test: whether a value is missing in one class more often than in the other; masks are (people,)
    bool."""
    from scipy.stats import fisher_exact

    contingency_table = [
        [control_missing_mask.sum(), (~control_missing_mask).sum()],
        [autism_missing_mask.sum(), (~autism_missing_mask).sum()],
    ]
    return float(fisher_exact(contingency_table).pvalue)
