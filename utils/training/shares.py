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
from utils.runs.inference import NetworkReader
from utils.runs.run import Run
from utils.scores.calibration import fit_platt
from utils.scores.ridge import (
    centre_labels_within_sites,
    fit_or_reuse_edge_classifier,
    read_labels_and_sites,
    subtract_site_means,
)

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
    log_odds = predict_left_out_log_odds(run, logit_mean_layer, reader, member_weights, left_out_indices)
    log_odds_weights, log_odds_bias, branch_shares = fit_branch_weights(log_odds, labels, sites, prior_weights)
    logit_mean_layer.assign_branch_weights(log_odds_weights, log_odds_bias)
    branch_names = [branch.branch_name for branch in logit_mean_layer.branches]
    return dict(zip(branch_names, branch_shares.tolist(), strict=True))


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
        logits_per_branch = reader.network(reader.select_inputs(batch), training=False)
        log_odds_per_branch = []
        for branch, branch_logits in zip(logit_mean_layer.branches, logits_per_branch, strict=True):
            network_log_odds = np.asarray(branch_logits, np.float64) @ (-1, 1)  # (batch, networks)
            input_log_odds = network_log_odds.reshape(len(batch_indices), branch.input_count, -1)
            member_log_odds = input_log_odds.mean(1)  # (batch, members)
            log_odds_per_branch.append(np.sum(member_log_odds * is_left_out, 1) / is_left_out.sum(1))
        log_odds_per_batch.append(np.stack(log_odds_per_branch, 1))
    log_odds = np.concatenate(log_odds_per_batch)  # (records, branches)
    if "connectome" in reader.table_by_input:  # the last branch, of which there is one network
        train_indices = run.cohort.find_split_record_indices("train")
        ridge_fit = fit_or_reuse_edge_classifier(run.cohort, reader.table_by_input["connectome"], train_indices)
        left_out_log_odds = ridge_fit.left_out_logit_by_record
        log_odds[:, -1] = [left_out_log_odds[record_index] for record_index in record_indices.tolist()]
    return log_odds


def fit_branch_weights(
    log_odds: np.ndarray, labels: np.ndarray, sites: np.ndarray, prior_weights: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray]:
    """Log odds (n, parts) of records that were left out, and the weights before, `prior_weights` -> the weights of log
    odds (parts,), the bias, and each part's share of the weights of z-scores."""
    log_odds_sd = log_odds.std(0)
    log_odds_sd[log_odds_sd < MIN_LOG_ODDS_SD] = 1
    z_scores = (log_odds - log_odds.mean(0)) / log_odds_sd  # (people, branches)
    z_score_weights = fit_z_score_weights(z_scores, labels, sites, prior_weights)

    combined_scores = z_scores @ z_score_weights
    combined_sd = combined_scores.std() or 1
    platt_slope, platt_shift = fit_platt(combined_scores / combined_sd, labels)
    log_odds_weights = max(platt_slope, MIN_CALIBRATION_SLOPE) * z_score_weights / (log_odds_sd * combined_sd)
    log_odds_bias = float(platt_shift - log_odds_weights @ log_odds.mean(0))
    return log_odds_weights, log_odds_bias, z_score_weights / z_score_weights.sum()


def fit_z_score_weights(
    z_scores: np.ndarray, labels: np.ndarray, sites: np.ndarray, prior_weights: np.ndarray
) -> np.ndarray:
    """The weights (branches,), none below 0, of z-scores (people, branches) that tell labels apart within sites, held
    to `prior_weights` times a factor that fits the labels."""
    site_centred_z_scores = subtract_site_means(z_scores, sites)
    site_centred_labels = centre_labels_within_sites(labels, sites)
    prior_scores = site_centred_z_scores @ prior_weights  # (people,)
    prior_covariance = prior_scores @ site_centred_labels
    if not prior_covariance > 0:  # nothing is found, or it is not a number
        return prior_weights

    prior_variance = prior_scores @ prior_scores
    min_covariance = MIN_PRIOR_CORRELATION * np.sqrt(prior_variance * (site_centred_labels @ site_centred_labels))
    prior_weights_factor = max(prior_covariance, min_covariance) / prior_variance
    penalty_rows = np.sqrt(PRIOR_PEOPLE) * np.eye(len(prior_weights))
    penalty_targets = np.sqrt(PRIOR_PEOPLE) * prior_weights_factor * prior_weights
    predictors = np.vstack([site_centred_z_scores, penalty_rows])
    targets = np.concatenate([site_centred_labels, penalty_targets])
    z_score_weights, _ = nnls(predictors, targets)
    return z_score_weights
