"""A control: labels permuted within sites, which honest predictions cannot tell.

How well predictions made elsewhere tell the labels of a control is compared with how well they tell labels that are
permuted once more, within site and fold. While the labels are permuted, the predictions stay as they are, though their
models were trained on people who are tested, too. As for intervals of folds (`utils/scores/metrics.py`), the spread of
the AUC is therefore widened.

Only an AUC above chance accuses. Honest models fall far below it by themselves: without somebody with autism the others
have less of it, and where features have little to choose between, all folds then err in the same direction.

A control tells true labels only as far as both happen to agree. Predictions that tell the true ones beyond that were
hardly made from the control. Yet where a few features tell the true labels well, an honest model that reads them may
follow these by chance, in either direction; hence the same widening here, and a doubt below it.
`tests/benchmarks/controls.py` counts how often honest predictions are accused, and how often leaks are found.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from utils.scores.conclusion import DOUBTFUL_P, ControlResult, ControlVerdict
from utils.scores.metrics import Predictions, compute_headline_auc
from utils.scores.results import finite_or_none
from utils.scores.statistics import permute_within_sites

PERMUTATION_COUNT = 999
ACCUSING_P = 0.001  # at most, for an accusation: the least that so many permutations can give
ROUNDING_ERROR = 1e-9  # of AUCs that are equal


def measure_control(predictions: Predictions, true_labels: np.ndarray, seed: int) -> ControlResult:
    """Whether predictions tell the labels of a control, `predictions.label`, or the `true_labels` (records,), 1 autism,
    0 control, of the same records; `seed` draws the permutations."""
    true_labels = np.asarray(true_labels, float)
    record_orders = draw_record_orders(predictions, seed)
    control_labels = predictions.label[record_orders]  # (1 + permutations, records)
    # (1 + permutations,) each, of which the first is that of the labels as they are
    control_aucs = compute_auc_within_sites(predictions, control_labels)
    true_label_aucs = compute_auc_within_sites(predictions, true_labels[record_orders])
    perfect_predictions = predictions.with_probabilities([predictions.label])
    perfect_aucs = compute_auc_within_sites(perfect_predictions, control_labels)

    widening = np.sqrt(predictions.compute_shared_training_factor())
    control_p = compute_widened_p(control_aucs, widening)
    # Labels of the control agree with the true ones by chance: who tells one of them well tells the other a little
    control_only_p = compute_widened_p(subtract_explained(control_aucs, true_label_aucs), widening)
    true_label_only_p = compute_widened_p(subtract_explained(true_label_aucs, control_aucs), widening)

    if true_label_only_p <= ACCUSING_P < control_only_p:
        verdict = ControlVerdict.FROM_TRUE_LABELS
    elif control_p <= ACCUSING_P:
        verdict = ControlVerdict.LEAK
    elif not compute_widened_p(perfect_aucs, widening) <= ACCUSING_P:
        verdict = ControlVerdict.CANNOT_TELL
    elif true_label_only_p <= DOUBTFUL_P:
        verdict = ControlVerdict.PERHAPS_FROM_TRUE_LABELS
    else:
        verdict = ControlVerdict.NO_LEAK_SHOWN

    metric, headline_auc = compute_headline_auc(predictions)
    _, true_label_headline_auc = compute_headline_auc(replace(predictions, label=true_labels))
    return ControlResult(
        metric=metric,
        auc=headline_auc,
        p=finite_or_none(control_p),
        true_label_auc=true_label_headline_auc,
        true_label_p=finite_or_none(true_label_only_p),
        verdict=verdict,
    )


def draw_record_orders(predictions: Predictions, seed: int) -> np.ndarray:
    """The records whose label each record gets (1 + permutations, records): its own first, then those of permutations.

    Labels are exchanged between subjects of one site and fold. Subjects of one cluster stay together, and the records
    of one subject have one label. The folds are those of the first repeat: cells of the folds of several are too small.
    """
    first_record_indices, subject_index_by_record = predictions.first_records_and_subject_indices
    record_table = pd.DataFrame({"site": predictions.site, "fold": predictions.fold_names[0]})
    cell_by_record = record_table.groupby(["site", "fold"]).ngroup().to_numpy()
    permuted_subjects = permute_within_sites(
        predictions.cluster[first_record_indices],
        cell_by_record[first_record_indices],
        PERMUTATION_COUNT,
        np.random.default_rng(seed),
    )  # (permutations, subjects)
    subject_orders = np.vstack([np.arange(len(first_record_indices)), permuted_subjects])
    return first_record_indices[subject_orders[:, subject_index_by_record]]


def compute_auc_within_sites(predictions: Predictions, labels: np.ndarray) -> np.ndarray:
    """The AUC within sites of each row of `labels` (k, records), 1 autism, 0 control: (k,), the mean over repeats; NaN
    where no site has both classes.

    It is that of `compute_mean_auc`, of many labels instead of many weights: the sum of the ranks of people with autism
    gives the AUC (Mann & Whitney 1947). Sites whose people are in several folds need not be divided by these, as for
    the headline AUC: what a fold's share of autism does to its model, it does to permutations within the fold, too.
    """
    weighted_auc_sum = np.zeros(len(labels))
    weight_sum = np.zeros(len(labels))
    for site_name in np.unique(predictions.site):
        row_mask = predictions.site == site_name
        site_labels = labels[:, row_mask]
        mean_ranks = rankdata(predictions.probabilities[:, row_mask], axis=1).mean(axis=0)
        autism_counts = site_labels.sum(1)  # they vary, as subjects with several records change places
        pair_counts = autism_counts * (row_mask.sum() - autism_counts)
        ordered_pair_counts = site_labels @ mean_ranks - autism_counts * (autism_counts + 1) / 2
        site_aucs = ordered_pair_counts / np.where(pair_counts > 0, pair_counts, np.inf)
        weighted_auc_sum += row_mask.sum() * site_aucs
        weight_sum += row_mask.sum() * (pair_counts > 0)
    return weighted_auc_sum / np.where(weight_sum > 0, weight_sum, np.nan)


def subtract_explained(aucs: np.ndarray, explaining_aucs: np.ndarray) -> np.ndarray:
    """What AUCs (1 + permutations,) have beyond those of other labels, of the same people in the same orders: residuals
    of a line that the permutations give, which relates both only as far as the labels agree."""
    centred_explaining_aucs = explaining_aucs - explaining_aucs[1:].mean()
    explaining_variance_sum = np.square(centred_explaining_aucs[1:]).sum()
    slope = aucs[1:] @ centred_explaining_aucs[1:] / max(explaining_variance_sum, ROUNDING_ERROR)
    return aucs - slope * centred_explaining_aucs


def compute_widened_p(statistics: np.ndarray, widening: float) -> float:
    """The share of permutations, all but the first of `statistics` (1 + permutations,), whose distance from their mean,
    `widening` times as large, reaches that of the first; this one counts as one of them. NaN if that is undefined."""
    if np.isnan(statistics).any():
        return np.nan
    distances = statistics - statistics[1:].mean()
    reaching_count = np.count_nonzero(widening * distances[1:] >= distances[0] - ROUNDING_ERROR)
    return (1 + reaching_count) / len(statistics)
