"""Floors: plain classifiers of the same subjects, and whether a network's output says more than they do.

scikit-learn with fixed settings, no search. Whatever is learnt, imputation, categories and scaling included, is learnt
on training records only.
"""

import re
import warnings
from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
import pandas as pd

from data.base import files
from data.base.errors import InputError
from data.base.progress import progress
from data.cohorts import atlas, phenotype
from data.cohorts.cohort import Cohort
from data.cohorts.entries import MAX_RECORDS
from data.simulation import Simulation, rule, subject_names
from utils.batches import in_order
from utils.metrics import difference, flat, with_intervals
from utils.statistics import CHANCE, INTERVAL

MINUS = "model_minus_floor_auc"
MODEL, MAJORITY, RULE, SVM = "model", "majority", "rule that made the data", "SVM"
HEAD_MOTION = re.compile("mean_?fd|framewise", re.IGNORECASE)
CHUNK = 16  # records read at once
INNER_FOLDS = 5  # for the probabilities of an SVM
MOST_OF_SVM = 10_000  # training records; its time grows with their square
SUBJECTS_A_PARAMETER = 10  # of a logistic regression
KNOWN_ENOUGH = 0.5  # share of the subjects whose value of a covariate must be known to keep it


def covariates(subject: Sequence[str], site: Sequence[str], table: pd.DataFrame | None) -> pd.DataFrame:
    """Site, if there are several, and the covariates of each of the subjects (n,), in their order.

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
    """What each kind of floor reads of every record, label-free: a row a record, in the cohort's order.

    `covariates` (see there), `phenotype` (29), `regions` (the volume's mean in each AAL region) and `all` of them;
    without those that are unknown, as a phenotype that is zero in all records.
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


def encoded(classifier):
    """A pipeline that makes numbers of a table of `features`: medians and indicators for what is missing, z-scores."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    median = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    unknown = SimpleImputer(strategy="constant", fill_value="unknown")
    return make_pipeline(
        make_column_transformer(
            (make_pipeline(median, StandardScaler()), make_column_selector(dtype_include="number")),
            (
                make_pipeline(unknown, OneHotEncoder(handle_unknown="ignore", sparse_output=False)),
                make_column_selector(dtype_exclude="number"),
            ),
        ),
        classifier,
    )


def sample(count: int) -> np.ndarray:
    """Which of `count` training records an SVM is fitted on: all, or as many as it can take, the same every time."""
    return np.sort(np.random.default_rng(0).permutation(count)[:MOST_OF_SVM])


def classifiers(label: np.ndarray, subject: Sequence[str], some: np.ndarray) -> dict:
    """The unfitted classifiers that training records with these labels and subjects (n,) allow, by name.

    An SVM is fitted on `some` of the records. Its probabilities are calibrated over inner folds, each subject in one of
    them, and need as many subjects of each class as there are folds.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.svm import SVC

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
    from sklearn.base import clone

    train, test = cohort.indices("train"), cohort.indices("test")
    label = np.array([cohort.rows[index].label for index in train])
    some = sample(len(train))
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
    if not fitting:
        print("Floors: all training subjects are of one class, so there is only the majority.")
    else:
        left_out = [kind for kind in ("covariates", "phenotype") if kind not in tables]
        left_out += [f"{SVM}, which needs {INNER_FOLDS} training subjects of each class"] * (SVM not in fitting)
        if left_out:
            print(f"Floors left out: {'; '.join(left_out)}.")
    return pd.DataFrame(result, index=pd.Index([cohort.rows[index].file for index in test], name="file"))


def simulation_of(cohort: Cohort) -> Simulation | None:
    """What a cohort's people were drawn from, also after a swap or an encoder; None if they are real, or are no longer
    called as they were. Raises InputError for what describes no simulation."""
    made = next((source for source in cohort.metadata.lineage if "planted" in source), None)
    if not cohort.simulated or not made:
        return None
    try:
        simulation = files.typed(files.json_text(made.get("simulation")), Simulation)
    except ValueError as error:
        raise InputError(f"{cohort.path} is damaged: its simulation {error}. Make it again.") from error
    possible = simulation.seed >= 0 and simulation.subjects <= MAX_RECORDS
    return simulation if possible and {row.subject for row in cohort.rows} <= set(subject_names(simulation)) else None


def compare(
    label: np.ndarray,
    probability: np.ndarray,
    floors: pd.DataFrame,
    subject: Sequence[str],
    seed: int,
    fold: Sequence | None = None,
    site: Sequence[str] | None = None,
) -> list[dict]:
    """Rows of `floors.csv`: the model, then each floor, with intervals, and the model's AUC minus the floor's.

    `floors` are those of `predict`, a row a record, in the order of the other arguments (n,); a floor that some fold
    could not fit is left out. With folds, the AUC and its difference are given pooled and within folds (`_folds`).
    """
    names = ["auc", "accuracy", "balanced_accuracy", "brier"]
    names += ["auc_sites"] * (site is not None) + ["auc_folds"] * (fold is not None)
    minus = {MINUS: False} | ({f"{MINUS}_folds": True} if fold is not None else {})

    def scored(name: str, values: np.ndarray, less: dict[str, dict]) -> dict:
        found = with_intervals(label, values, subject, seed, fold, site)
        if name == MAJORITY:  # its constants differ between folds, but they rank nobody
            constant = with_intervals(label, np.zeros(len(label)), subject, seed, fold, site)
            found |= {key: value for key, value in constant.items() if key.startswith("auc")}
        return {"floor": name} | flat(found, names) | flat(less, list(less))

    rows = [scored(MODEL, probability, {key: dict.fromkeys(("value", "low", "high")) for key in minus})]
    for name, column in floors.dropna(axis=1).items():
        values = column.to_numpy()
        ranking = np.zeros(len(label)) if name == MAJORITY else values
        less = {
            key: difference(label, probability, ranking, subject, seed, fold, within) for key, within in minus.items()
        }
        rows.append(scored(str(name), values, less))
    return rows


def verdict(rows: Sequence[dict]) -> str:
    """One sentence on the rows of `compare`: whether the network beats chance, and which floors it does not beat.

    Of folds it goes by the AUC within them: pooled, probabilities of models that need not agree are ranked together.
    """
    within = "auc_folds" in rows[0]
    model, *others = [within_folds(row) if within else row for row in rows]
    floors = [row for row in others if row["floor"] not in (MAJORITY, RULE)]
    parts = [against_chance(model)]
    if model["auc_low"] is not None and floors:
        parts.append(against_floors(floors))
    parts += [
        f"the {RULE} reaches {row['auc']:.2f}" for row in others if row["floor"] == RULE and row["auc"] is not None
    ]
    return "; ".join(parts) + "." + " Each AUC is the mean of those within folds." * within


def within_folds(row: dict) -> dict:
    """A row of `compare` with the values within folds in place of the pooled ones."""
    own = {name.replace("_folds", ""): value for name, value in row.items() if "_folds" in name}
    return row | own


def against_chance(model: dict) -> str:
    if model["auc"] is None:
        return "The network's AUC is undefined, since the test subjects are of one class"
    if model["auc_low"] is None:
        return (
            f"The network's AUC is {model['auc']:.2f}, without an interval, since one class has a single test subject: "
            "nothing can be concluded"
        )
    does = "does" if model["auc_low"] > CHANCE else "does not do"
    return f"The network {does} better than chance: {auc_of(model)}"


def against_floors(floors: Sequence[dict]) -> str:
    unbeaten = [row for row in floors if row[f"{MINUS}_low"] <= 0]
    best = max(floors, key=lambda row: row["auc"])
    if len(floors) == 1:
        return f"it {'does not beat' if unbeaten else 'beats'} the only floor, {called(best)} ({auc_of(best)})"
    the_best = f"the best is {called(best)} ({auc_of(best)})"
    if not unbeaten:
        return f"it beats all {len(floors)} floors, of which {the_best}"
    if len(unbeaten) == len(floors):
        return f"it does not beat any of {len(floors)} floors, of which {the_best}"
    return f"it does not beat {len(unbeaten)} of {len(floors)} floors ({listed(map(called, unbeaten))}), {the_best}"


def called(row: dict) -> str:
    return row["floor"].replace(", ", " by ")


def auc_of(row: dict) -> str:
    return f"AUC {row['auc']:.2f}, {row['auc_low']:.2f} to {row['auc_high']:.2f}"


def listed(names: Iterable[str]) -> str:
    """`a, b and c`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def motion(
    label: np.ndarray,
    probability: np.ndarray,
    table: pd.DataFrame | None,
    site: Sequence[str],
    subject: Sequence[str],
) -> dict | None:
    """Whether the network's output says more of the diagnosis than the covariates do: a logistic regression.

    Of the label on the logit of the out-of-sample probability, in standard deviations, beside the covariates
    (`Cohort.covariates`) and the site where subjects suffice; records are (n,), their mean logit is the subject's.
    `coefficient` with `low`, `high`, `p`; `subjects`, `left_out` (a covariate unknown, or all of their site of one
    class), `covariates`, `without` (covariates not used) - or `reason`, why it cannot be computed. None if there are no
    covariates.
    """
    if table is None:
        return None
    from scipy.special import logit

    records = pd.DataFrame({"label": label, "site": list(site), "logit": logit(np.clip(probability, 1e-7, 1 - 1e-7))})
    everybody = records.groupby(np.asarray(subject)).agg({"label": "first", "site": "first", "logit": "mean"})
    known = covariates(everybody.index.tolist(), everybody["site"].tolist(), table)
    chosen = [name for name in known if known[name].notna().mean() >= KNOWN_ENOUGH]
    for names in (chosen, [name for name in chosen if name != "site"]):
        people = everybody[known[names].notna().all(axis=1)]
        if "site" in names:
            people = people[people.groupby("site")["label"].transform("nunique") == 2]
        values = independent(design(known.loc[people.index, names], people["logit"]))
        if len(people) and len(people) >= SUBJECTS_A_PARAMETER * values.shape[1]:
            break
    counts = {"subjects": len(people), "left_out": len(everybody) - len(people)}
    used = {"covariates": names, "without": [name for name in known if name not in names]}
    return regression(people["label"].to_numpy(), values) | counts | used


def design(known: pd.DataFrame, logit: pd.Series) -> pd.DataFrame:
    """Intercept, covariates (numbers as z-scores, text as dummies) and the network's logit, z-scored."""
    numbers = pd.get_dummies(known, drop_first=True, dtype=float) if len(known.columns) else known  # pandas needs one
    values = numbers.assign(logit=logit)
    values = (values - values.mean()) / values.std(ddof=0).replace(0, 1)
    values.insert(0, "intercept", 1.0)
    return values


def independent(values: pd.DataFrame) -> pd.DataFrame:
    """The columns without those that depend linearly on the ones before."""
    kept: list = []
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
    if len(label) < SUBJECTS_A_PARAMETER * values.shape[1]:
        return {"reason": f"{len(label)} subjects are too few for {values.shape[1]} parameters"}
    if values.columns.isin(["intercept", "logit"]).all():
        return {"reason": "no covariate can be used"}
    if "logit" not in values:
        return {"reason": "the network's output follows from the covariates, or is the same for everybody"}
    try:
        with warnings.catch_warnings():
            for category in (ModelWarning, RuntimeWarning):
                warnings.simplefilter("error", category)
            fit = Logit(label, values).fit(disp=0, maxiter=100)
    except (ModelWarning, RuntimeWarning, PerfectSeparationError, np.linalg.LinAlgError):
        return {"reason": "the covariates and the network's output separate the classes perfectly"}
    low, high = fit.conf_int(1 - INTERVAL).loc["logit"]
    numbers = {"coefficient": fit.params["logit"], "low": low, "high": high, "p": fit.pvalues["logit"]}
    return {name: float(value) for name, value in numbers.items()}


def motion_line(result: dict | None) -> str:
    """The result of `motion` in one line."""
    if result is None:
        return "Is it motion? That cannot be said: covariates are unknown."
    of_motion = any(HEAD_MOTION.search(name) for name in result["covariates"])
    question = "Is it motion?" if of_motion else "Is it the covariates? Head motion is not among them."
    if "reason" in result:
        return f"{question} It cannot be computed: {result['reason']}."
    more = "carries more than" if result["low"] > 0 else "is not shown to carry more than"
    beside = listed(result["covariates"]) if result["covariates"] else "nothing"
    notes = f"{result['subjects']} subjects"
    notes += f", {result['left_out']} left out" * bool(result["left_out"])
    notes += f", without {listed(result['without'] or [''])}" * bool(result["without"])
    return (
        f"{question} The network's output {more} {beside}: {result['coefficient']:.2f} log odds of autism a standard "
        f"deviation of its logit ({result['low']:.2f} to {result['high']:.2f}, p = {result['p']:.2g}; {notes})."
    )
