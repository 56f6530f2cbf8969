"""What the parts of a classifier count in the mean of its logits, learned from the training people alone.

They are cut into five inner folds, as for the ridge regression of connectomes. A member of every part leaves out one
fold, so that its networks say of these people what they would say of new ones. A regression of labels on these z-scored
log odds, within sites, gives the weights, none below 0. A penalty, which counts as much as `BEFORE` people, holds them
to those before. So a part that finds little counts little, and the fewer people, the less the weights change.

Of a new person the log odds are a mean over members, and so a little less spread than those of one member. Calibrated
probabilities are a little too near to the middle for that reason.
"""

import numpy as np
from scipy.optimize import nnls

from data.cohorts.cohort import split_into_batches
from models.averaging import MeanOfLogits
from utils.runs.run import Run
from utils.scores.calibration import platt
from utils.scores.ridge import centred, fit_edges, labels_and_sites, within_sites
from utils.training.network import Reading

BEFORE = 500  # people whose squared errors weigh as much as the squared distance from the weights before
WEAKEST = 0.1  # correlation with the label that is expected of the mean before, at least, so that it holds the weights
SMALLEST = 1e-6  # log odds; a part that differs less between people counts as one that does not
LEAST = 0.05  # log odds a standard deviation: where nothing is found, the order of people is kept


def learn(run: Run, mean: MeanOfLogits, reading: Reading, weight: np.ndarray) -> dict[str, float]:
    """Sets what each part of a classifier counts, and returns it by the part's name: the weights of z-scored log odds,
    which sum to 1. Empty if people are too few. `reading` gives the logits of the parts. `weight` (records, members)
    is 0 where a member leaves a record out."""
    records = np.flatnonzero((weight == 0).any(1))
    label, site = labels_and_sites(run.cohort, records)
    if len(set(label)) < 2:  # too few people for folds
        return {}
    before = np.array([part.branch_weight for part in mean.branches])
    shares, bias, of_scores = weights_of(left_out(run, mean, reading, weight, records), label, site, before)
    mean.assign(shares, bias)
    return dict(zip((part.branch_name for part in mean.branches), of_scores.tolist(), strict=True))


def left_out(run: Run, mean: MeanOfLogits, reading: Reading, weight: np.ndarray, records: np.ndarray) -> np.ndarray:
    """The log odds of autism (n, parts) of `records` (n,), by the networks of each part that left them out."""
    found, selections = [], split_into_batches(records, run.config.batch_size)
    for selection, batch in zip(selections, reading.batches(selections), strict=True):
        own = weight[selection] == 0
        of_parts = []
        for part, logits in zip(mean.branches, reading.network(reading.inputs(batch), training=False), strict=True):
            odds = np.asarray(logits, np.float64) @ (-1, 1)
            of_members = odds.reshape(len(selection), part.input_count, -1).mean(1)
            of_parts.append(np.sum(of_members * own, 1) / own.sum(1))
        found.append(np.stack(of_parts, 1))
    odds = np.concatenate(found)
    if "connectome" in reading.tables:
        of_edges = fit_edges(run.cohort, reading.tables["connectome"], run.cohort.split_indices("train")).left_out
        odds[:, -1] = [of_edges[record] for record in records.tolist()]
    return odds


def weights_of(
    odds: np.ndarray, label: np.ndarray, site: np.ndarray, before: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray]:
    """Log odds (n, parts) of records that were left out, and what parts count `before` -> what they count. It is the
    weights of log odds (parts,), the bias, and each part's share of the weights of z-scores."""
    spread = odds.std(0)
    spread[spread < SMALLEST] = 1
    scores = (odds - odds.mean(0)) / spread
    inside, target = centred(scores, site), within_sites(label, site)
    plain, weights = inside @ before, before
    if plain @ target > 0:  # else nothing is found
        scale = max(plain @ target, WEAKEST * np.sqrt((plain @ plain) * (target @ target))) / (plain @ plain)
        rows, held = np.sqrt(BEFORE) * np.eye(len(before)), np.sqrt(BEFORE) * scale * before
        weights, _ = nnls(np.vstack([inside, rows]), np.concatenate([target, held]))
    total = scores @ weights
    width = total.std() or 1
    slope, shift = platt(total / width, label)
    shares = max(slope, LEAST) * weights / (spread * width)
    return shares, float(shift - shares @ odds.mean(0)), weights / weights.sum()
