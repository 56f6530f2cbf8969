"""How far "carries more than the covariates" hangs on what nobody knows: how reliably covariates are measured, and a
covariate that nobody measured.

An output that follows the true IQ carries more than an IQ that is measured with error. So the test is repeated as if
numbers had been measured with less and less reliability (errors in variables; Fuller 1987, Measurement Error Models):
their error is taken from their covariances, and what they then explain from that of diagnosis and output.

A covariate that nobody measured would have to go with both diagnosis and output. How strongly, is the robustness value
of Cinelli and Hazlett (2020, J R Stat Soc B 82:39, doi:10.1111/rssb.12348).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from data.cohorts.covariates import AGE_KIND, SEX_KIND
from utils.scores.adjustment import Adjustment, linear, orthonormal, residuals
from utils.scores.results import CONFIDENCE_LEVEL

RELIABILITIES = np.linspace(0.99, 0.3, 70)  # at which the test is repeated, one after another


@dataclass(frozen=True)
class Unmeasured:
    """A covariate that nobody measured makes the result vanish if its partial correlation with both diagnosis and
    output is at least `correlation`: so many `times` that of the `strongest` measured one, with that of both with which
    it goes less; NaN and "" if none goes with both."""

    correlation: float
    strongest: str
    times: float


@dataclass(frozen=True)
class BesideCovariates:
    """What the test beside covariates was of: `label` and `output` (n,), z-scored; the `unit` (n,) of each person; the
    `known` covariates, a row a person; the `adjustment`, and which of its `terms` entered; how much `wider` the spread
    is than that of independent people."""

    label: np.ndarray
    output: np.ndarray
    unit: np.ndarray
    known: pd.DataFrame
    adjustment: Adjustment
    terms: frozenset[int]
    wider: float

    def is_shown(self, products: np.ndarray, parameters: int) -> bool:
        """Whether the mean of products (n,) is above 0, as `correlated` in `confounds.py` judges it: those of a unit
        are not independent, and a regression had so many parameters."""
        by_unit = np.bincount(self.unit, products - products.mean())
        free = max(len(by_unit) - parameters - 1, 1)
        error = self.wider * np.sqrt(by_unit @ by_unit) * len(by_unit) / free
        return bool(products.sum() > stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, free) * error)


def measured_with_error(tested: BesideCovariates) -> list[str]:
    """The numbers among the covariates in the test, but for the age, which is known exactly."""
    names = tested.adjustment.covariates
    return [
        name
        for name in names
        if pd.api.types.is_numeric_dtype(tested.known[name])
        and not AGE_KIND.matches_name(name)
        and not SEX_KIND.matches_name(name)
    ]


def least_reliability(tested: BesideCovariates) -> float | None:
    """The highest reliability, the same of all numbers, at which the output no longer carries more than the covariates;
    None if no number is measured with error, and the lowest of RELIABILITIES if it does at all of them."""
    names = measured_with_error(tested)
    if not names:
        return None
    blocks = {name: linear(tested.known[name]) for name in tested.adjustment.covariates}
    values = np.column_stack([blocks[name][:, 0] for name in names])
    others = [block[:, 1:] if name in names else block for name, block in blocks.items()]
    terms = tested.adjustment.terms[:, sorted(tested.terms)]
    exact = orthonormal(np.column_stack([np.ones(len(values)), *others, terms]))
    label, output, values = (residuals(column, exact) for column in (tested.label, tested.output, values))
    covariance, parameters = values.T @ values / len(values), exact.shape[1] + values.shape[1]
    smallest = np.linalg.eigvalsh(covariance).min()
    for reliability in RELIABILITIES:
        error = 1 - reliability
        if error >= smallest:  # such values would be nothing but error
            return float(reliability)
        true = np.linalg.inv(covariance - error * np.eye(len(names)))
        of_label, of_output = (true @ (values.T @ column) / len(values) for column in (label, output))
        products = (label - values @ of_label) * (output - values @ of_output) - error * of_label @ of_output
        if not tested.is_shown(products, parameters):
            return float(reliability)
    return float(RELIABILITIES[-1])


def unmeasured(tested: BesideCovariates, t: float, freedom: int) -> Unmeasured:
    """How strong a covariate would have to be that nobody measured, where the test beside all others has this `t`, of
    so many degrees of freedom; and the strongest of those that were measured."""
    needed = abs(t) / np.sqrt(freedom) - stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, freedom - 1) / np.sqrt(freedom - 1)
    squared = max(needed, 0) ** 2
    share = (np.sqrt(squared**2 + 4 * squared) - squared) / 2  # of the variance of both that it explains
    strengths = {name: strength(tested, name) for name in tested.adjustment.covariates}
    strongest = max(strengths, key=strengths.__getitem__, default="")
    correlation, most = float(np.sqrt(share)), strengths.get(strongest, 0.0)
    return Unmeasured(correlation, strongest if most else "", correlation / most if most else np.nan)


def strength(tested: BesideCovariates, name: str) -> float:
    """The multiple partial correlation of a covariate with the label, or with the output if that is less, beside all
    other covariates."""
    others = [linear(tested.known[other]) for other in tested.adjustment.covariates if other != name]
    rest = orthonormal(np.column_stack([np.ones(len(tested.label)), *others]))
    own = orthonormal(residuals(linear(tested.known[name]), rest))
    left = (residuals(column, rest) for column in (tested.label, tested.output))
    return float(min(np.sqrt(np.square(own.T @ column).sum() / (column @ column)) for column in left))
