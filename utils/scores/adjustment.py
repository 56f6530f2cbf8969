"""Covariates of people -> what they leave of values, for tests of whether there is more than covariates.

Each covariate enters a least-squares regression as it is: numbers as lines, text as dummies. There are many more terms:
products of every two covariates, of each with the site, and curves of numbers: squares, kinks and steps, and squares
and kinks within each category of another covariate. Of these, the ones enter that predict one of the values. A lasso
selects them. Its penalty is not tuned, but such that chance alone lets none of so many terms in. So the number of terms
costs little, and few people suffice (Belloni, Chernozhukov & Hansen 2014, Review of Economic Studies 81:608).
"""

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.linear_model import Lasso

from data.tables.covariates import COVARIATE_KIND_BY_NAME
from data.tables.vocabulary import find_recorded_sites
from utils.scores.features import UNKNOWN_CATEGORY

SUBJECTS_PER_PARAMETER = 5  # for which 2 suffice (Austin & Steyerberg 2015, J Clin Epidemiol 68:627)
EXTRA_PARAMETERS = 3  # parameters: the intercept, the value that is tested, and one product or curve
MIN_MEASURED_SHARE = 0.5  # share of the subjects whose value of a covariate must be known to use it
MAX_IMPUTED_SHARE = 0.1  # share of unknown values; a covariate with more of them may explain what is found
MAX_CATEGORY_VALUES = 6  # distinct values of a number: one with more has a curve
MAX_QUANTILES = 40  # most quantile groups of a number, as many people in each; kinks and steps lie between them
LASSO_PENALTY_FACTOR = 1.1
LASSO_ERROR_RATE = 0.05
NOISE_ROUNDS = 3  # of the lasso: factor of its penalty, its error rate, how often the noise is estimated
MIN_NOISE_SHARE = 0.1  # least noise, as a share of the spread that covariates leave; smaller terms are not looked for
MIN_RESIDUAL_SHARE = 1e-6  # share of the spread that covariates must leave


@dataclass(frozen=True)
class Adjustment:
    """Which covariates of people are regressed out of their values, and how.

    `covariates`: those that enter; `unusable_covariates`: those that cannot; `unmeasured_kinds`: see
    `find_unmeasured_covariate_kinds`. `oversized_products`: products that may not enter as a whole, the first
    covariates of each two by the second. `imputed_count_by_covariate`: for how many people a covariate that enters is
    not known, by name. `incomplete_covariates`: those of which this is more than `MAX_IMPUTED_SHARE` of the people:
    they enter, but nothing may be said to go beyond them. `no_adjustment_reason`: why nothing is adjusted.
    `covariate_basis`: an orthonormal basis (n, k) of the intercept and the covariates; `term_columns`: what a
    regression on these leaves of all other columns (n, m), z-scored. `product_indices_and_bases`: which columns belong
    to a product of several, and an orthonormal basis of these.
    """

    covariates: tuple[str, ...] = ()  # names of those that are regressed out
    unusable_covariates: tuple[str, ...] = ()  # names of those that cannot be regressed out
    # first covariates of products too wide to enter, by the second covariate
    oversized_products: dict[str, list[str]] = field(default_factory=dict)
    unmeasured_kinds: tuple[str, ...] = ()
    imputed_count_by_covariate: dict[str, int] = field(default_factory=dict)  # people for whom it is not known
    incomplete_covariates: tuple[str, ...] = ()  # names of those unknown for more than `MAX_IMPUTED_SHARE`
    no_adjustment_reason: str = ""
    covariate_basis: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))  # (people, axes), orthonormal
    term_columns: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))  # (people, terms), z-scored
    # for each product: indices in `term_columns`, and a basis (people, axes)
    product_indices_and_bases: tuple[tuple[np.ndarray, np.ndarray], ...] = ()

    @property
    def nearly_complete_covariates(self) -> tuple[str, ...]:
        """The covariates that enter and are known for nearly everybody."""
        return tuple(covariate for covariate in self.covariates if covariate not in self.incomplete_covariates)

    @cached_property
    def gram_matrix(self) -> np.ndarray:
        """The products (m, m) of the columns of `term_columns`."""
        return self.term_columns.T @ self.term_columns

    def select_term_indices(self, target_values: np.ndarray) -> set[int]:
        """The columns of `term_columns` that predict a value (n,): those that the lasso selects, and those of the
        products that predict what it leaves."""
        subject_count, term_count = self.term_columns.shape
        target_residuals = compute_regression_residuals(target_values, self.covariate_basis)
        chosen_term_indices = np.empty(0, int)
        if term_count == 0 or target_residuals.std() <= MIN_RESIDUAL_SHARE * target_values.std():
            return set()
        penalty_level = LASSO_PENALTY_FACTOR * stats.norm.isf(LASSO_ERROR_RATE / term_count) / np.sqrt(subject_count)
        residuals_after_chosen_terms = target_residuals
        noise_sd = target_residuals.std()
        for _ in range(NOISE_ROUNDS):
            if np.abs(target_residuals @ self.term_columns).max() <= subject_count * penalty_level * noise_sd:
                break
            lasso = Lasso(
                penalty_level * noise_sd,
                fit_intercept=False,
                precompute=self.gram_matrix,
                copy_X=False,
                max_iter=100_000,
            )
            chosen_term_indices = np.flatnonzero(lasso.fit(self.term_columns, target_residuals).coef_)
            residuals_after_chosen_terms = compute_regression_residuals(
                target_residuals, make_orthonormal_basis(self.term_columns[:, chosen_term_indices])
            )
            noise_sd = max(residuals_after_chosen_terms.std(), MIN_NOISE_SHARE * target_residuals.std())
        for product_term_indices, product_basis in self.product_indices_and_bases:
            chi_squared = np.square(product_basis.T @ residuals_after_chosen_terms).sum() / noise_sd**2
            if chi_squared > stats.chi2.isf(
                LASSO_ERROR_RATE / len(self.product_indices_and_bases), product_basis.shape[1]
            ):
                chosen_term_indices = np.union1d(chosen_term_indices, product_term_indices)
                residuals_after_chosen_terms = compute_regression_residuals(
                    target_residuals, make_orthonormal_basis(self.term_columns[:, chosen_term_indices])
                )
        return set(chosen_term_indices.tolist())

    def make_basis_with_terms(self, term_indices: Set[int]) -> np.ndarray:
        """An orthonormal basis (n, k) of the intercept, the covariates and these columns of `term_columns`."""
        return np.column_stack(
            [self.covariate_basis, make_orthonormal_basis(self.term_columns[:, sorted(term_indices)])]
        )


def make_basis_with_intercept(columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis (n, k) of `columns` (n, any) and an intercept."""
    return make_orthonormal_basis(np.column_stack([np.ones(len(columns)), columns]))


def make_orthonormal_basis(columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis (n, k) of `columns` (n, any)."""
    left_vectors, singular_values, _ = np.linalg.svd(columns, full_matrices=False)
    return left_vectors[:, singular_values > singular_values.max(initial=0) * len(columns) * np.finfo(float).eps]


def compute_regression_residuals(values: np.ndarray, orthonormal_basis: np.ndarray) -> np.ndarray:
    """What a regression of values (n,) or (n, any) on `orthonormal_basis` (n, k) leaves."""
    return values - orthonormal_basis @ (orthonormal_basis.T @ values)


def find_measured_covariates(covariate_table: pd.DataFrame) -> list[str]:
    """The covariates that are known for enough people."""
    return [
        covariate for covariate in covariate_table if covariate_table[covariate].notna().mean() >= MIN_MEASURED_SHARE
    ]


def make_adjustment(covariate_table: pd.DataFrame, site_names: Iterable[str] | None = None) -> Adjustment:
    """The adjustment for the covariates of people. As long as people are too few, the covariate with the most columns
    is left out.

    `covariate_table` has a row a person, as made by `utils.scores.features.make_covariate_table`; `site_names` are as
    in `find_unmeasured_covariate_kinds`. An unknown number takes the median and a mark of its own. Covariates that are
    unknown for more than `MAX_IMPUTED_SHARE` do not enter without others.
    """
    empty_adjustment = Adjustment(
        (),
        tuple(covariate_table),
        unmeasured_kinds=find_unmeasured_covariate_kinds(covariate_table, site_names),
        no_adjustment_reason="no covariate can be used",
    )
    empty_adjustment = replace(
        empty_adjustment,
        covariate_basis=make_basis_with_intercept(np.empty((len(covariate_table), 0))),
        term_columns=np.empty((len(covariate_table), 0)),
    )
    # (people, columns) each, z-scored
    columns_by_covariate = {
        covariate: make_linear_columns(covariate_table[covariate])
        for covariate in find_measured_covariates(covariate_table)
        if covariate_table[covariate].nunique() > 1
    }
    incomplete_columns = covariate_table.columns[covariate_table.isna().mean() > MAX_IMPUTED_SHARE]
    while set(columns_by_covariate).difference(incomplete_columns):
        needed_subject_count = SUBJECTS_PER_PARAMETER * (
            sum(linear_columns.shape[1] for linear_columns in columns_by_covariate.values()) + EXTRA_PARAMETERS
        )
        if len(covariate_table) >= needed_subject_count:
            missing_count_by_covariate = covariate_table[[*columns_by_covariate]].isna().sum()
            full_adjustment = replace(
                empty_adjustment,
                covariates=tuple(columns_by_covariate),
                unusable_covariates=tuple(
                    covariate for covariate in covariate_table if covariate not in columns_by_covariate
                ),
            )
            missing_count_by_covariate = missing_count_by_covariate[missing_count_by_covariate > 0].to_dict()
            incomplete_covariates = tuple(
                covariate for covariate in columns_by_covariate if covariate in incomplete_columns
            )
            full_adjustment = replace(
                full_adjustment,
                imputed_count_by_covariate=missing_count_by_covariate,
                incomplete_covariates=incomplete_covariates,
                no_adjustment_reason="",
            )
            full_adjustment = replace(
                full_adjustment,
                covariate_basis=make_basis_with_intercept(np.column_stack([*columns_by_covariate.values()])),
            )
            return add_term_columns(
                full_adjustment, make_further_terms(covariate_table[[*columns_by_covariate]], columns_by_covariate)
            )
        too_few_reason = (
            f"{len(covariate_table)} participants are too few for curves and products of covariates; "
            f"{needed_subject_count} would do"
        )
        empty_adjustment = replace(empty_adjustment, no_adjustment_reason=too_few_reason)
        del columns_by_covariate[
            max(columns_by_covariate, key=lambda covariate: columns_by_covariate[covariate].shape[1])
        ]
    return empty_adjustment


def find_unmeasured_covariate_kinds(covariate_table: pd.DataFrame, site_names: Iterable[str] | None) -> tuple[str, ...]:
    """Which kinds of covariates (`COVARIATE_KIND_BY_NAME`) are not known for enough people; the site first, if none of
    the people's `site_names` is known."""
    unmeasured_site_kind = ("site",) if site_names is not None and not find_recorded_sites(site_names) else ()
    return (
        *unmeasured_site_kind,
        *(
            kind_name
            for kind_name, covariate_kind in COVARIATE_KIND_BY_NAME.items()
            if not covariate_kind.find_matching_column_names(covariate_table[find_measured_covariates(covariate_table)])
        ),
    )


def add_term_columns(adjustment: Adjustment, term_blocks: Iterable[tuple[tuple[str, ...], np.ndarray]]) -> Adjustment:
    """The adjustment with the columns of `make_further_terms`. A product with too many columns to enter as a whole is
    named."""
    max_product_column_count = (
        len(adjustment.covariate_basis) // SUBJECTS_PER_PARAMETER - adjustment.covariate_basis.shape[1] - 1
    )
    column_blocks = [adjustment.term_columns]
    product_indices_and_bases = list[tuple[np.ndarray, np.ndarray]]()
    oversized_products = dict[str, list[str]]()
    for covariate_names, term_values in term_blocks:
        term_residuals = compute_regression_residuals(term_values, adjustment.covariate_basis)
        is_informative = term_residuals.std(axis=0) > MIN_RESIDUAL_SHARE * term_values.std(axis=0)
        scaled_residuals = term_residuals[:, is_informative] / term_residuals[:, is_informative].std(axis=0)
        if len(covariate_names) > 1 and 1 < scaled_residuals.shape[1] <= max_product_column_count:
            first_term_index = sum(column_block.shape[1] for column_block in column_blocks)
            product_indices_and_bases.append(
                (first_term_index + np.arange(scaled_residuals.shape[1]), make_orthonormal_basis(scaled_residuals))
            )
        if len(covariate_names) > 1 and scaled_residuals.shape[1] > max_product_column_count:
            oversized_products.setdefault(covariate_names[1], []).append(covariate_names[0])
        column_blocks.append(scaled_residuals)
    return replace(
        adjustment,
        term_columns=np.asfortranarray(np.hstack(column_blocks)),
        product_indices_and_bases=tuple(product_indices_and_bases),
        oversized_products=oversized_products,
    )


def make_linear_columns(covariate_values: pd.Series) -> np.ndarray:
    """Columns (n, any), z-scored: a number, with a mark where it is unknown, or the dummies of text."""
    if pd.api.types.is_numeric_dtype(covariate_values):
        linear_columns = pd.DataFrame(
            {"value": covariate_values.fillna(covariate_values.median()), UNKNOWN_CATEGORY: covariate_values.isna()},
            dtype=float,
        )
    else:
        linear_columns = pd.get_dummies(covariate_values.fillna(UNKNOWN_CATEGORY), drop_first=True, dtype=float)
    linear_columns = linear_columns.loc[:, linear_columns.nunique() > 1]
    return ((linear_columns - linear_columns.mean()) / linear_columns.std(ddof=0)).to_numpy()


def make_further_terms(
    covariate_table: pd.DataFrame, columns_by_covariate: dict[str, np.ndarray]
) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """The terms beyond the linear `columns_by_covariate`: for each the two covariates of a product or the one of a
    curve, and columns (n, any)."""
    covariates_without_site = [covariate for covariate in columns_by_covariate if covariate != "site"]
    for first_covariate, second_covariate in combinations(covariates_without_site, 2):
        yield (
            (first_covariate, second_covariate),
            multiply_columns(columns_by_covariate[first_covariate], columns_by_covariate[second_covariate]),
        )
    if "site" in columns_by_covariate:
        site_dummies = pd.get_dummies(covariate_table["site"], dtype=float).to_numpy()
        for covariate in covariates_without_site:
            yield (covariate, "site"), multiply_columns(columns_by_covariate[covariate], site_dummies)
    for covariate in covariate_table.select_dtypes("number"):
        if covariate_table[covariate].nunique() > MAX_CATEGORY_VALUES:
            z_scored_values = columns_by_covariate[covariate][:, :1]
            quantile_count = min(MAX_QUANTILES, len(covariate_table) // SUBJECTS_PER_PARAMETER)
            knots = np.quantile(z_scored_values, np.linspace(0, 1, quantile_count + 1)[1:-1])
            curve_columns = [
                np.square(z_scored_values),
                np.maximum(z_scored_values - knots, 0),
                (z_scored_values > knots).astype(float),
            ]
            yield (covariate,), np.column_stack(curve_columns)
            for second_covariate in covariates_without_site:
                if (
                    second_covariate != covariate and covariate_table[second_covariate].nunique() <= MAX_CATEGORY_VALUES
                ):  # the curve may differ between categories
                    yield (
                        (covariate,),
                        multiply_columns(
                            np.column_stack([np.square(z_scored_values), np.maximum(z_scored_values, 0)]),
                            columns_by_covariate[second_covariate],
                        ),
                    )


def multiply_columns(first_columns: np.ndarray, second_columns: np.ndarray) -> np.ndarray:
    """Each column of one (n, k) times each of the other (n, m), (n, k m)."""
    return (first_columns[:, :, None] * second_columns[:, None, :]).reshape(len(first_columns), -1)
