"""Effects of regions beside covariates: what of an effect goes with the diagnosis among people of like site, age, ...

A region that carries the age alone speaks for the true class if age goes with the diagnosis. So the effect d on the
logit of autism and the label y are both taken beside what the covariates z say of them, out of fold: 2 (y - p(z)) (d -
m(z)), p by logistic and m by ridge regression on splines of z. Where covariates say nothing this is the effect on the
true class. Its mean is 0 if d is independent of y given z; since it is a product of two residuals, an error of p does
harm only where m errs, too (the generalised covariance measure, Shah & Peters 2020, Annals of Statistics 48:1514).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, SplineTransformer, StandardScaler

from data.cohorts.cohort import Cohort
from data.cohorts.rows import Row
from utils.scores.features import covariates, with_iq
from utils.scores.results import MIN_PER_CLASS

MIN_SUBJECTS_A_PARAMETER = 5  # penalties keep the regressions steady
MIN_KNOWN = 0.5  # share of the subjects whose value of a covariate must be known to use it
KNOTS = (0, 100 / 3, 200 / 3, 100)  # percentiles of a number
FOLDS = 5
PENALTIES = np.logspace(-1, 3, 9)  # of ridge regression, chosen for each region


@dataclass(frozen=True)
class Adjustment:
    """For which covariates effects are adjusted; `reason`, why for none; `without`, which are known but not used.

    `known`: a row a subject, the covariates used; `label` (subjects,); `curved`: whether numbers enter as splines.
    """

    known: pd.DataFrame
    label: np.ndarray
    curved: bool = True
    without: tuple[str, ...] = ()
    reason: str = ""

    @property
    def covariates(self) -> list[str]:
        return [] if self.reason else list(self.known)

    def __call__(self, effect: np.ndarray) -> np.ndarray:
        """Effects on the true class (subjects, regions) beside the covariates, in the same unit."""
        if self.reason:
            return effect
        ridge = make_pipeline(self.encoder, RidgeCV(PENALTIES, alpha_per_target=True))
        on_autism = np.where(self.label == 1, 1, -1)[:, None] * effect
        expected = cross_val_predict(ridge, self.known, on_autism, cv=self.folds).reshape(effect.shape)
        return 2 * (self.label - self.probability())[:, None] * (on_autism - expected)

    def probability(self) -> np.ndarray:
        """That of autism given the covariates, out of fold (subjects,)."""
        logistic = make_pipeline(self.encoder, LogisticRegression(max_iter=1000))
        return cross_val_predict(logistic, self.known, self.label, cv=self.folds, method="predict_proba")[:, 1]

    @property
    def folds(self) -> list[tuple[np.ndarray, np.ndarray]]:
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
        return [*folds.split(self.label, self.label)]

    @property
    def encoder(self) -> ColumnTransformer:
        """Numbers as cubic splines, if they have values enough, their absence and categories as dummies."""
        numbers = self.known.select_dtypes("number")
        steps: list[tuple] = []
        for name in numbers:
            knots = np.unique(np.nanpercentile(numbers[name], KNOTS))
            bent = self.curved and len(knots) == len(KNOTS)
            spline = SplineTransformer(knots=knots[:, None], include_bias=False) if bent else "passthrough"
            steps.append((name, make_pipeline(SimpleImputer(strategy="median"), spline, StandardScaler()), [name]))
        absent = MissingIndicator(features="all")
        dummies = make_pipeline(
            SimpleImputer(strategy="constant", fill_value="unknown"),
            OneHotEncoder(handle_unknown="ignore", sparse_output=False),
        )
        steps.append((" absent", absent, [name for name in numbers if numbers[name].isna().any()]))
        return ColumnTransformer([*steps, (" text", dummies, make_column_selector(dtype_exclude="number"))])

    @property
    def parameters(self) -> int:
        return self.encoder.fit_transform(self.known).shape[1]


def covariates_of(cohort: Cohort, rows: Sequence[Row]) -> pd.DataFrame:
    """What is known of the subjects of these rows, sorted by name: site, covariates and IQ. Raises InputError."""
    site = {row.subject: row.site for row in reversed(rows)}
    names = sorted(site)
    table = with_iq(cohort.covariates, cohort.raw_phenotype)
    return covariates(names, [site[name] for name in names], table)


def adjustment(known: pd.DataFrame, label: np.ndarray) -> Adjustment:
    """The adjustment for as many covariates as the subjects suffice for, with splines before lines, the site last.

    `known` has a row a subject, as of `utils.scores.features.covariates`; `label` (subjects,).
    """
    usable = [name for name in known if known[name].notna().mean() >= MIN_KNOWN and known[name].nunique() > 1]
    found = Adjustment(known[usable], label, without=tuple(name for name in known if name not in usable))
    if not usable:
        return replace(found, reason="no covariates are known")
    if min(np.bincount(label.astype(int), minlength=2)) < MIN_PER_CLASS:
        return replace(found, reason=f"that takes {MIN_PER_CLASS} subjects of each class")
    for names in (usable, [name for name in usable if name != "site"]):
        for curved in (True, False):
            without = tuple(name for name in known if name not in names)
            one = Adjustment(known[names], label, curved, without)
            if names and len(label) >= MIN_SUBJECTS_A_PARAMETER * one.parameters:
                return one
    return replace(found, reason=f"{len(label)} subjects are too few for the covariates {', '.join(usable)}")
