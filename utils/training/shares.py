"""What the parts of a classifier count in the mean of its logits, learned from the training people alone.

They are cut into five inner folds, as for the ridge regression of connectomes. A member of every part leaves out one
fold, so that its networks say of these people what they would say of new ones. A regression of labels on these z-scored
log odds, within sites, gives the weights, none below 0. A penalty, which counts as much as `PRIOR_PEOPLE` people,
holds them to those before. So a part that finds little counts little, and the fewer people, the less the weights
change.

Of a new person the log odds are a mean over members, and so a little less spread than those of one member. Calibrated
probabilities are a little too near to the middle for that reason.
"""

import numpy as np
from scipy.optimize import nnls

from data.cohorts.cohort import split_into_batches
from models.averaging import MeanOfLogits
from utils.runs.run import Run
from utils.scores.calibration import fit_platt
from utils.scores.ridge import (
    centre_labels_within_sites,
    fit_or_reuse_edge_classifier,
    read_labels_and_sites,
    subtract_site_means,
)
from utils.training.network import NetworkReader

PRIOR_PEOPLE = 500  # people whose squared errors weigh as much as the squared distance from the weights before
# correlation with the label that is expected of the mean before, at least, so that it holds the weights
MIN_PRIOR_CORRELATION = 0.1
MIN_LOG_ODDS_SD = 1e-6  # log odds; a part that differs less between people counts as one that does not
MIN_CALIBRATION_SLOPE = 0.05  # log odds a standard deviation: where nothing is found, the order of people is kept


def learn_branch_weights(
    run: Run, logit_mean_layer: MeanOfLogits, reader: NetworkReader, member_weights: np.ndarray
) -> dict[str, float]:
    """Sets what each part of a classifier counts, and returns it by the part's name: the weights of z-scored log odds,
    which sum to 1. Empty if people are too few. `reader` gives the logits of the parts. `member_weights` (records,
    members) is 0 where a member leaves a record out."""
    left_out_indices = np.flatnonzero((member_weights == 0).any(1))
    labels, sites = read_labels_and_sites(run.cohort, left_out_indices)
    if len(set(labels)) < 2:  # too few people for folds
        return {}
    prior_weights = np.array([branch.branch_weight for branch in logit_mean_layer.branches])  # (branches,)
    log_odds_weights, log_odds_bias, z_score_weight_fractions = fit_branch_weights(
        predict_left_out_log_odds(run, logit_mean_layer, reader, member_weights, left_out_indices),
        labels,
        sites,
        prior_weights,
    )
    logit_mean_layer.assign_branch_weights(log_odds_weights, log_odds_bias)
    return dict(
        zip(
            (branch.branch_name for branch in logit_mean_layer.branches), z_score_weight_fractions.tolist(), strict=True
        )
    )


def predict_left_out_log_odds(
    run: Run,
    logit_mean_layer: MeanOfLogits,
    reader: NetworkReader,
    member_weights: np.ndarray,
    record_indices: np.ndarray,
) -> np.ndarray:
    """The log odds of autism (n, parts) of `record_indices` (n,), by the networks of each part that left them out."""
    log_odds_per_batch = []
    index_batches = split_into_batches(record_indices, run.config.batch_size)
    for batch_indices, batch in zip(index_batches, reader.read_batches(index_batches), strict=True):
        is_left_out = member_weights[batch_indices] == 0  # (records of the batch, members)
        log_odds_per_branch = []
        for branch, branch_logits in zip(
            logit_mean_layer.branches, reader.network(reader.select_inputs(batch), training=False), strict=True
        ):
            log_odds = np.asarray(branch_logits, np.float64) @ (-1, 1)
            member_log_odds = log_odds.reshape(len(batch_indices), branch.input_count, -1).mean(1)  # (batch, members)
            log_odds_per_branch.append(np.sum(member_log_odds * is_left_out, 1) / is_left_out.sum(1))
        log_odds_per_batch.append(np.stack(log_odds_per_branch, 1))
    log_odds = np.concatenate(log_odds_per_batch)
    if "connectome" in reader.table_by_input:
        log_odds_by_record = fit_or_reuse_edge_classifier(
            run.cohort, reader.table_by_input["connectome"], run.cohort.find_split_record_indices("train")
        ).left_out_logit_by_record
        log_odds[:, -1] = [log_odds_by_record[record_index] for record_index in record_indices.tolist()]
    return log_odds


def fit_branch_weights(
    log_odds: np.ndarray, labels: np.ndarray, sites: np.ndarray, prior_weights: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray]:
    """Log odds (n, parts) of records that were left out, and the weights before, `prior_weights` -> the weights of log
    odds (parts,), the bias, and each part's share of the weights of z-scores."""
    log_odds_sd = log_odds.std(0)
    log_odds_sd[log_odds_sd < MIN_LOG_ODDS_SD] = 1
    z_scores = (log_odds - log_odds.mean(0)) / log_odds_sd  # (people, branches)
    site_centred_z_scores = subtract_site_means(z_scores, sites)
    site_centred_labels = centre_labels_within_sites(labels, sites)
    prior_combined_scores = site_centred_z_scores @ prior_weights
    z_score_weights = prior_weights
    if prior_combined_scores @ site_centred_labels > 0:  # else nothing is found
        prior_weights_factor = max(
            prior_combined_scores @ site_centred_labels,
            MIN_PRIOR_CORRELATION
            * np.sqrt((prior_combined_scores @ prior_combined_scores) * (site_centred_labels @ site_centred_labels)),
        ) / (prior_combined_scores @ prior_combined_scores)
        penalty_rows = np.sqrt(PRIOR_PEOPLE) * np.eye(len(prior_weights))
        penalty_targets = np.sqrt(PRIOR_PEOPLE) * prior_weights_factor * prior_weights
        z_score_weights, _ = nnls(
            np.vstack([site_centred_z_scores, penalty_rows]), np.concatenate([site_centred_labels, penalty_targets])
        )
    combined_scores = z_scores @ z_score_weights
    combined_sd = combined_scores.std() or 1
    platt_slope, platt_shift = fit_platt(combined_scores / combined_sd, labels)
    log_odds_weights = max(platt_slope, MIN_CALIBRATION_SLOPE) * z_score_weights / (log_odds_sd * combined_sd)
    return (
        log_odds_weights,
        float(platt_shift - log_odds_weights @ log_odds.mean(0)),
        z_score_weights / z_score_weights.sum(),
    )
