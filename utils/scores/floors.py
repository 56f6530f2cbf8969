"""Floors: plain classifiers of the same subjects, beside which every score stands.

Everything that is learnt, imputation, categories, scaling, penalties and calibration included, is learnt on training
records only. Each classifier reads each set of features on which it adds something:

- logistic regression (L2), an SVM (RBF kernel, C = 1): every set; a straight and a curved boundary.
- ridge: region means and all, which have hundreds of columns; the usual choice for such tables in neuroimaging.
- the mean of SVMs, one a map, with or without one of the phenotype, as the network fuses what it reads. On 737 people
  of ABIDE I no single classifier was better. Log odds are averaged, a logarithmic opinion pool (Genest and Zidek 1986,
  doi:10.1214/ss/1177013825): a map that tells nothing is calibrated to log odds near 0, and so hardly counts.
- ridge on the edges of connectomes, where there are any, and the mean of three parts: that of the maps, the SVM of the
  phenotype and this ridge. On 737 people of ABIDE I, fifteen maps, leaving sites out, three parts had an AUC within
  sites of 0.79, the connectome alone 0.76; with a vote for each map these outvoted the connectome (0.76).

Penalties are chosen in inner folds: with C = 1 a logistic regression of region means was a straw man.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from data.base import files
from data.base.errors import InputError
from data.base.terminal import progress
from data.cohorts import atlas
from data.cohorts.cohort import Cohort
from data.cohorts.rows import MAX_RECORDS, Row, leaders
from data.simulation import Simulation, rule, subject_names
from utils.scores import ridge
from utils.scores.calibration import platt
from utils.scores.covariates import covariates, encoder
from utils.scores.statistics import MAJORITY, RULE

LOGISTIC, RIDGE, SVM, MEAN, PARTS = "logistic regression", "ridge", "SVM", "mean of SVMs", "mean of parts"
WIDE = ("regions", "all")  # which ridge reads
CONNECTOME = "connectome"  # which ridge alone reads
STRENGTHS = np.logspace(-4, 0, 5)  # of a logistic regression, the inverse of its penalty
MAX_SVM_RECORDS = 10_000  # for training; the time of an SVM grows with their square
CLOSEST = 1e-7  # of a probability to 0 and 1, before log odds are averaged
INNER = f"{ridge.INNER_FOLDS} inner folds"
SETTINGS = {  # of each classifier by its name in those of floors, for the methods of a paper
    LOGISTIC: f"L2 penalty, of {len(STRENGTHS)} strengths the one with the best mean AUC in {INNER}",
    RIDGE: f"of labels minus their mean at the site, of {len(ridge.PENALTIES)} penalties the one with the least error "
    f"in {INNER}, probabilities calibrated there",
    SVM: "radial basis functions, C = 1, gamma scaled by the features' variance, probabilities calibrated over "
    f"{INNER}, at most {MAX_SVM_RECORDS:,} training records",
    MEAN: "the mean log odds of such SVMs, one a map, and one of the phenotype if it is named",
    PARTS: "the mean log odds of what reads the maps (the mean of SVMs, one a map), of the phenotype's SVM, if it is "
    f"named, and of the connectome's ridge, at most {ridge.MAX_EDGE_RECORDS:,} training records",
}


@dataclass(frozen=True, eq=False)
class Training:
    """Training records: positions among all of them, labels, sites, and inner folds."""

    rows: np.ndarray
    label: np.ndarray
    site: np.ndarray
    folds: ridge.InnerFolds


@dataclass(frozen=True)
class Learner:
    """A way to fit a classifier, and the training records that it takes.

    `method(known, new, of)`: standardised features (n, features) of these training records and of new ones -> the
    probability of autism of the new ones.
    """

    method: Callable[[np.ndarray, np.ndarray, Training], np.ndarray]
    of: Training

    def predict(self, known: np.ndarray, new: np.ndarray) -> np.ndarray:
        """Probability of autism of `new` records (n, features), after a fit on the training records, `known`."""
        return self.method(known[self.of.rows], new, self.of)


def logistic(known: np.ndarray, of: Training) -> ridge.LinearClassifier:
    """Logistic regression on features (n, features), with the strength that has the best mean AUC in the folds."""
    if known.shape[1] > len(known):  # an L2 penalty does not change with the axes
        values, axes = ridge.own_axes(known @ known.T)
        along = logistic(values, of)
        return ridge.LinearClassifier(known.T @ (axes @ along.weights), along.bias)
    search = LogisticRegressionCV(
        Cs=STRENGTHS, l1_ratios=(0,), cv=of.folds, scoring="roc_auc", max_iter=1000, use_legacy_attributes=False
    )
    search.fit(known, of.label)
    return ridge.LinearClassifier(search.coef_[0], float(search.intercept_[0]))


def by_logistic(known: np.ndarray, new: np.ndarray, of: Training) -> np.ndarray:
    """See `logistic`."""
    return expit(logistic(known, of).log_odds(new))


def ridges(known: np.ndarray, of: Training) -> ridge.LinearClassifier:
    """Ridge, see `utils.scores.ridge`."""
    return ridge.fit(known, of.label, of.site, of.folds)


def by_ridge(known: np.ndarray, new: np.ndarray, of: Training) -> np.ndarray:
    """See `ridges`."""
    return expit(ridges(known, of).log_odds(new))


def by_svm(known: np.ndarray, new: np.ndarray, of: Training) -> np.ndarray:
    """An SVM with fixed settings, calibrated over the folds, for all of which its kernel is computed once."""
    gamma = 1 / (known.shape[1] * (known.var() or 1))  # scikit-learn's "scale"
    kernel, decision = rbf_kernel(known, gamma=gamma), np.empty(len(of.label))
    for fitting, out in of.folds:
        fitted = SVC(C=1, kernel="precomputed").fit(kernel[np.ix_(fitting, fitting)], of.label[fitting])
        decision[out] = fitted.decision_function(kernel[np.ix_(out, fitting)])
    whole = SVC(C=1, kernel="precomputed").fit(kernel, of.label)
    return calibrated(decision, of.label, whole.decision_function(rbf_kernel(new, known, gamma)))


def calibrated(decision: np.ndarray, label: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Probabilities of autism from the decision values `new`, calibrated on those (n,) that the training records had in
    the inner folds."""
    slope, shift = platt(decision, label)
    return expit(slope * new + shift)


LINEAR = {LOGISTIC: logistic, RIDGE: ridges}  # of the classifiers, those that are a line of the features


def learners(rows: Sequence[Row], group: Sequence[str]) -> dict[str, Learner]:
    """What training records with these rows and groups of subjects (n,) allow, by name."""
    everybody, some = (training_of(rows, np.asarray(group), most) for most in (len(rows), MAX_SVM_RECORDS))
    found = {
        LOGISTIC: Learner(by_logistic, everybody),
        RIDGE: Learner(by_ridge, everybody),
        SVM: Learner(by_svm, some),
    }
    return found if everybody.folds and some.folds else {}


def people_of(cohort: Cohort, indices: np.ndarray) -> list[str]:
    """Who each of the records at these positions is of; people who share a scan count as one."""
    subjects = [cohort.rows[index].subject for index in indices]
    leader = leaders(subjects, cohort.metadata.same_scan)
    return [leader[subject] for subject in subjects]


def training_of(rows: Sequence[Row], people: np.ndarray, most: int) -> Training:
    """At most so many training records, drawn at random."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(rows))[:most])
    label, site = (np.array([getattr(rows[at], name) for at in chosen]) for name in ("label", "site"))
    return Training(chosen, label, site, ridge.inner_folds(label, people[chosen]))


def limits(count: int, connectomes: bool = False) -> list[str]:
    """What must stand beside floors of so many training records, the most of any fold."""
    most = {"SVM": MAX_SVM_RECORDS} | ({"ridge on connectomes": ridge.MAX_EDGE_RECORDS} if connectomes else {})
    return [
        f"Each {name} among the floors is fitted on {limit} of {count} training records, drawn at random."
        for name, limit in most.items()
        if count > limit
    ]


def features(*cohorts: Cohort) -> dict[str, pd.DataFrame]:
    """The `inputs` of each kind of floor, and `all` of them. Unknown ones, such as a phenotype that is zero in all
    records, are left out."""
    tables = inputs(*cohorts)
    if not tables["phenotype"].any(axis=None):
        del tables["phenotype"]
    known = {name: table for name, table in tables.items() if table.shape[1]}
    return known | {"all": pd.concat(known.values(), axis=1)}


def inputs(*cohorts: Cohort) -> dict[str, pd.DataFrame]:
    """What floors read, which holds no label: a row a record, in the order of one or several cohorts.

    `covariates` (see there), `phenotype` (29), and `regions` (the volume's mean in each AAL region; of several maps,
    those of a region lie side by side).
    """
    headers = [cohort.batch(range(len(cohort.rows)), volumes=False) for cohort in cohorts]
    phenotypes = np.concatenate([of_all["phenotype"] for of_all in headers])
    atlases = [atlas.load_atlas(None, cohort.grid) for cohort in cohorts]
    of_cohorts = [atlas.means_of(one, [atlas.regions(its)])[0] for one, its in zip(cohorts, atlases, strict=True)]
    regions = np.concatenate(of_cohorts).reshape(len(phenotypes), -1)
    rows = [row for cohort in cohorts for row in cohort.rows]
    subject, site = [row.subject for row in rows], [row.site for row in rows]
    known_of = [cohort.covariates for cohort in cohorts if cohort.covariates is not None]
    table = pd.concat(known_of) if known_of else None
    if table is not None:  # one who is in both cohorts is the same person, see `no_leak`
        table = table[~table.index.duplicated(keep="last")]
    tables = {
        "covariates": covariates(subject, site, table).reset_index(drop=True),
        "phenotype": pd.DataFrame(phenotypes, dtype=float),
        "regions": pd.DataFrame(regions, dtype=float),
    }
    return {name: table.add_prefix(f"{name} ") for name, table in tables.items()}


def predict(cohort: Cohort, training: Cohort | None = None) -> pd.DataFrame:
    """Probability of autism of the test records (rows by file, in their order) by each floor (columns).

    `majority`, then `<features>, <classifier>`, and for the demo cohort RULE. Floors are fitted on the cohort's own
    training records, or on those of `training`, see `training_people`. Prints what had to be left out.
    """
    source, cohorts = training or cohort, (training, cohort) if training else (cohort,)
    train, test = source.indices("train"), cohort.indices("test")
    rows = [source.rows[index] for index in train]
    fitting = learners(rows, people_of(source, train))
    tables = features(*cohorts) if fitting else {}
    result = {MAJORITY: np.full(len(test), np.mean([row.label for row in rows]))}
    result |= fitted(fitting, tables, train, test + (len(source.rows) if training else 0), cohort.num_maps)
    result |= with_connectomes(result, fitting, source, cohort)
    if simulation := simulation_of(cohort):
        result[RULE] = rule(simulation, [cohort.rows[index].subject for index in test])
    left_out = [kind for kind in ("covariates", "phenotype") if kind not in tables]
    left_out += [CONNECTOME] if source.connectomes and f"{CONNECTOME}, {RIDGE}" not in result else []
    if not fitting:
        print("Floors: too few training subjects of a class to choose penalties, so there is only the majority.")
    elif left_out:
        print(f"Floors left out: {'; '.join(left_out)}.")
    return pd.DataFrame(result, index=pd.Index([cohort.rows[index].file for index in test], name="file"))


def fitted(
    fitting: dict[str, Learner], tables: dict[str, pd.DataFrame], train: np.ndarray, test: np.ndarray, num_maps: int
) -> dict[str, np.ndarray]:
    """Probabilities of the records at `test` by each floor that is fitted on those at `train`."""
    result, of_maps = {}, []
    # Threads of linear algebra cost more than they gain at this size, much more where other programs run
    with progress("Fitting floors", len(tables)) as shown, threadpool_limits(1, "blas"):
        for kind, table in tables.items():
            encoding = encoder().fit(table.iloc[train])
            known, new = (encoding.transform(table.iloc[rows]) for rows in (train, test))
            for name, learner in fitting.items():
                if reads(name, kind):
                    result[f"{kind}, {name}"] = learner.predict(known, new)
            if kind == "regions":
                several = range(num_maps) if num_maps > 1 else ()
                of_maps = [fitting[SVM].predict(known[:, at::num_maps], new[:, at::num_maps]) for at in several]
            shown.advance()
    if of_maps:
        result[f"regions, {MEAN}"] = pooled(of_maps)
    if {"phenotype", "regions"} <= tables.keys():
        of_regions = of_maps or [result[f"regions, {SVM}"]]
        result[f"regions and phenotype, {MEAN}"] = pooled([*of_regions, result[f"phenotype, {SVM}"]])
    return result


def reads(classifier: str, kind: str) -> bool:
    """Whether a classifier is fitted on a kind of features."""
    return classifier != RIDGE or kind in WIDE


def with_connectomes(
    found: dict[str, np.ndarray], fitting: dict[str, Learner], source: Cohort, cohort: Cohort
) -> dict[str, np.ndarray]:
    """Probabilities of the test records of `cohort` by the edges of connectomes, fitted on training records of
    `source`, alone and with those that were `found` by maps and phenotype; none unless both have the same edges."""
    same = source.metadata.of_inputs([CONNECTOME]) == cohort.metadata.of_inputs([CONNECTOME])
    if not fitting or not same or source.connectomes is None or cohort.connectomes is None:
        return {}
    classifier = ridge.fit_edges(source, source.connectomes, source.indices("train"))
    own = expit(classifier.log_odds(cohort.connectomes, cohort.indices("test")))
    parts = [found.get(f"regions, {MEAN}", found[f"regions, {SVM}"]), own]
    parts += [found[name] for name in [f"phenotype, {SVM}"] if name in found]
    kinds = "regions with phenotype and connectome" if len(parts) > 2 else "regions and connectome"
    return {f"{CONNECTOME}, {RIDGE}": own, f"{kinds}, {PARTS}": pooled(parts)}


def pooled(probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """The probability (n,) whose log odds are the mean of those of probabilities (n,) of several classifiers."""
    return expit(logit(np.clip(probabilities, CLOSEST, 1 - CLOSEST)).mean(0))


def simulation_of(cohort: Cohort) -> Simulation | None:
    """The simulation that made a cohort, also after a swap or an encoder; None if its people are real or were renamed.

    Raises InputError if the cohort's description of it is damaged.
    """
    made = next((source for source in cohort.metadata.lineage if "planted" in source), None)
    if not cohort.simulated or not made:
        return None
    try:
        simulation = files.typed(files.json_text(made.get("simulation")), Simulation)
    except ValueError as error:
        raise InputError(f"{cohort.path} is damaged: its simulation {error}. Make it again.") from error
    possible = simulation.seed >= 0 and simulation.subjects <= MAX_RECORDS
    return simulation if possible and {row.subject for row in cohort.rows} <= set(subject_names(simulation)) else None
