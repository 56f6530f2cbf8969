"""Covariates of people -> what they leave of values, for tests that ask for more than covariates.

Each covariate enters a least-squares regression as it is: numbers as lines, text as dummies. There are many more terms:
products of every two covariates, of each with the site, and curves of numbers: squares, kinks and steps, and squares
and kinks within each category of another covariate. Those enter that one of the values follows. A lasso picks them. Its
penalty is not tuned: chance alone makes none of so many terms larger. So the number of terms costs little, and few
people suffice (Belloni, Chernozhukov & Hansen 2014, Review of Economic Studies 81:608).
"""

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.linear_model import Lasso

from data.cohorts.covariates import COVARIATE_KIND_BY_NAME
from data.cohorts.rows import find_recorded_sites
from utils.scores.features import UNKNOWN

SUBJECTS_A_PARAMETER = 5  # for which 2 suffice (Austin & Steyerberg 2015, J Clin Epidemiol 68:627)
OTHERS = 3  # parameters: the intercept, the value that is tested, and one product or curve
MIN_KNOWN = 0.5  # share of the subjects whose value of a covariate must be known to use it
MOST_IMPUTED = 0.1  # share of unknown values; a covariate with more of them may explain what is found
FEW_VALUES = 6  # of a number: more of them have a curve
PARTS = 40  # most of a number, as many people in each; its kinks and steps lie between them
PENALTY, CHANCE, ROUNDS = 1.1, 0.05, 3  # of the lasso: how much above the limit, its error, estimates of the noise
LEAST_NOISE = 0.1  # share of the spread beside covariates; a term of less is not looked for
TOLD = 1e-6  # share of the spread that covariates must leave


@dataclass(frozen=True)
class Adjustment:
    """Which covariates of people are taken from their values, and how.

    `covariates`: those that enter; `without`: those that cannot; `unknown`: as of the function. `no_room`:
    products that may not enter as a whole, the first of each two by the second. `imputed`: for how many a covariate
    that enters is not known, by name. `gaps`: those of which this is more than MOST_IMPUTED of the people: they enter,
    but nothing may be said to go beyond them. `reason`: why nothing is adjusted. `span`: an orthonormal basis (n, k) of
    the intercept and the covariates; `terms`: all other columns (n, m) beside these, z-scored. `products`: which
    columns belong to a product of several, and an orthonormal basis of these.
    """

    covariates: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    no_room: dict[str, list[str]] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    imputed: dict[str, int] = field(default_factory=dict)
    gaps: tuple[str, ...] = ()
    reason: str = ""
    span: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    terms: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    products: tuple[tuple[np.ndarray, np.ndarray], ...] = ()

    @property
    def whole(self) -> tuple[str, ...]:
        """The covariates that enter and are known for nearly everybody."""
        return tuple(name for name in self.covariates if name not in self.gaps)

    @cached_property
    def gram(self) -> np.ndarray:
        """The products (m, m) of the columns of `terms`."""
        return self.terms.T @ self.terms

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
            lasso = Lasso(limit * noise, fit_intercept=False, precompute=self.gram, copy_X=False, max_iter=100_000)
            chosen = np.flatnonzero(lasso.fit(self.terms, rest).coef_)
            left = residuals(rest, orthonormal(self.terms[:, chosen]))
            noise = max(left.std(), LEAST_NOISE * rest.std())
        for product, span in self.products:
            together = np.square(span.T @ left).sum() / noise**2
            if together > stats.chi2.isf(CHANCE / len(self.products), span.shape[1]):
                chosen = np.union1d(chosen, product)
                left = residuals(rest, orthonormal(self.terms[:, chosen]))
        return set(chosen.tolist())

    def basis(self, followed: Set[int]) -> np.ndarray:
        """An orthonormal basis (n, k) of the intercept, the covariates and these columns of `terms`."""
        return np.column_stack([self.span, orthonormal(self.terms[:, sorted(followed)])])


def spanned(values: np.ndarray) -> np.ndarray:
    """An orthonormal basis (n, k) of the columns of `values` (n, any) and an intercept."""
    return orthonormal(np.column_stack([np.ones(len(values)), values]))


def orthonormal(values: np.ndarray) -> np.ndarray:
    """An orthonormal basis (n, k) of the columns of `values` (n, any)."""
    left, spread, _ = np.linalg.svd(values, full_matrices=False)
    return left[:, spread > spread.max(initial=0) * len(values) * np.finfo(float).eps]


def residuals(values: np.ndarray, span: np.ndarray) -> np.ndarray:
    """What a regression of values (n,) or (n, any) on `span` (n, k) leaves."""
    return values - span @ (span.T @ values)


def enough(known: pd.DataFrame) -> list[str]:
    """The covariates that are known for enough people."""
    return [name for name in known if known[name].notna().mean() >= MIN_KNOWN]


def adjustment(known: pd.DataFrame, sites: Iterable[str] | None = None) -> Adjustment:
    """The adjustment for the covariates of people. While people are too few, that of the most columns is left out.

    `known` has a row a person, as of `utils.scores.features.covariates`; `sites` are as of `unknown`. An unknown number
    takes the median and a mark of its own. A covariate with `gaps` does not enter alone.
    """
    bare = Adjustment((), tuple(known), unknown=unknown(known, sites), reason="no covariate can be used")
    bare = replace(bare, span=spanned(np.empty((len(known), 0))), terms=np.empty((len(known), 0)))
    blocks = {name: linear(known[name]) for name in enough(known) if known[name].nunique() > 1}
    gaps = known.columns[known.isna().mean() > MOST_IMPUTED]
    while set(blocks).difference(gaps):
        needed = SUBJECTS_A_PARAMETER * (sum(block.shape[1] for block in blocks.values()) + OTHERS)
        if len(known) >= needed:
            absent = known[[*blocks]].isna().sum()
            found = replace(bare, covariates=tuple(blocks), without=tuple(name for name in known if name not in blocks))
            absent, partly = absent[absent > 0].to_dict(), tuple(name for name in blocks if name in gaps)
            found = replace(found, imputed=absent, gaps=partly, reason="")
            found = replace(found, span=spanned(np.column_stack([*blocks.values()])))
            return with_terms(found, further(known[[*blocks]], blocks))
        few = f"{len(known)} participants are too few for curves and products of covariates; {needed} would do"
        bare = replace(bare, reason=few)
        del blocks[max(blocks, key=lambda name: blocks[name].shape[1])]
    return bare


def unknown(known: pd.DataFrame, sites: Iterable[str] | None) -> tuple[str, ...]:
    """Which of KINDS are not known for enough people; the site first, if these `sites` of theirs are none."""
    site = ("site",) if sites is not None and not find_recorded_sites(sites) else ()
    return (
        *site,
        *(name for name, kind in COVARIATE_KIND_BY_NAME.items() if not kind.find_columns(known[enough(known)])),
    )


def with_terms(found: Adjustment, terms: Iterable[tuple[tuple[str, ...], np.ndarray]]) -> Adjustment:
    """The adjustment with the columns of `further`. A product that has no room as a whole is named."""
    room = len(found.span) // SUBJECTS_A_PARAMETER - found.span.shape[1] - 1
    columns, products, no_room = [found.terms], list[tuple[np.ndarray, np.ndarray]](), dict[str, list[str]]()
    for names, values in terms:
        rest = residuals(values, found.span)
        told = rest.std(axis=0) > TOLD * values.std(axis=0)
        own = rest[:, told] / rest[:, told].std(axis=0)
        if len(names) > 1 and 1 < own.shape[1] <= room:
            at = sum(block.shape[1] for block in columns)
            products.append((at + np.arange(own.shape[1]), orthonormal(own)))
        if len(names) > 1 and own.shape[1] > room:
            no_room.setdefault(names[1], []).append(names[0])
        columns.append(own)
    return replace(found, terms=np.asfortranarray(np.hstack(columns)), products=tuple(products), no_room=no_room)


def linear(column: pd.Series) -> np.ndarray:
    """Columns (n, any), z-scored: a number, with a mark where it is unknown, or the dummies of text."""
    if pd.api.types.is_numeric_dtype(column):
        values = pd.DataFrame({"value": column.fillna(column.median()), UNKNOWN: column.isna()}, dtype=float)
    else:
        values = pd.get_dummies(column.fillna(UNKNOWN), drop_first=True, dtype=float)
    values = values.loc[:, values.nunique() > 1]
    return ((values - values.mean()) / values.std(ddof=0)).to_numpy()


def further(known: pd.DataFrame, blocks: dict[str, np.ndarray]) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """The terms beyond the linear `blocks`: the two covariates of a product or the one of a curve, columns (n, any)."""
    others = [name for name in blocks if name != "site"]
    for one, other in combinations(others, 2):
        yield (one, other), product(blocks[one], blocks[other])
    if "site" in blocks:
        site = pd.get_dummies(known["site"], dtype=float).to_numpy()
        for name in others:
            yield (name, "site"), product(blocks[name], site)
    for name in known.select_dtypes("number"):
        if known[name].nunique() > FEW_VALUES:
            value = blocks[name][:, :1]
            parts = min(PARTS, len(known) // SUBJECTS_A_PARAMETER)
            cuts = np.quantile(value, np.linspace(0, 1, parts + 1)[1:-1])
            curves = [np.square(value), np.maximum(value - cuts, 0), (value > cuts).astype(float)]
            yield (name,), np.column_stack(curves)
            for other in others:
                if other != name and known[other].nunique() <= FEW_VALUES:  # the curve may differ between categories
                    yield (name,), product(np.column_stack([np.square(value), np.maximum(value, 0)]), blocks[other])


def product(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Each column of one (n, k) times each of the other (n, m), (n, k m)."""
    return (one[:, :, None] * other[:, None, :]).reshape(len(one), -1)
