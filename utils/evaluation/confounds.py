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
from data.cohorts.covariates import AGE_KIND, HEAD_MOTION_KIND, SEX_KIND
from utils.evaluation import sensitivity
from utils.scores.adjustment import TOLD, Adjustment, adjustment, enough, residuals, unknown
from utils.scores.conclusion import Covariates
from utils.scores.features import covariates
from utils.scores.metrics import Predictions, first_and_place, headline, with_intervals
from utils.scores.results import (
    CONFIDENCE_LEVEL,
    GIVEN_DIAGNOSIS,
    MIN_CLASS_SUBJECTS,
    UNDEFINED,
    Estimate,
    flat,
    or_none,
)
from utils.scores.statistics import bootstrap, log_odds, orders


def motion(predictions: Predictions, table: pd.DataFrame | None, seed: int) -> dict | None:
    """Whether the network's output says more of the diagnosis than the covariates do; None if there are none.

    `table` is as `known_covariates` gives it. Each subject counts once, with the mean logit of its records and
    repeats. The result holds:
    - `partial`: the correlation of label and output beside the covariates, and its `p`; or `reason`: why it cannot be
      computed;
    - `subjects`, and `left_out`: how many are at a site of one class;
    - `beside`: the Adjustment;
    - where the correlation is shown: `reliability` and `unmeasured`, as of `sensitivity.py`;
    - `given_diagnosis`: as of the function.
    """
    if table is None:
        return None
    everybody = subjects_of(predictions)
    known = covariates(everybody.index.tolist(), everybody["site"].tolist(), table)
    people, beside = chosen(everybody, known)
    result: dict[str, Any] = {"subjects": len(people), "left_out": len(everybody) - len(people), "beside": beside}
    result |= more(people, known.loc[people.index], beside, predictions.widening("auc"))
    result["given_diagnosis"] = given_diagnosis(everybody, known, seed)
    return result


def subjects_of(predictions: Predictions) -> pd.DataFrame:
    """`label`, `site`, `unit` and `logit`, the mean of all records and repeats, by subject."""
    logits = log_odds(predictions.probabilities).mean(0)
    first = {"label": predictions.label, "site": predictions.site, "unit": predictions.unit}
    by_subject = pd.DataFrame(first | {"logit": logits}).groupby(predictions.subject)
    return by_subject.agg(dict.fromkeys(first, "first") | {"logit": "mean"})


def too_few(people: pd.DataFrame) -> str:
    """Why nothing can be said of people of both classes, as of their AUC within sites; empty if they are enough."""
    several = people["site"].nunique() > 1
    both = people[people.groupby("site")["label"].transform("nunique") == 2] if several else people
    if both.empty:
        return "at each site all participants have the same diagnosis"
    if both.groupby("label")["unit"].nunique().min() >= MIN_CLASS_SUBJECTS:
        return ""
    return f"it needs {MIN_CLASS_SUBJECTS} participants of each class{' at sites that have both' if several else ''}"


def chosen(everybody: pd.DataFrame, known: pd.DataFrame) -> tuple[pd.DataFrame, Adjustment]:
    """The people at sites of both classes, and the adjustment for these; everybody where the site does not enter."""
    people = everybody[everybody.groupby("site")["label"].transform("nunique") == 2]
    beside = adjustment(known.loc[people.index])
    if "site" not in beside.covariates and len(people) < len(everybody):
        others = known.drop(columns="site", errors="ignore")
        people, beside = everybody, adjustment(others.reindex(columns=known.columns))
    return people, replace(beside, unknown=unknown(known, everybody["site"]))


def more(people: pd.DataFrame, known: pd.DataFrame, beside: Adjustment, wider: float) -> dict:
    """The `partial` correlation of label and logit beside the covariates, and its `p`; or the `reason` why there is
    none.

    Standard errors are robust (HC3; MacKinnon & White 1985), also to what the subjects of a unit have in common
    (Liang & Zeger 1986). Of several folds they are `wider`, since their models share training subjects: see
    `utils.scores.metrics`.
    """
    if people["label"].nunique() < 2:
        return {"reason": "the participants are of one class"}
    if reason := beside.reason or too_few(people):
        return {"reason": reason}
    both = people[["label", "logit"]].to_numpy(float)
    if both[:, 1].std() < TOLD:
        return {"reason": "the network's output is the same for everybody"}
    both = (both - both.mean(axis=0)) / both.std(axis=0)
    terms = frozenset(beside.followed(both[:, 0]) | beside.followed(both[:, 1]))
    span = beside.basis(terms)
    label, output = residuals(both, span).T
    if output.std() < TOLD:
        return {"reason": "the network's output follows from the covariates"}
    if label.std() < TOLD:
        return {"reason": "the diagnosis follows from the covariates"}
    partial, chance = correlated(label, output, span, wider, people["unit"])
    result = {"partial": partial, "p": chance}
    if partial.low is not None and partial.low > 0:
        units = people["unit"].factorize()[0]
        tested = sensitivity.BesideCovariates(both[:, 0], both[:, 1], units, known, beside, terms, wider)
        freedom = max(units.max() + 1 - span.shape[1] - 1, 2)
        t = stats.t.isf(max(chance, SMALLEST_P) / 2, freedom)
        result["reliability"] = sensitivity.least_reliability(tested)
        result["unmeasured"] = sensitivity.unmeasured(tested, t, freedom)
    return result


def correlated(
    label: np.ndarray, output: np.ndarray, span: np.ndarray, wider: float, unit: pd.Series
) -> tuple[Estimate, float]:
    """The correlation of two columns of residuals (n,) of a regression on `span` (n, k), and its p; errors of a `unit`
    (n,) are not independent."""
    slope = output @ label / (output @ output)
    left = 1 - (span**2).sum(axis=1) - output**2 / (output @ output)  # 0 of whom the regression fits in any case
    parts = np.where(left > TOLD, output * (label - slope * output) / np.maximum(left, TOLD), 0)
    parts = np.bincount(unit.factorize()[0], parts)
    scale = output.std() / label.std()
    value, spread = scale * slope, scale * wider * np.sqrt(parts @ parts) / (output @ output)
    freedom = max(len(parts) - span.shape[1] - 1, 1)
    reach = stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, freedom) * spread
    chance = 2 * stats.t.sf(abs(value) / max(spread, 1e-12), freedom)
    return Estimate.of(value, max(value - reach, -1), min(value + reach, 1)), float(chance)


def given_diagnosis(everybody: pd.DataFrame, known: pd.DataFrame, seed: int) -> dict[str, tuple[Estimate, float]]:
    """Of each number among the covariates, and of the sex, its correlation with the logit among people of one diagnosis
    and site, and a two-sided p of the permutations of its values among these people.

    An output that follows the diagnosis alone goes with whatever goes with the diagnosis. It does not when the
    diagnosis is given (a partial confounder test; arXiv 2111.00814). Families are exchanged as a whole. The
    interval is that of these networks. Of fewer than MIN_PER_CLASS units nothing is said.
    """
    correlations = {}
    for name, values in measures(known).items():
        people = everybody.assign(value=values).dropna(subset="value")
        cell = people.groupby(["label", "site"]).ngroup()
        columns = people[["logit", "value"]]
        within = columns - columns.groupby(cell).transform("mean")
        varies = (within.std() > TOLD * columns.std()).all()  # neither is the same in all people of a cell
        if varies and people["unit"].nunique() >= MIN_CLASS_SUBJECTS:
            logit, value = within.to_numpy().T
            correlations[name] = correlated_within(logit, value, cell.to_numpy(), people["unit"].to_numpy(), seed)
    return correlations


def measures(known: pd.DataFrame) -> dict[str, pd.Series]:
    """The covariates that are a number and known for enough people; and of a sex of two codes whether it is the second,
    `sex (M)`."""
    numbers = {}
    for name in enough(known):
        values = known[name]
        if pd.api.types.is_numeric_dtype(values):
            numbers[name] = values
        elif SEX_KIND.matches_name(name) and values.nunique() == 2:
            second = max(values.dropna())
            numbers[f"{name} ({second})"] = (values == second).astype(float).where(values.notna())
    return numbers


def correlated_within(
    logit: np.ndarray, value: np.ndarray, cell: np.ndarray, unit: np.ndarray, seed: int
) -> tuple[Estimate, float]:
    """The correlation of two columns (n,) that have the mean 0 in each `cell` (n,), within which values change places;
    people of a `unit` (n,) stay together."""
    first, place = first_and_place(unit)
    observed = logit @ value / np.sqrt((logit @ logit) * (value @ value))

    def correlation(weight: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return weight @ (logit * value) / np.sqrt((weight @ logit**2) * (weight @ value**2))

    random = np.random.default_rng(seed)
    low, high = bootstrap(lambda weight: correlation(weight[:, place]), len(first), random, EFFORT.resamples)
    permuted = value[orders(place, cell, EFFORT.resamples, random)] @ logit
    extreme = np.count_nonzero(np.abs(permuted) >= np.abs(value @ logit) * (1 - TOLD))
    return Estimate.of(*np.clip([observed, low, high], -1, 1)), float((1 + extreme) / (1 + EFFORT.resamples))


def told(result: dict | None) -> Covariates | None:
    """The result of `motion` as part of what a test shows."""
    if result is None:
        return None
    limits: dict[str, Any] = {}
    if unmeasured := result.get("unmeasured"):
        limits = {
            "reliability": result["reliability"],
            "unmeasured": unmeasured.correlation,
            "strongest": unmeasured.strongest,
            "times_strongest": or_none(unmeasured.times),
        }
    return Covariates(
        names=[*result["beside"].whole],
        partial=result.get("partial", UNDEFINED),
        reason=result.get("reason", ""),
        left_out=result["left_out"],
        **limits,
    )


def rows(result: dict | None, groups: list[dict], masked: tuple[Estimate, Estimate]) -> list[dict]:
    """Rows of `confounds.csv`: the test; the correlation with each covariate given the diagnosis; the half that moved
    least; and where missingness is `masked`: the AUC, and the score minus it."""
    result = result or {}
    estimates: list[tuple[str, str, Estimate, float | None]] = []  # measure, covariate, estimate, p
    if "partial" in result:
        estimates.append(("partial", "", result["partial"], result["p"]))
    if "unmeasured" in result:
        strong = result["unmeasured"]
        estimates.append(("reliability", "", Estimate.of(result["reliability"]), None))
        estimates.append(("unmeasured", strong.strongest, Estimate.of(strong.correlation), None))
    for covariate, (correlation, p) in result.get("given_diagnosis", {}).items():
        estimates.append((GIVEN_DIAGNOSIS, covariate, correlation, p))
    if still := next((row for row in groups if row["group"] == MOVED_LESS), None):
        area = "auc_sites" if still.get("auc_sites") is not None else "auc"
        estimates.append((area, "", Estimate.in_row(still, area), None))
    for name, estimate in zip(("masked", "minus_masked"), masked, strict=True):
        estimates.append((name, "", estimate, None))
    return [
        {"measure": measure, "covariate": covariate} | estimate.columns() | {"p": p}
        for measure, covariate, estimate, p in estimates
        if estimate.value is not None
    ]


SMALLEST_P = 1e-300  # whose t is finite
THIRDS = ("youngest", "middle", "oldest")
GROUPED = ("head motion", "sex", "age")
MOVED_LESS, MOVED_MORE = "moved less", "moved more"
MAX_SEXES = 6  # values; more of them are no codes


def groups(predictions: Predictions, table: pd.DataFrame | None, seed: int) -> list[dict]:
    """Rows of `groups.csv`: the halves that moved less and more than the median of their site, the sexes, the thirds of
    age; number of subjects, AUC and, where there are several sites, AUC within them, with intervals. At small sites
    there is the latter only, see `by_site`."""
    if table is None:
        return []
    first, _ = predictions.people
    subject, site = predictions.subject[first].tolist(), predictions.site[first].tolist()
    known = covariates(subject, site, table)
    rows = []
    for kind, group in grouped(known, site):
        of_record = group.reindex(predictions.subject).to_numpy(object)
        for name in group.dropna().unique():
            counts, found = scored(predictions.subset(of_record == name), seed)
            scores: dict[str, Estimate] = {area: found[area] for area in ("auc_sites", "auc") if area in found}
            if predictions.in_small_sites:
                scores = {"auc_sites": found[headline(found)], "auc": UNDEFINED}
            rows.append({"kind": kind, "group": str(name)} | counts | flat(scores))
    return sorted(rows, key=lambda row: GROUPED.index(row["kind"]))


def scored(part: Predictions, seed: int) -> tuple[dict[str, int], dict[str, Estimate]]:
    """How many subjects there are in a part, of each class, too; and its metrics."""
    members = {"subjects": part.label >= 0, "autism": part.label == 1, "control": part.label == 0}
    return {name: part.count(rows) for name, rows in members.items()}, with_intervals(part, seed)


def grouped(known: pd.DataFrame, site: list[str]) -> Iterator[tuple[str, pd.Series]]:
    """Each grouping by its kind: the name of the group of each subject, the groups in order; NaN where unknown."""
    for name in known:
        values = known[name]
        if HEAD_MOTION_KIND.matches_name(name) and values.dtype == float:
            below = values < values.groupby(np.array(site)).transform("median")
            halves = pd.Series(np.where(below, MOVED_LESS, MOVED_MORE), known.index)
            yield "head motion", halves.where(values.notna()).sort_values()
        elif AGE_KIND.matches_name(name) and values.dtype == float and values.nunique() > MAX_SEXES:
            thirds = pd.qcut(values.rank(method="first"), len(THIRDS), labels=THIRDS).astype(object)
            low, high = (f"{cut:.1f}" for cut in values.quantile([1 / 3, 2 / 3]))
            told = dict(zip(THIRDS, (f"below {low}", f"{low} to {high}", f"above {high}"), strict=True))
            told = {third: f"{third} third, {ends}" for third, ends in told.items()}
            yield "age", thirds.map(told)[values.sort_values().index]
        elif SEX_KIND.matches_name(name) and values.nunique() <= MAX_SEXES:
            told = values.dropna().map("{:g}".format if values.dtype == float else str)
            yield "sex", (f"{name} " + told).sort_values()


def by_site(predictions: Predictions, seed: int) -> list[dict]:
    """A row a site, the largest first: counts of subjects, AUC and accuracy with `_low`, `_high`; None if undefined.

    Where sites are small the AUC is that within folds. Models of different folds have seen different people of the
    site (`metrics.pull`).
    """
    rows = []
    for name in np.unique(predictions.site):
        counts, found = scored(predictions.subset(predictions.site == name), seed)
        area = headline(found) if predictions.in_small_sites else "auc"
        rows.append({"site": str(name)} | counts | flat({"auc": found[area], "accuracy": found["accuracy"]}))
    return sorted(rows, key=lambda row: -row["subjects"])


def by_fold(predictions: Predictions, seed: int) -> dict[str, dict[str, Estimate]]:
    """The metrics of each fold, in the order in which folds appear, by the fold's name as text."""
    fold = predictions.folds[0]
    return {str(name): with_intervals(predictions.subset(fold == name), seed) for name in dict.fromkeys(fold.tolist())}
