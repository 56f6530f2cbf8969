"""Scores by site, fold, head motion, sex and age; whether the output says more of the diagnosis than covariates do.

The test asks whether label and output are still correlated once both are predicted from the covariates (the generalised
covariance measure; Shah & Peters 2020, Annals of Statistics 48:1514). It holds if the predictions follow the shape of
what the network reads. They are least squares on the covariates, on products of site and covariate and on splines, as
far as the subjects suffice. They also take what random forests predict out of sample: of both, and of what the other
terms leave of both. Forests follow thresholds, the products follow an age that matters otherwise at each site.
`tests/benchmarks/confounds.py` counts how often a network that reads covariates only is taken for more.

Covariates that are not in the tables are not in the test, and one that is measured with error is not all in it.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.preprocessing import SplineTransformer

from data.cohorts.covariates import AGE, HEAD_MOTION, KINDS, SEX
from utils.report.texts import paragraph
from utils.scores.features import UNKNOWN, covariates
from utils.scores.metrics import Predictions, with_intervals
from utils.scores.results import CONFIDENCE, MIN_PER_CLASS, Estimate, flat
from utils.scores.statistics import RESAMPLES, Statistic, bootstrap, log_odds

SUBJECTS_A_PARAMETER = 5  # of least squares, for which 2 suffice (Austin & Steyerberg 2015, J Clin Epidemiol 68:627)
OTHERS = 6  # parameters: the intercept, the network's logit and four columns of forests
MIN_KNOWN = 0.5  # share of the subjects whose value of a covariate must be known to keep it
PARTS = 5  # of the subjects; the forest predicts each from the others
FOREST = RandomForestRegressor(30, min_samples_leaf=5, random_state=0)
SPLINE = SplineTransformer(n_knots=3, degree=3, include_bias=False)
FEW_VALUES = 6  # of a number: more of them take a spline
TOLD = 1e-6  # share of the spread that covariates must leave
EXPECTED = {"site": re.compile("site"), **KINDS}


def motion(predictions: Predictions, table: pd.DataFrame | None, seed: int) -> dict | None:
    """Whether the network's output says more of the diagnosis than the covariates do; None if there are none.

    `table` is as `known_covariates` gives it. Each subject counts once, with the mean logit of its records and
    repeats. The result holds:
    - `partial`: the correlation of label and output beside the covariates, and its `p`; or `reason`: why it cannot be
      computed;
    - `subjects`, and `left_out`: how many have an unknown covariate or a site of one class;
    - `covariates`, `without` (covariates not used, or age by site) and `unknown` (of EXPECTED);
    - where head motion is known: `correlation` as in `within_sites`, and if the output carries more, `reliability`
      as in `needed_reliability`.
    """
    if table is None:
        return None
    everybody = subjects_of(predictions)
    known = covariates(everybody.index.tolist(), everybody["site"].tolist(), table)
    people, blocks = chosen(everybody, known)
    names = [name for name in known if name in blocks]
    plain = side_by_side(people, [blocks[name] for name in names])
    needed = [*known, *filter(AGE.search, products(known))]
    expected = {
        name: pattern for name, pattern in EXPECTED.items() if name != "site" or everybody["site"].nunique() > 1
    }
    result: dict[str, Any] = {
        "subjects": len(people),
        "left_out": len(everybody) - len(people),
        "covariates": names,
        "without": [name for name in needed if name not in blocks],
        "unknown": [name for name, pattern in expected.items() if not any(map(pattern.search, names))],
    }
    wider = predictions.widening("auc")
    result |= more(people, plain, side_by_side(people, blocks.values()), wider)
    measures = [name for name in known.select_dtypes("number") if name in names and HEAD_MOTION.search(name)]
    if measures:
        result["correlation"] = within_sites(everybody, known[measures[0]], seed)
    if measures and "partial" in result and result["partial"].low > 0:
        others = [block for name, block in blocks.items() if not HEAD_MOTION.search(name)]
        beside = side_by_side(people, others)
        result["reliability"] = needed_reliability(people, known.loc[people.index, measures[0]], beside, (seed, wider))
    return result


def subjects_of(predictions: Predictions) -> pd.DataFrame:
    """`label`, `site` and `logit`, the mean of all records and repeats, by subject."""
    logits = np.mean([log_odds(one.probability) for one in predictions.all], axis=0)
    records = pd.DataFrame({"label": predictions.label, "site": predictions.site, "logit": logits})
    return records.groupby(predictions.subject).agg({"label": "first", "site": "first", "logit": "mean"})


def chosen(everybody: pd.DataFrame, known: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """The people whose numbers are known, and the columns of each term for which they are enough. The terms: the
    site if it fits, the other covariates, then `flexible` ones."""
    kept = [name for name in known if known[name].notna().mean() >= MIN_KNOWN]
    known = known.fillna(dict.fromkeys(known[kept].select_dtypes(exclude="number"), UNKNOWN))  # as any other category
    for names in (kept, [name for name in kept if name != "site"]):
        people = everybody[known[names].notna().all(axis=1)]
        if "site" in names:
            people = people[people.groupby("site")["label"].transform("nunique") == 2]
        values = known.loc[people.index, names]
        blocks = {name: linear(values[[name]]) for name in names}
        if len(people) and len(people) >= SUBJECTS_A_PARAMETER * parameters(blocks):
            break
    for name, block in flexible(values):
        if len(people) >= SUBJECTS_A_PARAMETER * parameters(blocks | {name: block}):
            blocks[name] = block
    return people, blocks


def side_by_side(people: pd.DataFrame, blocks: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """The columns of all terms of these people."""
    return pd.concat([pd.DataFrame(index=people.index), *blocks], axis=1)


def parameters(blocks: dict[str, pd.DataFrame]) -> int:
    """Of least squares: those of the terms, the intercept, the network's logit and the columns of the forests."""
    return sum(block.shape[1] for block in blocks.values()) + OTHERS


def linear(column: pd.DataFrame) -> pd.DataFrame:
    """A number, z-scored, or text as dummies."""
    values = pd.get_dummies(column, drop_first=True, dtype=float)
    return (values - values.mean()) / values.std(ddof=0).replace(0, 1)


def products(known: pd.DataFrame) -> dict[str, str]:
    """The names of the products of site and number, age and head motion first, with the number's name."""
    numbers = list(known.select_dtypes("number")) if "site" in known else []
    numbers.sort(key=lambda name: (not AGE.search(name), not HEAD_MOTION.search(name)))
    return {f"{name} by site": name for name in numbers}


def flexible(known: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Terms beyond the linear ones, the most needed first: age by site, splines, other numbers by site."""
    by_site = [
        (name, linear(known[["site"]]).mul(linear(known[[of]])[of], axis=0)) for name, of in products(known).items()
    ]
    age = [(name, block) for name, block in by_site if AGE.search(name)]
    yield from age
    for name in products(known.assign(site="")).values():
        if known[name].nunique() > FEW_VALUES:
            yield f"spline of {name}", pd.DataFrame(SPLINE.fit_transform(known[[name]]), known.index)
    yield from (term for term in by_site if term not in age)


def more(people: pd.DataFrame, plain: pd.DataFrame, values: pd.DataFrame, wider: float) -> dict:
    """The `partial` correlation of label and logit beside the `values` and what a forest makes of the `plain` ones, and
    its `p`; or the `reason` why there is none.

    Standard errors are robust (HC3; MacKinnon & White 1985) and, of several folds, `wider`: their models share training
    subjects, as `utils.scores.metrics` says.
    """
    if people["label"].nunique() < 2:
        return {"reason": "the subjects are of one class"}
    if plain.empty:
        return {"reason": "no covariate can be used"}
    if len(people) < SUBJECTS_A_PARAMETER * (values.shape[1] + OTHERS):
        return {"reason": f"{len(people)} subjects are too few for {values.shape[1] + OTHERS} parameters"}
    both = people[["label", "logit"]].to_numpy(float)
    if both[:, 1].std() < TOLD:
        return {"reason": "the network's output is the same for everybody"}
    both = (both - both.mean(axis=0)) / both.std(axis=0)
    rest = residuals(both, spanned(values.to_numpy()))
    targets = both, rest / np.maximum(rest.std(axis=0), TOLD)
    parts = KFold(PARTS, shuffle=True, random_state=0)
    forests = [cross_val_predict(FOREST, plain.to_numpy(), target, cv=parts) for target in targets]
    span = spanned(np.column_stack([values, *forests]))
    label, output = residuals(both, span).T
    if output.std() < TOLD:
        return {"reason": "the network's output follows from the covariates"}
    if label.std() < TOLD:
        return {"reason": "the diagnosis follows from the covariates"}
    partial, chance = correlated(label, output, span, wider)
    return {"partial": partial, "p": chance}


def spanned(values: np.ndarray) -> np.ndarray:
    """An orthonormal basis (n, k) of the columns of `values` (n, any) and an intercept."""
    left, spread, _ = np.linalg.svd(np.column_stack([np.ones(len(values)), values]), full_matrices=False)
    return left[:, spread > spread.max() * len(values) * np.finfo(float).eps]


def residuals(columns: np.ndarray, span: np.ndarray) -> np.ndarray:
    """What a regression of the columns (n, any) on `span` (n, k) leaves."""
    return columns - span @ (span.T @ columns)


def correlated(label: np.ndarray, output: np.ndarray, span: np.ndarray, wider: float) -> tuple[Estimate, float]:
    """The correlation of two columns of residuals (n,) of a regression on `span` (n, k), and its p."""
    slope = output @ label / (output @ output)
    left = 1 - (span**2).sum(axis=1) - output**2 / (output @ output)  # 0 of whom the regression fits in any case
    parts = np.where(left > TOLD, output * (label - slope * output) / np.maximum(left, TOLD), 0)
    scale = output.std() / label.std()
    value, spread = scale * slope, scale * wider * np.sqrt(parts @ parts) / (output @ output)
    freedom = len(label) - span.shape[1] - 1
    reach = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * spread
    chance = 2 * stats.t.sf(abs(value) / max(spread, 1e-12), freedom)
    return Estimate.of(value, max(value - reach, -1), min(value + reach, 1)), float(chance)


def within_sites(everybody: pd.DataFrame, measure: pd.Series, seed: int) -> Estimate:
    """The correlation of the logit and a `measure`, both minus the mean of their site; bootstrap over subjects.

    The interval is that of these networks; it does not say what others, trained anew, would have.
    """
    people = everybody.assign(measure=measure).dropna(subset="measure")
    columns = people[["logit", "measure"]]
    logits, values = (columns - columns.groupby(people["site"]).transform("mean")).to_numpy().T

    def correlation(weight: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return weight @ (logits * values) / np.sqrt((weight @ logits**2) * (weight @ values**2))

    return resampled(correlation, len(people), (seed, 1.0), (-1, 1))


def needed_reliability(
    people: pd.DataFrame, measure: pd.Series, others: pd.DataFrame, seed_wider: tuple[int, float]
) -> Estimate:
    """How reliable the measure of head motion may at most be for motion to explain all that the output says.

    The model is classical measurement error, measure = motion + noise, with noise independent of all else, and label
    and output linear in motion. Beside the other covariates the covariances of the measure with label and output are
    those of motion. Its variance is that of motion divided by the reliability r (Fuller 1987, Measurement Error Models,
    section 1.1; Kahneman 1965, Psychological Bulletin 64:326). The partial covariance of label and output
    beside motion, s_lo - s_lm s_mo / (r s_mm), is 0 at r = s_lm s_mo / (s_lo s_mm). So r is the reliability among
    people who are alike in the other covariates. Its high end is the least reliability at which the output is still
    shown to carry more. The shape of motion's effect plays no part: it is a statement about the linear part.
    """
    span = spanned(others.to_numpy())
    columns = np.column_stack([people[["label", "logit"]], measure])
    label, output, moved = residuals(columns, span).T

    def reliability(weight: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            shared = (weight @ (label * moved)) * (weight @ (output * moved))
            return shared / ((weight @ (label * output)) * (weight @ moved**2))

    return resampled(reliability, len(people), seed_wider, (0, 1))


def resampled(statistic: Statistic, count: int, seed_wider: tuple[int, float], bounds: tuple[float, float]) -> Estimate:
    """A statistic (k,) of weights (k, count) with its interval; no interval of fewer than MIN_PER_CLASS subjects."""
    seed, wider = seed_wider
    value = statistic(np.ones((1, count)))[0]
    low = high = np.nan
    if count >= MIN_PER_CLASS:
        ends = bootstrap(statistic, count, np.random.default_rng(seed), RESAMPLES)
        low, high = (value + wider * (float(end) - value) for end in ends)
    return Estimate.of(*np.clip([value, low, high], *bounds))


def rows(result: dict | None, groups: list[dict]) -> list[dict]:
    """Rows of `confounds.csv`: the test, the correlation with motion, the reliability, the half that moved least."""
    found = result or {}
    still = next((row for row in groups if row["group"] == MOVED_LESS), {})
    area = "auc_sites" if still.get("auc_sites") is not None else "auc"
    measures = {name: found[name] for name in ("partial", "correlation", "reliability") if name in found}
    measures |= {area: Estimate.in_row(still, area)} if still else {}
    return [
        {"measure": name} | estimate.columns() | {"p": found["p"] if name == "partial" else None}
        for name, estimate in measures.items()
        if estimate.value is not None
    ]


def motion_line(result: dict | None) -> str:
    """The result of `motion` in one line."""
    of_motion = result is not None and any(HEAD_MOTION.search(name) for name in result["covariates"])
    return paragraph("motion", result=result, of_motion=of_motion)


THIRDS = ("youngest", "middle", "oldest")
GROUPED = ("head motion", "sex", "age")
MOVED_LESS, MOVED_MORE = "moved less", "moved more"
MAX_SEXES = 6  # values; more of them are no codes


def groups(predictions: Predictions, table: pd.DataFrame | None, seed: int) -> list[dict]:
    """Rows of `groups.csv`: the halves that moved less and more than the median of their site, the sexes, the thirds of
    age; number of subjects, AUC and, where there are several sites, AUC within them, with intervals."""
    if table is None:
        return []
    first, _ = predictions.people
    subject, site = predictions.subject[first].tolist(), np.asarray(predictions.site)[first].tolist()
    known = covariates(subject, site, table)
    rows = []
    for kind, group in grouped(known, site):
        of_record = group.reindex(predictions.subject).to_numpy(object)
        for name in group.dropna().unique():
            part = predictions.subset(of_record == name)
            members = {"subjects": part.label >= 0, "autism": part.label == 1, "control": part.label == 0}
            found = with_intervals(part, seed)
            counts = {key: part.count(group) for key, group in members.items()}
            scores = flat({area: found[area] for area in ("auc_sites", "auc") if area in found})
            rows.append({"kind": kind, "group": str(name)} | counts | scores)
    return sorted(rows, key=lambda row: GROUPED.index(row["kind"]))


def grouped(known: pd.DataFrame, site: list[str]) -> Iterator[tuple[str, pd.Series]]:
    """Each grouping by its kind: the name of the group of each subject, the groups in order; NaN where unknown."""
    for name in known:
        values = known[name]
        if HEAD_MOTION.search(name) and values.dtype == float:
            below = values < values.groupby(np.array(site)).transform("median")
            halves = pd.Series(np.where(below, MOVED_LESS, MOVED_MORE), known.index)
            yield "head motion", halves.where(values.notna()).sort_values()
        elif AGE.search(name) and values.dtype == float and values.nunique() > MAX_SEXES:
            thirds = pd.qcut(values.rank(method="first"), len(THIRDS), labels=THIRDS).astype(object)
            low, high = (f"{cut:.1f}" for cut in values.quantile([1 / 3, 2 / 3]))
            told = dict(zip(THIRDS, (f"below {low}", f"{low} to {high}", f"above {high}"), strict=True))
            told = {third: f"{third} third, {ends}" for third, ends in told.items()}
            yield "age", thirds.map(told)[values.sort_values().index]
        elif SEX.search(name) and values.nunique() <= MAX_SEXES:
            told = values.dropna().map("{:g}".format if values.dtype == float else str)
            yield "sex", (f"{name} " + told).sort_values()


def by_site(predictions: Predictions, seed: int) -> list[dict]:
    """A row a site, the largest first: counts of subjects, AUC and accuracy with `_low`, `_high`; None if undefined."""
    rows, sites = [], np.asarray(predictions.site)
    for name in np.unique(sites):
        site = predictions.subset(sites == name)
        members = {"subjects": site.label >= 0, "autism": site.label == 1, "control": site.label == 0}
        counts = {key: len(np.unique(site.subject[group])) for key, group in members.items()}
        found = with_intervals(site, seed)
        rows.append({"site": str(name)} | counts | flat({name: found[name] for name in ("auc", "accuracy")}))
    return sorted(rows, key=lambda row: -row["subjects"])


def by_fold(predictions: Predictions, seed: int) -> dict[str, dict[str, Estimate]]:
    """The metrics of each fold, in the order in which folds appear, by the fold's name as text."""
    fold = np.asarray(predictions.fold)
    return {str(name): with_intervals(predictions.subset(fold == name), seed) for name in dict.fromkeys(fold.tolist())}
