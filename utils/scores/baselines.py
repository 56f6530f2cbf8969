"""Baselines: plain classifiers of the same subjects, with which every score is compared.

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
from utils.scores.calibration import fit_platt
from utils.scores.conclusion import RECORD_LIMIT_WARNING
from utils.scores.features import make_feature_encoder, make_feature_tables
from utils.scores.results import MAJORITY_BASELINE
from utils.scores.statistics import to_log_odds

LOGISTIC = "logistic regression"
RIDGE = "ridge"
SVM = "SVM"
MEAN_OF_SVMS = "mean of SVMs"
MEAN_OF_BRANCHES = "mean of parts"
RIDGE_FEATURE_KINDS = ("regions", "all")  # which ridge reads
CONNECTOME_FEATURE_KIND = "connectome"  # which ridge alone reads
LOGISTIC_STRENGTHS = np.logspace(-4, 0, EFFORT.strengths)  # of a logistic regression, the inverse of its penalty
MAX_SVM_RECORDS = 10_000  # for training; the time of an SVM grows with their square
INNER_FOLDS_TEXT = f"{EFFORT.inner_folds} inner folds"
SETTINGS_TEXT_BY_CLASSIFIER = {  # by the classifier's part of the names of baselines, for the methods of a paper
    LOGISTIC: f"L2 penalty, of {len(LOGISTIC_STRENGTHS)} strengths the one with the best mean AUC "
    f"in {INNER_FOLDS_TEXT}",
    RIDGE: f"of labels minus their mean (of each site, where known), of {len(ridge.RIDGE_PENALTIES)} penalties "
    f"the one with the least error in {INNER_FOLDS_TEXT}, probabilities calibrated there",
    SVM: "radial basis functions, C = 1, gamma scaled by the features' variance, probabilities calibrated over "
    f"{INNER_FOLDS_TEXT}, at most {MAX_SVM_RECORDS:,} training records",
    MEAN_OF_SVMS: "the mean log odds of such SVMs, one a map, and one of the phenotype if it is named",
    MEAN_OF_BRANCHES: "the mean log odds of these parts, as far as they are named: SVMs of regions, one a map (their "
    f"mean), the phenotype's SVM, the connectome's ridge; at most {ridge.MAX_EDGE_RECORDS:,} training records",
}


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """The training records that a classifier takes: positions among all of them, labels, sites, and inner folds."""

    positions: np.ndarray  # (records,), indices among all training records
    label: np.ndarray  # (records,), 1 autism, 0 control
    site: np.ndarray  # (records,), names
    inner_folds: ridge.InnerFoldIndices  # indices among the records of this set


def fit_logistic(training_features: np.ndarray, training_set: TrainingSet) -> ridge.LinearClassifier:
    """Logistic regression on features (n, features), with the strength that has the best mean AUC in the folds."""
    if training_features.shape[1] > len(training_features):  # an L2 penalty does not change with the axes
        coordinates, axes = ridge.find_record_axes(training_features @ training_features.T)
        axis_classifier = fit_logistic(coordinates, training_set)
        return ridge.LinearClassifier(training_features.T @ (axes @ axis_classifier.weights), axis_classifier.bias)
    logistic_search = LogisticRegressionCV(
        Cs=LOGISTIC_STRENGTHS,
        l1_ratios=(0,),
        cv=training_set.inner_folds,
        scoring="roc_auc",
        max_iter=1000,
        use_legacy_attributes=False,
    )
    logistic_search.fit(training_features, training_set.label)
    return ridge.LinearClassifier(logistic_search.coef_[0], float(logistic_search.intercept_[0]))


def predict_by_svm(training_features: np.ndarray, test_features: np.ndarray, training_set: TrainingSet) -> np.ndarray:
    """The probability of autism (n,) of records with `test_features` (n, features) by an SVM with fixed settings. It is
    calibrated over the inner folds, for all of which its kernel is computed once."""
    training_features = training_features[training_set.positions]
    gamma = 1 / (training_features.shape[1] * (training_features.var() or 1))  # scikit-learn's "scale"
    kernel = rbf_kernel(training_features, gamma=gamma)
    decision_values = np.empty(len(training_set.label))
    for fit_indices, left_out_indices in training_set.inner_folds:
        fold_svm = SVC(C=1, kernel="precomputed").fit(
            kernel[np.ix_(fit_indices, fit_indices)], training_set.label[fit_indices]
        )
        decision_values[left_out_indices] = fold_svm.decision_function(kernel[np.ix_(left_out_indices, fit_indices)])
    full_svm = SVC(C=1, kernel="precomputed").fit(kernel, training_set.label)
    slope, shift = fit_platt(decision_values, training_set.label)
    return expit(slope * full_svm.decision_function(rbf_kernel(test_features, training_features, gamma)) + shift)


def make_training_sets(training_rows: Sequence[RecordRow], cluster_id_by_record: np.ndarray) -> list[TrainingSet]:
    """The training sets of linear classifiers and of SVMs, from training records with these rows, of these clusters of
    people (n,). SVMs take at most `MAX_SVM_RECORDS` of them, drawn at random. Empty if they are too few for inner
    folds."""
    training_sets = []
    for max_record_count in (len(training_rows), MAX_SVM_RECORDS):
        positions = np.sort(np.random.default_rng(0).permutation(len(training_rows))[:max_record_count])
        label = np.array([training_rows[position].label for position in positions])
        site = np.array([training_rows[position].site for position in positions])
        inner_folds = ridge.make_inner_folds(label, cluster_id_by_record[positions])
        training_sets.append(TrainingSet(positions, label, site, inner_folds))
    return training_sets if all(training_set.inner_folds for training_set in training_sets) else []


def describe_record_limits(training_record_count: int, has_connectomes: bool = False) -> list[str]:
    """What must be said beside baselines with `training_record_count` training records, the most of any fold."""
    record_limit_by_classifier = {"SVM": MAX_SVM_RECORDS} | (
        {"ridge on connectomes": ridge.MAX_EDGE_RECORDS} if has_connectomes else {}
    )
    return [
        RECORD_LIMIT_WARNING.format(classifier, record_limit, training_record_count)
        for classifier, record_limit in record_limit_by_classifier.items()
        if training_record_count > record_limit
    ]


def predict_baselines(cohort: Cohort, training_cohort: Cohort | None = None) -> pd.DataFrame:
    """Probability of autism of the test records (rows by file, in their order) by each baseline (columns).

    `majority`, then `<features>, <classifier>`. Baselines are fitted on the cohort's own training records, or on those
    of `training_cohort`, see `utils.evaluation.comparisons.load_training_cohort`. Prints what had to be left out.
    """
    fitting_cohort = training_cohort or cohort
    feature_cohorts = (training_cohort, cohort) if training_cohort else (cohort,)
    training_indices = fitting_cohort.find_split_record_indices("train")
    test_indices = cohort.find_split_record_indices("test")
    training_rows = [fitting_cohort.rows[index] for index in training_indices]
    probability_by_baseline = {
        MAJORITY_BASELINE: np.full(len(test_indices), np.mean([row.label for row in training_rows]))
    }
    if training_sets := make_training_sets(
        training_rows, ridge.find_record_cluster_ids(fitting_cohort, training_indices)
    ):
        feature_tables = make_feature_tables(*feature_cohorts)
        probability_by_baseline |= predict_feature_baselines(
            training_sets,
            feature_tables,
            training_indices,
            test_indices + (len(fitting_cohort.rows) if training_cohort else 0),
            cohort.num_maps,
        )
        probability_by_baseline |= predict_connectome_baselines(probability_by_baseline, fitting_cohort, cohort)
    prediction_table = pd.DataFrame(
        probability_by_baseline, index=pd.Index([cohort.rows[index].file for index in test_indices], name="file")
    )
    print_left_out_baselines(prediction_table, fitting_cohort.connectomes is not None)
    return prediction_table


def print_left_out_baselines(prediction_table: pd.DataFrame, has_connectomes: bool) -> None:
    """Prints which baselines a table of `predict_baselines` lacks; `has_connectomes` tells whether the cohort has any
    on which they are fitted."""
    if list(prediction_table) == [MAJORITY_BASELINE]:
        print("Baselines: too few training participants of a class to choose penalties, so there is only the majority.")
        return
    needed_baseline_by_feature_kind = {kind: f"{kind}, {LOGISTIC}" for kind in ("covariates", "phenotype")}
    if has_connectomes:
        needed_baseline_by_feature_kind[CONNECTOME_FEATURE_KIND] = f"{CONNECTOME_FEATURE_KIND}, {RIDGE}"
    left_out_feature_kinds = [
        feature_kind
        for feature_kind, needed_baseline in needed_baseline_by_feature_kind.items()
        if needed_baseline not in prediction_table
    ]
    if left_out_feature_kinds:
        print(f"Baselines left out: {'; '.join(left_out_feature_kinds)}.")


def predict_feature_baselines(
    training_sets: Sequence[TrainingSet],
    feature_tables: dict[str, pd.DataFrame],
    training_indices: np.ndarray,
    test_indices: np.ndarray,
    map_count: int,
) -> dict[str, np.ndarray]:
    """Probabilities of the records at `test_indices` by each baseline that is fitted on those at `training_indices`."""
    full_training_set, svm_training_set = training_sets
    probability_by_baseline: dict[str, np.ndarray] = {}
    map_probabilities: list[np.ndarray] = []  # (test records,) of each map
    # Threads of linear algebra cost more than they gain at this size, much more where other programs run
    with open_progress_bar("Fitting baselines", len(feature_tables)) as progress_bar, threadpool_limits(1, "blas"):
        for feature_kind, feature_table in feature_tables.items():
            fitted_encoder = make_feature_encoder().fit(feature_table.iloc[training_indices])
            training_features, test_features = (
                fitted_encoder.transform(feature_table.iloc[record_indices])
                for record_indices in (training_indices, test_indices)
            )
            full_set_features = training_features[full_training_set.positions]
            probability_by_baseline[f"{feature_kind}, {LOGISTIC}"] = expit(
                fit_logistic(full_set_features, full_training_set).predict_log_odds(test_features)
            )
            if feature_kind in RIDGE_FEATURE_KINDS:
                ridge_classifier = ridge.fit_ridge(
                    full_set_features, full_training_set.label, full_training_set.site, full_training_set.inner_folds
                )
                probability_by_baseline[f"{feature_kind}, {RIDGE}"] = expit(
                    ridge_classifier.predict_log_odds(test_features)
                )
            probability_by_baseline[f"{feature_kind}, {SVM}"] = predict_by_svm(
                training_features, test_features, svm_training_set
            )
            if feature_kind == "regions" and map_count > 1:
                map_probabilities = [
                    predict_by_svm(
                        training_features[:, map_index::map_count],
                        test_features[:, map_index::map_count],
                        svm_training_set,
                    )
                    for map_index in range(map_count)
                ]
                probability_by_baseline[f"regions, {MEAN_OF_SVMS}"] = pool_probabilities(map_probabilities)
            progress_bar.advance()
    if {"phenotype", "regions"} <= feature_tables.keys():
        region_probabilities = map_probabilities or [probability_by_baseline[f"regions, {SVM}"]]
        probability_by_baseline[f"regions and phenotype, {MEAN_OF_SVMS}"] = pool_probabilities(
            [*region_probabilities, probability_by_baseline[f"phenotype, {SVM}"]]
        )
    return probability_by_baseline


def predict_connectome_baselines(
    probability_by_baseline: dict[str, np.ndarray], fitting_cohort: Cohort, test_cohort: Cohort
) -> dict[str, np.ndarray]:
    """Probabilities of the test records of `test_cohort` by the edges of connectomes, fitted on training records of
    `fitting_cohort`: first by edges alone, then by the mean of these and of those by maps and phenotype, as far
    as they are in `probability_by_baseline`. Empty unless both cohorts have the same edges."""
    has_same_edges = fitting_cohort.metadata.select_fields_for_inputs(
        [CONNECTOME_FEATURE_KIND]
    ) == test_cohort.metadata.select_fields_for_inputs([CONNECTOME_FEATURE_KIND])
    if not has_same_edges or fitting_cohort.connectomes is None or test_cohort.connectomes is None:
        return {}
    edge_classifier = ridge.fit_or_reuse_edge_classifier(
        fitting_cohort, fitting_cohort.connectomes, fitting_cohort.find_split_record_indices("train")
    )
    connectome_probabilities = expit(
        edge_classifier.predict_log_odds(test_cohort.connectomes, test_cohort.find_split_record_indices("test"))
    )
    connectome_baseline = {f"{CONNECTOME_FEATURE_KIND}, {RIDGE}": connectome_probabilities}

    # one branch for each input, as networks have them
    region_baseline = f"regions, {MEAN_OF_SVMS}"
    if region_baseline not in probability_by_baseline:
        region_baseline = f"regions, {SVM}"
    probabilities_by_branch = {
        "regions": probability_by_baseline.get(region_baseline),
        CONNECTOME_FEATURE_KIND: connectome_probabilities,
        "phenotype": probability_by_baseline.get(f"phenotype, {SVM}"),
    }
    present_branches = [branch for branch, values in probabilities_by_branch.items() if values is not None]
    other_branches = [branch for branch in present_branches if branch != CONNECTOME_FEATURE_KIND]
    if not other_branches:
        return connectome_baseline
    mean_probabilities = pool_probabilities([probabilities_by_branch[branch] for branch in present_branches])
    feature_kinds_text = f"{' with '.join(other_branches)} and {CONNECTOME_FEATURE_KIND}"
    return connectome_baseline | {f"{feature_kinds_text}, {MEAN_OF_BRANCHES}": mean_probabilities}


def pool_probabilities(probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """The probability (n,) whose log odds are the mean of those of probabilities (n,) of several classifiers."""
    return expit(to_log_odds(np.asarray(probabilities)).mean(0))
