"""Baselines: plain classifiers of the same subjects, beside which every score stands.

Everything that is learnt, imputation, categories, scaling, penalties and calibration included, is learnt on training
records only. Each classifier reads each set of features on which it adds something:

- logistic regression (L2), an SVM (RBF kernel, C = 1): every set; a straight and a curved boundary.
- ridge: region means and all, which have hundreds of columns; the usual choice for such tables in neuroimaging.
- the mean of SVMs, one a map, with or without one of the phenotype, as the network fuses what it reads. On 737 people
  of ABIDE I no single classifier was better. Log odds are averaged, a logarithmic opinion pool (Genest and Zidek 1986,
  doi:10.1214/ss/1177013825). A map that tells nothing is calibrated to log odds near 0, and so hardly counts.
- if there are connectomes: ridge on their edges. Also the mean of three parts: the mean over the maps, the SVM of the
  phenotype and this ridge. On 737 people of ABIDE I with fifteen maps, leaving sites out, three parts had an AUC within
  sites of 0.79. The connectome alone had 0.76. With a vote for each map, the maps outvoted the connectome (0.76).

Penalties are chosen in inner folds: with C = 1 a logistic regression of region means was a straw man.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from data.base.effort import EFFORT
from data.base.terminal import open_progress_bar
from data.cohorts.cohort import Cohort
from data.cohorts.rows import RecordRow
from utils.scores import ridge
from utils.scores.calibration import platt
from utils.scores.features import encoder, features
from utils.scores.results import MAJORITY
from utils.scores.statistics import log_odds

LOGISTIC, RIDGE, SVM, MEAN, PARTS = "logistic regression", "ridge", "SVM", "mean of SVMs", "mean of parts"
WIDE = ("regions", "all")  # which ridge reads
CONNECTOME = "connectome"  # which ridge alone reads
STRENGTHS = np.logspace(-4, 0, EFFORT.strengths)  # of a logistic regression, the inverse of its penalty
MAX_SVM_RECORDS = 10_000  # for training; the time of an SVM grows with their square
INNER = f"{EFFORT.inner_folds} inner folds"
SETTINGS = {  # of each classifier by its name in those of baselines, for the methods of a paper
    LOGISTIC: f"L2 penalty, of {len(STRENGTHS)} strengths the one with the best mean AUC in {INNER}",
    RIDGE: f"of labels minus their mean (of each site, where known), of {len(ridge.PENALTIES)} penalties the one with "
    f"the least error in {INNER}, probabilities calibrated there",
    SVM: "radial basis functions, C = 1, gamma scaled by the features' variance, probabilities calibrated over "
    f"{INNER}, at most {MAX_SVM_RECORDS:,} training records",
    MEAN: "the mean log odds of such SVMs, one a map, and one of the phenotype if it is named",
    PARTS: "the mean log odds of these parts: SVMs of maps (their mean), the phenotype's SVM if it is named, the "
    f"connectome's ridge; at most {ridge.MAX_EDGE_RECORDS:,} training records",
}


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """The training records that a classifier takes: positions among all of them, labels, sites, and inner folds."""

    rows: np.ndarray
    label: np.ndarray
    site: np.ndarray
    folds: ridge.InnerFolds


def by_logistic(known: np.ndarray, of: TrainingSet) -> ridge.LinearClassifier:
    """Logistic regression on features (n, features), with the strength that has the best mean AUC in the folds."""
    if known.shape[1] > len(known):  # an L2 penalty does not change with the axes
        values, axes = ridge.own_axes(known @ known.T)
        along = by_logistic(values, of)
        return ridge.LinearClassifier(known.T @ (axes @ along.weights), along.bias)
    search = LogisticRegressionCV(
        Cs=STRENGTHS, l1_ratios=(0,), cv=of.folds, scoring="roc_auc", max_iter=1000, use_legacy_attributes=False
    )
    search.fit(known, of.label)
    return ridge.LinearClassifier(search.coef_[0], float(search.intercept_[0]))


def by_svm(known: np.ndarray, new: np.ndarray, of: TrainingSet) -> np.ndarray:
    """The probability of autism of `new` records (n, features) by an SVM with fixed settings. It is calibrated over the
    inner folds, for all of which its kernel is computed once."""
    known = known[of.rows]
    gamma = 1 / (known.shape[1] * (known.var() or 1))  # scikit-learn's "scale"
    kernel, decision = rbf_kernel(known, gamma=gamma), np.empty(len(of.label))
    for fitting, out in of.folds:
        fitted = SVC(C=1, kernel="precomputed").fit(kernel[np.ix_(fitting, fitting)], of.label[fitting])
        decision[out] = fitted.decision_function(kernel[np.ix_(out, fitting)])
    whole = SVC(C=1, kernel="precomputed").fit(kernel, of.label)
    slope, shift = platt(decision, of.label)
    return expit(slope * whole.decision_function(rbf_kernel(new, known, gamma)) + shift)


def training_sets(rows: Sequence[RecordRow], people: np.ndarray) -> list[TrainingSet]:
    """What linear classifiers take of training records with these rows, of these people (n,), and what SVMs do, at most
    MAX_SVM_RECORDS of them, drawn at random; nothing if they are too few for inner folds."""
    found = []
    for most in (len(rows), MAX_SVM_RECORDS):
        chosen = np.sort(np.random.default_rng(0).permutation(len(rows))[:most])
        label, site = (np.array([getattr(rows[at], name) for at in chosen]) for name in ("label", "site"))
        found.append(TrainingSet(chosen, label, site, ridge.inner_folds(label, people[chosen])))
    return found if all(one.folds for one in found) else []


def limits(count: int, connectomes: bool = False) -> list[str]:
    """What must stand beside baselines of so many training records, the most of any fold."""
    most = {"SVM": MAX_SVM_RECORDS} | ({"ridge on connectomes": ridge.MAX_EDGE_RECORDS} if connectomes else {})
    return [
        f"Each {name} among the baselines is fitted on {limit} of {count} training records, drawn at random."
        for name, limit in most.items()
        if count > limit
    ]


def predict(cohort: Cohort, training: Cohort | None = None) -> pd.DataFrame:
    """Probability of autism of the test records (rows by file, in their order) by each baseline (columns).

    `majority`, then `<features>, <classifier>`. Baselines are fitted on the cohort's own training records, or on those
    of `training`, see `training_people`. Prints what had to be left out.
    """
    source, cohorts = training or cohort, (training, cohort) if training else (cohort,)
    train, test = source.split_indices("train"), cohort.split_indices("test")
    rows = [source.rows[index] for index in train]
    result = {MAJORITY: np.full(len(test), np.mean([row.label for row in rows]))}
    if fitting := training_sets(rows, ridge.people_of(source, train)):
        tables = features(*cohorts)
        result |= fitted(fitting, tables, train, test + (len(source.rows) if training else 0), cohort.num_maps)
        result |= with_connectomes(result, source, cohort)
        left_out = [kind for kind in ("covariates", "phenotype") if kind not in tables]
        left_out += [CONNECTOME] if source.connectomes and f"{CONNECTOME}, {RIDGE}" not in result else []
        if left_out:
            print(f"Baselines left out: {'; '.join(left_out)}.")
    else:
        print("Baselines: too few training participants of a class to choose penalties, so there is only the majority.")
    return pd.DataFrame(result, index=pd.Index([cohort.rows[index].file for index in test], name="file"))


def fitted(
    fitting: Sequence[TrainingSet],
    tables: dict[str, pd.DataFrame],
    train: np.ndarray,
    test: np.ndarray,
    num_maps: int,
) -> dict[str, np.ndarray]:
    """Probabilities of the records at `test` by each baseline that is fitted on those at `train`."""
    everybody, some = fitting
    result: dict[str, np.ndarray] = {}
    of_maps: list[np.ndarray] = []
    # Threads of linear algebra cost more than they gain at this size, much more where other programs run
    with open_progress_bar("Fitting baselines", len(tables)) as shown, threadpool_limits(1, "blas"):
        for kind, table in tables.items():
            encoding = encoder().fit(table.iloc[train])
            known, new = (encoding.transform(table.iloc[rows]) for rows in (train, test))
            own = known[everybody.rows]
            result[f"{kind}, {LOGISTIC}"] = expit(by_logistic(own, everybody).log_odds(new))
            if kind in WIDE:
                classifier = ridge.fit(own, everybody.label, everybody.site, everybody.folds)
                result[f"{kind}, {RIDGE}"] = expit(classifier.log_odds(new))
            result[f"{kind}, {SVM}"] = by_svm(known, new, some)
            if kind == "regions" and num_maps > 1:
                of_maps = [by_svm(known[:, at::num_maps], new[:, at::num_maps], some) for at in range(num_maps)]
                result[f"regions, {MEAN}"] = pooled(of_maps)
            shown.advance()
    if {"phenotype", "regions"} <= tables.keys():
        of_regions = of_maps or [result[f"regions, {SVM}"]]
        result[f"regions and phenotype, {MEAN}"] = pooled([*of_regions, result[f"phenotype, {SVM}"]])
    return result


def with_connectomes(found: dict[str, np.ndarray], source: Cohort, cohort: Cohort) -> dict[str, np.ndarray]:
    """Probabilities of the test records of `cohort` by the edges of connectomes, fitted on training records of
    `source`. First by edges alone, then with those that were `found` by maps and phenotype. None unless both cohorts
    have the same edges."""
    same = source.metadata.select_for_inputs([CONNECTOME]) == cohort.metadata.select_for_inputs([CONNECTOME])
    if not same or source.connectomes is None or cohort.connectomes is None:
        return {}
    classifier = ridge.fit_edges(source, source.connectomes, source.split_indices("train"))
    own = expit(classifier.log_odds(cohort.connectomes, cohort.split_indices("test")))
    parts = [found.get(f"regions, {MEAN}", found[f"regions, {SVM}"]), own]
    parts += [found[name] for name in [f"phenotype, {SVM}"] if name in found]
    kinds = "regions with phenotype and connectome" if len(parts) > 2 else "regions and connectome"
    return {f"{CONNECTOME}, {RIDGE}": own, f"{kinds}, {PARTS}": pooled(parts)}


def pooled(probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """The probability (n,) whose log odds are the mean of those of probabilities (n,) of several classifiers."""
    return expit(log_odds(np.asarray(probabilities)).mean(0))
