"""Floors: plain classifiers of the same subjects, beside which every score stands.

scikit-learn with fixed settings, no search. Everything that is learnt, imputation, categories and scaling included, is
learnt on training records only.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.svm import SVC

from data.base import files
from data.base.errors import InputError
from data.base.progress import progress
from data.cohorts import atlas
from data.cohorts.cohort import Cohort, in_order
from data.cohorts.entries import MAX_RECORDS
from data.simulation import Simulation, rule, subject_names
from utils.covariates import covariates, encoded
from utils.report.tables import MAJORITY, RULE

SVM = "SVM"
CHUNK = 16  # records read at once
INNER_FOLDS = 5  # for the probabilities of an SVM
MAX_SVM_RECORDS = 10_000  # for training; the time of an SVM grows with their square
SETTINGS = {  # of each classifier by its name in those of floors, for the methods of a paper
    "logistic regression": "L2 penalty, C = 1",
    SVM: f"radial basis functions, C = 1, gamma scaled by the features' variance, probabilities calibrated over "
    f"{INNER_FOLDS} inner folds, at most {MAX_SVM_RECORDS:,} training records",
}


def features(cohort: Cohort) -> dict[str, pd.DataFrame]:
    """The inputs of each kind of floor, which hold no label: a row a record, in the cohort's order.

    `covariates` (see there), `phenotype` (29), `regions` (the volume's mean in each AAL region) and `all` of them.
    Unknown ones, such as a phenotype that is zero in all records, are left out.
    """
    names = atlas.load_atlas(None, cohort.grid)
    values, means = [], []
    for indices in in_order(np.arange(len(cohort.rows)), CHUNK):
        batch = cohort.batch(indices)
        values.append(batch["phenotype"])
        means.append(names.means(batch["volume"]).reshape(len(indices), -1))
    phenotypes, regions = np.concatenate(values), np.concatenate(means)
    subject, site = ([getattr(row, name) for row in cohort.rows] for name in ("subject", "site"))
    tables = {
        "covariates": covariates(subject, site, cohort.covariates).reset_index(drop=True),
        "phenotype": pd.DataFrame(phenotypes if phenotypes.any() else None, range(len(subject))),
        "regions": pd.DataFrame(regions),
    }
    known = {name: table.add_prefix(f"{name} ") for name, table in tables.items() if table.shape[1]}
    return known | {"all": pd.concat(known.values(), axis=1)}


def classifiers(label: np.ndarray, subject: Sequence[str], some: np.ndarray) -> dict:
    """The unfitted classifiers that training records with these labels and subjects (n,) allow, by name.

    An SVM is fitted on `some` of the records. Its probabilities are calibrated over inner folds, each subject in one of
    them, and need as many subjects of each class as there are folds.
    """
    label_of_some, subject_of_some = label[some], np.asarray(subject)[some]
    found = {"logistic regression": encoded(LogisticRegression(max_iter=1000))} if len(set(label)) == 2 else {}
    if min(len(set(subject_of_some[label_of_some == value])) for value in (0, 1)) >= INNER_FOLDS:
        folds = list(StratifiedGroupKFold(INNER_FOLDS).split(some, label_of_some, subject_of_some))
        found[SVM] = CalibratedClassifierCV(encoded(SVC(C=1, gamma="scale")), cv=folds, ensemble=False)
    return found


def predict(cohort: Cohort) -> pd.DataFrame:
    """Probability of autism of the test records (rows by file, in their order) by each floor (columns).

    `majority`, then `<features>, <classifier>`, and for the demo cohort RULE. Prints what had to be left out.
    """
    train, test = cohort.indices("train"), cohort.indices("test")
    label = np.array([cohort.rows[index].label for index in train])
    some = np.sort(np.random.default_rng(0).permutation(len(train))[:MAX_SVM_RECORDS])  # that an SVM is fitted on
    fitting = classifiers(label, [cohort.rows[index].subject for index in train], some)
    tables = features(cohort) if fitting else {}
    result = {MAJORITY: np.full(len(test), label.mean())}
    with progress("Fitting floors", len(tables) * len(fitting)) as shown:
        for (kind, table), (name, classifier) in product(tables.items(), fitting.items()):
            rows = some if name == SVM else np.arange(len(train))
            fitted = clone(classifier).fit(table.iloc[train[rows]], label[rows])
            result[f"{kind}, {name}"] = fitted.predict_proba(table.iloc[test])[:, 1]
            shown.advance()
    if SVM in fitting and len(some) < len(train):
        print(f"Floors: each SVM is fitted on {len(some)} of {len(train)} training records, drawn at random.")
    if simulation := simulation_of(cohort):
        result[RULE] = rule(simulation, [cohort.rows[index].subject for index in test])
    left_out = [kind for kind in ("covariates", "phenotype") if kind not in tables]
    if SVM not in fitting:
        left_out.append(f"{SVM}, which needs {INNER_FOLDS} training subjects of each class")
    if not fitting:
        print("Floors: all training subjects are of one class, so there is only the majority.")
    elif left_out:
        print(f"Floors left out: {'; '.join(left_out)}.")
    return pd.DataFrame(result, index=pd.Index([cohort.rows[index].file for index in test], name="file"))


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
