"""Covariates of people -> what they leave of values, for tests that ask for more than covariates.

Each covariate enters a least-squares regression as it is: numbers as lines, text as dummies. There are many more terms:
products of every two covariates, of each with the site, and curves of numbers (squares, kinks and steps). Those enter
that one of the values follows. A lasso picks them. Its penalty is not tuned: chance alone makes none of so many terms
larger. So the number of terms costs little, and few people suffice (Belloni, Chernozhukov & Hansen 2014, Review of
Economic Studies 81:608).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.linear_model import Lasso

from data.cohorts.covariates import KINDS
from utils.scores.features import UNKNOWN

SUBJECTS_A_PARAMETER = 5  # for which 2 suffice (Austin & Steyerberg 2015, J Clin Epidemiol 68:627)
OTHERS = 3  # parameters: the intercept, the value that is tested, and one product or curve
MIN_KNOWN = 0.5  # share of the subjects whose value of a covariate must be known to use it
FEW_VALUES = 6  # of a number: more of them have a curve
PARTS = 40  # most of a number, as many people in each; its kinks and steps lie between them
PENALTY, CHANCE, ROUNDS = 1.1, 0.05, 3  # of the lasso: how much above the limit, its error, estimates of the noise
LEAST_NOISE = 0.1  # share of the spread beside covariates; a term of less is not looked for
TOLD = 1e-6  # share of the spread that covariates must leave


@dataclass(frozen=True)
class Adjustment:
    """Which covariates of people are taken from their values, and how.

    `covariates`: those that enter; `without`: covariates and terms that cannot; `unknown`: which of KINDS are not
    known; `reason`: why nothing is adjusted. `span`: an orthonormal basis (n, k) of the intercept and the covariates;
    `terms`: all other columns (n, m) beside these, z-scored. `products`: which columns belong to a product of several,
    and an orthonormal basis of these.
    """

    covariates: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    reason: str = ""
    span: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    terms: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    products: tuple[tuple[np.ndarray, np.ndarray], ...] = ()

    def followed(self, value: np.ndarray) -> set[int]:
        """The columns of `terms` that a value (n,) follows: those of the lasso, and of the products that tell of what
        it leaves."""
        count, columns = self.terms.shape
        rest, chosen = residuals(value, self.span), np.empty(0, int)
        if columns == 0 or rest.std() <= TOLD * value.std():
            return set()
        limit = PENALTY * stats.norm.isf(CHANCE / columns) / np.sqrt(count)
        left, noise = rest, rest.std()
        for _ in range(ROUNDS):
            if np.abs(rest @ self.terms).max() <= count * limit * noise:
                break
            lasso = Lasso(limit * noise, fit_intercept=False, max_iter=100_000).fit(self.terms, rest)
            chosen = np.flatnonzero(lasso.coef_)
            left = residuals(rest, spanned(self.terms[:, chosen]))
            noise = max(left.std(), LEAST_NOISE * rest.std())
        for product, span in self.products:
            together = np.square(span.T @ left).sum() / noise**2
            if together > stats.chi2.isf(CHANCE / len(self.products), span.shape[1]):
                chosen = np.union1d(chosen, product)
                left = residuals(rest, spanned(self.terms[:, chosen]))
        return set(chosen.tolist())

    def basis(self, followed: set[int]) -> np.ndarray:
        """An orthonormal basis (n, k) of the intercept, the covariates and these columns of `terms`."""
        return spanned(np.column_stack([self.span, self.terms[:, sorted(followed)]]))


def spanned(values: np.ndarray) -> np.ndarray:
    """An orthonormal basis (n, k) of the columns of `values` (n, any) and an intercept."""
    left, spread, _ = np.linalg.svd(np.column_stack([np.ones(len(values)), values]), full_matrices=False)
    return left[:, spread > spread.max(initial=0) * len(values) * np.finfo(float).eps]


def residuals(values: np.ndarray, span: np.ndarray) -> np.ndarray:
    """What a regression of values (n,) or (n, any) on `span` (n, k) leaves."""
    return values - span @ (span.T @ values)


def enough(known: pd.DataFrame) -> list[str]:
    """The covariates that are known for enough people."""
    return [name for name in known if known[name].notna().mean() >= MIN_KNOWN]


def adjustment(known: pd.DataFrame) -> Adjustment:
    """The adjustment for the covariates of people; without the site, if people are too few for it.

    `known` has a row a person, as of `utils.scores.features.covariates`. An unknown number takes the median and a mark
    of its own.
    """
    names = [name for name in enough(known) if known[name].nunique() > 1]
    unknown = [name for name, kind in KINDS.items() if not kind.of(known[enough(known)])]
    none = np.empty((len(known), 0))
    bare = Adjustment((), tuple(known), tuple(unknown), "no covariate can be used", spanned(none), none)
    for used in filter(None, (names, [name for name in names if name != "site"])):
        blocks = {name: linear(known[name]) for name in used}
        needed = SUBJECTS_A_PARAMETER * (sum(block.shape[1] for block in blocks.values()) + OTHERS)
        if len(known) >= needed:
            found = replace(bare, span=spanned(np.column_stack([*blocks.values()])), reason="")
            found = replace(found, covariates=tuple(used), without=tuple(name for name in known if name not in used))
            return with_terms(found, further(known[used], blocks))
        few = f"{len(known)} subjects are too few for curves and products of covariates; {needed} would do"
        bare = replace(bare, reason=few)
    return bare


def with_terms(found: Adjustment, terms: Iterable[tuple[str, np.ndarray, bool]]) -> Adjustment:
    """The adjustment with the columns of `further` that people enough carry. A product for which people are too few
    is named; of a curve some columns suffice."""
    room = len(found.span) // SUBJECTS_A_PARAMETER - found.span.shape[1] - 1
    columns, products, without = found.terms, list[tuple[np.ndarray, np.ndarray]](), list[str]()
    for name, values, is_product in terms:
        rest = residuals(values, found.span)
        told = rest.std(axis=0) > TOLD * values.std(axis=0)
        people = np.square(np.square(rest).sum(0)) / np.maximum((rest**4).sum(0), np.finfo(float).tiny)
        kept = told & (people >= SUBJECTS_A_PARAMETER)
        own = rest[:, kept] / rest[:, kept].std(axis=0)
        fits = own.shape[1] <= room and (kept == told).all() if is_product else kept.any()
        if is_product and 1 < own.shape[1] <= room:
            left, _, _ = np.linalg.svd(own, full_matrices=False)
            products.append((columns.shape[1] + np.arange(own.shape[1]), left[:, : np.linalg.matrix_rank(own)]))
        without += [name] if told.any() and not fits else []
        columns = np.column_stack([columns, own])
    return replace(found, terms=columns, products=tuple(products), without=(*found.without, *without))


def linear(column: pd.Series) -> np.ndarray:
    """Columns (n, any), z-scored: a number, with a mark where it is unknown, or the dummies of text."""
    if pd.api.types.is_numeric_dtype(column):
        values = pd.DataFrame({"value": column.fillna(column.median()), UNKNOWN: column.isna()}, dtype=float)
    else:
        values = pd.get_dummies(column.fillna(UNKNOWN), drop_first=True, dtype=float)
    values = values.loc[:, values.nunique() > 1]
    return ((values - values.mean()) / values.std(ddof=0)).to_numpy()


def further(known: pd.DataFrame, blocks: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray, bool]]:
    """The terms beyond the linear `blocks` by name, their columns (n, any), and whether it is a product."""
    others = [name for name in blocks if name != "site"]
    for one, other in combinations(others, 2):
        yield f"{one} by {other}", product(blocks[one], blocks[other]), True
    if "site" in blocks:
        site = pd.get_dummies(known["site"], dtype=float).to_numpy()
        for name in others:
            yield f"{name} by site", product(blocks[name], site), True
    for name in known.select_dtypes("number"):
        if known[name].nunique() > FEW_VALUES:
            value = blocks[name][:, :1]
            parts = min(PARTS, len(known) // SUBJECTS_A_PARAMETER)
            cuts = np.quantile(value, np.linspace(0, 1, parts + 1)[1:-1])
            curves = [np.square(value), np.maximum(value - cuts, 0), (value > cuts).astype(float)]
            yield f"curve of {name}", np.column_stack(curves), False


def product(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Each column of one (n, k) times each of the other (n, m), (n, k m)."""
    return (one[:, :, None] * other[:, None, :]).reshape(len(one), -1)
