"""Floors: plain classifiers of the same subjects; whether a network's output says more than they do, or than motion.

scikit-learn with fixed settings, no search. Everything that is learnt, imputation, categories and scaling included, is
learnt on training records only.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
from scipy.special import logit
from sklearn.base import ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from data.base import files
from data.base.errors import InputError
from data.base.progress import progress
from data.cohorts import atlas, phenotype
from data.cohorts.cohort import Cohort, in_order
from data.cohorts.entries import MAX_RECORDS
from data.simulation import Simulation, rule, subject_names
from utils.metrics import Predictions, difference, flat, with_intervals
from utils.report.tables import MAJORITY, MODEL, RULE
from utils.report.texts import paragraph
from utils.statistics import CONFIDENCE

MINUS = "model_minus_floor_auc"
SVM = "SVM"
HEAD_MOTION = re.compile("mean_?fd|framewise", re.IGNORECASE)
CHUNK = 16  # records read at once
INNER_FOLDS = 5  # for the probabilities of an SVM
MIN_SUBJECTS_A_PARAMETER = 10  # of a logistic regression
MIN_KNOWN = 0.5  # share of the subjects whose value of a covariate must be known to keep it
MAX_SVM_RECORDS = 10_000  # for training; the time of an SVM grows with their square


def covariates(subject: Sequence[str], site: Sequence[str], table: pd.DataFrame | None) -> pd.DataFrame:
    """The covariates of each of the subjects (n,), in their order, and their site, if there are several.

    Numbers are float64, head motion its logarithm, text is object; NaN where unknown. `table` is
    `Cohort.covariates`; a column of it that repeats the site is left out. Raises InputError for text among numbers.
    """
    columns: dict[str, np.ndarray] = {"site": np.array(site, object)} if len(set(site)) > 1 else {}
    table = pd.DataFrame(index=sorted(set(subject))) if table is None else table
    for name in table:
        if (table[name].reindex(subject).to_numpy(object) == np.array(site, object)).all():
            continue
        if not phenotype.mostly_numbers(table[name]):
            columns[name] = phenotype.clean(table[name]).reindex(subject).to_numpy(object)
            continue
        values = phenotype.numbers(table, name).reindex(subject)
        if HEAD_MOTION.search(name):
            name, values = f"log {name}", np.log(values.where(values > 0))
        columns[name] = values.to_numpy(float)
    return pd.DataFrame(columns, index=pd.Index(subject))


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


def encoded(classifier: ClassifierMixin) -> Pipeline:
    """The classifier behind an encoder of `features`: medians and indicators for missing numbers, z-scores, dummies."""
    median = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    unknown = SimpleImputer(strategy="constant", fill_value="unknown")
    numbers = make_pipeline(median, StandardScaler())
    categories = make_pipeline(unknown, OneHotEncoder(handle_unknown="ignore", sparse_output=False))
    encoder = make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (categories, make_column_selector(dtype_exclude="number")),
    )
    return make_pipeline(encoder, classifier)


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


def compare(predictions: Predictions, floors: pd.DataFrame, seed: int) -> list[dict]:
    """Rows of `floors.csv`: the model, then each floor, with intervals, and the model's AUC minus the floor's.

    `floors` are those of `predict`, a row for each of the predictions, in their order; a floor that could not be fitted
    in every fold is left out. With folds, the AUC and its difference are given pooled and within folds (`_folds`).
    """
    names = ["auc", "accuracy", "balanced_accuracy", "brier", *predictions.groups]
    minus = {MINUS: False} if predictions.fold is None else {MINUS: False, f"{MINUS}_folds": True}
    nothing = dict.fromkeys(("value", "low", "high"))
    rows = []
    for name, values in [(MODEL, predictions.probability), *floors.dropna(axis=1).items()]:
        floor = replace(predictions, probability=values)
        found = with_intervals(floor, seed)
        if name == MAJORITY:  # its constants differ between folds, but they rank nobody
            floor = replace(predictions, probability=np.zeros(len(values)))
            found |= {key: value for key, value in with_intervals(floor, seed).items() if key.startswith("auc")}
        less = {
            key: nothing if name == MODEL else difference(predictions, floor.probability, seed, within)
            for key, within in minus.items()
        }
        rows.append({"floor": str(name), **flat(found, names), **flat(less, list(less))})
    return rows


def verdict(rows: Sequence[dict]) -> str:
    """One sentence on the rows of `compare`: whether the network beats chance, and which floors it does not beat."""
    if within_folds := "auc_folds" in rows[0]:  # pooled probabilities come from models that need not agree
        rows = [row | {name.replace("_folds", ""): row[name] for name in row if "_folds" in name} for row in rows]
    model, *others = rows
    floors = [row for row in others if row["floor"] not in (MAJORITY, RULE)]
    return paragraph(
        "verdict",
        model=model,
        floors=floors,
        unbeaten=[row for row in floors if model["auc_low"] is not None and row[f"{MINUS}_low"] <= 0],
        rule=next((row for row in others if row["floor"] == RULE and row["auc"] is not None), None),
        within_folds=within_folds,
    )


def motion(predictions: Predictions, table: pd.DataFrame | None) -> dict | None:
    """Whether the network's output says more of the diagnosis than the covariates do: a logistic regression.

    It regresses the label on the logit of the out-of-sample probability, in standard deviations, the covariates
    (`table` is `Cohort.covariates`) and, where subjects suffice, the site. Each subject counts once, with the mean
    logit of its records. The result holds `coefficient` with `low`, `high`, `p`; `subjects`, `left_out` (a covariate is
    unknown, or all of their site are of one class), `covariates`, `without` (covariates not used) - or `reason`, why it
    cannot be computed. None if there are no covariates.
    """
    if table is None:
        return None
    logits = logit(np.clip(predictions.probability, 1e-7, 1 - 1e-7))
    records = pd.DataFrame({"label": predictions.label, "site": predictions.site, "logit": logits})
    everybody = records.groupby(predictions.subject).agg({"label": "first", "site": "first", "logit": "mean"})
    known = covariates(everybody.index.tolist(), everybody["site"].tolist(), table)
    chosen = [name for name in known if known[name].notna().mean() >= MIN_KNOWN]
    for names in (chosen, [name for name in chosen if name != "site"]):
        people = everybody[known[names].notna().all(axis=1)]
        if "site" in names:
            people = people[people.groupby("site")["label"].transform("nunique") == 2]
        values = design(known.loc[people.index, names], people["logit"])
        if len(people) and len(people) >= MIN_SUBJECTS_A_PARAMETER * values.shape[1]:
            break
    counts = {"subjects": len(people), "left_out": len(everybody) - len(people)}
    used = {"covariates": names, "without": [name for name in known if name not in names]}
    return regression(people["label"].to_numpy(), values) | counts | used


def design(known: pd.DataFrame, logit: pd.Series) -> pd.DataFrame:
    """Intercept, covariates (text as dummies) and logit, z-scored; no column that depends linearly on those before."""
    numbers = pd.get_dummies(known, drop_first=True, dtype=float) if len(known.columns) else known  # pandas needs one
    values = numbers.assign(logit=logit)
    values = (values - values.mean()) / values.std(ddof=0).replace(0, 1)
    values.insert(0, "intercept", 1.0)
    kept: list[str] = []
    for name in values:
        if np.linalg.matrix_rank(values[[*kept, name]]) > len(kept):
            kept.append(name)
    return values[kept]


def regression(label: np.ndarray, values: pd.DataFrame) -> dict:
    """The logit's coefficient in a logistic regression, or the reason why there is none."""
    from statsmodels.discrete.discrete_model import Logit
    from statsmodels.tools.sm_exceptions import ModelWarning, PerfectSeparationError

    if len(set(label)) < 2:
        return {"reason": "the subjects are of one class"}
    if values.columns.isin(["intercept", "logit"]).all():
        return {"reason": "no covariate can be used"}
    if len(label) < MIN_SUBJECTS_A_PARAMETER * values.shape[1]:
        return {"reason": f"{len(label)} subjects are too few for {values.shape[1]} parameters"}
    if "logit" not in values:
        return {"reason": "the network's output follows from the covariates, or is the same for everybody"}
    try:
        with warnings.catch_warnings():
            for category in (ModelWarning, RuntimeWarning):
                warnings.simplefilter("error", category)
            fit = Logit(label, values).fit(disp=0, maxiter=100)
    except (ModelWarning, RuntimeWarning, PerfectSeparationError, np.linalg.LinAlgError):
        return {"reason": "the covariates and the network's output separate the classes perfectly"}
    low, high = fit.conf_int(1 - CONFIDENCE).loc["logit"]
    numbers = {"coefficient": fit.params["logit"], "low": low, "high": high, "p": fit.pvalues["logit"]}
    return {name: float(value) for name, value in numbers.items()}


def motion_line(result: dict | None) -> str:
    """The result of `motion` in one line."""
    of_motion = result is not None and any(HEAD_MOTION.search(name) for name in result["covariates"])
    return paragraph("motion", result=result, of_motion=of_motion)
